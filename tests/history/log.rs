//! The log of a soak: what was asked, what was answered, what was witnessed and who was hurt, by
//! one clock. The workload writes it, the checker reads it, and neither knows more of the other.
//!
//! JSON Lines: one record a line, one `write(2)` a record, `O_APPEND`. Many processes write to one
//! file, which lies outside of every store and disk that is hurt. A writer may be killed within
//! its line: each record begins with a line break, so that it spoils no other, and a line that
//! does not parse is a record that was never made.
//!
//! Rules for who writes:
//!
//! * `Begin` before the call, `End` after it. No `End`: it was killed, and what it asked for may
//!   or may not have happened.
//! * A fault begins before it hurts (before the `kill(2)`, before the `unlink(2)`), and ends after.
//! * `In` after the witness file was locked, `Out` before it is unlocked.
//! * `Died` after the death was seen: by `waitpid`, or on a pidfd.
//! * Who does not know, says `None`. The checker concludes nothing from it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of the machine's own `CLOCK_MONOTONIC`; see [`now`].
pub type Ns = u64;
/// Names one call, from its `Begin` to its `End`; see [`Log::begin`].
pub type Op = u64;
/// The id that the store gave to an incarnation; for an office also its fence.
pub type Incarnation = i64;
/// A process as the harness sees it.
pub type Pid = u32;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub at: Ns,
    /// Who writes. `None` in a pid namespace that hides it.
    pub by: Option<Pid>,
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The soak begins. The first record.
    Start { seed: u64, text: String },
    /// Somebody is about to ask for something.
    Begin { op: Op, call: Call, from: Origin },
    /// A program was started to do it. A library owner does it itself: no such record, `by` of
    /// `Begin` and `End` is it.
    Started { op: Op, pid: Pid },
    /// The answer is there.
    End { op: Op, answer: Answer },
    /// Told by the command or the holder itself, in a file that the product knows nothing of.
    Witness { thing: Thing, incarnation: Option<Incarnation>, op: Option<Op>, step: Step },
    /// The nemesis.
    Fault { fault: u64, phase: Phase, hurt: Hurt },
    /// A process has ended, and somebody saw it.
    Died { pid: Pid, incarnation: Option<Incarnation>, how: Death, by: Killer },
    /// What a store says when all is over: everything of the soak has been ended, then everything
    /// was claimed and released once more, then this was read.
    Final(Box<Final>),
    /// For people.
    Note { text: String },
}

/// What only one may hold, or `slots` of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thing {
    Office { store: String, profile: String, kind: String },
    Lock { store: String, scope: String, identity: String, slots: u32 },
}

/// Where a call comes from, as far as its answers may depend on that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// A pid namespace other than that of the harness.
    pub namespace: Option<String>,
    /// Its clocks are faked: it measures time otherwise than we do.
    #[serde(default)]
    pub faked_clock: bool,
    /// Another user than that of the harness.
    pub uid: Option<u32>,
}

/// How long a call may wait for somebody else to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    Once,
    AtMost { ms: u64 },
    Forever,
}

