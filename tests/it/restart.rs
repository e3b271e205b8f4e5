//! `restart`: asked for from anywhere, also from inside; served once, within the same tenure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use incumbent::{Claim, Store};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::stop::{PATIENT, reloaded, stranger, terms};
use crate::support::{
    BINARY, HOLDING, LIMIT, Process, Run, SOON, Sandbox, assert_within, eventually, kill,
    pid_namespace, rounds, skipped, wait_ended, wait_stopped, writer,
};

impl Sandbox {
    fn served(&self) -> i64 {
        self.number("SELECT count(*) FROM markers WHERE name = 'restart' AND served_at_ms NOT NULL")
    }

    fn restarts_asked_for(&self) -> i64 {
        self.number("SELECT count(*) FROM markers WHERE name = 'restart'")
    }
}

/// The next start of the command; its pid.
#[track_caller]
fn next_start(run: &mut Run) -> u32 {
    let pid = run.process.line_with("").parse().unwrap();
    assert_ne!(pid, run.command.pid, "the same command");
    run.command = crate::support::Identity::of(pid).expect("the command has just spoken");
    pid
}

/// How often a command said that it started: with its pid.
fn starts(out: &str) -> usize {
    out.lines().filter(|line| line.parse::<u32>().is_ok()).count()
}

fn is_done(document: &Value, instance: &Value) {
    let expected = json!({
        "profile": "default", "kind": "gateway", "restarted": true, "instance": instance,
        "served_by": null, "holder": null, "retry_after_ms": null,
    });
    assert_eq!(*document, expected);
}

/// FIELD-BUGS rows 49 and 50.
///
/// Symptom: a restart issued from inside the gateway killed the restarter with it, and every other
/// time nobody came back; or somebody else was faster. It holds because the request is a row, which
/// outlives its author, and the `run` serves it without letting go of the office.
#[test]
fn restarts_asked_for_from_inside_are_served_once_each_and_nobody_else_gets_in() {
    let count = rounds(100, 1_000);
    // Each start asks for the next one: by a child that outlives it, or in its own place, to be
    // ended by what it asked for.
    let script = "
        n=$(($(cat starts) + 1)); echo $n > starts
        if [ $n -le $1 ]; then
            [ $((n % 2)) = 0 ] && exec incumbent restart --reason inside
            incumbent restart > answer.$n 2>&1 &
            exec sleep 1000
        fi
        echo \"$n starts\"
        exec cat";
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("starts"), "0").unwrap();
    let limit = LIMIT * u32::try_from(count / 100 + 2).unwrap();
    let number = count.to_string();
    let command = ["run", "--no-backoff", "--", "/bin/sh", "-c", script, "sh", &number];
    let began = Instant::now();
    let run = sandbox.begin(&command);
    let instance =
        eventually("the office is held", LIMIT, || sandbox.status().1["instance"].as_i64());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let contender = scope.spawn(|| {
            let profile = Store::open(sandbox.db()).unwrap().profile("default").unwrap();
            let mut refused = 0_usize;
            while !is_over.load(Ordering::Acquire) {
                match profile.claim() {
                    Ok(Claim::Held(_)) => refused += 1,
                    Ok(Claim::Granted(_)) => panic!("granted after {refused} refusals"),
                    Err(error) => panic!("{error}"),
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            refused
        });
        let command = scope.spawn(|| {
            let mut refused = 0_usize;
            while !is_over.load(Ordering::Acquire) {
                let answer = sandbox.cli(["run", "--no-backoff", "--", "echo", "got in"]);
                assert_eq!(answer.assert_code(75).out, "", "after {refused} refusals");
                refused += 1;
            }
            refused
        });
        let is_last = || {
            let starts = std::fs::read_to_string(sandbox.file("starts")).unwrap();
            starts.trim() == (count + 1).to_string()
        };
        let given_up = || contender.is_finished() || command.is_finished();
        // No panic in here: it would wait for the contenders for ever.
        while !is_last() && !given_up() && began.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(2));
        }
        is_over.store(true, Ordering::Release);
        eprintln!("{count} restarts in {:?}", began.elapsed());
        for refused in [contender.join().unwrap(), command.join().unwrap()] {
            assert!(refused > 0, "nobody contended");
        }
        assert!(is_last(), "not within {limit:?}");
    });
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["instance"], instance, "{status:#}");
    let answer = run.finish(LIMIT).assert_code(0);
    assert_eq!(answer.out, format!("{} starts\n", count + 1));
    let count = i64::try_from(count).unwrap();
    assert_eq!((sandbox.restarts_asked_for(), sandbox.served()), (count, count));
    let open = "SELECT count(*) FROM markers WHERE closed_how IS NOT 'consumed'";
    assert_eq!(sandbox.number(open), 0);
    assert_eq!(sandbox.history().len(), 1);
    // Whoever outlived the command was told.
    eventually("the answer to the last child that asked", LIMIT, || {
        let last = sandbox.file(&format!("answer.{}", (count - 1) | 1));
        (std::fs::read_to_string(last).unwrap() == "default/gateway: restarted\n").then_some(())
    });
}

