//! Durations as systemd writes them: `90s`, `1min 30s`, `500ms`, `1.5h`, `infinity`; a bare number
//! is seconds. Grammar: systemd.time(7), "Parsing Time Spans".
//!
//! What `systemd-analyze timespan` accepts comes to the same microseconds here, and what it refuses
//! is refused, with one exception: `ns` and `nsec`, which systemd takes only for settings that are
//! that fine. A negative span is none, there as here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, Result};

/// A time span as systemd writes it in its unit files. A bare number is seconds. `FromStr` says
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) to any other text.
///
/// ```
/// use incumbent::forensics::Span;
/// use std::time::Duration;
///
/// assert_eq!("1min 30s".parse::<Span>()?, Span::Finite(Duration::from_secs(90)));
/// assert_eq!("infinity".parse::<Span>()?, Span::Infinite);
/// assert_eq!(Span::Finite(Duration::from_millis(1_500)).to_string(), "1500ms");
/// # Ok::<(), incumbent::Error>(())
/// ```
///
/// # References
/// systemd.time(7), "Parsing Time Spans". Beyond what `systemd-analyze timespan` accepts, `ns` and
/// `nsec` are units. As there, a fraction counts to whole microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// One that ends.
    Finite(Duration),
    /// `infinity`.
    Infinite,
}

impl FromStr for Span {
    type Err = Error;

    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), also for a negative span and for one of
    /// 2^64 microseconds or more.
    fn from_str(text: &str) -> Result<Self> {
        parse(text)
    }
}

impl fmt::Display for Span {
    /// In one unit, without loss: `90s`, `1500ms`, `infinity`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Infinite => f.write_str("infinity"),
            Self::Finite(duration) => {
                let ns = duration.as_nanos();
                let (unit_ns, unit) =
                    [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns")]
                        .into_iter()
                        .find(|(unit_ns, _)| ns % unit_ns == 0)
                        .unwrap_or((1, "ns"));
                write!(f, "{}{unit}", ns / unit_ns)
            }
        }
    }
}

const NS_PER_US: u128 = 1_000;

/// Unit names and their length in nanoseconds. `m` is a minute and `M` a month (30.44 days); a year
/// has 365.25 days, as systemd counts them.
const UNITS: [(&[&str], u128); 10] = [
    (&["nsec", "ns"], 1),
    (&["usec", "us", "\u{b5}s", "\u{3bc}s"], 1_000),
    (&["msec", "ms"], 1_000_000),
    (&["seconds", "second", "sec", "s", ""], 1_000_000_000),
    (&["minutes", "minute", "min", "m"], 60 * 1_000_000_000),
    (&["hours", "hour", "hr", "h"], 3_600 * 1_000_000_000),
    (&["days", "day", "d"], 86_400 * 1_000_000_000),
    (&["weeks", "week", "w"], 604_800 * 1_000_000_000),
    (&["months", "month", "M"], 2_629_800 * 1_000_000_000),
    (&["years", "year", "y"], 31_557_600 * 1_000_000_000),
];

/// What separates the parts, for systemd: no other white space does.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// What strtol(3), which reads systemd's numbers, skips in front of them besides.
const SKIPPED: [char; 6] = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];

/// Parses a time span.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming what is not a time span.
pub(crate) fn parse(text: &str) -> Result<Span> {
    let trimmed = text.trim_matches(BLANKS);
    if trimmed == "infinity" {
        return Ok(Span::Infinite);
    }
    finite(trimmed).map(Span::Finite).ok_or_else(|| {
        Error::invalid(format!("{text:?} is not a time span"))
            .with_hint("write e.g. 90s, 1min 30s, 500ms, 2h or infinity; a bare number is seconds")
    })
}

/// What `systemctl show` prints of a property that ends in `USec`: microseconds if it is a bare
/// number, a time span otherwise.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_usec(text: &str) -> Result<Span> {
    match text.parse::<u64>() {
        Ok(u64::MAX) => Ok(Span::Infinite),
        Ok(us) => Ok(Span::Finite(Duration::from_micros(us))),
        Err(_) => parse(text),
    }
}

fn finite(text: &str) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let mut total_ns: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (part_ns, tail) = part(rest)?;
        total_ns = total_ns.checked_add(part_ns)?;
        rest = tail.trim_start_matches(BLANKS);
    }
    let us = u64::try_from(total_ns / NS_PER_US).ok().filter(|us| *us < u64::MAX)?;
    let remainder = Duration::from_nanos(u64::try_from(total_ns % NS_PER_US).ok()?);
    Some(Duration::from_micros(us) + remainder)
}

/// The first number of `text` with its unit, in nanoseconds, and what comes after them.
fn part(text: &str) -> Option<(u128, &str)> {
    let (whole, rest) = whole(text)?;
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("0", rest),
    };
    if fraction.is_empty() {
        return None;
    }
    let unit_at = rest.trim_start_matches(BLANKS);
    let length = unit_at.find(|c: char| !c.is_alphabetic()).unwrap_or(unit_at.len());
    let (unit, tail) = unit_at.split_at(length);
    // Without a unit a blank has to follow, so that 1.2.3 is no number.
    if unit.is_empty() && !tail.is_empty() && tail.len() == rest.len() {
        return None;
    }
    let (_, unit_ns) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
    Some((number_ns(whole, fraction, *unit_ns)?, tail))
}

