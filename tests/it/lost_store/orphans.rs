//! An anchor that is held although no row accounts for it refuses every claim in its store. So
//! nothing but the loss of a store may ever lead there.

use std::time::{Duration, Instant};

use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::{Released, Standing, Store};

use crate::support::{LIMIT, Process, Sandbox, eventually, rounds, tenure_of};

impl Sandbox {
    /// Another office of another profile, while this process has the store open.
    #[track_caller]
    fn assert_others_can_start(&self) {
        self.cli(["--profile", "other", "run", "--no-backoff", "--", "true"]).assert_code(0);
    }
}

/// Symptom: after a gateway released its office, nobody could start in any profile. Cause: its
/// watch had read "held" just before the release, missed the anchor that the release dropped, and
/// made a new one. It holds because an anchor is made only for a row that is still live, looked at
/// inside the transaction.
#[test]
fn a_watch_makes_no_anchor_after_the_release() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    for round in 0..rounds(100, 3_000) {
        let tenure = tenure_of(&store, "default");
        let watches: Vec<_> = (0..4).map(|_| tenure.watch(|_| ()).unwrap()).collect();
        // The race is wide: the watches are about to verify for the first time.
        std::thread::sleep(Duration::from_micros(round as u64 % 200));
        assert!(matches!(tenure.release().unwrap(), Released::Free));
        drop(watches);
    }
    sandbox.assert_others_can_start();
}

/// Symptom: an evicted owner was still at work, a crash loop filled the history, and from its 200th
/// crash on nobody could start. Cause: retention deleted the row of the evicted owner, whose anchor
/// then looked like one of a lost store. It holds because such a row stays.
#[test]
fn the_history_never_forgets_an_anchor_that_is_held() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let evicted = tenure_of(&store, "default");
    sandbox.cli(["evict", "--force"]).assert_code(0);
    for _ in 0..290 {
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }
    // One claim in eight prunes, by chance.
    assert!(sandbox.number("SELECT count(*) FROM instances") < 270, "the history was not pruned");
    sandbox.assert_others_can_start();
    assert!(matches!(evicted.verify().unwrap(), Standing::Lost(_)));
}

/// Symptom: the store was deleted under a gateway, which noticed and let go; its process lived on,
/// and nobody could start. It holds because a lost office lets go of the anchor as well.
#[test]
fn an_owner_that_let_go_of_a_lost_office_refuses_nobody() {
    for reopened in [false, true] {
        let sandbox = Sandbox::new();
        let store = Store::open(sandbox.db()).unwrap();
        let tenure = tenure_of(&store, "default");
        for name in ["state.db", "state.db-wal", "state.db-shm"] {
            std::fs::remove_file(sandbox.db().with_file_name(name)).unwrap();
        }
        assert!(matches!(tenure.verify().unwrap(), Standing::Lost(_)));
        let again = reopened.then(|| Store::open(sandbox.db()).unwrap());
        let refused = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        assert!(refused.err.contains("deleted or replaced"), "{refused:#?}");
        assert!(matches!(tenure.release().unwrap(), Released::WasLost));
        sandbox.assert_others_can_start();
        drop((store, again));
    }
}

/// Symptom: beside one orphan and 40 processes that waited for locks, a marker took up to three
/// seconds. Cause: each of them looked twice at the orphan, 20 ms apart, inside its transaction,
/// whenever it looked. It holds because the second look comes after that transaction, and once.
#[test]
fn those_who_wait_for_an_orphan_keep_nobody_from_writing() {
    const WAITERS: i64 = 40;
    const WRITES: usize = 15;
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let name = format!("{}-1-ab.lock", "deadbeef".repeat(4));
    let orphan = std::fs::File::create(sandbox.anchors().join(name)).unwrap();
    rustix::fs::flock(&orphan, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let own = std::process::id().to_string();
    let waiters: Vec<_> = (0..WAITERS)
        .map(|at| {
            let words = ["lock", "acquire", "bot", &at.to_string(), "--pid", &own, "--wait"];
            Process::start(sandbox.incumbent(words))
        })
        .collect();
    eventually("all of them wait", LIMIT, || {
        let waiting = sandbox.number("SELECT count(*) FROM waiters");
        (waiting == WAITERS).then_some(())
    });
    let request = MarkerRequest::new(MarkerName::new("note").unwrap());
    let write = || {
        let started = Instant::now();
        store.write_marker(std::process::id(), &request).unwrap();
        started.elapsed()
    };
    let median = || {
        let mut took: Vec<Duration> = (0..WRITES).map(|_| write()).collect();
        took.sort();
        took[WRITES / 2]
    };
    let beside_them = median();
    for mut waiter in waiters {
        waiter.kill();
    }
    let alone = median();
    // A few of them are always in the way; before, it was a hundred times as long.
    assert!(
        beside_them < alone * 50 + Duration::from_millis(20),
        "{beside_them:?}, {alone:?} alone"
    );
    drop((orphan, tenure));
}