/// Locks, environment, proof: all that a command has of its run, the next one has as well.
#[test]
fn the_next_command_has_what_the_first_one_had() {
    let sandbox = Sandbox::new();
    let script = "
        env | grep ^INCUMBENT_ | sort > env.$$
        incumbent lock verify telegram-bot-token 1:a > /dev/null; echo \"verify $?\"
        incumbent lock acquire other 2 > /dev/null; echo \"acquire $?\"
        incumbent marker peek; echo \"peek $?\"
        incumbent claim > /dev/null; echo \"claim $?\"
        echo $$; exec cat";
    let lock = "--lock=telegram-bot-token=1:a";
    let mut process = sandbox.begin(&["run", "--no-backoff", lock, "--", "/bin/sh", "-c", script]);
    let mut commands = Vec::new();
    let mut fences = Vec::new();
    for round in 0..3 {
        if round > 0 {
            let document =
                sandbox.begin(&["--json", "restart"]).finish(LIMIT).assert_code(0).json();
            is_done(&document, &sandbox.status().1["instance"]);
        }
        for said in ["verify 0", "acquire 0", "peek 1", "claim 0"] {
            assert_eq!(process.line(), said, "round {round}");
        }
        commands.push(process.line());
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["child_pid"].to_string(), commands[round], "{status:#}");
        fences.push(sandbox.number("SELECT sum(fence) FROM scoped_locks"));
        assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 2);
    }
    assert!(fences.iter().all(|fence| *fence == fences[0]), "{fences:?}");
    let environment =
        |pid: &String| std::fs::read_to_string(sandbox.file(&format!("env.{pid}"))).unwrap();
    assert!(environment(&commands[0]).contains("INCUMBENT_TOKEN="));
    for pid in &commands[1..] {
        assert_eq!(environment(pid), environment(&commands[0]));
    }
    process.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.history().len(), 1);
}

/// By the rules of a stop: asked once, given its time, then killed. How the one before ended says
/// nothing of how the run ends.
#[test]
fn a_command_that_ignores_term_is_killed_and_started_again() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    let instance = sandbox.status().1["instance"].clone();
    let first = run.command;
    let document = sandbox.begin(&["--json", "restart"]).finish(LIMIT).assert_code(0).json();
    is_done(&document, &instance);
    assert!(first.is_gone());
    assert_eq!(run.process.line(), "TERM");
    next_start(&mut run);
    let told = run.process.err_line_with("restarted the command");
    assert!(told.contains("SIGKILL") && told.contains("incumbent restart"), "{told}");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["child_pid"], run.command.pid, "{status:#}");
    run.let_end();
    let answer = run.ended().assert_code(7);
    assert_eq!(terms(&answer), 1, "{answer:#?}");
    let end = sandbox.history().swap_remove(0);
    assert_eq!((&end["end_reason"], &end["exit_code"]), (&json!("exited"), &json!(7)), "{end:#}");
    assert!(end["signal"].is_null() && end["ended_by"].is_null(), "{end:#}");
}

