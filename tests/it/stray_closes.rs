//! A store that others open, too: threads of an owner that open and close its files, another SQLite in the
//! same process, Python in it, and `sqlite3` beside it. FIELD-BUGS row 98.
//!
//! Symptom: a gateway that made a backup of its own `state.db`, or asked it by Python's `sqlite3`, went on
//! in files that nobody else had; two writers wrote at once; rows that had been acknowledged were gone. Cause:
//! SQLite locks by POSIX record locks, and any close of a file by a process cancels all of that process
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2). It holds because our connections lock by open
//! file (`sys/wal_index.rs`), and look whether the files are still those that others have (`store/files.rs`).
//!
//! Whatever happens in the storm, four things hold: what was acknowledged is seen by everybody else; there
//! are never two holders, by a lock that incumbent does not know; the database is whole; and `-wal` and
//! `-shm` stay the same files. What no lock of ours can help: a close cancels those of the *other* SQLite in
//! the same process as well, so nobody closes a `-shm` here while that one is at work.
//!
//! `INCUMBENT_STRAY` is for how many seconds (5). In a build with the feature `switchable-guards` the same is
//! run with one guard left out at a time, and has to be broken.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use incumbent::{
    Acquire, Claim, Clock, ErrorKind, LockRequest, OpenOptions, Released, Standing, StatusUpdate,
    Store, SystemClock, Tenure,
};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use crate::support::second_sqlite::{Failed, Python, SecondSqlite};
use crate::support::{
    LIMIT, Process, Random, Sandbox, beside, has, order, role, role_db, skipped, test_name,
};

const ROLE_TEST: &str = test_name!(role_of_an_owner);

const OWNERS: u64 = 2;
const SHELLS: u64 = 3;

/// How the names of the three files end.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// What anybody else in the process does to a file, a backup or a hash.
fn open_and_close(path: &Path) {
    let mut some = [0; 64];
    // One that is gone is found out elsewhere.
    let _ = File::open(path).and_then(|mut file| file.read(&mut some));
}

fn one_more(counter: &str) -> String {
    format!("UPDATE meta SET value = value + 1 WHERE key = 'count-{counter}' RETURNING value")
}

/// Between two visits of somebody else. Now and then all of them are away at once.
fn pause(random: &mut Random) {
    let longest_ms = if random.chance(10) { 60 } else { 5 };
    random.pause_up_to(Duration::from_millis(longest_ms));
}

/// Something harmless in a table that everybody may write to.
const AN_EVENT: &str = "INSERT INTO events (at_ms, event, detail) VALUES (0, 'of_a_test', '{}')";

/// Where every process writes down what must not be, and the last number that was acknowledged to it.
struct Notes {
    place: PathBuf,
}

impl Notes {
    fn broken(&self, what: &str) {
        let line = format!("{what}\n");
        let mut file =
            File::options().create(true).append(true).open(self.place.join("broken")).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }

    fn all_broken(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.place.join("broken")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn acknowledged(&self, number: u64) -> Option<u64> {
        let bytes = std::fs::read(self.place.join(format!("acknowledged-{number}"))).ok()?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// A number that rises, in a file that only its holder may have locked.
struct Witness(File);

impl Witness {
    fn of(place: &Path, what: &str) -> Self {
        let path = place.join(format!("witness-{what}"));
        Self(
            File::options().create(true).truncate(false).read(true).write(true).open(path).unwrap(),
        )
    }

    /// What is wrong, if anything is: another one holds it, or had a later number.
    fn enter(&self, fence: i64) -> Result<(), String> {
        if flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err("there are two holders".to_owned());
        }
        let mut last = [0; 8];
        let before = match self.0.read_at(&mut last, 0) {
            Ok(8) => i64::from_le_bytes(last),
            _ => 0,
        };
        self.0.write_all_at(&fence.to_le_bytes(), 0).unwrap();
        if before >= fence {
            return Err(format!("the fence {fence} came after {before}"));
        }
        Ok(())
    }

    fn leave(&self) {
        flock(&self.0, FlockOperation::Unlock).unwrap();
    }
}

/// A witness that never speaks proves nothing.
#[test]
fn the_witness_speaks_where_there_are_two_and_where_a_fence_falls() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (Witness::of(place.path(), "lock"), Witness::of(place.path(), "lock"));
    assert_eq!(one.enter(5), Ok(()));
    assert_eq!(two.enter(6), Err("there are two holders".to_owned()));
    one.leave();
    assert_eq!(two.enter(5), Err("the fence 5 came after 5".to_owned()));
    assert_eq!(two.enter(6), Ok(()));
}

/// Who opens the store beside the owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// Several shells, and in each owner another SQLite and Python.
    All,
    /// Who comes is always the first to open the files, and who leaves the last to close them.
    OneShell,
}

