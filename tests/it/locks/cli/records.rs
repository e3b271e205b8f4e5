//! Locks whose records are not what they seem: recorded by the holder itself, ended by an older
//! version, lost with their store, or told of by an event that is gone.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Identity, LIMIT, Process, Sandbox, eventually, has, is_root, kill_all, skipped, wait_for_looks,
    wait_stopped,
};

impl Sandbox {
    #[track_caller]
    fn script(&self, script: &str) -> Process {
        Process::start(self.shell(script))
    }

    #[track_caller]
    fn locks(&self) -> Vec<Value> {
        let (code, document) = self.json(["locks"]);
        assert_eq!(code, 0, "{document:#}");
        document.as_array().unwrap().clone()
    }

    fn delete_store(&self) {
        for name in ["state.db", "state.db-wal", "state.db-shm"] {
            std::fs::remove_file(self.db().with_file_name(name)).unwrap();
        }
    }

    /// What a program of schema version 1 does to end a row: it knows nothing of locks.
    #[track_caller]
    fn end_as_an_older_version(&self, pid: u32) {
        let ended = self.forge(&format!(
            "UPDATE instances SET ended_at_ms = 1, end_reason = 'evicted'
             WHERE pid = {pid} AND ended_at_ms IS NULL"
        ));
        assert_eq!(ended, 1);
    }
}

/// FIELD-BUGS row 9.
///
/// Symptom: a script took a lock for itself and then executed the gateway in its own place, which
/// was refused by its own pid and advised to kill itself. It holds because a record that `--pid`
/// made of the very process that claims is taken over.
#[test]
fn a_process_that_recorded_itself_is_not_in_its_own_way() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.script(
        "incumbent lock acquire bot a --pid $$ > /dev/null || exit
         incumbent lock acquire bot b --pid $$ > /dev/null || exit
         incumbent claim --pid $$ > /dev/null || exit
         exec incumbent run --lock bot=a -- sh -c 'echo $PPID; exec cat'",
    );
    assert_eq!(gateway.line(), gateway.pid().to_string());
    let locks = sandbox.locks();
    assert_eq!(locks.len(), 2, "{locks:#?}");
    // The one that it did not ask for again is still its own, too.
    assert!(locks.iter().all(|lock| lock["pid"] == gateway.pid() && lock["verdict"] == "alive"));
    assert_eq!(sandbox.status().1["locks"].as_array().unwrap().len(), 1);
    assert_eq!(sandbox.history()[1]["end_reason"], "re_executed");
    gateway.close_stdin();
    let answer = gateway.finish(LIMIT).assert_code(0);
    assert!(!answer.err.contains("dead"), "{answer:#?}");
}

/// Symptom: a lock with a short lease could not be kept by the process that had it: acquiring it
/// again evicted that very process. It holds because an own lease that ran out is still one's own.
#[test]
fn a_process_is_not_evicted_by_its_own_lease() {
    let sandbox = Sandbox::new();
    let mut script = sandbox.script("echo $$; exec cat");
    let pid = script.line();
    let words = ["lock", "acquire", "bot", "a", "--pid", &pid, "--no-keeper", "--ttl", "10ms"];
    let first = sandbox.json(words).1;
    eventually("the end of the lease", LIMIT, || {
        (sandbox.locks()[0]["lease_remaining_ms"] == 0).then_some(())
    });
    let (code, again) = sandbox.json(words);
    assert_eq!((code, &again["reacquired"]), (0, &Value::Bool(true)), "{again:#}");
    assert_eq!((&again["fence"], &again["evicted"]), (&first["fence"], &Value::Null));
}

