//! `status --metrics`: Prometheus' text format, version 0.0.4.
//!
//! Names and units follow Prometheus' conventions: base units (seconds), `_info` for what only
//! carries labels, and for a word a time series with the value 1. Counters are the store's own
//! (`records/counters.rs`): they do not fall when the history is pruned.
//!
//! Not by the crate `prometheus-client`: its registry is for values that a program counts up, and
//! exports each of them; here each line is an answer of the store, and absent where it has none.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;

use crate::cli::args;
use crate::cli::args::Global;
use crate::cli::each::named_in;
use crate::cli::output::{Answer, Outcome, exit};
use crate::cli::process_status::held_by;
use crate::status::{Counters, Desired, LastEnd};
use crate::{Existing, Office, Report, Verdict};

/// Metrics of one name, in the order in which they are printed.
struct Family {
    name: &'static str,
    help: &'static str,
    /// `gauge` or `counter`.
    kind: &'static str,
    samples: String,
}

/// A label with its value.
type Label<'a> = (&'static str, &'a str);

impl Family {
    fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "gauge", samples: String::new() }
    }

    fn counter(name: &'static str, help: &'static str) -> Self {
        Self { kind: "counter", ..Self::new(name, help) }
    }

    fn count(&mut self, labels: &[Label<'_>], count: u64) {
        #[allow(clippy::cast_precision_loss, reason = "nothing happens that often")]
        let value = count as f64;
        self.add(labels, value);
    }

    fn add(&mut self, labels: &[Label<'_>], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = labels.join(",");
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(self.samples, "{}{labels} {value}", self.name);
    }
}

/// A label's value: a backslash, a quote and a line feed would end it.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    value.replace(crate::path_text::is_unprintable, "\u{fffd}")
}

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

#[allow(clippy::cast_precision_loss, reason = "times of this age fit")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// Of all offices, unless one is named; that one also where it was never claimed: it is down.
/// Whether gateways run is in the metrics, and not in the exit code.
pub(super) fn metrics(global: &Global, arguments: &args::Status) -> Outcome {
    let (profile, kind) = named_in(global)?;
    let names_office = (profile.is_some() || kind.is_some()) && !arguments.all;
    let (mut reports, mut counters, mut lost, mut is_found) = (Vec::new(), None, None, false);
    match global.options().find()? {
        Existing::Store(store) => {
            reports = match arguments.pid {
                Some(pid) => held_by(global, &store, pid)?,
                None => store.status_of_matching(profile.as_ref(), kind.as_ref())?,
            };
            counters = store.counters()?;
            is_found = true;
        }
        Existing::LostOwner { pid, .. } => lost = Some(pid),
        Existing::Nothing => {}
    }
    if reports.is_empty() && names_office && arguments.pid.is_none() {
        let report = Report::never_claimed(global.office()?);
        reports.push(match lost {
            Some(pid) => report.of_lost_owner(pid),
            None => report,
        });
    }
    // Also of those that were only ever refused.
    let is_asked_for = |office: &Office| {
        arguments.pid.is_none()
            && profile.as_ref().is_none_or(|name| *name == office.profile)
            && kind.as_ref().is_none_or(|kind| *kind == office.kind)
            || reports.iter().any(|report| report.office == *office)
    };
    let counters = counters.map(|mut counters| {
        counters.retain(|office, _| is_asked_for(office));
        for report in &reports {
            counters.entry(report.office.clone()).or_default();
        }
        counters
    });
    let text = text(is_found, &reports, counters.as_ref());
    Ok(Answer::new(exit::OK, text, json!(reports)))
}

/// All metrics of these offices, and what was counted of these.
fn text(
    is_found: bool,
    reports: &[Report],
    counters: Option<&BTreeMap<Office, Counters>>,
) -> String {
    let mut found = Family::new(
        "incumbent_store_found",
        "Whether there is a store; 0 if it was deleted, or the path is wrong.",
    );
    found.add(&[], flag(is_found));
    let families = [
        vec![found],
        of_offices(reports),
        of_what_they_said(reports),
        of_platforms(reports),
        counters.map_or_else(Vec::new, of_the_past),
    ];
    let mut text = String::new();
    for family in families.into_iter().flatten().filter(|family| !family.samples.is_empty()) {
        let Family { name, help, kind, samples } = family;
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
    }
    text
}

