//! Who stands in the way of a claim, and why we believe it.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::clock::{millis, of_millis, rfc3339};
use crate::liveness::{Flags, Judgement};
use crate::names::slot::Slot;
use crate::owner::our_run::OurRun;
use crate::process::command_line;
use crate::process::command_line::redact;
use crate::process::older::lock;
use crate::process::older::lock_holder::LockHolder;
use crate::process::older::wire::HoldingRun;
use crate::records::{LockRow, Record, profiles, runtime};
use crate::store::Inner;
use crate::sys::StartTime;
use crate::{
    InstanceId, Kind, Office, ProfileName, Reason, Result, Verdict, Wanted, path_text, state, sys,
};
use std::time::Duration;

/// The holder that a claim met. Its `Display` is a full explanation in one sentence; what to do
/// about it is [`Holder::advice`].
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use incumbent::{Acquire, LockRequest, Reason, Store, Verdict};
///
/// let store = Store::open(directory.path().join("state.db"))?;
/// let request = LockRequest::new("port", "8443")?.exclusive();
/// let Acquire::Granted(_lock) = store.try_acquire(&request)? else { panic!("nobody else") };
/// let Acquire::Held(holder) = store.try_acquire(&request)? else { panic!("one at a time") };
/// eprintln!("{holder}; {}", holder.advice());
/// assert_eq!(holder.pid, Some(std::process::id()));
/// assert_eq!((holder.verdict, &holder.reason), (Verdict::Alive, &Reason::AnchorHeld));
/// assert_eq!(serde_json::to_value(&holder)?["verdict"], "alive");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # JSON
/// An object with `profile`, `kind`, `pid`, `child_pid`, `instance`, `since` (RFC 3339, UTC,
/// milliseconds), `verdict`, `reason`, `flags`, `command`, `supervisor`, `metadata`, `state` and
/// `unresponsive_ms`; of a lock with slots also `slot` and `others`; where an older program is in
/// the way, `db` and `legacy_lock`. Later versions may add others.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// What was wanted of it.
    pub wanted: Wanted,
    /// The holder's profile; `None` for a process that took a lock without one.
    pub profile: Option<ProfileName>,
    /// The kind of office that the holder is in; `None` for a process without an office.
    pub kind: Option<Kind>,
    /// The recorded process, in the holder's own pid namespace.
    pub pid: Option<sys::Pid>,
    /// The pid of the command that the holder, a `run`, supervises.
    pub child_pid: Option<sys::Pid>,
    /// The holder's generation; `None` when its record is gone with its store.
    pub instance: Option<InstanceId>,
    /// Since when it holds what was wanted: Unix milliseconds, wall time.
    pub since_ms: Option<i64>,
    /// Whether it is alive, as far as it can be told.
    pub verdict: Verdict,
    /// Why the claim was refused, or why the holder counts as alive.
    pub reason: Reason,
    /// What else is to be known of it.
    pub flags: Flags,
    /// When the kernel started its process, where that is on record.
    pub start_time: Option<StartTime>,
    /// Its redacted command line, word by word; empty where it is not known.
    pub argv: Vec<String>,
    /// The same as a shell would take it.
    pub command: Option<String>,
    /// The directory that its profile is bound to, if it is bound to one.
    pub home: Option<PathBuf>,
    /// What supervises it: `systemd:UNIT`, `launchd:LABEL`, `container:ID` or `none`.
    pub supervisor: Option<String>,
    /// What the holder of a lock says about itself ([`LockRequest::metadata`]).
    ///
    /// [`LockRequest::metadata`]: crate::LockRequest::metadata
    pub metadata: Option<Value>,
    /// Which of the slots of a lock it holds; `None` for an office, and a lock without slots.
    pub slot: Option<Slot>,
    /// Whoever holds the other slots: each of them is in the way as well.
    pub others: Vec<Self>,
    /// It is this very process, which holds an exclusive lock or this slot, or wants one while it
    /// shares the lock; or which holds it for the command of a [`Run`](crate::run::Run), or wants
    /// it for one. Another thread or handle of it may release it.
    pub is_this_process: bool,
    /// What it last said of its state; `None` where it has said nothing.
    pub state: Option<String>,
    /// For how long it has been in that state, where that is known.
    pub state_for: Option<Duration>,
    /// For how long it has given none of the signs of life that it promised; `None` where it keeps
    /// its promise, or made none. It holds what it holds anyway.
    pub unresponsive_for: Option<Duration>,
    /// How long to wait before asking again, where that is known.
    pub retry_after: Option<Duration>,
    /// The lock of an older gateway that has ended, which something else keeps.
    pub(crate) left: Option<PathBuf>,
    /// The lock of an older program, where that is what the claim was refused for.
    pub(crate) older_lock: Option<OlderLock>,
    /// Whoever asks descends from it, and never signals it.
    pub(crate) is_our_ancestor: bool,
    /// It is the `run` that whoever asks is in.
    pub(crate) is_our_run: bool,
}

