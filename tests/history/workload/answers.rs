//! What an answer means: exit codes and documents of the verbs, values of the library.

use incumbent::marker::Marker;
use incumbent::{Error, Holder, Released, Standing};
use serde_json::Value;

use crate::log::{Answer, Call};

/// What a verb said, to what it was asked. `complaint` is its standard error.
pub fn of_verb(call: &Call, code: i32, document: &Value, complaint: &str) -> Answer {
    if let Some(error) = document.get("error") {
        return Answer::Error { kind: word(&error["kind"]), text: word(&error["message"]) };
    }
    match (call, code) {
        (Call::Claim { .. } | Call::Acquire { .. }, 0 | 75) if document.is_null() => {
            Answer::Error { kind: "no_document".to_owned(), text: complaint.to_owned() }
        }
        (Call::Claim { .. } | Call::Acquire { .. }, 0 | 75) => of_claim(document),
        (Call::Stop { .. }, 0) if document["was_running"] == false => {
            Answer::NotRunning { reason: "not_running".to_owned() }
        }
        (Call::Restart { .. }, 3) => Answer::NotRunning { reason: "not_running".to_owned() },
        (
            Call::Verify { .. }
            | Call::Renew { .. }
            | Call::Release { .. }
            | Call::Stop { .. }
            | Call::Restart { .. },
            0,
        ) => Answer::Yes,
        (Call::Verify { .. } | Call::Renew { .. }, 1) => Answer::Lost { reason: None },
        (
            Call::Release { .. }
            | Call::MarkerClear { .. }
            | Call::Stop { .. }
            | Call::Restart { .. },
            1,
        ) => Answer::No,
        (
            Call::MarkerWrite { .. }
            | Call::MarkerClear { .. }
            | Call::Say { .. }
            | Call::Forge { .. },
            0,
        ) => Answer::Done,
        (Call::Remains { .. }, 0) => Answer::Remains { of: ids(document) },
        (Call::Stop { .. } | Call::Restart { .. } | Call::Evict { .. }, 75) => {
            of_holder(&document["holder"])
        }
        (Call::Stop { .. } | Call::Restart { .. }, 4) => {
            Answer::Unknown { reason: word(&document["holder"]["reason"]) }
        }
        (Call::Evict { .. }, 0) => {
            let removed = [&document["evicted"], &document["unlocked"]];
            let is_some = removed.iter().any(|it| !it.is_null());
            if is_some { Answer::Yes } else { Answer::No }
        }
        (Call::Status { .. }, 0 | 3 | 4) => of_status(code, document),
        (Call::MarkerPeek { .. } | Call::MarkerConsume { .. }, 0) => marker(
            word(&document["name"]),
            document["reason"].as_str().map(str::to_owned),
            document["recorded"] != false,
        ),
        (Call::MarkerPeek { .. } | Call::MarkerConsume { .. }, 1) => Answer::NoMarker,
        (Call::Repair { .. }, _) if began_anew(document) => Answer::Yes,
        (Call::Other { .. } | Call::Run { .. } | Call::Repair { .. }, code) => {
            Answer::Exit { code }
        }
        (_, code) => Answer::Error {
            kind: format!("exit {code}"),
            text: complaint.lines().next().unwrap_or_default().to_owned(),
        },
    }
}

/// Whether a repair moved the store aside, or tried to and did not say how far it came.
fn began_anew(document: &Value) -> bool {
    let acts = document.as_array().into_iter().flatten().filter_map(|it| it["acts"].as_array());
    acts.flatten().any(|act| {
        act["outcome"] != "would" && word(&act["act"]).contains(" aside, save what can be read")
    })
}

/// Of rows that have one.
fn ids(rows: &Value) -> Vec<i64> {
    rows.as_array().into_iter().flatten().filter_map(|row| row["id"].as_i64()).collect()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn of_claim(document: &Value) -> Answer {
    let (Some(incarnation), Some(fence)) =
        (document["instance"].as_i64(), document["fence"].as_i64())
    else {
        return of_holder(&document["holder"]);
    };
    let reacquired = document["reacquired"] == true;
    Answer::Granted { incarnation, fence, reacquired, heir_of: None, locks: Vec::new() }
}

fn of_holder(holder: &Value) -> Answer {
    Answer::Held {
        by: holder["instance"].as_i64(),
        verdict: word(&holder["verdict"]),
        reason: word(&holder["reason"]),
    }
}

fn of_status(code: i32, document: &Value) -> Answer {
    let reason = word(&document["reason"]);
    match code {
        0 => Answer::Running {
            incarnation: document["instance"].as_i64(),
            reason,
            word: document["state"].as_str().map(str::to_owned),
        },
        3 => Answer::NotRunning { reason },
        _ => Answer::Unknown { reason },
    }
}

/// How the names of the soak's own markers begin: the verbs write others.
pub const NOTE: &str = "soak-";

pub fn is_of_soak(name: &str) -> bool {
    name.starts_with(NOTE)
}

fn marker(name: String, reason: Option<String>, recorded: bool) -> Answer {
    let token = reason.filter(|_| is_of_soak(&name));
    Answer::Marker { name, token, recorded }
}

pub fn of_marker(it: Marker, recorded: bool) -> Answer {
    marker(it.name.as_str().to_owned(), it.reason, recorded)
}

pub fn of_error(error: &Error) -> Answer {
    Answer::Error { kind: error.kind().as_str().to_owned(), text: error.to_string() }
}

pub fn held(holder: &Holder) -> Answer {
    Answer::Held {
        by: holder.instance.map(incumbent::InstanceId::as_i64),
        verdict: holder.verdict.as_str().to_owned(),
        reason: holder.reason.as_str().to_owned(),
    }
}

pub fn of_standing(standing: &incumbent::Result<Standing>) -> Answer {
    match standing {
        Ok(Standing::Held) => Answer::Yes,
        Ok(Standing::Lost(lost)) => Answer::Lost { reason: Some(reason(lost)) },
        Err(error) => of_error(error),
    }
}

/// The word of the documents.
fn reason(lost: &incumbent::Lost) -> String {
    match lost {
        incumbent::Lost::StoreReplaced => "store_replaced".to_owned(),
        incumbent::Lost::Lock { reason, .. } | incumbent::Lost::Ended { reason, .. } => {
            reason.as_str().to_owned()
        }
        other => other.to_string(),
    }
}

pub fn of_release(released: &incumbent::Result<Released>) -> Answer {
    match released {
        Ok(Released::Free) => Answer::Yes,
        Ok(Released::StillShared) => Answer::Done,
        Ok(Released::WasLost) => Answer::No,
        Ok(Released::Pending(error)) | Err(error) => of_error(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Its document, and whether a new store was begun.
    #[track_caller]
    fn repairs(outcome: &str, act: &str, expected: &Answer) {
        let act = json!({"check": "integrity", "act": act, "outcome": outcome});
        let document = json!([{"id": "path", "acts": []}, {"id": "integrity", "acts": [act]}]);
        let call = Call::Repair { store: "main".to_owned() };
        assert_eq!(of_verb(&call, 1, &document, ""), *expected, "{document}");
    }

    #[test]
    fn not_every_repair_begins_a_new_store() {
        const ASIDE: &str = "move a.db aside, save what can be read of it, and begin a new store";
        let nothing = Answer::Exit { code: 1 };
        repairs("done", ASIDE, &Answer::Yes);
        repairs("failed", ASIDE, &Answer::Yes);
        repairs("would", ASIDE, &nothing);
        repairs("done", "end the record of work/gateway", &nothing);
    }
}
