//! Does a process live that an application names itself, without a store, and how is it ended?

mod asker;
mod looks;
mod references;
mod terminate;
mod trees;

use incumbent::process::ProcessRef;
use incumbent::{Reason, Verdict};

use crate::support::Process;

/// The verdict and its reason.
#[track_caller]
fn verdict(process: &ProcessRef) -> (Verdict, Reason) {
    let judged = process.is_alive().unwrap();
    (judged.ruling.verdict(), judged.ruling.reason())
}

#[track_caller]
fn reference(process: &Process) -> ProcessRef {
    ProcessRef::of(process.pid()).unwrap()
}
