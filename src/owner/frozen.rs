//! An owner that its control group has frozen (`docker pause`, `systemctl freeze`): it lives, and
//! holds what it holds, but answers nobody, and sees what it was asked when it is thawed. And a
//! `run` whose command alone is stopped by a signal.
//!
//! Looked at where people ask, and not in the verdict: it decides nothing.

use std::path::Path;

use crate::liveness::{AnchorState, ChildState, Flags, Judgement, Observed, Ruling};
use crate::path_text::quoted;
use crate::process::anchor;
use crate::records::Record;
use crate::store::Inner;
use crate::sys;
use crate::sys::{ListedLock, Pid, ProcessState, freezer};

/// Adds to a judgement whether a living owner is frozen: the command of a `run`, else its process;
/// and whether its command is stopped.
pub(crate) fn seen(inner: &Inner, record: &Record, judged: Judgement) -> Judgement {
    let is_alive = matches!(judged.ruling, Ruling::Alive(_));
    let frozen = is_alive && is_frozen(record, &judged, &inner.location.anchors);
    let command_stopped = is_alive && !judged.flags.stopped && is_command_stopped(record, &judged);
    Judgement { flags: Flags { command_stopped, frozen, ..judged.flags }, ..judged }
}

fn is_command_stopped(record: &Record, judged: &Judgement) -> bool {
    let seen = &judged.evidence;
    let child = record.child_pid.filter(|_| seen.is_here() && seen.child == ChildState::Alive);
    child.is_some_and(|pid| sys::process_facts(pid).state == ProcessState::Stopped)
}

fn is_frozen(record: &Record, judged: &Judgement, anchors: &Path) -> bool {
    let seen = &judged.evidence;
    let is_frozen = |pid: Option<Pid>| pid.is_some_and(|pid| freezer::frozen(pid).is_some());
    if seen.is_here() {
        let process = record.pid.filter(|_| seen.observed() == Observed::Alive);
        let child = record.child_pid.filter(|_| seen.child == ChildState::Alive);
        // Both are in one group, as a rule, and the command is who answers.
        return is_frozen(child.or(process));
    }
    // Whoever is asked about a paused container is asked from outside of it. Its pids are others
    // there, but the kernel says who holds the lock, by the number that we know it by.
    if seen.anchor != AnchorState::Held {
        return false;
    }
    let Some(name) = record.anchor.as_deref().and_then(anchor::file_name) else { return false };
    match sys::listed_lock(&anchors.join(name)) {
        ListedLock::Held(holder) => is_frozen(holder),
        ListedLock::Free | ListedLock::Unknown | ListedLock::NoList => false,
    }
}

/// What thaws an owner, as a clause for people. `pids` are those of this namespace, `supervisor` is
/// as its row says it.
pub(crate) fn how_to_thaw(pids: [Option<Pid>; 2], supervisor: Option<&str>) -> String {
    let word = supervisor.unwrap_or_default();
    let by_name = match word.split_once(':') {
        Some(("container", id)) if is_id(id) => Some(format!("`docker unpause {id}`")),
        Some(("container", _)) => Some("`docker unpause`".to_owned()),
        Some(("systemd", unit)) => Some(format!("`systemctl thaw {}`", quoted(unit))),
        _ => None,
    };
    let group = pids.into_iter().flatten().find_map(freezer::frozen);
    let by_file = group.map(|it| format!("`echo {} > {}`, as root", it.word, quoted(&it.file)));
    let ways: Vec<String> = by_name.into_iter().chain(by_file).collect();
    if ways.is_empty() {
        return "`docker unpause`, or what has frozen it".to_owned();
    }
    ways.join(", or ")
}

/// Whether it can be the id of a container: a row may say anything, and this is meant for a paste.
fn is_id(id: &str) -> bool {
    id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_froze_it_thaws_it() {
        let container = format!("container:{}", "a1".repeat(32));
        for (supervisor, expected) in [
            (Some(container.as_str()), format!("`docker unpause {}`", "a1".repeat(32))),
            (Some("container:docker"), "`docker unpause`".to_owned()),
            (Some("container:$(reboot)"), "`docker unpause`".to_owned()),
            (Some("systemd:gw.service"), "`systemctl thaw gw.service`".to_owned()),
            (Some("none"), "`docker unpause`, or what has frozen it".to_owned()),
            (None, "`docker unpause`, or what has frozen it".to_owned()),
        ] {
            assert_eq!(how_to_thaw([None, None], supervisor), expected);
        }
    }
}
