//! Whose group a group is: a directory that only the group can write to is closed, if nobody else
//! is in it.

use std::io;
use std::path::Path;

use super::Membership;
use super::unix::effective_uid;

/// Where systemd keeps records of users and of who is in which group (`userdbctl(1)`), and the
/// socket of a service that has some of its own (`systemd-homed.service(8)`).
const RECORDS_OF_SYSTEMD: [&str; 6] = [
    "/etc/userdb",
    "/run/userdb",
    "/run/host/userdb",
    "/usr/local/lib/userdb",
    "/usr/lib/userdb",
    "/run/systemd/userdb/io.systemd.Home",
];

/// Not being able to look is no sign that nobody else is in it.
pub fn is_private_group(gid: u32, uid: u32, membership: Membership) -> bool {
    looks_private(gid, uid, membership).unwrap_or_else(|error| {
        tracing::debug!(%error, gid, "who is in the group cannot be seen");
        false
    })
}

fn looks_private(gid: u32, uid: u32, membership: Membership) -> io::Result<bool> {
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    if has_others(&passwd, &group, gid, uid) {
        return Ok(false);
    }
    // root's number is that of a group which some give to others.
    if gid == uid && uid != 0 {
        return Ok(true);
    }
    let is_of_ours = || {
        if membership == Membership::Shown {
            return Ok(true);
        }
        let groups = rustix::process::getgroups()?;
        let ours = groups.into_iter().chain([rustix::process::getegid()]);
        let is_it = ours.into_iter().any(|group| group.as_raw() == gid);
        Ok::<_, io::Error>(Some(uid) == effective_uid() && is_it)
    };
    Ok(cfg!(target_os = "linux")
        && is_of_ours()?
        && are_all_in_files(&read("/etc/nsswitch.conf")?, &passwd, &group, has_records))
}

/// In any encoding; what is not there is empty.
fn read(path: &str) -> io::Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Whether systemd may know of somebody in a group who is not in the files.
fn has_records() -> bool {
    let is_empty = |path: &&str| match Path::new(path).read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    !RECORDS_OF_SYSTEMD.iter().all(is_empty)
}

/// Whether somebody else than `uid` is known to be in the group `gid`: by `/etc/passwd` (passwd(5))
/// whose primary group it is, by `/etc/group` (group(5)) who is named as its member.
fn has_others(passwd: &str, group: &str, gid: u32, uid: u32) -> bool {
    let users: Vec<(&str, Option<u32>, Option<u32>)> = passwd
        .lines()
        .map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().unwrap_or_default();
            let mut number = |skipped: usize| fields.nth(skipped)?.parse().ok();
            let uid = number(1);
            (name, uid, number(0))
        })
        .collect();
    let is_it =
        |name: &str| users.iter().any(|(of, number, _)| *of == name && *number == Some(uid));
    let by_primary = users.iter().any(|(_, of, primary)| *primary == Some(gid) && *of != Some(uid));
    let by_name = group.lines().any(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, number, members] = fields[..] else { return false };
        let names = || members.split(',').map(str::trim).filter(|name| !name.is_empty());
        number.parse() == Ok(gid) && names().any(|name| !is_it(name))
    });
    by_primary || by_name
}

/// Whether those two files tell of everybody (nsswitch.conf(5)): other sources cannot be listed, or
/// not by us.
///
/// `compat` is the files unless they refer to NIS. What `systemd` adds on its own is in no group
/// but its own: services with `DynamicUser=` and users of containers; only records that somebody
/// has written can say more. So with Debian's `files systemd` a group is trusted that nobody else
/// is in. With Fedora's `sss files systemd`, and with `altfiles` (`/usr/lib/group`) on systems of
/// ostree, it is not: a directory of root's that the group can write to is refused there, with the
/// advice to use one below it.
fn are_all_in_files(
    nsswitch: &str,
    passwd: &str,
    group: &str,
    has_records: impl Fn() -> bool,
) -> bool {
    let lines = nsswitch.lines().map(|line| line.split('#').next().unwrap_or_default());
    let sources = lines.filter_map(|line| {
        let (database, sources) = line.split_once(':')?;
        matches!(database.trim(), "passwd" | "group" | "initgroups").then_some(sources)
    });
    let refers_to_nis = || passwd.lines().chain(group.lines()).any(|line| line.starts_with('+'));
    sources
        .flat_map(str::split_whitespace)
        .filter(|word| !word.starts_with('[') && !word.ends_with(']'))
        .all(|word| match word {
            "files" => true,
            "compat" => !refers_to_nis(),
            "systemd" => !has_records(),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_a_group() {
        const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n\
            bob:x:1001:1001::/:/bin/sh\nsync:x:4:0:sync:/bin:/bin/sync\n";
        const GROUP: &str = "root:x:0:\nann:x:1000:\nbob:x:1001:ann\nstaff:x:50:ann,bob\n\
            anns:x:2000:ann\nbroken\n";
        for (gid, uid, others) in [
            (1000, 1000, false),
            (2000, 1000, false),
            (4242, 1000, false),
            (4242, 77, false),
            // Of which another one is a member, or has it as his own.
            (1001, 1001, true),
            (50, 1000, true),
            (1000, 77, true),
            (0, 0, true),
        ] {
            assert_eq!(has_others(PASSWD, GROUP, gid, uid), others, "group {gid}, uid {uid}");
        }
        assert!(!has_others("", "", 1234, 1234));
    }

    #[test]
    fn where_users_are_looked_up() {
        const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
        for (nsswitch, all_in_files) in [
            ("", true),
            ("passwd: files systemd\ngroup: files [SUCCESS=merge] systemd\nhosts: dns", true),
            ("passwd: files\ngroup: files sss", false),
            ("passwd: files\ninitgroups: files sss", false),
            ("# group: ldap\npasswd: compat # ldap\n", true),
            ("passwd:files ldap", false),
            ("passwd: sss files systemd", false),
            ("passwd: files altfiles systemd", false),
            ("group: db files", false),
        ] {
            let all = |group, has_records: bool| {
                are_all_in_files(nsswitch, PASSWD, group, || has_records)
            };
            assert_eq!(all("", false), all_in_files, "{nsswitch}");
            let is_with_records = all_in_files && !nsswitch.contains("systemd");
            assert_eq!(all("", true), is_with_records, "{nsswitch}");
            let is_with_nis = all_in_files && !nsswitch.contains("compat");
            assert_eq!(all("+@team:::\n", false), is_with_nis, "{nsswitch}");
        }
    }

    /// One name in Latin-1 was taken for an empty list of users.
    #[test]
    fn what_cannot_be_read_is_not_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("latin1"), b"bob:x:1001:1000:B\xf6b:/:/bin/sh\n").unwrap();
        let users = read(&path("latin1")).unwrap();
        assert!(has_others(&users, "", 1000, 1000), "{users:?}");
        assert_eq!(read(&path("missing")).unwrap(), "");
        read(directory.path().to_str().unwrap()).unwrap_err();
    }
}
