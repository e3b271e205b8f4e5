//! Takes locks over from their holders, for an office that is held already.
//!
//! As a takeover of an office: a waiting row, the reservations and the markers are written in one
//! transaction; then the holders are asked to end, and killed after their time.

use std::time::Duration;

use crate::claim::wait::{Attempt, Turn};
use crate::claim::{ATTEMPTS, Count, Errand, Lookups, changes_too_fast};
use crate::clock::Deadline;
use crate::office::claim::candidate::Candidate;
use crate::office::options::Replace;
use crate::office::takeover::carry_out::bring_to_an_end;
use crate::office::takeover::reserve::{Inquiry, Survey, children_to_list, write_down};
use crate::office::takeover::{Plan, Reserved, TakeoverTarget};
use crate::office::tenure::Tenure;
use crate::records::{Origin, instances, reservations};
use crate::scoped::attempt::{Tenancy, attempt};
use crate::scoped::request;
use crate::scoped::request::AcquireOptions;
use crate::store::Tx;
use crate::{Acquire, Cancel, Holder, InstanceId, LockRequest, Result, ScopedLock, Store, Wanted};

/// What one look at the holders came to.
enum Step {
    Reserved(Reserved),
    /// Nobody stands in the way any more.
    Free,
    Refused(Box<Holder>),
    Errand(Errand),
}

impl Tenure {
    /// Acquires all of these locks, or none, also from live holders of this profile: each is asked
    /// to end by a marker and a signal, gets the time that it said it may take, and is killed after
    /// that. The call takes as long. Holders of other profiles are never ended, nor is one of
    /// several that share the [slots](LockRequest::slots) of a lock: the answer is
    /// [`Acquire::Held`] then, and when a holder cannot be signalled.
    ///
    /// Of `options`, [`AcquireOptions::cancel`] ends the wait for a holder, and
    /// [`AcquireOptions::stopped`] counts; nothing else is waited for.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::lock::AcquireOptions;
    /// use incumbent::stop::Replace;
    /// use incumbent::{Acquire, Claim, LockRequest};
    ///
    /// let token = LockRequest::new("telegram-bot-token", "123456:secret")?;
    /// let options = AcquireOptions::new();
    /// # // Another process of the profile, which holds it: a record without a keeper.
    /// # let mut other = std::process::Command::new("sleep").arg("600").spawn()?;
    /// # let pid = other.id();
    /// # let of_other = store.kept(incumbent::keeper::Whom::Process(pid));
    /// # let of_other = of_other.anchoring(incumbent::keeper::Anchoring::None);
    /// # of_other.acquire(store.profile("work")?.name(), &token, &options)?;
    /// # let reaper = std::thread::spawn(move || other.wait());
    /// let Claim::Granted(tenure) = store.profile("work")?.claim()? else { unreachable!() };
    /// assert!(matches!(tenure.try_acquire(&token)?, Acquire::Held(by) if by.pid == Some(pid)));
    /// let Acquire::Granted(locks) = tenure.take_over(&[token], &options, &Replace::new())? else {
    ///     panic!("its holder heeds SIGTERM");
    /// };
    /// assert_eq!(locks[0].instance(), tenure.instance());
    /// # reaper.join().unwrap()?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tenure::acquire_all`].
    pub fn take_over(
        &self,
        requests: &[LockRequest],
        options: &AcquireOptions,
        replace: &Replace,
    ) -> Result<Acquire<Vec<ScopedLock>>> {
        request::check(requests)?;
        let inner = &self.footing.inner;
        inner.check_process()?;
        let store = Store { inner: std::sync::Arc::clone(inner) };
        let tenancy = Tenancy { instance: self.instance(), office: self.office() };
        let acquire = |waiter, count| {
            let turn = Turn { waiter, deadline: Deadline::never() };
            options.cancel.patiently(Duration::MAX, inner.busy_budget(), || {
                attempt(&store, Some(&tenancy), requests, options.stopped, &turn, count)
            })
        };
        // Not a refusal yet.
        if let Attempt::Granted(locks) | Attempt::Shared(locks) = acquire(None, Count::No)? {
            return Ok(Acquire::Granted(locks));
        }
        let Plan { mut row, targets } = match self.plan(requests, replace, &options.cancel)? {
            Ok(Some(plan)) => plan,
            Ok(None) => return acquire(None, Count::Yes).map(Into::into),
            Err(holder) => return Ok(Acquire::Held(holder)),
        };
        if let Err(holder) = bring_to_an_end(inner, &targets, replace, &options.cancel)? {
            return Ok(Acquire::Held(holder));
        }
        let acquired = acquire(Some(row.instance), Count::No)?;
        if let Attempt::Granted(_) | Attempt::Shared(_) = &acquired {
            row.has_ended = true;
            self.supersede(&targets)?;
        }
        Ok(acquired.into())
    }

