//! Whose lock is free and whose is not: the mistakes that the field has seen.

use std::time::Duration;

use incumbent::{Claim, Reason, Released, Standing, Verdict, Wait};
use serde_json::json;

use super::{acquires, fences, lock_granted, lock_refused, lock_report, lost, request, waiting};
use crate::support::{Identity, LIMIT, Process, Sandbox, WITHOUT_MAIN_THREAD, has, skipped};

/// FIELD-BUGS row 9. Symptom: after a hiccup of the network a gateway named its own pid as the
/// squatter, and tried for ever. Cause: its record had no start time, so it did not know itself. It
/// holds because what is ours is known by the secret in our memory.
#[test]
fn a_process_knows_its_own_lock_without_a_start_time() {
    for columns in [
        "start_time = NULL",
        "start_time = start_time + 1",
        "start_time = NULL, argv = NULL, anchor = NULL",
        "start_time = NULL, pid = 1, boot_id = NULL",
    ] {
        let sandbox = Sandbox::new();
        let store = sandbox.here();
        let first = lock_granted(store.try_acquire(&request("token")));
        assert_eq!(sandbox.forge(&format!("UPDATE instances SET {columns}")), 1);
        let again = lock_granted(store.try_acquire(&request("token")));
        assert!(again.reacquired(), "{columns}");
        assert_eq!(again.fence(), first.fence(), "{columns}");
        assert_eq!(first.verify().unwrap(), Standing::Held, "{columns}");
    }
}

/// R:ROW, R:REUSE. FIELD-BUGS rows 7, 8, 10 and 11.
///
/// Symptom: "bot token already in use (pid n)" for ever, where n is a music player by now. Cause: a
/// pid alone counted as identity where a start time was missing on either side.
#[test]
fn a_recycled_pid_does_not_keep_a_lock() {
    let cases = [
        ("start_time = {} - 1", "pid_reused"),
        ("start_time = {} + 1", "pid_reused"),
        ("start_time = NULL", "identity_mismatch"),
        ("start_time = NULL, uid = 12345", "pid_reused"),
        (
            "start_time = {}, boot_id = '11111111-2222-3333-4444-555555555555',
            written_boot_clock_ms = 9000000000000",
            "rebooted",
        ),
    ];
    for (columns, reason) in cases {
        for anchor in ["NULL", "'00-1-00.lock'"] {
            let sandbox = Sandbox::new();
            let mut owner = sandbox.party();
            let fence = owner.acquire(&["token"])[0];
            owner.0.kill();
            let unrelated = Process::start(sandbox.program("cat"));
            let it = Identity::of(unrelated.pid()).unwrap();
            sandbox.forge(&format!(
                "UPDATE instances SET process_inode = NULL, pid = {}, anchor = {anchor}, {}",
                it.pid,
                columns.replace("{}", &it.start_time.to_string())
            ));
            let store = sandbox.here();
            let listed = lock_report(&store, "token");
            assert_eq!(
                (listed.verdict, listed.reason.as_str()),
                (Verdict::Dead, reason),
                "{columns}, {anchor}"
            );
            let lock = lock_granted(store.try_acquire(&request("token")));
            let evicted = lock.evicted().unwrap();
            assert_eq!(
                (evicted.reason.as_str(), evicted.pid),
                (reason, Some(it.pid)),
                "{columns}, {anchor}"
            );
            assert!(lock.fence() > fence);
            unrelated.finish(LIMIT).assert_code(0);
        }
    }
}

