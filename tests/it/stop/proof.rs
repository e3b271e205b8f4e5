//! No process is signalled that is not proven to be the recorded one.

use rustix::process::Signal;

use super::{PATIENT, terms};
use crate::support::{Identity, LIMIT, Process, Sandbox, Stat, kill};

/// R:REUSE. FIELD-BUGS row 17.
///
/// Symptom: the stop of a gateway that was long gone ended a stranger that had got its pid (a
/// browser every few minutes; a service host, and with it the machine). It holds because a signal
/// goes to a pinned process whose start time is the recorded one, or to nobody.
#[test]
fn the_next_user_of_a_recorded_pid_sees_nothing_of_a_stop() {
    const SCRIPT: &str = "
        stops() { # for record $1 of pid $2
            reuse $2; echo \"$1: same pid $(($! - $2))\"
            incumbent stop --timeout 200ms > /dev/null 2>&1; echo \"stop $?\"
            incumbent stop --force --timeout 0 > /dev/null 2>&1; echo \"force $?\"
            kill -0 $! && echo lives
            kill -KILL $!; wait $!; grep -c signalled decoy.txt
        }
        mkfifo gate pids
        exec 8<> gate

        incumbent run --no-backoff -- sh -c 'echo $$ > pids; sleep 1000' &
        owner=$!
        read -r command < pids
        kill -KILL $owner; wait $owner
        stops run $owner

        for record in '--no-keeper' ''; do
            sh -c 'echo $$ > pids; sleep 1000' &
            owner=$!
            read -r same < pids
            incumbent claim $record --pid $owner > /dev/null
            keeper=$(incumbent --json sql 'SELECT keeper_pid FROM instances ORDER BY id DESC' |
                grep -o '[0-9][0-9]*' | head -n 1)
            # The lock of the dead one stays held.
            [ \"$record\" ] || kill -STOP $keeper
            kill -KILL $owner; wait $owner
            # One tick of the clock that start times are counted in has to pass: 10 ms.
            sleep 0.05
            stops \"claim $record\" $owner
        done
        exit 0";
    let sandbox = Sandbox::new();
    let Some(answer) = sandbox.choosing_pids(SCRIPT) else { return };
    let expected: Vec<String> = ["run", "claim --no-keeper", "claim "]
        .iter()
        .flat_map(|what| {
            [&format!("{what}: same pid 0"), "stop 0", "force 0", "lives", "0"].map(str::to_owned)
        })
        .collect();
    assert_eq!(answer.out.lines().collect::<Vec<_>>(), expected, "{answer:#?}");
}

/// R:ROW. FIELD-BUGS row 17: whatever pid a row names, only a process that is proven to be the
/// recorded one is signalled; never init, nobody's pid, nor an ancestor of whoever asks.
#[test]
fn a_forged_record_directs_no_signal_at_anybody() {
    const DECOY: &str =
        "for name in TERM HUP INT QUIT CONT USR1; do trap \"echo $name\" $name; done
        echo $$; while read -r x; do :; done; echo done";
    let unknown = "start time is not known";
    std::thread::scope(|scope| {
        for (what, why) in [
            ("start_time = NULL, start_time_unit = NULL", unknown),
            ("pid = 0", unknown),
            ("pid = -1", unknown),
            ("pid = -7", unknown),
            ("pid = 4294967295", unknown),
            ("pid = 1", "init"),
            ("ancestor", "it started this process"),
        ] {
            scope.spawn(move || {
                let sandbox = Sandbox::new();
                let owner = sandbox.linked_owner(500);
                let mut decoy = Process::start(sandbox.shell(DECOY));
                let decoy_pid: u32 = decoy.line().parse().unwrap();
                let mut shell = Process::start(sandbox.shell(
                    "trap 'echo TERM' TERM; echo $$; read -r go
                     incumbent stop --timeout 0 --force; echo \"code $?\"",
                ));
                let parent = Identity::of(shell.line().parse().unwrap()).unwrap();
                let forged = match what {
                    "pid = 1" => {
                        format!("pid = 1, start_time = {}", Stat::of(1).unwrap().start_time)
                    }
                    "ancestor" => {
                        format!("pid = {}, start_time = {}", parent.pid, parent.start_time)
                    }
                    // The decoy, without anything that tells it from the owner.
                    what if what.starts_with("start_time") => format!("pid = {decoy_pid}, {what}"),
                    what => what.to_owned(),
                };
                sandbox.forge(&format!(
                    "UPDATE instances SET process_inode = NULL, {forged} WHERE ended_at_ms IS NULL"
                ));
                shell.say("go");
                let answer = shell.finish(LIMIT).assert_code(0);
                assert!(answer.out.ends_with("\ncode 1\n"), "{what}: {answer:#?}");
                assert!(!answer.out.contains("TERM"), "{what}: {answer:#?}");
                let answer = answer.assert_complains(&["still running", "cannot be signalled"]);
                assert!(answer.err.contains(why), "{what}: {answer:#?}");
                let answer = decoy.finish(LIMIT).assert_code(0);
                assert_eq!(answer.out.lines().skip(1).collect::<Vec<_>>(), ["done"], "{what}");
                assert!(!owner.finish(LIMIT).err.contains("TERM"), "{what}");
            });
        }
    });
}

/// The same for a start time that names another process: the recorded one is gone, whoever holds
/// its lock.
#[test]
fn a_process_with_another_start_time_is_not_the_recorded_one() {
    let sandbox = Sandbox::new();
    let owner = sandbox.linked_owner(500);
    let mut decoy = Process::start(sandbox.shell("trap 'echo TERM' TERM; echo $$; read -r x"));
    let pid = decoy.line();
    sandbox.forge(&format!("UPDATE instances SET pid = {pid}"));
    sandbox.cli(["stop", "--timeout", "0", "--force"]).assert_code(0);
    assert_eq!(sandbox.history()[0]["end_reason"], "pid_reused");
    assert_eq!(decoy.finish(LIMIT).out, format!("{pid}\n"));
    let answer = owner.finish(LIMIT);
    assert!(!answer.err.contains("TERM"), "{answer:#?}");
}

/// FIELD-BUGS row 14. Symptom: the stop of a gateway killed a dashboard with a similar command
/// line. It holds because whom to stop is a record, and never a search through command lines.
#[test]
fn a_process_with_the_same_command_line_is_not_touched() {
    let sandbox = Sandbox::new();
    let run = sandbox.patient(&[]);
    // The same words as the command, and as the run itself (of another profile).
    let mut twin = Process::start(sandbox.shell(PATIENT));
    let twin_pid: u32 = twin.line().parse().unwrap();
    let dashboard = sandbox.patient(&["--profile", "dashboard"]);
    let stop = sandbox.begin(&["stop", "--force", "--timeout", "100ms"]);
    stop.finish(LIMIT).assert_code(0);
    run.ended().assert_code(0);
    assert!(!twin.has_ended());
    kill(twin_pid, Signal::USR1);
    assert_eq!(terms(&twin.finish_with_stdin_open(LIMIT).assert_code(7)), 0);
    assert_eq!(sandbox.json(["status", "--profile", "dashboard"]).0, 0);
    dashboard.let_end();
    assert_eq!(terms(&dashboard.ended().assert_code(7)), 0);
}
