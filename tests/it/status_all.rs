//! `status --all`, profiles that are served by another one's gateway, and Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use chrono::DateTime;
use incumbent::{
    Claim, ErrorKind, Field, Kind, PlatformUpdate, ProfileName, Report, StatusUpdate, Store,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Answer, Identity, LIMIT, Process, Run, Sandbox, has, pid_namespace, skipped, wait_stopped,
};

/// The longest profile, and the longest state.
const LONGEST: &str = "long-long-long-long-long-long-long-long-long-long-long-long-long";

/// A command that obeys: one order a line, the answer ends with its exit code.
const OBEYING: &str = r#"
    echo $$
    while read -r order; do
        answer=$(eval "$order" 2>&1 < /dev/null)
        code=$?
        printf '%s\n=> %s\n' "$answer" "$code"
    done
    exit 0"#;

/// The command of a `run`: what it calls, it calls as the holder of the office.
struct Gateway {
    process: Process,
    /// The command. Of one in another pid namespace it is not known.
    command: Option<Identity>,
}

impl Gateway {
    #[track_caller]
    fn start(command: Command) -> Self {
        let mut process = Process::start(command);
        let pid = process.line().trim().parse().expect("its pid");
        Self { process, command: Identity::of(pid) }
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What came of an order, and what it printed.
    #[track_caller]
    fn tell(&mut self, order: &str) -> (i32, String) {
        self.process.say(order);
        let mut said = Vec::new();
        loop {
            let line = self.process.line();
            if let Some(code) = line.strip_prefix("=> ") {
                return (code.parse().unwrap(), said.join("\n"));
            }
            said.push(line);
        }
    }

    /// `status-set` of its own.
    #[track_caller]
    fn says(&mut self, arguments: &str) {
        let (code, said) = self.tell(&format!("incumbent status-set {arguments}"));
        assert_eq!((code, said.as_str()), (0, ""), "status-set {arguments}");
    }

    /// `status-set` that is refused: the exit code and the message.
    #[track_caller]
    fn may_not_say(&mut self, arguments: &str, code: i32, words: &[&str]) {
        let (got, said) = self.tell(&format!("incumbent status-set {arguments}"));
        assert_eq!(got, code, "status-set {arguments}: {said}");
        for word in words {
            assert!(said.contains(word), "status-set {arguments}: no {word:?}: {said}");
        }
    }

    /// `kill -9`, and its command is gone as well.
    #[track_caller]
    fn kill(mut self) {
        self.process.kill();
        if let Some(command) = self.command {
            command.wait_gone(LIMIT);
        }
    }

    #[track_caller]
    fn end(self) -> Answer {
        self.process.finish(LIMIT)
    }
}

impl Sandbox {
    fn obeying_gateway(&self, profile: &str) -> Gateway {
        self.obeying_gateway_with(profile, &[])
    }

    /// A gateway that holds the office of `profile`.
    #[track_caller]
    fn obeying_gateway_with(&self, profile: &str, options: &[&str]) -> Gateway {
        let words = [&["run", "--no-backoff", "--profile", profile], options, OBEY].concat();
        Gateway::start(self.incumbent(words))
    }

    #[track_caller]
    fn hold_profile_named(&self, profile: &str) -> Run {
        self.hold(&["--profile", profile])
    }

    fn report_of_profile(&self, profile: &str) -> (i32, Value) {
        self.json(["status", "--profile", profile])
    }

    /// `status --json` of a profile; asserts its exit code and its reason.
    #[track_caller]
    fn assert_report_of(&self, profile: &str, code: i32, reason: &str) -> Value {
        let (got, document) = self.report_of_profile(profile);
        assert_eq!(
            (got, document["reason"].as_str()),
            (code, Some(reason)),
            "{profile}: {document:#}"
        );
        document
    }

    /// Asserts that `profile` is answered through `server`.
    #[track_caller]
    fn assert_served(&self, profile: &str, server: &str) -> Value {
        let document = self.assert_report_of(profile, 0, "anchor_held");
        assert_eq!(document["served_by"], by(server), "{document:#}");
        assert_eq!(document["profile"], profile, "{document:#}");
        document
    }

    /// Asserts that nobody runs for `profile`, and that nothing is shown of who once served it.
    #[track_caller]
    fn assert_nobodys(&self, profile: &str) {
        let document = self.assert_report_of(profile, 3, "never_claimed");
        for (key, nothing) in [
            ("running", json!(false)),
            ("pid", Value::Null),
            ("instance", Value::Null),
            ("state", Value::Null),
            ("runtime", Value::Null),
            ("platforms", json!({})),
            ("serves", json!([])),
            ("served_by", Value::Null),
        ] {
            assert_eq!(document[key], nothing, "{profile}: {key}: {document:#}");
        }
        let text = self.cli(["status", "--profile", profile]).assert_code(3).out;
        assert_eq!(first_line(&text), format!("{profile}/gateway: not running"));
    }

    /// `status --all --json`.
    #[track_caller]
    fn reports_of_all(&self, filters: &[&str]) -> Vec<Value> {
        let (code, document) = self.json([&["status", "--all"], filters].concat());
        assert_eq!(code, 0, "{document:#}");
        document.as_array().expect("an array").clone()
    }

    /// `status --all --metrics`, read strictly.
    #[track_caller]
    fn metrics_of_all(&self, filters: &[&str]) -> Metrics {
        let answer = self.cli([&["status", "--all", "--metrics"], filters].concat());
        let answer = answer.assert_code(0);
        assert_eq!(answer.err, "");
        Metrics::parse(&answer.out)
    }

    /// A process that is on record nowhere, and lives until its standard input is closed.
    #[track_caller]
    fn unrecorded_process(&self) -> Process {
        let mut process = Process::start(self.shell("echo $$; exec cat"));
        process.line();
        process
    }

    /// A gateway of which nothing can be said: recorded without an anchor, in a pid namespace that
    /// is not ours. Says first what `says` says.
    #[track_caller]
    fn gateway_of_nowhere(&self, profile: &str, says: &[&[&str]]) -> Process {
        let process = self.unrecorded_process();
        let pid = process.pid().to_string();
        let at = ["--profile", profile, "--pid", &pid];
        self.cli([&["claim", "--no-keeper"], &at[..]].concat()).assert_code(0);
        for arguments in says {
            self.cli([&["status-set"], &at[..], arguments].concat()).assert_code(0);
        }
        let forged = self.forge(&format!(
            "UPDATE instances SET anchor = NULL, pid_ns = 'pid:[1]'
             WHERE profile = '{profile}' AND ended_at_ms IS NULL"
        ));
        assert_eq!(forged, 1);
        process
    }

    /// Changes the store as no program of ours would: no rule of the schema stands in the way.
    #[track_caller]
    fn forge_freely(&self, script: &str) {
        let connection = rusqlite::Connection::open(self.db()).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        let rules = "PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF;";
        connection
            .execute_batch(&format!("{rules} {script}"))
            .unwrap_or_else(|error| panic!("{script}: {error}"));
    }

    /// What the store has of platforms: instance, profile, platform, state.
    fn platform_rows(&self) -> Vec<(i64, String, String, Option<String>)> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = rusqlite::Connection::open_with_flags(self.db(), flags).unwrap();
        connection.busy_timeout(LIMIT).unwrap();
        let mut query = connection
            .prepare(
                "SELECT instance_id, profile, platform, state FROM platform_status
                 ORDER BY instance_id, profile, platform",
            )
            .unwrap();
        query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }
}

/// What a [`Gateway`] runs.
const OBEY: &[&str] = &["--", "/bin/sh", "-c", OBEYING];

