//! Locks that several may hold at once.

use std::time::Instant;

use incumbent::lock::{AcquireOptions, Slot, Unlocked};
use incumbent::marker::MarkerName;
use incumbent::stop::Force;
use incumbent::{
    ErrorKind, Holder, LockRequest, Reason, Released, ScopedLock, Standing, Store, Verdict, Wait,
};
use serde_json::{Value, json};

use super::party::Party;
use super::{SOON, is_listed, lock_granted, lock_refused, name, request, waiting};
use crate::support::{LIMIT, Sandbox, assert_within, rounds};

fn slots(identity: &str, count: u32) -> LockRequest {
    request(identity).slots(count).unwrap()
}

fn number(lock: &ScopedLock) -> u32 {
    lock.slot().unwrap().number
}

/// Slots of `token`, each held by a process of its own.
fn holders(sandbox: &Sandbox, count: u32) -> Vec<Party> {
    holders_of(sandbox, "token", count)
}

fn holders_of(sandbox: &Sandbox, identity: &str, count: u32) -> Vec<Party> {
    let mut parties: Vec<Party> = (0..count).map(|_| sandbox.party()).collect();
    for party in &mut parties {
        assert!(party.slot(identity, count).is_array());
    }
    parties
}

impl Party {
    fn slot(&mut self, identity: &str, count: u32) -> Value {
        self.ask(&json!({"do": "acquire", "ids": [identity], "slots": count}))
    }
}

/// Everybody who stands in the way.
fn pids(holder: &Holder) -> Vec<Option<u32>> {
    std::iter::once(holder).chain(&holder.others).map(|holder| holder.pid).collect()
}

#[test]
fn so_many_hold_it_at_once_and_the_next_one_is_told_who() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut parties = holders(&sandbox, 3);
    let holder = lock_refused(store.try_acquire(&slots("token", 3)));
    let expected: Vec<_> = parties.iter().map(|party| Some(party.pid())).collect();
    assert_eq!(pids(&holder), expected, "{holder}");
    assert!(!holder.is_this_process);
    let text = holder.to_string();
    for party in &parties {
        assert!(text.contains(&party.pid().to_string()), "{text}");
    }
    assert_eq!(json!(holder)["slot"], json!({"number": 0, "of": 3}));
    assert_eq!(json!(holder)["others"][1]["slot"], json!({"number": 2, "of": 3}));
    let listed = store.locks().unwrap();
    let shown: Vec<_> = listed.iter().map(|lock| (lock.pid, lock.slot.unwrap().number)).collect();
    assert_eq!(shown, expected.iter().copied().zip(0..).collect::<Vec<_>>());
    assert!(listed.iter().all(|lock| lock.name == name("token")));
    // The one in the middle becomes free: that slot, with a higher fence.
    let fences: Vec<i64> = listed.iter().map(|lock| lock.fence).collect();
    assert_eq!(parties[1].about("release", 0), "Free");
    let lock = lock_granted(store.try_acquire(&slots("token", 3)));
    assert_eq!((number(&lock), lock.slot().unwrap().of), (1, 3));
    assert!(fences.iter().all(|fence| lock.fence() > *fence));
    assert_eq!(parties[0].about("verify", 0), "held");
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    assert!(matches!(lock.release().unwrap(), Released::Free));
}

