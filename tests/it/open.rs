//! Opening a store: whose place it is, what lies there already, and what the disk allows.

use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    BINARY, Disk, Identity, LIMIT, NOBODY, Process, Run, Sandbox, another_user, assert_untouched,
    assert_within, fingerprint, has, is_root, mode, mount_namespace, read_only_store, set_mode,
    skipped, stopped_writer, works,
};

/// Everything that asks.
pub const QUESTIONS: [&[&str]; 4] =
    [&["status"], &["history"], &["events"], &["sql", "SELECT * FROM gateways"]];

impl Sandbox {
    fn store(&self) -> PathBuf {
        self.file("store")
    }

    fn make_store_directory(&self, mode: u32) {
        std::fs::create_dir(self.store()).unwrap();
        set_mode(&self.store(), mode);
    }

    /// A store that is used once, so that there is something in it.
    fn make_store(&self) {
        self.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }

    /// Moves all that is in the write-ahead log to the file itself.
    fn checkpoint(&self) {
        let connection = Connection::open(self.db()).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
}

/// Runs it with `--json`, and asserts the error that comes of it.
#[track_caller]
fn assert_error(command: Command, code: i32, kind: &str) -> Value {
    let answer = Process::start(command).finish(LIMIT);
    assert_eq!(answer.code(), code, "{answer:#?}");
    let document = answer.json();
    assert_eq!(document["error"]["kind"], kind, "{document:#}");
    document["error"].clone()
}

const START: &[&str] = &["run", "--no-backoff", "--", "echo", "started"];

fn as_json(verb: &'static [&'static str]) -> Vec<&'static str> {
    [&["--json"], verb].concat()
}

/// FIELD-BUGS row 87: what is on record (command lines, homes) is its owner's business, whatever
/// the umask says.
#[test]
fn files_are_private_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let sandbox = Sandbox::new();
        let script = format!("umask {umask}; exec incumbent run -- /bin/sh -c 'echo $$; exec cat'");
        let run = Run::start(sandbox.shell(&script));
        for (path, expected) in [
            (sandbox.store(), 0o700),
            (sandbox.anchors(), 0o700),
            (sandbox.db(), 0o600),
            (sandbox.sidecar("-wal"), 0o600),
            (sandbox.sidecar("-shm"), 0o600),
            (sandbox.anchors().join(&sandbox.anchor_names()[0]), 0o600),
        ] {
            let mode = mode(&path);
            assert_eq!(mode, expected, "umask {umask}: {} has {mode:o}", path.display());
        }
        run.end().assert_code(0);
    }
}

/// Whoever can replace the file can make two owners.
#[test]
fn a_directory_that_others_can_write_is_refused() {
    for open in [0o777, 0o770, 0o702, 0o1777] {
        let sandbox = Sandbox::new();
        sandbox.make_store_directory(open);
        // Of a group in which others may be.
        let is_by_group = open & 0o1002 == 0;
        if is_root() {
            chown(sandbox.store(), None, Some(100)).unwrap();
        } else if is_by_group {
            continue;
        }
        let before = fingerprint(sandbox.path());
        for verb in [START, &["claim"], QUESTIONS[0], QUESTIONS[1]] {
            let error = assert_error(sandbox.incumbent(as_json(verb)), 78, "permission");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(&format!("(mode {open:04o}")), "{message}");
            assert_eq!(message.contains("group 100"), is_by_group, "{message}");
            // Nobody shall be told to close a shared directory such as /tmp.
            let hint = error["hint"].as_str().unwrap();
            assert_eq!(hint.contains("chmod go-w"), open & 0o1000 == 0, "{error:#}");
            assert!(hint.contains("directory of its own"), "{error:#}");
            assert_eq!(error["path"], sandbox.store().to_str().unwrap());
        }
        assert_untouched(&before, sandbox.path(), "refused");
        // The remedy works.
        set_mode(&sandbox.store(), 0o755);
        sandbox.make_store();
    }
}

