//! What a process passes on to the one that goes on in its place: three open files, by their
//! numbers.
//!
//! * The anchor. A flock belongs to the open file, not to a process or a number, so it is held for
//!   as long as one of the two has that file open.
//! * The secret, in a pipe: whoever reads it has it, and nobody after him. So it is taken back by
//!   reading it. The pipe does not block, and its other end is closed once the secret is in it.
//! * For a child, the line: on it the successor says that it has taken over, and its end says that
//!   nobody is left who could. It is a socket, because a write to one need not raise SIGPIPE.
//!
//! All are close-on-exec in this process. That is undone in the child alone, between fork and
//! exec; where this process itself executes the successor, in the instant before, and then on
//! duplicates that are closed if it fails. A child that another thread forks in that very instant
//! inherits them as well: the anchor stays held by it, as by any forked child, and the recorded
//! process decides then.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::FdFlags;

use super::FileKey;

/// The numbers of the standard streams are the successor's own.
const FIRST_NUMBER: RawFd = 3;

/// What a successor is to inherit, as duplicates.
#[derive(Debug)]
pub(crate) struct Estate {
    anchor: OwnedFd,
    secret: OwnedFd,
    line: Option<OwnedFd>,
}

impl Estate {
    /// For the program that this process becomes.
    pub(crate) fn for_ourselves(anchor: &File, secret: &[u8]) -> io::Result<Self> {
        let secret = filled(secret)?;
        Ok(Self { anchor: duplicate(anchor)?, secret: duplicate(&secret)?, line: None })
    }

    /// For a child, and our end of it.
    pub(crate) fn for_child(anchor: &File, secret: &[u8]) -> io::Result<(Self, Successor)> {
        let secret = filled(secret)?;
        let (ours, theirs) = UnixStream::pair()?;
        without_sigpipe(&theirs)?;
        let estate = Self {
            anchor: duplicate(anchor)?,
            secret: duplicate(&secret)?,
            line: Some(duplicate(&theirs)?),
        };
        Ok((estate, Successor { secret, line: ours }))
    }

    /// The numbers that the successor finds it by.
    pub(crate) fn descriptors(&self) -> String {
        self.numbers().map(|number| number.to_string()).collect::<Vec<_>>().join(":")
    }

    fn numbers(&self) -> impl Iterator<Item = RawFd> {
        [Some(&self.anchor), Some(&self.secret), self.line.as_ref()]
            .into_iter()
            .flatten()
            .map(AsRawFd::as_raw_fd)
    }

    fn leave_to(&self, command: &mut Command) {
        let numbers: Vec<RawFd> = self.numbers().collect();
        let inherit = move || {
            for number in &numbers {
                // SAFETY: fcntl takes any number; it is async-signal-safe (signal-safety(7)).
                if unsafe { libc::fcntl(*number, libc::F_SETFD, 0) } == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec it only calls fcntl, and neither allocates nor locks.
        unsafe { command.pre_exec(inherit) };
    }

    /// Starts the successor.
    pub(crate) fn spawn(self, mut command: Command) -> io::Result<Child> {
        self.leave_to(&mut command);
        command.spawn()
    }

    /// Becomes the successor; returns only why it could not.
    pub(crate) fn exec(self, mut command: Command) -> io::Error {
        self.leave_to(&mut command);
        exec(command)
    }
}

/// Executes `command` in this process; returns only why it could not. Signals are as before then.
pub(crate) fn exec(mut command: Command) -> io::Error {
    let signals = Signals::now();
    let error = command.exec();
    signals.restore();
    error
}

/// What the standard library changes of this process before it executes a program, and leaves so
/// where that fails: the mask of this thread, and what becomes of SIGPIPE.
struct Signals {
    mask: libc::sigset_t,
    on_broken_pipe: libc::sigaction,
}

impl Signals {
    fn now() -> Self {
        // SAFETY: all zero is a valid value of both, and both calls fill in what they are given.
        unsafe {
            let mut kept: Self = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut kept.mask);
            libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut kept.on_broken_pipe);
            kept
        }
    }

    fn restore(&self) {
        // SAFETY: both are what the kernel said of this process.
        unsafe {
            libc::sigaction(libc::SIGPIPE, &raw const self.on_broken_pipe, std::ptr::null_mut());
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.mask, std::ptr::null_mut());
        }
    }
}

/// A write to a pair that nobody reads any more raises SIGPIPE on macOS, unless it was told not to.
#[cfg(target_vendor = "apple")]
fn without_sigpipe(line: &UnixStream) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&yes)).map_err(io::Error::other)?;
    // SAFETY: the socket is open, and `size` bytes are read of a number that has as many.
    let set = unsafe {
        libc::setsockopt(
            line.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NOSIGPIPE,
            (&raw const yes).cast(),
            size,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Elsewhere std writes to sockets with `MSG_NOSIGNAL`.
#[cfg(not(target_vendor = "apple"))]
#[allow(clippy::unnecessary_wraps, reason = "as on macOS")]
fn without_sigpipe(_line: &UnixStream) -> io::Result<()> {
    Ok(())
}

/// A pipe with `secret` in it, and nothing that could be written any more.
fn filled(secret: &[u8]) -> io::Result<File> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(secret)?;
    drop(writer);
    let reader = OwnedFd::from(reader);
    rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    Ok(reader.into())
}

fn duplicate(file: impl std::os::fd::AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(file, FIRST_NUMBER)?)
}

