//! What a process sees at the moment in which somebody asks it to end, and who that was.
//!
//! FIELD-BUGS row 82: "who restarts my gateway?" could not be answered. The old diagnostic named
//! the parent, not the sender, and blocked the handler for seconds. It holds because the kernel
//! says who sent a signal, because that is read at once and written beside everything else, and
//! because nothing of it waits for anybody: what cannot be had says why.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io::{PipeReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use incumbent::{
    Claim, ClaimOptions, ExitCodes, Kind, StatusUpdate, StopCause, Store, Supervisor, Tenure,
    forensics,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::stop::PATIENT;
use crate::support::{
    Answer, BINARY, Disk, HOLDING, LIMIT, Process, Run, Sandbox, Stat, another_user, ask,
    assert_within, eventually, exit_code, has, kill, mount_namespace, nobody_with_hidepid, order,
    pid_namespace, plays, role_db, skipped, stopped_writer, tagged, test_name, wait_ended,
    wait_stopped, works,
};

const ROLE_TEST: &str = test_name!(role_of_a_gateway);
const GATEWAY: &str = "gateway";

/// What a snapshot takes at most on a machine that does other things as well; the best of several
/// counts, since a thread that is not scheduled is nobody's fault.
const AT_ONCE: Duration = Duration::from_millis(50);

/// Ways to send a signal that a shell has not.
mod raw {
    #![allow(unsafe_code, reason = "other system calls than kill send signals, too")]

    fn number(pid: u32) -> i32 {
        i32::try_from(pid).unwrap()
    }

    pub fn sigqueue(pid: u32, signal: i32) {
        let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
        // SAFETY: takes numbers; the value is not followed by anybody.
        assert_eq!(unsafe { libc::sigqueue(number(pid), signal, value) }, 0);
    }

    /// To the main thread.
    pub fn tgkill(pid: u32, signal: i32) {
        let pid = number(pid);
        // SAFETY: takes numbers.
        assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, signal) }, 0);
    }

    /// How many bytes a pipe takes before its writer waits.
    pub fn capacity(pipe: &std::io::PipeWriter) -> usize {
        use std::os::fd::AsRawFd;
        // SAFETY: takes numbers.
        usize::try_from(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) }).unwrap()
    }

    pub fn raise(signal: i32) {
        // SAFETY: takes numbers; to the process, not to this thread.
        assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
    }
}

/// Obeys one order a line, answers with `=> ...`, and reports each signal with `!! JSON`.
#[test]
fn role_of_a_gateway() {
    if !plays(GATEWAY) {
        return;
    }
    let logged = Log::default();
    tracing::subscriber::set_global_default(logged.clone()).unwrap();
    let mut gateway = Gateway {
        store: Store::open(role_db()).unwrap(),
        tenures: BTreeMap::new(),
        watches: BTreeMap::new(),
        logged,
        raised: Arc::default(),
    };
    eprintln!("=> open");
    while let Some(order) = order() {
        if let Some(answer) = gateway.obey(&order) {
            eprintln!("=> {answer}");
        }
    }
}

struct Gateway {
    store: Store,
    tenures: BTreeMap<String, Tenure>,
    watches: BTreeMap<String, forensics::ShutdownWatch>,
    logged: Log,
    /// When this process sent itself a signal.
    raised: Arc<Mutex<Option<Instant>>>,
}

impl Gateway {
    fn obey(&mut self, order: &str) -> Option<String> {
        let words: Vec<&str> = order.split(' ').collect();
        Some(match words.as_slice() {
            ["claim", profile, kind] => {
                let options = ClaimOptions::new().kind(Kind::new(*kind).unwrap());
                match self.store.profile(profile).unwrap().claim_with(&options).unwrap() {
                    Claim::Granted(tenure) => {
                        let answer = tenure.instance().to_string();
                        self.tenures.insert((*profile).to_owned(), tenure);
                        answer
                    }
                    Claim::Held(holder) => format!("held: {}", holder.reason),
                }
            }
            ["listen", profile, supervisor] => {
                let codes = ExitCodes::of(supervisor.parse::<Supervisor>().unwrap());
                let (name, logged) = ((*profile).to_owned(), self.logged.clone());
                let raised = Arc::clone(&self.raised);
                let tell = move |shutdown: forensics::Shutdown| {
                    let took = raised.lock().unwrap().map(|at| at.elapsed());
                    let (stop, by) = match &shutdown.stop.cause {
                        StopCause::TakenOver(marker) => ("taken_over", marker.by_pid),
                        StopCause::PlannedStop(marker) => ("planned_stop", marker.by_pid),
                        StopCause::Unplanned => ("unplanned", None),
                        _ => ("unknown", None),
                    };
                    let report = json!({
                        "profile": name,
                        "snapshot": shutdown.snapshot.to_json(),
                        "line": shutdown.snapshot.to_log_line(),
                        "logged": logged.take(),
                        "cause": shutdown.cause.as_str(),
                        "exit_code": shutdown.exit_code,
                        "stop": stop,
                        "stop_by": by,
                        "took_us": took.map(|took| took.as_micros()),
                    });
                    eprintln!("!! {report}");
                };
                let watch = self.tenures[*profile].on_shutdown(codes, tell).unwrap();
                self.watches.insert((*profile).to_owned(), watch);
                "listening".to_owned()
            }
            ["listen-once", profile] => self.listen_once(profile),
            ["listen-without-descriptors", profile] => self.listen_without_descriptors(profile),
            ["record", profile] => {
                self.tenures[*profile].record_panics();
                "recording".to_owned()
            }
            ["panic"] => {
                let before = Instant::now();
                assert!(std::thread::spawn(|| panic!("worn out")).join().is_err());
                before.elapsed().as_micros().to_string()
            }
            ["look", profile] => self.look(profile),
            ["unlisten", profile] => {
                drop(self.watches.remove(*profile).unwrap());
                "unlistened".to_owned()
            }
            ["raise", signal] => {
                let signal = signal.parse().unwrap();
                *self.raised.lock().unwrap() = Some(Instant::now());
                raw::raise(signal);
                // The report answers.
                return None;
            }
            ["snapshot", profile] => {
                let before = Instant::now();
                let snapshot = self.tenures[*profile].snapshot(Some(15));
                let took_us = before.elapsed().as_micros();
                json!({"snapshot": snapshot.to_json(), "took_us": took_us}).to_string()
            }
            ["snapshot"] => {
                let before = Instant::now();
                let snapshot = forensics::snapshot(None);
                let took_us = before.elapsed().as_micros();
                json!({"snapshot": snapshot.to_json(), "took_us": took_us}).to_string()
            }
            ["change", profile] => {
                let update = StatusUpdate::new().state("draining");
                self.tenures[*profile].update_status(&update).map(drop).unwrap();
                "changed".to_owned()
            }
            ["handle", "TERM"] => {
                let flag = Arc::new(AtomicBool::new(false));
                signal_hook::flag::register(libc::SIGTERM, Arc::clone(&flag)).unwrap();
                std::thread::spawn(move || {
                    let seen = || flag.load(Ordering::SeqCst).then_some(());
                    eventually("the gateway's own handler is called", LIMIT, seen);
                    eprintln!("?? handled");
                });
                "handling".to_owned()
            }
            ["release", profile] => {
                format!("{:?}", self.tenures.remove(*profile).unwrap().release().unwrap())
            }
            ["exit", code] => std::process::exit(code.parse().unwrap()),
            _ => panic!("{order}"),
        })
    }

    /// Listens for one signal.
    fn listen_once(&self, profile: &str) -> String {
        let own: Arc<Mutex<Option<forensics::ShutdownWatch>>> = Arc::default();
        let held = Arc::clone(&own);
        let tell = move |_| {
            drop(held.lock().unwrap().take());
            eprintln!("?? dropped");
        };
        let codes = ExitCodes::of(Supervisor::None);
        let mut own = own.lock().unwrap();
        *own = Some(self.tenures[profile].on_shutdown(codes, tell).unwrap());
        "listening".to_owned()
    }

    /// Tries to catch signals, as a process does that has all the files open that it may.
    fn listen_without_descriptors(&self, profile: &str) -> String {
        let limits = getrlimit(Resource::Nofile);
        let none = Rlimit { current: Some(0), maximum: limits.maximum };
        setrlimit(Resource::Nofile, none).unwrap();
        let codes = ExitCodes::of(Supervisor::None);
        let listening = self.tenures[profile].on_shutdown(codes, |_| ());
        setrlimit(Resource::Nofile, limits).unwrap();
        match listening {
            Ok(_) => "listening".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    /// How many microseconds 20 questions take together.
    fn look(&self, profile: &str) -> String {
        let office = self.store.profile(profile).unwrap();
        let before = Instant::now();
        for _ in 0..10 {
            office.status().map(drop).unwrap();
            self.tenures[profile].verify().map(drop).unwrap();
        }
        before.elapsed().as_micros().to_string()
    }
}

/// What the library logs of signals.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Message<'a>(&'a mut String);

impl tracing::field::Visit for Message<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}");
        }
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "incumbent::shutdown"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = String::new();
        event.record(&mut Message(&mut message));
        self.0.lock().unwrap().push(format!("{} {message}", event.metadata().level()));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The report of the next signal.
#[track_caller]
fn next_report(gateway: &mut Process) -> Value {
    let line = gateway.err_line_with("!! ");
    let text = line.split_once("!! ").unwrap().1;
    let report: Value = serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"));
    assert_sorted(&report["snapshot"]);
    assert_log_line(report["line"].as_str().unwrap());
    assert_eq!(report["logged"], json!([format!("INFO {}", report["line"].as_str().unwrap())]));
    report
}

/// The report of a signal that it sends itself.
#[track_caller]
fn raise(gateway: &mut Process, signal: i32) -> Value {
    gateway.say(&format!("raise {signal}"));
    next_report(gateway)
}

fn micros(document: &Value) -> Duration {
    Duration::from_micros(document["took_us"].as_u64().unwrap())
}

/// A shell of its own that sends the signals that it is told to, and stays.
struct Deployer(Process);

impl Deployer {
    #[track_caller]
    fn send(&mut self, signal: &str, pid: u32) {
        self.0.say(&format!("{signal} {pid}"));
        assert_eq!(self.0.line(), "sent");
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }
}

const SEND: &str = "while read -r name pid; do kill -$name $pid && echo sent; done";

impl Sandbox {
    fn deployer(&self) -> Deployer {
        self.deployer_with(&[])
    }

    fn deployer_with(&self, arguments: &[&str]) -> Deployer {
        std::fs::write(self.file("deploy.sh"), SEND).unwrap();
        let mut command = self.program("/bin/sh");
        command.arg("deploy.sh").args(arguments);
        Deployer(Process::start(command))
    }

    /// A library gateway that holds the default office and listens.
    #[track_caller]
    fn listening_gateway(&self) -> Process {
        listening(Process::start(self.role_command(ROLE_TEST, GATEWAY)))
    }

    /// The newest row of `shutdowns`.
    #[track_caller]
    fn newest_shutdown(&self) -> Value {
        let query = "SELECT * FROM shutdowns ORDER BY id DESC LIMIT 1";
        let (code, mut rows) = self.json(["sql", query]);
        assert_eq!(code, 0, "{rows:#}");
        let mut row = rows.get_mut(0).expect("a row").take();
        if let Some(text) = row["snapshot"].as_str() {
            row["snapshot"] = serde_json::from_str(text).unwrap();
            assert_sorted(&row["snapshot"]);
        }
        row
    }

    /// `history` as people read it.
    fn as_people_read_it(&self) -> String {
        self.cli(["history"]).assert_code(0).out
    }

