//! What a log says, put in order: calls with their answers, stays of witnesses, faults, deaths.
//! Nothing is concluded here.

use std::collections::{BTreeMap, HashMap};

use crate::log::{
    Answer, Call, Death, Hurt, Incarnation, Ns, Op, Origin, Phase, Pid, Record, Step, Thing, What,
};

use super::spans::Spans;

/// One call.
#[derive(Debug)]
pub struct Asked<'a> {
    pub op: Op,
    pub call: &'a Call,
    pub from: &'a Origin,
    /// The process that does it.
    pub pid: Option<Pid>,
    pub begin: Ns,
    /// With its answer. `None`: it was killed, and may act until [`Asked::until`].
    pub end: Option<(Ns, &'a Answer)>,
    /// Nothing of it happens later. [`Ns::MAX`] where nobody knows.
    pub until: Ns,
    /// Its records.
    pub lines: Vec<usize>,
}

/// A witness that has its file.
#[derive(Debug)]
pub struct Stay<'a> {
    pub thing: &'a Thing,
    pub incarnation: Option<Incarnation>,
    pub op: Option<Op>,
    pub pid: Option<Pid>,
    pub from: Ns,
    /// The last moment that it surely had it: `Out`, or its last sign of life.
    pub until: Ns,
    pub lines: Vec<usize>,
}

/// A witness that met another one.
#[derive(Debug)]
pub struct Refusal<'a> {
    pub thing: &'a Thing,
    pub incarnation: Option<Incarnation>,
    pub at: Ns,
    pub holder: Option<Pid>,
    pub exiting: bool,
    pub line: usize,
}

/// A fault.
#[derive(Debug)]
pub struct Hurting<'a> {
    pub hurt: &'a Hurt,
    pub begin: Ns,
    pub until: Ns,
}

/// The end of a process.
#[derive(Debug)]
pub struct Gone {
    pub at: Ns,
    pub how: Death,
    pub line: usize,
}

#[derive(Debug)]
pub struct Facts<'a> {
    pub records: &'a [Record],
    /// In the order of their begin.
    pub calls: Vec<Asked<'a>>,
    pub stays: Vec<Stay<'a>>,
    pub refusals: Vec<Refusal<'a>>,
    pub hurts: Vec<Hurting<'a>>,
    pub deaths: BTreeMap<Pid, Vec<Gone>>,
    pub by_op: HashMap<Op, usize>,
    /// Calls about a thing, by their time; the values are indices of `calls`.
    pub about: HashMap<&'a Thing, Vec<usize>>,
    /// Calls of an incarnation about itself, and messages to it.
    pub of: HashMap<Incarnation, Vec<usize>>,
    /// Grants of what another incarnation had, by that one.
    pub heirs: HashMap<Incarnation, Vec<usize>>,
    /// Stays by the incarnation that they were for.
    pub stays_of: HashMap<Incarnation, Vec<usize>>,
    /// Evictions by force of each thing that were done: from when until when.
    pub evictions: HashMap<&'a Thing, Vec<(Ns, Ns)>>,
    /// When each process wrote something down.
    signs: HashMap<Pid, Vec<Ns>>,
    /// Losses of each store; the values are indices of `hurts`.
    pub losses: HashMap<&'a str, Spans>,
    /// The same, and those of its `-wal`: it may have forgotten what it had acknowledged.
    pub lapses: HashMap<&'a str, Spans>,
    /// Signals, stops and mischief by process.
    pub hurts_of: HashMap<Pid, Vec<usize>>,
}

impl<'a> Facts<'a> {
    pub fn of(records: &'a [Record]) -> Self {
        let mut facts = Self {
            records,
            calls: Vec::new(),
            stays: Vec::new(),
            refusals: Vec::new(),
            hurts: Vec::new(),
            deaths: BTreeMap::new(),
            by_op: HashMap::new(),
            about: HashMap::new(),
            of: HashMap::new(),
            heirs: HashMap::new(),
            stays_of: HashMap::new(),
            evictions: HashMap::new(),
            signs: HashMap::new(),
            losses: HashMap::new(),
            lapses: HashMap::new(),
            hurts_of: HashMap::new(),
        };
        let mut open = Open::default();
        for (line, record) in records.iter().enumerate() {
            if let Some(pid) = record.by {
                facts.signs.entry(pid).or_default().push(record.at);
            }
            facts.take(line, record, &mut open);
        }
        facts.settle();
        facts
    }

