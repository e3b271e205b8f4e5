//! `run`: claims the office, starts a command that does not outlive it, and stays with it.

pub(crate) mod end;
pub(crate) mod new_store;
mod older;
pub(crate) mod requests;
pub(crate) mod restart;
mod running;

use std::ffi::OsString;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::claim::examine::{ATTEMPTS, Evicted, changes_too_fast};
use crate::claim::older as claim_older;
use crate::cli::advice::Invocation;
use crate::cli::args::Global;
use crate::cli::keeper::document;
use crate::cli::output::{Answer, Complaint, Format, Outcome};
use crate::cli::run::running::{LOOK_BUDGET, Running};
use crate::cli::{args, identity, output};
use crate::clock::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::forensics::snapshot::received;
use crate::forensics::{Fact, systemd};
use crate::office::claim::Claim;
use crate::office::options::{ClaimOptions, Replace};
use crate::office::profile::Profile;
use crate::office::tenure::Tenure;
use crate::owner::holder::Holder;
use crate::patience::Cancel;
use crate::process::command_lock::LockFile;
use crate::process::exit_code::{ExitCause, ExitCodes, ExitRule, Supervisor};
use crate::process::older::hold;
use crate::process::older::hold::Hold;
use crate::process::older::wire::Owner;
use crate::records::identities::Identities;
use crate::records::instances::{Command, CommandLock, End, EndReason};
use crate::records::profiles::Desired;
use crate::scoped::ask;
use crate::store::Store;
use crate::store::busy::with_budget;
use crate::store::held::Released;
use crate::sync::lock as lock_of;
use crate::sys::supervise::HeldCommand;
use crate::sys::{Caught, ExecFailure, Received, Shortage, signals, supervise};
use crate::{environment, sys};

/// Between two looks at what may have changed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What reaches the run, from the thread that catches signals.
struct Inbox {
    received: Receiver<Event>,
    /// The wait for the office, which a signal ends: this thread waits itself, because there may be no other
    /// one (FIELD-BUGS row 111).
    waiting: Arc<Mutex<Option<Cancel>>>,
}

impl Inbox {
    fn open() -> Result<Self> {
        let (sender, received) = mpsc::channel();
        let waiting = Arc::<Mutex<Option<Cancel>>>::default();
        let seen_waiting = Arc::clone(&waiting);
        let on_event = move |received: Received| {
            let event = Event::from(received);
            let asks_to_end = matches!(&event, Event::Signal(signal) if signal.received.is_some());
            // Held while it reaps: once the wait is over, the command's end is the run's own.
            let waiting = lock_of(&seen_waiting);
            if waiting.is_some() && matches!(event, Event::ChildEnded) {
                // As PID 1 we reap orphans while we wait, too.
                drop(supervise::reap());
            }
            drop(sender.send(event));
            if let Some(cancel) = waiting.as_ref().filter(|_| asks_to_end) {
                cancel.cancel();
            }
        };
        let catcher =
            supervise::catch_signals(on_event).map_err(|error| match Shortage::of(&error) {
                Some(shortage) => Error::shortage(shortage, "catch signals"),
                None => Error::internal(format!("cannot catch signals: {error}")),
            })?;
        // For as long as we live: one that comes while we end does not change what we end with.
        std::mem::forget(catcher);
        Ok(Self { received, waiting })
    }

    /// Waits by `wait`, which a signal that asks us to end cancels; that signal.
    fn while_waiting<T>(
        &self,
        cancel: &Cancel,
        wait: impl FnOnce() -> T,
    ) -> (T, Option<Signalled>) {
        *lock_of(&self.waiting) = Some(cancel.clone());
        let before = self.request_to_end();
        if before.is_some() {
            cancel.cancel();
        }
        let waited = wait();
        *lock_of(&self.waiting) = None;
        (waited, self.request_to_end().or(before))
    }

    /// The last signal that came until now and asks us to end. Nothing else matters before the start.
    fn request_to_end(&self) -> Option<Signalled> {
        let signals = self.received.try_iter().filter_map(|event| match event {
            Event::Signal(signal) => Signalled::of(&signal),
            Event::ChildEnded => None,
        });
        signals.last()
    }
}

/// What reaches the run.
enum Event {
    ChildEnded,
    Signal(Signal),
}

/// A signal, and who sent it: whoever only sends one has ended by the time anybody else looks. All the
/// rest is looked at when it was passed on.
struct Signal {
    caught: Caught,
    /// For one that asks to end.
    received: Option<received::Received>,
}

