//! At most one owner of an office or a lock at any instant, of a lock with n places at most n.

use std::collections::HashMap;
use std::time::Duration;

use crate::log::{Answer, Call, Hurt, Incarnation, Ns, Thing};

use super::facts::{Refusal, Stay};
use super::lives::{Holding, Kind};
use super::{Allowance, Court, HANG, Rule, length, name, ns};

/// A `run` looks at its tenure once a second, and its command has 90 s to stop.
const RUN_LEARNS_WITHIN: Duration = Duration::from_secs(91);

pub fn check(court: &mut Court<'_, '_>) {
    by_answers(court);
    by_witnesses(court);
    by_refusals(court);
}

/// Two that were both told that they have it, or whose commands were both there.
fn by_answers(court: &mut Court<'_, '_>) {
    let lives = court.lives;
    for (thing, all) in &lives.of_thing {
        let mut there: Vec<&Holding<'_>> = Vec::new();
        for next in all.iter().map(|index| &lives.holdings[*index]) {
            if lives.life(next.incarnation).is_none() || next.sure_until < next.sure_from {
                continue;
            }
            there.retain(|it| it.sure_until > next.sure_from);
            there.retain(|it| it.incarnation != next.incarnation);
            if there.len() >= thing.places() {
                for other in &there {
                    let what = format!(
                        "two owners of {thing}: incarnation {} surely had it for {} more when \
                         incarnation {} had it, too",
                        other.incarnation,
                        length(other.sure_until.min(next.sure_until) - next.sure_from),
                        next.incarnation,
                    );
                    court.object(Rule::OneOwner, what, &[&other.lines, &next.lines]);
                }
            }
            there.push(next);
        }
    }
}

/// Two witnesses that both had their file.
fn by_witnesses(court: &mut Court<'_, '_>) {
    let facts = court.facts;
    let mut of_thing: HashMap<&Thing, Vec<&Stay<'_>>> = HashMap::new();
    for stay in &facts.stays {
        of_thing.entry(stay.thing).or_default().push(stay);
    }
    for (thing, all) in of_thing {
        let mut there: Vec<&Stay<'_>> = Vec::new();
        for next in all {
            there.retain(|it| it.until > next.from && !is_one(court, it, next.incarnation));
            // It goes on under another number: one process has a file once.
            there.retain(|it| it.pid.is_none() || it.pid != next.pid);
            if there.len() >= thing.places() {
                for other in &there {
                    if let Some(allowance) = allowed(court, other, next.incarnation, next.from) {
                        court.allow(allowance);
                        continue;
                    }
                    let what = format!(
                        "two owners of {thing}: the witness of {} was there for {} more when that \
                         of {} came in",
                        name(other.incarnation),
                        length(other.until.min(next.until) - next.from),
                        name(next.incarnation),
                    );
                    court.object(Rule::OneOwner, what, &[&other.lines, &next.lines]);
                }
            }
            there.push(next);
        }
    }
}

/// A witness that was not let in.
fn by_refusals(court: &mut Court<'_, '_>) {
    let facts = court.facts;
    for refusal in &facts.refusals {
        if refusal.exiting {
            court.allow(Allowance::Dying);
            continue;
        }
        let other = holder(court, refusal);
        if let Some(other) = other {
            if is_one(court, other, refusal.incarnation) {
                continue;
            }
            let (to, at) = (refusal.incarnation, refusal.at);
            if let Some(allowance) = allowed(court, other, to, at) {
                court.allow(allowance);
                continue;
            }
        }
        let what = format!(
            "two owners of {}: the witness of {} found that of {} there",
            refusal.thing,
            name(refusal.incarnation),
            other.map_or_else(|| "somebody".to_owned(), |other| name(other.incarnation)),
        );
        let lines: &[usize] = other.map_or(&[], |other| other.lines.as_slice());
        court.object(Rule::OneOwner, what, &[lines, &[refusal.line]]);
    }
}

