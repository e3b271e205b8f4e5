//! `gateway_state.json`: what the older gateway said of itself, last.

use std::path::Path;

use serde_json::{Map, Value};

use crate::claim::older::modified_ms;
use crate::liveness::{DeadReason, Ruling};
use crate::process::older::wire::PidRecord;
use crate::process::older::{LOCK_FILE, STATUS_FILE, wire};
use crate::records::instances::EndedInstance;
use crate::records::runtime::Speaker;
use crate::records::{Record, instances};
use crate::status::platform::PlatformUpdate;
use crate::status::write;
use crate::transfer::import::{Gateway, Import, ImportFinding};
use crate::{InstanceId, Reason, Result, StatusUpdate, sys};

/// Platforms that are read: an instance cannot speak of more.
const PLATFORMS_MAX: usize = 256;

/// Who wrote what was imported.
const WRITER: &str = "imported from gateway_state.json";

impl Import<'_> {
    pub(crate) fn status(&mut self, gateway: Option<&Gateway>) -> Result<()> {
        let file = self.files.home.join(STATUS_FILE);
        let said = wire::read_object(&file)
            .and_then(|object| PidRecord::of(&object).map(|record| (object, record)));
        let finding = match said {
            Ok((object, record)) => Some(self.status_of(&object, &record, gateway, &file)?),
            Err(why) => ImportFinding::unusable(why),
        };
        if let Some(finding) = finding {
            self.add(file, finding);
        }
        Ok(())
    }

    fn status_of(
        &mut self,
        object: &Map<String, Value>,
        record: &PidRecord,
        gateway: Option<&Gateway>,
        file: &Path,
    ) -> Result<ImportFinding> {
        let pid = Some(record.pid);
        if let Some(owner) = &record.owner {
            return self.status_of_run(record, owner, file);
        }
        let at_ms = object.get("updated_at").and_then(wire::time_ms).or_else(|| modified_ms(file));
        let at_ms = at_ms.unwrap_or_else(|| self.tx.now_ms()).min(self.tx.now_ms());
        if let Some(gateway) = gateway.filter(|gateway| gateway.wrote(record)) {
            self.say(gateway.record.id, pid, object, at_ms)?;
            return Ok(ImportFinding::imported("of_the_gateway", pid));
        }
        let reason = match self.judge(record, file).1 {
            Ruling::Dead(reason) => reason,
            Ruling::Alive(_) => {
                let why = "its process lives, and is not the gateway that has the lock";
                return Ok(ImportFinding::live("left_alone", pid).detail(why));
            }
            Ruling::Unknown(reason) => {
                return Ok(ImportFinding::of(Ruling::Unknown(reason), pid));
            }
        };
        let id = self.past_instance(record, reason, at_ms)?;
        self.say(id, pid, object, at_ms)?;
        Ok(ImportFinding::imported(Reason::from(reason).as_str(), pid))
    }

    /// The status of a `run` of ours is not imported: its row says more.
    fn status_of_run(
        &self,
        record: &PidRecord,
        owner: &wire::HoldingRun,
        file: &Path,
    ) -> Result<ImportFinding> {
        let pid = Some(record.pid);
        // Its pid may be that of another container.
        let is_it = |row: &Record| row.pid == pid && row.start_time == record.start_time();
        let (lives, whose) = if owner.store == self.inner.store_uuid()? {
            let lives = instances::all_live(self.tx)?.iter().any(is_it);
            (lives, "here; `incumbent status` says more".to_owned())
        } else {
            let lives = !matches!(self.judge(record, file).1, Ruling::Dead(_));
            (lives, format!("in the store {}", owner.db))
        };
        let finding = if lives {
            ImportFinding::live("on_record", pid)
        } else {
            ImportFinding::stale("on_record", pid)
        };
        Ok(finding.detail(format!("it belongs to a `run` that is on record {whose}")))
    }

    /// The row of a gateway that has ended: one that somebody had met, or one that is made for it.
    fn past_instance(
        &mut self,
        record: &PidRecord,
        reason: DeadReason,
        at_ms: i64,
    ) -> Result<InstanceId> {
        let path = self.files.home.join(LOCK_FILE);
        let anchor = path.to_string_lossy();
        let known =
            instances::of_older(self.tx, self.office, record.pid, record.start_time, &anchor)?;
        if let Some(id) = known {
            return Ok(id);
        }
        self.changes += 1;
        EndedInstance {
            office: self.office,
            pid: record.pid,
            start_time_ticks: record.start_time,
            argv: &crate::process::command_line::redact::redact(&record.argv),
            host: self.inner.observer().host.as_deref(),
            anchor: &anchor,
            at_ms,
            reason: Reason::from(reason).as_str(),
            detail: "imported from gateway_state.json",
        }
        .insert(self.tx)
    }

    /// Writes what the file says, unless it was said already.
    fn say(
        &mut self,
        id: InstanceId,
        pid: Option<sys::Pid>,
        object: &Map<String, Value>,
        at_ms: i64,
    ) -> Result<()> {
        let owner = Speaker {
            id,
            office: self.office,
            pid,
            writer: WRITER,
            writer_pid: self.inner.observer().pid,
        };
        if write::apply_if_news(self.tx, &owner, &update(object), at_ms)? {
            self.changes += 1;
        }
        Ok(())
    }
}

/// What of the file can be said. A field of another type, or with a word that nobody could say, is
/// left out: the rest is as good.
fn update(object: &Map<String, Value>) -> StatusUpdate {
    let mut update = StatusUpdate::new();
    if let Some(state) = text(object, "gateway_state") {
        update = if_sayable(update, |update| update.state(state));
    }
    if let Some(reason) = text(object, "exit_reason") {
        update = update.exit_reason(reason);
    }
    if let Some(requested) = object.get("restart_requested").and_then(Value::as_bool) {
        update = update.restart_requested(requested);
    }
    if let Some(count) = object.get("active_agents").and_then(Value::as_u64) {
        update = if_sayable(update, |update| update.active_agents(count));
    }
    let platforms = object.get("platforms").and_then(Value::as_object);
    for (name, said) in platforms.into_iter().flatten().take(PLATFORMS_MAX) {
        if let Some(said) = said.as_object() {
            update = if_sayable(update, |update| update.platform(platform(name, said)));
        }
    }
    update
}

fn platform(name: &str, said: &Map<String, Value>) -> PlatformUpdate {
    let is_sayable = |it: &PlatformUpdate| StatusUpdate::new().platform(it.clone()).check().is_ok();
    let mut platform = PlatformUpdate::new(name);
    if let Some(state) = text(said, "state") {
        platform = Some(platform.clone().state(state)).filter(is_sayable).unwrap_or(platform);
    }
    if let Some(code) = text(said, "error_code") {
        platform = Some(platform.clone().error_code(code)).filter(is_sayable).unwrap_or(platform);
    }
    if let Some(message) = text(said, "error_message") {
        platform = platform.error_message(message);
    }
    platform
}

/// The update with `more`, or without if nobody could say that.
fn if_sayable(
    update: StatusUpdate,
    more: impl FnOnce(StatusUpdate) -> StatusUpdate,
) -> StatusUpdate {
    Some(more(update.clone())).filter(|more| more.check().is_ok()).unwrap_or(update)
}

fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
    object.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}
