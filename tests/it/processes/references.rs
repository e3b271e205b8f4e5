//! A stored reference, asked about after its process ended, in other places, and when another one
//! has its pid.

use std::sync::atomic::{AtomicBool, Ordering};

use incumbent::process::{AfterBudget, ProcessRef, terminate, terminate_tree};
use incumbent::{ErrorKind, Reason, Verdict};
use rustix::process::Signal;

use super::asker::ask_in_script;
use super::{reference, verdict};
use crate::support::{
    LIMIT, Process, Sandbox, Stat, ask, eventually, forked, pid_namespace, rounds, skipped,
    wait_ended,
};

#[test]
fn a_reference_follows_its_process_to_its_end() {
    let sandbox = Sandbox::new();
    let mut worker = Process::start(sandbox.shell("echo; exec sleep 1000"));
    worker.line();
    let stored = reference(&worker).to_string();
    let read: ProcessRef = stored.parse().unwrap();
    assert_eq!(read, stored.parse().unwrap());
    assert_eq!(verdict(&read), (Verdict::Alive, Reason::StartTimeMatches));
    let evidence = read.is_alive().unwrap().evidence;
    assert!(evidence.is_here(), "{evidence:?}");
    // Executing another program changes nothing: it is the same process.
    eventually("sleep runs", LIMIT, || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", worker.pid())).unwrap();
        (name == "sleep\n").then_some(())
    });
    assert_eq!(verdict(&read), (Verdict::Alive, Reason::StartTimeMatches));
    // Another process that is told of it says the same.
    let mut asker = sandbox.asker();
    assert_eq!(ask(&mut asker, &format!("alive {stored}")), "alive start_time_matches");
    worker.signal(Signal::KILL);
    assert!(wait_ended(worker.pid(), LIMIT));
    assert_eq!(verdict(&read), (Verdict::Dead, Reason::Zombie));
    assert_eq!(ask(&mut asker, &format!("alive {stored}")), "dead zombie");
    let refused = ProcessRef::of(worker.pid()).unwrap_err();
    assert_eq!(refused.kind().as_str(), "not_running");
    worker.wait(LIMIT);
    assert_eq!(verdict(&read).0, Verdict::Dead);
    assert_eq!(ask(&mut asker, &format!("alive {stored}")).split(' ').next(), Some("dead"));
}

/// R:REUSE. FIELD-BUGS rows 7 and 17: the very pid, given out again.
#[test]
fn the_next_process_with_its_pid_is_another_one_and_gets_no_signal() {
    const SCRIPT: &str = "
        mkfifo gate
        exec 8<> gate
        sleep 1000 &
        worker=$!
        stored=$(ask \"ref $worker\")
        ask \"alive $stored\"
        kill -KILL $worker; wait $worker 2> /dev/null
        # One tick of the clock that start times are counted in has to pass: 10 ms.
        sleep 0.05
        reuse $worker; echo \"same pid $(($! - worker))\"
        ask \"alive $stored\"
        ask \"alive $(echo $stored | sed 's/[.]n[0-9]*//')\"
        ask \"terminate $stored\"
        ask \"tree $stored\" | cut -d' ' -f1
        kill -KILL $!; wait $! 2> /dev/null; grep -c signalled decoy.txt
        exit 0";
    let sandbox = Sandbox::new();
    let script = ask_in_script() + SCRIPT;
    let Some(answer) = sandbox.choosing_pids(&script) else { return };
    let said: Vec<_> = answer.out.lines().collect();
    assert_eq!(
        said,
        [
            "alive start_time_matches",
            "same pid 0",
            "dead pid_reused",
            "dead pid_reused",
            "was_gone",
            "was_gone",
            "0",
        ],
        "{answer:#?}"
    );
}

/// R:PIDNS. FIELD-BUGS rows 25 and 26: a pid means nothing elsewhere, in both directions.
#[test]
fn a_process_of_another_pid_namespace_is_unknown() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let mut outside = Process::start(sandbox.shell("exec cat"));
    let stored = reference(&outside);
    let script = format!(
        "{}
        ask 'alive {stored}'
        ask 'terminate {stored}' | cut -d: -f1
        ask 'ref 1'
        cat > /dev/null",
        ask_in_script()
    );
    let mut inside = sandbox.in_namespace(namespace, &script);
    assert_eq!(inside.line(), "unknown foreign_namespace");
    assert_eq!(inside.line(), "error unsupported");
    let first: ProcessRef = inside.line().parse().unwrap();
    assert_eq!(first.pid(), 1);
    // It lives, and it is not our pid 1.
    assert_eq!(verdict(&first), (Verdict::Unknown, Reason::ForeignNamespace));
    let refused = terminate(&first, LIMIT, AfterBudget::Kill);
    assert_eq!(refused.unwrap_err().kind().as_str(), "unsupported");
    inside.finish(LIMIT).assert_code(0);
    assert_eq!(verdict(&first), (Verdict::Unknown, Reason::ForeignNamespace));
    assert!(outside.echoes());
}

