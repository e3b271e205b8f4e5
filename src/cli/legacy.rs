//! `import` and `export`: the files of the older program.

use std::path::Path;

use serde_json::json;

use crate::cli::advice::Invocation;
use crate::cli::args::Global;
use crate::cli::context::no_store;
use crate::cli::output::{Answer, Outcome, exit};
use crate::cli::{args, output};
use crate::path_text::quoted;
use crate::transfer::{Exported, ExportedFile, FileVerdict, ImportedFile, OlderFiles};
use crate::{Error, ErrorKind, Office};

pub(super) fn import(global: &Global, arguments: &args::Import) -> Outcome {
    let office = global.office()?;
    let mut files = OlderFiles::new(&arguments.directory)?;
    files.check(&office)?;
    if let Some(directory) = &arguments.lock_dir {
        files = files.lock_dir(directory)?;
    }
    let what = format!("importing {}", arguments.directory.display());
    let progress = global.doing("import", what, None);
    let rows = if files.any() {
        global.options().open()?.import(&office, &files)?
    } else {
        files.left_out().into_iter().collect()
    };
    drop(progress);
    let documents = json!(rows);
    let is_conflict = rows.iter().any(|row| row.finding.is_conflict);
    let code = if is_conflict { exit::NOT_NOW } else { exit::OK };
    let text = import_in_words(&rows, files.home());
    let next = if rows.is_empty() || is_conflict {
        String::new()
    } else {
        next(global, &office, &files, &rows)
    };
    Ok(Answer::new(code, text + &next, documents))
}

/// What the store has now, and what comes next.
fn next(global: &Global, office: &Office, files: &OlderFiles, rows: &[ImportedFile]) -> String {
    let home = files.home();
    let invocation = Invocation::of(global).about(global, office);
    let stands_for = format!("{office} stands for {} from now on", home.display());
    let imported = rows.iter().filter(|row| row.finding.verdict == FileVerdict::Imported);
    let names = imported.filter_map(|row| Some(row.file.file_name()?.display().to_string()));
    let names: Vec<String> = names.collect();
    let said = match names.as_slice() {
        [] => String::new(),
        names => format!("; what {} says is in the store", names.join(", ")),
    };
    let lives = |row: &&ImportedFile| {
        let is_of_home = row.file.parent() == Some(home);
        is_of_home && row.finding.verdict == FileVerdict::Live
    };
    let then = if let Some(row) = rows.iter().find(lives) {
        let who =
            row.finding.pid.map_or_else(|| "its gateway".to_owned(), |pid| format!("pid {pid}"));
        let status = office.verb("status");
        format!("{who} runs, and nobody else is started: `incumbent {status}`")
    } else if rows.iter().any(|row| row.finding.verdict == FileVerdict::Unknown) {
        "look at what is unknown above, and import it again".to_owned()
    } else {
        let home = quoted(home);
        format!("its gateway has stopped: `incumbent run --legacy-home {home} -- CMD`")
    };
    format!("recorded: {stands_for}{said}\nnext: {}\n", invocation.complete(&then))
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
        format!("{:width$}  {:8}  {reason}{pid}{detail}\n", name(row), finding.verdict.as_str())
    };
    rows.iter().map(line).collect()
}

pub(super) fn export(global: &Global, arguments: &args::Export) -> Outcome {
    let office = global.office()?;
    let Some(store) = global.existing()? else { return Err(no_store(global)?) };
    let directory = &arguments.directory;
    let rows = match store.export(&office, directory, arguments.lock_dir.as_deref())? {
        Exported::Files(rows) => rows,
        Exported::InUse(why) => {
            let error = Error::new(ErrorKind::Busy, format!("nothing was written: {why}"))
                .with_hint("end that gateway first, or export to another directory");
            return Err(error);
        }
    };
    let documents = json!(rows);
    Ok(Answer::new(exit::OK, export_in_words(&rows, &office), documents))
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
