//! Markers expire by the boot clock, and a request lives for the stop budget of its target.

use std::time::Duration;

use incumbent::ClaimOptions;
use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::stop::StopCause;
use serde_json::json;

use super::{boot_ms, word};
use crate::support::{LIMIT, Process, Run, Sandbox, granted, skipped, works};

/// FIELD-BUGS row 13: an NTP step, a sleep or a person at the clock made fresh things old, or the
/// other way round. It holds because what decides is a clock that does not step, of that boot.
#[test]
fn a_marker_expires_by_the_boot_clock_whatever_the_wall_clock_says() {
    const DECADE_MS: i64 = 10 * 365 * 24 * 3_600 * 1_000;
    let sandbox = Sandbox::new();
    let (store, clock) = sandbox.with_clock(1_800_000_000_000, 5_000);
    let me = std::process::id();
    let tenure = granted(store.profile("default").unwrap().claim());
    let peek = || tenure.peek_marker(Some(&word("note"))).unwrap().map(|marker| marker.id);
    let minute = MarkerRequest::new(word("note")).ttl(Duration::from_mins(1)).unwrap();
    let first = store.write_marker(me, &minute).unwrap().marker;
    assert_eq!(first.expires_at_ms - first.written_at_ms, 60_000);
    for step in [DECADE_MS, -2 * DECADE_MS, DECADE_MS] {
        clock.step_wall_ms(step);
        assert_eq!(peek(), Some(first.id), "after a step of {step} ms");
    }
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(peek(), Some(first.id));
    clock.advance(Duration::from_millis(1));
    assert_eq!(peek(), None);
    assert!(tenure.consume_marker(None).unwrap().is_none());
    assert!(store.peek_marker(me, None).unwrap().is_none());
    // No step brings it back.
    clock.step_wall_ms(-DECADE_MS);
    assert_eq!(peek(), None);
    assert!(matches!(tenure.stop_inquiry().ask().cause, StopCause::Unplanned));
    // Whoever writes next puts it away.
    let how = "SELECT closed_how = 'expired' FROM markers ORDER BY id LIMIT 1";
    assert_eq!(sandbox.number("SELECT count(*) FROM markers WHERE closed_at_ms IS NULL"), 1);
    let second = store.write_marker(me, &minute).unwrap().marker;
    assert_eq!(sandbox.number(how), 1);
    assert_eq!(peek(), Some(second.id));
    assert!(second.id > first.id, "a wall clock that fell back lowers no id");
}

/// Another boot is another time, and a time that no clock of ours has written is over: never is it
/// fresh. R:ROW.
#[test]
fn an_absurd_expiry_reads_as_expired() {
    let sandbox = Sandbox::new();
    let script = sandbox.stranger();
    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    let stranger = sandbox.stranger();
    let in_31_days = boot_ms() + 31 * 24 * 3_600 * 1_000;
    let cases = [
        // Another boot: the clocks have moved apart.
        "expires_boot_id = '11111111-2222-3333-4444-555555555555',
         expires_at_ms = expires_at_ms + 3600000"
            .to_owned(),
        "expires_boot_id = NULL, expires_at_ms = expires_at_ms + 3600000".to_owned(),
        "expires_boot_id = '', expires_at_ms = expires_at_ms - 3600000".to_owned(),
        "expires_boot_ms = -1".to_owned(),
        "expires_boot_ms = 0".to_owned(),
        format!("expires_boot_ms = {}", i64::MIN),
        format!("expires_boot_ms = {}", i64::MAX),
        format!("expires_boot_ms = {in_31_days}"),
    ];
    for case in &cases {
        for (process, name) in [(&script, "planned_stop"), (&stranger, "note")] {
            let pid = process.pid();
            let marker = sandbox.leave(pid, &[name]);
            assert_eq!(sandbox.peek(pid).as_deref(), Some(name));
            let id = &marker["id"];
            assert_eq!(sandbox.forge(&format!("UPDATE markers SET {case} WHERE id = {id}")), 1);
            assert_eq!(sandbox.peek(pid), None, "{case}: {marker:#}");
            assert_eq!(sandbox.marker(pid, &["consume", name]).0, 1, "{case}");
            assert_eq!(sandbox.closed_how(&marker), None, "a question closes nothing");
            // It stands in nobody's way.
            let next = sandbox.leave(pid, &[name]);
            // Of a boot that nobody knows it is left alone until then.
            let how = if case.ends_with("NULL") { "replaced" } else { "expired" };
            assert_eq!(sandbox.closed_how(&marker).as_deref(), Some(how), "{case}");
            assert_eq!(sandbox.marker(pid, &["consume"]).1["id"], next["id"], "{case}");
        }
    }
}

