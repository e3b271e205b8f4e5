//! A profile: what is asked and set for it.

use std::collections::BTreeMap;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::claim::sweep::Force;
use crate::office::evict;
use crate::office::evict::Eviction;
use crate::owner::running::Running;
use crate::records::profiles::Desired;
use crate::records::runtime::said::RuntimeStatus;
use crate::records::{counters, identities, profiles, runtime};
use crate::status::history::Incarnation;
use crate::status::{Awaited, Counters, ReadyOptions, answer, history, ready};
use crate::store::memo::Memo;
use crate::sys::Shortage;
use crate::{Error, Kind, Office, ProfileName, Report, Result, Store};

impl Profile {
    /// What an operator wants of this profile; `None` if nobody has said so. Reads only. It is a
    /// wish: whether a gateway runs is another question.
    ///
    /// # Errors
    /// As [`Profile::status`].
    pub fn desired(&self) -> Result<Option<Desired>> {
        self.store.inner.read(|connection| profiles::desired(connection, &self.name))
    }

    /// Records what an operator wants of this profile. Starts and stops nobody: a `run` that was
    /// told to ([`Run::respect_desired`](crate::run::Run::respect_desired)) obeys it, and so may
    /// any other supervisor. `by` names who says so, for the events. Visible to others when this
    /// returns.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::Store;
    /// use incumbent::status::Desired;
    ///
    /// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
    /// assert_eq!(work.desired()?, None);
    /// work.set_desired(Desired::Stopped, "alice")?;
    /// assert_eq!(work.desired()?, Some(Desired::Stopped));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CannotWrite`](crate::ErrorKind::CannotWrite) and
    /// [`Permission`](crate::ErrorKind::Permission) where the store cannot be written,
    /// [`TooNew`](crate::ErrorKind::TooNew), and those of [`Profile::status_of`].
    pub fn set_desired(&self, desired: Desired, by: &str) -> Result<()> {
        let by = identities::presentable(&self.store.inner, by);
        self.store.inner.write(|tx| profiles::set_desired(tx, &self.name, desired, &by))
    }
}

/// A named gateway configuration in a store: what offices belong to. Made by [`Store::profile`].
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use incumbent::{Claim, Kind, Store};
///
/// let store = Store::open(directory.path().join("state.db"))?;
/// let work = store.profile("work")?;
/// assert_eq!(work.running_pid(&Kind::default())?, None);
/// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
/// assert_eq!(work.running_pid(&Kind::default())?, Some(std::process::id()));
/// drop(tenure);
/// assert!(!work.status()?.running);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Profile {
    pub(super) store: Store,
    name: ProfileName,
    pub(super) home: Option<PathBuf>,
    asked: Arc<Asked>,
}

/// What was asked last, of the kind that it was asked of.
#[derive(Debug, Default)]
struct Asked {
    running: Running,
    runtime: Memo<Kind, Option<RuntimeStatus>>,
}

impl Store {
    /// What is true of every office that the store knows: of those that were ever claimed, those
    /// that somebody serves, and that of kind `gateway` of every other profile; and of others for
    /// as long as somebody wants them and is kept out. In the order of their names. One snapshot,
    /// and one look at each holder. Empty for a new store. Reads only.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::{Kind, Store};
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let _work = store.profile("work")?.claim()?;
    /// let _home = store.profile("home")?.claim()?;
    /// let reports = store.status_of_all()?;
    /// let offices: Vec<String> = reports.iter().map(|it| it.office.to_string()).collect();
    /// assert_eq!(offices, ["home/gateway", "work/gateway"]);
    /// let scheduler = Kind::new("scheduler")?;
    /// assert!(store.status_of_matching(None, Some(&scheduler))?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn status_of_all(&self) -> Result<Vec<Report>> {
        self.status_of_matching(None, None)
    }

    /// The same, only for this profile and this kind where they are named; `None` is all of them.
    /// The holders of others are not looked at.
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn status_of_matching(
        &self,
        profile: Option<&ProfileName>,
        kind: Option<&Kind>,
    ) -> Result<Vec<Report>> {
        answer::report_all(&self.inner, profile, kind)
    }

    /// How often each gateway was started, refused, ended and restarted since the store was made;
    /// an office to which nothing of that has happened is not in it. Counts never fall. `None` in a
    /// store of a version before schema 10, until a claim brings it up to date. Reads only.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// let work = store.profile("work")?;
    /// drop(work.claim()?);
    /// drop(work.claim()?);
    /// let counters = store.counters()?.expect("it was just made");
    /// let (_, of_work) = counters.first_key_value().expect("one office");
    /// assert_eq!((of_work.starts, of_work.refusals), (2, 0));
    /// assert_eq!(of_work.ends[0].count, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn counters(&self) -> Result<Option<BTreeMap<Office, Counters>>> {
        self.inner.read(counters::all)
    }

    /// What is true of the offices that a process holds: by its pid in the caller's pid namespace,
    /// itself or as the command of a [`Run`](crate::run::Run). Empty where it holds none. One that
    /// has ended holds nothing, but is reported, as dead, for as long as nobody has recorded its
    /// end. Reads only.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// let _work = store.profile("work")?.claim()?;
    /// let reports = store.status_of_process(std::process::id())?;
    /// assert_eq!(reports.len(), 1);
    /// assert_eq!(reports[0].office.to_string(), "work/gateway");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn status_of_process(&self, pid: u32) -> Result<Vec<Report>> {
        answer::report_of_process(&self.inner, pid)
    }

    /// The profile `name`: a text, or a [`ProfileName`]. Nothing is written until something is
    /// claimed for it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a name outside
    /// `[A-Za-z0-9_][A-Za-z0-9._-]{0,63}`.
    pub fn profile<N>(&self, name: N) -> Result<Profile>
    where
        N: TryInto<ProfileName>,
        Error: From<N::Error>,
    {
        let asked = Arc::default();
        Ok(Profile { store: self.clone(), name: name.try_into()?, home: None, asked })
    }
}

