//! Where the machine does not say, the reason stands in its place.

use std::path::Path;

use serde_json::{Value, json};

use super::left::{assert_log_line, said_by_run, why};
use super::own_uid;
use crate::support::{
    BINARY, HOLDING, LIMIT, Process, Run, Sandbox, mount_namespace, nobody_with_hidepid,
    pid_namespace, skipped, works,
};

/// A reason about a file that the test has made unreadable.
#[track_caller]
fn assert_hidden(process: &Value, reason: &str) {
    for field in ["cmdline", "name", "state", "uid"] {
        assert!(why(&process[field]).contains(reason), "{field}: {process:#}");
    }
    assert!(process["pid"].is_u64(), "{process:#}");
}

/// R:HIDEPID. FIELD-BUGS rows 29 and 83: what the kernel hides is not gone, and is not blank.
#[test]
fn with_hidepid_the_parent_is_hidden_and_the_rest_is_there() {
    let Some(words) = nobody_with_hidepid() else {
        return skipped("needs root, and leave to mount /proc");
    };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let snapshot = sandbox.forensic_snapshot_behind(words, &binary, &["--signal", "15"]);
    let own = std::process::id();
    assert_eq!(snapshot["ppid"], own, "{snapshot:#}");
    assert_eq!(snapshot["parent"]["pid"], own, "{snapshot:#}");
    assert_hidden(&snapshot["parent"], "hidepid");
    assert_eq!(snapshot["self"]["uid"], 65534, "{snapshot:#}");
    assert_eq!(snapshot["self"]["name"], "incumbent", "{snapshot:#}");
    assert!(snapshot["loadavg_1m"].is_f64(), "{snapshot:#}");
    assert!(snapshot["memory"]["rss_bytes"].is_u64(), "{snapshot:#}");
    let verb = ["forensics", "snapshot"];
    let answer = Process::start(sandbox.under(words, &binary, &verb)).finish(LIMIT);
    let said = assert_log_line(answer.assert_code(0).out.trim_end_matches('\n'));
    assert_eq!(said["parent_pid"], own.to_string());
    assert!(said["parent_cmdline"].contains("hidepid"), "{said:?}");

    // A sender that cannot be seen: pid and uid come with the signal.
    let verb = [&["run", "--no-backoff"], HOLDING].concat();
    let run = Run::start(sandbox.under(words, &binary, &verb));
    let mut deployer = sandbox.deployer();
    deployer.send("TERM", run.pid());
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(143);
    let said = said_by_run(&answer);
    assert_eq!(said["sender_pid"], deployer.pid().to_string());
    assert_eq!(said["sender_uid"], own_uid().to_string());
    assert!(said["sender_cmdline"].contains("hidepid"), "{said:?}");
    let sender = sandbox.newest_shutdown()["snapshot"]["sender"].clone();
    assert_eq!((&sender["pid"], &sender["uid"]), (&json!(deployer.pid()), &json!(own_uid())));
    assert!(why(&sender["cmdline"]).contains("hidepid"), "{sender:#}");
}

/// FIELD-BUGS row 83. Masked files, no `/proc`: reasons, and everything else.
#[test]
fn without_parts_of_proc_reasons_stand_in_their_places() {
    let Some(_) = mount_namespace() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let own = std::process::id();
    let behind = |script: &str| {
        let script = format!("{script}\nexec \"$@\"");
        let words = ["unshare", "-m", "/bin/sh", "-c", &script, "sh"];
        sandbox.forensic_snapshot_behind(&words, &binary, &["--signal", "15"])
    };
    let empty = behind("mount --bind /dev/null /proc/loadavg || exit 99");
    assert!(why(&empty["loadavg_1m"]).contains("/proc/loadavg"), "{empty:#}");
    assert_eq!(empty["parent"]["pid"], own, "{empty:#}");
    assert!(empty["parent"]["cmdline"].is_string(), "{empty:#}");

    let unreadable = behind(
        "umask 077; echo no > closed && mount --bind closed /proc/loadavg || exit 99
         set -- setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"",
    );
    let reason = why(&unreadable["loadavg_1m"]);
    assert!(reason.contains("/proc/loadavg") && reason.contains("denied"), "{reason}");
    assert!(unreadable["self"]["cmdline"].is_string(), "{unreadable:#}");

    let nothing = behind("umount -l /proc || exit 99");
    assert_eq!((&nothing["ppid"], &nothing["parent"]["pid"]), (&json!(own), &json!(own)));
    for process in ["parent", "self"] {
        assert_hidden(&nothing[process], "/proc cannot be read");
    }
    for field in
        ["boot_id", "cgroup", "loadavg_1m", "tracer", "tracer_pid", "under_systemd", "unit"]
    {
        assert!(!why(&nothing[field]).is_empty(), "{field}: {nothing:#}");
    }
    assert!(!why(&nothing["memory"]["rss_bytes"]).is_empty(), "{nothing:#}");
    assert!(nothing["limits"]["open_files"]["soft"].is_u64(), "{nothing:#}");
    assert!(nothing["ts"].is_f64() && nothing["signal_num"] == 15, "{nothing:#}");
    assert!(!sandbox.file("store").exists());
}

/// R:PIDNS. A `/proc` that belongs to another pid namespace counts other pids: nobody is described
/// by it.
#[test]
fn a_proc_of_another_pid_namespace_describes_nobody() {
    let Some(words) = pid_namespace() else { return skipped("needs a pid namespace") };
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--mount-proc").collect();
    if !works(&words) {
        return skipped("needs a pid namespace without a /proc of its own");
    }
    let sandbox = Sandbox::new();
    // As the second process of its namespace, so that it has a parent there.
    let script = ["/bin/sh", "-c", "\"$@\"; exit $?", "sh"];
    let words = [&words[..], &script].concat();
    let snapshot = sandbox.forensic_snapshot_behind(&words, Path::new(BINARY), &["--signal", "15"]);
    assert_eq!(snapshot["ppid"], 1, "{snapshot:#}");
    assert_eq!(snapshot["parent"]["pid"], 1, "{snapshot:#}");
    for process in ["parent", "self"] {
        assert_hidden(&snapshot[process], "another pid namespace");
    }
    assert!(!why(&snapshot["tracer"]).is_empty(), "{snapshot:#}");
    // What does not go by pids.
    assert!(snapshot["loadavg_1m"].is_f64(), "{snapshot:#}");
    assert!(snapshot["cgroup"].is_string(), "{snapshot:#}");
    assert!(snapshot["boot_id"].is_string(), "{snapshot:#}");
}
