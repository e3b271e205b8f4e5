//! What is reserved for a takeover goes to nobody else: between the owner that was made to end and
//! the taker nobody is granted the office.
//!
//! Times are not compared for that. The taker reserves the office while the owner has it, and keeps
//! it reserved until its own grant; each grant draws a number, so the numbers have the order of the
//! grants, between two losses of the store. Only such takeovers are looked at of which it is
//! certain that they, and nothing else, ended the owner.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::log::{Answer, Call, Hurt, Incarnation, Ns, Thing, What};

use super::facts::Asked;
use super::lives::Holding;
use super::{Court, Rule, ns};

/// A reservation counts for the owner's stop budget and 15 s more.
const RESERVED_FOR: Duration = Duration::from_secs(15);

pub fn check(court: &mut Court<'_, '_>) {
    let facts = court.facts;
    for (line, record) in facts.records.iter().enumerate() {
        let What::Final(last) = &record.what else { continue };
        for row in last.history.iter().filter(|row| row.reason == "taken_over") {
            if let Some(office) = &row.thing {
                nobody_between(court, office, row.incarnation, line);
            }
        }
    }
}

fn nobody_between(court: &mut Court<'_, '_>, office: &Thing, of: Incarnation, line: usize) {
    let (facts, lives) = (court.facts, court.lives);
    let Some((owner, takeover)) = taken_over(court, office, of) else { return };
    let taken = lives.about(office).find(|it| it.op == takeover.op);
    let until = taken.map_or(takeover.until, |taken| taken.sure_from);
    if may_be_given_up(court, owner, takeover, until) {
        return;
    }
    let is_between = |it: &&Holding<'_>| match taken {
        Some(taken) => it.incarnation < taken.incarnation,
        // It was refused by the one that came between.
        None => refused_by(takeover) == Some(it.incarnation),
    };
    let counts = |it: &&Holding<'_>| {
        let (from, to) = (it.asked_from.min(owner.asked_from), it.sure_from.max(until));
        it.incarnation > of
            && it.op != takeover.op
            && it.sure_from >= owner.asked_from
            && it.asked_from <= until
            // An heir has what the one before it had.
            && lives.life(it.incarnation).is_some_and(|life| life.heir_of.is_none())
            && !facts.forgets(office.store(), from, to)
    };
    let Some(other) = lives.about(office).filter(is_between).find(counts) else { return };
    let whom = taken.map_or_else(
        || "its taker, which was refused".to_owned(),
        |taken| format!("incarnation {}", taken.incarnation),
    );
    let what = format!(
        "incarnation {} was granted {office}, which was reserved: between incarnation {of}, whom \
         a takeover ended, and {whom}",
        other.incarnation
    );
    let of_all: [&[usize]; 4] = [&owner.lines, &takeover.lines, &other.lines, &[line]];
    court.object(Rule::ReservationHolds, what, &of_all);
}

/// The owner, and the takeover that ended it: the only call that may have done so, from when the
/// owner asked for the office until the end of that call.
fn taken_over<'f, 'a>(
    court: &Court<'f, 'a>,
    office: &Thing,
    of: Incarnation,
) -> Option<(&'f Holding<'a>, &'f Asked<'a>)> {
    let (facts, lives) = (court.facts, court.lives);
    // Of an heir nobody says what came along with the office.
    lives.life(of).filter(|life| life.heir_of.is_none())?;
    let owner = lives.by(of).find(|it| it.thing == office)?;
    let granted = &facts.calls[*facts.by_op.get(&owner.op)?];
    let things: BTreeSet<&Thing> =
        lives.by(of).map(|it| it.thing).chain(granted.call.things()).collect();
    let takings = things.into_iter().filter_map(|thing| lives.takings.get(thing));
    let calls: BTreeSet<usize> =
        takings.flat_map(|takings| takings.touching(owner.asked_from, Ns::MAX)).collect();
    // Their indices have the order of their begin.
    let mut calls = calls.into_iter().map(|call| &facts.calls[call]).filter(|it| it.op != owner.op);
    let takeover = calls.next()?;
    let is_takeover = takeover.call.thing() == Some(office)
        && takeover.begin >= owner.asked_from
        && matches!(
            takeover.call,
            Call::Claim { replace: true, .. } | Call::Run { replace: true, .. }
        );
    let is_alone = calls.all(|other| other.begin > takeover.until);
    (is_takeover && is_alone).then_some((owner, takeover))
}

/// Whether the reservation may have ended before the taker's grant, by its time or by what happened
/// to the taker, the disk or the store.
fn may_be_given_up(
    court: &Court<'_, '_>,
    owner: &Holding<'_>,
    takeover: &Asked<'_>,
    until: Ns,
) -> bool {
    let (facts, store) = (court.facts, owner.thing.store());
    let took = until.saturating_sub(takeover.begin);
    let is_hurt =
        takeover.pid.is_none_or(|pid| facts.hurts(pid, takeover.begin, until).next().is_some());
    let is_full = facts.hurts.iter().any(|it| {
        matches!(it.hurt, Hurt::DiskFull { store: of } if of == store)
            && it.begin <= until
            && it.until >= takeover.begin
    });
    took > ns(RESERVED_FOR)
        || is_hurt
        || is_full
        || takeover.from.faked_clock
        || facts.forgets(store, owner.asked_from, until)
}

/// Who has the office, by the word of a taker that wanted nothing else.
fn refused_by(takeover: &Asked<'_>) -> Option<Incarnation> {
    match (takeover.call, takeover.answer()) {
        (Call::Claim { locks, .. }, Some(Answer::Held { by, .. })) if locks.is_empty() => *by,
        _ => None,
    }
}