/// Symptom: a healthy gateway was killed by its `run`, days after it had let go of a lock. Cause:
/// that it had let go was known from an event, and the event had been pruned. It holds because the
/// run forgets such a lock when it sees it let go.
#[test]
fn a_lock_that_was_let_go_is_not_missed_later() {
    let sandbox = Sandbox::new();
    let script = "incumbent lock release bot a > /dev/null || exit 1
        echo released; read -r line; incumbent status > /dev/null; echo $?; exec cat";
    let arguments = ["run", "--lock", "bot=a", "--", "sh", "-c", script];
    let mut run = Process::start(sandbox.incumbent(arguments));
    assert_eq!(run.line(), "released");
    // Every commit makes the run look; a full verification comes within a second.
    for _ in 0..12 {
        sandbox.cli(["--profile", "other", "run", "--no-backoff", "--", "true"]).assert_code(0);
        wait_for_looks(&[run.pid()], 2);
    }
    sandbox.forge("DELETE FROM events");
    // Another one has it now: that is no loss.
    let holds = ["--profile", "other", "run", "--no-backoff", "--lock", "bot=a", "--", "true"];
    sandbox.cli(holds).assert_code(0);
    run.say("go on");
    assert_eq!(run.line(), "0");
    run.close_stdin();
    run.finish(LIMIT).assert_code(0);
}

/// Symptom: a `run` that was stopped lost its lock to a contender, and its command went on when it
/// was continued. Cause: what had happened was no longer among the events, and so was taken for a
/// release of its own. It holds because what nobody remembers counts as lost.
#[test]
fn a_loss_that_nobody_remembers_is_a_loss() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--lock", "bot=a"]);
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    sandbox.cli(["unlock", "bot", "a", "--force"]).assert_code(0);
    sandbox.forge("DELETE FROM events");
    run.process.signal(Signal::CONT);
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(75);
    answer.assert_complains(&["its lock bot/", "was lost: evicted", "ending the command"]);
}

/// Symptom: the store was deleted under a `run`, which claimed again; but its command, which asked
/// before each act whether it still held its token, was told no. It holds because the run goes on
/// with the same proof of ownership.
#[test]
fn verbs_act_for_a_run_that_claimed_again() {
    let sandbox = Sandbox::new();
    let script = "incumbent lock release bot b > /dev/null; echo ready; read -r line
        incumbent lock verify bot a > /dev/null; echo $?
        incumbent lock acquire bot a --json | grep -c '\"reacquired\": true'
        incumbent lock verify bot b 2> /dev/null; echo $?
        exec cat";
    let arguments = ["run", "--lock", "bot=a", "--lock", "bot=b", "--", "sh", "-c", script];
    let mut run = Process::start(sandbox.incumbent(arguments));
    assert_eq!(run.line(), "ready");
    // The run has to see that its command let go of one.
    wait_for_looks(&[run.pid()], 20);
    sandbox.delete_store();
    run.err_line_with("is claimed again in the new one");
    run.say("go on");
    for expected in ["0", "1", "1"] {
        assert_eq!(run.line(), expected);
    }
    assert_eq!(sandbox.locks().len(), 1, "what was let go is not taken back");
    run.close_stdin();
    run.finish(LIMIT).assert_code(0);
}

/// Symptom: two processes that had lost the same store took each other's locks in the new one.
/// Cause: anchors of a store that one was in oneself counted for nobody. It holds because they do
/// not count only for what oneself held there.
#[test]
fn a_run_does_not_take_what_it_let_go_from_under_its_holder() {
    let sandbox = Sandbox::new();
    let script = "incumbent lock release bot a > /dev/null; echo ready; exec cat";
    let arguments = ["run", "--lock", "bot=a", "--", "sh", "-c", script];
    let mut run = Process::start(sandbox.incumbent(arguments));
    assert_eq!(run.line(), "ready");
    let mut other = sandbox
        .script("incumbent lock acquire bot a --pid $$ > /dev/null || exit; echo $$; exec cat");
    assert_eq!(other.line(), other.pid().to_string());
    wait_for_looks(&[run.pid()], 20);
    wait_for_looks(&sandbox.keepers(), 4);
    // It would be the first there as well as the second.
    let keepers = sandbox.keepers();
    kill_all(&keepers, Signal::STOP);
    sandbox.delete_store();
    run.err_line_with("is claimed again in the new one");
    assert_eq!(sandbox.locks(), Vec::<Value>::new());
    let refused = sandbox.cli(["lock", "acquire", "bot", "a"]).assert_code(75);
    refused.assert_complains(&["deleted or replaced", "incumbent unlock bot --hash", "--force"]);
    kill_all(&keepers, Signal::CONT);
    eventually("its lock is on record again", LIMIT, || {
        sandbox.locks().iter().any(|lock| lock["pid"] == other.pid()).then_some(())
    });
}

