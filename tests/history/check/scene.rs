//! Builds short logs, for tests: what happens, in milliseconds.

use crate::log::{
    Answer, Call, Death, EndedRow, Final, Hurt, Incarnation, Killer, LiveRow, Ns, Op, Origin,
    Phase, Pid, Record, Step, Thing, Wait, What,
};

/// The process that starts all others.
const HARNESS: Pid = 1;

/// A command is another process than its `run`.
const COMMAND: Pid = 1_000;

/// Somebody who was granted something.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub thing: &'static str,
    pub pid: Pid,
    pub incarnation: Incarnation,
}

/// A `run` that was started.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub op: Op,
    pub pid: Pid,
}

impl Run {
    pub fn command(self) -> Pid {
        self.pid + COMMAND
    }
}

#[derive(Debug, Default)]
pub struct Scene {
    records: Vec<Record>,
    now: Ns,
    ops: Op,
    faults: u64,
    namespace: Option<String>,
    faked_clock: bool,
}

/// `lock` has one place, `slots` two; every other name is an office.
pub fn thing(name: &str) -> Thing {
    let store = "main".to_owned();
    match name {
        "lock" | "slots" => Thing::Lock {
            store,
            scope: name.to_owned(),
            identity: "one".to_owned(),
            slots: if name == "slots" { 2 } else { 1 },
        },
        _ => Thing::Office { store, profile: name.to_owned(), kind: "gateway".to_owned() },
    }
}

impl Scene {
    pub fn new() -> Self {
        Self::default()
    }

    /// In the order of time.
    pub fn records(&self) -> Vec<Record> {
        let mut records = self.records.clone();
        records.sort_by_key(|record| record.at);
        records
    }

    /// What follows happens then.
    pub fn at(&mut self, ms: u64) -> &mut Self {
        self.now = (1_000_000 + ms) * 1_000_000;
        self
    }

    /// What is asked from here on is asked in a pid namespace, until `outside`.
    pub fn inside(&mut self, namespace: &str) -> &mut Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    pub fn outside(&mut self) -> &mut Self {
        self.namespace = None;
        self
    }

    pub fn with_faked_clock(&mut self) -> &mut Self {
        self.faked_clock = true;
        self
    }

    fn say(&mut self, by: Pid, what: What) {
        self.records.push(Record { at: self.now, by: Some(by), what });
    }

    pub fn seed(&mut self, seed: u64) {
        self.say(HARNESS, What::Start { seed, text: String::new() });
    }

    pub fn begin(&mut self, by: Pid, call: Call) -> Op {
        self.ops += 1;
        let from =
            Origin { namespace: self.namespace.clone(), faked_clock: self.faked_clock, uid: None };
        self.say(by, What::Begin { op: self.ops, call, from });
        self.ops
    }

    pub fn end(&mut self, by: Pid, op: Op, answer: Answer) {
        self.say(by, What::End { op, answer });
    }

    /// All of it now.
    pub fn ask(&mut self, by: Pid, call: Call, answer: Answer) -> Op {
        let op = self.begin(by, call);
        self.end(by, op, answer);
        op
    }

    /// A library owner. Fences are incarnations.
    pub fn claim(&mut self, name: &'static str, pid: Pid, incarnation: Incarnation) -> Owner {
        self.granted(name, pid, incarnation, incarnation, None)
    }

    /// The same, of what another incarnation had.
    pub fn adopt(&mut self, of: Owner, pid: Pid, incarnation: Incarnation) -> Owner {
        let heir_of = Some(of.incarnation);
        let answer = granted(incarnation, incarnation, heir_of);
        self.ask(pid, Call::Adopt { thing: thing(of.thing) }, answer);
        Owner { pid, incarnation, ..of }
    }

    pub fn granted(
        &mut self,
        name: &'static str,
        pid: Pid,
        incarnation: Incarnation,
        fence: i64,
        heir_of: Option<Incarnation>,
    ) -> Owner {
        self.ask(pid, claim(name), granted(incarnation, fence, heir_of));
        Owner { thing: name, pid, incarnation }
    }