/// The command may want to know why it is being stopped; that it reads the marker, and so consumes
/// it, does not lose the restart.
#[test]
fn a_command_that_consumes_the_marker_is_started_again() {
    let sandbox = Sandbox::new();
    let script = "
        trap 'incumbent marker consume > why.txt; kill -KILL $sleeper; exit 0' TERM
        sleep 1000 > /dev/null 2>&1 &
        sleeper=$!
        echo $$
        while :; do wait $sleeper; done";
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    for round in 1..=rounds(5, 100) {
        let reason = format!("round {round}");
        let restart = sandbox.begin(&["restart", "--reason", &reason]);
        let asker = restart.pid();
        restart.finish(LIMIT).assert_code(0);
        next_start(&mut run);
        let why = std::fs::read_to_string(sandbox.file("why.txt")).unwrap();
        assert!(why.starts_with("restart by ") && why.ends_with(&format!(": {reason}\n")), "{why}");
        assert!(why.contains(&format!("pid {asker}")), "{why}");
        assert_eq!(sandbox.served(), i64::try_from(round).unwrap());
    }
    assert_eq!(sandbox.restarts_asked_for(), sandbox.served());
    run.process.signal(Signal::TERM);
    run.ended().assert_code(0);
}

/// A reload of long ago does not make a run deaf.
#[test]
fn a_run_that_was_told_to_reload_can_still_be_restarted() {
    let sandbox = Sandbox::new();
    let mut run = reloaded(&sandbox, &[]);
    let restart = sandbox.begin(&["restart", "--timeout", "10s"]);
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    next_start(&mut run);
    restart.finish(LIMIT).assert_code(0);
    run.let_end();
    run.ended().assert_code(7);
}

/// A run that cannot look just now serves what was asked of it as soon as it can.
#[test]
fn a_stopped_run_serves_a_restart_when_it_goes_on() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    let answer = sandbox.cli(["restart", "--timeout", "300ms"]).assert_code(75);
    answer.assert_complains(&["not restarted in time", "the request stands"]);
    let second = sandbox.begin(&["restart"]);
    run.process.signal(Signal::CONT);
    assert_eq!(run.process.line(), "TERM");
    next_start(&mut run);
    second.finish(LIMIT).assert_code(0);
    assert_eq!((sandbox.restarts_asked_for(), sandbox.served()), (1, 1));
    run.let_end();
    run.ended().assert_code(7);
}

/// R:PIDNS: a request is a row, which has no pid namespace.
#[test]
fn a_run_in_another_pid_namespace_is_restarted() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    let inside = sandbox.in_namespace(namespace, "incumbent restart; exit $?");
    inside.finish(LIMIT).assert_code(0);
    assert_eq!(run.process.line(), "TERM");
    next_start(&mut run);
    run.let_end();
    run.ended().assert_code(7);
}

#[test]
fn a_strangers_term_during_a_restart_is_the_last_word() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["restart", "--timeout", "2s"]);
    assert_eq!(run.process.line(), "TERM");
    stranger(&sandbox, "TERM", run.pid());
    run.round_trip();
    run.let_end();
    let answer = run.ended().assert_code(7);
    assert_eq!(starts(&answer.out), 1, "{answer:#?}");
    assert_eq!(sandbox.history()[0]["end_reason"], "signalled");
    // Nobody is left to be restarted.
    restart.finish(LIMIT).assert_code(3);
    assert_eq!(sandbox.served(), 0);
}

/// A request to reload (logrotate sends HUP) takes no request to end back.
#[test]
fn a_reload_takes_no_end_back() {
    let sandbox = Sandbox::new();
    let script = format!("trap : HUP; {PATIENT}");
    let mut run =
        Run::start(sandbox.incumbent(["run", "--no-backoff", "--", "/bin/sh", "-c", &script]));
    let restart = sandbox.begin(&["restart", "--timeout", "2s"]);
    assert_eq!(run.process.line(), "TERM");
    stranger(&sandbox, "TERM", run.pid());
    run.round_trip();
    stranger(&sandbox, "HUP", run.pid());
    run.round_trip();
    run.let_end();
    let answer = run.ended();
    assert_eq!(starts(&answer.out), 1, "the command was started again: {answer:#?}");
    restart.finish(LIMIT).assert_code(3);
}

