//! The freezer of cgroup2: who is in it stands still, and no signal but SIGKILL does anything.

use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::faults::hurting;
use super::signals::any_victim;
use crate::log::Hurt;
use crate::support::is_root;
use crate::workload::actors::Stage;
use crate::workload::draw::millis;

/// A control group that we may freeze; made, and empty. `None` where none can be made.
pub fn place() -> Option<PathBuf> {
    let group = mount_of_cgroup2()?.join(format!("incumbent-soak-{}", std::process::id()));
    if !is_root() || std::fs::create_dir(&group).is_err() {
        return None;
    }
    if !group.join("cgroup.freeze").exists() {
        let _ = std::fs::remove_dir(&group);
        return None;
    }
    Some(group)
}

/// `36 25 0:31 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw`, of
/// `proc_pid_mountinfo(5)`.
fn mount_of_cgroup2() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let is_it = filesystem.starts_with("cgroup2 ");
        is_it.then(|| mount.split_whitespace().nth(4).map(PathBuf::from))?
    })
}

/// Whoever is in it goes on.
pub fn thaw(group: &Path) {
    let _ = std::fs::write(group.join("cgroup.freeze"), "0");
}

/// Thaws, and lets all out, when it is dropped.
#[derive(Debug)]
pub struct Freezer {
    group: PathBuf,
    /// Where those belong who are let out.
    home: PathBuf,
}

impl Freezer {
    pub fn new(group: &Path) -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let mount = group.parent().expect("a group below the mount");
        Self { group: group.to_owned(), home: mount.join(own) }
    }

    /// Some stand still for a while.
    pub fn freeze(&self, stage: &Stage, rng: &mut Rng) {
        let mut pids = Vec::new();
        for _ in 0..rng.u32(1..5) {
            pids.extend(any_victim(stage, rng).map(|victim| victim.pid));
        }
        pids.sort_unstable();
        pids.dedup();
        if pids.is_empty() {
            return;
        }
        hurting(&stage.world, Hurt::Stop { pids: pids.clone() }, |_| {
            let inside = Inside(self);
            for pid in pids {
                // One that has ended cannot be moved.
                let _ = std::fs::write(self.group.join("cgroup.procs"), pid.to_string());
            }
            let _ = std::fs::write(self.group.join("cgroup.freeze"), "1");
            std::thread::sleep(millis(rng, 50, 2_000));
            drop(inside);
        });
    }

    /// Also those that were started in it. Whoever cannot be moved has ended.
    fn let_out(&self) {
        const LOOKS_MAX: usize = 100;
        thaw(&self.group);
        for _ in 0..LOOKS_MAX {
            let inside = std::fs::read_to_string(self.group.join("cgroup.procs"));
            let inside = inside.unwrap_or_default();
            if inside.trim().is_empty() {
                return;
            }
            for pid in inside.lines() {
                let _ = std::fs::write(self.home.join("cgroup.procs"), pid);
            }
        }
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.let_out();
    }
}

/// Somebody is frozen.
struct Inside<'a>(&'a Freezer);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.let_out();
    }
}
