//! Each request reaches the command once, whoever signals more than the run (FIELD-BUGS row 115).

use rustix::process::{Pid, Signal, kill_process_group};

use super::manager::Manager;
use crate::support::{
    BINARY, LIMIT, Process, Sandbox, Stat, eventually, has, kill, rounds, skipped,
};

/// Says its pid and each request that it gets, and how many there were when it is told to end, by
/// SIGWINCH: that is the last of the numbers, so all that came before it was passed on before.
pub const COUNTS: &str = "
    n=0
    trap 'n=$((n + 1)); echo got' TERM INT HUP USR1
    trap 'echo \"count $n\"; kill -KILL $sleeper; exit 0' WINCH
    (trap '' TERM INT HUP USR1; exec sleep 1000) > /dev/null 2>&1 &
    sleeper=$!
    echo $$
    while :; do wait $sleeper; done";

/// A process that signals its child for each line that it reads: `tree` first the children of that,
/// as pm2 does. It is called by the name that the first argument gives.
const ENDS_ITS_CHILD: &str = r#"
    my $name = shift; my $child = fork;
    if (!$child) { exec @ARGV or die }
    $0 = $name; $| = 1;
    while (my $what = <STDIN>) {
        my @of = $what =~ /tree/ ? map { $_ + 0 } split /\n/, `pgrep -P $child` : ();
        kill 'INT', @of, $child;
        print "sent\n";
    }
    waitpid $child, 0;"#;

impl Sandbox {
    /// A run in a session without a terminal, of a command that counts.
    fn counting_run(&self, options: &[&str]) -> Process {
        let mut command = self.within(&["setsid", BINARY, "run", "--no-backoff"]);
        command.args(options).args(["--", "/bin/sh", "-c", COUNTS]);
        Process::start(command)
    }
}

fn group_of(process: &Process) -> Pid {
    Pid::from_raw(i32::try_from(process.pid()).unwrap()).unwrap()
}

/// supervisord's `stopasgroup`, `kill -- -PID`: the group is that of the run alone, because the
/// command has a session of its own where there is no terminal. It is on record.
#[test]
fn a_signal_to_the_group_arrives_once() {
    let sandbox = Sandbox::new();
    for _ in 0..rounds(3, 20) {
        let mut run = sandbox.counting_run(&[]);
        let command: u32 = run.line().parse().unwrap();
        assert_eq!(Stat::of(command).unwrap().session, command, "a session of its own");
        let recorded = "SELECT child_sid FROM instances WHERE ended_at_ms IS NULL";
        assert_eq!(sandbox.number(recorded), i64::from(command));
        for signal in [Signal::TERM, Signal::INT] {
            kill_process_group(group_of(&run), signal).unwrap();
            assert_eq!(run.line(), "got", "passed on");
        }
        run.signal(Signal::WINCH);
        assert_eq!(run.line(), "count 2");
        run.finish_with_stdin_open(LIMIT).assert_code(0);
    }
}

#[test]
fn what_is_passed_on_can_be_chosen() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.counting_run(&["--forward", "always"]);
    run.line();
    run.signal(Signal::TERM);
    assert_eq!(run.line(), "got");
    run.signal(Signal::WINCH);
    assert_eq!(run.line(), "count 1");
    run.finish_with_stdin_open(LIMIT).assert_code(0);

    let mut run = sandbox.counting_run(&["--forward=never"]);
    let command: u32 = run.line().parse().unwrap();
    // In the order of their numbers: after the second was told, neither was passed on.
    run.signal(Signal::USR1);
    run.signal(Signal::TERM);
    run.err_line_with("SIGTERM");
    kill(command, Signal::WINCH);
    assert_eq!(run.line(), "count 0");
    run.finish_with_stdin_open(LIMIT).assert_code(0);
    sandbox.cli(["run", "--forward", "twice", "--", "true"]).assert_code(2);
}

