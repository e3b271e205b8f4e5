//! A mirror of what the gateway says, for programs that still read `gateway_state.json`, and of its
//! heartbeat.
//!
//! The lock and the record of the older program are the run's already ([`Hold`]); this adds what
//! the command says. It is information: a file that cannot be written stops no gateway.
//!
//! [`Hold`]: crate::process::older::hold::Hold

use crate::run::plan::Mirror;
use crate::run::supervised::Supervised;
use crate::state;
use crate::status::answer;
use crate::transfer::export::said;

impl Supervised<'_> {
    /// Writes each file again where it does not say what the store says, or is gone.
    pub(super) fn mirror(&mut self) {
        let Some(hold) = self.hold.as_mut().filter(|_| self.run.mirror == Mirror::On) else {
            return;
        };
        let report = match answer::report(&self.store.inner, self.tenure.office()) {
            Ok(report) => report,
            Err(error) => {
                tracing::debug!(%error, "older programs read an older state");
                return;
            }
        };
        // What follows on another one is not ours to show.
        if report.instance != Some(self.tenure.instance()) {
            return;
        }
        // The time of the last word, so that the same words are the same file.
        let since_ms = report.since_ms.unwrap_or(0);
        hold.show(said(&report, state::RUNNING, since_ms));
        if let Some(at_ms) = report.heartbeat_at_ms {
            hold.show_heartbeat(at_ms);
        }
    }
}
