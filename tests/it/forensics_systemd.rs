//! `forensics systemd`: does the unit give the gateway the time that it takes to stop?
//!
//! systemd itself runs on no test machine of ours: what is asked is a `systemctl` of the test's own
//! on the path, and what is looked at are real cgroups.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use incumbent::forensics::{Manager, SystemdCheck};
use incumbent::{Span, StopPhases};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::{
    Answer, BINARY, LIMIT, Process, Sandbox, Stat, assert_within, eventually, has, order, role,
    skipped, test_name,
};

/// Answers for one manager; `--user` is the user's.
const OWNED_BY_SYSTEM: &str = r#"case "$1" in
    --user) printf 'LoadState=not-found\nTimeoutStopUSec=1min 30s\n' ;;
    *) printf 'LoadState=loaded\nTimeoutStopUSec=45s\n' ;;
esac"#;

impl Sandbox {
    /// Puts a `systemctl` on the path of what `asking` starts. Another process writes it: if we
    /// had it open for writing while a test beside us forks, executing it would fail (ETXTBSY).
    fn fake_systemctl(&self, script: &str) {
        let write = "mkdir -p bin && cat > bin/systemctl && chmod 755 bin/systemctl";
        let mut writer = Process::start(self.shell(write));
        writer.write(&format!("#!/bin/sh\n{script}\n"));
        writer.finish(LIMIT).assert_code(0);
    }

    /// In front of the path that the command has.
    fn asking(&self, mut command: Command) -> Command {
        let of_its_own = command.get_envs().find(|(name, _)| *name == "PATH");
        let mut path = self.file("bin").into_os_string();
        path.push(":");
        path.push(of_its_own.and_then(|(_, path)| path).expect("a sandbox sets it"));
        command.env("PATH", path);
        self.among_fakes(command)
    }

    fn ask_text(&self, arguments: &[&str]) -> Answer {
        let command = self.incumbent([&["forensics", "systemd"], arguments].concat());
        Process::start(self.asking(command)).finish(LIMIT)
    }

    /// Exit code and document.
    fn ask(&self, arguments: &[&str]) -> (i32, Value) {
        let answer = self.ask_text(&[&["--json"], arguments].concat());
        assert_eq!(answer.err, "");
        (answer.code(), answer.json())
    }
}

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
        ("echo TimeoutStopUSec=soon; echo LoadState=loaded", &["\"soon\"", "no time span"]),
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
    let command = sandbox.role_command(test_name!(plays), "gateway");
    let mut gateway = Process::start(sandbox.asking(command));
    assert_eq!(gateway.err_line_with("own: "), "own: none");
    let procs = service.directory.join("cgroup.procs");
    std::fs::write(procs, gateway.pid().to_string()).unwrap();
    gateway.say("again");
    let said = gateway.err_line_with("own: ");
    let warning = "is killed 45s after it is asked to stop, and may take 90s: put \
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

/// FIELD-BUGS row 85: systemd kills in the middle of the drain, and nobody knew beforehand. A `run` asks when
/// it starts, beside its command, and says it once; of a unit that waits long enough it says nothing.
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
        "gw.service: kills before the gateway has stopped
  gives    45s (system manager)
  takes    90s (drain 60s, and what comes after it)
  try      put `TimeoutStopSec=90s` under `[Service]` with `systemctl edit gw.service`, as root
"
    );
    let answer = sandbox.ask_text(&["--unit", "gw", "--drain", "15"]).assert_code(0);
    assert_eq!(
        answer.out,
        "gw.service: gives time enough to stop
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
        sandbox.ask_text(&[&unit]).assert_code(2).assert_complains(&["no name of a systemd"]);
    }
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

/// A gateway that is PID 1, or written in ignorance, waits for any child, and takes the exit status
/// of ours. What `systemctl` printed counts all the same.
#[test]
fn somebody_else_may_reap_systemctl() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_systemctl("printf 'LoadState=loaded\\nTimeoutStopUSec=3min\\n'");
    let command = sandbox.role_command(test_name!(plays), "reaper");
    let mut reaper = Process::start(sandbox.asking(command));
    assert_eq!(reaper.err_line_with("given: "), "given: Ok(Finite(180s)) by Some(\"user\")");
    reaper.finish(LIMIT).assert_code(0);

    // Nobody has the status where SIGCHLD is ignored.
    let script = "trap '' CHLD; exec incumbent --json forensics systemd --unit gw";
    let answer = Process::start(sandbox.asking(sandbox.shell(script))).finish(LIMIT);
    assert_eq!(answer.assert_code(0).json()["timeout_stop_sec"], 180);

    // The standard library waits for a child that could not be executed.
    let mut command = sandbox.role_command(test_name!(plays), "reaper of nothing");
    command.env("PATH", sandbox.file("nothing"));
    std::fs::remove_file(sandbox.file("bin/systemctl")).unwrap();
    let mut reaper = Process::start(sandbox.among_fakes(command));
    let said = reaper.err_line_with("given: ");
    assert!(said.contains("systemctl was not found in "), "{said}");
    reaper.finish(LIMIT).assert_code(0);
}

