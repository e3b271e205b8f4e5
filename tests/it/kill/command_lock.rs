//! The lock that the command of a `run` holds itself: what a claimant sees of it who can look
//! nothing else up (FIELD-BUGS rows 92, 94).

use rustix::process::Signal;

use crate::support::{
    Identity, LIMIT, Process, Run, Sandbox, eventually, has, has_thread, is_root, kill,
    pid_namespace, skipped,
};

/// A command with another user id, which PDEATHSIG does not end.
const ANOTHER_USER: [&str; 4] = ["setpriv", "--reuid", "65534", "--clear-groups"];

impl Sandbox {
    /// `incumbent` in a pid namespace of its own.
    fn elsewhere(&self, arguments: &[&str]) -> std::process::Command {
        let [program, rest @ ..] = pid_namespace().unwrap() else { unreachable!() };
        let mut command = self.program(program);
        command.args(rest).arg(crate::support::BINARY).args(arguments);
        command
    }

    fn asked_elsewhere(&self, arguments: &[&str]) -> crate::support::Answer {
        Process::start(self.elsewhere(arguments)).finish(LIMIT)
    }

    fn command_lock(&self) -> String {
        let (_, document) = self.json(["sql", "SELECT command_lock FROM instances ORDER BY id"]);
        let rows = document.as_array().expect("rows");
        rows.last().unwrap()["command_lock"].as_str().unwrap_or("NULL").to_owned()
    }
}

/// A `run` whose command says its pid and runs `then`, under another user id; the `run` is killed.
fn left_behind(sandbox: &Sandbox, then: &str) -> Identity {
    let script = format!("{then} echo $$; exec cat");
    let mut run = sandbox.hold_with(&[&ANOTHER_USER[..], &["sh", "-c", &script]].concat());
    let command = run.command;
    run.process.signal(Signal::KILL);
    run.process.wait(LIMIT);
    // Its input closes with the test's end, not before.
    std::mem::forget(run);
    command
}

fn can_look_from_elsewhere() -> bool {
    pid_namespace().is_some() && is_root() && has("setpriv")
}

/// Symptom: from another pid namespace a killed `run` looked dead, and its command lived: two at
/// once. It holds because the command holds a lock of its own, which is seen from there.
#[test]
fn a_command_left_behind_is_seen_alive_from_another_pid_namespace() {
    if !can_look_from_elsewhere() {
        return skipped("needs root, a pid namespace and setpriv");
    }
    let sandbox = Sandbox::new();
    let command = left_behind(&sandbox, "");
    let status = sandbox.asked_elsewhere(&["--json", "status"]).assert_code(0).json();
    assert_eq!(status["reason"], "child_lives", "{status:#}");
    assert_eq!(status["evidence"]["command_lock"], "held", "{status:#}");
    assert_eq!(status["evidence"]["table"], "not_visible", "{status:#}");
    sandbox
        .asked_elsewhere(&["run", "--no-backoff", "--", "true"])
        .assert_code(75)
        .assert_complains(&["the command it started still runs"]);
    assert!(!command.is_gone());
    // The lock ends with the command, and that is proof enough.
    kill(command.pid, Signal::KILL);
    eventually("the place is free", LIMIT, || {
        (sandbox.asked_elsewhere(&["run", "--no-backoff", "--", "true"]).code() == 0).then_some(())
    });
    assert!(command.is_gone());
}

/// A command that closes all descriptors (daemons do) loses its lock and lives: then nobody can
/// tell from elsewhere, and nobody is granted anything.
#[test]
fn a_command_that_lost_its_lock_is_unknown_from_elsewhere() {
    if !can_look_from_elsewhere() {
        return skipped("needs root, a pid namespace and setpriv");
    }
    let sandbox = Sandbox::new();
    let script = "echo $$; read -r go; exec 64<&-; echo closed; exec cat";
    let mut run = sandbox.hold_with(&[&ANOTHER_USER[..], &["bash", "-c", script]].concat());
    assert_eq!(sandbox.command_lock(), "held");
    // Also one that does so late, when the run sleeps: the kernel tells it.
    eventually("somebody waits for the lock", LIMIT, || {
        has_thread(run.pid(), "incumbent-lock").then_some(())
    });
    run.process.say("go");
    assert_eq!(run.process.line(), "closed");
    eventually("that is on record", LIMIT, || (sandbox.command_lock() == "lost").then_some(()));
    // It is no fault of its.
    sandbox.assert_status(0, "alive", "anchor_held");
    let command = run.command;
    run.process.signal(Signal::KILL);
    run.process.wait(LIMIT);
    let status = sandbox.asked_elsewhere(&["--json", "status"]).assert_code(4).json();
    assert_eq!(status["reason"], "foreign_namespace", "{status:#}");
    sandbox.asked_elsewhere(&["run", "--no-backoff", "--", "true"]).assert_code(75);
    assert!(!command.is_gone());
    // Here it is seen, and ended.
    sandbox.assert_status(0, "alive", "child_lives");
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    assert!(command.is_gone());
}

