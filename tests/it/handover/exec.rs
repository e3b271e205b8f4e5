//! A program that becomes another one keeps its office.

use crate::handover::Owns;
use crate::support::{LIMIT, START, Sandbox, ask, told};

fn fence(said: &str) -> (i64, bool) {
    match said.split(' ').collect::<Vec<_>>()[..] {
        ["fence", fence, reacquired] => (fence.parse().unwrap(), reacquired == "true"),
        _ => panic!("{said:?}"),
    }
}

/// Symptom: "between exec and claim others may win": an upgrade in place lost its bot token to a
/// second gateway that was waiting for it. Cause: the anchor was close-on-exec. It holds because
/// the next program inherits its open file, and with that the lock.
#[test]
fn a_program_that_becomes_another_keeps_its_office_and_its_locks() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    let first = Owns::parse(&told(&mut gateway));
    let (lock, _) = fence(&ask(&mut gateway, "lock chat"));
    let pid = first.pid.to_string();
    let write = ["marker", "write", "reload", "--pid", &pid, "--reason", "why"];
    sandbox.cli(write).assert_code(0);
    let anchors = sandbox.anchor_names();

    let second = Owns::parse(&ask(&mut gateway, "exec adopts"));
    assert_eq!((second.how.as_str(), second.pid), ("predecessor", first.pid));
    assert!(second.instance > first.instance, "{first:?} {second:?}");
    assert_eq!(sandbox.anchor_names(), anchors, "it is the same file");
    sandbox.assert_held_by(&second);
    let ended = sandbox.end_of(first.instance);
    assert_eq!(ended["end_reason"], "re_executed", "{ended:#}");
    assert_eq!(sandbox.holder_of("chat"), Some(second.instance));
    // Its guard is to be had again.
    let (moved, reacquired) = fence(&ask(&mut gateway, "lock chat"));
    assert!(reacquired && moved > lock, "{lock} {moved}");
    assert_eq!(ask(&mut gateway, "verify"), "Held");
    assert_eq!(ask(&mut gateway, "verify locks"), "[Ok(Held)]");
    assert_eq!(ask(&mut gateway, "consume reload"), "Some(Some(\"why\"))");
    ask(&mut gateway, "unlock");
    assert_eq!(sandbox.holder_of("chat"), None);

    gateway.kill();
    sandbox.assert_status(3, "dead", "anchor_released");
    // The first one ends the row, the next one finds a file that no row names.
    sandbox.cli(START).assert_code(0);
    sandbox.cli(START).assert_code(0);
    assert_eq!(sandbox.anchor_names(), Vec::<String>::new());
}

/// Symptom: a successor was refused the exclusive lock that it had been given, by itself. Cause: who
/// holds a slot was told by its row alone, and such a lock has one guard. It holds because what the
/// program before has left is known from the handover: it is had again, as any lock is.
#[test]
fn slots_and_exclusive_locks_are_had_again() {
    for order in ["exec adopts", "hand over 60000 adopts"] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.predecessor();
        told(&mut gateway);
        for slot in ["slot 0 false", "slot 1 false"] {
            assert_eq!(ask(&mut gateway, "slot 3 pool"), slot);
        }
        assert_eq!(ask(&mut gateway, "slot 1 chat"), "slot 0 false");
        assert_eq!(ask(&mut gateway, "slot 1 other"), "slot 0 false");
        gateway.say(order);
        let is_handed_over = order.starts_with("hand over");
        for _ in 0..=usize::from(is_handed_over) {
            told(&mut gateway);
        }
        assert_eq!(ask(&mut gateway, "slot 1 chat"), "slot 0 true", "{order}");
        assert_eq!(ask(&mut gateway, "slot 1 chat"), "held by us: true", "it has its guard");
        for slot in ["slot 0 true", "slot 1 true", "slot 2 false"] {
            assert_eq!(ask(&mut gateway, "slot 3 pool"), slot, "{order}");
        }
        assert_eq!(ask(&mut gateway, "slot 3 pool"), "held by us: true");
        // It may want less than its predecessor did.
        assert_eq!(ask(&mut gateway, "slot 2 other"), "slot 0 false");
        let all = ask(&mut gateway, "verify locks");
        assert_eq!(all.matches("Ok(Held)").count(), 5, "{all}");
        assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 5);
        ask(&mut gateway, "unlock");
        assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 0);
        gateway.kill();
    }
}

/// What is released before it ends is free: the lock goes with the file, which nobody else has.
#[test]
fn a_successor_releases_as_any_other_owner() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    told(&mut gateway);
    let second = Owns::parse(&ask(&mut gateway, "exec adopts"));
    assert_eq!(ask(&mut gateway, "drop"), "dropped");
    sandbox.assert_status(3, "dead", "released");
    sandbox.hold(&[]).end().assert_code(0);
    let ended = sandbox.end_of(second.instance);
    assert_eq!(ended["end_reason"], "released", "{ended:#}");
    gateway.finish(LIMIT).assert_code(0);
}

#[test]
fn a_program_that_cannot_be_executed_changes_nothing() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    let first = Owns::parse(&told(&mut gateway));
    let said = ask(&mut gateway, "exec missing");
    assert!(said.starts_with("InvalidInput") && said.contains("/no/such/program"), "{said}");
    assert_eq!(ask(&mut gateway, "verify"), "Held");
    sandbox.assert_held_by(&first);
    // And it can still be done.
    let second = Owns::parse(&ask(&mut gateway, "exec adopts"));
    sandbox.assert_held_by(&second);
    gateway.finish(LIMIT).assert_code(0);
    sandbox.assert_status(3, "dead", "released");
}

/// The next program may be one that only claims: it meets the record of its own process, with the
/// lock in its own hands.
#[test]
fn a_program_that_knows_of_no_handover_claims_its_office_back() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    let first = Owns::parse(&told(&mut gateway));
    ask(&mut gateway, "lock chat");
    let second = Owns::parse(&ask(&mut gateway, "exec claims"));
    assert_eq!((second.how.as_str(), second.pid), ("claim", first.pid));
    sandbox.assert_held_by(&second);
    assert_eq!(sandbox.end_of(first.instance)["end_reason"], "re_executed");
    assert_eq!(sandbox.holder_of("chat"), None, "the lock ended with its row");
    gateway.finish(LIMIT).assert_code(0);
    sandbox.assert_status(3, "dead", "released");
}

/// One that does neither is in nobody's hands but its own: its office is held until it ends.
#[test]
fn a_program_that_does_not_adopt_holds_the_office_until_it_ends() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    let first = Owns::parse(&told(&mut gateway));
    gateway.say("exec waits");
    assert_eq!(told(&mut gateway), format!("waits {}", first.pid));
    sandbox.assert_held_by(&first);
    gateway.kill();
    sandbox.assert_status(3, "dead", "anchor_released");
    sandbox.cli(START).assert_code(0);
}

/// What else the process holds would be nobody's after the exec, and look held.
#[test]
fn a_process_that_holds_more_than_its_office_is_refused() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.predecessor();
    let first = Owns::parse(&told(&mut gateway));
    ask(&mut gateway, "lock without office chat");
    for order in ["exec adopts", "hand over 60000 adopts"] {
        let said = ask(&mut gateway, order);
        assert!(said.starts_with("InvalidInput") && said.contains("locks that"), "{said}");
    }
    sandbox.assert_held_by(&first);
    ask(&mut gateway, "unlock");
    let second = Owns::parse(&ask(&mut gateway, "exec adopts"));
    sandbox.assert_held_by(&second);
}
