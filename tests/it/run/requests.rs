//! One request to end is one signal, whoever asks: `stop`, a restart, a takeover, a key of the
//! terminal (FIELD-BUGS row 115). For supervisors see `supervisors.rs`, for `kill` in a shell
//! `terminals.rs`.

use rustix::process::Signal;

use crate::support::{
    BINARY, LIMIT, Process, Run, Sandbox, Stat, has, kill, rounds, skipped, wait_for_looks,
};

/// A gateway that finishes its work when it is asked to end, and takes a second request for "now":
/// then its work is lost. It has finished when it gets USR1.
const DRAINS: &str = "
    n=0
    trap 'n=$((n + 1)); echo \"asked $n\"; [ $n = 1 ] || now=1' TERM INT
    trap 'drained=1' USR1
    (trap '' TERM INT USR1; exec sleep 1000) > /dev/null 2>&1 &
    sleeper=$!
    echo $$
    while [ -z \"$now$drained\" ]; do wait $sleeper; done
    kill -KILL $sleeper
    [ -z \"$now\" ] || { echo 'its work is lost'; exit 9; }
    echo drained";

/// The number of the request, in a line that says one.
fn request(line: &str) -> Option<&str> {
    // A terminal shows the key before it.
    line.trim().trim_start_matches("^C").strip_prefix("asked ")
}

/// Asserts that the command was asked once, and has it finish its work.
#[track_caller]
fn drains_after_one_request(process: &mut Process, run: u32) {
    let first = loop {
        let line = process.line();
        if let Some(number) = request(&line) {
            break number.to_owned();
        }
    };
    assert_eq!(first, "1");
    // Whoever sends a second one does it at one of its next looks.
    wait_for_looks(&[run], 3);
    // Signals are passed on in turn: this one comes after all others.
    kill(run, Signal::USR1);
    loop {
        let line = process.line();
        assert_eq!(request(&line), None, "a second request");
        if line.trim() == "drained" {
            return;
        }
    }
}

#[track_caller]
fn start(sandbox: &Sandbox) -> Run {
    sandbox.hold_with(&["/bin/sh", "-c", DRAINS])
}

#[test]
fn a_stop_asks_once() {
    let sandbox = Sandbox::new();
    for round in 0..rounds(3, 20) {
        let mut run = start(&sandbox);
        let stop = Process::start(sandbox.incumbent(["stop"]));
        let pid = run.pid();
        drains_after_one_request(&mut run.process, pid);
        stop.finish(LIMIT).assert_code(0);
        run.process.finish_with_stdin_open(LIMIT).assert_code(0);
        assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop", "round {round}");
    }
}

#[test]
fn a_takeover_asks_once() {
    let sandbox = Sandbox::new();
    for round in 0..rounds(3, 20) {
        let mut run = start(&sandbox);
        let words = ["run", "--no-backoff", "--replace", "--", "true"];
        let taker = Process::start(sandbox.incumbent(words));
        let pid = run.pid();
        drains_after_one_request(&mut run.process, pid);
        taker.finish(LIMIT).assert_code(0);
        run.process.finish_with_stdin_open(LIMIT).assert_code(0);
        assert_eq!(sandbox.history()[1]["end_reason"], "taken_over", "round {round}");
    }
}

#[test]
fn a_restart_asks_once() {
    let sandbox = Sandbox::new();
    let mut run = start(&sandbox);
    let pid = run.pid();
    for _ in 0..rounds(3, 20) {
        let restart = Process::start(sandbox.incumbent(["restart"]));
        drains_after_one_request(&mut run.process, pid);
        restart.finish(LIMIT).assert_code(0);
        run.process.line().parse::<u32>().expect("the pid of the next command");
    }
    run.process.signal(Signal::TERM);
    drains_after_one_request(&mut run.process, pid);
    run.process.finish_with_stdin_open(LIMIT).assert_code(0);
}

/// The terminal signals its foreground group, in which the command is, or is not.
#[test]
fn a_key_asks_once() {
    if !has("script") {
        return skipped("needs script(1) of util-linux");
    }
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("drains.sh"), DRAINS).unwrap();
    for _ in 0..rounds(3, 20) {
        for before in ["", "setsid -w "] {
            let line = format!("exec '{BINARY}' run --no-backoff -- {before}/bin/sh drains.sh");
            let mut command = sandbox.program("script");
            command.args(["-qfec", &line, "/dev/null"]).env("SHELL", "/bin/sh");
            let mut terminal = Process::start(command);
            let shell: u32 = loop {
                if let Ok(pid) = terminal.line().trim().parse() {
                    break pid;
                }
            };
            let run = Stat::of(shell).expect("it waits").parent;
            terminal.write("\u{3}");
            drains_after_one_request(&mut terminal, run);
            terminal.finish_with_stdin_open(LIMIT).assert_code(0);
        }
    }
}
