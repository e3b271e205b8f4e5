//! Containers as far as they matter here: a pid namespace with an init of its own, which dies in
//! one blow.

use std::process::Command;

use rustix::process::Signal;

use super::{LIMIT, Process, Sandbox, Stat, eventually, is_root, kill, pid_namespace, works};

/// A pid namespace that lives as long as its init.
pub struct Container {
    /// `unshare`, outside: it waits for the init, and ends as that ended.
    pub process: Process,
}

/// The words that start a program as PID 1 of a pid namespace: with the true users of the machine
/// where we are root, so that something in it may become another one. Nothing but a signal ends it.
pub fn container() -> Option<&'static [&'static str]> {
    const AS_ROOT: &[&str] = &["unshare", "-pf", "--mount-proc"];
    if is_root() && works(AS_ROOT) { Some(AS_ROOT) } else { pid_namespace() }
}

impl Container {
    /// `command` is `unshare` with what it needs.
    pub fn start(command: Command) -> Self {
        Self { process: Process::start(command) }
    }

    /// Its PID 1, by its number out here.
    #[track_caller]
    pub fn init(&self) -> u32 {
        let unshare = self.process.pid();
        eventually("the init of the container", LIMIT, || {
            std::fs::read_dir("/proc")
                .unwrap()
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .find(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == unshare))
        })
    }

    /// As a runtime ends it: SIGKILL for the init, all that was in it ends, and then it is known to
    /// be over.
    #[track_caller]
    pub fn kill(mut self) {
        kill(self.init(), Signal::KILL);
        self.process.wait(LIMIT);
    }
}

impl Sandbox {
    /// A script as PID 1 of a container.
    pub fn container_command(&self, script: &str) -> Command {
        let words = container().expect("asked before");
        let mut command = self.within(words);
        // Runtimes make the init the leader of a session.
        command.args(["setsid", "/bin/sh", "-c", script]);
        command
    }
}