/// FIELD-BUGS row 30. A link does not hide whose ground it leads to.
#[test]
fn foreign_ground_is_refused_also_through_a_symbolic_link() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let foreign = sandbox.file("foreign");
    std::fs::create_dir(&foreign).unwrap();
    chown(&foreign, Some(12345), Some(12345)).unwrap();
    set_mode(&foreign, 0o755);
    std::fs::write(foreign.join("state.db"), "").unwrap();
    let own = sandbox.file("own");
    std::fs::create_dir(&own).unwrap();
    chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    symlink(&foreign, sandbox.file("link")).unwrap();
    symlink(foreign.join("state.db"), own.join("state.db")).unwrap();
    let before = fingerprint(sandbox.path());
    for db in ["foreign/state.db", "foreign/other.db", "link/state.db", "own/state.db"] {
        for verb in [START, QUESTIONS[0]] {
            let mut command = sandbox.under(nobody, &binary, &as_json(verb));
            command.env("INCUMBENT_DB", sandbox.file(db));
            let error = assert_error(command, 78, "permission");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("belongs to uid 12345"), "{db}: {message}");
            assert!(message.contains(foreign.to_str().unwrap()), "{db}: {message}");
            assert!(error["hint"].is_string(), "{error:#}");
        }
    }
    assert_untouched(&before, sandbox.path(), "refused");
}

/// R:UID. FIELD-BUGS row 33.
///
/// Symptom: one start as root left root's files behind, and the user's gateway crash-looped 8,000
/// times. Cause: files belonged to whoever made them. It holds because everything that root makes
/// in a user's directory is given to that user.
#[test]
fn what_root_makes_belongs_to_the_user() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    for round in 0..2 {
        let run = sandbox.hold(&[]);
        let mut seen = Vec::new();
        for (path, (_, owner, _)) in fingerprint(sandbox.path()) {
            if path.starts_with(sandbox.store()) {
                assert_eq!(owner, NOBODY, "round {round}: {}", path.display());
                seen.push(path);
            }
        }
        assert!(seen.len() >= 5, "{seen:?}");
        assert_eq!(std::fs::metadata(sandbox.sidecar("-shm")).unwrap().uid(), NOBODY);
        run.end().assert_code(0);
        let answer = Process::start(sandbox.under(nobody, &binary, START)).finish(LIMIT);
        assert_eq!(answer.assert_code(0).out, "started\n");
    }
    assert_eq!(sandbox.history().len(), 4);
}

/// R:UID. FIELD-BUGS row 34.
///
/// Symptom: a status query without the right to look deleted root's live lock and said "not
/// running". It holds because "cannot look" is an error of its own, and questions write nothing.
#[test]
fn not_being_able_to_look_is_not_not_running() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let tools = Sandbox::new();
    let binary = tools.open_to_nobody();
    for (what, closed) in [("the directory", 0o700), ("the file", 0o755)] {
        let sandbox = Sandbox::new();
        sandbox.make_store_directory(closed);
        set_mode(sandbox.path(), 0o755);
        let run = sandbox.hold(&[]);
        let before = fingerprint(sandbox.path());
        for verb in QUESTIONS {
            let mut command = tools.under(nobody, &binary, &as_json(verb));
            command.env("INCUMBENT_DB", sandbox.db());
            let error = assert_error(command, 78, "cannot_read");
            assert!(error["message"].as_str().unwrap().contains("state.db"), "{what}: {error:#}");
            assert!(error["hint"].is_string(), "{what}: {error:#}");
        }
        assert_untouched(&before, sandbox.path(), what);
        sandbox.assert_status(0, "alive", "anchor_held");
        run.end().assert_code(0);
    }
}

