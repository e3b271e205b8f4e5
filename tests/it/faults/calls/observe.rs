//! Which calls a program makes, by what strace saw of it once.
//!
//! strace counts the calls of each thread from its start. What the dynamic loader does stands
//! before what we do, and is not ours to be tried; nor is what another program does that one of our
//! processes becomes.

use std::collections::BTreeMap;

use super::fault::Site;

/// The first thing that a program in Rust does once it is loaded: it looks whether descriptors 0 to
/// 2 are open.
const LOADED: [&str; 2] = ["poll", "ppoll"];

/// Whose calls they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    /// Of the loader, until ours begin; of a program that is not ours they never do.
    Loader,
}

/// What one thread has done so far.
struct Thread<'a> {
    whose: Whose,
    /// By kind: all, and ours.
    counts: BTreeMap<&'a str, (usize, usize)>,
    sites: Vec<Site>,
}

/// A line of a trace: the thread, the call and its arguments. `None` of signals, of ends, of the
/// second half of a call that was interrupted by another thread's, and of a call that is newer than
/// this strace, which knows it by a number alone (`syscall_0x1c4`) and cannot let it fail.
fn call_of(line: &str) -> Option<(&str, &str, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    let (call, arguments) = rest.trim_start().split_once('(')?;
    let is_name = call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_known = is_name && !call.is_empty() && !call.starts_with("syscall_");
    is_known.then_some((thread, call, arguments))
}

/// By thread, in the order in which they were first seen.
fn threads(trace: &str, first: Whose) -> Vec<Thread<'_>> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut threads: Vec<Thread<'_>> = Vec::new();
    // By the first call strace becomes the program, which it does not count.
    let of_strace = usize::from(first == Whose::Loader);
    for (id, call, arguments) in trace.lines().filter_map(call_of).skip(of_strace) {
        let at = *places.entry(id).or_insert_with(|| {
            // Another thread, or a child that was forked: it is ours until it executes something.
            let whose = if threads.is_empty() { first } else { Whose::Ours };
            threads.push(Thread { whose, counts: BTreeMap::new(), sites: Vec::new() });
            threads.len() - 1
        });
        let thread = &mut threads[at];
        let is_first_of_ours = thread.whose == Whose::Loader && LOADED.contains(&call);
        let (all, ours) = thread.counts.entry(call).or_default();
        *all += 1;
        if thread.whose == Whose::Ours {
            *ours += 1;
            thread.sites.push(Site {
                call: call.to_owned(),
                arguments: arguments.to_owned(),
                when: *all,
                n: *ours,
            });
        }
        if is_first_of_ours {
            thread.whose = Whose::Ours;
        }
        if call == "execve" && !arguments.contains(" = -1 ") {
            thread.whose = Whose::Loader;
        }
    }
    threads
}

/// The calls of a program that strace started, of all its threads and processes.
pub fn of_program(trace: &str) -> Vec<Site> {
    threads(trace, Whose::Loader).into_iter().flat_map(|thread| thread.sites).collect()
}

/// The calls of the busiest thread of a process that strace was attached to: the others wait. What
/// it says on standard error is left out, since that is how it answers the test.
pub fn of_busiest_thread(trace: &str) -> Vec<Site> {
    let threads = threads(trace, Whose::Ours);
    let busiest = threads.into_iter().max_by_key(|thread| thread.sites.len());
    let mut sites = busiest.map(|thread| thread.sites).unwrap_or_default();
    sites.retain(|site| !(site.call == "write" && site.arguments.starts_with("2<")));
    sites
}

/// Of a trace that is known: what a child does before it executes something is ours, what its
/// loader does is not.
#[test]
fn calls_of_the_loader_and_of_others_are_not_ours() {
    let trace = "\
10 execve(\"/bin/incumbent\", [\"incumbent\"], 0x1 /* 9 vars */) = 0
10 openat(AT_FDCWD, \"/lib/libc.so\", O_RDONLY) = 3</lib/libc.so>
10 poll([{fd=0</dev/null>, events=0}], 3, 0) = 0 (Timeout)
10 openat(AT_FDCWD, \"/a\", O_RDONLY <unfinished ...>
11 dup2(5</b>, 0</dev/null>) = 0</b>
10 <... openat resumed>) = 3</a>
11 execve(\"/usr/local/bin/sh\", [\"sh\"], 0x1 /* 9 vars */) = -1 ENOENT (No such file or directory)
11 execve(\"/bin/sh\", [\"sh\"], 0x1 /* 9 vars */) = 0
11 openat(AT_FDCWD, \"/lib/libc.so\", O_RDONLY) = 3</lib/libc.so>
11 +++ exited with 0 +++
10 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=11} ---
10 exit_group(0) = ?
";
    let seen: Vec<(String, usize, usize)> =
        of_program(trace).into_iter().map(|site| (site.call, site.when, site.n)).collect();
    let wanted = [
        ("openat", 2, 1),
        ("exit_group", 1, 1),
        ("dup2", 1, 1),
        ("execve", 1, 1),
        ("execve", 2, 2),
    ];
    assert_eq!(seen, wanted.map(|(call, when, n)| (call.to_owned(), when, n)));
}
