//! The table of processes, by `ps` or by what this program sees itself.

use std::collections::BTreeMap;

use crate::forensics::diagnostic::ask::{NotAnswered, RefusalKind};
use crate::forensics::diagnostic::shown::{Printed, Shown};
use crate::process::command_line::redact;
use crate::sys::{Pid, ProcessRow};

/// Of these the subject's ancestors, the nearest ones.
pub(super) const ANCESTORS_MAX: usize = 15;

/// A table of processes, to be sorted, and to be given command lines.
#[derive(Debug)]
pub(crate) struct PsTable {
    pub(super) heading: String,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) pid: Pid,
    /// Those that burn the most come first, of those that do nothing the largest: not the threads
    /// of the kernel.
    pub(super) cpu: f64,
    pub(super) memory_kib: u64,
    pub(super) columns: String,
}

pub(super) fn table_of_ps(said: &Printed) -> Result<PsTable, NotAnswered> {
    // It sees itself, at work.
    let rows = said.text.lines().filter_map(row_of_ps).filter(|row| row.pid != said.by);
    let rows: Vec<Row> = rows.collect();
    if rows.is_empty() {
        let first = redact::redact_line(said.text.lines().next().unwrap_or_default());
        let why = format!("ps: no table of processes, but {first:?}");
        return Err(NotAnswered::new(RefusalKind::Failed, why));
    }
    let heading = columns(["PID", "PPID", "USER", "%CPU", "%MEM", "RSS(KiB)", "STAT", "ELAPSED"]);
    Ok(PsTable { heading: heading + " COMMAND", rows })
}

/// The name of a user may hold blanks, so the last columns are counted from the end.
pub(super) fn row_of_ps(line: &str) -> Option<Row> {
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

pub(super) fn table_of_ours(table: &[ProcessRow]) -> PsTable {
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
    PsTable { heading: heading + " COMMAND", rows: rows.collect() }
}

fn our_columns([pid, parent, uid, cpu, resident, state, elapsed]: [&str; 7]) -> String {
    format!("{pid:>7} {parent:>7} {uid:>7} {cpu:>9} {resident:>9} {state:<4} {elapsed:>11}")
}

/// As `ps` writes it: `2-03:04:05`.
pub(super) fn elapsed(s: u64) -> String {
    let (days, hours, minutes) = (s / 86_400, s / 3_600 % 24, s / 60 % 60);
    let days = if days > 0 { format!("{days}-") } else { String::new() };
    format!("{days}{hours:02}:{minutes:02}:{:02}", s % 60)
}

/// A process of the tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Branch {
    pub(super) pid: Pid,
    state: char,
    pub(super) depth: usize,
}

impl Branch {
    pub(super) fn line(&self, subject: Pid, shown: &Shown) -> String {
        let mark = if self.pid == subject { '>' } else { ' ' };
        let indent = "  ".repeat(self.depth);
        format!("{mark} {:>7} {} {indent}{}", self.pid, self.state, shown.process(self.pid))
    }
}

/// The ancestors of `subject`, itself and its descendants, each below its parent.
pub(super) fn branches(table: &[ProcessRow], subject: Pid) -> Vec<Branch> {
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
