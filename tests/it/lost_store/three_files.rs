//! The store is three files, which others open, delete and copy over (FIELD-BUGS rows 98, 99, 100,
//! 104).
//!
//! What becomes of an owner by each fate of the files is tested in `fates`; here it is what
//! people are told, and what is no loss.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use incumbent::{Claim, OpenOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::Signal;

use crate::support::{
    HOLDING, LIMIT, Process, Run, Sandbox, another_user, ask, assert_within, eventually, has, kill,
    plays, role_db, rounds, skipped, test_name, wait_for_looks, wait_stopped, works,
};

impl Sandbox {
    fn shell_of_sqlite(&self, sql: &str) -> String {
        let mut shell = self.program("sqlite3");
        shell.arg(self.db()).arg(sql);
        let end = Process::start(shell).finish(LIMIT);
        format!("{}{}", end.out, end.err)
    }

    /// What `VACUUM INTO` makes of the store as it is now.
    fn backup(&self) -> Vec<u8> {
        let backup = self.file("backup.db");
        let _ = std::fs::remove_file(&backup);
        let connection = rusqlite::Connection::open(self.db()).unwrap();
        connection.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
        std::fs::read(backup).unwrap()
    }

    /// As `cp` does: the file is cut off first.
    fn copy_over(&self, content: &[u8]) {
        std::fs::write(self.db(), content).unwrap();
    }

    fn count(&self, event: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM events WHERE event = '{event}'"))
    }
}

/// A cleaner of old files takes the `-wal` and the `-shm` away. Symptom: `status` said that nobody
/// had claimed anything yet, and `stop` that nothing was running. It holds because the run compares
/// the files with those it has open, and because a new store is moved into its database at once.
#[test]
fn row_99_a_cleaner_deletes_the_sidecars_of_a_run() {
    let sandbox = Sandbox::new();
    for (suffixes, told) in [
        (&["-wal"][..], "its -wal was deleted"),
        (&["-shm"][..], "its -shm was deleted"),
        (&["-wal", "-shm"][..], "its -wal was deleted"),
    ] {
        let mut run = sandbox.hold(&["--lock", "token=one"]);
        for suffix in suffixes {
            std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
        }
        let said = run.process.err_line_with("claimed again in the new one");
        assert!(said.contains(told), "{suffixes:?}: {said}");
        sandbox.assert_status(0, "alive", "anchor_held");
        assert!(!run.command.is_gone());
        let (_, locks) = sandbox.json(["locks"]);
        assert_eq!(locks[0]["pid"], run.process.pid(), "{locks:#}");
        sandbox.cli(["stop"]).assert_code(0);
        run.process.finish(LIMIT);
        sandbox.assert_status(3, "dead", "planned_stop");
    }
    assert_eq!(sandbox.shell_of_sqlite("PRAGMA integrity_check"), "ok\n");
}

/// A backup that was made by `VACUUM INTO` is copied over the live file. Symptom: each start waited
/// for 5 s and blamed a process that nobody could see, and the doctor found nothing. It holds
/// because the owner looks at what the file says of itself and closes it; then the next one moves
/// the old `-wal` aside, which would be taken for the copy's.
#[test]
fn row_100_a_backup_copied_over_the_live_file() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    let backup = sandbox.backup();
    // Some process empties a long -wal when it ends; the next one leaves something in it.
    for _ in 0..2 {
        sandbox.cli(["--profile", "later", "run", "--no-backoff", "--", "true"]).assert_code(0);
    }
    sandbox.copy_over(&backup);
    let start = ["--profile", "third", "run", "--no-backoff", "--", "true"];
    sandbox.cli(start).assert_code(0);
    let said = run.process.err_line_with("claimed again in the new one");
    assert!(said.contains("while it was in use"), "{said}");
    sandbox.assert_status(0, "alive", "anchor_held");
    // It is the copy that counts, and nothing was thrown away.
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE profile = 'later'"), 0);
    assert_eq!(sandbox.count("store_overwritten"), 1);
    let names = std::fs::read_dir(sandbox.file("store")).unwrap();
    let aside = names.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("state.db-wal.old-")
    });
    assert_eq!(aside.count(), 1);
    assert_eq!(sandbox.shell_of_sqlite("PRAGMA integrity_check"), "ok\n");
    run.end().assert_code(0);
    sandbox.assert_free();
}

