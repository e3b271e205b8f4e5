//! The verdict, on real processes: who is on record, is it that process, does it live?
//!
//! The decision table itself is tested over its whole product beside the code. Here it is shown
//! that what the table is fed is true.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::forked::fork;
use crate::support::{
    BINARY, Identity, LIMIT, Process, Run, Sandbox, Stat, WITHOUT_MAIN_THREAD, another_user,
    eventually, has, kill, order, plays, role, role_db, skipped, test_name, wait_ended,
    wait_stopped,
};

/// A process that has nothing to do with the store; that it got no signal shows in its end.
struct Decoy(Process);

impl Decoy {
    fn new(sandbox: &Sandbox) -> Self {
        let script = "trap 'echo signalled' TERM HUP INT QUIT USR1 USR2 CONT; echo ready
            while read -r line; do :; done; echo left alone";
        let mut process = Process::start(sandbox.shell(script));
        assert_eq!(process.line(), "ready");
        Self(process)
    }

    fn identity(&self) -> Identity {
        Identity::of(self.0.pid()).unwrap()
    }

    fn assert_left_alone(self) {
        let answer = self.0.finish(LIMIT).assert_code(0);
        assert_eq!(answer.out, "ready\nleft alone\n");
    }
}

/// Asserts that nobody is kept out, and that the start says whom it replaced.
fn assert_free(sandbox: &Sandbox, reason: &str) {
    sandbox.assert_status(3, "dead", reason);
    let answer = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    answer.assert_complains(&["took the place of", &reason.replace('_', " ")]);
    assert_eq!(sandbox.history()[1]["end_reason"], reason);
}

/// Asserts that the office is refused to others, and why; that only force ends it.
fn assert_office_refused(sandbox: &Sandbox, code: i32, verdict: &str, reason: &str) -> Value {
    let status = sandbox.assert_status(code, verdict, reason);
    let (code, answer) = sandbox.json(["run", "--no-backoff", "--", "true"]);
    assert_eq!(code, 75, "{answer:#}");
    assert_eq!(answer["holder"]["verdict"], verdict, "{answer:#}");
    assert_eq!(answer["holder"]["reason"], reason, "{answer:#}");
    sandbox.cli(["evict"]).assert_code(75);
    status
}

/// A sandbox with the record of a killed run, whose pid is then forged to be `decoy`'s.
fn killed_run(sandbox: &Sandbox) {
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    sandbox.forge("UPDATE instances SET child_pid = NULL, child_start_time = NULL");
}

/// R:ROW, R:REUSE. FIELD-BUGS rows 5, 7, 8, 10, 17 and 60.
///
/// Symptom: "token in use (pid n)" for ever, where n is a music player by now. Cause: pid alone, or
/// a start time that one side did not have, counted as identity. It holds because every combination
/// of recorded and live start time has its own answer, and none of them signals anybody.
#[test]
fn a_recycled_pid_keeps_nobody_out() {
    // What is on record beside the decoy's pid, as its start time plus a difference; what follows.
    let cases = [
        ("an older start time", "start_time = {} - 1", "pid_reused"),
        ("a newer start time", "start_time = {} + 1", "pid_reused"),
        ("no start time", "start_time = NULL", "identity_mismatch"),
        ("no start time, of another user", "start_time = NULL, uid = 12345", "pid_reused"),
    ];
    for (what, columns, reason) in cases {
        for anchor in ["NULL", "'00-1-00.lock'"] {
            let sandbox = Sandbox::new();
            killed_run(&sandbox);
            let decoy = Decoy::new(&sandbox);
            let it = decoy.identity();
            sandbox.forge(&format!(
                "UPDATE instances SET process_inode = NULL, pid = {}, anchor = {anchor}, {}",
                it.pid,
                columns.replace("{}", &it.start_time.to_string())
            ));
            eprintln!("{what}, anchor {anchor}");
            assert_free(&sandbox, reason);
            decoy.assert_left_alone();
        }
    }
}

/// The other half of row 8: where it is the recorded process, it is not evicted for a forged or
/// missing detail.
#[test]
fn the_recorded_process_is_recognised_without_its_lock() {
    for (columns, reason) in [
        ("start_time = start_time", "start_time_matches"),
        ("start_time = NULL", "command_line_matches"),
    ] {
        let sandbox = Sandbox::new();
        let run = sandbox.hold(&[]);
        // Stopped, so that it does not find its record changed.
        run.process.signal(Signal::STOP);
        wait_stopped(run.pid());
        sandbox.forge(&format!(
            "UPDATE instances SET anchor = NULL, child_pid = NULL, process_inode = NULL, {columns}"
        ));
        let status = assert_office_refused(&sandbox, 0, "alive", reason);
        assert_eq!(status["evidence"]["anchor"], "none");
        assert_eq!(status["flags"], json!(["stopped"]));
    }
}