/// The parts that this program plays for the tests above.
#[test]
fn plays() {
    match role().as_deref() {
        Some("gateway") => play_gateway(),
        Some("reaper") => play_reaper(3),
        Some("reaper of nothing") => play_reaper(0),
        _ => {}
    }
}

fn play_gateway() {
    let phases = StopPhases::default();
    loop {
        let check = SystemdCheck::of_this_process(&phases);
        eprintln!("own: {}", check.warning().unwrap_or_else(|| "none".to_owned()));
        if order().is_none() {
            return;
        }
    }
}

/// Asks until the other thread has taken the status `wins` times, and 20 times at least.
fn play_reaper(wins: usize) {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let (is_over, reaped) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                if let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
                    reaped.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let mut said = Vec::new();
        let started = Instant::now();
        for round in 0.. {
            if round >= 20 && reaped.load(Ordering::SeqCst) >= wins {
                break;
            }
            assert!(started.elapsed() < LIMIT, "the other thread never came first");
            let check = SystemdCheck::of_unit("gw", &StopPhases::default());
            let manager = check.manager.map(Manager::as_str);
            said.push(format!("given: {:?} by {manager:?}", check.timeout_stop));
        }
        is_over.store(true, Ordering::SeqCst);
        said.dedup();
        eprintln!("{}", said.join(", and then "));
    });
}

/// The parser against the real tool, where there is one: what is near the grammar is read alike.
#[test]
fn random_spans_are_what_systemd_makes_of_them() {
    use proptest::prelude::*;
    if !has("systemd-analyze") {
        return skipped("needs systemd-analyze");
    }
    let number = prop_oneof![
        4 => "[0-9]{1,4}",
        2 => "[0-9]{0,3}\\.[0-9]{0,12}",
        1 => "[0-9]{12,20}",
        1 => "[+-]?[0-9.]{0,4}",
    ];
    let unit = prop_oneof![
        6 => prop::sample::select(vec![
            "us", "usec", "\u{b5}s", "\u{3bc}s", "ms", "msec", "s", "sec", "second", "seconds",
            "m", "min", "minute", "minutes", "h", "hr", "hour", "hours", "d", "day", "days", "w",
            "week", "weeks", "M", "month", "months", "y", "year", "years", "",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z.,]{0,2}",
    ];
    let blank = "[ \t]{0,2}";
    let part = (blank, number, blank, unit).prop_map(|(a, b, c, d)| [a, b, c, d].concat());
    let text = prop::collection::vec(part, 1..4).prop_map(|parts| parts.concat());
    // The one deliberate difference, should the letters come together by chance.
    let in_nanoseconds = |text: &str| text.contains("ns");
    let text = text.prop_filter("systemd knows no ns here", move |text| !in_nanoseconds(text));
    // A process of the tool for each: some 5 ms.
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let accepted = std::cell::Cell::new(0);
    TestRunner::new(config)
        .run(&text, |text| {
            let expected = systemd_analyze(&text);
            let found = match text.parse::<Span>() {
                Ok(Span::Finite(duration)) => Some(duration.as_micros()),
                Ok(Span::Infinite) => Some(u128::from(u64::MAX)),
                Err(_) => None,
            };
            prop_assert_eq!(found, expected, "{:?}", text);
            accepted.set(accepted.get() + usize::from(found.is_some()));
            Ok(())
        })
        .unwrap();
    assert!(accepted.get() > 20, "of 200 only {} were spans", accepted.get());
}

fn systemd_analyze(text: &str) -> Option<u128> {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(["timespan", "--", text]).env("LC_ALL", "C.UTF-8").output().unwrap();
    if !output.status.success() {
        return None;
    }
    let output = String::from_utf8(output.stdout).unwrap();
    let line = output.lines().find(|line| line.trim_start().starts_with("\u{3bc}s:"));
    let us = line.unwrap_or_else(|| panic!("{text:?}: {output}")).split(':').nth(1).unwrap();
    Some(us.trim().parse().unwrap())
}
