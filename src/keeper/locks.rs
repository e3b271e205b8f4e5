//! Takes, renews and releases locks for another process.
//!
//! A verb makes the record itself, in a row whose anchor a keeper holds. The keeper is started for
//! the row alone, before the lock is taken if the verb waits. A keeper ends a row that stays
//! without locks for a minute while nobody of its profile waits. A record whose keepers were killed
//! leans on another one with the next `lock acquire`.

use crate::claim::aside::Aside;
use crate::claim::examine::{Claimant, Count};
use crate::claim::wait::Turn;
use crate::error::{Error, Result};
use crate::keeper::record::{Recorder, attachment};
use crate::keeper::release::{current_run, is_about, parent};
use crate::keeper::target::Target;
use crate::liveness::{Lease, Verdict};
use crate::names::{InstanceId, LockName, ProfileName};
use crate::owner::evidence::LiveCommandLine;
use crate::owner::holder::because_seen;
use crate::owner::judge::{is_held, judge_record};
use crate::patience::Stopped;
use crate::process::subject::Subject;
use crate::records::instances::{Origin, Record};
use crate::records::locks::LockRow;
use crate::records::{instances, locks};
use crate::scoped::acquire::{Acquired, Owner, acquire_once};
use crate::scoped::request::LockRequest;
use crate::scoped::survey::{LockClaim, Surveyed, hide_in, survey};
use crate::scoped::unlock::end_if_without_purpose;
use crate::store::Store;
use crate::store::handle::Inner;
use crate::store::transaction::Tx;
use crate::sys;

/// For whom a verb acts.
pub(crate) enum Subjected {
    /// The run it was started in.
    Run(Box<Record>),
    Process(sys::Pid),
}

impl Subjected {
    /// Of the run.
    pub(crate) fn id(&self) -> Option<InstanceId> {
        match self {
            Self::Run(run) => Some(run.id),
            Self::Process(_) => None,
        }
    }
}

pub(crate) fn subjected(store: &Store, pid: Option<sys::Pid>) -> Result<Subjected> {
    match pid {
        Some(pid) => Ok(Subjected::Process(pid)),
        None => match current_run(store)? {
            Some(run) => Ok(Subjected::Run(Box::new(run))),
            None => Ok(Subjected::Process(parent()?)),
        },
    }
}

/// What is asked for, and how.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) requests: &'a [LockRequest],
    pub(crate) stopped: Stopped,
    /// Whether a keeper is to hold the anchor of its row.
    pub(crate) keeper: bool,
    pub(crate) waits: bool,
}

/// Whose the lock will be.
pub(crate) enum Acquiring {
    Run(Box<Record>),
    Process { profile: ProfileName, target: Target, subject: Box<Subject> },
}

/// What one transaction for a process came to.
pub(crate) enum Step {
    Done(Acquired),
    /// The lock is to be had, by a row that only a keeper can make.
    NeedsKeeper,
}

impl Acquiring {
    pub(crate) fn profile(&self) -> Option<&ProfileName> {
        match self {
            Self::Run(run) => run.profile.as_ref(),
            Self::Process { profile, .. } => Some(profile),
        }
    }

    pub(crate) fn process(&self) -> Option<(sys::Pid, &sys::ProcessHandle)> {
        match self {
            // Whoever asks is below it, and ends with it.
            Self::Run(_) => None,
            Self::Process { target, .. } => Some((target.pid, target.handle())),
        }
    }

    pub(crate) fn pid(&self) -> Option<sys::Pid> {
        match self {
            Self::Run(run) => run.pid,
            Self::Process { target, .. } => Some(target.pid),
        }
    }

