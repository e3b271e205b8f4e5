//! What a `run` is told while it waits: signals, and the end of a child.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;

use crate::forensics::Fact;
use crate::forensics::snapshot::received;
use crate::process::exit_code::{ExitCause, ExitCodes};
use crate::run::notify::Notification;
use crate::run::plan::Extent;
use crate::sys::signals::Catcher;
use crate::sys::{Caught, Received, Shortage, jobs, signals, supervise};
use crate::{Cancel, Error, Result, sys};

/// Between two looks at what may have changed, where nothing tells of it.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What reaches the run, from the thread that catches signals.
pub(crate) struct Inbox {
    pub(super) received: Receiver<RunEvent>,
    /// For what else the run hears of.
    sender: Sender<RunEvent>,
    /// The wait for the office, which a signal ends: this thread waits itself, because there may be
    /// no other one (FIELD-BUGS row 111).
    waiting: Arc<Mutex<Option<Cancel>>>,
    _catcher: Option<Catcher>,
}

impl Inbox {
    /// In a process that is nothing beside the run all children are collected, and signals stay
    /// caught.
    pub(super) fn open(extent: Extent) -> Result<Self> {
        let is_whole = extent == Extent::Whole;
        let (sender, received) = mpsc::channel();
        let of_inbox = sender.clone();
        let waiting = Arc::<Mutex<Option<Cancel>>>::default();
        let seen_waiting = Arc::clone(&waiting);
        let on_event = move |received: Received| {
            let event = RunEvent::from(received);
            let asks_to_end =
                matches!(&event, RunEvent::Signal(signal) if signal.received.is_some());
            // Held while it reaps: once the wait is over, the command's end is the run's own.
            let waiting = seen_waiting.lock();
            if is_whole && waiting.is_some() && matches!(event, RunEvent::ChildEnded) {
                // As PID 1 we reap orphans while we wait, too.
                drop(supervise::reap());
            }
            drop(sender.send(event));
            if let Some(cancel) = waiting.as_ref().filter(|_| asks_to_end) {
                cancel.cancel();
            }
        };
        let catcher =
            supervise::catch_signals(on_event).map_err(|error| match Shortage::of(&error) {
                Some(shortage) => Error::shortage(shortage, "catch signals"),
                None => Error::internal(format!("cannot catch signals: {error}")),
            })?;
        let catcher = if is_whole {
            // One that comes while we end does not change what we end with.
            std::mem::forget(catcher);
            None
        } else {
            Some(catcher)
        };
        Ok(Self { received, sender: of_inbox, waiting, _catcher: catcher })
    }

    /// For whoever else has something to tell.
    pub(super) fn sender(&self) -> Sender<RunEvent> {
        self.sender.clone()
    }

    /// Hears of Ctrl-Z from now on, which stops nobody then.
    pub(super) fn hear_suspension(&self) -> Option<Catcher> {
        let sender = self.sender.clone();
        let on_suspension = move |caught| drop(sender.send(RunEvent::Suspended(caught)));
        match jobs::catch_suspension(on_suspension) {
            Ok(catcher) => Some(catcher),
            Err(error) => {
                tracing::debug!(%error, "a key at the terminal stops the run alone");
                None
            }
        }
    }

    /// Waits by `wait`, which a signal that asks us to end cancels; that signal.
    pub(super) fn while_waiting<T>(
        &self,
        cancel: &Cancel,
        wait: impl FnOnce() -> T,
    ) -> (T, Option<Signalled>) {
        *self.waiting.lock() = Some(cancel.clone());
        let before = self.request_to_end();
        if before.is_some() {
            cancel.cancel();
        }
        let waited = wait();
        *self.waiting.lock() = None;
        (waited, self.request_to_end().or(before))
    }

    /// The last signal that came until now and asks us to end. Nothing else matters before the
    /// start.
    pub(super) fn request_to_end(&self) -> Option<Signalled> {
        let signals = self.received.try_iter().filter_map(|event| match event {
            RunEvent::Signal(signal) => Signalled::of(&signal),
            RunEvent::ChildEnded
            | RunEvent::Suspended(_)
            | RunEvent::Notified(_)
            | RunEvent::Committed
            | RunEvent::CommandLock(_) => None,
        });
        signals.last()
    }
}

/// What reaches the run.
pub(crate) enum RunEvent {
    ChildEnded,
    Signal(Signal),
    /// Ctrl-Z.
    Suspended(Caught),
    /// The command told its service manager something.
    Notified(Notification),
    /// Something was committed to the store.
    Committed,
    /// Nobody holds the command's lock any more, or who waits for that cannot.
    CommandLock(Watched),
}

/// Whether the kernel tells when the command loses its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    Yes,
    /// Not yet, or not any more: it has told.
    No,
    Cannot,
}

/// A signal, and who sent it: whoever only sends one has ended by the time anybody else looks. All
/// the rest is looked at when it was passed on.
pub(crate) struct Signal {
    pub(super) caught: Caught,
    /// For one that asks to end.
    pub(super) received: Option<received::ReceivedSignal>,
}

impl From<Received> for RunEvent {
    fn from(received: Received) -> Self {
        match received {
            Received::ChildEnded => Self::ChildEnded,
            Received::Signal(caught) => {
                let received = signals::asks_to_end(caught.number)
                    .then(|| received::ReceivedSignal::by_us(caught));
                Self::Signal(Signal { caught, received })
            }
        }
    }
}

/// A signal that asks us to end.
#[derive(Clone, Debug)]
pub(crate) struct Signalled {
    pub(super) number: i32,
    /// Who sent it, where that can be seen.
    pub(super) sender: Option<sys::Pid>,
    /// The same for people, or why it cannot be.
    pub(super) by: Fact<String>,
    /// What it means if nobody announced it.
    pub(super) cause: ExitCause,
    /// Whether it may be a request to read the configuration again.
    pub(super) may_mean_reload: bool,
}

impl Signalled {
    /// `None` for a signal that does not ask to end.
    pub(super) fn of(signal: &Signal) -> Option<Self> {
        let received = signal.received.as_ref()?;
        Some(Self {
            number: signal.caught.number,
            sender: received.sender_pid(),
            by: received.sender_in_words(),
            cause: received.cause(),
            may_mean_reload: received.may_mean_reload(),
        })
    }

    /// For a run that has started nothing yet.
    pub(super) fn exit_code(&self, exit_codes: &ExitCodes) -> i32 {
        exit_codes.code(self.cause, 128 + self.number, Some(self.number))
    }
}
