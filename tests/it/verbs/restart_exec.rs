//! `restart` of a command in the place of its `run` (`run --exec`): nobody is beside it to start it
//! again but its supervisor.
//!
//! Symptom: `restart` left a marker that nobody reads, waited for the stop budget and 15 s, and
//! advised to look for the marker. It holds because the row of such a command is known by what it
//! says: nothing is asked, and the supervisor is named with its command.

use serde_json::{Value, json};

use super::{below_systemd, with_fakes_first};
use crate::support::{
    BINARY, HOLDING, LIMIT, Pm2, Process, Run, STAY, Sandbox, ServiceDirectory, Supervisord,
    UserManager, eventually,
};

/// A service that becomes its command.
const SERVICE: &str = "#!/bin/sh\nexec incumbent run --no-backoff --exec -- sleep 1000\n";

/// A command in the place of its run, which nobody supervises.
#[track_caller]
fn in_place(sandbox: &Sandbox, profile: &str) -> Process {
    let run = ["--profile", profile, "run", "--no-backoff", "--exec", "--", "/bin/sh", "-c", STAY];
    let mut process = Process::start(sandbox.incumbent(run));
    assert_eq!(process.line(), process.pid().to_string());
    // Whatever supervises this test.
    record_supervisor(sandbox, profile, "NULL");
    process
}

/// As if that were what started it.
#[track_caller]
fn record_supervisor(sandbox: &Sandbox, profile: &str, supervisor: &str) {
    let forged = format!(
        "UPDATE instances SET supervisor = {supervisor}
         WHERE profile = '{profile}' AND kind IS NOT NULL AND ended_at_ms IS NULL"
    );
    assert_eq!(sandbox.forge(&forged), 1);
}

fn restarts_asked_for(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM markers WHERE name = 'restart'")
}

/// The instance and the pid of the command that runs now.
#[track_caller]
fn running(sandbox: &Sandbox) -> (i64, u64) {
    eventually("it runs", LIMIT, || {
        let status = sandbox.status().1;
        let has_become_it = status["command"].as_str()?.starts_with("sleep");
        let pid = status["pid"].as_u64().filter(|_| status["running"] == true && has_become_it)?;
        Some((status["instance"].as_i64()?, pid))
    })
}

/// `restart` names `by` and `command`, in text and in JSON, and leaves no request; returns which
/// instance runs.
#[track_caller]
fn assert_left_to(sandbox: &Sandbox, by: &str, command: &str) -> i64 {
    let (instance, pid) = running(sandbox);
    let (who, how) = (format!("(pid {pid})"), format!("`{command}`"));
    let words = ["`run --exec`", by, &who, &how];
    sandbox.cli(["restart"]).assert_code(75).assert_complains(&words);
    let (code, document) = sandbox.json(["restart"]);
    assert_eq!(code, 75, "{document:#}");
    assert_eq!(document["left_to"], json!({"by": by, "restart_with": command}), "{document:#}");
    assert_eq!(restarts_asked_for(sandbox), 0);
    instance
}

/// That command was carried out.
#[track_caller]
fn assert_next(sandbox: &Sandbox, before: i64) {
    eventually("the next one", LIMIT, || (running(sandbox).0 > before).then_some(()));
}

/// Nobody is known who would: that is said, the command is left alone, and no request stays behind.
#[test]
fn it_is_told_at_once_that_nobody_is_beside_it() {
    let sandbox = Sandbox::new();
    let mut command = in_place(&sandbox, "default");
    let pid = command.pid();
    let answer = sandbox.cli(["restart"]).assert_code(75);
    let who = format!("(pid {pid})");
    answer.assert_complains(&["`run --exec`", "not known", &who, "`incumbent stop "]);
    let (code, document) = sandbox.json(["restart"]);
    assert_eq!((code, &document["restarted"]), (75, &json!(false)), "{document:#}");
    assert_eq!((&document["holder"]["pid"], &document["left_to"]), (&json!(pid), &Value::Null));
    assert_eq!(restarts_asked_for(&sandbox), 0);
    assert!(command.echoes(), "it was ended");
    sandbox.assert_status(0, "alive", "anchor_held");
    command.finish(LIMIT).assert_code(0);
}

/// Who was recorded by `claim --pid` may look for the marker, and is asked as before.
#[test]
fn a_process_that_was_claimed_for_is_asked() {
    let sandbox = Sandbox::new();
    let mut script = Process::start(sandbox.shell("incumbent claim --pid $$ >&2; echo $$; cat"));
    script.line();
    let (code, document) = sandbox.json(["restart", "--timeout", "0"]);
    assert_eq!((code, &document["left_to"]), (75, &Value::Null), "{document:#}");
    assert_eq!(restarts_asked_for(&sandbox), 1);
    script.finish(LIMIT).assert_code(0);
}

/// Of several each is told what is true of it.
#[test]
fn among_all_it_is_the_one_that_is_left() {
    let sandbox = Sandbox::new();
    let run = [&["--profile", "a", "run", "--no-backoff"][..], HOLDING].concat();
    let run = Run::start(sandbox.incumbent(run));
    let command = in_place(&sandbox, "b");
    let (code, all) = sandbox.json(["restart", "--all"]);
    let told: Vec<_> = all.as_array().unwrap().iter().map(|it| it["restarted"].clone()).collect();
    assert_eq!((code, json!(told)), (75, json!([true, false])), "{all:#}");
    let answer = sandbox.cli(["restart", "--all"]).assert_code(75);
    assert!(answer.out.contains("restarted") && answer.out.contains("not now"), "{answer:#?}");
    answer.assert_complains(&["b/gateway", "`run --exec`"]);
    run.end().assert_code(0);
    command.finish(LIMIT).assert_code(0);
}

