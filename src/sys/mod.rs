//! The only platform-aware code of the crate: what the operating system says about processes,
//! machines, clocks and files.
//!
//! Every function here answers with what was *seen*. "Could not look" is a value of its own
//! (`None`, `Unknown`, an error) and is never folded into "gone": deciding what follows from an
//! observation is [`crate::liveness`]'s work, not this module's.
//!
//! One file per operating system implements the same contract; `procfs` holds the pure parsers
//! (bytes in, values out) of Linux' `/proc`.

mod age;
#[cfg(unix)]
#[path = "aside_unix.rs"]
pub(crate) mod aside;
#[cfg(windows)]
#[path = "aside_windows.rs"]
pub(crate) mod aside;
#[cfg(unix)]
mod capture;
#[cfg(unix)]
#[path = "children_unix.rs"]
mod children;
#[cfg(feature = "cli")]
mod cores;
mod described;
#[cfg(unix)]
#[path = "detached_unix.rs"]
mod detached;
#[cfg(windows)]
#[path = "detached_windows.rs"]
mod detached;
#[cfg(target_os = "linux")]
#[path = "details_linux.rs"]
pub(crate) mod details;
#[cfg(not(target_os = "linux"))]
#[path = "details_other.rs"]
pub(crate) mod details;
#[cfg(unix)]
#[path = "diagnostic_unix.rs"]
pub(crate) mod diagnostic;
#[cfg(windows)]
#[path = "diagnostic_windows.rs"]
pub(crate) mod diagnostic;
#[cfg(all(unix, feature = "cli"))]
#[path = "drawn_line_unix.rs"]
pub(crate) mod drawn_line;
#[cfg(all(windows, feature = "cli"))]
#[path = "drawn_line_windows.rs"]
pub(crate) mod drawn_line;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod file_facts;
mod files;
#[cfg(unix)]
#[path = "forked_unix.rs"]
mod forked;
#[cfg(windows)]
#[path = "forked_windows.rs"]
mod forked;
#[cfg(target_os = "linux")]
#[path = "freezer_linux.rs"]
pub(crate) mod freezer;
#[cfg(not(target_os = "linux"))]
#[path = "freezer_other.rs"]
pub(crate) mod freezer;
#[cfg(unix)]
#[path = "handover_unix.rs"]
pub(crate) mod handover;
#[cfg(not(unix))]
#[path = "handover_other.rs"]
pub(crate) mod handover;
#[cfg(unix)]
#[path = "inherited_unix.rs"]
mod inherited;
#[cfg(windows)]
#[path = "inherited_windows.rs"]
mod inherited;
#[cfg(unix)]
#[path = "jobs_unix.rs"]
pub(crate) mod jobs;
#[cfg(windows)]
#[path = "jobs_windows.rs"]
pub(crate) mod jobs;
#[cfg(target_os = "linux")]
mod linux;
mod lock_facts;
mod locks;
mod machine;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(unix)]
#[path = "modes_unix.rs"]
mod modes;
mod no_room;
#[cfg(target_os = "linux")]
#[path = "notify_linux.rs"]
pub(crate) mod notify;
#[cfg(not(target_os = "linux"))]
#[path = "notify_other.rs"]
pub(crate) mod notify;
#[cfg(target_os = "linux")]
mod open_files;
#[cfg(unix)]
mod own_group;
mod process;
mod process_facts;
#[cfg(any(target_os = "linux", test))]
#[cfg_attr(not(target_os = "linux"), allow(unused_imports, reason = "only Linux asks, all test"))]
mod procfs;
mod programs;
mod proven;
mod received;
mod shortage;
mod signal;
mod signal_feed;
#[cfg(unix)]
#[path = "signals_unix.rs"]
pub(crate) mod signals;
#[cfg(windows)]
#[path = "signals_windows.rs"]
pub(crate) mod signals;
#[cfg(unix)]
#[path = "supervise_unix.rs"]
pub(crate) mod supervise;
#[cfg(windows)]
#[path = "supervise_windows.rs"]
pub(crate) mod supervise;
mod trust;
#[cfg(unix)]
mod unix;
mod unproven;
#[cfg(unix)]
#[path = "wake_unix.rs"]
mod wake;
#[cfg(windows)]
#[path = "wake_windows.rs"]
mod wake;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) mod wal_index;
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
#[path = "wal_index_other.rs"]
pub(crate) mod wal_index;
#[cfg(windows)]
mod windows;
#[cfg(unix)]
#[path = "witness_unix.rs"]
pub(crate) mod witness;
#[cfg(windows)]
#[path = "witness_windows.rs"]
pub(crate) mod witness;