/// A restart that was consumed is withdrawn by the stop that comes after it, like one that was not:
/// when that one gives up, nothing of either is left.
#[test]
fn a_stop_withdraws_a_consumed_restart_as_well() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let pid = run.pid().to_string();
    let restart = sandbox.begin(&["restart"]);
    assert_eq!(run.process.line(), "TERM");
    sandbox.cli(["marker", "consume", "restart", "--pid", &pid]).assert_code(0);
    sandbox.cli(["stop", "--timeout", "300ms"]).assert_code(1);
    restart.finish(LIMIT).assert_code(75).assert_complains(&["withdrawn"]);
    run.let_time_pass(Duration::from_secs(2));
    run.let_end();
    let answer = run.ended();
    assert_eq!(starts(&answer.out), 1, "{answer:#?}");
    assert_eq!(sandbox.served(), 0);
}

/// What cannot be recorded is tried again without a storm of forks; and what never will be, because a
/// newer program closed the store to this one, ends the run, so that its successor may start.
#[test]
fn a_restart_that_can_never_be_recorded_ends_the_run() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["restart", "--timeout", "3s"]);
    assert_eq!(run.process.line(), "TERM");
    sandbox.forge("PRAGMA user_version = 99");
    sandbox.forge("UPDATE meta SET value = 99 WHERE key = 'min_writer'");
    run.let_end();
    let answer = run.ended();
    assert_eq!(answer.code(), 78, "{answer:#?}");
    assert_eq!(starts(&answer.out), 1, "{answer:#?}");
    assert!(answer.err.contains("newer incumbent"), "{answer:#?}");
    restart.finish(LIMIT).assert_code(3);
}

#[test]
fn a_stop_during_a_restart_is_the_last_word() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["--json", "restart"]);
    assert_eq!(run.process.line(), "TERM");
    let stop = sandbox.begin(&["stop"]);
    sandbox.wait_for_waiters(1);
    // That the stop came in its place is known at once.
    let asked = Instant::now();
    let document = restart.finish(LIMIT).assert_code(75).json();
    assert_within(SOON, asked.elapsed(), "the refusal");
    assert_eq!(document["restarted"], false, "{document:#}");
    assert_eq!(document["holder"]["pid"], run.pid(), "{document:#}");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    let answer = run.ended().assert_code(0);
    // It is ending already: it is not asked again by the one who comes on top.
    assert_eq!((terms(&answer), starts(&answer.out)), (1, 1), "{answer:#?}");
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");
    assert_eq!(sandbox.served(), 0);
}

#[test]
fn a_takeover_during_a_restart_is_the_last_word() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["restart", "--timeout", "20s"]);
    assert_eq!(run.process.line(), "TERM");
    let mut taker = Process::start(
        sandbox.incumbent([&["run", "--no-backoff", "--replace"], HOLDING].concat()),
    );
    sandbox.wait_for_waiters(1);
    run.let_end();
    taker.line();
    let answer = run.ended().assert_code(0);
    assert_eq!(starts(&answer.out), 1, "{answer:#?}");
    // The successor is a new start, or the request was withdrawn for it: both is true.
    let code = restart.finish(LIMIT).code();
    assert!(matches!(code, 0 | 75), "{code}");
    taker.finish(LIMIT).assert_code(0);
}

/// Nothing is asked of whom somebody brings to an end already.
#[test]
fn a_restart_during_a_stop_or_a_takeover_is_refused() {
    let sandbox = Sandbox::new();
    for verb in [&["stop"][..], &["run", "--no-backoff", "--replace", "--", "true"]] {
        let mut run = sandbox.patient(&[]);
        let ending = sandbox.begin(verb);
        assert_eq!(run.process.line(), "TERM");
        let (code, document) = sandbox.json(["restart"]);
        assert_eq!((code, &document["restarted"]), (75, &json!(false)), "{document:#}");
        assert_eq!(document["holder"]["reason"], "reserved", "{document:#}");
        assert_eq!(document["holder"]["pid"], ending.pid(), "{document:#}");
        let answer = sandbox.cli(["restart"]).assert_code(75);
        answer.assert_complains(&["reserved for", "a takeover or a stop is in progress"]);
        for _ in 0..3 {
            run.round_trip();
        }
        run.let_end();
        ending.finish(LIMIT).assert_code(0);
        let answer = run.ended().assert_code(0);
        assert_eq!((terms(&answer), starts(&answer.out)), (1, 1), "{answer:#?}");
    }
    assert_eq!(sandbox.restarts_asked_for(), 0);
}