#[test]
fn runit() {
    let sandbox = Sandbox::new();
    sandbox.write_script("gw/run", SERVICE);
    let Some(service) = ServiceDirectory::of_runit(&sandbox, "gw") else { return };
    let command = format!("sv restart {}", sandbox.file("gw").display());
    let before = assert_left_to(&sandbox, "runit", &command);
    // It also waits until it is up, as long as it likes.
    service.ask(&["sv", "restart"]);
    assert_next(&sandbox, before);
}

#[test]
fn s6() {
    let sandbox = Sandbox::new();
    sandbox.write_script("gw/run", SERVICE);
    let Some(service) = ServiceDirectory::of_s6(&sandbox, "gw") else { return };
    let command = format!("s6-svc -r {}", sandbox.file("gw").display());
    let before = assert_left_to(&sandbox, "s6", &command);
    service.ask(&["s6-svc", "-r"]).assert_code(0);
    assert_next(&sandbox, before);
}

#[test]
fn supervisord() {
    let sandbox = Sandbox::new();
    let command = format!("{BINARY} run --no-backoff --exec -- sleep 1000");
    let program = format!("command = {command}\nautorestart = true\nstartsecs = 0");
    let Some(supervisord) = Supervisord::start(&sandbox, &program) else { return };
    let before = assert_left_to(&sandbox, "supervisord", "supervisorctl restart gw");
    supervisord.ctl(&["restart", "gw"]).assert_code(0);
    assert_next(&sandbox, before);
}

#[test]
fn pm2() {
    let sandbox = Sandbox::new();
    let app = json!({
        "name": "gw",
        "script": BINARY,
        "args": ["run", "--no-backoff", "--exec", "--", "sleep", "1000"],
        "interpreter": "none",
        "exec_mode": "fork",
        "vizion": false,
    });
    let Some(pm2) = Pm2::start(&sandbox, &app) else { return };
    let before = assert_left_to(&sandbox, "pm2", "pm2 restart gw");
    pm2.ask(&["restart", "gw"]).assert_code(0);
    assert_next(&sandbox, before);
}

/// A real manager, which is the user's: its command has `--user`.
#[test]
fn systemd_of_a_user() {
    let sandbox = Sandbox::new();
    let Some(manager) = UserManager::start(&sandbox) else { return };
    let unit = format!(
        "[Service]\nExecStart={BINARY} run --no-backoff --exec -- sleep 1000\nRestart=on-failure\n"
    );
    manager.install("gw.service", unit);
    manager.systemctl(["start", "gw.service"]).assert_code(0);
    let (before, pid) = running(&sandbox);
    let mut restart = manager.program(BINARY);
    restart.args(["--json", "restart"]);
    let document = Process::start(restart).finish(LIMIT).assert_code(75).json();
    let command = "systemctl --user restart gw.service";
    let expected = json!({"by": "systemd:gw.service", "restart_with": command});
    assert_eq!(document["left_to"], expected, "{document:#}");
    assert_eq!((u64::from(manager.main_pid("gw")), restarts_asked_for(&sandbox)), (pid, 0));
    let mut shell = manager.program("/bin/sh");
    shell.args(["-c", command]);
    Process::start(shell).finish(LIMIT).assert_code(0);
    assert_next(&sandbox, before);
}

/// The manager of the machine, whose word is that of its `systemctl`. Where no manager says that it
/// has the unit, none is guessed; nor one that has not started the command, but whom it was started
/// by (cron, a terminal).
#[test]
fn systemd_of_the_machine() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n*--user*) echo LoadState=not-found ;;\n\
         *) echo \"LoadState=$(cat {})\" ;;\nesac\necho Restart=no\n",
        sandbox.file("state").display()
    );
    sandbox.write_script("bin/systemctl", script);
    let left_to = |state: &str| {
        std::fs::write(sandbox.file("state"), state).unwrap();
        let restart = sandbox.incumbent(["--json", "restart"]);
        let restart = sandbox.among_fakes(with_fakes_first(&sandbox, restart));
        Process::start(restart).finish(LIMIT).assert_code(75).json()["left_to"].clone()
    };
    let run = [&["run", "--no-backoff", "--exec"], HOLDING].concat();
    let mut job = sandbox.program("setsid");
    job.arg(BINARY).args(&run);
    let mut command = Process::start(job);
    command.line();
    record_supervisor(&sandbox, "default", "'systemd:gw.service'");
    assert_eq!(left_to("loaded"), Value::Null);
    command.finish(LIMIT).assert_code(0);

    let mut command = Process::start(below_systemd(&sandbox, &sandbox.incumbent(run)));
    command.line();
    record_supervisor(&sandbox, "default", "'systemd:gw.service'");
    for (state, with) in [("loaded", Some("systemctl restart gw.service")), ("not-found", None)] {
        let expected = json!({"by": "systemd:gw.service", "restart_with": with});
        assert_eq!(left_to(state), expected, "{state}");
    }
    command.finish(LIMIT).assert_code(0);
}