/// DESIGN invariant 3: there is always a verb that a person can use to end it, for who has locks
/// and no office as well.
#[test]
fn an_anchor_of_a_lost_store_can_be_removed_by_unlock() {
    let sandbox = Sandbox::new();
    let mut holder = sandbox
        .script("incumbent lock acquire bot a --pid $$ > /dev/null || exit; echo $$; exec cat");
    holder.line();
    // They would write it down again.
    let keepers = sandbox.keepers();
    kill_all(&keepers, Signal::STOP);
    sandbox.delete_store();
    let pid = holder.pid().to_string();
    let acquire = ["lock", "acquire", "bot", "a", "--pid", &pid];
    sandbox.cli(acquire).assert_code(75);
    sandbox.cli(["unlock", "bot", "a"]).assert_code(75);
    let unlocked = sandbox.cli(["unlock", "bot", "a", "--force"]).assert_code(0);
    assert!(unlocked.out.contains("no longer block claims"), "{unlocked:#?}");
    sandbox.cli(acquire).assert_code(0);
    assert!(!holder.has_ended());
    kill_all(&keepers, Signal::CONT);
}

/// Symptom: a waiter waited for ever for a lock that nobody held: an older version had ended its
/// holder's row, and left the lock's. It holds because a row that ended holds nothing, for waiters
/// and for `unlock` as for claims.
#[test]
fn what_an_older_version_ended_is_free() {
    let sandbox = Sandbox::new();
    let mut holder = sandbox
        .script("incumbent lock acquire bot a --pid $$ > /dev/null || exit; echo $$; exec cat");
    holder.line();
    let waiter = sandbox.script("incumbent lock acquire bot a --pid $$ --wait=20s");
    eventually("a waiter", LIMIT, || {
        (sandbox.number("SELECT count(*) FROM waiters") == 1).then_some(())
    });
    sandbox.end_as_an_older_version(holder.pid());
    waiter.finish(LIMIT).assert_code(0);

    let mut holder = sandbox
        .script("incumbent lock acquire bot b --pid $$ > /dev/null || exit; echo $$; exec cat");
    holder.line();
    sandbox.end_as_an_older_version(holder.pid());
    assert!(sandbox.locks().iter().all(|lock| lock["pid"] != holder.pid()));
    sandbox.cli(["unlock", "bot", "b"]).assert_code(0);
    sandbox.cli(["unlock", "--stale"]).assert_code(0);
    sandbox.cli(["lock", "acquire", "bot", "b"]).assert_code(0);
}

/// FIELD-BUGS row 79. A person deletes rows with a program that does not enforce foreign keys.
#[test]
fn a_lock_without_an_owner_is_free() {
    let sandbox = Sandbox::new();
    let mut holder = sandbox
        .script("incumbent lock acquire bot a --pid $$ > /dev/null || exit; echo $$; exec cat");
    holder.line();
    let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM instances").unwrap();
    drop(connection);
    assert_eq!(sandbox.number("SELECT count(*) FROM scoped_locks"), 1);
    assert_eq!(sandbox.locks(), Vec::<Value>::new());
    // Its holder may still be at work: the anchor says so.
    sandbox.cli(["lock", "acquire", "bot", "a"]).assert_code(75);
    holder.kill();
    sandbox.cli(["lock", "acquire", "bot", "a"]).assert_code(0);
}

