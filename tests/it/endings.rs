//! How every incarnation ended: told by `history`, `status` and the events, by the way it really
//! came about; settled by the next one that writes, and the same for whoever only asked before.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use incumbent::forensics::ShutdownWatch;
use incumbent::{
    Acquire, AcquireOptions, Claim, ClaimOptions, ExitCodes, Heartbeat, LockRequest, LossWatch,
    ScopedLock, StatusUpdate, Store, Supervisor, Tenure,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    BINARY, LIMIT, Process, Run, Sandbox, Stat, ask, assert_within, eventually, has, is_root, kill,
    mount_namespace, obey_orders, pid_namespace, plays, role_db, skipped, tagged, test_name,
    wait_ended, wait_stopped,
};

const ROLE_TEST: &str = test_name!(role_of_a_gateway);
const GATEWAY: &str = "gateway of endings";

/// What a panic is called in these tests.
const BOOM: &str = "the frobnicator is on fire";

/// And the boot clock stood higher then: a boot id alone is doubt.
const OTHER_BOOT: &str = "UPDATE instances SET boot_id = '11111111-2222-3333-4444-555555555555',
    written_boot_clock_ms = 9000000000000";

/// Where its panics come from.
const FILE: &str = file!();

/// Plays a gateway: one order a line, one answer a line.
#[test]
fn role_of_a_gateway() {
    if plays(GATEWAY) {
        let mut gateway = Gateway::default();
        obey_orders(|order| gateway.obey(order));
    }
}

#[derive(Default)]
struct Gateway {
    signals: Option<ShutdownWatch>,
    watch: Option<LossWatch>,
    heart: Option<Heartbeat>,
    locks: Vec<ScopedLock>,
    /// Dropped by a panic of the orders' thread.
    tenure: Option<Tenure>,
    store: Option<Store>,
    blocker: Option<rusqlite::Connection>,
    memory: Vec<Vec<u8>>,
}

/// A panic that was raised by a thread of its own.
fn panic_in_a_thread(kind: &str) {
    let kind = kind.to_owned();
    let thread = std::thread::Builder::new().name("worker".to_owned());
    let thread = thread.spawn(move || panic_as(&kind)).unwrap();
    assert!(thread.join().is_err());
}

fn panic_as(kind: &str) {
    match kind {
        "text" => panic!("{BOOM}"),
        "lines" => panic!("one\ntwo\r\nthree \u{1b}[31mred\u{7}"),
        "long" => panic!("{}", "x\u{e9}".repeat(50 * 1024)),
        "secret" => panic!("cannot log in with --token=SECRETSECRET to the server"),
        "value" => panic_any(7),
        "empty" => panic!(),
        _ => unreachable!("{kind}"),
    }
}

impl Gateway {
    fn tenure(&self) -> &Tenure {
        self.tenure.as_ref().expect("claim first")
    }

    fn update(&self, update: &StatusUpdate) -> String {
        match self.tenure().update_status(update) {
            Ok(()) => "said".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    fn claim(&mut self, budget_ms: &str) -> String {
        let store = Store::open(role_db()).unwrap();
        let budget = Duration::from_millis(budget_ms.parse().unwrap());
        let options = ClaimOptions::new().stop_budget(budget);
        let claim = store.profile("default").unwrap().claim_with(&options).unwrap();
        let Claim::Granted(tenure) = claim else { return "held".to_owned() };
        self.tenure = Some(tenure);
        self.store = Some(store);
        "granted".to_owned()
    }

    /// Orders about what is called back.
    fn call_back(&mut self, words: &[&str]) -> String {
        match words {
            ["catch"] => {
                let codes = ExitCodes::of(Supervisor::None);
                let watch = self.tenure().on_shutdown(codes, |shutdown| {
                    let (name, cause) = (shutdown.snapshot.signal_num, shutdown.cause);
                    eprintln!("caught {}: {cause} {}", name.unwrap(), shutdown.exit_code);
                });
                self.signals = Some(watch.unwrap());
            }
            ["catch", "and", "panic"] => {
                let codes = ExitCodes::of(Supervisor::None);
                let watch = self.tenure().on_shutdown(codes, |_| panic!("{BOOM}"));
                self.signals = Some(watch.unwrap());
            }
            ["watch", "and", "panic"] => {
                let watch = self.tenure().watch(|_| panic!("{BOOM}"));
                self.watch = Some(watch.unwrap());
            }
            ["tell", hook @ ("aborts" | "speaks")] => {
                let aborts = *hook == "aborts";
                std::panic::set_hook(Box::new(move |info| {
                    let said = info.payload_as_str().unwrap_or("?");
                    eprintln!("the hook of before: {}", said.lines().next().unwrap_or(""));
                    if aborts {
                        std::process::abort();
                    }
                }));
            }
            _ => panic!("{words:?}"),
        }
        "done".to_owned()
    }

    fn obey(&mut self, order: &str) -> String {
        let words: Vec<&str> = order.split(' ').collect();
        let done = || "done".to_owned();
        match words.as_slice() {
            ["claim"] => self.claim("90000"),
            ["claim", budget_ms] => self.claim(budget_ms),
            ["lock", identity] => {
                let request = LockRequest::new("token", identity).unwrap();
                let options = AcquireOptions::new();
                let got = self.tenure().acquire_all(&[request], &options).unwrap();
                let Acquire::Granted(locks) = got else { return "held".to_owned() };
                self.locks = locks;
                done()
            }
            ["record"] => {
                self.tenure().record_panics();
                done()
            }
            ["catch" | "watch" | "tell", ..] => self.call_back(&words),
            ["panic"] => panic!("{BOOM}"),
            ["panic", kind] => {
                let began = Instant::now();
                panic_in_a_thread(kind);
                began.elapsed().as_millis().to_string()
            }
            ["catch-panic"] => {
                assert!(catch_unwind(AssertUnwindSafe(|| panic_as("text"))).is_err());
                done()
            }
            ["state", state] => self.update(&StatusUpdate::new().state((*state).to_owned())),
            ["beat"] => self.update(&StatusUpdate::new().heartbeat()),
            ["heart"] => {
                self.heart = Some(self.tenure().heartbeat(Duration::from_millis(20)).unwrap());
                done()
            }
            ["cause", signal] => {
                let codes = ExitCodes::of(Supervisor::None);
                let snapshot =
                    signal.parse().ok().map(|signal| self.tenure().snapshot(Some(signal)));
                let cause = self.tenure().cause(snapshot.as_ref(), &codes);
                format!("{cause} {}", codes.code(cause, 0, signal.parse().ok()))
            }
            ["snapshot", count] => {
                for _ in 0..count.parse().unwrap() {
                    let snapshot = self.tenure().snapshot(Some(15));
                    assert!(snapshot.recorded.is_ok(), "{:?}", snapshot.recorded);
                }
                done()
            }
            ["cycle", count] => {
                let store = Store::open(role_db()).unwrap();
                let profile = store.profile("default").unwrap();
                for _ in 0..count.parse().unwrap() {
                    let Claim::Granted(tenure) = profile.claim().unwrap() else { panic!("held") };
                    drop(tenure.snapshot(Some(15)));
                    tenure.release().unwrap();
                }
                done()
            }
            ["release"] => format!("{:?}", self.tenure.take().unwrap().release().unwrap()),
            ["exit", code] => std::process::exit(code.parse().unwrap()),
            ["abort"] => std::process::abort(),
            ["eat"] => loop {
                self.memory.push(vec![7; 1 << 20]);
            },
            ["block"] => {
                let blocker = rusqlite::Connection::open(role_db()).unwrap();
                blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
                self.blocker = Some(blocker);
                done()
            }
            _ => panic!("{order}"),
        }
    }
}

/// Gives an order that is answered by the end of the process.
#[track_caller]
fn last_order(gateway: &mut Process, order: &str) -> std::process::ExitStatus {
    gateway.say(order);
    gateway.wait(LIMIT)
}

impl Sandbox {
    /// A gateway that holds nothing yet.
    fn newcomer(&self) -> Process {
        self.role(ROLE_TEST, GATEWAY)
    }

    /// A gateway that holds the default office, and has obeyed `orders`.
    #[track_caller]
    fn linked_gateway(&self, orders: &[&str]) -> Process {
        let mut gateway = self.newcomer();
        assert_eq!(ask(&mut gateway, "claim"), "granted");
        for order in orders {
            ask(&mut gateway, order);
        }
        gateway
    }

    /// The program under test, seeing `log` as the kernel's log if there is one.
    fn seeing_log(&self, log: Option<&Path>, verb: &[&str]) -> Command {
        const BIND: &str = "mount --bind \"$0\" /dev/kmsg && exec \"$@\"";
        let Some(log) = log else { return self.incumbent(verb) };
        let mut command = self.program("unshare");
        command.args(["-m", "/bin/sh", "-c", BIND]).arg(log).arg(BINARY).args(verb);
        command
    }

    #[track_caller]
    fn ask_seeing_log(&self, log: Option<&Path>, verb: &[&str]) -> String {
        let answer = Process::start(self.seeing_log(log, verb)).finish(LIMIT);
        assert!(matches!(answer.code(), 0 | 3), "{verb:?}: {answer:#?}");
        answer.out
    }

    /// How the newest incarnation but `nth` ended, as every surface tells it.
    #[track_caller]
    fn end_told(&self, log: Option<&Path>, nth: usize) -> Told {
        let parsed = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let history = parsed(self.ask_seeing_log(log, &["--json", "history"]));
        let text = self.ask_seeing_log(log, &["history"]);
        let status = parsed(self.ask_seeing_log(log, &["--json", "status"]));
        Told {
            end: history[nth].clone(),
            line: text.lines().nth(nth).unwrap().to_owned(),
            last_end: status["last_end"].clone(),
        }
    }

    /// The same for the only incarnation that matters.
    #[track_caller]
    fn end_now(&self) -> Told {
        self.end_told(None, 0)
    }

    /// What the event of the newest end says.
    fn end_event(&self) -> Value {
        let connection = rusqlite::Connection::open(self.db()).unwrap();
        let detail: String = connection
            .query_row(
                "SELECT detail FROM events WHERE event = 'office_ended' ORDER BY id DESC LIMIT 1",
                [],
                |row| row.get(0),
            )
            .unwrap();
        serde_json::from_str(&detail).unwrap()
    }

    /// Settles what the dead could not write.
    #[track_caller]
    fn settle_end(&self) {
        self.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    }

    /// How the only incarnation ended, after the next claim has settled it.
    #[track_caller]
    fn end_settled(&self) -> Told {
        self.settle_end();
        let told = self.end_told(None, 1);
        let own = "SELECT count(*) FROM instances WHERE ended_at_ms IS NULL AND kind NOT NULL";
        assert_eq!(self.number(own), 0);
        told
    }

    fn last_words(&self) -> i64 {
        self.number("SELECT count(*) FROM shutdowns")
    }
}

/// One end, by every surface.
#[derive(Clone, Debug)]
struct Told {
    end: Value,
    line: String,
    last_end: Value,
}

impl Told {
    #[track_caller]
    fn text(&self, field: &str) -> String {
        self.end[field].as_str().unwrap_or_default().to_owned()
    }

    fn detail(&self) -> String {
        self.text("detail")
    }

    /// Reason, who, exit code and signal; `by` is how it begins.
    #[track_caller]
    fn assert(
        &self,
        reason: &str,
        by: Option<&str>,
        code: Option<i64>,
        signal: Option<i64>,
    ) -> &Self {
        let end = &self.end;
        assert_eq!(end["end_reason"], reason, "{self:#?}");
        assert_eq!(end["exit_code"], json!(code), "{self:#?}");
        assert_eq!(end["signal"], json!(signal), "{self:#?}");
        match by {
            Some(by) => assert!(self.text("ended_by").starts_with(by), "not by {by}: {self:#?}"),
            None => assert!(end["ended_by"].is_null(), "{self:#?}"),
        }
        assert!(self.line.ends_with(&format!(" [{reason}]")), "{self:#?}");
        self
    }

    /// `status` says the same of the last end.
    #[track_caller]
    fn assert_last(&self) -> &Self {
        assert_eq!(self.last_end["reason"], self.end["end_reason"], "{self:#?}");
        assert_eq!(self.last_end["by"], self.end["ended_by"], "{self:#?}");
        assert_eq!(self.last_end["at"], self.end["ended_at"], "{self:#?}");
        self
    }

    #[track_caller]
    fn assert_detail(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.detail().contains(part), "no {part:?} in the detail: {self:#?}");
        }
        self
    }

