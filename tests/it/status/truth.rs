//! What is true is asked of the kernel; what was said is shown as what was said.

use incumbent::{OpenOptions, Store};
use serde_json::{Value, json};

use super::set::{claimed, obeying, say, write_for};
use super::{AT_WORK, row_of_the_table, shown_by};
use crate::status::set::damage::damage;
use crate::support::{LIMIT, Run, Sandbox, bystander, unix_ms};

/// The value of a metric of the default office; `None` when there is no such sample.
pub fn metric(text: &str, name: &str, labels: &str) -> Option<f64> {
    let wanted = format!("{name}{{profile=\"default\",kind=\"gateway\"{labels}}} ");
    text.lines().find_map(|line| line.strip_prefix(&wanted)).map(|value| value.parse().unwrap())
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
    for document in [&status, &all, &json!(report)] {
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
    let row = row_of_the_table(&shown_by(sandbox, &["status", "--all"]));
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..3], ["default", "gateway", "no"], "{when}: {row}");
    assert!(!row.contains("running") && !row.contains("ok"), "{when}: {row}");
    for surface in [&["status", "--metrics"][..], &["status", "--all", "--metrics"]] {
        let metrics = shown_by(sandbox, surface);
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
    let sandbox = Sandbox::new();
    let Some(answer) = sandbox.choosing_pids(SCRIPT) else { return };
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
        let text = shown_by(&sandbox, &["status"]);
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("default/gateway: running, pid "), "{age_ms}: {text}");
        assert!(!first.contains("stale") && !text.contains("not running"), "{age_ms}: {text}");
        assert!(text.contains("; said "), "its age is shown: {text}");
        let row = row_of_the_table(&shown_by(&sandbox, &["status", "--all"]));
        assert!(row.contains(" yes ") && row.contains("1 of 1 ok"), "{age_ms}: {row}");
        let metrics = shown_by(&sandbox, &["status", "--metrics"]);
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
        let told = "default/gateway: not running, its last start failed (crashed: exit code 1, ";
        assert!(text.starts_with(told), "{round}: {text}");
        for word in ["no token was given", "E401"] {
            assert!(text.contains(word), "{round}: {word}: {text}");
        }
        let row = row_of_the_table(&shown_by(&sandbox, &["status", "--all"]));
        assert!(row.contains(" startup_failed "), "{round}: {row}");
        let metrics = shown_by(&sandbox, &["status", "--all", "--metrics"]);
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
        let told = "default/gateway: not running (ended: exit code 0, ";
        assert!(answer.out.starts_with(told), "{round}: {}", answer.out);
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
                assert_eq!(report.verdict.as_str(), verdict, "{what}");
                assert_eq!(report.running, verdict == "alive", "{what}");
                let drainable = verdict == "alive" && state == Some("running");
                let busy = drainable && agents.is_some_and(|agents| agents > 0);
                assert_eq!((report.drainable(), report.busy()), (drainable, busy), "{what}");
                let outlives = matches!(state, Some("stopped" | "startup_failed"));
                let still = state.filter(|_| verdict != "dead" || outlives);
                assert_eq!(report.state.as_deref(), still, "{what}");
                let document = json!(report);
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
