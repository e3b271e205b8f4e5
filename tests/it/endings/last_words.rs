//! What the dead could not write, the next writer writes; a question shows it before.

use rustix::process::Signal;

use super::cgroup::{UNCOUNTED, can_forge_log, log_line, log_now_us};
use super::gateway::{BOOM, FILE, last_order};
use super::{OTHER_BOOT, story_without_times, us};
use crate::support::{LIMIT, Process, Sandbox, ask, eventually, skipped};

/// One way to be dead with nobody having recorded it.
struct Death {
    what: &'static str,
    reason: &'static str,
    by_us: bool,
    pub signal: Option<i64>,
    /// The kernel's log names it.
    in_log: bool,
    die: fn(&Sandbox) -> u32,
}

pub fn killed(mut gateway: Process) -> u32 {
    let pid = gateway.pid();
    gateway.kill();
    pid
}

const DEATHS: &[Death] = &[
    Death {
        what: "killed in silence",
        reason: "anchor_released",
        by_us: false,
        signal: None,
        in_log: false,
        die: |sandbox| killed(sandbox.linked_gateway(&["lock a"])),
    },
    Death {
        what: "killed after a signal",
        reason: "signalled",
        by_us: true,
        signal: Some(15),
        in_log: false,
        die: |sandbox| {
            let mut gateway = sandbox.linked_gateway(&["lock a", "catch"]);
            gateway.signal(Signal::TERM);
            gateway.err_line_with("caught 15");
            killed(gateway)
        },
    },
    Death {
        what: "killed after a signal while it was starting",
        reason: "signalled",
        by_us: true,
        signal: Some(15),
        in_log: false,
        die: |sandbox| {
            let mut gateway = sandbox.linked_gateway(&["lock a", "catch", "state starting"]);
            gateway.signal(Signal::TERM);
            gateway.err_line_with("caught 15: start_interrupted 75");
            killed(gateway)
        },
    },
    Death {
        what: "a thread panicked, and it ended by that",
        reason: "panicked",
        by_us: false,
        signal: None,
        in_log: false,
        die: |sandbox| {
            let mut gateway = sandbox.linked_gateway(&["lock a", "record", "panic text"]);
            last_order(&mut gateway, "abort");
            gateway.pid()
        },
    },
    Death {
        what: "the kernel's log names it",
        reason: "oom_suspected",
        by_us: false,
        signal: None,
        in_log: true,
        die: |sandbox| {
            let pid = killed(sandbox.linked_gateway(&["lock a"]));
            sandbox.forge(UNCOUNTED);
            pid
        },
    },
    Death {
        what: "the machine was restarted",
        reason: "rebooted",
        by_us: false,
        signal: None,
        in_log: false,
        die: |sandbox| {
            let pid = killed(sandbox.linked_gateway(&["lock a"]));
            sandbox.forge(&format!("{OTHER_BOOT} WHERE ended_at_ms IS NULL"));
            pid
        },
    },
];

