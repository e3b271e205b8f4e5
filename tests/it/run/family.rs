//! What a command leaves behind when it ends: its family is ended and named, what left its session
//! is named and left alone.

use rustix::process::Signal;

use crate::support::{
    BINARY, Identity, LIMIT, Process, START, Sandbox, Stat, eventually, has, kill, skipped,
};

/// Starts a helper, says its pid and its own, and stays until its standard input is closed.
const WITH_HELPER: &str = "sleep 1000 > /dev/null 2>&1 & echo $!; echo $$; exec cat";

impl Sandbox {
    fn begin_run(&self, options: &[&str], script: &str) -> Process {
        let shell = ["--", "/bin/sh", "-c", script];
        Process::start(self.incumbent([&["run", "--no-backoff"], options, &shell].concat()))
    }
}

#[track_caller]
fn next(run: &mut Process) -> Identity {
    Identity::of(run.line().trim().parse().unwrap()).expect("it has just been started")
}

/// Waits until a process leads a session of its own.
#[track_caller]
fn wait_left_session(process: Identity) {
    let session = || Stat::of(process.pid).map(|stat| stat.session);
    eventually("it has left the session", LIMIT, || (session() == Some(process.pid)).then_some(()));
}

/// FIELD-BUGS row 127.
///
/// Symptom: each restart left the helpers of the command behind, on their ports, and nobody was
/// told. Cause: the run knew its command alone. It holds because it adopts what that leaves, and
/// ends it before it starts the next one.
#[test]
fn a_restart_leaves_no_helper_behind() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.begin_run(&[], WITH_HELPER);
    let (mut helper, mut command) = (next(&mut run), next(&mut run));
    for round in 0..3 {
        sandbox.cli(["restart"]).assert_code(0);
        assert!(helper.is_gone(), "round {round}");
        let (pid, of) = (helper.pid, command.pid);
        let told = format!("ended pid {pid}, which the command (pid {of}) had left behind");
        run.err_line_with(&told);
        (helper, command) = (next(&mut run), next(&mut run));
        assert!(!helper.is_gone(), "round {round}");
    }
    run.signal(Signal::TERM);
    run.wait(LIMIT);
    assert!(helper.is_gone(), "the end of the run is that of all");
}

/// However the command comes to its end, nothing of it lives when the office is free.
#[test]
fn the_family_ends_with_its_command() {
    for how in ["exits", "crashes", "is stopped", "is replaced", "is evicted"] {
        let sandbox = Sandbox::new();
        let mut run = sandbox.begin_run(&[], WITH_HELPER);
        let (helper, command) = (next(&mut run), next(&mut run));
        match how {
            "exits" => run.close_stdin(),
            "crashes" => kill(command.pid, Signal::SEGV),
            "is stopped" => drop(sandbox.cli(["stop"]).assert_code(0)),
            "is evicted" => drop(sandbox.cli(["evict", "--force"]).assert_code(0)),
            _ => {
                let script = format!("kill -0 {} 2> /dev/null; echo $?", helper.pid);
                let taker = sandbox.begin_run(&["--replace"], &script);
                assert_eq!(taker.finish(LIMIT).assert_code(0).out, "1\n", "two at once");
            }
        }
        run.wait(LIMIT);
        assert!(helper.is_gone() && command.is_gone(), "{how}");
    }
}

/// One that ignores SIGTERM, and one that nothing but its session tells of.
#[test]
fn the_deaf_and_those_without_environment_belong_to_it() {
    let sandbox = Sandbox::new();
    let script = "
        (trap '' TERM; exec sleep 1000) > /dev/null 2>&1 & echo $!
        env -i sleep 1000 > /dev/null 2>&1 & echo $!
        read -r line; exit 3";
    let mut run = sandbox.begin_run(&[], script);
    let (deaf, bare) = (next(&mut run), next(&mut run));
    let has_executed = |it: Identity| {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", it.pid)).ok()?;
        (name.trim() == "sleep").then_some(())
    };
    for helper in [deaf, bare] {
        eventually("the helper", LIMIT, || has_executed(helper));
    }
    let answer = run.finish(LIMIT).assert_code(3);
    assert!(deaf.is_gone() && bare.is_gone(), "{answer:#?}");
    for helper in [deaf, bare] {
        assert!(answer.err.contains(&helper.pid.to_string()), "{answer:#?}");
    }
    assert!(!answer.err.contains("--follow"), "it did not end with 0: {answer:#?}");
}

