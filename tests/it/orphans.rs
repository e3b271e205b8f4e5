//! An anchor that is held although no row accounts for it refuses every claim in its store. So
//! nothing but the loss of a store may ever lead there.

use incumbent::{Claim, Released, Standing, Store, Tenure};

use crate::support::{Sandbox, rounds};

fn claim(store: &Store) -> Tenure {
    match store.profile("default").unwrap().claim().unwrap() {
        Claim::Granted(tenure) => tenure,
        Claim::Held(holder) => panic!("{holder}"),
    }
}

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
        let tenure = claim(&store);
        let watches: Vec<_> = (0..4).map(|_| tenure.watch(|_| ()).unwrap()).collect();
        // The race is wide: the watches are about to verify for the first time.
        std::thread::sleep(std::time::Duration::from_micros(round as u64 % 200));
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
    let evicted = claim(&store);
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
        let tenure = claim(&store);
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