fn by(profile: &str) -> Value {
    json!({"profile": profile, "kind": "gateway"})
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn offices(reports: &[Value]) -> Vec<(String, String)> {
    let text = |report: &Value, key: &str| report[key].as_str().unwrap().to_owned();
    reports.iter().map(|report| (text(report, "profile"), text(report, "kind"))).collect()
}

fn profiles(reports: &[Value]) -> Vec<String> {
    offices(reports).into_iter().map(|(profile, _)| profile).collect()
}

/// A report without what grows while one looks at it.
fn report_without_times(report: &Value) -> Value {
    let mut report = report.clone();
    for key in ["/unresponsive_ms", "/locks/0/lease_remaining_ms"] {
        if let Some(value) = report.pointer_mut(key) {
            *value = json!(!value.is_null());
        }
    }
    report
}

/// Asserts that two reports say the same, and names the first field in which they do not.
#[track_caller]
fn assert_same(one: &Value, other: &Value) {
    let (one, other) = (report_without_times(one), report_without_times(other));
    let keys = |report: &Value| -> Vec<String> {
        report.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(keys(&one), keys(&other), "{one:#}");
    for key in keys(&one) {
        assert_eq!(one[&key], other[&key], "{key}: {one:#}");
    }
}

/// A store in which every office is another case. What holds them lives as long as this.
struct Town {
    alpha: Gateway,
    _held: Vec<Run>,
    _recorded: Vec<Process>,
}

/// Its offices, in the order of their names, and what is true of each.
const TOWN: &[(&str, &str, &str, &str)] = &[
    ("alpha", "gateway", "alive", "anchor_held"),
    ("alpha", "relay", "alive", "anchor_held"),
    ("ended", "gateway", "dead", "exited"),
    ("killed", "gateway", "dead", "anchor_released"),
    (LONGEST, "gateway", "alive", "anchor_held"),
    ("served", "gateway", "alive", "anchor_held"),
    ("stopped", "gateway", "alive", "anchor_held"),
    ("unsure", "gateway", "unknown", "foreign_namespace"),
    ("wanted", "gateway", "dead", "never_claimed"),
    ("zeta", "relay", "dead", "exited"),
];

impl Town {
    fn build(sandbox: &Sandbox) -> Self {
        let mut alpha = sandbox.obeying_gateway_with("alpha", &["--lock", "bot-token=12:34"]);
        alpha.says(
            "--state running --active-agents 3 --restart-requested true --extra '{\"a\":[1]}' \
             --exit-reason 'for now' --heartbeat=10ms --serves served \
             --platform telegram --platform-state connected",
        );
        alpha.says(
            "--platform mail --platform-state retrying --error-code E42 \
             --error-message 'no \"route\"' --needs-attention true --retrying-since now \
             --platform-extra 7",
        );
        alpha.says("--profile served --platform telegram --platform-state fatal --error-code 401");
        let relay = sandbox.unrecorded_process();
        let pid = relay.pid().to_string();
        sandbox
            .cli(["claim", "--profile", "alpha", "--kind", "relay", "--pid", &pid])
            .assert_code(0);
        for office in [&["--profile", "ended"][..], &["--profile", "zeta", "--kind", "relay"]] {
            let words = [&["run"], office, &["--", "true"]].concat();
            sandbox.cli(words).assert_code(0);
        }
        let mut killed = sandbox.obeying_gateway("killed");
        killed.says("--state running --active-agents 1 --platform mail --platform-state connected");
        killed.kill();
        let mut long = sandbox.obeying_gateway(LONGEST);
        long.says(&format!("--state {LONGEST}"));
        let long = Run { command: long.command.unwrap(), process: long.process };
        let stopped = sandbox.hold_profile_named("stopped");
        stopped.process.signal(Signal::STOP);
        wait_stopped(stopped.pid());
        let unsure = sandbox.gateway_of_nowhere("unsure", &[&["--state", "running"]]);
        sandbox.cli(["desired", "--profile", "wanted", "running"]).assert_code(0);
        sandbox.cli(["desired", "--profile", "alpha", "stopped"]).assert_code(0);
        Self { alpha, _held: vec![long, stopped], _recorded: vec![relay, unsure] }
    }
}

/// FIELD-BUGS rows 60, 63 and 65.
///
/// Symptom: the list of all gateways and the page of one of them contradicted each other: each had
/// a probe of its own. It holds because there is one function: what `--all` says of an office is
/// what `status` says of it, field by field, whatever became of its holder.
#[test]
fn what_all_says_of_an_office_is_what_status_says_of_it() {
    let sandbox = Sandbox::new();
    let town = Town::build(&sandbox);
    let reports = sandbox.reports_of_all(&[]);
    let told: Vec<_> = reports
        .iter()
        .map(|report| ["profile", "kind", "verdict", "reason"].map(|key| report[key].as_str()))
        .collect();
    let expected: Vec<_> = TOWN
        .iter()
        .map(|(profile, kind, verdict, reason)| {
            [profile, kind, verdict, reason].map(|it| Some(*it))
        })
        .collect();
    assert_eq!(told, expected);
    for (report, (profile, kind, verdict, _)) in reports.iter().zip(TOWN) {
        let (code, alone) = sandbox.json(["status", "--profile", profile, "--kind", kind]);
        assert_same(report, &alone);
        let expected = [("alive", 0), ("dead", 3), ("unknown", 4)];
        assert!(expected.contains(&(*verdict, code)), "{profile}: {code}: {alone:#}");
        assert_eq!(report["running"], *verdict == "alive", "{report:#}");
    }
    // What makes them different is there to be seen.
    let alpha = &reports[0];
    assert_eq!((&alpha["busy"], &alpha["drainable"]), (&json!(true), &json!(true)), "{alpha:#}");
    assert_eq!(alpha["locks"].as_array().unwrap().len(), 1, "{alpha:#}");
    assert_eq!(alpha["platforms"].as_object().unwrap().len(), 2, "{alpha:#}");
    assert!(alpha["unresponsive_ms"].as_i64() > Some(0), "{alpha:#}");
    assert_eq!(alpha["desired"], "stopped", "{alpha:#}");
    assert_eq!(reports[5]["served_by"], by("alpha"), "{:#}", reports[5]);
    assert_eq!(reports[6]["flags"], json!(["stopped"]), "{:#}", reports[6]);
    assert_eq!((&reports[3]["state"], &reports[3]["busy"]), (&Value::Null, &json!(false)));
    assert_eq!(reports[8]["desired"], "running", "{:#}", reports[8]);

    // Called within a run, where INCUMBENT_PROFILE says whose it is: all are all.
    let mut alpha = town.alpha;
    let (code, said) = alpha.tell("incumbent status --all --json");
    let within: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, offices(within.as_array().unwrap())), (0, offices(&reports)));
}

/// For people one line for each office, in the same order; nothing wraps, nothing is coloured where
/// no terminal is, and the exit code is 0 whoever is dead: the question was answered.
#[test]
fn the_table_has_a_line_for_every_office() {
    let sandbox = Sandbox::new();
    let _town = Town::build(&sandbox);
    let answer = sandbox.cli(["status", "--all"]).assert_code(0);
    assert_eq!(answer.err, "");
    assert!(answer.out.ends_with('\n') && !answer.out.contains('\u{1b}'), "{answer:#?}");
    let mut lines = answer.out.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header[..3], ["PROFILE", "KIND", "RUNNING"], "{answer:#?}");
    let rows: Vec<&str> = lines.collect();
    assert_eq!(rows.len(), TOWN.len(), "{answer:#?}");
    for (row, (profile, kind, verdict, _)) in rows.iter().zip(TOWN) {
        let running = match *verdict {
            "alive" => "yes",
            "dead" => "no",
            _ => "unknown",
        };
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words[..3], [*profile, *kind, running], "{answer:#?}");
    }
    for (row, words) in [
        (0, &["running", "1 of 2 ok", "unresponsive for", "should be stopped"][..]),
        (2, &["exited"]),
        (3, &["anchor released"]),
        (4, &[LONGEST]),
        (5, &["served by alpha", "0 of 1 ok"]),
        (6, &["stopped"]),
        (7, &["pid namespace"]),
        (8, &["never claimed", "should be running"]),
    ] {
        for word in words {
            assert!(rows[row].contains(word), "no {word:?} in {:?}", rows[row]);
        }
    }
    // What a dead one said is not true any more.
    for word in ["running", "1 of 1"] {
        assert!(!rows[3].contains(word), "{:?}", rows[3]);
    }
}

#[test]
fn all_can_be_narrowed_to_a_profile_and_to_a_kind() {
    let sandbox = Sandbox::new();
    let _town = Town::build(&sandbox);
    let everything = sandbox.reports_of_all(&[]);
    let word = |words: &[&str], name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        Some(words[at + 1].to_owned())
    };
    for filters in [
        &["--profile", "alpha"][..],
        &["--kind", "relay"],
        &["--kind", "gateway"],
        &["--profile", "alpha", "--kind", "relay"],
        &["--profile", "served"],
        &["--profile", "wanted"],
        &["--profile", "zeta"],
        &["--profile", "zeta", "--kind", "gateway"],
        &["--profile", "nobody"],
        &["--kind", "nothing"],
    ] {
        let (profile, kind) = (word(filters, "--profile"), word(filters, "--kind"));
        let expected: Vec<_> = offices(&everything)
            .into_iter()
            .filter(|office| profile.as_ref().is_none_or(|name| *name == office.0))
            .filter(|office| kind.as_ref().is_none_or(|kind| *kind == office.1))
            .collect();
        let found = sandbox.reports_of_all(filters);
        assert_eq!(offices(&found), expected, "{filters:?}");
        for report in &found {
            let same = everything.iter().find(|other| {
                (&other["profile"], &other["kind"]) == (&report["profile"], &report["kind"])
            });
            assert_same(report, same.unwrap());
        }
        let text = sandbox.cli([&["status", "--all"], filters].concat()).assert_code(0).out;
        assert_eq!(text.lines().count(), expected.len() + 1, "{text}");
        // That nobody at all has claimed anything is said of an empty store only.
        let nothing = Sandbox::new().cli(["status", "--all"]).assert_code(0).out;
        assert_ne!(text, nothing, "{filters:?}");
        let metrics = sandbox.metrics_of_all(filters);
        let verdicts = metrics.series("incumbent_gateway_verdict");
        assert_eq!(verdicts, 3 * expected.len(), "{filters:?}");
    }
    for bad in [["--profile", ".."], ["--kind", "a b"]] {
        sandbox.cli([&["status", "--all"][..], &bad].concat()).assert_code(2);
    }
}

/// Where there is no store nobody runs: that is an answer, and asking makes no store.
#[test]
fn without_a_store_there_is_nothing_to_list() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.reports_of_all(&[]), [] as [Value; 0]);
    let answer = sandbox.cli(["status", "--all"]).assert_code(0);
    assert_eq!((answer.out.lines().count(), answer.err.as_str()), (1, ""), "{answer:#?}");
    let answer = sandbox.cli(["status", "--all", "--metrics"]).assert_code(0);
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("", ""));
    assert!(!sandbox.file("store").exists());

    // And one in which nothing is on record yet.
    drop(Store::open(sandbox.db()).unwrap());
    assert_eq!(sandbox.reports_of_all(&[]), [] as [Value; 0]);
    let answer = sandbox.cli(["status", "--all", "--metrics"]).assert_code(0);
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("", ""));
}