/// Plays an owner: `owner N`, `lonely N` without others in its process, or `obedient`.
#[test]
fn role_of_an_owner() {
    let Some(role) = role() else { return };
    match role.split(' ').collect::<Vec<_>>().as_slice() {
        ["owner", number] => Owner::new(number.parse().unwrap()).run(Others::All),
        ["lonely", number] => Owner::new(number.parse().unwrap()).run(Others::OneShell),
        ["obedient"] => obedient(),
        _ => {}
    }
}

#[derive(Default)]
struct Counts {
    statuses: AtomicU64,
    locks: AtomicU64,
    offices: AtomicU64,
    refused: AtomicU64,
    busy: AtomicU64,
    closes: AtomicU64,
    second: AtomicU64,
    python: AtomicU64,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

struct Owner {
    number: u64,
    store: Store,
    database: PathBuf,
    notes: Notes,
    seed: u64,
    is_over: AtomicBool,
    counts: Counts,
    /// Another one that opens the database in this process does it alone: their locks are not ours to
    /// protect, and each close would cancel those of the other.
    others: Mutex<()>,
}

impl Owner {
    fn new(number: u64) -> Self {
        let database = role_db();
        // The machine may be busy, and a VACUUM takes its time.
        let options = OpenOptions::new().path(&database).busy_budget(LIMIT);
        Self {
            number,
            store: options.open().unwrap(),
            database,
            notes: Notes { place: std::env::current_dir().unwrap() },
            seed: std::env::var("STORM_SEED").unwrap().parse().unwrap(),
            is_over: AtomicBool::new(false),
            counts: Counts::default(),
            others: Mutex::new(()),
        }
    }