    /// The sentence of `history`, without who it was, and for how long.
    fn story(&self) -> &str {
        let parts = self.line.split_once(" ago: ").or_else(|| self.line.split_once(" is dead: "));
        parts.unwrap_or_else(|| panic!("no story: {}", self.line)).1
    }

    /// `story` is the whole of it; `DETAIL` in it stands for the detail, `BY` for who it was.
    #[track_caller]
    fn assert_story(&self, story: &str) -> &Self {
        let story = story.replace("DETAIL", &self.detail()).replace("BY", &self.text("ended_by"));
        assert_eq!(story_without_times(self.story()), story_without_times(&story));
        self
    }
}

/// We, as the sender of a signal.
fn us() -> String {
    format!("pid {} (", std::process::id())
}

/// `text` without who found it, and without how long anything took.
fn story_without_times(text: &str) -> String {
    let is_kept =
        |part: &&str| !part.starts_with("found ") && *part != "the next claim will record it";
    let text = text.split("; ").filter(is_kept).collect::<Vec<_>>().join("; ");
    let words: Vec<&str> = text.split(' ').collect();
    let is_number = |word: &str| word.parse::<u64>().is_ok();
    let is_unit =
        |word: &str| matches!(word.trim_end_matches([';', ',']), "ms" | "s" | "min" | "h" | "days");
    let mut kept = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if is_number(word) && words.get(index + 1).is_some_and(|unit| is_unit(unit)) {
            kept.push("N");
        } else if index > 0 && is_number(words[index - 1]) && is_unit(word) {
            kept.push("units");
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// As on a machine without memory cgroups: the log is all there is.
const UNCOUNTED: &str = "UPDATE instances SET memory_cgroup = NULL, oom_kills = NULL";

/// A control group with little memory, removed with what is left in it.
struct LittleMemory {
    directory: PathBuf,
}

const EATER: &str = "
import os, sys
print(os.getpid(), flush=True)
sys.stdin.readline()
eaten = []
while True:
    eaten.append(b'x' * (1 << 20))
";

impl LittleMemory {
    /// `None`, and said so, where there is no leave to make one.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("incumbent-it-{}-{number}", std::process::id());
        let is_unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control")
            .is_ok_and(|controllers| controllers.split_whitespace().any(|it| it == "memory"));
        let (parent, limits): (&str, &[(&str, &str)]) = if is_unified {
            ("/sys/fs/cgroup", &[("memory.max", "41943040"), ("memory.swap.max", "0")])
        } else {
            let limits = &[
                ("memory.limit_in_bytes", "41943040"),
                ("memory.memsw.limit_in_bytes", "41943040"),
            ];
            ("/sys/fs/cgroup/memory", limits)
        };
        let directory = Path::new(parent).join(name);
        if !is_root() || std::fs::create_dir(&directory).is_err() {
            skipped("needs root, and a memory cgroup that it may write");
            return None;
        }
        let group = Self { directory };
        let limited = std::fs::write(group.directory.join(limits[0].0), limits[0].1);
        if limited.is_err() {
            skipped("needs a memory cgroup with a limit");
            return None;
        }
        // Where there is swap, it would only be slow.
        let _ = std::fs::write(group.directory.join(limits[1].0), limits[1].1);
        Some(group)
    }

    fn put(&self, pid: u32) {
        std::fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// `command`, started in the group.
    fn started_in(&self, sandbox: &Sandbox, program: &str, arguments: &[&str]) -> Command {
        const ENTER: &str = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let mut command = sandbox.program("/bin/sh");
        command.args(["-c", ENTER]).arg(&self.directory).arg(program).args(arguments);
        command
    }

    fn kills(&self) -> u64 {
        let files = ["memory.events", "memory.oom_control"];
        let text = files
            .iter()
            .find_map(|file| std::fs::read_to_string(self.directory.join(file)).ok())
            .unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.unwrap().trim().parse().unwrap()
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        // What was killed in it may take a moment to be gone.
        for _ in 0..500 {
            let left = std::fs::read_to_string(self.directory.join("cgroup.procs"));
            for pid in left.unwrap_or_default().lines().filter_map(|pid| pid.parse().ok()) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
            }
            if std::fs::remove_dir(&self.directory).is_ok() || !self.directory.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} is left behind", self.directory.display());
    }
}

/// Whether a program can be shown another log of the kernel, which names pids as we do.
fn can_forge_log() -> bool {
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    mount_namespace().is_some()
        && namespace.to_string_lossy().contains("4026531836")
        && Path::new("/dev/kmsg").exists()
}

/// Microseconds on the clock of the kernel's log.
fn log_now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000 + u64::try_from(now.tv_nsec).unwrap() / 1_000
}

fn log_line(at_us: u64, pid: u32) -> String {
    format!(
        "6,1,{at_us},-;a line before\n \
         SUBSYSTEM=none\n\
         3,2,{at_us},-;Memory cgroup out of memory: Killed process {pid} (gateway) \
         total-vm:9kB, anon-rss:8kB, UID:0 oom_score_adj:0\n"
    )
}

/// FIELD-BUGS rows 82 and 84.
///
/// Symptom: "who restarts my gateway?" had no answer, and neither had how it ended. Every end has
/// one here, with a word for scripts and a sentence for people.
#[test]
fn a_linked_gateway_that_lets_go_was_released() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record", "catch"]);
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let told = sandbox.end_now();
    told.assert("released", None, None, None).assert_last().assert_story("it let go [released]");
    assert!(told.end["detail"].is_null(), "{told:#?}");
    let event = json!({"reason": "released", "by": null, "exit_code": null, "signal": null});
    assert_eq!(sandbox.end_event(), event);
    gateway.finish(LIMIT).assert_code(0);
}

/// A signal and an orderly end: the signal ended it, whoever let go.
#[test]
fn a_linked_gateway_that_lets_go_after_a_signal_was_ended_by_its_sender() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15: supervisor_stop 143");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let told = sandbox.end_now();
    told.assert("signalled", Some(&us()), None, Some(15)).assert_last();
    told.assert_story("SIGTERM from BY ended it [signalled]");
    let event = sandbox.end_event();
    assert_eq!((&event["reason"], &event["by"]), (&json!("signalled"), &told.end["ended_by"]));
    assert_eq!(event["signal"], 15, "{event:#}");
    gateway.finish(LIMIT).assert_code(0);
}

/// Somebody lost patience: the signal is what is known of it, and that it never let go.
#[test]
fn a_linked_gateway_that_is_killed_after_a_signal_was_ended_by_its_sender() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::INT);
    gateway.err_line_with("caught 2: ");
    gateway.kill();
    for told in [sandbox.end_now(), sandbox.end_settled()] {
        told.assert("signalled", Some(&us()), None, Some(2));
        assert_eq!(
            story_without_times(&told.detail()),
            "it never let go: SIGINT came N units before"
        );
        told.assert_story("SIGINT from BY ended it (DETAIL) [signalled]");
    }
}

/// `kill -9` out of the blue leaves nothing, and nothing is made up.
#[test]
fn a_linked_gateway_that_is_killed_in_silence_ended_without_a_word() {
    for signal in [Signal::KILL, Signal::ABORT, Signal::TERM] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["record"]);
        gateway.signal(signal);
        gateway.wait(LIMIT);
        let asked = sandbox.end_now();
        asked.assert("anchor_released", None, None, None).assert_last();
        asked.assert_story(
            "it ended without a word: killed, or crashed (found dead now; the next claim will \
             record it) [anchor_released]",
        );
        assert!(asked.line.contains(" held it, and is dead: "), "{asked:#?}");
        assert!(asked.last_end["at"].is_null(), "{asked:#?}");
        let told = sandbox.end_settled();
        told.assert("anchor_released", None, None, None);
        assert_eq!(story_without_times(&told.detail()), "", "{told:#?}");
    }
}

