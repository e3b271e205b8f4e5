//! A command that promised a sign of life and gives none is started again, where that is wanted.
//!
//! It is asked for as by anybody else, by a marker: so it is on record, and the command is stopped
//! by the rules of a stop. The next command has promised nothing yet, and has its time to start.

use std::time::Duration;

use crate::Result;
use crate::clock::{length, millis, of_millis};
use crate::office::takeover::restart::RestartOptions;
use crate::patience::with_budget;
use crate::records::{instances, runtime};
use crate::run::supervised::{LOOK_BUDGET, Supervised};

impl Supervised<'_> {
    pub(super) fn look_for_signs_of_life(&mut self) {
        let Some(patience) = self.run.restart_unresponsive else { return };
        if self.child().is_none() || self.ending.is_some() || self.is_asked_to_end() {
            return;
        }
        let asked = with_budget(LOOK_BUDGET, || match self.silence()? {
            Some((silent, overdue)) if overdue >= patience => self.ask_for_restart(silent),
            Some(_) | None => Ok(()),
        });
        if let Err(error) = asked {
            self.doubt(&format!("cannot see whether the command is responsive: {error}"));
        }
    }

    /// For how long the command has given no sign of life, and for how long it has been
    /// unresponsive by that.
    fn silence(&self) -> Result<Option<(Duration, Duration)>> {
        let inner = &self.store.inner;
        inner.read(|connection| {
            if !runtime::exists(connection)? {
                return Ok(None);
            }
            let id = self.tenure.instance();
            let Some(record) = instances::by_id(connection, id)? else { return Ok(None) };
            let said = runtime::runtime(connection, id)?;
            let silent = runtime::unresponsive_for(inner, &record, said.as_ref());
            let promised = of_millis(record.heartbeat_every_ms.unwrap_or(0)).saturating_mul(2);
            Ok(silent.map(|silent| (silent, silent.saturating_sub(promised))))
        })
    }

    fn ask_for_restart(&self, silent: Duration) -> Result<()> {
        let silent = length(millis(silent));
        let options = RestartOptions::new()
            .by(format!("its run (pid {})", std::process::id()))
            .reason(format!("no sign of life for {silent}"))
            .timeout(Duration::ZERO);
        let profile = self.run.profile(&self.store)?;
        drop(profile.restart(&self.run.claim.kind, &options)?);
        Ok(())
    }
}
