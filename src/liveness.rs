//! The verdict: what follows from what was seen of a recorded owner.
//!
//! [`judge`] is a pure function over small finite inputs: no I/O, no clock, no default arm. Its
//! rules are numbered as in ARCHITECTURE.md, the first that matches wins, and its tests walk the
//! whole product of the inputs.
//!
//! Two rules carry the rest. The kernel's answer about the anchor decides wherever it can be had;
//! pid, start time and command line explain it, and decide only where no anchor can be seen. And
//! *unknown is never dead*: not being able to look evicts nobody.

use serde::Serialize;

/// The kernel lock on the owner's anchor file, as seen by trying a shared lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorState {
    /// Somebody holds it exclusively.
    Held,
    /// The file is there and nobody holds it.
    Free,
    /// The record names a file that is gone.
    Missing,
    /// It could not be opened or probed; anything but "would block".
    Unreadable,
    /// The record names no anchor.
    None,
}

/// How a recorded fact relates to the observer's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Known on both sides and equal.
    Same,
    /// Known on both sides and different.
    Different,
    /// Unknown on one side.
    Unknown,
}

/// Whether the recorded pid names a process in the observer's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// At least one of its threads runs or may run again.
    Present,
    /// There is none, or all its threads have ended.
    Gone,
    /// It could not be found out.
    Unknown,
}

/// The live process' start time against the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartTimeMatch {
    /// Both known, equal: it is the recorded process.
    Equal,
    /// Both known, different: the pid was recycled.
    Different,
    /// One of them is unknown, or their units differ.
    Unknown,
}

/// The live process' scheduling state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Running or sleeping; also under a tracer, where healthy processes are found too.
    Running,
    /// Stopped by a signal.
    Stopped,
    /// Its main thread has ended.
    Zombie,
    /// It could not be found out.
    Unknown,
}

/// The live process' command line against the recorded kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandLineMatch {
    /// Of the recorded kind.
    Match,
    /// Of something else.
    Mismatch,
    /// It could not be read.
    Unreadable,
    /// Nobody looked: it was not needed, or belongs to another generation.
    NotRead,
}

/// A second process of the record: the CMD of a `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// The record names none.
    None,
    /// Present, with the recorded start time.
    Alive,
    /// Proven gone: no such process, or a different start time.
    Gone,
    /// It could not be found out.
    Unknown,
}

/// Whether a keeper process holds the anchor in the owner's place (`claim --pid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// The owner holds its anchor itself, or has none.
    None,
    /// The record names a keeper.
    Recorded,
}

/// A time to live that the owner asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lease {
    /// None was asked for: the case of every office.
    None,
    /// Not yet over.
    Current,
    /// Over, by the clock it was recorded on.
    Expired,
}

/// Whether the process table that we can read is the one our pid lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessTable {
    /// It is ours.
    Ours,
    /// It belongs to another namespace, or cannot be read: it says nothing about our pids.
    Foreign,
}

/// Everything that was seen of one recorded owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Evidence {
    /// The kernel lock.
    pub anchor: AnchorState,
    /// The machine; also `Same` where the boot id is, because one boot is one machine.
    pub host: Relation,
    /// The boot of the kernel.
    pub boot: Relation,
    /// The pid namespace.
    pub namespace: Relation,
    /// Whose process table we read.
    pub process_table: ProcessTable,
    /// The recorded pid.
    pub process: Presence,
    /// Its start time.
    pub start_time: StartTimeMatch,
    /// Its scheduling state.
    pub process_state: RunState,
    /// Its user id.
    pub uid: Relation,
    /// Its command line.
    pub command_line: CommandLineMatch,
    /// The recorded child.
    pub child: ChildState,
    /// Who holds the anchor.
    pub keeper: Keeper,
    /// The time to live.
    pub lease: Lease,
}

/// Why an owner counts as alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownReason {
    /// It lives on another machine, in another pid namespace, or behind a foreign process table,
    /// and no anchor can be seen.
    ForeignNamespace,
    /// Neither the anchor nor the process can be looked at well enough.
    NotVerifiable,
}

/// Facts beside a verdict of alive or dead that a person should know.
#[allow(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// The process is stopped (job control); it keeps what it holds.
    pub stopped: bool,
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
}

impl Flags {
    /// The raised flags by name, in a fixed order.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.stopped, "stopped"),
            (self.lease_overdue, "lease_overdue"),
            (self.command_line_changed, "command_line_changed"),
            (self.elsewhere, "elsewhere"),
            (self.keeper_lost, "keeper_lost"),
            (self.anchor_leaked, "anchor_leaked"),
        ]
        .into_iter()
        .filter_map(|(raised, name)| raised.then_some(name))
        .collect()
    }
}

