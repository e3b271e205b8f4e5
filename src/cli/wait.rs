//! `wait`: until a gateway is ready, or says a state.

use serde_json::json;

use crate::cli::advice::twice;
use crate::cli::args;
use crate::cli::args::Global;
use crate::cli::output::{Answer, Complaint, Outcome, exit};
use crate::path_text::quoted;
use crate::status::{Awaited, ReadyOptions};
use crate::{Report, Verdict, Wait};

pub(super) fn wait(global: &Global, arguments: &args::Wait) -> Outcome {
    let office = global.office()?;
    let mut options = ReadyOptions::new();
    if let Some(state) = &arguments.state {
        options = options.state(state.as_str());
    }
    if let Some(timeout) = arguments.timeout {
        options = options.wait(Wait::UpTo(timeout));
    }
    let wanted = match &arguments.state {
        Some(state) => format!("says {state}"),
        None => "is ready".to_owned(),
    };
    let progress =
        global.doing("wait", format!("waiting until {office} {wanted}"), arguments.timeout);
    let awaited = global.options().wait_ready(&office, &options)?;
    drop(progress);
    let (code, word, report) = match awaited {
        Awaited::Reached(report) => (exit::OK, "reached", report),
        Awaited::NotInTime(report) => (exit::NO, "not_in_time", report),
        Awaited::Ended(report) => (exit::NOT_RUNNING, "ended", report),
    };
    let document = json!({"outcome": word, "status": report});
    if code == exit::OK {
        let pid = report.pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
        return Ok(Answer::new(code, format!("{office}: {wanted}{pid}\n"), document));
    }
    let complaint = if code == exit::NO {
        Complaint::new(format!(
            "{office}: timed out waiting until it {wanted}: {}",
            how_it_is(&report)
        ))
        .advising("`incumbent status` shows more")
        .advising(longer(arguments))
    } else {
        Complaint::new(format!("{office}: its holder has ended before it {wanted}"))
            .advising("`incumbent history` shows how")
    };
    Ok(Answer::new(code, "", document).complaining(complaint))
}

/// The same wait, with more time.
fn longer(arguments: &args::Wait) -> String {
    let state = arguments.state.as_ref();
    let state = state.map_or_else(String::new, |state| format!(" --state {}", quoted(state)));
    let timeout = twice(arguments.timeout);
    format!("`incumbent wait{state} --timeout {timeout}` waits longer")
}

/// Why it is not ready, or what it says in place of what was waited for.
fn how_it_is(report: &Report) -> String {
    match (report.verdict, report.not_ready(), report.state.as_deref()) {
        (Verdict::Dead, _, _) => "it is not running".to_owned(),
        (Verdict::Unknown, _, _) => "whether it runs is unknown".to_owned(),
        (Verdict::Alive, Some(word), _) => format!("it is {word}"),
        (Verdict::Alive, None, Some(state)) => format!("it says {state}"),
        (Verdict::Alive, None, None) => "it runs, and has not published a state".to_owned(),
    }
}
