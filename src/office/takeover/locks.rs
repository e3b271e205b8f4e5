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
use crate::office::takeover::carry_out::{bring_to_an_end, until_taken};
use crate::office::takeover::reserve::{Inquiry, Survey, children_to_list, write_down};
use crate::office::takeover::{Plan, Reserved, TakeoverTarget};
use crate::office::tenure::Tenure;
use crate::records::Origin;
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
    /// [`AcquireOptions::stopped`] counts; nothing else is waited for, but for a store that stays
    /// busy once the holder has ended.
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
        let tenancy = self.tenancy();
        let try_once = |tenancy: &Tenancy<'_>, waiter, count| {
            let turn = Turn { waiter, deadline: Deadline::never(), count };
            attempt(&store, Some(tenancy), requests, options.stopped, &turn)
        };
        let acquire = |count| {
            options
                .cancel
                .patiently(Duration::MAX, inner.busy_budget(), || try_once(&tenancy, None, count))
        };
        // Not a refusal yet.
        if let Attempt::Granted(locks) | Attempt::Shared(locks) = acquire(Count::No)? {
            return Ok(Acquire::Granted(locks));
        }
        let plan = match self.plan(requests, replace, &options.cancel)? {
            Ok(Some(plan)) => plan,
            Ok(None) => return acquire(Count::Yes).map(Into::into),
            Err(holder) => return Ok(Acquire::Held(holder)),
        };
        let reserved = plan.reserved_until();
        let Plan { mut row, targets } = plan;
        if let Err(holder) = bring_to_an_end(inner, &targets, replace, &options.cancel)? {
            return Ok(Acquire::Held(holder));
        }
        let replaced: Vec<InstanceId> = targets.iter().map(|target| target.record.id).collect();
        let tenancy = Tenancy { replaced: &replaced, ..tenancy };
        let acquired = until_taken(inner, reserved, &options.cancel, || {
            try_once(&tenancy, Some(row.instance), Count::No)
        })?;
        row.has_ended = matches!(acquired, Attempt::Granted(_) | Attempt::Shared(_));
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
        for _ in 0..ATTEMPTS + request::owners_max(requests) {
            let step = cancel.patiently(Duration::MAX, inner.busy_budget(), || {
                let held = inner.lock_held()?;
                let ours: Vec<InstanceId> = held.rows().map(|row| row.instance).collect();
                let left = held.left_locks();
                drop(held);
                let candidate = Candidate {
                    origin: Origin::Library,
                    locks: requests,
                    ours: &ours,
                    replace: Some(replace),
                    ..Candidate::by_pid(self.office(), None, inner.myself())
                };
                inner.write(|tx| {
                    let (candidate, aside, left) = (&candidate, &aside, &left);
                    look(tx, &Survey { tx, inner, candidate, replace, aside, left })
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
