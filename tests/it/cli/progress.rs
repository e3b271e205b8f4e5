//! What a verb says while it waits: on a terminal, or where `--progress` asks for it.

use rusqlite::Connection;

use crate::support::{LIMIT, Process, START, Sandbox, eventually, has, skipped, sleeper};

/// Symptom: `run --wait` and `stop` were silent for minutes, and were taken for hanging. Each says
/// for whom it waits, and how long at most.
#[test]
fn who_waits_says_so_where_it_is_asked_to() {
    const HOLDER: &str = "default/gateway (pid HOLDER)";
    for (verb, at_most, words) in [
        ("run --no-backoff --wait=10min -- true", "10 min", "waiting for HOLDER"),
        ("run --no-backoff --replace -- true", "60 min", "taking over from HOLDER"),
        ("stop --timeout 10min", "10 min", "waiting for HOLDER to stop"),
        ("stop --all --timeout 10min", "10 min", "waiting for HOLDER to stop"),
        ("restart --timeout 10min", "10 min", "waiting for HOLDER to start again"),
        ("restart --all --timeout 10min", "10 min", "waiting for HOLDER to start again"),
    ] {
        let sandbox = Sandbox::new();
        // It ignores TERM.
        let run = sandbox.patient(&["--stop-budget", "1h"]);
        let holder = HOLDER.replace("HOLDER", &run.pid().to_string());
        let verb: Vec<&str> = verb.split(' ').collect();
        let mut waiting = Process::start(sandbox.incumbent([&["--progress"], &verb[..]].concat()));
        let words = words.replace("HOLDER", &holder);
        let line = waiting.err_line_with(&format!(" s of at most {at_most}, {words}"));
        assert!(line.starts_with(&format!("incumbent: {}: ", verb[0])), "{line}");
        assert!(line.ends_with(&words), "{line}");
        drop(run);
    }
}

/// A lock has no time of its own.
#[test]
fn who_waits_for_a_lock_says_so() {
    let sandbox = Sandbox::new();
    let (owner, other) = (sleeper(&sandbox), sleeper(&sandbox));
    let [one, two] = [&owner, &other].map(|process| process.pid().to_string());
    sandbox.cli(["lock", "acquire", "s", "i", "--pid", &one]).assert_code(0);
    let verb = ["--progress", "lock", "acquire", "s", "i", "--pid", &two, "--wait"];
    let mut waiting = Process::start(sandbox.incumbent(verb));
    let line = waiting.err_line_with(&format!(", held by pid {one}"));
    assert!(line.starts_with("incumbent: lock acquire: "), "{line}");
    assert!(line.contains(" s, waiting for s/"), "{line}");
    assert!(!line.contains("at most"), "{line}");
    sandbox.cli(["lock", "release", "s", "i", "--pid", &one]).assert_code(0);
    waiting.finish(LIMIT).assert_code(0);
}

/// The same verb says nothing of it in a pipe.
#[test]
fn nothing_is_said_in_a_pipe() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    // Longer than until the first word.
    let refused = sandbox.cli(["run", "--no-backoff", "--wait=2s", "--", "true"]).assert_code(75);
    assert!(!refused.err.contains("waiting for"), "{refused:#?}");
    run.end().assert_code(0);
}

/// Verbs that take their time because the store is locked.
#[test]
fn a_repair_and_an_import_say_what_they_do() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    let older = sandbox.file("older");
    std::fs::create_dir(&older).unwrap();
    std::fs::write(older.join("gateway.pid"), "4194305").unwrap();
    let connection = Connection::open(sandbox.db()).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (verb, words) in [
        (&["doctor", "--fix"][..], " s, repairing "),
        (&["import", "older"], " s, importing older"),
    ] {
        let mut process = Process::start(sandbox.incumbent([&["--progress"], verb].concat()));
        process.err_line_with(words);
    }
    connection.execute_batch("ROLLBACK").unwrap();
}

/// On a terminal it is one line, which is drawn again and gone at the end.
#[test]
fn a_terminal_shows_one_line_that_goes() {
    const CLEAR: &str = "\r\u{1b}[2K";
    const WORDS: &str = " of at most 4 s, waiting for default/gateway";
    if !has("script") {
        return skipped("needs script(1) of util-linux");
    }
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    let run = sandbox.hold(&[]);
    let mut command = sandbox.program("script");
    let line = "incumbent run --no-backoff --wait=4s -- true";
    command.args(["-qec", line, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "xterm");
    let shown = Process::start(command).finish_with_stdin_open(LIMIT).assert_code(75).out;
    let drawn = shown.matches(WORDS).count();
    assert!(drawn >= 2, "{shown:?}");
    let last = shown.rfind(WORDS).unwrap();
    // It is taken away before the answer.
    let (_, after) = shown[last..].split_once(CLEAR).unwrap();
    assert!(after.starts_with("incumbent: run: default/gateway is held by"), "{after:?}");
    run.end().assert_code(0);
}

/// Symptom: after Ctrl-C the prompt of the shell stood behind half of our line.
#[test]
fn a_key_that_ends_a_wait_leaves_no_line() {
    const CLEAR: &str = "\r\u{1b}[2K";
    const WORDS: &str = " of at most 10 min, waiting for default/gateway";
    if !has("script") {
        return skipped("needs script(1) of util-linux");
    }
    let sandbox = Sandbox::new();
    let _run = sandbox.patient(&["--stop-budget", "1h"]);
    for (key, code) in [("\u{3}", 130), ("\u{1c}", 131)] {
        let mut command = sandbox.program("script");
        let line = "trap : INT QUIT; ulimit -c 0; incumbent stop --timeout 10min; echo code $?";
        command.args(["-qfec", line, "shown"]).env("SHELL", "/bin/sh").env("TERM", "xterm");
        // That of the key before is no line of this one.
        let _ = std::fs::remove_file(sandbox.file("shown"));
        let mut terminal = Process::start(command);
        let shown = || std::fs::read_to_string(sandbox.file("shown")).unwrap_or_default();
        eventually("a line", LIMIT, || shown().contains(WORDS).then_some(()));
        terminal.write(key);
        terminal.finish_with_stdin_open(LIMIT).assert_code(0);
        let shown = shown();
        let after = &shown[shown.rfind(WORDS).unwrap()..];
        let (_, left) = after.rsplit_once(CLEAR).unwrap_or_else(|| panic!("{shown:?}"));
        // What is said of the wait comes after it; Dash names SIGQUIT.
        assert!(!left.contains(WORDS), "{shown:?}");
        assert!(left.contains(&format!("code {code}\r\n")), "{shown:?}");
    }
}
