//! `evict` and `history`.

use serde_json::{Value, json};

use super::args::{self, Global};
use super::by_us;
use super::output::{self, Format, Outcome, ago, exit, length};
use crate::holder::because;
use crate::office::Eviction;
use crate::standing::Force;
use crate::status::Incarnation;

/// As many as the store keeps.
const HISTORY_SHOWN: usize = 200;

pub(super) fn evict(global: &Global, arguments: &args::Evict, format: Format) -> Outcome {
    let office = global.office()?;
    let force = if arguments.force { Force::Yes } else { Force::No };
    let eviction = match global.existing()? {
        Some(store) => {
            let verb = if arguments.force { "evict --force" } else { "evict" };
            store.profile(office.profile.as_str())?.evict(&office.kind, force, &by_us(verb))?
        }
        None => Eviction::Nothing,
    };
    let (text, document, code) = match &eviction {
        Eviction::Nothing => {
            (format!("{office}: nobody is on record, nothing to evict\n"), Value::Null, exit::OK)
        }
        Eviction::Done { instance, pid, verdict, reason } => (
            format!(
                "{office}: evicted {}, which was {verdict}: {}\n",
                pid.map_or_else(|| "its holder".to_owned(), |pid| format!("pid {pid}")),
                because(reason)
            ),
            json!({
                "pid": pid,
                "profile": office.profile.as_str(),
                "instance": instance.as_i64(),
                "verdict": verdict,
                "reason": reason,
            }),
            exit::OK,
        ),
        Eviction::OrphansRemoved(count) => (
            format!(
                "{office}: {count} lock(s) of a store that is gone no longer stand in the way; \
                 their processes were left alone\n"
            ),
            json!({
                "pid": null,
                "profile": office.profile.as_str(),
                "instance": null,
                "verdict": "alive",
                "reason": "orphaned_anchor",
            }),
            exit::OK,
        ),
        Eviction::Refused(holder) => {
            if format == Format::Text {
                output::tell(&format!(
                    "incumbent: evict: {holder}\n  try:   {}\n  or:    `incumbent evict --force` \
                     ends its record without ending the process\n",
                    holder.advice()
                ));
            }
            (String::new(), Value::Null, exit::NOT_NOW)
        }
    };
    let holder = match &eviction {
        Eviction::Refused(holder) => holder.to_json(),
        Eviction::Nothing | Eviction::Done { .. } | Eviction::OrphansRemoved(_) => Value::Null,
    };
    output::print(format, &text, &json!({"evicted": document, "holder": holder}))?;
    Ok(code)
}

pub(super) fn history(global: &Global, format: Format) -> Outcome {
    let office = global.office()?;
    let incarnations = match global.existing()? {
        Some(store) => {
            store.profile(office.profile.as_str())?.history(&office.kind, HISTORY_SHOWN)?
        }
        None => Vec::new(),
    };
    let text = if incarnations.is_empty() {
        format!("{office}: nobody has claimed it yet\n")
    } else {
        incarnations.iter().map(line).collect()
    };
    let document = incarnations.iter().map(Incarnation::to_json).collect();
    output::print(format, &text, &document)?;
    Ok(exit::OK)
}

fn line(incarnation: &Incarnation) -> String {
    let pid = incarnation.pid.map_or_else(|| "pid ?".to_owned(), |pid| format!("pid {pid}"));
    let started = crate::clock::rfc3339(incarnation.started_at_ms).unwrap_or_default();
    let mut text = match (incarnation.ended_at_ms, &incarnation.end_reason) {
        (Some(ended_ms), Some(reason)) => format!(
            "{started}  {pid} held it for {}, ended {}: {reason}",
            length(ended_ms.saturating_sub(incarnation.started_at_ms)),
            ago(ended_ms)
        ),
        (None, Some(reason)) => format!("{started}  {pid} held it and is dead: {reason}"),
        (_, None) => format!("{started}  {pid} holds it"),
    };
    if let Some(code) = incarnation.exit_code {
        text += &format!(", exit code {code}");
    }
    if let Some(signal) = incarnation.signal {
        let name = crate::sys::supervise::signal_name(i32::try_from(signal).unwrap_or_default());
        text += &format!(", {name}");
    }
    if let Some(by) = &incarnation.ended_by {
        text += &format!(", by {by}");
    }
    if let Some(detail) = &incarnation.detail {
        text += &format!(" ({detail})");
    }
    output::one_line(&text) + "\n"
}
