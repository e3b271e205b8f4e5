//! Older gateways that a process on record has started, or stands beside: whose the lock in their
//! directory is.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::older::Older;
use crate::support::{Identity, LIMIT, Process, Run, Sandbox, eventually};

/// A command that starts an older gateway in `home` in a session of its own, says both pids, and
/// stays.
fn start_beside(home: &str) -> String {
    format!(
        "echo $$; sleep 600 | setsid python3 older.py gateway {home} & cat; echo over; \
         exec sleep 600"
    )
}

/// FIELD-BUGS row 136. Symptom: below the `run` of one profile (a terminal, a process manager) ran
/// an older gateway of another directory; `run --replace` for that directory ended the healthy
/// `run`, left the older gateway alive, and was refused. Cause: what descends from a process on
/// record counted as its own, wherever. It holds because that counts only in the directory that the
/// profile stands for.
#[test]
fn an_older_gateway_below_a_run_of_another_directory_is_not_that_run() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let start = start_beside(older.home());
    let mut first =
        Run::start(sandbox.incumbent(["--profile", "a", "run", "--", "sh", "-c", &start]));
    let gateway: u32 = first.process.line().parse().unwrap();
    let gateway = Identity::of(gateway).unwrap();

    // Whoever only asks is told of the older gateway itself.
    let start = ["run", "--no-backoff", "--profile", "b", "--legacy-home", older.home()];
    let (code, document) = sandbox.json([&start[..], &["--", "true"]].concat());
    assert_eq!((code, &document["holder"]["pid"]), (75, &json!(gateway.pid)), "{document:#}");
    let (_, status) = sandbox.json(["status", "--profile", "b"]);
    assert_eq!((&status["pid"], &status["running"]), (&json!(gateway.pid), &json!(true)));

    let replace = [&start[..], &["--replace", "--", "echo", "started"]].concat();
    let answer = sandbox.cli(replace).assert_code(0);
    assert_eq!(answer.out, "started\n");
    assert!(gateway.is_gone());
    assert!(!first.process.has_ended() && !first.command.is_gone());
    let (_, status) = sandbox.json(["status", "--profile", "a"]);
    assert_eq!(status["pid"], first.pid(), "{status:#}");
    first.kill();
}

/// The same for the profile itself: its `run` is not ended for a directory that it does not stand
/// for.
#[test]
fn a_run_is_not_replaced_for_the_directory_of_what_it_started() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let start = start_beside(older.home());
    let mut first = Run::start(sandbox.incumbent(["run", "--", "sh", "-c", &start]));
    let gateway = first.process.line();
    let replace = ["run", "--no-backoff", "--replace", "--legacy-home", older.home(), "--", "true"];
    sandbox.cli(replace).assert_code(75).assert_complains(&[
        "an older gateway, and runs next to the holder on record",
        &format!("stop pid {gateway}"),
    ]);
    assert!(!first.process.has_ended() && !first.command.is_gone());
    first.kill();
}

/// Row 136 again. Symptom: a process that had started an older gateway was put on record for
/// another profile, and the gateway, healthy and on record, counted as dead; the next start ended
/// its row, as that of a crash. It holds because a row whose own process holds its lock is never
/// another's.
#[test]
fn an_older_gateway_on_record_lives_whatever_has_started_it() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut shell = Process::start(sandbox.shell(&start_beside(older.home())));
    assert_eq!(shell.line(), shell.pid().to_string());
    let gateway: u32 = shell.line().parse().unwrap();
    sandbox.cli(["import", older.home(), "--profile", "b"]).assert_code(0);
    let claim = |profile: &str| {
        let pid = shell.pid().to_string();
        sandbox.cli(["claim", "--profile", profile, "--pid", &pid]).assert_code(0);
    };
    let assert_lives = |case: &str| {
        let (code, status) = sandbox.json(["status", "--profile", "b"]);
        assert_eq!((code, &status["reason"]), (0, &json!("anchor_held")), "{case}: {status:#}");
        assert_eq!(status["pid"], gateway, "{case}: {status:#}");
        let start = ["run", "--no-backoff", "--profile", "b", "--legacy-home", older.home()];
        let (code, document) = sandbox.json([&start[..], &["--", "true"]].concat());
        assert_eq!((code, &document["holder"]["pid"]), (75, &json!(gateway)), "{case}");
    };
    claim("a");
    assert_lives("of a profile without a directory");
    // Even where that profile stands for the same one.
    sandbox.forge(&format!("UPDATE profiles SET legacy_home = '{}'", older.home()));
    assert_lives("of a profile with that directory");
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE profile = 'b'"), 1);
    shell.kill();
}

