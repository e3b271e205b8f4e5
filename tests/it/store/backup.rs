//! A copy of the store: whole beside writers, one file, and put back as it says.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OpenFlags};

use super::START;
use crate::support::{LIMIT, Process, Sandbox, bystander, eventually, mode, rounds};

/// A copy, read without a trace.
fn open(copy: &Path) -> Connection {
    let uri = format!("file:{}?immutable=1", copy.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).unwrap()
}

fn number(copy: &Path, query: &str) -> i64 {
    open(copy).query_row(query, [], |row| row.get(0)).unwrap()
}

/// The names in the sandbox' directory that begin like this.
fn beginning(sandbox: &Sandbox, start: &str) -> Vec<String> {
    let entries = std::fs::read_dir(sandbox.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(start)).collect();
    names.sort();
    names
}

/// Symptom: a store that was copied with `cp` while gateways ran was torn, or lacked what stood in
/// its log. A copy is what one transaction saw: of each end there is the row and the event.
#[test]
fn a_copy_is_whole_beside_writers() {
    let sandbox = Sandbox::new();
    sandbox.make_store();
    let over = AtomicBool::new(false);
    let copies = rounds(8, 100);
    std::thread::scope(|scope| {
        let writers: Vec<_> = ["red", "blue"]
            .into_iter()
            .map(|profile| {
                let (sandbox, over) = (&sandbox, &over);
                scope.spawn(move || {
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        let start = [&["--profile", profile], START].concat();
                        sandbox.cli(start).assert_code(0);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for nth in 0..copies {
            let copy = sandbox.file(&format!("copy{nth}.db"));
            let answer = sandbox.cli(["backup", copy.to_str().unwrap()]).assert_code(0);
            assert!(answer.out.contains("restore"), "{answer:#?}");
            let sound: String =
                open(&copy).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(sound, "ok");
            for torn in [
                "SELECT count(*) FROM instances WHERE ended_at_ms IS NOT NULL AND id NOT IN
                     (SELECT instance_id FROM events WHERE event = 'office_ended')",
                "SELECT count(*) FROM events JOIN instances ON instances.id = instance_id
                     WHERE event = 'office_ended' AND ended_at_ms IS NULL",
            ] {
                assert_eq!(number(&copy, torn), 0, "copy {nth} is of no one moment: {torn}");
            }
        }
        over.store(true, Ordering::Relaxed);
        let written: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        assert!(written > 0, "nobody wrote meanwhile");
    });
    assert_eq!(beginning(&sandbox, "copy").len(), copies, "each is one file");
    assert_eq!(mode(&sandbox.file("copy0.db")), 0o600);
    assert_eq!(beginning(&sandbox, ".incumbent-backup"), [""; 0]);
}

/// What is there is never overwritten, and half a copy is never there.
#[test]
fn nothing_is_overwritten() {
    let sandbox = Sandbox::new();
    sandbox.cli(["backup", "copy.db"]).assert_code(2).assert_complains(&["no store"]);
    sandbox.make_store();
    std::fs::write(sandbox.file("copy.db"), "mine").unwrap();
    std::os::unix::fs::symlink("nowhere", sandbox.file("link.db")).unwrap();
    for name in ["copy.db", "link.db", "store/state.db"] {
        let refused = sandbox.cli(["backup", name]).assert_code(2);
        refused.assert_complains(&["exists already", "try:"]);
    }
    assert_eq!(std::fs::read_to_string(sandbox.file("copy.db")).unwrap(), "mine");
    sandbox.cli(["backup", "nowhere/copy.db"]).assert_code(2).assert_complains(&["nowhere"]);
    sandbox.cli(["backup", "/"]).assert_code(2);
    let limited = Process::start(sandbox.shell("ulimit -f 64; exec incumbent backup new.db"));
    limited.finish(LIMIT).assert_code(70).assert_complains(&["new.db"]);
    assert_eq!(beginning(&sandbox, "new"), [""; 0]);
    assert_eq!(beginning(&sandbox, ".incumbent-backup"), [""; 0]);
}

/// The three commands that put a copy back, as they are printed.
#[track_caller]
fn commands_of(told: &str) -> Vec<String> {
    let commands: Vec<&str> = told.split('`').skip(1).step_by(2).collect();
    let commands: Vec<String> = commands[..3].iter().map(|it| (*it).to_owned()).collect();
    assert!(commands[2].starts_with("mkdir "), "{told}");
    commands
}

/// Symptom: a process with nothing but a lock was left running, and after the loss of the whole
/// directory there was nowhere to copy to. What is printed names the one, and makes the other.
#[test]
fn a_copy_is_put_back_after_a_total_loss_beside_a_process_with_a_lock() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let mut script = bystander(&sandbox);
    let pid = script.pid().to_string();
    sandbox.cli(["lock", "acquire", "token", "a", "--pid", &pid]).assert_code(0);
    let answer = sandbox.cli(["--json", "backup", "copy.db"]).assert_code(0).json();
    let commands: Vec<&str> =
        answer["restore"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let paste = |command: &str| {
        let done = Process::start(sandbox.shell(command)).finish(LIMIT);
        assert_eq!(done.code(), 0, "{command}: {done:#?}");
        done.out
    };
    paste(commands[0]);
    drop(run);
    let left = paste(commands[1]);
    assert!(left.contains(&pid), "who is to be ended: {left}");
    script.kill();
    eventually("the end of its keepers", LIMIT, || sandbox.keepers().is_empty().then_some(()));
    std::fs::remove_dir_all(sandbox.db().parent().unwrap()).unwrap();
    paste(commands[2]);
    assert_eq!((mode(&sandbox.db()), mode(sandbox.db().parent().unwrap())), (0o600, 0o700));
    // As it says.
    let text = sandbox.cli(["status"]).assert_code(3).out;
    assert!(text.contains("killed or crashed"), "{text}");
    assert!(answer["restored"].as_str().unwrap().contains("killed or crashed"), "{answer:#}");
    sandbox.cli(START).assert_code(0);
    sandbox.cli(["doctor"]).assert_code(0);
}

/// The commands that are printed put it back: what happened since is forgotten, and what is drawn
/// from then on is higher than anything before.
#[test]
fn a_copy_is_put_back_by_what_it_says() {
    let sandbox = Sandbox::new();
    sandbox.make_store();
    let answer = sandbox.cli(["backup", "it's a copy.db"]).assert_code(0);
    sandbox.make_store();
    let run = sandbox.hold(&[]);
    let highest = sandbox.number("SELECT max(id) FROM instances");
    assert_eq!(sandbox.history().len(), 3);
    let commands = commands_of(&answer.out);
    for command in &commands {
        let done = Process::start(sandbox.shell(command)).finish(LIMIT);
        assert_eq!(done.code(), 0, "{command}: {done:#?}");
    }
    run.end();
    assert_eq!(sandbox.history().len(), 1, "as it was then");
    sandbox.make_store();
    assert_eq!(sandbox.history().len(), 2);
    assert!(sandbox.number("SELECT max(id) FROM instances") > highest);
    assert_eq!(mode(&sandbox.db()), 0o600);
}
