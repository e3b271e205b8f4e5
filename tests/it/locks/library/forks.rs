//! A forked child has no part in the locks of its parent.

use serde_json::json;

use super::{lock_refused, lock_report, request};
use crate::support::Sandbox;

/// FIELD-BUGS row 70. Symptom: a forked child's cleanup let go of its parent's lock.
#[test]
fn a_forked_child_has_no_part_in_its_parents_locks() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let fences = owner.acquire(&["token", "other"]);
    owner.0.say(&json!({"do": "fork"}).to_string());
    let said = owner.0.err_line_with("child: ");
    assert_eq!(said.matches("Err(\"forked\")").count(), 6, "{said}");
    let ended = owner.0.err_line_with("=> ");
    assert!(ended.ends_with("=> 0"), "{ended}");
    assert_eq!(owner.about("verify", 0), "held");
    assert_eq!(owner.about("verify", 1), "held");
    for (identity, fence) in ["token", "other"].iter().zip(fences) {
        assert_eq!(lock_report(&store, identity).fence, fence);
        assert_eq!(lock_refused(store.try_acquire(&request(identity))).pid, Some(owner.pid()));
    }
    assert_eq!(owner.about("release", 0), "Free");
    assert_eq!(owner.about("release", 1), "Free");
}
