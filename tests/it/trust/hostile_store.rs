//! FIELD-BUGS rows 105 and 106, seen by an unprivileged user who wants root to do something for
//! him: root works in his store, and he puts there what he likes.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::ground::{Ends, Race};
use crate::support::{
    Answer, Identity, LIMIT, NOBODY, Process, START, Sandbox, another_user, portrait, rounds,
    skipped,
};

/// A store of uid 65534, in which a `run` of that user was, and a directory of root's beside it.
struct Hostile {
    sandbox: Sandbox,
    roots: Sandbox,
}

impl Hostile {
    fn new() -> Option<Self> {
        let words = another_user()?;
        let (sandbox, roots) = (Sandbox::new(), Sandbox::new());
        let binary = sandbox.open_to_nobody();
        std::fs::create_dir(sandbox.file("store")).unwrap();
        for path in [sandbox.path(), &sandbox.file("store")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        std::fs::set_permissions(roots.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let hostile = Self { sandbox, roots };
        let mut first = hostile.sandbox.within(words);
        first.arg(binary).args(START);
        Process::start(first).finish(LIMIT).assert_code(0);
        Some(hostile)
    }

    fn user_s_file(&self, name: &str) -> PathBuf {
        self.sandbox.file(&format!("store/{name}"))
    }

    /// A file of root's with one name, that the user has moved into his store.
    fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.user_s_file(name);
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }
}

/// FIELD-BUGS row 106.
///
/// Symptom: a file of root's in the place of an older gateway's lock was given to the user, and
/// written over.
#[test]
fn a_file_of_root_s_in_the_place_of_an_older_lock_stays_root_s() {
    let Some(hostile) = Hostile::new() else { return skipped("needs root") };
    let home = hostile.sandbox.file("store");
    let start = || -> Answer {
        let home = home.to_str().unwrap();
        hostile.sandbox.cli(["run", "--no-backoff", "--legacy-home", home, "--", "true"])
    };
    let lock = hostile.put("gateway.lock", b"root's secret");
    let before = portrait(&lock);
    start().assert_code(78).assert_complains(&["gateway.lock", "belongs to another user"]);
    assert_eq!(portrait(&lock), before);

    // One that root's gateway of old has left there works, and stays root's.
    let lock = hostile.put("gateway.lock", br#"{"pid": 4000000, "kind": "hermes-gateway"}"#);
    start().assert_code(0);
    assert_eq!(portrait(&lock).0, 0);

    // What is made is the user's.
    std::fs::remove_file(&lock).unwrap();
    start().assert_code(0);
    assert_eq!(portrait(&lock).0, NOBODY);
}

/// The `-shm` was given to the user, whatever it was.
#[test]
fn a_file_of_root_s_in_the_place_of_the_wal_index_stays_root_s() {
    for length in [6, 32_768] {
        let Some(hostile) = Hostile::new() else { return skipped("needs root") };
        let index = hostile.put("state.db-shm", &vec![b'x'; length]);
        let before = portrait(&index);
        for verb in [&["status"], START, &["doctor", "--fix"]] {
            let answer = hostile.sandbox.cli(verb);
            assert_eq!(portrait(&index).0, 0, "{length}, {verb:?}: {answer:#?}");
            assert!(length != 6 || portrait(&index) == before, "{verb:?}: {answer:#?}");
        }
        if length == 6 {
            hostile.sandbox.cli(START).assert_code(78).assert_complains(&["state.db-shm"]);
        }
    }
}

/// A FIFO in the place of the journal kept every verb in open(2) for ever, TERM or not.
#[test]
fn no_fifo_keeps_root_waiting() {
    for name in ["state.db-journal", "state.db-wal", "state.db-shm", "state.db.anchors", "state.db"]
    {
        let Some(hostile) = Hostile::new() else { return skipped("needs root") };
        let path = hostile.user_s_file(name);
        let script = "rm -rf \"$0\"; mkfifo \"$0\"";
        let mut make = hostile.sandbox.shell(script);
        make.arg(&path);
        Process::start(make).finish(LIMIT).assert_code(0);
        lchown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        for verb in [&["status"], &["doctor"], START, &["stop", "--force"], &["history"]] {
            // Its limit fails the test.
            let answer = hostile.sandbox.cli(verb);
            assert!(answer.code() < 128, "{name}, {verb:?}: {answer:#?}");
        }
        if name != "state.db.anchors" {
            hostile.sandbox.cli(START).assert_code(78).assert_complains(&[name, "regular file"]);
        }
    }
}

/// FIELD-BUGS row 105. The directory of the anchors is a link to a place of root's, and rows name
/// what is there: it is not opened (a device does something then), and the process that has locked
/// it is not ended.
#[test]
fn a_forged_anchor_is_looked_for_nowhere_else() {
    let Some(hostile) = Hostile::new() else { return skipped("needs root") };
    let place = hostile.roots.path();
    let mut daemon = hostile.roots.shell("exec flock --no-fork daemon.lock cat");
    daemon.current_dir(place);
    let mut daemon = Process::start(daemon);
    assert!(daemon.echoes(), "it has the lock");
    let (pid, start) = (daemon.pid(), Identity::of(daemon.pid()).unwrap().start_time);
    // Where somebody opens the FIFO its writer goes on.
    let mut writer = Process::start(
        hostile.roots.shell("mkfifo fifo; echo made; echo x > fifo; touch was-opened; sleep 1000"),
    );
    assert_eq!(writer.line(), "made");
    std::fs::remove_dir_all(hostile.sandbox.anchors()).unwrap();
    symlink(place, hostile.sandbox.anchors()).unwrap();
    lchown(hostile.sandbox.anchors(), Some(NOBODY), Some(NOBODY)).unwrap();
    for anchor in ["fifo", "daemon.lock"] {
        for verb in [&["status"][..], &["stop", "--timeout", "0", "--force"], &["evict", "--force"]]
        {
            let forged = hostile.sandbox.forge(&format!(
                "UPDATE instances SET anchor = '{anchor}', anchor_inode = NULL, pid = {pid},
                 start_time = {start}, process_inode = NULL, child_pid = NULL, child_sid = NULL,
                 command_lock = 'none', command_lock_inode = NULL, stop_budget_ms = 0,
                 ended_at_ms = NULL, end_reason = NULL, ended_by = NULL WHERE origin = 'run'"
            ));
            assert_eq!(forged, 1);
            let answer = hostile.sandbox.cli(verb);
            assert!(daemon.echoes(), "{verb:?} ended it: {answer:#?}");
            assert!(!place.join("was-opened").exists(), "{verb:?} opened it: {answer:#?}");
        }
    }
}

/// The user swaps the whole directory for a link to one of root's, as fast as he can: nothing in
/// there becomes his.
#[test]
fn a_user_who_swaps_the_directory_is_given_nothing_of_root_s() {
    let Some(hostile) = Hostile::new() else { return skipped("needs root") };
    let (place, link) = (hostile.roots.file("place"), hostile.sandbox.file("link"));
    std::fs::create_dir_all(place.join("state.db.anchors")).unwrap();
    symlink(&place, &link).unwrap();
    lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
    let store = hostile.sandbox.file("store");
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let swapped = renameat_with(CWD, &store, CWD, &link, RenameFlags::EXCHANGE);
                swaps.fetch_add(usize::from(swapped.is_ok()), Ordering::Relaxed);
            }
        });
        let _ends = Ends(&stop);
        let home = store.to_str().unwrap();
        let log = store.join("log");
        let mut race = Race::new(rounds(200, 2_000));
        while let Some(round) = race.next(swaps.load(Ordering::Relaxed)) {
            let verb: &[&str] = match round % 5 {
                0 => &["doctor", "--fix"],
                1 => START,
                2 => &["run", "--no-backoff", "--legacy-home", home, "--", "true"],
                3 => &["export", home],
                _ => &["forensics", "diagnose", "--log", log.to_str().unwrap()],
            };
            let answer = hostile.sandbox.cli(verb);
            race.saw(&answer);
            let foreign = all_below(&place)
                .into_iter()
                .find(|path| std::fs::symlink_metadata(path).is_ok_and(|facts| facts.uid() != 0));
            assert_eq!(foreign, None, "round {round}, {verb:?}: {answer:#?}");
            if round % 20 == 0 {
                // The first files are what the swap is about.
                for path in all_below(&place).iter().filter(|path| path.is_file()) {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
    });
}

fn all_below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let below = |path: PathBuf| {
        let more = if path.is_dir() { all_below(&path) } else { Vec::new() };
        std::iter::once(path).chain(more)
    };
    entries.flat_map(|entry| below(entry.path())).collect()
}
