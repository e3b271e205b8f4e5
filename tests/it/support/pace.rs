//! Bounds on time that hold on a busy machine.

use std::time::{Duration, Instant};

use super::Sandbox;

/// Far above what takes milliseconds, and less than the patience of the store (5 s) and every stop
/// budget that is not named in a test.
pub const SOON: Duration = Duration::from_secs(3);

/// Asserts that something took less than `bound`. That is for an idle machine; a busy one has as
/// much more time as it needs more than an idle one for thirty ordinary starts.
#[track_caller]
pub fn assert_within(bound: Duration, took: Duration, what: &str) {
    if took < bound {
        return;
    }
    let more = 30 * start_now().max(start_under_load()).saturating_sub(IDLE_START);
    assert!(
        took < bound + more,
        "{what}: took {took:?}; the bound is {bound:?}, and {more:?} because the machine is busy"
    );
}

/// An ordinary start on an idle machine. It needs 15 ms of a processor, in a debug build.
const IDLE_START: Duration = Duration::from_millis(25);

/// What a start takes just now.
fn start_now() -> Duration {
    let sandbox = Sandbox::new();
    let started = Instant::now();
    for _ in 0..10 {
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }
    started.elapsed() / 10
}

/// What a start took in the last minute, by how many wanted a processor or a disk then: while it
/// was measured the machine may have been busier than it is now.
fn start_under_load() -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: u32 = load.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    IDLE_START * load / u32::try_from(processors).unwrap()
}
