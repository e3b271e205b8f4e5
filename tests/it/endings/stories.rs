//! Three in the morning: the first two lines of `status` say what happened, and what to do. The
//! expected text stands in `tests/fixtures/stories/`.

use rustix::process::Signal;
use serde_json::Value;

use super::cgroup::{EATER, LittleMemory};
use crate::support::{
    BINARY, Disk, LIMIT, Process, Run, Sandbox, eventually, has, kill, skipped, sleeper,
};

/// A length of time is another one each time: `3 s ago` is `N units ago`.
fn without_lengths(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    for at in 2..words.len() {
        let is_length = words[at - 2].trim_start_matches('(').parse::<u64>().is_ok();
        if words[at].starts_with("ago") && is_length {
            (words[at - 2], words[at - 1]) = ("N", "units");
        }
    }
    words.join(" ")
}

/// Asserts that the first two lines of a `status` are this story. `names` are what is another one
/// each time, with what stands for it in the story.
#[track_caller]
fn assert_story(status: &str, story: &str, names: &[(&str, &str)]) {
    let mut told = String::new();
    for line in status.lines().take(2) {
        told += &(without_lengths(line) + "\n");
    }
    for (name, stands_for_it) in names {
        told = told.replace(name, stands_for_it);
    }
    assert_eq!(told, story, "{status}");
}

impl Sandbox {
    /// `status` of an office that nobody holds.
    #[track_caller]
    fn status_of_the_dead(&self) -> String {
        self.cli(["status"]).assert_code(3).out
    }
}

/// Symptom: a bot that raised an exception was shown as `exited`, as one that had done its work.
#[test]
fn an_exception_in_a_python_bot_is_a_crash() {
    const BOT: &[&str] = &["python3", "-c", "raise RuntimeError('no chat in the configuration')"];
    if !has("python3") {
        return skipped("needs python3");
    }
    let sandbox = Sandbox::new();
    sandbox.cli([&["run", "--no-backoff", "--"], BOT].concat()).assert_code(1);
    let told = include_str!("../../fixtures/stories/python-raises.txt");
    assert_story(&sandbox.status_of_the_dead(), told, &[]);
    let all = sandbox.cli(["status", "--all"]).assert_code(0).out;
    assert!(all.contains("crashed: exit code 1"), "{all}");
    let end = sandbox.history().swap_remove(0);
    assert_eq!(end["summary"], "crashed: exit code 1", "{end:#}");

    // The advice helps: the next crash says why.
    sandbox.cli([&["run", "--no-backoff", "--keep-stderr", "--"], BOT].concat()).assert_code(1);
    let status = sandbox.status_of_the_dead();
    let told = include_str!("../../fixtures/stories/python-raises-stderr-kept.txt");
    assert_story(&status, told, &[]);
    let detail = sandbox.status().1["last_end"]["detail"].clone();
    let detail = detail.as_str().unwrap_or_default();
    assert!(detail.contains("RuntimeError: no chat in the configuration"), "{detail}");
    let detail = status.lines().find(|line| line.trim_start().starts_with("detail ")).unwrap();
    assert!(detail.ends_with("RuntimeError: no chat in the configuration"), "{status}");
    let history = sandbox.cli(["history", "--limit", "1"]).assert_code(0).out;
    assert!(history.contains("(stderr: RuntimeError: no chat in the configuration)"), "{history}");
}

/// Symptom: of a long traceback `status` showed the first frames, and of a long message the history
/// kept what came after what had been raised.
#[test]
fn what_was_raised_is_told_however_long_the_traceback_is() {
    const BOT: &str = "
def depth(n):
    if n: depth(n - 1)
    else: int('x')
try:
    depth(400)
except ValueError as error:
    raise RuntimeError('no chat\\nin bot.toml\\n\\n') from error
";
    if !has("python3") {
        return skipped("needs python3");
    }
    let sandbox = Sandbox::new();
    for keep in ["--keep-stderr=1", "--keep-stderr=2", "--keep-stderr=5", "--keep-stderr"] {
        let bot = ["run", "--no-backoff", keep, "--", "python3", "-c", BOT];
        sandbox.cli(bot).assert_code(1);
        let status = sandbox.status_of_the_dead();
        let first = without_lengths(status.lines().next().unwrap());
        let told = "default/gateway: not running (crashed: exit code 1: RuntimeError: no chat, N \
                    units ago)";
        assert_eq!(first, told, "{keep}: {status}");
        let history = sandbox.cli(["history", "--limit", "1"]).assert_code(0).out;
        assert!(history.contains("stderr: RuntimeError: no chat)"), "{keep}: {history}");
    }
}

