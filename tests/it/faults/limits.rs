//! Limits of a process: how large a file may be, how many tasks and open files there may be, how
//! long a path may be. Each is named, and none is a panic, a signal or a lie.

use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Answer, Identity, LIMIT, Process, Run, Sandbox, eventually, has, is_root, skipped,
};

const NO_PANIC: &[i32] = &[101, 134];

#[track_caller]
fn assert_no_panic(answer: &Answer, what: &str) {
    let is_signal = answer.code() > 128;
    let panicked = NO_PANIC.contains(&answer.code()) || answer.err.contains("panicked");
    assert!(!is_signal && !panicked, "{what}: {answer:#?}");
}

/// A process that verbs can record, and a store with enough in it that a write finds no room below
/// a limit.
fn recorded_owner(sandbox: &Sandbox) -> Process {
    let owner = Process::start(sandbox.program("cat"));
    sandbox.cli(["claim", "--pid", &owner.pid().to_string()]).assert_code(0);
    owner
}

/// FIELD-BUGS row 112.
///
/// Symptom: under `ulimit -f` (`LimitFSIZE=`) a verb was ended by SIGXFSZ. It holds because the
/// signal is caught, and then the write is an error like that of a full disk.
#[test]
fn a_file_that_may_not_grow_is_said_to_be_that() {
    let sandbox = Sandbox::new();
    let owner = recorded_owner(&sandbox);
    let pid = owner.pid();
    let limited = |verb: &str| {
        let script = format!("ulimit -f 1; exec incumbent {verb}");
        Process::start(sandbox.shell(&script)).finish(LIMIT)
    };
    for verb in [
        "--profile other run --no-backoff -- true".to_owned(),
        format!("lock acquire scope identity --pid {pid}"),
        format!("marker write note --pid {pid}"),
        format!("status-set --pid {pid} --state running"),
        "desired stopped".to_owned(),
    ] {
        let answer = limited(&verb);
        assert_no_panic(&answer, &verb);
        answer.assert_code(70).assert_complains(&["LimitFSIZE="]);
    }
    for verb in ["status", "locks", "history", "doctor", "forensics snapshot"] {
        assert_no_panic(&limited(verb), verb);
    }
    limited("status").assert_code(0);
    drop(owner);
}

/// FIELD-BUGS row 112, of a `run`.
///
/// Symptom: the WAL had grown beyond the limit while a reader kept it, and the next write of the
/// `run` itself ended it, and with it a healthy command in the middle of its drain.
#[test]
fn a_run_goes_on_beyond_the_limit_on_the_size_of_a_file() {
    const GROW: &str = "INSERT INTO events (at_ms, event, detail)
        VALUES (0, 'of_a_test', json_quote(hex(zeroblob(500000))))";
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    let script = "ulimit -f 1000; exec incumbent run --no-backoff -- sh -c \
        'trap \"echo drained; exit 0\" TERM; echo $$; while :; do sleep 0.05; done'";
    let mut run = Run::start(sandbox.shell(script));
    let reader = rusqlite::Connection::open(sandbox.db()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    sandbox.forge(GROW);
    run.process.signal(Signal::TERM);
    assert_eq!(run.process.line(), "drained");
    let answer = run.process.finish(LIMIT);
    assert_no_panic(&answer, "a run");
    answer.assert_code(0);
}

/// FIELD-BUGS row 112.
#[test]
fn the_command_has_the_signal_as_it_came() {
    let sandbox = Sandbox::new();
    let dispositions = |before: &str| {
        let script = format!(
            "{before} exec incumbent run --no-backoff -- grep -E '^Sig(Ign|Cgt):' /proc/self/status"
        );
        let answer = Process::start(sandbox.shell(&script)).finish(LIMIT).assert_code(0);
        let has_signal = |line: &str| {
            let mask = line.split_whitespace().last().unwrap();
            u64::from_str_radix(mask, 16).unwrap() & (1 << (libc_sigxfsz() - 1)) != 0
        };
        answer.out.lines().map(has_signal).collect::<Vec<_>>()
    };
    assert_eq!(dispositions(""), [false, false], "ignored, caught");
    assert_eq!(dispositions("trap '' XFSZ;"), [true, false], "ignored, caught");
}

fn libc_sigxfsz() -> i32 {
    Signal::XFSZ.as_raw()
}

/// A user that nobody else is, with a sandbox of his own.
struct User<'a> {
    sandbox: &'a Sandbox,
    uid: String,
    program: std::path::PathBuf,
}

