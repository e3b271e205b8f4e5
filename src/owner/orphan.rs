//! Anchors that are held and that no row accounts for.
//!
//! `status`, `stop` and `restart` look for them where nobody is on record. A question looks for 600
//! ms before it says so, because an anchor is held for an instant before its row is committed. If
//! it finds none it reads the records once more: the owner may have claimed meanwhile.

use std::time::Duration;

use rusqlite::Connection;

use crate::Result;
use crate::clock::Deadline;
use crate::process::{Orphan, anchor};
use crate::store::transaction::{lost_owners, named_anchors};
use crate::store::{Inner, ourselves};

/// How long an anchor without a row has to stay so before a question calls it an orphan: one that
/// is just being made gets its row within a millisecond, and on a busy machine within this.
const ORPHAN_SETTLES_WITHIN: Duration = Duration::from_millis(600);

/// Who refuses every claim here without a record, as a question sees it: nobody, as a rule, and
/// then it takes one look at the directory.
pub(crate) fn orphan(inner: &Inner) -> Result<Option<Orphan>> {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let known = |connection: &Connection| {
        Ok((named_anchors(connection)?, lost_owners(connection, inner.view())?))
    };
    let (mut named, lost) = inner.read(known)?;
    if let Some(owner) = lost.into_iter().find(|owner| !owner.is_us(inner.observer())) {
        return Ok(Some(owner.anchor));
    }
    named.extend(inner.own_anchor().map(|own| own.name().to_owned()));
    let until = Deadline::after(ORPHAN_SETTLES_WITHIN);
    let mut before: Option<Vec<Orphan>> = None;
    loop {
        let held = anchor::held_in(&inner.location.anchors, &named)?;
        if held.is_empty() {
            return Ok(None);
        }
        // Only now: whoever committed before its anchor was probed is on record.
        let without_row = |connection: &Connection| {
            let mut without = Vec::new();
            for it in &held {
                if !ourselves::names_anchor(connection, &it.name)? {
                    without.push(it.clone());
                }
            }
            Ok(without)
        };
        let mut suspects = inner.read(without_row)?;
        suspects.retain(|it| before.as_ref().is_none_or(|before| before.contains(it)));
        if suspects.is_empty() || (before.is_some() && until.has_passed()) {
            return Ok(suspects.into_iter().next());
        }
        before = Some(suspects);
        std::thread::sleep(LOOK_EVERY);
    }
}
