//! Windows: process handles for existence, files shared for everything. No signal anywhere: there
//! "signal 0" is Ctrl+C to a whole console group.

mod files;
mod locks;

use std::ffi::OsStr;
use std::io;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::time::Duration;

use windows_sys::Wdk::System::Threading::{NtQueryInformationProcess, ProcessBasicInformation};
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_INVALID_PARAMETER, ERROR_SUCCESS, FILETIME, STILL_ACTIVE,
    WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::System::Registry::{
    HKEY_LOCAL_MACHINE, RRF_RT_REG_SZ, RRF_SUBKEY_WOW6464KEY, RegGetValueW,
};
use windows_sys::Win32::System::SystemInformation::GetTickCount64;
use windows_sys::Win32::System::Threading::{
    GetExitCodeProcess, GetProcessId, GetProcessTimes, OpenProcess, PROCESS_ACCESS_RIGHTS,
    PROCESS_BASIC_INFORMATION, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE,
    PROCESS_TERMINATE, TerminateProcess, WaitForSingleObject,
};

pub(crate) use self::files::directory_state;
pub use self::files::{
    STATE_DIRECTORY, create_private_dirs, facts_in, file_facts, file_key, filesystem_of,
    free_space, give_to_owner_of_directory, is_mounted_read_only, is_private_group, link_beside,
    linked_file_key, may_read, may_write, open_directory, open_file_facts, open_file_key, open_in,
    owners_of_links, path_of_open, pin_directory, read_at, rename_beside, set_mode, set_mode_in,
};
pub use self::locks::{
    await_command_lock, command_lock, create_anchor_file, foreign_unlock, hold_command_lock,
    lock_self_test, open_anchor_file, open_command_lock, open_foreign_lock_file, owner_follows,
    say_that_we_follow, try_foreign_lock,
};
pub(crate) use super::elsewhere::each_name;
pub use super::elsewhere::{
    command_line, exchange, files_opened_by, in_root_of, is_mount_point, is_open_for_writing,
    listed_lock, open_again, opened_files, pid_namespace, process_table_is_ours,
    processes_and_parents, processes_with_files_of, processes_with_open_file, program_name,
    record_lock_holder, record_lock_holders, shares_mounts_with, unmapped_uid,
};
use super::{
    CaptureError, Captured, Existence, OpenProcessError, Pid, ProcessFacts, ProcessNumber,
    ProcessState, StartTime, StartTimeUnit, Supervision, note,
};

fn open_process(pid: Pid, access: PROCESS_ACCESS_RIGHTS) -> Result<OwnedHandle, OpenProcessError> {
    // SAFETY: takes numbers only; a handle that is not null is ours to close.
    let handle = unsafe {
        let handle = OpenProcess(access, 0, pid);
        if handle.is_null() {
            return Err(open_process_error(io::Error::last_os_error()));
        }
        OwnedHandle::from_raw_handle(handle)
    };
    // Process ids are multiples of four and the kernel ignores the last two bits, so that 4k + 1
    // opens 4k. A number that is nobody's must not find a process.
    // SAFETY: the handle is open.
    if unsafe { GetProcessId(handle.as_raw_handle()) } != pid {
        return Err(OpenProcessError::Gone);
    }
    Ok(handle)
}

fn open_process_error(error: io::Error) -> OpenProcessError {
    match error.raw_os_error().map(i32::cast_unsigned) {
        // What OpenProcess says of a number that no process has, and of 0.
        Some(ERROR_INVALID_PARAMETER) => OpenProcessError::Gone,
        // A protected process, or one of another session.
        Some(ERROR_ACCESS_DENIED) => OpenProcessError::Denied,
        _ => OpenProcessError::Other(note(error)),
    }
}

/// `None` when the handle may not be waited on.
fn wait_ms(process: &OwnedHandle, timeout_ms: u32) -> Option<bool> {
    // SAFETY: the handle is open for as long as it is borrowed.
    match unsafe { WaitForSingleObject(process.as_raw_handle(), timeout_ms) } {
        WAIT_OBJECT_0 => Some(true),
        WAIT_TIMEOUT => Some(false),
        _ => None,
    }
}