#[test]
fn each_guard_of_one_process_has_a_slot_of_its_own() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut locks: Vec<ScopedLock> =
        (0..3).map(|_| lock_granted(store.try_acquire(&slots("token", 3)))).collect();
    assert_eq!(locks.iter().map(number).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(locks.iter().all(|lock| !lock.reacquired() && *lock.name() == name("token")));
    let holder = lock_refused(store.try_acquire(&slots("token", 3)));
    assert!(holder.is_this_process && holder.others.iter().all(|it| it.is_this_process));
    drop(locks.remove(0));
    let lock = lock_granted(store.try_acquire(&slots("token", 3)));
    assert_eq!(number(&lock), 0);
    assert_eq!(locks[1].verify().unwrap(), Standing::Held);
    assert_eq!(locks[1].renew().unwrap(), Standing::Held);
    drop((lock, locks));
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

/// Symptom: a lock of which only the second slot was held was held by nobody, says the question
/// about it. Cause: it looked at the place where the first slot is. It holds because it looks at
/// all.
#[test]
fn a_lock_is_held_while_any_of_its_slots_is() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let asked = |identity: &str| store.lock(&name(identity)).unwrap();
    let slot_of = |identity: &str| asked(identity).map(|lock| lock.slot.unwrap().number);
    assert!(asked("token").is_none());
    let mut parties = holders(&sandbox, 3);
    assert_eq!(slot_of("token"), Some(0));
    assert_eq!(parties[0].about("release", 0), "Free");
    let lock = asked("token").unwrap();
    assert_eq!((lock.pid, &lock.name), (Some(parties[1].pid()), &name("token")));
    // The dead come last: their slots are free for the next who asks.
    parties[1].0.kill();
    assert_eq!(slot_of("token"), Some(2));
    parties[2].0.kill();
    assert_eq!(slot_of("token"), Some(1));
    assert_eq!(asked("token").unwrap().verdict, Verdict::Dead);
    assert!(asked("other").is_none());
}

/// Not everybody says the same number: each of them was promised that no more than its own have it.
#[test]
fn the_smallest_number_counts() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let wide = lock_granted(store.try_acquire(&slots("token", 5)));
    // One of two, beside one of five.
    let narrow = lock_granted(store.try_acquire(&slots("token", 2)));
    assert_eq!((number(&narrow), narrow.slot().unwrap().of), (1, 2));
    lock_refused(store.try_acquire(&slots("token", 5)));
    lock_refused(store.try_acquire(&slots("token", 1)));
    drop(narrow);
    let others = [5, 5].map(|of| lock_granted(store.try_acquire(&slots("token", of))));
    assert_eq!(others.each_ref().map(number), [1, 2]);
    lock_refused(store.try_acquire(&slots("token", 3)));
    lock_granted(store.try_acquire(&slots("token", 4))).release().unwrap();
    drop((wide, others));
    let alone = lock_granted(store.try_acquire(&request("token").exclusive()));
    lock_refused(store.try_acquire(&slots("token", 64)));
    drop(alone);
}

/// A lock without slots is one of one.
#[test]
fn a_lock_without_slots_and_slots_exclude_each_other() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut other = sandbox.party();
    other.acquire(&["token"]);
    assert_eq!(pids(&lock_refused(store.try_acquire(&slots("token", 9)))), [Some(other.pid())]);
    assert_eq!(other.slot("token", 9)["held"]["pid"], other.pid(), "also within one process");
    assert_eq!(other.about("release", 0), "Free");
    // All but the first slot: that is where a lock without slots would stand.
    let mut locks =
        Vec::from([2, 2].map(|of| lock_granted(store.try_acquire(&slots("token", of)))));
    drop(locks.remove(0));
    assert_eq!(number(&locks[0]), 1);
    assert_eq!(other.try_acquire(&["token"])["held"]["pid"], std::process::id());
    assert!(lock_refused(store.try_acquire(&request("token"))).is_this_process);
    drop(locks);
    other.acquire(&["token"]);
}

/// The last line of defence, and what an older program meets that knows nothing of slots.
#[test]
fn the_table_refuses_a_lock_without_slots_beside_one() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let locks = [2, 2].map(|of| lock_granted(store.try_acquire(&slots("token", of))));
    let [first, second] = locks;
    drop(first);
    let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
    let insert = || {
        connection.execute(
            "INSERT INTO scoped_locks (scope, identity_hash, instance_id, fence, acquired_at_ms)
             VALUES (?1, ?2, ?3, 1, 1)",
            (super::SCOPE, name("token").identity_hash.as_str(), second.instance().as_i64()),
        )
    };
    let error = insert().unwrap_err().to_string();
    assert!(error.contains("held in slots"), "{error}");
    assert_eq!(sandbox.locks_on_record(), 1);
    let of_lock = "SELECT count(*) FROM lock_slots WHERE slot = 1 AND slots = 2";
    assert_eq!(sandbox.number(of_lock), 1);
    drop(second);
}