/// What was asked for. `thing` is what it is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// An office, and locks with it, all or none: the library, or `claim --pid` (`pid`: for whom).
    Claim { thing: Thing, locks: Vec<Thing>, wait: Wait, replace: bool, pid: Option<Pid> },
    /// `incumbent run`: claims, and stays until its command has ended. `End` is its exit.
    Run { thing: Thing, locks: Vec<Thing>, wait: Wait, replace: bool },
    /// A lock: the library, or `lock acquire --pid` (`pid`: for whom).
    Acquire {
        thing: Thing,
        wait: Wait,
        ttl_ms: Option<u64>,
        evict_stopped: bool,
        replace: bool,
        pid: Option<Pid>,
    },
    /// A successor takes what was handed to it: `Tenure::from_environment`.
    Adopt { thing: Thing },
    /// Do I hold it still?
    Verify { thing: Thing, incarnation: Incarnation },
    /// [`Call::Verify`], which also renews the lease.
    Renew { thing: Thing, incarnation: Incarnation },
    /// How long the lease of a lock lasts still: its holder asks, after it was renewed.
    Lease { thing: Thing },
    /// The owner gives it back, or drops its guard. Of an office, with all its locks.
    Release { thing: Thing, incarnation: Incarnation },
    /// The owner executes another program (`exec`), or gives all to a child of its own.
    HandOver { thing: Thing, incarnation: Incarnation, exec: bool },
    /// The owner executes another program without a word (no handover).
    ReExec { thing: Thing, incarnation: Incarnation },
    /// Asks the owner to end. `wait`: its `--timeout`.
    Stop { thing: Thing, wait: Wait, force: bool },
    /// Asks a `run` for another start of its command, in the same tenure.
    Restart { thing: Thing, wait: Wait },
    /// `evict` of an office, `unlock` of a lock.
    Evict { thing: Thing, force: bool },
    /// Does anybody hold it?
    Status { thing: Thing },
    /// The owner says something of itself, in a word that nobody has used before.
    Say { thing: Thing, incarnation: Incarnation, word: String },
    /// Somebody says something of itself as that incarnation, with a token that is nobody's.
    Forge { thing: Thing, incarnation: Incarnation, word: String },
    /// A message to one incarnation. `token`: its `--reason`, which nobody has used before.
    MarkerWrite { name: String, to: Incarnation, token: String, ttl_ms: Option<u64> },
    /// Is there one for `me`? `name`: only of that one.
    MarkerPeek { name: Option<String>, me: Incarnation },
    /// Takes one for `me`. `name`: only of that one.
    MarkerConsume { name: Option<String>, me: Incarnation },
    /// Takes all for `to` away.
    MarkerClear { name: String, to: Incarnation },
    /// `doctor --fix`. `Yes`: it moved the store aside and began a new one, or may have; without
    /// an answer as well. That is a loss of the store, and is written down as one, too.
    Repair { store: String },
    /// Which incarnations have locks on record although they have ended?
    Remains { store: String },
    /// Anything else: the verb with its arguments. Nothing follows from its answer but that the
    /// call came back.
    Other { verb: String },
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Yours. `fence`: of the thing asked for; `locks`: of those asked for with it.
    Granted {
        incarnation: Incarnation,
        fence: i64,
        /// Held by the same incarnation before, and still: the fence is the same.
        reacquired: bool,
        /// Of an adoption and of an office after `ReExec`: whose it was.
        heir_of: Option<Incarnation>,
        locks: Vec<(Thing, i64)>,
    },
    /// Somebody else has it. The words are those of the documents: `verdict` is `alive` or
    /// `unknown`, `reason` is `anchor_held`, `reserved`, `timed_out`...
    Held { by: Option<Incarnation>, verdict: String, reason: String },
    /// To a question of yes and no, and of a release: it was ours, and it is free now.
    Yes,
    /// The opposite: of a release, of a marker that is to be cleared.
    No,
    /// To `Verify` and `Renew`: not yours any more. `reason`: the document's word, if it says one.
    Lost { reason: Option<String> },
    /// To `Status`. `word`: what its holder said last ([`Call::Say`]).
    Running { incarnation: Option<Incarnation>, reason: String, word: Option<String> },
    /// To `Status`, with the reason of the last end.
    NotRunning { reason: String },
    /// It could not be seen. Proves nothing.
    Unknown { reason: String },
    /// To `MarkerPeek` and `MarkerConsume`. `token`: its reason, `None` for one of the verbs' own
    /// (`planned_stop`...). `recorded`: false where the answer could not be written down.
    Marker { name: String, token: Option<String>, recorded: bool },
    /// To the same: there is none.
    NoMarker,
    /// To `Lease`: of the holder with that fence. `remaining_ms`: `None` without a lease.
    Leased { incarnation: Incarnation, fence: i64, remaining_ms: Option<u64> },
    /// To `Remains`.
    Remains { of: Vec<Incarnation> },
    /// To what has no other answer.
    Done,
    /// The end of a program of which nothing else is known. 128 + n after a signal.
    Exit { code: i32 },
    /// It could not be found out, or done. `kind`: the word of the error. Proves nothing.
    Error { kind: String, text: String },
}

