//! `status --pid`: a person has a pid, from `top` or from a log.

use rustix::process::Signal;

use crate::support::{LIMIT, Run, Sandbox, bystander, kill, wait_ended};

/// Symptom: "holds no office" of the gateway itself, because a shell had started it.
#[test]
fn the_gateway_below_a_shell_is_found() {
    let sandbox = Sandbox::new();
    let script = "echo $$; sh -c 'echo $$; exec cat'; :";
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    let gateway = run.process.line();
    let (code, report) = sandbox.json(["status", "--pid", gateway.trim()]);
    assert_eq!((code, &report["pid"]), (0, &run.pid().into()), "{report:#}");
    assert_eq!(report["child_pid"], run.command.pid, "{report:#}");
    // Nobody above it has anything.
    let other = bystander(&sandbox);
    let told = sandbox.cli(["status", "--pid", &other.pid().to_string()]).assert_code(3);
    told.assert_complains(&["holds no office"]);
    run.end().assert_code(0);
}

/// Symptom: "holds no office", and nothing of the lock that it had.
#[test]
fn a_process_with_a_lock_alone_is_told() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    sandbox.cli(["lock", "acquire", "token", "a", "--pid", &pid]).assert_code(0);
    let told = sandbox.cli(["status", "--pid", &pid]).assert_code(3);
    told.assert_complains(&["holds no office, only the lock token/", "`incumbent locks`"]);
}

/// Symptom: of a process that has nothing to do with it, `default/gateway` was told, and that it
/// may be evicted.
#[test]
fn a_lost_store_says_nothing_of_strangers() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.incumbent(["--profile", "work", "run", "--no-backoff", "--"]);
    command.args(["/bin/sh", "-c", "echo $$; exec sleep 1000"]);
    let run = Run::start(command);
    // It must not make a new one.
    kill(run.pid(), Signal::STOP);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(sandbox.sidecar(suffix));
    }
    let other = bystander(&sandbox);
    let told = sandbox.cli(["status", "--pid", &other.pid().to_string()]).assert_code(3);
    assert!(told.out.is_empty() && !told.err.contains("evict"), "{told:#?}");
    kill(run.pid(), Signal::KILL);
    assert!(wait_ended(run.pid(), LIMIT));
}
