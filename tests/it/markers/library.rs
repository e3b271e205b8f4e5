//! Why am I being stopped? What a gateway that links the library learns, and how fast.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::assert_answered_in_time;
use super::party::ROLE_TEST;
use crate::support::{Disk, LIMIT, Sandbox, ask_json, assert_within, told_json};

/// FIELD-BUGS row 54.
///
/// Symptom: a planned stop was counted as a crash, because a signal says nothing about who sent it
/// and why. It holds because the marker says so, to the thread that handles the signal; a second
/// signal of the same stop is told the same.
#[test]
fn a_gateway_learns_from_its_signal_why_it_is_stopped() {
    for (name, cause) in [("planned_stop", "planned_stop"), ("takeover", "taken_over")] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.marked_gateway();
        assert_eq!(ask_json(&mut gateway, "catch"), "catching");
        // Nobody has said anything; a signal from who knows where. And what is no reason to end.
        sandbox.leave(gateway.pid(), &["note"]);
        for _ in 0..2 {
            gateway.signal(Signal::TERM);
            let told = told_json(&mut gateway);
            assert_eq!((&told["cause"], &told["recorded"]), (&json!("unplanned"), &json!(true)));
            assert_answered_in_time(&told);
        }
        let marker = sandbox.leave(gateway.pid(), &[name, "--reason", "upgrade to 2.0"]);
        for signal in 1..=3 {
            gateway.signal(Signal::TERM);
            let told = told_json(&mut gateway);
            assert_eq!(told["cause"], cause, "signal {signal}: {told:#}");
            assert_eq!(told["recorded"], true, "signal {signal}: {told:#}");
            assert_eq!(told["id"], marker["id"], "signal {signal}: {told:#}");
            assert_eq!(told["by"], marker["by"], "signal {signal}: {told:#}");
            assert_eq!(told["by_pid"], marker["by_pid"], "signal {signal}: {told:#}");
            assert_eq!(told["reason"], "upgrade to 2.0", "signal {signal}: {told:#}");
            assert_answered_in_time(&told);
        }
        // By whichever thread, and whichever copy of the inquiry.
        assert_eq!(ask_json(&mut gateway, "ask")["id"], marker["id"]);
        assert_eq!(sandbox.closed_how(&marker).as_deref(), Some("consumed"));
        // The last word counts.
        let late = sandbox.leave(gateway.pid(), &["takeover"]);
        assert_eq!(ask_json(&mut gateway, "ask")["id"], late["id"]);
        assert_eq!(sandbox.closed_how(&late).as_deref(), Some("consumed"));
        // And none for ever: a signal of next week is another matter.
        sandbox.forge("UPDATE markers SET expires_boot_ms = 1 WHERE name <> 'note'");
        assert_eq!(ask_json(&mut gateway, "ask")["cause"], "unplanned");
        let rows = sandbox.marker_rows();
        let row = rows.iter().find(|row| row["id"] == marker["id"]).unwrap();
        let by = format!("pid {} (", gateway.pid());
        assert!(row["closed_by"].as_str().unwrap().starts_with(&by), "{row:#}");
        // The note is still there, for whoever it is for.
        assert_eq!(ask_json(&mut gateway, "consume note")["name"], "note");
        gateway.finish(LIMIT).assert_code(0);
    }
}

/// A restart is not a stop: it stays for whoever serves it.
#[test]
fn a_restart_is_no_reason_to_end() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.marked_gateway();
    let restart = sandbox.leave(gateway.pid(), &["restart"]);
    assert_eq!(ask_json(&mut gateway, "ask")["cause"], "unplanned");
    assert_eq!(sandbox.closed_how(&restart), None);
    assert_eq!(ask_json(&mut gateway, "consume restart")["id"], restart["id"]);
    gateway.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS rows 63 and 77: whoever is being stopped does not hang because a stopped process has
