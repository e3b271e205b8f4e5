//! Processes that begin in one instant.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use super::{Process, Sandbox};

/// Holds processes back until all of them have arrived, then lets them go in one instant.
pub struct Barrier {
    waiting: OwnedFd,
    gate: OwnedFd,
}

impl Barrier {
    pub fn new() -> Self {
        let (waiting, gate) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        Self { waiting, gate }
    }

    /// A shell that says `here` and then waits at the barrier before it becomes `command`.
    pub fn hold_back(&self, command: &Command) -> Process {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", "echo here; read -r go <&2; exec \"$@\" 2>&1", "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(directory) = command.get_current_dir() {
            shell.current_dir(directory);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        self.wait_here(shell)
    }

    /// A shell that runs `script` once the barrier is open.
    pub fn shell(&self, sandbox: &Sandbox, script: &str) -> Process {
        self.wait_here(sandbox.shell(&format!("echo here; read -r go <&2; exec 2>&1; {script}")))
    }

    fn wait_here(&self, shell: Command) -> Process {
        // Standard error brings the barrier in; after it, it is standard output.
        let waiting = Stdio::from(self.waiting.as_fd().try_clone_to_owned().unwrap());
        let mut process = Process::start_with_stderr(shell, waiting);
        assert_eq!(process.line(), "here");
        process
    }

    /// Every reader sees the end of the pipe at once.
    pub fn open(self) {
        drop(self.gate);
    }
}
