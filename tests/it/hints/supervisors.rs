//! Hints that name a supervisor, pasted beside that very supervisor: a gateway that has become its
//! own `run` is started again, is put down for good, and comes up once more.

use std::process::Command;

use serde_json::json;

use super::others::hint;
use crate::support::{
    Answer, BINARY, LIMIT, Pm2, Process, Sandbox, ServiceDirectory, Supervisord, UserManager,
    eventually,
};

/// A service of a directory that becomes its command.
const SERVICE: &str = "#!/bin/sh\nexec incumbent run --no-backoff --exec -- sleep 1000\n";

/// A supervisor, and how it is asked.
struct Supervised<'a> {
    sandbox: &'a Sandbox,
    /// A line in the shell of whoever asks it.
    shell: &'a dyn Fn(&str) -> Command,
    /// What its commands begin with: to restart, to stop, to start.
    commands: [&'a str; 3],
    /// Waits until it says that the service is down, and wanted down.
    wait_down: &'a dyn Fn(),
}

impl Supervised<'_> {
    fn say(&self, line: &str) -> Answer {
        let script = format!("{line}; exit $?");
        Process::start((self.shell)(&script)).finish(LIMIT)
    }

    /// The generation that owns, a later one than `before`.
    #[track_caller]
    fn owner_after(&self, before: i64) -> i64 {
        eventually("the owner", LIMIT, || {
            let (code, status) = self.sandbox.status();
            let has_become_it = status["command"].as_str()?.starts_with("sleep");
            let instance = status["instance"].as_i64()?;
            (code == 0 && has_become_it && instance > before).then_some(instance)
        })
    }

    /// Each is told by `restart`, `stop` and `status`, and does what it says.
    #[track_caller]
    fn is_asked_as_advised(&self) {
        let [restart, stop, start] = self.commands;
        let first = self.owner_after(0);
        let told = self.say("incumbent restart").assert_code(75);
        // What it answers is its own affair: some wait longer than they like.
        self.say(&hint(&told, restart));
        self.owner_after(first);
        let told = self.say("incumbent stop").assert_code(0);
        self.say(&hint(&told, stop));
        (self.wait_down)();
        let told = self.say("incumbent status").assert_code(3);
        assert!(!told.out.contains("incumbent run"), "{told:#?}");
        let last = self.sandbox.number("SELECT max(id) FROM instances WHERE kind IS NOT NULL");
        // By what name pm2 and supervisord knew it, nobody can tell any more.
        self.say(&hint(&told, start).replace(" NAME", " gw"));
        self.owner_after(last);
    }
}

/// `runsv` reads no wish in the second before it starts a short-lived service again, and `sv up`
/// says nothing to one that still wants it up: that it wants it down is waited for.
#[test]
pub(super) fn runit() {
    let sandbox = Sandbox::new();
    sandbox.write_script("gw/run", SERVICE);
    let Some(service) = ServiceDirectory::of_runit(&sandbox, "gw") else { return };
    let is_down = || {
        let said = service.ask(&["sv", "status"]).out;
        (said.starts_with("down: ") && !said.contains("want up")).then_some(())
    };
    Supervised {
        sandbox: &sandbox,
        shell: &|line| sandbox.shell(line),
        commands: ["sv restart", "sv down", "sv up"],
        wait_down: &|| eventually("down, and wanted down", LIMIT, is_down),
    }
    .is_asked_as_advised();
}

#[test]
pub(super) fn s6() {
    let sandbox = Sandbox::new();
    sandbox.write_script("gw/run", SERVICE);
    let Some(service) = ServiceDirectory::of_s6(&sandbox, "gw") else { return };
    Supervised {
        sandbox: &sandbox,
        shell: &|line| sandbox.shell(line),
        commands: ["s6-svc -r", "s6-svc -d", "s6-svc -u"],
        wait_down: &|| service.wait_for(&["s6-svstat", "-o", "up,wantedup"], "false false"),
    }
    .is_asked_as_advised();
}

#[test]
pub(super) fn supervisord() {
    let sandbox = Sandbox::new();
    let command = format!("{BINARY} run --no-backoff --exec -- sleep 1000");
    let program = format!("command = {command}\nautorestart = true\nstartsecs = 0");
    let Some(supervisord) = Supervisord::start(&sandbox, &program) else { return };
    Supervised {
        sandbox: &sandbox,
        shell: &|line| supervisord.shell(line),
        commands: ["supervisorctl restart", "supervisorctl stop", "supervisorctl start"],
        wait_down: &|| supervisord.wait_for("STOPPED"),
    }
    .is_asked_as_advised();
}

#[test]
pub(super) fn pm2() {
    let sandbox = Sandbox::new();
    let app = json!({
        "name": "gw",
        "script": BINARY,
        "args": ["run", "--no-backoff", "--exec", "--", "sleep", "1000"],
        "interpreter": "none",
        "exec_mode": "fork",
        "vizion": false,
    });
    let Some(pm2) = Pm2::start(&sandbox, &app) else { return };
    Supervised {
        sandbox: &sandbox,
        shell: &|line| pm2.shell(line),
        commands: ["pm2 restart", "pm2 stop", "pm2 start"],
        wait_down: &|| pm2.wait_for("stopped"),
    }
    .is_asked_as_advised();
}

#[test]
pub(super) fn systemd_of_a_user() {
    let sandbox = Sandbox::new();
    let Some(manager) = UserManager::start(&sandbox) else { return };
    let unit = format!(
        "[Service]\nExecStart={BINARY} run --no-backoff --exec -- sleep 1000\nRestart=always\n"
    );
    manager.install("gw.service", unit);
    manager.systemctl(["start", "gw.service"]).assert_code(0);
    let shell = |line: &str| {
        let mut shell = manager.program("/bin/sh");
        shell.args(["-c", line]);
        shell
    };
    Supervised {
        sandbox: &sandbox,
        shell: &shell,
        commands: ["systemctl --user restart", "systemctl --user stop", "systemctl --user start"],
        wait_down: &|| {
            eventually("it is down", LIMIT, || {
                let state = manager.property("gw", "ActiveState");
                matches!(&*state, "inactive" | "failed").then_some(())
            });
        },
    }
    .is_asked_as_advised();
}
