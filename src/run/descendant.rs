//! A run that stays with what its command leaves behind (`--follow`): a server that executes itself
//! anew on SIGUSR2, a start script that leaves a daemon (FIELD-BUGS row 108).
//!
//! The run adopts orphans, so what its command had started is its child once the command has ended,
//! or below one. A child is known for good: its pid is nobody else's until it is collected. One of
//! them becomes the command, and the row names it before its predecessor is collected. A run that
//! is killed in between leaves a row whose command is a zombie of ours or lives, never one that is
//! dead beside a gateway that lives. Where the store cannot be written, the predecessor stays a
//! zombie until it can.
//!
//! A command that hands over by itself (`office/handover/in_run.rs`) has named its successor in the
//! row, and that one is followed (`run/follow.rs`). Where the store does not tell, what lives is
//! followed meanwhile, and the row is asked before it is written.

use crate::owner::family;
use crate::owner::family::Kin;
use crate::patience::with_budget;
use crate::process::command_lock::LockFile;
use crate::process::descendants::LeftOver;
use crate::records::{Command, CommandLock};
use crate::run::inbox::{Inbox, RunEvent};
use crate::run::notice::Notice;
use crate::run::on_end;
use crate::run::plan::Extent;
use crate::run::start::Child;
use crate::run::supervised::{LOOK_BUDGET, Life, MainProcess, Supervised, Unseen};
use crate::sys::{ChildEnd, Existence, Looks, Pid, StartTime, supervise};
use crate::{Result, environment, sys};

/// Who takes the place of a command that has ended.
enum Next {
    Is(Child),
    Nobody,
    /// That cannot be told now.
    NotSeen,
}

impl MainProcess {
    /// Whether it is `pid`, or was started below that.
    fn is_within(self, pid: Pid) -> bool {
        let is_there = sys::process_facts(self.pid).start_time == Some(self.start_time);
        is_there && (self.pid == pid || sys::descendants(pid).contains(&self.pid))
    }
}

