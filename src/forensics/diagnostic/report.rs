//! What the process of a diagnostic does: it looks, and writes down section by section what it saw.
//!
//! Anything that it asks may hang, be it a program or a file in `/proc`. So each gets a share of
//! the time that is left, and what was cut off is said. Should even a write hang, a watchdog ends
//! the process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Deadline, now_ms, rfc3339};
use crate::command_line;
use crate::identities::Identities;
use crate::path_text::is_unprintable;
use crate::store::OpenOptions;
use crate::sys::{self, Existence, Pid, ProcessRow, diagnostic as os};

/// Whoever burns the machine is among the first.
const PROCESSES_MAX: usize = 60;

/// A gateway with more ancestors and children is lost in them anyway.
const TREE_LINES_MAX: usize = 40;

/// Of these the subject's ancestors, the nearest ones.
const ANCESTORS_MAX: usize = 15;

/// The OOM killer's report of one kill is longer, but its verdict stands in the last lines.
const MESSAGES_MAX: usize = 20;

/// A line, in bytes.
const LINE_LENGTH_MAX: usize = 1_000;

/// A section, in bytes. There are at most six, so that a diagnostic has at most 256 KiB, and no
/// section costs another one its place.
const SECTION_LENGTH_MAX: usize = 40 * 1024;

/// What is kept of a program's output, its end, and at times twice that: the `ps` of 60,000
/// processes.
const OUTPUT_LENGTH_MAX: usize = 4 * 1024 * 1024;

/// How long the store may take to say what is locked, which is a matter of milliseconds on an idle machine.
const IDENTITIES_WITHIN: Duration = Duration::from_secs(2);

/// How much later than the process itself the watchdog ends it: time for a write on a busy disk.
const GRACE: Duration = Duration::from_millis(500);

/// How long a program may take to end once it is killed: longer only in the kernel, where it stays.
const KILLED_WITHIN: Duration = Duration::from_millis(100);

/// The columns that we have `ps` show: one option each, since POSIX takes what follows a `=` for a
/// heading. Not the command line: joined with blanks it cannot be redacted.
const PS: &[&str] = &[
    "ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "user=", "-o", "pcpu=", "-o", "pmem=", "-o",
    "rss=", "-o", "stat=", "-o", "etime=",
];

/// What the process was started for.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) timeout: Duration,
    pub(crate) subject: Pid,
    pub(crate) signal: Option<i32>,
    /// Whose locked identities are not to be shown.
    pub(crate) store: Option<PathBuf>,
}

/// Writes the diagnostic to standard output.
pub(crate) fn write(task: &Task) -> io::Result<()> {
    let limit = task.timeout + GRACE;
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        std::thread::sleep(limit);
        os::end_at_once(70);
    })?;
    os::expect_children();
    let report = Report {
        log: os::standard_output()?,
        subject: task.subject,
        tag: format!("#{}", std::process::id()),
        deadline: Deadline::after(task.timeout),
        cut_off: Vec::new(),
        shown: Arc::new(Shown::default()),
    };
    report.write(task)
}

struct Report {
    log: File,
    subject: Pid,
    /// Which lines are ours: several diagnostics may write at once.
    tag: String,
    deadline: Deadline,
    /// What did not answer in its time.
    cut_off: Vec<String>,
    shown: Arc<Shown>,
}

impl Report {
    fn write(mut self, task: &Task) -> io::Result<()> {
        let began_at_ms = sys::boot_clock_ms();
        let signal = task.signal.map_or_else(|| "UNKNOWN".to_owned(), sys::signal_name);
        let tag = &self.tag;
        let date = rfc3339(now_ms());
        let header = format!(
            "=== shutdown diagnostic @ {signal} === {tag}\n\
             of pid {}, written by pid {} within {}; times are UTC\n\
             --- date --- {tag}\n{}\n",
            task.subject,
            std::process::id(),
            seconds(task.timeout),
            date.as_deref().unwrap_or("unavailable: the clock is not set"),
        );
        self.log.write_all(header.as_bytes())?;

        if let Some(store) = task.store.clone() {
            self.learn_identities(store);
        }
        let table = self.processes()?;
        self.tree(table)?;
        let load = os::load_average().unwrap_or_else(|why| format!("unavailable: {why}"));
        self.section("load average", &[load])?;
        self.kernel_messages()?;

        let took = Duration::from_millis((sys::boot_clock_ms() - began_at_ms).unsigned_abs());
        let cut_off = match self.cut_off.as_slice() {
            [] => String::new(),
            them => format!("; cut off: {}", them.join(", ")),
        };
        let hidden = match &self.shown.identities {
            Ok(_) => String::new(),
            Err(why) => format!("; command lines are not shown: {why}"),
        };
        let end = format!("=== end === {}, after {}{cut_off}{hidden}\n\n", self.tag, seconds(took));
        self.log.write_all(end.as_bytes())
    }

