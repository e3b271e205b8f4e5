//! A store from before there were locks.

use serde_json::json;

use super::{ID, LOCK, SCOPE, acquire, code_of, locks, verb};
use crate::support::{Process, Sandbox, bystander};

/// A store as the version before locks left it, with the history of a run and the live office of a
/// script.
fn store_without_locks(sandbox: &Sandbox) -> Process {
    sandbox.cli(["run", "--kind", "relay", "--", "true"]).assert_code(0);
    let script = bystander(sandbox);
    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    sandbox.age_to(1);
    script
}

fn schema_version(sandbox: &Sandbox) -> i64 {
    sandbox.number("PRAGMA user_version")
}

/// An older program may go on beside this one: what does not need locks does not migrate.
#[test]
fn a_store_of_the_version_before_is_migrated_only_for_owning() {
    let sandbox = Sandbox::new();
    let script = store_without_locks(&sandbox);
    let pid = script.pid().to_string();
    assert_eq!(schema_version(&sandbox), 1);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["locks"], json!([]));
    assert_eq!(sandbox.json(["locks"]), (0, json!([])));
    assert!(sandbox.cli(["locks"]).assert_code(0).err.is_empty());
    assert_eq!(sandbox.json(["history", "--kind", "relay"]).1[0]["end_reason"], "exited");
    sandbox.cli(["events"]).assert_code(0);
    for what in ["verify", "renew", "release"] {
        assert_eq!(code_of(verb(&sandbox, what, script.pid(), &[])), 1, "{what}");
    }
    let all = ["lock", "release", "--all", "--pid", &pid];
    assert_eq!(sandbox.cli(all).assert_code(0).out, "0\n");
    sandbox.cli(["unlock", SCOPE, ID]).assert_code(0);
    sandbox.cli(["unlock", "--stale"]).assert_code(0);
    sandbox.cli(["evict"]).assert_code(75);
    sandbox.cli(["release", "--pid", &pid]).assert_code(0);
    sandbox.assert_status(3, "dead", "released");
    sandbox.cli(["evict"]).assert_code(0);
    assert_eq!(schema_version(&sandbox), 1);
    assert_eq!(acquire(&sandbox, &script, &[]).0, 0);
    assert!(schema_version(&sandbox) > 1);
    assert_eq!(locks(&sandbox)[0]["pid"], script.pid());

    let sandbox = Sandbox::new();
    let script = store_without_locks(&sandbox);
    sandbox.cli(["run", "--no-backoff", LOCK, "--kind", "other", "--", "true"]).assert_code(0);
    assert!(schema_version(&sandbox) > 1);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], script.pid());

    // A live office is evicted without it.
    let sandbox = Sandbox::new();
    let _script = store_without_locks(&sandbox);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    sandbox.assert_status(3, "dead", "evicted");
    assert_eq!(schema_version(&sandbox), 1);
}
