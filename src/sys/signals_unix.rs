//! Signals with their origin, handed to a thread of ours: nothing happens in a handler but what
//! signal-hook does there.
//!
//! signal-hook leaves a signal that nobody catches any more without effect. So `catch` registers
//! the default as well: it applies when the last catcher is gone, or its thread has panicked or
//! could not be started. It does not apply to a signal that somebody had caught before us.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Mutex, MutexGuard};
use signal_hook::consts::signal as number;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Handle, SignalsInfo};
use signal_hook::low_level::siginfo::{Cause, Sent};
use signal_hook::{flag, low_level};

use super::{Caught, SignalOrigin};

/// What asks a gateway to end.
pub(crate) const SHUTDOWN: &[i32] = &[number::SIGTERM, number::SIGINT, number::SIGHUP];

/// Signals that are caught for as long as this lives. Afterwards each that nobody had caught before
/// does again what it does by default.
#[derive(Debug)]
pub(crate) struct Catcher {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    defaults: Arc<Suspended>,
    creator_pid: u32,
}

/// signal-hook leaves a signal that nobody catches any more without any effect. For each that had
/// its default effect before: how many catchers there are now, and whether there are none.
static DEFAULTS: Mutex<Vec<Default>> = Mutex::new(Vec::new());

struct Default {
    signal: i32,
    catchers: usize,
    applies: Arc<AtomicBool>,
}

fn defaults() -> MutexGuard<'static, Vec<Default>> {
    DEFAULTS.lock()
}

/// Catches `signals` and hands them to `on_signal`, one after the other, from a thread of its own.
/// Those that were ignored when we started (`nohup`) stay ignored, but not SIGCHLD, without which
/// the kernel would reap a child and never tell how it ended.
pub(crate) fn catch(
    signals: &[i32],
    mut on_signal: impl FnMut(Caught) + Send + 'static,
) -> io::Result<Catcher> {
    let signals: Vec<i32> = signals
        .iter()
        .copied()
        .filter(|signal| *signal == number::SIGCHLD || !is_ignored(*signal))
        .collect();
    // From here on, whatever fails: a signal that nobody takes has its default effect again.
    let defaults = Arc::new(Suspended::new(signals)?);
    let mut caught = SignalsInfo::<WithOrigin>::new(&defaults.signals)?;
    let handle = caught.handle();
    let of_thread = Arc::clone(&defaults);
    let thread =
        std::thread::Builder::new().name("incumbent-signals".to_owned()).spawn(move || {
            // With the thread, also if `on_signal` panics.
            let _restored = Restored(of_thread);
            for origin in caught.forever() {
                on_signal(Caught {
                    number: origin.signal,
                    // The terminal signals its whole foreground group.
                    from_terminal: origin.cause == Cause::Kernel && origin.signal != number::SIGHUP,
                    origin: origin_of(&origin),
                });
            }
        })?;
    Ok(Catcher { handle, thread: Some(thread), defaults, creator_pid: std::process::id() })
}

/// What has its default effect until now has none until this is restored.
#[derive(Debug)]
struct Suspended {
    signals: Vec<i32>,
    is_restored: AtomicBool,
}

/// Restores at its end, whatever ends it.
struct Restored(Arc<Suspended>);

impl Drop for Restored {
    fn drop(&mut self) {
        self.0.restore();
    }
}

impl Suspended {
    fn new(signals: Vec<i32>) -> io::Result<Self> {
        // Drops, and so restores, what was suspended until something fails.
        let capacity = signals.len();
        let mut suspended =
            Self { signals: Vec::with_capacity(capacity), is_restored: AtomicBool::new(false) };
        for signal in signals {
            suspended.add(signal)?;
        }
        Ok(suspended)
    }

    fn add(&mut self, signal: i32) -> io::Result<()> {
        let mut defaults = defaults();
        if let Some(default) = defaults.iter_mut().find(|default| default.signal == signal) {
            default.catchers += 1;
            default.applies.store(false, Ordering::SeqCst);
        } else if disposition(signal) == Some(libc::SIG_DFL) {
            let applies = Arc::new(AtomicBool::new(false));
            flag::register_conditional_default(signal, Arc::clone(&applies))?;
            defaults.push(Default { signal, catchers: 1, applies });
        }
        self.signals.push(signal);
        Ok(())
    }

