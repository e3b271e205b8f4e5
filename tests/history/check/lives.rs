//! Who held what, and when: surely, and at most.
//!
//! A **holding** is one incarnation with one thing. It was surely held from the moment that
//! somebody said so (the answer, the witness) until the first moment at which the contract lets it
//! end. At most it was held from the moment that it was asked for until it was certainly over.
//! Rules about two owners take the sure time, rules about "held" and "no" the longest.

use std::collections::{BTreeSet, HashMap};

use crate::log::{Answer, Call, Death, Hurt, Incarnation, Ns, Op, Pid, Thing};

use super::facts::{Asked, Facts};
use super::spans::Spans;
use super::{HANG, ns};

/// Who stands in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process that links the library.
    Library,
    /// `incumbent run`, with a command.
    Run,
    /// Another process, by `--pid`.
    Recorded,
}

/// One incarnation.
#[derive(Debug)]
pub struct Life<'a> {
    pub kind: Kind,
    /// The processes of its row: the owner, the `run`, the recorded one.
    pub owners: BTreeSet<Pid>,
    /// The commands of a `run` that said so.
    pub commands: BTreeSet<Pid>,
    pub heir_of: Option<Incarnation>,
    /// The same number was given twice: nothing is concluded about it.
    pub is_ambiguous: bool,
    pub namespace: Option<&'a str>,
    pub born: Ns,
    pub offices: Vec<&'a Thing>,
}

/// One incarnation with one thing.
#[derive(Debug)]
pub struct Holding<'a> {
    pub thing: &'a Thing,
    pub incarnation: Incarnation,
    /// The call that asked for it.
    pub op: Op,
    /// Where it is known.
    pub fence: Option<i64>,
    pub asked_from: Ns,
    pub sure_from: Ns,
    /// Below `sure_from` where nothing is sure.
    pub sure_until: Ns,
    /// When the contract first lets it end; [`Ns::MAX`]: never.
    pub may_end_at: Ns,
    /// It is certainly over. [`Ns::MAX`]: that is not known.
    pub gone_by: Ns,
    /// After this it surely was another's, or nobody's, by somebody's word.
    pub ended_by_word: Ns,
    pub ttl_ns: Option<u64>,
    pub lines: Vec<usize>,
}

#[derive(Debug)]
pub struct Lives<'a> {
    pub all: HashMap<Incarnation, Life<'a>>,
    /// In the order of `sure_from`.
    pub holdings: Vec<Holding<'a>>,
    pub of_thing: HashMap<&'a Thing, Vec<usize>>,
    pub of_incarnation: HashMap<Incarnation, Vec<usize>>,
    /// Calls that may take a thing from an owner that lives; the values are indices of the calls.
    pub takings: HashMap<&'a Thing, Spans>,
}

impl<'a> Lives<'a> {
    pub fn of(facts: &Facts<'a>) -> Self {
        let mut lives = Self {
            all: HashMap::new(),
            holdings: Vec::new(),
            of_thing: HashMap::new(),
            of_incarnation: HashMap::new(),
            takings: takings(facts),
        };
        for call in &facts.calls {
            lives.grants(call);
        }
        for stay in 0..facts.stays.len() {
            lives.witnessed(facts, stay);
        }
        lives.holdings.sort_by_key(|it| it.sure_from);
        lives.index();
        for index in 0..lives.holdings.len() {
            lives.judge(facts, index);
        }
        lives
    }

