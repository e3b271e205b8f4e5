//! The verdict: what follows from what was seen of a recorded owner.
//!
//! [`judge`] is a pure function over small finite inputs: no I/O, no clock, no default arm. Its
//! rules are numbered in its documentation, the first that matches wins, and its tests walk the
//! whole product of the inputs.
//!
//! Two rules carry the rest. Where the kernel answers about the anchor, that decides; pid, start
//! time and command line explain it, and decide only where no anchor can be seen. Where it can be
//! seen, pids count only to find a leaked lock, or because the command of a killed `run` lives. And
//! *unknown is never dead*: not being able to look evicts nobody.

mod evidence;
mod reason;
#[cfg(test)]
mod tests;
mod verdict;

pub use self::evidence::{
    AnchorState, Boot, ChildState, CommandLineMatch, CommandLockState, Evidence, Keeper, Lease,
    Observed, Presence, ProcessTable, Relation, RunState, StartTimeMatch, Table, Writer,
};
pub use self::reason::Reason;
pub use self::verdict::{AliveReason, DeadReason, Flags, Ruling, UnknownReason, Verdict};

use crate::environment::{Fault, planted};

/// A verdict, with the flags that qualify it and the evidence it rests on. It is about the moment
/// of the look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judgement {
    /// The answer, with its reason.
    pub ruling: Ruling,
    /// What else a person should know.
    pub flags: Flags,
    /// What was seen.
    pub evidence: Evidence,
    /// The pid of a process that a killed `run` left behind and that nobody here may end, where
    /// that is what stands in the way.
    pub left_behind: Option<crate::sys::Pid>,
}

/// Why a verdict was reached, as a clause for people, by what was seen as well.
pub(crate) fn because_seen(reason: &Reason, flags: Flags, seen: &Evidence) -> &'static str {
    if flags.release_pending {
        return "its owner has released it, but could not record that yet";
    }
    match (reason, seen.observed()) {
        // A pending release of another process, or an exec.
        (Reason::AnchorReleased, Observed::Alive) => {
            "the kernel released its lock: the process still runs, but no longer holds it"
        }
        (Reason::AnchorReleased, Observed::Gone(_)) => {
            "the kernel released its lock: the process has ended"
        }
        _ => reason.because(),
    }
}

/// Decides whether a recorded owner lives. The rules, in the order in which they are tried:
///
/// 1. anchor not held; child alive: alive, `child_lives`
/// 2. anchor held; process gone, child gone or none: dead, for that reason, flag `anchor_leaked`
///    unless a keeper is recorded, which is about to end
/// 3. anchor held otherwise: alive, `anchor_held`
///
/// From here on the anchor is not held, and no child is known to live.
///
/// 4. child unknown: unknown, `not_verifiable`, or `foreign_namespace` where the table is not
///    visible; of version 0.1, anchor free, table not visible: as 5
/// 5. anchor free, no keeper: dead, `rebooted` after a proven reboot, else `anchor_released`
/// 6. anchor free, keeper; process alive: alive, `start_time_matches`, flag `keeper_lost`
/// 7. anchor free, keeper; process gone: dead, as 5
/// 8. anchor free, keeper; table not visible, and its keepers did not say that they ended alone:
///    dead, as 5
/// 9. anchor free, keeper, otherwise: unknown, `not_verifiable`
///
/// From here on the anchor is missing, unreadable or none.
///
/// 10. process alive: alive, `start_time_matches`
/// 11. process gone: dead, for that reason
/// 12. table not visible: dead, `lease_expired`, where a lease ran out in this very boot; else
///     unknown, `foreign_namespace`
/// 13. anchor missing or none, a start time unknown, and the process is another user's: dead,
///     `pid_reused`
/// 14. a start time unknown, command line of the recorded kind: alive, `command_line_matches`
/// 15. anchor missing or none, a start time unknown, command line of something else: dead,
///     `identity_mismatch`
/// 16. otherwise: unknown, `not_verifiable`
///
/// Where 4, 9, 10, 14 or 16 would apply to a lock whose lease has run out: dead, `lease_expired`.
///
/// ```
/// use incumbent::liveness::{judge, AnchorState, DeadReason, Evidence, Ruling};
///
/// let mut seen = Evidence::nothing_seen();
/// seen.anchor = AnchorState::Free;
/// let released = judge(seen);
/// assert_eq!(released.ruling, Ruling::Dead(DeadReason::AnchorReleased));
/// ```
#[must_use]
pub fn judge(evidence: Evidence) -> Judgement {
    let (ruling, flags) = match (evidence.anchor, evidence.child) {
        (AnchorState::Held, _) => judge_held(&evidence),
        (_, ChildState::Alive) => (Ruling::Alive(AliveReason::ChildLives), Flags::default()),
        (_, ChildState::Unknown) => judge_unknown_child(&evidence),
        (AnchorState::Free, ChildState::None | ChildState::Gone) => judge_free(&evidence),
        (AnchorState::Missing | AnchorState::None, ChildState::None | ChildState::Gone) => {
            judge_process(&evidence, Authority::Process)
        }
        (AnchorState::Unreadable, ChildState::None | ChildState::Gone) => {
            let is_blind = planted(Fault::UnseenAnchorIgnored);
            let unseen = if is_blind { Authority::Process } else { Authority::UnseenAnchor };
            judge_process(&evidence, unseen)
        }
    };
    Judgement { ruling, flags, evidence, left_behind: None }
}

