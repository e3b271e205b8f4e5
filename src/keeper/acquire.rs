//! Acquires a lock for another process.
//!
//! The verb makes the record itself, in a row whose anchor a keeper holds. The keeper is started
//! for the row alone, before the lock is taken if the verb waits. A record whose keepers were
//! killed leans on another one with the next `lock acquire`.

use crate::claim::wait::{Attempt, Turn, WaitOptions, until_granted};
use crate::claim::{ATTEMPTS, Claimant, Count, Lookups, changes_too_fast};
use crate::keeper::caller::parent_to_record;
use crate::keeper::record::{RecordedBy, attachment, note_grant};
use crate::keeper::release::current_run;
use crate::keeper::start::{Purpose, start};
use crate::keeper::target::Target;
use crate::owner::is_held;
use crate::patience::Stopped;
use crate::process::Subject;
use crate::records::{Origin, Record, instances};
use crate::scoped::GrantedLock;
use crate::scoped::acquire::{Acquired, LockSource, acquire_once};
use crate::scoped::request;
use crate::scoped::survey::{LockClaim, Surveyed, hide_in, masked, survey};
use crate::scoped::unlock::end_if_without_purpose;
use crate::store::{Inner, Tx};
use crate::{
    Cancel, Error, ErrorKind, Holder, LockRequest, ProfileName, Result, Store, Wait, stop_budget,
    sys,
};

/// How many keepers one attempt starts at most.
const KEEPERS_MAX: usize = 3;

/// What is asked for, and how.
#[derive(Clone, Copy)]
pub(crate) struct LockWish<'a> {
    pub(crate) request: &'a LockRequest,
    pub(crate) stopped: Stopped,
    /// Whether a keeper is to hold the anchor of its row.
    pub(crate) keeper: bool,
    pub(crate) wait: Wait,
    pub(crate) cancel: &'a Cancel,
    /// Names the asker in the history.
    pub(crate) by: &'a str,
}

/// What came of it.
pub(crate) enum AcquireAnswer {
    Granted(Box<GrantedLock>),
    Held(Box<Holder>),
}

/// Acquires a lock for whom it is, waiting if asked to.
pub(crate) fn acquire(
    store: &Store,
    acquiring: &Acquiring,
    asked: LockWish<'_>,
) -> Result<AcquireAnswer> {
    let options = WaitOptions {
        wait: asked.wait,
        cancel: asked.cancel,
        for_whom: acquiring.process(),
        office: None,
        subject: acquiring.subject(&store.inner),
        profile: acquiring.profile(),
        origin: Origin::Library,
        version: None,
        stop_budget_ms: stop_budget::DEFAULT_MS,
        argv: masked(store.inner.myself(), asked.requests()),
        stopped: asked.stopped,
    };
    let granted = until_granted(store, &options, |turn| acquiring.attempt(store, asked, turn))?;
    Ok(match granted {
        Ok(granted) => AcquireAnswer::Granted(Box::new(granted)),
        Err(holder) => {
            // A refusal is one whatever becomes of this: a keeper ends such a row by itself.
            if let Err(error) = acquiring.tidy(&store.inner, asked.by) {
                tracing::debug!(%error, "a row that was made for a lock stays for a minute");
            }
            AcquireAnswer::Held(holder)
        }
    })
}

impl LockWish<'_> {
    fn requests(&self) -> &[LockRequest] {
        std::slice::from_ref(self.request)
    }
}

/// Whose the lock will be.
pub(crate) enum Acquiring {
    Run(Box<Record>),
    Process { profile: ProfileName, target: Target, subject: Box<Subject> },
}

/// What one transaction came to.
enum Step {
    Done(Acquired),
    /// The lock is to be had, by a row that only a keeper can make.
    NeedsKeeper,
}

impl Acquiring {
    /// For the run that we are in, or for a process: `named`, which was proved before the store
    /// was opened, or our parent.
    ///
    /// # Errors
    /// [`NotRunning`](ErrorKind::NotRunning) if that process has ended, and those of
    /// `parent_to_record`.
    pub(crate) fn new(store: &Store, profile: ProfileName, named: Option<Target>) -> Result<Self> {
        let target = match named {
            Some(target) => target,
            None => match current_run(store)? {
                Some(run) => return Ok(Self::Run(Box::new(run))),
                None => Target::prove(parent_to_record()?)?,
            },
        };
        let subject = Subject::process(target.pid, target.start_time, store.inner.observer());
        Ok(Self::Process { profile, target, subject: Box::new(subject) })
    }