    pub fn life(&self, incarnation: Incarnation) -> Option<&Life<'a>> {
        self.all.get(&incarnation).filter(|life| !life.is_ambiguous)
    }

    pub fn about(&self, thing: &Thing) -> impl Iterator<Item = &Holding<'a>> {
        let all: &[usize] = self.of_thing.get(thing).map_or(&[], Vec::as_slice);
        all.iter().map(move |index| &self.holdings[*index])
    }

    /// All that this incarnation held.
    pub fn by(&self, incarnation: Incarnation) -> impl Iterator<Item = &Holding<'a>> {
        let all: &[usize] = self.of_incarnation.get(&incarnation).map_or(&[], Vec::as_slice);
        all.iter().map(move |index| &self.holdings[*index])
    }

    /// The last one of this incarnation with the thing that was there by then, else that was asked
    /// for.
    pub fn holding(&self, thing: &Thing, of: Incarnation, by: Ns) -> Option<&Holding<'a>> {
        self.life(of)?;
        let all = || self.by(of).filter(|it| it.thing == thing && it.asked_from <= by);
        all().filter(|it| it.sure_from <= by).last().or_else(|| all().last())
    }

    /// Whether `heir` is `of`, or got all from it by handovers.
    pub fn descends(&self, heir: Incarnation, of: Incarnation) -> bool {
        let mut at = heir;
        // A chain in a circle would be a broken log; no real one is this long.
        for _ in 0..10_000 {
            if at == of {
                return true;
            }
            match self.all.get(&at).and_then(|life| life.heir_of) {
                Some(before) => at = before,
                None => return false,
            }
        }
        false
    }

    /// What an answer says was granted.
    fn grants(&mut self, call: &Asked<'a>) {
        let Some((end, answer)) = call.end else { return };
        let Answer::Granted { incarnation, fence, reacquired, heir_of, locks } = answer else {
            return;
        };
        let (kind, owner) = match call.call {
            Call::Claim { pid: Some(pid), .. } | Call::Acquire { pid: Some(pid), .. } => {
                (Kind::Recorded, Some(*pid))
            }
            _ => (Kind::Library, call.pid),
        };
        let Some(thing) = call.call.thing() else { return };
        let ttl_ns = match call.call {
            Call::Acquire { ttl_ms, .. } => ttl_ms.map(|ms| ms.saturating_mul(1_000_000)),
            _ => None,
        };
        // What could not be written down stays as it was.
        let heir_of = heir_of.filter(|of| of != incarnation);
        self.live(*incarnation, kind, call, owner, heir_of);
        let own = self.by(*incarnation);
        let before: Vec<_> = own.map(|it| (it.thing, it.fence)).collect();
        let has_it = |lock: &Thing, fence: i64| before.contains(&(lock, Some(fence)));
        let is_known = *reacquired && before.iter().any(|(it, _)| *it == thing);
        let asked = Some((thing, *fence)).filter(|_| !is_known);
        // What the tenure has already is told again with it.
        let locks = locks.iter().map(|(lock, fence)| (lock, *fence));
        let locks = locks.filter(|(lock, fence)| !has_it(lock, *fence));
        for (thing, fence) in asked.into_iter().chain(locks) {
            self.push(Holding {
                thing,
                incarnation: *incarnation,
                op: call.op,
                fence: Some(fence),
                asked_from: call.begin,
                sure_from: end,
                sure_until: Ns::MAX,
                may_end_at: Ns::MAX,
                gone_by: Ns::MAX,
                ended_by_word: Ns::MAX,
                ttl_ns,
                lines: call.lines.clone(),
            });
        }
    }

    fn push(&mut self, holding: Holding<'a>) {
        let index = self.holdings.len();
        self.of_incarnation.entry(holding.incarnation).or_default().push(index);
        self.holdings.push(holding);
    }

    fn live(
        &mut self,
        incarnation: Incarnation,
        kind: Kind,
        call: &Asked<'a>,
        owner: Option<Pid>,
        heir_of: Option<Incarnation>,
    ) {
        let life = self.all.entry(incarnation).or_insert_with(|| Life {
            kind,
            owners: BTreeSet::new(),
            commands: BTreeSet::new(),
            heir_of,
            is_ambiguous: false,
            namespace: call.from.namespace.as_deref(),
            born: call.begin,
            offices: Vec::new(),
        });
        life.heir_of = life.heir_of.or(heir_of);
        // Its threads ask from one process; a second one with the same number is another life.
        let is_another = |pid: &Pid| !life.owners.is_empty() && !life.owners.contains(pid);
        if life.kind == kind && owner.as_ref().is_some_and(is_another) {
            life.is_ambiguous = true;
        }
        life.owners.extend(owner);
    }

    /// What a command or a holder says of itself.
    fn witnessed(&mut self, facts: &Facts<'a>, stay: usize) {
        let stay = &facts.stays[stay];
        let Some(incarnation) = stay.incarnation else { return };
        let run = stay.op.and_then(|op| facts.by_op.get(&op)).map(|call| &facts.calls[*call]);
        let run = run.filter(|call| matches!(call.call, Call::Run { .. }));
        if let Some(run) = run {
            self.live(incarnation, Kind::Run, run, run.pid, None);
            if let Some(life) = self.all.get_mut(&incarnation) {
                life.commands.extend(stay.pid);
            }
        }
        let all: &[usize] = self.of_incarnation.get(&incarnation).map_or(&[], Vec::as_slice);
        let of_stay = |index: &usize| {
            let it = &self.holdings[*index];
            it.thing == stay.thing && it.asked_from <= stay.from
        };
        // Another thread of the same process may have asked before it was granted to this one.
        let by_its_call = |index: &usize| stay.op == Some(self.holdings[*index].op);
        let known = all.iter().copied().find(|index| of_stay(index) && by_its_call(index));
        let known = known.or_else(|| all.iter().copied().rev().find(of_stay));
        if let Some(known) = known {
            let known = &mut self.holdings[known];
            known.sure_from = known.sure_from.min(stay.from);
            return;
        }
        let Some(run) = run else { return };
        self.push(Holding {
            thing: stay.thing,
            incarnation,
            op: run.op,
            fence: stay.thing.is_office().then_some(incarnation),
            asked_from: run.begin,
            sure_from: stay.from,
            sure_until: Ns::MAX,
            may_end_at: Ns::MAX,
            gone_by: Ns::MAX,
            ended_by_word: Ns::MAX,
            ttl_ns: None,
            lines: run.lines.iter().chain(&stay.lines).copied().collect(),
        });
    }

    fn index(&mut self) {
        self.of_incarnation.clear();
        for (index, it) in self.holdings.iter().enumerate() {
            self.of_thing.entry(it.thing).or_default().push(index);
            self.of_incarnation.entry(it.incarnation).or_default().push(index);
            if let Some(life) = self.all.get_mut(&it.incarnation)
                && it.thing.is_office()
                && !life.offices.contains(&it.thing)
            {
                life.offices.push(it.thing);
            }
        }
    }

    /// When it may have ended, and when it had.
    fn judge(&mut self, facts: &Facts<'a>, index: usize) {
        let it = &self.holdings[index];
        let Some(life) = self.all.get(&it.incarnation) else { return };
        let may_end_at = self.may_end_at(facts, it, life);
        let ended_by_word = ended_by_word(facts, it, life);
        let gone_by = ended_by_word.min(gone_by(facts, it, life));
        let sure_until = may_end_at.min(gone_by).min(seen_until(facts, it, life));
        let it = &mut self.holdings[index];
        it.may_end_at = may_end_at;
        it.sure_until = sure_until;
        it.ended_by_word = ended_by_word;
        it.gone_by = gone_by;
    }

    fn may_end_at(&self, facts: &Facts<'a>, it: &Holding<'a>, life: &Life<'a>) -> Ns {
        let mut first = own_end(facts, it);
        let things: BTreeSet<&Thing> = self.by(it.incarnation).map(|it| it.thing).collect();
        for thing in things {
            let Some(takings) = self.takings.get(thing) else { continue };
            let decides = thing == it.thing || thing.is_office();
            let others = takings.touching(it.asked_from, Ns::MAX).map(|call| &facts.calls[call]);
            let mut others = others.filter(|call| {
                // Whoever was granted it by that very call did not take it from itself.
                let is_own =
                    is_run_of(call, life) || granted(call).is_some_and(|to| to == it.incarnation);
                // Another thing of this owner is taken alone, or by the end of the owner.
                !is_own && (decides || !call.call.takes_without_an_end())
            });
            first = others.next().map_or(first, |call| first.min(call.begin));
        }
        if let Some(loss) = facts.loss(it.thing.store(), it.asked_from, Ns::MAX) {
            first = first.min(loss.begin);
        }
        for pid in life.owners.union(&life.commands) {
            let mut hurts = facts.hurts(*pid, it.asked_from, Ns::MAX);
            let hurt = hurts.find(|hurt| hurt.hurt.may_end());
            first = hurt.map_or(first, |hurt| first.min(hurt.begin));
            let died = facts.died(*pid, it.asked_from);
            first = died.map_or(first, |gone| first.min(gone.at));
        }
        first.min(lease_end(facts, it, life)).min(keepers_end(facts, it, life))
    }
}

