//! `stop` and `desired`, and what a supervisor is told: whoever is stopped on purpose knows it, is
//! asked once, and is taken for a crash by nobody.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use incumbent::{Claim, ClaimOptions, MarkerName, StopCause, Store};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Answer, BINARY, Disk, HOLDING, Identity, LIMIT, Process, Run, SOON, Sandbox, Stat,
    another_user, assert_within, eventually, kill, order, pid_namespace, plays, read_only_store,
    role_db, rounds, skipped, test_name, wait_ended, wait_stopped, writer,
};

/// Says each TERM and each WINCH, and ends with code 7 when it gets USR1.
pub const PATIENT: &str = "
    trap 'echo TERM' TERM; trap 'echo WINCH' WINCH; trap 'kill -KILL $sleeper; exit 7' USR1
    sleep 1000 > /dev/null 2>&1 &
    sleeper=$!
    echo $$
    while :; do wait $sleeper; done";

/// The same for a command that ends at its first TERM, with the code that its first argument names.
const POLITE: &str = "
    trap 'kill -KILL $sleeper; exit $1' TERM
    sleep 1000 > /dev/null 2>&1 &
    sleeper=$!
    echo $$
    while :; do wait $sleeper; done";

impl Sandbox {
    /// A run of [`PATIENT`].
    #[track_caller]
    pub fn patient(&self, options: &[&str]) -> Run {
        Run::start(self.incumbent(
            [&["run", "--no-backoff"], options, &["--", "/bin/sh", "-c", PATIENT]].concat(),
        ))
    }

    /// A run of [`POLITE`].
    #[track_caller]
    pub fn polite(&self, code: &str, options: &[&str]) -> Run {
        let command = ["--", "/bin/sh", "-c", POLITE, "sh", code];
        Run::start(self.incumbent([&["run", "--no-backoff"], options, &command].concat()))
    }

    /// Starts a verb, and does not wait for it.
    pub fn begin(&self, verb: &[&str]) -> Process {
        Process::start(self.incumbent(verb))
    }

    /// An owner that links the library, see [`role_of_an_owner`].
    #[track_caller]
    pub fn linked_owner(&self, budget_ms: u64) -> Process {
        let mut command = self.role_command(ROLE_TEST, OWNER);
        command.env(BUDGET_MS, budget_ms.to_string());
        let mut owner = Process::start(command);
        owner.err_line_with("=> owns");
        owner
    }

    #[track_caller]
    fn assert_planned(&self, stopper: u32) -> Value {
        let end = self.history().swap_remove(0);
        assert_eq!(end["end_reason"], "planned_stop", "{end:#}");
        let by = end["ended_by"].as_str().unwrap_or_default();
        assert!(by.contains(&format!("pid {stopper}")), "{end:#}");
        end
    }
}

/// How often the command of a run, or anybody, said `TERM`.
pub fn terms(answer: &Answer) -> usize {
    answer.out.lines().filter(|line| *line == "TERM").count()
}

impl Run {
    /// Lets the command of a patient run end.
    pub fn let_end(&self) {
        kill(self.command.pid, Signal::USR1);
    }

    /// Sends the run a signal that its command says: what was before it has been handled by then.
    /// Of several at once the lower number comes first, and this one has a high one.
    #[track_caller]
    pub fn round_trip(&mut self) {
        self.process.signal(Signal::WINCH);
        self.process.line_with("WINCH");
    }

    /// Time in which the run has every opportunity to do what it should not.
    #[track_caller]
    pub fn let_time_pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.round_trip();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    pub fn ended(self) -> Answer {
        self.process.finish_with_stdin_open(LIMIT)
    }
}

pub const ROLE_TEST: &str = test_name!(role_of_an_owner);
pub const OWNER: &str = "owner";
/// The stop budget that it publishes.
const BUDGET_MS: &str = "IT_BUDGET_MS";

/// Plays a gateway: asks why, whenever it gets a TERM, and lets go only when it is told to.
#[test]
fn role_of_an_owner() {
    if !plays(OWNER) {
        return;
    }
    let budget: u64 = std::env::var(BUDGET_MS).map_or(90_000, |ms| ms.parse().unwrap());
    let profile = Store::open(role_db()).unwrap().profile("default").unwrap();
    let options = ClaimOptions::new().stop_budget(Duration::from_millis(budget));
    let Claim::Granted(tenure) = profile.claim_with(&options).unwrap() else { panic!("held") };
    let inquiry = tenure.stop_inquiry();
    let mut signals = signal_hook::iterator::Signals::new([15]).unwrap();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let answer = inquiry.ask();
            let cause = match answer.cause {
                StopCause::PlannedStop(marker) => format!("planned_stop by {}", marker.by),
                StopCause::TakenOver(marker) => format!("takeover by {}", marker.by),
                StopCause::Unplanned => "unplanned".to_owned(),
                other => format!("{other:?}"),
            };
            eprintln!("=> TERM: {cause}; recorded: {}", answer.recorded);
        }
    });
    eprintln!("=> owns {}", tenure.instance());
    while let Some(order) = order() {
        match order.as_str() {
            "look" => {
                let name = MarkerName::restart();
                let found = tenure.consume_marker(Some(&name)).unwrap();
                eprintln!("=> {}", found.map_or_else(|| "none".to_owned(), |it| it.marker.by));
            }
            "again" => {
                use std::os::unix::process::CommandExt;
                let error = Command::new(std::env::current_exe().unwrap())
                    .args(std::env::args_os().skip(1))
                    .exec();
                panic!("{error}");
            }
            "release" => break,
            other => panic!("{other}"),
        }
    }
    tenure.release().unwrap();
    eprintln!("=> released");
}

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
            "holder": null, "retry_after_ms": null,
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

