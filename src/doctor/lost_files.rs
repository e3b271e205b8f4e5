//! Files of the store that somebody has open and nobody else finds any more: deleted by a cleaner,
//! or replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::doctor::check::{Check, Observation, Scene, listed, program};
use crate::store::location::with_sidecars;
use crate::sys::Pid;
use crate::{Result, sys};

pub(super) const CHECKS: &[Check<Scene>] = &[Check {
    id: "lost_files",
    silent: "every user of the store has its current files open",
    look: lost_files,
}];

/// Whoever notices by himself has noticed within this.
const NOTICES_WITHIN: Duration = Duration::from_millis(1_500);

/// So many are told one by one.
const SHOWN: usize = 5;

/// FIELD-BUGS rows 98 and 99: what they write is seen by nobody.
fn lost_files(scene: &Scene) -> Result<Vec<Observation>> {
    // Also where nothing is left of the place.
    let file = scene.file();
    let mut found = look(&file);
    if !found.is_empty() {
        std::thread::sleep(NOTICES_WITHIN);
        let again = look(&file);
        found.retain(|pid, _| again.contains_key(pid));
    }
    let told = |(pid, files): (&Pid, &Vec<PathBuf>)| {
        let names = listed(files, files.len(), |file| file.display().to_string());
        Observation::error(format!(
            "{} has files of the store open that were deleted or replaced ({names}): nobody sees \
             what it writes there, and it does not see others",
            program(*pid)
        ))
        .remedy(format!(
            "a gateway notices when it checks its office; end pid {pid} if it is not a gateway, or \
             never checks. Keep cleaners of old files away from {} (systemd-tmpfiles: a line `x \
             {0}*`)",
            file.display()
        ))
    };
    let mut seen: Vec<Observation> = found.iter().take(SHOWN).map(told).collect();
    if found.len() > SHOWN {
        seen.push(Observation::info(format!("and {} more of them", found.len() - SHOWN)));
    }
    Ok(seen)
}

/// Who has such files open, and which.
fn look(file: &Path) -> BTreeMap<Pid, Vec<PathBuf>> {
    let files: Vec<PathBuf> = with_sidecars(file).collect();
    let own = std::process::id();
    let is_of_ours = |opened: &sys::OpenedFile| {
        opened.pid != own
            && opened.is_deleted
            && files.contains(&opened.path)
            && sys::shares_mounts_with(opened.pid) != Some(false)
            // Whoever has claimed again keeps the old ones for reading, to know them.
            && opened.is_open_for_writing()
    };
    let mut found: BTreeMap<Pid, Vec<PathBuf>> = BTreeMap::new();
    for opened in sys::opened_files().filter(is_of_ours) {
        let lost = found.entry(opened.pid).or_default();
        if !lost.contains(&opened.path) {
            lost.push(opened.path);
        }
    }
    found
}