/// When the incarnation itself may have ended it.
fn own_end(facts: &Facts<'_>, it: &Holding<'_>) -> Ns {
    let mut first = Ns::MAX;
    // A release that was over before was one of what it had before.
    for call in facts.calls_of(it.incarnation).filter(|call| call.until >= it.sure_from) {
        let ends = match call.call {
            Call::Release { thing, .. } => thing == it.thing || thing.is_office(),
            Call::HandOver { .. } | Call::ReExec { .. } => true,
            _ => false,
        };
        if ends {
            first = first.min(call.begin);
        }
    }
    heirs(facts, it).fold(first, |first, call| first.min(call.begin))
}

/// When somebody said that it is over.
fn ended_by_word(facts: &Facts<'_>, it: &Holding<'_>, life: &Life<'_>) -> Ns {
    let mut first = Ns::MAX;
    for call in facts.calls_of(it.incarnation).filter(|call| call.begin >= it.sure_from) {
        if let (Call::Release { thing, .. }, Some((end, Answer::Yes))) = (call.call, call.end)
            && (thing == it.thing || thing.is_office())
        {
            first = first.min(end);
        }
    }
    // Of a lock with several places nobody says whose was taken.
    let one = Some(it.thing).filter(|thing| thing.places() == 1);
    for thing in life.offices.iter().copied().chain(one) {
        if let Some(evictions) = facts.evictions.get(thing) {
            let next = evictions.partition_point(|(begin, _)| *begin < it.sure_from);
            first = evictions.get(next).map_or(first, |(_, end)| first.min(*end));
        }
    }
    heirs(facts, it).filter_map(Asked::ended).fold(first, Ns::min)
}

