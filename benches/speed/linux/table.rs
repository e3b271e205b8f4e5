//! The one table: its rows, the targets in them, and how they are printed.

use std::fmt::Write as _;

use super::measure::Spread;

/// One row.
#[derive(Debug, Default)]
pub struct Row {
    pub name: String,
    pub ours: String,
    /// Of one operation in an empty store, where they were counted.
    pub instructions: Option<f64>,
    pub yardstick: Option<Beside>,
    pub floor: Option<Beside>,
    pub peers: Vec<Beside>,
    /// Beside 500 live processes, and in a big store: so many times what it takes in an empty one.
    pub many: Option<Grown>,
    pub big: Option<Grown>,
    pub targets: Vec<Target>,
}

/// Something else that does the same, and the ratio of ours to it: below 1 ours is faster.
#[derive(Clone, Debug)]
pub struct Beside {
    pub name: &'static str,
    pub took: String,
    /// `None`: they cannot be compared by a ratio, or it is missing on this machine.
    pub ratio: Option<f64>,
}

impl Beside {
    pub fn missing(name: &'static str) -> Self {
        Self { name, took: "missing".to_owned(), ratio: None }
    }
}

/// What an operation takes in another store, as a multiple.
#[derive(Clone, Copy, Debug)]
pub struct Grown {
    pub time: f64,
    pub instructions: Option<f64>,
}

impl Grown {
    /// What noise does not move, if it was counted.
    pub fn decides(self) -> f64 {
        self.instructions.unwrap_or(self.time)
    }
}

impl std::fmt::Display for Grown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&times(self.time))?;
        match self.instructions {
            Some(instructions) => write!(formatter, " ({} instr.)", times(instructions)),
            None => Ok(()),
        }
    }
}

/// What was promised, and whether it is kept.
#[derive(Clone, Debug)]
pub struct Target {
    pub promised: String,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Met,
    /// With what was measured.
    Missed(String),
    /// With what was missing.
    NotMeasured(String),
}

impl Target {
    pub fn at_most(what: &str, bound: f64, measured: Option<f64>, unit: &str) -> Self {
        Self {
            promised: format!("<= {bound}{unit} {what}").trim_end().to_owned(),
            verdict: match measured {
                Some(measured) if measured <= bound => Verdict::Met,
                Some(measured) => Verdict::Missed(format!("{measured:.2}{unit}")),
                None => Verdict::NotMeasured("nothing to compare with".to_owned()),
            },
        }
    }

    pub fn at_least(what: &str, bound: f64, measured: Option<f64>, unit: &str) -> Self {
        let turned = Self::at_most(what, -bound, measured.map(|measured| -measured), unit);
        Self {
            promised: format!(">= {bound}{unit} {what}").trim_end().to_owned(),
            verdict: match turned.verdict {
                Verdict::Missed(_) => {
                    Verdict::Missed(format!("{:.2}{unit}", measured.unwrap_or_default()))
                }
                other => other,
            },
        }
    }

    fn shown(&self) -> String {
        match &self.verdict {
            Verdict::Met => "met".to_owned(),
            Verdict::Missed(measured) => format!("MISSED ({measured})"),
            Verdict::NotMeasured(why) => format!("not measured ({why})"),
        }
    }
}

const HEADER: [&str; 10] = [
    "operation",
    "ours",
    "instructions",
    "0.1",
    "floor",
    "peers",
    "with 500 live",
    "big store",
    "target",
    "verdict",
];

/// The first column is aligned to the left, and the last ones, which are text.
const RIGHT: [bool; 10] = [false, true, true, true, true, false, true, true, false, false];

#[derive(Debug, Default)]
pub struct Table {
    pub rows: Vec<Row>,
    /// Only rows with one of these in their names are wanted; none: all are.
    pub words: Vec<String>,
}

