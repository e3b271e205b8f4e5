//! `status`: one answer for every surface. What is true is asked of the kernel; what was said is
//! shown as what was said; and nothing that goes on in the store keeps it waiting.

use std::time::{Duration, Instant};

use incumbent::{OpenOptions, Report, Store};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::library::ask;
use crate::status_set::{
    bystander, claimed, damage, obey, obeying, say, stopped_writer, talker, write_for,
};
use crate::support::{
    BINARY, LIMIT, Process, Run, Sandbox, assert_within, eventually, has, order, pid_namespace,
    role, role_db, skipped, wait_stopped,
};

/// Every surface that answers "is it up?", but for the library.
const SURFACES: [&[&str]; 6] = [
    &["status"],
    &["--json", "status"],
    &["status", "--all"],
    &["--json", "status", "--all"],
    &["status", "--metrics"],
    &["status", "--all", "--metrics"],
];

/// What a gateway says that has a lot to do.
const AT_WORK: &[&str] = &[
    "--state",
    "running",
    "--active-agents",
    "3",
    "--heartbeat=1h",
    "--serves",
    "other",
    "--platform",
    "telegram",
    "--platform-state",
    "connected",
];

fn answer(sandbox: &Sandbox, surface: &[&str]) -> String {
    let answer = sandbox.cli(surface);
    assert_eq!(answer.err, "", "{surface:?}");
    answer.out
}

fn unix_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// The value of a metric of the default office; `None` when there is no such sample.
fn metric(text: &str, name: &str, labels: &str) -> Option<f64> {
    let wanted = format!("{name}{{profile=\"default\",kind=\"gateway\"{labels}}} ");
    text.lines().find_map(|line| line.strip_prefix(&wanted)).map(|value| value.parse().unwrap())
}

/// The line of `status --all` for the default office.
fn row_of_the_table(text: &str) -> String {
    let row = text.lines().find(|line| line.starts_with("default "));
    row.unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// Asserts on all surfaces that nobody runs, works, or can be drained.
#[track_caller]
fn assert_dead_everywhere(sandbox: &Sandbox, reason: &str, when: &str) {
    let status = sandbox.assert_status(3, "dead", reason);
    let all = sandbox.json(["status", "--all", "--profile", "default"]).1[0].clone();
    let read = OpenOptions::new().path(sandbox.db()).open_existing().unwrap().unwrap();
    let by_library = read.profile("default").unwrap();
    assert_eq!(by_library.running_pid(&incumbent::Kind::default()).unwrap(), None, "{when}");
    let report = by_library.status().unwrap();
    assert!(!report.busy() && !report.drainable() && !report.running, "{when}: {report:?}");
    for document in [&status, &all, &report.to_json()] {
        for (key, value) in [
            ("running", json!(false)),
            ("verdict", json!("dead")),
            ("state", json!(null)),
            ("busy", json!(false)),
            ("drainable", json!(false)),
            ("serves", json!([])),
            ("unresponsive_ms", json!(null)),
        ] {
            assert_eq!(document[key], value, "{when}: {key}: {document:#}");
        }
        assert_eq!(document["runtime"]["state"], json!(null), "{when}: {document:#}");
        for (name, platform) in document["platforms"].as_object().unwrap() {
            assert_eq!(platform["state"], json!(null), "{when}: {name}: {document:#}");
        }
    }
    let text = sandbox.cli(["status"]).assert_code(3).out;
    assert!(text.starts_with("default/gateway: not running"), "{when}: {text}");
    let says = text.lines().find(|line| line.trim_start().starts_with("says "));
    assert!(says.is_none_or(|line| line.contains("was running")), "{when}: {text}");
    assert!(!text.contains("agent"), "{when}: {text}");
    let row = row_of_the_table(&answer(sandbox, &["status", "--all"]));
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..3], ["default", "gateway", "no"], "{when}: {row}");
    assert!(!row.contains("running") && !row.contains("ok"), "{when}: {row}");
    for surface in [&["status", "--metrics"][..], &["status", "--all", "--metrics"]] {
        let metrics = answer(sandbox, surface);
        assert_eq!(metric(&metrics, "incumbent_gateway_up", ""), Some(0.0), "{when}: {metrics}");
        for word in ["_busy", "_drainable", "_state{", "_active_agents", "platform_"] {
            let found = metrics.lines().find(|line| {
                line.contains(word) && line.contains("default") && !line.starts_with('#')
            });
            assert_eq!(found, None, "{when}: {metrics}");
        }
    }
    // Nobody is served by the dead.
    assert_eq!(sandbox.json(["status", "--profile", "other"]).0, 3, "{when}");
}