/// The grants that it went to.
fn heirs<'s, 'a>(
    facts: &'s Facts<'a>,
    it: &Holding<'_>,
) -> impl Iterator<Item = &'s Asked<'a>> + use<'s, 'a> {
    let (of, from) = (it.incarnation, it.asked_from);
    let is_another = move |call: &&Asked<'_>| granted(call).is_some_and(|to| to != of);
    facts.heirs_of(of).filter(move |call| call.begin >= from).filter(is_another)
}

/// See [`Lives::takings`].
fn takings<'a>(facts: &Facts<'a>) -> HashMap<&'a Thing, Spans> {
    let mut takings: HashMap<&Thing, Vec<(Ns, Ns, usize)>> = HashMap::new();
    for (index, call) in facts.calls.iter().enumerate() {
        if call.call.takes_from_the_living() {
            for thing in call.call.things() {
                takings.entry(thing).or_default().push((call.begin, call.until, index));
            }
        }
    }
    takings.into_iter().map(|(thing, all)| (thing, Spans::of(all))).collect()
}

/// Who got what the call asked for.
fn granted(call: &Asked<'_>) -> Option<Incarnation> {
    match call.answer() {
        Some(Answer::Granted { incarnation, .. }) => Some(*incarnation),
        _ => None,
    }
}

