//! Every change arrives once and in order, and nothing else arrives.

use std::time::{Duration, SystemTime};

use incumbent::status::{Event, PlatformUpdate};
use incumbent::{Cancel, ErrorKind, ProfileName, StatusUpdate, Store, Wait};
use serde_json::{Value, json};

use crate::events::{IDLE_LATENCY, drain, names, take};
use crate::support::{LIMIT, Process, Sandbox, ask, assert_within, tenure_of};

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
        ("serves red blue", "done", &[]),
        ("serves blue red", "done", &["serves_changed"]),
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
