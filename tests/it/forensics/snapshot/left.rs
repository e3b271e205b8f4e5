//! What a shutdown leaves: its row, its line, its document; and what is asserted of each.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::gateway::{GATEWAY, ROLE_TEST};
use super::{Deployer, SEND};
use crate::support::{Answer, LIMIT, Process, Sandbox, ask};

impl Sandbox {
    pub fn deployer(&self) -> Deployer {
        self.deployer_with(&[])
    }

    pub fn deployer_with(&self, arguments: &[&str]) -> Deployer {
        std::fs::write(self.file("deploy.sh"), SEND).unwrap();
        let mut command = self.program("/bin/sh");
        command.arg("deploy.sh").args(arguments);
        Deployer(Process::start(command))
    }

    /// A library gateway that holds the default office and listens.
    #[track_caller]
    pub fn listening_gateway(&self) -> Process {
        listening(Process::start(self.role_command(ROLE_TEST, GATEWAY)))
    }

    /// The newest row of `shutdowns`.
    #[track_caller]
    pub fn newest_shutdown(&self) -> Value {
        let query = "SELECT * FROM shutdowns ORDER BY id DESC LIMIT 1";
        let (code, mut rows) = self.json(["sql", query]);
        assert_eq!(code, 0, "{rows:#}");
        let mut row = rows.get_mut(0).expect("a row").take();
        if let Some(text) = row["snapshot"].as_str() {
            row["snapshot"] = serde_json::from_str(text).unwrap();
            assert_sorted(&row["snapshot"]);
        }
        row
    }

    /// `history` as people read it.
    pub fn as_people_read_it(&self) -> String {
        self.cli(["history"]).assert_code(0).out
    }