impl<'a> User<'a> {
    /// `None`, said loudly, where that cannot be.
    fn new(sandbox: &'a Sandbox) -> Option<Self> {
        /// The limit counts the tasks of a user: each test has one of its own.
        static USERS: AtomicU32 = AtomicU32::new(0);
        if !is_root() || !has("setpriv") || !has("prlimit") {
            skipped("needs root, setpriv and prlimit");
            return None;
        }
        let number = 16 * std::process::id() + USERS.fetch_add(1, Ordering::Relaxed);
        let uid = 61_000 + number % 4_000;
        for path in [sandbox.path().to_owned(), sandbox.file("home")] {
            chown(path, Some(uid), Some(uid)).unwrap();
        }
        Some(Self { sandbox, uid: uid.to_string(), program: sandbox.copy_program("incumbent") })
    }

    /// `prlimit` as that user: root may lack the capability.
    fn prlimit(&self) -> Command {
        let mut command = self.sandbox.program("setpriv");
        command.args(["--reuid", &self.uid, "--regid", &self.uid, "--clear-groups", "prlimit"]);
        command
    }

    /// Whether it has no process, not even one that nobody has collected yet.
    fn is_alone(&self) -> bool {
        let owner =
            |entry: std::io::Result<std::fs::DirEntry>| Some(entry.ok()?.metadata().ok()?.uid());
        let mut owners = std::fs::read_dir("/proc").unwrap().filter_map(owner);
        owners.all(|owner| owner.to_string() != self.uid)
    }

    /// `incumbent`, or a program that `words` begin with, where there may be no more than `tasks`.
    fn with_tasks(&self, tasks: usize, verb: &[&str]) -> Command {
        let mut command = self.prlimit();
        command.arg(format!("--nproc={tasks}")).arg(&self.program).args(verb);
        command
    }
}

/// FIELD-BUGS row 111.
///
/// Symptom: where there could be no more tasks (`ulimit -u`, `TasksMax=`, `pids.max`), `run --wait`
/// and `run --replace` panicked in the middle of their claim. It holds because a `run` waits in its
/// own thread.
#[test]
fn where_there_can_be_no_more_tasks_nothing_panics() {
    let sandbox = Sandbox::new();
    let Some(user) = User::new(&sandbox) else { return };
    let held: &[&str] = &["--profile", "held", "run", "--no-backoff", "--", "sh", "-c"];
    let holding = user.with_tasks(1_000, &[held, &["echo $$; exec cat"]].concat());
    let run = Run::start(holding);
    let pid = run.command.pid.to_string();
    let verbs: &[&[&str]] = &[
        &["run", "--no-backoff", "--", "true"],
        &["run", "--no-backoff", "--wait=1s", "--", "true"],
        &["run", "--no-backoff", "--replace", "--", "true"],
        &["--profile", "held", "run", "--no-backoff", "--wait=50ms", "--", "true"],
        &["--profile", "other", "claim", "--pid", &pid],
        &["lock", "acquire", "scope", "identity", "--pid", &pid, "--wait=50ms"],
        &["doctor"],
        &["doctor", "--fix"],
        &["status"],
        &["forensics", "snapshot"],
        &["forensics", "systemd"],
        &["restart", "--timeout", "50ms"],
        &["stop"],
    ];
    for verb in verbs {
        let mut refused = 0;
        for tasks in 1..=8 {
            let answer = Process::start(user.with_tasks(tasks, verb)).finish(LIMIT);
            let what = format!("{verb:?} with {tasks} tasks");
            assert_no_panic(&answer, &what);
            assert!(![70, 78, 126, 127].contains(&answer.code()), "{what}: {answer:#?}");
            refused += usize::from(answer.code() == 75 && answer.err.contains("`TasksMax=`"));
        }
        let starts = verb.contains(&"run") || verb.contains(&"claim");
        assert!(!starts || refused > 0, "{verb:?}: the limit was not met, or not named");
    }
    assert!(!run.command.is_gone());
    run.end().assert_code(0);
}