/// FIELD-BUGS row 36.
///
/// Symptom: "attempt to write a readonly database" after a restore, and no word about which of the
/// three files. It holds because the message names the file, and no question calls it "not
/// running".
#[test]
fn the_file_that_cannot_be_written_is_named() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    for suffix in ["", "-wal", "-shm"] {
        for (owner, closed) in [(0, 0o644), (NOBODY, 0o400)] {
            let what = format!("state.db{suffix} of uid {owner} with mode {closed:o}");
            let sandbox = Sandbox::new();
            let binary = sandbox.open_to_nobody();
            sandbox.make_store();
            let file = sandbox.sidecar(suffix);
            chown(&file, Some(owner), Some(owner)).unwrap();
            set_mode(&file, closed);
            let start = sandbox.under(nobody, &binary, &as_json(START));
            let answer = Process::start(start).finish(LIMIT);
            if owner == NOBODY && answer.code() == 0 {
                // One's own file may be put right (SQLite itself does it with an empty log).
                assert_eq!(mode(&file), 0o600, "{what}");
                continue;
            }
            assert_eq!(answer.code(), 78, "{what}: {answer:#?}");
            let error = answer.json()["error"].clone();
            assert_eq!(error["kind"], "permission", "{what}: {error:#}");
            let message = error["message"].as_str().unwrap();
            assert!(
                message.split([' ', ':']).any(|word| Path::new(word) == file),
                "{what}: not named in {message:?}"
            );
            assert!(error["hint"].is_string(), "{what}: {error:#}");
            // The remedy works.
            chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
            set_mode(&file, 0o600);
            Process::start(sandbox.under(nobody, &binary, START)).finish(LIMIT).assert_code(0);
        }
    }
}

fn another_programs_database(path: &Path, journal_mode: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", journal_mode).unwrap();
    connection
        .execute_batch("CREATE TABLE songs (title); INSERT INTO songs VALUES ('a'), ('b')")
        .unwrap();
    connection
}

/// Symptom of the like: a tool that "ensured its schema" in whatever file it was pointed to. It
/// holds because the file says whose it is before anything is written, its mode included.
#[test]
fn another_programs_file_stays_as_it_is() {
    type Make = fn(&Path);
    let text: Make = |db| std::fs::write(db, "milk\n".repeat(300)).unwrap();
    let short: Make = |db| std::fs::write(db, "milk\n").unwrap();
    let rollback: Make = |db| drop(another_programs_database(db, "DELETE"));
    let checkpointed: Make = |db| drop(another_programs_database(db, "WAL"));
    let with_frames: Make = |db| {
        // As a crash leaves it: the rows are in the log alone.
        let origin = db.with_file_name("origin.db");
        let connection = another_programs_database(&origin, "WAL");
        for suffix in ["", "-wal"] {
            let from = db.with_file_name(format!("origin.db{suffix}"));
            std::fs::copy(&from, db.with_file_name(format!("state.db{suffix}"))).unwrap();
        }
        drop(connection);
        std::fs::remove_file(&origin).unwrap();
        assert!(std::fs::metadata(db.with_file_name("state.db-wal")).unwrap().len() > 0);
    };
    let versioned: Make = |db| {
        let connection = Connection::open(db).unwrap();
        connection.pragma_update(None, "user_version", 7).unwrap();
    };
    for (what, make) in [
        ("a text", text),
        ("a short text", short),
        ("a database", rollback),
        ("a database in WAL mode", checkpointed),
        ("a database with frames in its log", with_frames),
        ("an empty database with a version", versioned),
    ] {
        for open in [0o644, 0o600, 0o666] {
            let sandbox = Sandbox::new();
            sandbox.make_store_directory(0o755);
            make(&sandbox.db());
            set_mode(&sandbox.db(), open);
            if sandbox.sidecar("-wal").exists() {
                set_mode(&sandbox.sidecar("-wal"), open);
            }
            let before = fingerprint(sandbox.path());
            for verb in [START, &["claim"], &["evict"], QUESTIONS[0], QUESTIONS[3]] {
                let error = assert_error(sandbox.incumbent(as_json(verb)), 78, "not_ours");
                assert!(error["hint"].as_str().unwrap().contains("--db"), "{what}: {error:#}");
                assert_eq!(error["path"], sandbox.db().to_str().unwrap(), "{what}");
                assert_untouched(&before, sandbox.path(), &format!("{what}, {verb:?}"));
            }
        }
    }
}

