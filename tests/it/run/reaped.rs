//! What a `run` does once its command was reaped: its pid may be another process's by then, and
//! whoever waits for the exit of the run waits for the office.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{LIMIT, Process, Run, Sandbox, assert_within, eventually, kill, wait_stopped};

impl Sandbox {
    /// The database of another store, in which `holds` claimed the office, if anybody did.
    fn other_store(&self, holder: Option<&Process>) -> std::path::PathBuf {
        let (db, copy) = (self.file("other/state.db"), self.file("copy.db"));
        std::fs::create_dir_all(self.file("other")).unwrap();
        let mut claim = match holder {
            Some(holder) => {
                let pid = holder.pid().to_string();
                self.incumbent(["claim", "--no-keeper", "--pid", &pid])
            }
            None => self.incumbent(["desired", "running"]),
        };
        claim.env("INCUMBENT_DB", &db);
        Process::start(claim).finish(LIMIT).assert_code(0);
        let connection = rusqlite::Connection::open(&db).unwrap();
        connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        let wal: String = rusqlite::Connection::open(&copy)
            .unwrap()
            .query_row("PRAGMA journal_mode = wal", [], |row| row.get(0))
            .unwrap();
        assert_eq!(wal, "wal");
        copy
    }

    /// A stopped run whose store was replaced, and whose command has ended: when it goes on it
    /// finds all of that in one look. `holder` has the office in the new store.
    fn swapped_run(&self, holder: Option<&Process>) -> Run {
        let copy = self.other_store(holder);
        let run = self.hold(&[]);
        self.swap_and_end_command(&run, &copy);
        run
    }

    /// Stops `run`, puts the file `new` in the place of its store, and ends its command: when it
    /// goes on it finds all of that in one look.
    fn swap_and_end_command(&self, run: &Run, new: &std::path::Path) {
        run.process.signal(Signal::STOP);
        wait_stopped(run.pid());
        for name in ["state.db-wal", "state.db-shm"] {
            std::fs::remove_file(self.db().with_file_name(name)).unwrap();
        }
        std::fs::rename(new, self.db()).unwrap();
        kill(run.command.pid, Signal::KILL);
        run.command.wait_gone(LIMIT);
    }
}

/// Invariant 7. Symptom: the store was replaced, and somebody else holds the office in the new one;
/// the command had ended, and its run sent a TERM to its pid, which was free for anybody by then.
/// It holds because a run that has reaped its command knows no pid of it any more.
#[test]
fn a_command_that_was_reaped_gets_no_signal_for_a_lost_office() {
    let sandbox = Sandbox::new();
    let holder = Process::start(sandbox.program("cat"));
    let run = sandbox.swapped_run(Some(&holder));
    run.process.signal(Signal::CONT);
    let end = run.process.finish(LIMIT).assert_code(137);
    let told: Vec<_> = end.err.lines().filter(|line| line.contains("was lost")).collect();
    let held = format!("is held by pid {}", holder.pid());
    assert!(told.len() == 1 && told[0].contains(&held), "{end:#?}");
    assert!(!end.err.contains("ending the command"), "{end:#?}");
}

/// The same where nobody holds it: the end goes on record in the new store, without the pid of a
/// command.
#[test]
fn a_command_that_was_reaped_is_not_recorded_in_a_new_store() {
    let sandbox = Sandbox::new();
    let run = sandbox.swapped_run(None);
    run.process.signal(Signal::CONT);
    run.process.finish(LIMIT).assert_code(137);
    let last = &sandbox.history()[0];
    assert_eq!(
        (last["end_reason"].as_str(), last["signal"].as_i64()),
        (Some("signalled"), Some(9))
    );
    assert_eq!(sandbox.number("SELECT count(*) FROM instances WHERE child_pid IS NOT NULL"), 0);
}

/// And where somebody keeps the new store busy: nobody waits seconds for the exit of a run.
#[test]
fn a_busy_new_store_does_not_delay_the_exit() {
    let sandbox = Sandbox::new();
    sandbox.sick("its store is put there with a mode of our own");
    let run = sandbox.swapped_run(None);
    let alone = rusqlite::Connection::open(sandbox.db()).unwrap();
    alone.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let began = Instant::now();
    run.process.signal(Signal::CONT);
    run.process.finish(LIMIT).assert_code(137);
    assert_within(Duration::from_secs(2), began.elapsed(), "the exit beside a busy store");
}

/// Symptom: a gateway that was asked to end directly (`pkill my-gateway`) kept its office for 100
/// ms after its end: the run waited for a key in a terminal that nobody has. Some round is fast on
/// any machine.
#[test]
fn a_command_that_was_asked_directly_frees_its_office_at_once() {
    eventually("an end that took less than 80 ms", LIMIT, || {
        let sandbox = Sandbox::new();
        let mut run = sandbox.hold(&[]);
        let began = Instant::now();
        kill(run.command.pid, Signal::TERM);
        run.process.wait(LIMIT);
        let took = began.elapsed();
        run.process.finish(LIMIT).assert_code(143);
        (took < Duration::from_millis(80)).then_some(())
    });
}

/// Symptom: a run that could not record its command in a busy store was deaf for 20 s: four tries,
/// and no look at what was asked of it. It holds because nothing has been started by then.
#[test]
fn a_start_in_a_busy_store_can_be_ended() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    let blocker = rusqlite::Connection::open(sandbox.db()).unwrap();
    blocker.busy_timeout(LIMIT).unwrap();
    // Its claim is committed, and its command is not on record yet: that takes a few milliseconds.
    let run = eventually("a run between its claim and its start", LIMIT, || {
        let mut run = Process::start(sandbox.incumbent(["run", "--no-backoff", "--", "cat"]));
        let has_command = eventually("the claim", LIMIT, || {
            const LIVE: &str =
                "SELECT child_pid FROM instances WHERE pid = ?1 AND kind IS NOT NULL";
            blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
            let live = blocker.query_row(LIVE, [run.pid()], |row| row.get::<_, Option<u32>>(0));
            if !matches!(live, Ok(None)) {
                blocker.execute_batch("ROLLBACK").unwrap();
            }
            live.ok().map(|command| command.is_some())
        });
        if has_command {
            run.kill();
        }
        (!has_command).then_some(run)
    });
    run.signal(Signal::TERM);
    let began = Instant::now();
    run.finish(LIMIT).assert_code(143);
    assert_within(Duration::from_secs(12), began.elapsed(), "the end of a start in a busy store");
    blocker.execute_batch("ROLLBACK").unwrap();
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}
