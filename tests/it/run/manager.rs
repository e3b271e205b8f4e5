//! A systemd user manager of the test's own, in mounts and in a cgroup of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{
    Answer, LIMIT, Process, Sandbox, eventually, is_root, is_running, skipped, works,
};

const SYSTEMD: &str = "/lib/systemd/systemd";

/// Enters the groups that its arguments name, and becomes the manager.
const START: &str = r#"
    home=$1 xdg=$2; shift 2
    for group; do mkdir -p "$group" && echo $$ > "$group/cgroup.procs"; done 2> /dev/null
    export home xdg
    exec setsid unshare -m --propagation private /bin/sh -c '
        mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit 1
        exec env -i PATH="$PATH" HOME="$home" XDG_RUNTIME_DIR="$xdg" /lib/systemd/systemd --user \
            --unit=basic.target --log-target=console --log-level=info'"#;

/// Ends all that is in those groups, and removes them.
const END: &str = r#"
    tries=0
    while [ $tries -lt 200 ]; do
        left=0
        for group; do
            [ -d "$group" ] || continue
            find "$group" -name cgroup.procs -exec cat {} + 2> /dev/null | xargs -r kill -9
            find "$group" -depth -type d -exec rmdir {} + 2> /dev/null
            [ -d "$group" ] && left=1
        done 2> /dev/null
        [ $left = 0 ] && exit 0
        tries=$((tries + 1)); sleep 0.02
    done"#;

/// It ends, with all its units, when it is dropped.
pub struct Manager<'a> {
    sandbox: &'a Sandbox,
    process: Process,
    groups: Vec<PathBuf>,
}

impl<'a> Manager<'a> {
    /// `None`, and said, where there cannot be one.
    pub fn start(sandbox: &'a Sandbox) -> Option<Self> {
        if !is_root() || !Path::new(SYSTEMD).exists() || !works(&["unshare", "-m"]) {
            skipped("needs root and systemd");
            return None;
        }
        let name = sandbox.path().file_name().unwrap();
        let groups: Vec<PathBuf> = ["unified", "systemd", "."]
            .map(|root| Path::new("/sys/fs/cgroup").join(root))
            .into_iter()
            .filter(|root| root.join("cgroup.procs").exists())
            .map(|root| root.join(name))
            .collect();
        for directory in ["home/.config/systemd/user", "xdg"] {
            std::fs::create_dir_all(sandbox.file(directory)).unwrap();
        }
        crate::support::set_mode(&sandbox.file("xdg"), 0o700);
        let mut command = sandbox.shell(START);
        command.arg("sh").arg(sandbox.file("home")).arg(sandbox.file("xdg")).args(&groups);
        let manager = Self { sandbox, process: Process::start(command), groups };
        let began = Instant::now();
        let answers = || {
            let state = manager.systemctl(["is-system-running"]).out;
            let is_up = matches!(state.trim(), "running" | "degraded");
            let gives_up = began.elapsed() > Duration::from_mins(1);
            (is_up || gives_up || !is_running(manager.process.pid())).then_some(is_up)
        };
        if !eventually("the user manager", LIMIT, answers) {
            skipped("no systemd user manager can be started here");
            return None;
        }
        Some(manager)
    }

    /// A program that talks to it.
    pub fn program(&self, program: &str) -> Command {
        let pid = self.process.pid().to_string();
        let mut command = self.sandbox.within(&["nsenter", "-m", "-t", &pid, program]);
        command.env("XDG_RUNTIME_DIR", self.sandbox.file("xdg"));
        command
    }

    pub fn systemctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Answer {
        let mut command = self.program("systemctl");
        command.arg("--user").args(arguments);
        Process::start(command).finish(LIMIT)
    }

    /// Starts a service with these settings; what it prints goes to the file `NAME.out` of the
    /// sandbox, and its errors to `NAME.err`.
    pub fn start_unit(&self, name: &str, settings: &[&str], command: &[&str]) -> Answer {
        let mut run = self.program("systemd-run");
        run.args(["--user", "-q", &format!("--unit={name}")]);
        for (stream, ending) in [("Output", "out"), ("Error", "err")] {
            let file = self.sandbox.file(&format!("{name}.{ending}"));
            run.arg(format!("-pStandard{stream}=file:{}", file.display()));
        }
        run.arg(format!("--setenv=INCUMBENT_DB={}", self.sandbox.db().display()));
        run.args(settings.iter().map(|setting| format!("-p{setting}"))).arg("--");
        // The manager expands variables in it (systemd.service(5)).
        run.args(command.iter().map(|word| word.replace('$', "$$")));
        Process::start(run).finish(LIMIT)
    }

    /// What a service has printed so far.
    pub fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.sandbox.file(&format!("{name}.out"))).unwrap_or_default()
    }

    /// One property of a service.
    pub fn property(&self, name: &str, property: &str) -> String {
        let answer = self.systemctl(["show", "--value", "-p", property, name]);
        answer.assert_code(0).out.trim().to_owned()
    }
}

impl Drop for Manager<'_> {
    fn drop(&mut self) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", END, "sh"]).args(&self.groups);
        let _ = command.status();
        self.process.kill();
        let _ = Command::new("/bin/sh").args(["-c", END, "sh"]).args(&self.groups).status();
    }
}