/// The same where an owner does not notice, because it is stopped: a process that asks is told what
/// happened, and who has the file open.
#[test]
fn row_100_a_backup_copied_over_under_a_stopped_owner_is_named() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let backup = sandbox.backup();
    kill(run.pid(), Signal::STOP);
    sandbox.copy_over(&backup);
    let what = "a copy in rollback-journal mode";
    sandbox.cli(["status"]).assert_code(75).assert_complains(&[what, "try:", "the next start"]);
    let doctor = sandbox.cli(["doctor"]).assert_code(1);
    assert!(doctor.out.contains(what), "{doctor:#?}");
    let pid = format!("pid {}", run.pid());
    let refused = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    refused.assert_complains(&[what, "still open in", &pid, "try:"]);
    kill(run.pid(), Signal::CONT);
    eventually("claimed again", LIMIT, || {
        let (code, status) = sandbox.json(["status"]);
        (code == 0 && status["pid"] == run.pid()).then_some(())
    });
    run.end().assert_code(0);
    sandbox.assert_free();
}

/// Restored while nobody has the store open, with the `-wal` of the one before still beside it:
/// SQLite would put that over the copy, page by page.
#[test]
fn row_100_a_backup_restored_beside_an_old_wal_is_not_mixed_with_it() {
    let sandbox = Sandbox::new();
    sandbox.cli(["--profile", "a", "run", "--no-backoff", "--", "true"]).assert_code(0);
    let backup = sandbox.backup();
    for _ in 0..2 {
        sandbox.cli(["--profile", "b", "run", "--no-backoff", "--", "true"]).assert_code(0);
    }
    assert!(std::fs::metadata(sandbox.sidecar("-wal")).unwrap().len() > 0);
    sandbox.copy_over(&backup);
    sandbox.cli(["status"]).assert_code(75).assert_complains(&["rollback-journal"]);
    sandbox.cli(["--profile", "c", "run", "--no-backoff", "--", "true"]).assert_code(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE profile = 'b'"), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE profile IN ('a', 'c')"), 2);
    assert_eq!(sandbox.shell_of_sqlite("PRAGMA integrity_check"), "ok\n");
}

/// `cp` empties the file first. A start in that moment must not make a new store of it, into which
/// the rest is copied. On a busy machine it may have waited long enough before we can copy.
#[test]
fn row_100_a_start_in_the_middle_of_a_copy_waits_for_it() {
    let began = Instant::now();
    while !start_in_the_middle_of_a_copy() {
        let why = "it waits for no copy, or the machine is too busy to tell";
        assert!(began.elapsed() < LIMIT, "{why}");
    }
}

/// Whether the copy came in time.
fn start_in_the_middle_of_a_copy() -> bool {
    let sandbox = Sandbox::new();
    sandbox.cli(["--profile", "a", "run", "--no-backoff", "--", "true"]).assert_code(0);
    let backup = sandbox.backup();
    sandbox.cli(["--profile", "b", "run", "--no-backoff", "--", "true"]).assert_code(0);
    assert!(std::fs::metadata(sandbox.sidecar("-wal")).unwrap().len() > 0);
    let mut file = std::fs::OpenOptions::new().write(true).open(sandbox.db()).unwrap();
    file.set_len(0).unwrap();
    let start = sandbox.incumbent(["--profile", "c", "run", "--no-backoff", "--", "true"]);
    let closes = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    let close = inotify::WatchFlags::CLOSE_NOWRITE | inotify::WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&closes, sandbox.db(), close).unwrap();
    let start = Process::start(start);
    let timeout = Timespec::try_from(LIMIT).unwrap();
    let has_looked = poll(&mut [PollFd::new(&closes, PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(has_looked, 1, "the start has looked at the empty file");
    // So long after that the copy begins.
    std::thread::sleep(Duration::from_millis(20));
    start.signal(Signal::STOP);
    wait_stopped(start.pid());
    if !sandbox.sidecar("-wal").exists() {
        return false;
    }
    file.write_all(&backup).unwrap();
    start.signal(Signal::CONT);
    start.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE profile IN ('a', 'c')"), 2);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE profile = 'b'"), 0);
    assert_eq!(sandbox.shell_of_sqlite("PRAGMA integrity_check"), "ok\n");
    true
}