/// Whether the call is the `run` that this life is.
fn is_run_of(call: &Asked<'_>, life: &Life<'_>) -> bool {
    matches!(call.call, Call::Run { .. })
        && call.begin == life.born
        && call.pid.is_some_and(|pid| life.owners.contains(&pid))
}

/// A lease decides only where no anchor of the owner itself does.
fn lease_end(facts: &Facts<'_>, it: &Holding<'_>, life: &Life<'_>) -> Ns {
    let Some(ttl_ns) = it.ttl_ns.filter(|_| life.kind == Kind::Recorded) else { return Ns::MAX };
    let mut end = it.asked_from.saturating_add(ttl_ns);
    for call in facts.calls_of(it.incarnation) {
        let is_renewed = matches!((call.call, call.answer()),
            (Call::Renew { thing, .. }, Some(Answer::Yes)) if thing == it.thing);
        if is_renewed && call.begin <= end {
            end = end.max(call.begin.saturating_add(ttl_ns));
        }
    }
    end
}

/// Where keepers are killed, whoever cannot see the process takes it for dead.
fn keepers_end(facts: &Facts<'_>, it: &Holding<'_>, life: &Life<'_>) -> Ns {
    if life.kind != Kind::Recorded {
        return Ns::MAX;
    }
    let hit = |hurt: &Hurt| match hurt {
        Hurt::Keepers { of: Some(pid) } => life.owners.contains(pid),
        Hurt::Keepers { of: None } => true,
        _ => false,
    };
    let mut hits = facts.hurts.iter().filter(|it| hit(it.hurt));
    hits.find(|hit| hit.until >= it.asked_from).map_or(Ns::MAX, |hit| hit.begin)
}

/// How long it was surely there: who says nothing more may have ended by itself.
fn seen_until(facts: &Facts<'_>, it: &Holding<'_>, life: &Life<'_>) -> Ns {
    let mut seen: Option<Ns> = None;
    for stay in facts.stays_of(it.incarnation) {
        if stay.thing == it.thing && stay.from >= it.asked_from {
            seen = seen.max(Some(stay.until));
        }
    }
    if life.kind != Kind::Run {
        for pid in &life.owners {
            seen = seen.max(facts.last_sign(*pid, it.sure_from));
        }
    }
    match seen {
        Some(at) => at,
        // A process that says nothing at all: the nemesis says when it kills it.
        None if life.kind == Kind::Recorded && ends_by_the_nemesis(facts, it, life) => Ns::MAX,
        None => it.sure_from,
    }
}

fn ends_by_the_nemesis(facts: &Facts<'_>, it: &Holding<'_>, life: &Life<'_>) -> bool {
    life.owners.iter().all(|pid| {
        facts.died(*pid, it.asked_from).is_none_or(|gone| {
            facts.hurts(*pid, it.asked_from, gone.at).any(|hurt| hurt.hurt.may_end())
        })
    })
}

/// When all of its processes were gone.
fn gone_by(facts: &Facts<'_>, it: &Holding<'_>, life: &Life<'_>) -> Ns {
    let all_died = |pids: &BTreeSet<Pid>| {
        let mut last: Option<Ns> = None;
        for pid in pids {
            // Not known to be gone: not known to be over.
            last = last.max(Some(facts.died(*pid, it.asked_from)?.at));
        }
        last
    };
    match life.kind {
        Kind::Library | Kind::Recorded => all_died(&life.owners).unwrap_or(Ns::MAX),
        Kind::Run => {
            let owners = all_died(&life.owners);
            let was_killed = life.owners.iter().any(|pid| {
                let gone = facts.died(*pid, it.asked_from);
                gone.is_none_or(|gone| !matches!(gone.how, Death::Exit { .. }))
            });
            let commands = all_died(&life.commands);
            match (owners, commands) {
                // It waits for its command, and ends what that left.
                (Some(owner), _) if !was_killed => owner,
                // The shell that started the command, or what it started, ends a moment later.
                (Some(owner), Some(command)) => owner.max(command).saturating_add(ns(HANG)),
                _ => Ns::MAX,
            }
        }
    }
}
