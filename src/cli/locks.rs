//! `locks` and `unlock`: who holds what, and removing what the dead left.

use serde_json::json;

use crate::cli::args;
use crate::cli::args::Global;
use crate::cli::context::by_us;
use crate::cli::evict::Bereft;
use crate::cli::identity::{name, scope};
use crate::cli::output::{Answer, Complaint, Outcome, Style, ago, exit, one_line, since};
use crate::clock::{length, millis};
use crate::lock::{IdentityHash, LockReport, Slot, Unlocked, UnlockedLock};
use crate::path_text::quoted;
use crate::stop::Force;
use crate::{Existing, Holder, InstanceId, LockName, ProfileName, Result, Store, Verdict, Wanted};
use std::time::Duration;

pub(super) fn locks(global: &Global, arguments: &args::Locks) -> Outcome {
    let wanted = arguments.scope.as_deref().map(scope).transpose()?;
    let one = one_lock(arguments)?;
    let (mut reports, may_be_lost) = match global.find_for_one_answer()? {
        Existing::Store(store) => (store.locks()?, false),
        // Its owner may be at work, with locks that nobody can see.
        Existing::LostOwner { .. } => (Vec::new(), true),
        Existing::Nothing => (Vec::new(), false),
    };
    reports.retain(|report| {
        wanted.as_ref().is_none_or(|scope| *scope == report.name.scope)
            && one.as_ref().is_none_or(|name| *name == report.name)
    });
    let has = |verdict| reports.iter().any(|report| report.verdict == verdict);
    let code = match &one {
        None => exit::OK,
        Some(_) if has(Verdict::Alive) => exit::OK,
        Some(_) if has(Verdict::Unknown) || may_be_lost => exit::UNKNOWN,
        Some(_) => exit::NOT_RUNNING,
    };
    let text = match (&one, &wanted) {
        _ if !reports.is_empty() => reports.iter().map(text).collect(),
        (Some(name), _) if may_be_lost => {
            format!("{name}: unknown, an owner of a store that is gone may hold it\n")
        }
        (Some(name), _) => format!("{name}: nobody holds it\n"),
        (None, Some(scope)) => format!("nobody holds a lock of {scope}\n"),
        (None, None) => "nobody holds a lock\n".to_owned(),
    };
    Ok(Answer::new(code, text, json!(reports)))
}

/// The lock that is asked about, if it is one.
fn one_lock(arguments: &args::Locks) -> Result<Option<LockName>> {
    let Some(of) = arguments.scope.as_deref() else { return Ok(None) };
    let (identity, variable) = (arguments.identity.as_ref(), arguments.identity_env.as_ref());
    if let Some(hash) = &arguments.hash {
        let identity_hash = IdentityHash::from_hex(&hash.to_string_lossy())?;
        return Ok(Some(LockName { scope: scope(of)?, identity_hash }));
    }
    if identity.is_none() && variable.is_none() {
        return Ok(None);
    }
    name(of, identity, variable).map(Some)
}

fn holder(profile: Option<&ProfileName>, pid: Option<u32>) -> String {
    let pid = pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"));
    match profile {
        Some(profile) => format!("profile {profile}, {pid}"),
        None => pid,
    }
}

/// A lock, and which of its slots.
pub(super) fn place(name: &LockName, slot: Option<Slot>) -> String {
    match slot.filter(|slot| slot.of > 1) {
        Some(Slot { number, of, .. }) => format!("{name}, slot {number} of {of}"),
        None => name.to_string(),
    }
}

fn text(report: &LockReport) -> String {
    let style = Style::of_stdout();
    let flags = match report.flags.names().as_slice() {
        [] => String::new(),
        names => format!(" ({})", names.join(", ").replace('_', " ")),
    };
    let who = holder(report.profile.as_ref(), report.pid);
    let verdict = match report.verdict {
        Verdict::Alive => format!("{}{flags} by {who}", style.good("held")),
        Verdict::Unknown => format!("{}{flags}, on record for {who}", style.doubtful("unknown")),
        Verdict::Dead => format!("{}, on record for {who}, which is dead", style.bad("free")),
    };
    let name = place(&report.name, report.slot);
    let mut lines = vec![format!("{name}: {verdict}, {}", since(&ago(report.acquired_at_ms)))];
    let mut add = |label: &str, value: String| {
        lines.push(format!("  {} {value}", style.faint(&format!("{label:<10}"))));
    };
    add("because", report.because().to_owned());
    add("fence", report.fence.to_string());
    if let Some(command) = &report.command {
        add("command", one_line(command));
    }
    if let Some(child) = report.child_pid.filter(|_| report.verdict != Verdict::Dead) {
        add("child", format!("pid {child}"));
    }
    match report.lease_remaining {
        Some(Duration::ZERO) => add("lease", "over".to_owned()),
        Some(remaining) => add("lease", format!("{} left", length(millis(remaining)))),
        None => {}
    }
    if let Some(metadata) = &report.metadata {
        add("metadata", one_line(&metadata.to_string()));
    }
    for waiter in &report.waiters {
        let who = holder(waiter.profile.as_ref(), waiter.pid);
        add("waiting", format!("{who}, {}", since(&ago(waiter.since_ms))));
    }
    for conflict in &report.conflicts {
        let pid = conflict.pid.map_or_else(|| "pid ?".to_owned(), |pid| format!("pid {pid}"));
        let who = match &conflict.profile {
            Some(profile) => format!("profile {profile}, {pid}"),
            None => pid,
        };
        let times = if conflict.count == 1 { "once" } else { &format!("{} times", conflict.count) };
        add("refused", format!("{who}, {times}, last {}", ago(conflict.last_at_ms)));
    }
    lines.join("\n") + "\n"
}

