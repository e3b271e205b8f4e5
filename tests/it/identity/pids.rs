//! Pids that others have by now, absurd records, and owners that look like something else.

use rustix::process::Signal;
use serde_json::json;

use super::{assert_free, assert_office_refused, killed_run};
use crate::support::{
    BINARY, Identity, LIMIT, Process, Run, Sandbox, Stat, WITHOUT_MAIN_THREAD, eventually, has,
    skipped, wait_stopped,
};

/// A process that has nothing to do with the store; that it got no signal shows in its end.
pub struct Decoy(pub Process);

impl Decoy {
    pub fn new(sandbox: &Sandbox) -> Self {
        let script = "trap 'echo signalled' TERM HUP INT QUIT USR1 USR2 CONT; echo ready
            while read -r line; do :; done; echo left alone";
        let mut process = Process::start(sandbox.shell(script));
        assert_eq!(process.line(), "ready");
        Self(process)
    }

    fn identity(&self) -> Identity {
        Identity::of(self.0.pid()).unwrap()
    }

    pub fn assert_left_alone(self) {
        let answer = self.0.finish(LIMIT).assert_code(0);
        assert_eq!(answer.out, "ready\nleft alone\n");
    }
}

/// R:ROW, R:REUSE. FIELD-BUGS rows 5, 7, 8, 10, 17 and 60.
///
/// Symptom: "token in use (pid n)" for ever, where n is a music player by now. Cause: pid alone, or
/// a start time that one side did not have, counted as identity. It holds because every combination
/// of recorded and live start time has its own answer, and none of them signals anybody.
#[test]
fn a_recycled_pid_keeps_nobody_out() {
    // What is on record beside the decoy's pid, as its start time plus a difference; what follows.
    let cases = [
        ("an older start time", "start_time = {} - 1", "pid_reused"),
        ("a newer start time", "start_time = {} + 1", "pid_reused"),
        ("no start time", "start_time = NULL", "identity_mismatch"),
        ("no start time, of another user", "start_time = NULL, uid = 12345", "pid_reused"),
    ];
    for (what, columns, reason) in cases {
        for anchor in ["NULL", "'00-1-00.lock'"] {
            let sandbox = Sandbox::new();
            killed_run(&sandbox);
            let decoy = Decoy::new(&sandbox);
            let it = decoy.identity();
            sandbox.forge(&format!(
                "UPDATE instances SET process_inode = NULL, pid = {}, anchor = {anchor}, {}",
                it.pid,
                columns.replace("{}", &it.start_time.to_string())
            ));
            eprintln!("{what}, anchor {anchor}");
            assert_free(&sandbox, reason);
            decoy.assert_left_alone();
        }
    }
}

/// The other half of row 8: where it is the recorded process, it is not evicted for a forged or
/// missing detail.
#[test]
fn the_recorded_process_is_recognised_without_its_lock() {
    for (columns, reason) in [
        ("start_time = start_time", "start_time_matches"),
        ("start_time = NULL", "command_line_matches"),
    ] {
        let sandbox = Sandbox::new();
        let run = sandbox.hold(&[]);
        // Stopped, so that it does not find its record changed.
        run.process.signal(Signal::STOP);
        wait_stopped(run.pid());
        sandbox.forge(&format!(
            "UPDATE instances SET anchor = NULL, child_pid = NULL, process_inode = NULL, {columns}"
        ));
        let status = assert_office_refused(&sandbox, 0, "alive", reason);
        assert_eq!(status["evidence"]["anchor"], "none");
        assert_eq!(status["flags"], json!(["stopped"]));
    }
}

/// FIELD-BUGS row 8, 58: a row that makes no sense reads as unknown, never as dead and never as an
/// error: a held lock still decides, and without one a person may.
#[test]
fn an_absurd_record_is_unknown() {
    for columns in ["pid = -5", "pid = 0", "pid = 99999999999", "start_time = -1"] {
        let sandbox = Sandbox::new();
        let run = sandbox.hold(&[]);
        sandbox.forge(&format!("UPDATE instances SET {columns}"));
        sandbox.assert_status(0, "alive", "anchor_held");
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        drop(run);
    }
    let sandbox = Sandbox::new();
    killed_run(&sandbox);
    sandbox.forge("UPDATE instances SET anchor = NULL, pid = 0");
    assert_office_refused(&sandbox, 4, "unknown", "not_verifiable");
    sandbox.cli(["evict", "--force"]).assert_code(0);
    sandbox.hold(&[]).end().assert_code(0);
}

/// FIELD-BUGS rows 6, 10 and 84. After a reboot the very pid and the very tick may come back: the
/// boot id is part of who it was. On another machine (a copied or shared store) nothing here says
/// anything about it.
#[test]
fn another_boot_is_dead_and_another_machine_is_unknown() {
    const OTHER_BOOT: &str = "boot_id = '11111111-2222-3333-4444-555555555555',
         written_boot_clock_ms = 9000000000000";
    for anchor in ["NULL", "'00-1-00.lock'", "anchor"] {
        let sandbox = Sandbox::new();
        killed_run(&sandbox);
        let decoy = Decoy::new(&sandbox);
        let it = decoy.identity();
        sandbox.forge(&format!(
            "UPDATE instances SET pid = {}, start_time = {}, anchor = {anchor}, {OTHER_BOOT}",
            it.pid, it.start_time
        ));
        assert_free(&sandbox, "rebooted");
        decoy.assert_left_alone();
    }
    let sandbox = Sandbox::new();
    killed_run(&sandbox);
    let decoy = Decoy::new(&sandbox);
    let it = decoy.identity();
    sandbox.forge(&format!(
        "UPDATE instances SET pid = {}, start_time = {}, anchor = NULL, host = 'another',
             {OTHER_BOOT}",
        it.pid, it.start_time
    ));
    assert_office_refused(&sandbox, 4, "unknown", "foreign_namespace");
    sandbox.cli(["evict", "--force"]).assert_code(0);
    sandbox.hold(&[]).end().assert_code(0);
    decoy.assert_left_alone();
}

