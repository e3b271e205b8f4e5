//! The runtime status of a command that talks to its service manager alone.
//!
//! READY, STOPPING, STATUS and WATCHDOG become a state, a text (`status` in `extra`) and a
//! heartbeat, unless the command itself says how it is (`status-set`, or the library): then that is
//! its word.

use std::time::Duration;

use serde_json::json;

use crate::clock::Deadline;
use crate::patience::with_budget;
use crate::process::command_line::redact::redact_text;
use crate::records::{instances, runtime};
use crate::run::notify::{self, Notification};
use crate::run::start::Child;
use crate::run::supervised::{LOOK_BUDGET, Supervised};
use crate::status::field::Field;
use crate::{ErrorKind, Result, StatusUpdate, stop_budget};

impl Supervised<'_> {
    pub(super) fn heed(&mut self, said: Notification) {
        if let Some(pid) = said.main_pid
            && !self.name_main_process(pid)
        {
            tracing::debug!(pid, "what the command calls its main process is not of it");
        }
        self.name_speakers();
        if let Some(more) = said.extends {
            self.give_time(more);
        }
        self.beside.said.add(said);
        self.write_said();
    }

    /// A command that ends may say that it needs more time; not for ever.
    fn give_time(&mut self, more: Duration) {
        let until = Deadline::after(more.min(stop_budget::MAX));
        if let Some(ending) = self.ending.as_mut() {
            ending.kill_at = ending.kill_at.later(until);
        }
        if let Some(call) = self.asked.as_mut().and_then(|asked| asked.last_call.as_mut()) {
            call.kill_at = call.kill_at.later(until);
        }
    }

    /// Whose word counts from now on; once the command has ended, its last ones do.
    fn name_speakers(&self) {
        if let Some(Child(command)) = self.child() {
            let main = self.main.map(|main| main.pid);
            notify::name_command(command.pid, command.start_time, main);
        }
    }

    /// Writes what was said, if it is time. What cannot be written now is tried again.
    pub(super) fn write_said(&mut self) {
        self.name_speakers();
        if !self.beside.said.is_due() {
            return;
        }
        self.beside.said.is_being_written();
        match with_budget(LOOK_BUDGET, || self.try_to_write_said()) {
            Ok(promised) => self.beside.said.is_written(promised),
            Err(error) => {
                tracing::debug!(%error, "what the command told its manager is not on record");
                let passes = matches!(error.kind(), ErrorKind::Busy | ErrorKind::CannotWrite);
                if !passes {
                    let promised = self.beside.said.promised;
                    self.beside.said.is_written(promised);
                }
            }
        }
    }

    /// Returns the promise of a heartbeat that is on record, and ours.
    fn try_to_write_said(&self) -> Result<Option<Duration>> {
        let (inner, id) = (&self.store.inner, self.tenure.instance());
        let said = &self.beside.said;
        let (speaks_itself, beats_itself) = inner.read(|connection| {
            if !runtime::exists(connection)? {
                return Ok((false, false));
            }
            let own = inner.observer().pid;
            let row = runtime::runtime(connection, id)?;
            let nothing = runtime::RuntimeStatus::default();
            let by_another = |row: &runtime::RuntimeStatus| {
                row.writer_pid != Some(own) && !row.says_the_same(&nothing)
            };
            let promised = instances::by_id(connection, id)?.and_then(|it| it.heartbeat_every_ms);
            let beats_itself = promised.is_some() && said.promised.is_none();
            Ok((row.as_ref().is_some_and(by_another), beats_itself))
        })?;
        let mut update = StatusUpdate::new();
        if !speaks_itself {
            if let Some(state) = said.state {
                update = update.state(state);
            }
            update = match said.status.as_deref() {
                Some("") => update.extra(Field::Clear),
                Some(text) => update.extra(json!({"status": presentable(text)})),
                None => update,
            };
        }
        let mut promised = said.promised;
        if said.beats && !beats_itself {
            update = match said.cadence.filter(|cadence| promised != Some(*cadence)) {
                Some(cadence) => update.heartbeat_every(cadence),
                None => update.heartbeat(),
            };
            promised = said.cadence.or(promised);
        }
        if !update.is_empty() {
            self.tenure.update_status_of_command(&update)?;
        }
        Ok(promised)
    }
}

/// Without what looks like a secret, and not too long.
fn presentable(text: &str) -> String {
    const LENGTH_MAX: usize = 1_024;
    let mut text = redact_text(text);
    text.truncate(text.floor_char_boundary(LENGTH_MAX));
    text
}
