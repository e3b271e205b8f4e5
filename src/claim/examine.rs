//! What every claimant does, whatever it claims: examine a recorded owner, and decide whether it is
//! over, the same process, in the way, or needs an errand first.
//!
//! A process that recorded itself (`claim --pid $$`, `lock acquire --pid $$`) and then executes a
//! program that claims meets its own record: it is taken over as `re_executed`.

use std::fmt;

use serde::Serialize;

use crate::claim::aside::{Errand, Lookups};
use crate::environment::{Fault, planted};
use crate::liveness::{
    AliveReason, AnchorState, DeadReason, Evidence, Judgement, Lease, Presence, Ruling,
    StartTimeMatch, UnknownReason,
};
use crate::owner::evidence::hangs_on_init;
use crate::owner::family::{Family, Remains};
use crate::owner::{LiveCommandLine, family, judge, judgement, needs_command_line};
use crate::process::{Subject, handover};
use crate::records::{EndReason, Origin, Record};
use crate::store::{Inner, Tx};
use crate::sys::{StartTime, Trust};
use crate::{Error, ErrorKind, InstanceId, ProfileName, Reason, Result, sys};
use std::time::Duration;

/// How often one claim looks again because what it had read before belonged to another
/// generation, or a child had to be ended first. More would mean something that changes hands
/// faster than it can be looked at.
pub(crate) const ATTEMPTS: usize = 8;

/// The holder whose place a claim took: it was dead, or stopped and evicted. In JSON an object with
/// these fields, without `instance`, and without lists that are empty; later versions may add
/// others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Evicted {
    /// Its recorded pid, in its own pid namespace.
    pub pid: Option<sys::Pid>,
    /// Its profile, if it has one.
    pub profile: Option<ProfileName>,
    /// Its generation.
    #[serde(skip)]
    pub instance: InstanceId,
    /// Why it counted as dead; [`Reason::Evicted`] for one that was stopped.
    pub reason: Reason,
    /// The pids of what it, a `run` that was killed, had left in its session: ended before the
    /// place was taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<sys::Pid>,
    /// The pids of what had left that session, and was left alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_alone: Vec<sys::Pid>,
}

impl Evicted {
    pub(crate) fn of(record: &Record, reason: EndReason, aside: &Lookups) -> Self {
        let Remains { ended, left_alone, .. } = aside.remains_of(record.id);
        Self {
            ended,
            left_alone,
            pid: record.pid,
            profile: record.profile.clone(),
            instance: record.id,
            reason: reason.into(),
        }
    }
}

/// What a new row relies on for its liveness.
#[derive(Clone, Debug)]
pub(crate) enum Attachment {
    /// This process' own anchor.
    Own,
    /// This process' own anchor, held for another process that we keep.
    Keeper { pid: sys::Pid, start_time: Option<StartTime> },
    /// The anchor of a keeper that already keeps the recorded process.
    Kept { anchor: String, keeper: sys::Pid, keeper_start_time: Option<StartTime> },
    /// None: only pid and start time tell.
    None,
}

/// The anchor that a new row names, and its keeper.
pub(crate) type Attached = (Option<String>, Option<(sys::Pid, Option<StartTime>)>);

impl Attachment {
    /// Makes the anchor, if it is to be this process' own and there is none yet.
    pub(crate) fn attach(&self, tx: &Tx<'_>, inner: &Inner) -> Result<Attached> {
        Ok(match self {
            Self::Own => (Some(inner.anchor(tx)?.name().to_owned()), None),
            Self::Keeper { pid, start_time } => {
                (Some(inner.anchor(tx)?.name().to_owned()), Some((*pid, *start_time)))
            }
            Self::Kept { anchor, keeper, keeper_start_time } => {
                (Some(anchor.clone()), Some((*keeper, *keeper_start_time)))
            }
            Self::None => (None, None),
        })
    }
}

/// Whether a refusal is recorded. A waiter is refused once, when its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Yes,
    No,
}

impl Count {
    /// Does one step of a claim; where the store cannot be written, again without a record of the
    /// refusal: what is refused is refused, also on a full disk.
    pub(crate) fn if_writable<T>(self, mut step: impl FnMut(Self) -> Result<T>) -> Result<T> {
        match step(self) {
            Err(error) if self == Self::Yes && error.kind() == ErrorKind::CannotWrite => {
                step(Self::No)
            }
            outcome => outcome,
        }
    }
}