#[test]
fn a_dead_holder_makes_room_and_the_living_keep_their_slots() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut parties = holders(&sandbox, 3);
    parties[1].0.kill();
    let lock = lock_granted(store.try_acquire(&slots("token", 3)));
    assert_eq!(number(&lock), 1);
    assert_eq!(lock.evicted().unwrap().pid, Some(parties[1].pid()));
    lock_refused(store.try_acquire(&slots("token", 3)));
    assert_eq!(parties[0].about("verify", 0), "held");
    assert_eq!(parties[2].about("verify", 0), "held");
    // Whoever wants it alone has to outlive all of them.
    drop(lock);
    parties[0].0.kill();
    let holder = lock_refused(store.try_acquire(&request("token")));
    assert_eq!(pids(&holder), [Some(parties[2].pid())]);
    parties[2].0.kill();
    let lock = lock_granted(store.try_acquire(&request("token")));
    assert!(lock.evicted().is_some() && lock.slot().is_none());
    assert_eq!(sandbox.locks_on_record(), 1);
}

/// R:STOP. Nobody loses a slot for being stopped.
#[test]
fn a_stopped_holder_keeps_its_slot_unless_it_may_be_evicted() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let parties = holders(&sandbox, 2);
    parties[1].stop();
    lock_refused(store.try_acquire(&slots("token", 2)));
    let lock = lock_granted(store.acquire(&slots("token", 2), &super::evicting()));
    assert_eq!(number(&lock), 1);
    assert_eq!(lock.evicted().unwrap().reason, Reason::Evicted);
    parties[1].go_on();
}

/// Symptom: the lock without slots "changes hands too fast" where nobody moved. Cause: each stopped
/// holder is looked at between two tries, and there were fewer tries than holders. It holds because
/// a lock that is wanted without slots may have as many holders as one with slots.
#[test]
fn whoever_wants_it_alone_may_evict_all_that_are_stopped() {
    const HOLDERS: u32 = 9;
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let pid = std::process::id().to_string();
    let verb = ["lock", "acquire", super::SCOPE, "verb", "--evict-stopped", "--pid", &pid];
    for identity in ["library", "verb"] {
        let parties = holders_of(&sandbox, identity, HOLDERS);
        parties.iter().for_each(Party::stop);
        if identity == "verb" {
            sandbox.cli([&verb[..], &["--no-keeper"]].concat()).assert_code(0);
        } else {
            drop(lock_granted(store.acquire(&request(identity), &super::evicting())));
        }
        let left = store.locks().unwrap().iter().filter(|lock| lock.slot.is_some()).count();
        assert_eq!(left, 0, "{identity}");
    }
}

#[test]
fn whoever_waits_for_a_slot_is_woken_by_any_of_its_holders() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut took = Vec::new();
    for round in 0..rounds(6, 60) {
        let identity = format!("token {round}");
        let mut parties = holders_of(&sandbox, &identity, 3);
        let waiter = std::thread::spawn({
            let (store, wanted) = (store.clone(), slots(&identity, 3));
            move || {
                let options = waiting(Wait::UpTo(LIMIT));
                (lock_granted(store.acquire(&wanted, &options)), Instant::now())
            }
        });
        sandbox.wait_for_lock_waiters(1);
        let mut listed = store.locks().unwrap();
        listed.retain(|lock| lock.name == name(&identity));
        assert!(listed.iter().all(|lock| lock.waiters.len() == 1), "shown at each slot");
        let leaves = round % 3;
        let left = Instant::now();
        if round % 6 < 3 {
            assert_eq!(parties[leaves].about("release", 0), "Free");
        } else {
            parties[leaves].0.kill();
        }
        let (lock, at) = waiter.join().unwrap();
        assert_eq!(number(&lock) as usize, leaves);
        took.push(at.saturating_duration_since(left));
    }
    took.sort();
    assert_within(SOON, took[took.len() / 2], &format!("{took:?}"));
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
}

