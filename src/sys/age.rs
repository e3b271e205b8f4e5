//! For how long a process has been running: for people, and for rows that are made long after it
//! started.

use std::time::Duration;

use super::{Pid, StartTime, StartTimeUnit};

/// How long ago the process `pid` was started, where it is `unix_time` now: milliseconds. `None`
/// for one that cannot be seen, and for one that seems to start in the future (a wall clock that
/// was set back, where start times are wall time).
pub(crate) fn process_age_ms(pid: Pid, unix_time: Duration) -> Option<i64> {
    age_ms(super::process_facts(pid).start_time?, unix_time)
}

fn age_ms(start_time: StartTime, unix_time: Duration) -> Option<i64> {
    /// From 1601 to 1970, in units of 100 ns.
    const FILETIME_OF_1970: i64 = 116_444_736_000_000_000;
    let value = start_time.value;
    let wall_us = i64::try_from(unix_time.as_micros()).ok();
    let age_us = match start_time.unit {
        StartTimeUnit::Ticks => {
            let started_us = value.checked_mul(1_000_000 / ticks_per_second())?;
            super::boot_clock_ms().checked_mul(1_000)?.checked_sub(started_us)?
        }
        StartTimeUnit::Microseconds => wall_us?.checked_sub(value)?,
        StartTimeUnit::Filetime => wall_us?.checked_sub((value - FILETIME_OF_1970) / 10)?,
    };
    (age_us >= 0).then_some(age_us / 1_000)
}

#[cfg(target_os = "linux")]
fn ticks_per_second() -> i64 {
    let ticks = i64::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
    ticks.clamp(1, 1_000_000)
}

/// Ticks are Linux' own.
#[cfg(not(target_os = "linux"))]
fn ticks_per_second() -> i64 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_process_is_young_and_nothing_comes_from_the_future() {
        let own_ms = process_age_ms(std::process::id(), crate::clock::unix_time()).unwrap();
        assert!((0..3_600_000).contains(&own_ms), "{own_ms}");
        for unit in [StartTimeUnit::Ticks, StartTimeUnit::Microseconds, StartTimeUnit::Filetime] {
            assert_eq!(
                age_ms(StartTime { value: i64::MAX / 10, unit }, Duration::ZERO),
                None,
                "{unit:?}"
            );
        }
    }
}