    fn take(&mut self, line: usize, record: &'a Record, open: &mut Open<'a>) {
        let at = record.at;
        match &record.what {
            What::Begin { op, call, from } => {
                self.by_op.insert(*op, self.calls.len());
                self.calls.push(Asked {
                    op: *op,
                    call,
                    from,
                    pid: record.by,
                    begin: at,
                    end: None,
                    until: Ns::MAX,
                    lines: vec![line],
                });
            }
            What::Started { op, pid } => {
                if let Some(call) = self.by_op.get(op).copied() {
                    self.calls[call].pid = Some(*pid);
                    self.calls[call].lines.push(line);
                }
            }
            What::End { op, answer } => {
                if let Some(call) = self.by_op.get(op).copied() {
                    let call = &mut self.calls[call];
                    call.end = Some((at, answer));
                    call.until = at;
                    call.lines.push(line);
                }
            }
            What::Witness { thing, incarnation, op, step } => {
                let who = (thing, record.by, *incarnation, *op);
                match step {
                    Step::In => {
                        open.stays.insert(who, self.stays.len());
                        self.stays.push(Stay {
                            thing,
                            incarnation: *incarnation,
                            op: *op,
                            pid: record.by,
                            from: at,
                            until: at,
                            lines: vec![line],
                        });
                    }
                    Step::Out => {
                        if let Some(stay) = open.stays.remove(&who) {
                            self.stays[stay].until = at;
                            self.stays[stay].lines.push(line);
                        }
                    }
                    Step::Refused { holder, exiting } => self.refusals.push(Refusal {
                        thing,
                        incarnation: *incarnation,
                        at,
                        holder: *holder,
                        exiting: *exiting,
                        line,
                    }),
                }
            }
            What::Fault { fault, phase: Phase::Begin, hurt } => {
                open.hurts.insert(*fault, self.hurts.len());
                self.hurts.push(Hurting { hurt, begin: at, until: Ns::MAX });
            }
            What::Fault { fault, phase: Phase::End, .. } => {
                if let Some(hurt) = open.hurts.remove(fault) {
                    self.hurts[hurt].until = at;
                }
            }
            What::Died { pid, how, .. } => {
                self.deaths.entry(*pid).or_default().push(Gone { at, how: *how, line });
            }
            What::Start { .. } | What::Final(_) | What::Note { .. } => {}
        }
    }

    /// What needs the whole log.
    fn settle(&mut self) {
        self.ends_of_runs();
        for stay in 0..self.stays.len() {
            let it = &self.stays[stay];
            if it.lines.len() == 1 {
                // It never gave it back: it had it as long as it wrote things down.
                let last = it.pid.and_then(|pid| self.last_sign(pid, it.from));
                self.stays[stay].until = last.unwrap_or(it.from);
            }
            if let Some(incarnation) = self.stays[stay].incarnation {
                self.stays_of.entry(incarnation).or_default().push(stay);
            }
        }
        for call in 0..self.calls.len() {
            let it = &self.calls[call];
            if it.end.is_none() {
                let died = it.pid.and_then(|pid| self.died(pid, it.begin)).map(|gone| gone.at);
                self.calls[call].until = died.unwrap_or(Ns::MAX);
            }
            let it = &self.calls[call];
            for thing in it.call.things() {
                self.about.entry(thing).or_default().push(call);
            }
            if let Some(incarnation) = it.call.of() {
                self.of.entry(incarnation).or_default().push(call);
            }
            if let (Call::Evict { thing, force: true }, Some((end, Answer::Yes | Answer::Done))) =
                (it.call, it.end)
            {
                self.evictions.entry(thing).or_default().push((it.begin, end));
            }
            if let Some((_, Answer::Granted { heir_of: Some(of), .. })) = it.end {
                self.heirs.entry(*of).or_default().push(call);
            }
        }
        let mut losses: HashMap<&str, Vec<(Ns, Ns, usize)>> = HashMap::new();
        let mut lapses: HashMap<&str, Vec<(Ns, Ns, usize)>> = HashMap::new();
        for (index, it) in self.hurts.iter().enumerate() {
            let span = (it.begin, it.until, index);
            if let Hurt::StoreLost { store, .. } = it.hurt {
                losses.entry(store).or_default().push(span);
            }
            if let Hurt::StoreLost { store, .. } | Hurt::WalLost { store } = it.hurt {
                lapses.entry(store).or_default().push(span);
            }
            for pid in it.hurt.pids() {
                self.hurts_of.entry(pid).or_default().push(index);
            }
        }
        self.losses = losses.into_iter().map(|(store, all)| (store, Spans::of(all))).collect();
        self.lapses = lapses.into_iter().map(|(store, all)| (store, Spans::of(all))).collect();
    }

