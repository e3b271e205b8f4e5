//! Stores on disks of their own: full ones, read-only ones, ones that a mount hides.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Answer, BINARY, LIMIT, Process, Sandbox, has, is_root, skipped, works};

/// The words that start a program with mounts of its own; `None` where that is not to be had.
pub fn mount_namespace() -> Option<&'static [&'static str]> {
    const WORDS: &[&str] = &["unshare", "-m"];
    const TRY: &[&str] =
        &["unshare", "-m", "/bin/sh", "-c", "mount -t tmpfs t /mnt && exec \"$@\"", "sh"];
    static FOUND: OnceLock<bool> = OnceLock::new();
    FOUND.get_or_init(|| is_root() && has("nsenter") && works(TRY)).then_some(WORDS)
}

/// The words that start a program for which the store in the current directory cannot be written;
/// `None` where that is not to be had.
pub fn read_only_store() -> Option<&'static [&'static str]> {
    const REMOUNT: &str = "mount --bind store store && mount -o remount,bind,ro store || exit 99
        exec \"$@\"";
    mount_namespace()?;
    Some(&["unshare", "-m", "/bin/sh", "-c", REMOUNT, "sh"])
}

impl Sandbox {
    /// A file beside the store: `""`, `-wal` or `-shm`.
    pub fn sidecar(&self, suffix: &str) -> PathBuf {
        self.file(&format!("store/state.db{suffix}"))
    }

    /// The program in somebody's words (another user, another namespace).
    pub fn under(&self, words: &[&str], binary: &Path, verb: &[&str]) -> Command {
        let mut command = self.within(words);
        command.arg(binary).args(verb);
        command
    }

    /// A shell script with mounts of its own; `$INCUMBENT_DB` is on an empty disk of `size`.
    pub fn on_a_disk(&self, words: &[&str], size: &str, script: &str) -> Process {
        let script = format!(
            "mkdir store && mount -t tmpfs -o size={size},mode=700 t store || exit 99
             fill() {{ dd if=/dev/zero of=store/fill bs=1k 2> /dev/null; }}
             {script}"
        );
        let mut command = self.within(words);
        command.args(["/bin/sh", "-c", &script]);
        Process::start(command)
    }
}

/// A mount namespace that a shell keeps; others enter it.
pub struct Disk<'a> {
    sandbox: &'a Sandbox,
    keeper: Process,
}

impl<'a> Disk<'a> {
    pub fn new(sandbox: &'a Sandbox, mut keeper: Process) -> Self {
        assert_eq!(keeper.line(), "mounted");
        Self { sandbox, keeper }
    }

    /// A disk of `size` at the store's place; where there can be none, that is told as a skip.
    pub fn sized(sandbox: &'a Sandbox, size: &str) -> Option<Self> {
        let Some(words) = mount_namespace() else {
            skipped("needs root and mounts");
            return None;
        };
        // What fills it up.
        if !has("sqlite3") {
            skipped("needs sqlite3");
            return None;
        }
        Some(Self::new(sandbox, sandbox.on_a_disk(words, size, "echo mounted; exec cat")))
    }

    /// The words that start a program in it.
    pub fn enter(&self) -> Command {
        let mut command = self.sandbox.program("nsenter");
        command.args(["-m", "-t", &self.keeper.pid().to_string()]);
        // Entering moves to the root directory.
        command.args(["/bin/sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(self.sandbox.path());
        command
    }

    pub fn role(&self, test: &str, role: &str) -> Process {
        let inner = self.sandbox.role_command(test, role);
        let mut command = self.enter();
        command.arg(inner.get_program()).args(inner.get_args()).env("IT_ROLE", role);
        Process::start(command)
    }

    /// Leaves no room, also not in the WAL, however long that is: else a checkpoint makes some
    /// (FIELD-BUGS row 133). Needs sqlite3.
    pub fn fill_up(&self) {
        let script = "
            until sqlite3 store/state.db '.filectrl persist_wal 1' 'PRAGMA wal_checkpoint(TRUNCATE)'
                [ -e store/state.db-wal ] && [ ! -s store/state.db-wal ]
            do sleep 0.01; done
            dd if=/dev/zero bs=1k 2> /dev/null >> store/fill; true";
        self.shell(script).assert_code(0);
    }

    /// Leaves one page of it, which is enough for a small file beside the store, and for no change
    /// of the store.
    pub fn fill_up_to_a_page(&self) {
        self.fill_up();
        self.shell("truncate -s -4096 store/fill").assert_code(0);
    }

    pub fn cli(&self, verb: &[&str]) -> Answer {
        let mut command = self.enter();
        command.arg(BINARY).args(verb);
        Process::start(command).finish(LIMIT)
    }

    pub fn shell(&self, script: &str) -> Answer {
        let mut command = self.enter();
        command.args(["/bin/sh", "-c", script]);
        Process::start(command).finish(LIMIT)
    }
}
