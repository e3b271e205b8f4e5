//! What happened in a store, in order, and what goes on happening.
//!
//! Every change of an office, a lock, a marker or a runtime status writes its event in the
//! transaction that makes the change. So a reader of events sees what was committed, once and in
//! order. It is woken by a commit (`store/door.rs`), and looks whether something was committed
//! (`store/watcher.rs`), which takes 2 µs at most and no lock. Ids have no gaps: a gap means that
//! the reader fell behind what is kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::background::BackgroundThread;
use crate::background::readiness::Readiness;
use crate::clock::Deadline;
use crate::patience::with_budget;
use crate::records::events;
use crate::records::events::{BATCH, EVENTS_LOST, Event, EventSelection};
use crate::status::past::EventOptions;
use crate::store::Inner;
use crate::store::door::{Door, LOOK_EVERY_TOLD};
use crate::store::listener::Listener;
use crate::store::watcher::{Version, Watcher};
use crate::{Cancel, ErrorKind, ProfileName, Result, Store, Wait};

/// Between two looks while something happens, and for as long afterwards, where nothing tells of
/// it.
const LOOK_EVERY_BUSY: Duration = Duration::from_millis(5);

const BUSY_FOR: Duration = Duration::from_secs(1);

/// Between two looks otherwise: 20 a second cost a thousandth of a core.
const LOOK_EVERY_IDLE: Duration = Duration::from_millis(50);

/// Between two looks for a loop that polls, where nothing tells of a commit.
const LOOK_EVERY_POLLED: Duration = Duration::from_millis(20);

/// How long one read may wait for the store; it is tried again.
const READ_WITHIN: Duration = Duration::from_millis(250);

impl Store {
    /// The newest `count_max` events, of one profile or of all (`None`), oldest first; zero gives
    /// none. Reads only.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// let work = store.profile("work")?;
    /// drop(work.claim()?);
    /// let events = store.recent_events(Some(work.name()), 2)?;
    /// let words: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    /// assert_eq!(words, ["office_claimed", "office_ended"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn recent_events(
        &self,
        profile: Option<&ProfileName>,
        count_max: usize,
    ) -> Result<Vec<Event>> {
        let which =
            EventSelection { profile, count_max: Some(count_max), ..EventSelection::default() };
        self.inner.read(|connection| events::newest(connection, &which))
    }

    /// The events that `options` ask for, oldest first. About 10,000 of runtime statuses are kept,
    /// and as many others. Reads only.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::status::EventOptions;
    ///
    /// drop(store.profile("work")?.claim()?);
    /// drop(store.profile("home")?.claim()?);
    /// let last = store.past_events(&EventOptions::new().event("office_claimed").count_max(1))?;
    /// assert_eq!(last[0].profile.as_deref(), Some("home"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn past_events(&self, options: &EventOptions) -> Result<Vec<Event>> {
        let which = EventSelection {
            profile: options.profile.as_ref(),
            kind: options.kind.as_ref(),
            names: &options.events,
            since_ms: options.since_ms,
            count_max: options.count_max,
        };
        self.inner.read(|connection| events::newest(connection, &which))
    }

    /// Hands out changes of offices, locks, markers and runtime statuses from now on, as they are
    /// committed by whatever process. On Linux a wait is woken by each commit of this library, and
    /// sees within a second what another program has committed (SQLite's shell). Elsewhere it looks
    /// every few milliseconds while there are some, every 50 ms else.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::{Claim, StatusUpdate, Wait};
    ///
    /// let mut events = store.events()?;
    /// let Claim::Granted(tenure) = store.profile("default")?.claim()? else { unreachable!() };
    /// tenure.update_status(&StatusUpdate::new().state("running"))?;
    /// assert_eq!(events.next_event(Wait::Forever)?.unwrap().event, "office_claimed");
    /// let event = events.next_event(Wait::Forever)?.unwrap();
    /// assert_eq!(event.event, "status_changed");
    /// assert_eq!(event.detail["state"], "running");
    /// assert!(events.next_event(Wait::No)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of).
    pub fn events(&self) -> Result<EventStream> {
        let newest = self.recent_events(None, 1)?;
        let after = newest.last().map_or(0, |event| event.id);
        Ok(EventStream {
            watcher: Arc::new(Watcher::new(&self.inner)?),
            door: None,
            store: self.clone(),
            profile: None,
            after,
            after_at_ms: newest.last().map(|event| event.at_ms),
            handed_out: after,
            seen_version: None,
            ready: VecDeque::new(),
            busy_until: Deadline::after(Duration::ZERO),
            cancel: Cancel::new(),
            is_over: false,
            pollable: None,
        })
    }
}

