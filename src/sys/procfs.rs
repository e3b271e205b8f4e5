//! Pure parsers of what Linux shows in `/proc`: bytes in, values out, no I/O.
//!
//! A line that is not as the manual page says is "could not be read" (`None`), never a guess: a
//! wrong start time would evict a living owner. Nothing here assumes UTF-8, because a process
//! chooses its own name and a user chooses mount points.

mod cgroup;
mod locks;
mod mounts;
mod stat;

pub use self::cgroup::{
    cgroup_path_of, container_of_cgroup, systemd_service, systemd_unit, telling_cgroup,
};
pub use self::locks::{
    Flock, access_mode, flock_holder, holds_open_file_lock, record_lock_holder, record_lock_holders,
};
pub use self::mounts::{container_of_mounts, filesystem_of_mount, filesystem_of_path, hidepid};
pub use self::stat::{
    Stat, offset_ticks, parse_boottime_offset_ns, parse_monotonic_offset_ns, parse_stat,
    parse_usage,
};

/// What the crate uses of `/proc/<pid>/status` (`proc_pid_status(5)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `Tgid`: the process that the task belongs to; differs from the pid asked for when that
    /// number names a thread.
    pub thread_group: Option<u32>,
    /// `Uid`, first value: the real user id.
    pub real_uid: Option<u32>,
    /// `Uid`, third value: the saved set-user-id.
    pub saved_uid: Option<u32>,
    /// `NSpid` (Linux 4.1): in how many pid namespaces, from that of the `/proc` mount inwards, the
    /// process has a pid. 1 means that the mount belongs to the process' own namespace.
    pub namespace_depth: Option<usize>,
}

/// Parses one `/proc/<pid>/status`. The line `Name` escapes newlines, so no name can forge a line.
pub fn parse_status(bytes: &[u8]) -> Status {
    let mut status = Status::default();
    for line in bytes.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let mut values = words(&line[colon + 1..]);
        match &line[..colon] {
            b"Tgid" => status.thread_group = values.next().and_then(parse_pid),
            b"Uid" => {
                status.real_uid = values.next().and_then(parse_number);
                status.saved_uid = values.nth(1).and_then(parse_number);
            }
            b"NSpid" => status.namespace_depth = Some(values.count()),
            _ => {}
        }
    }
    status
}

/// Which signals a process blocks, ignores and catches, as `/proc/<pid>/status` says it
/// (`proc_pid_status(5)`): a bit for each, the lowest for signal 1. What it blocks is that of its
/// first thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dispositions {
    pub blocked: u64,
    pub ignored: u64,
    pub caught: u64,
}

impl Dispositions {
    /// Whether the kernel does with this signal what it does where nobody has said anything. What
    /// is blocked may be taken by signalfd(2) or sigwait(3).
    pub fn leave_to_kernel(self, signal: u32) -> bool {
        let bit = signal.checked_sub(1).and_then(|place| 1_u64.checked_shl(place)).unwrap_or(0);
        bit != 0 && (self.blocked | self.ignored | self.caught) & bit == 0
    }
}

/// Parses them; `None` where one of the three lines is missing.
pub fn parse_dispositions(bytes: &[u8]) -> Option<Dispositions> {
    let mask = |name: &[u8]| {
        let line = bytes.split(|&byte| byte == b'\n').find(|line| line.starts_with(name))?;
        let value = std::str::from_utf8(line[name.len()..].trim_ascii()).ok()?;
        u64::from_str_radix(value, 16).ok()
    };
    Some(Dispositions {
        blocked: mask(b"SigBlk:")?,
        ignored: mask(b"SigIgn:")?,
        caught: mask(b"SigCgt:")?,
    })
}

