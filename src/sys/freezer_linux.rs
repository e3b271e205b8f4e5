//! Whether a process is frozen by its control group: `docker pause`, `systemctl freeze`.
//!
//! A frozen process lives and keeps all that it holds. It answers nobody, and sees a signal only
//! when it is thawed (with version 1 SIGKILL, too). `/proc` shows it asleep, so only the group
//! tells.

use std::path::Path;

use super::{Pid, note, procfs};

/// Where version 2 is mounted: alone, and beside version 1.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Where the freezer of version 1 is mounted.
const FREEZER: &str = "/sys/fs/cgroup/freezer";

/// A group that is frozen, and how a shell thaws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frozen {
    /// What to write.
    pub(crate) word: &'static str,
    /// To which file.
    pub(crate) file: String,
}

/// The frozen group that `pid` is in; `None` also where that cannot be seen.
pub(crate) fn frozen(pid: Pid) -> Option<Frozen> {
    if !super::process_table_is_ours() {
        return None;
    }
    let groups = std::fs::read(format!("/proc/{pid}/cgroup")).map_err(note).ok()?;
    let path = |controllers: &[u8]| {
        let path = procfs::cgroup_path_of(&groups, controllers)?;
        // `/..` leads out of what our own cgroup namespace shows.
        (!path.contains("/..") && path != "/").then_some(path)
    };
    let by_v2 = || path(b"").and_then(|path| UNIFIED.iter().find_map(|it| frozen_v2(it, &path)));
    let by_v1 = || path(b"freezer").and_then(|path| frozen_v1(&path));
    by_v2().or_else(by_v1)
}

/// cgroup-v2, `cgroup.events`: frozen by itself, or by a group above it (Linux 5.2).
fn frozen_v2(mount: &str, path: &str) -> Option<Frozen> {
    let events = format!("{mount}{path}/cgroup.events");
    let events = std::fs::read_to_string(events).map_err(note).ok()?;
    if !events.lines().any(|line| line == "frozen 1") {
        return None;
    }
    let is_the_cause = |group: &&str| {
        let set = std::fs::read_to_string(format!("{mount}{group}/cgroup.freeze"));
        set.is_ok_and(|set| set.trim() == "1")
    };
    let group = groups_up(path).find(is_the_cause).unwrap_or(path);
    Some(Frozen { word: "0", file: format!("{mount}{group}/cgroup.freeze") })
}

/// cgroup-v1/freezer-subsystem: `freezer.state` of a group that one above it froze says so, too.
fn frozen_v1(path: &str) -> Option<Frozen> {
    let state = format!("{FREEZER}{path}/freezer.state");
    let state = std::fs::read_to_string(state).map_err(note).ok()?;
    if !matches!(state.trim(), "FROZEN" | "FREEZING") {
        return None;
    }
    let is_the_cause = |group: &&str| {
        let set = std::fs::read_to_string(format!("{FREEZER}{group}/freezer.self_freezing"));
        set.is_ok_and(|set| set.trim() == "1")
    };
    let group = groups_up(path).find(is_the_cause).unwrap_or(path);
    Some(Frozen { word: "THAWED", file: format!("{FREEZER}{group}/freezer.state") })
}

/// The group and those above it, without the root, which cannot be frozen.
fn groups_up(path: &str) -> impl Iterator<Item = &str> {
    let paths = std::iter::successors(Some(Path::new(path)), |path| path.parent());
    paths.filter_map(Path::to_str).take_while(|path| *path != "/" && !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_and_those_above_it() {
        let up: Vec<&str> = groups_up("/a/b.scope/c").collect();
        assert_eq!(up, ["/a/b.scope/c", "/a/b.scope", "/a"]);
        assert_eq!(groups_up("/").count(), 0);
    }

    #[test]
    fn this_process_is_not_frozen() {
        assert_eq!(frozen(std::process::id()), None);
        assert_eq!(frozen(0), None);
    }
}
