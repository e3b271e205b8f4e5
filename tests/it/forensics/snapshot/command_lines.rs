//! Whatever a command line contains makes one line and valid JSON.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

use super::left::{acts, assert_log_line, said_by_run, snapshot_of};
use super::{Deployer, SEND};
use crate::support::{LIMIT, Process, Sandbox};

/// What would break a line, a quote, an encoding or a terminal; and a part of it that is to be
/// seen all the same.
const NASTY: [(&[u8], &str); 9] = [
    (b"two\nlines\r\n", "lines"),
    (b"a \"quoted\" 'word' \\ back\\slash", "back"),
    (b"\" sender_pid=1 signal=SIGKILL", "sender_pid=1"),
    (b"\x1b[31mred\x07\x08\t\x01\x7f", "[31mred"),
    (b"\xff\xfe not \xc3 UTF-8 \xe2\x80", "\u{fffd}"),
    ("\u{202e}right to left\u{2028}\u{2029}\u{85}".as_bytes(), "right to left"),
    ("gr\u{fc}n \u{1f980} a\u{301}".as_bytes(), "\u{1f980}"),
    (b"{\"unavailable\": 1}", "unavailable"),
    (b"\r", "\\r"),
];

/// A copy of the shell under a name of its own. Another process makes it, see
/// [`Sandbox::copy_program`].
pub fn copy_shell(sandbox: &Sandbox, name: &[u8]) -> PathBuf {
    let copy = sandbox.path().join(OsStr::from_bytes(name));
    let copied = Command::new("cp").arg("-L").arg("/bin/sh").arg(&copy).status().unwrap();
    assert!(copied.success());
    copy
}

/// The names of programs, as hostile as a name can be (15 bytes are kept of it).
const NASTY_NAMES: [&[u8]; 4] = [
    b"a\nb \"c\" 'd'=e",
    b"\xff\xfe)R 1 (\\",
    "\u{202e}\u{2028}\u{fc}".as_bytes(),
    b"Name:\tx\\n\x1b[m",
];

/// Each name with some of the arguments: a command line is cut at 300 characters.
fn nasty_cases() -> impl Iterator<Item = (&'static [u8], Vec<&'static OsStr>, Vec<&'static str>)> {
    NASTY_NAMES.into_iter().zip(NASTY.chunks(3).cycle()).map(|(name, chosen)| {
        let arguments = chosen.iter().map(|(bytes, _)| OsStr::from_bytes(bytes)).collect();
        (name, arguments, chosen.iter().map(|(_, part)| *part).collect())
    })
}

#[test]
fn a_parent_of_any_name_and_arguments_makes_one_line_and_valid_json() {
    for (name, arguments, parts) in nasty_cases() {
        let sandbox = Sandbox::new();
        let shell = copy_shell(&sandbox, name);
        let start = |json: &str| {
            let script = format!("incumbent {json} forensics snapshot --signal 15; exit $?");
            let mut command = sandbox.program(&shell);
            command.args(["-c", &script]).args(&arguments);
            Process::start(command).finish(LIMIT).assert_code(0)
        };
        let text = start("");
        assert_eq!(text.out.matches('\n').count(), 1, "{text:#?}");
        let said = assert_log_line(text.out.trim_end_matches('\n'));
        assert!(said["sender"].starts_with("unavailable: "), "{said:?}");
        assert!(!said.contains_key("sender_pid"), "{said:?}");
        assert_eq!(said["signal"], "SIGTERM", "{said:?}");
        let snapshot = snapshot_of(start("--json"));
        let seen = snapshot["parent"]["cmdline"].as_str().unwrap();
        for part in parts {
            assert!(seen.contains(part), "{part:?} in {seen}");
        }
        assert!(snapshot["parent"]["name"].is_string(), "{snapshot:#}");
    }
}

#[test]
fn a_sender_of_any_name_and_arguments_makes_one_line_and_valid_json() {
    for (name, arguments, parts) in nasty_cases() {
        let sandbox = Sandbox::new();
        let shell = copy_shell(&sandbox, name);
        let run = sandbox.hold(&[]);
        let mut command = sandbox.program(&shell);
        command.args(["-c", SEND]).args(&arguments);
        let mut sender = Deployer(Process::start(command));
        sender.send("TERM", run.pid());
        let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(143);
        let said = said_by_run(&answer);
        assert_eq!(said["sender_pid"], sender.pid().to_string(), "{said:?}");
        assert_eq!(said["signal"], "SIGTERM", "{said:?}");
        let row = sandbox.newest_shutdown();
        assert_eq!(row["sender_pid"], sender.pid(), "{row:#}");
        let seen = row["snapshot"]["sender"]["cmdline"].as_str().unwrap();
        for part in parts {
            assert!(seen.contains(part), "{part:?} in {seen}");
        }
        let told = sandbox.as_people_read_it();
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(&format!("pid {} (", sender.pid())), "{told}");
        assert!(!told.trim_end_matches('\n').contains(acts), "{told:?}");
        let end = &sandbox.history()[0];
        let by = end["ended_by"].as_str().unwrap();
        assert!(by.starts_with(&format!("pid {} (", sender.pid())), "{end:#}");
        sandbox.newest_event_called("signal_received");
    }
}

/// Command lines of megabytes are cut at 300 characters, not bytes, and never within one.
#[test]
fn a_long_command_line_is_cut() {
    let sandbox = Sandbox::new();
    let umlauts = "\u{fc}".repeat(40_000);
    let words: Vec<String> = (0..60).map(|number| format!("word{number}\u{1f980}")).collect();
    for arguments in [vec![umlauts], words] {
        let mut command = sandbox.shell("incumbent --json forensics snapshot; exit $?");
        command.args(&arguments);
        let snapshot = snapshot_of(Process::start(command).finish(LIMIT));
        let seen = snapshot["parent"]["cmdline"].as_str().unwrap();
        let length = seen.chars().count();
        // One argument of its own is cut before.
        assert!(length == 300 || (arguments.len() == 1 && length < 300), "{length}: {seen}");
        assert!(seen.starts_with("/bin/sh -c "), "{seen}");
        assert!(!seen.contains('\u{fffd}'), "cut within a character: {seen}");
    }
}
