//! Helpers that have to be processes of their own and link the library: this very test program,
//! started again. Its environment names the part to play; it takes orders on standard input and
//! answers on standard error, which the test harness leaves alone.

use std::process::Command;

use super::{Process, Sandbox};

/// Names the part; see [`Sandbox::role`].
const ROLE: &str = "IT_ROLE";

impl Sandbox {
    /// Starts this test program in `role`, for a module's `role` test to play.
    ///
    /// `test` is the full name of that test: it returns at once where [`role`] is `None`.
    pub fn role(&self, test: &str, role: &str) -> Process {
        Process::start(self.role_command(test, role))
    }

    pub fn role_command(&self, test: &str, role: &str) -> Command {
        let mut command = self.program(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
        command
    }
}

/// The part that this process plays, if it was started to play one.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// The store that a role works on.
pub fn role_db() -> std::path::PathBuf {
    std::env::var_os("INCUMBENT_DB").unwrap().into()
}

/// Waits for an order of the test; `None` when the test is gone.
pub fn order() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).unwrap();
    (read > 0).then(|| line.trim().to_owned())
}
