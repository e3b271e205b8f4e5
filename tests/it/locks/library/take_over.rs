//! A held office takes a lock over from its live holder.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use incumbent::lock::AcquireOptions;
use incumbent::stop::Replace;
use incumbent::{
    Acquire, Cancel, Claim, ClaimOptions, Holder, Kind, LockRequest, OpenOptions, Reason, Standing,
    Store, Tenure, Wait,
};
use serde_json::json;

use super::{SCOPE, lock_granted, lock_refused, request};
use crate::support::{
    AS_ROLE, LIMIT, Process, Sandbox, ask, eventually, granted, obey_orders, plays, role_db,
    set_role, test_name, wait_ended, writer,
};

const HOLDER: &str = "lock-holder";

/// Plays a process that holds an office of kind `bot` with a lock, and does not heed markers.
#[test]
fn role_of_a_lock_holder() {
    if !plays(HOLDER) {
        return;
    }
    let store = Store::open(role_db()).unwrap();
    let mut tenures: Vec<Tenure> = Vec::new();
    obey_orders(|profile| {
        let options = ClaimOptions::new()
            .kind(Kind::new("bot").unwrap())
            .lock(LockRequest::new(SCOPE, "a").unwrap());
        match store.profile(profile).unwrap().claim_with(&options).unwrap() {
            Claim::Granted(tenure) => {
                tenures.push(tenure);
                "granted".to_owned()
            }
            Claim::Held(holder) => format!("{holder}"),
        }
    });
}

fn holder(sandbox: &Sandbox, profile: &str) -> Process {
    let mut holder = sandbox.role(test_name!(role_of_a_lock_holder), HOLDER);
    assert_eq!(ask(&mut holder, profile), "granted");
    holder
}

fn take_over(
    tenure: &Tenure,
    identity: &str,
) -> incumbent::Result<Acquire<Vec<incumbent::ScopedLock>>> {
    tenure.take_over(&[request(identity)], &AcquireOptions::new(), &Replace::new())
}

/// A new gateway of the same profile wants the token of the old one. It asks it
/// to end, and has the lock when it is gone; the history says why that one ended.
#[test]
fn a_holder_of_the_same_profile_is_asked_to_end() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let holder = holder(&sandbox, "work");
    let tenure = granted(store.profile("work").unwrap().claim());
    let before = lock_refused(tenure.acquire_all(&[request("a")], &AcquireOptions::new()));
    assert_eq!(before.pid, Some(holder.pid()));
    let fence = store.locks().unwrap()[0].fence;

    let locks = lock_granted(take_over(&tenure, "a"));
    assert_eq!(locks[0].verify().unwrap(), Standing::Held);
    assert_eq!(locks[0].instance(), tenure.instance());
    assert!(locks[0].fence() > fence);
    assert!(wait_ended(holder.pid(), LIMIT));
    let bot = Kind::new("bot").unwrap();
    let ended = &store.profile("work").unwrap().history(&bot, 1).unwrap()[0];
    assert_eq!(ended.end_reason, Some(Reason::TakenOver));

    // With the tenure it is gone, and nobody else is asked twice.
    drop(locks);
    let free = lock_granted(take_over(&tenure, "a"));
    drop((free, tenure));
    assert!(store.locks().unwrap().is_empty());
}

/// Symptom: the holder was gone, and the taker gave up on a busy store: nobody had the lock. It is
/// tried for as long as the lock is reserved.
#[test]
fn a_busy_store_does_not_leave_the_lock_to_nobody() {
    const BUDGET: Duration = Duration::from_millis(100);
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let sandbox = Sandbox::new();
    let store = OpenOptions::new().path(sandbox.db()).busy_budget(BUDGET).open().unwrap();
    let mut deaf = sandbox.shell(&format!("trap '' TERM; {AS_ROLE}"));
    set_role(&mut deaf, test_name!(role_of_a_lock_holder), HOLDER);
    let mut holder = Process::start(deaf);
    assert_eq!(ask(&mut holder, "work"), "granted");
    let tenure = granted(store.profile("work").unwrap().claim());
    let options = AcquireOptions::new().cancel(Cancel::polling(|| {
        ASKED.fetch_add(1, Ordering::SeqCst);
        ControlFlow::Continue(())
    }));
    let locks = std::thread::scope(|scope| {
        let taker = scope.spawn(|| tenure.take_over(&[request("a")], &options, &Replace::new()));
        eventually("the holder is asked", LIMIT, || {
            (sandbox.number("SELECT count(*) FROM markers") == 1).then_some(())
        });
        let writer = writer(&sandbox);
        holder.kill();
        let before = ASKED.load(Ordering::SeqCst);
        // From one question to the next it takes 20 ms at least.
        eventually("it is tried several times", LIMIT, || {
            (taker.is_finished() || ASKED.load(Ordering::SeqCst) > before + 20).then_some(())
        });
        writer.finish(LIMIT).assert_code(0);
        lock_granted(taker.join().unwrap())
    });
    assert_eq!(locks[0].verify().unwrap(), Standing::Held);
}

