//! Hints that name another program: `kill -CONT`, `chmod`, `sv up`.

use rustix::process::Signal;

use super::{BTreeSet, code_of, filled_in, paste, supervisors};
use crate::support::{
    Answer, Identity, LIMIT, Process, Run, START, Sandbox, eventually, mode, set_mode, sleeper,
    wait_stopped,
};

/// The programs that a hint may name.
const PROGRAMS: [&str; 20] = [
    "chmod",
    "chown",
    "coredumpctl",
    "cp",
    "docker",
    "echo",
    "find",
    "journalctl",
    "kill",
    "launchctl",
    "nsenter",
    "pm2",
    "rm",
    "s6-svc",
    "sudo",
    "supervisorctl",
    "sv",
    "systemctl",
    "umount",
    "unset",
];

/// Each kind of such a hint, and its test: as a person would paste it.
pub(super) const KINDS: &[(&str, fn())] = &[
    ("chmod", chmod),
    ("find", find),
    ("kill", kill_of_a_holder),
    ("kill -CONT", kill_cont),
    ("kill -KILL", kill_kill),
    ("pm2 restart", supervisors::pm2),
    ("pm2 start", supervisors::pm2),
    ("pm2 stop", supervisors::pm2),
    ("s6-svc -d", supervisors::s6),
    ("s6-svc -r", supervisors::s6),
    ("s6-svc -u", supervisors::s6),
    ("supervisorctl restart", supervisors::supervisord),
    ("supervisorctl start", supervisors::supervisord),
    ("supervisorctl stop", supervisors::supervisord),
    ("sv down", supervisors::runit),
    ("sv restart", supervisors::runit),
    ("sv up", supervisors::runit),
    ("systemctl restart", supervisors::systemd_of_a_user),
    ("systemctl start", supervisors::systemd_of_a_user),
    ("systemctl stop", supervisors::systemd_of_a_user),
    ("unset", unset),
];

/// Those that are not run here, and why.
pub(super) const NOT_RUN: &[(&str, &str)] = &[
    ("chown", "`doctor/place.rs` pastes it: only root gives files away"),
    ("coredumpctl info", "needs systemd-coredump, which the kernel calls for a core"),
    ("coredumpctl list", "needs systemd-coredump, which the kernel calls for a core"),
    ("docker run", "needs docker"),
    ("docker unpause", "needs docker; what it does, `verbs/frozen.rs` does by the control group"),
    ("echo", "`verbs/frozen.rs` pastes it: needs a control group of its own"),
    ("journalctl", "needs a service of a running systemd, with a journal"),
    ("launchctl start", "needs macOS"),
    ("nsenter -t", "`doctor/surroundings.rs` pastes it: needs root, and mounts of its own"),
    ("systemctl edit", "needs an editor, and a person"),
    ("systemctl status", "its PID is left to the reader"),
    ("systemctl thaw", "needs a running systemd that can freeze; `verbs/frozen.rs` has the group"),
];

/// Made of a verb that is an argument of its own: `systemctl(manager, "stop", unit)`.
const MADE: &str = "systemctl(";

/// It has no verb.
const ALONE: &str = "journalctl";

/// The kind of such a command: the program, and its verb or option; `None` for other programs.
fn kind_of(command: &str) -> Option<String> {
    let mut words = command.split_whitespace().filter(|word| *word != "--user");
    let program = words.next().filter(|word| PROGRAMS.contains(word))?;
    let is_verb = |word: &&str| {
        word.starts_with('-') || word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase())
    };
    // Of these the next word is a value.
    let has_verb = !["chmod", "chown", "echo", "find", "journalctl", "unset"].contains(&program);
    let verb = words.next().filter(is_verb).filter(|_| has_verb);
    Some([Some(program), verb].into_iter().flatten().collect::<Vec<_>>().join(" "))
}

/// The commands of other programs that a source file advises.
pub(super) fn advised(text: &str) -> BTreeSet<String> {
    let code = code_of(text);
    let mut found = BTreeSet::new();
    let is_program = |piece: &&str| PROGRAMS.iter().any(|it| piece.starts_with(&format!("{it} ")));
    for piece in code.split('`').skip(1).filter(is_program) {
        found.extend(kind_of(&filled_in(piece)));
    }
    // A text that is a command as a whole, and no message that begins with a program.
    for piece in code.split('"').skip(1).filter(is_program) {
        let filled = filled_in(piece);
        let is_short = filled.split(' ').count() <= 3 || filled.contains(" && ");
        if is_short && filled.ends_with('X') {
            found.extend(kind_of(&filled).filter(|kind| kind.contains(' ') || kind == ALONE));
        }
    }
    for piece in code.split(MADE).skip(1) {
        let arguments: String = piece.chars().take(60).collect();
        let verb = arguments.split('"').nth(1);
        found.extend(verb.map(|verb| format!("systemctl {verb}")));
    }
    found
}