    fn run(&self, others: Others) {
        let profile = self.store.profile(&format!("owner-{}", self.number)).unwrap();
        let Claim::Granted(tenure) = profile.claim().unwrap() else {
            panic!("it is nobody else's")
        };
        eprintln!("=> there");
        assert_eq!(order().as_deref(), Some("go"));
        std::thread::scope(|scope| {
            scope.spawn(|| self.write_statuses(&tenure));
            scope.spawn(|| self.compete_for_a_lock());
            scope.spawn(|| self.compete_for_an_office());
            scope.spawn(|| self.open_and_close_files());
            if others == Others::All {
                scope.spawn(|| self.be_another_sqlite());
                scope.spawn(|| self.be_python());
            }
            order();
            self.is_over.store(true, Ordering::Relaxed);
        });
        let Counts { statuses, locks, offices, refused, busy, closes, second, python } =
            &self.counts;
        eprintln!(
            "=> owner {}: {statuses:?} statuses, {locks:?} locks and {offices:?} offices ({refused:?} \
             refusals), {busy:?} busy, {closes:?} stray closes, {second:?} by another SQLite, \
             {python:?} by Python",
            self.number
        );
        // The others look at what it holds.
        order();
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn random(&self, number: u64) -> Random {
        Random::new(self.seed.wrapping_add(self.number * 100 + number))
    }

    fn broken(&self, what: &str) {
        self.notes.broken(&format!("owner {}: {what}", self.number));
    }

    /// A store that stayed busy was not changed; everything else is a fault, because nobody here
    /// deletes or replaces anything.
    fn failed(&self, what: &str, error: &incumbent::Error) {
        if error.kind() == ErrorKind::Busy {
            add(&self.counts.busy);
        } else {
            self.broken(&format!("{what}: {:?}: {error}", error.kind()));
        }
    }

    fn held(&self, what: &str, standing: incumbent::Result<Standing>) {
        match standing {
            Ok(Standing::Held) => {}
            Ok(Standing::Lost(lost)) => self.broken(&format!("{what} was lost: {lost:?}")),
            Err(error) => self.failed(what, &error),
        }
    }

    /// Counts in its status, and says which number was acknowledged. What the other owner said so is seen.
    fn write_statuses(&self, tenure: &Tenure) {
        let mut random = self.random(1);
        let path = self.notes.place.join(format!("acknowledged-{}", self.number));
        let acknowledged = File::create(path).unwrap();
        let mut number = 0_u64;
        while !self.is_over() {
            number += 1;
            match tenure.update_status(&StatusUpdate::new().extra(json!({ "number": number }))) {
                Ok(()) => {
                    acknowledged.write_all_at(&number.to_le_bytes(), 0).unwrap();
                    add(&self.counts.statuses);
                }
                Err(error) => self.failed("a status", &error),
            }
            self.held("its own office", tenure.verify());
            for other in 0..OWNERS {
                self.look_at(other);
            }
            random.pause_up_to(Duration::from_millis(2));
        }
    }

    fn look_at(&self, other: u64) {
        let Some(acknowledged) = self.notes.acknowledged(other) else { return };
        match self.store.profile(&format!("owner-{other}")).and_then(|profile| profile.status()) {
            Ok(report) => {
                let extra = report.runtime.and_then(|runtime| runtime.extra);
                let seen = extra.and_then(|extra| extra["number"].as_u64());
                if seen.is_none_or(|seen| seen < acknowledged) {
                    self.broken(&format!(
                        "owner {other} was told that {acknowledged} is written, and {seen:?} is seen"
                    ));
                }
            }
            Err(error) => self.failed("a question", &error),
        }
    }

    fn released(&self, what: &str, released: incumbent::Result<Released>) {
        match released {
            Ok(Released::Free) => {}
            Ok(Released::Pending(error)) | Err(error) => self.failed(what, &error),
            Ok(released) => {
                self.broken(&format!("{what} was not there to be released: {released:?}"));
            }
        }
    }

    fn compete_for_a_lock(&self) {
        let mut random = self.random(2);
        let witness = Witness::of(&self.notes.place, "lock");
        let request = LockRequest::new("token", "one for all").unwrap();
        while !self.is_over() {
            match self.store.try_acquire(&request) {
                Ok(Acquire::Granted(lock)) => {
                    add(&self.counts.locks);
                    if let Err(wrong) = witness.enter(lock.fence()) {
                        self.broken(&format!("the lock: {wrong}"));
                    }
                    self.held("the lock", lock.verify());
                    random.pause_up_to(Duration::from_millis(2));
                    witness.leave();
                    self.released("the lock", lock.release());
                }
                Ok(Acquire::Held(_)) => add(&self.counts.refused),
                Err(error) => self.failed("the lock", &error),
            }
            random.pause_up_to(Duration::from_millis(2));
        }
    }

    fn compete_for_an_office(&self) {
        let mut random = self.random(3);
        let witness = Witness::of(&self.notes.place, "office");
        let profile = self.store.profile("shared").unwrap();
        while !self.is_over() {
            match profile.claim() {
                Ok(Claim::Granted(tenure)) => {
                    add(&self.counts.offices);
                    if let Err(wrong) = witness.enter(tenure.instance().as_i64()) {
                        self.broken(&format!("the office: {wrong}"));
                    }
                    self.held("the office", tenure.verify());
                    random.pause_up_to(Duration::from_millis(2));
                    witness.leave();
                    self.released("the office", tenure.release());
                }
                Ok(Claim::Held(_)) => add(&self.counts.refused),
                Err(error) => self.failed("the office", &error),
            }
            random.pause_up_to(Duration::from_millis(2));
        }
    }

    fn open_and_close_files(&self) {
        let mut random = self.random(4);
        while !self.is_over() {
            let suffix = SUFFIXES[random.index(SUFFIXES.len())];
            let alone = (suffix == "-shm")
                .then(|| self.others.lock().unwrap_or_else(PoisonError::into_inner));
            open_and_close(&beside(&self.database, suffix));
            drop(alone);
            add(&self.counts.closes);
            // Sometimes one after another.
            if random.chance(2) {
                random.pause_up_to(Duration::from_millis(2));
            }
        }
    }

    fn be_another_sqlite(&self) {
        let Some(second) = SecondSqlite::load() else {
            return skipped("another SQLite: needs libsqlite3.so.0");
        };
        let mut random = self.random(5);
        let mut count = Count::new(format!("second-{}", self.number));
        while !self.is_over() {
            let (statement, counts) = count.draw(&mut random, &["PRAGMA quick_check"]);
            let alone = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            let done = second.once(&self.database, &statement);
            drop(alone);
            if let Err(wrong) = count.check(&statement, counts, done) {
                self.broken(&format!("another SQLite: {wrong}"));
            }
            self.counts.second.store(count.done, Ordering::Relaxed);
            pause(&mut random);
        }
        let _alone = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(wrong) = count.look(&self.database) {
            self.broken(&wrong);
        }
    }

    fn be_python(&self) {
        let mut random = self.random(6);
        // It may do all that it does while it begins.
        let alone = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(python) = Python::load() else {
            return skipped("Python in the same process: needs libpython3 and its sqlite3");
        };
        drop(alone);
        let program = PYTHON
            .replace("DATABASE", &self.database.display().to_string())
            .replace("COUNTER", &format!("python-{}", self.number));
        assert!(python.run(&program));
        while !self.is_over() {
            let acts = ["read()", "read()", "count()", "count()", "checkpoint()", "hash_it()"];
            let act = acts[random.index(acts.len())];
            let alone = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            let is_done = python.run(act);
            drop(alone);
            if is_done {
                add(&self.counts.python);
            } else {
                self.broken(&format!("Python in the same process: {act}, see what it said"));
            }
            pause(&mut random);
        }
        // It counts once more than it has counted. Others may still close files.
        let _alone = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if !python.run("count()") {
            self.broken("Python in the same process: the last count, see what it said");
        }
    }
}

/// A clock that is asked in the middle of a change: what is to happen there, once.
#[derive(Default)]
struct Meanwhile(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Clock for Meanwhile {
    fn wall_us(&self) -> i64 {
        let act = self.0.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
        SystemClock.wall_us()
    }

    fn boot_ms(&self) -> i64 {
        SystemClock.boot_ms()
    }
}

/// `close FILE`, `status`, or `meanwhile SUFFIX STATEMENT`: what the next change has in its middle, a stray
/// close and then somebody else.
fn obedient() {
    let database = role_db();
    let meanwhile = Arc::new(Meanwhile::default());
    let options =
        OpenOptions::new().path(&database).clock(Arc::clone(&meanwhile) as Arc<dyn Clock>);
    let store = options.open().unwrap();
    let profile = store.profile("owner-0").unwrap();
    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("it is nobody else's") };
    let acknowledged = File::create("acknowledged-0").unwrap();
    let mut number = 0_u64;
    eprintln!("=> there");
    while let Some(order) = order() {
        match order.split_once(' ') {
            Some(("close", which)) => {
                open_and_close(&beside(&database, which.trim_start_matches("state.db")));
            }
            Some(("meanwhile", words)) => {
                let (suffix, statement) = words.split_once(' ').unwrap();
                let (path, statement) = (beside(&database, suffix), statement.to_owned());
                let database = database.clone();
                let act = move || {
                    open_and_close(&path);
                    let mut shell = Command::new("sqlite3");
                    let answer = shell.arg(database).arg(&statement).output().unwrap();
                    let code = answer.status;
                    eprintln!("=> meanwhile: {code} {}", String::from_utf8_lossy(&answer.stderr));
                };
                *meanwhile.0.lock().unwrap() = Some(Box::new(act));
            }
            _ => {
                number += 1;
                let update = StatusUpdate::new().extra(json!({ "number": number }));
                match tenure.update_status(&update) {
                    Ok(()) => {
                        acknowledged.write_all_at(&number.to_le_bytes(), 0).unwrap();
                        eprintln!("=> acknowledged");
                    }
                    Err(error) => eprintln!("=> {:?}: {error}", error.kind()),
                }
                continue;
            }
        }
        eprintln!("=> done");
    }
}

/// A count in the database that nobody else touches: each number comes once.
struct Count {
    name: String,
    last: u64,
    done: u64,
    busy: u64,
}

impl Count {
    fn new(name: String) -> Self {
        Self { name, last: 0, done: 0, busy: 0 }
    }