/// What is to be done first depends on the signal, and on where this machine has core dumps.
#[test]
fn a_fault_is_told_with_where_to_look() {
    let sandbox = Sandbox::new();
    for (signal, word) in [
        ("SEGV", "core"),
        ("ABRT", "core"),
        ("BUS", "core"),
        ("XCPU", "`ulimit -t`"),
        ("XFSZ", "`ulimit -f`"),
        ("SYS", "seccomp"),
    ] {
        let crash = format!("ulimit -c 0; kill -{signal} $$");
        sandbox.cli(["run", "--no-backoff", "--", "sh", "-c", &crash]);
        let status = sandbox.status_of_the_dead();
        let [first, second] = [0, 1].map(|nth| without_lengths(status.lines().nth(nth).unwrap()));
        let told = format!("default/gateway: not running (crashed: SIG{signal}, N units ago)");
        assert_eq!(first, told, "{status}");
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let goes_elsewhere = pattern.trim().is_empty() || pattern.starts_with('|');
        if word == "core" && goes_elsewhere && !has("coredumpctl") {
            skipped("the advice about core dumps: this machine has none");
            continue;
        }
        assert!(second.trim_start().starts_with("try ") && second.contains(word), "{status}");
        assert!(second.ends_with("then start it again: `incumbent run -- CMD`"), "{status}");
    }
}

/// Symptom: a typo in the command looked like a gateway that had done its work: `exited`.
#[test]
fn a_command_that_is_not_there_is_a_crash() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "/no/such/gateway"]).assert_code(127);
    let told = include_str!("../../fixtures/stories/no-such-command.txt");
    assert_story(&sandbox.status_of_the_dead(), told, &[]);
}

/// The `run` collects its command, so it knows the signal.
#[test]
fn kill_9_of_the_command_is_told_with_its_signal() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    kill(run.command.pid, Signal::KILL);
    run.process.finish_with_stdin_open(LIMIT).assert_code(137);
    let told = include_str!("../../fixtures/stories/command-killed.txt");
    assert_story(&sandbox.status_of_the_dead(), told, &[]);
    let end = sandbox.status().1["last_end"].clone();
    assert_eq!((end["signal"].as_i64(), &end["exit_code"]), (Some(9), &Value::Null), "{end:#}");
}

/// Nobody saw how the `run` ended: that is what is said, and nothing is made up.
#[test]
fn kill_9_of_the_run_is_told_as_killed_or_crashed() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    let command = run.command;
    run.kill();
    command.wait_gone(LIMIT);
    let told = include_str!("../../fixtures/stories/run-killed.txt");
    assert_story(&sandbox.status_of_the_dead(), told, &[]);
    let end = sandbox.status().1["last_end"].clone();
    assert_eq!(end["summary"], "killed or crashed", "{end:#}");
    // The next start finds it. When it ended nobody knows.
    let next = sandbox.hold(&[]);
    let status = sandbox.cli(["status"]).assert_code(0).out;
    let end = status.lines().find(|line| line.trim_start().starts_with("last end ")).unwrap();
    let told = "  last end   killed or crashed; found dead N units ago";
    assert_eq!(without_lengths(end), told, "{status}");
    let history = sandbox.cli(["history"]).assert_code(0).out;
    let line = history.lines().nth(1).unwrap();
    assert!(!line.contains(" for ") && line.contains(" held it, found dead "), "{history}");
    let end = sandbox.history().swap_remove(1);
    assert_eq!(end["exit_seen_at"], end["ended_at"], "{end:#}");
    assert!(end["exit_seen_at"].is_string(), "{end:#}");
    assert_eq!(sandbox.status().1["last_end"]["exit_seen_at"], end["exit_seen_at"]);
    next.end().assert_code(0);
}