pub fn process_facts(pid: Pid) -> ProcessFacts {
    match open_process(pid, PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE) {
        Ok(process) => facts_of(&process),
        Err(OpenProcessError::Gone) => {
            ProcessFacts { existence: Existence::Gone, ..ProcessFacts::UNKNOWN }
        }
        Err(OpenProcessError::Denied) => facts_without_wait(pid),
        Err(OpenProcessError::Other(_)) => ProcessFacts::UNKNOWN,
    }
}

/// The right to wait is refused more often than the right to ask.
fn facts_without_wait(pid: Pid) -> ProcessFacts {
    match open_process(pid, PROCESS_QUERY_LIMITED_INFORMATION) {
        Ok(process) => facts_of(&process),
        // Refused, so it is there.
        Err(OpenProcessError::Denied) => {
            ProcessFacts { existence: Existence::Present, ..ProcessFacts::UNKNOWN }
        }
        Err(OpenProcessError::Gone) => {
            ProcessFacts { existence: Existence::Gone, ..ProcessFacts::UNKNOWN }
        }
        Err(OpenProcessError::Other(_)) => ProcessFacts::UNKNOWN,
    }
}

fn facts_of(process: &OwnedHandle) -> ProcessFacts {
    let start_time = start_time_of(process);
    ProcessFacts {
        existence: existence_of(process),
        start_time,
        // Suspension is a count per thread, and nothing a process asks for itself.
        state: ProcessState::Unknown,
        uid: None,
        parent: start_time.and_then(|start_time| parent_of(process, start_time)),
        number: None,
    }
}

/// A process object outlives its process while somebody has a handle on it, as a zombie does; it
/// is signalled from the end of the last thread on.
fn existence_of(process: &OwnedHandle) -> Existence {
    match wait_ms(process, 0) {
        Some(true) => Existence::Gone,
        Some(false) => Existence::Present,
        None => {
            let mut code = 0;
            // SAFETY: the handle is open, `code` is written.
            let known = unsafe { GetExitCodeProcess(process.as_raw_handle(), &raw mut code) } != 0;
            match known {
                // 259 may be an exit code too; then a dead process counts as present.
                true if code == STILL_ACTIVE.cast_unsigned() => Existence::Present,
                true => Existence::Gone,
                false => Existence::Unknown,
            }
        }
    }
}

/// The creation time as the kernel keeps it: fixed when the process starts, so it does not move
/// with the clock.
fn start_time_of(process: &OwnedHandle) -> Option<StartTime> {
    let mut times = [FILETIME::default(); 4];
    let [created, exited, kernel, user] = &mut times;
    // SAFETY: the handle is open and the four times are written.
    let known = unsafe { GetProcessTimes(process.as_raw_handle(), created, exited, kernel, user) };
    let [created, ..] = times;
    let count = u64::from(created.dwHighDateTime) << 32 | u64::from(created.dwLowDateTime);
    (known != 0 && count != 0)
        .then_some(StartTime { value: i64::try_from(count).ok()?, unit: StartTimeUnit::Filetime })
}

/// Windows keeps the number of the parent for ever and gives it to others once the parent is gone:
/// a process that is younger than its child is not the parent.
fn parent_of(process: &OwnedHandle, start_time: StartTime) -> Option<Pid> {
    let mut basic = PROCESS_BASIC_INFORMATION::default();
    let size = u32::try_from(size_of_val(&basic)).ok()?;
    // SAFETY: the handle is open; at most `size` bytes are written to a struct of that size.
    let status = unsafe {
        NtQueryInformationProcess(
            process.as_raw_handle(),
            ProcessBasicInformation,
            (&raw mut basic).cast(),
            size,
            std::ptr::null_mut(),
        )
    };
    let parent = Pid::try_from(basic.InheritedFromUniqueProcessId).ok()?;
    if status != 0 || parent == 0 {
        return None;
    }
    match open_process(parent, PROCESS_QUERY_LIMITED_INFORMATION) {
        Ok(handle) => (start_time_of(&handle)?.value <= start_time.value).then_some(parent),
        Err(OpenProcessError::Denied) => Some(parent),
        Err(OpenProcessError::Gone | OpenProcessError::Other(_)) => None,
    }
}