/// What people want to know of `/proc/<pid>/status`.
pub fn parse_details(bytes: &[u8]) -> super::Details {
    let mut details = super::Details::default();
    for line in bytes.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let value = line[colon + 1..].trim_ascii();
        let first = || words(value).next();
        let bytes = || first().and_then(parse_number::<u64>).map(|kib| kib.saturating_mul(1024));
        match &line[..colon] {
            b"Name" => details.name = Some(lossy(value)),
            b"State" => details.state = Some(lossy(value)),
            b"PPid" => details.parent = first().and_then(parse_pid_or_zero),
            b"Uid" => details.uid = first().and_then(parse_number),
            b"TracerPid" => details.tracer = first().and_then(parse_pid_or_zero),
            b"VmRSS" => details.rss_bytes = bytes(),
            b"VmHWM" => details.peak_rss_bytes = bytes(),
            b"VmSwap" => details.swap_bytes = bytes(),
            _ => {}
        }
    }
    details
}

/// The time of a record of `/dev/kmsg`, in microseconds on the log's clock.
pub fn logged_at_us(record: &[u8]) -> Option<u64> {
    let separator = record.iter().position(|&byte| byte == b';')?;
    parse_number(record[..separator].split(|&byte| byte == b',').nth(2)?)
}

/// The arguments of `/proc/<pid>/cmdline` (`proc_pid_cmdline(5)`); `None` for a process that has
/// none.
pub fn parse_arguments(bytes: &[u8]) -> Option<Vec<String>> {
    let arguments = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    (!arguments.is_empty()).then(|| arguments.split(|&byte| byte == 0).map(lossy).collect())
}

