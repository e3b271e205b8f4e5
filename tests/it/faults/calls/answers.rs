//! What every answer has to be, whichever verb gives it and whatever failed.

use std::time::Duration;

use serde_json::Value;

use super::errnos;
use super::fault::{Fault, How};
use super::strace::Traced;
use crate::support::Sandbox;

/// Nothing takes longer than this beyond the time that it was asked to take.
pub const BOUND: Duration = Duration::from_secs(15);

/// The kinds of errors, as documents name them.
const KINDS: [&str; 17] = [
    "invalid_input",
    "busy",
    "cannot_read",
    "cannot_write",
    "permission",
    "filesystem",
    "not_ours",
    "too_new",
    "too_old",
    "corrupt",
    "profile_belongs_to",
    "store_replaced",
    "not_owner",
    "not_running",
    "forked",
    "unsupported",
    "internal",
];

/// The one document of an answer.
pub fn document(out: &str) -> Option<Value> {
    serde_json::from_str(out.trim()).ok()
}

/// Of an answer: `success`, the kind of its error, or what else it is. For the table.
pub fn class(traced: &Traced, fault: &Fault, expected: i32) -> String {
    let kind = document(&traced.out)
        .and_then(|document| Some(document.get("error")?.get("kind")?.as_str()?.to_owned()));
    match (traced.code, kind) {
        (137, _) if fault.kills() => "killed, then the next start".to_owned(),
        (_, Some(kind)) => format!("error: {kind}"),
        (code, None) if code == expected => "as without a fault".to_owned(),
        (75, None) => "refused (75)".to_owned(),
        (4, None) => "unknown (4)".to_owned(),
        (code, None) => format!("exit code {code}"),
    }
}

/// Why an answer is wrong, whatever was asked.
pub fn wrong(sandbox: &Sandbox, traced: &Traced, fault: &Fault) -> Option<String> {
    if traced.err.contains("panicked") {
        return Some("a panic".to_owned());
    }
    if let Some(signal) = traced.crash(fault) {
        return Some(format!("ended by {signal}"));
    }
    if fault.kills() || !traced.met(fault) {
        return None;
    }
    // Whoever cannot write his answer says so on standard error, and keeps his exit code.
    let is_of_output = |line: &str| line.contains("write(1<") || line.contains("writev(1<");
    let has_failed = [70, 75, 78].contains(&traced.code);
    if !has_failed || traced.hits().any(is_of_output) {
        return None;
    }
    let Some(document) = document(&traced.out) else {
        // For people, metrics and what comes from the command of a `run`.
        return traced.err.is_empty().then(|| "failed, and said nothing".to_owned());
    };
    let error = document.get("error")?;
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    if !KINDS.contains(&text("kind")) {
        return Some(format!("an error of the kind {:?}", text("kind")));
    }
    // What was told that there is no such thing speaks of that.
    if fault.is_answer() {
        return None;
    }
    let said = format!("{} {} {}", text("message"), text("path"), text("hint"));
    let is_named = names(&said, sandbox, traced.hits(), fault);
    (!is_named).then(|| format!("names nothing that failed: {said}"))
}

/// Whether words name what failed: a path of this store, the object of the call, or what the kernel
/// said of it.
pub fn names<'a>(
    said: &str,
    sandbox: &Sandbox,
    hits: impl Iterator<Item = &'a str>,
    fault: &Fault,
) -> bool {
    let How::Fails(errno) = fault.how else { return true };
    let is_of_the_store = sandbox.path().to_str().is_some_and(|path| said.contains(path));
    let mut objects = hits.flat_map(objects_of);
    // A helper of ours failed, and the words are about that.
    let is_of_a_keeper = said.contains("keeper process");
    // The C library says that of every thread that the kernel has not made.
    let is_of_a_thread = fault.call.starts_with("clone") && said.contains(&errnos::words("EAGAIN"));
    is_of_the_store
        || is_of_a_keeper
        || is_of_a_thread
        || said.contains(&errnos::words(errno))
        || objects.any(|object| said.contains(object))
}

/// The names of files that a line of a trace tells: `3</a/b>` and `"/a/b"` are both `b`.
fn objects_of(line: &str) -> impl Iterator<Item = &str> {
    line.split(['<', '>', '"'])
        .filter(|piece| piece.starts_with('/'))
        .filter_map(|path| path.rsplit('/').next())
        .filter(|name| !name.is_empty())
}

/// Whether something is slow by itself: it took longer than `bound`, does so again, and what
/// nothing disturbs is quick on this machine at this moment.
pub fn is_slow(
    took: Duration,
    bound: Duration,
    again: impl FnOnce() -> Duration,
    undisturbed: impl FnOnce() -> Duration,
) -> bool {
    took > bound && again() > bound && undisturbed() < bound / 3
}

#[test]
fn a_line_of_a_trace_tells_its_objects() {
    let of = |line| objects_of(line).collect::<Vec<_>>();
    let unlocked = "7 fcntl(5</tmp/a/state.db>, F_SETLK, {l_type=F_RDLCK}) = -1 EIO (INJECTED)";
    assert_eq!(of(unlocked), ["state.db"]);
    assert_eq!(of("7 openat(AT_FDCWD</tmp/a>, \"/proc/7/stat\", O_RDONLY)"), ["a", "stat"]);
}
