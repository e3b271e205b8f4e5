//! The two processes of a keeper: what is left when one is killed, when both are, and when the
//! store is put back to a time before a grant (FIELD-BUGS rows 94 and 97).

use rustix::process::Signal;

use crate::support::{
    BINARY, LIMIT, Process, Random, Sandbox, eventually, is_root, kill, kill_all, pid_namespace,
    skipped, wait_ended, wait_for_looks,
};

impl Sandbox {
    /// A process that does nothing.
    fn idle(&self) -> (Process, String) {
        let process = Process::start(self.program("cat"));
        let pid = process.pid().to_string();
        (process, pid)
    }

    fn other_namespace(&self, arguments: &[&str]) -> i32 {
        let [program, rest @ ..] = pid_namespace().unwrap() else { unreachable!() };
        let mut command = self.program(program);
        command.args(rest).arg(BINARY).args(arguments);
        Process::start(command).finish(LIMIT).code()
    }
}

/// Symptom: the keeper was killed, and from another pid namespace the place of a living process was
/// given away. It holds because there are two, and the one that is left starts another.
#[test]
fn whichever_keeper_is_killed_the_lock_is_never_free() {
    let sandbox = Sandbox::new();
    let (process, pid) = sandbox.idle();
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    let mut random = Random::seeded();
    for round in 0..12 {
        let [first, second] = sandbox.keeper_pair();
        let killed = if random.chance(2) { first } else { second };
        kill(killed, Signal::KILL);
        sandbox.assert_status(0, "alive", "anchor_held");
        assert!(wait_ended(killed, LIMIT), "round {round}");
        sandbox.assert_status(0, "alive", "anchor_held");
        if pid_namespace().is_some() {
            let code = sandbox.other_namespace(&["run", "--no-backoff", "--", "true"]);
            assert_eq!(code, 75, "round {round}: a second owner");
        }
    }
    process.finish(LIMIT);
    eventually("both go with their process", LIMIT, || {
        (sandbox.keepers().is_empty() && sandbox.second_keepers().is_empty()).then_some(())
    });
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// Both go when the last record is released, whoever of the two came first.
#[test]
fn both_keepers_go_with_the_last_record() {
    let sandbox = Sandbox::new();
    let (mut process, pid) = sandbox.idle();
    for killed in [None, Some(0), Some(1)] {
        sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
        let pair = sandbox.keeper_pair();
        if let Some(which) = killed {
            let victim = pair[which];
            kill(victim, Signal::KILL);
            eventually("another one", LIMIT, || {
                let now = sandbox.keepers_on_record();
                (now != pair && now[1] != 0 && !now.contains(&victim)).then_some(())
            });
        }
        sandbox.cli(["release", "--pid", &pid]).assert_code(0);
        eventually("both are gone", LIMIT, || {
            (sandbox.keepers().is_empty() && sandbox.second_keepers().is_empty()).then_some(())
        });
        assert_eq!(sandbox.anchor_names(), Vec::<String>::new(), "{killed:?}");
    }
    assert!(!process.has_ended());
}

/// The file of the store and its sidecars, as a backup by `cp` has them, and back over the same
/// files.
struct Backup(Vec<(std::path::PathBuf, Vec<u8>)>);

impl Backup {
    fn of(sandbox: &Sandbox) -> Self {
        let file = |suffix: &str| {
            let path = sandbox.file(&format!("store/state.db{suffix}"));
            std::fs::read(&path).ok().map(|bytes| (path, bytes))
        };
        Self(["", "-wal", "-shm"].into_iter().filter_map(file).collect())
    }

    fn restore(&self) {
        for (path, bytes) in &self.0 {
            // As `cp` does: the same inode.
            let file = std::fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
            std::io::Write::write_all(&mut &file, bytes).unwrap();
        }
    }
}

/// FIELD-BUGS row 97. Symptom: a backup was copied over the store a moment after a lock was
/// acquired; the keeper had not seen that lock yet, let go, and the lock was granted again. It
/// holds because the grant stands on the anchor as well: a keeper that finds it nowhere in the
/// store keeps everybody out.
#[test]
fn what_a_restored_copy_does_not_know_is_granted_to_nobody() {
    for had_office in [false, true] {
        let sandbox = Sandbox::new();
        let (owner, pid) = sandbox.idle();
        let (other, other_pid) = sandbox.idle();
        sandbox.cli(["lock", "acquire", "t", "warm", "--pid", &other_pid]).assert_code(0);
        if had_office {
            // Then the row is in the copy, and only the lock is missing.
            sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
        }
        let backup = Backup::of(&sandbox);
        let stopped = sandbox.keepers();
        if had_office {
            // It looks when it goes on, after the copy is in place.
            kill_all(&stopped, Signal::STOP);
        }
        sandbox.cli(["lock", "acquire", "t", "K", "--pid", &pid]).assert_code(0);
        backup.restore();
        kill_all(&stopped, Signal::CONT);
        let acquire = ["lock", "acquire", "t", "K", "--pid", &other_pid];
        // Until its owner has ended.
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(700));
            let answer = sandbox.cli(acquire);
            assert_eq!(answer.code(), 75, "office {had_office}: {answer:#?}");
        }
        owner.finish(LIMIT);
        eventually("its owner has ended", LIMIT, || {
            (sandbox.cli(acquire).code() == 0).then_some(())
        });
        other.finish(LIMIT);
    }
}

