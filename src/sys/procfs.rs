//! Pure parsers of what Linux shows in `/proc`: bytes in, values out, no I/O.
//!
//! A line that is not as the manual page says is "could not be read" (`None`), never a guess: a
//! wrong start time would evict a living owner. Nothing here assumes UTF-8, because a process
//! chooses its own name and a user chooses mount points.

/// What the crate uses of `/proc/<pid>/stat` (`proc_pid_stat(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 1: the pid in the namespace of the `/proc` mount that was read.
    pub pid: u32,
    /// Field 3: the state of the main thread, one letter.
    pub state: u8,
    /// Field 4: the parent's pid, 0 when it lives outside that namespace.
    pub parent: u32,
    /// Field 9, the flag `PF_KTHREAD`: a thread of the kernel.
    pub is_kernel_thread: bool,
    /// Field 22: start time in ticks since boot, the reader's time namespace offset included
    /// (Linux 5.5 and later).
    pub start_time_ticks: i64,
}

/// The largest start time that is believed: 2^63 ns at 100 ticks per second, 292 years of uptime.
/// The kernel adds the namespace's offset in unsigned nanoseconds, so a process older than the zero
/// of a namespace set back in time shows as something between this and twice this (`timens_add_ns`,
/// `nsec_to_clock_t`).
const START_TIME_TICKS_MAX: i64 = 922_337_203_685;

/// `include/linux/sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Parses one `/proc/<pid>/stat`.
///
/// Field 2 is the name in parentheses, and a process may call itself `a) S 1 1`, so the fields
/// after it are counted from the LAST parenthesis: no later field can hold one.
pub fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let name_start = bytes.iter().position(|&byte| byte == b'(')?;
    let name_end = bytes.iter().rposition(|&byte| byte == b')')?;
    if name_end < name_start {
        return None;
    }
    let pid = parse_pid(bytes[..name_start].trim_ascii_end())?;
    let rest = bytes[name_end + 1..].strip_prefix(b" ")?;
    // After the name comes field 3; field 22 is the 20th from there. A 21st must follow: in a
    // truncated line the start time could have lost digits and still be a number.
    let fields: Vec<&[u8]> = rest.split(|&byte| byte == b' ').take(21).collect();
    let [
        state,
        parent,
        _group,
        _session,
        _terminal,
        _foreground,
        flags,
        ..,
        start_time,
        _following,
    ] = fields[..]
    else {
        return None;
    };
    if fields.len() < 21 {
        return None;
    }
    let &[state] = state else { return None };
    let start_time_ticks = parse_number(start_time)?;
    (0..=START_TIME_TICKS_MAX).contains(&start_time_ticks).then_some(Stat {
        pid,
        state,
        parent: parse_pid_or_zero(parent)?,
        is_kernel_thread: parse_number::<u64>(flags)? & PF_KTHREAD != 0,
        start_time_ticks,
    })
}

/// What a process uses, of `/proc/<pid>/stat` (`proc_pid_stat(5)`): for people, nothing is decided
/// by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Field 3.
    pub state: u8,
    /// Field 4; 0 when the parent lives outside of the namespace.
    pub parent: u32,
    /// Fields 14 and 15: user and system time.
    pub cpu_ticks: u64,
    /// Field 22, in ticks since boot as the reader's time namespace counts them.
    pub start_ticks: u64,
    /// Field 24.
    pub resident_pages: u64,
}

/// Parses one `/proc/<pid>/stat`; as in [`parse_stat`] the name may hold anything.
pub fn parse_usage(bytes: &[u8]) -> Option<Usage> {
    /// The place of a field among those after the name, which is field 2.
    const fn at(field: usize) -> usize {
        field - 3
    }
    let name_end = bytes.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&[u8]> = words(&bytes[name_end + 1..]).collect();
    let number = |field: usize| parse_number::<u64>(fields.get(at(field))?);
    Some(Usage {
        state: *fields.first()?.first()?,
        parent: parse_pid_or_zero(fields.get(at(4))?)?,
        cpu_ticks: number(14)?.checked_add(number(15)?)?,
        start_ticks: number(22)?,
        resident_pages: number(24)?,
    })
}

