//! One holder; several locks are granted together or not at all.

use incumbent::lock::AcquireOptions;
use incumbent::{Claim, ErrorKind, LockRequest, Reason, Released, Standing, Verdict};
use serde_json::{Value, json};

use super::{
    SCOPE, fences, is_listed, lock_granted, lock_refused, lock_report, name, request, requests,
};
use crate::support::Sandbox;

#[test]
fn two_handles_of_one_process_share_a_lock() {
    let sandbox = Sandbox::new();
    let (one, other) = (sandbox.here(), sandbox.here());
    let first = lock_granted(one.try_acquire(&request("token")));
    assert!(!first.reacquired() && first.previous().is_none() && first.evicted().is_none());
    let second = lock_granted(other.try_acquire(&request("token")));
    assert!(second.reacquired());
    assert_eq!((second.fence(), second.instance()), (first.fence(), first.instance()));
    assert_eq!(sandbox.locks_on_record(), 1);
    // Another identity, and another scope, are other locks.
    let others = [request("token 2"), LockRequest::new("slack-app-token", "token").unwrap()];
    let others = lock_granted(one.acquire_all(&others, &AcquireOptions::new()));
    assert!(others.iter().all(|lock| !lock.reacquired() && lock.fence() > first.fence()));
    assert_eq!(sandbox.locks_on_record(), 3);
}

#[test]
fn of_two_processes_one_holds_a_lock() {
    let sandbox = Sandbox::new();
    let (mut one, mut other) = (sandbox.party(), sandbox.party());
    one.acquire(&["token"]);
    let answer = other.try_acquire(&["token"]);
    assert_eq!(answer["held"]["pid"], one.pid(), "{answer:#}");
    assert_eq!(one.about("verify", 0), "held");
    assert_eq!(one.about("release", 0), "Free");
    other.acquire(&["token"]);
    let answer = one.try_acquire(&["token"]);
    assert_eq!(answer["held"]["pid"], other.pid(), "{answer:#}");
}

/// FIELD-BUGS rows 47 and 67. Symptom: "bot token already in use" and nothing else; nobody knew by
/// which of five profiles, since when, or what to do. A refusal says all of it.
#[test]
fn a_refused_contender_is_told_who_holds_it() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.claim("work");
    let before_ms = sandbox.number("SELECT max(started_at_ms) FROM instances");
    let order = json!({"do": "acquire", "ids": ["123:secret"], "metadata": {"bot": "@weather"}});
    fences(&owner.ask(&order));

    let holder = lock_refused(store.try_acquire(&request("123:secret")));
    assert_eq!(holder.profile.as_ref().unwrap().as_str(), "work");
    assert_eq!(holder.kind.as_ref().unwrap().as_str(), "gateway");
    assert_eq!(holder.pid, Some(owner.pid()));
    assert_eq!((holder.verdict, &holder.reason), (Verdict::Alive, &Reason::AnchorHeld));
    assert!(holder.flags.names().is_empty(), "{:?}", holder.flags);
    assert_eq!(holder.metadata, Some(json!({"bot": "@weather"})));
    let listed = lock_report(&store, "123:secret");
    assert_eq!(holder.since_ms, Some(listed.acquired_at_ms));
    assert!(holder.since_ms.unwrap() >= before_ms);
    assert_eq!(holder.instance, Some(listed.instance));

    let text = holder.to_string();
    let hash = name("123:secret").identity_hash;
    let opening = format!("{SCOPE}/{hash} is held by profile work, pid {}", owner.pid());
    assert!(text.starts_with(&opening), "{text}");
    for words in [" since 20", "which is alive: the kernel holds its lock"] {
        assert!(text.contains(words), "no {words:?} in: {text}");
    }
    let advice = holder.advice();
    for words in ["`incumbent stop --profile work --kind gateway`", "wait for it"] {
        assert!(advice.contains(words), "no {words:?} in: {advice}");
    }

    let document = json!(holder);
    let since = document["since"].as_str().unwrap();
    assert!(since.ends_with('Z') && since.contains('T'), "{since}");
    let expected = json!({
        "profile": "work", "kind": "gateway", "pid": owner.pid(), "child_pid": null,
        "instance": listed.instance.as_i64(), "since": since, "verdict": "alive",
        "reason": "anchor_held", "flags": [], "command": document["command"],
        "supervisor": document["supervisor"], "metadata": {"bot": "@weather"},
        "state": null, "unresponsive_ms": null,
    });
    assert_eq!(document, expected, "{document:#}");
    let all = format!("{holder:?} {text} {advice} {document} {listed:?} {}", json!(listed));
    assert!(!all.contains("secret"), "{all}");
}

