//! The operations of the library that are measured, each with what it is compared with.

use std::path::Path;
use std::time::Duration;

use incumbent::marker::{MarkerName, MarkerRequest};
use incumbent::status::PlatformUpdate;
use incumbent::{
    Acquire, Claim, ClaimOptions, Kind, LockRequest, ScopedLock, Standing, StatusUpdate, Store,
    Tenure, Wait,
};

use super::by_hand::{self, Hand, word_of};
use super::measure::Once;
use super::roles::Role;

/// Prepares an operation in a store, or in a directory.
pub type Make = fn(&Path) -> Once;

/// One operation in a store of its own, or in one with many others.
pub struct Operation {
    pub name: &'static str,
    /// Holds what it needs until it is dropped.
    pub ours: Make,
    pub yardstick: Option<fn(Hand) -> Once>,
    pub floor: Option<fn(Hand) -> Once>,
    /// What the Python script of the file scheme calls it.
    pub file_scheme: Option<&'static str>,
    /// Whether Python's filelock does it as well.
    pub filelock: bool,
    /// What reading files does in its place, in this process.
    pub files: Vec<(&'static str, Make)>,
    pub bounds: &'static [Bound],
    /// Whether it is looked at beside 500 live processes and in a big store; there it may take 1.3
    /// times as long.
    pub must_not_grow: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    Yardstick(f64),
    FileScheme(f64),
    File(f64),
    /// Microseconds.
    Us(f64),
}

impl Operation {
    fn new(name: &'static str, ours: Make) -> Self {
        Self {
            name,
            ours,
            yardstick: None,
            floor: None,
            file_scheme: None,
            filelock: false,
            files: Vec::new(),
            bounds: &[],
            must_not_grow: true,
        }
    }

    fn by_hand(self, both: fn(Hand) -> Once) -> Self {
        Self { yardstick: Some(both), floor: Some(both), ..self }
    }

    fn floor(self, floor: fn(Hand) -> Once) -> Self {
        Self { floor: Some(floor), ..self }
    }

    fn file_scheme(self, word: &'static str) -> Self {
        Self { file_scheme: Some(word), ..self }
    }

    fn filelock(self) -> Self {
        Self { filelock: true, ..self }
    }

    fn file(mut self, name: &'static str, read: Make) -> Self {
        self.files.push((name, read));
        self
    }

    fn bounds(self, bounds: &'static [Bound]) -> Self {
        Self { bounds, ..self }
    }

