//! What `unit` prints, read by whom it is for, or by the parser that is nearest: nothing that a
//! command line may hold is changed on the way.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command;

use serde_json::{Value, json};

use super::files_of;
use crate::support::{
    BINARY, LIMIT, Process, Sandbox, UserManager, eventually, has, keys, skipped,
};

/// What means something to a shell, to systemd, in XML, in JSON or in a Dockerfile.
const NASTY: &[&str] = &[
    "",
    " ",
    "a  b ",
    "\"",
    "'",
    "it's \"both\"",
    "\\",
    "\\\\\"",
    "ends with \\",
    "\\n",
    "\\x41",
    "$HOME",
    "${HOME}",
    "a${HOME}b",
    "$",
    "$$",
    "%n",
    "%%",
    "100 %",
    "%",
    ";",
    "\\;",
    "a;b",
    "#x",
    "-",
    "--",
    "-x=y",
    "a=b",
    "*",
    "~",
    "!",
    "{a,b}",
    "`id`",
    "$(id)",
    "&&",
    "<a href=\"x\">&amp;]]></a>",
    "one\ntwo",
    "tab\there",
    "\r",
    "caf\u{e9} \u{1f980}",
    "\u{202e}",
    "\u{7f}\u{85}",
];

/// What no property list can hold.
const CONTROL: &[&str] = &["\u{1}", "\u{1b}[2J"];

/// Prints a unit for a program that is to be told these words.
fn print(sandbox: &Sandbox, supervisor: &str, words: &[&OsStr]) -> Process {
    let program = sandbox.write_script("listener", LISTENER);
    let mut command = sandbox.incumbent(["--json", "unit", supervisor, "--name", "gw"]);
    command.arg("--program").arg(program).args(["--", "/bin/true"]).args(words);
    Process::start(command)
}

/// Writes down its arguments, with a NUL after each, in the file `words` beside it.
const LISTENER: &str = r#"#!/bin/sh
for word; do printf '%s\0' "$word"; done > "$0.words.new"
mv "$0.words.new" "$0.words"
"#;

/// What the listener was told after `--` and the program.
#[track_caller]
fn told(sandbox: &Sandbox) -> Vec<OsString> {
    let words =
        eventually("the listener", LIMIT, || std::fs::read(sandbox.file("listener.words")).ok());
    let words = words.strip_suffix(b"\0").unwrap().split(|byte| *byte == 0);
    let words: Vec<_> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
    after_the_command(&words)
}

#[track_caller]
fn after_the_command(words: &[OsString]) -> Vec<OsString> {
    let at = words.iter().position(|word| word == "--").expect("a `--` before the command");
    assert_eq!(words[at + 1], "/bin/true");
    words[at + 2..].to_vec()
}

fn nasty() -> Vec<&'static OsStr> {
    NASTY.iter().map(OsStr::new).collect()
}

fn nasty_and_control() -> Vec<&'static OsStr> {
    NASTY.iter().chain(CONTROL).map(OsStr::new).collect()
}

/// The contents of the file number `nth` of a document.
fn text(document: &Value, nth: usize) -> &str {
    document["files"][nth]["text"].as_str().unwrap()
}

#[test]
fn systemd_tells_the_command_what_was_said() {
    let sandbox = Sandbox::new();
    let Some(manager) = UserManager::start(&sandbox) else { return };
    let words = nasty_and_control();
    let document = print(&sandbox, "systemd", &words).finish(LIMIT).assert_code(0).json();
    manager.install("gw.service", text(&document, 0));
    manager.systemctl(["start", "gw"]).assert_code(0);
    assert_eq!(told(&sandbox), words);
}

/// Both as a script is read and as it is executed; also bytes that are no text.
#[test]
fn a_shell_tells_the_command_what_was_said() {
    let sandbox = Sandbox::new();
    let mut words = nasty_and_control();
    words.push(OsStr::from_bytes(b"latin-1: \xe9\xff'"));
    let document = print(&sandbox, "s6", &words).finish(LIMIT).assert_code(0).json();
    for (file, contents) in files_of(&document) {
        if file != "gw/timeout-kill" {
            sandbox.write_script(&file, contents);
            let mut check = sandbox.program("/bin/sh");
            check.args(["-n", file.as_str()]);
            Process::start(check).finish(LIMIT).assert_code(0);
        }
    }
    Process::start(sandbox.program(sandbox.file("gw/run"))).finish(LIMIT).assert_code(0);
    assert_eq!(told(&sandbox), words);
    // A shell that reads it, whatever its first line says.
    for shell in ["sh", "bash", "dash", "zsh", "ksh"].into_iter().filter(|shell| has(shell)) {
        std::fs::remove_file(sandbox.file("listener.words")).unwrap();
        let mut run = sandbox.program(shell);
        run.arg("gw/run");
        Process::start(run).finish(LIMIT).assert_code(0);
        assert_eq!(told(&sandbox), words, "{shell}");
    }
}