impl Profile {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ProfileName {
        &self.name
    }

    /// Says which configuration directory the claims of this handle run on. The first such claim
    /// binds the profile to its real path; from then on another home is refused, for as long as
    /// that directory exists. A claim without a home is not.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let (home, another) = (tempfile::tempdir()?, tempfile::tempdir()?);
    /// use incumbent::{Claim, ErrorKind, Store};
    ///
    /// let store = Store::open(directory.path().join("state.db"))?;
    /// let work = store.profile("work")?.with_home(home.path())?;
    /// assert!(matches!(work.claim()?, Claim::Granted(_)));
    /// let elsewhere = store.profile("work")?.with_home(another.path())?;
    /// assert_eq!(elsewhere.claim().unwrap_err().kind(), ErrorKind::ProfileBelongsTo);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when there is no such directory;
    /// [`Permission`](crate::ErrorKind::Permission) when it may not be looked at;
    /// [`Busy`](crate::ErrorKind::Busy) when this process is short of descriptors or memory.
    pub fn with_home(mut self, directory: &Path) -> Result<Self> {
        self.home = Some(Self::real_home(directory)?);
        Ok(self)
    }

    /// The directory that [`Profile::with_home`] would bind a profile to: its real path.
    ///
    /// # Errors
    /// As [`Profile::with_home`].
    pub fn real_home(directory: &Path) -> Result<PathBuf> {
        real_home(directory)
    }

    /// The office of `kind` in this profile.
    pub(crate) fn office(&self, kind: &Kind) -> Office {
        Office { profile: self.name.clone(), kind: kind.clone() }
    }

    /// What is true of the office of kind `gateway`; see [`Profile::status_of`].
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn status(&self) -> Result<Report> {
        self.status_of(&Kind::default())
    }

    /// What is true of an office, with the evidence: one function for every surface that asks. An
    /// office that nobody ever claimed is reported as well. Reads only, and never waits for a
    /// writer.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::liveness::AnchorState;
    /// use incumbent::{Claim, Kind, Reason, Store, Verdict};
    ///
    /// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
    /// let before = work.status_of(&Kind::default())?;
    /// assert_eq!((before.verdict, before.reason), (Verdict::Dead, Reason::NeverClaimed));
    /// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
    /// let report = work.status_of(&Kind::default())?;
    /// assert!(report.running);
    /// assert_eq!(report.evidence.anchor, AnchorState::Held);
    /// assert_eq!(report.instance, Some(tenure.instance()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An error is not "nothing runs": it could not be found out.
    /// * [`Busy`](crate::ErrorKind::Busy): the store's locks, or a reading connection, were not
    ///   free within the budget, or this process is short of descriptors or memory.
    /// * [`CannotRead`](crate::ErrorKind::CannotRead): the store is there and cannot be read.
    /// * [`Permission`](crate::ErrorKind::Permission),
    ///   [`CannotWrite`](crate::ErrorKind::CannotWrite): SQLite has to write before it can read (a
    ///   change that a crash cut off, on a disk that is full or read-only), and cannot.
    /// * [`Corrupt`](crate::ErrorKind::Corrupt),
    ///   [`StoreReplaced`](crate::ErrorKind::StoreReplaced), [`Forked`](crate::ErrorKind::Forked).
    /// * [`Internal`](crate::ErrorKind::Internal): what else SQLite says.
    pub fn status_of(&self, kind: &Kind) -> Result<Report> {
        answer::report(&self.store.inner, &self.office(kind))
    }

    /// The process that is known to hold the office of `kind` now, if there is one: the shortest
    /// way to "is it up?", by the same verdict as [`Profile::status_of`] and without its story.
    /// `None` also where nobody can tell, and for a profile that the gateway of another one serves.
    /// Reads only.
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn running_pid(&self, kind: &Kind) -> Result<Option<u32>> {
        answer::running_pid(&self.store.inner, &self.office(kind), &self.asked.running)
    }