/// R:STOP. FIELD-BUGS rows 20 and 21: a stopped owner (Ctrl-Z, a laptop asleep) keeps what it
/// holds.
#[test]
fn a_stopped_owner_is_not_dead() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    let status = assert_office_refused(&sandbox, 0, "alive", "anchor_held");
    assert_eq!(status["flags"], json!(["stopped"]));
    assert_eq!(status["evidence"]["process_state"], "stopped");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    assert!(text.contains(&format!("kill -CONT {}", run.pid())), "{text}");
    run.process.signal(Signal::CONT);
    eventually("it goes on", LIMIT, || (sandbox.status().1["flags"] == json!([])).then_some(()));
    run.end().assert_code(0);
}

/// A traced process is stopped most of the time, and healthy.
#[test]
fn an_owner_under_strace_is_not_stopped() {
    let sandbox = Sandbox::new();
    let trace = sandbox.file("trace");
    if !has("strace") || !crate::support::works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let mut command = sandbox.program("strace");
    command.args(["-f", "-o"]).arg(&trace).args([
        BINARY,
        "run",
        "--",
        "/bin/sh",
        "-c",
        "echo $$; exec cat",
    ]);
    let mut strace = Process::start(command);
    strace.line();
    let status = assert_office_refused(&sandbox, 0, "alive", "anchor_held");
    assert_eq!(status["flags"], json!([]), "{status:#}");
    strace.finish(LIMIT).assert_code(0);
    sandbox.assert_status(3, "dead", "exited");
}

/// R:COMM. FIELD-BUGS rows 12 and 15.
///
/// Symptom: a live owner judged dead because its name had a blank or a `)` in it, or because it ran
/// through a renamed copy or a wrapper. Cause: `stat` was split at blanks, and a list of known
/// command lines decided about life. It holds because the name is cut at its last parenthesis, and
/// a command line evicts nobody whose lock is held or whose start time is equal.
#[test]
fn renamed_and_wrapped_owners_are_alive() {
    for name in ["a) S 1 1", "gateway with blanks", "\u{e9}t\u{e9}", "incumbent (deleted)"] {
        let sandbox = Sandbox::new();
        let copy = sandbox.copy_program(name);
        let mut command = sandbox.program(&copy);
        command.args(["run", "--", "/bin/sh", "-c", "echo $$; exec cat"]);
        let mut run = Run::start(command);
        // Its file is replaced under it, as upgrades do.
        std::fs::remove_file(&copy).unwrap();
        let status = assert_office_refused(&sandbox, 0, "alive", "anchor_held");
        assert_eq!(status["evidence"]["start_time"], "equal", "{name}: {status:#}");
        assert_eq!(status["evidence"]["process_state"], "running", "{name}: {status:#}");
        run.process.signal(Signal::STOP);
        wait_stopped(run.pid());
        sandbox.forge("UPDATE instances SET anchor = NULL, child_pid = NULL");
        assert_office_refused(&sandbox, 0, "alive", "start_time_matches");
        run.kill();
        run.command.wait_gone(LIMIT);
        assert_eq!(sandbox.status().0, 3, "{name}");
    }
    let sandbox = Sandbox::new();
    let wrapper = "incumbent run -- sh -c 'echo $$; exec cat' && echo wrapped";
    let mut shell = Process::start(sandbox.shell(wrapper));
    shell.line();
    let status = assert_office_refused(&sandbox, 0, "alive", "anchor_held");
    assert_ne!(status["pid"], shell.pid());
    assert_eq!(shell.finish(LIMIT).assert_code(0).out.lines().last(), Some("wrapped"));
}

/// FIELD-BUGS row 19, the trap in it: a process whose main thread has ended shows state Z, and
/// lives.
#[test]
fn a_process_whose_main_thread_ended_is_alive() {
    if !has("python3") {
        return skipped("needs python3");
    }
    for options in ["", "--no-keeper"] {
        let sandbox = Sandbox::new();
        let program = sandbox.file("two.py");
        std::fs::write(&program, WITHOUT_MAIN_THREAD).unwrap();
        let script =
            format!("incumbent claim {options} > /dev/null; exec python3 '{}'", program.display());
        let mut owner = Process::start(sandbox.shell(&script));
        assert_eq!(owner.line(), "alone");
        assert_eq!(Stat::of(owner.pid()).unwrap().state, 'Z');
        let reason = if options.is_empty() { "anchor_held" } else { "start_time_matches" };
        let status = assert_office_refused(&sandbox, 0, "alive", reason);
        assert_eq!(status["evidence"]["process"], "present", "{status:#}");
        assert_eq!(status["evidence"]["process_state"], "zombie", "{status:#}");
        // Without lock, start time and (in this state) command line nobody can tell, and so nobody
        // is evicted.
        sandbox.forge("UPDATE instances SET anchor = NULL, start_time = NULL");
        let (_, status) = sandbox.status();
        assert_ne!(status["verdict"], "dead", "{status:#}");
        owner.kill();
        assert_eq!(sandbox.status().0, 3);
    }
}
