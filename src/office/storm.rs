//! Storms: a party that starts again and again without getting or keeping the office.
//!
//! The count lives in the store, so that it outlives the processes it is about (FIELD-BUGS row 46:
//! breakers inside the process forget). It is per office and party, a pure function of boot times
//! in `starts` (`assess`), and it only ever delays that party's `run`, before it claims. When the
//! storm came of another holder, that holder's end ends the sleep.

use rusqlite::{Connection, named_params};

use crate::environment::{Fault, planted};
use crate::{Office, Result};

/// Starts within this time belong together.
const WINDOW_MS: i64 = 120_000;

/// So many of them are an unlucky evening; one more is a storm.
const STARTS_MAX: usize = 5;

/// The first backoff; it doubles with each start that waited for it in vain.
const BACKOFF_FIRST_MS: i64 = 5_000;

/// The longest: a person who repaired the cause waits no longer than this.
pub(crate) const BACKOFF_MAX_MS: i64 = 300_000;

/// As many as a storm needs to reach the longest backoff and stay there.
const STARTS_CONSIDERED: usize = 64;

/// A storm in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Storm {
    /// Counted starts of the party that belong to it, at most [`STARTS_CONSIDERED`].
    pub(crate) starts: usize,
    /// Boot time before which the party should not start again.
    pub(crate) until_boot_ms: i64,
    /// The last of them was refused by a holder on record: the storm is about that holder, and ends
    /// with it.
    pub(crate) after_refusal: bool,
}

impl Storm {
    /// What is left of the backoff.
    pub(crate) fn remaining_ms(&self, now_boot_ms: i64) -> u64 {
        u64::try_from(self.until_boot_ms.saturating_sub(now_boot_ms)).unwrap_or(0)
    }
}

fn backoff_ms(level: u32) -> i64 {
    BACKOFF_FIRST_MS.saturating_mul(1 << (level - 1).min(16)).min(BACKOFF_MAX_MS)
}

/// What follows from the boot times of a party's counted starts, oldest first.
fn assess(starts_ms: &[i64], now_ms: i64) -> Option<Storm> {
    struct Level {
        number: u32,
        reached_ms: i64,
        first: usize,
    }
    let mut level: Option<Level> = None;
    for (index, &at_ms) in starts_ms.iter().enumerate() {
        level = match level {
            // Still the same storm: it grows only by starts that waited for their backoff, so that
            // thirty starts at once weigh no more than six.
            Some(storm) if at_ms - starts_ms[index - 1] <= WINDOW_MS + backoff_ms(storm.number) => {
                if at_ms - storm.reached_ms >= backoff_ms(storm.number) {
                    Some(Level { number: storm.number + 1, reached_ms: at_ms, ..storm })
                } else {
                    Some(storm)
                }
            }
            Some(_) | None => {
                let first = starts_ms[..index].partition_point(|&ms| at_ms - ms >= WINDOW_MS);
                let is_storm = index + 1 - first > STARTS_MAX && !planted(Fault::StormUnnoticed);
                is_storm.then_some(Level { number: 1, reached_ms: at_ms, first })
            }
        };
    }
    let storm = level?;
    let last_ms = *starts_ms.last()?;
    let backoff_ms = backoff_ms(storm.number);
    (now_ms - last_ms <= WINDOW_MS + backoff_ms).then_some(Storm {
        starts: starts_ms.len() - storm.first,
        until_boot_ms: last_ms + backoff_ms,
        after_refusal: false,
    })
}

/// The storm that `party` is in at `office`, if any.
pub(crate) fn of(
    connection: &Connection,
    office: &Office,
    party: &str,
    boot_id: Option<&str>,
    now_boot_ms: i64,
) -> Result<Option<Storm>> {
    const SQL: &str = "SELECT at_boot_ms, holder_id IS NOT NULL FROM starts
        WHERE profile = :profile AND kind = :kind AND counted = 1 AND party = :party
          AND boot_id IS :boot_id AND at_boot_ms BETWEEN 0 AND :now
        ORDER BY id DESC LIMIT :limit";
    let starts: Vec<(i64, bool)> = connection
        .prepare_cached(SQL)?
        .query_map(
            named_params! {
                ":profile": office.profile.as_str(),
                ":kind": office.kind.as_str(),
                ":party": party,
                ":boot_id": boot_id,
                ":now": now_boot_ms,
                ":limit": i64::try_from(STARTS_CONSIDERED).ok(),
            },
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .collect::<rusqlite::Result<_>>()?;
    let after_refusal = starts.first().is_some_and(|(_, refused)| *refused);
    let mut starts_ms: Vec<i64> = starts.into_iter().map(|(at_ms, _)| at_ms).collect();
    starts_ms.sort_unstable();
    Ok(assess(&starts_ms, now_boot_ms).map(|storm| Storm { after_refusal, ..storm }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(seconds: &[i64], now_s: i64) -> Option<i64> {
        let starts_ms: Vec<i64> = seconds.iter().map(|s| s * 1_000).collect();
        assess(&starts_ms, now_s * 1_000).map(|storm| {
            assert!(storm.starts > STARTS_MAX);
            storm.until_boot_ms / 1_000 - seconds.last().unwrap()
        })
    }

    #[test]
    fn five_starts_are_no_storm_and_six_are() {
        assert_eq!(backoff(&[], 0), None);
        assert_eq!(backoff(&[0, 1, 2, 3, 4], 5), None);
        assert_eq!(backoff(&[0, 1, 2, 3, 4, 5], 6), Some(5));
        assert_eq!(backoff(&[0, 30, 60, 90, 119, 120], 120), None, "120 s apart");
    }

    #[test]
    fn the_backoff_doubles_up_to_its_cap_while_the_party_waits_for_it() {
        let mut starts = vec![0, 0, 0, 0, 0, 0];
        for expected in [5, 10, 20, 40, 80, 160, 300, 300, 300] {
            let last = *starts.last().unwrap();
            assert_eq!(backoff(&starts, last), Some(expected));
            starts.push(last + expected);
        }
    }

    #[test]
    fn impatience_does_not_raise_the_backoff() {
        assert_eq!(backoff(&[0; 30], 0), Some(5));
        assert_eq!(backoff(&[0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 4), Some(5));
    }

    #[test]
    fn a_storm_ends_when_the_party_rests() {
        let starts = [0, 0, 0, 0, 0, 0];
        assert_eq!(backoff(&starts, 125), Some(5));
        assert_eq!(backoff(&starts, 126), None);
        assert_eq!(backoff(&[0, 0, 0, 0, 0, 0, 200], 200), None);
    }
}
