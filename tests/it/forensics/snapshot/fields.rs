//! Every field says what is so.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::left::{assert_complete, assert_log_line, assert_state, snapshot_of, why};
use super::own_uid;
use crate::support::{LIMIT, Process, Sandbox};

/// The seed's fields under the seed's names, against what can be seen from outside.
#[test]
fn a_snapshot_says_what_is_so() {
    let sandbox = Sandbox::new();
    std::fs::write(
        sandbox.file("parent.sh"),
        "incumbent --json forensics snapshot --signal 15; incumbent forensics snapshot
         echo; sed -n 1p > /dev/null; exit 0",
    )
    .unwrap();
    let load = || {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let uptime = || {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let mut attempts = 0;
    let (parent, document, line) = loop {
        let (load_before, uptime_before, before) = (load(), uptime(), now());
        let mut command = sandbox.program("/bin/sh");
        command.args(["parent.sh", "one", "two words"]);
        let mut parent = Process::start(command);
        let mut text = String::new();
        while !text.ends_with("\n}\n") {
            text += &(parent.line() + "\n");
        }
        let (line, pid) = (parent.line(), parent.pid());
        let document: Value = serde_json::from_str(&text).unwrap();
        let (ts, ts_monotonic) = (&document["ts"], &document["ts_monotonic"]);
        let ts = ts.as_f64().unwrap();
        assert!(before - 0.002 <= ts && ts <= now(), "{before} {ts}");
        let ts_monotonic = ts_monotonic.as_f64().unwrap();
        let is_between = uptime_before - 0.02 <= ts_monotonic && ts_monotonic <= uptime() + 0.02;
        assert!(is_between, "{uptime_before} {ts_monotonic}");
        parent.finish(LIMIT).assert_code(0);
        let seen = document["loadavg_1m"].as_f64().unwrap();
        attempts += 1;
        // It may have changed twice in between.
        if [load_before, load()].iter().any(|load| (load - seen).abs() < 0.001) || attempts > 5 {
            assert!(attempts <= 5, "the load average is {seen}");
            break (pid, document, line);
        }
    };
    assert_complete(&document);
    let own = std::process::id();
    let pid = document["pid"].as_u64().unwrap();
    assert_eq!(document["ppid"], parent, "{document:#}");
    let is_about_parent = json!({
        "cmdline": "/bin/sh parent.sh one \"two words\"",
        "name": "sh",
        "pid": parent,
        "ppid": own,
        "state": document["parent"]["state"],
        "uid": own_uid(),
    });
    assert_eq!(document["parent"], is_about_parent, "{document:#}");
    assert_state(&document["parent"]["state"]);
    let is_about_itself = json!({
        "cmdline": "incumbent --json forensics snapshot --signal 15",
        "name": "incumbent",
        "pid": pid,
        "ppid": parent,
        "state": "R (running)",
        "uid": own_uid(),
    });
    assert_eq!(document["self"], is_about_itself, "{document:#}");
    assert_eq!(document["signal"], "SIGTERM");
    assert_eq!(document["signal_num"], 15);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(document["boot_id"], boot_id.trim());
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let group = document["cgroup"].as_str().unwrap();
    assert!(groups.lines().any(|line| line.ends_with(&format!(":{group}"))), "{group}: {groups}");
    assert!(why(&document["sender"]).contains("not caught by incumbent"), "{document:#}");
    for field in ["recorded", "takeover_marker", "takeover_marker_for_self", "planned_stop_marker"]
    {
        assert_eq!(why(&document[field]), "there is no store", "{field}");
    }
    if !is_traced() {
        assert_eq!((&document["tracer"], &document["tracer_pid"]), (&Value::Null, &Value::Null));
    }
    // Without a signal.
    let said = assert_log_line(&line);
    assert_eq!(said["signal"], "UNKNOWN");
    assert_eq!(said["parent_pid"], parent.to_string());
    assert_eq!(said["parent_name"], "sh");
    assert!(said["loadavg_1m"].parse::<f64>().is_ok(), "{said:?}");
    assert_eq!(said["parent_cmdline"], "/bin/sh parent.sh one \\\"two words\\\"");
    assert_eq!(said["recorded"], "unavailable: there is no store");
    assert!(!sandbox.file("store").exists());
    let document = sandbox.forensic_snapshot(&[]);
    assert_eq!((&document["signal"], &document["signal_num"]), (&json!("UNKNOWN"), &Value::Null));
}

fn is_traced() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    !status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|it| it.trim() == "0"))
}

