//! A run beside the lock of an older program: what later versions of that do to its files, and what
//! they ask of it.
//!
//! They look again and again, and remove the files of a process that they do not know. What is
//! removed is put back within 100 ms, and told.
//!
//! Before it acts on a signal that asks to end, a run looks for the marker files of the older
//! program. What they announce becomes a marker here, so that the end is a planned stop and not a
//! crash.

use crate::office::tenure::older::keep_older_marker;
use crate::patience::with_budget;
use crate::process::older;
use crate::process::older::hold::HoldState;
use crate::run::notice::Notice;
use crate::run::supervised::{LOOK_BUDGET, Supervised};

impl Supervised<'_> {
    /// The older program respects the file that its path names, and no other one.
    pub(super) fn look_at_older_lock(&mut self) {
        let Some(hold) = &mut self.hold else { return };
        let path = hold.path();
        let kept = hold.verify();
        let office = self.tenure.office();
        match &kept {
            Ok(HoldState::Held) => {}
            Ok(HoldState::MadeAnew) => {
                self.tell(&Notice::OlderLockMadeAgain { office, path: &path });
            }
            Ok(HoldState::RecordRestored) => {
                let path = path.with_file_name(older::PID_FILE);
                self.tell(&Notice::OlderRecordRestored { office, path });
            }
            // It acts as well by now.
            Ok(HoldState::LostTo(pid)) => {
                let who =
                    pid.map_or_else(|| "another process".to_owned(), |it| format!("pid {it}"));
                self.lose(&format!("{} was replaced, and {who} holds it", path.display()));
            }
            Err(error) => self.tell(&Notice::OlderLockFailed { office, error }),
        }
    }

    /// The older program announces a stop or a takeover by a file, and signals then. What it says
    /// is kept in the store, so that the end is told for what it is. Where it cannot be kept now,
    /// the file stays for the next look.
    pub(super) fn take_older_marker(&mut self) {
        let now_ms = self.store.inner.clock().wall_ms();
        let Some(marker) = self.hold.as_ref().and_then(|hold| hold.marker(now_ms)) else { return };
        match with_budget(LOOK_BUDGET, || keep_older_marker(&self.tenure.footing, &marker)) {
            Ok(()) => marker.consume(),
            Err(error) => self.doubt(&format!(
                "cannot record the {} that {} announced: {error}",
                marker.name,
                marker.writer()
            )),
        }
    }
}
