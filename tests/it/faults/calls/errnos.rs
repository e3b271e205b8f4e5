//! What each system call can fail with, and what that says.
//!
//! From the manual pages, without the errors of a wrong call (EBADF, EFAULT, most EINVAL): the
//! kernel returns those for a mistake in the program only. What a call is for is in its arguments:
//! `fcntl` that takes a lock fails otherwise than one that copies a descriptor.

/// What an error says to the one who made the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Something of *us* ran short: nothing is known of what was looked at.
    Shortage,
    /// Where it is injected, a lie about what is there: no such file, no such process, held by
    /// somebody. One who believes it is not wrong, but may still not become a second owner.
    Answer,
    /// It did not work.
    Failure,
}

/// Those that say something of us, and nothing of what was looked at.
const SHORTAGES: &[&str] = &["EMFILE", "ENFILE", "ENOMEM", "EIO", "EAGAIN"];

/// The calls that look at something: there a shortage is "not now", and never an answer.
const LOOKS: &[&str] = &[
    "openat",
    "pread64",
    "read",
    "readlink",
    "readlinkat",
    "stat",
    "statx",
    "newfstatat",
    "fstat",
    "fcntl",
    "flock",
    "pidfd_open",
    "getdents64",
    "statfs",
    "fstatfs",
    "ioctl",
    "pidfd_send_signal",
];

