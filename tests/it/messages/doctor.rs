//! What the doctor finds: each id with each severity that asks for a look, provoked by something
//! real.

#![allow(clippy::unnecessary_wraps, reason = "all of them are made alike, also where it is easy")]

use std::process::Command;

use rusqlite::Connection;
use rustix::process::Signal;

use super::plain;
use crate::doctor::{CHECKS, severities_of};
use crate::support::{
    BINARY, LIMIT, Process, Run, START, Sandbox, another_user, is_root, kill, mount_namespace,
    pid_namespace, read_only_store, set_mode, sleeper, stopped_writer, wait_stopped, works,
};

/// What is never found on a machine of these tests: a build with another SQLite.
const ELSEWHERE: [&str; 1] = ["sqlite_library"];

/// Severities of others that are not provoked here, and why.
const NOT_HERE: [(&str, &str, &str); 4] = [
    ("free_space", "unknown", "the kernel does not refuse to tell"),
    ("integrity", "unknown", "takes a database that is read for 10 s"),
    ("namesakes", "info", "needs a container with a known name"),
    ("open", "unknown", "needs a shortage in the middle of the check"),
];

/// How the doctor is asked; what has to live meanwhile.
struct Asked {
    command: Command,
    _alive: Vec<Box<dyn std::any::Any>>,
}

fn asked(sandbox: &Sandbox) -> Option<Asked> {
    Some(Asked { command: sandbox.incumbent(["doctor", "--verbose"]), _alive: Vec::new() })
}

fn while_alive(sandbox: &Sandbox, alive: impl std::any::Any) -> Option<Asked> {
    asked(sandbox).map(|it| Asked { _alive: vec![Box::new(alive)], ..it })
}

/// What is found, and how; `None` where that cannot be made here.
struct Case(&'static str, &'static str, fn(&Sandbox) -> Option<Asked>);