/// The option that hides processes of other users, if `/proc` is mounted with one:
/// `hidepid=invisible`, before Linux 5.8 `hidepid=2` (`proc(5)`).
pub fn hidepid(mountinfo: &[u8]) -> Option<String> {
    let mut lines = mountinfo.split(|&byte| byte == b'\n');
    // The last mount on one point hides those before it.
    let line = lines.rfind(|line| words(line).nth(4) == Some(b"/proc"))?;
    words(line)
        .flat_map(|field| field.split(|&byte| byte == b','))
        .find(|option| {
            let value = option.strip_prefix(b"hidepid=");
            value.is_some_and(|value| !matches!(value, b"0" | b"off"))
        })
        .map(lossy)
}

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

/// The offset of `CLOCK_BOOTTIME` in nanoseconds from `/proc/<pid>/timens_offsets`
/// (`time_namespaces(7)`, Linux 5.5). `None` when it does not say.
pub fn parse_boottime_offset_ns(bytes: &[u8]) -> Option<i64> {
    bytes.split(|&byte| byte == b'\n').find_map(|line| {
        let mut values = words(line);
        // The clock by name; clock_gettime(2)'s number for it (7) is accepted for writing, and is
        // not shown.
        if values.next()? != b"boottime" {
            return None;
        }
        let seconds: i64 = parse_number(values.next()?)?;
        let nanoseconds: i64 = parse_number(values.next()?)?;
        if values.next().is_some() || !(0..1_000_000_000).contains(&nanoseconds) {
            return None;
        }
        seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
    })
}

/// An offset in ticks; `None` when it is not a whole number of them. The kernel adds the offset
/// first and rounds down then, so a part of a tick could put the difference off by one, and a start
/// time that is off by one reads as another process.
pub fn offset_ticks(offset_ns: i64, ticks_per_second: i64) -> Option<i64> {
    if ticks_per_second <= 0 || 1_000_000_000 % ticks_per_second != 0 {
        return None;
    }
    let tick_ns = 1_000_000_000 / ticks_per_second;
    (offset_ns % tick_ns == 0).then_some(offset_ns / tick_ns)
}

/// The type of the filesystem whose mount id (statx(2), Linux 5.8) is `mount_id`, from
/// `/proc/<pid>/mountinfo` (`proc_pid_mountinfo(5)`).
pub fn filesystem_of_mount(mountinfo: &[u8], mount_id: u64) -> Option<String> {
    mounts(mountinfo).find(|mount| mount.id == mount_id).map(|mount| lossy(mount.kind))
}

/// The type of the filesystem that holds the absolute, real `path`: the mount with the longest
/// mount point on its way, the later one of two on the same point. (A mount hidden below a later
/// mount on one of its parents still wins here; the mount id has no such gap and is asked first.)
pub fn filesystem_of_path(mountinfo: &[u8], path: &[u8]) -> Option<String> {
    let mut best: Option<(usize, &[u8])> = None;
    for mount in mounts(mountinfo) {
        let point = unescape(mount.point);
        if is_at_or_below(path, &point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), mount.kind));
        }
    }
    best.map(|(_, kind)| lossy(kind))
}

/// The container id that a container engine's own mount over `/etc/hostname` gives away
/// (`.../containers/<id>/hostname`): the only place where a process in a private cgroup namespace,
/// the default with cgroup v2, can read it.
pub fn container_of_mounts(mountinfo: &[u8]) -> Option<String> {
    let mount = mounts(mountinfo).find(|mount| mount.point == b"/etc/hostname")?;
    let components: Vec<&[u8]> = mount.root.split(|&byte| byte == b'/').collect();
    // Podman: `/containers/storage/overlay-containers/<id>/userdata/hostname`.
    components
        .windows(2)
        .find(|pair| pair[0].ends_with(b"containers") && is_container_id(pair[1]))
        .map(|pair| lossy(pair[1]))
}

/// One line of mountinfo, still escaped.
struct Mount<'a> {
    id: u64,
    root: &'a [u8],
    point: &'a [u8],
    kind: &'a [u8],
}

