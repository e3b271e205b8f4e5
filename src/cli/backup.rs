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

/// What is not as it was when the copy is the store again.
const AFTERWARDS: &str = "gateways that ran when this copy was made are shown as `killed or \
                          crashed`; what happened and what was counted since then is lost";

pub(super) fn backup(global: &Global, arguments: &args::Backup) -> Outcome {
    let Some(store) = global.existing()? else { return Err(no_store(global)?) };
    let bytes = store.backup(&arguments.file)?;
    // As the shell that reads the advice would find it.
    let file = std::path::absolute(&arguments.file).unwrap_or_else(|_| arguments.file.clone());
    let invocation = Invocation::of(global).of_all_offices();
    let stop = invocation.complete("`incumbent stop --all --desired`");
    let locks = invocation.complete("`incumbent locks`");
    let all = invocation.complete("`incumbent status --all`");
    let put_back = put_back(store.path(), &file);
    let text = format!(
        "copied {} to {} ({bytes} bytes, one file, checked)\nto restore it:\n  1. {stop}; also \
         stop the units that would start a gateway again\n  2. {locks}: end each process that \
         still holds one\n  3. `{put_back}`\n  4. {all}: {AFTERWARDS}; start what is to run\n",
        store.path().display(),
        file.display(),
    );
    let mut document = json!({});
    path_text::put(&mut document, "path", store.path());
    path_text::put(&mut document, "backup", &file);
    document["bytes"] = bytes.into();
    let bare = |command: &str| command.trim_matches('`').to_owned();
    document["restore"] = json!([bare(&stop), bare(&locks), put_back]);
    document["restored"] = AFTERWARDS.into();
    Ok(Answer::new(exit::OK, text, document))
}

/// In the place of the store, whose file keeps its mode by that, and whose directory may be lost;
/// what is in its log would be written over the copy.
fn put_back(store: &Path, copy: &Path) -> String {
    let beside = |suffix: &str| {
        let mut path = store.as_os_str().to_owned();
        path.push(suffix);
        quoted(path)
    };
    let directory = quoted(store.parent().unwrap_or(Path::new(".")));
    let (wal, shm) = (beside("-wal"), beside("-shm"));
    format!(
        "mkdir -p -m 700 {directory} && rm -f {wal} {shm} && cp {} {}",
        quoted(copy),
        quoted(store)
    )
}