#[test]
fn without_force_an_owner_lives_on_after_the_time_to_wait() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    let before = sandbox.status().1;
    let asked = Instant::now();
    let (code, document) = sandbox.json(["stop", "--timeout", "200ms"]);
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert_within(Duration::from_millis(200) + SOON, took, "giving up");
    assert_eq!((code, &document["stopped"]), (1, &json!(false)), "{document:#}");
    assert_eq!(document["holder"]["pid"], run.pid(), "{document:#}");
    assert_eq!((&document["killed"], &document["recorded"]), (&json!(false), &json!(true)));
    assert_eq!(run.process.line(), "TERM");
    // Nor does the run kill it when its stop budget is over: whoever wants that says `--force`.
    let answer = sandbox.cli(["stop"]).assert_code(1);
    answer.assert_complains(&["still running", "has not ended in its time", "--force"]);
    run.let_time_pass(Duration::from_millis(800));
    let after = sandbox.assert_status(0, "alive", "anchor_held");
    for fact in ["pid", "child_pid", "instance"] {
        assert_eq!(after[fact], before[fact], "{after:#}");
    }
    // Two stops that asked in turn: two requests.
    run.let_end();
    let answer = run.ended().assert_code(0);
    assert!(!answer.err.contains("killing"), "{answer:#?}");
    assert_eq!(terms(&answer), 2, "{answer:#?}");
}

/// FIELD-BUGS row 48. An owner that ignores TERM is killed when its time is over: the command first,
/// so that its `run` can record how it ended, and exit as after any other planned stop.
#[test]
fn with_force_an_owner_that_ignores_term_is_gone_the_command_first() {
    let sandbox = Sandbox::new();
    let run = sandbox.patient(&[]);
    let command = run.command;
    let stop = sandbox.begin(&["--json", "stop", "--force", "--timeout", "300ms"]);
    let stopper = stop.pid();
    let document = stop.finish(LIMIT).assert_code(0).json();
    assert_eq!((&document["stopped"], &document["killed"]), (&json!(true), &json!(true)));
    assert!(command.is_gone());
    let answer = run.ended().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    sandbox.assert_planned(stopper);

    // Without --timeout it is the time that the owner published.
    let mut owner = sandbox.linked_owner(300);
    let stop = sandbox.begin(&["stop", "--force"]);
    let stopper = stop.pid();
    let told = stop.finish(LIMIT).assert_code(0);
    assert!(told.out.contains(&format!("pid {} had to be killed", owner.pid())), "{told:#?}");
    assert_eq!(crate::support::exit_code(owner.wait(LIMIT)), 137);
    sandbox.assert_planned(stopper);
}

/// FIELD-BUGS row 48. Symptom: killed after 3, 5 or 10 s in the middle of an orderly end, and the
/// database malformed days later. It holds because the owner publishes how long it may take.
#[test]
fn a_drain_within_the_published_budget_is_not_cut_short_by_force() {
    let sandbox = Sandbox::new();
    let script = "trap 'sleep 3; echo drained; kill -KILL $sleeper; exit 0' TERM
        sleep 1000 > /dev/null 2>&1 & sleeper=$!; echo $$; while :; do wait $sleeper; done";
    let arguments = ["run", "--no-backoff", "--stop-budget", "10s", "--", "/bin/sh", "-c", script];
    let run = Run::start(sandbox.incumbent(arguments));
    let document =
        sandbox.begin(&["--json", "stop", "--force"]).finish(LIMIT).assert_code(0).json();
    assert_eq!(document["killed"], false, "{document:#}");
    let answer = run.ended().assert_code(0);
    assert!(answer.out.contains("drained\n"), "{answer:#?}");
}

/// Whoever cannot be signalled can only be waited for, and that has its bound as well: the one that
/// was asked for.
#[test]
fn the_time_to_wait_holds_also_where_no_signal_is_sent() {
    let sandbox = Sandbox::new();
    let owner = sandbox.linked_owner(90_000);
    sandbox.forge(
        "UPDATE instances SET start_time = NULL, start_time_unit = NULL, process_inode = NULL",
    );
    let asked = Instant::now();
    let answer = sandbox.cli(["stop", "--timeout", "500ms"]).assert_code(1);
    assert_within(Duration::from_millis(500) + SOON, asked.elapsed(), "giving up");
    answer.assert_complains(&["cannot be signalled", "start time is not known"]);
    let answer = owner.finish(LIMIT).assert_code(0);
    assert!(!answer.err.contains("TERM"), "{answer:#?}");
}

/// FIELD-BUGS row 77. Symptom: with the store locked or full nobody could be stopped any more. It
/// says that it could not write that down, and stops all the same.
#[test]
fn a_stop_behind_a_stopped_writer_stops_and_says_what_it_could_not_record() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.linked_owner(30_000);
    let writer = writer(&sandbox);
    writer.signal(Signal::STOP);
    wait_stopped(writer.pid());
    let stop = sandbox.begin(&["--json", "stop"]);
    let told = owner.err_line_with("=> TERM");
    assert!(told.contains("unplanned"), "{told}");
    kill(owner.pid(), Signal::KILL);
    let document = stop.finish(LIMIT).assert_code(0).json();
    let facts = ["stopped", "was_running", "recorded"].map(|key| document[key].clone());
    assert_eq!(facts, [json!(true), json!(true), json!(false)], "{document:#}");
    let why = document["not_recorded"].as_str().unwrap();
    assert!(why.contains(&format!("pid {}", writer.pid())), "{why}");
    owner.kill();

    let said = sandbox.cli(["stop"]).assert_code(0);
    said.assert_complains(&["could not be recorded", "take it for a crash"]);
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// R:FULL. FIELD-BUGS row 78.
#[test]
fn a_stop_on_a_full_disk_stops_and_says_what_it_could_not_record() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "600k") else { return };
    let mut owner = disk.role(ROLE_TEST, OWNER);
    owner.err_line_with("=> owns");
    disk.fill_up();
    let answer = disk.cli(&["--json", "stop", "--timeout", "200ms"]);
    let document = answer.json();
    assert_eq!((answer.code(), &document["recorded"]), (1, &json!(false)), "{document:#}");
    assert!(owner.err_line_with("=> TERM").contains("unplanned"));
    let answer = disk.cli(&["--json", "stop", "--timeout", "200ms", "--force"]).assert_code(0);
    let document = answer.json();
    assert_eq!((&document["killed"], &document["recorded"]), (&json!(true), &json!(false)));
    owner.wait(LIMIT);
    disk.shell("rm store/fill").assert_code(0);
    disk.cli(&["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// R:RO. A view of the store that cannot be written.
#[test]
fn a_stop_on_a_read_only_mount_stops_and_says_what_it_could_not_record() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let stop = Process::start(sandbox.under(words, Path::new(BINARY), &["--json", "stop"]));
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    let document = stop.finish(LIMIT).assert_code(0).json();
    assert_eq!((&document["stopped"], &document["recorded"]), (&json!(true), &json!(false)));
    // Nobody could tell the run that this was planned.
    run.ended().assert_code(7);
    assert_eq!(sandbox.history()[0]["end_reason"], "signalled");
}

#[test]
fn a_second_stop_joins_the_first() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let first = sandbox.begin(&["--json", "stop"]);
    let stopper = first.pid();
    assert_eq!(run.process.line(), "TERM");
    let second = sandbox.begin(&["--json", "stop", "--desired"]);
    // Its wish is committed together with its look at who is stopping already.
    eventually("the second stop has begun", LIMIT, || {
        (sandbox.status().1["desired"] == "stopped").then_some(())
    });
    for _ in 0..3 {
        run.round_trip();
    }
    run.let_end();
    for stop in [first, second] {
        let document = stop.finish(LIMIT).assert_code(0).json();
        assert_eq!(document["stopped"], true, "{document:#}");
    }
    let answer = run.ended().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    sandbox.assert_planned(stopper);
}

