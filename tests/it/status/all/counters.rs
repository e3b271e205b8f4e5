//! What has happened, counted by the store; and what monitors make of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use incumbent::Store;
use serde_json::{Value, json};

use super::metrics::{Metrics, Series};
use super::offices::Town;
use crate::status::set::damage::damage;
use crate::support::{LIMIT, Process, START, Sandbox, has, python_with, skipped, tenure_of};

/// Symptom: a monitor saw that nothing ran, and never that it was started forty times in between.
/// It holds because each start, refusal, restart, takeover and end is counted where it is written.
#[test]
fn what_happens_is_counted() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", "exit 1"]).assert_code(1);
    let mut run = sandbox.hold(&[]);
    let since = sandbox.status().1["since"].clone();
    let first = sandbox.status().1;
    assert_eq!(first["restarts"], 0, "{first:#}");
    sandbox.cli(START).assert_code(75);
    sandbox.cli(["restart"]).assert_code(0);
    run.process.line();
    let again = sandbox.status().1;
    assert_eq!((&again["restarts"], &again["since"]), (&json!(1), &since), "{again:#}");
    assert_ne!(again["child_pid"], first["child_pid"], "{again:#}");
    let command_since = |status: &Value| status["command_since"].as_str().unwrap().to_owned();
    assert!(command_since(&again) > command_since(&first), "{first:#}\n{again:#}");
    let text = sandbox.cli(["status"]).assert_code(0).out;
    assert!(text.contains(", restarted once"), "{text}");
    let all = sandbox.cli(["status", "--all"]).assert_code(0).out;
    assert!(all.contains("restarted once, "), "{all}");
    let text = sandbox.cli(["history"]).assert_code(0).out;
    assert!(text.lines().next().unwrap().contains(" holds it, restarted once, "), "{text}");
    sandbox.cli(["run", "--no-backoff", "--replace", "--", "true"]).assert_code(0);
    drop(run.process.finish_with_stdin_open(LIMIT));
    let history = sandbox.history();
    assert_eq!(history[1]["restarts"], 1, "{:#}", history[1]);
    let text = sandbox.cli(["history"]).assert_code(0).out;
    assert!(text.lines().nth(1).unwrap().contains(", restarted once, until "), "{text}");

    let metrics = sandbox.metrics_of_all(&[]);
    for (name, labels, count) in [
        ("starts", &[][..], 4.0),
        ("refusals", &[], 1.0),
        ("restarts", &[], 1.0),
        ("takeovers", &[], 1.0),
        ("ends", &[("reason", "exited"), ("exit_code", "0")], 2.0),
        ("ends", &[("reason", "exited"), ("exit_code", "1")], 1.0),
        // By SIGTERM, as a shell says it.
        ("ends", &[("reason", "taken_over"), ("exit_code", "143")], 1.0),
    ] {
        let name = format!("incumbent_{name}_total");
        assert_eq!(metrics.count(&name, labels), Some(count), "{name}: {metrics:#?}");
    }
    let last = metrics.values.iter().find(|(series, _)| series.0 == "incumbent_last_exit_code");
    assert_eq!(last.map(|(_, code)| *code), Some(0.0), "{metrics:#?}");
    // What has not happened is 0, and not absent: else its first time is no rise.
    sandbox.cli(["--profile", "other", "run", "--", "true"]).assert_code(0);
    let metrics = sandbox.metrics_of_all(&["--profile", "other"]);
    let refusals = metrics.counters.iter().find(|it| it.0.0 == "incumbent_refusals_total");
    assert_eq!(refusals.map(|it| *it.1), Some(0.0), "{metrics:#?}");
}

/// Symptom: a counter that falls looks like a restart of what is counted, and rates are wrong. It
/// holds because pruning takes rows away, and no counts.
#[test]
fn counts_do_not_fall_when_the_history_is_pruned() {
    const ROUNDS: u64 = 600;
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    for _ in 0..ROUNDS {
        drop(tenure_of(&store, "default"));
    }
    assert!(sandbox.number("SELECT count(*) FROM starts") < 300);
    assert!(sandbox.number("SELECT count(*) FROM instances") < 300);
    let counters = store.counters().unwrap().expect("a store of this version");
    let counted = counters.first_key_value().unwrap().1;
    assert_eq!((counted.starts, counted.refusals, counted.restarts), (ROUNDS, 0, 0));
    let ends: Vec<_> =
        counted.ends.iter().map(|end| (end.reason.as_str(), end.exit_code, end.count)).collect();
    assert_eq!(ends, [("released", None, ROUNDS)]);
}

