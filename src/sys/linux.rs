//! Linux: pidfds for existence and signals, `/proc` for everything that explains.
//!
//! Command lines are read from `/proc`, not through the crate sysinfo, which takes eight times as
//! long and drops empty arguments.

mod children;
mod files;
mod others;
mod process;

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use rustix::time::{ClockId, clock_gettime};

pub use self::children::{listed_children, listed_descendants};
pub(crate) use self::files::each_name;
pub use self::files::{
    exchange, files_opened_by, filesystem_of, in_root_of, is_mount_point, is_open_for_writing,
    open_again, opened_files, shares_mounts_with,
};
pub(crate) use self::others::other_processes;
pub use self::others::{
    directory_of, environment_of, processes_and_parents, processes_of_session,
    processes_with_environment, program_name, session_of, supervision, table_shows,
};
pub use self::process::{
    ProcessHandle, command_line, is_forked_copy, is_kernel_thread, process_facts,
    process_table_is_ours,
};
pub use super::capture::capture;
pub use super::modes::{
    facts_in, open_directory, open_in, owners_of_links, path_of_open, pin_directory, set_mode,
    set_mode_in,
};
pub use super::open_files::{
    listed_lock, processes_with_files_of, processes_with_open_file, record_lock_holder,
    record_lock_holders,
};
pub use super::own_group::is_private_group;
use super::procfs;
pub(crate) use super::unix::directory_state;
use super::unix::own_pid;
pub use super::unix::{
    await_command_lock, command_lock, create_anchor_file, create_private_dirs, effective_uid,
    file_facts, file_key, foreign_unlock, free_space, give_to_owner_of_directory,
    is_mounted_read_only, link_beside, linked_file_key, lock_self_test, may_read, may_write,
    open_anchor_file, open_file_facts, open_file_key, open_foreign_lock_file, read_at,
    rename_beside, try_foreign_lock,
};
pub use super::unix::{hold_command_lock, open_command_lock, owner_follows, say_that_we_follow};
use super::{Looks, note};

/// Reads a whole file of `/proc`; these files have no size to ask for.
pub(super) fn read_proc(path: &str) -> Option<Vec<u8>> {
    // A status is about 1,500 bytes.
    let mut bytes = Vec::with_capacity(4096);
    File::open(path).map_err(note).ok()?.read_to_end(&mut bytes).map_err(note).ok()?;
    Some(bytes)
}

fn read_link(path: &str) -> Option<String> {
    let target = std::fs::read_link(path).map_err(note).ok()?;
    target.to_str().map(str::to_owned)
}

/// By how much our time namespace (`time_namespaces(7)`, Linux 5.6) shifts `CLOCK_BOOTTIME` and the
/// start times in `/proc`. `None` when it cannot be known.
///
/// Kept per pid: the namespace of a process changes only through setns(2) with a single thread. Two
/// plain atomics and no lock, because a child forked at the wrong moment would wait for the lock
/// forever; every thread of one process stores the same value.
fn boottime_offset_ns() -> Option<i64> {
    static READ_FOR: AtomicU32 = AtomicU32::new(0);
    static OFFSET_NS: AtomicI64 = AtomicI64::new(UNKNOWN);
    const UNKNOWN: i64 = i64::MIN;

    let pid = own_pid();
    let offset = if READ_FOR.load(Ordering::Acquire) == pid {
        OFFSET_NS.load(Ordering::Relaxed)
    } else {
        let looks = Looks::begin();
        let offset = read_boottime_offset_ns().unwrap_or(UNKNOWN);
        // It is known with the next look.
        if looks.shortage().is_some() {
            return None;
        }
        OFFSET_NS.store(offset, Ordering::Relaxed);
        READ_FOR.store(pid, Ordering::Release);
        offset
    };
    (offset != UNKNOWN).then_some(offset)
}

/// `/proc/self/timens_offsets` shows the namespace that our *children* will live in. Where that is
/// not ours (between unshare(2) and fork(2)), ours cannot be read anywhere.
fn read_boottime_offset_ns() -> Option<i64> {
    let bytes = match std::fs::read("/proc/self/timens_offsets") {
        Ok(bytes) => bytes,
        // A kernel without time namespaces.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(0),
        Err(error) => {
            note(error);
            return None;
        }
    };
    let ours = read_link("/proc/self/ns/time")?;
    if ours != read_link("/proc/self/ns/time_for_children")? {
        return None;
    }
    procfs::parse_boottime_offset_ns(&bytes)
}

