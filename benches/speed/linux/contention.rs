//! Many processes on one store: how long a claim takes while the others write as well.
//!
//! Each process claims and releases an office of its own, so that they meet only at the store's
//! write lock. Beside ours: the same rows by hand, once with an `flock` around each transaction and
//! once with SQLite's own busy handler, and Python's filelock, which takes one lock. `Busy` is
//! counted: it is an answer, and what it costs shows in the number of claims.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs4::FileExt;
use incumbent::{Claim, ErrorKind};

use super::by_hand::{self, Flavour, Hand};
use super::library::store;
use super::measure::{Spread, now};
use super::page::Picture;
use super::picture::{Chart, Series};
use super::python;
use super::roles::{Role, text};
use super::stores::Places;
use super::table::{Beside, Row, Table, Target, time};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Ours,
    /// The same rows, guarded by an `flock`.
    Guarded,
    /// The same rows, with SQLite's busy handler.
    Sqlite,
    Filelock,
}

impl How {
    pub const ALL: [Self; 4] = [Self::Ours, Self::Guarded, Self::Sqlite, Self::Filelock];

    pub fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Guarded => "flock + SQLite",
            Self::Sqlite => "SQLite alone",
            Self::Filelock => "filelock",
        }
    }
}

/// How many, and how hard.
#[derive(Clone, Copy, Debug)]
pub struct Crush {
    pub processes: usize,
    pub pause_ms: u64,
    pub seconds: u64,
}

#[derive(Debug)]
pub struct Contest {
    pub per_second: f64,
    /// How many the unluckiest process got, as a part of the mean.
    pub fewest: f64,
    /// Microseconds of one claim.
    pub took: Spread,
    pub busy: usize,
}

/// One contest; `None` where that is not installed.
pub fn contest(how: How, crush: Crush, directory: &Path, python: Option<&Path>) -> Option<Contest> {
    let (pause, seconds) = (crush.pause_ms.to_string(), crush.seconds.to_string());
    let path = directory.join(if how == How::Ours { "state.db" } else { "by-hand.db" });
    match how {
        How::Ours => drop(store(&path)),
        How::Guarded | How::Sqlite => drop(Hand::new(Flavour::Floor, directory)),
        How::Filelock => {}
    }
    let contender = |name: &str| -> Option<Command> {
        Some(match how {
            How::Filelock => {
                python::script(python?, &["contend", text(directory), name, &pause, &seconds])
            }
            How::Ours | How::Guarded | How::Sqlite => {
                Role::command(&["contend", how.word(), text(&path), name, &pause, &seconds])
            }
        })
    };
    // All begin when this is closed.
    let (waiting, gate) = std::io::pipe().expect("a pipe");
    let mut children = Vec::new();
    for number in 0..crush.processes {
        let child = contender(&format!("p{number}"))?
            .stdin(Stdio::from(waiting.try_clone().expect("a pipe")))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a contender");
        children.push(child);
    }
    // Until they have come to it: interpreters take their time.
    std::thread::sleep(Duration::from_millis(200 + 20 * crush.processes as u64));
    drop((gate, waiting));
    let (mut all_us, mut fewest, mut busy) = (Vec::new(), usize::MAX, 0);
    let mut failed = false;
    for mut child in children {
        let mut text = String::new();
        child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("latencies");
        failed |= !child.wait().expect("an end").success();
        let before = all_us.len();
        for line in text.lines() {
            match line.strip_prefix("busy ") {
                Some(count) => busy += count.parse::<usize>().expect("a count"),
                None => all_us.push(line.parse::<f64>().expect("a latency")),
            }
        }
        fewest = fewest.min(all_us.len() - before);
    }
    if failed && how == How::Filelock {
        return None;
    }
    assert!(!failed, "a contender failed: {how:?}");
    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    let (count, fewest, processes) = (all_us.len() as f64, fewest as f64, crush.processes as f64);
    #[allow(clippy::cast_precision_loss, reason = "a few")]
    let seconds = crush.seconds as f64;
    Some(Contest {
        per_second: count / seconds,
        fewest: fewest / (count / processes).max(1.0),
        took: Spread::of(all_us),
        busy,
    })
}

