//! Leases: when one that ran out ends a lock, and when it is only a flag.

use std::time::Duration;

use incumbent::lock::AcquireOptions;
use incumbent::{ErrorKind, OpenOptions, Reason, Standing, Store, Verdict};
use serde_json::{Value, json};

use super::party::Party;
use super::{
    clock, evicting, fences, leased, lock_granted, lock_refused, lock_report, request, requests,
};
use crate::support::{BOOT_MS, Sandbox};

const TTL: Duration = Duration::from_secs(10);
const TTL_MS: i64 = 10_000;

impl Sandbox {
    /// The store as it is seen so long after [`BOOT_MS`].
    fn here_after(&self, after_ms: i64) -> Store {
        OpenOptions::new().path(self.db()).clock(clock(BOOT_MS + after_ms)).open().unwrap()
    }

    /// Makes every anchor one that cannot be seen, as in another container.
    pub fn hide_anchors(&self) {
        self.forge("UPDATE instances SET anchor = NULL");
        for name in self.anchor_names() {
            std::fs::remove_file(self.anchors().join(name)).unwrap();
        }
    }

    /// A party at [`BOOT_MS`] that holds `leased`, as long as [`TTL`], and `plain`.
    fn lessee(&self, profile: Option<&str>) -> Party {
        let mut owner = self.party_with(&json!({"boot_ms": BOOT_MS}));
        if let Some(profile) = profile {
            owner.claim(profile);
        }
        fences(&owner.ask(&json!({"do": "acquire", "ids": ["leased"], "ttl_ms": TTL_MS})));
        owner.acquire(&["plain"]);
        owner
    }
}

#[test]
fn what_is_left_of_a_lease_is_shown() {
    let sandbox = Sandbox::new();
    let clock = clock(BOOT_MS);
    let store = OpenOptions::new().path(sandbox.db()).clock(clock.clone()).open().unwrap();
    let left = || lock_report(&store, "token").lease_remaining;
    let lock = lock_granted(store.try_acquire(&leased("token", TTL)));
    assert_eq!(left(), Some(TTL));
    clock.advance(Duration::from_secs(4));
    assert_eq!(left(), Some(Duration::from_secs(6)));
    clock.step_wall_ms(1_000_000);
    assert_eq!(left(), Some(Duration::from_secs(6)), "the wall clock says nothing about it");
    assert_eq!(lock.renew().unwrap(), Standing::Held);
    assert_eq!(left(), Some(TTL));
    clock.advance(Duration::from_secs(11));
    assert_eq!(left(), Some(Duration::ZERO));
    // Acquired again, it is what was asked for now.
    let _again = lock_granted(store.try_acquire(&leased("token", Duration::from_secs(1))));
    assert_eq!(left(), Some(Duration::from_secs(1)));
    let _again = lock_granted(store.try_acquire(&request("token")));
    assert_eq!(left(), None);
    assert_eq!(lock.renew().unwrap(), Standing::Held);
    assert_eq!(left(), None);
    let document = json!(lock_report(&store, "token"));
    assert_eq!(document["lease_remaining"], Value::Null);
}

/// An owner whose renewals are late because its machine is busy is alive all the same: as long as
/// the kernel holds its lock, no time to live ends anything.
#[test]
fn an_overdue_lease_is_a_flag_while_its_owner_can_be_seen() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.lessee(None);
    let store = sandbox.here_after(TTL_MS - 1);
    let holder = lock_refused(store.try_acquire(&request("leased")));
    assert!(!holder.flags.lease_overdue, "{holder:?}");
    drop(store);
    let store = sandbox.here_after(TTL_MS);
    for options in [AcquireOptions::new(), evicting()] {
        let holder = lock_refused(store.acquire(&request("leased"), &options));
        assert_eq!((holder.verdict, &holder.reason), (Verdict::Alive, &Reason::AnchorHeld));
        assert!(holder.flags.lease_overdue, "{holder:?}");
        assert_eq!(json!(holder)["flags"], json!(["lease_overdue"]));
    }
    let listed = lock_report(&store, "leased");
    assert_eq!((listed.lease_remaining, listed.verdict), (Some(Duration::ZERO), Verdict::Alive));
    assert!(listed.flags.lease_overdue);
    assert!(!lock_report(&store, "plain").flags.lease_overdue, "another lock's lease is its own");
    assert!(store.unlock_stale("a sweep").unwrap().is_empty());
    assert_eq!(owner.about("verify", 0), "held");
}

