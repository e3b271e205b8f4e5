//! `stop`: the owner is asked once, and told why.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{PATIENT, POLITE, terms};
use crate::support::{
    LIMIT, Process, Sandbox, Stat, eventually, kill, pid_namespace, rounds, skipped, wait_ended,
    wait_stopped,
};

/// FIELD-BUGS rows 54 and 84.
///
/// Symptom: a stop looked like a crash, or the gateway got a second TERM, took that for lost
/// patience and gave up its orderly end. A `run` learns of a stop twice, by its marker and by the
/// signal, in any order: it passes on one of them.
#[test]
fn a_stop_reaches_the_command_once_and_is_on_record_as_planned() {
    let sandbox = Sandbox::new();
    for round in 1..=rounds(12, 300) {
        let mut run = sandbox.patient(&[]);
        let (pid, instance) = (run.pid(), sandbox.status().1["instance"].clone());
        let stop = sandbox.begin(&["--json", "stop", "--reason", "new version"]);
        let stopper = stop.pid();
        assert_eq!(run.process.line(), "TERM");
        if round % 2 == 0 {
            // Several looks of the run later there is still one request.
            for _ in 0..3 {
                run.round_trip();
            }
            assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], pid);
        }
        run.let_end();
        let document = stop.finish(LIMIT).assert_code(0).json();
        let expected = json!({
            "profile": "default", "kind": "gateway", "stopped": true, "was_running": true,
            "pid": pid, "instance": instance, "killed": false, "still_runs": false,
            "served_by": null, "recorded": true, "not_recorded": null, "not_desired": null,
            "holder": null, "retry_after_ms": null, "starts_again": null, "reaped": [],
            "left_over": [],
        });
        assert_eq!(document, expected, "round {round}");
        let answer = run.ended().assert_code(0);
        assert_eq!(terms(&answer), 1, "round {round}: {answer:#?}");
        let end = sandbox.assert_planned(stopper);
        assert_eq!((&end["exit_code"], &end["signal"]), (&json!(7), &json!(15)), "{end:#}");
        sandbox.assert_status(3, "dead", "planned_stop");
    }
    // Nothing is left of it.
    assert_eq!(sandbox.number("SELECT count(*) FROM reservations"), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM open_markers"), 0);
}

/// The command itself learns from its marker who stops it and why; that it consumed the marker
/// changes nothing of how its end is told.
#[test]
fn the_command_reads_who_stops_it_and_why() {
    let sandbox = Sandbox::new();
    let script = "
        asked() {
            incumbent --json marker peek > peek.json; echo \"peek $?\"
            incumbent --json marker consume planned_stop > consume.json; echo \"consume $?\"
            incumbent marker consume > /dev/null; echo \"again $?\"
            kill -KILL $sleeper; exit 9
        }
        trap asked TERM
        incumbent marker peek; echo \"before $?\"
        sleep 1000 > /dev/null 2>&1 &
        sleeper=$!
        echo $$
        while :; do wait $sleeper; done";
    let mut process = sandbox.begin(&["run", "--no-backoff", "--", "/bin/sh", "-c", script]);
    assert_eq!(process.line(), "before 1");
    process.line();
    let stop = sandbox.begin(&["stop", "--reason", "for the test"]);
    let stopper = stop.pid();
    let told = stop.finish(LIMIT).assert_code(0);
    let text = format!("default/gateway: stopped, pid {} has ended\n", process.pid());
    assert_eq!((told.out.as_str(), told.err.as_str()), (text.as_str(), ""));
    let answer = process.finish_with_stdin_open(LIMIT).assert_code(0);
    assert!(answer.out.ends_with("peek 0\nconsume 0\nagain 1\n"), "{answer:#?}");
    for file in ["peek.json", "consume.json"] {
        let text = std::fs::read_to_string(sandbox.file(file)).unwrap();
        let marker: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(marker["name"], "planned_stop", "{marker:#}");
        assert_eq!(marker["reason"], "for the test", "{marker:#}");
        assert_eq!(marker["by_pid"], stopper, "{marker:#}");
        assert_eq!(marker["by_uid"], rustix::process::getuid().as_raw(), "{marker:#}");
    }
    assert_eq!(sandbox.assert_planned(stopper)["exit_code"], 9);
}