/// Who claims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant<'a> {
    pub(crate) origin: Origin,
    pub(crate) subject: &'a Subject,
}

/// What a claimant makes of a recorded owner.
#[derive(Debug)]
pub(crate) enum Examined {
    /// Its record is to be ended, for this reason.
    Over(EndReason),
    /// It is the very process that the claim is for, by a row that `--pid` made.
    Same,
    Errand(Errand),
    /// It lives, or cannot be told dead.
    InTheWay(Judgement),
}

/// Examines the owner of `record`. `lease` is that of the lock in question, if there is one.
pub(crate) fn examine(
    inner: &Inner,
    claimant: Claimant<'_>,
    record: &Record,
    lease: Lease,
    aside: &Lookups,
) -> Examined {
    let command_line = aside.command_line(record.id);
    let judged = judge::judge_for_claim(inner, record, lease, &command_line);
    if let Some(reason) = another_life_of_ours(inner, claimant, record, &judged) {
        return Examined::Over(reason);
    }
    let subject = claimant.subject.pid;
    let is_about_the_subject = record.is_pid
        && judged.evidence.is_here()
        && record.pid == Some(claimant.subject.pid)
        && judged.evidence.start_time != StartTimeMatch::Different;
    match judged.ruling {
        // What a script recorded for itself goes on when it executes a program that claims.
        Ruling::Alive(_) if is_about_the_subject && claimant.origin != Origin::Pid => {
            Examined::Over(EndReason::ReExecuted)
        }
        // Its own lease that ran out is still its own while nobody else came.
        Ruling::Dead(DeadReason::LeaseExpired)
            if is_about_the_subject && judged.evidence.process == Presence::Present =>
        {
            match claimant.origin {
                Origin::Pid => Examined::Same,
                Origin::Library | Origin::Run => Examined::Over(EndReason::ReExecuted),
            }
        }
        Ruling::Dead(reason) if may_have_family(record, &judged.evidence) => {
            match aside.family_left(record.id) {
                None if may_end_family(record, &judged.evidence) => {
                    Examined::Errand(Errand::EndFamily(Box::new(record.clone()), subject))
                }
                None => Examined::Errand(Errand::FindFamily(Box::new(record.clone()), subject)),
                Some(family) => {
                    let judged = with_family(judged, family);
                    match judged.ruling {
                        Ruling::Dead(_) => Examined::Over(EndReason::Dead(reason)),
                        Ruling::Alive(_) | Ruling::Unknown(_) => Examined::InTheWay(judged),
                    }
                }
            }
        }
        Ruling::Dead(reason) => Examined::Over(EndReason::Dead(reason)),
        // Of a pid here there is one process: if that is alive, the two are the same.
        Ruling::Alive(_) if is_about_the_subject => Examined::Same,
        Ruling::Alive(_) | Ruling::Unknown(_)
            if needs_command_line(&judged.evidence) && !command_line.is_for(record.id) =>
        {
            Examined::Errand(Errand::ReadCommandLine(Box::new(record.clone())))
        }
        Ruling::Unknown(_)
            if hangs_on_init(record, &judged.evidence)
                && !aside.looked_again.contains(&record.id) =>
        {
            Examined::Errand(Errand::LookAgain(Box::new(record.clone())))
        }
        Ruling::Alive(AliveReason::ChildLives)
            if !aside.spared.contains(&record.id) && may_end_child(record, &judged.evidence) =>
        {
            Examined::Errand(Errand::EndChild(Box::new(record.clone())))
        }
        Ruling::Alive(_) | Ruling::Unknown(_) => Examined::InTheWay(judged),
    }
}

/// Whether a claimant ends the command that a killed `run` left behind. Only where the free lock is
/// the very file on record: in a copy of the store the `run` may live and hold the original
/// (FIELD-BUGS row 95), and rows of version 0.1 do not say which file it was.
fn may_end_child(record: &Record, seen: &Evidence) -> bool {
    seen.anchor == AnchorState::Free && seen.is_here() && record.identity.anchor.is_some()
}

