//! A terminal between a person and the command: keys, jobs of a shell, `stty tostop`.

use rustix::process::Signal;

use super::once::COUNTS;
use crate::support::{
    BINARY, LIMIT, Process, Sandbox, Stat, eventually, has, kill, rounds, skipped, wait_for_looks,
    wait_stopped,
};

/// Commands that no key of the terminal reaches, each with the word after which it says its pid:
/// in a session, and in a process group of their own.
const OUT_OF_REACH: [(&str, &str); 2] = [
    ("setsid", "setsid -w /bin/sh -c 'echo up $$; exec sleep 1000'"),
    (
        "python3",
        "python3 -c 'import os, time; os.setpgrp(); print(\"up\", os.getpid(), flush=True); \
         time.sleep(1000)'",
    ),
];

impl Sandbox {
    /// A terminal in which `line` is executed; `None`, and said, where there is none to be tried.
    fn terminal(&self, line: &str) -> Option<Process> {
        if !has("script") {
            skipped("needs script(1) of util-linux");
            return None;
        }
        let mut command = self.program("script");
        command.args(["-qfec", line, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "dumb");
        Some(Process::start(command))
    }

    /// The same with a shell that a person types at.
    fn person(&self) -> Option<Process> {
        if !has("bash") {
            skipped("needs bash");
            return None;
        }
        let mut terminal = self.terminal("exec bash --norc --noprofile --noediting -i")?;
        terminal.say("PS1= PS2=; stty -echo; set -m; echo $((40 + 2)) is there");
        terminal.line_with("42 is there");
        Some(terminal)
    }
}

/// The number after `word`, on the next line that has one.
fn number_after(terminal: &mut Process, word: &str) -> u32 {
    loop {
        let line = terminal.line_with(word);
        let rest = line.rsplit_once(word).unwrap().1;
        if let Ok(number) = rest.trim().parse() {
            return number;
        }
    }
}

/// The next line that is nothing but a number.
fn number_alone(terminal: &mut Process) -> u32 {
    loop {
        if let Ok(number) = terminal.line().trim().parse() {
            return number;
        }
    }
}

fn parent_of(pid: u32) -> u32 {
    Stat::of(pid).expect("it lives").parent
}

/// FIELD-BUGS row 116. Symptom: Ctrl-C and Ctrl-\ did nothing. Cause: the run took it that its
/// command had got the key as well, which had left the terminal's group. It holds because the
/// command is looked up in our group.
#[test]
fn keys_reach_a_command_that_left_the_group() {
    let sandbox = Sandbox::new();
    for (program, command) in OUT_OF_REACH {
        if !has(program) {
            skipped(&format!("one of two commands needs {program}"));
            continue;
        }
        for (key, code) in [("\u{3}", 130), ("\u{1c}", 131)] {
            let line = format!("ulimit -c 0; exec '{BINARY}' run --no-backoff -- {command}");
            let Some(mut terminal) = sandbox.terminal(&line) else { return };
            number_after(&mut terminal, "up ");
            terminal.write(key);
            terminal.finish_with_stdin_open(LIMIT).assert_code(code);
        }
    }
}

/// Ctrl-Z stops both, `fg` continues both, and what is typed then arrives.
#[test]
fn a_job_is_stopped_and_continued() {
    const IN_REACH: (&str, &str) = ("sh", "/bin/sh -c 'echo up $$; exec sleep 1000'");
    let sandbox = Sandbox::new();
    for (program, command) in OUT_OF_REACH.into_iter().chain([IN_REACH]) {
        if !has(program) {
            skipped(&format!("one of three commands needs {program}"));
            continue;
        }
        let Some(mut terminal) = sandbox.person() else { return };
        terminal.say(&format!("incumbent run --no-backoff -- {command}"));
        let command = number_after(&mut terminal, "up ");
        for _ in 0..2 {
            terminal.write("\u{1a}");
            wait_stopped(command);
            terminal.say("echo pid $(jobs -p %%)");
            let run = number_after(&mut terminal, "pid ");
            wait_stopped(run);
            terminal.say("fg");
            eventually("both go on", LIMIT, || {
                let goes_on = |pid| Stat::of(pid).is_some_and(|it| it.state != 'T');
                (goes_on(run) && goes_on(command)).then_some(())
            });
        }
        terminal.write("\u{3}");
        terminal.say("echo code $?");
        assert_eq!(number_after(&mut terminal, "code "), 130, "{program}");
        terminal.say("exit 0");
        terminal.finish_with_stdin_open(LIMIT).assert_code(0);
    }
}

/// Symptom: Ctrl-Z in a terminal without a shell (`ssh -t`, `xterm -e`) stopped the run for good.
/// Cause: it stopped itself where the kernel stops nobody, because nobody would let it go on. It
/// holds because the run looks for its shell first.
#[test]
fn nobody_is_stopped_where_there_is_no_shell() {
    const IN_REACH: (&str, &str) = ("sh", "/bin/sh -c 'echo up $$; exec sleep 1000'");
    let sandbox = Sandbox::new();
    for (program, command) in OUT_OF_REACH.into_iter().chain([IN_REACH]) {
        if !has(program) {
            skipped(&format!("one of three commands needs {program}"));
            continue;
        }
        let line = format!("exec '{BINARY}' run --no-backoff -- {command}");
        let Some(mut terminal) = sandbox.terminal(&line) else { return };
        let command = number_after(&mut terminal, "up ");
        let run = u32::try_from(sandbox.status().1["pid"].as_u64().unwrap()).unwrap();
        for _ in 0..3 {
            terminal.write("\u{1a}");
            // It has heard the key by then.
            wait_for_looks(&[run], 3);
            for pid in [run, command] {
                assert_ne!(Stat::of(pid).map(|it| it.state), Some('T'), "{program}: {pid}");
            }
        }
        terminal.write("\u{3}");
        terminal.finish_with_stdin_open(LIMIT).assert_code(130);
    }
}

/// Symptom: two fast Ctrl-C were three for the command. Cause: the witness in the group had seen
/// one, because what is pending is pending once, so the other one was passed on.
#[test]
fn two_fast_keys_are_not_three() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("counts.sh"), COUNTS).unwrap();
    for _ in 0..rounds(5, 50) {
        let line = format!("exec '{BINARY}' run --no-backoff -- /bin/sh counts.sh");
        let Some(mut terminal) = sandbox.terminal(&line) else { return };
        let shell = number_alone(&mut terminal);
        terminal.write("\u{3}\u{3}");
        terminal.line_with("got");
        kill(parent_of(shell), Signal::WINCH);
        let count = number_after(&mut terminal, "count ");
        assert!((1..=2).contains(&count), "{count} for two keys");
        terminal.finish_with_stdin_open(LIMIT).assert_code(0);
    }
}

