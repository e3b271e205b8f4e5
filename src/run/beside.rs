//! What a run has beside its command, made before that starts.

use crate::run::delivery::Delivery;
use crate::run::inbox::Inbox;
use crate::run::plan::{Extent, Run};
use crate::sys::signals::Catcher;
use crate::sys::supervise;

/// See above.
pub(super) struct Beside {
    pub(super) delivery: Delivery,
    /// Hears Ctrl-Z. Before there is a command it stops this process by itself.
    _suspension: Option<Catcher>,
}

impl Beside {
    /// Call it in the thread that stays with the command. What cannot be had is done without.
    pub(super) fn prepare(run: &Run, inbox: &Inbox) -> Self {
        match run.extent {
            Extent::Whole => Self {
                delivery: Delivery::of_whole(run.forward),
                _suspension: if supervise::has_terminal() { inbox.hear_suspension() } else { None },
            },
            Extent::Part => {
                Self { delivery: Delivery::of_part(run.forward), _suspension: None }
            }
        }
    }
}
