//! A line that is drawn again and again on a terminal, and has no end: it is gone when a key or a
//! signal ends this program, so that the shell's next line does not begin behind half of ours.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use super::signals;

/// What ends a program by default, and may come while it waits.
const ENDS: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// To the beginning of the line, and all of it away.
const CLEAR: &[u8] = b"\r\x1b[2K";

static IS_DRAWN: AtomicBool = AtomicBool::new(false);

/// A line is drawn on standard error.
pub(crate) fn was_drawn() {
    static IN_PLACE: Once = Once::new();
    IS_DRAWN.store(true, Ordering::SeqCst);
    IN_PLACE.call_once(|| {
        for signal in ENDS {
            // What is ignored stays so, and whoever catches it takes the line away himself.
            if signals::is_default(signal)
                && let Err(error) = clear_at(signal)
            {
                tracing::debug!(signal, %error, "a line may be left behind");
            }
        }
    });
}

/// It was taken away.
pub(crate) fn is_gone() {
    IS_DRAWN.store(false, Ordering::SeqCst);
}

fn clear_at(signal: libc::c_int) -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int) = clear_and_end;
    // SAFETY: a struct of integers, for which zero is valid; an empty mask is among that.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // The default action comes next.
    action.sa_flags = libc::SA_RESETHAND;
    // SAFETY: the handler is a function of the right type which lives for ever, and calls nothing
    // but what signal-safety(7) allows.
    let set = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn clear_and_end(signal: libc::c_int) {
    let mut terminal = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: poll(2), write(2) and raise(3) are safe in a handler; the struct and the bytes are
    // valid. A terminal that somebody has stopped is not written to: nobody waits for it. The
    // signal is blocked until we return, and then ends this process as it would have.
    unsafe {
        if IS_DRAWN.load(Ordering::SeqCst)
            && libc::poll(&raw mut terminal, 1, 0) == 1
            && terminal.revents & libc::POLLOUT != 0
        {
            libc::write(libc::STDERR_FILENO, CLEAR.as_ptr().cast(), CLEAR.len());
        }
        libc::raise(signal);
    }
}