/// All that is in the pipe, at once; nothing where somebody has read it.
fn drain(mut secret: &File) -> io::Result<Option<Vec<u8>>> {
    /// More than any secret has, and less than a pipe takes in one piece (pipe(7), `PIPE_BUF`).
    const LENGTH_MAX: usize = 512;
    let mut read = vec![0; LENGTH_MAX];
    loop {
        match secret.read(&mut read) {
            Ok(0) => return Ok(None),
            Ok(length) => {
                read.truncate(length);
                return Ok(Some(read));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Empty, and its other end is still open in a child that was forked meanwhile.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// What a successor says.
const ADOPTED: u8 = 1;

/// A successor, as the process sees it that started it.
#[derive(Debug)]
pub(crate) struct Successor {
    secret: File,
    line: UnixStream,
}

/// What a successor said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// That it has taken over.
    Adopted,
    /// Nothing, and nobody is left who could.
    Closed,
    NothingYet,
}

impl Successor {
    /// Waits for its word.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<Said> {
        /// 0 would mean no limit, and not every system takes every number.
        const WAITS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_hours(1));
        self.line.set_read_timeout(Some(timeout.clamp(WAITS.0, WAITS.1)))?;
        match self.line.read(&mut [0]) {
            Ok(0) => Ok(Said::Closed),
            Ok(_) => Ok(Said::Adopted),
            Err(error) => match error.kind() {
                // A signal interrupts it, and begins the time anew.
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => Ok(Said::NothingYet),
                io::ErrorKind::ConnectionReset => Ok(Said::Closed),
                _ => Err(error),
            },
        }
    }

    /// Takes the secret back; false where somebody has read it.
    pub(crate) fn take_back(&self) -> io::Result<bool> {
        Ok(drain(&self.secret)?.is_some())
    }
}

/// What this process inherited.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The open file of the anchor.
    pub(crate) anchor: File,
    pub(crate) will: Will,
}

/// The same without the anchor.
#[derive(Debug)]
pub(crate) struct Will {
    secret: File,
    line: Option<UnixStream>,
}

impl Inherited {
    /// What is open under `descriptors`, if the first one is the anchor `key`. The numbers may be
    /// old, and mean something else in this process: then nothing is touched.
    pub(crate) fn find(descriptors: &str, key: &FileKey) -> Option<Self> {
        /// Two threads must not take the same numbers.
        static ONE_AT_A_TIME: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock();
        let numbers: Vec<RawFd> =
            descriptors.split(':').map(|it| it.parse().ok()).collect::<Option<_>>()?;
        let (&[anchor, secret], line) = numbers.split_at_checked(2)? else { return None };
        let is_pipe = |file: &File| file.metadata().is_ok_and(|it| it.file_type().is_fifo());
        let is_socket = |file: &File| file.metadata().is_ok_and(|it| it.file_type().is_socket());
        let is_it = is_anchor(anchor, key)
            && is_inherited(secret, is_pipe)
            && line.iter().all(|line| is_inherited(*line, is_socket));
        let own = |number| {
            // SAFETY: it is open, and no code of this process opened it: that is close-on-exec, and
            // this is not. It is what the environment says that we were given for our sole use.
            let owned = unsafe { OwnedFd::from_raw_fd(number) };
            rustix::io::fcntl_setfd(&owned, FdFlags::CLOEXEC).ok().map(|()| owned)
        };
        if !is_it {
            return None;
        }
        Some(Self {
            anchor: own(anchor)?.into(),
            will: Will {
                secret: own(secret)?.into(),
                line: match line.first() {
                    Some(line) => Some(own(*line)?.into()),
                    None => None,
                },
            },
        })
    }
}

impl Will {
    /// The secret, for whoever is first.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        drain(&self.secret)
    }

    /// Tells the predecessor, if it still waits.
    pub(crate) fn say_adopted(self) {
        if let Some(mut line) = self.line
            && let Err(error) = line.write_all(&[ADOPTED])
        {
            tracing::debug!(%error, "the predecessor reads in the store that it is over");
        }
    }
}

/// Whether the anchor `key` was inherited as the first of `descriptors`, and is open there still.
pub(crate) fn has_inherited(descriptors: &str, key: &FileKey) -> bool {
    let first = descriptors.split(':').next().and_then(|number| number.parse().ok());
    first.is_some_and(|number| is_anchor(number, key))
}

fn is_anchor(number: RawFd, key: &FileKey) -> bool {
    is_inherited(number, |file| {
        super::open_file_key(file).is_ok_and(|found| found.is_some_and(|found| found.is(key)))
    })
}