/// A user may put anything in his own directory; root, who opens a store there, must not be led to
/// change what lies elsewhere.
#[test]
fn links_in_a_users_directory_do_not_lead_root_astray() {
    if !is_root() {
        return skipped("needs root");
    }
    for name in ["state.db-wal", "state.db-shm", "state.db-journal", "state.db.anchors"] {
        for is_directory in [false, true] {
            let sandbox = Sandbox::new();
            sandbox.open_to_nobody();
            sandbox.make_store_directory(0o700);
            chown(sandbox.store(), Some(NOBODY), Some(NOBODY)).unwrap();
            let elsewhere = Sandbox::new();
            let victim = elsewhere.file("victim");
            if is_directory {
                std::fs::create_dir(&victim).unwrap();
                set_mode(&victim, 0o755);
            } else {
                std::fs::write(&victim, "precious").unwrap();
                set_mode(&victim, 0o644);
            }
            symlink(&victim, sandbox.store().join(name)).unwrap();
            let before = fingerprint(elsewhere.path());
            let what = format!("{name} -> {}", if is_directory { "directory" } else { "file" });
            for verb in [START, &["claim"], QUESTIONS[0]] {
                let answer = sandbox.cli(verb);
                assert!(answer.code() < 128, "{what}: {answer:#?}");
                assert_untouched(&before, elsewhere.path(), &format!("{what}, {verb:?}"));
            }
        }
    }
}

/// Nothing but a regular file is opened: a pipe would block, a device would act.
#[test]
fn what_is_not_a_regular_file_is_refused() {
    for what in ["pipe", "socket", "link to a device"] {
        let sandbox = Sandbox::new();
        sandbox.make_store_directory(0o700);
        let _socket = match what {
            "pipe" => {
                let answer = Process::start(sandbox.shell("mkfifo store/state.db")).finish(LIMIT);
                answer.assert_code(0);
                None
            }
            "socket" => Some(std::os::unix::net::UnixListener::bind(sandbox.db()).unwrap()),
            _ => {
                symlink("/dev/null", sandbox.db()).unwrap();
                None
            }
        };
        let before = fingerprint(sandbox.path());
        for verb in [START, QUESTIONS[0]] {
            let answer = sandbox.cli(verb);
            assert!(matches!(answer.code(), 2 | 78), "{what}: {answer:#?}");
            assert!(answer.err.contains("  try:   "), "{what}: {answer:#?}");
            assert_eq!(answer.out, "", "{what}");
        }
        assert_untouched(&before, sandbox.path(), what);
    }
}

/// FIELD-BUGS rows 58 and 72: damage is an error of its own. It is neither "nobody runs" nor a
/// crash, and nobody starts on top of it.
#[test]
fn a_damaged_store_is_said_to_be_damaged() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 6] = [
        ("cut off in its first page", |content| content.truncate(1_000)),
        ("cut off after two pages", |content| content.truncate(8_192)),
        ("a header of zeros", |content| content[..100].fill(0)),
        ("a first page of zeros", |content| content[..4_096].fill(0)),
        ("garbage from the second page on", |content| content[4_096..].fill(0xa5)),
        ("no list of tables", |content| content[100..4_096].fill(0xff)),
    ];
    for (what, damage) in cases {
        let sandbox = Sandbox::new();
        sandbox.make_store();
        sandbox.checkpoint();
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(sandbox.sidecar(suffix));
        }
        let mut content = std::fs::read(sandbox.db()).unwrap();
        damage(&mut content);
        std::fs::write(sandbox.db(), &content).unwrap();
        for verb in [START, &["claim"], &["evict"], QUESTIONS[0], QUESTIONS[1], QUESTIONS[2]] {
            let answer = sandbox.cli(as_json(verb));
            assert!(matches!(answer.code(), 70 | 78), "{what}: {verb:?}: {answer:#?}");
            let error = answer.json()["error"].clone();
            let kind = error["kind"].as_str().unwrap();
            assert!(matches!(kind, "corrupt" | "not_ours"), "{what}: {verb:?}: {error:#}");
            assert!(error["hint"].is_string(), "{what}: {error:#}");
            assert_eq!(error["path"], sandbox.db().to_str().unwrap(), "{what}");
        }
        assert!(std::fs::read(sandbox.db()).unwrap() == content, "{what}: written to");
    }
    let sandbox = Sandbox::new();
    sandbox.make_store();
    sandbox.forge("DELETE FROM meta");
    let error = assert_error(sandbox.incumbent(as_json(START)), 70, "corrupt");
    assert!(error["message"].as_str().unwrap().contains("meta"), "{error:#}");
}