impl Table {
    pub fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }

    /// Also says on standard error that it is done: all of it takes a while.
    pub fn push(&mut self, row: Row) {
        let verdicts: Vec<String> = row.targets.iter().map(Target::shown).collect();
        eprintln!("  {:<52} {} {}", row.name, row.ours, verdicts.join("; "));
        self.rows.push(row);
    }

    /// As Markdown that is also readable as it is.
    pub fn markdown(&self) -> String {
        let rows: Vec<[String; 10]> = self.rows.iter().map(cells).collect();
        let width = |column: usize| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.chain([HEADER[column].len(), 4]).max().unwrap_or(0)
        };
        let widths: [usize; 10] = std::array::from_fn(width);
        let mut text = String::new();
        let mut line = |cells: [&str; 10]| {
            for (column, cell) in cells.iter().enumerate() {
                let width = widths[column];
                let _ = if RIGHT[column] {
                    write!(text, "| {cell:>width$} ")
                } else {
                    write!(text, "| {cell:<width$} ")
                };
            }
            text.push_str("|\n");
        };
        line(HEADER);
        let rules: [String; 10] = std::array::from_fn(|column| {
            let dashes = "-".repeat(widths[column] - 1);
            if RIGHT[column] { format!("{dashes}:") } else { format!("{dashes}-") }
        });
        line(std::array::from_fn(|column| rules[column].as_str()));
        for row in &rows {
            line(std::array::from_fn(|column| row[column].as_str()));
        }
        text
    }

    /// How many targets are met, and those that are not, each with its row.
    pub fn summary(&self) -> String {
        let all =
            || self.rows.iter().flat_map(|row| row.targets.iter().map(move |target| (row, target)));
        let count = |is: fn(&Verdict) -> bool| all().filter(|(_, it)| is(&it.verdict)).count();
        let mut text = format!(
            "{} targets: {} met, {} missed, {} not measured.\n",
            all().count(),
            count(|it| *it == Verdict::Met),
            count(|it| matches!(it, Verdict::Missed(_))),
            count(|it| matches!(it, Verdict::NotMeasured(_))),
        );
        for (row, target) in all().filter(|(_, target)| target.verdict != Verdict::Met) {
            let _ = writeln!(text, "* {}: {}: {}", row.name, target.promised, target.shown());
        }
        text
    }

    /// Where another program is faster, as sentences: what is slower than a peer is said.
    pub fn slower(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            for peer in &row.peers {
                if let Some(ratio) = peer.ratio.filter(|ratio| *ratio > 1.0) {
                    let _ = writeln!(
                        text,
                        "* {}: {} is faster ({}; ours takes {})",
                        row.name,
                        peer.name,
                        peer.took,
                        times(ratio)
                    );
                }
            }
        }
        text
    }
}

fn cells(row: &Row) -> [String; 10] {
    let beside = |it: &Beside| match it.ratio {
        Some(ratio) => format!("{} ({})", it.took, times(ratio)),
        None => it.took.clone(),
    };
    let one = |it: Option<&Beside>| it.map(beside).unwrap_or_default();
    let grown = |it: Option<Grown>| it.map(|grown| grown.to_string()).unwrap_or_default();
    let joined = |texts: Vec<String>| texts.join("; ");
    let peers = row.peers.iter().map(|peer| format!("{} {}", peer.name, beside(peer)));
    [
        row.name.clone(),
        row.ours.clone(),
        row.instructions.map(thousands).unwrap_or_default(),
        one(row.yardstick.as_ref()),
        one(row.floor.as_ref()),
        joined(peers.collect()),
        grown(row.many),
        grown(row.big),
        joined(row.targets.iter().map(|target| target.promised.clone()).collect()),
        joined(row.targets.iter().map(Target::shown).collect()),
    ]
}

fn times(ratio: f64) -> String {
    if ratio >= 10.0 { format!("{ratio:.0}x") } else { format!("{ratio:.2}x") }
}

/// Instructions, in thousands.
pub fn thousands(count: f64) -> String {
    let count = count / 1_000.0;
    if count >= 100.0 { format!("{count:.0} k") } else { format!("{count:.1} k") }
}

/// A time given in microseconds, in the unit that suits it.
pub fn time(us: f64) -> String {
    match us {
        us if us.is_nan() => "none".to_owned(),
        us if us < 100.0 => format!("{us:.1} us"),
        us if us < 1_000.0 => format!("{us:.0} us"),
        us if us < 100_000.0 => format!("{:.2} ms", us / 1_000.0),
        us if us < 10_000_000.0 => format!("{:.0} ms", us / 1_000.0),
        us => format!("{:.1} s", us / 1e6),
    }
}

/// The median and what one in a hundred exceeds.
pub fn spread(of: &Spread) -> String {
    format!("{}, p99 {}", time(of.p50()), time(of.p99()))
}
