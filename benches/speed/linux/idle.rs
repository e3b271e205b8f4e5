//! What processes cost that have nothing to do: wakeups, CPU, memory.
//!
//! A wakeup is a voluntary context switch of any of its threads: it woke up, and went back to
//! sleep. Both figures are the kernel's own, in /proc/PID/task.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::handover::until_somebody_waits;
use super::measure::now;
use super::programs::{Gateway, incumbent, took};
use super::roles::Role;
use super::stores::Places;
use super::table::{Row, Table, Target};

/// What some processes have used since they began.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    wakeups: f64,
    cpu_s: f64,
}

impl Used {
    fn by(pids: &[u32]) -> Self {
        let mut used = Self::default();
        for pid in pids {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
            for thread in threads {
                let thread = thread.expect("a thread").path();
                let read = |name: &str| std::fs::read_to_string(thread.join(name));
                // One that ends meanwhile is not idle; what it used is not counted.
                let (Ok(status), Ok(schedstat)) = (read("status"), read("schedstat")) else {
                    continue;
                };
                let switches = status.lines().filter_map(|line| {
                    let (name, count) = line.split_once(':')?;
                    (name == "voluntary_ctxt_switches").then(|| count.trim().parse::<f64>().ok())?
                });
                used.wakeups += switches.sum::<f64>();
                let ns = schedstat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok());
                used.cpu_s += ns.unwrap_or(0.0) / 1e9;
            }
        }
        used
    }
}

/// What one of them costs in a second of idling.
#[derive(Clone, Copy, Debug)]
struct Cost {
    wakeups_per_s: f64,
    cpu_s_per_hour: f64,
    private_kib: f64,
    pss_kib: f64,
}

#[allow(clippy::cast_precision_loss, reason = "a few")]
fn watch(pids: &[u32], processes: usize, length: Duration) -> Cost {
    let before = Used::by(pids);
    let start = now();
    std::thread::sleep(length);
    let seconds = start.elapsed().as_secs_f64() * processes as f64;
    let after = Used::by(pids);
    let memory = |field: &str| -> f64 {
        let of = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let lines = text.lines().filter(|line| line.starts_with(field));
            let kib = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
            Some(kib.sum::<f64>())
        };
        pids.iter().filter_map(of).sum::<f64>() / processes as f64
    };
    Cost {
        wakeups_per_s: (after.wakeups - before.wakeups) / seconds,
        cpu_s_per_hour: (after.cpu_s - before.cpu_s) / seconds * 3_600.0,
        private_kib: memory("Private_"),
        pss_kib: memory("Pss:"),
    }
}

fn shown(cost: &Cost) -> String {
    format!(
        "{:.2} wakeups/s, {:.2} s CPU/h, {:.0} KiB private, {:.0} KiB PSS",
        cost.wakeups_per_s, cost.cpu_s_per_hour, cost.private_kib, cost.pss_kib
    )
}

/// A process that is ended when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn rows(table: &mut Table, places: &Places, quick: bool) {
    let length = Duration::from_secs(if quick { 3 } else { 30 });
    // Who has just begun looks around more often for a while.
    let settled = Duration::from_secs(if quick { 1 } else { 15 });
    let path = places.store("idle");
    let wakeups = |cost: &Cost| Target::at_most("", 1.0, Some(cost.wakeups_per_s), " wakeups/s");
    let push = |table: &mut Table, name: &str, pids: &[u32], with_cpu: bool| {
        let cost = watch(pids, 1, length);
        let cpu = || Target::at_most("", 0.3, Some(cost.cpu_s_per_hour), " s CPU/h");
        let targets = [wakeups(&cost)].into_iter().chain(with_cpu.then(cpu)).collect();
        table.push(Row { name: name.to_owned(), ours: shown(&cost), targets, ..Row::default() });
    };
    if table.wants("idle `run`") {
        let gateway = Gateway::start(&path);
        std::thread::sleep(settled);
        push(table, "idle `run`", &[gateway.pid()], true);
    }
    let path = places.store("idle waiter");
    if table.wants("idle waiter, `run --wait`") {
        let holder = Role::holding("office", &path);
        let waiter = incumbent(&path, &["run", "--no-backoff", "--wait", "--", "true"])
            .stdin(Stdio::null())
            .spawn()
            .map(Ended)
            .expect("a waiter");
        until_somebody_waits(&path);
        std::thread::sleep(settled);
        push(table, "idle waiter, `run --wait`", &[waiter.0.id()], false);
        drop((waiter, holder));
    }
    if table.wants("idle waiter, the library") {
        let holder = Role::holding("lock", &path);
        let waiter = Role::command(&["wait", "lock", super::roles::text(&path)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map(Ended)
            .expect("a waiter");
        until_somebody_waits(&path);
        // It waits for no longer than 9 s.
        let cost = watch(&[waiter.0.id()], 1, Duration::from_secs(if quick { 2 } else { 7 }));
        let targets = vec![wakeups(&cost)];
        let name = "idle waiter, the library, in its first seconds".to_owned();
        table.push(Row { name, ours: shown(&cost), targets, ..Row::default() });
        drop((waiter, holder));
    }
    keepers(table, &places.store("idle keeper"), settled, |table, name, pids| {
        push(table, name, pids, false);
    });
}

fn keepers(
    table: &mut Table,
    path: &Path,
    settled: Duration,
    push: impl FnOnce(&mut Table, &str, &[u32]),
) {
    let name = "idle keeper of a record made with `--pid`";
    if !table.wants(name) {
        return;
    }
    let owner = Command::new("sleep").arg("100000").spawn().map(Ended).expect("sleep");
    took(incumbent(path, &["claim", "--pid"]).arg(owner.0.id().to_string()), 0);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(path, flags).expect("a reader");
    let (first, second): (Option<u32>, Option<u32>) = connection
        .query_row(
            "SELECT keeper_pid, keeper2_pid FROM instances WHERE ended_at_ms IS NULL",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("a record");
    drop(connection);
    std::thread::sleep(settled);
    let pids: Vec<u32> = first.into_iter().chain(second).collect();
    push(table, &format!("{name} ({} processes)", pids.len()), &pids);
}

/// `idle [RUNS [SECONDS]]`: 10 of them for 10 minutes, unless it is said otherwise.
pub fn main(numbers: &[u64]) {
    let number = |at: usize, default: u64| numbers.get(at).copied().unwrap_or(default);
    let (count, seconds) = (number(0, 10), number(1, 600));
    let places = Places::new();
    let path = places.store("idle");
    let profiles: Vec<String> = (0..count).map(|at| format!("idle{at}")).collect();
    let runs: Vec<Gateway> =
        profiles.iter().map(|profile| Gateway::start_as(&path, profile)).collect();
    let pids: Vec<u32> = runs.iter().map(Gateway::pid).collect();
    println!("{count} idle runs for {seconds} s; each of them:");
    let cost = watch(&pids, runs.len(), Duration::from_secs(seconds));
    println!("{}", shown(&cost));
    #[allow(clippy::cast_precision_loss, reason = "some")]
    let all_s = cost.cpu_s_per_hour / 3_600.0 * (seconds * count) as f64;
    println!("all of them: {all_s:.3} s of CPU");
}
