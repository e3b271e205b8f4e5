//! What only people want to know of a process and of the machine, from `/proc` and the cgroups.
//! Nothing here blocks, and every answer that is not there says why.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::procfs;
use super::unix::own_pid;
use super::{Details, Existence, KernelLog, Limit, MemoryGroup, Pid, Seen, StartTime};

/// Why nothing in `/proc` can be believed, if that is so.
fn table_problem() -> Option<String> {
    if super::process_table_is_ours() {
        return None;
    }
    Some(match std::fs::symlink_metadata("/proc/self") {
        Ok(_) => "/proc belongs to another pid namespace".to_owned(),
        Err(error) => format!("/proc cannot be read: {error}"),
    })
}

/// A file of `/proc` about `pid`, or why it cannot be read.
fn read_about(pid: Pid, name: &str, length_max: u64) -> Seen<Vec<u8>> {
    if let Some(problem) = table_problem() {
        return Err(problem);
    }
    let path = format!("/proc/{pid}/{name}");
    read(&path, length_max).map_err(|error| match error.kind() {
        // ESRCH: it ended between the opening and the reading.
        _ if error.raw_os_error() == Some(libc::ESRCH) => "it has ended".to_owned(),
        ErrorKind::NotFound => match super::process_facts(pid).existence {
            Existence::Gone => "it has ended".to_owned(),
            Existence::Present | Existence::Unknown => {
                format!("{path} is hidden (hidepid): pid {pid} belongs to another user")
            }
        },
        _ => format!("{path} cannot be read: {error}"),
    })
}