/// `id parent major:minor root point options [optional]... - type source super-options`. Lines
/// that are not like that are skipped.
fn mounts(mountinfo: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = parse_number(fields.next()?)?;
        let root = fields.nth(2)?;
        let point = fields.next()?;
        fields.find(|field| *field == b"-")?;
        let kind = fields.next().filter(|kind| !kind.is_empty())?;
        Some(Mount { id, root, point, kind })
    })
}

fn is_at_or_below(path: &[u8], point: &[u8]) -> bool {
    match path.strip_prefix(point) {
        Some(rest) => rest.is_empty() || rest[0] == b'/' || point == b"/",
        None => false,
    }
}

/// Undoes the octal escapes of blank, tab, newline and backslash (`\040`).
fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let [first, tail @ ..] = rest {
        if let (b'\\', Some(byte)) = (first, tail.get(..3).and_then(octal_byte)) {
            plain.push(byte);
            rest = &tail[3..];
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

fn octal_byte(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 8).ok()
}

/// Who holds an exclusive POSIX record lock over byte `offset` of a file, from `/proc/locks`
/// (`proc_locks(5)`).
///
/// Device and inode are compared first. Where no line has both, the inode alone counts, because
/// btrfs and overlayfs show another device there than `stat` does; but then only if all such
/// lines agree on one pid, since inode numbers repeat across filesystems.
pub fn record_lock_holder(
    locks: &[u8],
    device: (u32, u32),
    inode: u64,
    offset: u64,
) -> Option<u32> {
    let candidates: Vec<RecordLock> = locks
        .split(|&byte| byte == b'\n')
        .filter_map(parse_record_lock)
        .filter(|lock| lock.inode == inode && (lock.first..=lock.last).contains(&offset))
        .collect();
    if let Some(exact) = candidates.iter().find(|lock| lock.device == device) {
        return Some(exact.pid);
    }
    let first = candidates.first()?;
    candidates.iter().all(|lock| lock.pid == first.pid).then_some(first.pid)
}

/// What the kernel's list says of exclusive `flock`s on one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flock {
    /// One is held, by this pid if it has one here.
    Held(Option<u32>),
    /// None is listed.
    None,
    /// One is held on a file of this inode number, which may be another file.
    Ambiguous,
}

/// Who holds an exclusive `flock` on a file, from `/proc/locks` (`proc_locks(5)`). Device and inode
/// as for [`record_lock_holder`].
pub fn flock_holder(locks: &[u8], device: (u32, u32), inode: u64) -> Flock {
    let candidates: Vec<FileLock> = locks
        .split(|&byte| byte == b'\n')
        .filter_map(parse_flock)
        .filter(|lock| lock.inode == inode)
        .collect();
    if let Some(exact) = candidates.iter().find(|lock| lock.device == device) {
        return Flock::Held(exact.pid);
    }
    match candidates.as_slice() {
        [] => Flock::None,
        [only] => Flock::Held(only.pid),
        [..] => Flock::Ambiguous,
    }
}

struct FileLock {
    /// `None`: the process that took it has no number here.
    pid: Option<u32>,
    device: (u32, u32),
    inode: u64,
}

/// `4: FLOCK  ADVISORY  WRITE 1005 fe:00:6001 0 EOF`; as for record locks, a waiter is none.
fn parse_flock(line: &[u8]) -> Option<FileLock> {
    let mut fields = words(line);
    fields.next()?.strip_suffix(b":")?;
    if fields.next()? != b"FLOCK" {
        return None;
    }
    fields.next()?;
    if fields.next()? != b"WRITE" {
        return None;
    }
    let pid = parse_pid(fields.next()?);
    let mut file = fields.next()?.split(|&byte| byte == b':');
    let device = (parse_hex(file.next()?)?, parse_hex(file.next()?)?);
    let inode = parse_number(file.next()?)?;
    Some(FileLock { pid, device, inode })
}

struct RecordLock {
    pid: u32,
    device: (u32, u32),
    inode: u64,
    first: u64,
    last: u64,
}