/// FIELD-BUGS row 81. An older program goes on beside a newer one, until the newer one says that
/// it may not: then it refuses to write, and still answers.
#[test]
fn a_newer_schema_stops_only_writers_and_only_when_told_so() {
    let sandbox = Sandbox::new();
    sandbox.make_store();
    sandbox.forge("PRAGMA user_version = 99");
    let run = sandbox.hold(&[]);
    sandbox.assert_status(0, "alive", "anchor_held");
    sandbox.cli(START).assert_code(75);
    run.end().assert_code(0);
    assert_eq!(sandbox.number("PRAGMA user_version"), 99);

    sandbox.forge("UPDATE meta SET value = 99 WHERE key = 'min_writer'");
    let before = fingerprint(sandbox.path());
    for verb in [START, &["claim"], &["evict"]] {
        let command = sandbox.incumbent(as_json(verb));
        let error = assert_error(command, 78, "too_new");
        assert!(error["message"].as_str().unwrap().contains("99"), "{error:#}");
        assert!(error["hint"].as_str().unwrap().contains("upgrade"), "{error:#}");
    }
    sandbox.assert_status(3, "dead", "exited");
    for verb in &QUESTIONS[1..] {
        sandbox.cli(*verb).assert_code(0);
    }
    assert_untouched(&before, sandbox.path(), "too new");
}

/// R:FULL. FIELD-BUGS row 78.
///
/// Symptom: a lock was "granted" although nothing could be written. It holds because what is not
/// committed is not held; and questions need no room.
#[test]
fn on_a_full_disk_nothing_is_granted_and_questions_are_answered() {
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let sandbox = Sandbox::new();
    let script = "
        incumbent run -- true
        sqlite3 store/state.db '.filectrl persist_wal 1' 'PRAGMA wal_checkpoint(TRUNCATE)' \
            > /dev/null
        fill
        incumbent --json run --no-backoff -- echo started > run.json; echo \"run $?\"
        incumbent --json status > status.json; echo \"status $?\"
        incumbent history > /dev/null; echo \"history $?\"
        rm store/fill
        incumbent run --no-backoff -- echo started; echo \"run $?\"
        ls store/state.db.anchors | wc -l
        incumbent --json history > history.json";
    let answer = sandbox.on_a_disk(words, "600k", script).finish(LIMIT).assert_code(0);
    let lines: Vec<_> = answer.out.lines().map(str::trim).collect();
    assert_eq!(lines[..3], ["run 70", "status 3", "history 0"], "{answer:#?}");
    assert_eq!(lines[3..5], ["started", "run 0"], "{answer:#?}");
    assert!(lines[5].parse::<u32>().unwrap() <= 1, "anchors are left behind: {answer:#?}");
    let read = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(sandbox.file(name)).unwrap()).unwrap()
    };
    assert_eq!(read("run.json")["error"]["kind"], "cannot_write");
    assert_eq!(read("status.json")["reason"], "exited");
    assert_eq!(read("history.json").as_array().unwrap().len(), 2);
}

