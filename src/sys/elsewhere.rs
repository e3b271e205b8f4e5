//! What the other systems answer alike, mostly because only Linux tells or does it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use super::{ListedLock, OpenedFile, Pid};

/// As sysinfo knows them: there are no plain files to read.
pub fn processes_and_parents() -> Vec<(Pid, Pid)> {
    let Ok(mut system) = System::new() else { return Vec::new() };
    let nothing = ProcessRefreshKind::nothing().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, false, nothing);
    let processes = system.processes().iter();
    processes
        .filter_map(|(pid, process)| Some((pid.as_u32(), process.parent()?.as_u32())))
        .collect()
}

pub fn program_name(pid: Pid) -> Option<String> {
    let program = command_line(pid)?.into_iter().next()?;
    Some(Path::new(&program).file_name()?.to_string_lossy().into_owned())
}

/// As sysinfo knows it.
pub fn command_line(pid: Pid) -> Option<Vec<String>> {
    let pid = sysinfo::Pid::from_u32(pid);
    let mut system = System::new().ok()?;
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[pid]),
        false,
        ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always).without_tasks(),
    );
    let arguments = system.process(pid)?.cmd().iter();
    Some(arguments.map(|argument| argument.to_string_lossy().into_owned()).collect())
}

/// There are no pid namespaces.
pub fn pid_namespace() -> Option<String> {
    None
}

pub fn process_table_is_ours() -> bool {
    true
}

/// There are no user namespaces.
pub fn unmapped_uid() -> Option<u32> {
    None
}

pub fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Directories only are mounted, no single file.
pub fn is_mount_point(_path: &Path) -> bool {
    false
}

/// Who has a file open is not looked up: macOS would have to be asked about every descriptor of
/// every process, and Windows tells it by its restart manager alone.
pub fn processes_with_files_of(_directory: &Path) -> Vec<(Pid, String)> {
    Vec::new()
}

pub fn processes_with_open_file(_path: &Path) -> Vec<Pid> {
    Vec::new()
}

pub fn files_opened_by(_pid: Pid) -> Option<Vec<OpenedFile>> {
    None
}

pub fn opened_files() -> impl Iterator<Item = OpenedFile> {
    std::iter::empty()
}

pub fn is_open_for_writing(_: &OpenedFile) -> bool {
    false
}

pub fn open_again(_opened: &OpenedFile) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

pub fn in_root_of(_pid: Pid, _path: &Path) -> Option<PathBuf> {
    None
}

pub fn shares_mounts_with(_pid: Pid) -> Option<bool> {
    None
}

/// Windows does not tell who holds a lock. On macOS `F_GETLK` would, but it needs an open file, and
/// closing that would cancel `SQLite`'s locks.
pub fn record_lock_holder(_path: &Path, _offset: u64) -> Option<Pid> {
    None
}

pub fn record_lock_holders(_path: &Path, _offset: u64) -> Option<Vec<Pid>> {
    None
}

pub fn listed_lock(_path: &Path) -> ListedLock {
    ListedLock::NoList
}

pub(crate) fn each_name(directory: &Path, mut each: impl FnMut(&str)) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        if let Some(name) = entry?.file_name().to_str() {
            each(name);
        }
    }
    Ok(())
}
