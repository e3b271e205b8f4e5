//! Bringing owners to an end: ask each on its proven process, wait as long as it may take,
//! escalate.

use std::time::Duration;

use crate::claim::aside;
use crate::claim::sweep::Force;
use crate::clock::Deadline;
use crate::liveness::{AliveReason, Observed, Ruling};
use crate::office::takeover::TakeoverTarget;
use crate::office::takeover::announced::{Announced, READ_WITHIN};
use crate::owner::{judgement, older};
use crate::patience::with_budget;
use crate::process::descendants::LeftOver;
use crate::records::{LockRow, Record, instances, locks};
use crate::stop_budget::KILL_GRACE;
use crate::store::{ENDS_WITHIN, Inner};
use crate::sys::{Proven, Unproven};
use crate::{Cancel, Wanted, sys};

/// Between two looks whether an owner is gone, where the kernel does not wake us: when it lets go
/// without ending, or cannot be pinned. Each costs some 40 µs.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long a `run` may take to find its marker, where nothing tells it of one: it looks once a
/// second.
const LOOKS_WITHIN: Duration = Duration::from_millis(1_500);

/// How long a `run` whose command was killed may take to record that and to end by itself.
const RUN_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Between two times that a caller is asked while an owner is given the time to end.
const GOES_ON_LOOK: Duration = Duration::from_millis(50);

/// What may be done to an owner that does not end in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insistence {
    /// It is left alone.
    Ask,
    /// It is killed.
    Kill,
}

/// Whether the owner is still to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    Ask,
    /// Somebody else has asked it.
    Asked,
}

/// What became of a pursued owner.
#[derive(Debug)]
pub(crate) enum Pursued {
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
pub(crate) struct Pursuit<'a> {
    inner: &'a Inner,
    record: &'a Record,
    wanted: &'a Wanted,
    owner: Result<Proven, Unproven>,
    /// The command of a `run`.
    child: Option<Proven>,
    until: Deadline,
    children: Vec<LeftOver>,
    /// To an older gateway.
    announced: Option<Announced>,
}

