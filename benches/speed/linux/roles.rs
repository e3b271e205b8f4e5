//! This program, started again to play a part in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use incumbent::lock::AcquireOptions;
use incumbent::stop::Replace;
use incumbent::{Acquire, Claim, ClaimOptions, LockRequest, ScopedLock, Store, Tenure, Wait};

use super::library::{SCOPE, acquire, claim_as};
use super::{contention, counts, long};

/// The first argument of a process that plays a part.
pub const ROLE: &str = "--role";

pub const IDENTITY: &str = "123456:secret";

/// Longer than any hand-over: a waiter that hits it has missed its wake-up.
pub const LIMIT: Duration = Duration::from_secs(9);

/// Killed when dropped.
pub struct Role {
    pub child: Child,
    stdin: ChildStdin,
    out: BufReader<ChildStdout>,
}

impl Role {
    pub fn start(words: &[&str]) -> Self {
        let mut child = Self::command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a role");
        let stdin = child.stdin.take().expect("a pipe");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, stdin, out }
    }

    pub fn command(words: &[&str]) -> Command {
        let mut command = Command::new(this_program());
        command.arg(ROLE).args(words);
        command
    }

    /// Holds `lock` or `office` until it is dropped.
    pub fn holding(what: &str, path: &Path) -> Self {
        let mut holder = Self::start(&["hold", what, text(path)]);
        assert_eq!(holder.line(), "held");
        holder
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    pub fn number(&mut self) -> u64 {
        self.line().parse().expect("a number")
    }

    pub fn say(&mut self, word: &str) {
        writeln!(self.stdin, "{word}").expect("an order");
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program")
}

/// Plays the part that the arguments name.
pub fn play(words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["hold", what, path] => hold(what, Path::new(path), Wait::No),
        ["wait", what, path] => hold(what, Path::new(path), Wait::UpTo(LIMIT)),
        ["take", path] => take(Path::new(path)),
        ["live", live, big, name] => live_in(Path::new(live), Path::new(big), name),
        ["write-lock", path] => hold_write_lock(Path::new(path)),
        ["contend", how, path, name, pause_ms, seconds] => {
            contention::contend(how, Path::new(path), name, pause_ms, seconds);
        }
        ["queue", path] => long::queue(Path::new(path)),
        ["count", name, repeats, path] => counts::repeat(name, repeats, Path::new(path)),
        _ => panic!("a part that nobody knows: {words:?}"),
    }
}

/// Nanoseconds of the clock that all processes share.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).expect("a time") * 1_000_000_000
        + u64::try_from(now.tv_nsec).expect("a time")
}

/// Until the other side says something, or is gone.
fn order() -> String {
    let mut order = String::new();
    std::io::stdin().read_line(&mut order).expect("an order");
    order.trim().to_owned()
}

fn hold(what: &str, path: &Path, wait: Wait) {
    let store = Store::open(path).expect("a store");
    let waits = wait != Wait::No;
    if waits {
        println!("waits");
    }
    let guard = Guard::take(&store, what, wait);
    let granted_ns = now_ns();
    if waits {
        println!("{granted_ns}");
    } else {
        println!("held");
    }
    if order() == "release" {
        let at_ns = now_ns();
        guard.release();
        println!("{at_ns}");
        order();
    }
}

/// Takes the office over, and says how long that took.
fn take(path: &Path) {
    let store = Store::open(path).expect("a store");
    let profile = store.profile("default").expect("a profile");
    let options = ClaimOptions::new().replace(Replace::new());
    let began_ns = now_ns();
    let Ok(Claim::Granted(_tenure)) = profile.claim_with(&options) else {
        panic!("it was not granted")
    };
    println!("{}", now_ns() - began_ns);
    order();
}

/// One of many live processes: an office in each of two stores, and two locks in the big one.
fn live_in(live: &Path, big: &Path, name: &str) {
    let (live, big) = (Store::open(live).expect("a store"), Store::open(big).expect("a store"));
    let tenures = [claim_as(&live, name), claim_as(&big, name)];
    let locks = ["a", "b"].map(|which| acquire(&big, &format!("{name} {which}")));
    println!("ready");
    order();
    drop((locks, tenures));
}

/// A writer that does not come to its end.
fn hold_write_lock(path: &Path) {
    let connection = rusqlite::Connection::open(path).expect("a database");
    connection.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    println!("held");
    order();
}

enum Guard {
    Lock(ScopedLock),
    Office(Tenure),
}

impl Guard {
    fn take(store: &Store, what: &str, wait: Wait) -> Self {
        if what == "office" {
            let profile = store.profile("default").expect("a profile");
            match profile.claim_with(&ClaimOptions::new().wait(wait)).expect("an answer") {
                Claim::Granted(tenure) => Self::Office(tenure),
                Claim::Held(holder) => panic!("{holder}"),
            }
        } else {
            let request = LockRequest::new(SCOPE, IDENTITY).expect("a request");
            let options = AcquireOptions::new().wait(wait);
            match store.acquire(&request, &options).expect("an answer") {
                Acquire::Granted(lock) => Self::Lock(lock),
                Acquire::Held(holder) => panic!("{holder}"),
            }
        }
    }

    fn release(self) {
        match self {
            Self::Lock(lock) => drop(lock.release().expect("a release")),
            Self::Office(tenure) => drop(tenure.release().expect("a release")),
        }
    }
}
