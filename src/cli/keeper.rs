//! Records for processes that do not link the library, and the keepers that anchor them.
//!
//! A keeper is a small process of ours that holds the anchor in the recorded process' place and
//! ends with it, so that such records live and die like all others. There is one per recorded
//! process: a second record leans on the first one's keeper. It belongs to nobody's session or
//! terminal, and inherits no descriptor, so that it holds nothing else open. When the store is
//! replaced it goes on in the new one, as a `run` does. See `keeper/` for its work.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::args::Global;
use crate::cli::output;
use crate::cli::output::{Complaint, exit};
use crate::clock::millis;
use crate::keeper::keep::Keeping;
use crate::keeper::pair::{KeeperInbox, Pair, wait_as_second};
use crate::keeper::record;
use crate::keeper::record::{Record, RecordOutcome, RecordedBy};
use crate::keeper::target::Target;
use crate::stop::Evicted;
use crate::sys::{ProcessHandle, StartTime, StartTimeUnit, supervise};
use crate::{
    Error, ErrorKind, Holder, InstanceId, Office, OpenOptions, ProfileName, Result, Store, sys,
};
use std::time::Duration;

pub(super) use crate::keeper::pair::VERB as VERB_OF_SECOND;

/// The hidden verb of a keeper.
pub(super) const VERB: &str = "__keeper";

/// What a keeper tells the verb that started it, in one JSON document on a pipe.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeeperAnswer {
    pub(super) code: i32,
    pub(super) document: Value,
    /// For standard output.
    pub(super) text: String,
    /// For standard error.
    pub(super) complaint: Option<Complaint>,
}

/// A keeper's arguments. They show in `ps`, where they say what the process is for.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    db: PathBuf,
    #[arg(long)]
    profile: String,
    /// The kind of office to claim; without it, a row for locks is made.
    #[arg(long)]
    kind: Option<String>,
    #[arg(long)]
    home: Option<PathBuf>,
    #[arg(long)]
    pid: u32,
    #[arg(long)]
    start_time: Option<i64>,
    #[arg(long)]
    start_time_unit: Option<String>,
    #[arg(long)]
    allow_filesystem: Vec<String>,
    /// The second one: the anchor that both hold, as what it is open, and the first one.
    #[arg(long)]
    anchor: Option<String>,
    #[arg(long)]
    anchor_descriptor: Option<i32>,
    #[arg(long)]
    first: Option<u32>,
}

impl Arguments {
    fn parse_all(arguments: &[OsString]) -> std::result::Result<Self, clap::Error> {
        let name = std::iter::once(OsString::from("incumbent"));
        Self::try_parse_from(name.chain(arguments.iter().cloned()))
    }

    /// The process to be kept, if it is still the same.
    fn target(&self) -> Result<Target> {
        let expected = match (self.start_time, self.start_time_unit.as_deref()) {
            (Some(value), Some(unit)) => {
                StartTimeUnit::parse(unit).map(|unit| StartTime { value, unit })
            }
            (Some(_) | None, None) | (None, Some(_)) => None,
        };
        let target = Target::prove(self.pid)?;
        if expected.is_some() && target.start_time != expected {
            let what = format!("pid {} ended while it was being recorded", self.pid);
            return Err(Error::new(ErrorKind::NotRunning, what)
                .with_hint("name a process that runs, with `--pid`"));
        }
        Ok(target)
    }

    fn options(&self) -> OpenOptions {
        let options = OpenOptions::new().path(&self.db).single_reader();
        self.allow_filesystem.iter().fold(options, OpenOptions::allow_filesystem)
    }
}

/// What a keeper is started for.
pub(super) enum KeeperFor<'a> {
    Office(&'a Office, Option<&'a Path>),
    /// Locks of this profile.
    Locks(&'a ProfileName),
}

