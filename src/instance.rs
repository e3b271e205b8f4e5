//! The PID record: one row for each incarnation of a process, and how it ends.

use std::fmt;
use std::time::Duration;

use rusqlite::types::{FromSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, named_params};

use crate::autopsy;
use crate::clock::Deadline;
use crate::command_line;
use crate::error::Result;
use crate::legacy;
use crate::liveness::DeadReason;
use crate::lock_table::{self, LockEnd};
use crate::marker_table;
use crate::names::{InstanceId, Kind, Nonce, Office, ProfileName, Secret};
use crate::observe::Observer;
use crate::reservation;
use crate::stop_budget;
use crate::store::{EventRecord, Tx};
use crate::sys::{self, Proven, StartTime, StartTimeUnit, Supervision, Trust, Unproven};
use crate::waiters;

/// Incarnations kept per office.
const HISTORY_KEPT: i64 = 200;

/// How a row came to be. Verbs with `--pid` touch only rows that `--pid` made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The process registered itself.
    Library,
    /// `incumbent run`, for the command it supervises.
    Run,
    /// `--pid`, for a process that does not link the library.
    Pid,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Run => "run",
            Self::Pid => "pid",
        }
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
    kind: Option<Kind>,
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
    pub(crate) end_reason: Option<String>,
    pub(crate) ended_by: Option<String>,
    pub(crate) exit_code: Option<i64>,
    pub(crate) signal: Option<i64>,
    pub(crate) detail: Option<String>,
    /// Of an older gateway: whose its lock is by now.
    pub(crate) older_lock: LockNow,
    /// Since schema 7.
    pub(crate) identity: Identity,
}

/// What rows of schema 7 say beside the older columns: which file the anchor is, which processes the
/// pids meant. All of it is unknown in a row of version 0.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
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

/// What was last known of the lock that the command of a `run` holds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandLock {
    Held,
    /// The command lives, or lived then, without it.
    Lost,
    /// It never had one.
    None,
}

impl CommandLock {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Lost => "lost",
            Self::None => "none",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Held, Self::Lost, Self::None].into_iter().find(|it| it.as_str() == word)
    }
}

const COLUMNS: &str = "id, nonce_hash, profile, kind, origin, pid, start_time_unit, start_time,
    child_pid, child_start_time, boot_id, pid_ns, host, uid, argv, version, party, supervisor,
    stop_budget_ms, anchor, keeper_pid, started_at_ms, heartbeat_every_ms, heartbeat_at_ms, ended_at_ms,
    end_reason, ended_by, exit_code, signal, detail, anchor_inode, anchor_dev, anchor_fsid,
    process_inode, child_process_inode, keeper_process_inode, child_sid, command_lock,
    command_lock_inode, keeper2_pid, keeper2_start_time, keeper_ended_at_ms, written_boot_clock_ms,
    written_by";

/// The first of the columns that schema 7 added, and as many absent values.
const FIRST_OF_SCHEMA_7: &str = "anchor_inode";
const ABSENT_BEFORE_SCHEMA_7: &str =
    "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL";

/// Prepares a statement that selects [`COLUMNS`]. Questions do not migrate, so a store of version 0.1 may
/// lack some of them: there they read as absent.
fn prepare<'c>(connection: &'c Connection, sql: &str) -> Result<CachedStatement<'c>> {
    let refused = match connection.prepare_cached(sql) {
        Ok(statement) => return Ok(statement),
        Err(error) => error,
    };
    let has_them = "SELECT count(*) FROM pragma_table_info('instances') WHERE name = ?1";
    let has_them: i64 = connection.query_row(has_them, [FIRST_OF_SCHEMA_7], |row| row.get(0))?;
    if has_them > 0 {
        return Err(refused.into());
    }
    let (older, newer) = COLUMNS.split_once(FIRST_OF_SCHEMA_7).unwrap_or((COLUMNS, ""));
    let sql = sql.replace(
        &format!("{older}{FIRST_OF_SCHEMA_7}{newer}"),
        &format!("{older}{ABSENT_BEFORE_SCHEMA_7}"),
    );
    Ok(connection.prepare_cached(&sql)?)
}

