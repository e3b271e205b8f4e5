//! The detached diagnostic: a slow look at the machine that holds nobody up, ends by itself, is
//! bounded on disk, tells no secret, and says why it does not know something.
//!
//! The programs that it asks are replaced by scripts where they have to hang, fail or talk too
//! much.

mod cli;
mod library;
mod log;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Answer, LIMIT, Process, Sandbox, Stat, eventually};

/// Never ends by itself, and has a child that does not either.
const HANG: &str = "/bin/sleep 1000 & wait";

impl Sandbox {
    fn log(&self) -> PathBuf {
        self.file("log")
    }

    fn read_log(&self) -> String {
        String::from_utf8(std::fs::read(self.log()).unwrap_or_default()).unwrap()
    }

    /// A script in the place of a program. Another process writes it: if we had it open while a
    /// test beside us forks, executing it would fail (ETXTBSY).
    fn fake(&self, name: &str, script: &str) -> &Self {
        let mut writer =
            self.shell(&format!("mkdir -p bin; cat > bin/{name}; chmod +x bin/{name}"));
        let mut writer = writer.stdin(Stdio::piped()).spawn().unwrap();
        writer
            .stdin
            .take()
            .unwrap()
            .write_all(format!("#!/bin/sh\n{script}\n").as_bytes())
            .unwrap();
        assert!(writer.wait().unwrap().success());
        self
    }

    /// A `ps` that waits until [`Sandbox::open_gate`].
    fn fake_ps_behind_gate(&self) {
        let gate = self.file("gate").display().to_string();
        Process::start(self.shell("mkfifo gate")).finish(LIMIT).assert_code(0);
        self.fake("ps", &format!("read x < {gate}; echo the gate is open >&2; exit 1"));
    }

    fn open_gate(&self) {
        Process::start(self.shell("echo > gate")).finish(LIMIT).assert_code(0);
    }

    /// `forensics diagnose`, which finds no programs but the fake ones.
    fn diagnose_with_fakes(&self, options: &[&str]) -> Command {
        let mut command = self.diagnose(options);
        command.env("PATH", self.file("bin"));
        self.among_fakes(command)
    }

    fn diagnose(&self, options: &[&str]) -> Command {
        self.incumbent([&["forensics", "diagnose", "--log", "log"], options].concat())
    }

    /// What the diagnostic by `pid` wrote, once it has ended.
    #[track_caller]
    fn diagnostic(&self, pid: u32) -> String {
        let end = format!("=== end === #{pid}, after ");
        eventually("the end of the diagnostic", LIMIT, || {
            // Read once more after the line is there: it may have been half of it.
            let ended = self.read_log().contains(&end) && is_gone(pid);
            ended.then(|| self.read_log())
        })
    }

    /// Starts a diagnostic, and returns what it wrote.
    #[track_caller]
    fn diagnosed(&self, command: Command) -> String {
        self.diagnostic(diagnostic_pid(command))
    }
}

#[track_caller]
fn diagnostic_pid(command: Command) -> u32 {
    pid_of(&Process::start(command).finish(LIMIT).assert_code(0))
}

#[track_caller]
fn pid_of(answer: &Answer) -> u32 {
    answer.out.trim().parse().unwrap_or_else(|_| panic!("no pid: {answer:#?}"))
}

fn is_gone(pid: u32) -> bool {
    Stat::of(pid).is_none_or(|stat| stat.state == 'Z')
}

/// The lines of one section.
#[track_caller]
fn section<'a>(log: &'a str, title: &str) -> Vec<&'a str> {
    let start = format!("--- {title}");
    let found: Vec<&str> = log
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .skip(1)
        .take_while(|line| !line.starts_with("---") && !line.starts_with("==="))
        .collect();
    assert!(!found.is_empty(), "no section {title:?}, or a blank one: {log}");
    found
}

#[track_caller]
fn assert_holds(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}
