//! `status`: the answer first, then why.

use super::args::Global;
use super::output::{self, Format, Outcome, Style, ago, exit, length};
use crate::clock::rfc3339;
use crate::status::Report;

pub(super) fn status(global: &Global, format: Format) -> Outcome {
    let office = global.office()?;
    let report = match global.existing()? {
        Some(store) => store.profile(office.profile.as_str())?.status_of(&office.kind)?,
        None => Report::never_claimed(office),
    };
    output::print(format, &text(&report), &report.to_json())?;
    Ok(match report.verdict {
        "alive" => exit::OK,
        "unknown" => exit::UNKNOWN,
        _ => exit::NOT_RUNNING,
    })
}

fn text(report: &Report) -> String {
    let style = Style::of_stdout();
    let office = &report.office;
    let pid = report.pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"));
    let mut lines = vec![match report.verdict {
        "alive" => {
            let since = report.since_ms.map(|ms| format!(", since {}", ago(ms)));
            let flags = match report.flags.names().as_slice() {
                [] => String::new(),
                names => format!(" ({})", names.join(", ").replace('_', " ")),
            };
            format!(
                "{office}: {}{flags}, {pid}{}",
                style.good("running"),
                since.unwrap_or_default()
            )
        }
        "unknown" => format!("{office}: {}, {pid} may be running", style.doubtful("unknown")),
        _ => format!("{office}: {}", style.bad("not running")),
    }];
    let mut add = |label: &str, value: String| {
        lines.push(format!("  {} {value}", style.faint(&format!("{label:<10}"))));
    };
    add("because", report.because().to_owned());
    if report.verdict == "dead" && report.pid.is_some() {
        let since = report.since_ms.and_then(rfc3339).unwrap_or_default();
        add("it was", format!("{pid}, claimed {since}"));
    }
    if report.flags.anchor_leaked {
        let holders: Vec<String> =
            report.anchor_holders.iter().map(|pid| format!("pid {pid}")).collect();
        let holders = if holders.is_empty() {
            "a process that cannot be seen".to_owned()
        } else {
            holders.join(", ")
        };
        add("leaked", format!("its lock is still open in {holders}, which blocks nobody"));
    }
    if let Some(command) = &report.command {
        add("command", command.clone());
    }
    if let Some(child) = report.child_pid.filter(|_| report.verdict != "dead") {
        add("child", format!("pid {child}"));
    }
    for lock in report.locks.iter().filter(|_| report.verdict != "dead") {
        add("lock", format!("{}, fence {}", lock.name, lock.fence));
    }
    for marker in report.markers.iter().filter(|_| report.verdict != "dead") {
        let by = output::one_line(&marker.by);
        add("asked", format!("{} by {by}, {}", marker.name, ago(marker.written_at_ms)));
    }
    if let Some(supervisor) = report.supervisor.as_deref().filter(|word| *word != "none") {
        add("supervisor", supervisor.to_owned());
    }
    if let Some(version) = &report.version {
        add("version", version.clone());
    }
    if let Some(desired) = report.desired {
        add("desired", desired.to_string());
    }
    if let Some(end) = &report.last_end {
        let by = end.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        add("last end", format!("{}{by}, {}", end.reason, ago(end.at_ms)));
    }
    if report.verdict == "unknown" {
        add(
            "try",
            format!(
                "look where it was started; if it is gone for certain: incumbent evict --force \
                 --profile {} --kind {}",
                office.profile, office.kind
            ),
        );
    }
    if report.flags.stopped {
        add("try", format!("continue it with `kill -CONT {}`", report.pid.unwrap_or_default()));
    }
    if let Some(budget_ms) = report.stop_budget_ms.filter(|_| report.running) {
        let budget_ms = i64::try_from(budget_ms).unwrap_or(i64::MAX);
        add("may take", format!("{} to stop", length(budget_ms)));
    }
    lines.join("\n") + "\n"
}
