//! SQLite alone opens the database, and only where locks work.

use std::process::Command;

use super::{QUESTIONS, START, as_json};
use crate::support::{BINARY, LIMIT, Process, Sandbox, has, skipped, works};

/// FIELD-BUGS rows 72 and 73.
///
/// Symptom: corruption and lost rows. Cause: the process opened and closed the database beside
/// SQLite (a header check, a copy, a chmod by descriptor), which drops all its POSIX locks. It
/// holds because nothing but SQLite opens the three files: each open bears SQLite's own flags.
#[test]
fn only_sqlite_opens_the_database() {
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let trace = sandbox.file("trace");
    let traced = |mut inner: Command| {
        let mut command = sandbox.program("strace");
        command.args(["-f", "-s", "4096", "-e", "trace=open,openat,openat2,creat", "-o"]);
        command.arg(&trace).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        inner.stdin(std::process::Stdio::null());
        command
    };
    let mut seen = 0;
    let mut check = |what: &str| {
        for line in std::fs::read_to_string(&trace).unwrap().lines() {
            let Some((_, rest)) = line.split_once("state.db") else { continue };
            let is_database =
                ["\"", "-wal\"", "-shm\"", "-journal\""].iter().any(|end| rest.starts_with(end));
            if is_database {
                seen += 1;
                let is_sqlites = line.contains("O_CLOEXEC") && line.contains("O_NOFOLLOW");
                assert!(is_sqlites, "{what}: {line}");
            }
        }
        std::fs::remove_file(&trace).unwrap();
    };
    let own_pid = std::process::id().to_string();
    for verb in [
        START,
        START,
        // The parent would be strace.
        &["claim", "--no-keeper", "--pid", &own_pid],
        &["evict"],
        QUESTIONS[0],
        QUESTIONS[1],
        QUESTIONS[2],
        QUESTIONS[3],
    ] {
        let answer = Process::start(traced(sandbox.incumbent(verb))).finish(LIMIT);
        assert!(matches!(answer.code(), 0 | 3 | 75), "{answer:#?}");
        check(&format!("{verb:?}"));
    }
    let role = sandbox.role_command(
        crate::claims::library::gateway::ROLE_TEST,
        crate::claims::library::gateway::GATEWAY,
    );
    let mut gateway = Process::start(traced(role));
    for order in ["open", "claim a", "open", "claim a", "verify", "status a", "release", "close"] {
        crate::support::ask(&mut gateway, order);
    }
    gateway.finish(LIMIT).assert_code(0);
    check("the library");
    assert!(seen > 20, "the trace shows only {seen} opens");
}

/// FIELD-BUGS row 76, with faults injected into the system call itself.
///
/// Symptom: two owners where locks are emulated. Cause: "cannot lock" was taken for "is mine", or a
/// lock that excludes nobody was believed. It holds because every answer of the kernel but "yes" is
/// a refusal, and the anchor is tried out with a second descriptor.
#[test]
fn where_locks_do_not_work_nothing_starts() {
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    for fault in ["error=ENOLCK", "error=EBADF", "error=ENOSYS", "retval=0"] {
        let sandbox = Sandbox::new();
        let mut command = sandbox.program("strace");
        command.args(["-f", "-o", "/dev/null", "-e", "trace=flock"]);
        command.arg("-e").arg(format!("inject=flock:{fault}")).arg(BINARY).args(as_json(START));
        let answer = Process::start(command).finish(LIMIT);
        assert!(matches!(answer.code(), 70 | 78), "{fault}: {answer:#?}");
        let error = answer.json()["error"].clone();
        assert_eq!(error["kind"], "filesystem", "{fault}: {error:#}");
        assert!(error["message"].as_str().unwrap().contains("locks"), "{fault}: {error:#}");
        assert!(error["hint"].is_string(), "{fault}: {error:#}");
        assert_eq!(sandbox.number("SELECT count(*) FROM instances"), 0, "{fault}");
        assert_eq!(sandbox.anchor_names(), [""; 0], "{fault}");
    }
}
