//! `forensics diagnose` ends by itself, whatever hangs, and holds nobody up.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{HANG, assert_holds, diagnostic_pid, is_gone, section};
use crate::support::{
    BINARY, LIMIT, Process, Sandbox, Stat, assert_within, eventually, is_root, kill,
    nobody_with_hidepid, skipped, tagged, wait_ended,
};

/// FIELD-BUGS row 82.
///
/// Symptom: the first diagnostic waited for `ps` in the signal handler, three seconds of a stop. It
/// holds because whoever starts it waits for nothing, and each program gets a share of the time
/// only.
#[test]
fn a_hung_program_holds_nobody_up_and_costs_the_others_nothing() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake("ps", &format!("echo 1 0 root; {HANG}")).fake("dmesg", "echo the kernel speaks");
    let pid = diagnostic_pid(sandbox.diagnose_with_fakes(&["--timeout", "6s", "--signal", "TERM"]));
    // The one that started it has ended, and it goes on.
    assert!(!is_gone(pid));
    let log = sandbox.diagnostic(pid);
    assert_holds(
        &log,
        &[
            &format!("=== shutdown diagnostic @ SIGTERM === #{pid}\nof pid {}", std::process::id()),
            // A third of the time.
            "unavailable: ps: no answer within ",
            "it was ended\nwhat it said until then:\n1 0 root\n",
            "what we see ourselves",
            &format!("> {:>7} ", std::process::id()),
            "(1, 5, 15 min)",
            "\nthe kernel speaks\n",
            "; cut off: ps after ",
        ],
    );
    // Nor does anything stay behind: the script's own child is ended with it.
    eventually("the end of all", LIMIT, || {
        tagged("IT_SANDBOX", sandbox.path()).is_empty().then_some(())
    });
}

/// FIELD-BUGS row 83: there is no `timeout` program on macOS, and nothing was written. It holds
/// because the process counts its time itself.
#[test]
fn it_ends_when_everything_hangs() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    for name in ["ps", "dmesg", "journalctl"] {
        sandbox.fake(name, HANG);
    }
    let began = Instant::now();
    let pid = diagnostic_pid(sandbox.diagnose_with_fakes(&["--timeout", "1s"]));
    assert!(wait_ended(pid, LIMIT));
    // Far above the timeout, far below what the programs would take.
    assert_within(Duration::from_secs(15), began.elapsed(), "it");
    let log = sandbox.diagnostic(pid);
    assert_holds(
        &log,
        &["@ UNKNOWN ===", "; cut off: ps after ", ", dmesg after ", ", journalctl after "],
    );

    // So little time that there is none: a beginning, reasons, an end.
    std::fs::remove_file(sandbox.log()).unwrap();
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&["--timeout", "1ms"]));
    assert_holds(&log, &["unavailable: ", "no time was left", "=== end ==="]);
}

/// A write that hangs (a file system of a server that is gone) is in nobody's hands; the
/// watchdog's. A full pipe that nobody reads stands in for it.
#[test]
fn it_ends_when_a_write_hangs() {
    let sandbox = Sandbox::new();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    rustix::io::write(&writer, &[b'x'; 4090]).unwrap();
    let mut child = sandbox.incumbent(["__diagnostic", "300", "1"]).stdout(writer).spawn().unwrap();
    let ended = wait_ended(child.id(), LIMIT);
    child.kill().unwrap();
    assert_eq!((ended, child.wait().unwrap().code()), (true, Some(70)));
    drop(reader);
}

/// It outlives what it is about: the gateway that is killed, the terminal that is closed, the
/// supervisor that signals all it sees.
#[test]
fn it_belongs_to_nobody() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake_ps_behind_gate();
    let mut shell = sandbox.shell("incumbent forensics diagnose --log log --timeout 50s; exec cat");
    let path = std::env::join_paths([
        &sandbox.file("bin"),
        Path::new(BINARY).parent().unwrap(),
        Path::new("/usr/bin"),
        Path::new("/bin"),
    ])
    .unwrap();
    shell.env("PATH", path);
    let mut shell = Process::start(sandbox.among_fakes(shell));
    let pid: u32 = shell.line().parse().unwrap();
    eventually("a session of its own", LIMIT, || (Stat::of(pid)?.session == pid).then_some(()));
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.to_string_lossy().starts_with('/'))
        .collect();
    assert!(open.contains(&sandbox.log()), "{open:?}");
    assert!(open.iter().all(|it| *it == sandbox.log() || it == Path::new("/dev/null")), "{open:?}");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        kill(pid, signal);
    }
    shell.kill();
    sandbox.open_gate();
    let log = sandbox.diagnostic(pid);
    assert_holds(&log, &["ps: the gate is open", "--- load average ---"]);
    // The subject was the shell that asked.
    assert_holds(&log, &[&format!("of pid {},", shell.pid()), "it has ended"]);
}

