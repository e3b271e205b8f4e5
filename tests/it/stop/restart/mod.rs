//! `restart`: asked for from anywhere, also from inside; served once, within the same tenure.

mod between;
mod command;
mod inside;
mod refused;

use serde_json::{Value, json};

use crate::support::{Run, Sandbox};

impl Sandbox {
    fn served(&self) -> i64 {
        self.number("SELECT count(*) FROM markers WHERE name = 'restart' AND served_at_ms NOT NULL")
    }

    fn restarts_asked_for(&self) -> i64 {
        self.number("SELECT count(*) FROM markers WHERE name = 'restart'")
    }
}

/// The next start of the command; its pid.
#[track_caller]
fn next_start(run: &mut Run) -> u32 {
    let pid = run.process.line_with("").parse().unwrap();
    assert_ne!(pid, run.command.pid, "the same command");
    run.command = crate::support::Identity::of(pid).expect("the command has just spoken");
    pid
}

/// How often a command said that it started: with its pid.
fn starts(out: &str) -> usize {
    out.lines().filter(|line| line.parse::<u32>().is_ok()).count()
}

fn is_done(document: &Value, instance: &Value) {
    let expected = json!({
        "profile": "default", "kind": "gateway", "restarted": true, "instance": instance,
        "served_by": null, "holder": null, "retry_after_ms": null, "left_to": null,
        "end": null, "child_pid": document["child_pid"], "restarts": document["restarts"],
        "command_since": document["command_since"],
    });
    assert_eq!(*document, expected);
}
