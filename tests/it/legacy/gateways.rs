//! What older gateways and their files do beside rows of ours: one directory for two profiles,
//! later versions that look again and again, and words in files that name nobody.

use serde_json::{Value, json};

use crate::support::older::Older;
use crate::support::{LIMIT, Process, Run, Sandbox, Stat, eventually, skipped};

/// FIELD-BUGS row 137. Symptom: a bare `gateway.pid` whose number a thread of the kernel has by now
/// counted as a live gateway: an empty command line was equal to the empty one on record. It holds
/// because a thread of the kernel is known by its flags, and is no gateway, in every kind of file.
#[test]
fn a_kernel_thread_in_a_file_is_no_gateway() {
    let Some(thread) = kernel_thread() else {
        return skipped("no thread of the kernel is visible");
    };
    for shape in ["bare", "null", "bom-null", "wordless"] {
        let Some(sandbox) = Sandbox::with_python() else { return };
        let older = Older::new(&sandbox);
        older.write("gateway.pid", shape, thread);
        older.assert_import(0, &["gateway.pid stale identity_mismatch"]);
        older.hold().end().assert_code(0);
    }
    let sandbox = Sandbox::new();
    let older = Older::new(&sandbox);
    std::fs::create_dir(older.locks()).unwrap();
    older.write("gateway.lock", "bare", thread);
    older.write("gateway_state.json", "status-null", thread);
    older.write_at(&older.locks().join("telegram.lock"), &["lock-null", &thread.to_string()]);
    older.write(".gateway-takeover.json", "fresh-null", thread);
    older.assert_import(
        0,
        &[
            ".gateway-takeover.json stale identity_mismatch",
            "gateway.lock stale anchor_released",
            "gateway_state.json imported identity_mismatch",
            "telegram.lock stale identity_mismatch",
        ],
    );
    older.hold().end().assert_code(0);
}

/// The other side of row 137: an ordinary process that shows no command line could be any, and
/// nobody is evicted for that.
#[test]
fn a_process_that_shows_no_command_line_is_not_known_to_be_dead() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut command = sandbox.program("python3");
    command.args(["-c", crate::support::WITHOUT_MAIN_THREAD]);
    let mut wordless = Process::start(command);
    assert_eq!(wordless.line(), "alone");
    for shape in ["bare", "wordless"] {
        older.write("gateway.pid", shape, wordless.pid());
        assert_eq!(older.import_with_code(0), ["gateway.pid unknown not_verifiable"], "{shape}");
    }
    let holder = older.refused();
    assert_eq!(
        (&holder["pid"], &holder["verdict"]),
        (&json!(wordless.pid()), &json!("unknown")),
        "{holder:#}"
    );
    wordless.kill();
    older.hold().end().assert_code(0);
}

fn kernel_thread() -> Option<u32> {
    let stat = std::fs::read_to_string("/proc/2/stat").ok()?;
    stat.starts_with("2 (kthreadd)").then_some(2)
}

/// A directory of locks that is missing or is not a directory leaves the rest to be imported, and
/// is named.
#[test]
fn an_import_without_its_directory_of_locks_imports_the_rest() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let gateway = older.gateway();
    let import = |directory: &str| {
        let (code, document) = sandbox.json(["import", older.home(), "--lock-dir", directory]);
        assert_eq!(code, 0, "{document:#}");
        let rows = document.as_array().unwrap().clone();
        let row = rows.iter().find(|row| row["file"] == directory).unwrap();
        (rows.len(), row["verdict"].clone(), row["reason"].clone())
    };
    assert_eq!(import("missing"), (3, json!("missing"), json!("no_directory")));
    std::fs::write(sandbox.file("plain"), "").unwrap();
    assert_eq!(import("plain"), (3, json!("missing"), json!("not_a_directory")));
    assert_eq!(sandbox.status().1["pid"], gateway.pid());
    let answer = sandbox.cli(["import", older.home(), "--lock-dir", "missing"]).assert_code(0);
    assert!(answer.out.contains("no directory"), "{answer:#?}");

    // Nothing else to import.
    std::fs::create_dir(sandbox.file("empty")).unwrap();
    let (code, document) =
        sandbox.json(["import", "empty", "--lock-dir", "missing", "--profile", "p"]);
    assert_eq!((code, document.as_array().map(Vec::len)), (0, Some(1)), "{document:#}");
}

