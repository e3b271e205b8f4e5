//! `run` stands between a supervisor and its command without being noticed: signals, exit codes,
//! the environment, the terminal, and the duties of PID 1.

use rustix::process::Signal;

use crate::support::{
    BINARY, Identity, LIMIT, Process, Sandbox, has, kill, pid_namespace, skipped, tagged,
};

/// Says each signal it gets, and ends with code 7 after TERM.
const EARS: &str = "
    for name in HUP INT QUIT USR1 USR2 WINCH CONT; do trap \"echo $name\" $name; done
    trap 'echo TERM; kill -KILL $sleeper; exit 7' TERM
    sleep 1000 > /dev/null 2>&1 &
    sleeper=$!
    echo $$
    while :; do wait $sleeper; done";

/// FIELD-BUGS rows 16, 18, 54 and 84: each signal once, to the command alone, and the end on
/// record.
#[test]
fn every_signal_is_passed_on_once() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", EARS]);
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::CONT, "CONT"),
        (Signal::USR1, "USR1"),
        (Signal::TERM, "TERM"),
    ] {
        run.process.signal(signal);
        assert_eq!(run.process.line(), name);
    }
    let pid = run.pid();
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(7);
    assert_eq!(answer.out.lines().count(), 10, "a signal came twice: {answer:#?}");
    let end = &sandbox.history()[0];
    assert_eq!(end["pid"], pid);
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    assert_eq!(end["signal"], 15, "{end:#}");
    assert_eq!(end["exit_code"], 7, "{end:#}");
    let by = end["ended_by"].as_str().unwrap_or_default();
    assert!(by.starts_with(&format!("pid {} (", std::process::id())), "{end:#}");
}

#[test]
fn the_exit_code_is_the_commands_own() {
    let sandbox = Sandbox::new();
    let run = |script: &str| sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", script]);
    for code in [0, 1, 3, 42, 75, 127, 255] {
        let answer = run(&format!("echo out; echo err >&2; exit {code}")).assert_code(code);
        assert_eq!((answer.out.as_str(), answer.err.as_str()), ("out\n", "err\n"));
        let end = &sandbox.history()[0];
        assert_eq!(end["end_reason"], "exited", "{end:#}");
        assert_eq!(end["exit_code"], code, "{end:#}");
        sandbox.assert_status(3, "dead", "exited");
    }
    for (name, number, reason) in
        [("KILL", 9, "signalled"), ("TERM", 15, "signalled"), ("SEGV", 11, "crashed")]
    {
        run(&format!("ulimit -c 0; kill -{name} $$")).assert_code(128 + number);
        let end = &sandbox.history()[0];
        assert_eq!(end["end_reason"], reason, "{end:#}");
        assert_eq!(end["signal"], number, "{end:#}");
        assert!(end["exit_code"].is_null(), "{end:#}");
    }
}

#[test]
fn a_command_that_cannot_be_executed_ends_as_in_a_shell() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("plain"), "no program").unwrap();
    let plain = sandbox.file("plain").display().to_string();
    for (program, code) in
        [("no-such-program-7", 127), ("./no/such/path", 127), (&plain, 126), ("/", 126)]
    {
        let answer = sandbox.cli(["run", "--no-backoff", "--", program, "argument"]);
        let answer = answer.assert_code(code).assert_complains(&["cannot execute", program]);
        assert_eq!(answer.out, "");
        let end = &sandbox.history()[0];
        assert_eq!(end["exit_code"], code, "{end:#}");
        assert_eq!(sandbox.status().0, 3, "{program}: the office is free again");
    }
}

/// A script without `#!` is run by a shell when a shell starts it, and is an error here: `run` adds
/// no shell of its own between itself and its command.
#[test]
fn the_command_is_the_direct_child() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let stat = crate::support::Stat::of(run.command.pid).unwrap();
    assert_eq!(stat.parent, run.pid());
    assert_eq!(sandbox.status().1["child_pid"], run.command.pid);
    run.end().assert_code(0);
}