/// Of one that gave signs of life, when it did so last.
#[test]
fn who_was_found_dead_was_seen_alive_before() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    let command = run.command;
    sandbox.ask_in(&run, &["status-set", "--heartbeat"]).assert_code(0);
    run.kill();
    command.wait_gone(LIMIT);
    let status = sandbox.status_of_the_dead();
    let first = without_lengths(status.lines().next().unwrap());
    let told = "default/gateway: not running (killed or crashed; found dead just now; last seen \
                alive N units ago)";
    assert_eq!(first, told, "{status}");
}

/// Symptom: the same clause stood in three lines, with the word of a program in brackets.
#[test]
fn each_thing_is_said_once() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.status_of_the_dead().matches("nobody has claimed it yet").count(), 1);
    let run = sandbox.hold(&[]);
    sandbox.cli(["stop", "--reason", "deploy 1.4"]).assert_code(0);
    drop(run.process.finish_with_stdin_open(LIMIT));
    let status = sandbox.status_of_the_dead();
    assert_eq!(status.matches("deploy 1.4").count(), 1, "{status}");
    assert_eq!(status.matches("on purpose").count(), 1, "{status}");
    sandbox.cli(["run", "--no-backoff", "--", "false"]).assert_code(1);
    let status = sandbox.status_of_the_dead();
    assert!(!status.contains('[') && !status.contains("command ended"), "{status}");
}

/// A script is no `run`: it is started again as it was started.
#[test]
fn a_script_that_claimed_is_started_again_itself() {
    let sandbox = Sandbox::new();
    let mut owner = sleeper(&sandbox);
    sandbox.cli(["claim", "--pid", &owner.pid().to_string()]).assert_code(0);
    owner.kill();
    let status = eventually("its end", LIMIT, || {
        Some(sandbox.cli(["status"])).filter(|told| told.code() == 3)
    });
    let advice = status.out.lines().nth(1).unwrap();
    assert!(advice.ends_with("start the script again that claimed it"), "{status:#?}");
    assert!(!status.out.contains("incumbent run"), "{status:#?}");
}

#[test]
fn out_of_memory_is_told_by_its_name() {
    if !has("python3") {
        return skipped("needs python3");
    }
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let verb = ["run", "--no-backoff", "--", "python3", "-c", EATER];
    let mut run = Run::start(group.started_in(&sandbox, BINARY, &verb));
    run.process.say("eat");
    run.process.finish_with_stdin_open(LIMIT).assert_code(137);
    let told = include_str!("../../fixtures/stories/out-of-memory.txt");
    assert_story(&sandbox.status_of_the_dead(), told, &[]);
}

/// A planned stop looks like nothing else, and says whose it was.
#[test]
fn a_deploy_by_a_colleague_is_told_with_its_reason() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    // With something behind it, so that the shell stays its parent.
    sandbox.write_script("deploy.sh", "incumbent stop --reason 'deploy 1.4'; exit $?\n");
    let mut deploy = sandbox.program("sh");
    deploy.arg("deploy.sh");
    let deploy = Process::start(deploy);
    let script = format!("from pid {}: sh deploy.sh", deploy.pid());
    deploy.finish(LIMIT).assert_code(0);
    drop(run.process.finish_with_stdin_open(LIMIT));
    let end = sandbox.status().1["last_end"].clone();
    let by = end["by"].as_str().unwrap_or_default().to_owned();
    let (stop, from) = by.split_once(", uid ").unwrap();
    let (_, from) = from.split_once(", ").unwrap();
    // Where the tests run decides about a terminal, a service and `sudo`.
    assert!(stop.starts_with("incumbent stop (pid ") && from.starts_with(&script), "{end:#}");
    let names = [(by.as_str(), "incumbent stop (pid PID, UID, from pid PID: sh deploy.sh)")];
    let told = include_str!("../../fixtures/stories/deploy-by-a-colleague.txt");
    assert_story(&sandbox.status_of_the_dead(), told, &names);
}