    fn may_grow(self) -> Self {
        Self { must_not_grow: false, ..self }
    }
}

/// In the order of the table.
pub fn operations() -> Vec<Operation> {
    use Bound::{File, FileScheme, Us, Yardstick};
    let lock = |name, ours: Make| Operation::new(name, ours).file_scheme("lock").filelock();
    vec![
        Operation::new("verify a tenure", verify)
            .by_hand(by_hand::verify)
            .floor(by_hand::verify_floor)
            .bounds(&[Yardstick(0.5)]),
        Operation::new("find the running instance", find_running)
            .by_hand(by_hand::find_running)
            .floor(by_hand::find_running_floor)
            .file_scheme("running")
            .bounds(&[Yardstick(0.2)]),
        Operation::new("claim + release", claim_and_release)
            .by_hand(by_hand::claim_and_release)
            .file_scheme("claim")
            .bounds(&[Yardstick(0.7)]),
        Operation::new("refused claim", refused_claim).bounds(&[Us(20.0)]),
        lock("acquire + release a lock, holding nothing", lock_alone)
            .by_hand(by_hand::lock_alone)
            .bounds(&[FileScheme(1.0)]),
        lock("acquire + release a lock, holding an office", lock_beside_office)
            .by_hand(by_hand::lock_beside_office)
            .bounds(&[FileScheme(1.0)]),
        lock("acquire + release a lock, holding another", lock_beside_lock)
            .by_hand(by_hand::lock_beside_lock)
            .bounds(&[Yardstick(0.5), FileScheme(1.0)]),
        Operation::new("refused acquire", refused_acquire)
            .by_hand(by_hand::refused_lock)
            .file_scheme("refused")
            .bounds(&[Us(20.0)]),
        Operation::new("verify a lock", verify_lock).by_hand(by_hand::verify_lock),
        Operation::new("renew a lock", renew_lock).by_hand(by_hand::renew_lock),
        Operation::new("update a status, one field", update_one).by_hand(by_hand::update_one),
        Operation::new("update a status and a platform", update_status)
            .by_hand(by_hand::update_status)
            .file_scheme("write_status")
            .bounds(&[Yardstick(0.9)]),
        Operation::new("heartbeat", heartbeat).by_hand(by_hand::heartbeat),
        Operation::new("read what a gateway said, nothing new", read_status)
            .file("JSON file", read_json_of_status)
            .file_scheme("read_status")
            .bounds(&[File(1.0)]),
        Operation::new("look for a marker, none", peek_none)
            .file("JSON file", read_json_of_marker)
            .file("no file", look_for_no_file)
            .bounds(&[File(1.0)]),
        Operation::new("look for a marker, one is there", peek_one)
            .file("JSON file", read_json_of_marker)
            .file_scheme("peek_marker")
            .bounds(&[File(1.0)]),
        Operation::new("write + consume a marker", write_and_consume)
            .by_hand(by_hand::marker)
            .file_scheme("marker")
            .bounds(&[Yardstick(0.9)]),
        Operation::new("poll events, none new", poll_events).by_hand(by_hand::poll_events),
        Operation::new("status() of an office", status),
        Operation::new("status() of 20 offices", status_of_many).may_grow(),
        Operation::new("open a store, and close it", open).by_hand(by_hand::open),
    ]
}

pub fn store(path: &Path) -> Store {
    Store::open(path).expect("a store")
}

fn claim(store: &Store) -> Tenure {
    claim_as(store, "default")
}

pub fn claim_as(store: &Store, profile: &str) -> Tenure {
    match store.profile(profile).expect("a profile").claim() {
        Ok(Claim::Granted(tenure)) => tenure,
        refused => panic!("{refused:?}"),
    }
}

fn verify(path: &Path) -> Once {
    let tenure = claim(&store(path));
    Box::new(move || assert_eq!(tenure.verify().expect("an answer"), Standing::Held))
}

fn find_running(path: &Path) -> Once {
    let store = store(path);
    let tenure = claim(&store);
    let profile = store.profile("default").expect("a profile");
    let kind = Kind::default();
    Box::new(move || {
        assert!(profile.running_pid(&kind).expect("an answer").is_some());
        let _ = &tenure;
    })
}

fn claim_and_release(path: &Path) -> Once {
    let profile = store(path).profile("default").expect("a profile");
    // A gateway holds something all the time, and with it the anchor of its process.
    let other = ClaimOptions::new().kind("other".parse().expect("a kind"));
    let held = profile.claim_with(&other).expect("an answer");
    Box::new(move || {
        let Ok(Claim::Granted(tenure)) = profile.claim() else { panic!("refused") };
        tenure.release().expect("released");
        let _ = &held;
    })
}

fn refused_claim(path: &Path) -> Once {
    let profile = store(path).profile("default").expect("a profile");
    let holder = Role::holding("office", path);
    Box::new(move || {
        assert!(matches!(profile.claim(), Ok(Claim::Held(_))));
        let _ = &holder;
    })
}

pub fn request(identity: &str) -> LockRequest {
    let request = LockRequest::new(SCOPE, identity).expect("a request");
    request.ttl(Duration::from_mins(1)).expect("a lease")
}

pub const SCOPE: &str = "bot-token";

pub fn acquire(store: &Store, identity: &str) -> ScopedLock {
    match store.try_acquire(&request(identity)).expect("an answer") {
        Acquire::Granted(lock) => lock,
        Acquire::Held(holder) => panic!("{holder}"),
    }
}

fn lock_alone(path: &Path) -> Once {
    let store = store(path);
    Box::new(move || drop(acquire(&store, "cycled").release().expect("released")))
}

fn lock_beside_office(path: &Path) -> Once {
    let store = store(path);
    let tenure = claim(&store);
    Box::new(move || {
        drop(acquire(&store, "cycled").release().expect("released"));
        let _ = &tenure;
    })
}

fn lock_beside_lock(path: &Path) -> Once {
    let store = store(path);
    let tenure = claim(&store);
    let another = acquire(&store, "another");
    Box::new(move || {
        drop(acquire(&store, "cycled").release().expect("released"));
        let _ = (&tenure, &another);
    })
}

fn refused_acquire(path: &Path) -> Once {
    let store = store(path);
    let holder = Role::holding("lock", path);
    let request = request(super::roles::IDENTITY);
    Box::new(move || {
        assert!(matches!(store.try_acquire(&request), Ok(Acquire::Held(_))));
        let _ = &holder;
    })
}

fn verify_lock(path: &Path) -> Once {
    let held = acquire(&store(path), "held");
    Box::new(move || assert_eq!(held.verify().expect("an answer"), Standing::Held))
}

fn renew_lock(path: &Path) -> Once {
    let held = acquire(&store(path), "held");
    Box::new(move || assert_eq!(held.renew().expect("an answer"), Standing::Held))
}

fn update_one(path: &Path) -> Once {
    let tenure = claim(&store(path));
    let mut agents = 0_u64;
    Box::new(move || {
        agents += 1;
        tenure.update_status(&StatusUpdate::new().active_agents(agents)).expect("written");
    })
}

fn update_status(path: &Path) -> Once {
    let tenure = claim(&store(path));
    let mut agents = 0_u64;
    Box::new(move || {
        agents += 1;
        let telegram = PlatformUpdate::new("telegram").state(word_of(agents));
        let update = StatusUpdate::new().active_agents(agents).platform(telegram);
        tenure.update_status(&update).expect("written");
    })
}

fn heartbeat(path: &Path) -> Once {
    let tenure = claim(&store(path));
    let update = StatusUpdate::new().heartbeat();
    Box::new(move || tenure.update_status(&update).expect("written"))
}

fn read_status(path: &Path) -> Once {
    let store = store(path);
    let tenure = claim(&store);
    let telegram = PlatformUpdate::new("telegram").state("connected");
    let said = StatusUpdate::new().state("running").active_agents(3_u64).platform(telegram);
    tenure.update_status(&said).expect("written");
    let profile = store.profile("default").expect("a profile");
    let kind = Kind::default();
    Box::new(move || {
        assert!(profile.runtime(&kind).expect("an answer").is_some());
        let _ = &tenure;
    })
}

fn json_file(directory: &Path, name: &str, text: &str) -> Once {
    let file = directory.join(name);
    std::fs::write(&file, text).expect("a file");
    Box::new(move || {
        let bytes = std::fs::read(&file).expect("a file");
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert!(value.is_object());
    })
}

fn read_json_of_status(directory: &Path) -> Once {
    json_file(
        directory,
        "gateway_state.json",
        r#"{"pid": 4711, "start_time": 123456, "state": "running", "exit_reason": null,
            "restart_requested": false, "active_agents": 3, "writer": "pid 4711 (gateway), uid 0",
            "updated_at_ms": 1795305600000, "platforms": {"telegram": {"state": "connected",
            "error_code": null, "error_message": null, "updated_at_ms": 1795305600000}}}"#,
    )
}

