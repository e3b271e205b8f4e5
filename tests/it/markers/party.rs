//! The gateways and consumers that the tests order about: one order a line, one answer a line.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use incumbent::clock::ManualClock;
use incumbent::marker::{Marker, MarkerName};
use incumbent::stop::{StopAnswer, StopCause, StopInquiry};
use incumbent::{Claim, ErrorKind, OpenOptions, Store, Tenure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Process, Sandbox, ask_json, forked, obey_orders, order, role, role_db, test_name, told_json,
    wait_stopped, writer,
};

pub const ROLE_TEST: &str = test_name!(role_of_a_party);

/// An answer to "why am I being stopped?" takes 250 ms at most, and some for the scheduler.
pub const ANSWER_WITHIN_MS: u64 = 1_000;

/// Who could not write for so long takes what it saw for true: better twice than not at all.
pub const RECORDED_WITHIN: Duration = Duration::from_millis(250);

/// Plays a gateway, or one of many consumers: one order a line, one answer a line.
#[test]
fn role_of_a_party() {
    match role().as_deref() {
        Some("gateway") => {
            let mut gateway = Gateway::new();
            // An order that comes earlier may be lost, with what was read before an exec.
            eprintln!("=> \"ready\"");
            obey_orders(|order| gateway.obey(order));
        }
        Some("consumer") => consume_behind_gates(),
        _ => {}
    }
}

struct Gateway {
    store: Store,
    tenure: Option<Tenure>,
    inquiry: Option<StopInquiry>,
    contending: Option<JoinHandle<Value>>,
}

fn error(error: &incumbent::Error) -> Value {
    json!({"error": error.kind().as_str()})
}

fn found(marker: Option<&Marker>) -> Value {
    json!({"name": marker.map(|marker| marker.name.as_str()), "id": marker.map(|marker| marker.id)})
}

/// What a gateway is told, and how long it took to be told.
fn stop_told(inquiry: &StopInquiry) -> Value {
    let asked = Instant::now();
    let StopAnswer { cause, recorded, .. } = inquiry.ask();
    let ms = u64::try_from(asked.elapsed().as_millis()).unwrap();
    let (cause, marker) = match &cause {
        StopCause::TakenOver(marker) => ("taken_over", Some(marker)),
        StopCause::PlannedStop(marker) => ("planned_stop", Some(marker)),
        StopCause::Unplanned => ("unplanned", None),
        StopCause::Unknown(error) => (error.kind().as_str(), None),
        _ => ("a cause that is new", None),
    };
    json!({
        "cause": cause,
        "recorded": recorded,
        "ms": ms,
        "id": marker.map(|marker| marker.id),
        "by": marker.map(|marker| &marker.by),
        "by_pid": marker.map(|marker| marker.by_pid),
        "reason": marker.map(|marker| &marker.reason),
    })
}

fn name_of(word: &str) -> Option<MarkerName> {
    (word != "-").then(|| MarkerName::new(word).unwrap())
}

impl Gateway {
    fn new() -> Self {
        let store = Store::open(role_db()).unwrap();
        Self { store, tenure: None, inquiry: None, contending: None }
    }

    fn tenure(&self) -> &Tenure {
        self.tenure.as_ref().expect("claim first")
    }

    fn inquiry(&self) -> &StopInquiry {
        self.inquiry.as_ref().expect("claim first")
    }

