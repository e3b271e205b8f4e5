//! A gateway that its control group has frozen (`docker pause`), FIELD-BUGS row 124.
//!
//! Symptom: it answers nobody, `status` says running without a word, the doctor finds nothing, and
//! a stop waits in vain. Cause: `/proc` shows a frozen process asleep. It holds because whoever
//! asks also looks at the group.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    LIMIT, Process, Sandbox, eventually, is_root, kill, pid_namespace, skipped, tagged,
    wait_stopped,
};

/// A control group that can be frozen. Thawed and removed in the end, with what is left in it.
struct Freezer {
    directory: PathBuf,
    file: &'static str,
    words: [&'static str; 2],
}

impl Freezer {
    /// One of each version that there is here.
    fn all() -> Vec<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let v2 = ("cgroup.freeze", ["1", "0"]);
        let mounts = [
            ("/sys/fs/cgroup/unified", v2),
            ("/sys/fs/cgroup", v2),
            ("/sys/fs/cgroup/freezer", ("freezer.state", ["FROZEN", "THAWED"])),
        ];
        let mut found = Vec::new();
        for (mount, (file, words)) in mounts {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("incumbent-it-frozen-{}-{number}", std::process::id());
            let directory = Path::new(mount).join(name);
            if !is_root() || std::fs::create_dir(&directory).is_err() {
                continue;
            }
            if directory.join(file).exists() {
                found.push(Self { directory, file, words });
            } else {
                std::fs::remove_dir(&directory).unwrap();
            }
        }
        if found.is_empty() {
            skipped("needs root, and a control group that it may freeze");
        }
        found
    }

    fn put(&self, pid: u32) {
        std::fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.directory.join(file)).unwrap_or_default()
    }

    fn freeze(&self) {
        std::fs::write(self.directory.join(self.file), self.words[0]).unwrap();
        eventually("all of it is frozen", LIMIT, || {
            let is_frozen = self.read("cgroup.events").contains("frozen 1")
                || self.read("freezer.state").trim() == "FROZEN";
            is_frozen.then_some(())
        });
    }

    fn thaw(&self) {
        let _ = std::fs::write(self.directory.join(self.file), self.words[1]);
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        // Those that end are in it until they are gone.
        for _ in 0..1_000 {
            if std::fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            let parent = self.directory.parent().unwrap().join("cgroup.procs");
            for pid in self.read("cgroup.procs").lines() {
                let _ = std::fs::write(&parent, pid);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

#[test]
fn who_is_frozen_is_said_to_be() {
    for freezer in Freezer::all() {
        let sandbox = Sandbox::new();
        let run = sandbox.hold(&[]);
        sandbox.cli(["status", "--ready"]).assert_code(0);
        freezer.put(run.pid());
        freezer.put(run.command.pid);
        freezer.freeze();
        let what = freezer.directory.display();
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["flags"], json!(["frozen"]), "{what}: {status:#}");
        assert_eq!(status["not_ready"], "frozen", "{what}: {status:#}");
        let text = sandbox.cli(["status"]).assert_code(0).out;
        assert!(text.starts_with("default/gateway: running, but frozen"), "{what}: {text}");
        let thaw = format!("`echo {} > {what}/{}`", freezer.words[1], freezer.file);
        assert!(text.contains("thaw it: ") && text.contains(&thaw), "{what}: {text}");
        assert!(sandbox.cli(["status", "--all"]).out.contains("frozen"), "{what}");
        sandbox.cli(["status", "--ready"]).assert_code(1);
        let (code, doctor) = sandbox.json(["doctor"]);
        assert_eq!(code, 1, "{what}: {doctor:#}");
        assert!(doctor.to_string().contains("frozen by its control group"), "{doctor:#}");
        let refused = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        refused.assert_complains(&["it is frozen", "echo "]);
        let stop = sandbox.cli(["stop", "--timeout", "0"]).assert_code(1);
        let stop = stop.assert_complains(&["still running", "because it is frozen", "echo "]);
        // It was asked, and sees that now: by the very words that are told.
        let told = stop.err.split('`').find(|piece| piece.starts_with("echo ")).unwrap();
        Process::start(sandbox.shell(told)).finish(LIMIT).assert_code(0);
        run.process.finish_with_stdin_open(LIMIT).assert_code(0);
        sandbox.assert_status(3, "dead", "planned_stop");
    }
}

/// Whoever is asked about a paused container is asked from outside of it.
#[test]
fn a_paused_container_is_said_to_be_frozen() {
    let Some(namespace) = pid_namespace() else {
        skipped("needs a pid namespace");
        return;
    };
    for freezer in Freezer::all() {
        let sandbox = Sandbox::new();
        let script = "incumbent run --no-backoff -- /bin/sh -c 'echo up; exec cat'";
        let mut container = sandbox.in_namespace(namespace, script);
        assert_eq!(container.line(), "up");
        for pid in tagged("IT_SANDBOX", sandbox.path()) {
            freezer.put(pid);
        }
        freezer.freeze();
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["flags"], json!(["frozen", "elsewhere"]), "{status:#}");
        let text = sandbox.cli(["status"]).assert_code(0).out;
        assert!(text.contains("thaw it: `docker unpause"), "{text}");
        freezer.thaw();
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["flags"], json!(["elsewhere"]), "{status:#}");
        container.kill();
    }
}

/// Symptom: the gateway itself was stopped, and `status --ready` and the doctor were content: only
/// its `run` had been looked at.
#[test]
fn a_command_that_is_stopped_is_not_ready() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    kill(run.command.pid, Signal::STOP);
    wait_stopped(run.command.pid);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["flags"], json!(["command_stopped"]), "{status:#}");
    assert_eq!(status["not_ready"], "stopped", "{status:#}");
    sandbox.cli(["status", "--ready"]).assert_code(1);
    let text = sandbox.cli(["status"]).assert_code(0).out;
    assert!(
        text.starts_with("default/gateway: running, but its command is suspended (SIGSTOP)"),
        "{text}"
    );
    let goes_on = format!("`kill -CONT {}`", run.command.pid);
    assert!(text.contains(&goes_on), "{text}");
    let (code, doctor) = sandbox.json(["doctor"]);
    assert_eq!(code, 1, "{doctor:#}");
    let text = sandbox.cli(["doctor"]).assert_code(1).out;
    assert!(text.contains("its command, pid ") && text.contains(&goes_on), "{text}");
    kill(run.command.pid, Signal::CONT);
    eventually("it goes on", LIMIT, || {
        (sandbox.cli(["status", "--ready"]).code() == 0).then_some(())
    });
    sandbox.cli(["doctor"]).assert_code(0);
    run.end().assert_code(0);
}
