//! A directory that says how a service is run, under runit or s6.

use std::path::PathBuf;

use super::{Answer, LIMIT, Process, Sandbox, eventually, has, skipped};

/// Its supervisor ends when it is dropped; what that has started ends with the sandbox.
pub struct ServiceDirectory<'a> {
    sandbox: &'a Sandbox,
    directory: PathBuf,
    _supervisor: Process,
}

impl<'a> ServiceDirectory<'a> {
    /// `runsv` for the directory `name` of the sandbox, which has a script `run`. `None`, said
    /// loudly, where runit is not installed.
    #[track_caller]
    pub fn of_runit(sandbox: &'a Sandbox, name: &str) -> Option<Self> {
        let it = Self::start(sandbox, name, "runsv", "sv")?;
        it.wait_until_ready("supervise/ok");
        Some(it)
    }

    /// `s6-supervise` for it. `None`, said loudly, where s6 is not installed.
    #[track_caller]
    pub fn of_s6(sandbox: &'a Sandbox, name: &str) -> Option<Self> {
        let it = Self::start(sandbox, name, "s6-supervise", "s6-svc")?;
        it.wait_until_ready("supervise/status");
        Some(it)
    }

    #[track_caller]
    fn start(sandbox: &'a Sandbox, name: &str, supervisor: &str, asks: &str) -> Option<Self> {
        if !(has(supervisor) && has(asks)) {
            skipped(&format!("needs {supervisor}"));
            return None;
        }
        let directory = sandbox.file(name);
        let mut command = sandbox.program(supervisor);
        command.arg(&directory);
        Some(Self { sandbox, directory, _supervisor: Process::start(command) })
    }

    /// Until its supervisor takes questions.
    #[track_caller]
    fn wait_until_ready(&self, file: &str) {
        eventually(file, LIMIT, || self.directory.join(file).exists().then_some(()));
    }

    /// A program with these words, and the directory at their end: `sv down`, `s6-svc -d`.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> Answer {
        self.begin(words).finish(LIMIT)
    }

    #[track_caller]
    pub fn begin(&self, words: &[&str]) -> Process {
        let mut command = self.sandbox.within(words);
        command.arg(&self.directory);
        Process::start(command)
    }

    /// Asks again until the answer begins like this.
    #[track_caller]
    pub fn wait_for(&self, words: &[&str], beginning: &str) {
        eventually(&format!("{words:?}: {beginning}"), LIMIT, || {
            self.ask(words).out.starts_with(beginning).then_some(())
        });
    }
}
