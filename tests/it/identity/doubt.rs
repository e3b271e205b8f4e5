//! Where the program cannot look: it says so, and gives nothing away.

use rustix::process::Signal;

use crate::support::{
    BINARY, LIMIT, Process, Run, Sandbox, Stat, eventually, has, is_root, kill, mount_namespace,
    skipped,
};

const OTHER_BOOT_ID: &str = "0f0f0f0f-1111-4222-8333-444444444444";

/// Views of /proc in which the boot id differs or is hidden, as scripts for a mount namespace of
/// their own.
pub fn views(sandbox: &Sandbox) -> [(&'static str, String); 2] {
    let other = sandbox.file("boot_id");
    std::fs::write(&other, format!("{OTHER_BOOT_ID}\n")).unwrap();
    [
        ("hidden", "mount -t proc -o subset=pid proc /proc".to_owned()),
        ("other", format!("mount --bind '{}' /proc/sys/kernel/random/boot_id", other.display())),
    ]
}

pub fn may_mount() -> bool {
    mount_namespace().is_some()
}

impl Sandbox {
    /// A command of this program in a mount namespace that `script` prepares.
    pub fn in_view(&self, script: &str, arguments: &str) -> std::process::Command {
        let mut command = self.program("unshare");
        command.args(["-m", "--propagation", "private", "/bin/sh", "-c"]);
        command.arg(format!("{script} && exec {BINARY} {arguments}"));
        command
    }
}

/// FIELD-BUGS row 91. Symptom: a service with ProcSubset=pid could not be stopped, and its command,
/// left behind by a killed `run`, met a second one. Cause: a boot id that differs was taken for a
/// reboot, and for another machine. It holds because only clocks that agree prove a reboot, and a
/// held lock is this kernel's.
#[test]
fn a_boot_id_that_differs_is_doubt() {
    if !may_mount() {
        return skipped("needs root, and leave to mount");
    }
    let sandbox = Sandbox::new();
    for (name, script) in views(&sandbox) {
        let held = "run --no-backoff --stop-budget 3s -- /bin/sh -c 'echo $$; exec cat'";
        let run = Run::start(sandbox.in_view(&script, held));
        sandbox.assert_status(0, "alive", "anchor_held");
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        sandbox.cli(["restart", "--timeout", "20s"]).assert_code(0);
        sandbox.cli(["stop", "--timeout", "20s"]).assert_code(0);
        run.end();
        assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop", "{name}");
    }
}

/// A script that exits with 9 where `pid` lives. `kill -0` would take a zombie that nobody has
/// collected yet for one of the living.
fn alone(pid: u32) -> String {
    format!(
        "! grep -q '^State:[[:space:]]*[^ZX[:space:]]' /proc/{pid}/status 2>/dev/null || exit 9"
    )
}

/// FIELD-BUGS rows 91, 92: the command of a killed `run` has another user id, and lives.
#[test]
fn a_command_left_behind_under_another_boot_id_meets_no_second_one() {
    if !may_mount() || !has("setpriv") {
        return skipped("needs root, leave to mount, and setpriv");
    }
    let sandbox = Sandbox::new();
    for (name, script) in views(&sandbox) {
        let held = "run --no-backoff -- setpriv --reuid 65534 --clear-groups /bin/sh -c \
                    'echo $$; exec cat'";
        let mut run = Run::start(sandbox.in_view(&script, held));
        let command = run.command.pid;
        run.process.signal(Signal::KILL);
        run.process.wait(LIMIT);
        // The shell is gone as soon as the second one runs, or there is no second one.
        let alone = alone(command);
        sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", &alone]).assert_code(0);
        assert!(run.command.is_gone(), "{name}: two at once");
    }
}

/// FIELD-BUGS row 95. Symptom: a start in a copy of the store killed the original's command. Cause:
/// the copied anchor is free. It holds because the row says which file the anchor is.
#[test]
fn a_copy_of_the_store_directs_no_signal_at_the_owners_of_the_original() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    let copy = sandbox.file("copy");
    let from = sandbox.db().parent().unwrap().to_owned();
    let mut copying = std::process::Command::new("cp");
    assert!(copying.arg("-a").arg(&from).arg(&copy).status().unwrap().success());
    let db = copy.join(sandbox.db().file_name().unwrap());
    let db = db.to_str().unwrap();
    for verb in [
        &["run", "--no-backoff", "--", "true"][..],
        &["run", "--no-backoff", "--replace", "--", "true"],
        &["stop", "--timeout", "1s", "--force"],
    ] {
        let code = sandbox.cli([&["--db", db][..], verb].concat()).code();
        assert_ne!(code, 0, "{verb:?}");
        assert!(!run.command.is_gone(), "{verb:?} ended the original's command");
    }
    sandbox.assert_status(0, "alive", "anchor_held");
    run.end().assert_code(0);
}