/// Symptom: where `/proc` is another namespace's, no lock could be had, and every attempt left
/// eight keepers behind. Cause: the record that a keeper had made was looked for by its start time,
/// which cannot be read there.
#[test]
fn a_lock_can_be_had_where_no_start_time_can_be_read() {
    if !is_root() || !has("unshare") {
        return skipped("needs root and unshare");
    }
    let sandbox = Sandbox::new();
    let mut command = sandbox.program("unshare");
    let script = "sleep 1000 > /dev/null 2>&1 & incumbent lock acquire bot a --pid $! > /dev/null
        echo $?; echo $!; exec cat";
    command.args(["-pf", "--kill-child", "/bin/sh", "-c", script]);
    let mut outer = Process::start(command);
    assert_eq!(outer.line(), "0");
    outer.line();
    assert_eq!(sandbox.keepers().len(), 1);
    assert_eq!(sandbox.locks()[0]["verdict"], "alive");
    // Both of the pair: each holds the lock.
    let keepers = [sandbox.keepers(), sandbox.second_keepers()].concat();
    let keepers: Vec<_> = keepers.into_iter().filter_map(Identity::of).collect();
    outer.kill();
    for keeper in keepers {
        keeper.wait_gone(LIMIT);
    }
    // A keeper that had just been started was not among them.
    let is_dead = || (sandbox.locks()[0]["verdict"] == "dead").then_some(());
    eventually("nobody holds it", LIMIT, is_dead);
}

/// DESIGN section 9, files bounded. A process that holds something all the time and cycles locks
/// keeps its anchor; what it did before must not pile up because of that.
#[test]
fn a_process_that_lives_long_keeps_a_bounded_past() {
    use incumbent::{Acquire, Claim, ClaimOptions, LockRequest, Store};

    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let profile = store.profile("default").unwrap();
    let other = ClaimOptions::new().kind("other".parse().unwrap());
    let Claim::Granted(_held) = profile.claim_with(&other).unwrap() else { panic!("refused") };
    let request = LockRequest::new("bot", "a").unwrap();
    for _ in 0..400 {
        let Acquire::Granted(lock) = store.try_acquire(&request).unwrap() else { panic!("held") };
        drop(lock);
        let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("refused") };
        drop(tenure);
    }
    let rows = sandbox.number("SELECT count(*) FROM instances");
    assert!(rows < 2 * 200 + 60, "{rows} rows");
    assert_eq!(sandbox.anchor_names().len(), 1);
    // One row of the anchor has stayed: it is not taken for one that lost its store.
    sandbox.cli(["--profile", "other", "run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// Symptom: the keeper of a record was killed, and acquiring again said "holds it already" and left
/// the record without one: from another container the lock looked free. It holds because a record
/// without its keeper gets another one.
#[test]
fn a_record_whose_keeper_was_killed_gets_another_one() {
    let sandbox = Sandbox::new();
    let mut script = sandbox.script("echo $$; exec cat");
    let pid = script.line();
    let acquire = ["lock", "acquire", "bot", "a", "--pid", &pid];
    let first = sandbox.json(acquire).1;
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    sandbox.kill_keepers();
    assert_eq!(sandbox.locks()[0]["flags"], serde_json::json!(["keeper_lost"]));
    let (code, again) = sandbox.json(acquire);
    assert_eq!((code, &again["fence"]), (0, &first["fence"]), "{again:#}");
    assert_eq!(sandbox.locks()[0]["reason"], "anchor_held");
    sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(sandbox.keepers().len(), 1);
}

/// Symptom: a script with a lease executed a gateway after that lease had run out, and the gateway
/// was given the script's lock without having it. It holds because it is the gateway's from then
/// on.
#[test]
fn a_program_that_a_script_executes_takes_over_a_lease_that_ran_out() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.script(
        "incumbent lock acquire bot a --pid $$ --no-keeper --ttl 10ms > /dev/null || exit
         sleep 0.1
         exec incumbent run --lock bot=a -- sh -c 'echo ready; exec cat'",
    );
    assert_eq!(gateway.line(), "ready");
    let status = sandbox.status().1;
    assert_eq!(status["locks"].as_array().unwrap().len(), 1, "{status:#}");
    assert_eq!(sandbox.locks()[0]["instance"], status["instance"]);
}

/// Symptom: a library process whose wait ended because its store had been deleted held nothing, and
/// kept everybody out of the next store. It holds because it lets go of its anchor.
#[test]
fn who_waited_in_a_lost_store_refuses_nobody() {
    use incumbent::lock::AcquireOptions;
    use incumbent::{Acquire, ErrorKind, LockRequest, Store, Wait};

    let sandbox = Sandbox::new();
    let mut holder = sandbox
        .script("incumbent lock acquire bot a --pid $$ > /dev/null || exit; echo $$; exec cat");
    holder.line();
    let store = Store::open(sandbox.db()).unwrap();
    let waiting = std::thread::spawn({
        let store = store.clone();
        move || {
            let request = LockRequest::new("bot", "a").unwrap();
            match store.acquire(&request, &AcquireOptions::new().wait(Wait::Forever)) {
                Err(error) => error.kind(),
                Ok(Acquire::Granted(_) | Acquire::Held(_)) => panic!("an answer"),
            }
        }
    });
    eventually("a waiter", LIMIT, || {
        (sandbox.number("SELECT count(*) FROM waiters") == 1).then_some(())
    });
    holder.kill();
    sandbox.delete_store();
    // Granted in the instant before would be right as well, but the store went first or at once.
    if let Ok(kind) = waiting.join() {
        assert_eq!(kind, ErrorKind::StoreReplaced);
    }
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    drop(store);
}

/// Symptom: threads that waited for one office left a waiter on record for as long as the process
/// lived: who got the office, and who shared it then, was counted as one.
#[test]
fn threads_that_share_an_office_leave_no_waiter() {
    use incumbent::{Claim, ClaimOptions, Store, Wait};

    let sandbox = Sandbox::new();
    let mut holder = sandbox.hold(&[]);
    let store = Store::open(sandbox.db()).unwrap();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let profile = store.profile("default").unwrap();
            std::thread::spawn(move || {
                match profile.claim_with(&ClaimOptions::new().wait(Wait::Forever)).unwrap() {
                    Claim::Granted(tenure) => tenure,
                    Claim::Held(holder) => panic!("{holder}"),
                }
            })
        })
        .collect();
    eventually("two waiters", LIMIT, || {
        (sandbox.number("SELECT count(*) FROM waiters") == 2).then_some(())
    });
    holder.kill();
    drop(waiting.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>());
    assert_eq!(sandbox.number("SELECT count(*) FROM waiters"), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE ended_at_ms IS NULL"), 0);
    let ours = format!("-{}-", std::process::id());
    assert!(!sandbox.anchor_names().iter().any(|name| name.contains(&ours)));
}

