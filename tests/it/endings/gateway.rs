//! The gateway that the tests order about: one order a line, one answer a line.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::time::{Duration, Instant};

use incumbent::exit::{ExitCodes, Supervisor};
use incumbent::forensics::ShutdownWatch;
use incumbent::lock::AcquireOptions;
use incumbent::{
    Acquire, Claim, ClaimOptions, Heartbeat, LockRequest, LossWatch, ScopedLock, StatusUpdate,
    Store, Tenure,
};

use crate::support::{LIMIT, Process, obey_orders, plays, role_db, test_name};

pub const ROLE_TEST: &str = test_name!(role_of_a_gateway);
pub const GATEWAY: &str = "gateway of endings";

/// What a panic is called in these tests.
pub const BOOM: &str = "the frobnicator is on fire";

/// Where its panics come from.
pub const FILE: &str = file!();

/// Plays a gateway: one order a line, one answer a line.
#[test]
fn role_of_a_gateway() {
    if plays(GATEWAY) {
        let mut gateway = Gateway::default();
        obey_orders(|order| gateway.obey(order));
    }
}

#[derive(Default)]
struct Gateway {
    signals: Option<ShutdownWatch>,
    watch: Option<LossWatch>,
    heart: Option<Heartbeat>,
    locks: Vec<ScopedLock>,
    /// Dropped by a panic of the orders' thread.
    tenure: Option<Tenure>,
    store: Option<Store>,
    blocker: Option<rusqlite::Connection>,
    memory: Vec<Vec<u8>>,
}

/// A panic that was raised by a thread of its own.
fn panic_in_a_thread(kind: &str) {
    let kind = kind.to_owned();
    let thread = std::thread::Builder::new().name("worker".to_owned());
    let thread = thread.spawn(move || panic_as(&kind)).unwrap();
    assert!(thread.join().is_err());
}

fn panic_as(kind: &str) {
    match kind {
        "text" => panic!("{BOOM}"),
        "lines" => panic!("one\ntwo\r\nthree \u{1b}[31mred\u{7}"),
        "long" => panic!("{}", "x\u{e9}".repeat(50 * 1024)),
        "secret" => panic!("cannot log in with --token=SECRETSECRET to the server"),
        "value" => panic_any(7),
        "empty" => panic!(),
        _ => unreachable!("{kind}"),
    }
}

impl Gateway {
    fn tenure(&self) -> &Tenure {
        self.tenure.as_ref().expect("claim first")
    }

    fn update(&self, update: &StatusUpdate) -> String {
        match self.tenure().update_status(update) {
            Ok(()) => "said".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    fn claim(&mut self, budget_ms: &str) -> String {
        let store = Store::open(role_db()).unwrap();
        let budget = Duration::from_millis(budget_ms.parse().unwrap());
        let options = ClaimOptions::new().stop_budget(budget);
        let claim = store.profile("default").unwrap().claim_with(&options).unwrap();
        let Claim::Granted(tenure) = claim else { return "held".to_owned() };
        self.tenure = Some(tenure);
        self.store = Some(store);
        "granted".to_owned()
    }

    /// Orders about what is called back.
    fn call_back(&mut self, words: &[&str]) -> String {
        match words {
            ["catch"] => {
                let codes = ExitCodes::of(Supervisor::None);
                let watch = self.tenure().on_shutdown(codes, |shutdown| {
                    let (name, cause) = (shutdown.snapshot.signal_num, shutdown.cause);
                    eprintln!("caught {}: {cause} {}", name.unwrap(), shutdown.exit_code);
                });
                self.signals = Some(watch.unwrap());
            }
            ["catch", "and", "panic"] => {
                let codes = ExitCodes::of(Supervisor::None);
                let watch = self.tenure().on_shutdown(codes, |_| panic!("{BOOM}"));
                self.signals = Some(watch.unwrap());
            }
            ["watch", "and", "panic"] => {
                let watch = self.tenure().watch(|_| panic!("{BOOM}"));
                self.watch = Some(watch.unwrap());
            }
            ["tell", hook @ ("aborts" | "speaks")] => {
                let aborts = *hook == "aborts";
                std::panic::set_hook(Box::new(move |info| {
                    let said = info.payload_as_str().unwrap_or("?");
                    eprintln!("the hook of before: {}", said.lines().next().unwrap_or(""));
                    if aborts {
                        std::process::abort();
                    }
                }));
            }
            _ => panic!("{words:?}"),
        }
        "done".to_owned()
    }

    fn obey(&mut self, order: &str) -> String {
        let words: Vec<&str> = order.split(' ').collect();
        let done = || "done".to_owned();
        match words.as_slice() {
            ["claim"] => self.claim("90000"),
            ["claim", budget_ms] => self.claim(budget_ms),
            ["lock", identity] => {
                let request = LockRequest::new("token", identity).unwrap();
                let options = AcquireOptions::new();
                let got = self.tenure().acquire_all(&[request], &options).unwrap();
                let Acquire::Granted(locks) = got else { return "held".to_owned() };
                self.locks = locks;
                done()
            }
            ["record"] => {
                self.tenure().record_panics();
                done()
            }
            ["catch" | "watch" | "tell", ..] => self.call_back(&words),
            ["panic"] => panic!("{BOOM}"),
            ["panic", kind] => {
                let began = Instant::now();
                panic_in_a_thread(kind);
                began.elapsed().as_millis().to_string()
            }
            ["catch-panic"] => {
                assert!(catch_unwind(AssertUnwindSafe(|| panic_as("text"))).is_err());
                done()
            }
            ["state", state] => self.update(&StatusUpdate::new().state((*state).to_owned())),
            ["beat"] => self.update(&StatusUpdate::new().heartbeat()),
            ["heart"] => {
                self.heart = Some(self.tenure().heartbeat(Duration::from_millis(20)).unwrap());
                done()
            }
            ["cause", signal] => {
                let codes = ExitCodes::of(Supervisor::None);
                let snapshot =
                    signal.parse().ok().map(|signal| self.tenure().snapshot(Some(signal)));
                let cause = self.tenure().cause(snapshot.as_ref(), &codes);
                format!("{cause} {}", codes.code(cause, 0, signal.parse().ok()))
            }
            ["snapshot", count] => {
                for _ in 0..count.parse().unwrap() {
                    let snapshot = self.tenure().snapshot(Some(15));
                    assert!(snapshot.recorded.is_ok(), "{:?}", snapshot.recorded);
                }
                done()
            }
            ["cycle", count] => {
                let store = Store::open(role_db()).unwrap();
                let profile = store.profile("default").unwrap();
                for _ in 0..count.parse().unwrap() {
                    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("held") };
                    drop(tenure.snapshot(Some(15)));
                    tenure.release().unwrap();
                }
                done()
            }
            ["release"] => format!("{:?}", self.tenure.take().unwrap().release().unwrap()),
            ["exit", code] => std::process::exit(code.parse().unwrap()),
            ["abort"] => std::process::abort(),
            ["eat"] => loop {
                self.memory.push(vec![7; 1 << 20]);
            },
            ["block"] => {
                let blocker = rusqlite::Connection::open(role_db()).unwrap();
                blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
                self.blocker = Some(blocker);
                done()
            }
            _ => panic!("{order}"),
        }
    }
}

/// Gives an order that is answered by the end of the process.
#[track_caller]
pub fn last_order(gateway: &mut Process, order: &str) -> std::process::ExitStatus {
    gateway.say(order);
    gateway.wait(LIMIT)
}
