//! The rows of the library's operations: each with all that does the same.

use std::cell::RefCell;
use std::rc::Rc;

use super::by_hand::{Flavour, Hand};
use super::library::{Bound, Operation, operations};
use super::measure::{Batch, Compared, Effort, batch_of, in_turn};
use super::python::{self, Python};
use super::stores::Places;
use super::table::{Beside, Row, Table, Target, time};
use super::{Tools, counts};

const FILE_SCHEME: &str = "file scheme";

const FILELOCK: &str = "filelock";

pub fn library(table: &mut Table, places: &Places, tools: &Tools, effort: Effort) {
    let directory = places.directory("files");
    let python = tools.python.as_ref().map(|it| Python::start(it, &directory));
    let python = python.map(|python| Rc::new(RefCell::new(python)));
    for operation in operations() {
        if table.wants(operation.name) {
            let mut row = compare(&operation, places, python.as_ref(), effort);
            if tools.count {
                row.instructions = counts::instructions_of(&operation, &places.store("operations"));
            }
            table.push(row);
        }
    }
}

/// All sides of one operation, and what each is.
struct Sides {
    batches: Vec<Batch>,
    yardstick: Option<usize>,
    floor: Option<usize>,
    /// `None` as a place: it is missing here.
    peers: Vec<(&'static str, Option<usize>)>,
}

impl Sides {
    fn add(&mut self, batch: Batch) -> usize {
        self.batches.push(batch);
        self.batches.len() - 1
    }
}

fn compare(
    operation: &Operation,
    places: &Places,
    python: Option<&Rc<RefCell<Python>>>,
    effort: Effort,
) -> Row {
    let mut sides = sides(operation, places, python);
    let compared = in_turn(&mut sides.batches, effort);
    let beside = |name: &'static str, at: Option<usize>| match at {
        Some(at) => Beside { name, took: time(compared.us[at]), ratio: Some(compared.ratio[at]) },
        None => Beside::missing(name),
    };
    Row {
        name: operation.name.to_owned(),
        ours: time(compared.us[0]),
        yardstick: sides.yardstick.map(|at| beside("0.1", Some(at))),
        floor: sides.floor.map(|at| beside("floor", Some(at))),
        peers: sides.peers.iter().map(|(name, at)| beside(name, *at)).collect(),
        targets: operation.bounds.iter().map(|it| target(*it, &sides, &compared)).collect(),
        ..Row::default()
    }
}

fn sides(operation: &Operation, places: &Places, python: Option<&Rc<RefCell<Python>>>) -> Sides {
    let ours = batch_of((operation.ours)(&places.store("operations")));
    let mut sides = Sides { batches: vec![ours], yardstick: None, floor: None, peers: Vec::new() };
    let hand = |flavour: Flavour| {
        Hand::new(flavour, &places.directory(&format!("{} {flavour:?}", operation.name)))
    };
    if let Some(make) = operation.yardstick {
        sides.yardstick = Some(sides.add(batch_of(make(hand(Flavour::Yardstick)))));
    }
    if let Some(make) = operation.floor {
        sides.floor = Some(sides.add(batch_of(make(hand(Flavour::Floor)))));
    }
    for (name, make) in &operation.files {
        let at = sides.add(batch_of(make(&places.directory("files of ours"))));
        sides.peers.push((*name, Some(at)));
    }
    let mut by_python = |name: &'static str, word: &'static str| {
        let batch = python.and_then(|python| python::batch(python, word));
        let at = batch.map(|batch| sides.add(batch));
        sides.peers.push((name, at));
    };
    if let Some(word) = operation.file_scheme {
        by_python(FILE_SCHEME, word);
    }
    if operation.filelock {
        by_python(FILELOCK, FILELOCK);
    }
    sides
}

fn target(bound: Bound, sides: &Sides, compared: &Compared) -> Target {
    let ratio = |at: Option<usize>| at.map(|at| compared.ratio[at]);
    let of_peer =
        |name: &str| ratio(sides.peers.iter().find(|peer| peer.0 == name).and_then(|peer| peer.1));
    match bound {
        Bound::Yardstick(times) => Target::at_most("0.1", times, ratio(sides.yardstick), "x"),
        Bound::FileScheme(times) => Target::at_most(FILE_SCHEME, times, of_peer(FILE_SCHEME), "x"),
        Bound::File(times) => {
            let name = "JSON file";
            Target::at_most(name, times, of_peer(name), "x")
        }
        Bound::Us(us) => Target::at_most("", us, Some(compared.us[0]), " us"),
    }
}
