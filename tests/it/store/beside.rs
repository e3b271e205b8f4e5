//! What lies in the place of the database, or of what SQLite keeps beside it, and is something
//! else.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Answer, LIMIT, NOBODY, Process, START, Sandbox, another_user, beside, eventually, has, skipped,
    works,
};

/// A store in a directory of nobody's; `None` where that cannot be tried.
struct OfNobody(Sandbox);

impl OfNobody {
    fn new() -> Option<Self> {
        another_user()?;
        let sandbox = Sandbox::new();
        sandbox.open_to_nobody();
        std::fs::create_dir(sandbox.file("store")).unwrap();
        chown(sandbox.file("store"), Some(NOBODY), Some(NOBODY)).unwrap();
        Some(Self(sandbox))
    }

    fn as_nobody(&self, arguments: &[&str]) -> Answer {
        let words = another_user().unwrap();
        let mut command = self.0.within(words);
        command.arg(self.0.file("incumbent")).args(arguments);
        Process::start(command).finish(LIMIT)
    }

    /// The files of the store that root has kept.
    fn roots_files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.0.file("store")).unwrap().map(|it| it.unwrap().path());
        files.filter(|path| std::fs::symlink_metadata(path).unwrap().uid() == 0).collect()
    }
}

/// Symptom: root used a user's store where there is no `/proc`, and the user's next start was
/// refused. Cause: the directory of what SQLite has just made was asked for there, and so `-wal`
/// and `-shm` stayed root's. It holds because the path is the one that was opened.
#[test]
fn what_root_makes_without_proc_belongs_to_the_owner_of_the_store() {
    const HIDDEN: &[&str] =
        &["unshare", "-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"];
    let Some(store) = OfNobody::new().filter(|_| works(HIDDEN)) else {
        return skipped("needs root");
    };
    for is_there_before in [false, true] {
        if is_there_before {
            for suffix in ["-wal", "-shm"] {
                std::fs::remove_file(beside(&store.0.db(), suffix)).unwrap();
            }
        }
        let claim = ["claim", "--no-keeper", "--pid", &std::process::id().to_string()];
        let answer = Process::start(store.0.incumbent_under(HIDDEN, &claim)).finish(LIMIT);
        assert!(store.0.db().exists(), "{answer:#?}");
        assert!(store.roots_files().is_empty(), "{:?}: {answer:#?}", store.roots_files());
        assert!(store.as_nobody(&["locks"]).code() == 0);
    }
}

