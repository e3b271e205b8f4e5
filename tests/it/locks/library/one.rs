//! What is asked about one lock is what the list of all says of it.

use incumbent::{Reason, Store, Verdict};

use super::{lock_granted, name, request};
use crate::support::Sandbox;
use serde_json::json;

#[test]
fn one_lock_is_asked_about_among_many() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    assert!(store.lock(&name("token")).unwrap().is_none());
    let mut owner = sandbox.party();
    owner.claim("work");
    owner.acquire(&["token"]);
    let other = lock_granted(store.try_acquire(&request("other")));
    let report = store.lock(&name("token")).unwrap().unwrap();
    assert_eq!(report.name, name("token"));
    assert_eq!((report.pid, report.verdict), (Some(owner.pid()), Verdict::Alive));
    assert_eq!(report.profile.as_ref().unwrap().as_str(), "work");
    let listed = store.locks().unwrap();
    let listed = listed.iter().find(|it| it.name == report.name).unwrap();
    assert_eq!(json!(listed), json!(report));
    assert_eq!(store.lock(other.name()).unwrap().unwrap().fence, other.fence());
    // A dead holder is reported as dead: the next acquire gets the lock.
    drop(owner);
    let report = store.lock(&name("token")).unwrap().unwrap();
    assert_eq!((report.verdict, report.reason), (Verdict::Dead, Reason::AnchorReleased));
    other.release().unwrap();
    let outside = Store::open_existing(sandbox.db()).unwrap().unwrap();
    assert!(outside.lock(&name("other")).unwrap().is_none());
    assert!(outside.lock(&name("nobody's")).unwrap().is_none());
}
