//! The exit code of a process that ends outside of a `with` block.
//!
//! Python tells nobody what `sys.exit` was called with. The C library does, where it has `on_exit`
//! (glibc): it calls back with the code when the interpreter is gone. Until then the office is
//! held. So the code is on record, however far away from the tenure `sys.exit` was called.

use std::sync::{Mutex, PoisonError};

use incumbent::exit::End;
use incumbent::{Error, Released, Tenure};

/// What is released when the process exits.
static LEFT: Mutex<Vec<Tenure>> = Mutex::new(Vec::new());

#[cfg_attr(
    not(all(target_os = "linux", target_env = "gnu")),
    allow(dead_code, reason = "the end is not seen")
)]
fn left() -> Vec<Tenure> {
    std::mem::take(&mut *LEFT.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Leaves a tenure to the end of the process, where that is seen.
pub(crate) fn leave(tenure: Tenure) -> Result<Released, Error> {
    if !is_seen() {
        return tenure.release();
    }
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(tenure);
    Ok(Released::Free)
}

/// Releases what was left, with the exit code. Zero is also that of a program that came to its end.
#[cfg_attr(
    not(all(target_os = "linux", target_env = "gnu")),
    allow(dead_code, reason = "the end is not seen")
)]
fn release(code: i32) {
    // What a parent sees of it.
    let code = code & 0xff;
    for tenure in left() {
        let end = if code == 0 { End::released() } else { End::exited(code) };
        // The kernel's turn: it releases when the process is gone.
        let _ = tenure.release_with(end);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_seen() -> bool {
    use std::ffi::{c_int, c_void};
    use std::sync::OnceLock;

    unsafe extern "C" {
        /// `man 3 on_exit`.
        fn on_exit(call: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }

    /// The values of this thread are gone already, which what writes may want: so another one does.
    extern "C" fn has_ended(code: c_int, _: *mut c_void) {
        if let Ok(thread) = std::thread::Builder::new().spawn(move || release(code)) {
            let _ = thread.join();
        }
    }

    static SEEN: OnceLock<bool> = OnceLock::new();
    *SEEN.get_or_init(|| {
        // SAFETY: the function is never unloaded, as no library with a live `on_exit` handler is
        // before the process exits, and it touches no argument.
        unsafe { on_exit(has_ended, std::ptr::null_mut()) == 0 }
    })
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn is_seen() -> bool {
    false
}
