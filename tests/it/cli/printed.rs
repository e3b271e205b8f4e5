//! What is printed: an answer that is lost decides nothing, nothing that somebody wrote is obeyed
//! by a terminal, advice can be pasted, and bytes are not lost. The exit codes in all conditions
//! are in `conditions`.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{LIMIT, Process, Sandbox, exit_code, has, skipped, wait_ended};

/// Clears a screen, names a window, and begins a line of its own.
const EVIL: &str = "x\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}1A\r\nincumbent: all is well";

/// Whether a terminal would obey any of it.
fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() && c != '\n')
}

/// The exit code of `command`, with `out` as its standard output.
#[track_caller]
fn code_onto(mut command: Command, out: impl Into<Stdio>) -> i32 {
    let mut child = command.stdout(out).spawn().unwrap();
    assert!(wait_ended(child.id(), LIMIT), "{command:?} has not ended");
    exit_code(child.wait().unwrap())
}

fn full_disk() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn unread() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

/// FIELD-BUGS row 102. A stream that somebody has stopped reading is over: 0; one that is cut off
/// by a full disk must not look whole: 70.
#[test]
fn a_stream_ends_well_with_its_reader_and_badly_with_the_disk() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    for format in [&[][..], &["--json"]] {
        let follow = || sandbox.incumbent([format, &["events", "--follow"]].concat());
        assert_eq!(code_onto(follow(), unread()), 0, "{format:?}");
        let told = sandbox.file("told");
        let mut cut_off = follow();
        cut_off.stderr(File::create(&told).unwrap());
        assert_eq!(code_onto(cut_off, full_disk()), 70, "{format:?}");
        // Once, and with what to do: not a second time for the document that could not be written
        // either.
        let told = std::fs::read_to_string(told).unwrap();
        assert_eq!(told.matches("cannot write").count(), 1, "{format:?}: {told}");
        assert!(told.contains("try:   free some disk space"), "{format:?}: {told}");
    }
}

/// FIELD-BUGS row 102. The grant stands although nobody could be told its fence, and who looks
/// finds it.
#[test]
fn a_grant_that_nobody_could_be_told_is_a_grant() {
    let sandbox = Sandbox::new();
    let target = Process::start(sandbox.program("cat"));
    let pid = target.pid().to_string();
    for (id, out) in [("a", Stdio::from(unread())), ("b", full_disk().into())] {
        let acquire = sandbox.incumbent(["--json", "lock", "acquire", "t", id, "--pid", &pid]);
        assert_eq!(code_onto(acquire, out), 0);
        sandbox.cli(["lock", "verify", "t", id, "--pid", &pid]).assert_code(0);
    }
    // The refusal is one, too, and nobody takes it for a grant: who holds it is said where it may
    // be heard.
    let other = Process::start(sandbox.program("cat"));
    let other = other.pid().to_string();
    for out in [Stdio::from(unread()), full_disk().into()] {
        let mut acquire =
            sandbox.incumbent(["--json", "lock", "acquire", "t", "a", "--pid", &other]);
        acquire.stderr(File::create(sandbox.file("told")).unwrap());
        assert_eq!(code_onto(acquire, out), 75);
        let told = std::fs::read_to_string(sandbox.file("told")).unwrap();
        assert!(told.contains(&format!("pid {pid}")), "{told:?}");
    }
}

