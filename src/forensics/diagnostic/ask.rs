//! Runs a program for its output, with a bound on time and length.

use std::io;
use std::io::Read;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Deadline;
use crate::forensics::diagnostic::shown::{Printed, Shown, last_lines, seconds};
use crate::process::command_line::redact;
use crate::sys;
use crate::sys::{Pid, diagnostic as os};

/// What is kept of a program's output, its end, and at times twice that: the `ps` of 60,000
/// processes.
pub(super) const OUTPUT_LENGTH_MAX: usize = 4 * 1024 * 1024;

/// How long a program may take to end once it is killed: longer only in the kernel, where it stays.
const KILLED_WITHIN: Duration = Duration::from_millis(100);

/// Why a program gave no answer.
pub(crate) struct NotAnswered {
    pub(super) kind: RefusalKind,
    pub(super) why: String,
    /// What it had said until it was ended.
    until_then: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// It could not be started.
    Missing,
    /// It ended with an error.
    Failed,
    /// It was ended.
    Late,
}

impl NotAnswered {
    pub(super) fn new(kind: RefusalKind, why: String) -> Self {
        Self { kind, why, until_then: Vec::new() }
    }

    pub(super) fn lines(self) -> Vec<String> {
        let mut lines = vec![format!("unavailable: {}", self.why)];
        if !self.until_then.is_empty() {
            lines.push("what it said until then:".to_owned());
            lines.extend(self.until_then);
        }
        lines
    }
}

/// Runs a program to its end, or to that of its time.
pub(super) fn ask(words: &[&str], share: Duration, shown: &Shown) -> Result<Printed, NotAnswered> {
    let [name, arguments @ ..] = words else { return Ok(Printed::default()) };
    if share.is_zero() {
        return Err(NotAnswered::new(RefusalKind::Late, format!("{name}: no time was left")));
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
        NotAnswered::new(RefusalKind::Missing, format!("{name}: {why}"))
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
        let mut refusal = NotAnswered::new(RefusalKind::Late, why);
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
    let first = said.text.lines().find(|line| !line.trim().is_empty()).map(redact::redact_line);
    // Most name themselves.
    let said = first.as_deref().unwrap_or("no reason given").trim();
    let said = said.strip_prefix(name).and_then(|said| said.strip_prefix(": ")).unwrap_or(said);
    Err(NotAnswered::new(RefusalKind::Failed, format!("{name}: {said} ({status})")))
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

/// The end of what comes out of a pipe, read as it comes by a thread.
pub(crate) struct Tail(pub(super) Arc<Mutex<TailBytes>>);

#[derive(Default)]
pub(super) struct TailBytes {
    pub(super) bytes: Vec<u8>,
    is_cut: bool,
}

impl Tail {
    /// Lets go of `ended` at the end of the pipe.
    fn of(pipe: Option<impl Read + Send + 'static>, ended: Sender<()>) -> Self {
        let kept = Arc::new(Mutex::new(TailBytes::default()));
        let ours = Arc::clone(&kept);
        // Without a thread nothing is read, and the program is late.
        let _ = std::thread::Builder::new().spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            let mut pipe = pipe;
            while let Some(length @ 1..) = pipe.as_mut().and_then(|it| it.read(&mut chunk).ok()) {
                ours.lock().push(&chunk[..length]);
            }
            drop(ended);
        });
        Self(kept)
    }

    pub(super) fn said(&self, by: Pid) -> Printed {
        let kept = self.0.lock();
        // A line that has lost its beginning is none.
        let from = if kept.is_cut { kept.bytes.iter().position(|it| *it == b'\n') } else { None };
        let bytes = &kept.bytes[from.map_or(0, |at| at + 1)..];
        Printed { by, text: String::from_utf8_lossy(bytes).into_owned(), is_cut: kept.is_cut }
    }
}

impl TailBytes {
    pub(super) fn push(&mut self, bytes: &[u8]) {
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
pub(super) fn collect<T: Send + 'static>(
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
