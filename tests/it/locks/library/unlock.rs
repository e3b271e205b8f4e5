//! `unlock` ends the locks of the dead, and those of the living by force only.

use std::sync::mpsc::channel;

use incumbent::lock::Unlocked;
use incumbent::stop::Force;
use incumbent::{Lost, Reason, Released, Standing, Verdict};
use serde_json::json;

use super::{SCOPE, is_listed, lock_granted, lock_refused, lock_report, lost, name, request};
use crate::support::{LIMIT, Process, Sandbox};

#[test]
fn unlock_ends_a_live_holders_lock_by_force_only() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.claim("work");
    let fence = owner.acquire(&["a", "b"])[0];
    let unlock = |force| store.unlock(&name("a"), force, "a test of unlock");
    let Unlocked::Refused(holder) = unlock(Force::No).unwrap() else { panic!("not refused") };
    assert_eq!((holder.pid, holder.reason), (Some(owner.pid()), Reason::AnchorHeld));
    assert_eq!(owner.about("verify", 0), "held");
    let Unlocked::Done(done) = unlock(Force::Yes).unwrap() else { panic!("not done") };
    assert_eq!(done.name, name("a"));
    assert_eq!(done.profile.unwrap().as_str(), "work");
    assert_eq!((done.pid, done.fence), (Some(owner.pid()), fence));
    assert_eq!((done.verdict, done.reason), (Verdict::Alive, Reason::AnchorHeld));
    assert!(matches!(unlock(Force::Yes).unwrap(), Unlocked::Nothing));
    assert!(matches!(store.unlock(&name("nobody's"), Force::No, "me").unwrap(), Unlocked::Nothing));
    // It learns who did it; the rest of what it has stays.
    for verb in ["verify", "renew"] {
        let answer = owner.about(verb, 0);
        assert_eq!(answer, json!({"lost": "evicted", "by": "a test of unlock"}), "{verb}");
    }
    assert_eq!(owner.about("verify", 1), "held");
    assert_eq!(owner.ask(&json!({"do": "verify office"})), "held");
    assert_eq!(owner.about("release", 0), "WasLost");
    let lock = lock_granted(store.try_acquire(&request("a")));
    assert!(lock.fence() > fence);
}

/// There is always a verb that a person can use, also for an owner that nobody can look at.
#[test]
fn unlock_ends_an_unknown_holders_lock_by_force() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    owner.0.kill();
    sandbox.forge("UPDATE instances SET anchor = NULL, host = 'another'");
    let holder = lock_refused(store.try_acquire(&request("token")));
    assert_eq!((holder.verdict, holder.reason), (Verdict::Unknown, Reason::ForeignNamespace));
    let refused = store.unlock(&name("token"), Force::No, "me").unwrap();
    assert!(matches!(&refused, Unlocked::Refused(_)), "{refused:?}");
    let Unlocked::Done(done) = store.unlock(&name("token"), Force::Yes, "me").unwrap() else {
        panic!("not done")
    };
    assert_eq!((done.verdict, done.reason), (Verdict::Unknown, Reason::ForeignNamespace));
    let ended = "SELECT count(*) FROM events WHERE event = 'lock_ended'
        AND json_extract(detail, '$.by') = 'me' AND json_extract(detail, '$.reason') = 'evicted'";
    assert_eq!(sandbox.number(ended), 1, "it is on record who did it");
    lock_granted(store.try_acquire(&request("token"))).release().unwrap();
}

/// The row of a process without an office ends with its last guard, also when that one was lost.
#[test]
fn the_last_guard_of_a_lost_lock_ends_its_row() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let lock = lock_granted(store.try_acquire(&request("token")));
    assert!(matches!(store.unlock(lock.name(), Force::Yes, "me").unwrap(), Unlocked::Done(_)));
    assert_eq!(lock.verify().unwrap(), lost("evicted", Some("me")));
    assert!(matches!(lock.release(), Ok(Released::WasLost)));
    assert_eq!(sandbox.live_rows(), 0);
}

#[test]
fn a_watch_tells_of_an_unlock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let lock = lock_granted(store.try_acquire(&request("token")));
    let (sender, received) = channel();
    let watch = lock.watch(move |lost| sender.send(lost).unwrap()).unwrap();
    // By another process: through the very handle that is watched it would be no news.
    let mut command = sandbox.incumbent(["unlock", SCOPE, "--hash"]);
    command.arg(name("token").identity_hash.to_string()).arg("--force");
    Process::start(command).finish(LIMIT).assert_code(0);
    let Lost::Ended { reason, by } = received.recv_timeout(LIMIT).unwrap() else {
        panic!("another loss")
    };
    assert_eq!(reason, Reason::Evicted);
    assert!(by.unwrap().contains("unlock"));
    drop(watch);
    assert!(received.recv().is_err(), "it tells once");
}

#[test]
fn unlock_removes_a_dead_holders_lock() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["a", "b"]);
    owner.0.kill();
    let unlocked = store.unlock(&name("a"), Force::No, "me").unwrap();
    let Unlocked::Done(done) = unlocked else { panic!("{unlocked:?}") };
    assert_eq!((done.verdict, done.reason), (Verdict::Dead, Reason::AnchorReleased));
    assert_eq!(sandbox.live_rows(), 0);
    assert!(!is_listed(&store, "a"));
    assert!(lock_granted(store.try_acquire(&request("b"))).fence() > done.fence);
}

#[test]
fn unlock_stale_removes_only_the_dead() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let (mut dead, mut live, mut stopped, mut unknown) =
        (sandbox.party(), sandbox.party(), sandbox.party(), sandbox.party());
    let gone = dead.acquire(&["dead 1", "dead 2"]);
    live.acquire(&["live"]);
    stopped.acquire(&["stopped"]);
    unknown.acquire(&["unknown"]);
    let mine = lock_granted(store.try_acquire(&request("mine")));
    dead.0.kill();
    stopped.stop();
    sandbox.forge(&format!(
        "UPDATE instances SET anchor = NULL, host = 'another' WHERE pid = {}",
        unknown.pid()
    ));
    assert_eq!(lock_report(&store, "unknown").verdict, Verdict::Unknown);
    let removed = store.unlock_stale("a sweep").unwrap();
    let mut fences: Vec<_> = removed.iter().map(|lock| lock.fence).collect();
    fences.sort_unstable();
    assert_eq!(fences, gone, "{removed:?}");
    for lock in &removed {
        assert_eq!((lock.verdict, &lock.reason), (Verdict::Dead, &Reason::AnchorReleased));
        assert_eq!(lock.pid, Some(dead.pid()));
    }
    assert_eq!(sandbox.locks_on_record(), 4);
    assert_eq!(live.about("verify", 0), "held");
    assert_eq!(mine.verify().unwrap(), Standing::Held);
    stopped.go_on();
    assert_eq!(stopped.about("verify", 0), "held");
    assert!(store.unlock_stale("a sweep").unwrap().is_empty());
}
