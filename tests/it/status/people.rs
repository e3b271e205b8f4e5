//! `status` for a person: the first line, a screen, colours, control characters.

use serde_json::json;

use super::set::{obey, obeying, say};
use super::{AT_WORK, SURFACES, row_of_the_table, shown_by};
use crate::support::{BINARY, LIMIT, Process, Run, Sandbox, has, skipped};

/// What a terminal of `columns` makes of it.
fn rows_on_screen(text: &str, columns: usize) -> usize {
    text.lines().map(|line| line.chars().count().div_ceil(columns).max(1)).sum()
}

/// The answer comes first and stands on one screen, however much there is to say.
#[test]
fn the_answer_is_the_first_line_and_all_of_it_fits_on_a_screen() {
    let sandbox = Sandbox::new();
    let locks: Vec<String> =
        (0..50).flat_map(|number| ["--lock".to_owned(), format!("scope={number}")]).collect();
    let locks: Vec<&str> = locks.iter().map(String::as_str).collect();
    let mut run = obeying(&sandbox, &locks);
    let pid = run.pid();
    let text = shown_by(&sandbox, &["status"]);
    assert!(text.starts_with(&format!("default/gateway: running, pid {pid}, for ")), "{text}");
    say(&sandbox, &mut run, &["--state", "running", "--active-agents", "2"]);
    let loop_of = |words: &str, first: usize, end: usize| {
        format!(
            "n={first}; while [ $n -lt {end} ]; do {words} > /dev/null || exit 9; n=$((n+1)); done"
        )
    };
    let platform = "incumbent status-set --platform platform-$n --platform-state connected \
                    --error-message \"no route to host $n\"";
    for first in [0, 50, 100, 150] {
        assert_eq!(obey(&mut run, &loop_of(platform, first, first + 50)), 0);
    }
    assert_eq!(sandbox.status().1["platforms"].as_object().unwrap().len(), 200);
    let text = shown_by(&sandbox, &["status"]);
    assert!(text.starts_with(&format!("default/gateway: running, pid {pid}, for ")), "{text}");
    assert!(text.contains("and 188 more, see --json"), "{text}");
    assert!(text.contains("and 38 more, see --json"), "{text}");
    assert!(rows_on_screen(&text, 100) <= 45, "{} rows:\n{text}", rows_on_screen(&text, 100));
    run.end().assert_code(0);
}

/// The same for whatever is of any length, one after the other: it is cut here, and `--json` has it
/// all.
#[test]
fn what_is_long_is_cut_and_fits_on_a_screen_as_well() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    let long = "word ".repeat(800);
    let extra = format!("\"{}\"", "word ".repeat(12_000));
    let served: Vec<String> =
        (0..250).flat_map(|n| ["--serves".to_owned(), format!("profile-{n}")]).collect();
    let served: Vec<&str> = served.iter().map(String::as_str).collect();
    let mut too_much = Vec::new();
    let mut look = |what: &str, all_of_it: &str| {
        let text = shown_by(&sandbox, &["status"]);
        let rows = rows_on_screen(&text, 100);
        if rows > 45 {
            too_much.push(format!("{what}: {rows} rows"));
        }
        let document = shown_by(&sandbox, &["--json", "status"]);
        assert!(document.contains(all_of_it), "{what}: not in the JSON: {document}");
        let all = shown_by(&sandbox, &["status", "--all"]);
        let rows = rows_on_screen(&row_of_the_table(&all), 100);
        assert!(rows <= 10, "{what}: {rows} rows in the table");
    };
    say(&sandbox, &mut run, &["--exit-reason", &long]);
    look("a reason", &long[..4_000]);
    say(&sandbox, &mut run, &["--clear", "exit-reason", "--extra", &extra]);
    look("a JSON of its own", &extra);
    say(&sandbox, &mut run, &[&["--clear", "extra"], &served[..]].concat());
    look("the served", "profile-249");
    say(&sandbox, &mut run, &["--clear", "serves"]);
    for number in 0..12 {
        let platform = format!("platform-{number}");
        say(&sandbox, &mut run, &["--platform", &platform, "--error-message", &long]);
    }
    look("messages", &long[..4_000]);
    say(&sandbox, &mut run, &["--clear", "platforms"]);
    let pid = run.pid();
    let marker = format!(
        "n=0; while [ $n -lt 60 ]; do incumbent marker write note-$n --pid {pid} > /dev/null \
         || exit 9; n=$((n+1)); done"
    );
    assert_eq!(obey(&mut run, &marker), 0);
    look("markers", "note-59");
    assert!(too_much.is_empty(), "{too_much:#?}");
    run.end().assert_code(0);
}

/// Runs `words` on a terminal; returns what it shows.
fn on_a_terminal(sandbox: &Sandbox, environment: &[(&str, &str)], words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("exec '{BINARY}' {}", quoted.join(" "));
    let mut command = sandbox.program("script");
    command.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh");
    command.env_remove("NO_COLOR").env("TERM", "xterm").envs(environment.iter().copied());
    Process::start(command).finish(LIMIT).out
}

const SYMBOLS: [char; 2] = ['\u{25cf}', '\u{25cb}'];

