//! Verifies, renews and releases locks for another process.
//!
//! A keeper ends a row that stays without locks for a minute while nobody of its profile waits.

use crate::keeper::known::Known;
use crate::keeper::release::{cannot_tell, current_run, is_about, parent};
use crate::liveness::{Ruling, because_seen};
use crate::owner::judgement;
use crate::records::{LockEnd, Record, instances, locks};
use crate::scoped::unlock::end_if_without_purpose;
use crate::store::{Inner, Tx};
use crate::sys::Existence;
use crate::{InstanceId, LockName, Reason, Result, Store, sys};

pub(crate) use crate::records::locks::LockRow;

/// For whom a verb acts.
enum Subjected {
    /// The run it was started in.
    Run(Box<Record>),
    Process(sys::Pid),
}

impl Subjected {
    /// Of the run.
    fn id(&self) -> Option<InstanceId> {
        match self {
            Self::Run(run) => Some(run.id),
            Self::Process(_) => None,
        }
    }
}

fn subjected(store: &Store, pid: Option<sys::Pid>) -> Result<Subjected> {
    match pid {
        Some(pid) => Ok(Subjected::Process(pid)),
        None => match current_run(store)? {
            Some(run) => Ok(Subjected::Run(Box::new(run))),
            None => Ok(Subjected::Process(parent()?)),
        },
    }
}

/// Which lock of whom.
pub(crate) struct LockQuestion<'a> {
    pub(crate) name: &'a LockName,
    pub(crate) pid: Option<sys::Pid>,
    /// Which grant; without it, any.
    pub(crate) fence: Option<i64>,
}

/// The lock, or why it is not theirs.
pub(crate) type LockAnswer = Known<std::result::Result<LockRow, String>>;

impl LockQuestion<'_> {
    /// Whether they hold it.
    pub(crate) fn verify(&self, store: &Store) -> Result<LockAnswer> {
        self.ask(store, |inner, subjected| {
            inner.read(|connection| find(connection, inner, self.name, subjected, self.fence))
        })
    }

    /// Starts its lease anew.
    pub(crate) fn renew(&self, store: &Store) -> Result<LockAnswer> {
        self.ask(store, |inner, subjected| {
            inner.write(|tx| {
                let found = find(tx, inner, self.name, subjected, self.fence)?;
                if let Ok((row, _)) = &found {
                    let now_boot_ms = inner.clock().boot_ms();
                    let fence = row.fence;
                    locks::renew(tx, self.name, row.slot, fence, inner.observer(), now_boot_ms)?;
                }
                Ok(found)
            })
        })
    }

    /// Releases it, in the name of `by`.
    pub(crate) fn release(&self, store: &Store, by: &str) -> Result<LockAnswer> {
        self.ask(store, |inner, subjected| {
            inner.write(|tx| {
                let found = find(tx, inner, self.name, subjected, self.fence)?;
                if let Ok((row, record)) = &found {
                    locks::end(tx, self.name, row.slot, row.fence, &released(by))?;
                    end_if_without_purpose(tx, record, by)?;
                }
                Ok(found)
            })
        })
    }

    /// What `question` finds in the store. A process of which nothing is on record may have lost
    /// its store; a run that is on record here has its locks here, too.
    fn ask(
        &self,
        store: &Store,
        question: impl Fn(&Inner, &Subjected) -> Result<Found>,
    ) -> Result<LockAnswer> {
        let subjected = subjected(store, self.pid)?;
        let why_not = match question(&store.inner, &subjected)? {
            Ok((row, _)) => return Ok(Known::Well(Ok(row))),
            Err(No::Nobodys(why)) if matches!(subjected, Subjected::Process(_)) => {
                return Ok(Known::ByLack(Err(why)));
            }
            Err(No::Nobodys(why) | No::Others(why)) => why,
        };
        // The run that we are in may have claimed again between the two reads.
        let is_the_same = self::subjected(store, self.pid)?.id() == subjected.id();
        Ok(if is_the_same { Known::Well(Err(why_not)) } else { Known::ByLack(Err(why_not)) })
    }
}

fn released(by: &str) -> LockEnd<'_> {
    LockEnd { reason: Reason::Released, by: Some(by) }
}