/// `CLOCK_BOOTTIME` (`clock_gettime(2)`, Linux 2.6.39). With an offset that cannot be known the
/// clock is right only within this time namespace.
pub fn boot_clock_ms() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    let now_ns = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    let since_boot_ns = now_ns - i128::from(boottime_offset_ns().unwrap_or(0));
    i64::try_from(since_boot_ns / 1_000_000).unwrap_or(i64::MAX)
}

/// `CLOCK_BOOTTIME` less `CLOCK_MONOTONIC`, which stands still in suspend. A time namespace shifts
/// each by an offset of its own; where those cannot be known, as if there were none.
pub fn asleep_ms() -> i64 {
    let now_ns = |clock| {
        let now = clock_gettime(clock);
        i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
    };
    let awake_ns = now_ns(ClockId::Monotonic);
    let shift_ns = boottime_offset_ns().zip(monotonic_offset_ns());
    let shift_ns = shift_ns.map_or(0, |(boot, monotonic)| i128::from(boot) - i128::from(monotonic));
    let asleep_ns = now_ns(ClockId::Boottime) - awake_ns - shift_ns;
    i64::try_from(asleep_ns / 1_000_000).unwrap_or(0).max(0)
}

/// By how much our time namespace shifts `CLOCK_MONOTONIC`. It is that of our children's as well
/// where [`boottime_offset_ns`] is known. Asked only for heartbeats, so read each time.
fn monotonic_offset_ns() -> Option<i64> {
    match std::fs::read("/proc/self/timens_offsets") {
        Ok(bytes) => procfs::parse_monotonic_offset_ns(&bytes),
        // A kernel without time namespaces.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
        Err(_) => None,
    }
}

/// machine-id(5): 32 hexadecimal digits. D-Bus' copy is older than systemd's and the same where
/// both exist.
pub fn host_id() -> Option<String> {
    ["/etc/machine-id", "/var/lib/dbus/machine-id"].iter().find_map(|path| {
        let text = std::fs::read_to_string(path).map_err(note).ok()?;
        let id = text.trim().to_ascii_lowercase();
        // "uninitialized" stands there during the first boot, all zeros in some images.
        let is_id = id.len() == 32
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())
            && id.bytes().any(|byte| byte != b'0');
        is_id.then_some(id)
    })
}

/// random(4): drawn once per boot. Missing where `/proc/sys` is (`subset=pid`, Linux 5.8).
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(note).ok()?;
    let id = text.trim();
    (id.len() == 36).then(|| id.to_owned())
}

/// The inode of the link `pid:[4026531836]` (namespaces(7)). The link is about us whichever
/// namespace the `/proc` mount belongs to.
pub fn pid_namespace() -> Option<String> {
    let link = read_link("/proc/self/ns/pid")?;
    let inode = link.strip_prefix("pid:[")?.strip_suffix(']')?;
    Some(inode.to_owned())
}

/// `user_namespaces(7)`: the first namespace maps all numbers to themselves.
pub fn unmapped_uid() -> Option<u32> {
    let map = read_proc("/proc/self/uid_map")?;
    let map = String::from_utf8(map).ok()?;
    if map.split_whitespace().eq(["0", "0", "4294967295"]) {
        return None;
    }
    String::from_utf8(read_proc("/proc/sys/kernel/overflowuid")?).ok()?.trim().parse().ok()
}

