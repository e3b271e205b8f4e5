//! A tenure beside the lock of an older program, and what that asks of it.

use std::path::Path;
use std::sync::Arc;

use crate::claim::OwnedRow;
use crate::clock::millis;
use crate::office::tenure::Tenure;
use crate::patience::with_budget;
use crate::process::older::beside::HeldBeside;
use crate::process::older::hold;
use crate::process::older::hold::Hold;
use crate::process::older::marker_file::MarkerFile;
use crate::process::older::wire::HoldingRun;
use crate::records::{NewMarker, instances, markers};
use crate::{LockRequest, Result, stop_budget};

/// How long the store may take to note what the older program announced: whoever asks is being
/// stopped.
const NOTE_WITHIN: std::time::Duration = std::time::Duration::from_millis(200);

impl Tenure {
    /// Takes the lock of the older program in `home` as well; false when somebody else has it.
    pub(crate) fn hold_beside(&mut self, home: &Path, locks: &[LockRequest]) -> Result<bool> {
        let OwnedRow { inner, instance, .. } = &self.footing;
        if let Some(office) = inner.held.lock().offices.get(self.office())
            && office.row.instance == *instance
            && let Some(beside) = &office.beside
        {
            self.beside = Some(Arc::clone(beside));
            return Ok(true);
        }
        let secrets: Vec<_> = locks.iter().map(|lock| &lock.identity).collect();
        let own: Vec<_> = std::env::args_os().collect();
        let owner = HoldingRun {
            store: inner.store_uuid()?.to_owned(),
            db: inner.location.file.display().to_string(),
            profile: self.office().profile.to_string(),
        };
        let argv = hold::command_words(&own, &secrets);
        let Some(hold) = Hold::take(home, inner.observer(), argv, owner)? else { return Ok(false) };
        let beside = Arc::new(HeldBeside::look_after(hold)?);
        if let Some(office) = inner.held.lock().offices.get_mut(self.office())
            && office.row.instance == *instance
        {
            office.beside = Some(Arc::clone(&beside));
        }
        self.beside = Some(beside);
        Ok(true)
    }

    /// Notes what the older program has announced, if it has: it writes a file, and signals then.
    pub(super) fn note_older_marker(&self) {
        note_older_marker(&self.footing, self.beside.as_deref());
    }
}

/// The same, for whoever has no tenure at hand.
pub(super) fn note_older_marker(footing: &OwnedRow, beside: Option<&HeldBeside>) {
    // In a forked child a thread that is not there may have locked it, and the files are for the
    // parent.
    if footing.inner.check_process().is_err() {
        return;
    }
    let now_ms = footing.inner.clock().wall_ms();
    let Some(marker) = beside.and_then(|beside| beside.marker(now_ms)) else { return };
    match with_budget(NOTE_WITHIN, || keep_older_marker(footing, &marker)) {
        Ok(()) => marker.consume(),
        // The file stays for the next look.
        Err(error) => tracing::warn!(%error, "what an older program announced is not on record"),
    }
}

/// What the older program announces becomes a marker here, so that the end is told for what it is.
pub(crate) fn keep_older_marker(footing: &OwnedRow, marker: &MarkerFile) -> Result<()> {
    footing.inner.write(|tx| {
        let Some(record) = instances::by_id(tx, footing.instance)? else { return Ok(()) };
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