/// What a witness saw. It tries once, then says `In` or `Refused`; after `Refused` it tries on for
/// as long as it holds the thing, and says `In` when it got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It has the witness file.
    In,
    /// It gives it back.
    Out,
    /// Somebody else has the file: two owners at once. `holder`: who, of `/proc/locks`.
    /// `exiting`: that process was on its way out (`PF_EXITING` in `/proc/PID/stat`, or gone).
    /// For a lock with slots: all of its files are taken.
    Refused { holder: Option<Pid>, exiting: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Begin,
    End,
}

/// What the nemesis does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hurt {
    /// A signal to one process. SIGSTOP begins and SIGCONT ends one fault: [`Hurt::Stop`].
    Signal { pid: Pid, signal: i32 },
    /// They stand still, from begin to end: SIGSTOP, or the freezer.
    Stop { pids: Vec<Pid> },
    /// The store's file, and all that belongs to it, goes: deleted, moved, put back from a copy,
    /// copied over.
    StoreLost { store: String, how: String },
    /// Its `-wal` alone is deleted, with what was not checkpointed.
    WalLost { store: String },
    /// Nothing can be written there.
    DiskFull { store: String },
    /// This process runs short of something.
    Shortage { pid: Option<Pid>, of: String },
    /// The wall clock steps for this process, or for all.
    ClockStep { pid: Option<Pid>, by_ms: i64 },
    /// A foreign program reads or writes in the store, or moves its `-wal` into it.
    Foreign { store: String, how: String },
    /// A process that holds something is made to do it: `fork`, `stray_open`, `panic`,
    /// `close_all`... Only the last one may cost it what it holds.
    Mischief { pid: Option<Pid>, how: String },
    /// The keepers that stand for this process (or for all) are killed.
    Keepers { of: Option<Pid> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Death {
    Exit {
        code: i32,
    },
    Signal {
        signal: i32,
    },
    /// It is gone, and nobody says how.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Killer {
    Itself,
    Nemesis {
        fault: u64,
    },
    /// `run`, `stop`, a takeover, a claim that met a command left behind, a parent's death.
    Product,
    Unknown,
}

/// The state of one store when all is over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Final {
    pub store: String,
    /// `status` of each office with a live row.
    pub live: Vec<LiveRow>,
    /// `locks`: every one that is on record.
    pub locks: Vec<LiveRow>,
    pub markers: Vec<MarkerRow>,
    /// Every incarnation that has ended and is still on record.
    pub history: Vec<EndedRow>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveRow {
    pub thing: Thing,
    pub incarnation: Incarnation,
    pub fence: i64,
    /// `alive`, `dead`, `unknown`.
    pub verdict: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarkerRow {
    pub name: String,
    pub to: Incarnation,
    pub token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedRow {
    /// `None`: a row for locks only.
    pub thing: Option<Thing>,
    pub incarnation: Incarnation,
    pub reason: String,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
}

impl Thing {
    pub fn store(&self) -> &str {
        match self {
            Self::Office { store, .. } | Self::Lock { store, .. } => store,
        }
    }

    /// How many may hold it at once.
    pub fn places(&self) -> usize {
        match self {
            Self::Office { .. } => 1,
            Self::Lock { slots, .. } => usize::try_from(*slots).unwrap().max(1),
        }
    }

    pub fn is_office(&self) -> bool {
        matches!(self, Self::Office { .. })
    }
}

/// The end of a log that is written to.
#[derive(Debug)]
pub struct Log {
    file: File,
    sees_its_pid: bool,
}

impl Log {
    /// Opens the log, or makes it.
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { file, sees_its_pid: true }
    }

    /// For a process in a pid namespace of its own: it does not know its pid outside.
    pub fn without_pid(mut self) -> Self {
        self.sees_its_pid = false;
        self
    }

    /// Writes it down: it happened now.
    pub fn say(&self, what: What) {
        self.say_at(now(), what);
    }

    pub fn say_at(&self, at: Ns, what: What) {
        // Asked each time: a forked child has the log of its parent.
        let by = self.sees_its_pid.then(std::process::id);
        let record = Record { at, by, what };
        let line = format!("\n{}\n", serde_json::to_string(&record).unwrap());
        let mut file = &self.file;
        let written = file.write(line.as_bytes()).unwrap();
        assert_eq!(written, line.len(), "the log's own disk is full");
    }

    /// Begins a call; give the answer to [`Log::end`].
    pub fn begin(&self, from: &Origin, call: Call) -> Op {
        // The clock tells apart what two children of one process would draw alike.
        let op = now() ^ fastrand::u64(..);
        self.say(What::Begin { op, call, from: from.clone() });
        op
    }

    pub fn end(&self, op: Op, answer: Answer) {
        self.say(What::End { op, answer });
    }
}

/// Now, by the machine's `CLOCK_MONOTONIC`.
///
/// rustix asks the vDSO, which a library that fakes the time for the C library's callers
/// (libfaketime) does not stand in front of. A time namespace does: its offset is taken off.
pub fn now() -> Ns {
    let now = clock_gettime(ClockId::Monotonic);
    let now_ns = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(now_ns - offset_ns()).unwrap_or(0)
}

/// How far ahead this process' time namespace is. It stays as it is once the process runs: `setns`
/// and `unshare` change only what its children get.
fn offset_ns() -> i128 {
    static OFFSET: std::sync::OnceLock<i128> = std::sync::OnceLock::new();
    *OFFSET.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        offset_of(&text).unwrap_or(0)
    })
}