/// FIELD-BUGS row 93: the anchor's file is gone, the `run` is dead, and its command lives.
#[test]
fn a_command_counts_whatever_became_of_the_anchor() {
    if !is_root() || !has("setpriv") {
        return skipped("needs root and setpriv");
    }
    for what in ["removed", "replaced"] {
        let sandbox = Sandbox::new();
        let command = ["setpriv", "--reuid", "65534", "--clear-groups", "sh", "-c"];
        let mut run = sandbox.hold_with(&[&command[..], &["echo $$; exec cat"]].concat());
        run.process.signal(Signal::KILL);
        run.process.wait(LIMIT);
        for name in sandbox.anchor_names() {
            let anchor = sandbox.anchors().join(name);
            std::fs::rename(&anchor, sandbox.file("taken-away")).unwrap();
            if what == "replaced" {
                std::fs::write(&anchor, "").unwrap();
            }
        }
        sandbox.assert_status(0, "alive", "child_lives");
        sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(75);
        assert!(
            !run.command.is_gone(),
            "{what}: nobody may end it by a file that is not on record"
        );
        kill(run.command.pid, Signal::KILL);
    }
}

/// FIELD-BUGS row 107. Symptom: `run` was killed, the start script died with it, and the gateway
/// behind it met its successor. It holds because a claimant ends what that command left in its
/// session.
#[test]
fn what_a_start_script_left_behind_is_ended_before_the_next_grant() {
    let sandbox = Sandbox::new();
    let script = "sh -c 'echo inner $$; exec sleep 600' & wait; :";
    let mut process =
        Process::start(sandbox.incumbent(["run", "--no-backoff", "--", "/bin/sh", "-c", script]));
    let inner = process.line_with("inner ");
    let inner: u32 = inner.rsplit(' ').next().unwrap().trim().parse().unwrap();
    process.signal(Signal::KILL);
    let lives = || Stat::of(inner).is_some_and(|stat| stat.state != 'Z');
    eventually("the run is dead", LIMIT, || (sandbox.status().0 == 3).then_some(()));
    assert!(lives(), "the test is about a gateway that outlives its script");
    let alone = alone(inner);
    sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", &alone]).assert_code(0);
    assert!(!lives());
}

/// FIELD-BUGS rows 92, 103, 110: what cannot be looked at for want of descriptors is an error that
/// says so and passes (75), never a "no", never a second owner, never a fault of the configuration.
#[test]
fn a_want_of_descriptors_is_no_answer() {
    let sandbox = Sandbox::new();
    let holder = Process::start(sandbox.program("cat"));
    let pid = holder.pid().to_string();
    sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
    sandbox.cli(["lock", "acquire", "k", "k", "--pid", &pid]).assert_code(0);
    for limit in 4..=16 {
        for verb in [
            format!("lock verify k k --pid {pid}"),
            format!("lock renew k k --pid {pid}"),
            format!("status-set --pid {pid} --state running"),
            "run --no-backoff -- true".to_owned(),
        ] {
            let script = format!("ulimit -n {limit}; exec {BINARY} {verb}");
            let answer = Process::start(sandbox.shell(&script)).finish(LIMIT);
            let code = answer.code();
            assert!(!matches!(code, 1 | 78), "{limit} descriptors: {verb}: {answer:#?}");
            assert!(code != 0 || !verb.starts_with("run"), "{limit}: a second owner");
        }
    }
    sandbox.assert_status(0, "alive", "anchor_held");
}
