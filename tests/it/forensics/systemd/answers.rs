//! What `systemctl` says, and what to think of one that says nothing of use.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::OWNED_BY_SYSTEM;
use crate::support::{LIMIT, Process, Sandbox, assert_within, eventually, has, skipped};

/// FIELD-BUGS row 85.
///
/// Symptom: systemd killed the gateway in the middle of its drain, and the next start met what it
/// had left. Cause: drain and unit were set independently. It shows because both are compared, by
/// the function that makes the budget; exactly enough is enough.
#[test]
fn the_matrix_of_budgets() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl("printf 'LoadState=loaded\\nTimeoutStopUSec=%s\\n' \"$(cat given)\"");
    let given = [
        ("1us", json!(0.000_001)),
        ("29s 999ms 999us", json!(29.999_999)),
        ("30s", json!(30)),
        ("1min 30s", json!(90)),
        ("90000000", json!(90)),
        ("89999999", json!(89.999_999)),
        ("1h", json!(3_600)),
        ("infinity", json!("infinity")),
    ];
    for (drain, least) in [("0", 30), ("1min", 90), ("45min", 2_730)] {
        for (given, shown) in &given {
            std::fs::write(sandbox.file("given"), given).unwrap();
            let (code, answer) = sandbox.ask(&["--unit", "gw", "--drain", drain]);
            let is_short = shown.as_f64().is_some_and(|seconds| seconds < f64::from(least));
            assert_eq!(code, i32::from(is_short), "{given} for {drain}: {answer:#}");
            let advice = format!(
                "put `TimeoutStopSec={least}s` under `[Service]` with `systemctl --user edit \
                 gw.service`"
            );
            let expected = json!({
                "unit": "gw.service",
                "timeout_stop_sec": shown,
                "drain_timeout": least - 30,
                "expected_min": least,
                "mismatch": is_short,
                "manager": "user",
                "reason": null,
                "advice": is_short.then_some(advice),
            });
            assert_eq!(answer, expected);
        }
    }
    assert!(!sandbox.file("store").exists(), "a question made a store");
}

/// Of a unit that it does not know `systemctl show` prints the defaults and succeeds, so that the
/// original compared a system service with the user manager's default.
#[test]
fn a_manager_that_does_not_know_the_unit_is_not_believed() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl(&format!("echo \"$*\" >> calls; {OWNED_BY_SYSTEM}"));
    let (code, answer) = sandbox.ask(&["--unit", "gw.service", "--drain", "30s"]);
    assert_eq!((code, &answer["timeout_stop_sec"]), (1, &json!(45)), "{answer:#}");
    assert_eq!(answer["manager"], "system", "{answer:#}");
    assert_eq!(
        answer["advice"],
        "put `TimeoutStopSec=60s` under `[Service]` with `systemctl edit gw.service`, as root"
    );
    let calls = std::fs::read_to_string(sandbox.file("calls")).unwrap();
    let asked = "show gw.service --property=LoadState --property=TimeoutStopUSec";
    let calls: Vec<&str> = calls.lines().collect();
    assert!(calls.len() == 2 && calls[0].starts_with(&format!("--user {asked}")), "{calls:?}");
    assert!(calls[1].starts_with(asked), "{calls:?}");

    sandbox.fake_systemctl("printf 'LoadState=not-found\\nTimeoutStopUSec=1min 30s\\n'");
    let (code, answer) = sandbox.ask(&["--unit", "gw.service"]);
    assert_eq!((code, &answer["mismatch"]), (4, &Value::Null), "{answer:#}");
    assert_eq!(
        answer["reason"],
        "user manager: the unit is \"not-found\"; system manager: the unit is \"not-found\""
    );
}

