//! One system call fails while the program looks: it says so, and takes it for no answer.
//!
//! Every verb is run under strace, which lets the n-th call of one kind fail with one errno, while an
//! owner lives. Whatever fails: nobody gets what that owner holds, nobody is told a wrong "no", nothing
//! panics, and the owner is judged alive by the next one who asks.
//!
//! A build tries a sample with a fixed seed. `INCUMBENT_FAULTS=all cargo test --test it faults --
//! --nocapture` walks everything and prints what it covered; a number instead of `all` is how many
//! faults to try for each verb and owner, `INCUMBENT_FAULTS_ONLY=WORDS` takes the verbs with these words.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use incumbent::{Acquire, Claim, LockRequest, Standing, Store};
use rustix::process::Signal;

use crate::support::{
    BINARY, Identity, LIMIT, Process, Random, Sandbox, another_user, exit_code, has, kill, plays,
    role_db, skipped, test_name, wait_ended, works,
};

/// The calls that look at something. What a kernel or a machine has not is left out by strace.
const CALLS: &str = "openat,read,pread64,?readlink,readlinkat,statx,?newfstatat,fstat,flock,fcntl,\
                     pidfd_open,getdents64,fstatfs,?statfs,ioctl,pidfd_send_signal";

/// What a call fails with.
const ERRNOS: [&str; 8] =
    ["EMFILE", "ENFILE", "ENOMEM", "EIO", "EAGAIN", "EACCES", "ESTALE", "ENOSYS"];

/// Those that say something of us, and nothing of what was looked at.
const SHORTAGES: [&str; 5] = ["EMFILE", "ENFILE", "ENOMEM", "EIO", "EAGAIN"];

/// Each of the first calls of a kind fails once, and some of the later ones.
const CALLS_EACH: usize = 20;
const CALLS_BEYOND: usize = 4;

/// No verb here waits for more than some seconds.
const HANGS_AFTER: Duration = Duration::from_mins(1);

/// Which sample a build tries.
const SEED: u64 = 14;

/// How the living owner came to its office and its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
    /// It links the library.
    Library,
    /// `run`; the command has another user id.
    Run,
    /// The same, and the `run` was killed: the command lives.
    RunKilled,
    /// `claim --pid`, and one of its keepers was killed.
    KeeperKilled,
    /// The same, and both were.
    KeepersKilled,
}

const OWNERS: [Owner; 5] =
    [Owner::Library, Owner::Run, Owner::RunKilled, Owner::KeeperKilled, Owner::KeepersKilled];

impl Owner {
    /// Which of a verb's codes is meant: how many keepers are left makes no difference.
    fn place(self) -> usize {
        match self {
            Self::Library => 0,
            Self::Run => 1,
            Self::RunKilled => 2,
            Self::KeeperKilled | Self::KeepersKilled => 3,
        }
    }
}

const ROLE_TEST: &str = test_name!(role_of_an_owner);
const OWNING: &str = "owning";

/// Owns an office and a lock by the library, until its standard input is closed, and asks for them.
#[test]
fn role_of_an_owner() {
    if !plays(OWNING) {
        return;
    }
    // Orders come by another thread than the one whose calls fail.
    let (orders, received) = std::sync::mpsc::channel();
    let owner = std::thread::spawn(move || own(&received));
    let mut line = String::new();
    // A read that fails says nothing about the next one.
    while !matches!(std::io::stdin().read_line(&mut line), Ok(0)) {
        if line.ends_with('\n') {
            orders.send(std::mem::take(&mut line).trim().to_owned()).unwrap();
        }
    }
    drop(orders);
    owner.join().unwrap();
}

fn own(orders: &Receiver<String>) {
    let store = Store::open(role_db()).unwrap();
    let profile = store.profile("default").unwrap();
    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("the office is held") };
    let request = LockRequest::new("k", "k").unwrap();
    let Acquire::Granted(lock) = store.try_acquire(&request).unwrap() else {
        panic!("the lock is held");
    };
    eprintln!("=> owning");
    while let Ok(order) = orders.recv() {
        let standing = match order.as_str() {
            "verify" => tenure.verify(),
            "verify the lock" => lock.verify(),
            "renew" => lock.renew(),
            "status" => profile.status().map(|report| {
                assert_eq!(report.verdict.to_string(), "alive", "{report:?}");
                Standing::Held
            }),
            "claim again" => profile.claim().map(|claim| {
                assert!(matches!(claim, Claim::Granted(_)), "it holds it: {claim:?}");
                Standing::Held
            }),
            _ => panic!("{order}"),
        };
        match standing {
            Ok(Standing::Held) => eprintln!("=> Held"),
            Ok(Standing::Lost(lost)) => eprintln!("=> Lost: {lost:?}"),
            Err(error) => eprintln!("=> Err({:?}): {error}", error.kind()),
        }
    }
}