fn read(path: impl AsRef<Path>, length_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2048);
    File::open(path)?.take(length_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_machine(path: &str) -> Seen<String> {
    const LENGTH_MAX: u64 = 16 * 1024;
    let bytes =
        read(path, LENGTH_MAX).map_err(|error| format!("{path} cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|_| format!("{path} is not as documented"))
}

/// `/proc/<pid>/status`, as far as people want it.
pub fn details(pid: Pid) -> Seen<Details> {
    const LENGTH_MAX: u64 = 64 * 1024;
    read_about(pid, "status", LENGTH_MAX).map(|bytes| procfs::parse_details(&bytes))
}

/// What `pid` and all that descend from it have in memory, in bytes; a page that several share
/// counts for each. Of many processes only the first are counted; of this one nothing else: a
/// gateway that links us beats often, and its threads may be many.
pub fn family_rss(pid: Pid) -> Option<u64> {
    const FAMILY_MAX: usize = 64;
    const LENGTH_MAX: u64 = 16 * 1024;
    let mut bytes = details(pid).ok()?.rss_bytes?;
    if pid == own_pid() {
        return Some(bytes);
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        // Each thread has its own.
        let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten();
        for thread in threads.flatten().take(FAMILY_MAX) {
            let Ok(listed) = read(thread.path().join("children"), LENGTH_MAX) else { continue };
            let listed = String::from_utf8_lossy(&listed).into_owned();
            for child in listed.split_whitespace().filter_map(|word| word.parse::<Pid>().ok()) {
                // The verb that asks is one of them, and no part of the gateway.
                let is_ours = child == own_pid();
                if family.len() < FAMILY_MAX && !is_ours && !family.contains(&child) {
                    bytes += details(child).ok().and_then(|it| it.rss_bytes).unwrap_or(0);
                    family.push(child);
                }
            }
        }
    }
    Some(bytes)
}

/// The parent of this process; 0 for one outside of its pid namespace.
#[allow(clippy::unnecessary_wraps, reason = "elsewhere it may not be known")]
pub fn own_parent() -> Seen<Pid> {
    Ok(std::os::unix::process::parent_id())
}

/// The command line, or why there is none.
pub fn arguments(pid: Pid) -> Seen<Vec<String>> {
    const LENGTH_MAX: u64 = 64 * 1024;
    /// One that is just being executed has none for some microseconds.
    const ATTEMPTS: usize = 3;
    const PAUSE: Duration = Duration::from_micros(100);
    for attempt in 0..ATTEMPTS {
        if let Some(arguments) = procfs::parse_arguments(&read_about(pid, "cmdline", LENGTH_MAX)?) {
            return Ok(arguments);
        }
        if super::process_facts(pid).existence == Existence::Gone {
            return Err("it has ended".to_owned());
        }
        if attempt + 1 < ATTEMPTS {
            std::thread::sleep(PAUSE);
        }
    }
    Err(format!("pid {pid} has none: a thread of the kernel, or it removed its own"))
}

/// The load average of the last minute.
pub fn load_average() -> Seen<f64> {
    let text = read_machine("/proc/loadavg")?;
    let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
    first.ok_or_else(|| "/proc/loadavg is not as documented".to_owned())
}

/// The control group of `pid` that says most about it, and its innermost systemd unit.
pub fn cgroup(pid: Pid) -> Seen<(String, Option<String>)> {
    let bytes = read_cgroup(pid)?;
    let path = procfs::telling_cgroup(&bytes)
        .ok_or_else(|| format!("/proc/{pid}/cgroup is not as documented"))?;
    Ok((path, procfs::systemd_unit(&bytes)))
}

/// The hierarchies that a service manager counts a unit's processes in: version 2, alone or beside
/// version 1, and systemd's own of version 1.
const UNIT_HIERARCHIES: [(&[u8], &[&str]); 2] = [
    (b"", &["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]),
    (b"name=systemd", &["/sys/fs/cgroup/systemd"]),
];

/// See [`crate::sys::supervise::follow_to_cgroup`].
pub fn follow_to_cgroup(pid: Pid) -> bool {
    let paths = |pid| {
        let bytes = read_cgroup(pid).unwrap_or_default();
        UNIT_HIERARCHIES.map(|(controllers, _)| procfs::cgroup_path_of(&bytes, controllers))
    };
    let own = std::process::id();
    let (theirs, ours) = (paths(pid), paths(own));
    if theirs == ours {
        return true;
    }
    for ((_, mounts), (theirs, ours)) in UNIT_HIERARCHIES.iter().zip(theirs.iter().zip(&ours)) {
        let Some(path) = theirs.as_ref().filter(|_| theirs != ours) else { continue };
        // A path that leads out of what can be seen from this cgroup namespace begins with `/..`.
        let moved = mounts.iter().any(|mount| {
            !path.contains("/..")
                && std::fs::write(format!("{mount}{path}/cgroup.procs"), own.to_string()).is_ok()
        });
        if !moved {
            tracing::debug!(path, "may not move to the cgroup of the process");
        }
    }
    let ours = paths(own);
    theirs
        .iter()
        .zip(&ours)
        .all(|(theirs, ours)| theirs.is_none() || ours.is_none() || theirs == ours)
}

fn read_cgroup(pid: Pid) -> Seen<Vec<u8>> {
    const LENGTH_MAX: u64 = 64 * 1024;
    if pid == own_pid() {
        // About us even where the table belongs to an outer namespace.
        let path = "/proc/self/cgroup";
        return read(path, LENGTH_MAX).map_err(|error| format!("{path} cannot be read: {error}"));
    }
    read_about(pid, "cgroup", LENGTH_MAX)
}

/// The group that the memory of `pid` is counted in, where systemd and the container engines mount
/// the hierarchies.
pub fn memory_group(pid: Pid) -> Seen<MemoryGroup> {
    let bytes = read_cgroup(pid)?;
    let places = [
        (procfs::cgroup_path_of(&bytes, b""), "/sys/fs/cgroup", "memory.events"),
        (procfs::cgroup_path_of(&bytes, b"memory"), "/sys/fs/cgroup/memory", "memory.oom_control"),
    ];
    let mut places = places.into_iter().filter_map(|(path, mount, events)| {
        let directory = format!("{mount}{}", path?.trim_end_matches('/'));
        Path::new(&directory).join(events).exists().then_some(directory)
    });
    places.next().map(|directory| MemoryGroup { inode: inode(&directory), directory }).ok_or_else(
        || {
            "no memory cgroup is visible here (the root group has no counters of its own)"
                .to_owned()
        },
    )
}

fn inode(directory: &str) -> Option<i64> {
    i64::try_from(std::fs::metadata(directory).ok()?.ino()).ok()
}

impl MemoryGroup {
    /// One that is on record, if it is still the same and no other one in its place. A row may say
    /// anything: only a directory of the kernel's own is read.
    pub fn recorded(directory: String, recorded: Option<i64>) -> Option<Self> {
        let is_the_kernels = directory.starts_with("/sys/fs/cgroup/") && !directory.contains("/..");
        let inode = is_the_kernels.then(|| inode(&directory)).flatten();
        (inode.is_some() && inode == recorded).then_some(Self { directory, inode })
    }

    /// How many processes of the group the kernel has killed for memory.
    pub fn oom_kills(&self) -> Seen<u64> {
        let read = self.number_in("memory.events", "oom_kill");
        read.or_else(|_| self.number_in("memory.oom_control", "oom_kill"))
    }

    /// What the group uses, in bytes.
    pub fn used_bytes(&self) -> Seen<u64> {
        self.number("memory.current")
            .or_else(|_| self.number("memory.usage_in_bytes"))?
            .ok_or_else(|| format!("{} is not as documented", self.directory))
    }

    /// What the group may use, in bytes; `None` where it has no limit of its own.
    pub fn limit_bytes(&self) -> Seen<Option<u64>> {
        self.number("memory.max").or_else(|_| self.number("memory.limit_in_bytes"))
    }

    /// A file that is a number, or `max`; version 1 writes the largest multiple of a page for that.
    fn number(&self, file: &str) -> Seen<Option<u64>> {
        const UNLIMITED: u64 = 1 << 62;
        let text = read_machine(&format!("{}/{file}", self.directory))?;
        if text.trim() == "max" {
            return Ok(None);
        }
        let number: u64 = text
            .trim()
            .parse()
            .map_err(|_| format!("{}/{file} is not as documented", self.directory))?;
        Ok((number < UNLIMITED).then_some(number))
    }

    fn number_in(&self, file: &str, key: &str) -> Seen<u64> {
        let path = format!("{}/{file}", self.directory);
        let text = read_machine(&path)?;
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value
            .and_then(|value| value.trim().parse().ok())
            .ok_or_else(|| format!("{path} has no {key}"))
    }
}

/// What this process may use.
pub fn limits() -> Vec<(&'static str, Seen<Limit>)> {
    const SHOWN: [(&str, Resource); 5] = [
        ("address_space_bytes", Resource::As),
        ("core_bytes", Resource::Core),
        ("locked_memory_bytes", Resource::Memlock),
        ("open_files", Resource::Nofile),
        ("processes", Resource::Nproc),
    ];
    SHOWN
        .into_iter()
        .map(|(name, resource)| {
            let limit = getrlimit(resource);
            (name, Ok(Limit { soft: limit.current, hard: limit.maximum }))
        })
        .collect()
}

/// What the kernel's log says of the killing of one of `processes` for want of memory, not before
/// it was started. The log names pids of the first pid namespace.
pub fn killed_for_memory(processes: &[(Pid, Option<StartTime>)]) -> KernelLog {
    /// `PROC_PID_INIT_INO` of the kernel's `proc_ns.h`.
    const FIRST_NAMESPACE: &str = "4026531836";
    /// The log holds some thousand lines, and whoever looks may hold the store's write lock.
    const RECORDS_MAX: usize = 20_000;
    let is_first = super::pid_namespace().is_some_and(|it| it.contains(FIRST_NAMESPACE));
    let log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/kmsg");
    let (true, Ok(mut log)) = (is_first, log) else { return KernelLog::Unknown };
    let since_us: Vec<(Pid, u64)> = processes
        .iter()
        .map(|(pid, start)| (*pid, start.map_or(0, |time| not_before_us(time.value))))
        .collect();
    let mut first_us = None;
    let mut record = [0; 8192];
    for _ in 0..RECORDS_MAX {
        let length = match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => length,
            // EPIPE: what was next has been overwritten meanwhile.
            Err(error)
                if error.raw_os_error() == Some(libc::EPIPE)
                    || error.kind() == ErrorKind::Interrupted =>
            {
                continue;
            }
            // EAGAIN: the end.
            Err(_) => break,
        };
        for line in record[..length].split(|byte| *byte == b'\n') {
            first_us = first_us.or_else(|| procfs::logged_at_us(line));
            let kill =
                |(pid, since_us): &(Pid, u64)| procfs::kill_for_memory(line, *pid, *since_us);
            if let Some(text) = since_us.iter().find_map(kill) {
                return KernelLog::Killed(text);
            }
        }
    }
    // It says nothing of what it has forgotten.
    let reaches_back =
        since_us.iter().all(|(_, since)| first_us.is_some_and(|first| first <= *since));
    if reaches_back { KernelLog::Spared } else { KernelLog::Unknown }
}

/// The time of a process' start on the log's clock, at the earliest: that one stands still while
/// the machine is suspended.
fn not_before_us(start_ticks: i64) -> u64 {
    let ticks = i64::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100).max(1);
    let start_us = start_ticks.saturating_mul(1_000_000 / ticks);
    let now_us = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)).as_micros()
    };
    let suspended = now_us(ClockId::Boottime).saturating_sub(now_us(ClockId::Monotonic));
    let suspended_us = i64::try_from(suspended).unwrap_or(0);
    let second_us = 1_000_000;
    u64::try_from(start_us.saturating_sub(suspended_us).saturating_sub(second_us)).unwrap_or(0)
}
