//! Hints of a verb that found something else than it was asked for.

use rustix::process::Signal;

use super::{hint, paste, printed, say_in};
use crate::support::older::Older;
use crate::support::{
    LIMIT, Process, Run, START, Sandbox, eventually, has, kill, skipped, sleeper,
};

/// A store that is not there: it is said, and a start makes it.
#[test]
pub(super) fn run() {
    let sandbox = Sandbox::new();
    let ask = || sandbox.cli(["--db", "place/x.db", "status"]).assert_code(3);
    let told = ask();
    assert!(told.err.contains("there is no store at place/x.db"), "{told:#?}");
    let command = hint(&told, "run");
    let start = command.strip_suffix("-- CMD").unwrap().to_owned() + "-- true";
    paste(&sandbox, &start).assert_code(0);
    assert!(!ask().err.contains("there is no store"));
    assert!(!sandbox.db().exists(), "another store was made");
}

#[test]
pub(super) fn claim() {
    let sandbox = Sandbox::new();
    let ask = || sandbox.cli(["--db", "place/x.db", "--profile", "work", "history"]);
    let told = ask().assert_code(0);
    paste(&sandbox, &hint(&told, "claim")).assert_code(0);
    let told = ask().assert_code(0);
    assert!(printed(&told).is_empty() && told.out.contains("pid "), "{told:#?}");
}

/// A topic that is no verb.
#[test]
pub(super) fn help() {
    let sandbox = Sandbox::new();
    let told = sandbox.cli(["help", "tenure"]).assert_code(2);
    let commands = printed(&told);
    assert_eq!(commands.len(), 2, "{told:#?}");
    for (command, words) in commands.iter().zip(["status-set", "fence "]) {
        let helped = paste(&sandbox, command).assert_code(0);
        assert!(helped.out.contains(words), "{command}: {helped:#?}");
    }
}

/// Symptom: after a typing error in `--db` a gateway that ran was "not running". The usual store is
/// named, where there is one; in JSON, too, the words are on standard error.
#[test]
fn a_wrong_path_of_the_store_is_said() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    for words in [
        &["status"][..],
        &["--json", "status"],
        &["locks"],
        &["history"],
        &["stop"],
        &["restart"],
        &["marker", "peek"],
        &["lock", "verify", "s", "i"],
        &["status", "--pid", "1"],
        &["wait", "--timeout", "0"],
        &["sql", "SELECT 1"],
        &["backup", "copy.db"],
        &["export", "out"],
    ] {
        let told = sandbox.cli([&["--db", "stor/state.db"], words].concat());
        assert!(told.err.contains("no store at "), "{words:?}: {told:#?}");
        assert!(told.err.contains("status --all`"), "{words:?}: {told:#?}");
        // A start would make a second store there.
        assert!(!format!("{}{}", told.out, told.err).contains(" run "), "{words:?}: {told:#?}");
        assert!(!sandbox.file("stor").exists(), "{words:?} made it");
    }
    let told = sandbox.cli(["--db", "stor/state.db", "status"]).assert_code(3);
    let all = paste(&sandbox, &hint(&told, "status --all")).assert_code(0);
    assert!(all.out.contains(&run.pid().to_string()), "{all:#?}");
    // A probe fails.
    let told = sandbox.cli(["--db", "stor/state.db", "doctor"]).assert_code(1);
    assert!(told.out.starts_with("warning path: there is no store at "), "{told:#?}");
    run.end().assert_code(0);
}

/// Symptom: `run --wait 5s -- true` ran `5s`.
#[test]
fn a_value_needs_its_equals_sign() {
    let sandbox = Sandbox::new();
    let told = sandbox.cli(["run", "--no-backoff", "--wait", "5s", "--", "true"]).assert_code(127);
    told.assert_complains(&["5s", "write `--wait=5s`"]);
}

/// A script that speaks for an office that it does not hold.
/// Symptom: what the log of a gateway advised stopped another one. The environment that its `run`
/// had made for it is in nobody's shell.
#[test]
fn what_a_run_has_set_is_in_the_hint() {
    let sandbox = Sandbox::new();
    let default = sandbox.hold(&[]);
    let work = sandbox.hold(&["--profile", "work"]);
    let refused = sandbox.ask_in(&work, &["signal", "TERM"]).assert_code(2);
    let mut pasted = sandbox.shell(&hint(&refused, "stop"));
    pasted.env_remove("INCUMBENT_DB");
    Process::start(pasted).finish(LIMIT).assert_code(0);
    drop(work.process.finish_with_stdin_open(LIMIT));
    default.end().assert_code(0);
}

#[test]
pub(super) fn claim_of_a_script() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    let mut script = Process::start(sandbox.program("/bin/sh"));
    let speak = "incumbent status-set --state running";
    let told = say_in(&mut script, &sandbox, speak).assert_code(1);
    say_in(&mut script, &sandbox, &hint(&told, "claim --pid")).assert_code(0);
    say_in(&mut script, &sandbox, speak).assert_code(0);
    assert_eq!(sandbox.status().1["state"], "running");
}

