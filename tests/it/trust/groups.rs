//! Directories that a group may write to: whose group it is, who looks, and what is said about it.
//! FIELD-BUGS row 131.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use super::ground::mount_for_group;
use crate::support::{Answer, LIMIT, Process, Run, START, Sandbox, mode, set_mode, skipped, works};

const USER: u32 = 1000;
/// Of a pod, in no user database.
const POD: u32 = 4242;

/// A directory that a gateway shares with others, or seems to.
struct Shared {
    sandbox: Sandbox,
    group: u32,
}

impl Shared {
    /// Of `owner` and `group`; `None` where it cannot be tried.
    fn new(owner: u32, group: u32, mode: u32) -> Option<Self> {
        let sandbox = Sandbox::for_all_users()?;
        let shared = Self { sandbox, group };
        std::fs::create_dir(shared.directory()).unwrap();
        chown(shared.directory(), Some(owner), Some(group)).unwrap();
        set_mode(&shared.directory(), mode);
        Some(shared)
    }

    fn directory(&self) -> PathBuf {
        self.sandbox.file("shared dir")
    }

    fn db(&self) -> PathBuf {
        self.directory().join("state.db")
    }

    fn mount(&self) {
        mount_for_group(&self.sandbox, "shared dir", POD);
    }

    /// The words that start a program as the gateway's user.
    fn as_user(&self) -> Vec<String> {
        let words = format!("setpriv --reuid {USER} --regid {USER} --groups {}", self.group);
        words.split(' ').map(str::to_owned).collect()
    }

    fn command(&self, words: &[String], arguments: &[&str]) -> std::process::Command {
        let program = self.sandbox.file("incumbent").to_str().unwrap().to_owned();
        let all: Vec<String> = words.iter().cloned().chain([program]).collect();
        let mut command = self.sandbox.program(&all[0]);
        command.args(&all[1..]).args(arguments).env("INCUMBENT_DB", self.db());
        command
    }

    fn user(&self, arguments: &[&str]) -> Answer {
        Process::start(self.command(&self.as_user(), arguments)).finish(LIMIT)
    }

    fn root(&self, arguments: &[&str]) -> Answer {
        Process::start(self.command(&[], arguments)).finish(LIMIT)
    }

    /// As the user, where the file at each path has this content.
    fn user_with(&self, files: &[(&str, &[u8])], arguments: &[&str]) -> Answer {
        let mut script = String::new();
        for (at, (path, content)) in files.iter().enumerate() {
            let name = format!("etc-{at}");
            std::fs::write(self.sandbox.file(&name), content).unwrap();
            script += &format!("mount --bind {name} {path} && ");
        }
        let mut words: Vec<String> = ["unshare", "-m", "sh", "-c"].map(str::to_owned).to_vec();
        words.extend([script + "exec \"$@\"", "sh".to_owned()]);
        words.extend(self.as_user());
        Process::start(self.command(&words, arguments)).finish(LIMIT)
    }

    fn events(&self, event: &str) -> i64 {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = rusqlite::Connection::open_with_flags(self.db(), flags).unwrap();
        let query = "SELECT count(*) FROM events WHERE event = ?1";
        connection.query_row(query, [event], |row| row.get(0)).unwrap()
    }
}

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\nann:x:1000:\n";

/// Symptom: on a healthy volume `doctor` said for ever that another user owns the files, and the
/// remedy, a chown to root, made the next start fail. Cause: all was to belong to the owner of the
/// directory, which is root there.
#[test]
fn the_files_of_a_pod_are_its_own_in_a_directory_of_root_s() {
    let Some(pod) = Shared::new(0, POD, 0o2775) else { return skipped("needs root") };
    pod.user(START).assert_code(0);
    pod.user(&["doctor"]).assert_code(0);
    for by_root in [false, true] {
        pod.mount();
        let look = |verb: &[&str]| if by_root { pod.root(verb) } else { pod.user(verb) };
        let said = look(&["doctor"]);
        assert!(said.out.contains("others can read or write"), "{said:#?}");
        assert!(!said.out.contains("chown") && !said.out.contains("another user"), "{said:#?}");
        look(&["doctor", "--fix"]);
        assert_eq!(mode(&pod.db()), 0o600, "by root: {by_root}");
        assert_eq!(mode(&pod.directory()), 0o2775, "the volume is not ours to close");
        look(&["doctor"]).assert_code(0);
        pod.user(START).assert_code(0);
    }
    // One that root has really taken is named, with the way back.
    chown(pod.directory().join("state.db.anchors"), Some(0), None).unwrap();
    let said = pod.root(&["doctor"]);
    assert!(said.out.contains("another user than the store's owner (uid 1000)"), "{said:#?}");
    assert!(said.out.contains("chown 1000"), "{said:#?}");
}

