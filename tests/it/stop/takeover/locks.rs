//! The locks of the profile are taken along.

use rustix::process::Signal;

use super::{
    ENDS, SCOPE, assert_holder, assert_nothing_is_left, draining, holder_of_lock, run_of,
    takeovers_begun, taking_over, try_to_take,
};
use crate::stop::terms;
use crate::support::{LIMIT, Process, Run, Sandbox, eventually, rounds};

/// FIELD-BUGS rows 41 and 47: the locks come with the office, from whoever of the same profile has
/// them; and nobody else's are touched.
#[test]
fn the_locks_of_the_profile_are_taken_along() {
    let lock = format!("{SCOPE}=secret");
    let options = ["--lock", lock.as_str()];

    // From the old gateway itself.
    let sandbox = Sandbox::new();
    let mut old = draining(&sandbox, "a", &options);
    // Other locks of the profile, and of another one: row 41.
    let others: Vec<Process> = ["default", "other"]
        .into_iter()
        .map(|profile| {
            let script = format!(
                "incumbent lock acquire --profile {profile} {SCOPE} of-{profile} > /dev/null || exit
                 {ENDS}"
            );
            let mut other = Process::start(sandbox.shell(&script));
            other.line();
            other
        })
        .collect();
    let mut taker = taking_over(&sandbox, "b", &options);
    assert_eq!(old.process.line(), "TERM");
    old.end().assert_code(0);
    taker.line();
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(taker.pid().into()));
    for (other, identity) in others.iter().zip(["of-default", "of-other"]) {
        assert_eq!(holder_of_lock(&sandbox, identity), Some(other.pid().into()));
    }
    drop(others);

    // From a script of the same profile, while nobody holds the office.
    let sandbox = Sandbox::new();
    let script = format!("incumbent lock acquire {SCOPE} secret > /dev/null && {ENDS}");
    let mut old = Process::start(sandbox.shell(&script));
    old.line();
    let mut taker = taking_over(&sandbox, "b", &options);
    taker.line();
    assert_eq!(old.line(), "TERM");
    assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 0);
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(taker.pid().into()));
    assert_nothing_is_left(&sandbox, "at the end");

    // From a `run` of another kind, while a third process has the office: both are asked.
    let sandbox = Sandbox::new();
    let relay =
        Run::start(run_of(&sandbox, "r", &["--kind", "relay", options[0], options[1]], ENDS));
    let gateway = Run::start(run_of(&sandbox, "g", &[], ENDS));
    let mut taker = taking_over(&sandbox, "b", &options);
    taker.line();
    for old in [relay, gateway] {
        let answer = old.process.finish_with_stdin_open(LIMIT).assert_code(0);
        assert_eq!(terms(&answer), 1, "{answer:#?}");
    }
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(taker.pid().into()));
    assert_holder(&sandbox, taker.pid());
    let reasons = "SELECT count(*) FROM instances WHERE end_reason = 'taken_over'";
    assert_eq!(sandbox.number(reasons), 2);
    assert_nothing_is_left(&sandbox, "at the end");
}

/// FIELD-BUGS row 44.
///
/// Symptom: restarting one profile killed a sibling that shared its token. It holds because a lock
/// of another profile is refused by name before anybody is signalled.
#[test]
fn a_lock_of_another_profile_is_refused_and_nobody_is_signalled() {
    let sandbox = Sandbox::new();
    for home in ["one", "two"] {
        std::fs::create_dir(sandbox.file(home)).unwrap();
    }
    let lock = format!("{SCOPE}=secret");
    let first = draining(
        &sandbox,
        "a",
        &["--profile", "one", "--home", "one", "--replace", "--lock", &lock],
    );
    // The second has a gateway already, without the token: that one is not sacrificed either.
    let second = draining(&sandbox, "b", &["--profile", "two", "--home", "two"]);
    let options = ["--profile", "two", "--home", "two", "--lock", &lock];
    for force in [&[][..], &["--force", "--cross-home"][..]] {
        let (code, answer) = try_to_take(&sandbox, "b", &[&options, force].concat());
        assert_eq!(code, 75, "{answer:#}");
        assert_eq!(answer["holder"]["profile"], "one", "{answer:#}");
        assert_eq!(answer["holder"]["pid"], first.pid(), "{answer:#}");
    }
    assert_eq!(takeovers_begun(&sandbox), 0);
    assert_eq!(holder_of_lock(&sandbox, "secret"), Some(first.pid().into()));
    assert_nothing_is_left(&sandbox, "at the end");
    for run in [first, second] {
        let answer = run.end().assert_code(7);
        assert_eq!(terms(&answer), 0, "{answer:#?}");
    }
}

/// Others wait for the same token: between the old gateway's end and the taker's claim it is free,
/// and they are awake in an instant. It holds because the taker reserved it.
#[test]
fn a_waiter_does_not_snatch_a_lock_in_between() {
    let sandbox = Sandbox::new();
    let lock = format!("{SCOPE}=secret");
    let options = ["--lock", lock.as_str()];
    let mut old = taking_over(&sandbox, "p", &options);
    old.line();
    let script = format!(
        "incumbent lock acquire --profile w --wait {SCOPE} secret > /dev/null; echo \"lock $?\"
         {ENDS}"
    );
    let mut by_verb = Process::start(sandbox.shell(&script));
    let run = ["--profile", "x", "--wait", "--lock", &lock];
    let mut by_run = Process::start(run_of(&sandbox, "x", &run, ENDS));
    sandbox.wait_for_waiters(2);
    for round in 1..=rounds(8, 60) {
        let mut new = taking_over(&sandbox, "p", &options);
        let first = new.line();
        assert!(first.parse::<u32>().is_ok(), "round {round}: {first}");
        assert_eq!(holder_of_lock(&sandbox, "secret"), Some(new.pid().into()), "round {round}");
        assert_eq!(crate::support::exit_code(old.wait(LIMIT)), 0);
        old = new;
    }
    assert!(!by_verb.has_ended() && !by_run.has_ended());
    // Their turn comes: when the token is let go.
    old.signal(Signal::TERM);
    eventually("a waiter gets the lock", LIMIT, || {
        let holder = holder_of_lock(&sandbox, "secret")?;
        (holder != u64::from(old.pid())).then_some(())
    });
}