/// The second one may be in more of a hurry.
#[test]
fn a_second_stop_with_force_ends_what_the_first_one_waits_for() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let first = sandbox.begin(&["--json", "stop"]);
    assert_eq!(run.process.line(), "TERM");
    let (code, document) = sandbox.json(["stop", "--force", "--timeout", "100ms"]);
    assert_eq!((code, &document["killed"]), (0, &json!(true)), "{document:#}");
    assert_eq!(first.finish(LIMIT).assert_code(0).json()["killed"], false);
    assert_eq!(terms(&run.ended().assert_code(0)), 1);
}

/// One open intent per instance: whoever comes second says so.
#[test]
fn a_stop_and_a_takeover_meet() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let mut taker = Process::start(
        sandbox.incumbent([&["run", "--no-backoff", "--replace"], HOLDING].concat()),
    );
    assert_eq!(run.process.line(), "TERM");
    let (code, document) = sandbox.json(["stop"]);
    assert_eq!((code, &document["stopped"]), (75, &json!(false)), "{document:#}");
    assert_eq!(document["holder"]["reason"], "reserved", "{document:#}");
    assert_eq!(document["holder"]["pid"], taker.pid(), "{document:#}");
    sandbox
        .cli(["stop"])
        .assert_code(75)
        .assert_complains(&["reserved for pid", "a takeover or a stop is in progress"]);
    run.let_end();
    taker.line();
    let answer = run.ended().assert_code(0);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    assert_eq!(sandbox.history()[1]["end_reason"], "taken_over");
    sandbox.cli(["stop"]).assert_code(0);
    taker.finish(LIMIT).assert_code(0);

    let mut run = sandbox.patient(&[]);
    let stop = sandbox.begin(&["stop"]);
    assert_eq!(run.process.line(), "TERM");
    let replace = ["run", "--no-backoff", "--replace", "--force", "--", "true"];
    let (code, refused) = sandbox.json(replace);
    assert_eq!((code, &refused["holder"]["reason"]), (75, &json!("reserved")), "{refused:#}");
    assert_eq!(refused["holder"]["pid"], stop.pid(), "{refused:#}");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(terms(&run.ended().assert_code(0)), 1);
}

/// FIELD-BUGS row 49. Symptom: the supervisor's next one got in between the stop and what the person
/// wanted to do. Until the stop is done the office is nobody's.
#[test]
fn nobody_starts_before_a_stop_is_done() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let stop = sandbox.begin(&["stop"]);
    assert_eq!(run.process.line(), "TERM");
    // As long as it lives, it is who holds the office.
    let (code, refused) = sandbox.json(["run", "--no-backoff", "--", "echo", "started"]);
    assert_eq!((code, &refused["holder"]["reason"]), (75, &json!("anchor_held")), "{refused:#}");
    assert_eq!(refused["holder"]["pid"], run.pid(), "{refused:#}");
    let mut waiter =
        Process::start(sandbox.incumbent([&["run", "--no-backoff", "--wait"], HOLDING].concat()));
    // The stop is on record as one that waits for the office, too.
    sandbox.wait_for_waiters(2);
    run.let_end();
    waiter.line();
    stop.finish(LIMIT).assert_code(0);
    run.ended().assert_code(0);
    waiter.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.history()[1]["end_reason"], "planned_stop");

    // The owner is gone, its stop is not done yet: it is stopped itself.
    let mut run = sandbox.patient(&[]);
    let stop = sandbox.begin(&["stop"]);
    assert_eq!(run.process.line(), "TERM");
    stop.signal(Signal::STOP);
    wait_stopped(stop.pid());
    run.let_end();
    run.ended().assert_code(0);
    let (code, refused) = sandbox.json(["run", "--no-backoff", "--", "echo", "started"]);
    assert_eq!((code, &refused["holder"]["reason"]), (75, &json!("reserved")), "{refused:#}");
    assert_eq!(refused["holder"]["pid"], stop.pid(), "{refused:#}");
    assert!(refused["retry_after_ms"].is_u64(), "{refused:#}");
    let mut waiter =
        Process::start(sandbox.incumbent([&["run", "--no-backoff", "--wait"], HOLDING].concat()));
    sandbox.wait_for_waiters(2);
    stop.signal(Signal::CONT);
    waiter.line();
    stop.finish(LIMIT).assert_code(0);
    waiter.finish(LIMIT).assert_code(0);
}

/// A stop that dies on the way blocks nobody, and the one after it asks anew.
#[test]
fn a_killed_stop_leaves_nothing_in_the_way() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let mut killed = sandbox.begin(&["stop"]);
    assert_eq!(run.process.line(), "TERM");
    killed.kill();
    let refused = sandbox.json(["run", "--no-backoff", "--", "true"]).1;
    assert_eq!(refused["holder"]["reason"], "anchor_held", "{refused:#}");
    let stop = sandbox.begin(&["stop"]);
    let stopper = stop.pid();
    assert_eq!(run.process.line(), "TERM", "the second request");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(terms(&run.ended().assert_code(0)), 2);
    sandbox.assert_planned(stopper);
}