/// Reads the columns of a row one after the other. By position, because rusqlite looks a name up
/// among all names each time; a value of another type reads as absent.
struct Columns<'a> {
    row: &'a Row<'a>,
    next: usize,
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
        self.number().and_then(valid_pid)
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

    fn identity(&mut self, unit: Option<StartTimeUnit>) -> Identity {
        let (inode, device, filesystem) = (self.unsigned(), self.unsigned(), self.unsigned());
        Identity {
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
    /// Expects [`COLUMNS`], in their order.
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
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
            end_reason: columns.text(),
            ended_by: columns.text(),
            exit_code: columns.number(),
            signal: columns.number(),
            detail: columns.text(),
            older_lock: LockNow::AsRecorded,
            identity: columns.identity(unit),
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
            identity: Identity::default(),
        }
    }

    /// The recorded process, pinned and proven.
    pub(crate) fn prove_process(&self, trust: &Trust) -> Result<Proven, Unproven> {
        let pid = self.pid.ok_or(Unproven::Unknown)?;
        Proven::of(pid, self.start_time, self.identity.process, trust)
    }

    /// The command that it started, likewise.
    pub(crate) fn prove_child(&self, trust: &Trust) -> Result<Proven, Unproven> {
        let pid = self.child_pid.ok_or(Unproven::Unknown)?;
        Proven::of(pid, self.child_start_time, self.identity.child, trust)
    }

    pub(crate) fn kind(&self) -> Option<&Kind> {
        self.kind.as_ref()
    }

    pub(crate) fn office(&self) -> Option<Office> {
        Some(Office { profile: self.profile.clone()?, kind: self.kind.clone()? })
    }

    /// Whether the caller that knows `nonce` owns this row.
    pub(crate) fn belongs_to(&self, nonce: &Nonce) -> bool {
        self.nonce_hash == nonce.hash()
    }
}

/// A stored pid that the kernel could have given out.
pub(crate) fn valid_pid(number: i64) -> Option<sys::Pid> {
    i32::try_from(number).ok().filter(|pid| *pid > 0)?.try_into().ok()
}

/// The live row of an office.
pub(crate) fn live(connection: &Connection, office: &Office) -> Result<Option<Record>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE profile = ?1 AND kind = ?2 AND ended_at_ms IS NULL"
    );
    let row = prepare(connection, &sql)?
        .query_row((office.profile.as_str(), office.kind.as_str()), Record::from_row)
        .optional()?;
    row.map(|record| legacy::refreshed(connection, record)).transpose()
}

/// All live rows for a process that `--pid` recorded, whatever their office. A row that lost its
/// start time is among them; so is what has to be told apart by its anchor. A boot id that differs or is
/// hidden is doubt (FIELD-BUGS rows 91, 103): with an equal start time it is the same process.
pub(crate) fn live_of_pid(
    connection: &Connection,
    pid: sys::Pid,
    start_time: Option<StartTime>,
    observer: &Observer,
) -> Result<Vec<Record>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE ended_at_ms IS NULL AND origin = 'pid' AND pid = ?1
           AND (start_time = ?2 OR start_time IS NULL)
           AND (start_time = ?2 OR boot_id IS ?3) AND (pid_ns IS ?4 OR pid_ns IS NULL)"
    );
    let rows = prepare(connection, &sql)?
        .query_map(
            (pid, start_time.map(|time| time.value), &observer.boot_id, &observer.pid_ns),
            Record::from_row,
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// All live rows of a process of this namespace, as its own or as the command of a `run`; offices
/// first. A start time that is not known on either side tells nothing apart.
pub(crate) fn live_of_process(
    connection: &Connection,
    pid: sys::Pid,
    start_time: Option<StartTime>,
    observer: &Observer,
) -> Result<Vec<Record>> {
    // Two searches: one with OR would look at every row.
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE ended_at_ms IS NULL AND pid = ?1
           AND (?2 IS NULL OR start_time IS NULL OR start_time = ?2)
           AND (start_time = ?2 OR boot_id IS ?3) AND (pid_ns IS ?4 OR pid_ns IS NULL)
         UNION
         SELECT {COLUMNS} FROM instances
         WHERE ended_at_ms IS NULL AND child_pid = ?1
           AND (?2 IS NULL OR child_start_time IS NULL OR child_start_time = ?2)
           AND (child_start_time = ?2 OR boot_id IS ?3) AND (pid_ns IS ?4 OR pid_ns IS NULL)"
    );
    let mut rows: Vec<Record> = prepare(connection, &sql)?
        .query_map(
            (pid, start_time.map(|time| time.value), &observer.boot_id, &observer.pid_ns),
            Record::from_row,
        )?
        .collect::<rusqlite::Result<_>>()?;
    rows.sort_by_key(|row| (row.kind.is_none(), row.id));
    Ok(rows)
}