impl Supervised<'_> {
    /// Whether somebody may take the place of the command when that ends.
    pub(super) fn stays_with_descendants(&self) -> bool {
        self.run.follows || self.main.is_some() || !self.uncollected.is_empty()
    }

    /// `pid` is the main process of the command, by the word of somebody who may give it
    /// (`MAINPID=` of `sd_notify(3)`): it takes the place of the command when that ends, also
    /// without `--follow`. Whether it can: it lives, the command has started it, or something
    /// below, and it is no part of us. Else nothing changes.
    pub(super) fn name_main_process(&mut self, pid: Pid) -> bool {
        let Some(Child(command)) = self.child() else { return false };
        if command.pid == pid {
            self.main = None;
            return true;
        }
        if self.run.extent != Extent::Whole || !supervise::adopts_orphans() {
            return false;
        }
        let is_below_us = sys::descendants(std::process::id()).contains(&pid);
        let Some((pid, start_time)) = self.candidate(pid).filter(|_| is_below_us) else {
            return false;
        };
        self.main = Some(MainProcess { pid, start_time });
        true
    }

    /// A start script may say who the main process is, and end: that is heard before it is
    /// collected, while the row can still name another one in its place. False while it lives.
    pub(super) fn has_said_its_last(&mut self, inbox: &Inbox) -> bool {
        let is_heard = self.beside.hears_command() && supervise::adopts_orphans();
        let Some(Child(command)) = self.child().filter(|_| is_heard) else { return true };
        // Where another one waits to be collected, it was heard, and is looked for anyway.
        if !self.uncollected.is_empty() {
            return true;
        }
        if !supervise::reap_up_to(command.pid, command.start_time) {
            return false;
        }
        self.beside.hear_last_words();
        while let Ok(event) = inbox.received.try_recv() {
            match event {
                RunEvent::Signal(signal) => self.forward(signal),
                RunEvent::Notified(said) => self.heed(said),
                RunEvent::CommandLock(watched) => self.lock_watched = watched,
                RunEvent::ChildEnded | RunEvent::Suspended(_) | RunEvent::Committed => {}
            }
        }
        true
    }

    /// How the last command ended, if nobody is left to take its place. Orphans are collected
    /// meanwhile.
    pub(super) fn end_without_descendants(&mut self) -> Option<ChildEnd> {
        if !self.uncollected.is_empty()
            && let Err(error) = self.record_descendant()
        {
            tracing::debug!(%error, "the command is not on record yet");
        }
        let Some(before) = self.child() else {
            drop(supervise::reap());
            return None;
        };
        let (pid, start_time) = (before.0.pid, before.0.start_time);
        let has_ended = if self.uncollected.is_empty() {
            supervise::reap_up_to(pid, start_time)
        } else {
            // A predecessor that waits to be collected is met first.
            supervise::has_ended_command(pid, start_time)
        };
        if !has_ended {
            return None;
        }
        let untold = match self.named_by_itself(before) {
            Ok(Some(successor)) => {
                supervise::reap_child(pid);
                self.follow(before, successor);
                self.ask_successor();
                return None;
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        match self.next_command(pid) {
            // It stays a zombie, and is looked at again.
            Next::NotSeen => None,
            Next::Is(successor) => {
                if let Some(error) = untold {
                    self.unseen = Some(Unseen { before, error });
                }
                self.follow_descendant(before, successor);
                None
            }
            Next::Nobody => {
                self.main = None;
                self.leash.slip();
                let end = supervise::reap_child(pid);
                for before in self.uncollected.drain(..) {
                    supervise::reap_child(before);
                }
                if untold.is_none() {
                    return end;
                }
                // Nobody can be named any more by now, and the store has more time to tell.
                self.go_on_with_successor(end?)
            }
        }
    }

    /// `before` has ended, and is collected once it is on record that `successor` is the command.
    fn follow_descendant(&mut self, before: Child, successor: Child) {
        let (now, before) = (successor.0.pid, before.0.pid);
        self.uncollected.push(before);
        self.leash.pass_on(now);
        self.knows_as_command(&successor);
        self.life = Life::Running(successor);
        let process = LeftOver::of_pid(now);
        let office = self.tenure.office();
        self.tell(&Notice::Follows { office, process: &process, before });
        if let Err(error) = self.record_descendant() {
            self.doubt(&format!("cannot record yet that pid {now} is the command: {error}"));
        }
        // Unless the row has named another one, which was asked.
        if self.child().is_some_and(|child| child.0.pid == now) {
            self.ask_successor();
        }
    }

    /// Whom `before`, which has ended, has named in the row.
    fn named_by_itself(&mut self, before: Child) -> Result<Option<Child>> {
        // The row does not know it yet, and so nobody could take its place.
        if !self.uncollected.is_empty() {
            return Ok(None);
        }
        let named = with_budget(LOOK_BUDGET, || self.successor_of(before));
        if let Err(error) = &named {
            self.doubt(&format!("cannot look whom the command named: {error}"));
        }
        named
    }

    /// Who takes the place of the command, which is `ended`, of those that it has left.
    ///
    /// A daemon forks, and its parent ends. One look at the process table may come too early for
    /// the child and too late for the parent, and see nobody although there was somebody all the
    /// while. But whoever lives when a look begins descends from a child of ours that lives then,
    /// and that one is seen, alive or ended. So a look that has met nobody who ended is right.
    fn next_command(&self, ended: Pid) -> Next {
        /// Signals are heard in between.
        const LOOKS_MAX: usize = 16;
        for _ in 0..LOOKS_MAX {
            let looks = Looks::begin();
            let mut children = sys::children_of(std::process::id());
            children.retain(|pid| *pid != ended && !self.uncollected.contains(pid));
            if let Some(next) = self.best_of(&children) {
                return Next::Is(next);
            }
            // Nobody was seen for want of descriptors.
            if looks.shortage().is_some() {
                return Next::NotSeen;
            }
            let mut has_met_one = false;
            for pid in children {
                has_met_one |= supervise::reap_child(pid).is_some();
            }
            if !has_met_one {
                return Next::Nobody;
            }
        }
        Next::NotSeen
    }

    /// Who of these children of ours takes the place of the command.
    fn best_of(&self, children: &[Pid]) -> Option<Child> {
        let main = self.main;
        // Whoever says so itself; one that leads others (a server with its workers); the oldest.
        let best = children
            .iter()
            .filter_map(|pid| self.candidate(*pid))
            .map(|(pid, start_time)| {
                let is_main = main.is_some_and(|main| main.is_within(pid));
                let leads = !sys::descendants(pid).is_empty();
                (!is_main, !leads, start_time.value, pid, start_time)
            })
            .min_by_key(|it| (it.0, it.1, it.2, it.3))?;
        let (is_not_main, .., pid, start_time) = best;
        if is_not_main && !self.run.follows {
            return None;
        }
        let lock_file = self.lock_file.as_ref();
        Some(Child(Command {
            pid,
            start_time: Some(start_time),
            // It may have inherited the descriptor; the lock is the command's alone.
            lock: if lock_file.is_some() { CommandLock::Lost } else { CommandLock::None },
            lock_inode: lock_file.map(LockFile::inode),
        }))
    }

    /// Whether `pid`, which was seen below us, may become the command: it lives, and is neither a
    /// part of ours, nor of another run, nor left on purpose.
    fn candidate(&self, pid: Pid) -> Option<(Pid, StartTime)> {
        let facts = sys::process_facts(pid);
        let start_time = facts.start_time.filter(|_| facts.existence == Existence::Present)?;
        let is_it = !self.uncollected.contains(&pid)
            && self.may_be_of_command(pid)
            && !family::is_program_of_ours(pid)
            && !self.run.leaves.names(pid)
            && !on_end::is_beside_command(pid);
        is_it.then_some((pid, start_time))
    }

    /// Whether `pid` can be a part of the command, by its environment. One that has cleared that
    /// may be; but the first process of a container adopts the orphans of others, too, and looks
    /// for more.
    fn may_be_of_command(&self, pid: Pid) -> bool {
        const FIRST: Pid = 1;
        let kin = self.kin.last();
        let instance = kin.map_or_else(|| self.tenure.instance(), Kin::instance);
        let any_run = format!("{}=", environment::INSTANCE);
        let of_this_run = format!("{any_run}{instance}");
        let may_be =
            || std::process::id() != FIRST || kin.is_some_and(|command| command.has_lock_file(pid));
        match sys::environment_of(pid) {
            Some(words) if words.contains(&of_this_run) => true,
            Some(words) => !words.iter().any(|word| word.starts_with(&any_run)) && may_be(),
            None => may_be(),
        }
    }

    /// Names the command in the row, and collects those whose place it took then. One that the
    /// first of those has named itself comes before.
    fn record_descendant(&mut self) -> Result<()> {
        if !with_budget(LOOK_BUDGET, || self.has_unseen_successor())? {
            let Some(Child(command)) = self.child() else { return Ok(()) };
            // Where the office was lost, the next look ends the command.
            with_budget(LOOK_BUDGET, || self.tenure.follow_child(&command))?;
            // With the row of the one before went what that had promised.
            self.beside.said.promised = None;
        }
        for before in self.uncollected.drain(..) {
            supervise::reap_child(before);
        }
        Ok(())
    }
}