    /// A statement, and whether it counts.
    fn draw(&self, random: &mut Random, further: &[&str]) -> (String, bool) {
        let others = [
            "SELECT count(*) FROM instances",
            AN_EVENT,
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "PRAGMA user_version",
        ];
        if random.chance(2) {
            return (one_more(&self.name), true);
        }
        let drawn = random.index(others.len() + further.len());
        (others.iter().chain(further).nth(drawn).copied().unwrap_or(AN_EVENT).to_owned(), false)
    }

    /// Whether others find what it has counted to; what is wrong, if not.
    fn look(&self, database: &Path) -> Result<(), String> {
        let Self { name, last, .. } = self;
        let value = asked(database, &format!("SELECT value FROM meta WHERE key = 'count-{name}'"));
        if value == Ok(last.to_string()) {
            return Ok(());
        }
        Err(format!("{name} has counted to {last}, and there is {value:?}"))
    }

    /// What is wrong, if anything is. What stayed busy was not done.
    fn check(
        &mut self,
        statement: &str,
        counts: bool,
        done: Result<Option<String>, Failed>,
    ) -> Result<(), String> {
        let value = match done {
            Ok(value) => value.unwrap_or_default(),
            Err(Failed::Busy) => {
                self.busy += 1;
                return Ok(());
            }
            Err(Failed::Otherwise(error)) => return Err(format!("{statement}: {error}")),
        };
        self.done += 1;
        if counts {
            let last = self.last;
            // From here on by what is there, so that one loss is told once.
            self.last = value.parse().unwrap_or(last + 1);
            if self.last != last + 1 {
                return Err(format!("it has counted to {last}, and then to {value:?}"));
            }
        }
        if statement == "PRAGMA quick_check" && value != "ok" {
            return Err(format!("{statement}: {value}"));
        }
        Ok(())
    }
}

const PYTHON: &str = r#"
import hashlib, sqlite3
counted = 0
def once(statement):
    connection = sqlite3.connect("DATABASE", timeout=20, isolation_level=None)
    try:
        return connection.execute(statement).fetchall()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error): raise
        return None
    finally:
        connection.close()
def count():
    global counted
    rows = once("UPDATE meta SET value = value + 1 WHERE key = 'count-COUNTER' RETURNING value")
    if rows is None: return
    last, counted = counted, rows[0][0]
    assert counted == last + 1, (last, rows)
def read():
    once("SELECT count(*) FROM instances")
def checkpoint():
    once("PRAGMA wal_checkpoint(TRUNCATE)")
def hash_it():
    hashlib.sha256(open("DATABASE", "rb").read())
"#;

/// What everybody shares who is no owner.
struct World {
    sandbox: Sandbox,
    notes: Notes,
    is_over: AtomicBool,
}

/// What came of a storm.
struct Outcome {
    broken: Vec<String>,
    lasted: Duration,
}

fn sqlite3(sandbox: &Sandbox, statement: &str) -> Result<Option<String>, Failed> {
    /// Several waits of those that one statement may have to wait.
    const LIMIT_OF_A_SHELL: Duration = Duration::from_mins(2);
    let mut command = sandbox.program("sqlite3");
    command.args(["-batch", "-bail", "-cmd", ".timeout 20000"]).arg(sandbox.db()).arg(statement);
    let answer = Process::start(command).finish(LIMIT_OF_A_SHELL);
    match answer.code() {
        0 => Ok(answer.out.lines().last().map(str::to_owned)),
        _ if answer.err.contains("locked") => Err(Failed::Busy),
        code => Err(Failed::Otherwise(format!("{} ({code})", answer.err.trim()))),
    }
}

fn inodes_of(database: &Path) -> [Option<u64>; 3] {
    SUFFIXES.map(|suffix| std::fs::metadata(beside(database, suffix)).map(|it| it.ino()).ok())
}

/// By a connection that reads, and so leaves nothing behind.
fn asked(database: &Path, question: &str) -> rusqlite::Result<String> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(LIMIT)?;
    connection.query_row(question, [], |row| {
        Ok(match row.get::<_, rusqlite::types::Value>(0)? {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        })
    })
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let notes = Notes { place: sandbox.path().to_owned() };
        Self { sandbox, notes, is_over: AtomicBool::new(false) }
    }

    fn owner(&self, role: &str, seed: u64, without: Option<&str>) -> Process {
        let mut command = self.sandbox.role_command(ROLE_TEST, role);
        command.env("STORM_SEED", seed.to_string());
        if let Some(without) = without {
            command.env("INCUMBENT_WITHOUT_GUARD", without);
        }
        let mut owner = Process::start(command);
        owner.err_line_with("=> there");
        owner
    }

    /// A person, or a script, with `sqlite3`; how often it did something, and how often it was too busy.
    fn be_a_shell(&self, number: u64, mut random: Random) -> Count {
        let mut count = Count::new(format!("shell-{number}"));
        while !self.is_over.load(Ordering::Relaxed) {
            let (statement, counts) = count.draw(&mut random, &["VACUUM", "PRAGMA quick_check"]);
            let done = sqlite3(&self.sandbox, &statement);
            if let Err(wrong) = count.check(&statement, counts, done) {
                self.notes.broken(&format!("sqlite3: {wrong}"));
            }
            pause(&mut random);
        }
        count
    }

    fn look_at_files(&self, before: &[Option<u64>; 3]) {
        let files = inodes_of(&self.sandbox.db());
        if files != *before {
            self.notes.broken(&format!("the files are {files:?}, and were {before:?}"));
        }
    }

    fn look_at_status(&self, number: u64) {
        let Some(acknowledged) = self.notes.acknowledged(number) else { return };
        let question = format!(
            "SELECT max(extra ->> '$.number') FROM runtime_status JOIN instances ON id = instance_id
             WHERE profile = 'owner-{number}'"
        );
        match asked(&self.sandbox.db(), &question) {
            Ok(seen) if seen.parse().is_ok_and(|seen: u64| seen >= acknowledged) => {}
            Ok(seen) => self.notes.broken(&format!(
                "owner {number} was told that {acknowledged} is written, and others see {seen}"
            )),
            Err(error) => self.notes.broken(&format!("a look: {error}")),
        }
    }

    fn look_at_all(&self, files: &[Option<u64>; 3], owners: &mut [Process]) {
        self.look_at_files(files);
        for (number, owner) in (0..).zip(owners) {
            if owner.has_ended() {
                self.notes.broken(&format!("owner {number} ended: {}", owner.wait(LIMIT)));
            }
            self.look_at_status(number);
        }
    }

    /// When all is quiet, and the owners still have the store open.
    fn look_at_the_end(&self, counts: &[Count]) {
        let database = self.sandbox.db();
        match asked(&database, "PRAGMA integrity_check") {
            Ok(answer) if answer == "ok" => {}
            other => self.notes.broken(&format!("integrity_check: {other:?}")),
        }
        for count in counts {
            if let Err(wrong) = count.look(&database) {
                self.notes.broken(&wrong);
            }
        }
    }
}

