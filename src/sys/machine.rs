//! The machine and this process in it: ids, namespaces, clocks, users.

use super::file_facts::Membership;
use super::os;

/// This machine, by an id that does not change with its name: `/etc/machine-id`,
/// `IOPlatformUUID`, `MachineGuid`. `None` when there is none (a minimal container).
pub fn host_id() -> Option<String> {
    os::host_id()
}

/// This boot of the kernel: `/proc/sys/kernel/random/boot_id`, `kern.bootsessionuuid`; on Windows
/// an id derived from the boot time that the kernel keeps.
pub fn boot_id() -> Option<String> {
    os::boot_id()
}

/// The pid namespace of this process (Linux: the inode of `/proc/self/ns/pid`). `None` where the
/// platform has none or it cannot be read.
pub fn pid_namespace() -> Option<String> {
    os::pid_namespace()
}

/// Whether a pid is one of several namespaces', so that a namespace without a name is doubt.
pub(crate) const HAS_PID_NAMESPACES: bool = cfg!(target_os = "linux");

/// Whether the process table we can read is the one our own pid lives in (Linux: field 1 of
/// `/proc/self/stat` is our pid). Always true where there is only one.
pub fn process_table_is_ours() -> bool {
    os::process_table_is_ours()
}

/// Milliseconds on a clock that never steps and counts suspend: Linux `CLOCK_BOOTTIME` less the
/// time namespace's offset. Comparable only within one boot.
pub fn boot_clock_ms() -> i64 {
    os::boot_clock_ms()
}

/// For how many of those milliseconds the machine was suspended: Linux `CLOCK_BOOTTIME` less
/// `CLOCK_MONOTONIC`. 0 where the platform does not say (Windows).
pub fn asleep_ms() -> i64 {
    os::asleep_ms()
}

/// The effective user id, where the platform has one.
pub fn effective_uid() -> Option<u32> {
    os::effective_uid()
}

/// The user id that stands for all users without one in our user namespace; `None` outside of any.
pub fn unmapped_uid() -> Option<u32> {
    os::unmapped_uid()
}

/// Whether a pid namespace, as [`pid_namespace`] names it, is the one that the machine started
/// with, whose first process does not take all others along.
pub(crate) fn is_first_pid_namespace(name: &str) -> bool {
    /// `PROC_PID_INIT_INO` of the kernel.
    const INODE: &str = "4026531836";
    name == INODE
}

/// Whether nobody but `uid` is in the group `gid`, as far as this can be known: nobody else is
/// named in `/etc/passwd` and `/etc/group`, and either both have the same number (a user private
/// group), or it is our own user with a group of our own, and no other source is asked for users.
/// Always false on Windows.
pub(crate) fn is_private_group(gid: u32, uid: u32, membership: Membership) -> bool {
    os::is_private_group(gid, uid, membership)
}

/// Where the platform keeps a user's state: a variable that names the directory, and the place
/// below the home directory that stands in for it where there is one.
pub const STATE_DIRECTORY: (&str, Option<&str>) = os::STATE_DIRECTORY;
