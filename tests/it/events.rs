//! What happens in a store reaches whoever follows it: once, in order, and at once; and following
//! costs those who write nothing.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use incumbent::{
    Acquire, Cancel, Claim, ErrorKind, Event, EventStream, Field, LockRequest, MarkerName,
    MarkerRequest, PlatformUpdate, ProfileName, StatusUpdate, Store, Tenure, Wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    BINARY, LIMIT, Process, SOON, Sandbox, ask, assert_within, eventually, forked, has, kill,
    obey_orders, role, role_db, skipped, tenure_of, test_name, told, wait_for_looks, works,
};

const ROLE_TEST: &str = test_name!(role_of_a_party);

/// Where an idle follower is to have an event: it looks 20 times a second. The median of some, so
/// that a busy machine may be late now and then.
const IDLE_LATENCY: Duration = Duration::from_millis(100);

/// Plays a gateway, or a program that forks: one order a line, one answer a line.
#[test]
fn role_of_a_party() {
    match role().as_deref() {
        Some("gateway") => {
            let mut gateway = Gateway::new();
            eprintln!("=> ready");
            obey_orders(|order| gateway.obey(order));
        }
        Some("forker") => follow_in_a_child(),
        _ => {}
    }
}

struct Gateway {
    store: Store,
    tenure: Option<Tenure>,
    lock: Option<incumbent::ScopedLock>,
    round: u64,
}

impl Gateway {
    fn new() -> Self {
        Self { store: Store::open(role_db()).unwrap(), tenure: None, lock: None, round: 0 }
    }

    fn obey(&mut self, order: &str) -> String {
        let words: Vec<&str> = order.split(' ').collect();
        let me = std::process::id();
        let note = || MarkerName::new("note").unwrap();
        match words.as_slice() {
            ["claim", profile] => {
                return match self.store.profile(profile).unwrap().claim().unwrap() {
                    Claim::Granted(tenure) => {
                        self.tenure = Some(tenure);
                        "granted".to_owned()
                    }
                    Claim::Held(_) => "held".to_owned(),
                };
            }
            ["release"] => drop(self.tenure.take().unwrap().release().unwrap()),
            ["state", state] => return self.update(&StatusUpdate::new().state(*state)),
            ["beat"] => return self.update(&StatusUpdate::new().heartbeat()),
            ["platform", name, state] => {
                let platform = PlatformUpdate::new(*name).state(*state);
                return self.update(&StatusUpdate::new().platform(platform));
            }
            ["unserved", state] => {
                let platform = PlatformUpdate::new("telegram")
                    .of_profile(ProfileName::new("nobody").unwrap())
                    .state(*state);
                let own = PlatformUpdate::new("telegram").state(*state);
                let update = StatusUpdate::new().state(*state).platform(own).platform(platform);
                return self.update(&update);
            }
            ["forget"] => return self.update(&StatusUpdate::new().forget_platforms(None)),
            ["serves"] => return self.update(&StatusUpdate::new().serves(Field::Clear)),
            ["serves", profiles @ ..] => {
                let profiles: Vec<_> =
                    profiles.iter().map(|name| ProfileName::new(*name).unwrap()).collect();
                return self.update(&StatusUpdate::new().serves(profiles));
            }
            ["lock"] => {
                let request = LockRequest::new("token", "secret").unwrap();
                match self.tenure.as_ref().unwrap().try_acquire(&request).unwrap() {
                    Acquire::Granted(lock) => self.lock = Some(lock),
                    held @ Acquire::Held(_) => panic!("{held:?}"),
                }
            }
            ["unlock"] => drop(self.lock.take().unwrap().release().unwrap()),
            ["mark"] => drop(self.store.write_marker(me, &MarkerRequest::new(note())).unwrap()),
            ["consume"] => {
                let tenure = self.tenure.as_ref().unwrap();
                assert!(tenure.consume_marker(Some(&note())).unwrap().is_some());
            }
            // So many status events, a hundred in each transaction.
            ["flood", count] => self.flood(count.parse().unwrap(), 100),
            // So many transactions, with one status event each.
            ["drizzle", count] => self.flood(count.parse().unwrap(), 1),
            _ => panic!("{order}"),
        }
        "done".to_owned()
    }

    fn update(&self, update: &StatusUpdate) -> String {
        loop {
            match self.tenure.as_ref().unwrap().update_status(update) {
                Ok(()) => return "done".to_owned(),
                // A disk that hangs: what was refused was not written.
                Err(error) if error.kind() == ErrorKind::Busy => {}
                Err(error) => return error.kind().as_str().to_owned(),
            }
        }
    }

    fn flood(&mut self, count: u64, at_once: u64) {
        let mut left = count;
        while left > 0 {
            self.round += 1;
            let now = left.min(at_once);
            left -= now;
            let update = (0..now).fold(StatusUpdate::new(), |update, number| {
                let name = format!("platform-{number}");
                update.platform(PlatformUpdate::new(name).state(format!("s{}", self.round)))
            });
            assert_eq!(self.update(&update), "done");
        }
    }
}

