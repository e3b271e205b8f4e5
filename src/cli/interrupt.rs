//! Ctrl-C while a verb waits for somebody else: the wait ends, what stands now is said, and the
//! process ends by that signal, as whoever started it expects. A second one ends it at once.

use crate::cli::output::exit;
use crate::sys::supervise;
use crate::{Cancel, Error, ErrorKind};

/// What ends a wait.
pub(super) struct Interrupt(Cancel);

impl Interrupt {
    /// From now on SIGINT and SIGTERM end the wait alone. Where that cannot be had, they end the
    /// process as ever.
    pub(super) fn caught() -> Self {
        let interrupt = Cancel::new();
        if let Err(error) = interrupt.cancel_on_interrupt() {
            tracing::debug!(%error, "a signal ends this process without a word");
        }
        Self(interrupt)
    }

    /// For the wait. It is no question: with one a busy store has 50 ms for what is recorded last.
    pub(super) fn cancel(&self) -> Cancel {
        self.0.clone()
    }

    pub(super) fn came(&self) -> bool {
        self.0.is_cancelled()
    }

    /// What a wait that ended before it had begun says.
    pub(super) fn explained(&self, error: Error, what: &str) -> Error {
        if self.came() && error.kind() == ErrorKind::Busy {
            return Error::new(ErrorKind::Busy, format!("interrupted, and {what}: {error}"));
        }
        error
    }
}

/// Ends this process by the signal that cut a wait short. What was done nevertheless is done.
pub(super) fn end_by_it(code: i32) {
    if code != exit::OK
        && let Some(signal) = supervise::interrupted_by()
    {
        supervise::end_by(signal);
    }
}
