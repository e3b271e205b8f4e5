//! The library in processes of its own: shared handles, forks, a store that changes under its
//! owners, homes, waits, evictions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use incumbent::{
    Cancel, Claim, ClaimOptions, Kind, LossWatch, Released, Standing, Store, Tenure, Wait,
};
use rustix::process::Signal;
use serde_json::json;

use crate::support::forked::{alarm, fork, leave, wait_for};
use crate::support::{
    BINARY, Disk, LIMIT, Process, Run, Sandbox, another_user, ask, assert_within, eventually, has,
    kill, obey_orders, pid_namespace, plays, role_db, skipped, tagged, test_name, works,
};

pub const ROLE_TEST: &str = test_name!(role_of_a_gateway);
pub const GATEWAY: &str = "gateway";

/// A loss is noticed within a second; the rest is for a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);

/// Plays a gateway: one order a line, one answer a line.
#[test]
fn role_of_a_gateway() {
    if plays(GATEWAY) {
        let mut gateway = Gateway::default();
        obey_orders(|order| gateway.obey(order));
    }
}

#[derive(Default)]
struct Gateway {
    stores: Vec<Store>,
    tenures: Vec<Tenure>,
    watch: Option<LossWatch>,
    waiting: Option<(Cancel, std::thread::JoinHandle<String>)>,
}

fn kind(error: &incumbent::Error) -> String {
    format!("Err({:?})", error.kind())
}

fn standing(tenure: &Tenure) -> String {
    match tenure.verify() {
        Ok(Standing::Held) => "Held".to_owned(),
        Ok(Standing::Lost(lost)) => format!("{lost:?}"),
        Err(error) => kind(&error),
    }
}

impl Gateway {
    fn obey(&mut self, order: &str) -> String {
        let words: Vec<&str> = order.split(' ').collect();
        match words.as_slice() {
            ["open"] => self.open(),
            ["claim", profile] => self.claim(profile),
            ["wait", profile, how] => self.wait(profile, how),
            ["cancel"] => self.waiting.as_ref().map_or_else(String::new, |(cancel, _)| {
                cancel.cancel();
                "cancelled".to_owned()
            }),
            ["waited"] => self.waiting.take().unwrap().1.join().unwrap(),
            ["verify"] => standing(self.tenures.last().unwrap()),
            ["status", profile] => match self.store().profile(profile).unwrap().status() {
                Ok(report) => format!("{} {}", report.verdict, report.reason),
                Err(error) => kind(&error),
            },
            ["because", profile] => {
                let report = self.store().profile(profile).unwrap().status().unwrap();
                format!("{} {:?}", report.because(), report.flags.names())
            }
            ["release"] => match self.tenures.pop().unwrap().release() {
                Ok(Released::Pending(error)) => format!("Pending({:?})", error.kind()),
                Ok(released) => format!("{released:?}"),
                Err(error) => kind(&error),
            },
            ["pending"] => self.store().pending_releases().to_string(),
            ["watch"] => {
                let tell = |lost| eprintln!("the watch says: {lost:?}");
                self.watch = Some(self.tenures.last().unwrap().watch(tell).unwrap());
                "watching".to_owned()
            }
            ["close"] => {
                self.watch = None;
                self.tenures.clear();
                self.stores.clear();
                "closed".to_owned()
            }
            ["cycle", count] => {
                let profile = self.store().profile("default").unwrap();
                for _ in 0..count.parse().unwrap() {
                    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("held") };
                    tenure.release().unwrap();
                }
                "cycled".to_owned()
            }
            ["fork", orders @ ..] => self.fork(orders),
            _ => panic!("{order}"),
        }
    }

    fn store(&self) -> &Store {
        self.stores.last().expect("open first")
    }

    fn open(&mut self) -> String {
        match Store::open(role_db()) {
            Ok(store) => {
                self.stores.push(store);
                "opened".to_owned()
            }
            Err(error) => kind(&error),
        }
    }

    fn claim(&mut self, profile: &str) -> String {
        match self.store().profile(profile).unwrap().claim() {
            Ok(Claim::Granted(tenure)) => {
                let answer = format!("granted {} {}", tenure.instance(), tenure.reacquired());
                self.tenures.push(tenure);
                answer
            }
            Ok(Claim::Held(holder)) => format!("held {}", holder.reason),
            Err(error) => kind(&error),
        }
    }

    fn wait(&mut self, profile: &str, how: &str) -> String {
        let wait = match how {
            "forever" => Wait::Forever,
            ms => Wait::UpTo(Duration::from_millis(ms.parse().unwrap())),
        };
        let cancel = Cancel::new();
        let options = ClaimOptions::new().wait(wait).cancel(cancel.clone());
        let profile = self.store().profile(profile).unwrap();
        let thread = std::thread::spawn(move || match profile.claim_with(&options) {
            Ok(Claim::Granted(_)) => "granted".to_owned(),
            Ok(Claim::Held(holder)) => format!("held {}", holder.reason),
            Err(error) => kind(&error),
        });
        self.waiting = Some((cancel, thread));
        "waiting".to_owned()
    }

    /// Obeys `orders` (joined by `+`) in a forked child; `drop` lets go of what it inherited.
    fn fork(&mut self, orders: &[&str]) -> String {
        let child = fork();
        if child == 0 {
            alarm(10);
            let answers = catch_unwind(AssertUnwindSafe(|| self.obey_in_child(orders)));
            eprintln!("child: {}", answers.unwrap_or_else(|_| "panicked".to_owned()));
            leave();
        }
        wait_for(child)
    }

    fn obey_in_child(&mut self, orders: &[&str]) -> String {
        let mut answers = Vec::new();
        for order in orders.join(" ").split('+') {
            answers.push(match order {
                "drop watch" => {
                    self.watch = None;
                    "dropped".to_owned()
                }
                "drop" => {
                    self.tenures.clear();
                    self.stores.clear();
                    "dropped".to_owned()
                }
                order => self.obey(order),
            });
        }
        answers.join(", ")
    }
}

