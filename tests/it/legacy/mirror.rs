//! `run --mirror`: programs that read the files of an older gateway see what the command says.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::support::{LIMIT, Run, Sandbox, eventually};

struct Mirror {
    sandbox: Sandbox,
    home: PathBuf,
}

impl Mirror {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let home = sandbox.path().join("mirrored");
        std::fs::create_dir(&home).unwrap();
        Self { sandbox, home }
    }

    fn start(&self, command: &str) -> Run {
        let home = self.home.to_str().unwrap();
        let run = ["run", "--no-backoff", "--mirror", home, "--", "sh", "-c", command];
        Run::start(self.sandbox.incumbent(run))
    }

    fn file(&self) -> PathBuf {
        self.home.join("gateway_state.json")
    }

    /// What a program reads that looks at the file at any moment: never half of it.
    fn read(&self) -> Option<Value> {
        let text = std::fs::read_to_string(self.file()).ok()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}")))
    }

    fn says(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(what, LIMIT, || self.read().filter(|said| is_so(said)))
    }
}

fn pid_in(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["pid"].clone()
}

#[test]
fn what_the_command_says_is_in_the_older_file() {
    let mirror = Mirror::new();
    let run = mirror.start("echo $$; exec sleep 600");
    let said = mirror.says("that it runs", |said| said["gateway_state"] == "running");
    assert_eq!(said["pid"], run.pid());
    assert_eq!(said["kind"], "hermes-gateway");
    assert_eq!(pid_in(&mirror.home.join("gateway.pid")), run.pid());
    assert_eq!(pid_in(&mirror.home.join("gateway.lock")), run.pid());

    let set = ["status-set", "--state", "degraded", "--active-agents", "3", "--platform"];
    let of_platform = ["telegram", "--platform-state", "retrying", "--error-code", "E5"];
    let set = [&set[..], &of_platform].concat();
    mirror.sandbox.ask_in(&run, &set).assert_code(0);
    let said = mirror.says("its own state", |said| said["gateway_state"] == "degraded");
    assert_eq!(said["active_agents"], 3, "{said:#}");
    let telegram = &said["platforms"]["telegram"];
    assert_eq!((&telegram["state"], &telegram["error_code"]), (&json!("retrying"), &json!("E5")));

    // A program that cleans up is not the end of it.
    std::fs::remove_file(mirror.file()).unwrap();
    assert_eq!(mirror.says("the file again", |_| true), said);

    mirror.sandbox.ask_in(&run, &["status-set", "--exit-reason", "no network"]).assert_code(0);
    mirror.says("why it will end", |said| said["exit_reason"] == "no network");
    mirror.sandbox.cli(["stop"]).assert_code(0);
    let said = mirror.read().unwrap();
    assert_eq!(said["gateway_state"], "stopped", "{said:#}");
    assert_eq!(said["exit_reason"], "no network", "{said:#}");
    assert_eq!(said["platforms"]["telegram"]["error_code"], "E5", "{said:#}");
    assert!(!mirror.home.join("gateway.pid").exists());
    run.process.finish(LIMIT);
}

#[test]
fn the_last_words_of_a_command_are_in_it() {
    let mirror = Mirror::new();
    let say = "incumbent status-set --state startup_failed --exit-reason 'no token'";
    let run = mirror.start(&format!("echo $$; {say}; exit 4"));
    run.process.finish(LIMIT).assert_code(4);
    let said = mirror.read().unwrap();
    assert_eq!(said["gateway_state"], "startup_failed", "{said:#}");
    assert_eq!(said["exit_reason"], "no token");
}

#[test]
fn the_time_of_a_file_is_that_of_the_last_heartbeat() {
    let mirror = Mirror::new();
    let run = mirror.start("echo $$; exec sleep 600");
    mirror.says("that it runs", |said| said["gateway_state"] == "running");
    let file = mirror.home.join("gateway.heartbeat");
    // A command that gives no sign of life has none to show.
    assert!(!file.exists());
    let shown = || Some(file.metadata().ok()?.modified().unwrap());
    let said = || {
        let status = mirror.sandbox.cli(["status", "--json"]);
        status.json()["heartbeat_at"].as_str().unwrap().to_owned()
    };

    let beat = |before: Option<SystemTime>| {
        mirror.sandbox.ask_in(&run, &["status-set", "--heartbeat"]).assert_code(0);
        let at = eventually("the heartbeat", LIMIT, || shown().filter(|at| Some(*at) != before));
        // In the file as Python writes it, with microseconds.
        let text = std::fs::read_to_string(&file).unwrap();
        let milliseconds = said().trim_end_matches('Z').to_owned();
        assert_eq!(text, format!("{milliseconds}000+00:00\n"));
        at
    };
    let first = beat(None);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(eventually("the file again", LIMIT, shown), first);
    let second = beat(Some(first));
    assert!(second > first);

    mirror.sandbox.cli(["stop"]).assert_code(0);
    run.process.finish(LIMIT);
    assert_eq!(shown(), Some(second));
}

#[test]
fn a_mirror_is_of_a_directory() {
    let sandbox = Sandbox::new();
    let home = sandbox.path().join("mirrored");
    let home = home.to_str().unwrap();
    let both = ["run", "--mirror", home, "--legacy-home", home, "--", "true"];
    sandbox.cli(both).assert_code(2);
    sandbox.cli(["run", "--mirror", home, "--exec", "--", "true"]).assert_code(2);
}
