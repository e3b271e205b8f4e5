//! Values of arguments: durations, times, signals, names.

use std::time::Duration;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use crate::exit::{ExitCause, ExitRule, Supervisor};
use crate::forensics::Span;
use crate::marker::MarkerName;
use crate::run::Forward;
use crate::status::{Desired, Event};
use crate::{ProfileName, Wait, clock, span, sys};

/// A sign of life, and the promise that may come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cadence {
    Unsaid,
    Every(Duration),
}

/// A moment, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    Now,
    At { ms: i64 },
}

/// How a service manager learns that a command has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartType {
    Simple,
    Notify,
}

pub(super) fn parse_start_type(text: &str) -> Result<StartType, String> {
    match text {
        "simple" => Ok(StartType::Simple),
        "notify" => Ok(StartType::Notify),
        _ => Err("use `simple` or `notify`".to_owned()),
    }
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    match span::parse(text) {
        Ok(Span::Finite(duration)) => Ok(duration),
        Ok(Span::Infinite) => Err("it must be finite".to_owned()),
        Err(error) => Err(explain(&error)),
    }
}

pub(super) fn parse_wait(text: &str) -> Result<Wait, String> {
    match span::parse(text) {
        Ok(Span::Finite(duration)) => Ok(Wait::UpTo(duration)),
        Ok(Span::Infinite) => Ok(Wait::Forever),
        Err(error) => Err(explain(&error)),
    }
}

pub(super) fn parse_cadence(text: &str) -> Result<Cadence, String> {
    if text.is_empty() {
        return Ok(Cadence::Unsaid);
    }
    parse_duration(text).map(Cadence::Every)
}

pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err("use `true` or `false`".to_owned()),
    }
}

pub(super) fn parse_time(text: &str) -> Result<Time, String> {
    /// A number from here on counts milliseconds: as seconds it is after the year 5138.
    const MS_MIN: f64 = 1e11;
    let refused = || {
        format!(
            "{text:?} is not a valid time: `2026-11-22T08:15:00Z`, Unix seconds \
             (`1795334400`), or `now`"
        )
    };
    if text == "now" {
        return Ok(Time::Now);
    }
    let ms = match text.parse::<f64>() {
        #[allow(clippy::cast_possible_truncation, reason = "bounded by the next check")]
        Ok(number) if number.is_finite() => {
            (if number < MS_MIN { number * 1_000.0 } else { number }) as i64
        }
        Ok(_) => return Err(refused()),
        Err(_) => {
            chrono::DateTime::parse_from_rfc3339(text).map_err(|_| refused())?.timestamp_millis()
        }
    };
    if clock::rfc3339(ms).is_none() {
        return Err(refused());
    }
    Ok(Time::At { ms })
}

/// The name of an event: of another one there is none, and that looks like a quiet night.
pub(super) fn parse_event(name: &str) -> Result<String, String> {
    if Event::NAMES.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("there is no such event; there are {}", Event::NAMES.join(", ")))
}

/// How many: none is no question.
pub(super) fn parse_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("use at least 1; without the option all are shown".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(error.to_string()),
    }
}

