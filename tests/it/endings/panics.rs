//! Panics: in a thread, in a callback, while unwinding, survived.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::gateway::{BOOM, FILE, ROLE_TEST, last_order};
use super::survived::SURVIVED;
use crate::support::{LIMIT, Process, Sandbox, ask, assert_within, eventually, kill, wait_stopped};

/// The exit path of a panic: it unwinds through the tenure, which lets go as it is dropped.
#[test]
fn a_panic_that_unwinds_through_the_tenure_is_told_with_its_place() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record"]);
    assert_eq!(last_order(&mut gateway, "panic").code(), Some(101));
    let told = sandbox.end_now();
    told.assert("panicked", None, None, None).assert_last();
    let detail = told.detail();
    let message = format!("thread \"{ROLE_TEST}\" panicked: {BOOM} at ");
    assert!(detail.starts_with(&message), "{told:#?}");
    let place = &detail[message.len()..];
    let parts: Vec<&str> = place.rsplitn(3, ':').collect();
    assert!(parts[2].ends_with(FILE), "{told:#?}");
    assert!(parts[..2].iter().all(|number| number.parse::<u32>().is_ok()), "{told:#?}");
    told.assert_story("one of its threads panicked (DETAIL) [panicked]");
    assert_eq!(sandbox.end_event()["reason"], "panicked");
    let event = "SELECT count(*) FROM events WHERE event = 'panicked'
         AND json_extract(detail, '$.message') LIKE '%frobnicator%'";
    assert_eq!(sandbox.number(event), 1);
}

/// Without a hook there is no message; that it unwound is known all the same.
#[test]
fn a_panic_without_a_hook_is_a_panic() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&[]);
    assert_eq!(last_order(&mut gateway, "panic").code(), Some(101));
    let told = sandbox.end_now();
    told.assert("panicked", None, None, None).assert_last();
    told.assert_story("one of its threads panicked [panicked]");
    assert_eq!(sandbox.last_words(), 0);
}

/// A panic of some thread and then the end of the process, whichever way.
#[test]
fn a_process_that_ends_after_a_panic_ended_by_it() {
    for end in ["exit 1", "exit 0", "abort"] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["tell speaks", "record"]);
        gateway.say("panic text");
        gateway.err_line_with(&format!("the hook of before: {BOOM}"));
        gateway.err_line_with("=> ");
        last_order(&mut gateway, end);
        for told in [sandbox.end_now(), sandbox.end_settled()] {
            told.assert("panicked", None, None, None);
            told.assert_detail(&[&format!("thread \"worker\" panicked: {BOOM} at "), FILE]);
        }
    }
}

/// As with `panic = "abort"`: nothing unwinds, no destructor runs.
#[test]
fn a_panic_that_aborts_is_a_panic() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["tell aborts", "record"]);
    gateway.say("panic");
    gateway.err_line_with("the hook of before: ");
    gateway.wait(LIMIT);
    for told in [sandbox.end_now(), sandbox.end_settled()] {
        told.assert("panicked", None, None, None).assert_detail(&[BOOM, FILE]);
    }
}

/// A panic that was caught and survived explains no later end; one just before the end does. A
/// gateway that says nothing of itself is no less alive: its survival is noted for it.
#[test]
fn a_panic_that_was_survived_explains_nothing() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record", "catch-panic"]);
    eventually("its survival on record", LIMIT, || (sandbox.number(SURVIVED) == 1).then_some(()));
    gateway.kill();
    sandbox.end_now().assert("anchor_released", None, None, None).assert_last();
    sandbox.end_settled().assert("anchor_released", None, None, None);
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record", "catch-panic", "beat"]);
    gateway.kill();
    sandbox.end_settled().assert("panicked", None, None, None);
    // Who lets go in peace has survived it; that it panicked just before is told beside.
    let mut gateway = sandbox.linked_gateway(&["record", "catch-panic"]);
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let told = sandbox.end_now();
    told.assert("released", None, None, None).assert_last().assert_detail(&[BOOM]);
    assert!(told.story().starts_with("it released the office (thread "), "{told:#?}");
    gateway.finish(LIMIT).assert_code(0);
}

/// Whatever a panic says: one line in the history, no secret, a bounded row.
#[test]
fn whatever_a_panic_says_is_told_in_one_line() {
    for (kind, expected) in [
        ("lines", "panicked: one"),
        ("long", "panicked: x\u{e9}x\u{e9}"),
        ("secret", "panicked: cannot log in with --token="),
        ("value", "panicked: a value that is not text"),
        ("empty", "panicked: explicit panic"),
    ] {
        let sandbox = Sandbox::new();
        let order = format!("panic {kind}");
        let mut gateway = sandbox.linked_gateway(&["record", &order]);
        last_order(&mut gateway, "exit 1");
        let asked = sandbox.end_now();
        let told = sandbox.end_settled();
        let text = sandbox.cli(["history"]).assert_code(0).out;
        assert_eq!(text.lines().count(), 2, "{kind}: {text}");
        assert!(!text.contains(['\u{1b}', '\u{7}', '\r']), "{kind}: {text:?}");
        for told in [&asked, &told] {
            told.assert("panicked", None, None, None).assert_detail(&[expected, FILE]);
            assert!(told.detail().len() < 5 * 1024, "{kind}: {} bytes", told.detail().len());
        }
        let everything = sandbox.json(["sql", "SELECT * FROM shutdowns"]).1.to_string()
            + &sandbox.json(["sql", "SELECT * FROM events"]).1.to_string()
            + &sandbox.json(["sql", "SELECT * FROM instances"]).1.to_string()
            + &text;
        assert!(!everything.contains("SECRETSECRET"), "{kind}");
        assert!(everything.len() < 64 * 1024, "{kind}: {} bytes", everything.len());
    }
}