#[test]
fn a_run_tells_how_its_command_ended() {
    let sandbox = Sandbox::new();
    for (script, reason, code, signal, story) in [
        ("exit 0", "exited", Some(0), None, "its command ended by itself, exit code 0 [exited]"),
        ("exit 7", "exited", Some(7), None, "its command ended by itself, exit code 7 [exited]"),
        ("kill -SEGV $$", "crashed", None, Some(11), "its command crashed: SIGSEGV [crashed]"),
        ("kill -ABRT $$", "crashed", None, Some(6), "its command crashed: SIGABRT [crashed]"),
        ("kill -KILL $$", "signalled", None, Some(9), "SIGKILL ended it [signalled]"),
    ] {
        let script = format!("ulimit -c 0; {script}");
        sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", &script]);
        let told = sandbox.end_now();
        told.assert(reason, None, code, signal).assert_last().assert_story(story);
        let event = json!({"reason": reason, "by": null, "exit_code": code, "signal": signal});
        assert_eq!(sandbox.end_event(), event, "{script}");
    }
}

/// The signal that was sent to the run, and the one that the kernel says its command ended by.
#[test]
fn a_run_tells_who_sent_the_signal_that_its_command_followed() {
    let sandbox = Sandbox::new();
    // By the signal itself, with an exit code, and by another signal than that one.
    for (on_term, code, signal, story) in [
        ("", None, 15, "SIGTERM from BY ended it [signalled]"),
        ("exit 3", Some(3), 15, "SIGTERM from BY ended it, exit code 3 [signalled]"),
        ("kill -KILL $$", None, 9, "SIGKILL from BY ended it [signalled]"),
    ] {
        let script = match on_term {
            "" => "echo $$; exec cat".to_owned(),
            act => format!("trap '{act}' TERM; echo $$; {WORK}"),
        };
        let run = sandbox.hold_with(&["/bin/sh", "-c", &script]);
        run.process.signal(Signal::TERM);
        run.process.finish_with_stdin_open(LIMIT);
        let told = sandbox.end_now();
        told.assert("signalled", Some(&us()), code, Some(signal)).assert_last().assert_story(story);
    }
}

/// A run that is killed with its command, in silence and after a signal that the command ignored.
#[test]
fn a_run_that_is_killed_is_told_by_its_last_signal() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    run.kill();
    run.command.wait_gone(LIMIT);
    sandbox.end_now().assert("anchor_released", None, None, None).assert_last();
    sandbox.end_settled().assert("anchor_released", None, None, None);

    let mut run = sandbox.patient(&[]);
    run.process.signal(Signal::TERM);
    run.process.line_with("TERM");
    eventually("the signal is on record", LIMIT, || (sandbox.last_words() == 1).then_some(()));
    run.kill();
    run.command.wait_gone(LIMIT);
    for told in [sandbox.end_now(), sandbox.end_settled()] {
        told.assert("signalled", Some(&us()), None, Some(15));
        assert_eq!(
            story_without_times(&told.detail()),
            "it never let go: SIGTERM came N units before"
        );
    }
}

/// A stop and a takeover, of a library gateway, a run and a script: who asked, and why.
#[test]
fn a_planned_stop_and_a_takeover_name_who_asked() {
    for takes_over in [false, true] {
        for holder in ["library", "run", "script"] {
            let sandbox = Sandbox::new();
            let (mut linked, mut run, mut script) = (None, None, None);
            match holder {
                "library" => linked = Some(sandbox.linked_gateway(&["claim"])),
                "run" => run = Some(sandbox.hold(&[])),
                _ => script = Some(script_holder(&sandbox, "", "exec cat")),
            }
            let asker = if takes_over {
                sandbox.begin(&["run", "--no-backoff", "--replace", "--", "true"])
            } else {
                sandbox.begin(&["stop", "--reason", "new certificates"])
            };
            let by = format!("pid {}", asker.pid());
            // A library gateway that catches nothing ends by the signal, at once.
            for process in linked.iter_mut().chain(&mut script) {
                process.wait(LIMIT);
            }
            if let Some(run) = run.take() {
                run.process.finish_with_stdin_open(LIMIT);
            }
            asker.finish(LIMIT).assert_code(0);
            let told = sandbox.end_told(None, usize::from(takes_over));
            let what = format!("{holder}, taken over: {takes_over}: {told:#?}");
            let reason = if takes_over { "taken_over" } else { "planned_stop" };
            assert_eq!(told.end["end_reason"], reason, "{what}");
            assert!(told.text("ended_by").contains(&by), "{what}");
            let story = if takes_over {
                "its office was taken over by "
            } else {
                assert_eq!(told.detail(), "new certificates", "{what}");
                told.assert_last();
                "it was stopped on purpose by "
            };
            assert!(told.story().starts_with(story), "{what}");
            assert!(told.story().ends_with(&format!("[{reason}]")), "{what}");
        }
    }
}

/// What a script does that runs its traps.
const WORK: &str = "while :; do sleep 0.05 > /dev/null 2>&1; done";

/// A shell script that has prepared itself by `before`, claimed the office for itself, and goes on
/// with `rest`.
#[track_caller]
fn script_holder(sandbox: &Sandbox, before: &str, rest: &str) -> Process {
    let script = format!("{before}\nincumbent claim --pid $$ && echo up; {rest}");
    let mut script = Process::start(sandbox.shell(&script));
    script.line_with("up");
    script
}

/// A script ends its record by `release`, by the signal that its trap put on record, or not at all.
#[test]
fn a_script_is_told_by_what_its_trap_left() {
    let sandbox = Sandbox::new();
    let script = script_holder(&sandbox, "", "read x; incumbent release --pid $$");
    script.finish(LIMIT).assert_code(0);
    sandbox.end_now().assert("released", Some("incumbent release (pid "), None, None).assert_last();

    let mut script = script_holder(&sandbox, "", "exec cat");
    script.kill();
    let told = sandbox.end_settled();
    assert!(
        matches!(told.text("end_reason").as_str(), "anchor_released" | "no_such_process"),
        "{told:#?}"
    );

    // `kill -9` after a signal that its trap has put on record.
    let trap = "incumbent forensics snapshot --signal TERM > /dev/null; echo trapped";
    let before = format!("trap '{trap}' TERM");
    let mut script = script_holder(&sandbox, &before, WORK);
    script.signal(Signal::TERM);
    script.line_with("trapped");
    script.kill();
    for told in [sandbox.end_now(), sandbox.end_settled()] {
        // Only the handler itself is told who sent it: the reason why not stands in the detail.
        told.assert("signalled", None, None, Some(15));
        let detail = story_without_times(&told.detail());
        assert!(detail.ends_with("; it never let go: SIGTERM came N units before"), "{told:#?}");
        assert!(told.story().starts_with("SIGTERM ended it ("), "{told:#?}");
    }
}

/// The same trap, and an orderly end: as for everybody else, the signal ended it.
#[test]
fn a_script_that_releases_after_a_signal_was_ended_by_that() {
    let sandbox = Sandbox::new();
    let trap = "incumbent forensics snapshot --signal TERM > /dev/null
        incumbent release --pid $$; exit 0";
    let script = script_holder(&sandbox, &format!("trap '{trap}' TERM"), WORK);
    script.signal(Signal::TERM);
    script.finish_with_stdin_open(LIMIT).assert_code(0);
    let told = sandbox.end_now();
    assert_eq!(told.end["end_reason"], "signalled", "{told:#?}");
    assert_eq!(told.end["signal"], 15, "{told:#?}");
}

#[test]
fn an_eviction_and_a_re_execution_are_told() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    run.process.finish_with_stdin_open(LIMIT).assert_code(75);
    let told = sandbox.end_now();
    told.assert("evicted", Some("incumbent evict --force (pid "), None, None).assert_last();
    told.assert_story("its record was ended by BY (it was alive: anchor_held) [evicted]");

    let mut owner = sandbox.role(crate::identity::RE_EXECUTING_OWNER, "first life");
    owner.err_line_with("first life: ");
    owner.say("execute");
    owner.err_line_with("second life: ");
    let told = sandbox.end_told(None, 1);
    told.assert("re_executed", None, None, None);
    told.assert_story("the process executed itself anew [re_executed]");
    owner.finish(LIMIT).assert_code(0);
}

/// FIELD-BUGS row 84: the death of a machine is not that of a process; a signal before it (systemd
/// stops everybody before a reboot) is told beside it.
#[test]
fn a_reboot_is_told_with_the_signal_before_it() {
    for with_signal in [false, true] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["catch"]);
        if with_signal {
            gateway.signal(Signal::TERM);
            gateway.err_line_with("caught 15");
        }
        gateway.kill();
        sandbox.forge(OTHER_BOOT);
        for told in [sandbox.end_now(), sandbox.end_settled()] {
            told.assert("rebooted", None, None, None);
            let detail = story_without_times(&told.detail());
            if with_signal {
                let before = format!("before that: SIGTERM from {}", us());
                assert!(detail.starts_with(&before), "{told:#?}");
            } else {
                assert_eq!(detail, "", "{told:#?}");
            }
            assert!(told.story().starts_with("the machine was restarted since"), "{told:#?}");
        }
    }
}

/// FIELD-BUGS row 84.
///
/// Symptom: the kernel kills for want of memory, and nothing says so. It holds because the kernel's
/// log names the pid, and its cgroup counts; each alone is enough.
#[test]
fn a_command_that_the_kernel_killed_for_memory_is_told_with_the_evidence() {
    if !has("python3") {
        return skipped("needs python3");
    }
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let verb = ["run", "--no-backoff", "--", "python3", "-c", EATER];
    let mut run = Run::start(group.started_in(&sandbox, BINARY, &verb));
    run.process.say("eat");
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(128 + 9);
    assert!(group.kills() > 0, "{answer:#?}");
    let told = sandbox.end_now();
    told.assert("oom_suspected", None, None, Some(9)).assert_last();
    let event = sandbox.end_event();
    assert_eq!((&event["reason"], &event["signal"]), (&json!("oom_suspected"), &json!(9)));
    let detail = told.detail();
    let by_log = format!("Killed process {}", run.command.pid);
    assert!(detail.contains(&by_log) || detail.starts_with("memory ran out: "), "{told:#?}");
    told.assert_story("it was killed, and memory had run out (DETAIL) [oom_suspected]");
}