impl Sandbox {
    fn unemployed(&self) -> Process {
        let mut party = self.role(ROLE_TEST, "gateway");
        assert_eq!(told(&mut party), "ready");
        party
    }

    /// A party that holds the office of `profile`.
    fn party_of(&self, profile: &str) -> Process {
        let mut party = self.unemployed();
        assert_eq!(ask(&mut party, &format!("claim {profile}")), "granted");
        party
    }

    fn follow(&self, options: &[&str]) -> Process {
        Process::start(self.incumbent([&["events", "--follow"], options].concat()))
    }

    /// A follower that prints JSON, and has printed what there was: nothing is lost from then on.
    #[track_caller]
    fn follow_from_now(&self, options: &[&str]) -> Process {
        let newest = self.newest();
        let mut follower = self.follow(&[&["--json"], options].concat());
        while next(&mut follower)["id"] != newest {}
        follower
    }

    /// The id of the newest event, asked of another process: our own may have the store open.
    fn newest(&self) -> i64 {
        let (code, answer) = self.json(["sql", "SELECT max(id) AS id FROM events"]);
        assert_eq!(code, 0, "{answer:#}");
        answer[0]["id"].as_i64().unwrap()
    }

    fn wal_size(&self) -> u64 {
        std::fs::metadata(self.file("store/state.db-wal")).unwrap().len()
    }
}

/// The next line of a follower that prints JSON Lines.
#[track_caller]
fn next(follower: &mut Process) -> Value {
    let line = follower.line();
    let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
        panic!("not one JSON document in a line: {error}: {line:?}");
    });
    assert!(event["id"].is_i64() && event["at"].is_string(), "{event}");
    event
}

/// The next event of a stream, which is to come.
#[track_caller]
fn take(events: &mut EventStream) -> Event {
    events.next_event(Wait::UpTo(LIMIT)).unwrap().expect("there is another event")
}

/// Everything that is there by now.
#[track_caller]
fn drain(events: &mut EventStream) -> Vec<Event> {
    std::iter::from_fn(|| events.next_event(Wait::No).unwrap()).collect()
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.event.as_str()).collect()
}

/// Every kind of change, by other processes, in the order of the commits; and none twice. The first
/// reader follows one that was made before there was anything, the second one comes later.
#[test]
fn every_change_arrives_once_and_in_order() {
    // One for each profile that is served, and one for the server.
    const SERVED: [&str; 3] = ["served_by_changed", "served_by_changed", "serves_changed"];
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut events = store.events().unwrap();
    let mut party = sandbox.unemployed();
    let mut rival = sandbox.unemployed();
    // What is ordered, what is answered, and what that is to whoever follows.
    let script: &[(&str, &str, &[&str])] = &[
        ("claim default", "granted", &["office_claimed"]),
        ("state starting", "done", &["status_changed"]),
        ("state starting", "done", &[]),
        ("beat", "done", &[]),
        ("state running", "done", &["status_changed"]),
        ("platform telegram connected", "done", &["platform_changed"]),
        ("platform telegram connected", "done", &[]),
        ("serves red blue", "done", &SERVED),
        ("serves blue red", "done", &[]),
        ("serves", "done", &SERVED),
        ("serves", "done", &[]),
        ("unserved fatal", "not_owner", &[]),
        ("forget", "done", &["platform_removed"]),
        ("forget", "done", &[]),
        ("lock", "done", &["lock_acquired"]),
        ("unlock", "done", &["lock_ended"]),
        ("mark", "done", &["marker_written"]),
        ("consume", "done", &["marker_consumed"]),
        ("rival", "held", &["office_refused"]),
        ("rival", "held", &[]),
        ("desired stopped", "", &["desired_changed"]),
        ("desired stopped", "", &[]),
        ("release", "done", &["office_ended"]),
    ];
    let mut last = 0;
    let mut all = Vec::new();
    for (order, expected, changes) in script {
        match *order {
            "desired stopped" => {
                sandbox.cli(["desired", "stopped"]).assert_code(0);
            }
            "rival" => assert_eq!(ask(&mut rival, "claim default"), *expected),
            order => assert_eq!(ask(&mut party, order), *expected, "{order}"),
        }
        // It was committed before it was answered: it is there now, not some time.
        let came = drain(&mut events);
        assert_eq!(names(&came), *changes, "after {order:?}: {came:#?}");
        for event in &came {
            assert!(event.id > last, "{event:?} after {last}");
            last = event.id;
            let about = event.profile.as_deref().unwrap();
            let is_about_served = event.event == "served_by_changed";
            assert!(if is_about_served { about != "default" } else { about == "default" });
        }
        all.extend(came);
    }
    let now_ms = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    for event in &all {
        let age_ms = i128::try_from(now_ms).unwrap() - i128::from(event.at_ms);
        assert!((0..60_000).contains(&age_ms), "{age_ms} ms old: {event:?}");
    }
    assert_eq!(all[2].detail["state"], "running");
    assert_eq!(all[3].detail["platform"], "telegram");
    // Whoever comes later and starts from the beginning reads the same.
    let again = drain(&mut store.events().unwrap().after(all[0].id - 1));
    assert_eq!(names(&again), names(&all));
    assert!(again.iter().map(|event| event.id).eq(all.iter().map(|event| event.id)));
    // And one who starts now reads nothing.
    assert!(drain(&mut store.events().unwrap()).is_empty());
}

