//! `marker write|peek|consume|clear`.

use serde_json::{Value, json};

use crate::cli::args::Global;
use crate::cli::claim::whom;
use crate::cli::context::by_us;
use crate::cli::output::{Answer, Complaint, Outcome, ago, exit};
use crate::cli::{args, lost_store, output};
use crate::marker::{Consumed, Marker, MarkerName, MarkerRequest, MarkerTarget, Written};

pub(super) fn write(global: &Global, arguments: &args::MarkerWrite) -> Outcome {
    let office = global.office()?;
    let mut request = MarkerRequest::new(arguments.name.clone()).by(by_us("marker write"));
    if let Some(ttl) = arguments.ttl {
        request = request.ttl(ttl)?;
    }
    if let Some(reason) = &arguments.reason {
        request = request.reason(reason.as_str());
    }
    let target = MarkerTarget::of_office(arguments.pid, office);
    target.check()?;
    // What an older version made says so itself.
    let store = match global.existing()? {
        Some(store) => store,
        None => global.options().open()?,
    };
    let Written { marker, replaced } = store.write_marker(target, &request)?;
    let mut text = format!("{}: written for pid {}\n", marker.name, arguments.pid);
    for replaced in &replaced {
        text += &format!("{}: replaced {}", marker.name, self::text(Some(replaced)));
    }
    let more = json!({"written": true, "replaced": replaced});
    Ok(Answer::new(exit::OK, text, document(Some(&marker), more)))
}

pub(super) fn peek(global: &Global, arguments: &args::MarkerRead) -> Outcome {
    let name = arguments.name.as_ref();
    let marker =
        lost_store::ask(global, |store| store.kept(whom(arguments.pid)).peek_marker(name))?;
    let marker = marker.flatten();
    Ok(Answer::new(
        if marker.is_some() { exit::OK } else { exit::NO },
        text(marker.as_ref()),
        document(marker.as_ref(), json!({})),
    ))
}

pub(super) fn consume(global: &Global, arguments: &args::MarkerRead) -> Outcome {
    let name = arguments.name.as_ref();
    let consumed =
        lost_store::ask(global, |store| store.kept(whom(arguments.pid)).consume_marker(name))?;
    let consumed = consumed.flatten();
    let recorded = consumed.as_ref().is_none_or(|consumed| consumed.recorded);
    let complaint = (!recorded).then(|| {
        Complaint::new("consumed, but that could not be recorded; another reader may see it again")
    });
    let marker = consumed.map(|Consumed { marker, .. }| marker);
    let more = json!({"consumed": marker.is_some(), "recorded": recorded});
    let code = if marker.is_some() { exit::OK } else { exit::NO };
    Ok(Answer::new(code, text(marker.as_ref()), document(marker.as_ref(), more))
        .complaining(complaint))
}

pub(super) fn clear(global: &Global, arguments: &args::MarkerClear) -> Outcome {
    let name: &MarkerName = &arguments.name;
    let by = by_us("marker clear");
    let cleared = match global.existing()? {
        Some(store) => store.kept(whom(arguments.pid)).by(by).clear_marker(name)?,
        None => 0,
    };
    let text = match cleared {
        0 => format!("{name}: none is open\n"),
        1 => format!("{name}: cleared\n"),
        count => format!("{name}: {count} cleared\n"),
    };
    Ok(Answer::new(
        if cleared > 0 { exit::OK } else { exit::NO },
        text,
        json!({"cleared": cleared}),
    ))
}

fn text(marker: Option<&Marker>) -> String {
    let Some(marker) = marker else { return String::new() };
    let reason = marker.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let line = format!("{} by {}, {}{reason}", marker.name, marker.by, ago(marker.written_at_ms));
    output::one_line(&line) + "\n"
}

/// The marker's own fields, beside whether there is one.
fn document(marker: Option<&Marker>, more: Value) -> Value {
    let mut document = json!({"found": marker.is_some()});
    let fields = marker.map(|marker| json!(marker)).into_iter().chain([more]);
    for field in fields {
        if let (Value::Object(document), Value::Object(field)) = (&mut document, field) {
            document.extend(field);
        }
    }
    document
}
