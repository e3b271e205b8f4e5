//! The handle by which records of another process are made, asked about and ended.

use std::time::Duration;

use serde::Serialize;

use crate::claim::examine::Evicted;
use crate::claim::{ATTEMPTS, changes_too_fast};
use crate::clock::{as_millis, as_rfc3339};
use crate::keeper::acquire::{AcquireAnswer, Acquiring, LockWish, acquire};
use crate::keeper::caller::parent_to_record;
use crate::keeper::known::{Known, ask};
use crate::keeper::locks::{LockQuestion, LockRow, release_all};
use crate::keeper::record::{RecordOutcome, RecordedBy, record};
use crate::keeper::release::{NotYours, current_run, parent, release_in};
use crate::keeper::report::KeeperReport;
use crate::keeper::start::{Purpose, start};
use crate::keeper::target::Target;
use crate::keeper::{markers, release, speak};
use crate::marker::Consumed;
use crate::names::MarkerName;
use crate::names::slot::Slot;
use crate::records::markers::Marker;
use crate::records::{Record, identities, instances};
use crate::scoped::acquire::PreviousLock;
use crate::scoped::attempt::Acquire;
use crate::scoped::request::AcquireOptions;
use crate::store::ourselves;
use crate::{
    Holder, InstanceId, Kind, LockName, LockRequest, Office, Profile, ProfileName, Result,
    StatusUpdate, Store, sys,
};

/// Which process is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Whom {
    /// The one that has this pid, in our pid namespace.
    Process(u32),
    /// The `run` that this process was started by, as its command or below it; else the parent of
    /// this process.
    Caller,
}

/// What says that a recorded process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Anchoring {
    /// A keeper, which holds an anchor in its place. It is started if there is none.
    #[default]
    Keeper,
    /// Its pid and start time alone: where those cannot be seen, nothing can be told.
    None,
}

/// Another process, for which records are kept: one that does not link the library. Everything that
/// is recorded for it ends with it, and is visible to others when the call returns that made it.
///
/// ```
/// use incumbent::keeper::{Anchoring, KeptClaim, KeptRelease, Whom};
/// use incumbent::{Kind, Store};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("state.db");
/// # let pid = std::process::id();
/// let store = Store::open(&path)?;
/// let work = store.profile("work")?;
/// let process = store.kept(Whom::Process(pid)).anchoring(Anchoring::None);
/// assert!(matches!(process.claim(&work, &Kind::default())?, KeptClaim::Granted { .. }));
/// assert_eq!(work.status()?.pid, Some(pid));
/// assert_eq!(process.records()?.len(), 1);
/// assert!(matches!(process.release(&work.status()?.office)?, KeptRelease::Released(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeptProcess {
    store: Store,
    whom: Whom,
    anchoring: Anchoring,
    by: Option<String>,
}

/// What came of [`KeptProcess::claim`].
#[derive(Debug)]
#[non_exhaustive]
pub enum KeptClaim {
    /// The process holds the office; whose place it took.
    #[non_exhaustive]
    Granted {
        /// Its generation, which is the office's fence.
        instance: InstanceId,
        /// The dead holder before it, if there was one.
        evicted: Option<Evicted>,
    },
    /// It held the office before this claim.
    #[non_exhaustive]
    Already {
        /// Its generation.
        instance: InstanceId,
        /// Its recorded pid: that of its `run`, for a command.
        pid: Option<u32>,
        /// Since when: Unix milliseconds, wall time.
        since_ms: i64,
    },
    /// Somebody else does, or may; they explain themselves.
    Held(Box<Holder>),
}

/// What came of [`KeptProcess::release`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptRelease {
    /// This generation has ended.
    Released(InstanceId),
    /// The office was not the process' to release: nothing was done.
    #[non_exhaustive]
    NotHeld {
        /// Why, for people.
        why: String,
        /// What to do, where something can be done.
        advice: Option<String>,
    },
}

/// A lock of a kept process. In JSON an object with these fields, `scope` and `identity_hash` in
/// place of the name, and `ttl_ms`; later versions may add others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeptLock {
    /// Which lock.
    #[serde(flatten)]
    pub name: LockName,
    /// Which of its slots; `None` for a lock without slots.
    pub slot: Option<Slot>,
    /// The row it was taken from.
    pub instance: InstanceId,
    /// Rises with every change of holder.
    pub fence: i64,
    /// How long its lease is; `None` without a lease.
    #[serde(rename = "ttl_ms", serialize_with = "as_millis")]
    pub ttl: Option<Duration>,
}