/// With a log that nobody may read, or that is empty, the counter of the group tells.
#[test]
fn the_counter_alone_is_evidence() {
    if !can_forge_log() {
        return skipped("needs root, mounts of its own and the first pid namespace");
    }
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let empty = sandbox.file("empty");
    std::fs::write(&empty, "").unwrap();
    let mut gateway = sandbox.newcomer();
    group.put(gateway.pid());
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    last_order(&mut gateway, "eat");
    assert_eq!(group.kills(), 1);
    let asked = sandbox.end_told(Some(&empty), 0);
    asked.assert("oom_suspected", None, None, None).assert_last();
    asked.assert_detail(&[
        "memory ran out: the kernel has killed 1 process(es) of its cgroup ",
        &group.directory.display().to_string(),
    ]);
    sandbox.ask_seeing_log(Some(&empty), &["run", "--no-backoff", "--", "true"]);
    let told = sandbox.end_told(Some(&empty), 1);
    told.assert("oom_suspected", None, None, None);
    assert_eq!(story_without_times(&told.detail()), story_without_times(&asked.detail()));
}

/// A library gateway that is killed leaves it to the next claimant; so does a run that is killed
/// before it could collect its command.
#[test]
fn the_next_claimant_settles_a_kill_for_memory() {
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.newcomer();
    group.put(gateway.pid());
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    last_order(&mut gateway, "eat");
    let asked = sandbox.end_now();
    asked.assert("oom_suspected", None, None, None).assert_last();
    let told = sandbox.end_settled();
    told.assert("oom_suspected", None, None, None);
    assert_eq!(story_without_times(&told.detail()), story_without_times(&asked.detail()));
    drop(gateway);

    if !has("python3") {
        return skipped("the half that needs python3");
    }
    let verb = ["run", "--no-backoff", "--", "python3", "-c", EATER];
    let mut run = Run::start(group.started_in(&sandbox, BINARY, &verb));
    run.process.signal(Signal::STOP);
    wait_stopped(run.pid());
    run.process.say("eat");
    run.command.wait_gone(LIMIT);
    run.kill();
    let asked = sandbox.end_now();
    asked.assert("oom_suspected", None, None, None).assert_last();
    let told = sandbox.end_settled();
    told.assert("oom_suspected", None, None, None);
    assert_eq!(story_without_times(&told.detail()), story_without_times(&asked.detail()));
}

/// systemd removes the cgroup of a service that has ended, and makes it anew for the next start:
/// the counter of that one has not moved, and that was taken for the word that nobody was killed.
/// It holds because another directory of the same name is another cgroup, and says nothing.
#[test]
fn a_cgroup_that_was_made_anew_hides_no_kill_for_memory() {
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.newcomer();
    group.put(gateway.pid());
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    let before_us = log_now_us();
    last_order(&mut gateway, "eat");
    assert_eq!(group.kills(), 1);
    let pid = gateway.pid();
    let before = sandbox.end_now();
    before.assert("oom_suspected", None, None, None);
    eventually("the cgroup is removed", LIMIT, || std::fs::remove_dir(&group.directory).ok());
    std::fs::create_dir(&group.directory).unwrap();
    assert_eq!(group.kills(), 0);

    let names_it = format!("Killed process {pid} ");
    let by_log = before.detail().contains(&names_it);
    if can_forge_log() {
        let log = sandbox.file("kmsg");
        // As it was in the log of that time.
        std::fs::write(&log, log_line(before_us, pid)).unwrap();
        let told = sandbox.end_told(Some(&log), 0);
        told.assert("oom_suspected", None, None, None).assert_last();
        told.assert_detail(&["the kernel's log says: ", &names_it]);
    } else if !by_log {
        return skipped("needs a log of the kernel that it may read or forge");
    }
    if by_log {
        for told in [sandbox.end_now(), sandbox.end_settled()] {
            told.assert("oom_suspected", None, None, None);
            told.assert_detail(&["the kernel's log says: ", &names_it]);
        }
    }
}

/// Where nobody counts, the log is all there is: it counts for the pid that it names, since that
/// process began.
#[test]
fn the_log_alone_is_evidence_for_the_pid_that_it_names() {
    if !can_forge_log() {
        return skipped("needs root, mounts of its own and the first pid namespace");
    }
    let sandbox = Sandbox::new();
    let log = sandbox.file("kmsg");
    let before_us = log_now_us();
    let pid = killed(sandbox.linked_gateway(&[]));
    sandbox.forge(UNCOUNTED);
    let now_us = log_now_us();
    let hour_us = 3_600_000_000;
    for (text, is_its_own, what) in [
        (String::new(), false, "nothing"),
        (log_line(now_us, pid + 1), false, "another pid"),
        (log_line(now_us, pid * 10), false, "a pid that begins like its own"),
        (log_line(before_us.saturating_sub(hour_us), pid), false, "its pid, before it began"),
        ("garbage\n;;;,,,\n3,2\n\u{fffd};Killed process\n".to_owned(), false, "garbage"),
        (format!("x;{}", log_line(now_us, pid)), true, "its own after garbage"),
        (log_line(now_us, pid), true, "its own"),
        (log_line(now_us, pid) + &log_line(now_us, 1).repeat(500), true, "its own, long ago"),
    ] {
        std::fs::write(&log, text).unwrap();
        let told = sandbox.end_told(Some(&log), 0);
        let expected = if is_its_own { "oom_suspected" } else { "anchor_released" };
        assert_eq!(told.end["end_reason"], expected, "{what}: {told:#?}");
        told.assert_last();
        if is_its_own {
            told.assert_detail(&["the kernel's log says: ", &format!("Killed process {pid} ")]);
        }
    }
}

/// Somebody of its group was killed for memory, and it was killed by hand: a log that reaches back
/// to its start tells the two apart, one that does not leaves the suspicion. A counter that has not
/// moved leaves none.
#[test]
fn nobody_elses_want_of_memory_explains_an_end() {
    if !can_forge_log() || !has("python3") {
        return skipped("needs root, mounts, the first pid namespace and python3");
    }
    let Some(group) = LittleMemory::new() else { return };
    let sandbox = Sandbox::new();
    let log = sandbox.file("kmsg");
    let mut gateway = sandbox.newcomer();
    group.put(gateway.pid());
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    let mut eater = Process::start(group.started_in(&sandbox, "python3", &["-c", EATER]));
    eater.line();
    eater.say("eat");
    eater.wait(LIMIT);
    assert_eq!(group.kills(), 1, "of the two, the one that eats");
    let (pid, other) = (gateway.pid(), eater.pid());
    gateway.kill();
    let now_us = log_now_us();
    for (text, expected, what) in [
        (String::new(), "memory ran out: ", "nothing"),
        (log_line(now_us, other), "memory ran out: ", "a log that begins after its start"),
        (log_line(0, 1) + &log_line(now_us, other), "", "a log that names the other one"),
        (log_line(0, 1) + &log_line(now_us, pid), "the kernel's log says: ", "its own"),
    ] {
        std::fs::write(&log, text).unwrap();
        let told = sandbox.end_told(Some(&log), 0);
        let reason = if expected.is_empty() { "anchor_released" } else { "oom_suspected" };
        assert_eq!(told.end["end_reason"], reason, "{what}: {told:#?}");
        told.assert(reason, None, None, None).assert_detail(&[expected]).assert_last();
    }

    let mut gateway = sandbox.newcomer();
    group.put(gateway.pid());
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    gateway.kill();
    std::fs::write(&log, "").unwrap();
    sandbox.end_told(Some(&log), 0).assert("anchor_released", None, None, None).assert_last();
}

/// What was asked for and given up again ended nobody: the kernel's word counts then.
#[test]
fn a_takeover_that_was_given_up_hides_no_want_of_memory() {
    if !can_forge_log() {
        return skipped("needs root, mounts of its own and the first pid namespace");
    }
    let sandbox = Sandbox::new();
    let log = sandbox.file("kmsg");
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    let mut taker = sandbox.begin(&["run", "--no-backoff", "--replace", "--", "true"]);
    gateway.err_line_with("caught 15: taken_over");
    taker.kill();
    let pid = killed(gateway);
    sandbox.forge(UNCOUNTED);
    std::fs::write(&log, "").unwrap();
    let told = sandbox.end_told(Some(&log), 0);
    assert_ne!(told.end["end_reason"], "taken_over", "{told:#?}");
    told.assert_detail(&["a takeover by pid ", " was given up"]);
    std::fs::write(&log, log_line(log_now_us(), pid)).unwrap();
    sandbox.end_told(Some(&log), 0).assert("oom_suspected", None, None, None);
}

/// One way to be dead with nobody having recorded it.
struct Death {
    what: &'static str,
    reason: &'static str,
    by_us: bool,
    signal: Option<i64>,
    /// The kernel's log names it.
    in_log: bool,
    die: fn(&Sandbox) -> u32,
}

fn killed(mut gateway: Process) -> u32 {
    let pid = gateway.pid();
    gateway.kill();
    pid
}

