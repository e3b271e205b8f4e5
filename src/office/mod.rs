//! The office: at most one live instance of a kind per profile.

mod claim;
mod desired;
mod evict;
mod ledger;
mod locks;
mod storm;
mod tenure;

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use claim::Claim;
pub(crate) use claim::{Candidate, Outcome, claim_once, claim_reserved, refuse_candidate};
pub use desired::Desired;
pub(crate) use desired::{desired, set_desired};
pub use evict::Eviction;
pub(crate) use ledger::{
    bind_legacy_home, check_home, check_homes_of_both, conflicts, legacy_home,
    others_of_legacy_home, profiles,
};
pub(crate) use storm::{Storm, of as storm_of};
pub use tenure::Tenure;

use crate::error::{Error, Result};
use crate::instance::{Origin, Subject};
use crate::marker;
use crate::names::{Kind, Nonce, Office, ProfileName};
use crate::runtime::check_cadence;
use crate::scoped::LockRequest;
use crate::standing::Force;
use crate::status::{self, Incarnation, Report};
use crate::stop_budget::{self, StopPhases};
use crate::store::Store;
use crate::sys::Shortage;
use crate::takeover::Replace;
use crate::wait::{Cancel, Wait};

/// A named gateway configuration in a store: what offices belong to.
#[derive(Clone, Debug)]
pub struct Profile {
    store: Store,
    name: ProfileName,
    home: Option<PathBuf>,
}

impl Store {
    /// What is true of every office that the store knows: of those that were ever claimed, those that
    /// somebody serves, and that of kind `gateway` of every other profile; in the order of their
    /// names. One snapshot, and one look at each holder.
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn status_of_all(&self) -> Result<Vec<Report>> {
        status::report_all(&self.inner, None, None)
    }

    /// The profile `name`. Nothing is written until something is claimed for it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a name outside
    /// `[A-Za-z0-9_][A-Za-z0-9._-]{0,63}`.
    pub fn profile(&self, name: &str) -> Result<Profile> {
        Ok(Profile { store: self.clone(), name: ProfileName::new(name)?, home: None })
    }
}

/// How to claim an office, for callers that need more than [`Profile::claim`].
#[derive(Clone, Debug)]
pub struct ClaimOptions {
    pub(crate) kind: Kind,
    pub(crate) version: Option<String>,
    pub(crate) stop_budget: Duration,
    pub(crate) heartbeat_every: Option<Duration>,
    /// Locks without which a `run` does not want the office.
    pub(crate) locks: Vec<LockRequest>,
    /// The proof of ownership to go on with, in place of a new one.
    pub(crate) nonce: Option<Nonce>,
    pub(crate) replace: Option<Replace>,
    /// The directory of an older program, whose gateway must not run beside this one.
    pub(crate) legacy_home: Option<PathBuf>,
    pub(crate) wait: Wait,
    pub(crate) cancel: Cancel,
    pub(crate) origin: Origin,
}

impl Default for ClaimOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ClaimOptions {
    /// Kind `gateway`, a stop budget of 90 s, no waiting.
    #[must_use]
    pub fn new() -> Self {
        Self {
            kind: Kind::default(),
            version: None,
            stop_budget: StopPhases::default().budget(),
            locks: Vec::new(),
            nonce: None,
            replace: None,
            legacy_home: None,
            heartbeat_every: None,
            wait: Wait::No,
            cancel: Cancel::new(),
            origin: Origin::Library,
        }
    }

    /// The kind of office.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The gateway's own version, shown to people.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// How long this process may take to stop, at most one hour: whoever stops or replaces it
    /// waits that long before killing it.
    #[must_use]
    pub fn stop_budget(mut self, budget: Duration) -> Self {
        self.stop_budget = budget;
        self
    }

    /// The same, as the sum of what it does when it is asked to end.
    #[must_use]
    pub fn stop_phases(self, phases: &StopPhases) -> Self {
        self.stop_budget(phases.budget())
    }

    /// Promises a sign of life every `cadence` (10 ms to 24 h), by [`Tenure::heartbeat`] or
    /// [`StatusUpdate::heartbeat`](crate::StatusUpdate::heartbeat). Whoever breaks it is shown as
    /// unresponsive, and loses nothing by it.
    #[must_use]
    pub fn heartbeat_every(mut self, cadence: Duration) -> Self {
        self.heartbeat_every = Some(cadence);
        self
    }

    /// Waits for the office while another one holds it.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Takes the office over from a live holder: it is asked to end by a marker and a signal, gets
    /// the time that it said it may take, and is killed after that. The call takes as long.
    #[must_use]
    pub fn replace(mut self, replace: Replace) -> Self {
        self.replace = Some(replace);
        self
    }

    /// Lets another thread end the wait.
    #[must_use]
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Records the claim as that of an `incumbent run`, which wants these locks or nothing.
    pub(crate) fn for_run(mut self, locks: Vec<LockRequest>) -> Self {
        self.origin = Origin::Run;
        self.locks = locks;
        self
    }