/// Whether an open file holds an exclusive lock over byte `offset` of the file `inode`, from
/// `/proc/<pid>/fdinfo/<fd>` (`proc_pid_fdinfo(5)`). The list of all locks names no process for
/// such a lock: it belongs to the open file.
pub fn holds_open_file_lock(fdinfo: &[u8], inode: u64, offset: u64) -> bool {
    fdinfo
        .split(|&byte| byte == b'\n')
        .filter_map(|line| parse_range(line.strip_prefix(b"lock:")?, b"OFDLCK", &[b"WRITE"]))
        .any(|(_, lock)| lock.inode == inode && (lock.first..=lock.last).contains(&offset))
}

/// Who holds a POSIX record lock of either kind over byte `offset` of a file, from `/proc/locks`.
/// Device and inode as for [`record_lock_holder`], but where no line has both, all with the inode
/// count.
pub fn record_lock_holders(locks: &[u8], device: (u32, u32), inode: u64, offset: u64) -> Vec<u32> {
    let lines = locks.split(|&byte| byte == b'\n');
    let candidates: Vec<RecordLock> = lines
        .filter_map(|line| record_lock(line, &[b"READ", b"WRITE"]))
        .filter(|lock| lock.inode == inode && (lock.first..=lock.last).contains(&offset))
        .collect();
    let is_exact = candidates.iter().any(|lock| lock.device == device);
    let counted = candidates.iter().filter(|lock| !is_exact || lock.device == device);
    counted.map(|lock| lock.pid).collect()
}

/// How a file was opened (`O_ACCMODE`), from `/proc/<pid>/fdinfo/<fd>`.
pub fn access_mode(fdinfo: &[u8]) -> Option<i32> {
    const ACCESS: i32 = 0o3;
    let flags =
        fdinfo.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"flags:"))?;
    let flags = std::str::from_utf8(flags).ok()?;
    Some(i32::from_str_radix(flags.trim(), 8).ok()? & ACCESS)
}

/// `1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`. A waiter's line has `->` in second place and
/// so is no `POSIX` line; an OFD lock has the kind `OFDLCK` and pid -1.
fn parse_record_lock(line: &[u8]) -> Option<RecordLock> {
    record_lock(line, &[b"WRITE"])
}

fn record_lock(line: &[u8], kinds: &[&[u8]]) -> Option<RecordLock> {
    let (pid, Range { device, inode, first, last }) = parse_range(line, b"POSIX", kinds)?;
    Some(RecordLock { pid: parse_pid(pid)?, device, inode, first, last })
}

struct Range {
    device: (u32, u32),
    inode: u64,
    first: u64,
    last: u64,
}

/// The pid as it is written, and what is locked exclusively.
fn parse_range<'a>(line: &'a [u8], whose: &[u8], kinds: &[&[u8]]) -> Option<(&'a [u8], Range)> {
    let mut fields = words(line);
    fields.next()?.strip_suffix(b":")?;
    if fields.next()? != whose {
        return None;
    }
    // ADVISORY, or MANDATORY up to Linux 5.14.
    fields.next()?;
    if !kinds.contains(&fields.next()?) {
        return None;
    }
    let pid = fields.next()?;
    let mut file = fields.next()?.split(|&byte| byte == b':');
    let device = (parse_hex(file.next()?)?, parse_hex(file.next()?)?);
    let inode = parse_number(file.next()?)?;
    let first = parse_number(fields.next()?)?;
    let last = match fields.next()? {
        b"EOF" => u64::MAX,
        number => parse_number(number)?,
    };
    Some((pid, Range { device, inode, first, last }))
}

/// The innermost systemd unit of `/proc/<pid>/cgroup` (cgroups(7)), if it is a service.
///
/// A scope or slice is no supervisor: a desktop terminal is a scope, and below a user's manager
/// (`user@1000.service`) everything would otherwise look supervised.
pub fn systemd_service(cgroup: &[u8]) -> Option<String> {
    // With cgroup v1 or both, systemd keeps its own hierarchy; with v2 it is the only one.
    cgroup_path(cgroup, b"name=systemd")
        .and_then(innermost_service)
        .or_else(|| cgroup_path(cgroup, b"").and_then(innermost_service))
}