/// A store that is there and cannot be read is no empty store.
#[test]
fn a_store_that_cannot_be_read_is_an_error_also_for_all() {
    let sandbox = Sandbox::new();
    sandbox.cli(["run", "--", "true"]).assert_code(0);
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(sandbox.file(&format!("store/state.db{suffix}")));
    }
    std::fs::write(sandbox.db(), "this is no database, and long enough to be one ".repeat(40))
        .unwrap();
    for format in [&["--json"][..], &[], &["--metrics"]] {
        let answer = sandbox.cli([&["status", "--all"], format].concat());
        assert_ne!(answer.code(), 0, "{format:?}: {answer:#?}");
        if format != ["--json"] {
            assert_eq!(answer.out, "", "{format:?}");
        }
    }
}

/// FIELD-BUGS row 58.
///
/// Symptom: one bad row, and no gateway of the machine could be looked at any more. It holds
/// because a name that no program of ours writes is nobody's: it is passed by, and the others are
/// listed.
#[test]
fn names_of_invalid_bytes_hide_nobody() {
    let sandbox = Sandbox::new();
    let mut alpha = sandbox.obeying_gateway("alpha");
    alpha.says("--serves served --platform mail --platform-state connected");
    let _zeta = sandbox.hold_profile_named("zeta");
    let before = sandbox.reports_of_all(&[]);
    assert_eq!(profiles(&before), ["alpha", "served", "zeta"]);
    let bad = [
        "CAST(x'ff' AS TEXT)",
        "CAST(x'61ff62' AS TEXT)",
        "CAST(x'00' AS TEXT)",
        "'in a row' || char(10) || 'of two'",
        "''",
        "'../up'",
    ];
    for (at, name) in bad.iter().enumerate() {
        let id = 7_000_000_000_000_000 + 3 * at;
        sandbox.forge_freely(&format!(
            "INSERT INTO profiles (profile, created_at_ms) VALUES ({name}, 1);
             INSERT INTO instances (id, nonce_hash, profile, kind, origin, pid, stop_budget_ms,
                started_at_ms)
             VALUES ({id}, 'x', {name}, 'gateway', 'run', 4711, 1, 1),
                ({id} + 1, 'x', 'alpha', {name}, 'run', 4711, 1, 1),
                ({id} + 2, 'x', {name}, {name}, 'run', 4711, 1, 1);
             INSERT INTO serves (instance_id, profile, since_at_ms)
             SELECT id, {name}, 1 FROM instances WHERE profile = 'alpha' AND kind = 'gateway';
             INSERT INTO serves (instance_id, profile, since_at_ms) VALUES ({id}, 'served', 1);"
        ));
    }
    let after = sandbox.reports_of_all(&[]);
    assert_eq!(offices(&after), offices(&before));
    for (before, after) in before.iter().zip(&after) {
        assert_same(before, after);
    }
    for profile in ["alpha", "served", "zeta"] {
        assert_eq!(sandbox.report_of_profile(profile).0, 0, "{profile}");
    }
    sandbox.cli(["status", "--all"]).assert_code(0);
    assert_eq!(sandbox.metrics_of_all(&[]).series("incumbent_gateway_up"), 3);
    // The gateway itself goes on speaking, and its next word puts right what was its own.
    alpha.says("--serves served --state running");
    let alpha = sandbox.assert_report_of("alpha", 0, "anchor_held");
    assert_eq!(alpha["serves"], json!(["served"]), "{alpha:#}");
}

/// Asking is for any thread of a gateway that links the library, and says the same.
#[test]
fn the_library_says_what_the_command_line_says() {
    let sandbox = Sandbox::new();
    let _town = Town::build(&sandbox);
    let store = Store::open_existing(sandbox.db()).unwrap().expect("a store");
    let reports: Vec<Value> = store.status_of_all().unwrap().iter().map(Report::to_json).collect();
    let told = sandbox.reports_of_all(&[]);
    assert_eq!(offices(&reports), offices(&told));
    for (report, told) in reports.iter().zip(&told) {
        assert_same(report, told);
    }
}

/// FIELD-BUGS row 81.
///
/// Symptom: `status` of a newer version changed the store under a gateway of the one before. It
/// holds because only owning migrates: from an older store all are told, with nothing said and
/// nobody served, and not a byte of it changes.
#[test]
fn an_older_store_is_told_and_left_as_it_is() {
    for version in [1, 2, 3] {
        let sandbox = Sandbox::new();
        sandbox.cli(["run", "--kind", "relay", "--", "true"]).assert_code(0);
        sandbox.cli(["desired", "--profile", "wanted", "stopped"]).assert_code(0);
        let script = sandbox.unrecorded_process();
        let pid = script.pid().to_string();
        sandbox.cli(["claim", "--pid", &pid]).assert_code(0);
        sandbox.age_to(version);
        let before = sandbox.picture();

        let reports = sandbox.reports_of_all(&[]);
        let expected = [("default", "gateway"), ("default", "relay"), ("wanted", "gateway")];
        let expected: Vec<_> =
            expected.iter().map(|(one, two)| ((*one).to_owned(), (*two).to_owned())).collect();
        assert_eq!(offices(&reports), expected, "version {version}");
        assert_eq!(reports[0]["verdict"], "alive", "{:#}", reports[0]);
        assert_eq!(reports[1]["reason"], "exited", "{:#}", reports[1]);
        assert_eq!(reports[2]["desired"], "stopped", "{:#}", reports[2]);
        for report in &reports {
            for (key, nothing) in [
                ("state", Value::Null),
                ("runtime", Value::Null),
                ("platforms", json!({})),
                ("serves", json!([])),
                ("served_by", Value::Null),
                ("stale", json!(false)),
                ("unresponsive_ms", Value::Null),
            ] {
                assert_eq!(report[key], nothing, "version {version}: {key}: {report:#}");
            }
            let office = ["profile", "kind"].map(|key| report[key].as_str().unwrap());
            let alone = sandbox.json(["status", "--profile", office[0], "--kind", office[1]]).1;
            assert_same(report, &alone);
        }
        sandbox.cli(["status", "--all"]).assert_code(0);
        sandbox.metrics_of_all(&[]).assert_equals(&reports);
        let after = sandbox.picture();
        assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
        for (path, facts) in &before {
            assert!(*facts == after[path], "a question wrote to {}", path.display());
        }
        // Who ends a profile that nobody holds asks for a server as well.
        let (code, stopped) = sandbox.json(["stop", "--profile", "wanted"]);
        assert_eq!((code, &stopped["served_by"]), (0, &Value::Null), "{stopped:#}");
        let (code, answer) = sandbox.json(["restart", "--profile", "wanted"]);
        assert_eq!((code, &answer["served_by"]), (3, &Value::Null), "{answer:#}");
        assert_eq!(sandbox.number("PRAGMA user_version"), version);
    }
}

/// FIELD-BUGS row 65.
///
/// Symptom: one gateway served two profiles, and `status` of the second one said "stopped". Cause:
/// it looked for a holder of that profile only. It holds because who serves whom is on record: the
/// question goes to the server, and the answer says so.
#[test]
fn a_served_profile_is_answered_through_its_server() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --state running --active-agents 2");
    server.says("--profile b --platform telegram --platform-state connected");

    let a = sandbox.assert_report_of("a", 0, "anchor_held");
    assert_eq!((&a["serves"], &a["served_by"]), (&json!(["b"]), &Value::Null), "{a:#}");
    assert_eq!(a["platforms"], json!({}), "{a:#}");
    let b = sandbox.assert_served("b", "a");
    for key in ["pid", "instance", "since", "state", "busy", "drainable", "evidence", "runtime"] {
        assert_eq!(a[key], b[key], "{key}");
    }
    assert_eq!((&b["pid"], &b["state"]), (&json!(server.pid()), &json!("running")), "{b:#}");
    assert_eq!(b["platforms"]["telegram"]["state"], "connected", "{b:#}");
    sandbox.assert_nobodys("c");

    let text = sandbox.cli(["status", "--profile", "b"]).assert_code(0).out;
    let first = format!("b/gateway: running, served by a/gateway, pid {}, since ", server.pid());
    assert!(text.starts_with(&first), "{text}");
    let text = sandbox.cli(["status", "--profile", "a"]).assert_code(0).out;
    assert!(text.contains("serves ") && !first_line(&text).contains("served"), "{text}");

    // The gateway is of one kind, and serves others in that.
    let (code, relay) = sandbox.json(["status", "--profile", "b", "--kind", "relay"]);
    assert_eq!((code, &relay["reason"]), (3, &json!("never_claimed")), "{relay:#}");
    assert_eq!(profiles(&sandbox.reports_of_all(&[])), ["a", "b"]);

    // What an operator wants is said of each profile by itself.
    sandbox.cli(["desired", "--profile", "b", "running"]).assert_code(0);
    assert_eq!(sandbox.assert_served("b", "a")["desired"], "running");
    assert_eq!(sandbox.report_of_profile("a").1["desired"], Value::Null);

    server.end().assert_code(0);
    sandbox.assert_nobodys("c");
    assert_eq!(sandbox.report_of_profile("a").1["serves"], json!([]));
    let b = sandbox.assert_report_of("b", 3, "never_claimed");
    assert_eq!((&b["served_by"], &b["desired"]), (&Value::Null, &json!("running")), "{b:#}");
}