/// Releases all locks of one process, or of the run we are in; how many those were. Of very many
/// some at a time, so that others can claim meanwhile.
pub(crate) fn release_all(store: &Store, pid: Option<sys::Pid>, by: &str) -> Result<Known<usize>> {
    let subjected = subjected(store, pid)?;
    let (mut count, mut are_left) = (0, true);
    while are_left {
        let released;
        (released, are_left) =
            store.inner.write(|tx| release_some(tx, &store.inner, &subjected, by))?;
        count += released;
    }
    Ok(match subjected {
        Subjected::Process(_) if count == 0 => Known::ByLack(count),
        Subjected::Process(_) | Subjected::Run(_) => Known::Well(count),
    })
}

/// How many were released, and whether some are left.
fn release_some(
    tx: &Tx<'_>,
    inner: &Inner,
    subjected: &Subjected,
    by: &str,
) -> Result<(usize, bool)> {
    let rows = match subjected {
        Subjected::Run(run) => vec![(**run).clone()],
        Subjected::Process(pid) => {
            let facts = sys::process_facts(*pid);
            let mut rows = instances::live_of_pid(tx, *pid, facts.start_time, inner.observer())?;
            // A command in the place of its `run` does not act without them.
            rows.retain(|row| !row.is_in_place());
            if rows.is_empty() && facts.start_time.is_none() && facts.existence != Existence::Gone {
                return Err(cannot_tell(*pid, "when it was started"));
            }
            rows
        }
    };
    let mut count = 0;
    for row in &rows {
        let released = locks::end_some_of(tx, row.id, &released(by))?;
        count += released;
        if released == locks::ENDED_AT_ONCE {
            return Ok((count, true));
        }
        end_if_without_purpose(tx, row, by)?;
    }
    Ok((count, false))
}

/// Why a lock is not the subject's.
enum No {
    /// Somebody else has it, or has had it meanwhile.
    Others(String),
    /// Nobody who lives is on record for it.
    Nobodys(String),
}

/// A lock that a verb found to be of whom it acts for; else why not.
type Found = std::result::Result<(LockRow, Record), No>;

/// Looks for the lock of `subjected`, which a dead process no longer has. Of one with slots, any
/// that is theirs.
fn find(
    connection: &rusqlite::Connection,
    inner: &Inner,
    name: &LockName,
    subjected: &Subjected,
    fence: Option<i64>,
) -> Result<Found> {
    let mut why_not = No::Nobodys(format!("nobody holds {name}"));
    for row in if locks::exists(connection)? { locks::all_of(connection, name)? } else { vec![] } {
        let record = instances::by_id(connection, row.instance)?;
        let Some(record) = record.filter(Record::is_live) else { continue };
        match check(inner, name, subjected, fence, (row, record))? {
            Ok(found) => return Ok(Ok(found)),
            // Somebody who has it says more than somebody who had it.
            Err(no) => {
                if matches!(why_not, No::Nobodys(_)) {
                    why_not = no;
                }
            }
        }
    }
    Ok(Err(why_not))
}

/// Whether a lock on record is that of `subjected`.
fn check(
    inner: &Inner,
    name: &LockName,
    subjected: &Subjected,
    fence: Option<i64>,
    (row, record): (LockRow, Record),
) -> Result<Found> {
    let holder =
        record.pid.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"));
    let why_not = match subjected {
        Subjected::Run(run) if run.id == record.id => None,
        Subjected::Run(_) => {
            Some(format!("{name} is not held by the run we are in, but by {holder}"))
        }
        Subjected::Process(_) if !record.is_pid || record.is_in_place() => Some(format!(
            "{name} is held by {holder}, which acquired it itself: only its owner acts for it"
        )),
        Subjected::Process(pid) if !is_about(inner, &record, *pid)? => {
            Some(format!("{name} is not held by pid {pid}, but by {holder}"))
        }
        Subjected::Process(_) => None,
    };
    let is_runs_own = matches!(subjected, Subjected::Run(run) if run.id == record.id);
    if !is_runs_own {
        let seen = judgement(inner, &record);
        if let Ruling::Dead(reason) = seen.ruling {
            return Ok(Err(No::Nobodys(why_not.unwrap_or_else(|| {
                let because = because_seen(&reason.into(), seen.flags, &seen.evidence);
                format!("{name} is on record for {holder}, which is dead: {because}")
            }))));
        }
    }
    Ok(match (why_not, fence) {
        (Some(why_not), _) => Err(No::Others(why_not)),
        (None, Some(fence)) if fence != row.fence => {
            Err(No::Others(format!("{name} was lost: its fence is {} now, not {fence}", row.fence)))
        }
        (None, _) => Ok((row, record)),
    })
}