    /// Writes the takeover down; `None` when nobody stands in the way any more, `Err` when somebody
    /// does who may not be asked.
    fn plan(
        &self,
        requests: &[LockRequest],
        replace: &Replace,
        cancel: &Cancel,
    ) -> Result<std::result::Result<Option<Plan>, Box<Holder>>> {
        let inner = &self.footing.inner;
        let mut aside = Lookups::default();
        for _ in 0..ATTEMPTS + requests.len() {
            let ours: Vec<InstanceId> = inner.lock_held()?.rows().map(|row| row.instance).collect();
            let candidate = Candidate {
                origin: Origin::Library,
                locks: requests,
                ours: &ours,
                replace: Some(replace),
                ..Candidate::by_pid(self.office(), None, inner.myself())
            };
            let step = cancel.patiently(Duration::MAX, inner.busy_budget(), || {
                inner.write(|tx| {
                    let survey =
                        Survey { tx, inner, candidate: &candidate, replace, aside: &aside };
                    look(tx, &survey)
                })
            })?;
            match step {
                Step::Reserved(reserved) => return Ok(Ok(Some(reserved.plan(inner)))),
                Step::Free => return Ok(Ok(None)),
                Step::Refused(holder) => return Ok(Err(holder)),
                Step::Errand(errand) => aside.run(errand, Deadline::never(), inner.trust())?,
            }
        }
        Err(changes_too_fast(requests[0].name()))
    }

    /// Whoever started the holders does not replace us in turn, unless a person says so.
    fn supersede(&self, targets: &[TakeoverTarget]) -> Result<()> {
        let (inner, instance) = (&self.footing.inner, self.instance());
        let party = inner.myself().party.as_deref();
        inner.write(|tx| {
            if instances::standing(tx, instance)?.is_none_or(|row| row.ended.is_some()) {
                return Ok(());
            }
            for target in targets {
                reservations::supersede(tx, instance, party, target.record.id)?;
            }
            Ok(())
        })
    }
}

/// Looks at the holders of all locks, and writes down who is to be asked.
fn look(tx: &Tx<'_>, survey: &Survey<'_>) -> Result<Step> {
    let mut targets: Vec<TakeoverTarget> = Vec::new();
    for request in survey.candidate.locks {
        match survey.holder_of_lock(request, &targets)? {
            Inquiry::Nobody => {}
            Inquiry::Target(target) => targets.push(*target),
            Inquiry::Refused(obstacle) => return Ok(Step::Refused(obstacle.holder)),
            Inquiry::Errand(errand) => return Ok(Step::Errand(errand)),
        }
    }
    if targets.is_empty() {
        return Ok(Step::Free);
    }
    if let Some(errand) = children_to_list(&mut targets, survey.aside) {
        return Ok(Step::Errand(errand));
    }
    let wanted = Wanted::Lock(survey.candidate.locks[0].name().clone());
    write_down(tx, survey.inner, survey.candidate, &wanted, targets).map(Step::Reserved)
}

impl<T> From<Attempt<T>> for Acquire<T> {
    fn from(attempt: Attempt<T>) -> Self {
        match attempt {
            Attempt::Granted(granted) | Attempt::Shared(granted) => Self::Granted(granted),
            Attempt::Held(obstacle) => Self::Held(obstacle.holder),
        }
    }
}