    /// The newest event of that name.
    #[track_caller]
    fn newest_event_called(&self, name: &str) -> Value {
        let (code, events) = self.json(["events"]);
        assert_eq!(code, 0, "{events:#}");
        let found = events.as_array().unwrap().iter().rev().find(|event| event["event"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {events:#}")).clone()
    }

    fn shutdown_rows(&self) -> i64 {
        self.number("SELECT count(*) FROM shutdowns")
    }

    /// `forensics snapshot --json`, behind `words`.
    fn forensic_snapshot_behind(&self, words: &[&str], binary: &Path, options: &[&str]) -> Value {
        let verb = [&["--json", "forensics", "snapshot"], options].concat();
        snapshot_of(Process::start(self.under(words, binary, &verb)).finish(LIMIT))
    }

    /// The same in an environment as it is.
    fn forensic_snapshot(&self, options: &[&str]) -> Value {
        let verb = [&["--json", "forensics", "snapshot"], options].concat();
        snapshot_of(self.cli(verb))
    }
}

#[track_caller]
fn snapshot_of(answer: Answer) -> Value {
    let answer = answer.assert_code(0);
    assert_eq!(answer.err, "", "{answer:#?}");
    let snapshot = answer.json();
    assert_complete(&snapshot);
    snapshot
}

#[track_caller]
fn listening(mut gateway: Process) -> Process {
    gateway.err_line_with("=> open");
    let instance = ask(&mut gateway, "claim default gateway");
    assert!(instance.parse::<i64>().is_ok(), "{instance}");
    assert_eq!(ask(&mut gateway, "listen default none"), "listening");
    gateway
}

/// Why a field is not there.
#[track_caller]
fn why(field: &Value) -> &str {
    let reason = field["unavailable"].as_str();
    assert_eq!(field.as_object().map(serde_json::Map::len), Some(1), "{field:#}");
    reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| panic!("no reason: {field:#}"))
}

const FIELDS: [&str; 24] = [
    "boot_id",
    "cgroup",
    "limits",
    "loadavg_1m",
    "memory",
    "parent",
    "pid",
    "planned_stop_marker",
    "ppid",
    "recorded",
    "self",
    "sender",
    "signal",
    "signal_num",
    "systemd_invocation_id",
    "systemd_journal_stream",
    "takeover_marker",
    "takeover_marker_for_self",
    "tracer",
    "tracer_pid",
    "ts",
    "ts_monotonic",
    "under_systemd",
    "unit",
];

const OF_A_PROCESS: [&str; 6] = ["cmdline", "name", "pid", "ppid", "state", "uid"];

/// Whether all fields are there, sorted.
#[track_caller]
fn assert_complete(snapshot: &Value) {
    assert_sorted(snapshot);
    let names: Vec<&String> = snapshot.as_object().unwrap().keys().collect();
    assert_eq!(names, FIELDS, "{snapshot:#}");
    let names: Vec<&String> = snapshot["self"].as_object().unwrap().keys().collect();
    assert_eq!(names, OF_A_PROCESS, "{snapshot:#}");
}

#[track_caller]
fn assert_sorted(value: &Value) {
    match value {
        Value::Object(fields) => {
            let names: Vec<&String> = fields.keys().collect();
            assert!(names.is_sorted(), "not sorted: {names:?}");
            fields.values().for_each(assert_sorted);
        }
        Value::Array(elements) => elements.iter().for_each(assert_sorted),
        _ => {}
    }
}

const KEYS: [&str; 15] = [
    "signal",
    "under_systemd",
    "parent_pid",
    "parent_name",
    "loadavg_1m",
    "takeover_marker_present",
    "planned_stop_marker_present",
    "tracer_pid",
    "parent_cmdline",
    "sender_pid",
    "sender_uid",
    "sender_cmdline",
    "sender",
    "unit",
    "recorded",
];

/// The keys and values of a log line: plain words, or quoted ones.
fn parse(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').unwrap_or_else(|| panic!("{rest:?} of {line:?}"));
        let quoted = after.strip_prefix('"').map(|text| {
            let mut is_escaped = false;
            let end = text.find(|character| {
                let is_end = character == '"' && !is_escaped;
                is_escaped = character == '\\' && !is_escaped;
                is_end
            });
            text.split_at(end.unwrap_or_else(|| panic!("no end of {text:?} in {line:?}")))
        });
        let (value, after) = match quoted {
            Some((value, after)) => (value, &after[1..]),
            None => after.split_at(after.find(' ').unwrap_or(after.len())),
        };
        pairs.push((key.to_owned(), value.to_owned()));
        let is_separated = after.is_empty() || after.starts_with(' ');
        assert!(is_separated, "{after:?} follows {key} in {line:?}");
        rest = after.get(1..).unwrap_or_default();
    }
    pairs
}

/// Whether a character acts on the terminal, or ends a line.
fn acts(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}')
}

/// Whether it is one line, in the seed's order; its values.
#[track_caller]
fn assert_log_line(line: &str) -> BTreeMap<String, String> {
    assert!(!line.contains(acts), "not one harmless line: {line:?}");
    let pairs = parse(line);
    let places: Vec<usize> = pairs
        .iter()
        .map(|(key, _)| KEYS.iter().position(|it| it == key).unwrap_or_else(|| panic!("{line}")))
        .collect();
    assert!(places.is_sorted_by(|one, next| one < next), "the order of {line}");
    let always = ["signal", "under_systemd", "parent_pid", "loadavg_1m"];
    for key in always {
        assert!(pairs.iter().any(|pair| pair.0 == key), "no {key} in {line}");
    }
    pairs.into_iter().collect()
}

/// What `run` said of a signal, as the only thing that it said.
#[track_caller]
fn said_by_run(answer: &Answer) -> BTreeMap<String, String> {
    let text = answer.err.strip_suffix('\n').unwrap_or(&answer.err);
    let line = text.strip_prefix("incumbent: run: default/gateway: ");
    assert_log_line(line.unwrap_or_else(|| panic!("something else was said: {answer:#?}")))
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

#[track_caller]
fn assert_state(state: &Value) {
    let text = state.as_str().unwrap_or_else(|| panic!("{state:#}"));
    let (letter, word) = text.split_once(" (").unwrap_or_else(|| panic!("{text:?}"));
    assert!(letter.len() == 1 && word.ends_with(')') && word.len() > 2, "{text:?}");
}

/// The seed's fields under the seed's names, against what can be seen from outside.
#[test]
fn a_snapshot_says_what_is_so() {
    let sandbox = Sandbox::new();
    std::fs::write(
        sandbox.file("parent.sh"),
        "incumbent --json forensics snapshot --signal 15; incumbent forensics snapshot
         echo; sed -n 1p > /dev/null; exit 0",
    )
    .unwrap();
    let load = || {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let uptime = || {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let mut attempts = 0;
    let (parent, document, line) = loop {
        let (load_before, uptime_before, before) = (load(), uptime(), now());
        let mut command = sandbox.program("/bin/sh");
        command.args(["parent.sh", "one", "two words"]);
        let mut parent = Process::start(command);
        let mut text = String::new();
        while !text.ends_with("\n}\n") {
            text += &(parent.line() + "\n");
        }
        let (line, pid) = (parent.line(), parent.pid());
        let document: Value = serde_json::from_str(&text).unwrap();
        let (ts, ts_monotonic) = (&document["ts"], &document["ts_monotonic"]);
        let ts = ts.as_f64().unwrap();
        assert!(before - 0.002 <= ts && ts <= now(), "{before} {ts}");
        let ts_monotonic = ts_monotonic.as_f64().unwrap();
        let is_between = uptime_before - 0.02 <= ts_monotonic && ts_monotonic <= uptime() + 0.02;
        assert!(is_between, "{uptime_before} {ts_monotonic}");
        parent.finish(LIMIT).assert_code(0);
        let seen = document["loadavg_1m"].as_f64().unwrap();
        attempts += 1;
        // It may have changed twice in between.
        if [load_before, load()].iter().any(|load| (load - seen).abs() < 0.001) || attempts > 5 {
            assert!(attempts <= 5, "the load average is {seen}");
            break (pid, document, line);
        }
    };
    assert_complete(&document);
    let own = std::process::id();
    let pid = document["pid"].as_u64().unwrap();
    assert_eq!(document["ppid"], parent, "{document:#}");
    let is_about_parent = json!({
        "cmdline": "/bin/sh parent.sh one \"two words\"",
        "name": "sh",
        "pid": parent,
        "ppid": own,
        "state": document["parent"]["state"],
        "uid": own_uid(),
    });
    assert_eq!(document["parent"], is_about_parent, "{document:#}");
    assert_state(&document["parent"]["state"]);
    let is_about_itself = json!({
        "cmdline": "incumbent --json forensics snapshot --signal 15",
        "name": "incumbent",
        "pid": pid,
        "ppid": parent,
        "state": "R (running)",
        "uid": own_uid(),
    });
    assert_eq!(document["self"], is_about_itself, "{document:#}");
    assert_eq!(document["signal"], "SIGTERM");
    assert_eq!(document["signal_num"], 15);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(document["boot_id"], boot_id.trim());
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let group = document["cgroup"].as_str().unwrap();
    assert!(groups.lines().any(|line| line.ends_with(&format!(":{group}"))), "{group}: {groups}");
    assert!(why(&document["sender"]).contains("not caught by incumbent"), "{document:#}");
    for field in ["recorded", "takeover_marker", "takeover_marker_for_self", "planned_stop_marker"]
    {
        assert_eq!(why(&document[field]), "there is no store", "{field}");
    }
    if !is_traced() {
        assert_eq!((&document["tracer"], &document["tracer_pid"]), (&Value::Null, &Value::Null));
    }
    // Without a signal.
    let said = assert_log_line(&line);
    assert_eq!(said["signal"], "UNKNOWN");
    assert_eq!(said["parent_pid"], parent.to_string());
    assert_eq!(said["parent_name"], "sh");
    assert!(said["loadavg_1m"].parse::<f64>().is_ok(), "{said:?}");
    assert_eq!(said["parent_cmdline"], "/bin/sh parent.sh one \\\"two words\\\"");
    assert_eq!(said["recorded"], "unavailable: there is no store");
    assert!(!sandbox.file("store").exists());
    let document = sandbox.forensic_snapshot(&[]);
    assert_eq!((&document["signal"], &document["signal_num"]), (&json!("UNKNOWN"), &Value::Null));
}

fn is_traced() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    !status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|it| it.trim() == "0"))
}

/// A signal is named in any of the usual ways, and nothing else is taken for one.
#[test]
fn a_signal_is_named_by_number_or_name() {
    let sandbox = Sandbox::new();
    for (word, name, number) in [
        ("15", "SIGTERM", 15),
        ("TERM", "SIGTERM", 15),
        ("SIGTERM", "SIGTERM", 15),
        ("term", "SIGTERM", 15),
        ("SigHup", "SIGHUP", 1),
        ("2", "SIGINT", 2),
        ("64", "signal#64", 64),
        ("99", "signal#99", 99),
    ] {
        let snapshot = sandbox.forensic_snapshot(&["--signal", word]);
        assert_eq!(snapshot["signal"], name, "{word}");
        assert_eq!(snapshot["signal_num"], number, "{word}");
    }
    for word in ["0", "128", "99999999999", "x", "", " ", "-1", "15.0", "SIG", "SIGSIGTERM", "1e1"]
    {
        let option = format!("--signal={word}");
        let answer = sandbox.cli(["forensics", "snapshot", &option]).assert_code(2);
        assert_eq!(answer.out, "");
        answer.assert_complains(&["--signal", "15, TERM or SIGTERM"]);
    }
    assert!(!sandbox.file("store").exists());
}

/// A gateway that dies of EMFILE or of its memory says what it might use.
#[test]
fn limits_and_memory_are_numbers() {
    let sandbox = Sandbox::new();
    let script = "ulimit -Sn 64 && ulimit -Sc 0 && exec incumbent --json forensics snapshot";
    let snapshot = snapshot_of(Process::start(sandbox.shell(script)).finish(LIMIT));
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let outside = |name: &str| -> (Value, Value) {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let words: Vec<&str> = line[name.len()..].split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().map_or_else(|_| json!(word), Value::from);
        (number(words[0]), number(words[1]))
    };
    for (key, name, soft) in [
        ("address_space_bytes", "Max address space", None),
        ("core_bytes", "Max core file size", Some(0)),
        ("locked_memory_bytes", "Max locked memory", None),
        ("open_files", "Max open files", Some(64)),
        ("processes", "Max processes", None),
    ] {
        let (inherited, hard) = outside(name);
        let soft = soft.map_or(inherited, |soft| json!(soft));
        assert_eq!(snapshot["limits"][key], json!({"hard": hard, "soft": soft}), "{key}");
    }
    let unlimited = |value: &Value| value == "unlimited" || value.is_u64();
    let memory = &snapshot["memory"];
    let (rss, peak) = (memory["rss_bytes"].as_u64(), memory["peak_rss_bytes"].as_u64());
    assert!(rss.is_some_and(|rss| rss > 100_000) && peak >= rss, "{memory:#}");
    assert!(memory["swap_bytes"].is_u64(), "{memory:#}");
    let names: Vec<&String> = memory.as_object().unwrap().keys().collect();
    let expected = [
        "cgroup_bytes",
        "cgroup_limit_bytes",
        "oom_kills",
        "peak_rss_bytes",
        "rss_bytes",
        "swap_bytes",
    ];
    assert_eq!(names, expected);
    for name in ["cgroup_bytes", "cgroup_limit_bytes", "oom_kills"] {
        let value = &memory[name];
        assert!(unlimited(value) || !why(value).is_empty(), "{name}: {memory:#}");
    }
    assert!(memory["cgroup_bytes"] != "unlimited" && memory["oom_kills"] != "unlimited");
}

/// What would break a line, a quote, an encoding or a terminal; and a part of it that is to be
/// seen all the same.
const NASTY: [(&[u8], &str); 9] = [
    (b"two\nlines\r\n", "lines"),
    (b"a \"quoted\" 'word' \\ back\\slash", "back"),
    (b"\" sender_pid=1 signal=SIGKILL", "sender_pid=1"),
    (b"\x1b[31mred\x07\x08\t\x01\x7f", "[31mred"),
    (b"\xff\xfe not \xc3 UTF-8 \xe2\x80", "\u{fffd}"),
    ("\u{202e}right to left\u{2028}\u{2029}\u{85}".as_bytes(), "right to left"),
    ("gr\u{fc}n \u{1f980} a\u{301}".as_bytes(), "\u{1f980}"),
    (b"{\"unavailable\": 1}", "unavailable"),
    (b"\r", "\\r"),
];

