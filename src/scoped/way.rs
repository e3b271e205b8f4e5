//! What stands between a claimant and a lock: who is over, who is in the way.

use crate::claim::obstacle::Watch;
use crate::claim::{Errand, Obstacle};
use crate::liveness::Judgement;
use crate::names::slot::Slot;
use crate::records::{EndReason, LockRow, Record, locks};
use crate::store::{Inner, Tx};
use crate::{Holder, InstanceId, Result};

/// How a lock is to be had.
#[derive(Debug)]
pub(crate) enum LockWay {
    /// The claimant has it already.
    Ours(LockRow, Box<Record>),
    /// Once these are ended, if there are any; which slot it will be, of one with slots.
    Free(Vec<LockOver>, Option<Slot>),
}

/// A lock on record that is over.
#[derive(Debug)]
pub(crate) enum LockOver {
    /// Its owner's row was ended by an older version, which knows nothing of locks, or deleted by
    /// hand; or the program before this one left it.
    Left(LockRow),
    /// Its owner's row ends with this.
    WithOwner(LockRow, Box<Record>, EndReason),
    /// The lock alone: its lease has run out, or its owner is stopped and may be evicted.
    Alone(LockRow, Box<Record>, EndReason),
}

impl LockWay {
    /// The claimant's own row that has the lock already.
    pub(super) fn owner(&self) -> Option<InstanceId> {
        match self {
            Self::Ours(row, _) => Some(row.instance),
            Self::Free(..) => None,
        }
    }
}

/// What a look at one lock came to.
pub(super) enum Way {
    Clear(LockWay),
    Errand(Errand),
    Held(Box<Met>),
}

/// Who stands in the way of a lock.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) row: LockRow,
    pub(super) record: Record,
    pub(super) judged: Judgement,
    /// It is a row of this very process.
    pub(super) is_ours: bool,
    /// Whoever holds other slots.
    pub(super) others: Vec<Met>,
}

impl Met {
    pub(super) fn new(row: LockRow, record: Record, judged: Judgement) -> Box<Self> {
        Box::new(Self { row, record, judged, is_ours: false, others: Vec::new() })
    }

    fn holder(&self, tx: &Tx<'_>, inner: &Inner) -> Result<Holder> {
        let mut holder = Holder::of_lock(&self.record, &self.row, &self.judged);
        holder.is_this_process = self.is_ours;
        holder.add_what_it_said(tx, inner, &self.record)?;
        Ok(holder)
    }

    pub(super) fn obstacle(self, tx: &Tx<'_>, inner: &Inner) -> Result<Box<Obstacle>> {
        let mut holder = Box::new(self.holder(tx, inner)?);
        let others = self.others.iter().map(|met| met.holder(tx, inner));
        holder.others = others.collect::<Result<_>>()?;
        let fence = locks::watched_fence(tx, &self.row)?;
        let others = self.others.into_iter().map(|met| met.record).collect();
        let watch = Some(Watch { record: self.record, others, fence });
        Ok(Box::new(Obstacle { holder, watch }))
    }
}

/// What a lock on record turned out to be.
pub(super) enum Seen {
    /// The claimant's own.
    Ours(LockRow, Box<Record>),
    Others(Look),
}

/// What somebody else's turned out to be; and any of which nobody may have two.
pub(super) enum Look {
    Over(LockOver),
    InTheWay(Box<Met>),
    Errand(Errand),
}
