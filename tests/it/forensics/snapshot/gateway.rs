//! A gateway that links the library: one order a line, one answer a line, and a report for each
//! signal.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use incumbent::exit::{ExitCodes, Supervisor};
use incumbent::stop::StopCause;
use incumbent::{Claim, ClaimOptions, Kind, StatusUpdate, Store, Tenure, forensics};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::left::{assert_log_line, assert_sorted};
use super::raw;
use crate::support::forked::{alarm, fork, leave, leave_with, stay, wait_for};
use crate::support::{LIMIT, Process, eventually, order, plays, role_db, test_name};

pub const ROLE_TEST: &str = test_name!(role_of_a_gateway);
pub const GATEWAY: &str = "gateway";

/// Obeys one order a line, answers with `=> ...`, and reports each signal with `!! JSON`.
#[test]
fn role_of_a_gateway() {
    if !plays(GATEWAY) {
        return;
    }
    let logged = Log::default();
    tracing::subscriber::set_global_default(logged.clone()).unwrap();
    let mut gateway = Gateway {
        store: Store::open(role_db()).unwrap(),
        tenures: BTreeMap::new(),
        watches: BTreeMap::new(),
        logged,
        raised: Arc::default(),
        child: None,
    };
    eprintln!("=> open");
    while let Some(order) = order() {
        if let Some(answer) = gateway.obey(&order) {
            eprintln!("=> {answer}");
        }
    }
}

struct Gateway {
    store: Store,
    tenures: BTreeMap<String, Tenure>,
    watches: BTreeMap<String, forensics::ShutdownWatch>,
    logged: Log,
    /// When this process sent itself a signal.
    raised: Arc<Mutex<Option<Instant>>>,
    child: Option<i32>,
}

/// Where the gateway's own signal handler finds it.
pub static FEED: OnceLock<forensics::ShutdownFeed> = OnceLock::new();

/// By the gateway's own handler.
fn handle_term() -> String {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGTERM, Arc::clone(&flag)).unwrap();
    std::thread::spawn(move || {
        let seen = || flag.load(Ordering::SeqCst).then_some(());
        eventually("the gateway's own handler is called", LIMIT, seen);
        eprintln!("?? handled");
    });
    "handling".to_owned()
}

impl Gateway {
    fn claim(&mut self, profile: &str, kind: &str) -> String {
        let options = ClaimOptions::new().kind(Kind::new(kind).unwrap());
        match self.store.profile(profile).unwrap().claim_with(&options).unwrap() {
            Claim::Granted(tenure) => {
                let answer = tenure.instance().to_string();
                self.tenures.insert(profile.to_owned(), tenure);
                answer
            }
            Claim::Held(holder) => format!("held: {}", holder.reason),
        }
    }

    #[allow(clippy::too_many_lines, reason = "an arm for each order")]
    fn obey(&mut self, order: &str) -> Option<String> {
        let words: Vec<&str> = order.split(' ').collect();
        Some(match words.as_slice() {
            ["claim", profile, kind] => self.claim(profile, kind),
            ["listen", profile, supervisor] => {
                let codes = ExitCodes::of(supervisor.parse::<Supervisor>().unwrap());
                let tell = self.teller(profile);
                let watch = self.tenures[*profile].on_shutdown(codes, tell).unwrap();
                self.watches.insert((*profile).to_owned(), watch);
                "listening".to_owned()
            }
            ["in-place", profile] => self.watches[*profile].is_in_place().to_string(),
            ["replace", signal] => {
                raw::catch(signal.parse().unwrap(), raw::nothing);
                "replaced".to_owned()
            }
            ["feed", profile, signal] => {
                let codes = ExitCodes::of(Supervisor::None);
                let feed = self.tenures[*profile].shutdown_feed(codes, self.teller(profile));
                FEED.set(feed.unwrap()).unwrap();
                raw::catch(signal.parse().unwrap(), raw::hand_on);
                "feeding".to_owned()
            }
            // As its handler would, of a signal that the kernel sent.
            ["hand-on-of-kernel", signal] => {
                let signal = forensics::HostSignal::new(signal.parse().unwrap());
                FEED.get().unwrap().feed(signal.siginfo(libc::SI_KERNEL, 0, 0));
                return None;
            }
            ["by-host", profile, signal] => {
                let codes = ExitCodes::of(Supervisor::None);
                let signal = forensics::HostSignal::new(signal.parse().unwrap());
                match self.tenures[*profile].shutdown_by(signal, &codes) {
                    Ok(shutdown) => {
                        self.teller(profile)(shutdown);
                        return None;
                    }
                    Err(error) => format!("{:?}: {error}", error.kind()),
                }
            }
            ["fork", profile] => {
                let child = fork();
                if child == 0 {
                    let watch = self.watches.get(*profile);
                    let in_place = watch.map(forensics::ShutdownWatch::is_in_place);
                    eprintln!("=> {} {in_place:?}", std::process::id());
                    stay();
                }
                self.child = Some(child);
                return None;
            }
            ["drop-in-child", profile] => {
                let child = fork();
                if child == 0 {
                    alarm(60);
                    let (go, may_go) = std::sync::mpsc::channel::<()>();
                    let own = std::thread::spawn(move || {
                        let _ = may_go.recv();
                    });
                    drop(self.watches.remove(*profile));
                    drop(go);
                    let joined = catch_unwind(AssertUnwindSafe(|| own.join().is_ok()));
                    leave_with(i32::from(!joined.unwrap_or(false)));
                }
                wait_for(child)
            }
            ["feed-in-child"] => {
                let child = fork();
                if child == 0 {
                    raw::raise(libc::SIGTERM);
                    leave();
                }
                wait_for(child)
            }
            ["waited"] => wait_for(self.child.take().unwrap()),
            ["listen-once", profile] => self.listen_once(profile),
            ["listen-without-descriptors", profile] => self.listen_without_descriptors(profile),
            ["record", profile] => {
                self.tenures[*profile].record_panics();
                "recording".to_owned()
            }
            ["panic"] => {
                let before = Instant::now();
                assert!(std::thread::spawn(|| panic!("worn out")).join().is_err());
                before.elapsed().as_micros().to_string()
            }
            ["look", profile] => self.look(profile),
            ["unlisten", profile] => {
                drop(self.watches.remove(*profile).unwrap());
                "unlistened".to_owned()
            }
            ["raise", signal] => {
                let signal = signal.parse().unwrap();
                *self.raised.lock().unwrap() = Some(Instant::now());
                raw::raise(signal);
                // The report answers.
                return None;
            }
            ["snapshot", profile] => {
                let before = Instant::now();
                let snapshot = self.tenures[*profile].snapshot(Some(15));
                let took_us = before.elapsed().as_micros();
                json!({"snapshot": json!(snapshot), "took_us": took_us}).to_string()
            }
            ["snapshot"] => {
                let before = Instant::now();
                let snapshot = forensics::snapshot(None);
                let took_us = before.elapsed().as_micros();
                json!({"snapshot": json!(snapshot), "took_us": took_us}).to_string()
            }
            ["change", profile] => {
                let update = StatusUpdate::new().state("draining");
                self.tenures[*profile].update_status(&update).map(drop).unwrap();
                "changed".to_owned()
            }
            ["handle", "TERM"] => handle_term(),
            ["release", profile] => {
                format!("{:?}", self.tenures.remove(*profile).unwrap().release().unwrap())
            }
            ["exit", code] => std::process::exit(code.parse().unwrap()),
            _ => panic!("{order}"),
        })
    }