/// FIELD-BUGS row 60.
///
/// Symptom: a dead gateway was shown running, with its agents at work and its platforms connected.
/// Cause: the snapshot that it had left was believed. It holds because "running" is derived at read
/// time, from the kernel's lock; no row says it, whatever is in it.
#[test]
fn a_dead_one_is_never_shown_running_whatever_its_rows_say() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, AT_WORK);
    assert_eq!(sandbox.status().1["busy"], true);
    assert_eq!(sandbox.json(["status", "--profile", "other"]).0, 0);
    let command = run.command;
    run.kill();
    command.wait_gone(LIMIT);
    assert_dead_everywhere(&sandbox, "anchor_released", "killed");
    let soon = unix_ms() + 30_000;
    let fresh = |table: &str| {
        format!(
            "UPDATE {table} SET state = 'running', state_since_at_ms = {soon},
                updated_at_ms = {soon}"
        )
    };
    let forge_all = || {
        sandbox.forge(&fresh("runtime_status"));
        sandbox.forge("UPDATE runtime_status SET active_agents = 99");
        sandbox.forge(&fresh("platform_status"));
        sandbox.forge(&format!("UPDATE instances SET heartbeat_at_ms = {soon}"));
    };
    forge_all();
    assert_dead_everywhere(&sandbox, "anchor_released", "killed, and the rows are of right now");
    // Its pid is somebody else's, or ours: no process is asked where the lock tells.
    let other = bystander(&sandbox);
    for pid in [other.pid(), std::process::id(), 1] {
        sandbox.forge(&format!("UPDATE instances SET pid = {pid}"));
        assert_dead_everywhere(&sandbox, "anchor_released", "its pid is in use");
    }

    // One that has ended by the book.
    let sandbox = Sandbox::new();
    let script = claimed(&sandbox, &[]);
    write_for(&sandbox, script.pid(), AT_WORK);
    sandbox.cli(["release", "--pid", &script.pid().to_string()]).assert_code(0);
    assert_dead_everywhere(&sandbox, "released", "released");
    let soon = unix_ms() + 30_000;
    sandbox.forge(&format!("UPDATE runtime_status SET state = 'running', updated_at_ms = {soon}"));
    assert_dead_everywhere(&sandbox, "released", "released, and forged");
    // One that was brought back to life on paper.
    drop(script);
    sandbox.forge(
        "UPDATE instances SET ended_at_ms = NULL, end_reason = NULL, ended_by = NULL
         WHERE kind IS NOT NULL",
    );
    let (code, status) = sandbox.status();
    assert_eq!((code, &status["running"]), (3, &json!(false)), "{status:#}");
}

/// R:REUSE. FIELD-BUGS rows 7 and 60: the pid that was recorded is given out again, to a process
/// that is as alive as can be.
#[test]
fn a_reused_pid_does_not_bring_the_dead_back() {
    const SCRIPT: &str = "
        mkfifo gate pids
        exec 8<> gate
        sh -c 'echo $$ > pids; sleep 1000' &
        owner=$!
        read -r same < pids
        incumbent claim --no-keeper --pid $owner > /dev/null
        incumbent status-set --pid $owner --state running --active-agents 3 \\
            --platform telegram --platform-state connected > /dev/null
        incumbent status > /dev/null; echo \"before $?\"
        kill -KILL $owner; wait $owner
        # One tick of the clock that start times are counted in has to pass: 10 ms.
        sleep 0.05
        echo $(($owner - 1)) > /proc/sys/kernel/ns_last_pid
        sh -c 'read -r x < gate' &
        echo \"same pid $(($! - owner))\"
        incumbent --json status > status.json; echo \"status $?\"
        incumbent status > status.txt
        incumbent status --all > all.txt
        incumbent status --all --metrics > metrics.txt
        incumbent status-set --pid $owner --state mine 2> /dev/null; echo \"set $?\"
        kill -KILL $!
        exit 0";
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut command = sandbox.program(namespace[0]);
    command.args(&namespace[1..]).args(["/bin/sh", "-c", SCRIPT]);
    let answer = Process::start(command).finish(LIMIT).assert_code(0);
    if answer.err.contains("ns_last_pid") {
        return skipped("needs leave to choose pids");
    }
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(lines, ["before 0", "same pid 0", "status 3", "set 1"], "{answer:#?}");
    let read = |name: &str| std::fs::read_to_string(sandbox.file(name)).unwrap();
    let status: Value = serde_json::from_str(&read("status.json")).unwrap();
    assert_eq!(status["reason"], "pid_reused", "{status:#}");
    assert_eq!((&status["state"], &status["busy"]), (&json!(null), &json!(false)), "{status:#}");
    assert_eq!(status["runtime"]["last_state"], "running", "{status:#}");
    assert_eq!(status["platforms"]["telegram"]["state"], json!(null), "{status:#}");
    assert!(read("status.txt").starts_with("default/gateway: not running"), "{status:#}");
    assert!(!row_of_the_table(&read("all.txt")).contains("running"));
    let metrics = read("metrics.txt");
    assert_eq!(metric(&metrics, "incumbent_gateway_up", ""), Some(0.0), "{metrics}");
    assert_eq!(metric(&metrics, "incumbent_gateway_state", ",state=\"running\""), None);
}