    /// Waits until whoever holds the office of `kind` is ready ([`Report::not_ready`]), or says the
    /// state that `options` names; for somebody to claim it, too. Within a few milliseconds of the
    /// commit, and 250 ms of what nobody writes down. Reads only. Where the store may not be there
    /// yet: [`OpenOptions::wait_ready`](crate::OpenOptions::wait_ready).
    ///
    /// A gateway that says nothing is ready as soon as it runs. One that takes its time says
    /// `starting` first, or is waited for by a state.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::status::{Awaited, ReadyOptions, state};
    /// use incumbent::{Claim, Kind, StatusUpdate};
    ///
    /// let (work, kind) = (store.profile("work")?, Kind::default());
    /// let options = ReadyOptions::new().state(state::RUNNING);
    /// let gateway = work.clone();
    /// let gateway = std::thread::spawn(move || {
    ///     let Claim::Granted(tenure) = gateway.claim()? else { panic!("nobody else runs here") };
    ///     tenure.update_status(&StatusUpdate::new().state(state::RUNNING))?;
    ///     Ok::<_, incumbent::Error>(tenure)
    /// });
    /// let answer = work.wait_ready(&kind, &options)?;
    /// let Awaited::Reached(report) = answer else { panic!("it has no limit") };
    /// assert!(report.running);
    /// drop(gateway.join().unwrap()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn wait_ready(&self, kind: &Kind, options: &ReadyOptions) -> Result<Awaited> {
        ready::wait_ready(&self.store.inner, &self.office(kind), options)
    }

    /// What the holder on record of the office of `kind` last said of itself, as it was written:
    /// nobody looks whether it lives, and [`RuntimeStatus::state`] may be that of a process which
    /// was killed since. A fraction of the cost of [`Profile::status_of`], which judges; for a
    /// display, or a caller that has judged before. `None` where nobody is on record, or the holder
    /// has said nothing. What a server of the profile says is not looked for. Reads only.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::status::state;
    /// use incumbent::{Claim, Kind, StatusUpdate};
    ///
    /// let (profile, kind) = (store.profile("work")?, Kind::default());
    /// assert!(profile.runtime(&kind)?.is_none());
    /// let Claim::Granted(tenure) = profile.claim()? else { panic!("nobody else runs here") };
    /// tenure.update_status(&StatusUpdate::new().state(state::RUNNING).active_agents(2))?;
    /// assert_eq!(profile.runtime(&kind)?.unwrap().active_agents, Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn runtime(&self, kind: &Kind) -> Result<Option<RuntimeStatus>> {
        let office = self.office(kind);
        let said = self.store.inner.read_once(&self.asked.runtime, kind.clone(), |connection| {
            if !runtime::exists(connection)? {
                return Ok(None);
            }
            runtime::of_office(connection, &office)
        })?;
        Ok(Option::clone(&said))
    }

    /// The incarnations of an office, newest first, at most `count_max` of them; zero gives none.
    /// The last 200 are kept, however old. Reads only.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::{Claim, Kind, Reason, Store};
    ///
    /// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
    /// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
    /// tenure.release()?;
    /// let history = work.history(&Kind::default(), 10)?;
    /// assert_eq!(history.len(), 1);
    /// assert_eq!(history[0].end_reason, Some(Reason::Released));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`].
    pub fn history(&self, kind: &Kind, count_max: usize) -> Result<Vec<Incarnation>> {
        history::history(&self.store.inner, &self.office(kind), count_max)
    }

    /// Ends the record of an office whose holder is dead; one that lives or cannot be told dead
    /// only when `force` says so. `by` names who asked, for the history. Nothing is signalled: an
    /// evicted live owner learns it from its next [`Tenure::verify`](crate::Tenure::verify). The
    /// office is free for others when this returns.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use incumbent::stop::{Eviction, Force};
    /// use incumbent::{Claim, Kind, Lost, Reason, Standing, Store};
    ///
    /// let work = Store::open(directory.path().join("state.db"))?.profile("work")?;
    /// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
    /// let refused = work.evict(&Kind::default(), Force::No, "alice")?;
    /// assert!(matches!(refused, Eviction::Refused(_)), "it lives");
    /// let done = work.evict(&Kind::default(), Force::Yes, "alice")?;
    /// assert!(matches!(done, Eviction::Done { .. }));
    /// let Standing::Lost(Lost::Ended { reason, by }) = tenure.verify()? else { panic!("held") };
    /// assert_eq!((reason, by.as_deref()), (Reason::Evicted, Some("alice")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::set_desired`].
    pub fn evict(&self, kind: &Kind, force: Force, by: &str) -> Result<Eviction> {
        let inner = &self.store.inner;
        evict::evict(inner, &self.office(kind), force, &identities::presentable(inner, by))
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
fn real_home(directory: &Path) -> Result<PathBuf> {
    let home = std::fs::canonicalize(directory).map_err(|error| {
        if Shortage::of(&error).is_some() || error.kind() == Io::PermissionDenied {
            return Error::io("look at", directory, error);
        }
        Error::invalid(format!("cannot use the home directory {}: {error}", directory.display()))
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
