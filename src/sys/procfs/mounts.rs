//! The list of mounts.

use super::cgroup::is_container_id;
use super::{lossy, parse_number, words};

/// The option that hides processes of other users, if `/proc` is mounted with one:
/// `hidepid=invisible`, before Linux 5.8 `hidepid=2` (`proc(5)`).
pub fn hidepid(mountinfo: &[u8]) -> Option<String> {
    let mut lines = mountinfo.split(|&byte| byte == b'\n');
    // The last mount on one point hides those before it.
    let line = lines.rfind(|line| words(line).nth(4) == Some(b"/proc"))?;
    words(line)
        .flat_map(|field| field.split(|&byte| byte == b','))
        .find(|option| {
            let value = option.strip_prefix(b"hidepid=");
            value.is_some_and(|value| !matches!(value, b"0" | b"off"))
        })
        .map(lossy)
}

/// The type of the filesystem whose mount id (statx(2), Linux 5.8) is `mount_id`, from
/// `/proc/<pid>/mountinfo` (`proc_pid_mountinfo(5)`).
pub fn filesystem_of_mount(mountinfo: &[u8], mount_id: u64) -> Option<String> {
    mounts(mountinfo).find(|mount| mount.id == mount_id).map(|mount| lossy(mount.kind))
}

/// The type of the filesystem that holds the absolute, real `path`: the mount with the longest
/// mount point on its way, the later one of two on the same point. (A mount hidden below a later
/// mount on one of its parents still wins here; the mount id has no such gap and is asked first.)
pub fn filesystem_of_path(mountinfo: &[u8], path: &[u8]) -> Option<String> {
    let mut best: Option<(usize, &[u8])> = None;
    for mount in mounts(mountinfo) {
        let point = unescape(mount.point);
        if is_at_or_below(path, &point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), mount.kind));
        }
    }
    best.map(|(_, kind)| lossy(kind))
}

/// The container id that a container engine's own mount over `/etc/hostname` gives away
/// (`.../containers/<id>/hostname`): the only place where a process in a private cgroup namespace,
/// the default with cgroup v2, can read it.
pub fn container_of_mounts(mountinfo: &[u8]) -> Option<String> {
    let mount = mounts(mountinfo).find(|mount| mount.point == b"/etc/hostname")?;
    let components: Vec<&[u8]> = mount.root.split(|&byte| byte == b'/').collect();
    // Podman: `/containers/storage/overlay-containers/<id>/userdata/hostname`.
    components
        .windows(2)
        .find(|pair| pair[0].ends_with(b"containers") && is_container_id(pair[1]))
        .map(|pair| lossy(pair[1]))
}

/// One line of mountinfo, still escaped.
pub(super) struct Mount<'a> {
    pub(super) id: u64,
    pub(super) root: &'a [u8],
    pub(super) point: &'a [u8],
    pub(super) kind: &'a [u8],
}

/// `id parent major:minor root point options [optional]... - type source super-options`. Lines
/// that are not like that are skipped.
pub(super) fn mounts(mountinfo: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = parse_number(fields.next()?)?;
        let root = fields.nth(2)?;
        let point = fields.next()?;
        fields.find(|field| *field == b"-")?;
        let kind = fields.next().filter(|kind| !kind.is_empty())?;
        Some(Mount { id, root, point, kind })
    })
}

pub(super) fn is_at_or_below(path: &[u8], point: &[u8]) -> bool {
    match path.strip_prefix(point) {
        Some(rest) => rest.is_empty() || rest[0] == b'/' || point == b"/",
        None => false,
    }
}

/// Undoes the octal escapes of blank, tab, newline and backslash (`\040`).
pub(super) fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let [first, tail @ ..] = rest {
        if let (b'\\', Some(byte)) = (first, tail.get(..3).and_then(octal_byte)) {
            plain.push(byte);
            rest = &tail[3..];
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

pub(super) fn octal_byte(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 8).ok()
}
