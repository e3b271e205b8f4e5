//! Does what happens in a store reach whoever follows it: once, in order, and at once? Following
//! costs those who write nothing.

mod cli;
mod kept;
mod library;
mod party;

use std::time::Duration;

use incumbent::Wait;
use incumbent::status::{Event, EventStream};
use serde_json::Value;

use crate::support::{LIMIT, Process, without_format};

/// Where an idle follower is to have an event: it looks 20 times a second. The median of some, so
/// that a busy machine may be late now and then.
const IDLE_LATENCY: Duration = Duration::from_millis(100);

/// The next line of a follower that prints JSON Lines.
#[track_caller]
fn next(follower: &mut Process) -> Value {
    let line = follower.line();
    let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
        panic!("not one JSON document in a line: {error}: {line:?}");
    });
    assert!(event["id"].is_i64() && event["at"].is_string(), "{event}");
    assert_eq!(event["format"], 1, "{event}");
    without_format(event)
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
