//! The process that holds the lock, and its keeper.

use rustix::process::Signal;
use serde_json::Value;

use super::{ID, SCOPE, acquire, answer_of, code_of, holder, locks, verb, wait_for_keepers};
use crate::support::{
    Identity, LIMIT, Process, Sandbox, Stat, bystander, keys, kill, rounds, wait_ended,
};

/// FIELD-BUGS rows 7 and 79.
///
/// Symptom: a killed gateway's token stayed locked, for minutes or for ever. It holds because the
/// keeper's lock goes with the process, and a held lock whose process is proven gone keeps nobody
/// out: the next one asks at once, without waiting for the keeper.
#[test]
fn a_lock_dies_with_its_process() {
    let sandbox = Sandbox::new();
    let mut last_fence = 0;
    for round in 1..=rounds(40, 1_000) {
        let mut script = holder(&sandbox, &[]);
        let next = bystander(&sandbox);
        let asking = verb(&sandbox, "acquire", next.pid(), &[]);
        if round % 2 == 0 {
            script.kill();
        } else {
            // Not collected: a zombie.
            kill(script.pid(), Signal::KILL);
            assert!(wait_ended(script.pid(), LIMIT));
            assert_eq!(Stat::of(script.pid()).unwrap().state, 'Z');
        }
        let (code, answer) = answer_of(asking);
        assert_eq!(code, 0, "round {round}: {answer:#}");
        let evicted = &answer["evicted"];
        assert_eq!(keys(evicted), ["pid", "profile", "reason"], "round {round}: {answer:#}");
        assert_eq!(evicted["pid"], script.pid(), "round {round}: {answer:#}");
        assert_eq!(evicted["profile"], "default", "round {round}: {answer:#}");
        let reason = evicted["reason"].as_str().unwrap();
        let reasons = ["anchor_released", "no_such_process", "zombie"];
        assert!(reasons.contains(&reason), "round {round}: {answer:#}");
        let fence = answer["fence"].as_i64().unwrap();
        assert!(fence > last_fence, "round {round}: the fence fell: {answer:#}");
        last_fence = fence;
        next.finish(LIMIT).assert_code(0);
    }
    wait_for_keepers(&sandbox, 0);
}

/// A script that ends without `release` leaves nothing either, and `lock` in its own name is the
/// default: the parent of the verb.
#[test]
fn a_script_holds_what_it_asked_for_in_its_own_name() {
    let sandbox = Sandbox::new();
    let script = format!(
        "incumbent lock acquire {SCOPE} {ID} > /dev/null || exit
         incumbent lock verify {SCOPE} {ID} > /dev/null || exit
         echo $$; exec cat"
    );
    let mut shell = Process::start(sandbox.shell(&script));
    assert_eq!(shell.line(), shell.pid().to_string());
    assert_eq!(locks(&sandbox)[0]["pid"], shell.pid());
    let other = bystander(&sandbox);
    assert_eq!(acquire(&sandbox, &other, &[]).0, 75);
    shell.finish(LIMIT).assert_code(0);
    assert_eq!(acquire(&sandbox, &other, &[]).0, 0);
}

/// One keeper for a process, whatever it holds, in whatever order it was asked for; it goes with
/// the last of it, though the process lives on.
#[test]
fn one_keeper_keeps_office_and_locks_and_goes_with_the_last() {
    let sandbox = Sandbox::new();
    for order in [["claim", "one", "two"], ["one", "claim", "two"], ["one", "two", "claim"]] {
        let mut script = bystander(&sandbox);
        let pid = script.pid().to_string();
        let run = |words: &[&str]| sandbox.cli([words, &["--pid", &pid]].concat()).assert_code(0);
        for what in order {
            match what {
                "claim" => run(&["claim"]),
                "two" => run(&["lock", "acquire", SCOPE, what, "--profile", "work"]),
                _ => run(&["lock", "acquire", SCOPE, what]),
            };
            wait_for_keepers(&sandbox, 1);
        }
        let keeper = Identity::of(sandbox.keepers()[0]).unwrap();
        let anchors = "SELECT count(DISTINCT anchor) FROM instances WHERE ended_at_ms IS NULL";
        assert_eq!(sandbox.number(anchors), 1, "{order:?}");
        assert_eq!(locks(&sandbox).len(), 2, "{order:?}");
        for what in order {
            assert!(!keeper.is_gone(), "{order:?}: gone before {what}");
            match what {
                "claim" => run(&["release"]),
                "two" => run(&["lock", "release", SCOPE, what, "--profile", "work"]),
                _ => run(&["lock", "release", SCOPE, what]),
            };
        }
        keeper.wait_gone(LIMIT);
        assert!(!script.has_ended(), "{order:?}");
        assert_eq!(locks(&sandbox), [] as [Value; 0], "{order:?}");
    }
}

/// Two verbs for one process in one instant: one keeper, and both locks are held.
#[test]
fn two_locks_at_once_for_one_process_share_a_keeper() {
    let sandbox = Sandbox::new();
    for round in 1..=rounds(10, 300) {
        let mut script = bystander(&sandbox);
        let pid = script.pid().to_string();
        let start = |identity: &str| {
            Process::start(sandbox.incumbent(["lock", "acquire", SCOPE, identity, "--pid", &pid]))
        };
        let both = [start("one"), start("two"), start("one")];
        for process in both {
            process.finish(LIMIT).assert_code(0);
        }
        assert_eq!(locks(&sandbox).len(), 2, "round {round}");
        wait_for_keepers(&sandbox, 1);
        script.kill();
        wait_for_keepers(&sandbox, 0);
    }
}

/// Without a keeper only pid and start time tell; that is enough on the same machine.
#[test]
fn without_a_keeper_the_process_itself_is_looked_at() {
    let sandbox = Sandbox::new();
    let mut script = holder(&sandbox, &["--no-keeper"]);
    assert_eq!(sandbox.keepers(), [] as [u32; 0]);
    let held = &locks(&sandbox)[0];
    assert_eq!(held["reason"], "start_time_matches", "{held:#}");
    let other = bystander(&sandbox);
    let (code, refused) = acquire(&sandbox, &other, &[]);
    assert_eq!(code, 75, "{refused:#}");
    assert_eq!(refused["holder"]["pid"], script.pid(), "{refused:#}");
    assert_eq!(code_of(verb(&sandbox, "verify", script.pid(), &[])), 0);
    script.kill();
    let (code, answer) = acquire(&sandbox, &other, &["--no-keeper"]);
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(answer["evicted"]["reason"], "no_such_process", "{answer:#}");
    wait_for_keepers(&sandbox, 0);
}
