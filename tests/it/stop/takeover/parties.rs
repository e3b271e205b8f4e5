//! Supervisors that replace each other's gateway.

use super::{
    ENDS, SCOPE, assert_holder, assert_nothing_is_left, assert_refused_because, draining,
    holder_of_lock, run_of, takeovers_begun, taking_over, try_to_take,
};
use crate::stop::terms;
use crate::support::{LIMIT, Process, Sandbox, pid_namespace, skipped};

/// FIELD-BUGS row 45.
///
/// Symptom: two supervisors replaced each other's gateway every few minutes, for ever. It holds
/// because whoever was replaced by another party yields to that one for as long as it lives; a
/// person decides with `--force`.
#[test]
fn the_superseded_yield_to_whoever_replaced_them() {
    let sandbox = Sandbox::new();
    let mut a = draining(&sandbox, "a", &[]);
    let mut b = taking_over(&sandbox, "b", &[]);
    assert_eq!(a.process.line(), "TERM");
    a.end().assert_code(0);
    b.line();
    for party in ["a", "a"] {
        assert_refused_because(&try_to_take(&sandbox, party, &[]), "superseded");
        assert_holder(&sandbox, b.pid());
    }
    let told = Process::start(run_of(&sandbox, "a", &["--replace"], "true")).finish(LIMIT);
    told.assert_code(75).assert_complains(&[
        &format!("is held by pid {}", b.pid()),
        "it replaced the caller",
        "--force",
    ]);
    assert_eq!(takeovers_begun(&sandbox), 1, "the owner was asked to end");

    // A third party is nobody's loser. Then both are superseded by it.
    let mut c = taking_over(&sandbox, "c", &[]);
    c.line();
    assert_eq!(b.line(), "TERM");
    assert_eq!(crate::support::exit_code(b.wait(LIMIT)), 0);
    for party in ["a", "b"] {
        assert_refused_because(&try_to_take(&sandbox, party, &[]), "superseded");
    }
    assert_holder(&sandbox, c.pid());

    // A person decides otherwise; then it is the others who yield.
    let mut forced = taking_over(&sandbox, "a", &["--force"]);
    forced.line();
    for party in ["b", "c"] {
        assert_refused_because(&try_to_take(&sandbox, party, &[]), "superseded");
    }
    // The successor is dead: nobody yields to it.
    forced.kill();
    let mut again = taking_over(&sandbox, "b", &[]);
    again.line();
    assert_holder(&sandbox, again.pid());
    // And a is not superseded by whoever did not replace it.
    let mut last = taking_over(&sandbox, "a", &[]);
    last.line();
    assert_holder(&sandbox, last.pid());
    assert_nothing_is_left(&sandbox, "at the end");
}

/// FIELD-BUGS row 45 once more, for a lock: two services of one profile that want one token, each
/// with `--replace`, would take it from each other for ever.
#[test]
fn the_superseded_do_not_take_a_lock_back_either() {
    let sandbox = Sandbox::new();
    let lock = format!("{SCOPE}=secret");
    let options = ["--kind", "relay", "--lock", lock.as_str()];
    let mut relay = taking_over(&sandbox, "r", &options);
    relay.line();
    let mut gateway = taking_over(&sandbox, "g", &["--lock", &lock]);
    gateway.line();
    assert_eq!(crate::support::exit_code(relay.wait(LIMIT)), 0);
    assert_refused_because(&try_to_take(&sandbox, "r", &options), "superseded");
    assert_eq!(takeovers_begun(&sandbox), 1);
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(gateway.pid().into()));
    // A person decides.
    let mut forced = taking_over(&sandbox, "r", &[&options[..], &["--force"]].concat());
    forced.line();
    assert_eq!(crate::support::exit_code(gateway.wait(LIMIT)), 0);
    assert_refused_because(&try_to_take(&sandbox, "g", &["--lock", &lock]), "superseded");
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(forced.pid().into()));
    assert_nothing_is_left(&sandbox, "at the end");
}

/// A deploy script that replaces its own gateway again and again is nobody's rival.
#[test]
fn a_party_replaces_its_own_gateway_as_often_as_it_likes() {
    let sandbox = Sandbox::new();
    let mut old = taking_over(&sandbox, "a", &[]);
    old.line();
    for _ in 0..6 {
        let mut new = taking_over(&sandbox, "a", &[]);
        new.line();
        assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 0);
        old = new;
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM superseded"), 0);
    assert_nothing_is_left(&sandbox, "at the end");
}

/// R:PIDNS. FIELD-BUGS rows 25 and 44: a container's first process has no party, and replaces, and
/// is replaced. A `run` in another pid namespace cannot be signalled, and obeys its marker.
#[test]
fn a_run_in_another_pid_namespace_obeys_its_marker() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let contained = || {
        let arguments = ["run", "--no-backoff", "--replace", "--", "/bin/sh", "-c", ENDS];
        Process::start(sandbox.incumbent_under(namespace, &arguments))
    };
    let mut old = contained();
    old.line();
    for round in 0..2 {
        let mut new = contained();
        assert_eq!(old.line(), "TERM", "round {round}");
        new.line();
        let answer = old.finish_with_stdin_open(LIMIT).assert_code(0);
        assert_eq!(terms(&answer), 1, "{answer:#?}");
        old = new;
    }
    // From outside, too.
    let mut taker = taking_over(&sandbox, "b", &[]);
    taker.line();
    old.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_holder(&sandbox, taker.pid());
    assert_eq!(takeovers_begun(&sandbox), 3);
    assert_nothing_is_left(&sandbox, "at the end");
}
