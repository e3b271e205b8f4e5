//! The party: who keeps starting an instance.
//!
//! Storms are counted per party, and two supervisors that start the same gateway are two parties.
//! It is the parent process (its pid made unambiguous by start time, boot and namespace) together
//! with the systemd service or container, as far as they are known. Pid 1 adopts orphans and is
//! nobody's party.

use crate::process::observer::Observer;
use crate::sys::Supervision;
use crate::{environment, sys};

/// A longer name given through the environment is cut.
const NAME_LENGTH_MAX: usize = 128;

/// The parent in a party, if that very process still lives: what it started may have ended.
pub(crate) fn living_parent(party: &str) -> Option<sys::Pid> {
    let parent = party.split(' ').find_map(|word| word.strip_prefix("parent:"))?;
    let mut words = parent.split('/');
    let pid = words.next()?.parse().ok()?;
    let start_time = sys::process_facts(pid).start_time?;
    (words.next()? == start_time.value.to_string()).then_some(pid)
}

/// The party as one comparable text; `None` when nothing is known of it.
pub(crate) fn of(
    parent: Option<sys::Pid>,
    supervision: &Supervision,
    observer: &Observer,
) -> Option<String> {
    if let Some(name) = environment::text(environment::PARTY) {
        let end = name.floor_char_boundary(NAME_LENGTH_MAX);
        return Some(format!("named:{}", &name[..end]));
    }
    let parent = parent.filter(|pid| *pid > 1).map(|pid| {
        let start_time = sys::process_facts(pid).start_time;
        format!(
            "parent:{pid}/{}/{}/{}",
            start_time.map_or_else(|| "?".to_owned(), |time| time.value.to_string()),
            observer.boot_id.as_deref().unwrap_or("?"),
            observer.pid_ns.as_deref().unwrap_or("?"),
        )
    });
    let service = supervision.systemd_service.as_ref().map(|unit| format!("systemd:{unit}"));
    let job = supervision.launchd_label.as_ref().map(|label| format!("launchd:{label}"));
    // A mere word such as `docker` is what all containers of that make have in common.
    let is_id = |id: &&String| !matches!(id.as_str(), "docker" | "podman");
    let container =
        supervision.container.as_ref().filter(is_id).map(|id| format!("container:{id}"));
    let known: Vec<String> = [parent, service, job, container].into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.join(" "))
}