/// `monotonic  SECONDS  NANOSECONDS`, see `time_namespaces(7)`.
fn offset_of(text: &str) -> Option<i128> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("monotonic"))?;
    let mut numbers = line.split_whitespace().map(str::parse::<i64>);
    let (seconds, ns) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(ns))
}

/// A log as it was read.
#[derive(Debug)]
pub struct Kept {
    /// In the order of time.
    pub records: Vec<Record>,
    /// Lines that somebody was killed within.
    pub torn: usize,
}

pub fn read(path: &Path) -> Kept {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&String::from_utf8_lossy(&text))
}

fn parse(text: &str) -> Kept {
    let mut records = Vec::new();
    let mut torn = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(record) => records.push(record),
            Err(_) => torn += 1,
        }
    }
    records.sort_by_key(|record: &Record| record.at);
    Kept { records, torn }
}

/// Writes records down that are not of now: what is left of a log that was cut.
pub fn write(path: &Path, records: &[Record]) {
    let mut text = String::new();
    for record in records {
        text.push_str(&serde_json::to_string(record).unwrap());
        text.push('\n');
    }
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_the_order_of_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = Log::open(&path);
        log.say_at(20, What::Note { text: "second".to_owned() });
        log.say_at(10, What::Note { text: "first".to_owned() });
        let read = read(&path);
        assert_eq!(read.torn, 0);
        assert_eq!(read.records.iter().map(|record| record.at).collect::<Vec<_>>(), [10, 20]);
        assert_eq!(read.records[0].by, Some(std::process::id()));
    }

    #[test]
    fn a_torn_line_spoils_no_other() {
        let whole = r#"{"at":1,"by":null,"what":{"note":{"text":"whole"}}}"#;
        let read = parse(&format!("\n{whole}\n\n{}\n{whole}\n", &whole[..20]));
        assert_eq!((read.records.len(), read.torn), (2, 1));
    }

    #[test]
    fn a_call_keeps_its_number_from_begin_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = Log::open(&path).without_pid();
        let op = log.begin(&Origin::default(), Call::Other { verb: "doctor".to_owned() });
        log.end(op, Answer::Exit { code: 0 });
        let records = read(&path).records;
        assert!(matches!(records[0].what, What::Begin { op: it, .. } if it == op));
        assert!(matches!(records[1].what, What::End { op: it, .. } if it == op));
        assert!(records[0].at <= records[1].at);
        assert_eq!(records[0].by, None);
    }

    #[test]
    fn the_offset_of_a_time_namespace() {
        assert_eq!(offset_of("monotonic    5         7\nboottime 1 0\n"), Some(5_000_000_007));
        assert_eq!(offset_of("monotonic   -2         0\nboottime 1 0\n"), Some(-2_000_000_000));
        assert_eq!(offset_of(""), None);
    }

    #[test]
    fn the_clock_goes_forward() {
        let first = now();
        assert!(first > 0 && now() >= first);
    }
}
