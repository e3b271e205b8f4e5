//! What was acknowledged is there later: the word of an owner, a renewed lease, the rows at the
//! end. And nothing is held by the dead by then, nor ever by an incarnation that has ended.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::log::{Answer, Call, Final, Hurt, Incarnation, Ns, Thing, What};

use super::facts::{Asked, Facts, Hurting};
use super::lives::Holding;
use super::{Allowance, Court, Rule, length, ns};

/// As many ended incarnations of an office as are kept.
const HISTORY: usize = 200;

/// A lease is counted in whole milliseconds.
const LEASE_OFF: Duration = Duration::from_millis(5);

pub fn check(court: &mut Court<'_, '_>) {
    words(court);
    leases(court);
    remains(court);
    let records = court.facts.records;
    for (line, record) in records.iter().enumerate() {
        if let What::Final(last) = &record.what {
            at_the_end(court, last, record.at, line);
            nothing_for_the_dead(court, last, line);
        }
    }
}

/// `status` shows what the owner said last.
fn words(court: &mut Court<'_, '_>) {
    let facts = court.facts;
    let mut said: HashMap<Incarnation, Vec<&Asked<'_>>> = HashMap::new();
    for call in &facts.calls {
        if let Call::Say { incarnation, .. } = call.call {
            said.entry(*incarnation).or_default().push(call);
        }
    }
    for call in &facts.calls {
        let (Call::Status { thing }, Some(Answer::Running { incarnation: Some(of), word, .. })) =
            (call.call, call.answer())
        else {
            continue;
        };
        let Some(all) = said.get(of) else { continue };
        let shown = all.iter().find(|it| word.as_deref() == Some(word_of(it)));
        // Of another's: a served profile, a word of the command line. Not ours to judge.
        if word.is_some() && shown.is_none() {
            continue;
        }
        let shown_until = shown.map_or(0, |it| it.until);
        // The last of them: what happened before it explains nothing.
        let newer = all.iter().rev().find(|it| {
            matches!(it.answer(), Some(Answer::Yes | Answer::Done))
                && it.until < call.begin
                && it.begin > shown_until
        });
        let Some(newer) = newer else { continue };
        if facts.forgets(thing.store(), newer.begin, call.until) {
            court.allow(Allowance::BackAgain);
            continue;
        }
        // Of one command after the other, none has said anything yet.
        if word.is_none() && was_restarted(court, thing, newer.begin, call.until) {
            court.allow(Allowance::CommandBegunAnew);
            continue;
        }
        let what = format!(
            "incarnation {of} had said {:?} {} before, and {thing} was shown with {}",
            word_of(newer),
            length(call.begin - newer.until),
            word.as_deref().unwrap_or("no word"),
        );
        court.object(Rule::Acknowledged, what, &[&newer.lines, &call.lines]);
    }
}

/// A lease that was renewed lasts from then on for as long as was asked for, and no longer.
fn leases(court: &mut Court<'_, '_>) {
    let (facts, lives) = (court.facts, court.lives);
    for call in &facts.calls {
        let (
            Call::Lease { thing },
            Some((end, Answer::Leased { incarnation, fence, remaining_ms: Some(ms) })),
        ) = (call.call, call.end)
        else {
            continue;
        };
        let is_it = |it: &&Holding<'_>| it.thing == thing && it.fence == Some(*fence);
        let Some(own) = lives.by(*incarnation).find(is_it) else { continue };
        let Some(ttl_ns) = own.ttl_ns else { continue };
        // It may have been renewed again meanwhile.
        let is_renewal = |it: &&Asked<'_>| {
            matches!((it.call, it.answer()), (Call::Renew { thing: of, .. }, Some(Answer::Yes))
                if of == thing)
                && it.begin >= own.sure_from
                && it.until < call.begin
        };
        let Some(renewed) = facts.calls_of(*incarnation).filter(is_renewal).last() else {
            continue;
        };
        let left = ms.saturating_mul(1_000_000);
        let least = ttl_ns.saturating_sub(end - renewed.begin);
        if left.saturating_add(ns(LEASE_OFF)) >= least
            && left <= ttl_ns.saturating_add(ns(LEASE_OFF))
        {
            continue;
        }
        if facts.forgets(thing.store(), renewed.begin, end) {
            court.allow(Allowance::BackAgain);
            continue;
        }
        let what = format!(
            "incarnation {incarnation} had renewed its lease of {} on {thing} {} before, and {} \
             were left",
            length(ttl_ns),
            length(end - renewed.begin),
            length(left),
        );
        court.object(Rule::Acknowledged, what, &[&renewed.lines, &call.lines]);
    }
}