/// FIELD-BUGS row 61.
///
/// Symptom: a healthy gateway that had nothing to say was flagged dead after 2, or 15, minutes.
/// Cause: the time of the last event was read as a heartbeat. It holds because the age of a row is
/// shown, and decides nothing.
#[test]
fn a_live_idle_gateway_is_alive_however_old_its_last_word_is() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    assert_eq!(sandbox.status().1["stale"], false, "who said nothing has said nothing old");
    say(&sandbox, &mut run, &["--state", "running", "--active-agents", "1"]);
    say(&sandbox, &mut run, &["--platform", "telegram", "--platform-state", "connected"]);
    assert_eq!(sandbox.status().1["stale"], false);
    let now = unix_ms();
    for age_ms in [301_000, 15 * 60_000, 86_400_000, now] {
        let at_ms = now - age_ms;
        for table in ["runtime_status", "platform_status"] {
            sandbox.forge(&format!(
                "UPDATE {table} SET updated_at_ms = {at_ms}, state_since_at_ms = {at_ms}"
            ));
        }
        sandbox.forge(&format!("UPDATE instances SET started_at_ms = {at_ms}"));
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        for (key, value) in [
            ("running", json!(true)),
            ("state", json!("running")),
            ("stale", json!(true)),
            ("busy", json!(true)),
            ("drainable", json!(true)),
            ("unresponsive_ms", json!(null)),
            ("flags", json!([])),
        ] {
            assert_eq!(status[key], value, "{age_ms}: {key}: {status:#}");
        }
        assert_eq!(status["platforms"]["telegram"]["state"], "connected", "{status:#}");
        let text = answer(&sandbox, &["status"]);
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("default/gateway: running, pid "), "{age_ms}: {text}");
        assert!(!first.contains("stale") && !text.contains("not running"), "{age_ms}: {text}");
        assert!(text.contains("; said "), "its age is shown: {text}");
        let row = row_of_the_table(&answer(&sandbox, &["status", "--all"]));
        assert!(row.contains(" yes ") && row.contains("1 of 1 ok"), "{age_ms}: {row}");
        let metrics = answer(&sandbox, &["status", "--metrics"]);
        for (name, value) in
            [("up", 1.0), ("stale", 1.0), ("busy", 1.0), ("unresponsive_seconds", 0.0)]
        {
            let name = format!("incumbent_gateway_{name}");
            assert_eq!(metric(&metrics, &name, ""), Some(value), "{age_ms}: {name}: {metrics}");
        }
        // Nobody can have its place.
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    }
    // One word of any of them is enough.
    say(&sandbox, &mut run, &["--platform", "telegram", "--platform-state", "connected"]);
    assert_eq!(sandbox.status().1["stale"], false);
    run.end().assert_code(0);
}

/// FIELD-BUGS row 62.
///
/// Symptom: a start that had failed was hidden after five minutes, and a "stopped" of last year
/// warned for ever. Cause: states were sorted by age. It holds because an end is superseded by a
/// newer start, by nothing else; and a clean one is no news.
#[test]
fn a_failed_start_is_reported_until_a_newer_one_and_a_clean_stop_is_silent() {
    let sandbox = Sandbox::new();
    let age_everything = || {
        for table in ["runtime_status", "platform_status"] {
            sandbox.forge(&format!("UPDATE {table} SET updated_at_ms = 1, state_since_at_ms = 1"));
        }
        sandbox.forge("UPDATE instances SET started_at_ms = 1, ended_at_ms = 2");
    };
    let mut run = obeying(&sandbox, &[]);
    let failed = ["--state", "startup_failed", "--exit-reason", "no token was given"];
    say(&sandbox, &mut run, &failed);
    let error = ["--platform", "telegram", "--platform-state", "fatal", "--error-code", "E401"];
    say(&sandbox, &mut run, &error);
    obey_exit(&mut run, 1);
    for round in ["fresh", "ancient"] {
        let status = sandbox.assert_status(3, "dead", "exited");
        assert_eq!(status["state"], "startup_failed", "{round}: {status:#}");
        assert_eq!(status["runtime"]["exit_reason"], "no token was given", "{round}: {status:#}");
        assert_eq!(status["platforms"]["telegram"]["error_code"], "E401", "{round}: {status:#}");
        assert_eq!((&status["busy"], &status["drainable"]), (&json!(false), &json!(false)));
        let text = sandbox.cli(["status"]).assert_code(3).out;
        let first = text.lines().next().unwrap();
        assert_eq!(first, "default/gateway: not running, its last start failed", "{round}");
        for word in ["no token was given", "E401"] {
            assert!(text.contains(word), "{round}: {word}: {text}");
        }
        let row = row_of_the_table(&answer(&sandbox, &["status", "--all"]));
        assert!(row.contains(" startup_failed "), "{round}: {row}");
        let metrics = answer(&sandbox, &["status", "--all", "--metrics"]);
        let failed = metric(&metrics, "incumbent_gateway_state", ",state=\"startup_failed\"");
        assert_eq!(failed, Some(1.0), "{round}: {metrics}");
        age_everything();
    }

    // A newer one is another story, while it lives and after.
    let mut run = obeying(&sandbox, &[]);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!((&status["state"], &status["runtime"]), (&json!(null), &json!(null)), "{status:#}");
    say(&sandbox, &mut run, &["--state", "stopped"]);
    run.end().assert_code(0);
    for round in ["fresh", "ancient"] {
        let status = sandbox.assert_status(3, "dead", "exited");
        assert_eq!(status["state"], "stopped", "{round}: {status:#}");
        let answer = sandbox.cli(["status"]).assert_code(3);
        assert_eq!(answer.err, "", "{round}");
        assert_eq!(answer.out.lines().next(), Some("default/gateway: not running"), "{round}");
        let text = answer.out.to_lowercase();
        for word in ["fail", "warn", "error", "stale", "damaged"] {
            assert!(!text.contains(word), "{round}: {word}: {text}");
        }
        age_everything();
    }
    // Nor is one that said nothing.
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let status = sandbox.assert_status(3, "dead", "exited");
    assert_eq!((&status["state"], &status["runtime"]), (&json!(null), &json!(null)), "{status:#}");
}