/// XDG base directory specification, 0.8.
pub const STATE_DIRECTORY: (&str, Option<&str>) = ("XDG_STATE_HOME", Some(".local/state"));

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::files::*;
    use super::process::*;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::process::Signal;

    use super::super::unix::kernel_pid;
    use super::super::{
        Existence, FilesystemClass, OpenProcessError, Pid, ProcessFacts, ProcessState, StartTime,
        StartTimeUnit,
    };
    use super::*;
    use crate::sys;

    /// A child that is killed and reaped when the test ends, however it ends.
    struct Guard(Child);

    impl Guard {
        fn spawn(command: &mut Command) -> Self {
            Self(command.stdin(Stdio::null()).spawn().unwrap())
        }

        fn sleep() -> Self {
            Self::spawn(Command::new("sleep").arg("60"))
        }

        fn pid(&self) -> Pid {
            self.0.id()
        }

        fn signal(&self, signal: Signal) {
            rustix::process::kill_process(kernel_pid(self.pid()).unwrap(), signal).unwrap();
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Waits for what another process does, at most 10 s.
    fn eventually(what: &str, mut check: impl FnMut() -> bool) {
        for _ in 0..5000 {
            if check() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("did not happen: {what}");
    }

    /// Both ways to ask must agree on everything but the parent's source.
    fn facts_both_ways(pid: Pid) -> ProcessFacts {
        let pinned = process_facts(pid);
        assert_eq!(ProcessFacts { number: None, ..pinned }, facts_by_number(pid));
        pinned
    }

    #[test]
    fn this_process() {
        let facts = facts_both_ways(own_pid());
        assert_eq!(facts.number, process_facts(own_pid()).number);
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.state, ProcessState::Running);
        assert_eq!(facts.uid, Some(rustix::process::getuid().as_raw()));
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(facts.parent, parent.map(i32::unsigned_abs));
        let start_time = facts.start_time.unwrap();
        assert_eq!(start_time.unit, StartTimeUnit::Ticks);
        let now_ticks = boot_clock_ms() / 10;
        assert!(start_time.value <= now_ticks && start_time.value > now_ticks - 360_000);
    }

    #[test]
    fn pid_1_is_present() {
        let facts = facts_both_ways(1);
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.parent, None);
    }

    #[test]
    fn numbers_that_no_process_can_have_are_gone() {
        for pid in [0, i32::MAX as u32 + 1, u32::MAX] {
            assert_eq!(facts_both_ways(pid).existence, Existence::Gone);
            let opened = ProcessHandle::open(pid);
            assert!(matches!(opened, Err(OpenProcessError::Gone)));
        }
    }

    /// FIELD-BUGS 19: a takeover waited forever on a zombie.
    #[test]
    fn a_zombie_is_gone_and_still_has_its_start_time() {
        let child = Guard::spawn(Command::new("sh").args(["-c", "exit 0"]));
        let handle = ProcessHandle::open(child.pid()).unwrap();
        assert!(handle.wait_ended(Duration::from_secs(10)));
        let facts = facts_both_ways(child.pid());
        assert_eq!(facts.existence, Existence::Gone);
        assert_eq!(facts.state, ProcessState::Zombie);
        assert!(facts.start_time.is_some());
        assert_eq!(facts.parent, Some(own_pid()));
        assert_eq!(sys::command_line(child.pid()), None);
        let pid = child.pid();
        drop(child);
        assert_eq!(process_facts(pid).existence, Existence::Gone);
        assert!(matches!(ProcessHandle::open(pid), Err(OpenProcessError::Gone)));
    }

    #[test]
    fn a_stopped_process_is_present() {
        let child = Guard::sleep();
        child.signal(Signal::STOP);
        eventually("the child stops", || process_facts(child.pid()).state == ProcessState::Stopped);
        let facts = facts_both_ways(child.pid());
        assert_eq!(facts.existence, Existence::Present);
        assert!(!ProcessHandle::open(child.pid()).unwrap().wait_ended(Duration::ZERO));
    }

    /// The letter Z alone is not death: `pthread_exit` in the first thread leaves it while the
    /// others run on.
    #[test]
    fn a_process_whose_first_thread_ended_is_present() {
        let script = "import ctypes, threading, time\n\
            threading.Thread(target=time.sleep, args=(60,)).start()\n\
            ctypes.CDLL(None).pthread_exit(None)\n";
        let mut command = Command::new("python3");
        command.args(["-c", script]).stderr(Stdio::null());
        if Command::new("python3").arg("--version").output().is_err() {
            eprintln!("SKIPPED: a_process_whose_first_thread_ended_is_present needs python3");
            return;
        }
        let child = Guard::spawn(&mut command);
        eventually("the first thread ends", || {
            process_facts(child.pid()).state == ProcessState::Zombie
        });
        let facts = facts_both_ways(child.pid());
        assert_eq!(facts.existence, Existence::Present);
        let handle = ProcessHandle::open(child.pid()).unwrap();
        assert!(!handle.wait_ended(Duration::ZERO));
        assert_eq!(handle.start_time(), facts.start_time);
        handle.kill().unwrap();
        assert!(handle.wait_ended(Duration::from_secs(10)));
        assert_eq!(facts_both_ways(child.pid()).existence, Existence::Gone);
    }

    #[test]
    fn a_thread_is_no_process() {
        let (send, receive) = std::sync::mpsc::channel();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            send.send(rustix::thread::gettid()).unwrap();
            wait.recv().unwrap();
        });
        let thread_id = receive.recv().unwrap().as_raw_nonzero().get().unsigned_abs();
        assert_ne!(thread_id, own_pid());
        assert_eq!(process_facts(thread_id).existence, Existence::Gone);
        assert_eq!(facts_by_number(thread_id).existence, Existence::Gone);
        release.send(()).unwrap();
        thread.join().unwrap();
    }

    /// FIELD-BUGS 12, with a real process.
    #[test]
    fn a_process_named_like_the_fields() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("a) S 1 1");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let child = Guard::spawn(Command::new(&program).arg("60"));
        let facts = facts_both_ways(child.pid());
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.parent, Some(own_pid()));
        assert!(facts.start_time.unwrap().value > 1);
    }

    /// FIELD-BUGS 11: EPERM says that there is a process.
    #[test]
    fn a_process_of_another_user() {
        if !rustix::process::getuid().is_root() {
            eprintln!("SKIPPED: a_process_of_another_user needs root");
            return;
        }
        let child = Guard::spawn(Command::new("sleep").arg("60").uid(65534).gid(65534));
        let facts = facts_both_ways(child.pid());
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.uid, Some(65534));
        assert!(facts.start_time.is_some());
    }

    #[test]
    fn an_end_wakes_the_waiter_and_long_waits_do_not_overflow() {
        let child = Guard::sleep();
        let handle = ProcessHandle::open(child.pid()).unwrap();
        assert_eq!(handle.start_time(), process_facts(child.pid()).start_time);
        assert!(!handle.wait_ended(Duration::from_millis(1)));
        let waiter = std::thread::spawn(move || (handle.wait_ended(Duration::MAX), handle));
        child.signal(Signal::TERM);
        let (ended, handle) = waiter.join().unwrap();
        assert!(ended);
        assert_eq!(handle.start_time(), None);
        // A zombie takes signals, and a reaped process has none.
        drop(child);
        let error = handle.kill().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_number_with_its_start_time_stands_in_for_a_pidfd() {
        let child = Guard::sleep();
        let handle = ProcessHandle::open_by_number(child.pid(), Errno::NOSYS).unwrap();
        assert!(!handle.wait_ended(Duration::from_millis(1)));
        handle.kill().unwrap();
        assert!(handle.wait_ended(Duration::from_secs(10)));
        let error = handle.kill().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        let later = StartTime { value: 1, unit: StartTimeUnit::Ticks };
        let another = ProcessHandle::Number { pid: own_pid(), start_time: later };
        assert!(another.wait_ended(Duration::ZERO));
        assert_eq!(another.kill().unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    /// Invalid UTF-8 is replaced, blanks stay inside an argument.
    #[test]
    fn the_command_line_of_one_process() {
        use std::ffi::OsStr;
        let mut command = Command::new("sh");
        command.args(["-c", "read x", "my gateway", "run"]);
        command.arg(OsStr::from_bytes(b"6\xff0"));
        // Held open until the end of the test, so that the shell stays in `read`.
        let child = Guard(command.stdin(Stdio::piped()).spawn().unwrap());
        // The parent goes on while the kernel still lays out the new program's arguments.
        eventually("the arguments are there", || sys::command_line(child.pid()).is_some());
        assert_eq!(
            sys::command_line(child.pid()).unwrap(),
            ["sh", "-c", "read x", "my gateway", "run", "6\u{fffd}0"]
        );
    }

    #[test]
    fn ids() {
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(process_table_is_ours());
        assert!(pid_namespace().unwrap().bytes().all(|byte| byte.is_ascii_digit()));
        if host_id().is_none() {
            eprintln!("SKIPPED: no machine-id here");
        }
    }

    #[test]
    fn filesystem_classes() {
        use FilesystemClass::{Local, Remote, UserSpace};
        for (kind, class) in [
            ("ext4", Local),
            ("tmpfs", Local),
            ("overlay", Local),
            ("zfs", Local),
            ("fuseish", Local),
            ("nfs4", Remote),
            ("9p", Remote),
            ("virtiofs", Remote),
            ("ceph", Remote),
            ("fuse.sshfs", Remote),
            ("fuse.davfs2", Remote),
            ("fuse", UserSpace),
            ("fuseblk", UserSpace),
            ("fuseblk.ntfs", UserSpace),
            ("fuse.mergerfs", UserSpace),
        ] {
            assert_eq!(classify(kind), class, "{kind}");
        }
        let proc = filesystem_of(Path::new("/proc")).unwrap();
        assert_eq!((proc.kind.as_str(), proc.class), ("proc", Local));
    }

    /// What the helper below is asked to look at.
    const LOOK_AT: &str = "INCUMBENT_TEST_LOOK_AT";

    /// No test by itself: runs in the namespaces that the tests below make, and prints what is seen
    /// of one pid from there.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "how a test speaks to its own helper")]
    fn look_from_there() {
        if let Ok(pid) = std::env::var(LOOK_AT) {
            let facts = process_facts(pid.parse().unwrap());
            let clock_s = boot_clock_ms() / 1000;
            let ours = process_table_is_ours();
            println!("\nSEEN {facts:?} clock {clock_s} ours {ours}");
        }
    }

    /// Runs the helper behind `prefix`, a shell command line that ends by executing `"$@"`.
    fn look_from(prefix: &str, pid: Pid) -> Option<String> {
        if !rustix::process::getuid().is_root() {
            eprintln!("SKIPPED: namespaces need root: {prefix}");
            return None;
        }
        let helper = concat!(module_path!(), "::look_from_there");
        let helper = helper.split_once("::").unwrap().1;
        // The nobody of some namespaces cannot enter the directory of the real executable.
        let directory = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let program = directory.path().join("test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let output = Command::new("sh")
            .args(["-c", prefix, "sh"])
            .arg(&program)
            .args(["--exact", "--nocapture", helper])
            .env(LOOK_AT, pid.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let seen = text.lines().find_map(|line| line.strip_prefix("SEEN "));
        if seen.is_none() {
            let errors = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIPPED: {prefix}: {text}{errors}");
        }
        seen.map(str::to_owned)
    }

    /// FIELD-BUGS 13: ticks differ across time namespaces, unless the offset is taken off.
    #[test]
    fn a_time_namespace_changes_neither_start_time_nor_clock() {
        let child = Guard::sleep();
        let start_time = process_facts(child.pid()).start_time;
        for offset in ["86400", "-5"] {
            let prefix = format!("exec unshare --fork --time --boottime {offset} \"$@\"");
            let Some(seen) = look_from(&prefix, child.pid()) else {
                return;
            };
            assert!(seen.contains(&format!("start_time: {start_time:?}")), "{seen}");
            let now_s = boot_clock_ms() / 1000;
            let near = (now_s - 30..=now_s).any(|s| seen.contains(&format!("clock {s} ")));
            assert!(near, "{now_s}: {seen}");
        }
    }

    /// FIELD-BUGS 25: another namespace's `/proc` tells of other processes with our numbers.
    #[test]
    fn a_foreign_process_table_is_not_read() {
        let Some(seen) = look_from("exec unshare --fork --pid \"$@\"", 1) else {
            return;
        };
        assert!(seen.contains("existence: Present, start_time: None, state: Unknown"), "{seen}");
        assert!(seen.ends_with("ours false"), "{seen}");
        let own_mount = "exec unshare --fork --pid --mount-proc \"$@\"";
        let seen = look_from(own_mount, 1).unwrap();
        assert!(seen.contains("start_time: Some"), "{seen}");
        assert!(seen.ends_with("ours true"), "{seen}");
    }

    /// FIELD-BUGS 31: absence from `/proc` is not death.
    #[test]
    fn a_process_hidden_by_hidepid_is_present() {
        let prefix = "exec unshare --fork --pid --mount sh -c '\
            mount -t proc -o hidepid=2 proc /proc &&\
            setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"; true' sh \"$@\"";
        let Some(seen) = look_from(prefix, 1) else {
            return;
        };
        assert!(seen.contains("existence: Present, start_time: None"), "{seen}");
        assert!(seen.ends_with("ours true"), "{seen}");
    }
}
