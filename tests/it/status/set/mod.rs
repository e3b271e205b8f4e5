//! What a gateway says of itself, by `status-set` and by the library: every field, who may say it,
//! and what becomes of it.

pub mod damage;
mod fields;
mod heartbeats;
mod speakers;
mod starting;
mod stores;
mod strangers;
pub mod talker;
mod threads;
mod usage;
mod words;

use std::sync::Arc;

use incumbent::clock::ManualClock;
use incumbent::{OpenOptions, Report, Store};
use serde_json::{Value, json};

use crate::support::{BOOT_MS, Process, Run, Sandbox, WALL_MS, bystander, without_format};

/// Looks like what a bot platform hands out.
const TOKEN: &str = "123456789:AAEhBP0av28xKq91mZ7ttyQwe42Lp0xVbN4";

/// A command that obeys: a line of shell on its standard input, the exit code as the answer.
const OBEYING: &[&str] = &[
    "--",
    "/bin/sh",
    "-c",
    "echo $$; while read -r line; do eval \"$line\"; echo \"=> $?\"; done",
];

/// A `run` whose command is ordered about by [`obey`].
#[track_caller]
pub fn obeying(sandbox: &Sandbox, options: &[&str]) -> Run {
    Run::start(sandbox.incumbent([&["run", "--no-backoff"], options, OBEYING].concat()))
}

/// Has the command of a run execute `line`; returns the exit code.
#[track_caller]
pub fn obey(run: &mut Run, line: &str) -> i32 {
    run.process.say(line);
    run.process.line_with("=> ").trim_start_matches("=> ").parse().unwrap()
}

/// `incumbent --json WORDS` in the command of a run.
#[track_caller]
pub fn in_run(sandbox: &Sandbox, run: &mut Run, words: &[&str]) -> (i32, Value) {
    let quoted: Vec<String> =
        words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let code = obey(run, &format!("incumbent --json {} > answer.json", quoted.join(" ")));
    let answer = std::fs::read_to_string(sandbox.file("answer.json")).unwrap();
    let document = serde_json::from_str(&answer);
    (code, without_format(document.unwrap_or_else(|error| panic!("{error}: {answer}"))))
}

/// `status-set WORDS` in the command of a run; it has to be written.
#[track_caller]
pub fn say(sandbox: &Sandbox, run: &mut Run, words: &[&str]) {
    let (code, answer) = in_run(sandbox, run, &[&["status-set"], words].concat());
    assert_eq!((code, &answer["written"]), (0, &json!(true)), "{words:?}: {answer:#}");
}

/// The same, with an office that was claimed for it.
#[track_caller]
pub fn claimed(sandbox: &Sandbox, options: &[&str]) -> Process {
    let script = bystander(sandbox);
    let pid = script.pid().to_string();
    sandbox.cli([&["claim", "--pid", &pid], options].concat()).assert_code(0);
    script
}

/// `status-set --pid PID WORDS`.
pub fn set_for(sandbox: &Sandbox, pid: u32, words: &[&str]) -> (i32, Value) {
    sandbox.json([&["status-set", "--pid", &pid.to_string()], words].concat())
}

#[track_caller]
pub fn write_for(sandbox: &Sandbox, pid: u32, words: &[&str]) {
    let (code, answer) = set_for(sandbox, pid, words);
    assert_eq!((code, &answer["written"]), (0, &json!(true)), "{words:?}: {answer:#}");
}

fn with_clock(sandbox: &Sandbox) -> (Store, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(WALL_MS, BOOT_MS));
    let store =
        OpenOptions::new().path(sandbox.db()).clock(Arc::clone(&clock) as _).open().unwrap();
    (store, clock)
}

fn report_of(store: &Store) -> Report {
    store.profile("default").unwrap().status().unwrap()
}
