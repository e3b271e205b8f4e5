//! The command: its exit code, its parent, its environment, and its end with the office.

use crate::support::{Identity, LIMIT, Process, Sandbox};

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

/// FIELD-BUGS row 69: no descriptor of ours, no signal of ours is left to the command, but for the
/// lock of its own, which is out of the way. What the test itself was started with is nobody's
/// fault.
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
    let expected = format!("{}fd 64\n", without_signals_of_libc(&plain.out));
    assert_eq!(without_signals_of_libc(&under_run.out), expected);
}

/// The two that the C library keeps to itself (32 and 33): nobody else can set them, and whether
/// they are ignored tells only if it forked or spawned.
fn without_signals_of_libc(said: &str) -> String {
    const OF_LIBC: u64 = 0b11 << 31;
    let line = |line: &str| match line.split_once(":\t") {
        Some((name, mask)) => {
            let mask = u64::from_str_radix(mask, 16).unwrap() & !OF_LIBC;
            format!("{name}:\t{mask:016x}\n")
        }
        None => format!("{line}\n"),
    };
    said.lines().map(line).collect()
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
    answer.assert_complains(&["was lost", "ending the command", "stop budget is over"]);
    assert!(command.is_gone());
    let history = sandbox.history();
    assert_eq!(history[0]["end_reason"], "evicted", "{history:#?}");
}
