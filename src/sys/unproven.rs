//! Why a process may not be signalled.

use std::fmt;

/// Why a recorded process is not signalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// It has ended, or its pid names another process now.
    Gone,
    /// It is this process.
    Ourselves,
    /// This process, or what started it, was started by it.
    Ancestor,
    /// 0 is no process, 1 is the machine's or the container's first one, and a number beyond what
    /// the kernel gives out was negative once: kill(2) takes those for groups.
    Reserved,
    /// It lives in another pid namespace or on another machine, where its number means nothing
    /// here.
    Elsewhere,
    /// The lock on record is another file than the one in its place: it is the owner of another
    /// store, of which this one is a copy.
    Copied,
    /// Its start time was not recorded or cannot be read.
    Unknown,
    /// We are root, the store belongs to this user, and the process does not: the user could have
    /// written any pid there.
    NotOfTheUser(u32),
    /// We are root, and the store belongs to several users.
    OfSeveralUsers,
    /// The operating system does not let us.
    Denied(String),
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it has ended"),
            Self::Ourselves => f.write_str("it is this very process"),
            Self::Ancestor => f.write_str("this process was started by it"),
            Self::Reserved => f.write_str("its pid is that of init, or of no process"),
            Self::Elsewhere => {
                f.write_str("it lives in another container, pid namespace or machine")
            }
            Self::Copied => {
                f.write_str("its lock is not the file here: this store is a copy of its store")
            }
            Self::Unknown => {
                f.write_str("its start time is not known: another process may have its pid now")
            }
            Self::NotOfTheUser(uid) => write!(
                f,
                "it does not belong to uid {uid}, who owns the store and could have put any pid \
                 there (`incumbent stop --force` ends a `run` of root's own)"
            ),
            Self::OfSeveralUsers => f.write_str(
                "the store's directory and file belong to different users, so its records are not \
                 trusted",
            ),
            Self::Denied(why) => write!(f, "the system does not let us: {why}"),
        }
    }
}
