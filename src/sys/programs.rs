//! The programs of the system that we ask: `ps`, `dmesg`, `systemctl`, `sqlite3`. What root runs,
//! it finds in the directories of the system.

use std::path::PathBuf;
use std::process::Command;

/// Where the system keeps its programs, in the order of root's own `PATH`; the last one is that of
/// NixOS.
#[cfg(unix)]
const SYSTEM_DIRECTORIES: [&str; 7] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/run/current-system/sw/bin",
];

/// A program called `name`. The `PATH` of root may begin with a directory of somebody else (`sudo
/// -E`, a unit's environment), so for root it is looked for in the directories of the system only,
/// and there only among what nobody else can write. One that is not there fails to start as
/// `NotFound`.
pub(crate) fn program(name: &str) -> Command {
    Command::new(found(name).unwrap_or_else(|| PathBuf::from(name)))
}

/// Where it is looked for, for people.
pub(crate) fn program_places() -> &'static str {
    if super::effective_uid() == Some(0) { "the system's directories" } else { "PATH" }
}

#[cfg(not(unix))]
fn found(_name: &str) -> Option<PathBuf> {
    None
}

/// `None`: wherever the `PATH` says.
#[cfg(unix)]
fn found(name: &str) -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let candidates = SYSTEM_DIRECTORIES.map(|directory| PathBuf::from(directory).join(name));
    let nowhere = || PathBuf::from("/nonexistent").join(name);
    Some(candidates.into_iter().find(|path| is_roots_alone(path)).unwrap_or_else(nowhere))
}

/// The file that the path leads to, and the directories of both.
#[cfg(unix)]
fn is_roots_alone(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    const BY_OTHERS: u32 = 0o022;
    // In a user namespace the machine's root has no number, and what is his looks like that of all
    // who have none.
    let unmapped = super::unmapped_uid();
    let is_trusted = |uid: u32| uid == 0 || Some(uid) == unmapped;
    let Ok(real) = std::fs::canonicalize(path) else { return false };
    [path.parent(), real.parent(), Some(&real)].into_iter().flatten().all(|it| {
        std::fs::metadata(it)
            .is_ok_and(|facts| is_trusted(facts.uid()) && facts.mode() & BY_OTHERS == 0)
    })
}