/// The other half of it: whom nobody can look at is not dead. The process here has no readable
/// command line, because its main thread has ended.
#[test]
fn an_unreadable_command_line_with_a_matching_record_blocks() {
    if !has("python3") {
        return skipped("needs python3");
    }
    for (start_time, verdict, reason) in
        [("{}", "alive", "start_time_matches"), ("NULL", "unknown", "not_verifiable")]
    {
        let sandbox = Sandbox::new();
        let mut owner = sandbox.party();
        owner.acquire(&["token"]);
        owner.0.kill();
        let mut command = sandbox.program("python3");
        command.args(["-c", WITHOUT_MAIN_THREAD]);
        let mut process = Process::start(command);
        assert_eq!(process.line(), "alone");
        let it = Identity::of(process.pid()).unwrap();
        let start_time = start_time.replace("{}", &it.start_time.to_string());
        sandbox.forge(&format!(
            "UPDATE instances SET process_inode = NULL, pid = {}, anchor = NULL,
                 start_time = {start_time}",
            it.pid
        ));
        let store = sandbox.here();
        let holder = lock_refused(store.try_acquire(&request("token")));
        assert_eq!(
            (holder.verdict.as_str(), holder.reason.as_str()),
            (verdict, reason),
            "{holder}"
        );
        if verdict == "unknown" {
            assert!(holder.to_string().contains("may be alive"), "{holder}");
            assert!(holder.advice().contains("unlock"), "{}", holder.advice());
        }
        assert!(store.unlock_stale("a sweep").unwrap().is_empty());
        process.kill();
        lock_granted(store.try_acquire(&request("token"))).release().unwrap();
    }
}

/// A person, or an older version that knows nothing of locks, ended the owner's row.
#[test]
fn a_lock_whose_owner_is_on_record_as_ended_blocks_nobody() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let fence = owner.acquire(&["token"])[0];
    sandbox.forge("UPDATE instances SET ended_at_ms = 1, end_reason = 'evicted', ended_by = 'me'");
    assert!(store.locks().unwrap().is_empty());
    let lost = owner.about("verify", 0);
    assert_eq!(lost, json!({"lost": "evicted", "by": "me"}));
    let lock = lock_granted(store.try_acquire(&request("token")));
    assert!(lock.fence() > fence);
    assert_eq!(owner.about("renew", 0)["lost"], "evicted");
    assert_eq!(owner.about("release", 0), "WasLost");
    assert_eq!(lock.verify().unwrap(), Standing::Held);
}

/// A process whose own row was ended behind its back finds out, and begins anew.
#[test]
fn a_process_whose_row_was_ended_acquires_anew() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let first = lock_granted(store.try_acquire(&request("token")));
    sandbox.forge("UPDATE instances SET ended_at_ms = 1, end_reason = 'evicted'");
    assert_eq!(first.verify().unwrap(), lost("evicted", None));
    let second = lock_granted(store.try_acquire(&request("token")));
    assert!(!second.reacquired() && second.fence() > first.fence());
    assert_ne!(second.instance(), first.instance());
    drop(first);
    assert_eq!(second.verify().unwrap(), Standing::Held);
    let mut other = sandbox.party();
    assert_eq!(other.try_acquire(&["token"])["held"]["reason"], "anchor_held");
    assert!(matches!(second.release(), Ok(Released::Free)));
    assert_eq!(sandbox.live_rows(), 0);
}

/// FIELD-BUGS rows 32 and 73: an owner whose store was deleted still acts; so its kernel lock
/// refuses everybody until it is gone.
#[test]
fn the_holder_in_a_store_that_was_deleted_still_refuses() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    let store = sandbox.here();
    for identity in ["token", "another"] {
        let holder = lock_refused(store.try_acquire(&request(identity)));
        assert_eq!((&holder.reason, holder.pid), (&Reason::OrphanedAnchor, Some(owner.pid())));
        assert!(holder.advice().contains(&owner.pid().to_string()), "{}", holder.advice());
    }
    let limit = Wait::UpTo(Duration::from_millis(20));
    assert_eq!(
        lock_refused(store.acquire(&request("token"), &waiting(limit))).reason,
        Reason::OrphanedAnchor
    );
    assert_eq!(owner.about("verify", 0)["lost"], "StoreReplaced");
    assert_eq!(owner.about("renew", 0)["lost"], "StoreReplaced");
    let thread = acquires(&store, &["token"]);
    sandbox.wait_for_lock_waiters(1);
    assert_eq!(owner.about("release", 0), "WasLost");
    owner.0.finish(LIMIT).assert_code(0);
    let (locks, _) = thread.join().unwrap();
    assert_eq!(locks[0].verify().unwrap(), Standing::Held);
}