/// What follows from the [`Evidence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The owner lives: nobody else may own.
    Alive(AliveReason),
    /// The owner is gone: the next claimant may own at once.
    Dead(DeadReason),
    /// Nobody can tell: nobody is evicted, and a person may decide.
    Unknown(UnknownReason),
}

impl Verdict {
    /// `alive`, `dead` or `unknown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive(_) => "alive",
            Self::Dead(_) => "dead",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The reason in snake case, as stored and as shown by the CLI.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Alive(AliveReason::AnchorHeld) => "anchor_held",
            Self::Alive(AliveReason::StartTimeMatches) => "start_time_matches",
            Self::Alive(AliveReason::CommandLineMatches) => "command_line_matches",
            Self::Alive(AliveReason::ChildLives) => "child_lives",
            Self::Dead(reason) => reason.as_str(),
            Self::Unknown(UnknownReason::ForeignNamespace) => "foreign_namespace",
            Self::Unknown(UnknownReason::NotVerifiable) => "not_verifiable",
        }
    }
}

impl DeadReason {
    /// The reason in snake case, as stored in `instances.end_reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AnchorReleased => "anchor_released",
            Self::Rebooted => "rebooted",
            Self::NoSuchProcess => "no_such_process",
            Self::Zombie => "zombie",
            Self::PidReused => "pid_reused",
            Self::IdentityMismatch => "identity_mismatch",
            Self::LeaseExpired => "lease_expired",
        }
    }
}

/// A verdict, with the flags that qualify it and the evidence it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The answer.
    pub verdict: Verdict,
    /// What else a person should know.
    pub flags: Flags,
    /// What was seen.
    pub evidence: Evidence,
}

impl Evidence {
    /// The owner's pids are ours: same machine, boot and pid namespace, and the process table that
    /// we read is our own. Elsewhere a pid is just a number.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.host == Relation::Same
            && self.boot == Relation::Same
            && self.namespace == Relation::Same
            && self.process_table == ProcessTable::Ours
    }

    fn rebooted(&self) -> bool {
        self.boot == Relation::Different
    }

    /// The recorded process is proven gone; why.
    fn proven_gone(&self) -> Option<DeadReason> {
        match (self.process, self.start_time) {
            (Presence::Gone, _) => Some(self.gone_reason()),
            (Presence::Present | Presence::Unknown, StartTimeMatch::Different) => {
                Some(DeadReason::PidReused)
            }
            (
                Presence::Present | Presence::Unknown,
                StartTimeMatch::Equal | StartTimeMatch::Unknown,
            ) => None,
        }
    }

    fn gone_reason(&self) -> DeadReason {
        match self.process_state {
            RunState::Zombie => DeadReason::Zombie,
            RunState::Running | RunState::Stopped | RunState::Unknown => DeadReason::NoSuchProcess,
        }
    }

    fn is_recorded_process(&self) -> bool {
        self.process == Presence::Present && self.start_time == StartTimeMatch::Equal
    }
}

/// Decides whether a recorded owner lives. The rules, in the order in which they are tried:
///
/// 1. anchor free, here, and the recorded child is alive: alive, `child_lives`
/// 2. anchor free, here, a keeper is recorded, and the recorded process is alive with an equal
///    start time: alive, `start_time_matches`, flag `keeper_lost`
/// 3. anchor free otherwise: dead, `rebooted` if both boot ids are known and differ, else
///    `anchor_released`
/// 4. anchor held, here, and the recorded process (and child) proven gone: dead, for that reason,
///    flag `anchor_leaked`
/// 5. anchor held otherwise: alive, `anchor_held`
/// 6. same host, another boot: dead, `rebooted`
/// 7. not here: dead `lease_expired` where a lease ran out by a clock we share, else unknown,
///    `foreign_namespace`
/// 8. no thread of the process is left: dead, `no_such_process` or `zombie`
/// 9. start times differ: dead, `pid_reused`
/// 10. start times equal: alive, `start_time_matches`
/// 11. anchor missing or none, a start time unknown, and the process is another user's: dead,
///     `pid_reused`
/// 12. a start time unknown, command line of the recorded kind: alive, `command_line_matches`
/// 13. anchor missing or none, a start time unknown, command line of something else: dead,
///     `identity_mismatch`
/// 14. otherwise: unknown, `not_verifiable`
///
/// Where 10, 12 or 14 would apply to a lock whose lease has run out: dead, `lease_expired`.
///
/// ```
/// use incumbent::liveness::{judge, AnchorState, DeadReason, Evidence, Verdict};
///
/// let released = judge(Evidence { anchor: AnchorState::Free, ..Evidence::nothing_seen() });
/// assert_eq!(released.verdict, Verdict::Dead(DeadReason::AnchorReleased));
/// ```
#[must_use]
pub fn judge(evidence: Evidence) -> Judgement {
    let (verdict, flags) = match evidence.anchor {
        AnchorState::Free => judge_free(&evidence),
        AnchorState::Held => judge_held(&evidence),
        AnchorState::Missing | AnchorState::None => judge_process(&evidence, Authority::Process),
        AnchorState::Unreadable => judge_process(&evidence, Authority::UnseenAnchor),
    };
    Judgement { verdict, flags, evidence }
}