/// A signal is named in any of the usual ways, and nothing else is taken for one.
#[test]
fn a_signal_is_named_by_number_or_name() {
    let sandbox = Sandbox::new();
    for (word, name, number) in [
        ("15", "SIGTERM", 15),
        ("TERM", "SIGTERM", 15),
        ("SIGTERM", "SIGTERM", 15),
        ("term", "SIGTERM", 15),
        ("SigHup", "SIGHUP", 1),
        ("2", "SIGINT", 2),
        ("64", "signal#64", 64),
        ("99", "signal#99", 99),
    ] {
        let snapshot = sandbox.forensic_snapshot(&["--signal", word]);
        assert_eq!(snapshot["signal"], name, "{word}");
        assert_eq!(snapshot["signal_num"], number, "{word}");
    }
    for word in ["0", "128", "99999999999", "x", "", " ", "-1", "15.0", "SIG", "SIGSIGTERM", "1e1"]
    {
        let option = format!("--signal={word}");
        let answer = sandbox.cli(["forensics", "snapshot", &option]).assert_code(2);
        assert_eq!(answer.out, "");
        answer.assert_complains(&["--signal", "15, TERM or SIGTERM"]);
    }
    assert!(!sandbox.file("store").exists());
}

/// A gateway that dies of EMFILE or of its memory says what it might use.
#[test]
fn limits_and_memory_are_numbers() {
    let sandbox = Sandbox::new();
    let script = "ulimit -Sn 64 && ulimit -Sc 0 && exec incumbent --json forensics snapshot";
    let snapshot = snapshot_of(Process::start(sandbox.shell(script)).finish(LIMIT));
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let outside = |name: &str| -> (Value, Value) {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let words: Vec<&str> = line[name.len()..].split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().map_or_else(|_| json!(word), Value::from);
        (number(words[0]), number(words[1]))
    };
    for (key, name, soft) in [
        ("address_space_bytes", "Max address space", None),
        ("core_bytes", "Max core file size", Some(0)),
        ("locked_memory_bytes", "Max locked memory", None),
        ("open_files", "Max open files", Some(64)),
        ("processes", "Max processes", None),
    ] {
        let (inherited, hard) = outside(name);
        let soft = soft.map_or(inherited, |soft| json!(soft));
        assert_eq!(snapshot["limits"][key], json!({"hard": hard, "soft": soft}), "{key}");
    }
    let unlimited = |value: &Value| value == "unlimited" || value.is_u64();
    let memory = &snapshot["memory"];
    let (rss, peak) = (memory["rss_bytes"].as_u64(), memory["peak_rss_bytes"].as_u64());
    assert!(rss.is_some_and(|rss| rss > 100_000) && peak >= rss, "{memory:#}");
    assert!(memory["swap_bytes"].is_u64(), "{memory:#}");
    let names: Vec<&String> = memory.as_object().unwrap().keys().collect();
    let expected = [
        "cgroup_bytes",
        "cgroup_limit_bytes",
        "oom_kills",
        "peak_rss_bytes",
        "rss_bytes",
        "swap_bytes",
    ];
    assert_eq!(names, expected);
    for name in ["cgroup_bytes", "cgroup_limit_bytes", "oom_kills"] {
        let value = &memory[name];
        assert!(unlimited(value) || !why(value).is_empty(), "{name}: {memory:#}");
    }
    assert!(memory["cgroup_bytes"] != "unlimited" && memory["oom_kills"] != "unlimited");
}