/// The other side: in the directory that a profile stands for, what the command of its `run` has
/// started is its gateway, and is not taken for a stranger.
#[test]
fn a_gateway_below_a_run_of_its_own_directory_is_that_run() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    sandbox.cli(["claim", "--profile", "a", "--pid", &std::process::id().to_string()]);
    sandbox.cli(["release", "--profile", "a", "--pid", &std::process::id().to_string()]);
    sandbox.forge(&format!("UPDATE profiles SET legacy_home = '{}'", older.home()));
    let start = start_beside(older.home());
    let mut first =
        Run::start(sandbox.incumbent(["--profile", "a", "run", "--", "sh", "-c", &start]));
    first.process.line();
    let start = ["run", "--no-backoff", "--profile", "b", "--legacy-home", older.home()];
    let (code, document) = sandbox.json([&start[..], &["--", "true"]].concat());
    let holder = &document["holder"];
    assert_eq!((code, &holder["reason"]), (75, &json!("legacy_home_in_use")), "{document:#}");
    assert_eq!(holder["pid"], first.pid(), "{holder:#}");
    first.kill();
}

/// Symptom: each look at an older gateway walked its ancestors once for each live row, 30 ms with
/// 82 of them. Counted by what it opens in `/proc`: that does not grow with the rows of others.
#[test]
fn a_look_at_an_older_gateway_costs_the_same_beside_many_rows() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    if !crate::support::has("strace") {
        return crate::support::skipped("needs strace");
    }
    let older = Older::new(&sandbox);
    let gateway = older.gateway();
    sandbox.cli(["import", older.home()]).assert_code(0);
    let opened = || {
        let mut command = sandbox.program("strace");
        command.args(["-f", "-e", "trace=openat,open", "-o", "trace", crate::support::BINARY]);
        command.args(["--db", sandbox.db().to_str().unwrap(), "status"]);
        Process::start(command).finish(LIMIT).assert_code(0);
        let trace = std::fs::read_to_string(sandbox.file("trace")).unwrap();
        trace.lines().filter(|line| line.contains("\"/proc/")).count()
    };
    let before = opened();
    let mut rows = String::new();
    let pid = std::process::id().to_string();
    sandbox.cli(["claim", "--no-keeper", "--profile", "x", "--pid", &pid]).assert_code(0);
    let columns = "SELECT group_concat(name) FROM pragma_table_info('instances')
                   WHERE name NOT IN ('id', 'profile')";
    let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
    let columns: String = connection.query_row(columns, [], |row| row.get(0)).unwrap();
    drop(connection);
    for n in 1..100 {
        writeln!(
            rows,
            "INSERT INTO instances (id, profile, {columns})
             SELECT id + {n}, 'x{n}', {columns} FROM instances WHERE profile = 'x';"
        )
        .unwrap();
    }
    rusqlite::Connection::open(sandbox.db()).unwrap().execute_batch(&rows).unwrap();
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL"), 101);
    let after = opened();
    assert!(after <= before + 5, "{before} {after}");
    drop(gateway);
}

/// DESIGN section 5: never taken over across homes unless asked. Symptom: `run --replace` of a
/// profile with one home took the place of a profile with another, because both had the directory
/// of an older gateway in common; of the profile itself that was refused.
#[test]
fn a_profile_of_another_home_is_not_replaced_unasked() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    for home in ["ha", "hb"] {
        std::fs::create_dir(sandbox.file(home)).unwrap();
    }
    let mut first =
        sandbox.hold(&["--profile", "a", "--home", "ha", "--legacy-home", older.home()]);
    let replace = ["run", "--no-backoff", "--replace", "--legacy-home", older.home()];
    let take = |profile: &str, more: &[&str]| {
        let whole = [&["--profile", profile], more, &replace, &["--", "true"]].concat();
        sandbox.cli(whole)
    };
    for (profile, more) in [("a", ["--home", "hb"]), ("b", ["--home", "hb"])] {
        take(profile, &more).assert_code(78).assert_complains(&["profile a", "/ha", "/hb"]);
    }
    // Bound before, and not said now.
    sandbox.cli(["--profile", "b", "--home", "hb", "run", "--", "true"]).assert_code(0);
    take("b", &[]).assert_code(78).assert_complains(&["--profile a stop", "--cross-home"]);
    assert!(!first.process.has_ended() && !first.command.is_gone());
    let (code, status) = sandbox.json(["status", "--profile", "a"]);
    assert_eq!((code, &status["pid"]), (0, &json!(first.pid())), "{status:#}");

    // Asked for; and it is said whose place that was.
    let take_over = [&["--profile", "b"], &replace[..], &["--cross-home", "--", "true"]].concat();
    let whose = format!("took over from pid {} (profile a)", first.pid());
    let answer = sandbox.cli(take_over).assert_code(0);
    assert!(answer.err.contains(&whose), "{answer:#?}");
    first.process.wait(LIMIT);

    // Without a home on one side nothing differs.
    let second = sandbox.hold(&["--profile", "a", "--legacy-home", older.home()]);
    take("c", &[]).assert_code(0);
    second.command.wait_gone(LIMIT);
}

