//! Bringing owners to an end: ask each on its proven process, wait as long as it may take, escalate.

use std::time::Duration;

use super::Target;
use crate::anchor;
use crate::claimant::judge_record;
use crate::clock::Deadline;
use crate::command_line;
use crate::environment;
use crate::instance::{self, Record};
use crate::legacy;
use crate::liveness::{AliveReason, Lease, Observed, Verdict};
use crate::lock_table::{self, LockRow};
use crate::names::Wanted;
use crate::observe::LiveCommandLine;
use crate::standing::Force;
use crate::stop_budget::KILL_GRACE;
use crate::store::{Inner, with_budget};
use crate::sys::{self, Pid, Proven, StartTime, Trust, Unproven};
use crate::wait::Cancel;

/// Between two looks whether an owner is gone, where the kernel does not wake us: when it lets go
/// without ending, or cannot be pinned. Each costs some 40 µs.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long a `run` may take to find its marker.
const LOOKS_WITHIN: Duration = Duration::from_millis(500);

/// How long a `run` whose command was killed may take to record that and to end by itself.
const RUN_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// How long what an owner left behind may take to end before it is killed.
const LEFT_OVER_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// How long the store may delay a look; what it does not say, the kernel says.
const READ_WITHIN: Duration = Duration::from_millis(100);

/// What may be done to an owner that does not end in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insistence {
    /// It is left alone.
    Ask,
    /// It is killed.
    Kill,
}

/// Whether the owner is still to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    Ask,
    /// Somebody else has asked it.
    Asked,
}

/// What became of a pursued owner.
#[derive(Debug)]
pub(super) enum Pursued {
    /// It is gone, or has let go.
    Over {
        killed: bool,
    },
    /// Its time was over, and it was left alone, or hangs.
    TimedOut,
    /// It could only be asked by its marker, and did not follow.
    CannotSignal(Unproven),
    Cancelled,
}

/// An owner that is being brought to an end.
pub(super) struct Pursuit<'a> {
    inner: &'a Inner,
    record: &'a Record,
    wanted: &'a Wanted,
    owner: Result<Proven, Unproven>,
    /// The command of a `run`.
    child: Option<Proven>,
    until: Deadline,
    children: Vec<LeftOver>,
}

impl<'a> Pursuit<'a> {
    /// Pins the owner and asks it to end. Whom we cannot kill may be a `run` that ends its command
    /// itself, when its time is over: that one gets `grace` on top. `force` says that a person
    /// means this very owner.
    pub(super) fn begin(
        inner: &'a Inner,
        Target { record, wanted, children }: &'a Target,
        budget: Duration,
        grace: Duration,
        asking: Asking,
        force: Force,
    ) -> Self {
        let trust = &trust_in(inner, record, force);
        let judged = judge_record(inner, record, Lease::None, &LiveCommandLine::not_read());
        let (mut owner, child) = if legacy::has_let_go(record) {
            // Whoever has that lock now is somebody else, who is not to be signalled.
            (Err(Unproven::Gone), None)
        } else if is_of_another_store(inner, record) {
            (Err(Unproven::Copied), None)
        } else if !judged.evidence.is_here() {
            (Err(Unproven::Elsewhere), None)
        } else if judged.verdict == Verdict::Alive(AliveReason::ChildLives)
            && judged.evidence.observed() != Observed::Alive
        {
            // The `run` is gone: what is left of the owner is its command.
            (record.prove_child(trust), None)
        } else {
            (record.prove_process(trust), record.prove_child(trust).ok())
        };
        let mut children = children.clone().unwrap_or_default();
        if let Ok(owner) = &owner {
            let more = LeftOver::started_by(owner.pid());
            children
                .extend(more.into_iter().filter(|it| !children.contains(it)).collect::<Vec<_>>());
        }
        let has_let_go = matches!(judged.verdict, Verdict::Dead(_)) || has_ended(inner, record);
        if asking == Asking::Ask
            // Whoever has let go in this instant, and lives on, is nobody's gateway.
            && !has_let_go
            && let Ok(proven) = &owner
            && let Err(error) = proven.ask_to_end()
        {
            tracing::debug!(pid = proven.pid(), %error, "the owner could not be asked by a signal");
            if error.kind() == std::io::ErrorKind::PermissionDenied {
                owner = Err(Unproven::Denied(error.to_string()));
            }
        }
        let budget = match &owner {
            Ok(_) => budget,
            // The script that waits for us will not look for markers meanwhile.
            Err(Unproven::Ancestor) if record.is_pid => Duration::ZERO,
            // Whoever it is does not look into this store.
            Err(Unproven::Copied) => Duration::ZERO,
            // Nobody is left to follow.
            Err(Unproven::Gone) if is_of_older(record) => Duration::ZERO,
            // It has to look at its marker first.
            Err(_) => budget.saturating_add(grace).max(LOOKS_WITHIN),
        };
        let until = Deadline::after(budget);
        Self { inner, record, wanted, owner, child, until, children }
    }

