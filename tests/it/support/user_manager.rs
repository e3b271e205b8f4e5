//! A user manager of systemd that is the test's own: with cgroups, mounts and a `/run` of its own,
//! so that it meets neither the machine's systemd nor that of another test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::{
    Answer, LIMIT, Process, Sandbox, eventually, exit_code, has, is_root, mount_namespace, skipped,
};

const MANAGER: &str = "/lib/systemd/systemd";

/// Enters the cgroups that its arguments name, and becomes the manager. A tmpfs hides what the
/// machine has in `/run`.
const START: &str = r#"
    for group; do echo $$ > "$group/cgroup.procs" || exit 99; done
    exec setsid unshare -m --propagation private /bin/sh -c '
        mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit 99
        exec "$0" --user --unit=basic.target --log-target=console --log-level=info
    ' "$0""#;

/// Ends with all that it has started when it is dropped.
pub struct UserManager<'a> {
    sandbox: &'a Sandbox,
    process: Process,
    /// One in each hierarchy that systemd uses.
    groups: Vec<PathBuf>,
}

impl<'a> UserManager<'a> {
    /// Starts one, whose services have the environment of the sandbox. `None`, said loudly, where
    /// there can be none.
    #[track_caller]
    pub fn start(sandbox: &'a Sandbox) -> Option<Self> {
        Self::start_in(sandbox, &HIERARCHIES)
    }

    /// The same where it can count and limit the tasks of a service (`TasksMax=`), if there is a
    /// control group for that.
    #[track_caller]
    pub fn start_counting_tasks(sandbox: &'a Sandbox) -> Option<Self> {
        Self::start_in(sandbox, &[&HIERARCHIES[..], &["/sys/fs/cgroup/pids"]].concat())
    }

    #[track_caller]
    fn start_in(sandbox: &'a Sandbox, hierarchies: &[&str]) -> Option<Self> {
        let tools = ["systemctl", "setsid", "nsenter"];
        let is_possible = is_root()
            && Path::new(MANAGER).exists()
            && tools.iter().all(|tool| has(tool))
            && mount_namespace().is_some();
        if !is_possible {
            skipped("needs root, systemd and mounts of its own");
            return None;
        }
        let groups = new_groups(sandbox, hierarchies);
        if groups.is_empty() {
            skipped("needs leave to make cgroups");
            return None;
        }
        std::fs::create_dir_all(units(sandbox)).unwrap();
        std::fs::create_dir_all(runtime_directory(sandbox)).unwrap();
        let mut command = in_environment(sandbox, "/bin/sh");
        command.args(["-c", START, MANAGER]).args(&groups);
        let mut manager = Self { sandbox, process: Process::start(command), groups };
        if manager.comes_up() {
            return Some(manager);
        }
        let code = exit_code(manager.process.wait(LIMIT));
        skipped(&format!("systemd's user manager does not run here: it has ended with {code}"));
        None
    }

    /// Whether it does, in place of ending.
    #[track_caller]
    fn comes_up(&mut self) -> bool {
        eventually("the user manager", LIMIT, || {
            if self.process.has_ended() {
                return Some(false);
            }
            let state = self.systemctl(["is-system-running"]).out;
            matches!(state.trim(), "running" | "degraded").then_some(true)
        })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A program among the manager's mounts, which can ask it by `systemctl --user`.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = in_environment(self.sandbox, "nsenter");
        command.args(["-m", "-t", &self.pid().to_string()]).arg(program);
        command
    }

    /// `systemctl --user`, to its end.
    #[track_caller]
    pub fn systemctl<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Answer {
        self.begin_systemctl(words).finish(LIMIT)
    }

    #[track_caller]
    pub fn begin_systemctl<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Process {
        let mut command = self.program("systemctl");
        command.args(["--user", "--no-pager"]).args(words);
        Process::start(command)
    }

    /// Writes a unit, in place of the one of that name.
    #[track_caller]
    pub fn install(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(units(self.sandbox).join(name), contents).unwrap();
        self.systemctl(["daemon-reload"]).assert_code(0);
    }

    /// A property of a unit, as `systemctl show` prints its value.
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let show = ["show", "--value", "--property", name, unit];
        self.systemctl(show).assert_code(0).out.trim_end().to_owned()
    }

    /// Waits until a property has that value.
    #[track_caller]
    pub fn wait_for(&self, unit: &str, name: &str, value: &str) {
        eventually(&format!("{name}={value} of {unit}"), LIMIT, || {
            (self.property(unit, name) == value).then_some(())
        });
    }

    #[track_caller]
    pub fn main_pid(&self, unit: &str) -> u32 {
        self.property(unit, "MainPID").parse().unwrap()
    }
}

impl Drop for UserManager<'_> {
    fn drop(&mut self) {
        // First, or it would start again what is killed.
        self.process.kill();
        for group in &self.groups {
            end_group(group);
        }
    }
}

/// Where the user's units are.
fn units(sandbox: &Sandbox) -> PathBuf {
    sandbox.file("home/.config/systemd/user")
}

fn runtime_directory(sandbox: &Sandbox) -> PathBuf {
    sandbox.file("runtime")
}

/// A program with the variables that a sandbox sets, and no others: a service gets all of them.
fn in_environment(sandbox: &Sandbox, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir(sandbox.path());
    for (name, value) in sandbox.program(program).get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.env("XDG_RUNTIME_DIR", runtime_directory(sandbox));
    command
}

/// Those that systemd keeps: one with cgroup v2, up to two beside cgroup v1.
const HIERARCHIES: [&str; 3] =
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];

/// A cgroup in each hierarchy that there is.
fn new_groups(sandbox: &Sandbox, hierarchies: &[&str]) -> Vec<PathBuf> {
    let name = sandbox.path().file_name().unwrap();
    hierarchies
        .iter()
        .map(Path::new)
        .filter(|root| root.join("cgroup.procs").exists())
        .map(|root| root.join(name))
        .filter(|group| std::fs::create_dir(group).is_ok())
        .collect()
}

/// Kills all that is in a cgroup and below it, and removes them.
fn end_group(group: &Path) {
    // What was killed in it may take a moment to be gone.
    for _ in 0..500 {
        let groups = with_groups_below(group);
        for group in &groups {
            let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in members.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        for group in &groups {
            let _ = std::fs::remove_dir(group);
        }
        if !group.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    eprintln!("{} is left behind", group.display());
}

/// The deepest first.
fn with_groups_below(group: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
    let mut groups: Vec<PathBuf> =
        below.flat_map(|entry| with_groups_below(&entry.path())).collect();
    groups.push(group.to_owned());
    groups
}
