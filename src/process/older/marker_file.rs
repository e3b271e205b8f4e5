//! The two marker files: a takeover or a stop that an older program announces, or that is announced
//! to one.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::names::MarkerName;
use crate::process::older::wire::{PidRecord, Unusable};
use crate::process::older::{MARKER_FILES, wire};
use crate::{Result, sys};

/// How long a marker of the older program counts.
const LIVES_MS: i64 = 60_000;

/// A clock that was set back makes a marker one of the future, which counts as fresh in the older
/// program.
const LIVES_AHEAD_MS: i64 = -LIVES_MS;

/// Why a marker does not count.
pub(super) const EXPIRED: &str = "expired";

const OF_THE_FUTURE: &str = "of_the_future";

/// What a marker file says.
#[derive(Debug)]
pub(crate) struct MarkerFile {
    pub(crate) path: PathBuf,
    pub(crate) name: MarkerName,
    pub(crate) target: PidRecord,
    pub(crate) by: Option<sys::Pid>,
    pub(crate) written_at_ms: Option<i64>,
}

/// The marker files in `home`, and what they say.
pub(crate) fn all(home: &Path) -> Result<Vec<(PathBuf, Result<MarkerFile, Unusable>)>> {
    let read = |&(file, name): &(&str, &str)| {
        let (path, name) = (home.join(file), MarkerName::new(name)?);
        let said = wire::read_object(&path)
            .and_then(|object| MarkerFile::parse(path.clone(), name, &object));
        Ok((path, said))
    };
    MARKER_FILES.iter().map(read).collect()
}

/// The file of a marker of this name that is for `target`, and what stands in it; `None` for a name
/// that the older program does not know.
pub(crate) fn document(
    name: &MarkerName,
    target: &PidRecord,
    by: Option<sys::Pid>,
    written_at_ms: i64,
) -> Option<(&'static str, Value)> {
    let (file, _) = MARKER_FILES.iter().find(|(_, known)| *known == name.as_str())?;
    let writer = if name.as_str() == MarkerName::TAKEOVER { "replacer_pid" } else { "stopper_pid" };
    let document = json!({
        "target_pid": target.pid,
        "target_start_time": target.start_time,
        writer: by,
        "written_at": wire::python_time(written_at_ms),
    });
    Some((file, document))
}

/// Removes what was announced to `target`, which has ended without it.
pub(crate) fn withdraw(home: &Path, target: &PidRecord) {
    let files = all(home).unwrap_or_default().into_iter().filter_map(|(_, said)| said.ok());
    files
        .filter(|said| (said.target.pid, said.target.start_time) == (target.pid, target.start_time))
        .for_each(|said| said.consume());
}

impl MarkerFile {
    fn parse(
        path: PathBuf,
        name: MarkerName,
        object: &Map<String, Value>,
    ) -> Result<Self, Unusable> {
        let writer = object.get("replacer_pid").or_else(|| object.get("stopper_pid"));
        Ok(Self {
            path,
            name,
            target: PidRecord {
                pid: wire::pid(object.get("target_pid"))?,
                start_time: wire::start_time(object.get("target_start_time")),
                argv: Vec::new(),
                owner: None,
            },
            by: writer.and_then(|writer| wire::pid(Some(writer)).ok()),
            written_at_ms: object.get("written_at").and_then(wire::time_ms),
        })
    }

    /// How long it still counts, or why it does not.
    pub(crate) fn remaining_ms(&self, now_ms: i64) -> Result<i64, &'static str> {
        let written_at_ms = self.written_at_ms.ok_or("no_time")?;
        match now_ms.saturating_sub(written_at_ms) {
            ..=LIVES_AHEAD_MS => Err(OF_THE_FUTURE),
            age_ms @ ..LIVES_MS => Ok(LIVES_MS - age_ms.max(0)),
            LIVES_MS.. => Err(EXPIRED),
        }
    }

    /// Who wrote it, in words.
    pub(crate) fn writer(&self) -> String {
        match self.by {
            Some(pid) => format!("an older program (pid {pid})"),
            None => "an older program".to_owned(),
        }
    }

    /// Removes it, as whoever it is for does in the older program.
    pub(crate) fn consume(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a marker file stays behind");
        }
    }
}