/// The file may be another user's. Symptom: the path of a store in it stood in the advice as it
/// was, for a person to paste into a shell.
#[test]
fn a_path_from_somebody_elses_file_runs_nothing_when_it_is_pasted() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let script = "
import fcntl, json, os, sys
file = open(sys.argv[1] + '/gateway.lock', 'a+')
fcntl.flock(file, fcntl.LOCK_EX)
started = int(open('/proc/self/stat').read().rsplit(')', 1)[1].split()[19])
owner = {'store': 'zz', 'db': sys.argv[2], 'profile': 'a'}
file.write(json.dumps({'pid': os.getpid(), 'kind': 'hermes-gateway', 'argv': ['x'],
                       'start_time': started, 'incumbent': owner}))
file.flush()
print('held', flush=True)
sys.stdin.read()
";
    let hostile = "/x/$(touch pasted)`touch pasted`\"'; touch pasted; '.db";
    let mut command = sandbox.program("python3");
    command.args(["-c", script, older.home(), hostile]);
    let mut forger = Process::start(command);
    assert_eq!(forger.line(), "held");
    let answer = sandbox.cli(["run", "--no-backoff", "--legacy-home", older.home(), "--", "true"]);
    let from = answer.err.find("incumbent --db ").unwrap();
    let until = answer.err[from..].find(" --profile a stop").unwrap();
    let word = &answer.err[from + "incumbent --db ".len()..from + until];
    let pasted = Process::start(sandbox.shell(&format!("printf %s {word}"))).finish(LIMIT);
    assert_eq!(pasted.assert_code(0).out, hostile);
    assert!(!sandbox.file("pasted").exists());

    let (_, document) =
        sandbox.json(["run", "--no-backoff", "--legacy-home", older.home(), "--", "true"]);
    assert_eq!(document["holder"]["db"], hostile, "{document:#}");
}

/// A script that is kept out by the lock of an older program has to know which lock, and in which
/// store its holder is on record.
#[test]
fn a_refusal_for_the_lock_of_an_older_program_names_it_in_json() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let run = sandbox.hold(&["--profile", "a", "--legacy-home", older.home()]);
    let refused = |more: &[&str]| {
        let whole = [&["run", "--no-backoff"], more, &["--", "true"]].concat();
        let (code, document) = sandbox.json(whole);
        assert_eq!(code, 75, "{document:#}");
        document["holder"].clone()
    };
    let lock = older.home.canonicalize().unwrap().join("gateway.lock");
    let here = refused(&["--legacy-home", older.home()]);
    assert_eq!((&here["legacy_lock"], &here["db"]), (&json!(lock), &json!(null)), "{here:#}");
    let elsewhere = sandbox.file("elsewhere.db");
    let there = refused(&["--db", elsewhere.to_str().unwrap(), "--legacy-home", older.home()]);
    assert_eq!(
        (&there["legacy_lock"], &there["db"]),
        (&json!(lock), &json!(sandbox.db().canonicalize().unwrap())),
        "{there:#}"
    );
    // Of any other refusal there is nothing to say.
    let usual = refused(&["--profile", "a"]);
    assert!(usual.get("legacy_lock").is_none() && usual.get("db").is_none(), "{usual:#}");
    run.end().assert_code(0);
}

/// A claim waits a moment for a `run` that is about to take the lock, but no longer than it was
/// told to wait at all.
#[test]
fn nobody_waits_for_a_coming_run_beyond_the_own_deadline() {
    const COMES_WITHIN: Duration = Duration::from_millis(300);
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let other = sandbox.hold(&["--profile", "a"]);
    sandbox.cli(["--profile", "b", "run", "--legacy-home", older.home(), "--", "true"]);
    // As one that was granted its office, and has not started its command yet.
    sandbox.forge(&format!("UPDATE profiles SET legacy_home = '{}'", older.home()));
    sandbox.forge("UPDATE instances SET child_pid = NULL WHERE profile = 'a'");
    let took = |wait: &str| {
        let began = Instant::now();
        let options =
            ["--profile", "b", "run", "--no-backoff", wait, "--legacy-home", older.home()];
        sandbox.cli([&options[..], &["--", "true"]].concat()).assert_code(0);
        began.elapsed()
    };
    assert!(took("--wait") >= COMES_WITHIN);
    eventually("one does not wait for it", LIMIT, || {
        (took("--wait=1ms") < COMES_WITHIN).then_some(())
    });
    other.end().assert_code(0);
}
