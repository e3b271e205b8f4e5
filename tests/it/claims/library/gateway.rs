//! The gateway that the tests order about: one order a line, one answer a line.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use incumbent::status::EventStream;
use incumbent::{
    Cancel, Claim, ClaimOptions, ClosedForFork, Heartbeat, LossWatch, Released, Standing, Store,
    Tenure, Wait,
};
use serde_json::json;

use crate::support::forked::{alarm, fork, leave, stay, wait_for};
use crate::support::{LIMIT, Process, Sandbox, ask, obey_orders, plays, role_db, test_name};

pub const ROLE_TEST: &str = test_name!(role_of_a_gateway);
pub const GATEWAY: &str = "gateway";

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
    stores: Vec<Store>,
    tenures: Vec<Tenure>,
    watch: Option<LossWatch>,
    waiting: Option<(Cancel, std::thread::JoinHandle<String>)>,
    events: Option<EventStream>,
    heart: Option<Heartbeat>,
    closed: Option<ClosedForFork>,
}

fn kind(error: &incumbent::Error) -> String {
    format!("Err({:?})", error.kind())
}

fn standing(tenure: &Tenure) -> String {
    match tenure.verify() {
        Ok(Standing::Held) => "Held".to_owned(),
        Ok(Standing::Lost(lost)) => format!("{lost:?}"),
        Err(error) => kind(&error),
    }
}