/// What cannot be written is not owned: so the first thing to do is to make room.
#[test]
fn a_full_disk_is_what_is_to_be_done_first() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "2500k") else { return };
    let start = ["run", "--no-backoff", "--", "true"];
    disk.cli(&start).assert_code(0);
    disk.fill_up();
    let refused = disk.cli(&start);
    assert_ne!(refused.code(), 0, "{refused:#?}");
    let status = disk.cli(&["status"]).assert_code(3).out;
    let directory = sandbox.file("store");
    let real = directory.canonicalize().unwrap();
    let names = [(real.to_str().unwrap(), "DIR"), (directory.to_str().unwrap(), "DIR")];
    assert_story(&status, include_str!("../../fixtures/stories/full-disk.txt"), &names);
    let all = disk.cli(&["status", "--all"]).assert_code(0);
    all.assert_complains(&["no space left on the disk of ", "free some space"]);
    // The advice helps.
    disk.shell("rm store/fill").assert_code(0);
    disk.cli(&start).assert_code(0);
}

/// Symptom: "not running", of a profile that had been started a moment before. Cause: the token was
/// another profile's, and only the start said so, in a log that nobody reads.
#[test]
fn two_profiles_with_one_token_are_told_by_whose_it_is() {
    const TOKEN: &str = "telegram-bot-token=123456:secret";
    let sandbox = Sandbox::new();
    let home = sandbox.hold(&["--profile", "home", "--lock", TOKEN]);
    let start = ["--profile", "work", "run", "--no-backoff", "--lock", TOKEN, "--", "true"];
    sandbox.cli(start).assert_code(75);
    let refused = sandbox.json(["--profile", "work", "status"]).1["refused"].clone();
    let lock = &refused["lock"];
    let lock = ["scope", "identity_hash"].map(|key| lock[key].as_str().unwrap_or_default());
    assert_eq!(refused["holder"]["profile"], "home", "{refused:#}");
    let status = sandbox.cli(["--profile", "work", "status"]).assert_code(3).out;
    let (lock, pid) = (lock.join("/"), format!("pid {}", home.pid()));
    let told = include_str!("../../fixtures/stories/one-token-two-profiles.txt");
    assert_story(&status, told, &[(&lock, "LOCK"), (&pid, "pid PID")]);
    // It is among all, though it was never claimed.
    let table = sandbox.cli(["status", "--all"]).assert_code(0).out;
    assert!(table.contains("held by profile home"), "{table}");
    let metrics = sandbox.cli(["--profile", "work", "status", "--metrics"]).assert_code(0).out;
    let refusals = "incumbent_refusals_total{profile=\"work\",kind=\"gateway\"} 1\n";
    assert!(metrics.contains(refusals), "{metrics}");
    // The advice helps.
    sandbox.cli(["stop", "--profile", "home", "--kind", "gateway"]).assert_code(0);
    drop(home.process.finish_with_stdin_open(LIMIT));
    sandbox.cli(start).assert_code(0);
}

/// Symptom: of a profile that may be started `status` said that another one has its token, and to
/// stop that, which was dead; and `--metrics` had no count of a profile that had only been refused.
#[test]
fn a_token_of_the_dead_is_no_obstacle() {
    let sandbox = Sandbox::new();
    let home = sandbox.hold(&["--profile", "home", "--lock", "token=mine"]);
    let start = ["--profile", "work", "run", "--no-backoff", "--lock", "token=mine", "--", "true"];
    sandbox.cli(start).assert_code(75);
    kill(home.pid(), Signal::KILL);
    drop(home.process.finish_with_stdin_open(LIMIT));
    let (code, status) = sandbox.json(["--profile", "work", "status"]);
    assert_eq!((code, &status["refused"]), (3, &Value::Null), "{status:#}");
    let text = sandbox.cli(["--profile", "work", "status"]).assert_code(3).out;
    assert!(!text.contains("incumbent stop"), "{text}");
    let metrics = sandbox.cli(["status", "--metrics"]).assert_code(0).out;
    let refusals = "incumbent_refusals_total{profile=\"work\",kind=\"gateway\"} 1\n";
    assert!(metrics.contains(refusals), "{metrics}");
    let of_another = sandbox.cli(["--profile", "home", "status", "--metrics"]).assert_code(0).out;
    assert!(!of_another.contains("profile=\"work\""), "{of_another}");
}