/// R:FULL. FIELD-BUGS row 78, the other end: a release that cannot be written is kept and written
/// later, and blocks nobody meanwhile. It holds because ownership ends with the lock, not the row.
#[test]
fn a_release_on_a_full_disk_is_pending_and_blocks_nobody() {
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    for meets_contender in [false, true] {
        let sandbox = Sandbox::new();
        let disk = sandbox.on_a_disk(words, "600k", "echo mounted; exec cat");
        let disk = Disk::new(&sandbox, disk);
        let mut gateway = disk.role(crate::library::ROLE_TEST, crate::library::GATEWAY);
        let mut ask = |order: &str| crate::support::ask(&mut gateway, order);
        assert_eq!(ask("open"), "opened");
        assert!(ask("claim default").starts_with("granted"));
        disk.fill_up();
        assert!(ask("release").starts_with("Pending(CannotWrite)"));
        assert_eq!(ask("pending"), "1");
        let status = disk.cli(&["--json", "status"]);
        assert_eq!(status.code(), 3, "{status:#?}");
        disk.shell("rm store/fill").assert_code(0);
        if meets_contender {
            let answer = disk.cli(START).assert_code(0);
            assert_eq!(answer.out, "started\n", "{answer:#?}");
        }
        assert!(ask("claim other").starts_with("granted"));
        assert_eq!(ask("pending"), "0");
        let history = disk.cli(&["--json", "history"]).assert_code(0).json();
        let reasons: Vec<_> =
            history.as_array().unwrap().iter().map(|row| &row["end_reason"]).collect();
        let expected = if meets_contender {
            json!(["exited", "anchor_released"])
        } else {
            json!(["released"])
        };
        assert_eq!(json!(reasons), expected, "{history:#}");
    }
}

/// R:RO. A backup or a container's view that cannot be written still tells who runs.
#[test]
fn a_read_only_mount_answers_questions() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let ask = |verb: &'static [&str]| {
        Process::start(sandbox.under(words, Path::new(BINARY), &as_json(verb))).finish(LIMIT)
    };
    let run = sandbox.hold(&[]);
    let status = ask(QUESTIONS[0]).assert_code(0).json();
    assert_eq!(status["verdict"], "alive", "{status:#}");
    assert_eq!(status["pid"], run.pid(), "{status:#}");
    let start = ask(START);
    assert!(matches!(start.code(), 70 | 78), "{start:#?}");
    let kind = start.json()["error"]["kind"].clone();
    assert!(kind == "cannot_write" || kind == "permission", "{start:#?}");
    run.end().assert_code(0);
    // FIELD-BUGS row 73: the sidecars stay after the last close, or this could not be read.
    for suffix in ["", "-wal", "-shm"] {
        assert!(sandbox.sidecar(suffix).exists(), "state.db{suffix} went with the last close");
    }
    let before = fingerprint(sandbox.path());
    assert_eq!(ask(QUESTIONS[0]).assert_code(3).json()["reason"], "exited");
    for verb in &QUESTIONS[1..] {
        ask(verb).assert_code(0);
    }
    assert_untouched(&before, sandbox.path(), "read-only");
}

/// Symptom: on a filesystem that was mounted read-only a `run` could not create its anchor (70), without a word
/// on what to do, and `unlock --stale` said that there was nothing to unlock. It holds because a transaction
/// that can only read is none for a change.
#[test]
fn no_change_begins_where_nothing_can_be_written() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let cli = |verb: &[&str]| {
        let mut command = sandbox.within(words);
        command.arg(BINARY).args(verb);
        Process::start(command).finish(LIMIT)
    };
    for verb in [
        &["run", "--no-backoff", "--", "true"][..],
        &["--profile", "other", "run", "--no-backoff", "--", "true"],
        &["unlock", "--stale"],
        &["evict"],
        &["desired", "running"],
    ] {
        cli(verb).assert_code(78).assert_complains(&["state.db cannot be written", "read-only"]);
    }
    // Nobody takes for a crash what does not run.
    assert_eq!(cli(&["stop"]).assert_code(0).err, "");
}

