//! A long list of changes, some in one transaction: nobody else can start while one lasts.
//!
//! So nothing that grows with the store is done in one transaction. `unlock --stale` and `doctor
//! --fix` look for the dead outside, and end at most 500 locks, or 10 ms of records, at a time. A
//! claim sweeps for 10 ms; pruning deletes 500 rows. The end of a row deletes 500 of its locks, and
//! `Inner::go_on_with` goes on for 50 ms. What is left then belongs to nobody, because a row that
//! has ended holds nothing. It goes with `unlock --stale`, with the next claim of such a lock, or
//! before the row is pruned.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Result;
use crate::clock::Deadline;
use crate::store::handle::Inner;
use crate::store::transaction::Tx;

/// How long one transaction goes on to the next of the list: each has to be looked at.
const TURN: Duration = Duration::from_millis(10);

/// Between two transactions: whoever waits for the write lock asks for it again within this.
const PAUSE: Duration = Duration::from_millis(1);

/// How far one of the list has come.
pub(crate) enum Progress {
    Done,
    /// The next transaction goes on with it.
    Unfinished,
}

/// Does `step` for each that is `left`, and tells `committed` what each transaction came to: that
/// stays done, whatever becomes of the next. One transaction at least: who may not write is told
/// so, also where nothing is to be done.
pub(crate) fn in_turns<T, Did: Default>(
    inner: &Inner,
    mut left: VecDeque<T>,
    step: impl Fn(&Tx<'_>, &T, &mut Did) -> Result<Progress>,
    mut committed: impl FnMut(Did),
) -> Result<()> {
    loop {
        let (done, did) = inner.write(|tx| {
            let until = Deadline::after(TURN);
            let (mut done, mut did) = (0, Did::default());
            for one in &left {
                match step(tx, one, &mut did)? {
                    Progress::Done => done += 1,
                    Progress::Unfinished => break,
                }
                if until.has_passed() {
                    break;
                }
            }
            Ok((done, did))
        })?;
        left.drain(..done);
        committed(did);
        if left.is_empty() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}