/// DESIGN, "What CMD leaves": a command that ends with 0 and leaves a process outside of its
/// session may have been a start script.
#[test]
fn what_left_the_session_is_named_and_left_alone() {
    let sandbox = Sandbox::new();
    let script = "
        setsid sleep 1000 > /dev/null 2>&1 & echo $!
        env -i setsid sleep 1000 > /dev/null 2>&1 & echo $!
        read -r line; exit $1";
    for code in [0, 3] {
        let shell = ["run", "--no-backoff", "--", "/bin/sh", "-c", script, "sh"];
        let code_word = code.to_string();
        let words = [&shell[..], &[code_word.as_str()]].concat();
        let mut run = Process::start(sandbox.incumbent(words));
        let daemons = [next(&mut run), next(&mut run)];
        daemons.into_iter().for_each(wait_left_session);
        let answer = run.finish(LIMIT).assert_code(code);
        for daemon in daemons {
            let named = format!("pid {} (sleep 1000) left the session", daemon.pid);
            assert!(answer.err.contains(&named), "{answer:#?}");
            assert!(!daemon.is_gone(), "{answer:#?}");
            kill(daemon.pid, Signal::KILL);
        }
        assert_eq!(answer.err.contains("--follow"), code == 0, "{answer:#?}");
    }
}

/// One that outlives many commands is named once.
#[test]
fn what_left_the_session_is_named_once() {
    let sandbox = Sandbox::new();
    let script = "
        if [ ! -e daemon ]; then
            setsid sleep 1000 > /dev/null 2>&1 & echo $! > daemon
        fi
        echo $$; exec cat";
    let mut run = sandbox.begin_run(&[], script);
    run.line();
    let daemon = std::fs::read_to_string(sandbox.file("daemon")).unwrap();
    let daemon = Identity::of(daemon.trim().parse().unwrap()).unwrap();
    wait_left_session(daemon);
    for _ in 0..3 {
        sandbox.cli(["restart"]).assert_code(0);
        run.line();
    }
    let answer = run.finish(LIMIT);
    let named = format!("pid {} (sleep 1000) left the session", daemon.pid);
    assert_eq!(answer.err.matches(&named).count(), 1, "{answer:#?}");
    assert!(!daemon.is_gone());
}

/// `--leave` leaves all, `--leave=PROGRAM` what runs that program.
#[test]
fn what_may_be_left_is_left() {
    let sandbox = Sandbox::new();
    for (option, keeps_sleep) in [("--leave", true), ("--leave=sleep", true), ("--leave=x", false)]
    {
        let mut run = sandbox.begin_run(&[option], WITH_HELPER);
        let (helper, _) = (next(&mut run), next(&mut run));
        run.finish(LIMIT).assert_code(0);
        assert_eq!(!helper.is_gone(), keeps_sleep, "{option}");
        if keeps_sleep {
            kill(helper.pid, Signal::KILL);
        }
    }
    // An interpreter is known by its file.
    std::fs::write(sandbox.file("agent.sh"), "mkfifo gate; read -r line < gate").unwrap();
    let script = "/bin/sh agent.sh > /dev/null 2>&1 & echo $!; read -r line";
    let mut run = sandbox.begin_run(&["--leave=agent.sh"], script);
    let agent = next(&mut run);
    eventually("the agent", LIMIT, || sandbox.file("gate").exists().then_some(()));
    run.finish(LIMIT);
    assert!(!agent.is_gone());
    kill(agent.pid, Signal::KILL);
}

/// Whoever asks for a restart from below the command waits for the answer, and so does the script
/// that asks.
#[test]
fn who_asked_for_the_restart_is_spared_with_its_script() {
    let sandbox = Sandbox::new();
    let script = "
        if [ ! -e asked ]; then
            echo > asked
            /bin/sh -c 'incumbent restart > /dev/null; echo $? > answer' > /dev/null 2>&1 &
            exec cat
        fi
        echo again; exec cat";
    let mut run = sandbox.begin_run(&[], script);
    assert_eq!(run.line(), "again");
    let answer = eventually("the answer to the script", LIMIT, || {
        let answer = std::fs::read_to_string(sandbox.file("answer")).ok()?;
        (!answer.is_empty()).then_some(answer)
    });
    assert_eq!(answer, "0\n");
    run.finish(LIMIT).assert_code(0);
}