const CASES: &[Case] = &[
    Case("path", "info", asked),
    Case("path", "warning", |it| {
        let command = it.incumbent(["--db", "elsewhere/state.db", "doctor", "--verbose"]);
        Some(Asked { command, _alive: Vec::new() })
    }),
    Case("path", "unknown", |it| {
        let words = another_user()?;
        let binary = it.open_to_nobody();
        let as_nobody = |verb: &[&str]| {
            let mut command = it.within(words);
            command.arg(&binary).args(verb);
            command
        };
        let start = as_nobody(&["run", "--no-backoff", "--", "true"]);
        Process::start(start).finish(LIMIT).assert_code(0);
        set_mode(&it.file("store"), 0o000);
        Some(Asked { command: as_nobody(&["doctor", "--verbose"]), _alive: Vec::new() })
    }),
    Case("path", "error", |it| {
        it.used();
        set_mode(it.path(), 0o777);
        asked(it)
    }),
    Case("modes", "warning", |it| {
        it.used();
        set_mode(&it.db(), 0o644);
        asked(it)
    }),
    Case("modes", "error", |it| {
        it.used();
        let mut command = it.within(read_only_store()?);
        command.args([BINARY, "doctor", "--verbose"]);
        Some(Asked { command, _alive: Vec::new() })
    }),
    Case("filesystem", "error", |it| with_filesystem(it, "nfs4", "")),
    Case("filesystem", "info", |it| with_filesystem(it, "nfs4", "--allow-filesystem nfs4")),
    Case("filesystem", "unknown", |it| with_filesystem(it, "fuse", "")),
    Case("free_space", "warning", |it| with_room(it, "40m")),
    Case("free_space", "error", |it| with_room(it, "5m")),
    Case("open", "info", |it| {
        std::fs::create_dir(it.file("store")).unwrap();
        set_mode(&it.file("store"), 0o700);
        std::fs::write(it.db(), "").unwrap();
        set_mode(&it.db(), 0o600);
        asked(it)
    }),
    Case("open", "warning", |it| {
        it.used();
        it.checkpointed();
        std::fs::write(it.db(), "").unwrap();
        asked(it)
    }),
    Case("open", "error", |it| with_bytes(it, 0)),
    Case("integrity", "error", |it| with_bytes(it, 4096 * 3 + 5)),
    Case("integrity", "warning", |it| {
        it.used();
        it.batch("INSERT INTO serves (instance_id, profile, since_at_ms) VALUES (12, 'a', 1)");
        asked(it)
    }),
    Case("schema", "info", |it| {
        it.used();
        it.age_to(5);
        asked(it)
    }),
    Case("schema", "error", |it| {
        it.used();
        it.batch("PRAGMA user_version = 99; UPDATE meta SET value = 99 WHERE key = 'min_writer'");
        asked(it)
    }),
    Case("clock", "info", |it| {
        it.used();
        it.forge("UPDATE instances SET started_at_ms = started_at_ms + 3600000");
        asked(it)
    }),
    Case("wal_size", "warning", |it| {
        it.used();
        let reader = Connection::open(it.db()).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
        let count = "SELECT count(*) FROM events";
        let _: i64 = reader.query_row(count, [], |row| row.get(0)).unwrap();
        it.batch(
            "CREATE TABLE junk (b); INSERT INTO junk VALUES (zeroblob(20 << 20)); DROP TABLE junk",
        );
        while_alive(it, reader)
    }),
    Case("write_lock", "warning", |it| {
        it.used();
        let writer = Connection::open(it.db()).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        while_alive(it, writer)
    }),
    Case("write_lock", "error", |it| {
        it.used();
        let writer = stopped_writer(it);
        while_alive(it, writer)
    }),
    Case("write_lock", "unknown", |it| {
        it.used();
        let words = pid_namespace()?.iter().copied().filter(|word| *word != "--mount-proc");
        let words: Vec<&str> = words.collect();
        let mut command = it.within(&words);
        command.args([BINARY, "doctor", "--verbose"]);
        works(&words).then(|| Asked { command, _alive: Vec::new() })
    }),
    Case("stale_rows", "info", |it| {
        killed(it);
        asked(it)
    }),
    Case("unknown_holders", "unknown", |it| {
        let run = it.stopped();
        it.forge("UPDATE instances SET anchor = NULL, pid_ns = 'elsewhere'");
        while_alive(it, run)
    }),
    Case("holders_stopped", "warning", |it| while_alive(it, it.stopped())),
    Case("holders_stopped", "info", |it| {
        let run = it.hold(&[]);
        let waiter = Process::start(it.incumbent(["run", "--wait", "--", "true"]));
        it.wait_for_waiters(1);
        kill(waiter.pid(), Signal::STOP);
        wait_stopped(waiter.pid());
        while_alive(it, (run, waiter))
    }),
    Case("unresponsive", "warning", |it| {
        let run = it.hold(&[]);
        it.forge("UPDATE instances SET heartbeat_every_ms = 1000, heartbeat_at_ms = 1000000");
        while_alive(it, run)
    }),
    Case("leaked_anchors", "warning", |it| {
        let run = it.stopped();
        it.cli(["evict", "--force"]).assert_code(0);
        while_alive(it, run)
    }),
    Case("orphan_anchors", "info", |it| {
        killed(it);
        it.cli(["evict"]).assert_code(0);
        asked(it)
    }),
    Case("orphan_anchors", "error", without_its_store),
    Case("lost_files", "error", without_its_store),
    Case("lost_files", "info", |it| {
        it.used();
        let read = |_| {
            let mut reader =
                Process::start(it.shell("exec 3<> store/state.db; echo open; exec cat"));
            assert_eq!(reader.line(), "open");
            reader
        };
        let readers: Vec<Process> = (0..6).map(read).collect();
        std::fs::remove_file(it.db()).unwrap();
        while_alive(it, readers)
    }),
    Case("missing_anchors", "warning", |it| {
        let run = it.stopped();
        for name in it.anchor_names() {
            std::fs::remove_file(it.anchors().join(name)).unwrap();
        }
        while_alive(it, run)
    }),
    Case("missing_anchors", "unknown", |it| {
        let run = it.stopped();
        for name in it.anchor_names() {
            let path = it.anchors().join(name);
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(&path, &path).unwrap();
        }
        while_alive(it, run)
    }),
    Case("missing_anchors", "info", |it| {
        let script = sleeper(it);
        let pid = script.pid().to_string();
        it.cli(["claim", "--no-keeper", "--pid", &pid]).assert_code(0);
        while_alive(it, script)
    }),
    Case("outside_supervisor", "warning", |it| {
        let run = it.hold(&[]);
        it.forge("UPDATE instances SET supervisor = 'systemd:gw.service'");
        while_alive(it, run)
    }),
    Case("outside_supervisor", "info", |it| {
        let run = it.hold(&[]);
        it.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        it.forge("UPDATE instances SET supervisor = 'none'");
        it.forge(
            "UPDATE conflicts SET contender = 'systemd:gw.service',
                first_at_ms = first_at_ms - 90000000, last_at_ms = last_at_ms - 90000000",
        );
        while_alive(it, run)
    }),
    Case("stop_budget", "unknown", |it| {
        it.fake_program("systemctl", "echo LoadState=not-found");
        let run = it.hold(&[]);
        it.forge("UPDATE instances SET supervisor = 'systemd:gw.service'");
        with_programs(it, while_alive(it, run)?)
    }),
    Case("stop_budget", "warning", |it| {
        it.fake_program("systemctl", "printf 'LoadState=loaded\\nTimeoutStopUSec=10s\\n'");
        let run = it.hold(&[]);
        it.forge("UPDATE instances SET supervisor = 'systemd:gw.service'");
        with_programs(it, while_alive(it, run)?)
    }),
    Case("sqlite_shell", "info", |it| {
        it.fake_program("sqlite3", "echo '3.40.1 2022-12-28 14:03:47 df5c'");
        with_programs(it, asked(it)?)
    }),
    Case("sqlite_shell", "unknown", |it| {
        it.fake_program("sqlite3", "echo no");
        with_programs(it, asked(it)?)
    }),
    Case("duplicate_tokens", "info", |it| {
        for profile in ["old", "new"] {
            let run = ["--profile", profile, "run", "--no-backoff", "--lock", "token=mine", "true"];
            it.cli(run).assert_code(0);
        }
        asked(it)
    }),
    Case("duplicate_tokens", "warning", |it| {
        let run = it.hold(&["--lock", "token=mine"]);
        let clone = ["--profile", "clone", "run", "--no-backoff", "--lock", "token=mine", "true"];
        it.cli(clone).assert_code(75);
        while_alive(it, run)
    }),
    Case("conflicts", "info", |it| while_alive(it, stormy(it))),
    Case("storms", "warning", |it| while_alive(it, stormy(it))),
    Case("storms", "info", |it| {
        let run = stormy(it);
        it.forge("UPDATE starts SET at_boot_ms = at_boot_ms - 60000");
        while_alive(it, run)
    }),
    Case("open_markers", "info", |it| {
        let run = it.hold(&[]);
        let pid = run.pid().to_string();
        it.cli(["marker", "write", "drain", "--pid", &pid, "--reason", "soon"]).assert_code(0);
        while_alive(it, run)
    }),
    Case("desired", "info", |it| {
        it.cli(["desired", "stopped"]).assert_code(0);
        asked(it)
    }),
    Case("legacy_files", "info", |it| with_pid_file(it, "{\"pid\": 4194305, \"start_time\": 7}")),
    Case("legacy_files", "unknown", |it| {
        let asked = with_pid_file(it, "")?;
        let path = it.file("configuration/gateway.pid");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("gateway.pid", &path).unwrap();
        Some(asked)
    }),
    Case("legacy_files", "error", |it| {
        let mut command = it.program("/bin/sh");
        command.args(["-c", "read word", "gateway"]);
        let other = Process::start(command);
        let start_time = crate::support::Stat::of(other.pid()).unwrap().start_time;
        let text = format!("{{\"pid\": {}, \"start_time\": {start_time}}}", other.pid());
        let asked = with_pid_file(it, &text)?;
        Some(Asked { _alive: vec![Box::new(other)], ..asked })
    }),
    Case("other_stores", "info", |it| {
        it.used();
        let held = ["run", "--no-backoff", "--", "/bin/sh", "-c", "echo $$; exec cat"];
        let mut start = it.incumbent(held);
        start.env_remove("INCUMBENT_DB");
        while_alive(it, Run::start(start))
    }),
    Case("namesakes", "warning", |it| {
        let words = mount_namespace()?;
        it.used();
        let held = "mount -t tmpfs -o mode=0700 t store && exec incumbent run --no-backoff -- \
                    /bin/sh -c 'echo $$; exec cat'";
        let mut command = it.within(words);
        command.args(["/bin/sh", "-c", held]);
        while_alive(it, Run::start(command))
    }),
    // What a user cannot see is more, on another machine.
    Case("blind_spots", "info", |it| asked(it).filter(|_| is_root())),
];