/// A `systemctl` that fails in every way that does not take its time: a reason, and exit code 4.
/// What one manager cannot say the other one can.
#[test]
fn a_systemctl_that_is_no_help_gives_a_reason() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    for (script, reasons) in [
        ("printf '\\0\\033[31m\\377garbage'", &["did not print TimeoutStopUSec"][..]),
        ("exit 0", &["did not print TimeoutStopUSec"]),
        ("echo TimeoutStopUSec=1min; echo LoadState=loaded; exit 1", &["systemctl failed", "1"]),
        ("echo TimeoutStopUSec=1min; kill -KILL $$", &["systemctl failed", "9"]),
        ("echo TimeoutStopUSec=soon; echo LoadState=loaded", &["\"soon\"", "not a time span"]),
        ("head -c 5000000 /dev/zero; echo TimeoutStopUSec=1min", &["printed more than 65536"]),
        ("exec yes TimeoutStopUSec=1min", &["printed more than 65536"]),
    ] {
        sandbox.fake_systemctl(&format!("echo noise >&2; cat; {script}"));
        let (code, answer) = sandbox.ask(&["--unit", "gw"]);
        assert_eq!(code, 4, "{script}: {answer:#}");
        for key in ["timeout_stop_sec", "mismatch", "advice"] {
            assert_eq!(answer[key], Value::Null, "{script}: {answer:#}");
        }
        assert_eq!(answer["unit"], "gw.service", "{script}: {answer:#}");
        let found = answer["reason"].as_str().unwrap();
        assert!(reasons.iter().all(|reason| found.contains(reason)), "{script}: {found}");

        let script = format!("if [ \"$1\" = --user ]; then {script}; else {OWNED_BY_SYSTEM}; fi");
        sandbox.fake_systemctl(&script.replace("echo LoadState=loaded", ":"));
        let (code, answer) = sandbox.ask(&["--unit", "gw", "--drain", "15s"]);
        assert_eq!((code, &answer["manager"]), (0, &json!("system")), "{script}: {answer:#}");
        assert_eq!(answer["reason"], Value::Null, "{script}: {answer:#}");
    }
}

#[test]
fn without_systemctl_there_is_a_reason() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    let mut command = sandbox.incumbent(["--json", "forensics", "systemd", "--unit", "gw"]);
    command.env("PATH", sandbox.file("nothing"));
    let answer = Process::start(sandbox.among_fakes(command)).finish(LIMIT).assert_code(4).json();
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.starts_with("systemctl was not found in "), "{answer:#}");

    // There, and no program.
    sandbox.fake_systemctl("");
    let mut plain = sandbox.shell("chmod 644 bin/systemctl");
    assert!(plain.status().unwrap().success());
    let mut command = sandbox.incumbent(["--json", "forensics", "systemd", "--unit", "gw"]);
    command.env("PATH", sandbox.file("bin"));
    let answer = Process::start(sandbox.among_fakes(command)).finish(LIMIT).assert_code(4).json();
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.starts_with("systemctl cannot be started: "), "{reason}");
}

/// Symptom: a hung bus made a start hang. The question is given 2 s in all, and leaves no process
/// behind.
#[test]
fn a_systemctl_that_hangs_is_killed() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl("echo $$ >> pids; echo TimeoutStopUSec=1min; exec sleep 1000");
    let started = Instant::now();
    let (code, answer) = sandbox.ask(&["--unit", "gw"]);
    let took = started.elapsed();
    assert_eq!(code, 4, "{answer:#}");
    // The bound and room for a busy machine, not twice the bound and not `sleep`'s.
    assert_within(Duration::from_secs(7), took, "it");
    let reason = answer["reason"].as_str().unwrap();
    let user = "user manager: systemctl did not answer within 1000 ms; system manager: systemctl \
                did not answer within ";
    assert!(reason.starts_with(user), "{reason}");
    let pids = std::fs::read_to_string(sandbox.file("pids")).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        eventually(&format!("the end of pid {pid}"), LIMIT, || {
            let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (!cmdline.starts_with(b"sleep")).then_some(())
        });
    }
}

/// The user manager's bus hangs, as after a broken upgrade: the system's manager is asked all the
/// same.
#[test]
fn a_user_manager_that_hangs_does_not_hide_the_systems() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    let script = format!("[ \"$1\" = --user ] && exec sleep 1000; {OWNED_BY_SYSTEM}");
    sandbox.fake_systemctl(&script);
    let (code, answer) = sandbox.ask(&["--unit", "gw", "--drain", "15s"]);
    assert_eq!((code, &answer["manager"]), (0, &json!("system")), "{answer:#}");
}

/// Something that `systemctl` left behind (a pager, an agent) has the pipe, and would be waited
/// for by whoever reads to its end.
#[test]
fn whoever_inherits_the_pipe_is_not_waited_for() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl("sleep 1000 & echo TimeoutStopUSec=2min");
    let started = Instant::now();
    let (code, answer) = sandbox.ask(&["--unit", "gw"]);
    assert_eq!((code, &answer["timeout_stop_sec"]), (0, &json!(120)), "{answer:#}");
    assert!(started.elapsed() < LIMIT / 2, "{:?}", started.elapsed());
}

/// FIELD-BUGS row 85: the warning named a command that did not exist.
#[test]
fn the_advice_names_a_command_that_exists() {
    if !has("systemctl") {
        return skipped("needs systemctl");
    }
    let help = Command::new("systemctl").arg("--help").env("SYSTEMD_PAGER", "").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.lines().any(|line| line.trim_start().starts_with("edit UNIT")), "{help}");
    assert!(help.contains("--user"), "{help}");
}