#[cfg(target_os = "linux")]
use linux as os;
#[cfg(target_os = "macos")]
use macos as os;
#[cfg(windows)]
use windows as os;

pub(crate) use age::process_age_ms;
#[cfg(feature = "cli")]
pub(crate) use cores::{CoreDumps, core_dumps};
pub(crate) use described::{Details, KernelLog, Limit, MemoryGroup, ProcessRow, Seen};
pub(crate) use file_facts::{DirectoryState, Membership};
pub use file_facts::{
    FileFacts, FileId, FileKey, Filesystem, FilesystemClass, FreeSpace, OpenedFile,
};
pub use files::{
    create_anchor_file, create_private_dirs, exchange, file_facts, file_key, filesystem_of,
    free_space, is_mount_point, is_mounted_read_only, may_read, may_write, open_anchor_file,
    open_file_facts, open_file_key,
};
pub(crate) use files::{
    directory_state, each_name, facts_in, facts_of_entry, give_to_owner_of_directory,
    lack_of_descriptors, link_beside, open_directory, open_in, owners_of_links, path_of_open,
    pin_directory, read_at, rename_beside, set_mode, set_mode_in,
};
pub(crate) use forked::close_inherited;
pub(crate) use inherited::{RequestsToEnd, become_program, take_over_process};
pub(crate) use lock_facts::{CommandLocks, ListedLock, Sharing};
#[cfg(test)]
pub(crate) use locks::SHOWS_OPENED_FILES;
pub(crate) use locks::{SHOWS_LOCKED_CONTENT, open_foreign_lock_file};
pub use locks::{
    SHOWS_RECORD_LOCKS, files_opened_by, in_root_of, lock_self_test, opened_files,
    processes_with_files_of, processes_with_open_file, record_lock_holder, record_lock_holders,
    shares_mounts_with,
};
pub(crate) use locks::{
    await_command_lock, command_lock, foreign_unlock, hold_command_lock, listed_lock,
    open_command_lock, owner_follows, say_that_we_follow, try_foreign_lock,
};
pub(crate) use machine::{HAS_PID_NAMESPACES, is_first_pid_namespace, is_private_group};
pub use machine::{
    STATE_DIRECTORY, asleep_ms, boot_clock_ms, boot_id, effective_uid, host_id, pid_namespace,
    process_table_is_ours, unmapped_uid,
};
pub(crate) use no_room::NoRoom;
#[cfg(not(target_os = "linux"))]
use process::process_rows_by_parents;
pub(crate) use process::{
    ExitInfo, TableShows, children_of, directory_of, environment_of, is_forked_copy,
    is_kernel_thread, processes_of_session, processes_with_environment, session_of, table_shows,
};
pub use process::{
    ProcessHandle, command_line, descendants, process_facts, program_name, supervision,
};
pub use process_facts::{
    Existence, OpenProcessError, Pid, ProcessFacts, ProcessNumber, ProcessState, StartTime,
    StartTimeUnit, Supervision,
};
pub(crate) use programs::{program, program_places};
#[cfg_attr(not(feature = "cli"), allow(unused_imports, reason = "the command line asks"))]
pub(crate) use proven::is_below;
pub(crate) use proven::{Proven, descends_from};
pub use received::ChildEnd;
pub use received::{CaptureError, Captured};
pub(crate) use received::{Caught, SignalOrigin};
pub(crate) use received::{ExecFailure, Received};
pub(crate) use shortage::{Looks, Shortage, note};
pub use signal::capture;
pub(crate) use signal::signal_name;
#[cfg(any(feature = "cli", test))]
pub(crate) use signal::signal_number;
pub(crate) use signal_feed::{Fed, Feed};
pub(crate) use trust::Trust;
pub(crate) use unproven::Unproven;
pub(crate) use wake::Wake;
