//! Instructions and system calls: numbers that a busy machine does not change.
//!
//! An operation runs in a process of its own under `valgrind --tool=callgrind`, or `strace -c`,
//! with N and with 2N repeats; the difference per repeat is its cost, because starting and opening
//! are in both. The kernel's instructions are not counted. Claims vary by some percent from run to
//! run, the others by one or two. Where a tool is missing or may not be used, its column says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::growth::GROWN_MAX;
use super::library::{Operation, operations};
use super::roles::{ROLE, Role, text};
use super::stores::{Crowd, LIVE, Places};
use super::table::thousands;

/// N.
const REPEATS: u32 = 500;

/// Before anything is counted: by then the store keeps as many ended rows as it ever will, and each
/// operation costs the same.
const REPEATS_BEFORE: u32 = 1_200;

/// How often each thing was counted; or why nothing could be.
type Counted = Result<BTreeMap<String, f64>, String>;

/// Does one operation so many times: what the process does that is looked at.
pub fn repeat(name: &str, repeats: &str, path: &Path) {
    let all = operations();
    let operation = all.iter().find(|it| it.name == name).expect("an operation");
    let mut once = (operation.ours)(path);
    for _ in 0..repeats.parse::<u32>().expect("a number") {
        once();
    }
}

/// Whether valgrind is there; else it says that it is not.
pub fn works() -> bool {
    let works = Command::new("valgrind").arg("--version").output().is_ok();
    if !works {
        eprintln!("SKIPPED: instructions: there is no valgrind");
    }
    works
}

/// Instructions of one repeat in the store at `path`.
pub fn instructions_of(operation: &Operation, path: &Path) -> Option<f64> {
    let before = REPEATS_BEFORE.to_string();
    let warm = Role::command(&["count", operation.name, &before, text(path)]).status();
    assert!(warm.expect("a process").success(), "{}", operation.name);
    per_repeat(|repeats| instructions(operation.name, repeats, path)).ok().map(|all| all["all"])
}

/// Instructions of a whole process.
pub fn instructions_of_process(program: &Path, arguments: &[&str]) -> Option<f64> {
    let mut command = valgrind();
    command.arg(program).args(arguments);
    let output = command.output().ok()?;
    collected(&String::from_utf8_lossy(&output.stderr))
}

fn per_repeat(count: impl Fn(u32) -> Counted) -> Counted {
    let once = count(REPEATS)?;
    let mut twice = count(2 * REPEATS)?;
    for (name, count) in &mut twice {
        *count = (*count - once.get(name).unwrap_or(&0.0)) / f64::from(REPEATS);
    }
    Ok(twice)
}

fn valgrind() -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command
}

fn collected(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.split_once("Collected : "))?.1.trim().parse().ok()
}

fn instructions(name: &str, repeats: u32, path: &Path) -> Counted {
    let said = run_under(valgrind(), name, repeats, path)?;
    let count = collected(&said).ok_or_else(|| format!("valgrind collected nothing: {said}"))?;
    Ok(BTreeMap::from([("all".to_owned(), count)]))
}

fn system_calls(name: &str, repeats: u32, path: &Path) -> Counted {
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f"]);
    let said = run_under(strace, name, repeats, path)?;
    // % time, seconds, usecs/call, calls, [errors,] name
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let name = columns.last().filter(|name| **name != "total")?;
        Some(((*name).to_owned(), columns.get(3)?.parse().ok()?))
    };
    Ok(said.lines().filter_map(row).collect())
}

/// The sum, and the calls that come at least once in a hundred repeats, the most frequent first.
fn listed(calls: BTreeMap<String, f64>) -> String {
    let sum: f64 = calls.values().sum();
    let mut calls: Vec<_> = calls.into_iter().filter(|(_, count)| *count >= 0.01).collect();
    calls.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let calls: Vec<_> = calls.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
    format!("{sum:.1}: {}", calls.join(", "))
}

