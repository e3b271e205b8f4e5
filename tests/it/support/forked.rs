//! A fork without an exec, as a program written in ignorance does it: what must be survived.

#![allow(unsafe_code, reason = "fork without exec is what the tests are about")]

pub fn fork() -> i32 {
    // SAFETY: the child calls what a program written in ignorance would call, and leaves by
    // `leave`, never to the test harness.
    unsafe { libc::fork() }
}

/// The same past the C library: none of what it does before and after a fork is done.
pub fn fork_past_the_library() -> i32 {
    // SAFETY: as `fork`: the flags ask for no more than a copy of the process, on a copy of this
    // stack.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    i32::try_from(child).unwrap_or(-1)
}

/// Waits to be killed.
pub fn stay() -> ! {
    loop {
        // SAFETY: no arguments, and it may be called in a forked child.
        unsafe { libc::pause() };
    }
}

/// Ends a child that hangs.
pub fn alarm(seconds: u32) {
    // SAFETY: takes a number, and its default action ends the process.
    unsafe { libc::alarm(seconds) };
}

pub fn leave() -> ! {
    leave_with(0)
}

pub fn leave_with(code: i32) -> ! {
    // SAFETY: ends the process without running anything of ours.
    unsafe { libc::_exit(code) }
}

/// How a child ended, for people.
pub fn wait_for(child: i32) -> String {
    match exit_code(child) {
        signal @ 129.. => format!("the child ended by signal {}", signal - 128),
        code => format!("the child ended with code {code}"),
    }
}

/// How a child ended, as a shell says it.
pub fn exit_code(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: our own child, and a place for its status.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    if libc::WIFSIGNALED(status) {
        return 128 + libc::WTERMSIG(status);
    }
    libc::WEXITSTATUS(status)
}
