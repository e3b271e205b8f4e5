//! What a command leaves behind when it has ended: what is in its session is ended and named, what
//! left it is named (FIELD-BUGS row 127).
//!
//! A `run` that is nothing else adopts the orphans of its command, and collects them. So one that
//! has no child by now has nothing to look for, which is the usual case and costs one system call.
//! As the first process of a container it adopts those of others too: there only the environment
//! tells whose they are.
//!
//! Whoever asked for the end, and waits for it, may be below the command: it is spared, with the
//! scripts that it was started by.

use crate::owner::family;
use crate::owner::family::{Family, Kin, Look, Remains};
use crate::patience::with_budget;
use crate::process::descendants::LeftOver;
use crate::records::instances;
use crate::records::markers::Marker;
use crate::run::inbox::{Inbox, RunEvent};
use crate::run::notice::Notice;
use crate::run::on_end;
use crate::run::plan::Extent;
use crate::run::supervised::{Ending, LOOK_BUDGET, Supervised, Why};
use crate::sys;
use crate::sys::{ChildEnd, Pid, Trust, supervise};

impl Supervised<'_> {
    /// The command has ended so, and was collected; it is to be started again for `restart`, if
    /// there is one.
    pub(super) fn end_family(&mut self, end: ChildEnd, restart: Option<&Marker>) {
        // A successor may be among them, who may not be ended.
        if self.unseen.is_some() {
            return;
        }
        let commands = std::mem::take(&mut self.kin);
        self.main = None;
        let is_whole = self.run.extent == Extent::Whole;
        if is_whole && supervise::adopts_orphans() && !supervise::may_have_children() {
            return;
        }
        let Family::Seen(remains) = self.look_for_family(&commands, restart) else {
            return tracing::debug!("what the command left behind cannot be looked for");
        };
        let command = commands.last().and_then(Kin::pid).unwrap_or_default();
        self.tell_remains(command, &remains);
        let left_something = !remains.ended.is_empty() || !remains.left_alone.is_empty();
        let is_asked = self.ending.is_some() || self.is_asked_to_end() || restart.is_some();
        let may_be_meant = !self.run.follows && !self.run.leaves.all && !is_asked;
        if end == ChildEnd::Exited(0) && left_something && may_be_meant {
            self.tell(&Notice::MayBeFollowed { office: self.tenure.office(), command });
        }
    }

    fn look_for_family(&self, commands: &[Kin], restart: Option<&Marker>) -> Family {
        /// The first process of a container.
        const FIRST: Pid = 1;
        let asked_by = restart.or(match &self.ending {
            Some(Ending { why: Why::End(marker) | Why::Restart(marker), .. }) => Some(marker),
            Some(_) | None => None,
        });
        let asker = asked_by.and_then(|marker| self.asker(marker));
        let askers = asker.map_or_else(Vec::new, and_ancestors);
        let own = std::process::id();
        let is_whole = self.run.extent == Extent::Whole;
        let look = Look {
            is_spared: &|pid| {
                askers.contains(&pid)
                    || self.run.leaves.names(pid)
                    || on_end::is_beside_command(pid)
            },
            trust: &Trust::FULL,
            root: Some(own).filter(|pid| is_whole && *pid != FIRST),
            collect: &|| {
                if is_whole {
                    drop(supervise::reap());
                }
            },
        };
        if self.run.leaves.all {
            family::left_of(commands, &look)
        } else {
            family::end_of(commands, &look)
        }
    }

    /// Who wrote it. The number of one in another pid namespace is somebody else's here.
    fn asker(&self, marker: &Marker) -> Option<Pid> {
        let inner = &self.store.inner;
        let requester = marker.requester.and_then(|id| {
            let row = with_budget(LOOK_BUDGET, || {
                inner.read(|connection| instances::by_id(connection, id))
            });
            row.ok().flatten()
        });
        let is_elsewhere = requester.is_some_and(|row| row.pid_ns != inner.observer().pid_ns);
        marker.by_pid.filter(|_| !is_elsewhere)
    }

    fn tell_remains(&mut self, command: Pid, remains: &Remains) {
        let office = self.tenure.office();
        let (ended, living) = (remains.ended.as_slice(), remains.living.as_slice());
        if !ended.is_empty() {
            self.tell(&Notice::FamilyEnded { office, command, pids: ended });
        }
        if !living.is_empty() {
            self.tell(&Notice::FamilyLives { office, command, pids: living });
        }
        // One that outlives many commands is named once.
        let left = remains.left_alone.iter().map(|pid| LeftOver::of_pid(*pid));
        let left: Vec<LeftOver> = left.filter(|it| !self.left_alone.contains(it)).collect();
        for process in &left {
            self.tell(&Notice::LeftSession { office, command, process });
        }
        self.left_alone.extend(left);
    }

    /// Hears what has come meanwhile: the command is not started again for somebody who has asked
    /// for an end.
    pub(super) fn hear_now(&mut self, inbox: &Inbox) {
        while let Ok(event) = inbox.received.try_recv() {
            if let RunEvent::Signal(signal) = event {
                self.forward(signal);
            }
        }
    }
}

/// A process, and those that it descends from below us.
fn and_ancestors(pid: Pid) -> Vec<Pid> {
    /// No real chain of parents is longer; a loop in a racing process table is.
    const GENERATIONS_MAX: usize = 1_024;
    let own = std::process::id();
    std::iter::successors(Some(pid), |pid| sys::process_facts(*pid).parent)
        .take_while(|pid| *pid != own)
        .take(GENERATIONS_MAX)
        .collect()
}