/// A tool changes the journal mode: refused while an owner lives, and put right by the next start
/// after that.
#[test]
fn the_journal_mode_cannot_be_changed_under_an_owner() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let said = sandbox.shell_of_sqlite("PRAGMA journal_mode = DELETE");
    assert!(said.contains("locked") || said.trim() == "wal", "{said}");
    sandbox.assert_status(0, "alive", "anchor_held");
    run.end().assert_code(0);
    assert_eq!(sandbox.shell_of_sqlite("PRAGMA journal_mode = DELETE").trim(), "delete");
    let run = sandbox.hold(&[]);
    assert_eq!(sandbox.shell_of_sqlite("PRAGMA journal_mode").trim(), "wal");
    run.end().assert_code(0);
    sandbox.assert_free();
}

/// The file is cut off in the middle. Nothing can be saved of what is gone; who holds what stays
/// with who holds it, everybody is told what happened, and the doctor begins a new store.
#[test]
fn a_database_that_was_cut_off_under_its_owner_is_named() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    // It has to see it as it is now: what was cut off before anybody looked is damage like any
    // other. Once a second it looks at everything, each time after some short sleeps.
    wait_for_looks(&[run.pid()], 25);
    let length = std::fs::metadata(sandbox.db()).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(sandbox.db()).unwrap();
    file.set_len(length / 8192 * 4096).unwrap();
    let said = run.process.err_line_with("deleted or replaced");
    assert!(said.contains("was cut off to"), "{said}");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(70);
    let doctor = sandbox.cli(["doctor"]).assert_code(1);
    assert!(doctor.out.contains("damaged"), "{doctor:#?}");
    sandbox.cli(["doctor", "--fix"]);
    eventually("claimed again", LIMIT, || {
        let (code, status) = sandbox.json(["status"]);
        (code == 0 && status["pid"] == run.pid()).then_some(())
    });
    assert!(!run.command.is_gone());
    run.end().assert_code(0);
}

/// The directory is closed for a moment by a deploy. Symptom: `verify` said `StoreReplaced`, and a
/// gateway that obeyed stopped. It holds because only "no such file" is a loss.
#[test]
fn row_104_a_directory_that_is_closed_for_a_second_is_no_loss() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let program = sandbox.open_to_nobody();
    let mut hold = sandbox.within(nobody);
    hold.arg(program).args(["run", "--no-backoff", "--lock", "token=one"]);
    hold.args(HOLDING);
    let run = Run::start(hold);
    let close = |mode| {
        std::fs::set_permissions(sandbox.file("store"), PermissionsExt::from_mode(mode)).unwrap();
    };
    close(0);
    wait_for_looks(&[run.pid()], 20);
    close(0o700);
    sandbox.assert_status(0, "alive", "anchor_held");
    let end = run.end().assert_code(0);
    assert!(!end.err.contains("deleted or replaced"), "{end:#?}");
    sandbox.assert_status(3, "dead", "exited");
}

/// What strace makes of the system calls of a process until it is dropped; where nothing was hit
/// nothing was tried.
struct Tampered {
    strace: Process,
    log: PathBuf,
}

impl Tampered {
    fn start(sandbox: &Sandbox, pid: u32, options: &[&str]) -> Self {
        let log = sandbox.file("strace.log");
        let mut strace = sandbox.program("strace");
        strace.args(["-f", "-o", log.to_str().unwrap()]).args(options);
        strace.args(["-p", &pid.to_string()]);
        let mut strace = Process::start(strace);
        strace.err_line_with("attached");
        Self { strace, log }
    }

