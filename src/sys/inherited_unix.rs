//! What a command inherits as if its `run` were not there: signals that were ignored when that was
//! started, an empty signal mask, and variables that name the process they are meant for.
//!
//! A `run` is heard whatever its launcher blocks (FIELD-BUGS row 117), and neither its own output
//! nor a key at the terminal stops it (row 119). None of that is left to the command. Whether
//! SIGPIPE was ignored can be seen before `main` alone: the standard library ignores it then, and
//! has it back at its default in whatever it executes (row 118).

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::signals;
use crate::environment;

/// The byte that lets a trampoline go: a bit of its own, which older ones know as well,
const GO: u8 = 1;

/// whether the signals below are to be set,
const SETS_SIGNALS: u8 = 2;

/// and which of them are to be ignored: the bits from 4 on, in this order.
const CHANGED_BY_US: [i32; 4] = [libc::SIGPIPE, libc::SIGCHLD, libc::SIGTTIN, libc::SIGTTOU];

/// Variables that name the process they are meant for (`sd_listen_fds(3)`,
/// `sd_watchdog_enabled(3)`, systemd.exec(5)), and the one that says the same by the kernel's own
/// number.
const NAME_A_PROCESS: [(&str, Option<&str>); 3] =
    [("LISTEN_PID", Some("LISTEN_PIDFDID")), ("WATCHDOG_PID", None), ("SYSTEMD_EXEC_PID", None)];

static BROKEN_PIPE_CAME_IGNORED: AtomicBool = AtomicBool::new(false);

/// Run by the loader, before `main` and the standard library.
#[used]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static LOOK_BEFORE_MAIN: extern "C" fn() = look_before_main;

extern "C" fn look_before_main() {
    BROKEN_PIPE_CAME_IGNORED.store(signals::is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

/// What a command is let go with, once [`take_over_process`] was called.
static PERMISSION: OnceLock<u8> = OnceLock::new();

/// This process does nothing but to run a command: it hears every signal, and is not stopped for
/// what it writes to a terminal. Call it first thing, while there is one thread.
pub(crate) fn take_over_process() {
    PERMISSION.get_or_init(|| {
        let mut permission = GO | SETS_SIGNALS;
        for (place, signal) in CHANGED_BY_US.into_iter().enumerate() {
            let came_ignored = match signal {
                libc::SIGPIPE => BROKEN_PIPE_CAME_IGNORED.load(Ordering::Relaxed),
                _ => signals::is_ignored(signal),
            };
            permission |= u8::from(came_ignored) << (place + 2);
        }
        permission
    });
    block_nothing();
    for signal in [libc::SIGTTIN, libc::SIGTTOU] {
        set(signal, libc::SIG_IGN);
    }
}

/// The byte that lets a trampoline go.
pub(super) fn permission() -> u8 {
    PERMISSION.get().copied().unwrap_or(GO)
}

/// Executed, `command` is as if the process `run` had never been between it and whoever started
/// that. `permission` is the byte that came from there.
pub(super) fn pass_on(command: &mut Command, run: i32, permission: u8) {
    for (name, number) in NAME_A_PROCESS {
        if environment::text(name).is_some_and(|pid| pid == run.to_string()) {
            command.env(name, std::process::id().to_string());
            if let Some(number) = number {
                command.env_remove(number);
            }
        }
    }
    leave_signals_to(command, permission);
}

/// Executed, `command` finds the signals as `permission` says that they came.
fn leave_signals_to(command: &mut Command, permission: u8) {
    let last_act = move || {
        block_nothing();
        if permission & SETS_SIGNALS != 0 {
            for (place, signal) in CHANGED_BY_US.into_iter().enumerate() {
                let is_ignored = permission & (1 << (place + 2)) != 0;
                set(signal, if is_ignored { libc::SIG_IGN } else { libc::SIG_DFL });
            }
        }
        Ok(())
    };
    // SAFETY: sigaction(2) and sigprocmask(2) may be called there (signal-safety(7)); it allocates
    // nothing.
    unsafe { command.pre_exec(last_act) };
}

/// What asks this process to end from now on. In the moment in which it becomes another program
/// none of its threads hears a signal any more.
pub(crate) struct RequestsToEnd {
    have_come: Arc<AtomicBool>,
    signals: Vec<i32>,
}

impl RequestsToEnd {
    /// Notes them beside whatever else hears them: call it where something does. What was ignored
    /// as we started stays ignored.
    pub(crate) fn note() -> io::Result<Self> {
        const ASK_TO_END: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
        let signals = ASK_TO_END.into_iter().filter(|signal| !signals::is_ignored(*signal));
        let noted = Self { have_come: Arc::default(), signals: signals.collect() };
        for signal in &noted.signals {
            signal_hook::flag::register(*signal, Arc::clone(&noted.have_come))?;
        }
        Ok(noted)
    }

    /// Whether one has come.
    pub(crate) fn have_come(&self) -> bool {
        self.have_come.load(Ordering::SeqCst)
    }
}

/// Becomes the program `command`, which finds the signals as this process found them. Returns only
/// why it could not, and then they are as before: `Interrupted` where one of `requests` has come. A
/// later one acts on the program as if that had been started long ago.
pub(crate) fn become_program(mut command: Command, requests: &RequestsToEnd) -> io::Error {
    leave_signals_to(&mut command, permission());
    let (have_come, signals) = (Arc::clone(&requests.have_come), requests.signals.clone());
    let last_act = move || {
        // First of all, and then the look: a signal that comes between the two ends us, as it would
        // end the program. This is the main thread, which the kernel prefers (signal(7)): no
        // handler of another one is still on its way.
        for signal in &signals {
            set(*signal, libc::SIG_DFL);
        }
        if have_come.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    };
    // SAFETY: nothing is forked here: it runs in this very process, where it may do anything.
    unsafe { command.pre_exec(last_act) };
    let changed = requests.signals.iter().chain(&CHANGED_BY_US);
    let before: Vec<_> = changed.map(|signal| (*signal, action(*signal))).collect();
    let error = super::handover::exec(command);
    for (signal, action) in &before {
        // SAFETY: that is what the kernel said of this process.
        unsafe { libc::sigaction(*signal, std::ptr::from_ref(action), std::ptr::null_mut()) };
    }
    error
}

/// Executed, `command` finds SIGPIPE as this process did. For a program that becomes itself again.
pub(super) fn pass_on_broken_pipe(command: &mut Command) {
    if BROKEN_PIPE_CAME_IGNORED.load(Ordering::Relaxed) {
        let last_act = || {
            set(libc::SIGPIPE, libc::SIG_IGN);
            Ok(())
        };
        // SAFETY: as in `pass_on`.
        unsafe { command.pre_exec(last_act) };
    }
}

/// What whoever started us has blocked reaches this thread, and those that it starts.
pub(super) fn block_nothing() {
    // SAFETY: `sigemptyset` fills the set in; a null old mask asks for none.
    unsafe {
        let mut nothing: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut nothing);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const nothing, std::ptr::null_mut());
    }
}

fn action(signal: i32) -> libc::sigaction {
    // SAFETY: an all-zero sigaction is a valid value to be overwritten, and a null new one only
    // asks.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut current);
        current
    }
}

fn set(signal: i32, disposition: libc::sighandler_t) {
    // SAFETY: both dispositions run no code, and are valid for these signals.
    unsafe { libc::signal(signal, disposition) };
}
