//! `run`: claims the office, starts a command that does not outlive it, and stays with it.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

use rusqlite::Connection;

use super::args::{self, Global};
use super::keeper::document;
use super::lock;
use super::output::{self, Format, Outcome, exit};
use crate::clock::Deadline;
use crate::environment;
use crate::error::{Error, Result};
use crate::holder::Holder;
use crate::instance::{End, EndReason};
use crate::office::{Claim, ClaimOptions, Profile, Tenure};
use crate::scoped;
use crate::standing::{Lost, Released, Standing};
use crate::store::{Store, with_budget};
use crate::sys::supervise::{self, HeldCommand};
use crate::sys::{self, ChildEnd, ExecFailure, Received, StartTime};
use crate::wait::data_version;

/// Between two looks whether the office is still held.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Between two full verifications; in between only what costs next to nothing is looked at.
const VERIFY_EVERY: Duration = Duration::from_secs(1);

/// How long a look may wait for the store's locks; what it could not see it looks at again.
const LOOK_BUDGET: Duration = Duration::from_millis(200);

/// What reaches the run, and a sender to wake it.
struct Inbox {
    received: Receiver<Received>,
    waker: Sender<Received>,
}

pub(super) fn run(global: &Global, arguments: &args::Run, format: Format) -> Outcome {
    if arguments.command.first().is_none_or(|program| program.is_empty()) {
        return Err(Error::invalid("the command is empty")
            .with_hint("name it after `--`, e.g. `incumbent run -- my-gateway --serve`")
            .into());
    }
    global.check()?;
    let options = ClaimOptions::new()
        .kind(global.kind()?)
        .stop_budget(arguments.stop_budget)
        .wait(arguments.wait.unwrap_or_default())
        .for_run(lock::requests(arguments)?);
    options.stop_budget_ms()?;
    let (waker, received) = mpsc::channel();
    supervise::catch_signals(waker.clone())
        .map_err(|error| Error::internal(format!("cannot catch signals: {error}")))?;
    let inbox = Inbox { received, waker };
    let store = global.options().open()?;
    let profile = global.profile(&store)?;
    if !arguments.no_backoff
        && let Some(signal) = sit_out_storm(&profile, &options, &inbox)?
    {
        return Ok(128 + signal);
    }
    let tenure = match claim(&profile, &options, &inbox)? {
        Claimed::Granted(tenure) => tenure,
        Claimed::Held(holder) => {
            return refused(&holder, format, i32::from(arguments.refused_exit_code));
        }
        Claimed::Signalled(signal) => return Ok(128 + signal),
    };
    if let Some(evicted) = tenure.evicted().filter(|evicted| evicted.reason != "re_executed") {
        let pid = evicted.pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}"));
        output::tell(&format!(
            "incumbent: run: {}: took the place of {pid}, which is dead ({})\n",
            tenure.office(),
            evicted.reason.replace('_', " ")
        ));
    }
    for lock in tenure.locks() {
        if let Some(evicted) = &lock.evicted {
            let pid =
                evicted.pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}"));
            output::tell(&format!(
                "incumbent: run: {}: took the place of {pid}, which is dead ({})\n",
                lock.name,
                evicted.reason.replace('_', " ")
            ));
        }
    }
    // Everything that can fail comes before the command: once it runs, the office must not be
    // released under it.
    let watcher = store.inner.watcher()?;
    let running = match start(&arguments.command, &tenure, &store) {
        Ok(Some(child)) => Running {
            global,
            options,
            watcher,
            data_version: None,
            store,
            tenure,
            child,
            verify_at: Deadline::after(VERIFY_EVERY),
            asked_to_end: None,
            ending: None,
            doubt_told: false,
        },
        Ok(None) => {
            let error = Error::new(
                crate::ErrorKind::NotOwner,
                "the office was lost before the command started",
            );
            output::show_error(format, "run", &error);
            return Ok(i32::from(arguments.refused_exit_code));
        }
        Err(NotStarted::Error(error)) => return Err(error.into()),
        Err(NotStarted::Exec(failure)) => {
            return Ok(not_executed(tenure, &failure, arguments, format));
        }
    };
    running.supervise(&inbox)
}

enum Claimed {
    Granted(Tenure),
    Held(Box<Holder>),
    Signalled(i32),
}

