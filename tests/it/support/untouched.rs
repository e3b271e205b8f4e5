//! What a question must not change: everything that can be said of a directory but times.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything that can be said of a file without reading its times: type, mode, owner, content.
pub type Fingerprint = BTreeMap<PathBuf, (u32, u32, Vec<u8>)>;

/// What lies below `directory`, but for what `SQLite` itself may map and make beside a database
/// that it reads: the index of its log, and an empty log.
pub fn fingerprint(directory: &Path) -> Fingerprint {
    let mut found = Fingerprint::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let facts = std::fs::symlink_metadata(&path).unwrap();
            let name = path.to_str().unwrap();
            if name.ends_with("-shm") || (name.ends_with("-wal") && facts.len() == 0) {
                continue;
            }
            let content = if facts.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            if facts.is_dir() {
                directories.push(path.clone());
            }
            found.insert(path, (facts.mode(), facts.uid(), content));
        }
    }
    found
}

/// Asserts without printing megabytes.
#[track_caller]
pub fn assert_untouched(before: &Fingerprint, directory: &Path, what: &str) {
    let after = fingerprint(directory);
    let names = |all: &Fingerprint| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(&after), "{what}: files came or went");
    for (path, (mode, owner, content)) in before {
        let (mode_after, owner_after, content_after) = &after[path];
        let path = path.display();
        assert_eq!(
            (format!("{mode:o}"), owner),
            (format!("{mode_after:o}"), owner_after),
            "{what}: mode or owner of {path}"
        );
        assert!(content == content_after, "{what}: {path} was changed");
    }
}