#[test]
fn a_property_list_says_what_was_said() {
    const READ: &str = "
import json, plistlib, sys
print(json.dumps(plistlib.loads(sys.stdin.buffer.read())))";
    if !has("python3") {
        return skipped("needs python3");
    }
    let sandbox = Sandbox::new();
    let words = nasty();
    let document = print(&sandbox, "launchd", &words).finish(LIMIT).assert_code(0).json();
    let mut read = sandbox.program("python3");
    read.args(["-c", READ]);
    let mut read = Process::start(read);
    read.write(text(&document, 0));
    let list = read.finish(LIMIT).assert_code(0).json();
    let arguments = list["ProgramArguments"].as_array().unwrap();
    let arguments: Vec<OsString> =
        arguments.iter().map(|word| word.as_str().unwrap().into()).collect();
    assert_eq!(after_the_command(&arguments), words);
    assert_eq!(list["Label"], "gw");
    assert_eq!(list["KeepAlive"], json!({"SuccessfulExit": false}));
    assert_eq!((&list["RunAtLoad"], &list["ExitTimeOut"]), (&json!(true), &json!(90)));

    for word in CONTROL {
        let answer = print(&sandbox, "launchd", &[OsStr::new(word)]).finish(LIMIT);
        let error = answer.assert_code(2).json();
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("a property list cannot hold"), "{message}");
    }
}

#[test]
fn an_entrypoint_says_what_was_said() {
    let sandbox = Sandbox::new();
    let words = nasty_and_control();
    let document = print(&sandbox, "docker", &words).finish(LIMIT).assert_code(0).json();
    let lines: Vec<&str> = text(&document, 0).lines().collect();
    let entrypoints: Vec<&str> =
        lines.iter().filter_map(|line| line.strip_prefix("ENTRYPOINT ")).collect();
    let [entrypoint] = entrypoints.as_slice() else { panic!("{lines:#?}") };
    let arguments: Vec<String> = serde_json::from_str(entrypoint).unwrap();
    let arguments: Vec<_> = arguments.into_iter().map(OsString::from).collect();
    assert_eq!(after_the_command(&arguments), words);
    // An instruction goes on after a backslash at its end.
    assert!(lines.iter().all(|line| !line.ends_with('\\')), "{lines:#?}");
}

/// Where the file cannot hold what is not text, nothing is printed.
#[test]
fn what_a_file_cannot_hold_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for supervisor in ["systemd", "launchd", "docker"] {
        let answer = print(&sandbox, supervisor, &[OsStr::from_bytes(b"\xff")]).finish(LIMIT);
        let error = answer.assert_code(2).json();
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("is not UTF-8"), "{supervisor}: {message}");
    }
}

/// systemd's own check finds nothing to say of it, and does find a mistake.
#[test]
fn systemd_accepts_what_is_printed() {
    if !has("systemd-analyze") {
        return skipped("needs systemd-analyze");
    }
    let sandbox = Sandbox::new();
    let verify = |files: &[(String, Vec<u8>)]| {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["--man=no", "verify"]);
        for (name, contents) in files {
            std::fs::write(sandbox.file(name), contents).unwrap();
            verify.arg(sandbox.file(name));
        }
        let answer = Process::start(verify).finish(LIMIT);
        // What it thinks of the machine's own units is nothing of ours.
        let lines = answer.err.lines().filter(|line| line.contains("gw."));
        (answer.code(), lines.map(str::to_owned).collect::<Vec<_>>())
    };
    let options: &[&[&str]] = &[
        &[],
        &["--stop-budget", "1h"],
        &["--type", "notify"],
        &["--listen", "127.0.0.1:8080", "--listen", "/run/gw.sock"],
        &["--type", "notify", "--listen", "8080"],
        &["--run-option=--wait=1min", "--run-option=--lock-env=token=TOKEN"],
        &["--profile", "work", "--kind", "bot", "--home", "/srv/gate way", "--db", "/srv/a b.db"],
    ];
    for options in options {
        let words = [&["systemd", "--name", "gw"][..], options, &["--", "sleep", "100 %"]].concat();
        let files = sandbox.unit(&words);
        assert_eq!(verify(&files), (0, Vec::new()), "{options:?}");
    }
    let mut files = sandbox.unit(&["systemd", "--name", "gw", "--", "sleep", "1"]);
    let text = String::from_utf8(files[0].1.clone()).unwrap();
    files[0].1 = text.replace("KillMode=mixed", "KillMode=sometimes").into_bytes();
    let (_, complaints) = verify(&files);
    assert!(complaints.iter().any(|line| line.contains("kill mode")), "{complaints:?}");
}