/// What the keeper has seen it writes down again: then others see whose it is.
#[test]
fn what_a_keeper_has_seen_is_written_into_a_restored_copy_again() {
    let sandbox = Sandbox::new();
    let (owner, pid) = sandbox.idle();
    let (other, other_pid) = sandbox.idle();
    sandbox.cli(["lock", "acquire", "t", "warm", "--pid", &other_pid]).assert_code(0);
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    let backup = Backup::of(&sandbox);
    sandbox.cli(["lock", "acquire", "t", "K", "--pid", &pid]).assert_code(0);
    wait_for_looks(&sandbox.keepers(), 4);
    backup.restore();
    eventually("the lock is there again", LIMIT, || {
        (sandbox.cli(["lock", "verify", "t", "K", "--pid", &pid]).code() == 0).then_some(())
    });
    sandbox.cli(["lock", "acquire", "t", "K", "--pid", &other_pid]).assert_code(75);
    owner.finish(LIMIT);
    eventually("it is free", LIMIT, || {
        let code = sandbox.cli(["lock", "acquire", "t", "K", "--pid", &other_pid]).code();
        (code == 0).then_some(())
    });
    other.finish(LIMIT);
}

/// Symptom: the first keeper of a process that lived long was killed, and every start in the store
/// was refused while that process lived. Cause: the last grant on its anchor had left no trace in
/// the bounded history, and the one who took over called it lost. Nor is a time that something else
/// has set a grant.
#[test]
fn a_grant_of_long_ago_and_a_time_by_chance_keep_nobody_out() {
    for by_chance in [false, true] {
        let sandbox = Sandbox::new();
        let (process, pid) = sandbox.idle();
        sandbox.cli(["lock", "acquire", "a", "b", "--pid", &pid]).assert_code(0);
        if by_chance {
            let anchor = sandbox.anchors().join(&sandbox.anchor_names()[0]);
            let long_ago = std::time::Duration::new(1_700_000_000, 123_456_777);
            let file = std::fs::File::options().write(true).open(anchor).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH + long_ago).unwrap();
        } else {
            sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
            sandbox.cli(["release", "--pid", &pid]).assert_code(0);
            let many = "for i in $(seq 230); do incumbent run --no-backoff -- true || exit; done";
            Process::start(sandbox.shell(many)).finish(4 * LIMIT).assert_code(0);
            let of_office =
                "SELECT count(*) FROM instances WHERE origin = 'pid' AND kind IS NOT NULL";
            // One grant of eight prunes, by chance.
            eventually("its row is pruned", LIMIT, || {
                sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
                (sandbox.number(of_office) == 0).then_some(())
            });
        }
        let [first, second] = sandbox.keeper_pair();
        kill(first, Signal::KILL);
        eventually("the second one is the first", LIMIT, || {
            (sandbox.keepers_on_record()[0] == second).then_some(())
        });
        // It looks at what has changed.
        for _ in 0..4 {
            sandbox.cli(["--profile", "other", "run", "--no-backoff", "--", "true"]).assert_code(0);
            wait_for_looks(&[second], 2);
        }
        process.finish(LIMIT);
    }
}