/// Claims, waiting if asked to; a signal that asks us to end ends the wait.
fn claim(profile: &Profile, options: &ClaimOptions, inbox: &Inbox) -> Result<Claimed> {
    let (claim, signal) = if options.wait.waits() {
        let waker = inbox.waker.clone();
        let (answer, answered) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = answer.send(profile.claim_with(options));
                // Wakes the loop below, which then finds the answer.
                let _ = waker.send(Received::ChildEnded);
            });
            let mut signal = None;
            loop {
                match answered.try_recv() {
                    Ok(claim) => break (claim, signal),
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => {
                        break (Err(Error::internal("the claiming thread panicked")), signal);
                    }
                }
                match inbox.received.recv_timeout(LOOK_EVERY) {
                    Ok(Received::Signal { number, .. }) if supervise::asks_to_end(number) => {
                        signal = Some(number);
                        options.cancel.cancel();
                    }
                    // As PID 1 we reap orphans while we wait, too.
                    Ok(Received::ChildEnded) => drop(supervise::reap()),
                    Ok(Received::Signal { .. }) | Err(_) => {}
                }
            }
        })
    } else {
        (profile.claim_with(options), None)
    };
    Ok(match (claim?, signal) {
        // Granted in the very moment of the signal: dropping the tenure releases it.
        (Claim::Granted(_) | Claim::Held(_), Some(signal)) => Claimed::Signalled(signal),
        (Claim::Granted(tenure), None) => Claimed::Granted(tenure),
        (Claim::Held(holder), None) => Claimed::Held(holder),
    })
}

fn refused(holder: &Holder, format: Format, code: i32) -> Outcome {
    match format {
        Format::Json => {
            output::print(format, "", &document(None, None, None, Some(holder)))?;
        }
        Format::Text => {
            output::tell(&format!("incumbent: run: {holder}\n  try:   {}\n", holder.advice()));
        }
    }
    Ok(code)
}

/// Waits out the backoff of a storm that our party is in. Returns the signal that ended the wait.
fn sit_out_storm(profile: &Profile, options: &ClaimOptions, inbox: &Inbox) -> Result<Option<i32>> {
    let kind = &options.kind;
    let inner = &profile.store().inner;
    let Some(storm) = profile.storm(kind, inner.myself())? else { return Ok(None) };
    let remaining_ms = storm.remaining_ms(inner.clock().boot_ms());
    if remaining_ms == 0 {
        return Ok(None);
    }
    // Nobody is kept out of a free office by a storm that was about its holder.
    let is_over = || {
        Ok::<_, Error>(
            storm.after_refusal
                && profile.status_of(kind)?.verdict == "dead"
                && !scoped::any_is_held(inner, &options.locks)?,
        )
    };
    if is_over()? {
        return Ok(None);
    }
    output::tell(&format!(
        "incumbent: run: {} starts in a row got nowhere: waiting {} before the next \
         (`--no-backoff` starts at once)\n",
        storm.starts,
        output::length(i64::try_from(remaining_ms).unwrap_or(i64::MAX)),
    ));
    let until = Deadline::after(Duration::from_millis(remaining_ms));
    while !until.has_passed() && !is_over()? {
        match inbox.received.recv_timeout(LOOK_EVERY.min(until.remaining())) {
            Ok(Received::Signal { number, .. }) if supervise::asks_to_end(number) => {
                return Ok(Some(number));
            }
            Ok(Received::Signal { .. } | Received::ChildEnded) | Err(_) => {}
        }
    }
    Ok(None)
}

/// The started command.
#[derive(Clone, Copy, Debug)]
struct Child {
    pid: sys::Pid,
    start_time: Option<StartTime>,
}

enum NotStarted {
    Error(Error),
    Exec(ExecFailure),
}

/// Starts the command once its pid is on record: from then on a claimant can find it, whatever
/// happens to us. `None`: the office was lost meanwhile, and nothing was started.
fn start(
    command: &[OsString],
    tenure: &Tenure,
    store: &Store,
) -> std::result::Result<Option<Child>, NotStarted> {
    let office = tenure.office();
    let environment: [(&str, OsString); 5] = [
        (environment::DB, store.path().into()),
        ("INCUMBENT_PROFILE", office.profile.as_str().into()),
        ("INCUMBENT_KIND", office.kind.as_str().into()),
        (environment::INSTANCE, tenure.instance().to_string().into()),
        (environment::TOKEN, tenure.nonce().to_hex().into()),
    ];
    let held = HeldCommand::spawn(command, &environment)
        .map_err(|error| NotStarted::Exec(ExecFailure(error)))?;
    let child = Child { pid: held.pid(), start_time: held.start_time() };
    match tenure.set_child(child.pid, child.start_time) {
        Ok(true) => {}
        // Dropping the held command lets the trampoline go without the command.
        Ok(false) => return Ok(None),
        Err(error) => return Err(NotStarted::Error(error)),
    }
    held.release().map_err(NotStarted::Exec)?;
    Ok(Some(child))
}

