//! What a command last wrote to its standard error is kept, and passed on as without us. More of it
//! is in `options.rs`.

use std::io::Read;
use std::process::Stdio;

use crate::support::{LIMIT, Process, Sandbox, eventually, has, skipped};

/// Symptom: the last lines were not on record where standard error is read slowly. Cause: whoever
/// reads the pipe of the command waited to write. It holds because somebody else writes.
#[test]
fn a_slow_reader_costs_no_last_line() {
    let sandbox = Sandbox::new();
    // More than fits into the pipe of the test, which nobody reads.
    let script = "echo up; head -c 90000 /dev/zero | tr '\\0' x >&2; echo >&2; \
                  echo last words >&2; exit 3";
    let (reader, writer) = std::io::pipe().unwrap();
    let words = ["run", "--no-backoff", "--keep-stderr=1", "--", "sh", "-c", script];
    let mut run = Process::start_with_stderr(sandbox.incumbent(words), Stdio::from(writer));
    run.line();
    let end = eventually("an end on record", LIMIT, || {
        sandbox.history().into_iter().find(|it| it["end_reason"].is_string())
    });
    assert_eq!(end["detail"], "stderr: last words", "{end:#}");
    drop(reader);
    assert_eq!(crate::support::exit_code(run.wait(LIMIT)), 3);
}

/// Symptom: lines were lost where somebody has made our standard error one that does not wait
/// (Node.js does so). It holds because what cannot be written now is tried again.
#[test]
fn standard_error_that_does_not_wait_is_waited_for() {
    let sandbox = Sandbox::new();
    let script = "head -c 300000 /dev/zero | tr '\\0' x >&2";
    let (mut reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let words = ["run", "--no-backoff", "--keep-stderr", "--", "sh", "-c", script];
    let run = Process::start_with_stderr(sandbox.incumbent(words), Stdio::from(writer));
    // It is full by then, but for less than a page.
    eventually("a full pipe", LIMIT, || {
        (rustix::io::ioctl_fionread(&reader).unwrap() > 60_000).then_some(())
    });
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert_eq!(all.len(), 300_000, "{:?}", all.trim_matches('x'));
    run.finish(LIMIT).assert_code(0);
}

/// Symptom: what a command leaves behind was killed by SIGPIPE when it wrote its next line. Cause:
/// the run had read its pipe, and was gone. It holds because a `cat` reads on, for as long.
#[test]
fn who_outlives_the_run_writes_on() {
    const SCRIPT: &str = "
        setsid sh -c ': > up; until [ -e go ]; do sleep 0.01; done; echo more >&2; echo end >&2' \\
            < /dev/null > /dev/null &
        until [ -e up ]; do sleep 0.01; done
        echo mine >&2; exit 3";
    if !has("setsid") {
        return skipped("needs setsid");
    }
    let sandbox = Sandbox::new();
    let words = ["run", "--no-backoff", "--keep-stderr", "--", "sh", "-c", SCRIPT];
    let mut run = Process::start(sandbox.incumbent(words));
    assert_eq!(crate::support::exit_code(run.wait(LIMIT)), 3);
    assert_eq!(sandbox.history()[0]["detail"], "stderr: mine");
    std::fs::write(sandbox.file("go"), "").unwrap();
    run.err_line_with("more");
    run.err_line_with("end");
    assert_eq!(run.err_line_with_or_end("nothing"), None, "nobody keeps it open then");
}

/// A secret that lies where what is kept begins is taken out as a whole.
#[test]
fn no_half_of_a_secret_is_kept() {
    const SECRET: &str = "bot123456:AAEhBP0av28xKq91mZ7ttyQwe42Lp0";
    /// Of the secret, where it was cut before anybody looked for it.
    const HALF: &str = "7ttyQwe42Lp0";
    /// See `run/stderr.rs`.
    const KEPT_MAX: usize = 16 * 1024;
    let sandbox = Sandbox::new();
    assert!(SECRET.ends_with(HALF), "the test itself");
    let after = KEPT_MAX - HALF.len() - 1;
    let script = format!("echo {SECRET} >&2; head -c {after} /dev/zero | tr '\\0' y >&2");
    let words = ["run", "--no-backoff", "--keep-stderr=9", "--", "sh", "-c", &script];
    sandbox.cli(words).assert_code(0);
    let end = &sandbox.history()[0];
    let detail = end["detail"].as_str().unwrap();
    assert!(detail.ends_with("yyy") && !detail.contains(HALF), "{detail:.60}");
}
