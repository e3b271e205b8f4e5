//! Takeover: `run --replace` and the library's `ClaimOptions::replace`. The holder is asked, gets
//! the time that it said it may take, and nobody but the taker has its office after it.

mod busy;
mod gateway;
mod homes;
mod left_over;
mod locks;
mod meanwhile;
mod owners;
mod parties;
mod refused;
mod time;
mod unwritable;

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{LIMIT, Process, Run, Sandbox, eventually};

/// What a taker adds to the stop budget where it has to wait for all of it, and what a busy machine
/// adds to that.
const AFTER_BUDGET: Duration = Duration::from_secs(10);

/// A gateway that says each TERM and each USR1, and drains until its standard input is closed. Ends
/// with 7.
const DRAINS: &str = "
    trap 'echo TERM' TERM
    trap 'echo USR1' USR1
    exec 3<&0
    cat <&3 > /dev/null 2>&1 &
    drain=$!
    echo $$
    while kill -0 $drain 2> /dev/null; do wait $drain; done
    exit 7";

/// A gateway that ends when it is asked to, with 0, and takes what it had started along.
const ENDS: &str = "
    trap 'echo TERM; kill -KILL $work 2> /dev/null; exit 0' TERM
    sleep 1000 > /dev/null 2>&1 &
    work=$!
    echo $$
    while :; do wait $work; done";

const SCOPE: &str = "bot-token";

/// `run` of `party`.
fn run_of(sandbox: &Sandbox, party: &str, options: &[&str], script: &str) -> Command {
    let arguments = [&["run", "--no-backoff"], options, &["--", "/bin/sh", "-c", script]].concat();
    let mut command = sandbox.incumbent(arguments);
    command.env("INCUMBENT_PARTY", party);
    command
}

/// A gateway of `party` that drains.
#[track_caller]
fn draining(sandbox: &Sandbox, party: &str, options: &[&str]) -> Run {
    Run::start(run_of(sandbox, party, options, DRAINS))
}

/// Starts to take over; what it runs ends when asked to.
fn taking_over(sandbox: &Sandbox, party: &str, options: &[&str]) -> Process {
    Process::start(run_of(sandbox, party, &[&["--replace"], options].concat(), ENDS))
}

/// A takeover that is expected to be refused: exit code, and the holder that refuses.
fn try_to_take(sandbox: &Sandbox, party: &str, options: &[&str]) -> (i32, Value) {
    let options = [&["--json", "--replace"], options].concat();
    let answer = Process::start(run_of(sandbox, party, &options, "true")).finish(LIMIT);
    // Whoever was granted ran its command instead.
    let document = serde_json::from_str(&answer.out).unwrap_or_else(|_| json!(answer.err));
    (answer.code(), document)
}

#[track_caller]
fn assert_refused_because(answer: &(i32, Value), reason: &str) {
    let (code, document) = answer;
    let got = (*code, document["holder"]["reason"].as_str());
    assert_eq!(got, (75, Some(reason)), "{document:#}");
}

/// Waits until a takeover is written down.
#[track_caller]
fn wait_for_reservation(sandbox: &Sandbox) {
    eventually("the reservation", LIMIT, || {
        (sandbox.number("SELECT count(*) FROM reservations") > 0).then_some(())
    });
}

pub fn takeovers_begun(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM events WHERE event = 'takeover_begun'")
}

/// The `run` of a gateway that drains has looked for requests since this was called, and has passed
/// on all that it found: what it is sent, it passes on in turn.
#[track_caller]
fn wait_until_requests_are_passed_on(old: &mut Run) {
    for _ in 0..3 {
        old.process.signal(Signal::USR1);
        assert_eq!(old.process.line(), "USR1");
    }
}

/// Nothing of a takeover, done or failed, lasts.
#[track_caller]
pub fn assert_nothing_is_left(sandbox: &Sandbox, context: &str) {
    for (what, query) in [
        ("reservations", "SELECT count(*) FROM reservations"),
        ("waiters", "SELECT count(*) FROM waiters"),
        ("open markers", "SELECT count(*) FROM open_markers"),
    ] {
        assert_eq!(sandbox.number(query), 0, "{context}: {what}");
    }
}

/// The end of the gateway that was replaced last.
#[track_caller]
fn assert_taken_over(sandbox: &Sandbox, old: u32, by: u32) -> Value {
    let history = sandbox.history();
    let end = history.iter().find(|end| end["pid"] == old && !end["end_reason"].is_null());
    let end = end.unwrap_or_else(|| panic!("no end of pid {old}: {history:#?}"));
    assert_eq!(end["end_reason"], "taken_over", "{end:#}");
    let ended_by = end["ended_by"].as_str().unwrap_or_default();
    assert!(ended_by.starts_with(&format!("pid {by} (")), "not by pid {by}: {end:#}");
    end.clone()
}

#[track_caller]
fn assert_holder(sandbox: &Sandbox, pid: u32) {
    let status = sandbox.status().1;
    assert_eq!((&status["pid"], &status["verdict"]), (&json!(pid), &json!("alive")), "{status:#}");
}

/// The command line `ps` shows of whoever has the lock now.
fn holder_of_lock(sandbox: &Sandbox, identity: &str) -> Option<u64> {
    let (_, locks) = sandbox.json(["locks"]);
    let hash = incumbent::lock::IdentityHash::of(identity).unwrap();
    let wanted = json!(hash.as_str());
    locks.as_array().unwrap().iter().find(|lock| lock["identity_hash"] == wanted)?["pid"].as_u64()
}