/// FIELD-BUGS row 50: a restart in the moment of a crash is served or refused, and whoever asked is
/// told which.
#[test]
fn a_crash_in_the_moment_of_a_restart_is_told_as_it_is() {
    let seed = getrandom::u64().unwrap();
    eprintln!("seed: {seed}");
    let mut state = seed | 1;
    let mut codes = Vec::new();
    for round in 1..=rounds(20, 1_000) {
        let sandbox = Sandbox::new();
        let mut run = sandbox.hold(&[]);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let instant = Instant::now() + Duration::from_micros(state % 30_000);
        let restart = sandbox.begin(&["restart", "--timeout", "1s"]);
        // Not a synchronisation: the blind shot is the test.
        std::thread::sleep(instant.saturating_duration_since(Instant::now()));
        kill(run.command.pid, Signal::KILL);
        let answer = restart.finish(LIMIT);
        let is_served = answer.code() == 0;
        codes.push(answer.code());
        if is_served {
            next_start(&mut run);
            assert_eq!(sandbox.served(), 1, "round {round}, seed {seed}");
            run.end().assert_code(0);
        } else {
            assert!(matches!(answer.code(), 3 | 75), "round {round}, seed {seed}: {answer:#?}");
            let ended = run.ended().assert_code(137);
            assert_eq!(starts(&ended.out), 1, "round {round}, seed {seed}: {ended:#?}");
            assert_eq!(sandbox.served(), 0, "round {round}, seed {seed}");
        }
    }
    eprintln!("exit codes: {codes:?}");
}

/// FIELD-BUGS row 50: the request outlives its author.
#[test]
fn a_request_is_served_although_its_author_was_killed() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let mut asker = sandbox.begin(&["restart"]);
    assert_eq!(run.process.line(), "TERM");
    asker.kill();
    run.let_end();
    next_start(&mut run);
    assert_eq!((sandbox.restarts_asked_for(), sandbox.served()), (1, 1));
    run.let_end();
    run.ended().assert_code(7);

    // At any instant: what is on record is served, what is not was never asked.
    let seed = getrandom::u64().unwrap();
    eprintln!("seed: {seed}");
    let mut state = seed | 1;
    for round in 1..=rounds(15, 1_000) {
        let sandbox = Sandbox::new();
        let mut run = sandbox.hold(&[]);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let instant = Instant::now() + Duration::from_micros(state % 15_000);
        let mut asker = sandbox.begin(&["restart"]);
        std::thread::sleep(instant.saturating_duration_since(Instant::now()));
        asker.kill();
        let on_record = sandbox.restarts_asked_for();
        if on_record == 1 {
            next_start(&mut run);
        }
        let answer = run.end().assert_code(0);
        let last = usize::from(on_record == 0);
        assert_eq!(starts(&answer.out), 2 - last, "round {round}, seed {seed}: {answer:#?}");
        assert_eq!(sandbox.served(), on_record, "round {round}, seed {seed}");
    }
}

/// Several requests at once become one, or are served one after the other; no start serves nobody.
#[test]
fn restarts_at_once_are_never_served_twice() {
    const ASKERS: usize = 4;
    for round in 1..=rounds(6, 200) {
        let sandbox = Sandbox::new();
        let run = sandbox.polite("0", &[]);
        let askers: Vec<Process> =
            (0..ASKERS).map(|_| sandbox.begin(&["--json", "restart"])).collect();
        for asker in askers {
            let document = asker.finish(LIMIT).assert_code(0).json();
            assert_eq!(document["restarted"], true, "round {round}: {document:#}");
        }
        let served = sandbox.served();
        assert!((1..=4).contains(&served), "round {round}: {served}");
        assert_eq!(sandbox.restarts_asked_for(), served, "round {round}");
        sandbox.cli(["stop"]).assert_code(0);
        let answer = run.ended().assert_code(0);
        let restarts = answer.err.matches("restarted the command").count();
        assert_eq!(i64::try_from(restarts).unwrap(), served, "round {round}: {answer:#?}");
        assert_eq!(sandbox.history().len(), 1);
    }
}

