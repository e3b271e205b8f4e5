//! A row, as far as decisions and answers need it.

use std::time::Duration;

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::environment::{Fault, planted};
use crate::process::{Observer, subject};
use crate::records::instances::later::CommandLife;
use crate::store::Tx;
use crate::sys::{Proven, StartTime, StartTimeUnit, Trust, Unproven};
use crate::words::words;
use crate::{InstanceId, Kind, Nonce, Office, ProfileName, Reason, Result, stop_budget, sys};

words! {
    /// How a row came to be. Verbs with `--pid` touch only rows that `--pid` made.
    pub(crate) enum Origin {
        /// The process registered itself.
        Library = "library",
        /// `incumbent run`, for the command it supervises.
        Run = "run",
        /// `--pid`, for a process that does not link the library.
        Pid = "pid",
    }
}

/// Whose the lock of an older gateway is that is on record as live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockNow {
    /// Its own, as far as the row goes.
    AsRecorded,
    /// Another older gateway's: the record is what is known of that one.
    Successors,
    /// That of a `run` of ours, which has a row of its own: this one is over.
    Ours,
}

/// A row of `instances`, as far as decisions and answers need it. A value that no program of ours
/// could have written reads as unknown.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: InstanceId,
    pub(crate) nonce_hash: String,
    pub(crate) profile: Option<ProfileName>,
    pub(super) kind: Option<Kind>,
    pub(crate) is_pid: bool,
    /// It is an `incumbent run`, which looks for requests by itself.
    pub(crate) is_run: bool,
    pub(crate) pid: Option<sys::Pid>,
    pub(crate) start_time: Option<StartTime>,
    pub(crate) boot_id: Option<String>,
    pub(crate) pid_ns: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) argv: Vec<String>,
    pub(crate) version: Option<String>,
    pub(crate) party: Option<String>,
    pub(crate) supervisor: Option<String>,
    pub(crate) stop_budget_ms: Option<u64>,
    pub(crate) anchor: Option<String>,
    pub(crate) child_pid: Option<sys::Pid>,
    pub(crate) child_start_time: Option<StartTime>,
    pub(crate) keeper_pid: Option<sys::Pid>,
    pub(crate) started_at_ms: i64,
    /// The cadence of signs of life that it promised, and when the last one came.
    pub(crate) heartbeat_every_ms: Option<i64>,
    pub(crate) heartbeat_at_ms: Option<i64>,
    pub(crate) ended_at_ms: Option<i64>,
    pub(crate) end_reason: Option<Reason>,
    pub(crate) ended_by: Option<String>,
    pub(crate) exit_code: Option<i64>,
    pub(crate) signal: Option<i64>,
    pub(crate) detail: Option<String>,
    /// Of an older gateway: whose its lock is by now.
    pub(crate) older_lock: LockNow,
    /// Since schema 7.
    pub(crate) identity: KernelIdentity,
    /// Since schema 10.
    pub(crate) command_life: CommandLife,
    /// Since schema 11: when it was seen that it had ended, where it did not record that itself.
    pub(crate) exit_seen_at_ms: Option<i64>,
}

/// What rows of schema 7 say beside the older columns: which file the anchor is, which processes
/// the pids meant. All of it is unknown in a row of version 0.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelIdentity {
    /// The very file that the owner locked.
    pub(crate) anchor: Option<sys::FileKey>,
    pub(crate) process: Option<sys::ProcessNumber>,
    pub(crate) child: Option<sys::ProcessNumber>,
    pub(crate) keeper: Option<sys::ProcessNumber>,
    /// The session of the command.
    pub(crate) child_sid: Option<sys::Pid>,
    pub(crate) command_lock: Option<CommandLock>,
    pub(crate) command_lock_inode: Option<u64>,
    pub(crate) keeper2_pid: Option<sys::Pid>,
    pub(crate) keeper2_start_time: Option<StartTime>,
    /// Both keepers ended although their process lived on: they said so.
    pub(crate) keeper_ended_at_ms: Option<i64>,
    pub(crate) written_boot_clock_ms: Option<i64>,
    /// The program that wrote the row; `None` for version 0.1.
    pub(crate) written_by: Option<String>,
}

words! {
    /// What was last known of the lock that the command of a `run` holds itself.
    pub(crate) enum CommandLock {
        Held = "held",
        /// The command lives, or lived then, without it.
        Lost = "lost",
        /// It never had one.
        None = "none",
    }
}

/// Reads the columns of a row one after the other. By position, because rusqlite looks a name up
/// among all names each time; a value of another type reads as absent.
struct Columns<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl Record {
    pub(crate) fn origin(&self) -> Origin {
        match (self.is_run, self.is_pid) {
            (true, _) => Origin::Run,
            (false, true) => Origin::Pid,
            (false, false) => Origin::Library,
        }
    }
}