/// The digits in front of the point, which may be missing: but then so are blanks and sign.
fn whole(text: &str) -> Option<(i64, &str)> {
    let number = text.trim_start_matches(SKIPPED);
    let (whole, rest) = digits(number.strip_prefix('+').unwrap_or(number));
    if whole.is_empty() {
        return text.starts_with('.').then_some((0, text));
    }
    Some((whole.parse().ok()?, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A decimal number of units in nanoseconds. As systemd computes it: each digit behind the point
/// counts the tenth part of the place before it, in whole microseconds.
fn number_ns(whole: i64, fraction: &str, unit_ns: u128) -> Option<u128> {
    let whole = u128::try_from(whole).ok()?;
    let microseconds = unit_ns / NS_PER_US;
    if microseconds > 0 && whole >= u128::from(u64::MAX) / microseconds {
        return None;
    }
    let mut ns = whole.checked_mul(unit_ns)?;
    let mut place_us = microseconds / 10;
    for digit in fraction.bytes() {
        ns = ns.checked_add(u128::from(digit - b'0') * place_us * NS_PER_US)?;
        place_us /= 10;
    }
    Some(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the real tool says, of every kind of input that the manual page knows, and of many that
    /// it does not.
    const SYSTEMD: &str = include_str!("../tests/fixtures/timespan/systemd-252");

    #[test]
    fn spans_are_what_systemd_makes_of_them() {
        let mut seen = 0;
        for line in SYSTEMD.lines().filter(|line| !line.starts_with('#')) {
            let (text, expected) = line.split_once('\t').unwrap();
            let text: String = serde_json::from_str(text).unwrap();
            let found = match parse(&text) {
                Ok(Span::Infinite) => "infinity".to_owned(),
                Ok(Span::Finite(duration)) => duration.as_micros().to_string(),
                Err(_) => "invalid".to_owned(),
            };
            let is_in_nanoseconds = ["1ns", "1nsec", "1000ns", "5 ns"].contains(&text.as_str());
            if is_in_nanoseconds {
                // The one deliberate difference, see the module's documentation.
                assert_eq!(expected, "invalid", "{text:?}");
                assert_ne!(found, "invalid", "{text:?}");
            } else {
                assert_eq!(found, expected, "{text:?}");
            }
            seen += 1;
        }
        assert!(seen > 200, "{seen} lines");
    }

    /// systemd takes them where a setting is that fine (`TimerSlackNSec=`), and refuses them here.
    #[test]
    fn nanoseconds_are_units_too() {
        for (text, ns) in [
            ("7ns", 7),
            ("1500 nsec", 1_500),
            ("1us 7ns", 1_007),
            ("1.9ns", 1),
            ("2s 1ns", 2_000_000_001),
        ] {
            assert_eq!(parse(text).unwrap(), Span::Finite(Duration::from_nanos(ns)), "{text}");
        }
    }

    #[test]
    fn a_bare_number_of_a_usec_property_is_microseconds() {
        let us = |us| Span::Finite(Duration::from_micros(us));
        for (text, expected) in [
            ("90000000", us(90_000_000)),
            ("1min 30s", us(90_000_000)),
            ("0", us(0)),
            ("infinity", Span::Infinite),
            ("18446744073709551615", Span::Infinite),
            ("500ms", us(500_000)),
        ] {
            assert_eq!(parse_usec(text).unwrap(), expected, "{text}");
        }
        assert!(parse_usec("").is_err() && parse_usec("-1").is_err());
    }

    #[test]
    fn what_is_no_span_is_named() {
        let error = parse("1 fortnight").unwrap_err();
        assert!(error.to_string().contains("\"1 fortnight\" is not a time span"), "{error}");
        assert!(error.hint().is_some());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = parse(&text);
            let _ = parse_usec(&text);
        }

        #[test]
        fn nothing_near_the_grammar_panics(text in "[0-9.+ nusmhdwyM\t-]{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_shown_is_read(ns in 0_u64..) {
            let span = Span::Finite(Duration::from_nanos(ns));
            let is_read = span.to_string().parse::<Span>();
            // strtol(3) counts to 2^63.
            if ns < 1 << 63 {
                proptest::prop_assert_eq!(is_read.unwrap(), span);
            }
        }

        #[test]
        fn milliseconds_survive(ms in 0_u64..1_000_000_000_000) {
            let expected = Span::Finite(Duration::from_millis(ms));
            proptest::prop_assert_eq!(parse(&format!("{ms}ms")).unwrap(), expected);
            let seconds = format!("{}.{:03}", ms / 1_000, ms % 1_000);
            proptest::prop_assert_eq!(parse(&seconds).unwrap(), expected);
        }
    }
}