/// FIELD-BUGS row 64.
///
/// Symptom: the second profile's failure replaced the first one's "connected". Cause: the status
/// was keyed by the platform alone. It holds because its key is instance, profile and platform.
#[test]
fn profiles_that_report_the_same_platform_never_overwrite_each_other() {
    let sandbox = Sandbox::new();
    let mut first = sandbox.obeying_gateway("a");
    let mut second = sandbox.obeying_gateway("x");
    first.says("--serves b --platform telegram --platform-state a-of-a");
    second.says("--serves b --platform telegram --platform-state x-of-x");
    first.says("--profile b --platform telegram --platform-state b-of-a --error-code E1");
    second.says("--profile b --platform telegram --platform-state b-of-x");
    let rows = sandbox.platform_rows();
    let states: BTreeSet<_> =
        rows.iter().map(|row| (row.1.as_str(), row.3.as_deref().unwrap())).collect();
    let expected = [("a", "a-of-a"), ("b", "b-of-a"), ("b", "b-of-x"), ("x", "x-of-x")];
    assert_eq!(states, BTreeSet::from(expected));

    let telegram =
        |profile: &str| sandbox.report_of_profile(profile).1["platforms"]["telegram"].clone();
    assert_eq!(telegram("a")["state"], "a-of-a");
    assert_eq!(telegram("x")["state"], "x-of-x");
    // Of two that serve it the younger one answers, with what it said itself.
    sandbox.assert_served("b", "x");
    let of_b = telegram("b");
    assert_eq!((&of_b["state"], &of_b["error_code"]), (&json!("b-of-x"), &Value::Null));
    // A change, a clear and a removal are of one row.
    first.says("--profile b --platform telegram --clear error-code --platform-state changed");
    first.says("--profile b --platform telegram --clear platform");
    assert_eq!(telegram("b")["state"], "b-of-x");
    assert_eq!(telegram("a")["state"], "a-of-a");
    first.says("--profile b --platform telegram --platform-state again");
    second.says("--clear platforms");
    assert_eq!(telegram("x"), Value::Null);
    assert_eq!(telegram("b")["state"], "b-of-x");
    // And when it has gone, the other one.
    second.kill();
    sandbox.assert_served("b", "a");
    assert_eq!(telegram("b")["state"], "again");
    first.kill();
    sandbox.assert_nobodys("b");
}

/// FIELD-BUGS rows 60 and 65.
///
/// Symptom: a dead gateway was shown as running for the profiles that it had served. It holds
/// because the row that says who serves whom proves nothing: the server is looked at, as for
/// itself.
#[test]
fn who_is_served_is_as_alive_as_its_server() {
    let sandbox = Sandbox::new();
    // Stopped: alive, and it shows.
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --state running");
    server.process.signal(Signal::STOP);
    wait_stopped(server.pid());
    assert_eq!(sandbox.assert_served("b", "a")["flags"], json!(["stopped"]));
    let text = sandbox.cli(["status", "--profile", "b"]).assert_code(0).out;
    assert!(text.starts_with("b/gateway: running (stopped), served by a/gateway"), "{text}");
    server.process.signal(Signal::CONT);
    // Killed.
    server.kill();
    sandbox.assert_nobodys("b");
    sandbox.assert_report_of("a", 3, "anchor_released");
    // Ended by itself, and by a stop.
    for ends_by_itself in [true, false] {
        let mut server = sandbox.obeying_gateway("a");
        sandbox.assert_nobodys("b");
        server.says("--serves b");
        sandbox.assert_served("b", "a");
        if ends_by_itself {
            server.end().assert_code(0);
        } else {
            sandbox.cli(["stop", "--profile", "a"]).assert_code(0);
        }
        sandbox.assert_nobodys("b");
    }
    // Evicted: the process lives, and is nobody's server.
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b");
    server.process.signal(Signal::STOP);
    wait_stopped(server.pid());
    sandbox.cli(["evict", "--force", "--profile", "a"]).assert_code(0);
    sandbox.assert_nobodys("b");
    // Whom the last one served is still listed: nobody may serve it now.
    let all = sandbox.reports_of_all(&[]);
    assert_eq!(profiles(&all), ["a", "b"]);
    assert_eq!((&all[1]["verdict"], &all[1]["served_by"]), (&json!("dead"), &Value::Null));
    server.kill();
    // Taken over: the next one serves whom it says that it serves.
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --serves c");
    let mut next = sandbox.obeying_gateway_with("a", &["--replace"]);
    sandbox.assert_nobodys("b");
    sandbox.assert_nobodys("c");
    next.says("--serves c");
    sandbox.assert_nobodys("b");
    assert_eq!(sandbox.assert_served("c", "a")["pid"], next.pid());
    // Started anew within the same tenure: the new command has said nothing yet.
    Process::start(sandbox.incumbent(["restart", "--profile", "a"])).finish(LIMIT).assert_code(0);
    sandbox.assert_nobodys("c");
    assert_eq!(sandbox.assert_report_of("a", 0, "anchor_held")["pid"], next.pid());
}

/// FIELD-BUGS row 27: the server is in a container, or whoever asks is.
#[test]
fn a_server_in_another_pid_namespace_is_seen() {
    let Some(namespace) = pid_namespace() else { return skipped("needs a pid namespace") };
    let sandbox = Sandbox::new();
    let run = [&["run", "--no-backoff", "--profile", "a"], OBEY].concat();
    let mut server = Gateway::start(sandbox.incumbent_under(namespace, &run));
    // It is not the process of that number out here.
    server.command = None;
    server.says("--serves b --state running --platform mail --platform-state connected");
    server.says("--profile b --platform mail --platform-state retrying");
    let b = sandbox.assert_served("b", "a");
    assert_eq!((&b["flags"], &b["pid"]), (&json!(["elsewhere"]), &json!(1)), "{b:#}");
    assert_eq!(b["platforms"]["mail"]["state"], "retrying", "{b:#}");
    // A stop of what it serves reaches nobody either.
    assert_eq!(sandbox.json(["stop", "--profile", "b"]).0, 1);

    let ask = |words: &[&str]| {
        let command = sandbox.incumbent_under(namespace, &[&["--json"], words].concat());
        let answer = Process::start(command).finish(LIMIT);
        (answer.code(), answer.json())
    };
    let (code, inside) = ask(&["status", "--profile", "b"]);
    assert_eq!((code, &inside["served_by"]), (0, &by("a")), "{inside:#}");
    let (code, all) = ask(&["status", "--all"]);
    assert_eq!((code, profiles(all.as_array().unwrap())), (0, vec!["a".into(), "b".into()]));
    server.end().assert_code(0);
    sandbox.assert_nobodys("b");
    let (code, inside) = ask(&["status", "--profile", "b"]);
    assert_eq!((code, &inside["reason"]), (3, &json!("never_claimed")), "{inside:#}");
}

/// Serving is no office: whoever claims the profile itself gets it, and its answer wins for as long
/// as it lives; then the server answers again.
#[test]
fn who_claims_a_served_profile_gets_it_and_answers_for_it() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --state running --active-agents 1");
    server.says("--profile b --platform mail --platform-state of-the-server");
    sandbox.assert_served("b", "a");

    let mut own = sandbox.obeying_gateway("b");
    let said = |report: &Value| {
        assert_eq!((&report["served_by"], &report["platforms"]), (&Value::Null, &json!({})));
        assert_eq!((&report["busy"], &report["state"]), (&json!(false), &Value::Null));
    };
    let b = sandbox.assert_report_of("b", 0, "anchor_held");
    said(&b);
    assert_eq!(b["pid"], own.pid(), "{b:#}");
    let all = sandbox.reports_of_all(&[]);
    assert_eq!(profiles(&all), ["a", "b"], "each once");
    said(&all[1]);
    let text = sandbox.cli(["status", "--profile", "b"]).assert_code(0).out;
    assert!(!first_line(&text).contains("served"), "{text}");
    own.says("--platform mail --platform-state of-its-own");
    assert_eq!(sandbox.report_of_profile("b").1["platforms"]["mail"]["state"], "of-its-own");
    // The server goes on saying what it sees, and overwrites nothing.
    server.says("--profile b --platform mail --platform-state still-of-the-server");
    assert_eq!(sandbox.report_of_profile("b").1["platforms"]["mail"]["state"], "of-its-own");
    assert_eq!(sandbox.report_of_profile("a").1["serves"], json!(["b"]));
    // A stop is of the one that holds it.
    sandbox.cli(["stop", "--profile", "b"]).assert_code(0);
    let b = sandbox.assert_served("b", "a");
    assert_eq!(b["platforms"]["mail"]["state"], "still-of-the-server", "{b:#}");
    assert_eq!(b["pid"], server.pid(), "{b:#}");

    // Killed, it is the server's as well.
    sandbox.obeying_gateway("b").kill();
    sandbox.assert_served("b", "a");
    // A recorded one.
    let script = sandbox.unrecorded_process();
    let pid = script.pid().to_string();
    let (code, claim) = sandbox.json(["claim", "--profile", "b", "--pid", &pid]);
    assert_eq!((code, &claim["granted"]), (0, &json!(true)), "{claim:#}");
    assert_eq!(sandbox.assert_report_of("b", 0, "anchor_held")["pid"], script.pid());
    sandbox.cli(["release", "--profile", "b", "--pid", &pid]).assert_code(0);
    sandbox.assert_served("b", "a");
    // One of which nothing can be said is still the one that holds it: unknown is never dead.
    let _unsure = sandbox.gateway_of_nowhere("b", &[]);
    let b = sandbox.assert_report_of("b", 4, "foreign_namespace");
    assert_eq!((&b["served_by"], &b["running"]), (&Value::Null, &json!(false)), "{b:#}");
    sandbox.cli(["evict", "--force", "--profile", "b"]).assert_code(0);
    sandbox.assert_served("b", "a");
}

