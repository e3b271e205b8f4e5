//! What is kept, what is lost, and how that is told.

use std::time::Instant;

use incumbent::{Claim, ProfileName, Store, Wait};
use serde_json::json;

use super::{drain, next, take};
use crate::support::{Sandbox, ask};

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

/// As in a copy of before these events came; returns how many there were.
fn restore(sandbox: &Sandbox, which: &str) -> usize {
    const KEEPS_IDS: &str = "SELECT sql FROM sqlite_schema WHERE name = 'newest_event_stays'";
    let (_, trigger) = sandbox.json(["sql", KEEPS_IDS]);
    sandbox.forge("DROP TRIGGER newest_event_stays");
    let deleted = sandbox.forge(&format!("DELETE FROM events WHERE {which}"));
    sandbox.forge(trigger[0]["sql"].as_str().unwrap());
    deleted
}

/// A person who deletes the newest events leaves one that says so, and their ids do not come again:
/// whoever reads from there on misses nothing.
#[test]
fn the_ids_of_events_that_were_deleted_by_hand_do_not_come_again() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let desire = |word: &str| sandbox.cli(["desired", word]).assert_code(0);
    desire("running");
    desire("stopped");
    let read_last = store.events().unwrap().position();
    for which in ["id = (SELECT max(id) FROM events)", "id > 0"] {
        sandbox.forge(&format!("DELETE FROM events WHERE {which}"));
    }
    desire("running");
    let mut events = store.events().unwrap().after(read_last);
    let told: Vec<_> = std::iter::from_fn(|| events.next_event(Wait::No).unwrap()).collect();
    let told: Vec<_> = told.iter().map(|event| event.event.as_str()).collect();
    let (last, before) = told.split_last().unwrap();
    assert_eq!(*last, "desired_changed");
    assert!(!before.is_empty() && before.iter().all(|it| *it == "events_lost"), "{told:?}");
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
    assert_eq!(restore(&sandbox, "id > 10"), usize::try_from(newest - 10).unwrap());
    let lost = next(&mut follower);
    assert_eq!((&lost["event"], &lost["detail"]), (&json!("events_lost"), &json!({"count": null})));
    sandbox.cli(["desired", "running"]).assert_code(0);
    let event = next(&mut follower);
    assert_eq!((&event["id"], &event["event"]), (&json!(11), &json!("desired_changed")));
}

/// The restored copy has come further than the reader meanwhile: by its ids alone nobody could
/// tell, but the event that the reader read last is another one there.
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
    restore(&sandbox, &format!("id >= {read_last}"));
    for word in ["stopped", "running", "stopped"] {
        desire(word);
    }
    let told: Vec<_> = std::iter::from_fn(|| events.next_event(Wait::No).unwrap()).collect();
    let told: Vec<_> = told.iter().map(|event| (event.event.as_str(), event.id)).collect();
    let after = |more| ("desired_changed", read_last + more);
    assert_eq!(told, [("events_lost", read_last), after(1), after(2)]);
}

/// A reader that changes its mind about whom it follows gets nothing of the others from then on,
/// also of what was read already.
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
