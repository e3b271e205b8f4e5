//! What the command last wrote to its standard error: passed through as it comes, and kept.
//!
//! The command has a pipe in the place of ours. Whoever reads ours may be slow, so one thread reads
//! and another one writes. Once the command has ended, we write a mark to the pipe as well: what
//! comes before that is all that the command wrote. What it leaves behind may hold the pipe open
//! for ever, so the end of the pipe is not waited for; and whoever writes to a pipe without a
//! reader is killed, so a `cat` reads on when the run ends.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::Deadline;
use crate::records::instances;
use crate::sys;

/// Of so many bytes the last lines are taken.
const BYTES_MAX: usize = 64 * 1024;

/// So many are put on record.
const TEXT_MAX: usize = 16 * 1024;

/// Of these the line of an exception has so many where it is not among the last.
const EXCEPTION_MAX: usize = 1024;

/// When so many bytes wait to be written, the command waits, too: as for any slow reader.
const UNWRITTEN_MAX: usize = 64 * 1024;

/// What is in the pipe is read at once. That is the bound for a machine that hangs.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// How long the end of the run waits for whoever reads its standard error. The office is free by
/// then.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// How long it takes to see that nobody holds the pipe any more.
const CLOSED_WITHIN: Duration = Duration::from_millis(100);

/// Between two tries to write where that would have to wait, and may not.
const PAUSE: Duration = Duration::from_millis(5);

/// See above.
#[derive(Debug)]
pub(super) struct KeptStderr {
    lines: usize,
    /// Of the command that was started last.
    now: Mutex<Option<Kept>>,
    /// Those that somebody may still write to.
    passages: Mutex<Vec<Arc<Passage>>>,
}

#[derive(Debug)]
struct Kept {
    passage: Arc<Passage>,
    /// For the mark.
    writer: PipeWriter,
}

impl KeptStderr {
    pub(super) fn new(lines: usize) -> Self {
        Self { lines, now: Mutex::default(), passages: Mutex::default() }
    }

    /// The end for a command that starts now.
    pub(super) fn pipe(&self) -> io::Result<PipeWriter> {
        let (reader, writer) = io::pipe()?;
        let of_command = writer.try_clone()?;
        let passage = Arc::new(Passage { reader, flow: Mutex::default(), changed: Condvar::new() });
        // The first ends with the pipe, if the second cannot be started.
        let acts: [fn(&Passage); 2] = [Passage::read, Passage::write];
        for act in acts {
            let passage = Arc::clone(&passage);
            let name = "incumbent-kept".to_owned();
            std::thread::Builder::new().name(name).spawn(move || act(&passage))?;
        }
        let mut passages = self.passages.lock();
        passages.retain(|passage| !passage.flow.lock().is_over());
        passages.push(Arc::clone(&passage));
        *self.now.lock() = Some(Kept { passage, writer });
        Ok(of_command)
    }

    /// Its last lines, of a command that has ended, without what `redact` takes out; `None` where
    /// it wrote nothing. Half of a secret looks like none, so that comes before anything is cut.
    pub(super) fn take_with(&self, redact: impl FnOnce(&str) -> String) -> Option<String> {
        let Kept { passage, writer } = self.now.lock().take()?;
        let (bytes, is_cut) = passage.finish(writer);
        last_lines(&redact(&String::from_utf8_lossy(&bytes)), is_cut, self.lines)
    }
}

impl Drop for KeptStderr {
    fn drop(&mut self) {
        // Of a command that never was one.
        drop(self.now.get_mut().take());
        let until = Deadline::after(WRITTEN_WITHIN);
        for passage in self.passages.get_mut().drain(..) {
            passage.leave(until);
        }
    }
}

/// From a command to our standard error.
#[derive(Debug)]
struct Passage {
    reader: PipeReader,
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "they become true one after the other")]
struct Flow {
    /// What the command wrote last.
    tail: VecDeque<u8>,
    /// It wrote more than that.
    is_cut: bool,
    /// No more of it comes.
    is_complete: bool,
    /// What was read and not written.
    unwritten: Vec<u8>,
    is_writing: bool,
    /// While it is looked for, with what may be its beginning.
    mark: Option<Vec<u8>>,
    held: Vec<u8>,
    /// Nobody can write any more.
    is_closed: bool,
}