impl From<Received> for Event {
    fn from(received: Received) -> Self {
        match received {
            Received::ChildEnded => Self::ChildEnded,
            Received::Signal(caught) => {
                let received =
                    signals::asks_to_end(caught.number).then(|| received::Received::by_us(caught));
                Self::Signal(Signal { caught, received })
            }
        }
    }
}

pub(super) fn run(global: &Global, arguments: &args::Run, format: Format) -> Outcome {
    if arguments.command.first().is_none_or(|program| program.is_empty()) {
        return Err(Error::invalid("the command is empty")
            .with_hint("name it after `--`, e.g. `incumbent run -- my-gateway --serve`"));
    }
    global.check()?;
    let mut options = ClaimOptions::new()
        .kind(global.kind()?)
        .stop_budget(arguments.stop_budget)
        .wait(arguments.wait.unwrap_or_default())
        .for_run(identity::requests(arguments)?);
    if arguments.replace {
        options = options.replace(replace(arguments));
    }
    options.stop_budget_ms()?;
    if let Some(directory) = &arguments.legacy_home {
        let home = claim_older::home(directory, &options.kind)?;
        older::become_known(arguments, &home);
        options.legacy_home = Some(home);
    }
    let exit_codes = exit_codes(arguments);
    // A gateway that works is not ended for a command that cannot.
    if arguments.replace
        && let Some(program) = arguments.command.first()
        && let Err(failure) = supervise::find_program(program)
    {
        return Ok(show_not_executed(global, &failure, arguments, format).0);
    }
    if arguments.replace
        && let Some(home) = &options.legacy_home
    {
        hold::check_usable(home)?;
    }
    let inbox = Inbox::open()?;
    let store = global.options().open()?;
    let profile = global.profile(&store)?;
    if is_to_stay_stopped(arguments, &profile)? {
        return Ok(stays_stopped(&profile, format, &exit_codes));
    }
    if !arguments.no_backoff
        && let Some(signalled) = sit_out_storm(&profile, &options, &inbox)?
    {
        return Ok(Answer::silent(signalled.exit_code(&exit_codes)));
    }
    let (tenure, hold) = match claim_with_older(&profile, &options, arguments, &inbox)? {
        (Claimed::Granted(tenure), hold) => (tenure, hold),
        (Claimed::Held(holder), _) => return Ok(refused(&holder, format, &exit_codes)),
        (Claimed::Signalled(signalled), _) => {
            return Ok(Answer::silent(signalled.exit_code(&exit_codes)));
        }
    };
    // A person may have said so while we waited.
    if is_to_stay_stopped(arguments, &profile)? {
        drop(hold);
        drop(tenure);
        return Ok(stays_stopped(&profile, format, &exit_codes));
    }
    tell_whose_place_we_took(&tenure);
    // Everything that can fail comes before the command: once it runs, the office must not be
    // released under it.
    let watcher = store.inner.watcher()?;
    match start(&arguments.command, &tenure, &store, Some(&inbox)) {
        Ok(Some(started)) => {
            warn_of_short_unit(arguments.stop_budget);
            // A store that is lost is let go of as a whole.
            drop(profile);
            let run = Running::new(global, arguments, format, options, exit_codes);
            run.supervise(&inbox, store, watcher, tenure, hold, started)
        }
        Ok(None) => {
            let error =
                Error::new(ErrorKind::NotOwner, "the office was lost before the command started")
                    .with_hint("`incumbent events` says by whom, `incumbent status` who holds it");
            let code = exit_codes.code(ExitCause::Refused, 0, None);
            Ok(Answer::failed(code, format, &Invocation::of(global), &error))
        }
        Err(NotStarted::Error(error)) => Err(error),
        Err(NotStarted::Signalled(signalled)) => {
            drop(hold);
            // The store is busy. The office is free in any case, and the next claim records that.
            with_budget(LOOK_BUDGET, || drop(tenure));
            Ok(Answer::silent(signalled.exit_code(&exit_codes)))
        }
        Err(NotStarted::Exec(failure)) => {
            drop(hold);
            Ok(not_executed(global, &store, tenure, &failure, arguments, format))
        }
    }
}