/// Symptom: where only the `-wal` was root's, its owner read that state.db cannot be opened, and to
/// ask as the owner of that, whom he was. The culprit is named, with its owner and mode.
#[test]
fn of_the_files_of_a_store_the_one_that_cannot_be_read_is_named() {
    let Some(store) = OfNobody::new() else { return skipped("needs root") };
    store.as_nobody(START).assert_code(0);
    for suffix in ["-wal", "-shm", ""] {
        let path = beside(&store.0.db(), suffix);
        chown(&path, Some(0), Some(0)).unwrap();
        for verb in [START, &["status"]] {
            let answer = store.as_nobody(verb);
            let words = [path.to_str().unwrap(), "by uid 65534", "owner uid 0, mode 0600"];
            assert!(answer.code() != 0, "{suffix}: {answer:#?}");
            answer.assert_complains(&words);
        }
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// Symptom: `doctor --fix` hung for ever on a FIFO in the place of one of the files. Cause: an
/// `open(2)` without `O_NONBLOCK` waits for a writer. It holds because nothing beside a store is
/// opened in that way.
#[test]
fn a_fifo_in_the_place_of_a_file_holds_nobody_up() {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        for is_with_anchors in [true, false] {
            let sandbox = Sandbox::new();
            sandbox.cli(START).assert_code(0);
            let path = beside(&sandbox.db(), suffix);
            let _ = std::fs::remove_file(&path);
            let made = Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(made.success());
            if !is_with_anchors {
                std::fs::remove_dir_all(sandbox.anchors()).unwrap();
            }
            for verb in [&["doctor"][..], &["doctor", "--fix"], &["status"], START] {
                let answer = sandbox.cli(verb);
                assert!(answer.code() < 100, "{suffix:?}, {verb:?}: {answer:#?}");
                let said = format!("{}{}", answer.out, answer.err);
                let is_named = said.contains("is not a regular file");
                assert!(suffix == "-journal" || is_named, "{suffix:?}, {verb:?}: {answer:#?}");
            }
        }
    }
}

/// Symptom: of a `-wal` with a second name (`cp -al`, rsnapshot) root was told to move it away, and
/// the commits of the gateway at work in it were lost. It is the other name that has to go.
#[test]
fn of_a_file_with_a_second_name_the_second_name_is_to_be_removed() {
    let sandbox = Sandbox::new();
    let holder = sandbox.hold(&[]);
    let wal = beside(&sandbox.db(), "-wal");
    std::fs::hard_link(&wal, sandbox.file("copy")).unwrap();
    let refused = sandbox.cli(["status"]).assert_code(78);
    assert!(!refused.err.contains("move it away"), "{refused:#?}");
    refused.assert_complains(&[
        wal.to_str().unwrap(),
        "has more than one name (hard links)",
        "remove the other name",
        &format!("-samefile {}", wal.display()),
        "never move or delete this file while a gateway runs",
    ]);
    std::fs::remove_file(sandbox.file("copy")).unwrap();
    sandbox.assert_status(0, "alive", "anchor_held");
    holder.end();
}

/// Symptom: of a store whose directory and file belong to two users it was said that a process does
/// not belong to uid 4294967295.
#[test]
fn of_a_store_of_two_users_that_is_said() {
    let Some(store) = OfNobody::new() else { return skipped("needs root") };
    let mut sleeping = store.0.program(another_user().unwrap()[0]);
    sleeping.args(&another_user().unwrap()[1..]).args(["sleep", "1000"]);
    let mut sleeping = Process::start(sleeping);
    let pid = sleeping.pid().to_string();
    eventually("the process is nobody's", LIMIT, || {
        let owner = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        (owner == NOBODY).then_some(())
    });
    store.as_nobody(&["claim", "--no-keeper", "--pid", &pid]).assert_code(0);
    for suffix in ["", "-wal", "-shm"] {
        chown(beside(&store.0.db(), suffix), Some(2000), None).unwrap();
    }
    let answer = store.0.cli(["stop", "--timeout", "1"]);
    let said = format!("{}{}", answer.out, answer.err);
    assert!(said.contains("directory and file belong to different users"), "{answer:#?}");
    assert!(!said.contains("4294967295"), "{answer:#?}");
    assert!(!sleeping.has_ended(), "{answer:#?}");
    sleeping.kill();
}

/// Symptom: in a user namespace, where the system's files belong to the user without a number,
/// `root` found none of the programs that it asks.
#[test]
fn the_programs_of_the_system_are_found_in_a_user_namespace() {
    const MAPPED: &[&str] = &["unshare", "-Ur"];
    const AS_NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let words: Vec<&str> = AS_NOBODY.split(' ').chain(MAPPED.iter().copied()).collect();
    if another_user().is_none() || !works(&words) || !Path::new("/usr/bin/ps").exists() {
        return skipped("needs root, user namespaces and ps");
    }
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let mut diagnose = sandbox.within(&words);
    diagnose.arg(binary).args(["forensics", "diagnose", "--log", "log"]);
    Process::start(diagnose).finish(LIMIT).assert_code(0);
    let log = eventually("the end of the diagnostic", LIMIT, || {
        let log = std::fs::read_to_string(sandbox.file("log")).unwrap_or_default();
        log.contains("=== end ===").then_some(log)
    });
    assert!(!log.contains("ps: not found"), "{log}");
}

/// Mounts a filesystem of a server that never answers, opens it, holds the write lock of the store
/// at argv[1], and says so.
const DEAD_MOUNT: &str = r#"
import ctypes, fcntl, os, struct, sys
device = os.open("/dev/fuse", os.O_RDWR)
os.makedirs("dead")
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"dead", b"dead", b"fuse", 0, options) != 0:
    print("cannot", os.strerror(ctypes.get_errno()), flush=True)
    sys.exit()
root = os.open("dead", os.O_PATH)
index = os.open(sys.argv[1] + "-shm", os.O_RDWR)
# F_OFD_SETLK, F_WRLCK: as our writers do, and so the list of locks names nobody.
fcntl.fcntl(index, 37, struct.pack("hhqqi4x", 1, 0, 120, 1, 0))
print("ready", flush=True)
sys.stdin.read()
"#;

/// Symptom: beside a busy writer, and a process with a descriptor on a network filesystem whose
/// server was gone, every verb hung. Cause: who is in the way was looked for by asking for the file
/// behind each descriptor of each process. It holds because what is called otherwise is not asked
/// for.
#[test]
fn a_file_of_a_dead_mount_in_another_process_holds_nobody_up() {
    let mount = ["unshare", "-m", "python3", "dead.py"];
    if !has("python3") || !works(&["unshare", "-m"]) {
        return skipped("needs root, python3 and FUSE");
    }
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    std::fs::write(sandbox.file("dead.py"), DEAD_MOUNT).unwrap();
    let mut dead = sandbox.program(mount[0]);
    dead.args(&mount[1..]).arg(sandbox.db()).stdin(std::process::Stdio::piped());
    let mut dead = Process::start(dead);
    if dead.line() != "ready" {
        return skipped("needs FUSE mounts");
    }
    let own = std::process::id().to_string();
    let refused = sandbox.cli(["marker", "write", "note", "--pid", &own]).assert_code(75);
    refused.assert_complains(&["stayed busy", &format!("pid {}", dead.pid())]);
    dead.kill();
}
