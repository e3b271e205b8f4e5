//! What the command finds: signals, mask, descriptors and variables as if no `run` were between it
//! and whoever started that.

use rustix::process::Signal;

use crate::support::{BINARY, LIMIT, Process, Sandbox, python_with, skipped, works};

/// Shows what is blocked and what is ignored.
const MASKS: [&str; 4] = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];

/// The signals of libc (32 and 33) are nobody's to set.
const OF_LIBC: u64 = 0b11 << 31;

/// One of the sets that were shown.
fn set(said: &str, name: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(name)).expect("both sets");
    u64::from_str_radix(line.trim(), 16).unwrap() & !OF_LIBC
}

fn bits(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |bits, signal| bits | 1 << (signal - 1))
}

impl Sandbox {
    /// What a program says that is started by `words`, after `between`.
    fn said_under(&self, words: &[&str], between: &[&str], program: &[&str]) -> String {
        let mut command = self.within(words);
        command.args(between).args(program);
        Process::start(command).finish(LIMIT).assert_code(0).out
    }
}

/// FIELD-BUGS rows 117 and 118. Symptoms: a gateway under a launcher that blocks signals was deaf
/// to TERM; one that was started with SIGPIPE ignored died of it. Causes: the mask is inherited,
/// and the standard library sets SIGPIPE to its default in whatever it executes. It holds because
/// the last act before the exec empties the one and restores the other.
#[test]
fn signals_come_as_they_came() {
    const IGNORED: [(&str, &[i32]); 4] = [
        ("PIPE", &[libc::SIGPIPE]),
        ("CHLD", &[libc::SIGCHLD]),
        ("TTIN,TTOU", &[libc::SIGTTIN, libc::SIGTTOU]),
        ("HUP,PIPE,XFSZ", &[libc::SIGHUP, libc::SIGPIPE, libc::SIGXFSZ]),
    ];
    if !works(&["env", "--ignore-signal=PIPE", "--block-signal=TERM"]) {
        return skipped("needs an env that can ignore and block signals");
    }
    let sandbox = Sandbox::new();
    let run = [BINARY, "run", "--no-backoff", "--"];
    for (names, signals) in IGNORED {
        let option = format!("--ignore-signal={names}");
        let words = ["env", "--default-signal", &option, "--block-signal=TERM,CHLD,USR1"];
        let plain = sandbox.said_under(&words, &[], &MASKS);
        let ours = sandbox.said_under(&words, &run, &MASKS);
        assert_eq!(set(&plain, "SigIgn:"), bits(signals), "the test itself: {plain}");
        assert_eq!(set(&ours, "SigIgn:"), bits(signals), "{names}: {ours}");
        assert_ne!(set(&plain, "SigBlk:"), 0, "the test itself: {plain}");
        assert_eq!(set(&ours, "SigBlk:"), 0, "{names}: {ours}");
    }
}

/// The same launcher: the run itself hears the signal, and passes it on.
#[test]
fn a_run_hears_what_its_launcher_blocks() {
    let words = ["env", "--block-signal=TERM,INT,HUP,CHLD"];
    if !works(&words) {
        return skipped("needs an env that can block signals");
    }
    let sandbox = Sandbox::new();
    let mut command = sandbox.within(&words);
    command.args([BINARY, "run", "--", "/bin/sh", "-c", "echo $$; exec sleep 1000"]);
    let mut run = Process::start(command);
    run.line();
    run.signal(Signal::TERM);
    run.finish_with_stdin_open(LIMIT).assert_code(143);
}

/// A broken pipe ends a program that does not ignore SIGPIPE, under `run` as without.
#[test]
fn a_command_dies_of_a_broken_pipe_as_without() {
    let sandbox = Sandbox::new();
    let script = "incumbent run -- sh -c 'yes; echo $? >&2' | true";
    let answer = Process::start(sandbox.shell(script)).finish(LIMIT);
    assert_eq!(answer.err.trim(), "141", "{answer:#?}");
}

/// FIELD-BUGS rows 113 and 114. Symptom: `sd_listen_fds` and `sd_watchdog_enabled` said 0 to a
/// gateway under `run`. Cause: the variables named the pid of the run. It holds because they name
/// the command after the exec; one that names somebody else is left alone.
#[test]
fn variables_that_name_the_run_name_the_command() {
    const SCRIPT: &str = "echo $$ $LISTEN_PID $WATCHDOG_PID $SYSTEMD_EXEC_PID; cat <&3";
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("inherited"), "open\n").unwrap();
    let start = |names: &str| {
        let exports = names.replace(',', " ");
        let script = format!(
            "exec 3< inherited; export LISTEN_FDS=1 {exports}; exec incumbent run --no-backoff \
             -- /bin/sh -c '{SCRIPT}'"
        );
        let answer = Process::start(sandbox.shell(&script)).finish(LIMIT).assert_code(0);
        let (names, rest) = answer.out.split_once('\n').expect("two lines");
        assert_eq!(rest, "open\n", "descriptor 3 is not there");
        names.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let said = start("LISTEN_PID=$$,WATCHDOG_PID=$$,SYSTEMD_EXEC_PID=$$");
    assert_eq!(said[1..], [&*said[0]; 3], "all name the command");
    let said = start("LISTEN_PID=1,WATCHDOG_PID=1,SYSTEMD_EXEC_PID=1");
    assert_eq!(said[1..], ["1"; 3], "none of them named the run");
}

/// The same for each command of a run: sockets outlive a restart.
#[test]
fn inherited_descriptors_outlive_a_restart() {
    const SCRIPT: &str = "readlink /proc/self/fd/3; echo $LISTEN_PID $$; exec sleep 1000";
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("inherited"), "open\n").unwrap();
    let script = format!(
        "exec 3< inherited; export LISTEN_FDS=1 LISTEN_PID=$$; exec incumbent run -- /bin/sh -c \
         '{SCRIPT}'"
    );
    let mut run = Process::start(sandbox.shell(&script));
    let mut look = || {
        assert!(run.line().ends_with("/inherited"), "descriptor 3 is not there");
        let pids = run.line();
        let (named, command) = pids.split_once(' ').expect("two pids");
        assert_eq!(named, command);
    };
    look();
    sandbox.cli(["restart"]).assert_code(0);
    look();
    run.signal(Signal::TERM);
    run.finish_with_stdin_open(LIMIT).assert_code(143);
}

/// As systemd checks it: by its own library, where Python has that.
#[test]
fn the_library_of_systemd_finds_its_sockets() {
    const SCRIPT: &str = "
from systemd import daemon
print(daemon.listen_fds(), flush=True)";
    let Some(python) = python_with("systemd.daemon") else {
        return skipped("needs python3 with systemd-python");
    };
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("inherited"), "").unwrap();
    std::fs::write(sandbox.file("fds.py"), SCRIPT).unwrap();
    let script = format!(
        "exec 3< inherited; export LISTEN_FDS=1 LISTEN_PID=$$; \
         exec incumbent run -- '{}' fds.py",
        python.display()
    );
    let answer = Process::start(sandbox.shell(&script)).finish(LIMIT).assert_code(0);
    assert_eq!(answer.out.trim(), "[3]");
}
