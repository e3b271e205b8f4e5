//! Data on a terminal: byte for byte for a program that reads it, shown and not obeyed for a
//! person.

use crate::support::{LIMIT, Process, Sandbox, has, skipped};

/// Hides what follows, as a colour would be set.
const HIDDEN: &str = "\u{1b}[8mhidden";

/// How it is shown.
const SHOWN: &str = "\\u{1b}[8mhidden";

/// Symptom: `sql --csv` on a terminal obeyed an escape sequence in the data if it looked like a
/// colour; so a cell could hide itself and all that followed. It holds because only the colours
/// that we make pass.
#[test]
fn a_cell_hides_nothing_on_a_terminal() {
    const QUERY: &str = "SELECT char(27) || '[8mhidden' AS a, char(27) || '[32;1m' AS b";
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    let data = sandbox.cli(["sql", "--csv", QUERY]).assert_code(0).out;
    assert!(data.contains(HIDDEN), "{data:?}");
    for verb in ["sql --csv", "sql", "--json sql"] {
        let Some(shown) = on_a_terminal(&sandbox, &format!("incumbent {verb} \"{QUERY}\"")) else {
            return;
        };
        assert!(!shown.contains('\u{1b}') && shown.contains("hidden"), "{verb}: {shown:?}");
    }
}

/// Symptom: the answer of `path` is for `$(incumbent path)`, and so a directory with an escape
/// sequence in its name wrote that to the terminal of whoever looked.
#[test]
fn a_path_is_shown_on_a_terminal_and_not_obeyed() {
    let sandbox = Sandbox::new();
    let place = sandbox.file(HIDDEN);
    std::fs::create_dir(&place).unwrap();
    let db = place.join("state.db");
    let path = ["--db", db.to_str().unwrap(), "path"];
    assert_eq!(sandbox.cli(path).out, format!("{}\n", db.display()));
    let line = format!("incumbent --db '{}' path", db.display());
    let Some(shown) = on_a_terminal(&sandbox, &line) else { return };
    assert!(!shown.contains('\u{1b}') && shown.contains(SHOWN), "{shown:?}");
}

/// What `line` shows on a terminal; `None`, and said, where there is none to be tried.
fn on_a_terminal(sandbox: &Sandbox, line: &str) -> Option<String> {
    if !has("script") {
        skipped("the half that needs script(1) of util-linux");
        return None;
    }
    let mut command = sandbox.program("script");
    command.args(["-qec", line, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "xterm");
    command.env_remove("NO_COLOR");
    Some(Process::start(command).finish(LIMIT).assert_code(0).out)
}
