//! The verdict, its reasons and its flags.

use serde::{Serialize, Serializer};

use crate::liveness::Reason;
use crate::words::words;

/// Why an owner counts as alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AliveReason {
    /// The kernel says so: the anchor is locked.
    AnchorHeld,
    /// The recorded process is there, with the recorded start time.
    StartTimeMatches,
    /// The recorded process is there, with a command line of the recorded kind.
    CommandLineMatches,
    /// The owner, a `run`, is gone, but the command it started still runs.
    ChildLives,
}

/// Why an owner counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// The kernel released its anchor, which it does when the process ends.
    AnchorReleased,
    /// The machine was restarted since.
    Rebooted,
    /// No process has the recorded pid.
    NoSuchProcess,
    /// All threads have ended; only its exit status is left to be collected.
    Zombie,
    /// The recorded pid now belongs to another process.
    PidReused,
    /// The start time is unknown, and the live process' command line is of something else.
    IdentityMismatch,
    /// Its lease has run out (that lock only).
    LeaseExpired,
}

/// Why nothing can be said about an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnknownReason {
    /// It lives on another machine, in another pid namespace, or behind a foreign process table,
    /// and no anchor can be seen.
    ForeignNamespace,
    /// Neither the anchor nor the process can be looked at well enough.
    NotVerifiable,
}

/// Facts beside a verdict of alive or dead that a person should know. In JSON a list of the names
/// of those that are raised; later versions may add others.
#[allow(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Flags {
    /// The process is stopped (job control); it keeps what it holds.
    pub stopped: bool,
    /// The command of a `run` is stopped (job control), and the `run` is not: nobody answers.
    /// Looked at where somebody asks, not for every verdict.
    pub command_stopped: bool,
    /// Its control group is frozen (`docker pause`): it keeps what it holds, and sees a signal only
    /// when it is thawed. Looked at where somebody asks, not for every verdict.
    pub frozen: bool,
    /// The lease has run out while the anchor is held.
    pub lease_overdue: bool,
    /// The command line is not of the recorded kind: renamed or wrapped.
    pub command_line_changed: bool,
    /// The owner lives in another pid namespace or on another machine.
    pub elsewhere: bool,
    /// The keeper has died; the recorded process lives on.
    pub keeper_lost: bool,
    /// The recorded process is gone, yet somebody holds its anchor: a forked child.
    pub anchor_leaked: bool,
    /// This very process has released it, and could not write that down yet: it is pending.
    pub release_pending: bool,
}

impl Flags {
    /// The raised flags by name, in a fixed order.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.stopped, "stopped"),
            (self.command_stopped, "command_stopped"),
            (self.frozen, "frozen"),
            (self.lease_overdue, "lease_overdue"),
            (self.command_line_changed, "command_line_changed"),
            (self.elsewhere, "elsewhere"),
            (self.keeper_lost, "keeper_lost"),
            (self.anchor_leaked, "anchor_leaked"),
            (self.release_pending, "release_pending"),
        ]
        .into_iter()
        .filter_map(|(raised, name)| raised.then_some(name))
        .collect()
    }
}

/// The names of the raised flags.
impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

words! {
    /// Whether an owner lives: `alive`, `dead` or `unknown`, which is also its JSON.
    pub enum Verdict {
        /// The owner lives: nobody else may own.
        Alive = "alive",
        /// The owner is gone, or there never was one: the next claimant may own at once.
        Dead = "dead",
        /// Nobody can tell: nobody is evicted, and a person may decide.
        Unknown = "unknown",
    }
}

/// What follows from the [`Evidence`](super::Evidence): the verdict, with a reason that the rules
/// can give for it.
///
/// ```
/// use incumbent::liveness::{DeadReason, Ruling};
/// use incumbent::{Reason, Verdict};
///
/// let ruling = Ruling::Dead(DeadReason::PidReused);
/// assert_eq!((ruling.verdict(), ruling.reason()), (Verdict::Dead, Reason::PidReused));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ruling {
    /// The owner lives: nobody else may own.
    Alive(AliveReason),
    /// The owner is gone: the next claimant may own at once.
    Dead(DeadReason),
    /// Nobody can tell: nobody is evicted, and a person may decide.
    Unknown(UnknownReason),
}

impl Ruling {
    /// The verdict alone.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Alive(_) => Verdict::Alive,
            Self::Dead(_) => Verdict::Dead,
            Self::Unknown(_) => Verdict::Unknown,
        }
    }

    /// The reason alone.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Alive(reason) => reason.into(),
            Self::Dead(reason) => reason.into(),
            Self::Unknown(reason) => reason.into(),
        }
    }
}

impl From<AliveReason> for Reason {
    fn from(reason: AliveReason) -> Self {
        match reason {
            AliveReason::AnchorHeld => Self::AnchorHeld,
            AliveReason::StartTimeMatches => Self::StartTimeMatches,
            AliveReason::CommandLineMatches => Self::CommandLineMatches,
            AliveReason::ChildLives => Self::ChildLives,
        }
    }
}

impl From<DeadReason> for Reason {
    fn from(reason: DeadReason) -> Self {
        match reason {
            DeadReason::AnchorReleased => Self::AnchorReleased,
            DeadReason::Rebooted => Self::Rebooted,
            DeadReason::NoSuchProcess => Self::NoSuchProcess,
            DeadReason::Zombie => Self::Zombie,
            DeadReason::PidReused => Self::PidReused,
            DeadReason::IdentityMismatch => Self::IdentityMismatch,
            DeadReason::LeaseExpired => Self::LeaseExpired,
        }
    }
}

impl From<UnknownReason> for Reason {
    fn from(reason: UnknownReason) -> Self {
        match reason {
            UnknownReason::ForeignNamespace => Self::ForeignNamespace,
            UnknownReason::NotVerifiable => Self::NotVerifiable,
        }
    }
}