/// A lock that was granted to a kept process. In JSON an object with these fields, and those of the
/// lock in place of `lock`; later versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct KeptGrant {
    /// The lock.
    #[serde(flatten)]
    pub lock: KeptLock,
    /// The pid that it is recorded for.
    pub pid: Option<u32>,
    /// The dead holder before it, if there was one.
    pub evicted: Option<Evicted>,
    /// The lock as it was recorded, if the process held it before.
    pub previous: Option<PreviousLock>,
}

/// Whether a kept process holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptStanding {
    /// It does.
    Held(KeptLock),
    /// It does not.
    #[non_exhaustive]
    NotHeld {
        /// Why, for people.
        why: String,
    },
}

/// What is on record for a kept process. In JSON an object with these fields, the time as `since`
/// (RFC 3339, UTC, milliseconds); later versions may add others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeptRecord {
    /// Its generation.
    pub instance: InstanceId,
    /// The office that it holds; `None` for a row that is there for locks.
    pub office: Option<Office>,
    /// Since when: Unix milliseconds, wall time.
    #[serde(rename = "since", serialize_with = "as_rfc3339")]
    pub since_ms: i64,
    /// The pid of the keeper that holds the anchor, as it was recorded last; `None` without one.
    pub keeper_pid: Option<u32>,
}

impl Store {
    /// Another process, to keep records for. Nothing is looked at yet.
    #[must_use]
    pub fn kept(&self, whom: Whom) -> KeptProcess {
        KeptProcess { store: self.clone(), whom, anchoring: Anchoring::default(), by: None }
    }
}

impl Whom {
    /// Looks whether records can be made for it; before a store is made for them.
    ///
    /// # Errors
    /// [`NotRunning`](crate::ErrorKind::NotRunning) if there is no such process,
    /// [`Permission`](crate::ErrorKind::Permission) for another user's.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Process(pid) => Target::prove(pid).map(drop),
            Self::Caller => Ok(()),
        }
    }

    fn pid(self) -> Option<sys::Pid> {
        match self {
            Self::Process(pid) => Some(pid),
            Self::Caller => None,
        }
    }
}

impl KeptProcess {
    /// What is to say that the process lives, of the records that are made.
    #[must_use]
    pub fn anchoring(mut self, anchoring: Anchoring) -> Self {
        self.anchoring = anchoring;
        self
    }