/// The changes of a store, as they are committed; see [`Store::events`].
///
/// As an iterator it waits for each event without limit, until it is cancelled or fails; then it is
/// over. It survives gateways that come and go; not its store: one that was replaced is
/// [`StoreReplaced`](crate::ErrorKind::StoreReplaced), and is opened again.
///
/// Events are kept for a while (10,000 of statuses, and as many others). A reader that falls behind
/// further gets an event `events_lost` in their place, with their `count` (null where an older copy
/// of the store was restored): then ask [`Store::status_of_all`], and go on.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
/// use incumbent::Wait;
///
/// let mut events = store.events()?;
/// let claim = store.profile("work")?.claim()?;
/// assert_eq!(events.next_event(Wait::No)?.unwrap().event, "office_claimed");
/// let position = events.position(); // remembered, also by another process
/// drop((events, claim));
/// // Later, from where it was left:
/// let mut later = store.events()?.after(position);
/// assert_eq!(later.next_event(Wait::No)?.unwrap().event, "office_ended");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EventStream {
    store: Store,
    watcher: Arc<Watcher>,
    /// Once it has waited for a moment.
    door: Option<Door>,
    profile: Option<ProfileName>,
    /// The id of the newest event that was read.
    after: i64,
    /// When that one happened: an event of the same id and another time is of a restored store.
    after_at_ms: Option<i64>,
    /// Up to which id everything was handed out, while there is something `ready`.
    handed_out: i64,
    seen_version: Option<Version>,
    ready: VecDeque<Event>,
    busy_until: Deadline,
    cancel: Cancel,
    is_over: bool,
    pollable: Option<Pollable>,
}

/// What a loop waits for in the place of this stream.
#[derive(Debug)]
struct Pollable {
    readiness: Readiness,
    /// Whether the stream has lowered it since it raised it.
    is_lowered: bool,
    /// Raises it when something was committed.
    _thread: BackgroundThread,
}

impl Pollable {
    fn new(inner: &Arc<Inner>) -> Result<Self> {
        let (readiness, watcher) = (Readiness::new()?, Arc::new(Watcher::new(inner)?));
        let (raised, inner) = (readiness.clone(), Arc::clone(inner));
        let rung = readiness.clone();
        let listener = Listener::start(&watcher, || LOOK_EVERY_POLLED, move || rung.raise());
        let mut seen = None;
        let thread = BackgroundThread::start_paced("incumbent-events", move || {
            let version = if inner.is_in_place() { watcher.version().ok() } else { None };
            // What cannot be read is something to ask for, too: the stream says why.
            if version.is_none() || version != seen {
                raised.raise();
            }
            seen = version;
            let is_told = listener.as_ref().is_some_and(Listener::hears);
            Some(if is_told { LOOK_EVERY_TOLD } else { LOOK_EVERY_POLLED })
        })?;
        Ok(Self { readiness, is_lowered: true, _thread: thread })
    }

    fn lower(&mut self) {
        self.readiness.lower();
        self.is_lowered = true;
    }

    fn raise(&mut self) {
        if std::mem::take(&mut self.is_lowered) {
            self.readiness.raise();
        }
    }
}

impl EventStream {
    /// Of this profile alone. What becomes of a gateway that serves it from another profile is an
    /// event of that one.
    #[must_use]
    pub fn of_profile(mut self, profile: ProfileName) -> Self {
        self.profile = Some(profile);
        self
    }

    /// Goes on after the event of this id, for a reader that remembers how far it came
    /// ([`EventStream::position`]); zero begins with the oldest that is kept. In a store that was
    /// restored from an older copy meanwhile, the events of these ids are others.
    #[must_use]
    pub fn after(mut self, id: i64) -> Self {
        self.after = id;
        self.after_at_ms = None;
        self.handed_out = id;
        self.seen_version = None;
        self.ready.clear();
        if let Some(pollable) = &mut self.pollable {
            pollable.raise();
        }
        self
    }

    /// Ends each wait, from another thread or by a question; the answer is `None` then, and the
    /// iterator is over.
    #[must_use]
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Up to which id everything was handed out: what a reader remembers in order to go on with
    /// [`EventStream::after`].
    #[must_use]
    pub fn position(&self) -> i64 {
        if self.ready.is_empty() { self.after } else { self.handed_out }
    }

    /// The next event; `None` when there is none in time, or the stream was cancelled. A store that
    /// is busy is asked again within the time.
    ///
    /// # Errors
    /// As [`Profile::status_of`](crate::Profile::status_of). Nothing is skipped by that: the next
    /// call goes on from here.
    pub fn next_event(&mut self, wait: Wait) -> Result<Option<Event>> {
        let next = self.next_until(wait.deadline());
        // There may be more, or the same error.
        if let (Some(pollable), Ok(Some(_)) | Err(_)) = (&mut self.pollable, &next) {
            pollable.raise();
        }
        next
    }