/// `kill %1` signals the whole job, `kill PID` the run alone: the command gets each once.
#[test]
fn a_job_is_killed_once() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("counts.sh"), COUNTS).unwrap();
    for _ in 0..rounds(2, 20) {
        for kill_it in ["kill %1", "kill -INT %1", "kill $!", "kill -- -$!"] {
            let Some(mut terminal) = sandbox.person() else { return };
            terminal.say("incumbent run --no-backoff -- /bin/sh counts.sh & wait_for=$!");
            let shell = number_alone(&mut terminal);
            terminal.say(kill_it);
            terminal.line_with("got");
            kill(Stat::of(shell).expect("it counts").parent, Signal::WINCH);
            assert_eq!(number_after(&mut terminal, "count "), 1, "{kill_it}");
            terminal.say("wait $wait_for; exit 0");
            terminal.finish_with_stdin_open(LIMIT).assert_code(0);
        }
    }
}

/// FIELD-BUGS row 119: with `stty tostop` the kernel stops who writes to a terminal from the
/// background. The run says its lines, and serves on.
#[test]
fn its_own_lines_stop_no_run() {
    let sandbox = Sandbox::new();
    let Some(mut terminal) = sandbox.person() else { return };
    terminal.say("stty tostop");
    // The command itself writes nothing.
    terminal.say("incumbent run --no-backoff -- /bin/sh -c 'exec sleep 1000 > /dev/null' &");
    let run = eventually("the run", LIMIT, || {
        let status = sandbox.status().1;
        status["child_pid"].as_u64()?;
        status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    });
    let state = || Stat::of(run).map(|stat| stat.state);
    sandbox.cli(["restart", "--reason", "to have it say a line"]).assert_code(0);
    terminal.line_with("restarted the command");
    assert_ne!(state(), Some('T'));
    kill(run, Signal::TERM);
    terminal.say("wait; exit 0");
    terminal.finish_with_stdin_open(LIMIT).assert_code(0);
}

/// A command of a pipeline or a job leaves the terminal's modes and its group as without us.
#[test]
fn a_terminal_is_left_as_it_was() {
    let sandbox = Sandbox::new();
    let Some(mut terminal) = sandbox.person() else { return };
    let show = "echo \"modes $(stty -g) $(ps -o tpgid= -p $$)\"";
    terminal.say(show);
    let before = terminal.line_with("modes ");
    terminal.say("incumbent run --no-backoff -- true");
    terminal.say(show);
    assert_eq!(terminal.line_with("modes "), before);
    terminal.say("exit 0");
    terminal.finish_with_stdin_open(LIMIT).assert_code(0);
}