/// All who lost the same store go on in the next one. What each of them held there none of the
/// others can hold, so it gets that back; of anything else one of them may be the holder.
#[test]
fn in_the_next_store_each_holder_gets_back_what_it_held() {
    let sandbox = Sandbox::new();
    let (mut one, mut other) = (sandbox.party(), sandbox.party());
    let before = [one.acquire(&["a"])[0], other.acquire(&["b"])[0]];
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    for party in [&mut one, &mut other] {
        assert_eq!(party.ask(&json!({"do": "open"})), "opened");
    }
    for not_its_own in [["b"].as_slice(), &["c"], &["a", "b"]] {
        let answer = one.try_acquire(not_its_own);
        assert_eq!(answer["held"]["reason"], "orphaned_anchor", "{not_its_own:?}: {answer:#}");
        assert_eq!(answer["held"]["pid"], other.pid(), "{not_its_own:?}: {answer:#}");
    }
    let again = [one.acquire(&["a"])[0], other.acquire(&["b"])[0]];
    assert!(again.iter().min() > before.iter().max(), "{again:?} after {before:?}");
    assert_eq!(one.try_acquire(&["b"])["held"]["pid"], other.pid());
    assert_eq!(other.try_acquire(&["a"])["held"]["pid"], one.pid());
    // The guards of the old store say so, and end nothing in the new one.
    assert_eq!(one.about("verify", 0)["lost"], "StoreReplaced");
    assert_eq!(one.about("release", 0), "WasLost");
    assert_eq!(one.about("verify", 1), "held");
}

/// An upgrade in place: the same process executes itself anew, and its kernel lock goes with that.
#[test]
fn a_re_executed_process_gets_its_lock_back() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    let fence = owner.acquire(&["token"])[0];
    assert_eq!(owner.ask(&json!({"do": "execute"})), "executing");
    assert_eq!(owner.ask(&json!({"do": "open"})), "opened");
    let again = owner.acquire(&["token"])[0];
    assert!(again > fence, "its first life is another holder: {again} after {fence}");
    let listed = lock_report(&store, "token");
    assert_eq!((listed.pid, listed.fence), (Some(owner.pid()), again));
    assert_eq!(sandbox.live_rows(), 1);
}

/// FIELD-BUGS row 79: no lease, no start ever waits for one.
#[test]
fn a_killed_holders_lock_is_free_at_once() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.claim("work");
    fences(&owner.ask(&json!({"do": "acquire", "ids": ["token"], "ttl_ms": 3_600_000})));
    owner.0.kill();
    let lock = lock_granted(store.try_acquire(&request("token")));
    let evicted = lock.evicted().unwrap();
    assert_eq!((&evicted.reason, evicted.pid), (&Reason::AnchorReleased, Some(owner.pid())));
    assert_eq!(evicted.profile.as_ref().unwrap().as_str(), "work");
    assert_eq!(sandbox.live_rows(), 1, "its row has ended, too");
}

/// Somebody tidied up: a kernel lock on a file without a name is seen by nobody, until the holder
/// looks the next time.
#[test]
fn a_removed_anchor_is_made_anew_by_verify() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.acquire(&["token"]);
    for name in sandbox.anchor_names() {
        std::fs::remove_file(sandbox.anchors().join(name)).unwrap();
    }
    assert_eq!(lock_refused(store.try_acquire(&request("token"))).reason, Reason::StartTimeMatches);
    assert_eq!(owner.about("verify", 0), "held");
    assert_eq!(lock_refused(store.try_acquire(&request("token"))).reason, Reason::AnchorHeld);
    assert_eq!(owner.about("release", 0), "Free");
    lock_granted(store.try_acquire(&request("token"))).release().unwrap();
}

/// Whoever takes the office of the dead ends the locks that were taken from it.
#[test]
fn the_locks_of_a_dead_office_end_with_its_row() {
    let sandbox = Sandbox::new();
    let store = sandbox.here();
    let mut owner = sandbox.party();
    owner.claim("work");
    let fence = owner.acquire(&["a", "b"])[0];
    owner.0.kill();
    let Claim::Granted(tenure) = store.profile("work").unwrap().claim().unwrap() else {
        panic!("held")
    };
    assert!(store.locks().unwrap().is_empty());
    assert_eq!(sandbox.locks_on_record(), 0);
    let lock = lock_granted(tenure.try_acquire(&request("a")));
    assert!(lock.fence() > fence && lock.evicted().is_none());
}
