//! The end of an owner, as it comes: signals with their senders, panics, and what follows from
//! them.
//!
//! A signal that asks to end, and a panic, leave a row in `shutdowns`: a process that is killed
//! next writes nothing. That takes some milliseconds at most, wherever the store stands: 4 ms for
//! the write, then the word is kept in `Inner::pending` and goes with the next change, before the
//! release that follows. The sender is looked at first, on the signal's own thread, because a
//! `kill` ends within a millisecond of what it did. A `run` passes the signal on then, and looks at
//! the rest afterwards.

use std::io;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Once, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::now_ms;
use crate::forensics::snapshot::Snapshot;
use crate::forensics::snapshot::received::ReceivedSignal;
use crate::forensics::{Fact, Unavailable, survival};
use crate::marker::inquiry::{StopAnswer, StopCause, StopInquiry};
use crate::names::MarkerName;
use crate::patience::with_budget;
use crate::process::command_line::redact;
use crate::process::exit_code::{ExitCause, ExitCodes};
use crate::records::markers::Marker;
use crate::records::shutdowns::NewShutdown;
use crate::records::{Identities, instances, markers, runtime};
use crate::store::Inner;
use crate::sys::signals::Catcher;
use crate::sys::{Shortage, signals};
use crate::{Error, InstanceId, Office, Result, Store, Tenure, stop_budget, sys};

/// How long the markers may take to be read. A read waits for nobody but for a store that is just
/// being made or recovered.
const READ_WITHIN: Duration = Duration::from_millis(2);

/// How long the row may take to be written: an uncontended write takes 0.1 ms, one among 32 busy
/// processes up to 3 ms. What takes longer is written with the next change.
const WRITE_WITHIN: Duration = Duration::from_millis(4);

/// How long a panic may take to be recorded: nobody else waits for it.
const PANIC_WITHIN: Duration = Duration::from_millis(250);

/// A message of a panic is cut here.
const MESSAGE_LENGTH_MAX: usize = 4 * 1024;

/// Somebody asks this process to end; see [`Tenure::on_shutdown`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Shutdown {
    /// Who, with which signal, and what surrounds it.
    pub snapshot: Snapshot,
    /// What the store says of it: taken over by whom, stopped on purpose by whom, or neither.
    pub stop: StopAnswer,
    /// What it comes down to.
    pub cause: ExitCause,
    /// What to exit with, so that the supervisor does the right thing; as if the signal had ended
    /// the process where the table says "own".
    pub exit_code: i32,
}

/// Signals are caught for as long as this lives; see [`Tenure::on_shutdown`]. Afterwards each that
/// nobody had caught before does again what it does by default; also where a runtime (tokio,
/// signal-hook) has caught it since, so keep the watch for as long as the process lives.
#[derive(Debug)]
#[must_use = "dropping it lets the signals end the process again"]
pub struct ShutdownWatch {
    catcher: Catcher,
}

impl ShutdownWatch {
    /// Whether the handlers that this watch relies on are still those that the kernel calls. False
    /// where something has replaced one since (Python's `signal.signal`, `asyncio`'s
    /// `add_signal_handler`, another library): then that signal is not handed out, unless the other
    /// handler calls ours. Also false where the watch's thread has ended by a panic of its
    /// callback, and in a forked child. Looks, and changes nothing.
    ///
    /// Who is about to be replaced lets the host catch the signals: [`Tenure::shutdown_by`].
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// # use incumbent::Claim;
    /// # use incumbent::exit::{ExitCodes, Supervisor};
    /// # let Claim::Granted(tenure) = store.profile("default")?.claim()? else { unreachable!() };
    /// let watch = tenure.on_shutdown(ExitCodes::of(Supervisor::None), |_shutdown| ())?;
    /// assert!(watch.is_in_place());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Platform
    /// Windows does not tell: always true.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.catcher.is_in_place()
    }
}