/// FIELD-BUGS row 8, 58: a row that makes no sense reads as unknown, never as dead and never as an
/// error: a held lock still decides, and without one a person may.
#[test]
fn an_absurd_record_is_unknown() {
    for columns in ["pid = -5", "pid = 0", "pid = 99999999999", "start_time = -1"] {
        let sandbox = Sandbox::new();
        let run = sandbox.hold(&[]);
        sandbox.forge(&format!("UPDATE instances SET {columns}"));
        sandbox.assert_status(0, "alive", "anchor_held");
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        drop(run);
    }
    let sandbox = Sandbox::new();
    killed_run(&sandbox);
    sandbox.forge("UPDATE instances SET anchor = NULL, pid = 0");
    assert_office_refused(&sandbox, 4, "unknown", "not_verifiable");
    sandbox.cli(["evict", "--force"]).assert_code(0);
    sandbox.hold(&[]).end().assert_code(0);
}

/// FIELD-BUGS rows 6, 10 and 84. After a reboot the very pid and the very tick may come back: the
/// boot id is part of who it was. On another machine (a copied or shared store) nothing here says
/// anything about it.
#[test]
fn another_boot_is_dead_and_another_machine_is_unknown() {
    const OTHER_BOOT: &str = "boot_id = '11111111-2222-3333-4444-555555555555',
         written_boot_clock_ms = 9000000000000";
    for anchor in ["NULL", "'00-1-00.lock'", "anchor"] {
        let sandbox = Sandbox::new();
        killed_run(&sandbox);
        let decoy = Decoy::new(&sandbox);
        let it = decoy.identity();
        sandbox.forge(&format!(
            "UPDATE instances SET pid = {}, start_time = {}, anchor = {anchor}, {OTHER_BOOT}",
            it.pid, it.start_time
        ));
        assert_free(&sandbox, "rebooted");
        decoy.assert_left_alone();
    }
    let sandbox = Sandbox::new();
    killed_run(&sandbox);
    let decoy = Decoy::new(&sandbox);
    let it = decoy.identity();
    sandbox.forge(&format!(
        "UPDATE instances SET pid = {}, start_time = {}, anchor = NULL, host = 'another',
             {OTHER_BOOT}",
        it.pid, it.start_time
    ));
    assert_office_refused(&sandbox, 4, "unknown", "foreign_namespace");
    sandbox.cli(["evict", "--force"]).assert_code(0);
    sandbox.hold(&[]).end().assert_code(0);
    decoy.assert_left_alone();
}

/// R:STOP. FIELD-BUGS rows 20 and 21: a stopped owner (Ctrl-Z, a laptop asleep) keeps what it
/// holds.
#[test]
fn a_stopped_owner_is_not_dead() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    let status = assert_office_refused(&sandbox, 0, "alive", "anchor_held");
    assert_eq!(status["flags"], json!(["stopped"]));
    assert_eq!(status["evidence"]["process_state"], "stopped");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    assert!(text.contains(&format!("kill -CONT {}", run.pid())), "{text}");
    run.process.signal(Signal::CONT);
    eventually("it goes on", LIMIT, || (sandbox.status().1["flags"] == json!([])).then_some(()));
    run.end().assert_code(0);
}

/// A traced process is stopped most of the time, and healthy.
#[test]
fn an_owner_under_strace_is_not_stopped() {
    let sandbox = Sandbox::new();
    let trace = sandbox.file("trace");
    if !has("strace") || !crate::support::works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let mut command = sandbox.program("strace");
    command.args(["-f", "-o"]).arg(&trace).args([
        BINARY,
        "run",
        "--",
        "/bin/sh",
        "-c",
        "echo $$; exec cat",
    ]);
    let mut strace = Process::start(command);
    strace.line();
    let status = assert_office_refused(&sandbox, 0, "alive", "anchor_held");
    assert_eq!(status["flags"], json!([]), "{status:#}");
    strace.finish(LIMIT).assert_code(0);
    sandbox.assert_status(3, "dead", "exited");
}

