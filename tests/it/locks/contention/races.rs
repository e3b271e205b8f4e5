//! Races of threads, of scripts, and of verbs for one process.

use std::collections::HashMap;

use incumbent::lock::AcquireOptions;
use incumbent::{Acquire, LockRequest, Released, Standing, Store};

use super::contenders::{ROLE, STARVED};
use super::lockers::LONG;
use super::{SCOPE, identity};
use crate::support::{
    Barrier, LIMIT, Process, Sandbox, eventually, order, role_db, rounds, tagged,
};

/// Rounds of the race between threads and processes, and who takes part.
const RACE_THREADS: usize = 16;
const RACE_PROCESSES: usize = 4;

/// One lock, taken and let go; the answer is its fence.
fn take_turn(store: &Store) -> i64 {
    let request = LockRequest::new(SCOPE, identity(0)).unwrap();
    let answer = store.acquire(&request, &AcquireOptions::new().wait(LONG)).unwrap();
    let Acquire::Granted(lock) = answer else { panic!("not within {STARVED:?}") };
    let fence = lock.fence();
    assert_eq!(lock.verify().unwrap(), Standing::Held);
    match lock.release().unwrap() {
        Released::Free | Released::StillShared => fence,
        other => panic!("{other:?}"),
    }
}

pub fn race_in_rounds() {
    let store = Store::open(role_db()).unwrap();
    eprintln!("ready");
    while order().is_some() {
        let fence = take_turn(&store);
        eprintln!("had {fence}");
    }
}

/// Threads of one process share a lock, and share it with nobody else: a fence is never seen by two
/// processes, also where one thread lets go in the moment in which another one asks.
#[test]
fn threads_of_a_process_share_a_lock_that_other_processes_wait_for() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let mut processes: Vec<Process> =
        (0..RACE_PROCESSES).map(|_| sandbox.role(ROLE, "race")).collect();
    for process in &mut processes {
        process.err_line_with("ready");
    }
    let mut owners: HashMap<i64, usize> = HashMap::new();
    for round in 1..=rounds(200, 2_000) {
        let barrier = std::sync::Barrier::new(RACE_THREADS + 1);
        let of_threads: Vec<i64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..RACE_THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        take_turn(&store)
                    })
                })
                .collect();
            for process in &mut processes {
                process.say("go");
            }
            barrier.wait();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut had: Vec<(usize, i64)> =
            of_threads.iter().map(|fence| (usize::MAX, *fence)).collect();
        for (seat, process) in processes.iter_mut().enumerate() {
            let line = process.err_line_with("had ");
            had.push((seat, line.trim().strip_prefix("had ").unwrap().parse().unwrap()));
        }
        for (owner, fence) in had {
            let first = *owners.entry(fence).or_insert(owner);
            assert_eq!(first, owner, "round {round}: fence {fence} was granted to two processes");
        }
        assert!(store.locks().unwrap().is_empty(), "round {round}: {:#?}", store.locks());
    }
    for process in processes {
        process.finish(LIMIT).assert_code(0);
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL"), 0);
}