const DEATHS: &[Death] = &[
    Death {
        what: "killed in silence",
        reason: "anchor_released",
        by_us: false,
        signal: None,
        in_log: false,
        die: |sandbox| killed(sandbox.linked_gateway(&["lock a"])),
    },
    Death {
        what: "killed after a signal",
        reason: "signalled",
        by_us: true,
        signal: Some(15),
        in_log: false,
        die: |sandbox| {
            let mut gateway = sandbox.linked_gateway(&["lock a", "catch"]);
            gateway.signal(Signal::TERM);
            gateway.err_line_with("caught 15");
            killed(gateway)
        },
    },
    Death {
        what: "killed after a signal while it was starting",
        reason: "signalled",
        by_us: true,
        signal: Some(15),
        in_log: false,
        die: |sandbox| {
            let mut gateway = sandbox.linked_gateway(&["lock a", "catch", "state starting"]);
            gateway.signal(Signal::TERM);
            gateway.err_line_with("caught 15: start_interrupted 75");
            killed(gateway)
        },
    },
    Death {
        what: "a thread panicked, and it ended by that",
        reason: "panicked",
        by_us: false,
        signal: None,
        in_log: false,
        die: |sandbox| {
            let mut gateway = sandbox.linked_gateway(&["lock a", "record", "panic text"]);
            last_order(&mut gateway, "abort");
            gateway.pid()
        },
    },
    Death {
        what: "the kernel's log names it",
        reason: "oom_suspected",
        by_us: false,
        signal: None,
        in_log: true,
        die: |sandbox| {
            let pid = killed(sandbox.linked_gateway(&["lock a"]));
            sandbox.forge(UNCOUNTED);
            pid
        },
    },
    Death {
        what: "the machine was restarted",
        reason: "rebooted",
        by_us: false,
        signal: None,
        in_log: false,
        die: |sandbox| {
            let pid = killed(sandbox.linked_gateway(&["lock a"]));
            sandbox.forge(&format!("{OTHER_BOOT} WHERE ended_at_ms IS NULL"));
            pid
        },
    },
];

/// DESIGN 5: the next observer that writes settles what the dead could not write; questions show
/// the same answer without writing it.
#[track_caller]
fn assert_settled_as_told(name: &str, verb: &[&str]) {
    let sandbox = Sandbox::new();
    let log = sandbox.file("kmsg");
    let can_forge = can_forge_log();
    let mut wrong = Vec::new();
    for death in DEATHS {
        if death.in_log && !can_forge {
            skipped("the case that needs root, mounts of its own and the first pid namespace");
            continue;
        }
        let what = format!("{}, settled by {name}", death.what);
        let pid = (death.die)(&sandbox);
        let log = death.in_log.then(|| {
            std::fs::write(&log, log_line(log_now_us(), pid)).unwrap();
            log.as_path()
        });
        // The first question after a change by hand makes the log of the database anew.
        sandbox.end_told(log, 0);
        let before = sandbox.picture();
        let asked = sandbox.end_told(log, 0);
        assert!(sandbox.picture() == before, "{what}: a question has written");
        let us = us();
        asked.assert(death.reason, death.by_us.then_some(&us), None, death.signal).assert_last();
        assert_eq!(asked.end["pid"], pid, "{what}");
        assert!(asked.end["ended_at"].is_null(), "{what}");

        sandbox.ask_seeing_log(log, verb);
        if name == "lock" {
            let pid = std::process::id().to_string();
            sandbox.cli(["lock", "release", "--pid", &pid, "token", "a"]).assert_code(0);
            // Our keeper writes once more before it goes.
            eventually("the end of our keeper", LIMIT, || {
                sandbox.keepers().is_empty().then_some(())
            });
        }
        let told = sandbox.end_told(log, usize::from(name == "claim"));
        assert_eq!(told.end["instance"], asked.end["instance"], "{what}");
        assert!(told.end["ended_at"].is_string(), "{what}: {told:#?}");
        for field in ["end_reason", "ended_by", "exit_code", "signal"] {
            if told.end[field] != asked.end[field] {
                let (before, after) = (&asked.end[field], &told.end[field]);
                wrong.push(format!("{what}: {field} was {before}, and is {after} now"));
            }
        }
        let (before, after) =
            (story_without_times(&asked.detail()), story_without_times(&told.detail()));
        if before != after {
            wrong.push(format!("{what}: the detail was {before:?}, and is {after:?} now"));
        }
        if name != "claim" {
            told.assert_last();
            assert_eq!(sandbox.end_event()["reason"], death.reason, "{what}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_question_shows_what_the_next_claim_records() {
    assert_settled_as_told("claim", &["run", "--no-backoff", "--", "true"]);
}

#[test]
fn a_question_shows_what_an_eviction_records() {
    assert_settled_as_told("evict", &["evict"]);
}

#[test]
fn a_question_shows_what_a_stop_records() {
    assert_settled_as_told("stop", &["stop"]);
}

/// The lock that it held is wanted, and not its office.
#[test]
fn a_question_shows_what_the_next_holder_of_its_lock_records() {
    let pid = std::process::id().to_string();
    assert_settled_as_told("lock", &["lock", "acquire", "--pid", &pid, "token", "a"]);
}

/// A stop that nobody waited for any more, and a stop beside a signal: what was asked for explains
/// the end, also where the stopper has ended before its gateway.
#[test]
fn a_planned_stop_wins_over_its_own_signal() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    let mut stop = sandbox.begin(&["stop", "--reason", "moving house"]);
    gateway.err_line_with("caught 15: planned_stop 0");
    let by = format!("pid {}", stop.pid());
    stop.kill();
    gateway.kill();
    let asked = sandbox.end_now();
    let told = sandbox.end_settled();
    for told in [&asked, &told] {
        assert_eq!(told.end["end_reason"], "planned_stop", "{told:#?}");
        assert!(told.text("ended_by").contains(&by), "{told:#?}");
        assert_eq!(story_without_times(&told.detail()), "moving house", "{told:#?}");
        told.assert_story("it was stopped on purpose by BY (moving house) [planned_stop]");
    }
    asked.assert_last();

    // The other way round: somebody signals it first, and then it is stopped on purpose.
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15: ");
    let stop = sandbox.begin(&["stop"]);
    gateway.err_line_with("caught 15: planned_stop 0");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let by = format!("pid {}", stop.pid());
    gateway.finish(LIMIT).assert_code(0);
    stop.finish(LIMIT).assert_code(0);
    let told = sandbox.end_now();
    assert_eq!(told.end["end_reason"], "planned_stop", "{told:#?}");
    assert!(told.text("ended_by").contains(&by), "{told:#?}");
}

/// Last words that no end is by.
const SURVIVED: &str = "SELECT count(*) FROM shutdowns WHERE survived_at_ms IS NOT NULL";

/// A signal that was survived explains no later end: the process was there for longer than a stop
/// may take, and that is on record. A shorter life after it proves nothing, nor does a sign of
/// life.
#[test]
fn a_signal_that_was_survived_explains_nothing() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.newcomer();
    assert_eq!(ask(&mut gateway, "claim 300"), "granted");
    ask(&mut gateway, "catch");
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    eventually("its survival on record", LIMIT, || (sandbox.number(SURVIVED) == 1).then_some(()));
    gateway.kill();
    sandbox.end_now().assert("anchor_released", None, None, None).assert_last();
    sandbox.end_settled().assert("anchor_released", None, None, None);

    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    assert_eq!(ask(&mut gateway, "beat"), "said");
    gateway.kill();
    sandbox.end_settled().assert("signalled", Some(&us()), None, Some(15));
}

/// What systemd does: it kills when the stop budget is over, or a moment later. The signal before that was
/// not survived: it was followed in vain.
#[test]
fn a_kill_at_the_end_of_the_stop_budget_is_by_the_signal_before_it() {
    for after_ms in [0, 50, 400] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.newcomer();
        assert_eq!(ask(&mut gateway, "claim 300"), "granted");
        ask(&mut gateway, "catch");
        gateway.signal(Signal::TERM);
        gateway.err_line_with("caught 15");
        // Not a synchronisation: the time is what it is about.
        std::thread::sleep(Duration::from_millis(300 + after_ms));
        gateway.kill();
        sandbox.end_now().assert("signalled", Some(&us()), None, Some(15));
        sandbox.end_settled().assert("signalled", Some(&us()), None, Some(15));
    }
}

/// The same of a run, which knows itself how long it has waited.
#[test]
fn a_signal_that_a_command_survived_explains_nothing() {
    let sandbox = Sandbox::new();
    for (signal, reason, code, number) in [
        (Signal::USR1, "exited", Some(7), None),
        (Signal::ABORT, "crashed", None, Some(6)),
        (Signal::KILL, "signalled", None, Some(9)),
    ] {
        let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
        run.process.signal(Signal::TERM);
        run.process.line_with("TERM");
        run.let_time_pass(Duration::from_millis(500));
        kill(run.command.pid, signal);
        run.process.wait(LIMIT);
        sandbox.end_now().assert(reason, None, code, number).assert_last();
    }
    // Whoever sends the same signal to the command itself is not whom the run heard of before.
    let script = "trap 'echo TERM; trap - TERM' TERM; echo $$
                  while :; do sleep 0.05 > /dev/null 2>&1; done";
    let verb = ["run", "--no-backoff", "--stop-budget", "300ms", "--", "/bin/sh", "-c", script];
    let mut run = Run::start(sandbox.incumbent(verb));
    run.process.signal(Signal::TERM);
    run.process.line_with("TERM");
    // Not a synchronisation: the time is what it is about.
    std::thread::sleep(Duration::from_millis(600));
    kill(run.command.pid, Signal::TERM);
    run.process.wait(LIMIT);
    sandbox.end_now().assert("signalled", None, None, Some(15)).assert_last();
    // The run itself dies long afterwards: it had noted that the command goes on.
    let mut run = sandbox.patient(&["--stop-budget", "300ms"]);
    run.process.signal(Signal::TERM);
    run.process.line_with("TERM");
    let survived =
        "SELECT count(*) FROM shutdowns AS s JOIN gateways AS g ON g.instance = s.instance_id
                    WHERE s.survived_at_ms IS NOT NULL";
    eventually("the survival on record", LIMIT, || (sandbox.number(survived) == 1).then_some(()));
    run.kill();
    sandbox.end_now().assert("anchor_released", None, None, None);
    sandbox.end_settled().assert("anchor_released", None, None, None);
}