/// FIELD-BUGS row 111.
///
/// Symptom: a start that took the place of a dead one said so by a thread of its own, and where
/// there was room for one task more it was refused for that. It holds because nothing is told aside
/// before the command runs.
#[test]
fn a_start_that_has_something_to_say_needs_no_further_task() {
    let sandbox = Sandbox::new();
    let Some(user) = User::new(&sandbox) else { return };
    let start = |tasks| {
        let verb = ["run", "--no-backoff", "--", "true"];
        Process::start(user.with_tasks(tasks, &verb)).finish(LIMIT)
    };
    let enough = (1..=8).find(|tasks| start(*tasks).code() == 0).expect("a number that is enough");
    let holding = ["run", "--no-backoff", "--", "sh", "-c", "echo $$; exec cat"];
    let mut run = Run::start(user.with_tasks(1_000, &holding));
    run.kill();
    eventually("its tasks are gone", LIMIT, || user.is_alone().then_some(()));
    let answer = start(enough).assert_code(0);
    assert!(answer.err.contains("took the place of"), "{answer:#?}");
}

/// FIELD-BUGS row 109.
///
/// Symptom: a restart that met a full process table for a moment ended the run for good. It holds
/// because a shortage passes: the office is kept, and the command is started when there is room.
#[test]
fn a_restart_that_finds_no_task_is_done_when_there_is_one() {
    let sandbox = Sandbox::new();
    let Some(user) = User::new(&sandbox) else { return };
    let verb: &[&str] = &["run", "--no-backoff", "--", "sh", "-c", "echo $$; exec cat"];
    let mut run = Run::start(user.with_tasks(1_000, verb));
    let limit_to = |run: &Run, tasks: usize| {
        let mut prlimit = user.prlimit();
        prlimit.arg(format!("--pid={}", run.pid())).arg(format!("--nproc={tasks}:1000"));
        Process::start(prlimit).finish(LIMIT).assert_code(0);
    };
    limit_to(&run, 1);
    let restart = Process::start(sandbox.incumbent(["restart", "--timeout", "1min"]));
    run.process.err_line_with("`TasksMax=`");
    run.command.wait_gone(LIMIT);
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], run.pid());
    limit_to(&run, 1_000);
    restart.finish(LIMIT).assert_code(0);
    let command = run.process.line_with("").parse().unwrap();
    run.command = Identity::of(command).expect("the command has just spoken");
    run.end().assert_code(0);
}

/// FIELD-BUGS row 110.
///
/// Symptom: a process near its limit of open files heard that file locks do not work, or that a
/// store is damaged, and was told to never try again (78). Also a living owner was called unknown
/// (4): what was looked at after the read was not asked for what it ran short of.
#[test]
fn where_there_can_be_no_more_open_files_that_is_said() {
    const WRONG: [&str; 4] =
        ["damaged", "file locks do not work", "unable to open database file", "corrupt"];
    let sandbox = Sandbox::new();
    let owner = recorded_owner(&sandbox);
    let pid = owner.pid();
    sandbox.cli(["lock", "acquire", "scope", "identity", "--pid", &pid.to_string()]).assert_code(0);
    for verb in [
        "--profile other run --no-backoff -- true".to_owned(),
        "run --no-backoff --wait=20ms -- true".to_owned(),
        format!("claim --pid {pid}"),
        format!("lock acquire scope identity --pid {pid} --wait=20ms"),
        format!("lock verify scope identity --pid {pid}"),
        format!("marker write note --pid {pid}"),
        format!("status-set --pid {pid} --state running"),
        "status".to_owned(),
        "status --all".to_owned(),
        "locks".to_owned(),
        "history".to_owned(),
    ] {
        // With fewer the program itself cannot be loaded.
        for limit in 4..=20 {
            let script = format!("ulimit -n {limit}; exec incumbent {verb}");
            let answer = Process::start(sandbox.shell(&script)).finish(LIMIT);
            let what = format!("{verb} with {limit} open files");
            assert_no_panic(&answer, &what);
            assert!([0, 75].contains(&answer.code()), "{what}: {answer:#?}");
            let all = format!("{}{}", answer.out, answer.err);
            assert!(!WRONG.iter().any(|wrong| all.contains(wrong)), "{what}: {all}");
            let is_held = all.contains("is held by") || all.contains("claimed for");
            if answer.code() == 75 && !is_held {
                assert!(all.contains("LimitNOFILE="), "{what}: {all}");
            }
        }
    }
    drop(owner);
}

