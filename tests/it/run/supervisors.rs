//! Real supervisors: one request each reaches the command, whomever they signal (FIELD-BUGS row
//! 115). Which of them are tried depends on what is installed; what is not says `SKIPPED`.

use std::process::Command;

use rustix::process::Signal;

use super::manager::Manager;
use super::once::COUNTS;
use crate::support::{
    BINARY, LIMIT, Process, Sandbox, Stat, eventually, has, kill, rounds, skipped, tool, works,
};

/// What a supervisor's command has printed: its pid first, see `COUNTS`.
#[track_caller]
fn wait_for(sandbox: &Sandbox, file: &str, words: &str) -> String {
    eventually(&format!("{words:?} in {file}"), LIMIT, || {
        let said = std::fs::read_to_string(sandbox.file(file)).unwrap_or_default();
        said.contains(words).then_some(said)
    })
}

/// Ends the command after it has got what it was sent, and says how often that was.
#[track_caller]
fn count(sandbox: &Sandbox, file: &str) -> String {
    let said = wait_for(sandbox, file, "got");
    // systemd sends what the run says to the same file.
    let shell: u32 = said.lines().find_map(|line| line.parse().ok()).unwrap();
    kill(Stat::of(shell).expect("it counts").parent, Signal::WINCH);
    let said = wait_for(sandbox, file, "count ");
    let count = said.lines().find_map(|line| line.strip_prefix("count ")).unwrap();
    count.to_owned()
}

/// systemd signals all processes of a service, or the main one alone.
#[test]
fn systemd_stops_once() {
    let sandbox = Sandbox::new();
    let Some(manager) = Manager::start(&sandbox) else { return };
    for round in 0..rounds(3, 20) {
        for mode in ["control-group", "mixed", "process"] {
            let name = format!("{mode}-{round}");
            let kill_mode = format!("KillMode={mode}");
            let settings = [&*kill_mode, "TimeoutStopSec=120"];
            let command = [BINARY, "run", "--no-backoff", "--", "/bin/sh", "-c", COUNTS];
            manager.start_unit(&name, &settings, &command).assert_code(0);
            wait_for(&sandbox, &format!("{name}.out"), "\n");
            manager.systemctl(["stop", "--no-block", &name]).assert_code(0);
            assert_eq!(count(&sandbox, &format!("{name}.out")), "1", "{name}");
            eventually("the end of the service", LIMIT, || {
                let state = manager.property(&name, "ActiveState");
                matches!(&*state, "inactive" | "failed").then_some(())
            });
        }
    }
}

impl Sandbox {
    /// The service directory of runit and s6, with a `run` that counts.
    fn service(&self) {
        std::fs::create_dir_all(self.file("service")).unwrap();
        std::fs::write(self.file("counts.sh"), COUNTS).unwrap();
        let (out, counts) = (self.file("out"), self.file("counts.sh"));
        let run = format!(
            "exec '{BINARY}' run --no-backoff -- /bin/sh '{}' > '{}'",
            counts.display(),
            out.display()
        );
        self.write_script("service/run", format!("#!/bin/sh\n{run}\n"));
    }
}

/// A supervisor that waits for ever, by its name: it sends TERM for a line that it reads.
const WAITS_FOR_EVER: &str = r"
    my $child = fork;
    if (!$child) { exec @ARGV or die }
    $0 = 'runsv'; <STDIN>; kill 'TERM', $child; waitpid $child, 0;
    exit($? & 127 ? 128 + ($? & 127) : $? >> 8);";

/// A command that ignores the request of a supervisor is killed when its time to stop is over, and
/// that is said before. Whoever else asks is waited for, see `endings/survived.rs`.
#[test]
fn a_command_that_ignores_its_supervisor_is_ended() {
    const DEAF: &str = "trap '' TERM; echo $$; exec sleep 1000";
    if !has("perl") {
        return skipped("needs perl");
    }
    let sandbox = Sandbox::new();
    let mut command = sandbox.within(&["perl", "-e", WAITS_FOR_EVER]);
    command.args([BINARY, "run", "--no-backoff", "--stop-budget", "1s", "--"]);
    command.args(["/bin/sh", "-c", DEAF]);
    let mut runsv = Process::start(command);
    runsv.line();
    runsv.say("stop");
    let answer = runsv.finish(LIMIT).assert_code(137);
    answer.assert_complains(&["will be killed in", "the stop budget is over"]);
    let end = &sandbox.history()[0];
    assert_eq!((&end["end_reason"], &end["signal"]), (&"signalled".into(), &9.into()), "{end:#}");
    assert!(end["ended_by"].is_string(), "the supervisor: {end:#}");
}

