//! Heartbeats are promises by a clock that does not step; a broken one evicts nobody.

use std::time::{Duration, Instant};

use incumbent::status::Field;
use incumbent::{Claim, ClaimOptions, StatusUpdate, Store, Verdict};
use rustix::process::Signal;
use serde_json::json;

use super::talker::talker;
use super::{claimed, obeying, report_of, say, with_clock, write_for};
use crate::support::{
    BOOT_MS, LIMIT, Process, Sandbox, ask, assert_within, bystander, eventually, has, skipped,
    stopped_writer, tenure_of,
};

/// FIELD-BUGS rows 21 and 22, with time in our hands: beats keep it responsive, their absence makes
/// it unresponsive from the second missing one on, a late one heals that at once, and a clock that
/// is set means nothing.
#[test]
fn beats_are_counted_by_a_clock_that_does_not_step() {
    const CADENCE: Duration = Duration::from_millis(100);
    let sandbox = Sandbox::new();
    let (store, clock) = with_clock(&sandbox);
    let tenure = tenure_of(&store, "default");
    let heart = tenure.heartbeat(CADENCE).unwrap();
    let last_beat = || sandbox.number("SELECT heartbeat_boot_ms FROM runtime_status");
    let beat = || {
        heart.beat();
        let now = BOOT_MS.max(incumbent::clock::Clock::boot_ms(&*clock));
        eventually("the beat is written", LIMIT, || (last_beat() == now).then_some(()));
    };
    let unresponsive = || report_of(&store).unresponsive_for;
    for round in 0..20 {
        clock.advance(Duration::from_millis(150));
        assert_eq!(unresponsive(), None, "round {round}");
        beat();
        assert_eq!(unresponsive(), None, "round {round}");
    }
    for step_ms in [86_400_000, -172_800_000, 315_360_000_000] {
        clock.step_wall_ms(step_ms);
        assert_eq!(unresponsive(), None, "the wall clock was set by {step_ms} ms");
    }
    clock.advance(Duration::from_millis(200));
    assert_eq!(unresponsive(), None, "the second beat is not missing yet");
    clock.advance(Duration::from_millis(1));
    assert_eq!(unresponsive(), Some(Duration::from_millis(201)));
    clock.advance(Duration::from_mins(1));
    assert_eq!(unresponsive(), Some(Duration::from_millis(60_201)));
    clock.step_wall_ms(-86_400_000);
    assert_eq!(
        unresponsive(),
        Some(Duration::from_millis(60_201)),
        "the wall clock does not wake anybody"
    );
    let held = report_of(&store);
    assert!(held.running && held.verdict == Verdict::Alive, "{held:?}");
    assert_eq!(tenure.verify().unwrap(), incumbent::Standing::Held);
    beat();
    assert_eq!(unresponsive(), None, "a late beat heals at once");
    // The promise stays when the heart is gone.
    drop(heart);
    clock.advance(Duration::from_millis(201));
    assert_eq!(unresponsive(), Some(Duration::from_millis(201)));
    // An update is no beat; one that says so is.
    tenure.update_status(&StatusUpdate::new().state("running")).unwrap();
    assert_eq!(unresponsive(), Some(Duration::from_millis(201)));
    tenure.update_status(&StatusUpdate::new().heartbeat()).unwrap();
    assert_eq!(unresponsive(), None);
    tenure.update_status(&StatusUpdate::new().heartbeat_every(Duration::from_secs(9))).unwrap();
    clock.advance(Duration::from_secs(18));
    assert_eq!(unresponsive(), None, "a new promise");
    clock.advance(Duration::from_secs(1));
    assert_eq!(unresponsive(), Some(Duration::from_secs(19)));
    tenure.update_status(&StatusUpdate::new().heartbeat_every(Field::Clear)).unwrap();
    clock.advance(Duration::from_hours(9));
    assert_eq!(unresponsive(), None, "the promise was taken back");
    tenure.update_status(&StatusUpdate::new().heartbeat_every(CADENCE)).unwrap();
    tenure.release().unwrap();
    clock.advance(Duration::from_hours(1));
    assert_eq!(unresponsive(), None, "the dead promise nothing");
}

