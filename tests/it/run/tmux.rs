//! A real tmux that a gateway has started: its server outlives the run, with the environment of
//! that, and is the parent of what it starts (FIELD-BUGS rows 120 and 126).

use std::process::Command;

use crate::support::{LIMIT, Process, Sandbox, eventually, has, skipped};

/// What is done in a window; the answers go into a file.
const WINDOW: &str = "
    exec >> answers.new 2>> said
    incumbent lock acquire bot token > /dev/null; echo \"acquire $?\"
    incumbent claim > claimed; echo \"claim $?\"
    incumbent run --no-backoff --kind other -- sh -c 'echo \"run in $INCUMBENT_PROFILE\"'
    echo $$
    mv answers.new answers
    exec sleep 1000";

/// The server ends when it is dropped.
struct Tmux<'a>(&'a Sandbox);

impl Tmux<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.0.within(&["tmux", "-f", "/dev/null", "-S"]);
        command.arg(self.0.file("tmux.sock")).args(words);
        command
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}

#[test]
fn in_a_tmux_of_a_run_that_is_over_verbs_act_for_who_asks() {
    if !has("tmux") {
        return skipped("needs tmux");
    }
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("window.sh"), WINDOW).unwrap();
    let tmux = Tmux(&sandbox);
    let start = tmux.command(&["new-session", "-d", "-s", "gw", "sleep 1000"]);
    let mut run = sandbox.incumbent(["--profile", "work", "run", "--no-backoff", "--"]);
    run.arg(start.get_program()).args(start.get_args());
    let answer = Process::start(run).finish(LIMIT).assert_code(0);
    // The server is left alone, and said to be.
    assert!(answer.err.contains("left the session"), "{answer:#?}");

    let window = tmux.command(&["new-window", "-d", "sh window.sh"]);
    Process::start(window).finish(LIMIT).assert_code(0);
    let answers =
        eventually("the answers", LIMIT, || std::fs::read_to_string(sandbox.file("answers")).ok());
    let answers: Vec<&str> = answers.lines().collect();
    let [acquire, claim, inner, shell] = answers.as_slice() else { panic!("{answers:#?}") };
    assert_eq!([*acquire, *claim, *inner], ["acquire 0", "claim 0", "run in default"]);
    let shell: u32 = shell.parse().unwrap();
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], shell);
    let said = std::fs::read_to_string(sandbox.file("said")).unwrap();
    assert!(said.contains("is ignored, and its profile"), "{said}");

    // Without a shell between: the server itself is the parent, and is nobody's gateway.
    let direct = sandbox.file("direct");
    let asks = format!("exec incumbent --kind direct claim > '{}' 2>&1", direct.display());
    Process::start(tmux.command(&["run-shell", &asks])).finish(LIMIT);
    let refused = eventually("the refusal", LIMIT, || {
        let said = std::fs::read_to_string(&direct).ok()?;
        said.contains("--pid").then_some(said)
    });
    assert!(refused.contains("a session or service manager"), "{refused}");
    assert_eq!(sandbox.json(["--kind", "direct", "status"]).0, 3);
}