#[test]
fn a_late_renewal_by_the_unrivalled_owner_succeeds() {
    let sandbox = Sandbox::new();
    let clock = clock(BOOT_MS);
    let store = OpenOptions::new().path(sandbox.db()).clock(clock.clone()).open().unwrap();
    let lock = lock_granted(store.try_acquire(&leased("token", TTL)));
    let fence = lock.fence();
    for _ in 0..3 {
        clock.advance(TTL * 100);
        assert_eq!(lock.verify().unwrap(), Standing::Held);
        assert_eq!(lock.renew().unwrap(), Standing::Held);
        let listed = lock_report(&store, "token");
        assert_eq!((listed.fence, listed.lease_remaining), (fence, Some(TTL)));
    }
    clock.advance(TTL * 2);
    let again = lock_granted(store.try_acquire(&leased("token", TTL)));
    assert!(again.reacquired());
    assert_eq!(again.fence(), fence);
}

/// Where no anchor can be seen, a lease is all there is to know when to give up on an owner. It
/// ends that lock, and nothing else of its owner's.
#[test]
fn where_no_anchor_is_seen_a_lease_that_ran_out_ends_that_lock_only() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.lessee(Some("work"));
    sandbox.hide_anchors();
    let early = sandbox.here_after(TTL_MS - 1);
    let holder = lock_refused(early.try_acquire(&request("leased")));
    assert_eq!((holder.verdict, &holder.reason), (Verdict::Alive, &Reason::StartTimeMatches));
    drop(early);
    let store = sandbox.here_after(TTL_MS);
    let listed = lock_report(&store, "leased");
    assert_eq!((listed.verdict, listed.reason), (Verdict::Dead, Reason::LeaseExpired));
    assert_eq!(lock_report(&store, "plain").verdict, Verdict::Alive);
    let holder = lock_refused(store.try_acquire(&request("plain")));
    assert_eq!(holder.reason, Reason::StartTimeMatches);
    // All or none here as well.
    lock_refused(store.acquire_all(&requests(&["leased", "plain"]), &AcquireOptions::new()));
    assert_eq!(lock_report(&store, "leased").fence, listed.fence);

    let lock = lock_granted(store.try_acquire(&request("leased")));
    let evicted = lock.evicted().unwrap();
    assert_eq!((&evicted.reason, evicted.pid), (&Reason::LeaseExpired, Some(owner.pid())));
    assert!(lock.fence() > listed.fence);
    assert!(store.profile("work").unwrap().status().unwrap().running, "the office stays");
    assert_eq!(lock_report(&store, "plain").instance, listed.instance);
    for verb in ["verify", "renew"] {
        let answer = owner.about(verb, 0);
        assert_eq!(answer["lost"], "lease_expired", "{verb}: {answer}");
        let by = answer["by"].as_str().unwrap();
        assert!(by.contains(&std::process::id().to_string()), "{verb}: {by}");
    }
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    assert_eq!(owner.about("release", 0), "WasLost");
    assert_eq!(owner.about("verify", 1), "held");
    assert_eq!(owner.ask(&json!({"do": "verify office"})), "held");
    assert_eq!(lock.verify().unwrap(), Standing::Held);
}