fn not_executed(
    tenure: Tenure,
    failure: &ExecFailure,
    arguments: &args::Run,
    format: Format,
) -> i32 {
    let code = failure.exit_code();
    let program = arguments.command.first().map(|program| program.to_string_lossy().into_owned());
    let message = format!("cannot execute {:?}: {}", program.unwrap_or_default(), failure.0);
    let hint = "look at the path, the mode and the interpreter of the command";
    output::show_error(format, "run", &Error::invalid(message.clone()).with_hint(hint));
    let mut end = End::new(EndReason::Exited).detail(message);
    end.exit_code = Some(code);
    report_release(tenure.end(&end));
    code
}

fn report_release(released: Result<Released>) {
    match released {
        Ok(Released::Free | Released::StillShared | Released::WasLost) => {}
        Ok(Released::Pending(error)) | Err(error) => output::tell(&format!(
            "incumbent: run: the end could not be recorded ({error}); the office is free all the \
             same, and the next claim records it\n"
        )),
    }
}

/// A run with its command.
struct Running<'a> {
    global: &'a Global,
    options: ClaimOptions,
    watcher: Connection,
    data_version: Option<i64>,
    store: Store,
    tenure: Tenure,
    child: Child,
    verify_at: Deadline,
    /// The last forwarded signal that asks to end, and who sent it.
    asked_to_end: Option<(i32, Option<sys::Pid>)>,
    ending: Option<Ending>,
    doubt_told: bool,
}

/// The office is lost: the command is being ended.
struct Ending {
    kill_at: Deadline,
    killed: bool,
}