    /// `owner` claims another office, and hangs in its commit for so long.
    fn hang_in_commit(sandbox: &Sandbox, owner: &mut Process, delay: Duration) -> Self {
        let wal = sandbox.sidecar("-wal");
        let delay = format!("inject=pwrite64:delay_enter={}:when=1", delay.as_micros());
        let options = ["-P", wal.to_str().unwrap(), "-e", "trace=pwrite64", "-e", &delay];
        let tampered = Self::start(sandbox, owner.pid(), &options);
        owner.say("claim b");
        eventually("it writes", LIMIT, || {
            let log = std::fs::read_to_string(&tampered.log).ok()?;
            log.contains("pwrite64(").then_some(())
        });
        tampered
    }

    /// How many calls were hit.
    fn end(self) -> usize {
        self.strace.signal(Signal::INT);
        self.strace.finish(LIMIT);
        let log = std::fs::read_to_string(self.log).unwrap();
        log.lines().filter(|line| line.contains("INJECTED") || line.contains("DELAYED")).count()
    }
}

fn can_tamper() -> bool {
    has("strace") && works(&["strace", "-o", "/dev/null"])
}

/// The same of a disk that cannot be read, and of a file handle that has become stale.
#[test]
fn row_104_a_look_that_fails_is_no_loss() {
    if !can_tamper() {
        return skipped("needs strace, and leave to trace");
    }
    for errno in ["EIO", "ESTALE", "EACCES", "ENOMEM"] {
        let sandbox = Sandbox::new();
        let mut owner = sandbox.owner();
        assert_eq!(ask(&mut owner, "verify"), "Held");
        let inject = format!("inject=%%stat:error={errno}");
        let strace = Tampered::start(&sandbox, owner.pid(), &["-e", "trace=%%stat", "-e", &inject]);
        let failing = Instant::now();
        let mut said = BTreeSet::new();
        while failing.elapsed() < Duration::from_millis(1_200) {
            said.insert(ask(&mut owner, "verify"));
        }
        assert!(strace.end() > 0, "{errno}: nothing was tried");
        let is_no_loss =
            |it: &String| ["Held", "Err(Busy)", "Err(CannotRead)"].contains(&it.as_str());
        assert!(said.iter().all(is_no_loss), "{errno}: {said:?}");
        assert_eq!(ask(&mut owner, "verify"), "Held", "{errno}");
    }
}