/// It is there as soon as a look can see it: a waiting reader that sees no event for more than a
/// second looks every 50 ms, and after one every 5 ms.
#[test]
fn an_idle_reader_has_it_well_within_a_second() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    let store = Store::open(sandbox.db()).unwrap();
    let cancel = Cancel::new();
    let mut events = store.events().unwrap().cancel(cancel.clone());
    let (sender, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        while let Some(event) = events.next_event(Wait::Forever).unwrap() {
            let at_ms = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
            // The clock of the transaction: before the commit, not after it.
            let late_ms = at_ms.saturating_sub(event.at_ms.unsigned_abs().into());
            let latency = Duration::from_millis(late_ms.try_into().unwrap());
            sender.send((event, latency)).unwrap();
        }
    });
    let latency_of = |party: &mut Process, state: &str| {
        assert_eq!(ask(party, &format!("state {state}")), "done");
        let (event, latency) = heard.recv_timeout(LIMIT).unwrap();
        assert_eq!(event.detail["state"], state);
        latency
    };
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for round in 0..5 {
        // For so long that it has gone over to its slow look; and in no step with it.
        std::thread::sleep(Duration::from_millis(1_060 + 17 * round));
        idle.push(latency_of(&mut party, &format!("idle-{round}")));
        for number in 0..4 {
            busy.push(latency_of(&mut party, &format!("busy-{round}-{number}")));
        }
    }
    cancel.cancel();
    reader.join().unwrap();
    for latencies in [&mut idle, &mut busy] {
        latencies.sort();
        eprintln!("latencies: {latencies:?}");
    }
    assert_within(IDLE_LATENCY, idle[idle.len() / 2], &format!("idle: {idle:?}"));
    assert_within(IDLE_LATENCY / 2, busy[busy.len() / 2], &format!("busy: {busy:?}"));
}

/// Of one profile: nothing of others, though those are busier; and what a profile's server says of
/// it is its own.
#[test]
fn a_reader_of_one_profile_hears_of_no_other() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let red = ProfileName::new("red").unwrap();
    let mut of_red = store.events().unwrap().of_profile(red.clone());
    let mut of_all = store.events().unwrap();
    let mut party = sandbox.party_of("red");
    let mut other = sandbox.party_of("blue");
    assert_eq!(ask(&mut other, "flood 1200"), "done");
    assert_eq!(ask(&mut party, "state running"), "done");
    assert_eq!(ask(&mut other, "drizzle 20"), "done");
    assert_eq!(ask(&mut party, "platform telegram connected"), "done");
    sandbox.cli(["--profile", "blue", "desired", "running"]).assert_code(0);
    sandbox.cli(["--profile", "red", "desired", "running"]).assert_code(0);
    let expected = ["office_claimed", "status_changed", "platform_changed", "desired_changed"];
    let heard = drain(&mut of_red);
    assert_eq!(names(&heard), expected);
    assert!(heard.iter().all(|event| event.profile.as_deref() == Some("red")));
    assert_eq!(drain(&mut of_all).len(), 1 + 1 + 1_200 + 1 + 20 + 1 + 1 + 1);
    // The profile's own reader is no further behind for it.
    assert_eq!(of_red.position(), of_all.position());
    // Who serves a profile is told to those who follow that one.
    let green = ProfileName::new("green").unwrap();
    let mut of_green = store.events().unwrap().of_profile(green);
    for (order, served_by) in [("serves green", json!("red")), ("serves", Value::Null)] {
        assert_eq!(ask(&mut party, order), "done");
        let event = take(&mut of_green);
        assert_eq!(
            (event.event.as_str(), &event.detail["served_by"]),
            ("served_by_changed", &served_by)
        );
        assert!(drain(&mut of_green).is_empty(), "after {order:?}");
        assert_eq!(names(&drain(&mut of_red)), ["serves_changed"], "after {order:?}");
    }
}