/// the store's write lock. What the marker says is true all the same, and it is written down later.
#[test]
fn the_answer_comes_in_time_while_another_process_has_the_write_lock() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.marked_gateway();
    assert_eq!(ask_json(&mut gateway, "catch"), "catching");
    let note = sandbox.leave(gateway.pid(), &["note"]);
    let stop = sandbox.leave(gateway.pid(), &["planned_stop"]);
    let writer = sandbox.stopped_writer();
    for _ in 0..3 {
        gateway.signal(Signal::TERM);
        let told = told_json(&mut gateway);
        assert_eq!((&told["cause"], &told["recorded"]), (&json!("planned_stop"), &json!(false)));
        assert_eq!(told["id"], stop["id"], "{told:#}");
        assert_answered_in_time(&told);
    }
    let consumed = ask_json(&mut gateway, "consume note");
    assert_eq!((&consumed["id"], &consumed["recorded"]), (&note["id"], &json!(false)));
    assert_answered_in_time(&consumed);
    // None is no matter of writing.
    let nothing = ask_json(&mut gateway, "consume word");
    assert_eq!((&nothing["id"], &nothing["recorded"]), (&json!(null), &json!(null)));

    let pid = gateway.pid().to_string();
    let asked = Instant::now();
    let (code, consumed) = sandbox.marker(gateway.pid(), &["consume", "note"]);
    let took = asked.elapsed();
    assert_eq!(code, 0, "{consumed:#}");
    assert_eq!((&consumed["consumed"], &consumed["recorded"]), (&json!(true), &json!(false)));
    // A process has to start and to end, beside many others.
    assert_within(Duration::from_secs(3), took, "it");
    let words = ["marker", "consume", "note", "--pid", &pid];
    let told = sandbox.cli(words).assert_code(0);
    assert!(told.out.starts_with("note by "), "{told:#?}");
    told.assert_complains(&["incumbent: marker consume:", "could not be recorded"]);
    assert_eq!(sandbox.peek(gateway.pid()).as_deref(), Some("planned_stop"));

    drop(writer);
    gateway.signal(Signal::TERM);
    let told = told_json(&mut gateway);
    assert_eq!((&told["cause"], &told["recorded"]), (&json!("planned_stop"), &json!(true)));
    assert_eq!(told["id"], stop["id"], "{told:#}");
    assert_eq!(sandbox.closed_how(&stop).as_deref(), Some("consumed"));
    assert_eq!(sandbox.marker(gateway.pid(), &["consume"]).1["recorded"], true);
    gateway.finish(LIMIT).assert_code(0);
}

/// Another thread of the gateway that waits for the store has its only writing connection, for as
/// long as the store is patient: 5 s. The one that handles the signal does not wait for that.
#[test]
fn the_answer_comes_in_time_while_another_thread_waits_for_the_store() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.marked_gateway();
    let stop = sandbox.leave(gateway.pid(), &["takeover"]);
    let note = sandbox.leave(gateway.pid(), &["note"]);
    let writer = sandbox.stopped_writer();
    assert_eq!(ask_json(&mut gateway, "contend"), "contending");
    // The first of these may be faster than the other thread; the last is not.
    for _ in 0..4 {
        let told = ask_json(&mut gateway, "ask");
        assert_eq!((&told["cause"], &told["recorded"]), (&json!("taken_over"), &json!(false)));
        assert_eq!(told["id"], stop["id"], "{told:#}");
        assert_answered_in_time(&told);
    }
    let consumed = ask_json(&mut gateway, "consume note");
    assert_eq!((&consumed["id"], &consumed["recorded"]), (&note["id"], &json!(false)));
    assert_answered_in_time(&consumed);
    assert_eq!(ask_json(&mut gateway, "still"), true, "the test is about a thread that waits");
    drop(writer);
    assert_eq!(ask_json(&mut gateway, "contended"), "granted");
    assert_eq!(ask_json(&mut gateway, "ask")["recorded"], true);
    assert_eq!(sandbox.closed_how(&stop).as_deref(), Some("consumed"));
    gateway.finish(LIMIT).assert_code(0);
}

