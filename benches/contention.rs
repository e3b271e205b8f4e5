//! Many processes on one store: how long a claim takes while the others write as well.
//!
//! Each process claims and releases an office of its own, so that they meet only at the store's
//! write lock. `cargo bench --bench contention -- [PROCESSES] [PAUSE_MS] [SECONDS]`
//! (default: 32 processes, pauses of 2 ms, 5 s).

#![allow(clippy::expect_used, reason = "a benchmark may die of a surprise")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and its role")]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use incumbent::{Claim, Store};

const ROLE: &str = "CONTENTION_ROLE";

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return contend(&role);
    }
    let number = |index: usize, default: u64| {
        let given = std::env::args().filter(|argument| !argument.starts_with('-'));
        given.skip(1).nth(index).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (processes, pause_ms, seconds) = (number(0, 32), number(1, 2), number(2, 5));
    let directory = tempfile::tempdir().expect("a scratch directory");
    let path = directory.path().join("state.db");
    drop(Store::open(&path).expect("a store"));
    let children: Vec<_> = (0..processes)
        .map(|index| {
            Command::new(std::env::current_exe().expect("this program"))
                .env(ROLE, format!("{}|p{index}|{pause_ms}|{seconds}", path.display()))
                .stdout(Stdio::piped())
                .spawn()
                .expect("a contender")
        })
        .collect();
    let mut all_us: Vec<u64> = Vec::new();
    let mut fewest = usize::MAX;
    for mut child in children {
        let mut text = String::new();
        child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("latencies");
        assert!(child.wait().expect("an end").success(), "a contender failed");
        let latencies: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        fewest = fewest.min(latencies.len());
        all_us.extend(latencies);
    }
    all_us.sort_unstable();
    let at = |per_mille: usize| all_us[(all_us.len() - 1) * per_mille / 1_000];
    println!(
        "{processes} processes, pause {pause_ms} ms, {seconds} s: {} claims, fewest {fewest}; \
         p50 {} us, p99 {} us, p99.9 {} us, worst {} us",
        all_us.len(),
        at(500),
        at(990),
        at(999),
        at(1_000)
    );
    let wal = std::fs::metadata(path.with_file_name("state.db-wal")).map_or(0, |facts| facts.len());
    println!("the WAL has {} KiB", wal / 1_024);
}

/// One contender; prints the latency of each claim in microseconds.
fn contend(role: &str) {
    let parts: Vec<&str> = role.split('|').collect();
    let [path, profile, pause_ms, seconds] = parts[..] else { panic!("a malformed role") };
    let store = Store::open(Path::new(path)).expect("a store");
    let profile = store.profile(profile).expect("a profile");
    let pause = Duration::from_millis(pause_ms.parse().expect("a pause"));
    let end = Instant::now() + Duration::from_secs(seconds.parse().expect("a length"));
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        let Claim::Granted(tenure) = profile.claim().expect("an answer") else { panic!("held") };
        latencies.push(start.elapsed().as_micros());
        drop(tenure);
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    for latency in latencies {
        println!("{latency}");
    }
}
