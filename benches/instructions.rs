//! Instructions and system calls of single operations: numbers that a busy machine does not change.
//!
//! The benchmark runs itself again under `valgrind --tool=callgrind` and under `strace -c`, with N
//! and with 2N repeats of an operation, and shows the difference per repeat: the cost of starting
//! and opening is in both. The kernel's instructions are not counted. Claims vary by some seven
//! percent from run to run, the others by one or two. Where a tool is missing or may not be used,
//! its column says so.
//!
//! `cargo bench --bench instructions [-- part of an operation's name]`

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a benchmark may die of a surprise")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::status::PlatformUpdate;
use incumbent::{Acquire, Claim, Kind, LockRequest, ScopedLock, StatusUpdate, Store, Tenure};

/// N: by then the store keeps as many ended rows as it ever will, and each operation costs the
/// same.
const REPEATS: u32 = 500;

/// How the benchmark asks itself for one operation.
const RUN_ONE: &str = "--run-one";

/// Does it so many times in a new store.
type Operation = fn(&Store, u32);

const OPERATIONS: [(&str, Operation); 12] = [
    ("verify a tenure", verify),
    ("update a status", update_status),
    ("read a status", read_status),
    ("claim + release an office", claim_and_release),
    ("acquire + release a lock", acquire_and_release),
    ("find the running instance", find_running),
    ("verify a lock", verify_lock),
    ("renew a lock", renew_lock),
    ("write + consume a marker", write_and_consume_marker),
    ("status of 20 offices", status_of_many),
    ("read what it said", read_runtime),
    ("look for a marker", peek_marker),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, number, repeats] = arguments.as_slice()
        && command == RUN_ONE
    {
        let (_, operation) = OPERATIONS[number.parse::<usize>().expect("a number")];
        let directory = tempfile::tempdir().expect("a scratch directory");
        let store = Store::open(directory.path().join("state.db")).expect("a store");
        return operation(&store, repeats.parse().expect("a number"));
    }
    // Cargo adds `--bench`.
    let wanted = arguments.iter().find(|argument| !argument.starts_with("--"));
    println!("{:<28} {:>12}  system calls", "operation", "instructions");
    for (number, (name, _)) in OPERATIONS.iter().enumerate() {
        if wanted.is_none_or(|wanted| name.contains(wanted)) {
            let instructions = per_repeat(|repeats| instructions(number, repeats))
                .map_or_else(|missing| missing, |counts| format!("{:.0}", counts["all"]));
            let calls = per_repeat(|repeats| system_calls(number, repeats))
                .map_or_else(|missing| missing, listed);
            println!("{name:<28} {instructions:>12}  {calls}");
        }
    }
}

/// How often each thing was counted; or why nothing could be.
type Counted = Result<BTreeMap<String, f64>, String>;

fn per_repeat(count: impl Fn(u32) -> Counted) -> Counted {
    let once = count(REPEATS)?;
    let mut twice = count(2 * REPEATS)?;
    for (name, count) in &mut twice {
        *count = (*count - once.get(name).unwrap_or(&0.0)) / f64::from(REPEATS);
    }
    Ok(twice)
}

fn instructions(number: usize, repeats: u32) -> Counted {
    let said = run_under(
        "valgrind",
        &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
        number,
        repeats,
    )?;
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) = collected.expect("callgrind says what it has collected");
    Ok(BTreeMap::from([("all".to_owned(), count.trim().parse().expect("a number"))]))
}

fn system_calls(number: usize, repeats: u32) -> Counted {
    let said = run_under("strace", &["-c", "-f"], number, repeats)?;
    // % time, seconds, usecs/call, calls, [errors,] name
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let name = columns.last().filter(|name| **name != "total")?;
        Some(((*name).to_owned(), columns.get(3)?.parse().ok()?))
    };
    Ok(said.lines().filter_map(row).collect())
}

/// The sum, and the calls that come at least once in a hundred repeats, the most frequent first.
fn listed(calls: BTreeMap<String, f64>) -> String {
    let sum: f64 = calls.values().sum();
    let mut calls: Vec<_> = calls.into_iter().filter(|(_, count)| *count >= 0.01).collect();
    calls.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let calls: Vec<_> = calls.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
    format!("{sum:.1}: {}", calls.join(", "))
}

