//! FIELD-BUGS rows 106 and 131: what is ours is closed to others again, by its open descriptor;
//! what is not ours stays as it is, no matter who says where it is.

use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::{
    Answer, LIMIT, NOBODY, Process, START, Sandbox, another_user, has, is_root, mode, portrait,
    rounds, set_mode, skipped,
};

/// Of the pod, in no user database.
const POD: u32 = 1234;

/// FIELD-BUGS row 106.
///
/// Symptom: `doctor --fix` with a wrong `--db` set 0600 and said "modes: done", on a text, on
/// another program's database, and on what a link led to.
#[test]
fn doctor_fix_changes_nothing_that_is_not_a_store() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("text"), "milk\n".repeat(300)).unwrap();
    std::fs::write(sandbox.file("victim"), "").unwrap();
    std::fs::write(sandbox.file("short"), "x").unwrap();
    symlink(sandbox.file("victim"), sandbox.file("link")).unwrap();
    for mode in ["WAL", "DELETE"] {
        let other = rusqlite::Connection::open(sandbox.file(&format!("other-{mode}"))).unwrap();
        other.pragma_update(None, "journal_mode", mode).unwrap();
        other.execute_batch("CREATE TABLE songs (title)").unwrap();
    }
    let names = ["text", "victim", "short", "other-WAL", "other-DELETE"];
    for name in names {
        set_mode(&sandbox.file(name), 0o644);
    }
    let before = names.map(|name| portrait(&sandbox.file(name)));
    let says = [
        ("text", "is not an SQLite database"),
        ("victim", "victim is empty: the next start makes a store of it"),
        ("short", "short is empty: the next start makes a store of it"),
        ("other-WAL", "this SQLite database belongs to another program"),
        ("other-DELETE", "this SQLite database belongs to another program"),
        ("link", "victim is empty: the next start makes a store of it"),
        ("text/x", "text is not a directory"),
    ];
    for (name, words) in says {
        let db = sandbox.file(name);
        let answer = sandbox.cli(["--db", db.to_str().unwrap(), "doctor", "--fix", "--verbose"]);
        assert!(!answer.out.contains("done"), "{name}: {answer:#?}");
        assert!(!answer.out.contains("chmod"), "{name}: {answer:#?}");
        assert!(answer.out.contains(words), "{name}: {answer:#?}");
    }
    assert_eq!(before, names.map(|name| portrait(&sandbox.file(name))));
}

/// What Kubernetes does at each mount of a volume with a group.
pub fn mount_for_group(sandbox: &Sandbox, volume: &str, group: u32) {
    let script = format!(
        "chgrp -R {group} '{volume}'; chmod -R g+rwX '{volume}'; \
         find '{volume}' -type d -exec chmod g+s {{}} +"
    );
    Process::start(sandbox.shell(&script)).finish(LIMIT).assert_code(0);
}

/// A pod with `securityContext.fsGroup`, whose volume is group-writable again after each mount.
struct Pod {
    sandbox: Sandbox,
    user: (u32, u32),
}

impl Pod {
    /// `None` where it cannot be tried.
    fn new(user: (u32, u32)) -> Option<Self> {
        let sandbox = Sandbox::for_all_users()?;
        std::fs::create_dir(sandbox.file("volume")).unwrap();
        Some(Self { sandbox, user })
    }

    fn volume(&self) -> PathBuf {
        self.sandbox.file("volume")
    }

    fn store(&self) -> PathBuf {
        self.volume().join("incumbent")
    }

    fn mount(&self) {
        mount_for_group(&self.sandbox, "volume", POD);
    }

    fn cli_at(&self, db: &Path, arguments: &[&str]) -> Answer {
        let (uid, gid) = (self.user.0.to_string(), self.user.1.to_string());
        let groups = POD.to_string();
        let mut command = self.sandbox.program("setpriv");
        command.args(["--reuid", &uid, "--regid", &gid, "--groups", &groups]);
        command.arg(self.sandbox.file("incumbent")).args(arguments).env("INCUMBENT_DB", db);
        Process::start(command).finish(LIMIT)
    }