/// Starts a keeper for `target` and waits for its report.
pub(super) fn start(
    global: &Global,
    store: &Store,
    purpose: &KeeperFor<'_>,
    target: &Target,
) -> Result<KeeperAnswer> {
    let mut arguments: Vec<OsString> = vec![VERB.into()];
    let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    add("--db", store.path().into());
    add("--pid", target.pid.to_string().into());
    match purpose {
        KeeperFor::Office(office, home) => {
            add("--profile", office.profile.as_str().into());
            add("--kind", office.kind.as_str().into());
            if let Some(home) = home {
                add("--home", home.into());
            }
        }
        KeeperFor::Locks(profile) => add("--profile", profile.as_str().into()),
    }
    if let Some(start_time) = target.start_time {
        add("--start-time", start_time.value.to_string().into());
        add("--start-time-unit", start_time.unit.as_str().into());
    }
    for kind in &global.allow_filesystem {
        add("--allow-filesystem", kind.into());
    }
    let failed = |what: &str, error: std::io::Error| {
        if let Some(shortage) = sys::Shortage::of(&error) {
            return Error::shortage(shortage, &format!("{what} a keeper process"));
        }
        Error::internal(format!("cannot {what} a keeper process: {error}"))
            .with_hint("`--no-keeper` records without one")
            .caused_by(error)
    };
    let mut keeper = supervise::spawn_keeper(&arguments).map_err(|error| failed("start", error))?;
    let mut answer = String::new();
    if let Some(pipe) = &mut keeper.stdout {
        pipe.read_to_string(&mut answer).map_err(|error| failed("hear from", error))?;
    }
    serde_json::from_str(&answer).map_err(|error| {
        Error::new(ErrorKind::Busy, "the keeper process was ended before it could report")
            .with_hint("try again; `--no-keeper` records without one")
            .with_retry_after(Duration::from_millis(100))
            .caused_by(error)
    })
}

/// A keeper that fails in the middle of something holds the lock to its last moment, and leaves the
/// other one at work.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|_| std::process::abort()));
}

/// A keeper's whole life.
pub(super) fn main(arguments: &[OsString]) -> i32 {
    abort_on_panic();
    if supervise::detach().is_err() {
        return exit::FAILED;
    }
    let Ok(parsed) = Arguments::parse_all(arguments) else { return exit::USAGE };
    let (report, keeping) = match claim_and_keep(&parsed, arguments) {
        Ok((report, keeping)) => (report, keeping),
        Err(error) => (failure(&error), None),
    };
    let told = serde_json::to_string(&report).map(|report| output::write(report.as_bytes()));
    // Whoever asked may be gone: the record stands all the same.
    drop(told);
    if supervise::close_standard_output().is_err() {
        return exit::FAILED;
    }
    if let Some(keeping) = keeping {
        keeping.keep();
    }
    report.code
}

/// The whole life of the second one.
pub(super) fn second(arguments: &[OsString]) -> i32 {
    abort_on_panic();
    let Ok(parsed) = Arguments::parse_all(arguments) else { return exit::USAGE };
    let (Some(name), Some(descriptor), Some(first)) =
        (&parsed.anchor, parsed.anchor_descriptor, parsed.first)
    else {
        return exit::USAGE;
    };
    // From here on the lock is ours as well, and ends with us, however we end: it is never
    // unlocked.
    let Ok(file) = supervise::detach_with(descriptor) else { return exit::FAILED };
    let Ok(target) = parsed.target() else { return exit::OK };
    let inbox = KeeperInbox::new(&target.handle);
    // It started us: if it has ended by now, somebody else is our parent.
    let is_parent = supervise::own_parent() == Some(first);
    if is_parent
        && let Ok(first) = ProcessHandle::open(first).map(Arc::new)
        && !wait_as_second(&inbox, (target.pid, &target.handle), &first)
    {
        return exit::OK;
    }
    let ours = ["--anchor", "--anchor-descriptor", "--first"];
    let mut of_keeper = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if ours.iter().any(|name| word == name) {
            words.next();
        } else {
            of_keeper.push(word.clone());
        }
    }
    let Ok(shared) = file.try_clone() else { return exit::FAILED };
    let pair = Pair::left_alone(inbox, &of_keeper, name, shared);
    if let Some(keeping) = Keeping::take_over(parsed.options(), target, pair, name, file) {
        keeping.keep();
    }
    exit::OK
}