/// Among several that serve a profile one that lives answers before one of which nothing is known,
/// and that one before the dead, whoever came last.
#[test]
fn of_several_servers_the_living_answer_first() {
    let sandbox = Sandbox::new();
    let mut alive = sandbox.obeying_gateway("s1");
    alive.says("--serves b --state running");
    let mut dead = sandbox.obeying_gateway("s2");
    dead.says("--serves b --state running");
    let _unsure = sandbox.gateway_of_nowhere("s3", &[&["--serves", "b"], &["--state", "draining"]]);
    let mut killed = sandbox.obeying_gateway("s4");
    killed.says("--serves b --state running");
    sandbox.assert_served("b", "s4");
    killed.kill();
    // The youngest is unknown; of the others the younger one that lives.
    sandbox.assert_served("b", "s2");
    dead.kill();
    sandbox.assert_served("b", "s1");
    alive.kill();
    let b = sandbox.assert_report_of("b", 4, "foreign_namespace");
    assert_eq!((&b["served_by"], &b["running"]), (&by("s3"), &json!(false)), "{b:#}");
    assert_eq!((&b["state"], &b["drainable"]), (&json!("draining"), &json!(false)), "{b:#}");
    let text = sandbox.cli(["status", "--profile", "b"]).assert_code(4).out;
    assert!(text.starts_with("b/gateway: unknown, served by s3/gateway, pid "), "{text}");
    // Whether a stop would reach it is not known either.
    sandbox.cli(["stop", "--profile", "b"]).assert_code(4).assert_complains(&["served by s3"]);
    // What a person can do about it names the office that there is.
    assert!(text.contains("evict --force --profile s3 --kind gateway"), "{text}");
    sandbox.cli(["evict", "--force", "--profile", "s3"]).assert_code(0);
    sandbox.assert_nobodys("b");
}

/// Whom one gateway serves is bounded, and however often it changes its mind, what happened to the
/// offices stays on record.
#[test]
fn a_server_of_very_many_is_refused_and_pushes_nothing_out() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let Claim::Granted(tenure) = store.profile("a").unwrap().claim().unwrap() else {
        panic!("nobody else is here")
    };
    let names = |count: usize| -> Vec<ProfileName> {
        (0..count).map(|n| ProfileName::new(format!("p{n}")).unwrap()).collect()
    };
    let refused = tenure.update_status(&StatusUpdate::new().serves(names(257))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.hint().is_some_and(|hint| hint.contains("256")), "{refused:?}");
    for _ in 0..25 {
        tenure.update_status(&StatusUpdate::new().serves(names(256))).unwrap();
        tenure.update_status(&StatusUpdate::new().serves(Field::Clear)).unwrap();
    }
    let kept = sandbox.number("SELECT count(*) FROM events");
    assert!((10_000..=11_100).contains(&kept), "{kept}");
    assert_eq!(sandbox.number("SELECT count(*) FROM events WHERE event = 'office_claimed'"), 1);
    // Its own profile it serves anyway.
    let own = ProfileName::new("a").unwrap();
    tenure.update_status(&StatusUpdate::new().serves(vec![own])).unwrap();
    assert_eq!(store.profile("a").unwrap().status().unwrap().serves, []);
}

/// Two gateways that stand in for each other: each answers for itself while it lives, the one that
/// is left for both, and nobody goes round in circles when both are gone.
#[test]
fn two_that_serve_each_other_answer_for_themselves_first() {
    let sandbox = Sandbox::new();
    let mut a = sandbox.obeying_gateway("a");
    let mut b = sandbox.obeying_gateway("b");
    a.says("--serves b --state running");
    b.says("--serves a --state draining");
    for (profile, gateway) in [("a", &a), ("b", &b)] {
        let report = sandbox.assert_report_of(profile, 0, "anchor_held");
        assert_eq!(report["pid"], gateway.pid(), "{report:#}");
        assert_eq!(report["served_by"], Value::Null, "{report:#}");
    }
    a.kill();
    let report = sandbox.assert_served("a", "b");
    assert_eq!((&report["pid"], &report["state"]), (&json!(b.pid()), &json!("draining")));
    assert_eq!(profiles(&sandbox.reports_of_all(&[])), ["a", "b"]);
    b.kill();
    for profile in ["a", "b"] {
        let report = sandbox.assert_report_of(profile, 3, "anchor_released");
        assert_eq!((&report["served_by"], &report["serves"]), (&Value::Null, &json!([])));
    }
    assert_eq!(profiles(&sandbox.reports_of_all(&[])), ["a", "b"]);
}

/// A gateway of another kind serves others in that kind, and hides nobody of the usual one.
#[test]
fn a_server_serves_in_its_own_kind() {
    let sandbox = Sandbox::new();
    let mut relay = sandbox.obeying_gateway_with("a", &["--kind", "relay"]);
    relay.says("--kind relay --serves b --state running");
    let (code, b) = sandbox.json(["status", "--profile", "b", "--kind", "relay"]);
    assert_eq!((code, &b["served_by"]["kind"]), (0, &json!("relay")), "{b:#}");
    sandbox.assert_nobodys("b");
    let expected = [("a", "relay"), ("b", "relay")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(offices(&sandbox.reports_of_all(&[])), expected);
    let own = sandbox.hold(&["--profile", "b"]);
    assert_eq!(sandbox.assert_report_of("b", 0, "anchor_held")["pid"], own.pid());
    assert_eq!(sandbox.json(["status", "--profile", "b", "--kind", "relay"]).0, 0);
    let stop = ["stop", "--profile", "b", "--kind", "relay"];
    let instead = "incumbent --profile a --kind relay stop";
    sandbox.cli(stop).assert_code(1).assert_complains(&["served by a/relay", instead]);
    own.end().assert_code(0);
    relay.end().assert_code(0);
}

/// Whom it serves is set as a whole: what it said of the platforms of those that it serves no more
/// goes with them.
#[test]
fn whom_it_serves_is_set_replaced_and_cleared() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    let list_of =
        |sandbox: &Sandbox| sandbox.assert_report_of("a", 0, "anchor_held")["serves"].clone();
    let platforms = |sandbox: &Sandbox| -> Vec<(String, String)> {
        sandbox.platform_rows().into_iter().map(|row| (row.1, row.2)).collect()
    };
    let pair = |one: &str, two: &str| (one.to_owned(), two.to_owned());
    server.says("--serves c --serves b --serves c");
    assert_eq!(list_of(&sandbox), json!(["b", "c"]));
    for profile in ["a", "b", "c"] {
        server.says(&format!("--profile {profile} --platform mail --platform-state connected"));
    }
    // Kept: by what says nothing of it, and by what says the same.
    let events = || sandbox.number("SELECT count(*) FROM events WHERE event = 'serves_changed'");
    assert_eq!(events(), 1);
    server.says("--state running --heartbeat");
    server.says("--serves b --serves c");
    assert_eq!((list_of(&sandbox), events()), (json!(["b", "c"]), 1));
    sandbox.assert_served("b", "a");
    sandbox.assert_served("c", "a");
    // Replaced.
    server.says("--serves c --serves d");
    assert_eq!((list_of(&sandbox), events()), (json!(["c", "d"]), 2));
    assert_eq!(platforms(&sandbox), [pair("a", "mail"), pair("c", "mail")]);
    sandbox.assert_nobodys("b");
    // Who comes back starts fresh.
    server.says("--serves b --serves c");
    assert_eq!(sandbox.assert_served("b", "a")["platforms"], json!({}));
    // Platforms forgotten are those of the profile that is meant.
    server.says("--profile b --platform mail --platform-state connected");
    server.says("--profile c --clear platforms");
    assert_eq!(platforms(&sandbox), [pair("a", "mail"), pair("b", "mail")]);
    // Its own profile is its own, served or not.
    server.says("--serves a --serves b");
    assert_eq!(sandbox.assert_report_of("a", 0, "anchor_held")["served_by"], Value::Null);
    assert_eq!(profiles(&sandbox.reports_of_all(&[])), ["a", "b"]);
    sandbox.assert_served("b", "a");
    server.says("--serves b");
    assert_eq!(platforms(&sandbox), [pair("a", "mail"), pair("b", "mail")]);
    // Cleared.
    server.says("--clear serves");
    assert_eq!(list_of(&sandbox), json!([]));
    assert_eq!(platforms(&sandbox), [pair("a", "mail")]);
    assert_eq!(profiles(&sandbox.reports_of_all(&[])), ["a"]);
    sandbox.assert_nobodys("b");
    // Not both at once, and no name that is none.
    server.may_not_say("--serves b --clear serves", 2, &["serves"]);
    server.may_not_say("--serves ../b", 2, &["../b"]);
}

