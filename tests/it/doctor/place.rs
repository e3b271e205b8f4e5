//! The place of the store: its directories, modes, owners, disk.

use serde_json::json;

use super::Diagnosis;
use crate::support::{
    BINARY, LIMIT, Process, Sandbox, another_user, mode, mount_namespace, nobody_with_hidepid,
    read_only_store, set_mode, skipped, works,
};

/// No store is no problem: nothing is made, the checks that need one are left out, and what there
/// is to say of the place is said.
#[test]
fn without_a_store_there_is_nothing_to_repair() {
    let sandbox = Sandbox::new();
    for arguments in [&[][..], &["--fix"][..], &["--fix", "--dry-run"][..]] {
        let diagnosis = sandbox.doctor_with(arguments);
        diagnosis.assert_only(&[]);
        diagnosis.assert("path", "info", &["there is no store", "from INCUMBENT_DB"]);
        assert!(diagnosis.about("schema").is_empty() && diagnosis.about("modes").is_empty());
        diagnosis.assert_silent("free_space");
        assert!(!sandbox.file("store").exists(), "{arguments:?} made a store");
    }
    let given = sandbox.json(["--db", "elsewhere/a.db", "doctor"]).1;
    assert!(given[0]["evidence"].as_str().unwrap().contains("from `--db`"), "{given:#}");
    let mut unsaid = sandbox.doctor_command(&[]);
    unsaid.env_remove("INCUMBENT_DB");
    Diagnosis::of(&Process::start(unsaid).finish(LIMIT)).assert("path", "info", &["the default"]);
    let nowhere = sandbox.json(["--db", "/", "doctor"]);
    assert_eq!((nowhere.0, &nowhere.1[0]["id"]), (1, &json!("path")), "{nowhere:#?}");
}

/// Whoever can write a directory above the store can put another store in its place, and two own.
#[test]
fn a_directory_that_others_can_write_is_a_problem_at_whatever_height() {
    let sandbox = Sandbox::new();
    sandbox.used();
    let above = sandbox.path();
    set_mode(above, 0o777);
    let diagnosis = sandbox.doctor();
    let finding = diagnosis.assert("path", "error", &["mode 0777", above.to_str().unwrap()]);
    diagnosis.assert_only(&["path"]);
    sandbox.try_remedy(finding, "chmod go-w").assert_code(0);
    sandbox.doctor().assert_only(&[]);
    // /tmp itself is sticky: nobody can rename there what is another's.
    set_mode(above, 0o1777);
    sandbox.doctor().assert_only(&[]);
    set_mode(above, 0o700);
    // The store's own directory is not opened then.
    set_mode(&sandbox.file("store"), 0o777);
    let diagnosis = sandbox.doctor();
    diagnosis.assert("open", "error", &["can be written by others"]);
    sandbox
        .try_remedy(diagnosis.assert("path", "error", &["mode 0777"]), "chmod go-w")
        .assert_code(0);
    sandbox.doctor().assert_only(&[]);
}

#[test]
fn a_directory_of_somebody_else_is_a_problem() {
    if another_user().is_none() {
        return skipped("needs root");
    }
    let sandbox = Sandbox::new();
    sandbox.used();
    let nobody = rustix::process::Uid::from_raw(65534);
    rustix::fs::chown(sandbox.path(), Some(nobody), None).unwrap();
    sandbox.doctor().assert("path", "error", &["belongs to uid 65534"]);
    // For root the store of a user is that user's business.
    rustix::fs::chown(sandbox.file("store"), Some(nobody), None).unwrap();
    sandbox.doctor().assert("path", "ok", &[]);
}

