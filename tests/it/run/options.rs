//! What a run does beside its command, where it is asked to.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    BINARY, Identity, LIMIT, Process, Run, Sandbox, eventually, has, kill, skipped, wait_ended,
    wait_for_looks, wait_stopped,
};

/// `--` is not needed: options before the command are ours, what comes behind it is its own.
#[test]
fn a_command_needs_no_dashes() {
    let sandbox = Sandbox::new();
    for (words, said) in [
        (&["run", "--no-backoff", "echo", "--json", "-n", "--", "x"][..], "--json -n -- x"),
        (&["run", "echo", "--profile", "other"], "--profile other"),
        (&["run", "--", "echo", "--", "--quiet"], "-- --quiet"),
        (&["run", "-E", "7", "--lock", "a=b", "echo", "x", "-E", "8"], "x -E 8"),
        (&["run", "--keep-stderr", "echo", "kept"], "kept"),
    ] {
        let answer = sandbox.cli(words).assert_code(0);
        assert_eq!(answer.out, format!("{said}\n"), "{words:?}");
    }
    let history = sandbox.history();
    assert_eq!(history.len(), 5, "all in the same office: {history:#?}");
}

/// Later versions of the older program look at the command line: it is complemented before the
/// command, whatever that has for arguments.
#[test]
fn a_legacy_home_is_known_without_dashes() {
    let sandbox = Sandbox::new();
    let home = sandbox.file("legacy");
    std::fs::create_dir(&home).unwrap();
    for dashes in [&["--"][..], &[]] {
        let mut command = sandbox.incumbent(["run", "--no-backoff", "--legacy-home"]);
        command.arg(&home).args(dashes);
        command.args(["sh", "-c", "tr '\\0' ' ' < /proc/$PPID/cmdline; echo; echo $2", "sh"]);
        command.args(["--", "own"]);
        let answer = Process::start(command).finish(LIMIT).assert_code(0);
        let (line, rest) = answer.out.split_once('\n').unwrap();
        let (ours, own) = line.split_once(" -- sh -c ").expect("one `--` before the command");
        assert!(ours.contains(" --known-as "), "{line}");
        assert!(own.trim_end().ends_with(" sh -- own"), "{line}");
        assert_eq!(rest, "own\n");
    }
}

/// Nothing is said but why a command was not started.
#[test]
fn a_quiet_run_says_nothing_of_itself() {
    let sandbox = Sandbox::new();
    let script = "echo $$; echo own >&2; incumbent restart > /dev/null 2>&1; exec cat";
    let once = format!("[ -e again ] && exec true; touch again; {script}");
    let answer = sandbox.cli(["run", "--quiet", "--no-backoff", "sh", "-c", &once]).assert_code(0);
    assert_eq!(answer.err, "own\n", "{answer:#?}");
    let run = sandbox.hold(&[]);
    let refused = sandbox.cli(["run", "--quiet", "--no-backoff", "true"]).assert_code(75);
    refused.assert_complains(&["is held by pid", "try:"]);
    run.end().assert_code(0);
}

/// The file names the run from before the command's start until its end, also over restarts; one
/// that cannot be written starts nothing.
#[test]
fn a_pid_file_names_the_run() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("gateway.pid");
    std::fs::write(&file, "1\n").unwrap();
    let script = "cat gateway.pid; echo $$; exec cat";
    let mut run = Process::start(sandbox.incumbent([
        "run",
        "--no-backoff",
        "--pidfile",
        "gateway.pid",
        "sh",
        "-c",
        script,
    ]));
    let pid = run.pid().to_string();
    assert_eq!(run.line(), pid);
    run.line();
    sandbox.cli(["restart"]).assert_code(0);
    assert_eq!(run.line(), pid, "the same for the next command");
    run.line();
    run.finish(LIMIT).assert_code(0);
    assert!(!file.exists());

    let words = ["run", "--no-backoff", "--pidfile", "no/such/file", "echo", "started"];
    let answer = sandbox.cli(words).assert_code(2);
    assert_eq!(answer.out, "");
    answer.assert_complains(&["cannot write the pid file", "no/such/file"]);
    assert_eq!(sandbox.status().0, 3, "the office is free");
}

