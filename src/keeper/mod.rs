//! Records and locks for processes that do not link the library.
//!
//! Such a process cannot hold an anchor. A keeper holds one for it, and releases it when the
//! process ends. A claim starts a keeper, which makes the record itself and so creates the anchor
//! that it holds. A second record for the same process leans on the first keeper. When the store is
//! replaced the keeper goes on in the new one.
//!
//! A keeper executes the [program for helpers](crate::helper). What it was started for outlives
//! the process that started it.

pub(crate) mod acquire;
pub(crate) mod arrival;
pub(crate) mod keep;
pub(crate) mod kept;
pub(crate) mod known;
pub(crate) mod life;
pub(crate) mod locks;
pub(crate) mod markers;
pub(crate) mod pair;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod release;
pub(crate) mod report;
pub(crate) mod speak;
pub(crate) mod start;
pub(crate) mod target;
pub(crate) mod words;

pub use crate::keeper::process::{
    Anchoring, KeptClaim, KeptGrant, KeptLock, KeptProcess, KeptRecord, KeptRelease, KeptStanding,
    Whom,
};
