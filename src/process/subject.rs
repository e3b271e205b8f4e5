//! The process that a record is about.

use crate::names::Secret;
use crate::process::command_line::mask;
use crate::process::observer::Observer;
use crate::sys;
use crate::sys::{StartTime, Supervision};

/// A stored pid that the kernel could have given out.
pub(crate) fn valid_pid(number: i64) -> Option<sys::Pid> {
    i32::try_from(number).ok().filter(|pid| *pid > 0)?.try_into().ok()
}

/// Who a new row is about.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) pid: sys::Pid,
    pub(crate) start_time: Option<StartTime>,
    /// The kernel's own number of it.
    pub(crate) number: Option<sys::ProcessNumber>,
    pub(crate) uid: Option<u32>,
    /// Already redacted.
    pub(crate) argv: Vec<String>,
    raw: mask::Raw,
    pub(crate) party: Option<String>,
    pub(crate) supervisor: String,
    /// Where its memory is counted, and how many the kernel had killed there by now.
    pub(crate) memory: Option<(sys::MemoryGroup, u64)>,
}

impl Subject {
    /// This very process.
    pub(crate) fn myself(observer: &Observer) -> Self {
        let facts = sys::process_facts(observer.pid);
        let raw = own_command_line();
        Self {
            pid: observer.pid,
            start_time: observer.start_time,
            number: observer.number,
            uid: facts.uid.or(observer.uid),
            argv: raw.redacted(&[]),
            raw,
            ..Self::surroundings(observer.pid, facts.parent, observer)
        }
    }

    /// Another process of this namespace.
    pub(crate) fn process(
        pid: sys::Pid,
        start_time: Option<StartTime>,
        observer: &Observer,
    ) -> Self {
        let facts = sys::process_facts(pid);
        let raw = mask::Raw::new(sys::command_line(pid).unwrap_or_default());
        Self {
            pid,
            start_time,
            number: facts.number,
            uid: facts.uid,
            argv: raw.redacted(&[]),
            raw,
            ..Self::surroundings(pid, facts.parent, observer)
        }
    }

    /// A process that others have told of. Nobody knows who keeps starting it.
    pub(crate) fn told(
        pid: sys::Pid,
        start_time: Option<StartTime>,
        uid: Option<u32>,
        argv: Vec<String>,
    ) -> Self {
        let raw = mask::Raw::new(argv.clone());
        let supervisor = supervisor_word(&Supervision::default());
        Self {
            pid,
            start_time,
            number: None,
            uid,
            argv,
            raw,
            party: None,
            supervisor,
            memory: None,
        }
    }

    /// The command line without the identities that the process locks.
    pub(crate) fn argv_without(&self, secrets: &[&Secret]) -> Vec<String> {
        // To redact it again takes ten times as long as to see that there is nothing to hide.
        if self.raw.is_free_of(secrets) { self.argv.clone() } else { self.raw.redacted(secrets) }
    }

    fn surroundings(pid: sys::Pid, parent: Option<sys::Pid>, observer: &Observer) -> Self {
        let supervision = sys::supervision(pid);
        Self {
            pid,
            start_time: None,
            number: None,
            uid: None,
            argv: Vec::new(),
            raw: mask::Raw::default(),
            party: crate::process::party::of(parent, &supervision, observer),
            supervisor: supervisor_word(&supervision),
            memory: sys::details::memory_group(pid)
                .and_then(|group| Ok((group.oom_kills()?, group)))
                .map(|(kills, group)| (group, kills))
                .ok(),
        }
    }
}

fn own_command_line() -> mask::Raw {
    mask::Raw::new(
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
    )
}

/// What supervises a process, as its row says it.
pub(crate) fn supervisor_word(supervision: &Supervision) -> String {
    if let Some(unit) = &supervision.systemd_service {
        format!("systemd:{unit}")
    } else if let Some(label) = &supervision.launchd_label {
        format!("launchd:{label}")
    } else if let Some(id) = &supervision.container {
        format!("container:{id}")
    } else {
        "none".to_owned()
    }
}
