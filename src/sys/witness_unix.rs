//! A witness of what is sent to a whole process group, or to all processes of a service.
//!
//! A signal does not say whether it was sent to us or to our group (`kill %1`, `fg`, a terminal),
//! and a command in that group must not get it twice. So a process that does nothing stays in the
//! group, with every signal blocked: what is sent to all of them is pending there, before it
//! reaches us, because the kernel begins with the youngest. It names the sender as well. It is
//! called by no name of ours: whoever ends us by name does not mean the group.
//!
//! It is in our control group, too, where a service manager signals one process after the other:
//! there it may be reached some time after us (`run/delivery.rs`).
//!
//! It is a program of its own ([`VERB`]), holds nothing that we hold, and ends with its line to us,
//! and with us (`PR_SET_PDEATHSIG`; the thread that starts it has to live as long).

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Pid;
use super::detached::close_from;
use super::supervise::die_with_parent;

/// The hidden verb of that helper.
pub(crate) const VERB: &str = "__group-witness";

/// How lists of processes show it.
const NAME: &str = "group-witness";

/// It answers at once, unless it was stopped or killed, or the machine is very busy.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// More signals than there are are not pending.
const SIGNALS_MAX: usize = 64;

/// A number, and the pid of the sender: 0 for the kernel, and for who has no pid here.
const LENGTH: usize = 5;

/// See above.
#[derive(Debug)]
pub(crate) struct Witness {
    line: UnixStream,
    seen: Vec<(i32, Pid)>,
}

impl Witness {
    /// Starts it by the program `helper`.
    pub(crate) fn start(mut helper: Command) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(ANSWERS_WITHIN))?;
        ours.set_write_timeout(Some(ANSWERS_WITHIN))?;
        // An interpreter goes by its own name.
        if helper.get_args().next().is_none() {
            helper.arg0(NAME);
        }
        helper
            .arg(VERB)
            .arg(std::process::id().to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/");
        let block = || {
            block_everything();
            Ok(())
        };
        // SAFETY: sigfillset and sigprocmask(2) may be called there (signal-safety(7)).
        unsafe { helper.pre_exec(block) };
        // Whoever collects our children collects it.
        drop(helper.spawn()?);
        Ok(Self { line: ours, seen: Vec::new() })
    }

    /// Whether it got this signal, too, from the same `sender`. Each is told once. `None`: it does
    /// not answer, and will not.
    pub(crate) fn saw(&mut self, signal: i32, sender: Option<Pid>) -> Option<bool> {
        self.ask().ok()?;
        Some(was_seen(&mut self.seen, signal, sender))
    }

    fn ask(&mut self) -> io::Result<()> {
        self.line.write_all(&[1])?;
        let mut count = [0];
        self.line.read_exact(&mut count)?;
        let mut answer = vec![0; usize::from(count[0]) * LENGTH];
        self.line.read_exact(&mut answer)?;
        let (all, _) = answer.as_chunks::<LENGTH>();
        for [number, pid @ ..] in all {
            self.seen.push((i32::from(*number), Pid::from_ne_bytes(*pid)));
        }
        // What we do not hear ourselves is never asked for.
        let too_many = self.seen.len().saturating_sub(SIGNALS_MAX);
        self.seen.drain(..too_many);
        Ok(())
    }
}

/// Whether a signal is among those that were `seen`; it is taken out then.
fn was_seen(seen: &mut Vec<(i32, Pid)>, signal: i32, sender: Option<Pid>) -> bool {
    let is_it = |(number, by): &(i32, Pid)| {
        *number == signal && (!NAMES_SENDERS || *by == sender.unwrap_or(0))
    };
    let before = seen.len();
    seen.retain(|one| !is_it(one));
    if seen.len() < before {
        return true;
    }
    // The later one of these takes the other one out of what is pending (signal(7)). Two keys in a
    // row, `fg` and Ctrl-Z: the first is told by the second.
    let undone_by = match signal {
        libc::SIGCONT => libc::SIGTSTP,
        libc::SIGTSTP => libc::SIGCONT,
        _ => return false,
    };
    seen.iter().any(|(number, _)| *number == undone_by)
}