/// FIELD-BUGS row 128.
///
/// Symptom: a laptop woke up after eight hours, every gateway with a heartbeat was unresponsive for
/// 8 h, and whoever watches that restarted healthy ones. Cause: heartbeats counted suspended time,
/// in which nobody can beat. It holds because beside each beat stands how long the machine had been
/// suspended by then.
#[test]
fn a_machine_that_slept_has_missed_no_beat() {
    const NIGHT: Duration = Duration::from_hours(8);
    let sandbox = Sandbox::new();
    let (store, clock) = with_clock(&sandbox);
    let tenure = tenure_of(&store, "default");
    let promise = StatusUpdate::new().heartbeat_every(Duration::from_secs(30));
    tenure.update_status(&promise).unwrap();
    let unresponsive = || report_of(&store).unresponsive_for;
    for night in 0..3 {
        clock.suspend(NIGHT);
        assert_eq!(unresponsive(), None, "night {night}");
    }
    // What it says beside that leaves the promise as it is.
    tenure.update_status(&StatusUpdate::new().state("running")).unwrap();
    clock.advance(Duration::from_mins(1));
    assert_eq!(unresponsive(), None);
    clock.advance(Duration::from_millis(1));
    assert_eq!(unresponsive(), Some(Duration::from_millis(60_001)), "by day it counts");
    clock.suspend(NIGHT);
    assert_eq!(unresponsive(), Some(Duration::from_millis(60_001)));
    tenure.update_status(&StatusUpdate::new().heartbeat()).unwrap();
    assert_eq!(unresponsive(), None);
    // As a program before schema 9 writes it: then a night is silence.
    sandbox.forge("UPDATE runtime_status SET heartbeat_asleep_ms = NULL");
    assert_eq!(unresponsive(), None);
    clock.suspend(NIGHT);
    assert_eq!(unresponsive(), Some(NIGHT));
    tenure.release().unwrap();
}

/// A promise that is made with the claim counts from the claim on, by the same clock.
#[test]
fn a_promise_made_with_the_claim_counts_from_then_on() {
    let sandbox = Sandbox::new();
    let (store, clock) = with_clock(&sandbox);
    let options = ClaimOptions::new().heartbeat_every(Duration::from_secs(1));
    let Claim::Granted(tenure) = store.profile("default").unwrap().claim_with(&options).unwrap()
    else {
        panic!("held")
    };
    let unresponsive = || report_of(&store).unresponsive_for;
    assert_eq!(unresponsive(), None);
    clock.advance(Duration::from_secs(2));
    assert_eq!(unresponsive(), None);
    clock.advance(Duration::from_millis(1));
    assert_eq!(unresponsive(), Some(Duration::from_millis(2_001)));
    tenure.update_status(&StatusUpdate::new().heartbeat()).unwrap();
    assert_eq!(unresponsive(), None);
    clock.step_wall_ms(86_400_000);
    assert_eq!(unresponsive(), None);
    tenure.release().unwrap();
    // Before the first beat, too, the wall clock is none to decide by.
    let Claim::Granted(tenure) = store.profile("default").unwrap().claim_with(&options).unwrap()
    else {
        panic!("held")
    };
    clock.step_wall_ms(86_400_000);
    assert_eq!(unresponsive(), None, "the wall clock was set, and nothing else has happened");
    tenure.release().unwrap();
}

/// FIELD-BUGS rows 21 and 22.
///
/// Symptom: a process at 100 % CPU that answers nobody, and the next one hangs without a word; or a
/// watchdog kills a healthy one for a late beat. It holds because hanging is reported to whoever
/// asks, and changes nothing of who owns.
#[test]
fn a_stuck_loop_is_reported_and_evicts_nobody() {
    let sandbox = Sandbox::new();
    let mut gateway = talker(&sandbox);
    assert_eq!(ask(&mut gateway, "promise 50"), "Ok");
    let silent = eventually("two beats are missing", LIMIT, || {
        sandbox.status().1["unresponsive_ms"].as_u64()
    });
    assert!(silent > 100, "{silent}");
    let longer = sandbox.status().1["unresponsive_ms"].as_u64().unwrap();
    assert!(longer >= silent, "it grows: {silent}, {longer}");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["running"], true, "{status:#}");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    let first = "default/gateway: running, but unresponsive: no heartbeat for ";
    assert!(text.starts_with(first), "{text}");
    let advice = text.lines().nth(1).unwrap();
    assert!(advice.starts_with("  try ") && advice.contains("incumbent restart"), "{text}");
    assert!(sandbox.cli(["status", "--all"]).out.contains("unresponsive for "));
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    for verb in [
        &["run", "--no-backoff", "--", "true"][..],
        &["run", "--no-backoff", "--wait=300ms", "--", "true"],
        &["claim", "--pid", &pid],
    ] {
        let asked = Instant::now();
        let answer = sandbox.cli(verb).assert_code(75);
        assert_within(Duration::from_secs(10), asked.elapsed(), &format!("{verb:?}"));
        let words =
            [&format!("held by pid {}", gateway.pid()), "unresponsive", "no heartbeat for "];
        answer.assert_complains(&words.map(|word| word as &str));
        let (code, answer) = sandbox.json(verb);
        assert_eq!(code, 75, "{answer:#}");
        assert!(answer["holder"]["unresponsive_ms"].as_u64().unwrap() > 100, "{answer:#}");
    }
    sandbox.cli(["evict"]).assert_code(75);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], gateway.pid());
    // A late beat does not come too late.
    beats_again(&sandbox, &mut gateway);
    gateway.finish(LIMIT).assert_code(0);
}