/// Whether something is open as `number` that came by an exec, and is what `is_it` looks for.
fn is_inherited(number: RawFd, is_it: impl Fn(&File) -> bool) -> bool {
    if number < FIRST_NUMBER {
        return false;
    }
    // SAFETY: fcntl takes any number. -1 for one that is not open has the flag set.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags & libc::FD_CLOEXEC != 0 {
        return false;
    }
    // SAFETY: it is open, is only looked at, and is not closed by this.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(number) });
    is_it(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a predecessor that takes its secret back and a successor that reads it one is first.
    #[test]
    fn a_secret_is_read_once() {
        let anchor = tempfile::tempfile().unwrap();
        let (estate, successor) = Estate::for_child(&anchor, b"a secret").unwrap();
        let will = Will { secret: estate.secret.try_clone().unwrap().into(), line: None };
        assert_eq!(will.read().unwrap().as_deref(), Some(&b"a secret"[..]));
        assert!(!successor.take_back().unwrap());
        let (estate, successor) = Estate::for_child(&anchor, b"a secret").unwrap();
        let will = Will { secret: estate.secret.try_clone().unwrap().into(), line: None };
        assert!(successor.take_back().unwrap());
        assert_eq!(will.read().unwrap(), None);
    }

    #[test]
    fn a_successor_says_its_word_or_is_gone() {
        let anchor = tempfile::tempfile().unwrap();
        let (estate, mut successor) = Estate::for_child(&anchor, b"a secret").unwrap();
        let line = estate.line.as_ref().unwrap().try_clone().unwrap();
        let secret = estate.secret.try_clone().unwrap().into();
        drop(estate);
        assert_eq!(successor.wait(Duration::from_millis(1)).unwrap(), Said::NothingYet);
        Will { secret, line: Some(line.into()) }.say_adopted();
        assert_eq!(successor.wait(Duration::MAX).unwrap(), Said::Adopted);
        assert_eq!(successor.wait(Duration::from_mins(1)).unwrap(), Said::Closed);
    }

    /// Symptom: a handover never came to its end. Cause: each signal began the wait anew. It holds
    /// because a wait that was interrupted is over.
    #[test]
    fn signals_do_not_prolong_the_wait() {
        use std::os::unix::thread::JoinHandleExt;
        use std::sync::Arc;
        use std::sync::atomic::AtomicBool;
        let _signals =
            signal_hook::flag::register(libc::SIGURG, Arc::new(AtomicBool::new(false))).unwrap();
        let (_line, successor) = UnixStream::pair().unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        let secret = OwnedFd::from(reader).into();
        let mut successor = Successor { secret, line: successor };
        let waits = std::thread::spawn(move || successor.wait(Duration::from_mins(1)).unwrap());
        while !waits.is_finished() {
            // SAFETY: the thread has not been joined.
            unsafe { libc::pthread_kill(waits.as_pthread_t(), libc::SIGURG) };
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(waits.join().unwrap(), Said::NothingYet);
    }

    /// Numbers of before mean something else in a process that was not started by a handover.
    #[test]
    fn nothing_is_taken_that_was_not_inherited() {
        let directory = tempfile::tempdir().unwrap();
        let anchor = File::create(directory.path().join("anchor")).unwrap();
        let other = File::create(directory.path().join("other")).unwrap();
        let key = super::super::open_file_key(&anchor).unwrap().unwrap();
        let estate = Estate::for_ourselves(&anchor, b"a secret").unwrap();
        let descriptors = estate.descriptors();
        // As our own files are: close-on-exec.
        assert!(!has_inherited(&descriptors, &key));
        assert!(Inherited::find(&descriptors, &key).is_none());
        for words in ["", "-1", "1:2", "3", "3:x", "3:4:5:6:7", "2147483647:4", "9999999999:1"] {
            assert!(Inherited::find(words, &key).is_none(), "{words}");
        }
        rustix::io::fcntl_setfd(&estate.anchor, FdFlags::empty()).unwrap();
        rustix::io::fcntl_setfd(&estate.secret, FdFlags::empty()).unwrap();
        let of_other = super::super::open_file_key(&other).unwrap().unwrap();
        assert!(Inherited::find(&descriptors, &of_other).is_none(), "another file");
        assert!(has_inherited(&descriptors, &key));
        let found = Inherited::find(&descriptors, &key).unwrap();
        std::mem::forget(estate);
        assert_eq!(found.will.read().unwrap().as_deref(), Some(&b"a secret"[..]));
        assert!(!has_inherited(&descriptors, &key), "it is our own now");
    }

    #[test]
    fn a_program_that_cannot_be_executed_changes_nothing() {
        let anchor = tempfile::tempfile().unwrap();
        let estate = Estate::for_ourselves(&anchor, b"a secret").unwrap();
        let numbers: Vec<RawFd> = estate.numbers().collect();
        let before = Signals::now();
        let error = estate.exec(Command::new("/no/such/program"));
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let after = Signals::now();
        assert_eq!(before.on_broken_pipe.sa_sigaction, after.on_broken_pipe.sa_sigaction);
        for number in numbers {
            // Other tests open files meanwhile, close-on-exec.
            assert!(!is_inherited(number, |_| true), "{number} is still open for others");
        }
    }
}
