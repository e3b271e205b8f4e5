//! A command that has handed over to a child: the run goes on with that one.
//!
//! The successor is on record as the command before its predecessor ends. When that has ended and
//! is collected, nobody can adopt any more (`office/handover/in_run.rs`), and whom the row names
//! then is the command. It became our child with that, because the run adopts orphans.

use crate::owner::family::Kin;
use crate::patience::with_budget;
use crate::run::notice::Notice;
use crate::run::start::Child;
use crate::run::supervised::{AskedEnd, Ending, LOOK_BUDGET, LastCall, Life, Supervised, Unseen};
use crate::sys::{ChildEnd, supervise};
use crate::{ErrorKind, Result};

impl Supervised<'_> {
    /// The command has ended so, and was collected. `None`: another process has taken its place,
    /// and lives; else how the last command ended.
    pub(super) fn go_on_with_successor(&mut self, mut end: ChildEnd) -> Option<ChildEnd> {
        loop {
            let before = self.child()?;
            let successor = if self.restart_asked_for().is_some() {
                // That is tried again, and signals are heard meanwhile.
                with_budget(LOOK_BUDGET, || self.successor_of(before))
            } else {
                self.successor_of(before)
            };
            let successor = match successor {
                Ok(Some(successor)) => successor,
                Ok(None) => return Some(end),
                Err(error) => {
                    self.unseen = Some(Unseen { before, error });
                    return Some(end);
                }
            };
            self.follow(before, successor);
            // They may have ended one right after the other.
            match supervise::reap_command(successor.0.pid, successor.0.start_time) {
                Some(ended) => end = ended,
                None => break,
            }
        }
        self.ask_successor();
        None
    }

    /// Looks again for a successor, where that could not be told before: whether there is one, and
    /// it lives.
    pub(super) fn has_unseen_successor(&mut self) -> Result<bool> {
        let Some(Unseen { before, .. }) = self.unseen else { return Ok(false) };
        let successor = self.successor_of(before)?;
        self.unseen = None;
        let Some(successor) = successor else { return Ok(false) };
        let (pid, start_time) = (successor.0.pid, successor.0.start_time);
        let is_followed = self.child().is_some_and(|child| child.0.pid == pid);
        // It became ours with the end of the one before, and may have ended meanwhile.
        if !is_followed && supervise::reap_command(pid, start_time).is_some() {
            return Ok(false);
        }
        self.follow(before, successor);
        if !is_followed {
            self.ask_successor();
        }
        Ok(true)
    }

    /// Whom the row names as the command in the place of `before`, which is collected.
    pub(super) fn successor_of(&self, before: Child) -> Result<Option<Child>> {
        if !supervise::adopts_orphans() {
            return Ok(None);
        }
        let command = match self.tenure.command_on_record() {
            // Nobody can have been followed in the next one.
            Err(error) if error.kind() == ErrorKind::StoreReplaced => None,
            command => command?,
        };
        let of = |child: &Child| (child.0.pid, child.0.start_time);
        Ok(command.map(Child).filter(|now| of(now) != of(&before)))
    }

    pub(super) fn follow(&mut self, before: Child, successor: Child) {
        self.leash.pass_on(successor.0.pid);
        self.knows_as_command(&successor);
        self.tell(&Notice::HandedOver {
            office: self.tenure.office(),
            pid: successor.0.pid,
            before: before.0.pid,
        });
        self.life = Life::Running(successor);
        // What the one before had promised went from the row with it.
        self.beside.said.promised = None;
    }

    /// What this one leaves behind is of the family as well. It has the environment that the first
    /// one was given. The main process, where another one said so, may still be below it.
    pub(super) fn knows_as_command(&mut self, successor: &Child) {
        self.main = self.main.filter(|main| main.pid != successor.0.pid);
        let instance = self.kin.last().map_or_else(|| self.tenure.instance(), Kin::instance);
        self.kin.extend(Kin::of_command(instance, &successor.0));
    }

    /// What was asked of the command before is asked of its successor.
    pub(super) fn ask_successor(&self) {
        let asked = self.asked.as_ref().filter(|asked| asked.stands());
        let signal = match &self.ending {
            Some(Ending { killed: true, .. }) => supervise::KILL,
            Some(_) => supervise::TERMINATE,
            None => match asked {
                // Their time is one for all of them, and over.
                Some(AskedEnd { last_call: Some(LastCall { is_over: true, .. }), .. }) => {
                    supervise::KILL
                }
                Some(asked) => asked.signal.number,
                None => return,
            },
        };
        let _ = self.signal(signal);
    }
}