#[test]
pub(super) fn desired() {
    let sandbox = Sandbox::new();
    sandbox.cli(["--profile", "work", "desired", "stopped"]).assert_code(0);
    let start = ["--profile", "work", "run", "--no-backoff", "--respect-desired", "touch", "begun"];
    let told = sandbox.cli(start);
    assert!(!sandbox.file("begun").exists(), "{told:#?}");
    paste(&sandbox, &hint(&told, "desired")).assert_code(0);
    sandbox.cli(start).assert_code(0);
    assert!(sandbox.file("begun").exists());
}

#[test]
pub(super) fn status() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    let told = sandbox.cli(["wait", "--timeout", "0"]).assert_code(1);
    let status = paste(&sandbox, &hint(&told, "status")).assert_code(3);
    assert!(status.out.contains("default/gateway"), "{status:#?}");
}

#[test]
pub(super) fn wait_with_more_time() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    let told = sandbox.cli(["wait", "--state", "up now", "--timeout", "0"]).assert_code(1);
    let command = hint(&told, "wait");
    assert!(command.contains("--state 'up now'"), "{command}");
    // It comes in that time.
    let run = sandbox.hold_with(&[
        "/bin/sh",
        "-c",
        "incumbent status-set --state 'up now' > /dev/null; echo $$; exec cat",
    ]);
    paste(&sandbox, &command).assert_code(0);
    run.end().assert_code(0);
}

/// A holder that serves no restart, and one that withdrew it.
#[test]
pub(super) fn events() {
    let sandbox = Sandbox::new();
    let owner = sleeper(&sandbox);
    let pid = owner.pid().to_string();
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    let restart = Process::start(sandbox.incumbent(["restart"]));
    eventually("the request", LIMIT, || {
        (sandbox.cli(["marker", "peek", "restart", "--pid", &pid]).code() == 0).then_some(())
    });
    sandbox.cli(["marker", "clear", "restart", "--pid", &pid]).assert_code(0);
    let told = restart.finish(LIMIT).assert_code(75);
    let events = paste(&sandbox, &hint(&told, "events")).assert_code(0);
    assert!(events.out.contains("marker_cleared"), "{events:#?}");
}

#[test]
pub(super) fn restart_with_more_time() {
    let sandbox = Sandbox::new();
    let owner = sleeper(&sandbox);
    let pid = owner.pid().to_string();
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    let told = sandbox.cli(["restart", "--timeout", "1s"]).assert_code(75);
    let command = hint(&told, "restart --timeout");
    assert!(command.contains("--timeout 2s"), "{command}");
    // Even longer: the machine may be busy.
    let command = command.replace("2s", "10min");
    let mut again = Process::start(sandbox.shell(&command));
    // The holder looks now and then, as one that serves it does.
    while !again.has_ended() {
        sandbox.cli(["marker", "consume", "restart", "--pid", &pid]);
    }
    again.finish(LIMIT).assert_code(0);
}

#[test]
pub(super) fn release_of_another() {
    let sandbox = Sandbox::new();
    let (owner, other) = (sleeper(&sandbox), sleeper(&sandbox));
    let [one, two] = [&owner, &other].map(|process| process.pid().to_string());
    sandbox.cli(["--profile", "work", "claim", "--pid", &one]).assert_code(0);
    let told = sandbox.cli(["--profile", "work", "release", "--pid", &two]).assert_code(1);
    paste(&sandbox, &hint(&told, "release --pid")).assert_code(0);
    sandbox.cli(["--profile", "work", "status"]).assert_code(3);
}

#[test]
pub(super) fn locks() {
    let sandbox = Sandbox::new();
    let owner = sleeper(&sandbox);
    let pid = owner.pid().to_string();
    sandbox.cli(["lock", "acquire", "s", "mine", "--pid", &pid]).assert_code(0);
    let told = sandbox.cli(["unlock", "s", "--hash", "mine"]).assert_code(2);
    let locks = paste(&sandbox, &hint(&told, "locks")).assert_code(0);
    let hash = sandbox.json(["locks"]).1[0]["identity_hash"].as_str().unwrap().to_owned();
    assert!(locks.out.contains(&hash), "{locks:#?}");
    sandbox.cli(["unlock", "s", "--hash", &hash, "--force"]).assert_code(0);
}

#[test]
pub(super) fn stop_by_force() {
    let sandbox = Sandbox::new();
    // It ignores TERM.
    let mut run = sandbox.patient(&["--stop-budget", "2s"]);
    let told = sandbox.cli(["stop", "--timeout", "0"]).assert_code(1);
    paste(&sandbox, &hint(&told, "stop --force")).assert_code(0);
    run.process.wait(LIMIT);
    assert!(run.command.is_gone());
}