/// What the command has started keeps the descriptor that it inherited. Whoever cannot look for it
/// waits for its end, or a person decides; whoever can look takes the place, and leaves alone what
/// left the session.
#[test]
fn what_a_killed_run_left_elsewhere_is_waited_for_where_it_cannot_be_looked_for() {
    if pid_namespace().is_none() {
        return skipped("needs a pid namespace");
    }
    let sandbox = Sandbox::new();
    let script = "setsid sleep 600 > /dev/null 2>&1 & echo $! >&2; echo $$; exec cat";
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    let left: u32 = run.process.err_line().parse().unwrap();
    let left = Identity::of(left).unwrap();
    run.kill();
    run.command.wait_gone(LIMIT);
    let status = sandbox.asked_elsewhere(&["--json", "status"]).assert_code(4).json();
    assert_eq!(status["evidence"]["command_lock"], "inherited", "{status:#}");
    let start = ["run", "--no-backoff", "--", "true"];
    sandbox.asked_elsewhere(&start).assert_code(75);
    assert_eq!(sandbox.status().0, 3);
    kill(left.pid, Signal::KILL);
    left.wait_gone(LIMIT);
    sandbox.asked_elsewhere(&start).assert_code(0);
}

/// The lock goes along with exec, is not inherited by what the command forks, and is taken again by
/// the next command of the same `run`.
#[test]
fn the_lock_is_that_of_the_command_alone_and_of_the_next_one_too() {
    let sandbox = Sandbox::new();
    // The command forks one that lives on in another session, and executes another program.
    let script = "setsid sleep 600 & echo $$; exec cat";
    let mut run =
        Run::start(sandbox.incumbent(["run", "--no-backoff", "--", "bash", "-c", script]));
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["evidence"]["child"], "alive", "{status:#}");
    assert_eq!(sandbox.command_lock(), "held");
    let of_command = |sandbox: &Sandbox| {
        let names = std::fs::read_dir(sandbox.anchors()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.strip_suffix(".cmd").is_some()).collect::<Vec<_>>()
    };
    assert_eq!(of_command(&sandbox).len(), 1);
    sandbox.cli(["restart"]).assert_code(0);
    let second: u32 = run.process.line().parse().unwrap();
    assert_ne!(second, run.command.pid);
    assert_eq!(sandbox.command_lock(), "held");
    assert_eq!(of_command(&sandbox).len(), 1);
    // Nobody keeps the file when the run has ended.
    run.process.signal(Signal::TERM);
    run.process.wait(LIMIT);
    assert_eq!(of_command(&sandbox), Vec::<String>::new());
}

/// The anchor was removed under a living `run`, which makes another one: the lock of the command is
/// found beside that one.
#[test]
fn the_lock_is_found_beside_an_anchor_that_was_made_again() {
    if !can_look_from_elsewhere() {
        return skipped("needs root, a pid namespace and setpriv");
    }
    let sandbox = Sandbox::new();
    let script = "echo $$; exec cat";
    let mut run = sandbox.hold_with(&[&ANOTHER_USER[..], &["sh", "-c", script]].concat());
    let before = sandbox.anchor_names();
    std::fs::remove_file(sandbox.anchors().join(&before[0])).unwrap();
    eventually("another anchor", LIMIT, || {
        let names = sandbox.anchor_names();
        (names.len() == 1 && names != before).then_some(())
    });
    sandbox.assert_status(0, "alive", "anchor_held");
    run.process.signal(Signal::KILL);
    run.process.wait(LIMIT);
    let status = sandbox.asked_elsewhere(&["--json", "status"]).assert_code(0).json();
    assert_eq!(status["reason"], "child_lives", "{status:#}");
    kill(run.command.pid, Signal::KILL);
}
