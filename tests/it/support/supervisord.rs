//! supervisord, with one program.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Answer, LIMIT, Process, Sandbox, eventually, skipped, tool};

/// Ends when it is dropped; what it has started ends with the sandbox.
pub struct Supervisord<'a> {
    sandbox: &'a Sandbox,
    process: Process,
    supervisorctl: PathBuf,
}

impl<'a> Supervisord<'a> {
    /// Starts it with the program `gw`, whose section has these lines. `None`, said loudly, where
    /// it is not installed.
    #[track_caller]
    pub fn start(sandbox: &'a Sandbox, program: &str) -> Option<Self> {
        let Some(supervisord) = tool("supervisord").filter(|it| is_version_4(it)) else {
            skipped("needs supervisord 4: `.ci/tool --install supervisord`");
            return None;
        };
        // Beside the real program: of a link there is but one.
        let real = std::fs::canonicalize(&supervisord).unwrap();
        let supervisorctl = real.with_file_name("supervisorctl");
        let configuration = format!(
            "[supervisord]\n\
             nodaemon = true\n\
             logfile = %(here)s/supervisord.log\n\
             pidfile = %(here)s/supervisord.pid\n\
             childlogdir = %(here)s\n\
             [unix_http_server]\n\
             file = %(here)s/supervisord.sock\n\
             [supervisorctl]\n\
             serverurl = unix://%(here)s/supervisord.sock\n\
             [rpcinterface:supervisor]\n\
             supervisor.rpcinterface_factory = \
             supervisor.rpcinterface:make_main_rpcinterface\n\
             [program:gw]\n{program}\n"
        );
        std::fs::write(sandbox.file("supervisord.conf"), configuration).unwrap();
        let mut command = sandbox.program(supervisord);
        command.arg("-c").arg(sandbox.file("supervisord.conf"));
        let mut it = Self { sandbox, process: Process::start(command), supervisorctl };
        eventually("supervisord", LIMIT, || {
            assert!(!it.process.has_ended(), "{:?}", it.process.err_line_with_or_end("Error"));
            it.ctl(&["pid"]).out.trim().parse::<u32>().ok()
        });
        Some(it)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A line in a shell in which `supervisorctl` is this one; it finds its configuration where it
    /// is started.
    pub fn shell(&self, line: &str) -> Command {
        self.sandbox.shell_beside(&self.supervisorctl, line)
    }

    /// `supervisorctl`, to its end.
    #[track_caller]
    pub fn ctl(&self, words: &[&str]) -> Answer {
        self.begin_ctl(words).finish(LIMIT)
    }

    #[track_caller]
    pub fn begin_ctl(&self, words: &[&str]) -> Process {
        let mut command = self.sandbox.program(&self.supervisorctl);
        command.arg("-c").arg(self.sandbox.file("supervisord.conf")).args(words);
        Process::start(command)
    }

    /// What it calls the state of the program: `RUNNING`, `STOPPED`, `EXITED`, ...
    #[track_caller]
    pub fn state(&self) -> String {
        let out = self.ctl(&["status", "gw"]).out;
        out.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, state: &str) {
        eventually(state, LIMIT, || (self.state() == state).then_some(()));
    }
}

fn is_version_4(program: &Path) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|version| version.stdout.starts_with(b"4."))
}
