//! `stop` says when a supervisor will start the gateway again, FIELD-BUGS row 123.
//!
//! Symptom: `stop` said that it was stopped, and it was up again a second later. Cause: Restart=,
//! or a supervisor that restarts whatever ends. It holds because the supervisor is looked for while
//! the gateway lives, and named with the command that stops it for good.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{below_systemd, with_fakes_first};
use crate::support::{
    BINARY, HOLDING, LIMIT, Pm2, Process, Run, Sandbox, ServiceDirectory, eventually, has, kill,
    set_mode, skipped, tool,
};

/// The generation that runs now.
fn running(sandbox: &Sandbox) -> i64 {
    eventually("it runs", LIMIT, || {
        let status = sandbox.status().1;
        status["child_pid"].as_u64().filter(|_| status["running"] == true)?;
        status["instance"].as_i64()
    })
}

/// Stops it, is told who starts it again, and sees that.
fn assert_started_again(sandbox: &Sandbox, words: &[&str]) {
    let first = running(sandbox);
    sandbox.cli(["stop"]).assert_code(0).assert_complains(words);
    let again = eventually("it is started again", LIMIT, || {
        Some(running(sandbox)).filter(|instance| *instance != first)
    });
    let (code, document) = sandbox.json(["stop"]);
    assert_eq!((code, &document["instance"]), (0, &json!(again)), "{document:#}");
    assert_eq!(document["starts_again"]["by"], words[0], "{document:#}");
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    set_mode(path, 0o755);
}

/// A directory with a `run` script, as runit and s6 want it.
fn service(sandbox: &Sandbox) -> PathBuf {
    let directory = sandbox.file("gw");
    std::fs::create_dir(&directory).unwrap();
    write(&directory.join("run"), "#!/bin/sh\nexec incumbent run --no-backoff -- sleep 1000\n");
    directory
}

#[test]
fn runit() {
    if !has("runsv") {
        return skipped("needs runit");
    }
    let sandbox = Sandbox::new();
    let directory = service(&sandbox);
    let mut command = sandbox.program("runsv");
    command.arg(&directory);
    let supervisor = Process::start(command);
    let stop = format!("`sv down {}`", directory.display());
    assert_started_again(&sandbox, &["runit", "however it ends", &stop]);
    drop(supervisor);
}

#[test]
fn s6() {
    if !has("s6-supervise") {
        return skipped("needs s6");
    }
    let sandbox = Sandbox::new();
    let directory = service(&sandbox);
    let mut command = sandbox.program("s6-supervise");
    command.arg(&directory);
    let supervisor = Process::start(command);
    let stop = format!("`s6-svc -d {}`", directory.display());
    assert_started_again(&sandbox, &["s6", "however it ends", &stop]);
    drop(supervisor);
}

#[test]
fn supervisord() {
    let Some(program) = tool("supervisord") else {
        return skipped("needs supervisord: `.ci/tool --install supervisord`");
    };
    let sandbox = Sandbox::new();
    let configuration = format!(
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={}\n\
         [program:gw]\ncommand={BINARY} run --no-backoff -- sleep 1000\nautorestart=true\n\
         startsecs=0\n",
        sandbox.file("supervisord.pid").display()
    );
    write(&sandbox.file("supervisord.conf"), &configuration);
    let mut command = sandbox.program(program);
    command.arg("-c").arg(sandbox.file("supervisord.conf"));
    let supervisor = Process::start(command);
    let words = ["supervisord", "autorestart=true", "`supervisorctl stop gw`"];
    assert_started_again(&sandbox, &words);
    drop(supervisor);
}

#[test]
fn pm2() {
    let Some(program) = tool("pm2").filter(|_| has("node")) else {
        return skipped("needs node and pm2: `.ci/tool --install pm2`");
    };
    let sandbox = Sandbox::new();
    let pm2 = |arguments: &[&str]| {
        let mut command = sandbox.program(&program);
        command.args(arguments).env("PM2_HOME", sandbox.file("pm2"));
        Process::start(command).finish(LIMIT)
    };
    let start = ["start", BINARY, "--interpreter", "none", "--name", "gw", "--"];
    let run = ["run", "--no-backoff", "--", "sleep", "1000"];
    pm2(&[&start[..], &run].concat()).assert_code(0);
    assert_started_again(&sandbox, &["pm2", "however they end", "`pm2 stop gw`"]);
    pm2(&["kill"]);
}

