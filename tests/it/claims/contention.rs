//! Many processes want one office, or one store, in the same instant.

use std::io::Write;
use std::time::{Duration, Instant};

use incumbent::{Claim, Reason, Store};
use rustix::process::Signal;

use crate::support::{
    Answer, Barrier, HOLDING, LIMIT, Process, Run, Sandbox, eventually, kill, rounds, wait_ended,
};

/// R:RACE. FIELD-BUGS rows 1, 37 and 40.
///
/// Symptom: two daemons on one token, or a loser whose exit removed the winner's record. Cause: the
/// lock file was made first and filled in later, and a rival took the empty one for stale; cleanup
/// ran without ownership. It holds because lock and record are one commit behind a unique index,
/// and a loser has no nonce to release anything with.
#[test]
fn of_thirty_starts_at_once_one_owns_and_the_others_name_it_or_say_busy() {
    const STARTS: usize = 30;
    /// How long a start waits for its turn in the store.
    const PATIENCE: Duration = Duration::from_secs(5);
    let sandbox = Sandbox::new();
    let mut late = 0;
    for round in 1..=rounds(50, 500) {
        let barrier = Barrier::new();
        let run = sandbox.incumbent([&["run", "--no-backoff"], HOLDING].concat());
        let mut starts: Vec<_> = (0..STARTS).map(|_| barrier.hold_back(&run)).collect();
        let opened = Instant::now();
        barrier.open();
        // The first words of an owner are its command's pid, those of the others a complaint.
        let words: Vec<String> = starts.iter_mut().map(Process::line).collect();
        let (owners, losers): (Vec<_>, Vec<_>) = starts
            .into_iter()
            .zip(&words)
            .partition(|(_, words)| words.trim().parse::<u32>().is_ok());
        assert_eq!(owners.len(), 1, "round {round}: owners {words:#?}");
        let owner = owners.into_iter().next().unwrap().0;
        for (loser, _) in losers {
            let answer = loser.finish(LIMIT).assert_code(75);
            let names_it = format!("default/gateway is held by pid {} (", owner.pid());
            // On a busy machine the turn of some does not come in the time that a store may be
            // busy.
            let is_late = answer.out.contains("stayed busy") && opened.elapsed() >= PATIENCE;
            assert!(is_late || answer.out.contains(&names_it), "round {round}: {answer:#?}");
            late += usize::from(is_late);
        }
        let pid = owner.pid();
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["pid"], pid, "round {round}");
        owner.finish(LIMIT).assert_code(0);
        let history = sandbox.history();
        assert_eq!(history.len(), round, "one incarnation a round");
        assert_eq!(history[0]["pid"], pid);
        assert_eq!(history[0]["end_reason"], "exited");
    }
    let counted = "SELECT sum(count) FROM conflicts";
    let refused = i64::try_from((STARTS - 1) * sandbox.history().len() - late).unwrap();
    assert_eq!(sandbox.number(counted), refused, "every refusal is counted once");
    assert!(
        late < STARTS * 10,
        "{late} were told that the store is busy, {refused} by whom it is held"
    );
}

/// FIELD-BUGS row 81: two first starts both make and migrate the store. The migrator takes its
/// exclusive transaction first and reads the version inside, so that the second finds it done.
#[test]
fn two_first_starts_at_once_both_succeed() {
    for round in 1..=rounds(120, 1_000) {
        let sandbox = Sandbox::new();
        let barrier = Barrier::new();
        let starts: Vec<_> = ["red", "blue"]
            .into_iter()
            .map(|profile| {
                barrier.hold_back(&sandbox.incumbent(["run", "--profile", profile, "--", "true"]))
            })
            .collect();
        barrier.open();
        for start in starts {
            let answer = start.finish(LIMIT);
            assert_eq!(answer.code(), 0, "round {round}: {answer:#?}");
        }
        let ended = "SELECT count(*) FROM instances WHERE end_reason = 'exited'";
        assert_eq!(sandbox.number(ended), 2, "round {round}");
        assert_eq!(sandbox.number("SELECT count(*) FROM meta WHERE key = 'store_uuid'"), 1);
    }
}

/// The same for one office: one owns, the other is refused by name, and neither fails.
#[test]
fn two_first_starts_for_one_office_are_one_owner_and_one_refusal() {
    for round in 1..=rounds(30, 500) {
        let sandbox = Sandbox::new();
        let barrier = Barrier::new();
        let run = sandbox.incumbent([&["run"], HOLDING].concat());
        let mut starts = [barrier.hold_back(&run), barrier.hold_back(&run)];
        barrier.open();
        let words = [starts[0].line(), starts[1].line()];
        let [first, second] = starts;
        let (owner, loser) =
            if words[0].parse::<u32>().is_ok() { (first, second) } else { (second, first) };
        let pid = owner.pid();
        let refusal = loser.finish(LIMIT).assert_code(75);
        assert!(refusal.out.contains(&format!("pid {pid} (")), "round {round}: {refusal:#?}");
        owner.finish(LIMIT).assert_code(0);
    }
}

