//! Progress: what a verb waits for, and how long that may take, on standard error.
//!
//! On a terminal one line is drawn again every second, by indicatif, and is gone at the end.
//! Elsewhere nothing is said, unless `--progress` asks for lines. A wait that is over within a
//! second is not spoken of. Nobody waits for a terminal: where one is stuck, the line is left as it
//! is. Ctrl-C takes it away as well.

use std::io;
use std::io::{IsTerminal, Write};
use std::sync::mpsc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::cli::printable;
use crate::clock::{Clock, SystemClock, length, millis};
use crate::{environment, sys};

/// Between two looks, and before the first one.
const EVERY: Duration = Duration::from_secs(1);

/// Between two lines where nothing can be drawn again.
const LINE_EVERY_MS: i64 = 10_000;

/// So long the end of a wait is held up by the thread that speaks of it.
const ENDS_WITHIN: Duration = Duration::from_millis(300);

/// Where progress is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// On a terminal.
    OnTerminal,
    /// Elsewhere, too.
    Everywhere,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One line, drawn again.
    Drawn,
    /// A line now and then.
    Lines,
}

/// What a verb is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// As in "waiting for default/gateway".
    pub(super) what: String,
    /// How long it may take in all, where that is known.
    pub(super) at_most: Option<Duration>,
}

/// Speaks of what goes on until it is dropped.
pub(super) struct Progress {
    running: Option<Running>,
}

struct Running {
    /// Dropped, it ends the thread.
    goes_on: mpsc::Sender<()>,
    /// Closed by its end.
    ended: Receiver<()>,
}

/// The line that is drawn, and has to go before anything else is written.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

impl Progress {
    /// Looks once a second what `verb` is at; `None` is nothing that needs time.
    pub(super) fn begin(
        wanted: Wanted,
        verb: &'static str,
        look: impl FnMut() -> Option<Step> + Send + 'static,
    ) -> Self {
        Self { running: form(wanted).and_then(|form| start(form, verb, look)) }
    }

    /// The same of a verb that becomes another program: a line that is drawn would stay.
    pub(super) fn begin_in_lines(
        wanted: Wanted,
        verb: &'static str,
        look: impl FnMut() -> Option<Step> + Send + 'static,
    ) -> Self {
        Self { running: form(wanted).and_then(|_| start(Form::Lines, verb, look)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(Running { goes_on, ended }) = self.running.take() {
            drop(goes_on);
            // Nothing comes; it is closed.
            let _ = ended.recv_timeout(ENDS_WITHIN);
            beneath(|| ());
        }
    }
}

/// Writes where no drawn line is in the way.
pub(super) fn beneath(write: impl FnOnce()) {
    const WITHIN: Duration = Duration::from_millis(100);
    let mut drawn = DRAWN.try_lock_for(WITHIN);
    if let Some(bar) = drawn.as_deref_mut().and_then(Option::take) {
        bar.finish_and_clear();
        sys::drawn_line::is_gone();
    }
    write();
}

fn form(wanted: Wanted) -> Option<Form> {
    let is_dumb = environment::text("TERM").is_some_and(|term| term == "dumb");
    // A shell has its prompt where a job in the background would draw.
    if io::stderr().is_terminal() && !is_dumb && sys::jobs::is_in_foreground() {
        return Some(Form::Drawn);
    }
    (wanted == Wanted::Everywhere).then_some(Form::Lines)
}

/// `None` where no thread can be started now.
fn start(
    form: Form,
    verb: &'static str,
    look: impl FnMut() -> Option<Step> + Send + 'static,
) -> Option<Running> {
    let (goes_on, is_over) = mpsc::channel::<()>();
    let (closed_at_its_end, ended) = mpsc::channel::<()>();
    let speak = move || {
        show(form, verb, look, &is_over);
        drop(closed_at_its_end);
    };
    let thread = std::thread::Builder::new().name("incumbent-progress".to_owned()).spawn(speak);
    thread.is_ok().then_some(Running { goes_on, ended })
}

fn show(form: Form, verb: &str, mut look: impl FnMut() -> Option<Step>, is_over: &Receiver<()>) {
    let begun_ms = SystemClock.boot_ms();
    let mut next_ms = 0;
    while is_over.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let step = look();
        let elapsed_ms = SystemClock.boot_ms().saturating_sub(begun_ms);
        // It may have ended while we looked.
        if is_over.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
            return;
        }
        match (form, step) {
            (Form::Drawn, Some(step)) => draw(verb, &line(verb, &step, elapsed_ms)),
            (Form::Drawn, None) => beneath(|| ()),
            (Form::Lines, Some(step)) if elapsed_ms >= next_ms => {
                put(&(line(verb, &step, elapsed_ms) + "\n"));
                next_ms = elapsed_ms.saturating_add(LINE_EVERY_MS);
            }
            (Form::Lines, Some(_) | None) => {}
        }
    }
}

/// `incumbent: stop: 3 s of at most 90 s, waiting for default/gateway (pid 7) to stop`: what a
/// narrow terminal cuts off is not the time.
fn line(verb: &str, step: &Step, elapsed_ms: i64) -> String {
    let seconds = elapsed_ms / 1_000;
    let at_most = step.at_most.map(|it| format!(" of at most {}", length(millis(it))));
    let at_most = at_most.unwrap_or_default();
    printable::one_line(&format!("incumbent: {verb}: {seconds} s{at_most}, {}", step.what))
}

fn draw(verb: &str, line: &str) {
    let Some(mut drawn) = DRAWN.try_lock() else { return };
    // A `run` ends by itself when it hears of a signal, which nothing may come before.
    if verb != "run" {
        sys::drawn_line::was_drawn();
    }
    let bar = drawn.get_or_insert_with(|| ProgressBar::new_spinner().with_style(whole_line()));
    bar.set_message(line.to_owned());
}

/// The message alone, as much of it as the terminal is wide.
fn whole_line() -> ProgressStyle {
    ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn put(text: &str) {
    // Nobody is left to be told that nobody reads it.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_how_long_and_how_long_at_most() {
        let step = |at_most| Step { what: "waiting for a\nb".to_owned(), at_most };
        for (at_most, expected) in [
            (None, "incumbent: stop: 3 s, waiting for a\\nb"),
            (Some(90), "incumbent: stop: 3 s of at most 90 s, waiting for a\\nb"),
            (Some(3_600), "incumbent: stop: 3 s of at most 60 min, waiting for a\\nb"),
        ] {
            let step = step(at_most.map(Duration::from_secs));
            assert_eq!(line("stop", &step, 3_210), expected);
        }
    }
}
