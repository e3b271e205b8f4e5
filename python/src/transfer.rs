//! Files of an older gateway, and counts: what is asked of a store as a whole.

use std::path::PathBuf;

use incumbent::transfer::{Exported, OlderFiles};
use incumbent::{Kind, Office, ProfileName};
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::call::outside;
use crate::reply;
use crate::store::Store;

fn office(profile: &str, kind: &str) -> Result<Office, incumbent::Error> {
    Ok(Office { profile: ProfileName::new(profile)?, kind: Kind::new(kind)? })
}

/// What was done with each file; or why nothing was, because a live process that is not the holder
/// uses them.
#[pyfunction]
pub(crate) fn export(
    py: Python<'_>,
    store: &Store,
    profile: &str,
    kind: &str,
    directory: PathBuf,
    lock_dir: Option<PathBuf>,
) -> PyResult<(String, Option<String>)> {
    outside(py, || {
        let office = office(profile, kind)?;
        Ok(match store.0.export(&office, directory, lock_dir.as_deref())? {
            Exported::Files(files) => (reply::text(&files), None),
            Exported::InUse(why) => ("[]".to_owned(), Some(why)),
            _ => ("[]".to_owned(), Some("unknown".to_owned())),
        })
    })
}

/// What was done with each file.
#[pyfunction]
pub(crate) fn import_files(
    py: Python<'_>,
    store: &Store,
    profile: &str,
    kind: &str,
    directory: PathBuf,
    lock_dir: Option<PathBuf>,
) -> PyResult<String> {
    outside(py, || {
        let office = office(profile, kind)?;
        let mut files = OlderFiles::new(directory)?;
        if let Some(lock_dir) = lock_dir {
            files = files.lock_dir(lock_dir)?;
        }
        Ok(reply::text(&store.0.import(&office, &files)?))
    })
}

/// One row for each office; None in a store that does not count yet.
#[pyfunction]
pub(crate) fn counters(py: Python<'_>, store: &Store) -> PyResult<Option<String>> {
    outside(py, || {
        Ok(store.0.counters()?.map(|counted| {
            let rows: Vec<Value> = counted
                .iter()
                .map(|(office, counters)| {
                    let mut row = json!(counters);
                    row["profile"] = json!(office.profile);
                    row["kind"] = json!(office.kind);
                    row["takeovers"] = json!(counters.takeovers());
                    row
                })
                .collect();
            reply::text(&rows)
        }))
    })
}