/// A store with a living owner of the default office and of the lock `k k`.
struct World {
    sandbox: Sandbox,
    /// What has to live; for a `run` that is its command.
    living: Identity,
    /// Of the pid that is on record.
    owner_pid: u32,
    /// Another process, for which verbs ask.
    other: Process,
    instance: i64,
    fence: i64,
    _processes: Vec<Process>,
}

impl World {
    fn new(owner: Owner) -> Self {
        let sandbox = Sandbox::new();
        let mut processes = Vec::new();
        let (living, owner_pid) = match owner {
            Owner::Library => {
                let mut process = sandbox.role(ROLE_TEST, OWNING);
                process.err_line_with("=> owning");
                let pid = process.pid();
                processes.push(process);
                (pid, pid)
            }
            Owner::Run | Owner::RunKilled => {
                let words = another_user().expect("looked for before");
                let mut command = sandbox.incumbent(["run", "--no-backoff", "--lock", "k=k", "--"]);
                command.args(words).args(["/bin/sh", "-c", "echo $$; exec sleep 600"]);
                let mut run = Process::start(command);
                let child = run.line().trim().parse().unwrap();
                let pid = run.pid();
                if owner == Owner::RunKilled {
                    run.kill();
                }
                processes.push(run);
                (child, pid)
            }
            Owner::KeeperKilled | Owner::KeepersKilled => {
                let process = sandbox.sleeper();
                let pid = process.pid();
                let words = pid.to_string();
                sandbox.cli(["claim", "--pid", &words]).assert_code(0);
                sandbox.cli(["lock", "acquire", "k", "k", "--pid", &words]).assert_code(0);
                if owner == Owner::KeepersKilled {
                    sandbox.kill_keepers();
                }
                for keeper in sandbox.keepers() {
                    kill(keeper, Signal::KILL);
                    wait_ended(keeper, LIMIT);
                }
                processes.push(process);
                (pid, pid)
            }
        };
        let status = sandbox.status().1;
        assert_eq!(status["verdict"], "alive", "{owner:?}: {status:#}");
        let world = Self {
            living: Identity::of(living).expect("it lives"),
            owner_pid,
            other: sandbox.sleeper(),
            instance: status["instance"].as_i64().unwrap(),
            fence: sandbox.number("SELECT fence FROM scoped_locks WHERE scope = 'k'"),
            _processes: processes,
            sandbox,
        };
        assert!(matches!(world.state(), Ok(State::Same)), "{owner:?}: {:?}", world.state());
        world
    }

    /// What is true of the owner, by the store's rows and by a status that nothing disturbs.
    fn state(&self) -> Result<State, String> {
        let rows = |condition: &str| {
            self.sandbox.number(&format!("SELECT count(*) FROM instances WHERE {condition}"))
        };
        let instance = self.instance;
        let of_office = "profile = 'default' AND kind = 'gateway'";
        let is_on_record = rows(&format!("id = {instance} AND ended_at_ms IS NULL")) == 1;
        let successors = rows(&format!("{of_office} AND id > {instance}"));
        let fence = self.fence;
        let has_lock = format!("SELECT count(*) FROM scoped_locks WHERE fence = {fence}");
        let has_lock = self.sandbox.number(&has_lock) == 1;
        let lock_holders =
            self.sandbox.number("SELECT count(*) FROM scoped_locks WHERE scope = 'k'");
        if self.living.is_gone() {
            return Ok(State::OwnerGone);
        }
        if successors > 0 {
            return Err("a second owner of the office".to_owned());
        }
        if !has_lock && lock_holders > 0 {
            return Err("a second owner of the lock".to_owned());
        }
        match (is_on_record, has_lock) {
            (false, _) => return Ok(State::RecordGone),
            (true, false) => return Ok(State::LockGone),
            (true, true) => {}
        }
        let (code, status) = self.sandbox.status();
        if code != 0 || status["instance"] != instance {
            return Err(format!("the next status: exit code {code}: {status}"));
        }
        Ok(State::Same)
    }
}

