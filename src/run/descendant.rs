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
//! row, and that one is followed (`run/follow.rs`).

use crate::owner::family;
use crate::owner::family::Kin;
use crate::patience::with_budget;
use crate::process::command_lock::LockFile;
use crate::process::descendants::LeftOver;
use crate::records::{Command, CommandLock};
use crate::run::notice::Notice;
use crate::run::plan::Extent;
use crate::run::start::Child;
use crate::run::supervised::{LOOK_BUDGET, Life, MainProcess, Supervised};
use crate::sys::{ChildEnd, Existence, Looks, Pid, StartTime, supervise};
use crate::{Result, environment, sys};

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

    /// What below the command says of itself that it is the main process (`MAINPID=` of
    /// `sd_notify(3)`) takes the place of the command when that ends, also without `--follow`.
    /// False for one that the command has not started.
    #[allow(dead_code, reason = "for what passes on the messages of sd_notify(3)")]
    pub(super) fn name_main_process(&mut self, pid: Pid) -> bool {
        let can_follow = self.run.extent == Extent::Whole && supervise::adopts_orphans();
        if self.child().is_some_and(|child| child.0.pid == pid) {
            self.main = None;
            return true;
        }
        let start_time = sys::process_facts(pid).start_time;
        let Some(start_time) = start_time.filter(|_| can_follow) else { return false };
        let is_ours = sys::descendants(std::process::id()).contains(&pid);
        if is_ours && !family::is_program_of_ours(pid) {
            self.main = Some(MainProcess { pid, start_time });
            return true;
        }
        false
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
        let pid = before.0.pid;
        let has_ended = if self.uncollected.is_empty() {
            supervise::reap_up_to(pid)
        } else {
            // A predecessor that waits to be collected is met first.
            supervise::has_ended_child(pid)
        };
        if !has_ended {
            return None;
        }
        if let Some(successor) = self.named_by_itself(before) {
            supervise::reap_child(pid);
            self.main = None;
            self.follow(before, successor);
            self.ask_successor();
            return None;
        }
        let looks = Looks::begin();
        let next = self.next_command();
        if next.is_none() && looks.shortage().is_some() {
            // Nobody was seen for want of descriptors: it stays a zombie, and is looked at again.
            return None;
        }
        self.main = None;
        if let Some(successor) = next {
            self.uncollected.push(pid);
            self.leash.pass_on(successor.0.pid);
            self.knows_as_command(&successor);
            self.life = Life::Running(successor);
            let process = LeftOver::of_pid(successor.0.pid);
            self.tell(&Notice::Follows {
                office: self.tenure.office(),
                process: &process,
                before: pid,
            });
            if let Err(error) = self.record_descendant() {
                let now = successor.0.pid;
                self.doubt(&format!("cannot record yet that pid {now} is the command: {error}"));
            }
            self.ask_successor();
            return None;
        }
        let end = supervise::reap_child(pid);
        for before in self.uncollected.drain(..) {
            supervise::reap_child(before);
        }
        end
    }

    /// Whom `before`, which has ended, has named in the row.
    fn named_by_itself(&mut self, before: Child) -> Option<Child> {
        // The row does not know it yet, and so nobody could take its place.
        if !self.uncollected.is_empty() {
            return None;
        }
        match with_budget(LOOK_BUDGET, || self.successor_of(before)) {
            Ok(successor) => successor,
            Err(error) => {
                self.doubt(&format!("cannot look whom the command named: {error}"));
                None
            }
        }
    }

    /// Who takes the place of a command that has ended, of those that it has left.
    fn next_command(&self) -> Option<Child> {
        let main = self.main;
        let own = std::process::id();
        let candidates = sys::children_of(own).into_iter().filter_map(|pid| self.candidate(pid));
        // Whoever says so itself; one that leads others (a server with its workers); the oldest.
        let best = candidates
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

    /// Whether our child `pid` may become the command: it lives, and is neither a part of ours nor
    /// left on purpose.
    fn candidate(&self, pid: Pid) -> Option<(Pid, StartTime)> {
        /// The first process of a container adopts the orphans of others, too.
        const FIRST: Pid = 1;
        let facts = sys::process_facts(pid);
        let start_time = facts.start_time.filter(|_| facts.existence == Existence::Present)?;
        let is_of_command = std::process::id() != FIRST || self.has_our_environment(pid);
        let is_it = is_of_command
            && !self.uncollected.contains(&pid)
            && !family::is_program_of_ours(pid)
            && !self.run.leaves.names(pid);
        is_it.then_some((pid, start_time))
    }

    fn has_our_environment(&self, pid: Pid) -> bool {
        let instance = self.kin.last().map_or_else(|| self.tenure.instance(), Kin::instance);
        let word = format!("{}={instance}", environment::INSTANCE);
        sys::environment_of(pid).is_some_and(|words| words.contains(&word))
    }

    /// Names the command in the row, and collects those whose place it took then.
    fn record_descendant(&mut self) -> Result<()> {
        let Some(Child(command)) = self.child() else { return Ok(()) };
        // Where the office was lost, the next look ends the command.
        with_budget(LOOK_BUDGET, || self.tenure.follow_child(&command))?;
        for before in self.uncollected.drain(..) {
            supervise::reap_child(before);
        }
        Ok(())
    }
}