/// An error of a keeper, as its verb will show it.
fn failure(error: &Error) -> KeeperAnswer {
    KeeperAnswer {
        code: output::exit_code(error),
        document: output::error_document(error),
        text: String::new(),
        complaint: Some(Complaint::of(error)),
    }
}

fn claim_and_keep(
    arguments: &Arguments,
    words: &[OsString],
) -> Result<(KeeperAnswer, Option<Keeping>)> {
    let target = arguments.target()?;
    let options = arguments.options();
    let store = options.open()?;
    let profile: ProfileName = arguments.profile.parse()?;
    let Some(kind) = &arguments.kind else {
        let keeps = record::register(&store, &profile, &target)?;
        let report = KeeperAnswer {
            code: exit::OK,
            document: Value::Null,
            text: String::new(),
            complaint: None,
        };
        return Ok((report, keeps.then(|| Keeping::new(options, store, target, words))));
    };
    let office = Office { profile, kind: kind.parse()? };
    let home = arguments.home.as_deref();
    let recorded = record::record(&store, &office, home, &target, RecordedBy::Keeper)?;
    let report = report(&office, &target, &recorded);
    // Another keeper may have been faster, and then it keeps this record as well.
    let anchored = store.inner.own_anchor().is_some();
    let keeping = matches!(recorded, RecordOutcome::Granted { .. }) && anchored;
    Ok((report, keeping.then(|| Keeping::new(options, store, target, words))))
}

/// A claim's answer, for people and for programs.
pub(super) fn report(office: &Office, target: &Target, recorded: &RecordOutcome) -> KeeperAnswer {
    match recorded {
        RecordOutcome::Granted { instance, evicted } => {
            let instead = evicted.as_ref().map_or_else(String::new, |evicted| {
                format!(", in the place of a dead one ({})", evicted.reason.in_words())
            });
            KeeperAnswer {
                code: exit::OK,
                document: document(Some(*instance), evicted.as_ref(), None, None),
                text: format!("{office}: claimed for pid {}{instead}\n", target.pid),
                complaint: None,
            }
        }
        RecordOutcome::Already(record) => already(office, record),
        RecordOutcome::Held(holder) => KeeperAnswer {
            code: exit::NOT_NOW,
            document: document(None, None, None, Some(holder)),
            text: String::new(),
            complaint: Some(Complaint::new(holder.to_string()).advising(holder.advice())),
        },
        RecordOutcome::NeedsKeeper => {
            failure(&Error::internal("a keeper was asked to make a record that needs a keeper"))
        }
    }
}

/// The office is held by the very process that asks.
pub(super) fn already(office: &Office, record: &Record) -> KeeperAnswer {
    let pid = record.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    KeeperAnswer {
        code: exit::OK,
        document: document(Some(record.id), None, Some(record), None),
        text: format!("{office}: pid {pid} holds it already\n"),
        complaint: None,
    }
}

pub(super) fn document(
    granted: Option<InstanceId>,
    evicted: Option<&Evicted>,
    previous: Option<&Record>,
    holder: Option<&Holder>,
) -> Value {
    json!({
        "granted": granted.is_some(),
        "fence": granted.map(InstanceId::as_i64),
        "instance": granted.map(InstanceId::as_i64),
        "reacquired": previous.is_some(),
        "previous": previous.map(|record| json!({
            "instance": record.id.as_i64(),
            "pid": record.pid,
            "since": crate::clock::rfc3339(record.started_at_ms),
        })),
        "evicted": evicted,
        "holder": holder,
        "retry_after_ms": holder.and_then(|holder| holder.retry_after).map(millis),
    })
}
