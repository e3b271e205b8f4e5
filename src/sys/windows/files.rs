//! Files and filesystems of Windows.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsRawHandle, RawHandle};
use std::path::{Path, PathBuf};

use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_FLAG_BACKUP_SEMANTICS, FILE_STANDARD_INFO, FileStandardInfo,
    GetDiskFreeSpaceExW, GetDriveTypeW, GetFileInformationByHandle, GetFileInformationByHandleEx,
    GetFinalPathNameByHandleW, GetVolumeInformationW, GetVolumePathNameW,
};
use windows_sys::Win32::System::WindowsProgramming::DRIVE_REMOTE;

use super::locks::SHARE_ALL;
use super::{length, until_nul, wide};
use crate::sys::{
    DirectoryState, FileFacts, FileId, FileKey, Filesystem, FilesystemClass, FreeSpace, Membership,
};

/// Opened without any access right, so that no share mode of SQLite's is in the way; on Windows
/// locks belong to the handle, and closing another one cancels nothing.
pub fn file_facts(path: &Path) -> io::Result<FileFacts> {
    let file = OpenOptions::new()
        .access_mode(0)
        .share_mode(SHARE_ALL)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS)
        .open(path)?;
    open_file_facts(&file)
}

/// A name in a directory of ours stands for its file here: nobody replaces one that is locked.
pub fn file_key(_: &Path) -> io::Result<Option<FileKey>> {
    Ok(None)
}

pub fn linked_file_key(_: &Path) -> io::Result<Option<FileKey>> {
    Ok(None)
}

/// The times of a directory are written late here, or not at all.
pub(crate) fn directory_state(_: &Path) -> Option<DirectoryState> {
    None
}

pub fn open_file_key(_: &File) -> io::Result<Option<FileKey>> {
    Ok(None)
}

pub fn open_file_facts(file: &File) -> io::Result<FileFacts> {
    let handle = file.as_raw_handle();
    let mut info = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open, `info` is written.
    if unsafe { GetFileInformationByHandle(handle, &raw mut info) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let inode = u64::from(info.nFileIndexHigh) << 32 | u64::from(info.nFileIndexLow);
    // Some redirectors have no file index.
    let id = if inode == 0 {
        FileId::Path(real_path_in_lower_case(handle)?)
    } else {
        FileId::Inode { device: u64::from(info.dwVolumeSerialNumber), inode }
    };
    let links = if delete_is_pending(handle) { 0 } else { u64::from(info.nNumberOfLinks) };
    let length = u64::from(info.nFileSizeHigh) << 32 | u64::from(info.nFileSizeLow);
    Ok(FileFacts { id, owner: None, group: None, mode: None, links, length, modified: None })
}

pub(super) fn real_path_in_lower_case(handle: RawHandle) -> io::Result<PathBuf> {
    // The longest path that the kernel knows, with its NUL.
    let mut path = vec![0_u16; 32_768];
    // SAFETY: the handle is open, the buffer is passed with its length in characters. 0 asks for
    // the drive letter form.
    let written = unsafe { GetFinalPathNameByHandleW(handle, path.as_mut_ptr(), length(&path), 0) };
    if written == 0 || written >= length(&path) {
        return Err(io::Error::last_os_error());
    }
    let path = until_nul(&path);
    Ok(PathBuf::from(path.to_string_lossy().to_lowercase()))
}

/// A deleted file keeps its link in the count until its last handle is closed.
fn delete_is_pending(handle: RawHandle) -> bool {
    let mut info = FILE_STANDARD_INFO::default();
    let Ok(size) = u32::try_from(size_of_val(&info)) else {
        return false;
    };
    // SAFETY: the handle is open; at most `size` bytes are written to a struct of that size.
    let known = unsafe {
        GetFileInformationByHandleEx(handle, FileStandardInfo, (&raw mut info).cast(), size)
    };
    known != 0 && info.DeletePending
}

/// What a profile directory inherits is private to its user.
pub fn create_private_dirs(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

pub const STATE_DIRECTORY: (&str, Option<&str>) = ("LOCALAPPDATA", None);

pub fn may_write(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|facts| !facts.permissions().readonly())
}

pub fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, at)
}

/// What is there can be read, as far as its attributes tell.
pub fn may_read(path: &Path) -> bool {
    path.exists()
}