    /// Aside, because a file may hang as well.
    fn learn_identities(&mut self, store: PathBuf) {
        let file = store.display().to_string();
        let share = self.share(8).min(IDENTITIES_WITHIN);
        let (read, _) = collect(share, move |found| {
            drop(found.send(Shown::identities_of(store)));
        });
        let read = read.into_iter().next().unwrap_or_else(|| Err("no answer".to_owned()));
        let identities = read.map_err(|why| format!("{file} cannot be read ({why})"));
        self.shown = Arc::new(Shown { identities });
    }

    /// One write for one section, so that nobody else's lines come between its own.
    fn section(&mut self, title: &str, lines: &[String]) -> io::Result<()> {
        let text = section(&format!("--- {title} --- {}", self.tag), lines);
        self.log.write_all(text.as_bytes())
    }

    /// A part of the time that is left.
    fn share(&self, parts: u32) -> Duration {
        self.deadline.remaining() / parts
    }

    /// Asks a program; `Err` with what to write in place of its answer.
    fn ask(&mut self, words: &[&str], share: Duration) -> Result<Said, Refusal> {
        let answer = ask(words, share, &self.shown);
        if answer.as_ref().is_err_and(|refusal| refusal.kind == RefusalKind::Late) {
            self.cut_off.push(format!("{} after {}", words[0], seconds(share)));
        }
        answer
    }

    /// Does `work` aside, for it may hang; the lines that it sent within its time.
    fn lines(
        &mut self,
        what: &str,
        share: Duration,
        work: impl FnOnce(&Sender<String>) + Send + 'static,
    ) -> Vec<String> {
        let (lines, finished) = collect(share, work);
        let mut lines = lines;
        if !finished {
            let share = seconds(share);
            lines.push(format!("unavailable: the rest; {what} took longer than {share}"));
            self.cut_off.push(format!("{what} after {share}"));
        }
        lines
    }

    /// Returns the table as we see it ourselves, for the tree.
    fn processes(&mut self) -> io::Result<Result<Vec<ProcessRow>, String>> {
        let share = self.share(3);
        let told = self.ask(PS, share).and_then(|said| table_of_ps(&said));
        let share = self.share(4);
        let (rows, _) = collect(share, |rows| drop(rows.send(os::process_rows())));
        let table = rows.into_iter().next().unwrap_or_else(|| {
            self.cut_off.push(format!("the process table after {}", seconds(share)));
            Err(format!("no answer within {}", seconds(share)))
        });
        let (mut lines, rows) = match (told, &table) {
            (Ok(told), _) => (Vec::new(), Some(told)),
            (Err(refusal), Ok(table)) => {
                let instead = "what we see ourselves, by processor time since the start:";
                let lines = refusal.lines().into_iter().chain([instead.to_owned()]);
                (lines.collect(), Some(table_of_ours(table)))
            }
            (Err(refusal), Err(why)) => {
                let ours = format!("unavailable: the process table: {why}");
                (refusal.lines().into_iter().chain([ours]).collect(), None)
            }
        };
        if let Some(Table { heading, mut rows }) = rows {
            let count = rows.len();
            rows.sort_by(|a, b| {
                let by_memory = b.memory_kib.cmp(&a.memory_kib);
                b.cpu.total_cmp(&a.cpu).then(by_memory).then(a.pid.cmp(&b.pid))
            });
            rows.truncate(PROCESSES_MAX);
            let shown = rows.len();
            lines.push(heading);
            let of = Arc::clone(&self.shown);
            lines.extend(self.lines("reading command lines", self.share(3), move |lines| {
                for row in rows {
                    let _ = lines.send(format!("{} {}", row.columns, of.process(row.pid)));
                }
            }));
            lines.push(format!("({shown} of {count})"));
        }
        lines.extend(os::why_hidden().map(|why| format!("({why})")));
        self.section(&format!("processes, the first {PROCESSES_MAX} by cpu"), &lines)?;
        Ok(table)
    }

