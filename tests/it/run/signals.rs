//! Every signal reaches the command once, also from a terminal and as PID 1.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    BINARY, LIMIT, Process, Sandbox, has, kill, pid_namespace, skipped, tagged, works,
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

/// The socket that the handlers write to cannot be read, for want of memory: signals are passed on
/// all the same.
#[test]
fn a_signal_is_passed_on_also_where_the_word_of_it_cannot_be_read() {
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", EARS]);
    let mut strace = sandbox.program("strace");
    strace.args(["-f", "-e", "trace=recvfrom", "-e", "inject=recvfrom:error=ENOMEM"]);
    strace.args(["-p", &run.process.pid().to_string()]);
    let mut strace = Process::start(strace);
    strace.err_line_with("(INJECTED)");
    run.process.signal(Signal::TERM);
    assert_eq!(run.process.line(), "TERM");
    run.process.finish_with_stdin_open(LIMIT).assert_code(7);
    assert_eq!(sandbox.history()[0]["end_reason"], "signalled");
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

/// Symptom: `run` never ended. Cause: a parent that ignores SIGCHLD (a badly written supervisor)
/// hands that down, and then the kernel collects the command before `run` can.
#[test]
fn a_run_started_with_its_childrens_ends_ignored_ends_with_its_command() {
    let sandbox = Sandbox::new();
    let words = ["env", "--ignore-signal=CHLD"];
    if !works(&words) {
        return skipped("needs an env that can ignore signals");
    }
    let start = |program: &[&str]| {
        let mut command = sandbox.within(&words);
        command.args(program);
        Process::start(command).finish(Duration::from_secs(10))
    };
    let ignored = start(&["grep", "SigIgn", "/proc/self/status"]).assert_code(0).out;
    let ignored = u64::from_str_radix(ignored.split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_ne!(ignored & (1 << (libc::SIGCHLD - 1)), 0, "the test is about an ignored signal");
    let answer = start(&[BINARY, "run", "--", "/bin/sh", "-c", "exit 7"]);
    assert_eq!(answer.code(), 7, "{answer:#?}");
    let history = sandbox.history();
    assert_eq!(
        (&history[0]["end_reason"], &history[0]["exit_code"]),
        (&json!("exited"), &json!(7))
    );
}