/// Colours and symbols are for terminals.
#[test]
fn colours_and_symbols_are_for_terminals() {
    let sandbox = Sandbox::new();
    let mut run = obeying(&sandbox, &[]);
    say(&sandbox, &mut run, AT_WORK);
    let plain = |text: &str| !text.contains('\u{1b}') && !text.contains(SYMBOLS);
    for surface in SURFACES {
        for environment in [&[][..], &[("NO_COLOR", "1")], &[("TERM", "xterm-256color")]] {
            let mut command = sandbox.incumbent(surface);
            command.env_remove("NO_COLOR").envs(environment.iter().copied());
            let out = Process::start(command).finish(LIMIT).assert_code(0).out;
            assert!(plain(&out), "{surface:?} {environment:?}: {out:?}");
        }
    }
    if !has("script") {
        return skipped("the half that needs script(1) of util-linux");
    }
    let text = on_a_terminal(&sandbox, &[], &["status"]);
    let first = text.lines().next().unwrap();
    assert!(first.contains('\u{25cf}') && first.contains("\u{1b}[1m\u{1b}[32mrunning"), "{text:?}");
    let all = on_a_terminal(&sandbox, &[], &["status", "--all"]);
    assert!(all.contains("\u{1b}[1m\u{1b}[32myes"), "{all:?}");
    // The columns stand where they stand without colours.
    let without = strip_escapes(&all);
    let pipe = shown_by(&sandbox, &["status", "--all"]);
    let column = |text: &str| text.lines().next().unwrap().find("PID").unwrap();
    assert_eq!(column(&without), column(&pipe), "{without:?}\n{pipe:?}");
    let row = row_of_the_table(&without);
    assert_eq!(row.find(&run.pid().to_string()), Some(column(&without)), "{without}");

    let text = on_a_terminal(&sandbox, &[("NO_COLOR", "1")], &["status"]);
    assert!(!text.contains('\u{1b}') && text.contains(SYMBOLS), "{text:?}");
    let text = on_a_terminal(&sandbox, &[("TERM", "dumb")], &["status"]);
    assert!(plain(&text), "{text:?}");
    for surface in
        [&["--json", "status"][..], &["status", "--metrics"], &["--json", "status", "--all"]]
    {
        let text = on_a_terminal(&sandbox, &[], surface);
        assert!(plain(&text), "{surface:?}: {text:?}");
    }
    run.end().assert_code(0);
    let text = on_a_terminal(&sandbox, &[], &["status"]);
    let first = text.lines().next().unwrap();
    assert!(
        first.contains('\u{25cb}') && first.contains("\u{1b}[1m\u{1b}[31mnot running"),
        "{text:?}"
    );
}

/// Without the colours.
fn strip_escapes(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').unwrap().1);
    }
    plain
}

/// Symptom: a name of a chat room that somebody else chose cleared the operator's screen. It holds
/// because nothing that was reported reaches a terminal with its control characters.
#[test]
fn control_characters_do_not_reach_the_terminal() {
    const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\r\u{8}\u{202e}";
    let sandbox = Sandbox::new();
    let reason = format!("because {EVIL}");
    let metadata = json!({"note": EVIL}).to_string();
    let script = format!("echo $$; exec cat; : '{EVIL}'");
    let arguments = ["run", "--no-backoff", "--lock", "s=1", "--metadata", &metadata];
    let run =
        Run::start(sandbox.incumbent([&arguments[..], &["--", "/bin/sh", "-c", &script]].concat()));
    let pid = run.pid().to_string();
    let marker = ["marker", "write", "note", "--pid", &pid, "--reason", &reason];
    sandbox.cli(marker).assert_code(0);
    sandbox.forge(&format!(
        "INSERT INTO runtime_status (instance_id, state, exit_reason, extra, writer, updated_at_ms)
         SELECT id, '{EVIL}', '{EVIL}', '{}', '{EVIL}', 1 FROM instances",
        json!({"x": EVIL})
    ));
    sandbox.forge(&format!(
        "INSERT INTO platform_status (instance_id, profile, platform, state, error_code,
            error_message, writer, updated_at_ms)
         SELECT id, profile, '{EVIL}', '{EVIL}', '{EVIL}', '{EVIL}', '{EVIL}', 1 FROM instances"
    ));
    sandbox.forge(&format!("UPDATE instances SET version = '{EVIL}', supervisor = '{EVIL}'"));
    sandbox.forge(&format!("UPDATE markers SET writer = '{EVIL}'"));
    let mut harmful = Vec::new();
    let mut look = |when: &str| {
        for verb in SURFACES.into_iter().chain([&["events"][..], &["--json", "events"]]) {
            let out = shown_by(&sandbox, verb);
            // JSON escapes what it has to escape: it is for programs.
            let is_json = verb.contains(&"--json");
            // The last one turns round the direction in which the rest is read.
            let is_bad =
                |c: char| c.is_ascii_control() || !is_json && (c.is_control() || c == '\u{202e}');
            if let Some(bad) = out.chars().find(|c| is_bad(*c) && *c != '\n') {
                harmful.push(format!("{when}: {verb:?}: {bad:?}"));
            }
            assert!(out.contains("default"), "{when}: {verb:?}: {out:?}");
        }
        if has("script") {
            for surface in [&["status"][..], &["status", "--all"]] {
                let shown = on_a_terminal(&sandbox, &[], surface);
                for evil in ["\u{1b}]", "\u{1b}[2J", "\u{9b}", "\u{7}", "\u{8}"] {
                    assert!(!shown.contains(evil), "{when}: {surface:?}: {shown:?}");
                }
            }
        } else {
            skipped("the half that needs script(1) of util-linux");
        }
    };
    look("alive");
    let refused = sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
    let bad = refused.err.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(bad, None, "{refused:#?}");
    run.end().assert_code(0);
    sandbox.forge(&format!("UPDATE instances SET ended_by = '{EVIL}', detail = '{EVIL}'"));
    look("dead");
    assert!(harmful.is_empty(), "{harmful:#?}");
}