    fn tree(&mut self, table: Result<Vec<ProcessRow>, String>) -> io::Result<()> {
        let subject = self.subject;
        let shown = Arc::clone(&self.shown);
        let lines = match table {
            Err(why) => vec![format!("unavailable: the process table: {why}")],
            Ok(table) if table.iter().any(|row| row.pid == subject) => {
                self.lines("reading command lines of the tree", self.share(3), move |lines| {
                    let branches = branches(&table, subject);
                    for branch in branches.iter().take(TREE_LINES_MAX) {
                        let _ = lines.send(branch.line(subject, &shown));
                    }
                    if branches.len() > TREE_LINES_MAX {
                        let _ = lines.send(format!("({TREE_LINES_MAX} of {})", branches.len()));
                    }
                })
            }
            Ok(_) => {
                let why = match (sys::process_facts(subject).existence, os::why_hidden()) {
                    (Existence::Gone, _) => "it has ended".to_owned(),
                    (_, Some(why)) => why,
                    (_, None) => "it is not in the process table".to_owned(),
                };
                vec![format!("unavailable: pid {subject}: {why}")]
            }
        };
        self.section(&format!("process tree of pid {subject}"), &lines)
    }

    fn kernel_messages(&mut self) -> io::Result<()> {
        let title = format!("kernel messages, the last {MESSAGES_MAX}");
        let share = self.share(2);
        let mut told = self.ask(&["dmesg", "-T"], share);
        // Not every one can show the time of day.
        if told.as_ref().is_err_and(|refusal| refusal.kind == RefusalKind::Failed) {
            let share = self.share(2);
            told = self.ask(&["dmesg"], share);
        }
        let refusal = match told {
            Ok(said) => return self.section(&title, &last_lines(&said, &self.shown)),
            Err(refusal) => refusal,
        };
        self.section(&title, &refusal.lines())?;
        let share = self.share(1);
        let lines = match self.ask(&["journalctl", "--user", "-n", "20", "--no-pager"], share) {
            Ok(said) => last_lines(&said, &self.shown),
            Err(refusal) => refusal.lines(),
        };
        self.section(&format!("the user's journal, the last {MESSAGES_MAX}"), &lines)
    }
}

/// Why a program gave no answer.
struct Refusal {
    kind: RefusalKind,
    why: String,
    /// What it had said until it was ended.
    until_then: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RefusalKind {
    /// It could not be started.
    Missing,
    /// It ended with an error.
    Failed,
    /// It was ended.
    Late,
}

impl Refusal {
    fn new(kind: RefusalKind, why: String) -> Self {
        Self { kind, why, until_then: Vec::new() }
    }

    fn lines(self) -> Vec<String> {
        let mut lines = vec![format!("unavailable: {}", self.why)];
        if !self.until_then.is_empty() {
            lines.push("what it said until then:".to_owned());
            lines.extend(self.until_then);
        }
        lines
    }
}

/// Runs a program to its end, or to that of its time.
fn ask(words: &[&str], share: Duration, shown: &Shown) -> Result<Said, Refusal> {
    let [name, arguments @ ..] = words else { return Ok(Said::default()) };
    if share.is_zero() {
        return Err(Refusal::new(RefusalKind::Late, format!("{name}: no time was left")));
    }
    let deadline = Deadline::after(share);
    let mut command = sys::program(name);
    command
        .args(arguments)
        // Numbers and months as we know them, and times as in the rest of the log.
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    os::lead_group(&mut command);
    let mut child = command.spawn().map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => format!("not found in {}", sys::program_places()),
            _ => error.to_string(),
        };
        Refusal::new(RefusalKind::Missing, format!("{name}: {why}"))
    })?;
    let (ended, pipes) = channel();
    let out = Tail::of(child.stdout.take(), ended.clone());
    let err = Tail::of(child.stderr.take(), ended);
    // Both pipes end with their last writer; a receiver without senders has nothing to wait for.
    while pipes.recv_timeout(deadline.remaining()).is_ok() {}
    let Some(status) = wait(&mut child, deadline) else {
        os::kill_group(&mut child);
        let more = match wait(&mut child, Deadline::after(KILLED_WITHIN)) {
            Some(_) => "it was ended",
            None => "it was killed, and hangs in the kernel",
        };
        let why = format!("{name}: no answer within {}, {more}", seconds(share));
        let mut refusal = Refusal::new(RefusalKind::Late, why);
        let said = out.said(child.id());
        if !said.text.is_empty() {
            refusal.until_then = last_lines(&said, shown);
        }
        return Err(refusal);
    };
    if status.success() {
        return Ok(out.said(child.id()));
    }
    let said = err.said(child.id());
    let first =
        said.text.lines().find(|line| !line.trim().is_empty()).map(command_line::redact_line);
    // Most name themselves.
    let said = first.as_deref().unwrap_or("no reason given").trim();
    let said = said.strip_prefix(name).and_then(|said| said.strip_prefix(": ")).unwrap_or(said);
    Err(Refusal::new(RefusalKind::Failed, format!("{name}: {said} ({status})")))
}

