//! An answer was true at some instant of its call: "it is yours still", "somebody else has it",
//! "nobody has it", "it is not yours any more".

use crate::log::{Answer, Call, Hurt, Incarnation, Ns, Thing};

use super::facts::Asked;
use super::lives::{Holding, Kind, Life};
use super::{Allowance, Court, HANG, Rule, length, ns};

/// Words by which somebody is said to hold a thing because he lives. Other refusals have other
/// grounds: a reservation, a store that was lost, a swap of two supervisors.
const LIVES: [&str; 4] =
    ["anchor_held", "start_time_matches", "child_lives", "command_line_matches"];

pub fn check(court: &mut Court<'_, '_>) {
    let facts = court.facts;
    for call in &facts.calls {
        let (Some(thing), Some(answer)) = (call.call.thing(), call.answer()) else { continue };
        match (call.call, answer) {
            (Call::Verify { incarnation, .. } | Call::Renew { incarnation, .. }, Answer::Yes) => {
                held(court, call, thing, *incarnation);
            }
            (
                Call::Verify { incarnation, .. } | Call::Renew { incarnation, .. },
                Answer::Lost { .. },
            ) => lost(court, call, thing, *incarnation),
            (_, Answer::Held { by, verdict, reason }) if is_of_life(reason) => {
                if verdict == "unknown" {
                    court.allow(Allowance::UnknownIsNeverDead);
                } else {
                    somebody_has_it(court, call, *by, "was refused");
                }
            }
            (Call::Status { .. }, Answer::Running { incarnation, reason, .. })
                if is_of_life(reason) =>
            {
                somebody_has_it(court, call, *incarnation, "was told that it runs");
            }
            (Call::Status { .. }, Answer::NotRunning { .. }) => nobody_has_it(court, call, thing),
            _ => {}
        }
    }
}

fn is_of_life(reason: &str) -> bool {
    LIVES.contains(&reason)
}

/// `verify` said that it holds.
fn held(court: &mut Court<'_, '_>, call: &Asked<'_>, thing: &Thing, of: Incarnation) {
    let (facts, lives) = (court.facts, court.lives);
    let Some(own) = lives.holding(thing, of, call.begin) else { return };
    if own.ended_by_word < call.begin {
        // A store that is put back may have it on record again.
        if facts.loss(thing.store(), own.sure_from, call.until).is_some() {
            court.allow(Allowance::BackAgain);
            return;
        }
        let what = format!(
            "incarnation {of} was told that it holds {thing}, {} after it had ended",
            length(call.begin - own.ended_by_word)
        );
        court.object(Rule::HeldIsTrue, what, &[&own.lines, &call.lines]);
        return;
    }
    // For all of the call others had all of its places.
    let covers = |it: &&Holding<'_>| {
        it.incarnation != of && it.sure_from <= call.begin && it.sure_until >= call.until
    };
    let others: Vec<_> = lives.about(thing).filter(covers).collect();
    if others.len() >= thing.places() {
        let other = others[0];
        let what = format!(
            "incarnation {of} was told that it holds {thing} while incarnation {} surely had it",
            other.incarnation
        );
        court.object(Rule::HeldIsTrue, what, &[&own.lines, &other.lines, &call.lines]);
    }
}

/// `verify` said that it does not hold any more.
fn lost(court: &mut Court<'_, '_>, call: &Asked<'_>, thing: &Thing, of: Incarnation) {
    let Some(own) = court.lives.holding(thing, of, call.begin) else { return };
    if own.may_end_at <= call.until {
        return;
    }
    // A verb does not say why.
    let is_because = |why: fn(&str) -> bool| match call.answer() {
        Some(Answer::Lost { reason }) => reason.as_deref().is_none_or(why),
        _ => false,
    };
    if is_because(|why| why == "store_replaced")
        && court.facts.wal_lost(thing.store(), own.asked_from, call.until)
    {
        court.allow(Allowance::LostWithTheWal);
        return;
    }
    if is_because(|why| why == "evicted") && with_what_came_with_it(court, own, call.until) {
        return;
    }
    let what = format!(
        "incarnation {of} was told that it has lost {thing}, and nothing happened by which it could"
    );
    court.object(Rule::NoIsTrue, what, &[&own.lines, &call.lines]);
}

/// What was granted by one call is lost as one: a lock of them may have been taken alone.
fn with_what_came_with_it(court: &Court<'_, '_>, own: &Holding<'_>, until: Ns) -> bool {
    let (facts, lives) = (court.facts, court.lives);
    let with_it = lives.by(own.incarnation).filter(|it| it.op == own.op && own.thing.is_office());
    with_it.filter_map(|it| lives.takings.get(it.thing)).any(|takings| {
        let mut calls = takings.touching(own.asked_from, until).map(|call| &facts.calls[call]);
        calls.any(|call| call.call.takes_without_an_end() && call.op != own.op)
    })
}

