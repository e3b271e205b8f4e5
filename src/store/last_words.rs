//! The last words of this process: a signal or a panic, said once.
//!
//! A normal release asks nothing of them: only a process that has left a word can have ended by it
//! (`LastWords::has_said_something`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::InstanceId;
use crate::clock::Deadline;
use crate::words::words;

words! {
    /// What a last word is about.
    pub(crate) enum What {
        Signal = "signal",
        Panic = "panic",
    }
}

/// When the last word of a kind is survived, if it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Survival {
    pub(crate) at: Deadline,
    /// Words that were said later are not meant: milliseconds of the boot clock.
    pub(crate) until_boot_ms: i64,
}

/// What this process has said in one store.
#[derive(Default)]
pub(crate) struct LastWords {
    /// A signal that it received, or a panic.
    has_said_something: AtomicBool,
    /// When a process that is still there has survived its last words of each kind.
    survivals: Mutex<HashMap<(InstanceId, What), Survival>>,
    /// Until when a panic of this process counts as the cause of its end.
    panic_counts: Mutex<Option<Deadline>>,
}

impl LastWords {
    /// It is about to leave one.
    pub(crate) fn note_said(&self) {
        self.has_said_something.store(true, Ordering::Relaxed);
    }

    /// Whether this process has left a last word in this store.
    pub(crate) fn has_said_something(&self) -> bool {
        self.has_said_something.load(Ordering::Relaxed)
    }

    /// Expects that a last word is survived; whether nobody expected one until now.
    pub(crate) fn expect_survival(
        &self,
        instance: InstanceId,
        what: What,
        mut survival: Survival,
    ) -> bool {
        let mut survivals = self.survivals.lock();
        let known = survivals.get(&(instance, what));
        if let Some(known) = known {
            survival.until_boot_ms = survival.until_boot_ms.max(known.until_boot_ms);
        }
        survivals.insert((instance, what), survival).is_none()
    }

    pub(crate) fn survival(&self, instance: InstanceId, what: What) -> Option<Survival> {
        self.survivals.lock().get(&(instance, what)).copied()
    }

    /// Expects it no more, unless there was a later word meanwhile; whether that is so.
    pub(crate) fn forget_survival(
        &self,
        instance: InstanceId,
        what: What,
        until_boot_ms: i64,
    ) -> bool {
        let mut survivals = self.survivals.lock();
        let is_later =
            |known: &Survival| known.until_boot_ms > until_boot_ms || !known.at.has_passed();
        let later = survivals.get(&(instance, what)).is_some_and(is_later);
        if !later {
            survivals.remove(&(instance, what));
        }
        !later
    }

    /// Nobody waits for it: the next word has to find somebody who does.
    pub(crate) fn cancel_survival(&self, instance: InstanceId, what: What) {
        self.survivals.lock().remove(&(instance, what));
    }

    /// Whether a thread of this process has panicked just now.
    pub(crate) fn has_just_panicked(&self) -> bool {
        self.panic_counts.lock().is_some_and(|until| !until.has_passed())
    }

    /// One that was survived for longer than this (a task whose panic was caught) ends nobody.
    pub(crate) fn note_panic(&self) {
        const COUNTS_FOR: Duration = Duration::from_secs(10);
        *self.panic_counts.lock() = Some(Deadline::after(COUNTS_FOR));
    }
}
