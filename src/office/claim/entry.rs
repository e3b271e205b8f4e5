//! Where a claim begins.

use std::path::Path;

use crate::claim::wait::{WaitOptions, until_granted};
use crate::claim::{ATTEMPTS, changes_too_fast};
use crate::office::claim::candidate::Candidate;
use crate::office::claim::{Claim, Won, insert};
use crate::office::options::ClaimOptions;
use crate::office::profile::Profile;
use crate::office::takeover::carry_out;
use crate::patience::Stopped;
use crate::process::older::hold;
use crate::records::Origin;
use crate::scoped::request::AcquireOptions;
use crate::scoped::survey;
use crate::{Acquire, Error, Office, Result, Store};

/// Claims `office` for this process.
fn claim_for_myself(
    store: &Store,
    home: Option<&Path>,
    office: &Office,
    options: &ClaimOptions,
    origin: Origin,
) -> Result<Claim> {
    let inner = &store.inner;
    inner.check_process()?;
    options.check()?;
    let candidate = Candidate {
        office,
        home,
        legacy_home: options.legacy_home.as_deref(),
        origin,
        subject: inner.myself(),
        version: options.version.as_deref(),
        stop_budget_ms: options.stop_budget_ms()?,
        heartbeat_every_ms: options.heartbeat_every_ms()?,
        locks: &options.locks,
        ours: &[],
        nonce: options.nonce.as_ref(),
        waiter: None,
        replace: options.replace.as_ref(),
        succession: None,
    };
    let wait_options = WaitOptions {
        wait: options.wait,
        cancel: &options.cancel,
        for_whom: None,
        office: Some(office),
        subject: candidate.subject,
        profile: Some(&office.profile),
        origin: candidate.origin,
        version: candidate.version,
        stop_budget_ms: candidate.stop_budget_ms,
        argv: survey::masked(candidate.subject, candidate.locks),
        stopped: Stopped::Respect,
    };
    let answer = until_granted(store, &wait_options, |turn| {
        crate::office::claim::attempt(store, &candidate, turn)
    })?;
    Ok(match (answer, candidate.replace) {
        (Ok(Won::Tenure(tenure)), _) => Claim::Granted(tenure),
        (Ok(Won::Plan(plan)), Some(replace)) => {
            carry_out::carry_out(store, &candidate, replace, *plan, &options.cancel)?
        }
        (Ok(Won::Plan(_)), None) => {
            return Err(Error::internal("a takeover was planned that nobody asked for"));
        }
        (Err(mut holder), _) => {
            if options.wait.waits() {
                insert::refused_after_wait(inner, &candidate, &mut holder);
            }
            Claim::Held(holder)
        }
    })
}

impl Profile {
    /// Claims the office of kind `gateway` for this process; never waits for its holder.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::{Claim, Store};
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// match store.profile("work")?.claim()? {
    ///     Claim::Granted(tenure) => assert_eq!(tenure.office().to_string(), "work/gateway"),
    ///     Claim::Held(holder) => panic!("{holder}; {}", holder.advice()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::claim_with`].
    pub fn claim(&self) -> Result<Claim> {
        self.claim_with(&ClaimOptions::new())
    }

