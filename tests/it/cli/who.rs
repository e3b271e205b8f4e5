//! Who had it done, and what a script says of its own end.

use std::path::Path;

use rustix::process::Signal;

use crate::support::{
    BINARY, LIMIT, Process, Sandbox, UserManager, bystander, eventually, has, skipped, wait_ended,
};

impl Sandbox {
    /// Who ended the last one.
    #[track_caller]
    fn ended_by(&self) -> String {
        let end = &self.history()[0];
        end["ended_by"].as_str().unwrap_or_else(|| panic!("by nobody: {end:#}")).to_owned()
    }

    /// A script that does `line`, for a person behind sudo; its pid.
    #[track_caller]
    fn deploy(&self, line: &str) -> u32 {
        std::fs::write(self.file("deploy.sh"), format!("{line}\n:\n")).unwrap();
        let mut deploy = self.program("/bin/sh");
        deploy.args(["deploy.sh", "--password=hunter2x"]).env("SUDO_USER", "alice");
        let deploy = Process::start(deploy);
        let shell = deploy.pid();
        deploy.finish(LIMIT).assert_code(0);
        shell
    }
}

/// Symptom: `ended_by` said `incumbent stop (pid 77, uid 0)`, and pid 77 had long ended. Who had it
/// done stands beside it: the script, and the person behind sudo.
#[test]
fn who_had_it_stopped_is_on_record() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let shell = sandbox.deploy("incumbent stop");
    run.end();
    let by = sandbox.ended_by();
    let parent = format!("from pid {shell}: /bin/sh deploy.sh ...");
    for words in ["incumbent stop (pid ", &parent, "sudo by alice"] {
        assert!(by.contains(words), "no {words:?} in {by}");
    }
    assert!(!by.contains("hunter2x"), "{by}");
    // What comes with each heartbeat stays short.
    let script = bystander(&sandbox);
    let pid = script.pid().to_string();
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    sandbox.cli(["status-set", "--pid", &pid, "--state", "running"]).assert_code(0);
    let writer = sandbox.status().1["runtime"]["writer"].as_str().unwrap().to_owned();
    assert!(!writer.contains("from pid"), "{writer}");
}

/// Symptom: a takeover by a deploy said only the pid of the new `run`.
#[test]
fn who_had_it_replaced_is_on_record() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let shell = sandbox.deploy("incumbent run --no-backoff --replace -- true");
    drop(run);
    let by = sandbox.history()[1]["ended_by"].as_str().unwrap().to_owned();
    let parent = format!("from pid {shell}: /bin/sh deploy.sh ...");
    for words in ["pid ", "run --no-backoff --replace", &parent, "sudo by alice"] {
        assert!(by.contains(words), "no {words:?} in {by}");
    }
    assert!(!by.contains("hunter2x"), "{by}");
}

/// Symptom: `timeout 5 incumbent stop` in a script was told as "from pid 77: timeout ...".
#[test]
fn a_script_is_told_behind_launchers() {
    let sandbox = Sandbox::new();
    for launchers in ["timeout 20", "timeout 20 env FOO=1", "nice timeout 20 setsid -w"] {
        if launchers.contains("setsid") && !has("setsid") {
            skipped("one of three needs setsid");
            continue;
        }
        let run = sandbox.hold(&[]);
        let shell = sandbox.deploy(&format!("{launchers} incumbent stop"));
        drop(run);
        let by = sandbox.ended_by();
        let parent = format!("from pid {shell}: /bin/sh deploy.sh ...");
        assert!(by.contains(&parent), "{launchers}: no {parent:?} in {by}");
    }
}