/// A reader that remembers the id of the last event that it has dealt with goes on behind it: from
/// wherever it left off, in a process of its own as well.
#[test]
fn a_reader_goes_on_where_it_left_off() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let start = store.events().unwrap().position();
    let mut party = sandbox.party_of("default");
    // More than are read at once, and many in one transaction.
    assert_eq!(ask(&mut party, "flood 1100"), "done");
    assert_eq!(ask(&mut party, "drizzle 30"), "done");
    let ids = |events: &[Event]| events.iter().map(|event| event.id).collect::<Vec<_>>();
    let all = ids(&drain(&mut store.events().unwrap().after(start)));
    assert_eq!(all.len(), 1 + 1_100 + 30);
    for left_off in [0, 1, 2, 498, 499, 500, 501, 999, 1_000, 1_129, 1_130] {
        let rest = ids(&drain(&mut store.events().unwrap().after(all[left_off])));
        assert_eq!(rest, all[left_off + 1..], "after the event at {left_off}");
    }
    // In small bites, each by a new stream.
    let mut bites = Vec::new();
    let mut at = start;
    loop {
        let mut events = store.events().unwrap().after(at);
        let bite: Vec<Event> =
            (0..97).map_while(|_| events.next_event(Wait::No).unwrap()).collect();
        let Some(last) = bite.last() else { break };
        at = last.id;
        bites.extend(ids(&bite));
    }
    assert_eq!(bites, all);
}

/// `position` is what `after` takes: a reader that stored it after each event loses none.
#[test]
fn a_position_is_that_of_what_was_handed_out() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut events = store.events().unwrap();
    let start = events.position();
    let tenure = tenure_of(&store, "default");
    for state in ["one", "two", "three"] {
        tenure.update_status(&StatusUpdate::new().state(state)).unwrap();
    }
    assert_eq!(events.position(), start, "nothing was read so far");
    for count in 1..=4 {
        let event = take(&mut events);
        let rest = drain(&mut store.events().unwrap().after(events.position()));
        assert_eq!(rest.len(), 4 - count, "after {event:?} at {}: {rest:#?}", events.position());
    }
}

/// A write that was refused or rolled back is none, and what says nothing new is no change.
#[test]
fn what_was_not_committed_or_changed_nothing_is_no_event() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = tenure_of(&store, "default");
    let full = || {
        let platform = PlatformUpdate::new("telegram")
            .state("retrying")
            .error_code("E1")
            .error_message("no route to host")
            .needs_attention(true)
            .retrying_since_ms(1_700_000_000_000)
            .extra(json!({"try": 3}));
        StatusUpdate::new()
            .state("running")
            .exit_reason("none")
            .restart_requested(false)
            .active_agents(3)
            .extra(json!({"a": [1, 2, {"b": null}]}))
            .platform(platform)
    };
    tenure.update_status(&full()).unwrap();
    let mut events = store.events().unwrap();
    for _ in 0..3 {
        tenure.update_status(&full()).unwrap();
        tenure.update_status(&StatusUpdate::new()).unwrap();
        tenure.update_status(&StatusUpdate::new().heartbeat()).unwrap();
    }
    let nobody = ProfileName::new("nobody").unwrap();
    let half = StatusUpdate::new()
        .state("draining")
        .serves(vec![ProfileName::new("blue").unwrap()])
        .platform(PlatformUpdate::new("telegram").state("connected"))
        .platform(PlatformUpdate::new("telegram").of_profile(nobody).state("fatal"));
    let refused = tenure.update_status(&half).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotOwner);
    let invalid = StatusUpdate::new().state("running").platform(PlatformUpdate::new("\n"));
    assert_eq!(tenure.update_status(&invalid).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(names(&drain(&mut events)), [""; 0]);
    // What is new in one field only, is.
    tenure.update_status(&full().active_agents(4)).unwrap();
    let came = drain(&mut events);
    assert_eq!(names(&came), ["status_changed"]);
    assert_eq!(came[0].detail["active_agents"], 4);
    tenure.release().unwrap();
    assert_eq!(names(&drain(&mut events)), ["office_ended"]);
}

#[test]
fn a_deadline_is_kept_where_nothing_happens() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut events = store.events().unwrap();
    for wait in [Wait::No, Wait::UpTo(Duration::ZERO)] {
        let began = Instant::now();
        assert!(events.next_event(wait).unwrap().is_none());
        assert_within(SOON, began.elapsed(), &format!("{wait:?}"));
    }
    for ms in [1, 30, 200, 700] {
        let limit = Duration::from_millis(ms);
        let began = Instant::now();
        assert!(events.next_event(Wait::UpTo(limit)).unwrap().is_none());
        let took = began.elapsed();
        assert!(took >= limit, "{limit:?} took {took:?}");
        assert_within(limit + SOON, took, &format!("{limit:?}"));
    }
    // What comes in time is not waited for any longer.
    let _tenure = tenure_of(&store, "default");
    let began = Instant::now();
    assert!(events.next_event(Wait::UpTo(LIMIT)).unwrap().is_some());
    assert_within(SOON, began.elapsed(), "the event");
}