/// Of two last words the last one counts: what was survived before it does not.
#[test]
fn the_last_of_two_words_counts() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record", "catch", "catch-panic"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    sandbox.end_now().assert("signalled", Some(&us()), None, Some(15));
    gateway.finish(LIMIT).assert_code(0);

    let mut gateway = sandbox.linked_gateway(&["record", "catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    last_order(&mut gateway, "panic");
    sandbox.end_now().assert("panicked", None, None, None).assert_detail(&[BOOM]);
}

/// A gateway that drains may well panic on its way: its last word is the panic, and a release used
/// to follow the last word only, so that who had sent the signal was forgotten. It holds because a
/// release looks at the signal by itself, and tells the panic beside it.
#[test]
fn a_panic_in_the_drain_hides_no_sender() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["tell speaks", "record", "catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    ask(&mut gateway, "panic text");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let told = sandbox.end_now();
    told.assert("signalled", Some(&us()), None, Some(15)).assert_last();
    told.assert_detail(&[&format!("thread \"worker\" panicked: {BOOM} at "), "endings.rs:"]);
    assert_eq!(sandbox.last_words(), 2);
    gateway.finish(LIMIT).assert_code(0);
}

/// A last word that was kept, because the store was locked, and that its table then refuses: each
/// later write of the process failed with it, for ever, its release included. It holds because a
/// word is written in a savepoint of its own, and dropped where it is refused.
#[test]
fn a_last_word_that_is_refused_is_in_nobodys_way() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    let mut blocker = sandbox.newcomer();
    assert_eq!(ask(&mut blocker, "block"), "done");
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    blocker.kill();
    assert_eq!(sandbox.last_words(), 0, "it was kept");
    sandbox.forge(
        "CREATE TRIGGER refused BEFORE INSERT ON shutdowns
         BEGIN SELECT RAISE(ABORT, 'not in this table'); END",
    );
    assert_eq!(ask(&mut gateway, "state draining"), "said");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    sandbox.end_now().assert("released", None, None, None).assert_last();
    assert_eq!(ask(&mut gateway, "claim"), "granted");
    assert_eq!(ask(&mut gateway, "beat"), "said");
    sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(sandbox.last_words(), 0);
    gateway.finish(LIMIT).assert_code(0);
}

/// A release long after a signal is no answer to it.
#[test]
fn a_release_long_after_a_signal_is_a_release() {
    let sandbox = Sandbox::new();
    for (ago_ms, reason) in [(60_000, "signalled"), (3_600_000, "released")] {
        let mut gateway = sandbox.linked_gateway(&["catch"]);
        gateway.signal(Signal::TERM);
        gateway.err_line_with("caught 15");
        sandbox.forge(&format!("UPDATE shutdowns SET at_boot_ms = at_boot_ms - {ago_ms}"));
        assert_eq!(ask(&mut gateway, "release"), "Free");
        let told = sandbox.end_now();
        assert_eq!(told.end["end_reason"], reason, "{ago_ms} ms: {told:#?}");
        told.assert_last();
        gateway.finish(LIMIT).assert_code(0);
    }
}

/// SIGHUP from a person is a request to read the configuration again.
#[test]
fn a_hangup_explains_no_end() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::HUP);
    gateway.err_line_with("caught 1:");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    sandbox.end_now().assert("released", None, None, None).assert_last();
    assert_eq!(sandbox.last_words(), 1, "it is on record all the same");
    gateway.finish(LIMIT).assert_code(0);

    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::HUP);
    gateway.err_line_with("caught 1:");
    gateway.kill();
    sandbox.end_now().assert("anchor_released", None, None, None);
    sandbox.end_settled().assert("anchor_released", None, None, None);

    // One after a SIGTERM takes nothing back.
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    for (signal, caught) in [(Signal::TERM, "caught 15"), (Signal::HUP, "caught 1:")] {
        gateway.signal(signal);
        gateway.err_line_with(caught);
    }
    gateway.kill();
    let told = sandbox.end_settled();
    told.assert("signalled", Some(&us()), None, Some(15));
}

/// What goes on after a SIGHUP, until the test lets it end.
const RELOADS: &str = "trap 'echo HUP' HUP; echo $$
    while ! test -e enough; do sleep 0.05 > /dev/null 2>&1; done
    exit 3";

/// The same for a run: its command reads its configuration again, and ends by itself later. A
/// sender that no pid is known of, because it lives outside of the pid namespace, is a sender all
/// the same: it was taken for a terminal that has gone, and so for the one who had ended the
/// command.
#[test]
fn a_hangup_that_a_command_survived_explains_nothing() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold_with(&["/bin/sh", "-c", RELOADS]);
    run.process.signal(Signal::HUP);
    run.process.line_with("HUP");
    std::fs::write(sandbox.file("enough"), "").unwrap();
    run.process.finish_with_stdin_open(LIMIT).assert_code(3);
    assert_eq!(sandbox.last_words(), 1, "it is on record all the same");
    sandbox.end_now().assert("exited", None, Some(3), None).assert_last();

    let Some(namespace) = pid_namespace() else {
        return skipped("the half that needs a pid namespace");
    };
    std::fs::remove_file(sandbox.file("enough")).unwrap();
    let verb = ["run", "--no-backoff", "--", "/bin/sh", "-c", RELOADS];
    let mut outer = Process::start(sandbox.incumbent_under(namespace, &verb));
    outer.line();
    let is_first = |pid: &u32| Stat::of(*pid).is_some_and(|stat| stat.parent == outer.pid());
    let first = tagged("IT_SANDBOX", sandbox.path()).into_iter().find(is_first);
    kill(first.expect("PID 1 of the namespace"), Signal::HUP);
    outer.line_with("HUP");
    std::fs::write(sandbox.file("enough"), "").unwrap();
    outer.finish_with_stdin_open(LIMIT).assert_code(3);
    assert_eq!(sandbox.last_words(), 2, "it is on record all the same");
    sandbox.end_now().assert("exited", None, Some(3), None).assert_last();
}

/// The end of a start that was cut short says so, by whatever it was cut short.
#[test]
fn an_end_while_starting_says_so() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch", "state starting"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15: start_interrupted 75");
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let told = sandbox.end_now();
    told.assert("signalled", Some(&us()), None, Some(15));
    told.assert_story("SIGTERM from BY ended it (while it was starting) [signalled]");
    gateway.finish(LIMIT).assert_code(0);
}

/// The exit path of a panic: it unwinds through the tenure, which lets go as it is dropped.
#[test]
fn a_panic_that_unwinds_through_the_tenure_is_told_with_its_place() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record"]);
    assert_eq!(last_order(&mut gateway, "panic").code(), Some(101));
    let told = sandbox.end_now();
    told.assert("panicked", None, None, None).assert_last();
    let detail = told.detail();
    let message = format!("thread \"{ROLE_TEST}\" panicked: {BOOM} at ");
    assert!(detail.starts_with(&message), "{told:#?}");
    let place = &detail[message.len()..];
    let parts: Vec<&str> = place.rsplitn(3, ':').collect();
    assert!(parts[2].ends_with(FILE), "{told:#?}");
    assert!(parts[..2].iter().all(|number| number.parse::<u32>().is_ok()), "{told:#?}");
    told.assert_story("one of its threads panicked (DETAIL) [panicked]");
    assert_eq!(sandbox.end_event()["reason"], "panicked");
    let event = "SELECT count(*) FROM events WHERE event = 'panicked'
         AND json_extract(detail, '$.message') LIKE '%frobnicator%'";
    assert_eq!(sandbox.number(event), 1);
}

/// Without a hook there is no message; that it unwound is known all the same.
#[test]
fn a_panic_without_a_hook_is_a_panic() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&[]);
    assert_eq!(last_order(&mut gateway, "panic").code(), Some(101));
    let told = sandbox.end_now();
    told.assert("panicked", None, None, None).assert_last();
    told.assert_story("one of its threads panicked [panicked]");
    assert_eq!(sandbox.last_words(), 0);
}

/// A panic of some thread and then the end of the process, whichever way.
#[test]
fn a_process_that_ends_after_a_panic_ended_by_it() {
    for end in ["exit 1", "exit 0", "abort"] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["tell speaks", "record"]);
        gateway.say("panic text");
        gateway.err_line_with(&format!("the hook of before: {BOOM}"));
        gateway.err_line_with("=> ");
        last_order(&mut gateway, end);
        for told in [sandbox.end_now(), sandbox.end_settled()] {
            told.assert("panicked", None, None, None);
            told.assert_detail(&[
                &format!("thread \"worker\" panicked: {BOOM} at "),
                "endings.rs:",
            ]);
        }
    }
}

/// As with `panic = "abort"`: nothing unwinds, no destructor runs.
#[test]
fn a_panic_that_aborts_is_a_panic() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["tell aborts", "record"]);
    gateway.say("panic");
    gateway.err_line_with("the hook of before: ");
    gateway.wait(LIMIT);
    for told in [sandbox.end_now(), sandbox.end_settled()] {
        told.assert("panicked", None, None, None).assert_detail(&[BOOM, "endings.rs:"]);
    }
}

/// A panic that was caught and survived explains no later end; one just before the end does. A
/// gateway that says nothing of itself is no less alive: its survival is noted for it.
#[test]
fn a_panic_that_was_survived_explains_nothing() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record", "catch-panic"]);
    eventually("its survival on record", LIMIT, || (sandbox.number(SURVIVED) == 1).then_some(()));
    gateway.kill();
    sandbox.end_now().assert("anchor_released", None, None, None).assert_last();
    sandbox.end_settled().assert("anchor_released", None, None, None);
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record", "catch-panic", "beat"]);
    gateway.kill();
    sandbox.end_settled().assert("panicked", None, None, None);
    // Who lets go in peace has survived it; that it panicked just before is told beside.
    let mut gateway = sandbox.linked_gateway(&["record", "catch-panic"]);
    assert_eq!(ask(&mut gateway, "release"), "Free");
    let told = sandbox.end_now();
    told.assert("released", None, None, None).assert_last().assert_detail(&[BOOM]);
    assert!(told.story().starts_with("it let go (thread "), "{told:#?}");
    gateway.finish(LIMIT).assert_code(0);
}

