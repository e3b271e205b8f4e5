//! Ctrl-Z: the run stops with its command, and goes on with it.
//!
//! A command in a group or session of its own gets no key of the terminal. The shell that waits for
//! us sees us stopped, and `fg` continues us; what that sends to the command is passed on as any
//! other signal (FIELD-BUGS row 116). Where there is no such shell (`ssh -t`, `xterm -e`), the
//! kernel stops nobody by that key, and nor do we: nothing would let us go on.

use crate::run::supervised::Supervised;
use crate::sys::{Caught, jobs};

impl Supervised<'_> {
    /// Stops, and returns once somebody has let us go on.
    pub(super) fn suspend(&mut self, caught: &Caught) {
        let child = self.child().map(|child| child.0.pid);
        // In any case: what a witness has seen of it explains no later one.
        let has_it = child.is_none_or(|pid| self.beside.delivery.has_reached(pid, caught));
        if !jobs::is_of_a_shell() {
            return;
        }
        if let Some(pid) = child.filter(|_| !has_it) {
            let _ = self.signal(jobs::signal_that_stops(pid));
        }
        jobs::stop_ourselves();
    }
}
