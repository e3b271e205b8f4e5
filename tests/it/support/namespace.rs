//! Other pid namespaces, other users.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::{Answer, LIMIT, NOBODY, Process, Sandbox, has, set_mode, skipped};

/// The words that start a program as PID 1 of a pid namespace of its own, with a `/proc` to match;
/// `None` where the kernel refuses that.
pub fn pid_namespace() -> Option<&'static [&'static str]> {
    const AS_USER: &[&str] = &["unshare", "-Urpf", "--mount-proc", "--kill-child"];
    const AS_ROOT: &[&str] = &["unshare", "-pf", "--mount-proc", "--kill-child"];
    static FOUND: OnceLock<Option<&[&str]>> = OnceLock::new();
    *FOUND.get_or_init(|| [AS_USER, AS_ROOT].into_iter().find(|words| works(words)))
}

impl Sandbox {
    /// The program that comes behind `words`: the arguments are its own.
    pub fn within(&self, words: &[&str]) -> Command {
        let mut command = self.program(words[0]);
        command.args(&words[1..]);
        command
    }

    /// A shell script as PID 1's child in a pid namespace of its own.
    pub fn in_namespace(&self, namespace: &[&str], script: &str) -> Process {
        let mut command = self.within(namespace);
        command.args(["/bin/sh", "-c", script]);
        Process::start(command)
    }

    /// What a shell script answers as PID 1 of a pid namespace, where it may choose the pid of whom
    /// it starts next: `reuse PID` starts one that writes down in `decoy.txt` what it is sent, and
    /// lives for as long as the fifo `gate` is open. `None`, said loudly, where that cannot be.
    pub fn choosing_pids(&self, script: &str) -> Option<Answer> {
        const REUSE: &str = "
            decoy='trap \"echo signalled\" TERM HUP INT QUIT CONT USR1
                echo $$; while read -r x; do :; done'
            reuse() {
                echo $(($1 - 1)) > /proc/sys/kernel/ns_last_pid
                sh -c \"$decoy\" < gate > decoy.txt &
            }";
        let Some(namespace) = pid_namespace() else {
            skipped("needs a pid namespace");
            return None;
        };
        let answer = self
            .in_namespace(namespace, &format!("{REUSE}\n{script}"))
            .finish(LIMIT)
            .assert_code(0);
        if answer.err.contains("ns_last_pid") {
            skipped("needs leave to choose pids");
            return None;
        }
        Some(answer)
    }
}

/// The words that start a program as nobody; `None` unless we are root.
pub fn another_user() -> Option<&'static [&'static str]> {
    const WORDS: &[&str] = &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    static FOUND: OnceLock<bool> = OnceLock::new();
    FOUND.get_or_init(|| works(WORDS)).then_some(WORDS)
}

/// Whether a program can be started that way.
pub fn works(words: &[&str]) -> bool {
    has(words[0])
        && Command::new(words[0])
            .args(&words[1..])
            .arg("true")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

/// As nobody, where the processes of others are hidden (R:HIDEPID).
pub fn nobody_with_hidepid() -> Option<&'static [&'static str]> {
    const HIDDEN: &str = "mount -t proc -o hidepid=2 proc /proc &&
        exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    const WORDS: &[&str] = &["unshare", "-m", "/bin/sh", "-c", HIDDEN, "sh"];
    (super::is_root() && works(WORDS)).then_some(WORDS)
}

impl Sandbox {
    /// A sandbox for [`Sandbox::among_fakes`]; `None`, said loudly, where root may not make mounts
    /// of its own.
    pub fn with_fakes() -> Option<Self> {
        const MOUNT: &str = "/bin/mount --bind /tmp /usr/local/sbin && exec \"$@\"";
        const WORDS: &[&str] = &["/usr/bin/unshare", "-m", "/bin/sh", "-c", MOUNT, "sh"];
        static FOUND: OnceLock<bool> = OnceLock::new();
        if super::is_root() && !FOUND.get_or_init(|| works(WORDS)) {
            skipped("needs mounts of its own");
            return None;
        }
        Some(Self::new())
    }

    /// The same command where the programs in `bin` of this sandbox stand for those of the system:
    /// root looks for none by its PATH. In mounts of its own they are in a directory of the
    /// system's, and the real ones are hidden. For everybody else the PATH that the command has
    /// does it.
    pub fn among_fakes(&self, command: Command) -> Command {
        const SCRIPT: &str =
            "/bin/mkdir -p \"$1\" && /bin/mount --bind \"$1\" /usr/local/sbin || exit 125
            for name in ps dmesg journalctl systemctl sqlite3; do
                [ ! -e /usr/bin/$name ] || /bin/mount --bind /dev/null /usr/bin/$name || exit 125
            done
            shift; exec \"$@\"";
        if !super::is_root() {
            return command;
        }
        let mut wrapped = Command::new("/usr/bin/unshare");
        wrapped.args(["-m", "/bin/sh", "-c", SCRIPT, "sh"]).arg(self.file("bin"));
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        wrapped
    }

    /// A sandbox that other users may work in, with a copy of the program; `None` unless we may
    /// become one.
    pub fn for_all_users() -> Option<Self> {
        another_user()?;
        let sandbox = Self::new();
        sandbox.copy_program("incumbent");
        set_mode(sandbox.path(), 0o755);
        Some(sandbox)
    }

    /// Gives the sandbox to nobody, with a copy of the program that nobody can execute: the build
    /// directory may be closed to others. Returns the copy.
    pub fn open_to_nobody(&self) -> std::path::PathBuf {
        let nobody = Some(rustix::process::Uid::from_raw(NOBODY));
        let group = Some(rustix::process::Gid::from_raw(NOBODY));
        for path in [self.path().to_owned(), self.file("home")] {
            rustix::fs::chown(&path, nobody, group).unwrap();
        }
        self.copy_program("incumbent")
    }

    /// The program under test, started by `words` (see [`pid_namespace`]).
    pub fn incumbent_under(&self, words: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.within(words);
        command.arg(super::BINARY).args(arguments);
        command
    }
}
