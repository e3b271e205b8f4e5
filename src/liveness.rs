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

/// Whether the machine was restarted since the record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// It was not: the boot ids are equal, or the kernel itself holds the anchor.
    Same,
    /// It was: the boot ids differ, and the clocks agree.
    Rebooted,
    /// A boot id that differs or cannot be read is doubt, not proof.
    Unknown,
}

/// What is known of a recorded process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Observed {
    /// It lives, and is the recorded one.
    Alive,
    /// It is proven gone; why.
    Gone(DeadReason),
    /// It cannot be found out.
    Unknown,
}

/// Whether the recorded pids can be looked up here: our process table is our own, and the owner's pid
/// namespace and machine are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// They can.
    Visible,
    /// They mean nothing here.
    NotVisible,
}

/// Which program wrote the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Writer {
    /// Version 0.1, which recorded neither command locks nor pairs of keepers.
    Older,
    /// One that did.
    Current,
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

/// The lock that the command of a `run` holds itself, as far as the record says that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandLockState {
    /// The record does not say so, which proves nothing.
    None,
    /// The command holds it, and lives.
    Held,
    /// It does not, and has ended; but something that it started has kept what it inherited.
    Inherited,
    /// Nobody does: it has ended.
    Free,
    /// It could not be looked at.
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
    /// It does, and its keepers wrote down that they had to end although their process lived on.
    EndedAlone,
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
    pub boot: Boot,
    /// The pid namespace.
    pub namespace: Relation,
    /// Whether its pids can be looked up here.
    pub table: Table,
    /// The recorded pid.
    pub process: Presence,
    /// Its start time.
    pub start_time: StartTimeMatch,
    /// The kernel's own number of it.
    pub process_id: StartTimeMatch,
    /// Its scheduling state.
    pub process_state: RunState,
    /// Its user id.
    pub uid: Relation,
    /// Its command line.
    pub command_line: CommandLineMatch,
    /// The recorded child.
    pub child: ChildState,
    /// The lock that it holds itself; part of what `child` follows from.
    pub command_lock: CommandLockState,
    /// Who holds the anchor.
    pub keeper: Keeper,
    /// The time to live.
    pub lease: Lease,
    /// Which program wrote the record.
    pub writer: Writer,
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
    /// This very process has released it, and could not write that down yet: it is pending.
    pub release_pending: bool,
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
            (self.release_pending, "release_pending"),
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
    /// A process that a killed `run` left behind and that nobody here may end, where that is what stands in
    /// the way.
    pub left_behind: Option<crate::sys::Pid>,
}

impl Evidence {
    /// The owner's pids are ours: the process table that we read is the one that they live in, and nothing
    /// proves that the machine was restarted since. Elsewhere a pid is just a number.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.table == Table::Visible && self.boot != Boot::Rebooted
    }

    /// The owner's pids are known to be those of another pid namespace or machine. A namespace of our own
    /// that cannot be seen is no other one.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.table == Table::NotVisible
            && [self.host, self.namespace].contains(&Relation::Different)
    }

    /// What is known of the recorded process.
    #[must_use]
    pub fn observed(&self) -> Observed {
        if self.boot == Boot::Rebooted {
            return Observed::Gone(DeadReason::Rebooted);
        }
        if self.table == Table::NotVisible {
            return Observed::Unknown;
        }
        // The kernel's number decides where both sides have it.
        let is_it = match self.process_id {
            StartTimeMatch::Equal | StartTimeMatch::Different => self.process_id,
            StartTimeMatch::Unknown => self.start_time,
        };
        match (self.process, is_it) {
            (Presence::Gone, _) => Observed::Gone(match self.process_state {
                RunState::Zombie => DeadReason::Zombie,
                RunState::Running | RunState::Stopped | RunState::Unknown => {
                    DeadReason::NoSuchProcess
                }
            }),
            (Presence::Present, StartTimeMatch::Equal) => Observed::Alive,
            (Presence::Present, StartTimeMatch::Different) => Observed::Gone(DeadReason::PidReused),
            (Presence::Present, StartTimeMatch::Unknown) | (Presence::Unknown, _) => {
                Observed::Unknown
            }
        }
    }
}

/// Decides whether a recorded owner lives. The rules, in the order in which they are tried:
///
/// 1. anchor not held; child alive: alive, `child_lives`
/// 2. anchor held; process gone, child gone or none: dead, for that reason, flag `anchor_leaked` unless
///    a keeper is recorded, which is about to end
/// 3. anchor held otherwise: alive, `anchor_held`
///
/// From here on the anchor is not held, and no child is known to live.
///
/// 4. child unknown: unknown, `not_verifiable`, or `foreign_namespace` where the table is not visible; of
///    version 0.1, anchor free, table not visible: as 5
/// 5. anchor free, no keeper: dead, `rebooted` after a proven reboot, else `anchor_released`
/// 6. anchor free, keeper; process alive: alive, `start_time_matches`, flag `keeper_lost`
/// 7. anchor free, keeper; process gone: dead, as 5
/// 8. anchor free, keeper; table not visible, and its keepers did not say that they ended alone: dead,
///    as 5
/// 9. anchor free, keeper, otherwise: unknown, `not_verifiable`
///
/// From here on the anchor is missing, unreadable or none.
///
/// 10. process alive: alive, `start_time_matches`
/// 11. process gone: dead, for that reason
/// 12. table not visible: dead, `lease_expired`, where a lease ran out in this very boot; else unknown,
///     `foreign_namespace`
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
/// use incumbent::liveness::{judge, AnchorState, DeadReason, Evidence, Verdict};
///
/// let released = judge(Evidence { anchor: AnchorState::Free, ..Evidence::nothing_seen() });
/// assert_eq!(released.verdict, Verdict::Dead(DeadReason::AnchorReleased));
/// ```
#[must_use]
pub fn judge(evidence: Evidence) -> Judgement {
    let (verdict, flags) = match (evidence.anchor, evidence.child) {
        (AnchorState::Held, _) => judge_held(&evidence),
        (_, ChildState::Alive) => (Verdict::Alive(AliveReason::ChildLives), Flags::default()),
        (_, ChildState::Unknown) => judge_unknown_child(&evidence),
        (AnchorState::Free, ChildState::None | ChildState::Gone) => judge_free(&evidence),
        (AnchorState::Missing | AnchorState::None, ChildState::None | ChildState::Gone) => {
            judge_process(&evidence, Authority::Process)
        }
        (AnchorState::Unreadable, ChildState::None | ChildState::Gone) => {
            judge_process(&evidence, Authority::UnseenAnchor)
        }
    };
    Judgement { verdict, flags, evidence, left_behind: None }
}