/// The answer is that somebody has it, who lives: of several things that were asked for, one.
fn somebody_has_it(
    court: &mut Court<'_, '_>,
    call: &Asked<'_>,
    by: Option<Incarnation>,
    was: &str,
) {
    let (facts, lives) = (court.facts, court.lives);
    let things: Vec<_> = call.call.things().collect();
    let known: Vec<_> = match by {
        // A number that was given twice.
        Some(by) if lives.all.contains_key(&by) && lives.life(by).is_none() => return,
        Some(by) => lives.by(by).filter(|it| things.contains(&it.thing)).collect(),
        None => things.iter().flat_map(|thing| lives.about(thing)).collect(),
    };
    let possible = |it: &Holding<'_>| it.asked_from <= call.until && it.gone_by >= call.begin;
    if known.iter().any(|it| possible(it)) || somebody_unknown(court, call, &things) {
        return;
    }
    if by.is_some_and(|by| inherited(court, by, &things) && lives.by(by).any(possible)) {
        return;
    }
    if by.is_some_and(|by| registered_again(court, call, by, &things)) {
        court.allow(Allowance::RegisteredAgain);
        return;
    }
    // Its child may hold its lock, or its keepers for a moment; who cannot see them cannot tell.
    let from = call.from.namespace.as_deref();
    let leaked_elsewhere = known.iter().any(|it| {
        lives.life(it.incarnation).is_some_and(|life| {
            let is_kept =
                life.kind == Kind::Recorded && it.gone_by.saturating_add(ns(HANG)) >= call.begin;
            life.namespace != from && (is_kept || leaks(court, life, call.until))
        })
    });
    if leaked_elsewhere {
        court.allow(Allowance::LeakedElsewhere);
        return;
    }
    let last = known.iter().max_by_key(|it| it.gone_by);
    // It gave it back, and lives: a store from before has it on record again, or one whose `-wal`
    // went with the release.
    if let Some(it) = last
        && it.gone_by == it.ended_by_word
        && facts.forgets(it.thing.store(), it.asked_from, call.until)
    {
        court.allow(Allowance::BackAgain);
        return;
    }
    let told: &[usize] = last.map_or(&[], |it| it.lines.as_slice());
    let of = last.map_or_else(
        || "nobody had been granted it".to_owned(),
        |it| {
            let ago = length(call.begin.saturating_sub(it.gone_by));
            format!("incarnation {} had been gone for {ago}", it.incarnation)
        },
    );
    let thing = things.first().map_or_else(String::new, ToString::to_string);
    let what = format!("who asked for {thing} {was} because somebody has it, and {of}");
    court.object(Rule::NoIsTrue, what, &[told, &call.lines]);
}

/// Whether it is an heir to whom one of the things came along with the office: by a handover the
/// locks move, and only the office is told.
fn inherited(court: &Court<'_, '_>, by: Incarnation, things: &[&Thing]) -> bool {
    let lives = court.lives;
    let mut heir = lives.life(by);
    while let Some((born, before)) = heir.and_then(|it| Some((it.born, it.heir_of?))) {
        let mut had = lives.by(before).filter(|it| things.contains(&it.thing));
        if had.any(|it| it.ended_by_word >= born) {
            return true;
        }
        // An heir is younger: no circle.
        heir = lives.life(before).filter(|it| it.born < born);
    }
    false
}

/// Whether the number is one that nobody was granted, and may be the new one of an owner who had
/// one of the things before the store was lost, and may live still.
fn registered_again(
    court: &Court<'_, '_>,
    call: &Asked<'_>,
    by: Incarnation,
    things: &[&Thing],
) -> bool {
    let (facts, lives) = (court.facts, court.lives);
    let is_lost_since =
        |it: &Holding<'_>| facts.forgets(it.thing.store(), it.asked_from, call.until);
    let mut before = things.iter().flat_map(|thing| lives.about(thing));
    !lives.all.contains_key(&by) && before.any(|it| it.gone_by >= call.begin && is_lost_since(it))
}

/// Whether somebody may have got it of whom the log does not tell: a call that was killed, a `run`
/// whose command never came to its witness.
fn somebody_unknown(court: &Court<'_, '_>, call: &Asked<'_>, things: &[&Thing]) -> bool {
    things.iter().flat_map(|thing| court.facts.calls_about(thing)).any(|other| {
        let asks = matches!(
            other.call,
            Call::Claim { .. } | Call::Run { .. } | Call::Acquire { .. } | Call::Adopt { .. }
        );
        let is_open = match other.call {
            // Its own processes may outlive it, and are known only to it.
            Call::Run { .. } => other.until >= call.begin || was_killed(other),
            _ => !matches!(other.answer(), Some(Answer::Granted { .. } | Answer::Held { .. })),
        };
        asks && other.op != call.op && other.begin <= call.until && is_open
    })
}

fn was_killed(run: &Asked<'_>) -> bool {
    !matches!(run.answer(), Some(Answer::Exit { code: 0..=127 }))
}

fn leaks(court: &Court<'_, '_>, life: &Life<'_>, by: Ns) -> bool {
    life.owners.iter().any(|pid| {
        court
            .facts
            .hurts(*pid, life.born, by)
            .any(|hurt| matches!(hurt.hurt, Hurt::Mischief { how, .. } if how.contains("fork")))
    })
}

/// The answer is that nobody has it.
fn nobody_has_it(court: &mut Court<'_, '_>, call: &Asked<'_>, thing: &Thing) {
    let lives = court.lives;
    let mut known = lives.about(thing).filter(|it| lives.life(it.incarnation).is_some());
    let through = known.find(|it| it.sure_from <= call.begin && it.sure_until >= call.until);
    if let Some(it) = through {
        let what = format!(
            "who asked for {thing} was told that it does not run, while incarnation {} surely had \
             it for all of the call",
            it.incarnation
        );
        court.object(Rule::NoIsTrue, what, &[&it.lines, &call.lines]);
    }
}
