//! Signals with their origin, handed to a thread of ours: nothing happens in a handler but what
//! signal-hook does there.
//!
//! signal-hook leaves a signal that nobody catches any more without effect. So `catch` registers
//! the default as well: it applies when the last catcher is gone, or its thread has panicked or
//! could not be started, and in a forked child. It does not apply to a signal that somebody had
//! caught before us. SIGCHLD is caught also where it is ignored, and ignored again afterwards.

use std::io::{self, Read as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use signal_hook::consts::signal as number;
use signal_hook::iterator::backend::{Handle, SignalDelivery};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level;
use signal_hook::low_level::siginfo::{Cause, Sent};

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
    /// What the kernel did with each signal right after we had caught it.
    handlers: Vec<(i32, Option<libc::sighandler_t>)>,
    creator_pid: u32,
}

/// signal-hook leaves a signal that nobody catches any more without any effect. For each that had
/// its default effect before: how many catchers there are now, and whether there are none.
static DEFAULTS: Mutex<Vec<Default>> = Mutex::new(Vec::new());

struct Default {
    signal: i32,
    catchers: usize,
    applies: Arc<AtomicBool>,
    /// The process that has those catchers.
    caught_by: Arc<AtomicU32>,
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
    let (read, write) = UnixStream::pair()?;
    let mut caught =
        SignalDelivery::with_pipe(read, write, WithOrigin::default(), &defaults.signals)?;
    if defaults.catches_ignored_children {
        IGNORED_CHILDREN.lock().handler.get_or_insert_with(|| action(number::SIGCHLD));
    }
    let handle = caught.handle();
    let closer = handle.clone();
    let of_thread = Arc::clone(&defaults);
    let thread =
        std::thread::Builder::new().name("incumbent-signals".to_owned()).spawn(move || {
            // With the thread, also if `on_signal` panics.
            let _restored = Restored(of_thread);
            // Asked before each wait: what looks for signals also takes the word of the close.
            while !closer.is_closed() {
                wait_for_handlers(caught.get_read());
                for origin in caught.pending() {
                    on_signal(caught_from(&origin));
                }
            }
        })?;
    let handlers = defaults.signals.iter().map(|signal| (*signal, disposition(*signal))).collect();
    let creator_pid = std::process::id();
    Ok(Catcher { handle, thread: Some(thread), defaults, handlers, creator_pid })
}

/// Until a handler has written to the socket, or the catcher is closed. A read that fails is no
/// reason to be deaf to signals (signal-hook's own iterator panics): after a pause the caller looks
/// whether there are any.
fn wait_for_handlers(mut socket: &UnixStream) {
    const PAUSE: Duration = Duration::from_millis(100);
    match socket.read(&mut [0]) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => {
            tracing::debug!(%error, "the socket of the signal handlers cannot be read");
            std::thread::sleep(PAUSE);
        }
    }
}

fn caught_from(origin: &low_level::siginfo::Origin) -> Caught {
    Caught {
        number: origin.signal,
        // The terminal signals its whole foreground group.
        from_terminal: origin.cause == Cause::Kernel && origin.signal != number::SIGHUP,
        origin: origin_of(origin),
    }
}

impl Catcher {
    /// Whether the kernel still calls the handlers that we left, and somebody takes what they hand
    /// on. Changes nothing. Another handler may call ours; that cannot be seen.
    pub(crate) fn is_in_place(&self) -> bool {
        self.creator_pid == std::process::id()
            && !self.defaults.is_restored.load(Ordering::SeqCst)
            && self.handlers.iter().all(|(signal, handler)| disposition(*signal) == *handler)
    }
}

/// SIGCHLD of a process that lets the kernel collect its children by ignoring it. Caught and then
/// left without effect, each of them would stay a zombie.
struct IgnoredChildren {
    catchers: usize,
    /// That of signal-hook, which installs it once.
    handler: Option<libc::sigaction>,
}

static IGNORED_CHILDREN: Mutex<IgnoredChildren> =
    Mutex::new(IgnoredChildren { catchers: 0, handler: None });

impl IgnoredChildren {
    /// Whether there is something to restore.
    fn begin_to_catch(&mut self) -> bool {
        if self.catchers == 0 && !is_ignored(number::SIGCHLD) {
            return false;
        }
        if let Some(handler) = self.handler.as_ref().filter(|_| self.catchers == 0) {
            set_action(number::SIGCHLD, handler);
        }
        self.catchers += 1;
        true
    }

    fn end(&mut self) {
        self.catchers = self.catchers.saturating_sub(1);
        let Some(handler) = self.handler.filter(|_| self.catchers == 0) else { return };
        let mut ignore = action(number::SIGCHLD);
        // Whoever has installed another one since wants that.
        if ignore.sa_sigaction == handler.sa_sigaction {
            ignore.sa_sigaction = libc::SIG_IGN;
            set_action(number::SIGCHLD, &ignore);
        }
    }
}

