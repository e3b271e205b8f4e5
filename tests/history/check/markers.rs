//! A marker is consumed at most once, only by the incarnation that it was for or its heir, and one
//! that was written is there for it.

use std::collections::HashMap;

use crate::log::{Answer, Call, Hurt, Incarnation, Ns};

use super::facts::{Asked, Facts, Hurting};
use super::{Allowance, Court, Rule};

/// How long one lives whose writer does not say.
const LIVES_NS: Ns = 60_000_000_000;

/// One that was written.
#[derive(Clone, Copy)]
struct Written<'f, 'a> {
    call: &'f Asked<'a>,
    name: &'a str,
    to: Incarnation,
    ttl_ns: Ns,
}

/// One that was shown, or taken.
struct Seen<'f, 'a> {
    call: &'f Asked<'a>,
    token: &'f str,
    me: Incarnation,
    is_taken: bool,
    is_recorded: bool,
}

pub fn check(court: &mut Court<'_, '_>) {
    let facts = court.facts;
    let written = written(facts);
    let mut taken: HashMap<&str, Vec<Seen<'_, '_>>> = HashMap::new();
    let mut shown = Vec::new();
    for call in &facts.calls {
        if let Some(seen) = seen(call) {
            if let Some(written) = written.get(seen.token) {
                rightly(court, written, &seen);
            } else {
                let what = format!(
                    "incarnation {} was shown the marker {:?}, which nobody wrote",
                    seen.me, seen.token
                );
                court.object(Rule::MarkersOnce, what, &[&seen.call.lines]);
            }
            if seen.is_taken {
                taken.entry(seen.token).or_default().push(seen);
            } else {
                shown.push(seen);
            }
        }
    }
    for (token, all) in &taken {
        once(court, token, all);
    }
    for seen in &shown {
        for before in taken.get(seen.token).into_iter().flatten() {
            shown_after(court, before, seen);
        }
    }
    missing(court, &written, &taken);
}

fn written<'f, 'a>(facts: &'f Facts<'a>) -> HashMap<&'f str, Written<'f, 'a>> {
    let mut written = HashMap::new();
    for call in &facts.calls {
        if let Call::MarkerWrite { name, to, token, ttl_ms } = call.call {
            let ttl_ns = ttl_ms.map_or(LIVES_NS, |ms| ms.saturating_mul(1_000_000));
            written.insert(token.as_str(), Written { call, name, to: *to, ttl_ns });
        }
    }
    written
}

fn seen<'f, 'a>(call: &'f Asked<'a>) -> Option<Seen<'f, 'a>> {
    let (me, is_taken) = match call.call {
        Call::MarkerPeek { me, .. } => (*me, false),
        Call::MarkerConsume { me, .. } => (*me, true),
        _ => return None,
    };
    let Some(Answer::Marker { token: Some(token), recorded, .. }) = call.answer() else {
        return None;
    };
    Some(Seen { call, token, me, is_taken, is_recorded: *recorded })
}

/// It was for whoever was shown it, and was written by then.
fn rightly(court: &mut Court<'_, '_>, written: &Written<'_, '_>, seen: &Seen<'_, '_>) {
    let verb = if seen.is_taken { "consumed" } else { "was shown" };
    if seen.me != written.to {
        if court.lives.descends(seen.me, written.to) {
            court.allow(Allowance::HeirHasMarkers);
        // A process whose store was lost is on record again, under a number that was told nobody.
        } else if court.lives.life(written.to).is_none()
            && any_loss(court.facts, 0, seen.call.until)
        {
            court.allow(Allowance::BackAgain);
        } else {
            let what = format!(
                "incarnation {} {verb} the marker {:?}, which was for incarnation {}",
                seen.me, seen.token, written.to
            );
            court.object(Rule::MarkersOnce, what, &[&written.call.lines, &seen.call.lines]);
        }
    }
    if seen.call.until < written.call.begin {
        let what = format!(
            "incarnation {} {verb} the marker {:?} before it was written",
            seen.me, seen.token
        );
        court.object(Rule::MarkersOnce, what, &[&written.call.lines, &seen.call.lines]);
    }
}

