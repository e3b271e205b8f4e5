//! The command line: exit codes, help, words, and data that somebody else wrote.

mod conditions;
mod deadlines;
mod help;
mod pids;
mod printed;
mod progress;
mod questions;
mod schemas;
mod sql;
mod terminal;
mod usage;
mod who;

use crate::support::{LIMIT, Process, Sandbox};

/// The words of every verb, as `--help` lists them: none for the program itself, two for `lock
/// acquire`. What has verbs below it comes before them.
fn every_verb(sandbox: &Sandbox) -> Vec<Vec<String>> {
    let mut verbs = vec![Vec::new()];
    let mut next = 0;
    while let Some(verb) = verbs.get(next).cloned() {
        next += 1;
        let mut command = sandbox.incumbent(&verb);
        command.arg("--help");
        let help = Process::start(command).finish(LIMIT).assert_code(0).out;
        let Some((_, commands)) = help.split_once("\nCommands:\n") else { continue };
        let commands = commands.lines().take_while(|line| !line.is_empty());
        // The name of each stands two in; what is said of it is further in.
        let names = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        for name in names.filter(|name| !name.is_empty()) {
            verbs.push([&verb[..], &[name.to_owned()]].concat());
        }
    }
    verbs
}
