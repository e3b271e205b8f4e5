//! The owners on record: dead, stopped, leaking, unknown to their supervisor.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{HOLDING, LIMIT, Process, Run, Sandbox, assert_within, wait_stopped};

#[test]
fn the_dead_on_record_are_named_and_ended() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&["--lock", "token=a-secret-of-mine"]);
    run.kill();
    run.command.wait_gone(LIMIT);
    let pid = format!("pid {}", run.pid());
    let diagnosis = sandbox.doctor();
    let finding =
        diagnosis.assert("stale_rows", "info", &["default/gateway", &pid, "anchor_released"]);
    // The next start ends it: nobody has to do anything.
    diagnosis.assert_only(&[]);
    // Other profiles are other people's business.
    let (code, other) = sandbox.json(["--profile", "other", "doctor"]);
    assert_eq!(code, 0, "{other:#}");
    let before = sandbox.picture();
    let dry = sandbox.doctor_with(&["--fix", "--dry-run"]);
    let act = dry.about("stale_rows")[0]["act"].as_str().unwrap();
    assert!(act.starts_with("would end the record of default/gateway, pid "), "{act}");
    assert!(sandbox.picture() == before, "--dry-run wrote");
    assert_eq!(dry.code, 0);
    sandbox.try_remedy(finding, "incumbent evict").assert_code(0);
    sandbox.doctor().assert_silent("stale_rows");

    let mut run = sandbox.hold(&["--lock", "token=a-secret-of-mine"]);
    run.kill();
    run.command.wait_gone(LIMIT);
    let fixed = sandbox.cli(["doctor", "--fix"]).assert_code(0);
    assert!(fixed.out.contains("stale_rows: done: end the record"), "{fixed:#?}");
    assert_eq!(sandbox.history()[0]["end_reason"], "anchor_released");
    assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 0);
    assert_eq!(sandbox.anchor_names(), Vec::<String>::new(), "its anchor is collected as well");
    sandbox.doctor().assert_only(&[]);
}

/// FIELD-BUGS row 27: not being able to look ends nobody, also not by `--fix`.
#[test]
fn who_cannot_be_told_dead_is_unknown_and_left_alone() {
    let sandbox = Sandbox::new();
    let run = sandbox.stopped();
    sandbox.forge("UPDATE instances SET anchor = NULL, pid_ns = 'elsewhere'");
    let diagnosis = sandbox.doctor();
    diagnosis.assert("unknown_holders", "unknown", &["default/gateway", "foreign_namespace"]);
    let fixed = sandbox.doctor_with(&["--fix"]);
    assert!(fixed.about("unknown_holders")[0]["act"].is_null(), "{fixed:#?}");
    sandbox.assert_status(4, "unknown", "foreign_namespace");
    drop(run);
}

/// FIELD-BUGS row 16: it does nothing, and keeps everybody out.
#[test]
fn a_holder_that_is_stopped_is_named() {
    let sandbox = Sandbox::new();
    let run = sandbox.stopped();
    let diagnosis = sandbox.doctor();
    let pid = format!("pid {}", run.pid());
    let finding = diagnosis.assert("holders_stopped", "warning", &["default/gateway", &pid]);
    diagnosis.assert_only(&["holders_stopped"]);
    assert_eq!(sandbox.doctor_with(&["--fix"]).code, 1, "nobody is ended by a repair");
    sandbox.try_remedy(finding, "kill -CONT").assert_code(0);
    sandbox.doctor().assert_only(&[]);
    run.end().assert_code(0);
}

#[test]
fn a_holder_that_misses_its_heartbeats_is_named() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    sandbox.forge("UPDATE instances SET heartbeat_every_ms = 1000, heartbeat_at_ms = 1000000");
    let diagnosis = sandbox.doctor();
    diagnosis.assert("unresponsive", "warning", &["default/gateway", "every 1 s"]);
    diagnosis.assert_only(&["unresponsive"]);
    run.end().assert_code(0);
}

/// R:FD. FIELD-BUGS row 69: the lock of a dead owner is held by what it forked, and by whom is
/// said.
#[test]
fn who_holds_the_anchor_of_a_dead_owner_is_named() {
    let sandbox = Sandbox::new();
    let mut parent = sandbox.role(crate::identity::forked::FORKING_OWNER, "forking owner");
    parent.say("fork and keep");
    let said = parent.err_line_with("child ");
    let child: u32 = said.split([' ', ':']).nth(1).unwrap().parse().unwrap();
    parent.kill();
    let pid = format!("pid {child}");
    let diagnosis = sandbox.doctor();
    diagnosis.assert(
        "leaked_anchors",
        "warning",
        &["no_such_process", "still holds its lock file", &pid],
    );
    diagnosis.assert_only(&["leaked_anchors"]);
    let fixed = sandbox.doctor_with(&["--fix"]);
    assert_eq!(fixed.code, 1, "it is not ended by a repair: {fixed:#?}");
    // Its row is ended by the next start; the descriptor is still there.
    sandbox.used();
    let diagnosis = sandbox.doctor();
    let finding = diagnosis.assert("leaked_anchors", "warning", &["no_such_process", &pid]);
    sandbox.try_remedy(finding, &format!("kill {child}")).assert_code(0);
    crate::support::eventually("it is gone", LIMIT, || {
        (sandbox.doctor().about("leaked_anchors")[0]["severity"] == "ok").then_some(())
    });
}