    fn cli(&self, arguments: &[&str]) -> Answer {
        self.cli_at(&self.store().join("state.db"), arguments)
    }

    /// Everything of the store, with its mode.
    fn assert_closed(&self, what: &str) {
        let mut left = vec![self.store()];
        while let Some(path) = left.pop() {
            let mode = mode(&path);
            assert_eq!(mode & 0o027, 0, "{what}: {} has {mode:o}", path.display());
            if path.is_dir() {
                left.extend(std::fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
            }
        }
    }
}

/// FIELD-BUGS row 131.
///
/// Symptom: after a pod's restart every verb was 78, and `doctor --fix` repaired all but the
/// directory.
#[test]
fn a_store_that_was_opened_to_its_group_is_closed_by_the_next_start() {
    for user in [(POD, POD), (1000, 3000), (1001, 1001)] {
        let Some(pod) = Pod::new(user) else { return skipped("needs root") };
        pod.mount();
        pod.cli(START).assert_code(0);
        for fix in [false, true] {
            pod.mount();
            assert_eq!(mode(&pod.store()) & 0o070, 0o070);
            let before = mode(&pod.store().join("state.db"));
            pod.cli(&["status"]).assert_code(3);
            pod.cli(&["history"]).assert_code(0);
            assert_eq!(mode(&pod.store().join("state.db")), before, "a question wrote");
            if fix {
                let said = pod.cli(&["--json", "doctor"]);
                assert!(said.out.contains("can be written by"), "{user:?}: {said:#?}");
                let fixed = pod.cli(&["doctor", "--fix"]);
                assert!(fixed.out.contains("path: done: set the mode of"), "{user:?}: {fixed:#?}");
                pod.assert_closed("after doctor --fix");
                let again = pod.cli(&["doctor", "--fix"]);
                assert!(!again.out.contains("done:"), "{user:?}: {again:#?}");
            } else {
                pod.cli(START).assert_code(0);
                assert_eq!(mode(&pod.store()) & 0o022, 0, "{user:?}");
                assert_eq!(mode(&pod.store().join("state.db")), 0o600, "{user:?}");
                assert_eq!(mode(&pod.store().join("state.db.anchors")) & 0o777, 0o700, "{user:?}");
            }
            pod.cli(START).assert_code(0);
        }
    }
}

/// The root of the volume is root's, and nobody but this pod is in its group.
#[test]
fn a_directory_of_root_s_with_a_group_of_our_own() {
    let Some(pod) = Pod::new((POD, POD)) else { return skipped("needs root") };
    let db = pod.volume().join("state.db");
    pod.mount();
    pod.cli_at(&db, START).assert_code(0);
    pod.mount();
    pod.cli_at(&db, &["status"]).assert_code(3);
    pod.cli_at(&db, START).assert_code(0);
    assert_eq!(mode(&db), 0o600);
    assert_eq!(mode(&pod.volume()) & 0o020, 0o020, "it is not ours to close");

    // Others are in that one, by the user database: what to do is said.
    chown(pod.volume(), None, Some(0)).unwrap();
    let answer = pod.cli_at(&db, START).assert_code(78);
    answer.assert_complains(&[
        "can be written by its group",
        "group 0",
        "a directory of its own",
        "volume/incumbent/state.db",
    ]);
}

/// Where anybody can write, no start goes on by itself: a person decides, and `--fix` does it.
#[test]
fn a_store_that_was_opened_to_everybody_is_closed_by_doctor_fix() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    for open in [0o777, 0o757, 0o2777] {
        set_mode(&sandbox.file("store"), open);
        sandbox.cli(START).assert_code(78);
        let fixed = sandbox.cli(["doctor", "--fix"]);
        assert!(fixed.out.contains("path: done: set the mode of"), "{fixed:#?}");
        assert_eq!(mode(&sandbox.file("store")), open & !0o022);
        sandbox.cli(START).assert_code(0);
    }
    // It is shared on purpose, and nobody closes it.
    set_mode(&sandbox.file("store"), 0o1777);
    sandbox.cli(["doctor", "--fix"]);
    assert_eq!(mode(&sandbox.file("store")), 0o1777);
}

