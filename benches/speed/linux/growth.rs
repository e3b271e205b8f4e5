//! The same operations beside more and more others: nothing may grow.

use super::library::{Operation, operations};
use super::measure::{Batch, Compared, Effort, batch_of, in_turn};
use super::page::Picture;
use super::picture::{Chart, Series};
use super::programs::{incumbent, took};
use super::stores::{Crowd, LIVE, Places};
use super::table::{Beside, Grown, Row, Table, Target, time};
use super::{Tools, counts};

/// What an operation may take beside many others, as a multiple.
pub const GROWN_MAX: f64 = 1.3;

/// Live processes at which the curve has its points.
const STEPS: [usize; 6] = [0, 5, 20, 50, 100, 200];

/// Operations that the curve shows.
const SHOWN: [&str; 6] = [
    "claim + release",
    "acquire + release a lock, holding an office",
    "refused acquire",
    "find the running instance",
    "verify a tenure",
    "update a status, one field",
];

/// How operations grow with the number of live processes.
#[derive(Default)]
pub struct Growth {
    curves: Vec<Series>,
}

impl Growth {
    fn add(&mut self, name: &str, live: usize, times: f64) {
        #[allow(clippy::cast_precision_loss, reason = "some hundred")]
        let point = (live as f64, times);
        match self.curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push(point),
            None => self.curves.push(Series { name: name.to_owned(), points: vec![point] }),
        }
    }

    pub fn picture(self) -> Picture {
        let chart = Chart {
            title: "What an operation takes with others in the store, as a multiple".to_owned(),
            x: "live processes in the store",
            y: "times what it takes in an empty store",
            series: self.curves,
            logarithmic: false,
            bound: Some((GROWN_MAX, "bound 1.3")),
        };
        Picture { name: "growth.svg", svg: chart.svg() }
    }
}

/// Fills the columns of the rows that are there, and adds those of verbs that show all offices.
pub fn rows(table: &mut Table, places: &Places, tools: &Tools, effort: Effort) -> Growth {
    let mut growth = Growth::default();
    let wanted: Vec<Operation> =
        operations().into_iter().filter(|it| it.must_not_grow && table.wants(it.name)).collect();
    let of_all = [
        "`status --all`, 500 offices",
        "`status --all --json`, 500 offices",
        "`locks`, 1000 locks",
    ];
    if wanted.is_empty() && !of_all.iter().any(|name| table.wants(name)) {
        return growth;
    }
    let (live, big) = (places.store("live"), places.store("big"));
    let mut crowd = Crowd::new(&live, &big);
    for step in STEPS {
        crowd.grow_to(step);
        for operation in wanted.iter().filter(|it| SHOWN.contains(&it.name)) {
            growth.add(operation.name, step, beside(operation, places, effort).times_the_first(1));
        }
        eprintln!("  beside {step} live processes");
    }
    crowd.grow_to(LIVE);
    for operation in &wanted {
        let compared = beside(operation, places, effort);
        if SHOWN.contains(&operation.name) {
            growth.add(operation.name, LIVE, compared.times_the_first(1));
        }
        let Some(row) = table.rows.iter_mut().find(|row| row.name == operation.name) else {
            continue;
        };
        let counted = |store: &str| {
            let here = row.instructions.filter(|_| tools.count)?;
            Some(counts::instructions_of(operation, &places.store(store))? / here)
        };
        let many = Grown { time: compared.times_the_first(1), instructions: counted("live") };
        let big = Grown { time: compared.times_the_first(2), instructions: counted("big") };
        row.targets.extend([
            Target::at_most("with 500 live", GROWN_MAX, Some(many.decides()), "x"),
            Target::at_most("in a big store", GROWN_MAX, Some(big.decides()), "x"),
        ]);
        (row.many, row.big) = (Some(many), Some(big));
        eprintln!("  {:<52} beside {LIVE}: {many}; in the big store: {big}", row.name);
    }
    for (name, words) in of_all.into_iter().zip([
        &["status", "--all"][..],
        &["status", "--all", "--json"],
        &["locks"],
    ]) {
        if table.wants(name) {
            all(table, name, words, places, effort);
        }
    }
    drop(crowd);
    growth
}

/// In an empty store, beside live processes, and in a big store.
fn beside(operation: &Operation, places: &Places, effort: Effort) -> Compared {
    let side = |store: &str| -> Batch { batch_of((operation.ours)(&places.store(store))) };
    in_turn(&mut [side("operations"), side("live"), side("big")], effort)
}

fn all(
    table: &mut Table,
    name: &str,
    words: &'static [&'static str],
    places: &Places,
    effort: Effort,
) {
    let ask = |store: &str| -> Batch {
        let path = places.store(store);
        super::measure::batch_of_timed(move || took(&mut incumbent(&path, words), 0))
    };
    let compared = in_turn(&mut [ask("live"), ask("big")], effort);
    let (live_us, big_us) = (compared.us[0], compared.us[1]);
    // What `locks` shows is in the big store alone.
    let is_of_locks = words == ["locks"];
    let us = if is_of_locks { big_us } else { live_us };
    let beside = Beside { name: "in the big store", took: time(big_us), ratio: None };
    let bound = Target::at_most("", 10.0, Some(us / 1_000.0), " ms");
    table.push(Row {
        name: name.to_owned(),
        ours: time(us),
        peers: if is_of_locks { Vec::new() } else { vec![beside] },
        targets: if words == ["status", "--all"] { vec![bound] } else { Vec::new() },
        ..Row::default()
    });
}
