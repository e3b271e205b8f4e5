//! What else there is: older files, other stores; and how it is all told.

use std::path::PathBuf;

use super::Diagnosis;
use crate::support::{
    BINARY, LIMIT, Process, Run, Sandbox, has, mount_namespace, set_mode, skipped,
};

/// An older program that only knows its own files.
#[test]
fn files_of_an_older_program_that_say_something_else_are_named() {
    let sandbox = Sandbox::new();
    let home = sandbox.file("configuration");
    std::fs::create_dir(&home).unwrap();
    let home_text = home.to_str().unwrap();
    let run = sandbox.hold(&["--home", home_text, "--lock", "token=a-secret-of-mine"]);
    let mut command = sandbox.program("/bin/sh");
    command.args(["-c", "read word", "gateway", "a-secret-of-mine"]);
    let other = Process::start(command);
    let start_time = crate::support::Stat::of(other.pid()).unwrap().start_time;
    let of_run = crate::support::Stat::of(run.pid()).unwrap().start_time;
    let write = |name: &str, text: &str| std::fs::write(home.join(name), text).unwrap();
    let live = format!("{{\"pid\": {}, \"start_time\": {start_time}}}", other.pid());
    for (pid_file, severity, words) in [
        (live.as_str(), "error", "which is alive"),
        (&format!("{{\"pid\": {}, \"start_time\": 7}}", other.pid()), "info", "no longer that"),
        (&format!("{{\"pid\": {}, \"start_time\": {of_run}}}", run.pid()), "ok", ""),
        ("4194305", "info", "pid 4194305"),
        (&other.pid().to_string(), "info", "no longer that"),
        ("\u{0}garbage", "info", "names no process"),
        ("", "info", "it is empty"),
    ] {
        write("gateway.pid", pid_file);
        let before = std::fs::metadata(home.join("gateway.pid")).unwrap().modified().unwrap();
        let diagnosis = sandbox.doctor();
        let finding = diagnosis.assert("legacy_files", severity, &[words]);
        assert!(!finding.to_string().contains("a-secret-of-mine"), "{finding:#}");
        let after = std::fs::metadata(home.join("gateway.pid")).unwrap().modified().unwrap();
        assert_eq!(before, after);
    }
    std::fs::remove_file(home.join("gateway.pid")).unwrap();
    run.end().assert_code(0);

    // In the directory that the environment names, too; and where an older store has no column for
    // it.
    write("gateway.lock", &live);
    sandbox.forge("UPDATE profiles SET home = NULL");
    sandbox.age_to(5);
    let mut command = sandbox.doctor_command(&[]);
    command.env("HERMES_HOME", &home);
    let diagnosis = Diagnosis::of(&Process::start(command).finish(LIMIT));
    // Its lock is free: whoever lives has let it go.
    diagnosis.assert("legacy_files", "info", &["gateway.lock", &format!("pid {}", other.pid())]);
    sandbox.doctor().assert_silent("legacy_files");
    if !has("flock") {
        return skipped("the end of it needs flock");
    }
    let lock = home.join("gateway.lock");
    let script = format!("exec flock -n {} -c 'echo locked; cat'", lock.display());
    let mut holder = Process::start(sandbox.shell(&script));
    holder.line_with("locked");
    let mut command = sandbox.doctor_command(&[]);
    command.env("HERMES_HOME", &home);
    let diagnosis = Diagnosis::of(&Process::start(command).finish(LIMIT));
    let words = [&format!("pid {}", holder.pid()), "gateway.lock", "not on record"];
    diagnosis.assert("legacy_files", "error", &words);
    diagnosis.assert_only(&["legacy_files"]);
}

/// FIELD-BUGS row 30: two stores are two authorities.
#[test]
fn another_store_with_live_holders_is_told() {
    let sandbox = Sandbox::new();
    sandbox.used();
    let mut start =
        sandbox.incumbent(["run", "--no-backoff", "--", "/bin/sh", "-c", "echo $$; exec cat"]);
    start.env_remove("INCUMBENT_DB");
    let run = Run::start(start);
    let default: PathBuf = sandbox.file("home/.local/state/incumbent/state.db");
    let words = [default.to_str().unwrap(), "default/gateway"];
    let diagnosis = sandbox.doctor();
    let finding = diagnosis.assert("other_stores", "info", &words);
    diagnosis.assert_only(&[]);
    sandbox.try_remedy(finding, "incumbent --db").assert_code(0);
    // And from the other side.
    let held = sandbox.hold(&[]);
    let mut there = sandbox.doctor_command(&[]);
    there.args(["--db".as_ref(), default.as_os_str()]);
    let there = Diagnosis::of(&Process::start(there).finish(LIMIT));
    there.assert("other_stores", "info", &[sandbox.db().to_str().unwrap()]);
    held.end().assert_code(0);
    run.end().assert_code(0);
    sandbox.doctor().assert_silent("other_stores");
}