/// R:REUSE. FIELD-BUGS row 17.
///
/// Symptom: the stop of a gateway that was long gone ended a stranger that had got its pid (a
/// browser every few minutes; a service host, and with it the machine). It holds because a signal
/// goes to a pinned process whose start time is the recorded one, or to nobody.
#[test]
fn the_next_user_of_a_recorded_pid_sees_nothing_of_a_stop() {
    const SCRIPT: &str = "
        decoy='trap \"echo signalled\" TERM HUP INT QUIT CONT USR1; echo $$; while read -r x; do :; done'
        reuse() { # starts the decoy under pid $1
            echo $(($1 - 1)) > /proc/sys/kernel/ns_last_pid
            sh -c \"$decoy\" < gate > decoy.txt &
        }
        stops() { # for record $1 of pid $2
            reuse $2; echo \"$1: same pid $(($! - $2))\"
            incumbent stop --timeout 200ms > /dev/null 2>&1; echo \"stop $?\"
            incumbent stop --force --timeout 0 > /dev/null 2>&1; echo \"force $?\"
            kill -0 $! && echo lives
            kill -KILL $!; wait $!; grep -c signalled decoy.txt
        }
        mkfifo gate pids
        exec 8<> gate

        incumbent run --no-backoff -- sh -c 'echo $$ > pids; sleep 1000' &
        owner=$!
        read -r command < pids
        kill -KILL $owner; wait $owner
        stops run $owner

        for record in '--no-keeper' ''; do
            sh -c 'echo $$ > pids; sleep 1000' &
            owner=$!
            read -r same < pids
            incumbent claim $record --pid $owner > /dev/null
            keeper=$(incumbent --json sql 'SELECT keeper_pid FROM instances ORDER BY id DESC' |
                grep -o '[0-9][0-9]*' | head -n 1)
            # The lock of the dead one stays held.
            [ \"$record\" ] || kill -STOP $keeper
            kill -KILL $owner; wait $owner
            # One tick of the clock that start times are counted in has to pass: 10 ms.
            sleep 0.05
            stops \"claim $record\" $owner
        done
        exit 0";
    let sandbox = Sandbox::new();
    let Some(answer) = sandbox.choosing_pids(SCRIPT) else { return };
    let expected: Vec<String> = ["run", "claim --no-keeper", "claim "]
        .iter()
        .flat_map(|what| {
            [&format!("{what}: same pid 0"), "stop 0", "force 0", "lives", "0"].map(str::to_owned)
        })
        .collect();
    assert_eq!(answer.out.lines().collect::<Vec<_>>(), expected, "{answer:#?}");
}

/// R:ROW. FIELD-BUGS row 17: whatever pid a row names, only a process that is proven to be the
/// recorded one is signalled; never init, nobody's pid, nor an ancestor of whoever asks.
#[test]
fn a_forged_record_directs_no_signal_at_anybody() {
    const DECOY: &str =
        "for name in TERM HUP INT QUIT CONT USR1; do trap \"echo $name\" $name; done
        echo $$; while read -r x; do :; done; echo done";
    let unknown = "start time is not known";
    std::thread::scope(|scope| {
        for (what, why) in [
            ("start_time = NULL, start_time_unit = NULL", unknown),
            ("pid = 0", unknown),
            ("pid = -1", unknown),
            ("pid = -7", unknown),
            ("pid = 4294967295", unknown),
            ("pid = 1", "init"),
            ("ancestor", "it started this process"),
        ] {
            scope.spawn(move || {
                let sandbox = Sandbox::new();
                let owner = sandbox.linked_owner(500);
                let mut decoy = Process::start(sandbox.shell(DECOY));
                let decoy_pid: u32 = decoy.line().parse().unwrap();
                let mut shell = Process::start(sandbox.shell(
                    "trap 'echo TERM' TERM; echo $$; read -r go
                     incumbent stop --timeout 0 --force; echo \"code $?\"",
                ));
                let parent = Identity::of(shell.line().parse().unwrap()).unwrap();
                let forged = match what {
                    "pid = 1" => {
                        format!("pid = 1, start_time = {}", Stat::of(1).unwrap().start_time)
                    }
                    "ancestor" => {
                        format!("pid = {}, start_time = {}", parent.pid, parent.start_time)
                    }
                    // The decoy, without anything that tells it from the owner.
                    what if what.starts_with("start_time") => format!("pid = {decoy_pid}, {what}"),
                    what => what.to_owned(),
                };
                sandbox.forge(&format!(
                    "UPDATE instances SET process_inode = NULL, {forged} WHERE ended_at_ms IS NULL"
                ));
                shell.say("go");
                let answer = shell.finish(LIMIT).assert_code(0);
                assert!(answer.out.ends_with("\ncode 1\n"), "{what}: {answer:#?}");
                assert!(!answer.out.contains("TERM"), "{what}: {answer:#?}");
                let answer = answer.assert_complains(&["still running", "cannot be signalled"]);
                assert!(answer.err.contains(why), "{what}: {answer:#?}");
                let answer = decoy.finish(LIMIT).assert_code(0);
                assert_eq!(answer.out.lines().skip(1).collect::<Vec<_>>(), ["done"], "{what}");
                assert!(!owner.finish(LIMIT).err.contains("TERM"), "{what}");
            });
        }
    });
}

/// The same for a start time that names another process: the recorded one is gone, whoever holds
/// its lock.
#[test]
fn a_process_with_another_start_time_is_not_the_recorded_one() {
    let sandbox = Sandbox::new();
    let owner = sandbox.linked_owner(500);
    let mut decoy = Process::start(sandbox.shell("trap 'echo TERM' TERM; echo $$; read -r x"));
    let pid = decoy.line();
    sandbox.forge(&format!("UPDATE instances SET pid = {pid}"));
    sandbox.cli(["stop", "--timeout", "0", "--force"]).assert_code(0);
    assert_eq!(sandbox.history()[0]["end_reason"], "pid_reused");
    assert_eq!(decoy.finish(LIMIT).out, format!("{pid}\n"));
    let answer = owner.finish(LIMIT);
    assert!(!answer.err.contains("TERM"), "{answer:#?}");
}

/// FIELD-BUGS row 14. Symptom: the stop of a gateway killed a dashboard with a similar command line.
/// It holds because whom to stop is a record, and never a search through command lines.
#[test]
fn a_process_with_the_same_command_line_is_not_touched() {
    let sandbox = Sandbox::new();
    let run = sandbox.patient(&[]);
    // The same words as the command, and as the run itself (of another profile).
    let mut twin = Process::start(sandbox.shell(PATIENT));
    let twin_pid: u32 = twin.line().parse().unwrap();
    let dashboard = sandbox.patient(&["--profile", "dashboard"]);
    let stop = sandbox.begin(&["stop", "--force", "--timeout", "100ms"]);
    stop.finish(LIMIT).assert_code(0);
    run.ended().assert_code(0);
    assert!(!twin.has_ended());
    kill(twin_pid, Signal::USR1);
    assert_eq!(terms(&twin.finish_with_stdin_open(LIMIT).assert_code(7)), 0);
    assert_eq!(sandbox.json(["status", "--profile", "dashboard"]).0, 0);
    dashboard.let_end();
    assert_eq!(terms(&dashboard.ended().assert_code(7)), 0);
}

/// FIELD-BUGS rows 33 to 36: what root did once could not be read by the user any more. The user's
/// gateway reads root's marker, and consumes it.
#[test]
fn root_stops_a_users_gateway_which_learns_of_it() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let script = format!(
        "trap \"'{0}' marker consume planned_stop > told.txt; echo \\\"consume \\$?\\\";
             kill -KILL \\$sleeper; exit 7\" TERM
         sleep 1000 > /dev/null 2>&1 &
         sleeper=$!
         echo $$
         while :; do wait $sleeper; done",
        binary.display()
    );
    let mut command = sandbox.within(nobody);
    command.arg(&binary).args(["run", "--", "/bin/sh", "-c", &script]);
    let run = Run::start(command);
    let stop = sandbox.begin(&["stop"]);
    let stopper = stop.pid();
    stop.finish(LIMIT).assert_code(0);
    let answer = run.ended().assert_code(0);
    assert!(answer.out.ends_with("consume 0\n"), "{answer:#?}");
    let told = std::fs::read_to_string(sandbox.file("told.txt")).unwrap();
    assert!(told.contains("planned_stop by") && told.contains(&format!("pid {stopper}")), "{told}");
    sandbox.assert_planned(stopper);
}

