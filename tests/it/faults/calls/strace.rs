//! A program under strace, with one call that fails or is its last.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::fault::Fault;
use crate::support::{BINARY, LIMIT, Sandbox, exit_code, wait_ended};

/// What a traced verb did.
#[derive(Debug)]
pub struct Traced {
    /// 128 + n after a signal, as a shell says it.
    pub code: i32,
    pub out: String,
    pub err: String,
    pub trace: String,
    pub took: Duration,
}

/// What is asked of the program.
pub struct Asked {
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
}

impl Traced {
    /// Runs it under strace. A keeper that stays may be among those that strace follows, so its end
    /// is not waited for. An error is what it has said so far, where it does not end.
    fn run(sandbox: &Sandbox, options: &[String], asked: &Asked) -> Result<Self, String> {
        let path = |name: &str| sandbox.file(name);
        let (trace, out, err) = (path("trace"), path("out.txt"), path("err.txt"));
        let _ = std::fs::remove_file(&trace);
        let mut command = sandbox.program("strace");
        command.args(["-f", "-q", "-y", "-s", "64", "-o"]).arg(&trace).args(options);
        command.arg(BINARY).args(&asked.arguments).envs(asked.environment.iter().cloned());
        command.stdin(Stdio::null());
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let began = Instant::now();
        let code = end_of(command, &trace);
        let took = began.elapsed();
        let text = |path: &Path| {
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
        };
        let (trace, out, err) = (text(&trace), text(&out), text(&err));
        match code {
            Some(code) => Ok(Self { code, out, err, trace, took }),
            None => Err(format!("{out}{err}\n{trace}")),
        }
    }

    /// Without a fault: what it does, and every call that it makes.
    pub fn undisturbed(sandbox: &Sandbox, asked: &Asked) -> Result<Self, String> {
        Self::run(sandbox, &["-e", "trace=all"].map(str::to_owned), asked)
    }

    pub fn with(sandbox: &Sandbox, asked: &Asked, fault: &Fault) -> Result<Self, String> {
        // The first line tells which process is the verb's.
        let trace = format!("trace=execve,{}", fault.call);
        let options = ["-e", &trace, "-e", &fault.injection()].map(str::to_owned);
        Self::run(sandbox, &options, asked)
    }

    /// The lines of the calls that failed.
    pub fn hits(&self) -> impl Iterator<Item = &str> {
        self.trace.lines().filter(|line| line.contains("(INJECTED)"))
    }

    /// Whether the fault was met.
    pub fn met(&self, fault: &Fault) -> bool {
        if fault.kills() {
            self.trace.contains("+++ killed by SIGKILL +++")
        } else {
            self.hits().next().is_some()
        }
    }

    /// Whether what failed belongs to the C library's loader or to Rust's runtime, which end the
    /// process before, or where, nothing of ours is asked.
    pub fn is_of_the_runtime(&self) -> bool {
        const OTHERS: [&str; 3] = [
            "error while loading shared libraries",
            // Of a thread that starts.
            "alternative stack",
            // Rust ends a program that gets no memory for a value.
            "memory allocation of",
        ];
        OTHERS.iter().any(|words| self.err.contains(words)) || self.is_first_memory_of_a_program()
    }

    /// Whether a program got no memory for its loader, which is killed by SIGSEGV then, without a
    /// word.
    fn is_first_memory_of_a_program(&self) -> bool {
        let pid_of = |line: &str| line.split(' ').next().map(str::to_owned);
        let mut last: HashMap<Option<String>, &str> = HashMap::new();
        let (mut first, mut later) = (0, 0);
        for line in self.trace.lines() {
            let before = last.insert(pid_of(line), line);
            if line.contains("(INJECTED)") {
                let is_first = before.is_some_and(|it| it.contains("execve("));
                let is_first = is_first && line.contains(" mmap(");
                *if is_first { &mut first } else { &mut later } += 1;
            }
        }
        first > 0 && later == 0
    }

    /// The signal that a process ended itself by, of those that mean a bug. Whoever speaks to one
    /// that was killed ends by SIGPIPE, rightly.
    pub fn crash(&self, fault: &Fault) -> Option<&'static str> {
        const CRASHES: [&str; 8] =
            ["SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGPIPE", "SIGSEGV", "SIGSYS", "SIGXFSZ"];
        let killed = self.trace.lines().filter_map(|line| line.split_once("+++ killed by "));
        let names: Vec<&str> = killed.map(|(_, name)| name).collect();
        let mut crashes =
            CRASHES.into_iter().filter(|signal| !(fault.kills() && *signal == "SIGPIPE"));
        crashes.find(|signal| names.iter().any(|name| name.starts_with(signal)))
    }
}

/// The exit code of what `strace` runs; `None` where it does not end.
fn end_of(mut strace: Command, trace: &Path) -> Option<i32> {
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    let mut strace = strace.spawn().unwrap();
    let started = Instant::now();
    let code = loop {
        if wait_ended(strace.id(), LOOK_EVERY) {
            return Some(exit_code(strace.wait().unwrap()));
        }
        let lines = std::fs::read_to_string(trace).unwrap_or_default();
        let verb = lines.split(' ').next().unwrap_or_default();
        let end = lines.lines().find_map(|line| {
            line.strip_prefix(verb)?.trim_start().strip_prefix("+++ ").map(str::to_owned)
        });
        if let Some(end) = end {
            let code = end.strip_prefix("exited with ").and_then(|rest| rest.split(' ').next());
            let killed = if end.starts_with("killed by SIGKILL") { 137 } else { 128 };
            break Some(code.and_then(|code| code.parse().ok()).unwrap_or(killed));
        }
        if started.elapsed() > LIMIT {
            break None;
        }
    };
    // Whom it traced goes on.
    let _ = strace.kill();
    let _ = strace.wait();
    code
}