/// Symptom: a gateway that had been running for days was shown as started by the import. It holds
/// because its row is dated back by the kernel's start time, on both clocks: else they would look
/// as after a restart.
#[test]
fn an_imported_gateway_shows_its_own_start() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let gateway = older.gateway();
    eventually("the gateway is two seconds old", LIMIT, || {
        (age_ms(gateway.pid()) > 2_000).then_some(())
    });
    older.refused();
    let row = |column: &str| {
        sandbox.number(&format!("SELECT {column} FROM instances WHERE ended_at_ms IS NULL"))
    };
    let age_on_record = sandbox.number(
        "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - started_at_ms
         FROM instances WHERE ended_at_ms IS NULL",
    );
    let age = age_ms(gateway.pid());
    // Ticks are 10 ms, and the two looks are apart.
    assert!(age_on_record > 1_900 && age_on_record <= age + 100, "{age_on_record} {age}");
    assert!(row("written_boot_clock_ms") > 0);
    sandbox.assert_status(0, "alive", "anchor_held");

    // A boot id that differs is doubt: the clocks show no restart.
    sandbox.forge("UPDATE instances SET boot_id = 'other'");
    sandbox.assert_status(0, "alive", "anchor_held");
    older.refused();

    // Another one takes its place, and nobody asks in between.
    drop(gateway);
    std::fs::remove_file(older.file("gateway.pid")).unwrap();
    let before = sandbox.assert_status(3, "dead", "anchor_released")["since"].clone();
    let second = older.gateway();
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], second.pid(), "{status:#}");
    assert!(status["since"].as_str() > before.as_str(), "{before} {status:#}");
}

fn age_ms(pid: u32) -> i64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let started = Stat::of(pid).unwrap().start_time;
    #[allow(clippy::cast_possible_truncation, reason = "milliseconds")]
    let now_ms = (seconds * 1_000.0) as i64;
    now_ms - i64::try_from(started).unwrap() * 10
}

/// A run of `profile` beside the lock in `home`, started by `party`.
fn hold_as(sandbox: &Sandbox, profile: &str, home: &str, more: &[&str]) -> Run {
    let options = ["--profile", profile, "--legacy-home", home];
    sandbox.hold(&[&options[..], more].concat())
}

/// FIELD-BUGS row 136. Symptom: the `run` of one profile was put on record as an older gateway of
/// another one with the same directory, and `stop` of that ended it. It holds because the holder of
/// the lock is looked for among our own rows first, and named.
#[test]
fn a_run_of_another_profile_is_no_older_gateway() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    // The same directory by another name.
    std::os::unix::fs::symlink("hermes", sandbox.file("link")).unwrap();
    let mut first = hold_as(&sandbox, "a", older.home(), &[]);
    let start = ["run", "--no-backoff", "--profile", "b", "--legacy-home", "link", "--", "true"];
    let (code, document) = sandbox.json(start);
    assert_eq!(code, 75, "{document:#}");
    let holder = &document["holder"];
    assert_eq!(holder["pid"], first.pid(), "{holder:#}");
    assert_eq!(holder["profile"], "a", "{holder:#}");
    assert_eq!(holder["reason"], "legacy_home_in_use", "{holder:#}");
    let pid = format!("profile a, pid {}", first.pid());
    sandbox.cli(start).assert_code(75).assert_complains(&[
        "b/gateway is kept out by",
        &pid,
        "hermes/gateway.lock",
        "incumbent --profile a stop",
        // Without the directory it would start beside that one.
        "incumbent --profile b run --replace --legacy-home ",
        "hermes --no-backoff -- true`",
    ]);
    let (code, status) = sandbox.json(["status", "--profile", "b"]);
    assert_eq!((code, &status["pid"]), (3, &Value::Null), "{status:#}");

    // A profile that stands for it by an import is no other case.
    let (code, rows) = sandbox.json(["import", older.home(), "--profile", "b"]);
    assert_eq!(code, 0, "{rows:#}");
    let lock = rows.as_array().unwrap().iter().find(|row| row["reason"] == "anchor_held").unwrap();
    assert!(lock["detail"].as_str().unwrap().contains("profile a"), "{lock:#}");
    sandbox.cli(["claim", "--profile", "b"]).assert_code(75).assert_complains(&[&pid]);
    let doctor = sandbox.cli(["doctor", "--verbose", "--profile", "b"]);
    assert!(doctor.out.contains("b/gateway is kept out by profile a"), "{doctor:#?}");
    assert!(!doctor.out.contains("an older gateway, pid"), "{doctor:#?}");

    let (code, stopped) = sandbox.json(["stop", "--profile", "b"]);
    assert_eq!((code, &stopped["stopped"]), (1, &json!(false)), "{stopped:#}");
    assert_eq!(stopped["holder"]["profile"], "a", "{stopped:#}");
    sandbox
        .cli(["stop", "--profile", "b", "--force"])
        .assert_code(1)
        .assert_complains(&["b/gateway is not running, and nothing was stopped", &pid]);
    assert!(!first.process.has_ended() && !first.command.is_gone());
    sandbox.cli(["stop", "--profile", "a"]).assert_code(0);
    first.process.wait(LIMIT);
    sandbox.cli(["stop", "--profile", "b"]).assert_code(0);
    sandbox.cli(start).assert_code(0);
}