/// A copy of the shell under a name of its own. Another process makes it, see
/// [`Sandbox::copy_program`].
fn copy_shell(sandbox: &Sandbox, name: &[u8]) -> PathBuf {
    let copy = sandbox.path().join(OsStr::from_bytes(name));
    let copied = Command::new("cp").arg("-L").arg("/bin/sh").arg(&copy).status().unwrap();
    assert!(copied.success());
    copy
}

/// The names of programs, as hostile as a name can be (15 bytes are kept of it).
const NASTY_NAMES: [&[u8]; 4] = [
    b"a\nb \"c\" 'd'=e",
    b"\xff\xfe)R 1 (\\",
    "\u{202e}\u{2028}\u{fc}".as_bytes(),
    b"Name:\tx\\n\x1b[m",
];

/// Each name with some of the arguments: a command line is cut at 300 characters.
fn nasty_cases() -> impl Iterator<Item = (&'static [u8], Vec<&'static OsStr>, Vec<&'static str>)> {
    NASTY_NAMES.into_iter().zip(NASTY.chunks(3).cycle()).map(|(name, chosen)| {
        let arguments = chosen.iter().map(|(bytes, _)| OsStr::from_bytes(bytes)).collect();
        (name, arguments, chosen.iter().map(|(_, part)| *part).collect())
    })
}

#[test]
fn a_parent_of_any_name_and_arguments_makes_one_line_and_valid_json() {
    for (name, arguments, parts) in nasty_cases() {
        let sandbox = Sandbox::new();
        let shell = copy_shell(&sandbox, name);
        let start = |json: &str| {
            let script = format!("incumbent {json} forensics snapshot --signal 15; exit $?");
            let mut command = sandbox.program(&shell);
            command.args(["-c", &script]).args(&arguments);
            Process::start(command).finish(LIMIT).assert_code(0)
        };
        let text = start("");
        assert_eq!(text.out.matches('\n').count(), 1, "{text:#?}");
        let said = assert_log_line(text.out.trim_end_matches('\n'));
        assert!(said["sender"].starts_with("unavailable: "), "{said:?}");
        assert!(!said.contains_key("sender_pid"), "{said:?}");
        assert_eq!(said["signal"], "SIGTERM", "{said:?}");
        let snapshot = snapshot_of(start("--json"));
        let seen = snapshot["parent"]["cmdline"].as_str().unwrap();
        for part in parts {
            assert!(seen.contains(part), "{part:?} in {seen}");
        }
        assert!(snapshot["parent"]["name"].is_string(), "{snapshot:#}");
    }
}

#[test]
fn a_sender_of_any_name_and_arguments_makes_one_line_and_valid_json() {
    for (name, arguments, parts) in nasty_cases() {
        let sandbox = Sandbox::new();
        let shell = copy_shell(&sandbox, name);
        let run = sandbox.hold(&[]);
        let mut command = sandbox.program(&shell);
        command.args(["-c", SEND]).args(&arguments);
        let mut sender = Deployer(Process::start(command));
        sender.send("TERM", run.pid());
        let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(143);
        let said = said_by_run(&answer);
        assert_eq!(said["sender_pid"], sender.pid().to_string(), "{said:?}");
        assert_eq!(said["signal"], "SIGTERM", "{said:?}");
        let row = sandbox.newest_shutdown();
        assert_eq!(row["sender_pid"], sender.pid(), "{row:#}");
        let seen = row["snapshot"]["sender"]["cmdline"].as_str().unwrap();
        for part in parts {
            assert!(seen.contains(part), "{part:?} in {seen}");
        }
        let told = sandbox.as_people_read_it();
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(&format!("pid {} (", sender.pid())), "{told}");
        assert!(!told.trim_end_matches('\n').contains(acts), "{told:?}");
        let end = &sandbox.history()[0];
        let by = end["ended_by"].as_str().unwrap();
        assert!(by.starts_with(&format!("pid {} (", sender.pid())), "{end:#}");
        sandbox.newest_event_called("signal_received");
    }
}

/// Command lines of megabytes are cut at 300 characters, not bytes, and never within one.
#[test]
fn a_long_command_line_is_cut() {
    let sandbox = Sandbox::new();
    let umlauts = "\u{fc}".repeat(40_000);
    let words: Vec<String> = (0..60).map(|number| format!("word{number}\u{1f980}")).collect();
    for arguments in [vec![umlauts], words] {
        let mut command = sandbox.shell("incumbent --json forensics snapshot; exit $?");
        command.args(&arguments);
        let snapshot = snapshot_of(Process::start(command).finish(LIMIT));
        let seen = snapshot["parent"]["cmdline"].as_str().unwrap();
        let length = seen.chars().count();
        // One argument of its own is cut before.
        assert!(length == 300 || (arguments.len() == 1 && length < 300), "{length}: {seen}");
        assert!(seen.starts_with("/bin/sh -c "), "{seen}");
        assert!(!seen.contains('\u{fffd}'), "cut within a character: {seen}");
    }
}

#[track_caller]
fn assert_sender(sender: &Value, pid: u32, how: &str) {
    let expected = json!({
        "cmdline": "/bin/sh deploy.sh",
        "how": how,
        "name": "sh",
        "pid": pid,
        "ppid": std::process::id(),
        "state": sender["state"],
        "uid": own_uid(),
    });
    assert_eq!(*sender, expected);
    assert_state(&sender["state"]);
}

/// FIELD-BUGS row 82, R:SIG. A gateway that does not link the library, under `run`.
#[test]
fn who_signals_a_run_is_named_everywhere() {
    let sandbox = Sandbox::new();
    for (signal, number) in [("TERM", 15), ("INT", 2)] {
        let run = sandbox.hold(&[]);
        let pid = run.pid();
        let mut deployer = sandbox.deployer();
        deployer.send(signal, pid);
        let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(128 + number);
        let sender = deployer.pid();
        let in_words = format!("pid {sender} (/bin/sh deploy.sh), uid {}", own_uid());

        let said = said_by_run(&answer);
        assert_eq!(said["signal"], format!("SIG{signal}"));
        assert_eq!(said["sender_pid"], sender.to_string());
        assert_eq!(said["sender_uid"], own_uid().to_string());
        assert_eq!(said["sender_cmdline"], "/bin/sh deploy.sh");
        assert_eq!(said["parent_pid"], std::process::id().to_string());
        for absent in
            ["recorded", "takeover_marker_present", "planned_stop_marker_present", "sender"]
        {
            assert!(!said.contains_key(absent), "{said:?}");
        }

        let row = sandbox.newest_shutdown();
        for (column, expected) in [
            ("pid", json!(pid)),
            ("what", json!("signal")),
            ("profile", json!("default")),
            ("kind", json!("gateway")),
            ("signal", json!(number)),
            ("signal_name", json!(format!("SIG{signal}"))),
            ("sender_pid", json!(sender)),
            ("sender_uid", json!(own_uid())),
            ("sender", json!(in_words)),
            ("cause", json!("signalled")),
            ("message", Value::Null),
        ] {
            assert_eq!(row[column], expected, "{column}: {row:#}");
        }
        assert_sender(&row["snapshot"]["sender"], sender, "kill");
        assert_eq!(row["snapshot"]["pid"], pid);
        assert_eq!(row["snapshot"]["signal_num"], number);
        assert!(row["snapshot"].get("recorded").is_none(), "{row:#}");
        for marker in ["takeover_marker", "takeover_marker_for_self", "planned_stop_marker"] {
            assert_eq!(row["snapshot"][marker], Value::Null, "{row:#}");
        }

        let end = &sandbox.history()[0];
        assert_eq!(end["instance"], row["instance_id"], "{end:#}");
        assert_eq!(end["end_reason"], "signalled", "{end:#}");
        assert_eq!(end["ended_by"], in_words, "{end:#}");
        assert_eq!(end["signal"], number, "{end:#}");
        let told = sandbox.as_people_read_it();
        let told = told.lines().next().unwrap();
        assert!(told.contains(&format!("SIG{signal} from {in_words} ended it")), "{told}");

        let event = sandbox.newest_event_called("signal_received");
        assert_eq!(event["instance"], row["instance_id"], "{event:#}");
        assert_eq!(event["pid"], pid, "{event:#}");
        assert_eq!(event["detail"]["sender"], in_words, "{event:#}");
        assert_eq!(event["detail"]["signal"], format!("SIG{signal}"), "{event:#}");
        assert_eq!(event["detail"]["shutdown"], row["id"], "{event:#}");
    }
    assert_eq!(sandbox.shutdown_rows(), 2);
}

/// The same for a gateway that links the library: each signal by its name, by whatever call.
#[test]
fn who_signals_a_linked_gateway_is_named_everywhere() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let pid = gateway.pid();
    let mut deployer = sandbox.deployer();
    let sender = deployer.pid();
    for (signal, number) in [("HUP", 1), ("INT", 2), ("TERM", 15)] {
        deployer.send(signal, pid);
        let report = next_report(&mut gateway);
        let snapshot = &report["snapshot"];
        assert_complete(snapshot);
        assert_sender(&snapshot["sender"], sender, "kill");
        assert_eq!(snapshot["signal"], format!("SIG{signal}"));
        assert_eq!(snapshot["signal_num"], number);
        assert_eq!(snapshot["pid"], pid);
        assert_eq!(snapshot["parent"]["pid"], std::process::id());
        for marker in ["takeover_marker", "takeover_marker_for_self", "planned_stop_marker"] {
            assert_eq!(snapshot[marker], Value::Null, "{snapshot:#}");
        }
        assert_eq!(report["cause"], "signalled", "{report:#}");
        assert_eq!(report["exit_code"], 128 + number, "{report:#}");
        assert_eq!(report["stop"], "unplanned", "{report:#}");
        let said = assert_log_line(report["line"].as_str().unwrap());
        assert_eq!(said["sender_pid"], sender.to_string());
        assert_eq!(said["sender_cmdline"], "/bin/sh deploy.sh");
        let row = sandbox.newest_shutdown();
        assert_eq!(row["id"], snapshot["recorded"], "{row:#}");
        let mut stored = snapshot.clone();
        stored.as_object_mut().unwrap().remove("recorded");
        assert_eq!(row["snapshot"], stored);
        assert_eq!(row["may_be_reload"], i32::from(signal == "HUP"), "{row:#}");
    }
    // By other calls, from this process.
    raw::sigqueue(pid, libc::SIGTERM);
    let queued = next_report(&mut gateway)["snapshot"]["sender"].clone();
    raw::tgkill(pid, libc::SIGTERM);
    let to_thread = next_report(&mut gateway)["snapshot"]["sender"].clone();
    for (sender, how) in [(queued, "sigqueue"), (to_thread, "tgkill")] {
        assert_eq!(sender["how"], how, "{sender:#}");
        assert_eq!(sender["pid"], std::process::id(), "{sender:#}");
        // A test of this program is its parent: that is who started it.
        assert_eq!(sender["uid"], own_uid(), "{sender:#}");
    }
    // From itself.
    let report = raise(&mut gateway, libc::SIGTERM);
    assert_eq!(report["snapshot"]["sender"]["pid"], pid, "{report:#}");
    assert_eq!(report["cause"], "signalled", "{report:#}");
    // The last word counts.
    deployer.send("TERM", pid);
    next_report(&mut gateway);
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    gateway.say("exit 143");
    gateway.finish(LIMIT).assert_code(143);
    let end = &sandbox.history()[0];
    let in_words = format!("pid {sender} (/bin/sh deploy.sh), uid {}", own_uid());
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    assert_eq!(end["ended_by"], in_words, "{end:#}");
    assert_eq!(end["signal"], 15, "{end:#}");
    assert!(sandbox.as_people_read_it().contains(&format!("SIGTERM from {in_words} ended it")));
}

/// What a signal means follows from who sent it: the parent of the gateway is its supervisor, and
/// anybody else is not. The exit code follows from that and from what the supervisor makes of it.
#[test]
fn a_supervisors_own_signal_is_told_from_a_strangers() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let mut deployer = sandbox.deployer();
    for (supervisor, by_parent, by_stranger) in
        [("systemd", 0, 143), ("s6", 0, 143), ("docker", 143, 143), ("none", 143, 143)]
    {
        assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
        assert_eq!(ask(&mut gateway, &format!("listen default {supervisor}")), "listening");
        // This process is its parent.
        gateway.signal(Signal::TERM);
        let from_parent = next_report(&mut gateway);
        assert_eq!(from_parent["cause"], "supervisor_stop", "{from_parent:#}");
        assert_eq!(from_parent["exit_code"], by_parent, "{supervisor}: {from_parent:#}");
        deployer.send("TERM", gateway.pid());
        let from_stranger = next_report(&mut gateway);
        assert_eq!(from_stranger["cause"], "signalled", "{from_stranger:#}");
        assert_eq!(from_stranger["exit_code"], by_stranger, "{supervisor}: {from_stranger:#}");
    }
}