/// FIELD-BUGS row 110, of doctor, which goes on where it cannot look.
///
/// Symptom: it could not be told whether a healthy owner lives, and the advice to evict it, or
/// to look at modes that are right. It holds because no check believes what it saw without
/// descriptors.
#[test]
fn doctor_without_descriptors_suspects_nobody() {
    let sandbox = Sandbox::new();
    let owner = recorded_owner(&sandbox);
    for limit in 4..=20 {
        for fix in ["", " --fix"] {
            let script = format!("ulimit -n {limit}; exec incumbent --json doctor{fix}");
            let answer = Process::start(sandbox.shell(&script)).finish(LIMIT);
            let what = format!("doctor{fix} with {limit} open files");
            assert_no_panic(&answer, &what);
            for wrong in ["it is alive cannot", "evict", "modes of", "is gone from", "leaked by"] {
                assert!(!answer.out.contains(wrong), "{what}: {wrong}: {answer:#?}");
            }
        }
    }
    drop(owner);
}

/// FIELD-BUGS row 110, of a keeper, which has the limit of the process that started it.
///
/// Symptom: "changes hands too fast to be claimed". The keeper had made its record, and ended
/// because it needed one more open file afterwards. It holds because it needs none.
#[test]
fn a_keeper_that_has_made_its_record_can_keep_it() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    for limit in 12..=24 {
        let owner = Process::start(sandbox.program("cat"));
        let lock = format!("scope identity{limit} --pid {}", owner.pid());
        let script = format!("ulimit -n {limit}; exec incumbent lock acquire {lock}");
        let answer = Process::start(sandbox.shell(&script)).finish(LIMIT);
        let what = format!("with {limit} open files");
        if answer.code() == 75 {
            assert!(answer.err.contains("LimitNOFILE="), "{what}: {answer:#?}");
            continue;
        }
        assert_eq!(answer.code(), 0, "{what}: {answer:#?}");
        let verify = format!("exec incumbent lock verify {lock}");
        let verified = Process::start(sandbox.shell(&verify)).finish(LIMIT);
        assert_eq!(verified.code(), 0, "{what}: {verified:#?}");
    }
}

/// FIELD-BUGS row 132.
///
/// Symptom: a store below a deep directory "is there, but cannot be opened: ask as its owner".
/// Nothing is made on the way to the refusal.
#[test]
fn a_path_that_is_too_long_is_said_to_be_that() {
    const LONGEST: usize = 504;
    let sandbox = Sandbox::new();
    let path_of = |length: usize| {
        let mut directory = std::fs::canonicalize(sandbox.path()).unwrap();
        let left =
            |directory: &std::path::Path| length - directory.as_os_str().len() - "//state.db".len();
        while left(&directory) > 200 {
            directory.push("d".repeat(100));
        }
        directory.push("d".repeat(left(&directory)));
        directory.join("state.db")
    };
    let ask = |path: &std::path::Path, verb: &[&str]| {
        let mut command = sandbox.incumbent(["--json", "--db"]);
        command.arg(path).args(verb);
        Process::start(command).finish(LIMIT)
    };
    let start: &[&str] = &["run", "--no-backoff", "--", "true"];
    let long_name = "n".repeat(250);
    let long_directory = format!("{}/state.db", "d".repeat(300));
    for (path, length, limit) in [
        (path_of(LONGEST + 1), LONGEST + 1, LONGEST),
        (path_of(900), 900, LONGEST),
        (sandbox.path().join("new").join(&long_name), 250, 255),
        (sandbox.path().join("new").join(&long_directory), 300, 255),
    ] {
        for verb in [start, &["status"], &["locks"], &["claim", "--pid", "1"]] {
            let answer = ask(&path, verb).assert_code(78);
            let error = answer.json()["error"].clone();
            assert_eq!(error["kind"], "filesystem", "{error:#}");
            let message = error["message"].as_str().unwrap();
            let says = |words: String| message.contains(&words);
            assert!(says("too long".to_owned()) && says(format!("{length} bytes")), "{message}");
            assert!(says(limit.to_string()) && error["hint"].is_string(), "{error:#}");
        }
    }
    let made: Vec<_> = std::fs::read_dir(sandbox.path())
        .unwrap()
        .map(|entry| json!(entry.unwrap().file_name().to_string_lossy()))
        .collect();
    assert_eq!(made, [json!("home")], "something was made");
    ask(&path_of(LONGEST), start).assert_code(0);
    ask(&path_of(LONGEST), &["history"]).assert_code(0);
}
