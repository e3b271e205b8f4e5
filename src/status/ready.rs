//! Whether a gateway is ready, and waiting until it is.
//!
//! Ready is derived like all of a report, and decides nothing. A gateway that says nothing of
//! itself is ready as soon as it runs: nobody could wait for it otherwise.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Deadline;
use crate::liveness::ChildState;
use crate::owner::frozen;
use crate::status::answer;
use crate::store::Inner;
use crate::store::door::Door;
use crate::store::watcher::Watcher;
use crate::{
    Cancel, Error, ErrorKind, Existing, InstanceId, Office, OpenOptions, Report, Result, Verdict,
    Wait, state,
};

/// Between two looks at what nobody commits: a death, a heartbeat that is missing.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Between two looks whether something was committed, in the first while, and after that, where
/// nothing tells of it.
const COMMITS_EVERY: Duration = Duration::from_millis(5);
const COMMITS_EVERY_LATER: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_secs(10);

/// Between two looks whether there is a store by now.
const STORE_EVERY: Duration = Duration::from_millis(50);

impl Report {
    /// Why the gateway cannot be used just now, in one word: `not_running`, `unknown`, `frozen`,
    /// `stopped` (by a signal: itself, or the command of a `run`), `unresponsive`, `restarting`
    /// (its `run` has no command just now), or what it says of itself: `starting`, `draining`,
    /// `degraded`, `stopped`, `startup_failed`. `None`: it is ready. A word of its own, and to say
    /// nothing, is no obstacle.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::status::state;
    /// use incumbent::{Claim, StatusUpdate};
    ///
    /// let work = store.profile("work")?;
    /// assert_eq!(work.status()?.not_ready(), Some("not_running"));
    /// let Claim::Granted(tenure) = work.claim()? else { panic!("nobody else runs here") };
    /// assert_eq!(work.status()?.not_ready(), None);
    /// tenure.update_status(&StatusUpdate::new().state(state::DRAINING))?;
    /// assert_eq!(work.status()?.not_ready(), Some("draining"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn not_ready(&self) -> Option<&str> {
        const NOT_READY: [&str; 5] = [
            state::STARTING,
            state::DRAINING,
            state::DEGRADED,
            state::STOPPED,
            state::STARTUP_FAILED,
        ];
        match self.verdict {
            Verdict::Dead => return Some("not_running"),
            Verdict::Unknown => return Some("unknown"),
            Verdict::Alive => {}
        }
        if self.flags.frozen {
            return Some("frozen");
        }
        if self.flags.stopped || self.flags.command_stopped {
            return Some("stopped");
        }
        if self.unresponsive_for.is_some() {
            return Some("unresponsive");
        }
        if self.evidence.child == ChildState::Gone {
            return Some("restarting");
        }
        self.state.as_deref().filter(|word| NOT_READY.contains(word))
    }

    /// What thaws a holder that is frozen (flag `frozen`), as a clause for people: `docker
    /// unpause`, `systemctl thaw`, or the file to write to. `None` where it is not frozen.
    #[must_use]
    pub fn how_to_thaw(&self) -> Option<String> {
        let pids = [self.child_pid, self.pid].map(|pid| pid.filter(|_| !self.flags.elsewhere));
        self.flags.frozen.then(|| frozen::how_to_thaw(pids, self.supervisor.as_deref()))
    }
}

/// What to wait for, see [`Profile::wait_ready`](crate::Profile::wait_ready).
#[derive(Clone, Debug)]
pub struct ReadyOptions {
    state: Option<String>,
    wait: Wait,
    cancel: Cancel,
}

impl Default for ReadyOptions {
    fn default() -> Self {
        Self { state: None, wait: Wait::Forever, cancel: Cancel::new() }
    }
}

impl ReadyOptions {
    /// Waits until the gateway is ready, without limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until it says this state instead, one of [`state`](crate::status::state) or its own
    /// word. What a dead one said last counts where it stays true: `stopped`, `startup_failed`.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Waits no longer than this; [`Wait::No`] looks once.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Ends the wait, from another thread or by a question.
    #[must_use]
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    fn is_met_by(&self, report: &Report) -> bool {
        match &self.state {
            Some(wanted) => report.state.as_ref() == Some(wanted),
            None => report.not_ready().is_none(),
        }
    }
}

/// What came of a wait for a gateway, with what was true of it in the end.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it may not be ready"]
pub enum Awaited {
    /// It is ready, or says the state that was waited for.
    Reached(Box<Report>),
    /// Not in time, or the wait was cancelled.
    NotInTime(Box<Report>),
    /// The tenure that was seen has ended. Another one may have begun.
    Ended(Box<Report>),
}

/// A wait: until when, and whom it has seen.
struct Waiting<'a> {
    options: &'a ReadyOptions,
    office: &'a Office,
    deadline: Deadline,
    /// Whoever held the office at an earlier look.
    seen: Option<InstanceId>,
    /// The last one on record when nobody held it.
    last: Option<LastOnRecord>,
}

/// `None`: there is no record.
#[derive(Clone, Copy, PartialEq, Eq)]
struct LastOnRecord(Option<InstanceId>);