/// FIELD-BUGS row 41. Of scripts that ask at once, one gets the lock, and all others are told who.
#[test]
fn of_fifty_scripts_at_once_one_gets_the_lock() {
    const SCRIPTS: usize = 50;
    let sandbox = Sandbox::new();
    for round in 1..=rounds(4, 40) {
        let gate = Barrier::new();
        // The shell is whom the lock is for; it stays until its standard input is closed.
        let script = format!(
            "incumbent lock acquire {SCOPE} same > said 2>&1; echo \"code $? of $$\"; exec cat"
        )
        .replace("said", "said.$$");
        let mut scripts: Vec<Process> =
            (0..SCRIPTS).map(|_| gate.shell(&sandbox, &script)).collect();
        gate.open();
        let mut granted = Vec::new();
        for script in &mut scripts {
            let line = script.line_with("code ");
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["code", "0", "of", pid] => granted.push(pid.to_owned()),
                ["code", "75", "of", _] => {}
                _ => panic!("round {round}: {line}"),
            }
        }
        assert_eq!(granted.len(), 1, "round {round}: granted to {granted:?}");
        for script in &scripts {
            let said = sandbox.file(&format!("said.{}", script.pid()));
            let said = std::fs::read_to_string(said).unwrap();
            let names_it = format!("pid {}", granted[0]);
            // Fifty at once on a busy machine: one may not have got as far as the lock.
            let told = said.contains(&names_it) || said.contains("stayed busy");
            assert!(told, "round {round}: not {names_it}: {said}");
        }
        let (_, locks) = sandbox.json(["locks"]);
        assert_eq!(locks[0]["pid"].to_string(), granted[0], "round {round}: {locks:#}");
        assert_eq!(locks[0]["verdict"], "alive", "round {round}: {locks:#}");
        drop(scripts);
        eventually("the end of all keepers", LIMIT, || {
            tagged("IT_SANDBOX", sandbox.path()).is_empty().then_some(())
        });
    }
}

/// One process has one keeper, however many of its verbs ask at once, and whatever comes of those
/// that are refused: they must not take along what the others rely on.
#[test]
fn verbs_at_once_for_one_process_share_its_keeper() {
    const GRANTED: usize = 20;
    const REFUSED: usize = 10;
    let sandbox = Sandbox::new();
    let mut other = Process::start(sandbox.shell(&format!(
        "incumbent lock acquire {SCOPE} taken > /dev/null && echo has it; exec cat"
    )));
    other.line_with("has it");
    let mut owner = Process::start(sandbox.shell("echo $$; exec cat"));
    let pid = owner.line();
    for round in 1..=rounds(4, 40) {
        let gate = Barrier::new();
        let ask = |identity: &str| {
            let verb = format!("exec incumbent lock acquire {SCOPE} {identity} --pid {pid}");
            gate.shell(&sandbox, &verb)
        };
        let granted: Vec<Process> = (0..GRANTED).map(|lock| ask(&format!("own{lock}"))).collect();
        let refused: Vec<Process> = (0..REFUSED).map(|_| ask("taken")).collect();
        gate.open();
        for (lock, verb) in granted.into_iter().enumerate() {
            let mut answer = verb.finish(LIMIT);
            // On a busy machine the turn of some does not come in the time that a store may be
            // busy.
            while answer.code() == 75 && (answer.out.clone() + &answer.err).contains("stayed busy")
            {
                let own = format!("own{lock}");
                answer = sandbox.cli(["lock", "acquire", SCOPE, &own, "--pid", &pid]);
            }
            assert_eq!(answer.code(), 0, "round {round}: {answer:#?}");
        }
        for verb in refused {
            let answer = verb.finish(LIMIT);
            assert_eq!(answer.code(), 75, "round {round}: {answer:#?}");
        }
        let own = format!(
            "FROM lock_holders JOIN instances ON id = instance WHERE instances.pid = {pid}"
        );
        assert_eq!(sandbox.number(&format!("SELECT count(*) {own}")), 20, "round {round}");
        let keepers = format!("SELECT count(DISTINCT keeper_pid) {own}");
        assert_eq!(sandbox.number(&keepers), 1, "round {round}");
        // Those that were started in vain go at once.
        eventually("two keepers", LIMIT, || {
            let is_keeper = |pid: &u32| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"__keeper"))
            };
            let tagged = tagged("IT_SANDBOX", sandbox.path());
            (tagged.iter().filter(|pid| is_keeper(pid)).count() == 2).then_some(())
        });
        let released = sandbox.cli(["lock", "release", "--all", "--pid", &pid]).assert_code(0);
        assert_eq!(released.out, "20\n", "round {round}");
    }
    owner.finish(LIMIT).assert_code(0);
    other.finish(LIMIT).assert_code(0);
}
