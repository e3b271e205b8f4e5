//! What a stop can be given.

use std::time::Duration;

use crate::Cancel;
use crate::office::takeover::request_options::{RequestOptions, request_setters};

/// How to stop an office's holder, see [`Profile::stop`](crate::Profile::stop).
#[derive(Clone, Debug, Default)]
pub struct StopOptions {
    pub(super) kill: bool,
    pub(super) desired: bool,
    pub(super) reap: bool,
    pub(super) request: RequestOptions,
}

impl StopOptions {
    /// Asks the holder to end, and waits for as long as it said it may take. If it goes on after
    /// that, it is left alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Kills it when its time is over.
    #[must_use]
    pub fn kill(mut self) -> Self {
        self.kill = true;
        self
    }

    /// Also records that the profile is to stay stopped, for those who ask.
    #[must_use]
    pub fn desired_stopped(mut self) -> Self {
        self.desired = true;
        self
    }

    /// Also ends what it had started and left behind: asks each process, and kills it after 2 s.
    /// But for those that hold an office of this store themselves, and what they have started.
    /// Whoever is left is named in [`StopReport::left_over`](crate::stop::StopReport::left_over).
    #[must_use]
    pub fn reap(mut self) -> Self {
        self.reap = true;
        self
    }
}

request_setters!(StopOptions);
