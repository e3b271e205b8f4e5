//! New rows, and what changes in one while it lives.

use rusqlite::named_params;

use crate::clock::of_millis;
use crate::process::command_line;
use crate::process::command_line::mask;
use crate::process::{Observer, Subject};
use crate::records::instances::row::{Command, Origin};
use crate::store::ourselves::AnchorFile;
use crate::store::{Inner, Tx};
use crate::sys::StartTime;
use crate::{InstanceId, Kind, Nonce, Office, ProfileName, Result, stop_budget, sys};

/// What to insert.
#[derive(Debug)]
pub(crate) struct NewInstance<'a> {
    pub(crate) profile: Option<&'a ProfileName>,
    /// `None`: a process without an office.
    pub(crate) kind: Option<&'a Kind>,
    pub(crate) origin: Origin,
    pub(crate) subject: &'a Subject,
    /// The subject's command line, redacted, and without any identity that is being locked.
    pub(crate) argv: &'a [String],
    pub(crate) observer: &'a Observer,
    pub(crate) nonce: &'a Nonce,
    pub(crate) anchor: Option<&'a str>,
    pub(crate) keeper: Option<(sys::Pid, Option<StartTime>)>,
    pub(crate) version: Option<&'a str>,
    pub(crate) stop_budget_ms: u64,
    pub(crate) heartbeat_every_ms: Option<u64>,
}

impl<'a> NewInstance<'a> {
    /// One for locks, or for waiting: no office, no anchor, no word of its own about its end.
    pub(crate) fn without_office(
        subject: &'a Subject,
        observer: &'a Observer,
        nonce: &'a Nonce,
    ) -> Self {
        Self {
            profile: None,
            kind: None,
            origin: Origin::Pid,
            subject,
            argv: &[],
            observer,
            nonce,
            anchor: None,
            keeper: None,
            version: None,
            stop_budget_ms: stop_budget::DEFAULT_MS,
            heartbeat_every_ms: None,
        }
    }

    /// The command line without what another row of the process hides: an identity that it locked
    /// before is no less secret now.
    fn hidden_argv(&self, tx: &Tx<'_>) -> Result<Vec<String>> {
        let mut argv = self.argv.to_vec();
        let recorded: Vec<String> = tx
            .prepare_cached(
                "SELECT argv FROM instances
                 WHERE ended_at_ms IS NULL AND pid = ?1 AND start_time IS ?2 AND boot_id IS ?3
                   AND pid_ns IS ?4 AND instr(argv, ?5) > 0",
            )?
            .query_map(
                (
                    self.subject.pid,
                    self.subject.start_time.map(|time| time.value),
                    &self.observer.boot_id,
                    &self.observer.pid_ns,
                    command_line::REDACTED,
                ),
                |row| row.get(0),
            )?
            .collect::<rusqlite::Result<_>>()?;
        for recorded in recorded {
            let recorded: Vec<String> = serde_json::from_str(&recorded).unwrap_or_default();
            argv = mask::redact_alike(&argv, &recorded);
        }
        Ok(argv)
    }

