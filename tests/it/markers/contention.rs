//! Of many consumers at once one has it.

use std::time::Instant;

use serde_json::Value;

use super::party::{Gate, RECORDED_WITHIN, ROLE_TEST};
use crate::support::{LIMIT, Process, Sandbox, rounds, told_json};

/// Runs rounds in which many consume one marker until `wanted` of them were over in time, and
/// asserts that in those one had it. `round` returns the id that was left, and of each that got
/// something its id, whether that was recorded, and whether it came after [`RECORDED_WITHIN`].
///
/// A machine so busy that somebody cannot write within that time is not what this is about; but
/// there too one alone is on record, and whoever else was told is told that it is not.
#[track_caller]
fn assert_one_has_it(wanted: usize, mut round: impl FnMut(usize) -> (i64, Vec<(i64, bool, bool)>)) {
    let (mut in_time, mut number) = (0, 0);
    while in_time < wanted {
        number += 1;
        assert!(number <= 10 * wanted, "{in_time} of {number} rounds were over in time");
        let (id, won) = round(number);
        assert!(won.iter().all(|(got, ..)| *got == id), "round {number}: {won:?}, not {id}");
        let recorded = won.iter().filter(|(_, is_recorded, _)| *is_recorded).count();
        assert_eq!(recorded, 1, "round {number}: {won:?}");
        let early = won.iter().filter(|(_, is_recorded, is_late)| !is_recorded && !is_late);
        assert_eq!(early.count(), 0, "round {number}: {won:?}");
        if won.len() == 1 {
            in_time += 1;
        } else {
            eprintln!("round {number}: {} could not be recorded in time", won.len() - 1);
        }
    }
}

/// R:RACE. FIELD-BUGS row 53: probe and consumption were two steps, and two handlers both found
/// themselves addressed. It holds because the row is closed by one UPDATE with the condition that
/// nobody has closed it.
#[test]
fn of_fifty_consumers_at_once_one_has_it() {
    const CONSUMERS: usize = 50;
    let sandbox = Sandbox::new();
    sandbox.make_it();
    let run = sandbox.hold(&[]);
    let stranger = sandbox.stranger();
    let mut consumers: Vec<_> =
        (0..CONSUMERS).map(|_| sandbox.role(ROLE_TEST, "consumer")).collect();
    assert_one_has_it(rounds(8, 400), |round| {
        let pid = if round % 2 == 0 { run.pid() } else { stranger.pid() };
        let marker = sandbox.leave(pid, &["note"]);
        let path = sandbox.file(&format!("gate.{round}"));
        let gate = Gate::new(&path);
        for consumer in &mut consumers {
            consumer.say(&format!("{pid} {}", path.display()));
        }
        for consumer in &mut consumers {
            assert_eq!(told_json(consumer), "here");
        }
        gate.open();
        let answers: Vec<_> = consumers.iter_mut().map(told_json).collect();
        let won = answers.iter().filter(|answer| !answer.is_null()).map(|answer| {
            let is = |index: usize| answer[index].as_bool().unwrap_or_else(|| panic!("{answer}"));
            (answer[0].as_i64().unwrap(), is(1), is(2))
        });
        assert_eq!(sandbox.closed_how(&marker).as_deref(), Some("consumed"));
        (marker["id"].as_i64().unwrap(), won.collect())
    });
    for consumer in consumers {
        consumer.finish(LIMIT).assert_code(0);
    }
    run.end().assert_code(0);
}

/// The same by the verb, from as many scripts.
#[test]
fn of_fifty_scripts_at_once_one_has_it() {
    let sandbox = Sandbox::new();
    // As it is where a gateway runs: the store stays open, and its log as it is.
    let run = sandbox.hold(&[]);
    let pid = run.pid().to_string();
    assert_one_has_it(rounds(3, 50), |round| {
        let marker = sandbox.leave(run.pid(), &["note"]);
        let path = sandbox.file(&format!("gate.{round}"));
        let gate = Gate::new(&path);
        let script = format!(
            "exec 3< {}; echo here; read -r line <&3
             exec incumbent --json marker consume --pid {pid} 3<&-",
            path.display()
        );
        let mut scripts: Vec<_> = (0..50).map(|_| Process::start(sandbox.shell(&script))).collect();
        for script in &mut scripts {
            assert_eq!(script.line(), "here");
        }
        let opened = Instant::now();
        gate.open();
        let mut won = Vec::new();
        for script in scripts {
            let answer = script.finish(LIMIT);
            let is_late = opened.elapsed() >= RECORDED_WITHIN;
            assert_eq!(answer.err, "", "round {round}: {answer:#?}");
            let document: Value =
                serde_json::from_str(answer.out.trim_start_matches("here\n")).unwrap();
            assert_eq!(document["consumed"], answer.code() == 0, "round {round}: {document:#}");
            if document["consumed"] == true {
                let is_recorded = document["recorded"].as_bool().unwrap();
                won.push((document["id"].as_i64().unwrap(), is_recorded, is_late));
            }
        }
        assert_eq!(sandbox.closed_how(&marker).as_deref(), Some("consumed"));
        (marker["id"].as_i64().unwrap(), won)
    });
    run.end().assert_code(0);
}