/// Waits for the end of our child; `None` when it has not come by then.
fn wait(child: &mut Child, deadline: Deadline) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) | Err(_) if deadline.has_passed() => return None,
            Ok(None) | Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// What a program said, or the end of it.
#[derive(Clone, Debug, Default)]
struct Said {
    /// Its pid.
    by: Pid,
    text: String,
    /// The beginning was too much.
    is_cut: bool,
}

impl Said {
    /// Tells that only some of these are shown.
    fn count(&self, shown: usize, all: usize) -> String {
        let more = if self.is_cut { "more than " } else { "" };
        format!("({shown} of {more}{all})")
    }
}

/// The end of what comes out of a pipe, read as it comes by a thread.
struct Tail(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Tail {
    /// Lets go of `ended` at the end of the pipe.
    fn of(pipe: Option<impl Read + Send + 'static>, ended: Sender<()>) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let ours = Arc::clone(&kept);
        // Without a thread nothing is read, and the program is late.
        let _ = std::thread::Builder::new().spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            let mut pipe = pipe;
            while let Some(length @ 1..) = pipe.as_mut().and_then(|it| it.read(&mut chunk).ok()) {
                ours.lock().unwrap_or_else(PoisonError::into_inner).push(&chunk[..length]);
            }
            drop(ended);
        });
        Self(kept)
    }

    fn said(&self, by: Pid) -> Said {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A line that has lost its beginning is none.
        let from = if kept.is_cut { kept.bytes.iter().position(|it| *it == b'\n') } else { None };
        let bytes = &kept.bytes[from.map_or(0, |at| at + 1)..];
        Said { by, text: String::from_utf8_lossy(bytes).into_owned(), is_cut: kept.is_cut }
    }
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let surplus = self.bytes.len().saturating_sub(OUTPUT_LENGTH_MAX);
        // Not with every chunk: it moves all the rest.
        if surplus > OUTPUT_LENGTH_MAX {
            self.bytes.drain(..surplus);
            self.is_cut = true;
        }
    }
}

/// Does `work` in a thread, for it may hang; what it sent within its time, and whether that was
/// all.
fn collect<T: Send + 'static>(
    share: Duration,
    work: impl FnOnce(&Sender<T>) + Send + 'static,
) -> (Vec<T>, bool) {
    let deadline = Deadline::after(share);
    let (sender, receiver) = channel();
    let started = std::thread::Builder::new().spawn(move || work(&sender));
    let mut found = Vec::new();
    loop {
        match receiver.recv_timeout(deadline.remaining()) {
            Ok(item) => found.push(item),
            Err(RecvTimeoutError::Disconnected) => return (found, started.is_ok()),
            Err(RecvTimeoutError::Timeout) => return (found, false),
        }
    }
}

/// A table of processes, to be sorted, and to be given command lines.
#[derive(Debug)]
struct Table {
    heading: String,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    pid: Pid,
    /// Those that burn the most come first, of those that do nothing the largest: not the threads
    /// of the kernel.
    cpu: f64,
    memory_kib: u64,
    columns: String,
}

fn table_of_ps(said: &Said) -> Result<Table, Refusal> {
    // It sees itself, at work.
    let rows = said.text.lines().filter_map(row_of_ps).filter(|row| row.pid != said.by);
    let rows: Vec<Row> = rows.collect();
    if rows.is_empty() {
        let first = command_line::redact_line(said.text.lines().next().unwrap_or_default());
        let why = format!("ps: no table of processes, but {first:?}");
        return Err(Refusal::new(RefusalKind::Failed, why));
    }
    let heading = columns(["PID", "PPID", "USER", "%CPU", "%MEM", "RSS(KiB)", "STAT", "ELAPSED"]);
    Ok(Table { heading: heading + " COMMAND", rows })
}

