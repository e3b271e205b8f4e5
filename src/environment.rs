//! The one place that reads environment variables, and the names of those that belong to us.

mod fault;

pub(crate) use crate::environment::fault::{Fault, planted};

use std::ffi::OsString;
use std::path::PathBuf;

/// The store file, where no path was given.
pub(crate) const DB: &str = "INCUMBENT_DB";
/// The profile, where none was named.
pub(crate) const PROFILE: &str = "INCUMBENT_PROFILE";
/// The home of the profile, where none was named: a variable of the command line alone.
#[cfg(feature = "cli")]
pub(crate) const HOME: &str = "INCUMBENT_HOME";
/// The kind of office that the command of a `run` is about.
pub(crate) const KIND: &str = "INCUMBENT_KIND";
/// Names the party that keeps starting this process, in place of what was found out about it.
pub(crate) const PARTY: &str = "INCUMBENT_PARTY";
/// The instance that this process acts for: set by `run` for its command.
pub(crate) const INSTANCE: &str = "INCUMBENT_INSTANCE";
/// The nonce of that instance.
pub(crate) const TOKEN: &str = "INCUMBENT_TOKEN";
/// What a process was given by the one before it: whose tenure, and the numbers of descriptors.
pub(crate) const HANDOVER: &str = "INCUMBENT_HANDOVER";
/// The `incumbent` program, where the library has to start it.
pub(crate) const PROGRAM: &str = "INCUMBENT_PROGRAM";

/// What a program that is told how a command ended (`run --on-end`) finds, each with its field in
/// the document that it reads. What there is nothing to say of is unset.
pub(crate) const OF_END: [(&str, &str); 9] = [
    ("INCUMBENT_END_INSTANCE", "instance"),
    ("INCUMBENT_END_REASON", "end_reason"),
    ("INCUMBENT_END_BY", "ended_by"),
    ("INCUMBENT_END_EXIT_CODE", "exit_code"),
    ("INCUMBENT_END_SIGNAL", "signal"),
    ("INCUMBENT_END_DETAIL", "detail"),
    ("INCUMBENT_END_SUMMARY", "summary"),
    ("INCUMBENT_END_STDERR", "stderr"),
    ("INCUMBENT_END_RESTARTING", "restarting"),
];

/// The guard that is left out, in builds with `switchable-guards`.
#[cfg(feature = "switchable-guards")]
const WITHOUT_GUARD: &str = "INCUMBENT_WITHOUT_GUARD";

/// What is broken on purpose, in builds with `planted-faults`.
#[cfg(feature = "planted-faults")]
const PLANTED_FAULT: &str = "INCUMBENT_PLANTED_FAULT";

/// What keeps a store together that other programs open, too. Each can be left out in a build with
/// the feature `switchable-guards`, so that a test sees what it is good for; otherwise all are in
/// force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "three of them are Linux' locks"))]
pub(crate) enum Guard {
    /// Locks of our own on the `-shm`: without, all is as on a kernel that has no such locks.
    Locks,
    /// The second lock on the database.
    Database,
    /// The lock that says that the `-shm` is in use.
    InUse,
    /// Comparing the files.
    Files,
}

#[cfg(not(feature = "switchable-guards"))]
pub(crate) fn is_in_force(_guard: Guard) -> bool {
    true
}

/// Read once: it is asked with every transaction.
#[cfg(feature = "switchable-guards")]
pub(crate) fn is_in_force(guard: Guard) -> bool {
    static WITHOUT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let name = match guard {
        Guard::Locks => "locks",
        Guard::Database => "database",
        Guard::InUse => "in_use",
        Guard::Files => "files",
    };
    WITHOUT.get_or_init(|| text(WITHOUT_GUARD)).as_deref() != Some(name)
}

/// The value of `name`; `None` when it is unset or empty.
#[allow(clippy::disallowed_methods, reason = "the home of the environment")]
pub(crate) fn value(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The value of `name` as text, invalid UTF-8 replaced.
pub(crate) fn text(name: &str) -> Option<String> {
    value(name).map(|value| value.to_string_lossy().into_owned())
}

/// The value of `name` as a path; `None` when it is relative, as the XDG base directory
/// specification asks.
pub(crate) fn absolute_path(name: &str) -> Option<PathBuf> {
    value(name).map(PathBuf::from).filter(|path| path.is_absolute())
}
