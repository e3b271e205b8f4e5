//! Durations as systemd writes them: `90s`, `1min 30s`, `500ms`, `1.5h`, `infinity`; a bare number
//! is seconds. Grammar: systemd.time(7), "Parsing Time Spans".

use std::time::Duration;

use crate::error::{Error, Result};

/// A parsed time span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    Finite(Duration),
    Infinite,
}

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

/// Digits that still fit the arithmetic; a longer number is no duration anybody means.
const DIGITS_MAX: usize = 18;

/// Parses a time span.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the part that is no time span.
pub(crate) fn parse(text: &str) -> Result<Span> {
    let trimmed = text.trim();
    if trimmed == "infinity" {
        return Ok(Span::Infinite);
    }
    let malformed = || {
        Error::invalid(format!("{text:?} is no time span"))
            .with_hint("write e.g. 90s, 1min 30s, 500ms, 2h or infinity; a bare number is seconds")
    };
    if trimmed.is_empty() {
        return Err(malformed());
    }
    let mut total_ns: u128 = 0;
    let mut rest = trimmed;
    while !rest.is_empty() {
        let number_length =
            rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_length);
        let tail = tail.trim_start();
        let unit_length = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_length);
        let unit_ns = UNITS
            .iter()
            .find_map(|(names, ns)| names.contains(&unit).then_some(*ns))
            .ok_or_else(malformed)?;
        let part_ns = number_ns(number, unit_ns).ok_or_else(malformed)?;
        total_ns = total_ns.saturating_add(part_ns);
        rest = tail.trim_start();
    }
    let seconds = u64::try_from(total_ns / 1_000_000_000).map_err(|_| malformed())?;
    let nanoseconds = u32::try_from(total_ns % 1_000_000_000).map_err(|_| malformed())?;
    Ok(Span::Finite(Duration::new(seconds, nanoseconds)))
}

/// A decimal number of units in nanoseconds, computed without floating point.
fn number_ns(number: &str, unit_ns: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.len() <= DIGITS_MAX && text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let parse = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole_ns = parse(whole)?.checked_mul(unit_ns)?;
    let fraction_ns = parse(fraction)?.checked_mul(unit_ns)? / scale;
    whole_ns.checked_add(fraction_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_systemd_reads_them() {
        let ms = |ms| Span::Finite(Duration::from_millis(ms));
        for (text, expected) in [
            ("0", ms(0)),
            ("90", ms(90_000)),
            ("90s", ms(90_000)),
            ("1min 30s", ms(90_000)),
            ("1min30s", ms(90_000)),
            ("1 min 30 s", ms(90_000)),
            ("2h", ms(7_200_000)),
            ("500ms", ms(500)),
            ("1.5s", ms(1_500)),
            (".5s", ms(500)),
            ("1m", ms(60_000)),
            ("1M", ms(2_629_800_000)),
            ("1w 1d", ms(691_200_000)),
            ("1500 usec", Span::Finite(Duration::from_micros(1_500))),
            ("2\u{b5}s", Span::Finite(Duration::from_micros(2))),
            ("7ns", Span::Finite(Duration::from_nanos(7))),
            (" infinity ", Span::Infinite),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_named() {
        let huge = "9".repeat(40);
        for text in
            ["", " ", "-1", "s", "1 fortnight", "1.2.3s", "1s,2s", "0x10", "1e3", ".", "..", &huge]
        {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains("no time span"), "{text}: {error}");
            assert!(error.hint().is_some());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = parse(&text);
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
