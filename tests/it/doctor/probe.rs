//! `doctor` as a probe: 0 on every healthy store, whatever has happened to it; and its ids.

use super::CHECKS;
use crate::support::{LIMIT, Process, Sandbox};

/// What people do to a store that is healthy afterwards: a name, and a script. `HOLD` holds an
/// office, until its standard input is closed.
const HEALTHY: &[(&str, &str)] = &[
    ("a start", "incumbent run --no-backoff true"),
    ("a command that fails", "incumbent run --no-backoff false; [ $? = 1 ]"),
    ("a command that is not there", "incumbent run --no-backoff ./none; [ $? = 127 ]"),
    ("nothing was ever started", "incumbent desired running"),
    ("a refused start", "HOLD & sleeps; incumbent run --no-backoff true; [ $? = 75 ] && end"),
    (
        "a lock that is refused, and then given back",
        "incumbent run --no-backoff --lock s=i true
         incumbent lock acquire s i --pid $$
         incumbent --profile other run --no-backoff --lock s=i true; [ $? = 75 ]
         incumbent lock release s i --pid $$",
    ),
    ("a planned stop", "HOLD & sleeps; incumbent stop"),
    ("a stop of one that is not running", "incumbent run --no-backoff true; incumbent stop"),
    ("a restart", "HOLD & sleeps; incumbent restart; incumbent stop; wait"),
    ("a takeover", "HOLD & sleeps; incumbent run --no-backoff --replace true"),
    ("a record of a script", "incumbent claim --pid $$; incumbent release --pid $$"),
    ("a record without a keeper", "incumbent claim --no-keeper --pid $$"),
    (
        "markers",
        "incumbent claim --pid $$
         incumbent marker write note --pid $$
         incumbent marker consume note --pid $$
         incumbent marker write drain --pid $$",
    ),
    (
        "what a gateway says of itself",
        "incumbent claim --pid $$
         incumbent status-set --pid $$ --state degraded --platform p --platform-state fatal",
    ),
    ("stays stopped", "incumbent run --no-backoff true; incumbent desired stopped"),
    (
        "two profiles and two kinds",
        "for p in a b; do for k in gateway cron; do
             incumbent --profile $p --kind $k run --no-backoff true; done; done",
    ),
    (
        "an evicted holder that is gone",
        "sleep 100 & incumbent claim --no-keeper --pid $!; kill -9 $!; wait; incumbent evict",
    ),
    ("a repair", "incumbent run --no-backoff true; incumbent doctor --fix"),
    ("an export", "incumbent run --no-backoff true; incumbent export out"),
];

/// `HOLD`, and words to wait for it and to end it.
const PRELUDE: &str = "
    hold() { incumbent run --no-backoff -- sh -c 'echo $$ > held; while [ -e held ]; do
        sleep 0.01; done'; }
    sleeps() { until [ -s held ]; do sleep 0.01; done; }
    end() { rm -f held; wait; }
";

/// Symptom: a probe failed for days after a deploy, because one start had been refused; and for as
/// long as nothing was started after a crash. It holds because what is over, and what the next
/// start puts in order, is worth knowing and no more.
#[test]
fn every_healthy_store_is_0() {
    let mut wrong = Vec::new();
    for (name, script) in HEALTHY {
        let sandbox = Sandbox::new();
        let script = format!("{PRELUDE}\n{}\n", script.replace("HOLD", "hold"));
        let mut shell = sandbox.shell(&script);
        shell.env_remove("HERMES_HOME");
        let made = Process::start(shell).finish(LIMIT);
        assert!(sandbox.db().exists(), "{name}: {made:#?}");
        let answer = Process::start(sandbox.doctor_command(&[])).finish(LIMIT);
        let text = sandbox.cli(["doctor"]);
        if answer.code() != 0 || text.code() != 0 || text.out != "no problems\n" {
            wrong.push(format!("{name}: {made:#?}\n{answer:#?}\n{text:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Right after `kill -9`, and right after the next start: at any moment of both.
#[test]
fn a_killed_gateway_and_its_successor_need_nobody() {
    let sandbox = Sandbox::new();
    let mut before = sandbox.hold(&["--lock", "token=mine"]);
    for round in 0..3 {
        before.kill();
        let killed = sandbox.doctor();
        killed.assert_only(&[]);
        let next = sandbox.hold(&["--lock", "token=mine"]);
        let started = sandbox.doctor();
        started.assert_only(&[]);
        started.assert_silent("stale_rows");
        assert_eq!(started.code, 0, "round {round}");
        before = next;
    }
    before.end().assert_code(0);
    sandbox.doctor().assert_only(&[]);
}

/// Also the stores that older versions left.
#[test]
fn stores_of_older_versions_are_0() {
    let newest = Sandbox::new();
    newest.used();
    for version in 1..=newest.number("PRAGMA user_version") {
        let sandbox = Sandbox::new();
        sandbox.used();
        sandbox.age_to(version);
        sandbox.doctor().assert_only(&[]);
    }
}

/// The ids are an interface: each is documented, and no other one.
#[test]
fn every_id_is_documented() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut documented: Vec<&str> = rows.collect();
    documented.sort_unstable();
    assert_eq!(documented, CHECKS);
}
