//! `events --follow`: what it prints, when it ends, and what it survives.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use incumbent::status::PlatformUpdate;
use incumbent::{StatusUpdate, Store};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::next;
use crate::support::{
    LIMIT, Process, SOON, Sandbox, ask, assert_within, eventually, kill, tenure_of, wait_for_looks,
};

/// Lines for people, documents for programs: one event each.
#[test]
fn a_follower_prints_a_line_for_each_event() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    let mut json = sandbox.follow_from_now(&[]);
    let mut text = sandbox.follow(&[]);
    text.line_with("office_claimed");
    for state in ["starting", "running", "draining"] {
        assert_eq!(ask(&mut party, &format!("state {state}")), "done");
        let event = next(&mut json);
        let keys: Vec<&String> = event.as_object().unwrap().keys().collect();
        let expected = ["id", "at", "event", "profile", "kind", "instance", "pid", "detail"];
        assert_eq!(keys, expected, "{event}");
        assert_eq!(
            (&event["event"], &event["pid"]),
            (&json!("status_changed"), &party.pid().into())
        );
        assert_eq!(event["detail"]["state"], state);
        let line = text.line();
        for word in ["status_changed", "default/gateway", &format!("pid {}", party.pid()), state] {
            assert!(line.contains(word), "no {word:?} in {line:?}");
        }
        assert!(line.starts_with(event["at"].as_str().unwrap()), "{line:?}");
    }
}

/// Symptom: `--kind` was ignored, in silence.
#[test]
fn only_events_of_the_kind_that_is_named_are_told() {
    let sandbox = Sandbox::new();
    for kind in ["bot", "gateway"] {
        sandbox.cli(["--kind", kind, "run", "--no-backoff", "--", "true"]).assert_code(0);
    }
    let mut follower = sandbox.follow(&["--json", "--kind", "bot"]);
    let (code, told) = sandbox.json(["events", "--kind", "bot"]);
    let told = told.as_array().unwrap();
    assert_eq!(code, 0);
    assert!(!told.is_empty() && told.iter().all(|event| event["kind"] == "bot"), "{told:#?}");
    for expected in told {
        assert_eq!(next(&mut follower), *expected);
    }
    for kind in ["gateway", "bot"] {
        sandbox.cli(["--kind", kind, "run", "--no-backoff", "--", "true"]).assert_code(0);
    }
    let event = next(&mut follower);
    assert_eq!((&event["event"], &event["kind"]), (&json!("office_claimed"), &json!("bot")));
}

/// The past that a follower begins with, and the whole past without `--follow`: the same documents.
#[test]
fn a_follower_begins_with_the_last_ten() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    assert_eq!(ask(&mut party, "drizzle 25"), "done");
    let (code, past) = sandbox.json(["events"]);
    assert_eq!(code, 0, "{past:#}");
    let past = past.as_array().unwrap();
    let mut follower = sandbox.follow(&["--json"]);
    for expected in &past[past.len() - 10..] {
        assert_eq!(next(&mut follower), *expected);
    }
    let mut of_nobody = sandbox.follow(&["--json", "--profile", "blue"]);
    assert_eq!(ask(&mut party, "state running"), "done");
    assert_eq!(next(&mut follower)["event"], "status_changed");
    sandbox.cli(["--profile", "blue", "desired", "running"]).assert_code(0);
    // Which may be of the past by the time that it looks, but is the only one of its profile.
    assert_eq!(next(&mut of_nobody)["event"], "desired_changed");
}

/// Owners come and go, also by `kill -9`: the follower stays, and tells of each of them.
#[test]
fn a_follower_survives_owners_that_come_and_go() {
    let sandbox = Sandbox::new();
    sandbox.cli(["desired", "running"]).assert_code(0);
    let mut follower = sandbox.follow_from_now(&[]);
    let mut previous: Option<u32> = None;
    for round in 0..4 {
        let mut party = sandbox.party_of("default");
        if let Some(pid) = previous {
            // Nobody wrote of its end; whoever found it dead did.
            let event = next(&mut follower);
            assert_eq!(event["event"], "office_ended", "{event}");
            assert_eq!(
                (&event["pid"], &event["detail"]["reason"]),
                (&pid.into(), &json!("anchor_released"))
            );
        }
        let event = next(&mut follower);
        assert_eq!(
            (&event["event"], &event["pid"]),
            (&json!("office_claimed"), &party.pid().into())
        );
        assert_eq!(ask(&mut party, &format!("state round-{round}")), "done");
        assert_eq!(next(&mut follower)["detail"]["state"], format!("round-{round}"));
        previous = Some(party.pid());
        party.kill();
    }
    follower.signal(Signal::INT);
    let answer = follower.finish_with_stdin_open(LIMIT).assert_code(0);
    assert_eq!(answer.err, "");
}