/// Has the command of a run end with `code`.
#[track_caller]
fn obey_exit(run: &mut Run, code: i32) {
    run.process.say(&format!("exit {code}"));
    let ended = run.process.wait(LIMIT);
    assert_eq!(ended.code(), Some(code));
}

/// Whether it is busy, or can be drained, over the whole product of what is true, what was said,
/// and how many work.
#[test]
fn busy_and_drainable_follow_from_what_is_true_and_what_was_said() {
    let sandbox = Sandbox::new();
    for profile in ["alive", "dead", "unknown"] {
        let run = obeying(&sandbox, &["--profile", profile, "--kind", "made"]);
        run.end().assert_code(0);
    }
    let alive = claimed(&sandbox, &["--profile", "alive"]);
    let unknown = claimed(&sandbox, &["--profile", "unknown", "--no-keeper"]);
    let mut dead = claimed(&sandbox, &["--profile", "dead", "--no-keeper"]);
    for (profile, script) in [("alive", &alive), ("unknown", &unknown), ("dead", &dead)] {
        let words = ["--profile", profile, "--state", "starting"];
        write_for(&sandbox, script.pid(), &words);
    }
    dead.kill();
    sandbox.forge(
        "UPDATE instances SET pid_ns = 'pid:[1]' WHERE profile = 'unknown' AND kind = 'gateway'",
    );
    let store = Store::open_existing(sandbox.db()).unwrap().unwrap();
    let words = [
        "starting",
        "running",
        "draining",
        "degraded",
        "stopped",
        "startup_failed",
        "RUNNING",
        "own",
    ];
    let states = words.into_iter().map(Some).chain([None]);
    let mut count = 0;
    for state in states {
        for agents in [None, Some(0), Some(1), Some(7)] {
            let said = state.map_or_else(|| "NULL".to_owned(), |word| format!("'{word}'"));
            let at_work =
                agents.map_or_else(|| "NULL".to_owned(), |agents: u64| agents.to_string());
            damage(
                &sandbox,
                &format!("UPDATE runtime_status SET state = {said}, active_agents = {at_work}"),
            );
            for verdict in ["alive", "dead", "unknown"] {
                let report = store.profile(verdict).unwrap().status().unwrap();
                let what = format!("{verdict}, {state:?}, {agents:?}: {report:?}");
                assert_eq!(report.verdict, verdict, "{what}");
                assert_eq!(report.running, verdict == "alive", "{what}");
                let drainable = verdict == "alive" && state == Some("running");
                let busy = drainable && agents.is_some_and(|agents| agents > 0);
                assert_eq!((report.drainable(), report.busy()), (drainable, busy), "{what}");
                let outlives = matches!(state, Some("stopped" | "startup_failed"));
                let still = state.filter(|_| verdict != "dead" || outlives);
                assert_eq!(report.state.as_deref(), still, "{what}");
                let document = report.to_json();
                assert_eq!(document["busy"], busy, "{what}");
                assert_eq!(document["drainable"], drainable, "{what}");
                assert_eq!(document["state"], json!(still), "{what}");
                assert_eq!(document["runtime"]["state"], json!(still), "{what}");
                assert_eq!(document["runtime"]["last_state"], json!(state), "{what}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 9 * 4 * 3);
    let codes = ["alive", "dead", "unknown"]
        .map(|profile| sandbox.cli(["status", "--profile", profile]).code());
    assert_eq!(codes, [0, 3, 4]);
}

// -- it never blocks ---------------------------------------------------------------------------

/// The contract's number.
const WITHIN: Duration = Duration::from_millis(50);

/// The shortest time that `ask` takes, of a few: the machine may be busy with other things, the
/// answer may not wait for a writer.
#[track_caller]
fn assert_quick(what: &str, mut ask: impl FnMut()) {
    let mut shortest = Duration::MAX;
    for _ in 0..40 {
        let asked = Instant::now();
        ask();
        shortest = shortest.min(asked.elapsed());
        if shortest < WITHIN {
            return;
        }
    }
    assert_within(WITHIN, shortest, what);
}

/// FIELD-BUGS row 63.
///
/// Symptom: the status page hung for 20 s, or said "not running", because a probe did. It holds
/// because a question takes no lock that a writer holds, and probes nothing but the machine it is
/// on: with the write lock held by a stopped process, the answer is there within 50 ms.
#[test]
fn with_the_write_lock_held_by_a_stopped_process_it_answers_at_once() {
    let sandbox = Sandbox::new();
    let mut gateway = talker(&sandbox);
    assert_eq!(ask(&mut gateway, "say running"), "Ok");
    assert_eq!(ask(&mut gateway, "promise 30"), "Ok");
    for number in 0..5 {
        let profile = format!("p{number}");
        sandbox.cli(["run", "--no-backoff", "--profile", &profile, "--", "true"]).assert_code(0);
    }
    let store = Store::open_existing(sandbox.db()).unwrap().unwrap();
    let writer = stopped_writer(&sandbox);
    for surface in SURFACES {
        assert_quick(&format!("{surface:?}"), || {
            sandbox.cli(surface).assert_code(0);
        });
    }
    assert_quick("the library", || {
        assert!(store.profile("default").unwrap().status().unwrap().running);
    });
    assert_quick("the library, all of it", || {
        assert_eq!(store.status_of_all().unwrap().len(), 6);
    });
    // The gateway is stuck on that lock as well: held, and unresponsive.
    gateway.signal(Signal::STOP);
    wait_stopped(gateway.pid());
    eventually("two beats are missing", LIMIT, || sandbox.status().1["unresponsive_ms"].as_u64());
    let mut status = Value::Null;
    assert_quick("held, unresponsive", || {
        status = sandbox.assert_status(0, "alive", "anchor_held");
    });
    assert!(status["unresponsive_ms"].as_u64().unwrap() > 60, "{status:#}");
    assert_eq!(status["flags"], json!(["stopped"]), "{status:#}");
    assert_eq!(status["state"], "running", "{status:#}");
    drop(writer);
}

/// The part of a program that wants the database for itself.
#[test]
fn role_of_a_monopolist() {
    if role().as_deref() != Some("monopolist") {
        return;
    }
    let connection = Connection::open(role_db()).unwrap();
    connection
        .execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; DELETE FROM events; COMMIT",
        )
        .unwrap();
    eprintln!("alone");
    assert_eq!(order(), None);
}

/// FIELD-BUGS row 63. A program that has the whole database for itself keeps it from being read:
/// then the answer is an error, soon, and not "not running".
#[test]
fn a_database_that_another_program_keeps_is_an_error_and_no_wait() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    let mut monopolist = sandbox.role("status::role_of_a_monopolist", "monopolist");
    monopolist.err_line_with("alone");
    for surface in SURFACES {
        let mut answers = Vec::new();
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let asked = Instant::now();
            answers.push(sandbox.cli(surface));
            shortest = shortest.min(asked.elapsed());
        }
        assert_within(Duration::from_secs(1), shortest, &format!("{surface:?}"));
        for answer in answers {
            assert!(matches!(answer.code(), 75 | 78), "{surface:?}: {answer:#?}");
            let said = format!("{}{}", answer.out, answer.err);
            assert!(!said.contains("not running") && !said.contains("never_claimed"), "{said}");
            let name = format!("pid {}", monopolist.pid());
            assert!(said.contains(&name), "{surface:?}: who it is: {answer:#?}");
            if surface.contains(&"--json") {
                let error = &answer.json()["error"];
                assert!(error["hint"].is_string(), "{error:#}");
            } else {
                assert!(answer.err.contains("try: "), "{answer:#?}");
            }
        }
    }
    monopolist.finish(LIMIT).assert_code(0);
    sandbox.assert_status(3, "dead", "exited");
}

// -- for people --------------------------------------------------------------------------------

/// What a terminal of `columns` makes of it.
fn rows_on_screen(text: &str, columns: usize) -> usize {
    text.lines().map(|line| line.chars().count().div_ceil(columns).max(1)).sum()
}

/// The answer comes first and stands on one screen, however much there is to say.
#[test]
fn the_answer_is_the_first_line_and_all_of_it_fits_on_a_screen() {
    let sandbox = Sandbox::new();
    let locks: Vec<String> =
        (0..50).flat_map(|number| ["--lock".to_owned(), format!("scope={number}")]).collect();
    let locks: Vec<&str> = locks.iter().map(String::as_str).collect();
    let mut run = obeying(&sandbox, &locks);
    let pid = run.pid();
    let text = answer(&sandbox, &["status"]);
    assert!(text.starts_with(&format!("default/gateway: running, pid {pid}, since ")), "{text}");
    say(&sandbox, &mut run, &["--state", "running", "--active-agents", "2"]);
    let loop_of = |words: &str, first: usize, end: usize| {
        format!(
            "n={first}; while [ $n -lt {end} ]; do {words} > /dev/null || exit 9; n=$((n+1)); done"
        )
    };
    let platform = "incumbent status-set --platform platform-$n --platform-state connected \
                    --error-message \"no route to host $n\"";
    for first in [0, 50, 100, 150] {
        assert_eq!(obey(&mut run, &loop_of(platform, first, first + 50)), 0);
    }
    assert_eq!(sandbox.status().1["platforms"].as_object().unwrap().len(), 200);
    let text = answer(&sandbox, &["status"]);
    assert!(text.starts_with(&format!("default/gateway: running, pid {pid}, since ")), "{text}");
    assert!(text.contains("and 188 more, see --json"), "{text}");
    assert!(text.contains("and 38 more, see --json"), "{text}");
    assert!(rows_on_screen(&text, 100) <= 45, "{} rows:\n{text}", rows_on_screen(&text, 100));
    run.end().assert_code(0);
}

/// The same for whatever is of any length, one after the other: it is cut here, and `--json` has it
/// all.
#[test]
fn what_is_long_is_cut_and_fits_on_a_screen_as_well() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    let long = "word ".repeat(800);
    let extra = format!("\"{}\"", "word ".repeat(12_000));
    let served: Vec<String> =
        (0..250).flat_map(|n| ["--serves".to_owned(), format!("profile-{n}")]).collect();
    let served: Vec<&str> = served.iter().map(String::as_str).collect();
    let mut too_much = Vec::new();
    let mut look = |what: &str, all_of_it: &str| {
        let text = answer(&sandbox, &["status"]);
        let rows = rows_on_screen(&text, 100);
        if rows > 45 {
            too_much.push(format!("{what}: {rows} rows"));
        }
        let document = answer(&sandbox, &["--json", "status"]);
        assert!(document.contains(all_of_it), "{what}: not in the JSON: {document}");
        let all = answer(&sandbox, &["status", "--all"]);
        let rows = rows_on_screen(&row_of_the_table(&all), 100);
        assert!(rows <= 10, "{what}: {rows} rows in the table");
    };
    say(&sandbox, &mut run, &["--exit-reason", &long]);
    look("a reason", &long[..4_000]);
    say(&sandbox, &mut run, &["--clear", "exit-reason", "--extra", &extra]);
    look("a JSON of its own", &extra);
    say(&sandbox, &mut run, &[&["--clear", "extra"], &served[..]].concat());
    look("the served", "profile-249");
    say(&sandbox, &mut run, &["--clear", "serves"]);
    for number in 0..12 {
        let platform = format!("platform-{number}");
        say(&sandbox, &mut run, &["--platform", &platform, "--error-message", &long]);
    }
    look("messages", &long[..4_000]);
    say(&sandbox, &mut run, &["--clear", "platforms"]);
    let pid = run.pid();
    let marker = format!(
        "n=0; while [ $n -lt 60 ]; do incumbent marker write note-$n --pid {pid} > /dev/null \
         || exit 9; n=$((n+1)); done"
    );
    assert_eq!(obey(&mut run, &marker), 0);
    look("markers", "note-59");
    assert!(too_much.is_empty(), "{too_much:#?}");
    run.end().assert_code(0);
}

