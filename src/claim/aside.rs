//! Errands: what a claim has to find out or to do before it can decide, and what is too slow for
//! its transaction.
//!
//! Reading a command line, or ending the command or the family of a `run` that is gone, can be
//! slow. `claim_once` and `acquire_once` return such a step as an `Errand`, `Lookups::run` does it,
//! and the claim starts over. What an errand found counts only for the generation that it was found
//! for.
//!
//! A claimant that ends a command left behind never ends itself or its own ancestors: the command
//! may be the very script that asks. If we *are* the recorded child, it is gone.

use std::path::PathBuf;
use std::time::Duration;

use crate::claim::ours;
use crate::claim::sweep::Force;
use crate::clock::Deadline;
use crate::error::with_clear_sight;
use crate::owner::family::{Family, Remains};
use crate::owner::{LiveCommandLine, family, judge};
use crate::process::anchor;
use crate::process::descendants::LeftOver;
use crate::process::observer::FREE_TWICE_APART;
use crate::records::Record;
use crate::store::Inner;
use crate::sys::{Trust, Unproven};
use crate::{InstanceId, Result, environment, sys};

/// How long a claimant waits for a killed child to be gone. A killed process goes in milliseconds
/// unless it hangs in the kernel (a dead disk), and then nobody else can help either.
const CHILD_GONE_WITHIN: Duration = Duration::from_secs(5);

/// Between the two looks that find an owner stopped: job control and snapshots stop healthy
/// processes for an instant.
const STOPPED_TWICE_APART: Duration = Duration::from_millis(200);

/// To be run outside the transaction, because it is slow; claim again afterwards.
#[derive(Debug)]
pub(crate) enum Errand {
    /// The verdict hangs on the command line of this holder.
    ReadCommandLine(Box<Record>),
    /// This holder's `run` is gone, and its command must be ended first.
    EndChild(Box<Record>),
    /// This holder's `run` was killed, and its command with it: what that had started must be ended
    /// first. Whom the claim is for is not ended by it.
    EndFamily(Box<Record>, sys::Pid),
    /// The same, but nothing of it may be ended.
    FindFamily(Box<Record>, sys::Pid),
    /// This holder was the first process of a pid namespace, which counts as ended when its anchor
    /// is free twice.
    LookAgain(Box<Record>),
    /// This `run` of another profile is about to take the lock of the older program in this
    /// directory.
    AwaitOlderLock(Box<Record>, PathBuf),
    /// This holder may be evicted if it is found stopped twice.
    FindStopped(Box<Record>),
    /// This holder is to be replaced: what it has started may outlive it.
    ListChildren(Box<Record>),
}

impl Errand {
    /// Whom it may end: a person who replaces the holder by force means what that has left behind,
    /// too.
    pub(crate) fn trust(&self, inner: &Inner, force: Force) -> Trust {
        match self {
            Self::EndChild(record) | Self::EndFamily(record, _) => trust_in(inner, record, force),
            _ => inner.trust().clone(),
        }
    }
}

/// What a claim learns and does between two transactions, because it is too slow for one.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    command_lines: Vec<LiveCommandLine>,
    /// The holders whose command could not be ended, or was, and still counts as alive by its lock:
    /// they are refused like any other.
    pub(super) spared: Vec<InstanceId>,
    /// The holders whose command was ended.
    ended: Vec<InstanceId>,
    /// The holders whose anchor was found free, and is looked at again.
    pub(super) looked_again: Vec<InstanceId>,
    /// Those of other profiles that were given the time to take the lock of an older program.
    awaited: Vec<InstanceId>,
    /// The holders that were looked at whether they are stopped, and what came of it.
    stopped: Vec<(InstanceId, bool)>,
    /// The killed holders whose families were ended, and who is left of each.
    families: Vec<(InstanceId, Family)>,
    /// What the holders had started.
    children: Vec<(InstanceId, Vec<LeftOver>)>,
}

impl Lookups {
    /// Runs `errand`, which must not go on beyond `deadline` for the sake of an eviction.
    ///
    /// # Errors
    /// Where it ran short of something, and so did not see all that it looked for.
    pub(crate) fn run(&mut self, errand: Errand, deadline: Deadline, trust: &Trust) -> Result<()> {
        with_clear_sight(
            || "look at who holds it",
            || {
                self.carry_out(errand, deadline, trust);
                Ok(())
            },
        )
    }

