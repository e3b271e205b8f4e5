//! Wall clocks that are wrong: years ahead, before 1970, set in the middle of things.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use incumbent::clock::ManualClock;
use incumbent::{Acquire, Claim, Kind, LockRequest, OpenOptions, Store};

use crate::support::{LIMIT, Process, Sandbox, skipped};

const YEAR_2026_MS: i64 = 1_767_225_600_000;
const YEAR_2036_MS: i64 = 2_082_758_400_000;
const YEAR_2290_MS: i64 = 10_098_259_200_000;
const YEAR_9999_MS: i64 = 253_402_300_799_000;

/// A store whose clock the test sets; each transaction of it prunes.
fn store(sandbox: &Sandbox, clock: &Arc<ManualClock>) -> Store {
    let clock: Arc<dyn incumbent::clock::Clock> = Arc::<ManualClock>::clone(clock);
    OpenOptions::new().path(sandbox.db()).clock(clock).open().unwrap()
}

fn claim_and_release(store: &Store) {
    let Claim::Granted(tenure) = store.profile("default").unwrap().claim().unwrap() else {
        panic!("held")
    };
    tenure.release().unwrap();
}

/// FIELD-BUGS row 129.
///
/// Symptom: after a few starts in 2036 (an RTC that is wrong until NTP sets it) the whole history
/// was gone. It holds because only newer incarnations push older ones out.
#[test]
fn a_clock_years_ahead_deletes_no_history() {
    let sandbox = Sandbox::new();
    let clock = Arc::new(ManualClock::new(YEAR_2026_MS, 1_000));
    let store = store(&sandbox, &clock);
    let count =
        || store.profile("default").unwrap().history(&Kind::default(), 1_000).unwrap().len();
    for _ in 0..3 {
        claim_and_release(&store);
    }
    clock.step_wall_ms(YEAR_2036_MS - YEAR_2026_MS);
    for _ in 0..10 {
        claim_and_release(&store);
    }
    assert_eq!(count(), 13);
    clock.step_wall_ms(YEAR_2026_MS - YEAR_2036_MS);
    for _ in 0..300 {
        claim_and_release(&store);
    }
    assert!((200..=201).contains(&count()), "{}", count());
}

/// FIELD-BUGS row 134.
///
/// Symptom: beyond the year 2255 a fence was drawn that the next reader took for damage, and the
/// one after it was lower. It holds because such a clock is not believed: ids rise by one. Nor does
/// it use up what is left.
#[test]
fn no_clock_makes_fences_fall() {
    let sandbox = Sandbox::new();
    let clock = Arc::new(ManualClock::new(YEAR_2026_MS, 1_000));
    let store = store(&sandbox, &clock);
    let mut last = 0;
    let mut now_ms = YEAR_2026_MS;
    for wall_ms in [
        YEAR_2026_MS,
        YEAR_2290_MS,
        YEAR_9999_MS,
        i64::MAX / 1_000,
        -1_000,
        0,
        YEAR_2036_MS,
        YEAR_2026_MS + 1,
    ] {
        clock.step_wall_ms(wall_ms - now_ms);
        now_ms = wall_ms;
        let request = LockRequest::new("scope", "identity").unwrap();
        let Acquire::Granted(lock) = store.try_acquire(&request).unwrap() else { panic!("held") };
        let fence = lock.fence();
        assert!(fence > last && fence < YEAR_2036_MS * 1_000 + 1_000, "{last}, {fence}");
        last = fence;
        lock.release().unwrap();
    }
}

/// FIELD-BUGS row 134, the other end: numbers that every reader of JSON can hold are refused when
/// they are used up, and nothing is called damaged.
#[test]
fn the_last_fence_is_the_last() {
    const LAST: i64 = (1 << 53) - 1;
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    sandbox.forge(&format!("UPDATE meta SET value = {} WHERE key = 'last_id'", LAST - 1));
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    assert_eq!(sandbox.number("SELECT max(id) FROM instances"), LAST);
    for _ in 0..2 {
        let (code, refused) = sandbox.json(["run", "--no-backoff", "--", "true"]);
        let error = &refused["error"];
        assert_eq!((code, error["kind"].as_str()), (70, Some("cannot_write")), "{error:#}");
        assert!(error["message"].as_str().unwrap().contains("used up"), "{error:#}");
        assert!(error["hint"].is_string(), "{error:#}");
    }
    sandbox.assert_status(3, "dead", "exited");
}

/// The library that makes a program see another time.
fn faketime() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    found
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
}

fn at(sandbox: &Sandbox, library: &PathBuf, time: &str, verb: &[&str]) -> Command {
    let mut command = sandbox.incumbent(verb);
    command.env("LD_PRELOAD", library).env("FAKETIME", time);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

/// FIELD-BUGS row 130.
///
/// Symptom: on a machine without a clock of its own, what was started before NTP ran "since 20786
/// days ago". It holds because ages of the same boot are those of the boot clock, and others of
/// such a clock are unknown.
#[test]
fn what_began_before_the_clock_was_set_is_not_decades_old() {
    let Some(library) = faketime() else { return skipped("needs libfaketime") };
    let sandbox = Sandbox::new();
    let owner = Process::start(sandbox.program("cat"));
    let pid = owner.pid().to_string();
    let unset = "@1970-01-02 00:00:00";
    for verb in [&["claim"][..], &["lock", "acquire", "scope", "identity"]] {
        let verb = [verb, &["--pid", &pid]].concat();
        Process::start(at(&sandbox, &library, unset, &verb)).finish(LIMIT).assert_code(0);
    }
    let first = ["--profile", "first", "run", "--no-backoff", "--", "true"];
    Process::start(at(&sandbox, &library, unset, &first)).finish(LIMIT).assert_code(0);
    let told = sandbox.cli(["--profile", "first", "history"]).assert_code(0).out;
    assert!(told.contains("until an unknown time"), "{told}");
    let ahead =
        |verb: &[&str]| Process::start(at(&sandbox, &library, "@2050-01-02 00:00:00", verb));
    for verb in
        [&["status"][..], &["status", "--all"], &["locks"], &["--profile", "first", "history"]]
    {
        let answer = sandbox.cli(verb).assert_code(0);
        assert!(!answer.out.contains("days"), "{verb:?}: {answer:#?}");
    }
    let answer = ahead(&["status"]).finish(LIMIT).assert_code(0);
    assert!(answer.out.contains(", for ") && !answer.out.contains("days"), "{answer:#?}");
    drop(owner);
}

/// FIELD-BUGS row 129: contenders that were refused are no history that another clock deletes.
#[test]
fn a_clock_years_ahead_forgets_no_contender() {
    let Some(library) = faketime() else { return skipped("needs libfaketime") };
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock", "scope=identity"]);
    let refuse = |mut command: Command, party: &str| {
        command.env("INCUMBENT_PARTY", party);
        Process::start(command).finish(LIMIT).assert_code(75);
    };
    let verbs: [&[&str]; 2] = [
        &["run", "--no-backoff", "--", "true"],
        &["--profile", "other", "run", "--no-backoff", "--lock", "scope=identity", "--", "true"],
    ];
    for verb in verbs {
        refuse(sandbox.incumbent(verb), "first");
        refuse(at(&sandbox, &library, "@2036-06-01 00:00:00", verb), "second");
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM conflicts"), 2);
    assert_eq!(sandbox.number("SELECT count(*) FROM lock_conflicts"), 2);
    run.end().assert_code(0);
}
