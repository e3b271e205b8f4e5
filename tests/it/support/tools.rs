//! Programs of others that tests start for real, in the versions that `.ci/tool` names.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The tool of this name, which `.ci/tool` installs into `target/tools` where it can; `None` where
/// it is not to be had.
pub fn tool(name: &str) -> Option<PathBuf> {
    /// One installation at a time.
    static INSTALLS: Mutex<()> = Mutex::new(());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (installer, installed) = (root.join(".ci/tool"), root.join("target/tools/bin").join(name));
    let _one = INSTALLS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !installed.exists() && installer.exists() {
        let mut install = Command::new("timeout");
        install.arg("300").arg(installer).args([name, "--version"]);
        let _ = install.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    installed.exists().then_some(installed)
}
