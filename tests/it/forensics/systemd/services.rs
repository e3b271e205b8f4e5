//! Real cgroups: which service a process, a holder or a `run` is in.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::OWNED_BY_SYSTEM;
use super::library::ROLE_TEST;
use crate::support::{BINARY, LIMIT, Process, Sandbox, Stat, eventually, skipped};

/// A service's cgroup, as systemd would make it; it is gone with the test.
struct Service {
    unit: String,
    directory: PathBuf,
}

impl Service {
    fn new(name: &str) -> Option<Self> {
        let unit = format!("incumbent-it-{name}-{}.service", std::process::id());
        // systemd's own hierarchy, then the unified one, both where a hybrid setup has them and
        // alone.
        for root in ["systemd", "unified", "."] {
            let root = std::path::Path::new("/sys/fs/cgroup").join(root);
            let directory = root.join(&unit);
            if !root.join("cgroup.procs").exists() || std::fs::create_dir(&directory).is_err() {
                continue;
            }
            let service = Self { unit: unit.clone(), directory };
            let look = service.entering("", "grep -q \"$UNIT\" /proc/self/cgroup");
            let look = Command::new("/bin/sh").args(["-c", &look]).env("UNIT", &unit).status();
            if look.is_ok_and(|status| status.success()) {
                return Some(service);
            }
        }
        None
    }