/// R:COMM. FIELD-BUGS rows 12 and 15.
///
/// Symptom: a live owner judged dead because its name had a blank or a `)` in it, or because it ran
/// through a renamed copy or a wrapper. Cause: `stat` was split at blanks, and a list of known
/// command lines decided about life. It holds because the name is cut at its last parenthesis, and
/// a command line evicts nobody whose lock is held or whose start time is equal.
#[test]
fn renamed_and_wrapped_owners_are_alive() {
    for name in ["a) S 1 1", "gateway with blanks", "\u{e9}t\u{e9}", "incumbent (deleted)"] {
        let sandbox = Sandbox::new();
        let copy = sandbox.copy_program(name);
        let mut command = sandbox.program(&copy);
        command.args(["run", "--", "/bin/sh", "-c", "echo $$; exec cat"]);
        let mut run = Run::start(command);
        // Its file is replaced under it, as upgrades do.
        std::fs::remove_file(&copy).unwrap();
        let status = assert_office_refused(&sandbox, 0, "alive", "anchor_held");
        assert_eq!(status["evidence"]["start_time"], "equal", "{name}: {status:#}");
        assert_eq!(status["evidence"]["process_state"], "running", "{name}: {status:#}");
        run.process.signal(Signal::STOP);
        wait_stopped(run.pid());
        sandbox.forge("UPDATE instances SET anchor = NULL, child_pid = NULL");
        assert_office_refused(&sandbox, 0, "alive", "start_time_matches");
        run.kill();
        run.command.wait_gone(LIMIT);
        assert_eq!(sandbox.status().0, 3, "{name}");
    }
    let sandbox = Sandbox::new();
    let wrapper = "incumbent run -- sh -c 'echo $$; exec cat' && echo wrapped";
    let mut shell = Process::start(sandbox.shell(wrapper));
    shell.line();
    let status = assert_office_refused(&sandbox, 0, "alive", "anchor_held");
    assert_ne!(status["pid"], shell.pid());
    assert_eq!(shell.finish(LIMIT).assert_code(0).out.lines().last(), Some("wrapped"));
}

/// FIELD-BUGS row 19, the trap in it: a process whose main thread has ended shows state Z, and
/// lives.
#[test]
fn a_process_whose_main_thread_ended_is_alive() {
    if !has("python3") {
        return skipped("needs python3");
    }
    for options in ["", "--no-keeper"] {
        let sandbox = Sandbox::new();
        let program = sandbox.file("two.py");
        std::fs::write(&program, WITHOUT_MAIN_THREAD).unwrap();
        let script =
            format!("incumbent claim {options} > /dev/null; exec python3 '{}'", program.display());
        let mut owner = Process::start(sandbox.shell(&script));
        assert_eq!(owner.line(), "alone");
        assert_eq!(Stat::of(owner.pid()).unwrap().state, 'Z');
        let reason = if options.is_empty() { "anchor_held" } else { "start_time_matches" };
        let status = assert_office_refused(&sandbox, 0, "alive", reason);
        assert_eq!(status["evidence"]["process"], "present", "{status:#}");
        assert_eq!(status["evidence"]["process_state"], "zombie", "{status:#}");
        // Without lock, start time and (in this state) command line nobody can tell, and so nobody
        // is evicted.
        sandbox.forge("UPDATE instances SET anchor = NULL, start_time = NULL");
        let (_, status) = sandbox.status();
        assert_ne!(status["verdict"], "dead", "{status:#}");
        owner.kill();
        assert_eq!(sandbox.status().0, 3);
    }
}

pub const FORKING_OWNER: &str = test_name!(role_of_a_forking_owner);
pub const RE_EXECUTING_OWNER: &str = test_name!(role_of_a_re_executing_owner);

/// The part of a gateway that links the library, claims, and forks without executing anything.
#[test]
fn role_of_a_forking_owner() {
    if !plays("forking owner") {
        return;
    }
    let store = incumbent::Store::open(role_db()).unwrap();
    let profile = store.profile("default").unwrap();
    let incumbent::Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("held") };
    let order_to_fork = order().unwrap();
    let child = fork();
    if child == 0 {
        // Everything here is refused, nothing here gives the parent's office away.
        let verify = tenure.verify().map_err(|error| error.kind());
        let claim = profile.claim().map(drop).map_err(|error| error.kind());
        let status = profile.status().map(drop).map_err(|error| error.kind());
        let open = incumbent::Store::open(role_db()).map(drop).map_err(|error| error.kind());
        match order_to_fork.as_str() {
            "fork and drop" => drop((tenure, profile, store)),
            "fork and keep" => std::mem::forget((tenure, profile, store)),
            other => panic!("{other}"),
        }
        eprintln!("child {}: {verify:?} {claim:?} {status:?} {open:?}", std::process::id());
        // Stays until the test is done with it; no destructor, no exit handler.
        loop {
            std::thread::park();
        }
    }
    while let Some(order) = order() {
        assert_eq!(order, "verify");
        eprintln!("parent: {:?}", tenure.verify());
    }
}

