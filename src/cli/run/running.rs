//! A run with its command: forwards signals, stays with the tenure, serves what it is asked for.

use std::io::ErrorKind;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use rusqlite::Connection;

use super::super::advice::Invocation;
use super::super::args::{self, Global};
use super::super::output::{self, Answer, Format, Outcome};
use super::{
    Child, Event, Inbox, LOOK_EVERY, NotStarted, Signal, Signalled, Started, not_executed,
    report_release, start,
};
use crate::autopsy;
use crate::clock::Deadline;
use crate::command_lock::LockFile;
use crate::error::{Error, ErrorKind as Kind, Result};
use crate::exit_code::{ExitCause, ExitCodes};
use crate::forensics::{Ends, Fact, Recorder, Snapshot};
use crate::holder::Holder;
use crate::instance::{Command, CommandLock, End, EndReason};
use crate::legacy::Hold;
use crate::marker_table::Marker;
use crate::names::MarkerName;
use crate::office::{Claim, ClaimOptions, Tenure};
use crate::runtime_table;
use crate::shutdown_table::{self, What};
use crate::standing::{Lost, Standing};
use crate::state;
use crate::store::{Store, with_budget};
use crate::sys::signals;
use crate::sys::supervise;
use crate::sys::{self, Caught, ChildEnd, ExecFailure};
use crate::takeover::{Request, asked_to_end, request_to};
use crate::wait::{Wait, data_version};

/// Between two full verifications; in between only what costs next to nothing is looked at.
const VERIFY_EVERY: Duration = Duration::from_secs(1);

/// How long a look may wait for the store's locks; what it could not see it looks at again.
pub(super) const LOOK_BUDGET: Duration = Duration::from_millis(200);

/// A run, as it was asked for.
pub(super) struct Running<'a> {
    global: &'a Global,
    arguments: &'a args::Run,
    format: Format,
    options: ClaimOptions,
    exit_codes: ExitCodes,
}

/// What it runs on.
pub(super) struct Watch<'a> {
    run: Running<'a>,
    pub(super) store: Store,
    /// `None` once its files were lost: open, they would stand in the way of the next store.
    watcher: Option<Connection>,
    data_version: Option<i64>,
    pub(super) tenure: Tenure,
    /// The lock of the older program. It goes before the tenure: whoever gets that one next must not meet
    /// us behind it.
    pub(super) hold: Option<Hold>,
    life: Life,
    /// What the command locks, for as long as the row says that it does.
    lock_file: Option<LockFile>,
    verify_at: Deadline,
    /// The last signal that asked to end; it counts for as long as a stop may take.
    asked: Option<Asked>,
    ending: Option<Ending>,
    doubt_told: bool,
}

/// The command.
#[derive(Debug)]
enum Life {
    Running(Child),
    /// It was reaped: its pid may be another process's by now, and is neither signalled nor recorded.
    Ended,
    /// The same, and it is to be started again.
    Between(Box<Pause>),
}

/// The time between two commands. What cannot be recorded is tried again, less and less often: each
/// attempt forks.
#[derive(Debug)]
struct Pause {
    ended: ChildEnd,
    restart: Marker,
    retry_at: Deadline,
    retry_after: Duration,
    is_told: bool,
}

/// A signal that asked to end.
struct Asked {
    signal: Signalled,
    until: Deadline,
}

/// The command is being ended.
struct Ending {
    why: Why,
    kill_at: Deadline,
    killed: bool,
    /// The signal of the same request is still to come: the command has been asked in its place.
    echo: bool,
}

/// What the command is being ended for.
enum Why {
    /// The office was lost.
    Lost,
    /// Somebody takes the office over, or stops us.
    End(Marker),
    /// To be started again.
    Restart(Marker),
}

impl Why {
    fn is_lost(&self) -> bool {
        matches!(self, Self::Lost)
    }
}

impl<'a> Running<'a> {
    pub(super) fn new(
        global: &'a Global,
        arguments: &'a args::Run,
        format: Format,
        options: ClaimOptions,
        exit_codes: ExitCodes,
    ) -> Self {
        Self { global, arguments, format, options, exit_codes }
    }

