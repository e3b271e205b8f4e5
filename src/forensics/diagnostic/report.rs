//! What the process of a diagnostic does: it looks, and writes down section by section what it saw.
//!
//! Anything that it asks may hang, be it a program or a file in `/proc`. So each gets a share of
//! the time that is left, and what was cut off is said. Should even a write hang, a watchdog ends
//! the process.

use std::fs::File;
use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::clock::{Deadline, now_ms, rfc3339};
use crate::forensics::diagnostic::ask::{NotAnswered, RefusalKind};
use crate::forensics::diagnostic::shown::{
    IDENTITIES_WITHIN, MESSAGES_MAX, Printed, Shown, last_lines, seconds,
};
use crate::forensics::diagnostic::table::PsTable;
use crate::forensics::diagnostic::{ask, table};
use crate::path_text::is_unprintable;
use crate::sys;
use crate::sys::{Existence, Pid, ProcessRow, diagnostic as os};

/// Whoever burns the machine is among the first.
const PROCESSES_MAX: usize = 60;

/// A gateway with more ancestors and children is lost in them anyway.
const TREE_LINES_MAX: usize = 40;

/// A line, in bytes.
const LINE_LENGTH_MAX: usize = 1_000;

/// A section, in bytes. There are at most six, so that a diagnostic has at most 256 KiB, and no
/// section costs another one its place.
const SECTION_LENGTH_MAX: usize = 40 * 1024;

/// How much later than the process itself the watchdog ends it: time for a write on a busy disk.
const GRACE: Duration = Duration::from_millis(500);

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
        let (read, _) = ask::collect(share, move |found| {
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
    fn ask(&mut self, words: &[&str], share: Duration) -> Result<Printed, NotAnswered> {
        let answer = ask::ask(words, share, &self.shown);
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
        let (lines, finished) = ask::collect(share, work);
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
        let told = self.ask(PS, share).and_then(|said| table::table_of_ps(&said));
        let share = self.share(4);
        let (rows, _) = ask::collect(share, |rows| drop(rows.send(os::process_rows())));
        let table = rows.into_iter().next().unwrap_or_else(|| {
            self.cut_off.push(format!("the process table after {}", seconds(share)));
            Err(format!("no answer within {}", seconds(share)))
        });
        let (mut lines, rows) = match (told, &table) {
            (Ok(told), _) => (Vec::new(), Some(told)),
            (Err(refusal), Ok(table)) => {
                let instead = "what we see ourselves, by processor time since the start:";
                let lines = refusal.lines().into_iter().chain([instead.to_owned()]);
                (lines.collect(), Some(table::table_of_ours(table)))
            }
            (Err(refusal), Err(why)) => {
                let ours = format!("unavailable: the process table: {why}");
                (refusal.lines().into_iter().chain([ours]).collect(), None)
            }
        };
        if let Some(PsTable { heading, mut rows }) = rows {
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
                    let branches = table::branches(&table, subject);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forensics::diagnostic::ask::OUTPUT_LENGTH_MAX;
    use crate::forensics::diagnostic::ask::Tail;
    use crate::forensics::diagnostic::table::ANCESTORS_MAX;

    #[test]
    fn rows_of_ps() {
        let row =
            table::row_of_ps("  812     1 DOM jo doe   3.5  0.1  4321 Ss   2-03:04:05").unwrap();
        assert_eq!(row.pid, 812);
        assert!(row.columns.contains(" DOM_jo_doe ") && row.columns.ends_with("2-03:04:05"));
        for other in ["", "PID USER TIME COMMAND", "812 1 root x 0.1 1 S 1"] {
            assert!(table::row_of_ps(other).is_none(), "{other}");
        }
        let said = Printed { by: 1, text: "PID USER --token=hunter2\n".to_owned(), is_cut: false };
        let refusal = table::table_of_ps(&said).unwrap_err();
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
            table::branches(table, subject)
                .iter()
                .map(|branch| (branch.pid, branch.depth))
                .collect()
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
            tail.0.lock().push(line.as_bytes());
            assert!(tail.0.lock().bytes.len() <= 2 * OUTPUT_LENGTH_MAX + line.len());
        }
        tail.0.lock().push(b"last");
        let lines = last_lines(&tail.said(1), &Shown::default());
        assert_eq!(lines.len(), MESSAGES_MAX + 1);
        assert_eq!(lines[MESSAGES_MAX - 2..MESSAGES_MAX], ["0123456789", "last"]);
        assert!(lines[MESSAGES_MAX].starts_with("(20 of more than "), "{lines:?}");
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(table::elapsed(183_845), "2-03:04:05");
        assert_eq!(table::elapsed(59), "00:00:59");
        assert_eq!(seconds(Duration::from_millis(1_700)), "1.7 s");
        assert_eq!(seconds(Duration::from_millis(20)), "20 ms");
    }
}