impl<'a> Waiting<'a> {
    fn new(office: &'a Office, options: &'a ReadyOptions) -> Self {
        Self { options, office, deadline: options.wait.deadline(), seen: None, last: None }
    }

    fn is_over(&self) -> bool {
        self.options.cancel.ends_wait() || self.deadline.has_passed()
    }

    /// The answer, if there is one by now.
    fn judge(&mut self, report: Report) -> ControlFlow<Awaited, Box<Report>> {
        let report = Box::new(report);
        let instance = report.instance;
        // Without a record nobody can tell whether it is still that one.
        let is_other = self.seen.is_some() && self.seen != instance;
        if is_other && report.verdict != Verdict::Unknown {
            return ControlFlow::Break(Awaited::Ended(report));
        }
        if self.options.is_met_by(&report) {
            return ControlFlow::Break(Awaited::Reached(report));
        }
        if report.verdict != Verdict::Dead {
            self.seen = instance.or(self.seen);
            return ControlFlow::Continue(report);
        }
        // One that came and went between two looks has ended as well.
        let now = LastOnRecord(instance);
        let last = *self.last.get_or_insert(now);
        if self.seen.is_some() || last != now {
            return ControlFlow::Break(Awaited::Ended(report));
        }
        ControlFlow::Continue(report)
    }

    /// Looks until there is an answer.
    fn in_store(&mut self, inner: &Arc<Inner>) -> Result<Awaited> {
        let watcher = Arc::new(Watcher::new(inner)?);
        let mut door: Option<Door> = None;
        let later = Deadline::after(LATER);
        loop {
            // What is committed after this is seen by the next look.
            let version = watcher.version().ok();
            match answer::report(inner, self.office).map(|report| self.judge(report)) {
                Ok(ControlFlow::Break(answer)) => return Ok(answer),
                Ok(ControlFlow::Continue(report)) if self.is_over() => {
                    return Ok(Awaited::NotInTime(report));
                }
                Err(error) if error.kind() != ErrorKind::Busy || self.is_over() => {
                    return Err(error);
                }
                Ok(ControlFlow::Continue(_)) | Err(_) => {}
            }
            let pause = if later.has_passed() { COMMITS_EVERY_LATER } else { COMMITS_EVERY };
            let next = Deadline::after(LOOK_EVERY).earlier(self.deadline);
            while !next.has_passed() && !self.options.cancel.ends_wait() {
                let (cancel, remaining) = (&self.options.cancel, next.remaining());
                if !door.as_ref().is_some_and(|door| door.wait(cancel, &[], remaining)) {
                    std::thread::sleep(pause.min(remaining));
                    door = door.or_else(|| Door::open(&watcher, move || pause));
                }
                let now = watcher.version().ok();
                if now.is_none() || now != version || !inner.is_in_place() {
                    break;
                }
            }
        }
    }
}

/// Waits in a store that is open.
pub(crate) fn wait_ready(
    inner: &Arc<Inner>,
    office: &Office,
    options: &ReadyOptions,
) -> Result<Awaited> {
    Waiting::new(office, options).in_store(inner)
}

impl OpenOptions {
    /// [`Profile::wait_ready`](crate::Profile::wait_ready), also where the store is not there yet,
    /// or is replaced meanwhile: makes none, and writes nothing.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("state.db");
    /// use incumbent::status::{Awaited, ReadyOptions};
    /// use incumbent::{Office, OpenOptions, Wait};
    ///
    /// let options = ReadyOptions::new().wait(Wait::No);
    /// let answer = OpenOptions::new().path(&path).wait_ready(&Office::default(), &options)?;
    /// assert!(matches!(answer, Awaited::NotInTime(_)));
    /// assert!(!path.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`OpenOptions::find`] and [`Profile::status_of`](crate::Profile::status_of).
    pub fn wait_ready(&self, office: &Office, options: &ReadyOptions) -> Result<Awaited> {
        let mut waiting = Waiting::new(office, options);
        let passes =
            |error: &Error| matches!(error.kind(), ErrorKind::Busy | ErrorKind::StoreReplaced);
        loop {
            let answer = match self.find() {
                Ok(Existing::Store(store)) => waiting.in_store(&store.inner),
                Ok(Existing::LostOwner { pid, .. }) => {
                    Ok(waiting.without_store(|report| report.of_lost_owner(pid)))
                }
                Ok(Existing::Nothing) => Ok(waiting.without_store(|report| report)),
                Err(error) => Err(error),
            };
            match answer {
                // Nobody is on record there yet.
                Ok(Awaited::NotInTime(_)) if !waiting.is_over() => {}
                Err(error) if passes(&error) && !waiting.is_over() => {}
                answer => return answer,
            }
            std::thread::sleep(STORE_EVERY.min(waiting.deadline.remaining()));
        }
    }
}

impl Waiting<'_> {
    /// What there is to say where there is no store.
    fn without_store(&mut self, known: impl FnOnce(Report) -> Report) -> Awaited {
        match self.judge(known(Report::never_claimed(self.office.clone()))) {
            ControlFlow::Break(answer) => answer,
            ControlFlow::Continue(report) => Awaited::NotInTime(report),
        }
    }
}