/// What the command wrote last is passed through, and stands with its end: bounded, and without
/// what is locked or looks like a secret.
#[test]
fn the_last_lines_of_standard_error_are_kept() {
    const SECRET: &str = "bot123456:AAEhBP0av28xKq91mZ7ttyQwe42Lp0";
    let sandbox = Sandbox::new();
    let script = format!("for n in 1 2 3; do echo line $n >&2; done; echo {SECRET} >&2; exit 7");
    let words = ["run", "--no-backoff", "--keep-stderr=2", "--", "sh", "-c", &script];
    let answer = sandbox.cli(words).assert_code(7);
    assert_eq!(answer.err, format!("line 1\nline 2\nline 3\n{SECRET}\n"), "as it came");
    let end = &sandbox.history()[0];
    let detail = end["detail"].as_str().unwrap();
    assert!(detail.starts_with("stderr: line 3\n") && !detail.contains("AAEhBP0av28"), "{end:#}");

    // Far more than is kept.
    let script = "head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; echo >&2; echo last >&2";
    let words = ["run", "--no-backoff", "--keep-stderr", "--", "sh", "-c", script];
    let answer = sandbox.cli(words).assert_code(0);
    assert_eq!(answer.err.len(), 3_000_006);
    let detail = sandbox.history()[0]["detail"].as_str().unwrap().to_owned();
    assert!(detail.ends_with("\nlast") && detail.len() < 20_000, "{} bytes", detail.len());

    // Off, it is our own: nothing of it passes through us.
    sandbox.cli(["run", "--no-backoff", "sh", "-c", "echo word >&2"]).assert_code(0);
    assert!(sandbox.history()[0]["detail"].is_null());
    for lines in ["0", "1001", "many"] {
        sandbox.cli(["run", &format!("--keep-stderr={lines}"), "true"]).assert_code(2);
    }
}

/// A descendant that keeps the pipe holds up neither the end nor the next start.
#[test]
fn who_keeps_standard_error_open_holds_up_nobody() {
    let sandbox = Sandbox::new();
    let script = "setsid sleep 1000 < /dev/null > /dev/null & echo $!; echo last >&2; exit 3";
    let words = ["run", "--no-backoff", "--keep-stderr", "--", "sh", "-c", script];
    let mut run = Process::start(sandbox.incumbent(words));
    run.line();
    assert_eq!(crate::support::exit_code(run.wait(LIMIT)), 3);
    assert_eq!(sandbox.history()[0]["detail"], "stderr: last");
}

/// Nobody reads our standard error any more: the command writes on, and is kept.
#[test]
fn a_reader_that_is_gone_is_no_harm() {
    let sandbox = Sandbox::new();
    let script = "incumbent run --no-backoff --keep-stderr sh -c \
                  'head -c 1000000 /dev/zero >&2; exit 5' 2>&1 > /dev/null | true";
    Process::start(sandbox.shell(script)).finish(LIMIT).assert_code(0);
    let end = &sandbox.history()[0];
    assert_eq!(end["exit_code"], 5, "{end:#}");
}

impl Sandbox {
    /// What a program that was told of an end has written to `told.json`, once it is complete.
    #[track_caller]
    fn told(&self) -> Value {
        eventually("an account of the end", LIMIT, || {
            serde_json::from_slice(&std::fs::read(self.file("told.json")).ok()?).ok()
        })
    }

    fn run_telling(&self, line: &str, script: &str) -> Process {
        let words = ["run", "--no-backoff", "--on-end", line, "--keep-stderr", "--"];
        let mut command = self.incumbent(words);
        command.args(["sh", "-c", script]);
        Process::start(command)
    }
}

/// By JSON on its input and by variables, after the office is free.
#[test]
fn somebody_is_told_how_it_ended() {
    let sandbox = Sandbox::new();
    let line = "env | grep ^INCUMBENT_ | sort > env.txt; incumbent status > /dev/null
        echo $? > free.txt; cat > told.new; mv told.new told.json";
    let run = sandbox.run_telling(line, "echo why >&2; exit 7");
    let pid = run.pid();
    run.finish(LIMIT).assert_code(7);
    let told = sandbox.told();
    assert_eq!(
        (&told["format"], &told["profile"], &told["kind"], &told["pid"]),
        (&1.into(), &"default".into(), &"gateway".into(), &pid.into()),
        "{told:#}"
    );
    assert_eq!(
        (&told["end_reason"], &told["exit_code"], &told["stderr"], &told["restarting"]),
        (&"exited".into(), &7.into(), &"why".into(), &false.into()),
        "{told:#}"
    );
    assert!(told["signal"].is_null() && told["ended_at"].is_string(), "{told:#}");
    assert_eq!(told["instance"], sandbox.history()[0]["instance"]);
    let environment = std::fs::read_to_string(sandbox.file("env.txt")).unwrap();
    for line in [
        "INCUMBENT_END_REASON=exited",
        "INCUMBENT_END_EXIT_CODE=7",
        "INCUMBENT_END_SUMMARY=crashed: exit code 7",
        "_RESTARTING=false",
    ] {
        assert!(environment.contains(line), "{line}: {environment}");
    }
    for name in ["INCUMBENT_END_SIGNAL", "INCUMBENT_TOKEN", "INCUMBENT_INSTANCE="] {
        assert!(!environment.contains(name), "{name}: {environment}");
    }
    assert_eq!(std::fs::read_to_string(sandbox.file("free.txt")).unwrap(), "3\n");
}