/// Processes and threads that take turns: of `SLOTS` slots no two have the same, and no more than
/// so many are taken.
#[test]
fn of_many_contenders_no_more_than_so_many_are_inside() {
    const SLOTS: u32 = 3;
    let sandbox = Sandbox::new();
    let directory = sandbox.file("inside");
    std::fs::create_dir(&directory).unwrap();
    let mut parties: Vec<Party> = (0..5).map(|_| sandbox.party()).collect();
    let order = json!({
        "do": "turns", "ids": ["token"], "slots": SLOTS, "count": rounds(20, 300), "in": directory,
    });
    for party in &mut parties {
        party.0.say(&order.to_string());
    }
    for party in &mut parties {
        let line = party.0.err_line_with("=> ");
        assert!(line.ends_with("=> \"taken\""), "{line}");
    }
    assert_eq!((sandbox.locks_on_record(), sandbox.live_rows()), (0, 0));
}

/// What each of the contenders does.
pub fn take_turns(store: &Store, wanted: &LockRequest, count: u64, directory: &str) {
    for _ in 0..count {
        let lock = lock_granted(store.acquire(wanted, &waiting(Wait::UpTo(LIMIT))));
        let Some(Slot { number, of, .. }) = lock.slot() else { panic!("no slot") };
        let place = format!("{directory}/{number}");
        std::fs::File::create_new(&place).expect("somebody else has that slot");
        let inside = std::fs::read_dir(directory).unwrap().count();
        assert!(inside <= of as usize, "{inside} are inside");
        assert_eq!(lock.verify().unwrap(), Standing::Held);
        std::fs::remove_file(&place).unwrap();
        drop(lock);
    }
}

/// Symptom: two that held slots of one lock lost their store, and each kept the other out of the
/// next one, for as long as both lived. Cause: of slots, others may be the owners, and so everybody
/// who had lost that store stood in the way. It holds because they may have the rest: each has as
/// many again as it had, and no more before the others are there.
#[test]
fn who_had_slots_in_a_lost_store_has_them_again() {
    let sandbox = Sandbox::new();
    let mut parties = holders(&sandbox, 2);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    let mut newcomer = sandbox.party();
    let is_orphan = |answer: Value| {
        assert_eq!(answer["held"]["reason"], "orphaned_anchor", "{answer}");
    };
    is_orphan(newcomer.slot("token", 2));
    for at in [0, 1] {
        let party = &mut parties[at];
        assert_eq!(party.ask(&json!({"do": "open"})), "opened");
        assert!(party.slot("token", 2).is_array());
        if at == 0 {
            is_orphan(party.slot("token", 2));
            is_orphan(newcomer.slot("other", 2));
        }
    }
    let pids: Vec<_> = parties.iter().map(|party| json!(party.pid())).collect();
    for party in [&mut newcomer].into_iter().chain(&mut parties) {
        let held = party.slot("token", 2)["held"].clone();
        assert_eq!([&held["pid"], &held["others"][0]["pid"]], [&pids[0], &pids[1]], "{held}");
    }
    newcomer.acquire(&["other"]);
}

#[test]
fn a_number_that_cannot_be_meant_is_invalid_input() {
    for count in [0, 65, u32::MAX] {
        let error = request("token").slots(count).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("slots"), "{error}");
    }
    assert!(request("token").slots(64).is_ok());
}

#[test]
fn unlock_removes_one_slot_that_of_the_dead_first() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut parties = holders(&sandbox, 3);
    let unlock = |force| store.unlock(&name("token"), force, "a person").unwrap();
    assert!(matches!(unlock(Force::No), Unlocked::Refused(holder) if holder.slot.is_some()));
    parties[2].0.kill();
    let Unlocked::Done(removed) = unlock(Force::Yes) else { panic!("it is dead") };
    assert_eq!((removed.slot.unwrap().number, removed.pid), (2, Some(parties[2].pid())));
    let Unlocked::Done(removed) = unlock(Force::Yes) else { panic!("by force") };
    assert_eq!((removed.slot.unwrap().number, removed.pid), (0, Some(parties[0].pid())));
    let lost = parties[0].about("verify", 0);
    assert_eq!(lost, json!({"lost": "evicted", "by": "a person"}));
    assert_eq!(parties[1].about("verify", 0), "held");
    assert!(is_listed(&store, "token"));
    parties[1].0.kill();
    assert_eq!(store.unlock_stale("a person").unwrap().len(), 1);
    assert!(!is_listed(&store, "token"));
}