/// Whoever only sends a signal has often ended by the time anybody can look: its pid and uid came
/// with the signal, and the rest says why it is not there.
#[test]
fn a_sender_that_has_ended_is_known_by_its_pid_and_uid() {
    if !has("kill") {
        return skipped("needs kill(1) as a program");
    }
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    // Stopped: it sees the signal only after its sender has ended.
    gateway.signal(Signal::STOP);
    wait_stopped(gateway.pid());
    let mut command = sandbox.program("kill");
    command.args(["-TERM", &gateway.pid().to_string()]);
    let sender = Process::start(command);
    let pid = sender.pid();
    sender.finish(LIMIT).assert_code(0);
    gateway.signal(Signal::CONT);
    let report = next_report(&mut gateway);
    let seen = &report["snapshot"]["sender"];
    assert_eq!(seen["pid"], pid, "{seen:#}");
    assert_eq!(seen["uid"], own_uid(), "{seen:#}");
    assert_eq!(seen["how"], "kill", "{seen:#}");
    for field in ["cmdline", "name", "state", "ppid"] {
        assert!(why(&seen[field]).contains("has ended"), "{field}: {seen:#}");
    }
    let said = assert_log_line(report["line"].as_str().unwrap());
    assert_eq!(said["sender_pid"], pid.to_string());
    assert!(said["sender_cmdline"].contains("has ended"), "{said:?}");
    assert_eq!(report["cause"], "signalled", "{report:#}");
    let row = sandbox.newest_shutdown();
    assert_eq!((&row["sender_pid"], &row["sender_uid"]), (&json!(pid), &json!(own_uid())));
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    let end = &sandbox.history()[0];
    let by = end["ended_by"].as_str().unwrap();
    assert!(by.starts_with(&format!("pid {pid} (")), "{end:#}");
    assert!(by.ends_with(&format!(", uid {}", own_uid())), "{end:#}");
}

/// The uid is the sender's: who is root here, and who is the gateway itself.
#[test]
fn a_sender_of_another_user_is_named_with_its_uid() {
    let Some(nobody) = another_user() else { return skipped("needs root") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    for (as_whom, uid) in [(&[][..], own_uid()), (nobody, 65534)] {
        let verb = [&["run", "--no-backoff"], HOLDING].concat();
        let run = Run::start(sandbox.under(nobody, &binary, &verb));
        std::fs::write(sandbox.file("deploy.sh"), SEND).unwrap();
        let words = [as_whom, &["/bin/sh", "deploy.sh"]].concat();
        let command = sandbox.within(&words);
        let mut sender = Deployer(Process::start(command));
        sender.send("TERM", run.pid());
        let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(143);
        let said = said_by_run(&answer);
        assert_eq!(said["sender_uid"], uid.to_string());
        assert_eq!(said["sender_pid"], sender.pid().to_string());
        assert_eq!(said["sender_cmdline"], "/bin/sh deploy.sh");
        let row = sandbox.newest_shutdown();
        assert_eq!(row["sender_uid"], uid, "{row:#}");
        assert_eq!(row["snapshot"]["self"]["uid"], 65534, "{row:#}");
        assert_eq!(row["snapshot"]["sender"]["uid"], uid, "{row:#}");
        let by = sandbox.history()[0]["ended_by"].as_str().unwrap().to_owned();
        assert!(by.ends_with(&format!(", uid {uid}")), "{by}");
    }
}

/// R:PIDNS. `docker stop`, seen from within the container: the kernel gives no pid, and that is
/// said.
#[test]
fn a_sender_outside_of_the_pid_namespace_is_not_to_be_seen() {
    const OUTSIDE: &str = "lives outside of this pid namespace";
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let first = |outer: &Process| {
        tagged("IT_SANDBOX", sandbox.path())
            .into_iter()
            .find(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == outer.pid()))
            .expect("PID 1 of the namespace")
    };
    let verb = [&["run", "--no-backoff"], HOLDING].concat();
    let mut outer = Process::start(sandbox.incumbent_under(namespace, &verb));
    outer.line();
    kill(first(&outer), Signal::TERM);
    let answer = outer.finish_with_stdin_open(LIMIT).assert_code(143);
    let said = said_by_run(&answer);
    assert!(said["sender"].contains(OUTSIDE), "{said:?}");
    assert!(said["sender"].starts_with("unavailable: "), "{said:?}");
    assert!(!said.contains_key("sender_pid") && !said.contains_key("sender_uid"), "{said:?}");
    let row = sandbox.newest_shutdown();
    assert_eq!((&row["sender_pid"], &row["sender_uid"]), (&Value::Null, &Value::Null));
    assert!(row["sender"].as_str().unwrap().contains(OUTSIDE), "{row:#}");
    assert!(why(&row["snapshot"]["sender"]).contains(OUTSIDE), "{row:#}");
    // PID 1 of its namespace has no parent there.
    assert_eq!(row["snapshot"]["ppid"], 0, "{row:#}");
    assert!(why(&row["snapshot"]["parent"]).contains("outside of this pid namespace"), "{row:#}");
    let end = &sandbox.history()[0];
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    assert_eq!((&end["signal"], &end["ended_by"]), (&json!(15), &Value::Null), "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains(OUTSIDE), "{end:#}");
    assert!(sandbox.as_people_read_it().contains(OUTSIDE), "{}", sandbox.as_people_read_it());

    // The same with the library; and what a container's engine sends is a supervisor's stop.
    let inner = sandbox.role_command(ROLE_TEST, GATEWAY);
    let mut command = sandbox.within(namespace);
    command.arg(inner.get_program()).args(inner.get_args());
    command.env("IT_ROLE", GATEWAY);
    let mut gateway = listening(Process::start(command));
    kill(first(&gateway), Signal::TERM);
    let report = next_report(&mut gateway);
    assert!(why(&report["snapshot"]["sender"]).contains(OUTSIDE), "{report:#}");
    assert_eq!(report["cause"], "supervisor_stop", "{report:#}");
}

/// A pipe that takes nothing any more. Nobody reads it for as long as its reader is kept.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let bytes = vec![b'.'; raw::capacity(&writer)];
    writer.write_all(&bytes).unwrap();
    (reader, writer.into())
}

/// A log collector that hangs: whoever writes to it hangs as well. `run` told the signal on
/// standard error and waited for a reader, so that the end of its command was never seen, and
/// whoever asked it to end its command was never served. It holds because a thread of its own
/// waits there.
#[test]
fn a_run_whose_standard_error_nobody_reads_ends_all_the_same() {
    let sandbox = Sandbox::new();
    let (_reader, stderr) = full_pipe();
    let script = "trap 'exit 0' TERM; echo $$; while :; do sleep 0.05 > /dev/null 2>&1; done";
    let verb = ["run", "--no-backoff", "--", "/bin/sh", "-c", script];
    let mut run = Process::start_with_stderr(sandbox.incumbent(verb), stderr);
    run.line();
    run.signal(Signal::TERM);
    run.wait(LIMIT);
    let (code, status) = sandbox.status();
    assert_eq!(code, 3, "{status:#}");
    let end = &sandbox.history()[0];
    assert_eq!(
        (&end["end_reason"], &end["exit_code"]),
        (&json!("signalled"), &json!(0)),
        "{end:#}"
    );

    // One that does not end when it is asked to: whoever wants its office gets it after the budget.
    for verb in [&["stop", "--force"][..], &["run", "--no-backoff", "--replace", "--", "true"]] {
        let (_reader, stderr) = full_pipe();
        let command =
            ["run", "--no-backoff", "--stop-budget", "300ms", "--", "/bin/sh", "-c", PATIENT];
        let mut run = Process::start_with_stderr(sandbox.incumbent(command), stderr);
        let command: u32 = run.line().trim().parse().unwrap();
        run.signal(Signal::TERM);
        assert_eq!(run.line(), "TERM");
        sandbox.begin(verb).finish(LIMIT).assert_code(0);
        run.wait(LIMIT);
        assert!(wait_ended(command, LIMIT), "{verb:?}: the command lives");
        let (code, status) = sandbox.status();
        assert_eq!(code, 3, "{verb:?}: {status:#}");
    }
}

/// The same where the end cannot be recorded either: that is told beside as well, and the run ends.
#[test]
fn a_run_that_can_neither_tell_nor_record_its_end_ends() {
    let sandbox = Sandbox::new();
    let (_reader, stderr) = full_pipe();
    let script = "trap 'exit 3' TERM; echo $$; while :; do sleep 0.05 > /dev/null 2>&1; done";
    let verb = ["run", "--no-backoff", "--", "/bin/sh", "-c", script];
    let mut run = Process::start_with_stderr(sandbox.incumbent(verb), stderr);
    run.line();
    let writer = stopped_writer(&sandbox);
    run.signal(Signal::TERM);
    assert_eq!(exit_code(run.wait(LIMIT)), 3);
    drop(writer);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
}

/// Whoever presses Ctrl-C knows who it was: it is on record, and nothing is printed into the
/// terminal. A person is no supervisor: what the kernel sends was taken for a supervisor's stop.
#[test]
fn a_terminals_key_is_recorded_as_the_kernels_and_not_told() {
    if !has("script") {
        return skipped("needs script(1) of util-linux");
    }
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("gateway.sh"), "echo $$; exec cat").unwrap();
    let line = format!("exec '{BINARY}' run --no-backoff -- /bin/sh gateway.sh");
    let mut command = sandbox.program("script");
    command.args(["-qfec", &line, "/dev/null"]).env("SHELL", "/bin/sh");
    let mut terminal = Process::start(command);
    terminal.line();
    terminal.write("\u{3}");
    let answer = terminal.finish_with_stdin_open(LIMIT).assert_code(130);
    assert!(!answer.out.contains("signal="), "{answer:#?}");
    let row = sandbox.newest_shutdown();
    assert_eq!((&row["signal_name"], &row["sender_pid"]), (&json!("SIGINT"), &Value::Null));
    assert!(row["sender"].as_str().unwrap().contains("kernel"), "{row:#}");
    assert_eq!(row["cause"], "signalled", "{row:#}");
    assert!(why(&row["snapshot"]["sender"]).contains("kernel"), "{row:#}");
    let end = &sandbox.history()[0];
    assert_eq!((&end["end_reason"], &end["signal"]), (&json!("signalled"), &json!(2)), "{end:#}");
    assert_eq!(end["ended_by"], Value::Null, "{end:#}");
    assert!(end["detail"].as_str().unwrap().contains("kernel"), "{end:#}");
}

/// FIELD-BUGS row 82: "phantom kills" that were somebody's debugger.
#[test]
fn a_tracer_is_named() {
    let words = ["strace", "-f", "-o", "/dev/null"];
    if !has("strace") || !works(&words) {
        return skipped("needs strace, and leave to trace");
    }
    let sandbox = Sandbox::new();
    let start = |json: &[&str]| {
        let verb = [json, &["forensics", "snapshot"]].concat();
        let tracer = Process::start(sandbox.under(&words, Path::new(BINARY), &verb));
        (tracer.pid(), tracer.finish(LIMIT).assert_code(0))
    };
    let (tracer, answer) = start(&["--json"]);
    let snapshot = answer.json();
    assert_complete(&snapshot);
    assert_eq!(snapshot["tracer_pid"], tracer, "{snapshot:#}");
    assert_eq!(snapshot["tracer"]["pid"], tracer, "{snapshot:#}");
    assert_eq!(snapshot["tracer"]["name"], "strace", "{snapshot:#}");
    let command = snapshot["tracer"]["cmdline"].as_str().unwrap();
    assert!(command.starts_with("strace -f -o /dev/null "), "{command}");
    let (tracer, answer) = start(&[]);
    let said = assert_log_line(answer.out.trim_end_matches('\n'));
    assert_eq!(said["tracer_pid"], tracer.to_string());
}

/// A control group that looks like a unit of systemd's; removed when dropped.
struct Unit {
    directory: PathBuf,
    /// Below it, from the outside in.
    below: Vec<PathBuf>,
}

impl Unit {
    /// `None` where we may make none.
    fn new(path: &str) -> Option<Self> {
        let mounts = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
        mounts.iter().map(Path::new).find_map(|mount| {
            if !mount.join("cgroup.procs").exists() {
                return None;
            }
            let mut directory = mount.to_owned();
            let mut below = Vec::new();
            for name in path.split('/') {
                directory.push(name);
                if std::fs::create_dir(&directory).is_err() {
                    drop(Self { directory, below });
                    return None;
                }
                below.push(directory.clone());
            }
            Some(Self { directory, below })
        })
    }