/// Runs `words` on a terminal; returns what it shows.
fn on_a_terminal(sandbox: &Sandbox, environment: &[(&str, &str)], words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("exec '{BINARY}' {}", quoted.join(" "));
    let mut command = sandbox.program("script");
    command.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh");
    command.env_remove("NO_COLOR").env("TERM", "xterm").envs(environment.iter().copied());
    Process::start(command).finish(LIMIT).out
}

const SYMBOLS: [char; 2] = ['\u{25cf}', '\u{25cb}'];

/// Colours and symbols are for terminals.
#[test]
fn colours_and_symbols_are_for_terminals() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, AT_WORK);
    let plain = |text: &str| !text.contains('\u{1b}') && !text.contains(SYMBOLS);
    for surface in SURFACES {
        for environment in [&[][..], &[("NO_COLOR", "1")], &[("TERM", "xterm-256color")]] {
            let mut command = sandbox.incumbent(surface);
            command.env_remove("NO_COLOR").envs(environment.iter().copied());
            let out = Process::start(command).finish(LIMIT).assert_code(0).out;
            assert!(plain(&out), "{surface:?} {environment:?}: {out:?}");
        }
    }
    if !has("script") {
        return skipped("the half that needs script(1) of util-linux");
    }
    let text = on_a_terminal(&sandbox, &[], &["status"]);
    let first = text.lines().next().unwrap();
    assert!(first.contains('\u{25cf}') && first.contains("\u{1b}[1m\u{1b}[32mrunning"), "{text:?}");
    let all = on_a_terminal(&sandbox, &[], &["status", "--all"]);
    assert!(all.contains("\u{1b}[1m\u{1b}[32myes"), "{all:?}");
    // The columns stand where they stand without colours.
    let without = strip_escapes(&all);
    let pipe = answer(&sandbox, &["status", "--all"]);
    let column = |text: &str| text.lines().next().unwrap().find("PID").unwrap();
    assert_eq!(column(&without), column(&pipe), "{without:?}\n{pipe:?}");
    let row = row_of_the_table(&without);
    assert_eq!(row.find(&run.pid().to_string()), Some(column(&without)), "{without}");

    let text = on_a_terminal(&sandbox, &[("NO_COLOR", "1")], &["status"]);
    assert!(!text.contains('\u{1b}') && text.contains(SYMBOLS), "{text:?}");
    let text = on_a_terminal(&sandbox, &[("TERM", "dumb")], &["status"]);
    assert!(plain(&text), "{text:?}");
    for surface in
        [&["--json", "status"][..], &["status", "--metrics"], &["--json", "status", "--all"]]
    {
        let text = on_a_terminal(&sandbox, &[], surface);
        assert!(plain(&text), "{surface:?}: {text:?}");
    }
    run.end().assert_code(0);
    let text = on_a_terminal(&sandbox, &[], &["status"]);
    let first = text.lines().next().unwrap();
    assert!(
        first.contains('\u{25cb}') && first.contains("\u{1b}[1m\u{1b}[31mnot running"),
        "{text:?}"
    );
}