/// A store of the version before has none; what its history still knows is counted when it is
/// brought up to date. Afterwards a program of before is counted as well: the store does that.
#[test]
fn an_older_store_begins_with_what_its_history_knows() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    sandbox.cli(["run", "--no-backoff", "--", "/bin/sh", "-c", "kill -9 $$"]).assert_code(137);
    sandbox.age_to(9);
    let metrics = sandbox.metrics_of_all(&[]);
    assert!(metrics.counters.is_empty(), "{metrics:#?}");
    metrics.assert_equals(&sandbox.reports_of_all(&[]));
    assert_eq!(Store::open_existing(sandbox.db()).unwrap().unwrap().counters().unwrap(), None);
    sandbox.cli(START).assert_code(0);
    let metrics = sandbox.metrics_of_all(&[]);
    assert_eq!(metrics.count("incumbent_starts_total", &[]), Some(3.0), "{metrics:#?}");
    let killed = [("reason", "signalled"), ("exit_code", "137")];
    assert_eq!(metrics.count("incumbent_ends_total", &killed), Some(1.0), "{metrics:#?}");
}

/// Symptom: nobody could start a gateway whose counter was damaged. It holds because such a count
/// goes on as one that a program could have written.
#[test]
fn a_damaged_counter_refuses_no_start() {
    let sandbox = Sandbox::new();
    sandbox.cli(START).assert_code(0);
    for (damaged, next) in [("9223372036854775807", 9_007_199_254_740_992), ("-5", 1)] {
        damage(&sandbox, &format!("UPDATE counters SET count = {damaged}"));
        sandbox.cli(START).assert_code(0);
        assert_eq!(sandbox.number("SELECT min(count) FROM counters"), next, "{damaged}");
        assert_eq!(sandbox.number("SELECT max(count) FROM counters"), next, "{damaged}");
    }
}

/// Symptom: one damaged row of the history would have kept a store from being brought up to date,
/// and so everybody from starting.
#[test]
fn a_damaged_history_is_counted_as_far_as_it_goes() {
    const STRICT: &str = "profile       TEXT NOT NULL";
    const LAX: &str = "profile       TEXT";
    let sandbox = Sandbox::new();
    sandbox.sick("it damages the store");
    for _ in 0..3 {
        sandbox.cli(START).assert_code(0);
    }
    sandbox.age_to(9);
    let rewrite = |from: &str, to: &str| {
        let connection = rusqlite::Connection::open(sandbox.db()).unwrap();
        connection.execute_batch("PRAGMA writable_schema = 1").unwrap();
        let sql = "UPDATE sqlite_schema SET sql = replace(sql, ?1, ?2) WHERE name = 'starts'";
        assert_eq!(connection.execute(sql, [from, to]).unwrap(), 1);
    };
    rewrite(STRICT, LAX);
    sandbox.forge("UPDATE starts SET profile = NULL WHERE id = (SELECT min(id) FROM starts)");
    rewrite(LAX, STRICT);
    sandbox.cli(START).assert_code(0);
    assert_eq!(sandbox.number("SELECT count FROM counters WHERE name = 'starts'"), 3);
    assert_eq!(sandbox.number("SELECT count FROM counters WHERE name = 'ends'"), 4);
}

/// A scraper must not take an error for "nothing runs": there is nothing on standard output, and
/// the exit code says it. Whether gateways run is not in the exit code.
#[test]
fn metrics_exit_with_0_unless_they_fail() {
    let sandbox = Sandbox::new();
    sandbox.sick("it damages the store");
    // Symptom: after a typing error in `--db`, or the loss of the store, nothing was printed, and
    // no alert could fire.
    let found =
        || Metrics::parse(&sandbox.cli(["status", "--metrics"]).assert_code(0).out).store_found;
    assert_eq!(found(), Some(0.0));
    sandbox.cli(START).assert_code(0);
    sandbox.cli(["--profile", "work", "run", "--", "true"]).assert_code(0);
    assert_eq!(found(), Some(1.0));
    for (words, offices) in [
        (&[][..], 2),
        (&["--profile", "work"], 1),
        (&["--kind", "gateway"], 2),
        // Never claimed: it is down, and an alert fires.
        (&["--profile", "nobody"], 1),
    ] {
        let answer = sandbox.cli([&["status", "--metrics"], words].concat()).assert_code(0);
        let metrics = Metrics::parse(&answer.out);
        assert_eq!(metrics.series("incumbent_gateway_up"), offices, "{words:?}: {metrics:#?}");
    }
    // What the environment names is the caller's own: a monitor that a `run` starts sees all.
    let mut named = sandbox.incumbent(["status", "--metrics"]);
    named.env("INCUMBENT_PROFILE", "work");
    let answer = Process::start(named).finish(LIMIT).assert_code(0);
    assert_eq!(Metrics::parse(&answer.out).series("incumbent_gateway_up"), 2);

    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(sandbox.sidecar(suffix));
    }
    let garbage = "this is no database, and long enough for one ".repeat(40);
    std::fs::write(sandbox.db(), garbage).unwrap();
    let answer = sandbox.cli(["status", "--metrics"]);
    assert!([70, 75, 78].contains(&answer.code()), "{answer:#?}");
    assert_eq!(answer.out, "", "{answer:#?}");
    assert_ne!(answer.err, "", "{answer:#?}");
}

