//! `run --wait`: the office is granted when it becomes free, and a wait that ends leaves no trace.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    HOLDING, LIMIT, Process, Run, SOON, Sandbox, assert_within, eventually, kill, wait_stopped,
};

impl Sandbox {
    /// Waits until so many processes are on record as waiting.
    pub fn wait_for_waiters(&self, count: i64) {
        eventually(&format!("{count} waiters"), LIMIT, || (self.waiters() == count).then_some(()));
    }

    fn waiters(&self) -> i64 {
        self.number(
            "SELECT count(*) FROM waiters JOIN instances ON id = instance_id
             WHERE ended_at_ms IS NULL",
        )
    }

    fn wait_for_office(&self, options: &[&str]) -> Process {
        Process::start(self.incumbent([&["run", "--no-backoff"], options, HOLDING].concat()))
    }
}

/// FIELD-BUGS row 4. Symptom: a supervisor retried five times while the old one was still on its
/// way out, gave up, and nobody ran for 38 hours. A wait ends in the moment of the release instead.
#[test]
fn a_release_wakes_the_waiter() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    let mut waiter = sandbox.wait_for_office(&["--wait"]);
    sandbox.wait_for_waiters(1);
    let pid = waiter.pid();
    owner.end().assert_code(0);
    let released = Instant::now();
    waiter.line();
    assert_within(SOON, released.elapsed(), "the grant after the release");
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], pid);
    assert_eq!(sandbox.waiters(), 0);
    waiter.finish(LIMIT).assert_code(0);
}

#[test]
fn a_killed_owner_wakes_the_waiter() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    let mut waiter = sandbox.wait_for_office(&["--wait=1h"]);
    sandbox.wait_for_waiters(1);
    kill(owner.pid(), Signal::KILL);
    let killed = Instant::now();
    waiter.line();
    assert_within(SOON, killed.elapsed(), "the grant after the kill");
    waiter.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.history()[1]["end_reason"], "anchor_released");
}

/// A person's eviction is a release like any other.
#[test]
fn an_eviction_wakes_the_waiter() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    let mut waiter = sandbox.wait_for_office(&["--wait"]);
    sandbox.wait_for_waiters(1);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    waiter.line();
    // The evicted one notices, ends its command and says so.
    let evicted = owner.process.finish_with_stdin_open(LIMIT).assert_code(75);
    evicted.assert_complains(&["was lost"]);
    waiter.finish(LIMIT).assert_code(0);
}

#[test]
fn a_deadline_is_kept() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    let started = Instant::now();
    let answer = sandbox.wait_for_office(&["--wait=300ms"]).finish(LIMIT).assert_code(75);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300), "gave up after {took:?}");
    assert_within(Duration::from_millis(300) + SOON, took, "giving up");
    answer.assert_complains(&[&format!("default/gateway is held by pid {} (", owner.pid())]);
    assert_eq!(sandbox.waiters(), 0);
    owner.end().assert_code(0);
}

/// Zero means: try once.
#[test]
fn a_wait_of_zero_does_not_wait() {
    let sandbox = Sandbox::new();
    let _owner = sandbox.hold(&[]);
    let started = Instant::now();
    sandbox.wait_for_office(&["--wait=0"]).finish(LIMIT).assert_code(75);
    assert_within(SOON, started.elapsed(), "the refusal");
    let awaited = "SELECT count(*) FROM events WHERE event = 'office_awaited'";
    assert_eq!(sandbox.number(awaited), 0, "it registered to wait");
}

#[test]
fn a_signal_ends_the_wait_and_nothing_is_left_of_it() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let sandbox = Sandbox::new();
        let owner = sandbox.hold(&[]);
        let waiter = sandbox.wait_for_office(&["--wait"]);
        sandbox.wait_for_waiters(1);
        let asked = Instant::now();
        waiter.signal(signal);
        waiter.finish_with_stdin_open(LIMIT).assert_code(code);
        assert_within(SOON, asked.elapsed(), &format!("the end by {signal:?}"));
        assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0, "{signal:?}");
        assert_eq!(sandbox.waiters(), 0, "{signal:?}");
        owner.end().assert_code(0);
    }
}