/// Whoever may write to the store may ask, and a `run` obeys; nobody is signalled who may not be,
/// and who may not even see the store learns nothing of it.
#[test]
fn another_user_stops_only_who_obeys() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let stop_as = |words: &[&str], timeout: &str| {
        let mut command = sandbox.within(words);
        command.arg(&binary).args(["stop", "--force", "--timeout", timeout]);
        Process::start(command)
    };
    // The store is nobody's, the gateways are root's.
    let mut command = sandbox.within(nobody);
    command.arg(&binary).args(["run", "--", "true"]);
    Process::start(command).finish(LIMIT).assert_code(0);

    let owner = sandbox.linked_owner(500);
    let stranger = ["setpriv", "--reuid", "1", "--regid", "1", "--clear-groups"];
    let answer = stop_as(&stranger, "0").finish(LIMIT);
    assert!(matches!(answer.code(), 70 | 78), "{answer:#?}");
    let answer = stop_as(nobody, "0").finish(LIMIT).assert_code(1);
    answer.assert_complains(&["still running", "cannot be signalled", "not let us"]);
    sandbox.assert_status(0, "alive", "anchor_held");
    let answer = owner.finish(LIMIT).assert_code(0);
    assert!(!answer.err.contains("TERM"), "{answer:#?}");

    let mut run = sandbox.patient(&[]);
    let stop = stop_as(nobody, "30s");
    let stopper = stop.pid();
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(terms(&run.ended().assert_code(0)), 1);
    sandbox.assert_planned(stopper);
}

#[test]
fn what_is_desired_is_shown_and_set() {
    let sandbox = Sandbox::new();
    let desired = |words: &[&str]| {
        let (code, document) = sandbox.json([&["desired"], words].concat());
        assert_eq!(code, 0, "{document:#}");
        document
    };
    assert_eq!(desired(&[]), json!({"profile": "default", "desired": null}));
    assert!(!sandbox.file("store").exists(), "a question made a store");
    let answer = sandbox.cli(["desired"]).assert_code(0);
    assert_eq!(answer.out, "default: nobody has said whether it should run\n");
    sandbox.cli(["desired", "paused"]).assert_code(2).assert_complains(&["paused", "running"]);

    assert_eq!(desired(&["stopped"]), json!({"profile": "default", "desired": "stopped"}));
    assert_eq!(sandbox.status().1["desired"], "stopped");
    assert_eq!(sandbox.cli(["desired"]).out, "default: stopped\n");
    // It is a fact of one profile.
    assert!(desired(&["--profile", "work"])["desired"].is_null());
    assert!(sandbox.json(["status", "--profile", "work"]).1["desired"].is_null());
    assert_eq!(desired(&["running"]), json!({"profile": "default", "desired": "running"}));
    assert_eq!(sandbox.status().1["desired"], "running");
    // Said twice, it is noted once.
    desired(&["running"]);
    let (_, events) = sandbox.json(["events"]);
    let changes: Vec<_> = events
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["event"] == "desired_changed")
        .map(|event| event["detail"]["desired"].clone())
        .collect();
    assert_eq!(changes, ["stopped", "running"], "{events:#}");
}

#[test]
fn a_stop_may_say_that_it_shall_stay_stopped() {
    let sandbox = Sandbox::new();
    // Also of nobody, also in no store: what is wished for has to be kept somewhere.
    sandbox.cli(["stop", "--desired"]).assert_code(0);
    assert_eq!(sandbox.status().1["desired"], "stopped");
    sandbox.cli(["desired", "running"]).assert_code(0);
    let run = sandbox.polite("0", &["--respect-desired"]);
    sandbox.cli(["stop"]).assert_code(0);
    run.ended().assert_code(0);
    assert_eq!(sandbox.status().1["desired"], "running", "nobody has said otherwise");
    let run = sandbox.polite("0", &["--respect-desired"]);
    sandbox.cli(["stop", "--desired"]).assert_code(0);
    run.ended().assert_code(0);
    let status = sandbox.assert_status(3, "dead", "planned_stop");
    assert_eq!(status["desired"], "stopped", "{status:#}");
    assert_eq!(status["last_end"]["reason"], "planned_stop", "{status:#}");
}

