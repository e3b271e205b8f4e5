//! How fast all of it is, in one table: `cargo bench`.
//!
//! Each row has an operation of ours, and beside it, taken in turn in the same run:
//!
//! * *0.1*: the same rows, written by hand into the schema of version 0.1, by a bare SQLite
//!   connection that prepares and caches as version 0.1 did, and the same probes. It is a yardstick
//!   that never changes;
//! * *floor*: the least that the present schema asks for, by statements that are kept prepared;
//! * *peers*: what else does this on the machine: files with locks and JSON written by a Python
//!   script, Python's filelock, `flock(1)`, `s6-setlock`, a C program. One that is not installed is
//!   said to be missing.
//!
//! A ratio is the median of the ratios of the rounds: it is what survives a noisy machine. Where
//! noise would decide, instructions are counted by valgrind.
//!
//! ```sh
//! cargo bench                              # the table; half an hour or more
//! cargo bench -- lock status               # the rows that have one of the words in their names
//! cargo bench -- --quick                   # fewer rounds, no instructions: minutes
//! cargo bench -- --write                   # and write docs/benchmarks.md and its pictures
//! cargo bench -- idle 10 600               # 10 idle runs for 600 s: wakeups and CPU
//! cargo bench -- contention 128 20 3       # processes, pause in ms, seconds
//! cargo bench -- count [WORD]              # instructions and system calls alone
//! cargo bench -- count --check             # and whether each keeps its line in lines.txt
//! cargo bench -- count --update            # writes these lines
//! cargo bench -- long [COUNT]              # a million of each: do files and times grow?
//! ```

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("speed: measured on Linux only");
}