fn read_json_of_marker(directory: &Path) -> Once {
    json_file(
        directory,
        ".note.json",
        r#"{"name": "note", "target_pid": 4711, "target_start_time": 123456, "writer_pid": 4712,
            "written_at_ms": 1795305600000, "ttl_ms": 60000}"#,
    )
}

fn look_for_no_file(directory: &Path) -> Once {
    let file = directory.join(".nothing.json");
    Box::new(move || assert!(std::fs::read(&file).is_err()))
}

fn peek_none(path: &Path) -> Once {
    let tenure = claim(&store(path));
    Box::new(move || assert!(tenure.peek_marker(None).expect("an answer").is_none()))
}

fn note() -> MarkerName {
    MarkerName::new("note").expect("a name")
}

fn peek_one(path: &Path) -> Once {
    let store = store(path);
    let tenure = claim(&store);
    let marker = MarkerRequest::new(note()).ttl(Duration::from_hours(1)).expect("a time");
    store.write_marker(std::process::id(), &marker).expect("written");
    Box::new(move || assert!(tenure.peek_marker(None).expect("an answer").is_some()))
}

fn write_and_consume(path: &Path) -> Once {
    let store = store(path);
    let tenure = claim(&store);
    let name = note();
    let request = MarkerRequest::new(name.clone());
    Box::new(move || {
        store.write_marker(std::process::id(), &request).expect("written");
        let consumed = tenure.consume_marker(Some(&name)).expect("an answer");
        assert!(consumed.expect("a marker").recorded);
    })
}

fn poll_events(path: &Path) -> Once {
    let mut events = store(path).events().expect("events");
    Box::new(move || while events.next_event(Wait::No).expect("an answer").is_some() {})
}

fn status(path: &Path) -> Once {
    let store = store(path);
    let tenure = claim(&store);
    let profile = store.profile("default").expect("a profile");
    Box::new(move || {
        assert!(profile.status().expect("an answer").running);
        let _ = &tenure;
    })
}

fn status_of_many(path: &Path) -> Once {
    let store = store(path);
    let held: Vec<Tenure> = (0..20).map(|at| claim_as(&store, &format!("many{at}"))).collect();
    Box::new(move || {
        assert!(store.status_of_all().expect("an answer").len() >= held.len());
    })
}

fn open(path: &Path) -> Once {
    let path = path.to_owned();
    Box::new(move || drop(store(&path)))
}
