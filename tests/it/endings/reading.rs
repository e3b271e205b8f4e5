//! A night of ends, as a person reads it line by line.

use rustix::process::Signal;

use super::gateway::{BOOM, FILE, last_order};
use super::last_words::killed;
use crate::support::{LIMIT, Sandbox};

/// A night, as a tired person reads it: newest first, one line each, who and why in words.
#[test]
fn a_night_is_told_line_by_line() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", "exit 7"]).assert_code(7);
    let run = sandbox.hold(&[]);
    run.process.signal(Signal::TERM);
    run.process.finish_with_stdin_open(LIMIT).assert_code(143);
    let mut gateway = sandbox.linked_gateway(&["record", "panic text"]);
    let place = sandbox.json(["sql", "SELECT place FROM shutdowns WHERE what = 'panic'"]).1;
    let place = place[0]["place"].as_str().unwrap().to_owned();
    assert!(place.contains(&format!("{FILE}:")), "{place}");
    last_order(&mut gateway, "abort");
    let gateway = killed(sandbox.linked_gateway(&[]));
    let current = sandbox.hold(&[]);

    let history = sandbox.history();
    let text = sandbox.cli(["history"]).assert_code(0).out;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    let started = |nth: usize| history[nth]["started_at"].as_str().unwrap().to_owned();
    assert_eq!(lines[0], format!("{}  pid {} holds it", started(0), current.pid()));
    let current_pid = current.pid();
    let expected = [
        (
            1,
            format!("pid {gateway} held it, "),
            format!("it was killed, or it crashed (found by pid {current_pid}) [anchor_released]"),
        ),
        (
            2,
            format!("pid {} held it, found dead ", history[2]["pid"]),
            format!(
                "one of its threads panicked (thread \"worker\" panicked: {BOOM} at {place}) \
                 [panicked]"
            ),
        ),
        (
            3,
            format!("pid {} held it for ", history[3]["pid"]),
            format!(
                "SIGTERM from {} ended it [signalled]",
                history[3]["ended_by"].as_str().unwrap_or_default()
            ),
        ),
        (
            4,
            format!("pid {} held it for ", history[4]["pid"]),
            "its command crashed: exit code 7 [exited]".to_owned(),
        ),
    ];
    for (nth, who, story) in expected {
        let line = lines[nth];
        let start = format!("{}  {who}", started(nth));
        assert!(line.starts_with(&start), "{line:?}\nshould begin with\n{start:?}");
        assert!(line.ends_with(&format!(" ago: {story}")), "{line:?}\nshould end with\n{story:?}");
    }
    current.end().assert_code(0);
}
