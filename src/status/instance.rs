//! What became of one instance: the fence as a foreign key of the application's own tables.

use crate::liveness::{Judgement, Lease, Ruling};
use crate::owner::look;
use crate::records::{Record, instances};
use crate::status::ended;
use crate::store::Inner;
use crate::{InstanceId, Office, Reason, Result, Store};

/// One incarnation of a process that is on record, and what became of it; see
/// [`Store::instance`](crate::Store::instance).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Instance {
    /// Its id, which is the fence of its office.
    pub id: InstanceId,
    /// The office that it was granted; `None` for a process that only took locks.
    pub office: Option<Office>,
    /// The recorded process, in its own pid namespace.
    pub pid: Option<u32>,
    /// The pid of the command that it, a `run`, supervises or has left behind.
    pub child_pid: Option<u32>,
    /// Since when it is on record: Unix milliseconds, wall time.
    pub started_at_ms: i64,
    /// What became of it.
    pub fate: Fate,
}

/// What became of an instance.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Its end is neither on record nor proven: the verdict is `Alive` or `Unknown`, and nobody
    /// else may act in its place.
    Live(Judgement),
    /// It is over, for good: nothing is held by it. A process that was evicted while it lived, or
    /// whose store was replaced, learns that from its next verification.
    Ended(InstanceEnd),
}

/// How an instance ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InstanceEnd {
    /// Why, in snake case: `released`, `exited`, `anchor_released`, `pid_reused`, ...
    pub reason: Reason,
    /// When that was recorded: Unix milliseconds, wall time. `None` while it is dead, and nobody
    /// has recorded that yet: the next claim will.
    pub at_ms: Option<i64>,
    /// Who ended it, if they said so.
    pub by: Option<String>,
    /// The exit code, where it is known.
    pub exit_code: Option<i32>,
    /// The signal that ended it, by number, where it is known.
    pub signal: Option<i32>,
    /// Anything else, for people.
    pub detail: Option<String>,
    /// What was seen of it, where nobody has recorded its end yet.
    pub judgement: Option<Judgement>,
}

impl Instance {
    /// Whether it is over. False where it lives, and where that cannot be told.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.fate, Fate::Ended(_))
    }
}

impl Store {
    /// What became of the instance with this id, with the evidence. Reads only.
    ///
    /// An application that keeps [`Tenure::instance`](crate::Tenure::instance) or
    /// [`ScopedLock::instance`](crate::ScopedLock::instance) in rows of its own asks here whether
    /// their owner may still act, in place of a pid and a start time that it compares by hand.
    /// What has ended by this answer may be claimed, also where nobody has recorded that end yet.
    /// A process that a killed `run` has left behind is ended by that claim, not by this question.
    ///
    /// `None`: the store has no such instance. It never had one; or the instance has ended and is
    /// no longer kept (of each office the last 200 are); or the store was replaced by an older
    /// copy, whose former owners notice within a second that they have lost it. The row of a live
    /// instance is never removed: in each case nobody holds anything in this store by that id.
    ///
    /// ```
    /// use incumbent::status::Fate;
    /// use incumbent::{Claim, InstanceId, Store};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// let store = Store::open(&path)?;
    /// let Claim::Granted(tenure) = store.profile("work")?.claim()? else { panic!("nobody else") };
    /// let stored: i64 = tenure.instance().as_i64();
    ///
    /// let owner = store.instance(InstanceId::from_i64(stored)?)?.expect("it was just granted");
    /// assert!(!owner.has_ended());
    /// tenure.release()?;
    /// let owner = store.instance(InstanceId::from_i64(stored)?)?.expect("its end is on record");
    /// let Fate::Ended(end) = owner.fate else { panic!("it was released") };
    /// assert_eq!(end.reason, incumbent::Reason::Released);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn instance(&self, id: InstanceId) -> Result<Option<Instance>> {
        let inner = &self.inner;
        let Some(record) = on_record(inner, id)? else { return Ok(None) };
        if !record.is_live() {
            return Ok(Some(Instance::new(&record, Fate::Ended(InstanceEnd::recorded(&record)))));
        }
        let judged = inner.with_clear_sight(|| Ok(look(inner, &record, Lease::None)))?;
        let Ruling::Dead(reason) = judged.ruling else {
            return Ok(Some(Instance::new(&record, Fate::Live(judged))));
        };
        // It may have released what it held since the record was read.
        let Some(record) = on_record(inner, id)? else { return Ok(None) };
        let end = if record.is_live() {
            let end = ended::unrecorded_end(inner, &record, reason)?;
            InstanceEnd {
                reason: end.reason.into(),
                at_ms: None,
                by: end.by,
                exit_code: end.exit_code,
                signal: end.signal,
                detail: end.detail,
                judgement: Some(judged),
            }
        } else {
            InstanceEnd::recorded(&record)
        };
        Ok(Some(Instance::new(&record, Fate::Ended(end))))
    }
}

fn on_record(inner: &Inner, id: InstanceId) -> Result<Option<Record>> {
    inner.read(|connection| instances::by_id(connection, id))
}

impl Instance {
    fn new(record: &Record, fate: Fate) -> Self {
        Self {
            id: record.id,
            office: record.office(),
            pid: record.pid,
            child_pid: record.child_pid,
            started_at_ms: record.started_at_ms,
            fate,
        }
    }
}

impl InstanceEnd {
    fn recorded(record: &Record) -> Self {
        Self {
            reason: record.end_reason.clone().unwrap_or(Reason::Other("".into())),
            at_ms: record.ended_at_ms,
            by: record.ended_by.clone(),
            exit_code: record.exit_code.and_then(|code| i32::try_from(code).ok()),
            signal: record.signal.and_then(|number| i32::try_from(number).ok()),
            detail: record.detail.clone(),
            judgement: None,
        }
    }
}
