//! A process that is named for good: what the kernel says of it beside its pid, and where and when
//! that was seen.
//!
//! It is what our own records keep of a process, without an anchor. So it is judged by the same
//! rules, with two that are stricter, because nobody knows where and for how long its text is kept.
//! Two machines may share that table, so a restart is believed only of a machine that is known to
//! be the same. And where no boot id says that there was none, clocks that have moved apart are
//! doubt: the very pid, tick and number may have come back (FIELD-BUGS row 10).

mod identity;

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, SystemClock};
use crate::error::with_clear_sight;
use crate::liveness::{
    AnchorState, Boot, Evidence, Judgement, Observed, Relation, StartTimeMatch, judge,
};
use crate::process::compare::{Here, Named, Written};
use crate::process::observer::{Clocks, Observer};
use crate::process::reference::identity::{Identity, is_word, read};
use crate::process::subject::valid_pid;
use crate::sys;
use crate::sys::{Existence, Pid, StartTime, StartTimeUnit};
use crate::{Error, ErrorKind, Result};

/// A process, named so that no later one is taken for it: to be stored in a table of the
/// application's own, and asked about later, by any process of the machine.
///
/// Beside the pid it has the kernel's own number of the process where there is one (Linux 6.9), the
/// start time, the boot, the pid namespace, the machine, and both clocks of the moment when it was
/// made. A pair of pid and start time that is kept by hand lacks most of that, and is wrong after a
/// restart of the machine, in a container, and where one side could not read the start time.
///
/// Machines are told apart by their ids (machine-id(5), `IOPlatformUUID`, `MachineGuid`): two
/// copies of one image that share an id, and a table, are taken for one.
///
/// It names a process, not a right: the holder of an office or a lock is better named by its
/// [`InstanceId`](crate::InstanceId), see [`Store::instance`](crate::Store::instance).
///
/// ```
/// use incumbent::liveness::Ruling;
/// use incumbent::process::ProcessRef;
///
/// let mut child = std::process::Command::new("sleep").arg("60").spawn()?;
/// let stored = ProcessRef::of(child.id())?.to_string();
///
/// // Later, perhaps in another process:
/// let worker: ProcessRef = stored.parse()?;
/// assert!(matches!(worker.is_alive()?.ruling, Ruling::Alive(_)));
/// child.kill()?;
/// child.wait()?;
/// assert!(matches!(worker.is_alive()?.ruling, Ruling::Dead(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Its text
///
/// `Display`, `FromStr` and serde use one form, which stays readable for all later versions. It has
/// letters, digits, `-` and `.` only, and at most 320 bytes:
///
/// ```text
/// p1.48213.t881234.n52731.b0c6d6c1e-....s4026531836.hd0a1....w1790000000000.c8812345
/// ```
///
/// * `p1`: the version of the form;
/// * the pid, as it was named: in the pid namespace of whoever named it;
/// * `t`, `u` or `f` and the start time: ticks since boot (Linux), microseconds (macOS), units of
///   100 ns (Windows);
/// * `n` and the kernel's own number of the process;
/// * `b`, `s`, `h` and the ids of the boot, the pid namespace and the machine;
/// * `w` and `c`: when it was made, in milliseconds of Unix time and of the boot clock.
///
/// The order is fixed. What was not known is left out, but either a start time or a number is
/// there. Two texts of one process differ in the last two parts: to compare them, ask
/// [`ProcessRef::is_same`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ProcessRef(Identity);

impl ProcessRef {
    /// This very process. The same text each time, for as long as it lives.
    ///
    /// ```
    /// use incumbent::process::ProcessRef;
    ///
    /// let me = ProcessRef::current()?;
    /// assert_eq!(me.pid(), std::process::id());
    /// assert_eq!(me, ProcessRef::current()?);
    /// # Ok::<(), incumbent::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) when this process ran short of descriptors or memory while it
    /// looked; [`Unsupported`](ErrorKind::Unsupported) where neither a start time nor a number of
    /// it can be seen (Linux before 6.9 without `/proc`).
    pub fn current() -> Result<Self> {
        let ourselves = ourselves()?;
        if let Some(known) = ourselves.reference.get() {
            return Ok(known.clone());
        }
        let made = Self::of(ourselves.observer.pid)?;
        // Another thread may have been faster.
        Ok(ourselves.reference.get_or_init(|| made).clone())
    }

