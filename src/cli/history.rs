//! `history`: who held the office, and how each of them ended.

use crate::cli::args;
use crate::cli::args::Global;
use crate::cli::each::named_in;
use crate::cli::output;
use crate::cli::output::{Answer, Outcome, ago, exit, is_believed, until};
use crate::cli::status::restarted;
use crate::clock::{length, rfc3339};
use crate::status::{HistoryOptions, Incarnation};
use crate::{Error, Reason, sys};
use serde_json::json;

pub(super) fn history(global: &Global, arguments: &args::History) -> Outcome {
    if let (Some(since_ms), Some(until_ms)) = (arguments.since, arguments.until)
        && since_ms > until_ms
    {
        let [since, until] = [since_ms, until_ms].map(|ms| rfc3339(ms).unwrap_or_default());
        let message = format!("`--since` ({since}) is later than `--until` ({until})");
        return Err(Error::invalid(message).with_hint("swap them; without a zone both are UTC"));
    }
    let options = HistoryOptions::new();
    let (mut options, of_whom) = if arguments.all {
        let (profile, kind) = named_in(global)?;
        let options = profile.into_iter().fold(options, HistoryOptions::profile);
        let options = kind.into_iter().fold(options, HistoryOptions::kind);
        (options, "nobody has claimed anything".to_owned())
    } else {
        let office = global.office()?;
        let nobody = format!("{office}: nobody has claimed it");
        (options.profile(office.profile).kind(office.kind), nobody)
    };
    if let Some(since_ms) = arguments.since {
        options = options.since_ms(since_ms);
    }
    if let Some(until_ms) = arguments.until {
        options = options.until_ms(until_ms);
    }
    if let Some(count_max) = arguments.limit {
        options = options.count_max(count_max);
    }
    let incarnations = match global.existing_for_one_answer()? {
        Some(store) => store.history(&options)?,
        None => Vec::new(),
    };
    let is_narrowed = arguments.since.is_some() || arguments.until.is_some();
    let text = if !incarnations.is_empty() {
        incarnations.iter().map(|it| line(it, arguments.all)).collect()
    } else if is_narrowed {
        "nothing on record matches\n".to_owned()
    } else {
        format!("{of_whom} yet\n")
    };
    Ok(Answer::new(exit::OK, text, json!(incarnations)))
}

/// Not where the clock was set in between.
fn held_for(started_ms: i64, ended_ms: i64) -> String {
    let for_ms = ended_ms.saturating_sub(started_ms);
    let is_known = for_ms >= 0 && is_believed(started_ms) == is_believed(ended_ms);
    if is_known { format!(" for {}", length(for_ms)) } else { String::new() }
}

fn line(incarnation: &Incarnation, with_office: bool) -> String {
    let pid = incarnation.pid.map_or_else(|| "pid ?".to_owned(), |pid| format!("pid {pid}"));
    let office = if with_office { format!("{}: ", incarnation.office) } else { String::new() };
    let started = rfc3339(incarnation.started_at_ms).unwrap_or_default();
    let again = incarnation.restarts.filter(|count| *count > 0).map(restarted);
    let again = again.map(|again| format!(", {again}")).unwrap_or_default();
    // As long as nobody has recorded it, it is dead: `None`.
    let ended_ms = incarnation.ended_at_ms.and(incarnation.ended_before_ms());
    let text = match (ended_ms, &incarnation.end_reason) {
        // Nobody saw it end: that it held it until then nobody knows.
        (Some(found_ms), Some(reason)) if incarnation.is_found() => {
            let seen = incarnation.heartbeat_at_ms;
            let seen = seen.map(|at_ms| format!(", last seen alive {}", ago(at_ms)));
            format!(
                "{started}  {office}{pid} held it{again}{}, found dead {}: {}",
                seen.unwrap_or_default(),
                ago(found_ms),
                story(incarnation, reason)
            )
        }
        (Some(ended_ms), Some(reason)) => format!(
            "{started}  {office}{pid} held it{}{again}, {}: {}",
            held_for(incarnation.started_at_ms, ended_ms),
            until(&ago(ended_ms)),
            story(incarnation, reason)
        ),
        (None, Some(reason)) => {
            let story = story(incarnation, reason);
            format!("{started}  {office}{pid} held it{again}, and is dead: {story}")
        }
        (_, None) => {
            let since_ms = incarnation.command_since_ms.filter(|_| !again.is_empty());
            let when = since_ms.map(|ms| format!(", {}", ago(ms))).unwrap_or_default();
            format!("{started}  {office}{pid} holds it{again}{when}")
        }
    };
    output::one_line(&text) + "\n"
}

/// How it ended, in a sentence, with the word that scripts look for.
pub(super) fn story(incarnation: &Incarnation, reason: &Reason) -> String {
    let by = incarnation.ended_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let signal = incarnation.signal.map_or_else(|| "a signal".to_owned(), sys::signal_name);
    let summary = incarnation.summary.as_deref().unwrap_or_default();
    // Of one that was found dead the kernel told it to whoever watched.
    let is_known = incarnation.exit_code.is_some() || incarnation.signal.is_some();
    let is_by_kernel = reason.is_found_dead() && is_known;
    let mut told = match reason {
        Reason::Released if incarnation.exit_code.is_some_and(|code| code != 0) => {
            format!("it released the office, and {summary}")
        }
        Reason::Released => "it released the office".to_owned(),
        Reason::PlannedStop => format!("it was stopped on purpose{by}"),
        Reason::TakenOver => format!("its office was taken over{by}"),
        Reason::Signalled => match &incarnation.ended_by {
            Some(sender) => format!("{signal} from {sender} ended it"),
            None => format!("{signal} ended it"),
        },
        Reason::Exited if incarnation.exit_code.unwrap_or(0) == 0 => {
            "its command ended by itself".to_owned()
        }
        Reason::Exited | Reason::Crashed => format!("its command {summary}"),
        Reason::Evicted => format!("its record was ended{by}"),
        _ if is_by_kernel && summary.starts_with("killed") => format!("it was {summary}"),
        _ if is_by_kernel => format!("it {summary}"),
        Reason::AnchorReleased => "it was killed, or it crashed".to_owned(),
        _ => format!("{}{by}", reason.because()),
    };
    let is_told = matches!(reason, Reason::Signalled | Reason::Crashed | Reason::OomSuspected);
    if let Some(number) = incarnation.signal.filter(|_| !is_told && !is_by_kernel) {
        told += &format!(", by {}", sys::signal_name(number));
    }
    let is_summed_up = told.ends_with(summary) && !summary.is_empty();
    if let Some(code) = incarnation.exit_code.filter(|_| !is_summed_up) {
        told += &format!(", exit code {code}");
    }
    if let Some(detail) = &incarnation.detail {
        // Of many lines the one that says why.
        let words = incarnation.last_words().zip(incarnation.last_line());
        let detail = match words.and_then(|(words, line)| Some((detail.strip_suffix(words)?, line)))
        {
            Some((before, line)) => format!("{before}{line}"),
            None => detail.clone(),
        };
        told += &format!(" ({detail})");
    }
    if let Some(bytes) = incarnation.memory_bytes {
        told += &format!("; {} in memory at its last heartbeat", output::mebibytes(bytes));
    }
    format!("{told} [{reason}]")
}