/// Prometheus' own client for Python reads what we print, and what it reads is what we meant.
#[test]
fn the_parser_of_a_prometheus_client_reads_the_metrics() {
    const READER: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
kinds = {family.name: family.type for family in families}
samples = [[it.name, it.labels, it.value] for family in families for it in family.samples]
print(json.dumps([kinds, samples]))";
    let Some(python) = python_with("prometheus_client") else {
        return skipped("needs python3 with prometheus_client");
    };
    let sandbox = Sandbox::new();
    let _town = Town::build(&sandbox);
    let text = sandbox.cli(["status", "--metrics"]).assert_code(0).out;
    let ours = Metrics::parse(&text);
    let mut reader = sandbox.program(python);
    reader.args(["-c", READER]);
    let mut reader = Process::start(reader);
    reader.write(&text);
    let read = reader.finish(LIMIT).assert_code(0).json();
    let mut samples: BTreeMap<Series, f64> = BTreeMap::new();
    for sample in read[1].as_array().unwrap() {
        let labels = sample[1].as_object().unwrap().iter();
        let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        let series = (sample[0].as_str().unwrap().to_owned(), labels.collect());
        samples.insert(series, sample[2].as_f64().unwrap());
    }
    let mut wanted = ours.values.clone();
    wanted.extend(ours.counters.clone());
    wanted.insert(("incumbent_store_found".to_owned(), BTreeMap::new()), 1.0);
    assert_eq!(samples, wanted);
    assert_eq!(read[0]["incumbent_starts"], "counter", "{read:#}");
    assert_eq!(read[0]["incumbent_gateway_up"], "gauge", "{read:#}");
}

fn contrib(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(name)
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c| !is_name(c));
    words.filter(|word| word.starts_with("incumbent_") && word.len() > 10).collect()
}

/// A metric that was renamed would leave an alert that never fires, and an empty panel.
#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let printed = include_str!("../../../../src/cli/metrics.rs");
    for name in [
        "README.md",
        "prometheus/incumbent.rules.yml",
        "prometheus/incumbent.test.yml",
        "grafana/incumbent.json",
    ] {
        let text = std::fs::read_to_string(contrib(name)).unwrap();
        let asked = metrics_in(&text);
        assert!(!asked.is_empty(), "{name}");
        for metric in asked {
            assert!(printed.contains(&format!("\"{metric}\"")), "{name}: {metric}");
        }
    }
    let dashboard = std::fs::read_to_string(contrib("grafana/incumbent.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.iter().all(|panel| !panel["targets"].as_array().unwrap().is_empty()));
    assert!(dashboard["title"].is_string() && dashboard["uid"].is_string());
}

#[test]
fn promtool_accepts_the_alert_rules() {
    if !has("promtool") {
        return skipped("needs promtool");
    }
    let sandbox = Sandbox::new();
    for (verb, file) in [("check", "incumbent.rules.yml"), ("test", "incumbent.test.yml")] {
        let mut promtool = sandbox.program("promtool");
        promtool.args([verb, "rules", file]).current_dir(contrib("prometheus"));
        Process::start(promtool).finish(LIMIT).assert_code(0);
    }
    // What the program prints.
    sandbox.cli(START).assert_code(0);
    let text = sandbox.cli(["status", "--metrics"]).assert_code(0).out;
    let mut promtool = sandbox.program("promtool");
    promtool.args(["check", "metrics"]);
    let mut promtool = Process::start(promtool);
    promtool.write(&text);
    promtool.finish(LIMIT).assert_code(0);
}