#[test]
fn a_linked_gateway_learns_that_it_is_stopped_on_purpose() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.linked_owner(30_000);
    let stop = sandbox.begin(&["--json", "stop"]);
    let stopper = stop.pid();
    let told = owner.err_line_with("=> TERM");
    let by = format!("planned_stop by incumbent stop (pid {stopper}");
    assert!(told.contains(&by), "{told}");
    assert!(told.ends_with("recorded: true"), "{told}");
    // It drains, and nobody else gets in meanwhile.
    let (code, refused) = sandbox.json(["run", "--no-backoff", "--", "true"]);
    assert_eq!((code, &refused["holder"]["pid"]), (75, &json!(owner.pid())), "{refused:#}");
    owner.say("release");
    let document = stop.finish(LIMIT).assert_code(0).json();
    assert_eq!((&document["pid"], &document["killed"]), (&json!(owner.pid()), &json!(false)));
    let answer = owner.finish(LIMIT).assert_code(0);
    assert_eq!(answer.err.matches("=> TERM").count(), 1, "{answer:#?}");
    sandbox.assert_planned(stopper);
}

/// A record for a process that knows nothing of us: the process gets the signal, its keeper goes
/// with it.
#[test]
fn a_claimed_process_is_stopped() {
    let sandbox = Sandbox::new();
    for option in ["", "--no-keeper"] {
        let script = format!("incumbent claim {option} > /dev/null || exit; {PATIENT}");
        let mut process = Process::start(sandbox.shell(&script));
        process.line();
        let stop = sandbox.begin(&["--json", "stop"]);
        let stopper = stop.pid();
        assert_eq!(process.line(), "TERM");
        kill(process.pid(), Signal::USR1);
        let document = stop.finish(LIMIT).assert_code(0).json();
        assert_eq!(document["pid"], process.pid(), "{document:#}");
        let answer = process.finish_with_stdin_open(LIMIT).assert_code(7);
        assert_eq!(terms(&answer), 1, "{answer:#?}");
        sandbox.assert_planned(stopper);
    }
    eventually("the keeper is gone", LIMIT, || sandbox.keepers().is_empty().then_some(()));
}

/// R:STOP. FIELD-BUGS row 20: a stopped owner cannot see a signal. It gets TERM, then CONT.
#[test]
fn a_stopped_owner_is_let_go_on_and_ends() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    let stop = sandbox.begin(&["stop"]);
    let stopper = stop.pid();
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(terms(&run.ended().assert_code(0)), 1);
    sandbox.assert_planned(stopper);

    let script = format!("incumbent claim > /dev/null || exit; {PATIENT}");
    let mut process = Process::start(sandbox.shell(&script));
    process.line();
    process.signal(Signal::STOP);
    wait_stopped(process.pid());
    let stop = sandbox.begin(&["stop"]);
    let stopper = stop.pid();
    assert_eq!(process.line(), "TERM");
    kill(process.pid(), Signal::USR1);
    stop.finish(LIMIT).assert_code(0);
    process.finish_with_stdin_open(LIMIT).assert_code(7);
    sandbox.assert_planned(stopper);
}

/// The same for the command of a run.
#[test]
fn a_stopped_command_is_let_go_on_and_ends() {
    let sandbox = Sandbox::new();
    for verb in [&["stop"][..], &["run", "--no-backoff", "--replace", "--", "true"]] {
        let mut run = sandbox.patient(&[]);
        kill(run.command.pid, Signal::STOP);
        wait_stopped(run.command.pid);
        let ending = sandbox.begin(verb);
        assert_eq!(run.process.line(), "TERM");
        run.let_end();
        ending.finish(LIMIT).assert_code(0);
        assert_eq!(terms(&run.ended().assert_code(0)), 1);
    }
}