impl Sandbox {
    fn sleeper(&self) -> Process {
        let mut command = self.program("sleep");
        command.arg("600");
        Process::start(command)
    }
}

/// What became of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Same,
    LockGone,
    RecordGone,
    OwnerGone,
}

/// What a verb may do to a living owner. None of them makes a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    Nothing,
    /// It wants what the owner has: the command of a killed `run` is ended first.
    Claim,
    EndLock,
    EndRecord,
    EndOwner,
}

impl May {
    fn lead_to(self, state: State, owner: Owner) -> bool {
        match state {
            State::Same => true,
            State::LockGone => matches!(self, Self::EndLock),
            State::RecordGone => matches!(self, Self::EndRecord),
            State::OwnerGone => match self {
                Self::EndOwner => true,
                Self::Claim => owner == Owner::RunKilled,
                // A `run` that has lost something ends its command.
                Self::EndLock | Self::EndRecord => owner == Owner::Run,
                Self::Nothing => false,
            },
        }
    }
}

/// Arguments, what it may do, and its exit code without a fault for each [`Owner::place`] (-1: is not
/// tried). `OWNER` is the pid on record, `OTHER` another one, `ALONE` a command that tells two owners at
/// once, and `WITHIN` lets it run as a part of the command of a `run`.
type Verb = (&'static str, May, [i32; 4]);

/// Says that the owner lives beside the command.
const TWO_AT_ONCE: i32 = 9;

const ALONE: &str = "ALONE";
const WITHIN: &str = "WITHIN";

const VERBS: &[Verb] = &[
    ("status", May::Nothing, [0; 4]),
    ("status --all", May::Nothing, [0; 4]),
    ("status --metrics", May::Nothing, [0; 4]),
    ("locks", May::Nothing, [0; 4]),
    ("history", May::Nothing, [0; 4]),
    ("events", May::Nothing, [0; 4]),
    ("doctor", May::Nothing, [0; 4]),
    ("doctor --fix --dry-run", May::Nothing, [0; 4]),
    ("doctor --fix", May::Nothing, [0; 4]),
    ("desired", May::Nothing, [0; 4]),
    ("desired running", May::Nothing, [0; 4]),
    ("export out", May::Nothing, [0; 4]),
    ("forensics snapshot", May::Nothing, [0; 4]),
    ("marker peek --pid OWNER", May::Nothing, [1; 4]),
    ("marker write word --pid OWNER", May::Nothing, [0, 0, -1, 0]),
    ("marker consume other-word --pid OWNER", May::Nothing, [1; 4]),
    ("marker clear other-word --pid OWNER", May::Nothing, [1; 4]),
    ("status-set --pid OWNER --state running", May::Nothing, [1, 1, 1, 0]),
    ("claim --pid OWNER", May::Nothing, [75, 75, -1, 0]),
    ("claim --pid OTHER", May::Claim, [75, 75, 0, 75]),
    ("claim --pid OTHER --no-keeper", May::Claim, [75, 75, 0, 75]),
    ("run --no-backoff -- ALONE", May::Claim, [75, 75, 0, 75]),
    ("run --no-backoff --wait=50ms -- ALONE", May::Claim, [75, 75, 0, 75]),
    ("--profile p run --no-backoff --lock k=k -- ALONE", May::Claim, [75, 75, 0, 75]),
    ("run --no-backoff --replace --stop-budget 5s -- ALONE", May::EndOwner, [0; 4]),
    ("lock acquire k k --pid OWNER", May::Nothing, [75, 75, -1, 0]),
    ("lock acquire k k --pid OTHER", May::Claim, [75, 75, 0, 75]),
    ("lock acquire k k --pid OTHER --no-keeper", May::Claim, [75, 75, 0, 75]),
    ("lock acquire k k --pid OTHER --wait=50ms", May::Claim, [75, 75, 0, 75]),
    ("lock renew k k --pid OWNER", May::Nothing, [1, 1, 1, 0]),
    ("lock verify k k --pid OWNER", May::Nothing, [1, 1, 1, 0]),
    ("lock verify k k --pid OTHER", May::Nothing, [1; 4]),
    ("lock release k k --pid OTHER", May::Nothing, [1; 4]),
    ("lock release k k --pid OWNER", May::EndLock, [1, 1, 1, 0]),
    ("lock release --all --pid OWNER", May::EndLock, [0; 4]),
    ("unlock k k", May::Nothing, [75; 4]),
    ("unlock --stale", May::Nothing, [0; 4]),
    ("unlock k k --force", May::EndLock, [0; 4]),
    ("release --pid OTHER", May::Nothing, [1; 4]),
    ("release --pid OWNER", May::EndRecord, [1, 1, 1, 0]),
    ("evict", May::Nothing, [75; 4]),
    ("evict --force", May::EndRecord, [0; 4]),
    ("stop --timeout 10s", May::EndOwner, [0; 4]),
    ("stop --timeout 1s --force", May::EndOwner, [0; 4]),
    ("restart --timeout 10s", May::EndOwner, [-1, 0, -1, -1]),
    ("WITHIN status", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN claim", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN release", May::Nothing, [-1, 1, 1, -1]),
    ("WITHIN status-set --heartbeat", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN marker peek", May::Nothing, [-1, 1, 1, -1]),
    ("WITHIN lock acquire k k", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN lock acquire other other", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN lock verify k k", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN lock renew k k", May::Nothing, [-1, 0, 0, -1]),
    ("WITHIN lock release k k", May::EndLock, [-1, 0, 0, -1]),
    ("WITHIN run --no-backoff -- ALONE", May::Claim, [-1, 75, 0, -1]),
];

fn words(verb: &str, world: &World) -> Vec<String> {
    // Whom nobody has collected is dead, and has a pid.
    let alone = format!(
        "read -r stat 2>/dev/null </proc/{}/stat || exit 0
         case \"$stat\" in *') Z '*) ;; *) exit {TWO_AT_ONCE} ;; esac",
        world.living.pid
    );
    let mut arguments = Vec::new();
    if !verb.contains("--metrics") {
        arguments.push("--json".to_owned());
    }
    for word in verb.split(' ') {
        match word {
            "OWNER" => arguments.push(world.owner_pid.to_string()),
            WITHIN => {}
            "OTHER" => arguments.push(world.other.pid().to_string()),
            ALONE => arguments.extend(["/bin/sh".to_owned(), "-c".to_owned(), alone.clone()]),
            other => arguments.push(other.to_owned()),
        }
    }
    arguments
}

/// What a `run` tells its command.
fn of_run(command: u32) -> Vec<(String, String)> {
    let environ = std::fs::read(format!("/proc/{command}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&environ)
        .split('\0')
        .filter(|pair| pair.starts_with("INCUMBENT_"))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The n-th call after those of the dynamic loader fails.
#[derive(Clone, Debug)]
struct Fault {
    call: String,
    errno: &'static str,
    n: usize,
    /// How many the loader makes.
    before: usize,
}

/// What a traced verb did.
#[derive(Debug)]
struct Traced {
    code: i32,
    out: String,
    err: String,
    trace: String,
}

impl Traced {
    /// Runs `arguments` under strace. A keeper that stays may be among those that strace follows, so its
    /// end is not waited for.
    fn run(world: &World, options: &[String], verb: &str) -> Result<Self, String> {
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

    fn with(world: &World, verb: &str, fault: &Fault) -> Result<Self, String> {
        let Fault { call, errno, n, before } = fault;
        let when = before + n;
        let inject = format!("inject={call}:error={errno}:when={when}");
        // The first line tells which process is the verb's.
        let trace = format!("trace=execve,{call}");
        let options = ["-e", &trace, "-e", &inject].map(str::to_owned);
        Self::run(world, &options, verb)
    }

    /// The lines of the calls that failed.
    fn hits(&self) -> impl Iterator<Item = &str> {
        self.trace.lines().filter(|line| line.contains("(INJECTED)"))
    }

    /// The dynamic loader failed, so nothing of ours was tried.
    fn is_of_the_loader(&self) -> bool {
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
        if started.elapsed() > HANGS_AFTER {
            break None;
        }
    };
    // Whom it traced goes on.
    let _ = strace.kill();
    let _ = strace.wait();
    code
}

/// How often a process of ours makes each call: in the dynamic loader, and after it.
fn counts(trace: &str) -> BTreeMap<String, (usize, usize)> {
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

/// What is tried: all of it, or so much of each verb with each owner.
#[derive(Clone, Copy)]
enum Extent {
    All,
    Sample(usize),
}

fn extent() -> Extent {
    match std::env::var("INCUMBENT_FAULTS") {
        Ok(word) if word == "all" => Extent::All,
        Ok(number) => Extent::Sample(number.parse().expect("INCUMBENT_FAULTS: all, or a number")),
        Err(_) => Extent::Sample(1),
    }
}

/// Every fault that a verb with these calls can meet, or a sample of them.
fn faults(
    counts: &BTreeMap<String, (usize, usize)>,
    extent: Extent,
    random: &mut Random,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (call, (before, after)) in counts {
        let each = (*after).min(CALLS_EACH);
        let rest = after - each;
        let beyond: Vec<usize> =
            (0..rest.min(CALLS_BEYOND)).map(|_| each + 1 + random.index(rest)).collect();
        for n in (1..=each).chain(beyond) {
            for errno in ERRNOS {
                faults.push(Fault { call: call.clone(), errno, n, before: *before });
            }
        }
    }
    match extent {
        Extent::All => faults,
        Extent::Sample(count) if count >= faults.len() => faults,
        Extent::Sample(count) => {
            (0..count).map(|_| faults.swap_remove(random.index(faults.len()))).collect()
        }
    }
}

/// Why an answer is wrong.
fn wrong(
    verb: &Verb,
    owner: Owner,
    expected: i32,
    fault: &Fault,
    traced: &Traced,
) -> Option<String> {
    let (words, may, _) = verb;
    let code = traced.code;
    let is_shortage = SHORTAGES.contains(&fault.errno);
    // A question that lists has no exit code for what it found.
    if code == 0
        && *may == May::Nothing
        && (words.starts_with("status") || words.starts_with("locks"))
        && traced.out.contains("\"verdict\": \"dead\"")
    {
        return Some("a living owner is called dead".to_owned());
    }
    let why = match code {
        _ if traced.err.contains("panicked") => "a panic",
        code if code == expected => return None,
        TWO_AT_ONCE => "two at once",
        75 => return None,
        4 | 70 | 78 if !is_shortage => return None,
        // What it writes are files of its own; what a keeper reports comes by a pipe.
        70 if words.starts_with("export") || traced.hits().any(|hit| hit.contains("<pipe:")) => {
            return None;
        }
        70 => "a shortage is no failure of the engine",
        78 => "a shortage is no fault of the configuration",
        4 => "a shortage is nothing unknown",
        // Of the command, or of the shell that it is.
        125..=127 if words.ends_with(ALONE) && (expected == 0 || owner == Owner::RunKilled) => {
            return None;
        }
        // It is asked whether there is something to do, and says that it could not look.
        1 if words.starts_with("doctor") && !traced.out.contains("damaged") => return None,
        // So it is: the owner lives, and could not be signalled.
        1 if words.starts_with("stop") => return None,
        0 | 1 | 3 => "a wrong answer",
        _ => "an exit code for something else",
    };
    Some(format!("{why}: {code}, not {expected}"))
}

/// Faults, those where a call failed, and the answers by exit code.
type Tried = (usize, usize, BTreeMap<i32, usize>);

#[derive(Default)]
struct Coverage {
    verbs: BTreeMap<(usize, Owner), Tried>,
    calls: BTreeMap<(String, &'static str), (usize, usize)>,
    not_tried: usize,
    /// What went wrong by what it was, with one example.
    wrong: BTreeMap<String, (usize, String)>,
}

impl Coverage {
    fn note(&mut self, index: usize, owner: Owner, fault: &Fault, traced: Option<&Traced>) {
        let hits = traced.map_or(0, |traced| traced.hits().count());
        let (tried, hit, codes) = self.verbs.entry((index, owner)).or_default();
        *tried += 1;
        *hit += usize::from(hits > 0);
        if let Some(traced) = traced {
            *codes.entry(traced.code).or_default() += 1;
        }
        let (tried, hit) = self.calls.entry((fault.call.clone(), fault.errno)).or_default();
        *tried += 1;
        *hit += usize::from(hits > 0);
    }

    fn complain(&mut self, what: String, example: impl FnOnce() -> String) {
        self.wrong.entry(what).or_insert_with(|| (0, example())).0 += 1;
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let (mut tried, mut hit) = (0, 0);
        for ((index, owner), (verb_tried, verb_hit, codes)) in &self.verbs {
            (tried, hit) = (tried + verb_tried, hit + verb_hit);
            let codes: Vec<String> =
                codes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
            let verb = VERBS[*index].0;
            let codes = codes.join(", ");
            let _ = writeln!(text, "{verb}, {owner:?}: {verb_hit} of {verb_tried} hit; {codes}");
        }
        for ((call, errno), (tried, hit)) in &self.calls {
            let _ = writeln!(text, "{call} {errno}: {hit} of {tried} hit");
        }
        let loader = self.not_tried;
        let _ = writeln!(text, "{tried} faults, {hit} hit, {loader} of the dynamic loader");
        text
    }
}

/// One verb with one owner.
struct Job {
    index: usize,
    owner: Owner,
}

fn jobs() -> VecDeque<Job> {
    let only = std::env::var("INCUMBENT_FAULTS_ONLY").unwrap_or_default();
    let mut jobs = VecDeque::new();
    for (index, (words, _, codes)) in VERBS.iter().enumerate() {
        for owner in OWNERS {
            if codes[owner.place()] >= 0 && words.contains(&only) {
                jobs.push_back(Job { index, owner });
            }
        }
    }
    jobs
}

/// Tries one verb with one owner. `worlds` are those that the last verbs have left as they were.
fn walk(job: &Job, extent: Extent, worlds: &mut HashMap<Owner, World>, coverage: &Mutex<Coverage>) {
    let Job { index, owner } = *job;
    let verb = &VERBS[index];
    let (words_of, may, codes) = verb;
    let complain = |what: &str, fault: &str, more: &str| {
        let key = format!("{words_of}, {owner:?}: {what}");
        eprintln!("FAULT {key}: {fault}");
        coverage.lock().unwrap().complain(key, || format!("{fault}\n{more}"));
    };
    let take = |worlds: &mut HashMap<Owner, World>| {
        // A signal of the last verb may have come after the last look.
        let known = worlds.remove(&owner).filter(|world| world.state() == Ok(State::Same));
        known.unwrap_or_else(|| World::new(owner))
    };
    let world = take(worlds);
    let all = ["-e".to_owned(), format!("trace=execve,{CALLS},poll")];
    let undisturbed = Traced::run(&world, &all, words_of).unwrap();
    let expected = codes[owner.place()];
    let end = world.state();
    let changes = !matches!(end, Ok(State::Same));
    if undisturbed.code != expected || end.is_err() {
        let said = format!("{}{}", undisturbed.out, undisturbed.err);
        complain("without a fault", &format!("{} {end:?} {said}", undisturbed.code), "");
        return;
    }
    if !changes {
        worlds.insert(owner, world);
    }
    // Each job has a seed of its own: which thread takes it does not matter.
    let mut random = Random::new(SEED + (index * OWNERS.len() + owner as usize) as u64);
    for fault in faults(&counts(&undisturbed.trace), extent, &mut random) {
        let world = take(worlds);
        let traced = match Traced::with(&world, words_of, &fault) {
            Ok(traced) if traced.is_of_the_loader() => {
                coverage.lock().unwrap().not_tried += 1;
                worlds.insert(owner, world);
                continue;
            }
            Ok(traced) => traced,
            // An owner whose process cannot be proven has the time that it asked for.
            Err(_) if *may == May::EndOwner && !SHORTAGES.contains(&fault.errno) => continue,
            Err(why) => {
                complain("it hangs", &format!("{fault:?}"), &why);
                continue;
            }
        };
        coverage.lock().unwrap().note(index, owner, &fault, Some(&traced));
        let state = world.state();
        let hit: Vec<&str> = traced.hits().take(3).collect();
        let about = format!("{} {} {}: {}", fault.call, fault.errno, fault.n, hit.join(" | "));
        let said = format!("{}{}", traced.out, traced.err);
        if let Some(why) = wrong(verb, owner, expected, &fault, &traced) {
            complain(&why, &about, &said);
        }
        match state {
            Err(why) => complain(&why, &about, &said),
            Ok(state) if !may.lead_to(state, owner) => {
                complain(&format!("{state:?} (exit code {})", traced.code), &about, &said);
            }
            Ok(State::Same) if changes && traced.code == 0 => {
                complain("said done, and did nothing", &about, &said);
            }
            // A process that stays, with a lock of SQLite's that it believes to be unlocked, keeps everybody
            // out; no kernel refuses to unlock.
            Ok(State::Same) if !traced.hits().any(|hit| hit.contains("F_UNLCK")) => {
                worlds.insert(owner, world);
            }
            Ok(_) => {}
        }
    }
}

/// See the head of this file.
#[test]
fn what_fails_while_somebody_looks_is_no_answer() {
    if another_user().is_none() {
        return skipped("needs root and setpriv");
    }
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let extent = extent();
    let started = Instant::now();
    let queue = Mutex::new(jobs());
    let coverage = Mutex::new(Coverage::default());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut worlds = HashMap::new();
                loop {
                    let Some(job) = queue.lock().unwrap().pop_front() else { return };
                    let began = Instant::now();
                    walk(&job, extent, &mut worlds, &coverage);
                    if began.elapsed() > Duration::from_secs(20) {
                        eprintln!("{} {:?}: {:?}", VERBS[job.index].0, job.owner, began.elapsed());
                    }
                }
            });
        }
    });
    let coverage = coverage.into_inner().unwrap();
    eprintln!("{}after {:?}", coverage.table(), started.elapsed());
    let mut wrong = String::new();
    for (what, (count, example)) in &coverage.wrong {
        let _ = writeln!(wrong, "{what}: {count} times, e.g. {example}");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Gives `order` to an owner whose calls strace sees; the answer, and what was seen.
fn ask_traced(
    sandbox: &Sandbox,
    owner: &mut Process,
    options: &[&str],
    order: &str,
) -> (String, String) {
    let trace = sandbox.file("trace");
    let _ = std::fs::remove_file(&trace);
    let mut strace = sandbox.program("strace");
    strace.args(["-f", "-y", "-o"]).arg(&trace).args(options);
    strace.args(["-p", &owner.pid().to_string()]);
    let mut strace = Process::start(strace);
    strace.err_line_with("attached");
    owner.say(order);
    let line = owner.err_line_with("=> ");
    strace.signal(Signal::INT);
    strace.wait(LIMIT);
    let trace = std::fs::read_to_string(trace).unwrap_or_default();
    (line.split_once("=> ").unwrap().1.to_owned(), trace)
}

/// An owner that links the library asks for what it holds: it is told that it cannot be found out, and
/// never that it is lost.
#[test]
fn what_fails_while_an_owner_asks_is_no_loss() {
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let mut owner = sandbox.role(ROLE_TEST, OWNING);
    owner.err_line_with("=> owning");
    let mut random = Random::new(SEED);
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for order in ["verify", "verify the lock", "renew", "status", "claim again"] {
        let all = format!("trace={CALLS}");
        let (answer, trace) = ask_traced(&sandbox, &mut owner, &["-e", &all], order);
        assert_eq!(answer, "Held", "{order}");
        // Of the thread that has made most calls: the others wait.
        let mut threads: BTreeMap<&str, BTreeMap<String, (usize, usize)>> = BTreeMap::new();
        for line in trace.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
            if !call.contains(' ') {
                threads.entry(thread).or_default().entry(call.to_owned()).or_default().1 += 1;
            }
        }
        let sum = |calls: &BTreeMap<String, (usize, usize)>| -> usize {
            calls.values().map(|(_, after)| after).sum()
        };
        let mut calls = threads.into_values().max_by_key(sum).unwrap_or_default();
        // SQLite's locks: where an unlock fails, which none does, it waits for itself for 10 s.
        calls.remove("fcntl");
        let extent = match extent() {
            Extent::Sample(count) => Extent::Sample(count * 4),
            Extent::All => Extent::All,
        };
        for Fault { call, errno, n, .. } in faults(&calls, extent, &mut random) {
            let trace = format!("trace={call}");
            let inject = format!("inject={call}:error={errno}:when={n}");
            let options = ["-e", &trace, "-e", &inject];
            let (answer, trace) = ask_traced(&sandbox, &mut owner, &options, order);
            let about = format!("{order}: {call} {errno} {n}: {answer}\n{trace}");
            let is_held = answer == "Held";
            let is_unknown = answer.starts_with("Err(")
                && !["NotOwner", "StoreReplaced", "InvalidInput"]
                    .iter()
                    .any(|kind| answer.starts_with(&format!("Err({kind})")));
            assert!(is_held || is_unknown, "{about}");
            let kind = answer.split(':').next().unwrap_or_default().to_owned();
            *answers.entry(format!("{order}: {kind}")).or_default() += 1;
            owner.say("verify");
            assert!(owner.err_line_with("=> ").ends_with("=> Held"), "{about}");
        }
    }
    eprintln!("{answers:#?}");
    sandbox.assert_status(0, "alive", "anchor_held");
}
