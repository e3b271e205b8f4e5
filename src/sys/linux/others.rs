//! What else runs: sessions, environments, services.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::procfs;
use super::super::unix::own_pid;
use super::super::{Pid, Supervision, TableShows, note};
use super::process::read_stat;
use super::{process_table_is_ours, read_proc};

/// One pass over the process table.
pub fn processes_and_parents() -> Vec<(Pid, Pid)> {
    if !process_table_is_ours() {
        return Vec::new();
    }
    let entries = std::fs::read_dir("/proc").map_err(note).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, read_stat(pid)?.parent)))
        .collect()
}

/// The first process of a namespace ends with the namespace: if it does not show, it is hidden.
pub fn table_shows() -> TableShows {
    if !process_table_is_ours() {
        TableShows::Nothing
    } else if read_stat(1).is_some() {
        TableShows::All
    } else {
        TableShows::OwnUserOnly
    }
}

pub fn session_of(pid: Pid) -> Option<Pid> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    // SAFETY: getsid(2) only looks. rustix does not expect its 0: a session that was made in
    // another pid namespace, and has no number here.
    let session = unsafe { libc::getsid(pid) };
    Pid::try_from(session).ok()
}

pub fn processes_of_session(session: Pid) -> Option<Vec<Pid>> {
    if !process_table_is_ours() {
        return None;
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(note).ok()? {
        let name = entry.map_err(note).ok()?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if pid != own_pid() && session_of(pid) == Some(session) {
            found.push(pid);
        }
    }
    Some(found)
}

pub fn environment_of(pid: Pid) -> Option<Vec<String>> {
    if !process_table_is_ours() {
        return None;
    }
    let bytes = read_proc(&format!("/proc/{pid}/environ"))?;
    let words = bytes.split(|&byte| byte == 0).filter(|word| !word.is_empty());
    Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

pub fn processes_with_environment(word: &str) -> Vec<Pid> {
    let has_it = |pid: &Pid| {
        environment_of(*pid).is_some_and(|words| words.iter().any(|found| found == word))
    };
    other_processes().filter(has_it).collect()
}

/// `proc_pid_cwd(5)`.
pub fn directory_of(pid: Pid) -> Option<std::path::PathBuf> {
    if !process_table_is_ours() {
        return None;
    }
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// The name of a program, as the kernel keeps it: at most 15 bytes.
pub fn program_name(pid: Pid) -> Option<String> {
    if !process_table_is_ours() {
        return None;
    }
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

pub fn supervision(pid: Pid) -> Supervision {
    let directory = if pid == own_pid() {
        // About us even where the table belongs to an outer namespace.
        "/proc/self".to_owned()
    } else if process_table_is_ours() {
        format!("/proc/{pid}")
    } else {
        return Supervision::default();
    };
    let cgroup = read_proc(&format!("{directory}/cgroup")).unwrap_or_default();
    let container = procfs::container_of_cgroup(&cgroup)
        .or_else(|| {
            let mountinfo = read_proc(&format!("{directory}/mountinfo"))?;
            procfs::container_of_mounts(&mountinfo)
        })
        .or_else(|| container_by_marker(pid));
    Supervision {
        systemd_service: procfs::systemd_service(&cgroup),
        launchd_label: None,
        container,
    }
}

/// The marker files of docker and podman in the root directory. They speak for `pid` only if it
/// has the same root as we.
pub(super) fn container_by_marker(pid: Pid) -> Option<String> {
    let root = |path: &str| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    if pid != own_pid() && root(&format!("/proc/{pid}/root/")) != Some(root("/")?) {
        return None;
    }
    [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")]
        .iter()
        .find(|(marker, _)| Path::new(marker).exists())
        .map(|(_, word)| (*word).to_owned())
}

/// Every process that this `/proc` shows, but us.
pub(crate) fn other_processes() -> impl Iterator<Item = Pid> {
    let entries = process_table_is_ours().then(|| std::fs::read_dir("/proc").ok()).flatten();
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &Pid| *pid != own_pid())
}
