//! Whether a process has outlived its last word: then no end that comes later is by that.
//!
//! A process that is still there when its stop budget and 15 s more (after a panic: 5 s) have
//! passed has survived that word, and a thread writes so: a crash of next week is not blamed on the
//! signal of today. A thread waits for it, one for each office and kind of word, and only after
//! there was one. Words by verbs have no such thread, and count for as long as a stop may take.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::InstanceId;
use crate::clock::Deadline;
use crate::patience::with_budget;
use crate::records::shutdowns;
use crate::store::last_words::Survival;
use crate::store::{Inner, What};

/// Who is still there so long after a panic has survived it.
pub(crate) const AFTER_PANIC: Duration = Duration::from_secs(5);

/// How long one attempt to write it may take: whoever has something to say meanwhile is not held
/// up.
const WRITE_WITHIN: Duration = Duration::from_millis(100);

/// Between two looks, and between two attempts: nobody is in a hurry.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Notes in the store that `instance` has survived its words of this kind up to `said_boot_ms`,
/// once `after` has passed.
pub(crate) fn expect(
    inner: &Arc<Inner>,
    instance: InstanceId,
    what: What,
    said_boot_ms: i64,
    after: Duration,
) {
    let survival = Survival { at: Deadline::after(after), until_boot_ms: said_boot_ms };
    // In a forked child its lock may be held by a thread that is not there.
    if inner.check_process().is_err() || !inner.last_words.expect_survival(instance, what, survival)
    {
        return; // Somebody waits already, and from now on for this one.
    }
    let weak = Arc::downgrade(inner);
    let thread = std::thread::Builder::new().name("incumbent-survival".to_owned());
    if let Err(error) = thread.spawn(move || wait(&weak, instance, what)) {
        tracing::debug!(%error, "nobody waits for the survival of a last word");
        inner.last_words.cancel_survival(instance, what);
    }
}

fn wait(inner: &Weak<Inner>, instance: InstanceId, what: What) {
    loop {
        // A store that nobody has open any more is kept open by nobody.
        let Some(inner) = inner.upgrade() else { return };
        let Some(survival) = inner.last_words.survival(instance, what) else { return };
        let mut pause = survival.at.remaining().min(LOOK_EVERY);
        if pause.is_zero() {
            let until = survival.until_boot_ms;
            let write = || inner.write(|tx| shutdowns::survive(tx, instance, what, until));
            let is_over = match with_budget(WRITE_WITHIN, write) {
                Ok(()) => true,
                // Tried for as long as it takes: else an old word would explain every later end.
                Err(error) => !Inner::may_be_said_later(&error),
            };
            if is_over && inner.last_words.forget_survival(instance, what, until) {
                return;
            }
            pause = LOOK_EVERY;
        }
        drop(inner);
        std::thread::sleep(pause);
    }
}