/// Every row that is on record as live, with and without an office, the oldest first.
pub(crate) fn all_live(connection: &Connection) -> Result<Vec<Record>> {
    /// More than any machine has processes that matter.
    const READ_MAX: i64 = 10_000;
    let sql =
        format!("SELECT {COLUMNS} FROM instances WHERE ended_at_ms IS NULL ORDER BY id LIMIT ?1");
    let rows = prepare(connection, &sql)?
        .query_map([READ_MAX], Record::from_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Whether any row, ended or not, names `anchor`.
pub(crate) fn names_anchor(connection: &Connection, anchor: &str) -> Result<bool> {
    let named = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM instances WHERE anchor = ?1 AND ended_at_ms IS NULL)
                 OR EXISTS (SELECT 1 FROM instances WHERE anchor = ?1 AND ended_at_ms IS NOT NULL)",
        )?
        .query_row([anchor], |row| row.get(0))?;
    Ok(named)
}

/// How many live rows rely on `anchor`.
pub(crate) fn live_on_anchor(connection: &Connection, anchor: &str) -> Result<i64> {
    let count = connection
        .prepare_cached("SELECT count(*) FROM instances WHERE anchor = ?1 AND ended_at_ms IS NULL")?
        .query_row([anchor], |row| row.get(0))?;
    Ok(count)
}

/// Rows for locks that lean on `anchor`, were made by `--pid` before `before_ms`, and have no lock.
pub(crate) fn without_purpose(
    connection: &Connection,
    anchor: &str,
    before_ms: i64,
) -> Result<Vec<InstanceId>> {
    let ids = connection
        .prepare_cached(
            "SELECT id FROM instances AS i
             WHERE anchor = ?1 AND ended_at_ms IS NULL AND kind IS NULL AND origin = 'pid'
               AND started_at_ms < ?2
               AND NOT EXISTS (SELECT 1 FROM scoped_locks WHERE instance_id = i.id)",
        )?
        .query_map((anchor, before_ms), |row| row.get(0).map(InstanceId))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(ids)
}

/// The row as it was written: what was taken from an older gateway is not its successor's.
pub(crate) fn by_id(connection: &Connection, id: InstanceId) -> Result<Option<Record>> {
    let sql = format!("SELECT {COLUMNS} FROM instances WHERE id = ?1");
    let row = prepare(connection, &sql)?.query_row([id.0], Record::from_row).optional()?;
    Ok(row)
}

/// The office of a row and the pid of its holder, if it has one.
pub(crate) fn office_of(
    connection: &Connection,
    id: InstanceId,
) -> Result<Option<(Office, Option<sys::Pid>)>> {
    let row: Option<(Option<String>, Option<String>, Option<i64>)> = connection
        .prepare_cached("SELECT profile, kind, pid FROM instances WHERE id = ?1")?
        .query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((Some(profile), Some(kind), pid)) = row else { return Ok(None) };
    // Names that no program of ours writes are nobody's.
    let names = ProfileName::new(profile).ok().zip(Kind::new(kind).ok());
    Ok(names.map(|(profile, kind)| (Office { profile, kind }, pid.and_then(valid_pid))))
}

/// What an owner has to know of its own row.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) nonce_hash: String,
    pub(crate) anchor: Option<String>,
    /// Why and by whom it was ended, if it was.
    pub(crate) ended: Option<(String, Option<String>)>,
}

pub(crate) fn standing(connection: &Connection, id: InstanceId) -> Result<Option<Standing>> {
    let row = connection
        .prepare_cached(
            "SELECT nonce_hash, ended_at_ms IS NOT NULL, end_reason, ended_by, anchor
             FROM instances WHERE id = ?1",
        )?
        .query_row([id.0], |row| {
            let ended: bool = row.get(1)?;
            let reason: Option<String> = row.get(2)?;
            Ok(Standing {
                nonce_hash: row.get(0)?,
                ended: ended.then_some((reason.unwrap_or_default(), row.get(3)?)),
                anchor: row.get(4)?,
            })
        })
        .optional()?;
    Ok(row)
}

/// The live row that `nonce` owns: a `run` goes on in a new store with the one of the old.
pub(crate) fn live_of_nonce(connection: &Connection, nonce: &Nonce) -> Result<Option<Record>> {
    let sql =
        format!("SELECT {COLUMNS} FROM instances WHERE nonce_hash = ?1 AND ended_at_ms IS NULL");
    let row = prepare(connection, &sql)?.query_row([nonce.hash()], Record::from_row).optional()?;
    Ok(row)
}