    /// A verb, for a process that does not link the library.
    pub fn record(&mut self, name: &'static str, pid: Pid, incarnation: Incarnation) -> Owner {
        let call = acquire(name, Wait::Once, Some(pid), None);
        self.ask(HARNESS, call, granted(incarnation, incarnation, None));
        Owner { thing: name, pid, incarnation }
    }

    pub fn run(&mut self, name: &str, pid: Pid) -> Run {
        let call =
            Call::Run { thing: thing(name), locks: Vec::new(), wait: Wait::Once, replace: false };
        let op = self.begin(HARNESS, call);
        self.say(HARNESS, What::Started { op, pid });
        Run { op, pid }
    }

    pub fn exits(&mut self, run: Run, code: i32) {
        self.end(HARNESS, run.op, Answer::Exit { code });
        self.died(run.pid, Death::Exit { code });
    }

    /// The command of a `run`.
    pub fn witness_in(&mut self, run: Run, name: &str, incarnation: Incarnation) {
        self.witness(run.command(), Some(run.op), name, incarnation, Step::In);
    }

    pub fn witness_out(&mut self, run: Run, name: &str, incarnation: Incarnation) {
        self.witness(run.command(), Some(run.op), name, incarnation, Step::Out);
    }

    pub fn refused(&mut self, run: Run, name: &str, incarnation: Incarnation, holder: Pid) {
        let step = Step::Refused { holder: Some(holder), exiting: false };
        self.witness(run.command(), Some(run.op), name, incarnation, step);
    }

    pub fn witness(
        &mut self,
        by: Pid,
        op: Option<Op>,
        name: &str,
        incarnation: Incarnation,
        step: Step,
    ) {
        let incarnation = Some(incarnation);
        self.say(by, What::Witness { thing: thing(name), incarnation, op, step });
    }

    /// A witness that knows of nothing else, from now until then.
    pub fn stay(&mut self, name: &str, pid: Pid, incarnation: Incarnation, until_ms: u64) {
        let now = self.now;
        self.witness(pid, None, name, incarnation, Step::In);
        self.at(until_ms).witness(pid, None, name, incarnation, Step::Out);
        self.now = now;
    }

    pub fn verified(&mut self, owner: Owner) {
        self.ask(owner.pid, verify(owner), Answer::Yes);
    }

    pub fn lost(&mut self, owner: Owner) {
        self.ask(owner.pid, verify(owner), Answer::Lost { reason: None });
    }

    pub fn release(&mut self, owner: Owner) {
        let call = Call::Release { thing: thing(owner.thing), incarnation: owner.incarnation };
        self.ask(owner.pid, call, Answer::Yes);
    }

    pub fn hand_over(&mut self, owner: Owner, exec: bool) -> Op {
        let (thing, incarnation) = (thing(owner.thing), owner.incarnation);
        self.begin(owner.pid, Call::HandOver { thing, incarnation, exec })
    }

    pub fn evict(&mut self, name: &str, force: bool) {
        self.ask(HARNESS, Call::Evict { thing: thing(name), force }, Answer::Yes);
    }

    pub fn stop(&mut self, name: &str) {
        let wait = Wait::AtMost { ms: 1_000 };
        let call = Call::Stop { thing: thing(name), wait, force: false };
        self.ask(HARNESS, call, Answer::Yes);
    }

    /// It does not run.
    pub fn status(&mut self, name: &str) {
        let answer = Answer::NotRunning { reason: "released".to_owned() };
        self.ask(HARNESS, Call::Status { thing: thing(name) }, answer);
    }

    /// It runs.
    pub fn runs(&mut self, name: &str, incarnation: Incarnation, word: Option<&str>) {
        let answer = Answer::Running {
            incarnation: Some(incarnation),
            reason: "anchor_held".to_owned(),
            word: word.map(str::to_owned),
        };
        self.ask(HARNESS, Call::Status { thing: thing(name) }, answer);
    }

    /// Somebody else is refused, because this one has it.
    pub fn meets(&mut self, name: &'static str, by: Incarnation) {
        self.ask(HARNESS + 1, claim(name), held(by));
    }

    pub fn marker(&mut self, token: &str, to: Incarnation) {
        let call = Call::MarkerWrite {
            name: "note".to_owned(),
            to,
            token: token.to_owned(),
            ttl_ms: None,
        };
        self.ask(HARNESS, call, Answer::Done);
    }