    /// A script that enters the cgroup, or one below it, and goes on with `script`.
    fn entering(&self, below: &str, script: &str) -> String {
        let directory = self.directory.join(below);
        let directory = directory.display();
        format!("mkdir -p {directory} && echo $$ > {directory}/cgroup.procs && {script}")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let started = Instant::now();
        let below = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.path().is_dir()).map(|entry| entry.path());
        for directory in below.chain([self.directory.clone()]) {
            // Busy until its last process is reaped.
            while std::fs::remove_dir(&directory).is_err() && started.elapsed() < LIMIT {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Whether these tests run in a service themselves: then there is always a unit.
fn we_are_in_a_service() -> bool {
    std::fs::read_to_string("/proc/self/cgroup").is_ok_and(|cgroup| cgroup.contains(".service"))
}

/// FIELD-BUGS row 86: whatever is started in a service inherits its environment, and a desktop's
/// terminals have one of their own.
#[test]
fn a_shell_with_an_invocation_id_is_in_no_unit() {
    if we_are_in_a_service() {
        return skipped("needs to run outside of a systemd service");
    }
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl("echo \"$*\" >> calls; echo TimeoutStopUSec=1s");
    let mut command = sandbox.shell("incumbent --json forensics systemd");
    command.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
    command.env("JOURNAL_STREAM", "8:12345").env("SYSTEMD_EXEC_PID", "1");
    let answer = Process::start(sandbox.asking(command));
    let answer = answer.finish(LIMIT).assert_code(4).json();
    assert_eq!(answer["unit"], Value::Null, "{answer:#}");
    assert_eq!(
        answer["reason"],
        "this process is in no systemd service, by its cgroup, and nobody holds the office"
    );
    assert_eq!(answer["expected_min"], 90, "{answer:#}");
    assert!(!sandbox.file("calls").exists(), "systemctl was asked for no unit");
    assert!(!sandbox.file("store").exists(), "a question made a store");
}

/// The real thing, but for systemd: a process in a service's cgroup finds its unit, also below it;
/// in a scope inside it is not in a service.
#[test]
fn a_process_in_a_service_finds_its_unit() {
    let Some(service) = Service::new("own") else {
        return skipped("needs leave to make a cgroup");
    };
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl(OWNED_BY_SYSTEM);
    let ask = |below: &str| {
        let script = format!("exec {BINARY} --json forensics systemd --drain 15s");
        let command = sandbox.asking(sandbox.shell(&service.entering(below, &script)));
        Process::start(command).finish(LIMIT)
    };
    for below in ["", "worker"] {
        let answer = ask(below).assert_code(0).json();
        assert_eq!(answer["unit"], service.unit, "{answer:#}");
        assert_eq!(answer["timeout_stop_sec"], 45, "{answer:#}");
    }
    let answer = ask("a.scope").assert_code(4).json();
    assert_eq!(answer["unit"], Value::Null, "{answer:#}");

    // The library, in a gateway of many threads.
    let command = sandbox.role_command(ROLE_TEST, "gateway");
    let mut gateway = Process::start(sandbox.asking(command));
    assert_eq!(gateway.err_line_with("own: "), "own: none");
    let procs = service.directory.join("cgroup.procs");
    std::fs::write(procs, gateway.pid().to_string()).unwrap();
    gateway.say("again");
    let said = gateway.err_line_with("own: ");
    let warning = "is killed 45s after it is asked to stop, but may take 90s: put \
                   `TimeoutStopSec=90s` under `[Service]` with `systemctl edit";
    assert!(said.starts_with(&format!("own: {} {warning}", service.unit)), "{said}");
    gateway.finish(LIMIT).assert_code(0);
}

/// From a shell, about the gateway that runs: the unit that it was in when it claimed, and the time
/// that it said it may take.
#[test]
fn the_holder_of_the_office_says_unit_and_budget() {
    if we_are_in_a_service() {
        return skipped("needs to run outside of a systemd service");
    }
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl(OWNED_BY_SYSTEM);
    let run = sandbox.hold(&["--stop-budget", "75s"]);
    let (code, answer) = sandbox.ask(&[]);
    assert_eq!((code, &answer["unit"]), (4, &Value::Null), "{answer:#}");
    assert!(answer["reason"].as_str().unwrap().contains("is supervised by "), "{answer:#}");
    assert_eq!(answer["drain_timeout"], 45, "{answer:#}");

    sandbox.forge("UPDATE instances SET supervisor = 'systemd:gw.service'");
    let (code, answer) = sandbox.ask(&[]);
    assert_eq!((code, &answer["unit"]), (1, &json!("gw.service")), "{answer:#}");
    assert_eq!((&answer["drain_timeout"], &answer["expected_min"]), (&json!(45), &json!(75)));
    let (code, answer) = sandbox.ask(&["--drain", "15s"]);
    assert_eq!((code, &answer["expected_min"]), (0, &json!(45)), "{answer:#}");
    let (_, answer) = sandbox.ask(&["--unit", "other"]);
    assert_eq!(answer["unit"], "other.service", "{answer:#}");
    assert_eq!(answer["drain_timeout"], 45, "{answer:#}");
    // Less than the headroom leaves nothing for the drain.
    sandbox.forge("UPDATE instances SET stop_budget_ms = 5000");
    assert_eq!(sandbox.ask(&[]).1["drain_timeout"], 0);

    // Whatever is in the column, it reaches no command line as an option or a pattern.
    sandbox.forge("UPDATE instances SET supervisor = 'systemd:--host=elsewhere'");
    let (code, answer) = sandbox.ask(&[]);
    assert_eq!((code, &answer["unit"]), (4, &Value::Null), "{answer:#}");
    run.end().assert_code(0);
    // The dead are in no unit.
    let (code, answer) = sandbox.ask(&[]);
    assert_eq!((code, &answer["drain_timeout"]), (4, &json!(60)), "{answer:#}");
}

/// A `run` in a real service has that on record.
#[test]
fn a_run_in_a_service_is_found_from_outside() {
    if we_are_in_a_service() {
        return skipped("needs to run outside of a systemd service");
    }
    let Some(service) = Service::new("run") else {
        return skipped("needs leave to make a cgroup");
    };
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl(OWNED_BY_SYSTEM);
    let script = "exec incumbent run --no-backoff --stop-budget 45s -- sh -c 'echo $$; exec cat'";
    let run = crate::support::Run::start(sandbox.shell(&service.entering("", script)));
    let (code, answer) = sandbox.ask(&[]);
    assert_eq!((code, &answer["unit"]), (0, &json!(service.unit)), "{answer:#}");
    assert_eq!(answer["drain_timeout"], 15, "{answer:#}");
    run.end().assert_code(0);
}

/// FIELD-BUGS row 85: systemd kills in the middle of the drain, and nobody knew beforehand. A `run`
/// asks when it starts, beside its command, and says it once; of a unit that waits long enough it
/// says nothing.
#[test]
fn a_run_says_when_its_unit_waits_for_too_short() {
    if we_are_in_a_service() {
        return skipped("needs to run outside of a systemd service");
    }
    let Some(service) = Service::new("short") else {
        return skipped("needs leave to make a cgroup");
    };
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl(OWNED_BY_SYSTEM);
    let start = |budget: &str| {
        let script = format!(
            "exec incumbent run --no-backoff --stop-budget {budget} -- sh -c 'echo $$; exec cat'"
        );
        Process::start(sandbox.asking(sandbox.shell(&service.entering("", &script))))
    };
    let mut short = start("46s");
    short.line();
    let warning = short.err_line_with("TimeoutStopSec=46s");
    assert!(
        warning.starts_with("incumbent: run: ") && warning.contains(&service.unit),
        "{warning}"
    );
    short.close_stdin();
    let answer = short.finish(LIMIT).assert_code(0);
    assert_eq!(answer.err.trim(), warning, "said once, and nothing else");

    sandbox.fake_systemctl(&format!("echo $$ >> asked\n{OWNED_BY_SYSTEM}"));
    let mut aligned = start("45s");
    aligned.line();
    let asked = |path: &std::path::Path| {
        let pids = std::fs::read_to_string(path).ok()?;
        // The user manager and the system's, and both have answered.
        let pids: Vec<u32> = pids.lines().filter_map(|pid| pid.parse().ok()).collect();
        (pids.len() == 2 && pids.iter().all(|pid| Stat::of(*pid).is_none())).then_some(())
    };
    eventually("systemctl's answers", LIMIT, || asked(&sandbox.file("asked")));
    let answer = aligned.finish(LIMIT).assert_code(0);
    assert_eq!(answer.err, "");
}

#[test]
fn for_people() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl(OWNED_BY_SYSTEM);
    let answer = sandbox.ask_text(&["--unit", "gw", "--drain", "1min"]).assert_code(1);
    assert_eq!(
        answer.out,
        "gw.service: kills the gateway before it has stopped
  gives    45s (system manager)
  takes    90s (drain 60s, and what comes after it)
  try      put `TimeoutStopSec=90s` under `[Service]` with `systemctl edit gw.service`, as root
"
    );
    let answer = sandbox.ask_text(&["--unit", "gw", "--drain", "15"]).assert_code(0);
    assert_eq!(
        answer.out,
        "gw.service: gives enough time to stop
  gives    45s (system manager)
  takes    45s (drain 15s, and what comes after it)
"
    );
    sandbox.fake_systemctl("exit 1");
    let answer = sandbox.ask_text(&["--unit", "gw", "--drain", "15"]).assert_code(4);
    assert!(answer.out.starts_with("gw.service: cannot tell"), "{answer:#?}");
    assert!(answer.out.contains("  because  user manager: systemctl failed"), "{answer:#?}");
    for name in ["*.service", "-H", "--host=x", "a b", ""] {
        let unit = format!("--unit={name}");
        sandbox.ask_text(&[&unit]).assert_code(2).assert_complains(&["not the name of a systemd"]);
    }
}
