//! What the doctor finds: each id with each severity that asks for a look, provoked by something
//! real.

#![allow(clippy::unnecessary_wraps, reason = "all of them are made alike, also where it is easy")]

use std::process::Command;

use rusqlite::Connection;

use super::plain;
use crate::doctor::CHECKS;
use crate::support::{
    BINARY, LIMIT, Process, Run, START, Sandbox, is_root, mount_namespace, read_only_store,
    set_mode, sleeper, stopped_writer,
};

/// What is never found on a machine of these tests: a build with another SQLite.
const ELSEWHERE: [&str; 1] = ["sqlite_library"];

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
    Case("filesystem", "error", of_another_machine),
    Case("free_space", "warning", |it| with_room(it, "40m")),
    Case("free_space", "error", |it| with_room(it, "5m")),
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
    Case("missing_anchors", "warning", |it| {
        let run = it.stopped();
        for name in it.anchor_names() {
            std::fs::remove_file(it.anchors().join(name)).unwrap();
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

fn of_another_machine(sandbox: &Sandbox) -> Option<Asked> {
    sandbox.used();
    in_mounts(
        sandbox,
        "sed 's/ - [a-z0-9]* / - nfs4 /' /proc/self/mountinfo > mounts
         mount --bind mounts /proc/$$/mountinfo || exit 99",
    )
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

/// Each id has an example of what `docs/doctor.md` says it is at worst.
pub fn assert_complete(said: &[(String, String)]) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md");
    let page = std::fs::read_to_string(page).unwrap();
    let worst_of = |id: &str| {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{id}` |"))).unwrap();
        let worst = row.split('|').nth(3).unwrap();
        worst.trim().split(',').next().unwrap().to_owned()
    };
    for id in CHECKS.iter().filter(|id| !ELSEWHERE.contains(id)) {
        let name = format!("{id}, {}", worst_of(id));
        assert!(said.iter().any(|it| it.0 == name), "there is no example of {name}");
    }
}