/// What has happened to them. A count that is 0 is told as well: else its first rise is no rise.
fn of_the_past(counters: &BTreeMap<Office, Counters>) -> Vec<Family> {
    let mut starts = Family::counter("incumbent_starts_total", "Starts that got the office.");
    let mut refusals = Family::counter("incumbent_refusals_total", "Starts that were refused.");
    let mut restarts = Family::counter(
        "incumbent_restarts_total",
        "How often `incumbent run` restarted its command.",
    );
    let mut takeovers = Family::counter(
        "incumbent_takeovers_total",
        "How often another process took the office over.",
    );
    let mut ends = Family::counter(
        "incumbent_ends_total",
        "Ends, by reason and exit code (128 + n for signal n; empty where it was not known when \
         the end was recorded: incumbent_last_exit_code may know it later).",
    );
    for (office, of_it) in counters {
        let [profile, kind] = labels_of(office);
        starts.count(&[profile, kind], of_it.starts);
        refusals.count(&[profile, kind], of_it.refusals);
        restarts.count(&[profile, kind], of_it.restarts);
        takeovers.count(&[profile, kind], of_it.takeovers());
        for end in &of_it.ends {
            let code = end.exit_code.map(|code| code.to_string()).unwrap_or_default();
            let how = [("reason", end.reason.as_str()), ("exit_code", code.as_str())];
            ends.count(&[profile, kind, how[0], how[1]], end.count);
        }
    }
    vec![starts, refusals, restarts, takeovers, ends]
}

/// As a shell says it: 128 + n where signal n ended it.
fn shell_code(end: &LastEnd) -> Option<i32> {
    end.exit_code.or(end.signal.map(|signal| 128 + signal))
}

fn office_labels(report: &Report) -> [Label<'_>; 2] {
    labels_of(&report.office)
}

fn labels_of(office: &Office) -> [Label<'_>; 2] {
    [("profile", office.profile.as_str()), ("kind", office.kind.as_str())]
}

/// What is true of them.
fn of_offices(reports: &[Report]) -> Vec<Family> {
    let mut up = Family::new(
        "incumbent_gateway_up",
        "Whether a live process holds the office, or serves its profile; absent if unknown.",
    );
    let mut verdict = Family::new(
        "incumbent_gateway_verdict",
        "What is known of the holder: alive, dead or unknown; 1 for what is true.",
    );
    let mut info = Family::new("incumbent_gateway_info", "Facts about the live holder; always 1.");
    let mut start = Family::new(
        "incumbent_gateway_start_time_seconds",
        "When the live holder got the office, in seconds since the epoch.",
    );
    let mut command = Family::new(
        "incumbent_gateway_command_start_time_seconds",
        "When `incumbent run` started its command last, in seconds since the epoch.",
    );
    let mut desired = Family::new(
        "incumbent_gateway_desired_running",
        "Whether it is set to run (`incumbent desired`); absent if that is not set.",
    );
    let mut locks =
        Family::new("incumbent_gateway_locks_held", "Scoped locks taken from the live holder.");
    let mut markers = Family::new(
        "incumbent_gateway_markers_open",
        "Markers that are open for the live holder, such as a requested stop.",
    );
    let mut last_end = Family::new(
        "incumbent_gateway_last_end_timestamp_seconds",
        "When the last holder ended, in seconds since the epoch.",
    );
    let mut exit_code = Family::new(
        "incumbent_last_exit_code",
        "Exit code of the last holder (128 + n for signal n); absent where it is not known.",
    );
    for report in reports {
        let [profile, kind] = office_labels(report);
        if let Some(code) = report.last_end.as_ref().and_then(shell_code) {
            exit_code.add(&[profile, kind], f64::from(code));
        }
        // Unknown is neither.
        if report.verdict != Verdict::Unknown {
            up.add(&[profile, kind], flag(report.running));
        }
        for one in [Verdict::Alive, Verdict::Dead, Verdict::Unknown] {
            let labels = [profile, kind, ("verdict", one.as_str())];
            verdict.add(&labels, flag(report.verdict == one));
        }
        if let Some(wanted) = report.desired {
            desired.add(&[profile, kind], flag(wanted == Desired::Running));
        }
        if let Some(end) = &report.last_end
            && let Some(at_ms) = end.at_ms
        {
            last_end.add(&[profile, kind, ("reason", end.reason.as_str())], seconds(at_ms));
        }
        if report.verdict == Verdict::Dead {
            continue;
        }
        let instance = report.instance.map(|id| id.to_string()).unwrap_or_default();
        let served_by = report.served_by.as_ref().map(|office| office.profile.to_string());
        let labels = [
            profile,
            kind,
            ("instance", instance.as_str()),
            ("reason", report.reason.as_str()),
            ("version", report.version.as_deref().unwrap_or_default()),
            ("supervisor", report.supervisor.as_deref().unwrap_or_default()),
            ("served_by", served_by.as_deref().unwrap_or_default()),
        ];
        info.add(&labels, 1.0);
        if let Some(since_ms) = report.since_ms {
            start.add(&[profile, kind], seconds(since_ms));
        }
        // Of a profile that is served they are its server's.
        if report.served_by.is_none() {
            if let Some(since_ms) = report.command_since_ms {
                command.add(&[profile, kind], seconds(since_ms));
            }
            #[allow(clippy::cast_precision_loss, reason = "a handful")]
            let (lock_count, marker_count) =
                (report.locks.len() as f64, report.markers.len() as f64);
            locks.add(&[profile, kind], lock_count);
            markers.add(&[profile, kind], marker_count);
        }
    }
    vec![up, verdict, info, start, command, desired, locks, markers, last_end, exit_code]
}

