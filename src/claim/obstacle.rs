//! What stands in the way of a claim, and how to notice that it no longer does.

use crate::environment::{Fault, planted};
use crate::liveness::Ruling;
use crate::owner::judgement;
use crate::records::{Record, instances, markers, reservations};
use crate::store::{Inner, Tx};
use crate::{Holder, InstanceId, Result, Wanted};

/// Whoever reserved `wanted` and stands in the way by that: it lives, its time is not over, and it
/// is not the row `ours`.
pub(crate) fn reserved_by_another(
    tx: &Tx<'_>,
    inner: &Inner,
    wanted: &Wanted,
    ours: Option<InstanceId>,
) -> Result<Option<Box<Obstacle>>> {
    if !markers::exists(tx)? {
        return Ok(None);
    }
    let reservation = reservations::of(tx, inner.boot_time(), wanted)?
        .filter(|reservation| ours != Some(reservation.instance))
        .filter(|_| !planted(Fault::ReservationIgnored));
    let Some(reservation) = reservation else { return Ok(None) };
    let record = instances::by_id(tx, reservation.instance)?.filter(Record::is_live);
    let Some(record) = record else { return Ok(None) };
    let judged = judgement(inner, &record);
    if matches!(judged.ruling, Ruling::Dead(_)) {
        return Ok(None);
    }
    let holder = Box::new(Holder::reserved(wanted, &record, &judged, reservation.remaining));
    let watch = Some(Watch::of_instance(record));
    Ok(Some(Box::new(Obstacle { holder, watch })))
}

/// What stands in the way of a claim.
#[derive(Debug)]
pub(crate) struct Obstacle {
    pub(crate) holder: Box<Holder>,
    /// `None`: whoever stands in the way has no record.
    pub(crate) watch: Option<Watch>,
}

/// Whom to watch, and how to know that what is wanted is no longer theirs.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) record: Record,
    /// Whoever holds other slots of the same lock.
    pub(crate) others: Vec<Record>,
    /// The instance id of an office's holder, the fence of a lock, the sum of those of its slots.
    pub(crate) fence: i64,
}

impl Watch {
    pub(crate) fn new(record: Record, fence: i64) -> Self {
        Self { record, others: Vec::new(), fence }
    }

    /// Of everybody whose end may change something.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        std::iter::once(&self.record).chain(&self.others)
    }

    /// Of whoever holds something by its own row.
    pub(crate) fn of_instance(record: Record) -> Self {
        let fence = record.id.as_i64();
        Self::new(record, fence)
    }
}