    /// Where nobody says that a `run` has died, its exit does.
    fn ends_of_runs(&mut self) {
        for call in &self.calls {
            let (Call::Run { .. }, Some(pid), Some((at, Answer::Exit { code }))) =
                (call.call, call.pid, call.end)
            else {
                continue;
            };
            let known = self.deaths.entry(pid).or_default();
            if known.iter().any(|gone| gone.at >= call.begin) {
                continue;
            }
            // 128 + n is said of its own death, and of that of its command.
            let how = if *code < 128 { Death::Exit { code: *code } } else { Death::Gone };
            let line = call.lines.last().copied().unwrap_or_default();
            known.push(Gone { at, how, line });
            known.sort_by_key(|gone| gone.at);
        }
    }

    /// The last moment that this process wrote something down, before it died, or its number was
    /// given to another one. `None`: nothing after `from`.
    pub fn last_sign(&self, pid: Pid, from: Ns) -> Option<Ns> {
        let end = self.died(pid, from).map_or(Ns::MAX, |gone| gone.at);
        let signs = self.signs.get(&pid)?;
        let last = signs[..signs.partition_point(|at| *at <= end)].last()?;
        (*last >= from).then_some(*last)
    }

    /// The first end of a process with this number from then on.
    pub fn died(&self, pid: Pid, from: Ns) -> Option<&Gone> {
        self.deaths.get(&pid)?.iter().find(|gone| gone.at >= from)
    }

    /// What was done to this process between the two, the first one first.
    pub fn hurts(&self, pid: Pid, from: Ns, until: Ns) -> impl Iterator<Item = &Hurting<'a>> {
        let all: &[usize] = self.hurts_of.get(&pid).map_or(&[], Vec::as_slice);
        let all = all.iter().map(move |index| &self.hurts[*index]);
        all.filter(move |it| it.until >= from && it.begin <= until)
    }

    /// The first loss of the store that touches the time between the two.
    pub fn loss(&self, store: &str, from: Ns, until: Ns) -> Option<&Hurting<'a>> {
        let index = self.losses.get(store)?.first(from, until)?;
        Some(&self.hurts[index])
    }

    /// Whether the `-wal` of the store was deleted between the two.
    pub fn wal_lost(&self, store: &str, from: Ns, until: Ns) -> bool {
        self.hurts.iter().any(|it| {
            matches!(it.hurt, Hurt::WalLost { store: of } if of == store)
                && it.until >= from
                && it.begin <= until
        })
    }

    /// Whether the store may have forgotten between the two what it had acknowledged.
    pub fn forgets(&self, store: &str, from: Ns, until: Ns) -> bool {
        self.lapses.get(store).is_some_and(|lapses| lapses.first(from, until).is_some())
    }

    pub fn calls_of(&self, incarnation: Incarnation) -> impl Iterator<Item = &Asked<'a>> {
        let all: &[usize] = self.of.get(&incarnation).map_or(&[], Vec::as_slice);
        all.iter().map(move |index| &self.calls[*index])
    }

    /// Adoptions, and claims after an exec, that got what this incarnation had.
    pub fn heirs_of(&self, incarnation: Incarnation) -> impl Iterator<Item = &Asked<'a>> {
        let all: &[usize] = self.heirs.get(&incarnation).map_or(&[], Vec::as_slice);
        all.iter().map(move |index| &self.calls[*index])
    }

    pub fn stays_of(&self, incarnation: Incarnation) -> impl Iterator<Item = &Stay<'a>> {
        let all: &[usize] = self.stays_of.get(&incarnation).map_or(&[], Vec::as_slice);
        all.iter().map(move |index| &self.stays[*index])
    }

    pub fn calls_about(&self, thing: &Thing) -> impl Iterator<Item = &Asked<'a>> {
        let all: &[usize] = self.about.get(thing).map_or(&[], Vec::as_slice);
        all.iter().map(move |index| &self.calls[*index])
    }

    /// The last moment of the log.
    pub fn last(&self) -> Ns {
        self.records.last().map_or(0, |record| record.at)
    }
}

