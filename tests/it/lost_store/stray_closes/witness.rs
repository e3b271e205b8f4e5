//! What is broken, and the witness that says so.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Where every process writes down what must not be, and the last number that was acknowledged to
/// it.
pub struct Notes {
    pub place: PathBuf,
}

impl Notes {
    pub fn broken(&self, what: &str) {
        let line = format!("{what}\n");
        let mut file =
            File::options().create(true).append(true).open(self.place.join("broken")).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }

    pub fn all_broken(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.place.join("broken")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn acknowledged(&self, number: u64) -> Option<u64> {
        let bytes = std::fs::read(self.place.join(format!("acknowledged-{number}"))).ok()?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// A number that rises, in a file that only its holder may have locked.
pub struct Witness(File);

impl Witness {
    pub fn of(place: &Path, what: &str) -> Self {
        let path = place.join(format!("witness-{what}"));
        Self(
            File::options().create(true).truncate(false).read(true).write(true).open(path).unwrap(),
        )
    }

    /// What is wrong, if anything is: another one holds it, or had a later number.
    pub fn enter(&self, fence: i64) -> Result<(), String> {
        if flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err("there are two holders".to_owned());
        }
        let mut last = [0; 8];
        let before = match self.0.read_at(&mut last, 0) {
            Ok(8) => i64::from_le_bytes(last),
            _ => 0,
        };
        self.0.write_all_at(&fence.to_le_bytes(), 0).unwrap();
        if before >= fence {
            return Err(format!("the fence {fence} came after {before}"));
        }
        Ok(())
    }

    pub fn leave(&self) {
        flock(&self.0, FlockOperation::Unlock).unwrap();
    }
}

/// A witness that never speaks proves nothing.
#[test]
fn the_witness_speaks_where_there_are_two_and_where_a_fence_falls() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (Witness::of(place.path(), "lock"), Witness::of(place.path(), "lock"));
    assert_eq!(one.enter(5), Ok(()));
    assert_eq!(two.enter(6), Err("there are two holders".to_owned()));
    one.leave();
    assert_eq!(two.enter(5), Err("the fence 5 came after 5".to_owned()));
    assert_eq!(two.enter(6), Ok(()));
}

/// Who opens the store beside the owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Several shells, and in each owner another SQLite and Python.
    All,
    /// Who comes is always the first to open the files, and who leaves the last to close them.
    OneShell,
}