#[test]
fn a_holder_without_an_office_is_named_by_its_pid() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    let holder = lock_refused(sandbox.here().try_acquire(&request("token")));
    assert_eq!((&holder.profile, &holder.kind, &holder.metadata), (&None, &None, &None));
    let text = holder.to_string();
    assert!(text.contains(&format!(" is held by pid {}", owner.pid())), "{text}");
    let document = json!(holder);
    assert_eq!(
        (&document["profile"], &document["kind"], &document["metadata"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[test]
fn of_several_locks_all_are_granted_or_none() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut owner, mut third) = (sandbox.party(), sandbox.party());
    let fence = owner.acquire(&["b"])[0];
    let three = requests(&["a", "b", "c"]);
    let holder = lock_refused(store.acquire_all(&three, &AcquireOptions::new()));
    assert_eq!(holder.pid, Some(owner.pid()));
    assert!(holder.to_string().contains(&name("b").to_string()), "it names the lock: {holder}");
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (1, 1), "nothing is held");
    assert_eq!(lock_report(&store, "b").fence, fence);
    assert_eq!(owner.about("verify", 0), "held");
    // The other two are free for anybody.
    third.acquire(&["a", "c"]);
    assert_eq!(third.ask(&json!({"do": "drop"})), "dropped");
    owner.about("release", 0);

    let locks = lock_granted(store.acquire_all(&three, &AcquireOptions::new()));
    let names: Vec<_> = locks.iter().map(|lock| lock.name().clone()).collect();
    assert_eq!(names, [name("a"), name("b"), name("c")], "in the order asked for");
    assert!(locks.iter().all(|lock| lock.verify().unwrap() == Standing::Held));
    assert!(locks[1].fence() > fence);
}

/// What the process had before stays as it was when it is refused more.
#[test]
fn a_refusal_of_more_changes_nothing_of_what_is_held() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["b"]);
    let mine = lock_granted(store.try_acquire(&request("a").metadata(json!("mine")).unwrap()));
    let profile = store.profile("work").unwrap();
    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("held") };
    let wanted = [request("a").metadata(json!("other")).unwrap(), request("b"), request("c")];
    lock_refused(store.acquire_all(&wanted, &AcquireOptions::new()));
    lock_refused(tenure.acquire_all(&wanted, &AcquireOptions::new()));
    assert_eq!(tenure.verify().unwrap(), Standing::Held);
    assert_eq!(mine.verify().unwrap(), Standing::Held);
    assert_eq!(lock_report(&store, "a").metadata, Some(json!("mine")));
    assert!(!is_listed(&store, "c"));
    assert!(matches!(mine.release(), Ok(Released::Free)), "no guard was counted for the refusal");
}

#[test]
fn lists_that_cannot_be_meant_are_errors() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let many: Vec<_> = (0..65).map(|n| request(&format!("id {n}"))).collect();
    let error = |wanted: &[LockRequest]| {
        let error = store.acquire_all(wanted, &AcquireOptions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.hint().is_some(), "{error}");
        error.to_string()
    };
    assert!(error(&[]).contains("0 locks"), "{}", error(&[]));
    assert!(error(&many).contains("65 locks"), "{}", error(&many));
    // White space around an identity is none of it.
    let twice = error(&requests(&["secret", "other", "secret\n"]));
    assert!(
        twice.contains("named twice") && twice.contains(&name("secret").to_string()),
        "{twice}"
    );
    assert!(!twice.contains("secret\n") && !twice.contains(" secret"), "{twice}");
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
    let most = lock_granted(store.acquire_all(&many[..64], &AcquireOptions::new()));
    assert_eq!((most.len(), sandbox.locks_on_record()), (64, 64));
}
