//! A thread that ends with its handle, and what it wakes.

pub(crate) mod readiness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::sys::Shortage;
use crate::{Error, ErrorKind, Result};

/// A background thread does not spin.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// A thread that does the same again and again. Dropping it ends and joins it.
#[derive(Debug)]
pub(crate) struct BackgroundThread {
    creator_pid: u32,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl BackgroundThread {
    /// Calls `step` at once and every `pause`, until it says that it is done.
    pub(crate) fn start(
        name: &str,
        pause: Duration,
        mut step: impl FnMut() -> bool + Send + 'static,
    ) -> Result<Self> {
        Self::start_paced(name, move || (!step()).then_some(pause))
    }

    /// Calls `step` at once, and again after the pause that it says, until it says none.
    pub(crate) fn start_paced(
        name: &str,
        mut step: impl FnMut() -> Option<Duration> + Send + 'static,
    ) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let seen_ended = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while !seen_ended.load(Ordering::Acquire)
                    && let Some(pause) = step()
                {
                    std::thread::park_timeout(pause.max(PAUSE_MIN));
                }
            })
            .map_err(|error| match Shortage::of(&error) {
                Some(shortage) => Error::shortage(shortage, "start a thread"),
                None => Error::internal(format!("cannot start a thread: {error}")),
            })?;
        Ok(Self { creator_pid: std::process::id(), ended, thread: Some(thread) })
    }

    /// A forked child has the handle, and no thread.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.creator_pid == std::process::id() {
            return Ok(());
        }
        let message = "this watch belongs to the parent process, which forked this one";
        Err(Error::new(ErrorKind::Forked, message)
            .with_hint("open the store again here, and watch what this process holds"))
    }
}

impl Drop for BackgroundThread {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // In a forked child there is no such thread.
            if self.creator_pid != std::process::id() {
                return std::mem::forget(thread);
            }
            thread.thread().unpark();
            // Not when the callback itself drops the watch: a thread cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}
