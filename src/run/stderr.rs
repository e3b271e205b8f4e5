//! What the command last wrote to its standard error: passed through as it comes, and kept.
//!
//! The command has a pipe in the place of ours. What it leaves behind may hold that open for ever,
//! so its end is not waited for.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use parking_lot::Mutex;

/// Of so many bytes the last lines are taken.
const BYTES_MAX: usize = 64 * 1024;

/// So many are put on record.
const TEXT_MAX: usize = 16 * 1024;

/// How long the command's end waits for what is in the pipe by then.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(100);

/// See above.
#[derive(Debug)]
pub(super) struct KeptStderr {
    lines: usize,
    /// Of the command that was started last.
    now: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    tail: Arc<Mutex<VecDeque<u8>>>,
    /// Closed with the pipe.
    ended: Receiver<()>,
}

impl KeptStderr {
    pub(super) fn new(lines: usize) -> Self {
        Self { lines, now: Mutex::new(None) }
    }

    /// The end for a command that starts now.
    pub(super) fn pipe(&self) -> io::Result<PipeWriter> {
        let (reader, writer) = io::pipe()?;
        let tail = Arc::<Mutex<VecDeque<u8>>>::default();
        let (tell, ended) = mpsc::channel();
        let of_thread = Arc::clone(&tail);
        std::thread::Builder::new()
            .name("incumbent-kept".to_owned())
            .spawn(move || pass_through(reader, &of_thread, &tell))?;
        *self.now.lock() = Some(Kept { tail, ended });
        Ok(writer)
    }

    /// Its last lines, of a command that has ended; `None` where it wrote nothing.
    pub(super) fn take(&self) -> Option<String> {
        let Kept { tail, ended } = self.now.lock().take()?;
        let _ = ended.recv_timeout(LAST_WORDS_WITHIN);
        let bytes: Vec<u8> = tail.lock().iter().copied().collect();
        last_lines(&bytes, self.lines)
    }
}

fn pass_through(mut reader: PipeReader, tail: &Mutex<VecDeque<u8>>, _ended: &Sender<()>) {
    let mut bytes = vec![0; 8 * 1024];
    loop {
        let read = match reader.read(&mut bytes) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return tracing::debug!(%error, "standard error is not read any more"),
        };
        let bytes = &bytes[..read];
        // First: the next line may wait for a reader.
        let mut tail = tail.lock();
        tail.extend(bytes);
        let too_many = tail.len().saturating_sub(BYTES_MAX);
        tail.drain(..too_many);
        drop(tail);
        // Nobody may be left to read it; it is kept.
        let _ = io::stderr().write_all(bytes);
    }
}

fn last_lines(bytes: &[u8], lines: usize) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.trim_end().lines().collect();
    let mut kept = all[all.len().saturating_sub(lines)..].join("\n");
    let mut start = kept.len().saturating_sub(TEXT_MAX);
    while !kept.is_char_boundary(start) {
        start += 1;
    }
    kept.drain(..start);
    Some(kept).filter(|kept| !kept.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_much() {
        for (text, lines, expected) in [
            ("one\ntwo\nthree\n", 2, Some("two\nthree")),
            ("one\ntwo", 9, Some("one\ntwo")),
            ("one\n\n\n", 1, Some("one")),
            ("\r\n\n", 3, None),
            ("", 3, None),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines).as_deref(), expected, "{text:?}");
        }
        let long = "\u{e9}".repeat(TEXT_MAX);
        let kept = last_lines(long.as_bytes(), 1).unwrap();
        assert!(kept.len() <= TEXT_MAX && kept.len() > TEXT_MAX - 4);
        assert_eq!(last_lines(b"\xff\n", 1).as_deref(), Some("\u{fffd}"));
    }

    /// What holds the pipe open after the command holds up nobody.
    #[test]
    fn what_is_there_is_taken_while_the_pipe_is_open() {
        let kept = KeptStderr::new(2);
        let mut writer = kept.pipe().unwrap();
        writer.write_all(b"\n").unwrap();
        assert_eq!(kept.take(), None);
        assert_eq!(kept.take(), None, "once");
        drop(writer);
    }
}
