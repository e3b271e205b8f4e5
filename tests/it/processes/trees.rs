//! A process and its descendants end together, each asked once, and nobody else is reached.

use incumbent::Verdict;
use std::time::Duration;

use incumbent::process::{AfterBudget, LookedAt, ProcessRef, Terminated, terminate_tree};

use super::verdict;
use crate::support::{Identity, LIMIT, Process, Sandbox};

/// A shell with a child that has a child, each of which writes down what it is sent. Returns the
/// pids of both.
fn family(sandbox: &Sandbox, on_term: &str) -> (Process, Vec<u32>) {
    let script = format!(
        "trap 'echo root >> signals; {on_term}' TERM
        sh -c 'trap \"echo child >> signals; {on_term}\" TERM
            sh -c \"trap \\\"echo grandchild >> signals; {on_term}\\\" TERM
                echo \\$\\$; while :; do sleep 0.02; done\" &
            echo $$; while :; do sleep 0.02; done' &
        while :; do sleep 0.02; done"
    );
    let mut root = Process::start(sandbox.shell(&script));
    let pids = vec![root.line().parse().unwrap(), root.line().parse().unwrap()];
    (root, pids)
}

fn signals(sandbox: &Sandbox) -> Vec<String> {
    let text = std::fs::read_to_string(sandbox.file("signals")).unwrap_or_default();
    let mut names: Vec<_> = text.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn what_a_process_has_started_ends_with_it_and_is_asked_once() {
    let sandbox = Sandbox::new();
    let bystander = Process::start(sandbox.shell("exec sleep 1000"));
    let (root, pids) = family(&sandbox, "exit 0");
    let described: Vec<_> = pids.iter().map(|pid| ProcessRef::of(*pid).unwrap()).collect();
    let tree = terminate_tree(&super::reference(&root), LIMIT, AfterBudget::LetRun).unwrap();
    assert_eq!((tree.root, tree.looked_at), (Terminated::Ended, LookedAt::All), "{tree:?}");
    assert!(tree.left.is_empty(), "{tree:?}");
    assert!(pids.iter().all(|pid| tree.ended.contains(pid)), "{pids:?}: {tree:?}");
    for process in described {
        assert_eq!(verdict(&process).0, Verdict::Dead);
    }
    // FIELD-BUGS row 115: a second signal cuts short what the first has begun.
    assert_eq!(signals(&sandbox), ["child", "grandchild", "root"]);
    assert_eq!(verdict(&super::reference(&bystander)).0, Verdict::Alive);
    root.finish(LIMIT).assert_code(0);
}

#[test]
fn what_does_not_follow_is_killed_only_where_that_was_asked_for() {
    let sandbox = Sandbox::new();
    let (root, pids) = family(&sandbox, "true");
    let named = super::reference(&root);
    let members: Vec<_> = pids.iter().map(|pid| Identity::of(*pid).unwrap()).collect();
    let budget = Duration::from_millis(100);
    let tree = terminate_tree(&named, budget, AfterBudget::LetRun).unwrap();
    assert_eq!(tree.root, Terminated::StillRuns, "{tree:?}");
    assert!(members.iter().all(|member| !member.is_gone()), "{tree:?}");
    let left: Vec<_> = tree.left.iter().map(|left| left.pid).collect();
    assert!(pids.iter().all(|pid| left.contains(pid)), "{pids:?}: {tree:?}");
    let tree = terminate_tree(&named, budget, AfterBudget::Kill).unwrap();
    assert_eq!(tree.root, Terminated::Killed, "{tree:?}");
    assert!(tree.left.is_empty(), "{tree:?}");
    assert!(members.iter().all(|member| member.is_gone()), "{tree:?}");
    drop(root);
}

/// FIELD-BUGS row 107: a start script dies of the signal, and the worker behind it does not.
#[test]
fn a_worker_behind_a_script_that_died_is_ended() {
    let sandbox = Sandbox::new();
    let script = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.02; done' & wait";
    let mut root = Process::start(sandbox.shell(script));
    let worker = Identity::of(root.line().parse().unwrap()).unwrap();
    let named = super::reference(&root);
    let tree = terminate_tree(&named, Duration::ZERO, AfterBudget::Kill).unwrap();
    assert!(matches!(tree.root, Terminated::Ended | Terminated::Killed), "{tree:?}");
    assert!(tree.left.is_empty() && tree.ended.contains(&worker.pid), "{tree:?}");
    assert!(worker.is_gone());
    // Who asks later cannot know what it had started.
    root.wait(LIMIT);
    let tree = terminate_tree(&named, LIMIT, AfterBudget::Kill).unwrap();
    assert_eq!((tree.root, tree.ended.len()), (Terminated::WasGone, 0));
}