/// What has its default effect until now has none until this is restored.
#[derive(Debug)]
struct Suspended {
    signals: Vec<i32>,
    catches_ignored_children: bool,
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
        let catches_children = signals.contains(&number::SIGCHLD);
        let mut suspended = Self {
            signals: Vec::with_capacity(capacity),
            catches_ignored_children: catches_children && IGNORED_CHILDREN.lock().begin_to_catch(),
            is_restored: AtomicBool::new(false),
        };
        for signal in signals {
            suspended.add(signal)?;
        }
        Ok(suspended)
    }

    fn add(&mut self, signal: i32) -> io::Result<()> {
        let me = std::process::id();
        let mut defaults = defaults();
        if let Some(default) = defaults.iter_mut().find(|default| default.signal == signal) {
            // Those of the process that we were forked from catch nothing here.
            if default.caught_by.swap(me, Ordering::SeqCst) != me {
                default.catchers = 0;
            }
            default.catchers += 1;
            default.applies.store(false, Ordering::SeqCst);
        } else if disposition(signal) == Some(libc::SIG_DFL) {
            let applies = Arc::new(AtomicBool::new(false));
            let caught_by = Arc::new(AtomicU32::new(me));
            register_default(signal, Arc::clone(&applies), Arc::clone(&caught_by))?;
            defaults.push(Default { signal, catchers: 1, applies, caught_by });
        }
        self.signals.push(signal);
        Ok(())
    }

    fn restore(&self) {
        if self.is_restored.swap(true, Ordering::SeqCst) {
            return;
        }
        if self.catches_ignored_children {
            IGNORED_CHILDREN.lock().end();
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

/// Ends the process as the signal would, while `applies` says so, and in a forked child: there
/// nobody takes what the handlers hand on, and it could not be ended any more.
fn register_default(
    signal: i32,
    applies: Arc<AtomicBool>,
    caught_by: Arc<AtomicU32>,
) -> io::Result<()> {
    let act = move || {
        let is_caught_here = caught_by.load(Ordering::SeqCst) == std::process::id();
        if applies.load(Ordering::SeqCst) || !is_caught_here {
            let _ = low_level::emulate_default_handler(signal);
        }
    };
    // SAFETY: two loads, getpid(2), and what signal-hook says is safe in a handler; nothing panics.
    unsafe { low_level::register(signal, act) }.map(drop)
}

/// Who sent a signal, by the fields of its siginfo (sigaction(2)). macOS fills in `si_code` for
/// nobody: there 0 is as good as `kill`.
pub(crate) fn origin_by_info(code: i32, pid: u32, uid: u32) -> SignalOrigin {
    let how = match code {
        #[cfg(target_os = "linux")]
        libc::SI_KERNEL => return SignalOrigin::Kernel,
        #[cfg(target_os = "linux")]
        libc::SI_TKILL => "tgkill",
        #[cfg(target_os = "linux")]
        libc::SI_QUEUE => "sigqueue",
        #[cfg(target_os = "linux")]
        libc::SI_USER => "kill",
        // SI_USER and SI_QUEUE there.
        #[cfg(not(target_os = "linux"))]
        0 | 0x10001 => "kill",
        #[cfg(not(target_os = "linux"))]
        0x10002 => "sigqueue",
        _ => return SignalOrigin::Unknown,
    };
    match pid {
        #[cfg(not(target_os = "linux"))]
        0 if uid == 0 => SignalOrigin::Unknown,
        // kill(2) from where our namespace counts no pids.
        0 => SignalOrigin::Elsewhere { uid },
        pid => SignalOrigin::Process { pid, uid, how },
    }
}

/// From now on a write that would wait fails.
pub(crate) fn never_wait_for(writer: &io::PipeWriter) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(writer, true)?)
}

/// A write in a signal handler, whole or not at all; whether it was done. `errno` is that of the
/// code that was interrupted.
pub(crate) fn write_in_handler(writer: &io::PipeWriter, bytes: &[u8]) -> bool {
    // SAFETY: write(2) may be called in a handler (signal-safety(7)), on an open descriptor and
    // bytes of that length; the place of this thread's `errno` is always there.
    unsafe {
        #[cfg(target_os = "linux")]
        let errno = libc::__errno_location();
        #[cfg(not(target_os = "linux"))]
        let errno = libc::__error();
        let before = *errno;
        let written = libc::write(writer.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
        *errno = before;
        usize::try_from(written) == Ok(bytes.len())
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
        // In a forked child there is no such thread, and the pipe is the parent's. To let go of the
        // thread would let go of another one, which has been given its place since.
        if self.creator_pid != std::process::id() {
            return std::mem::forget(self.thread.take());
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

/// The same with all that belongs to it, of a signal that there is.
fn action(signal: i32) -> libc::sigaction {
    // SAFETY: as above.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut current);
        current
    }
}

fn set_action(signal: i32, action: &libc::sigaction) {
    // SAFETY: what the kernel has said of this process, or the same with `SIG_IGN`, is valid.
    unsafe { libc::sigaction(signal, std::ptr::from_ref(action), std::ptr::null_mut()) };
}

#[cfg(feature = "cli")]
pub(crate) fn is_default(signal: i32) -> bool {
    disposition(signal) == Some(libc::SIG_DFL)
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
    if let Err(error) = signal_hook::flag::register(libc::SIGXFSZ, Arc::default()) {
        tracing::debug!(%error, "a file that grows too large would end this process");
    }
}

/// Whether the end of a signal's action is to end the process: what a stop is made of.
pub(crate) fn asks_to_end(signal: i32) -> bool {
    matches!(signal, number::SIGTERM | number::SIGINT | number::SIGHUP | number::SIGQUIT)
}

/// Whether a terminal sends it for a key that ends what is in the foreground: Ctrl-C, Ctrl-\.
pub(crate) fn is_of_a_key(signal: i32) -> bool {
    matches!(signal, number::SIGINT | number::SIGQUIT)
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

    /// Symptom: a `run` whose command had ended stayed for ever, where the last signal came with
    /// the end of its catcher.
    #[test]
    fn a_close_is_heard_beside_a_signal() {
        const SIGNAL: i32 = number::SIGWINCH;
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for round in 0..20_000 {
                let catcher = catch(&[SIGNAL], |_| {}).unwrap();
                // SAFETY: the signal is caught, and has no effect where it is not.
                assert_eq!(unsafe { libc::kill(libc::getpid(), SIGNAL) }, 0);
                for _ in 0..round % 5_000 {
                    std::hint::spin_loop();
                }
                drop(catcher);
            }
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_mins(10)).expect("each catcher ended");
    }
}
