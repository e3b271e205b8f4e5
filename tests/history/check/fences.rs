//! The fences of a name rise with time: who was told later has the higher one. For an office that
//! is the incarnation itself.

use std::collections::HashMap;

use crate::log::{Answer, Call, Hurt, Incarnation, Ns, Thing};

use super::facts::{Asked, Facts};
use super::lives::Holding;
use super::{Allowance, Court, Rule};

pub fn check(court: &mut Court<'_, '_>) {
    rising(court);
    kept(court);
}

/// Between two losses of the store, or of its `-wal`, each grant is above all that were known
/// before it was asked for.
fn rising(court: &mut Court<'_, '_>) {
    let (facts, lives) = (court.facts, court.lives);
    for (thing, all) in &lives.of_thing {
        let fenced = |index: &&usize| lives.holdings[**index].fence.is_some();
        let mut by_end: Vec<&Holding<'_>> =
            all.iter().filter(fenced).map(|index| &lives.holdings[*index]).collect();
        let mut by_begin = by_end.clone();
        by_end.sort_by_key(|it| it.sure_from);
        by_begin.sort_by_key(|it| it.asked_from);
        let mut known = by_end.into_iter().peekable();
        // The highest of each time between two losses.
        let mut highest: HashMap<Ns, &Holding<'_>> = HashMap::new();
        let mut same: HashMap<(Ns, i64), &Holding<'_>> = HashMap::new();
        for next in by_begin {
            while let Some(it) = known.next_if(|it| it.sure_from < next.asked_from) {
                let Some(epoch) = epoch(facts, it) else { continue };
                let top = highest.entry(epoch).or_insert(it);
                if it.fence > top.fence {
                    *top = it;
                }
            }
            let Some(epoch) = epoch(facts, next) else {
                court.allow(Allowance::BackAgain);
                continue;
            };
            let Some(fence) = next.fence else { continue };
            if let Some(top) = highest.get(&epoch)
                && top.fence >= Some(fence)
                && !keeps_it(court, top, next)
            {
                let what = format!(
                    "fence out of order for {thing}: incarnation {} got {fence} after incarnation \
                     {} had got {}",
                    next.incarnation,
                    top.incarnation,
                    top.fence.unwrap_or_default(),
                );
                court.object(Rule::FencesRise, what, &[&top.lines, &next.lines]);
            }
            if let Some(other) = same.insert((epoch, fence), next)
                && other.incarnation != next.incarnation
            {
                let what = format!(
                    "fence {fence} of {thing} was given twice: to incarnation {} and to \
                     incarnation {}",
                    other.incarnation, next.incarnation,
                );
                court.object(Rule::FencesRise, what, &[&other.lines, &next.lines]);
            }
        }
    }
}

/// When the time between two losses of the store, or of its `-wal`, began that this grant falls
/// into: with them go fences that were ahead of the clock. `None`: one was lost while it was
/// granted, and nobody knows which time it is of.
fn epoch(facts: &Facts<'_>, it: &Holding<'_>) -> Option<Ns> {
    let Some(losses) = facts.lapses.get(it.thing.store()) else { return Some(0) };
    if losses.first(it.asked_from, it.sure_from).is_some() {
        return None;
    }
    let before = losses.touching(0, it.asked_from).map(|loss| facts.hurts[loss].until);
    Some(before.max().unwrap_or(0))
}

/// Whether it is the same grant, told again: by an heir that could not write its own down, or for
/// whose end somebody waits.
fn keeps_it(court: &mut Court<'_, '_>, before: &Holding<'_>, next: &Holding<'_>) -> bool {
    if before.incarnation != next.incarnation || before.fence != next.fence {
        return false;
    }
    let store = next.thing.store();
    let is_full = court.facts.hurts.iter().any(|it| {
        matches!(it.hurt, Hurt::DiskFull { store: of } if of == store)
            && it.begin <= next.sure_from
            && it.until >= next.asked_from
    });
    if is_full {
        court.allow(Allowance::FullDiskKeepsTheFence);
        return true;
    }
    let takings = court.lives.takings.get(next.thing);
    let mut asked = takings.into_iter().flat_map(|it| it.touching(next.asked_from, next.sure_from));
    // What takes it without asking waits for no end.
    let is_asked_to_end = asked.any(|call| !court.facts.calls[call].call.takes_without_an_end());
    if is_asked_to_end {
        court.allow(Allowance::AskedToEndKeepsTheFence);
    }
    is_asked_to_end
}

/// Whoever asks again for what it holds is told the fence that it has.
fn kept(court: &mut Court<'_, '_>) {
    let facts = court.facts;
    let mut last: HashMap<(&Thing, Incarnation), (&Asked<'_>, i64)> = HashMap::new();
    for call in &facts.calls {
        let (Some(thing), Some(Answer::Granted { incarnation, fence, reacquired, .. })) =
            (call.call.thing(), call.answer())
        else {
            continue;
        };
        let before = last.insert((thing, *incarnation), (call, *fence));
        let Some((before, had)) = before.filter(|_| *reacquired) else { continue };
        let between = |it: &&Asked<'_>| it.until >= before.begin && Some(it.begin) <= call.ended();
        let mut own = facts.calls_of(*incarnation).filter(between);
        let was_released = own.any(|it| matches!(it.call, Call::Release { .. }));
        let overlap = call.begin <= before.until;
        let is_another = facts.loss(thing.store(), before.begin, call.until).is_some();
        if had != *fence && !was_released && !overlap && !is_another {
            let what = format!(
                "incarnation {incarnation} was told that it has {thing} still, with fence {fence}; \
                 it had {had}"
            );
            court.object(Rule::FencesRise, what, &[&before.lines, &call.lines]);
        }
    }
}