    /// A script that runs in there.
    fn shell(&self, sandbox: &Sandbox, script: &str) -> Process {
        let join = format!("echo $$ > '{}/cgroup.procs' || exit 99", self.directory.display());
        Process::start(sandbox.shell(&format!("{join}\n{script}")))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        for directory in self.below.iter().rev() {
            // Whoever was in there may not have been counted out yet.
            let until = Instant::now() + Duration::from_secs(5);
            while std::fs::remove_dir(directory).is_err() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// FIELD-BUGS row 86: every terminal of a desktop has an `INVOCATION_ID`, and the seed took each
/// for a systemd service.
#[test]
fn the_environment_alone_makes_no_service() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.incumbent(["--json", "forensics", "snapshot"]);
    command
        .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
        .env("JOURNAL_STREAM", "8:4711")
        .env("SYSTEMD_EXEC_PID", std::process::id().to_string());
    let snapshot = snapshot_of(Process::start(command).finish(LIMIT));
    assert_eq!(snapshot["under_systemd"], false, "{snapshot:#}");
    assert_eq!(snapshot["systemd_invocation_id"], "0123456789abcdef0123456789abcdef");
    assert_eq!(snapshot["systemd_journal_stream"], "8:4711");
    let mut command = sandbox.incumbent(["--json", "forensics", "snapshot"]);
    command.env_remove("INVOCATION_ID").env_remove("JOURNAL_STREAM");
    let snapshot = snapshot_of(Process::start(command).finish(LIMIT));
    assert_eq!(snapshot["systemd_invocation_id"], Value::Null);
    assert_eq!(snapshot["systemd_journal_stream"], Value::Null);
}

/// The main process of a real service is under systemd; what it starts, and who shares its
/// environment or its control group, is not.
#[test]
fn only_the_main_process_of_a_service_is_under_systemd() {
    let sandbox = Sandbox::new();
    let own = std::process::id();
    let unit = |name: &str| name.replace("IT", &format!("it-{own}"));
    let shell = copy_shell(&sandbox, b"systemd");
    let executed = "export INVOCATION_ID=x SYSTEMD_EXEC_PID=$$; exec $SNAPSHOT";
    let child = "export INVOCATION_ID=x SYSTEMD_EXEC_PID=$$; $SNAPSHOT; exit $?";
    let by_manager = format!("'{}' -c '$SNAPSHOT; exit $?'; exit $?", shell.display());
    for (path, name, script, expected) in [
        ("IT-a.service", "IT-a.service", executed, true),
        ("IT-b.service", "IT-b.service", child, false),
        ("IT-c.service", "IT-c.service", "export INVOCATION_ID=x; exec $SNAPSHOT", false),
        // Before version 248 the parent alone tells.
        ("IT-d.service", "IT-d.service", &by_manager, true),
        ("IT-e.scope", "IT-e.scope", executed, false),
        ("IT-f.slice", "IT-f.slice", executed, false),
        ("IT-g.slice/IT-h.service", "IT-h.service", executed, true),
        ("IT-i.service/IT-j.scope", "IT-j.scope", executed, false),
        ("IT-k.service/payload", "IT-k.service", executed, true),
        ("IT-l", "", executed, false),
    ] {
        let Some(group) = Unit::new(&unit(path)) else {
            return skipped("needs leave to make control groups");
        };
        let script =
            format!("SNAPSHOT='incumbent --json forensics snapshot'\nexport SNAPSHOT\n{script}");
        let snapshot = snapshot_of(group.shell(&sandbox, &script).finish(LIMIT));
        assert_eq!(snapshot["under_systemd"], expected, "{path}: {script}: {snapshot:#}");
        assert_eq!(snapshot["cgroup"], format!("/{}", unit(path)), "{snapshot:#}");
        if name.is_empty() {
            assert_eq!(snapshot["unit"], Value::Null, "{snapshot:#}");
        } else {
            assert_eq!(snapshot["unit"], unit(name), "{snapshot:#}");
        }
        let script = script.replace("--json", "");
        let answer = group.shell(&sandbox, &script).finish(LIMIT).assert_code(0);
        let said = assert_log_line(answer.out.trim_end_matches('\n'));
        assert_eq!(said["under_systemd"], if expected { "yes" } else { "no" });
        assert_eq!(said.get("unit").map_or("", String::as_str), unit(name));
    }
}

/// The arguments of a process that is started with its secrets on its command line, and these.
fn with_secrets(who: &str) -> (Vec<String>, Vec<String>) {
    let secrets: Vec<String> =
        ["1st", "2nd", "3rd", "4th"].iter().map(|place| format!("hunter2-{who}-{place}")).collect();
    let arguments = vec![
        format!("--token={}", secrets[0]),
        "--api-key".to_owned(),
        secrets[1].clone(),
        format!("https://user:{}@host.example/path", secrets[2]),
        format!("DB_PASSWORD={}", secrets[3]),
    ];
    (arguments, secrets)
}

#[track_caller]
fn assert_holds_none(what: &str, bytes: &[u8], secrets: &[String]) {
    for secret in secrets {
        let at = bytes.windows(secret.len()).position(|it| it == secret.as_bytes());
        let around = at.map(|at| {
            let (from, to) = (at.saturating_sub(200), (at + 100).min(bytes.len()));
            String::from_utf8_lossy(&bytes[from..to]).into_owned()
        });
        assert!(around.is_none(), "{secret} is in {what}: {around:?}");
    }
}

/// FIELD-BUGS row 87, invariant 8: the command lines of the gateway, of its parent and of whoever
/// signals it are kept, and what is secret in them is not.
#[test]
fn no_secret_of_any_command_line_is_kept_or_said() {
    let sandbox = Sandbox::new();
    let (of_gateway, mut secrets) = with_secrets("gateway");
    let (of_sender, more) = with_secrets("sender");
    secrets.extend(more);
    let sender_arguments: Vec<&str> = of_sender.iter().map(String::as_str).collect();
    let mut deployer = sandbox.deployer_with(&sender_arguments);
    let check = |what: &str, answer: &Answer| {
        assert_holds_none(what, answer.out.as_bytes(), &secrets);
        assert_holds_none(what, answer.err.as_bytes(), &secrets);
    };

    // A shell starts the run, and stays its parent; its own arguments become those of the gateway.
    let script = "incumbent run --no-backoff -- /bin/sh gateway.sh \"$@\" & echo $!
        wait $!; code=$?
        incumbent --json forensics snapshot --signal 15 > snapshot.json
        incumbent forensics snapshot --signal 15 > snapshot.txt
        exit $code";
    std::fs::write(sandbox.file("parent.sh"), script).unwrap();
    std::fs::write(sandbox.file("gateway.sh"), "exec 0<&-; echo up $$; exec sleep 1000").unwrap();
    let mut command = sandbox.program("/bin/sh");
    command.arg("parent.sh").args(&of_gateway);
    let mut parent = Process::start(command);
    let run: u32 = parent.line().trim().parse().unwrap();
    parent.line_with("up ");
    deployer.send("TERM", run);
    let answer = parent.finish_with_stdin_open(LIMIT).assert_code(143);
    assert!(answer.err.contains("sender_cmdline=\"/bin/sh deploy.sh"), "{answer:#?}");
    assert!(answer.err.contains("<redacted>"), "{answer:#?}");
    check("what run said", &answer);
    for name in ["snapshot.json", "snapshot.txt"] {
        let said = std::fs::read(sandbox.file(name)).unwrap();
        assert!(!said.is_empty());
        assert_holds_none(name, &said, &secrets);
    }

    // A gateway that links the library; the test's harness takes words that are no options.
    let mut command = sandbox.role_command(ROLE_TEST, GATEWAY);
    command.args(of_gateway.iter().filter(|word| !word.starts_with('-') && word.contains('=')));
    command.args(of_gateway.iter().filter(|word| word.contains("://")));
    let mut gateway = listening(Process::start(command));
    deployer.send("TERM", gateway.pid());
    let report = next_report(&mut gateway);
    let itself = report["snapshot"]["self"]["cmdline"].as_str().unwrap();
    assert!(itself.contains("DB_PASSWORD=<redacted>"), "{itself}");
    assert_holds_none("the report", report.to_string().as_bytes(), &secrets);
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    drop(gateway);

    for verb in [
        &["history"][..],
        &["status"],
        &["events"],
        &["sql", "SELECT * FROM shutdowns"],
        &["sql", "SELECT * FROM instances"],
    ] {
        for json in [&[][..], &["--json"]] {
            check(verb[0], &sandbox.cli([json, verb].concat()));
        }
    }
    for suffix in ["", "-wal", "-shm"] {
        if let Ok(bytes) = std::fs::read(sandbox.sidecar(suffix)) {
            assert_holds_none(&format!("state.db{suffix}"), &bytes, &secrets);
        }
    }
    assert!(sandbox.shutdown_rows() >= 4, "{}", sandbox.shutdown_rows());
}

/// The same where the secret is no argument, but a word of a script that is one: `sh -c '...'`, as
/// supervisors, cron and containers start a gateway.
#[test]
fn no_secret_of_a_script_is_kept_or_said() {
    let secret = "hunter2-in-a-script".to_owned();
    let mut leaks = Vec::new();
    for way in [
        "--token=SECRET",
        "'--token=SECRET'",
        "--token SECRET",
        "--api-key SECRET",
        "--verbose=1 --api-key=SECRET",
        "--url=http://host:80/ --token SECRET",
        "A=1 DB_PASSWORD=SECRET",
        "'https://user:SECRET@host.example/path'",
        "-H 'Authorization: Bearer SECRET'",
    ] {
        let sandbox = Sandbox::new();
        let gateway = way.replace("SECRET", &secret);
        let script = format!(
            ": {gateway}; incumbent run --no-backoff -- /bin/sh -c 'echo $$; exec cat'; exit $?"
        );
        let mut parent = Process::start(sandbox.shell(&script));
        parent.line();
        let run = u32::try_from(sandbox.status().1["pid"].as_u64().unwrap()).unwrap();
        let sending = format!(": {gateway}; kill -TERM {run}; read -r wait");
        let sender = Process::start(sandbox.shell(&sending));
        let answer = parent.finish_with_stdin_open(LIMIT).assert_code(143);
        sender.finish(LIMIT);
        let stored =
            [sandbox.db(), sandbox.sidecar("-wal")].map(|path| std::fs::read(path).unwrap());
        let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|it| it == secret.as_bytes());
        if holds(answer.err.as_bytes()) || stored.iter().any(|bytes| holds(bytes)) {
            leaks.push(way);
        }
    }
    assert!(leaks.is_empty(), "kept or said: {leaks:#?}");
}

/// Invariant 8. A locked identity that stands as a plain word in a command line, where nothing says
/// that it is secret: in that of the command, of whoever started the run, and of whoever ends it.
/// They were kept as they are. It holds because the hashes of all that is locked are known.
#[test]
fn no_locked_identity_of_any_command_line_is_kept_or_said() {
    const IDENTITY: &str = "zebra-quartz";
    let sandbox = Sandbox::new();
    let script = format!(
        ": {IDENTITY}; incumbent run --no-backoff --lock-env token=IT_BOT -- \
         /bin/sh -c 'echo $$; read -r wait; : {IDENTITY}' {IDENTITY}; exit $?"
    );
    let mut command = sandbox.shell(&script);
    command.env("IT_BOT", IDENTITY);
    let mut parent = Process::start(command);
    parent.line();
    let run = u32::try_from(sandbox.status().1["pid"].as_u64().unwrap()).unwrap();
    let sending = format!(": {IDENTITY}; kill -TERM {run}; read -r wait; : '{IDENTITY}'");
    let sender = Process::start(sandbox.shell(&sending));
    let answer = parent.finish_with_stdin_open(LIMIT).assert_code(143);
    assert!(answer.err.contains("signal=SIGTERM"), "{answer:#?}");
    let mut leaks = Vec::new();
    let mut look = |what: String, bytes: &[u8]| {
        if bytes.windows(IDENTITY.len()).any(|it| it == IDENTITY.as_bytes()) {
            leaks.push(what);
        }
    };
    look("what run said".to_owned(), answer.err.as_bytes());
    sender.finish(LIMIT);
    assert_eq!(sandbox.shutdown_rows(), 1);
    for table in ["shutdowns", "instances", "events", "scoped_locks", "markers"] {
        let query = format!("SELECT * FROM {table}");
        let (code, rows) = sandbox.json(["sql", &query]);
        assert_eq!(code, 0, "{rows:#}");
        for row in rows.as_array().unwrap() {
            for (column, value) in row.as_object().unwrap() {
                look(format!("{table}.{column}: {value}"), value.to_string().as_bytes());
            }
        }
    }
    for verb in ["history", "status", "events", "locks"] {
        for words in [vec![verb], vec!["--json", verb]] {
            let answer = sandbox.cli(&words);
            look(format!("{words:?}"), format!("{}{}", answer.out, answer.err).as_bytes());
        }
    }
    for suffix in ["", "-wal"] {
        if let Ok(bytes) = std::fs::read(sandbox.sidecar(suffix)) {
            look(format!("state.db{suffix}"), &bytes);
        }
    }
    assert!(leaks.is_empty(), "{IDENTITY} is kept or said: {leaks:#?}");
}

/// A reason about a file that the test has made unreadable.
#[track_caller]
fn assert_hidden(process: &Value, reason: &str) {
    for field in ["cmdline", "name", "state", "uid"] {
        assert!(why(&process[field]).contains(reason), "{field}: {process:#}");
    }
    assert!(process["pid"].is_u64(), "{process:#}");
}

/// R:HIDEPID. FIELD-BUGS rows 29 and 83: what the kernel hides is not gone, and is not blank.
#[test]
fn with_hidepid_the_parent_is_hidden_and_the_rest_is_there() {
    let Some(words) = nobody_with_hidepid() else {
        return skipped("needs root, and leave to mount /proc");
    };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let snapshot = sandbox.forensic_snapshot_behind(words, &binary, &["--signal", "15"]);
    let own = std::process::id();
    assert_eq!(snapshot["ppid"], own, "{snapshot:#}");
    assert_eq!(snapshot["parent"]["pid"], own, "{snapshot:#}");
    assert_hidden(&snapshot["parent"], "hidepid");
    assert_eq!(snapshot["self"]["uid"], 65534, "{snapshot:#}");
    assert_eq!(snapshot["self"]["name"], "incumbent", "{snapshot:#}");
    assert!(snapshot["loadavg_1m"].is_f64(), "{snapshot:#}");
    assert!(snapshot["memory"]["rss_bytes"].is_u64(), "{snapshot:#}");
    let verb = ["forensics", "snapshot"];
    let answer = Process::start(sandbox.under(words, &binary, &verb)).finish(LIMIT);
    let said = assert_log_line(answer.assert_code(0).out.trim_end_matches('\n'));
    assert_eq!(said["parent_pid"], own.to_string());
    assert!(said["parent_cmdline"].contains("hidepid"), "{said:?}");

    // A sender that cannot be seen: pid and uid come with the signal.
    let verb = [&["run", "--no-backoff"], HOLDING].concat();
    let run = Run::start(sandbox.under(words, &binary, &verb));
    let mut deployer = sandbox.deployer();
    deployer.send("TERM", run.pid());
    let answer = run.process.finish_with_stdin_open(LIMIT).assert_code(143);
    let said = said_by_run(&answer);
    assert_eq!(said["sender_pid"], deployer.pid().to_string());
    assert_eq!(said["sender_uid"], own_uid().to_string());
    assert!(said["sender_cmdline"].contains("hidepid"), "{said:?}");
    let sender = sandbox.newest_shutdown()["snapshot"]["sender"].clone();
    assert_eq!((&sender["pid"], &sender["uid"]), (&json!(deployer.pid()), &json!(own_uid())));
    assert!(why(&sender["cmdline"]).contains("hidepid"), "{sender:#}");
}

/// FIELD-BUGS row 83. Masked files, no `/proc`: reasons, and everything else.
#[test]
fn without_parts_of_proc_reasons_stand_in_their_places() {
    let Some(_) = mount_namespace() else { return skipped("needs root and mounts") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    let own = std::process::id();
    let behind = |script: &str| {
        let script = format!("{script}\nexec \"$@\"");
        let words = ["unshare", "-m", "/bin/sh", "-c", &script, "sh"];
        sandbox.forensic_snapshot_behind(&words, &binary, &["--signal", "15"])
    };
    let empty = behind("mount --bind /dev/null /proc/loadavg || exit 99");
    assert!(why(&empty["loadavg_1m"]).contains("/proc/loadavg"), "{empty:#}");
    assert_eq!(empty["parent"]["pid"], own, "{empty:#}");
    assert!(empty["parent"]["cmdline"].is_string(), "{empty:#}");

    let unreadable = behind(
        "umask 077; echo no > closed && mount --bind closed /proc/loadavg || exit 99
         set -- setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"",
    );
    let reason = why(&unreadable["loadavg_1m"]);
    assert!(reason.contains("/proc/loadavg") && reason.contains("denied"), "{reason}");
    assert!(unreadable["self"]["cmdline"].is_string(), "{unreadable:#}");

    let nothing = behind("umount -l /proc || exit 99");
    assert_eq!((&nothing["ppid"], &nothing["parent"]["pid"]), (&json!(own), &json!(own)));
    for process in ["parent", "self"] {
        assert_hidden(&nothing[process], "/proc cannot be read");
    }
    for field in
        ["boot_id", "cgroup", "loadavg_1m", "tracer", "tracer_pid", "under_systemd", "unit"]
    {
        assert!(!why(&nothing[field]).is_empty(), "{field}: {nothing:#}");
    }
    assert!(!why(&nothing["memory"]["rss_bytes"]).is_empty(), "{nothing:#}");
    assert!(nothing["limits"]["open_files"]["soft"].is_u64(), "{nothing:#}");
    assert!(nothing["ts"].is_f64() && nothing["signal_num"] == 15, "{nothing:#}");
    assert!(!sandbox.file("store").exists());
}

/// R:PIDNS. A `/proc` that belongs to another pid namespace counts other pids: nobody is described
/// by it.
#[test]
fn a_proc_of_another_pid_namespace_describes_nobody() {
    let Some(words) = pid_namespace() else { return skipped("needs a pid namespace") };
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--mount-proc").collect();
    if !works(&words) {
        return skipped("needs a pid namespace without a /proc of its own");
    }
    let sandbox = Sandbox::new();
    // As the second process of its namespace, so that it has a parent there.
    let script = ["/bin/sh", "-c", "\"$@\"; exit $?", "sh"];
    let words = [&words[..], &script].concat();
    let snapshot = sandbox.forensic_snapshot_behind(&words, Path::new(BINARY), &["--signal", "15"]);
    assert_eq!(snapshot["ppid"], 1, "{snapshot:#}");
    assert_eq!(snapshot["parent"]["pid"], 1, "{snapshot:#}");
    for process in ["parent", "self"] {
        assert_hidden(&snapshot[process], "another pid namespace");
    }
    assert!(!why(&snapshot["tracer"]).is_empty(), "{snapshot:#}");
    // What does not go by pids.
    assert!(snapshot["loadavg_1m"].is_f64(), "{snapshot:#}");
    assert!(snapshot["cgroup"].is_string(), "{snapshot:#}");
    assert!(snapshot["boot_id"].is_string(), "{snapshot:#}");
}

/// FIELD-BUGS rows 63, 77 and 82. The store's write lock is held by a process that is stopped: the
/// gateway learns of its signal at once all the same, and the row follows with the next change.
#[test]
fn a_stopped_writer_holds_no_shutdown_up() {
    const SIGNALS: usize = 5;
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let writer = stopped_writer(&sandbox);
    let says_why = |snapshot: &Value| {
        let reason = why(&snapshot["recorded"]).to_owned();
        assert!(reason.contains("not written"), "{reason}");
        assert!(reason.contains(&format!("pid {}", writer.pid())), "{reason}");
        assert!(reason.contains("stopped"), "{reason}");
    };
    let reports: Vec<Value> = (0..SIGNALS).map(|_| raise(&mut gateway, libc::SIGTERM)).collect();
    for report in &reports {
        says_why(&report["snapshot"]);
        let said = assert_log_line(report["line"].as_str().unwrap());
        assert!(said["recorded"].contains("not written"), "{said:?}");
        assert!(said["recorded"].contains(&format!("pid {}", writer.pid())), "{said:?}");
        assert_eq!(report["cause"], "signalled", "{report:#}");
        assert_eq!(report["snapshot"]["takeover_marker"], Value::Null, "reads go on: {report:#}");
    }
    let best = reports.iter().map(micros).min().unwrap();
    assert_within(AT_ONCE, best, "a signal");
    let taken: Vec<Value> = (0..SIGNALS)
        .map(|_| serde_json::from_str(&ask(&mut gateway, "snapshot default")).unwrap())
        .collect();
    for taken in &taken {
        says_why(&taken["snapshot"]);
    }
    let best = taken.iter().map(micros).min().unwrap();
    assert_within(AT_ONCE, best, "a snapshot");

    // The verb: with a process to start, and 50 ms for the store.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        let snapshot = sandbox.forensic_snapshot(&["--signal", "15"]);
        best = best.min(started.elapsed());
        let reason = why(&snapshot["recorded"]);
        assert!(reason.contains("not written"), "{reason}");
        assert!(reason.contains(&format!("pid {}", writer.pid())), "{reason}");
    }
    assert_within(Duration::from_secs(1), best, "the verb");
    assert_eq!(sandbox.shutdown_rows(), 0);

    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    assert_eq!(ask(&mut gateway, "change default"), "changed");
    // What the gateway said; the verb's process has ended with what it had to say.
    assert_eq!(sandbox.shutdown_rows(), 2 * i64::try_from(SIGNALS).unwrap());
    let (_, rows) =
        sandbox.json(["sql", "SELECT at_ms, sender_pid, pid FROM shutdowns ORDER BY id"]);
    for (row, report) in rows.as_array().unwrap().iter().zip(&reports) {
        assert_eq!(row["sender_pid"], gateway.pid(), "{row:#}");
        let ts = report["snapshot"]["ts"].as_f64().unwrap();
        let at = Duration::from_millis(row["at_ms"].as_u64().unwrap()).as_secs_f64();
        assert!((ts - at).abs() < 0.002, "{at} {ts}: the time at which it came");
    }
    // And the story can be told.
    let report = raise(&mut gateway, libc::SIGTERM);
    assert!(report["snapshot"]["recorded"].is_i64(), "{report:#}");
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    assert_eq!(sandbox.history()[0]["end_reason"], "signalled");
}

/// The same with a stop on record that cannot be consumed now: the cause is known, and soon.
#[test]
fn an_announced_stop_is_known_also_behind_a_stopped_writer() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let pid = gateway.pid().to_string();
    sandbox.cli(["marker", "write", "planned_stop", "--pid", &pid]).assert_code(0);
    let writer = stopped_writer(&sandbox);
    let reports: Vec<Value> = (0..5).map(|_| raise(&mut gateway, libc::SIGTERM)).collect();
    for report in &reports {
        assert_eq!(report["cause"], "planned_stop", "{report:#}");
        assert_eq!(report["exit_code"], 0, "{report:#}");
        assert_eq!(report["stop"], "planned_stop", "{report:#}");
    }
    // Consuming the marker has a bound of its own, of 250 ms.
    let first = micros(&reports[0]);
    assert_within(Duration::from_secs(2), first, "it");
    let best = reports.iter().map(micros).min().unwrap();
    assert_within(Duration::from_millis(300), best, "a signal");
    drop(writer);
}