    /// Claims an office for this process, atomically: whoever is dead is ended, whoever lives (or
    /// cannot be told dead) is returned as [`Claim::Held`]. A second claim by the same process
    /// shares the first, but not that of a [`Run`](crate::run::Run).
    ///
    /// The grant, with all its locks, is one transaction: visible to others when this returns, and
    /// over when the tenure is dropped or the process ends, however it ends. A refusal changes
    /// nobody, and is an answer also where the store cannot be written.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::{Claim, ClaimOptions, Kind, LockRequest, Store, Wait};
    /// use std::time::Duration;
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let options = ClaimOptions::new()
    ///     .kind(Kind::new("scheduler")?)
    ///     .lock(LockRequest::new("telegram-bot-token", "123456:secret")?)
    ///     .stop_budget(Duration::from_secs(30))
    ///     .wait(Wait::UpTo(Duration::from_secs(10)));
    /// let Claim::Granted(tenure) = store.profile("work")?.claim_with(&options)? else {
    ///     panic!("nobody else runs here");
    /// };
    /// assert_eq!(tenure.locks().len(), 1);
    /// let report = store.profile("work")?.status_of(&Kind::new("scheduler")?)?;
    /// assert_eq!(report.instance, Some(tenure.instance()));
    /// assert_eq!(report.stop_budget, Some(Duration::from_secs(30)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Nothing is held then.
    /// * [`InvalidInput`](crate::ErrorKind::InvalidInput): options that
    ///   [`ClaimOptions::check`] refuses, or another directory of an older program than that which
    ///   the profile stands for.
    /// * [`ProfileBelongsTo`](crate::ErrorKind::ProfileBelongsTo): the profile is bound to another
    ///   home.
    /// * [`CannotWrite`](crate::ErrorKind::CannotWrite): the claim could not be recorded.
    /// * [`Permission`](crate::ErrorKind::Permission): this user may not write to the store, or may
    ///   not look at the lock of an older program.
    /// * [`NotOurs`](crate::ErrorKind::NotOurs): what lies in the place of that lock is not a lock.
    /// * [`Filesystem`](crate::ErrorKind::Filesystem): file locks do not work beside the store.
    /// * [`TooNew`](crate::ErrorKind::TooNew); [`TooOld`](crate::ErrorKind::TooOld) for a store
    ///   that was opened for asking only.
    /// * [`Busy`](crate::ErrorKind::Busy): the store stayed locked, the office changes hands too
    ///   fast, or this process is short of descriptors or memory.
    /// * [`CannotRead`](crate::ErrorKind::CannotRead), [`Corrupt`](crate::ErrorKind::Corrupt),
    ///   [`StoreReplaced`](crate::ErrorKind::StoreReplaced), [`Forked`](crate::ErrorKind::Forked).
    /// * [`Internal`](crate::ErrorKind::Internal): what else the system says.
    pub fn claim_with(&self, options: &ClaimOptions) -> Result<Claim> {
        let Some(legacy_home) = &options.legacy_home else {
            return self.claim_as(Origin::Library, options);
        };
        if options.replace.is_some() {
            // A gateway that works is not ended for one that cannot have its lock.
            hold::check_usable(legacy_home)?;
        }
        for _ in 0..ATTEMPTS {
            let mut tenure = match self.claim_as(Origin::Library, options)? {
                Claim::Granted(tenure) => tenure,
                held @ Claim::Held(_) => return Ok(held),
            };
            if tenure.hold_beside(legacy_home, &options.locks)? {
                return Ok(Claim::Granted(tenure));
            }
            // Whoever has taken that lock since is met by the next claim, which refuses us.
        }
        Err(changes_too_fast(&self.office(&options.kind)))
    }

    /// The claim of a `run`, which holds the lock of an older program itself.
    pub(crate) fn claim_for_run(&self, options: &ClaimOptions) -> Result<Claim> {
        self.claim_as(Origin::Run, options)
    }

    fn claim_as(&self, origin: Origin, options: &ClaimOptions) -> Result<Claim> {
        let office = self.office(&options.kind);
        let claim = claim_for_myself(&self.store, self.home.as_deref(), &office, options, origin)?;
        let tenure = match claim {
            Claim::Granted(tenure) if tenure.reacquired() && !options.locks.is_empty() => tenure,
            claim => return Ok(claim),
        };
        // The office was ours before: the locks are taken from it now, or it is not wanted.
        let acquire = AcquireOptions::new().wait(options.wait).cancel(options.cancel.clone());
        let acquired = match &options.replace {
            // Whoever may not be asked to end is waited for.
            Some(replace) => match tenure.take_over(&options.locks, &acquire, replace)? {
                Acquire::Held(_) if options.wait.waits() => {
                    tenure.acquire_all(&options.locks, &acquire)?
                }
                acquired => acquired,
            },
            None => tenure.acquire_all(&options.locks, &acquire)?,
        };
        Ok(match acquired {
            Acquire::Granted(guards) => Claim::Granted(tenure.with_guards(guards)),
            Acquire::Held(holder) => Claim::Held(holder),
        })
    }
}