/// Keeps a store busy from three processes, until it is dropped.
struct Rain {
    children: Vec<Child>,
}

impl Rain {
    fn start(sandbox: &Sandbox) -> Self {
        let children = ["r1", "r2", "r3"]
            .into_iter()
            .map(|profile| {
                let mut child = sandbox
                    .role_command(ROLE_TEST, "gateway")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                let orders = format!("claim {profile}\ndrizzle 1000000000\n");
                let stdin = child.stdin.as_mut().unwrap();
                std::io::Write::write_all(stdin, orders.as_bytes()).unwrap();
                child
            })
            .collect();
        let rain = Self { children };
        eventually("everybody writes", LIMIT, || {
            let query = "SELECT count(DISTINCT instance_id) AS n FROM platform_status";
            let (code, answer) = sandbox.json(["sql", query]);
            (code == 0 && answer[0]["n"] == 3).then_some(())
        });
        rain
    }
}

impl Drop for Rain {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A deadline holds also where each look finds something, though none of it is meant for this
/// reader; and it is not waited for the end of the rain.
#[test]
fn a_deadline_is_kept_though_others_write_all_the_time() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let rain = Rain::start(&sandbox);
    let mut events = store.events().unwrap().of_profile(ProfileName::new("quiet").unwrap());
    for wait in [Wait::No, Wait::UpTo(Duration::from_millis(100)), Wait::No] {
        let began = Instant::now();
        let (sender, ended) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let came = events.next_event(wait).unwrap();
            let _ = sender.send(());
            (events, came)
        });
        if ended.recv_timeout(LIMIT).is_err() {
            // So that the thread comes to its end as well.
            drop(rain);
            let (_, came) = thread.join().unwrap();
            panic!("{wait:?} was not over after {LIMIT:?}, but after the rain: {came:?}");
        }
        let came;
        (events, came) = thread.join().unwrap();
        assert!(came.is_none(), "{came:?}");
        eprintln!("{wait:?} took {:?}", began.elapsed());
    }
}

/// Another thread ends the wait: of one that waits in silence, and of one that always has something
/// to read.
#[test]
fn a_cancelled_reader_ends() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let cancel = Cancel::new();
    let events = store.events().unwrap().cancel(cancel.clone());
    let (sender, waiting) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        sender.send(()).unwrap();
        events.map(Result::unwrap).count()
    });
    waiting.recv().unwrap();
    let cancelled = Instant::now();
    cancel.cancel();
    assert_eq!(reader.join().unwrap(), 0);
    assert_within(SOON, cancelled.elapsed(), "the end of the reader");

    // One that was cancelled before it began.
    let mut events = store.events().unwrap().cancel(cancel);
    assert!(events.next().is_none());
    assert!(events.next().is_none());

    let rain = Rain::start(&sandbox);
    let cancel = Cancel::new();
    let events = store.events().unwrap().cancel(cancel.clone());
    let (sender, progress) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for event in events {
            sender.send(event.unwrap().id).unwrap();
        }
    });
    progress.recv_timeout(LIMIT).unwrap();
    let began = Instant::now();
    cancel.cancel();
    let has_ended = std::iter::repeat_with(|| progress.recv_timeout(LIMIT))
        .take_while(|_| began.elapsed() < LIMIT)
        .any(|received| received.is_err());
    drop(rain);
    assert!(has_ended, "it went on reading for {LIMIT:?} after it was cancelled");
    reader.join().unwrap();
}

/// Who was told to end does not first read all that there is.
#[test]
fn a_cancelled_reader_ends_though_there_is_more_to_read() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    assert_eq!(ask(&mut party, "flood 1500"), "done");
    let store = Store::open(sandbox.db()).unwrap();
    let cancel = Cancel::new();
    let mut events = store.events().unwrap().after(0).cancel(cancel.clone());
    assert!(events.next().is_some());
    cancel.cancel();
    let left = events.by_ref().count();
    assert_eq!(left, 0, "events after it was cancelled");
    assert!(events.next().is_none());
}

/// FIELD-BUGS row 72: a reader of a deleted file must not wait for it forever, and must not take
/// another store's events for its own.
#[test]
fn a_reader_of_a_deleted_or_replaced_store_is_told_once() {
    for replaced in [false, true] {
        let sandbox = Sandbox::new();
        let store = Store::open(sandbox.db()).unwrap();
        let mut events = store.events().unwrap();
        let _tenure = tenure_of(&store, "default");
        assert_eq!(take(&mut events).event, "office_claimed");
        let (sender, answer) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            sender.send(()).unwrap();
            let first = events.next();
            (first, events.next().is_none(), events.next().is_none())
        });
        answer.recv().unwrap();
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
        }
        if replaced {
            sandbox.cli(["desired", "running"]).assert_code(0);
        }
        let (first, second, third) = reader.join().unwrap();
        let error = first.expect("it is told").expect_err("that its store is gone");
        assert_eq!(error.kind(), ErrorKind::StoreReplaced, "replaced: {replaced}");
        assert!(second && third, "and then no more, replaced: {replaced}");
    }
}