/// At most one took it, of those whose answer was written down; and none after that one.
fn once(court: &mut Court<'_, '_>, token: &str, all: &[Seen<'_, '_>]) {
    for (index, second) in all.iter().enumerate() {
        for first in &all[..index] {
            let after = first.call.until < second.call.begin;
            if !first.is_recorded || (!second.is_recorded && !after) {
                court.allow(Allowance::ConsumedUnrecorded);
                continue;
            }
            if any_loss(court.facts, first.call.begin, second.call.until) {
                court.allow(Allowance::BackAgain);
                continue;
            }
            let what = format!(
                "the marker {token:?} was consumed twice: by incarnation {} and by incarnation {}",
                first.me, second.me
            );
            court.object(Rule::MarkersOnce, what, &[&first.call.lines, &second.call.lines]);
        }
    }
}

/// Nobody is shown one that was taken.
fn shown_after(court: &mut Court<'_, '_>, taken: &Seen<'_, '_>, shown: &Seen<'_, '_>) {
    if taken.call.until >= shown.call.begin {
        return;
    }
    if !taken.is_recorded {
        court.allow(Allowance::ConsumedUnrecorded);
    } else if any_loss(court.facts, taken.call.begin, shown.call.until) {
        court.allow(Allowance::BackAgain);
    } else {
        let what = format!(
            "incarnation {} was shown the marker {:?} after it had been consumed",
            shown.me, shown.token
        );
        court.object(Rule::MarkersOnce, what, &[&taken.call.lines, &shown.call.lines]);
    }
}

/// Who asks while one is surely there for him is not told that there is none.
fn missing(
    court: &mut Court<'_, '_>,
    written: &HashMap<&str, Written<'_, '_>>,
    taken: &HashMap<&str, Vec<Seen<'_, '_>>>,
) {
    let facts = court.facts;
    let mut to: HashMap<Incarnation, Vec<(&str, Written<'_, '_>)>> = HashMap::new();
    for (token, it) in written {
        to.entry(it.to).or_default().push((*token, *it));
    }
    for call in &facts.calls {
        let (name, me) = match call.call {
            Call::MarkerPeek { name, me } | Call::MarkerConsume { name, me } => (name, *me),
            _ => continue,
        };
        let (Some((end, Answer::NoMarker)), Some(all)) = (call.end, to.get(&me)) else { continue };
        for (token, it) in all {
            if name.as_ref().is_some_and(|name| name != it.name) {
                continue;
            }
            if is_there(court, it, taken.contains_key(token), call, end) {
                let what = format!(
                    "incarnation {me} was told that there is no marker for it; {token:?} was \
                     written {} before, and nobody took it",
                    super::length(call.begin - it.call.until)
                );
                court.object(Rule::Acknowledged, what, &[&it.call.lines, &call.lines]);
            }
        }
    }
}

/// Whether it was surely there for all of the call.
fn is_there(
    court: &Court<'_, '_>,
    it: &Written<'_, '_>,
    is_taken: bool,
    call: &Asked<'_>,
    end: Ns,
) -> bool {
    let facts = court.facts;
    let was_told = matches!(it.call.answer(), Some(Answer::Yes | Answer::Done));
    let lives_on = court.lives.life(it.to).is_some()
        && court.lives.by(it.to).any(|held| {
            held.sure_from <= it.call.begin && held.may_end_at > end && held.sure_until >= end
        });
    // By our clock; one of theirs may have run ahead.
    let is_fresh = it.call.begin.saturating_add(it.ttl_ns) > end
        && !it.call.from.faked_clock
        && !call.from.faked_clock;
    let touches = |other: &&Asked<'_>| other.begin <= end && other.until >= it.call.begin;
    let mut others = facts.calls_of(it.to).filter(touches);
    let may_be_gone = others.any(|other| match other.call {
        Call::MarkerClear { .. } => true,
        // One that was killed, or failed, may have taken it.
        Call::MarkerConsume { .. } => {
            other.op != call.op
                && !matches!(other.answer(), Some(Answer::NoMarker | Answer::Marker { .. }))
        }
        _ => false,
    });
    was_told
        && it.call.until < call.begin
        && lives_on
        && is_fresh
        && !is_taken
        && !may_be_gone
        && !any_loss(facts, it.call.begin, end)
}

/// Messages do not say which store they are in: any loss counts, of a `-wal` as well.
fn any_loss(facts: &Facts<'_>, from: Ns, until: Ns) -> bool {
    let is_hit = |it: &Hurting<'_>| it.until >= from && it.begin <= until;
    facts.losses.values().any(|losses| losses.first(from, until).is_some())
        || facts.hurts.iter().any(|it| matches!(it.hurt, Hurt::WalLost { .. }) && is_hit(it))
}