/// The whole life of that process.
pub(crate) fn life(arguments: &[OsString]) -> i32 {
    let parent = arguments.first().and_then(|pid| pid.to_str()?.parse::<u32>().ok());
    die_with_parent();
    if parent.is_none() || parent != Some(std::os::unix::process::parent_id()) {
        return 0;
    }
    set_name();
    block_everything();
    close_from(3);
    let line = rustix::stdio::stdin();
    let mut question = [0; 1];
    // The end of the line is that of the run.
    while rustix::io::read(line, &mut question).is_ok_and(|read| read == 1) {
        let mut answer = vec![0];
        while let Some((number, sender)) = next_pending() {
            answer[0] += 1;
            answer.push(number);
            answer.extend(sender.to_ne_bytes());
            if usize::from(answer[0]) == SIGNALS_MAX {
                break;
            }
        }
        // So few bytes fit into every socket at once.
        if rustix::io::write(line, &answer).is_err() {
            break;
        }
    }
    0
}

fn block_everything() {
    // SAFETY: `sigfillset` fills the set in; a null old mask asks for none.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

#[cfg(target_os = "linux")]
const NAMES_SENDERS: bool = true;

#[cfg(not(target_os = "linux"))]
const NAMES_SENDERS: bool = false;

/// Takes one of the signals that are pending.
#[cfg(target_os = "linux")]
fn next_pending() -> Option<(u8, Pid)> {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both are structs of integers, for which zero is valid; the call reads the set and the
    // time and fills the rest in, of which the pid is there for every signal of kill(2).
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let signal = libc::sigtimedwait(&raw const all, &raw mut info, &raw const at_once);
        let by_kill = matches!(info.si_code, libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL);
        let sender = if by_kill { info.si_pid() } else { 0 };
        u8::try_from(signal).ok().map(|signal| (signal, Pid::try_from(sender).unwrap_or(0)))
    }
}

/// Takes one of the signals that are pending: macOS has no sigtimedwait(2).
#[cfg(not(target_os = "linux"))]
fn next_pending() -> Option<(u8, Pid)> {
    // SAFETY: a set of integers, which the calls fill in and read; what is pending does not make
    // sigwait(2) wait.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut pending);
        let is_pending = |signal: &i32| libc::sigismember(&raw const pending, *signal) == 1;
        let first = (1..32).find(is_pending)?;
        let mut one: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut one);
        libc::sigaddset(&raw mut one, first);
        let mut taken = 0;
        libc::sigwait(&raw const one, &raw mut taken);
        u8::try_from(first).ok().map(|signal| (signal, 0))
    }
}

/// Also where only the name of the program is looked at.
fn set_name() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a text that ends with a zero byte, of which 16 bytes at most are read.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"group-witness".as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_key_undid_was_seen() {
        for (signal, later) in [(libc::SIGCONT, libc::SIGTSTP), (libc::SIGTSTP, libc::SIGCONT)] {
            let mut seen = vec![(later, 0)];
            assert!(was_seen(&mut seen, signal, Some(7)), "{signal}");
            assert!(was_seen(&mut seen, later, None), "it is still to be asked for");
            assert!(!was_seen(&mut seen, signal, Some(7)), "{signal}");
        }
        let mut seen = vec![(libc::SIGCONT, 0), (libc::SIGTERM, 7)];
        assert!(!was_seen(&mut seen, libc::SIGHUP, None));
        assert!(!was_seen(&mut seen, libc::SIGTERM, Some(8)) || !NAMES_SENDERS);
    }

    #[test]
    fn what_is_pending_is_told_once_with_its_sender() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut witness = Witness { line: ours, seen: Vec::new() };
        // What a witness would answer: INT of the kernel, TERM of pid 7, and nothing more.
        let answers = std::thread::spawn(move || {
            let mut theirs = theirs;
            let mut told = vec![2, 2];
            told.extend(0_u32.to_ne_bytes());
            told.push(15);
            told.extend(7_u32.to_ne_bytes());
            for answer in [&told[..], &[0], &[0], &[0]] {
                theirs.read_exact(&mut [0]).unwrap();
                theirs.write_all(answer).unwrap();
            }
        });
        assert_eq!(witness.saw(15, Some(8)), Some(!NAMES_SENDERS), "of another sender");
        assert_eq!(witness.saw(15, Some(7)), Some(NAMES_SENDERS));
        assert_eq!(witness.saw(2, None), Some(true));
        assert_eq!(witness.saw(2, None), Some(false), "once");
        answers.join().unwrap();
        assert_eq!(witness.saw(2, None), None, "nobody answers");
    }
}