/// A unit has another environment and another directory than the shell that printed it.
#[test]
fn places_and_names_are_passed_on() {
    let sandbox = Sandbox::new();
    let line = |command: Command| {
        let out = Process::start(command).finish(LIMIT).assert_code(0).out;
        out.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap().to_owned()
    };
    std::fs::create_dir(sandbox.file("store")).unwrap();
    let db = sandbox.db().display().to_string();
    let rest = "run --supervisor systemd --stop-budget 90s --respect-desired -- ";

    // `INCUMBENT_DB` of a sandbox is not in the environment of a service.
    let printed = line(sandbox.incumbent(["unit", "systemd", "--", "/bin/true"]));
    assert_eq!(printed, format!("{BINARY} --db {db} {rest}/bin/true"));

    let mut command = sandbox.incumbent(["--home", "here", "--kind", "bot"]);
    command.args(["unit", "systemd", "--", "./gw", "here"]).env("INCUMBENT_PROFILE", "work");
    let here = sandbox.path().display();
    let expected = format!(
        "{BINARY} --db {db} --profile work --kind bot --home {here}/here {rest}{here}/gw here"
    );
    let mut answer = Process::start(command);
    assert!(answer.err_line_with("there is no program").contains(&format!("{here}/gw")));
    let out = answer.finish(LIMIT).assert_code(0).out;
    assert!(out.contains(&format!("\nExecStart={expected}\n")), "{out}");

    // Where nothing says otherwise, the unit's user has a store of his own.
    let mut command = sandbox.incumbent(["unit", "systemd", "--", "/bin/true"]);
    command.env_remove("INCUMBENT_DB");
    assert_eq!(line(command), format!("{BINARY} {rest}/bin/true"));

    // What is in an image cannot be seen from here.
    let words = ["--home", "here", "unit", "docker", "--", "gw"];
    let out = sandbox.cli(words).assert_code(0).out;
    let expected = "ENTRYPOINT [\"incumbent\", \"--home\", \"here\", \"run\", \"--supervisor\", \
                    \"docker\", \"--stop-budget\", \"90s\", \"--respect-desired\", \"--\", \"gw\"]";
    assert!(out.lines().any(|line| line == expected), "{out}");
    assert!(!sandbox.db().exists(), "a question made a store");
}

/// Several files: all of them with a name before each, one alone, and in JSON.
#[test]
fn several_files_are_told_apart() {
    let sandbox = Sandbox::new();
    let all = sandbox.cli(["unit", "s6", "--name", "gw", "--", "true"]).assert_code(0).out;
    for line in ["# ----- gw/run, mode 0755:", "# ----- gw/finish, mode 0755:"] {
        assert!(all.contains(line), "{all}");
    }
    let one = ["unit", "s6", "--name", "gw", "--file", "finish", "--", "true"];
    let finish = sandbox.cli(one).assert_code(0).out;
    assert!(finish.starts_with("#!/bin/sh\n") && all.contains(&finish), "{finish}");
    let (code, document) = sandbox.json(one);
    assert_eq!((code, text(&document, 0)), (0, finish.as_str()));
    assert_eq!(keys(&document), ["supervisor", "files", "warning"]);
    assert_eq!(keys(&document["files"][0]), ["name", "mode", "text"]);

    let file = ["unit", "s6", "--file", "start", "--", "true"];
    sandbox.cli(file).assert_code(2).assert_complains(&["no file", "run, finish, timeout-kill"]);
}

#[test]
fn what_no_supervisor_knows_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for (options, words) in [
        (&["cron"][..], &["systemd"][..]),
        (&["none"], &["one of systemd, launchd, s6, docker"]),
        (&["s6", "--type", "notify"], &["s6 does not support READY=1"]),
        (&["docker", "--listen", "80"], &["docker does not support sockets"]),
        (&["systemd", "--type", "oneshot"], &["`simple` or `notify`"]),
        (&["systemd", "--listen", "a b"], &["not the address of a socket"]),
        (&["systemd", "--name", "a b"], &["not the name of a systemd service"]),
        (&["systemd", "--name", "gw.timer"], &["not the name of a systemd service"]),
        (&["systemd", "--stop-budget", "61min"], &["too long"]),
        (&["systemd", "--program", "./incumbent"], &["systemd does not start"]),
        (&["systemd", "--run-option=--waits"], &["--run-option", "--waits"]),
        (&["systemd", "--run-option=--stop-budget=1s"], &["--stop-budget", "multiple times"]),
    ] {
        let answer = sandbox.cli([&["unit"][..], options, &["--", "true"]].concat());
        let answer = answer.assert_code(2).assert_complains(words);
        assert_eq!(answer.out, "", "{options:?}");
    }
    sandbox.cli(["unit", "systemd"]).assert_code(2);
    sandbox.cli(["unit", "systemd", "--", ""]).assert_code(2).assert_complains(&["is empty"]);
}