/// FIELD-BUGS row 65.
///
/// Symptom: `stop` of a served profile said that nothing runs, and exited with 0. It holds because
/// it is told who serves it, what to do instead, and that nothing was done: the others that the
/// same gateway serves are none of that stop's business.
#[test]
fn a_served_profile_is_not_stopped_behind_its_servers_back() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    let (code, said) = server.tell("trap 'echo signalled' TERM HUP INT USR1");
    assert_eq!((code, said.as_str()), (0, ""));
    server.says("--serves b --state running");
    let before = sandbox.report_of_profile("a").1;
    let events = sandbox.number("SELECT count(*) FROM events");

    for verb in ["stop", "restart"] {
        for more in [&[][..], &["--timeout", "0"], &["--reason", "now"]] {
            let words = [&[verb, "--profile", "b"], more].concat();
            let answer = sandbox.cli(words).assert_code(1);
            assert_eq!(answer.out, "");
            let instead = format!("incumbent --profile a --kind gateway {verb}");
            answer.assert_complains(&["b/gateway is served by a/gateway", "try:", &instead]);
        }
        let (code, document) = sandbox.json([verb, "--profile", "b"]);
        assert_eq!((code, &document["served_by"]), (1, &by("a")), "{document:#}");
        assert_eq!(document["profile"], "b", "{document:#}");
    }
    let (code, stop) = sandbox.json(["stop", "--force", "--profile", "b"]);
    assert_eq!((code, &stop["stopped"], &stop["killed"]), (1, &json!(false), &json!(false)));
    assert_eq!((&stop["was_running"], &stop["still_runs"]), (&json!(true), &json!(true)));
    assert_eq!(stop["pid"], server.pid(), "{stop:#}");
    // What is wanted is said of the profile itself, and stays.
    let (code, stop) = sandbox.json(["stop", "--desired", "--profile", "b"]);
    assert_eq!((code, &stop["not_desired"]), (1, &Value::Null), "{stop:#}");
    let (code, desired) = sandbox.json(["desired", "--profile", "b"]);
    assert_eq!((code, &desired["desired"]), (0, &json!("stopped")), "{desired:#}");
    assert_eq!(sandbox.report_of_profile("a").1["desired"], Value::Null);
    let row = &sandbox.cli(["status", "--all", "--profile", "b"]).out;
    assert!(row.contains("should be stopped"), "{row}");

    // Nobody was asked for anything, and no signal came. (An order is answered after a signal.)
    assert_eq!(server.tell("true"), (0, String::new()));
    assert_same(&before, &sandbox.report_of_profile("a").1);
    let asked = "SELECT count(*) FROM markers";
    assert_eq!(sandbox.number(asked), 0);
    let wished = sandbox.number("SELECT count(*) FROM events WHERE event LIKE 'desired%'");
    assert_eq!(sandbox.number("SELECT count(*) FROM events"), events + wished);
    // Of a profile that nobody serves there is nothing to stop.
    sandbox.cli(["stop", "--profile", "c"]).assert_code(0);
    sandbox.cli(["restart", "--profile", "c"]).assert_code(3);
    // A stop of what serves it ends both.
    sandbox.cli(["stop", "--force", "--timeout", "0", "--profile", "a"]).assert_code(0);
    assert_eq!(sandbox.report_of_profile("b").0, 3);
}

/// Inside of the run the words of a gateway that serves others reach each of them by its platforms;
/// what is true of the process as a whole is said once, under its own name.
#[test]
fn a_server_speaks_of_the_platforms_of_whom_it_serves_and_of_nobody_else() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --state running");
    let mut other = sandbox.obeying_gateway("x");
    server.says("--profile b --platform mail --platform-state connected --needs-attention true");
    let mail = &sandbox.assert_served("b", "a")["platforms"]["mail"];
    assert_eq!((&mail["state"], &mail["needs_attention"]), (&json!("connected"), &json!(true)));
    let before = sandbox.report_of_profile("a").1;
    for arguments in [
        "--state draining",
        "--exit-reason because",
        "--active-agents 4",
        "--restart-requested true",
        "--extra 1",
        "--clear state",
        "--heartbeat",
        "--serves c",
        "--clear serves",
        "--state draining --platform mail --platform-state retrying",
    ] {
        let arguments = format!("--profile b {arguments}");
        server.may_not_say(&arguments, 2, &["served by a/gateway", "--profile a"]);
    }
    for profile in ["x", "nobody"] {
        for arguments in ["--platform mail --platform-state connected", "--state draining"] {
            server.may_not_say(&format!("--profile {profile} {arguments}"), 1, &[profile]);
        }
    }
    server.may_not_say(
        "--profile b --kind relay --platform mail --error-code E",
        1,
        &["a/gateway"],
    );
    // Nor does anybody else speak for whom it serves.
    other.may_not_say("--profile b --platform mail --platform-state mine", 1, &["b"]);
    let script = sandbox.unrecorded_process();
    let pid = script.pid().to_string();
    let stranger = ["status-set", "--profile", "b", "--pid", &pid, "--platform", "mail"];
    let answer = sandbox.cli([&stranger[..], &["--error-code", "E"]].concat());
    answer.assert_code(1).assert_complains(&["does not hold b/gateway"]);
    assert_same(&before, &sandbox.report_of_profile("a").1);
    assert_eq!(sandbox.report_of_profile("b").1["platforms"]["mail"]["state"], "connected");
    // A recorded one speaks for those that it serves as well.
    let at = ["--pid", &pid];
    sandbox.cli([&["claim", "--profile", "script"], &at[..]].concat()).assert_code(0);
    let set = ["status-set", "--profile", "script", "--serves", "y"];
    sandbox.cli([&set[..], &at].concat()).assert_code(0);
    let set = ["status-set", "--profile", "y", "--platform", "irc", "--platform-state", "up"];
    sandbox.cli([&set[..], &at].concat()).assert_code(0);
    assert_eq!(sandbox.assert_served("y", "script")["platforms"]["irc"]["state"], "up");
}

/// A gateway that links the library serves others in the same way, all of an update or none of it.
#[test]
fn the_library_serves_and_reports_for_whom_it_serves() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let Claim::Granted(tenure) = store.profile("a").unwrap().claim().unwrap() else {
        panic!("nobody else is here")
    };
    let name = |name: &str| ProfileName::new(name).unwrap();
    let mail =
        |of: &str, state: &str| PlatformUpdate::new("mail").of_profile(name(of)).state(state);
    let state_of = |of: &str| {
        let report = store.profile(of).unwrap().status().unwrap();
        report.platforms.iter().map(|it| (it.platform.clone(), it.state.clone())).next()
    };
    // Of whom it serves not yet.
    let early = StatusUpdate::new().state("running").platform(mail("b", "connected"));
    let refused = tenure.update_status(&early).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotOwner, "{refused}");
    assert!(store.profile("a").unwrap().status().unwrap().runtime.is_none(), "half of an update");

    // Both at once, and for its own in the same update.
    let update = StatusUpdate::new()
        .serves(vec![name("b"), name("c")])
        .platform(mail("b", "connected"))
        .platform(mail("c", "fatal"))
        .platform(PlatformUpdate::new("mail").state("own"));
    tenure.update_status(&update).unwrap();
    let connected = |word: &str| Some(("mail".to_owned(), Some(word.to_owned())));
    assert_eq!(state_of("a"), connected("own"));
    assert_eq!(state_of("b"), connected("connected"));
    assert_eq!(state_of("c"), connected("fatal"));
    let a = store.profile("a").unwrap().status().unwrap();
    assert_eq!((a.serves, a.served_by), (vec![name("b"), name("c")], None));
    let b = store.profile("b").unwrap().status().unwrap();
    let server = b.served_by.expect("a server");
    assert_eq!((server.profile, server.kind), (name("a"), Kind::default()));
    assert_eq!((b.pid, b.office.profile), (Some(std::process::id()), name("b")));

    // Who drops a profile and speaks of it in one breath is refused, and nothing has changed.
    let update = StatusUpdate::new().serves(vec![name("c")]).platform(mail("b", "retrying"));
    assert_eq!(tenure.update_status(&update).unwrap_err().kind(), ErrorKind::NotOwner);
    assert_eq!(state_of("b"), connected("connected"));
    // All platforms of one profile are forgotten, then written anew.
    let update = StatusUpdate::new()
        .forget_platforms(Some(name("b")))
        .platform(PlatformUpdate::new("irc").of_profile(name("b")).state("up"));
    tenure.update_status(&update).unwrap();
    assert_eq!(state_of("b"), Some(("irc".to_owned(), Some("up".to_owned()))));
    assert_eq!(state_of("c"), connected("fatal"));

    let told = |reports: Vec<Report>| -> Vec<String> {
        reports.iter().map(|report| report.office.to_string()).collect()
    };
    assert_eq!(told(store.status_of_all().unwrap()), ["a/gateway", "b/gateway", "c/gateway"]);
    let relay = Kind::new("relay").unwrap();
    assert!(!store.profile("b").unwrap().status_of(&relay).unwrap().running);
    tenure.update_status(&StatusUpdate::new().serves(Field::Clear)).unwrap();
    assert_eq!(told(store.status_of_all().unwrap()), ["a/gateway"]);
    assert_eq!(state_of("b"), None);
    assert_eq!(state_of("a"), connected("own"));
    tenure.release().unwrap();
}

/// A series: the metric's name, its labels by name.
type Series = (String, BTreeMap<String, String>);

/// What a scrape says, read by the letter of the text format 0.0.4, and by Prometheus' conventions
/// for names and units.
#[derive(Debug)]
struct Metrics {
    values: BTreeMap<Series, f64>,
}

