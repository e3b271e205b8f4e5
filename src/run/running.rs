//! A run with its command: forwards signals, stays with the tenure, serves what it is asked for.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use crate::clock::Deadline;
use crate::forensics::Fact;
use crate::forensics::shutdown::{Ends, Recorder};
use crate::forensics::snapshot::Snapshot;
use crate::patience::with_budget;
use crate::records::{Command, CommandLock, shutdowns};
use crate::run::inbox::{Inbox, LOOK_EVERY, RunEvent, Signal, Signalled};
use crate::run::notice::Notice;
use crate::run::plan::{Extent, Finished};
use crate::run::restart::Again;
use crate::run::start::Child;
use crate::run::supervised::{
    AskedEnd, Ending, LOOK_BUDGET, Life, Pause, Supervised, VERIFY_EVERY, Why, command_lock_is_held,
};
use crate::run::{end, requests};
use crate::store::What;
use crate::store::watcher::Watcher;
use crate::sys::{Caught, ChildEnd, signals, supervise};
use crate::{Lost, Result, Standing, sys};

impl Supervised<'_> {
    /// Stays with the command until it has ended for good.
    pub(super) fn supervise(mut self, inbox: &Inbox) -> Result<Finished> {
        loop {
            match inbox.received.recv_timeout(self.pause()) {
                Ok(RunEvent::ChildEnded | RunEvent::Committed) => {}
                Ok(RunEvent::CommandLock(watched)) => self.lock_watched = watched,
                // Not before: for a command that ends at once it is not worth a thread.
                Err(RecvTimeoutError::Timeout) => self.listen(inbox),
                Ok(RunEvent::Signal(signal)) => self.forward(signal),
                Ok(RunEvent::Suspended(caught)) => self.suspend(&caught),
                Ok(RunEvent::Notified(said)) => self.heed(said),
                // The signal thread never ends; if it did, we would still look.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
            }
            if let Some(end) = self.last_end(inbox) {
                // A successor may have been collected as well.
                self.leash.slip();
                self.life = Life::Ended;
                self.hear_out(inbox, end);
                let restart = self.restart_asked_for();
                self.end_family(end, restart.as_ref());
                match restart {
                    Some(restart) => {
                        self.hear_now(inbox);
                        self.tell_end_before_restart(end);
                        self.life = Life::Between(Box::new(Pause {
                            ended: end,
                            restart,
                            retry_at: Deadline::after(Duration::ZERO),
                            retry_after: LOOK_EVERY,
                            is_told: false,
                        }));
                    }
                    None => return Ok(Finished::ended(self.finish(end))),
                }
            }
            if let Life::Between(pause) = &self.life {
                let ended = pause.ended;
                match self.start_again() {
                    Again::Started | Again::Later => {}
                    Again::No => return Ok(Finished::ended(self.finish(ended))),
                    Again::Failed(failure) => {
                        drop(self.hold.take());
                        return Ok(self.run.end_not_executed(&self.store, self.tenure, &failure));
                    }
                    // Whatever is started in our place may be able to.
                    Again::Never(error) => {
                        drop(self.hold.take());
                        let how = end::how_it_ended(ended, None);
                        self.run.report_release(self.tenure.end(&how));
                        return Err(error);
                    }
                }
            }
            // Signals and the command's end must not wait for a busy store.
            with_budget(LOOK_BUDGET, || {
                self.look_at_command_lock();
                self.look();
                if let Err(error) = self.asleep.look(&self.store.inner) {
                    tracing::debug!(%error, "it is not on record that the machine slept");
                }
            });
            self.write_said();
            self.look_at_last_call();
            if let Some(ending) = &mut self.ending
                && !ending.killed
                && ending.kill_at.has_passed()
            {
                ending.killed = true;
                self.tell(&Notice::Killing);
                let _ = self.signal(supervise::KILL);
            }
        }
    }

    /// How the command ended, if it has just now and nobody has taken its place.
    fn last_end(&mut self, inbox: &Inbox) -> Option<ChildEnd> {
        if !self.has_said_its_last(inbox) {
            return None;
        }
        if self.stays_with_descendants() {
            return self.end_without_descendants();
        }
        let ended = self.command_end()?;
        self.leash.slip();
        self.go_on_with_successor(ended)
    }

    /// How the command ended, if it has just now. Where all children are ours to collect, so are
    /// orphans.
    fn command_end(&self) -> Option<ChildEnd> {
        let collected = match self.run.extent {
            Extent::Whole => supervise::reap(),
            Extent::Part => Vec::new(),
        };
        let Child(command) = self.child()?;
        let pid = command.pid;
        let end = collected.iter().find(|(ended, _)| *ended == pid).map(|it| it.1);
        end.or_else(|| supervise::reap_command(pid, command.start_time))
    }

    /// The row says that the command holds its lock only while that is so: a claimant who cannot
    /// look the command up takes a free one for its end.
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

    /// What came before the command's end and has not been heard: a key in a terminal reaches both
    /// of us at once, and who of three threads is first is chance.
    fn hear_out(&mut self, inbox: &Inbox, end: ChildEnd) {
        /// From the marker of a stop to its signal, on a busy machine.
        const SIGNALLED_WITHIN: Duration = Duration::from_millis(250);
        let within = match (&self.ending, end) {
            (None, ChildEnd::Signalled(signal)) => explained_within(signal),
            // We saw the marker first, and passed it on. The end on record names the signal as
            // well.
            (Some(Ending { why: Why::End(_), .. }), _) => SIGNALLED_WITHIN,
            (Some(_), _) | (None, ChildEnd::Exited(_)) => Duration::ZERO,
        };
        self.beside.hear_last_words();
        let until = Deadline::after(within);
        loop {
            let wait = if self.asked.is_some() { Duration::ZERO } else { until.remaining() };
            match inbox.received.recv_timeout(wait) {
                Ok(RunEvent::Signal(signal)) => self.forward(signal),
                Ok(RunEvent::Notified(said)) => self.heed(said),
                Ok(RunEvent::CommandLock(watched)) => self.lock_watched = watched,
                Ok(RunEvent::ChildEnded | RunEvent::Suspended(_) | RunEvent::Committed) => {}
                Err(_) => break,
            }
        }
        self.beside.said.write_at_once();
        self.write_said();
    }

    pub(super) fn forward(&mut self, signal: Signal) {
        let Caught { number, from_terminal, .. } = signal.caught;
        let (mut is_echo, mut is_asked) = (false, false);
        if let Some(signalled) = Signalled::of(&signal) {
            self.take_older_marker();
            let sender = signalled.sender;
            // A request to reload takes nothing back.
            is_asked = !(signalled.may_mean_reload && self.is_asked_to_end());
            if is_asked {
                self.ask_to_end(signalled);
            }
            is_echo = self.is_echo(sender);
        }
        // An echo is asked about as well: it was told once, and is over.
        let command = self.child().map(|child| child.0.pid);
        // Without a command as well: what the witness saw now explains no later signal.
        let whom = command.unwrap_or_else(std::process::id);
        let has_it = self.beside.delivery.has_reached(whom, &signal.caught);
        if command.is_some() && !has_it && !is_echo {
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
    pub(super) fn survive(&self) {
        let (inner, id) = (&self.store.inner, self.tenure.instance());
        let noted = with_budget(LOOK_BUDGET, || {
            inner.write(|tx| shutdowns::survive(tx, id, What::Signal, tx.boot_time().ms))
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
            self.tell(&Notice::Signalled { office, snapshot: snapshot.to_log_line() });
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
            Why::End(marker) => requests::is_by(marker, sender),
        };
        ending.echo = !is_echo;
        is_echo
    }

    pub(super) fn signal(&self, signal: i32) -> std::io::Result<()> {
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
        // The files first: what of them is mapped may be no more.
        let is_in_place = self.store.inner.is_in_place();
        let version = self.watcher.as_ref().and_then(|watcher| watcher.version().ok());
        let quiet = is_in_place && version.is_some() && version == self.seen_version;
        if quiet && !self.verify_at.has_passed() {
            if self.hold.as_ref().is_some_and(|hold| !hold.is_in_place()) {
                self.look_at_older_lock();
            }
            return;
        }
        self.seen_version = version;
        self.verify_at = Deadline::after(VERIFY_EVERY);
        match self.tenure.verify() {
            Ok(Standing::Held) => {
                self.doubt_told = false;
                if self.watcher.is_none() {
                    self.watcher = Watcher::new(&self.store.inner).ok().map(Arc::new);
                }
                self.look_for_signs_of_life();
                self.look_for_requests();
                self.look_at_older_lock();
                self.mirror();
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
            self.tell(&Notice::Doubt { what });
        }
    }

    pub(super) fn lose(&mut self, why: &str) {
        self.tell_lost(why);
        self.end_command(Why::Lost, Deadline::after(self.run.claim.stop_budget));
    }

    pub(super) fn tell_lost(&self, why: &str) {
        let ending = self.child().map(|child| child.0.pid);
        self.tell(&Notice::Lost { office: self.tenure.office(), why, ending });
    }

    /// Asks the command to end, unless the very same request has reached it by a signal.
    pub(super) fn end_command(&mut self, why: Why, kill_at: Deadline) {
        let was_signalled = match (&why, &self.asked) {
            (Why::End(marker), Some(AskedEnd { signal, .. })) => {
                requests::is_by(marker, signal.sender)
            }
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
}

/// How long to wait for what explains that the command died of `signal`. Every command that is
/// ended directly keeps the office for as long.
fn explained_within(signal: i32) -> Duration {
    /// Who stops a tree, or a unit, signals one process after the other, all within a millisecond;
    /// the rest is for our thread to be woken on a busy machine.
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
