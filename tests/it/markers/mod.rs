//! Markers: does what is left for one generation reach that one, once, and nobody else?

mod cli;
mod contention;
mod damage;
mod generations;
mod instance;
mod library;
mod older_stores;
mod owners;
mod party;
mod time;
mod view;

use incumbent::marker::MarkerName;
use serde_json::Value;

use self::party::ANSWER_WITHIN_MS;
use crate::support::{Process, Sandbox};

/// What a marker's document holds, beside what each verb adds.
const FIELDS: [&str; 10] = [
    "id",
    "name",
    "instance",
    "pid",
    "by",
    "by_pid",
    "by_uid",
    "reason",
    "written_at",
    "expires_at",
];

#[track_caller]
fn assert_answered_in_time(answer: &Value) {
    assert!(answer["ms"].as_u64().unwrap() < ANSWER_WITHIN_MS, "{answer:#}");
}

/// Milliseconds of the clock that counts suspend and does not step.
fn boot_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

fn word(name: &str) -> MarkerName {
    MarkerName::new(name).unwrap()
}

/// A store as a version of before made it, with a claim in it: without markers, or without locks
/// as well.
fn store_of_version(sandbox: &Sandbox, version: i64) -> Process {
    sandbox.cli(["run", "--kind", "relay", "--", "true"]).assert_code(0);
    let script = sandbox.stranger();
    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    sandbox.age_to(version);
    script
}
