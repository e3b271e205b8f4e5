//! Many ordinary runs: exit codes, output and terminal are what they are without, and no run waits
//! for anything but its command.

use crate::support::{
    BINARY, LIMIT, Process, START, Sandbox, eventually, has, rounds, skipped, works,
};

/// They end in every way, and print what is no text.
const SCRIPTS: [&str; 6] = [
    "true",
    "printf 'no end of line'; exit 3",
    "echo out; echo err >&2; exit 255",
    r"printf '\0\377\r\n\n'; exit 75",
    "ulimit -c 0; echo before; kill -SEGV $$",
    "cat; kill -TERM $$",
];

/// The exit code and the bytes of `words`, which are given a line to read.
fn ends(sandbox: &Sandbox, words: &[&str]) -> (i32, Vec<u8>) {
    let mut command = sandbox.program("/bin/sh");
    command.args(["-c", "exec \"$@\" > out", "sh"]).args(words);
    let mut process = Process::start(command);
    process.say_to_the_dying("a line");
    let code = process.finish(LIMIT).code();
    (code, std::fs::read(sandbox.file("out")).unwrap())
}

#[test]
fn a_thousand_commands_end_as_without() {
    let sandbox = Sandbox::new();
    let shell = |script| ["/bin/sh", "-c", script];
    let expected = SCRIPTS.map(|script| ends(&sandbox, &shell(script)));
    let codes = expected.each_ref().map(|it| it.0);
    assert_eq!(codes, [0, 3, 255, 75, 139, 143], "the test itself");
    for round in 0..rounds(60, 1_000) {
        let nth = round % SCRIPTS.len();
        let run = [&[BINARY, "run", "--no-backoff", "--"][..], &shell(SCRIPTS[nth])].concat();
        assert_eq!(ends(&sandbox, &run), expected[nth], "round {round}: {}", SCRIPTS[nth]);
    }
}

/// In one terminal, one after the other.
#[test]
fn a_thousand_commands_leave_a_terminal_as_it_was() {
    if !has("script") {
        return skipped("needs script(1) of util-linux");
    }
    let sandbox = Sandbox::new();
    let count = rounds(20, 1_000);
    let line = format!(
        "stty -g; n=0
         while [ $n -lt {count} ]; do
             '{BINARY}' run --no-backoff -- true || echo failed; n=$((n + 1))
         done
         stty -g"
    );
    let mut command = sandbox.program("script");
    command.args(["-qfec", &line, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "dumb");
    let answer = Process::start(command).finish_with_stdin_open(LIMIT).assert_code(0);
    let lines: Vec<&str> = answer.out.lines().map(str::trim).collect();
    let [before, after] = lines.as_slice() else { panic!("two lines: {answer:#?}") };
    assert_eq!(before, after);
}

/// Whether a call of a trace has slept, or has waited until its time was over.
fn is_a_wait(line: &str) -> bool {
    // A look that waits for nothing.
    let is_look = line.contains(", 0) = 0 (Timeout)") || line.contains("tv_sec=0, tv_nsec=0}");
    let timed_out = line.contains("(Timeout)") || line.contains("ETIMEDOUT");
    line.contains("nanosleep(") || (timed_out && !is_look)
}

/// An ordinary run waits for its command, and for nothing by time. On a machine with much to do a
/// command may take longer than a look; some run is fast.
#[test]
fn an_ordinary_run_waits_for_nothing_but_its_command() {
    if !has("strace") || !works(&["strace", "-f", "-o", "/dev/null"]) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    let trace = sandbox.file("trace");
    eventually("a run without a wait", LIMIT, || {
        let mut command = sandbox.program("strace");
        command.args(["-f", "-o"]).arg(&trace).arg(BINARY).args(START);
        Process::start(command).finish(LIMIT).assert_code(0);
        let trace = std::fs::read_to_string(&trace).unwrap();
        assert!(trace.contains("execve("), "the test itself: {trace}");
        let waits: Vec<&str> = trace.lines().filter(|line| is_a_wait(line)).collect();
        if !waits.is_empty() {
            eprintln!("{waits:#?}");
        }
        waits.is_empty().then_some(())
    });
}