fn follow_in_a_child() {
    let store = Store::open(role_db()).unwrap();
    let mut events = store.events().unwrap();
    let _tenure = tenure_of(&store, "default");
    let child = forked::fork();
    if child == 0 {
        let kind = |error: incumbent::Error| error.kind().as_str();
        let next = events.next_event(Wait::UpTo(Duration::from_secs(1))).map_err(kind);
        let new = store.events().map(drop).map_err(kind);
        eprintln!("=> {next:?} {new:?}");
        drop((events, store));
        forked::leave();
    }
    let status = forked::exit_code(child);
    let event = take(&mut events);
    eprintln!("=> the child ended with {status}; the parent has {}", event.event);
}

/// FIELD-BUGS row 70: nothing crosses a fork, and the parent goes on as if there had been none.
#[test]
fn a_forked_child_is_refused() {
    let sandbox = Sandbox::new();
    let mut forker = sandbox.role(ROLE_TEST, "forker");
    assert_eq!(told(&mut forker), r#"Err("forked") Err("forked")"#);
    assert_eq!(told(&mut forker), "the child ended with 0; the parent has office_claimed");
}

/// FIELD-BUGS row 77: a reader that stays in a transaction keeps every checkpoint from emptying the
/// WAL, which then grows by all that is ever written. A follower is in none while it waits.
#[test]
fn an_idle_follower_neither_writes_nor_stands_in_the_way_of_a_checkpoint() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    let mut follower = sandbox.follow_from_now(&[]);
    // It follows another profile, too, and never has anything to print.
    let idle = sandbox.follow(&["--json", "--profile", "nobody"]);
    let before = sandbox.picture();
    wait_for_looks(&[idle.pid()], 20);
    let after = sandbox.picture();
    assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
    for (path, facts) in &before {
        assert!(*facts == after[path], "a follower wrote to {}", path.display());
    }

    // Each of these changes several pages: 25 MB in all, and so long would the WAL be if it were
    // never emptied.
    let mut largest = 0;
    for _ in 0..10 {
        assert_eq!(ask(&mut party, "drizzle 200"), "done");
        largest = largest.max(sandbox.wal_size());
    }
    eprintln!("WAL up to {} KiB", largest >> 10);
    assert!(largest < 10 << 20, "the WAL had {largest} bytes");
    for _ in 0..2_000 {
        assert_eq!(next(&mut follower)["event"], "platform_changed");
    }
    // One that is stopped in the middle of nothing holds nothing up either.
    for process in [&idle, &follower] {
        process.signal(Signal::STOP);
        crate::support::wait_stopped(process.pid());
    }
    for _ in 0..5 {
        assert_eq!(ask(&mut party, "drizzle 200"), "done");
    }
    assert!(sandbox.wal_size() < 10 << 20, "the WAL had {} bytes", sandbox.wal_size());
    for process in [&idle, &follower] {
        process.signal(Signal::CONT);
    }
    for _ in 0..1_000 {
        assert_eq!(next(&mut follower)["event"], "platform_changed");
    }
}

/// The time that a process has had a processor, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// It waits for days: 20 looks a second, each of some microseconds.
#[test]
fn an_idle_follower_costs_next_to_nothing() {
    let sandbox = Sandbox::new();
    let _party = sandbox.party_of("default");
    let follower = sandbox.follow_from_now(&[]);
    let before = cpu_ticks(follower.pid());
    let watched = Duration::from_secs(3);
    std::thread::sleep(watched);
    let spent = Duration::from_millis(10 * (cpu_ticks(follower.pid()) - before));
    eprintln!("{spent:?} in {watched:?}");
    assert!(spent < watched / 20, "{spent:?} of a processor in {watched:?}");
}