/// Tells the witnesses apart.
type Who<'a> = (&'a Thing, Option<Pid>, Option<Incarnation>, Option<Op>);

/// What has begun, while the log is read.
#[derive(Default)]
struct Open<'a> {
    stays: HashMap<Who<'a>, usize>,
    hurts: HashMap<u64, usize>,
}

impl Asked<'_> {
    pub fn answer(&self) -> Option<&Answer> {
        self.end.map(|(_, answer)| answer)
    }

    pub fn ended(&self) -> Option<Ns> {
        self.end.map(|(at, _)| at)
    }
}

impl Call {
    /// What it is about: the thing, and locks that are asked for with it.
    pub fn things(&self) -> impl Iterator<Item = &Thing> {
        let locks = match self {
            Self::Claim { locks, .. } | Self::Run { locks, .. } => locks.as_slice(),
            _ => &[],
        };
        self.thing().into_iter().chain(locks)
    }

    pub fn thing(&self) -> Option<&Thing> {
        match self {
            Self::Claim { thing, .. }
            | Self::Run { thing, .. }
            | Self::Acquire { thing, .. }
            | Self::Adopt { thing }
            | Self::Verify { thing, .. }
            | Self::Renew { thing, .. }
            | Self::Lease { thing }
            | Self::Release { thing, .. }
            | Self::HandOver { thing, .. }
            | Self::ReExec { thing, .. }
            | Self::Stop { thing, .. }
            | Self::Restart { thing, .. }
            | Self::Evict { thing, .. }
            | Self::Status { thing }
            | Self::Say { thing, .. }
            | Self::Forge { thing, .. } => Some(thing),
            Self::MarkerWrite { .. }
            | Self::MarkerPeek { .. }
            | Self::MarkerConsume { .. }
            | Self::MarkerClear { .. }
            | Self::Repair { .. }
            | Self::Remains { .. }
            | Self::Other { .. } => None,
        }
    }

    /// The incarnation that it is a call of, or a message to.
    pub fn of(&self) -> Option<Incarnation> {
        match self {
            Self::Verify { incarnation, .. }
            | Self::Renew { incarnation, .. }
            | Self::Release { incarnation, .. }
            | Self::HandOver { incarnation, .. }
            | Self::ReExec { incarnation, .. }
            | Self::Say { incarnation, .. } => Some(*incarnation),
            Self::MarkerWrite { to, .. } | Self::MarkerClear { to, .. } => Some(*to),
            Self::MarkerPeek { me, .. } | Self::MarkerConsume { me, .. } => Some(*me),
            _ => None,
        }
    }

    /// Whether it may take the thing from an owner that lives.
    pub fn takes_from_the_living(&self) -> bool {
        match self {
            Self::Claim { replace, .. } | Self::Run { replace, .. } => *replace,
            Self::Acquire { replace, evict_stopped, .. } => *replace || *evict_stopped,
            Self::Stop { .. } => true,
            Self::Evict { force, .. } => *force,
            _ => false,
        }
    }

    /// Whether it may do so without the end of the owner.
    pub fn takes_without_an_end(&self) -> bool {
        match self {
            Self::Evict { force, .. } => *force,
            Self::Acquire { evict_stopped, .. } => *evict_stopped,
            _ => false,
        }
    }
}

impl Hurt {
    /// The processes that it is done to.
    pub fn pids(&self) -> impl Iterator<Item = Pid> {
        const NONE: &[Pid] = &[];
        let (one, more) = match self {
            Self::Signal { pid, .. } => (Some(*pid), NONE),
            Self::Stop { pids } => (None, pids.as_slice()),
            Self::Shortage { pid, .. }
            | Self::ClockStep { pid, .. }
            | Self::Mischief { pid, .. }
            | Self::Keepers { of: pid } => (*pid, NONE),
            Self::StoreLost { .. }
            | Self::WalLost { .. }
            | Self::DiskFull { .. }
            | Self::Foreign { .. } => (None, NONE),
        };
        one.into_iter().chain(more.iter().copied())
    }

    /// Whether it may end the process, or cost it its locks.
    pub fn may_end(&self) -> bool {
        match self {
            Self::Signal { signal, .. } => !HARMLESS.contains(signal),
            Self::Mischief { how, .. } => how == "close_all" || how == "panic",
            _ => false,
        }
    }
}

/// 0 and CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH: nobody ends by these.
const HARMLESS: [i32; 9] = [0, 17, 18, 19, 20, 21, 22, 23, 28];
