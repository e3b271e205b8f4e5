//! Following costs next to nothing, and stands in nobody's way.

use std::time::Duration;

use rustix::process::Signal;

use crate::events::next;
use crate::support::{
    BINARY, LIMIT, Process, Sandbox, ask, eventually, has, skipped, wait_for_looks, works,
};

/// FIELD-BUGS row 77: a reader that stays in a transaction keeps every checkpoint from emptying the
/// WAL, which then grows by all that is ever written. A follower is in none while it waits.
#[test]
fn an_idle_follower_neither_writes_nor_stands_in_the_way_of_a_checkpoint() {
    let sandbox = Sandbox::new();
    let mut party = sandbox.party_of("default");
    let mut follower = sandbox.follow_from_now(&[]);
    // It follows another profile, too, and never has anything to print.
    let idle = sandbox.follow(&["--json", "--profile", "nobody"]);
    let before = sandbox.picture();
    wait_for_looks(&[idle.pid()], 5);
    let after = sandbox.picture();
    assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
    for (path, facts) in &before {
        assert!(*facts == after[path], "a follower wrote to {}", path.display());
    }

    // Each of these changes several pages: 25 MB in all, and so long would the WAL be if it were
    // never emptied.
    let mut largest = 0;
    for _ in 0..10 {
        assert_eq!(ask(&mut party, "drizzle 200"), "done");
        largest = largest.max(sandbox.wal_size());
    }
    eprintln!("WAL up to {} KiB", largest >> 10);
    assert!(largest < 10 << 20, "the WAL had {largest} bytes");
    for _ in 0..2_000 {
        assert_eq!(next(&mut follower)["event"], "platform_changed");
    }
    // One that is stopped in the middle of nothing holds nothing up either.
    for process in [&idle, &follower] {
        process.signal(Signal::STOP);
        crate::support::wait_stopped(process.pid());
    }
    for _ in 0..5 {
        assert_eq!(ask(&mut party, "drizzle 200"), "done");
    }
    assert!(sandbox.wal_size() < 10 << 20, "the WAL had {} bytes", sandbox.wal_size());
    for process in [&idle, &follower] {
        process.signal(Signal::CONT);
    }
    for _ in 0..1_000 {
        assert_eq!(next(&mut follower)["event"], "platform_changed");
    }
}

/// The time that a process has had a processor, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// It waits for days: one look a second, of some microseconds.
#[test]
fn an_idle_follower_costs_next_to_nothing() {
    let sandbox = Sandbox::new();
    let _party = sandbox.party_of("default");
    let follower = sandbox.follow_from_now(&[]);
    let before = cpu_ticks(follower.pid());
    let watched = Duration::from_secs(3);
    std::thread::sleep(watched);
    let spent = Duration::from_millis(10 * (cpu_ticks(follower.pid()) - before));
    eprintln!("{spent:?} in {watched:?}");
    assert!(spent < watched / 20, "{spent:?} of a processor in {watched:?}");
}

/// Whether there is something new is told by a counter in shared memory: an idle follower reads not
/// a byte of the store, and the events table least of all. What wakes it is a pipe of its own.
#[test]
fn an_idle_follower_reads_nothing() {
    let sandbox = Sandbox::new();
    if !has("strace") || !works(&["strace", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let mut party = sandbox.party_of("default");
    let newest = sandbox.newest();
    let mut command = sandbox.program("strace");
    command
        .args(["-f", "-y", "-o"])
        .arg(sandbox.file("trace"))
        .args([BINARY, "events", "--follow", "--json"]);
    let mut follower = Process::start(command);
    while next(&mut follower)["id"] != newest {}
    let trace = || std::fs::read_to_string(sandbox.file("trace")).unwrap();
    // It is told of commits, or has gone over to its slow look, once it has slept so often and so
    // long.
    let naps = || trace().lines().filter(|line| is_long_nap(line)).count();
    let so_far = naps();
    eventually("slow looks", LIMIT, || (naps() > so_far + 3).then_some(()));
    let before = trace().lines().count();
    let so_far = naps();
    eventually("more of them", LIMIT, || (naps() > so_far + 5).then_some(()));
    let idle: Vec<String> = trace().lines().skip(before).map(str::to_owned).collect();
    let reads: Vec<&String> = idle
        .iter()
        .filter(|line| {
            let call = line.split('(').next().unwrap_or_default();
            (call.contains("read") || call.contains("write")) && !line.contains("<pipe:[")
        })
        .collect();
    assert!(reads.is_empty(), "an idle follower reads or writes: {reads:#?}");
    // And it was awake.
    assert_eq!(ask(&mut party, "state running"), "done");
    assert_eq!(next(&mut follower)["event"], "status_changed");
}

/// Whether a line of a trace is that of a sleep of 40 ms or more.
fn is_long_nap(line: &str) -> bool {
    let is_sleep = ["nanosleep(", "ppoll("].iter().any(|call| line.contains(call));
    let number = |name: &str| -> Option<u64> {
        let (_, rest) = line.split_once(name)?;
        rest.split([',', '}']).next()?.parse().ok()
    };
    let wanted = number("{tv_sec=").zip(number("tv_nsec="));
    is_sleep && wanted.is_some_and(|(s, ns)| s * 1_000_000_000 + ns >= 40_000_000)
}