/// The `run` itself dies on the way: the office is free, and its next holder is the restart that was
/// asked for, whoever started it.
#[test]
fn the_next_generation_is_a_restart_too() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["--json", "restart"]);
    assert_eq!(run.process.line(), "TERM");
    run.kill();
    let next = sandbox.hold(&[]);
    let document = restart.finish(LIMIT).assert_code(0).json();
    is_done(&document, &sandbox.status().1["instance"]);
    // The old request means nothing to it.
    assert_eq!(sandbox.served(), 0);
    let answer = next.end().assert_code(0);
    assert!(!answer.err.contains("restarting"), "{answer:#?}");
}

#[test]
fn where_nobody_runs_there_is_nothing_to_restart() {
    let sandbox = Sandbox::new();
    let refused = || {
        let answer = sandbox.cli(["restart"]).assert_code(3);
        assert_eq!(answer.out, "default/gateway: not running\n", "{answer:#?}");
        let (code, document) = sandbox.json(["restart"]);
        assert_eq!((code, &document["restarted"]), (3, &json!(false)), "{document:#}");
        assert!(document["instance"].is_null() && document["holder"].is_null(), "{document:#}");
    };
    refused();
    assert!(!sandbox.file("store").exists(), "it made a store");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    refused();
    let run = sandbox.hold(&[]);
    kill(run.pid(), Signal::KILL);
    assert!(wait_ended(run.pid(), LIMIT));
    run.command.wait_gone(LIMIT);
    refused();
    assert_eq!(sandbox.restarts_asked_for(), 0);
}

/// An owner that is no `run` serves it itself, or does not.
#[test]
fn a_linked_gateway_serves_a_restart_itself() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.linked_owner(30_000);
    let first = sandbox.status().1["instance"].clone();
    let (code, document) = sandbox.json(["restart", "--timeout", "300ms"]);
    assert_eq!((code, &document["restarted"]), (75, &json!(false)), "{document:#}");
    assert_eq!(document["holder"]["pid"], owner.pid(), "{document:#}");
    let answer = sandbox.cli(["restart", "--timeout", "0"]).assert_code(75);
    answer.assert_complains(&["not restarted in time", "the request stands", "no `run`"]);
    assert_eq!(sandbox.restarts_asked_for(), 1, "what was asked for stays asked for");
    // It looks now and then, and begins anew by itself.
    let mut waiting = sandbox.begin(&["--json", "restart"]);
    eventually("an answer", LIMIT, || {
        owner.say("look");
        owner.err_line_with("=> ");
        waiting.has_ended().then_some(())
    });
    is_done(&waiting.finish(LIMIT).assert_code(0).json(), &first);
    let asked = sandbox.restarts_asked_for();
    assert!((1..=2).contains(&asked), "{asked}");
    // What it served then says nothing of what it is asked for now.
    sandbox.cli(["restart", "--timeout", "300ms"]).assert_code(75);
    assert_eq!(sandbox.restarts_asked_for(), asked + 1);

    owner.say("look");
    owner.err_line_with("=> incumbent restart (pid ");

    // One that executes itself anew is another generation.
    let waiting = sandbox.begin(&["--json", "restart"]);
    eventually("the request", LIMIT, || (sandbox.restarts_asked_for() == asked + 2).then_some(()));
    owner.say("again");
    owner.err_line_with("=> owns");
    let second = sandbox.status().1["instance"].clone();
    assert_ne!(first, second);
    is_done(&waiting.finish(LIMIT).assert_code(0).json(), &second);
    let history = sandbox.history();
    assert_eq!(history[1]["end_reason"], "re_executed", "{history:#?}");
    let answer = owner.finish(LIMIT).assert_code(0);
    assert!(!answer.err.contains("TERM"), "nobody is signalled: {answer:#?}");
}