    /// Stays with the command until it has ended for good; the exit code.
    pub(super) fn supervise(
        self,
        inbox: &Inbox,
        store: Store,
        watcher: Connection,
        tenure: Tenure,
        hold: Option<Hold>,
        started: Started,
    ) -> Outcome {
        if let Some(hold) = &hold {
            hold.say(state::RUNNING);
        }
        let watch = Watch {
            run: self,
            store,
            watcher: Some(watcher),
            data_version: None,
            tenure,
            hold,
            life: Life::Running(started.child),
            lock_file: started.lock_file,
            verify_at: Deadline::after(VERIFY_EVERY),
            asked: None,
            ending: None,
            doubt_told: false,
        };
        let outcome = watch.supervise(inbox);
        output::finish_telling();
        outcome
    }
}

impl Watch<'_> {
    fn supervise(mut self, inbox: &Inbox) -> Outcome {
        loop {
            match inbox.received.recv_timeout(LOOK_EVERY) {
                Ok(Event::ChildEnded) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::Signal(signal)) => self.forward(signal),
                // The signal thread never ends; if it did, we would still look.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
            }
            let reaped = supervise::reap();
            let ours = self.child().and_then(|child| reaped.iter().find(|it| it.0 == child.0.pid));
            if let Some(&(_, end)) = ours {
                self.life = Life::Ended;
                self.hear_out(inbox, end);
                match self.restart_asked_for() {
                    Some(restart) => {
                        self.life = Life::Between(Box::new(Pause {
                            ended: end,
                            restart,
                            retry_at: Deadline::after(Duration::ZERO),
                            retry_after: LOOK_EVERY,
                            is_told: false,
                        }));
                    }
                    None => return Ok(Answer::silent(self.finish(end))),
                }
            }
            if let Life::Between(pause) = &self.life {
                let ended = pause.ended;
                match self.start_again() {
                    Again::Started | Again::Later => {}
                    Again::No => return Ok(Answer::silent(self.finish(ended))),
                    Again::Failed(failure) => {
                        drop(self.hold.take());
                        let Running { global, arguments, format, .. } = self.run;
                        return Ok(not_executed(
                            global,
                            &self.store,
                            self.tenure,
                            &failure,
                            arguments,
                            format,
                        ));
                    }
                    // Whatever is started in our place may be able to.
                    Again::Never(error) => {
                        drop(self.hold.take());
                        report_release(self.tenure.end(&how_it_ended(ended, None)));
                        return Err(error);
                    }
                }
            }
            // Signals and the command's end must not wait for a busy store.
            with_budget(LOOK_BUDGET, || {
                self.look_at_command_lock();
                self.look();
            });
            if let Some(ending) = &mut self.ending
                && !ending.killed
                && ending.kill_at.has_passed()
            {
                ending.killed = true;
                output::tell_aside(
                    "incumbent: run: the stop budget is spent, killing the command\n",
                );
                let _ = self.signal(supervise::KILL);
            }
        }
    }

    fn child(&self) -> Option<Child> {
        match self.life {
            Life::Running(child) => Some(child),
            Life::Ended | Life::Between(_) => None,
        }
    }

    /// The row says that the command holds its lock only while that is so: a claimant who cannot look the
    /// command up takes a free one for its end.
    fn look_at_command_lock(&mut self) {
        let is_held = command_lock_is_held(&self.store, self.lock_file.as_ref());
        let Life::Running(Child(command)) = &mut self.life else { return };
        if command.lock != CommandLock::Held || is_held {
            return;
        }
        match self.tenure.lose_command_lock() {
            Ok(()) => command.lock = CommandLock::Lost,
            Err(error) => {
                tracing::debug!(%error, "that the command lost its lock is not on record");
            }
        }
    }

    /// What came before the command's end and has not been heard: a key in a terminal reaches both of us at once,
    /// and who of three threads is first is chance.
    fn hear_out(&mut self, inbox: &Inbox, end: ChildEnd) {
        /// From the marker of a stop to its signal, on a busy machine.
        const SIGNALLED_WITHIN: Duration = Duration::from_millis(250);
        let within = match (&self.ending, end) {
            (None, ChildEnd::Signalled(signal)) => explained_within(signal),
            // We saw the marker first, and passed it on. The end on record names the signal as well.
            (Some(Ending { why: Why::End(_), .. }), _) => SIGNALLED_WITHIN,
            (Some(_), _) | (None, ChildEnd::Exited(_)) => Duration::ZERO,
        };
        let until = Deadline::after(within);
        loop {
            let wait = if self.asked.is_some() { Duration::ZERO } else { until.remaining() };
            match inbox.received.recv_timeout(wait) {
                Ok(Event::Signal(signal)) => self.forward(signal),
                Ok(Event::ChildEnded) => {}
                Err(_) => return,
            }
        }
    }

    fn forward(&mut self, signal: Signal) {
        let Caught { number, from_terminal, .. } = signal.caught;
        let (mut is_echo, mut is_asked) = (false, false);
        if let Some(signalled) = Signalled::of(&signal) {
            self.take_older_marker();
            let sender = signalled.sender;
            // A request to reload takes nothing back.
            is_asked = !(signalled.may_mean_reload && self.is_asked_to_end());
            if is_asked {
                self.asked = Some(Asked {
                    signal: signalled,
                    until: Deadline::after(self.run.options.stop_budget),
                });
            }
            is_echo = self.is_echo(sender);
        }
        if !from_terminal && !is_echo {
            let _ = self.signal(number);
        }
        if let Some(received) = signal.received {
            let by = self.record(Snapshot::take(received), from_terminal);
            // Without what is locked as an identity.
            if let Some(asked) = self.asked.as_mut().filter(|_| is_asked) {
                asked.signal.by = by;
            }
        }
    }

    /// What was sent to the last command explains no end of the next one.
    fn survive(&self) {
        let (inner, id) = (&self.store.inner, self.tenure.instance());
        let noted = with_budget(LOOK_BUDGET, || {
            inner.write(|tx| shutdown_table::survive(tx, id, What::Signal, tx.boot_time().ms))
        });
        if let Err(error) = noted {
            tracing::debug!(%error, "it is not on record that a signal was survived");
        }
    }

    /// Leaves on record who asks to end, and says so; the sender, as it is on record.
    fn record(&self, snapshot: Snapshot, from_terminal: bool) -> Fact<String> {
        let (inner, office) = (&self.store.inner, self.tenure.office());
        let recorder = Recorder::new(inner, Some(self.tenure.instance()), office, Ends::Later);
        let (snapshot, _) = recorder.complete(snapshot);
        // Whoever pressed the key knows.
        if !from_terminal {
            output::tell_aside(&format!("incumbent: run: {office}: {}\n", snapshot.to_log_line()));
        }
        snapshot.sender_in_words()
    }

    /// Whether a signal belongs to a request that the command was told of before it came: one that
    /// is asked twice may think that somebody has lost patience. Once for each request.
    fn is_echo(&mut self, sender: Option<sys::Pid>) -> bool {
        let Some(ending) = self.ending.as_mut().filter(|ending| ending.echo) else { return false };
        let is_echo = match &ending.why {
            Why::Lost => false,
            // Whoever asks now asks for no less.
            Why::Restart(_) => true,
            Why::End(marker) => is_by(marker, sender),
        };
        ending.echo = !is_echo;
        is_echo
    }

    fn signal(&self, signal: i32) -> std::io::Result<()> {
        let Some(Child(Command { pid, .. })) = self.child() else { return Ok(()) };
        supervise::signal_child(pid, signal).inspect_err(|error| {
            tracing::debug!(signal, %error, "the command could not be signalled");
        })?;
        // One that is stopped would not see it.
        let is_stopped = || sys::process_facts(pid).state == sys::ProcessState::Stopped;
        if signals::asks_to_end(signal) && is_stopped() {
            supervise::signal_child(pid, supervise::CONTINUE)?;
        }
        Ok(())
    }

    /// Looks whether the office is still ours, and what is asked of us: at what costs next to
    /// nothing every time, at everything once a second.
    fn look(&mut self) {
        if self.ending.as_ref().is_some_and(|ending| ending.why.is_lost()) {
            return;
        }
        let version = self.watcher.as_ref().and_then(|watcher| data_version(watcher).ok());
        let quiet =
            version.is_some() && version == self.data_version && self.store.inner.is_in_place();
        if quiet && !self.verify_at.has_passed() {
            if self.hold.as_ref().is_some_and(|hold| !hold.is_in_place()) {
                self.look_at_older_lock();
            }
            return;
        }
        self.data_version = version;
        self.verify_at = Deadline::after(VERIFY_EVERY);
        match self.tenure.verify() {
            Ok(Standing::Held) => {
                self.doubt_told = false;
                if self.watcher.is_none() {
                    self.watcher = self.store.inner.watcher().ok();
                }
                self.look_for_requests();
                self.look_at_older_lock();
            }
            Ok(Standing::Lost(Lost::StoreReplaced)) => {
                if let Err(why) = self.claim_in_new_store() {
                    self.lose(&why);
                }
            }
            Ok(Standing::Lost(lost)) => self.lose(&lost.to_string()),
            // Not knowing is not losing: the anchor is ours, nobody else can claim.
            Err(error) => {
                self.doubt(&format!("cannot look at the store: {error}"));
                self.look_at_older_lock();
            }
        }
    }

    pub(super) fn doubt(&mut self, what: &str) {
        if !std::mem::replace(&mut self.doubt_told, true) {
            output::tell_aside(&format!("incumbent: run: {what}\n"));
        }
    }

    /// A request to end, or to start anew, reaches us by its marker as well: whoever asks may be in
    /// another container, or a child of our command.
    fn look_for_requests(&mut self) {
        let Some(child) = self.child() else { return };
        let request = match request_to(&self.store.inner, self.tenure.instance()) {
            Ok(request) => request,
            Err(error) => return self.doubt(&format!("cannot look for requests: {error}")),
        };
        let known = match &self.ending {
            Some(Ending { why: Why::End(marker) | Why::Restart(marker), .. }) => Some(marker.id),
            Some(_) | None => None,
        };
        if !matches!(request, Some(Request::End(_))) {
            self.forget_request_to_end();
        }
        let kill_at = Deadline::after(self.run.options.stop_budget);
        match request {
            Some(Request::End(marker)) if known == Some(marker.id) => {}
            Some(Request::End(marker)) => {
                // A stop kills only if a person says so; that one does it itself.
                let is_takeover = marker.name.as_str() == MarkerName::TAKEOVER;
                let kill_at = if is_takeover { kill_at } else { Deadline::never() };
                self.end_command(Why::End(marker), kill_at);
            }
            Some(Request::Restart(marker)) => match &self.ending {
                Some(Ending { why: Why::Restart(_), .. }) => {}
                // Whoever wanted an end has ended, or has given up.
                _ if !self.is_asked_to_end() => {
                    output::tell_aside(&format!(
                        "incumbent: run: {}: restarting the command (pid {}), asked for by {}\n",
                        self.tenure.office(),
                        child.0.pid,
                        output::one_line(&marker.by)
                    ));
                    self.end_command(Why::Restart(marker), kill_at);
                }
                _ => {}
            },
            None => {}
        }
    }

    /// Whoever asked for an end has ended, or has given up: it is nobody's wish any more, and the
    /// command is not killed for it. It may still follow; the marker says why until it expires.
    fn forget_request_to_end(&mut self) {
        let is_end = |ending: &mut Ending| matches!(ending.why, Why::End(_));
        if let Some(Ending { why: Why::End(marker), .. }) = self.ending.take_if(is_end) {
            self.asked.take_if(|asked| is_by(&marker, asked.signal.sender));
        }
    }

    /// The store was deleted or replaced under us: go on in the new one, with the same anchor. `Err` says why
    /// not, where somebody else holds the office there.
    fn claim_in_new_store(&mut self) -> std::result::Result<(), String> {
        self.watcher = None;
        let lost = match self.store.inner.how_lost() {
            Some(how) => format!("the store was deleted or replaced ({how})"),
            None => "the store was deleted or replaced".to_owned(),
        };
        match self.try_new_store() {
            Ok(None) => output::tell_aside(&format!(
                "incumbent: run: {lost}; {} is claimed again in the new one\n",
                self.tenure.office()
            )),
            Ok(Some(holder)) => return Err(format!("{lost}, and in the new one {holder}")),
            Err(error) => {
                self.doubt(&format!("{lost}, and the new one cannot be claimed yet: {error}"));
            }
        }
        Ok(())
    }

    fn try_new_store(&mut self) -> Result<Option<Box<Holder>>> {
        let store = self.run.global.options().path(self.store.path()).open()?;
        let profile = self.run.global.profile(&store)?;
        let mut options = self.run.options.clone().wait(Wait::No);
        // Whoever holds it there was faster.
        options.replace = None;
        // Not what was let go since; and with the same proof, so that verbs of the command that runs
        // still act for us.
        let held = self.tenure.locks();
        options.locks.retain(|lock| held.iter().any(|held| held.name == *lock.name()));
        options.nonce = Some(self.tenure.nonce().clone());
        match profile.claim_with(&options)? {
            Claim::Held(holder) => Ok(Some(holder)),
            Claim::Granted(tenure) => {
                if let Life::Running(Child(command)) = &mut self.life {
                    // With an anchor that had to be made anew, that file is out of reach.
                    let is_held = command_lock_is_held(&store, self.lock_file.as_ref());
                    if command.lock == CommandLock::Held && !is_held {
                        command.lock = CommandLock::Lost;
                    }
                    if !tenure.set_child(command)? {
                        return Err(Error::internal("the office was lost again"));
                    }
                }
                self.watcher = Some(store.inner.watcher()?);
                self.data_version = None;
                std::mem::replace(&mut self.tenure, tenure).abandon();
                self.store = store;
                Ok(None)
            }
        }
    }

    pub(super) fn lose(&mut self, why: &str) {
        self.tell_lost(why);
        self.end_command(Why::Lost, Deadline::after(self.run.options.stop_budget));
    }

    fn tell_lost(&self, why: &str) {
        let command = match self.child() {
            Some(child) => format!("; ending the command (pid {})", child.0.pid),
            None => String::new(),
        };
        output::tell_aside(&format!(
            "incumbent: run: {} was lost: {why}{command}\n",
            self.tenure.office()
        ));
    }

    /// Asks the command to end, unless the very same request has reached it by a signal.
    fn end_command(&mut self, why: Why, kill_at: Deadline) {
        let was_signalled = match (&why, &self.asked) {
            (Why::End(marker), Some(Asked { signal, .. })) => is_by(marker, signal.sender),
            _ => false,
        };
        let was_told = match (&why, &self.ending) {
            // It is ending already, and whoever wants it back wants less.
            (Why::End(_), Some(Ending { why: Why::Restart(_), echo, .. }))
            | (Why::Lost, Some(Ending { echo, .. })) => Some(*echo),
            _ => None,
        };
        let kill_at = match &self.ending {
            Some(ending) if why.is_lost() => ending.kill_at.earlier(kill_at),
            Some(_) | None => kill_at,
        };
        let echo = match was_told {
            Some(echo) => echo,
            None if was_signalled => false,
            None => {
                let asked = self.signal(supervise::TERMINATE);
                // Where nobody can be asked to end (Windows), waiting for it would only prolong the
                // time in which two act for one office. Whoever is merely asked for it finds the
                // marker.
                let cannot_ask = asked.is_err_and(|error| error.kind() == ErrorKind::Unsupported);
                if cannot_ask && why.is_lost() {
                    let _ = self.signal(supervise::KILL);
                }
                true
            }
        };
        self.ending = Some(Ending { why, kill_at, killed: false, echo });
    }

    /// Whether a signal has asked for an end, not too long ago.
    fn is_asked_to_end(&self) -> bool {
        self.asked.as_ref().is_some_and(Asked::stands)
    }

    /// The command has ended: the restart that it is to be started again for, if there is one.
    fn restart_asked_for(&self) -> Option<Marker> {
        match &self.ending {
            Some(Ending { why: Why::Restart(marker), .. }) => Some(marker.clone()),
            Some(_) => None,
            // It may have ended before we looked.
            None => match with_budget(LOOK_BUDGET, || {
                request_to(&self.store.inner, self.tenure.instance())
            }) {
                Ok(Some(Request::Restart(marker))) => Some(marker),
                Ok(Some(Request::End(_)) | None) | Err(_) => None,
            },
        }
    }

    /// Starts the command again, within the same tenure, unless somebody asked for an end meanwhile.
    /// What cannot be recorded or found out now is tried again: the office is ours.
    fn start_again(&mut self) -> Again {
        let is_lost = self.ending.as_ref().is_some_and(|ending| ending.why.is_lost());
        if self.is_asked_to_end() || is_lost {
            return Again::No;
        }
        let Life::Between(pause) = &self.life else { return Again::Started };
        if !pause.retry_at.has_passed() {
            return Again::Later;
        }
        let (ended, restart) = (pause.ended, pause.restart.clone());
        let asked_by = output::one_line(&restart.by);
        let started = with_budget(LOOK_BUDGET, || {
            match asked_to_end(&self.store.inner, self.tenure.instance()) {
                // The last word counts.
                Ok(Some(end)) if end.id > restart.id => return Ok(None),
                Ok(Some(_) | None) => {}
                Err(error) => return Err(NotStarted::Error(error)),
            }
            start(&self.run.arguments.command, &self.tenure, &self.store, None).map(Some)
        });
        match started {
            Ok(Some(Some(Started { child, lock_file }))) => {
                output::tell_aside(&format!(
                    "incumbent: run: {}: restarted the command (pid {}), asked for by {asked_by}; \
                     the one before {}\n",
                    self.tenure.office(),
                    child.0.pid,
                    describe(ended)
                ));
                self.life = Life::Running(child);
                self.lock_file = lock_file;
                self.ending = None;
                self.asked = None;
                self.survive();
                Again::Started
            }
            Ok(Some(None)) => {
                self.lose("it was ended while the command was being restarted");
                Again::No
            }
            Ok(None) => Again::No,
            Err(NotStarted::Error(error)) => self.try_later(error),
            // Nothing was read of the inbox; what is in it is heard before the next try.
            Err(NotStarted::Signalled(_)) => Again::Later,
            Err(NotStarted::Exec(failure)) => Again::Failed(failure),
        }
    }

    /// The command could not be recorded. What passes by itself is waited for.
    fn try_later(&mut self, error: Error) -> Again {
        const PAUSE_MAX: Duration = Duration::from_secs(1);
        let passes = matches!(
            error.kind(),
            Kind::Busy | Kind::CannotWrite | Kind::CannotRead | Kind::StoreReplaced
        );
        let Life::Between(pause) = &mut self.life else { return Again::Later };
        if !passes {
            return Again::Never(error);
        }
        pause.retry_at = Deadline::after(pause.retry_after);
        pause.retry_after = (pause.retry_after * 2).min(PAUSE_MAX);
        if !std::mem::replace(&mut pause.is_told, true) {
            let invocation = Invocation::of(self.run.global);
            let advice = error.hint().map(|hint| format!("; {}", invocation.complete(hint)));
            let advice = advice.unwrap_or_default();
            let text = format!("the command cannot be restarted yet: {error}{advice}");
            output::tell_aside(&format!("incumbent: run: {text}\n"));
        }
        Again::Later
    }

    /// Records how the command ended; the exit code that tells our supervisor.
    fn finish(mut self, end: ChildEnd) -> i32 {
        self.take_older_marker();
        drop(self.hold.take());
        let own = match end {
            ChildEnd::Exited(code) => code,
            ChildEnd::Signalled(signal) => 128 + signal,
        };
        let asked = self.asked.as_ref().filter(|asked| asked.explains(end));
        let asked = asked.map(|asked| asked.signal.clone());
        let how = how_it_ended(end, asked.as_ref());
        if self.ending.as_ref().is_some_and(|ending| ending.why.is_lost()) {
            drop(self.tenure);
            return self.run.exit_codes.code(ExitCause::Refused, own, None);
        }
        // Lost in this very second: the end goes on record where others look. Not in a store that somebody
        // took away with us in it.
        if !self.store.inner.is_in_place() && sys::file_facts(self.store.path()).is_ok() {
            // Whoever waits for our exit does not wait for a busy store.
            if let Err(why) = with_budget(LOOK_BUDGET, || self.claim_in_new_store()) {
                self.tell_lost(&why);
            }
        }
        let cause = self.cause(&how, asked.as_ref());
        report_release(self.tenure.end(&how));
        self.run.exit_codes.code(cause, own, asked.map(|signal| signal.number))
    }

    /// Why the command ended: what the history will say of it. Where the store does not tell, what
    /// it told last.
    fn cause(&self, how: &End, asked: Option<&Signalled>) -> ExitCause {
        let (inner, id) = (&self.store.inner, self.tenure.instance());
        let told = with_budget(LOOK_BUDGET, || {
            inner.read(|connection| {
                let end = autopsy::explain(connection, inner, id, how)?;
                Ok((end, runtime_table::is_starting(connection, id)?))
            })
        });
        let was_starting = matches!(told, Ok((_, true)));
        let reason = match (told, &self.ending) {
            (Ok((end, _)), _) => end.reason,
            (Err(_), Some(Ending { why: Why::End(marker), .. })) => {
                if marker.name.as_str() == MarkerName::TAKEOVER {
                    EndReason::TakenOver
                } else {
                    EndReason::PlannedStop
                }
            }
            (Err(_), _) => how.reason,
        };
        match reason {
            EndReason::PlannedStop => ExitCause::PlannedStop,
            EndReason::TakenOver => ExitCause::TakenOver,
            EndReason::Signalled => {
                let cause = asked.map_or(ExitCause::Exited, |asked| asked.cause);
                if was_starting { self.run.exit_codes.cause_while_starting(cause) } else { cause }
            }
            _ => ExitCause::Exited,
        }
    }
}