/// What root is led to in a user's directory, by a link of that user's.
#[test]
fn a_link_of_a_user_leads_root_nowhere() {
    if another_user().is_none() {
        return skipped("needs root");
    }
    let (theirs, roots) = (Sandbox::new(), Sandbox::new());
    theirs.open_to_nobody();
    roots.cli(START).assert_code(0);
    std::fs::create_dir(theirs.file("store")).unwrap();
    for path in [theirs.path(), &theirs.file("store")] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    set_mode(&roots.db(), 0o644);
    let link = |from: PathBuf, to: PathBuf| {
        symlink(&to, &from).unwrap();
        std::os::unix::fs::lchown(&from, Some(NOBODY), Some(NOBODY)).unwrap();
        from
    };
    let to_file = link(theirs.db(), roots.db());
    let to_directory = link(theirs.file("other"), roots.file("store")).join("state.db");
    for db in [to_file, to_directory] {
        for verb in [START, &["claim", "--no-keeper"], &["doctor", "--fix"], &["status"]] {
            let answer = theirs.cli([&["--db", db.to_str().unwrap()], verb].concat());
            let said = format!("{}{}", answer.out, answer.err);
            assert!(said.contains("a symbolic link of uid 65534"), "{verb:?}: {answer:#?}");
            assert_eq!(mode(&roots.db()), 0o644, "{verb:?}");
        }
    }
    // The user's own link to a place of the user's own is as good for root.
    std::fs::create_dir(theirs.file("place")).unwrap();
    chown(theirs.file("place"), Some(NOBODY), Some(NOBODY)).unwrap();
    let db = link(theirs.file("way"), theirs.file("place")).join("state.db");
    theirs.cli([&["--db", db.to_str().unwrap()], START].concat()).assert_code(0);
}

/// SQLite gives what it finds as `-wal` to the owner of the database, and writes to it: a second
/// name of a file of root's, or one of root's that the user has moved there.
#[test]
fn a_file_of_root_s_in_the_place_of_a_wal_stays_root_s() {
    if another_user().is_none() {
        return skipped("needs root");
    }
    for suffix in ["-wal", "-journal"] {
        for is_second_name in [true, false] {
            let sandbox = Sandbox::new();
            let binary = sandbox.open_to_nobody();
            let words = another_user().unwrap();
            let mut first = sandbox.within(words);
            first.arg(binary).args(START);
            Process::start(first).finish(LIMIT).assert_code(0);
            let secret = sandbox.file("secret");
            std::fs::write(&secret, "root's").unwrap();
            set_mode(&secret, 0o600);
            let wal = sandbox.file(&format!("store/state.db{suffix}"));
            let _ = std::fs::remove_file(&wal);
            std::fs::hard_link(&secret, &wal).unwrap();
            if !is_second_name {
                std::fs::remove_file(&secret).unwrap();
            }
            let before = portrait(&wal);
            for verb in [START, &["claim", "--no-keeper"], &["doctor", "--fix"], &["status"]] {
                let answer = sandbox.cli(verb);
                assert_eq!(before, portrait(&wal), "{suffix}, {verb:?}: {answer:#?}");
            }
            let refused = sandbox.cli(START).assert_code(78);
            refused.assert_complains(&[wal.to_str().unwrap()]);
        }
    }
}