    fn obey(&mut self, order: &str) -> Value {
        let words: Vec<&str> = order.split(' ').collect();
        match words.as_slice() {
            ["claim"] => match self.store.profile("default").unwrap().claim().unwrap() {
                Claim::Granted(tenure) => {
                    let instance = tenure.instance().as_i64();
                    self.inquiry = Some(tenure.stop_inquiry());
                    self.tenure = Some(tenure);
                    json!(instance)
                }
                Claim::Held(holder) => panic!("{holder}"),
            },
            ["release"] => json!(format!("{:?}", self.tenure.take().unwrap().release().unwrap())),
            ["ask"] => stop_told(self.inquiry()),
            ["peek", name] => match self.tenure().peek_marker(name_of(name).as_ref()) {
                Ok(marker) => found(marker.as_ref()),
                Err(failure) => error(&failure),
            },
            ["consume", name] => self.consume(name),
            ["catch"] => {
                let mut signals = signal_hook::iterator::Signals::new([libc::SIGTERM]).unwrap();
                let inquiry = self.inquiry().clone();
                std::thread::spawn(move || {
                    for _ in signals.forever() {
                        eprintln!("=> {}", stop_told(&inquiry));
                    }
                });
                json!("catching")
            }
            ["contend"] => {
                let profile = self.store.profile("other").unwrap();
                let contend = move || match profile.claim() {
                    Ok(Claim::Granted(_)) => json!("granted"),
                    Ok(Claim::Held(_)) => json!("held"),
                    Err(failure) => error(&failure),
                };
                self.contending = Some(std::thread::spawn(contend));
                json!("contending")
            }
            ["still"] => json!(!self.contending.as_ref().unwrap().is_finished()),
            ["contended"] => self.contending.take().unwrap().join().unwrap(),
            ["fork"] => self.fork(),
            ["execute"] => {
                let mut arguments = std::env::args_os();
                let program = arguments.next().unwrap();
                panic!("{}", Command::new(program).args(arguments).exec());
            }
            _ => panic!("{order}"),
        }
    }

    fn consume(&self, name: &str) -> Value {
        let asked = Instant::now();
        match self.tenure().consume_marker(name_of(name).as_ref()) {
            Ok(consumed) => {
                let mut told = found(consumed.as_ref().map(|consumed| &consumed.marker));
                told["recorded"] = json!(consumed.map(|consumed| consumed.recorded));
                told["ms"] = u64::try_from(asked.elapsed().as_millis()).unwrap().into();
                told
            }
            Err(failure) => error(&failure),
        }
    }

    /// Asks in a forked child, which says what it was told in its exit code: 0 for all of it.
    fn fork(&self) -> Value {
        let child = forked::fork();
        if child != 0 {
            return json!(forked::exit_code(child));
        }
        forked::alarm(10);
        let is_forked = |error: &incumbent::Error| error.kind() == ErrorKind::Forked;
        let answers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let answer = self.inquiry().ask();
            let again = self.tenure().stop_inquiry().ask();
            [
                matches!(&answer.cause, StopCause::Unknown(error) if is_forked(error)),
                matches!(&again.cause, StopCause::Unknown(error) if is_forked(error)),
                !answer.recorded && !again.recorded,
                self.tenure().peek_marker(None).is_err_and(|error| is_forked(&error)),
                self.tenure().consume_marker(None).is_err_and(|error| is_forked(&error)),
                self.store.peek_marker(1, None).is_err_and(|error| is_forked(&error)),
            ]
        }));
        let wrong = answers.map_or(100, |answers| answers.iter().filter(|is| !**is).count());
        forked::leave_with(i32::try_from(wrong).unwrap());
    }
}

/// `PID GATE`: waits at the gate, and then consumes what is open for that process.
fn consume_behind_gates() {
    let store = Store::open_existing(role_db()).unwrap().unwrap();
    while let Some(order) = order() {
        let (pid, gate) = order.split_once(' ').unwrap();
        let pid = pid.parse().unwrap();
        let mut gate = File::open(gate).unwrap();
        eprintln!("=> \"here\"");
        assert_eq!(gate.read(&mut [0]).unwrap(), 0);
        let asked = Instant::now();
        let consumed = store.consume_marker(pid, None);
        let took = asked.elapsed();
        match consumed {
            Ok(None) => eprintln!("=> null"),
            Ok(Some(consumed)) => {
                let is_late = took >= RECORDED_WITHIN;
                eprintln!("=> [{},{},{is_late}]", consumed.marker.id, consumed.recorded);
            }
            Err(error) => eprintln!("=> {:?}", error.to_string()),
        }
    }
}

