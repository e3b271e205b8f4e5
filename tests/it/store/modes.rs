//! Modes and owners of what we make, and of where we are told to make it.

use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;

use super::{QUESTIONS, START, as_json, assert_error};
use crate::support::{
    LIMIT, NOBODY, Process, Run, Sandbox, another_user, assert_untouched, fingerprint, is_root,
    mode, set_mode, skipped,
};

/// FIELD-BUGS row 87: what is on record (command lines, homes) is its owner's business, whatever
/// the umask says.
#[test]
fn files_are_private_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let sandbox = Sandbox::new();
        let script = format!("umask {umask}; exec incumbent run -- /bin/sh -c 'echo $$; exec cat'");
        let run = Run::start(sandbox.shell(&script));
        for (path, expected) in [
            (sandbox.store(), 0o700),
            (sandbox.anchors(), 0o700),
            (sandbox.db(), 0o600),
            (sandbox.sidecar("-wal"), 0o600),
            (sandbox.sidecar("-shm"), 0o600),
            (sandbox.anchors().join(&sandbox.anchor_names()[0]), 0o600),
        ] {
            let mode = mode(&path);
            assert_eq!(mode, expected, "umask {umask}: {} has {mode:o}", path.display());
        }
        run.end().assert_code(0);
    }
}

/// Whoever can replace the file can make two owners.
#[test]
fn a_directory_that_others_can_write_is_refused() {
    for open in [0o777, 0o770, 0o702, 0o1777] {
        let sandbox = Sandbox::new();
        sandbox.make_store_directory(open);
        // Of a group in which others may be.
        let is_by_group = open & 0o1002 == 0;
        if is_root() {
            chown(sandbox.store(), None, Some(100)).unwrap();
        } else if is_by_group {
            continue;
        }
        let before = fingerprint(sandbox.path());
        for verb in [START, &["claim"], QUESTIONS[0], QUESTIONS[1]] {
            let error = assert_error(sandbox.incumbent(as_json(verb)), 78, "permission");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(&format!("(mode {open:04o}")), "{message}");
            assert_eq!(message.contains("group 100"), is_by_group, "{message}");
            // Nobody shall be told to close a shared directory such as /tmp.
            let hint = error["hint"].as_str().unwrap();
            assert_eq!(hint.contains("chmod go-w"), open & 0o1000 == 0, "{error:#}");
            assert!(hint.contains("directory of its own"), "{error:#}");
            assert_eq!(error["path"], sandbox.store().to_str().unwrap());
        }
        assert_untouched(&before, sandbox.path(), "refused");
        // The remedy works.
        set_mode(&sandbox.store(), 0o755);
        sandbox.make_store();
    }
}

/// FIELD-BUGS row 30. A link does not hide whose ground it leads to.
#[test]
fn foreign_ground_is_refused_also_through_a_symbolic_link() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let foreign = sandbox.file("foreign");
    std::fs::create_dir(&foreign).unwrap();
    chown(&foreign, Some(12345), Some(12345)).unwrap();
    set_mode(&foreign, 0o755);
    std::fs::write(foreign.join("state.db"), "").unwrap();
    let own = sandbox.file("own");
    std::fs::create_dir(&own).unwrap();
    chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    symlink(&foreign, sandbox.file("link")).unwrap();
    symlink(foreign.join("state.db"), own.join("state.db")).unwrap();
    let before = fingerprint(sandbox.path());
    for db in ["foreign/state.db", "foreign/other.db", "link/state.db", "own/state.db"] {
        for verb in [START, QUESTIONS[0]] {
            let mut command = sandbox.under(nobody, &binary, &as_json(verb));
            command.env("INCUMBENT_DB", sandbox.file(db));
            let error = assert_error(command, 78, "permission");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("belongs to uid 12345"), "{db}: {message}");
            assert!(message.contains(foreign.to_str().unwrap()), "{db}: {message}");
            assert!(error["hint"].is_string(), "{error:#}");
        }
    }
    assert_untouched(&before, sandbox.path(), "refused");
}

