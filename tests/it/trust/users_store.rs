//! FIELD-BUGS row 105: root works on the store of a user, who may write any row there. Whatever the
//! row says, root signals the processes that this user could signal himself, and no others.

use rustix::process::Signal;

use crate::support::{
    Answer, Identity, LIMIT, Process, Run, Sandbox, another_user, eventually, kill, skipped,
    tagged, wait_stopped,
};

/// A `run` of a gateway that says its pid, as [`Run`] wants it.
const RUN: &[&str] = &["run", "--no-backoff", "--", "sh", "-c", "echo $$; exec sleep 1000"];

/// A sandbox of uid 65534, whose store root is to work on.
struct UsersStore {
    sandbox: Sandbox,
}

impl UsersStore {
    /// `None` where it cannot be tried.
    fn new() -> Option<Self> {
        another_user()?;
        let sandbox = Sandbox::new();
        sandbox.open_to_nobody();
        Some(Self { sandbox })
    }

    fn as_user(&self, arguments: &[&str]) -> std::process::Command {
        let words = another_user().unwrap();
        let mut command = self.sandbox.within(words);
        command.arg(self.sandbox.file("incumbent")).args(arguments);
        command
    }

    /// A `run` of the user's, which was killed; its command lives.
    fn killed_run(&self) -> Identity {
        let mut run = Run::start(self.as_user(RUN));
        run.kill();
        run.command
    }

    fn as_root(&self, arguments: &[&str]) -> Answer {
        self.sandbox.cli(arguments)
    }
}

/// A process of root's, which nobody in the test has a reason to end.
struct Victim {
    /// A `cat` in our pipe, or what has started it.
    process: Process,
    pid: u32,
    start_time: u64,
}

impl Victim {
    fn new(sandbox: &Sandbox) -> Self {
        Self::of(Process::start(sandbox.program("cat")), None)
    }

    /// In a session whose leader has ended, as a daemon is that was started by `sudo`.
    fn in_a_session_without_leader(sandbox: &Sandbox) -> (Self, u32) {
        let mut command = sandbox.program("setsid");
        command.args(["-f", "sh", "-c", "exec 3<&0; echo $$; cat <&3 & echo $!"]);
        let mut process = Process::start(command);
        let session: u32 = process.line().parse().unwrap();
        let pid = process.line().parse().unwrap();
        eventually("the leader has ended", LIMIT, || Identity::of(session).is_none().then_some(()));
        (Self::of(process, Some(pid)), session)
    }

    fn of(process: Process, pid: Option<u32>) -> Self {
        let pid = pid.unwrap_or_else(|| process.pid());
        let start_time = Identity::of(pid).expect("it lives").start_time;
        Self { process, pid, start_time }
    }

    #[track_caller]
    fn assert_lives(&mut self, after: &str) {
        assert!(self.process.echoes(), "pid {} of root was ended by {after}", self.pid);
    }
}

/// All that ends or could end somebody.
const VERBS: &[&[&str]] = &[
    &["run", "--no-backoff", "--", "true"],
    &["run", "--no-backoff", "--replace", "--", "true"],
    &["run", "--no-backoff", "--replace", "--force", "--reap", "--", "true"],
    &["claim", "--no-keeper"],
    &["stop", "--timeout", "0"],
    &["stop", "--timeout", "0", "--force"],
    &["restart", "--timeout", "0"],
    &["lock", "acquire", "bot", "one", "--evict-stopped", "--no-keeper"],
    &["unlock", "--stale"],
    &["doctor", "--fix"],
    &["evict"],
    &["evict", "--force"],
];

const NO_NUMBERS: &str = "process_inode = NULL, child_process_inode = NULL, child_sid = NULL,
     command_lock = 'none', command_lock_inode = NULL, stop_budget_ms = 0, ended_at_ms = NULL,
     end_reason = NULL, ended_by = NULL";

fn each_verb(what: &str, forgery: impl Fn(&UsersStore, &Victim) -> String + Sync) {
    if another_user().is_none() {
        return skipped("needs root");
    }
    // At once, because some wait for their time.
    std::thread::scope(|scope| {
        for verb in VERBS {
            scope.spawn(|| {
                let store = UsersStore::new().unwrap();
                store.killed_run();
                let mut victim = Victim::new(&store.sandbox);
                let forgery = forgery(&store, &victim);
                let forged =
                    format!("UPDATE instances SET {NO_NUMBERS}, {forgery} WHERE origin = 'run'");
                assert_eq!(store.sandbox.forge(&forged), 1);
                let answer = store.as_root(verb);
                victim.assert_lives(&format!("`{}`, named as {what}: {answer:?}", verb.join(" ")));
            });
        }
    });
}

/// FIELD-BUGS row 105.
///
/// Symptom: root on a user's store signalled whatever pid the user had written there. Here it is
/// that of the command that a killed `run` left, with a free lock that is the very file on record.
#[test]
fn a_child_on_record_that_is_root_s() {
    each_verb("the child", |_, victim| {
        format!("child_pid = {}, child_start_time = {}", victim.pid, victim.start_time)
    });
}

/// The owner itself, whose lock nobody can see.
#[test]
fn an_owner_on_record_that_is_root_s() {
    each_verb("the owner", |_, victim| {
        let (pid, start) = (victim.pid, victim.start_time);
        format!("anchor = NULL, child_pid = NULL, pid = {pid}, start_time = {start}")
    });
}

