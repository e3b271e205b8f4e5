//! A child takes over, or it does not: then nothing has happened.

use rustix::process::Signal;
use serde_json::json;

use crate::handover::Owns;
use crate::handover::gateway::{GATEWAY, ROLE_TEST};
use crate::support::{
    AS_ROLE, LIMIT, Process, START, Sandbox, ask, eventually, kill, set_role, told, wait_ended,
};

/// `(instance, pid)` of `handed over INSTANCE PID`.
#[track_caller]
fn handed_over(said: &str) -> (i64, u32) {
    match said.split(' ').collect::<Vec<_>>()[..] {
        ["handed", "over", instance, pid] => (instance.parse().unwrap(), pid.parse().unwrap()),
        _ => panic!("{said:?}"),
    }
}

/// What predecessor and successor say, in whatever order.
#[track_caller]
pub fn both(gateway: &mut Process) -> (String, Owns) {
    let (one, other) = (told(gateway), told(gateway));
    if one.starts_with("owns ") { (other, Owns::parse(&one)) } else { (one, Owns::parse(&other)) }
}

#[test]
fn a_child_takes_over_with_the_locks() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    let first = Owns::parse(&told(&mut gateway));
    ask(&mut gateway, "lock chat");
    let anchors = sandbox.anchor_names();
    gateway.say("hand over 60000 adopts");
    let (said, second) = both(&mut gateway);
    assert_eq!(handed_over(&said), (second.instance, second.pid));
    assert!(second.instance > first.instance && second.pid != first.pid);
    assert_eq!(gateway.wait(LIMIT).code(), Some(0));
    assert_eq!(sandbox.anchor_names(), anchors, "it is the same file");
    sandbox.assert_held_by(&second);
    let ended = sandbox.end_of(first.instance);
    assert_eq!(ended["end_reason"], "handed_over", "{ended:#}");
    let by = ended["ended_by"].as_str().unwrap();
    assert!(by.starts_with(&format!("pid {} (", second.pid)), "{by}");
    assert_eq!(sandbox.holder_of("chat"), Some(second.instance));
    // The streams are the child's now.
    assert_eq!(ask(&mut gateway, "verify"), "Held");
    gateway.close_stdin();
    assert!(wait_ended(second.pid, LIMIT));
    sandbox.assert_status(3, "dead", "released");
    sandbox.hold(&[]).end().assert_code(0);
}

/// Symptom: the office of a successor was free although it lived. Cause: its predecessor, which
/// stayed for a while, unlocked the file that both shared. It holds because such a file is only
/// closed.
#[test]
fn a_predecessor_that_stays_takes_nothing_away() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    told(&mut gateway);
    gateway.say("hand over aside 60000 stays");
    let (said, second) = both(&mut gateway);
    handed_over(&said);
    let lost = ask(&mut gateway, "verify");
    assert!(lost.contains("Lost") && lost.contains("HandedOver"), "{lost}");
    sandbox.assert_held_by(&second);
    // It lets all go that it still has.
    assert_eq!(ask(&mut gateway, "drop"), "dropped");
    sandbox.assert_held_by(&second);
    gateway.close_stdin();
    assert_eq!(gateway.wait(LIMIT).code(), Some(0));
    sandbox.assert_held_by(&second);
    kill(second.pid, Signal::KILL);
    assert!(wait_ended(second.pid, LIMIT));
    sandbox.assert_status(3, "dead", "anchor_released");
    sandbox.cli(START).assert_code(0);
}

#[test]
fn a_successor_that_dies_while_its_predecessor_stays_keeps_nobody_out() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    told(&mut gateway);
    gateway.say("hand over aside 60000 stays");
    let (_, second) = both(&mut gateway);
    kill(second.pid, Signal::KILL);
    // Nobody has collected it: its parent does not wait for it.
    let status = eventually("its end", LIMIT, || {
        let (code, status) = sandbox.status();
        (code == 3).then_some(status)
    });
    assert_eq!(status["verdict"], "dead", "{status:#}");
    sandbox.cli(START).assert_code(0);
    gateway.finish(LIMIT).assert_code(0);
}