fn innermost_service(path: &[u8]) -> Option<String> {
    innermost_unit(path).filter(|unit| unit.ends_with(".service"))
}

/// The innermost systemd unit of `/proc/<pid>/cgroup`, of whatever type.
pub fn systemd_unit(cgroup: &[u8]) -> Option<String> {
    cgroup_path(cgroup, b"name=systemd")
        .and_then(innermost_unit)
        .or_else(|| cgroup_path(cgroup, b"").and_then(innermost_unit))
}

fn innermost_unit(path: &[u8]) -> Option<String> {
    let unit = path.rsplit(|&byte| byte == b'/').find(|component| is_unit(component))?;
    // systemd puts one underscore before a unit whose name the kernel's own files could take, as
    // `_cpu.service`, and before one that starts with an underscore (cg_escape).
    Some(lossy(unit.strip_prefix(b"_").unwrap_or(unit)))
}

fn is_unit(component: &[u8]) -> bool {
    [&b".service"[..], b".scope", b".slice"]
        .iter()
        .any(|suffix| component.len() > suffix.len() && component.ends_with(suffix))
}

/// The innermost container of `/proc/<pid>/cgroup`: a 64-digit id as docker, podman, containerd
/// and CRI-O use it, or the name of an LXC container.
pub fn container_of_cgroup(cgroup: &[u8]) -> Option<String> {
    cgroup
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.splitn(3, |&byte| byte == b':').nth(2))
        .find_map(|path| {
            let components: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
            (0..components.len())
                .rev()
                .find_map(|at| container_component(&components[..at], components[at]))
        })
}

/// Whether `component`, below `parents`, is a container's cgroup.
fn container_component(parents: &[&[u8]], component: &[u8]) -> Option<String> {
    let name = component.strip_suffix(b".scope").unwrap_or(component);
    // docker-<id>.scope, cri-containerd-<id>.scope, libpod-<id>, kubepods...:cri-containerd:<id>,
    // and /docker/<id> alone.
    let id_at = name.len().saturating_sub(64);
    let (prefix, id) = name.split_at(id_at);
    let separated = matches!(prefix.last(), None | Some(b'-' | b':'));
    // crio-conmon-<id>.scope is the monitor beside the container, on the host.
    if separated && is_container_id(id) && !prefix.ends_with(b"conmon-") {
        return Some(lossy(id));
    }
    let parent = parents.last().copied().unwrap_or_default();
    let lxc_name = component
        .strip_prefix(b"lxc.payload.")
        .or_else(|| matches!(parent, b"lxc" | b"lxc.payload").then_some(component))?;
    (!lxc_name.is_empty()).then(|| lossy(lxc_name))
}

fn is_container_id(word: &[u8]) -> bool {
    word.len() == 64 && word.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The control group that says most about a process: that of systemd's hierarchy, of version 2, of
/// memory, whichever is not the root.
pub fn telling_cgroup(cgroup: &[u8]) -> Option<String> {
    let paths = [&b"name=systemd"[..], b"", b"memory"];
    let paths = || paths.iter().filter_map(|controllers| cgroup_path(cgroup, controllers));
    paths().find(|path| *path != b"/").or_else(|| paths().next()).map(lossy)
}

/// The path of the line with these controllers, as text.
pub fn cgroup_path_of(cgroup: &[u8], controllers: &[u8]) -> Option<String> {
    cgroup_path(cgroup, controllers).map(lossy)
}

/// The path of the line with these controllers: `9:name=systemd:/path`, for v2 `0::/path`.
fn cgroup_path<'a>(cgroup: &'a [u8], controllers: &[u8]) -> Option<&'a [u8]> {
    cgroup.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let id = fields.next()?;
        let found = fields.next()?;
        let path = fields.next()?;
        let wanted = found == controllers && (!controllers.is_empty() || id == b"0");
        // Said of a cgroup removed under its last zombie (cgroups(7)).
        wanted.then(|| path.strip_suffix(b" (deleted)").unwrap_or(path))
    })
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
        let group = "3,437,46822398529,-;Memory cgroup out of memory: Killed process 26045 (python3) \
            total-vm:49476kB, anon-rss:38784kB";
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
