//! A process that asks about others on order: in another place, or as another user.

use std::path::Path;
use std::time::Duration;

use incumbent::process::{self, AfterBudget, Fact, ProcessRef};
use incumbent::{Error, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Sandbox, obey_orders, plays, test_name};

const TEST: &str = test_name!(role_of_an_asker);
const ASKER: &str = "asker";

/// One order a line, one answer a line.
#[test]
fn role_of_an_asker() {
    if plays(ASKER) {
        obey_orders(|order| obey(order).unwrap_or_else(|error| kind(&error)));
    }
}

fn kind(error: &Error) -> String {
    assert!(error.hint().is_some() || error.kind().as_str() == "not_running", "{error:?}");
    format!("error {}: {error}", error.kind().as_str())
}

fn obey(order: &str) -> Result<String> {
    let words: Vec<&str> = order.split(' ').collect();
    Ok(match words.as_slice() {
        // With no descriptor left to look with.
        ["starved", rest @ ..] => {
            let limits = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limits }).unwrap();
            let answer = obey(&rest.join(" "));
            setrlimit(Resource::Nofile, limits).unwrap();
            answer?
        }
        // With so many left.
        ["with", free, rest @ ..] => {
            let limits = getrlimit(Resource::Nofile);
            let current = Some(limit_that_leaves(free.parse().unwrap()));
            setrlimit(Resource::Nofile, Rlimit { current, ..limits }).unwrap();
            let answer = obey(&rest.join(" "));
            setrlimit(Resource::Nofile, limits).unwrap();
            answer?
        }
        ["ref", pid] => ProcessRef::of(pid.parse().unwrap())?.to_string(),
        ["me"] => ProcessRef::current()?.to_string(),
        ["alive", text] => {
            let judged = text.parse::<ProcessRef>()?.is_alive()?;
            format!("{} {}", judged.ruling.verdict(), judged.ruling.reason())
        }
        ["exists", pid] => process::exists(pid.parse().unwrap())?.as_str().to_owned(),
        ["start_time", pid] => match process::start_time(pid.parse().unwrap())? {
            Fact::Known(time) => format!("{} {}", time.unit.as_str(), time.value),
            unknown => format!("{unknown:?}"),
        },
        ["command_line", pid] => match process::command_line(pid.parse().unwrap())? {
            Fact::Known(words) => words.join(" "),
            unknown => format!("{unknown:?}"),
        },
        ["terminate", text] => {
            let process = text.parse()?;
            let budget = Duration::from_secs(20);
            process::terminate(&process, budget, AfterBudget::Kill)?.as_str().to_owned()
        }
        ["tree", text] => {
            let process = text.parse()?;
            let budget = Duration::from_secs(20);
            let tree = process::terminate_tree(&process, budget, AfterBudget::Kill)?;
            format!("{} {}", tree.root.as_str(), tree.looked_at.as_str())
        }
        _ => panic!("what is {order:?}?"),
    })
}

/// The limit on open files below which so many numbers are free.
fn limit_that_leaves(free: usize) -> u64 {
    let is_free = |number: &u64| std::fs::read_link(format!("/proc/self/fd/{number}")).is_err();
    let is_last = |limit: &u64| (0..*limit).filter(is_free).count() == free;
    (0..u64::MAX).find(is_last).unwrap()
}

impl Sandbox {
    /// An asker.
    pub fn asker(&self) -> crate::support::Process {
        self.role(TEST, ASKER)
    }

    /// The same behind `words`, with a copy of this program. It has a child, whose pid it says
    /// first.
    pub fn asker_within(&self, words: &[&str], program: &Path) -> std::process::Command {
        let script = "sleep 1000 & echo $!; exec \"$0\" \"$@\"";
        let mut command = self.within(words);
        command.args(["/bin/sh", "-c", script]).arg(program);
        command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]);
        command.env("IT_ROLE", ASKER);
        command
    }
}

/// For a shell script: `ask ORDER` prints the answer of an asker.
pub fn ask_in_script() -> String {
    let program = std::env::current_exe().unwrap();
    format!(
        "ask() {{
            echo \"$1\" | IT_ROLE={ASKER} '{}' --exact '{TEST}' --nocapture --test-threads=1 \\
                2>&1 > /dev/null | sed -n 's/^.*=> //p'
        }}
        ",
        program.display()
    )
}
