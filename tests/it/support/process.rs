//! Processes that are talked to over pipes, are waited for with a bound, and end with their test.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

use super::{LIMIT, eventually};

/// A program for Python whose main thread ends while another one stays: it shows state Z, has no
/// readable command line, and lives until its standard input is closed. It says `alone` by then.
pub const WITHOUT_MAIN_THREAD: &str = "
import ctypes, os, sys, threading
def stay():
    while open(f'/proc/{os.getpid()}/stat').read().rsplit(')', 1)[1].split()[0] != 'Z':
        pass
    print('alone', flush=True)
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=stay).start()
ctypes.CDLL(None).pthread_exit(None)
";

/// How a process ended and what it said.
#[derive(Debug)]
pub struct Answer {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Answer {
    /// The exit code; 128 + n after a signal, as a shell says it.
    pub fn code(&self) -> i32 {
        exit_code(self.status)
    }

    /// The document, without its format: that all have one is seen where they are held against
    /// their schemas.
    #[track_caller]
    pub fn json(&self) -> Value {
        let document = serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("not one JSON document: {error}: {self:#?}"));
        without_format(document)
    }

    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self:#?}");
        self
    }

    /// Whether standard error holds all of `words`, in this order.
    #[track_caller]
    pub fn assert_complains(self, words: &[&str]) -> Self {
        let mut rest = self.err.as_str();
        for word in words {
            match rest.split_once(word) {
                Some((_, after)) => rest = after,
                None => panic!("no {word:?} (or not in this order): {self:#?}"),
            }
        }
        self
    }
}

/// What a document says, of whatever format.
pub fn without_format(mut document: Value) -> Value {
    match &mut document {
        Value::Object(fields) => drop(fields.shift_remove("format")),
        Value::Array(elements) => {
            for element in elements {
                *element = without_format(element.take());
            }
        }
        _ => {}
    }
    document
}

/// See [`Answer::code`].
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// A child of the test. Its standard streams are pipes, both outputs are read as they come, and it
/// is killed and reaped when dropped.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Lines,
    err: Lines,
    status: Option<ExitStatus>,
}

impl Process {
    #[track_caller]
    pub fn start(command: Command) -> Self {
        Self::start_with_stderr(command, Stdio::piped())
    }