/// FIELD-BUGS rows 72 and 73.
///
/// Symptom: corruption and lost rows. Cause: the process opened and closed the database beside
/// SQLite (a header check, a copy, a chmod by descriptor), which drops all its POSIX locks. It
/// holds because nothing but SQLite opens the three files: each open bears SQLite's own flags.
#[test]
fn only_sqlite_opens_the_database() {
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let trace = sandbox.file("trace");
    let traced = |mut inner: Command| {
        let mut command = sandbox.program("strace");
        command.args(["-f", "-s", "4096", "-e", "trace=open,openat,openat2,creat", "-o"]);
        command.arg(&trace).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        inner.stdin(std::process::Stdio::null());
        command
    };
    let mut seen = 0;
    let mut check = |what: &str| {
        for line in std::fs::read_to_string(&trace).unwrap().lines() {
            let Some((_, rest)) = line.split_once("state.db") else { continue };
            let is_database =
                ["\"", "-wal\"", "-shm\"", "-journal\""].iter().any(|end| rest.starts_with(end));
            if is_database {
                seen += 1;
                let is_sqlites = line.contains("O_CLOEXEC") && line.contains("O_NOFOLLOW");
                assert!(is_sqlites, "{what}: {line}");
            }
        }
        std::fs::remove_file(&trace).unwrap();
    };
    for verb in [
        START,
        START,
        &["claim", "--no-keeper"],
        &["evict"],
        QUESTIONS[0],
        QUESTIONS[1],
        QUESTIONS[2],
        QUESTIONS[3],
    ] {
        let answer = Process::start(traced(sandbox.incumbent(verb))).finish(LIMIT);
        assert!(matches!(answer.code(), 0 | 3 | 75), "{answer:#?}");
        check(&format!("{verb:?}"));
    }
    let role = sandbox.role_command(crate::library::ROLE_TEST, crate::library::GATEWAY);
    let mut gateway = Process::start(traced(role));
    for order in ["open", "claim a", "open", "claim a", "verify", "status a", "release", "close"] {
        crate::support::ask(&mut gateway, order);
    }
    gateway.finish(LIMIT).assert_code(0);
    check("the library");
    assert!(seen > 20, "the trace shows only {seen} opens");
}

/// FIELD-BUGS row 76, with faults injected into the system call itself.
///
/// Symptom: two owners where locks are emulated. Cause: "cannot lock" was taken for "is mine", or a
/// lock that excludes nobody was believed. It holds because every answer of the kernel but "yes" is
/// a refusal, and the anchor is tried out with a second descriptor.
#[test]
fn where_locks_do_not_work_nothing_starts() {
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    for fault in ["error=ENOLCK", "error=EBADF", "error=ENOSYS", "retval=0"] {
        let sandbox = Sandbox::new();
        let mut command = sandbox.program("strace");
        command.args(["-f", "-o", "/dev/null", "-e", "trace=flock"]);
        command.arg("-e").arg(format!("inject=flock:{fault}")).arg(BINARY).args(as_json(START));
        let answer = Process::start(command).finish(LIMIT);
        assert!(matches!(answer.code(), 70 | 78), "{fault}: {answer:#?}");
        let error = answer.json()["error"].clone();
        assert_eq!(error["kind"], "filesystem", "{fault}: {error:#}");
        assert!(error["message"].as_str().unwrap().contains("locks"), "{fault}: {error:#}");
        assert!(error["hint"].is_string(), "{fault}: {error:#}");
        assert_eq!(sandbox.number("SELECT count(*) FROM instances"), 0, "{fault}");
        assert_eq!(sandbox.anchor_names(), [""; 0], "{fault}");
    }
}