impl Sandbox {
    fn gateway(&self) -> Process {
        let mut gateway = self.role(ROLE_TEST, GATEWAY);
        assert_eq!(ask(&mut gateway, "open"), "opened");
        gateway
    }

    /// A gateway that holds the default office.
    pub fn owner(&self) -> Process {
        let mut gateway = self.gateway();
        let answer = ask(&mut gateway, "claim default");
        assert!(answer.starts_with("granted "), "{answer}");
        gateway
    }

    #[track_caller]
    fn assert_held(&self, reason: &str) {
        let (code, answer) = self.json(["run", "--no-backoff", "--", "true"]);
        assert_eq!((code, &answer["holder"]["reason"]), (75, &json!(reason)), "{answer:#}");
    }

    #[track_caller]
    pub fn assert_free(&self) {
        self.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }

    fn remove_store(&self) {
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(self.sidecar(suffix)).unwrap();
        }
    }
}

/// `"=> answers"` of the child, and how it ended.
#[track_caller]
fn ask_child(gateway: &mut Process, orders: &str) -> (String, String) {
    gateway.say(&format!("fork {orders}"));
    let mut said = String::new();
    loop {
        let line = gateway.err_line();
        if let Some((_, answers)) = line.split_once("child: ") {
            answers.clone_into(&mut said);
        } else if let Some((_, end)) = line.split_once("=> ") {
            return (said, end.to_owned());
        }
    }
}

fn open_files(pid: u32, place: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|path| path.to_str().is_some_and(|path| path.contains(place)))
        .count()
}

/// FIELD-BUGS rows 9, 42 and 72: whoever opens the store how often, a process has one handle and
/// one office, which goes with its last claim.
#[test]
fn a_process_shares_its_handle_and_its_office() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    let first = ask(&mut gateway, "claim default");
    assert!(first.ends_with(" true"), "a second claim shares: {first}");
    let mut files = None;
    for _ in 0..10 {
        assert_eq!(ask(&mut gateway, "open"), "opened");
        assert_eq!(ask(&mut gateway, "claim default"), first);
        assert_eq!(ask(&mut gateway, "release"), "StillShared");
        // Counted from the first round on: it made the readers, and SQLite keeps a descriptor
        // aside whose closing would cost it its locks.
        let open = open_files(gateway.pid(), "/state.db");
        assert_eq!(*files.get_or_insert(open), open);
    }
    assert_eq!(open_files(gateway.pid(), "state.db.anchors/"), 1);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances"), 1);
    assert_eq!(ask(&mut gateway, "release"), "StillShared");
    sandbox.assert_held("anchor_held");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    sandbox.assert_status(3, "dead", "released");
    sandbox.assert_free();
}