    /// Reports a shutdown with `!! JSON`.
    fn teller(&self, profile: &str) -> impl FnMut(forensics::Shutdown) + Send + use<> {
        let (name, logged) = (profile.to_owned(), self.logged.clone());
        let raised = Arc::clone(&self.raised);
        move |shutdown: forensics::Shutdown| {
            let took = raised.lock().unwrap().map(|at| at.elapsed());
            let (stop, by) = match &shutdown.stop.cause {
                StopCause::TakenOver(marker) => ("taken_over", marker.by_pid),
                StopCause::PlannedStop(marker) => ("planned_stop", marker.by_pid),
                StopCause::Unplanned => ("unplanned", None),
                _ => ("unknown", None),
            };
            let report = json!({
                "profile": name,
                "snapshot": json!(shutdown.snapshot),
                "line": shutdown.snapshot.to_log_line(),
                "logged": logged.take(),
                "cause": shutdown.cause.as_str(),
                "exit_code": shutdown.exit_code,
                "may_mean_reload": shutdown.snapshot.may_mean_reload(),
                "stop": stop,
                "stop_by": by,
                "took_us": took.map(|took| took.as_micros()),
            });
            eprintln!("!! {report}");
        }
    }

    /// Listens for one signal.
    fn listen_once(&self, profile: &str) -> String {
        let own: Arc<Mutex<Option<forensics::ShutdownWatch>>> = Arc::default();
        let held = Arc::clone(&own);
        let tell = move |_| {
            drop(held.lock().unwrap().take());
            eprintln!("?? dropped");
        };
        let codes = ExitCodes::of(Supervisor::None);
        let mut own = own.lock().unwrap();
        *own = Some(self.tenures[profile].on_shutdown(codes, tell).unwrap());
        "listening".to_owned()
    }

    /// Tries to catch signals, as a process does that has all the files open that it may.
    fn listen_without_descriptors(&self, profile: &str) -> String {
        let limits = getrlimit(Resource::Nofile);
        let none = Rlimit { current: Some(0), maximum: limits.maximum };
        setrlimit(Resource::Nofile, none).unwrap();
        let codes = ExitCodes::of(Supervisor::None);
        let listening = self.tenures[profile].on_shutdown(codes, |_| ());
        setrlimit(Resource::Nofile, limits).unwrap();
        match listening {
            Ok(_) => "listening".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    /// How many microseconds 20 questions take together.
    fn look(&self, profile: &str) -> String {
        let office = self.store.profile(profile).unwrap();
        let before = Instant::now();
        for _ in 0..10 {
            office.status().map(drop).unwrap();
            self.tenures[profile].verify().map(drop).unwrap();
        }
        before.elapsed().as_micros().to_string()
    }
}

/// What the library logs of signals.
#[derive(Clone, Default)]
pub struct Log(pub Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Message<'a>(pub &'a mut String);

impl tracing::field::Visit for Message<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}");
        }
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "incumbent::shutdown"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = String::new();
        event.record(&mut Message(&mut message));
        self.0.lock().unwrap().push(format!("{} {message}", event.metadata().level()));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The report of the next signal.
#[track_caller]
pub fn next_report(gateway: &mut Process) -> Value {
    let line = gateway.err_line_with("!! ");
    let text = line.split_once("!! ").unwrap().1;
    let report: Value = serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"));
    assert_sorted(&report["snapshot"]);
    assert_log_line(report["line"].as_str().unwrap());
    assert_eq!(report["logged"], json!([format!("INFO {}", report["line"].as_str().unwrap())]));
    report
}

/// The report of a signal that it sends itself.
#[track_caller]
pub fn raise(gateway: &mut Process, signal: i32) -> Value {
    gateway.say(&format!("raise {signal}"));
    next_report(gateway)
}

pub fn micros(document: &Value) -> Duration {
    Duration::from_micros(document["took_us"].as_u64().unwrap())
}