/// A user swaps what root works on, as fast as he can: nothing of root's changes its mode, owner or
/// content.
#[test]
fn a_user_who_swaps_files_gets_root_to_change_nothing_else() {
    if another_user().is_none() {
        return skipped("needs root");
    }
    let (sandbox, elsewhere) = (Sandbox::new(), Sandbox::new());
    sandbox.open_to_nobody();
    std::fs::create_dir(sandbox.file("store")).unwrap();
    chown(sandbox.file("store"), Some(NOBODY), Some(NOBODY)).unwrap();
    let secret = elsewhere.file("secret");
    std::fs::write(&secret, "root's").unwrap();
    set_mode(&secret, 0o644);
    std::fs::create_dir(elsewhere.file("directory")).unwrap();
    set_mode(&elsewhere.file("directory"), 0o755);
    std::fs::write(elsewhere.file("directory/inside"), "root's").unwrap();
    sandbox.cli(START).assert_code(0);
    let before = (portrait(&secret), mode(&elsewhere.file("directory")));
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&sandbox, &elsewhere, &stop, &swaps));
        let _ends = Ends(&stop);
        let mut race = Race::new(rounds(200, 2_000));
        while let Some(round) = race.next(swaps.load(Ordering::Relaxed)) {
            let verb: &[&str] = match round % 3 {
                0 => &["doctor", "--fix"],
                1 => START,
                _ => &["claim", "--no-keeper"],
            };
            let answer = sandbox.cli(verb);
            race.saw(&answer);
            let now = (portrait(&secret), mode(&elsewhere.file("directory")));
            assert!(now == before, "round {round}, {verb:?}: {now:?} {answer:#?}");
            let owner = std::fs::metadata(elsewhere.file("directory")).unwrap().uid();
            assert_eq!(owner, 0, "round {round}, {verb:?}");
        }
    });
    let inside: Vec<_> = std::fs::read_dir(elsewhere.file("directory")).unwrap().collect();
    assert_eq!(inside.len(), 1, "{inside:?}");
}

/// Verbs of root's beside a user who swaps what they work on: so many rounds, and as many more as
/// it takes until a swap and a verb have succeeded.
pub struct Race {
    rounds: usize,
    round: usize,
    done: usize,
    started: Instant,
}

impl Race {
    pub fn new(rounds: usize) -> Self {
        Self { rounds, round: 0, done: 0, started: Instant::now() }
    }

    /// The number of the next round; `None` when there were enough.
    #[track_caller]
    pub fn next(&mut self, swaps: usize) -> Option<usize> {
        let (round, done) = (self.round, self.done);
        if round >= self.rounds && swaps > 0 && done > 0 {
            return None;
        }
        let is_in_time = round < self.rounds || self.started.elapsed() < LIMIT;
        assert!(is_in_time, "{swaps} swaps, and {done} of {round} verbs succeeded");
        self.round += 1;
        Some(round)
    }

    #[track_caller]
    pub fn saw(&mut self, answer: &Answer) {
        assert!(answer.code() < 128, "{answer:#?}");
        self.done += usize::from(answer.code() == 0);
    }
}

/// Ends the other thread also where this one panics.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// In the place of each file of the store by turns: a link to root's file, to root's directory, and
/// what was there.
fn swap(sandbox: &Sandbox, elsewhere: &Sandbox, stop: &AtomicBool, swaps: &AtomicUsize) {
    let names = [
        "state.db",
        "state.db-wal",
        "state.db-shm",
        "state.db.anchors",
        "state.db.anchors/recovery.lock",
    ];
    let aside = sandbox.file("aside");
    let targets = ["secret", "directory"];
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let path = sandbox.file("store").join(names[round % names.len()]);
        let target = elsewhere.file(targets[round / names.len() % targets.len()]);
        round += 1;
        let had = std::fs::rename(&path, &aside).is_ok();
        let made = symlink(&target, &path)
            .and_then(|()| std::os::unix::fs::lchown(&path, Some(NOBODY), Some(NOBODY)));
        std::thread::yield_now();
        if made.is_ok() {
            swaps.fetch_add(1, Ordering::Relaxed);
            let _ = std::fs::remove_file(&path);
        }
        if had {
            let _ = std::fs::rename(&aside, &path);
        }
    }
}

