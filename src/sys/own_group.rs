//! Whose group a group is: a directory that only the group can write to is closed, if nobody else is in it.

use super::unix::effective_uid;

pub fn is_private_group(gid: u32, uid: u32) -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    if has_others(&read("/etc/passwd"), &read("/etc/group"), gid, uid) {
        return false;
    }
    let is_of_ours = || {
        let groups = rustix::process::getgroups().unwrap_or_default();
        let ours = groups.into_iter().chain([rustix::process::getegid()]);
        Some(uid) == effective_uid() && ours.into_iter().any(|group| group.as_raw() == gid)
    };
    // root's number is that of a group which some give to others.
    (gid == uid && uid != 0)
        || (cfg!(target_os = "linux")
            && is_of_ours()
            && are_all_in_files(&read("/etc/nsswitch.conf")))
}

/// Whether somebody else than `uid` is known to be in the group `gid`: by `/etc/passwd` (passwd(5)) whose
/// primary group it is, by `/etc/group` (group(5)) who is named as its member.
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

/// Whether those two files tell of everybody (nsswitch.conf(5)): other sources cannot be listed.
fn are_all_in_files(nsswitch: &str) -> bool {
    let lines = nsswitch.lines().map(|line| line.split('#').next().unwrap_or_default());
    let sources = lines.filter_map(|line| {
        let (database, sources) = line.split_once(':')?;
        matches!(database.trim(), "passwd" | "group").then_some(sources)
    });
    sources
        .flat_map(str::split_whitespace)
        .filter(|word| !word.starts_with('[') && !word.ends_with(']'))
        .all(|word| matches!(word, "files" | "compat" | "systemd" | "db" | "altfiles"))
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
        for (nsswitch, all_in_files) in [
            ("", true),
            ("passwd: files systemd\ngroup: files [SUCCESS=merge] systemd\nhosts: dns", true),
            ("passwd: files\ngroup: files sss", false),
            ("# group: ldap\npasswd: compat # ldap\n", true),
            ("passwd:files ldap", false),
        ] {
            assert_eq!(are_all_in_files(nsswitch), all_in_files, "{nsswitch}");
        }
    }
}