impl Columns<'_> {
    fn value<T: FromSql>(&mut self) -> Option<T> {
        let index = self.next;
        self.next += 1;
        self.row.get::<_, Option<T>>(index).unwrap_or(None)
    }

    fn number(&mut self) -> Option<i64> {
        self.value()
    }

    fn text(&mut self) -> Option<String> {
        self.value()
    }

    fn pid(&mut self) -> Option<sys::Pid> {
        self.number().and_then(subject::valid_pid)
    }

    fn start_time(&mut self, unit: Option<StartTimeUnit>) -> Option<StartTime> {
        let value = self.number().filter(|value| *value > 0)?;
        Some(StartTime { value, unit: unit? })
    }

    /// A number that the kernel counts without a sign.
    fn unsigned(&mut self) -> Option<u64> {
        self.number().map(i64::cast_unsigned)
    }

    fn process_number(&mut self) -> Option<sys::ProcessNumber> {
        self.unsigned().map(sys::ProcessNumber)
    }

    fn identity(&mut self, unit: Option<StartTimeUnit>) -> KernelIdentity {
        let (inode, device, filesystem) = (self.unsigned(), self.unsigned(), self.unsigned());
        KernelIdentity {
            anchor: inode.zip(device).map(|(inode, device)| sys::FileKey {
                inode,
                device,
                filesystem,
            }),
            process: self.process_number(),
            child: self.process_number(),
            keeper: self.process_number(),
            // 0: a session that has no number in that pid namespace.
            child_sid: self.number().and_then(|session| sys::Pid::try_from(session).ok()),
            command_lock: self.text().and_then(|word| CommandLock::parse(&word)),
            command_lock_inode: self.unsigned(),
            keeper2_pid: self.pid(),
            keeper2_start_time: self.start_time(unit),
            keeper_ended_at_ms: self.number(),
            written_boot_clock_ms: self.number(),
            written_by: self.text(),
        }
    }
}

impl Record {
    /// Whether it is that of a command in the place of its `run` (`run --exec`): keepers hold it,
    /// and no verb releases it for the command.
    pub(crate) fn is_in_place(&self) -> bool {
        self.is_pid && self.identity.command_lock.is_some()
    }

    /// Whether its end is not on record. Whether its owner lives is another question.
    pub(crate) fn is_live(&self) -> bool {
        self.ended_at_ms.is_none()
    }