/// The owner itself, whose lock somebody else holds.
#[test]
fn an_owner_on_record_that_is_root_s_with_a_lock_of_the_user_s() {
    let hold = |store: &UsersStore| {
        let anchor = store.sandbox.anchor_names().into_iter().find(|it| !it.contains(".cmd"));
        let anchor = store.sandbox.anchors().join(anchor.unwrap());
        let words = another_user().unwrap();
        let mut flock = store.sandbox.within(words);
        flock.arg("flock").arg(anchor).args(["-c", "echo held; sleep 1000"]);
        let mut flock = Process::start(flock);
        flock.line();
        flock
    };
    let holders = std::sync::Mutex::new(Vec::new());
    each_verb("the owner with a lock", |store, victim| {
        let holder = hold(store);
        holders.lock().unwrap().push(holder);
        let (pid, start) = (victim.pid, victim.start_time);
        format!("child_pid = NULL, pid = {pid}, start_time = {start}")
    });
}

/// What root started from a session of the user's, in which it is left alone now (`sudo daemon &`).
#[test]
fn a_family_on_record_that_is_root_s() {
    for verb in VERBS {
        let Some(store) = UsersStore::new() else { return skipped("needs root") };
        store.killed_run();
        let (mut victim, session) = Victim::in_a_session_without_leader(&store.sandbox);
        let forged = format!(
            "UPDATE instances SET {NO_NUMBERS}, child_pid = {session}, child_sid = {session},
             child_start_time = 1 WHERE origin = 'run'"
        );
        assert_eq!(store.sandbox.forge(&forged), 1);
        let answer = store.as_root(verb);
        victim.assert_lives(&format!("`{}`, of the family: {answer:?}", verb.join(" ")));
    }
}

/// The refusal says which process it is about, and why it is not ended.
#[test]
fn a_refusal_names_the_process_and_the_user() {
    let Some(store) = UsersStore::new() else { return skipped("needs root") };
    store.killed_run();
    let victim = Victim::new(&store.sandbox);
    store.sandbox.forge(&format!(
        "UPDATE instances SET {NO_NUMBERS}, anchor = NULL, child_pid = NULL, pid = {},
             start_time = {}
         WHERE origin = 'run'",
        victim.pid, victim.start_time
    ));
    let answer = store.as_root(&["stop", "--timeout", "0", "--force"]);
    let whose = "it does not belong to uid 65534, who owns the store";
    answer.assert_code(1).assert_complains(&[whose, &victim.pid.to_string()]);
}

/// What the user could end himself, root ends for him.
#[test]
fn the_user_s_own_processes_are_ended_as_ever() {
    let Some(store) = UsersStore::new() else { return skipped("needs root") };
    let child = store.killed_run();
    store.as_root(&["run", "--no-backoff", "--", "true"]).assert_code(0);
    child.wait_gone(LIMIT);

    let run = Run::start(store.as_user(RUN));
    kill(run.pid(), Signal::STOP);
    wait_stopped(run.pid());
    store.as_root(&["stop", "--timeout", "0", "--force"]).assert_code(0);
}

/// `sudo incumbent run` in the store of a user: it follows its marker; one that cannot is signalled
/// only where a person insists, and because the kernel says that it holds the lock.
#[test]
fn root_s_own_run_is_signalled_only_with_force() {
    let Some(store) = UsersStore::new() else { return skipped("needs root") };
    Process::start(store.as_user(&["run", "--", "true"])).finish(LIMIT).assert_code(0);
    let started = || Run::start(store.sandbox.incumbent(RUN));
    let mut run = started();
    store.as_root(&["stop"]).assert_code(0);
    run.process.wait(LIMIT);

    let run = started();
    let identity = Identity::of(run.pid()).unwrap();
    kill(run.pid(), Signal::STOP);
    wait_stopped(run.pid());
    let answer = store.as_root(&["stop", "--timeout", "0"]).assert_code(1);
    answer.assert_complains(&["it does not belong to uid 65534", "--force"]);
    assert!(!identity.is_gone());
    store.as_root(&["stop", "--timeout", "0", "--force"]).assert_code(0);
    eventually("nobody is left", LIMIT, || {
        tagged("IT_SANDBOX", store.sandbox.path()).is_empty().then_some(())
    });
}

/// What a killed `sudo incumbent run` left in the store of a user (root in a container, on a volume
/// of another uid) blocked every start, `--force` or not, and `stop` said that it had stopped it.
#[test]
fn what_root_s_own_killed_run_left_is_ended_with_force() {
    for verb in [
        &["stop", "--timeout", "0", "--force"][..],
        &["run", "--no-backoff", "--replace", "--force", "--", "true"],
    ] {
        let Some(store) = UsersStore::new() else { return skipped("needs root") };
        Process::start(store.as_user(&["run", "--", "true"])).finish(LIMIT).assert_code(0);
        let left = "echo $$; sleep 1000 & echo $!; wait";
        let mut run =
            Run::start(store.sandbox.incumbent(["run", "--no-backoff", "--", "sh", "-c", left]));
        let left: u32 = run.process.line().parse().unwrap();
        run.kill();
        run.command.wait_gone(LIMIT);
        let left = Identity::of(left).unwrap();

        let pid = left.pid.to_string();
        let refused = store.as_root(&["run", "--no-backoff", "--", "true"]).assert_code(75);
        refused.assert_complains(&[&format!("kill -KILL {pid}")]);
        let still = store.as_root(&["stop", "--timeout", "0"]).assert_code(1);
        still.assert_complains(&[&pid, "it does not belong to uid 65534", "--force"]);

        store.as_root(verb).assert_code(0);
        left.wait_gone(LIMIT);
        store.as_root(&["run", "--no-backoff", "--", "true"]).assert_code(0);
    }
}