/// A look that failed after the commit made an error of a claim that was granted: its owner did not
/// know of it, and nobody else got it. So an error says that nothing is held, whichever look fails.
#[test]
fn row_104_a_look_that_fails_takes_nothing_back_that_is_committed() {
    if !can_tamper() {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let mut owner = sandbox.owner();
    let (mut granted, mut refused) = (0, 0);
    for which in 1..=24 {
        let profile = format!("p{which}");
        let inject = format!("inject=%%stat:error=EIO:when={which}");
        let strace = Tampered::start(&sandbox, owner.pid(), &["-e", "trace=%%stat", "-e", &inject]);
        let answer = ask(&mut owner, &format!("claim {profile}"));
        let hit = strace.end();
        let (code, status) = sandbox.json(["status", "--profile", &profile]);
        if answer.starts_with("granted") {
            assert_eq!(code, 0, "{which}: {answer}: {status:#}");
            granted += usize::from(hit > 0);
        } else {
            assert_eq!(code, 3, "{which}: {answer}: {status:#}");
            refused += 1;
        }
    }
    assert!(granted > 0 && refused > 0, "{granted} granted, {refused} refused");
}

/// The `-shm` is deleted while an owner is between its look and its commit: with another `-shm`
/// there are other locks. Symptom: the next process was granted a lock, and the owner wrote over it
/// in the `-wal`. It holds because a writer locks the database, too.
#[test]
fn row_99_two_indexes_have_one_writer_at_a_time() {
    if !can_tamper() {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let mut owner = sandbox.owner();
    assert_eq!(ask(&mut owner, "verify"), "Held");
    let strace = Tampered::hang_in_commit(&sandbox, &mut owner, Duration::from_millis(1_500));
    std::fs::remove_file(sandbox.sidecar("-shm")).unwrap();
    let run = sandbox.hold(&["--profile", "live", "--lock", "token=one"]);
    assert!(owner.err_line_with("=> ").contains("=> Err(StoreReplaced)"));
    assert!(strace.end() > 0);
    assert_eq!(sandbox.shell_of_sqlite("PRAGMA integrity_check"), "ok\n");
    let (_, locks) = sandbox.json(["locks"]);
    assert_eq!(locks[0]["pid"], run.pid(), "{locks:#}");
    let (code, status) = sandbox.json(["status", "--profile", "live"]);
    assert_eq!((code, &status["pid"]), (0, &run.pid().into()), "{status:#}");
    run.end().assert_code(0);
}

/// A writer hangs in its commit, and the `-shm` is deleted: the next one builds another. Symptom: a
/// question took ten seconds and said "locking protocol". It holds because only who writes needs
/// the second lock.
#[test]
fn row_99_a_question_does_not_wait_for_a_writer_with_another_index() {
    if !can_tamper() {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let mut owner = sandbox.owner();
    let strace = Tampered::hang_in_commit(&sandbox, &mut owner, Duration::from_secs(6));
    std::fs::remove_file(sandbox.sidecar("-shm")).unwrap();
    let asked = Instant::now();
    sandbox.assert_status(0, "alive", "anchor_held");
    assert_within(Duration::from_secs(4), asked.elapsed(), "it");
    let refused = sandbox.cli(["--profile", "c", "run", "--no-backoff", "--", "true"]);
    refused.assert_code(75).assert_complains(&[&format!("held by pid {}", owner.pid())]);
    assert!(owner.err_line_with("=> ").contains("=> Err(StoreReplaced)"));
    assert!(strace.end() > 0);
}

/// A shell looks at no path: it would go on to write into a `-wal` that was cut off, and that
/// others have begun again with another index. So the process that has it open is waited for, and
/// named.
#[test]
fn row_98_a_shell_that_uses_a_wal_that_was_cut_off_keeps_starts_out_by_name() {
    if !has("sqlite3") {
        return skipped("needs sqlite3");
    }
    let sandbox = Sandbox::new();
    let start = ["run", "--no-backoff", "--", "true"];
    sandbox.cli(start).assert_code(0);
    let mut shell = sandbox.program("sqlite3");
    shell.arg(sandbox.db());
    let mut shell = Process::start(shell);
    shell.say("SELECT 'reads', count(*) FROM meta;");
    shell.line_with("reads");
    sandbox.cli(start).assert_code(0);
    let wal = std::fs::OpenOptions::new().write(true).open(sandbox.sidecar("-wal")).unwrap();
    assert!(wal.metadata().unwrap().len() > 0);
    wal.set_len(0).unwrap();
    let refused = sandbox.cli(start).assert_code(75);
    refused
        .assert_complains(&["-wal was deleted, replaced or cut off", &format!("{}", shell.pid())]);
    shell.kill();
    sandbox.cli(start).assert_code(0);
}

/// A `-wal` is left beside many a database, and it is none of ours because ours would be moved
/// aside.
#[test]
fn another_programs_database_and_wal_are_left_as_they_are() {
    for application_id in [0, 77] {
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.file("store")).unwrap();
        std::fs::set_permissions(sandbox.file("store"), PermissionsExt::from_mode(0o700)).unwrap();
        let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
        let made = format!("PRAGMA application_id = {application_id}; CREATE TABLE t (n)");
        connection.execute_batch(&made).unwrap();
        drop(connection);
        std::fs::write(sandbox.sidecar("-wal"), b"what the other program left").unwrap();
        for verb in [&["run", "--no-backoff", "--", "true"][..], &["status"], &["doctor", "--fix"]]
        {
            let refused = sandbox.cli(verb);
            assert_ne!(refused.code(), 0, "{verb:?}: {refused:#?}");
            let wal = std::fs::read(sandbox.sidecar("-wal")).unwrap();
            assert_eq!(wal, b"what the other program left", "{verb:?}");
        }
        let refused = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(78);
        refused.assert_complains(&["belong", "another program", "try:"]);
    }
}

/// A store that was moved away and back is the same one. Symptom: its handle went on without its
/// guards.
#[test]
fn row_100_a_store_that_was_moved_away_and_back_is_looked_at_as_before() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.owner();
    let backup = sandbox.backup();
    let away = sandbox.file("store/away.db");
    std::fs::rename(sandbox.db(), &away).unwrap();
    eventually("it is noticed", LIMIT, || {
        (ask(&mut owner, "verify") == "StoreReplaced").then_some(())
    });
    std::fs::rename(&away, sandbox.db()).unwrap();
    assert_eq!(ask(&mut owner, "verify"), "Held");
    let mut file = std::fs::OpenOptions::new().write(true).open(sandbox.db()).unwrap();
    file.write_all(&backup).unwrap();
    assert_eq!(ask(&mut owner, "verify"), "StoreReplaced");
}

/// An owner that has claimed again is not blamed for what it had open before.
#[test]
fn an_owner_that_has_claimed_again_has_no_lost_files() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.owner();
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    assert_eq!(ask(&mut owner, "verify"), "StoreReplaced");
    assert_eq!(ask(&mut owner, "open"), "opened");
    assert!(ask(&mut owner, "claim default").starts_with("granted"));
    let doctor = sandbox.cli(["doctor"]).assert_code(0);
    assert!(!doctor.out.contains("error lost_files"), "{doctor:#?}");
}

