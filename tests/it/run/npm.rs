//! `npm start`: the command of a run starts a shell, and that the gateway (FIELD-BUGS rows 107 and
//! 127).

use rustix::process::Signal;

use crate::support::{Identity, LIMIT, Process, Sandbox, exit_code, has, kill, skipped};

const PACKAGE: &str =
    r#"{"name": "gw", "version": "1.0.0", "private": true, "scripts": {"start": "sh start.sh"}}"#;

/// The shell and the gateway hold a lock that is none of ours.
const SCRIPT: &str = "
    exec 9> witness
    flock -n 9 || { echo 'two at once'; exit 9; }
    node server.js
    echo 'the gateway has ended'";

/// Says the pids of the shell, of itself and of an agent, which has left the session.
const SERVER: &str = "
    const agent = require('child_process')
        .spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });
    agent.unref();
    console.log(`up ${process.ppid} ${process.pid} ${agent.pid}`);
    setInterval(() => {}, 1000);";

/// All that `npm start` has started.
struct Chain {
    npm: Identity,
    shell: Identity,
    server: Identity,
    agent: Identity,
}

impl Chain {
    /// Waits for the next one of `run`.
    #[track_caller]
    fn next(sandbox: &Sandbox, run: &mut Process) -> Self {
        let pids = loop {
            let line = run.line();
            assert!(!line.contains("two at once"));
            if let Some(pids) = line.strip_prefix("up ") {
                break pids.to_owned();
            }
        };
        let mut pids = pids.split(' ').map(|pid| pid.parse::<u32>().unwrap());
        let mut next = || Identity::of(pids.next().unwrap()).expect("it has just spoken");
        let (shell, server, agent) = (next(), next(), next());
        let npm = sandbox.status().1["child_pid"].as_u64().expect("a command");
        let npm = Identity::of(u32::try_from(npm).unwrap()).expect("it waits for the gateway");
        Self { npm, shell, server, agent }
    }

    #[track_caller]
    fn assert_gone(&self, what: &str) {
        for (name, it) in [("npm", self.npm), ("its shell", self.shell), ("it", self.server)] {
            assert!(it.is_gone(), "{what}: {name} lives on");
        }
        assert!(!self.agent.is_gone(), "{what}: the agent was ended");
    }

    /// What a run says of the agent when it ends the others.
    fn left(&self) -> String {
        format!("pid {} (sleep 1000) left the session", self.agent.pid)
    }
}

fn npm_start(sandbox: &Sandbox, options: &[&str]) -> Process {
    let words = [&["run", "--no-backoff"], options, &["--", "npm", "start"]].concat();
    let mut command = sandbox.incumbent(words);
    // It would ask a registry whether there is a newer one.
    command.env("npm_config_update_notifier", "false");
    Process::start(command)
}

/// However the chain comes to its end, nothing of it is alive when the next one starts; what has
/// left the session lives, and is named.
#[test]
fn nothing_of_a_chain_lives_beside_the_next_one() {
    if !["npm", "node", "flock"].iter().all(|program| has(program)) {
        return skipped("needs npm, node and flock");
    }
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("package.json"), PACKAGE).unwrap();
    std::fs::write(sandbox.file("start.sh"), SCRIPT).unwrap();
    std::fs::write(sandbox.file("server.js"), SERVER).unwrap();
    let mut run = npm_start(&sandbox, &[]);
    let first = Chain::next(&sandbox, &mut run);

    sandbox.cli(["restart"]).assert_code(0);
    let second = Chain::next(&sandbox, &mut run);
    first.assert_gone("a restart");
    run.err_line_with(&first.left());

    sandbox.cli(["stop"]).assert_code(0);
    second.assert_gone("a stop");
    run.err_line_with(&second.left());
    run.wait(LIMIT);

    let mut run = npm_start(&sandbox, &[]);
    let third = Chain::next(&sandbox, &mut run);
    let mut taker = npm_start(&sandbox, &["--replace"]);
    let fourth = Chain::next(&sandbox, &mut taker);
    third.assert_gone("a takeover");
    run.err_line_with(&third.left());
    run.wait(LIMIT);

    kill(fourth.npm.pid, Signal::KILL);
    assert_eq!(exit_code(taker.wait(LIMIT)), 128 + 9);
    fourth.assert_gone("a crash");
    taker.err_line_with(&fourth.left());

    let mut run = npm_start(&sandbox, &[]);
    let fifth = Chain::next(&sandbox, &mut run);
    run.kill();
    let mut run = npm_start(&sandbox, &[]);
    let sixth = Chain::next(&sandbox, &mut run);
    fifth.assert_gone("a killed run");
    run.err_line_with(&format!("pid {} left the session of the old holder's", fifth.agent.pid));
    assert!(!sixth.server.is_gone());
}