/// A store that cannot be written holds a panic up for a moment, and hides nothing from the hook of
/// before; the row is written with the next change, or lost with the process.
#[test]
fn a_panic_waits_for_no_stopped_writer() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["tell speaks", "record"]);
    let mut blocker = sandbox.newcomer();
    assert_eq!(ask(&mut blocker, "block"), "done");
    kill(blocker.pid(), Signal::STOP);
    wait_stopped(blocker.pid());
    gateway.say("panic text");
    gateway.err_line_with("the hook of before: ");
    let line = gateway.err_line_with("=> ");
    let took_ms: u64 = line.split_once("=> ").unwrap().1.parse().unwrap();
    // 250 ms by design; the rest is for a busy machine.
    assert!((150..2_000).contains(&took_ms), "{took_ms} ms");
    assert_eq!(sandbox.last_words(), 0);
    blocker.kill();
    assert_eq!(ask(&mut gateway, "beat"), "said");
    assert_eq!(sandbox.last_words(), 1, "written with the next change");
    gateway.kill();
    sandbox.end_settled().assert("panicked", None, None, None).assert_detail(&[BOOM]);

    // Nobody lets the lock go: the process ends all the same.
    let mut gateway = sandbox.linked_gateway(&["tell speaks", "record"]);
    let mut blocker = sandbox.newcomer();
    assert_eq!(ask(&mut blocker, "block"), "done");
    kill(blocker.pid(), Signal::STOP);
    wait_stopped(blocker.pid());
    let began = Instant::now();
    ask(&mut gateway, "panic text");
    assert_eq!(last_order(&mut gateway, "exit 3").code(), Some(3));
    assert_within(Duration::from_secs(5), began.elapsed(), "it");
    blocker.kill();
    sandbox.end_settled().assert("anchor_released", None, None, None);
}

/// A panic inside of what the library calls back is one like any other: on record, and it takes
/// nothing else along.
#[test]
fn a_panic_in_a_callback_is_on_record() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["tell speaks", "record", "catch and panic"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("the hook of before: ");
    // The gateway goes on; what its callback should have done is left undone.
    assert_eq!(ask(&mut gateway, "beat"), "said");
    sandbox.assert_status(0, "alive", "anchor_held");
    gateway.kill();
    sandbox.end_settled().assert("panicked", None, None, None).assert_detail(&[BOOM]);

    let mut gateway = sandbox.linked_gateway(&["tell speaks", "record", "watch and panic"]);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    gateway.err_line_with("the hook of before: ");
    // It was evicted before it panicked, and stays so.
    gateway.kill();
    sandbox
        .end_now()
        .assert("evicted", Some("incumbent evict --force (pid "), None, None)
        .assert_last();
    sandbox.settle_end();
    sandbox.end_told(None, 1).assert("evicted", Some("incumbent evict --force (pid "), None, None);
}

/// A panic in the callback ended the thread that waits for signals, and they were caught by nobody:
/// SIGTERM had no effect any more, until SIGKILL. It holds because the signals get their defaults
/// back with that thread, whatever ends it.
#[test]
fn a_panic_in_a_callback_gives_the_signals_back() {
    for signal in [Signal::TERM, Signal::INT] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["tell speaks", "record", "catch and panic"]);
        gateway.signal(Signal::TERM);
        gateway.err_line_with("the hook of before: ");
        // The hook runs before the thread unwinds: one that comes meanwhile may be lost.
        eventually("the next signal ends it", LIMIT, || {
            gateway.signal(signal);
            gateway.has_ended().then_some(())
        });
        assert_eq!(gateway.wait(LIMIT).signal(), Some(signal.as_raw()));
    }
}

/// Why a gateway exits, and with what: by what its store, the signal and its panics say.
#[test]
fn the_cause_of_an_exit_is_told_before_it() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record", "catch"]);
    let cause = |gateway: &mut Process, order: &str| ask(gateway, order);
    assert_eq!(cause(&mut gateway, "cause -"), "exited 0");
    assert_eq!(cause(&mut gateway, "cause 15"), "signalled 0");
    ask(&mut gateway, "state starting");
    assert_eq!(cause(&mut gateway, "cause -"), "exited 0");
    assert_eq!(cause(&mut gateway, "cause 15"), "start_interrupted 75");
    ask(&mut gateway, "state running");
    ask(&mut gateway, "catch-panic");
    assert_eq!(cause(&mut gateway, "cause -"), "panicked 101");
    // What was sent comes before what went wrong here, and what was asked for before both.
    assert_eq!(cause(&mut gateway, "cause 15"), "signalled 0");
    let mut stop = sandbox.begin(&["stop"]);
    gateway.err_line_with("caught 15: planned_stop 0");
    assert_eq!(cause(&mut gateway, "cause -"), "planned_stop 0");
    assert_eq!(cause(&mut gateway, "cause 15"), "planned_stop 0");
    stop.kill();
}