/// Lasts `seconds`, or until something is broken.
fn storm(seconds: u64, others: Others, without: Option<&str>) -> Outcome {
    let (role, shells) = match others {
        Others::All => ("owner", SHELLS),
        Others::OneShell => ("lonely", 1),
    };
    let mut random = Random::seeded();
    let world = World::new();
    let seed = random.below(1 << 40);
    let mut owners: Vec<_> =
        (0..OWNERS).map(|number| world.owner(&format!("{role} {number}"), seed, without)).collect();
    let beside = (0..shells).map(|number| format!("shell-{number}"));
    let inside = |kind| (0..OWNERS).map(move |number| format!("{kind}-{number}"));
    for name in beside.chain(inside("second")).chain(inside("python")) {
        world.sandbox.forge(&format!("INSERT INTO meta VALUES ('count-{name}', 0)"));
    }
    let files = inodes_of(&world.sandbox.db());
    let started = Instant::now();
    for owner in &mut owners {
        owner.say("go");
    }
    let counts: Vec<Count> = std::thread::scope(|scope| {
        let world = &world;
        let shells: Vec<_> = (0..shells)
            .map(|number| {
                let random = Random::new(random.next());
                scope.spawn(move || world.be_a_shell(number, random))
            })
            .collect();
        while started.elapsed() < Duration::from_secs(seconds)
            && world.notes.all_broken().is_empty()
        {
            world.look_at_all(&files, &mut owners);
            random.pause_up_to(Duration::from_millis(20));
        }
        world.is_over.store(true, Ordering::Relaxed);
        shells.into_iter().map(|shell| shell.join().unwrap()).collect()
    });
    let lasted = started.elapsed();
    if world.notes.all_broken().is_empty() {
        for (number, owner) in owners.iter_mut().enumerate() {
            owner.say("stop");
            match owner.err_line_with_or_end("=> ") {
                Some(line) => eprintln!("{line}"),
                None => world.notes.broken(&format!("owner {number} ended in the end")),
            }
        }
        for Count { name, last, done, busy } in &counts {
            eprintln!("=> {name}: {done} statements, counted to {last}, {busy} busy");
        }
        world.look_at_all(&files, &mut owners);
        world.look_at_the_end(&counts);
    }
    let broken = world.notes.all_broken();
    for mut owner in owners {
        if broken.is_empty() {
            owner.say("leave");
        } else {
            owner.kill();
        }
        let answer = owner.finish(LIMIT);
        for skip in answer.err.lines().filter(|line| line.contains("SKIPPED")) {
            eprintln!("{skip}");
        }
        if !broken.is_empty() {
            eprintln!("{}", answer.err);
        }
    }
    eprintln!("{lasted:?}, without {without:?}: {broken:#?}");
    Outcome { broken, lasted }
}

