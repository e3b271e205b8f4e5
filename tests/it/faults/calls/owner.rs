//! An owner that links the library, and does one thing after the other while a call fails: what it
//! holds it is never told to have lost, and what it has said others find.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::answers;
use super::answers::BOUND;
use super::coverage::Coverage;
use super::fault::{Fault, Site};
use super::observe::of_busiest_thread;
use super::orders::{self, ORDERS, Order};
use super::turns::Walk;
use super::world::start_again;
use crate::support::{LIMIT, Process, Sandbox, ask, sleeper, wait_ended};

/// Errors that say to an owner that it is none, or that it asked wrongly.
const NO_ERRORS_OF_AN_OWNER: [&str; 4] =
    ["Err(not_owner)", "Err(store_replaced)", "Err(invalid_input)", "Err(forked)"];

/// How long strace gets for letting go. What it wrote is complete before.
const LETS_GO_WITHIN: Duration = Duration::from_secs(20);

pub struct Owners<'a> {
    pub coverage: &'a Mutex<Coverage>,
}

/// The process, and somebody for whom a contender asks.
pub struct Owner {
    sandbox: Sandbox,
    process: Process,
    other: Process,
    /// How many agents it said last to be at work: each time others.
    agents: u64,
}

/// What came of an order that strace saw.
struct Seen {
    /// `None`: the process has ended.
    answer: Option<String>,
    trace: String,
    took: Duration,
}

impl Seen {
    fn hits(&self) -> impl Iterator<Item = &str> {
        self.trace.lines().filter(|line| line.contains("(INJECTED)"))
    }
}

impl Owner {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let process = orders::start(&sandbox);
        let other = sleeper(&sandbox);
        Self { sandbox, process, other, agents: 0 }
    }

    /// Has it do what is to be done before an order; what is wrong with that.
    fn prepare(&mut self, order: &Order) -> Result<(), String> {
        for before in order.before {
            let answer = ask(&mut self.process, before);
            if !["Granted", "Done", "Free", "None"].contains(&&*answer) {
                return Err(format!("before it, {before}: {answer}"));
            }
        }
        Ok(())
    }

    /// Gives it the order while strace sees what it does.
    fn ask_traced(&mut self, order: &Order, options: &[&str]) -> Seen {
        let trace = self.sandbox.file("trace");
        let _ = std::fs::remove_file(&trace);
        let mut strace = self.sandbox.program("strace");
        strace.args(["-f", "-y", "-o"]).arg(&trace).args(options);
        strace.args(["-p", &self.process.pid().to_string()]);
        let mut strace = Process::start(strace);
        strace.err_line_with("attached");
        self.agents += 1;
        let began = Instant::now();
        self.process.say_to_the_dying(&format!("{} {}", order.words, self.agents));
        let line = self.process.err_line_with_or_end("=> ");
        let took = began.elapsed();
        // strace ends with what it looks at. Of a process that dies while strace lets go of it, it
        // waits for the wrong thread for ever.
        if line.is_some() {
            strace.signal(Signal::INT);
        }
        if !wait_ended(strace.pid(), LETS_GO_WITHIN) {
            strace.kill();
        }
        let answer = line.map(|line| line.split_once("=> ").unwrap().1.to_owned());
        let trace = std::fs::read_to_string(trace).unwrap_or_default();
        Seen { answer, trace, took }
    }

    fn meet(&mut self, order: &Order, fault: &Fault) -> Seen {
        let trace = format!("trace={}", fault.call);
        self.ask_traced(order, &["-e", &trace, "-e", &fault.injection()])
    }

    /// Whether others find what it was told to have done.
    fn is_found(&self, order: &Order) -> bool {
        let pid = self.process.pid().to_string();
        let code = |words: &[&str]| self.sandbox.cli(words).code();
        match order.words {
            "claim" => self.sandbox.status().1["pid"] == self.process.pid(),
            "update" => self.sandbox.status().1["runtime"]["active_agents"] == self.agents,
            "lock" => self.lock_holder() == Some(self.process.pid().into()),
            "mark" => code(&["marker", "peek", "word", "--pid", &pid]) == 0,
            "consume" => code(&["marker", "peek", "word", "--pid", &pid]) == 1,
            "release-lock" => self.lock_holder().is_none(),
            "release" => code(&["status"]) == 3,
            _ => true,
        }
    }

    /// The pid that others find on record for the lock.
    fn lock_holder(&self) -> Option<u64> {
        self.sandbox.json(["locks"]).1[0]["pid"].as_u64()
    }

    /// Nothing that failed is in its own way, and it is the only one.
    fn holds_alone(&mut self) -> Result<(), String> {
        for (order, wanted) in [("claim", "Granted"), ("verify", "Held")] {
            let answer = ask(&mut self.process, order);
            if answer != wanted {
                return Err(format!("the next {order}: {answer}"));
            }
        }
        let pid = self.other.pid().to_string();
        let (code, document) = self.sandbox.json(["claim", "--no-keeper", "--pid", &pid]);
        if code == 75 && document["holder"]["pid"] == self.process.pid() {
            return Ok(());
        }
        Err(format!("a contender hears: exit code {code}: {document}"))
    }

    /// What is wrong with an answer.
    fn wrong(&self, order: &Order, fault: &Fault, seen: &Seen) -> Option<String> {
        let Some(answer) = &seen.answer else { return Some("the owner has ended".to_owned()) };
        if answer == order.answer {
            let is_known = fault.is_answer() || self.is_found(order);
            return (!is_known).then(|| format!("{answer}, and nobody finds it"));
        }
        let is_error = answer.starts_with("Err(");
        let is_late = answer.starts_with("Pending: ") || answer == "Seen";
        // The kernel said so.
        if fault.is_answer() {
            return None;
        }
        let is_of_no_owner = NO_ERRORS_OF_AN_OWNER.iter().any(|it| answer.starts_with(it));
        if is_of_no_owner || !(is_error || is_late) {
            return Some(format!("answers {answer}"));
        }
        let is_named =
            answer == "Seen" || answers::names(answer, &self.sandbox, seen.hits(), fault);
        (!is_named).then(|| format!("names nothing that failed: {answer}"))
    }
}