#[test]
fn where_no_anchor_is_seen_a_late_renewal_comes_before_the_rival() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.lessee(None);
    sandbox.hide_anchors();
    sandbox.forge(&format!("UPDATE scoped_locks SET lease_until_ms = {BOOT_MS} WHERE ttl_ms > 0"));
    let store = sandbox.here_after(0);
    let before = lock_report(&store, "leased");
    assert_eq!(
        (before.reason, before.lease_remaining),
        (Reason::LeaseExpired, Some(Duration::ZERO))
    );
    assert_eq!(owner.about("renew", 0), "held");
    let after = lock_report(&store, "leased");
    assert_eq!((after.fence, after.lease_remaining), (before.fence, Some(TTL)));
    lock_refused(store.try_acquire(&request("leased")));
}

/// A lease that began in our future is of a boot before: its time has passed, whatever its number.
#[test]
fn a_lease_of_another_boot_is_over() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.lessee(None);
    sandbox.forge(
        "UPDATE scoped_locks SET lease_boot_id = '11111111-2222-3333-4444-555555555555',
             lease_until_ms = lease_until_ms + 100000000
         WHERE ttl_ms > 0",
    );
    let store = sandbox.here_after(0);
    let listed = lock_report(&store, "leased");
    assert_eq!((listed.verdict, listed.lease_remaining), (Verdict::Alive, Some(Duration::ZERO)));
    assert!(listed.flags.lease_overdue);
    lock_refused(store.try_acquire(&request("leased")));
    assert_eq!(owner.about("verify", 0), "held");
    sandbox.hide_anchors();
    let lock = lock_granted(store.try_acquire(&request("leased")));
    assert_eq!(lock.evicted().unwrap().reason, Reason::LeaseExpired);
    lock_refused(store.try_acquire(&request("plain")));
}

/// A time that no program of ours can have written says nothing: it is not fresh, and it ends
/// nothing either.
#[test]
fn an_absurd_lease_is_neither_fresh_nor_over() {
    let far_ms = BOOT_MS + 31 * 24 * 3_600_000;
    for until_ms in [-1, i64::MIN, far_ms, i64::MAX] {
        let sandbox = Sandbox::new();
        let mut owner = sandbox.lessee(None);
        sandbox.forge(&format!(
            "UPDATE scoped_locks SET lease_until_ms = {until_ms} WHERE ttl_ms > 0"
        ));
        let store = sandbox.here_after(TTL_MS * 2);
        for reason in ["anchor_held", "start_time_matches"] {
            if reason != "anchor_held" {
                sandbox.hide_anchors();
            }
            let listed = lock_report(&store, "leased");
            assert_eq!(listed.lease_remaining, None, "until {until_ms}");
            assert_eq!(
                (listed.verdict, listed.reason.as_str()),
                (Verdict::Alive, reason),
                "until {until_ms}"
            );
            assert!(!listed.flags.lease_overdue, "until {until_ms}");
            let holder = lock_refused(store.try_acquire(&request("leased")));
            assert_eq!(holder.reason.as_str(), reason, "until {until_ms}");
        }
        assert_eq!(owner.about("renew", 0), "held");
        drop(store);
        let listed = lock_report(&sandbox.here_after(0), "leased");
        assert_eq!(listed.lease_remaining, Some(TTL), "renewed, it is a lease again");
    }
}

#[test]
fn a_time_to_live_has_bounds() {
    const DAY: Duration = Duration::from_hours(24);
    for ttl in
        [Duration::ZERO, Duration::from_micros(999), DAY * 30 + TTL, DAY * 400, Duration::MAX]
    {
        let error = request("token").ttl(ttl).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{ttl:?}");
        assert!(error.hint().unwrap().contains("30 days"), "{error}");
    }
    let sandbox = Sandbox::new();
    let store = sandbox.here_after(0);
    for (ttl, left_ms) in [(Duration::from_millis(1), 1), (DAY * 30, 30 * 24 * 3_600_000)] {
        let _lock = lock_granted(store.try_acquire(&leased("token", ttl)));
        assert_eq!(
            lock_report(&store, "token").lease_remaining,
            Some(Duration::from_millis(left_ms))
        );
    }
}
