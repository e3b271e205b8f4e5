//! Another program's answer, within a bound.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::unix::{monotonic, wait_readable};
use super::{CaptureError, Captured, ProcessHandle};

/// Between two looks whether the program has ended, where the end of its output does not wake us: a
/// process that it started may keep the pipe open.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long a killed program may take to be reaped; longer only if it hangs in the kernel.
const REAPED_WITHIN: Duration = Duration::from_millis(100);

pub fn capture(
    command: &mut Command,
    timeout: Duration,
    bytes_max: usize,
) -> Result<Captured, CaptureError> {
    let until = monotonic() + timeout;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut program = Program::start(command).map_err(CaptureError::Start)?;
    let answer = program.answer(until, bytes_max);
    if answer.is_err() {
        program.kill();
    }
    answer
}

struct Program {
    child: Child,
    stdout: ChildStdout,
    /// `None` where it could not be pinned; then it is not killed.
    handle: Option<ProcessHandle>,
}

/// Whether the program runs.
enum Look {
    Runs,
    /// With its status, unless somebody else took that.
    Ended(Option<ExitStatus>),
}

/// What a look at the pipe came to.
#[derive(PartialEq)]
enum Pipe {
    Open,
    Closed,
    /// More came than may.
    Overflows,
}

impl Program {
    fn start(command: &mut Command) -> io::Result<Self> {
        // A child beside the command of a `run`, and no part of that.
        let mut child = super::aside::remembered(|| command.spawn())?;
        let stdout =
            child.stdout.take().ok_or_else(|| io::Error::other("its output is not a pipe"))?;
        // Ours alone: the program has the other end.
        rustix::io::ioctl_fionbio(&stdout, true)?;
        let handle = ProcessHandle::open(child.id()).ok();
        let mut program = Self { child, stdout, handle };
        // Where another thread reaps whatever ends, the number may have been a stranger's already.
        if let Look::Ended(_) = program.look() {
            program.handle = None;
        }
        Ok(program)
    }

    fn answer(&mut self, until: Duration, bytes_max: usize) -> Result<Captured, CaptureError> {
        let mut bytes = Vec::new();
        loop {
            // In this order: what it printed before it ended is in the pipe.
            let look = self.look();
            let pipe = self.read(&mut bytes, bytes_max);
            if pipe == Pipe::Overflows {
                return Err(CaptureError::TooMuch);
            }
            if let Look::Ended(status) = look {
                return Ok(Captured { bytes, status });
            }
            let remaining = until.saturating_sub(monotonic());
            if remaining.is_zero() {
                return Err(CaptureError::TimedOut);
            }
            let step = LOOK_EVERY.min(remaining);
            match (&self.handle, pipe) {
                // It closes its output as it ends; a moment later it can be reaped.
                (Some(handle), Pipe::Closed) => {
                    handle.wait_ended(step);
                }
                (None, Pipe::Closed) => std::thread::sleep(step),
                (_, Pipe::Open | Pipe::Overflows) => {
                    wait_readable(&self.stdout, step);
                }
            }
        }
    }

    fn look(&mut self) -> Look {
        match self.child.try_wait() {
            Ok(None) => Look::Runs,
            Ok(status) => Look::Ended(status),
            // ECHILD: it has ended, and its status went to who waits for any child (wait(-1)), or
            // to nobody (SIGCHLD is ignored).
            Err(_) => Look::Ended(None),
        }
    }

    fn read(&mut self, bytes: &mut Vec<u8>, bytes_max: usize) -> Pipe {
        let mut buffer = [0; 4_096];
        loop {
            match self.stdout.read(&mut buffer) {
                Ok(0) => return Pipe::Closed,
                Ok(read) if bytes.len() + read > bytes_max => return Pipe::Overflows,
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Pipe::Open,
                Err(_) => return Pipe::Closed,
            }
        }
    }

    /// Kills it, and reaps it if it ends at once.
    fn kill(&mut self) {
        let Some(handle) = &self.handle else { return };
        if let Err(error) = handle.kill() {
            tracing::debug!(pid = self.child.id(), %error, "a program that is too slow stays");
            return;
        }
        handle.wait_ended(REAPED_WITHIN);
        self.look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout_ms: u64) -> Result<Captured, CaptureError> {
        let timeout = Duration::from_millis(timeout_ms);
        capture(Command::new("/bin/sh").args(["-c", script]), timeout, 100_000)
    }

    /// Generous: it is not reached.
    const LONG_MS: u64 = 30_000;

    #[test]
    fn all_that_was_printed_and_the_status() {
        let script = "cat; echo error >&2; head -c 90000 /dev/zero; exit 3";
        let captured = shell(script, LONG_MS).unwrap();
        assert_eq!(captured.bytes.len(), 90_000, "the input is empty, the errors are elsewhere");
        assert_eq!(captured.status.unwrap().code(), Some(3));
    }

    #[test]
    fn what_does_not_end_is_killed_and_reaped() {
        let mut program =
            Program::start(Command::new("/bin/sleep").arg("1000").stdout(Stdio::piped())).unwrap();
        let answer = program.answer(monotonic(), 1);
        assert!(matches!(answer, Err(CaptureError::TimedOut)), "{answer:?}");
        program.kill();
        // Only a reaped one has a status.
        assert!(matches!(program.look(), Look::Ended(Some(_))));
        let directory = format!("/proc/{}", program.child.id());
        assert!(!std::path::Path::new(&directory).exists());

        // Also one that closed its output, and one that prints without end.
        let answer = shell("exec 1>&-; exec sleep 1000", 100);
        assert!(matches!(answer, Err(CaptureError::TimedOut)), "{answer:?}");
        let answer = shell("exec yes", LONG_MS);
        assert!(matches!(answer, Err(CaptureError::TooMuch)), "{answer:?}");
    }

    #[test]
    fn whoever_inherits_the_pipe_is_not_waited_for() {
        let captured = shell("sleep 60 & echo $!", LONG_MS).unwrap();
        let heir = String::from_utf8(captured.bytes).unwrap().trim().parse().unwrap();
        let heir = ProcessHandle::open(heir).unwrap();
        assert!(!heir.has_ended(), "it was waited for");
        heir.kill().unwrap();
    }

    #[test]
    fn a_program_that_is_not_there() {
        let answer = capture(&mut Command::new("/no/such/program"), Duration::ZERO, 1);
        let Err(CaptureError::Start(error)) = answer else { panic!("{answer:?}") };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