/// FIELD-BUGS rows 31 and 83.
///
/// Symptom: in a small image, and on macOS, every record was blank. It holds because what cannot be
/// had says why, and the process table is read without `ps`.
#[test]
fn without_programs_it_says_so_and_looks_itself() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    std::fs::create_dir(sandbox.file("bin")).unwrap();
    let me = std::process::id();
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&["--pid", &me.to_string()]));
    let processes = section(&log, "processes");
    let places = if is_root() { "the system's directories" } else { "PATH" };
    assert_eq!(processes[0], format!("unavailable: ps: not found in {places}"));
    assert_holds(processes[2], &["PID", "PPID", "UID", "CPU(s)", "RSS(KiB)", "COMMAND"]);
    let ours = processes
        .iter()
        .find(|line| line.contains("forensics_diagnose") || line.contains("/deps/it-"));
    assert!(ours.is_some(), "{processes:#?}");
    for (of, program) in [("kernel", "dmesg"), ("the user's journal", "journalctl")] {
        let missing = format!("unavailable: {program}: not found in {places}");
        assert_eq!(section(&log, of), [missing.as_str()]);
    }
    assert_holds(&section(&log, "process tree").join("\n"), &[&format!("> {me:>7} ")]);
    assert_holds(&log, &["(1, 5, 15 min)", "=== end ==="]);
}

/// The same where the programs are others than expected: busybox knows no `-A`, a kernel lets only
/// root read its messages, a `ps` of somebody's own prints what it likes.
#[test]
fn programs_that_refuse_are_quoted() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox
        .fake("ps", "echo \"ps: unrecognized option: A\" >&2; echo 'BusyBox v1.36' >&2; exit 1")
        .fake(
            "dmesg",
            "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1",
        )
        .fake("journalctl", "for n in 1 2 3; do echo entry $n; done");
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&[]));
    assert_holds(
        &log,
        &[
            "unavailable: ps: unrecognized option: A (exit status: 1)\nwhat we see ourselves",
            "unavailable: dmesg: read kernel buffer failed: Operation not permitted \
             (exit status: 1)\n",
            "\nentry 1\nentry 2\nentry 3\n(3 of 3)\n",
        ],
    );
    sandbox.fake("ps", "echo 'PID   USER     TIME  COMMAND'; echo '    1 root      0:00 sh'");
    // One that knows no `-T` is asked without.
    sandbox.fake("dmesg", "[ $# = 0 ] || exit 1; echo plain");
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&[]));
    assert_holds(&log, &["unavailable: ps: no table of processes, but \"PID   USER ", "\nplain\n"]);
}

/// With the machine's own programs, started by one that ignores SIGCHLD, as some gateways do: then
/// the kernel keeps no exit status for anybody, and each program would seem to hang.
#[test]
fn it_works_for_who_ignores_its_children() {
    let sandbox = Sandbox::new();
    let mut shell =
        sandbox.shell("trap '' CHLD; exec incumbent forensics diagnose --log log --signal 2");
    shell.env(
        "PATH",
        std::env::join_paths([
            Path::new(BINARY).parent().unwrap(),
            Path::new("/usr/bin"),
            Path::new("/bin"),
        ])
        .unwrap(),
    );
    let log = sandbox.diagnosed(shell);
    assert!(!log.contains("cut off"), "{log}");
    assert_holds(&log, &["=== shutdown diagnostic @ SIGINT ==="]);
    let processes = section(&log, "processes");
    assert_holds(processes[0], &["%CPU", "%MEM", "ELAPSED COMMAND"]);
    assert!(processes.len() > 3, "{processes:#?}");
}

/// R:HIDEPID. FIELD-BUGS rows 31 and 83: what is hidden says why.
#[test]
fn what_is_hidden_says_why() {
    let Some(words) = nobody_with_hidepid() else {
        return skipped("needs root, and leave to mount /proc");
    };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let mut command = sandbox.within(words);
    command.arg(&binary);
    command.args(["forensics", "diagnose", "--log", "log", "--pid", "1"]);
    let log = sandbox.diagnosed(command);
    let processes = section(&log, "processes").join("\n");
    assert_holds(&processes, &["hidepid=", "processes of other users may be hidden)"]);
    let tree = section(&log, "process tree of pid 1").join("\n");
    assert_holds(&tree, &["unavailable: pid 1: /proc is mounted with hidepid="]);
}

/// Inside a `run` the subject is that run; a store that is no store keeps nobody from looking.
#[test]
fn the_subject_is_the_run_we_are_in() {
    let Some(sandbox) = Sandbox::with_fakes() else { return };
    sandbox.fake("ps", "").fake("dmesg", "");
    let script = format!("PATH=bin {BINARY} forensics diagnose --log log; exec cat");
    let mut run =
        Process::start(sandbox.incumbent(["run", "--no-backoff", "--", "/bin/sh", "-c", &script]));
    let pid = run.line().parse().unwrap();
    let log = sandbox.diagnostic(pid);
    assert_holds(
        &log,
        &[&format!("of pid {}, written by pid {pid}", run.pid()), &format!("> {:>7} ", run.pid())],
    );
    run.finish(LIMIT).assert_code(0);

    std::fs::write(sandbox.db(), "no store").unwrap();
    let log = sandbox.diagnosed(sandbox.diagnose_with_fakes(&[]));
    assert_holds(&log, &[&format!("of pid {},", std::process::id())]);
}
