//! pm2, with one app.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::{Answer, LIMIT, Process, Sandbox, eventually, has, skipped, tool};

/// Its daemon ends with the sandbox.
pub struct Pm2<'a> {
    sandbox: &'a Sandbox,
    program: PathBuf,
}

impl<'a> Pm2<'a> {
    /// Starts its daemon, and `app` in it, which is called `gw`. `None`, said loudly, where it is
    /// not installed.
    #[track_caller]
    pub fn start(sandbox: &'a Sandbox, app: &Value) -> Option<Self> {
        let Some(program) = tool("pm2").filter(|_| has("node")) else {
            skipped("needs node and pm2: `.ci/tool --install pm2`");
            return None;
        };
        let file = sandbox.file("gw.config.json");
        std::fs::write(&file, serde_json::json!({"apps": [app]}).to_string()).unwrap();
        let pm2 = Self { sandbox, program };
        pm2.ask(&["start", file.to_str().unwrap()]).assert_code(0);
        Some(pm2)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.sandbox.program(&self.program);
        command
            .env("PM2_HOME", self.sandbox.file("pm2"))
            // It would look for a newer one.
            .env("PM2_DISABLE_VERSION_CHECK", "true")
            .args(words);
        command
    }

    /// A line in a shell in which `pm2` is this one.
    pub fn shell(&self, line: &str) -> Command {
        let mut shell = self.sandbox.shell_beside(&self.program, line);
        shell.env("PM2_HOME", self.sandbox.file("pm2")).env("PM2_DISABLE_VERSION_CHECK", "true");
        shell
    }

    /// `pm2`, to its end.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> Answer {
        self.begin(words).finish(LIMIT)
    }

    #[track_caller]
    pub fn begin(&self, words: &[&str]) -> Process {
        Process::start(self.command(words))
    }

    /// What it calls the state of the app: `online`, `stopped`, `errored`, ...
    #[track_caller]
    pub fn state(&self) -> String {
        let list = self.ask(&["jlist"]).assert_code(0);
        let line = list.out.lines().rfind(|line| line.starts_with("[{"));
        let apps: Value = serde_json::from_str(line.unwrap_or("[]")).unwrap();
        apps[0]["pm2_env"]["status"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, state: &str) {
        eventually(state, LIMIT, || (self.state() == state).then_some(()));
    }
}
