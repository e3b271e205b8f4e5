//! A store that is not where `--db` says: without a word, a mistyped path would look like a gateway
//! that does not run.

use std::path::{Path, PathBuf};

use crate::cli::args::{Cli, Global, Lock, Marker, Verb};
use crate::cli::output::Complaint;
use crate::environment;
use crate::path_text::quoted;
use crate::{OpenOptions, Result};

/// Whether a verb looks for a store, and does not make the one that it does not find. Those that
/// need one speak of it themselves, in their error, and so does the doctor.
fn looks_for_one(verb: &Verb) -> bool {
    match verb {
        Verb::Run(_)
        | Verb::Claim(_)
        | Verb::Desired { desired: Some(_) }
        | Verb::Marker(Marker::Write(_))
        | Verb::Lock(Lock::Acquire(_))
        | Verb::Import(_)
        | Verb::Unit(_)
        | Verb::Forensics(_)
        | Verb::Doctor(_)
        | Verb::Export(_)
        | Verb::Backup(_)
        | Verb::Sql(_)
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
        | Verb::Wait(_) => true,
    }
}

/// What is to be said of a store that `--db` names, and that is not there when the verb looks for
/// it. Of a path that cannot be looked at the verb itself speaks.
pub(super) fn store_at(cli: &Cli) -> Option<Complaint> {
    if !looks_for_one(&cli.verb) {
        return None;
    }
    let path = misplaced(&cli.global)?;
    Some(Complaint::new(text(&cli.global, path)).advising(hint(&cli.global)))
}

/// That there is no store at `path`, and why it was looked for there.
pub(super) fn text(global: &Global, path: &Path) -> String {
    let why = match global.db {
        Some(_) => " (from `--db`)",
        None if environment::value(environment::DB).is_some() => FROM_VARIABLE,
        None => " (the default)",
    };
    format!("there is no store at {}{why}", path.display())
}

pub(super) const FROM_VARIABLE: &str = " (from INCUMBENT_DB)";

/// The same of the place where a verb looks.
pub(super) fn here(global: &Global) -> Result<String> {
    Ok(text(global, &global.options().resolved_path()?))
}

/// What `--db` names, if there is nothing.
pub(super) fn misplaced(global: &Global) -> Option<&Path> {
    let named = global.db.as_deref()?;
    let path = global.options().resolved_path().ok()?;
    (!path.try_exists().unwrap_or(true)).then_some(named)
}

/// What to do about a store that is not there.
pub(super) fn hint(global: &Global) -> String {
    match global.db.as_ref().and_then(|_| usual()) {
        Some(usual) => {
            format!("`incumbent --db {} status --all` shows the default store", quoted(usual))
        }
        None if global.db.is_some() => "check the path; the first `incumbent run -- CMD` or \
             `incumbent claim` makes one there"
            .to_owned(),
        None => "the first `incumbent run -- CMD` or `incumbent claim` makes one".to_owned(),
    }
}

/// The path of the store that is meant without `--db`, where there is one.
fn usual() -> Option<PathBuf> {
    let path = OpenOptions::new().resolved_path().ok()?;
    path.is_file().then_some(path)
}
