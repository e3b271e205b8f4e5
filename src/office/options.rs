//! How an office is claimed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::claim::older_home;
use crate::records::runtime::check_cadence;
use crate::scoped::request;
use crate::stop_budget::StopPhases;
use crate::{Cancel, InstanceId, Kind, LockRequest, Nonce, Result, Wait, stop_budget};

/// How to claim an office, for callers that need more than
/// [`Profile::claim`](crate::Profile::claim). What is out of its range is said by
/// [`ClaimOptions::check`], and by the claim.
///
/// ```
/// use incumbent::{ClaimOptions, ErrorKind};
/// use std::time::Duration;
///
/// let options = ClaimOptions::new().version("1.4.0").heartbeat_every(Duration::from_secs(5));
/// options.check()?;
/// let never = options.stop_budget(Duration::from_secs(86_400));
/// assert_eq!(never.check().unwrap_err().kind(), ErrorKind::InvalidInput);
/// # Ok::<(), incumbent::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClaimOptions {
    pub(crate) kind: Kind,
    pub(crate) version: Option<String>,
    pub(crate) stop_budget: Duration,
    pub(crate) heartbeat_every: Option<Duration>,
    /// Locks without which the office is not wanted.
    pub(crate) locks: Vec<LockRequest>,
    /// The proof of ownership to go on with, in place of a new one.
    pub(crate) nonce: Option<Nonce>,
    pub(crate) replace: Option<Replace>,
    /// The directory of an older program, whose gateway must not run beside this one.
    pub(crate) legacy_home: Option<PathBuf>,
    pub(crate) wait: Wait,
    pub(crate) cancel: Cancel,
}

impl Default for ClaimOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ClaimOptions {
    /// Kind `gateway`, a stop budget of 90 s, no heartbeat, no locks, no waiting, nobody replaced.
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

    /// How long this process may take to stop, at most one hour, counted in milliseconds: others
    /// who stop or replace it wait that long before they kill it. Zero: it is killed right after it
    /// was asked.
    #[must_use]
    pub fn stop_budget(mut self, budget: Duration) -> Self {
        self.stop_budget = budget;
        self
    }

    /// The same, as the sum of what it does when it is asked to end: [`StopPhases::budget`].
    #[must_use]
    pub fn stop_phases(self, phases: &StopPhases) -> Self {
        self.stop_budget(phases.budget())
    }

    /// Promises a sign of life every `cadence` (10 ms to 24 h), by
    /// [`Tenure::heartbeat`](crate::Tenure::heartbeat) or
    /// [`StatusUpdate::heartbeat`](crate::StatusUpdate::heartbeat). The claim is the first one.
    /// A gateway that misses two in a row is shown as unresponsive, and loses nothing.
    #[must_use]
    pub fn heartbeat_every(mut self, cadence: Duration) -> Self {
        self.heartbeat_every = Some(cadence);
        self
    }

    /// Waits for the office, and the locks, while another one holds them. This process is shown as
    /// a waiter meanwhile.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Takes the office over from a live holder: it is asked to end by a marker and a signal, gets
    /// the time that it said it may take, and is killed after that. The call takes as long; and
    /// longer in a store that stays busy then, because nobody holds the office while it is reserved
    /// for this claim. One that cannot be signalled from here gets the marker and the time, and is
    /// never evicted: the answer is [`Held`](crate::Claim::Held) then. Locks are taken over by
    /// [`Tenure::take_over`](crate::Tenure::take_over).
    #[must_use]
    pub fn replace(mut self, replace: Replace) -> Self {
        self.replace = Some(replace);
        self
    }

    /// Ends the wait, from another thread or by a question.
    #[must_use]
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Claims this lock together with the office, in one transaction: both or nothing. It ends with
    /// the tenure, and its loss is the tenure's; see [`Tenure::locks`](crate::Tenure::locks).
    #[must_use]
    pub fn lock(mut self, request: LockRequest) -> Self {
        self.locks.push(request);
        self
    }

    /// The same for several locks; at most 64 in all, each named once.
    #[must_use]
    pub fn locks(mut self, requests: impl IntoIterator<Item = LockRequest>) -> Self {
        self.locks.extend(requests);
        self
    }