    /// Expects `COLUMNS`, in their order.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let id = InstanceId(row.get(0)?);
        let mut columns = Columns { row, next: 1 };
        let nonce_hash = columns.text().unwrap_or_default();
        let profile = columns.text().and_then(|name| ProfileName::new(name).ok());
        let kind = columns.text().and_then(|name| Kind::new(name).ok());
        let origin = columns.text();
        let pid = columns.pid();
        let unit = columns.text().and_then(|unit| StartTimeUnit::parse(&unit));
        Ok(Self {
            id,
            nonce_hash,
            profile,
            kind,
            is_pid: origin.as_deref() == Some(Origin::Pid.as_str()),
            is_run: origin.as_deref() == Some(Origin::Run.as_str()),
            pid,
            start_time: columns.start_time(unit),
            child_pid: columns.pid(),
            child_start_time: columns.start_time(unit),
            boot_id: columns.text(),
            pid_ns: columns.text(),
            host: columns.text(),
            uid: columns.number().and_then(|uid| u32::try_from(uid).ok()),
            argv: columns
                .text()
                .and_then(|argv| serde_json::from_str(&argv).ok())
                .unwrap_or_default(),
            version: columns.text(),
            party: columns.text(),
            supervisor: columns.text(),
            stop_budget_ms: columns.number().and_then(|ms| u64::try_from(ms).ok()),
            anchor: columns.text(),
            keeper_pid: columns.pid(),
            started_at_ms: columns.number().unwrap_or(-1),
            heartbeat_every_ms: columns.number().filter(|ms| *ms > 0),
            heartbeat_at_ms: columns.number(),
            ended_at_ms: columns.number(),
            end_reason: columns.text().map(Reason::from),
            ended_by: columns.text(),
            exit_code: columns.number(),
            signal: columns.number(),
            detail: columns.text(),
            older_lock: LockNow::AsRecorded,
            identity: columns.identity(unit),
            command_life: CommandLife {
                restarts: columns.number().and_then(|count| u32::try_from(count).ok()),
                since_ms: columns.number(),
                since_boot_ms: columns.number(),
            },
            exit_seen_at_ms: columns.number(),
        })
    }

    /// A process of this namespace as somebody else's file names it: on record nowhere.
    pub(crate) fn told(
        pid: sys::Pid,
        start_time: Option<StartTime>,
        uid: Option<u32>,
        argv: Vec<String>,
        kind: Option<Kind>,
        observer: &Observer,
    ) -> Self {
        Self {
            id: InstanceId(0),
            nonce_hash: String::new(),
            profile: None,
            kind,
            is_pid: true,
            is_run: false,
            pid: Some(pid),
            start_time,
            boot_id: observer.boot_id.clone(),
            pid_ns: observer.pid_ns.clone(),
            host: observer.host.clone(),
            uid,
            argv,
            version: None,
            party: None,
            supervisor: None,
            stop_budget_ms: None,
            anchor: None,
            child_pid: None,
            child_start_time: None,
            keeper_pid: None,
            started_at_ms: -1,
            heartbeat_every_ms: None,
            heartbeat_at_ms: None,
            ended_at_ms: None,
            end_reason: None,
            ended_by: None,
            exit_code: None,
            signal: None,
            detail: None,
            older_lock: LockNow::AsRecorded,
            identity: KernelIdentity::default(),
            command_life: CommandLife::default(),
            exit_seen_at_ms: None,
        }
    }

    /// The recorded process, pinned and proven.
    pub(crate) fn prove_process(&self, trust: &Trust) -> Result<Proven, Unproven> {
        let pid = self.pid.ok_or(Unproven::Unknown)?;
        Proven::of_owner(pid, self.start_time, self.identity.process, trust)
    }

    /// The command of a `run`.
    pub(crate) fn command(&self) -> Option<Command> {
        Some(Command {
            pid: self.child_pid?,
            start_time: self.child_start_time,
            lock: self.identity.command_lock.unwrap_or(CommandLock::None),
            lock_inode: self.identity.command_lock_inode,
        })
    }

    /// The same process, pinned and proven.
    pub(crate) fn prove_child(&self, trust: &Trust) -> Result<Proven, Unproven> {
        let pid = self.child_pid.ok_or(Unproven::Unknown)?;
        Proven::of(pid, self.child_start_time, self.identity.child, trust)
    }

    /// The stop budget that the owner published, as far as it is believed.
    pub(crate) fn stop_budget(&self) -> Duration {
        stop_budget::believed(self.stop_budget_ms.map(Duration::from_millis))
    }

    pub(crate) fn kind(&self) -> Option<&Kind> {
        self.kind.as_ref()
    }

    pub(crate) fn office(&self) -> Option<Office> {
        Some(Office { profile: self.profile.clone()?, kind: self.kind.clone()? })
    }

    /// Whether the caller that knows `nonce` owns this row.
    pub(crate) fn belongs_to(&self, nonce: &Nonce) -> bool {
        self.nonce_hash == nonce.hash() || planted(Fault::NonceIgnored)
    }
}

/// What an owner has to know of its own row.
#[derive(Clone, Debug)]
pub(crate) struct RowState {
    pub(crate) nonce_hash: String,
    pub(crate) anchor: Option<String>,
    /// Why and by whom it was ended, if it was.
    pub(crate) ended: Option<(String, Option<String>)>,
    /// The command of a `run`.
    pub(crate) child_pid: Option<sys::Pid>,
}

pub(crate) fn standing(connection: &Connection, id: InstanceId) -> Result<Option<RowState>> {
    let row = connection
        .prepare_cached(
            "SELECT nonce_hash, ended_at_ms IS NOT NULL, end_reason, ended_by, anchor,
                    child_pid
             FROM instances WHERE id = ?1",
        )?
        .query_row([id.0], |row| {
            let ended: bool = row.get(1)?;
            let reason: Option<String> = row.get(2)?;
            Ok(RowState {
                nonce_hash: row.get(0)?,
                ended: ended.then_some((reason.unwrap_or_default(), row.get(3)?)),
                anchor: row.get(4)?,
                child_pid: row.get(5)?,
            })
        })
        .optional()?;
    Ok(row)
}

/// Dates a row of this transaction back: its process had been running for `age_ms` when it was put
/// on record. Both clocks, or they would look as if they had moved apart, which is the sign of a
/// restart.
pub(crate) fn date_back(tx: &Tx<'_>, id: InstanceId, age_ms: i64) -> Result<()> {
    tx.prepare_cached(
        "UPDATE instances SET started_at_ms = started_at_ms - ?2,
             written_boot_clock_ms = written_boot_clock_ms - ?2
         WHERE id = ?1 AND written_boot_clock_ms >= ?2 AND started_at_ms >= ?2",
    )?
    .execute((id.as_i64(), age_ms))?;
    Ok(())
}

