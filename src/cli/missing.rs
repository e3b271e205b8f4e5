//! A store that is not where `--db` says: without a word, a mistyped path would look like a gateway
//! that does not run.

use std::path::PathBuf;

use crate::OpenOptions;
use crate::cli::args::{Cli, Lock, Marker, Verb};
use crate::cli::output::Complaint;
use crate::path_text::quoted;

/// Whether a verb looks for a store, and does not make the one that it does not find. The doctor
/// and `wait` speak of it themselves.
fn looks_for_one(verb: &Verb) -> bool {
    match verb {
        Verb::Run(_)
        | Verb::Wait(_)
        | Verb::Claim(_)
        | Verb::Desired { desired: Some(_) }
        | Verb::Marker(Marker::Write(_))
        | Verb::Lock(Lock::Acquire(_))
        | Verb::Import(_)
        | Verb::Unit(_)
        | Verb::Forensics(_)
        | Verb::Doctor(_)
        | Verb::Path
        | Verb::Completions { .. }
        | Verb::Man
        | Verb::Help { .. } => false,
        Verb::Stop(stop) => !stop.desired,
        Verb::Status(_)
        | Verb::StatusSet(_)
        | Verb::Release(_)
        | Verb::Evict(_)
        | Verb::Restart(_)
        | Verb::Signal(_)
        | Verb::Desired { desired: None }
        | Verb::Marker(Marker::Peek(_) | Marker::Consume(_) | Marker::Clear(_))
        | Verb::Lock(Lock::Verify(_) | Lock::Renew(_) | Lock::Release(_))
        | Verb::Locks(_)
        | Verb::Unlock(_)
        | Verb::History(_)
        | Verb::Events(_)
        | Verb::Export(_)
        | Verb::Backup(_)
        | Verb::Sql(_) => true,
    }
}

/// What is to be said of a store that `--db` names, and that is not there when the verb is about to
/// look for it. Of a path that cannot be looked at the verb itself speaks.
pub(super) fn store_at(cli: &Cli) -> Option<Complaint> {
    let named = cli.global.db.as_ref().filter(|_| looks_for_one(&cli.verb))?;
    let path = cli.global.options().resolved_path().ok()?;
    if path.try_exists().unwrap_or(true) {
        return None;
    }
    let complaint = Complaint::new(format!("there is no store at {} (`--db`)", named.display()));
    Some(match usual() {
        Some(usual) => complaint.advising(format!(
            "`incumbent --db {} status --all` shows the store that is meant without `--db`",
            quoted(usual)
        )),
        None => complaint.advising(
            "look for the right path; the first `incumbent run -- CMD` or `incumbent claim` makes \
             one there",
        ),
    })
}

/// The path of the store that is meant without `--db`, where there is one.
fn usual() -> Option<PathBuf> {
    let path = OpenOptions::new().resolved_path().ok()?;
    path.is_file().then_some(path)
}