/// The office was ours before: what is replaced is the holder of the lock that is wanted with it.
#[test]
fn a_second_claim_replaces_the_holder_of_its_lock() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let holder = holder(&sandbox, "work");
    let profile = store.profile("work").unwrap();
    let first = granted(profile.claim());
    let options = ClaimOptions::new().lock(request("a")).replace(Replace::new());
    let second = granted(profile.claim_with(&options));
    assert!(second.reacquired());
    assert_eq!(second.locks()[0].instance, first.instance());
    assert!(wait_ended(holder.pid(), LIMIT));
}

/// Another profile has a home and a person of its own.
#[test]
fn a_holder_of_another_profile_is_left_alone() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut holder = holder(&sandbox, "other");
    let tenure = granted(store.profile("work").unwrap().claim());
    let refused = lock_refused(take_over(&tenure, "a"));
    assert_eq!(refused.pid, Some(holder.pid()));
    assert!(!holder.has_ended());
    assert_eq!(sandbox.number("SELECT count(*) FROM markers"), 0, "nobody was asked");
    assert_eq!(tenure.verify().unwrap(), Standing::Held);
}

/// Symptom: a gateway was ended for one that did not start. Cause: who replaces a holder looked at
/// what others hold, and met its own exclusive lock when the holder was gone. It holds because its
/// own guard refuses it before anybody is asked.
#[test]
fn nobody_is_ended_for_whoever_stands_in_its_own_way() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut holder = holder(&sandbox, "work");
    let own = request("b").exclusive();
    let guard = lock_granted(store.try_acquire(&own));
    let assert_refused = |by: Holder, holder: &mut Process| {
        assert!(by.is_this_process, "{by}");
        assert!(!holder.has_ended());
        assert_eq!(sandbox.number("SELECT count(*) FROM markers"), 0, "nobody was asked");
    };
    let bot = Kind::new("bot").unwrap();
    let options = ClaimOptions::new().kind(bot).lock(own.clone()).replace(Replace::new());
    let profile = store.profile("work").unwrap();
    let Claim::Held(by) = profile.claim_with(&options).unwrap() else { panic!("granted") };
    assert_refused(*by, &mut holder);

    let tenure = granted(profile.claim());
    let wanted = [request("a"), own];
    let take_over = || tenure.take_over(&wanted, &AcquireOptions::new(), &Replace::new());
    assert_refused(lock_refused(take_over()), &mut holder);
    drop(guard);
    assert_eq!(lock_granted(take_over()).len(), 2);
    assert!(wait_ended(holder.pid(), LIMIT));
}

/// Symptom: who would replace the holder of its office, and waited for a slot, was not woken when
/// the holder of one was killed. Cause: it watched one of them. It holds because it watches all.
#[test]
fn whoever_would_replace_is_woken_by_any_holder_of_a_slot() {
    for leaves in [0, 1] {
        let sandbox = Sandbox::new();
        let store = Store::open(sandbox.db()).unwrap();
        let mut parties = [sandbox.party(), sandbox.party()];
        for party in &mut parties {
            let wanted = json!({"do": "acquire", "ids": ["token"], "slots": 2});
            assert!(party.ask(&wanted).is_array());
        }
        let lock = request("token").slots(2).unwrap();
        let options = ClaimOptions::new().lock(lock).replace(Replace::new());
        let profile = store.profile("work").unwrap();
        let Claim::Held(holder) = profile.claim_with(&options).unwrap() else { panic!("granted") };
        let pids = [holder.pid, holder.others[0].pid];
        assert_eq!(pids, [Some(parties[0].pid()), Some(parties[1].pid())], "{holder}");

        let options = options.wait(Wait::UpTo(LIMIT));
        let waiter = std::thread::spawn(move || profile.claim_with(&options));
        sandbox.wait_for_lock_waiters(1);
        parties[leaves].0.kill();
        let tenure = granted(waiter.join().unwrap());
        assert_eq!(tenure.locks()[0].slot.map(|slot| slot.number as usize), Some(leaves));
    }
}