/// Symptom: an argument, a path or a cell with an escape sequence cleared the screen of the person
/// who read the message, and a line feed in it began a line that looked like one of ours.
#[test]
fn what_somebody_wrote_is_shown_and_not_obeyed() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    let place = sandbox.file(EVIL).join("state.db");
    let db = place.to_str().unwrap();
    let missing = sandbox.file(EVIL);
    let missing = missing.to_str().unwrap();
    let query = format!("SELECT '{EVIL}' AS '{EVIL}'");
    let cases: &[&[&str]] = &[
        &[EVIL],
        &["status", EVIL],
        &["run", "--wait", EVIL, "--", "true"],
        &["run", "--supervisor", EVIL, "--", "true"],
        &["run", "--exit-code", EVIL, "--", "true"],
        &["status-set", "--retrying-since", EVIL, "--platform", "p"],
        &["status-set", "--clear", EVIL],
        &["completions", EVIL],
        &["claim", "--pid", EVIL],
        &["--profile", EVIL, "status"],
        &["--kind", EVIL, "status"],
        &["--home", missing, "claim"],
        &["--db", db, "sql", "SELECT 1"],
        &["--db", db, "status-set", "--state", "running"],
        &["import", missing],
        &["lock", "verify", EVIL, "id"],
        &["run", "--", EVIL],
        &["sql", EVIL],
        &["sql", &query],
    ];
    for case in cases {
        for format in [&[][..], &["--json"]] {
            let answer = sandbox.cli([format, case].concat());
            let all = format!("{}{}", answer.out, answer.err);
            assert!(!all.is_empty() && is_plain(&all), "{case:?}: {answer:#?}");
            // In a table of several lines a cell may have several, too.
            let is_a_line = all.lines().any(|line| line.starts_with("incumbent: all is well"));
            assert!(case[0] == "sql" || !is_a_line, "{case:?}: {answer:#?}");
        }
    }
    // Data is data: byte for byte, except for a person.
    let csv = ["sql", "--csv", "SELECT 'a\u{1b}[2J'"];
    let answer = sandbox.cli(csv);
    assert!(answer.out.contains("a\u{1b}[2J"), "{answer:#?}");
    if !has("script") {
        return skipped("the half that needs script(1) of util-linux");
    }
    let mut shown = sandbox.program("script");
    shown.args(["-qec", r#"incumbent sql --csv "SELECT 'a' || char(27) || '[2J'""#, "/dev/null"]);
    let shown = Process::start(shown).finish(LIMIT).out;
    assert!(shown.contains("a\\u{1b}[2J"), "{shown:?}");
}

/// Two paths that are not UTF-8 looked alike in every document.
#[test]
fn a_path_keeps_its_bytes() {
    let sandbox = Sandbox::new();
    let path = |name: &[u8]| {
        let mut command = sandbox.incumbent(["--json"]);
        command.arg("path").arg("--db").arg(sandbox.path().join(OsStr::from_bytes(name)));
        Process::start(command).finish(LIMIT).assert_code(0).json()
    };
    let (one, other) = (path(b"s\xff.db"), path(b"s\xfe.db"));
    assert_eq!(one["path"], other["path"]);
    assert_ne!(one["path_bytes"], other["path_bytes"]);
    assert!(one["path_bytes"].as_str().unwrap().ends_with("73ff2e6462"), "{one:#}");
    // What JSON can say needs no second form.
    assert_eq!(path("s\u{e4}.db".as_bytes())["path_bytes"], Value::Null);
    // An error says where it happened in the same way.
    let mut command = sandbox.incumbent(["--json", "sql", "SELECT 1", "--db"]);
    command.arg(sandbox.path().join(OsStr::from_bytes(b"s\xff.db")));
    let error = Process::start(command).finish(LIMIT).assert_code(2).json();
    assert_eq!(error["error"]["path_bytes"], one["path_bytes"], "{error:#}");
}

/// A variable, its value, what is set beside it, the verb, the way out.
type Case<'a> = (&'a str, &'a str, Option<(&'a str, &'a str)>, &'a [&'a str], &'a str);

/// What started us may have set it in a unit file that the reader of the message has never seen.
#[test]
fn a_bad_variable_is_named_and_how_to_do_without_it() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    std::fs::write(sandbox.file("text"), "shopping list").unwrap();
    let text = sandbox.file("text");
    let text = text.to_str().unwrap();
    let run = ("INCUMBENT_INSTANCE", "1");
    let token = ("INCUMBENT_TOKEN", "00000000000000000000000000000000");
    let cases: &[Case] = &[
        ("INCUMBENT_PROFILE", "a/b", None, &["status"], "--profile NAME"),
        ("INCUMBENT_PROFILE", "a/b", None, &["run", "--", "true"], "--profile NAME"),
        ("INCUMBENT_HOME", "/nowhere", None, &["run", "--", "true"], "--home DIR"),
        ("INCUMBENT_HOME", text, None, &["claim"], "--home DIR"),
        ("INCUMBENT_HOME", "/nowhere", None, &["stop"], "--home DIR"),
        ("INCUMBENT_DB", text, None, &["status"], "--db PATH"),
        ("INCUMBENT_DB", "/", None, &["path"], "--db PATH"),
        ("INCUMBENT_DB", "/nowhere/x.db", None, &["sql", "SELECT 1"], "--db PATH"),
        ("INCUMBENT_DB", "/proc/x/x.db", None, &["run", "--", "true"], "--db PATH"),
        ("INCUMBENT_INSTANCE", "x", Some(token), &["claim"], "as the `run`"),
        ("INCUMBENT_TOKEN", "x", Some(run), &["lock", "verify", "a", "b"], "as the `run`"),
    ];
    for (name, value, beside, verb, instead) in cases {
        let mut command = sandbox.incumbent(*verb);
        command.env(name, value).envs(*beside);
        let answer = Process::start(command).finish(LIMIT);
        assert_ne!(answer.code(), 0, "{answer:#?}");
        let (from, unset) = (format!("(from {name})"), format!("`unset {name}`"));
        answer.assert_complains(&["incumbent: ", &from, "try:", &unset, instead]);
    }
    // What was said on the command line is no variable's fault.
    let mut command = sandbox.incumbent(["--profile", "a/b", "status"]);
    command.env("INCUMBENT_PROFILE", "c/d");
    let answer = Process::start(command).finish(LIMIT).assert_code(2);
    assert!(!answer.err.contains("INCUMBENT_"), "{answer:#?}");
}

