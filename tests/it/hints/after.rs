//! Hints of what comes next: after a crash, and after a copy was made.

use super::{hint, paste};
use crate::support::older::Older;
use crate::support::{LIMIT, Process, Run, START, Sandbox, eventually, sleeper};

/// A command that crashed, and nobody knows what it wrote: it is on record, word by word.
#[test]
pub(super) fn run_with_its_last_words() {
    let sandbox = Sandbox::new();
    let script = "echo \"it's $1\" >&2; exit 1";
    let crash = ["run", "--no-backoff", "--", "sh", "-c", script, "x", "no chat"];
    sandbox.cli(crash).assert_code(1);
    let told = sandbox.cli(["status"]).assert_code(3);
    let command = hint(&told, "run --keep-stderr");
    assert!(command.contains(" --no-backoff -- sh -c "), "{command}");
    paste(&sandbox, &command).assert_code(1);
    let told = sandbox.cli(["status"]).assert_code(3);
    assert!(told.out.contains("exit code 1: it's no chat"), "{told:#?}");
}

/// The gateway of another store, profile and kind is started again as it was, by a start that names
/// them; its lock as well, whose identity nobody wrote down.
#[test]
fn a_start_that_is_advised_is_the_one_that_ended() {
    let sandbox = Sandbox::new();
    let of = ["--db", "it's/x.db", "--profile", "my.bot", "--kind", "worker"];
    let lock = ["run", "--no-backoff", "--lock", "s=a-secret", "--replace", "--"];
    let command = ["sh", "-c", "incumbent locks > held.txt; exit 3"];
    sandbox.cli([&of[..], &lock, &command].concat()).assert_code(3);
    std::fs::remove_file(sandbox.file("held.txt")).unwrap();
    let told = sandbox.cli([&of[..], &["status"]].concat()).assert_code(3);
    assert!(!told.out.contains("a-secret"), "{told:#?}");
    let command = hint(&told, "run --keep-stderr");
    assert!(!command.contains("--replace"), "there is nobody to be replaced: {command}");
    let mut pasted = sandbox.shell(&format!("{command}; exit $?"));
    pasted.env("VAR", "a-secret");
    Process::start(pasted).finish(LIMIT).assert_code(3);
    let held = std::fs::read_to_string(sandbox.file("held.txt")).unwrap();
    assert!(held.starts_with("s/"), "{held}");
    let history = sandbox.json([&of[..], &["history"]].concat()).1;
    assert_eq!(history.as_array().unwrap().len(), 2, "{history:#}");
    assert!(!sandbox.db().exists(), "another store was made");
}

/// Symptom: `incumbent run -- CMD` was pasted as it stood, and "command not found" was on record in
/// front of the crash.
#[test]
fn a_start_that_was_not_filled_in_hides_no_crash() {
    let sandbox = Sandbox::new();
    let crash = ["run", "--no-backoff", "--", "sh", "-c", "exit 9", "--token", "12:ab"];
    sandbox.cli(crash).assert_code(9);
    let told = sandbox.cli(["status"]).assert_code(3);
    let command = hint(&told, "run --keep-stderr");
    assert!(command.ends_with(" -- CMD"), "a word of it may be a secret: {command}");
    let told = paste(&sandbox, &command).assert_code(2);
    told.assert_complains(&["CMD stands for the command", "nothing was started"]);
    assert_eq!(sandbox.history().len(), 1);
    assert!(sandbox.cli(["status"]).out.contains("crashed: exit code 9"));
}

/// What has moved since is not found: a start would be another crash.
#[test]
fn a_command_that_is_gone_is_left_to_the_reader() {
    let sandbox = Sandbox::new();
    sandbox.write_script("bin/gateway", "#!/bin/sh\nexit 4\n");
    sandbox.cli(["run", "--no-backoff", "bin/gateway"]).assert_code(4);
    let told = sandbox.cli(["status"]).assert_code(3);
    assert!(hint(&told, "run --keep-stderr").ends_with(" -- bin/gateway"), "{told:#?}");
    std::fs::remove_file(sandbox.file("bin/gateway")).unwrap();
    let told = sandbox.cli(["status"]).assert_code(3);
    assert!(hint(&told, "run --keep-stderr").ends_with(" -- CMD"), "{told:#?}");
}