#[test]
pub(super) fn stop_with_more_time() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "1h"]);
    let told = sandbox.cli(["stop", "--timeout", "0"]).assert_code(1);
    let command = hint(&told, "stop --timeout");
    // Its time, and not that of the gateway.
    assert!(command.contains("--timeout 2s"), "{command}");
    paste(&sandbox, &command).assert_code(1);
    // It ends in that time, or in a longer one: the machine may be busy.
    let again = Process::start(sandbox.shell(&command.replace("2s", "10min")));
    kill(run.command.pid, Signal::USR1);
    again.finish(LIMIT).assert_code(0);
    run.command.wait_gone(LIMIT);
    run.process.wait(LIMIT);
    sandbox.assert_status(3, "dead", "planned_stop");
}

/// A supervisor starts it again.
#[test]
pub(super) fn stop_for_good() {
    if !has("runsv") {
        return skipped("needs runit");
    }
    let sandbox = Sandbox::new();
    let start = "incumbent run --no-backoff --respect-desired -- sleep 1000";
    sandbox.write_script("gw/run", format!("#!/bin/sh\necho start >> started\nexec {start}\n"));
    let mut command = sandbox.program("runsv");
    command.arg(sandbox.file("gw"));
    let supervisor = Process::start(command);
    let runs = || sandbox.status().0 == 0;
    eventually("it runs", LIMIT, || runs().then_some(()));
    let told = sandbox.cli(["stop"]).assert_code(0);
    eventually("it runs again", LIMIT, || runs().then_some(()));
    paste(&sandbox, &hint(&told, "stop --desired")).assert_code(0);
    let starts = || std::fs::read_to_string(sandbox.file("gw/started")).unwrap().lines().count();
    let before = starts();
    eventually("further starts", LIMIT, || (starts() > before + 1).then_some(()));
    assert!(!runs(), "it was started again");
    drop(supervisor);
}

/// A gateway of two profiles, asked for the second one.
#[test]
pub(super) fn signal() {
    let sandbox = Sandbox::new();
    let script = "incumbent status-set --serves b > /dev/null; echo $$; exec cat";
    let words = ["--profile", "a", "run", "--no-backoff", "--", "/bin/sh", "-c", script];
    let run = Run::start(sandbox.incumbent(words));
    let told = sandbox.cli(["--profile", "b", "signal", "WINCH"]).assert_code(1);
    paste(&sandbox, &hint(&told, "signal")).assert_code(0);
    assert_eq!(sandbox.number("SELECT count(*) FROM events WHERE event = 'signal_sent'"), 1);
    // The same of a restart, and of a stop.
    let told = sandbox.cli(["--profile", "b", "restart"]).assert_code(1);
    paste(&sandbox, &hint(&told, "restart")).assert_code(0);
    drop(run);
}

/// A command of a `run` that speaks for a profile which it has not said that it serves.
#[test]
pub(super) fn status_set_serves() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", "echo $$; exec sh"]);
    let speak = "incumbent status-set --profile b --platform p --platform-state connected";
    let told = say_in(&mut run.process, &sandbox, speak).assert_code(1);
    say_in(&mut run.process, &sandbox, &hint(&told, "status-set --serves")).assert_code(0);
    say_in(&mut run.process, &sandbox, speak).assert_code(0);
    let (_, status) = sandbox.json(["--profile", "b", "status"]);
    assert_eq!(status["platforms"]["p"]["state"], "connected", "{status:#}");
    run.end().assert_code(0);
}

/// A gateway that names a new platform each time.
#[test]
pub(super) fn status_set_clear() {
    const PLATFORMS_MAX: i64 = 256;
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    let mut script = Process::start(sandbox.program("/bin/sh"));
    say_in(&mut script, &sandbox, "incumbent claim --pid $$").assert_code(0);
    let one = "incumbent status-set --platform first --platform-state x";
    say_in(&mut script, &sandbox, one).assert_code(0);
    sandbox.forge(&format!(
        "WITH RECURSIVE n (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < {PLATFORMS_MAX})
         INSERT INTO platform_status (instance_id, profile, platform, updated_at_ms)
         SELECT instance_id, profile, 'p' || n, updated_at_ms FROM platform_status, n"
    ));
    let next = "incumbent status-set --platform next --platform-state x";
    let told = say_in(&mut script, &sandbox, next).assert_code(2);
    say_in(&mut script, &sandbox, &hint(&told, "status-set --clear")).assert_code(0);
    say_in(&mut script, &sandbox, next).assert_code(0);
}

/// A directory of an older program that was forgotten by mistake: its gateway lives.
#[track_caller]
fn forgotten(kind: &str) {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    let gateway = older.gateway();
    older.refused();
    let told = sandbox.cli(["evict", "--force"]).assert_code(0);
    sandbox.cli(START).assert_code(0);
    let command = hint(&told, kind).replace("-- CMD", "-- true");
    let code = paste(&sandbox, &command).code();
    // An import says that it lives; a start is refused.
    assert_eq!(code, if kind == "import" { 0 } else { 75 }, "{command}");
    sandbox.cli(START).assert_code(75);
    drop(gateway);
}

#[test]
pub(super) fn import() {
    forgotten("import");
}

#[test]
pub(super) fn run_for_a_directory() {
    forgotten("run --legacy-home");
}