    fn carry_out(&mut self, errand: Errand, deadline: Deadline, trust: &Trust) {
        match errand {
            Errand::ReadCommandLine(record) => {
                self.command_lines.push(LiveCommandLine::read(&record));
            }
            Errand::EndChild(record) => {
                if self.ended.contains(&record.id) || !kill_child(&record, trust) {
                    self.spared.push(record.id);
                } else {
                    self.ended.push(record.id);
                }
            }
            Errand::LookAgain(record) => {
                std::thread::sleep(FREE_TWICE_APART);
                self.looked_again.push(record.id);
            }
            Errand::AwaitOlderLock(record, home) => {
                ours::wait_for_lock(&home, deadline);
                self.awaited.push(record.id);
            }
            Errand::EndFamily(record, subject) => {
                self.families.push((record.id, family::end(&record, Some(subject), trust)));
            }
            Errand::FindFamily(record, subject) => {
                self.families.push((record.id, family::living(&record, Some(subject), trust)));
            }
            Errand::FindStopped(record) => {
                let in_time = deadline.remaining() > STOPPED_TWICE_APART;
                self.stopped.push((record.id, in_time && stays_stopped(&record)));
            }
            Errand::ListChildren(record) => {
                self.children.push((record.id, started_by_owner(&record, trust)));
            }
        }
    }

    /// Whether the owner of this row has had the time to take the lock of an older program.
    pub(crate) fn has_awaited(&self, id: InstanceId) -> bool {
        self.awaited.contains(&id)
    }

    pub(super) fn command_line(&self, id: InstanceId) -> LiveCommandLine {
        self.command_lines.iter().rev().find(|line| line.is_for(id)).cloned().unwrap_or_default()
    }

    /// Who is left of the family of this holder's command; `None` when nobody has looked yet.
    pub(super) fn family_left(&self, id: InstanceId) -> Option<&Family> {
        self.families.iter().find(|(of, _)| *of == id).map(|(_, family)| family)
    }

    /// What came of looking for the family of this holder.
    pub(super) fn remains_of(&self, id: InstanceId) -> Remains {
        match self.family_left(id) {
            Some(Family::Seen(remains)) => remains.clone(),
            Some(Family::NotSeen) | None => Remains::default(),
        }
    }

    /// What this holder had started; `None` when nobody has looked yet.
    pub(crate) fn children(&self, id: InstanceId) -> Option<Vec<LeftOver>> {
        self.children.iter().find(|(of, _)| *of == id).map(|(_, children)| children.clone())
    }

    /// Whether this holder was found stopped twice; `None` when nobody has looked yet.
    pub(crate) fn was_found_stopped(&self, id: InstanceId) -> Option<bool> {
        self.stopped.iter().find(|(looked_at, _)| *looked_at == id).map(|(_, stopped)| *stopped)
    }
}

/// Whether a process is found stopped twice. It is looked at in between as well: once it goes on or
/// dies, there is something better to do than to wait.
fn stays_stopped(record: &Record) -> bool {
    const LOOK_EVERY: Duration = Duration::from_millis(5);

    let until = Deadline::after(STOPPED_TWICE_APART);
    while judge::is_stopped(record) {
        if until.has_passed() {
            return true;
        }
        std::thread::sleep(LOOK_EVERY.min(until.remaining()));
    }
    false
}

/// What the owner of this row has started, if it is still the same process.
pub(crate) fn started_by_owner(record: &Record, trust: &Trust) -> Vec<LeftOver> {
    record.prove_process(trust).map_or_else(|_| Vec::new(), |it| started_by(record, it.pid()))
}

/// What the owner of this row, which is `pid`, has started.
pub(crate) fn started_by(record: &Record, pid: sys::Pid) -> Vec<LeftOver> {
    /// Of a container: it adopts what others have started, and takes all along.
    const FIRST: sys::Pid = 1;
    match record.child_pid {
        Some(command) if command != pid => LeftOver::started_by_run(pid, command),
        Some(_) | None if pid == FIRST => Vec::new(),
        Some(_) | None => LeftOver::started_by(pid),
    }
}

/// Ends the command that a killed `run` left behind, and waits until it is gone. False when it
/// lives on: because we may not or cannot end it, or because it is the very script that asks for
/// the office now.
fn kill_child(record: &Record, trust: &Trust) -> bool {
    let Some(pid) = record.child_pid else { return false };
    let child = match record.prove_child(trust) {
        Ok(child) => child,
        Err(Unproven::Gone) => return true,
        Err(why) => {
            tracing::warn!(pid, %why, "cannot end the command that a killed run left behind");
            return false;
        }
    };
    tracing::warn!(pid, "ending the command that a killed run left behind");
    match child.kill() {
        Ok(()) => child.wait_ended(CHILD_GONE_WITHIN),
        Err(error) => {
            tracing::warn!(pid, %error, "cannot end it");
            child.has_ended()
        }
    }
}

/// How far the record is believed. A person who insists may also end a process of root's own in the
/// store of a user, if the kernel says that it takes part.
pub(crate) fn trust_in(inner: &Inner, record: &Record, force: Force) -> Trust {
    let trust = inner.trust().clone();
    match record.anchor.as_deref().and_then(anchor::file_name) {
        Some(name) if force == Force::Yes => trust.and_who_takes_part(
            &inner.location.anchors.join(name),
            format!("{}={}", environment::INSTANCE, record.id),
        ),
        Some(_) | None => trust,
    }
}