    /// Not beside the gateway of an older program that has its files in `directory`: whoever holds
    /// its `gateway.lock` holds this office, and with the office that lock is held as well, with
    /// the record of this process beside it. What the older program removes of that is put back
    /// within 100 ms. Later claims of the profile look at the same directory. For offices of kind
    /// `gateway`.
    ///
    /// Later versions of the older program remove the files of a process whose command line they do
    /// not know: [`run::words_known_to_older`](crate::run::words_known_to_older) are words that
    /// they do.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is not a directory,
    /// [`Permission`](crate::ErrorKind::Permission) for another user's, and for one that may not be
    /// looked at; [`Busy`](crate::ErrorKind::Busy) when this process is short of descriptors or
    /// memory.
    pub fn legacy_home(mut self, directory: impl AsRef<Path>) -> Result<Self> {
        self.legacy_home = Some(older_home::home(directory.as_ref(), &Kind::default())?);
        Ok(self)
    }

    /// Says what cannot be meant, before a store is opened for it; a claim says the same.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a time out of its range, more than 64
    /// locks or one named twice, and a [`legacy_home`](Self::legacy_home) for an office that is not
    /// of kind `gateway`.
    pub fn check(&self) -> Result<()> {
        self.stop_budget_ms()?;
        self.heartbeat_every_ms()?;
        if let Some(home) = &self.legacy_home {
            older_home::check_kind(&self.kind).map_err(|error| error.at(home))?;
        }
        if self.locks.is_empty() { Ok(()) } else { request::check(&self.locks) }
    }

    pub(super) fn heartbeat_every_ms(&self) -> Result<Option<u64>> {
        let Some(cadence) = self.heartbeat_every else { return Ok(None) };
        check_cadence(cadence)?;
        Ok(Some(u64::try_from(cadence.as_millis()).unwrap_or(u64::MAX)))
    }

    pub(crate) fn stop_budget_ms(&self) -> Result<u64> {
        stop_budget::published_ms(self.stop_budget)
    }
}

/// How to take over an office that a live process holds, see [`ClaimOptions::replace`].
///
/// ```
/// # #[cfg(unix)] {
/// # let directory = tempfile::tempdir()?;
/// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
/// # let work = store.profile("work")?;
/// # // Another process, which holds the office: a keeper's record without a keeper.
/// # let mut other = std::process::Command::new("sleep").arg("600").spawn()?;
/// # let pid = other.id();
/// # use incumbent::keeper::{Anchoring, Whom};
/// # store
/// #     .kept(Whom::Process(pid))
/// #     .anchoring(Anchoring::None)
/// #     .claim(&work, &incumbent::Kind::default())?;
/// # let reaper = std::thread::spawn(move || other.wait());
/// use incumbent::stop::Replace;
/// use incumbent::{Claim, ClaimOptions};
///
/// assert!(matches!(work.claim()?, Claim::Held(holder) if holder.pid == Some(pid)));
/// let options = ClaimOptions::new().replace(Replace::new());
/// let Claim::Granted(tenure) = work.claim_with(&options)? else { panic!("it heeds SIGTERM") };
/// let replaced = tenure.replaced().expect("somebody was there");
/// assert!(replaced.pid == Some(pid) && !replaced.killed);
/// # reaper.join().unwrap()?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`ClaimOptions::replace`]: crate::ClaimOptions::replace
#[derive(Clone, Debug, Default)]
pub struct Replace {
    pub(crate) force: bool,
    pub(crate) reap: bool,
    pub(crate) across_homes: bool,
    pub(crate) by: Option<String>,
}

impl Replace {
    /// The holder is asked to end, given the time that it said it may take, and killed after that.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Who wants it, for the history: it is shown beside this process. A command line may say
    /// [`invoked_by`](crate::process::invoked_by).
    #[must_use]
    pub fn by(mut self, by: impl Into<String>) -> Self {
        self.by = Some(by.into());
        self
    }

    /// Also when our party (what keeps starting this process: its unit, its container, its
    /// terminal) was superseded: a person decides. Without it, whoever was replaced by another
    /// party does not replace that one in turn.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }

    /// Also ends the processes that the holder had started and that outlive it; but not those that
    /// hold an office of this store themselves, nor what they have started.
    #[must_use]
    pub fn reap(mut self) -> Self {
        self.reap = true;
        self
    }

    /// Also when the profile is bound to another home, which it leaves for ours, and from a profile
    /// of another home that stands for the same directory of an older gateway.
    #[must_use]
    pub fn across_homes(mut self) -> Self {
        self.across_homes = true;
        self
    }
}

/// What a successor is to do beside claiming.
#[derive(Clone, Debug)]
pub(crate) struct Succession {
    /// The owners that were asked to end.
    pub(crate) replaced: Vec<InstanceId>,
}
