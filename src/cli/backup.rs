//! `backup`: a copy of the store, and how to put it back.

use std::path::Path;

use serde_json::json;

use crate::cli::advice::Invocation;
use crate::cli::args;
use crate::cli::args::Global;
use crate::cli::context::no_store;
use crate::cli::output::{Answer, Outcome, exit};
use crate::path_text;
use crate::path_text::quoted;

pub(super) fn backup(global: &Global, arguments: &args::Backup) -> Outcome {
    let Some(store) = global.existing()? else { return Err(no_store(global)?) };
    let bytes = store.backup(&arguments.file)?;
    // As the shell that reads the advice would find it.
    let file = std::path::absolute(&arguments.file).unwrap_or_else(|_| arguments.file.clone());
    let stop = Invocation::of(global).of_all_offices().complete("`incumbent stop --all`");
    let text = format!(
        "copied {} to {} ({bytes} bytes, one file, checked)\n  restore    {stop}, and then `{}`\n",
        store.path().display(),
        file.display(),
        put_back(store.path(), &file)
    );
    let mut document = json!({});
    path_text::put(&mut document, "path", store.path());
    path_text::put(&mut document, "backup", &file);
    document["bytes"] = bytes.into();
    Ok(Answer::new(exit::OK, text, document))
}

/// In the place of the store, whose file keeps its mode by that; what is in its log would be
/// written over the copy.
fn put_back(store: &Path, copy: &Path) -> String {
    let beside = |suffix: &str| {
        let mut path = store.as_os_str().to_owned();
        path.push(suffix);
        quoted(path)
    };
    format!("rm -f {} {} && cp {} {}", beside("-wal"), beside("-shm"), quoted(copy), quoted(store))
}