    pub(crate) fn insert(&self, tx: &Tx<'_>) -> Result<InstanceId> {
        const SQL: &str = "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid,
                start_time, start_time_unit, boot_id, pid_ns, host, uid, argv, version, party,
                supervisor, stop_budget_ms, heartbeat_every_ms, anchor, keeper_pid,
                keeper_start_time, started_at_ms, memory_cgroup,
                memory_cgroup_inode, oom_kills, anchor_inode, anchor_dev, anchor_fsid,
                process_inode, written_boot_clock_ms, written_by)
             VALUES (:id, :nonce_hash, :profile, :kind, :origin, :pid, :start_time,
                :start_time_unit, :boot_id, :pid_ns, :host, :uid, :argv, :version, :party,
                :supervisor, :stop_budget_ms, :heartbeat_every_ms, :anchor, :keeper_pid,
                :keeper_start_time, :started_at_ms, :memory_cgroup, :memory_cgroup_inode,
                :oom_kills, :anchor_inode, :anchor_dev, :anchor_fsid, :process_inode,
                :written_boot_clock_ms, :written_by)";
        tx.check_schema()?;
        // What has an anchor is told by that.
        if self.anchor.is_none() {
            self.observer.check_pids()?;
        }
        let argv = self.hidden_argv(tx)?;
        let id = tx.draw_id()?;
        let keeper_start = self.keeper.and_then(|(_, start_time)| start_time);
        // One unit for the row: all its processes were seen by the same kernel.
        let unit = self.subject.start_time.or(keeper_start).or(self.observer.start_time);
        let file = AnchorFile::of(tx, self.anchor)?;
        tx.prepare_cached(SQL)?.execute(named_params! {
            ":id": id,
            ":nonce_hash": self.nonce.hash(),
            ":profile": self.profile.map(ProfileName::as_str),
            ":kind": self.kind.map(Kind::as_str),
            ":origin": self.origin.as_str(),
            ":pid": self.subject.pid,
            ":start_time": self.subject.start_time.map(|time| time.value),
            ":start_time_unit": unit.map(|time| time.unit.as_str()),
            ":boot_id": self.observer.boot_id,
            ":pid_ns": self.observer.pid_ns,
            ":host": self.observer.host,
            ":uid": self.subject.uid,
            ":argv": serde_json::to_string(&argv).ok(),
            ":version": self.version,
            ":party": self.subject.party,
            ":supervisor": self.subject.supervisor,
            ":stop_budget_ms": i64::try_from(self.stop_budget_ms).ok(),
            ":heartbeat_every_ms": self.heartbeat_every_ms.and_then(|ms| i64::try_from(ms).ok()),
            ":anchor": self.anchor,
            ":keeper_pid": self.keeper.map(|(pid, _)| pid),
            ":keeper_start_time": keeper_start.map(|time| time.value),
            ":started_at_ms": tx.now_ms(),
            ":memory_cgroup": self.subject.memory.as_ref().map(|(group, _)| &group.directory),
            ":memory_cgroup_inode": self.subject.memory.as_ref().and_then(|it| it.0.inode),
            ":oom_kills": self.subject.memory.as_ref().and_then(|it| i64::try_from(it.1).ok()),
            ":anchor_inode": file.inode,
            ":anchor_dev": file.device,
            ":anchor_fsid": file.filesystem,
            ":process_inode": self.subject.number.map(|number| number.0.cast_signed()),
            ":written_boot_clock_ms": tx.boot_time().ms,
            ":written_by": env!("CARGO_PKG_VERSION"),
        })?;
        Ok(InstanceId(id))
    }
}

/// An incarnation that had ended before anybody put it on record.
#[derive(Debug)]
pub(crate) struct EndedInstance<'a> {
    pub(crate) office: &'a Office,
    pub(crate) pid: sys::Pid,
    pub(crate) start_time_ticks: Option<i64>,
    /// Redacted.
    pub(crate) argv: &'a [String],
    pub(crate) host: Option<&'a str>,
    pub(crate) anchor: &'a str,
    /// When it was last heard of: Unix milliseconds.
    pub(crate) at_ms: i64,
    pub(crate) reason: &'a str,
    pub(crate) detail: &'a str,
}

impl EndedInstance<'_> {
    pub(crate) fn insert(&self, tx: &Tx<'_>) -> Result<InstanceId> {
        const SQL: &str = "INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid,
                start_time, start_time_unit, host, argv, supervisor, stop_budget_ms, anchor,
                started_at_ms, ended_at_ms, end_reason, detail)
             VALUES (:id, :nonce_hash, :profile, :kind, 'pid', :pid, :start_time, 'ticks', :host,
                :argv, 'none', :stop_budget_ms, :anchor, :at_ms, :at_ms, :reason, :detail)";
        tx.check_schema()?;
        let id = tx.draw_id()?;
        tx.prepare_cached(SQL)?.execute(named_params! {
            ":id": id,
            ":nonce_hash": Nonce::random()?.hash(),
            ":profile": self.office.profile.as_str(),
            ":kind": self.office.kind.as_str(),
            ":pid": self.pid,
            ":start_time": self.start_time_ticks,
            ":host": self.host,
            ":argv": serde_json::to_string(self.argv).ok(),
            ":stop_budget_ms": i64::try_from(stop_budget::DEFAULT_MS).ok(),
            ":anchor": self.anchor,
            ":at_ms": self.at_ms,
            ":reason": self.reason,
            ":detail": self.detail,
        })?;
        Ok(InstanceId(id))
    }
}