/// FIELD-BUGS rows 63 and 77.
///
/// Symptom: every surface hung behind one stopped process. It holds because questions take no lock
/// that a writer holds, and a claim gives up in time and says who is in the way.
#[test]
fn a_stopped_writer_is_named_and_questions_do_not_wait_for_it() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let writer = stopped_writer(&sandbox);
    for verb in QUESTIONS {
        let asked = Instant::now();
        sandbox.cli(verb).assert_code(0);
        assert_within(Duration::from_secs(2), asked.elapsed(), &format!("{verb:?}"));
    }
    sandbox.assert_status(0, "alive", "anchor_held");
    let asked = Instant::now();
    let error = assert_error(sandbox.incumbent(as_json(START)), 75, "busy");
    assert_within(Duration::from_secs(10), asked.elapsed(), "it");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&format!("pid {}", writer.pid())), "{message}");
    assert!(message.contains("stopped"), "{message}");
    assert!(error["hint"].as_str().unwrap().contains("kill -CONT"), "{error:#}");
    assert!(error["retry_after_ms"].is_u64(), "{error:#}");
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    sandbox.cli(START).assert_code(75);
    run.end().assert_code(0);
}

/// A deadline is the caller's, whatever keeps the store busy: it does not wait for the store's own
/// patience (5 s) on top.
#[test]
fn a_deadline_holds_also_behind_a_stopped_writer() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let writer = stopped_writer(&sandbox);
    let asked = Instant::now();
    let command = ["run", "--no-backoff", "--wait=1s", "--", "echo", "started"];
    let answer = sandbox.cli(command).assert_code(75);
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(900), "gave up after {took:?}: {answer:#?}");
    assert_within(Duration::from_secs(4), took, &format!("{answer:#?}"));
    assert_eq!(answer.out, "");
    drop(writer);
    run.end().assert_code(0);
}

/// FIELD-BUGS row 30.
///
/// Symptom: two owners of one office, each with a lock file of its own. Cause: the database was
/// reached under two names (a bind mount of the one file, a hard link), and the locks lie beside
/// the name. It holds because a file with a second name is refused.
#[test]
fn a_second_name_of_the_file_makes_no_second_owner() {
    for is_held in [true, false] {
        let sandbox = Sandbox::new();
        sandbox.make_store();
        let run = is_held.then(|| sandbox.hold(&[]));
        std::fs::create_dir(sandbox.file("second")).unwrap();
        set_mode(&sandbox.file("second"), 0o700);
        let second = sandbox.file("second/state.db");
        let assert_refused = |mut command: Command, how: &str| {
            command.env("INCUMBENT_DB", &second);
            let answer = Process::start(command).finish(LIMIT);
            assert_eq!(answer.code(), 78, "{how}: {answer:#?}");
            let error = answer.json()["error"].clone();
            assert!(error["message"].as_str().unwrap().contains("second/state.db"), "{error:#}");
            assert!(error["hint"].is_string(), "{how}: {error:#}");
        };
        std::fs::hard_link(sandbox.db(), &second).unwrap();
        assert_refused(sandbox.incumbent(as_json(START)), "a hard link");
        std::fs::remove_file(&second).unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(sandbox.file(&format!("second/state.db{suffix}")));
        }
        if mount_namespace().is_some() {
            const BIND: &str = ": > second/state.db
                mount --bind store/state.db second/state.db || exit 99
                exec \"$@\"";
            let words = ["unshare", "-m", "/bin/sh", "-c", BIND, "sh"];
            assert_refused(sandbox.under(&words, Path::new(BINARY), &as_json(START)), "a mount");
        } else {
            skipped("the half that needs root and mounts");
        }
        if let Some(run) = run {
            let it = Identity::of(run.pid()).unwrap();
            assert!(!it.is_gone());
            sandbox.assert_status(0, "alive", "anchor_held");
            run.end().assert_code(0);
        }
        sandbox.cli(START).assert_code(0);
    }
}
