//! What a report tells of a process and of the machine.

use super::process_facts::Pid;

/// Something that is only for people to know, or why it cannot be known.
pub(crate) type Seen<T> = Result<T, String>;

/// What a process looks like to people. `None`: the platform does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// The name of its program, as the kernel keeps it.
    pub(crate) name: Option<String>,
    /// Its state, in the platform's words: `S (sleeping)`.
    pub(crate) state: Option<String>,
    /// The parent's pid; 0 where that lives in another pid namespace, or nowhere.
    pub(crate) parent: Option<Pid>,
    /// The real user id.
    pub(crate) uid: Option<u32>,
    /// Who traces it; 0 for nobody.
    pub(crate) tracer: Option<Pid>,
    /// The memory that it has now.
    pub(crate) rss_bytes: Option<u64>,
    /// The most that it had.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// What of it is swapped out.
    pub(crate) swap_bytes: Option<u64>,
}

/// A control group that counts memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryGroup {
    /// Its directory.
    pub(crate) directory: String,
    /// The number of that directory: another one in its place has another.
    pub(crate) inode: Option<i64>,
}

/// What the kernel's log says of an end.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux is asked"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KernelLog {
    /// It was killed, in these words.
    Killed(String),
    /// It was not: the log goes back far enough, and does not name it.
    Spared,
    /// It cannot be read, or does not go back far enough.
    Unknown,
}

/// How much of something a process may use; `None`: as much as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Where it is stopped.
    pub(crate) soft: Option<u64>,
    /// As far as it may raise that.
    pub(crate) hard: Option<u64>,
}

/// What a table of all processes shows of one, beside its command line; `None` where the platform
/// has no plain file that says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessRow {
    pub(crate) pid: Pid,
    pub(crate) parent: Option<Pid>,
    /// The effective user id.
    pub(crate) uid: Option<u32>,
    /// The scheduler's letter, as `ps` shows it.
    pub(crate) state: Option<char>,
    /// Processor time of all its threads since its start.
    pub(crate) cpu_ms: Option<u64>,
    /// Resident memory.
    pub(crate) memory_kib: Option<u64>,
    /// Since its start.
    pub(crate) age_s: Option<u64>,
}
