//! Cuts a log that the checker rejects to the shortest one that it still rejects for the very same
//! reason.
//!
//! The sentence of the violation has to stay, but for lengths of time: a log from which an
//! explanation was cut would be rejected for another one. So what is left shows something that is
//! true of the whole log. First a window of time, then delta debugging (Zeller) over calls.
//! Bounded: a log that cannot be cut well within that is told longer.

use std::collections::BTreeMap;

use crate::check::{Violation, check};
use crate::log::{Ns, Op, Record, What};

/// How often the checker may be asked.
const CHECKS: usize = 400;

/// What is left, and the violation in it.
pub fn shorten(records: &[Record], violation: &Violation) -> (Vec<Record>, Violation) {
    let mut cut = Cut { wanted: violation, left: CHECKS };
    let mut units = window(records, violation, &mut cut);
    reduce(records, &mut units, &mut cut);
    let kept = pick(records, &units);
    match found(&kept, violation) {
        Some(violation) => (kept, violation),
        // A cut that changed the sentence at last: the whole is always true.
        None => (records.to_vec(), violation.clone()),
    }
}

/// What must stay together: all records of a call, else one record. By the number of their line.
type Unit = Vec<usize>;

struct Cut<'a> {
    wanted: &'a Violation,
    left: usize,
}

impl Cut<'_> {
    /// Whether these units are rejected for the same reason. `false` when the work is used up.
    fn rejects(&mut self, records: &[Record], units: &[Unit]) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        found(&pick(records, units), self.wanted).is_some()
    }
}

/// The same violation in another log.
fn found(records: &[Record], wanted: &Violation) -> Option<Violation> {
    check(records).into_iter().find(|it| it.is_the_same_as(wanted))
}

fn pick(records: &[Record], units: &[Unit]) -> Vec<Record> {
    let mut lines = units.concat();
    lines.sort_unstable();
    lines.into_iter().map(|line| records[line].clone()).collect()
}

/// The units that lie within a time, whole.
fn units_within(records: &[Record], from: Ns, until: Ns) -> Vec<Unit> {
    let mut of_call: BTreeMap<Op, Unit> = BTreeMap::new();
    let mut units = Vec::new();
    for (line, record) in records.iter().enumerate() {
        let op = match &record.what {
            What::Begin { op, .. } | What::Started { op, .. } | What::End { op, .. } => Some(*op),
            What::Witness { op, .. } => *op,
            _ => None,
        };
        match op {
            Some(op) => of_call.entry(op).or_default().push(line),
            None => units.push(vec![line]),
        }
    }
    units.extend(of_call.into_values());
    let touches = |unit: &Unit| {
        let at = |line: Option<&usize>| line.map_or(0, |line| records[*line].at);
        at(unit.first()) <= until && at(unit.last()) >= from
    };
    units.retain(touches);
    units.sort_unstable();
    units
}

/// The shortest window around what is accused, of those that grow by doubling; else everything.
fn window(records: &[Record], violation: &Violation, cut: &mut Cut<'_>) -> Vec<Unit> {
    let at = |line: Option<&usize>| line.and_then(|line| records.get(*line)).map(|it| it.at);
    let (first, last) = (at(violation.lines.first()), at(violation.lines.last()));
    let whole = || units_within(records, 0, Ns::MAX);
    let (Some(first), Some(last)) = (first, last) else { return whole() };
    // A millisecond, and 25 doublings of it: nine hours.
    for doublings in 0..26 {
        let more = 1_000_000 << doublings;
        let units = units_within(records, first.saturating_sub(more), last.saturating_add(more));
        if cut.rejects(records, &units) {
            return units;
        }
    }
    whole()
}

/// Takes away what is not needed: halves, quarters, down to single units.
fn reduce(records: &[Record], units: &mut Vec<Unit>, cut: &mut Cut<'_>) {
    let mut size = units.len().div_ceil(2);
    while size > 0 && cut.left > 0 {
        let mut start = 0;
        let mut has_shrunk = false;
        while start < units.len() && cut.left > 0 {
            let end = (start + size).min(units.len());
            let rest = [&units[..start], &units[end..]].concat();
            if cut.rejects(records, &rest) {
                *units = rest;
                has_shrunk = true;
            } else {
                start = end;
            }
        }
        if size == 1 && !has_shrunk {
            return;
        }
        size = if size == 1 { 1 } else { size.div_ceil(2) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::scene::Scene;

    #[test]
    fn only_what_is_needed_is_left() {
        let mut scene = Scene::new();
        scene.at(0).seed(1);
        for n in 0..200 {
            let number = 1_000 + i64::try_from(n).unwrap();
            let owner = scene.at(10 + 10 * n).claim("office", 100, number);
            scene.at(15 + 10 * n).release(owner);
        }
        let first = scene.at(5_000).claim("office", 101, 9_000);
        scene.at(5_001).claim("office", 102, 9_001);
        scene.at(5_100).verified(first);
        for n in 0..200 {
            scene.at(6_000 + 10 * n).status("other");
        }
        let records = scene.records();
        let violations = check(&records);
        assert!(!violations.is_empty());
        let wanted = violations.iter().find(|it| it.what.contains("9000")).unwrap();
        let (short, violation) = shorten(&records, wanted);
        assert!(short.len() <= 6, "{} records: {short:#?}", short.len());
        assert_eq!(violation.what, wanted.what);
        assert_eq!(check(&short).iter().filter(|it| it.what == wanted.what).count(), 1);
    }

    #[test]
    fn a_cut_never_takes_an_explanation_for_a_violation() {
        let mut scene = Scene::new();
        let owner = scene.at(0).claim("office", 10, 1);
        scene.at(50).evict("office", true);
        scene.at(60).lost(owner);
        let other = scene.at(100).claim("office", 11, 3);
        scene.at(200).lost(other);
        let records = scene.records();
        let violations = check(&records);
        assert_eq!(violations.len(), 1, "{violations:#?}");
        let (short, _) = shorten(&records, &violations[0]);
        let told = check(&short);
        assert!(told.iter().any(|it| it.what == violations[0].what), "{told:#?}");
    }
}
