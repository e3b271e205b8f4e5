//! A run beside the lock of an older program: how later versions of that recognise it, and what
//! they ask of it.
//!
//! Later versions look again and again, believe the command line of the live process before the
//! record, and remove the files of a process that they do not know (FIELD-BUGS row 138). So `run
//! --legacy-home` executes itself once more, before it opens or starts anything, with the words
//! `--known-as hermes-gateway run`. The pid, the parent, the environment and the descriptors stay.
//! A user who writes that option is left alone. What is removed anyway is put back within 100 ms,
//! and said once.
//!
//! Before it acts on a signal that asks to end, a run looks for the marker files of the older
//! program. What they announce becomes a marker here, so that the end is a planned stop and not a
//! crash.

use std::ffi::OsString;
use std::path::Path;

use crate::cli::run::running::{LOOK_BUDGET, Watch};
use crate::cli::{args, output};
use crate::clock::millis;
use crate::error::Result;
use crate::process::older;
use crate::process::older::hold::Kept;
use crate::process::older::marker_file::MarkerFile;
use crate::process::older::wire;
use crate::records::markers::NewMarker;
use crate::records::{instances, markers};
use crate::stop_budget;
use crate::store::busy::with_budget;
use crate::sys::supervise;

/// Executes this very program again, with words in its command line that later versions of the
/// older program look for: they remove the files of a live process whose command line has none
/// (FIELD-BUGS row 138). Nothing was opened or started yet; the pid, the environment, the
/// descriptors and the parent stay as they are. Returns where that was not needed, or cannot be.
pub(super) fn become_known(arguments: &args::Run, home: &Path) {
    let words: Vec<OsString> = std::env::args_os().collect();
    if !arguments.known_as.is_empty() || wire::is_known_line(&words) {
        return;
    }
    let Some(at) = words.iter().position(|word| word == "--") else { return };
    let known_as = std::iter::once(OsString::from("--known-as")).chain(wire::known_words(home));
    let argv: Vec<OsString> =
        words[..at].iter().cloned().chain(known_as).chain(words[at..].iter().cloned()).collect();
    let error = supervise::execute_again(&argv);
    tracing::debug!(%error, "later versions of the older gateway may not recognise this run");
}

impl Watch<'_> {
    /// The older program respects the file that its path names, and no other one.
    pub(super) fn look_at_older_lock(&mut self) {
        let Some(hold) = &mut self.hold else { return };
        let path = hold.path();
        match hold.verify() {
            Ok(Kept::Held) => {}
            Ok(Kept::MadeAnew) => output::tell_aside(&format!(
                "incumbent: run: {}: {} was removed or replaced; it was created and locked again\n",
                self.tenure.office(),
                path.display()
            )),
            Ok(Kept::RecordRestored) => output::tell_aside(&format!(
                "incumbent: run: {}: {} was removed; it is written again\n",
                self.tenure.office(),
                path.with_file_name(older::PID_FILE).display()
            )),
            // It acts as well by now.
            Ok(Kept::LostTo(pid)) => {
                let who =
                    pid.map_or_else(|| "another process".to_owned(), |it| format!("pid {it}"));
                self.lose(&format!("{} was replaced, and {who} holds it", path.display()));
            }
            Err(error) => output::tell_aside(&format!(
                "incumbent: run: {}: {error}; until that works, older gateways may not see this run\n",
                self.tenure.office()
            )),
        }
    }

    /// The older program announces a stop or a takeover by a file, and signals then. What it says
    /// is kept in the store, so that the end is told for what it is. Where it cannot be kept now,
    /// the file stays for the next look.
    pub(super) fn take_older_marker(&mut self) {
        let now_ms = self.store.inner.clock().wall_ms();
        let Some(marker) = self.hold.as_ref().and_then(|hold| hold.marker(now_ms)) else { return };
        match with_budget(LOOK_BUDGET, || self.keep_older_marker(&marker)) {
            Ok(()) => marker.consume(),
            Err(error) => self.doubt(&format!(
                "cannot record the {} that {} announced: {error}",
                marker.name,
                marker.writer()
            )),
        }
    }

    fn keep_older_marker(&self, marker: &MarkerFile) -> Result<()> {
        let inner = &self.store.inner;
        inner.write(|tx| {
            let Some(record) = instances::by_id(tx, self.tenure.instance())? else { return Ok(()) };
            let Some((instance, process)) = NewMarker::target(&record) else { return Ok(()) };
            // Whoever asked first explains the end.
            if markers::asked_end(tx, tx.boot_time(), instance)?.is_some() {
                return Ok(());
            }
            let deadline = stop_budget::deadline(record.stop_budget());
            NewMarker {
                name: &marker.name,
                instance: Some(instance),
                process: &process,
                by: &marker.writer(),
                by_pid: marker.by.unwrap_or(0),
                by_uid: None,
                requester: None,
                reason: None,
                ttl_ms: millis(stop_budget::marker_lives(deadline)),
            }
            .write(tx)
            .map(drop)
        })
    }
}