    /// The newest event of that name.
    #[track_caller]
    pub fn newest_event_called(&self, name: &str) -> Value {
        let (code, events) = self.json(["events"]);
        assert_eq!(code, 0, "{events:#}");
        let found = events.as_array().unwrap().iter().rev().find(|event| event["event"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {events:#}")).clone()
    }

    pub fn shutdown_rows(&self) -> i64 {
        self.number("SELECT count(*) FROM shutdowns")
    }

    /// `forensics snapshot --json`, behind `words`.
    pub fn forensic_snapshot_behind(
        &self,
        words: &[&str],
        binary: &Path,
        options: &[&str],
    ) -> Value {
        let verb = [&["--json", "forensics", "snapshot"], options].concat();
        snapshot_of(Process::start(self.under(words, binary, &verb)).finish(LIMIT))
    }

    /// The same in an environment as it is.
    pub fn forensic_snapshot(&self, options: &[&str]) -> Value {
        let verb = [&["--json", "forensics", "snapshot"], options].concat();
        snapshot_of(self.cli(verb))
    }
}

#[track_caller]
pub fn snapshot_of(answer: Answer) -> Value {
    let answer = answer.assert_code(0);
    assert_eq!(answer.err, "", "{answer:#?}");
    let snapshot = answer.json();
    assert_complete(&snapshot);
    snapshot
}

#[track_caller]
pub fn listening(mut gateway: Process) -> Process {
    gateway.err_line_with("=> open");
    let instance = ask(&mut gateway, "claim default gateway");
    assert!(instance.parse::<i64>().is_ok(), "{instance}");
    assert_eq!(ask(&mut gateway, "listen default none"), "listening");
    gateway
}

/// Why a field is not there.
#[track_caller]
pub fn why(field: &Value) -> &str {
    let reason = field["unavailable"].as_str();
    assert_eq!(field.as_object().map(serde_json::Map::len), Some(1), "{field:#}");
    reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| panic!("no reason: {field:#}"))
}

const FIELDS: [&str; 24] = [
    "boot_id",
    "cgroup",
    "limits",
    "loadavg_1m",
    "memory",
    "parent",
    "pid",
    "planned_stop_marker",
    "ppid",
    "recorded",
    "self",
    "sender",
    "signal",
    "signal_num",
    "systemd_invocation_id",
    "systemd_journal_stream",
    "takeover_marker",
    "takeover_marker_for_self",
    "tracer",
    "tracer_pid",
    "ts",
    "ts_monotonic",
    "under_systemd",
    "unit",
];

const OF_A_PROCESS: [&str; 6] = ["cmdline", "name", "pid", "ppid", "state", "uid"];

/// Whether all fields are there, sorted.
#[track_caller]
pub fn assert_complete(snapshot: &Value) {
    assert_sorted(snapshot);
    let names = snapshot.as_object().unwrap().keys().filter(|name| *name != "format");
    let names: Vec<&String> = names.collect();
    assert_eq!(names, FIELDS, "{snapshot:#}");
    let names: Vec<&String> = snapshot["self"].as_object().unwrap().keys().collect();
    assert_eq!(names, OF_A_PROCESS, "{snapshot:#}");
}

#[track_caller]
pub fn assert_sorted(value: &Value) {
    match value {
        Value::Object(fields) => {
            // What every document begins with is not of its sort.
            let names: Vec<&String> = fields.keys().filter(|name| *name != "format").collect();
            assert!(names.is_sorted(), "not sorted: {names:?}");
            fields.values().for_each(assert_sorted);
        }
        Value::Array(elements) => elements.iter().for_each(assert_sorted),
        _ => {}
    }
}

const KEYS: [&str; 15] = [
    "signal",
    "under_systemd",
    "parent_pid",
    "parent_name",
    "loadavg_1m",
    "takeover_marker_present",
    "planned_stop_marker_present",
    "tracer_pid",
    "parent_cmdline",
    "sender_pid",
    "sender_uid",
    "sender_cmdline",
    "sender",
    "unit",
    "recorded",
];

/// The keys and values of a log line: plain words, or quoted ones.
fn parse(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').unwrap_or_else(|| panic!("{rest:?} of {line:?}"));
        let quoted = after.strip_prefix('"').map(|text| {
            let mut is_escaped = false;
            let end = text.find(|character| {
                let is_end = character == '"' && !is_escaped;
                is_escaped = character == '\\' && !is_escaped;
                is_end
            });
            text.split_at(end.unwrap_or_else(|| panic!("no end of {text:?} in {line:?}")))
        });
        let (value, after) = match quoted {
            Some((value, after)) => (value, &after[1..]),
            None => after.split_at(after.find(' ').unwrap_or(after.len())),
        };
        pairs.push((key.to_owned(), value.to_owned()));
        let is_separated = after.is_empty() || after.starts_with(' ');
        assert!(is_separated, "{after:?} follows {key} in {line:?}");
        rest = after.get(1..).unwrap_or_default();
    }
    pairs
}

/// Whether a character acts on the terminal, or ends a line.
pub fn acts(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}')
}

/// Whether it is one line, in the seed's order; its values.
#[track_caller]
pub fn assert_log_line(line: &str) -> BTreeMap<String, String> {
    assert!(!line.contains(acts), "not one harmless line: {line:?}");
    let pairs = parse(line);
    let places: Vec<usize> = pairs
        .iter()
        .map(|(key, _)| KEYS.iter().position(|it| it == key).unwrap_or_else(|| panic!("{line}")))
        .collect();
    assert!(places.is_sorted_by(|one, next| one < next), "the order of {line}");
    let always = ["signal", "under_systemd", "parent_pid", "loadavg_1m"];
    for key in always {
        assert!(pairs.iter().any(|pair| pair.0 == key), "no {key} in {line}");
    }
    pairs.into_iter().collect()
}

/// What `run` said of a signal, as the only thing that it said.
#[track_caller]
pub fn said_by_run(answer: &Answer) -> BTreeMap<String, String> {
    let text = answer.err.strip_suffix('\n').unwrap_or(&answer.err);
    let line = text.strip_prefix("incumbent: run: default/gateway: ");
    assert_log_line(line.unwrap_or_else(|| panic!("something else was said: {answer:#?}")))
}

#[track_caller]
pub fn assert_state(state: &Value) {
    let text = state.as_str().unwrap_or_else(|| panic!("{state:#}"));
    let (letter, word) = text.split_once(" (").unwrap_or_else(|| panic!("{text:?}"));
    assert!(letter.len() == 1 && word.ends_with(')') && word.len() > 2, "{text:?}");
}