/// DESIGN 5: the next observer that writes settles what the dead could not write; questions show
/// the same answer without writing it.
#[track_caller]
fn assert_settled_as_told(name: &str, verb: &[&str]) {
    let sandbox = Sandbox::new();
    let log = sandbox.file("kmsg");
    let can_forge = can_forge_log();
    let mut wrong = Vec::new();
    for death in DEATHS {
        if death.in_log && !can_forge {
            skipped("the case that needs root, mounts of its own and the first pid namespace");
            continue;
        }
        let what = format!("{}, settled by {name}", death.what);
        let pid = (death.die)(&sandbox);
        let log = death.in_log.then(|| {
            std::fs::write(&log, log_line(log_now_us(), pid)).unwrap();
            log.as_path()
        });
        // The first question after a change by hand makes the log of the database anew.
        sandbox.end_told(log, 0);
        let before = sandbox.picture();
        let asked = sandbox.end_told(log, 0);
        assert!(sandbox.picture() == before, "{what}: a question has written");
        let us = us();
        asked.assert(death.reason, death.by_us.then_some(&us), None, death.signal).assert_last();
        assert_eq!(asked.end["pid"], pid, "{what}");
        assert!(asked.end["ended_at"].is_null(), "{what}");

        sandbox.ask_seeing_log(log, verb);
        if name == "lock" {
            let pid = std::process::id().to_string();
            sandbox.cli(["lock", "release", "--pid", &pid, "token", "a"]).assert_code(0);
            // Our keeper writes once more before it goes.
            eventually("the end of our keeper", LIMIT, || {
                sandbox.keepers().is_empty().then_some(())
            });
        }
        let told = sandbox.end_told(log, usize::from(name == "claim"));
        assert_eq!(told.end["instance"], asked.end["instance"], "{what}");
        assert!(told.end["ended_at"].is_string(), "{what}: {told:#?}");
        // However it is explained: when it was nobody knows.
        assert_eq!(told.end["exit_seen_at"], told.end["ended_at"], "{what}: {told:#?}");
        assert!(told.line.contains(", found dead "), "{what}: {told:#?}");
        for field in ["end_reason", "ended_by", "exit_code", "signal"] {
            if told.end[field] != asked.end[field] {
                let (before, after) = (&asked.end[field], &told.end[field]);
                wrong.push(format!("{what}: {field} was {before}, and is {after} now"));
            }
        }
        let (before, after) =
            (story_without_times(&asked.detail()), story_without_times(&told.detail()));
        if before != after {
            wrong.push(format!("{what}: the detail was {before:?}, and is {after:?} now"));
        }
        if name != "claim" {
            told.assert_last();
            assert_eq!(sandbox.end_event()["reason"], death.reason, "{what}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_question_shows_what_the_next_claim_records() {
    assert_settled_as_told("claim", &["run", "--no-backoff", "--", "true"]);
}

#[test]
fn a_question_shows_what_an_eviction_records() {
    assert_settled_as_told("evict", &["evict"]);
}

#[test]
fn a_question_shows_what_a_stop_records() {
    assert_settled_as_told("stop", &["stop"]);
}

/// The lock that it held is wanted, and not its office.
#[test]
fn a_question_shows_what_the_next_holder_of_its_lock_records() {
    let pid = std::process::id().to_string();
    assert_settled_as_told("lock", &["lock", "acquire", "--pid", &pid, "token", "a"]);
}

/// A stop that nobody waited for any more, and a stop beside a signal: what was asked for explains
/// the end, also where the stopper has ended before its gateway.
#[test]
fn a_planned_stop_wins_over_its_own_signal() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    let mut stop = sandbox.begin(&["stop", "--reason", "moving house"]);
    gateway.err_line_with("caught 15: planned_stop 0");
    let by = format!("pid {}", stop.pid());
    stop.kill();
    gateway.kill();
    let asked = sandbox.end_now();
    let told = sandbox.end_settled();
    for told in [&asked, &told] {
        assert_eq!(told.end["end_reason"], "planned_stop", "{told:#?}");
        assert!(told.text("ended_by").contains(&by), "{told:#?}");
        assert_eq!(story_without_times(&told.detail()), "moving house", "{told:#?}");
        told.assert_story("it was stopped on purpose by BY (moving house) [planned_stop]");
    }
    asked.assert_last();

    // The other way round: somebody signals it first, and then it is stopped on purpose.
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15: ");
    let stop = sandbox.begin(&["stop"]);
    gateway.err_line_with("caught 15: planned_stop 0");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let by = format!("pid {}", stop.pid());
    gateway.finish(LIMIT).assert_code(0);
    stop.finish(LIMIT).assert_code(0);
    let told = sandbox.end_now();
    assert_eq!(told.end["end_reason"], "planned_stop", "{told:#?}");
    assert!(told.text("ended_by").contains(&by), "{told:#?}");
}

/// Of two last words the last one counts: what was survived before it does not.
#[test]
fn the_last_of_two_words_counts() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record", "catch", "catch-panic"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    sandbox.end_now().assert("signalled", Some(&us()), None, Some(15));
    gateway.finish(LIMIT).assert_code(0);

    let mut gateway = sandbox.linked_gateway(&["record", "catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    last_order(&mut gateway, "panic");
    sandbox.end_now().assert("panicked", None, None, None).assert_detail(&[BOOM]);
}

/// A gateway that drains may well panic on its way: its last word is the panic, and a release used
/// to follow the last word only, so that who had sent the signal was forgotten. It holds because a
/// release looks at the signal by itself, and tells the panic beside it.
#[test]
fn a_panic_in_the_drain_hides_no_sender() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["tell speaks", "record", "catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    ask(&mut gateway, "panic text");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let told = sandbox.end_now();
    told.assert("signalled", Some(&us()), None, Some(15)).assert_last();
    told.assert_detail(&[&format!("thread \"worker\" panicked: {BOOM} at "), FILE]);
    assert_eq!(sandbox.last_words(), 2);
    gateway.finish(LIMIT).assert_code(0);
}

/// A last word that was kept, because the store was locked, and that its table then refuses: each
/// later write of the process failed with it, for ever, its release included. It holds because a
/// word is written in a savepoint of its own, and dropped where it is refused.
#[test]
fn a_last_word_that_is_refused_is_in_nobodys_way() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    let mut blocker = sandbox.newcomer();
    assert_eq!(ask(&mut blocker, "block"), "done");
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    blocker.kill();
    assert_eq!(sandbox.last_words(), 0, "it was kept");
    sandbox.forge(
        "CREATE TRIGGER refused BEFORE INSERT ON shutdowns
         BEGIN SELECT RAISE(ABORT, 'not in this table'); END",
    );
    assert_eq!(ask(&mut gateway, "state draining"), "said");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    sandbox.end_now().assert("released", None, None, None).assert_last();
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    assert_eq!(ask(&mut gateway, "beat"), "said");
    sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(sandbox.last_words(), 0);
    gateway.finish(LIMIT).assert_code(0);
}

/// The end of a start that was cut short says so, by whatever it was cut short.
#[test]
fn an_end_while_starting_says_so() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch", "state starting"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15: start_interrupted 75");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let told = sandbox.end_now();
    told.assert("signalled", Some(&us()), None, Some(15));
    told.assert_story("SIGTERM from BY ended it (while it was starting) [signalled]");
    gateway.finish(LIMIT).assert_code(0);
}