/// Claims the office, and with it the lock of the older program if that is wanted. Whoever takes that lock
/// between the two is met by the next claim, which refuses us.
fn claim_with_older(
    profile: &Profile,
    options: &ClaimOptions,
    arguments: &args::Run,
    inbox: &Inbox,
) -> Result<(Claimed, Option<Hold>)> {
    let secrets: Vec<_> = options.locks.iter().map(|lock| &lock.identity).collect();
    let argv = hold::command_words(&arguments.command, &secrets);
    for _ in 0..ATTEMPTS {
        let claimed = claim(profile, options, inbox)?;
        let (Claimed::Granted(_), Some(home)) = (&claimed, &options.legacy_home) else {
            return Ok((claimed, None));
        };
        let inner = &profile.store().inner;
        let owner = Owner {
            store: inner.store_uuid()?.to_owned(),
            db: profile.store().path().display().to_string(),
            profile: profile.name().to_string(),
        };
        if let Some(hold) = Hold::take(home, inner.observer(), argv.clone(), owner)? {
            return Ok((claimed, Some(hold)));
        }
    }
    Err(changes_too_fast(&profile.office(&options.kind)))
}

fn replace(arguments: &args::Run) -> Replace {
    let mut replace = Replace::new();
    if arguments.force {
        replace = replace.force();
    }
    if arguments.reap {
        replace = replace.reap();
    }
    if arguments.cross_home {
        replace = replace.across_homes();
    }
    replace
}

fn exit_codes(arguments: &args::Run) -> ExitCodes {
    let supervisor = arguments.supervisor.unwrap_or_else(Supervisor::of_this_process);
    let mut codes = ExitCodes::of(supervisor);
    if let Some(code) = arguments.refused_exit_code {
        codes = codes
            .with(ExitCause::Refused, ExitRule::Code(code))
            .with(ExitCause::DesiredStopped, ExitRule::Code(code));
    }
    arguments.exit_code.iter().fold(codes, |codes, (cause, rule)| codes.with(*cause, *rule))
}

fn is_to_stay_stopped(arguments: &args::Run, profile: &Profile) -> Result<bool> {
    Ok(arguments.respect_desired && profile.desired()? == Some(Desired::Stopped))
}

fn stays_stopped(profile: &Profile, format: Format, exit_codes: &ExitCodes) -> Answer {
    let mut document = document(None, None, None, None);
    document["reason"] = ExitCause::DesiredStopped.as_str().into();
    let name = profile.name();
    let code = exit_codes.code(ExitCause::DesiredStopped, 0, None);
    Answer::new(code, format, "", &document).complaining(
        Complaint::new(format!(
            "profile {name} is set to stay stopped (`desired`), so it was not started"
        ))
        .advising(format!("`incumbent desired running --profile {name}`")),
    )
}

fn tell_whose_place_we_took(tenure: &Tenure) {
    let pid = |pid: Option<sys::Pid>| {
        pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}"))
    };
    let office = tenure.office();
    if let Some(replaced) = tenure.replaced() {
        let how = if replaced.killed { ", which had to be killed" } else { "" };
        let whose = replaced.profile.as_ref().filter(|profile| **profile != office.profile);
        let whose = whose.map_or_else(String::new, |profile| format!(" (profile {profile})"));
        output::tell(&format!(
            "incumbent: run: {office}: took over from {}{whose}{how}\n",
            pid(replaced.pid)
        ));
        for process in &replaced.left_over {
            let command = process.command.as_deref().unwrap_or("its command cannot be read");
            output::tell(&format!(
                "incumbent: run: {office}: pid {} ({command}), which that one had started, still \
                 runs (`--reap` ends such processes)\n",
                process.pid
            ));
        }
    }
    if let Some(evicted) = tenure.evicted().filter(|evicted| evicted.reason != "re_executed") {
        tell_of_evicted(office, evicted);
    }
    for lock in tenure.locks() {
        // Of one that was replaced, enough has been said.
        let replaced = tenure.replaced().map(|replaced| replaced.instance);
        if let Some(evicted) =
            lock.evicted.as_ref().filter(|evicted| Some(evicted.instance) != replaced)
        {
            tell_of_evicted(&lock.name, evicted);
        }
    }
}

fn tell_of_evicted(what: &dyn std::fmt::Display, evicted: &Evicted) {
    let who = evicted.pid.map_or_else(|| "a process".to_owned(), |pid| format!("pid {pid}"));
    let reason = evicted.reason.replace('_', " ");
    output::tell(&format!(
        "incumbent: run: {what}: took the place of {who}, which is dead ({reason})\n"
    ));
    for pid in &evicted.ended {
        output::tell(&format!(
            "incumbent: run: {what}: ended pid {pid}, which that one had left behind\n"
        ));
    }
    for pid in &evicted.left_alone {
        output::tell(&format!(
            "incumbent: run: {what}: pid {pid} left the session of that one's command, and is left \
             alone\n"
        ));
    }
}

