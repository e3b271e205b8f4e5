//! `status --all`, profiles that are served by another one's gateway, and Prometheus' text format.

mod counters;
mod gateways;
mod metrics;
mod offices;
mod older_stores;
mod served;
mod servers;

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Answer, Identity, LIMIT, Process};

/// The longest profile, and the longest state.
const LONGEST: &str = "long-long-long-long-long-long-long-long-long-long-long-long-long";

/// A command that obeys: one order a line, the answer ends with its exit code.
const OBEYING: &str = r#"
    echo $$
    while read -r order; do
        answer=$(eval "$order" 2>&1 < /dev/null)
        code=$?
        printf '%s\n=> %s\n' "$answer" "$code"
    done
    exit 0"#;

/// The command of a `run`: what it calls, it calls as the holder of the office.
pub struct Gateway {
    process: Process,
    /// The command. Of one in another pid namespace it is not known.
    command: Option<Identity>,
}

impl Gateway {
    #[track_caller]
    fn start(command: Command) -> Self {
        let mut process = Process::start(command);
        let pid = process.line().trim().parse().expect("its pid");
        Self { process, command: Identity::of(pid) }
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What came of an order, and what it printed.
    #[track_caller]
    fn tell(&mut self, order: &str) -> (i32, String) {
        self.process.say(order);
        let mut said = Vec::new();
        loop {
            let line = self.process.line();
            if let Some(code) = line.strip_prefix("=> ") {
                return (code.parse().unwrap(), said.join("\n"));
            }
            said.push(line);
        }
    }

    /// `status-set` of its own.
    #[track_caller]
    fn says(&mut self, arguments: &str) {
        let (code, said) = self.tell(&format!("incumbent status-set {arguments}"));
        assert_eq!((code, said.as_str()), (0, ""), "status-set {arguments}");
    }

    /// `status-set` that is refused: the exit code and the message.
    #[track_caller]
    fn may_not_say(&mut self, arguments: &str, code: i32, words: &[&str]) {
        let (got, said) = self.tell(&format!("incumbent status-set {arguments}"));
        assert_eq!(got, code, "status-set {arguments}: {said}");
        for word in words {
            assert!(said.contains(word), "status-set {arguments}: no {word:?}: {said}");
        }
    }

    /// `kill -9`, and its command is gone as well.
    #[track_caller]
    fn kill(mut self) {
        self.process.kill();
        if let Some(command) = self.command {
            command.wait_gone(LIMIT);
        }
    }

    #[track_caller]
    fn end(self) -> Answer {
        self.process.finish(LIMIT)
    }
}

/// What a [`Gateway`] runs.
const OBEY: &[&str] = &["--", "/bin/sh", "-c", OBEYING];

fn by(profile: &str) -> Value {
    json!({"profile": profile, "kind": "gateway"})
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn offices(reports: &[Value]) -> Vec<(String, String)> {
    let text = |report: &Value, key: &str| report[key].as_str().unwrap().to_owned();
    reports.iter().map(|report| (text(report, "profile"), text(report, "kind"))).collect()
}

fn profiles(reports: &[Value]) -> Vec<String> {
    offices(reports).into_iter().map(|(profile, _)| profile).collect()
}

/// A report without what grows while one looks at it.
fn report_without_times(report: &Value) -> Value {
    let mut report = report.clone();
    for key in ["/unresponsive_ms", "/locks/0/lease_remaining_ms"] {
        if let Some(value) = report.pointer_mut(key) {
            *value = json!(!value.is_null());
        }
    }
    report
}

/// Asserts that two reports say the same, and names the first field in which they do not.
#[track_caller]
fn assert_same(one: &Value, other: &Value) {
    let (one, other) = (report_without_times(one), report_without_times(other));
    let keys = |report: &Value| -> Vec<String> {
        report.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(keys(&one), keys(&other), "{one:#}");
    for key in keys(&one) {
        assert_eq!(one[&key], other[&key], "{key}: {one:#}");
    }
}