fn stray_seconds() -> u64 {
    std::env::var("INCUMBENT_STRAY").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

#[test]
fn whoever_opens_the_files_nothing_is_lost_and_there_are_never_two() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let outcome = storm(stray_seconds(), Others::All, None);
    assert!(outcome.broken.is_empty(), "after {:?}: {:#?}", outcome.lasted, outcome.broken);
}

#[test]
fn one_that_is_always_the_first_and_the_last_of_the_others_breaks_nothing() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let outcome = storm(stray_seconds(), Others::OneShell, None);
    assert!(outcome.broken.is_empty(), "after {:?}: {:#?}", outcome.lasted, outcome.broken);
}

/// An owner that has acknowledged something.
struct Obedient {
    world: World,
    owner: Process,
    files: [Option<u64>; 3],
}

impl Obedient {
    fn new(without: Option<&str>) -> Self {
        let world = World::new();
        let owner = world.owner("obedient", 0, without);
        let files = inodes_of(&world.sandbox.db());
        let mut this = Self { world, owner, files };
        assert_eq!(this.told("status"), "acknowledged");
        this
    }

    /// The answer, or how it ended.
    fn told(&mut self, order: &str) -> String {
        if !self.owner.has_ended() {
            self.owner.say(order);
        }
        self.answer()
    }

