//! What nothing happens to does next to nothing: how often a run, a waiter and a keeper wake, and
//! how soon they hear of what does happen.

use std::time::{Duration, Instant};

use crate::support::{LIMIT, Process, SOON, Sandbox, assert_within, eventually, threads_slept};

/// Long enough to tell once a second from ten times.
const WATCHED: Duration = Duration::from_secs(6);

/// Once a second, and what a busy machine adds: whoever is kept from running wakes once more for
/// it. A thread that only ends or begins counts as well.
const WAKES_MAX: u64 = 6 * 2 + 2;

/// How often all threads of these processes went to sleep meanwhile.
fn wakes_of(pids: &[u32]) -> Vec<u64> {
    let before: Vec<u64> = pids.iter().map(|pid| threads_slept(*pid)).collect();
    std::thread::sleep(WATCHED);
    pids.iter().zip(before).map(|(pid, before)| threads_slept(*pid) - before).collect()
}

/// Symptom: an idle run woke ten times a second, a keeper twice, a waiter five hundred times while
/// it was young. It holds because they are told of commits.
#[test]
fn a_run_a_waiter_and_a_keeper_that_are_idle_wake_once_a_second() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let waits = ["run", "--no-backoff", "--wait", "--", "true"];
    let waiter = Process::start(sandbox.incumbent(waits));
    eventually("a waiter", LIMIT, || {
        (sandbox.number("SELECT count(*) FROM waiters") == 1).then_some(())
    });
    let kept = Process::start(sandbox.program("cat"));
    let pid = kept.pid().to_string();
    sandbox.cli(["lock", "acquire", "token", "it", "--pid", &pid]).assert_code(0);
    let [first, second] = {
        let pair = || Some([*sandbox.keepers().first()?, *sandbox.second_keepers().first()?]);
        eventually("two keepers", LIMIT, pair)
    };
    let pids = [run.pid(), waiter.pid(), first, second];
    let wakes = eventually("a quiet while", LIMIT, || {
        let wakes = wakes_of(&pids);
        wakes.iter().all(|wakes| *wakes <= WAKES_MAX).then_some(wakes)
    });
    eprintln!("in {WATCHED:?} a run, a waiter, a keeper and its second one woke {wakes:?} times");

    // And all of them hear of what does happen.
    let asked = Instant::now();
    sandbox.cli(["restart"]).assert_code(0);
    assert_within(SOON, asked.elapsed(), "a restart");
    let asked = Instant::now();
    sandbox.cli(["lock", "release", "token", "it", "--pid", &pid]).assert_code(0);
    eventually("the keepers end", LIMIT, || sandbox.keepers().is_empty().then_some(()));
    assert_within(SOON, asked.elapsed(), "the end of the keepers");
    let asked = Instant::now();
    sandbox.cli(["stop"]).assert_code(0);
    waiter.finish(LIMIT).assert_code(0);
    assert_within(SOON, asked.elapsed(), "the turn of the waiter");
    drop(run);
}

/// Symptom of what must not be: whoever rings nobody (SQLite's shell, version 0.1) is not heard.
/// It holds because everybody looks once a second all the same.
#[test]
fn what_a_foreign_writer_commits_is_seen_without_a_ring() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    // Old enough to sleep.
    std::thread::sleep(Duration::from_secs(4));
    let waits = ["run", "--no-backoff", "--wait", "--", "true"];
    let waiter = Process::start(sandbox.incumbent(waits));
    eventually("a waiter", LIMIT, || {
        (sandbox.number("SELECT count(*) FROM waiters") == 1).then_some(())
    });
    let ended = Instant::now();
    // As a shell of SQLite would: the office is somebody else's from now on.
    sandbox.forge(
        "UPDATE instances SET ended_at_ms = 1, end_reason = 'evicted' WHERE kind IS NOT NULL",
    );
    // The run has lost the office, and ends its command; then the waiter has it.
    waiter.finish(LIMIT).assert_code(0);
    assert_within(2 * SOON, ended.elapsed(), "what nobody told of");
    drop(run);
}
