//! An office and its locks in one claim: both, or nothing.

use incumbent::stop::Force;
use incumbent::{
    Acquire, Claim, ClaimOptions, ErrorKind, Holder, LockName, LockRequest, Lost, Standing, Store,
    Tenure, Wanted,
};

use crate::support::{Process, Sandbox, ask, granted, obey_orders, plays, role_db, test_name};

const SCOPE: &str = "telegram-bot-token";

const PARTY: &str = "with-locks";

fn request(identity: &str) -> LockRequest {
    LockRequest::new(SCOPE, identity).unwrap()
}

fn name(identity: &str) -> LockName {
    LockName::new(SCOPE, identity).unwrap()
}

fn with(identities: &[&str]) -> ClaimOptions {
    ClaimOptions::new().locks(identities.iter().map(|identity| request(identity)))
}

fn claim(store: &Store, profile: &str, identities: &[&str]) -> incumbent::Result<Claim> {
    store.profile(profile).unwrap().claim_with(&with(identities))
}

#[track_caller]
fn refused(claim: incumbent::Result<Claim>) -> Holder {
    match claim.unwrap() {
        Claim::Granted(tenure) => panic!("granted: {tenure:?}"),
        Claim::Held(holder) => *holder,
    }
}

#[track_caller]
fn is_free(store: &Store, identity: &str) -> bool {
    !store.locks().unwrap().iter().any(|lock| lock.name == name(identity))
}

/// Plays another process: `lock ID`, `drop`, `claim PROFILE ID...`.
#[test]
fn role_of_another_party() {
    if !plays(PARTY) {
        return;
    }
    let store = Store::open(role_db()).unwrap();
    let (mut locks, mut tenures): (Vec<_>, Vec<Tenure>) = (Vec::new(), Vec::new());
    obey_orders(|order| {
        let words: Vec<&str> = order.split(' ').collect();
        match words.as_slice() {
            ["lock", identity] => match store.try_acquire(&request(identity)).unwrap() {
                Acquire::Granted(lock) => {
                    locks.push(lock);
                    "granted".to_owned()
                }
                Acquire::Held(holder) => format!("held by {:?}", holder.pid),
            },
            ["drop"] => {
                locks.clear();
                tenures.clear();
                "dropped".to_owned()
            }
            ["claim", profile, identities @ ..] => {
                match claim(&store, profile, identities).unwrap() {
                    Claim::Granted(tenure) => {
                        tenures.push(tenure);
                        "granted".to_owned()
                    }
                    Claim::Held(holder) => format!("held: {}", holder.wanted),
                }
            }
            _ => panic!("{order}"),
        }
    });
}

fn party(sandbox: &Sandbox) -> Process {
    sandbox.role(test_name!(role_of_another_party), PARTY)
}

/// Symptom: a gateway took its office, then found its bot's token in use, and
/// kept the office from the gateway that had the token. It holds because both are one transaction.
#[test]
fn the_office_is_not_claimed_without_its_locks() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut other = party(&sandbox);
    assert_eq!(ask(&mut other, "lock b"), "granted");

    let holder = refused(claim(&store, "work", &["a", "b"]));
    assert_eq!(holder.wanted, Wanted::Lock(name("b")));
    assert_eq!(holder.pid, Some(other.pid()));
    assert!(is_free(&store, "a"), "nothing was taken");
    assert!(!store.profile("work").unwrap().status().unwrap().running);

    assert_eq!(ask(&mut other, "drop"), "dropped");
    let tenure = granted(claim(&store, "work", &["a", "b"]));
    let locks = tenure.locks();
    assert_eq!(locks.len(), 2);
    assert!(locks.iter().all(|lock| lock.instance == tenure.instance()));
    assert_eq!(tenure.verify().unwrap(), Standing::Held);
    assert!(ask(&mut other, "lock a").starts_with("held"));
    tenure.release().unwrap();
    assert!(is_free(&store, "a") && is_free(&store, "b"));
}

/// The kernel ends both: a killed holder leaves neither.
#[test]
fn a_killed_holder_leaves_the_office_and_its_locks() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut other = party(&sandbox);
    assert_eq!(ask(&mut other, "claim work a"), "granted");
    assert_eq!(refused(claim(&store, "other", &["a"])).pid, Some(other.pid()));
    other.kill();
    let tenure = granted(claim(&store, "other", &["a"]));
    let lock = &tenure.locks()[0];
    assert_eq!(lock.evicted.as_ref().unwrap().pid, Some(other.pid()));
}

/// A lock that this process has is its own, also where it took it before the office: it is neither
/// refused for it nor loses it with the office.
#[test]
fn a_lock_that_the_process_has_is_shared_with_its_office() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let Acquire::Granted(first) = store.try_acquire(&request("a")).unwrap() else { panic!() };
    let tenure = granted(claim(&store, "work", &["a", "b"]));
    assert_eq!(tenure.locks().len(), 2);
    assert!(tenure.locks().iter().any(|lock| lock.fence == first.fence()));
    drop(tenure);
    assert_eq!(first.verify().unwrap(), Standing::Held);
    assert!(is_free(&store, "b"));

    // The other way round: the office keeps it when the first guard goes.
    let tenure = granted(claim(&store, "work", &["a"]));
    first.release().unwrap();
    assert!(!is_free(&store, "a"));
    assert_eq!(tenure.verify().unwrap(), Standing::Held);
    tenure.release().unwrap();
    assert!(is_free(&store, "a"));
}

/// A second claim of the same process shares the office, and still is all or nothing.
#[test]
fn a_second_claim_has_its_locks_or_is_refused() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = granted(claim(&store, "work", &[]));
    let mut other = party(&sandbox);
    assert_eq!(ask(&mut other, "lock a"), "granted");
    assert_eq!(refused(claim(&store, "work", &["a"])).pid, Some(other.pid()));
    assert_eq!(tenure.verify().unwrap(), Standing::Held);

    assert_eq!(ask(&mut other, "drop"), "dropped");
    let second = granted(claim(&store, "work", &["a"]));
    assert!(second.reacquired());
    assert_eq!(second.locks()[0].instance, tenure.instance());
    second.release().unwrap();
    assert!(is_free(&store, "a"), "the lock was the second claim's");
    assert_eq!(tenure.verify().unwrap(), Standing::Held);
}

/// The office is not wanted without its lock: the loss of one is the loss of both.
#[test]
fn a_lost_lock_is_a_loss_of_the_tenure() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = granted(claim(&store, "work", &["a"]));
    store.unlock(&name("a"), Force::Yes, "a person").unwrap();
    let Standing::Lost(Lost::Lock { name: lost, by, .. }) = tenure.verify().unwrap() else {
        panic!("{:?}", tenure.verify());
    };
    assert_eq!((lost, by.as_deref()), (name("a"), Some("a person")));
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_claimed() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let error = claim(&store, "work", &["a", "a"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("twice"), "{error}");
    assert!(!store.profile("work").unwrap().status().unwrap().running);
}
