//! The gateway and the forker that the tests order about: one order a line, one answer a line.

use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::status::{Field, PlatformUpdate};
use incumbent::{Acquire, Claim, ErrorKind, LockRequest, ProfileName, StatusUpdate, Store, Tenure};

use super::next;
use crate::events::library::replaced::follow_in_a_child;
use crate::support::{Process, Sandbox, ask, obey_orders, role, role_db, test_name, told};

pub const ROLE_TEST: &str = test_name!(role_of_a_party);

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
                return match self.store.profile(*profile).unwrap().claim().unwrap() {
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
    pub fn unemployed(&self) -> Process {
        let mut party = self.role(ROLE_TEST, "gateway");
        assert_eq!(told(&mut party), "ready");
        party
    }

    /// A party that holds the office of `profile`.
    pub fn party_of(&self, profile: &str) -> Process {
        let mut party = self.unemployed();
        assert_eq!(ask(&mut party, &format!("claim {profile}")), "granted");
        party
    }

    pub fn follow(&self, options: &[&str]) -> Process {
        Process::start(self.incumbent([&["events", "--follow"], options].concat()))
    }

    /// A follower that prints JSON, and has printed what there was: nothing is lost from then on.
    #[track_caller]
    pub fn follow_from_now(&self, options: &[&str]) -> Process {
        let newest = self.newest();
        let mut follower = self.follow(&[&["--json"], options].concat());
        while next(&mut follower)["id"] != newest {}
        follower
    }

    /// The id of the newest event, asked of another process: our own may have the store open.
    pub fn newest(&self) -> i64 {
        let (code, answer) = self.json(["sql", "SELECT max(id) AS id FROM events"]);
        assert_eq!(code, 0, "{answer:#}");
        answer[0]["id"].as_i64().unwrap()
    }

    pub fn wal_size(&self) -> u64 {
        std::fs::metadata(self.file("store/state.db-wal")).unwrap().len()
    }
}
