//! Console events in the place of signals. Numbers are those of the C runtime.

#![allow(unsafe_code, reason = "none of this has a safe wrapper")]

use std::io::{self, IsTerminal};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use windows_sys::Win32::Foundation::TRUE;
use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, CTRL_CLOSE_EVENT, CTRL_SHUTDOWN_EVENT, SetConsoleCtrlHandler,
};
use windows_sys::Win32::System::RemoteDesktop::ProcessIdToSessionId;
use windows_sys::core::BOOL;

use super::{Caught, SignalOrigin};

// As the C runtime and Python count them; 1 and 9 have no meaning there, and get the usual one.
pub(crate) const HANGUP: i32 = 1;
pub(crate) const INTERRUPT: i32 = 2;
pub(crate) const ILLEGAL: i32 = 4;
pub(crate) const ARITHMETIC: i32 = 8;
pub(crate) const KILL: i32 = 9;
pub(crate) const SEGMENTATION: i32 = 11;
pub(crate) const TERMINATE: i32 = 15;
pub(crate) const BREAK: i32 = 21;
pub(crate) const ABORT: i32 = 22;

/// What asks a gateway to end.
pub(crate) const SHUTDOWN: &[i32] = &[TERMINATE, INTERRUPT, HANGUP, BREAK];

type OnSignal = Box<dyn FnMut(Caught) + Send>;

/// Who is told of what: the events, and the callback.
struct Listener {
    signals: Vec<i32>,
    on_signal: Mutex<OnSignal>,
}

static LISTENERS: Mutex<Vec<Arc<Listener>>> = Mutex::new(Vec::new());

fn listeners() -> MutexGuard<'static, Vec<Arc<Listener>>> {
    LISTENERS.lock()
}

/// Events that are caught for as long as this lives. Afterwards each does again what it does by
/// default.
pub(crate) struct Catcher {
    listener: Arc<Listener>,
}

impl std::fmt::Debug for Catcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catcher").field("signals", &self.listener.signals).finish()
    }
}

/// Windows has no such limit.
pub(crate) fn survive_file_size_limit() {}

/// Catches the events of the console that stand for `signals` and hands them to `on_signal`, from a
/// thread that the system makes. Where Ctrl+C was ignored when we started, it stays ignored.
pub(crate) fn catch(
    signals: &[i32],
    on_signal: impl FnMut(Caught) + Send + 'static,
) -> io::Result<Catcher> {
    let listener = Arc::new(Listener {
        signals: signals.to_vec(),
        on_signal: Mutex::new(Box::new(on_signal)),
    });
    let mut listeners = listeners();
    if listeners.is_empty() {
        // SAFETY: the handler lives as long as the process and may run on any thread.
        let set = unsafe { SetConsoleCtrlHandler(Some(on_console_event), TRUE) };
        if set == 0 {
            return Err(io::Error::last_os_error());
        }
    }
    listeners.push(Arc::clone(&listener));
    Ok(Catcher { listener })
}

impl Catcher {
    /// The system does not tell which handlers there are; ours stays until it is taken back.
    #[expect(clippy::unused_self, reason = "as where it can be seen")]
    pub(crate) fn is_in_place(&self) -> bool {
        true
    }
}

/// Nobody is told who caused an event.
pub(crate) fn origin_by_info(_code: i32, _pid: u32, _uid: u32) -> SignalOrigin {
    SignalOrigin::Unknown
}

/// No pipe of this kind can be told to. It does not come to that: see [`super::Feed`].
#[expect(clippy::unnecessary_wraps, reason = "as where it can fail")]
pub(crate) fn never_wait_for(_writer: &io::PipeWriter) -> io::Result<()> {
    Ok(())
}

/// Whole or not at all; whether it was done.
pub(crate) fn write_in_handler(mut writer: &io::PipeWriter, bytes: &[u8]) -> bool {
    io::Write::write(&mut writer, bytes).is_ok_and(|written| written == bytes.len())
}

impl Drop for Catcher {
    fn drop(&mut self) {
        let mut listeners = listeners();
        listeners.retain(|listener| !Arc::ptr_eq(listener, &self.listener));
        if listeners.is_empty() {
            // SAFETY: takes back what `catch` set.
            unsafe { SetConsoleCtrlHandler(Some(on_console_event), 0) };
        }
    }
}

/// Runs on a thread that the system makes for it. Nobody is told who caused the event.
pub(super) unsafe extern "system" fn on_console_event(event: u32) -> BOOL {
    let (number, from_terminal) = match event {
        // A command that leads a group has not seen these two.
        CTRL_C_EVENT => (INTERRUPT, a_person_may_type()),
        CTRL_BREAK_EVENT => (BREAK, a_person_may_type()),
        // Each process of the console gets these.
        CTRL_CLOSE_EVENT => (HANGUP, true),
        CTRL_SHUTDOWN_EVENT => (TERMINATE, true),
        // CTRL_LOGOFF_EVENT comes to services only, when any user logs off: none of our business.
        _ => return TRUE,
    };
    let told: Vec<Arc<Listener>> =
        listeners().iter().filter(|listener| listener.signals.contains(&number)).cloned().collect();
    for listener in told {
        let mut on_signal = listener.on_signal.lock();
        on_signal(Caught { number, from_terminal, origin: SignalOrigin::Unknown });
    }
    if matches!(event, CTRL_CLOSE_EVENT | CTRL_SHUTDOWN_EVENT) {
        // The process is ended when this returns, and in any case after some 5 s: time for a
        // gateway to end, and to record it.
        loop {
            std::thread::park();
        }
    }
    TRUE
}

/// Whether Ctrl+C may be typed at our console: our input is one, and not of session 0, where
/// services and tasks without a desktop live.
pub(crate) fn a_person_may_type() -> bool {
    let mut session = 0;
    // SAFETY: `session` is written.
    let known = unsafe { ProcessIdToSessionId(std::process::id(), &raw mut session) } != 0;
    io::stdin().is_terminal() && !(known && session == 0)
}

/// Whether the end of a signal's action is to end the process: what a stop is made of.
pub(crate) fn asks_to_end(signal: i32) -> bool {
    SHUTDOWN.contains(&signal)
}

/// Nobody is told of a key from an event that a program has made.
pub(crate) fn is_of_a_key(_signal: i32) -> bool {
    false
}

/// Never: here a hang-up is the end of the console.
pub(crate) fn may_mean_reload(_signal: i32) -> bool {
    false
}

/// Whether a process that died of `signal` did so by a fault of its own.
pub(crate) fn is_fault(signal: i32) -> bool {
    matches!(signal, SEGMENTATION | ILLEGAL | ARITHMETIC | ABORT)
}

/// `SIGTERM` for 15; `None` for a number that has no name here.
pub(crate) fn name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        HANGUP => "SIGHUP",
        INTERRUPT => "SIGINT",
        ILLEGAL => "SIGILL",
        ARITHMETIC => "SIGFPE",
        KILL => "SIGKILL",
        SEGMENTATION => "SIGSEGV",
        TERMINATE => "SIGTERM",
        BREAK => "SIGBREAK",
        ABORT => "SIGABRT",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name() {
        assert_eq!(name(TERMINATE), Some("SIGTERM"));
        assert_eq!(name(99), None);
        assert!(asks_to_end(TERMINATE) && !asks_to_end(KILL));
    }
}
