//! No room for another task when the command is to be started again: the run keeps its office, and
//! has its command when there is room (FIELD-BUGS row 109). For the limit of a user see
//! `faults/limits.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{
    BINARY, Identity, LIMIT, Process, Run, STAY, Sandbox, UserManager, eventually, is_root,
    skipped, wait_for_looks,
};

/// A run looks ten times a second: three seconds, in which it tries several times.
const LOOKS: u64 = 30;

/// How long a restart waits here for room.
const RESTART: [&str; 3] = ["restart", "--timeout", "10min"];

/// A control group that may be closed to new tasks. Removed in the end, with what is left in it.
struct TaskGroup(PathBuf);

impl TaskGroup {
    /// `None`, and said, where there cannot be one.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("incumbent-it-tasks-{}-{number}", std::process::id());
        for mount in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
            let directory = Path::new(mount).join(&name);
            if !is_root() || std::fs::create_dir(&directory).is_err() {
                continue;
            }
            let group = Self(directory);
            if group.limit().exists() {
                return Some(group);
            }
        }
        skipped("needs root, and a control group that counts tasks");
        None
    }

    fn limit(&self) -> PathBuf {
        self.0.join("pids.max")
    }

    /// A program that is in it from the start.
    fn started_in(&self, sandbox: &Sandbox, words: &[&str]) -> Command {
        const ENTER: &str = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let mut command = sandbox.program("/bin/sh");
        command.args(["-c", ENTER]).arg(&self.0).args(words);
        command
    }

    fn allow(&self, tasks: &str) {
        std::fs::write(self.limit(), tasks).unwrap();
    }
}

impl Drop for TaskGroup {
    fn drop(&mut self) {
        let parent = self.0.parent().unwrap().join("cgroup.procs");
        // Those that end are in it until they are gone.
        for _ in 0..1_000 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            let left = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
            for pid in left.lines() {
                let _ = std::fs::write(&parent, pid);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

/// `pids.max`, as a container has it.
#[test]
fn a_full_control_group_ends_no_run() {
    let Some(group) = TaskGroup::new() else { return };
    let sandbox = Sandbox::new();
    let words = [BINARY, "run", "--no-backoff", "--", "/bin/sh", "-c", STAY];
    let mut run = Run::start(group.started_in(&sandbox, &words));
    let instance = sandbox.status().1["instance"].clone();
    // Less than there are: those stay, and no other one comes.
    group.allow("1");
    let restart = Process::start(sandbox.incumbent(RESTART));
    run.process.err_line_with("`TasksMax=`");
    run.command.wait_gone(LIMIT);
    wait_for_looks(&[run.pid()], LOOKS);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], run.pid());
    group.allow("max");
    restart.finish(LIMIT).assert_code(0);
    let next = run.process.line().parse().expect("the pid of the next command");
    run.command = Identity::of(next).expect("it has just spoken");
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!((&status["instance"], &status["child_pid"]), (&instance, &next.into()));
    run.end().assert_code(0);
}

/// `TasksMax=`, of a service that systemd would count as failed if its run ended.
#[test]
fn a_full_service_keeps_its_run() {
    let sandbox = Sandbox::new();
    let Some(manager) = UserManager::start_counting_tasks(&sandbox) else { return };
    let errors = sandbox.file("gw.err");
    let unit = format!(
        "[Service]\nStandardError=file:{}\nTimeoutStopSec=600\n\
         ExecStart={BINARY} run --no-backoff -- sleep 1000\n",
        errors.display()
    );
    manager.install("gw.service", unit);
    manager.systemctl(["start", "gw"]).assert_code(0);
    let command = || {
        eventually("a command", LIMIT, || {
            let status = sandbox.status().1;
            status["child_pid"].as_u64().filter(|_| status["running"] == true)
        })
    };
    let before = command();
    let run = manager.main_pid("gw");
    let group = manager.property("gw", "ControlGroup");
    let limit = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .iter()
        .map(|mount| PathBuf::from(format!("{mount}{group}/pids.max")))
        .find(|limit| limit.exists());
    let Some(limit) = limit else { return skipped("needs a manager that counts tasks") };
    let allow = |tasks: &str, shown: &str| {
        let setting = format!("TasksMax={tasks}");
        manager.systemctl(["set-property", "--runtime", "gw", &setting]).assert_code(0);
        eventually("the limit", LIMIT, || {
            (std::fs::read_to_string(&limit).ok()?.trim() == shown).then_some(())
        });
    };
    allow("1", "1");
    let restart = Process::start(sandbox.incumbent(RESTART));
    eventually("it is said", LIMIT, || {
        let said = std::fs::read_to_string(&errors).unwrap_or_default();
        said.contains("`TasksMax=`").then_some(())
    });
    wait_for_looks(&[run], LOOKS);
    assert_eq!(manager.property("gw", "ActiveState"), "active");
    allow("infinity", "max");
    restart.finish(LIMIT).assert_code(0);
    assert_ne!(command(), before);
    assert_eq!(manager.main_pid("gw"), run, "the same run");
    assert_eq!(manager.property("gw", "NRestarts"), "0");
}