/// FIELD-BUGS row 10: the very pid and the very tick after a restart of the machine.
#[test]
fn a_process_of_another_boot_is_dead() {
    let sandbox = Sandbox::new();
    let mut worker = Process::start(sandbox.shell("exec cat"));
    let stored = reference(&worker);
    let boot = stored.boot_id().unwrap();
    let other = stored.to_string().replace(boot, "11111111-2222-4333-8444-555555555555");
    let doubtful: ProcessRef = other.parse().unwrap();
    assert_eq!(
        verdict(&doubtful),
        (Verdict::Alive, Reason::StartTimeMatches),
        "a boot id alone proves nothing"
    );
    let (before, _) = other.split_once(".c").unwrap();
    let proven: ProcessRef = format!("{before}.c9000000000000").parse().unwrap();
    assert_eq!(verdict(&proven), (Verdict::Dead, Reason::Rebooted));
    // A service that is shown no boot id (`ProcSubset=pid`). The clocks alone prove no end; but
    // whoever has this pid and this tick after a restart got the signal that was meant for it.
    let hidden = stored.to_string().replace(&format!(".b{boot}"), "");
    let same_boot: ProcessRef = hidden.parse().unwrap();
    assert_eq!(verdict(&same_boot), (Verdict::Alive, Reason::StartTimeMatches));
    let (before, _) = hidden.split_once(".c").unwrap();
    let moved: ProcessRef = format!("{before}.c9000000000000").parse().unwrap();
    assert_eq!(verdict(&moved), (Verdict::Unknown, Reason::NotVerifiable));
    for after in [AfterBudget::LetRun, AfterBudget::Kill] {
        let refused = terminate(&moved, LIMIT, after).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
        let refused = terminate_tree(&moved, LIMIT, after).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    }
    assert!(worker.echoes());
}

/// A forked child is another process, although it has inherited what its parent knew of itself.
#[test]
fn a_forked_child_is_not_its_parent() {
    let parent = ProcessRef::current().unwrap();
    let child = forked::fork();
    if child == 0 {
        forked::alarm(60);
        let own = ProcessRef::current();
        let is_right = own.is_ok_and(|own| {
            own.pid() == std::process::id()
                && own.is_same(&parent) == incumbent::liveness::Relation::Different
                && own.is_alive().is_ok_and(|it| it.ruling.verdict() == Verdict::Alive)
                && parent.is_alive().is_ok_and(|it| it.ruling.verdict() == Verdict::Alive)
        });
        forked::leave_with(i32::from(!is_right));
    }
    assert_eq!(forked::exit_code(child), 0);
    assert_eq!(ProcessRef::current().unwrap(), parent);
    assert!(Stat::of(u32::try_from(child).unwrap()).is_none());
}

/// Symptom: a worker hung that was forked while other threads of its parent asked who they are.
/// Cause: it had inherited a lock, and not the thread that would have given it back. It holds
/// because there is none.
#[test]
fn a_child_that_was_forked_in_the_middle_of_a_question_may_ask_it() {
    // The first question of all is the only one that takes anything.
    let parent = ProcessRef::current().unwrap();
    let is_over = AtomicBool::new(false);
    let ends = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(ProcessRef::current().unwrap(), parent);
                }
            });
        }
        let fork_and_ask = || {
            let child = forked::fork();
            if child == 0 {
                forked::alarm(60);
                let own = std::process::id();
                let is_right = |me: ProcessRef| {
                    me.pid() == own && me.is_alive().is_ok_and(|it| it.evidence.is_here())
                };
                forked::leave_with(i32::from(!ProcessRef::current().is_ok_and(is_right)));
            }
            forked::exit_code(child)
        };
        let ends: Vec<i32> = (0..rounds(20, 500)).map(|_| fork_and_ask()).collect();
        is_over.store(true, Ordering::Relaxed);
        ends
    });
    assert!(ends.iter().all(|end| *end == 0), "{ends:?}");
}