    pub(crate) fn step(
        &self,
        tx: &Tx<'_>,
        inner: &Inner,
        asked: Asked<'_>,
        turn: &Turn,
        aside: &Aside,
        count: Count,
    ) -> Result<Step> {
        let (claimant, ours) = match self {
            Self::Run(run) => (
                Claimant { origin: Origin::Library, subject: inner.myself() },
                std::slice::from_ref(&run.id),
            ),
            Self::Process { subject, .. } => {
                (Claimant { origin: Origin::Pid, subject }, [].as_slice())
            }
        };
        let claim = LockClaim {
            requests: asked.requests,
            claimant,
            profile: self.profile(),
            ours,
            stopped: asked.stopped,
            waiter: turn.waiter,
        };
        let acquire = |owner| {
            acquire_once(tx, inner, &claim, owner, turn.waiter, aside, count).map(Step::Done)
        };
        match self {
            Self::Run(run) => {
                let standing = instances::standing(tx, run.id)?;
                if standing.is_none_or(|row| row.ended.is_some()) {
                    return Err(Error::new(
                        crate::error::ErrorKind::NotOwner,
                        "the run we are in has lost its office",
                    )
                    .with_hint(
                        "its command is being ended; `incumbent status` says who holds it",
                    ));
                }
                hide_in(tx, run.id, asked.requests)?;
                acquire(Owner::Row(run.id))
            }
            Self::Process { profile, subject, .. } => {
                let rows =
                    instances::live_of_pid(tx, subject.pid, subject.start_time, inner.observer())?;
                let is_kept =
                    |row: &&Record| row.anchor.as_ref().is_some_and(|it| is_held(inner, it));
                if asked.keeper
                    && let Some(kept) = rows.iter().find(is_kept)
                {
                    // Their keeper was killed, this one lives.
                    for row in rows.iter().filter(|row| row.keeper_pid.is_some()) {
                        if !is_kept(&row) {
                            instances::lean_on(tx, row.id, kept.id)?;
                        }
                    }
                }
                let own = rows
                    .iter()
                    .filter(|row| row.kind().is_none() && row.profile.as_ref() == Some(profile))
                    .find(|row| if asked.keeper { is_kept(row) } else { true });
                if let Some(own) = own {
                    return acquire(Owner::Row(own.id));
                }
                let recorder = if asked.keeper { Recorder::Verb } else { Recorder::NoKeeper };
                match attachment(tx, inner, subject, recorder)? {
                    Some(attachment) => acquire(Owner::New(&attachment)),
                    // Who waits has its keeper ready, to own within milliseconds of the release.
                    None if asked.waits => Ok(Step::NeedsKeeper),
                    None => Ok(match survey(tx, inner, &claim, aside, count)? {
                        Surveyed::Clear(_) => Step::NeedsKeeper,
                        Surveyed::Held(obstacle) => Step::Done(Acquired::Held(obstacle)),
                        Surveyed::Errand(errand) => Step::Done(Acquired::Errand(errand)),
                    }),
                }
            }
        }
    }

    /// After a refusal: a row that was made for the lock, and a keeper with it, need not stay.
    pub(crate) fn tidy(&self, inner: &Inner, by: &str) -> Result<()> {
        let Self::Process { subject, .. } = self else { return Ok(()) };
        let rows = |connection: &rusqlite::Connection| {
            instances::live_of_pid(connection, subject.pid, subject.start_time, inner.observer())
        };
        if inner.read(|connection| rows(connection))?.iter().all(|row| row.kind().is_some()) {
            return Ok(());
        }
        inner.write(|tx| {
            for row in rows(tx)? {
                end_if_without_purpose(tx, &row, by)?;
            }
            Ok(())
        })
    }
}

/// Why a lock is not the subject's.
pub(crate) enum No {
    /// Somebody else has it, or has had it meanwhile.
    Others(String),
    /// Nobody who lives is on record for it.
    Nobodys(String),
}

/// A lock that a verb found to be of whom it acts for; else why not.
pub(crate) type Found = std::result::Result<(LockRow, Record), No>;

/// Looks for the lock of `subjected`, which a dead process no longer has.
pub(crate) fn find(
    connection: &rusqlite::Connection,
    inner: &Inner,
    name: &LockName,
    subjected: &Subjected,
    fence: Option<i64>,
) -> Result<Found> {
    let row = if locks::exists(connection)? { locks::by_name(connection, name)? } else { None };
    let record = match &row {
        Some(row) => instances::by_id(connection, row.instance)?,
        None => None,
    };
    let (Some(row), Some(record)) = (row, record.filter(|it| it.ended_at_ms.is_none())) else {
        return Ok(Err(No::Nobodys(format!("nobody holds {name}"))));
    };
    let holder =
        record.pid.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"));
    let why_not = match subjected {
        Subjected::Run(run) if run.id == record.id => None,
        Subjected::Run(_) => {
            Some(format!("{name} is not held by the run we are in, but by {holder}"))
        }
        Subjected::Process(_) if !record.is_pid => Some(format!(
            "{name} is held by {holder}, which acquired it itself: only its owner acts for it"
        )),
        Subjected::Process(pid) if !is_about(inner, &record, *pid)? => {
            Some(format!("{name} is not held by pid {pid}, but by {holder}"))
        }
        Subjected::Process(_) => None,
    };
    let is_runs_own = matches!(subjected, Subjected::Run(run) if run.id == record.id);
    if !is_runs_own {
        let seen = judge_record(inner, &record, Lease::None, &LiveCommandLine::not_read());
        if let Verdict::Dead(reason) = seen.verdict {
            return Ok(Err(No::Nobodys(why_not.unwrap_or_else(|| {
                let because = because_seen(reason.as_str(), seen.flags, &seen.evidence);
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