/// FIELD-BUGS row 70. Nothing crosses a fork, in whatever order the child lets go of things.
#[test]
fn in_a_forked_child_every_call_is_refused_and_no_drop_does_anything() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    for (orders, expected) in [
        ("verify+claim default+status default", "Err(Forked), Err(Forked), Err(Forked)"),
        ("release", "Err(Forked)"),
        ("open", "Err(Forked)"),
        // The child is done with what it inherited; SQLite still has the parent's bookkeeping.
        ("drop+open", "dropped, Err(Forked)"),
    ] {
        let (said, end) = ask_child(&mut gateway, orders);
        assert_eq!((said.as_str(), end.as_str()), (expected, "the child ended with code 0"));
        assert_eq!(ask(&mut gateway, "verify"), "Held", "after {orders:?} in a child");
        sandbox.assert_held("anchor_held");
    }
    assert_eq!(ask(&mut gateway, "release"), "Free");
    // What the parent closed before the fork does not stand in the child's way.
    assert_eq!(ask(&mut gateway, "close"), "closed");
    let (said, end) = ask_child(&mut gateway, "open+claim default");
    assert!(said.starts_with("opened, granted"), "{said}; {end}");
}

/// Symptom: a worker forked by the gateway aborted, or hung, when it let go of its parent's watch.
/// Cause: it joined a thread that exists only in the parent.
#[test]
fn a_watch_dropped_in_a_forked_child_does_nothing() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.owner();
    assert_eq!(ask(&mut gateway, "watch"), "watching");
    let (said, end) = ask_child(&mut gateway, "drop watch+drop");
    assert_eq!((said.as_str(), end.as_str()), ("dropped, dropped", "the child ended with code 0"));
    assert_eq!(ask(&mut gateway, "verify"), "Held");
    // The parent's watch goes on.
    sandbox.remove_store();
    gateway.err_line_with("the watch says: StoreReplaced");
}

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
                BackupCopiedOver, DatabaseRestored, Deleted, DeletedWithAnchors, DeletedWithDirectory,
                Emptied, Overwritten, RenamedOver, Restored, ShmDeleted, SidecarsDeleted, WalDeleted,
                WalEmptied,
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
/// contender counts a held lock without a row as an owner. Where the locks were deleted as well, whoever
/// makes the new store looks for processes that still have them open.
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

/// Whether somebody holds that anchor: `flock -n -s` is refused.
fn is_anchor_held(sandbox: &Sandbox, name: &str) -> bool {
    let file = sandbox.anchors().join(name);
    let script = format!("[ -e '{0}' ] && ! flock -n -s '{0}' true", file.display());
    Process::start(sandbox.shell(&script)).finish(LIMIT).code() == 0
}

/// A store that was recovered has the id of the damaged one, and the rows of those who lived in it. Its
/// owner has to be told all the same: nothing that it writes would arrive. Nobody else gets in before that.
#[test]
fn the_owner_of_a_recovered_store_is_told() {
    for has_read_before in [false, true] {
        let sandbox = Sandbox::new();
        let mut owner = sandbox.owner();
        if has_read_before {
            assert_eq!(ask(&mut owner, "verify"), "Held");
        }
        crate::damage::destroy_root_of(&sandbox, "events");
        sandbox.cli(["doctor", "--fix"]);
        let what = format!("read before: {has_read_before}");
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        // The files still have names, so it is their paths that tell, which it looks at once a second.
        eventually(&what, LIMIT, || {
            let standing = ask(&mut owner, "verify");
            assert!(["Held", "StoreReplaced"].contains(&standing.as_str()), "{what}: {standing}");
            (standing == "StoreReplaced").then_some(())
        });
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        assert_eq!(ask(&mut owner, "release"), "WasLost", "{what}");
        assert_eq!(ask(&mut owner, "close"), "closed");
        sandbox.assert_free();
    }
}