/// Rules 1 to 3.
fn judge_free(seen: &Evidence) -> (Verdict, Flags) {
    if seen.is_here() && seen.child == ChildState::Alive {
        return (Verdict::Alive(AliveReason::ChildLives), Flags::default());
    }
    if seen.is_here() && seen.keeper == Keeper::Recorded && seen.is_recorded_process() {
        let flags = Flags { keeper_lost: true, ..alive_flags(seen) };
        return (Verdict::Alive(AliveReason::StartTimeMatches), flags);
    }
    let reason = if seen.rebooted() { DeadReason::Rebooted } else { DeadReason::AnchorReleased };
    (Verdict::Dead(reason), Flags::default())
}

/// Rules 4 and 5.
fn judge_held(seen: &Evidence) -> (Verdict, Flags) {
    let child_gone = match seen.child {
        ChildState::None | ChildState::Gone => true,
        ChildState::Alive | ChildState::Unknown => false,
    };
    match seen.proven_gone() {
        Some(reason) if seen.is_here() && child_gone => {
            let flags = Flags { anchor_leaked: true, ..Flags::default() };
            (Verdict::Dead(reason), flags)
        }
        Some(_) | None => (Verdict::Alive(AliveReason::AnchorHeld), alive_flags(seen)),
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

/// Rules 6 to 14.
fn judge_process(seen: &Evidence, authority: Authority) -> (Verdict, Flags) {
    let dead = |reason| (Verdict::Dead(reason), Flags::default());
    if seen.host == Relation::Same && seen.rebooted() {
        return dead(DeadReason::Rebooted);
    }
    if !seen.is_here() {
        return if seen.lease == Lease::Expired && seen.boot == Relation::Same {
            dead(DeadReason::LeaseExpired)
        } else {
            (Verdict::Unknown(UnknownReason::ForeignNamespace), Flags::default())
        };
    }
    if seen.process == Presence::Gone {
        return dead(seen.gone_reason());
    }
    match seen.start_time {
        StartTimeMatch::Different => dead(DeadReason::PidReused),
        StartTimeMatch::Equal => or_expired(seen, Verdict::Alive(AliveReason::StartTimeMatches)),
        StartTimeMatch::Unknown => judge_by_description(seen, authority),
    }
}

/// Rules 11 to 14: the start time cannot tell.
fn judge_by_description(seen: &Evidence, authority: Authority) -> (Verdict, Flags) {
    let dead = |reason| (Verdict::Dead(reason), Flags::default());
    if authority == Authority::Process && seen.uid == Relation::Different {
        return dead(DeadReason::PidReused);
    }
    match (seen.command_line, authority) {
        (CommandLineMatch::Match, Authority::Process | Authority::UnseenAnchor) => {
            or_expired(seen, Verdict::Alive(AliveReason::CommandLineMatches))
        }
        (CommandLineMatch::Mismatch, Authority::Process) => dead(DeadReason::IdentityMismatch),
        (CommandLineMatch::Mismatch, Authority::UnseenAnchor)
        | (CommandLineMatch::Unreadable | CommandLineMatch::NotRead, _) => {
            or_expired(seen, Verdict::Unknown(UnknownReason::NotVerifiable))
        }
    }
}

fn or_expired(seen: &Evidence, otherwise: Verdict) -> (Verdict, Flags) {
    match seen.lease {
        Lease::Expired => (Verdict::Dead(DeadReason::LeaseExpired), Flags::default()),
        Lease::None | Lease::Current => {
            let flags = match otherwise {
                Verdict::Alive(_) => alive_flags(seen),
                Verdict::Dead(_) | Verdict::Unknown(_) => Flags::default(),
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
        lease_overdue: seen.lease == Lease::Expired,
        command_line_changed: here && seen.command_line == CommandLineMatch::Mismatch,
        elsewhere: !here,
        keeper_lost: false,
        anchor_leaked: false,
    }
}

impl Evidence {
    /// Nothing was recorded and nothing could be seen: a starting point for building evidence.
    #[must_use]
    pub fn nothing_seen() -> Self {
        Self {
            anchor: AnchorState::None,
            host: Relation::Unknown,
            boot: Relation::Unknown,
            namespace: Relation::Unknown,
            process_table: ProcessTable::Foreign,
            process: Presence::Unknown,
            start_time: StartTimeMatch::Unknown,
            process_state: RunState::Unknown,
            uid: Relation::Unknown,
            command_line: CommandLineMatch::NotRead,
            child: ChildState::None,
            keeper: Keeper::None,
            lease: Lease::None,
        }
    }
}

#[cfg(test)]
mod tests;