#[test]
fn the_terminal_of_whoever_stopped_it_is_on_record() {
    if !has("script") {
        return skipped("needs script(1) of util-linux");
    }
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let mut terminal = sandbox.program("script");
    let line = format!("tty; '{BINARY}' stop");
    terminal.args(["-qfec", &line, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "dumb");
    let told = Process::start(terminal).finish(LIMIT).assert_code(0);
    drop(run);
    let name = told.out.lines().next().unwrap().trim().to_owned();
    assert!(Path::new(&name).starts_with("/dev/pts"), "{told:#?}");
    let by = sandbox.ended_by();
    assert!(by.contains(&format!(", on {name}")), "no {name} in {by}");
}

#[test]
fn the_unit_of_whoever_stopped_it_is_on_record() {
    let sandbox = Sandbox::new();
    let Some(manager) = UserManager::start(&sandbox) else { return };
    let run = sandbox.hold(&[]);
    let db = sandbox.db();
    let unit =
        format!("[Service]\nType=oneshot\nExecStart=\"{BINARY}\" --db \"{}\" stop\n", db.display());
    manager.install("deploy.service", unit);
    manager.systemctl(["start", "deploy"]).assert_code(0);
    drop(run);
    let by = sandbox.ended_by();
    assert!(by.contains(", in deploy.service"), "{by}");
}

/// Symptom: after `incumbent signal USR1`, which the gateway did not expect, the history said that
/// SIGUSR1 had ended it, and not who had sent that.
#[test]
fn who_sent_the_signal_that_ended_it_is_on_record() {
    let sandbox = Sandbox::new();
    // It catches it, and ends by it.
    let script = "trap 'trap - USR1; kill -USR1 $$' USR1; echo $$; while :; do read -r x; done";
    let run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    sandbox.cli(["signal", "USR1"]).assert_code(0);
    assert!(wait_ended(run.pid(), LIMIT));
    drop(run);
    let by = sandbox.ended_by();
    assert!(by.starts_with("incumbent signal (pid "), "{by}");
    // Nobody of ours sent that one.
    let run = sandbox.hold(&[]);
    crate::support::kill(run.command.pid, Signal::USR2);
    assert!(wait_ended(run.pid(), LIMIT));
    drop(run);
    let end = &sandbox.history()[0];
    assert!(end["ended_by"].is_null() && end["signal"] == 12, "{end:#}");
}

/// Two words in a row for one thing are read twice.
#[test]
fn who_did_it_is_said_once() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold_with(&["/bin/sh", "-c", "trap '' TERM; echo $$; exec sleep 1000"]);
    sandbox.cli(["stop", "--force", "--timeout", "100ms"]).assert_code(0);
    drop(run);
    let text = sandbox.cli(["status"]).assert_code(3).out;
    assert!(text.contains("(stopped on purpose, with SIGKILL, by incumbent stop (pid "), "{text}");
    let script = bystander(&sandbox);
    sandbox.cli(["claim", "--pid", &script.pid().to_string()]).assert_code(0);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    let text = sandbox.cli(["status"]).assert_code(3).out;
    assert!(
        text.contains("(its record was ended by hand: incumbent evict --force (pid "),
        "{text}"
    );
}

/// Symptom: a script that had claimed for itself ended as ever, and the history called it a crash.
/// The two lines of the README say what it was.
#[test]
fn a_script_that_claims_as_the_readme_says_is_released() {
    let sandbox = Sandbox::new();
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let lines: Vec<&str> = readme.lines().collect();
    let claim = lines.iter().position(|line| *line == "incumbent claim --pid $$ || exit").unwrap();
    let script = format!("{}\n{}\necho held\nexit 0\n", lines[claim], lines[claim + 1]);
    std::fs::write(sandbox.file("gateway.sh"), script).unwrap();
    let answer = Process::start(sandbox.shell("sh gateway.sh")).finish(LIMIT).assert_code(0);
    assert!(answer.out.contains("held"), "{answer:#?}");
    assert_eq!(sandbox.history()[0]["end_reason"], "released");
}

/// Symptom: the two lines hid a crash: it had been "released".
#[test]
fn a_script_that_fails_after_its_release_has_crashed() {
    let sandbox = Sandbox::new();
    let script = "incumbent claim --pid $$ || exit\n\
                  trap 'incumbent release --pid $$' EXIT\n\
                  echo held\nexit 3\n";
    std::fs::write(sandbox.file("gateway.sh"), script).unwrap();
    Process::start(sandbox.shell("sh gateway.sh")).finish(LIMIT).assert_code(3);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|it| it.trim().parse::<u32>().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 15) {
        return skipped("needs Linux 6.15: before, the kernel tells nobody else");
    }
    eventually("its exit code", LIMIT, || (sandbox.history()[0]["exit_code"] == 3).then_some(()));
    let text = sandbox.cli(["status"]).assert_code(3).out;
    assert!(text.starts_with("default/gateway: not running (crashed: exit code 3, "), "{text}");
    let told = sandbox.cli(["history"]).assert_code(0).out;
    assert!(told.contains("it released the office, and crashed: exit code 3 [released]"), "{told}");
}