/// DESIGN invariant 8. What is known to be secret in a command line stays so in records that are
/// made later, by the same verb's keeper or without one.
#[test]
fn a_record_made_after_the_lock_hides_the_identity_too() {
    const IDENTITY: &str = "plain-secret-id";

    for keeper in [&[][..], &["--no-keeper"]] {
        for lock_first in [true, false] {
            let sandbox = Sandbox::new();
            let mut script = Process::start({
                let mut command = sandbox.program("sh");
                command.args(["-c", "echo $$; cat; :", "--chat", IDENTITY]);
                command
            });
            let pid = script.line();
            let claim = [&["claim", "--pid", &pid][..], keeper].concat();
            let lock = [&["lock", "acquire", "bot", IDENTITY, "--pid", &pid][..], keeper].concat();
            let steps = if lock_first { [&lock, &claim] } else { [&claim, &lock] };
            for step in steps {
                sandbox.cli(step).assert_code(0);
            }
            let rows = sandbox.cli(["sql", "SELECT argv FROM instances"]).assert_code(0).out;
            assert!(rows.contains("<redacted>") && !rows.contains(IDENTITY), "{rows}");
        }
    }
}

/// Ids rise in even steps where the clock is behind them, and what is pruned by chance must not
/// depend on that.
#[test]
fn the_past_is_bounded_also_where_ids_are_ahead_of_the_clock() {
    use incumbent::{Acquire, LockRequest, Store};

    for last_id in [4_102_444_800_000_000_i64, 4_102_444_800_000_001] {
        let sandbox = Sandbox::new();
        let store = Store::open(sandbox.db()).unwrap();
        sandbox.forge(&format!("UPDATE meta SET value = {last_id} WHERE key = 'last_id'"));
        let request = LockRequest::new("bot", "a").unwrap();
        for _ in 0..500 {
            match store.try_acquire(&request).unwrap() {
                Acquire::Granted(lock) => drop(lock),
                Acquire::Held(holder) => panic!("{holder}"),
            }
        }
        let rows = sandbox.number("SELECT count(*) FROM instances");
        assert!(rows < 300, "{rows} rows");
    }
}