/// Calls, what has to be among their arguments, and their errors: of several lines the first that
/// fits counts.
const TABLE: &[(&str, &str, &str)] = &[
    ("open openat openat2", "O_CREAT", "EACCES EMFILE ENFILE ENOMEM EIO ENOSPC EDQUOT EROFS EINTR"),
    ("open openat openat2", "O_RDWR", "EACCES EMFILE ENFILE ENOMEM EIO EROFS EINTR ENOENT ESTALE"),
    ("open openat openat2", "", "EACCES EMFILE ENFILE ENOMEM EIO EINTR ENOENT ESTALE"),
    ("mkdir mkdirat", "", "EACCES ENOSPC EDQUOT EROFS EIO ENOMEM"),
    ("unlink unlinkat rmdir", "", "EACCES EPERM EROFS EIO ENOMEM EBUSY ENOENT"),
    ("rename renameat renameat2", "", "EACCES EPERM ENOSPC EDQUOT EROFS EIO ENOMEM"),
    ("link linkat symlink symlinkat", "", "EACCES EPERM ENOSPC EDQUOT EROFS EIO EMLINK"),
    ("chmod fchmod fchmodat fchmodat2", "", "EPERM EROFS EIO"),
    ("chown fchown lchown fchownat", "", "EPERM EROFS EIO EDQUOT"),
    ("utimensat", "", "EACCES EPERM EROFS"),
    ("newfstatat statx", "AT_EMPTY_PATH", "EIO ENOMEM ESTALE"),
    ("statx", "", "EACCES EIO ENOENT ENOMEM ESTALE ENOSYS"),
    ("stat lstat newfstatat", "", "EACCES EIO ENOENT ENOMEM ESTALE"),
    ("fstat", "", "EIO ENOMEM ESTALE"),
    ("access faccessat faccessat2", "", "EACCES EIO ENOENT ENOMEM EROFS"),
    ("readlink readlinkat", "", "EACCES EIO ENOENT ENOMEM"),
    ("getdents64", "", "EIO ENOENT ENOMEM"),
    ("statfs", "", "EACCES EIO ENOENT ENOMEM ENOSYS EINTR"),
    ("fstatfs", "", "EIO ENOMEM ENOSYS EINTR"),
    ("getxattr lgetxattr fgetxattr", "", "EACCES ENODATA EOPNOTSUPP"),
    ("read readv", "", "EIO EINTR ENOMEM"),
    ("pread64 preadv", "", "EIO EINTR ENOMEM"),
    ("write writev", "<pipe:", "EPIPE EINTR EIO"),
    ("write writev pwrite64 pwritev", "", "ENOSPC EIO EDQUOT EFBIG EINTR"),
    ("fsync fdatasync", "", "EIO ENOSPC EDQUOT"),
    ("ftruncate truncate", "", "EIO EFBIG EINTR EPERM"),
    ("fallocate", "", "ENOSPC EIO EFBIG EINTR EOPNOTSUPP"),
    ("copy_file_range sendfile", "", "EIO ENOSPC ENOMEM EXDEV"),
    ("mmap", "MAP_SHARED", "ENOMEM ENFILE EAGAIN"),
    ("mmap mremap mprotect munmap", "", "ENOMEM"),
    ("madvise", "", "EAGAIN ENOMEM"),
    // Its answer comes by the same words as an unlock, so it stands before that.
    ("fcntl", "GETLK", "EIO ENOLCK"),
    // No kernel refuses to unlock; a process that is told so believes that its lock stays.
    ("fcntl", "F_UNLCK", ""),
    ("fcntl", "SETLKW", "EINTR ENOLCK EDEADLK EIO"),
    ("fcntl", "SETLK", "EAGAIN EINTR ENOLCK EIO"),
    ("fcntl", "F_DUPFD", "EMFILE"),
    ("fcntl", "", ""),
    ("flock", "LOCK_UN", ""),
    ("flock", "", "EAGAIN EINTR ENOLCK EIO"),
    ("pidfd_open", "", "EMFILE ENFILE ENOMEM ENOSYS EPERM ESRCH"),
    ("pidfd_send_signal", "", "EPERM ESRCH ENOSYS"),
    ("kill tkill tgkill", "", "EPERM ESRCH"),
    ("clone3", "", "EAGAIN ENOMEM ENOSYS"),
    ("clone fork vfork", "", "EAGAIN ENOMEM"),
    // Not ENOEXEC: there the C library has /bin/sh read the program.
    ("execve execveat", "", "EACCES E2BIG EAGAIN EIO EMFILE ENFILE ENOENT ENOMEM ETXTBSY"),
    ("wait4 waitid", "", "ECHILD EINTR"),
    ("pipe pipe2 eventfd2 epoll_create1 timerfd_create signalfd4", "", "EMFILE ENFILE ENOMEM"),
    ("memfd_create inotify_init1", "", "EMFILE ENFILE ENOMEM"),
    ("dup", "", "EMFILE"),
    ("dup2 dup3", "", "EMFILE EBUSY EINTR"),
    ("socket socketpair", "", "EMFILE ENFILE ENOMEM EACCES"),
    ("connect", "", "EACCES EAGAIN ECONNREFUSED EINTR ENOENT"),
    ("bind", "", "EACCES EADDRINUSE"),
    ("sendto sendmsg", "", "EAGAIN EINTR ENOBUFS ECONNREFUSED EPIPE"),
    ("recvfrom recvmsg", "", "EAGAIN EINTR ENOMEM ECONNREFUSED"),
    ("poll ppoll select pselect6", "", "EINTR ENOMEM"),
    ("epoll_wait epoll_pwait", "", "EINTR"),
    ("epoll_ctl", "", "ENOMEM ENOSPC"),
    ("inotify_add_watch", "", "EACCES ENOENT ENOMEM ENOSPC"),
    // strace counts the calls of each thread by their name, so a wait that fails in one is a wakeup
    // that is lost in another, and that is no error that a kernel returns.
    ("futex", "", ""),
    ("nanosleep clock_nanosleep rt_sigtimedwait rt_sigsuspend", "", "EINTR"),
    ("getrandom", "NONBLOCK", "EAGAIN EINTR ENOSYS"),
    ("getrandom", "", "EINTR ENOSYS"),
    ("getcwd chdir fchdir", "", "EACCES ENOENT ENOMEM EIO"),
    ("setsid", "", "EPERM"),
    ("setpgid", "", "EACCES EPERM ESRCH"),
    ("setuid setgid setresuid setresgid setgroups setreuid setregid", "", "EPERM EAGAIN"),
    ("prctl", "", "EINVAL EPERM"),
    ("prlimit64 setrlimit getrlimit", "", "EPERM"),
    ("ioctl", "", "ENOTTY EIO"),
    ("name_to_handle_at", "", "EOPNOTSUPP EACCES ESTALE"),
    // strace leaves a call out that it lets fail. A descriptor that is not closed, a break that is
    // not moved and says so by an errno, a thread that does not return from a signal: no kernel
    // does that.
    ("brk close close_range rt_sigreturn restart_syscall exit exit_group", "", ""),
    // These do not fail.
    ("getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups", "", ""),
    ("getpgid getpgrp getsid umask uname sysinfo lseek fadvise64 times getrusage alarm", "", ""),
    ("arch_prctl set_tid_address set_robust_list rseq sched_yield sched_getaffinity", "", ""),
    ("rt_sigaction rt_sigprocmask rt_sigpending sigaltstack setitimer getitimer pause", "", ""),
    ("clock_gettime clock_getres gettimeofday getsockname getsockopt capget membarrier", "", ""),
];