/// The name of a user may hold blanks, so the last columns are counted from the end.
fn row_of_ps(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [pid, parent, user @ .., cpu, memory, resident, state, elapsed] = fields.as_slice() else {
        return None;
    };
    Some(Row {
        pid: pid.parse().ok()?,
        cpu: cpu.parse().ok()?,
        memory_kib: resident.parse().ok()?,
        columns: columns([pid, parent, &user.join("_"), cpu, memory, resident, state, elapsed]),
    })
}

fn columns([pid, parent, user, cpu, memory, resident, state, elapsed]: [&str; 8]) -> String {
    format!(
        "{pid:>7} {parent:>7} {user:<12} {cpu:>5} {memory:>5} {resident:>9} {state:<5} \
         {elapsed:>11}"
    )
}

fn table_of_ours(table: &[ProcessRow]) -> Table {
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    let rows = table.iter().map(|row| Row {
        pid: row.pid,
        #[allow(clippy::cast_precision_loss, reason = "for sorting")]
        cpu: row.cpu_ms.unwrap_or(0) as f64,
        memory_kib: row.memory_kib.unwrap_or(0),
        columns: our_columns([
            &row.pid.to_string(),
            &row.parent.unwrap_or(0).to_string(),
            &or_unknown(row.uid.map(|uid| uid.to_string())),
            &or_unknown(row.cpu_ms.map(|ms| format!("{}.{}", ms / 1_000, ms % 1_000 / 100))),
            &or_unknown(row.memory_kib.map(|kib| kib.to_string())),
            &or_unknown(row.state.map(String::from)),
            &or_unknown(row.age_s.map(elapsed)),
        ]),
    });
    let heading = our_columns(["PID", "PPID", "UID", "CPU(s)", "RSS(KiB)", "STAT", "ELAPSED"]);
    Table { heading: heading + " COMMAND", rows: rows.collect() }
}

fn our_columns([pid, parent, uid, cpu, resident, state, elapsed]: [&str; 7]) -> String {
    format!("{pid:>7} {parent:>7} {uid:>7} {cpu:>9} {resident:>9} {state:<4} {elapsed:>11}")
}

/// As `ps` writes it: `2-03:04:05`.
fn elapsed(s: u64) -> String {
    let (days, hours, minutes) = (s / 86_400, s / 3_600 % 24, s / 60 % 60);
    let days = if days > 0 { format!("{days}-") } else { String::new() };
    format!("{days}{hours:02}:{minutes:02}:{:02}", s % 60)
}

/// A process of the tree.
#[derive(Debug, PartialEq, Eq)]
struct Branch {
    pid: Pid,
    state: char,
    depth: usize,
}

impl Branch {
    fn line(&self, subject: Pid, shown: &Shown) -> String {
        let mark = if self.pid == subject { '>' } else { ' ' };
        let indent = "  ".repeat(self.depth);
        format!("{mark} {:>7} {} {indent}{}", self.pid, self.state, shown.process(self.pid))
    }
}

/// The ancestors of `subject`, itself and its descendants, each below its parent.
fn branches(table: &[ProcessRow], subject: Pid) -> Vec<Branch> {
    let by_pid: BTreeMap<Pid, &ProcessRow> = table.iter().map(|row| (row.pid, row)).collect();
    let mut line = vec![subject];
    while let Some(parent) = by_pid.get(&line[line.len() - 1]).and_then(|row| row.parent) {
        // The table is not of one moment: a recycled pid could close a circle.
        if line.contains(&parent) || line.len() > ANCESTORS_MAX || !by_pid.contains_key(&parent) {
            break;
        }
        line.push(parent);
    }
    let branch = |pid: Pid, depth: usize| Branch {
        pid,
        state: by_pid.get(&pid).and_then(|row| row.state).unwrap_or('?'),
        depth,
    };
    let mut branches: Vec<Branch> = Vec::new();
    for (depth, pid) in line.iter().rev().enumerate() {
        branches.push(branch(*pid, depth));
    }
    let mut left = vec![(subject, line.len() - 1)];
    while let Some((parent, depth)) = left.pop() {
        if parent != subject {
            branches.push(branch(parent, depth));
        }
        let children = by_pid.values().rev().filter(|row| row.parent == Some(parent));
        let children = children.filter(|row| !branches.iter().any(|it| it.pid == row.pid));
        left.extend(children.map(|row| (row.pid, depth + 1)));
    }
    branches
}