/// The commands in backticks in `text`.
fn commands(text: &str) -> Vec<&str> {
    let pieces = text.split('`').skip(1).step_by(2);
    pieces.filter(|piece| piece.starts_with("incumbent ")).collect()
}

/// Symptom: the advice was pasted, and stopped another profile's gateway, or asked another store.
#[test]
fn advice_can_be_pasted() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.file("it's here")).unwrap();
    let place = sandbox.file("it's here/state.db");
    let global = ["--db", place.to_str().unwrap(), "--profile", "work", "--kind", "bot"];
    let ask = |words: &[&str]| sandbox.cli([&global[..], words].concat());
    let hold = [&global[..], &["run", "--no-backoff", "--", "/bin/sh", "-c", "echo $$; exec cat"]];
    let run = crate::support::Run::start(sandbox.incumbent(hold.concat()));
    // Who claims for a process that runs already is not told to start another one.
    let refusals: &[(&[&str], usize)] =
        &[(&["run", "--", "true"], 3), (&["evict"], 3), (&["claim"], 1)];
    for (verb, least) in refusals {
        let refused = ask(verb).assert_code(75);
        let advised = commands(&refused.err);
        assert!(advised.len() >= *least, "{refused:#?}");
        for command in advised {
            let words = ["--db '", "--profile work", "--kind bot"];
            assert!(words.iter().all(|word| command.contains(word)), "{command}: {refused:#?}");
        }
    }
    let refused = ask(&["evict"]);
    let stop = commands(&refused.err).into_iter().find(|it| it.contains(" stop")).unwrap();
    Process::start(sandbox.shell(stop)).finish(LIMIT).assert_code(0);
    run.end();
    assert_eq!(ask(&["status"]).code(), 3);
    // A hint in a document is for the program that shows it to a person.
    let (code, document) =
        sandbox.json(["--db", sandbox.file("a b").to_str().unwrap(), "sql", "SELECT 1"]);
    let hint = document["error"]["hint"].as_str().unwrap();
    assert!(code == 2 && hint.contains("/a b' run -- CMD`"), "{document:#}");
    assert!(hint.contains("`incumbent --db '"), "{document:#}");
}

/// The environment may mean another profile than the default: advice about the default names it.
#[test]
fn advice_holds_beside_a_variable() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let mut refused = sandbox.incumbent(["--profile", "default", "run", "--", "true"]);
    refused.env("INCUMBENT_PROFILE", "other");
    let refused = Process::start(refused).finish(LIMIT).assert_code(75);
    let stop = commands(&refused.err).into_iter().find(|it| it.contains(" stop")).unwrap();
    let mut pasted = sandbox.shell(stop);
    pasted.env("INCUMBENT_PROFILE", "other");
    Process::start(pasted).finish(LIMIT).assert_code(0);
    run.end();
    sandbox.assert_status(3, "dead", "planned_stop");
}

/// Only one of the two forms was shown, and the other one could not be guessed.
#[test]
fn usage_shows_both_forms() {
    let sandbox = Sandbox::new();
    for (verb, forms) in [
        (
            &["lock", "release"][..],
            ["lock release [OPTIONS] <SCOPE>", "lock release [OPTIONS] --all"],
        ),
        (&["unlock"], ["unlock [OPTIONS] <SCOPE>", "unlock [OPTIONS] --stale"]),
    ] {
        sandbox.cli(verb).assert_code(2).assert_complains(&forms);
        let (code, document) = sandbox.json(verb);
        let hint = document["error"]["hint"].as_str().unwrap();
        assert!(code == 2 && forms.iter().all(|form| hint.contains(form)), "{document:#}");
    }
}

/// Arguments that are wrong may say no verb, and the message has no gap in its place.
#[test]
fn an_error_without_a_verb_names_none() {
    let sandbox = Sandbox::new();
    let answer = Process::start(sandbox.shell("exec incumbent --json nonsense > /dev/full"));
    let answer = answer.finish(LIMIT).assert_code(2);
    answer.assert_complains(&["incumbent: unrecognized", "incumbent: cannot write"]);
}

/// Symptom: a `run` ended with 125, and nobody could find out why.
#[test]
fn a_trampoline_that_gives_up_says_why() {
    let sandbox = Sandbox::new();
    for (script, why) in [
        // A pipe that cannot be written to; the shell is the parent as long as it does not exec.
        ("incumbent __trampoline 3 $$ '' true 3</dev/null; exit $?", "cannot write to the pipe"),
        ("incumbent __trampoline 7 $$ '' true; exit $?", "cannot use the pipe to its run"),
        ("incumbent __trampoline 3 1 '' true 3</dev/null; exit $?", "that started it has ended"),
        ("incumbent __trampoline; exit $?", "an internal command of `incumbent run`"),
    ] {
        let answer = Process::start(sandbox.shell(script)).finish(LIMIT).assert_code(125);
        answer.assert_complains(&["the command was not started", why]);
    }
}
