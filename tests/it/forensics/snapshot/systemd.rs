//! Only the main process of a service is under systemd.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::command_lines::copy_shell;
use super::left::{assert_log_line, snapshot_of};
use crate::support::{LIMIT, Process, Sandbox, skipped};

/// A control group that looks like a unit of systemd's; removed when dropped.
struct Unit {
    directory: PathBuf,
    /// Below it, from the outside in.
    below: Vec<PathBuf>,
}

impl Unit {
    /// `None` where we may make none.
    fn new(path: &str) -> Option<Self> {
        let mounts = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
        mounts.iter().map(Path::new).find_map(|mount| {
            if !mount.join("cgroup.procs").exists() {
                return None;
            }
            let mut directory = mount.to_owned();
            let mut below = Vec::new();
            for name in path.split('/') {
                directory.push(name);
                if std::fs::create_dir(&directory).is_err() {
                    drop(Self { directory, below });
                    return None;
                }
                below.push(directory.clone());
            }
            Some(Self { directory, below })
        })
    }

    /// A script that runs in there.
    fn shell(&self, sandbox: &Sandbox, script: &str) -> Process {
        let join = format!("echo $$ > '{}/cgroup.procs' || exit 99", self.directory.display());
        Process::start(sandbox.shell(&format!("{join}\n{script}")))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        for directory in self.below.iter().rev() {
            // Whoever was in there may not have been counted out yet.
            let until = Instant::now() + Duration::from_secs(5);
            while std::fs::remove_dir(directory).is_err() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// FIELD-BUGS row 86: every terminal of a desktop has an `INVOCATION_ID`, and the seed took each
/// for a systemd service.
#[test]
fn the_environment_alone_makes_no_service() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.incumbent(["--json", "forensics", "snapshot"]);
    command
        .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
        .env("JOURNAL_STREAM", "8:4711")
        .env("SYSTEMD_EXEC_PID", std::process::id().to_string());
    let snapshot = snapshot_of(Process::start(command).finish(LIMIT));
    assert_eq!(snapshot["under_systemd"], false, "{snapshot:#}");
    assert_eq!(snapshot["systemd_invocation_id"], "0123456789abcdef0123456789abcdef");
    assert_eq!(snapshot["systemd_journal_stream"], "8:4711");
    let mut command = sandbox.incumbent(["--json", "forensics", "snapshot"]);
    command.env_remove("INVOCATION_ID").env_remove("JOURNAL_STREAM");
    let snapshot = snapshot_of(Process::start(command).finish(LIMIT));
    assert_eq!(snapshot["systemd_invocation_id"], Value::Null);
    assert_eq!(snapshot["systemd_journal_stream"], Value::Null);
}

/// The main process of a real service is under systemd; what it starts, and who shares its
/// environment or its control group, is not.
#[test]
fn only_the_main_process_of_a_service_is_under_systemd() {
    let sandbox = Sandbox::new();
    let own = std::process::id();
    let unit = |name: &str| name.replace("IT", &format!("it-{own}"));
    let shell = copy_shell(&sandbox, b"systemd");
    let executed = "export INVOCATION_ID=x SYSTEMD_EXEC_PID=$$; exec $SNAPSHOT";
    let child = "export INVOCATION_ID=x SYSTEMD_EXEC_PID=$$; $SNAPSHOT; exit $?";
    let by_manager = format!("'{}' -c '$SNAPSHOT; exit $?'; exit $?", shell.display());
    for (path, name, script, expected) in [
        ("IT-a.service", "IT-a.service", executed, true),
        ("IT-b.service", "IT-b.service", child, false),
        ("IT-c.service", "IT-c.service", "export INVOCATION_ID=x; exec $SNAPSHOT", false),
        // Before version 248 the parent alone tells.
        ("IT-d.service", "IT-d.service", &by_manager, true),
        ("IT-e.scope", "IT-e.scope", executed, false),
        ("IT-f.slice", "IT-f.slice", executed, false),
        ("IT-g.slice/IT-h.service", "IT-h.service", executed, true),
        ("IT-i.service/IT-j.scope", "IT-j.scope", executed, false),
        ("IT-k.service/payload", "IT-k.service", executed, true),
        ("IT-l", "", executed, false),
    ] {
        let Some(group) = Unit::new(&unit(path)) else {
            return skipped("needs leave to make control groups");
        };
        let script =
            format!("SNAPSHOT='incumbent --json forensics snapshot'\nexport SNAPSHOT\n{script}");
        let snapshot = snapshot_of(group.shell(&sandbox, &script).finish(LIMIT));
        assert_eq!(snapshot["under_systemd"], expected, "{path}: {script}: {snapshot:#}");
        assert_eq!(snapshot["cgroup"], format!("/{}", unit(path)), "{snapshot:#}");
        if name.is_empty() {
            assert_eq!(snapshot["unit"], Value::Null, "{snapshot:#}");
        } else {
            assert_eq!(snapshot["unit"], unit(name), "{snapshot:#}");
        }
        let script = script.replace("--json", "");
        let answer = group.shell(&sandbox, &script).finish(LIMIT).assert_code(0);
        let said = assert_log_line(answer.out.trim_end_matches('\n'));
        assert_eq!(said["under_systemd"], if expected { "yes" } else { "no" });
        assert_eq!(said.get("unit").map_or("", String::as_str), unit(name));
    }
}