/// Whom it met: by the pid, else who came in last.
fn holder<'f, 'a>(court: &Court<'f, 'a>, refusal: &Refusal<'_>) -> Option<&'f Stay<'a>> {
    let facts = court.facts;
    let before = |stay: &&Stay<'_>| stay.thing == refusal.thing && stay.from <= refusal.at;
    let is_it = |stay: &&Stay<'_>| refusal.holder.is_some() && stay.pid == refusal.holder;
    let by_pid = facts.stays.iter().rev().filter(before).find(is_it);
    by_pid.or_else(|| facts.stays.iter().rev().find(before))
}

/// Witnesses of one incarnation are no two owners: a server that re-executes itself, an owner
/// whose threads share it. Nor is an heir beside the one that handed it over and is about to end.
/// Of those that do not know theirs nobody can say that.
fn is_one(court: &Court<'_, '_>, old: &Stay<'_>, new: Option<Incarnation>) -> bool {
    let (Some(old), Some(new)) = (old.incarnation, new) else { return false };
    court.lives.descends(new, old)
}

/// Why the one that was there may meet another one.
fn allowed(
    court: &Court<'_, '_>,
    old: &Stay<'_>,
    new: Option<Incarnation>,
    at: Ns,
) -> Option<Allowance> {
    let (facts, lives) = (court.facts, court.lives);
    let of = old.incarnation?;
    let life = lives.life(of)?;
    let things = life.offices.iter().copied().chain([old.thing]);
    // One that does not look by itself stays until it asks.
    let learns_within = if life.kind == Kind::Run { ns(RUN_LEARNS_WITHIN + HANG) } else { Ns::MAX };
    for thing in things {
        let Some(takings) = lives.takings.get(thing) else { continue };
        let mut calls = takings.touching(old.from, at).map(|call| &facts.calls[call]);
        let evicted = calls.any(|call| {
            call.call.takes_without_an_end() && at <= call.until.saturating_add(learns_within)
        });
        if evicted {
            return Some(Allowance::EvictedUntilItLearns);
        }
    }
    if let Some(loss) = facts.loss(old.thing.store(), old.from, at)
        && !was_told_since(court, old, new, loss.until)
    {
        return Some(Allowance::StoreLostUntilNoticed);
    }
    let holding = lives.holding(old.thing, of, at)?;
    if life.kind != Kind::Recorded || holding.may_end_at > at {
        return None;
    }
    // What may end such a record without the end of the process, beside all of the above.
    if holding.ttl_ns.is_some() {
        return Some(Allowance::LeaseWithoutAnchor);
    }
    let claims = |call: &Call| matches!(call, Call::Claim { .. } | Call::Acquire { .. });
    let mut calls = facts.calls.iter().filter(|call| call.begin <= at && call.until >= old.from);
    let was_asked = calls.any(|call| call.from.namespace.is_some() && claims(call.call));
    let mut hurts = facts.hurts.iter().filter(|hurt| hurt.begin <= at);
    let were_killed = hurts.any(|hurt| matches!(hurt.hurt, Hurt::Keepers { .. }));
    (was_asked && were_killed).then_some(Allowance::KeepersGone)
}

/// Whether the old one had been told that it holds since the store was lost, and before the new
/// one asked: it was on record again.
fn was_told_since(
    court: &Court<'_, '_>,
    old: &Stay<'_>,
    new: Option<Incarnation>,
    since: Ns,
) -> bool {
    let (Some(of), Some(new)) = (old.incarnation, new) else { return false };
    let Some(new) = court.lives.by(new).find(|it| it.thing == old.thing) else { return false };
    court.facts.calls_of(of).any(|call| {
        let verified = matches!(call.call, Call::Verify { thing, .. } | Call::Renew { thing, .. }
            if thing == old.thing);
        let before = call.ended().is_some_and(|end| end < new.asked_from);
        verified && call.answer() == Some(&Answer::Yes) && call.begin > since && before
    })
}