/// The lock of an older program that one of our own holds.
#[derive(Clone, Debug)]
pub(crate) struct OlderLock {
    pub(super) path: PathBuf,
    /// The path of its store, where that is another one.
    pub(super) db: Option<String>,
}

impl Holder {
    pub(crate) fn of(record: &Record, office: &Office, judged: &Judgement) -> Self {
        Self {
            wanted: Wanted::Office(office.clone()),
            profile: record.profile.clone(),
            kind: record.kind().cloned(),
            pid: record.pid,
            child_pid: judged.left_behind.or(record.child_pid),
            instance: Some(record.id),
            since_ms: Some(record.started_at_ms),
            verdict: judged.ruling.verdict(),
            reason: judged.ruling.reason(),
            flags: judged.flags,
            start_time: record.start_time,
            argv: record.argv.clone(),
            command: (!record.argv.is_empty()).then(|| command_line::display(&record.argv)),
            home: None,
            supervisor: record.supervisor.clone(),
            metadata: None,
            slot: None,
            others: Vec::new(),
            is_this_process: false,
            state: None,
            state_for: None,
            unresponsive_for: None,
            retry_after: None,
            is_our_ancestor: false,
            is_our_run: record.is_run && OurRun::is(record),
            left: judged
                .flags
                .anchor_leaked
                .then(|| record.anchor.as_deref().and_then(lock::path_of))
                .flatten()
                .map(Path::to_owned),
            older_lock: None,
        }
    }

    /// The owner of `record` holds the lock `path`, which `office` stands for as well.
    pub(crate) fn of_older_lock(
        office: &Office,
        path: PathBuf,
        record: &Record,
        judged: &Judgement,
    ) -> Self {
        Self {
            reason: Reason::LegacyHomeInUse,
            older_lock: Some(OlderLock { path, db: None }),
            ..Self::of(record, office, judged)
        }
    }

    /// The same for a `run` that is not on record here; `db` is the path of its store, where that
    /// is another.
    pub(crate) fn unrecorded(
        office: &Office,
        path: PathBuf,
        found: &LockHolder,
        owner: &HoldingRun,
        db: Option<String>,
    ) -> Self {
        Self {
            profile: ProfileName::new(owner.profile.as_str()).ok(),
            reason: Reason::LegacyHomeInUse,
            older_lock: Some(OlderLock { path, db }),
            ..Self::older(office, found.pid, &found.argv)
        }
    }

    /// Adds what the holder said of itself: who waits for it may want to know that it is still
    /// starting, or hangs.
    pub(crate) fn add_what_it_said(
        &mut self,
        connection: &Connection,
        inner: &Inner,
        record: &Record,
    ) -> Result<()> {
        if let Some(profile) = &record.profile {
            self.home = profiles::home(connection, profile)?.map(PathBuf::from);
        }
        if !runtime::exists(connection)? {
            return Ok(());
        }
        let said = runtime::runtime(connection, record.id)?;
        let wall_ms = inner.clock().wall_ms();
        self.unresponsive_for = runtime::unresponsive_for(inner, record, said.as_ref());
        if let Some(said) = said {
            let since_ms = said.state_since_ms.filter(|since_ms| *since_ms <= wall_ms);
            self.state_for = since_ms.map(|since_ms| of_millis(wall_ms - since_ms));
            self.state = said.state;
        }
        Ok(())
    }

    pub(crate) fn of_lock(record: &Record, row: &LockRow, judged: &Judgement) -> Self {
        Self {
            wanted: Wanted::Lock(row.name.clone()),
            since_ms: Some(row.acquired_at_ms),
            metadata: row.metadata.clone(),
            slot: row.slot,
            ..Self::of(record, &Office::default(), judged)
        }
    }

    /// Nobody holds `wanted`, or not for long: the owner of `record` will have it, or keeps it
    /// free.
    pub(crate) fn reserved(
        wanted: &Wanted,
        record: &Record,
        judged: &Judgement,
        remaining: Duration,
    ) -> Self {
        Self {
            wanted: wanted.clone(),
            reason: Reason::Reserved,
            // It is over long before its deadline, as a rule.
            retry_after: Some(remaining.min(Duration::from_secs(1))),
            ..Self::of(record, &Office::default(), judged)
        }
    }

    pub(crate) fn orphan(wanted: Wanted, pid: Option<sys::Pid>) -> Self {
        Self {
            wanted,
            profile: None,
            kind: None,
            pid,
            child_pid: None,
            instance: None,
            since_ms: None,
            verdict: Verdict::Alive,
            reason: Reason::OrphanedAnchor,
            flags: Flags::default(),
            start_time: None,
            argv: Vec::new(),
            command: None,
            home: None,
            supervisor: None,
            metadata: None,
            slot: None,
            others: Vec::new(),
            is_this_process: false,
            state: None,
            state_for: None,
            unresponsive_for: None,
            retry_after: None,
            is_our_ancestor: false,
            is_our_run: false,
            left: None,
            older_lock: None,
        }
    }