/// One contender; prints the latency of each claim in microseconds, and how often it was `Busy`.
pub fn contend(how: &str, path: &Path, name: &str, pause_ms: &str, seconds: &str) {
    let how = How::ALL.into_iter().find(|it| it.word() == how).expect("a way");
    let pause = Duration::from_millis(pause_ms.parse().expect("a pause"));
    let length = Duration::from_secs(seconds.parse().expect("a length"));
    let mut once: Box<dyn FnMut() -> Option<Duration>> = match how {
        How::Ours => ours(path, name),
        How::Guarded => by_others(path, name, true),
        How::Sqlite | How::Filelock => by_others(path, name, false),
    };
    std::io::stdin().read_to_end(&mut Vec::new()).expect("the beginning");
    let end = now() + length;
    let (mut latencies, mut busy) = (Vec::new(), 0);
    while now() < end {
        match once() {
            Some(took) => latencies.push(took.as_micros()),
            None => busy += 1,
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    for latency in latencies {
        println!("{latency}");
    }
    println!("busy {busy}");
}

fn ours(path: &Path, name: &str) -> Box<dyn FnMut() -> Option<Duration>> {
    let profile = store(path).profile(name).expect("a profile");
    Box::new(move || {
        let start: Instant = now();
        match profile.claim() {
            Ok(Claim::Granted(tenure)) => {
                let took = start.elapsed();
                drop(tenure);
                Some(took)
            }
            Ok(Claim::Held(holder)) => panic!("{holder}"),
            Err(error) if error.kind() == ErrorKind::Busy => None,
            Err(error) => panic!("{error}"),
        }
    })
}

/// The same rows, by a bare connection. Ids are drawn as ours are: by time, and by process.
#[allow(clippy::disallowed_methods, reason = "the guard of a bare database")]
fn by_others(path: &Path, name: &str, guarded: bool) -> Box<dyn FnMut() -> Option<Duration>> {
    let mut hand = Hand::join(path);
    let lock = path.with_extension("guard");
    let lock = std::fs::File::options().create(true).append(true).open(lock).expect("a guard");
    let number: i64 = name.trim_start_matches('p').parse().expect("a number");
    let first = number * 10_000_000;
    let mut id = first;
    let name = name.to_owned();
    let under_guard = move |work: &mut dyn FnMut() -> rusqlite::Result<()>| {
        if guarded {
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
        }
        let done = work();
        if guarded {
            FileExt::unlock(&lock).expect("an unlock");
        }
        match done {
            Ok(()) => true,
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == rusqlite::ErrorCode::DatabaseBusy =>
            {
                false
            }
            Err(error) => panic!("{error}"),
        }
    };
    Box::new(move || {
        id += 1;
        let start = now();
        if !under_guard(&mut || by_hand::claim(&mut hand, &name, id)) {
            return None;
        }
        let took = start.elapsed();
        while !under_guard(&mut || by_hand::release(&mut hand, &name, first, id)) {}
        Some(took)
    })
}

/// The rows of the table. Their targets: with 32 processes a claim takes at most twice as long as
/// with an `flock` around it; with 128 there are at least half as many, and nobody starves.
pub fn rows(table: &mut Table, places: &Places, python: Option<&Path>, quick: bool) {
    let seconds = if quick { 1 } else { 5 };
    for (processes, pause_ms) in [(8, 2), (32, 2), (128, 20)] {
        let name = format!("{processes} processes, pauses of {pause_ms} ms (ratio of p99)");
        if !table.wants(&name) {
            continue;
        }
        let crush = Crush { processes, pause_ms, seconds };
        let of = |how: How| {
            let directory = places.directory(&format!("contest {processes} {}", how.word()));
            contest(how, crush, &directory, python)
        };
        let ours = of(How::Ours).expect("ours is always there");
        let others: Vec<(How, Option<Contest>)> =
            How::ALL.into_iter().skip(1).map(|how| (how, of(how))).collect();
        let guarded = others[0].1.as_ref();
        let rate = guarded.map(|guarded| ours.per_second / guarded.per_second);
        let slow = guarded.map(|guarded| ours.took.p99() / guarded.took.p99());
        #[allow(clippy::cast_precision_loss, reason = "a few")]
        let busy = ours.busy as f64;
        let targets = match processes {
            32 => vec![Target::at_most("flock + SQLite's p99", 2.0, slow, "x")],
            128 => vec![
                Target::at_least("flock + SQLite's claims", 0.5, rate, "x"),
                Target::at_least("of the mean for each", 0.5, Some(ours.fewest), "x"),
                Target::at_most("Busy", 0.0, Some(busy), ""),
            ],
            _ => Vec::new(),
        };
        let peers = others.iter().map(|(how, contest)| match contest {
            Some(contest) => Beside {
                name: how.word(),
                took: shown(contest),
                // Of their times, as everywhere in the table.
                ratio: Some(ours.took.p99() / contest.took.p99()),
            },
            None => Beside::missing(how.word()),
        });
        table.push(Row {
            name,
            ours: shown(&ours),
            peers: peers.collect(),
            targets,
            ..Row::default()
        });
    }
}

pub fn shown(contest: &Contest) -> String {
    format!(
        "{:.0}/s, p50 {}, p99 {}, worst {}, fewest {:.2} of the mean, Busy {}",
        contest.per_second,
        time(contest.took.p50()),
        time(contest.took.p99()),
        time(contest.took.worst()),
        contest.fewest,
        contest.busy
    )
}

/// `contention [PROCESSES [PAUSE_MS [SECONDS]]]`.
pub fn main(numbers: &[u64]) {
    let number = |at: usize, default: u64| numbers.get(at).copied().unwrap_or(default);
    let crush = Crush {
        processes: usize::try_from(number(0, 32)).expect("some processes"),
        pause_ms: number(1, 2),
        seconds: number(2, 5),
    };
    let python = python::interpreter();
    let places = Places::new();
    println!("{crush:?}");
    for how in How::ALL {
        let directory = places.directory(how.word());
        match contest(how, crush, &directory, python.as_deref()) {
            Some(contest) => println!("{:<16} {}", how.word(), shown(&contest)),
            None => println!("{:<16} SKIPPED: not installed", how.word()),
        }
    }
}

/// The pictures: more and more processes, each with pauses of 2 ms.
pub fn series(places: &Places, python: Option<&Path>, quick: bool) -> Vec<Picture> {
    let seconds = if quick { 1 } else { 3 };
    let mut slow: Vec<Series> = Vec::new();
    let mut rate: Vec<Series> = Vec::new();
    for how in How::ALL {
        let (mut p99, mut claims) = (Vec::new(), Vec::new());
        for processes in [1, 2, 4, 8, 16, 32, 64, 128] {
            let crush = Crush { processes, pause_ms: 2, seconds };
            let directory = places.directory(&format!("series {processes} {}", how.word()));
            let Some(contest) = contest(how, crush, &directory, python) else { continue };
            eprintln!("  {} x {processes}: {}", how.word(), shown(&contest));
            #[allow(clippy::cast_precision_loss, reason = "a few")]
            let x = processes as f64;
            p99.push((x, contest.took.p99() / 1_000.0));
            claims.push((x, contest.per_second));
        }
        for (all, points) in [(&mut slow, p99), (&mut rate, claims)] {
            if !points.is_empty() {
                all.push(Series { name: how.word().to_owned(), points });
            }
        }
    }
    let chart = |title: &str, y, series, logarithmic| Chart {
        title: title.to_owned(),
        x: "processes, each with pauses of 2 ms",
        y,
        series,
        logarithmic,
        bound: None,
    };
    let slow = chart("How long one claim in a hundred takes at least", "p99, ms", slow, true);
    let rate = chart("How many claims all of them get", "claims a second", rate, false);
    vec![
        Picture { name: "contention.svg", svg: slow.svg() },
        Picture { name: "contention-rate.svg", svg: rate.svg() },
    ]
}
