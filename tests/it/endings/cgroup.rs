//! A cgroup with little memory, and the kernel's log.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Sandbox, is_root, mount_namespace, skipped};

/// As on a machine without memory cgroups: the log is all there is.
pub const UNCOUNTED: &str = "UPDATE instances SET memory_cgroup = NULL, oom_kills = NULL";

/// A control group with little memory, removed with what is left in it.
pub struct LittleMemory {
    pub directory: PathBuf,
}

pub const EATER: &str = "
import os, sys
print(os.getpid(), flush=True)
sys.stdin.readline()
eaten = []
while True:
    eaten.append(b'x' * (1 << 20))
";

impl LittleMemory {
    /// `None`, and said so, where there is no leave to make one.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("incumbent-it-{}-{number}", std::process::id());
        let is_unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control")
            .is_ok_and(|controllers| controllers.split_whitespace().any(|it| it == "memory"));
        let (parent, limits): (&str, &[(&str, &str)]) = if is_unified {
            ("/sys/fs/cgroup", &[("memory.max", "41943040"), ("memory.swap.max", "0")])
        } else {
            let limits = &[
                ("memory.limit_in_bytes", "41943040"),
                ("memory.memsw.limit_in_bytes", "41943040"),
            ];
            ("/sys/fs/cgroup/memory", limits)
        };
        let directory = Path::new(parent).join(name);
        if !is_root() || std::fs::create_dir(&directory).is_err() {
            skipped("needs root, and a memory cgroup that it may write");
            return None;
        }
        let group = Self { directory };
        let limited = std::fs::write(group.directory.join(limits[0].0), limits[0].1);
        if limited.is_err() {
            skipped("needs a memory cgroup with a limit");
            return None;
        }
        // Where there is swap, it would only be slow.
        let _ = std::fs::write(group.directory.join(limits[1].0), limits[1].1);
        Some(group)
    }

    pub fn put(&self, pid: u32) {
        std::fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// `command`, started in the group.
    pub fn started_in(&self, sandbox: &Sandbox, program: &str, arguments: &[&str]) -> Command {
        const ENTER: &str = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let mut command = sandbox.program("/bin/sh");
        command.args(["-c", ENTER]).arg(&self.directory).arg(program).args(arguments);
        command
    }

    pub fn kills(&self) -> u64 {
        let files = ["memory.events", "memory.oom_control"];
        let text = files
            .iter()
            .find_map(|file| std::fs::read_to_string(self.directory.join(file)).ok())
            .unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.unwrap().trim().parse().unwrap()
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        // What was killed in it may take a moment to be gone.
        for _ in 0..500 {
            let left = std::fs::read_to_string(self.directory.join("cgroup.procs"));
            for pid in left.unwrap_or_default().lines().filter_map(|pid| pid.parse().ok()) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
            }
            if std::fs::remove_dir(&self.directory).is_ok() || !self.directory.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} is left behind", self.directory.display());
    }
}

/// Whether a program can be shown another log of the kernel, which names pids as we do.
pub fn can_forge_log() -> bool {
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    mount_namespace().is_some()
        && namespace.to_string_lossy().contains("4026531836")
        && Path::new("/dev/kmsg").exists()
}

/// Microseconds on the clock of the kernel's log.
pub fn log_now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000 + u64::try_from(now.tv_nsec).unwrap() / 1_000
}

pub fn log_line(at_us: u64, pid: u32) -> String {
    format!(
        "6,1,{at_us},-;a line before\n \
         SUBSYSTEM=none\n\
         3,2,{at_us},-;Memory cgroup out of memory: Killed process {pid} (gateway) \
         total-vm:9kB, anon-rss:8kB, UID:0 oom_score_adj:0\n"
    )
}