fn beats_again(sandbox: &Sandbox, gateway: &mut Process) {
    eventually("it is responsive again", LIMIT, || {
        ask(gateway, "beat 1");
        sandbox.status().1["unresponsive_ms"].is_null().then_some(())
    });
}

/// FIELD-BUGS row 22.
///
/// Symptom: a healthy gateway was killed by its own watchdog, because writing the beat stalled (p99
/// of 31 s) on the loop that it guards. It holds because `beat` only counts; the writing is
/// somebody else's.
#[test]
fn a_store_that_stalls_does_not_stop_the_loop_that_beats() {
    let sandbox = Sandbox::new();
    let mut gateway = talker(&sandbox);
    assert_eq!(ask(&mut gateway, "promise 50"), "Ok");
    let mut beat = || -> u64 { ask(&mut gateway, "beat 100000").parse().unwrap() };
    let free_ms = beat().max(50);
    let writer = stopped_writer(&sandbox);
    // One that waited for the store would do so for seconds; a busy machine may disturb one of
    // them.
    let stalled_ms = (0..3).map(|_| beat()).min().unwrap();
    assert!(
        stalled_ms < 20 * free_ms,
        "100,000 beats took {stalled_ms} ms, and {free_ms} ms before"
    );
    eventually("nothing is written", LIMIT, || {
        ask(&mut gateway, "beat 1");
        sandbox.status().1["unresponsive_ms"].as_u64()
    });
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!((&status["pid"], &status["running"]), (&json!(gateway.pid()), &json!(true)));
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    beats_again(&sandbox, &mut gateway);
    gateway.finish(LIMIT).assert_code(0);
}

/// Beats by the command line: a promise with `=DUR`, one beat without.
#[test]
fn a_script_beats_by_the_command_line() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, &["--heartbeat"]);
    let status = sandbox.status().1;
    assert!(status["heartbeat_at"].is_string(), "{status:#}");
    assert_eq!(status["runtime"]["last_state"], json!(null), "{status:#}");
    assert_eq!(sandbox.number("SELECT heartbeat_every_ms IS NULL FROM instances"), 1);
    for (word, ms) in [("1min 30s", 90_000), ("500ms", 500), ("2", 2_000), ("24h", 86_400_000)] {
        say(&sandbox, &mut run, &[&format!("--heartbeat={word}")]);
        assert_eq!(sandbox.number("SELECT heartbeat_every_ms FROM instances"), ms, "{word}");
    }
    assert_eq!(sandbox.status().1["unresponsive_ms"], json!(null));
    say(&sandbox, &mut run, &["--heartbeat=10ms", "--state", "running"]);
    let silent = eventually("two beats are missing", LIMIT, || {
        sandbox.status().1["unresponsive_ms"].as_u64()
    });
    assert!(silent > 20, "{silent}");
    // One beat keeps the promise as it is; a longer one is kept.
    say(&sandbox, &mut run, &["--heartbeat"]);
    assert_eq!(sandbox.number("SELECT heartbeat_every_ms FROM instances"), 10);
    say(&sandbox, &mut run, &["--heartbeat=1h"]);
    let status = sandbox.status().1;
    assert_eq!((&status["unresponsive_ms"], &status["state"]), (&json!(null), &json!("running")));
    // What cannot be kept can be taken back.
    say(&sandbox, &mut run, &["--heartbeat=10ms"]);
    eventually("two beats are missing", LIMIT, || sandbox.status().1["unresponsive_ms"].as_u64());
    say(&sandbox, &mut run, &["--clear", "heartbeat"]);
    assert_eq!(sandbox.number("SELECT heartbeat_every_ms IS NULL FROM instances"), 1);
    let status = sandbox.status().1;
    assert_eq!((&status["unresponsive_ms"], &status["state"]), (&json!(null), &json!("running")));
    run.end().assert_code(0);
}

