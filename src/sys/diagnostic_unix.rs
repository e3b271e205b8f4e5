//! What the detached diagnostic needs of a Unix: its log, its process, and a look at all others
//! that needs no other program.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::FlockOperation;

use super::ProcessRow;

/// Whether there is anything to ask.
pub(crate) const IS_SUPPORTED: bool = true;

/// The log tells of every process of its user: nobody else may read it.
const LOG_MODE: u32 = 0o600;

/// Opens the log for appending, made if it is missing. What is no regular file of this user is
/// refused, a symbolic link too: in a directory that others may write to it could lead anywhere.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    /// Each further round means that somebody removed or made the file in between.
    const ROUNDS_MAX: usize = 8;

    for _ in 0..ROUNDS_MAX {
        let file = match std::fs::symlink_metadata(path) {
            Ok(found) => {
                check_kind(&found)?;
                open_options().open(path)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => match create_log(path) {
                // It is the directory that is missing.
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(error),
                made => made,
            },
            Err(error) => return Err(error),
        };
        match file {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {}
            // It became a link since it was looked at.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {}
            Err(error) => return Err(error),
            Ok(file) => return check_log(&file).map(|()| file),
        }
    }
    Err(io::Error::new(ErrorKind::ResourceBusy, "it is removed and made again and again"))
}

/// Never waits: not for the reader of a FIFO that took the file's place since it was looked at.
fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .mode(LOG_MODE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// What root makes in a user's directory belongs to that user, who could not go on with it
/// otherwise.
fn create_log(path: &Path) -> io::Result<File> {
    let file = open_options().create_new(true).open(path)?;
    super::unix::give_to_owner_of_directory(&file, path)?;
    Ok(file)
}

fn check_kind(found: &std::fs::Metadata) -> io::Result<()> {
    let kind = found.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(refused(&format!("it is {what}")))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("{why}, and not a file of its own"))
}

fn check_log(file: &File) -> io::Result<()> {
    const BY_OTHERS: u32 = 0o077;
    let found = file.metadata()?;
    check_kind(&found)?;
    if found.nlink() > 1 {
        return Err(refused("it has other names (hard links)"));
    }
    let me = rustix::process::geteuid();
    if !me.is_root() && found.uid() != me.as_raw() {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!("it belongs to uid {}, and this is uid {me}", found.uid(), me = me.as_raw()),
        ));
    }
    if found.mode() & BY_OTHERS == 0 {
        return Ok(());
    }
    // Made by an older program, or by a hand. What is in it must not lose its readers by a mistyped
    // name.
    if !begins_as_a_log(file)? {
        let why = "others can read it, and it does not begin like a log of diagnostics";
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    file.set_permissions(PermissionsExt::from_mode(LOG_MODE))
}

/// It is empty, or begins as the report does.
fn begins_as_a_log(file: &File) -> io::Result<bool> {
    const BEGIN: &[u8] = b"=== shutdown diagnostic";
    let mut begin = Vec::new();
    file.take(BEGIN.len() as u64).read_to_end(&mut begin)?;
    Ok(begin.is_empty() || begin == BEGIN)
}

