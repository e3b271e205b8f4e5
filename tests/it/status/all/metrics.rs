//! Prometheus' text format says what JSON says.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use chrono::DateTime;
use incumbent::status::PlatformUpdate;
use incumbent::{Claim, StatusUpdate, Store};
use rustix::process::Signal;
use serde_json::Value;

use super::offices::{TOWN, Town};
use crate::support::{LIMIT, Process, Sandbox, has, wait_stopped};

/// A series: the metric's name, its labels by name.
pub type Series = (String, BTreeMap<String, String>);

/// What a scrape says, read by the letter of the text format 0.0.4, and by Prometheus' conventions
/// for names and units.
#[derive(Debug)]
pub struct Metrics {
    /// The gauges: what is true now.
    pub values: BTreeMap<Series, f64>,
    /// What the store has counted.
    pub counters: BTreeMap<Series, f64>,
    /// Whether there is a store.
    pub store_found: Option<f64>,
}

impl Metrics {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let mut metrics =
            Self { values: BTreeMap::new(), counters: BTreeMap::new(), store_found: None };
        let mut families: BTreeSet<String> = BTreeSet::new();
        let mut helped: Option<String> = None;
        let (mut family, mut family_kind) = (String::new(), String::new());
        let mut samples = 1;
        assert!(text.is_empty() || text.ends_with('\n'), "the last line has no end: {text:?}");
        for line in text.split_terminator('\n') {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                assert!(samples > 0, "a family without samples: {family}");
                assert_eq!(helped, None, "two HELP in a row: {line:?}");
                let (name, help) = rest.split_once(' ').expect("a help text");
                unescaped(help, &['\\', 'n']);
                assert!(families.insert(name.to_owned()), "{name} comes in two groups");
                helped = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(helped.take().as_deref(), Some(name), "TYPE without its HELP: {line:?}");
                check_metric_name(name, kind);
                name.clone_into(&mut family);
                kind.clone_into(&mut family_kind);
                samples = 0;
            } else if let Some(value) = line.strip_prefix("incumbent_store_found ") {
                assert_eq!(family, "incumbent_store_found", "a sample outside of its group");
                metrics.store_found = Some(value.parse().unwrap());
                samples += 1;
            } else {
                assert!(helped.is_none(), "a HELP without a TYPE before {line:?}");
                let (series, value) = sample(line);
                assert_eq!(series.0, family, "a sample outside of its group: {line:?}");
                let is_counter = family_kind == "counter";
                let values = if is_counter { &mut metrics.counters } else { &mut metrics.values };
                let twice = values.insert(series, value);
                assert!(twice.is_none(), "a series comes twice: {line:?}\n{text}");
                samples += 1;
            }
        }
        assert!(helped.is_none() && samples > 0, "a family without samples: {family}");
        metrics
    }

    /// How many series of that name there are.
    pub fn series(&self, name: &str) -> usize {
        self.values.keys().filter(|(it, _)| it == name).count()
    }

    /// A counter of the default office; `None` where there is no such series.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let office = [("profile", "default"), ("kind", "gateway")];
        let labels = office.iter().chain(labels);
        let labels = labels.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.counters.get(&(name.to_owned(), labels.collect())).copied()
    }

    /// The names of all gauges that one profile has.
    fn names_of(&self, profile: &str) -> BTreeSet<&str> {
        let of_it = |series: &&Series| series.1["profile"] == profile;
        self.values.keys().filter(of_it).map(|(name, _)| name.as_str()).collect()
    }

    /// Asserts that this says exactly what `--json` says.
    #[track_caller]
    pub fn assert_equals(&self, reports: &[Value]) {
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
fn check_metric_name(name: &str, kind: &str) {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || b"_:".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(is_word);
    let is_name = starts_well && name.bytes().all(|byte| is_word(byte) || byte.is_ascii_digit());
    assert!(is_name && name.starts_with("incumbent_"), "{name:?}");
    assert!(["gauge", "counter"].contains(&kind), "{name}: {kind}");
    assert_eq!(name.ends_with("_total"), kind == "counter", "a {kind} called {name}");
    // Ends that belong to histograms and summaries.
    for end in ["_count", "_sum", "_bucket", "_created"] {
        assert!(!name.ends_with(end), "a {kind} called {name}");
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
        // As a shell says it.
        let code = end["exit_code"].as_f64().or(end["signal"].as_f64().map(|it| it + 128.0));
        add("last_exit_code", &[], code);
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
            add("gateway_command_start_time_seconds", &[], time(&report["command_since"]));
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
        add("memory_bytes", &[], alone(said["memory_bytes"].as_f64()));
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
        "incumbent_last_exit_code",
    ]);
    for (profile, kind, verdict, _) in TOWN {
        let names = metrics.names_of(profile);
        assert_eq!(names.is_subset(&of_the_dead), *verdict == "dead", "{profile}: {names:?}");
        let (code, alone) = sandbox.json(["status", "--profile", profile, "--kind", kind]);
        let words = ["status", "--metrics", "--profile", profile, "--kind", kind];
        assert!([0, 3, 4].contains(&code), "{profile}: {code}");
        let answer = sandbox.cli(words).assert_code(0);
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
    expected.remove("incumbent_last_exit_code");
    assert_eq!(metrics.names_of("failed"), expected);
    // Of no store, an office that is named: it is down, and that is all.
    let sandbox = Sandbox::new();
    let answer = sandbox.cli(["status", "--metrics", "--profile", "default"]).assert_code(0);
    assert_eq!(Metrics::parse(&answer.out).names_of("default").len(), 2);
    let nothing = Metrics::parse(&sandbox.cli(["status", "--metrics"]).assert_code(0).out);
    assert!(nothing.values.is_empty() && nothing.store_found == Some(0.0), "{nothing:#?}");
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
    sandbox.sick("it damages the store");
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
