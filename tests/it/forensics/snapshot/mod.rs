//! What a process sees at the moment in which somebody asks it to end, and who that was.
//!
//! FIELD-BUGS row 82: "who restarts my gateway?" could not be answered. The old diagnostic named
//! the parent, not the sender, and blocked the handler for seconds. It holds because the kernel
//! says who sent a signal, because that is read at once and written beside everything else, and
//! because nothing of it waits for anybody: what cannot be had says why.

mod command_lines;
mod fields;
mod gateway;
mod hidden;
mod hosts;
mod left;
mod markers;
mod record;
mod secrets;
mod senders;
mod store;
mod systemd;
mod watches;

use std::time::Duration;

use crate::support::Process;

/// What a snapshot takes at most on a machine that does other things as well; the best of several
/// counts, since a thread that is not scheduled is nobody's fault.
const AT_ONCE: Duration = Duration::from_millis(50);

/// Ways to send a signal that a shell has not.
mod raw {
    #![allow(unsafe_code, reason = "other system calls than kill send signals, too")]

    fn number(pid: u32) -> i32 {
        i32::try_from(pid).unwrap()
    }

    pub fn sigqueue(pid: u32, signal: i32) {
        let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
        // SAFETY: takes numbers; the value is not followed by anybody.
        assert_eq!(unsafe { libc::sigqueue(number(pid), signal, value) }, 0);
    }

    /// To the main thread.
    pub fn tgkill(pid: u32, signal: i32) {
        let pid = number(pid);
        // SAFETY: takes numbers.
        assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, signal) }, 0);
    }

    /// How many bytes a pipe takes before its writer waits.
    pub fn capacity(pipe: &std::io::PipeWriter) -> usize {
        use std::os::fd::AsRawFd;
        // SAFETY: takes numbers.
        usize::try_from(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) }).unwrap()
    }

    pub type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

    /// Installs a handler past signal-hook, as another language does.
    pub fn catch(signal: i32, handler: Handler) {
        // SAFETY: a whole sigaction, whose handler is of the type that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
        }
    }

    pub extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

    /// Hands a signal on to the library, with all that the kernel says of it.
    pub extern "C" fn hand_on(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let Some(feed) = super::gateway::FEED.get() else { return };
        // SAFETY: the kernel hands the handler a siginfo of a signal that was sent.
        let (code, pid, uid) =
            unsafe { ((*info).si_code, (*info).si_pid().cast_unsigned(), (*info).si_uid()) };
        feed.feed(incumbent::forensics::HostSignal::new(signal).siginfo(code, pid, uid));
    }

    pub fn raise(signal: i32) {
        // SAFETY: takes numbers; to the process, not to this thread.
        assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
    }
}

/// A shell of its own that sends the signals that it is told to, and stays.
pub struct Deployer(Process);

impl Deployer {
    #[track_caller]
    fn send(&mut self, signal: &str, pid: u32) {
        self.0.say(&format!("{signal} {pid}"));
        assert_eq!(self.0.line(), "sent");
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }
}

const SEND: &str = "while read -r name pid; do kill -$name $pid && echo sent; done";

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}