/// The other half of row 136: the profile has a row, of an older gateway that has ended, and the
/// lock of that is our own by now.
#[test]
fn a_row_of_an_older_gateway_is_over_when_a_run_of_ours_has_its_lock() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut gateway = older.gateway();
    sandbox.cli(["import", older.home(), "--profile", "b"]).assert_code(0);
    // While that one lives it is profile b's.
    let start =
        ["run", "--no-backoff", "--profile", "a", "--legacy-home", older.home(), "--", "true"];
    let (code, document) = sandbox.json(start);
    assert_eq!((code, &document["holder"]["profile"]), (75, &json!("b")), "{document:#}");
    gateway.close_stdin();
    gateway.wait(LIMIT);
    let mut run = hold_as(&sandbox, "a", older.home(), &[]);
    let assert_is_over = || {
        let (code, status) = sandbox.json(["status", "--profile", "b"]);
        assert_eq!((code, status["reason"].as_str()), (3, Some("anchor_released")), "{status:#}");
    };
    assert_is_over();
    // As an earlier version put it on record.
    sandbox.forge(&format!(
        "UPDATE instances SET pid = {}, start_time = {} WHERE profile = 'b'",
        run.pid(),
        Stat::of(run.pid()).unwrap().start_time
    ));
    assert_is_over();
    sandbox.cli(["stop", "--profile", "b", "--force"]).assert_code(1);
    assert!(!run.process.has_ended());
    run.end().assert_code(0);
}

/// The last of row 136: two supervisors with `--replace`, one for each profile, took the directory
/// from each other for ever. It holds because a takeover aims at the row that has the lock, and
/// remembers whose place it took.
#[test]
fn two_supervisors_of_one_directory_settle_after_one_swap() {
    const TRIES: usize = 6;
    for round in 0..3 {
        let Some(sandbox) = Sandbox::with_python() else { return };
        let older = Older::new(&sandbox);
        let supervisor = |profile: &str| {
            let run = format!(
                "incumbent --profile {profile} run --no-backoff --replace --legacy-home {} -- \
                 sh -c 'echo started; exec sleep 600'",
                older.home()
            );
            let script = format!("for i in $(seq {TRIES}); do {run}; echo $?; done; read x");
            let mut command = sandbox.shell(&script);
            command.env("INCUMBENT_PARTY", profile);
            Process::start(command)
        };
        let mut first = supervisor("a");
        assert_eq!(first.line(), "started");
        let mut second = supervisor("b");
        assert_eq!(second.line(), "started");
        // Ended for a takeover; its exit code is that of a supervisor's table.
        first.line();
        for _ in 1..TRIES {
            assert_eq!(first.line(), "75", "round {round}");
        }
        let (code, status) = sandbox.json(["status", "--profile", "b"]);
        assert_eq!((code, &status["running"]), (0, &json!(true)), "{status:#}");
        let count = "SELECT count(*) FROM instances WHERE kind IS NOT NULL";
        assert_eq!(sandbox.number(count), 2, "round {round}");
        let taken = format!("{count} AND profile = 'a' AND end_reason = 'taken_over'");
        assert_eq!(sandbox.number(&taken), 1, "round {round}");
        first.err_line_with("it replaced the caller");
        sandbox.cli(["stop", "--profile", "b"]).assert_code(0);
    }
}

