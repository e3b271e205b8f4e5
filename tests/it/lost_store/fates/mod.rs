//! The store changes under its owner: both sides notice, and the owner can claim again.

mod owners;

use std::path::Path;
use std::time::{Duration, Instant};

use self::owners::{
    an_owner_that_does_not_look_is_named_and_keeps_its_office, is_anchor_held,
    runs_of_two_profiles_survive_the_loss_of_their_store,
};
use crate::support::{LIMIT, Run, Sandbox, ask, assert_within, eventually};

/// A loss is noticed within a second; the rest is for a busy machine.
pub const NOTICED_WITHIN: Duration = Duration::from_secs(3);

/// What people do to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Deleted,
    /// `rm -r state.db*`: nobody can see the locks of its owners any more.
    DeletedWithAnchors,
    DeletedWithDirectory,
    RenamedOver,
    Overwritten,
    Restored,
    /// By a cleaner of old files.
    WalDeleted,
    ShmDeleted,
    SidecarsDeleted,
    /// What `VACUUM INTO` makes is in rollback-journal mode.
    BackupCopiedOver,
    /// An older copy of the database alone, which says that it is in WAL mode.
    DatabaseRestored,
    Emptied,
    WalEmptied,
}

/// One test for each fate, so that each has its own name.
macro_rules! for_each_fate {
    ($($check:ident),*) => { $(
        mod $check {
            use super::Fate::{
                BackupCopiedOver, DatabaseRestored, Deleted, DeletedWithAnchors,
                DeletedWithDirectory, Emptied, Overwritten, RenamedOver, Restored, ShmDeleted,
                SidecarsDeleted, WalDeleted, WalEmptied,
            };
            #[test]
            fn deleted() {
                super::$check(Deleted);
            }
            #[test]
            fn deleted_with_anchors() {
                super::$check(DeletedWithAnchors);
            }
            #[test]
            fn deleted_with_directory() {
                super::$check(DeletedWithDirectory);
            }
            #[test]
            fn renamed_over() {
                super::$check(RenamedOver);
            }
            #[test]
            fn overwritten() {
                super::$check(Overwritten);
            }
            #[test]
            fn restored() {
                super::$check(Restored);
            }
            #[test]
            fn wal_deleted() {
                super::$check(WalDeleted);
            }
            #[test]
            fn shm_deleted() {
                super::$check(ShmDeleted);
            }
            #[test]
            fn sidecars_deleted() {
                super::$check(SidecarsDeleted);
            }
            #[test]
            fn backup_copied_over() {
                super::$check(BackupCopiedOver);
            }
            #[test]
            fn database_restored() {
                super::$check(DatabaseRestored);
            }
            #[test]
            fn emptied() {
                super::$check(Emptied);
            }
            #[test]
            fn wal_emptied() {
                super::$check(WalEmptied);
            }
        }
    )* };
}
for_each_fate!(
    a_store_that_changes_under_its_owner_is_noticed_by_both_sides,
    a_watch_tells_of_a_replaced_store_within_a_second,
    the_owner_of_a_replaced_store_can_claim_again,
    a_run_claims_again_in_a_replaced_store,
    runs_of_two_profiles_survive_the_loss_of_their_store,
    an_owner_that_does_not_look_is_named_and_keeps_its_office
);

/// Files that a store was or will be made of, read while nobody has them open.
fn copy_of(directory: &Path) -> Vec<(&'static str, Vec<u8>)> {
    ["", "-wal", "-shm"]
        .map(|suffix| (suffix, std::fs::read(directory.join(format!("state.db{suffix}"))).unwrap()))
        .into()
}

impl Sandbox {
    /// A store that has been used, and a copy of it as it is now.
    fn used_store(&self) -> Vec<(&'static str, Vec<u8>)> {
        self.assert_free();
        copy_of(&self.file("store"))
    }

