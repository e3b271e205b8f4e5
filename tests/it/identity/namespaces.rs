//! Containers: other pid namespaces, other clocks, another view of the process table.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    BINARY, HOLDING, LIMIT, Process, Run, Sandbox, Stat, kill, nobody_with_hidepid, pid_namespace,
    skipped, tagged, wait_stopped, works,
};

/// The process that `unshare` started.
fn only_child_of(sandbox: &Sandbox, parent: u32) -> u32 {
    tagged("IT_SANDBOX", sandbox.path())
        .into_iter()
        .find(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == parent))
        .expect("a child")
}

/// R:PIDNS. FIELD-BUGS rows 25, 26 and 27.
///
/// Symptom: a dashboard in its own container showed "not running", or deleted the live owner's
/// lock; a second container took the office. Cause: a pid that cannot be seen was taken for dead.
/// It holds because file locks do not care for pid namespaces, and the lock decides.
#[test]
fn an_owner_outside_of_our_pid_namespace_is_seen_alive() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let anchors = sandbox.anchor_names();
    let inside = sandbox.in_namespace(
        namespace,
        "for n in 1 2 3 4 5 6 7 8; do incumbent status > /dev/null; echo $?; done
         incumbent --json status > status.json
         incumbent run --no-backoff -- true; echo \"run $?\"
         incumbent evict; echo \"evict $?\"",
    );
    let answer = inside.finish(LIMIT);
    assert_eq!(answer.out, "0\n".repeat(8) + "run 75\nevict 75\n", "{answer:#?}");
    let status = std::fs::read_to_string(sandbox.file("status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["reason"], "anchor_held", "{status:#}");
    assert_eq!(status["flags"], json!(["elsewhere"]), "{status:#}");
    assert_eq!(status["evidence"]["namespace"], "different", "{status:#}");
    assert_eq!(status["evidence"]["boot"], "same", "{status:#}");
    assert_eq!(sandbox.anchor_names(), anchors);
    run.end().assert_code(0);
}

/// Without the lock nothing can be said from inside: nobody is evicted, and a person may decide.
/// The owner, when it goes on, learns that it lost.
#[test]
fn an_owner_outside_without_its_anchor_is_unknown() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    // Stopped: a running owner would make its anchor anew within a second.
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    for name in sandbox.anchor_names() {
        std::fs::remove_file(sandbox.anchors().join(name)).unwrap();
    }
    // What is left is the lock of its command.
    let asked = sandbox.in_namespace(namespace, "incumbent --json status").finish(LIMIT);
    assert_eq!(asked.assert_code(0).json()["reason"], "child_lives");
    std::fs::remove_dir_all(sandbox.anchors()).unwrap();
    let inside = sandbox.in_namespace(
        namespace,
        "incumbent --json status > status.json; echo \"status $?\"
         incumbent run --no-backoff -- true; echo \"run $?\"
         incumbent evict; echo \"evict $?\"
         incumbent evict --force > /dev/null; echo \"force $?\"
         incumbent run --no-backoff -- true; echo \"run $?\"",
    );
    let answer = inside.finish(LIMIT);
    assert_eq!(answer.out, "status 4\nrun 75\nevict 75\nforce 0\nrun 0\n", "{answer:#?}");
    let status = std::fs::read_to_string(sandbox.file("status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["verdict"], "unknown", "{status:#}");
    assert_eq!(status["reason"], "foreign_namespace", "{status:#}");
    assert_eq!(status["running"], false, "{status:#}");
    assert_eq!(status["evidence"]["anchor"], "missing", "{status:#}");
    run.process.signal(Signal::CONT);
    run.process.finish_with_stdin_open(LIMIT).assert_code(75).assert_complains(&["was lost"]);
}

/// A running owner whose anchor was deleted (an over-eager `rm`) makes it anew, under its own name.
#[test]
fn a_deleted_anchor_is_made_anew_by_its_owner() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let names = sandbox.anchor_names();
    for name in &names {
        std::fs::remove_file(sandbox.anchors().join(name)).unwrap();
    }
    crate::support::eventually("the anchor is back", LIMIT, || {
        let status = sandbox.status().1;
        assert_eq!(status["verdict"], "alive", "{status:#}");
        (status["reason"] == "anchor_held").then_some(())
    });
    assert_eq!(sandbox.status().1["pid"], run.pid());
    run.end().assert_code(0);
}

/// FIELD-BUGS row 24.
///
/// Symptom: after every restart of its container, "already running (pid 1)": the pid on record is
/// one's own. It holds because a pid proves nothing; the killed one's lock is free.
#[test]
fn pid_1_after_pid_1_owns_at_once() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let start = || {
        let mut command = sandbox.within(namespace);
        command.args([BINARY, "run", "--no-backoff"]).args(HOLDING);
        let mut container = Process::start(command);
        container.line();
        container
    };
    for _ in 0..5 {
        let mut container = start();
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["pid"], 1, "{status:#}");
        kill(only_child_of(&sandbox, container.pid()), Signal::KILL);
        container.wait(LIMIT);
        sandbox.assert_status(3, "dead", "anchor_released");
    }
    start().finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.history().len(), 6);
}