/// Of a `run` in another store nothing is on record here; it says in the file where it is.
#[test]
fn a_run_of_another_store_is_named_and_never_replaced() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let elsewhere = sandbox.file("elsewhere/state.db");
    let elsewhere = elsewhere.to_str().unwrap();
    let mut run = hold_as(&sandbox, "a", older.home(), &["--db", elsewhere]);
    let start = ["run", "--no-backoff", "--replace", "--legacy-home", older.home(), "--", "true"];
    let command = format!("incumbent --db {elsewhere} --profile a stop");
    let of_store = format!("of the store {elsewhere}, pid {}", run.pid());
    sandbox.cli(start).assert_code(75).assert_complains(&[&of_store, &command]);
    let rows = older.import_with_code(0);
    assert!(rows.contains(&"gateway_state.json live on_record".to_owned()), "{rows:?}");
    sandbox.cli(["stop"]).assert_code(1).assert_complains(&["nothing was stopped", &of_store]);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE kind IS NOT NULL"), 0);
    assert!(!run.process.has_ended() && !run.command.is_gone());
    run.end().assert_code(0);
    // The end of that is no history of this store's.
    older.import_with_code(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE kind IS NOT NULL"), 0);
    sandbox.cli(start).assert_code(0);
}

/// FIELD-BUGS row 138. Symptom: a later version of the older gateway looked for it every few
/// seconds, did not know the live command line of the `run`, and removed gateway.pid and
/// gateway.lock each time; in between another one could start. It holds because the run shows the
/// words that it looks for, in its record and in the list of processes, and stays the same process.
#[test]
fn later_versions_know_the_run_and_let_its_files_be() {
    for (home, profile) in [("hermes", "work"), ("root/profiles/ops", "other")] {
        let Some(sandbox) = Sandbox::with_python() else { return };
        let mut older = Older::new(&sandbox);
        older.home = sandbox.file(home);
        std::fs::create_dir_all(&older.home).unwrap();
        older.home = older.home.canonicalize().unwrap();
        let mut command = sandbox.incumbent(["run", "--no-backoff", "--profile", profile]);
        command.args(["--legacy-home", older.home()]).args(["--", "/bin/sh", "-c"]);
        command.args(["echo $$; exec cat", "my-bot"]);
        let run = Run::start(command);
        let lock = Stat::of(run.pid()).unwrap();
        let before = [older.id("gateway.pid"), older.id("gateway.lock")];
        let polled = older.start("polls").finish(LIMIT).assert_code(0);
        // The words of another profile's gateway would be another one's in a named directory.
        assert_eq!(polled.out, "0 run\n", "{home}");
        assert_eq!(older.running(), run.pid().to_string());
        assert_eq!([older.id("gateway.pid"), older.id("gateway.lock")], before, "{home}");
        let (_, status) = sandbox.json(["status", "--profile", profile]);
        assert_eq!(status["pid"], run.pid(), "{status:#}");
        assert_eq!(status["flags"], json!([]), "{status:#}");
        // It is the process that was started, by its own name.
        let name = std::fs::read_to_string(format!("/proc/{}/comm", run.pid())).unwrap();
        assert_eq!(name, "incumbent\n");
        assert_eq!(lock.parent, std::process::id());
        run.end().assert_code(0);
    }
}

/// What a later version, or a person, removes anyway is put back, and said once.
#[test]
fn what_is_removed_beside_a_run_is_put_back() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut run = older.hold();
    for _ in 0..3 {
        std::fs::remove_file(older.file("gateway.pid")).unwrap();
        eventually("gateway.pid is back", LIMIT, || {
            older.file("gateway.pid").exists().then_some(())
        });
        assert_eq!(older.running(), run.pid().to_string());
        std::fs::remove_file(older.file("gateway.lock")).unwrap();
        eventually("gateway.lock is back", LIMIT, || {
            (older.file("gateway.lock").exists() && older.running() == run.pid().to_string())
                .then_some(())
        });
    }
    run.process.close_stdin();
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(0);
    let restored: Vec<&str> = answer
        .err
        .lines()
        .filter(|line| line.contains("written again") || line.contains("locked anew"))
        .collect();
    assert_eq!(restored.len(), 1, "{answer:#?}");
}

/// The markers of the older program, row 138's other half: its `stop` and its takeover announce
/// themselves by a file and signal then. Without that word the end of the run was a crash, and the
/// supervisor brought it back.
#[test]
fn a_stop_by_an_older_program_is_told_for_what_it_is() {
    for (verb, file, reason) in [
        ("stops", ".gateway-planned-stop.json", "planned_stop"),
        ("replaces", ".gateway-takeover.json", "taken_over"),
    ] {
        let Some(sandbox) = Sandbox::with_python() else { return };
        let older = Older::new(&sandbox);
        let mut command = sandbox.incumbent(["run", "--no-backoff", "--supervisor", "systemd"]);
        command.args(["--legacy-home", older.home(), "--", "sh", "-c"]);
        // It counts what it is asked by: once.
        command
            .arg("trap 'echo asked; exit 7' TERM; echo $$; while :; do read x || sleep 0.01; done");
        let mut run = Run::start(command);
        let mut asking = sandbox.program("python3");
        asking.args(["older.py", verb, older.home(), &run.pid().to_string()]);
        let asked = Process::start(asking).finish(LIMIT).assert_code(0);
        assert_eq!(run.process.line(), "asked");
        let ended = run.process.finish_with_stdin_open(LIMIT).assert_code(0);
        assert_eq!(ended.out.lines().count(), 2, "{ended:#?}");
        assert!(!older.file(file).exists(), "{file}");
        let end = &sandbox.history()[0];
        assert_eq!(end["end_reason"], reason, "{end:#}");
        let by = format!("an older program (pid {})", asked.out.trim());
        assert_eq!(end["ended_by"], by.as_str(), "{end:#}");
    }
}

