//! The library and the command line answer alike: both do what `tests/conformance/operations.json`
//! says, and are held against the answers in it. Bindings do the same; the Python package does so
//! in its own tests.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "actors are real processes with an environment")]

#[path = "conformance/command_line.rs"]
mod command_line;
#[path = "conformance/library.rs"]
mod library;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

/// A process that does the steps of its name.
trait Actor {
    fn pid(&self) -> u32;
    /// The answer to a step. `target` is the pid of the actor that the step is about.
    fn ask(&mut self, step: &Map<String, Value>, target: Option<u32>) -> Value;
    /// Kills it, and returns when it is gone.
    fn die(&mut self);
}

/// Starts an actor that uses the store at this path.
type Start = fn(&Path) -> Box<dyn Actor>;

/// Compares the answers of one scenario with those that are expected.
struct Scenario<'a> {
    name: &'a str,
    db: tempfile::TempDir,
    start: Start,
    actors: BTreeMap<String, Box<dyn Actor>>,
    /// Of those that died, too.
    pids: BTreeMap<String, u32>,
    fences: Vec<i64>,
}

impl Scenario<'_> {
    fn actor(&mut self, name: &str) -> &mut Box<dyn Actor> {
        let path = self.db.path().join("state.db");
        let (start, pids) = (self.start, &mut self.pids);
        self.actors.entry(name.to_owned()).or_insert_with(|| {
            let actor = start(&path);
            pids.insert(name.to_owned(), actor.pid());
            actor
        })
    }

    fn step(&mut self, number: usize, step: &Map<String, Value>) {
        let name = step["actor"].as_str().unwrap();
        if step["do"] == "die" {
            self.actor(name).die();
            self.actors.remove(name);
            return;
        }
        let target = step.get("to").map(|to| self.actor(to.as_str().unwrap()).pid());
        let answer = self.actor(name).ask(step, target);
        let place = format!("{}, step {}: {}", self.name, number + 1, Value::from(step.clone()));
        for (field, expected) in step["expect"].as_object().unwrap() {
            let found = answer.get(field).unwrap_or(&Value::Null);
            assert!(
                self.fits(field, expected, found),
                "{place}\n`{field}` is {found}, not {expected}:\n{answer:#}"
            );
        }
    }

    fn fits(&mut self, field: &str, expected: &Value, found: &Value) -> bool {
        if field == "fence" {
            let fence = found.as_i64().unwrap();
            let is_right = match expected.as_str().unwrap() {
                "rises" => self.fences.iter().all(|before| fence > *before),
                "same" => self.fences.last() == Some(&fence),
                other => panic!("unknown: {other}"),
            };
            self.fences.push(fence);
            return is_right;
        }
        match expected {
            Value::String(text) if text.starts_with('@') => {
                found.as_u64() == self.pids.get(&text[1..]).map(|pid| u64::from(*pid))
            }
            Value::Array(wanted) => {
                let mut found = found.as_array().unwrap().iter();
                wanted.iter().all(|one| found.any(|other| other == one))
            }
            expected => expected == found,
        }
    }
}

/// Runs every scenario with actors of one kind.
fn run_all(start: Start) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/operations.json");
    let text = std::fs::read_to_string(path).unwrap();
    let operations: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(operations["format"], 1);
    let scenarios = operations["scenarios"].as_array().unwrap();
    assert!(scenarios.len() >= 9);
    for described in scenarios {
        let mut scenario = Scenario {
            name: described["name"].as_str().unwrap(),
            db: tempfile::tempdir().unwrap(),
            start,
            actors: BTreeMap::new(),
            pids: BTreeMap::new(),
            fences: Vec::new(),
        };
        for (number, step) in described["steps"].as_array().unwrap().iter().enumerate() {
            scenario.step(number, step.as_object().unwrap());
        }
        for actor in scenario.actors.values_mut() {
            actor.die();
        }
    }
}

#[test]
fn the_library() {
    run_all(library::start);
}

#[test]
fn the_command_line() {
    run_all(command_line::start);
}

/// The process of an actor that uses the library; a test of its own does nothing.
#[test]
fn actor() {
    if let Some(db) = std::env::var_os(library::ROLE) {
        library::serve(Path::new(&db));
    }
}
