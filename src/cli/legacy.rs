//! `import` and `export`: the files of the older program.

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::args::{self, Global};
use super::no_store;
use super::output::{self, Format, Outcome, exit};
use crate::environment;
use crate::error::{Error, ErrorKind, Result};
use crate::legacy::{self, Exported, ExportedFile, Files, ImportedFile};
use crate::names::Office;
use crate::sys;

pub(super) fn import(global: &Global, arguments: &args::Import, format: Format) -> Outcome {
    let office = global.office()?;
    let home = legacy::home(&arguments.directory, &office.kind)?;
    let lock_dir = match &arguments.lock_dir {
        Some(directory) => Some(real_directory(directory)?),
        None => default_lock_dir(),
    };
    let files = Files::new(&home, lock_dir.as_deref());
    let rows = if files.any() {
        let store = global.options().open()?;
        legacy::import(&store, &office, &files)?
    } else {
        Vec::new()
    };
    let documents: Vec<Value> = rows.iter().map(ImportedFile::to_json).collect();
    output::print(format, &import_in_words(&rows, &home), &documents.into())?;
    let is_conflict = rows.iter().any(|row| row.finding.is_conflict);
    Ok(if is_conflict { exit::NOT_NOW } else { exit::OK })
}

fn real_directory(directory: &Path) -> Result<PathBuf> {
    let none = || {
        Error::invalid(format!("no directory {}", directory.display()))
            .at(directory)
            .with_hint("name the directory with the *.lock files")
    };
    match std::fs::canonicalize(directory) {
        Ok(found) if found.is_dir() => Ok(found),
        Err(error) if !matches!(error.kind(), Io::NotFound | Io::NotADirectory) => {
            Err(Error::io("find the directory", directory, error))
        }
        Ok(_) | Err(_) => Err(none()),
    }
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
    real_directory(&directory).ok()
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

pub(super) fn export(global: &Global, arguments: &args::Export, format: Format) -> Outcome {
    let office = global.office()?;
    let Some(store) = global.existing()? else { return Err(no_store(global)?.into()) };
    let directory = &arguments.directory;
    sys::create_private_dirs(directory)
        .map_err(|error| Error::io("create the directory", directory, error))?;
    let home = legacy::home(directory, &office.kind)?;
    let lock_dir = arguments.lock_dir.clone().unwrap_or_else(|| home.join("gateway-locks"));
    let rows = match legacy::export(&store, &office, &home, &lock_dir)? {
        Exported::Files(rows) => rows,
        Exported::InUse(why) => {
            let error = Error::new(ErrorKind::Busy, format!("nothing was written: {why}"))
                .with_hint("end that gateway first, or export to another directory");
            return Err(error.into());
        }
    };
    let documents: Vec<Value> = rows.iter().map(ExportedFile::to_json).collect();
    output::print(format, &export_in_words(&rows, &office), &documents.into())?;
    Ok(exit::OK)
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
