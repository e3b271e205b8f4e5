//! `locks` tells who holds, waits and was refused, and writes nothing.

use serde_json::json;

use super::run::waiter;
use super::{ID, SCOPE, answer_of, assert_has, code_of, hash_of, holder, locks, verb};
use crate::support::{Sandbox, assert_time, assert_untouched, bystander, fingerprint, keys};

/// FIELD-BUGS row 67: who holds what, whether it lives, who waits, and who was refused how often.
#[test]
fn locks_says_who_holds_waits_and_was_refused() {
    let sandbox = Sandbox::new();
    let script = holder(&sandbox, &["--metadata", r#"{"bot":"@weather"}"#, "--ttl", "10min"]);
    let fence = sandbox.number("SELECT fence FROM scoped_locks");
    let other = bystander(&sandbox);
    let mut refused = Vec::new();
    for _ in 0..4 {
        let mut command = verb(&sandbox, "acquire", other.pid(), &["--profile", "work"]);
        command.env("INCUMBENT_PARTY", "red");
        refused.push(code_of(command));
    }
    assert_eq!(refused, [75; 4]);
    let mut waiter = waiter(&sandbox, &other, &["--wait", "--profile", "work"]);
    sandbox.wait_for_waiters(1);

    let held = locks(&sandbox);
    assert_eq!(held.len(), 1, "{held:#?}");
    let lock = &held[0];
    assert_has(
        lock,
        &[
            "scope",
            "identity_hash",
            "profile",
            "pid",
            "instance",
            "fence",
            "verdict",
            "reason",
            "flags",
            "acquired_at",
            "lease_remaining_ms",
            "metadata",
            "waiters",
            "conflicts",
        ],
    );
    assert_eq!(lock["scope"], SCOPE, "{lock:#}");
    assert_eq!(lock["identity_hash"], hash_of(ID), "{lock:#}");
    assert_eq!(lock["profile"], "default", "{lock:#}");
    assert_eq!(lock["pid"], script.pid(), "{lock:#}");
    assert_eq!(lock["fence"], fence, "{lock:#}");
    assert_eq!(lock["verdict"], "alive", "{lock:#}");
    assert_eq!(lock["reason"], "anchor_held", "{lock:#}");
    assert_eq!(lock["flags"], json!([]), "{lock:#}");
    assert_time(&lock["acquired_at"]);
    assert!((1..=600_000).contains(&lock["lease_remaining_ms"].as_i64().unwrap()), "{lock:#}");
    assert_eq!(lock["metadata"], json!({"bot": "@weather"}), "{lock:#}");
    assert_eq!(lock["waiters"][0]["pid"], waiter.pid(), "{lock:#}");
    assert_eq!(lock["waiters"][0]["profile"], "work", "{lock:#}");
    let conflicts = lock["conflicts"].as_array().unwrap();
    let of_red = conflicts.iter().find(|conflict| conflict["count"] == 4);
    let of_red = of_red.unwrap_or_else(|| panic!("no conflict with count 4: {lock:#}"));
    assert_eq!(keys(of_red), ["profile", "pid", "first_at", "last_at", "count"], "{lock:#}");
    assert_eq!(of_red["profile"], "work", "{lock:#}");
    assert_time(&of_red["first_at"]);
    assert_time(&of_red["last_at"]);

    let text = sandbox.cli(["locks"]).assert_code(0);
    assert_eq!(text.err, "");
    for words in [
        format!("{SCOPE}/{}: held by profile default, pid {}, for", hash_of(ID), script.pid()),
        "the kernel holds its lock".to_owned(),
        fence.to_string(),
        r#"{"bot":"@weather"}"#.to_owned(),
        format!("profile work, pid {}", waiter.pid()),
        "4 times".to_owned(),
    ] {
        assert!(text.out.contains(&words), "no {words:?}: {}", text.out);
    }
    waiter.kill();
}

/// Of a dead holder: its lock is shown as free, and is not cleaned away by the question. FIELD-BUGS
/// row 60: whoever only asks changes nothing.
#[test]
fn questions_about_locks_write_nothing() {
    let sandbox = Sandbox::new();
    let mut dead = holder(&sandbox, &["--no-keeper"]);
    let other = bystander(&sandbox);
    let pid = other.pid().to_string();
    sandbox.cli(["lock", "acquire", "port", "80", "--pid", &pid]).assert_code(0);
    dead.kill();
    // A keeper looks twice a second whether its records stand; it reads as well.
    let before = sandbox.picture();
    for _ in 0..25 {
        let held = locks(&sandbox);
        assert_eq!(held[1]["verdict"], "dead", "{held:#?}");
        assert_eq!(held[1]["reason"], "no_such_process", "{held:#?}");
        assert!(sandbox.cli(["locks"]).assert_code(0).out.contains("free"));
        assert_eq!(code_of(verb(&sandbox, "verify", dead.pid(), &[])), 1);
        assert_eq!(code_of(verb(&sandbox, "verify", other.pid(), &[])), 1);
        sandbox.cli(["lock", "verify", "port", "80", "--pid", &pid]).assert_code(0);
    }
    let after = sandbox.picture();
    assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
    for (path, facts) in &before {
        assert!(*facts == after[path], "a question wrote to {}", path.display());
    }
}

#[test]
fn questions_of_no_store_make_none() {
    let sandbox = Sandbox::new();
    let script = bystander(&sandbox);
    let before = fingerprint(sandbox.path());
    assert_eq!(sandbox.json(["locks"]), (0, json!([])));
    sandbox.cli(["locks"]).assert_code(0);
    for what in ["verify", "renew", "release"] {
        assert_eq!(code_of(verb(&sandbox, what, script.pid(), &[])), 1, "{what}");
        let (code, answer) = answer_of(verb(&sandbox, what, script.pid(), &[]));
        assert_eq!(code, 1, "{what}: {answer:#}");
    }
    assert_eq!(sandbox.cli(["lock", "release", "--all"]).assert_code(0).out, "0\n");
    sandbox.cli(["unlock", SCOPE, ID]).assert_code(0);
    assert_eq!(sandbox.json(["unlock", SCOPE, ID, "--force"]).0, 0);
    assert_eq!(sandbox.json(["unlock", "--stale"]), (0, json!({"unlocked": []})));
    assert_untouched(&before, sandbox.path(), "questions");
    // A store without a lock in it.
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    assert_eq!(sandbox.json(["locks"]), (0, json!([])));
}