    fn heartbeat_every_ms(&self) -> Result<Option<u64>> {
        let Some(cadence) = self.heartbeat_every else { return Ok(None) };
        check_cadence(cadence)?;
        Ok(Some(u64::try_from(cadence.as_millis()).unwrap_or(u64::MAX)))
    }

    pub(crate) fn stop_budget_ms(&self) -> Result<u64> {
        stop_budget::published_ms(self.stop_budget)
    }
}

impl Profile {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ProfileName {
        &self.name
    }

    /// Says which configuration directory the claims of this handle run on. The first such claim
    /// binds the profile to it; from then on another home is refused.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the directory does not exist.
    pub fn with_home(mut self, directory: &Path) -> Result<Self> {
        self.home = Some(real_home(directory)?);
        Ok(self)
    }

    /// The office of `kind` in this profile.
    pub(crate) fn office(&self, kind: &Kind) -> Office {
        Office { profile: self.name.clone(), kind: kind.clone() }
    }

    /// Claims the office of kind `gateway` for this process; never waits.
    ///
    /// # Errors
    /// As [`Profile::claim_with`].
    pub fn claim(&self) -> Result<Claim> {
        self.claim_with(&ClaimOptions::new())
    }

    /// Claims an office for this process, atomically: whoever is dead is ended, whoever lives (or
    /// cannot be told dead) is returned as [`Claim::Held`]. A second claim by the same process
    /// shares the first.
    ///
    /// The grant is visible to others, and survives a crash of this process' store handle, when
    /// this returns; it ends with the process.
    ///
    /// # Errors
    /// [`ProfileBelongsTo`](crate::ErrorKind::ProfileBelongsTo) for another home,
    /// [`CannotWrite`](crate::ErrorKind::CannotWrite) and [`Busy`](crate::ErrorKind::Busy) when the
    /// claim could not be recorded, and then nothing is held;
    /// [`StoreReplaced`](crate::ErrorKind::StoreReplaced), [`TooNew`](crate::ErrorKind::TooNew),
    /// [`Forked`](crate::ErrorKind::Forked).
    pub fn claim_with(&self, options: &ClaimOptions) -> Result<Claim> {
        claim::claim_for_myself(
            &self.store,
            self.home.as_deref(),
            &self.office(&options.kind),
            options,
        )
    }

    /// What is true of the office of kind `gateway`; see [`Profile::status_of`].
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn status(&self) -> Result<Report> {
        self.status_of(&Kind::default())
    }

    /// What is true of an office: one function for every surface that asks. Reads only.
    ///
    /// # Errors
    /// [`CannotRead`](crate::ErrorKind::CannotRead), [`Corrupt`](crate::ErrorKind::Corrupt),
    /// [`StoreReplaced`](crate::ErrorKind::StoreReplaced).
    pub fn status_of(&self, kind: &Kind) -> Result<Report> {
        status::report(&self.store.inner, &self.office(kind))
    }

    /// The process that is known to hold the office of `kind` now, if there is one: the shortest
    /// way to "is it up?", by the same verdict as [`Profile::status_of`] and without its story.
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn running_pid(&self, kind: &Kind) -> Result<Option<u32>> {
        status::running_pid(&self.store.inner, &self.office(kind))
    }

    /// The incarnations of an office, newest first. Reads only.
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn history(&self, kind: &Kind, count_max: usize) -> Result<Vec<Incarnation>> {
        status::history(&self.store.inner, &self.office(kind), count_max)
    }

    /// Ends the record of an office whose holder is dead; one that lives or cannot be told dead
    /// only when `force` says so. `by` names who asked, for the history. Nothing is signalled: an
    /// evicted live owner learns it from its next [`Tenure::verify`].
    ///
    /// # Errors
    /// As [`Profile::claim_with`].
    pub fn evict(&self, kind: &Kind, force: Force, by: &str) -> Result<Eviction> {
        let inner = &self.store.inner;
        evict::evict(inner, &self.office(kind), force, &marker::presentable(inner, by))
    }

    /// The storm that this process' party is in at an office, if any.
    pub(crate) fn storm(&self, kind: &Kind, subject: &Subject) -> Result<Option<Storm>> {
        let inner = &self.store.inner;
        let Some(party) = &subject.party else { return Ok(None) };
        let boot_id = inner.observer().boot_id.as_deref();
        let now = inner.clock().boot_ms();
        inner.read(|connection| storm::of(connection, &self.office(kind), party, boot_id, now))
    }

    /// The store it belongs to.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its home, as given to this handle.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }
}

/// The canonical directory that a profile is bound to.
pub(crate) fn real_home(directory: &Path) -> Result<PathBuf> {
    let home = std::fs::canonicalize(directory).map_err(|error| {
        if Shortage::of(&error).is_some() || error.kind() == Io::PermissionDenied {
            return Error::io("look at", directory, error);
        }
        Error::invalid(format!("no home directory {}: {error}", directory.display()))
            .at(directory)
            .with_hint("name an existing directory")
    })?;
    let facts = std::fs::metadata(&home).map_err(|error| Error::io("look at", &home, error))?;
    if facts.is_dir() {
        return Ok(home);
    }
    Err(Error::invalid(format!("{} is not a directory", home.display()))
        .at(&home)
        .with_hint("name the configuration directory"))
}