impl<'a> Pursuit<'a> {
    /// Pins the owner and asks it to end. Whom we cannot kill may be a `run` that ends its command
    /// itself, when its time is over: that one gets `grace` on top. `force` says that a person
    /// means this very owner.
    pub(crate) fn begin(
        inner: &'a Inner,
        TakeoverTarget { record, wanted, children }: &'a TakeoverTarget,
        budget: Duration,
        grace: Duration,
        asking: Asking,
        force: Force,
    ) -> Self {
        let trust = &aside::trust_in(inner, record, force);
        let judged = judgement(inner, record);
        let (mut owner, child) = if older::has_let_go(record) {
            // Whoever has that lock now is somebody else, who is not to be signalled.
            (Err(Unproven::Gone), None)
        } else if is_of_another_store(inner, record) {
            (Err(Unproven::Copied), None)
        } else if !judged.evidence.is_here() {
            (Err(Unproven::Elsewhere), None)
        } else if judged.ruling == Ruling::Alive(AliveReason::ChildLives)
            && judged.evidence.observed() != Observed::Alive
        {
            // The `run` is gone: what is left of the owner is its command.
            (record.prove_child(trust), None)
        } else {
            (record.prove_process(trust), record.prove_child(trust).ok())
        };
        let mut children = children.clone().unwrap_or_default();
        if let Ok(owner) = &owner {
            let more = aside::started_by(record, owner.pid());
            children
                .extend(more.into_iter().filter(|it| !children.contains(it)).collect::<Vec<_>>());
        }
        let has_let_go = matches!(judged.ruling, Ruling::Dead(_)) || has_ended(inner, record);
        let mut announced = None;
        if asking == Asking::Ask
            // Whoever has let go in this instant, and lives on, is nobody's gateway.
            && !has_let_go
            && let Ok(proven) = &owner
        {
            announced = Announced::to(inner, record, proven);
            if let Err(error) = proven.ask_to_end() {
                let pid = proven.pid();
                tracing::debug!(pid, %error, "the owner could not be asked by a signal");
                if error.kind() == std::io::ErrorKind::PermissionDenied {
                    owner = Err(Unproven::Denied(error.to_string()));
                }
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
        Self { inner, record, wanted, owner, child, until, children, announced }
    }

    /// Waits for its end, and escalates.
    pub(crate) fn finish(&self, insistence: Insistence, cancel: &Cancel) -> Pursued {
        let pursued = self.pursue(insistence, cancel);
        if let (Pursued::Over { .. }, Ok(owner)) = (&pursued, &self.owner) {
            // How it ended is known once its parent has collected it.
            let now_ms = self.inner.clock().wall_ms();
            self.inner.witnessed.watch(self.record.id, owner.handle(), now_ms);
        }
        if let (Pursued::Over { .. }, Some(announced)) = (&pursued, &self.announced) {
            announced.withdraw();
        }
        pursued
    }

    fn pursue(&self, insistence: Insistence, cancel: &Cancel) -> Pursued {
        if self.wait_over(self.until, || cancel.ends_wait()) {
            return Pursued::Over { killed: false };
        }
        if cancel.is_cancelled() {
            return Pursued::Cancelled;
        }
        // Not to be cancelled any more: what was killed is gone in an instant, or hangs.
        let asks = || {
            cancel.ends_wait();
            false
        };
        // The command first, so that no moment is left in which it runs without its `run`, and so
        // that a `run` that may not be signalled (the first process of a container) ends as well.
        if insistence == Insistence::Kill
            && let Some(child) = &self.child
            && let Ok(()) = child.kill()
            && self.wait_over(Deadline::after(RUN_ENDS_WITHIN), asks)
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
        if self.wait_over(Deadline::after(KILL_GRACE), asks) {
            return Pursued::Over { killed: true };
        }
        Pursued::TimedOut
    }

    fn wait_over(&self, until: Deadline, ends: impl Fn() -> bool) -> bool {
        loop {
            if self.is_over() {
                return true;
            }
            if until.has_passed() || ends() {
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
    pub(crate) fn goes_on(&self, cancel: &Cancel) -> bool {
        let until = Deadline::after(ENDS_WITHIN);
        self.owner.as_ref().is_ok_and(|owner| {
            while !until.has_passed() && !cancel.ends_wait() {
                if owner.wait_ended(GOES_ON_LOOK.min(until.remaining())) {
                    return false;
                }
            }
            !owner.has_ended()
        })
    }

    /// What is wanted of the owner is its own no more, or it is dead.
    fn is_over(&self) -> bool {
        let has_let_go = with_budget(READ_WITHIN, || {
            self.inner.read(|connection| {
                let row = instances::standing(connection, self.record.id)?;
                let lock = match self.wanted {
                    Wanted::Office(_) => None,
                    Wanted::Lock(name) => Some(locks::by_name(connection, name)?),
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
        let judged = judgement(self.inner, self.record);
        if matches!(judged.ruling, Ruling::Dead(_)) {
            return true;
        }
        // Its lock may be another one's by now, who is not to be waited for.
        is_of_older(self.record)
            && match &self.owner {
                Ok(owner) => owner.has_ended() || older::has_let_go(self.record),
                Err(Unproven::Gone) => !judged.flags.anchor_leaked,
                Err(_) => false,
            }
    }

    /// What the owner had started and that still runs.
    pub(crate) fn left_over(self) -> Vec<LeftOver> {
        let trust = self.inner.trust();
        self.children.into_iter().filter(|process| process.prove(trust).is_ok()).collect()
    }
}

/// Whether another file stands in the place of the recorded anchor (FIELD-BUGS row 95). Where there
/// is none, somebody removed it, and its owner makes it again.
pub(crate) fn is_of_another_store(inner: &Inner, record: &Record) -> bool {
    let Some((name, recorded)) = record.anchor.as_ref().zip(record.identity.anchor) else {
        return false;
    };
    let found = sys::file_key(&inner.location.anchors.join(name));
    matches!(found, Ok(Some(found)) if !found.is(&recorded))
}

/// Whether its own row has ended since.
fn has_ended(inner: &Inner, record: &Record) -> bool {
    let standing = with_budget(READ_WITHIN, || {
        inner.read(|connection| instances::standing(connection, record.id))
    });
    standing.is_ok_and(|row| row.is_some_and(|row| row.ended.is_some()))
}

fn is_of_older(record: &Record) -> bool {
    older::home_of_holder(record).is_some()
}
