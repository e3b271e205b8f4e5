//! The peers that are written in Python, in one interpreter that is asked for batches.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use super::measure::Batch;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/speed/linux/file_scheme.py");

/// Of Python's filelock: one version, so that runs can be compared.
const FILELOCK: &str = "filelock==3.20.0";

/// An interpreter that can import filelock if that is possible here; `None`: there is no Python.
pub fn interpreter() -> Option<PathBuf> {
    let works = |program: &Path, code: &str| {
        let run = Command::new(program).args(["-c", code]).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    // Not a script in front of it: what starts python3 may be one.
    let asked = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let Some(plain) = asked.ok().filter(|output| output.status.success()) else {
        eprintln!("SKIPPED: the peers in Python: there is no python3");
        return None;
    };
    let plain = PathBuf::from(String::from_utf8_lossy(&plain.stdout).trim());
    if works(&plain, "import filelock") {
        return Some(plain);
    }
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("speed-python");
    let installed = environment.join("bin/python3");
    if works(&installed, "import filelock") {
        return Some(installed);
    }
    let ran = |command: &mut Command| {
        let run = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    let made = ran(Command::new(&plain).args(["-m", "venv"]).arg(&environment))
        && ran(Command::new(&installed).args(["-m", "pip", "install", "-q", FILELOCK]));
    if made {
        return Some(installed);
    }
    eprintln!("SKIPPED: Python's filelock: it is not installed, and pip cannot install it");
    Some(plain)
}

/// The script with its interpreter.
pub fn script(interpreter: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(interpreter);
    // Without what site packages of others add to a start, but with those of its own environment.
    command.arg("-E").arg(SCRIPT).args(words);
    command
}

/// Does operations until it is dropped.
pub struct Python {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    known: Vec<String>,
}

impl Python {
    pub fn start(interpreter: &Path, directory: &Path) -> Self {
        let directory = directory.to_str().expect("a path of text");
        let mut child = script(interpreter, &["serve", directory])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let orders = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut python = Self { child, orders, answers, known: Vec::new() };
        python.known = python.line().split_whitespace().skip(1).map(str::to_owned).collect();
        python
    }

    pub fn knows(&self, operation: &str) -> bool {
        self.known.iter().any(|known| known == operation)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    fn run(&mut self, operation: &str, repeats: u32) -> Duration {
        writeln!(self.orders, "{operation} {repeats}").expect("an order");
        Duration::from_nanos(self.line().parse().expect("nanoseconds"))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None` where it cannot do that.
pub fn batch(python: &Rc<RefCell<Python>>, operation: &'static str) -> Option<Batch> {
    if !python.borrow().knows(operation) {
        return None;
    }
    let python = Rc::clone(python);
    Some(Box::new(move |repeats| python.borrow_mut().run(operation, repeats)))
}