/// Rules 2 and 3.
fn judge_held(seen: &Evidence) -> (Ruling, Flags) {
    if planted(Fault::StoppedIsDead) && seen.process_state == RunState::Stopped {
        return dead(DeadReason::NoSuchProcess);
    }
    if planted(Fault::LeaseBeatsAnchor) && seen.lease == Lease::Expired {
        return dead(DeadReason::LeaseExpired);
    }
    match (seen.observed(), seen.child) {
        _ if planted(Fault::LeakedAnchorLives) => {
            (Ruling::Alive(AliveReason::AnchorHeld), alive_flags(seen))
        }
        (Observed::Gone(reason), ChildState::None | ChildState::Gone) => {
            let anchor_leaked = seen.keeper == Keeper::None;
            (Ruling::Dead(reason), Flags { anchor_leaked, ..Flags::default() })
        }
        (Observed::Gone(_), ChildState::Alive | ChildState::Unknown)
        | (Observed::Alive | Observed::Unknown, _) => {
            (Ruling::Alive(AliveReason::AnchorHeld), alive_flags(seen))
        }
    }
}

/// Rule 4.
fn judge_unknown_child(seen: &Evidence) -> (Ruling, Flags) {
    match (seen.table, seen.anchor, seen.writer) {
        // Version 0.1 left nothing to tell a container that was ended from one that is only
        // elsewhere, and the upgrade of an image ends it.
        (Table::NotVisible, AnchorState::Free, Writer::Older) if seen.is_elsewhere() => {
            dead(released_reason(seen))
        }
        (Table::NotVisible, _, _) => {
            or_expired(seen, Ruling::Unknown(UnknownReason::ForeignNamespace))
        }
        (Table::Visible, _, _) if planted(Fault::UnknownChildGone) => dead(released_reason(seen)),
        (Table::Visible, _, _) => or_expired(seen, Ruling::Unknown(UnknownReason::NotVerifiable)),
    }
}

/// Rules 5 to 9.
fn judge_free(seen: &Evidence) -> (Ruling, Flags) {
    let keeper = if planted(Fault::KeeperIgnored) { Keeper::None } else { seen.keeper };
    match (keeper, seen.observed()) {
        (Keeper::None, _) | (Keeper::Recorded | Keeper::EndedAlone, Observed::Gone(_)) => {
            dead(released_reason(seen))
        }
        (Keeper::Recorded | Keeper::EndedAlone, Observed::Alive) => {
            let flags = Flags { keeper_lost: true, ..alive_flags(seen) };
            (Ruling::Alive(AliveReason::StartTimeMatches), flags)
        }
        // The keeper ended with its whole namespace.
        (Keeper::Recorded, Observed::Unknown) if seen.is_elsewhere() => dead(released_reason(seen)),
        (Keeper::Recorded | Keeper::EndedAlone, Observed::Unknown) => {
            or_expired(seen, Ruling::Unknown(UnknownReason::NotVerifiable))
        }
    }
}