/// Whether there is something new is told by a counter in shared memory: an idle follower reads not
/// a byte of the store, and the events table least of all.
#[test]
fn an_idle_follower_reads_nothing() {
    let sandbox = Sandbox::new();
    if !has("strace") || !works(&["strace", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let mut party = sandbox.party_of("default");
    let newest = sandbox.newest();
    let mut command = sandbox.program("strace");
    command
        .args(["-f", "-y", "-o"])
        .arg(sandbox.file("trace"))
        .args([BINARY, "events", "--follow", "--json"]);
    let mut follower = Process::start(command);
    while next(&mut follower)["id"] != newest {}
    let trace = || std::fs::read_to_string(sandbox.file("trace")).unwrap();
    // It has gone over to its slow look by the time that it has slept so often and so long.
    let naps = || trace().lines().filter(|line| is_long_nap(line)).count();
    let so_far = naps();
    eventually("slow looks", LIMIT, || (naps() > so_far + 3).then_some(()));
    let before = trace().lines().count();
    let so_far = naps();
    eventually("twenty slow looks", LIMIT, || (naps() > so_far + 20).then_some(()));
    let idle: Vec<String> = trace().lines().skip(before).map(str::to_owned).collect();
    let reads: Vec<&String> = idle
        .iter()
        .filter(|line| {
            let call = line.split('(').next().unwrap_or_default();
            call.contains("read") || call.contains("write")
        })
        .collect();
    assert!(reads.is_empty(), "an idle follower reads or writes: {reads:#?}");
    // And it was awake.
    assert_eq!(ask(&mut party, "state running"), "done");
    assert_eq!(next(&mut follower)["event"], "status_changed");
}

/// Whether a line of a trace is that of a sleep of 40 ms or more.
fn is_long_nap(line: &str) -> bool {
    let wanted = line.split_once("nanosleep(").and_then(|(_, rest)| rest.split_once("tv_nsec="));
    let digits = wanted.and_then(|(_, rest)| rest.split('}').next());
    digits.and_then(|digits| digits.parse::<u64>().ok()).is_some_and(|ns| ns >= 40_000_000)
}

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
            assert!(said.contains("the store was replaced, going on with the new one"), "{said:?}");
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
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("", "code 0\n"));
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

/// Symptom: with one table for all, a gateway that says every second how it is pushes out of the
/// store when it was claimed. Statuses and the rest have a measure each, and both have an end.
#[test]
fn statuses_do_not_push_out_what_happened_to_offices() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    let mut rival = sandbox.unemployed();
    assert_eq!(ask(&mut rival, "claim default"), "held");
    assert_eq!(ask(&mut party, "lock"), "done");
    assert_eq!(ask(&mut party, "unlock"), "done");
    let count = |what: &str| {
        let query = format!("SELECT count(*) AS n FROM events WHERE {what}");
        let (code, answer) = sandbox.json(["sql", &query]);
        assert_eq!(code, 0, "{answer:#}");
        answer[0]["n"].as_i64().unwrap()
    };
    let others = "event NOT IN ('status_changed', 'platform_changed', 'platform_removed')";
    let kept = count(others);
    let began = Instant::now();
    for thousand in 1..=13 {
        assert_eq!(ask(&mut party, "flood 1000"), "done");
        let statuses = count("event = 'platform_changed'");
        assert!(statuses <= 11_000, "{statuses} after {thousand} thousand");
    }
    eprintln!("13,000 events in {:?}", began.elapsed());
    let statuses = count("event = 'platform_changed'");
    assert!((9_000..=11_000).contains(&statuses), "{statuses} are kept");
    assert_eq!(count(others), kept, "the others are all there");
    let office = "event IN ('office_claimed', 'office_refused', 'lock_acquired', 'lock_ended')";
    assert_eq!(count(office), 4);
    // The newest are those that are kept.
    let oldest = "event = 'platform_changed' AND id <= (SELECT max(id) FROM events) - 11000";
    assert_eq!(count(oldest), 0);
    // A long history of other things has its own measure, and pushes out the oldest of its kind.
    drop((party, rival));
    let ended = sandbox.forge(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500)
         INSERT INTO events (at_ms, event, profile) SELECT 1, 'desired_changed', 'default' FROM n",
    );
    assert_eq!(ended, 10_500);
    let mut party = sandbox.party_of("default");
    assert_eq!(ask(&mut party, "flood 2000"), "done");
    let left = count(others);
    assert!((9_990..=11_000).contains(&left), "{left} others are kept");
    assert_eq!(count("event = 'office_refused'"), 0, "the oldest went");
    assert_eq!(count("event = 'office_claimed'"), 1, "the newest stays");
    let all = count("true");
    assert!(all <= 22_000, "{all} events");
}