/// The incarnations of an office, newest first.
pub(crate) fn history(
    connection: &Connection,
    office: &Office,
    count_max: usize,
) -> Result<Vec<Record>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM instances WHERE profile = ?1 AND kind = ?2
         ORDER BY id DESC LIMIT ?3"
    );
    let rows = prepare(connection, &sql)?
        .query_map(
            (office.profile.as_str(), office.kind.as_str(), i64::try_from(count_max).ok()),
            Record::from_row,
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Every office that was ever claimed, as far as the history goes.
pub(crate) fn offices(connection: &Connection) -> Result<Vec<Office>> {
    // From one name to the next by the index: there may be hundreds of rows of each.
    const NEXT: &str = "SELECT profile, kind FROM instances
         WHERE (profile, kind) > (?1, ?2) AND kind IS NOT NULL ORDER BY profile, kind LIMIT 1";
    let mut next = connection.prepare_cached(NEXT)?;
    let mut offices = Vec::new();
    let mut last = (Vec::new(), Vec::new());
    loop {
        // As bytes: a name that is no UTF-8 has to be passed by, not stumbled over.
        let text = |bytes| ToSqlOutput::Borrowed(ValueRef::Text(bytes));
        let found = next.query_row((text(&last.0), text(&last.1)), |row| {
            Ok((row.get_ref(0)?.as_bytes()?.to_vec(), row.get_ref(1)?.as_bytes()?.to_vec()))
        });
        let Some(found) = found.optional()? else { return Ok(offices) };
        last = found;
        let name = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        // Names that no program of ours writes are nobody's.
        let profile = name(&last.0).and_then(|name| ProfileName::new(name).ok());
        let kind = name(&last.1).and_then(|name| Kind::new(name).ok());
        offices.extend(profile.zip(kind).map(|(profile, kind)| Office { profile, kind }));
    }
}

/// The incarnation of an office that ended last.
pub(crate) fn last_ended(connection: &Connection, office: &Office) -> Result<Option<Record>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE profile = ?1 AND kind = ?2 AND ended_at_ms IS NOT NULL ORDER BY id DESC LIMIT 1"
    );
    let row = prepare(connection, &sql)?
        .query_row((office.profile.as_str(), office.kind.as_str()), Record::from_row)
        .optional()?;
    Ok(row)
}

/// Who a new row is about.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) pid: sys::Pid,
    pub(crate) start_time: Option<StartTime>,
    /// The kernel's own number of it.
    number: Option<sys::ProcessNumber>,
    pub(crate) uid: Option<u32>,
    /// Already redacted.
    pub(crate) argv: Vec<String>,
    raw: command_line::Raw,
    pub(crate) party: Option<String>,
    pub(crate) supervisor: String,
    /// Where its memory is counted, and how many the kernel had killed there by now.
    memory: Option<(sys::MemoryGroup, u64)>,
}

impl Subject {
    /// This very process.
    pub(crate) fn myself(observer: &Observer) -> Self {
        let facts = sys::process_facts(observer.pid);
        let raw = own_command_line();
        Self {
            pid: observer.pid,
            start_time: observer.start_time,
            number: observer.number,
            uid: facts.uid.or(observer.uid),
            argv: raw.redacted(&[]),
            raw,
            ..Self::surroundings(observer.pid, facts.parent, observer)
        }
    }

    /// Another process of this namespace.
    pub(crate) fn process(
        pid: sys::Pid,
        start_time: Option<StartTime>,
        observer: &Observer,
    ) -> Self {
        let facts = sys::process_facts(pid);
        let raw = command_line::Raw::new(sys::command_line(pid).unwrap_or_default());
        Self {
            pid,
            start_time,
            number: facts.number,
            uid: facts.uid,
            argv: raw.redacted(&[]),
            raw,
            ..Self::surroundings(pid, facts.parent, observer)
        }
    }

    /// A process that others have told of. Nobody knows who keeps starting it.
    pub(crate) fn told(
        pid: sys::Pid,
        start_time: Option<StartTime>,
        uid: Option<u32>,
        argv: Vec<String>,
    ) -> Self {
        let raw = command_line::Raw::new(argv.clone());
        let supervisor = supervisor_word(&Supervision::default());
        Self {
            pid,
            start_time,
            number: None,
            uid,
            argv,
            raw,
            party: None,
            supervisor,
            memory: None,
        }
    }

