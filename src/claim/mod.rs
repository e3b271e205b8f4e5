//! What every claim does, of an office or of a lock: look at the owner on record, run errands
//! outside of the transaction, wait, and guard what was gained.

pub(crate) mod aside;
pub(crate) mod examine;
pub(crate) mod guard;
pub(crate) mod in_vain;
pub(crate) mod obstacle;
pub(crate) mod older;
pub(crate) mod older_home;
pub(crate) mod ours;
pub(crate) mod sweep;
pub(crate) mod wait;
pub(crate) mod waiting_row;

pub(crate) use crate::claim::aside::{Errand, Lookups};
pub(crate) use crate::claim::examine::{
    ATTEMPTS, Attachment, Claimant, Count, Examined, changes_too_fast, examine, judge_to_end,
};
pub(crate) use crate::claim::guard::OwnedRow;
pub(crate) use crate::claim::obstacle::Obstacle;