    /// Waits for its end, and escalates.
    pub(super) fn finish(&self, insistence: Insistence, cancel: &Cancel) -> Pursued {
        if self.wait_over(self.until, cancel) {
            return Pursued::Over { killed: false };
        }
        if cancel.is_cancelled() {
            return Pursued::Cancelled;
        }
        // The command first, so that no moment is left in which it runs without its `run`, and so
        // that a `run` that may not be signalled (the first process of a container) ends as well.
        if insistence == Insistence::Kill
            && let Some(child) = &self.child
            && let Ok(()) = child.kill()
            && self.wait_over(Deadline::after(RUN_ENDS_WITHIN), &Cancel::new())
        {
            return Pursued::Over { killed: true };
        }
        let owner = match &self.owner {
            Ok(owner) => owner,
            // Gone, and on record all the same: whoever holds its lock is somebody else.
            Err(Unproven::Gone) if !is_of_older(self.record) => return Pursued::TimedOut,
            Err(why) => return Pursued::CannotSignal(why.clone()),
        };
        if insistence == Insistence::Ask {
            return Pursued::TimedOut;
        }
        if let Err(error) = owner.kill() {
            return Pursued::CannotSignal(Unproven::Denied(error.to_string()));
        }
        // Not to be cancelled any more: what was killed is gone in an instant, or hangs.
        if self.wait_over(Deadline::after(KILL_GRACE), &Cancel::new()) {
            return Pursued::Over { killed: true };
        }
        Pursued::TimedOut
    }

    fn wait_over(&self, until: Deadline, cancel: &Cancel) -> bool {
        loop {
            if self.is_over() {
                return true;
            }
            if until.has_passed() || cancel.is_cancelled() {
                return false;
            }
            let step = LOOK_EVERY.min(until.remaining());
            match &self.owner {
                Ok(owner) if !owner.has_ended() => {
                    owner.wait_ended(step);
                }
                Ok(_) | Err(_) => std::thread::sleep(step),
            }
        }
    }

    /// Whether the owner's process goes on without what it held. One that lets go as the last thing
    /// that it does is given the time for that.
    pub(super) fn goes_on(&self) -> bool {
        const ENDS_WITHIN: Duration = Duration::from_millis(500);
        self.owner.as_ref().is_ok_and(|owner| !owner.wait_ended(ENDS_WITHIN))
    }

    /// What is wanted of the owner is its own no more, or it is dead.
    fn is_over(&self) -> bool {
        let has_let_go = with_budget(READ_WITHIN, || {
            self.inner.read(|connection| {
                let row = instance::standing(connection, self.record.id)?;
                let lock = match self.wanted {
                    Wanted::Office(_) => None,
                    Wanted::Lock(name) => Some(lock_table::by_name(connection, name)?),
                };
                let holds = |lock: Option<LockRow>| {
                    lock.is_some_and(|lock| lock.instance == self.record.id)
                };
                Ok(row.is_some_and(|row| row.ended.is_some())
                    || lock.is_some_and(|lock| !holds(lock)))
            })
        });
        if has_let_go.unwrap_or(false) {
            return true;
        }
        let judged =
            judge_record(self.inner, self.record, Lease::None, &LiveCommandLine::not_read());
        if matches!(judged.verdict, Verdict::Dead(_)) {
            return true;
        }
        // Its lock may be another one's by now, who is not to be waited for.
        is_of_older(self.record)
            && match &self.owner {
                Ok(owner) => owner.has_ended() || legacy::has_let_go(self.record),
                Err(Unproven::Gone) => !judged.flags.anchor_leaked,
                Err(_) => false,
            }
    }

