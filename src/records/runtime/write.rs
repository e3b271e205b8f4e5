//! Writes what a gateway says.

use rusqlite::named_params;
use serde_json::{Value, json};

use crate::records::events::EventRecord;
use crate::records::runtime::said::{PlatformStatus, RuntimeStatus};
use crate::records::runtime::{ASLEEP, MEMORY, serves};
use crate::store::Tx;
use crate::{InstanceId, Office, ProfileName, Result, sys};

/// Notes that all of what an instance says now was said at another time, in Unix milliseconds.
pub(crate) fn said_at(tx: &Tx<'_>, id: InstanceId, at_ms: i64) -> Result<()> {
    for table in ["runtime_status", "platform_status"] {
        let sql = format!(
            "UPDATE {table} SET updated_at_ms = ?2, state_since_at_ms = min(state_since_at_ms, ?2)
             WHERE instance_id = ?1"
        );
        tx.prepare_cached(&sql)?.execute((id.0, at_ms))?;
    }
    Ok(())
}

/// The row's owner, as events name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speaker<'a> {
    pub(crate) id: InstanceId,
    pub(crate) office: &'a Office,
    pub(crate) pid: Option<sys::Pid>,
    pub(crate) writer: &'a str,
    pub(crate) writer_pid: sys::Pid,
}