/// Without the colours.
fn strip_escapes(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').unwrap().1);
    }
    plain
}

/// Symptom: a name of a chat room that somebody else chose cleared the operator's screen. It holds
/// because nothing that was reported reaches a terminal with its control characters.
#[test]
fn control_characters_do_not_reach_the_terminal() {
    const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\r\u{8}\u{202e}";
    let sandbox = Sandbox::new();
    let reason = format!("because {EVIL}");
    let metadata = json!({"note": EVIL}).to_string();
    let script = format!("echo $$; exec cat; : '{EVIL}'");
    let arguments = ["run", "--no-backoff", "--lock", "s=1", "--metadata", &metadata];
    let run =
        Run::start(sandbox.incumbent([&arguments[..], &["--", "/bin/sh", "-c", &script]].concat()));
    let pid = run.pid().to_string();
    let marker = ["marker", "write", "note", "--pid", &pid, "--reason", &reason];
    sandbox.cli(marker).assert_code(0);
    sandbox.forge(&format!(
        "INSERT INTO runtime_status (instance_id, state, exit_reason, extra, writer, updated_at_ms)
         SELECT id, '{EVIL}', '{EVIL}', '{}', '{EVIL}', 1 FROM instances",
        json!({"x": EVIL})
    ));
    sandbox.forge(&format!(
        "INSERT INTO platform_status (instance_id, profile, platform, state, error_code,
            error_message, writer, updated_at_ms)
         SELECT id, profile, '{EVIL}', '{EVIL}', '{EVIL}', '{EVIL}', '{EVIL}', 1 FROM instances"
    ));
    sandbox.forge(&format!("UPDATE instances SET version = '{EVIL}', supervisor = '{EVIL}'"));
    sandbox.forge(&format!("UPDATE markers SET writer = '{EVIL}'"));
    let mut harmful = Vec::new();
    let mut look = |when: &str| {
        for verb in SURFACES.into_iter().chain([&["events"][..], &["--json", "events"]]) {
            let out = answer(&sandbox, verb);
            // JSON escapes what it has to escape: it is for programs.
            let is_json = verb.contains(&"--json");
            // The last one turns round the direction in which the rest is read.
            let is_bad =
                |c: char| c.is_ascii_control() || !is_json && (c.is_control() || c == '\u{202e}');
            if let Some(bad) = out.chars().find(|c| is_bad(*c) && *c != '\n') {
                harmful.push(format!("{when}: {verb:?}: {bad:?}"));
            }
            assert!(out.contains("default"), "{when}: {verb:?}: {out:?}");
        }
        if has("script") {
            for surface in [&["status"][..], &["status", "--all"]] {
                let shown = on_a_terminal(&sandbox, &[], surface);
                for evil in ["\u{1b}]", "\u{1b}[2J", "\u{9b}", "\u{7}", "\u{8}"] {
                    assert!(!shown.contains(evil), "{when}: {surface:?}: {shown:?}");
                }
            }
        } else {
            skipped("the half that needs script(1) of util-linux");
        }
    };
    look("alive");
    let refused = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    let bad = refused.err.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(bad, None, "{refused:#?}");
    run.end().assert_code(0);
    sandbox.forge(&format!("UPDATE instances SET ended_by = '{EVIL}', detail = '{EVIL}'"));
    look("dead");
    assert!(harmful.is_empty(), "{harmful:#?}");
}