    /// The command line without the identities that the process locks.
    pub(crate) fn argv_without(&self, secrets: &[&Secret]) -> Vec<String> {
        if secrets.is_empty() { self.argv.clone() } else { self.raw.redacted(secrets) }
    }

    fn surroundings(pid: sys::Pid, parent: Option<sys::Pid>, observer: &Observer) -> Self {
        let supervision = sys::supervision(pid);
        Self {
            pid,
            start_time: None,
            number: None,
            uid: None,
            argv: Vec::new(),
            raw: command_line::Raw::default(),
            party: crate::party::of(parent, &supervision, observer),
            supervisor: supervisor_word(&supervision),
            memory: sys::details::memory_group(pid)
                .and_then(|group| Ok((group.oom_kills()?, group)))
                .map(|(kills, group)| (group, kills))
                .ok(),
        }
    }
}

fn own_command_line() -> command_line::Raw {
    command_line::Raw::new(
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
    )
}

/// What supervises a process, as its row says it.
pub(crate) fn supervisor_word(supervision: &Supervision) -> String {
    if let Some(unit) = &supervision.systemd_service {
        format!("systemd:{unit}")
    } else if let Some(label) = &supervision.launchd_label {
        format!("launchd:{label}")
    } else if let Some(id) = &supervision.container {
        format!("container:{id}")
    } else {
        "none".to_owned()
    }
}

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

impl NewInstance<'_> {
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
            argv = command_line::redact_alike(&argv, &recorded);
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
                :keeper_start_time, :started_at_ms, :memory_cgroup, :memory_cgroup_inode, :oom_kills,
                :anchor_inode, :anchor_dev, :anchor_fsid, :process_inode, :written_boot_clock_ms,
                :written_by)";
        tx.check_schema()?;
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

/// Dates a row of this transaction back: its process had been running for `age_ms` when it was put on record.
/// Both clocks, or they would look as if they had moved apart, which is the sign of a restart.
pub(crate) fn date_back(tx: &Tx<'_>, id: InstanceId, age_ms: i64) -> Result<()> {
    tx.prepare_cached(
        "UPDATE instances SET started_at_ms = started_at_ms - ?2,
             written_boot_clock_ms = written_boot_clock_ms - ?2
         WHERE id = ?1 AND written_boot_clock_ms >= ?2 AND started_at_ms >= ?2",
    )?
    .execute((id.as_i64(), age_ms))?;
    Ok(())
}

/// The columns that say which file an anchor is: SQLite's numbers have a sign, the kernel's do not.
struct AnchorFile {
    inode: Option<i64>,
    device: Option<i64>,
    filesystem: Option<i64>,
}

impl AnchorFile {
    /// Of the anchor `name`, which stands in its place while the transaction lasts. That of an older
    /// gateway is its file, and not ours.
    fn of(tx: &Tx<'_>, name: Option<&str>) -> Result<Self> {
        let key = match name {
            Some(name) if legacy::path_of(name).is_none() => tx.store().anchor_key(tx, name)?,
            Some(_) | None => None,
        };
        let signed = |number: u64| number.cast_signed();
        Ok(Self {
            inode: key.map(|key| signed(key.inode)),
            device: key.map(|key| signed(key.device)),
            filesystem: key.and_then(|key| key.filesystem).map(signed),
        })
    }
}

/// Makes all live rows that name the anchor `from` name `to`.
pub(crate) fn rename_anchor(tx: &Tx<'_>, from: &str, to: &str) -> Result<()> {
    let file = AnchorFile::of(tx, Some(to))?;
    tx.prepare_cached(
        "UPDATE instances SET anchor = ?2, anchor_inode = ?3, anchor_dev = ?4, anchor_fsid = ?5
         WHERE anchor = ?1 AND ended_at_ms IS NULL",
    )?
    .execute((from, to, file.inode, file.device, file.filesystem))?;
    Ok(())
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

/// The incarnation of an older gateway with this lock, whether or not it has ended; the youngest.
pub(crate) fn of_older(
    connection: &Connection,
    office: &Office,
    pid: sys::Pid,
    start_time: Option<i64>,
    anchor: &str,
) -> Result<Option<InstanceId>> {
    let id = connection
        .prepare_cached(
            "SELECT id FROM instances
             WHERE profile = ?1 AND kind = ?2 AND origin = 'pid' AND pid = ?3
               AND (?4 IS NULL OR start_time IS NULL OR start_time = ?4)
               AND (anchor = ?5 OR anchor IS NULL)
             ORDER BY id DESC LIMIT 1",
        )?
        .query_row(
            (office.profile.as_str(), office.kind.as_str(), pid, start_time, anchor),
            |row| row.get(0).map(InstanceId),
        )
        .optional()?;
    Ok(id)
}

/// The live rows of a profile that an import made: of older gateways, and those whose version is `made_by`.
pub(crate) fn imported(
    connection: &Connection,
    profile: &ProfileName,
    made_by: &str,
) -> Result<Vec<Record>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM instances
         WHERE ended_at_ms IS NULL AND profile = ?1 AND origin = 'pid'
           AND (kind IS NULL AND version = ?2 OR kind IS NOT NULL)"
    );
    let rows: Vec<Record> = prepare(connection, &sql)?
        .query_map((profile.as_str(), made_by), Record::from_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
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

/// The two processes that hold an anchor in the place of another one.
#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepers {
    pub(crate) first: (sys::Pid, Option<StartTime>, Option<sys::ProcessNumber>),
    pub(crate) second: Option<(sys::Pid, Option<StartTime>)>,
}

