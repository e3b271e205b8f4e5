//! `lock verify`, `lock renew` and `lock release`.

use serde_json::json;

use super::{LOCK, SCOPE, acquire, answer_of, code_of, holder, locks, verb, wait_for_keepers};
use crate::support::{LIMIT, Process, Sandbox, bystander, eventually};

/// The fence tells a holder of today from one of yesterday, who has the same pid or the same name.
#[test]
fn the_verbs_answer_with_their_exit_code() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let other = bystander(&sandbox);
    let (_, granted) = acquire(&sandbox, &script, &["--ttl", "1h"]);
    let fence = granted["fence"].to_string();
    let wrong = (granted["fence"].as_i64().unwrap() - 1).to_string();
    let ask = |what: &str, process: &Process, options: &[&str]| {
        answer_of(verb(&sandbox, what, process.pid(), options))
    };
    for (what, done) in [("verify", "held"), ("renew", "renewed")] {
        for options in [&[][..], &["--fence", &fence]] {
            let (code, answer) = ask(what, &script, options);
            assert_eq!(code, 0, "{what} {options:?}: {answer:#}");
            assert_eq!(answer[done], true, "{what}: {answer:#}");
            assert_eq!(answer["fence"], granted["fence"], "{what}: {answer:#}");
        }
    }
    for (what, done) in [("verify", "held"), ("renew", "renewed"), ("release", "released")] {
        for (process, options) in
            [(&other, &[][..]), (&script, &["--fence", &wrong]), (&other, &["--fence", &fence])]
        {
            let (code, answer) = ask(what, process, options);
            assert_eq!(code, 1, "{what} {options:?}: {answer:#}");
            assert_eq!(answer[done], false, "{what}: {answer:#}");
            assert!(answer["reason"].as_str().is_some_and(|why| !why.is_empty()), "{answer:#}");
            let told = verb(&sandbox, what, process.pid(), options);
            let told = Process::start(told).finish(LIMIT).assert_code(1);
            assert_eq!(told.out, "", "{told:#?}");
            told.assert_complains(&[&format!("incumbent: lock {what}: {SCOPE}/")]);
        }
    }
    assert_eq!(ask("release", &script, &["--fence", &fence]).0, 0);
    // Lost: nobody holds it, then another one does.
    for what in ["verify", "renew", "release"] {
        assert_eq!(ask(what, &script, &[]).0, 1, "{what}");
    }
    let (code, next) = acquire(&sandbox, &other, &[]);
    assert_eq!(code, 0, "{next:#}");
    assert!(next["fence"].as_i64() > granted["fence"].as_i64(), "{next:#}");
    for what in ["verify", "renew", "release"] {
        let (code, answer) = ask(what, &script, &[]);
        assert_eq!(code, 1, "{what}: {answer:#}");
        let why = answer["reason"].as_str().unwrap();
        assert!(why.contains(&format!("pid {}", other.pid())), "{answer:#}");
    }
    assert_eq!(ask("verify", &other, &[]).0, 0);
}

/// A lease is renewed, and one that ran out costs nothing while the kernel sees the holder.
#[test]
fn a_lease_that_ran_out_is_a_flag_and_is_renewed_late() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &["--ttl", "1ms"]);
    let (_, before) = answer_of(verb(&sandbox, "verify", script.pid(), &[]));
    let held = eventually("the lease is over", LIMIT, || {
        Some(locks(&sandbox).remove(0)).filter(|held| held["lease_remaining_ms"] == 0)
    });
    assert_eq!(held["verdict"], "alive", "{held:#}");
    assert_eq!(held["flags"], json!(["lease_overdue"]), "{held:#}");
    let other = bystander(&sandbox);
    assert_eq!(acquire(&sandbox, &other, &[]).0, 75);
    assert_eq!(code_of(verb(&sandbox, "renew", script.pid(), &[])), 0);
    let (code, after) = answer_of(verb(&sandbox, "verify", script.pid(), &[]));
    assert_eq!((code, &after["fence"]), (0, &before["fence"]));
    // A longer one, by acquiring it again.
    assert_eq!(acquire(&sandbox, &script, &["--ttl", "1h"]).0, 0);
    let left = locks(&sandbox)[0]["lease_remaining_ms"].as_i64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&left), "{left}");
}

/// FIELD-BUGS row 41: a bulk release is of one process, and says how many it released.
#[test]
fn release_all_is_of_one_process_and_counts() {
    let sandbox = Sandbox::new();
    let (script, other) = (bystander(&sandbox), bystander(&sandbox));
    let take = |process: &Process, identity: &str| {
        let pid = process.pid().to_string();
        sandbox.cli(["lock", "acquire", SCOPE, identity, "--pid", &pid]).assert_code(0);
    };
    for identity in ["a", "b", "c"] {
        take(&script, identity);
    }
    take(&other, "d");
    let run = sandbox.hold(&[LOCK]);
    let all = |process: u32, options: &[&str]| {
        let pid = process.to_string();
        sandbox.cli([&["lock", "release", "--all", "--pid", &pid], options].concat())
    };
    assert_eq!(all(run.pid(), &[]).assert_code(0).out, "0\n");
    assert_eq!(all(script.pid(), &[]).assert_code(0).out, "3\n");
    assert_eq!(all(script.pid(), &[]).assert_code(0).out, "0\n");
    assert_eq!(locks(&sandbox).len(), 2);
    assert_eq!(all(other.pid(), &["--json"]).assert_code(0).json(), json!({"released": 1}));
    assert_eq!(locks(&sandbox).len(), 1);
    wait_for_keepers(&sandbox, 0);
    run.end().assert_code(0);
}

/// `--pid` verbs touch only what `--pid` recorded: a lock that its owner holds by itself is its
/// own.
#[test]
fn what_a_process_holds_by_itself_no_pid_verb_releases() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[LOCK]);
    for process in [run.pid(), run.command.pid] {
        for what in ["verify", "renew", "release"] {
            let told = Process::start(verb(&sandbox, what, process, &[])).finish(LIMIT);
            told.assert_code(1).assert_complains(&["held by pid", &run.pid().to_string()]);
        }
    }
    assert_eq!(locks(&sandbox)[0]["verdict"], "alive");
    run.end().assert_code(0);
    assert_eq!(locks(&sandbox).len(), 0);
}