/// Stops it, and is told of nobody who starts it again.
#[track_caller]
fn assert_stays_down(sandbox: &Sandbox) {
    running(sandbox);
    let (code, document) = sandbox.json(["stop"]);
    assert_eq!((code, &document["starts_again"]), (0, &json!(null)), "{document:#}");
}

/// Symptom: "will be started again by s6", and it stayed down, by the very script that `unit s6`
/// prints. It holds because the script is looked at: ours keeps down what was stopped, and another
/// one may.
#[test]
fn s6_with_a_script_that_keeps_it_down() {
    let sandbox = Sandbox::new();
    service(&sandbox);
    let printed = ["unit", "s6", "--name", "gw", "--file", "finish", "--", "sleep", "1000"];
    sandbox.write_script("gw/finish", sandbox.cli(printed).assert_code(0).out);
    let Some(s6) = ServiceDirectory::of_s6(&sandbox, "gw") else { return };
    assert_stays_down(&sandbox);
    s6.wait_for(&["s6-svstat", "-o", "up,wantedup"], "false false");

    sandbox.write_script("gw/finish", "#!/bin/sh\nexit 125\n");
    s6.ask(&["s6-svc", "-u"]).assert_code(0);
    running(&sandbox);
    let may = ["may be started again by s6", "finish exits with 125", "`s6-svc -d "];
    sandbox.cli(["stop"]).assert_code(0).assert_complains(&may);
    s6.wait_for(&["s6-svstat", "-o", "up,wantedup"], "false false");
}

/// The same of pm2, by the setting that `docs/supervisors.md` advises.
#[test]
fn pm2_with_exit_codes_that_keep_it_down() {
    let sandbox = Sandbox::new();
    let app = json!({
        "name": "gw",
        "script": BINARY,
        "args": ["run", "--no-backoff", "--", "sleep", "1000"],
        "interpreter": "none",
        "exec_mode": "fork",
        "stop_exit_codes": [0],
        "vizion": false,
    });
    let Some(pm2) = Pm2::start(&sandbox, &app) else { return };
    assert_stays_down(&sandbox);
    pm2.wait_for("stopped");
}

/// The manager is asked for the unit on record; what it says is the word of its `systemctl`.
#[test]
fn systemd() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    std::fs::create_dir(sandbox.file("bin")).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n*--user*) echo LoadState=not-found; echo Restart=no ;;\n\
         *) echo LoadState=loaded; echo \"Restart=$(cat {})\" ;;\nesac\n",
        sandbox.file("setting").display()
    );
    write(&sandbox.file("bin/systemctl"), &script);
    for (setting, expected) in [
        ("always", Some("systemd:gw.service: gw.service has Restart=always")),
        ("on-success", Some("systemd:gw.service: gw.service has Restart=on-success")),
        ("on-failure", None),
        ("no", None),
    ] {
        std::fs::write(sandbox.file("setting"), setting).unwrap();
        let run = [&["run", "--no-backoff"], HOLDING].concat();
        let run = Run::start(below_systemd(&sandbox, &sandbox.incumbent(run)));
        let forged = "UPDATE instances SET supervisor = 'systemd:gw.service'
                      WHERE ended_at_ms IS NULL AND kind IS NOT NULL";
        assert_eq!(sandbox.forge(forged), 1);
        let stop = with_fakes_first(&sandbox, sandbox.incumbent(["stop"]));
        let answer = Process::start(sandbox.among_fakes(stop)).finish(LIMIT).assert_code(0);
        match expected {
            Some(words) => {
                let all = ["will be started again by", words, "`systemctl stop gw.service`"];
                answer.assert_complains(&all).assert_complains(&["incumbent stop --desired"]);
            }
            None => assert_eq!(answer.err, "", "{setting}"),
        }
        run.process.finish_with_stdin_open(LIMIT).assert_code(0);
    }
}

/// Whoever was started by hand is not started again: nothing is said.
#[test]
fn nobody() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let answer = sandbox.cli(["stop"]).assert_code(0);
    assert_eq!(answer.err, "");
    run.process.finish_with_stdin_open(LIMIT).assert_code(0);
    // Nor is one said of that was killed.
    let run = sandbox.hold(&[]);
    kill(run.pid(), rustix::process::Signal::KILL);
    let (code, document) = sandbox.json(["stop"]);
    assert_eq!((code, &document["starts_again"]), (0, &json!(null)), "{document:#}");
}