    fn profile(&self) -> Option<&ProfileName> {
        match self {
            Self::Run(run) => run.profile.as_ref(),
            Self::Process { profile, .. } => Some(profile),
        }
    }

    /// Who claims it.
    fn subject<'a>(&'a self, inner: &'a Inner) -> &'a Subject {
        match self {
            Self::Run(_) => inner.myself(),
            Self::Process { subject, .. } => subject,
        }
    }

    fn process(&self) -> Option<(sys::Pid, &sys::ProcessHandle)> {
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

    fn attempt(
        &self,
        store: &Store,
        asked: LockWish<'_>,
        turn: &Turn,
    ) -> Result<Attempt<GrantedLock>> {
        let inner = &store.inner;
        let count = turn.count;
        let mut aside = Lookups::default();
        let mut keepers = 0;
        for _ in 0..ATTEMPTS + request::owners_max(asked.requests()) {
            let step = count.if_writable(|count| {
                inner.write(|tx| self.step(tx, inner, asked, turn, &aside, count))
            })?;
            match step {
                Step::Done(Acquired::Granted(mut granted, _)) => {
                    for lock in &granted {
                        note_grant(inner, lock.instance, lock.fence);
                    }
                    return Ok(Attempt::Granted(granted.swap_remove(0)));
                }
                Step::Done(Acquired::Held(obstacle)) => return Ok(Attempt::Held(obstacle)),
                Step::Done(Acquired::Errand(errand)) => {
                    aside.run(errand, turn.deadline, inner.trust())?;
                }
                Step::NeedsKeeper => {
                    let Self::Process { profile, target, .. } = self else {
                        return Err(Error::internal("a run needs no keeper"));
                    };
                    // The record that one made may have ended with another verb's last lock.
                    keepers += 1;
                    if keepers > KEEPERS_MAX {
                        break;
                    }
                    start(store, profile, Purpose::Locks, target)?;
                }
            }
        }
        Err(changes_too_fast(asked.request.name()))
    }

    fn step(
        &self,
        tx: &Tx<'_>,
        inner: &Inner,
        asked: LockWish<'_>,
        turn: &Turn,
        aside: &Lookups,
        count: Count,
    ) -> Result<Step> {
        let (claimant, ours) = match self {
            Self::Run(run) => (
                Claimant { origin: Origin::Library, subject: self.subject(inner) },
                std::slice::from_ref(&run.id),
            ),
            Self::Process { subject, .. } => {
                (Claimant { origin: Origin::Pid, subject }, [].as_slice())
            }
        };
        let claim = LockClaim {
            requests: asked.requests(),
            claimant,
            profile: self.profile(),
            ours,
            held: None,
            stopped: asked.stopped,
            waiter: turn.waiter,
        };
        let acquire = |owner: LockSource<'_>| {
            acquire_once(tx, inner, &claim, owner.into(), turn.waiter, aside, count).map(Step::Done)
        };
        match self {
            Self::Run(run) => {
                let standing = instances::standing(tx, run.id)?;
                if standing.is_none_or(|row| row.ended.is_some()) {
                    return Err(Error::new(
                        ErrorKind::NotOwner,
                        "the run we are in has lost its office",
                    )
                    .with_hint(
                        "its command is being ended; `incumbent status` says who holds it",
                    ));
                }
                hide_in(tx, run.id, asked.requests())?;
                acquire(LockSource::Row(run.id))
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
                    return acquire(LockSource::Row(own.id));
                }
                let recorder = if asked.keeper { RecordedBy::Verb } else { RecordedBy::NoKeeper };
                match attachment(tx, inner, subject, recorder)? {
                    Some(attachment) => acquire(LockSource::New(&attachment)),
                    // Who waits has its keeper ready, to own within milliseconds of the release.
                    None if asked.wait.waits() => Ok(Step::NeedsKeeper),
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
    fn tidy(&self, inner: &Inner, by: &str) -> Result<()> {
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