/// What may be shown of others.
struct Shown {
    /// What is locked; or why nobody knows.
    identities: Result<Identities, String>,
}

impl Default for Shown {
    /// There is no store.
    fn default() -> Self {
        Self { identities: Ok(Identities::default()) }
    }
}

impl Shown {
    fn identities_of(store: PathBuf) -> Result<Identities, String> {
        let identities = OpenOptions::new()
            .path(store)
            .single_reader()
            .busy_budget(IDENTITIES_WITHIN)
            .open_existing()
            .and_then(|store| store.map(|store| store.inner.read(Identities::read)).transpose());
        identities.map(Option::unwrap_or_default).map_err(|error| error.to_string())
    }

    /// The command line of a process, redacted, or what else says what it is.
    fn process(&self, pid: Pid) -> String {
        let arguments = sys::command_line(pid);
        match (arguments.filter(|_| self.identities.is_ok()), sys::program_name(pid)) {
            (Some(arguments), _) => self.command(arguments),
            (None, Some(name)) => format!("[{}]", command_line::redact_line(&name)),
            (None, None) => "(ended, or not to be seen)".to_owned(),
        }
    }

    fn command(&self, arguments: Vec<String>) -> String {
        let known = self.identities.as_ref();
        known.map_or_else(
            |_| String::new(),
            |known| command_line::display(&known.command(arguments)),
        )
    }
}

fn last_lines(said: &Said, of: &Shown) -> Vec<String> {
    let lines: Vec<&str> = said.text.lines().collect();
    let from = lines.len().saturating_sub(MESSAGES_MAX);
    // What is locked could stand in any of them.
    let known = match &of.identities {
        Ok(known) => known,
        Err(why) => return vec![format!("unavailable: its lines are not shown: {why}")],
    };
    let mut shown: Vec<String> = lines[from..].iter().map(|line| known.line(line)).collect();
    shown.push(said.count(lines.len() - from, lines.len()));
    shown
}

/// A section as it is written: bounded, and with nothing in it that a terminal would obey.
fn section(title: &str, lines: &[String]) -> String {
    let mut text = format!("{title}\n");
    for (index, line) in lines.iter().enumerate() {
        let line = one_line(line);
        if text.len() + line.len() > SECTION_LENGTH_MAX {
            let (shown, all) = (index, lines.len());
            text += &format!(
                "(cut: {shown} of {all} lines; a section has at most {} KiB)\n",
                SECTION_LENGTH_MAX / 1024
            );
            break;
        }
        text += &line;
        text.push('\n');
    }
    text
}

fn one_line(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for character in line.trim_end().chars() {
        match character {
            '\t' => shown.push(' '),
            it if is_unprintable(it) => shown.extend(it.escape_default()),
            it => shown.push(it),
        }
        if shown.len() > LINE_LENGTH_MAX {
            shown.truncate(shown.floor_char_boundary(LINE_LENGTH_MAX));
            shown.push_str("...");
            break;
        }
    }
    shown
}