struct ForkedOwner {
    parent: Process,
    child: Identity,
}

impl ForkedOwner {
    fn new(sandbox: &Sandbox, order: &str) -> Self {
        let mut parent = sandbox.role(FORKING_OWNER, "forking owner");
        parent.say(order);
        let said = parent.err_line_with("child ");
        let pid = said.split([' ', ':']).nth(1).unwrap().parse().unwrap();
        assert_eq!(said.matches("Err(Forked)").count(), 4, "in the child: {said}");
        Self { parent, child: Identity::of(pid).unwrap() }
    }

    fn verify(&mut self) -> String {
        self.parent.say("verify");
        self.parent.err_line_with("parent: ")
    }
}

/// FIELD-BUGS row 70.
///
/// Symptom: a forked child's cleanup let go of its parent's lock. Cause: a flock belongs to the
/// open file, which a fork shares. It holds because every handle knows the process that made it: in
/// any other one its calls are errors and its drop does nothing.
#[test]
fn a_forked_child_gives_nothing_away() {
    for order in ["fork and drop", "fork and keep"] {
        let sandbox = Sandbox::new();
        let mut owner = ForkedOwner::new(&sandbox, order);
        assert!(owner.verify().contains("Ok(Held)"));
        assert_office_refused(&sandbox, 0, "alive", "anchor_held");
        kill(owner.child.pid, Signal::KILL);
        owner.child.wait_gone(LIMIT);
        assert!(owner.verify().contains("Ok(Held)"));
        assert_office_refused(&sandbox, 0, "alive", "anchor_held");
        owner.parent.finish(LIMIT).assert_code(0);
        sandbox.assert_status(3, "dead", "released");
    }
}

/// R:FD. FIELD-BUGS rows 3, 69 and 71.
///
/// Symptom: "locked by another instance", and nobody runs. Cause: a forked child shares the lock
/// and outlives its owner. It holds because a held lock whose recorded process is proven gone keeps
/// nobody out.
#[test]
fn a_forked_child_that_outlives_the_owner_keeps_nobody_out() {
    for (order, anchor, reason, flags) in [
        ("fork and drop", "free", "anchor_released", json!([])),
        ("fork and keep", "held", "no_such_process", json!(["anchor_leaked"])),
    ] {
        let sandbox = Sandbox::new();
        let mut owner = ForkedOwner::new(&sandbox, order);
        owner.parent.kill();
        assert!(!owner.child.is_gone(), "the test is about a child that lives");
        let status = sandbox.assert_status(3, "dead", reason);
        assert_eq!(status["evidence"]["anchor"], anchor, "{order}: {status:#}");
        assert_eq!(status["flags"], flags, "{order}: {status:#}");
        let holders = if anchor == "held" { json!([owner.child.pid]) } else { json!([]) };
        assert_eq!(status["evidence"]["anchor_holders"], holders, "{order}: {status:#}");
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
        sandbox.hold(&[]).end().assert_code(0);
        assert!(!owner.child.is_gone(), "nobody but its owner may end it");
        kill(owner.child.pid, Signal::KILL);
    }
}

/// An owner that executes itself anew (an upgrade in place) is the same process, and gets its
/// office back although its lock went with the exec.
#[test]
fn role_of_a_re_executing_owner() {
    let role = role();
    let (Some("first life" | "second life"), Some(now)) = (role.as_deref(), &role) else { return };
    let store = incumbent::Store::open(role_db()).unwrap();
    let claim = store.profile("default").unwrap().claim().unwrap();
    let incumbent::Claim::Granted(tenure) = claim else { panic!("{claim:?}") };
    eprintln!("{now}: {} {}", std::process::id(), tenure.instance());
    if now == "first life" {
        assert_eq!(order().as_deref(), Some("execute"));
        let mut arguments = std::env::args_os();
        let error = std::os::unix::process::CommandExt::exec(
            std::process::Command::new(arguments.next().unwrap())
                .args(arguments)
                .env("IT_ROLE", "second life"),
        );
        panic!("{error}");
    }
    assert_eq!(order(), None);
}

#[test]
fn a_re_executed_owner_gets_its_office_back() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.role(RE_EXECUTING_OWNER, "first life");
    let first = owner.err_line_with("first life: ");
    owner.say("execute");
    let second = owner.err_line_with("second life: ");
    let pid = owner.pid().to_string();
    assert!(first.contains(&pid) && second.contains(&pid), "{first}; {second}");
    let status = assert_office_refused(&sandbox, 0, "alive", "anchor_held");
    assert_eq!(status["pid"], owner.pid());
    let history = sandbox.history();
    assert_eq!(history.len(), 2, "{history:#?}");
    assert_eq!(history[1]["end_reason"], "re_executed", "{history:#?}");
    owner.finish(LIMIT).assert_code(0);
}