/// Symptom: "cannot record what an older program (pid 77): disk full" said neither what was
/// announced nor that it was.
#[test]
fn an_announcement_that_cannot_be_recorded_is_named() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut run = older.hold();
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.busy_timeout(LIMIT).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    older.write(".gateway-planned-stop.json", "fresh", run.pid());
    run.process.signal(rustix::process::Signal::TERM);
    let told = run.process.err_line_with("cannot record the planned_stop that an older program");
    assert!(told.contains("announced: the store") && told.contains("stayed busy"), "{told}");
    blocker.execute_batch("ROLLBACK").unwrap();
}

/// A marker for another process, and one that was not written now, explain nothing.
#[test]
fn a_marker_for_somebody_else_explains_nothing() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut run = older.hold();
    older.write(".gateway-planned-stop.json", "old", run.pid());
    older.write(".gateway-takeover.json", "fresh", std::process::id());
    run.process.signal(rustix::process::Signal::TERM);
    run.process.wait(LIMIT);
    assert_eq!(sandbox.history()[0]["end_reason"], "signalled");
    assert!(!older.file(".gateway-planned-stop.json").exists());
    assert!(older.file(".gateway-takeover.json").exists());
}

/// Symptom: a reader of `gateway_state.json` saw the dead gateway's state for as long as the run
/// lived.
#[test]
fn the_state_of_the_gateway_before_is_replaced() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut gone = older.named();
    older.write("gateway_state.json", "status", gone.pid());
    gone.kill();
    let run = older.hold();
    let state = older.read("gateway_state.json");
    assert_eq!(state["pid"], run.pid(), "{state:#}");
    assert_eq!(state["kind"], "hermes-gateway", "{state:#}");
    assert_eq!(
        (&state["platforms"], &state["active_agents"]),
        (&json!({}), &json!(0)),
        "{state:#}"
    );
    eventually("it says that it runs", LIMIT, || {
        (older.read("gateway_state.json")["gateway_state"] == "running").then_some(())
    });
    let pid = run.pid();
    run.end().assert_code(0);
    let state = older.read("gateway_state.json");
    assert_eq!((&state["gateway_state"], &state["pid"]), (&json!("stopped"), &json!(pid)));
    // It is on record here, and an import makes no second one of it.
    let rows = older.import_with_code(0);
    assert!(rows.contains(&"gateway_state.json stale on_record".to_owned()), "{rows:?}");
    assert_eq!(sandbox.history().len(), 1);

    // Another gateway's word is not ours to change.
    let run = older.hold();
    let mut other = older.named();
    older.write("gateway_state.json", "status", other.pid());
    run.end().assert_code(0);
    assert_eq!(older.read("gateway_state.json")["pid"], other.pid());
    other.kill();
}

/// A run that lost its office holds the lock until it has noticed: it is no older gateway, and gets
/// no row.
#[test]
fn a_run_that_lost_its_office_is_waited_for() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let mut run = older.hold();
    run.process.signal(rustix::process::Signal::STOP);
    crate::support::wait_stopped(run.pid());
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let start = ["run", "--no-backoff", "--replace", "--legacy-home", older.home(), "--", "true"];
    for _ in 0..2 {
        let pid = format!("pid {}", run.pid());
        sandbox.cli(start).assert_code(75).assert_complains(&[
            "kept out",
            &pid,
            "wait until it has",
        ]);
    }
    assert_eq!(sandbox.history().len(), 1);
    let mut wait = vec!["run", "--no-backoff", "--wait"];
    wait.extend(&start[3..]);
    let waiting = Process::start(sandbox.incumbent(wait));
    run.process.signal(rustix::process::Signal::CONT);
    run.process.wait(LIMIT);
    waiting.finish(LIMIT).assert_code(0);
}