/// What was deleted unread is said where it was: with other events before and behind it, because
/// those of offices are kept for longer. A reader that asks for the whole state at that point and
/// goes on from there would be wrong if it came with an event of before.
#[test]
fn events_lost_stands_where_the_lost_ones_were() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let start = store.events().unwrap().position();
    let mut party = sandbox.party_of("default");
    assert_eq!(ask(&mut party, "flood 700"), "done");
    sandbox.cli(["desired", "running"]).assert_code(0);
    assert_eq!(ask(&mut party, "flood 12300"), "done");
    let kept: Vec<i64> = {
        let query = "SELECT json_group_array(id ORDER BY id) AS ids FROM events";
        let (code, rows) = sandbox.json(["sql", query]);
        assert_eq!(code, 0, "{rows:#}");
        let ids: Vec<i64> = serde_json::from_str(rows[0]["ids"].as_str().unwrap()).unwrap();
        ids.into_iter().filter(|id| *id > start).collect()
    };
    let mut events = store.events().unwrap().after(start);
    let came = drain(&mut events);
    let lost: Vec<(i64, i64)> = came
        .iter()
        .filter(|event| event.event == "events_lost")
        .map(|event| (event.id, event.detail["count"].as_i64().unwrap()))
        .collect();
    let total: i64 = lost.iter().map(|(_, count)| count).sum();
    let span = kept.last().unwrap() - start;
    assert_eq!(total, span - i64::try_from(kept.len()).unwrap(), "{lost:?}");
    let read: Vec<i64> =
        came.iter().filter(|event| event.event != "events_lost").map(|event| event.id).collect();
    assert_eq!(read, kept, "what is kept is all read");
    // Walked through, every id is either handed out or counted as lost, where it belongs.
    let mut at = start;
    for event in &came {
        if event.event == "events_lost" {
            at += event.detail["count"].as_i64().unwrap();
        } else {
            at += 1;
            assert_eq!(event.id, at, "{} is not in its place; lost: {lost:?}", event.event);
        }
    }
    let rising = came.windows(2).find(|pair| pair[0].id >= pair[1].id);
    assert!(rising.is_none(), "ids do not rise: {rising:?}");
    // One that left off before or behind it, by its own position, goes on with the same.
    let mut events = store.events().unwrap().after(start);
    for pair in came.windows(2).take(3) {
        assert_eq!(take(&mut events).id, pair[0].id);
        let resumed = take(&mut store.events().unwrap().after(events.position()));
        let shown = (resumed.id, &resumed.event, &resumed.detail);
        assert_eq!(shown, (pair[1].id, &pair[1].event, &pair[1].detail));
    }
}

/// A copy of yesterday was restored into the store: its ids are drawn anew, from below where the
/// follower is. It must not wait until they have caught up, and what it knows is worth nothing.
#[test]
fn a_follower_of_a_store_that_went_back_in_time_goes_on() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    assert_eq!(ask(&mut party, "drizzle 30"), "done");
    drop(party);
    let mut follower = sandbox.follow_from_now(&[]);
    let newest = sandbox.newest();
    assert_eq!(
        sandbox.forge("DELETE FROM events WHERE id > 10"),
        usize::try_from(newest - 10).unwrap()
    );
    assert_eq!(sandbox.forge("UPDATE sqlite_sequence SET seq = 10 WHERE name = 'events'"), 1);
    let lost = next(&mut follower);
    assert_eq!((&lost["event"], &lost["detail"]), (&json!("events_lost"), &json!({"count": null})));
    sandbox.cli(["desired", "running"]).assert_code(0);
    let event = next(&mut follower);
    assert_eq!((&event["id"], &event["event"]), (&json!(11), &json!("desired_changed")));
}

/// The restored copy has come further than the reader meanwhile: by its ids alone nobody could tell, but
/// the event that the reader read last is another one there.
#[test]
fn a_restored_store_that_has_overtaken_its_reader_is_noticed() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let desire = |word: &str| sandbox.cli(["desired", word]).assert_code(0);
    for word in ["running", "stopped", "running"] {
        desire(word);
    }
    let mut events = store.events().unwrap();
    let read_last = events.position();
    sandbox.forge(&format!("DELETE FROM events WHERE id >= {read_last}"));
    sandbox.forge(&format!(
        "UPDATE sqlite_sequence SET seq = {} WHERE name = 'events'",
        read_last - 1
    ));
    for word in ["stopped", "running", "stopped"] {
        desire(word);
    }
    let told: Vec<_> = std::iter::from_fn(|| events.next_event(Wait::No).unwrap()).collect();
    let told: Vec<_> = told.iter().map(|event| (event.event.as_str(), event.id)).collect();
    let after = |more| ("desired_changed", read_last + more);
    assert_eq!(told, [("events_lost", read_last), after(1), after(2)]);
}

/// A reader that changes its mind about whom it follows gets nothing of the others from then on, also
/// of what was read already.
#[test]
fn a_stream_is_narrowed_from_that_moment_on() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    for profile in ["a", "b", "a", "b"] {
        let claim = store.profile(profile).unwrap().claim().unwrap();
        let Claim::Granted(tenure) = claim else { panic!("nobody else is here") };
        tenure.release().unwrap();
    }
    let mut events = store.events().unwrap().after(0);
    assert_eq!(events.next_event(Wait::No).unwrap().unwrap().event, "store_migrated");
    let mut events = events.of_profile(ProfileName::new("b").unwrap());
    let newest = store.recent_events(None, 1).unwrap()[0].id;
    let mut told = Vec::new();
    while let Some(event) = events.next_event(Wait::No).unwrap() {
        told.push(event.profile.unwrap());
    }
    assert_eq!(told, ["b", "b", "b", "b"]);
    assert_eq!(events.position(), newest);
}
