//! Whole processes: what scripts and supervisors pay.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::load::Sleepers;
use super::measure::{Batch, Compared, Effort, batch_of_timed, in_turn, now};
use super::roles::{Role, text};
use super::stores::Places;
use super::table::{Beside, Row, Table, Target, time};
use super::{Tools, counts, handover};

pub const INCUMBENT: &str = env!("CARGO_BIN_EXE_incumbent");

/// So many processes beside those that are measured.
const OTHERS: usize = 2_000;

/// Ours in a store.
pub fn incumbent(path: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(INCUMBENT);
    command.arg("--db").arg(path).args(words);
    command
}

/// From before its start until it has ended.
pub fn took(command: &mut Command, code: i32) -> Duration {
    let start = now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("a process");
    let took = start.elapsed();
    assert_eq!(status.code(), Some(code), "{command:?}");
    took
}

/// A process that ends with 0, again and again.
fn process(make: impl Fn() -> Command + 'static) -> Batch {
    batch_of_timed(move || took(&mut make(), 0))
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("/bin/sh").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|output| output.status.success())
}

/// Others that do the same, where they are installed.
struct Peers(Vec<(&'static str, Option<Batch>)>);

impl Peers {
    fn of(
        program: &'static str,
        make: impl Fn() -> Command + 'static,
    ) -> (&'static str, Option<Batch>) {
        (program, is_installed(program).then(|| process(make)))
    }
}

/// Compares ours with all peers; the place of each peer among the sides.
fn compare(
    ours: Batch,
    peers: Peers,
    effort: Effort,
) -> (Compared, Vec<(&'static str, Option<usize>)>) {
    let mut sides = vec![ours];
    let mut places = Vec::new();
    for (name, batch) in peers.0 {
        places.push((name, batch.is_some().then_some(sides.len())));
        sides.extend(batch);
    }
    (in_turn(&mut sides, effort), places)
}

/// What a row promises about a process.
enum Promise {
    Nothing,
    /// At most so many times what the peer takes.
    Times(&'static str, f64),
    Ms(f64),
}

fn push(
    table: &mut Table,
    name: &str,
    ours: Batch,
    peers: Peers,
    promise: &Promise,
    effort: Effort,
) {
    let (compared, places) = compare(ours, peers, effort);
    let peers: Vec<Beside> = places
        .into_iter()
        .map(|(name, at)| match at {
            Some(at) => {
                let (took, ratio) = (time(compared.us[at]), Some(compared.ratio[at]));
                Beside { name, took, ratio }
            }
            None => Beside::missing(name),
        })
        .collect();
    let targets = match *promise {
        Promise::Nothing => Vec::new(),
        Promise::Times(peer, bound) => {
            let ratio = peers.iter().find(|it| it.name == peer).and_then(|it| it.ratio);
            vec![Target::at_most(peer, bound, ratio, "x")]
        }
        Promise::Ms(bound) => {
            vec![Target::at_most("", bound, Some(compared.us[0] / 1_000.0), " ms")]
        }
    };
    let ours = time(compared.us[0]);
    table.push(Row { name: name.to_owned(), ours, peers, targets, ..Row::default() });
}

pub fn rows(table: &mut Table, places: &Places, tools: &Tools, effort: Effort) {
    questions(table, places, tools, effort);
    around_a_command(table, places, effort);
    for_other_processes(table, places, effort);
    ends(table, places, effort, "");
    let beside = format!(", {OTHERS} other processes");
    if ENDS.iter().any(|name| table.wants(&format!("{name}{beside}"))) {
        let others = Sleepers::start(OTHERS);
        ends(table, places, effort, &beside);
        drop(others);
    }
    next_command(table, places, effort);
}

/// What is asked of an office that somebody holds.
fn questions(table: &mut Table, places: &Places, tools: &Tools, effort: Effort) {
    let path = places.store("questions");
    let holder = Role::holding("office", &path);
    let ask = |words: &'static [&'static str]| {
        let path = path.clone();
        process(move || incumbent(&path, words))
    };
    let plain = || Peers::of("true", || Command::new("true"));
    if table.wants("`status`") {
        let in_c = tools.c_program.clone().map(|program| {
            let path = path.clone();
            process(move || {
                let mut command = Command::new(&program);
                command.arg(&path).arg("default");
                command
            })
        });
        let by_shell = {
            let path = path.clone();
            Peers::of("sqlite3", move || {
                let mut command = Command::new("sqlite3");
                command.arg("-readonly").arg(&path).arg("SELECT * FROM gateways");
                command
            })
        };
        let directory = places.directory("questions of files");
        let by_script = tools.python.clone().map(|interpreter| {
            // Somebody holds it there as well.
            let serving = super::python::Python::start(&interpreter, &directory);
            process(move || {
                let _ = &serving;
                super::python::script(&interpreter, &["status", text(&directory)])
            })
        });
        let peers = Peers(vec![("C program", in_c), by_shell, ("file scheme", by_script), plain()]);
        let promise = Promise::Times("C program", 1.2);
        push(table, "`status`", ask(&["status"]), peers, &promise, effort);
        if let Some(row) = table.rows.last_mut().filter(|_| tools.count) {
            let asked = ["--db", text(&path), "status"];
            row.instructions = counts::instructions_of_process(Path::new(INCUMBENT), &asked);
        }
    }
    for (name, words) in [
        ("`status --json`", &["status", "--json"][..]),
        ("`locks`", &["locks"]),
        ("`events`", &["events", "--limit", "10"]),
        ("`path`", &["path"]),
        ("`--version`", &["--version"]),
    ] {
        if table.wants(name) {
            push(table, name, ask(words), Peers(vec![plain()]), &Promise::Nothing, effort);
        }
    }
    drop(holder);
    blocked_store(table, places, effort);
}

/// A writer was stopped in the middle of its transaction.
fn blocked_store(table: &mut Table, places: &Places, effort: Effort) {
    let name = "`status`, a stopped process has the write lock";
    if !table.wants(name) {
        return;
    }
    let path = places.store("blocked");
    let holder = Role::holding("office", &path);
    let mut writer = Role::start(&["write-lock", text(&path)]);
    assert_eq!(writer.line(), "held");
    let pid = rustix::process::Pid::from_child(&writer.child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("a stop");
    let took = (0..effort.rounds * 3)
        .map(|_| super::measure::micros(took(&mut incumbent(&path, &["status"]), 0)));
    let took = super::measure::Spread::of(took.collect());
    let targets = vec![Target::at_most("at p99", 50.0, Some(took.p99() / 1_000.0), " ms")];
    let ours = super::table::spread(&took);
    table.push(Row { name: name.to_owned(), ours, targets, ..Row::default() });
    drop((writer, holder));
}

/// What holds something while a command runs.
fn around_a_command(table: &mut Table, places: &Places, effort: Effort) {
    let file = places.directory("commands").join("lock");
    let path = places.store("commands");
    let around = |program: &'static str, words: &'static [&'static str]| {
        let file = file.clone();
        Peers::of(program, move || {
            let mut command = Command::new(program);
            command.arg(&file).args(words);
            command
        })
    };
    let run = |words: &'static [&'static str]| {
        let path = path.clone();
        process(move || incumbent(&path, words))
    };
    let peers = || Peers(vec![around("flock", &["true"]), around("s6-setlock", &["true"])]);
    for (name, words, promise) in [
        ("`run -- true`", &["run", "--no-backoff", "--", "true"][..], Promise::Times("flock", 2.0)),
        (
            "`run --exec -- true`",
            &["run", "--no-backoff", "--exec", "--", "true"],
            Promise::Nothing,
        ),
        (
            "`run --lock -- true`",
            &["run", "--no-backoff", "--lock", "token=abc", "--", "true"],
            Promise::Nothing,
        ),
    ] {
        if table.wants(name) {
            push(table, name, run(words), peers(), &promise, effort);
        }
    }
}

/// Verbs that work for a process that knows nothing of all this.
fn for_other_processes(table: &mut Table, places: &Places, effort: Effort) {
    let path = places.store("others");
    let owner = Kept::start();
    let pid = owner.pid();
    let verb = move |path: &Path, words: &[&str]| {
        let mut command = incumbent(path, words);
        command.arg("--pid").arg(&pid);
        took(&mut command, 0)
    };
    let lock = ["lock", "acquire", "token", "abc"];
    let release = ["lock", "release", "token", "abc"];
    let none = || Peers(Vec::new());
    if table.wants("`lock acquire`") {
        let (path, verb) = (path.clone(), verb.clone());
        let ours = batch_of_timed(move || {
            let took = verb(&path, &lock);
            verb(&path, &release);
            took
        });
        push(table, "`lock acquire`", ours, none(), &Promise::Nothing, effort);
    }
    if table.wants("`lock release`") {
        let (path, verb) = (path.clone(), verb.clone());
        let ours = batch_of_timed(move || {
            verb(&path, &lock);
            verb(&path, &release)
        });
        push(table, "`lock release`", ours, none(), &Promise::Nothing, effort);
    }
    if table.wants("`status-set`") {
        verb(&path, &["claim"]);
        let mut count = 0;
        let path = path.clone();
        let ours = batch_of_timed(move || {
            count += 1;
            verb(&path, &["status-set", "--active-agents", &count.to_string()])
        });
        push(table, "`status-set`", ours, none(), &Promise::Nothing, effort);
    }
    drop(owner);
}

/// A process that sleeps until it is killed.
struct Kept(Child);

impl Kept {
    fn start() -> Self {
        Self(Command::new("sleep").arg("100000").spawn().expect("sleep"))
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A `run` whose command says each time that it is there, and ends as soon as it is asked.
pub struct Gateway {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Gateway {
    pub fn start(path: &Path) -> Self {
        Self::start_as(path, "default")
    }

    pub fn start_as(path: &Path, profile: &str) -> Self {
        let mut child = incumbent(path, &["--profile", profile, "run", "--no-backoff"])
            .args(["--", "/bin/sh", "-c", "echo up; exec sleep 100000"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a run");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut gateway = Self { child, said };
        gateway.is_up();
        gateway
    }

    fn is_up(&mut self) {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        assert_eq!(line, "up\n");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn has_ended(mut self) {
        self.child.wait().expect("an end");
    }
}

/// Asks it to end, and waits for that.
impl Drop for Gateway {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// What [`ends`] measures.
const ENDS: [&str; 5] = [
    "`stop`",
    "`restart`",
    "`restart`, until the new command is up",
    "takeover, the call of the library",
    "`run --replace -- true`",
];

/// Stop, restart and takeover.
fn ends(table: &mut Table, places: &Places, effort: Effort, beside: &str) {
    let path = places.store("ends");
    let none = || Peers(Vec::new());
    let named = |name: &str| format!("{name}{beside}");
    let name = named(ENDS[0]);
    if table.wants(&name) {
        let path = path.clone();
        let ours = batch_of_timed(move || {
            let gateway = Gateway::start(&path);
            let took = took(&mut incumbent(&path, &["stop"]), 0);
            gateway.has_ended();
            took
        });
        push(table, &name, ours, none(), &Promise::Ms(5.0), effort);
    }
    for (name, until_up) in [(ENDS[1], false), (ENDS[2], true)] {
        let name = named(name);
        if !table.wants(&name) {
            continue;
        }
        let mut gateway = Gateway::start(&path);
        let asked = path.clone();
        let ours = batch_of_timed(move || {
            let start = now();
            let mut verb =
                incumbent(&asked, &["restart"]).stdout(Stdio::null()).spawn().expect("a verb");
            if until_up {
                gateway.is_up();
                let took = start.elapsed();
                assert!(verb.wait().expect("an end").success());
                return took;
            }
            assert!(verb.wait().expect("an end").success());
            let took = start.elapsed();
            gateway.is_up();
            took
        });
        push(table, &name, ours, none(), &Promise::Ms(10.0), effort);
    }
    let name = named(ENDS[3]);
    if table.wants(&name) {
        let path = places.store("takeovers");
        let ours = batch_of_timed(move || handover::takeover(&path));
        push(table, &name, ours, none(), &Promise::Ms(3.0), effort);
    }
    let name = named(ENDS[4]);
    if table.wants(&name) {
        let ours = batch_of_timed(move || {
            let gateway = Gateway::start(&path);
            let replace = ["run", "--no-backoff", "--replace", "--", "true"];
            let took = took(&mut incumbent(&path, &replace), 0);
            gateway.has_ended();
            took
        });
        push(table, &name, ours, none(), &Promise::Nothing, effort);
    }
}

/// The holder is killed; how long until the command of who waits says something.
fn next_command(table: &mut Table, places: &Places, effort: Effort) {
    let name = "holder killed -> next command";
    if !table.wants(name) {
        return;
    }
    let path = places.store("next");
    let file: PathBuf = places.directory("next").join("lock");
    let ours = batch_of_timed(move || {
        let sleep = ["run", "--no-backoff", "--", "sleep", "100000"];
        let echo = ["run", "--no-backoff", "--wait", "--", "echo", "up"];
        let waits = || handover::until_somebody_waits(&path);
        until_the_next(&mut incumbent(&path, &sleep), &mut incumbent(&path, &echo), waits)
    });
    let by_file = |program: &'static str, options: &'static [&'static str]| {
        let file = file.with_extension(program);
        let batch = batch_of_timed(move || {
            let mut holder = Command::new(program);
            holder.args(options).arg(&file).args(["sleep", "100000"]);
            let mut next = Command::new(program);
            next.arg(&file).args(["echo", "up"]);
            until_the_next(&mut holder, &mut next, || ())
        });
        (program, is_installed(program).then_some(batch))
    };
    let peers = Peers(vec![by_file("flock", &["--no-fork"]), by_file("s6-setlock", &[])]);
    push(table, name, ours, peers, &Promise::Times("flock", 1.5), effort);
}

fn until_the_next(holder: &mut Command, next: &mut Command, waits: impl Fn()) -> Duration {
    /// They have nothing that says that they hold, or wait: enough on a busy machine.
    const BEGINS_WITHIN: Duration = Duration::from_millis(40);
    let quiet = |command: &mut Command| {
        let command = command.stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(Stdio::piped()).spawn().expect("a process")
    };
    let mut holder = quiet(holder);
    std::thread::sleep(BEGINS_WITHIN);
    let mut next = quiet(next);
    std::thread::sleep(BEGINS_WITHIN);
    waits();
    let start = now();
    holder.kill().expect("a kill");
    let mut line = String::new();
    let mut said = BufReader::new(next.stdout.take().expect("a pipe"));
    said.read_line(&mut line).expect("a line");
    let took = start.elapsed();
    assert_eq!(line, "up\n");
    assert!(next.wait().expect("an end").success());
    holder.wait().expect("an end");
    took
}