/// A waiter takes over what was stopped: it is named, and stopped by the words that are told.
#[test]
fn who_waits_for_what_was_stopped_is_named() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&["--profile", "work"]);
    let wait = ["--profile", "work", "run", "--no-backoff", "--wait", "--", "sleep", "1000"];
    let mut waiter = Process::start(sandbox.incumbent(wait));
    sandbox.wait_for_waiters(1);
    let told = sandbox.cli(["--profile", "work", "stop"]).assert_code(0);
    run.process.wait(LIMIT);
    let who = format!("work/gateway: pid {} ", waiter.pid());
    let line = told.err.lines().find(|line| line.contains(&who)).unwrap();
    let is_told =
        line.ends_with("waits for it and will take over") || line.ends_with("has taken over");
    assert!(is_told, "{told:#?}");
    eventually("it has taken over", LIMIT, || {
        let status = sandbox.json(["--profile", "work", "status"]).1;
        (status["running"] == true && status["child_pid"].is_number()).then_some(())
    });
    paste(&sandbox, &hint(&told, "stop")).assert_code(0);
    waiter.wait(LIMIT);
}

/// What the stopped gateway has started may be a gateway itself: a kill of that would be a crash.
#[test]
fn a_gateway_that_was_left_behind_is_stopped_as_one() {
    let sandbox = Sandbox::new();
    let script = "
        env -u INCUMBENT_TOKEN -u INCUMBENT_INSTANCE -u INCUMBENT_PROFILE setsid \\
            incumbent --profile other run --no-backoff -- \\
            /bin/sh -c 'echo $$ > inner; exec sleep 1000' > /dev/null 2>&1 < /dev/null &
        until [ -s inner ]; do sleep 0.02; done
        trap 'exit 0' TERM; echo $$
        while :; do wait; done";
    let words = ["run", "--no-backoff", "--leave", "--", "/bin/sh", "-c", script];
    let run = Run::start(sandbox.incumbent(words));
    let told = sandbox.cli(["stop"]).assert_code(0);
    assert!(!told.err.contains("`kill "), "{told:#?}");
    let command = hint(&told, "stop");
    assert!(command.contains("--profile other"), "{command}");
    paste(&sandbox, &command).assert_code(0);
    let end = sandbox.json(["--profile", "other", "history"]).1[0].clone();
    assert_eq!(end["end_reason"], "planned_stop", "{end:#}");
    run.process.finish_with_stdin_open(LIMIT).assert_code(0);
}

/// What would end the gateway is not sent: a stop does so, and says so.
#[test]
fn a_signal_that_would_end_it_is_told_as_a_stop() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&["--profile", "work"]);
    let told = sandbox.cli(["--profile", "work", "signal", "USR1"]).assert_code(1);
    let told = told.assert_complains(&["SIGUSR1 was not sent", "does not handle it"]);
    paste(&sandbox, &hint(&told, "stop")).assert_code(0);
    drop(run);
    let end = sandbox.json(["--profile", "work", "history"]).1[0].clone();
    assert_eq!(end["end_reason"], "planned_stop", "{end:#}");
}

/// A `run` that was evicted, or whose lock was removed, does what the answer and the hint say.
#[test]
fn what_a_run_does_that_has_lost_its_office_or_its_lock_is_said() {
    for verb in [&["evict"][..], &["unlock", "s", "mine"]] {
        let sandbox = Sandbox::new();
        let run = sandbox.hold(&["--lock", "s=mine"]);
        let told = sandbox.cli(verb).assert_code(75);
        let told = told.assert_complains(&["ends its command and exits with 75"]);
        let kind = if verb.len() == 1 { "evict --force" } else { "unlock --hash --force" };
        let told = paste(&sandbox, &hint(&told, kind)).assert_code(0);
        let command = format!("its command (pid {})", run.command.pid);
        assert!(told.out.contains(&command) && told.out.contains("exits with 75"), "{told:#?}");
        run.command.wait_gone(LIMIT);
        run.process.finish_with_stdin_open(LIMIT).assert_code(75);

        // Another process goes on.
        let owner = sleeper(&sandbox);
        let pid = owner.pid().to_string();
        sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
        sandbox.cli(["lock", "acquire", "s", "mine", "--pid", &pid]).assert_code(0);
        let told = sandbox.cli([verb, &["--force"]].concat()).assert_code(0);
        let goes_on = format!("pid {pid} was not ended, and goes on without");
        assert!(told.out.contains(&goes_on), "{told:#?}");
    }
}