#[test]
fn a_hint_for_another_program_is_found_in_the_source() {
    let text = "
        // `kill -HUP`
        format!(\"continue it with `kill -CONT {pid}` or `chmod go-w {}`\");
        Some(format!(\"sv up {}\"));
        systemctl(manager, \"start\", unit);
        \"`incumbent stop`, kill the time\"";
    let expected = ["chmod", "kill -CONT", "sv up", "systemctl start"];
    assert_eq!(advised(text), BTreeSet::from(expected.map(str::to_owned)));
}

/// The command that was advised, as it was printed.
#[track_caller]
pub(super) fn hint(answer: &Answer, begin: &str) -> String {
    let text = format!("{}{}", answer.err, answer.out);
    let mut pieces = text.split('`').skip(1).step_by(2);
    let found = pieces.find(|piece| piece.starts_with(&format!("{begin} ")));
    found.unwrap_or_else(|| panic!("no `{begin}` in {answer:#?}")).to_owned()
}

/// A suspended gateway: `status` says so in its first line, what to do in the second.
#[test]
pub(super) fn kill_cont() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    let told = sandbox.cli(["status"]).assert_code(0);
    let first = "default/gateway: running, but suspended (SIGSTOP), pid ";
    assert!(told.out.starts_with(first), "{told:#?}");
    assert!(told.out.lines().nth(1).unwrap().starts_with("  try "), "{told:#?}");
    paste(&sandbox, &hint(&told, "kill -CONT")).assert_code(0);
    eventually("it goes on", LIMIT, || {
        sandbox.cli(["status"]).out.starts_with("default/gateway: running, pid").then_some(())
    });
    run.end().assert_code(0);
}

/// The holder of a lock that has no office.
fn lock_of_another(sandbox: &Sandbox) -> (Process, [String; 2]) {
    let owner = sleeper(sandbox);
    let pid = owner.pid().to_string();
    sandbox.cli(["lock", "acquire", "s", "i", "--no-keeper", "--pid", &pid]).assert_code(0);
    (owner, ["lock".to_owned(), "acquire".to_owned()])
}

fn take_it(sandbox: &Sandbox, verb: &[String; 2]) -> Answer {
    let own = std::process::id().to_string();
    let words = ["s", "i", "--no-keeper", "--pid", &own];
    sandbox.cli(verb.iter().map(String::as_str).chain(words))
}

#[test]
pub(super) fn kill_of_a_holder() {
    let sandbox = Sandbox::new();
    let (mut owner, verb) = lock_of_another(&sandbox);
    let told = take_it(&sandbox, &verb).assert_code(75);
    paste(&sandbox, &hint(&told, "kill")).assert_code(0);
    owner.wait(LIMIT);
    take_it(&sandbox, &verb).assert_code(0);
}

#[test]
pub(super) fn kill_kill() {
    let sandbox = Sandbox::new();
    let (mut owner, verb) = lock_of_another(&sandbox);
    owner.signal(Signal::STOP);
    wait_stopped(owner.pid());
    let told = take_it(&sandbox, &verb).assert_code(75);
    paste(&sandbox, &hint(&told, "kill -KILL")).assert_code(0);
    owner.wait(LIMIT);
    take_it(&sandbox, &verb).assert_code(0);
}

/// Who may write to the directory can replace the store.
#[test]
pub(super) fn chmod() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    let directory = sandbox.file("store");
    set_mode(&directory, 0o777);
    let told = sandbox.cli(["doctor"]).assert_code(1);
    paste(&sandbox, &hint(&told, "chmod")).assert_code(0);
    assert_eq!(mode(&directory), 0o755);
    let told = sandbox.cli(["doctor"]);
    assert!(!told.out.contains("can be written by others"), "{told:#?}");
}

/// A variable with a name that is none.
#[test]
pub(super) fn unset() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    let mut ask = sandbox.shell("incumbent status");
    ask.env("INCUMBENT_PROFILE", "no name");
    let told = Process::start(ask).finish(LIMIT).assert_code(2);
    let mut again = sandbox.shell(&format!("{}; incumbent status", hint(&told, "unset")));
    again.env("INCUMBENT_PROFILE", "no name");
    Process::start(again).finish(LIMIT).assert_code(3);
}

/// What a gateway has left behind is ended by what the stop says of it.
#[test]
fn kill_of_what_was_left_behind() {
    const LEAVES: &str = "
        setsid sleep 1000 > /dev/null 2>&1 < /dev/null & left=$!
        trap 'exit 0' TERM; echo $$; echo $left
        while :; do wait; done";
    let sandbox = Sandbox::new();
    let words = ["run", "--no-backoff", "--leave", "--", "/bin/sh", "-c", LEAVES];
    let mut run = Run::start(sandbox.incumbent(words));
    let left = Identity::of(run.process.line().parse().unwrap()).unwrap();
    let told = sandbox.cli(["stop"]).assert_code(0);
    assert!(!left.is_gone(), "{told:#?}");
    paste(&sandbox, &hint(&told, "kill")).assert_code(0);
    left.wait_gone(LIMIT);
    run.process.finish_with_stdin_open(LIMIT).assert_code(0);
}

/// Symptom: after `evict --force` the advice was to start it, next to the process that went on.
#[test]
fn kill_of_what_was_evicted() {
    let sandbox = Sandbox::new();
    let mut owner = sleeper(&sandbox);
    sandbox.cli(["claim", "--pid", &owner.pid().to_string()]).assert_code(0);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let told = sandbox.cli(["status"]).assert_code(3);
    assert!(told.out.contains("still runs, without the office"), "{told:#?}");
    paste(&sandbox, &hint(&told, "kill")).assert_code(0);
    owner.wait(LIMIT);
    let told = sandbox.cli(["status"]).assert_code(3);
    assert!(!told.out.contains("still runs"), "{told:#?}");
}

/// The log of the store has another name: it could be moved away under it.
#[test]
pub(super) fn find() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let other = sandbox.file("store/other");
    std::fs::hard_link(sandbox.file("store/state.db-wal"), &other).unwrap();
    let start = ["--profile", "work", "run", "--no-backoff", "--", "true"];
    let told = sandbox.cli(start).assert_code(78);
    let found = paste(&sandbox, &hint(&told, "find").replace(" DIR ", " . ")).assert_code(0);
    assert!(found.out.lines().any(|line| line.ends_with("/other")), "{found:#?}");
    std::fs::remove_file(other).unwrap();
    sandbox.cli(start).assert_code(0);
    run.end().assert_code(0);
}