fn dead(reason: DeadReason) -> (Ruling, Flags) {
    (Ruling::Dead(reason), Flags::default())
}

/// Rule 5: what a free anchor is a sign of.
fn released_reason(seen: &Evidence) -> DeadReason {
    match seen.boot {
        Boot::Rebooted => DeadReason::Rebooted,
        Boot::Same | Boot::Unknown => DeadReason::AnchorReleased,
    }
}

/// What may be concluded from the process alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Authority {
    /// There is no anchor to ask: the process decides.
    Process,
    /// There is an anchor that we may not look at. It may be held: weak signs of death (another
    /// user id, another command line) do not count.
    UnseenAnchor,
}

/// Rules 10 to 16.
fn judge_process(seen: &Evidence, authority: Authority) -> (Ruling, Flags) {
    match (seen.observed(), seen.table) {
        (Observed::Alive, _) => or_expired(seen, Ruling::Alive(AliveReason::StartTimeMatches)),
        (Observed::Gone(reason), _) => dead(reason),
        (Observed::Unknown, Table::NotVisible) => {
            // By a clock that we share: a lease of another boot says nothing here.
            if seen.lease == Lease::Expired && seen.boot == Boot::Same {
                dead(DeadReason::LeaseExpired)
            } else {
                (Ruling::Unknown(UnknownReason::ForeignNamespace), Flags::default())
            }
        }
        (Observed::Unknown, Table::Visible) if seen.start_time == StartTimeMatch::Unknown => {
            judge_by_description(seen, authority)
        }
        (Observed::Unknown, Table::Visible) => {
            or_expired(seen, Ruling::Unknown(UnknownReason::NotVerifiable))
        }
    }
}

/// Rules 13 to 16: the start time cannot tell.
fn judge_by_description(seen: &Evidence, authority: Authority) -> (Ruling, Flags) {
    let is_of_another = seen.uid == Relation::Different && !planted(Fault::UidIgnored);
    if authority == Authority::Process && is_of_another {
        return dead(DeadReason::PidReused);
    }
    match (seen.command_line, authority) {
        (CommandLineMatch::Match, Authority::Process | Authority::UnseenAnchor) => {
            or_expired(seen, Ruling::Alive(AliveReason::CommandLineMatches))
        }
        (CommandLineMatch::Mismatch, Authority::Process) => dead(DeadReason::IdentityMismatch),
        (CommandLineMatch::Mismatch, Authority::UnseenAnchor)
        | (CommandLineMatch::Unreadable | CommandLineMatch::NotRead, _) => {
            or_expired(seen, Ruling::Unknown(UnknownReason::NotVerifiable))
        }
    }
}

fn or_expired(seen: &Evidence, otherwise: Ruling) -> (Ruling, Flags) {
    match seen.lease {
        Lease::Expired => dead(DeadReason::LeaseExpired),
        Lease::None | Lease::Current => {
            let flags = match otherwise {
                Ruling::Alive(_) => alive_flags(seen),
                Ruling::Dead(_) | Ruling::Unknown(_) => Flags::default(),
            };
            (otherwise, flags)
        }
    }
}

/// Facts about the process count only here; elsewhere the pid is somebody else's.
fn alive_flags(seen: &Evidence) -> Flags {
    let here = seen.is_here();
    Flags {
        stopped: here && seen.process_state == RunState::Stopped,
        command_stopped: false,
        frozen: false,
        lease_overdue: seen.lease == Lease::Expired,
        command_line_changed: here && seen.command_line == CommandLineMatch::Mismatch,
        elsewhere: !here,
        keeper_lost: false,
        anchor_leaked: false,
        release_pending: false,
    }
}
