//! The lists of locks: `/proc/locks` and `fdinfo`.

use super::{parse_hex, parse_number, parse_pid, words};

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

pub(super) struct FileLock {
    /// `None`: the process that took it has no number here.
    pub(super) pid: Option<u32>,
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
}

/// `4: FLOCK  ADVISORY  WRITE 1005 fe:00:6001 0 EOF`; as for record locks, a waiter is none.
pub(super) fn parse_flock(line: &[u8]) -> Option<FileLock> {
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

pub(super) struct RecordLock {
    pub(super) pid: u32,
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    pub(super) first: u64,
    pub(super) last: u64,
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
pub(super) fn parse_record_lock(line: &[u8]) -> Option<RecordLock> {
    record_lock(line, &[b"WRITE"])
}

pub(super) fn record_lock(line: &[u8], kinds: &[&[u8]]) -> Option<RecordLock> {
    let (pid, Range { device, inode, first, last }) = parse_range(line, b"POSIX", kinds)?;
    Some(RecordLock { pid: parse_pid(pid)?, device, inode, first, last })
}

pub(super) struct Range {
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// The pid as it is written, and what is locked exclusively.
pub(super) fn parse_range<'a>(
    line: &'a [u8],
    whose: &[u8],
    kinds: &[&[u8]],
) -> Option<(&'a [u8], Range)> {
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
