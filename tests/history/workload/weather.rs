//! What must not come together, because the product does not promise anything for both at once.
//!
//! Where a store's directory is gone or was moved, whoever begins a new one looks through the
//! processes for owners of the old one. In another pid namespace it cannot see them (`lib.rs`, what
//! it does not guarantee). So nobody works in such a namespace from the loss of a store until all
//! who lived then have ended.

use parking_lot::Mutex;

use super::world::World;
use crate::log::Pid;

#[derive(Debug, Default)]
pub struct Weather {
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    containers: usize,
    /// A store is to be lost: no new container.
    closing: bool,
    /// Who lived when it was lost.
    survivors: Vec<Pid>,
}

/// Somebody works in a namespace of its own.
#[derive(Debug)]
#[must_use]
pub struct Inside<'a>(&'a Weather);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.now.lock().containers -= 1;
    }
}

impl Weather {
    /// Leave to work in a namespace; `None` while a store is lost.
    pub fn enter(&self, world: &World) -> Option<Inside<'_>> {
        let mut now = self.now.lock();
        let alive = world.all_alive();
        now.survivors.retain(|pid| alive.iter().any(|(other, _, _)| other == pid));
        if now.closing || !now.survivors.is_empty() {
            return None;
        }
        now.containers += 1;
        Some(Inside(self))
    }

    /// Asks for leave to lose the store: no new containers from now on. Whether there are none.
    pub fn close(&self) -> bool {
        let mut now = self.now.lock();
        now.closing = true;
        now.containers == 0
    }

    /// The store was lost, or is not to be lost any more.
    pub fn open(&self, survivors: Vec<Pid>) {
        let mut now = self.now.lock();
        now.closing = false;
        now.survivors.extend(survivors);
    }
}