/// FIELD-BUGS row 101. Symptom: two gateways with one token, each behind mounts of its own (a
/// sandbox, `PrivateTmp`), and the doctor found nothing. Cause: it looked at the path, and by that
/// all was well. It holds because what others have open by that path is compared with what it is
/// here, by its inode.
#[test]
fn owners_of_another_store_at_our_own_path_are_named() {
    let Some(words) = mount_namespace() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    sandbox.used();
    let hold = |mounts: &str| {
        let mut command = sandbox.program(words[0]);
        let held = "incumbent run --no-backoff -- /bin/sh -c 'echo $$; exec cat'";
        command.args(&words[1..]).args(["/bin/sh", "-c", &format!("{mounts} && exec {held}")]);
        Run::start(command)
    };
    // The very same file, seen through other mounts.
    for mounts in ["true", "mount --bind store store", "mkdir -p other && mount --bind . other"] {
        let run = hold(mounts);
        let diagnosis = sandbox.doctor();
        diagnosis.assert_silent("namesakes");
        diagnosis.assert_only(&[]);
        run.end().assert_code(0);
    }

    let run = hold("mount -t tmpfs -o mode=0700 t store");
    let here = sandbox.hold(&[]);
    let pid = format!("pid {} (incumbent)", run.pid());
    let at = sandbox.db().display().to_string();
    let diagnosis = sandbox.doctor();
    let finding = diagnosis.assert("namesakes", "warning", &[&pid, &at, "another file"]);
    diagnosis.assert_only(&["namesakes"]);
    let shown = format!("nsenter -t {} -m incumbent --db {at} status --all", run.pid());
    let answer = sandbox.try_remedy(finding, &shown).assert_code(0);
    assert!(answer.out.contains(&run.pid().to_string()), "{answer:#?}");
    // And from the other side.
    let mut there = sandbox.program("nsenter");
    there.args(["-m", "-t", &run.pid().to_string(), BINARY, "--json", "doctor"]);
    there.env_remove("HERMES_HOME");
    let there = Diagnosis::of(&Process::start(there).finish(LIMIT));
    let pid = format!("pid {} (incumbent)", here.pid());
    there.assert("namesakes", "warning", &[&pid, &at]);
    here.end().assert_code(0);
    run.end().assert_code(0);
    sandbox.doctor().assert_silent("namesakes");

    // Where there is no store yet, a start will make a second one.
    let run = hold("mount -t tmpfs -o mode=0700 t store");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(sandbox.sidecar(suffix));
    }
    let pid = format!("pid {} (incumbent)", run.pid());
    sandbox.doctor().assert("namesakes", "warning", &[&pid]);
    run.end();
}

/// A remedy names the store that it is about.
#[test]
fn remedies_name_a_store_that_was_asked_for_by_its_path() {
    let sandbox = Sandbox::new();
    let mut start = sandbox.incumbent(["--db", "a place/b.db", "run", "--no-backoff"]);
    start.args(["--", "/bin/sh", "-c", "echo $$; exec cat"]);
    let mut run = Run::start(start);
    run.kill();
    run.command.wait_gone(LIMIT);
    let (code, findings) = sandbox.json(["--db", "a place/b.db", "doctor"]);
    assert_eq!(code, 0);
    let stale = findings.as_array().unwrap().iter().find(|it| it["id"] == "stale_rows").unwrap();
    assert_eq!(stale["severity"], "info", "{stale:#}");
    sandbox.try_remedy(stale, "incumbent --db '").assert_code(0);
    let (_, findings) = sandbox.json(["--db", "a place/b.db", "doctor"]);
    let stale = findings.as_array().unwrap().iter().find(|it| it["id"] == "stale_rows").unwrap();
    assert_eq!(stale["severity"], "ok", "{stale:#}");
    assert!(!sandbox.file("store").exists(), "the default store was touched");
}

/// The text for people: problems first, each with what to try, then how many; the rest of it only
/// with `--verbose`.
#[test]
fn problems_come_first_and_are_counted() {
    let sandbox = Sandbox::new();
    let run = sandbox.stopped();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    set_mode(sandbox.path(), 0o777);
    let short = sandbox.cli(["doctor"]).assert_code(1).out;
    let text = sandbox.cli(["doctor", "--verbose"]).assert_code(1).out;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("error path: "), "{text}");
    assert!(lines[1].starts_with("  try:   "), "{text}");
    assert!(lines[2].starts_with("warning "), "{text}");
    assert!(lines[lines.len() - 2].starts_with("ok: "), "{text}");
    assert!(text.contains("\ninfo conflicts: "), "{text}");
    assert!(text.contains("\ninfo blind_spots: "), "{text}");
    assert_eq!(lines.last(), Some(&"2 problems: 1 error, 1 warning"), "{text}");
    // Without the option nothing is said of what needs nobody.
    for word in ["info ", "ok: ", "blind_spots"] {
        assert!(!short.lines().any(|line| line.starts_with(word)), "{short}");
    }
    assert_eq!(short.lines().last(), lines.last().copied(), "{short}");
    set_mode(sandbox.path(), 0o700);
    drop(run);
}

/// Usage: a dry run of nothing is nonsense.
#[test]
fn a_dry_run_is_one_of_a_repair() {
    let sandbox = Sandbox::new();
    sandbox.cli(["doctor", "--dry-run"]).assert_code(2);
}
