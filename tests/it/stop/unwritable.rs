//! `stop` in a store that cannot be written.

use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use super::owner::{OWNER, ROLE_TEST};
use crate::support::{
    BINARY, Disk, LIMIT, Process, Sandbox, kill, read_only_store, skipped, wait_stopped, writer,
};

/// FIELD-BUGS row 77. Symptom: with the store locked or full nobody could be stopped any more. It
/// says that it could not write that down, and stops all the same.
#[test]
fn a_stop_behind_a_stopped_writer_stops_and_says_what_it_could_not_record() {
    let sandbox = Sandbox::new();
    let mut owner = sandbox.linked_owner(30_000);
    let writer = writer(&sandbox);
    writer.signal(Signal::STOP);
    wait_stopped(writer.pid());
    let stop = sandbox.begin(&["--json", "stop"]);
    let told = owner.err_line_with("=> TERM");
    assert!(told.contains("unplanned"), "{told}");
    kill(owner.pid(), Signal::KILL);
    let document = stop.finish(LIMIT).assert_code(0).json();
    let facts = ["stopped", "was_running", "recorded"].map(|key| document[key].clone());
    assert_eq!(facts, [json!(true), json!(true), json!(false)], "{document:#}");
    let why = document["not_recorded"].as_str().unwrap();
    assert!(why.contains(&format!("pid {}", writer.pid())), "{why}");
    owner.kill();

    let said = sandbox.cli(["stop"]).assert_code(0);
    said.assert_complains(&["could not be recorded", "take it for a crash"]);
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// R:FULL. FIELD-BUGS row 78.
#[test]
fn a_stop_on_a_full_disk_stops_and_says_what_it_could_not_record() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "600k") else { return };
    let mut owner = disk.role(ROLE_TEST, OWNER);
    owner.err_line_with("=> owns");
    disk.fill_up();
    let answer = disk.cli(&["--json", "stop", "--timeout", "200ms"]);
    let document = answer.json();
    assert_eq!((answer.code(), &document["recorded"]), (1, &json!(false)), "{document:#}");
    assert!(owner.err_line_with("=> TERM").contains("unplanned"));
    let answer = disk.cli(&["--json", "stop", "--timeout", "200ms", "--force"]).assert_code(0);
    let document = answer.json();
    assert_eq!((&document["killed"], &document["recorded"]), (&json!(true), &json!(false)));
    owner.wait(LIMIT);
    disk.shell("rm store/fill").assert_code(0);
    disk.cli(&["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// R:RO. A view of the store that cannot be written.
#[test]
fn a_stop_on_a_read_only_mount_stops_and_says_what_it_could_not_record() {
    let Some(words) = read_only_store() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let stop = Process::start(sandbox.under(words, Path::new(BINARY), &["--json", "stop"]));
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    let document = stop.finish(LIMIT).assert_code(0).json();
    assert_eq!((&document["stopped"], &document["recorded"]), (&json!(true), &json!(false)));
    // Nobody could tell the run that this was planned.
    run.ended().assert_code(7);
    assert_eq!(sandbox.history()[0]["end_reason"], "signalled");
}
