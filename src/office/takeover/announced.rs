//! What an older gateway is told before it is asked to end: its marker is a file, and without that
//! the signal counts as one that nobody meant. Its supervisor would start it again.

use std::path::PathBuf;
use std::time::Duration;

use crate::Result;
use crate::owner::older;
use crate::patience::with_budget;
use crate::process::older::marker_file;
use crate::process::older::wire::PidRecord;
use crate::process::older::write::write_whole;
use crate::records::{Record, markers};
use crate::store::Inner;
use crate::sys::{Proven, StartTimeUnit};

/// How long the store may delay a look; what it does not say, the kernel says.
pub(super) const READ_WITHIN: Duration = Duration::from_millis(100);

/// An end that was announced by a file.
#[derive(Debug)]
pub(super) struct Announced {
    home: PathBuf,
    target: PidRecord,
}

impl Announced {
    /// Announces what `owner` was asked by its marker in the store; `None` for an owner who reads
    /// that. It is a courtesy: where it cannot be written, the owner is asked without it.
    pub(super) fn to(inner: &Inner, record: &Record, owner: &Proven) -> Option<Self> {
        let home = older::home_of_holder(record)?;
        let ticks = record.start_time.filter(|time| time.unit == StartTimeUnit::Ticks);
        let start_time = ticks.map(|time| time.value);
        let target = PidRecord { pid: owner.pid(), start_time, argv: Vec::new(), owner: None };
        let announced = Self { home, target };
        match announced.write(inner, record) {
            Ok(is_written) => is_written.then_some(announced),
            Err(error) => {
                tracing::debug!(%error, "an older gateway is asked to end without its marker");
                None
            }
        }
    }

    fn write(&self, inner: &Inner, record: &Record) -> Result<bool> {
        let asked = with_budget(READ_WITHIN, || {
            inner.read(|tx| markers::asked_end(tx, inner.boot_time(), record.id))
        })?;
        let Some(marker) = asked else { return Ok(false) };
        let (name, by, at_ms) = (&marker.name, marker.by_pid, marker.written_at_ms);
        let Some((file, document)) = marker_file::document(name, &self.target, by, at_ms) else {
            return Ok(false);
        };
        write_whole(&self.home, file, &document.to_string())?;
        Ok(true)
    }

    /// It has ended: where it was killed, it has not taken its marker.
    pub(super) fn withdraw(&self) {
        marker_file::withdraw(&self.home, &self.target);
    }
}