/// R:KILL and R:ZOMBIE: where nobody runs there is nothing to stop, and a crash stays a crash on
/// record.
#[test]
fn where_nobody_runs_there_is_nothing_to_stop() {
    let sandbox = Sandbox::new();
    let is_stopped = |sandbox: &Sandbox, what: &str| {
        let (code, document) = sandbox.json(["stop"]);
        let facts = ["stopped", "was_running", "killed"].map(|key| document[key].clone());
        assert_eq!((code, facts), (0, [json!(true), json!(false), json!(false)]), "{what}");
        assert!(document["pid"].is_null(), "{what}: {document:#}");
        let answer = sandbox.cli(["stop"]).assert_code(0);
        assert_eq!(answer.out, "default/gateway: not running\n", "{what}");
    };
    is_stopped(&sandbox, "without a store");
    assert!(!sandbox.file("store").exists(), "a stop of nobody made a store");

    let mut run = sandbox.hold(&[]);
    // Not collected: a zombie.
    kill(run.pid(), Signal::KILL);
    assert!(wait_ended(run.pid(), LIMIT));
    assert_eq!(Stat::of(run.pid()).unwrap().state, 'Z', "nobody collected it");
    // Its command ends a moment after it, and would be what is stopped.
    run.command.wait_gone(LIMIT);
    is_stopped(&sandbox, "a zombie");
    assert_eq!(sandbox.history()[0]["end_reason"], "anchor_released");
    run.kill();
    is_stopped(&sandbox, "one that is gone");

    for round in 1..=rounds(10, 200) {
        let run = sandbox.hold(&[]);
        let stop = sandbox.incumbent(["stop"]);
        kill(run.pid(), Signal::KILL);
        let is_gone = round % 2 == 0;
        if is_gone {
            assert!(wait_ended(run.pid(), LIMIT));
            run.command.wait_gone(LIMIT);
        }
        Process::start(stop).finish(LIMIT).assert_code(0);
        assert_eq!(sandbox.status().0, 3);
        let end = sandbox.history().swap_remove(0);
        let reason = end["end_reason"].as_str().unwrap();
        // One that is still on its way out was alive when it was asked to end.
        let is_told = reason == "anchor_released" || !is_gone && reason == "planned_stop";
        assert!(is_told, "round {round}: {end:#}");
    }
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    is_stopped(&sandbox, "one that ended by itself");
}

/// `stop` calls itself where it is called: in the very gateway, of which it is a child. Nobody
/// signals its own ancestor; the `run` obeys the marker.
#[test]
fn a_stop_that_the_command_itself_asks_for() {
    let sandbox = Sandbox::new();
    // In the background of a shell that handles TERM, and in the foreground of one that does not.
    let background = format!("incumbent --json stop > stop.json 2> stop.err & {PATIENT}");
    let mut run = sandbox.begin(&["run", "--no-backoff", "--", "/bin/sh", "-c", &background]);
    let command = run.line().parse::<u32>().unwrap();
    assert_eq!(run.line(), "TERM");
    kill(command, Signal::USR1);
    let answer = run.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    let document: Value = eventually("the answer of the stop", LIMIT, || {
        serde_json::from_str(&std::fs::read_to_string(sandbox.file("stop.json")).ok()?).ok()
    });
    assert_eq!(document["stopped"], true, "{document:#}");
    assert_eq!(std::fs::read_to_string(sandbox.file("stop.err")).unwrap(), "");
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");

    let foreground = "incumbent stop > stop.txt 2>&1; echo \"never\"";
    let run = sandbox.begin(&["run", "--no-backoff", "--", "/bin/sh", "-c", foreground]);
    let answer = run.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_eq!(answer.out, "", "{answer:#?}");
    eventually("the stop is done", LIMIT, || {
        let said = std::fs::read_to_string(sandbox.file("stop.txt")).unwrap();
        said.contains("has ended").then_some(())
    });
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");
}

/// R:PIDNS. In another pid namespace no signal reaches the owner: a `run` obeys its marker alone,
/// in both directions.
#[test]
fn a_run_in_another_pid_namespace_obeys_the_marker_alone() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let stop = sandbox.in_namespace(namespace, "incumbent --json stop; exit $?");
    assert_eq!(run.process.line(), "TERM");
    for _ in 0..3 {
        run.round_trip();
    }
    run.let_end();
    let document = stop.finish(LIMIT).assert_code(0).json();
    assert_eq!(document["stopped"], true, "{document:#}");
    assert_eq!(terms(&run.ended().assert_code(0)), 1);
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");

    let script = "incumbent run --no-backoff -- /bin/sh -c \"$COMMAND\"; echo \"code $?\"";
    let mut command = sandbox.within(namespace);
    command.args(["/bin/sh", "-c", script]);
    let polite = POLITE.replace("$1", "0").replace("kill", "echo TERM; kill");
    command.env("COMMAND", polite);
    let mut container = Process::start(command);
    container.line();
    let stop = sandbox.begin(&["--json", "stop"]);
    let stopper = stop.pid();
    stop.finish(LIMIT).assert_code(0);
    let answer = container.finish_with_stdin_open(LIMIT).assert_code(0);
    assert!(answer.out.ends_with("\nTERM\ncode 0\n"), "{answer:#?}");
    assert_eq!(terms(&answer), 1);
    sandbox.assert_planned(stopper);
}