/// R:FULL. FIELD-BUGS row 78: a planned stop must not look like a crash because the disk is full.
#[test]
fn the_answer_is_true_on_a_full_disk() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let mut gateway = disk.role(ROLE_TEST, "gateway");
    assert_eq!(told_json(&mut gateway), "ready");
    assert!(ask_json(&mut gateway, "claim").is_i64());
    assert_eq!(ask_json(&mut gateway, "catch"), "catching");
    let pid = gateway.pid().to_string();
    for name in ["planned_stop", "note"] {
        disk.cli(&["marker", "write", name, "--pid", &pid]).assert_code(0);
    }
    disk.fill_up();
    for _ in 0..2 {
        gateway.signal(Signal::TERM);
        let told = told_json(&mut gateway);
        assert_eq!(told["cause"], "planned_stop", "{told:#}");
        assert_eq!(told["recorded"], false, "the test is about what cannot be written: {told:#}");
        assert_answered_in_time(&told);
    }
    let consumed = ask_json(&mut gateway, "consume note");
    assert_eq!((&consumed["name"], &consumed["recorded"]), (&json!("note"), &json!(false)));
    assert_answered_in_time(&consumed);
    let consumed = disk.cli(&["--json", "marker", "consume", "note", "--pid", &pid]);
    let document = consumed.assert_code(0).json();
    assert_eq!((&document["name"], &document["recorded"]), (&json!("note"), &json!(false)));
    // What cannot be written was not left.
    let refused = disk.cli(&["--json", "marker", "write", "more", "--pid", &pid]);
    assert_eq!(refused.assert_code(70).json()["error"]["kind"], "cannot_write");

    disk.shell("rm store/fill").assert_code(0);
    gateway.signal(Signal::TERM);
    let told = told_json(&mut gateway);
    assert_eq!((&told["cause"], &told["recorded"]), (&json!("planned_stop"), &json!(true)));
    assert_eq!(ask_json(&mut gateway, "consume note")["recorded"], true);
    let peeked = disk.cli(&["--json", "marker", "peek", "--pid", &pid]);
    assert_eq!(peeked.assert_code(1).json(), json!({"found": false}));
    gateway.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS row 70: nothing crosses a fork. The child is told that it cannot know, at once, and
/// the parent's marker is the parent's.
#[test]
fn a_forked_child_is_told_nothing_and_consumes_nothing() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.marked_gateway();
    let stop = sandbox.leave(gateway.pid(), &["planned_stop"]);
    for _ in 0..3 {
        assert_eq!(ask_json(&mut gateway, "fork"), 0);
    }
    // Also while a thread of the parent, which the child does not have, is writing.
    let writer = sandbox.stopped_writer();
    ask_json(&mut gateway, "contend");
    for _ in 0..3 {
        assert_eq!(ask_json(&mut gateway, "fork"), 0);
    }
    drop(writer);
    assert_eq!(ask_json(&mut gateway, "contended"), "granted");
    assert_eq!(sandbox.closed_how(&stop), None);
    let told = ask_json(&mut gateway, "ask");
    assert_eq!((&told["id"], &told["recorded"]), (&stop["id"], &json!(true)));
    gateway.finish(LIMIT).assert_code(0);
}

/// Symptom: a gateway knew on its first signal that its stop was planned, and not on its second,
/// because the store had been taken away in between. It holds because what was said once is kept.
#[test]
fn an_answer_is_not_forgotten_when_the_store_goes_away() {
    for is_recorded in [true, false] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.marked_gateway();
        let stop = sandbox.leave(gateway.pid(), &["planned_stop", "--reason", "moving house"]);
        let writer = (!is_recorded).then(|| sandbox.stopped_writer());
        let told = ask_json(&mut gateway, "ask");
        assert_eq!(told["recorded"], is_recorded, "{told:#}");
        assert_eq!(told["id"], stop["id"], "{told:#}");
        drop(writer);
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
        }
        for _ in 0..2 {
            let told = ask_json(&mut gateway, "ask");
            assert_eq!(told["cause"], "planned_stop", "recorded: {is_recorded}: {told:#}");
            assert_eq!((&told["id"], &told["reason"]), (&stop["id"], &json!("moving house")));
            assert_eq!(told["recorded"], is_recorded, "{told:#}");
            assert_answered_in_time(&told);
        }
    }
    // Who never knew cannot know now, and says so.
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.marked_gateway();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    let told = ask_json(&mut gateway, "ask");
    assert_eq!((&told["cause"], &told["recorded"]), (&json!("store_replaced"), &json!(false)));
    assert_answered_in_time(&told);
}