/// What people read decides nothing.
#[test]
fn the_times_for_people_decide_nothing() {
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let stranger = sandbox.stranger();
    let pid = stranger.pid();
    for times in [
        "written_at_ms = -1, expires_at_ms = -1".to_owned(),
        format!("written_at_ms = {0}, expires_at_ms = {0}", i64::MAX),
        format!("written_at_ms = {0}, expires_at_ms = {0}", i64::MIN),
    ] {
        let marker = sandbox.leave(pid, &["note"]);
        sandbox.forge(&format!("UPDATE markers SET {times} WHERE id = {}", marker["id"]));
        let (code, peeked) = sandbox.marker(pid, &["peek"]);
        assert_eq!((code, &peeked["id"]), (0, &marker["id"]), "{times}: {peeked:#}");
        assert_eq!((&peeked["written_at"], &peeked["expires_at"]), (&json!(null), &json!(null)));
        let text = sandbox.cli(["marker", "consume", "--pid", &pid.to_string()]).assert_code(0);
        assert!(text.out.ends_with("at an unknown time\n"), "{text:#?}");
    }
}

/// R:TIMENS. FIELD-BUGS row 13: in another time namespace the boot clock shows another time, and so
/// does every start time. What is stored has the offset taken out, so both sides mean the same.
#[test]
fn a_time_namespace_moves_no_expiry() {
    let words = ["unshare", "-UrTf", "--boottime", "100000"];
    if !works(&words) {
        return skipped("needs time namespaces");
    }
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let stranger = sandbox.stranger();
    let pid = stranger.pid().to_string();
    let inside = |verb: &[&str]| {
        let arguments = [&["--json", "marker"], verb, &["--pid", &pid]].concat();
        Process::start(sandbox.incumbent_under(&words, &arguments)).finish(LIMIT)
    };
    inside(&["write", "inside", "--ttl", "1min"]).assert_code(0);
    assert_eq!(sandbox.peek(stranger.pid()).as_deref(), Some("inside"));
    let left = sandbox.number("SELECT expires_boot_ms FROM markers") - boot_ms();
    assert!((0..=60_000).contains(&left), "it has {left} ms left");
    assert_eq!(inside(&["consume"]).assert_code(0).json()["name"], "inside");
    sandbox.leave(stranger.pid(), &["outside", "--ttl", "1min"]);
    assert_eq!(inside(&["consume"]).assert_code(0).json()["name"], "outside");
}