/// The steps that put a copy back, each as it is printed: beside gateways, and where none runs.
#[test]
fn a_copy_is_put_back_step_by_step() {
    for is_live in [true, false] {
        let sandbox = Sandbox::new();
        let run = is_live.then(|| sandbox.hold(&["--profile", "work"]));
        sandbox.cli(START).assert_code(0);
        let told = sandbox.cli(["--profile", "work", "backup", "a copy.db"]).assert_code(0);
        sandbox.cli(START).assert_code(0);
        let steps: Vec<&str> = told
            .out
            .lines()
            .filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()))
            .map(|line| line.split('`').nth(1).unwrap())
            .collect();
        assert_eq!(steps.len(), 4, "{told:#?}");
        let mut last = String::new();
        for step in steps {
            last = paste(&sandbox, step).assert_code(0).out;
        }
        if let Some(run) = run {
            run.process.finish_with_stdin_open(LIMIT).assert_code(0);
            assert!(last.contains("killed or crashed"), "{last}");
        }
        assert_eq!(sandbox.json(["history"]).1.as_array().unwrap().len(), 1, "as it was then");
        sandbox.cli(["doctor"]).assert_code(0);
        // It may start again, also the one that was stopped for the restore.
        sandbox.cli(["--profile", "work", "run", "--no-backoff", "--", "true"]).assert_code(0);
    }
}

/// The files of a gateway that has stopped: what is on record now, and what comes next.
#[test]
fn an_import_of_a_stopped_gateway_says_what_comes_next() {
    let Some(sandbox) = Sandbox::with_python() else { return };
    let older = Older::new(&sandbox);
    drop(older.gateway());
    let home = older.home().to_owned();
    let told = sandbox.cli(["--profile", "work", "import", &home]).assert_code(0);
    let said = format!("recorded: work/gateway stands for {home} from now on");
    assert!(told.out.contains(&said) && told.out.contains("its gateway has stopped"), "{told:#?}");
    let command = hint(&told, "run --legacy-home").replace("-- CMD", "-- sh -c 'echo $$; cat'");
    let mut run = Process::start(sandbox.shell(&format!("exec {command}")));
    run.line();
    // The older program sees it.
    assert_eq!(older.start("gateway").line(), "refused");
    assert_eq!(sandbox.json(["--profile", "work", "status"]).1["running"], true);
    run.finish(LIMIT).assert_code(0);
}

/// A copy is put back when no gateway runs, of whatever profile.
#[test]
pub(super) fn stop_of_all() {
    let sandbox = Sandbox::new();
    let runs = ["work", "home"].map(|profile| sandbox.hold(&["--profile", profile]));
    let told = sandbox.cli(["--profile", "work", "backup", "copy.db"]).assert_code(0);
    paste(&sandbox, &hint(&told, "stop --all --desired")).assert_code(0);
    for mut run in runs {
        run.process.wait(LIMIT);
        assert!(run.command.is_gone());
    }
}

/// Symptom: `status --pid` of a dead gateway of another profile advised to start the default one.
#[test]
fn what_is_told_of_a_pid_is_about_its_own_office() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&["--profile", "work"]);
    let pid = run.pid().to_string();
    run.kill();
    run.command.wait_gone(LIMIT);
    let told = sandbox.cli(["status", "--pid", &pid]).assert_code(3);
    let command = hint(&told, "run");
    assert!(command.contains("--profile work --kind gateway"), "{command}");
    let (start, _) = command.split_once(" -- ").unwrap();
    paste(&sandbox, &format!("{start} -- true")).assert_code(0);
    let history = sandbox.json(["--profile", "work", "history"]).1;
    assert_eq!(history.as_array().unwrap().len(), 2, "{history:#}");
}
