//! `forensics systemd`: does the unit give the gateway the time that it takes to stop?
//!
//! systemd itself runs on no test machine of ours: what is asked is a `systemctl` of the test's own
//! on the path, and what is looked at are real cgroups.

mod answers;
mod library;
mod services;

use std::process::Command;

use serde_json::Value;

use crate::support::{Answer, LIMIT, Process, Sandbox};

/// Answers for one manager; `--user` is the user's.
const OWNED_BY_SYSTEM: &str = r#"case "$1" in
    --user) printf 'LoadState=not-found\nTimeoutStopUSec=1min 30s\n' ;;
    *) printf 'LoadState=loaded\nTimeoutStopUSec=45s\n' ;;
esac"#;

impl Sandbox {
    /// Puts a `systemctl` on the path of what `asking` starts. Another process writes it: if we
    /// had it open for writing while a test beside us forks, executing it would fail (ETXTBSY).
    fn fake_systemctl(&self, script: &str) {
        let write = "mkdir -p bin && cat > bin/systemctl && chmod 755 bin/systemctl";
        let mut writer = Process::start(self.shell(write));
        writer.write(&format!("#!/bin/sh\n{script}\n"));
        writer.finish(LIMIT).assert_code(0);
    }

    /// In front of the path that the command has.
    fn asking(&self, mut command: Command) -> Command {
        let of_its_own = command.get_envs().find(|(name, _)| *name == "PATH");
        let mut path = self.file("bin").into_os_string();
        path.push(":");
        path.push(of_its_own.and_then(|(_, path)| path).expect("a sandbox sets it"));
        command.env("PATH", path);
        self.among_fakes(command)
    }

    fn ask_text(&self, arguments: &[&str]) -> Answer {
        let command = self.incumbent([&["forensics", "systemd"], arguments].concat());
        Process::start(self.asking(command)).finish(LIMIT)
    }

    /// Exit code and document.
    fn ask(&self, arguments: &[&str]) -> (i32, Value) {
        let answer = self.ask_text(&[&["--json"], arguments].concat());
        assert_eq!(answer.err, "");
        (answer.code(), answer.json())
    }
}
