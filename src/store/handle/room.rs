//! A full disk that a checkpoint eases (FIELD-BUGS row 133).
//!
//! The disk may be full of somebody else's files, and the WAL beside our database full of pages for
//! which the database has room. A checkpoint moves them there. No change can do that itself: it is
//! rolled back first, and done again after the checkpoint. First the WAL starts over in the room
//! that it has, then it gives that up for a file beside it, such as an anchor. So the work of
//! `Inner::write` may run more than once, and has to be repeatable.
//!
//! A write beyond `RLIMIT_FSIZE` is such an error, too. The program catches SIGXFSZ with a handler,
//! because exec gives the command back what it would have had.

use std::time::Duration;

use rusqlite::Connection;

use super::Inner;
use crate::store::pragmas;
use crate::{Result, patience};

/// First the WAL starts over in the room that it has. If that is not enough, it gives that up for a
/// file beside it, such as an anchor; and somebody else may be faster to take it.
const CHECKPOINTS: [&str; 2] = ["RESTART", "TRUNCATE"];

impl Inner {
    /// Does `change`, and again after each checkpoint for as long as it finds no room.
    pub(super) fn making_room<T>(
        &self,
        writer: &mut Option<Connection>,
        mut change: impl FnMut(&mut Option<Connection>) -> Result<T>,
    ) -> Result<T> {
        let mut changed = change(writer);
        for how in CHECKPOINTS {
            match &changed {
                Err(error) if error.is_of_no_room() && self.make_room(writer, how) => {
                    changed = change(writer);
                }
                Ok(_) | Err(_) => break,
            }
        }
        changed
    }

    /// Whether the whole WAL was moved: not while a reader needs what was before, who is not waited
    /// for long.
    fn make_room(&self, writer: &mut Option<Connection>, how: &str) -> bool {
        const BUDGET: Duration = Duration::from_millis(250);
        patience::with_budget(BUDGET, || {
            let is_ours = self.refuse_lost().is_ok();
            is_ours && self.connected(writer).is_ok_and(|it| pragmas::checkpoint(it, how))
        })
    }
}
