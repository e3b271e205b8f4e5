//! How long a snapshot takes: on a machine that idles, and on one that has more to do than it can.
//!
//! Two busy loops per core and 2,000 processes are started for the second half. Each snapshot is
//! taken by a thread that has slept before, as the one that waits for signals does; so what the
//! scheduler makes it wait is in the figures.
//!
//! `cargo bench --bench snapshot -- [ROUNDS]` (default: 1,000). It says whether the bounds hold
//! (p99 1 ms idle, 10 ms busy), and fails if they do not with `--check`.

#![allow(clippy::expect_used, reason = "a benchmark may die of a surprise")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("snapshot: measured on Linux only");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::hint::black_box;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use incumbent::{Claim, Store, Tenure, forensics};

    const PROCESSES: usize = 2_000;

    const BUSY_LOOPS_PER_CORE: usize = 2;

    const SIGTERM: i32 = 15;

    pub fn main() {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let rounds = arguments.iter().find_map(|it| it.parse::<usize>().ok()).unwrap_or(1_000);
        let directory = tempfile::tempdir().expect("a scratch directory");
        let store = Store::open(directory.path().join("state.db")).expect("a store");
        let tenure = match store.profile("bench").expect("a name").claim().expect("a claim") {
            Claim::Granted(tenure) => tenure,
            Claim::Held(holder) => panic!("{holder}"),
        };
        println!("{:<44} {:>9} {:>9} {:>9}  bound of p99", "snapshot", "p50", "p99", "worst");
        let idle = measure("idle", &tenure, rounds, Duration::from_millis(1));
        let load = Load::start();
        let busy = measure("busy", &tenure, rounds, Duration::from_millis(10));
        drop(load);
        if arguments.iter().any(|it| it == "--check") {
            assert!(idle && busy, "a bound does not hold");
        }
    }

    /// Whether the bound holds for the snapshot alone, and on the busy machine for both.
    fn measure(machine: &str, tenure: &Tenure, rounds: usize, bound: Duration) -> bool {
        let alone = || drop(black_box(forensics::snapshot(Some(SIGTERM))));
        let recorded = || {
            black_box(tenure.snapshot(Some(SIGTERM)).recorded).ok();
        };
        let alone = report(&format!("{machine}, nothing recorded"), rounds, bound, alone);
        let whole =
            report(&format!("{machine}, with its row and the markers"), rounds, bound, recorded);
        alone && whole
    }

    fn report(name: &str, rounds: usize, bound: Duration, take: impl Fn()) -> bool {
        const PAUSE: Duration = Duration::from_millis(2);
        take();
        let mut took: Vec<Duration> = (0..rounds)
            .map(|_| {
                std::thread::sleep(PAUSE);
                let started = Instant::now();
                take();
                started.elapsed()
            })
            .collect();
        took.sort_unstable();
        let at = |per_mille: usize| took[(took.len() - 1) * per_mille / 1_000];
        let ms = |duration: Duration| format!("{:.3} ms", duration.as_secs_f64() * 1_000.0);
        let holds = at(990) <= bound;
        println!(
            "{name:<44} {:>9} {:>9} {:>9}  {} {}",
            ms(at(500)),
            ms(at(990)),
            ms(at(1_000)),
            ms(bound),
            if holds { "holds" } else { "DOES NOT HOLD" }
        );
        holds
    }

    /// Everything else that the machine has to do; ended when dropped.
    struct Load(Vec<Child>);

    impl Load {
        fn start() -> Self {
            let start = |script: &str| {
                Command::new("/bin/sh")
                    .args(["-c", script])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .spawn()
                    .expect("a process")
            };
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let mut children: Vec<Child> =
                (0..PROCESSES).map(|_| start("exec sleep 3600")).collect();
            children.extend((0..cores * BUSY_LOOPS_PER_CORE).map(|_| start("while :; do :; done")));
            Self(children)
        }
    }

    impl Drop for Load {
        fn drop(&mut self) {
            for child in &mut self.0 {
                let _ = child.kill();
            }
            for child in &mut self.0 {
                let _ = child.wait();
            }
        }
    }
}