/// The upgrade went wrong: there is nothing left to start. The office is free, and nobody is told
/// that it was restarted.
#[test]
fn a_command_that_cannot_be_executed_any_more_ends_the_run() {
    for (spoil, code, why) in
        [("rm gateway.sh", 127, "No such file"), ("chmod -x gateway.sh", 126, "denied")]
    {
        let sandbox = Sandbox::new();
        let file = sandbox.file("gateway.sh");
        let script = format!("#!/bin/sh\n{PATIENT}");
        // Another process makes it: one that is open for writing cannot be executed.
        let mut make = sandbox.shell("cat > gateway.sh; chmod +x gateway.sh");
        make.env("LC_ALL", "C");
        let mut make = Process::start(make);
        make.write(&script);
        make.finish(LIMIT).assert_code(0);
        let run = sandbox.hold_with(&[file.to_str().unwrap()]);
        let restart = sandbox.begin(&["--json", "restart", "--timeout", "2s"]);
        let mut run = run;
        assert_eq!(run.process.line(), "TERM");
        Process::start(sandbox.shell(spoil)).finish(LIMIT).assert_code(0);
        run.let_end();
        let answer = run.ended().assert_code(code);
        let answer = answer.assert_complains(&["cannot execute", "gateway.sh", why]);
        assert_eq!(starts(&answer.out), 1, "{answer:#?}");
        assert_eq!(sandbox.status().0, 3, "{spoil}: the office is free");
        let end = sandbox.history().swap_remove(0);
        assert_eq!(end["exit_code"], code, "{end:#}");
        assert!(end["detail"].as_str().unwrap().contains("cannot execute"), "{end:#}");
        let told = restart.finish(LIMIT);
        assert_ne!(told.code(), 0, "{spoil}: nothing was restarted: {told:#?}");
    }
}

/// FIELD-BUGS row 77: a store that is busy delays the start, and does not end the tenure.
#[test]
fn a_busy_store_delays_a_restart() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let restart = sandbox.begin(&["restart"]);
    assert_eq!(run.process.line(), "TERM");
    let writer = writer(&sandbox);
    writer.signal(Signal::STOP);
    wait_stopped(writer.pid());
    run.let_end();
    // Longer than any one write waits for its turn.
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until && !run.process.has_ended() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!run.process.has_ended(), "it gave up its office: {:#?}", run.ended());
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    next_start(&mut run);
    restart.finish(LIMIT).assert_code(0);
    run.let_end();
    run.ended().assert_code(7);
}

/// FIELD-BUGS row 74: `rm` of the store under a live run. What is asked for in the new store is
/// served in the new store.
#[test]
fn a_restart_after_the_store_was_replaced() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    run.process.err_line_with("is claimed again in the new one");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    let document = sandbox.begin(&["--json", "restart"]).finish(LIMIT).assert_code(0).json();
    is_done(&document, &status["instance"]);
    assert_eq!(run.process.line(), "TERM");
    next_start(&mut run);
    // The command's own verbs know the new store.
    let child = sandbox.status().1["child_pid"].clone();
    assert_eq!(child, run.command.pid);
    let environ = std::fs::read(format!("/proc/{}/environ", run.command.pid)).unwrap();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let named = format!("INCUMBENT_INSTANCE={}\0", status["instance"]);
    assert!(environ.contains(&named), "{named}");
    run.let_end();
    run.ended().assert_code(7);
    assert_eq!(sandbox.served(), 1);
}

/// The program itself may have been replaced by an upgrade, which is what most restarts are for.
#[test]
fn a_run_whose_own_program_was_replaced_restarts_its_command() {
    let sandbox = Sandbox::new();
    let copy = sandbox.copy_program("upgraded");
    let mut command = sandbox.program(&copy);
    command.args(["run", "--no-backoff", "--stop-budget", "300ms", "--"]);
    command.args(["/bin/sh", "-c", PATIENT]);
    let mut run = Run::start(command);
    let replace = format!("rm '{0}' && cp '{BINARY}' '{0}'", copy.display());
    Process::start(sandbox.shell(&replace)).finish(LIMIT).assert_code(0);
    sandbox.cli(["restart"]).assert_code(0);
    assert_eq!(run.process.line(), "TERM");
    next_start(&mut run);
    run.let_end();
    run.ended().assert_code(7);
}
