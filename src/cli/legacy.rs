//! `import` and `export`: the files of the older program.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::args::Global;
use crate::cli::context::no_store;
use crate::cli::output::{Answer, Outcome, exit};
use crate::cli::{args, output};
use crate::sys::Shortage;
use crate::transfer::export::{Exported, ExportedFile};
use crate::transfer::import::ImportedFile;
use crate::transfer::import::files::OlderFiles;
use crate::transfer::{self, export, import};
use crate::{Error, ErrorKind, Office, environment, sys};

pub(super) fn import(global: &Global, arguments: &args::Import) -> Outcome {
    let office = global.office()?;
    let home = transfer::home(&arguments.directory, &office.kind)?;
    let (lock_dir, left_out) = match &arguments.lock_dir {
        Some(directory) => match lock_directory(directory) {
            Ok(directory) => (Some(directory), None),
            Err(why) => match Shortage::of(&why) {
                Some(shortage) => {
                    return Err(Error::shortage(shortage, "look at the lock files"));
                }
                None => (None, Some(ImportedFile::left_out(directory, &why))),
            },
        },
        None => (default_lock_dir(), None),
    };
    let files = OlderFiles::new(&home, lock_dir.as_deref());
    let mut rows = if files.any() {
        let store = global.options().open()?;
        import::import(&store, &office, &files)?
    } else {
        Vec::new()
    };
    rows.extend(left_out);
    let documents: Vec<Value> = rows.iter().map(ImportedFile::document).collect();
    let is_conflict = rows.iter().any(|row| row.finding.is_conflict);
    let code = if is_conflict { exit::NOT_NOW } else { exit::OK };
    Ok(Answer::new(code, import_in_words(&rows, &home), documents.into()))
}

/// A directory that can be listed.
fn lock_directory(directory: &Path) -> io::Result<PathBuf> {
    let found = std::fs::canonicalize(directory)?;
    std::fs::read_dir(&found)?;
    Ok(found)
}

/// Where the older program keeps the locks of a user; `None` where there is no such place.
fn default_lock_dir() -> Option<PathBuf> {
    const BELOW_STATE: &str = "hermes/gateway-locks";
    let named = environment::value("HERMES_GATEWAY_LOCK_DIR").map(PathBuf::from);
    let (variable, below_home) = sys::STATE_DIRECTORY;
    let directory = named.or_else(|| {
        let state = environment::absolute_path(variable);
        let state = state.or_else(|| Some(environment::absolute_path("HOME")?.join(below_home?)));
        Some(state?.join(BELOW_STATE))
    })?;
    lock_directory(&directory).ok()
}

fn import_in_words(rows: &[ImportedFile], home: &Path) -> String {
    if rows.is_empty() {
        return format!("{}: no files of an older gateway, nothing to import\n", home.display());
    }
    let name = |row: &ImportedFile| output::one_line(&row.file.display().to_string());
    let width = rows.iter().map(|row| name(row).chars().count()).max().unwrap_or(0);
    let line = |row: &ImportedFile| {
        let finding = &row.finding;
        let pid = finding.pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
        let detail = finding.detail.as_ref();
        let detail =
            detail.map_or_else(String::new, |detail| format!(", {}", output::one_line(detail)));
        let reason = finding.reason.replace('_', " ");
        format!("{:width$}  {:8}  {reason}{pid}{detail}\n", name(row), finding.verdict)
    };
    rows.iter().map(line).collect()
}

pub(super) fn export(global: &Global, arguments: &args::Export) -> Outcome {
    let office = global.office()?;
    let Some(store) = global.existing()? else { return Err(no_store(global)?) };
    let directory = &arguments.directory;
    sys::create_private_dirs(directory)
        .map_err(|error| Error::io("create the directory", directory, error))?;
    let home = transfer::home(directory, &office.kind)?;
    let lock_dir = arguments.lock_dir.clone().unwrap_or_else(|| home.join("gateway-locks"));
    let rows = match export::export(&store, &office, &home, &lock_dir)? {
        Exported::Files(rows) => rows,
        Exported::InUse(why) => {
            let error = Error::new(ErrorKind::Busy, format!("nothing was written: {why}"))
                .with_hint("end that gateway first, or export to another directory");
            return Err(error);
        }
    };
    let documents: Vec<Value> = rows.iter().map(ExportedFile::document).collect();
    Ok(Answer::new(exit::OK, export_in_words(&rows, &office), documents.into()))
}

fn export_in_words(rows: &[ExportedFile], office: &Office) -> String {
    if rows.is_empty() {
        return format!("{office}: nobody has ever held it, nothing to export\n");
    }
    let name = |row: &ExportedFile| output::one_line(&row.file.display().to_string());
    let width = rows.iter().map(|row| name(row).chars().count()).max().unwrap_or(0);
    let line = |row: &ExportedFile| {
        let detail = row.detail.as_ref().map_or_else(String::new, |why| format!("  {why}"));
        format!("{:width$}  {}{detail}\n", name(row), row.verdict())
    };
    rows.iter().map(line).collect()
}
