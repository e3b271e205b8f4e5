//! Does `doctor` find each thing that is wrong, provoked by something real, and is it silent on a
//! healthy store?

mod contenders;
mod database;
mod healthy;
mod owners;
mod place;
mod probe;
mod repairs;
mod surroundings;
mod writers;

use std::collections::BTreeSet;
use std::process::Command;

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Answer, LIMIT, Process, Run, Sandbox, wait_stopped};

/// Every check, where there is a store.
pub const CHECKS: [&str; 31] = [
    "blind_spots",
    "clock",
    "conflicts",
    "desired",
    "duplicate_tokens",
    "filesystem",
    "free_space",
    "holders_stopped",
    "integrity",
    "leaked_anchors",
    "legacy_files",
    "lost_files",
    "missing_anchors",
    "modes",
    "namesakes",
    "open",
    "open_markers",
    "orphan_anchors",
    "other_stores",
    "outside_supervisor",
    "path",
    "schema",
    "sqlite_library",
    "sqlite_shell",
    "stale_rows",
    "stop_budget",
    "storms",
    "unknown_holders",
    "unresponsive",
    "wal_size",
    "write_lock",
];

/// The severities that this check can have, by `docs/doctor.md`. Of each there is an example in
/// `tests/fixtures/messages.txt` (`tests/it/messages/doctor.rs`).
pub fn severities_of(id: &str) -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md");
    let page = std::fs::read_to_string(page).unwrap();
    let row = page.lines().find(|line| line.starts_with(&format!("| `{id}` |"))).unwrap();
    let severities = row.split('|').nth(3).unwrap();
    severities.split(',').map(|it| it.trim().to_owned()).collect()
}

/// Asserts that a finding has a severity that it can have. Where a look fails, each is unknown.
#[track_caller]
fn assert_documented(finding: &Value) {
    let word = |key: &str| finding[key].as_str().unwrap_or_default();
    let (id, severity) = (word("id"), word("severity"));
    let is_failed_look =
        severity == "unknown" && word("evidence").starts_with("cannot be looked at");
    assert!(
        severity == "ok" || is_failed_look || severities_of(id).iter().any(|it| it == severity),
        "docs/doctor.md does not say that {id} can be {severity}: {finding:#}"
    );
}

/// What a doctor said.
#[derive(Debug)]
struct Diagnosis {
    code: i32,
    findings: Vec<Value>,
}

impl Diagnosis {
    fn of(answer: &Answer) -> Self {
        let document = answer.json();
        let findings = document.as_array().unwrap_or_else(|| panic!("no array: {document:#}"));
        for finding in findings {
            assert_documented(finding);
        }
        Self { code: answer.code(), findings: findings.clone() }
    }

    fn about(&self, id: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["id"] == id).collect()
    }

    /// The only finding of a check, which has this severity and all of the words in its evidence.
    #[track_caller]
    fn assert(&self, id: &str, severity: &str, words: &[&str]) -> &Value {
        let about = self.about(id);
        assert_eq!(about.len(), 1, "{id}: {about:#?}");
        let evidence = about[0]["evidence"].as_str().unwrap();
        assert_eq!(about[0]["severity"], severity, "{about:#?}");
        for word in words {
            assert!(evidence.contains(word), "no {word:?} in {evidence}");
        }
        let is_problem = matches!(severity, "warning" | "error");
        assert!(!is_problem || about[0]["remedy"].is_string(), "no remedy: {about:#?}");
        assert!(!is_problem || self.code == 1, "exit code {}: {about:#?}", self.code);
        about[0]
    }

    /// Of this check there is no more to say than that all is well.
    #[track_caller]
    fn assert_silent(&self, id: &str) {
        self.assert(id, "ok", &[]);
    }

    /// Nothing else is wrong than what these checks found.
    #[track_caller]
    fn assert_only(&self, ids: &[&str]) {
        let problems: BTreeSet<&str> = self
            .findings
            .iter()
            .filter(|it| it["severity"] == "warning" || it["severity"] == "error")
            .map(|it| it["id"].as_str().unwrap())
            .collect();
        assert_eq!(problems, ids.iter().copied().collect(), "{:#?}", self.findings);
        assert_eq!(self.code, i32::from(!ids.is_empty()));
    }
}

impl Sandbox {
    pub fn doctor_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.incumbent(["--json", "doctor"]);
        command.args(arguments).env_remove("HERMES_HOME");
        command
    }

    fn doctor_with(&self, arguments: &[&str]) -> Diagnosis {
        Diagnosis::of(&Process::start(self.doctor_command(arguments)).finish(LIMIT))
    }

    fn doctor(&self) -> Diagnosis {
        self.doctor_with(&[])
    }

    /// A store that was used once.
    pub fn used(&self) {
        self.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }

    /// Puts a program on the path of what is asked with [`Sandbox::asking_here`].
    pub fn fake_program(&self, name: &str, script: &str) {
        let write = format!("mkdir -p bin && cat > bin/{name} && chmod 755 bin/{name}");
        let mut writer = Process::start(self.shell(&write));
        writer.write(&format!("#!/bin/sh\n{script}\n"));
        writer.finish(LIMIT).assert_code(0);
    }

    /// The doctor, with the programs of the test in front of all others.
    fn doctor_with_programs(&self) -> Diagnosis {
        let mut command = self.doctor_command(&[]);
        let mut path = self.file("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command.env("PATH", path);
        Diagnosis::of(&Process::start(self.among_fakes(command)).finish(LIMIT))
    }

    /// The command of a remedy, as a person would copy it from between the backticks.
    #[track_caller]
    fn try_remedy(&self, finding: &Value, begins: &str) -> Answer {
        let remedy = finding["remedy"].as_str().unwrap();
        let commands = remedy.split('`').skip(1).step_by(2);
        let command = commands.into_iter().find(|command| command.starts_with(begins));
        let command = command.unwrap_or_else(|| panic!("no `{begins}...` in {remedy}"));
        Process::start(self.shell(command)).finish(LIMIT)
    }

    /// Changes the store without the checks of foreign keys.
    pub fn batch(&self, statements: &str) {
        let connection = Connection::open(self.db()).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; {statements}")).unwrap();
    }

    pub fn checkpointed(&self) {
        let connection = Connection::open(self.db()).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }

    /// A connection that is not one of ours took the sidecars away with it: SQLite makes them anew
    /// for whoever reads next.
    fn sidecars_made(&self) {
        self.doctor();
    }

    pub fn stopped(&self) -> Run {
        let run = self.hold(&[]);
        run.process.signal(Signal::STOP);
        wait_stopped(run.pid());
        run
    }
}
