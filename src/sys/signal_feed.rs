//! Signals that somebody else has caught, handed on to a thread of ours.
//!
//! What hands them on may run in a signal handler (signal-safety(7)): it asks for its pid, counts,
//! and writes to a pipe. It takes no lock, allocates nothing and does not wait. So it hands on no
//! more than fits into every pipe until somebody takes it; what comes on top of that is dropped.

use std::io::{self, PipeReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::{Caught, SignalOrigin, signals};

/// What the host knows of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fed {
    pub(crate) number: i32,
    /// `si_code`, `si_pid` and `si_uid` of its siginfo, if the host has one.
    pub(crate) info: Option<(i32, u32, u32)>,
}

/// Four words and whether the last three count. A write of so few bytes is whole or not at all
/// (pipe(7)).
const LENGTH: usize = 20;

/// How many may wait to be taken. All of them fit into the pipe, also on Windows, where that has
/// 4 KiB and a write to a full one waits.
const WAITING_MAX: usize = 128;

impl Fed {
    fn to_bytes(self) -> [u8; LENGTH] {
        let (code, pid, uid) = self.info.unwrap_or_default();
        let has_info = u32::from(self.info.is_some());
        let words = [self.number.cast_unsigned(), has_info, code.cast_unsigned(), pid, uid]
            .map(u32::to_ne_bytes);
        let mut bytes = [0; LENGTH];
        for (place, byte) in bytes.iter_mut().zip(words.as_flattened()) {
            *place = *byte;
        }
        bytes
    }

    fn of_bytes(bytes: [u8; LENGTH]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        let word = |at: usize| words.get(at).map_or(0, |word| u32::from_ne_bytes(*word));
        let info = (word(1) != 0).then(|| (word(2).cast_signed(), word(3), word(4)));
        Self { number: word(0).cast_signed(), info }
    }

    /// As if we had caught it; `None` without a siginfo.
    pub(crate) fn caught(self) -> Option<Caught> {
        let (code, pid, uid) = self.info?;
        let origin = signals::origin_by_info(code, pid, uid);
        let from_terminal =
            origin == SignalOrigin::Kernel && !signals::may_mean_reload(self.number);
        Some(Caught { number: self.number, from_terminal, origin })
    }
}

/// Takes signals until it is dropped.
#[derive(Debug)]
pub(crate) struct Feed {
    /// `None` once it ends.
    writer: Option<io::PipeWriter>,
    /// How many are in the pipe, or about to be.
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    creator_pid: u32,
}

impl Feed {
    /// Calls `on_signal` for each, one after the other, from a thread of its own. After a call that
    /// has panicked the next one comes anyway.
    ///
    /// # Errors
    /// As `pipe(2)`, and where no thread can be started.
    pub(crate) fn start(mut on_signal: impl FnMut(Fed) + Send + 'static) -> io::Result<Self> {
        let (mut reader, writer) = io::pipe()?;
        signals::never_wait_for(&writer)?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&waiting);
        let thread =
            std::thread::Builder::new().name("incumbent-signals".to_owned()).spawn(move || {
                while let Some(fed) = next(&mut reader) {
                    taken.fetch_sub(1, Ordering::Relaxed);
                    // Nobody would take the next signal, and the write that hands it on, to a pipe
                    // without a reader, would raise SIGPIPE. The panic itself was told by its hook.
                    let _ = catch_unwind(AssertUnwindSafe(|| on_signal(fed)));
                }
            })?;
        let creator_pid = std::process::id();
        Ok(Self { writer: Some(writer), waiting, thread: Some(thread), creator_pid })
    }

    /// Hands one on. May be called in a signal handler; leaves `errno` as it is. In a forked child
    /// it does nothing: the thread is the parent's.
    pub(crate) fn feed(&self, fed: Fed) {
        if let Some(writer) = &self.writer
            && self.creator_pid == std::process::id()
        {
            let has_room = self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX;
            if !has_room || !signals::write_in_handler(writer, &fed.to_bytes()) {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Until nobody can write any more.
fn next(reader: &mut PipeReader) -> Option<Fed> {
    let mut bytes = [0; LENGTH];
    reader.read_exact(&mut bytes).ok()?;
    Some(Fed::of_bytes(bytes))
}

impl Drop for Feed {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if self.creator_pid != std::process::id() {
            // There is no such thread here.
            return std::mem::forget(thread);
        }
        // The pipe ends with it, unless a forked child has it open: then the thread stays, and ends
        // with the process.
        self.writer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fed_comes_out_as_it_was() {
        let with = |number, info| Fed { number, info };
        for fed in [
            with(15, None),
            with(1, Some((0, 0, 0))),
            with(i32::MIN, Some((-6, u32::MAX, 1_000))),
            with(64, Some((0x80, 1, u32::MAX))),
        ] {
            assert_eq!(Fed::of_bytes(fed.to_bytes()), fed);
        }
        assert_eq!(with(15, None).caught(), None);
        let origin = |info| with(2, Some(info)).caught().unwrap().origin;
        if cfg!(target_os = "linux") {
            let by = |how| SignalOrigin::Process { pid: 7, uid: 9, how };
            assert_eq!(origin((0, 7, 9)), by("kill"));
            assert_eq!(origin((-1, 7, 9)), by("sigqueue"));
            assert_eq!(origin((-6, 7, 9)), by("tgkill"));
            assert_eq!(origin((0, 0, 9)), SignalOrigin::Elsewhere { uid: 9 });
            assert_eq!(origin((0x80, 0, 0)), SignalOrigin::Kernel);
            assert!(with(2, Some((0x80, 0, 0))).caught().unwrap().from_terminal);
            assert_eq!(origin((-99, 7, 9)), SignalOrigin::Unknown);
        }
    }

    /// On Windows a write to a full pipe waits, and the pipe holds no more than 200.
    #[test]
    fn a_feed_that_nobody_reads_is_never_waited_for() {
        const LAST: i32 = 20_000;
        let (go, may_go) = std::sync::mpsc::channel::<()>();
        let (tell, hears) = std::sync::mpsc::channel();
        let feed = Feed::start(move |fed| {
            let _ = may_go.recv();
            let _ = tell.send(fed.number);
        })
        .unwrap();
        for number in 0..LAST {
            feed.feed(Fed { number, info: None });
        }
        drop(go);
        assert_eq!((hears.recv(), hears.recv()), (Ok(0), Ok(1)));
        // What was taken makes room again.
        let mut taken = 2;
        loop {
            feed.feed(Fed { number: LAST, info: None });
            taken += 1;
            if hears.recv() == Ok(LAST) {
                break;
            }
        }
        assert!(taken <= WAITING_MAX + 2, "{taken}");
        drop(feed);
    }

    /// Symptom: a host whose callback had panicked was ended by its own handler, with the next
    /// signal: SIGPIPE, because the thread that read had ended with the callback.
    #[test]
    fn after_a_call_that_panics_the_next_one_comes() {
        let (tell, hears) = std::sync::mpsc::channel();
        let feed = Feed::start(move |fed| {
            assert_ne!(fed.number, 1, "a fault of the host's");
            let _ = tell.send(fed.number);
        })
        .unwrap();
        for number in 0..3 {
            feed.feed(Fed { number, info: None });
        }
        assert_eq!((hears.recv(), hears.recv()), (Ok(0), Ok(2)));
        drop(feed);
        assert!(hears.recv().is_err(), "it ends with the feed");
    }
}