impl Gateway {
    fn obey(&mut self, order: &str) -> String {
        let words: Vec<&str> = order.split(' ').collect();
        match words.as_slice() {
            ["open"] => self.open(),
            ["claim", profile] => self.claim(profile),
            ["wait", profile, how] => self.wait(profile, how),
            ["cancel"] => self.waiting.as_ref().map_or_else(String::new, |(cancel, _)| {
                cancel.cancel();
                "cancelled".to_owned()
            }),
            ["waited"] => self.waiting.take().unwrap().1.join().unwrap(),
            ["verify"] => standing(self.tenures.last().unwrap()),
            ["status", profile] => match self.store().profile(*profile).unwrap().status() {
                Ok(report) => format!("{} {}", report.verdict, report.reason),
                Err(error) => kind(&error),
            },
            ["query"] => match self.store().query("SELECT 1") {
                Ok(_) => "answered".to_owned(),
                Err(error) => kind(&error),
            },
            ["because", profile] => {
                let report = self.store().profile(*profile).unwrap().status().unwrap();
                format!("{} {:?}", report.because(), report.flags.names())
            }
            ["release"] => match self.tenures.pop().unwrap().release() {
                Ok(Released::Pending(error)) => format!("Pending({:?})", error.kind()),
                Ok(released) => format!("{released:?}"),
                Err(error) => kind(&error),
            },
            ["pending"] => self.store().pending_releases().to_string(),
            ["watch"] => {
                let tell = |lost| eprintln!("the watch says: {lost:?}");
                self.watch = Some(self.tenures.last().unwrap().watch(tell).unwrap());
                "watching".to_owned()
            }
            ["close"] => {
                self.watch = None;
                self.tenures.clear();
                self.stores.clear();
                "closed".to_owned()
            }
            ["cycle", count] => {
                let profile = self.store().profile("default").unwrap();
                for _ in 0..count.parse().unwrap() {
                    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("held") };
                    tenure.release().unwrap();
                }
                "cycled".to_owned()
            }
            ["fork", orders @ ..] => self.fork(orders),
            ["events"] => {
                self.events = Some(self.store().events().unwrap());
                "listening".to_owned()
            }
            ["next"] => match self.events.as_mut().unwrap().next_event(Wait::UpTo(LIMIT)) {
                Ok(event) => event.map_or("nothing".to_owned(), |event| event.event),
                Err(error) => kind(&error),
            },
            ["busy"] => self.be_busy(),
            ["close-for-fork"] => match Store::close_for_fork() {
                Ok(closed) => {
                    self.closed = Some(closed);
                    "closed".to_owned()
                }
                Err(error) => kind(&error),
            },
            ["reopen"] => {
                self.closed = None;
                "reopened".to_owned()
            }
            _ => panic!("{order}"),
        }
    }

    fn store(&self) -> &Store {
        self.stores.last().expect("open first")
    }

    fn open(&mut self) -> String {
        match Store::open(role_db()) {
            Ok(store) => {
                self.stores.push(store);
                "opened".to_owned()
            }
            Err(error) => kind(&error),
        }
    }

    fn claim(&mut self, profile: &str) -> String {
        match self.store().profile(profile).unwrap().claim() {
            Ok(Claim::Granted(tenure)) => {
                let answer = format!("granted {} {}", tenure.instance(), tenure.reacquired());
                self.tenures.push(tenure);
                answer
            }
            Ok(Claim::Held(holder)) => format!("held {}", holder.reason),
            Err(error) => kind(&error),
        }
    }

    fn wait(&mut self, profile: &str, how: &str) -> String {
        let wait = match how {
            "forever" => Wait::Forever,
            ms => Wait::UpTo(Duration::from_millis(ms.parse().unwrap())),
        };
        let cancel = Cancel::new();
        let options = ClaimOptions::new().wait(wait).cancel(cancel.clone());
        let profile = self.store().profile(profile).unwrap();
        let thread = std::thread::spawn(move || match profile.claim_with(&options) {
            Ok(Claim::Granted(_)) => "granted".to_owned(),
            Ok(Claim::Held(holder)) => format!("held {}", holder.reason),
            Err(error) => kind(&error),
        });
        self.waiting = Some((cancel, thread));
        "waiting".to_owned()
    }

    /// From now on other threads are at work on the store all the time.
    fn be_busy(&mut self) -> String {
        let tenure = self.tenures.last().unwrap();
        let heart = tenure.heartbeat(Duration::from_millis(10)).unwrap();
        heart.beat();
        self.heart = Some(heart);
        for name in ["first", "second"] {
            let store = self.store().clone();
            std::thread::spawn(move || {
                let profile = store.profile(name).unwrap();
                loop {
                    match profile.claim() {
                        Ok(Claim::Granted(tenure)) => drop(tenure.release().unwrap()),
                        other => panic!("{other:?}"),
                    }
                }
            });
            let store = self.store().clone();
            // Readers that nest, and stores that come and go.
            std::thread::spawn(move || {
                loop {
                    store.status_of_all().map(drop).unwrap();
                    drop(Store::open(role_db()).unwrap());
                }
            });
        }
        "busy".to_owned()
    }

    /// Obeys `orders` (joined by `+`) in a forked child; `drop` lets go of what it inherited. The
    /// stores may be `closed` for it, by a value that the child never drops, if it is `leaked`.
    fn fork(&mut self, orders: &[&str]) -> String {
        let (how, orders) = match orders {
            [how @ ("closed" | "leaked"), orders @ ..] => (Some(*how), orders),
            orders => (None, orders),
        };
        let closed = how.map(|_| Store::close_for_fork().unwrap());
        let child = fork();
        if child == 0 && how == Some("leaked") {
            std::mem::forget(closed);
        } else {
            drop(closed);
        }
        if child == 0 {
            alarm(20);
            let answers = catch_unwind(AssertUnwindSafe(|| self.obey_in_child(orders)));
            eprintln!("child: {}", answers.unwrap_or_else(|_| "panicked".to_owned()));
            leave();
        }
        wait_for(child)
    }

    fn obey_in_child(&mut self, orders: &[&str]) -> String {
        let mut answers = Vec::new();
        for order in orders.join(" ").split('+') {
            answers.push(match order {
                "stay" => {
                    eprintln!("child: {}", answers.join(", "));
                    eprintln!("=> {}", std::process::id());
                    alarm(0);
                    stay()
                }
                "drop events" => {
                    self.events = None;
                    "dropped".to_owned()
                }
                "drop watch" => {
                    self.watch = None;
                    "dropped".to_owned()
                }
                "drop" => {
                    self.tenures.clear();
                    self.stores.clear();
                    "dropped".to_owned()
                }
                order => self.obey(order),
            });
        }
        answers.join(", ")
    }
}

impl Sandbox {
    pub fn gateway(&self) -> Process {
        let mut gateway = self.role(ROLE_TEST, GATEWAY);
        assert_eq!(ask(&mut gateway, "open"), "opened");
        gateway
    }

    /// A gateway that holds the default office.
    pub fn owner(&self) -> Process {
        let mut gateway = self.gateway();
        let answer = ask(&mut gateway, "claim default");
        assert!(answer.starts_with("granted "), "{answer}");
        gateway
    }

    #[track_caller]
    pub fn assert_held(&self, reason: &str) {
        let (code, answer) = self.json(["run", "--no-backoff", "--", "true"]);
        assert_eq!((code, &answer["holder"]["reason"]), (75, &json!(reason)), "{answer:#}");
    }

    #[track_caller]
    pub fn assert_free(&self) {
        self.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }

    pub fn remove_store(&self) {
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(self.sidecar(suffix)).unwrap();
        }
    }
}