/// FIELD-BUGS rows 33 and 36: an opaque "readonly database", or secrets that everybody can read.
#[test]
fn modes_are_compared_and_repaired() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let anchor = sandbox.anchors().join(&sandbox.anchor_names()[0]);
    let opened =
        [(sandbox.db(), 0o644, 0o600), (sandbox.anchors(), 0o755, 0o700), (anchor, 0o640, 0o600)];
    for (path, wider, _) in &opened {
        set_mode(path, *wider);
    }
    let diagnosis = sandbox.doctor();
    let finding =
        diagnosis.assert("modes", "warning", &["others can read", "state.db", "mode 0644"]);
    diagnosis.assert_only(&["modes"]);
    sandbox.try_remedy(finding, "chmod").assert_code(0);
    sandbox.doctor().assert_only(&[]);

    for (path, wider, _) in &opened {
        set_mode(path, *wider);
    }
    let before = sandbox.picture();
    let dry = sandbox.doctor_with(&["--fix", "--dry-run"]);
    let finding = dry.assert("modes", "warning", &[]);
    let act = finding["act"].as_str().unwrap();
    assert_eq!(act.matches("would set the mode of").count(), 3, "{act}");
    assert_eq!(finding["left"], true);
    assert!(sandbox.picture() == before, "--dry-run wrote");
    assert_eq!(mode(&sandbox.db()), 0o644);

    let fixed = sandbox.doctor_with(&["--fix"]);
    assert_eq!(fixed.code, 0, "{fixed:#?}");
    let finding = fixed.about("modes")[0];
    assert_eq!((&finding["left"], &finding["severity"]), (&json!(false), &json!("warning")));
    assert!(finding["act"].as_str().unwrap().contains("done: set the mode"), "{finding:#}");
    for (path, _, private) in &opened {
        assert_eq!(mode(path), *private, "{}", path.display());
    }
    let recorded = "SELECT count(*) FROM events WHERE event = 'doctor_fixed'
        AND json_extract(detail, '$.check') = 'modes' AND json_extract(detail, '$.by') LIKE \
        'incumbent doctor%'";
    assert_eq!(sandbox.number(recorded), 3);
    sandbox.doctor().assert_only(&[]);
    run.end().assert_code(0);
}

#[test]
fn files_of_another_user_or_that_cannot_be_written_are_named() {
    let Some(words) = another_user() else { return skipped("needs root") };
    let sandbox = Sandbox::new();
    sandbox.used();
    let wal = sandbox.file("store/state.db-wal");
    let nobody = Some(rustix::process::Uid::from_raw(65534));
    rustix::fs::chown(&wal, nobody, None).unwrap();
    let diagnosis = sandbox.doctor();
    let finding =
        diagnosis.assert("modes", "warning", &["another user", "state.db-wal", "uid 65534"]);
    sandbox.try_remedy(finding, "chown").assert_code(0);
    sandbox.doctor().assert_only(&[]);

    let theirs = Sandbox::new();
    let binary = theirs.open_to_nobody();
    let ask = |verb: &[&str]| {
        let mut command = theirs.within(words);
        command.arg(&binary).args(verb).env_remove("HERMES_HOME");
        Process::start(command).finish(LIMIT)
    };
    ask(&["run", "--no-backoff", "--", "true"]).assert_code(0);
    set_mode(&theirs.db(), 0o400);
    let diagnosis = Diagnosis::of(&ask(&["--json", "doctor"]));
    diagnosis.assert("modes", "error", &["uid 65534 cannot write", "state.db", "mode 0400"]);
    diagnosis.assert("blind_spots", "info", &["other users"]);
    // Not to be read either: the store is there, and cannot be asked.
    set_mode(&theirs.db(), 0o000);
    let diagnosis = Diagnosis::of(&ask(&["--json", "doctor"]));
    let open = diagnosis.assert("open", "error", &["cannot be read"]);
    assert!(open["remedy"].as_str().unwrap().contains("owner"), "{open:#}");
    assert!(diagnosis.about("schema").is_empty(), "{diagnosis:#?}");
    let fixed = Diagnosis::of(&ask(&["--json", "doctor", "--fix"]));
    assert_eq!((fixed.code, mode(&theirs.db())), (0, 0o600), "{fixed:#?}");
    // Who may not look does not say that there is none.
    set_mode(&theirs.file("store"), 0o000);
    Diagnosis::of(&ask(&["--json", "doctor"])).assert("path", "unknown", &["cannot look at"]);
    set_mode(&theirs.file("store"), 0o700);
}

/// Symptom: of a store on a filesystem that was mounted read-only, the doctor said to change modes.
/// Cause: it only knew that nobody could write. It holds because the mount is asked.
#[test]
fn a_read_only_mount_is_named() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    sandbox.used();
    let ask = |arguments: &[&str]| {
        let mut command = sandbox.within(words);
        command.arg(BINARY).args(["--json", "doctor"]).args(arguments);
        Diagnosis::of(
            &Process::start({
                command.env_remove("HERMES_HOME");
                command
            })
            .finish(LIMIT),
        )
    };
    let remedy_of = |diagnosis: &Diagnosis, id| {
        let finding = diagnosis.assert(id, "error", &["is mounted read-only", "store"]);
        let remedy = finding["remedy"].as_str().unwrap();
        assert!(remedy.contains("mount it read-write"), "{remedy}");
        assert!(!finding.to_string().contains("chmod"), "{finding:#}");
    };
    let diagnosis = ask(&[]);
    remedy_of(&diagnosis, "modes");
    diagnosis.assert_only(&["modes"]);
    diagnosis.assert_silent("filesystem");
    remedy_of(&ask(&["--fix"]), "modes");
    // Where there is no store yet, nobody can make one.
    std::fs::remove_dir_all(sandbox.file("store")).unwrap();
    std::fs::create_dir(sandbox.file("store")).unwrap();
    remedy_of(&ask(&[]), "filesystem");
}