/// FIELD-BUGS rows 25 and 32. The store is deleted with its anchors under a stopped `run`. Symptom: one
/// contender in a container, which could see nobody, opened the office for everybody. It holds because not
/// being able to look is no sign that the owner has let go.
#[test]
fn who_cannot_see_the_owner_of_a_deleted_store_gets_nothing() {
    let Some(words) = pid_namespace() else { return skipped("needs pid namespaces") };
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    kill(run.pid(), Signal::STOP);
    std::fs::remove_dir_all(sandbox.file("store")).unwrap();
    let start = ["run", "--no-backoff", "--", "true"];
    sandbox.cli(start).assert_code(75);
    let inside = sandbox.incumbent_under(words, &start);
    Process::start(inside).finish(LIMIT).assert_code(75);
    sandbox.cli(start).assert_code(75);
    kill(run.pid(), Signal::CONT);
    sandbox.wait_claimed_again("default", &run, "deleted with its anchors");
    run.end().assert_code(0);
    sandbox.assert_free();
}

/// A `run` whose store was deleted with its anchors makes the new one itself, and has not claimed in it yet.
/// Symptom: a contender was faster, and the command of the run that had lost went on for its stop budget. It
/// holds because whoever makes a store leaves in it who is still in the one before, itself among them.
#[test]
fn nobody_gets_in_while_a_run_makes_its_new_store() {
    if !has("strace") || !works(&["strace", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let mut strace = sandbox.program("strace");
    let pid = run.pid().to_string();
    // The last step before it can claim: the directory of the anchors.
    let slowly = "inject=mkdir,mkdirat:delay_enter=1500000:when=2+";
    strace.args(["-f", "-o", "/dev/null", "-e", slowly, "-p", &pid]);
    let mut strace = Process::start(strace);
    strace.err_line_with("attached");
    std::fs::remove_dir_all(sandbox.file("store")).unwrap();
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    eventually("the run has made the store", LIMIT, || {
        let connection = rusqlite::Connection::open_with_flags(sandbox.db(), flags).ok()?;
        let id = "SELECT value FROM meta WHERE key = 'store_uuid'";
        connection.query_row(id, [], |row| row.get::<_, String>(0)).ok()
    });
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    strace.kill();
    sandbox.wait_claimed_again("default", &run, "made anew by itself");
    run.end().assert_code(0);
    sandbox.assert_free();
}

/// An owner that is stopped notices nothing. Symptom: with the `-wal` alone deleted everybody else got "disk I/O
/// error, check free space" until it went on, and a healthy run could not claim again. It holds because a `-shm`
/// that tells of what is not in the `-wal` is taken away, as if both had been deleted.
fn an_owner_that_does_not_look_is_named_and_keeps_its_office(fate: Fate) {
    let sandbox = Sandbox::new();
    let older = sandbox.used_store();
    let mut owner = sandbox.owner();
    let run = sandbox.hold(&["--profile", "other"]);
    kill(owner.pid(), Signal::STOP);
    sandbox.meets(fate, &older);
    let waits_for_it = matches!(fate, Fate::BackupCopiedOver | Fate::Emptied);
    if !waits_for_it {
        sandbox.wait_claimed_again("other", &run, &format!("{fate:?}"));
    }
    for profile in ["default", "third"] {
        let start = ["--profile", profile, "run", "--no-backoff", "--", "true"];
        let refused = sandbox.cli(start);
        // Who is on record there still keeps its office, and no others.
        let is_free = fate == Fate::ShmDeleted && profile == "third";
        let refused = refused.assert_code(if is_free { 0 } else { 75 });
        if !is_free {
            refused.assert_complains(&[&format!("pid {}", owner.pid())]);
        }
    }
    kill(owner.pid(), Signal::CONT);
    assert_eq!(ask(&mut owner, "verify"), "StoreReplaced", "{fate:?}");
    assert_eq!(ask(&mut owner, "close"), "closed");
    eventually("the run has claimed again", LIMIT, || {
        let (code, status) = sandbox.json(["status", "--profile", "other"]);
        (code == 0 && status["pid"] == run.pid()).then_some(())
    });
    assert!(!run.command.is_gone());
    run.end().assert_code(0);
    sandbox.assert_free();
}

/// Two runs lose their store at once, and each is an orphan in the other's eyes.
fn runs_of_two_profiles_survive_the_loss_of_their_store(fate: Fate) {
    let sandbox = Sandbox::new();
    let older = sandbox.used_store();
    let a = sandbox.hold(&["--profile", "a"]);
    let b = sandbox.hold(&["--profile", "b", "--lock", "token=one"]);
    sandbox.meets(fate, &older);
    sandbox.wait_claimed_again("a", &a, &format!("the first, {fate:?}"));
    sandbox.wait_claimed_again("b", &b, &format!("the second, {fate:?}"));
    for profile in ["a", "b"] {
        let start = ["run", "--no-backoff", "--profile", profile, "--", "true"];
        sandbox.cli(start).assert_code(75);
    }
    a.end().assert_code(0);
    b.end().assert_code(0);
}

impl Sandbox {
    fn home(&self, name: &str) -> PathBuf {
        let home = self.file(name);
        std::fs::create_dir(&home).unwrap();
        home
    }

    fn homes_bound(&self) -> i64 {
        self.number("SELECT count(*) FROM profiles WHERE home IS NOT NULL")
    }
}

/// FIELD-BUGS rows 43 and 44. A profile belongs to one home, until that home is gone.
#[test]
fn a_profile_belongs_to_its_home() {
    let sandbox = Sandbox::new();
    let (first, second) = (sandbox.home("first"), sandbox.home("second"));
    let start = |home: &Path| {
        let mut command = sandbox.incumbent(["--json", "run", "--no-backoff", "--home"]);
        command.arg(home).args(["--", "true"]);
        Process::start(command).finish(LIMIT)
    };
    start(&first).assert_code(0);
    let refused = start(&second).assert_code(78).json();
    assert_eq!(refused["error"]["kind"], "profile_belongs_to", "{refused:#}");
    let message = refused["error"]["message"].as_str().unwrap();
    for home in [&first, &second] {
        assert!(message.contains(home.to_str().unwrap()), "{message}");
    }
    assert!(refused["error"]["hint"].as_str().unwrap().contains("--profile"), "{refused:#}");
    // By whatever way: a link leads to the same home.
    std::os::unix::fs::symlink(&first, sandbox.file("link")).unwrap();
    start(&sandbox.file("link")).assert_code(0);
    // A question names no home, and who names none is not refused.
    assert_eq!(sandbox.status().0, 3);
    sandbox.assert_free();
    std::fs::remove_dir(&first).unwrap();
    start(&second).assert_code(0);
    std::fs::create_dir(&first).unwrap();
    start(&first).assert_code(78);
}

/// Symptom: a start that was refused had moved the profile to its own home on the way, and the
/// rightful owner was refused from then on.
#[test]
fn a_refused_claim_binds_nothing() {
    let sandbox = Sandbox::new();
    let (first, second) = (sandbox.home("first"), sandbox.home("second"));
    let run = sandbox.hold(&[]);
    let contend = |home: &Path| {
        let mut command = sandbox.incumbent(["run", "--no-backoff", "--home"]);
        command.arg(home).args(["--", "true"]);
        Process::start(command).finish(LIMIT)
    };
    contend(&second).assert_code(75);
    assert_eq!(sandbox.homes_bound(), 0);
    run.end().assert_code(0);
    contend(&first).assert_code(0);
    assert_eq!(sandbox.homes_bound(), 1);
}

#[test]
fn a_wait_in_the_library_ends_by_deadline_or_cancel_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let mut gateway = sandbox.gateway();
    let waiters = || sandbox.number("SELECT count(*) FROM waiters");
    let mut ask = |order: &str| ask(&mut gateway, order);

    let asked = Instant::now();
    ask("wait default 300");
    assert_eq!(ask("waited"), "held anchor_held");
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert_within(NOTICED_WITHIN, took, "the wait");
    assert_eq!(waiters(), 0);

    ask("wait default forever");
    eventually("it waits", LIMIT, || (waiters() == 1).then_some(()));
    ask("cancel");
    let asked = Instant::now();
    assert_eq!(ask("waited"), "held anchor_held");
    assert_within(NOTICED_WITHIN, asked.elapsed(), "it");
    assert_eq!(waiters(), 0);

    ask("wait default forever");
    eventually("it waits", LIMIT, || (waiters() == 1).then_some(()));
    run.end().assert_code(0);
    assert_eq!(ask("waited"), "granted");
    assert_eq!(waiters(), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL"), 0);
    sandbox.assert_free();
}

#[test]
fn an_evicted_owner_learns_it() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.owner();
    assert_eq!(ask(&mut owner, "watch"), "watching");
    sandbox.cli(["evict"]).assert_code(75);
    assert_eq!(ask(&mut owner, "verify"), "Held");
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let verdict = ask(&mut owner, "verify");
    assert!(verdict.contains("Ended") && verdict.contains("evicted"), "{verdict}");
    assert!(verdict.contains("incumbent evict --force (pid "), "{verdict}");
    let next = sandbox.hold(&[]);
    assert_eq!(ask(&mut owner, "release"), "WasLost");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], next.pid());
    next.end().assert_code(0);
}