/// FIELD-BUGS row 32: the store was deleted under an owner, and in the new one everybody is
/// refused.
#[test]
fn an_anchor_that_no_row_names_is_an_error_and_left_alone() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.stopped();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.file(&format!("store/state.db{suffix}"))).unwrap();
    }
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    let pid = format!("pid {}", run.pid());
    let diagnosis = sandbox.doctor();
    let words = ["every claim is refused", pid.as_str(), &sandbox.anchor_names()[0]];
    diagnosis.assert("orphan_anchors", "error", &words);
    // It is stopped, and notices nothing.
    diagnosis.assert("lost_files", "error", &[&pid, "state.db-wal"]);
    diagnosis.assert_only(&["lost_files", "orphan_anchors"]);
    let names = sandbox.anchor_names();
    assert_eq!(sandbox.doctor_with(&["--fix"]).code, 1);
    assert_eq!(sandbox.anchor_names(), names);
    // It was harmless: its way out works, too.
    let finding = sandbox.doctor().assert("orphan_anchors", "error", &[]).clone();
    sandbox.try_remedy(&finding, "incumbent evict --force").assert_code(0);
    sandbox.doctor().assert_only(&["lost_files"]);
    run.kill();
}

/// Symptom: the store was deleted together with its anchors under a stopped owner, every start was
/// refused, and the doctor had nothing to say. Cause: it looked in the directory, where that anchor
/// is no more. It holds because what the new store knows of the one before it is looked at, too; a
/// question leaves that as it is.
#[test]
fn an_anchor_that_was_deleted_with_its_store_is_an_error() {
    const KNOWN: &str = "SELECT count(*) FROM meta WHERE key = 'lost_owners'";
    for ends in [false, true] {
        let sandbox = Sandbox::new();
        let mut run = sandbox.stopped();
        let name = sandbox.anchor_names().remove(0);
        std::fs::remove_dir_all(sandbox.file("store")).unwrap();
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        if ends {
            run.kill();
            run.command.wait_gone(LIMIT);
            sandbox.doctor().assert_only(&[]);
            assert_eq!(sandbox.number(KNOWN), 1, "a question wrote");
            sandbox.used();
            continue;
        }
        let before = sandbox.picture();
        let diagnosis = sandbox.doctor();
        let pid = format!("pid {}", run.pid());
        let words = ["every claim is refused", "deleted", pid.as_str(), name.as_str()];
        let finding = diagnosis.assert("orphan_anchors", "error", &words);
        diagnosis.assert_only(&["lost_files", "orphan_anchors"]);
        assert!(sandbox.picture() == before, "a question wrote");
        assert_eq!(sandbox.doctor_with(&["--fix"]).code, 1, "that is for a person to decide");
        assert_eq!(sandbox.number(KNOWN), 1);
        sandbox.try_remedy(finding, "incumbent evict --force").assert_code(0);
        sandbox.doctor().assert_only(&["lost_files"]);
        sandbox.used();
        run.kill();
    }
}

/// Symptom: with more gateways than are told one by one, an anchor that outlived its owner was not
/// found. Cause: the first few that were held were looked at, of whomever. It holds because those
/// of live owners are not counted.
#[test]
fn a_leak_is_found_among_many_live_owners() {
    let sandbox = Sandbox::new();
    let owners: Vec<Run> =
        (0..12).map(|number| sandbox.hold(&["--profile", &format!("p{number}")])).collect();
    for evicted in [0, 6, 11] {
        // Or it would notice.
        owners[evicted].process.signal(Signal::STOP);
        wait_stopped(owners[evicted].pid());
        let profile = format!("p{evicted}");
        sandbox.cli(["evict", "--force", "--profile", &profile]).assert_code(0);
    }
    let diagnosis = sandbox.doctor();
    diagnosis.assert_only(&["leaked_anchors"]);
    let leaked = diagnosis.about("leaked_anchors");
    assert_eq!(leaked.len(), 3, "{leaked:#?}");
    for evicted in [0, 6, 11] {
        let pid = format!("pid {}", owners[evicted].pid());
        assert!(leaked.iter().any(|it| it["evidence"].to_string().contains(&pid)), "{leaked:#?}");
    }
}