/// Symptom: `docker exec -u 0 .. status` was refused beside a gateway at work, with the advice to
/// take away the right by which that one writes there. Cause: the group was to be root's own.
#[test]
fn root_sees_a_pod_in_a_directory_that_its_group_can_write_to() {
    let Some(pod) = Shared::new(0, POD, 0o2775) else { return skipped("needs root") };
    let gateway = Run::start(pod.command(
        &pod.as_user(),
        &["run", "--no-backoff", "--", "/bin/sh", "-c", "echo $$; exec cat"],
    ));
    pod.user(&["status"]).assert_code(0);
    pod.root(&["status"]).assert_code(0);
    pod.root(&["doctor", "--fix"]);
    assert_eq!(mode(&pod.directory()), 0o2775);
    pod.user(&["marker", "write", "note", "--pid", &gateway.pid().to_string()]).assert_code(0);

    // Others are in that one, by the user database: root is refused, too, and not told to lock the
    // gateway out.
    chown(pod.directory(), None, Some(0)).unwrap();
    let refused = pod.root(&["status"]).assert_code(78);
    assert!(!refused.err.contains("chmod"), "{refused:#?}");
    let separate = format!("--db '{}'", pod.directory().join("incumbent/state.db").display());
    refused.assert_complains(&["can be written by its group", "ask as uid 1000", &separate]);
    let said = pod.root(&["doctor"]);
    assert!(!said.out.contains("chmod go-w"), "{said:#?}");
    drop(gateway);
}

/// Symptom: a directory that its group could write to was trusted, with another user in it. Cause:
/// one name in Latin-1 made the list of users unreadable, and that was taken for an empty one; or
/// the user is in another list.
#[test]
fn a_group_is_ones_own_only_where_all_who_are_in_it_can_be_listed() {
    const BOB: &[u8] = b"bob:x:1001:4242:B\xf6b:/:/bin/sh\n";
    const NSS: &str = "/etc/nsswitch.conf";
    if !works(&["unshare", "-m"]) || !Path::new(NSS).exists() {
        return skipped("needs root and glibc");
    }
    let with_bob = [PASSWD, BOB].concat();
    let with_nis = [GROUP, b"+:::\n"].concat();
    let files: &[u8] = b"passwd: files\ngroup: files\n";
    for (passwd, group, nss, code) in [
        (PASSWD, GROUP, files, 0),
        (&with_bob, GROUP, files, 78),
        (PASSWD, b"root:x:0:\npod:x:4242:bob\n", files, 78),
        (PASSWD, GROUP, b"passwd: sss files systemd\ngroup: sss files systemd\n", 78),
        (PASSWD, GROUP, b"passwd: files altfiles\ngroup: files altfiles\n", 78),
        (PASSWD, GROUP, b"passwd: compat\ngroup: compat\n", 0),
        (PASSWD, &with_nis, b"passwd: compat\ngroup: compat\n", 78),
    ] {
        let Some(pod) = Shared::new(0, POD, 0o2775) else { return skipped("needs root") };
        let places = [("/etc/passwd", passwd), ("/etc/group", group), (NSS, nss)];
        let answer = pod.user_with(&places, START);
        let lists = places.map(|(_, content)| String::from_utf8_lossy(content).into_owned());
        assert_eq!(answer.code(), code, "{lists:#?}: {answer:#?}");
    }
}

/// Symptom: a team's directory was closed to the team without a word, by the first start of a
/// gateway in it.
#[test]
fn who_closes_a_directory_says_so() {
    let Some(team) = Shared::new(USER, 100, 0o755) else { return skipped("needs root") };
    team.user(START).assert_code(0);
    set_mode(&team.directory(), 0o2775);
    let started = team.user(START).assert_code(0);
    let directory = team.directory();
    started.assert_complains(&[
        directory.to_str().unwrap(),
        "was writable by its group (mode 2775); now only its owner can write there",
    ]);
    assert_eq!((mode(&directory), team.events("directory_closed")), (0o2755, 1));
    let again = team.user(START).assert_code(0);
    assert!(again.err.is_empty(), "{again:#?}");
    assert_eq!(team.events("directory_closed"), 1);
}

/// Symptom: so was a user's own one, which a umask of 002 lets a group write to that nobody else is
/// in.
#[test]
fn a_directory_of_a_private_group_stays_as_it_is() {
    let Some(project) = Shared::new(USER, USER, 0o775) else { return skipped("needs root") };
    for verb in [START, START, &["doctor"], &["doctor", "--fix"]] {
        let answer = project.user(verb);
        assert!(answer.code() == 0 && answer.err.is_empty(), "{verb:?}: {answer:#?}");
        assert_eq!(mode(&project.directory()), 0o775, "{verb:?}");
    }
    project.root(&["doctor"]).assert_code(0);
}