fn seconds(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1_000 { format!("{ms} ms") } else { format!("{:.1} s", duration.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIELD-BUGS 87: a dump with a token in it was pasted into a public place.
    #[test]
    fn secrets_of_command_lines() {
        let check = |arguments: &[&str], expected: &str| {
            let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
            let shown = Shown::default().command(arguments);
            assert_eq!(shown, expected);
            assert!(!shown.contains("hunter2"), "{shown}");
        };
        check(&["gw", "--token=hunter2", "-v"], "gw --token=<redacted> -v");
        check(&["gw", "--api-key", "hunter2", "run"], "gw --api-key <redacted> run");
        check(
            &["sh", "-c", "exec gw --api-key hunter2 run"],
            r#"sh -c "exec gw --api-key <redacted>""#,
        );
        check(
            &["sh", "-c", "A=1 gw --token=hunter2 run"],
            r#"sh -c "A=1 gw --token=<redacted> run""#,
        );
        check(&["sh", "-c", "x; TOKEN='hunter2' gw"], r#"sh -c "x; TOKEN='<redacted>' gw""#);
        check(&["sh", "-c", "a=1 TOKEN='hunter2' gw"], r#"sh -c "a=1 TOKEN='<redacted>' gw""#);
        check(&["gw", r#"{"a":1,"token":"hunter2"}"#], r#"gw {"a":1,"token":"<redacted>"}"#);
        check(&["curl", "https://h/?a=1&token=hunter2"], "curl https://h/?a=1&token=<redacted>");
        check(&["gw: --password 'hunter2 hunter2'"], r#""gw: --password <redacted>""#);
        check(&["sh", "-c", "A=1 gw --pin=1234 x"], r#"sh -c "A=1 gw --pin=<redacted> x""#);
        check(&["gateway", "run", "--profile", "work"], "gateway run --profile work");
    }

    #[test]
    fn rows_of_ps() {
        let row = row_of_ps("  812     1 DOM jo doe   3.5  0.1  4321 Ss   2-03:04:05").unwrap();
        assert_eq!(row.pid, 812);
        assert!(row.columns.contains(" DOM_jo_doe ") && row.columns.ends_with("2-03:04:05"));
        for other in ["", "PID USER TIME COMMAND", "812 1 root x 0.1 1 S 1"] {
            assert!(row_of_ps(other).is_none(), "{other}");
        }
        let said = Said { by: 1, text: "PID USER --token=hunter2\n".to_owned(), is_cut: false };
        let refusal = table_of_ps(&said).unwrap_err();
        assert!(!refusal.why.contains("hunter2") && refusal.why.contains("PID USER"));
    }

    #[test]
    fn a_tree() {
        let row = |pid: Pid, parent: Pid| ProcessRow {
            pid,
            parent: Some(parent).filter(|parent| *parent != 0),
            uid: None,
            state: Some('S'),
            cpu_ms: None,
            memory_kib: None,
            age_s: None,
        };
        let seen = |table: &[ProcessRow], subject| -> Vec<(Pid, usize)> {
            branches(table, subject).iter().map(|branch| (branch.pid, branch.depth)).collect()
        };
        let table = [row(1, 0), row(5, 1), row(6, 5), row(7, 6), row(8, 6), row(9, 7), row(10, 5)];
        assert_eq!(seen(&table, 6), [(1, 0), (5, 1), (6, 2), (7, 3), (9, 4), (8, 3)]);
        // A circle, which no kernel makes, but two looks may.
        assert_eq!(seen(&[row(5, 6), row(6, 5)], 5), [(6, 0), (5, 1)]);
        let deep: Vec<ProcessRow> = (1..100).map(|pid| row(pid, pid - 1)).collect();
        assert_eq!(seen(&deep, 99).len(), ANCESTORS_MAX + 1);
    }

    #[test]
    fn a_section_is_bounded_and_plain() {
        let text = section("--- x ---", &["a\u{1b}[31m\tb\u{202e}".to_owned(), "y".repeat(5_000)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "a\\u{1b}[31m b\\u{202e}");
        assert_eq!(lines[2].len(), LINE_LENGTH_MAX + 3);
        let text = section("--- x ---", &vec!["\u{e9}".repeat(900); 100]);
        assert!(text.len() < SECTION_LENGTH_MAX + 100, "{}", text.len());
        assert!(text.ends_with("(cut: 40 of 100 lines; a section has at most 40 KiB)\n"), "{text}");
    }

    #[test]
    fn the_end_of_much_is_kept() {
        let tail = Tail(Arc::default());
        let line = "0123456789\n".repeat(1_000);
        for _ in 0..1_000 {
            tail.0.lock().unwrap().push(line.as_bytes());
            assert!(tail.0.lock().unwrap().bytes.len() <= 2 * OUTPUT_LENGTH_MAX + line.len());
        }
        tail.0.lock().unwrap().push(b"last");
        let lines = last_lines(&tail.said(1), &Shown::default());
        assert_eq!(lines.len(), MESSAGES_MAX + 1);
        assert_eq!(lines[MESSAGES_MAX - 2..MESSAGES_MAX], ["0123456789", "last"]);
        assert!(lines[MESSAGES_MAX].starts_with("(20 of more than "), "{lines:?}");
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(elapsed(183_845), "2-03:04:05");
        assert_eq!(elapsed(59), "00:00:59");
        assert_eq!(seconds(Duration::from_millis(1_700)), "1.7 s");
        assert_eq!(seconds(Duration::from_millis(20)), "20 ms");
    }
}