/// A killed waiter cannot tidy up. Its row is dead, like any row whose anchor is free, and the next
/// grant removes it.
#[test]
fn a_killed_waiter_leaves_nothing_that_lasts() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    let mut waiter = sandbox.wait_for_office(&["--wait"]);
    sandbox.wait_for_waiters(1);
    waiter.kill();
    owner.end().assert_code(0);
    sandbox.hold(&[]).end().assert_code(0);
    assert_eq!(sandbox.waiters(), 0);
    sandbox.hold(&[]).end().assert_code(0);
    assert!(sandbox.anchor_names().len() <= 2, "{:?}", sandbox.anchor_names());
}

/// R:STOP. A waiter that is stopped (Ctrl-Z) keeps nobody out: it holds no lock while it waits.
#[test]
fn a_stopped_waiter_blocks_nobody() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    let mut waiter = sandbox.wait_for_office(&["--wait"]);
    sandbox.wait_for_waiters(1);
    waiter.signal(Signal::STOP);
    wait_stopped(waiter.pid());
    owner.end().assert_code(0);
    sandbox.hold(&[]).end().assert_code(0);
    waiter.signal(Signal::CONT);
    waiter.line();
    waiter.finish(LIMIT).assert_code(0);
}

/// All who wait get their turn, one at a time, in whatever order.
#[test]
fn six_waiters_own_one_after_the_other() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&[]);
    let command = ["--", "/bin/sh", "-c", "mkdir turn && echo mine && rmdir turn"];
    let waiters: Vec<_> = (0..6)
        .map(|_| {
            let arguments = [&["run", "--no-backoff", "--wait"], command.as_slice()].concat();
            Process::start(sandbox.incumbent(arguments))
        })
        .collect();
    sandbox.wait_for_waiters(6);
    owner.end().assert_code(0);
    for waiter in waiters {
        let answer = waiter.finish(LIMIT).assert_code(0);
        assert_eq!(answer.out, "mine\n", "two at a time: {answer:#?}");
    }
    assert_eq!(sandbox.history().len(), 7);
}

/// The exit code of a refusal is the caller's to choose, also after a wait.
#[test]
fn the_exit_code_of_a_refusal_can_be_chosen() {
    let sandbox = Sandbox::new();
    let owner: Run = sandbox.hold(&[]);
    for (options, code) in
        [(["-E", "9", ""], 9), (["-E", "0", ""], 0), (["-E", "11", "--wait=10ms"], 11)]
    {
        let options: Vec<_> = options.into_iter().filter(|word| !word.is_empty()).collect();
        let answer = sandbox.wait_for_office(&options).finish(LIMIT).assert_code(code);
        answer.assert_complains(&["is held by pid"]);
    }
    owner.end().assert_code(0);
    // A command's own code is its own, whatever -E says.
    sandbox.cli(["run", "-E", "9", "--", "/bin/sh", "-c", "exit 75"]).assert_code(75);
}

/// Symptom: who waited for the office was counted as refused: a conflict in `status`, a finding of
/// the doctor, and a point towards a storm. It is shown as what it is, and is refused when its time
/// is over.
#[test]
fn a_waiter_is_shown_and_is_no_refusal() {
    let sandbox = Sandbox::new();
    let refusals = || sandbox.number("SELECT count(*) FROM starts WHERE outcome = 'refused'");
    let owner = sandbox.hold(&[]);
    let mut waiter = sandbox.wait_for_office(&["--wait"]);
    sandbox.wait_for_waiters(1);
    let mut killed = sandbox.wait_for_office(&["--wait=1h"]);
    sandbox.wait_for_waiters(2);
    killed.kill();
    let status = sandbox.status().1;
    let waiting = status["waiters"].as_array().unwrap();
    assert_eq!(waiting.len(), 1, "the dead wait for nothing: {status:#}");
    assert_eq!(waiting[0]["pid"], waiter.pid(), "{status:#}");
    assert_eq!(status["conflicts"], json!([]), "{status:#}");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    assert!(text.contains(&format!("waiting    pid {}, for ", waiter.pid())), "{text}");
    let table = sandbox.cli(["status", "--all"]).assert_code(0).out;
    assert!(table.contains("1 waiting"), "{table}");
    assert_eq!(refusals(), 0);
    let in_vain = ["run", "--no-backoff", "--wait=20ms", "--", "true"];
    sandbox.cli(in_vain).assert_code(75);
    assert_eq!(refusals(), 1);
    owner.end().assert_code(0);
    waiter.line();
    assert_eq!(sandbox.status().1["waiters"], json!([]));
    waiter.finish(LIMIT).assert_code(0);
}