/// Another run is an owner of its own.
#[test]
fn a_run_of_another_office_is_none_of_the_family() {
    let sandbox = Sandbox::new();
    let script = "
        incumbent --profile inner run --no-backoff -- sleep 1000 > /dev/null 2>&1 &
        read -r line; exit 0";
    let run = sandbox.begin_run(&[], script);
    let inner = || sandbox.json(["--profile", "inner", "status"]).1;
    eventually("the inner one runs", LIMIT, || (inner()["running"] == true).then_some(()));
    let answer = run.finish(LIMIT).assert_code(0);
    assert_eq!(inner()["reason"], "anchor_held", "{answer:#?}");
    sandbox.cli(["--profile", "inner", "stop"]).assert_code(0);
}

/// Symptom: a start killed the daemon of a stranger. Cause: the command of a killed `run` had led a
/// session whose number was free by then and another one's later, the leader of which had ended as
/// well: a daemon forks twice. It holds because somebody in the session has to show that it is of
/// this run. Who cannot be told from a gateway that shows nothing is not ended, and is named.
#[test]
fn a_session_number_that_was_used_again_is_a_strangers() {
    if !has("setsid") {
        return skipped("needs setsid");
    }
    let sandbox = Sandbox::new();
    let gateway = "echo $$ > command.new; mv command.new command; exec sleep 1000";
    let script = format!(
        "setsid incumbent run --no-backoff -- sh -c '{gateway}' > /dev/null 2>&1 < /dev/null &
        run=$!
        until [ -s command ]; do sleep 0.02; done
        command=$(cat command)
        kill -KILL $run; wait $run
        while kill -0 $command 2> /dev/null; do sleep 0.02; done
        echo $((command - 1)) > /proc/sys/kernel/ns_last_pid
        setsid sh -c 'sleep 1000 > /dev/null 2>&1 & echo $! > stranger' &
        wait $!
        stranger=$(cat stranger)
        echo session $(($(cut -d ' ' -f 6 /proc/$stranger/stat) - command))
        [ ! -e /proc/$command ] && echo without a leader
        incumbent run --no-backoff -- true; echo start $?
        kill -0 $stranger && echo lives
        incumbent evict --force > /dev/null; echo evict $?
        incumbent run --no-backoff -- true; echo start $?
        kill -0 $stranger && echo lives"
    );
    let Some(answer) = sandbox.choosing_pids(&script) else { return };
    let said = "session 0\nwithout a leader\nstart 75\nlives\nevict 0\nstart 0\nlives\n";
    assert_eq!(answer.out, said, "{answer:#?}");
}

/// In the session of a command that has ended with its `run`, one that shows nothing of it but the
/// file that the command locked: it is ended, too.
#[test]
fn one_without_environment_is_known_by_what_it_has_open() {
    if !has("setsid") {
        return skipped("needs setsid");
    }
    let sandbox = Sandbox::new();
    let script = "env -i sleep 1000 > /dev/null 2>&1 & echo $!; wait";
    let mut command = sandbox.program("setsid");
    command.args([BINARY, "run", "--no-backoff", "--", "/bin/sh", "-c", script]);
    let mut run = Process::start(command);
    let helper = next(&mut run);
    eventually("its environment is gone", LIMIT, || {
        let environment = std::fs::read(format!("/proc/{}/environ", helper.pid));
        environment.is_ok_and(|it| it.is_empty()).then_some(())
    });
    run.kill();
    eventually("the run is dead", LIMIT, || (sandbox.status().0 == 3).then_some(()));
    assert!(!helper.is_gone());
    sandbox.cli(START).assert_code(0);
    assert!(helper.is_gone(), "two at once");
}

/// Symptom: the workers of a gateway of another office, which the command had started, were killed
/// with the family: they have inherited its environment. It holds because that one is known for an
/// owner by the anchor that it has open, and what is below it is its own.
#[test]
fn what_another_owner_has_started_is_none_of_the_family() {
    let sandbox = Sandbox::new();
    let script = "
        : > ab-1-cd.lock
        /bin/sh -c 'exec 9< ab-1-cd.lock; sleep 1000 > /dev/null 9<&- & echo $!; echo $$
            exec > /dev/null; wait' 2> /dev/null &
        read -r line; exit 0";
    let mut run = sandbox.begin_run(&[], script);
    let (worker, owner) = (next(&mut run), next(&mut run));
    let answer = run.finish(LIMIT).assert_code(0);
    assert!(!owner.is_gone() && !worker.is_gone(), "{answer:#?}");
    for process in [owner, worker] {
        kill(process.pid, Signal::KILL);
    }
}