    fn restore(&self) {
        if self.is_restored.swap(true, Ordering::SeqCst) {
            return;
        }
        for default in defaults().iter_mut().filter(|it| self.signals.contains(&it.signal)) {
            default.catchers = default.catchers.saturating_sub(1);
            default.applies.store(default.catchers == 0, Ordering::SeqCst);
        }
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        self.restore();
    }
}

fn origin_of(origin: &low_level::siginfo::Origin) -> SignalOrigin {
    let Some(process) = origin.process else {
        return match origin.cause {
            Cause::Kernel => SignalOrigin::Kernel,
            _ => SignalOrigin::Unknown,
        };
    };
    match u32::try_from(process.pid) {
        Ok(pid) if pid != 0 => SignalOrigin::Process {
            pid,
            uid: process.uid,
            how: match origin.cause {
                Cause::Sent(Sent::Queue) => "sigqueue",
                Cause::Sent(Sent::TKill) => "tgkill",
                _ => "kill",
            },
        },
        // kill(2) from where our namespace counts no pids.
        Ok(_) | Err(_) => SignalOrigin::Elsewhere { uid: process.uid },
    }
}

impl Drop for Catcher {
    fn drop(&mut self) {
        // In a forked child there is no such thread, and the pipe is the parent's.
        if self.creator_pid != std::process::id() {
            return;
        }
        self.handle.close();
        // Not only with the thread: it may be in the middle of a call.
        self.defaults.restore();
        let Some(thread) = self.thread.take() else { return };
        // Dropped from within the callback, it cannot wait for itself.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// What the kernel does with a signal: `SIG_DFL`, `SIG_IGN` or the address of a handler.
fn disposition(signal: i32) -> Option<libc::sighandler_t> {
    // SAFETY: an all-zero sigaction is a valid value to be overwritten.
    let mut current: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only asks; `current` is valid for writes.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut current) };
    (asked == 0).then_some(current.sa_sigaction)
}

pub(crate) fn is_ignored(signal: i32) -> bool {
    disposition(signal) == Some(libc::SIG_IGN)
}

/// Makes a write beyond the limit on the size of a file (`RLIMIT_FSIZE`) an error like any other
/// one: SIGXFSZ would end us, and the command of a `run` with us. By a handler, because a program
/// that we execute does not inherit that; ignored as we started, it stays ignored for both.
pub(crate) fn survive_file_size_limit() {
    if is_ignored(libc::SIGXFSZ) {
        return;
    }
    if let Err(error) = flag::register(libc::SIGXFSZ, Arc::default()) {
        tracing::debug!(%error, "a file that grows too large would end this process");
    }
}

/// Whether the end of a signal's action is to end the process: what a stop is made of.
pub(crate) fn asks_to_end(signal: i32) -> bool {
    matches!(signal, number::SIGTERM | number::SIGINT | number::SIGHUP | number::SIGQUIT)
}

/// Whether daemons take `signal` for a request to read their configuration again.
pub(crate) fn may_mean_reload(signal: i32) -> bool {
    signal == number::SIGHUP
}

/// Whether a process that died of `signal` did so by a fault of its own.
pub(crate) fn is_fault(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGILL
            | libc::SIGFPE
            | libc::SIGABRT
            | libc::SIGTRAP
            | libc::SIGSYS
            | libc::SIGXCPU
            | libc::SIGXFSZ
    )
}

/// `SIGTERM` for 15; `None` for a number that has no name here.
pub(crate) fn name(signal: i32) -> Option<&'static str> {
    low_level::signal_name(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name() {
        assert_eq!(name(15), Some("SIGTERM"));
        for word in ["15", "TERM", "SIGTERM", "sigterm", "term"] {
            assert_eq!(crate::sys::signal_number(word), Some(15), "{word}");
        }
        for word in ["", "0", "-15", "128", "SIG", "TERMS", "SIGSIGTERM"] {
            assert_eq!(crate::sys::signal_number(word), None, "{word}");
        }
        assert_eq!(name(9_999), None);
        assert!(asks_to_end(number::SIGQUIT) && !asks_to_end(number::SIGUSR1));
        assert!(is_fault(libc::SIGSEGV) && !is_fault(libc::SIGKILL));
    }
}