/// Locks the log for whoever renames it, until it is closed; false while another one has it. Who
/// only appends asks for no lock.
pub(crate) fn try_lock_log(log: &File) -> io::Result<bool> {
    match rustix::fs::flock(log, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Starts the process of a diagnostic: its output is the log, and it has nothing else of ours.
pub(crate) fn spawn(mut helper: Command, arguments: &[OsString], log: File) -> io::Result<Child> {
    helper
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        // A current directory cannot be unmounted.
        .current_dir("/")
        .spawn()
}

/// The log, in the process that was started with it: unbuffered, so that one write is one write.
pub(crate) fn standard_output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Makes the ends of our children known to us: a gateway may ignore SIGCHLD, and what it starts
/// with it.
pub(crate) fn expect_children() {
    // SAFETY: SIG_DFL is a valid disposition, and no handler runs.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Has a program lead a process group of its own, so that [`kill_group`] also ends what it starts.
pub(crate) fn lead_group(command: &mut Command) {
    command.process_group(0);
}

/// Ends a program that [`lead_group`] was called for. It must not have been waited for: only that
/// keeps the number of the group its own.
pub(crate) fn kill_group(child: &mut Child) {
    if let Some(group) = super::unix::kernel_pid(child.id()) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// Ends this process from any thread, while others hang in the kernel. Nothing is cleaned up.
pub(crate) fn end_at_once(code: i32) -> ! {
    // SAFETY: takes a number and does not return; what is open the kernel closes.
    unsafe { libc::_exit(code) }
}

/// The load averages of 1, 5 and 15 minutes, and on Linux how many of how many threads are
/// runnable.
#[cfg(target_os = "linux")]
pub(crate) fn load_average() -> Result<String, String> {
    const FILE: &str = "/proc/loadavg";
    let text = std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [one, five, fifteen, threads, ..] = fields[..] else {
        return Err(format!("{FILE}: not as proc_loadavg(5) says"));
    };
    let threads = threads.replacen('/', " of ", 1);
    Ok(format!("{one} {five} {fifteen} (1, 5, 15 min), {threads} threads runnable"))
}

/// The load averages of 1, 5 and 15 minutes.
#[cfg(not(target_os = "linux"))]
pub(crate) fn load_average() -> Result<String, String> {
    let mut averages = [0.0; 3];
    // SAFETY: room for three, as is said.
    let count = unsafe { libc::getloadavg(averages.as_mut_ptr(), 3) };
    if count < 3 {
        return Err("the kernel does not say".to_owned());
    }
    let [one, five, fifteen] = averages;
    Ok(format!("{one:.2} {five:.2} {fifteen:.2} (1, 5, 15 min)"))
}

/// Every process that can be seen, by a look of our own.
#[cfg(target_os = "linux")]
pub(crate) fn process_rows() -> Result<Vec<ProcessRow>, String> {
    if !super::process_table_is_ours() {
        return Err(FOREIGN_TABLE.to_owned());
    }
    let entries = std::fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let now_ticks = u64::try_from(now.tv_sec).unwrap_or(0) * ticks_per_second;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let rows = pids.filter_map(|pid| {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let usage = super::procfs::parse_usage(&stat)?;
        let pages = u64::try_from(rustix::param::page_size()).unwrap_or(4096) / 1024;
        Some(ProcessRow {
            pid,
            parent: Some(usage.parent).filter(|parent| *parent != 0),
            uid: std::fs::metadata(format!("/proc/{pid}")).ok().map(|found| found.uid()),
            state: Some(char::from(usage.state)),
            cpu_ms: Some(usage.cpu_ticks.saturating_mul(1_000) / ticks_per_second),
            memory_kib: Some(usage.resident_pages.saturating_mul(pages)),
            age_s: Some(now_ticks.saturating_sub(usage.start_ticks) / ticks_per_second),
        })
    });
    Ok(rows.collect())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn process_rows() -> Result<Vec<ProcessRow>, String> {
    Ok(super::process_rows_by_parents())
}

#[cfg(target_os = "linux")]
const FOREIGN_TABLE: &str = "/proc belongs to another pid namespace, or is not mounted";

/// Why processes are missing in what can be seen, if there is a reason to think so.
#[cfg(target_os = "linux")]
pub(crate) fn why_hidden() -> Option<String> {
    if !super::process_table_is_ours() {
        return Some(FOREIGN_TABLE.to_owned());
    }
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let option = super::procfs::hidepid(&std::fs::read("/proc/self/mountinfo").ok()?)?;
    Some(format!("/proc is mounted with {option}: processes of other users may be hidden"))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn why_hidden() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_log_is_private_and_grows() {
        use std::io::Write;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        open_log(&path).unwrap().write_all(b"=== shutdown diagnostic one ").unwrap();
        assert_eq!(mode_of(&path), 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        open_log(&path).unwrap().write_all(b"two").unwrap();
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(std::fs::read(&path).unwrap(), b"=== shutdown diagnostic one two");
        // Something else, which others read.
        let another = directory.path().join("another");
        std::fs::write(&another, "127.0.0.1 localhost").unwrap();
        std::fs::set_permissions(&another, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(open_log(&another).is_err());
        assert_eq!(mode_of(&another), 0o644);
        std::fs::hard_link(&path, directory.path().join("second")).unwrap();
        assert!(open_log(&path).is_err());
    }

    #[test]
    fn one_renames_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (first, second) = (open_log(&path).unwrap(), open_log(&path).unwrap());
        assert!(try_lock_log(&first).unwrap());
        assert!(!try_lock_log(&second).unwrap());
        drop(first);
        assert!(try_lock_log(&second).unwrap());
    }

    #[test]
    fn what_root_makes_for_a_user_is_the_users() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: what_root_makes_for_a_user_is_the_users needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(directory.path(), Some(65534), Some(65533)).unwrap();
        let path = directory.path().join("log");
        open_log(&path).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (65534, 65533));
    }

    #[test]
    fn we_see_ourselves() {
        let rows = process_rows().unwrap();
        let me = rows.iter().find(|row| row.pid == std::process::id()).unwrap();
        assert!(me.parent.is_some());
        assert!(load_average().unwrap().contains("(1, 5, 15 min)"));
    }
}
