//! The cgroup of a process: which service or container it is in.

use super::lossy;

/// The innermost systemd unit of `/proc/<pid>/cgroup` (cgroups(7)), if it is a service.
///
/// A scope or slice is no supervisor: a desktop terminal is a scope, and below a user's manager
/// (`user@1000.service`) everything would otherwise look supervised.
pub fn systemd_service(cgroup: &[u8]) -> Option<String> {
    // With cgroup v1 or both, systemd keeps its own hierarchy; with v2 it is the only one.
    cgroup_path(cgroup, b"name=systemd")
        .and_then(innermost_service)
        .or_else(|| cgroup_path(cgroup, b"").and_then(innermost_service))
}

pub(super) fn innermost_service(path: &[u8]) -> Option<String> {
    innermost_unit(path).filter(|unit| unit.ends_with(".service"))
}

/// The innermost systemd unit of `/proc/<pid>/cgroup`, of whatever type.
pub fn systemd_unit(cgroup: &[u8]) -> Option<String> {
    cgroup_path(cgroup, b"name=systemd")
        .and_then(innermost_unit)
        .or_else(|| cgroup_path(cgroup, b"").and_then(innermost_unit))
}

pub(super) fn innermost_unit(path: &[u8]) -> Option<String> {
    let unit = path.rsplit(|&byte| byte == b'/').find(|component| is_unit(component))?;
    // systemd puts one underscore before a unit whose name the kernel's own files could take, as
    // `_cpu.service`, and before one that starts with an underscore (cg_escape).
    Some(lossy(unit.strip_prefix(b"_").unwrap_or(unit)))
}

pub(super) fn is_unit(component: &[u8]) -> bool {
    [&b".service"[..], b".scope", b".slice"]
        .iter()
        .any(|suffix| component.len() > suffix.len() && component.ends_with(suffix))
}

/// The innermost container of `/proc/<pid>/cgroup`: a 64-digit id as docker, podman, containerd
/// and CRI-O use it, or the name of an LXC container.
pub fn container_of_cgroup(cgroup: &[u8]) -> Option<String> {
    cgroup
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.splitn(3, |&byte| byte == b':').nth(2))
        .find_map(|path| {
            let components: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
            (0..components.len())
                .rev()
                .find_map(|at| container_component(&components[..at], components[at]))
        })
}

/// Whether `component`, below `parents`, is a container's cgroup.
pub(super) fn container_component(parents: &[&[u8]], component: &[u8]) -> Option<String> {
    let name = component.strip_suffix(b".scope").unwrap_or(component);
    // docker-<id>.scope, cri-containerd-<id>.scope, libpod-<id>, kubepods...:cri-containerd:<id>,
    // and /docker/<id> alone.
    let id_at = name.len().saturating_sub(64);
    let (prefix, id) = name.split_at(id_at);
    let separated = matches!(prefix.last(), None | Some(b'-' | b':'));
    // crio-conmon-<id>.scope is the monitor beside the container, on the host.
    if separated && is_container_id(id) && !prefix.ends_with(b"conmon-") {
        return Some(lossy(id));
    }
    let parent = parents.last().copied().unwrap_or_default();
    let lxc_name = component
        .strip_prefix(b"lxc.payload.")
        .or_else(|| matches!(parent, b"lxc" | b"lxc.payload").then_some(component))?;
    (!lxc_name.is_empty()).then(|| lossy(lxc_name))
}

pub(super) fn is_container_id(word: &[u8]) -> bool {
    word.len() == 64 && word.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The control group that says most about a process: that of systemd's hierarchy, of version 2, of
/// memory, whichever is not the root.
pub fn telling_cgroup(cgroup: &[u8]) -> Option<String> {
    let paths = [&b"name=systemd"[..], b"", b"memory"];
    let paths = || paths.iter().filter_map(|controllers| cgroup_path(cgroup, controllers));
    paths().find(|path| *path != b"/").or_else(|| paths().next()).map(lossy)
}

/// The path of the line with these controllers, as text.
pub fn cgroup_path_of(cgroup: &[u8], controllers: &[u8]) -> Option<String> {
    cgroup_path(cgroup, controllers).map(lossy)
}

/// The path of the line with these controllers: `9:name=systemd:/path`, for v2 `0::/path`.
pub(super) fn cgroup_path<'a>(cgroup: &'a [u8], controllers: &[u8]) -> Option<&'a [u8]> {
    cgroup.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let id = fields.next()?;
        let found = fields.next()?;
        let path = fields.next()?;
        let wanted = found == controllers && (!controllers.is_empty() || id == b"0");
        // Said of a cgroup removed under its last zombie (cgroups(7)).
        wanted.then(|| path.strip_suffix(b" (deleted)").unwrap_or(path))
    })
}