    fn answer(&mut self) -> String {
        match self.owner.err_line_with_or_end("=> ") {
            Some(line) => line.split_once("=> ").unwrap().1.to_owned(),
            None => self.owner.wait(LIMIT).to_string(),
        }
    }

    fn sqlite3(&self, statement: &str) {
        if let Err(error) = sqlite3(&self.world.sandbox, statement) {
            self.world.notes.broken(&format!("sqlite3: {statement}: {error:?}"));
        }
    }

    fn broken(&self, what: &str) {
        self.world.notes.broken(what);
    }

    /// One more change, and what others see of it and of the database.
    fn end(mut self) -> Vec<String> {
        match self.told("status").as_str() {
            "acknowledged" => {}
            answer => self.broken(&format!("a status: {answer}")),
        }
        self.world.look_at_files(&self.files);
        self.world.look_at_status(0);
        self.world.look_at_the_end(&[]);
        self.world.notes.all_broken()
    }
}

/// In the middle of a change, after a close that cancelled the lock of a writer, somebody else writes.
fn another_writer(without: Option<&str>) -> Vec<String> {
    let mut owner = Obedient::new(without);
    owner.told(&format!("meanwhile -shm {AN_EVENT}"));
    let meanwhile = owner.told("status");
    if !meanwhile.contains("locked") {
        owner.broken(&format!("somebody wrote in the middle of a change: {meanwhile}"));
    }
    match owner.answer().as_str() {
        "acknowledged" => {}
        answer => owner.broken(&format!("the change: {answer}")),
    }
    owner.end()
}

/// In the middle of a change, after a close that cancelled the lock of the one that uses it, somebody else opens the
/// `-shm`: does he find it in use?
fn another_reader(without: Option<&str>) -> Vec<String> {
    let mut owner = Obedient::new(without);
    owner.told("meanwhile -shm SELECT count(*) FROM events");
    let meanwhile = owner.told("status");
    if !meanwhile.contains("exit status: 0") {
        owner.broken(&format!("nobody can read in the middle of a change: {meanwhile}"));
    }
    match owner.answer().as_str() {
        "acknowledged" => {}
        answer => owner.broken(&format!("the change: {answer}")),
    }
    owner.end()
}