/// A program of somebody else's at the beginning of root's PATH (`sudo -E`, a unit's environment)
/// was run by root.
#[test]
fn root_runs_no_program_that_only_its_path_names() {
    if !is_root() {
        return skipped("needs root");
    }
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    for name in ["ps", "dmesg", "journalctl", "systemctl", "sqlite3"] {
        let script = format!(
            "mkdir -p bin; printf '#!/bin/sh\\ntouch {}\\n' > bin/{name}; chmod 755 bin/{name}",
            sandbox.file("was-run").display()
        );
        Process::start(sandbox.shell(&script)).finish(LIMIT).assert_code(0);
    }
    for verb in [
        "doctor",
        "doctor --fix",
        "forensics systemd --unit x.service",
        "forensics diagnose --log log",
    ] {
        let mut command = sandbox.shell(&format!("PATH=$PWD/bin:$PATH; incumbent {verb}"));
        command.env("XDG_RUNTIME_DIR", sandbox.path());
        Process::start(command).finish(LIMIT);
    }
    crate::support::eventually("the end of the diagnostic", LIMIT, || {
        let log = std::fs::read_to_string(sandbox.file("log")).unwrap_or_default();
        log.contains("=== end ===").then_some(())
    });
    assert!(!sandbox.file("was-run").exists(), "root ran a program of another's");
}

/// A filter that answers EPERM to all of chmod(2) and chown(2), and then runs a program.
const FILTER: &str = r#"
import ctypes, os, struct, sys
numbers = [90, 91, 92, 93, 94, 260, 268, 452]
filter = [struct.pack("HBBI", 0x20, 0, 0, 0)]
filter += [struct.pack("HBBI", 0x15, len(numbers) - at, 0, number)
           for at, number in enumerate(numbers)]
filter += [struct.pack("HBBI", 0x06, 0, 0, 0x7fff0000), struct.pack("HBBI", 0x06, 0, 0, 0x00050001)]
code = ctypes.create_string_buffer(b"".join(filter))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(filter), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()
try:
    os.chmod("/", 0o755)
    raise SystemExit("the filter does not work")
except PermissionError:
    pass
os.execvp(sys.argv[1], sys.argv[1:])
"#;

/// FIELD-BUGS row 135.
///
/// Symptom: starts were blocked where seccomp keeps chmod and chown away, although nothing had to
/// change.
#[test]
fn where_chmod_and_chown_are_denied_a_start_goes_on() {
    if cfg!(not(target_arch = "x86_64")) || !has("python3") {
        return skipped("needs python3 and the system call numbers of x86_64");
    }
    for umask in ["077", "022", "000"] {
        let sandbox = Sandbox::new();
        std::fs::write(sandbox.file("filter.py"), FILTER).unwrap();
        let filtered = |verb: &[&str]| {
            let script = format!("umask {umask}; exec python3 filter.py incumbent \"$@\"");
            let mut command: Command = sandbox.shell(&script);
            command.arg("sh").args(verb);
            Process::start(command).finish(LIMIT)
        };
        filtered(START).assert_code(0);
        filtered(START).assert_code(0);
        let claim = ["lock", "acquire", "bot", "one", "--pid", &std::process::id().to_string()];
        filtered(&claim).assert_code(0);
        sandbox.cli(["lock", "release", "--all", "--pid", &std::process::id().to_string()]);
        filtered(&["forensics", "diagnose", "--log", "log"]).assert_code(0);
        assert_eq!(mode(&sandbox.db()), 0o600, "umask {umask}");
        if is_root() {
            // The same in a directory of another group, where files get the group of the user who
            // makes them.
            chown(sandbox.file("store"), None, Some(100)).unwrap();
            filtered(START).assert_code(0);
        }
    }
}
