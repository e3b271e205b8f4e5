//! Other stores that are found by our own path: a process with mounts of its own (a container,
//! systemd's `PrivateTmp`, snap, flatpak) may have another directory there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::doctor::check::{Check, Observation, Scene, program};
use crate::path_text::quoted;
use crate::process::anchor;
use crate::process::anchor::lost;
use crate::store::Location;
use crate::store::location::with_sidecars;
use crate::sys::{FileKey, OpenedFile, Pid};
use crate::{Result, sys};

pub(super) const CHECKS: &[Check<Scene>] = &[Check {
    id: "namesakes",
    silent: "no process has another store at this path",
    look: namesakes,
}];

/// So many are told one by one.
const SHOWN: usize = 5;

/// Whoever only asks a question has its database open for a few milliseconds.
const ASKS_WITHIN: Duration = Duration::from_millis(100);

/// FIELD-BUGS row 101: two gateways of one token, each with a store at the same path, in which
/// nobody sees the other.
fn namesakes(scene: &Scene) -> Result<Vec<Observation>> {
    let Some(location) = &scene.location else { return Ok(Vec::new()) };
    let mut found = look(location);
    if !found.is_empty() {
        std::thread::sleep(ASKS_WITHIN);
        let again = look(location);
        found.retain(|pid, _| again.contains_key(pid));
    }
    let mut seen: Vec<Observation> =
        found.iter().take(SHOWN).map(|(pid, path)| told(*pid, path, location)).collect();
    if found.len() > SHOWN {
        seen.push(Observation::info(format!("and {} more of them", found.len() - SHOWN)));
    }
    Ok(seen)
}

/// The processes that use a store by our path that is another one than ours, and a file that they
/// have open.
fn look(location: &Location) -> BTreeMap<Pid, PathBuf> {
    let files: Vec<PathBuf> = with_sidecars(&location.file).collect();
    let own = std::process::id();
    sys::opened_files()
        .filter(|opened| opened.pid != own && !opened.is_deleted)
        .filter(|opened| is_by_our_path(opened, location, &files))
        .filter(|opened| is_of_another(opened, location))
        .map(|opened| (opened.pid, opened.path))
        .collect()
}

/// By what its link reads, or by what an anchor says of itself.
fn is_by_our_path(opened: &OpenedFile, location: &Location, files: &[PathBuf]) -> bool {
    if files.contains(&opened.path) {
        return true;
    }
    let name = opened.path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| anchor::parse_name(name).is_some())
        && (opened.path.parent() == Some(&location.anchors)
            || opened.open_again().is_ok_and(|file| lost::is_made_for(&file, &location.file)))
}

/// Neither is the file one of ours, nor is the directory at our path in its root: in the very same
/// one it would be an owner of ours, or of a store that was moved away from here, which is told
/// elsewhere.
fn is_of_another(opened: &OpenedFile, location: &Location) -> bool {
    let Ok(Some(theirs)) = opened.key() else { return false };
    let Some(name) = opened.path.file_name() else { return false };
    let is_ours = [&location.directory, &location.anchors]
        .iter()
        .any(|directory| is(&theirs, &directory.join(name)));
    let place = sys::in_root_of(opened.pid, &location.directory);
    let directory = sys::file_key(&location.directory).ok().flatten();
    let is_our_place = place.zip(directory).is_none_or(|(place, ours)| is(&ours, &place));
    !is_ours && !is_our_place
}

fn is(key: &FileKey, path: &Path) -> bool {
    sys::file_key(path).is_ok_and(|found| found.is_some_and(|found| found.is(key)))
}

/// Its command line is not shown: which words of that are secret only its own store knows.
fn told(pid: Pid, path: &Path, location: &Location) -> Observation {
    let at = quoted(&location.file);
    let text = format!(
        "{} has another store at {at}: in its own mounts that path leads elsewhere (it has {} \
         open, which is another file than here), so both stores can grant the same office",
        program(pid),
        path.display()
    );
    let look =
        format!("`nsenter -t {pid} -m incumbent --db {at} status --all` shows what it holds");
    let container = sys::supervision(pid).container;
    match container
        .filter(|theirs| sys::supervision(std::process::id()).container.as_ref() != Some(theirs))
    {
        // Containers have stores of their own as a rule.
        Some(container) => {
            Observation::info(format!("in container {container}, {text}")).remedy(look)
        }
        None => Observation::warning(text).remedy(format!(
            "{look}; to make them one, give both the same directory (systemd: `PrivateTmp=no`, or \
             a `--db PATH` that no mount hides; snap, flatpak: a directory that they share)"
        )),
    }
}