/// The locks of an incarnation end with it, in the same change.
fn remains(court: &mut Court<'_, '_>) {
    let facts = court.facts;
    for call in &facts.calls {
        let (Call::Remains { store }, Some(Answer::Remains { of })) = (call.call, call.answer())
        else {
            continue;
        };
        if of.is_empty() {
            continue;
        }
        if is_pieced_together(facts, store, call) {
            court.allow(Allowance::PiecedTogether);
            continue;
        }
        let what = format!("locks are on record of incarnations that have ended: {of:?}");
        court.object(Rule::NothingForTheDead, what, &[&call.lines]);
    }
}

/// Whether the store was written over while it was in use, or repaired after that, and was not
/// begun anew since.
fn is_pieced_together(facts: &Facts<'_>, store: &str, call: &Asked<'_>) -> bool {
    let of_store = |it: &Hurting<'_>, hows: &[&str]| {
        matches!(it.hurt, Hurt::StoreLost { store: of, how }
            if of == store && hows.iter().any(|word| how.starts_with(word)))
    };
    let begun_anew = facts.hurts.iter().filter(|it| it.until < call.begin);
    let begun_anew = begun_anew.filter(|it| of_store(it, &["deleted"])).map(|it| it.begin).max();
    facts.hurts.iter().any(|it| {
        of_store(it, &["copied over", "repaired"])
            && it.begin <= call.until
            && begun_anew.is_none_or(|begun| it.until >= begun)
    })
}

fn was_restarted(court: &Court<'_, '_>, office: &Thing, from: Ns, until: Ns) -> bool {
    court.facts.calls_about(office).any(|call| {
        matches!(call.call, Call::Restart { .. }) && call.begin <= until && call.until >= from
    })
}

fn word_of<'a>(call: &Asked<'a>) -> &'a str {
    match call.call {
        Call::Say { word, .. } => word,
        _ => "",
    }
}

/// Every incarnation that an office was granted to is on record.
fn at_the_end(court: &mut Court<'_, '_>, last: &Final, at: Ns, line: usize) {
    let lives = court.lives;
    let mut rows: BTreeSet<Incarnation> = last.history.iter().map(|row| row.incarnation).collect();
    rows.extend(last.live.iter().map(|row| row.incarnation));
    let mut ended: HashMap<&Thing, usize> = HashMap::new();
    for row in &last.history {
        if let Some(thing) = &row.thing {
            *ended.entry(thing).or_default() += 1;
        }
    }
    for it in &lives.holdings {
        let is_ours = it.thing.is_office() && it.thing.store() == last.store;
        if !is_ours || it.sure_from > at || rows.contains(&it.incarnation) {
            continue;
        }
        if court.facts.forgets(&last.store, it.asked_from, at) {
            court.allow(Allowance::BackAgain);
        } else if ended.get(it.thing).is_some_and(|count| *count >= HISTORY) {
            court.allow(Allowance::HistoryIsBounded);
        } else {
            let what = format!(
                "incarnation {} had been granted {}, and at the end no row tells of it",
                it.incarnation, it.thing
            );
            court.object(Rule::Acknowledged, what, &[&it.lines, &[line]]);
        }
    }
}

/// All of the soak have been ended by then.
fn nothing_for_the_dead(court: &mut Court<'_, '_>, last: &Final, line: usize) {
    let lives = court.lives;
    for row in last.live.iter().chain(&last.locks) {
        let is_elsewhere =
            lives.all.get(&row.incarnation).is_some_and(|life| life.namespace.is_some());
        match row.verdict.as_str() {
            "dead" => continue,
            "unknown" if is_elsewhere => {
                court.allow(Allowance::UnknownIsNeverDead);
                continue;
            }
            _ => {}
        }
        let what = format!(
            "at the end {} is held by incarnation {}, of which nothing lives: {} ({})",
            row.thing, row.incarnation, row.verdict, row.reason
        );
        let own = lives.by(row.incarnation).find(|it| *it.thing == row.thing);
        let granted: &[usize] = own.map_or(&[], |it| it.lines.as_slice());
        court.object(Rule::NothingForTheDead, what, &[granted, &[line]]);
    }
}
