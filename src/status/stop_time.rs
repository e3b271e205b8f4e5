//! How long a reported holder may take to stop.

use std::time::Duration;

use crate::status::report::Report;
use crate::stop_budget;

impl Report {
    /// How long the holder may take to stop: what it published, as far as that is believed, else
    /// the default of 90 s.
    #[must_use]
    pub fn stop_time(&self) -> Duration {
        stop_budget::believed(self.stop_budget)
    }
}
