//! One process in a snapshot.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::forensics::snapshot::line;
use crate::forensics::{Fact, Unavailable, unavailable};
use crate::names::Secret;
use crate::process::command_line;
use crate::process::command_line::mask::Raw;
use crate::process::command_line::redact;
use crate::sys::{Details, Limit, MemoryGroup, Pid, details};

/// Command lines are cut here: they are for recognising a process.
const COMMAND_LINE_LENGTH_MAX: usize = 300;

/// What can be seen of a process. In JSON an object with these fields; a fact that could not be
/// read is `{"unavailable": "..."}`. Later versions may add others.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ProcessSummary {
    /// Its pid.
    pub pid: u32,
    /// The name of its program.
    #[serde(serialize_with = "line::serialize")]
    pub name: Fact<String>,
    /// Its state, in the platform's words: `S (sleeping)`.
    #[serde(serialize_with = "line::serialize")]
    pub state: Fact<String>,
    /// Its parent's pid; 0 for one that lives outside of this pid namespace.
    #[serde(serialize_with = "line::serialize")]
    pub ppid: Fact<u32>,
    /// Its real user id.
    #[serde(serialize_with = "line::serialize")]
    pub uid: Fact<u32>,
    /// Its command line without what looks like a secret, cut at 300 characters.
    #[serde(serialize_with = "line::serialize")]
    pub cmdline: Fact<String>,
    #[serde(skip)]
    raw: Raw,
}

impl ProcessSummary {
    pub(crate) fn of(pid: Pid) -> Self {
        Self::look(pid).0
    }

    pub(super) fn look(pid: Pid) -> (Self, Result<Details, String>) {
        let seen = details::details(pid);
        let summary = match &seen {
            Ok(seen) => {
                let missing = || Unavailable::new("the platform does not say");
                let text = |text: &Option<String>| {
                    text.as_ref().map(|text| redact::redact_text(text)).ok_or_else(missing)
                };
                Self {
                    pid,
                    name: text(&seen.name),
                    state: text(&seen.state),
                    ppid: seen.parent.ok_or_else(missing),
                    uid: seen.uid.ok_or_else(missing),
                    cmdline: Err(missing()),
                    raw: Raw::default(),
                }
            }
            Err(why) => Self::unknown(pid, &Unavailable::new(why)),
        };
        let summary = match details::arguments(pid) {
            Ok(arguments) => {
                let raw = Raw::new(arguments);
                Self { cmdline: Ok(shown_command(&raw, &[])), raw, ..summary }
            }
            Err(why) => Self { cmdline: Err(Unavailable::new(why)), ..summary },
        };
        (summary, seen)
    }

    pub(super) fn unknown(pid: Pid, why: &Unavailable) -> Self {
        Self {
            pid,
            name: Err(why.clone()),
            state: Err(why.clone()),
            ppid: Err(why.clone()),
            uid: Err(why.clone()),
            cmdline: Err(why.clone()),
            raw: Raw::default(),
        }
    }

    pub(super) fn hide_identities(&mut self, is_identity: &dyn Fn(&str) -> bool) {
        let secrets = self.raw.find(is_identity);
        if !secrets.is_empty() {
            let secrets: Vec<&Secret> = secrets.iter().collect();
            self.cmdline = Ok(shown_command(&self.raw, &secrets));
        }
    }
}

fn shown_command(raw: &Raw, identities: &[&Secret]) -> String {
    let text = command_line::display(&raw.redacted(identities));
    match text.char_indices().nth(COMMAND_LINE_LENGTH_MAX) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

pub(super) fn under_systemd(
    pid: Pid,
    cgroup: &Result<(String, Option<String>), String>,
    parents_name: Option<&Fact<String>>,
) -> Fact<bool> {
    let (_, unit) = cgroup.as_ref().map_err(Unavailable::new)?;
    if !unit.as_ref().is_some_and(|unit| unit.ends_with(".service")) {
        return Ok(false);
    }
    if crate::process::exit_code::is_executed_by_systemd(pid) {
        return Ok(true);
    }
    match parents_name {
        Some(Ok(name)) => Ok(name == "systemd"),
        Some(Err(why)) => Err(why.clone()),
        None => unavailable("it is in a service, and its parent cannot be seen"),
    }
}

pub(super) fn memory(
    pid: Pid,
    seen: Result<&Details, &String>,
) -> BTreeMap<&'static str, Fact<Value>> {
    let own = |of: fn(&Details) -> Option<u64>| match seen {
        Ok(seen) => {
            of(seen).map(Value::from).ok_or_else(|| Unavailable::new("the platform does not say"))
        }
        Err(why) => unavailable(why.as_str()),
    };
    let group = details::memory_group(pid);
    let of_group = |of: &dyn Fn(&MemoryGroup) -> Result<Value, String>| {
        group.as_ref().map_err(Clone::clone).and_then(of).map_err(Unavailable::new)
    };
    BTreeMap::from([
        ("cgroup_bytes", of_group(&|group| group.used_bytes().map(Value::from))),
        ("cgroup_limit_bytes", of_group(&|group| group.limit_bytes().map(or_unlimited))),
        ("oom_kills", of_group(&|group| group.oom_kills().map(Value::from))),
        ("peak_rss_bytes", own(|seen| seen.peak_rss_bytes)),
        ("rss_bytes", own(|seen| seen.rss_bytes)),
        ("swap_bytes", own(|seen| seen.swap_bytes)),
    ])
}

pub(super) fn limits() -> BTreeMap<&'static str, Fact<Value>> {
    let value =
        |limit: Limit| json!({"hard": or_unlimited(limit.hard), "soft": or_unlimited(limit.soft)});
    let limits = details::limits().into_iter();
    limits.map(|(name, limit)| (name, limit.map(value).map_err(Unavailable::new))).collect()
}

fn or_unlimited(value: Option<u64>) -> Value {
    value.map_or_else(|| "unlimited".into(), Value::from)
}