/// What they said of themselves.
fn of_what_they_said(reports: &[Report]) -> Vec<Family> {
    let mut state = Family::new(
        "incumbent_gateway_state",
        "The state that the gateway reported, as far as it is still true; always 1.",
    );
    let mut busy = Family::new(
        "incumbent_gateway_busy",
        "Whether it is alive, says that it is running, and has active agents.",
    );
    let mut drainable = Family::new(
        "incumbent_gateway_drainable",
        "Whether it is alive and says that it is running.",
    );
    let mut is_stale = Family::new(
        "incumbent_gateway_stale",
        "Whether its status is older than five minutes; that does not mean that it is dead.",
    );
    let mut agents = Family::new("incumbent_gateway_active_agents", "Agents that work for it.");
    let mut memory = Family::new(
        "incumbent_memory_bytes",
        "What it had in memory at its last heartbeat; of a `run` its command with its children.",
    );
    let mut restart =
        Family::new("incumbent_gateway_restart_requested", "Whether it wants to be started again.");
    let mut updated = Family::new(
        "incumbent_gateway_status_timestamp_seconds",
        "When it last published its status, in seconds since the epoch.",
    );
    let mut heartbeat = Family::new(
        "incumbent_gateway_heartbeat_timestamp_seconds",
        "When it sent its last heartbeat, in seconds since the epoch.",
    );
    let mut unresponsive = Family::new(
        "incumbent_gateway_unresponsive_seconds",
        "For how long its promised heartbeat is overdue; 0 if it is not.",
    );
    for report in reports {
        let [profile, kind] = office_labels(report);
        if let Some(word) = &report.state {
            state.add(&[profile, kind, ("state", word)], 1.0);
        }
        // Of a profile that is served the rest is its server's, and would be counted twice.
        if report.verdict == Verdict::Dead || report.served_by.is_some() {
            continue;
        }
        busy.add(&[profile, kind], flag(report.busy()));
        drainable.add(&[profile, kind], flag(report.drainable()));
        is_stale.add(&[profile, kind], flag(report.stale));
        let silence = report.unresponsive_for.unwrap_or_default();
        unresponsive.add(&[profile, kind], silence.as_secs_f64());
        if let Some(at_ms) = report.heartbeat_at_ms {
            heartbeat.add(&[profile, kind], seconds(at_ms));
        }
        let Some(said) = &report.runtime else { continue };
        // What cannot be read has no value.
        if !said.damaged.contains(&"active_agents") {
            #[allow(clippy::cast_precision_loss, reason = "no gateway has that many")]
            let count = said.active_agents.unwrap_or(0) as f64;
            agents.add(&[profile, kind], count);
        }
        if let Some(bytes) = said.memory_bytes {
            memory.count(&[profile, kind], bytes);
        }
        if !said.damaged.contains(&"restart_requested") {
            restart.add(&[profile, kind], flag(said.restart_requested.unwrap_or(false)));
        }
        if let Some(at_ms) = said.updated_at_ms {
            updated.add(&[profile, kind], seconds(at_ms));
        }
    }
    vec![
        state,
        busy,
        drainable,
        is_stale,
        agents,
        memory,
        restart,
        updated,
        heartbeat,
        unresponsive,
    ]
}

/// What the live ones said of their platforms.
fn of_platforms(reports: &[Report]) -> Vec<Family> {
    let mut state = Family::new(
        "incumbent_platform_state",
        "The state of a platform as its live gateway reported it; always 1.",
    );
    let mut error = Family::new(
        "incumbent_platform_error",
        "The error of a platform as its live gateway reported it; always 1.",
    );
    let mut attention = Family::new(
        "incumbent_platform_needs_attention",
        "Whether a person has to do something about a platform.",
    );
    let mut retrying = Family::new(
        "incumbent_platform_retrying_since_timestamp_seconds",
        "When it began to reconnect, in seconds since the epoch.",
    );
    let mut updated = Family::new(
        "incumbent_platform_status_timestamp_seconds",
        "When the status of a platform was last published, in seconds since the epoch.",
    );
    for report in reports.iter().filter(|report| report.verdict != Verdict::Dead) {
        let [profile, kind] = office_labels(report);
        for platform in &report.platforms {
            let name = ("platform", platform.platform.as_str());
            if let Some(word) = &platform.state {
                state.add(&[profile, kind, name, ("state", word)], 1.0);
            }
            if let Some(code) = &platform.error_code {
                error.add(&[profile, kind, name, ("error_code", code)], 1.0);
            }
            if !platform.damaged.contains(&"needs_attention") {
                let needs_attention = platform.needs_attention.unwrap_or(false);
                attention.add(&[profile, kind, name], flag(needs_attention));
            }
            if let Some(at_ms) = platform.retrying_since_ms {
                retrying.add(&[profile, kind, name], seconds(at_ms));
            }
            if let Some(at_ms) = platform.updated_at_ms {
                updated.add(&[profile, kind, name], seconds(at_ms));
            }
        }
    }
    vec![state, error, attention, retrying, updated]
}