/// What a filter of a container answers to a call that it does not know: for calls that have no
/// line above.
const UNLISTED: &str = "ENOSYS EPERM";

/// The errors of a call with these arguments, and whether the table has it.
pub fn of(call: &str, arguments: &str) -> (impl Iterator<Item = &'static str>, bool) {
    let line = TABLE.iter().find(|(calls, among, _)| {
        calls.split_whitespace().any(|name| name == call) && arguments.contains(among)
    });
    let errnos = line.map_or(UNLISTED, |(_, _, errnos)| *errnos);
    (errnos.split_whitespace(), line.is_some())
}

pub fn meaning(call: &str, errno: &str) -> Meaning {
    match errno {
        "ENOENT" | "ESRCH" | "ECHILD" | "EDEADLK" | "ENODATA" => Meaning::Answer,
        // "Held by somebody".
        "EAGAIN" if call == "flock" => Meaning::Answer,
        _ if SHORTAGES.contains(&errno) && LOOKS.contains(&call) => Meaning::Shortage,
        _ => Meaning::Failure,
    }
}

/// What people read of it, in the words of the C library.
pub fn words(errno: &str) -> String {
    const NUMBERS: &[(&str, i32)] = &[
        ("E2BIG", libc::E2BIG),
        ("EACCES", libc::EACCES),
        ("EADDRINUSE", libc::EADDRINUSE),
        ("EAGAIN", libc::EAGAIN),
        ("EBUSY", libc::EBUSY),
        ("ECHILD", libc::ECHILD),
        ("ECONNREFUSED", libc::ECONNREFUSED),
        ("EDEADLK", libc::EDEADLK),
        ("EDQUOT", libc::EDQUOT),
        ("EFBIG", libc::EFBIG),
        ("EINTR", libc::EINTR),
        ("EINVAL", libc::EINVAL),
        ("EIO", libc::EIO),
        ("EMFILE", libc::EMFILE),
        ("EMLINK", libc::EMLINK),
        ("ENFILE", libc::ENFILE),
        ("ENOBUFS", libc::ENOBUFS),
        ("ENODATA", libc::ENODATA),
        ("ENOENT", libc::ENOENT),
        ("ENOLCK", libc::ENOLCK),
        ("ENOMEM", libc::ENOMEM),
        ("ENOSPC", libc::ENOSPC),
        ("ENOSYS", libc::ENOSYS),
        ("ENOTTY", libc::ENOTTY),
        ("EOPNOTSUPP", libc::EOPNOTSUPP),
        ("EPERM", libc::EPERM),
        ("EPIPE", libc::EPIPE),
        ("EROFS", libc::EROFS),
        ("ESRCH", libc::ESRCH),
        ("ESTALE", libc::ESTALE),
        ("ETXTBSY", libc::ETXTBSY),
        ("EXDEV", libc::EXDEV),
    ];
    let (_, number) = NUMBERS.iter().find(|(name, _)| *name == errno).expect("one of the table's");
    let text = std::io::Error::from_raw_os_error(*number).to_string();
    text.split(" (os error").next().unwrap().to_owned()
}

/// Each name of the table is one that people can be told of.
#[test]
fn every_errno_of_the_table_has_words() {
    for (calls, _, errnos) in TABLE {
        for errno in errnos.split_whitespace().chain(UNLISTED.split_whitespace()) {
            assert!(!words(errno).is_empty(), "{calls}: {errno}");
        }
    }
}