/// Holds processes back: whoever reads from it goes on when it is opened, all in one instant.
pub struct Gate(File);

impl Gate {
    pub fn new(path: &Path) -> Self {
        let made = Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
        // Both ends: opening one alone would wait for the other.
        Self(File::options().read(true).write(true).open(path).unwrap())
    }

    /// Every reader sees the end at once.
    pub fn open(self) {
        drop(self.0);
    }
}

impl Sandbox {
    /// A gateway that links the library and holds the default office.
    #[track_caller]
    pub fn marked_gateway(&self) -> Process {
        let mut gateway = self.unclaimed_gateway();
        assert!(ask_json(&mut gateway, "claim").is_i64());
        gateway
    }

    /// One that holds nothing yet.
    #[track_caller]
    pub fn unclaimed_gateway(&self) -> Process {
        let mut gateway = self.role(ROLE_TEST, "gateway");
        assert_eq!(told_json(&mut gateway), "ready");
        gateway
    }

    /// A process that is on record nowhere, and lives until its standard input is closed.
    #[track_caller]
    pub fn stranger(&self) -> Process {
        let mut process = Process::start(self.shell("echo $$; exec cat"));
        process.line();
        process
    }

    /// A store, and nobody on record as alive in it.
    pub fn make_it(&self) {
        self.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }

    /// `marker VERB... --pid PID`, as JSON.
    #[track_caller]
    pub fn marker(&self, pid: u32, words: &[&str]) -> (i32, Value) {
        let pid = pid.to_string();
        self.json([&["marker"], words, &["--pid", &pid]].concat())
    }

    /// Leaves a marker; returns its document.
    #[track_caller]
    pub fn leave(&self, pid: u32, words: &[&str]) -> Value {
        let (code, document) = self.marker(pid, &[&["write"], words].concat());
        assert_eq!(code, 0, "{words:?}: {document:#}");
        document
    }

    /// What is open for a process, by name.
    #[track_caller]
    pub fn peek(&self, pid: u32) -> Option<String> {
        let (code, document) = self.marker(pid, &["peek"]);
        assert_eq!(document["found"], code == 0, "{document:#}");
        assert!(matches!(code, 0 | 1), "{document:#}");
        document["name"].as_str().map(str::to_owned)
    }

    /// All rows of `markers`, the oldest first.
    #[track_caller]
    pub fn marker_rows(&self) -> Vec<Value> {
        self.rows("SELECT * FROM markers ORDER BY id")
    }

    #[track_caller]
    pub fn rows(&self, query: &str) -> Vec<Value> {
        let (code, rows) = self.json(["sql", query]);
        assert_eq!(code, 0, "{query}: {rows:#}");
        rows.as_array().unwrap().clone()
    }

    /// How the marker of that id was closed; `None` while it is open.
    #[track_caller]
    pub fn closed_how(&self, marker: &Value) -> Option<String> {
        let id = marker["id"].as_i64().unwrap();
        let row = self.rows(&format!("SELECT closed_how FROM markers WHERE id = {id}"));
        assert_eq!(row.len(), 1, "marker {id} is not on record any more");
        row[0]["closed_how"].as_str().map(str::to_owned)
    }

    /// A process that has the store's write lock, and is stopped.
    pub fn stopped_writer(&self) -> Process {
        let writer = writer(self);
        writer.signal(Signal::STOP);
        wait_stopped(writer.pid());
        writer
    }

    /// A store of this process, which sees time pass as it is told.
    pub fn with_clock(&self, wall_ms: i64, boot_ms: i64) -> (Store, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(wall_ms, boot_ms));
        let store =
            OpenOptions::new().path(self.db()).clock(Arc::clone(&clock) as _).open().unwrap();
        (store, clock)
    }
}