    /// An older gateway that is not on record, beside one that is. A pid of 0 is nobody's.
    pub(crate) fn older(office: &Office, pid: sys::Pid, argv: &[String]) -> Self {
        let argv = redact::redact(argv);
        let command = command_line::display(&argv);
        Self {
            profile: Some(office.profile.clone()),
            kind: Some(office.kind.clone()),
            reason: Reason::OlderGateway,
            command: (!argv.is_empty()).then_some(command),
            argv,
            ..Self::orphan(Wanted::Office(office.clone()), Some(pid).filter(|pid| *pid > 0))
        }
    }

    fn because(&self) -> &'static str {
        match &self.reason {
            _ if self.flags.release_pending => {
                "its owner has released it, but could not record that yet"
            }
            Reason::CannotSignal if self.is_our_ancestor => {
                "it is a parent of this process, so it is not signalled, and it did not act on the \
                 marker"
            }
            reason => reason.because(),
        }
    }

    /// Whether it was asked to end, and may not be signalled from here: [`Reason::CannotSignal`].
    #[must_use]
    pub fn cannot_be_signalled(&self) -> bool {
        self.reason == Reason::CannotSignal
    }

    /// The holder as the CLI's JSON shows it. Of one that holds the lock of an older program, also
    /// the path of that (`legacy_lock`), and that of its store where it is not on record in this
    /// one (`db`, or null).
    fn document(&self) -> Value {
        let mut document = json!({
            "profile": self.profile,
            "kind": self.kind,
            "pid": self.pid,
            "child_pid": self.child_pid,
            "instance": self.instance,
            "since": self.since_ms.and_then(rfc3339),
            "verdict": self.verdict,
            "reason": self.reason,
            "flags": self.flags,
            "command": self.command,
            "supervisor": self.supervisor,
            "metadata": self.metadata,
            "state": self.state,
            "unresponsive_ms": self.unresponsive_for.map(millis),
        });
        Slot::tell(self.slot, &mut document);
        if !self.others.is_empty() {
            document["others"] = json!(self.others);
        }
        if let Some(lock) =
            self.older_lock.as_ref().filter(|_| self.reason == Reason::LegacyHomeInUse)
        {
            document["db"] = lock.db.as_deref().into();
            path_text::put(&mut document, "legacy_lock", &lock.path);
        }
        document
    }
}

impl Serialize for Holder {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let older_lock = self.older_lock.as_ref();
        let relation = match self.reason {
            Reason::Reserved => "is reserved for",
            _ if older_lock.is_some() => "is kept out by",
            _ => "is held by",
        };
        write!(f, "{} {relation} ", self.wanted)?;
        if let (Some(_), Some(profile)) = (older_lock, &self.profile) {
            write!(f, "profile {profile}")?;
            if let Some(db) = older_lock.and_then(|lock| lock.db.as_deref()) {
                write!(f, " of the store {db}")?;
            }
            f.write_str(", ")?;
        }
        if let (Wanted::Lock(_), Some(profile)) = (&self.wanted, &self.profile) {
            write!(f, "profile {profile}, ")?;
        }
        match self.pid {
            Some(pid) if self.is_this_process => write!(f, "this very process, pid {pid}")?,
            Some(pid) => write!(f, "pid {pid}")?,
            None => write!(f, "an unknown process")?,
        }
        if let Some(command) = &self.command {
            write!(f, " ({command})")?;
        }
        if let Some(since) = self.since_ms.and_then(rfc3339) {
            write!(f, " since {since}")?;
        }
        if self.left.is_some() {
            return write!(f, ", which has ended, but a process that it started keeps its lock");
        }
        let certainty = if self.verdict == Verdict::Unknown { "may be alive" } else { "is alive" };
        write!(f, ", which {certainty}: {}", self.because())?;
        if let Some(lock) = older_lock {
            write!(f, " ({})", lock.path.display())?;
        }
        if self.is_our_run {
            f.write_str("; this process is inside of that run")?;
        }
        // Of the other states it is no news.
        if let Some(word @ (state::STARTING | state::DRAINING)) = self.state.as_deref() {
            let length = self.state_for.map(|length| format!(" for {} s", length.as_secs()));
            write!(f, "; it has been {word}{}", length.unwrap_or_default())?;
        }
        if let Some(length) = self.unresponsive_for {
            write!(f, "; it is unresponsive: no heartbeat for {} s", length.as_secs())?;
        }
        if self.others.is_empty() {
            return Ok(());
        }
        let pid = |other: &Self| other.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        let pids: Vec<String> = self.others.iter().map(pid).collect();
        write!(f, "; its other slots are held by pid {}", pids.join(", "))
    }
}
