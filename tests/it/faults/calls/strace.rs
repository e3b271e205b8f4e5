//! A program under strace, with one call that fails.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::verbs::{WITHIN, of_run, words};
use super::world::World;
use crate::support::{BINARY, LIMIT, exit_code, wait_ended};

/// The n-th call after those of the dynamic loader fails.
#[derive(Clone, Debug)]
pub struct Fault {
    pub call: String,
    pub errno: &'static str,
    pub n: usize,
    /// How many the loader makes.
    pub before: usize,
}

/// What a traced verb did.
#[derive(Debug)]
pub struct Traced {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub trace: String,
}

impl Traced {
    /// Runs `arguments` under strace. A keeper that stays may be among those that strace follows,
    /// so its end is not waited for.
    pub fn run(world: &World, options: &[String], verb: &str) -> Result<Self, String> {
        let path = |name: &str| world.sandbox.file(name);
        let (trace, out, err) = (path("trace"), path("out.txt"), path("err.txt"));
        let _ = std::fs::remove_file(&trace);
        let mut command = world.sandbox.program("strace");
        command.args(["-f", "-q", "-y", "-s", "64", "-o"]).arg(&trace).args(options);
        command.arg(BINARY).args(words(verb, world));
        if verb.starts_with(WITHIN) {
            command.envs(of_run(world.living.pid));
        }
        command.stdin(Stdio::null());
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let code = end_of(command, &trace);
        let text = |path: &Path| {
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
        };
        let (trace, out, err) = (text(&trace), text(&out), text(&err));
        match code {
            Some(code) => Ok(Self { code, out, err, trace }),
            None => Err(format!("{out}{err}\n{trace}")),
        }
    }

    pub fn with(world: &World, verb: &str, fault: &Fault) -> Result<Self, String> {
        let Fault { call, errno, n, before } = fault;
        let when = before + n;
        let inject = format!("inject={call}:error={errno}:when={when}");
        // The first line tells which process is the verb's.
        let trace = format!("trace=execve,{call}");
        let options = ["-e", &trace, "-e", &inject].map(str::to_owned);
        Self::run(world, &options, verb)
    }

    /// The lines of the calls that failed.
    pub fn hits(&self) -> impl Iterator<Item = &str> {
        self.trace.lines().filter(|line| line.contains("(INJECTED)"))
    }

    /// The dynamic loader failed, so nothing of ours was tried.
    pub fn is_of_the_loader(&self) -> bool {
        self.code == 127 && self.err.contains("error while loading shared libraries")
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
            break Some(code.and_then(|code| code.parse().ok()).unwrap_or(128));
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

/// How often a process of ours makes each call: in the dynamic loader, and after it.
pub fn counts(trace: &str) -> BTreeMap<String, (usize, usize)> {
    // The first thing that a program does once it is loaded.
    const LOADED: &str = "poll";
    /// Of one process: whether it is loaded, and its calls before that and after.
    type Calls<'a> = (bool, BTreeMap<&'a str, (usize, usize)>);
    let mut processes: BTreeMap<&str, Calls<'_>> = BTreeMap::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if call.contains(' ') {
            continue;
        }
        let (is_loaded, calls) = processes.entry(pid).or_default();
        if call == LOADED {
            *is_loaded = true;
            continue;
        }
        let (before, after) = calls.entry(call).or_default();
        *if *is_loaded { after } else { before } += 1;
    }
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (is_loaded, calls) in processes.into_values() {
        for (call, (before, after)) in calls.into_iter().filter(|_| is_loaded) {
            let known = counts.entry(call.to_owned()).or_default();
            *known = (known.0.max(before), known.1.max(after));
        }
    }
    counts.retain(|_, (_, after)| *after > 0);
    counts
}