/// The program, as nobody.
fn as_nobody(
    sandbox: &Sandbox,
    nobody: &[&str],
    binary: &std::path::Path,
    verb: &[&str],
) -> (i32, Value) {
    let mut command = sandbox.within(nobody);
    command.arg(binary).arg("--json").args(verb);
    let answer = Process::start(command).finish(LIMIT);
    (answer.code(), answer.json())
}

/// R:UID. FIELD-BUGS rows 11 and 34: a pid that belongs to another user by now, which may not even
/// be signalled, neither stops a start nor counts as the owner.
#[test]
fn a_pid_that_another_user_has_by_now_keeps_nobody_out() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    for (columns, reason) in [
        ("anchor = anchor", "anchor_released"),
        ("anchor = NULL", "pid_reused"),
        ("anchor = NULL, start_time = NULL", "pid_reused"),
    ] {
        let sandbox = Sandbox::new();
        let binary = sandbox.open_to_nobody();
        let run =
            ["run", "--no-backoff", "--", "/bin/sh", "-c", "kill -KILL $PPID; while :; do :; done"];
        let mut command = sandbox.within(nobody);
        command.arg(&binary).args(run);
        Process::start(command).finish(LIMIT).assert_code(137);
        let decoy = Decoy::new(&sandbox);
        sandbox.forge(&format!(
            "UPDATE instances SET child_pid = NULL, pid = {}, {columns}",
            decoy.0.pid()
        ));
        let (code, status) = as_nobody(&sandbox, nobody, &binary, &["status"]);
        assert_eq!((code, &status["reason"]), (3, &json!(reason)), "{columns}: {status:#}");
        let start = ["run", "--no-backoff", "--", "true"];
        let mut command = sandbox.within(nobody);
        command.arg(&binary).args(start);
        Process::start(command).finish(LIMIT).assert_code(0);
        decoy.assert_left_alone();
    }
}

/// FIELD-BUGS rows 33, 34 and 36.
///
/// Symptom: one start as root left files that the user's own gateway could not open; or the user's
/// `status` could not look, called that "stale" and deleted a live lock. It holds because files are
/// given to the directory's owner, and not being able to look is never evidence of death.
#[test]
fn a_root_owner_in_a_users_store_is_seen_by_that_user() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let run = sandbox.hold(&[]);
    let (code, status) = as_nobody(&sandbox, nobody, &binary, &["status"]);
    assert_eq!((code, &status["reason"]), (0, &json!("anchor_held")), "{status:#}");
    assert_eq!(status["pid"], run.pid());
    let (code, answer) =
        as_nobody(&sandbox, nobody, &binary, &["run", "--no-backoff", "--", "true"]);
    assert_eq!(code, 75, "{answer:#}");
    assert_eq!(answer["holder"]["pid"], run.pid());
    // An anchor that cannot be opened is not a free one.
    let anchor = sandbox.anchors().join(&sandbox.anchor_names()[0]);
    std::os::unix::fs::chown(&anchor, Some(0), Some(0)).unwrap();
    let (code, status) = as_nobody(&sandbox, nobody, &binary, &["status"]);
    assert_eq!(status["evidence"]["anchor"], "unreadable", "{status:#}");
    assert_eq!((code, &status["verdict"]), (0, &json!("alive")), "{status:#}");
    assert!(anchor.exists());
    run.end().assert_code(0);
    // After root has gone, the user goes on with the same store.
    let start = ["run", "--no-backoff", "--", "true"];
    let mut command = sandbox.within(nobody);
    command.arg(&binary).args(start);
    Process::start(command).finish(LIMIT).assert_code(0);
}

/// A killed owner that is not yet collected by its parent, seen through the library as well.
#[test]
fn the_library_sees_what_the_program_sees() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let store = incumbent::Store::open_existing(sandbox.db()).unwrap().unwrap();
    let profile = store.profile("default").unwrap();
    assert_eq!(profile.status().unwrap().reason, "anchor_held");
    kill(run.pid(), Signal::KILL);
    assert!(wait_ended(run.pid(), LIMIT));
    run.command.wait_gone(LIMIT);
    let report = profile.status().unwrap();
    assert_eq!((report.verdict, report.reason.as_str()), ("dead", "anchor_released"));
}