/// Written when Windows is installed; cloned images share it unless they were generalized.
pub fn host_id() -> Option<String> {
    let key = wide("SOFTWARE\\Microsoft\\Cryptography");
    let name = wide("MachineGuid");
    let mut text = [0_u16; 64];
    let mut size = u32::try_from(size_of_val(&text)).ok()?;
    // SAFETY: both names end in NUL, and `size` is that of the buffer in bytes. A 32-bit process
    // has a view of its own, hence the flag.
    let status = unsafe {
        RegGetValueW(
            HKEY_LOCAL_MACHINE,
            key.as_ptr(),
            name.as_ptr(),
            RRF_RT_REG_SZ | RRF_SUBKEY_WOW6464KEY,
            std::ptr::null_mut(),
            text.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    let id = until_nul(&text).to_string_lossy().trim().to_lowercase();
    (status == ERROR_SUCCESS && !id.is_empty()).then_some(id)
}

/// The boot sequence number that the loader counts up and the kernel shows to every process:
/// `KUSER_SHARED_DATA.BootId`, Windows 10 and later, 0 before (and under wine): then unknown.
///
/// Not the boot time: the kernel moves it whenever the clock is set, and a boot id that changes
/// within a boot would declare every living owner dead. A number that repeats, as after restoring
/// an image, does no harm, since start times here are absolute.
pub fn boot_id() -> Option<String> {
    /// `SharedUserData` of ntddk.h, at the same address in every process.
    const SHARED_USER_DATA: usize = 0x7ffe_0000;
    const BOOT_ID_OFFSET: usize = 0x2c4;

    let address = std::ptr::with_exposed_provenance::<u32>(SHARED_USER_DATA + BOOT_ID_OFFSET);
    // SAFETY: the page is mapped read-only in every process of every Windows NT, the field is
    // aligned, and it does not change within a boot.
    let number = unsafe { address.read_volatile() };
    (number != 0).then(|| format!("boot-{number}"))
}

/// Since the start of the system, sleep and hibernation included, in steps of the timer tick (10 to
/// 16 ms).
pub fn boot_clock_ms() -> i64 {
    // SAFETY: takes and writes nothing.
    let now_ms = unsafe { GetTickCount64() };
    i64::try_from(now_ms).unwrap_or(i64::MAX)
}

/// Not asked for.
pub fn asleep_ms() -> i64 {
    0
}

pub fn effective_uid() -> Option<u32> {
    None
}

/// See [`super::ProcessHandle`]. While the handle is open the kernel gives the number to nobody.
#[derive(Debug)]
pub struct ProcessHandle {
    pid: Pid,
    process: OwnedHandle,
}

impl ProcessHandle {
    pub fn open(pid: Pid) -> Result<Self, OpenProcessError> {
        let access = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
        open_process(pid, access).map(|process| Self { pid, process })
    }

    pub fn number(&self) -> Option<ProcessNumber> {
        None
    }

    pub fn start_time(&self) -> Option<StartTime> {
        start_time_of(&self.process)
    }

    /// There are no numbers of users.
    #[expect(clippy::unused_self, reason = "the contract of all platforms")]
    pub fn users(&self) -> Option<[u32; 2]> {
        None
    }

    #[allow(clippy::unused_self, reason = "as where there is a descriptor")]
    pub fn can_be_polled(&self) -> bool {
        false
    }

    pub fn wait_ended(&self, timeout: Duration) -> bool {
        // One wait takes at most 2^32 - 2 ms, the value above means "for ever".
        const STEP_MS_MAX: u32 = u32::MAX - 1;
        // Rounded up: a wait must not end before its time.
        let mut remaining_ms = timeout.as_nanos().div_ceil(1_000_000);
        loop {
            let step_ms = u32::try_from(remaining_ms).map_or(STEP_MS_MAX, |ms| ms.min(STEP_MS_MAX));
            remaining_ms -= u128::from(step_ms);
            match wait_ms(&self.process, step_ms) {
                Some(true) => return true,
                Some(false) if remaining_ms > 0 => {}
                Some(false) | None => return false,
            }
        }
    }

    /// There is nothing to send: the marker is the request.
    #[expect(clippy::unused_self, reason = "the contract of all platforms")]
    pub fn ask_to_end(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[expect(clippy::unused_self, reason = "the contract of all platforms")]
    pub fn resume(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[expect(clippy::unused_self, reason = "the contract of all platforms")]
    pub fn send(&self, _number: i32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn kill(&self) -> io::Result<()> {
        // The right to ask is what `GetProcessId` needs.
        let access = PROCESS_TERMINATE | PROCESS_QUERY_LIMITED_INFORMATION;
        let process = match open_process(self.pid, access) {
            Ok(process) => process,
            Err(OpenProcessError::Gone) => return Ok(()),
            Err(OpenProcessError::Denied) => return Err(io::ErrorKind::PermissionDenied.into()),
            Err(OpenProcessError::Other(error)) => return Err(error),
        };
        // SAFETY: the handle is open.
        if unsafe { TerminateProcess(process.as_raw_handle(), KILLED) } != 0 {
            return Ok(());
        }
        // "Access denied" is also the answer for a process that has just ended.
        let error = io::Error::last_os_error();
        if self.wait_ended(Duration::ZERO) { Ok(()) } else { Err(error) }
    }
}

/// The exit code of a process that we ended: 128 + 9, as a shell says it of SIGKILL.
const KILLED: u32 = 137;

/// The service control manager says nothing about a process that is not a service of its own.
pub fn supervision(_pid: Pid) -> Supervision {
    Supervision::default()
}

pub fn capture(
    _command: &mut std::process::Command,
    _timeout: Duration,
    _bytes_max: usize,
) -> Result<Captured, CaptureError> {
    let error = io::Error::new(io::ErrorKind::Unsupported, "nothing is asked on Windows");
    Err(CaptureError::Start(error))
}

fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

fn until_nul(text: &[u16]) -> std::ffi::OsString {
    let end = text.iter().position(|&unit| unit == 0);
    std::ffi::OsString::from_wide(&text[..end.unwrap_or(text.len())])
}

fn length(buffer: &[u16]) -> u32 {
    u32::try_from(buffer.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    use super::files::{classify_local, real_path_in_lower_case};
    use super::*;
    use crate::sys;
    use crate::sys::FilesystemClass;

    /// Says to the helper below that it was started by a test.
    const HELPER: &str = "INCUMBENT_TEST_WAIT";

    /// No test by itself: the process that the tests below look at. It ends with its input.
    #[test]
    fn wait_for_end_of_input() {
        if std::env::var_os(HELPER).is_some() {
            let _ = io::stdin().read_to_end(&mut Vec::new());
        }
    }

    struct Guard(Child);

    impl Guard {
        fn spawn() -> Self {
            let helper = concat!(module_path!(), "::wait_for_end_of_input");
            let helper = helper.split_once("::").unwrap().1;
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", helper])
                .env(HELPER, "1")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn();
            Self(child.unwrap())
        }

        fn pid(&self) -> Pid {
            self.0.id()
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn this_process() {
        let facts = process_facts(std::process::id());
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.uid, None);
        let start_time = facts.start_time.unwrap();
        assert_eq!(start_time.unit, StartTimeUnit::Filetime);
        // 2020 in units of 100 ns since 1601.
        assert!(start_time.value > 132_223_104_000_000_000);
        let handle = ProcessHandle::open(std::process::id()).unwrap();
        assert_eq!(handle.start_time(), Some(start_time));
        assert!(!handle.wait_ended(Duration::ZERO));
    }

    /// FIELD-BUGS 88: a probe must neither fail on a stale number nor send anything.
    #[test]
    fn a_child_from_start_to_end() {
        let child = Guard::spawn();
        let facts = process_facts(child.pid());
        assert_eq!(facts.existence, Existence::Present);
        assert_eq!(facts.parent, Some(std::process::id()));
        // wine fills the arguments in while the child starts; at first there is its program alone.
        let mut line = Vec::new();
        for _ in 0..500 {
            line = sys::command_line(child.pid()).unwrap_or_default();
            if line.len() > 1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(line.last().unwrap().ends_with("wait_for_end_of_input"), "{line:?}");

        let handle = ProcessHandle::open(child.pid()).unwrap();
        assert!(!handle.wait_ended(Duration::from_millis(1)));
        handle.kill().unwrap();
        assert!(handle.wait_ended(Duration::MAX));
        // Twice is no fault, and the handle still knows whose it was.
        handle.kill().unwrap();
        assert_eq!(handle.start_time(), facts.start_time);
        let facts_after = process_facts(child.pid());
        assert_eq!(facts_after.existence, Existence::Gone);
    }

    #[test]
    fn numbers_that_no_process_has_are_gone() {
        let neighbour = std::process::id() + 1;
        for pid in [0, neighbour, 0x7fff_fffc, u32::MAX] {
            assert_eq!(process_facts(pid).existence, Existence::Gone, "{pid}");
            let opened = ProcessHandle::open(pid);
            assert!(matches!(opened, Err(OpenProcessError::Gone)), "{pid}");
        }
    }

    #[test]
    fn ids_and_clock() {
        assert_eq!(host_id().unwrap().len(), 36);
        assert_eq!(host_id(), host_id());
        match boot_id() {
            Some(id) => assert!(id.starts_with("boot-")),
            None => eprintln!("SKIPPED: no boot id here (wine)"),
        }
        let before = boot_clock_ms();
        assert!(before > 0 && before <= boot_clock_ms());
    }

    #[test]
    fn files() {
        let directory = tempfile::tempdir().unwrap();
        let nested = directory.path().join("a\\b");
        create_private_dirs(&nested).unwrap();
        create_private_dirs(&nested).unwrap();
        let path = nested.join("x.lock");
        let anchor = create_anchor_file(&path).unwrap();
        let error = create_anchor_file(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let looked_at = open_anchor_file(&path).unwrap();
        let facts = file_facts(&path).unwrap();
        assert_eq!(open_file_facts(&anchor).unwrap().id, facts.id);
        assert_eq!(open_file_facts(&looked_at).unwrap().id, facts.id);
        assert_eq!(facts.links, 1);
        let real = real_path_in_lower_case(anchor.as_raw_handle()).unwrap();
        assert!(real.ends_with("a\\b\\x.lock"), "{real:?}");
        std::fs::write(nested.join("other"), "").unwrap();
        assert_ne!(file_facts(&nested.join("other")).unwrap().id, facts.id);
        assert!(open_anchor_file(&nested).is_err());
        assert!(file_facts(&nested).is_ok());

        std::fs::remove_file(&path).unwrap();
        if boot_id().is_none() {
            eprintln!("SKIPPED: wine does not say that a deletion is pending");
            return;
        }
        assert_eq!(open_file_facts(&anchor).unwrap().links, 0);
    }

    #[test]
    fn filesystems_and_locks() {
        let directory = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize(directory.path()).unwrap();
        let filesystem = filesystem_of(&real).unwrap();
        assert_eq!(filesystem.class, FilesystemClass::Local, "{filesystem:?}");
        lock_self_test(&real).unwrap().unwrap();
        assert_eq!(std::fs::read_dir(&real).unwrap().count(), 0);
        assert_eq!(classify_local("FUSE-sshfs"), FilesystemClass::Remote);
        assert_eq!(classify_local("FUSE-mine"), FilesystemClass::UserSpace);
        assert_eq!(classify_local("NTFS"), FilesystemClass::Local);
    }
}