#[test]
fn the_command_knows_whose_it_is() {
    let sandbox = Sandbox::new();
    let script = "env | grep ^INCUMBENT_ | sort; echo $$; exec cat";
    let arguments =
        ["run", "--db", "store/../store/state.db", "--profile", "work", "--kind", "relay", "--"];
    let mut command = sandbox.incumbent([&arguments[..], &["/bin/sh", "-c", script]].concat());
    command.env("INCUMBENT_TOKEN", "stale").env("INCUMBENT_INSTANCE", "1");
    let mut run = Process::start(command);
    let mut line = || run.line();
    let real = sandbox.path().canonicalize().unwrap().join("store/state.db");
    assert_eq!(line(), format!("INCUMBENT_DB={}", real.display()));
    let instance = line();
    assert_eq!(line(), "INCUMBENT_KIND=relay");
    assert_eq!(line(), "INCUMBENT_PROFILE=work");
    let token = line();
    line();
    let status = sandbox.json(["status", "--profile", "work", "--kind", "relay"]).1;
    assert_eq!(instance, format!("INCUMBENT_INSTANCE={}", status["instance"]));
    let token = token.strip_prefix("INCUMBENT_TOKEN=").unwrap();
    assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    // The secret is in nobody's row and in nobody's command line.
    let rows = sandbox.json(["sql", "SELECT * FROM instances"]).1.to_string();
    assert!(!rows.contains(token), "the token is stored in the clear");
    run.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS row 69: no descriptor of ours, no signal of ours is left to the command, but for the lock of
/// its own, which is out of the way. What the test itself was started with is nobody's fault.
#[test]
fn the_command_inherits_nothing_of_ours() {
    let sandbox = Sandbox::new();
    let script = "cat /proc/self/status | grep -E '^Sig(Blk|Ign|Cgt)'
        for fd in /proc/self/fd/*; do echo \"fd ${fd##*/}\"; done";
    let plain = Process::start(sandbox.shell(script)).finish(LIMIT).assert_code(0);
    let shell = sandbox.shell(script);
    let mut command = sandbox.incumbent(["run", "--"]);
    command.arg(shell.get_program()).args(shell.get_args());
    let under_run = Process::start(command).finish(LIMIT).assert_code(0);
    assert_eq!(under_run.out, format!("{}fd 64\n", plain.out));
}

/// `nohup incumbent run`: what was ignored stays ignored, for the command as well.
#[test]
fn an_ignored_hangup_stays_ignored() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo HUP' HUP; trap 'echo USR1' USR1; grep ^SigIgn /proc/$$/status >&2
        sleep 1000 > /dev/null 2>&1 & sleeper=$!
        trap 'kill -KILL $sleeper; exit 0' TERM
        echo $$; while :; do wait $sleeper; done";
    let mut command = sandbox.program("nohup");
    command.args([BINARY, "run", "--", "/bin/sh", "-c", script]);
    let mut run = Process::start(command);
    let ignored = run.err_line_with("SigIgn");
    assert!(ignored.ends_with('1'), "HUP is signal 1, the lowest bit: {ignored}");
    run.line_with("");
    run.signal(Signal::HUP);
    // Signals are passed on in turn: after this one, the other would have been.
    run.signal(Signal::USR1);
    assert_eq!(run.line(), "USR1");
    assert_eq!(sandbox.status().0, 0);
    run.signal(Signal::TERM);
    let answer = run.finish_with_stdin_open(LIMIT).assert_code(0);
    assert!(!answer.out.contains("HUP\n"), "{answer:#?}");
}

/// A terminal sends Ctrl-C to its whole foreground group: the command has had it, and must not get
/// it again from us (the second one makes many gateways give up their orderly end).
#[test]
fn a_terminals_own_ctrl_c_is_not_sent_twice() {
    if !has("script") {
        return skipped("needs script(1) of util-linux");
    }
    let sandbox = Sandbox::new();
    let file = sandbox.file("ears.sh");
    std::fs::write(&file, EARS).unwrap();
    // `exec`: a shell that stays beside us as the session's leader dies of the QUIT, and its end
    // hangs up on everybody. Not every shell leaves by itself, so it is the same one everywhere.
    let line = format!("exec '{BINARY}' run -- /bin/sh '{}'", file.display());
    let mut command = sandbox.program("script");
    command.args(["-qfec", &line, "/dev/null"]).env("SHELL", "/bin/sh");
    let mut terminal = Process::start(command);
    // What the command says; the run says who sent a signal that no key did.
    let heard = |terminal: &mut Process| loop {
        let line = terminal.line();
        let line = line.trim().trim_start_matches("^C").trim_start_matches("^\\");
        if !line.starts_with("incumbent: run: ") {
            return line.to_owned();
        }
    };
    heard(&mut terminal).parse::<u32>().expect("its pid");
    let run = u32::try_from(sandbox.status().1["pid"].as_u64().unwrap()).unwrap();
    // Handled in the order of these numbers even if both arrive at once: INT before USR1.
    for (key, name) in [("\u{3}", "INT"), ("\u{1c}", "QUIT")] {
        terminal.write(key);
        assert_eq!(heard(&mut terminal), name);
        kill(run, Signal::USR1);
        assert_eq!(heard(&mut terminal), "USR1", "{name} came twice");
    }
    // One that a person sends is passed on, terminal or not.
    kill(run, Signal::INT);
    assert_eq!(heard(&mut terminal), "INT");
    kill(run, Signal::TERM);
    assert_eq!(heard(&mut terminal), "TERM");
    terminal.finish_with_stdin_open(LIMIT).assert_code(7);
}

