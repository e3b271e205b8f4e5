//! What was seen of a recorded owner: small finite inputs of the verdict.

use serde::Serialize;

use crate::liveness::verdict::DeadReason;

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

/// Whether the recorded pids can be looked up here: our process table is our own, and the owner's
/// pid namespace and machine are ours.
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

/// Everything that was seen of one recorded owner. In JSON an object of words with these names,
/// without the user id, the lease and the writer, which say something only together with a rule;
/// later versions may add others. The words are those of the enums, in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Evidence {
    /// The kernel lock.
    pub anchor: AnchorState,
    /// The boot of the kernel.
    pub boot: Boot,
    /// The machine; also `Same` where the boot id is, because one boot is one machine.
    pub host: Relation,
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
    #[serde(skip)]
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
    #[serde(skip)]
    pub lease: Lease,
    /// Which program wrote the record.
    #[serde(skip)]
    pub writer: Writer,
}

impl Evidence {
    /// The owner's pids are ours: the process table that we read is the one that they live in, and
    /// nothing proves that the machine was restarted since. Elsewhere a pid is just a number.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.table == Table::Visible && self.boot != Boot::Rebooted
    }

    /// The owner's pids are known to be those of another pid namespace or machine. A namespace of
    /// our own that cannot be seen is no other one.
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