impl Tenure {
    /// Catches SIGTERM, SIGINT and SIGHUP (Windows: the events of the console) and calls
    /// `on_signal` for each, from a thread of its own: with a snapshot that names the sender, with
    /// the cause, and with the exit code that `exit_codes` has for it. By then the snapshot is
    /// logged (`tracing`, level info, one line) and stands in the table `shutdowns`, and the marker
    /// that announced the stop is consumed.
    ///
    /// The call comes within some milliseconds, also while the store is locked, full or gone; where
    /// the store cannot even be read, within 300 ms. What is ignored by then (`nohup`) stays
    /// ignored. Nothing ends by itself: the gateway drains, lets go and exits; or reads its
    /// configuration again, where the signal
    /// [may mean that](crate::forensics::Snapshot::may_mean_reload).
    ///
    /// Where the host catches signals itself, see [`Tenure::shutdown_by`] and
    /// [`Tenure::shutdown_feed`]. In a forked child the signals do what they do by default.
    ///
    /// ```
    /// use incumbent::Tenure;
    /// use incumbent::exit::{ExitCodes, Supervisor};
    /// use std::sync::mpsc;
    ///
    /// fn serve(tenure: Tenure) -> incumbent::Result<i32> {
    ///     let (ended, end) = mpsc::channel();
    ///     let codes = ExitCodes::of(Supervisor::of_this_process());
    ///     let _watch = tenure.on_shutdown(codes, move |shutdown| {
    ///         let _ = ended.send(shutdown);
    ///     })?;
    ///     // The gateway works meanwhile.
    ///     let Ok(shutdown) = end.recv() else { return Ok(1) };
    ///     eprintln!("{}", shutdown.snapshot.to_log_line());
    ///     // ... drain ...
    ///     tenure.release()?;
    ///     Ok(shutdown.exit_code)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) where no descriptor or thread is left,
    /// [`Internal`](crate::ErrorKind::Internal) when the signals cannot be caught for another
    /// reason: then they do what they did before. [`Forked`](crate::ErrorKind::Forked) in a forked
    /// child. Not a store that cannot be read.
    pub fn on_shutdown(
        &self,
        exit_codes: ExitCodes,
        mut on_signal: impl FnMut(Shutdown) + Send + 'static,
    ) -> Result<ShutdownWatch> {
        self.prepare_to_shut_down()?;
        let recorder = self.recorder();
        let inquiry = self.stop_inquiry();
        let catcher = signals::catch(signals::SHUTDOWN, move |caught| {
            let (received, number) = (ReceivedSignal::by_us(caught), caught.number);
            on_signal(recorder.shut_down(received, number, &inquiry, &exit_codes));
        })
        .map_err(|error| cannot("catch signals", &error))?;
        Ok(ShutdownWatch { catcher })
    }

    /// Makes a reader while there is time for that.
    pub(super) fn prepare_to_shut_down(&self) -> Result<()> {
        let inner = &self.footing.inner;
        inner.check_process()?;
        if let Err(error) = inner.read(|_| Ok(())) {
            tracing::debug!(%error, "the store cannot be read now");
        }
        Ok(())
    }

    /// Takes a snapshot for a signal that somebody else has caught (a runtime, a handler of the
    /// gateway's; `None`: there was none), with the markers of this office, and leaves one of a
    /// signal in the table `shutdowns`. Takes about a millisecond, and never more than some: a row
    /// that cannot be written in time says so ([`Snapshot::recorded`]) and is written with the next
    /// change. An example is at the [module](crate::forensics).
    #[must_use]
    pub fn snapshot(&self, signal: Option<i32>) -> Snapshot {
        self.recorder().complete(Snapshot::take(ReceivedSignal::ByOthers(signal))).0
    }