/// FIELD-BUGS row 75. The mounts are what the kernel is made to say they are.
#[test]
fn a_filesystem_of_another_machine_is_a_problem() {
    const SCRIPT: &str = "
        sed \"s/ - [a-z0-9]* / - $0 /\" /proc/self/mountinfo > mounts
        mount --bind mounts /proc/$$/mountinfo || exit 99
        exec \"$@\"";
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    sandbox.used();
    let ask = |kind: &str, options: &[&str]| {
        let mut command = sandbox.within(words);
        command.args(["/bin/sh", "-c", SCRIPT, kind, BINARY]);
        command.args(options).args(["--json", "doctor"]).env_remove("HERMES_HOME");
        Process::start(command).finish(LIMIT)
    };
    let answer = ask("nfs4", &[]);
    if answer.code() == 99 {
        return skipped("needs leave to mount over a file of /proc");
    }
    let diagnosis = Diagnosis::of(&answer);
    diagnosis.assert("filesystem", "error", &["nfs4"]);
    diagnosis.assert("open", "error", &["nfs4"]);
    let vouched = Diagnosis::of(&ask("nfs4", &["--allow-filesystem", "nfs4"]));
    vouched.assert("filesystem", "info", &["nfs4", "--allow-filesystem"]);
    vouched.assert_only(&[]);
    Diagnosis::of(&ask("fuse", &[])).assert("filesystem", "unknown", &["not by this check"]);
    Diagnosis::of(&ask("ext4", &[])).assert_silent("filesystem");
}

/// FIELD-BUGS row 78: on a full disk nobody can own.
#[test]
fn a_disk_that_is_nearly_full_is_a_problem() {
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    for (options, severity) in [
        ("size=40m", "warning"),
        ("size=5m", "error"),
        ("size=400m,nr_inodes=20", "error"),
        ("size=400m", "ok"),
    ] {
        let sandbox = Sandbox::new();
        let script = format!(
            "mkdir store && mount -t tmpfs -o {options},mode=700 t store || exit 99
             incumbent run --no-backoff -- true && exec incumbent --json doctor"
        );
        let mut command = sandbox.within(words);
        command.args(["/bin/sh", "-c", &script]).env_remove("HERMES_HOME");
        let diagnosis = Diagnosis::of(&Process::start(command).finish(LIMIT));
        diagnosis.assert("free_space", severity, &["free at"]);
        diagnosis.assert_only(if severity == "ok" { &[] } else { &["free_space"] });
    }
}

/// In a container without root of its own, what belongs to the machine's root looks like nobody's.
#[test]
fn a_user_namespace_makes_no_strangers() {
    const WORDS: [&str; 2] = ["unshare", "-Ur"];
    if !works(&WORDS) {
        return skipped("needs user namespaces");
    }
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let mut command = sandbox.incumbent_under(&WORDS, &["--json", "doctor"]);
    command.env_remove("HERMES_HOME");
    let diagnosis = Diagnosis::of(&Process::start(command).finish(LIMIT));
    diagnosis.assert("path", "ok", &[]);
    diagnosis.assert_only(&[]);
    run.end().assert_code(0);
}

/// It says what it cannot see, and does not take what is hidden for gone.
#[test]
fn what_is_hidden_is_told() {
    let Some(words) = nobody_with_hidepid() else {
        return skipped("needs root, and leave to mount /proc");
    };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let run = sandbox.hold(&[]);
    let mut command = sandbox.within(words);
    command.arg(&binary).args(["--json", "doctor"]).env_remove("HERMES_HOME");
    let diagnosis = Diagnosis::of(&Process::start(command).finish(LIMIT));
    diagnosis.assert("blind_spots", "info", &["hidepid", "other machines", "other users"]);
    diagnosis.assert_silent("stale_rows");
    run.end().assert_code(0);
}