/// Who starts before everybody else waits for the store, and then has all of it; one that was
/// replaced is gone on with, and that is said where people see it and programs do not trip over it.
#[test]
fn a_follower_waits_for_its_store_and_goes_on_with_the_next_one() {
    let sandbox = Sandbox::new();
    let mut follower = sandbox.follow(&["--json"]);
    // Not only a moment before there is one.
    wait_for_looks(&[follower.pid()], 5);
    assert!(!sandbox.db().exists(), "a follower made a store");
    let mut party = sandbox.party_of("default");
    assert_eq!(next(&mut follower)["event"], "store_migrated");
    assert_eq!(next(&mut follower)["event"], "office_claimed");

    for round in 0..2 {
        let pid = party.pid();
        party.kill();
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
        }
        // At once, or when it has seen that there is none.
        if round == 1 {
            follower.err_line_with("replaced");
        }
        party = sandbox.party_of("default");
        assert_ne!(party.pid(), pid);
        assert_eq!(next(&mut follower)["event"], "store_migrated", "round {round}");
        assert_eq!(next(&mut follower)["pid"], party.pid(), "round {round}");
        if round == 0 {
            let said = follower.err_line();
            assert!(
                said.contains("the store was replaced; continuing with the new one"),
                "{said:?}"
            );
        }
        assert_eq!(ask(&mut party, "state running"), "done");
        assert_eq!(next(&mut follower)["event"], "status_changed");
    }
    follower.signal(Signal::TERM);
    follower.finish_with_stdin_open(LIMIT).assert_code(0);
}

/// Ctrl-C, or a supervisor's TERM: a clean end, whether it waits for something to happen, for a
/// store, or has its hands full.
#[test]
fn a_follower_ends_cleanly_with_a_signal() {
    for signal in [Signal::INT, Signal::TERM] {
        for is_busy in [false, true] {
            for format in [&["--json"][..], &[]] {
                let sandbox = Sandbox::new();
                let mut party = sandbox.party_of("default");
                let mut follower = sandbox.follow(format);
                follower.line_with("office_claimed");
                if is_busy {
                    party.say("drizzle 1000000000");
                    follower.line_with("platform_changed");
                } else {
                    wait_for_looks(&[follower.pid()], 2);
                }
                let asked = Instant::now();
                follower.signal(signal);
                let status = follower.wait(LIMIT);
                let case = format!("{signal:?}, busy: {is_busy}, {format:?}");
                assert_within(SOON, asked.elapsed(), &case);
                assert_eq!(status.code(), Some(0), "{case}");
                party.kill();
                let answer = follower.finish_with_stdin_open(LIMIT);
                assert_eq!(answer.err, "", "{case}");
                assert!(answer.out.ends_with('\n'), "{case}: half a line: {:?}", answer.out);
                if !format.is_empty() {
                    let mut last = 0;
                    for line in answer.out.lines() {
                        let event: Value = serde_json::from_str(line).unwrap();
                        let id = event["id"].as_i64().unwrap();
                        assert!(last == 0 || id == last + 1, "{case}: {id} after {last}");
                        last = id;
                    }
                }
            }
        }
    }
    let sandbox = Sandbox::new();
    let mut follower = sandbox.follow(&[]);
    wait_for_looks(&[follower.pid()], 3);
    follower.signal(Signal::INT);
    assert_eq!(follower.wait(LIMIT).code(), Some(0));
    let answer = follower.finish_with_stdin_open(LIMIT);
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("", ""));
}

/// `| head -1`: it ends with its reader, also while nothing happens and there is nothing to be
/// written that could fail; also where there is no store to follow yet.
#[test]
fn a_follower_ends_with_its_reader() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    let pipeline = |pipeline: &str| {
        let script = format!("{{ {pipeline}; echo \"code $?\" >&2; }} | head -1");
        let answer = Process::start(sandbox.shell(&script)).finish(LIMIT).assert_code(0);
        assert_eq!(answer.err, "code 0\n", "{answer:#?}");
        answer.out
    };
    let line = pipeline("incumbent events --follow --json");
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["event"], "store_migrated");
    assert!(pipeline("incumbent events --follow").contains("store_migrated"));
    // Also while something happens.
    party.say("drizzle 1000000000");
    assert!(!pipeline("incumbent events --follow").is_empty());

    let script = "{ incumbent --db none/state.db events --follow; echo \"code $?\" >&2; } | true";
    let answer = Process::start(sandbox.shell(script)).finish(LIMIT).assert_code(0);
    assert_eq!(answer.out, "");
    answer.assert_complains(&["there is no store at none/state.db", "try:", "code 0"]);
}

/// A follower in a program of the test's own that does not read: `Process` always does.
struct Unread(Child);