/// runit signals the process: TERM, and CONT.
#[test]
fn runit_stops_once() {
    if !has("runsv") || !has("sv") {
        return skipped("needs runit");
    }
    for _ in 0..rounds(3, 20) {
        let sandbox = Sandbox::new();
        sandbox.service();
        let mut runsv = sandbox.program("runsv");
        runsv.arg(sandbox.file("service"));
        let mut runsv = Process::start(runsv);
        wait_for(&sandbox, "out", "\n");
        let mut down = sandbox.program("sv");
        down.arg("down").arg(sandbox.file("service"));
        Process::start(down).finish(LIMIT).assert_code(0);
        assert_eq!(count(&sandbox, "out"), "1");
        runsv.kill();
    }
}

#[test]
fn s6_stops_once() {
    if !has("s6-supervise") || !has("s6-svc") {
        return skipped("needs s6");
    }
    for _ in 0..rounds(3, 20) {
        let sandbox = Sandbox::new();
        sandbox.service();
        let mut supervise = sandbox.program("s6-supervise");
        supervise.arg(sandbox.file("service"));
        let mut supervise = Process::start(supervise);
        wait_for(&sandbox, "out", "\n");
        let mut down = sandbox.program("s6-svc");
        down.arg("-d").arg(sandbox.file("service"));
        Process::start(down).finish(LIMIT).assert_code(0);
        assert_eq!(count(&sandbox, "out"), "1");
        supervise.kill();
    }
}

/// supervisord signals the process, or with `stopasgroup` its whole group.
#[test]
fn supervisord_stops_once() {
    let Some(program) = tool("supervisord").filter(|_| has("setsid")) else {
        return skipped("needs supervisord: `.ci/tool --install supervisord`");
    };
    for _ in 0..rounds(2, 20) {
        for as_group in ["true", "false"] {
            let sandbox = Sandbox::new();
            std::fs::write(sandbox.file("counts.sh"), COUNTS).unwrap();
            let place = sandbox.path().display();
            let configuration = format!(
                "[supervisord]\nnodaemon=true\nlogfile={place}/log\npidfile={place}/pid\n\
                 [program:gw]\ncommand={BINARY} run --no-backoff -- /bin/sh {place}/counts.sh\n\
                 stopasgroup={as_group}\nstopwaitsecs=120\nautorestart=false\n\
                 stdout_logfile={place}/out\n"
            );
            std::fs::write(sandbox.file("supervisord.conf"), configuration).unwrap();
            let mut daemon = sandbox.program("setsid");
            daemon.arg(&program).arg("-c").arg(sandbox.file("supervisord.conf"));
            let mut daemon = Process::start(daemon);
            wait_for(&sandbox, "out", "\n");
            // As `supervisorctl shutdown` ends all programs.
            daemon.signal(Signal::TERM);
            assert_eq!(count(&sandbox, "out"), "1", "stopasgroup={as_group}");
            daemon.wait(LIMIT);
        }
    }
}

/// pm2 itself, see `once.rs` for one that is played.
#[test]
fn pm2_stops_once() {
    let Some(program) = tool("pm2").filter(|_| works(&["node", "-e", "0", "--"])) else {
        return skipped("needs node and pm2: `.ci/tool --install pm2`");
    };
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("counts.sh"), COUNTS).unwrap();
    let pm2 = |arguments: &[&str]| -> Command {
        let mut command = sandbox.within(&["setsid", "-w"]);
        command.arg(&program).args(arguments).env("PM2_HOME", sandbox.file("pm2"));
        command
    };
    let out = sandbox.file("out").display().to_string();
    let start = ["start", BINARY, "--name", "gw", "--interpreter", "none", "--no-autorestart"];
    let rest = ["--kill-timeout", "120000", "-o", &out, "--merge-logs", "--"];
    let command = ["run", "--no-backoff", "--", "/bin/sh", "counts.sh"];
    for _ in 0..rounds(2, 20) {
        let _ = std::fs::remove_file(sandbox.file("out"));
        let words = [&start[..], &rest, &command].concat();
        Process::start(pm2(&words)).finish(LIMIT).assert_code(0);
        wait_for(&sandbox, "out", "\n");
        let mut stop = Process::start(pm2(&["stop", "gw"]));
        assert_eq!(count(&sandbox, "out"), "1");
        stop.wait(LIMIT);
        Process::start(pm2(&["delete", "gw"])).finish(LIMIT).assert_code(0);
    }
    Process::start(pm2(&["kill"])).finish(LIMIT).assert_code(0);
}