/// Symptom: who knew that a holder was gone, of whom nothing could be told, took the slot of one
/// that was well. It holds because the doubtful come before the living.
#[test]
fn unlock_removes_the_slot_of_a_doubtful_holder_before_that_of_a_living_one() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut parties = holders(&sandbox, 3);
    parties[1].0.kill();
    let gone = format!(
        "UPDATE instances SET anchor = NULL, host = 'another' WHERE pid = {}",
        parties[1].pid()
    );
    assert_eq!(sandbox.forge(&gone), 1);
    let unlock = |force| store.unlock(&name("token"), force, "a person").unwrap();
    let refused = unlock(Force::No);
    let Unlocked::Refused(holder) = &refused else { panic!("{refused:?}") };
    assert_eq!((holder.verdict, holder.pid), (Verdict::Unknown, Some(parties[1].pid())));
    let Unlocked::Done(removed) = unlock(Force::Yes) else { panic!("by force") };
    assert_eq!((removed.verdict, removed.slot.unwrap().number), (Verdict::Unknown, 1));
    for at in [0, 2] {
        assert_eq!(parties[at].about("verify", 0), "held");
    }
}

/// Symptom: beside a process that had lost another store nobody got the slot that was left, and the
/// verb that the refusal named took the slot of one that was well. It holds because, where there is
/// room, no holder is what keeps anybody out.
#[test]
fn unlock_forgets_orphans_before_it_takes_a_slot_where_one_is_left() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut parties = [sandbox.party()];
    assert!(parties[0].slot("token", 2).is_array());
    let orphan = sandbox.anchors().join(format!("{}-1-ab.lock", "deadbeef".repeat(4)));
    let orphan = std::fs::File::create(orphan).unwrap();
    rustix::fs::flock(&orphan, rustix::fs::FlockOperation::LockExclusive).unwrap();

    let wanted = slots("token", 2);
    let holder = lock_refused(store.try_acquire(&wanted));
    assert_eq!(holder.reason, Reason::OrphanedAnchor, "{holder}");
    let unlock = |force| store.unlock(&name("token"), force, "a person").unwrap();
    let refused = unlock(Force::No);
    let by_orphan = |holder: &Holder| holder.reason == Reason::OrphanedAnchor;
    assert!(matches!(&refused, Unlocked::Refused(holder) if by_orphan(holder)), "{refused:?}");
    let unlocked = unlock(Force::Yes);
    assert!(matches!(unlocked, Unlocked::OrphansRemoved(1)), "{unlocked:?}");
    assert_eq!(parties[0].about("verify", 0), "held");
    let lock = lock_granted(store.try_acquire(&wanted));
    assert_eq!(number(&lock), 1);
    // Now it is full, and somebody has to go.
    assert!(matches!(unlock(Force::Yes), Unlocked::Done(_)));
}

/// Not in any text that is kept, also while only slots are held whose rows have another hash.
#[test]
fn the_identity_of_a_slot_is_taken_out_of_what_people_write() {
    const IDENTITY: &str = "hush-this-is-one";
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let [first, second] = [2, 2].map(|of| lock_granted(store.try_acquire(&slots(IDENTITY, of))));
    drop(first);
    let note = incumbent::marker::MarkerRequest::new(MarkerName::new("note").unwrap())
        .reason(format!("{IDENTITY} is revoked"));
    store.write_marker(std::process::id(), &note).unwrap();
    let kept = format!("SELECT count(*) FROM markers WHERE reason LIKE '%{IDENTITY}%'");
    assert_eq!(sandbox.number(&kept), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM markers WHERE reason LIKE '%is revoked'"), 1);
    drop(second);
}

/// Of one request several names, each with slots or without.
#[test]
fn slots_are_acquired_together_with_other_locks_or_not_at_all() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut other = sandbox.party();
    other.acquire(&["c"]);
    let wanted = [slots("a", 2), request("b"), slots("c", 2)];
    lock_refused(store.acquire_all(&wanted, &AcquireOptions::new()));
    assert_eq!(sandbox.locks_on_record(), 1);
    assert_eq!(other.about("release", 0), "Free");
    let locks = lock_granted(store.acquire_all(&wanted, &AcquireOptions::new()));
    assert_eq!(store.release_all(locks[0].instance()).unwrap(), 3);
    assert!(matches!(locks[0].verify().unwrap(), Standing::Lost(_)));
}