/// FIELD-BUGS rows 19 and 24: as PID 1 of a container it collects everybody's orphans, and ends
/// with its own command alone.
#[test]
fn as_pid_1_it_reaps() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let script = "
        echo \"I am $$, my parent is $PPID\"
        for n in 1 2 3 4 5 6 7 8 9 10; do (sh -c 'exit 3' & sh -c 'kill -KILL $$' & ); done
        looks=0
        while [ $looks -lt 2000 ]; do
            corpses=0
            for stat in /proc/[0-9]*/stat; do
                read -r line < $stat || continue
                set -- ${line##*) }
                [ \"$1 $2\" = 'Z 1' ] && corpses=$((corpses + 1))
            done 2> /dev/null
            looks=$((looks + 1))
            [ $corpses = 0 ] && break
        done
        echo \"corpses: $corpses\"
        exit 9";
    let words = [namespace, &[BINARY, "run", "--", "/bin/sh", "-c", script]].concat();
    let command = sandbox.within(&words);
    let answer = Process::start(command).finish(LIMIT).assert_code(9);
    assert!(answer.out.contains("my parent is 1\n"), "{answer:#?}");
    assert!(answer.out.contains("corpses: 0\n"), "{answer:#?}");
    assert_eq!(sandbox.history()[0]["exit_code"], 9);
}

/// The kernel gives PID 1 no default actions: a TERM that is not handled would be lost.
#[test]
fn as_pid_1_it_passes_signals_on() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let words = [namespace, &[BINARY, "run", "--", "/bin/sh", "-c", EARS]].concat();
    let command = sandbox.within(&words);
    let mut outer = Process::start(command);
    outer.line();
    let run = tagged("IT_SANDBOX", sandbox.path())
        .into_iter()
        .find(|pid| crate::support::Stat::of(*pid).is_some_and(|stat| stat.parent == outer.pid()))
        .expect("PID 1 of the namespace");
    kill(run, Signal::USR2);
    assert_eq!(outer.line(), "USR2");
    kill(run, Signal::TERM);
    assert_eq!(outer.line(), "TERM");
    outer.finish_with_stdin_open(LIMIT).assert_code(7);
}

/// FIELD-BUGS rows 16 and 50: a verb used inside acts for the run, and a second run is refused by
/// name instead of taking itself for somebody else.
#[test]
fn verbs_in_the_command_act_for_the_run() {
    let sandbox = Sandbox::new();
    let script = "
        incumbent claim > claim.txt; echo \"claim $?\"
        incumbent release 2> release.txt; echo \"release $?\"
        incumbent run --no-backoff -- true 2> run.txt; echo \"run $?\"
        incumbent status > /dev/null; echo \"status $?\"";
    let run = Process::start(sandbox.incumbent(["run", "--", "/bin/sh", "-c", script]));
    let pid = run.pid();
    let answer = run.finish(LIMIT).assert_code(0);
    assert_eq!(answer.out, "claim 0\nrelease 1\nrun 75\nstatus 0\n", "{answer:#?}");
    let read = |name: &str| std::fs::read_to_string(sandbox.file(name)).unwrap();
    assert!(read("claim.txt").contains(&format!("pid {pid} holds it already")));
    assert!(read("run.txt").contains(&format!("is held by pid {pid} (")), "{}", read("run.txt"));
    assert_eq!(sandbox.history().len(), 1);
}

/// FIELD-BUGS row 20: an evicted owner learns it and ends its command, within its stop budget.
#[test]
fn a_run_that_lost_its_office_ends_its_command() {
    let sandbox = Sandbox::new();
    let deaf = "trap '' TERM; echo $$; exec cat";
    let arguments = ["run", "--stop-budget", "500ms", "--", "/bin/sh", "-c", deaf];
    let mut run = Process::start(sandbox.incumbent(arguments));
    let command = Identity::of(run.line().parse().unwrap()).unwrap();
    sandbox.cli(["evict"]).assert_code(75);
    assert!(!command.is_gone());
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let answer = run.finish_with_stdin_open(LIMIT).assert_code(75);
    answer.assert_complains(&["was lost", "ending the command", "stop budget is spent"]);
    assert!(command.is_gone());
    let history = sandbox.history();
    assert_eq!(history[0]["end_reason"], "evicted", "{history:#?}");
}