/// Says so if systemd would kill the command before its time to stop is over. Aside, because asking takes
/// up to two seconds.
fn warn_of_short_unit(budget: Duration) {
    let ask = move || {
        if let Some(warning) = systemd::warn_if_short(budget) {
            output::tell(&format!("incumbent: run: {warning}\n"));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("incumbent-systemd".into()).spawn(ask) {
        tracing::debug!(%error, "systemd was not asked how long it waits");
    }
}

enum Claimed {
    Granted(Tenure),
    Held(Box<Holder>),
    Signalled(Signalled),
}

/// A signal that asks us to end.
#[derive(Clone, Debug)]
struct Signalled {
    number: i32,
    /// Who sent it, where that can be seen.
    sender: Option<sys::Pid>,
    /// The same for people, or why it cannot be.
    by: Fact<String>,
    /// What it means if nobody announced it.
    cause: ExitCause,
    /// Whether it may be a request to read the configuration again.
    may_mean_reload: bool,
}

impl Signalled {
    /// `None` for a signal that does not ask to end.
    fn of(signal: &Signal) -> Option<Self> {
        let received = signal.received.as_ref()?;
        Some(Self {
            number: signal.caught.number,
            sender: received.sender_pid(),
            by: received.sender_in_words(),
            cause: received.cause(),
            may_mean_reload: received.may_mean_reload(),
        })
    }

    /// For a run that has started nothing yet.
    fn exit_code(&self, exit_codes: &ExitCodes) -> i32 {
        exit_codes.code(self.cause, 128 + self.number, Some(self.number))
    }
}

/// Claims, waiting if asked to; a signal that asks us to end ends the wait.
fn claim(profile: &Profile, options: &ClaimOptions, inbox: &Inbox) -> Result<Claimed> {
    let claim = || profile.claim_with(options);
    let (claim, signal) = if options.wait.waits() || options.replace.is_some() {
        inbox.while_waiting(&options.cancel, claim)
    } else {
        (claim(), None)
    };
    Ok(match (claim?, signal) {
        // Granted in the very moment of the signal: dropping the tenure releases it.
        (Claim::Granted(_) | Claim::Held(_), Some(signal)) => Claimed::Signalled(signal),
        (Claim::Granted(tenure), None) => Claimed::Granted(tenure),
        (Claim::Held(holder), None) => Claimed::Held(holder),
    })
}

fn refused(holder: &Holder, format: Format, exit_codes: &ExitCodes) -> Answer {
    let code = exit_codes.code(ExitCause::Refused, 0, None);
    Answer::new(code, format, "", &document(None, None, None, Some(holder)))
        .complaining(Complaint::new(holder.to_string()).advising(holder.advice()))
}

/// Waits out the backoff of a storm that our party is in. Returns the signal that ended the wait.
fn sit_out_storm(
    profile: &Profile,
    options: &ClaimOptions,
    inbox: &Inbox,
) -> Result<Option<Signalled>> {
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
                && !ask::any_is_held(inner, &options.locks)?,
        )
    };
    if is_over()? {
        return Ok(None);
    }
    output::tell(&format!(
        "incumbent: run: {} starts in a row failed: waiting {} before the next \
         (`--no-backoff` starts at once)\n",
        storm.starts,
        crate::clock::length(i64::try_from(remaining_ms).unwrap_or(i64::MAX)),
    ));
    let until = Deadline::after(Duration::from_millis(remaining_ms));
    while !until.has_passed() && !is_over()? {
        match inbox.received.recv_timeout(LOOK_EVERY.min(until.remaining())) {
            Ok(Event::Signal(signal)) => {
                if let Some(signalled) = Signalled::of(&signal) {
                    return Ok(Some(signalled));
                }
            }
            // As PID 1 we reap orphans meanwhile, too; nothing of ours runs yet.
            Ok(Event::ChildEnded) => drop(supervise::reap()),
            Err(_) => {}
        }
    }
    Ok(None)
}

/// The started command, as it is on record.
#[derive(Clone, Copy, Debug)]
struct Child(Command);

/// The same, with the file that it locks.
struct Started {
    child: Child,
    lock_file: Option<LockFile>,
}