    #[track_caller]
    pub fn start_with_stderr(mut command: Command, stderr: Stdio) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take();
        let out = Lines::of(child.id(), child.stdout.take());
        let err = Lines::of(child.id(), child.stderr.take());
        Self { child, stdin, out, err, status: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its standard output, without the line's end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.out.next(LIMIT) {
            Some(line) => line,
            None => panic!(
                "pid {} closed its standard output; standard error: {:?}",
                self.child.id(),
                self.err.rest(Duration::from_secs(1)).0
            ),
        }
    }

    /// The next line of its standard error.
    #[track_caller]
    pub fn err_line(&mut self) -> String {
        self.err.next(LIMIT).expect("standard error was closed")
    }

    /// The next line of its standard error that holds `words`.
    #[track_caller]
    pub fn err_line_with(&mut self, words: &str) -> String {
        loop {
            match self.err.next(LIMIT) {
                Some(line) if line.contains(words) => return line,
                Some(_) => {}
                None => panic!(
                    "standard error was closed without {words:?} behind: {}",
                    self.said_so_far()
                ),
            }
        }
    }

    /// The next line of its standard error that holds `words`; `None` where it ends without one.
    #[track_caller]
    pub fn err_line_with_or_end(&mut self, words: &str) -> Option<String> {
        loop {
            let line = self.err.next(LIMIT)?;
            if line.contains(words) {
                return Some(line);
            }
        }
    }

    /// The next line of its standard output that holds `words`.
    #[track_caller]
    pub fn line_with(&mut self, words: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(words) {
                return line;
            }
        }
    }

    pub fn say(&mut self, line: &str) {
        self.write(&format!("{line}\n"));
    }

    pub fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("standard input was closed before");
        stdin.write_all(text.as_bytes()).unwrap();
    }

    /// [`Process::say`], to one who may just be killed.
    pub fn say_to_the_dying(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("standard input was closed before");
        let _ = stdin.write_all(format!("{line}\n").as_bytes());
    }

    /// Whether it lives, of a `cat`: it says back what it is told. A signal that was sent before
    /// has reached it by then.
    pub fn echoes(&mut self) -> bool {
        let stdin = self.stdin.as_mut().expect("standard input was closed before");
        stdin.write_all(b"there?\n").is_ok()
            && self.out.next(LIMIT).is_some_and(|line| line == "there?")
    }

    /// Tells it that nothing more will come.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Whether it has ended; collects it.
    pub fn has_ended(&mut self) -> bool {
        self.status = self.status.or_else(|| self.child.try_wait().unwrap());
        self.status.is_some()
    }

    /// Waits for its end, not for its pipes.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        assert!(
            wait_ended(self.pid(), limit),
            "pid {} has not ended within {limit:?}; standard error: {:?}",
            self.pid(),
            self.said_so_far()
        );
        let status = self.child.wait().unwrap();
        self.status = Some(status);
        status
    }

    /// What it has said on standard error, to explain what is not as it should be.
    pub fn said_so_far(&mut self) -> String {
        self.err.rest(Duration::ZERO).0
    }

    /// Kills it, and collects it.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }

    /// Closes its standard input and waits for its end and for the end of both its outputs: nobody
    /// it started may have kept them.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Answer {
        self.close_stdin();
        self.finish_with_stdin_open(limit)
    }

    #[track_caller]
    pub fn finish_with_stdin_open(mut self, limit: Duration) -> Answer {
        let started = Instant::now();
        let status = self.wait(limit);
        let left = || limit.saturating_sub(started.elapsed()).max(Duration::from_secs(1));
        let (out, out_ended) = self.out.rest(left());
        let (err, err_ended) = self.err.rest(left());
        let answer = Answer { status, out, err };
        assert!(out_ended, "somebody keeps standard output open after the end: {answer:#?}");
        assert!(err_ended, "somebody keeps standard error open after the end: {answer:#?}");
        answer
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `incumbent run` with a command that said its pid: the office is held.
pub struct Run {
    pub process: Process,
    /// The command.
    pub command: Identity,
}

impl Run {
    #[track_caller]
    pub fn start(command: Command) -> Self {
        let mut process = Process::start(command);
        let line = process.line();
        let pid = line.trim().parse().unwrap_or_else(|_| panic!("not a pid: {line:?}"));
        Self { process, command: Identity::of(pid).expect("the command has just spoken") }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Lets the command end by itself; returns how the run ended.
    #[track_caller]
    pub fn end(self) -> Answer {
        self.process.finish(LIMIT)
    }

    /// `kill -9`, collected.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// A process that is not mistaken for another one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    pub start_time: u64,
}

impl Identity {
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_time: Stat::of(pid)?.start_time })
    }

    /// Whether none of its threads is left.
    pub fn is_gone(self) -> bool {
        Stat::of(self.pid).is_none_or(|stat| {
            stat.start_time != self.start_time || matches!(stat.state, 'Z' | 'X')
        })
    }

    #[track_caller]
    pub fn wait_gone(self, limit: Duration) {
        eventually(&format!("the end of pid {}", self.pid), limit, || self.is_gone().then_some(()));
    }
}

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    pub state: char,
    pub parent: u32,
    pub session: u32,
    pub start_time: u64,
}

impl Stat {
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        // The name is in parentheses and may hold some itself.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Whether there is such a process that has not ended.
pub fn is_running(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.state != 'Z')
}

pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap_or_else(|error| panic!("kill {pid:?}: {error}"));
}

pub fn kill_all(pids: &[u32], signal: Signal) {
    for pid in pids {
        kill(*pid, signal);
    }
}