/// A moment of the past, in Unix milliseconds: how long ago (a number alone: seconds), a day, a
/// time of today, or what [`parse_time`] reads. Days and times without a zone are UTC, as all that
/// we print.
pub(super) fn parse_moment(text: &str) -> Result<i64, String> {
    const WITHOUT_ZONE: [&str; 4] =
        ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"];
    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
    /// A smaller number counts seconds, as it does in a duration: so long ago no store was there.
    const UNIX_TIME_MIN: f64 = 1e9;
    let now_ms = clock::now_ms();
    let midnight_ms = now_ms - now_ms.rem_euclid(DAY_MS);
    let text = text.trim();
    let is_duration = text.parse::<f64>().is_ok_and(|number| number < UNIX_TIME_MIN);
    let ms = match text {
        "now" => Some(now_ms),
        "today" => Some(midnight_ms),
        "yesterday" => Some(midnight_ms - DAY_MS),
        _ if is_duration => None,
        _ => match parse_time(text) {
            Ok(Time::At { ms }) => Some(ms),
            Ok(Time::Now) | Err(_) => None,
        },
    };
    // Of today, which may be yet to come.
    let ms = ms.or_else(|| {
        let time = |form: &&str| NaiveTime::parse_from_str(text, form).ok();
        let time = ["%H:%M", "%H:%M:%S"].iter().find_map(time)?;
        Some(midnight_ms + i64::from(time.num_seconds_from_midnight()) * 1_000)
    });
    let ms = ms.or_else(|| {
        let day = text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0)?;
        Some(day.and_utc().timestamp_millis())
    });
    let ms = ms.or_else(|| {
        let parsed = |form: &&str| NaiveDateTime::parse_from_str(text, form).ok();
        Some(WITHOUT_ZONE.iter().find_map(parsed)?.and_utc().timestamp_millis())
    });
    let ms = ms.or_else(|| {
        let duration = text.strip_suffix("ago").unwrap_or(text).trim();
        Some(now_ms.saturating_sub(clock::millis(parse_duration(duration).ok()?)))
    });
    ms.filter(|ms| clock::rfc3339(*ms).is_some()).ok_or_else(|| {
        format!(
            "{text:?} is not a valid time: `2h` (that long ago), `13:59` (today, UTC), \
             `yesterday`, `2026-11-22`, `2026-11-22 03:00` (UTC), `2026-11-22T03:00:00Z`, or Unix \
             seconds"
        )
    })
}

pub(super) fn parse_exit_code(text: &str) -> Result<(ExitCause, ExitRule), String> {
    let Some((cause, code)) = text.split_once('=') else {
        return Err("use the form CAUSE=CODE".to_owned());
    };
    let cause: ExitCause = cause.parse().map_err(|error| explain(&error))?;
    if code == "own" {
        return Ok((cause, ExitRule::Own));
    }
    match code.parse() {
        Ok(code) => Ok((cause, ExitRule::Code(code))),
        Err(_) => {
            Err(format!("{code:?} is not a valid exit code: a number from 0 to 255, or `own`"))
        }
    }
}

pub(super) fn parse_supervisor(text: &str) -> Result<Supervisor, String> {
    text.parse().map_err(|error| explain(&error))
}

pub(super) fn parse_lines(text: &str) -> Result<usize, String> {
    const LINES_MAX: usize = 1_000;
    match text.parse() {
        Ok(lines) if (1..=LINES_MAX).contains(&lines) => Ok(lines),
        Ok(_) | Err(_) => Err(format!("a whole number from 1 to {LINES_MAX}")),
    }
}

pub(super) fn parse_forward(text: &str) -> Result<Forward, String> {
    text.parse().map_err(|error| explain(&error))
}

/// One that reads a unit.
pub(super) fn parse_unit_supervisor(text: &str) -> Result<Supervisor, String> {
    match parse_supervisor(text)? {
        Supervisor::None => Err("one of systemd, launchd, s6, docker".to_owned()),
        supervisor => Ok(supervisor),
    }
}

pub(super) fn parse_desired(text: &str) -> Result<Desired, String> {
    text.parse().map_err(|error| explain(&error))
}

pub(super) fn parse_marker(text: &str) -> Result<MarkerName, String> {
    MarkerName::new(text).map_err(|error| explain(&error))
}

pub(super) fn parse_profile(text: &str) -> Result<ProfileName, String> {
    ProfileName::new(text).map_err(|error| explain(&error))
}

fn explain(error: &crate::Error) -> String {
    match error.command_line_hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

pub(super) fn parse_pid(text: &str) -> Result<u32, String> {
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(pid.unsigned_abs()),
        Ok(_) | Err(_) => Err("a pid is a whole number above 0".to_owned()),
    }
}

pub(super) fn parse_signal(word: &str) -> Result<i32, String> {
    sys::signal_number(word).ok_or_else(|| "use a number or a name: 15, TERM or SIGTERM".to_owned())
}