// -- one answer --------------------------------------------------------------------------------

/// FIELD-BUGS rows 38, 39 and 63. Whoever asks changes nothing, whatever there is to be said.
#[test]
fn questions_write_nothing() {
    let sandbox = Sandbox::new();
    for verb in SURFACES {
        let code = sandbox.cli(verb).code();
        assert_eq!(code, if verb.contains(&"--all") { 0 } else { 3 }, "{verb:?}");
    }
    assert!(!sandbox.file("store").exists(), "a question made a store");

    let mut run = obeying(&sandbox, &["--lock", "scope=1"]);
    say(&sandbox, &mut run, AT_WORK);
    sandbox.cli(["desired", "running"]).assert_code(0);
    let ask_all = || {
        for verb in SURFACES {
            sandbox.cli(verb);
        }
        for verb in [&["events"][..], &["--json", "events"], &["status", "--profile", "other"]] {
            sandbox.cli(verb);
        }
        let store = Store::open_existing(sandbox.db()).unwrap().unwrap();
        store.status_of_all().unwrap();
        store.profile("default").unwrap().status().unwrap();
    };
    let rows = || {
        ["instances", "runtime_status", "platform_status", "serves", "events", "scoped_locks"]
            .map(|table| sandbox.json(["sql", &format!("SELECT * FROM {table}")]).1)
    };
    let before = rows();
    ask_all();
    assert_eq!(before, rows(), "with a live one");
    let command = run.command;
    run.kill();
    command.wait_gone(LIMIT);
    damage(&sandbox, "UPDATE runtime_status SET state = CAST(x'ff' AS TEXT), active_agents = -1");
    // Our own connection was the last one, and took SQLite's log away with it: the next one to come
    // makes it anew, whatever it came for.
    sandbox.status();
    let before = sandbox.picture();
    ask_all();
    let after = sandbox.picture();
    assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
    for (path, facts) in &before {
        assert!(*facts == after[path], "a question wrote to {}", path.display());
    }
}

