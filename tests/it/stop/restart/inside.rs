//! A restart from inside the command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use incumbent::{Claim, ErrorKind, Store};

use super::is_done;
use crate::support::{LIMIT, Sandbox, eventually, rounds};

/// FIELD-BUGS rows 49 and 50.
///
/// Symptom: a restart issued from inside the gateway killed the restarter with it, and every other
/// time nobody came back; or somebody else was faster. It holds because the request is a row, which
/// outlives its author, and the `run` serves it without letting go of the office.
#[test]
fn restarts_asked_for_from_inside_are_served_once_each_and_nobody_else_gets_in() {
    let count = rounds(100, 1_000);
    // Each start asks for the next one: by a child that outlives it, or in its own place, to be
    // ended by what it asked for.
    let script = "
        n=$(($(cat starts) + 1)); echo $n > starts
        if [ $n -le $1 ]; then
            [ $((n % 2)) = 0 ] && exec incumbent restart --reason inside
            incumbent restart > answer.$n 2>&1 &
            exec sleep 1000
        fi
        echo \"$n starts\"
        exec cat";
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("starts"), "0").unwrap();
    let limit = LIMIT * u32::try_from(count / 100 + 2).unwrap();
    let number = count.to_string();
    let command = ["run", "--no-backoff", "--", "/bin/sh", "-c", script, "sh", &number];
    let began = Instant::now();
    let run = sandbox.begin(&command);
    let instance =
        eventually("the office is held", LIMIT, || sandbox.status().1["instance"].as_i64());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let contender = scope.spawn(|| {
            let profile = Store::open(sandbox.db()).unwrap().profile("default").unwrap();
            let mut refused = 0_usize;
            while !is_over.load(Ordering::Acquire) {
                match profile.claim() {
                    Ok(Claim::Held(_)) => refused += 1,
                    Ok(Claim::Granted(_)) => panic!("granted after {refused} refusals"),
                    // Beside a disk with much to do; nobody got in by that.
                    Err(error) if error.kind() == ErrorKind::Busy => {}
                    Err(error) => panic!("{error}"),
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            refused
        });
        let command = scope.spawn(|| {
            let mut refused = 0_usize;
            while !is_over.load(Ordering::Acquire) {
                let answer = sandbox.cli(["run", "--no-backoff", "--", "echo", "got in"]);
                assert_eq!(answer.assert_code(75).out, "", "after {refused} refusals");
                refused += 1;
            }
            refused
        });
        let is_last = || {
            let starts = std::fs::read_to_string(sandbox.file("starts")).unwrap();
            starts.trim() == (count + 1).to_string()
        };
        let given_up = || contender.is_finished() || command.is_finished();
        // No panic in here: it would wait for the contenders for ever.
        while !is_last() && !given_up() && began.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(2));
        }
        is_over.store(true, Ordering::Release);
        eprintln!("{count} restarts in {:?}", began.elapsed());
        for refused in [contender.join().unwrap(), command.join().unwrap()] {
            assert!(refused > 0, "nobody contended");
        }
        assert!(is_last(), "not within {limit:?}");
    });
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(status["instance"], instance, "{status:#}");
    // Whoever outlived the command is told, while what came of it runs.
    eventually("the answer to the last child that asked", LIMIT, || {
        let last = sandbox.file(&format!("answer.{}", (count - 1) | 1));
        let told = std::fs::read_to_string(last).unwrap();
        told.starts_with("default/gateway: restarted").then_some(())
    });
    let answer = run.finish(LIMIT).assert_code(0);
    assert_eq!(answer.out, format!("{} starts\n", count + 1));
    let count = i64::try_from(count).unwrap();
    assert_eq!((sandbox.restarts_asked_for(), sandbox.served()), (count, count));
    let open = "SELECT count(*) FROM markers WHERE closed_how IS NOT 'consumed'";
    assert_eq!(sandbox.number(open), 0);
    assert_eq!(sandbox.history().len(), 1);
}

/// Locks, environment, proof: all that a command has of its run, the next one has as well.
#[test]
fn the_next_command_has_what_the_first_one_had() {
    let sandbox = Sandbox::new();
    let script = "
        env | grep ^INCUMBENT_ | sort > env.$$
        incumbent lock verify telegram-bot-token 1:a > /dev/null; echo \"verify $?\"
        incumbent lock acquire other 2 > /dev/null; echo \"acquire $?\"
        incumbent marker peek; echo \"peek $?\"
        incumbent claim > /dev/null; echo \"claim $?\"
        echo $$; exec cat";
    let lock = "--lock=telegram-bot-token=1:a";
    let mut process = sandbox.begin(&["run", "--no-backoff", lock, "--", "/bin/sh", "-c", script]);
    let mut commands = Vec::new();
    let mut fences = Vec::new();
    for round in 0..3 {
        if round > 0 {
            let document =
                sandbox.begin(&["--json", "restart"]).finish(LIMIT).assert_code(0).json();
            is_done(&document, &sandbox.status().1["instance"]);
        }
        for said in ["verify 0", "acquire 0", "peek 1", "claim 0"] {
            assert_eq!(process.line(), said, "round {round}");
        }
        commands.push(process.line());
        let status = sandbox.assert_status(0, "alive", "anchor_held");
        assert_eq!(status["child_pid"].to_string(), commands[round], "{status:#}");
        fences.push(sandbox.number("SELECT sum(fence) FROM scoped_locks"));
        assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 2);
    }
    assert!(fences.iter().all(|fence| *fence == fences[0]), "{fences:?}");
    let environment =
        |pid: &String| std::fs::read_to_string(sandbox.file(&format!("env.{pid}"))).unwrap();
    assert!(environment(&commands[0]).contains("INCUMBENT_TOKEN="));
    for pid in &commands[1..] {
        assert_eq!(environment(pid), environment(&commands[0]));
    }
    process.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.history().len(), 1);
}