    /// From now on a panic of any thread leaves its message and its place in the table `shutdowns`;
    /// the hook that was set before runs afterwards (one that is set later replaces ours). If this
    /// process then ends without a word, or lets this office go while it unwinds, the history says
    /// that it panicked, and where.
    ///
    /// A store that cannot be written holds the panicking thread up for 250 ms at most.
    pub fn record_panics(&self) {
        static HOOK: Once = Once::new();
        // No hook can be set by a thread that is panicking.
        if std::thread::panicking() {
            return;
        }
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                record_panic(info);
                previous(info);
            }));
        });
        let recorder = self.recorder();
        let mut recorders = RECORDERS.lock();
        recorders
            .retain(|other| other.inner.strong_count() > 0 && other.instance != recorder.instance);
        recorders.push(recorder);
    }

    /// Why this process ends, by what its store, the given snapshot (`None`: no signal came) and
    /// its panics say: for a gateway that is about to exit. A panic counts for 10 s. Takes a few
    /// milliseconds at most. [`ExitCodes::code`] says what to exit with.
    #[must_use]
    pub fn cause(&self, snapshot: Option<&Snapshot>, exit_codes: &ExitCodes) -> ExitCause {
        let known = self.recorder().look();
        let cause = cause_of(&known, snapshot);
        if known.was_starting { exit_codes.cause_while_starting(cause) } else { cause }
    }

    pub(super) fn recorder(&self) -> Recorder {
        Recorder::new(&self.footing.inner, Some(self.instance()), self.office(), Ends::Later)
    }
}

/// What the system did not let us do.
pub(super) fn cannot(what: &str, error: &io::Error) -> Error {
    match Shortage::of(error) {
        Some(shortage) => Error::shortage(shortage, what),
        None => Error::internal(format!("cannot {what}: {error}")),
    }
}

/// Writes the last words of an owner.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    /// Whoever only listens for a last word keeps no store open.
    inner: Weak<Inner>,
    /// `None`: a process that is on record nowhere.
    instance: Option<InstanceId>,
    office: Office,
    ends: Ends,
}

/// Whether what could not be written can be written later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// A verb that ends at once.
    Now,
    Later,
}

impl Snapshot {
    /// Adds the markers of `instance`, and leaves the snapshot of a signal on record for it: for a
    /// handler that acts for a gateway without a [`Tenure`] of its own. For a process that is on
    /// record nowhere (`None`) it is left beside `office`. What cannot be read or written within
    /// 250 ms says so in its field.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// let office = incumbent::Office::default();
    /// let taken = incumbent::forensics::snapshot(Some(15)).recorded_in(&store, None, &office);
    /// assert!(taken.recorded.is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn recorded_in(self, store: &Store, instance: Option<InstanceId>, office: &Office) -> Self {
        Recorder::new(&store.inner, instance, office, Ends::Now).complete(self).0
    }
}

/// Who records panics. A panic of any thread may be the end of each office of the process.
static RECORDERS: Mutex<Vec<Recorder>> = Mutex::new(Vec::new());

/// What the store says of an end.
#[derive(Debug, Default)]
struct Known {
    /// The takeover or stop that was asked of this incarnation, also if it was consumed already.
    asked: Option<Marker>,
    takeover: Option<Marker>,
    planned_stop: Option<Marker>,
    was_starting: bool,
    has_just_panicked: bool,
    stop_budget: Duration,
    /// The hashes of all identities that are locked.
    identities: Identities,
    problem: Option<String>,
}

impl Recorder {
    pub(crate) fn new(
        inner: &Arc<Inner>,
        instance: Option<InstanceId>,
        office: &Office,
        ends: Ends,
    ) -> Self {
        Self { inner: Arc::downgrade(inner), instance, office: office.clone(), ends }
    }