/// FIELD-BUGS row 48, and 54: a marker that lived for a minute was gone when a gateway that drained
/// for 90 s at last wrote down why it ended; its supervisor took that for a crash. It holds because
/// a request lives as long as its target may take to stop, and over a minute on top.
#[test]
fn a_planned_stop_outlives_the_drain_that_it_started() {
    let sandbox = Sandbox::new();
    let (store, clock) = sandbox.with_clock(1_800_000_000_000, 5_000);
    let me = std::process::id();
    let profile = store.profile("default").unwrap();
    let hour = ClaimOptions::new().stop_budget(Duration::from_hours(1));
    for (options, drain) in [(ClaimOptions::new(), 90), (hour, 3_600)] {
        for name in [MarkerName::planned_stop(), MarkerName::takeover(), MarkerName::restart()] {
            let tenure = granted(profile.claim_with(&options));
            let marker = store.write_marker(me, &MarkerRequest::new(name.clone())).unwrap().marker;
            clock.advance(Duration::from_secs(drain));
            let peeked = tenure.peek_marker(None).unwrap();
            assert_eq!(peeked.as_ref(), Some(&marker), "after {drain} s");
            clock.advance(Duration::from_mins(1));
            assert_eq!(tenure.peek_marker(None).unwrap().as_ref(), Some(&marker), "{name}");
            let cause = tenure.stop_inquiry().ask().cause;
            match name.as_str() {
                "takeover" => assert!(matches!(cause, StopCause::TakenOver(_)), "{cause:?}"),
                "planned_stop" => assert!(matches!(cause, StopCause::PlannedStop(_)), "{cause:?}"),
                _ => assert!(matches!(cause, StopCause::Unplanned), "{cause:?}"),
            }
            // And not for ever.
            let _later = store.write_marker(me, &MarkerRequest::new(name.clone())).unwrap().marker;
            clock.advance(Duration::from_secs(drain) + Duration::from_mins(3));
            assert_eq!(tenure.peek_marker(None).unwrap(), None, "{name} after {drain} s");
            tenure.release().unwrap();
        }
    }
    // A word of one's own lives for a minute, unless one says how long.
    let tenure = granted(profile.claim());
    store.write_marker(me, &MarkerRequest::new(word("note"))).unwrap();
    clock.advance(Duration::from_secs(59));
    assert!(tenure.peek_marker(None).unwrap().is_some());
    clock.advance(Duration::from_secs(1));
    assert!(tenure.peek_marker(None).unwrap().is_none());
}

/// The same by the verbs, whose clock cannot be told: the row says until when.
#[test]
fn a_request_lives_for_the_stop_budget_that_its_target_published() {
    let sandbox = Sandbox::new();
    let script = sandbox.stranger();
    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    let stranger = sandbox.stranger();
    // A command that does not end when it is asked to.
    let deaf = ["--", "/bin/sh", "-c", "trap '' TERM; echo $$; exec cat"];
    let profile = ["run", "--no-backoff", "--profile"];
    let short =
        sandbox.incumbent([&profile[..], &["short", "--stop-budget", "2s"], &deaf].concat());
    let long =
        sandbox.incumbent([&profile[..], &["long", "--stop-budget", "5min"], &deaf].concat());
    let short = Run::start(short);
    let long = Run::start(long);
    for (what, pid, budget_ms) in [
        ("a claim", script.pid(), 90_000),
        ("a stranger", stranger.pid(), 90_000),
        ("a run of 2 s", short.pid(), 2_000),
        ("a run of 5 min", long.pid(), 300_000),
        ("the command of a run of 5 min", long.command.pid, 300_000),
    ] {
        for name in ["restart", "takeover", "planned_stop"] {
            let before = boot_ms();
            let marker = sandbox.leave(pid, &[name]);
            let until = "SELECT expires_boot_ms FROM markers WHERE id =";
            let until = sandbox.number(&format!("{until} {}", marker["id"]));
            let lives = until - before;
            assert!(lives >= budget_ms + 60_000, "{name} for {what} lives {lives} ms");
            assert!(lives < budget_ms + 180_000, "{name} for {what} lives {lives} ms");
        }
    }
    // What the caller says counts for more.
    let before = boot_ms();
    let marker = sandbox.leave(long.pid(), &["planned_stop", "--ttl", "3s"]);
    let until = format!("SELECT expires_boot_ms FROM markers WHERE id = {}", marker["id"]);
    assert!(sandbox.number(&until) < before + 60_000);
}