/// After a close that cancelled the lock on the database, somebody else closes it: he is not the last.
fn another_that_closes(without: Option<&str>) -> Vec<String> {
    let mut owner = Obedient::new(without);
    owner.told("close state.db");
    owner.sqlite3("SELECT count(*) FROM events");
    owner.end()
}

/// A cleaner of old files deletes some that are in use, and somebody else makes them again, if he can: with
/// half of them he cannot read at all. Then an owner is told that its store is another one.
fn a_cleaner(of: &[&str], without: Option<&str>) -> Vec<String> {
    let mut owner = Obedient::new(without);
    for suffix in of {
        std::fs::remove_file(beside(&owner.world.sandbox.db(), suffix)).unwrap();
    }
    let _ = sqlite3(&owner.world.sandbox, "SELECT count(*) FROM events");
    match owner.told("status").as_str() {
        "acknowledged" => owner.world.look_at_status(0),
        answer if answer.starts_with("StoreReplaced") => {}
        answer => owner.broken(&format!("a status: {answer}")),
    }
    owner.world.notes.all_broken()
}

#[test]
fn one_stray_close_at_a_time_breaks_nothing() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    assert_eq!(another_writer(None), [""; 0]);
    assert_eq!(another_reader(None), [""; 0]);
    assert_eq!(another_that_closes(None), [""; 0]);
}

#[test]
fn a_file_that_is_deleted_under_its_owner_takes_no_acknowledged_write_with_it() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    assert_eq!(a_cleaner(&["-wal"], None), [""; 0]);
    assert_eq!(a_cleaner(&["-shm"], None), [""; 0]);
    assert_eq!(a_cleaner(&["-wal", "-shm"], None), [""; 0]);
}

/// Each guard is needed: with one of them left out the same is broken.
#[cfg(feature = "switchable-guards")]
mod without {
    use super::*;

    /// It takes a fraction of a second, as a rule.
    const LONGEST_S: u64 = 60;

    /// FIELD-BUGS row 106, where the kernel has no such locks (macOS): a close cancels those of SQLite, so the header
    /// is read only while nobody in the process has the store open. `doctor --fix` repaired no mode there.
    #[test]
    fn them_doctor_fix_still_sets_modes() {
        use std::os::unix::fs::PermissionsExt;
        let sandbox = Sandbox::new();
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        std::fs::set_permissions(sandbox.db(), PermissionsExt::from_mode(0o644)).unwrap();
        let mut command = sandbox.incumbent(["doctor", "--fix"]);
        command.env("INCUMBENT_WITHOUT_GUARD", "locks");
        Process::start(command).finish(LIMIT);
        assert_eq!(std::fs::metadata(sandbox.db()).unwrap().mode() & 0o777, 0o600);
    }

    fn storm_breaks(guard: &str, others: Others) {
        if !has("sqlite3") {
            return skipped("needs sqlite3");
        }
        let outcome = storm(LONGEST_S, others, Some(guard));
        assert!(!outcome.broken.is_empty(), "nothing was broken in {:?}", outcome.lasted);
    }

    fn breaks(scenario: impl Fn(Option<&str>) -> Vec<String>, guard: &str, how: &str) {
        if !has("sqlite3") {
            return skipped("needs sqlite3");
        }
        let broken = scenario(Some(guard));
        eprintln!("without {guard}: {broken:#?}");
        assert!(broken.iter().any(|what| what.contains(how)), "nothing of {how:?}: {broken:#?}");
    }

    #[test]
    fn the_locks_a_storm_breaks_it() {
        storm_breaks("locks", Others::All);
    }

    #[test]
    fn the_lock_that_says_in_use_a_storm_breaks_it() {
        storm_breaks("in_use", Others::OneShell);
    }

    #[test]
    fn the_lock_on_the_database_a_storm_breaks_it() {
        storm_breaks("database", Others::OneShell);
    }

    #[test]
    fn the_locks_two_write_at_once() {
        breaks(another_writer, "locks", "in the middle of a change");
    }

    #[test]
    fn the_lock_that_says_in_use_somebody_begins_the_index_anew() {
        breaks(another_reader, "in_use", "");
    }

    #[test]
    fn the_lock_on_the_database_the_wal_is_deleted() {
        breaks(another_that_closes, "database", "the files are");
    }

    #[test]
    fn comparing_the_files_an_acknowledged_write_is_lost() {
        breaks(|without| a_cleaner(&["-wal", "-shm"], without), "files", "was told that");
    }
}