/// Waits until all threads of `pid` have ended; `false` when the time was not enough.
pub fn wait_ended(pid: u32, limit: Duration) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap();
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Whether the kernel tells how a process ended that somebody else has collected (Linux 6.15).
pub fn kernel_tells_ends() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// Waits until `pid` is stopped by a signal.
#[track_caller]
pub fn wait_stopped(pid: u32) {
    eventually(&format!("pid {pid} is stopped"), LIMIT, || {
        (Stat::of(pid)?.state == 'T').then_some(())
    });
}

/// Every process whose environment holds `tag=value` (of those that we may look at).
pub fn tagged(tag: &str, value: &Path) -> Vec<u32> {
    let wanted = format!("{tag}={}", value.display()).into_bytes();
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|pair| pair == wanted))
        })
        .collect()
}

/// Kills every process with that tag, until none is left.
pub fn end_tagged(tag: &str, value: &Path) {
    for _ in 0..10 {
        let left = tagged(tag, value);
        if left.is_empty() {
            return;
        }
        for pid in left {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Lines of a pipe, read as they come: a full pipe must not stop the process under test.
struct Lines {
    pid: u32,
    received: Receiver<Vec<u8>>,
    /// Those that were read so far.
    seen: Vec<String>,
}

impl Lines {
    /// Of no pipe at all: it has ended before it began.
    fn of(pid: u32, pipe: Option<impl Read + Send + 'static>) -> Self {
        let (sender, received) = channel();
        std::thread::spawn(move || {
            let Some(pipe) = pipe else { return };
            let mut pipe = BufReader::new(pipe);
            loop {
                let mut line = Vec::new();
                match pipe.read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) if sender.send(line).is_err() => return,
                    Ok(_) => {}
                }
            }
        });
        Self { pid, received, seen: Vec::new() }
    }

    /// The next line; `None` at the end.
    #[track_caller]
    fn next(&mut self, limit: Duration) -> Option<String> {
        match self.received.recv_timeout(limit) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line).into_owned();
                self.seen.push(line.clone());
                Some(line.trim_end_matches('\n').to_owned())
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let threads = threads_of(self.pid);
                panic!("no line within {limit:?}; before: {:?}; threads: {threads:?}", self.seen)
            }
        }
    }

    /// All there was and is, and whether it has ended.
    fn rest(&mut self, limit: Duration) -> (String, bool) {
        let until = Instant::now() + limit;
        loop {
            match self.received.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(String::from_utf8_lossy(&line).into_owned()),
                Err(RecvTimeoutError::Disconnected) => return (self.seen.concat(), true),
                Err(RecvTimeoutError::Timeout) => return (self.seen.concat(), false),
            }
        }
    }
}

/// What each thread of a process does: its name, its state, and the call that it is in.
fn threads_of(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let of_thread = |entry: std::fs::DirEntry| {
        let stat = read(entry.path().join("stat"));
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start().get(..1);
        let (name, call) = (read(entry.path().join("comm")), read(entry.path().join("syscall")));
        format!("{} {} {}", name.trim_end(), state.unwrap_or_default(), call.trim_end())
    };
    entries.map(of_thread).collect()
}

/// Whether a process has a thread of this name.
pub fn has_thread(pid: u32, name: &str) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|it| std::fs::read_to_string(it.path().join("comm")).ok());
    names.any(|it| it.trim_end() == name)
}

/// How often the threads of a process have gone to sleep, those that live.
pub fn threads_slept(pid: u32) -> u64 {
    let slept = |status: String| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().last()?.parse().ok()
    };
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let statuses = entries.filter_map(|it| std::fs::read_to_string(it.path().join("status")).ok());
    statuses.filter_map(slept).sum()
}

/// Waits until the main thread of each has gone to sleep so many times more: who sleeps between two
/// looks has looked as often.
#[track_caller]
pub fn wait_for_looks(pids: &[u32], times: u64) {
    let slept = |pid: u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    let until: Vec<_> = pids.iter().map(|pid| (*pid, slept(*pid) + times)).collect();
    eventually(&format!("{times} looks of {pids:?}"), LIMIT, || {
        until.iter().all(|(pid, times)| slept(*pid) >= *times).then_some(())
    });
}