#[test]
fn anchors_that_nobody_holds_are_garbage() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    sandbox.cli(["evict"]).assert_code(0);
    assert_eq!(sandbox.anchor_names().len(), 1);
    let diagnosis = sandbox.doctor();
    let finding = diagnosis.assert("orphan_anchors", "info", &["1 lock file", "nobody holds"]);
    diagnosis.assert_only(&[]);
    sandbox.try_remedy(finding, "incumbent doctor --fix").assert_code(0);
    assert_eq!(sandbox.anchor_names().len(), 0);
    sandbox.doctor().assert_silent("orphan_anchors");
}

/// FIELD-BUGS row 38: an over-eager `rm`; its owner is stopped, and cannot make it anew.
#[test]
fn a_holder_without_its_anchor_is_named() {
    let sandbox = Sandbox::new();
    let run = sandbox.stopped();
    for name in sandbox.anchor_names() {
        std::fs::remove_file(sandbox.anchors().join(name)).unwrap();
    }
    let diagnosis = sandbox.doctor();
    diagnosis.assert("missing_anchors", "warning", &["default/gateway", "is gone"]);
    diagnosis.assert_only(&["holders_stopped", "missing_anchors"]);
    drop(run);

    let sandbox = Sandbox::new();
    let sleeper = Process::start(sandbox.program("cat"));
    let pid = sleeper.pid().to_string();
    sandbox.cli(["claim", "--no-keeper", "--pid", &pid]).assert_code(0);
    let diagnosis = sandbox.doctor();
    diagnosis.assert("missing_anchors", "info", &["--no-keeper", &format!("pid {pid}")]);
    diagnosis.assert_only(&[]);
}

/// What systemd would be asked, where no systemd runs.
const GIVES_100_S: &str = "printf 'LoadState=loaded\\nTimeoutStopUSec=1min 40s\\n'";

/// FIELD-BUGS row 52: an orphan outside of its supervisor keeps the office for days.
#[test]
fn an_owner_that_its_supervisor_does_not_know_is_named() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_program("systemctl", GIVES_100_S);
    let run = sandbox.hold(&[]);
    sandbox.forge("UPDATE instances SET supervisor = 'systemd:gw.service'");
    let diagnosis = sandbox.doctor_with_programs();
    let words = ["systemd:gw.service", &format!("pid {}", run.pid()), "does not know it"];
    diagnosis.assert("outside_supervisor", "warning", &words);
    diagnosis.assert_only(&["outside_supervisor"]);

    // Started by hand, and the service is refused.
    sandbox.forge("UPDATE instances SET supervisor = 'none'");
    sandbox.doctor().assert_silent("outside_supervisor");
    for _ in 0..3 {
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    }
    sandbox.forge("UPDATE conflicts SET contender = contender || ' systemd:gw.service'");
    let diagnosis = sandbox.doctor();
    let words = ["no supervisor started", "systemd:gw.service", "3 times"];
    let finding = diagnosis.assert("outside_supervisor", "warning", &words);
    sandbox.try_remedy(finding, "incumbent stop").assert_code(0);
    sandbox.doctor().assert_silent("outside_supervisor");
    drop(run);

    // Or the service waits.
    let run = sandbox.hold(&[]);
    let waiter = Process::start(sandbox.incumbent([&["run", "--wait"], HOLDING].concat()));
    sandbox.wait_for_waiters(1);
    sandbox.forge("UPDATE instances SET supervisor = 'none'");
    sandbox.doctor().assert_silent("outside_supervisor");
    sandbox.forge("UPDATE instances SET supervisor = 'launchd:gw.label' WHERE kind IS NULL");
    let diagnosis = sandbox.doctor();
    let words = ["no supervisor started", "launchd:gw.label has been waiting for it since"];
    let finding = diagnosis.assert("outside_supervisor", "warning", &words);
    sandbox.try_remedy(finding, "incumbent stop").assert_code(0);
    drop((run, waiter));
}

/// FIELD-BUGS row 85: killed in the middle of an orderly end.
#[test]
fn a_unit_that_kills_too_early_is_named() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    let run = sandbox.hold(&[]);
    sandbox.forge("UPDATE instances SET supervisor = 'systemd:gw.service'");
    for (script, severity, words) in [
        (GIVES_100_S, "ok", ""),
        (
            "printf 'LoadState=loaded\\nTimeoutStopUSec=10s\\n'",
            "warning",
            "gw.service is killed 10s",
        ),
        ("echo LoadState=not-found", "unknown", "cannot tell whether"),
        ("exec sleep 100", "unknown", "did not answer"),
    ] {
        sandbox.fake_program("systemctl", script);
        let asked = Instant::now();
        let diagnosis = sandbox.doctor_with_programs();
        assert_within(Duration::from_secs(5), asked.elapsed(), script);
        let finding = diagnosis.assert("stop_budget", severity, &[words]);
        if severity == "warning" {
            let remedy = finding["remedy"].as_str().unwrap();
            assert!(remedy.contains("`TimeoutStopSec=90s` under `[Service]`"), "{remedy}");
        }
    }
    run.end().assert_code(0);
}