impl Unread {
    fn start(mut command: Command) -> Self {
        Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// Waits until it has printed something of the past: it misses nothing from then on.
    fn wait_begun(&self) {
        eventually("the first line", LIMIT, || {
            (unread_bytes(self.0.stdout.as_ref().unwrap()) > 0).then_some(())
        });
    }

    /// Waits until it is stuck in a write to its full pipe.
    fn wait_stuck(&self) {
        let pid = self.0.id();
        eventually("the pipe is full", LIMIT, || {
            let stuck = std::fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
            let full = unread_bytes(self.0.stdout.as_ref().unwrap()) >= 60_000;
            (full && (stuck.contains("pipe") || stuck == "0" || stuck.is_empty())).then_some(())
        });
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What waits in a pipe to be read.
fn unread_bytes(pipe: impl std::os::fd::AsFd) -> u64 {
    rustix::io::ioctl_fionread(pipe).unwrap()
}

/// A terminal that was stopped with Ctrl-S, a log shipper that hangs: a follower that cannot get
/// rid of its lines must not hold up those who write, and has missed nothing when it is read again.
#[test]
fn a_full_pipe_holds_up_nobody() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    let newest = sandbox.newest();
    let mut follower = Unread::start(sandbox.incumbent(["events", "--follow", "--json"]));
    follower.wait_begun();
    assert_eq!(ask(&mut party, "drizzle 400"), "done");
    follower.wait_stuck();
    let began = Instant::now();
    assert_eq!(ask(&mut party, "drizzle 1500"), "done");
    sandbox.hold(&["--profile", "blue"]).end().assert_code(0);
    eprintln!("beside a full pipe: {:?}", began.elapsed());

    assert!(sandbox.wal_size() < 10 << 20, "the WAL had {} bytes", sandbox.wal_size());
    let last = sandbox.newest();

    // Now it is read: every event, in order, to the last.
    let mut pipe = std::io::BufReader::new(follower.0.stdout.take().unwrap());
    let mut ids = BTreeSet::new();
    let mut line = String::new();
    while !ids.contains(&last) {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut pipe, &mut line).unwrap() > 0, "it has ended");
        let event: Value = serde_json::from_str(&line).unwrap();
        assert!(ids.insert(event["id"].as_i64().unwrap()), "twice: {event}");
        assert_ne!(event["event"], "events_lost", "{event}");
    }
    let expected: BTreeSet<i64> = (*ids.first().unwrap()..=last).collect();
    assert_eq!(ids, expected);
    assert!(*ids.first().unwrap() <= newest + 1, "it began with {:?}", ids.first());
}

/// A follower that hangs in a full pipe can still be ended by hand: closed, by its reader; or with
/// the second signal, when the first could not be obeyed.
#[test]
fn a_follower_in_a_full_pipe_can_be_ended() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    let fill = |party: &mut Process| assert_eq!(ask(party, "drizzle 400"), "done");
    let start = |party: &mut Process| {
        let mut begun = sandbox.incumbent(["events", "--follow", "--json"]);
        begun.stdin(Stdio::null());
        let follower = Unread::start(begun);
        follower.wait_begun();
        fill(party);
        follower.wait_stuck();
        follower
    };
    let mut closed = start(&mut party);
    drop(closed.0.stdout.take());
    assert!(crate::support::wait_ended(closed.0.id(), LIMIT), "its reader has gone");
    assert_eq!(closed.0.wait().unwrap().code(), Some(0));
    let mut said = String::new();
    closed.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");

    let signalled = start(&mut party);
    let pid = signalled.0.id();
    kill(pid, Signal::TERM);
    if !crate::support::wait_ended(pid, Duration::from_millis(500)) {
        kill(pid, Signal::TERM);
        assert!(crate::support::wait_ended(pid, LIMIT), "the second signal does not end it");
    }
}

/// What somebody else stored is shown, and not obeyed: no line of a follower in text moves a cursor
/// or sets a title, and none is two lines.
#[test]
fn control_characters_of_others_are_harmless() {
    const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\u{9b}31m\u{202e}x\0y";
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let platform = PlatformUpdate::new("telegram").error_message(EVIL).extra(json!({EVIL: EVIL}));
    let update =
        StatusUpdate::new().exit_reason(EVIL).extra(json!({EVIL: [EVIL]})).platform(platform);
    tenure.update_status(&update).unwrap();
    drop(tenure);
    drop(store);
    // And what no program of ours writes.
    assert_eq!(
        sandbox.forge(
            "INSERT INTO events (at_ms, event, profile, kind, detail) VALUES (1, 'evil' || char(27)
                || '[2J' || char(10), 'a' || char(27) || char(155), 'b' || char(13),
                json_object('c' || char(27), char(27) || char(155) || char(10)))"
        ),
        1
    );
    let newest = sandbox.newest();
    let mut text = sandbox.follow(&[]);
    let mut lines = vec![text.line_with("office_claimed")];
    lines.extend((0..4).map(|_| text.line()));
    for line in &lines {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    assert!(lines[4].contains("evil"), "{lines:#?}");
    let printed = sandbox.cli(["events"]).assert_code(0);
    assert_eq!(printed.out.lines().count(), 6, "{printed:#?}");
    assert!(!printed.out.replace('\n', "").contains(char::is_control), "{printed:#?}");
    // Programs get what was stored.
    let mut json = sandbox.follow(&["--json"]);
    let mut status = Value::Null;
    loop {
        let event = next(&mut json);
        if event["event"] == "status_changed" {
            status = event.clone();
        }
        if event["id"] == newest {
            break;
        }
    }
    assert_eq!(status["detail"]["extra"][EVIL], json!([EVIL]), "{status:#}");
}
