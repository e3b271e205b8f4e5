//! A follower that falls behind is told how much it missed.

use std::time::Instant;

use incumbent::StatusUpdate;
use incumbent::status::PlatformUpdate;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::numbers::platform_name;
use super::replica::tables;
use super::{ROLE_TEST, claim_patiently, open, patiently, tell};
use crate::support::{LIMIT, Process, Sandbox, ask_json, order, told_json, wait_stopped};

/// Writes as many status events as it is told to, as fast as it can.
pub fn flood() {
    let store = open();
    let tenure = claim_patiently(&store, "default");
    tell("\"ready\"");
    let mut round = 0;
    while let Some(order) = order() {
        let count: u64 = order.parse().unwrap();
        let mut left = count;
        while left > 0 {
            round += 1;
            let now = left.min(250);
            left -= now;
            let update = (0..now).fold(StatusUpdate::new(), |update, number| {
                let name = platform_name(number);
                update.platform(PlatformUpdate::new(name).state(format!("s{round}")))
            });
            patiently(|| tenure.update_status(&update));
        }
        tell(&count.to_string());
    }
}

/// A reader that was stopped for too long is told so, and how much it missed: it can ask for the
/// state again. What it must not do is go on as if nothing had been there.
#[test]
fn a_follower_that_was_stopped_for_too_long_is_told_how_much_it_missed() {
    let sandbox = Sandbox::new();
    let mut flood = sandbox.role(ROLE_TEST, "flood");
    assert_eq!(told_json(&mut flood), "ready");
    let mut follower = Process::start(sandbox.incumbent(["events", "--follow", "--json"]));
    let next = |follower: &mut Process| -> Value {
        let line = follower.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    assert_eq!(next(&mut follower)["event"], "store_migrated");
    assert_eq!(next(&mut follower)["event"], "office_claimed");
    ask_json(&mut flood, "1");
    let event = next(&mut follower);
    assert_eq!(event["event"], "platform_changed", "{event}");
    let last = event["id"].as_i64().unwrap();

    follower.signal(Signal::STOP);
    wait_stopped(follower.pid());
    let started = Instant::now();
    ask_json(&mut flood, "13000");
    eprintln!("13,000 events in {:?}", started.elapsed());
    assert!(started.elapsed() < LIMIT, "events made writing slow: {:?}", started.elapsed());
    let connection = tables(&sandbox);
    let mut query = connection.prepare("SELECT id FROM events WHERE id > ?1 ORDER BY id").unwrap();
    let kept: Vec<i64> =
        query.query_map([last], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let missed = kept[0] - last - 1;
    assert!(missed >= 2_000, "nothing was deleted: the oldest is {}", kept[0]);
    assert!(kept.len() <= 11_000, "{} events are kept", kept.len());

    follower.signal(Signal::CONT);
    let answer = next(&mut follower);
    assert_eq!(
        (&answer["event"], &answer["detail"]),
        (&json!("events_lost"), &json!({"count": missed}))
    );
    assert_eq!(answer["profile"], Value::Null);
    for id in &kept {
        let event = next(&mut follower);
        assert_eq!((&event["id"], &event["event"]), (&json!(id), &json!("platform_changed")));
    }
    // It goes on with what comes.
    ask_json(&mut flood, "2");
    for id in [kept.last().unwrap() + 1, kept.last().unwrap() + 2] {
        assert_eq!(next(&mut follower)["id"], id);
    }
    follower.signal(Signal::TERM);
    follower.finish_with_stdin_open(LIMIT).assert_code(0);
}