    pub(super) fn shut_down(
        &self,
        received: ReceivedSignal,
        number: i32,
        inquiry: &StopInquiry,
        codes: &ExitCodes,
    ) -> Shutdown {
        let (snapshot, cause) = self.complete(Snapshot::take(received));
        tracing::info!(target: "incumbent::shutdown", "{}", snapshot.to_log_line());
        let stop = inquiry.ask();
        let cause = match (&stop.cause, cause) {
            // It takes its time to read where the snapshot may not.
            (StopCause::TakenOver(_), _) => ExitCause::TakenOver,
            (StopCause::PlannedStop(_), _) => ExitCause::PlannedStop,
            (_, (cause, true)) => codes.cause_while_starting(cause),
            (_, (cause, false)) => cause,
        };
        let exit_code = codes.code(cause, 128 + number, Some(number));
        Shutdown { snapshot, stop, cause, exit_code }
    }

    /// Adds what the store says, and leaves the snapshot there; the cause, and whether the gateway
    /// was still starting.
    pub(crate) fn complete(&self, mut snapshot: Snapshot) -> (Snapshot, (ExitCause, bool)) {
        let known = self.look();
        let cause = cause_of(&known, Some(&snapshot));
        let was_starting = known.was_starting;
        snapshot.hide_identities(&|word| known.identities.contains(word));
        match known.problem {
            None => {
                let for_self = known
                    .takeover
                    .as_ref()
                    .map(|it| it.instance.is_some() && it.instance == self.instance);
                snapshot.takeover_marker_for_self = Ok(for_self);
                snapshot.takeover_marker = Ok(known.takeover);
                snapshot.planned_stop_marker = Ok(known.planned_stop);
            }
            Some(why) => snapshot = snapshot.without_store(why),
        }
        snapshot.recorded = self.record(&snapshot, cause, known.stop_budget);
        (snapshot, (cause, was_starting))
    }

    fn look(&self) -> Known {
        let Some(inner) = self.inner.upgrade() else {
            return Known::unknown("the store has been closed");
        };
        let read = with_budget(READ_WITHIN, || {
            inner.read(|connection| {
                // No row has this number.
                let id = self.instance.unwrap_or(InstanceId(0));
                let now = inner.boot_time();
                let known = Known {
                    was_starting: runtime::is_starting(connection, id)?,
                    has_just_panicked: inner.last_words.has_just_panicked(),
                    stop_budget: instances::by_id(connection, id)?
                        .map_or(stop_budget::believed(None), |record| record.stop_budget()),
                    identities: Identities::read(connection)?,
                    ..Known::default()
                };
                if !markers::exists(connection)? {
                    return Ok(known);
                }
                let open = |name: &MarkerName| {
                    markers::open_in_office(connection, now, id, &self.office, name)
                };
                Ok(Known {
                    asked: markers::asked_end(connection, now, id)?,
                    takeover: open(&MarkerName::takeover())?,
                    planned_stop: open(&MarkerName::planned_stop())?,
                    ..known
                })
            })
        });
        read.unwrap_or_else(|error| Known {
            has_just_panicked: inner.last_words.has_just_panicked(),
            // At least what this process holds itself, if that can be seen without waiting.
            identities: Identities::held_by(&inner),
            ..Known::unknown(error.to_string())
        })
    }

    fn record(&self, snapshot: &Snapshot, cause: ExitCause, budget: Duration) -> Fact<i64> {
        let Some(signal) = snapshot.signal_num else {
            return Err(Unavailable::new("there was no signal to put on record"));
        };
        let sender = snapshot.sender.as_ref().ok();
        self.say(
            NewShutdown {
                signal: Some(signal),
                sender_pid: snapshot.sender_pid(),
                sender_uid: sender.map(|sender| sender.uid),
                sender: Some(snapshot.sender_in_words().unwrap_or_else(|why| why.why().to_owned())),
                may_be_reload: snapshot.may_mean_reload(),
                cause: Some(cause.as_str()),
                snapshot: Some(snapshot.to_stored_json().to_string()),
                ..self.word(
                    snapshot.at_us / 1_000,
                    snapshot.at_boot_ms,
                    snapshot.boot_id.clone().ok(),
                )
            },
            WRITE_WITHIN,
            // Not sooner than its supervisor kills it, which is after the budget.
            stop_budget::deadline(budget),
        )
    }