/// A cgroup of the test's own, of version 2.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let root = mounts.into_iter().find(|mount| {
            std::path::Path::new(mount).join("cgroup.procs").exists()
                && std::path::Path::new(mount).join("cgroup.controllers").exists()
        })?;
        let path = std::path::Path::new(root).join(format!("it-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn take(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn has(&self, pid: u32) -> bool {
        let pids = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
        pids.lines().any(|line| line == pid.to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let pids = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse().ok()) {
            kill(pid, Signal::KILL);
            wait_ended(pid, LIMIT);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// DESIGN section 5: keepers live where their process does, and a service manager that ends another
/// unit does not meet them.
#[test]
fn keepers_live_in_the_cgroup_of_their_process() {
    let group = if is_root() { Cgroup::new("keepers") } else { None };
    let Some(group) = group else { return skipped("needs root and a cgroup of its own") };
    let sandbox = Sandbox::new();
    let (process, pid) = sandbox.idle();
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    group.take(process.pid());
    let [first, second] = sandbox.keeper_pair();
    eventually("both have moved", LIMIT, || (group.has(first) && group.has(second)).then_some(()));
    // There a request to end is not meant for them alone.
    for keeper in [first, second] {
        kill(keeper, Signal::TERM);
    }
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(sandbox.keepers_on_record(), [first, second]);
    sandbox.assert_status(0, "alive", "anchor_held");
    process.finish(LIMIT);
    eventually("both are gone", LIMIT, || {
        (sandbox.keepers().is_empty() && sandbox.second_keepers().is_empty()).then_some(())
    });
}

/// Where they may not move, TERM of their own manager ends both, and the row says so: rule 6 here,
/// unknown elsewhere.
#[test]
fn keepers_that_may_not_move_end_when_their_manager_says_so() {
    let group = if is_root() { Cgroup::new("apart") } else { None };
    let Some(group) = group.filter(|_| pid_namespace().is_some()) else {
        return skipped("needs root, a pid namespace and a cgroup of its own");
    };
    let sandbox = Sandbox::new();
    let incumbent = sandbox.open_to_nobody();
    let as_nobody = ["setpriv", "--reuid", "65534", "--clear-groups"];
    let mut program = sandbox.program(as_nobody[0]);
    program.args(&as_nobody[1..]).arg("cat");
    let mut process = Process::start(program);
    // By then it is nobody's.
    assert!(process.echoes());
    let pid = process.pid().to_string();
    let mut claim = sandbox.program(as_nobody[0]);
    claim.args(&as_nobody[1..]).arg(incumbent).args(["claim", "--pid", &pid]);
    Process::start(claim).finish(LIMIT).assert_code(0);
    group.take(process.pid());
    let keepers = sandbox.keeper_pair();
    for keeper in &keepers {
        // The one that is asked first takes the other one along.
        let pid = rustix::process::Pid::from_raw(i32::try_from(*keeper).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    for keeper in keepers {
        assert!(wait_ended(keeper, LIMIT), "keeper {keeper}");
    }
    let (code, status) = sandbox.status();
    assert_eq!((code, &status["reason"]), (0, &"start_time_matches".into()), "{status:#}");
    assert_eq!(status["evidence"]["keeper"], "ended_alone", "{status:#}");
    let elsewhere = |arguments: &[&str]| {
        let mut command = sandbox.program("unshare");
        command.args(["-pf", "--mount-proc", BINARY]).args(arguments);
        Process::start(command).finish(LIMIT).code()
    };
    assert_eq!(elsewhere(&["status"]), 4);
    assert_eq!(elsewhere(&["run", "--no-backoff", "--", "true"]), 75);
    process.finish(LIMIT);
}
