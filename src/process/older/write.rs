//! Files that appear as a whole: nobody reads half of one.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use crate::{Error, Result, sys};

/// What the names of files begin with that are to be renamed.
pub(super) const SCRATCH: &str = ".incumbent-";

/// Writes a file as a whole.
pub(crate) fn write_whole(directory: &Path, name: &str, text: &str) -> Result<()> {
    write_dated(directory, name, text, None)
}

/// The same, with `modified` as the time of the file.
pub(crate) fn write_dated(
    directory: &Path,
    name: &str,
    text: &str,
    modified: Option<SystemTime>,
) -> Result<()> {
    let path = directory.join(name);
    let failed = |error: std::io::Error| Error::io("write", &path, error);
    let mut scratch = scratch(directory).map_err(failed)?;
    scratch.write_all(text.as_bytes()).map_err(failed)?;
    if let Some(modified) = modified {
        scratch.as_file().set_modified(modified).map_err(failed)?;
    }
    sys::give_to_owner_of_directory(scratch.as_file(), scratch.path()).map_err(failed)?;
    sys::rename_beside(&scratch.into_temp_path(), &path).map_err(failed)
}

/// A file that is to be renamed: 0600, and gone if it is not. Made by us, so that an error is the
/// system's, and names no file that nobody has asked for.
pub(crate) fn scratch(directory: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(SCRATCH).make_in(directory, sys::create_anchor_file)
}