#[test]
fn a_run_that_respects_what_is_desired_does_not_start_what_shall_stay_stopped() {
    let sandbox = Sandbox::new();
    let start = |options: &[&str]| {
        sandbox.cli([&["run", "--no-backoff"], options, &["--", "echo", "started"]].concat())
    };
    let respect = "--respect-desired";
    assert_eq!(start(&[respect]).assert_code(0).out, "started\n", "nobody has said anything");
    sandbox.cli(["desired", "stopped"]).assert_code(0);
    let before = sandbox.history().len();
    let refused = start(&[respect]).assert_code(75);
    assert_eq!(refused.out, "");
    refused
        .assert_complains(&["profile default is set to stay stopped", "incumbent desired running"]);
    let (code, document) = sandbox.json(["run", respect, "--", "echo", "started"]);
    assert_eq!((code, &document["reason"]), (75, &json!("desired_stopped")), "{document:#}");
    assert_eq!(document["granted"], false, "{document:#}");
    // For a supervisor this is success: it is not to try again.
    for (supervisor, code) in
        [("systemd", 0), ("launchd", 0), ("s6", 0), ("docker", 0), ("none", 75)]
    {
        let answer = start(&[respect, "--supervisor", supervisor]).assert_code(code);
        assert_eq!(answer.out, "", "{supervisor}");
    }
    assert_eq!(start(&[respect, "--exit-code", "desired_stopped=9"]).assert_code(9).out, "");
    assert_eq!(sandbox.history().len(), before, "something was claimed");
    // A person starts it all the same, and that changes no wish.
    assert_eq!(start(&[]).assert_code(0).out, "started\n");
    assert_eq!(start(&[respect, "--profile", "work"]).assert_code(0).out, "started\n");
    assert_eq!(sandbox.status().1["desired"], "stopped");
    sandbox.cli(["desired", "running"]).assert_code(0);
    assert_eq!(start(&[respect]).assert_code(0).out, "started\n");
}

/// A person may have made up their mind while a standby waited.
#[test]
fn a_wish_that_changes_during_the_wait_is_respected() {
    let sandbox = Sandbox::new();
    let run = sandbox.polite("0", &[]);
    let wait = ["run", "--no-backoff", "--wait", "--respect-desired", "--", "/bin/echo", "started"];
    let waiter = sandbox.begin(&wait);
    sandbox.wait_for_waiters(1);
    sandbox.cli(["stop", "--desired"]).assert_code(0);
    run.ended().assert_code(0);
    let answer = waiter.finish(LIMIT).assert_code(75);
    assert_eq!(answer.out, "");
    answer.assert_complains(&["is set to stay stopped"]);
    assert_eq!(sandbox.status().0, 3);
}

/// FIELD-BUGS row 56.
///
/// Symptom: the restart of a container wrote `stopped`, or a kill left `draining`, and the next
/// boot kept the gateway dark. It holds because what is desired, what is observed and how the last
/// one ended are three facts, and only an operator's verb writes the first.
#[test]
fn however_it_ends_what_is_desired_stays() {
    let sandbox = Sandbox::new();
    sandbox.cli(["desired", "running"]).assert_code(0);
    for (phase, reason) in [
        ("TERM", "signalled"),
        ("killed", "anchor_released"),
        ("killed while it drains", "anchor_released"),
        ("command killed", "signalled"),
        ("evicted", "evicted"),
        ("stopped by a person", "planned_stop"),
        ("exited", "exited"),
    ] {
        let mut run = sandbox.patient(&["--respect-desired"]);
        assert_eq!(sandbox.status().1["desired"], "running");
        match phase {
            "TERM" | "killed while it drains" => {
                run.process.signal(Signal::TERM);
                assert_eq!(run.process.line(), "TERM");
                assert_eq!(sandbox.status().1["desired"], "running");
                if phase == "TERM" {
                    run.let_end();
                } else {
                    run.kill();
                }
            }
            "killed" => run.kill(),
            "command killed" => kill(run.command.pid, Signal::KILL),
            "evicted" => {
                sandbox.cli(["evict", "--force"]).assert_code(0);
                assert_eq!(run.process.line(), "TERM");
                run.let_end();
            }
            "stopped by a person" => {
                let stop = sandbox.begin(&["stop", "--force", "--timeout", "0"]);
                stop.finish(LIMIT).assert_code(0);
            }
            "exited" => run.let_end(),
            other => panic!("{other}"),
        }
        run.process.wait(LIMIT);
        run.command.wait_gone(LIMIT);
        let status = sandbox.assert_status(3, "dead", reason);
        assert_eq!(status["desired"], "running", "{phase}: {status:#}");
        assert_eq!(status["running"], false, "{phase}: {status:#}");
        let start = ["run", "--no-backoff", "--respect-desired", "--", "echo", "started"];
        assert_eq!(sandbox.cli(start).assert_code(0).out, "started\n", "{phase}");
    }
}