    fn word(&self, at_ms: i64, at_boot_ms: i64, boot_id: Option<String>) -> NewShutdown {
        NewShutdown {
            at_ms,
            at_boot_ms,
            boot_id,
            instance: self.instance,
            office: self.instance.map(|_| self.office.clone()),
            pid: std::process::id(),
            ..NewShutdown::default()
        }
    }

    /// Leaves `word` on record within `within`, and that it was survived if it is after
    /// `survived_after`.
    fn say(&self, word: NewShutdown, within: Duration, survived_after: Duration) -> Fact<i64> {
        let Some(inner) = self.inner.upgrade() else {
            return Err(Unavailable::new("not written: the store has been closed"));
        };
        let (what, said_boot_ms) = (word.what(), word.at_boot_ms);
        let said = inner.say(word, within);
        if let (Some(instance), Ends::Later) = (self.instance, self.ends) {
            survival::expect(&inner, instance, what, said_boot_ms, survived_after);
        }
        match said {
            Ok(Some(id)) => Ok(id),
            Ok(None) => Err(Unavailable::new(
                "not written: the store's schema is older; the next `incumbent run` or `claim` \
                 brings it up to date",
            )),
            Err(error) if self.ends == Ends::Now || !Inner::may_be_said_later(&error) => {
                Err(Unavailable::new(format!("not written: {error}")))
            }
            Err(error) => Err(Unavailable::new(format!("not written yet: {error}"))),
        }
    }
}

impl Known {
    fn unknown(why: impl Into<String>) -> Self {
        // What it published is unknown: none is longer.
        let stop_budget = stop_budget::MAX;
        Self { problem: Some(why.into()), stop_budget, ..Self::default() }
    }
}

/// One answer of all that is known. Whoever asked comes before what was sent, and that before what
/// went wrong here.
fn cause_of(known: &Known, snapshot: Option<&Snapshot>) -> ExitCause {
    match &known.asked {
        Some(marker) if marker.name.as_str() == MarkerName::TAKEOVER => ExitCause::TakenOver,
        Some(_) => ExitCause::PlannedStop,
        None => match snapshot.and_then(Snapshot::cause) {
            Some(cause) => cause,
            None if known.has_just_panicked => ExitCause::Panicked,
            None => ExitCause::Exited,
        },
    }
}

/// Called by the hook, on the thread that panicked. Whatever it does must not panic.
fn record_panic(info: &PanicHookInfo<'_>) {
    // Whoever panics while this list is locked is not worth waiting for.
    let Some(recorders) = RECORDERS.try_lock().map(|recorders| recorders.clone()) else { return };
    let said = info.payload_as_str().unwrap_or("a value that is not text");
    let cut = &said[..said.floor_char_boundary(MESSAGE_LENGTH_MAX)];
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name").to_owned();
    let message = format!("thread {name:?} panicked: {}", redact::redact_line(cut));
    let place = info
        .location()
        .map(|place| format!("{}:{}:{}", place.file(), place.line(), place.column()));
    let at_ms = now_ms();
    let (at_boot_ms, boot_id) = (sys::boot_clock_ms(), sys::boot_id());
    // One limit for all offices together.
    with_budget(PANIC_WITHIN, || {
        for recorder in recorders {
            let Some(inner) = recorder.inner.upgrade() else { continue };
            // In a forked child its locks may be held by a thread that is not there.
            if inner.check_process().is_err() {
                continue;
            }
            inner.last_words.note_panic();
            let word = NewShutdown {
                message: Some(message.clone()),
                place: place.clone(),
                cause: Some(ExitCause::Panicked.as_str()),
                ..recorder.word(at_ms, at_boot_ms, boot_id.clone())
            };
            if let Err(why) = recorder.say(word, PANIC_WITHIN, survival::AFTER_PANIC) {
                tracing::warn!(%why, "a panic is not on record");
            }
        }
    });
}
