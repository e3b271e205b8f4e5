//! `unlock` and `unlock --stale`.

use serde_json::json;

use super::{ID, SCOPE, code_of, hash_of, holder, last_event, locks, verb, wait_for_keepers};
use crate::support::{LIMIT, Sandbox, bystander};

#[test]
fn unlock_removes_what_the_dead_left_and_the_rest_by_force() {
    let sandbox = Sandbox::new();
    let hash = hash_of(ID);
    let by_identity = ["unlock", SCOPE, ID];
    let by_hash = ["unlock", SCOPE, "--hash", &hash];
    for name in [&by_identity[..], &by_hash] {
        // Of a live one.
        let script = holder(&sandbox, &[]);
        let (code, document) = sandbox.json(name);
        assert_eq!(code, 75, "{document:#}");
        assert!(document["unlocked"].is_null(), "{document:#}");
        assert_eq!(document["holder"]["pid"], script.pid(), "{document:#}");
        let told = sandbox.cli(name).assert_code(75);
        assert_eq!(told.out, "");
        let force = format!("incumbent unlock {SCOPE} --hash {hash} --force");
        told.assert_complains(&["is held by", "try:", &force]);
        assert_eq!(code_of(verb(&sandbox, "verify", script.pid(), &[])), 0);
        let (code, document) = sandbox.json([name, &["--force"]].concat());
        assert_eq!(code, 0, "{document:#}");
        let unlocked = &document["unlocked"];
        assert_eq!(unlocked["pid"], script.pid(), "{document:#}");
        assert_eq!(unlocked["verdict"], "alive", "{document:#}");
        assert_eq!(unlocked["identity_hash"], hash, "{document:#}");
        assert!(document["holder"].is_null(), "{document:#}");
        // Its holder learns it, and the record says who did it.
        assert_eq!(code_of(verb(&sandbox, "verify", script.pid(), &[])), 1);
        let event = last_event(&sandbox, "lock_ended");
        assert_eq!(event["detail"]["reason"], "evicted", "{event:#}");
        assert_eq!(event["detail"]["fence"], unlocked["fence"], "{event:#}");
        let by = event["detail"]["by"].as_str().unwrap();
        assert!(by.starts_with("incumbent unlock --force (pid "), "{event:#}");
        // Nobody holds it.
        let (code, document) = sandbox.json(name);
        assert_eq!(code, 0, "{document:#}");
        assert!(document["unlocked"].is_null() && document["holder"].is_null(), "{document:#}");
        // Of a dead one.
        let mut script = holder(&sandbox, &[]);
        script.kill();
        wait_for_keepers(&sandbox, 0);
        let (code, document) = sandbox.json(name);
        assert_eq!(code, 0, "{document:#}");
        assert_eq!(document["unlocked"]["verdict"], "dead", "{document:#}");
        assert_eq!(document["unlocked"]["pid"], script.pid(), "{document:#}");
    }
    assert_eq!(locks(&sandbox).len(), 0);
}

#[test]
fn unlock_stale_sweeps_the_dead_only() {
    let sandbox = Sandbox::new();
    let (mut dead, live) = (bystander(&sandbox), bystander(&sandbox));
    for (process, identity) in [(&dead, "a"), (&live, "b"), (&dead, "c")] {
        let pid = process.pid().to_string();
        sandbox.cli(["lock", "acquire", SCOPE, identity, "--pid", &pid]).assert_code(0);
    }
    let mut run = sandbox.hold(&["--lock=port=80"]);
    assert_eq!(sandbox.json(["unlock", "--stale"]), (0, json!({"unlocked": []})));
    dead.kill();
    run.kill();
    run.command.wait_gone(LIMIT);
    wait_for_keepers(&sandbox, 1);
    let (code, document) = sandbox.json(["unlock", "--stale"]);
    assert_eq!(code, 0, "{document:#}");
    let mut removed: Vec<&str> = document["unlocked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lock| lock["identity_hash"].as_str().unwrap())
        .collect();
    removed.sort_unstable();
    let mut expected = [hash_of("a"), hash_of("c"), hash_of("80")];
    expected.sort_unstable();
    assert_eq!(removed, expected, "{document:#}");
    let held = locks(&sandbox);
    assert_eq!(held.len(), 1, "{held:#?}");
    assert_eq!(held[0]["pid"], live.pid(), "{held:#?}");
    assert_eq!(held[0]["verdict"], "alive", "{held:#?}");
}