    /// The process that has this pid now. A pid that was stored may be another one's by now: name a
    /// process while it is known to be the right one, a child before it is waited for.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a number that cannot be a pid (0, or beyond
    /// 2^31 - 1); [`NotRunning`](ErrorKind::NotRunning) if no process has it, or all threads of
    /// that process have ended; [`Unsupported`](ErrorKind::Unsupported) where nothing can be seen
    /// that would tell it from a later one (`hidepid` before Linux 6.9);
    /// [`Busy`](ErrorKind::Busy) as [`ProcessRef::current`].
    pub fn of(pid: u32) -> Result<Self> {
        let pid = checked(pid)?;
        let observer = &ourselves()?.observer;
        let facts =
            with_clear_sight(|| format!("look at pid {pid}"), || Ok(sys::process_facts(pid)))?;
        let is_known = facts.start_time.is_some() || facts.number.is_some();
        match facts.existence {
            Existence::Gone => Err(Error::no_process(pid)),
            Existence::Present if is_known => Ok(Self(Identity {
                pid,
                start_time: facts.start_time,
                number: facts.number,
                boot_id: observer.boot_id.clone().filter(|id| is_word(id)),
                pid_ns: observer.pid_ns.clone().filter(|id| is_word(id)),
                host: observer.host.clone().filter(|id| is_word(id)),
                made: now(),
            })),
            Existence::Present | Existence::Unknown => Err(cannot_tell(format!(
                "nothing can be seen that tells pid {pid} from a later process with that pid"
            ))),
        }
    }

    /// Whether the process lives: a verdict with its reason, and the evidence it rests on. By the
    /// same rules as for the owner of a record without an anchor ([`judge`]).
    ///
    /// * `Alive(StartTimeMatches)`: it is there, and it is this one.
    /// * `Dead(NoSuchProcess)`, `Dead(Zombie)`, `Dead(PidReused)`, `Dead(Rebooted)`: proven. A
    ///   zombie has no thread left, and waits for its parent to collect it.
    /// * `Unknown(ForeignNamespace)`: it is of another pid namespace or machine, or the process
    ///   table that can be read here is not ours. `Unknown(NotVerifiable)`: it cannot be looked at
    ///   well enough; or no boot id can be read, and the clocks say that the machine may have been
    ///   restarted since (Linux). Unknown is never dead.
    ///
    /// No signal is sent.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) when this process ran short of descriptors or memory while it
    /// looked: ask again.
    pub fn is_alive(&self) -> Result<Judgement> {
        let observer = &ourselves()?.observer;
        let what = || format!("look at pid {}", self.pid());
        with_clear_sight(what, || Ok(judge(self.evidence(observer, now()))))
    }

    fn evidence(&self, observer: &Observer, clocks: Clocks) -> Evidence {
        let Identity { pid, start_time, number, boot_id, pid_ns, host, made } = &self.0;
        let written = Written {
            host: host.as_deref(),
            boot_id: boot_id.as_deref(),
            pid_ns: pid_ns.as_deref(),
            clocks: Some(*made),
        };
        let here = Here { observer, clocks, is_local: false };
        let mut machine = written.seen_from(&here, AnchorState::None);
        if machine.host != Relation::Same && machine.boot == Boot::Rebooted {
            machine.boot = Boot::Unknown;
        }
        let process =
            Named { pid: Some(*pid), start_time: *start_time, number: *number, uid: None };
        let seen = process.seen_on(machine);
        // What differs is another process in any boot.
        let may_be_of_later_boot = seen.observed() == Observed::Alive
            && machine.boot == Boot::Unknown
            && start_time.is_none_or(|time| time.unit == StartTimeUnit::Ticks)
            && clocks.restarted_since(*made);
        if may_be_of_later_boot {
            let unknown = StartTimeMatch::Unknown;
            return Evidence { start_time: unknown, process_id: unknown, ..seen };
        }
        seen
    }

