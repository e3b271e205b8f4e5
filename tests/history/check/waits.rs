//! Every wait kept its bound: none took much longer than it may, none gave up before its time, and
//! every call came back.

use std::time::Duration;

use crate::log::{Answer, Call, Hurt, Ns, Wait, What};

use super::facts::{Asked, Facts};
use super::{Allowance, Court, HANG, Rule, length, ns};

/// A deadline is kept to 20 ms, and is counted in whole milliseconds.
const EARLY: Duration = Duration::from_millis(21);

/// What a takeover may take beyond the wait: the owner's stop budget (90 s unless it says less),
/// 10 s for what is killed, 5 s for what a dead `run` left behind.
const TAKEOVER: Duration = Duration::from_secs(105);

/// Grounds on which a wait ends before its time.
const GIVES_UP: [&str; 5] =
    ["superseded", "cannot_signal", "orphaned_anchor", "older_gateway", "legacy_home_in_use"];

pub fn check(court: &mut Court<'_, '_>) {
    let facts = court.facts;
    for call in &facts.calls {
        if matches!(call.call, Call::Other { .. }) {
            continue;
        }
        match call.ended() {
            Some(end) => {
                too_long(court, call, end);
                too_short(court, call, end);
            }
            None => never_back(court, call),
        }
    }
}

/// How long it may take. `None`: as long as it likes.
fn bound(facts: &Facts<'_>, call: &Asked<'_>) -> Option<Ns> {
    let of = |wait: Wait, more: Duration| match wait {
        Wait::Once => Some(ns(more)),
        Wait::AtMost { ms } => Some(ms.saturating_mul(1_000_000).saturating_add(ns(more))),
        Wait::Forever => None,
    };
    let takeover = |replace: bool| if replace { TAKEOVER } else { Duration::ZERO };
    match call.call {
        Call::Claim { wait, replace, .. } | Call::Acquire { wait, replace, .. } => {
            of(*wait, takeover(*replace))
        }
        Call::Stop { wait, .. } | Call::Restart { wait, .. } => of(*wait, TAKEOVER),
        Call::Run { wait, replace, .. } => {
            let was_refused = call.answer() == Some(&Answer::Exit { code: 75 })
                && !facts.stays.iter().any(|stay| stay.op == Some(call.op));
            was_refused.then(|| of(*wait, takeover(*replace))).flatten()
        }
        // Until the successor has adopted, or its time is over.
        Call::HandOver { .. } => Some(ns(TAKEOVER)),
        _ => Some(0),
    }
}

fn too_long(court: &mut Court<'_, '_>, call: &Asked<'_>, end: Ns) {
    let facts = court.facts;
    let took = end - call.begin;
    if took <= ns(HANG) {
        return;
    }
    let Some(bound) = bound(facts, call) else { return };
    if took <= bound.saturating_add(ns(HANG)) {
        return;
    }
    let still = stood_still(facts, call.begin, end);
    if took <= bound.saturating_add(ns(HANG)).saturating_add(still) {
        court.allow(Allowance::StoodStill);
        return;
    }
    if call.from.faked_clock {
        court.allow(Allowance::OtherClock);
        return;
    }
    let what =
        format!("a call that may take {} took {}: {:?}", length(bound), length(took), call.call);
    court.object(Rule::WaitsAreBounded, what, &[&call.lines]);
}

/// For how long somebody was stopped or frozen meanwhile.
fn stood_still(facts: &Facts<'_>, from: Ns, until: Ns) -> Ns {
    let mut stops: Vec<(Ns, Ns)> = facts
        .hurts
        .iter()
        .filter(|it| matches!(it.hurt, Hurt::Stop { .. }))
        .map(|it| (it.begin.max(from), it.until.min(until)))
        .filter(|(from, until)| from < until)
        .collect();
    stops.sort_unstable();
    let (mut still, mut at) = (0, from);
    for (begin, end) in stops {
        still += end.saturating_sub(begin.max(at));
        at = at.max(end);
    }
    still
}

fn too_short(court: &mut Court<'_, '_>, call: &Asked<'_>, end: Ns) {
    let (Call::Claim { wait, pid, .. } | Call::Acquire { wait, pid, .. }) = call.call else {
        return;
    };
    let Some(Answer::Held { reason, .. }) = call.answer() else { return };
    if GIVES_UP.contains(&reason.as_str()) {
        return;
    }
    // It ends with the process that it waits for.
    if pid.is_some_and(|pid| court.facts.died(pid, call.begin).is_some_and(|it| it.at <= end)) {
        return;
    }
    let took = end - call.begin;
    let asked = match wait {
        Wait::Once => return,
        Wait::AtMost { ms } => ms.saturating_mul(1_000_000),
        Wait::Forever => Ns::MAX,
    };
    if took.saturating_add(ns(EARLY)) >= asked {
        return;
    }
    if call.from.faked_clock {
        court.allow(Allowance::OtherClock);
        return;
    }
    let asked = if asked == Ns::MAX { "for ever".to_owned() } else { length(asked) };
    let what = format!(
        "a call that was to wait {asked} gave up after {}, because of `{reason}`: {:?}",
        length(took),
        call.call
    );
    court.object(Rule::WaitsAreBounded, what, &[&call.lines]);
}

/// No answer, and nobody died: it hangs. Only at the end of a whole log that is known.
fn never_back(court: &mut Court<'_, '_>, call: &Asked<'_>) {
    let facts = court.facts;
    let never_returns =
        matches!(call.call, Call::ReExec { .. } | Call::HandOver { exec: true, .. });
    let is_whole = facts.records.iter().rev().any(|it| matches!(it.what, What::Final(_)));
    let harness = facts.records.first().and_then(|it| it.by);
    let Some(pid) = call.pid.filter(|pid| Some(*pid) != harness) else { return };
    let was_killed = facts.hurts(pid, call.begin, Ns::MAX).any(|hurt| hurt.hurt.may_end());
    let has_died = facts.died(pid, call.begin).is_some();
    if never_returns || !is_whole || was_killed || has_died || facts.last() - call.begin < ns(HANG)
    {
        return;
    }
    let what = format!("a call never came back, of a process that nobody ended: {:?}", call.call);
    court.object(Rule::WaitsAreBounded, what, &[&call.lines]);
}