/// Symptom: a gateway was killed for want of memory, and nobody could say how much it had used. The
/// last sample stays with its row.
#[test]
fn a_heartbeat_says_how_much_memory_it_has() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    let memory = || sandbox.status().1["runtime"]["memory_bytes"].clone();
    say(&sandbox, &mut run, &["--state", "running"]);
    assert_eq!(memory(), json!(null), "no heartbeat was given");
    say(&sandbox, &mut run, &["--heartbeat"]);
    let sampled = memory().as_u64().expect("it was sampled");
    // A shell's, and not that of a page or of the machine.
    assert!((64 << 10..256 << 20).contains(&sampled), "{sampled}");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    assert!(text.contains(" MiB, at its last heartbeat, "), "{text}");
    say(&sandbox, &mut run, &["--state", "draining"]);
    assert_eq!(memory(), json!(sampled), "a word is no heartbeat");
    run.kill();
    let end = sandbox.history().swap_remove(0);
    assert_eq!(end["memory_bytes"], json!(sampled), "{end:#}");
    let line = sandbox.cli(["history"]).assert_code(0).out;
    assert!(line.contains(" MiB in memory at its last heartbeat"), "{line}");
    // With the end, also after the next one has recorded that.
    assert_eq!(sandbox.status().1["last_end"]["memory_bytes"], json!(sampled));
    let mut next = obeying(&sandbox, &[]);
    assert_eq!(sandbox.status().1["last_end"]["memory_bytes"], json!(sampled));
    say(&sandbox, &mut next, &["--heartbeat"]);
    let metrics = sandbox.cli(["status", "--metrics"]).assert_code(0).out;
    assert!(metrics.contains("\nincumbent_memory_bytes{profile=\"default\""), "{metrics}");
    next.end();
}

/// Symptom: of a shell that starts the gateway 2 MiB were told, where the gateway had 64.
#[test]
fn the_memory_of_what_the_command_started_counts() {
    let sandbox = Sandbox::new();
    if !has("python3") {
        return skipped("needs python3");
    }
    let gateway = "import sys; data = bytearray(64 << 20); print('ready', flush=True); \
                   sys.stdin.read()";
    let claim = "incumbent claim --pid $$ > /dev/null || exit 99";
    let script = format!("{claim}; echo $$; python3 -c \"{gateway}\"; exit $?");
    let mut shell = Process::start(sandbox.shell(&script));
    let pid = shell.line();
    shell.line_with("ready");
    sandbox.cli(["status-set", "--pid", pid.trim(), "--heartbeat"]).assert_code(0);
    let sampled = sandbox.status().1["runtime"]["memory_bytes"].as_u64().expect("it was sampled");
    assert!(sampled > 64 << 20, "{sampled}");
    shell.finish(LIMIT).assert_code(0);
}

/// What a later version says in a column of its own stays, whatever this one writes; and the last
/// sample of the memory goes with its heartbeat.
#[test]
fn what_a_later_version_says_stays() {
    let sandbox = Sandbox::new();
    sandbox.sick("it changes the schema");
    let script = claimed(&sandbox, &[]);
    write_for(&sandbox, script.pid(), &["--state", "running", "--heartbeat"]);
    sandbox.forge("ALTER TABLE runtime_status ADD COLUMN later TEXT");
    sandbox.forge("UPDATE runtime_status SET later = 'kept'");
    for words in [&["--state", "draining"][..], &["--heartbeat"]] {
        write_for(&sandbox, script.pid(), words);
        let kept = "SELECT count(*) FROM runtime_status
                    WHERE later = 'kept' AND memory_bytes > 0 AND heartbeat_asleep_ms >= 0";
        assert_eq!(sandbox.number(kept), 1, "{words:?}");
    }
}

/// A program that holds the office itself samples its own memory.
#[test]
fn a_library_samples_its_own_memory() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    tenure.update_status(&StatusUpdate::new().heartbeat()).unwrap();
    let sampled = sandbox.status().1["runtime"]["memory_bytes"].as_u64();
    assert!(sampled.is_some_and(|bytes| bytes > 64 << 10), "{sampled:?}");
}