/// Who may do what is told by inherited access lists here, which are left as they are.
#[expect(clippy::unnecessary_wraps, reason = "the same shape everywhere")]
pub fn pin_directory(_path: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

pub fn open_directory(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

pub fn open_in(_directory: &File, _name: &OsStr) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

pub fn path_of_open(_directory: &File) -> Option<PathBuf> {
    None
}

pub fn facts_in(_directory: &File, _name: &OsStr) -> io::Result<FileFacts> {
    Err(io::ErrorKind::Unsupported.into())
}

pub fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub fn set_mode_in(
    _directory: &File,
    _name: &OsStr,
    _expected: &FileFacts,
    _mode: u32,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub fn is_private_group(_gid: u32, _uid: u32, _membership: Membership) -> bool {
    false
}

pub fn owners_of_links(_path: &Path) -> Vec<u32> {
    Vec::new()
}

pub fn rename_beside(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

pub fn link_beside(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to)
}

#[expect(clippy::unnecessary_wraps, reason = "the same shape everywhere")]
pub fn give_to_owner_of_directory(_file: &File, _path: &Path) -> io::Result<()> {
    Ok(())
}

/// The volume's own word for its filesystem, and whether the drive is a network's.
pub fn filesystem_of(directory: &Path) -> Option<Filesystem> {
    let path = wide(directory);
    let mut root = [0_u16; 1024];
    let mut kind = [0_u16; 64];
    // SAFETY: `path` ends in NUL; each buffer is passed with its length in characters, and the
    // values not wanted are null as the functions allow.
    unsafe {
        if GetVolumePathNameW(path.as_ptr(), root.as_mut_ptr(), length(&root)) == 0 {
            return None;
        }
        let is_remote = GetDriveTypeW(root.as_ptr()) == DRIVE_REMOTE;
        let known = GetVolumeInformationW(
            root.as_ptr(),
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            kind.as_mut_ptr(),
            length(&kind),
        ) != 0;
        let kind = until_nul(&kind).to_string_lossy().into_owned();
        if is_remote {
            // A server that does not answer is a server all the same.
            let kind = if known { kind } else { "network".to_owned() };
            let class = FilesystemClass::Remote;
            return Some(Filesystem { kind, class });
        }
        let class = classify_local(&kind);
        known.then_some(Filesystem { kind, class })
    }
}

/// What this user's quota leaves. NTFS makes room for files as it goes.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    // A file's name is taken for none: the directory that it is in.
    let directory = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let directory = wide(directory);
    let (mut bytes, mut bytes_total) = (0_u64, 0_u64);
    // SAFETY: the path ends in NUL, two numbers are written, and the third is not wanted.
    let found = unsafe {
        GetDiskFreeSpaceExW(
            directory.as_ptr(),
            &raw mut bytes,
            &raw mut bytes_total,
            std::ptr::null_mut(),
        )
    };
    if found == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(FreeSpace { bytes, bytes_total, files: None })
}

/// As the volume says of itself: a disc, or a snapshot.
pub fn is_mounted_read_only(path: &Path) -> io::Result<bool> {
    /// `FILE_READ_ONLY_VOLUME` of winnt.h.
    const READ_ONLY: u32 = 0x0008_0000;
    let path = wide(path);
    let mut root = [0_u16; 1024];
    let mut flags = 0;
    // SAFETY: `path` ends in NUL; the buffer is passed with its length in characters, one number is
    // written, and the values not wanted are null as the functions allow.
    let is_known = unsafe {
        GetVolumePathNameW(path.as_ptr(), root.as_mut_ptr(), length(&root)) != 0
            && GetVolumeInformationW(
                root.as_ptr(),
                std::ptr::null_mut(),
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                &raw mut flags,
                std::ptr::null_mut(),
                0,
            ) != 0
    };
    if is_known { Ok(flags & READ_ONLY != 0) } else { Err(io::Error::last_os_error()) }
}

/// `WinFsp` names its volumes `FUSE` or `FUSE-<server>`, Dokan `DOKAN`: programs of the user, shown
/// as local drives.
pub(super) fn classify_local(kind: &str) -> FilesystemClass {
    let kind = kind.to_ascii_lowercase();
    if matches!(kind.as_str(), "fuse-sshfs" | "fuse-rclone") {
        FilesystemClass::Remote
    } else if kind.starts_with("fuse") || kind.starts_with("dokan") {
        FilesystemClass::UserSpace
    } else {
        FilesystemClass::Local
    }
}