/// What the tool writes to standard error about one operation.
fn run_under(mut tool: Command, name: &str, repeats: u32, path: &Path) -> Result<String, String> {
    let shown = tool.get_program().to_string_lossy().into_owned();
    let output = tool
        .arg(std::env::current_exe().expect("this benchmark"))
        .args([ROLE, "count", name, &repeats.to_string(), text(path)])
        .output()
        .map_err(|error| format!("no {shown} ({error})"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(said) } else { Err(format!("{shown} failed: {said}")) }
}

/// What an operation may take more than its line before the check fails: what claims vary.
const MARGIN: f64 = 1.08;

fn lines_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/speed/lines.txt")
}

/// `count [WORD]`, `count --check`, `count --update`.
pub fn main(arguments: &[String]) {
    let has = |option: &str| arguments.iter().any(|it| it == option);
    let (check, update) = (has("--check"), has("--update"));
    let wanted = arguments.iter().find(|argument| !argument.starts_with("--"));
    let known = std::fs::read_to_string(lines_file()).unwrap_or_default();
    let lines: BTreeMap<&str, f64> = known
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, count) = line.rsplit_once('|')?;
            Some((name.trim(), count.trim().replace('_', "").parse().ok()?))
        })
        .collect();
    let places = Places::new();
    let (mut above, mut counted, mut alone) = (Vec::new(), String::new(), Vec::new());
    println!("{:<46} {:>12} {:>12}  system calls", "operation", "instructions", "line");
    for operation in operations() {
        let name = operation.name;
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let path = places.store("operations");
        let Some(count) = instructions_of(&operation, &path) else {
            println!("SKIPPED: {name}: valgrind is missing or failed");
            continue;
        };
        let line = lines.get(name).copied();
        let calls = if check || update {
            String::new()
        } else {
            per_repeat(|repeats| system_calls(name, repeats, &path))
                .map_or_else(|missing| missing, listed)
        };
        let shown = line.map(thousands).unwrap_or_default();
        println!("{name:<46} {:>12} {shown:>12}  {calls}", thousands(count));
        // One without a line would pass for ever.
        if line.is_none_or(|line| count > line * MARGIN) {
            above.push(name);
        }
        counted.push_str(&format!("{name:<46} | {count:>9.0}\n"));
        if operation.must_not_grow {
            alone.push((operation, count));
        }
    }
    if update {
        let head: Vec<&str> = known.lines().filter(|line| line.starts_with('#')).collect();
        let head = head.join("\n") + "\n";
        std::fs::write(lines_file(), head + &counted).expect("lines.txt");
    }
    let grown = if check { grown(&alone, &places) } else { Vec::new() };
    assert!(!check || above.is_empty(), "above their lines in lines.txt, or without: {above:?}");
    assert!(
        grown.is_empty(),
        "more than {GROWN_MAX} times of what an empty store takes: {grown:?}"
    );
}

/// What takes too much beside others, of those operations of which is known what they take alone.
fn grown(alone: &[(Operation, f64)], places: &Places) -> Vec<String> {
    if alone.is_empty() {
        return Vec::new();
    }
    let (live, big) = (places.store("live"), places.store("big"));
    let mut crowd = Crowd::new(&live, &big);
    crowd.grow_to(LIVE);
    let mut grown = Vec::new();
    println!("{:<46} {:>12} {:>12}", "as a multiple of the same alone", "500 live", "big store");
    for (operation, alone) in alone {
        let name = operation.name;
        let [beside, in_big] = [&live, &big].map(|path| {
            instructions_of(operation, path).expect("what could be counted alone") / alone
        });
        println!("{name:<46} {beside:>12.2} {in_big:>12.2}");
        if beside.max(in_big) > GROWN_MAX {
            grown.push(format!("{name}: {beside:.2}, {in_big:.2}"));
        }
    }
    drop(crowd);
    grown
}