/// A planned stop is told as one, and so is each restart.
#[test]
fn the_reason_is_that_of_the_history() {
    let sandbox = Sandbox::new();
    let line = "cat > told.new; mv told.new told.json";
    let mut run = sandbox.run_telling(line, "echo $$; exec sleep 1000");
    run.line();
    sandbox.cli(["restart"]).assert_code(0);
    run.line();
    let told = sandbox.told();
    assert_eq!((&told["restarting"], &told["signal"]), (&true.into(), &15.into()), "{told:#}");
    std::fs::remove_file(sandbox.file("told.json")).unwrap();
    sandbox.cli(["stop"]).assert_code(0);
    run.finish(LIMIT).assert_code(0);
    let told = sandbox.told();
    assert_eq!(told["end_reason"], "planned_stop", "{told:#}");
    assert!(told["ended_by"].as_str().unwrap().contains("incumbent stop"), "{told:#}");
}

/// A program that never ends holds up neither the run, nor whoever reads its output, nor the next
/// start, and is left alone; one that does not exist is no matter.
#[test]
fn who_is_told_holds_up_nobody() {
    let sandbox = Sandbox::new();
    let run = sandbox.run_telling("echo $$ > pid.txt; exec sleep 1000", "exit 7");
    // Its end, and that of both its outputs.
    run.finish(LIMIT).assert_code(7);
    let pid = eventually("its pid", LIMIT, || {
        std::fs::read_to_string(sandbox.file("pid.txt")).ok()?.trim().parse::<u32>().ok()
    });
    let hook = Identity::of(pid).expect("it goes on");
    sandbox.hold(&[]).end().assert_code(0);
    assert!(!hook.is_gone());
    let run = sandbox.run_telling("exec /no/such/program", "exit 8");
    run.finish(LIMIT).assert_code(8);
    kill(pid, Signal::KILL);
    assert!(wait_ended(pid, LIMIT));
}

/// Symptom: with `--follow` a slow program that was told of a restart became the command when the
/// next one ended, and without it was named as what the command had left. Cause: it is a child of
/// the run, and what it leaves as well. It holds because the run remembers whom it told, and they
/// are known by their variables.
#[test]
fn who_is_told_of_a_restart_is_none_of_the_family() {
    for option in [&["--follow"][..], &[]] {
        let sandbox = Sandbox::new();
        let line = "[ -e told.txt ] && exit
            (sleep 1000 & echo $! > left.txt)
            echo $$ > told.new; mv told.new told.txt; exec sleep 1000";
        let begin = ["run", "--no-backoff", "--on-end", line];
        let words = [&begin[..], option, &["--", "sh", "-c", "echo $$; exec cat"]].concat();
        let mut run = Process::start(sandbox.incumbent(words));
        run.line();
        sandbox.cli(["restart"]).assert_code(0);
        run.line();
        let pid_in = |name: &str| {
            eventually(name, LIMIT, || {
                std::fs::read_to_string(sandbox.file(name)).ok()?.trim().parse::<u32>().ok()
            })
        };
        let beside = ["told.txt", "left.txt"].map(pid_in);
        let beside = beside.map(|pid| Identity::of(pid).expect("it goes on"));
        let answer = run.finish(LIMIT).assert_code(0);
        for process in beside {
            assert!(!process.is_gone(), "{option:?}: {answer:#?}");
            let named = format!("pid {} (", process.pid);
            assert!(!answer.err.contains(&named), "{option:?}: {answer:#?}");
            kill(process.pid, Signal::KILL);
        }
        assert!(!answer.err.contains("--follow"), "{option:?}: {answer:#?}");
    }
}