/// Whatever a panic says: one line in the history, no secret, a bounded row.
#[test]
fn whatever_a_panic_says_is_told_in_one_line() {
    for (kind, expected) in [
        ("lines", "panicked: one"),
        ("long", "panicked: x\u{e9}x\u{e9}"),
        ("secret", "panicked: cannot log in with --token="),
        ("value", "panicked: a value that is no text"),
        ("empty", "panicked: explicit panic"),
    ] {
        let sandbox = Sandbox::new();
        let order = format!("panic {kind}");
        let mut gateway = sandbox.linked_gateway(&["record", &order]);
        last_order(&mut gateway, "exit 1");
        let asked = sandbox.end_now();
        let told = sandbox.end_settled();
        let text = sandbox.cli(["history"]).assert_code(0).out;
        assert_eq!(text.lines().count(), 2, "{kind}: {text}");
        assert!(!text.contains(['\u{1b}', '\u{7}', '\r']), "{kind}: {text:?}");
        for told in [&asked, &told] {
            told.assert("panicked", None, None, None).assert_detail(&[expected, "endings.rs:"]);
            assert!(told.detail().len() < 5 * 1024, "{kind}: {} bytes", told.detail().len());
        }
        let everything = sandbox.json(["sql", "SELECT * FROM shutdowns"]).1.to_string()
            + &sandbox.json(["sql", "SELECT * FROM events"]).1.to_string()
            + &sandbox.json(["sql", "SELECT * FROM instances"]).1.to_string()
            + &text;
        assert!(!everything.contains("SECRETSECRET"), "{kind}");
        assert!(everything.len() < 64 * 1024, "{kind}: {} bytes", everything.len());
    }
}

/// A store that cannot be written holds a panic up for a moment, and hides nothing from the hook of
/// before; the row is written with the next change, or lost with the process.
#[test]
fn a_panic_waits_for_no_stopped_writer() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["tell speaks", "record"]);
    let mut blocker = sandbox.newcomer();
    assert_eq!(ask(&mut blocker, "block"), "done");
    kill(blocker.pid(), Signal::STOP);
    wait_stopped(blocker.pid());
    gateway.say("panic text");
    gateway.err_line_with("the hook of before: ");
    let line = gateway.err_line_with("=> ");
    let took_ms: u64 = line.split_once("=> ").unwrap().1.parse().unwrap();
    // 250 ms by design; the rest is for a busy machine.
    assert!((150..2_000).contains(&took_ms), "{took_ms} ms");
    assert_eq!(sandbox.last_words(), 0);
    blocker.kill();
    assert_eq!(ask(&mut gateway, "beat"), "said");
    assert_eq!(sandbox.last_words(), 1, "written with the next change");
    gateway.kill();
    sandbox.end_settled().assert("panicked", None, None, None).assert_detail(&[BOOM]);

    // Nobody lets the lock go: the process ends all the same.
    let mut gateway = sandbox.linked_gateway(&["tell speaks", "record"]);
    let mut blocker = sandbox.newcomer();
    assert_eq!(ask(&mut blocker, "block"), "done");
    kill(blocker.pid(), Signal::STOP);
    wait_stopped(blocker.pid());
    let began = Instant::now();
    ask(&mut gateway, "panic text");
    assert_eq!(last_order(&mut gateway, "exit 3").code(), Some(3));
    assert_within(Duration::from_secs(5), began.elapsed(), "it");
    blocker.kill();
    sandbox.end_settled().assert("anchor_released", None, None, None);
}

/// A panic inside of what the library calls back is one like any other: on record, and it takes
/// nothing else along.
#[test]
fn a_panic_in_a_callback_is_on_record() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["tell speaks", "record", "catch and panic"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("the hook of before: ");
    // The gateway goes on; what its callback should have done is left undone.
    assert_eq!(ask(&mut gateway, "beat"), "said");
    sandbox.assert_status(0, "alive", "anchor_held");
    gateway.kill();
    sandbox.end_settled().assert("panicked", None, None, None).assert_detail(&[BOOM]);

    let mut gateway = sandbox.linked_gateway(&["tell speaks", "record", "watch and panic"]);
    sandbox.cli(["evict", "--force"]).assert_code(0);
    gateway.err_line_with("the hook of before: ");
    // It was evicted before it panicked, and stays so.
    gateway.kill();
    sandbox
        .end_now()
        .assert("evicted", Some("incumbent evict --force (pid "), None, None)
        .assert_last();
    sandbox.settle_end();
    sandbox.end_told(None, 1).assert("evicted", Some("incumbent evict --force (pid "), None, None);
}

/// A panic in the callback ended the thread that waits for signals, and they were caught by nobody:
/// SIGTERM had no effect any more, until SIGKILL. It holds because the signals get their defaults
/// back with that thread, whatever ends it.
#[test]
fn a_panic_in_a_callback_gives_the_signals_back() {
    for signal in [Signal::TERM, Signal::INT] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["tell speaks", "record", "catch and panic"]);
        gateway.signal(Signal::TERM);
        gateway.err_line_with("the hook of before: ");
        // The hook runs before the thread unwinds: one that comes meanwhile may be lost.
        eventually("the next signal ends it", LIMIT, || {
            gateway.signal(signal);
            gateway.has_ended().then_some(())
        });
        assert_eq!(gateway.wait(LIMIT).signal(), Some(signal.as_raw()));
    }
}

/// Why a gateway exits, and with what: by what its store, the signal and its panics say.
#[test]
fn the_cause_of_an_exit_is_told_before_it() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["record", "catch"]);
    let cause = |gateway: &mut Process, order: &str| ask(gateway, order);
    assert_eq!(cause(&mut gateway, "cause -"), "exited 0");
    assert_eq!(cause(&mut gateway, "cause 15"), "signalled 0");
    ask(&mut gateway, "state starting");
    assert_eq!(cause(&mut gateway, "cause -"), "exited 0");
    assert_eq!(cause(&mut gateway, "cause 15"), "start_interrupted 75");
    ask(&mut gateway, "state running");
    ask(&mut gateway, "catch-panic");
    assert_eq!(cause(&mut gateway, "cause -"), "panicked 101");
    // What was sent comes before what went wrong here, and what was asked for before both.
    assert_eq!(cause(&mut gateway, "cause 15"), "signalled 0");
    let mut stop = sandbox.begin(&["stop"]);
    gateway.err_line_with("caught 15: planned_stop 0");
    assert_eq!(cause(&mut gateway, "cause -"), "planned_stop 0");
    assert_eq!(cause(&mut gateway, "cause 15"), "planned_stop 0");
    stop.kill();
}

/// R:ROW. A damaged last word crashes nobody, and says nothing that is not there.
#[test]
fn a_damaged_last_word_is_borne() {
    for (forged, expected) in [
        ("signal = NULL", &["anchor_released"][..]),
        ("signal = 0", &["anchor_released", "signalled"]),
        ("signal = -15", &["anchor_released", "signalled"]),
        ("signal = 9223372036854775807", &["anchor_released"]),
        ("at_ms = 9223372036854775807", &["signalled", "anchor_released"]),
        ("at_ms = -9223372036854775808", &["signalled", "anchor_released"]),
        ("at_ms = 0", &["signalled", "anchor_released"]),
        ("at_ms = at_ms + 86400000", &["signalled"]),
        ("at_boot_ms = -1", &["signalled"]),
        ("at_boot_ms = 9223372036854775807", &["signalled"]),
        ("at_boot_ms = NULL, boot_id = NULL", &["signalled"]),
        ("sender = NULL, sender_pid = NULL", &["signalled"]),
        ("sender = char(27) || '[31m' || char(10) || 'x'", &["signalled"]),
        ("snapshot = NULL, cause = 'nonsense'", &["signalled"]),
        ("message = '', place = NULL", &["panicked", "signalled"]),
        ("what = 'panic'", &["signalled", "panicked", "anchor_released"]),
        ("instance_id = NULL", &["anchor_released"]),
    ] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["catch"]);
        gateway.signal(Signal::TERM);
        gateway.err_line_with("caught 15");
        gateway.kill();
        assert_eq!(sandbox.forge(&format!("UPDATE shutdowns SET {forged}")), 1);
        let asked = sandbox.end_now();
        let told = sandbox.end_settled();
        for told in [&asked, &told] {
            let reason = told.text("end_reason");
            assert!(expected.contains(&reason.as_str()), "{forged}: {told:#?}");
            assert!(!told.line.contains('\u{1b}'), "{forged}: {told:#?}");
        }
        asked.assert_last();
        assert_eq!(asked.end["end_reason"], told.end["end_reason"], "{forged}");
        assert_eq!(asked.end["ended_by"], told.end["ended_by"], "{forged}");
        let text = sandbox.cli(["history"]).assert_code(0).out;
        assert_eq!(text.lines().count(), 2, "{forged}: {text}");
    }
}

/// The counters and the budget of a damaged row are borne as well.
#[test]
fn a_damaged_row_of_an_instance_is_borne() {
    for forged in [
        "memory_cgroup = '/no/such/group', oom_kills = 0",
        "memory_cgroup = '', oom_kills = -1",
        "memory_cgroup = '/etc/../proc', oom_kills = 9223372036854775807",
        "memory_cgroup = NULL, oom_kills = NULL",
        "stop_budget_ms = -1, heartbeat_at_ms = -9223372036854775808",
        "stop_budget_ms = 9223372036854775807, heartbeat_at_ms = NULL",
    ] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.linked_gateway(&["catch"]);
        gateway.signal(Signal::TERM);
        gateway.err_line_with("caught 15");
        gateway.kill();
        sandbox.forge(&format!("UPDATE instances SET {forged}"));
        for told in [sandbox.end_now(), sandbox.end_settled()] {
            assert_eq!(told.end["end_reason"], "signalled", "{forged}: {told:#?}");
        }
    }
}