/// R:REUSE. FIELD-BUGS rows 7, 17 and 60: the very pid of the killed owner, given out again.
#[test]
fn the_next_user_of_a_killed_owners_pid_keeps_nobody_out_and_gets_no_signal() {
    const SCRIPT: &str = "
        mkfifo gate pids
        exec 8<> gate

        incumbent run --no-backoff -- sh -c 'echo $$ > pids; sleep 1000' &
        owner=$!
        read -r command < pids
        kill -KILL $owner; wait $owner
        # Its command is killed as well, a moment later.
        until [ ! -e /proc/$command ] || grep -q '^State:.Z' /proc/$command/status
        do sleep 0.01; done
        reuse $owner; echo \"run: same pid $(($! - owner))\"
        incumbent status > /dev/null; echo \"status $?\"
        incumbent run --no-backoff -- true; echo \"run $?\"
        kill -KILL $!; wait $!; cat decoy.txt | grep -c signalled

        sh -c 'echo $$ > pids; sleep 1000' &
        owner=$!
        read -r same < pids
        incumbent claim --no-keeper --pid $owner > /dev/null
        kill -KILL $owner; wait $owner
        # One tick of the clock that start times are counted in has to pass: 10 ms.
        sleep 0.05
        reuse $owner; echo \"claim: same pid $(($! - owner))\"
        incumbent --json status > status.json; echo \"status $?\"
        incumbent run --no-backoff -- true; echo \"run $?\"
        kill -KILL $!; wait $!; cat decoy.txt | grep -c signalled
        exit 0";
    let sandbox = Sandbox::new();
    let Some(answer) = sandbox.choosing_pids(SCRIPT) else { return };
    let lines: Vec<_> = answer.out.lines().collect();
    assert_eq!(
        lines,
        [
            "run: same pid 0",
            "status 3",
            "run 0",
            "0",
            "claim: same pid 0",
            "status 3",
            "run 0",
            "0",
        ],
        "{answer:#?}"
    );
    let status = std::fs::read_to_string(sandbox.file("status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["reason"], "pid_reused", "{status:#}");
}

/// R:TIMENS. FIELD-BUGS row 13: in another time namespace every start time in /proc is moved, by
/// ten million ticks here. It holds because what is stored and compared has that offset taken out.
#[test]
fn a_time_namespace_does_not_move_start_times() {
    let words = ["unshare", "-UrTf", "--boottime", "100000"];
    if !works(&words) {
        return skipped("needs time namespaces");
    }
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let look = || {
        let mut command = sandbox.within(&words);
        command.args([BINARY, "--json", "status"]);
        Process::start(command).finish(LIMIT)
    };
    let status = look().assert_code(0).json();
    assert_eq!(status["evidence"]["start_time"], "equal", "{status:#}");
    // Where nothing but the start time tells:
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    sandbox.forge("UPDATE instances SET anchor = NULL, child_pid = NULL, process_inode = NULL");
    assert_eq!(look().assert_code(0).json()["reason"], "start_time_matches");
    let mut claim = sandbox.within(&words);
    claim.args([BINARY, "run", "--no-backoff", "--", "true"]);
    Process::start(claim).finish(LIMIT).assert_code(75);
    drop(run);

    // And the other way round: an owner from such a namespace, seen from here.
    let sandbox = Sandbox::new();
    let mut command = sandbox.within(&words);
    command.args([BINARY, "run", "--no-backoff"]).args(HOLDING);
    let run = Run::start(command);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["evidence"]["start_time"], "equal", "{status:#}");
    run.end().assert_code(0);
}

/// R:HIDEPID. FIELD-BUGS rows 9, 29 and 31: a live process may be absent from /proc.
#[test]
fn a_process_that_is_hidden_is_not_dead() {
    let Some(words) = nobody_with_hidepid() else {
        return skipped("needs root, and leave to mount /proc");
    };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let run = sandbox.hold(&[]);
    let ask = |verb: &[&str]| {
        let mut command = sandbox.within(words);
        command.arg(&binary).arg("--json").args(verb);
        let answer = Process::start(command).finish(LIMIT);
        (answer.code(), answer.json())
    };
    let (code, status) = ask(&["status"]);
    assert_eq!((code, &status["reason"]), (0, &json!("anchor_held")), "{status:#}");
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    // The kernel's number needs no /proc (Linux 6.9); without it nothing is left to know it by.
    sandbox.forge("UPDATE instances SET anchor = NULL, child_pid = NULL");
    if sandbox.number("SELECT process_inode IS NOT NULL FROM instances") == 1 {
        let (code, status) = ask(&["status"]);
        assert_eq!((code, &status["reason"]), (0, &json!("start_time_matches")), "{status:#}");
    }
    sandbox.forge("UPDATE instances SET process_inode = NULL");
    let (code, status) = ask(&["status"]);
    assert_eq!((code, &status["reason"]), (4, &json!("not_verifiable")), "{status:#}");
    assert_eq!(status["evidence"]["process"], "present", "{status:#}");
    let (code, answer) = ask(&["run", "--no-backoff", "--", "true"]);
    assert_eq!(code, 75, "{answer:#}");
    assert_eq!(answer["holder"]["verdict"], "unknown", "{answer:#}");
}

/// Symptom: a live gateway lost its office to a `release` in some container. Cause: its pid was
/// looked for in the wrong pid namespace, not found, and so taken for gone.
#[test]
fn a_release_from_another_pid_namespace_ends_no_live_record() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let script = "incumbent claim > /dev/null; echo $$; exec cat";
    let mut owner = Process::start(sandbox.shell(script));
    let pid = owner.line();
    let release = ["release", "--pid", pid.as_str()];
    let answer = Process::start(sandbox.incumbent_under(namespace, &release)).finish(LIMIT);
    assert_eq!(answer.code(), 1, "{answer:#?}");
    assert!(!answer.err.is_empty(), "{answer:#?}");
    sandbox.assert_status(0, "alive", "anchor_held");
    sandbox.assert_held("anchor_held");
    sandbox.cli(release).assert_code(0);
    sandbox.assert_status(3, "dead", "released");
}
