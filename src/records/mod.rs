//! One file or folder for each table: all SQL of daily work.
//!
//! Nothing here decides whether somebody lives, and no file knows another table's rules. Raw, old
//! and damaged tables are `store/`'s, and so are the few statements about anchors
//! (`store/ourselves.rs`): an anchor's life is the commit. `doctor/` has read-only questions and
//! repairs of its own.

pub(crate) mod conflicts;
pub(crate) mod counters;
pub(crate) mod events;
pub(crate) mod identities;
pub(crate) mod instances;
pub(crate) mod locks;
pub(crate) mod markers;
pub(crate) mod profiles;
pub(crate) mod reservations;
pub(crate) mod runtime;
pub(crate) mod shutdowns;
pub(crate) mod starts;
pub(crate) mod waiters;

pub(crate) use crate::records::events::EventRecord;
pub(crate) use crate::records::identities::Identities;
pub(crate) use crate::records::instances::{
    Command, CommandLock, End, EndReason, NewInstance, Origin, Record,
};
pub(crate) use crate::records::locks::{LockEnd, LockRow};
pub(crate) use crate::records::markers::{Addressee, NewMarker};