/// A process that holds four offices and panics: it was held up for 250 ms by each of them in turn.
/// There is one limit for all of them together.
#[test]
fn a_panic_is_held_up_once_for_all_offices() {
    const OFFICES: [&str; 4] = ["default", "two", "three", "four"];
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.role(ROLE_TEST, GATEWAY);
    gateway.err_line_with("=> open");
    for profile in OFFICES {
        ask(&mut gateway, &format!("claim {profile} gateway"));
        assert_eq!(ask(&mut gateway, &format!("record {profile}")), "recording");
    }
    let writer = stopped_writer(&sandbox);
    let took = (0..3).map(|_| ask(&mut gateway, "panic").parse().unwrap());
    let best = Duration::from_micros(took.min().unwrap());
    assert_within(Duration::from_millis(600), best, "a panic");
    assert_eq!(sandbox.shutdown_rows(), 0);
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    assert_eq!(ask(&mut gateway, "change default"), "changed");
    let offices = "SELECT count(DISTINCT profile) FROM shutdowns WHERE what = 'panic'";
    assert_eq!((sandbox.shutdown_rows(), sandbox.number(offices)), (12, 4));
}

/// Each question tried to write what was kept first, for 10 ms: a process whose word waited asked a
/// hundred times slower. A word waits for the next change; only a release is tried before.
#[test]
fn a_kept_word_makes_no_question_slow() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let writer = stopped_writer(&sandbox);
    let report = raise(&mut gateway, libc::SIGTERM);
    assert!(why(&report["snapshot"]["recorded"]).contains("not written"), "{report:#}");
    let took = (0..3).map(|_| ask(&mut gateway, "look default").parse().unwrap());
    let best = Duration::from_micros(took.min().unwrap());
    assert_within(Duration::from_millis(100), best, "20 questions");
    assert_eq!(sandbox.shutdown_rows(), 0);
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    assert_eq!(ask(&mut gateway, "change default"), "changed");
    assert_eq!(sandbox.shutdown_rows(), 1);
}

