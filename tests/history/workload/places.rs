//! What people do to the files of a store while it is in use.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::sqlite::backup_of;
use super::world::{MAIN, World};
use crate::support::{beside, set_mode};

/// How a store is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The database with its sidecars.
    Files,
    /// The whole directory, with the locks of its owners.
    Directory,
    /// The same, but it goes on elsewhere.
    Moved,
    /// An older copy takes its place, as another file.
    Restored,
    /// An older copy is written over it.
    CopiedOver,
    /// What was not checkpointed.
    Wal,
}

impl Loss {
    pub const ALL: [Self; 6] =
        [Self::Files, Self::Directory, Self::Moved, Self::Restored, Self::CopiedOver, Self::Wal];

    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "deleted",
            Self::Directory => "deleted with its directory",
            Self::Moved => "moved",
            Self::Restored => "restored from a copy",
            Self::CopiedOver => "copied over",
            Self::Wal => "its -wal was deleted",
        }
    }

    /// Whether nobody sees the locks of its owners any more, who looks where they were.
    pub fn hides_owners(self) -> bool {
        matches!(self, Self::Directory | Self::Moved)
    }

    /// It happens. What is not there cannot be lost.
    pub fn happens(self, world: &World) -> io::Result<()> {
        let database = world.db(MAIN);
        match self {
            Self::Files => ["", "-wal", "-shm"]
                .iter()
                .try_for_each(|suffix| std::fs::remove_file(beside(&database, suffix))),
            Self::Directory => std::fs::remove_dir_all(directory(world)),
            Self::Moved => {
                // One at a time: the disk is small.
                let _ = std::fs::remove_dir_all(moved(world));
                std::fs::rename(directory(world), moved(world))
            }
            Self::Restored => restore(world, &database),
            Self::CopiedOver => copy_over(&std::fs::read(backup_of(world))?, &database),
            Self::Wal => std::fs::remove_file(beside(&database, "-wal")),
        }
    }
}

fn directory(world: &World) -> PathBuf {
    world.disk().join("store")
}

fn moved(world: &World) -> PathBuf {
    world.disk().join("moved")
}

fn restore(world: &World, database: &Path) -> io::Result<()> {
    let new = beside(database, ".restored");
    let copied = std::fs::copy(backup_of(world), &new);
    if let Err(error) = copied {
        let _ = std::fs::remove_file(new);
        return Err(error);
    }
    set_mode(&new, 0o600);
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(database, suffix));
    }
    std::fs::rename(new, database)
}

/// In place, and never shorter in between: it is mapped by its owners.
fn copy_over(content: &[u8], database: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(database)?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)
}

/// At the end: a store that was moved comes back where no other one was begun.
pub fn put_back(world: &World) {
    if moved(world).exists() && !directory(world).exists() {
        std::fs::rename(moved(world), directory(world)).unwrap();
    }
}

/// A file that leaves no room on the disk, for as long as this lives.
#[derive(Debug)]
pub struct Fill(PathBuf);

impl Fill {
    pub fn up(world: &World) -> Self {
        let fill = Self(world.disk().join("fill"));
        if let Ok(mut file) = File::create(&fill.0) {
            for size in [1 << 20, 1 << 12, 1] {
                let block = vec![0_u8; size];
                while file.write_all(&block).is_ok() {}
            }
        }
        fill
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Whether the disk is one of its own: another one is not to be filled.
pub fn has_own_disk(world: &World) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).map(|facts| facts.dev()).ok();
    device(&world.disk()) != device(&world.place)
}
