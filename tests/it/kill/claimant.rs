//! Claimants that are killed half way, and whom they never kill themselves.

use crate::support::{
    BINARY, LIMIT, Process, Run, Sandbox, another_user, eventually, has, pid_namespace, skipped,
    tagged, works,
};

/// Symptom: an office that nobody could claim any more without force. Cause: a claimant that found
/// its holder dead removed the dead one's anchor, and was killed before it had that on record; from
/// another pid namespace nothing is left to tell. It holds because files are removed only after the
/// commit.
#[test]
fn a_claimant_killed_half_way_leaves_the_dead_dead() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    if !has("strace") || !works(&["strace", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let dead_holder_elsewhere = || {
        let sandbox = Sandbox::new();
        let mut command = sandbox.within(namespace);
        command.args([BINARY, "run", "--no-backoff"]);
        let mut container = Process::start({
            command.args(crate::support::HOLDING);
            command
        });
        container.line();
        container.kill();
        eventually("the container is gone", LIMIT, || {
            tagged("IT_SANDBOX", sandbox.path()).is_empty().then_some(())
        });
        // A dying process has no environment any more before it closes its files.
        eventually("the anchor is free", LIMIT, || (sandbox.status().0 == 3).then_some(()));
        sandbox.assert_status(3, "dead", "anchor_released");
        sandbox
    };
    let claimant = |sandbox: &Sandbox, options: &[&str]| {
        let mut command = sandbox.program("strace");
        command.args(["-e", "trace=unlink,unlinkat,pwrite64", "-o"]).arg(sandbox.file("trace"));
        command.args(options).args([BINARY, "run", "--no-backoff", "--", "true"]);
        Process::start(command).finish(LIMIT)
    };
    // Once to the end, to see where the dead one's anchor goes.
    let sandbox = dead_holder_elsewhere();
    claimant(&sandbox, &[]).assert_code(0);
    let trace = std::fs::read_to_string(sandbox.file("trace")).unwrap();
    let (mut writes, mut after_unlink) = (0, None);
    let mut is_removed = false;
    for line in trace.lines() {
        if line.starts_with("pwrite64") {
            writes += 1;
            if is_removed && after_unlink.is_none() {
                after_unlink = Some(writes);
            }
        }
        is_removed |= line.starts_with("unlink") && line.contains(".lock");
    }
    assert!(writes > 0, "no writes in the trace");
    let mut points = vec![1, writes / 2, writes];
    points.extend(after_unlink);
    for point in points {
        let sandbox = dead_holder_elsewhere();
        let inject = format!("inject=pwrite64:signal=SIGKILL:when={point}");
        let killed = claimant(&sandbox, &["-e", &inject]);
        assert_eq!(killed.code(), 137, "write {point} of {writes}: {killed:#?}");
        let (code, status) = sandbox.status();
        assert_eq!(code, 3, "killed at write {point} of {writes}: {status:#}");
        sandbox.assert_free();
    }
}

/// FIELD-BUGS rows 18 and 50.
///
/// Symptom: a restart issued from inside a gateway killed the restarter. Here: a command with
/// another user's id outlives its killed `run`, and starts a `run` of its own. That one may end
/// commands left over, but not the very process that it works for.
#[test]
fn a_claimant_never_kills_its_own_ancestor() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let script = "echo $$; read -r go
        \"$0\" run --no-backoff -- echo started; echo \"code $?\"; exec cat";
    let mut command = sandbox.program(BINARY);
    command.args(["run", "--no-backoff", "--"]).args(nobody).args(["/bin/sh", "-c", script]);
    command.arg(&binary);
    let mut run = Run::start(command);
    run.kill();
    assert!(!run.command.is_gone(), "the test is about a command that survives its run");
    sandbox.assert_status(0, "alive", "child_lives");
    run.process.say("go");
    assert_eq!(run.process.line(), "code 75");
    assert!(!run.command.is_gone());
    let said = run.process.err_line_with("is held by");
    assert!(said.contains("the command it started still runs"), "{said}");
    // Who is not its child may: that is what the rule is for.
    sandbox.assert_free();
    run.command.wait_gone(LIMIT);
}