    pub fn consume(&mut self, owner: Owner, token: Option<&str>) {
        self.consume_as(owner, token, true);
    }

    pub fn consume_as(&mut self, owner: Owner, token: Option<&str>, recorded: bool) {
        let call = Call::MarkerConsume { name: Some("note".to_owned()), me: owner.incarnation };
        let answer = match token {
            Some(token) => {
                Answer::Marker { name: "note".to_owned(), token: Some(token.to_owned()), recorded }
            }
            None => Answer::NoMarker,
        };
        self.ask(owner.pid, call, answer);
    }

    pub fn words(&mut self, owner: Owner, word: &str) {
        let (thing, incarnation) = (thing(owner.thing), owner.incarnation);
        let word = word.to_owned();
        self.ask(owner.pid, Call::Say { thing, incarnation, word }, Answer::Done);
    }

    /// From now until then.
    pub fn fault(&mut self, until_ms: u64, hurt: Hurt) {
        self.faults += 1;
        let (now, fault) = (self.now, self.faults);
        self.say(HARNESS, What::Fault { fault, phase: Phase::Begin, hurt: hurt.clone() });
        self.at(until_ms).say(HARNESS, What::Fault { fault, phase: Phase::End, hurt });
        self.now = now;
    }

    pub fn store_lost(&mut self, until_ms: u64) {
        let (store, how) = ("main".to_owned(), "restored".to_owned());
        self.fault(until_ms, Hurt::StoreLost { store, how });
    }

    /// SIGKILL, seen a millisecond later.
    pub fn kill(&mut self, pid: Pid) {
        let now_ms = self.now / 1_000_000 - 1_000_000;
        self.fault(now_ms, Hurt::Signal { pid, signal: 9 });
        self.at(now_ms + 1).died(pid, Death::Signal { signal: 9 });
    }

    pub fn died(&mut self, pid: Pid, how: Death) {
        self.say(HARNESS, What::Died { pid, incarnation: None, how, by: Killer::Unknown });
    }

    /// What the history says of one, at the end.
    pub fn ended(&mut self, owner: Owner, reason: &str) {
        self.last(&[(owner, reason)], &[]);
    }

    /// The state at the end: who ended how, and who is on record with which verdict.
    pub fn last(&mut self, ended: &[(Owner, &str)], live: &[(Owner, &str)]) {
        let history = ended.iter().map(|(owner, reason)| EndedRow {
            thing: Some(thing(owner.thing)).filter(Thing::is_office),
            incarnation: owner.incarnation,
            reason: (*reason).to_owned(),
            exit_code: None,
            signal: None,
        });
        let live = live.iter().map(|(owner, verdict)| LiveRow {
            thing: thing(owner.thing),
            incarnation: owner.incarnation,
            fence: owner.incarnation,
            verdict: (*verdict).to_owned(),
            reason: "anchor_held".to_owned(),
        });
        let last = Final {
            store: "main".to_owned(),
            live: live.collect(),
            history: history.collect(),
            ..Final::default()
        };
        self.say(HARNESS, What::Final(Box::new(last)));
    }
}

pub fn claim(name: &str) -> Call {
    claim_waiting(name, Wait::Once)
}

pub fn claim_waiting(name: &str, wait: Wait) -> Call {
    Call::Claim { thing: thing(name), locks: Vec::new(), wait, replace: false, pid: None }
}

pub fn acquire(name: &str, wait: Wait, pid: Option<Pid>, ttl_ms: Option<u64>) -> Call {
    Call::Acquire { thing: thing(name), wait, ttl_ms, evict_stopped: false, replace: false, pid }
}

pub fn verify(owner: Owner) -> Call {
    Call::Verify { thing: thing(owner.thing), incarnation: owner.incarnation }
}

pub fn granted(incarnation: Incarnation, fence: i64, heir_of: Option<Incarnation>) -> Answer {
    Answer::Granted { incarnation, fence, reacquired: false, heir_of, locks: Vec::new() }
}

pub fn held(by: Incarnation) -> Answer {
    Answer::Held { by: Some(by), verdict: "alive".to_owned(), reason: "anchor_held".to_owned() }
}