enum NotStarted {
    Error(Error),
    /// We were asked to end before there was anything to be ended.
    Signalled(Signalled),
    Exec(ExecFailure),
}

/// Each waits as long as the store may be busy, 5 s: 20 s together at a first start. A later one has less, and
/// is tried again as a whole.
const TRIES_TO_RECORD: usize = 4;

/// Starts the command once its pid is on record: from then on a claimant can find it, whatever
/// happens to us. `None`: the office was lost meanwhile, and nothing was started. A request to end that is in
/// `inbox` is heard between two tries; without one there is one try.
fn start(
    command: &[OsString],
    tenure: &Tenure,
    store: &Store,
    inbox: Option<&Inbox>,
) -> std::result::Result<Option<Started>, NotStarted> {
    let office = tenure.office();
    let environment: [(&str, OsString); 5] = [
        (environment::DB, store.path().into()),
        (environment::PROFILE, office.profile.as_str().into()),
        (environment::KIND, office.kind.as_str().into()),
        (environment::INSTANCE, tenure.instance().to_string().into()),
        (environment::TOKEN, tenure.nonce().to_hex().into()),
    ];
    let anchor = store.inner.own_anchor();
    let lock_file = anchor.as_deref().map(LockFile::beside).transpose();
    let lock_file = lock_file.map_err(NotStarted::Error)?.flatten();
    let held = HeldCommand::spawn(command, &environment, lock_file.as_ref().map(LockFile::path))
        .map_err(|error| not_started(ExecFailure(error)))?;
    let child = Child(Command {
        pid: held.pid(),
        start_time: held.start_time(),
        lock: if held.holds_lock() { CommandLock::Held } else { CommandLock::None },
        lock_inode: lock_file.as_ref().map(LockFile::inode),
    });
    // The office is ours, and whoever else asks for it may keep the store busy for longer than one wait:
    // if we gave it back, nobody would start.
    let mut recorded = tenure.set_child(&child.0);
    for _ in 1..TRIES_TO_RECORD {
        let is_busy = recorded.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy);
        let Some(inbox) = inbox.filter(|_| is_busy) else { break };
        if let Some(signalled) = inbox.request_to_end() {
            return Err(NotStarted::Signalled(signalled));
        }
        recorded = tenure.set_child(&child.0);
    }
    match recorded {
        Ok(true) => {}
        // Dropping the held command lets the trampoline go without the command.
        Ok(false) => return Ok(None),
        Err(error) => return Err(NotStarted::Error(error)),
    }
    held.release().map_err(not_started)?;
    Ok(Some(Started { child, lock_file }))
}

/// What cannot be started for want of something now may be later.
fn not_started(failure: ExecFailure) -> NotStarted {
    match Shortage::of(&failure.0) {
        Some(shortage) => NotStarted::Error(Error::shortage(shortage, "start the command")),
        None => NotStarted::Exec(failure),
    }
}

fn not_executed(
    global: &Global,
    store: &Store,
    tenure: Tenure,
    failure: &ExecFailure,
    arguments: &args::Run,
    format: Format,
) -> Answer {
    let (answer, message) = show_not_executed(global, failure, arguments, format);
    // The program may be below a directory that is named after what is locked.
    let message = Identities::known_to(&store.inner).text(&message);
    let mut end = End::new(EndReason::Exited).detail(message);
    end.exit_code = Some(failure.exit_code());
    report_release(tenure.end(&end));
    answer
}

fn show_not_executed(
    global: &Global,
    failure: &ExecFailure,
    arguments: &args::Run,
    format: Format,
) -> (Answer, String) {
    let program = arguments.command.first().map(|program| program.to_string_lossy().into_owned());
    let message = format!("cannot execute {:?}: {}", program.unwrap_or_default(), failure.0);
    let hint = "look at the path, the mode and the interpreter of the command";
    let error = Error::invalid(message.clone()).with_hint(hint);
    let code = failure.exit_code();
    (Answer::failed(code, format, &Invocation::of(global), &error), message)
}

fn report_release(released: Result<Released>) {
    match released {
        Ok(Released::Free | Released::StillShared | Released::WasLost) => {}
        Ok(Released::Pending(error)) | Err(error) => {
            // The line before may still be waiting for a reader: nobody's end waits for that.
            output::tell_aside(&format!(
                "incumbent: run: the end could not be recorded ({error}); the office is free all \
                 the same, and the next claim records it\n"
            ));
            output::finish_telling();
        }
    }
}
