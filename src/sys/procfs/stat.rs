//! `stat` of a process: when it started, what it uses.

use super::{parse_number, parse_pid, parse_pid_or_zero, words};

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
    /// Field 9, the flag `PF_FORKNOEXEC`: it has executed no program since it was forked.
    pub is_forked_copy: bool,
    /// Field 22: start time in ticks since boot, the reader's time namespace offset included
    /// (Linux 5.5 and later).
    pub start_time_ticks: i64,
}

/// The largest start time that is believed: 2^63 ns at 100 ticks per second, 292 years of uptime.
/// The kernel adds the namespace's offset in unsigned nanoseconds, so a process older than the zero
/// of a namespace set back in time shows as something between this and twice this (`timens_add_ns`,
/// `nsec_to_clock_t`).
pub(super) const START_TIME_TICKS_MAX: i64 = 922_337_203_685;

/// `include/linux/sched.h`.
pub(super) const PF_KTHREAD: u64 = 0x0020_0000;

/// The same file.
const PF_FORKNOEXEC: u64 = 0x0000_0040;

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
    let flags = parse_number::<u64>(flags)?;
    (0..=START_TIME_TICKS_MAX).contains(&start_time_ticks).then_some(Stat {
        pid,
        state,
        parent: parse_pid_or_zero(parent)?,
        is_kernel_thread: flags & PF_KTHREAD != 0,
        is_forked_copy: flags & PF_FORKNOEXEC != 0,
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

/// The offset of `CLOCK_BOOTTIME` in nanoseconds from `/proc/<pid>/timens_offsets`
/// (`time_namespaces(7)`, Linux 5.5). `None` when it does not say.
pub fn parse_boottime_offset_ns(bytes: &[u8]) -> Option<i64> {
    parse_offset_ns(bytes, b"boottime")
}

/// The same of `CLOCK_MONOTONIC`.
pub fn parse_monotonic_offset_ns(bytes: &[u8]) -> Option<i64> {
    parse_offset_ns(bytes, b"monotonic")
}

fn parse_offset_ns(bytes: &[u8], clock: &[u8]) -> Option<i64> {
    bytes.split(|&byte| byte == b'\n').find_map(|line| {
        let mut values = words(line);
        // The clock by name; clock_gettime(2)'s number for it is accepted for writing, and is not
        // shown.
        if values.next()? != clock {
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
