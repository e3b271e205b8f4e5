//! Programs that tests start and did not write: found, and scripts for them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{LIMIT, Process, Sandbox};

/// A program that `.ci/tool` has installed into this clone, else one on the path.
pub fn tool(name: &str) -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&path).map(|place| place.join(name));
    std::iter::once(ours).chain(others).find(|it| it.exists())
}

/// A Python that can import `module`: the one that `.ci/tool` installs into, else one of the
/// machine's.
pub fn python_with(module: &str) -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/venv/bin/python");
    let others = ["python3", "/usr/bin/python3"].map(PathBuf::from);
    let import = format!("import {module}");
    let can = |python: &PathBuf| {
        let probe = Command::new(python).args(["-c", &import]).output();
        probe.is_ok_and(|probe| probe.status.success())
    };
    std::iter::once(ours).chain(others).find(can)
}

impl Sandbox {
    /// A line in a shell that finds programs in the directory of `tool` first.
    pub fn shell_beside(&self, tool: &Path, line: &str) -> Command {
        let mut shell = self.shell(&format!("PATH=$TOOLS:$PATH; export PATH; {line}"));
        shell.env("TOOLS", tool.parent().unwrap());
        shell
    }

    /// Makes an executable file of the sandbox. Another process writes it: if we had it open for
    /// writing while a test beside us forks, executing it would fail (ETXTBSY).
    pub fn write_script(&self, name: impl AsRef<OsStr>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(Path::new(name.as_ref()));
        let mut plain = path.clone().into_os_string();
        plain.push(".txt");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&plain, contents).unwrap();
        let mut copy = self.program("/bin/sh");
        copy.args(["-c", "cat \"$0\" > \"$1\" && chmod 755 \"$1\""]).arg(&plain).arg(&path);
        Process::start(copy).finish(LIMIT).assert_code(0);
        std::fs::remove_file(plain).unwrap();
        path
    }
}