impl Metrics {
    #[track_caller]
    fn parse(text: &str) -> Self {
        let mut metrics = Self { values: BTreeMap::new() };
        let mut families: BTreeSet<String> = BTreeSet::new();
        let mut helped: Option<String> = None;
        let mut family = String::new();
        let mut samples = 1;
        assert!(text.is_empty() || text.ends_with('\n'), "the last line has no end: {text:?}");
        for line in text.split_terminator('\n') {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                assert!(samples > 0, "a family without samples: {family}");
                assert_eq!(helped, None, "two HELP in a row: {line:?}");
                let (name, help) = rest.split_once(' ').expect("a help text");
                check_metric_name(name);
                unescaped(help, &['\\', 'n']);
                assert!(families.insert(name.to_owned()), "{name} comes in two groups");
                helped = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(helped.take().as_deref(), Some(name), "TYPE without its HELP: {line:?}");
                assert_eq!(kind, "gauge", "{line:?}");
                name.clone_into(&mut family);
                samples = 0;
            } else {
                assert!(helped.is_none(), "a HELP without a TYPE before {line:?}");
                let (series, value) = sample(line);
                assert_eq!(series.0, family, "a sample outside of its group: {line:?}");
                let twice = metrics.values.insert(series, value);
                assert!(twice.is_none(), "a series comes twice: {line:?}\n{text}");
                samples += 1;
            }
        }
        assert!(helped.is_none() && samples > 0, "a family without samples: {family}");
        metrics
    }

    /// How many series of that name there are.
    fn series(&self, name: &str) -> usize {
        self.values.keys().filter(|(it, _)| it == name).count()
    }

    /// The names of all metrics that one profile has.
    fn names_of(&self, profile: &str) -> BTreeSet<&str> {
        let of_it = |series: &&Series| series.1["profile"] == profile;
        self.values.keys().filter(of_it).map(|(name, _)| name.as_str()).collect()
    }

    /// Asserts that this says exactly what `--json` says.
    #[track_caller]
    fn assert_equals(&self, reports: &[Value]) {
        let expected = expected(reports);
        let keys = |values: &BTreeMap<Series, f64>| values.keys().cloned().collect::<BTreeSet<_>>();
        let (found, wanted) = (keys(&self.values), keys(&expected));
        let surplus: Vec<_> = found.difference(&wanted).collect();
        let missing: Vec<_> = wanted.difference(&found).collect();
        assert!(surplus.is_empty() && missing.is_empty(), "{surplus:#?}\nmissing: {missing:#?}");
        for (series, value) in &expected {
            let got = self.values[series];
            // It grows while one looks.
            let grows = series.0 == "incumbent_gateway_unresponsive_seconds" && *value > 0.0;
            let is_right = if grows {
                (got - value).abs() < LIMIT.as_secs_f64()
            } else {
                (got - value).abs() < 0.000_5
            };
            assert!(is_right, "{series:?}: {got}, not {value}");
        }
    }
}

/// What Prometheus and its conventions ask of a name.
#[track_caller]
fn check_metric_name(name: &str) {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || b"_:".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(is_word);
    let is_name = starts_well && name.bytes().all(|byte| is_word(byte) || byte.is_ascii_digit());
    assert!(is_name && name.starts_with("incumbent_"), "{name:?}");
    // Ends that belong to counters, histograms and summaries, which gauges are not.
    for end in ["_total", "_count", "_sum", "_bucket", "_created"] {
        assert!(!name.ends_with(end), "a gauge called {name}");
    }
    // Base units only, as words of their own.
    for word in name.split('_') {
        let units = ["ms", "milliseconds", "us", "minutes", "hours", "days", "kb", "percent"];
        assert!(!units.contains(&word), "{name}: {word} is no base unit");
    }
    for what in ["time", "timestamp", "unresponsive", "since", "age"] {
        let is_about_time = name.split('_').any(|word| word == what);
        assert!(!is_about_time || name.ends_with("_seconds"), "{name}: in what unit?");
    }
}

/// A text in which only these characters may follow a backslash.
#[track_caller]
fn unescaped(text: &str, known: &[char]) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(one) = chars.next() {
        if one != '\\' {
            plain.push(one);
            continue;
        }
        let next = chars.next().expect("something after a backslash");
        assert!(known.contains(&next), "\\{next} in {text:?}");
        plain.push(if next == 'n' { '\n' } else { next });
    }
    plain
}

/// `name{label="value",...} value`: what this program prints of the format, and nothing looser.
#[track_caller]
fn sample(line: &str) -> (Series, f64) {
    let (name, rest) = line.split_once('{').unwrap_or_else(|| panic!("no labels: {line:?}"));
    check_metric_name(name);
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    loop {
        let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line:?}"));
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(!label.is_empty() && label.bytes().all(is_word), "label {label:?}: {line:?}");
        assert!(!label.starts_with("__"), "reserved: {line:?}");
        // The first quote that no backslash stands before ends the value.
        let mut is_escaped = false;
        let end = after
            .char_indices()
            .find(|(_, one)| {
                let ends = *one == '"' && !is_escaped;
                is_escaped = *one == '\\' && !is_escaped;
                ends
            })
            .unwrap_or_else(|| panic!("an open value: {line:?}"))
            .0;
        let value = unescaped(&after[..end], &['\\', '"', 'n']);
        assert!(labels.insert(label.to_owned(), value).is_none(), "{label} twice: {line:?}");
        rest = &after[end + 1..];
        if let Some(more) = rest.strip_prefix(',') {
            rest = more;
            continue;
        }
        let value = rest.strip_prefix("} ").unwrap_or_else(|| panic!("{line:?}"));
        let is_number = value.bytes().all(|byte| b"+-.eE".contains(&byte) || byte.is_ascii_digit());
        assert!(is_number && !value.is_empty(), "value {value:?} (or a time after it): {line:?}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
        return ((name.to_owned(), labels), value);
    }
}