/// Rules 2 and 3.
fn judge_held(seen: &Evidence) -> (Verdict, Flags) {
    match (seen.observed(), seen.child) {
        (Observed::Gone(reason), ChildState::None | ChildState::Gone) => {
            let anchor_leaked = seen.keeper == Keeper::None;
            (Verdict::Dead(reason), Flags { anchor_leaked, ..Flags::default() })
        }
        (Observed::Gone(_), ChildState::Alive | ChildState::Unknown)
        | (Observed::Alive | Observed::Unknown, _) => {
            (Verdict::Alive(AliveReason::AnchorHeld), alive_flags(seen))
        }
    }
}

/// Rule 4.
fn judge_unknown_child(seen: &Evidence) -> (Verdict, Flags) {
    match (seen.table, seen.anchor, seen.writer) {
        // Version 0.1 left nothing to tell a container that was ended from one that is only elsewhere,
        // and the upgrade of an image ends it.
        (Table::NotVisible, AnchorState::Free, Writer::Older) if seen.is_elsewhere() => {
            dead(released_reason(seen))
        }
        (Table::NotVisible, _, _) => {
            or_expired(seen, Verdict::Unknown(UnknownReason::ForeignNamespace))
        }
        (Table::Visible, _, _) => or_expired(seen, Verdict::Unknown(UnknownReason::NotVerifiable)),
    }
}

/// Rules 5 to 9.
fn judge_free(seen: &Evidence) -> (Verdict, Flags) {
    match (seen.keeper, seen.observed()) {
        (Keeper::None, _) | (Keeper::Recorded | Keeper::EndedAlone, Observed::Gone(_)) => {
            dead(released_reason(seen))
        }
        (Keeper::Recorded | Keeper::EndedAlone, Observed::Alive) => {
            let flags = Flags { keeper_lost: true, ..alive_flags(seen) };
            (Verdict::Alive(AliveReason::StartTimeMatches), flags)
        }
        // The keeper ended with its whole namespace.
        (Keeper::Recorded, Observed::Unknown) if seen.is_elsewhere() => dead(released_reason(seen)),
        (Keeper::Recorded | Keeper::EndedAlone, Observed::Unknown) => {
            or_expired(seen, Verdict::Unknown(UnknownReason::NotVerifiable))
        }
    }
}

fn dead(reason: DeadReason) -> (Verdict, Flags) {
    (Verdict::Dead(reason), Flags::default())
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
fn judge_process(seen: &Evidence, authority: Authority) -> (Verdict, Flags) {
    match (seen.observed(), seen.table) {
        (Observed::Alive, _) => or_expired(seen, Verdict::Alive(AliveReason::StartTimeMatches)),
        (Observed::Gone(reason), _) => dead(reason),
        (Observed::Unknown, Table::NotVisible) => {
            // By a clock that we share: a lease of another boot says nothing here.
            if seen.lease == Lease::Expired && seen.boot == Boot::Same {
                dead(DeadReason::LeaseExpired)
            } else {
                (Verdict::Unknown(UnknownReason::ForeignNamespace), Flags::default())
            }
        }
        (Observed::Unknown, Table::Visible) if seen.start_time == StartTimeMatch::Unknown => {
            judge_by_description(seen, authority)
        }
        (Observed::Unknown, Table::Visible) => {
            or_expired(seen, Verdict::Unknown(UnknownReason::NotVerifiable))
        }
    }
}

/// Rules 13 to 16: the start time cannot tell.
fn judge_by_description(seen: &Evidence, authority: Authority) -> (Verdict, Flags) {
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
        Lease::Expired => dead(DeadReason::LeaseExpired),
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
        release_pending: false,
    }
}

impl Evidence {
    /// Nothing was recorded and nothing could be seen: a starting point for building evidence.
    #[must_use]
    pub fn nothing_seen() -> Self {
        Self {
            anchor: AnchorState::None,
            host: Relation::Unknown,
            boot: Boot::Unknown,
            namespace: Relation::Unknown,
            table: Table::NotVisible,
            process: Presence::Unknown,
            start_time: StartTimeMatch::Unknown,
            process_id: StartTimeMatch::Unknown,
            process_state: RunState::Unknown,
            uid: Relation::Unknown,
            command_line: CommandLineMatch::NotRead,
            child: ChildState::None,
            command_lock: CommandLockState::None,
            keeper: Keeper::None,
            lease: Lease::None,
            writer: Writer::Current,
        }
    }
}

#[cfg(test)]
mod tests;