/// The command of an evicted run is asked to end, not killed.
#[test]
fn the_command_of_an_evicted_run_is_asked_to_end() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo asked; exit 3' TERM; echo $$; while :; do sleep 0.05; done";
    let run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    let command = run.command;
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(75);
    assert_eq!(answer.out.lines().last(), Some("asked"), "{answer:#?}");
    answer.assert_complains(&["was lost", "evicted", "ending the command"]);
    assert!(command.is_gone());
    let history = sandbox.history();
    assert_eq!(history[0]["end_reason"], "evicted", "{history:#?}");
}

/// There is always a verb that a person can use to end it, also for an owner whose record is gone
/// with its store.
#[test]
fn an_orphan_can_be_evicted() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.owner();
    sandbox.remove_store();
    sandbox.assert_held("orphaned_anchor");
    sandbox.cli(["evict"]).assert_code(75);
    sandbox.assert_held("orphaned_anchor");
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let next = sandbox.hold(&[]);
    assert_eq!(ask(&mut owner, "verify"), "StoreReplaced");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], next.pid());
    next.end().assert_code(0);
}

#[test]
fn the_history_is_bounded_and_keeps_the_newest() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.gateway();
    assert_eq!(ask(&mut gateway, "cycle 330"), "cycled");
    let kept = sandbox.number("SELECT count(*) FROM instances");
    // One claim in eight prunes, by chance: not one of the last sixty is out of the question.
    assert!((200..=260).contains(&kept), "{kept} are kept");
    let newest = sandbox.number("SELECT max(id) FROM instances");
    let history = sandbox.history();
    assert_eq!(history.len(), 200);
    assert_eq!(history[0]["instance"], newest);
    let ids: Vec<_> = history.iter().map(|row| row["instance"].as_i64().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first");
    assert!(sandbox.number("SELECT count(*) FROM starts") <= 216);
    let store = Store::open_existing(sandbox.db()).unwrap().unwrap();
    let three = store.profile("default").unwrap().history(&Kind::default(), 3).unwrap();
    assert_eq!(three.len(), 3);
    assert_eq!(three[0].instance.as_i64(), newest);
}

