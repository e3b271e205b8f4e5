//! The tenure that this process was given: by its predecessor, or by the `run` that it is in.

use crate::office::handover::{Inherited, NotInherited, adopt, in_run};
use crate::office::options::ClaimOptions;
use crate::office::tenure::{Shares, Tenure};
use crate::owner::{OurRun, judgement};
use crate::process::handover::Given;
use crate::records::Record;
use crate::store::held::HeldOffice;
use crate::store::{AnchoredBy, Inner, OwnRow};
use crate::{Result, Store, sys};

impl Tenure {
    /// The tenure that this process was given, if it was given one: by the process before it
    /// ([`Tenure::exec`], [`Tenure::hand_over`]), whose place it takes with this call; or by the
    /// `incumbent run` that it is in, for which it acts then. Call it at the start, and claim where
    /// it gives nothing: a process that is in a `run` is refused the office that its own `run` has.
    ///
    /// What comes from a predecessor is a new incarnation, with a new fence. The locks of the old
    /// one belong to it, with new fences: acquire them again for their guards, which say
    /// [`reacquired`](crate::ScopedLock::reacquired). Markers that were no request follow. Its
    /// status is fresh. Others see all of that at once, when this returns.
    ///
    /// What comes from a `run` is the same incarnation: status, markers and locks are the run's,
    /// but for locks that are exclusive or have slots ([`Tenure::acquire_all`]), and
    /// [`Tenure::verify`] asks for its row. Dropping or releasing it ends nothing, because the run
    /// does when this process has ended. That holds as well for a process that the command of a
    /// `run` has handed over to: it is the command then. Where the store is lost, the run goes on
    /// in the next one: open that, and call this again.
    ///
    /// ```
    /// use incumbent::handover::{Inherited, NotInherited};
    /// use incumbent::{Claim, Store, Tenure};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// let store = Store::open(&path)?;
    /// let tenure = match Tenure::from_environment(&store)? {
    ///     Inherited::FromPredecessor(tenure) | Inherited::FromRun(tenure) => tenure,
    ///     Inherited::Nothing(why) => {
    ///         assert_eq!(why, NotInherited::NotGiven);
    ///         match store.profile("work")?.claim()? {
    ///             Claim::Granted(tenure) => tenure,
    ///             Claim::Held(holder) => panic!("{holder}"),
    ///         }
    ///     }
    ///     _ => unreachable!("a later version"),
    /// };
    /// assert_eq!(tenure.office().profile.as_str(), "work");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when a variable is not what a `run` or a
    /// predecessor sets; [`TooOld`](crate::ErrorKind::TooOld) for a store that was opened for
    /// asking only; and those of [`Profile::set_desired`](crate::Profile::set_desired). What a
    /// predecessor had left is given back then, and it goes on.
    pub fn from_environment(store: &Store) -> Result<Inherited> {
        from_environment(store, None)
    }

    /// The same, where the successor has a version, a stop budget and a heartbeat of its own: those
    /// three of `options` count, and nothing else. Without this they are the predecessor's. Those
    /// of a `run` stay as they are.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::{ClaimOptions, Tenure};
    /// use std::time::Duration;
    ///
    /// let options = ClaimOptions::new().version("2.0.0").stop_budget(Duration::from_secs(30));
    /// let inherited = Tenure::from_environment_with(&store, &options)?;
    /// // Nobody handed anything over: claim, with the same options.
    /// assert!(inherited.tenure().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tenure::from_environment`]: [`InvalidInput`](crate::ErrorKind::InvalidInput) also for a
    /// stop budget or a heartbeat out of its range, and then nothing was looked at.
    pub fn from_environment_with(store: &Store, options: &ClaimOptions) -> Result<Inherited> {
        options.stop_budget_ms()?;
        options.heartbeat_every_ms()?;
        from_environment(store, Some(options))
    }
}

fn from_environment(store: &Store, options: Option<&ClaimOptions>) -> Result<Inherited> {
    store.inner.check_process()?;
    let (given, run) = (Given::of_environment()?, OurRun::of_environment()?);
    let is_of_run = |given: &Given| run.as_ref().is_some_and(|run| run.instance == given.instance);
    let (in_run, given) = match given {
        Some(given) if is_of_run(&given) => (Some(given), None),
        given => (None, given),
    };
    // Whoever hands over an office of its own inside of a `run` is nearer to us than that.
    let adopted = match given {
        Some(given) => adopt::adopt(store, &given, options)?,
        None => None,
    };
    match (adopted, run) {
        (Some(Inherited::Nothing(_)) | None, Some(run)) => of_run(store, run, in_run.as_ref()),
        (Some(adopted), _) => Ok(adopted),
        (None, None) => Ok(Inherited::Nothing(NotInherited::NotGiven)),
    }
}

/// `given` is what the command before us handed over, or that it may.
fn of_run(store: &Store, run: OurRun, given: Option<&Given>) -> Result<Inherited> {
    let inner = &store.inner;
    let Some(record) = run.record(inner)? else {
        return Ok(Inherited::Nothing(NotInherited::OtherStore));
    };
    if !started_us(inner, &record) {
        return Ok(Inherited::Nothing(NotInherited::OtherRun));
    }
    let Some(office) = record.office().filter(|_| record.is_live()) else {
        return Ok(Inherited::Nothing(NotInherited::Lost));
    };
    if inner.is_followed(record.child_pid) {
        return Ok(Inherited::Nothing(NotInherited::Lost));
    }
    // Before anything is taken that nobody can give back.
    let mut held = inner.lock_held()?;
    if let Some(given) = given
        && let Some(Err(why)) = in_run::take_place(inner, &record, given)?
    {
        return Ok(Inherited::Nothing(why));
    }
    let row = OwnRow { instance: record.id, nonce: run.nonce, anchored_by: AnchoredBy::TheRun };
    let shares = match held.offices.get_mut(&office) {
        Some(ours) if ours.row.instance == row.instance => {
            ours.claims += 1;
            Shares::Yes
        }
        // Nobody but the run holds it: what was ours was lost.
        Some(_) | None => {
            held.offices
                .insert(office.clone(), HeldOffice { row: row.clone(), claims: 1, beside: None });
            Shares::No
        }
    };
    Ok(Inherited::FromRun(Tenure::new(store, &office, &row, None, Vec::new(), shares)))
}

/// Whether we descend from that `run`, or from its command. Where parents cannot be seen the token
/// alone says so.
fn started_us(inner: &Inner, record: &Record) -> bool {
    if !judgement(inner, record).evidence.is_here() {
        return true;
    }
    let pids: Vec<sys::Pid> = [record.pid, record.child_pid].into_iter().flatten().collect();
    sys::descends_from(&pids).unwrap_or(true)
}