impl Speaker<'_> {
    fn record(
        &self,
        tx: &Tx<'_>,
        event: &'static str,
        office: &Office,
        detail: Value,
    ) -> Result<()> {
        tx.record(&EventRecord {
            event,
            office: Some(office),
            instance: Some(self.id),
            pid: self.pid,
            detail: Some(detail),
            ..EventRecord::default()
        })
    }

    /// Writes what the instance says of itself now; `before` is what it said until now.
    pub(crate) fn set_runtime(
        &self,
        tx: &Tx<'_>,
        before: Option<&RuntimeStatus>,
        now: &RuntimeStatus,
    ) -> Result<()> {
        // Its own columns: those of a heartbeat, and of a later version, stay.
        const SQL: &str = "INSERT INTO runtime_status (instance_id, state, state_since_at_ms,
                exit_reason, restart_requested, active_agents, extra, heartbeat_boot_ms, writer,
                writer_pid, updated_at_ms)
             VALUES (:instance_id, :state, :state_since, :exit_reason, :restart_requested,
                :active_agents, :extra, :heartbeat, :writer, :writer_pid, :now)
             ON CONFLICT (instance_id) DO UPDATE SET state = excluded.state,
                state_since_at_ms = excluded.state_since_at_ms,
                exit_reason = excluded.exit_reason,
                restart_requested = excluded.restart_requested,
                active_agents = excluded.active_agents, extra = excluded.extra,
                heartbeat_boot_ms = excluded.heartbeat_boot_ms, writer = excluded.writer,
                writer_pid = excluded.writer_pid, updated_at_ms = excluded.updated_at_ms";
        tx.prepare_cached(SQL)?.execute(named_params! {
            ":instance_id": self.id.0,
            ":state": now.state,
            ":state_since": now.state_since_ms,
            ":exit_reason": now.exit_reason,
            ":restart_requested": now.restart_requested,
            ":active_agents": now.active_agents.and_then(|count| i64::try_from(count).ok()),
            ":extra": now.extra.as_ref().map(Value::to_string),
            ":heartbeat": now.heartbeat_boot_ms,
            ":writer": self.writer,
            ":writer_pid": self.writer_pid,
            ":now": tx.now_ms(),
        })?;
        // What is damaged is replaced, by nothing where it was not said anew.
        for column in [ASLEEP, MEMORY] {
            if before.is_some_and(|before| before.damaged.contains(&column)) {
                let sql =
                    format!("UPDATE runtime_status SET {column} = NULL WHERE instance_id = ?1");
                tx.prepare_cached(&sql)?.execute([self.id.0])?;
            }
        }
        if before.unwrap_or(&RuntimeStatus::default()).says_the_same(now) {
            return Ok(());
        }
        self.record(tx, "status_changed", self.office, now.as_event())
    }

    /// Writes what the instance says of one platform now.
    pub(crate) fn set_platform(
        &self,
        tx: &Tx<'_>,
        profile: &ProfileName,
        before: Option<&PlatformStatus>,
        now: &PlatformStatus,
    ) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO platform_status (instance_id, profile, platform,
                state, state_since_at_ms, error_code, error_message, needs_attention,
                retrying_since_at_ms, extra, writer, writer_pid, updated_at_ms)
             VALUES (:instance_id, :profile, :platform, :state, :state_since, :error_code,
                :error_message, :needs_attention, :retrying_since, :extra, :writer, :writer_pid,
                :now)";
        tx.prepare_cached(SQL)?.execute(named_params! {
            ":instance_id": self.id.0,
            ":profile": profile.as_str(),
            ":platform": now.platform,
            ":state": now.state,
            ":state_since": now.state_since_ms,
            ":error_code": now.error_code,
            ":error_message": now.error_message,
            ":needs_attention": now.needs_attention,
            ":retrying_since": now.retrying_since_ms,
            ":extra": now.extra.as_ref().map(Value::to_string),
            ":writer": self.writer,
            ":writer_pid": self.writer_pid,
            ":now": tx.now_ms(),
        })?;
        if before.is_some_and(|before| before.says_the_same(now)) {
            return Ok(());
        }
        self.record(tx, "platform_changed", &self.office_of(profile), now.as_event())
    }

    /// Forgets one platform of a profile; `None`: all of them.
    pub(crate) fn remove_platforms(
        &self,
        tx: &Tx<'_>,
        profile: &ProfileName,
        platform: Option<&str>,
    ) -> Result<()> {
        let removed: Vec<String> = tx
            .prepare_cached(
                "DELETE FROM platform_status
                 WHERE instance_id = ?1 AND profile = ?2 AND (?3 IS NULL OR platform = ?3)
                 RETURNING platform",
            )?
            .query_map((self.id.0, profile.as_str(), platform), |row| {
                Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned())
            })?
            .collect::<rusqlite::Result<_>>()?;
        for platform in removed {
            let detail = json!({"platform": platform});
            self.record(tx, "platform_removed", &self.office_of(profile), detail)?;
        }
        Ok(())
    }

    /// Writes which profiles the instance serves, in this order, each once. What it said of the
    /// platforms of the others goes.
    pub(crate) fn set_serves(&self, tx: &Tx<'_>, profiles: &[ProfileName]) -> Result<()> {
        let before = serves(tx, self.id)?;
        for profile in before.iter().filter(|profile| !profiles.contains(profile)) {
            tx.prepare_cached("DELETE FROM serves WHERE instance_id = ?1 AND profile = ?2")?
                .execute((self.id.0, profile.as_str()))?;
            if *profile != self.office.profile {
                self.remove_platforms(tx, profile, None)?;
                let detail = json!({"served_by": null});
                self.record(tx, "served_by_changed", &self.office_of(profile), detail)?;
            }
        }
        for (position, profile) in (0_i64..).zip(profiles) {
            tx.prepare_cached(
                "INSERT INTO serves (instance_id, profile, since_at_ms, position)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET position = excluded.position",
            )?
            .execute((self.id.0, profile.as_str(), tx.now_ms(), position))?;
            if !before.contains(profile) && *profile != self.office.profile {
                let detail = json!({"served_by": self.office.profile.as_str()});
                self.record(tx, "served_by_changed", &self.office_of(profile), detail)?;
            }
        }
        let now = serves(tx, self.id)?;
        if now == before {
            return Ok(());
        }
        let names: Vec<&str> = now.iter().map(ProfileName::as_str).collect();
        self.record(tx, "serves_changed", self.office, json!({"serves": names}))
    }

    fn office_of(&self, profile: &ProfileName) -> Office {
        Office { profile: profile.clone(), kind: self.office.kind.clone() }
    }
}