fn killed(sandbox: &Sandbox) {
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
}

/// Its store was deleted under it, and it notices nothing, because it is stopped.
fn without_its_store(sandbox: &Sandbox) -> Option<Asked> {
    let run = sandbox.stopped();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    sandbox.cli(START).assert_code(75);
    while_alive(sandbox, run)
}

/// A party whose starts fail again and again.
fn stormy(sandbox: &Sandbox) -> Run {
    let run = sandbox.hold(&[]);
    for _ in 0..6 {
        let mut start = sandbox.incumbent(START);
        start.env("INCUMBENT_PARTY", "red");
        Process::start(start).finish(LIMIT).assert_code(75);
    }
    run
}

/// Damages some bytes of the database.
fn with_bytes(sandbox: &Sandbox, offset: usize) -> Option<Asked> {
    sandbox.used();
    sandbox.checkpointed();
    let mut bytes = std::fs::read(sandbox.db()).unwrap();
    for byte in &mut bytes[offset..offset + 20] {
        *byte ^= 0x5a;
    }
    std::fs::write(sandbox.db(), &bytes).unwrap();
    asked(sandbox)
}

fn with_pid_file(sandbox: &Sandbox, text: &str) -> Option<Asked> {
    let home = sandbox.file("configuration");
    std::fs::create_dir(&home).unwrap();
    sandbox.cli(["--home", home.to_str().unwrap(), "run", "--no-backoff", "true"]).assert_code(0);
    std::fs::write(home.join("gateway.pid"), text).unwrap();
    asked(sandbox)
}