/// Whether a dead owner is a `run` that was killed, whose command may have left something in its
/// session here (FIELD-BUGS row 107). What is left counts whatever became of the anchor.
fn may_have_family(record: &Record, seen: &Evidence) -> bool {
    let is_looked_for = record.is_run && !planted(Fault::FamilyIgnored);
    is_looked_for && record.identity.child_sid.is_some() && seen.is_here()
}

/// The same as [`judge_record`](crate::owner::judge::judge_record) for verbs that end the record of
/// a dead owner without taking its place: with the record would go all that the next claim can find
/// the family by.
pub(crate) fn judge_to_end(
    inner: &Inner,
    record: &Record,
    lease: Lease,
    command_line: &LiveCommandLine,
) -> Judgement {
    let judged = judge::judge_record(inner, record, lease, command_line);
    if !matches!(judged.ruling, Ruling::Dead(_)) || !may_have_family(record, &judged.evidence) {
        return judged;
    }
    with_family(judged, &family::living(record, None, inner.trust()))
}

/// What a family makes of a dead owner.
fn with_family(judged: Judgement, family: &Family) -> Judgement {
    match family {
        Family::NotSeen => {
            Judgement { ruling: Ruling::Unknown(UnknownReason::NotVerifiable), ..judged }
        }
        Family::Seen(remains) => match remains.living.first() {
            Some(pid) => Judgement {
                ruling: Ruling::Alive(AliveReason::ChildLives),
                left_behind: Some(*pid),
                ..judged
            },
            None => judged,
        },
    }
}

/// Ends the family of an owner that is dead, outside of any transaction: whoever stops an office
/// stops that as well. Returns whom that ended.
pub(crate) fn end_family(inner: &Inner, record: &Record, trust: &Trust) -> Vec<sys::Pid> {
    let judged = judgement(inner, record);
    if matches!(judged.ruling, Ruling::Dead(_))
        && may_have_family(record, &judged.evidence)
        && may_end_family(record, &judged.evidence)
        && let Family::Seen(remains) = family::end(record, None, trust)
    {
        return remains.ended;
    }
    Vec::new()
}

/// Whether it is ended: as with the command itself. That very file may still have been held when we
/// looked at it, and its owner was gone when we looked at that.
fn may_end_family(record: &Record, seen: &Evidence) -> bool {
    let is_that_file = matches!(seen.anchor, AnchorState::Free | AnchorState::Held);
    is_that_file && seen.is_here() && record.identity.anchor.is_some()
}

/// The process executed itself anew (same pid, same start time, its anchor released by the exec, or
/// inherited), lost track of a grant that was committed all the same (the row names our very
/// anchor), or meets itself in a copy of the store that was put in the place of the one it was in:
/// also where it has given everything back meanwhile, which looks like an exec.
fn another_life_of_ours(
    inner: &Inner,
    claimant: Claimant<'_>,
    record: &Record,
    judged: &Judgement,
) -> Option<EndReason> {
    if claimant.origin == Origin::Pid || record.pid != Some(claimant.subject.pid) {
        return None;
    }
    let Evidence { anchor, start_time, .. } = judged.evidence;
    let names_our_anchor =
        inner.own_anchor().is_some_and(|anchor| record.anchor.as_deref() == Some(anchor.name()));
    // Released by the exec, or left to us by the program before.
    let let_go = match anchor {
        AnchorState::Free => true,
        AnchorState::Held => handover::was_left_to_us(record.id, record.identity.anchor.as_ref()),
        AnchorState::Missing | AnchorState::Unreadable | AnchorState::None => false,
    };
    let re_executed = let_go
        && judged.evidence.is_here()
        && start_time == StartTimeMatch::Equal
        && record.child_pid.is_none();
    // A release that was only not written yet has ended the row by now.
    let was_given_back =
        re_executed && record.anchor.as_deref().is_some_and(|anchor| inner.has_abandoned(anchor));
    if was_given_back || (names_our_anchor && !inner.held_before.is_nothing()) {
        return Some(EndReason::StoreReplaced);
    }
    (names_our_anchor || re_executed).then_some(EndReason::ReExecuted)
}

pub(crate) fn changes_too_fast(what: &impl fmt::Display) -> Error {
    Error::new(ErrorKind::Busy, format!("the holder of {what} kept changing"))
        .with_hint("try again")
        .with_retry_after(Duration::from_secs(1))
}
