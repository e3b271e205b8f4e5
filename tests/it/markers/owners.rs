//! Whose marker it is: of other users, of a `run` and its command, of a script.

use serde_json::{Value, json};

use crate::support::{LIMIT, Process, Sandbox, another_user, skipped};

/// R:UID. FIELD-BUGS row 35.
///
/// Symptom: after `sudo ... stop` the marker was a file that only root could read, and the gateway
/// took its TERM for a crash. It holds because a marker is a row of the store, which stays its
/// owner's whoever writes to it.
#[test]
fn a_user_consumes_the_marker_that_root_left() {
    let Some(nobody) = another_user() else { return skipped("needs root and setpriv") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let as_nobody = |words: &[&str]| sandbox.under(nobody, &binary, words);
    let script = "trap '' TERM; \"$0\" marker peek note; echo ready; read -r line
        \"$0\" --json marker peek; echo \"peek $?\"
        \"$0\" --json marker consume planned_stop; echo \"consume $?\"
        \"$0\" --json marker consume planned_stop > again.json; echo \"again $?\"";
    let mut words = vec!["run", "--no-backoff", "--", "/bin/sh", "-c", script];
    let copy = binary.to_str().unwrap();
    words.push(copy);
    let mut gateway = Process::start(as_nobody(&words));
    assert_eq!(gateway.line(), "ready");
    let marker = sandbox.leave(gateway.pid(), &["planned_stop", "--reason", "by the boss"]);
    assert_eq!(marker["by_uid"], 0);
    gateway.say("go");
    let answer = gateway.finish(LIMIT);
    let out = answer.out.trim_start_matches("ready\n");
    let (peeked, rest) = out.split_once("peek 0\n").unwrap_or_else(|| panic!("{answer:#?}"));
    let (consumed, rest) = rest.split_once("consume 0\n").unwrap_or_else(|| panic!("{answer:#?}"));
    assert_eq!(rest, "again 1\n", "{answer:#?}");
    for document in [peeked, consumed] {
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!(document["id"], marker["id"], "{document:#}");
        assert_eq!(document["reason"], "by the boss", "{document:#}");
        assert_eq!(document["by_uid"], 0, "{document:#}");
    }
    assert_eq!(serde_json::from_str::<Value>(consumed).unwrap()["recorded"], true);
    let row = sandbox.marker_rows().pop().unwrap();
    assert_eq!(row["closed_how"], "consumed", "{row:#}");
    assert!(row["closed_by"].as_str().unwrap().contains("uid 65534"), "{row:#}");
    // Root left no file that is in the user's way.
    let start = ["run", "--no-backoff", "--", "true"];
    Process::start(as_nobody(&start)).finish(LIMIT).assert_code(0);
}

/// Inside a `run`, its command asks for itself without naming anybody: the verbs mean the run. So
/// do its children, and whoever names the command's own pid.
#[test]
fn the_command_of_a_run_has_the_markers_of_its_run() {
    const SCRIPT: &str = "echo $$
        while read -r line; do eval \"$line\"; echo \"code $?\"; done";
    let sandbox = Sandbox::new();
    let run = sandbox.hold_with(&["/bin/sh", "-c", SCRIPT]);
    let instance = sandbox.status().1["instance"].clone();
    let (run_pid, command_pid) = (run.pid(), run.command.pid);
    let mut process = run.process;
    let mut obey = |order: &str| {
        process.say(order);
        let mut said = String::new();
        loop {
            let line = process.line();
            match line.strip_prefix("code ") {
                Some(code) => return (code.parse::<i32>().unwrap(), said),
                None => said += &(line + "\n"),
            }
        }
    };
    assert_eq!(obey("incumbent marker peek"), (1, String::new()));
    assert_eq!(obey("incumbent marker clear note").0, 1);
    for target in [run_pid, command_pid] {
        let marker = sandbox.leave(target, &["note", "--reason", "hello"]);
        assert_eq!(marker["instance"], instance, "{target}: {marker:#}");
        for way in [
            "incumbent marker peek",
            "incumbent marker peek note",
            "sh -c 'incumbent marker peek'",
            &format!("incumbent marker peek --pid {command_pid}"),
            &format!("incumbent marker peek --pid {run_pid}"),
        ] {
            let (code, said) = obey(way);
            assert_eq!(code, 0, "{way}");
            assert!(said.starts_with("note by ") && said.ends_with(": hello\n"), "{way}: {said}");
        }
        assert_eq!(obey("sh -c 'incumbent marker consume note'").0, 0);
        assert_eq!(obey("incumbent marker consume note").0, 1);
        assert_eq!(sandbox.closed_how(&marker).as_deref(), Some("consumed"));

        let marker = sandbox.leave(target, &["note"]);
        assert_eq!(obey("incumbent marker clear note"), (0, "note: cleared\n".to_owned()));
        assert_eq!(sandbox.closed_how(&marker).as_deref(), Some("cleared"));
    }
    // From inside, to itself.
    assert_eq!(obey("incumbent marker write note --pid $$ > /dev/null").0, 0);
    assert_eq!(sandbox.marker_rows().pop().unwrap()["instance_id"], instance);
    assert_eq!(obey("incumbent marker consume note > /dev/null").0, 0);
    // Another process is not the run: without a name it is asked about its own parent.
    let stranger = "incumbent marker write note --pid $1 > /dev/null; incumbent marker peek";
    let script = format!("{stranger}; echo $?");
    let mut command = sandbox.program("/bin/sh");
    command.args(["-c", &script, "sh", &command_pid.to_string()]);
    assert_eq!(Process::start(command).finish(LIMIT).assert_code(0).out, "1\n");
    process.finish(LIMIT).assert_code(0);
}

/// The whole way, as a gateway in any language goes it: stopped on purpose, its handler asks, and
/// the supervisor is told that all is well.
#[test]
fn a_command_that_is_stopped_learns_from_the_verb_by_whom_and_why() {
    const SCRIPT: &str = "handle() {
            incumbent --json marker consume planned_stop; echo \"code $?\"; exit 0
        }
        trap handle TERM; echo $$; while :; do read -r line || sleep 0.02; done";
    let sandbox = Sandbox::new();
    let run = sandbox.hold_with(&["/bin/sh", "-c", SCRIPT]);
    let stopped = sandbox.cli(["stop", "--reason", "deploy 7"]).assert_code(0);
    let answer = run.process.finish_with_stdin_open(LIMIT);
    let document = answer.out.split_once('\n').unwrap().1;
    let (document, code) = document.split_once("code ").unwrap_or_else(|| panic!("{answer:#?}"));
    assert_eq!(code, "0\n", "{answer:#?}; {stopped:#?}");
    let document: Value = serde_json::from_str(document).unwrap();
    assert_eq!(document["name"], "planned_stop", "{document:#}");
    assert_eq!(document["reason"], "deploy 7", "{document:#}");
    assert!(document["by"].as_str().unwrap().starts_with("incumbent stop (pid "), "{document:#}");
    assert_eq!((&document["consumed"], &document["recorded"]), (&json!(true), &json!(true)));
    let row = sandbox.marker_rows().pop().unwrap();
    assert_eq!(row["closed_how"], "consumed", "{row:#}");
}

/// A process without a run and without `--pid`: its verbs are about the process that calls them.
#[test]
fn a_script_asks_about_itself() {
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let script = "incumbent marker write note --pid $$ --reason me > /dev/null
        incumbent marker peek; echo $?
        incumbent marker consume > /dev/null; echo $?
        incumbent marker peek; echo $?
        incumbent marker clear note; echo $?";
    let answer = Process::start(sandbox.shell(script)).finish(LIMIT).assert_code(0);
    let lines: Vec<_> = answer.out.lines().collect();
    assert!(lines[0].starts_with("note by "), "{answer:#?}");
    assert_eq!(lines[1..], ["0", "0", "1", "note: none is open", "1"], "{answer:#?}");
}