/// R:UID. FIELD-BUGS row 33.
///
/// Symptom: one start as root left root's files behind, and the user's gateway crash-looped 8,000
/// times. Cause: files belonged to whoever made them. It holds because everything that root makes
/// in a user's directory is given to that user.
#[test]
fn what_root_makes_belongs_to_the_user() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    for round in 0..2 {
        let run = sandbox.hold(&[]);
        let mut seen = Vec::new();
        for (path, (_, owner, _)) in fingerprint(sandbox.path()) {
            if path.starts_with(sandbox.store()) {
                assert_eq!(owner, NOBODY, "round {round}: {}", path.display());
                seen.push(path);
            }
        }
        assert!(seen.len() >= 5, "{seen:?}");
        assert_eq!(std::fs::metadata(sandbox.sidecar("-shm")).unwrap().uid(), NOBODY);
        run.end().assert_code(0);
        let answer = Process::start(sandbox.under(nobody, &binary, START)).finish(LIMIT);
        assert_eq!(answer.assert_code(0).out, "started\n");
    }
    assert_eq!(sandbox.history().len(), 4);
}

/// R:UID. FIELD-BUGS row 34.
///
/// Symptom: a status query without the right to look deleted root's live lock and said "not
/// running". It holds because "cannot look" is an error of its own, and questions write nothing.
#[test]
fn not_being_able_to_look_is_not_not_running() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let tools = Sandbox::new();
    let binary = tools.open_to_nobody();
    for (what, closed) in [("the directory", 0o700), ("the file", 0o755)] {
        let sandbox = Sandbox::new();
        sandbox.make_store_directory(closed);
        set_mode(sandbox.path(), 0o755);
        let run = sandbox.hold(&[]);
        let before = fingerprint(sandbox.path());
        for verb in QUESTIONS {
            let mut command = tools.under(nobody, &binary, &as_json(verb));
            command.env("INCUMBENT_DB", sandbox.db());
            let error = assert_error(command, 78, "cannot_read");
            assert!(error["message"].as_str().unwrap().contains("state.db"), "{what}: {error:#}");
            assert!(error["hint"].is_string(), "{what}: {error:#}");
        }
        assert_untouched(&before, sandbox.path(), what);
        sandbox.assert_status(0, "alive", "anchor_held");
        run.end().assert_code(0);
    }
}

/// FIELD-BUGS row 36.
///
/// Symptom: "attempt to write a readonly database" after a restore, and no word about which of the
/// three files. It holds because the message names the file, and no question calls it "not
/// running".
#[test]
fn the_file_that_cannot_be_written_is_named() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    for suffix in ["", "-wal", "-shm"] {
        for (owner, closed) in [(0, 0o644), (NOBODY, 0o400)] {
            let what = format!("state.db{suffix} of uid {owner} with mode {closed:o}");
            let sandbox = Sandbox::new();
            let binary = sandbox.open_to_nobody();
            sandbox.make_store();
            let file = sandbox.sidecar(suffix);
            chown(&file, Some(owner), Some(owner)).unwrap();
            set_mode(&file, closed);
            let start = sandbox.under(nobody, &binary, &as_json(START));
            let answer = Process::start(start).finish(LIMIT);
            if owner == NOBODY && answer.code() == 0 {
                // One's own file may be put right (SQLite itself does it with an empty log).
                assert_eq!(mode(&file), 0o600, "{what}");
                continue;
            }
            assert_eq!(answer.code(), 78, "{what}: {answer:#?}");
            let error = answer.json()["error"].clone();
            assert_eq!(error["kind"], "permission", "{what}: {error:#}");
            let message = error["message"].as_str().unwrap();
            assert!(
                message.split([' ', ':']).any(|word| Path::new(word) == file),
                "{what}: not named in {message:?}"
            );
            assert!(error["hint"].is_string(), "{what}: {error:#}");
            // The remedy works.
            chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
            set_mode(&file, 0o600);
            Process::start(sandbox.under(nobody, &binary, START)).finish(LIMIT).assert_code(0);
        }
    }
}
