//! Signals that the host of the library has caught itself: a Python program, a runtime, a handler
//! of the gateway's own. No handler of ours is installed for them.

use std::sync::Arc;

use crate::forensics::Shutdown;
use crate::forensics::shutdown::cannot;
use crate::forensics::snapshot::received::ReceivedSignal;
use crate::process::exit_code::ExitCodes;
use crate::sys::{Fed, Feed};
use crate::{Error, Result, Tenure};

/// A signal that the host has caught, as it knows it; see [`Tenure::shutdown_by`]. Where it does
/// not know a siginfo, the sender is not known.
///
/// ```
/// use incumbent::forensics::HostSignal;
///
/// // From `signal.sigwaitinfo()`, a `signalfd`, or the `siginfo_t` of a handler:
/// let signal = HostSignal::new(15).siginfo(0, 4711, 1000);
/// assert_eq!(signal.number(), 15);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSignal(Fed);

impl HostSignal {
    /// The signal of this number, of which nothing else is known.
    #[must_use]
    pub const fn new(number: i32) -> Self {
        Self(Fed { number, info: None })
    }

    /// With what the kernel says of it: `si_code`, `si_pid` and `si_uid` (sigaction(2)), as they
    /// are. What names no sender (a key that was typed, a timer) is recognised.
    #[must_use]
    pub const fn siginfo(mut self, code: i32, pid: u32, uid: u32) -> Self {
        self.0.info = Some((code, pid, uid));
        self
    }

    /// As the platform counts them.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0.number
    }

    fn check(self) -> Result<()> {
        /// No platform has more.
        const NUMBER_MAX: i32 = 127;
        if (1..=NUMBER_MAX).contains(&self.number()) {
            return Ok(());
        }
        let message = format!("signal: {} is not the number of a signal", self.number());
        Err(Error::invalid(message)
            .with_hint(format!("signals are counted from 1 to {NUMBER_MAX}")))
    }

    fn received(self) -> ReceivedSignal {
        match self.0.caught() {
            Some(caught) => ReceivedSignal::by_us(caught),
            None => ReceivedSignal::ByOthers(Some(self.number())),
        }
    }
}

impl Tenure {
    /// What [`Tenure::on_shutdown`] hands out, for a signal that the host has caught: call it where
    /// its own loop or thread learns of one (`loop.add_signal_handler`, `tokio::signal`,
    /// `sigwait`), soon, because who sends a signal often ends at once. The snapshot is logged and
    /// recorded, and the marker that announced the stop is consumed, when it returns: within some
    /// milliseconds, and 300 ms where the store cannot be read.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = incumbent::Store::open(directory.path().join("state.db"))?;
    /// use incumbent::forensics::HostSignal;
    /// use incumbent::Claim;
    /// use incumbent::exit::{ExitCodes, Supervisor};
    ///
    /// let Claim::Granted(tenure) = store.profile("default")?.claim()? else { unreachable!() };
    /// let codes = ExitCodes::of(Supervisor::None);
    /// let shutdown = tenure.shutdown_by(HostSignal::new(15), &codes)?;
    /// assert_eq!(shutdown.snapshot.signal_num, Some(15));
    /// // Nobody announced it: as if the signal had ended the process.
    /// assert_eq!(shutdown.exit_code, 128 + 15);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a number that is not a signal's,
    /// [`Forked`](crate::ErrorKind::Forked) in a forked child.
    pub fn shutdown_by(&self, signal: HostSignal, exit_codes: &ExitCodes) -> Result<Shutdown> {
        signal.check()?;
        self.footing.inner.check_process()?;
        let inquiry = self.stop_inquiry();
        Ok(self.recorder().shut_down(signal.received(), signal.number(), &inquiry, exit_codes))
    }

    /// As [`Tenure::on_shutdown`], but no handler is installed: the host's own handler calls
    /// [`ShutdownFeed::feed`] for each signal. After a call of `on_signal` that has panicked, the
    /// next one comes anyway.
    ///
    /// A handler of SIGHUP that reads the configuration again feeds it as well: who asked for that
    /// is on record then. Whether it ends the gateway is for `on_signal` to decide, see
    /// [`Snapshot::may_mean_reload`](crate::forensics::Snapshot::may_mean_reload).
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) where no descriptor or thread is left,
    /// [`Forked`](crate::ErrorKind::Forked) in a forked child,
    /// [`Internal`](crate::ErrorKind::Internal) where neither can be made for another reason.
    pub fn shutdown_feed(
        &self,
        exit_codes: ExitCodes,
        mut on_signal: impl FnMut(Shutdown) + Send + 'static,
    ) -> Result<ShutdownFeed> {
        self.prepare_to_shut_down()?;
        let (recorder, inquiry) = (self.recorder(), self.stop_inquiry());
        let feed = Feed::start(move |fed| {
            let signal = HostSignal(fed);
            if let Err(error) = signal.check() {
                return tracing::warn!(%error, "was handed on as a signal");
            }
            let received = signal.received();
            on_signal(recorder.shut_down(received, signal.number(), &inquiry, &exit_codes));
        })
        .map_err(|error| cannot("take signals", &error))?;
        Ok(ShutdownFeed(Arc::new(feed)))
    }
}

/// Takes the signals that the host catches, until its last clone is dropped; see
/// [`Tenure::shutdown_feed`]. What was handed on by then is still handed out.
///
/// ```
/// use std::sync::{OnceLock, mpsc};
///
/// use incumbent::forensics::{HostSignal, ShutdownFeed};
/// use incumbent::{Claim, Store};
/// use incumbent::exit::{ExitCodes, Supervisor};
///
/// static FEED: OnceLock<ShutdownFeed> = OnceLock::new();
///
/// /// What the gateway has installed with sigaction(2).
/// extern "C" fn handler(signal: i32) {
///     if let Some(feed) = FEED.get() {
///         feed.feed(HostSignal::new(signal));
///     }
/// }
///
/// # let directory = tempfile::tempdir()?;
/// # let store = Store::open(directory.path().join("state.db"))?;
/// # let Claim::Granted(tenure) = store.profile("default")?.claim()? else { unreachable!() };
/// let (ended, end) = mpsc::channel();
/// let codes = ExitCodes::of(Supervisor::None);
/// let feed = tenure.shutdown_feed(codes, move |shutdown| {
///     let _ = ended.send(shutdown);
/// })?;
/// FEED.set(feed).unwrap();
/// // The kernel calls it.
/// handler(2);
/// assert_eq!(end.recv()?.snapshot.signal_num, Some(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "dropping it ends the thread that takes the signals"]
pub struct ShutdownFeed(Arc<Feed>);

impl ShutdownFeed {
    /// Hands a signal on. May be called in a signal handler, by any thread, any number of times: it
    /// takes no lock, allocates nothing, does not wait, and leaves `errno` as it is. While 128 are
    /// waiting to be taken it drops what comes. In a forked child it does nothing.
    pub fn feed(&self, signal: HostSignal) {
        self.0.feed(signal.0);
    }
}