/// Whoever asks while the store is being made finds none yet, or a whole one.
#[test]
fn questions_during_the_first_start_are_answered() {
    for round in 1..=rounds(40, 1_000) {
        let sandbox = Sandbox::new();
        let barrier = Barrier::new();
        let start = barrier.hold_back(&sandbox.incumbent(["run", "--", "true"]));
        let questions: Vec<_> =
            (0..5).map(|_| barrier.hold_back(&sandbox.incumbent(["status"]))).collect();
        barrier.open();
        for question in questions {
            let answer = question.finish(LIMIT);
            assert!(matches!(answer.code(), 0 | 3), "round {round}: {answer:#?}");
        }
        let answer = start.finish(LIMIT);
        assert_eq!(answer.code(), 0, "round {round}: {answer:#?}");
    }
}

/// FIELD-BUGS rows 27, 38, 39 and 77.
///
/// Symptom: a dashboard that polled `status` every few seconds deleted live locks, or made starts
/// fail with "database is locked". It holds because a question opens the store read-only, takes no
/// write lock, probes anchors shared and unlinks nothing. They also poll before there is a store.
#[test]
fn four_processes_polling_status_flat_out_never_make_a_start_fail() {
    let sandbox = Sandbox::new();
    let poll = "
        while [ ! -e stop ]; do
            incumbent status --json > /dev/null
            code=$?
            case $code in 0 | 3) ;; *) echo \"status said $code\" ;; esac
            polls=$((polls + 1))
            [ $polls = 1 ] && echo polling
        done
        echo \"polls: $polls\"";
    let mut pollers: Vec<_> = (0..4).map(|_| Process::start(sandbox.shell(poll))).collect();
    for poller in &mut pollers {
        assert_eq!(poller.line(), "polling");
    }
    for start in 1..=rounds(60, 2_000) {
        let answer = sandbox.cli(["run", "--no-backoff", "--", "true"]);
        assert_eq!(answer.code(), 0, "start {start}: {answer:#?}");
    }
    std::fs::File::create(sandbox.file("stop")).unwrap().flush().unwrap();
    for poller in pollers {
        let Answer { out, err, .. } = poller.finish(LIMIT).assert_code(0);
        assert!(!out.contains("status said"), "{out}{err}");
        assert_eq!(err, "", "{out}");
    }
}

/// The same in one process: claims and releases beside readers of the same store.
#[test]
fn claims_beside_a_polling_thread_all_succeed() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let profile = store.profile("default").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    profile.status().unwrap();
                }
            });
        }
        for _ in 0..rounds(200, 10_000) {
            match profile.claim().unwrap() {
                Claim::Granted(tenure) => drop(tenure.release().unwrap()),
                Claim::Held(holder) => panic!("{holder}"),
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// R:KILL. FIELD-BUGS rows 1, 2, 19 and 79.
///
/// Symptom: after a `kill -9` every start died of the record left behind. It holds because the
/// kernel drops the anchor's lock with the process, before anybody can learn of its death: when the
/// pidfd polls readable the next claim is granted, whether or not the corpse was collected.
#[test]
fn a_claim_beside_a_killed_owner_succeeds_every_time() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let profile = store.profile("default").unwrap();
    for round in 1..=rounds(1_000, 1_000) {
        let mut owner = sandbox.hold(&[]);
        if round % 2 == 0 {
            owner.kill();
        } else {
            kill(owner.pid(), Signal::KILL);
            assert!(wait_ended(owner.pid(), LIMIT));
        }
        match profile.claim().unwrap() {
            Claim::Granted(tenure) => {
                let evicted = tenure.evicted().expect("it took the place of the killed one");
                assert_eq!(evicted.pid, Some(owner.pid()), "round {round}");
                assert_eq!(evicted.reason, Reason::AnchorReleased, "round {round}");
                assert!(owner.command.is_gone(), "round {round}: its command still runs");
            }
            Claim::Held(holder) => panic!("round {round}: {holder}"),
        }
    }
}

/// Starts and ends of many profiles beside each other: no start fails because of another office.
#[test]
fn offices_do_not_get_into_each_others_way() {
    let sandbox = Sandbox::new();
    let runs: Vec<Run> =
        (0..8).map(|number| sandbox.hold(&["--profile", &format!("p{number}")])).collect();
    let live = "SELECT count(*) FROM instances WHERE ended_at_ms IS NULL";
    assert_eq!(sandbox.number(live), 8);
    for run in runs {
        run.end().assert_code(0);
    }
    assert_eq!(sandbox.number(live), 0);
}

/// Anchors of the dead are removed by those who come after them: they do not pile up.
#[test]
fn anchors_of_the_killed_do_not_pile_up() {
    let sandbox = Sandbox::new();
    for _ in 0..20 {
        sandbox.hold(&[]).kill();
    }
    let last = sandbox.hold(&[]);
    let names = eventually("one anchor", LIMIT, || {
        let names = sandbox.anchor_names();
        (names.len() <= 2).then_some(names)
    });
    assert!(names.iter().any(|name| name.contains(&format!("-{}-", last.pid()))), "{names:?}");
}
