//! Granting one of the slots of a lock, or the lock without slots beside somebody who has one.

use std::collections::VecDeque;

use crate::Result;
use crate::environment::{Fault, planted};
use crate::names::slot::{Slot, limit, lowest_free};
use crate::records::LockRow;
use crate::scoped::request::LockRequest;
use crate::scoped::way::{LockWay, Look, Met, Way};

/// Whether one more fits in beside these.
pub(crate) fn has_room<'a>(
    request: &LockRequest,
    rows: impl Iterator<Item = &'a LockRow> + Clone,
) -> bool {
    let words = rows.clone().map(|row| row.slot.map(|slot| slot.of));
    let too_many = usize::from(planted(Fault::SlotTooMany));
    rows.count() < limit(words.chain([request.slots])) + too_many
}

/// The way to a lock of which `rows` are on record. Nobody is looked at whose end is not needed:
/// where there is room, the dead keep their slots until there is none.
pub(super) fn way(
    request: &LockRequest,
    rows: impl Iterator<Item = LockRow>,
    mut look_at: impl FnMut(LockRow) -> Result<Look>,
) -> Result<Way> {
    let mut unseen: VecDeque<LockRow> = rows.collect();
    let mut met: Vec<Met> = Vec::new();
    let mut over = Vec::new();
    loop {
        let rows = met.iter().map(|met| &met.row).chain(&unseen);
        if has_room(request, rows.clone()) {
            let taken: Vec<Option<Slot>> = rows.map(|row| row.slot).collect();
            let slot = request.slots.map(|of| Slot { number: lowest_free(&taken), of });
            return Ok(Way::Clear(LockWay::Free(over, slot)));
        }
        let Some(row) = unseen.pop_front() else { break };
        match look_at(row)? {
            Look::Over(row) => over.push(row),
            Look::InTheWay(holder) => met.push(*holder),
            Look::Errand(errand) => return Ok(Way::Errand(errand)),
        }
    }
    let first = met.remove(0);
    Ok(Way::Held(Box::new(Met { others: met, ..first })))
}
