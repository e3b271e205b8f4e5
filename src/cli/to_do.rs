//! What to do about an office: the lines `try` of `status`, and of a live one why it needs them.

use crate::cli::after_end;
use crate::cli::after_end::Place;
use crate::clock::{length, millis};
use crate::{Report, Verdict};

/// Of a live one that does nothing: why.
pub(super) fn idles(report: &Report) -> Option<String> {
    if report.flags.stopped {
        return Some("suspended (SIGSTOP)".to_owned());
    }
    if report.flags.frozen {
        return Some("frozen by its control group".to_owned());
    }
    if report.flags.command_stopped {
        return Some("its command is suspended (SIGSTOP)".to_owned());
    }
    let silence = report.unresponsive_for?;
    Some(format!("unresponsive: no heartbeat for {}", length(millis(silence))))
}

/// Whether the answer says already that it has missed its heartbeats.
pub(super) fn says_silence(report: &Report) -> bool {
    report.verdict == Verdict::Alive
        && !report.flags.stopped
        && !report.flags.frozen
        && !report.flags.command_stopped
}

/// What to do about it.
pub(super) fn what_to_do(report: &Report, place: &Place) -> Vec<String> {
    let mut advice = Vec::new();
    // Of one that is served the server is meant.
    let holder = report.served_by.as_ref().unwrap_or(&report.office);
    match report.verdict {
        Verdict::Dead => {
            advice.extend(after_end::what_to_do(report, place));
            return advice;
        }
        Verdict::Unknown => advice.push(format!(
            "check where it was started; if it is certainly gone: `incumbent {}`",
            holder.verb("evict --force")
        )),
        Verdict::Alive => {}
    }
    if let Some(thaw) = report.how_to_thaw() {
        advice.push(format!("thaw it: {thaw}"));
    } else if report.flags.stopped {
        let pid = report.pid.unwrap_or_default();
        advice.push(format!("continue it with `kill -CONT {pid}`"));
    } else if let Some(child) = report.child_pid.filter(|_| report.flags.command_stopped) {
        advice.push(format!("continue its command with `kill -CONT {child}`"));
    } else if report.unresponsive_for.is_some() && report.running {
        advice.push(format!(
            "look at what it does, or restart it: `incumbent {}`",
            holder.verb("restart")
        ));
    }
    if let Place::FullDisk(directory) = place {
        advice.push(after_end::make_room(directory));
    }
    advice
}