const ASKERS: usize = 3;

/// A process that makes the store while other threads of it ask about it.
#[test]
fn role_of_a_first_start_that_is_asked() {
    if !plays("first start") {
        return;
    }
    let options = || OpenOptions::new().path(role_db()).busy_budget(LIMIT);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ask = || {
            while !done.load(Ordering::Relaxed) {
                match options().open_existing() {
                    Ok(_) => {}
                    Err(error) => eprintln!("=> {:?}: {error}", error.kind()),
                }
            }
        };
        let askers: Vec<_> = (0..ASKERS).map(|_| scope.spawn(ask)).collect();
        let profile = format!("p{}", std::process::id());
        match options().open().and_then(|store| store.profile(&profile)?.claim()) {
            Ok(Claim::Granted(tenure)) => {
                tenure.release().unwrap();
                eprintln!("=> granted");
            }
            Ok(Claim::Held(holder)) => eprintln!("=> {holder}"),
            Err(error) => eprintln!("=> {:?}: {error}", error.kind()),
        }
        done.store(true, Ordering::Relaxed);
        drop(askers);
    });
}

/// Symptom: of processes that made a store and asked about it in other threads, some got "disk I/O
/// error" or "malformed", and the store was destroyed. Cause: a question looked at the database by
/// a descriptor of its own, and closing that cancelled SQLite's lock while the journal mode was
/// being changed. It holds because SQLite's own open file is read.
#[test]
fn row_98_a_question_cancels_no_lock_of_a_first_start() {
    for round in 0..rounds(8, 100) {
        let sandbox = Sandbox::new();
        let starts: Vec<_> = (0..4)
            .map(|_| sandbox.role(test_name!(role_of_a_first_start_that_is_asked), "first start"))
            .collect();
        for start in starts {
            let end = start.finish(LIMIT);
            let said: Vec<_> =
                end.err.lines().filter_map(|line| line.strip_prefix("=> ")).collect();
            assert_eq!(said, ["granted"], "round {round}: {end:#?}");
        }
        assert_eq!(sandbox.shell_of_sqlite("PRAGMA integrity_check"), "ok\n", "round {round}");
    }
}

/// A store that is gone, and one that was emptied, of which owners are left: nobody may say that
/// nothing runs.
#[test]
fn status_and_stop_know_owners_of_a_store_that_is_not_there() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    kill(run.pid(), Signal::STOP);
    for with_anchors in [false, true] {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(sandbox.sidecar(suffix));
        }
        if with_anchors {
            std::fs::remove_dir_all(sandbox.anchors()).unwrap();
        }
        let status = sandbox.assert_status(4, "unknown", "orphaned_anchor");
        assert_eq!(status["pid"], run.pid());
        sandbox.cli(["stop"]).assert_code(4).assert_complains(&[&run.pid().to_string(), "try:"]);
        assert!(!sandbox.db().exists(), "a question made a store");
    }
    kill(run.pid(), Signal::CONT);
    eventually("claimed again", LIMIT, || {
        let (code, status) = sandbox.json(["status"]);
        (code == 0 && status["pid"] == run.pid()).then_some(())
    });
    run.end().assert_code(0);
    sandbox.assert_status(3, "dead", "exited");
}