pub(super) fn unlock(global: &Global, arguments: &args::Unlock) -> Outcome {
    if arguments.stale {
        return unlock_stale(global);
    }
    let scope_argument = arguments.scope.as_deref().unwrap_or_default();
    let name = match &arguments.hash {
        Some(hash) => LockName {
            scope: scope(scope_argument)?,
            identity_hash: IdentityHash::from_hex(&hash.to_string_lossy())?,
        },
        None => name(scope_argument, arguments.identity.as_ref(), arguments.identity_env.as_ref())?,
    };
    let force = if arguments.force { Force::Yes } else { Force::No };
    let verb = if arguments.force { "unlock --force" } else { "unlock" };
    let mut then = None;
    let unlocked = match global.options().find()? {
        Existing::Store(store) => {
            let of_runs = commands_of_holders(&store, &name);
            let unlocked = store.unlock(&name, force, &by_us(verb))?;
            if let Unlocked::Done(removed) = &unlocked {
                then = Some(what_then(removed, &of_runs));
            }
            unlocked
        }
        // See `evict`.
        Existing::LostOwner { .. } if arguments.force => {
            global.options().open()?.unlock(&name, force, &by_us(verb))?
        }
        Existing::LostOwner { pid, .. } => {
            Unlocked::Refused(Box::new(Holder::orphan(Wanted::Lock(name.clone()), pid)))
        }
        Existing::Nothing => Unlocked::Nothing,
    };
    let (text, removed, refused) = match &unlocked {
        Unlocked::Nothing => (format!("{name}: nobody holds it, nothing to remove\n"), None, None),
        Unlocked::OrphansRemoved(count) => (
            format!(
                "{name}: {count} lock(s) of a deleted store no longer block claims; their \
                 processes were left alone\n"
            ),
            None,
            None,
        ),
        Unlocked::Done(removed) => (line(removed) + &then.unwrap_or_default(), Some(removed), None),
        Unlocked::Refused(holder) => (String::new(), None, Some(holder)),
    };
    let document = json!({
        "unlocked": removed,
        "holder": refused,
    });
    let code = if refused.is_some() { exit::NOT_NOW } else { exit::OK };
    Ok(Answer::new(code, text, document).complaining(refused.map(|holder| {
        let force = format!(
            "`incumbent unlock {} --hash {} --force` removes the lock: a `run` that was started \
             with it then ends its command and exits with 75, another process goes on without it",
            quoted(name.scope.as_str()),
            name.identity_hash
        );
        Complaint::new(holder.to_string())
            .advising(holder.advice_to_unlocker())
            .advising_also(" unlock ", force)
    })))
}

/// The holders of a lock that are the `run` of a command: their rows, and their commands.
fn commands_of_holders(store: &Store, name: &LockName) -> Vec<(InstanceId, u32)> {
    // It is removed, whatever comes of this question.
    let locks = store.locks().unwrap_or_default();
    let of_runs = locks.iter().filter(|lock| lock.name == *name);
    of_runs
        .filter_map(|lock| match Bereft::with(lock.child_pid, &lock.reason) {
            Bereft::EndsCommand(command) => Some((lock.instance, command)),
            Bereft::GoesOn => None,
        })
        .collect()
}

/// What its holder then does; empty for a dead one.
fn what_then(removed: &UnlockedLock, of_runs: &[(InstanceId, u32)]) -> String {
    if removed.verdict == Verdict::Dead {
        return String::new();
    }
    let pid = removed.pid.map_or_else(|| "its holder".to_owned(), |pid| format!("pid {pid}"));
    match of_runs.iter().find(|(instance, _)| *instance == removed.instance) {
        Some((_, command)) => format!(
            "  {pid} is a `run`: if it was started with this lock, it notices within a second, \
             ends its command (pid {command}), and exits with 75\n"
        ),
        None => format!("  {pid} was not ended, and goes on without the lock\n"),
    }
}

fn unlock_stale(global: &Global) -> Outcome {
    let removed = match global.existing()? {
        Some(store) => store.unlock_stale(&by_us("unlock --stale"))?,
        None => Vec::new(),
    };
    let text = if removed.is_empty() {
        "no lock has a dead holder\n".to_owned()
    } else {
        removed.iter().map(line).collect()
    };
    Ok(Answer::new(exit::OK, text, json!({"unlocked": removed})))
}

fn line(removed: &UnlockedLock) -> String {
    format!(
        "{}: removed; it was held by {}, which was {}: {}\n",
        place(&removed.name, removed.slot),
        holder(removed.profile.as_ref(), removed.pid),
        removed.verdict,
        removed.reason.because()
    )
}