    fn meets(&self, fate: Fate, older: &[(&'static str, Vec<u8>)]) {
        // In place, and never shorter in between: it is mapped by its owner.
        let overwrite = |files: &[(&'static str, Vec<u8>)]| {
            for (suffix, content) in files {
                use std::io::Write;
                let path = self.sidecar(suffix);
                let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                file.write_all(content).unwrap();
                file.set_len(content.len() as u64).unwrap();
            }
        };
        let another = || {
            let other = Sandbox::new();
            other.used_store()
        };
        match fate {
            Fate::Deleted => self.remove_store(),
            Fate::DeletedWithAnchors => {
                self.remove_store();
                std::fs::remove_dir_all(self.anchors()).unwrap();
            }
            Fate::DeletedWithDirectory => std::fs::remove_dir_all(self.file("store")).unwrap(),
            Fate::RenamedOver => {
                for (suffix, content) in another() {
                    let new = self.file("new");
                    std::fs::write(&new, content).unwrap();
                    std::fs::rename(new, self.sidecar(suffix)).unwrap();
                }
            }
            Fate::Overwritten => overwrite(&another()),
            Fate::Restored => overwrite(older),
            Fate::WalDeleted => std::fs::remove_file(self.sidecar("-wal")).unwrap(),
            Fate::ShmDeleted => std::fs::remove_file(self.sidecar("-shm")).unwrap(),
            Fate::SidecarsDeleted => {
                std::fs::remove_file(self.sidecar("-wal")).unwrap();
                std::fs::remove_file(self.sidecar("-shm")).unwrap();
            }
            Fate::BackupCopiedOver => {
                let (copied, backup) = (self.file("copied.db"), self.file("backup.db"));
                for (suffix, content) in older {
                    std::fs::write(self.file(&format!("copied.db{suffix}")), content).unwrap();
                }
                let connection = rusqlite::Connection::open(copied).unwrap();
                connection.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
                overwrite(&[("", std::fs::read(backup).unwrap())]);
            }
            Fate::DatabaseRestored => {
                // Else what is newer than the copy is still in the -wal, and nothing is lost.
                let connection = rusqlite::Connection::open(self.db()).unwrap();
                connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
                overwrite(&older[..1]);
            }
            Fate::Emptied => empty(&self.db()),
            Fate::WalEmptied => empty(&self.sidecar("-wal")),
        }
    }
}

fn empty(path: &Path) {
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
}

/// FIELD-BUGS rows 32 and 73.
///
/// Symptom: somebody deleted or restored the state file, and two gateways answered every message.
/// Cause: the owner went on in a file that nobody else saw, or its row was gone and its lock meant
/// nothing. It holds because an owner compares the store with the one it claimed in, and a
/// contender counts a held lock without a row as an owner. Where the locks were deleted as well,
/// whoever makes the new store looks for processes that still have them open.
fn a_store_that_changes_under_its_owner_is_noticed_by_both_sides(fate: Fate) {
    for has_read_before in [false, true] {
        let what = format!("{fate:?}, read before: {has_read_before}");
        let sandbox = Sandbox::new();
        let older = sandbox.used_store();
        let mut owner = sandbox.owner();
        if has_read_before {
            assert_eq!(ask(&mut owner, "verify"), "Held");
        }
        sandbox.meets(fate, &older);
        assert_eq!(ask(&mut owner, "verify"), "StoreReplaced", "{what}");
        let (code, answer) = sandbox.json(["run", "--no-backoff", "--", "true"]);
        assert_eq!(code, 75, "{what}: {answer:#}");
        let holder = &answer["holder"];
        // The -wal knows its row.
        let is_on_record = fate == Fate::ShmDeleted;
        let reason = if is_on_record { "anchor_held" } else { "orphaned_anchor" };
        assert_eq!(holder["reason"], reason, "{what}: {answer:#}");
        assert_eq!(holder["pid"], owner.pid(), "{what}: {answer:#}");
        let text = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        if !is_on_record {
            text.assert_complains(&["store that was moved, deleted or replaced", "try:"]);
        }
        assert_eq!(ask(&mut owner, "verify"), "StoreReplaced", "{what}");
        // It goes with its owner.
        assert_eq!(ask(&mut owner, "release"), "WasLost", "{what}");
        assert_eq!(ask(&mut owner, "close"), "closed");
        sandbox.assert_free();
    }
}

fn a_watch_tells_of_a_replaced_store_within_a_second(fate: Fate) {
    let sandbox = Sandbox::new();
    let older = sandbox.used_store();
    let mut owner = sandbox.owner();
    assert_eq!(ask(&mut owner, "watch"), "watching");
    let changed = Instant::now();
    sandbox.meets(fate, &older);
    owner.err_line_with("the watch says: StoreReplaced");
    assert_within(NOTICED_WITHIN, changed.elapsed(), &format!("{fate:?}"));
}

/// An owner that learns of it can go on in the new store: its lock never lapses.
fn the_owner_of_a_replaced_store_can_claim_again(fate: Fate) {
    let sandbox = Sandbox::new();
    let older = sandbox.used_store();
    let mut owner = sandbox.owner();
    sandbox.meets(fate, &older);
    assert_eq!(ask(&mut owner, "verify"), "StoreReplaced", "{fate:?}");
    // Without its -shm it is on record still.
    sandbox.assert_held(if fate == Fate::ShmDeleted { "anchor_held" } else { "orphaned_anchor" });
    assert_eq!(ask(&mut owner, "open"), "opened", "{fate:?}");
    let answer = ask(&mut owner, "claim default");
    assert!(answer.starts_with("granted "), "{fate:?}: {answer}");
    assert_eq!(ask(&mut owner, "verify"), "Held", "{fate:?}");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["pid"], owner.pid(), "{fate:?}");
    sandbox.assert_held("anchor_held");
    assert_eq!(ask(&mut owner, "close"), "closed");
    sandbox.assert_free();
}

impl Sandbox {
    /// Waits until `run` holds `profile`'s office again, in whatever store is there now.
    #[track_caller]
    fn wait_claimed_again(&self, profile: &str, run: &Run, what: &str) {
        let started = Instant::now();
        eventually(&format!("{what}: claimed again"), LIMIT, || {
            let (code, status) = self.json(["status", "--profile", profile]);
            (code == 0 && status["pid"] == run.pid()).then_some(())
        });
        assert_within(NOTICED_WITHIN, started.elapsed(), what);
        assert!(!run.command.is_gone(), "{what}: its command was ended");
    }
}

/// A `run` claims again by itself, with the same anchor, and its command notices nothing.
fn a_run_claims_again_in_a_replaced_store(fate: Fate) {
    let sandbox = Sandbox::new();
    let older = sandbox.used_store();
    let run = sandbox.hold(&[]);
    let anchors = sandbox.anchor_names();
    sandbox.meets(fate, &older);
    sandbox.wait_claimed_again("default", &run, &format!("{fate:?}"));
    if !matches!(fate, Fate::DeletedWithAnchors | Fate::DeletedWithDirectory) {
        let names: Vec<_> = anchors.iter().filter(|name| is_anchor_held(&sandbox, name)).collect();
        assert_eq!(names.len(), 1, "{fate:?}: its lock lapsed: {anchors:?}");
    }
    // Whoever wants something else is kept out by nothing of it.
    let other = ["--profile", "other", "run", "--no-backoff", "--", "true"];
    sandbox.cli(other).assert_code(0);
    sandbox.assert_held("anchor_held");
    run.end().assert_code(0);
    sandbox.assert_status(3, "dead", "exited");
    sandbox.assert_free();
}
