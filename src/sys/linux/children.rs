//! Whom a process has started, by the lists that the kernel keeps
//! (`/proc/<pid>/task/<tid>/children`, with `CONFIG_PROC_CHILDREN`), instead of a look at every
//! process of the machine.
//!
//! Such a list may lack one that lives (proc(5)): who reads it goes on behind the child that he was
//! at, and if that one was collected meanwhile, he counts from the beginning, one too far. And a
//! thread that ends hands its children to another one of its process, which may have been read
//! already. In both cases two readings one after the other differ, because what the first one has
//! met is gone from where it was. So a list counts once it was read twice and is the same; one that
//! keeps changing does not, and then the whole table is looked through.
//!
//! The same holds for all below a process: one whose parent ends while we look goes up to a list
//! that was read already. So it is the whole that has to be read twice and be the same.

use std::io;
use std::path::PathBuf;

use super::super::Pid;
use super::{note, process_table_is_ours};

/// More readings than this mean something that starts processes all the time.
const READINGS_MAX: usize = 8;

/// The children of `pid`, the living and those that are not collected; `None` where that is not
/// told, or not for long enough.
pub fn listed_children(pid: Pid) -> Option<Vec<Pid>> {
    if !process_table_is_ours() {
        return None;
    }
    settled(|| lists_of(pid))
}

/// What two readings one after the other agree on.
fn settled(mut read: impl FnMut() -> Option<Vec<Pid>>) -> Option<Vec<Pid>> {
    let mut before = read()?;
    for _ in 1..READINGS_MAX {
        let now = read()?;
        if now == before {
            return Some(now);
        }
        before = now;
    }
    None
}

/// The lists of all threads of `pid`, as one in order.
fn lists_of(pid: Pid) -> Option<Vec<Pid>> {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let mut found = Vec::new();
    let mut is_told = false;
    for task in std::fs::read_dir(&tasks).ok()? {
        let list = task.ok()?.path().join("children");
        match std::fs::read(&list).map_err(note) {
            Ok(bytes) => found.extend(parse(&bytes)?),
            // A thread that has ended since has none, and neither has a kernel without such lists.
            Err(error) if is_of_one_that_ended(&error) => continue,
            Err(_) => return None,
        }
        is_told = true;
    }
    found.sort_unstable();
    is_told.then_some(found)
}

fn is_of_one_that_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Numbers with a space behind each.
fn parse(bytes: &[u8]) -> Option<Vec<Pid>> {
    let words = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace();
    words.map(|word| word.parse().ok()).collect()
}

/// All below `pid`, parents first; `None` as for [`listed_children`].
pub fn listed_descendants(pid: Pid) -> Option<Vec<Pid>> {
    if !process_table_is_ours() {
        return None;
    }
    settled(|| all_below(pid))
}

/// By one reading of each list.
fn all_below(pid: Pid) -> Option<Vec<Pid>> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let children = match lists_of(parent) {
            Some(children) => children,
            // One that has ended and was collected since has none.
            None if parent != pid && !std::path::Path::new(&format!("/proc/{parent}")).exists() => {
                continue;
            }
            None => return None,
        };
        let new: Vec<Pid> = children.into_iter().filter(|child| !found.contains(child)).collect();
        found.extend(new);
    }
    Some(found.split_off(1))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::super::processes_and_parents;
    use super::*;

    #[test]
    fn a_list_counts_once_it_stays_the_same() {
        let of = |readings: &[&[Pid]]| {
            let mut readings = readings.iter();
            settled(move || readings.next().map(|it| it.to_vec()))
        };
        assert_eq!(of(&[&[1, 2], &[1, 2]]), Some(vec![1, 2]));
        // 2 was skipped because 1 was collected meanwhile.
        assert_eq!(of(&[&[1, 3], &[2, 3], &[2, 3]]), Some(vec![2, 3]));
        assert_eq!(of(&[&[1], &[2]]), None, "not told any more");
        let mut number = 0;
        let changes = || {
            number += 1;
            Some(vec![number])
        };
        assert_eq!(settled(changes), None);
        assert_eq!(parse(b"12 7 "), Some(vec![12, 7]));
        assert_eq!(parse(b""), Some(vec![]));
        assert_eq!(parse(b"x"), None);
    }

    /// As the whole table says it, for a process with a thread that has started another one.
    #[test]
    fn the_lists_say_what_the_table_says() {
        let script = "sleep 600 & sleep 600 & echo; wait";
        let start = || {
            let shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn();
            let mut shell = shell.unwrap();
            shell.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
            shell
        };
        let mut of_this_thread = start();
        let mut of_another = std::thread::spawn(start).join().unwrap();
        let own = std::process::id();
        if let Some(children) = listed_children(own) {
            for shell in [&of_this_thread, &of_another] {
                assert!(children.contains(&shell.id()));
                let below = listed_descendants(shell.id()).unwrap();
                let table = processes_and_parents().into_iter();
                let mut expected: Vec<Pid> =
                    table.filter(|(_, parent)| *parent == shell.id()).map(|it| it.0).collect();
                expected.sort_unstable();
                assert_eq!((below.len(), &below), (2, &expected));
            }
            let all = listed_descendants(own).unwrap();
            let shell = all.iter().position(|pid| *pid == of_this_thread.id()).unwrap();
            let below = listed_descendants(of_this_thread.id()).unwrap();
            let first = all.iter().position(|pid| *pid == below[0]).unwrap();
            assert!(shell < first, "parents first");
        }
        for shell in [&mut of_this_thread, &mut of_another] {
            for pid in super::super::super::descendants(shell.id()) {
                rustix::process::kill_process(
                    rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
                    rustix::process::Signal::KILL,
                )
                .unwrap();
            }
            shell.kill().unwrap();
            shell.wait().unwrap();
        }
        assert!(listed_children(of_this_thread.id()).unwrap_or_default().is_empty());
    }
}