#[test]
fn a_successor_that_ends_or_takes_too_long_leaves_everything_as_it_was() {
    for (order, why) in [
        ("hand over 60000 ends", "kept: the successor did not take over (exit status: 3)"),
        ("hand over 300 sleeps", "kept: the successor did not take over in time"),
    ] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.predecessor();
        let first = Owns::parse(&told(&mut gateway));
        ask(&mut gateway, "lock chat");
        assert_eq!(ask(&mut gateway, order), why);
        assert_eq!(ask(&mut gateway, "verify"), "Held");
        assert_eq!(ask(&mut gateway, "verify locks"), "[Ok(Held)]");
        sandbox.assert_held_by(&first);
        assert_eq!(sandbox.history().len(), 1, "nobody else was ever there");
        // And it can be tried again.
        gateway.say("hand over 60000 adopts");
        let (_, second) = both(&mut gateway);
        sandbox.assert_held_by(&second);
    }
}

#[test]
fn a_successor_that_cannot_be_started_is_an_error() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    let first = Owns::parse(&told(&mut gateway));
    let said = ask(&mut gateway, "hand over missing 60000");
    assert!(said.starts_with("InvalidInput") && said.contains("/no/such/program"), "{said}");
    sandbox.assert_held_by(&first);
}

/// What was handed over is for one: the nonce is read once, and the row is there once.
#[test]
fn whoever_dies_before_it_is_followed_leaves_the_office_to_the_first() {
    for is_first in [true, false] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.predecessor();
        let first = Owns::parse(&told(&mut gateway));
        gateway.say("hand over 60000 waits");
        let waits = told(&mut gateway);
        let pid: u32 = waits.strip_prefix("waits ").unwrap().parse().unwrap();
        sandbox.assert_held_by(&first);
        kill(first.pid, Signal::KILL);
        gateway.wait(LIMIT);
        // The child has the lock in its hands, and no office.
        let status = sandbox.assert_status(3, "dead", "no_such_process");
        assert_eq!(status["flags"], json!(["anchor_leaked"]), "{status:#}");
        if is_first {
            let second = Owns::parse(&ask(&mut gateway, "go"));
            assert_eq!(second.how, "predecessor");
            sandbox.assert_held_by(&second);
            assert_eq!(sandbox.end_of(first.instance)["end_reason"], "handed_over");
        } else {
            let run = sandbox.hold(&[]);
            assert_eq!(ask(&mut gateway, "go"), "nothing lost");
            assert!(wait_ended(pid, LIMIT));
            assert_eq!(sandbox.status().1["pid"], run.pid());
            assert_eq!(sandbox.end_of(first.instance)["end_reason"], "no_such_process");
            run.end().assert_code(0);
        }
    }
}

/// Whoever waits for the end of the predecessor waits for that of its row: nobody takes over, and
/// the office ends as was asked for.
#[test]
fn nobody_hands_over_who_is_being_stopped() {
    let sandbox = Sandbox::new();
    let mut deaf = sandbox.shell(&format!("trap '' TERM; {AS_ROLE}"));
    set_role(&mut deaf, ROLE_TEST, GATEWAY);
    let mut gateway = Process::start(deaf);
    let first = Owns::parse(&told(&mut gateway));
    gateway.say("hand over 60000 waits");
    told(&mut gateway);
    let stop = Process::start(sandbox.incumbent(["stop", "--timeout", "1min"]));
    let asked = "SELECT count(*) FROM markers WHERE name = 'planned_stop'";
    eventually("the request", LIMIT, || (sandbox.number(asked) == 1).then_some(()));
    gateway.say("go");
    assert_eq!(told(&mut gateway), "nothing asked_to_end");
    let kept = told(&mut gateway);
    assert_eq!(kept, "kept: the successor did not take over (exit status: 4)");
    let why = "kept: this process is being stopped or replaced";
    assert_eq!(ask(&mut gateway, "hand over 60000 adopts"), why);
    let said = ask(&mut gateway, "exec adopts");
    assert!(said.starts_with("Busy"), "{said}");
    assert_eq!(ask(&mut gateway, "verify"), "Held");
    assert_eq!(sandbox.status().1["instance"], first.instance);
    gateway.finish(LIMIT).assert_code(0);
    stop.finish(LIMIT).assert_code(0);
    let ended = sandbox.end_of(first.instance);
    assert_eq!(ended["end_reason"], "planned_stop", "{ended:#}");
}