/// The two processes that hold an anchor in the place of another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepers {
    pub(crate) first: (sys::Pid, Option<StartTime>, Option<sys::ProcessNumber>),
    pub(crate) second: Option<(sys::Pid, Option<StartTime>)>,
}

/// Makes all live rows on `anchor` name these keepers.
pub(crate) fn set_keepers(tx: &Tx<'_>, anchor: &str, keepers: &Keepers) -> Result<()> {
    let (pid, start_time, number) = keepers.first;
    let value = |time: Option<StartTime>| time.map(|time| time.value);
    tx.prepare_cached(
        "UPDATE instances
         SET keeper_pid = ?2, keeper_start_time = ?3, keeper_process_inode = ?4, keeper2_pid = ?5,
             keeper2_start_time = ?6, keeper_ended_at_ms = NULL
         WHERE anchor = ?1 AND ended_at_ms IS NULL AND origin = 'pid'",
    )?
    .execute((
        anchor,
        pid,
        value(start_time),
        number.map(|number| number.0.cast_signed()),
        keepers.second.map(|(pid, _)| pid),
        keepers.second.and_then(|(_, time)| value(time)),
    ))?;
    Ok(())
}

/// Makes the row of this process one that keepers hold for it, while it becomes the program with
/// the words `argv`. That it is a command, which never has a lock of its own, tells it from rows
/// that verbs have made. False when it has ended.
pub(crate) fn leave_to_keepers(
    tx: &Tx<'_>,
    id: InstanceId,
    nonce: &Nonce,
    argv: &[String],
) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE instances SET origin = 'pid', argv = ?3, command_lock = 'none'
             WHERE id = ?1 AND nonce_hash = ?2 AND ended_at_ms IS NULL",
        )?
        .execute((id.0, nonce.hash(), serde_json::to_string(argv).ok()))?;
    Ok(changed == 1)
}

/// Makes a row that keepers have inserted the one of such a command, which had `before` in another
/// store: what proves it there proves it here.
pub(crate) fn go_on_in_place(tx: &Tx<'_>, id: InstanceId, before: &Record) -> Result<()> {
    tx.prepare_cached(
        "UPDATE instances SET nonce_hash = ?2, command_lock = 'none'
         WHERE id = ?1 AND ended_at_ms IS NULL",
    )?
    .execute((id.0, &before.nonce_hash))?;
    Ok(())
}

/// Records that the keepers on `anchor` end although their process lives on.
pub(crate) fn keepers_end(tx: &Tx<'_>, anchor: &str) -> Result<()> {
    tx.prepare_cached(
        "UPDATE instances SET keeper_ended_at_ms = ?2
         WHERE anchor = ?1 AND ended_at_ms IS NULL AND origin = 'pid'",
    )?
    .execute((anchor, tx.now_ms()))?;
    Ok(())
}

/// The command of a `run`, as its row names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub(crate) pid: sys::Pid,
    pub(crate) start_time: Option<StartTime>,
    pub(crate) lock: CommandLock,
    /// Of the file that it locks.
    pub(crate) lock_inode: Option<u64>,
}

/// Records that the command which the row names lives, or lived, without its lock.
pub(crate) fn lose_command_lock(tx: &Tx<'_>, id: InstanceId, nonce: &Nonce) -> Result<()> {
    tx.prepare_cached(
        "UPDATE instances SET command_lock = ?3
         WHERE id = ?1 AND nonce_hash = ?2 AND ended_at_ms IS NULL",
    )?
    .execute((id.0, nonce.hash(), CommandLock::Lost.as_str()))?;
    Ok(())
}

/// Forgets whom earlier incarnations of an office served and superseded, but for the last that
/// ended.
pub(crate) fn forget_notes_of_earlier(tx: &Tx<'_>, office: &Office) -> Result<()> {
    for table in ["serves", "superseded"] {
        // From the notes, which are few, to their instances.
        let sql = format!(
            "DELETE FROM {table}
             WHERE instance_id < (
                 SELECT id FROM instances
                 WHERE profile = ?1 AND kind = ?2 AND ended_at_ms IS NOT NULL
                 ORDER BY id DESC LIMIT 1)
             AND EXISTS (
                 SELECT 1 FROM instances
                 WHERE id = instance_id AND profile = ?1 AND kind = ?2 AND ended_at_ms IS NOT NULL)"
        );
        tx.prepare_cached(&sql)?.execute((office.profile.as_str(), office.kind.as_str()))?;
    }
    Ok(())
}
