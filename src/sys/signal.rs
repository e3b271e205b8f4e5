//! The names of signals, and running a program for what it prints.

use std::time::Duration;

use super::received::{CaptureError, Captured};
use super::{os, signals};

/// Runs a program to its end, for at most `timeout`, and takes what it printed, at most `bytes_max`
/// bytes. It gets no standard input, its standard error goes nowhere, and what it may have started
/// itself is not waited for. A killed one may take 100 ms more.
///
/// # Errors
/// [`CaptureError`]; on Windows always `Start(Unsupported)`.
pub fn capture(
    command: &mut std::process::Command,
    timeout: Duration,
    bytes_max: usize,
) -> Result<Captured, CaptureError> {
    os::capture(command, timeout, bytes_max)
}

/// `SIGTERM` for 15, `signal#99` for one without a name.
pub(crate) fn signal_name(signal: i32) -> String {
    signals::name(signal).map_or_else(|| format!("signal#{signal}"), str::to_owned)
}

/// 15 for `15`, `TERM` or `SIGTERM`.
#[cfg(any(feature = "cli", test))]
pub(crate) fn signal_number(word: &str) -> Option<i32> {
    const NUMBER_MAX: i32 = 127;
    let number = word.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number));
    number.or_else(|| {
        let word = word.to_ascii_uppercase();
        let name = word.strip_prefix("SIG").unwrap_or(&word);
        (1..=NUMBER_MAX).find(|number| {
            signals::name(*number).and_then(|full| full.strip_prefix("SIG")) == Some(name)
        })
    })
}