/// What the tool writes to standard error about one operation.
fn run_under(tool: &str, options: &[&str], number: usize, repeats: u32) -> Result<String, String> {
    let output = Command::new(tool)
        .args(options)
        .arg(std::env::current_exe().expect("this benchmark"))
        .args([RUN_ONE, &number.to_string(), &repeats.to_string()])
        .output()
        .map_err(|error| format!("no {tool} ({error})"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(said) } else { Err(format!("{tool} failed: {said}")) }
}

fn claim(store: &Store) -> Tenure {
    claim_as(store, "default")
}

fn claim_as(store: &Store, profile: &str) -> Tenure {
    match store.profile(profile).expect("a profile").claim() {
        Ok(Claim::Granted(tenure)) => tenure,
        refused => panic!("{refused:?}"),
    }
}

fn verify(store: &Store, repeats: u32) {
    let tenure = claim(store);
    for _ in 0..repeats {
        tenure.verify().expect("an answer");
    }
}

/// Every update changes two rows: one that changes nothing writes no event.
fn update_status(store: &Store, repeats: u32) {
    let tenure = claim(store);
    for count in 0..repeats {
        let state = if count % 2 == 0 { "connected" } else { "retrying" };
        let telegram = PlatformUpdate::new("telegram").state(state);
        let update = StatusUpdate::new().active_agents(u64::from(count)).platform(telegram);
        tenure.update_status(&update).expect("written");
    }
}

fn read_status(store: &Store, repeats: u32) {
    let _tenure = claim(store);
    let profile = store.profile("default").expect("a profile");
    for _ in 0..repeats {
        profile.status().expect("an answer");
    }
}

/// What [`read_status`] costs beside what the gateway said.
fn read_runtime(store: &Store, repeats: u32) {
    let tenure = claim(store);
    tenure.update_status(&StatusUpdate::new().state("running")).expect("written");
    let profile = store.profile("default").expect("a profile");
    for _ in 0..repeats {
        assert!(profile.runtime(&Kind::default()).expect("an answer").is_some());
    }
}

fn peek_marker(store: &Store, repeats: u32) {
    let tenure = claim(store);
    for _ in 0..repeats {
        assert!(tenure.peek_marker(None).expect("an answer").is_none());
    }
}

fn claim_and_release(store: &Store, repeats: u32) {
    for _ in 0..repeats {
        claim(store).release().expect("released");
    }
}

fn acquire(store: &Store) -> ScopedLock {
    let request = LockRequest::new("bot-token", "cycled").expect("a request");
    let request = request.ttl(Duration::from_mins(1)).expect("a lease");
    match store.try_acquire(&request).expect("an answer") {
        Acquire::Granted(lock) => lock,
        Acquire::Held(holder) => panic!("{holder}"),
    }
}

fn acquire_and_release(store: &Store, repeats: u32) {
    for _ in 0..repeats {
        drop(acquire(store).release().expect("released"));
    }
}

fn verify_lock(store: &Store, repeats: u32) {
    let lock = acquire(store);
    for _ in 0..repeats {
        lock.verify().expect("an answer");
    }
}

fn renew_lock(store: &Store, repeats: u32) {
    let lock = acquire(store);
    for _ in 0..repeats {
        lock.renew().expect("renewed");
    }
}

fn find_running(store: &Store, repeats: u32) {
    let _tenure = claim(store);
    let profile = store.profile("default").expect("a profile");
    for _ in 0..repeats {
        assert!(profile.running_pid(&Kind::default()).expect("an answer").is_some());
    }
}

fn write_and_consume_marker(store: &Store, repeats: u32) {
    let tenure = claim(store);
    let name = MarkerName::new("note").expect("a name");
    let request = MarkerRequest::new(name.clone());
    for _ in 0..repeats {
        store.write_marker(std::process::id(), &request).expect("written");
        drop(tenure.consume_marker(Some(&name)).expect("an answer").expect("a marker"));
    }
}

fn status_of_many(store: &Store, repeats: u32) {
    let held: Vec<Tenure> = (0..20).map(|number| claim_as(store, &format!("p{number}"))).collect();
    for _ in 0..repeats {
        assert_eq!(store.status_of_all().expect("an answer").len(), held.len());
    }
}