/// What a record of `/dev/kmsg` (its documentation: Documentation/ABI/testing/dev-kmsg) says of the
/// killing of `pid` for want of memory, not before `since_us` on the log's clock. The kernel's
/// words are those of `oom_kill.c`: "Out of memory: Killed process 4242 (gateway) total-vm:...",
/// before Linux 5.0 "Kill process ... or sacrifice child" came first.
pub fn kill_for_memory(record: &[u8], pid: u32, since_us: u64) -> Option<String> {
    let separator = record.iter().position(|&byte| byte == b';')?;
    if logged_at_us(record)? < since_us {
        return None;
    }
    let text = lossy(&record[separator + 1..]);
    let rest = text.split_once("Killed process ")?.1;
    let named = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    (named.parse() == Ok(pid)).then_some(text)
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn parse_number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    // `FromStr` takes a plus sign that the kernel never writes.
    if digits.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn parse_hex(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A pid is a positive `pid_t`, an `int`.
fn parse_pid(digits: &[u8]) -> Option<u32> {
    parse_pid_or_zero(digits).filter(|&pid| pid != 0)
}

fn parse_pid_or_zero(digits: &[u8]) -> Option<u32> {
    let pid: i32 = parse_number(digits)?;
    u32::try_from(pid).ok()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::cgroup::*;
    use super::locks::*;
    use super::mounts::*;
    use super::stat::*;
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            &include_bytes!(concat!("../../tests/fixtures/proc/", $name))[..]
        };
    }

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    const SLEEPING: Stat = Stat {
        pid: 4242,
        state: b'S',
        parent: 1,
        is_kernel_thread: false,
        is_forked_copy: false,
        start_time_ticks: 987_654,
    };

    /// FIELD-BUGS 12: a live owner was judged dead because its name had blanks or a parenthesis and
    /// the line was split on white space.
    #[test]
    fn stat_is_read_after_the_last_parenthesis() {
        let expected = Some(SLEEPING);
        assert_eq!(parse_stat(fixture!("stat-plain")), expected);
        assert_eq!(parse_stat(fixture!("stat-name-of-fields")), expected);
        assert_eq!(parse_stat(fixture!("stat-name-with-spaces")), expected);
        assert_eq!(parse_stat(fixture!("stat-name-with-newline")), expected);
        assert_eq!(parse_stat(fixture!("stat-name-not-utf8")), expected);
        assert_eq!(parse_stat(fixture!("stat-name-empty")), expected);
        assert_eq!(
            parse_stat(fixture!("stat-parent-outside")),
            Some(Stat { parent: 0, ..SLEEPING })
        );
    }

    #[test]
    fn flags_of_a_stat() {
        let with = |flags: u64| {
            let line = format!("7 (sh) S 1 7 7 0 -1 {flags} {} 9 0", "0 ".repeat(12).trim_end());
            parse_stat(line.as_bytes()).map(|stat| (stat.is_kernel_thread, stat.is_forked_copy))
        };
        assert_eq!(with(0x40_0000), Some((false, false)));
        assert_eq!(with(0x40_0040), Some((false, true)));
        assert_eq!(with(0x20_8040), Some((true, true)));
    }

    #[test]
    fn a_malformed_stat_is_unknown() {
        for malformed in [
            fixture!("stat-empty"),
            fixture!("stat-truncated-in-name"),
            fixture!("stat-truncated-in-start-time"),
            fixture!("stat-negative-start-time"),
            fixture!("stat-wrapped-start-time"),
            fixture!("stat-overflowing-start-time"),
            fixture!("stat-negative-parent"),
            fixture!("stat-negative-pid"),
            b")(",
            b"1 ()",
            b"1 () ",
        ] {
            let shown = String::from_utf8_lossy(malformed);
            assert_eq!(parse_stat(malformed), None, "{shown}");
        }
    }

    /// No prefix of a line may give another start time than the whole line.
    #[test]
    fn a_truncated_stat_is_the_same_or_unknown() {
        for whole in [
            fixture!("stat-plain"),
            fixture!("stat-name-of-fields"),
            fixture!("stat-name-with-newline"),
        ] {
            let expected = parse_stat(whole);
            for length in 0..whole.len() {
                let found = parse_stat(&whole[..length]);
                assert!(found.is_none() || found == expected, "{length}");
            }
        }
    }

    #[test]
    fn status_gives_real_uid_thread_group_and_depth() {
        let expected = Status {
            thread_group: Some(4242),
            real_uid: Some(1000),
            saved_uid: Some(1002),
            namespace_depth: Some(1),
        };
        assert_eq!(parse_status(fixture!("status")), expected);
        let inner = parse_status(fixture!("status-inner-namespace"));
        assert_eq!(inner.namespace_depth, Some(3));
        assert_eq!(parse_status(b"Uid:\t-1\nTgid:\t0\nNSpid"), Status::default());
    }

    #[test]
    fn what_a_process_does_about_signals() {
        let found = parse_dispositions(
            b"SigPnd:\t0\nSigBlk:\t0000000000000200\nSigIgn:\t0000000000001000\n\
              SigCgt:\t0000000000000001\n",
        )
        .unwrap();
        let left = (1..=64).filter(|signal| !found.leave_to_kernel(*signal));
        assert_eq!(left.collect::<Vec<_>>(), [1, 10, 13]);
        assert!(!found.leave_to_kernel(0) && !found.leave_to_kernel(65));
        assert_eq!(parse_dispositions(b"SigBlk:\t0\nSigIgn:\t0\nSigCgt:\tx\n"), None);
        assert_eq!(parse_dispositions(b"SigBlk:\t0\nSigCgt:\t0\n"), None);
    }

    #[test]
    fn time_namespace_offsets() {
        let offset = parse_boottime_offset_ns;
        assert_eq!(offset(fixture!("timens_offsets-none")), Some(0));
        assert_eq!(offset(fixture!("timens_offsets")), Some(86_400_500_000_000));
        // Ten seconds back, a quarter of one forward.
        assert_eq!(offset(fixture!("timens_offsets-back")), Some(-9_750_000_000));
        for malformed in [
            &b""[..],
            b"monotonic 0 0\n",
            b"boottime 1\n",
            b"boottime 1 1000000000\n",
            b"boottime 1 -1\n",
            b"boottime 1 0 0\n",
            b"boottime 99999999999999 0\n",
        ] {
            assert_eq!(offset(malformed), None);
        }
        let monotonic = parse_monotonic_offset_ns;
        assert_eq!(monotonic(b"monotonic 3 5\nboottime 1 0\n"), Some(3_000_000_005));
        assert_eq!(monotonic(b"boottime 1 0\n"), None);
    }

    #[test]
    fn only_whole_ticks_can_be_taken_off() {
        assert_eq!(offset_ticks(0, 100), Some(0));
        assert_eq!(offset_ticks(86_400_500_000_000, 100), Some(8_640_050));
        assert_eq!(offset_ticks(-9_750_000_000, 100), Some(-975));
        assert_eq!(offset_ticks(10_000_001, 100), None);
        assert_eq!(offset_ticks(5_000_000, 100), None);
        // Alpha's rate does not divide a second into whole nanoseconds.
        assert_eq!(offset_ticks(0, 1024), None);
        assert_eq!(offset_ticks(0, 0), None);
        assert_eq!(offset_ticks(0, -100), None);
    }

    fn kind_at(path: &str) -> Option<String> {
        filesystem_of_path(fixture!("mountinfo"), path.as_bytes())
    }

    #[test]
    fn the_longest_mount_point_and_of_equal_ones_the_later_wins() {
        let check = |path: &str, kind: &str| {
            assert_eq!(kind_at(path).as_deref(), Some(kind), "{path}");
        };
        check("/", "ext4");
        check("/home/me", "ext4");
        check("/mnt/nfs", "nfs4");
        check("/mnt/nfs/a/b", "nfs4");
        check("/mnt/nfs-not", "ext4");
        check("/mnt/nfs/local/x", "xfs");
        check("/mnt/two/x", "fuse.sshfs");
        check("/mnt/with blank\ttab\nline\\back/x", "btrfs");
        check("/mnt/\u{fc}/x", "tmpfs");
        check("/mnt/odd\\04", "ramfs");
        check("/mnt/no-kind", "ext4");
        assert_eq!(filesystem_of_path(b"", b"/"), None);
    }

    #[test]
    fn a_mount_is_found_by_its_id() {
        let by_id = |id| filesystem_of_mount(fixture!("mountinfo"), id);
        assert_eq!(by_id(42).as_deref(), Some("ext4"));
        assert_eq!(by_id(43).as_deref(), Some("fuse.sshfs"));
        assert_eq!(by_id(47), None);
        assert_eq!(by_id(99), None);
    }

    #[test]
    fn the_hostname_mount_gives_the_container_away() {
        let id = Some(ID.to_owned());
        assert_eq!(container_of_mounts(fixture!("mountinfo-docker")), id);
        assert_eq!(container_of_mounts(fixture!("mountinfo-podman")), id);
        assert_eq!(container_of_mounts(fixture!("mountinfo")), None);
    }

    /// As of a writer to our `-shm`, and of its readers.
    #[test]
    fn locks_of_an_open_file() {
        let fdinfo =
            |lock: &str| format!("pos:\t0\nflags:\t02500002\nmnt_id:\t29\nino:\t6002\n{lock}");
        let writer = fdinfo("lock:\t1: OFDLCK ADVISORY  WRITE -1 fe:00:6002 120 120\n");
        assert_eq!(access_mode(writer.as_bytes()), Some(2));
        assert_eq!(access_mode(b"pos:\t0\n"), None);
        assert!(holds_open_file_lock(writer.as_bytes(), 6002, 120));
        assert!(!holds_open_file_lock(writer.as_bytes(), 6002, 121));
        assert!(!holds_open_file_lock(writer.as_bytes(), 6003, 120), "of another file");
        let whole = fdinfo("lock:\t1: OFDLCK  ADVISORY  WRITE -1 fe:00:6002 0 EOF\n");
        assert!(holds_open_file_lock(whole.as_bytes(), 6002, 120));
        for other in [
            "lock:\t1: OFDLCK  ADVISORY  READ -1 fe:00:6002 120 120\n",
            "lock:\t1: POSIX  ADVISORY  WRITE 1001 fe:00:6002 120 120\n",
            "lock:\t1: FLOCK  ADVISORY  WRITE 1001 fe:00:6002 0 EOF\n",
            "lock:\t1: OFDLCK\n",
            "",
        ] {
            assert!(!holds_open_file_lock(fdinfo(other).as_bytes(), 6002, 120), "{other:?}");
        }
    }

    #[test]
    fn record_locks() {
        let holder =
            |device, inode, offset| record_lock_holder(fixture!("locks"), device, inode, offset);
        assert_eq!(holder((0xfe, 0), 5678, 1_073_741_945), Some(1001));
        // Neither the reader nor the waiter.
        assert_eq!(holder((0xfe, 0), 6000, 120), Some(1003));
        assert_eq!(holder((0xfe, 0), 6000, 121), None);
        let holders =
            |inode, offset| record_lock_holders(fixture!("locks"), (0xfe, 0), inode, offset);
        assert!(holders(6000, 120).contains(&1003));
        assert!(holders(6002, 0).is_empty());
        // flock, open file description lock, lease: other kinds.
        for inode in [6001, 6002, 7200] {
            assert_eq!(holder((0xfe, 0), inode, 0), None);
        }
        // Another device, as on btrfs: the inode alone, and both ends of the range.
        assert_eq!(holder((0, 0x63), 7000, 100), Some(1006));
        assert_eq!(holder((0, 0x63), 7000, 109), Some(1006));
        assert_eq!(holder((0, 0x63), 7000, 110), None);
        // The device decides between equal inodes; without it nobody is named.
        assert_eq!(holder((0, 0x2c), 7100, 5), Some(1008));
        assert_eq!(holder((0, 0x63), 7100, 5), None);
        assert_eq!(holder((0x103, 0xf), 7300, 0), Some(1010));
        // A pid of 0 lives in a namespace that the mount does not show.
        assert_eq!(holder((0xfe, 0), 7400, 0), None);
    }

    /// FIELD-BUGS 86: a desktop terminal was taken for supervised.
    #[test]
    fn flocks() {
        let holder = |device, inode| flock_holder(fixture!("locks"), device, inode);
        assert_eq!(holder((0xfe, 0), 6001), Flock::Held(Some(1005)));
        // btrfs and overlayfs show another device than stat does.
        assert_eq!(holder((0, 0x2a), 6001), Flock::Held(Some(1005)));
        // Record locks, shared locks and leases are none.
        for inode in [5678, 6000, 7200, 1] {
            assert_eq!(holder((0xfe, 0), inode), Flock::None, "{inode}");
        }
        let shared = b"1: FLOCK  ADVISORY  READ 7 fe:00:5 0 EOF\n";
        assert_eq!(flock_holder(shared, (0xfe, 0), 5), Flock::None);
        let waiter = b"1: -> FLOCK  ADVISORY  WRITE 7 fe:00:5 0 EOF\n";
        assert_eq!(flock_holder(waiter, (0xfe, 0), 5), Flock::None);
        let of_nobody_here = b"1: FLOCK  ADVISORY  WRITE 0 fe:00:5 0 EOF\n";
        assert_eq!(flock_holder(of_nobody_here, (0xfe, 0), 5), Flock::Held(None));
        let two =
            b"1: FLOCK ADVISORY WRITE 7 fe:00:5 0 EOF\n2: FLOCK ADVISORY WRITE 8 fe:01:5 0 EOF\n";
        assert_eq!(flock_holder(two, (0, 0x2a), 5), Flock::Ambiguous);
        assert_eq!(flock_holder(two, (0xfe, 1), 5), Flock::Held(Some(8)));
    }

    #[test]
    fn only_an_innermost_service_supervises() {
        let check = |cgroup: &str, service: Option<&str>| {
            assert_eq!(systemd_service(cgroup.as_bytes()).as_deref(), service, "{cgroup}");
        };
        let user = "/user.slice/user-1000.slice/user@1000.service";
        check("0::/system.slice/foo.service\n", Some("foo.service"));
        check("0::/system.slice/foo.service/worker/1\n", Some("foo.service"));
        check(&format!("0::{user}/app.slice/foo.service\n"), Some("foo.service"));
        check(&format!("0::{user}/app.slice/app-term.scope\n"), None);
        check(&format!("0::{user}/init.scope\n"), None);
        check(&format!("0::{user}\n"), Some("user@1000.service"));
        check("0::/user.slice/user-1000.slice/session-3.scope\n", None);
        check("0::/init.scope\n", None);
        check("0::/\n", None);
        check("", None);
        // Names stay as systemd writes them, but for the underscore it puts before some.
        check("0::/system.slice/system-gw.slice/gw@a\\x2db.service\n", Some("gw@a\\x2db.service"));
        check("0::/system.slice/_cpu.service\n", Some("cpu.service"));
        check("0::/system.slice/.service\n", None);
        check("0::/system.slice/foo.service (deleted)\n", Some("foo.service"));
        check("0::/../../foo.service\n", Some("foo.service"));
        // v1: systemd's own hierarchy, not that of a controller.
        check(
            "9:name=systemd:/system.slice/a.service\n4:memory:/system.slice/b.service\n",
            Some("a.service"),
        );
        check("4:memory:/system.slice/b.service\n", None);
        check("1:name=systemd:/\n0::/system.slice/c.service\n", Some("c.service"));
    }

    #[test]
    fn units_of_whatever_type_and_the_group_that_says_most() {
        let unit = |cgroup: &str| systemd_unit(cgroup.as_bytes());
        assert_eq!(unit("0::/system.slice/foo.service/x\n").as_deref(), Some("foo.service"));
        assert_eq!(unit("0::/user.slice/session-3.scope\n").as_deref(), Some("session-3.scope"));
        assert_eq!(unit("0::/\n"), None);
        let telling = |cgroup: &str| telling_cgroup(cgroup.as_bytes());
        assert_eq!(telling("1:name=systemd:/a\n0::/\n").as_deref(), Some("/a"));
        assert_eq!(telling("9:name=systemd:/\n4:memory:/m\n0::/\n").as_deref(), Some("/m"));
        assert_eq!(telling("0::/\n").as_deref(), Some("/"));
        assert_eq!(telling("garbage"), None);
        assert_eq!(cgroup_path_of(b"4:memory:/m\n0::/\n", b"memory").as_deref(), Some("/m"));
    }

    #[test]
    fn arguments_end_with_a_nul_or_with_the_file() {
        let parsed = |bytes: &[u8]| parse_arguments(bytes).map(|it| it.join("|"));
        assert_eq!(parsed(b"a\0\0b c\0").as_deref(), Some("a||b c"));
        assert_eq!(parsed(b"retitled").as_deref(), Some("retitled"));
        assert_eq!(parsed(b"\xff\0").as_deref(), Some("\u{fffd}"));
        assert_eq!((parsed(b""), parsed(b"\0")), (None, None));
    }

    #[test]
    fn details_for_people() {
        let status = b"Name:\tmy gateway\nState:\tT (stopped)\nPPid:\t0\nTracerPid:\t42\n\
            Uid:\t1000\t0\t0\t0\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nVmSwap:\tx kB\n";
        let details = parse_details(status);
        assert_eq!(details.name.as_deref(), Some("my gateway"));
        assert_eq!(details.state.as_deref(), Some("T (stopped)"));
        assert_eq!((details.parent, details.tracer, details.uid), (Some(0), Some(42), Some(1000)));
        assert_eq!(details.peak_rss_bytes, Some(2 << 20));
        assert_eq!((details.rss_bytes, details.swap_bytes), (Some(1 << 20), None));
        assert_eq!(parse_details(b""), crate::sys::Details::default());
    }

    /// FIELD-BUGS 84: killed for memory, and nothing says so. The lines are the kernel's.
    #[test]
    fn the_kernels_log_names_whom_it_killed_for_memory() {
        let group = "3,437,46822398529,-;Memory cgroup out of memory: Killed process 26045 \
                     (python3) total-vm:49476kB, anon-rss:38784kB";
        let machine = "3,9,500,-;Out of memory: Killed process 42 (a b) total-vm:1kB";
        let says = |record: &str, pid, since_us| {
            kill_for_memory(record.as_bytes(), pid, since_us).is_some()
        };
        assert!(says(group, 26_045, 0) && says(group, 26_045, 46_822_398_529));
        assert!(says(machine, 42, 500));
        // Another process, one that begins alike, an earlier one with the same pid.
        assert!(!says(group, 2_604, 0) && !says(group, 260_451, 0) && !says(machine, 42, 501));
        for other in
            ["", ";", "6,1,2,-;started process 42", "Killed process 42", "6,1;Killed process 42"]
        {
            assert!(!says(other, 42, 0), "{other}");
        }
    }

    #[test]
    fn containers_by_cgroup() {
        let check = |path: &str, container: Option<&str>| {
            let cgroup = format!("4:memory:{path}\n");
            assert_eq!(container_of_cgroup(cgroup.as_bytes()).as_deref(), container, "{path}");
        };
        let pods = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab_12.slice";
        check(&format!("/system.slice/docker-{ID}.scope"), Some(ID));
        check(&format!("/docker/{ID}"), Some(ID));
        check(&format!("/docker/{ID}/inner.service"), Some(ID));
        check(&format!("{pods}/cri-containerd-{ID}.scope"), Some(ID));
        check(&format!("{pods}/crio-{ID}.scope"), Some(ID));
        check(&format!("{pods}:cri-containerd:{ID}"), Some(ID));
        check(&format!("/kubepods/besteffort/podab-12/{ID}"), Some(ID));
        check(&format!("/user.slice/libpod-{ID}.scope/container"), Some(ID));
        check(&format!("/libpod_parent/libpod-{ID}"), Some(ID));
        check("/lxc/web", Some("web"));
        check("/lxc.payload.web/init.scope", Some("web"));
        check("/lxc.payload/web", Some("web"));
        // The monitor of a container runs on the host.
        check("/lxc.monitor.web", None);
        check(&format!("/machine.slice/libpod-conmon-{ID}.scope"), None);
        check(&format!("/x/{}", &ID[1..]), None);
        check(&format!("/x/{}", ID.to_uppercase()), None);
        check(&format!("/x/a{ID}"), None);
        check("/system.slice/docker.service", None);
        check("/lxc/", None);
        check("/", None);
        assert_eq!(container_of_cgroup(b""), None);
    }

    #[test]
    fn what_a_process_uses() {
        let line = b"42 (a) S 9 9 (b) S 7 1 1 0 -1 0 0 0 0 0 120 30 0 0 20 0 1 0 4711 1000 250 1 2";
        let usage = Usage {
            state: b'S',
            parent: 7,
            cpu_ticks: 150,
            start_ticks: 4711,
            resident_pages: 250,
        };
        assert_eq!(parse_usage(line), Some(usage));
        assert_eq!(parse_usage(b"42 (a) S 7 1"), None);
    }

    #[test]
    fn hidden_processes() {
        let check = |options: &str, found: Option<&str>| {
            let mounts = format!(
                "21 1 0:20 / /proc rw - proc proc rw,hidepid=2\n\
                 22 1 0:21 / /sys rw - sysfs sysfs rw\n\
                 23 1 0:22 / /proc rw,nosuid - proc proc {options}\n"
            );
            assert_eq!(hidepid(mounts.as_bytes()).as_deref(), found, "{options}");
        };
        check("rw,gid=5,hidepid=invisible", Some("hidepid=invisible"));
        check("rw,hidepid=1", Some("hidepid=1"));
        check("rw,hidepid=off", None);
        check("rw", None);
        assert_eq!(hidepid(b""), None);
    }

    proptest::proptest! {
        #[test]
        fn no_parser_panics(bytes: Vec<u8>) {
            parse_stat(&bytes);
            parse_status(&bytes);
            parse_usage(&bytes);
            hidepid(&bytes);
            parse_boottime_offset_ns(&bytes);
            filesystem_of_path(&bytes, b"/");
            container_of_mounts(&bytes);
            container_of_cgroup(&bytes);
            systemd_service(&bytes);
            systemd_unit(&bytes);
            telling_cgroup(&bytes);
            parse_details(&bytes);
            kill_for_memory(&bytes, 1, 0);
            record_lock_holder(&bytes, (0, 0), 0, 0);
            flock_holder(&bytes, (0, 0), 0);
        }

        #[test]
        fn any_name_leaves_the_fields_after_it(name: Vec<u8>) {
            let mut line = b"4242 (".to_vec();
            line.extend(name);
            line.extend(&fixture!("stat-plain")[b"4242 (sleep".len()..]);
            proptest::prop_assert_eq!(parse_stat(&line), Some(SLEEPING));
        }
    }
}
