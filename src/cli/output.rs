//! What the verbs print: data to standard output, the rest to standard error.
//!
//! A run never waits for its reader. What it says while its command runs goes through a thread of
//! its own (`tell_aside`): a pipe that nobody reads must not keep it from reaping, killing and
//! releasing.

use std::io;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cli::{printable, progress};
use crate::clock::{length, millis, rfc3339};
use crate::environment::{Fault, planted};
use crate::{Error, ErrorKind, clock, path_text};

pub(crate) use crate::cli::answer::{Answer, Complaint, Outcome};
pub(crate) use crate::cli::printable::one_line;
pub(crate) use crate::cli::style::Style;

/// The exit codes of the design.
pub(crate) mod exit {
    pub(crate) const OK: i32 = 0;
    pub(crate) const NO: i32 = 1;
    pub(crate) const USAGE: i32 = 2;
    pub(crate) const NOT_RUNNING: i32 = 3;
    pub(crate) const UNKNOWN: i32 = 4;
    pub(crate) const FAILED: i32 = 70;
    pub(crate) const NOT_NOW: i32 = 75;
    pub(crate) const CONFIGURATION: i32 = 78;
}

/// The exit code for an error.
pub(crate) fn exit_code(error: &Error) -> i32 {
    match error.kind() {
        ErrorKind::InvalidInput => exit::USAGE,
        ErrorKind::NotOwner => exit::NO,
        ErrorKind::NotRunning => exit::NOT_RUNNING,
        ErrorKind::Busy if planted(Fault::BusyIsPermanent) => exit::FAILED,
        ErrorKind::Busy | ErrorKind::StoreReplaced => exit::NOT_NOW,
        ErrorKind::CannotRead
        | ErrorKind::Permission
        | ErrorKind::Filesystem
        | ErrorKind::NotOurs
        | ErrorKind::TooNew
        | ErrorKind::TooOld
        | ErrorKind::ProfileBelongsTo => exit::CONFIGURATION,
        ErrorKind::CannotWrite
        | ErrorKind::Corrupt
        | ErrorKind::Forked
        | ErrorKind::Unsupported
        | ErrorKind::Internal => exit::FAILED,
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Writes to standard output, to the last byte. Nothing at all is written for nothing: a verb
/// without an answer does not look at where it would go.
pub(crate) fn write(body: &[u8]) -> io::Result<()> {
    if body.is_empty() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(body)?;
    stdout.flush()
}

pub(crate) fn error_document(error: &Error) -> Value {
    let mut document = json!({
        "kind": error.kind().as_str(),
        "message": error.to_string(),
        "path": null,
        "hint": error.command_line_hint(),
        "retry_after_ms": error.retry_after().map(millis),
    });
    if let Some(path) = error.path() {
        path_text::put(&mut document, "path", path);
    }
    json!({"error": document})
}

/// Says something beside the data, on standard error: one line, whatever it repeats.
pub(crate) fn tell(line: &str) {
    if NEVER_WAITS.load(Ordering::Relaxed) {
        return tell_aside(line);
    }
    write_line(line);
}

fn write_line(line: &str) {
    tell_lines(&(one_line(line.trim_end_matches('\n')) + "\n"));
}

/// Whether nobody is waited for any more.
static NEVER_WAITS: AtomicBool = AtomicBool::new(false);

/// From now on what is told waits for no reader of standard error (a full pipe, a stopped
/// terminal). Not before it has to be so: that takes a thread, and where one task is left it is
/// for the command of a `run`.
pub(crate) fn never_wait() {
    NEVER_WAITS.store(true, Ordering::Relaxed);
}

/// The same for lines of ours.
pub(crate) fn tell_lines(text: &str) {
    progress::beneath(|| {
        // Nobody is left to be told that nobody reads it.
        let _ = io::stderr().lock().write_all(printable::lines(text).as_bytes());
    });
}

/// Written by a thread of its own, and dropped where that has too much to say already.
fn tell_aside(line: &str) {
    match teller() {
        Some(teller) => drop(teller.try_send(Line::Text(line.to_owned()))),
        None => write_line(line),
    }
}

/// Waits until what was told aside is written, but not for a reader: one line is not written for
/// long where nobody reads. On a busy machine the thread that writes may only not have had its turn
/// yet.
pub(crate) fn finish_telling() {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    const ALIKE_MAX: usize = 3;
    let Some(teller) = TELLER.lock().clone() else { return };
    let (done, finished) = mpsc::channel();
    if teller.try_send(Line::Done(done)).is_err() {
        return;
    }
    let (mut before, mut alike) = (0, 0);
    while alike < ALIKE_MAX && finished.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = WRITTEN.load(Ordering::Relaxed);
        let is_writing = now % 2 == 1;
        alike = if is_writing && now == before { alike + 1 } else { 0 };
        before = now;
    }
}

/// How often the thread that writes what is told aside has begun and ended a line: odd while it
/// writes one.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

enum Line {
    Text(String),
    Done(mpsc::Sender<()>),
}

static TELLER: Mutex<Option<mpsc::SyncSender<Line>>> = Mutex::new(None);

/// `None` where no thread can be started now.
fn teller() -> Option<mpsc::SyncSender<Line>> {
    const LINES_MAX: usize = 64;
    let mut teller = TELLER.lock();
    if teller.is_none() {
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        let write = move || {
            for line in lines {
                match line {
                    Line::Text(text) => {
                        WRITTEN.fetch_add(1, Ordering::Relaxed);
                        write_line(&text);
                        WRITTEN.fetch_add(1, Ordering::Relaxed);
                    }
                    Line::Done(done) => drop(done.send(())),
                }
            }
        };
        let thread = std::thread::Builder::new().name("incumbent-stderr".to_owned()).spawn(write);
        *teller = thread.is_ok().then_some(sender);
    }
    teller.clone()
}

/// `3 min ago` for a Unix time in milliseconds; a time that lies ahead is shown as it stands, and
/// one of a clock that had not been set yet is unknown (FIELD-BUGS row 130).
pub(crate) fn ago(at_ms: i64) -> String {
    let now_ms = clock::now_ms();
    let age_ms = now_ms.saturating_sub(at_ms);
    match rfc3339(at_ms) {
        Some(at) if is_believed(at_ms) && age_ms < 0 => {
            format!("at {at} (in the future by this clock)")
        }
        Some(_) if is_believed(at_ms) => format!("{} ago", length(age_ms)),
        Some(_) | None => "at an unknown time".to_owned(),
    }
}

/// `412 MiB`.
pub(crate) fn mebibytes(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    format!("{} MiB", bytes.saturating_add(MIB / 2) / MIB)
}

/// What [`ago`] says, of something that goes on: `for 3 min`.
pub(crate) fn since(ago: &str) -> String {
    match ago.strip_suffix(" ago") {
        Some(length) => format!("for {length}"),
        None => format!("since {}", without_at(ago)),
    }
}

/// The same after "until".
pub(crate) fn until(ago: &str) -> String {
    format!("until {}", without_at(ago))
}

fn without_at(ago: &str) -> &str {
    ago.strip_prefix("at ").unwrap_or(ago)
}

/// Whether a stored Unix time in milliseconds can be that of a clock that was set: a machine
/// without one of its own begins with 1970, or with the day of its last shutdown.
pub(super) fn is_believed(wall_ms: i64) -> bool {
    const YEAR_2020_MS: i64 = 1_577_836_800_000;
    wall_ms >= YEAR_2020_MS
}