    /// What the owner had started and that still runs.
    pub(super) fn left_over(self) -> Vec<LeftOver> {
        let trust = self.inner.trust();
        self.children.into_iter().filter(|process| process.prove(trust).is_ok()).collect()
    }
}

/// How far the record is believed. A person who insists may also end a process of root's own in the store of
/// a user, if the kernel says that it takes part.
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

/// Whether another file stands in the place of the recorded anchor (FIELD-BUGS row 95). Where there is
/// none, somebody removed it, and its owner makes it again.
fn is_of_another_store(inner: &Inner, record: &Record) -> bool {
    let Some((name, recorded)) = record.anchor.as_ref().zip(record.identity.anchor) else {
        return false;
    };
    let found = sys::file_key(&inner.location.anchors.join(name));
    matches!(found, Ok(Some(found)) if !found.is(&recorded))
}

/// Whether its own row has ended since.
fn has_ended(inner: &Inner, record: &Record) -> bool {
    let standing = with_budget(READ_WITHIN, || {
        inner.read(|connection| instance::standing(connection, record.id))
    });
    standing.is_ok_and(|row| row.is_some_and(|row| row.ended.is_some()))
}

fn is_of_older(record: &Record) -> bool {
    legacy::home_of_holder(record).is_some()
}

/// A process that a replaced owner left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOver {
    /// Its pid.
    pub pid: Pid,
    /// Its redacted command line, where it can be read.
    pub command: Option<String>,
    start_time: Option<StartTime>,
}

impl LeftOver {
    /// What the owner of a record of this namespace has started, if its process is still the same.
    pub(crate) fn of(record: &Record, trust: &Trust) -> Vec<Self> {
        let owner = record.prove_process(trust);
        owner.map_or_else(|_| Vec::new(), |owner| Self::started_by(owner.pid()))
    }

    fn started_by(pid: Pid) -> Vec<Self> {
        let seen = sys::descendants(pid);
        seen.iter()
            .filter_map(|&child| {
                let facts = sys::process_facts(child);
                // Its pid may have been recycled since.
                let is_one_of_them =
                    facts.parent.is_some_and(|parent| parent == pid || seen.contains(&parent));
                is_one_of_them.then(|| Self {
                    pid: child,
                    command: sys::command_line(child)
                        .map(|words| command_line::display(&command_line::redact(&words))),
                    start_time: facts.start_time,
                })
            })
            .collect()
    }

    /// The process, if it still runs and is neither we nor one of those that we descend from.
    fn prove(&self, trust: &Trust) -> Result<Proven, Unproven> {
        Proven::of(self.pid, self.start_time, None, trust)
    }

    /// Ends these processes: asks all of them, and kills those that do not follow. Returns those
    /// that are left.
    pub(super) fn reap(processes: Vec<Self>, trust: &Trust) -> Vec<Self> {
        let proven: Vec<(Self, Proven)> = processes
            .into_iter()
            .filter_map(|process| process.prove(trust).ok().map(|proven| (process, proven)))
            .collect();
        let on_all = |what: fn(&Proven) -> std::io::Result<()>| {
            for (process, proven) in &proven {
                if let Err(error) = what(proven) {
                    tracing::debug!(pid = process.pid, %error, "cannot end what was left over");
                }
            }
            let until = Deadline::after(LEFT_OVER_ENDS_WITHIN);
            proven.iter().all(|(_, proven)| proven.wait_ended(until.remaining()))
        };
        if !on_all(Proven::ask_to_end) {
            on_all(Proven::kill);
        }
        proven.into_iter().filter(|(_, proven)| !proven.has_ended()).map(|it| it.0).collect()
    }
}