/// Symptom: two owners, after a `cp -al` of the state directory and a disk that was full for a
/// second. Cause: an owner whose anchor had a second name let go of it before the new one was on
/// record. It holds because the old lock is kept until the record that names the new one is
/// committed.
#[test]
fn an_anchor_that_cannot_be_replaced_on_record_is_kept() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let mut owner = disk.role(ROLE_TEST, GATEWAY);
    assert_eq!(ask(&mut owner, "open"), "opened");
    assert!(ask(&mut owner, "claim default").starts_with("granted"));
    let script = "dd if=/dev/zero of=store/fill bs=1k 2> /dev/null
        ln store/state.db.anchors/*.lock store/backup.lock";
    disk.shell(script).assert_code(0);
    for _ in 0..3 {
        let verdict = ask(&mut owner, "verify");
        assert!(verdict == "Held" || verdict == "Err(CannotWrite)", "{verdict}");
        let status = disk.cli(&["--json", "status"]);
        assert_eq!(status.code(), 0, "a live owner is seen dead: {status:#?}");
    }
    disk.shell("rm store/fill").assert_code(0);
    let start = ["run", "--no-backoff", "--", "echo", "second owner"];
    let second = disk.cli(&start);
    assert_eq!((second.code(), second.out.as_str()), (75, ""), "{second:#?}");
    assert_eq!(ask(&mut owner, "verify"), "Held");
    disk.cli(&start).assert_code(75);
    disk.cli(&["status"]).assert_code(0);
    assert_eq!(ask(&mut owner, "release"), "Free");
    disk.cli(&start).assert_code(0);
}

/// FIELD-BUGS row 78, issue 16. Symptom: a release that could not be written was told as "the process has
/// ended", of a process that lived. It is told as what it is, pending, by the process itself; whoever
/// else asks sees a lock that is free and a process that goes on. `stop` leaves that one alone.
#[test]
fn a_pending_release_is_not_the_end_of_its_process() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "1m") else { return };
    let mut owner = disk.role(ROLE_TEST, GATEWAY);
    assert_eq!(ask(&mut owner, "open"), "opened");
    assert!(ask(&mut owner, "claim default").starts_with("granted"));
    disk.fill_up();
    assert_eq!(ask(&mut owner, "release"), "Pending(CannotWrite)");
    let because = ask(&mut owner, "because default");
    assert!(because.contains("has released it, and could not write that down yet"), "{because}");
    assert!(because.contains("release_pending"), "{because}");
    let goes_on = "the process still runs, but no longer holds it";
    let status = disk.cli(&["status"]).assert_code(3);
    assert!(status.out.contains(goes_on) && !status.out.contains("has ended"), "{status:#?}");
    for verb in [&["stop"][..], &["stop", "--force"]] {
        let stopped = disk.cli(verb).assert_code(0);
        assert!(stopped.out.contains("not running"), "{stopped:#?}");
        assert!(!stopped.out.contains("stopped"), "{stopped:#?}");
    }
    assert_eq!(ask(&mut owner, "pending"), "1");
    disk.shell("rm store/fill").assert_code(0);
    let doctor = disk.cli(&["doctor"]);
    assert!(doctor.out.contains(goes_on), "{doctor:#?}");
    assert_eq!(ask(&mut owner, "status default"), "dead released");
    assert_eq!(ask(&mut owner, "pending"), "0");
}

/// Symptom: an office that nobody could claim any more without force. Cause: a claimant that found
/// its holder dead removed the dead one's anchor, and was killed before it had that on record; from
/// another pid namespace nothing is left to tell. It holds because files are removed only after the
/// commit.
#[test]
fn a_claimant_killed_half_way_leaves_the_dead_dead() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    if !has("strace") || !works(&["strace", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let dead_holder_elsewhere = || {
        let sandbox = Sandbox::new();
        let mut command = sandbox.within(namespace);
        command.args([BINARY, "run", "--no-backoff"]);
        let mut container = Process::start({
            command.args(crate::support::HOLDING);
            command
        });
        container.line();
        container.kill();
        eventually("the container is gone", LIMIT, || {
            tagged("IT_SANDBOX", sandbox.path()).is_empty().then_some(())
        });
        // A dying process has no environment any more before it closes its files.
        eventually("the anchor is free", LIMIT, || (sandbox.status().0 == 3).then_some(()));
        sandbox.assert_status(3, "dead", "anchor_released");
        sandbox
    };
    let claimant = |sandbox: &Sandbox, options: &[&str]| {
        let mut command = sandbox.program("strace");
        command.args(["-e", "trace=unlink,unlinkat,pwrite64", "-o"]).arg(sandbox.file("trace"));
        command.args(options).args([BINARY, "run", "--no-backoff", "--", "true"]);
        Process::start(command).finish(LIMIT)
    };
    // Once to the end, to see where the dead one's anchor goes.
    let sandbox = dead_holder_elsewhere();
    claimant(&sandbox, &[]).assert_code(0);
    let trace = std::fs::read_to_string(sandbox.file("trace")).unwrap();
    let (mut writes, mut after_unlink) = (0, None);
    let mut is_removed = false;
    for line in trace.lines() {
        if line.starts_with("pwrite64") {
            writes += 1;
            if is_removed && after_unlink.is_none() {
                after_unlink = Some(writes);
            }
        }
        is_removed |= line.starts_with("unlink") && line.contains(".lock");
    }
    assert!(writes > 0, "no writes in the trace");
    let mut points = vec![1, writes / 2, writes];
    points.extend(after_unlink);
    for point in points {
        let sandbox = dead_holder_elsewhere();
        let inject = format!("inject=pwrite64:signal=SIGKILL:when={point}");
        let killed = claimant(&sandbox, &["-e", &inject]);
        assert_eq!(killed.code(), 137, "write {point} of {writes}: {killed:#?}");
        let (code, status) = sandbox.status();
        assert_eq!(code, 3, "killed at write {point} of {writes}: {status:#}");
        sandbox.assert_free();
    }
}

/// Symptom: `run` never ended. Cause: a parent that ignores SIGCHLD (a badly written supervisor)
/// hands that down, and then the kernel collects the command before `run` can.
#[test]
fn a_run_started_with_its_childrens_ends_ignored_ends_with_its_command() {
    let sandbox = Sandbox::new();
    let words = ["env", "--ignore-signal=CHLD"];
    if !works(&words) {
        return skipped("needs an env that can ignore signals");
    }
    let start = |program: &[&str]| {
        let mut command = sandbox.within(&words);
        command.args(program);
        Process::start(command).finish(Duration::from_secs(10))
    };
    let ignored = start(&["grep", "SigIgn", "/proc/self/status"]).assert_code(0).out;
    let ignored = u64::from_str_radix(ignored.split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_ne!(ignored & (1 << (libc::SIGCHLD - 1)), 0, "the test is about an ignored signal");
    let answer = start(&[BINARY, "run", "--", "/bin/sh", "-c", "exit 7"]);
    assert_eq!(answer.code(), 7, "{answer:#?}");
    let history = sandbox.history();
    assert_eq!(
        (&history[0]["end_reason"], &history[0]["exit_code"]),
        (&json!("exited"), &json!(7))
    );
}

/// Symptom: a live gateway lost its office to a `release` in some container. Cause: its pid was
/// looked for in the wrong pid namespace, not found, and so taken for gone.
#[test]
fn a_release_from_another_pid_namespace_ends_no_live_record() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let script = "incumbent claim > /dev/null; echo $$; exec cat";
    let mut owner = Process::start(sandbox.shell(script));
    let pid = owner.line();
    let release = ["release", "--pid", pid.as_str()];
    let answer = Process::start(sandbox.incumbent_under(namespace, &release)).finish(LIMIT);
    assert_eq!(answer.code(), 1, "{answer:#?}");
    assert!(!answer.err.is_empty(), "{answer:#?}");
    sandbox.assert_status(0, "alive", "anchor_held");
    sandbox.assert_held("anchor_held");
    sandbox.cli(release).assert_code(0);
    sandbox.assert_status(3, "dead", "released");
}

/// FIELD-BUGS rows 18 and 50.
///
/// Symptom: a restart issued from inside a gateway killed the restarter. Here: a command with
/// another user's id outlives its killed `run`, and starts a `run` of its own. That one may end
/// commands left over, but not the very process that it works for.
#[test]
fn a_claimant_never_kills_its_own_ancestor() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let script = "echo $$; read -r go
        \"$0\" run --no-backoff -- echo started; echo \"code $?\"; exec cat";
    let mut command = sandbox.program(BINARY);
    command.args(["run", "--no-backoff", "--"]).args(nobody).args(["/bin/sh", "-c", script]);
    command.arg(&binary);
    let mut run = Run::start(command);
    run.kill();
    assert!(!run.command.is_gone(), "the test is about a command that survives its run");
    sandbox.assert_status(0, "alive", "child_lives");
    run.process.say("go");
    assert_eq!(run.process.line(), "code 75");
    assert!(!run.command.is_gone());
    let said = run.process.err_line_with("is held by");
    assert!(said.contains("the command it started still runs"), "{said}");
    // Who is not its child may: that is what the rule is for.
    sandbox.assert_free();
    run.command.wait_gone(LIMIT);
}