impl Running<'_> {
    fn supervise(mut self, inbox: &Inbox) -> Outcome {
        loop {
            match inbox.received.recv_timeout(LOOK_EVERY) {
                Ok(Received::ChildEnded) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Received::Signal { number, from_terminal, sender }) => {
                    self.forward(number, from_terminal, sender);
                }
                // The signal thread never ends; if it did, we would still look.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
            }
            let ours = supervise::reap().into_iter().find(|(pid, _)| *pid == self.child.pid);
            if let Some((_, end)) = ours {
                return Ok(self.finish(end));
            }
            match &mut self.ending {
                // Signals and the command's end must not wait for a busy store.
                None => with_budget(LOOK_BUDGET, || self.look_after_tenure()),
                Some(ending) if !ending.killed && ending.kill_at.has_passed() => {
                    ending.killed = true;
                    output::tell("incumbent: run: the stop budget is spent, killing the command\n");
                    let _ = self.signal(supervise::KILL);
                }
                Some(_) => {}
            }
        }
    }

    fn forward(&mut self, signal: i32, from_terminal: bool, sender: Option<sys::Pid>) {
        if supervise::asks_to_end(signal) {
            self.asked_to_end = Some((signal, sender));
        }
        if !from_terminal {
            let _ = self.signal(signal);
        }
    }

    fn signal(&self, signal: i32) -> std::io::Result<()> {
        supervise::signal_child(self.child.pid, signal).inspect_err(|error| {
            tracing::debug!(signal, %error, "the command could not be signalled");
        })
    }

    /// Looks whether the office is still ours: at what costs next to nothing every time, at
    /// everything once a second.
    fn look_after_tenure(&mut self) {
        let version = data_version(&self.watcher).ok();
        let quiet =
            version.is_some() && version == self.data_version && self.store.inner.is_at_its_path();
        if quiet && !self.verify_at.has_passed() {
            return;
        }
        self.data_version = version;
        self.verify_at = Deadline::after(VERIFY_EVERY);
        match self.tenure.verify() {
            Ok(Standing::Held) => self.doubt_told = false,
            Ok(Standing::Lost(Lost::StoreReplaced)) => self.claim_in_new_store(),
            Ok(Standing::Lost(lost)) => self.end_command(&lost.to_string()),
            // Not knowing is not losing: the anchor is ours, nobody else can claim.
            Err(error) if !self.doubt_told => {
                self.doubt_told = true;
                output::tell(&format!("incumbent: run: cannot look at the store: {error}\n"));
            }
            Err(_) => {}
        }
    }

    /// The store was deleted or replaced under us: go on in the new one, with the same anchor, if
    /// nobody else holds the office there.
    fn claim_in_new_store(&mut self) {
        match self.try_new_store() {
            Ok(None) => output::tell(&format!(
                "incumbent: run: the store was deleted or replaced; {} is claimed again in the \
                 new one\n",
                self.tenure.office()
            )),
            Ok(Some(holder)) => self.end_command(&format!(
                "the store was deleted or replaced, and in the new one {holder}"
            )),
            Err(error) if !self.doubt_told => {
                self.doubt_told = true;
                output::tell(&format!(
                    "incumbent: run: the store was deleted or replaced, and the new one cannot \
                     be claimed yet: {error}\n"
                ));
            }
            Err(_) => {}
        }
    }

    fn try_new_store(&mut self) -> Result<Option<Box<Holder>>> {
        let store = self.global.options().path(self.store.path()).open()?;
        let profile = self.global.profile(&store)?;
        let mut options = self.options.clone().wait(crate::wait::Wait::No);
        // Not what was let go since; and with the same proof, so that verbs of the command that runs
        // still act for us.
        let held = self.tenure.locks();
        options.locks.retain(|lock| held.iter().any(|held| held.name == *lock.name()));
        options.nonce = Some(self.tenure.nonce().clone());
        match profile.claim_with(&options)? {
            Claim::Held(holder) => Ok(Some(holder)),
            Claim::Granted(tenure) => {
                if !tenure.set_child(self.child.pid, self.child.start_time)? {
                    return Err(Error::internal("the office was lost again"));
                }
                self.watcher = store.inner.watcher()?;
                self.data_version = None;
                std::mem::replace(&mut self.tenure, tenure).abandon();
                self.store = store;
                Ok(None)
            }
        }
    }

    fn end_command(&mut self, why: &str) {
        output::tell(&format!(
            "incumbent: run: {} was lost: {why}; ending the command (pid {})\n",
            self.tenure.office(),
            self.child.pid
        ));
        // Where nobody can be asked to end (Windows), waiting for it would only prolong the time in
        // which two act for one office.
        if self.signal(supervise::TERMINATE).is_err_and(|e| e.kind() == ErrorKind::Unsupported) {
            let _ = self.signal(supervise::KILL);
        }
        self.ending =
            Some(Ending { kill_at: Deadline::after(self.options.stop_budget), killed: false });
    }

    /// Records how the command ended and passes its exit code on.
    fn finish(self, end: ChildEnd) -> i32 {
        let code = match end {
            ChildEnd::Exited(code) => code,
            ChildEnd::Signalled(signal) => 128 + signal,
        };
        if self.ending.is_some() {
            drop(self.tenure);
            return exit::NOT_NOW;
        }
        report_release(self.tenure.end(&how_it_ended(end, self.asked_to_end)));
        code
    }
}

fn how_it_ended(end: ChildEnd, asked_to_end: Option<(i32, Option<sys::Pid>)>) -> End {
    let mut how = match (end, asked_to_end) {
        (_, Some((signal, sender))) => {
            let mut how = End::new(EndReason::Signalled);
            how.signal = Some(signal);
            how.by = sender.map(|pid| {
                let command = sys::command_line(pid).map(|arguments| {
                    crate::command_line::display(&crate::command_line::redact(&arguments))
                });
                match command {
                    Some(command) => format!("pid {pid} ({command})"),
                    None => format!("pid {pid}"),
                }
            });
            how
        }
        (ChildEnd::Signalled(signal), None) => {
            let reason =
                if supervise::is_fault(signal) { EndReason::Crashed } else { EndReason::Signalled };
            let mut how = End::new(reason);
            how.signal = Some(signal);
            how
        }
        (ChildEnd::Exited(_), None) => End::new(EndReason::Exited),
    };
    how.exit_code = match end {
        ChildEnd::Exited(code) => Some(code),
        ChildEnd::Signalled(_) => None,
    };
    how
}
