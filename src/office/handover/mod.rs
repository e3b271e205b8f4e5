//! Handover without a gap: a process gives its office to the one that goes on in its place, and
//! nobody else can have it in between.
//!
//! [`Tenure::exec`](crate::Tenure::exec): this process becomes another program.
//! [`Tenure::hand_over`](crate::Tenure::hand_over): a child takes over, and we end. Either way the
//! successor inherits the open file of the anchor, and so its lock; the numbers stand in
//! `INCUMBENT_HANDOVER`, the nonce in a pipe. It adopts by
//! [`Tenure::from_environment`](crate::Tenure::from_environment), in one transaction: the old row
//! ends, a new one with a new fence leans on the same anchor, the locks follow with new fences.
//!
//! # Why never two own
//!
//! Every change of the owner is a write transaction that reads the old row as live. So of the
//! adoption, a contender's claim, a release, an eviction, one is first; whoever comes next finds
//! the row ended. What is left is what somebody believes who is not in a transaction:
//!
//! * *The predecessor believes that it was not adopted.* The nonce is read inside the adopting
//!   transaction, and only one can read it. When the time is over the predecessor reads it itself:
//!   then nobody can adopt any more. If it finds nothing, somebody has read it under the write
//!   lock. The predecessor takes that lock next, and the row says what came of it: such a
//!   transaction is not tried again, so "live" is for good. If the successor's end of the line
//!   closes first, nobody is left who could be in such a transaction, and a read is enough.
//! * *The predecessor believes that it owns after it was adopted.* Its row has ended as
//!   `handed_over`, which `verify` and every fence say as after an eviction.
//! * *The predecessor gives the lock away.* An unlock is for everybody who shares the open file. So
//!   an anchor that was once offered to a successor is only ever closed, by both.
//!
//! # Why the lock is never free, and whom it keeps out
//!
//! | what happens | the lock | what a contender makes of it |
//! |---|---|---|
//! | successor forked, not adopted | both hold it | the old row: alive |
//! | the successor ends, or its time is over | the predecessor | the old row: alive |
//! | the predecessor ends before the adoption | the successor | dead, `anchor_leaked` |
//! | adopted, the predecessor still there | both hold it | the new row: alive |
//! | adopted, the successor ends first | the predecessor | dead, `anchor_leaked` |
//! | executed, not adopted | the same process | the old row: alive |
//! | executed, ends | nobody | dead, `anchor_released` |
//!
//! A held lock whose recorded process is proven gone keeps nobody out (rule 2 of the verdict). So
//! where the predecessor ends too soon, the successor and every contender may have the office, and
//! the first transaction decides: a dead owner has promised nobody anything. A contender in another
//! pid namespace, to whom the lock alone speaks, waits until the one that shares it has ended or
//! given it back, which a refused successor does at once.
//!
//! # After an exec
//!
//! The process, its pid, its start time, and the anchor in its hands are those on record. So
//! nothing can be lost to it: where the adoption cannot be written, or somebody is waiting for the
//! end of the old row, it goes on under that row. A program that claims without knowing of
//! handovers is recognised as well (`another_life_of_ours`): a claim in a process which is the one
//! on record, and has inherited that very anchor, ends the old row as `re_executed`. One that does
//! neither holds the office until it ends.
//!
//! What else the process holds in the store would be left behind, so it is refused beforehand.
//!
//! The command of a `run` has no anchor of its own: what it hands over is its place, see
//! `in_run.rs`.

pub(crate) mod adopt;
pub(crate) mod environment;
pub(crate) mod give;
pub(crate) mod in_run;

use std::fmt;
use std::process::{Child, ExitStatus};

use crate::words::words;
use crate::{InstanceId, Tenure};

/// What a process was given by the one before it, or by the `run` that it is in; see
/// [`Tenure::from_environment`].
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "a tenure that was handed over is released when it is dropped"]
pub enum Inherited {
    /// The program that this process was before, or the process that started it, handed its office
    /// over: it is ours.
    FromPredecessor(Tenure),
    /// The `run` that we are in holds it, and we act for it. Dropping this ends nothing.
    FromRun(Tenure),
    /// Nothing, and why: claim as usual.
    Nothing(NotInherited),
}

impl Inherited {
    /// The tenure, whoever it comes from.
    #[must_use]
    pub fn tenure(self) -> Option<Tenure> {
        match self {
            Self::FromPredecessor(tenure) | Self::FromRun(tenure) => Some(tenure),
            Self::Nothing(_) => None,
        }
    }
}

words! {
    /// Why there is nothing to go on with. In JSON its word.
    #[non_exhaustive]
    pub enum NotInherited {
        /// Nobody handed anything over, and we are not in a `run`.
        NotGiven = "not_given",
        /// The environment is that of a `run` that did not start us: a terminal multiplexer keeps
        /// it.
        OtherRun = "other_run",
        /// The `run` is on record in another store.
        OtherStore = "other_store",
        /// It has lost its office, or somebody else has it by now.
        Lost = "lost",
        /// The predecessor waits no longer, or another process was faster.
        TakenBack = "taken_back",
        /// Somebody is stopping or replacing the predecessor, which goes on until it ends.
        AskedToEnd = "asked_to_end",
    }
}

impl NotInherited {
    /// The same as a clause for people.
    #[must_use]
    pub fn because(self) -> &'static str {
        match self {
            Self::NotGiven => "nothing was handed over to this process",
            Self::OtherRun => "the `run` of this environment did not start this process",
            Self::OtherStore => "what was handed over is on record in another store",
            Self::Lost => "what was handed over was lost before",
            Self::TakenBack => "the predecessor no longer waits for a successor",
            Self::AskedToEnd => "somebody is stopping or replacing the predecessor",
        }
    }
}

/// What came of [`Tenure::hand_over`].
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "the office may still be held"]
pub enum HandedOver {
    /// The successor has the office. This process has it no more, and should end.
    Yes(Successor),
    /// It has not, and cannot any more. This process holds the office as before, and the process
    /// that it started has ended.
    No(NotTaken),
}

/// Who took over.
#[derive(Debug)]
#[non_exhaustive]
pub struct Successor {
    /// Its generation: the new fence of the office. In a `run` it is the run's, as before.
    pub instance: InstanceId,
    /// The process that was started. It may have ended by now, if it was a script that started the
    /// successor in turn. Dropping it leaves it alone.
    pub child: Child,
}

/// Why nobody took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotTaken {
    /// The process that was started ended, or said that it would not, and how it ended: `None`
    /// where others collect the children of this process (SIGCHLD is ignored, or a handler reaps
    /// all of them).
    Ended(Option<ExitStatus>),
    /// It took longer than it was given, and was killed.
    TimedOut,
    /// Somebody is stopping or replacing this process: nothing was started.
    AskedToEnd,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(Some(status)) => write!(f, "the successor did not take over ({status})"),
            Self::Ended(None) => f.write_str("the successor did not take over, and has ended"),
            Self::TimedOut => f.write_str("the successor did not take over in time"),
            Self::AskedToEnd => f.write_str("this process is being stopped or replaced"),
        }
    }
}