/// R:ROW. What a row names as its memory cgroup was opened whatever it was: a FIFO of that name
/// held everybody up for ever who asked how its holder had ended, the next claim included. It
/// holds because only a directory of the kernel's own is read.
#[test]
fn a_forged_cgroup_holds_nobody_up() {
    const BOUND: Duration = Duration::from_secs(10);
    let sandbox = Sandbox::new();
    let directory = sandbox.file("group");
    std::fs::create_dir(&directory).unwrap();
    for name in ["memory.events", "memory.oom_control"] {
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, directory.join(name), kind, mode, 0).unwrap();
    }
    let inode = std::fs::metadata(&directory).unwrap().ino();
    let directory = directory.display().to_string();
    for forged in [
        directory.clone(),
        format!("/sys/fs/cgroup/../../..{directory}"),
        format!("/sys/fs/cgroup/./../../../{directory}"),
        format!("/sys/fs/cgroup//../../../{directory}"),
    ] {
        for inode in [inode.to_string(), "NULL".to_owned()] {
            let what = format!("{forged}, inode {inode}");
            killed(sandbox.linked_gateway(&[]));
            let row =
                "WHERE id = (SELECT id FROM instances ORDER BY started_at_ms DESC, id LIMIT 1)
                AND ended_at_ms IS NULL";
            let changed = sandbox.forge(&format!(
                "UPDATE instances SET memory_cgroup = '{forged}', memory_cgroup_inode = {inode},
                 oom_kills = 0 {row}"
            ));
            assert_eq!(changed, 1, "{what}");
            for verb in
                [&["--json", "status"][..], &["history"], &["run", "--no-backoff", "--", "true"]]
            {
                let began = Instant::now();
                let answer = sandbox.begin(verb).finish(LIMIT);
                let took = began.elapsed();
                assert!(matches!(answer.code(), 0 | 3), "{what}: {verb:?}: {answer:#?}");
                assert_within(BOUND, took, &format!("{what}: {verb:?}"));
            }
            let told = sandbox.end_told(None, 1);
            told.assert("anchor_released", None, None, None);
        }
    }
}

/// A store of the version before: questions answer as they did and write nothing; the next claim
/// brings it up to date.
#[test]
fn a_store_of_before_tells_what_it_knows() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    gateway.kill();
    sandbox.age_to(4);
    // The first reader makes the log of the database anew.
    let _reader = rusqlite::Connection::open(sandbox.db()).inspect(|reader| {
        let version = reader.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        assert_eq!(version.unwrap(), 4);
    });
    let before = sandbox.picture();
    let asked = sandbox.end_now();
    asked.assert("anchor_released", None, None, None).assert_last();
    assert!(sandbox.picture() == before, "a question has written");
    assert_eq!(sandbox.number("PRAGMA user_version"), 4);

    // Who asks for a snapshot is answered, and told why it is not on record.
    let (code, snapshot) = sandbox.json(["forensics", "snapshot", "--signal", "TERM"]);
    assert_eq!(code, 0, "{snapshot:#}");
    let why = snapshot["recorded"]["unavailable"].as_str().unwrap_or_default();
    assert!(why.contains("schema is older"), "{snapshot:#}");
    assert_eq!(sandbox.number("PRAGMA user_version"), 4);

    // Also what writes, and does not claim, leaves the schema alone.
    sandbox.cli(["evict"]).assert_code(0);
    let told = sandbox.end_now();
    assert_eq!(told.end["end_reason"], "anchor_released", "{told:#?}");
    sandbox.settle_end();
    assert!(sandbox.number("PRAGMA user_version") > 4);
    let mut gateway = sandbox.linked_gateway(&["catch"]);
    gateway.signal(Signal::TERM);
    gateway.err_line_with("caught 15");
    gateway.kill();
    sandbox.end_settled().assert("signalled", Some(&us()), None, Some(15));
}

/// What is kept of the past is bounded, and nothing outlives what it belongs to.
#[test]
fn last_words_go_with_their_incarnations() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.newcomer();
    assert_eq!(ask(&mut gateway, "cycle 300"), "done");
    let kept = sandbox.number("SELECT count(*) FROM instances");
    // Pruned by one transaction of eight, by chance.
    assert!((200..=280).contains(&kept), "{kept} are kept");
    assert_eq!(sandbox.last_words(), kept);
    let orphans = "SELECT count(*) FROM shutdowns WHERE instance_id IS NULL
         OR instance_id NOT IN (SELECT id FROM instances)";
    assert_eq!(sandbox.number(orphans), 0);
    assert_eq!(sandbox.history().len(), 200);
    assert!(sandbox.history().iter().all(|end| end["end_reason"] == "signalled"));

    assert_eq!(ask(&mut gateway, "claim"), "granted");
    assert_eq!(ask(&mut gateway, "snapshot 50"), "done");
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM shutdowns GROUP BY instance_id)";
    assert_eq!(sandbox.number(most), 20);
    gateway.kill();

    // Of processes that are on record nowhere.
    sandbox.forge(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
         INSERT INTO shutdowns (at_ms, pid, what, signal) SELECT i, 1, 'signal', 15 FROM n",
    );
    sandbox.cli(["forensics", "snapshot", "--signal", "TERM"]).assert_code(0);
    let others = "SELECT count(*) FROM shutdowns WHERE instance_id IS NULL";
    assert_eq!(sandbox.number(others), 1_000);
}

/// Seven starts of a party that end by `end`; whether the eighth waits.
fn is_a_storm(sandbox: &Sandbox, log: Option<&Path>, end: impl Fn(Process)) -> bool {
    let start = || {
        let mut command = sandbox.role_command(ROLE_TEST, GATEWAY);
        command.env("INCUMBENT_PARTY", "red");
        Process::start(command)
    };
    for _ in 0..7 {
        let mut gateway = start();
        assert_eq!(ask(&mut gateway, "claim"), "granted");
        for order in ["record", "catch"] {
            ask(&mut gateway, order);
        }
        end(gateway);
    }
    let script = ["run", "--", "/bin/sh", "-c", "echo started >&2"];
    let mut next = sandbox.seeing_log(log, &script);
    next.env("INCUMBENT_PARTY", "red");
    let mut next = Process::start(next);
    loop {
        let line = next.err_line();
        if line.contains("starts in a row failed") {
            next.signal(Signal::TERM);
            next.finish_with_stdin_open(LIMIT).assert_code(143);
            return true;
        }
        if line == "started" {
            next.finish(LIMIT).assert_code(0);
            return false;
        }
    }
}

/// FIELD-BUGS row 46: a gateway that panics at each start is slowed down, also where its end was
/// told only by the next one.
#[test]
fn panics_at_each_start_are_a_storm() {
    let sandbox = Sandbox::new();
    assert!(is_a_storm(&sandbox, None, |mut gateway| {
        last_order(&mut gateway, "panic");
    }));
    let sandbox = Sandbox::new();
    assert!(is_a_storm(&sandbox, None, |mut gateway| {
        ask(&mut gateway, "panic text");
        last_order(&mut gateway, "abort");
    }));
}

/// One that its supervisor stops again and again is none: nobody is at fault.
#[test]
fn signals_at_each_start_are_no_storm() {
    for lets_go in [true, false] {
        let sandbox = Sandbox::new();
        let is_storm = is_a_storm(&sandbox, None, |mut gateway| {
            gateway.signal(Signal::TERM);
            gateway.err_line_with("caught 15");
            if lets_go {
                ask(&mut gateway, "release");
            }
            gateway.kill();
        });
        assert!(!is_storm, "lets go: {lets_go}");
    }
}

/// A command that is killed for memory at each start counts as one that crashes.
#[test]
fn kills_for_memory_at_each_start_are_a_storm() {
    if !can_forge_log() {
        return skipped("needs root, mounts of its own and the first pid namespace");
    }
    let sandbox = Sandbox::new();
    let log = sandbox.file("kmsg");
    std::fs::write(&log, "").unwrap();
    let start = |script: &str| {
        let mut command = sandbox.seeing_log(Some(&log), &["run", "--", "/bin/sh", "-c", script]);
        command.env("INCUMBENT_PARTY", "red");
        command
    };
    for number in 1..=7 {
        let run = Run::start(start("echo $$; exec cat"));
        sandbox.forge(UNCOUNTED);
        std::fs::write(&log, log_line(log_now_us(), run.command.pid)).unwrap();
        kill(run.command.pid, Signal::KILL);
        let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(128 + 9);
        assert!(!answer.err.contains("starts in a row failed"), "start {number}: {answer:#?}");
        sandbox.end_now().assert("oom_suspected", None, None, Some(9));
    }
    let mut next = Process::start(start("echo started >&2"));
    let line = next.err_line();
    assert!(line.contains("starts in a row failed"), "{line}");
    next.signal(Signal::TERM);
    assert!(wait_ended(next.pid(), LIMIT));
}

/// A night, as a tired person reads it: newest first, one line each, who and why in words.
#[test]
fn a_night_is_told_line_by_line() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", "exit 7"]).assert_code(7);
    let run = sandbox.hold(&[]);
    run.process.signal(Signal::TERM);
    run.process.finish_with_stdin_open(LIMIT).assert_code(143);
    let mut gateway = sandbox.linked_gateway(&["record", "panic text"]);
    let place = sandbox.json(["sql", "SELECT place FROM shutdowns WHERE what = 'panic'"]).1;
    let place = place[0]["place"].as_str().unwrap().to_owned();
    assert!(place.contains(&format!("{FILE}:")), "{place}");
    last_order(&mut gateway, "abort");
    let gateway = killed(sandbox.linked_gateway(&[]));
    let current = sandbox.hold(&[]);

    let history = sandbox.history();
    let text = sandbox.cli(["history"]).assert_code(0).out;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    let started = |nth: usize| history[nth]["started_at"].as_str().unwrap().to_owned();
    assert_eq!(lines[0], format!("{}  pid {} holds it", started(0), current.pid()));
    let current_pid = current.pid();
    let expected = [
        (
            1,
            format!("pid {gateway} held it for "),
            format!(
                "it ended without a word: killed, or crashed (found by pid {current_pid}) \
                 [anchor_released]"
            ),
        ),
        (
            2,
            format!("pid {} held it for ", history[2]["pid"]),
            format!(
                "one of its threads panicked (thread \"worker\" panicked: {BOOM} at {place}) \
                 [panicked]"
            ),
        ),
        (
            3,
            format!("pid {} held it for ", history[3]["pid"]),
            format!(
                "SIGTERM from {} ended it [signalled]",
                history[3]["ended_by"].as_str().unwrap_or_default()
            ),
        ),
        (
            4,
            format!("pid {} held it for ", history[4]["pid"]),
            "its command ended by itself, exit code 7 [exited]".to_owned(),
        ),
    ];
    for (nth, who, story) in expected {
        let line = lines[nth];
        let start = format!("{}  {who}", started(nth));
        assert!(line.starts_with(&start), "{line:?}\nshould begin with\n{start:?}");
        assert!(line.ends_with(&format!(" ago: {story}")), "{line:?}\nshould end with\n{story:?}");
    }
    current.end().assert_code(0);
}
