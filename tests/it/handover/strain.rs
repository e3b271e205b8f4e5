//! Handovers where something else goes wrong as well.

use rustix::process::Signal;

use crate::handover::Owns;
use crate::handover::child::both;
use crate::handover::gateway::{GATEWAY, ROLE_TEST};
use crate::support::{
    AS_ROLE, LIMIT, Process, START, Sandbox, ask, beside, kill, set_role, told, wait_ended,
    wait_stopped,
};

/// Symptom: after a restore a second gateway was let in beside the living one. Cause: the copy names
/// the predecessor, who is gone, and so its anchor, which the successor holds, was a leak. It holds
/// because the anchor tells that it was handed on (FIELD-BUGS row 97).
#[test]
fn an_older_copy_keeps_everybody_out_while_a_successor_lives() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    let first = Owns::parse(&told(&mut gateway));
    let copy = sandbox.file("copy.db");
    sandbox.cli(["backup", copy.to_str().unwrap()]).assert_code(0);
    gateway.say("hand over 60000 adopts");
    let (_, second) = both(&mut gateway);
    assert!(wait_ended(first.pid, LIMIT));
    // So that it does not see it, and claims nothing there.
    kill(second.pid, Signal::STOP);
    wait_stopped(second.pid);
    for end in ["-wal", "-shm"] {
        std::fs::remove_file(beside(&sandbox.db(), end)).unwrap();
    }
    std::fs::rename(&copy, sandbox.db()).unwrap();
    sandbox.cli(START).assert_code(75);
    kill(second.pid, Signal::KILL);
    assert!(wait_ended(second.pid, LIMIT));
    sandbox.cli(START).assert_code(0);
}

/// Symptom: the command of a `run` that a gateway had become was refused by that very `run`. Cause:
/// what was left to the `run` is in the environment of its command as well. It holds because the
/// claim closes it, and the environment of the `run` counts then.
#[test]
fn a_gateway_becomes_a_run() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    let first = Owns::parse(&told(&mut gateway));
    let second = Owns::parse(&ask(&mut gateway, "exec run"));
    assert_eq!(second.how, "run");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!((&status["pid"], &status["child_pid"]), (&first.pid.into(), &second.pid.into()));
    assert_eq!(sandbox.end_of(first.instance)["end_reason"], "re_executed");
    gateway.finish(LIMIT).assert_code(0);
    sandbox.cli(START).assert_code(0);
}

/// Symptom: a gateway ended the one that had followed it. Cause: it had lost its office while it
/// handed over, and what it had started had claimed by itself. It holds because whoever is not the
/// owner ends nobody.
#[test]
fn a_predecessor_that_was_evicted_ends_nobody() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    told(&mut gateway);
    gateway.say("hand over 60000 waits or claims");
    told(&mut gateway);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    gateway.say("go");
    let said = [told(&mut gateway), told(&mut gateway), told(&mut gateway)];
    let find = |start: &str| said.iter().find(|it| it.starts_with(start));
    assert!(find("nothing lost").is_some() && find("NotOwner").is_some(), "{said:#?}");
    let second = Owns::parse(find("owns claim").unwrap_or_else(|| panic!("{said:#?}")));
    gateway.close_stdin();
    sandbox.assert_held_by(&second);
    kill(second.pid, Signal::KILL);
    assert!(wait_ended(second.pid, LIMIT));
}

/// Symptom: a living gateway lost an office. Cause: it shared the anchor with the successor of
/// another office, whose exec ended all rows on it. It holds because only those of the same process
/// are.
#[test]
fn an_exec_of_a_successor_ends_nothing_of_its_predecessor() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    told(&mut gateway);
    let (claims, executes) = (sandbox.file("claims"), sandbox.file("executes"));
    ask(&mut gateway, &format!("claim other once {}", claims.display()));
    gateway.say(&format!("hand over aside 60000 executes once {}", executes.display()));
    assert!(told(&mut gateway).starts_with("waits "));
    std::fs::write(&claims, "").unwrap();
    assert_eq!(told(&mut gateway), "claimed");
    std::fs::write(&executes, "").unwrap();
    let (_, second) = both(&mut gateway);
    assert_eq!(ask(&mut gateway, "verify other"), "Held");
    sandbox.assert_held_by(&second);
    kill(second.pid, Signal::KILL);
    gateway.finish(LIMIT).assert_code(0);
}

/// Whoever has its children collected by others does not learn how one ended.
#[test]
fn a_gateway_that_ignores_its_children_keeps_its_office() {
    let sandbox = Sandbox::new();
    let mut deaf = sandbox.shell(&format!("trap '' CHLD; {AS_ROLE}"));
    set_role(&mut deaf, ROLE_TEST, GATEWAY);
    let mut gateway = Process::start(deaf);
    let first = Owns::parse(&told(&mut gateway));
    let said = ask(&mut gateway, "hand over 60000 ends");
    assert_eq!(said, "kept: the successor did not take over, and has ended");
    sandbox.assert_held_by(&first);
    gateway.finish(LIMIT).assert_code(0);
}