/// pm2 signals a process and all its children, unless it was told not to. It is known by its name.
#[test]
fn pm2_ends_a_tree_and_the_command_once() {
    const PM2: &str = "PM2 v6.0.8: God Daemon (/root/.pm2)";
    if !has("perl") || !has("pgrep") {
        return skipped("needs perl and pgrep");
    }
    let sandbox = Sandbox::new();
    for _ in 0..rounds(3, 20) {
        for (name, treekill, what) in
            [(PM2, "true", "tree"), (PM2, "false", "one"), ("another one", "true", "one")]
        {
            let mut command = sandbox.within(&["setsid", "perl", "-e", ENDS_ITS_CHILD, name]);
            command.args([BINARY, "run", "--no-backoff", "--", "/bin/sh", "-c", COUNTS]);
            command.env("treekill", treekill);
            let mut daemon = Process::start(command);
            let shell: u32 = daemon.line().parse().unwrap();
            daemon.say(what);
            let mut said = [daemon.line(), daemon.line()];
            said.sort();
            assert_eq!(said, ["got", "sent"], "{name}, treekill={treekill}");
            kill(Stat::of(shell).unwrap().parent, Signal::WINCH);
            assert_eq!(daemon.line(), "count 1", "{name}, treekill={treekill}");
            daemon.finish(LIMIT).assert_code(0);
        }
    }
}

impl Manager<'_> {
    /// Waits until the service `name` has printed a line with `words`; all that it printed.
    #[track_caller]
    fn wait_said(&self, name: &str, words: &str) -> String {
        eventually(&format!("{words:?} of {name}"), LIMIT, || {
            Some(self.said(name)).filter(|said| said.contains(words))
        })
    }

    /// How often the command of the service `name` was asked, once it has said so.
    #[track_caller]
    fn count(&self, name: &str) -> String {
        let said = self.wait_said(name, "got");
        let shell: u32 = said.lines().find_map(|line| line.parse().ok()).unwrap();
        kill(Stat::of(shell).expect("it counts").parent, Signal::WINCH);
        let said = self.wait_said(name, "count ");
        said.lines().find_map(|line| line.strip_prefix("count ")).unwrap().to_owned()
    }
}

/// Symptoms: what `systemctl kill` sent to all processes of a service reached the command twice,
/// and what it sent to the main one alone did not reach it. Cause: the run went by how the service
/// is stopped (`KillMode=`), which says nothing of other signals. It holds because a witness says
/// who got it.
#[test]
fn systemctl_kill_arrives_once() {
    let sandbox = Sandbox::new();
    let Some(manager) = Manager::start(&sandbox) else { return };
    for round in 0..rounds(1, 20) {
        for mode in ["control-group", "mixed"] {
            for (whom, signal) in [
                ("all", "HUP"),
                ("all", "USR1"),
                ("all", "TERM"),
                ("main", "HUP"),
                ("main", "USR1"),
                ("main", "TERM"),
            ] {
                let name = format!("{mode}-{whom}-{signal}-{round}");
                let kill_mode = format!("KillMode={mode}");
                let command = [BINARY, "run", "--no-backoff", "--", "/bin/sh", "-c", COUNTS];
                manager.start_unit(&name, &[&kill_mode], &command).assert_code(0);
                manager.wait_said(&name, "\n");
                let whom = format!("--kill-whom={whom}");
                manager.systemctl(["kill", &whom, "-s", signal, &name]).assert_code(0);
                assert_eq!(manager.count(&name), "1", "{name}");
                // The office is free for the next one then.
                eventually("the end of the service", LIMIT, || {
                    let state = manager.property(&name, "ActiveState");
                    matches!(&*state, "inactive" | "failed").then_some(())
                });
            }
        }
    }
}

/// A script of the service starts the run: systemd is not its parent, and signals it anyway.
#[test]
fn a_service_that_is_a_script_is_stopped_once() {
    let sandbox = Sandbox::new();
    let Some(manager) = Manager::start(&sandbox) else { return };
    // It outlives the run: for what is left when it ends, systemd begins again.
    let script = r#"trap : TERM; "$0" run --no-backoff -- /bin/sh -c "$1" & run=$!
        while kill -0 $run 2> /dev/null; do wait $run; done; exit 0"#;
    for round in 0..rounds(3, 20) {
        let name = format!("script-{round}");
        let command = ["/bin/sh", "-c", script, BINARY, COUNTS];
        manager.start_unit(&name, &["TimeoutStopSec=120"], &command).assert_code(0);
        manager.wait_said(&name, "\n");
        manager.systemctl(["stop", "--no-block", &name]).assert_code(0);
        assert_eq!(manager.count(&name), "1", "{name}");
        eventually("the end of the service", LIMIT, || {
            let state = manager.property(&name, "ActiveState");
            matches!(&*state, "inactive" | "failed").then_some(())
        });
    }
}