/// A shell script that makes mounts, and then asks.
fn in_mounts(sandbox: &Sandbox, script: &str) -> Option<Asked> {
    let mut command = sandbox.within(mount_namespace()?);
    command.args(["/bin/sh", "-c", &format!("{script}; exec incumbent doctor --verbose")]);
    Some(Asked { command, _alive: Vec::new() })
}

fn with_room(sandbox: &Sandbox, size: &str) -> Option<Asked> {
    let mount = format!(
        "mkdir store && mount -t tmpfs -o size={size},nr_inodes=1000,mode=700 t store || exit 99"
    );
    in_mounts(sandbox, &format!("{mount}; incumbent run --no-backoff -- true"))
}

/// Every mount is said to be of this type.
fn with_filesystem(sandbox: &Sandbox, kind: &str, options: &str) -> Option<Asked> {
    sandbox.used();
    let mut command = sandbox.within(mount_namespace()?);
    let script = format!(
        "sed 's/ - [a-z0-9]* / - {kind} /' /proc/self/mountinfo > mounts
         mount --bind mounts /proc/$$/mountinfo || exit 99
         exec incumbent {options} doctor --verbose"
    );
    command.args(["/bin/sh", "-c", &script]);
    Some(Asked { command, _alive: Vec::new() })
}

/// With the programs of the test in place of the system's.
fn with_programs(sandbox: &Sandbox, mut asked: Asked) -> Option<Asked> {
    Sandbox::with_fakes()?;
    let mut path = sandbox.file("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    asked.command.env("PATH", path);
    Some(Asked { command: sandbox.among_fakes(asked.command), ..asked })
}

/// The lines of a finding, and of nothing else.
fn lines_about(text: &str, id: &str, severity: &str) -> String {
    let mut found = String::new();
    let mut is_it = false;
    for line in text.lines() {
        let ids = line.strip_prefix(severity).and_then(|it| it.split_once(':')).map(|it| it.0);
        is_it = ids.is_some_and(|ids| ids.split([' ', ',']).any(|word| word == id))
            || is_it && line.starts_with("  ");
        if is_it {
            found += line;
            found.push('\n');
        }
    }
    found.trim_end().to_owned()
}

/// The examples, by id and severity; where one cannot be made here, the one that is kept.
pub fn said(kept: &[(String, String)]) -> Vec<(String, String)> {
    let (mut said, mut wrong) = (Vec::new(), Vec::new());
    for Case(id, severity, make) in CASES {
        let name = format!("{id}, {severity}");
        let sandbox = Sandbox::new();
        let Some(Asked { mut command, _alive }) = make(&sandbox) else {
            said.extend(kept.iter().find(|it| it.0 == name).cloned());
            continue;
        };
        command.env_remove("HERMES_HOME");
        let answer = Process::start(command).finish(LIMIT);
        let text = lines_about(&answer.out, id, severity);
        if text.is_empty() {
            wrong.push(format!("{name} is not among {answer:#?}"));
        }
        said.push((name, plain(&sandbox, &text)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    said
}

/// Each id has an example with each severity that `docs/doctor.md` says it can have; what else a
/// doctor says in any test of this suite fails there (`Diagnosis::of`).
pub fn assert_complete(said: &[(String, String)]) {
    let mut left_out = NOT_HERE.map(|(id, severity, _)| format!("{id}, {severity}")).to_vec();
    for id in CHECKS.iter().filter(|id| !ELSEWHERE.contains(id)) {
        for severity in severities_of(id) {
            let name = format!("{id}, {severity}");
            let has_example = said.iter().any(|it| it.0 == name);
            if let Some(at) = left_out.iter().position(|it| *it == name) {
                left_out.remove(at);
                assert!(!has_example, "{name} has an example: take it out of NOT_HERE");
            } else {
                assert!(has_example, "there is no example of {name}");
            }
        }
    }
    assert!(left_out.is_empty(), "docs/doctor.md does not know {left_out:?}");
}
