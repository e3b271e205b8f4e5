//! What only people want to know of a process and of the machine, where there is no `/proc`.

use super::{Details, KernelLog, Limit, MemoryGroup, Pid, Seen, StartTime};

const NOT_HERE: &str = "there is no systemd on this platform, and there are no control groups";

/// What sysinfo knows of a process.
pub fn details(pid: Pid) -> Seen<Details> {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};
    let id = sysinfo::Pid::from_u32(pid);
    let mut system = System::new().map_err(|error| format!("sysinfo: {error}"))?;
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[id]),
        false,
        ProcessRefreshKind::nothing().with_memory().with_user(UpdateKind::Always).without_tasks(),
    );
    let process = system.process(id).ok_or_else(|| format!("pid {pid} cannot be seen"))?;
    Ok(Details {
        name: Some(process.name().to_string_lossy().into_owned()),
        state: Some(process.status().to_string()),
        parent: Some(process.parent().map_or(0, sysinfo::Pid::as_u32)),
        uid: super::process_facts(pid).uid,
        tracer: None,
        rss_bytes: Some(process.memory()),
        peak_rss_bytes: None,
        swap_bytes: None,
    })
}

/// What `pid` has in memory, in bytes; the children are not listed cheaply here.
pub fn family_rss(pid: Pid) -> Option<u64> {
    details(pid).ok()?.rss_bytes
}

/// The parent of this process; 0 for one that has ended.
pub fn own_parent() -> Seen<Pid> {
    Ok(details(std::process::id())?.parent.unwrap_or(0))
}

/// The command line, or why there is none.
pub fn arguments(pid: Pid) -> Seen<Vec<String>> {
    super::command_line(pid).ok_or_else(|| format!("the command line of pid {pid} cannot be read"))
}

/// The load average of the last minute.
pub fn load_average() -> Seen<f64> {
    let load = sysinfo::System::load_average().map_err(|error| format!("sysinfo: {error}"))?;
    if cfg!(windows) { Err("Windows has none".to_owned()) } else { Ok(load.one) }
}

/// There are no control groups.
pub fn cgroup(_pid: Pid) -> Seen<(String, Option<String>)> {
    Err(NOT_HERE.to_owned())
}

/// There are no control groups.
pub fn memory_group(_pid: Pid) -> Seen<MemoryGroup> {
    Err(NOT_HERE.to_owned())
}

impl MemoryGroup {
    /// There are no control groups.
    pub fn recorded(_directory: String, _recorded: Option<i64>) -> Option<Self> {
        None
    }

    /// There are no control groups.
    pub fn oom_kills(&self) -> Seen<u64> {
        Err(NOT_HERE.to_owned())
    }

    /// There are no control groups.
    pub fn used_bytes(&self) -> Seen<u64> {
        Err(NOT_HERE.to_owned())
    }

    /// There are no control groups.
    pub fn limit_bytes(&self) -> Seen<Option<u64>> {
        Err(NOT_HERE.to_owned())
    }
}

/// Not looked at.
pub fn limits() -> Vec<(&'static str, Seen<Limit>)> {
    Vec::new()
}

/// Nothing is known of it.
pub fn killed_for_memory(_processes: &[(Pid, Option<StartTime>)]) -> KernelLog {
    KernelLog::Unknown
}