    /// Whether two references name one process, as far as they tell: not whether it lives.
    ///
    /// ```
    /// use incumbent::liveness::Relation;
    /// use incumbent::process::ProcessRef;
    ///
    /// let (me, again) = (ProcessRef::current()?, ProcessRef::of(std::process::id())?);
    /// assert_eq!(me.is_same(&again), Relation::Same);
    /// # Ok::<(), incumbent::Error>(())
    /// ```
    #[must_use]
    pub fn is_same(&self, other: &Self) -> Relation {
        let (one, two) = (&self.0, &other.0);
        if one.host.is_some() && two.host.is_some() && one.host != two.host {
            return Relation::Different;
        }
        if one.boot_id.is_none() || one.boot_id != two.boot_id {
            return Relation::Unknown;
        }
        let is_it = |is_equal: bool| if is_equal { Relation::Same } else { Relation::Different };
        // Within one boot the number is never given out again, and is the same from all namespaces.
        if let (Some(one), Some(two)) = (one.number, two.number) {
            return is_it(one == two);
        }
        match (one.start_time, two.start_time) {
            (Some(first), Some(second))
                if one.pid_ns == two.pid_ns
                    // Of two that are unknown nobody knows whether they are one.
                    && (one.pid_ns.is_some() || first.unit != StartTimeUnit::Ticks)
                    && first.unit == second.unit =>
            {
                is_it(one.pid == two.pid && first == second)
            }
            _ => Relation::Unknown,
        }
    }

    /// Its pid, in the pid namespace of whoever named it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// When the kernel started it, where that could be read. Each platform counts in a unit of its
    /// own.
    #[must_use]
    pub fn start_time(&self) -> Option<StartTime> {
        self.0.start_time
    }

    /// The kernel's own number of it, which no other process of this boot has (Linux 6.9).
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.0.number.map(|number| number.0)
    }

    /// The boot of the kernel that it runs in.
    #[must_use]
    pub fn boot_id(&self) -> Option<&str> {
        self.0.boot_id.as_deref()
    }

    /// The pid namespace that the pid is of (Linux), by its number: that of whoever named it. A
    /// process in a container has one that is further inside, and another pid there.
    #[must_use]
    pub fn pid_namespace(&self) -> Option<&str> {
        self.0.pid_ns.as_deref()
    }

    /// The machine that it runs on, by an id that does not change with the machine's name.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.0.host.as_deref()
    }

    /// What signals need: the recorded process, pinned.
    pub(super) fn prove(&self) -> Result<sys::Proven, sys::Unproven> {
        let Identity { pid, start_time, number, .. } = self.0;
        sys::Proven::of(pid, start_time, number, &sys::Trust::FULL)
    }
}

impl fmt::Display for ProcessRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for ProcessRef {
    type Err = Error;

    /// Reads what `Display` gives.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for anything else, and for the text of a later
    /// version.
    fn from_str(text: &str) -> Result<Self> {
        read(text).map(Self)
    }
}

impl TryFrom<String> for ProcessRef {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ProcessRef> for String {
    fn from(process: ProcessRef) -> Self {
        process.to_string()
    }
}

/// A pid that somebody named, if the kernel could have given it out.
pub(super) fn checked(pid: u32) -> Result<Pid> {
    valid_pid(i64::from(pid)).ok_or_else(|| {
        Error::invalid(format!("invalid pid {pid}"))
            .with_hint("a pid is a number from 1 to 2147483647")
    })
}

/// An answer that cannot be found out here, and will not be by asking again.
pub(crate) fn cannot_tell(message: String) -> Error {
    Error::new(ErrorKind::Unsupported, message).with_hint(
        "run this in the pid namespace of the process, with a /proc that shows the processes of \
         all users",
    )
}

fn now() -> Clocks {
    Clocks { wall_ms: SystemClock.wall_ms(), boot_ms: SystemClock.boot_ms() }
}

/// What this process knows of itself, learned once. Without a lock, which a child that is forked
/// while a thread of its parent holds it would wait for: it goes on from a copy of what its parent
/// knew, and learns its own beside it.
struct Ourselves {
    observer: Observer,
    reference: OnceLock<ProcessRef>,
    as_forked_child: OnceLock<Box<Ourselves>>,
}

/// Not learned while this process runs short of something.
fn ourselves() -> Result<&'static Ourselves> {
    static FIRST: OnceLock<Box<Ourselves>> = OnceLock::new();
    let own = std::process::id();
    let mut place = &FIRST;
    while let Some(known) = place.get().map(Box::as_ref) {
        // The last one: a child's child may have the pid of its grandparent, which has ended.
        if known.observer.pid == own && known.as_forked_child.get().is_none() {
            return Ok(known);
        }
        place = &known.as_forked_child;
    }
    let observer = with_clear_sight(|| "find out about this process", || Ok(Observer::new()))?;
    // Another thread may have been faster.
    let known: &Ourselves = place.get_or_init(|| {
        let (reference, as_forked_child) = (OnceLock::new(), OnceLock::new());
        Box::new(Ourselves { observer, reference, as_forked_child })
    });
    Ok(known)
}

#[cfg(test)]
mod tests;