/// Rewrites the command line of a live row, and of the other live rows of the same process.
pub(crate) fn rewrite_argv(
    tx: &Tx<'_>,
    id: InstanceId,
    rewrite: impl Fn(&[String]) -> Vec<String>,
) -> Result<()> {
    let rows: Vec<(i64, Option<String>)> = tx
        .prepare_cached(
            "SELECT other.id, other.argv FROM instances AS one JOIN instances AS other
                 ON other.ended_at_ms IS NULL AND other.pid = one.pid
                    AND other.start_time IS one.start_time AND other.boot_id IS one.boot_id
                    AND other.pid_ns IS one.pid_ns
             WHERE one.id = ?1",
        )?
        .query_map([id.0], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (id, stored) in rows {
        let argv: Vec<String> =
            stored.and_then(|argv| serde_json::from_str(&argv).ok()).unwrap_or_default();
        let rewritten = rewrite(&argv);
        if rewritten != argv {
            tx.prepare_cached("UPDATE instances SET argv = ?2 WHERE id = ?1")?
                .execute((id, serde_json::to_string(&rewritten).ok()))?;
        }
    }
    Ok(())
}

/// Makes the row of a live owner name the anchor that it holds.
pub(crate) fn set_anchor(tx: &Tx<'_>, id: InstanceId, nonce_hash: &str, name: &str) -> Result<()> {
    let file = AnchorFile::of(tx, Some(name))?;
    tx.prepare_cached(
        "UPDATE instances SET anchor = ?3, anchor_inode = ?4, anchor_dev = ?5, anchor_fsid = ?6
         WHERE id = ?1 AND nonce_hash = ?2 AND ended_at_ms IS NULL AND anchor IS NOT ?3",
    )?
    .execute((id.0, nonce_hash, name, file.inode, file.device, file.filesystem))?;
    Ok(())
}

/// Makes one row lean on the keepers of another row of the same process.
pub(crate) fn lean_on(tx: &Tx<'_>, id: InstanceId, other: InstanceId) -> Result<()> {
    tx.prepare_cached(
        "UPDATE instances
         SET (anchor, anchor_inode, anchor_dev, anchor_fsid, keeper_pid, keeper_start_time,
              keeper_process_inode, keeper2_pid, keeper2_start_time, keeper_ended_at_ms) =
             (SELECT anchor, anchor_inode, anchor_dev, anchor_fsid, keeper_pid, keeper_start_time,
                     keeper_process_inode, keeper2_pid, keeper2_start_time, keeper_ended_at_ms
              FROM instances WHERE id = ?2)
         WHERE id = ?1 AND ended_at_ms IS NULL",
    )?
    .execute((id.0, other.0))?;
    Ok(())
}

/// How a process came to be the command of a `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// The run has started it: again, where it had another one before.
    Started,
    /// It took the place of the one before it, or was the command already in a store that is lost.
    Otherwise {
        /// Since when it has been running: Unix milliseconds, and the boot clock.
        since_ms: i64,
        since_boot_ms: i64,
    },
}

impl Came {
    /// Looks since when `pid` has been running, before anybody waits for that.
    pub(crate) fn otherwise(inner: &Inner, pid: sys::Pid) -> Self {
        let now = inner.boot_time();
        let age_ms = sys::process_age_ms(pid, of_millis(now.wall_ms)).unwrap_or(0);
        Self::Otherwise {
            since_ms: now.wall_ms.saturating_sub(age_ms),
            since_boot_ms: now.ms.saturating_sub(age_ms),
        }
    }
}

/// Records which process the `run` started, before that process may begin. The last word of the
/// one before it is not its own.
pub(crate) fn set_child(
    tx: &Tx<'_>,
    id: InstanceId,
    nonce: &Nonce,
    command: &Command,
    came: Came,
) -> Result<bool> {
    let (since_ms, since_boot_ms) = match came {
        Came::Started => (tx.now_ms(), tx.boot_time().ms),
        Came::Otherwise { since_ms, since_boot_ms } => (since_ms, since_boot_ms),
    };
    let changed = tx
        .prepare_cached(
            "UPDATE instances
             SET child_pid = ?3, child_start_time = ?4, child_process_inode = ?5, child_sid = ?6,
                 command_lock = ?7, command_lock_inode = ?8, detail = NULL,
                 command_since_at_ms = ?9, command_since_boot_ms = ?10,
                 restarts = CASE WHEN NOT ?11 THEN restarts WHEN child_pid IS NULL THEN 0
                     ELSE coalesce(restarts, 0) + 1 END
             WHERE id = ?1 AND nonce_hash = ?2 AND ended_at_ms IS NULL",
        )?
        .execute((
            id.0,
            nonce.hash(),
            command.pid,
            command.start_time.map(|time| time.value),
            sys::process_facts(command.pid).number.map(|number| number.0.cast_signed()),
            sys::session_of(command.pid),
            command.lock.as_str(),
            command.lock_inode.map(u64::cast_signed),
            since_ms,
            since_boot_ms,
            came == Came::Started,
        ))?;
    Ok(changed == 1)
}