/// Makes all live rows on `anchor` name these keepers.
#[cfg(feature = "cli")]
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

/// Records that the keepers on `anchor` end although their process lives on.
#[cfg(feature = "cli")]
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

/// Records which process the `run` started, before that process may begin.
pub(crate) fn set_child(
    tx: &Tx<'_>,
    id: InstanceId,
    nonce: &Nonce,
    command: &Command,
) -> Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE instances
             SET child_pid = ?3, child_start_time = ?4, child_process_inode = ?5, child_sid = ?6,
                 command_lock = ?7, command_lock_inode = ?8
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
        ))?;
    Ok(changed == 1)
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

/// Why an incarnation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// Its owner let go.
    Released,
    /// The command of a `run` ended by itself.
    Exited,
    /// The command of a `run` was ended by a signal that somebody sent.
    Signalled,
    /// The command of a `run` was ended by a fault of its own.
    Crashed,
    /// A person ended the record.
    Evicted,
    /// The process executed itself anew and claimed again.
    ReExecuted,
    /// The store was restored from a copy under its owner, which claimed again.
    StoreReplaced,
    /// Somebody stopped it on purpose.
    PlannedStop,
    /// Somebody else took its office over.
    TakenOver,
    /// One of its threads panicked, and it ended by that.
    Panicked,
    /// It was killed, and the kernel's counters or its log say that memory had run out.
    OomSuspected,
    /// The next claimant found it dead.
    Dead(DeadReason),
}

impl EndReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Exited => "exited",
            Self::Signalled => "signalled",
            Self::Crashed => "crashed",
            Self::Evicted => "evicted",
            Self::ReExecuted => "re_executed",
            Self::StoreReplaced => "store_replaced",
            Self::PlannedStop => "planned_stop",
            Self::TakenOver => "taken_over",
            Self::Panicked => "panicked",
            Self::OomSuspected => "oom_suspected",
            Self::Dead(reason) => reason.as_str(),
        }
    }
}

impl EndReason {
    /// Whether a request to end explains an end that was found or recorded as this. A crash is a
    /// crash, whatever was asked for.
    pub(crate) fn may_have_been_asked_for(self) -> bool {
        match self {
            Self::Released | Self::Exited | Self::Signalled => true,
            Self::Dead(reason) => {
                !matches!(reason, DeadReason::Rebooted | DeadReason::LeaseExpired)
            }
            Self::Crashed
            | Self::Evicted
            | Self::ReExecuted
            | Self::StoreReplaced
            | Self::PlannedStop
            | Self::TakenOver
            | Self::Panicked
            | Self::OomSuspected => false,
        }
    }

    /// Whether a gateway that was still starting may have ended like this.
    pub(crate) fn may_be_cut_short(self) -> bool {
        match self {
            Self::Exited
            | Self::Signalled
            | Self::Crashed
            | Self::PlannedStop
            | Self::TakenOver
            | Self::Panicked
            | Self::OomSuspected => true,
            Self::Dead(reason) => reason != DeadReason::LeaseExpired,
            Self::Released | Self::Evicted | Self::ReExecuted | Self::StoreReplaced => false,
        }
    }

    /// Whether it goes on under another row: nobody's place was taken.
    pub(crate) fn goes_on(self) -> bool {
        matches!(self, Self::ReExecuted | Self::StoreReplaced)
    }

