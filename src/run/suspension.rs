//! Ctrl-Z: the run stops with its command, and goes on with it.
//!
//! A command in a group or session of its own gets no key of the terminal. The shell that waits for
//! us sees us stopped, and `fg` continues us; what that sends to the command is passed on as any
//! other signal (FIELD-BUGS row 116).

use crate::run::supervised::Supervised;
use crate::sys::{Caught, jobs};

impl Supervised<'_> {
    /// Stops, and returns once somebody has let us go on.
    pub(super) fn suspend(&mut self, caught: &Caught) {
        if let Some(child) = self.child()
            && !self.beside.delivery.has_reached(child.0.pid, caught)
        {
            let _ = self.signal(jobs::signal_that_stops(child.0.pid));
        }
        jobs::stop_ourselves();
    }
}
