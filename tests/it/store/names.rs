//! One file with two names has one owner.

use std::path::Path;
use std::process::Command;

use super::{START, as_json};
use crate::support::{
    BINARY, Identity, LIMIT, Process, Sandbox, mount_namespace, set_mode, skipped,
};

/// FIELD-BUGS row 30.
///
/// Symptom: two owners of one office, each with a lock file of its own. Cause: the database was
/// reached under two names (a bind mount of the one file, a hard link), and the locks lie beside
/// the name. It holds because a file with a second name is refused.
#[test]
fn a_second_name_of_the_file_makes_no_second_owner() {
    for is_held in [true, false] {
        let sandbox = Sandbox::new();
        sandbox.make_store();
        let run = is_held.then(|| sandbox.hold(&[]));
        std::fs::create_dir(sandbox.file("second")).unwrap();
        set_mode(&sandbox.file("second"), 0o700);
        let second = sandbox.file("second/state.db");
        let assert_refused = |mut command: Command, how: &str| {
            command.env("INCUMBENT_DB", &second);
            let answer = Process::start(command).finish(LIMIT);
            assert_eq!(answer.code(), 78, "{how}: {answer:#?}");
            let error = answer.json()["error"].clone();
            assert!(error["message"].as_str().unwrap().contains("second/state.db"), "{error:#}");
            assert!(error["hint"].is_string(), "{how}: {error:#}");
        };
        std::fs::hard_link(sandbox.db(), &second).unwrap();
        assert_refused(sandbox.incumbent(as_json(START)), "a hard link");
        std::fs::remove_file(&second).unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(sandbox.file(&format!("second/state.db{suffix}")));
        }
        if mount_namespace().is_some() {
            const BIND: &str = ": > second/state.db
                mount --bind store/state.db second/state.db || exit 99
                exec \"$@\"";
            let words = ["unshare", "-m", "/bin/sh", "-c", BIND, "sh"];
            assert_refused(sandbox.under(&words, Path::new(BINARY), &as_json(START)), "a mount");
        } else {
            skipped("the half that needs root and mounts");
        }
        if let Some(run) = run {
            let it = Identity::of(run.pid()).unwrap();
            assert!(!it.is_gone());
            sandbox.assert_status(0, "alive", "anchor_held");
            run.end().assert_code(0);
        }
        sandbox.cli(START).assert_code(0);
    }
}
