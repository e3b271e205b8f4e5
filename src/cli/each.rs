//! What `stop` and `restart` say of one office, or of each with `--all`.

use serde_json::{Value, json};

use crate::cli::advice::Invocation;
use crate::cli::args::Global;
use crate::cli::output;
use crate::cli::output::{Answer, Complaint, exit};
use crate::{Error, Holder, Kind, Office, ProfileName};

/// What there is to say of one office.
pub(super) struct One {
    pub(super) code: i32,
    pub(super) text: String,
    pub(super) document: Value,
    pub(super) complaints: Vec<Complaint>,
}

impl One {
    /// What could not be asked for.
    pub(super) fn failed(office: &Office, error: &Error) -> Self {
        let mut document = output::error_document(error);
        document["profile"] = json!(office.profile);
        document["kind"] = json!(office.kind);
        let mut complaint = Complaint::new(format!("{office}: {error}"));
        if let Some(hint) = error.command_line_hint() {
            complaint = complaint.advising(hint);
        }
        let (code, complaints) = (output::exit_code(error), vec![complaint]);
        Self { code, text: String::new(), document, complaints }
    }

    /// What came of it, in a few words.
    pub(super) fn result(&self) -> String {
        let (_, said) = self.text.trim_end().split_once(": ").unwrap_or_default();
        let refused = match self.code {
            exit::NO => "not done",
            exit::UNKNOWN => "unknown",
            exit::NOT_NOW => "not now",
            _ => "failed",
        };
        if said.is_empty() { refused.to_owned() } else { said.to_owned() }
    }

    /// A table of all, or an array. `none` is the code where there is nobody.
    pub(super) fn of_all(global: &Global, all: Vec<Self>, none: i32) -> Answer {
        /// The worst first, as the help says it.
        const FROM_WORST: [i32; 7] = [
            exit::FAILED,
            exit::CONFIGURATION,
            exit::UNKNOWN,
            exit::NO,
            exit::NOT_NOW,
            exit::NOT_RUNNING,
            exit::OK,
        ];
        if all.is_empty() {
            return Answer::new(none, "no gateway is running\n", json!([]));
        }
        let has = |code: &i32| all.iter().any(|one| one.code == *code);
        // One that is not on the list is a fault of this very program.
        let code = FROM_WORST.into_iter().find(has).unwrap_or(exit::FAILED);
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header(["PROFILE", "KIND", "RESULT"]);
        for one in &all {
            let named = |name: &str| one.document[name].as_str().unwrap_or_default().to_owned();
            table.add_row([named("profile"), named("kind"), output::one_line(&one.result())]);
        }
        let table = table.to_string();
        let text: String = table.lines().map(|line| line.trim().to_owned() + "\n").collect();
        let invocation = Invocation::of(global).of_all_offices();
        let (mut documents, mut complaints) = (Vec::new(), Vec::new());
        for mut one in all {
            invocation.complete_in(&mut one.document);
            documents.push(one.document);
            complaints.extend(one.complaints);
        }
        Answer::new(code, text, Value::Array(documents)).complaining(complaints)
    }
}

/// What came of it.
pub(super) struct Told<'a> {
    pub(super) text: String,
    pub(super) complaint: Option<Complaint>,
    /// Whoever is left.
    pub(super) holder: Option<&'a Holder>,
    pub(super) code: i32,
}

impl<'a> Told<'a> {
    pub(super) fn saying(text: String, code: i32) -> Self {
        Self { text, complaint: None, holder: None, code }
    }

    pub(super) fn refusing(complaint: Complaint, holder: Option<&'a Holder>, code: i32) -> Self {
        Self { text: String::new(), complaint: Some(complaint), holder, code }
    }
}

/// The profile and the kind that `--all` is limited to: those of the arguments. What the
/// environment says is about the caller's own gateway.
pub(super) fn named_in(global: &Global) -> crate::Result<(Option<ProfileName>, Option<Kind>)> {
    let profile = global.profile.as_deref().map(ProfileName::new).transpose()?;
    let kind = global.kind.as_deref().map(Kind::new).transpose()?;
    Ok((profile, kind))
}

pub(super) fn named(pid: Option<u32>) -> String {
    pid.map_or_else(|| "its holder".to_owned(), |pid| format!("pid {pid}"))
}

/// What to say in order to reach a server of several profiles.
pub(super) fn instead(verb: &str, server: &Office) -> String {
    format!("`incumbent {}`, if you mean all that it serves", server.verb(verb))
}

pub(super) fn document(office: &Office) -> Value {
    json!({"profile": office.profile.as_str(), "kind": office.kind.as_str()})
}