/// All, or those with these words.
pub fn rows(only: &str) -> Vec<&'static Order> {
    ORDERS.iter().filter(|order| order.words.contains(only)).collect()
}

fn is_slow(order: &Order, fault: &Fault, seen: &Seen) -> bool {
    let took = |fault: Option<&Fault>| {
        let mut owner = Owner::new();
        if owner.prepare(order).is_err() {
            return LIMIT;
        }
        match fault {
            Some(fault) => owner.meet(order, fault).took,
            None => owner.ask_traced(order, &["-e", "trace=all"]).took,
        }
    };
    answers::is_slow(seen.took, BOUND, || took(Some(fault)), || took(None))
}

impl Walk for Owners<'_> {
    type Key = &'static Order;
    type Kept = Option<Owner>;

    fn label(&self, order: &&'static Order) -> String {
        format!("library: {}", order.words)
    }

    fn observe(
        &self,
        order: &&'static Order,
        kept: &mut Option<Owner>,
    ) -> Result<Vec<Site>, String> {
        let mut owner = kept.take().unwrap_or_else(Owner::new);
        // What is made once and for all is made by the first.
        owner.prepare(order)?;
        ask(&mut owner.process, order.words);
        owner.prepare(order)?;
        let seen = owner.ask_traced(order, &["-e", "trace=all"]);
        let answer = seen.answer.unwrap_or_default();
        if answer != order.answer || !owner.is_found(order) {
            return Err(answer);
        }
        owner.holds_alone()?;
        *kept = Some(owner);
        Ok(of_busiest_thread(&seen.trace))
    }

    fn meet(&self, order: &&'static Order, fault: &Fault, kept: &mut Option<Owner>) {
        let mut owner = kept.take().unwrap_or_else(Owner::new);
        let label = self.label(order);
        let complain = |what: &str, example: String| {
            self.coverage.lock().unwrap().complain(format!("{label}: {what}"), example);
        };
        if let Err(why) = owner.prepare(order) {
            return complain("an earlier fault is in the way", why);
        }
        let seen = owner.meet(order, fault);
        // It may have answered before.
        let is_gone = seen.answer.is_none()
            || seen.trace.contains("killed by SIGKILL")
            || owner.process.has_ended();
        let is_killed = fault.kills() && is_gone;
        let class = match &seen.answer {
            _ if is_killed => "killed, then the next start",
            Some(answer) if answer == order.answer => "as without a fault",
            Some(answer) => answer.split(':').next().unwrap_or_default(),
            None => "ended",
        };
        let is_met = is_killed || seen.hits().next().is_some();
        let class = class.to_owned();
        self.coverage.lock().unwrap().tried(&label, fault, is_met, class);
        let example = format!("{fault}: {:?}\n{}", seen.answer, seen.trace);
        if is_killed {
            owner.process.kill();
            if let Err(why) = start_again(&owner.sandbox) {
                complain(&why, example);
            }
            return;
        }
        // Whoever believes that a lock of SQLite's stays waits for itself; no kernel refuses to
        // unlock.
        if seen.hits().any(|hit| hit.contains("F_UNLCK")) {
            return;
        }
        let wrong = owner.wrong(order, fault, &seen);
        let is_well = wrong.is_none() && !fault.is_answer();
        let slow = is_slow(order, fault, &seen).then(|| format!("took {:?}", seen.took));
        let after = if is_well { owner.holds_alone().err() } else { None };
        let is_as_it_was = is_well && after.is_none();
        for what in [wrong, slow, after].into_iter().flatten() {
            complain(&what, example.clone());
        }
        if is_as_it_was {
            *kept = Some(owner);
        }
    }
}