/// Words and releases that wait for the same lock: more words than are kept, one release before
/// them and one after. What was written was counted off the front of a list that loses its oldest
/// words meanwhile, and with them a release. It holds because each is taken off by itself.
#[test]
fn no_release_is_lost_among_the_words_that_wait_with_it() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let instance = ask(&mut gateway, "claim work gateway");
    assert!(instance.parse::<i64>().is_ok(), "{instance}");
    let writer = stopped_writer(&sandbox);
    let released = ask(&mut gateway, "release work");
    assert!(released.starts_with("Pending"), "{released}");
    for _ in 0..25 {
        raise(&mut gateway, libc::SIGTERM);
    }
    let released = ask(&mut gateway, "release default");
    assert!(released.starts_with("Pending"), "{released}");
    let ended = "SELECT count(*) FROM instances
         WHERE pid = (SELECT max(pid) FROM instances WHERE id = INSTANCE) AND ended_at_ms NOT NULL";
    let ended = ended.replace("INSTANCE", &instance);
    assert_eq!(sandbox.number(&ended), 0);
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    let next = ask(&mut gateway, "claim default gateway");
    assert!(next.parse::<i64>().is_ok(), "{next}");
    assert_eq!(sandbox.number(&ended), 2, "both are released");
    assert_eq!(sandbox.shutdown_rows(), 20, "the newest words are there");
    let reason = |profile: &str| {
        let query = format!(
            "SELECT end_reason FROM instances WHERE profile = '{profile}' AND ended_at_ms NOT NULL"
        );
        sandbox.json(["sql", &query]).1[0]["end_reason"].clone()
    };
    assert_eq!((reason("work"), reason("default")), (json!("released"), json!("signalled")));
}

/// The store went from under a gateway that has read it before, and from under one that has not.
/// Its signal arrives in time, with all that the store is not asked for.
#[track_caller]
fn assert_told_without_its_store(has_read: bool, limit: Duration) {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    if has_read {
        ask(&mut gateway, "snapshot default");
    }
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.sidecar(suffix)).unwrap();
    }
    let mut deployer = sandbox.deployer();
    deployer.send("TERM", gateway.pid());
    let reports = [next_report(&mut gateway), raise(&mut gateway, 15), raise(&mut gateway, 15)];
    for report in &reports {
        assert!(!why(&report["snapshot"]["recorded"]).is_empty(), "{report:#}");
        assert_eq!(report["snapshot"]["signal"], "SIGTERM", "{report:#}");
    }
    assert_eq!(reports[0]["snapshot"]["sender"]["pid"], deployer.pid(), "{:#}", reports[0]);
    assert!(!sandbox.db().exists(), "a snapshot makes no store");
    let best = reports[1..].iter().map(micros).min().unwrap();
    assert!(best < limit, "a signal took {best:?} at best");
}

#[test]
fn a_store_that_is_gone_holds_no_shutdown_up() {
    assert_told_without_its_store(true, AT_ONCE);
}

/// 300 ms are promised for a store that cannot be read.
#[test]
fn a_store_that_is_gone_before_it_was_read_holds_no_shutdown_up() {
    assert_told_without_its_store(false, Duration::from_millis(400));
}

/// A `run` behind a stopped writer: its command is asked at once, the line says what is not on
/// record yet and who is in the way, and the story is complete when that one has gone on.
#[test]
fn a_run_behind_a_stopped_writer_passes_the_signal_on() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.patient(&[]);
    let writer = stopped_writer(&sandbox);
    let mut deployer = sandbox.deployer();
    deployer.send("TERM", run.pid());
    assert_eq!(run.process.line(), "TERM");
    let said = said_of_signal(&mut run.process);
    assert_eq!(said["sender_pid"], deployer.pid().to_string());
    assert!(said["recorded"].contains("not written"), "{said:?}");
    assert!(said["recorded"].contains(&format!("pid {}", writer.pid())), "{said:?}");
    assert_eq!(sandbox.shutdown_rows(), 0);
    writer.signal(Signal::CONT);
    writer.finish(LIMIT).assert_code(0);
    run.let_end();
    run.process.finish_with_stdin_open(LIMIT).assert_code(7);
    assert_eq!(sandbox.newest_shutdown()["sender_pid"], deployer.pid());
    let end = &sandbox.history()[0];
    assert_eq!(end["end_reason"], "signalled", "{end:#}");
    let by = end["ended_by"].as_str().unwrap();
    assert!(by.starts_with(&format!("pid {} (", deployer.pid())), "{end:#}");
}

/// Without a store to ask, or with one that cannot be used, a snapshot has everything else, and
/// none is made.
#[test]
fn without_a_usable_store_a_snapshot_says_why() {
    let markers = ["takeover_marker", "takeover_marker_for_self", "planned_stop_marker"];
    let assert_reasons = |snapshot: &Value, reason: &str| {
        for field in [&markers[..], &["recorded"]].concat() {
            let seen = why(&snapshot[field]);
            assert!(seen.contains(reason), "{field}: {seen:?}, not {reason:?}");
        }
        assert_eq!(snapshot["parent"]["pid"], std::process::id(), "{snapshot:#}");
    };

    let sandbox = Sandbox::new();
    assert_reasons(&sandbox.forensic_snapshot(&["--signal", "15"]), "there is no store");
    assert_reasons(&sandbox.forensic_snapshot(&[]), "there is no store");
    assert!(!sandbox.file("store").exists());

    // Not ours.
    std::fs::create_dir(sandbox.file("store")).unwrap();
    std::fs::set_permissions(sandbox.file("store"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::write(sandbox.db(), "this is no database, and longer than its header".repeat(200))
        .unwrap();
    std::fs::set_permissions(sandbox.db(), PermissionsExt::from_mode(0o600)).unwrap();
    let before = sandbox.picture();
    assert_reasons(&sandbox.forensic_snapshot(&["--signal", "15"]), "not an SQLite database");
    assert_eq!(sandbox.picture(), before);

    // Damaged in the middle: whatever cannot be read says so, and the rest is there.
    let sandbox = Sandbox::new();
    sandbox.hold(&[]).end().assert_code(0);
    let length = std::fs::metadata(sandbox.db()).unwrap().len();
    let mut file = std::fs::OpenOptions::new().write(true).open(sandbox.db()).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0xa5; usize::try_from(length).unwrap() - 4096]).unwrap();
    drop(file);
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(sandbox.sidecar(suffix));
    }
    let snapshot = sandbox.forensic_snapshot(&["--signal", "15"]);
    assert!(!why(&snapshot["recorded"]).is_empty(), "{snapshot:#}");
    assert_eq!(snapshot["parent"]["pid"], std::process::id(), "{snapshot:#}");
}

/// FIELD-BUGS row 81: a store of an older version is read as it is, and not migrated by a question.
#[test]
fn an_older_store_is_read_and_left_as_it_is() {
    for version in [4, 3, 2, 1] {
        let sandbox = Sandbox::new();
        let run = sandbox.hold(&[]);
        run.end().assert_code(0);
        sandbox.age_to(version);
        let snapshot = sandbox.forensic_snapshot(&["--signal", "15"]);
        let reason = why(&snapshot["recorded"]);
        assert!(reason.contains("not written") && reason.contains("older"), "{reason}");
        for field in ["takeover_marker", "takeover_marker_for_self", "planned_stop_marker"] {
            assert_eq!(snapshot[field], Value::Null, "version {version}: {snapshot:#}");
        }
        assert_eq!(sandbox.number("PRAGMA user_version"), version);
        // Without a signal there is nothing to put on record, whatever the store.
        let snapshot = sandbox.forensic_snapshot(&[]);
        assert!(why(&snapshot["recorded"]).contains("no signal"), "{snapshot:#}");
    }
}

#[test]
fn a_store_that_may_not_be_read_costs_only_what_it_says() {
    let Some(nobody) = another_user() else { return skipped("needs root") };
    let sandbox = Sandbox::new();
    let binary = sandbox.open_to_nobody();
    sandbox.hold(&[]).end().assert_code(0);
    let root = Some(rustix::process::Uid::ROOT);
    for path in [sandbox.file("store"), sandbox.db()] {
        rustix::fs::chown(&path, root, None).unwrap();
    }
    let snapshot = sandbox.forensic_snapshot_behind(nobody, &binary, &["--signal", "15"]);
    for field in ["recorded", "takeover_marker", "planned_stop_marker"] {
        let reason = why(&snapshot[field]);
        assert!(reason.contains("state.db") || reason.contains("store"), "{field}: {reason}");
    }
    assert_eq!(snapshot["self"]["uid"], 65534, "{snapshot:#}");
    assert_eq!(sandbox.shutdown_rows(), 0);
}

/// R:FULL. FIELD-BUGS row 78.
#[test]
fn on_a_full_disk_a_snapshot_says_that_it_is_not_on_record() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::sized(&sandbox, "2m") else { return };
    disk.cli(&["run", "--no-backoff", "--", "true"]).assert_code(0);
    disk.shell(
        "sqlite3 store/state.db '.filectrl persist_wal 1' 'PRAGMA wal_checkpoint(TRUNCATE)'
         dd if=/dev/zero of=store/fill bs=1k 2> /dev/null; exit 0",
    )
    .assert_code(0);
    let snapshot = snapshot_of(disk.cli(&["--json", "forensics", "snapshot", "--signal", "15"]));
    let reason = why(&snapshot["recorded"]);
    assert!(reason.contains("full"), "{reason}");
    assert_eq!(snapshot["signal"], "SIGTERM", "{snapshot:#}");
    assert!(snapshot["self"]["cmdline"].is_string(), "{snapshot:#}");
    disk.shell("rm store/fill").assert_code(0);
    let snapshot = snapshot_of(disk.cli(&["--json", "forensics", "snapshot", "--signal", "15"]));
    assert!(snapshot["recorded"].is_i64(), "{snapshot:#}");
}

/// The verb describes its own process, and leaves the row to the run that it is in, or to its
/// parent if that is on record, and else to nobody.
#[test]
fn the_verb_leaves_its_row_to_the_run_or_to_its_parent() {
    let sandbox = Sandbox::new();
    // Nobody's.
    sandbox.hold(&[]).end().assert_code(0);
    let snapshot = sandbox.forensic_snapshot(&["--signal", "TERM"]);
    let row = sandbox.newest_shutdown();
    assert_eq!(row["id"], snapshot["recorded"], "{row:#}");
    for column in ["instance_id", "profile", "kind", "sender_pid", "sender_uid"] {
        assert_eq!(row[column], Value::Null, "{column}: {row:#}");
    }
    assert_eq!(row["pid"], snapshot["pid"], "{row:#}");
    assert!(row["sender"].as_str().unwrap().contains("not caught by incumbent"), "{row:#}");
    // Without a signal there is no row.
    sandbox.forensic_snapshot(&[]);
    assert_eq!(sandbox.shutdown_rows(), 1);

    // A trap of the run's command.
    let script = "trap 'incumbent --json forensics snapshot --signal TERM > said.json; exit 7' TERM
        echo $$; while :; do sleep 0.05; done";
    let run = sandbox.hold_with(&["/bin/sh", "-c", script]);
    kill(run.command.pid, Signal::TERM);
    run.process.finish_with_stdin_open(LIMIT).assert_code(7);
    let said = std::fs::read_to_string(sandbox.file("said.json")).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    let row = sandbox.newest_shutdown();
    assert_eq!(row["id"], said["recorded"], "{row:#}");
    assert_eq!(row["instance_id"], sandbox.history()[0]["instance"], "{row:#}");
    assert_eq!(row["profile"], "default", "{row:#}");

    // A shell that is on record itself, under another name.
    let script = "incumbent claim --profile work --kind relay > /dev/null || exit
        trap 'incumbent --json forensics snapshot --signal INT > said.json; exit 8' INT
        echo $$; while :; do sleep 0.05; done";
    let mut shell = Process::start(sandbox.shell(script));
    shell.line();
    shell.signal(Signal::INT);
    let pid = shell.pid();
    shell.finish_with_stdin_open(LIMIT).assert_code(8);
    let row = sandbox.newest_shutdown();
    assert_eq!(row["signal_name"], "SIGINT", "{row:#}");
    assert_eq!(row["profile"], "work", "{row:#}");
    assert_eq!(row["kind"], "relay", "{row:#}");
    let (_, history) = sandbox.json(["history", "--profile", "work", "--kind", "relay"]);
    assert_eq!(history[0]["pid"], pid, "{history:#}");
    assert_eq!(row["instance_id"], history[0]["instance"], "{row:#}");
}

/// Who signals in a loop fills no disk, and pushes out nobody else's word.
#[test]
fn the_newest_twenty_rows_of_an_instance_are_kept() {
    const SIGNALS: usize = 100;
    let sandbox = Sandbox::new();
    let mut other = Process::start(sandbox.role_command(ROLE_TEST, GATEWAY));
    other.err_line_with("=> open");
    ask(&mut other, "claim other gateway");
    assert_eq!(ask(&mut other, "listen other none"), "listening");
    raise(&mut other, libc::SIGTERM);
    let mut gateway = sandbox.listening_gateway();
    let mut newest = Vec::new();
    for _ in 0..SIGNALS {
        let report = raise(&mut gateway, libc::SIGTERM);
        newest.push(report["snapshot"]["recorded"].as_i64());
    }
    // One that could not be written at once was written with a later one.
    let counted = sandbox.number("SELECT count(*) FROM shutdowns WHERE profile = 'default'");
    assert_eq!(counted, 20);
    if newest.iter().all(Option::is_some) {
        let oldest = sandbox.number("SELECT min(id) FROM shutdowns WHERE profile = 'default'");
        assert_eq!(newest[SIGNALS - 20], Some(oldest));
    }
    assert_eq!(sandbox.number("SELECT count(*) FROM shutdowns WHERE profile = 'other'"), 1);
}