impl Passage {
    fn read(&self) {
        let mut bytes = vec![0; 8 * 1024];
        loop {
            let read = (&self.reader).read(&mut bytes);
            let mut flow = self.flow.lock();
            match read {
                Ok(0) => {}
                Ok(read) => {
                    flow.add(&bytes[..read]);
                    self.changed.notify_all();
                    self.changed.wait_while(&mut flow, |flow| flow.is_full());
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => tracing::debug!(%error, "standard error is not read any more"),
            }
            flow.close();
            self.changed.notify_all();
            return;
        }
    }

    fn write(&self) {
        loop {
            let mut flow = self.flow.lock();
            let is_idle = |flow: &mut Flow| flow.unwritten.is_empty() && !flow.is_closed;
            self.changed.wait_while(&mut flow, is_idle);
            if flow.unwritten.is_empty() {
                return;
            }
            let bytes = std::mem::take(&mut flow.unwritten);
            flow.is_writing = true;
            self.changed.notify_all();
            drop(flow);
            write_out(&bytes);
            self.flow.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    /// The command has ended: the last that it wrote, and whether it wrote more than that.
    fn finish(&self, mut writer: PipeWriter) -> (Vec<u8>, bool) {
        let random = [fastrand::u64(..), fastrand::u64(..)];
        let mark = format!("\0incumbent:{:016x}{:016x}\0", random[0], random[1]).into_bytes();
        let mut flow = self.flow.lock();
        if !flow.is_closed {
            flow.mark = Some(mark.clone());
            drop(flow);
            self.changed.notify_all();
            // It is read whatever becomes of it, so this waits for nobody.
            if let Err(error) = writer.write_all(&mark) {
                tracing::debug!(%error, "the end of standard error is not seen");
            }
            flow = self.flow.lock();
            self.changed.wait_while_for(&mut flow, |flow| !flow.is_complete, READ_WITHIN);
            flow.is_complete = true;
        }
        (flow.tail.iter().copied().collect(), flow.is_cut)
    }

    /// The run ends: whoever can still write goes on to be heard.
    fn leave(&self, until: Deadline) {
        let mut flow = self.flow.lock();
        self.changed.wait_while_for(&mut flow, |flow| !flow.is_closed, CLOSED_WITHIN);
        self.changed.wait_while_for(&mut flow, |flow| !flow.is_written(), until.remaining());
        if flow.is_closed {
            return;
        }
        drop(flow);
        let started = self.reader.try_clone().and_then(|reader| {
            let mut program = sys::program("cat");
            program.stdin(reader).stdout(io::stderr()).stderr(Stdio::null());
            program.current_dir("/").spawn()
        });
        let collected = started.and_then(|mut program| {
            // In a process that goes on.
            let collect = move || drop(program.wait());
            std::thread::Builder::new().name("incumbent-kept".to_owned()).spawn(collect)
        });
        if let Err(error) = collected {
            tracing::debug!(%error, "nobody reads what is left of standard error");
        }
    }
}

impl Flow {
    fn add(&mut self, bytes: &[u8]) {
        let Some(mark) = &self.mark else { return self.keep(bytes) };
        self.held.extend_from_slice(bytes);
        let at = self.held.windows(mark.len()).position(|window| *window == **mark);
        if let Some(at) = at {
            let after = self.held.split_off(at + mark.len());
            self.held.truncate(at);
            self.mark = None;
            self.let_go();
            self.is_complete = true;
            self.keep(&after);
        } else {
            let known = (self.held.len() + 1).saturating_sub(mark.len());
            let beginning = self.held.split_off(known);
            self.let_go();
            self.held = beginning;
        }
    }

    /// What was held back is not the mark.
    fn let_go(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.keep(&held);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.unwritten.extend_from_slice(bytes);
        if !self.is_complete {
            self.tail.extend(bytes);
            let too_many = self.tail.len().saturating_sub(BYTES_MAX);
            self.tail.drain(..too_many);
            self.is_cut |= too_many > 0;
        }
    }

    fn close(&mut self) {
        self.let_go();
        self.is_complete = true;
        self.is_closed = true;
    }

    /// Once the command has ended, what is in the pipe is taken out of it in any case.
    fn is_full(&self) -> bool {
        self.unwritten.len() >= UNWRITTEN_MAX && self.mark.is_none()
    }

    fn is_written(&self) -> bool {
        self.unwritten.is_empty() && !self.is_writing
    }

    fn is_over(&self) -> bool {
        self.is_closed && self.is_written()
    }
}

fn write_out(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match io::stderr().write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Whoever shares it with us does not want to wait.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            // Nobody may be left to read it; it is kept.
            Err(_) => return,
        }
    }
}

/// Of the last that the command wrote; `is_cut`: it does not begin where a word does. The line of
/// an exception is among it, in the place of the first one where it would not be.
fn last_lines(text: &str, is_cut: bool, lines: usize) -> Option<String> {
    let others = lines.checked_sub(1)?;
    let all = text.trim_end().lines().collect::<Vec<_>>().join("\n");
    let mut start = start_of_last(&all, lines).max(all.len().saturating_sub(TEXT_MAX));
    if is_cut && start == 0 {
        // Half of a word may be half of a secret.
        start = all.find(char::is_whitespace).map_or(all.len(), |at| at + 1);
    }
    let is_whole = |at: usize| at > 0 || !is_cut;
    let exception = instances::exception(&all).filter(|at| at.start < start && is_whole(at.start));
    let kept = match exception {
        Some(at) => {
            let line = &all[at];
            let line = &line[..line.floor_char_boundary(EXCEPTION_MAX)];
            let room = all.len().saturating_sub(TEXT_MAX - line.len() - 1);
            let rest = start_of_last(&all, others).max(room);
            format!("{line}\n{}", &all[all.ceil_char_boundary(rest)..])
        }
        None => all[all.ceil_char_boundary(start)..].to_owned(),
    };
    Some(kept.trim_end().to_owned()).filter(|kept| !kept.is_empty())
}

/// Where the last `lines` of a text begin that ends without a line break.
fn start_of_last(text: &str, lines: usize) -> usize {
    if lines == 0 {
        return text.len();
    }
    text.rmatch_indices('\n').nth(lines - 1).map_or(0, |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_much() {
        for (text, is_cut, lines, expected) in [
            ("one\ntwo\nthree\n", false, 2, Some("two\nthree")),
            ("one\ntwo", false, 9, Some("one\ntwo")),
            ("one\ntwo", true, 9, Some("two")),
            ("one two\nthree", true, 9, Some("two\nthree")),
            ("one\ntwo", true, 1, Some("two")),
            ("one", true, 1, None),
            ("one\n\n\n", false, 1, Some("one")),
            ("\r\n\n", false, 3, None),
            ("", true, 3, None),
        ] {
            assert_eq!(last_lines(text, is_cut, lines).as_deref(), expected, "{text:?}");
        }
        for is_cut in [false, true] {
            let long = "\u{e9}".repeat(TEXT_MAX);
            let kept = last_lines(&long, is_cut, 1).unwrap();
            assert!(kept.len() <= TEXT_MAX && kept.len() > TEXT_MAX - 4);
        }
    }

    /// Symptom: of a crash in Python the last lines of a long message were kept, and not what had
    /// been raised.
    #[test]
    fn an_exception_is_kept_however_long_it_is() {
        let frames = "  File \"bot.py\", line 3, in main\n    main()\n".repeat(2_000);
        let error = "E.SomeError: one";
        let all = format!("Traceback (most recent call last):\n{frames}{error}");
        for (lines, message, expected) in [
            (1, "", "E.SomeError: one"),
            (1, "\n\n\n", "E.SomeError: one"),
            (1, "\ntwo\nthree", "E.SomeError: one"),
            (2, "\ntwo\nthree\n", "E.SomeError: one\nthree"),
            (3, "\ntwo\nthree\n", "E.SomeError: one\ntwo\nthree"),
            (4, "\ntwo\nthree\n", "    main()\nE.SomeError: one\ntwo\nthree"),
        ] {
            let kept = last_lines(&format!("{all}{message}"), true, lines).unwrap();
            assert_eq!(kept, expected, "{lines}");
            assert_eq!(instances::last_line(&kept), Some(error), "{lines}");
        }
        // One that is longer than all that is kept.
        for lines in [1, 2, 5] {
            let text = format!("{all} {}", "\u{e9}".repeat(TEXT_MAX));
            let kept = last_lines(&text, true, lines).unwrap();
            assert!(kept.starts_with(error) && kept.len() <= TEXT_MAX, "{lines}: {kept:.40}");
        }
    }

    /// However it is cut into pieces: the mark is found, not shown, and what follows is not kept.
    #[test]
    fn the_mark_ends_what_is_kept() {
        let all = b"before<mark>after";
        for size in 1..=all.len() {
            let mut flow = Flow { mark: Some(b"<mark>".to_vec()), ..Flow::default() };
            for piece in all.chunks(size) {
                flow.add(piece);
            }
            assert!(flow.is_complete && flow.mark.is_none(), "{size}");
            assert_eq!(flow.tail.make_contiguous(), b"before", "{size}");
            assert_eq!(flow.unwritten, b"beforeafter", "{size}");
        }
        // Something that only looks like it, and then the end.
        let mut flow = Flow { mark: Some(b"<mark>".to_vec()), ..Flow::default() };
        flow.add(b"no <mark");
        assert!(!flow.is_complete);
        flow.close();
        assert_eq!(flow.tail.make_contiguous(), b"no <mark");
    }

    /// What holds the pipe open after the command holds up nobody.
    #[test]
    fn what_is_there_is_taken_while_the_pipe_is_open() {
        let kept = KeptStderr::new(2);
        let mut writer = kept.pipe().unwrap();
        writer.write_all(b"\n").unwrap();
        assert_eq!(kept.take_with(str::to_owned), None);
        assert_eq!(kept.take_with(str::to_owned), None, "once");
        drop(writer);
    }
}