/// What the clock and the machine say anew with each look.
fn without_what_moves(mut document: Value) -> Value {
    for key in ["evidence", "unresponsive_ms"] {
        document[key] = Value::Null;
    }
    document
}

/// FIELD-BUGS row 63.
///
/// Symptom: four surfaces, four answers. Cause: each had a probe of its own. It holds because one
/// function answers for all of them: what is true, what was said, what is wanted, what is held,
/// what was asked, and how the last one ended.
#[test]
fn every_surface_gives_the_same_answer() {
    let sandbox = Sandbox::new();
    obeying(&sandbox, &[]).process.finish(LIMIT).assert_code(0);
    let first = sandbox.history()[0].clone();
    let mut run = obeying(&sandbox, &["--lock", "scope=1", "--lock", "scope=2"]);
    say(&sandbox, &mut run, AT_WORK);
    say(&sandbox, &mut run, &["--extra", r#"{"a": 1}"#, "--exit-reason", "none yet"]);
    sandbox.cli(["desired", "stopped"]).assert_code(0);
    let pid = run.pid().to_string();
    sandbox.cli(["marker", "write", "note", "--pid", &pid, "--reason", "why"]).assert_code(0);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    for (pointer, value) in [
        ("/running", json!(true)),
        ("/pid", json!(run.pid())),
        ("/child_pid", json!(run.command.pid)),
        ("/state", json!("running")),
        ("/desired", json!("stopped")),
        ("/busy", json!(true)),
        ("/drainable", json!(true)),
        ("/stale", json!(false)),
        ("/unresponsive_ms", json!(null)),
        ("/serves", json!(["other"])),
        ("/served_by", json!(null)),
        ("/runtime/state", json!("running")),
        ("/runtime/active_agents", json!(3)),
        ("/runtime/extra", json!({"a": 1})),
        ("/runtime/exit_reason", json!("none yet")),
        ("/platforms/telegram/state", json!("connected")),
        ("/locks/0/scope", json!("scope")),
        ("/locks/1/scope", json!("scope")),
        ("/markers/0/name", json!("note")),
        ("/markers/0/reason", json!("why")),
        ("/last_end/reason", json!("exited")),
        ("/last_end/at", first["ended_at"].clone()),
        ("/evidence/anchor", json!("held")),
    ] {
        assert_eq!(status.pointer(pointer), Some(&value), "{pointer}: {status:#}");
    }
    let text = answer(&sandbox, &["status"]);
    for words in [
        "running, ",
        "3 agents at work",
        "telegram",
        "connected",
        "lock ",
        "asked ",
        "note by ",
        "desired ",
        "stopped",
        "last end ",
        "exited",
        "other",
        "none yet",
    ] {
        assert!(text.contains(words), "{words:?}: {text}");
    }
    assert_same_everywhere(&sandbox, "alive");
    let command = run.command;
    run.kill();
    command.wait_gone(LIMIT);
    assert_same_everywhere(&sandbox, "dead");
    sandbox.cli(["evict"]).assert_code(0);
    assert_same_everywhere(&sandbox, "ended");
    let status = sandbox.status().1;
    assert_eq!(status["desired"], "stopped", "{status:#}");
    assert_eq!(status["last_end"]["reason"], status["reason"], "{status:#}");
}

#[track_caller]
fn assert_same_everywhere(sandbox: &Sandbox, when: &str) {
    let expected = without_what_moves(sandbox.status().1);
    let of_default = |documents: Vec<Value>| {
        let found = documents.into_iter().find(|document| document["profile"] == "default");
        without_what_moves(found.unwrap())
    };
    let (_, all) = sandbox.json(["status", "--all"]);
    assert_eq!(of_default(all.as_array().unwrap().clone()), expected, "{when}: --all");
    let store = Store::open_existing(sandbox.db()).unwrap().unwrap();
    let profile = store.profile("default").unwrap();
    let report = profile.status().unwrap();
    assert_eq!(without_what_moves(report.to_json()), expected, "{when}: the library");
    let all = store.status_of_all().unwrap().iter().map(Report::to_json).collect();
    assert_eq!(of_default(all), expected, "{when}: the library, all of it");
    let running = profile.running_pid(&incumbent::Kind::default()).unwrap();
    assert_eq!(running, report.pid.filter(|_| report.running), "{when}");
    let up = if report.running { 1.0 } else { 0.0 };
    for surface in [&["status", "--metrics"][..], &["status", "--all", "--metrics"]] {
        let metrics = answer(sandbox, surface);
        assert_eq!(metric(&metrics, "incumbent_gateway_up", ""), Some(up), "{when}: {metrics}");
        let verdict = format!(",verdict=\"{}\"", report.verdict);
        assert_eq!(metric(&metrics, "incumbent_gateway_verdict", &verdict), Some(1.0), "{when}");
    }
    let text = answer(sandbox, &["status"]);
    let word = if report.running { "running" } else { "not running" };
    assert!(text.starts_with(&format!("default/gateway: {word}")), "{when}: {text}");
    let row = row_of_the_table(&answer(sandbox, &["status", "--all"]));
    let word = if report.running { "yes" } else { "no" };
    assert_eq!(row.split_whitespace().nth(2), Some(word), "{when}: {row}");
}