    /// Whether it is about one lock, and not about its owner.
    pub(crate) fn is_of_the_lease(self) -> bool {
        self == Self::Dead(DeadReason::LeaseExpired)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an incarnation ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) reason: EndReason,
    pub(crate) by: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) detail: Option<String>,
}

impl End {
    pub(crate) fn new(reason: EndReason) -> Self {
        Self { reason, by: None, exit_code: None, signal: None, detail: None }
    }

    pub(crate) fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// Whether an end of this reason and exit code counts towards a storm: nobody asked for it.
pub(crate) fn is_abnormal(end_reason: &str, exit_code: Option<i64>) -> bool {
    match end_reason {
        "released" | "planned_stop" | "taken_over" | "signalled" | "evicted" | "re_executed"
        | "store_replaced" | "rebooted" => false,
        "exited" => exit_code != Some(0),
        _ => true,
    }
}

const END_SQL: &str = "UPDATE instances
    SET ended_at_ms = :ended_at_ms, end_reason = :reason, ended_by = :by, exit_code = :exit_code,
        signal = :signal, detail = coalesce(:detail, detail)
    WHERE id = :id AND ended_at_ms IS NULL AND (:nonce_hash IS NULL OR nonce_hash = :nonce_hash)
    RETURNING profile, kind, pid";

/// Ends a row, and everything that is for it or leans on it. The reason that was recorded; `None`
/// when the row has ended already or is not the one of `nonce_hash`.
fn end(
    tx: &Tx<'_>,
    id: InstanceId,
    nonce_hash: Option<&str>,
    end: &End,
) -> Result<Option<EndReason>> {
    let end = &autopsy::explain(tx, tx.store(), id, end)?;
    let parameters = named_params! {
        ":id": id.0,
        ":nonce_hash": nonce_hash,
        ":ended_at_ms": tx.now_ms(),
        ":reason": end.reason.as_str(),
        ":by": end.by,
        ":exit_code": end.exit_code,
        ":signal": end.signal,
        ":detail": end.detail,
    };
    let ended: Option<(Option<String>, Option<String>, Option<i64>)> = tx
        .prepare_cached(END_SQL)?
        .query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((profile, kind, pid)) = ended else { return Ok(None) };
    let has_markers = marker_table::exists(tx)?;
    if has_markers {
        marker_table::close_all_of(tx, id)?;
    }
    let how = LockEnd { reason: end.reason.as_str(), by: end.by.as_deref() };
    if lock_table::end_some_of(tx, id, how)? == lock_table::ENDED_AT_ONCE {
        tx.leave_locks_of(id);
    }
    let (Some(profile), Some(kind)) = (profile, kind) else {
        waiters::remove(tx, id)?;
        if has_markers {
            reservation::remove_all_of(tx, id)?;
        }
        return Ok(Some(end.reason));
    };
    if let (Ok(profile), Ok(kind)) = (ProfileName::new(profile), Kind::new(kind)) {
        tx.record(&EventRecord {
            event: "office_ended",
            office: Some(&Office { profile, kind }),
            instance: Some(id),
            pid: pid.and_then(valid_pid),
            detail: Some(serde_json::json!({
                "reason": end.reason.as_str(),
                "by": end.by,
                "exit_code": end.exit_code,
                "signal": end.signal,
            })),
            ..EventRecord::default()
        })?;
    }
    Ok(Some(end.reason))
}

/// Ends a row that its owner lets go. The nonce makes sure that it is the owner's; false when the
/// row has ended already or is not.
pub(crate) fn end_own(tx: &Tx<'_>, id: InstanceId, nonce_hash: &str, how: &End) -> Result<bool> {
    tx.let_go_of_anchor();
    Ok(end(tx, id, Some(nonce_hash), how)?.is_some())
}

/// Ends a row whose owner is dead, or that a person evicts. The reason as it was recorded; `None`
/// when the row has ended already.
pub(crate) fn end_other(tx: &Tx<'_>, id: InstanceId, how: &End) -> Result<Option<EndReason>> {
    end(tx, id, None, how)
}

/// Keeps the newest incarnations of an office, however long ago they were: a clock that is wrong once would
/// delete all that came before (FIELD-BUGS row 129). Of an anchor that is still held one row stays: without
/// any it would look like one whose store was lost.
pub(crate) fn prune_history(
    tx: &Tx<'_>,
    office: &Office,
    is_held: impl Fn(&str) -> bool,
) -> Result<()> {
    const OLD: &str = "WHERE profile = ?1 AND kind = ?2 AND ended_at_ms IS NOT NULL
          AND id <= (SELECT id FROM instances WHERE profile = ?1 AND kind = ?2
                     ORDER BY id DESC LIMIT 1 OFFSET ?3)";
    let parameters = (office.profile.as_str(), office.kind.as_str(), HISTORY_KEPT);
    delete_unless_held(tx, OLD, parameters, is_held)
}

/// Forgets whom earlier incarnations of an office served and superseded, but for the last that ended.
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

/// How many rows one pruning deletes: as a rule there are a few.
const DELETED_AT_ONCE: usize = 500;

/// How long one pruning looks for them: of whoever holds an anchor that no live row names a row stays.
const PRUNED_WITHIN: Duration = Duration::from_millis(10);

/// Deletes some of the rows that `which` selects, but for the youngest row of an anchor that is held.
fn delete_unless_held(
    tx: &Tx<'_>,
    which: &str,
    parameters: impl rusqlite::Params,
    is_held: impl Fn(&str) -> bool,
) -> Result<()> {
    let sql = format!(
        "SELECT id, anchor, EXISTS (
             SELECT 1 FROM instances AS live
             WHERE live.anchor = instances.anchor AND live.ended_at_ms IS NULL
         ) OR EXISTS (
             SELECT 1 FROM instances AS younger
             WHERE younger.anchor = instances.anchor AND younger.ended_at_ms IS NOT NULL
               AND younger.id > instances.id)
         FROM instances {which}"
    );
    let until = Deadline::after(PRUNED_WITHIN);
    let mut over: Vec<i64> = Vec::new();
    let mut statement = tx.prepare_cached(&sql)?;
    let mut rows = statement.query(parameters)?;
    // Not those that are looked at: many that have to stay would be in the way of the others for ever.
    while over.len() < DELETED_AT_ONCE
        && let Some(row) = rows.next()?
    {
        let (anchor, is_named_again): (Option<String>, bool) = (row.get(1)?, row.get(2)?);
        if is_named_again || !anchor.is_some_and(|anchor| is_held(&anchor)) {
            over.push(row.get(0)?);
        }
        if until.has_passed() {
            break;
        }
    }
    drop(rows);
    for id in over {
        // With the row its locks would go, however many they are.
        if !lock_table::end_left_of(tx, InstanceId(id))? {
            tx.prepare_cached("DELETE FROM instances WHERE id = ?1")?.execute([id])?;
        }
    }
    Ok(())
}