/// Somebody who is not the parent of `pid`, and signals it.
pub fn stranger(sandbox: &Sandbox, signal: &str, pid: u32) {
    Process::start(sandbox.shell(&format!("kill -{signal} {pid}"))).finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS rows 46, 54 and 55.
///
/// Symptom: exit 0 after TERM: never revived. Exit 1: "failed". There is no code that is right
/// everywhere: the table has a column for each supervisor, and the cause is a fact of its own.
#[test]
fn the_exit_code_tells_the_supervisor_what_it_needs_to_know() {
    let sandbox = Sandbox::new();
    std::thread::scope(|scope| {
        for (supervisor, by_its_own, by_a_stranger) in [
            ("systemd", 0, 143),
            ("launchd", 0, 143),
            ("s6", 0, 143),
            ("docker", 7, 143),
            ("none", 7, 0),
        ] {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let options = ["--profile", supervisor, "--supervisor", supervisor];
                let end = || {
                    let (_, history) = sandbox.json(["history", "--profile", supervisor]);
                    history[0]["end_reason"].as_str().unwrap().to_owned()
                };
                let run = sandbox.polite("7", &options);
                sandbox.cli(["stop", "--profile", supervisor]).assert_code(0);
                run.ended().assert_code(0);
                assert_eq!(end(), "planned_stop");

                let run = sandbox.polite("7", &options);
                run.process.signal(Signal::TERM);
                let answer = run.ended();
                assert_eq!(answer.code(), by_its_own, "{supervisor}: {answer:#?}");
                assert_eq!(end(), "signalled");

                for (own, told) in [("0", by_a_stranger), ("7", 7)] {
                    let run = sandbox.polite(own, &options);
                    stranger(sandbox, "TERM", run.pid());
                    let answer = run.ended();
                    assert_eq!(answer.code(), told, "{supervisor}, {own}: {answer:#?}");
                    assert_eq!(end(), "signalled");
                }

                let run = sandbox.patient(&options);
                let refused =
                    sandbox.cli([&["run", "--no-backoff"], &options[..], &["--", "true"]].concat());
                refused.assert_code(75);
                run.let_end();
                run.ended().assert_code(7);

                let run = sandbox.polite("7", &options);
                let replace = [&["run", "--no-backoff", "--replace"], &options[..]].concat();
                sandbox.cli([&replace[..], &["--", "true"]].concat()).assert_code(0);
                run.ended().assert_code(0);
                assert_eq!(
                    sandbox.json(["history", "--profile", supervisor]).1[1]["end_reason"],
                    "taken_over"
                );
            });
        }
    });
}

/// FIELD-BUGS row 54. Symptom: `systemctl stop` left the unit "failed". A standby, and one that sits
/// out a backoff, is stopped by its supervisor like one that runs.
#[test]
fn a_standby_that_its_supervisor_stops_has_not_failed() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    for (supervisor, by_its_own, by_a_stranger) in
        [("systemd", 0, 143), ("launchd", 0, 143), ("s6", 0, 143), ("none", 143, 143)]
    {
        for is_own in [true, false] {
            let wait = ["run", "--no-backoff", "--wait", "--supervisor", supervisor, "--", "true"];
            let waiter = sandbox.begin(&wait);
            sandbox.wait_for_waiters(1);
            if is_own {
                waiter.signal(Signal::TERM);
            } else {
                stranger(&sandbox, "TERM", waiter.pid());
            }
            let answer = waiter.finish_with_stdin_open(LIMIT);
            let expected = if is_own { by_its_own } else { by_a_stranger };
            assert_eq!(answer.code(), expected, "{supervisor}, its own: {is_own}: {answer:#?}");
        }
    }

    let start = || {
        let mut command = sandbox.incumbent(["run", "--supervisor", "systemd", "--", "true"]);
        command.env("INCUMBENT_PARTY", "unlucky");
        Process::start(command)
    };
    for _ in 0..6 {
        start().finish(LIMIT).assert_code(75);
    }
    for (is_own, code) in [(true, 0), (false, 143)] {
        let mut waiter = start();
        waiter.err_line_with("starts in a row failed");
        if is_own {
            waiter.signal(Signal::TERM);
        } else {
            stranger(&sandbox, "TERM", waiter.pid());
        }
        waiter.finish_with_stdin_open(LIMIT).assert_code(code);
    }
    run.end().assert_code(0);
}

/// A run whose command took a HUP for what it is to many, the wish that it reads its configuration
/// anew, and has gone on for longer than it may take to end.
#[track_caller]
pub fn reloaded(sandbox: &Sandbox, options: &[&str]) -> Run {
    let script = format!("trap 'echo HUP' HUP; {PATIENT}");
    let command = ["--stop-budget", "1s", "--", "/bin/sh", "-c", &script];
    let mut run =
        Run::start(sandbox.incumbent([&["run", "--no-backoff"], options, &command].concat()));
    stranger(sandbox, "HUP", run.pid());
    assert_eq!(run.process.line(), "HUP");
    run.let_time_pass(Duration::from_millis(1_500));
    run
}

/// Not every signal ends a gateway. How it ends later has nothing to do with a reload of long ago.
#[test]
fn a_reload_is_no_stop() {
    let sandbox = Sandbox::new();
    let run = reloaded(&sandbox, &["--supervisor", "systemd"]);
    run.let_end();
    run.ended().assert_code(7);
    let end = sandbox.history().swap_remove(0);
    assert_eq!(end["end_reason"], "exited", "{end:#}");
    assert!(end["ended_by"].is_null(), "{end:#}");
}

/// Whoever was told to reload still has to be told to end.
#[test]
fn after_a_reload_a_marker_alone_stops_a_run() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut run = reloaded(&sandbox, &[]);
    let stop = sandbox.in_namespace(namespace, "incumbent stop --timeout 1min; exit $?");
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    run.ended().assert_code(0);
}

#[test]
fn a_cause_may_have_a_code_of_its_own() {
    let sandbox = Sandbox::new();
    let stopped = |options: &[&str]| {
        let run = sandbox.polite("7", options);
        sandbox.cli(["stop"]).assert_code(0);
        run.ended().code()
    };
    assert_eq!(stopped(&["--exit-code", "planned_stop=3"]), 3);
    assert_eq!(stopped(&["--exit-code", "planned_stop=own"]), 7);
    // The last word counts.
    assert_eq!(stopped(&["--exit-code", "planned_stop=3", "--exit-code", "planned_stop=4"]), 4);
    assert_eq!(stopped(&["--exit-code", "signalled=3", "--supervisor", "systemd"]), 0);
    let exited = ["run", "--exit-code", "exited=33", "--", "/bin/sh", "-c", "exit 5"];
    sandbox.cli(exited).assert_code(33);

    let run = sandbox.hold(&[]);
    for (options, code) in [
        (&["-E", "9"][..], 9),
        (&["-E", "0"], 0),
        (&["--exit-code", "refused=8"], 8),
        (&["--supervisor", "docker", "-E", "200"], 200),
    ] {
        let refused = [&["run", "--no-backoff"], options, &["--", "true"]].concat();
        sandbox.cli(refused).assert_code(code);
    }
    run.end().assert_code(0);
}

