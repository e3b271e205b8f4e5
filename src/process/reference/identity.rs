//! What a reference says of its process, and the text of that: the form is described at
//! [`ProcessRef`](crate::process::ProcessRef).

use std::fmt;

use crate::process::observer::Clocks;
use crate::process::subject::valid_pid;
use crate::sys::{Pid, ProcessNumber, StartTime, StartTimeUnit};
use crate::{Error, Result};

/// What the kernel and the machine say of a process, and when they said it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) pid: Pid,
    pub(super) start_time: Option<StartTime>,
    pub(super) number: Option<ProcessNumber>,
    pub(super) boot_id: Option<String>,
    pub(super) pid_ns: Option<String>,
    pub(super) host: Option<String>,
    pub(super) made: Clocks,
}

const VERSION: &str = "p1";

/// Longer than any that is written.
const LENGTH_MAX: usize = 320;

/// The longest id, in bytes: a UUID has 36.
const WORD_LENGTH_MAX: usize = 64;

const UNITS: [(char, StartTimeUnit); 3] = [
    ('t', StartTimeUnit::Ticks),
    ('u', StartTimeUnit::Microseconds),
    ('f', StartTimeUnit::Filetime),
];

/// Whether an id can stand in the text. All that the platforms give can.
pub(super) fn is_word(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=WORD_LENGTH_MAX).contains(&id.len()) && id.bytes().all(is_allowed)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}.{}", self.pid)?;
        if let Some(StartTime { value, unit }) = self.start_time {
            let tag = UNITS.iter().find(|(_, of)| *of == unit).map_or('t', |(tag, _)| *tag);
            write!(f, ".{tag}{value}")?;
        }
        if let Some(ProcessNumber(number)) = self.number {
            write!(f, ".n{number}")?;
        }
        for (tag, id) in [('b', &self.boot_id), ('s', &self.pid_ns), ('h', &self.host)] {
            if let Some(id) = id {
                write!(f, ".{tag}{id}")?;
            }
        }
        write!(f, ".w{}.c{}", self.made.wall_ms, self.made.boot_ms)
    }
}

pub(super) fn read(text: &str) -> Result<Identity> {
    parse(text).ok_or_else(|| {
        let is_later = text
            .strip_prefix('p')
            .and_then(|rest| rest.split_once('.'))
            .is_some_and(|(version, _)| version.parse().is_ok_and(|number: u32| number > 1));
        let (problem, hint) = if is_later {
            ("it was written by a later version", "read it with that version of incumbent")
        } else {
            ("it is not what a ProcessRef writes", "store the text as it is, without changes")
        };
        Error::invalid(format!("invalid process reference: {problem}")).with_hint(hint)
    })
}

fn parse(text: &str) -> Option<Identity> {
    if text.len() > LENGTH_MAX {
        return None;
    }
    let mut parts = Parts { rest: text.strip_prefix(VERSION)? };
    let pid = valid_pid(parts.next_number(None)?)?;
    let time = UNITS.iter().find_map(|(tag, unit)| Some((parts.tagged(*tag)?, *unit)));
    let start_time = match time {
        Some((digits, unit)) => Some(StartTime { value: number(digits)?, unit }),
        None => None,
    };
    let number = match parts.tagged('n') {
        Some(digits) => Some(ProcessNumber(number(digits)?)),
        None => None,
    };
    let mut id = |tag| match parts.tagged(tag) {
        Some(id) => is_word(id).then(|| Some(id.to_owned())),
        None => Some(None),
    };
    let (boot_id, pid_ns, host) = (id('b')?, id('s')?, id('h')?);
    let made =
        Clocks { wall_ms: parts.next_number(Some('w'))?, boot_ms: parts.next_number(Some('c'))? };
    let is_whole = parts.rest.is_empty() && (start_time.is_some() || number.is_some());
    is_whole.then_some(Identity { pid, start_time, number, boot_id, pid_ns, host, made })
}

/// What is left of a text: each part begins with a dot.
struct Parts<'a> {
    rest: &'a str,
}

impl<'a> Parts<'a> {
    /// The next part without its tag, if it has this one.
    fn tagged(&mut self, tag: char) -> Option<&'a str> {
        let part = self.rest.strip_prefix('.')?.strip_prefix(tag)?;
        let (part, rest) = part.split_at(part.find('.').unwrap_or(part.len()));
        self.rest = rest;
        Some(part)
    }

    /// The next part, which has to be a number.
    fn next_number(&mut self, tag: Option<char>) -> Option<i64> {
        if let Some(tag) = tag {
            return number(self.tagged(tag)?);
        }
        let part = self.rest.strip_prefix('.')?;
        let (part, rest) = part.split_at(part.find('.').unwrap_or(part.len()));
        self.rest = rest;
        number(part)
    }
}

/// Digits as they are written: no sign, no zero in front, so that one reference has one text.
fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let has_zero_in_front = digits.len() > 1 && digits.starts_with('0');
    if !is_plain || has_zero_in_front { None } else { digits.parse().ok() }
}