    /// A descriptor that is readable while there may be something new, for a loop that polls: it
    /// becomes readable within 20 ms of a commit (of another program's within a second), and stays
    /// so until [`next_event(Wait::No)`](Self::next_event) has answered `None`. So ask until it
    /// does, also in a loop that is woken by edges (`AsyncFd`), and before the first wait.
    ///
    /// It is also readable after a commit that is not an event of this stream, and when the store
    /// cannot be read or is gone: then `next_event` says why, and an error that stays keeps it
    /// readable. It is not told that the stream was cancelled. Two threads of the crate's own wait
    /// for commits from now on, until the stream is dropped; where nothing tells of one, one of
    /// them looks 50 times a second.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::{Claim, Wait};
    ///
    /// let mut events = store.events()?;
    /// # #[cfg(unix)] {
    /// let readiness = events.readiness()?;
    /// let Claim::Granted(_tenure) = store.profile("default")?.claim()? else { unreachable!() };
    /// // The loop says that `readiness` is readable:
    /// # drop(readiness);
    /// while let Some(event) = events.next_event(Wait::No)? {
    ///     assert_eq!(event.event, "office_claimed");
    /// }
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on Windows; [`Busy`](ErrorKind::Busy) where no
    /// descriptor or thread is left; otherwise as [`Store::events`].
    pub fn readiness(&mut self) -> Result<Readiness> {
        self.store.inner.check_process()?;
        let pollable = if let Some(pollable) = self.pollable.take() {
            pollable
        } else {
            let mut new = Pollable::new(&self.store.inner)?;
            // There may be something already.
            new.raise();
            new
        };
        Ok(self.pollable.insert(pollable).readiness.clone())
    }

    fn next_until(&mut self, deadline: Deadline) -> Result<Option<Event>> {
        loop {
            if self.cancel.ends_wait() {
                return Ok(None);
            }
            while let Some(event) = self.ready.pop_front() {
                self.handed_out = event.id;
                if self.is_meant(&event) {
                    return Ok(Some(event));
                }
            }
            match self.look() {
                // What is there by now is read to its end; what others add meanwhile is not waited
                // for.
                Ok(read) if read == BATCH || !self.ready.is_empty() => continue,
                Ok(_) => {}
                // Nothing is lost by asking again.
                Err(error) if error.kind() == ErrorKind::Busy && !deadline.has_passed() => {
                    tracing::debug!(%error, "events are read later");
                }
                Err(error) => return Err(error),
            }
            if deadline.has_passed() {
                return Ok(None);
            }
            self.sleep(deadline.remaining());
        }
    }

    /// Until there may be something new.
    fn sleep(&mut self, remaining: Duration) {
        let is_told = self.door.as_ref().is_some_and(|it| it.wait(&self.cancel, &[], remaining));
        if is_told {
            return;
        }
        let pause = if self.busy_until.has_passed() { LOOK_EVERY_IDLE } else { LOOK_EVERY_BUSY };
        std::thread::sleep(pause.min(remaining));
        // For one look it is not worth a thread.
        if self.door.is_none() && pause < remaining {
            self.door = Door::open(&self.watcher, || LOOK_EVERY_BUSY);
        }
    }

    /// Fetches what is new; how many events that were.
    fn look(&mut self) -> Result<usize> {
        self.store.inner.check_process()?;
        // Before anything is read: what is committed after that raises it again.
        if let Some(pollable) = &mut self.pollable {
            pollable.lower();
        }
        let is_there = self.store.inner.is_in_place();
        let version = if is_there { Some(self.watcher.version()?) } else { None };
        // A store that is gone is found out by reading it.
        if is_there && version == self.seen_version {
            return Ok(0);
        }
        let after = self.after;
        let (batch, newest, at_ms) = with_budget(READ_WITHIN, || {
            self.store.inner.read(|connection| {
                let batch = events::following(connection, after)?;
                let newest = if batch.is_empty() { events::newest_id(connection)? } else { after };
                Ok((batch, newest, events::time_of(connection, after)?))
            })
        })?;
        if let (Some(before), Some(now)) = (self.after_at_ms, at_ms)
            && before != now
        {
            // An older copy was restored into the store, and has come further since.
            self.after_at_ms = Some(now);
            self.ready.push_back(Event::lost(after, now, None));
        }
        if batch.len() < BATCH {
            self.seen_version = version;
        }
        let read = batch.len();
        let Some((last, last_at_ms)) = batch.last().map(|event| (event.id, event.at_ms)) else {
            if newest >= after {
                return Ok(0);
            }
            // An older copy was restored into the store: ids are drawn anew from there.
            self.after = newest;
            self.after_at_ms = None;
            self.handed_out = newest;
            self.ready.push_back(Event::lost(newest, self.store.inner.clock().wall_ms(), None));
            return Ok(0);
        };
        self.busy_until = Deadline::after(BUSY_FOR);
        self.handed_out = after;
        self.after = last;
        self.after_at_ms = Some(last_at_ms);
        let mut before = after;
        for event in batch {
            // Ids are drawn without gaps; what happened to offices outlives the statuses around it.
            // What came before the first one that is kept was not lost by this reader.
            let unread = event.id.saturating_sub(before).saturating_sub(1);
            if unread > 0 && before > 0 {
                self.ready.push_back(Event::lost(event.id - 1, event.at_ms, Some(unread)));
            }
            before = event.id;
            self.ready.push_back(event);
        }
        Ok(read)
    }

    fn is_meant(&self, event: &Event) -> bool {
        match &self.profile {
            Some(profile) if event.event != EVENTS_LOST => {
                event.profile.as_deref() == Some(profile.as_str())
            }
            Some(_) | None => true,
        }
    }
}

impl Iterator for EventStream {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.next_event(Wait::Forever).transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}