/// A gateway that promised a sign of life and hangs is started again in the same office, and that
/// is on record; one that promised nothing is left alone.
#[test]
fn a_command_that_hangs_is_started_again() {
    let sandbox = Sandbox::new();
    let script = "echo $$; [ -e again ] && exec sleep 1000
        touch again; incumbent status-set --heartbeat=50ms --state running; exec sleep 1000";
    let words = ["run", "--no-backoff", "--restart-unresponsive", "--", "sh", "-c", script];
    let mut run = Run::start(sandbox.incumbent(words));
    let instance = sandbox.status().1["instance"].clone();
    let next: u32 = run.process.line().parse().unwrap();
    assert_ne!(next, run.command.pid);
    run.process.err_line_with("restarted the command");
    let status = sandbox.status().1;
    assert_eq!((&status["instance"], &status["child_pid"]), (&instance, &next.into()));
    let asked = sandbox.number("SELECT count(*) FROM markers WHERE reason LIKE 'no sign of life%'");
    assert_eq!(asked, 1);
    sandbox.cli(["stop"]).assert_code(0);
    run.process.finish(LIMIT).assert_code(0);
}

/// A patience of its own, and without the option: nobody is started again.
#[test]
fn a_command_may_be_silent_for_as_long_as_it_is_allowed_to() {
    let sandbox = Sandbox::new();
    let script = "incumbent status-set --heartbeat=10ms; echo $$; exec cat";
    for option in [&["--restart-unresponsive=1h"][..], &[]] {
        let words = [&["run", "--no-backoff"], option, &["--", "sh", "-c", script]].concat();
        let run = Run::start(sandbox.incumbent(words));
        eventually("an unresponsive command", LIMIT, || {
            sandbox.status().1["unresponsive_ms"].as_u64().filter(|ms| *ms > 1_500)
        });
        let markers = sandbox.number("SELECT count(*) FROM markers");
        assert_eq!((markers, run.command.is_gone()), (0, false), "{option:?}");
        run.end().assert_code(0);
    }
}

/// Symptom: a healthy gateway was restarted after `docker pause`, or Ctrl-Z and `fg`. Cause: it had
/// given no sign of life for as long, and the run looked before it could. It holds because the run
/// counts only the silence that it has listened to: here both are stopped and go on.
#[test]
fn a_command_that_was_stopped_with_its_run_has_missed_nothing() {
    let sandbox = Sandbox::new();
    let script = "echo $$
        while :; do incumbent status-set --heartbeat=3s > /dev/null; sleep 0.2; done";
    let words = ["run", "--no-backoff", "--restart-unresponsive", "--", "sh", "-c", script];
    let run = Run::start(sandbox.incumbent(words));
    eventually("a promise", LIMIT, || {
        let promised = "SELECT count(*) FROM instances WHERE heartbeat_every_ms = 3000";
        (sandbox.number(promised) == 1).then_some(())
    });
    kill(run.command.pid, Signal::STOP);
    kill(run.pid(), Signal::STOP);
    wait_stopped(run.command.pid);
    wait_stopped(run.pid());
    eventually("a long silence", LIMIT, || {
        sandbox.status().1["unresponsive_ms"].as_u64().filter(|ms| *ms > 7_000)
    });
    kill(run.pid(), Signal::CONT);
    kill(run.command.pid, Signal::CONT);
    eventually("a sign of life", LIMIT, || {
        sandbox.status().1["unresponsive_ms"].is_null().then_some(())
    });
    wait_for_looks(&[run.pid()], 20);
    let markers = sandbox.number("SELECT count(*) FROM markers");
    assert_eq!((markers, run.command.is_gone()), (0, false));
    sandbox.cli(["stop"]).assert_code(0);
    run.process.finish(LIMIT);
}

/// A terminal is the command's as without us, unless its standard error is kept.
#[test]
fn standard_error_is_a_terminal_unless_it_is_kept() {
    if !has("script") {
        return skipped("needs script(1) of util-linux");
    }
    let sandbox = Sandbox::new();
    for (option, said) in [("--quiet", "terminal"), ("--keep-stderr", "pipe")] {
        let script = "[ -t 2 ] && echo terminal || echo pipe";
        let line = format!("exec '{BINARY}' run --no-backoff {option} sh -c '{script}'");
        let mut command = sandbox.program("script");
        command.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh");
        let answer = Process::start(command).finish(LIMIT).assert_code(0);
        assert_eq!(answer.out.trim(), said, "{option}");
    }
}