/// Symptom: of twelve starts that waited together, all in vain, two were counted: the others met
/// each other's writes. It holds because it is written with the end of the wait, which has to be
/// written anyway.
#[test]
fn each_wait_in_vain_is_one_refusal() {
    let sandbox = Sandbox::new();
    let owner = sandbox.hold(&["--lock", "token=mine"]);
    // Whoever finds the store busy at its end waits no longer for that: one after the other.
    let wait = |nth: u64| sandbox.wait_for_office(&[&format!("--wait={}ms", 1_500 + nth * 250)]);
    let waiters: Vec<_> = (0..12).map(wait).collect();
    for waiter in waiters {
        waiter.finish(LIMIT).assert_code(75);
    }
    let refusals = "SELECT count FROM counters WHERE name = 'refusals' AND profile = ";
    assert_eq!(sandbox.number(&format!("{refusals} 'default'")), 12);
    assert_eq!(sandbox.status().1["conflicts"][0]["count"], 12);
    assert_eq!(sandbox.waiters(), 0);

    // The lock that was missing is on record as well.
    let clone = ["--profile", "clone", "run", "--no-backoff", "--wait=20ms", "--lock"];
    for _ in 0..6 {
        sandbox.cli([&clone[..], &["token=mine", "true"]].concat()).assert_code(75);
    }
    assert_eq!(sandbox.number(&format!("{refusals} 'clone'")), 6);
    assert_eq!(sandbox.number("SELECT sum(count) FROM lock_conflicts WHERE profile = 'clone'"), 6);
    // A storm: the next one is told when to come.
    let (code, answer) = sandbox.json([&clone[..], &["token=mine", "true"]].concat());
    assert_eq!(code, 75, "{answer:#}");
    assert!(answer["retry_after_ms"].as_u64().is_some_and(|ms| ms > 1_000), "{answer:#}");
    owner.end().assert_code(0);
}

/// Symptom: of a profile whose start waited for a token `status` said that nobody had claimed it
/// yet, and to start it, which started a second one that waits.
#[test]
fn who_waits_for_a_lock_is_shown_and_not_to_be_started_again() {
    let sandbox = Sandbox::new();
    let clone = |words: &[&'static str]| [&["--profile", "clone"], words].concat();
    let owner = sandbox.hold(&["--lock", "token=mine"]);
    let start = [&clone(&["run", "--no-backoff", "--wait", "--lock", "token=mine"])[..], HOLDING];
    let mut waiter = Process::start(sandbox.incumbent(start.concat()));
    sandbox.wait_for_waiters(1);
    let (code, status) = sandbox.json(clone(&["status"]));
    assert_eq!((code, &status["waiters"][0]["pid"]), (3, &json!(waiter.pid())), "{status:#}");
    assert_eq!(status["waiters"][0]["lock"]["scope"], "token", "{status:#}");
    let text = sandbox.cli(clone(&["status"])).assert_code(3).out;
    assert!(text.contains(&format!("(pid {} waits for token/", waiter.pid())), "{text}");
    assert!(text.contains("do not start another one") && !text.contains("CMD"), "{text}");
    let others = sandbox.json(clone(&["--kind", "other", "status"])).1;
    assert_eq!(others["waiters"], json!([]), "another office of that profile: {others:#}");
    let table = sandbox.cli(["status", "--all"]).assert_code(0).out;
    assert!(table.contains("waits for token/"), "{table}");

    // The dead wait for nothing.
    waiter.kill();
    assert_eq!(sandbox.json(clone(&["status"])).1["waiters"], json!([]));
    assert_eq!(sandbox.json(["status", "--all"]).1.as_array().map(Vec::len), Some(1));
    owner.end().assert_code(0);
}
