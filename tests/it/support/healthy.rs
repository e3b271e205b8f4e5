//! Whether `doctor` is content with what a test leaves: with `INCUMBENT_TEST_DOCTOR` in the
//! environment it looks at the store of each sandbox, once the test is over and its processes have
//! ended. Whatever they were killed by, nothing is wrong with such a store.

use serde_json::Value;

use super::{LIMIT, Process, Sandbox};

/// Set: doctor is asked.
const ASKS: &str = "INCUMBENT_TEST_DOCTOR";

/// The tests that make no sick store on purpose, by how their names begin.
const HEALTHY: &[&str] = &[
    "claims::",
    "endings::",
    "events::",
    "handover::",
    "keepers::",
    "locks::",
    "markers::",
    "processes::",
    "run::",
    "status::",
    "stop::",
    "supervisors::",
    "verbs::",
];

/// Those among them that have hundreds of rounds, or damage something.
const NOT_HEALTHY: &[&str] = &[
    "claims::contention::",
    "endings::damage::",
    "keepers::lost_store::",
    "locks::contention::",
    "markers::contention::",
    "markers::damage::",
    "status::contention::",
];

/// What every test is guilty of that kills in rounds: it has no two minutes to wait.
const OF_HASTE: &[&str] = &["storms"];

impl Sandbox {
    /// Says that this test makes a store with which `doctor` is not content, and why it does.
    pub fn sick(&self, why: &'static str) {
        // Saying so twice says no more.
        let _ = self.sick.set(why);
    }

    /// Asserts that `doctor` is content, if that is asked for and was not taken back.
    pub(super) fn assert_healthy(&self) {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        let begins = |all: &[&str]| all.iter().any(|name| test.starts_with(name));
        let is_looked_at = std::env::var_os(ASKS).is_some()
            && begins(HEALTHY)
            && !begins(NOT_HEALTHY)
            && !std::thread::panicking()
            && self.sick.get().is_none();
        if !is_looked_at || !self.db().is_file() {
            return;
        }
        let mut doctor = self.incumbent(["--json", "doctor"]);
        doctor.arg("--db").arg(self.db());
        let answer = Process::start(doctor).finish(LIMIT);
        if answer.code() != 1 {
            return;
        }
        let told = answer.json();
        let needs_act = |it: &&Value| {
            ["error", "warning"].contains(&it["severity"].as_str().unwrap_or_default())
                && !OF_HASTE.contains(&it["id"].as_str().unwrap_or_default())
        };
        let found: Vec<&Value> = told.as_array().unwrap().iter().filter(needs_act).collect();
        assert!(found.is_empty(), "doctor is not content with the store of {test}: {found:#?}");
    }
}