/// FIELD-BUGS rows 46 and 82: a stop that was announced is told from one that was not, in the
/// snapshot, in the cause and in the exit code.
#[test]
fn a_planned_stop_is_seen_in_the_snapshot() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let stop = sandbox.begin(&["stop", "--reason", "new version"]);
    let report = next_report(&mut gateway);
    let snapshot = &report["snapshot"];
    let marker = &snapshot["planned_stop_marker"];
    assert_eq!(marker["name"], "planned_stop", "{marker:#}");
    assert_eq!(marker["pid"], gateway.pid(), "{marker:#}");
    assert_eq!(marker["by_pid"], stop.pid(), "{marker:#}");
    assert_eq!(marker["reason"], "new version", "{marker:#}");
    assert_eq!(snapshot["takeover_marker"], Value::Null, "{snapshot:#}");
    assert_eq!(snapshot["takeover_marker_for_self"], Value::Null, "{snapshot:#}");
    assert_eq!(snapshot["sender"]["pid"], stop.pid(), "{snapshot:#}");
    assert_eq!(report["cause"], "planned_stop", "{report:#}");
    assert_eq!(report["exit_code"], 0, "{report:#}");
    assert_eq!((&report["stop"], &report["stop_by"]), (&json!("planned_stop"), &json!(stop.pid())));
    let said = assert_log_line(report["line"].as_str().unwrap());
    assert_eq!(said["planned_stop_marker_present"], "yes");
    assert!(!said.contains_key("takeover_marker_present"), "{said:?}");
    let row = sandbox.newest_shutdown();
    assert_eq!(row["cause"], "planned_stop", "{row:#}");
    assert_eq!(row["snapshot"]["planned_stop_marker"], *marker, "{row:#}");
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    gateway.say("exit 0");
    gateway.finish(LIMIT).assert_code(0);
    stop.finish(LIMIT).assert_code(0);
    assert_eq!(sandbox.history()[0]["end_reason"], "planned_stop");

    // Under `run`, which may have asked its command before the signal came.
    let mut run = sandbox.patient(&[]);
    let stop = sandbox.begin(&["stop"]);
    let said = said_of_signal(&mut run.process);
    assert_eq!(said["planned_stop_marker_present"], "yes");
    assert_eq!(said["sender_pid"], stop.pid().to_string());
    assert!(said["sender_cmdline"].ends_with("incumbent stop"), "{said:?}");
    assert_eq!(run.process.line(), "TERM");
    run.let_end();
    stop.finish(LIMIT).assert_code(0);
    run.process.finish_with_stdin_open(LIMIT).assert_code(0);
}

/// What a `run` says of the signal that it gets.
#[track_caller]
fn said_of_signal(run: &mut Process) -> BTreeMap<String, String> {
    let line = run.err_line_with("signal=SIGTERM");
    assert_log_line(line.strip_prefix("incumbent: run: default/gateway: ").unwrap())
}

#[test]
fn a_takeover_is_seen_in_the_snapshot() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let taking = ["run", "--no-backoff", "--replace", "--", "/bin/sh", "-c", PATIENT];
    let mut taker = sandbox.begin(&taking);
    let report = next_report(&mut gateway);
    let snapshot = &report["snapshot"];
    let marker = &snapshot["takeover_marker"];
    assert_eq!(marker["name"], "takeover", "{marker:#}");
    assert_eq!(marker["pid"], gateway.pid(), "{marker:#}");
    assert_eq!(marker["by_pid"], taker.pid(), "{marker:#}");
    assert_eq!(snapshot["takeover_marker_for_self"], true, "{snapshot:#}");
    assert_eq!(snapshot["planned_stop_marker"], Value::Null, "{snapshot:#}");
    assert_eq!(report["cause"], "taken_over", "{report:#}");
    assert_eq!(report["exit_code"], 0, "{report:#}");
    assert_eq!((&report["stop"], &report["stop_by"]), (&json!("taken_over"), &json!(taker.pid())));
    let said = assert_log_line(report["line"].as_str().unwrap());
    assert_eq!(said["takeover_marker_present"], "self");
    assert_eq!(ask(&mut gateway, "release default"), "Free");
    gateway.say("exit 0");
    gateway.finish(LIMIT).assert_code(0);
    let command: u32 = taker.line().parse().unwrap();
    assert_eq!(sandbox.history()[1]["end_reason"], "taken_over");

    // And under `run`, by the next one.
    let mut next = sandbox.begin(&taking);
    let said = said_of_signal(&mut taker);
    assert_eq!(said["takeover_marker_present"], "self", "{said:?}");
    assert_eq!(said["sender_pid"], next.pid().to_string());
    let row = sandbox.newest_shutdown();
    assert_eq!(row["snapshot"]["takeover_marker_for_self"], true, "{row:#}");
    assert_eq!(row["cause"], "taken_over", "{row:#}");
    kill(command, Signal::USR1);
    taker.finish_with_stdin_open(LIMIT).assert_code(0);
    let command: u32 = next.line().parse().unwrap();
    kill(command, Signal::USR1);
    next.finish_with_stdin_open(LIMIT).assert_code(7);
}

/// The seed's smoking gun: another incarnation of the same profile is being replaced while somebody
/// signals this one.
#[test]
fn a_takeover_of_another_incarnation_is_not_ones_own() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let relay = ["run", "--no-backoff", "--kind", "relay", "--", "/bin/sh", "-c", PATIENT];
    let mut relay = Run::start(sandbox.incumbent(relay));
    let taker =
        sandbox.begin(&["run", "--no-backoff", "--kind", "relay", "--replace", "--", "true"]);
    assert_eq!(relay.process.line(), "TERM");
    let report = raise(&mut gateway, libc::SIGTERM);
    let snapshot = &report["snapshot"];
    assert_eq!(snapshot["takeover_marker"]["pid"], relay.pid(), "{snapshot:#}");
    assert_eq!(snapshot["takeover_marker_for_self"], false, "{snapshot:#}");
    assert_eq!(report["cause"], "signalled", "{report:#}");
    assert_eq!(report["stop"], "unplanned", "{report:#}");
    let said = assert_log_line(report["line"].as_str().unwrap());
    assert_eq!(said["takeover_marker_present"], "other");
    relay.let_end();
    relay.process.finish_with_stdin_open(LIMIT).assert_code(0);
    taker.finish(LIMIT).assert_code(0);
    let report = raise(&mut gateway, libc::SIGTERM);
    assert_eq!(report["snapshot"]["takeover_marker"], Value::Null, "{report:#}");
    assert_eq!(report["snapshot"]["takeover_marker_for_self"], Value::Null, "{report:#}");
}

/// Who listens no more can be ended again, and who listens again is called again.
#[test]
fn a_dropped_watch_gives_the_signals_back() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.listening_gateway();
        let once = |gateway: &mut Process| {
            gateway.signal(signal);
            let number = next_report(gateway)["snapshot"]["signal_num"].clone();
            assert_eq!(number, signal.as_raw());
        };
        once(&mut gateway);
        for _ in 0..2 {
            assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
            assert_eq!(ask(&mut gateway, "listen default none"), "listening");
            once(&mut gateway);
        }
        assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
        gateway.signal(signal);
        assert_eq!(gateway.wait(LIMIT).signal(), Some(signal.as_raw()));
    }
}

/// A gateway that has heard enough lets go from within the call: nothing waits for itself, and the
/// next signal ends it.
#[test]
fn a_watch_may_be_dropped_by_the_call_itself() {
    let sandbox = Sandbox::new();
    let mut gateway = Process::start(sandbox.role_command(ROLE_TEST, GATEWAY));
    gateway.err_line_with("=> open");
    ask(&mut gateway, "claim default gateway");
    assert_eq!(ask(&mut gateway, "listen-once default"), "listening");
    gateway.signal(Signal::TERM);
    gateway.err_line_with("?? dropped");
    assert_eq!(ask(&mut gateway, "change default"), "changed");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait(LIMIT).signal(), Some(15));
}

/// Where no descriptor is left, the signals cannot be caught. Those that were made ready for it
/// until then had no effect any more: the gateway went on without a watch, and no SIGTERM could
/// end it. It holds because whatever fails gives back what it has taken.
#[test]
fn a_watch_that_fails_leaves_the_signals_as_they_were() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let sandbox = Sandbox::new();
        let mut gateway = sandbox.role(ROLE_TEST, GATEWAY);
        gateway.err_line_with("=> open");
        ask(&mut gateway, "claim default gateway");
        assert_eq!(ask(&mut gateway, "listen-without-descriptors default"), "Internal");
        if signal == Signal::HUP {
            // A second attempt is as good as the first.
            assert_eq!(ask(&mut gateway, "listen default none"), "listening");
            gateway.signal(signal);
            assert_eq!(next_report(&mut gateway)["snapshot"]["signal_num"], 1);
            assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
        }
        gateway.signal(signal);
        assert_eq!(gateway.wait(LIMIT).signal(), Some(signal.as_raw()));
    }
}

/// A handler of the gateway's own is called beside ours, and stays when ours goes.
#[test]
fn a_handler_of_the_gateways_own_stays() {
    let sandbox = Sandbox::new();
    let mut gateway = Process::start(sandbox.role_command(ROLE_TEST, GATEWAY));
    gateway.err_line_with("=> open");
    ask(&mut gateway, "claim default gateway");
    assert_eq!(ask(&mut gateway, "handle TERM"), "handling");
    for order in ["listen default none", "unlisten default"] {
        ask(&mut gateway, order);
    }
    gateway.signal(Signal::TERM);
    gateway.err_line_with("?? handled");
    assert_eq!(ask(&mut gateway, "change default"), "changed");
}

/// `nohup`: what was ignored when the gateway started stays ignored.
#[test]
fn what_was_ignored_stays_ignored() {
    for (name, ignored, heard) in
        [("HUP", Signal::HUP, Signal::TERM), ("TERM", Signal::TERM, Signal::INT)]
    {
        let sandbox = Sandbox::new();
        let inner = sandbox.role_command(ROLE_TEST, GATEWAY);
        let mut command = sandbox.shell(&format!("trap '' {name}; exec \"$0\" \"$@\""));
        command.arg(inner.get_program()).args(inner.get_args()).env("IT_ROLE", GATEWAY);
        let mut gateway = listening(Process::start(command));
        gateway.signal(ignored);
        gateway.signal(heard);
        let report = next_report(&mut gateway);
        assert_eq!(report["snapshot"]["signal_num"], heard.as_raw(), "{report:#}");
        // Nor does the end of the watch bring its default back.
        assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
        gateway.signal(ignored);
        assert_eq!(ask(&mut gateway, "change default"), "changed");
        assert_eq!(sandbox.shutdown_rows(), 1);
    }
}

/// One process, two offices: each is told, each has its row, and one that goes takes nothing from
/// the other.
#[test]
fn two_tenures_of_one_process_are_both_told() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    ask(&mut gateway, "claim work gateway");
    assert_eq!(ask(&mut gateway, "listen work none"), "listening");
    let mut deployer = sandbox.deployer();
    deployer.send("TERM", gateway.pid());
    let mut told = Vec::new();
    for _ in 0..2 {
        let line = gateway.err_line_with("!! ");
        let report: Value = serde_json::from_str(line.split_once("!! ").unwrap().1).unwrap();
        assert_eq!(report["snapshot"]["sender"]["pid"], deployer.pid(), "{report:#}");
        told.push(report["profile"].as_str().unwrap().to_owned());
    }
    told.sort();
    assert_eq!(told, ["default", "work"]);
    let per_profile = "SELECT count(DISTINCT profile) FROM shutdowns";
    assert_eq!((sandbox.shutdown_rows(), sandbox.number(per_profile)), (2, 2));
    assert_eq!(ask(&mut gateway, "unlisten default"), "unlistened");
    deployer.send("TERM", gateway.pid());
    assert_eq!(next_report(&mut gateway)["profile"], "work");
    assert_eq!(ask(&mut gateway, "unlisten work"), "unlistened");
    deployer.send("TERM", gateway.pid());
    assert_eq!(gateway.wait(LIMIT).signal(), Some(15));
}

/// The snapshot alone asks no store, and takes no time.
#[test]
fn a_snapshot_without_a_store_takes_no_time() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.listening_gateway();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let taken: Value = serde_json::from_str(&ask(&mut gateway, "snapshot")).unwrap();
        best = best.min(micros(&taken));
        assert_complete(&taken["snapshot"]);
        assert_eq!(taken["snapshot"]["pid"], gateway.pid(), "{taken:#}");
        assert_eq!(taken["snapshot"]["signal"], "UNKNOWN", "{taken:#}");
        assert!(why(&taken["snapshot"]["recorded"]).contains("no store"), "{taken:#}");
    }
    assert_within(AT_ONCE, best, "it");
    assert_eq!(sandbox.shutdown_rows(), 0);
}