fn command_lock_is_held(store: &Store, file: Option<&LockFile>) -> bool {
    let (Some(file), Some(anchor)) = (file, store.inner.own_anchor()) else { return false };
    file.is_held(&anchor)
}

/// Whether a signal and a marker are of one request. Whoever cannot be seen from here does not signal
/// us, because it cannot see us either.
fn is_by(marker: &Marker, sender: Option<sys::Pid>) -> bool {
    sender.is_some() && sender == marker.by_pid
}

impl Asked {
    /// Whether an end is still expected of it: not for ever, and not if it was a request to reload.
    fn stands(&self) -> bool {
        !self.signal.may_mean_reload && !self.until.has_passed()
    }

    fn explains(&self, end: ChildEnd) -> bool {
        let is_it = end == ChildEnd::Signalled(self.signal.number);
        self.stands() || (is_it && !self.until.has_passed())
    }
}

/// What became of a restart.
enum Again {
    Started,
    /// Not yet.
    Later,
    /// Nobody wants it any more.
    No,
    /// The command cannot be executed any more.
    Failed(ExecFailure),
    /// Nothing can be recorded any more: by this program, in this store.
    Never(Error),
}

/// How long to wait for what explains that the command died of `signal`. Every command that is ended directly
/// keeps the office for as long.
fn explained_within(signal: i32) -> Duration {
    /// Who stops a tree, or a unit, signals one process after the other, all within a millisecond; the rest is
    /// for our thread to be woken on a busy machine.
    const BY_ONE_SENDER: Duration = Duration::from_millis(10);
    if !signals::asks_to_end(signal) {
        Duration::ZERO
    } else if signal != supervise::TERMINATE && supervise::has_terminal() {
        // A key, or a terminal that closes: nobody is in a hurry.
        LOOK_EVERY
    } else {
        BY_ONE_SENDER
    }
}

fn describe(end: ChildEnd) -> String {
    match end {
        ChildEnd::Exited(code) => format!("ended with exit code {code}"),
        ChildEnd::Signalled(signal) => format!("was ended by {}", sys::signal_name(signal)),
    }
}

fn how_it_ended(end: ChildEnd, asked: Option<&Signalled>) -> End {
    let mut how = match (end, asked) {
        (ChildEnd::Signalled(signal), _) if signals::is_fault(signal) => {
            let mut how = End::new(EndReason::Crashed);
            how.signal = Some(signal);
            how
        }
        (_, Some(Signalled { number, by, .. })) => {
            let mut how = End::new(EndReason::Signalled);
            // What the kernel says of its end, where it says something.
            how.signal = Some(match end {
                ChildEnd::Signalled(actual) => actual,
                ChildEnd::Exited(_) => *number,
            });
            match by {
                Ok(sender) => how.by = Some(sender.clone()),
                Err(why) => how.detail = Some(why.why().to_owned()),
            }
            how
        }
        (ChildEnd::Signalled(signal), None) => {
            let mut how = End::new(EndReason::Signalled);
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
