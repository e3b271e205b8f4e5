//! What lies in the place of the database, or of what SQLite keeps beside it, and is something else.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Answer, LIMIT, Process, Sandbox, another_user, skipped};

const START: &[&str] = &["run", "--no-backoff", "--", "true"];

fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut path = db.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Symptom: `doctor --fix` hung for ever on a FIFO in the place of one of the files. Cause: an `open(2)` without
/// `O_NONBLOCK` waits for a writer. It holds because nothing beside a store is opened in that way.
#[test]
fn a_fifo_in_the_place_of_a_file_holds_nobody_up() {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        for is_with_anchors in [true, false] {
            let sandbox = Sandbox::new();
            sandbox.cli(START).assert_code(0);
            let path = beside(&sandbox.db(), suffix);
            let _ = std::fs::remove_file(&path);
            let made = Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(made.success());
            if !is_with_anchors {
                std::fs::remove_dir_all(sandbox.anchors()).unwrap();
            }
            for verb in [&["doctor"][..], &["doctor", "--fix"], &["status"], START] {
                let answer = sandbox.cli(verb);
                assert!(answer.code() < 100, "{suffix:?}, {verb:?}: {answer:#?}");
                let said = format!("{}{}", answer.out, answer.err);
                let is_named = said.contains("is not a regular file");
                assert!(suffix == "-journal" || is_named, "{suffix:?}, {verb:?}: {answer:#?}");
            }
        }
    }
}