/// How long one claim looks for the dead that are in nobody's way, and ends them.
const SWEPT_WITHIN: Duration = Duration::from_millis(10);

/// Ends the rows of processes without an office that died: nobody else ever claims those. Each claim begins
/// at another row: behind many that live there may be dead ones, and a process that claims once remembers
/// nothing.
pub(crate) fn sweep_without_office(
    tx: &Tx<'_>,
    mut is_dead: impl FnMut(&Record) -> Option<DeadReason>,
    is_held: impl Fn(&str) -> bool,
) -> Result<()> {
    let until = Deadline::after(SWEPT_WITHIN);
    let mut live: Vec<(InstanceId, Option<String>)> = tx
        .prepare_cached(
            "SELECT id, anchor FROM instances WHERE ended_at_ms IS NULL AND kind IS NULL",
        )?
        .query_map([], |row| Ok((InstanceId(row.get(0)?), row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let begin = tx.one_of(live.len());
    live.rotate_left(begin);
    let mut dead = Vec::new();
    for (id, anchor) in live {
        // The cheap look first: of many waiters and holders nearly all are alive.
        if !anchor.as_deref().is_some_and(&is_held)
            && let Some(record) = by_id(tx, id)?
        {
            dead.extend(is_dead(&record).map(|reason| (id, reason)));
        }
        if until.has_passed() {
            break;
        }
    }
    for (id, reason) in dead {
        end(tx, id, None, &End::new(EndReason::Dead(reason)))?;
        if until.has_passed() {
            break;
        }
    }
    Ok(())
}

/// Keeps the newest rows without an office, and those whose anchor is held, as [`prune_history`]
/// does.
pub(crate) fn prune_without_office(tx: &Tx<'_>, is_held: impl Fn(&str) -> bool) -> Result<()> {
    const OLD: &str = "WHERE kind IS NULL AND ended_at_ms IS NOT NULL AND id <= (
            SELECT id FROM instances WHERE kind IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?1)";
    delete_unless_held(tx, OLD, [HISTORY_KEPT], is_held)
}