/// The series that say what these reports say. What is not known, or not true any more, has none.
fn expected(reports: &[Value]) -> BTreeMap<Series, f64> {
    let mut values = BTreeMap::new();
    let flag = |value: &Value| value.as_bool().map(f64::from);
    let time = |value: &Value| {
        let time = DateTime::parse_from_rfc3339(value.as_str()?).unwrap();
        let ms = u64::try_from(time.timestamp_millis()).unwrap();
        Some(Duration::from_millis(ms).as_secs_f64())
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for report in reports {
        let office = [
            ("profile".to_owned(), text(&report["profile"])),
            ("kind".to_owned(), text(&report["kind"])),
        ];
        let mut add = |name: &str, more: &[(&str, String)], value: Option<f64>| {
            let Some(value) = value else { return };
            let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
            let labels = office.iter().cloned().chain(more).collect();
            let twice = values.insert((format!("incumbent_{name}"), labels), value);
            assert!(twice.is_none(), "{name}: {report:#}");
        };
        // Unknown is neither up nor down.
        let is_known = report["verdict"] != "unknown";
        add("gateway_up", &[], flag(&report["running"]).filter(|_| is_known));
        for word in ["alive", "dead", "unknown"] {
            let is_so = f64::from(report["verdict"] == word);
            add("gateway_verdict", &[("verdict", word.to_owned())], Some(is_so));
        }
        let wanted = report["desired"].as_str().map(|word| f64::from(word == "running"));
        add("gateway_desired_running", &[], wanted);
        let end = &report["last_end"];
        let reason = [("reason", text(&end["reason"]))];
        add("gateway_last_end_timestamp_seconds", &reason, time(&end["at"]));
        let state = [("state", text(&report["state"]))];
        add("gateway_state", &state, report["state"].as_str().map(|_| 1.0));
        if report["verdict"] == "dead" {
            continue;
        }
        let served_by = text(&report["served_by"]["profile"]);
        let facts = [
            ("instance", report["instance"].to_string()),
            ("reason", text(&report["reason"])),
            ("version", text(&report["version"])),
            ("supervisor", text(&report["supervisor"])),
            ("served_by", served_by.clone()),
        ];
        add("gateway_info", &facts, Some(1.0));
        add("gateway_start_time_seconds", &[], time(&report["since"]));
        if served_by.is_empty() {
            for (name, key) in [("locks_held", "locks"), ("markers_open", "markers")] {
                let count = report[key].as_array().unwrap().len();
                let count = f64::from(u32::try_from(count).unwrap());
                add(&format!("gateway_{name}"), &[], Some(count));
            }
        }
        // What would be counted twice is its server's alone.
        let alone = |value: Option<f64>| value.filter(|_| served_by.is_empty());
        for key in ["busy", "drainable", "stale"] {
            add(&format!("gateway_{key}"), &[], alone(flag(&report[key])));
        }
        let silent = report["unresponsive_ms"].as_f64().unwrap_or(0.0) / 1_000.0;
        add("gateway_unresponsive_seconds", &[], alone(Some(silent)));
        let heartbeat_at = alone(time(&report["heartbeat_at"]));
        add("gateway_heartbeat_timestamp_seconds", &[], heartbeat_at);
        let said = &report["runtime"];
        add("gateway_active_agents", &[], alone(said["active_agents"].as_f64()));
        add("gateway_restart_requested", &[], alone(flag(&said["restart_requested"])));
        add("gateway_status_timestamp_seconds", &[], alone(time(&said["updated_at"])));
        for (platform, said) in report["platforms"].as_object().unwrap() {
            let name = ("platform", platform.clone());
            let with = |label, value: &Value| [name.clone(), (label, text(value))];
            let one = |value: &Value| value.as_str().map(|_| 1.0);
            let (state, error) = (&said["state"], &said["error_code"]);
            add("platform_state", &with("state", state), one(state));
            add("platform_error", &with("error_code", error), one(error));
            let name = [name.clone()];
            add("platform_needs_attention", &name, flag(&said["needs_attention"]));
            let since = time(&said["retrying_since"]);
            add("platform_retrying_since_timestamp_seconds", &name, since);
            add("platform_status_timestamp_seconds", &name, time(&said["updated_at"]));
        }
    }
    values
}

/// A monitor sees what `--json` says, no less and no more: the dead have no platforms, no agents
/// and no age, so that no dashboard shows yesterday's gateway as connected.
#[test]
fn the_metrics_say_what_json_says() {
    let sandbox = Sandbox::new();
    let _town = Town::build(&sandbox);
    let reports = sandbox.reports_of_all(&[]);
    let metrics = sandbox.metrics_of_all(&[]);
    metrics.assert_equals(&reports);
    // Of one of them it is not known.
    assert_eq!(metrics.series("incumbent_gateway_up"), TOWN.len() - 1);
    let of_the_dead = BTreeSet::from([
        "incumbent_gateway_up",
        "incumbent_gateway_verdict",
        "incumbent_gateway_last_end_timestamp_seconds",
        "incumbent_gateway_desired_running",
    ]);
    for (profile, kind, verdict, _) in TOWN {
        let names = metrics.names_of(profile);
        assert_eq!(names.is_subset(&of_the_dead), *verdict == "dead", "{profile}: {names:?}");
        let (code, alone) = sandbox.json(["status", "--profile", profile, "--kind", kind]);
        let words = ["status", "--metrics", "--profile", profile, "--kind", kind];
        let answer = sandbox.cli(words).assert_code(code);
        assert_eq!(answer.err, "");
        Metrics::parse(&answer.out).assert_equals(&[alone]);
        if has("promtool") {
            let mut check = Process::start(sandbox.program_with("promtool", &["check", "metrics"]));
            check.write(&answer.out);
            check.finish(LIMIT).assert_code(0);
        }
    }
    // A state that outlives its process is told, that it once ran is not.
    let mut failed = sandbox.obeying_gateway("failed");
    failed.says("--state startup_failed --platform mail --error-code E1");
    failed.kill();
    let metrics = sandbox.metrics_of_all(&["--profile", "failed"]);
    metrics.assert_equals(&sandbox.reports_of_all(&["--profile", "failed"]));
    let mut expected = of_the_dead.clone();
    expected.insert("incumbent_gateway_state");
    expected.remove("incumbent_gateway_desired_running");
    expected.remove("incumbent_gateway_last_end_timestamp_seconds");
    assert_eq!(metrics.names_of("failed"), expected);
    // Of no store, one office: it is down, and that is all.
    let sandbox = Sandbox::new();
    let answer = sandbox.cli(["status", "--metrics"]).assert_code(3);
    assert_eq!(Metrics::parse(&answer.out).names_of("default").len(), 2);
    assert!(!sandbox.file("store").exists());
}

impl Sandbox {
    fn program_with(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.program(program);
        command.args(arguments);
        command
    }
}

/// Names and states are what a gateway makes of them. A quote, a backslash or a line feed in one of
/// them must not end the value, or a scraper drops the whole file and with it every gateway.
#[test]
fn nasty_names_stay_within_their_labels() {
    const NASTY: &[&str] = &[
        r#"quote""#,
        r"back\slash",
        r#"\""#,
        r"\n",
        r"ends in \",
        "{a=\"b\"} 1",
        "a, b",
        "# TYPE x counter",
        "\u{fc}ber\u{1f600}",
        "x",
    ];
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let Claim::Granted(tenure) = store.profile("a").unwrap().claim().unwrap() else {
        panic!("nobody else is here")
    };
    for word in NASTY {
        let platform = PlatformUpdate::new(*word).state(*word).error_code(*word);
        let update = StatusUpdate::new().state(*word).platform(platform);
        tenure.update_status(&update).unwrap();
        let metrics = sandbox.metrics_of_all(&[]);
        metrics.assert_equals(&sandbox.reports_of_all(&[]));
        let series = metrics.values.keys().find(|series| series.0 == "incumbent_gateway_state");
        assert_eq!(series.unwrap().1["state"], *word);
    }
    let metrics = sandbox.metrics_of_all(&[]);
    let platforms: BTreeSet<&str> = metrics
        .values
        .keys()
        .filter(|series| series.0 == "incumbent_platform_state")
        .inspect(|series| assert_eq!(series.1["state"], series.1["platform"]))
        .map(|series| series.1["platform"].as_str())
        .collect();
    assert_eq!(platforms, NASTY.iter().copied().collect());
    // What no program of ours writes: two lines, and bytes that are no text.
    let id = tenure.instance();
    for (name, state) in [
        ("'two' || char(10) || 'lines'", "'a' || char(10) || 'b'"),
        ("CAST(x'62ff' AS TEXT)", "CAST(x'ff' AS TEXT)"),
    ] {
        sandbox.forge_freely(&format!(
            "INSERT INTO platform_status (instance_id, profile, platform, state, updated_at_ms)
             VALUES ({id}, 'a', {name}, {state}, 1);
             UPDATE runtime_status SET state = {state};
             UPDATE instances SET version = {state};"
        ));
        sandbox.metrics_of_all(&[]).assert_equals(&sandbox.reports_of_all(&[]));
    }
    let text = sandbox.cli(["status", "--all"]).assert_code(0).out;
    assert_eq!(text.lines().count(), 2, "{text}");
    tenure.release().unwrap();
}

/// FIELD-BUGS row 58: what cannot be read is not known. It is no number and no "no", and the other
/// values of its row are what they were.
#[test]
fn a_damaged_value_has_no_series() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.obeying_gateway("a");
    let say = "--state running --active-agents 2 --restart-requested true \
               --platform mail --platform-state connected --needs-attention true --error-code E";
    gateway.says(say);
    let whole = sandbox.metrics_of_all(&[]);
    whole.assert_equals(&sandbox.reports_of_all(&[]));
    for (table, column, value) in [
        ("runtime_status", "state", "CAST(x'ff' AS TEXT)"),
        ("runtime_status", "active_agents", "-1"),
        ("runtime_status", "restart_requested", "7"),
        ("runtime_status", "updated_at_ms", "-1"),
        ("platform_status", "state", "CAST(x'ff' AS TEXT)"),
        ("platform_status", "error_code", "CAST(x'ff' AS TEXT)"),
        ("platform_status", "needs_attention", "-1"),
        ("platform_status", "updated_at_ms", "9223372036854775807"),
    ] {
        sandbox.forge_freely(&format!("UPDATE {table} SET {column} = {value}"));
        let reports = sandbox.reports_of_all(&[]);
        let metrics = sandbox.metrics_of_all(&[]);
        metrics.assert_equals(&reports);
        let missing = whole.values.len() - metrics.values.len();
        assert!(missing >= 1, "{table}.{column}: {reports:#?}");
        // Saying it again heals it.
        gateway.says(say);
        assert_eq!(
            sandbox.metrics_of_all(&[]).values.len(),
            whole.values.len(),
            "{table}.{column}"
        );
    }
}

/// Two names that no program of ours writes may look alike. A scraper refuses a file in which a
/// series comes twice, and with it what it says of all gateways.
#[test]
fn platforms_of_invalid_bytes_make_no_series_twice() {
    let sandbox = Sandbox::new();
    let mut gateway = sandbox.obeying_gateway("a");
    gateway.says("--state running --platform mail --platform-state connected");
    for bytes in ["ff", "fe", "fffe", "61ff", "61fe"] {
        sandbox.forge_freely(&format!(
            "INSERT INTO platform_status (instance_id, profile, platform, state, updated_at_ms)
             SELECT id, profile, CAST(x'{bytes}' AS TEXT), 'up', 1 FROM instances"
        ));
    }
    let metrics = sandbox.metrics_of_all(&[]);
    metrics.assert_equals(&sandbox.reports_of_all(&[]));
    assert!(metrics.names_of("a").contains("incumbent_platform_state"));
    sandbox.cli(["status", "--profile", "a"]).assert_code(0);
}

/// The one or the other: a document cannot be both.
#[test]
fn metrics_are_no_json() {
    let sandbox = Sandbox::new();
    let run = sandbox.hold(&[]);
    for words in [
        &["status", "--metrics", "--json"][..],
        &["--json", "status", "--metrics"],
        &["status", "--all", "--json", "--metrics"],
    ] {
        let answer = sandbox.cli(words).assert_code(2);
        assert!(!answer.out.contains("incumbent_gateway_up"), "{answer:#?}");
    }
    sandbox.cli(["status", "--metrics"]).assert_code(0);
    run.end().assert_code(0);
}

/// Who asks by the minute writes nothing: not a byte of the store changes, whoever is dead.
#[test]
fn asking_for_all_writes_nothing() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.obeying_gateway("a");
    server.says("--serves b --state running");
    sandbox.obeying_gateway("killed").kill();
    // Nobody else writes meanwhile: a stopped process is as good as any.
    server.process.signal(Signal::STOP);
    wait_stopped(server.pid());
    let before = sandbox.picture();
    for _ in 0..20 {
        for words in [&["--all"][..], &["--all", "--json"], &["--all", "--metrics"]] {
            sandbox.cli([&["status"], words].concat()).assert_code(0);
        }
        sandbox.assert_served("b", "a");
    }
    let after = sandbox.picture();
    assert!(before.keys().eq(after.keys()), "{:?}\n{:?}", before.keys(), after.keys());
    for (path, facts) in &before {
        assert!(*facts == after[path], "a question wrote to {}", path.display());
    }
    server.process.signal(Signal::CONT);
    server.end().assert_code(0);
}
