//! The `lock` verbs, `locks` and `unlock`, and the locks of a `run`: what scripts and gateways in
//! other languages hold, learn and lose.

mod acquire;
mod containers;
pub mod many;
mod older_stores;
mod process;
mod questions;
mod records;
mod redacted;
mod renew;
mod run;
mod secrets;
mod unlock;
mod usage;
mod waiting;

use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;
use sha2::Digest;

use crate::support::{LIMIT, Process, Sandbox, bystander, eventually, keys};

const SCOPE: &str = "telegram-bot-token";
const ID: &str = "123456:AAbb-cc_dd";
/// The same as an argument of `run`.
const LOCK: &str = "--lock=telegram-bot-token=123456:AAbb-cc_dd";

/// The keys of the document of `lock acquire`, in their order.
const GRANT: [&str; 8] = [
    "granted",
    "fence",
    "instance",
    "reacquired",
    "previous",
    "evicted",
    "holder",
    "retry_after_ms",
];

fn hash_of(identity: &str) -> String {
    let digest = sha2::Sha256::digest(identity.as_bytes());
    let hex = digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    hex[..16].to_owned()
}

/// A lock's verb for a process.
fn verb(sandbox: &Sandbox, verb: &str, process: u32, options: &[&str]) -> Command {
    let pid = process.to_string();
    sandbox.incumbent([&["lock", verb, SCOPE, ID, "--pid", &pid], options].concat())
}

#[track_caller]
fn answer_of(mut command: Command) -> (i32, Value) {
    command.arg("--json");
    let answer = Process::start(command).finish(LIMIT);
    (answer.code(), answer.json())
}

#[track_caller]
fn acquire(sandbox: &Sandbox, process: &Process, options: &[&str]) -> (i32, Value) {
    answer_of(verb(sandbox, "acquire", process.pid(), options))
}

/// A process that holds the lock.
#[track_caller]
fn holder(sandbox: &Sandbox, options: &[&str]) -> Process {
    let process = bystander(sandbox);
    let (code, answer) = acquire(sandbox, &process, options);
    assert_eq!(code, 0, "{answer:#}");
    process
}

/// The exit code of a verb.
#[track_caller]
fn code_of(command: Command) -> i32 {
    Process::start(command).finish(LIMIT).code()
}

#[track_caller]
fn assert_has(document: &Value, expected: &[&str]) {
    let keys = keys(document);
    for key in expected {
        assert!(keys.contains(key), "no {key}: {document:#}");
    }
}

#[track_caller]
fn locks(sandbox: &Sandbox) -> Vec<Value> {
    let (code, document) = sandbox.json(["locks"]);
    assert_eq!(code, 0, "{document:#}");
    document.as_array().unwrap().clone()
}

#[track_caller]
fn wait_for_keepers(sandbox: &Sandbox, count: usize) {
    eventually(&format!("{count} keepers"), LIMIT, || {
        (sandbox.keepers().len() == count).then_some(())
    });
}

fn waiters(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM waiters")
}

/// The newest event of that name.
#[track_caller]
fn last_event(sandbox: &Sandbox, name: &str) -> Value {
    let (code, events) = sandbox.json(["events"]);
    assert_eq!(code, 0, "{events:#}");
    let mut events = events.as_array().unwrap().iter();
    events.rfind(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
}