    /// Who asks, for the history, in place of this process' pid and command line.
    #[must_use]
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = Some(by.into());
        self
    }

    /// The pid of the process that is meant: for [`Whom::Caller`] that of the `run`, else that of
    /// our parent.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a parent that is nobody's to record
    /// (init, or outside of our pid namespace); [`NotOwner`](crate::ErrorKind::NotOwner) in a `run`
    /// that has lost its office; as [`Profile::status_of`].
    pub fn pid(&self) -> Result<u32> {
        match self.whom {
            Whom::Process(pid) => Ok(pid),
            Whom::Caller => match current_run(&self.store)?.and_then(|run| run.pid) {
                Some(pid) => Ok(pid),
                None => parent(),
            },
        }
    }

    /// Claims the office of `kind` for the process, on the home of `profile`; an example is at the
    /// [module](crate::keeper). Never waits for its holder.
    ///
    /// # Errors
    /// [`NotRunning`](crate::ErrorKind::NotRunning) if it has ended,
    /// [`Permission`](crate::ErrorKind::Permission) if it is another user's,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where there is no
    /// [program for a keeper](crate::helper::HelperProgram::find), and for a [`Whom::Caller`] whose
    /// parent is a session or service manager (systemd, cron, sshd, tmux), or a launcher or a
    /// subshell that ends at once; and those of [`Profile::claim_with`].
    pub fn claim(&self, profile: &Profile, kind: &Kind) -> Result<KeptClaim> {
        let office = profile.office(kind);
        let pid = match self.whom {
            Whom::Process(pid) => pid,
            Whom::Caller => match current_run(&self.store)? {
                Some(run) if run.office().as_ref() == Some(&office) => {
                    return Ok(KeptClaim::already(&run));
                }
                run => run.and_then(|run| run.pid).map_or_else(parent_to_record, Ok)?,
            },
        };
        let target = Target::prove(pid)?;
        let recorder = match self.anchoring {
            Anchoring::Keeper => RecordedBy::Verb,
            Anchoring::None => RecordedBy::NoKeeper,
        };
        for _ in 0..ATTEMPTS {
            match record(&self.store, &office, profile.home(), &target, recorder)? {
                RecordOutcome::Granted { instance, evicted } => {
                    return Ok(KeptClaim::Granted { instance, evicted });
                }
                RecordOutcome::Already(record) => return Ok(KeptClaim::already(&record)),
                RecordOutcome::Held(holder) => return Ok(KeptClaim::Held(holder)),
                RecordOutcome::NeedsKeeper(evicts) => {
                    let purpose = Purpose::Office(kind, profile.home());
                    let report = start(&self.store, profile.name(), purpose, &target)?;
                    if let KeeperReport::Keeps { granted: Some(instance), evicted } = report {
                        let evicted = evicts.filter(|it| Some(it.instance.as_i64()) == evicted);
                        return Ok(KeptClaim::Granted { instance: InstanceId(instance), evicted });
                    }
                }
            }
        }
        Err(changes_too_fast(&office))
    }

    /// Releases an office that was claimed for the process. Of [`Whom::Caller`] the office of the
    /// `run` stays the `run`'s, which ends with its command.
    ///
    /// # Errors
    /// Those of [`Profile::set_desired`]: [`StoreReplaced`](crate::ErrorKind::StoreReplaced) also
    /// if it is on record nowhere and an owner of a lost store may be it. And those of
    /// [`KeptProcess::pid`], and [`Unsupported`](crate::ErrorKind::Unsupported) where it cannot be
    /// told whether the record is about this process.
    pub fn release(&self, office: &Office) -> Result<KeptRelease> {
        let by = self.asker();
        let released = self.ask(|store| release_in(store, office, self.whom.pid(), &by))?;
        Ok(match released {
            Ok(instance) => KeptRelease::Released(instance),
            Err(NotYours { why, advice }) => KeptRelease::NotHeld { why, advice },
        })
    }

    /// Acquires a lock for the process: from the row of the `run`, or from one that is made for its
    /// locks in `profile`. Acquired again, it keeps its fence, with the new metadata and lease. Of
    /// one with [slots](LockRequest::slots) each grant has a slot of its own, until
    /// [`release_lock`](Self::release_lock) with its fence; so an
    /// [exclusive](LockRequest::exclusive) one that it has is refused.
    ///
    /// # Errors
    /// As [`KeptProcess::claim`].
    pub fn acquire(
        &self,
        profile: &ProfileName,
        request: &LockRequest,
        options: &AcquireOptions,
    ) -> Result<Acquire<KeptGrant>> {
        let named = self.whom.pid().map(Target::prove).transpose()?;
        let acquiring = Acquiring::new(&self.store, profile.clone(), named)?;
        let wish = LockWish {
            request,
            stopped: options.stopped,
            keeper: self.anchoring == Anchoring::Keeper,
            wait: options.wait,
            cancel: &options.cancel,
            by: &self.asker(),
        };
        Ok(match acquire(&self.store, &acquiring, wish)? {
            AcquireAnswer::Granted(granted) => Acquire::Granted(KeptGrant {
                lock: KeptLock {
                    name: granted.name,
                    slot: granted.slot,
                    instance: granted.instance,
                    fence: granted.fence,
                    ttl: request.ttl_ms.and_then(duration),
                },
                pid: acquiring.pid(),
                evicted: granted.evicted,
                previous: granted.previous,
            }),
            AcquireAnswer::Held(holder) => Acquire::Held(holder),
        })
    }

    /// Whether the process holds the lock, or any slot of it; with a `fence`, whether it still has
    /// that grant.
    ///
    /// # Errors
    /// As [`KeptProcess::release`].
    pub fn verify_lock(&self, name: &LockName, fence: Option<i64>) -> Result<KeptStanding> {
        let question = LockQuestion { name, pid: self.whom.pid(), fence };
        self.ask(|store| question.verify(store)).map(KeptStanding::of)
    }

    /// Starts the lease of the lock again, for as long as was asked for.
    ///
    /// # Errors
    /// As [`KeptProcess::release`].
    pub fn renew_lock(&self, name: &LockName, fence: Option<i64>) -> Result<KeptStanding> {
        let question = LockQuestion { name, pid: self.whom.pid(), fence };
        self.ask(|store| question.renew(store)).map(KeptStanding::of)
    }

    /// Releases the lock, of several slots the one with that `fence`, or the lowest;
    /// [`KeptStanding::Held`] is what was released.
    ///
    /// # Errors
    /// As [`KeptProcess::release`].
    pub fn release_lock(&self, name: &LockName, fence: Option<i64>) -> Result<KeptStanding> {
        let question = LockQuestion { name, pid: self.whom.pid(), fence };
        let by = self.asker();
        self.ask(|store| question.release(store, &by)).map(KeptStanding::of)
    }

    /// Releases all locks of the process; how many those were.
    ///
    /// # Errors
    /// As [`KeptProcess::release`].
    pub fn release_locks(&self) -> Result<usize> {
        let by = self.asker();
        self.ask(|store| release_all(store, self.whom.pid(), &by))
    }

    /// Writes what the process says about `office`, which it holds or serves; whose row that is.
    ///
    /// # Errors
    /// [`NotOwner`](crate::ErrorKind::NotOwner) if it may not speak for that office, and those of
    /// [`KeptProcess::release`].
    pub fn say(&self, office: &Office, update: &StatusUpdate) -> Result<InstanceId> {
        self.ask(|store| Ok(speak::say(store, office, self.whom.pid(), update)))?
    }

    /// The next open marker for the process, as [`Store::peek_marker`] says; consumes nothing.
    ///
    /// # Errors
    /// As [`KeptProcess::release`].
    pub fn peek_marker(&self, name: Option<&MarkerName>) -> Result<Option<Marker>> {
        self.ask(|store| markers::peek(store, self.whom.pid(), name))
    }

    /// Consumes the next open marker for the process, as [`Store::consume_marker`] does.
    ///
    /// # Errors
    /// As [`KeptProcess::release`]; not when the consumption alone cannot be written, see
    /// [`Consumed::recorded`].
    pub fn consume_marker(&self, name: Option<&MarkerName>) -> Result<Option<Consumed>> {
        self.ask(|store| markers::consume(store, self.whom.pid(), name))
    }

    /// Closes the open markers of this name that are or were for the process; how many.
    ///
    /// # Errors
    /// As [`Profile::set_desired`].
    pub fn clear_marker(&self, name: &MarkerName) -> Result<usize> {
        markers::clear(&self.store, self.whom.pid(), name, &self.asker())
    }

    /// The generation that the process acts for, with its office: that of the `run`, or the first
    /// of its own. `None` if it is not on record.
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn instance(&self) -> Result<Option<(InstanceId, Option<Office>)>> {
        release::whose_row(&self.store, self.whom.pid())
    }

    /// What is on record for the process and has not ended, offices first: its own records too, if
    /// it links the library after all. Whether it lives is not looked at.
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn records(&self) -> Result<Vec<KeptRecord>> {
        let pid = self.pid()?;
        let start_time = sys::process_facts(pid).start_time;
        let inner = &self.store.inner;
        let rows = inner.read(|connection| {
            instances::live_of_process(connection, pid, start_time, inner.observer())
        })?;
        Ok(rows.iter().map(KeptRecord::of).collect())
    }

    /// The answer of the store, unless that may be one for want of a record.
    fn ask<T>(&self, question: impl Fn(&Store) -> Result<Known<T>>) -> Result<T> {
        ask(&self.store, question)
    }

    fn asker(&self) -> String {
        match &self.by {
            Some(by) => identities::presentable(&self.store.inner, by),
            None => ourselves::by_self(&self.store.inner),
        }
    }
}

impl KeptClaim {
    fn already(record: &Record) -> Self {
        Self::Already { instance: record.id, pid: record.pid, since_ms: record.started_at_ms }
    }
}

impl KeptStanding {
    fn of(answer: std::result::Result<LockRow, String>) -> Self {
        match answer {
            Ok(row) => Self::Held(KeptLock {
                name: row.name,
                slot: row.slot,
                instance: row.instance,
                fence: row.fence,
                ttl: row.ttl_ms.and_then(duration),
            }),
            Err(why) => Self::NotHeld { why },
        }
    }
}

impl KeptRecord {
    fn of(record: &Record) -> Self {
        Self {
            instance: record.id,
            office: record.office(),
            since_ms: record.started_at_ms,
            keeper_pid: record.keeper_pid,
        }
    }
}

fn duration(ms: i64) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}