#[test]
fn what_is_no_exit_code_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for (option, value, words) in [
        ("--exit-code", "planned_stop", "CAUSE=CODE"),
        ("--exit-code", "planned_stop=", "no exit code"),
        ("--exit-code", "planned_stop=256", "from 0 to 255"),
        ("--exit-code", "planned_stop=-1", "from 0 to 255"),
        ("--exit-code", "planned_stop=zero", "from 0 to 255"),
        ("--exit-code", "stopped=1", "planned_stop"),
        ("--exit-code", "=1", "planned_stop"),
        ("--supervisor", "cron", "systemd"),
        ("--supervisor", "", "systemd"),
        ("-E", "256", "256"),
        ("-E", "-1", "-1"),
    ] {
        let answer = sandbox.cli(["run", &format!("{option}={value}"), "--", "echo", "started"]);
        let answer = answer.assert_code(2);
        assert_eq!(answer.out, "", "{option} {value}");
        assert!(answer.err.contains(words), "{option} {value}: {answer:#?}");
    }
    assert!(!sandbox.file("store").exists());
}

/// FIELD-BUGS row 86. Symptom: a terminal on a desktop was taken for a service, because everything
/// that descends from one has its `INVOCATION_ID`.
#[test]
fn a_shell_in_a_service_is_not_the_service() {
    let sandbox = Sandbox::new();
    let command = ["run", "--no-backoff", "--", "/bin/sh", "-c", POLITE, "sh", "0"];
    let mut command = sandbox.incumbent(command);
    command.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
    command.env("JOURNAL_STREAM", "8:12345").env("SYSTEMD_EXEC_PID", "1");
    let run = Run::start(command);
    stranger(&sandbox, "TERM", run.pid());
    // The table of no supervisor: its own code. systemd would be told 143.
    run.ended().assert_code(0);
}

/// Symptom: a marker lived for 60 s, and the drain of the gateway for 90: at its end nobody knew any
/// more that it had been stopped on purpose. It holds because the marker of a request outlives the
/// time that its target said it may take. In the long form the drain takes its 90 s.
#[test]
fn a_marker_is_still_there_at_the_end_of_a_drain() {
    let drain = rounds(2, 90);
    let patience = Duration::from_secs(drain as u64) + LIMIT;
    let sandbox = Sandbox::new();
    let script = format!(
        "trap 'echo TERM; sleep {drain}; incumbent --json marker consume; exit 0' TERM
         echo $$
         while :; do sleep 0.05; done"
    );
    let budget = format!("{}s", drain + 30);
    let options = ["run", "--no-backoff", "--stop-budget", &budget, "--", "/bin/sh", "-c", &script];
    let run = Run::start(sandbox.incumbent(options));
    let stop = sandbox.begin(&["stop", "--reason", "upgrade"]);
    let stop = stop.finish(patience).assert_code(0);
    assert!(stop.out.contains("has ended"), "{stop:#?}");
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(0);
    let consumed = answer.out.split_once("TERM\n").unwrap().1;
    let consumed: Value = serde_json::from_str(consumed).unwrap();
    assert_eq!(consumed["name"], "planned_stop", "{consumed:#}");
    assert_eq!(consumed["reason"], "upgrade", "{consumed:#}");
    assert_eq!(consumed["recorded"], true, "{consumed:#}");
    let (_, history) = sandbox.json(["history"]);
    assert_eq!(history[0]["end_reason"], "planned_stop", "{history:#}");
}

/// Symptom: the gateway died of a kill, and the history said that a TERM had ended it.
#[test]
fn the_history_names_the_signal_that_ended_it() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    sandbox.cli(["stop", "--force", "--timeout", "300ms"]).assert_code(0);
    assert_eq!(run.process.line(), "TERM");
    run.ended().assert_code(0);
    let end = sandbox.history().swap_remove(0);
    assert_eq!(
        (&end["end_reason"], &end["signal"]),
        (&json!("planned_stop"), &json!(9)),
        "{end:#}"
    );
}

/// An owner that lets go of its office and goes on working is not said to have ended.
#[test]
fn who_lets_go_and_goes_on_is_said_to_go_on() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.linked_owner(90_000);
    let stop = sandbox.begin(&["stop"]);
    owner.err_line_with("TERM: planned_stop");
    // Evicted: the office is not its own any more, and it runs.
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let stop = stop.finish(LIMIT).assert_code(0);
    assert!(stop.out.contains("its process still runs"), "{stop:#?}");
    assert!(!owner.has_ended());
}

/// Symptom: somebody stopped the gateway, gave up waiting, and what the OOM killer did to it a moment
/// later was told as a planned stop, with an exit code that no supervisor starts again for.
#[test]
fn a_kill_after_a_stop_that_gave_up_is_no_planned_stop() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--supervisor", "systemd"]);
    sandbox.cli(["stop", "--timeout", "300ms"]).assert_code(1);
    assert_eq!(run.process.line(), "TERM");
    run.let_time_pass(Duration::from_millis(300));
    kill(run.command.pid, Signal::KILL);
    run.ended().assert_code(137);
    let end = sandbox.history().swap_remove(0);
    assert_eq!((&end["end_reason"], &end["signal"]), (&json!("signalled"), &json!(9)), "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains("given up"), "{end:#}");
}

/// Another home's gateway is nobody's to stop or restart from here.
#[test]
fn a_gateway_of_another_home_is_not_stopped() {
    let sandbox = Sandbox::new();
    for home in ["one", "two"] {
        std::fs::create_dir(sandbox.file(home)).unwrap();
    }
    let [one, two] = ["one", "two"].map(|home| sandbox.file(home).display().to_string());
    let run = sandbox.polite("0", &["--home", &one]);
    for verb in ["stop", "restart"] {
        let answer = sandbox.cli(["--home", &two, verb]).assert_code(78);
        answer.assert_complains(&["belongs to the home"]);
    }
    assert!(!run.command.is_gone());
    sandbox.cli(["--home", &one, "stop"]).assert_code(0);
    run.ended().assert_code(0);
}
