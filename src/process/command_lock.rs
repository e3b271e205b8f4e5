//! The lock that the command of a `run` holds itself, on the file `<anchor>.cmd`.
//!
//! A `run` may be killed and its command live on: under another user id it lost the signal that
//! would have ended it, and from another pid namespace nobody can look it up. So the command takes
//! a shared POSIX record lock before it becomes the program that was asked for, and the row that
//! names the command says in the same commit that the lock is held. Such a lock survives exec, is
//! not inherited by what the command forks, ends with it, and is seen from everywhere (FIELD-BUGS
//! row 94). It is taken on a descriptor from 64 on, after the one that opened the file is closed:
//! any later close would cancel it.
//!
//! Behind a start script the gateway is another process, which cannot be looked up either. So the
//! open file is locked as well, on another byte: that lock lives in every process that has
//! inherited the descriptor. It proves only that something lives which the command has started;
//! where nobody can look for that, it keeps the record unknown.
//!
//! A living command can lose its lock: by closing all descriptors, or by opening and closing that
//! very file. So the `run` has the kernel tell it when the lock is free (elsewhere than on Linux it
//! looks ten times a second), and writes `lost` then.
//! Only "on record as held, and free" proves an end; a held lock proves a life. For the same reason
//! a process that may be the command never opens the file (`look`).
//!
//! The file is made beside the anchor and removed with it; an anchor that has to be made again gets
//! it by a hard link.

use std::path::{Path, PathBuf};

pub(crate) use of_run::LockFile;

/// The file beside the anchor of this name.
pub(crate) fn path_of(anchors: &Path, anchor: &str) -> PathBuf {
    anchors.join(format!("{anchor}{SUFFIX}"))
}

/// What it is called after its anchor.
pub(crate) const SUFFIX: &str = ".cmd";

/// What the `run` does about it.
mod of_run {
    use std::fs::File;
    use std::io;
    use std::path::Path;
    use std::path::PathBuf;

    use crate::error::Error;
    use crate::error::Result;
    use crate::process::anchor::Anchor;
    use crate::process::command_lock::path_of;
    use crate::sys;

    /// The file that the command of this `run` locks.
    #[derive(Debug)]
    pub(crate) struct LockFile {
        path: PathBuf,
        file: File,
        inode: u64,
    }

    impl LockFile {
        /// Makes the file beside our anchor, or goes on with the one that is there. `None` where it
        /// cannot be had for good, and the command has to do without.
        ///
        /// # Errors
        /// Where we run short of something just now.
        pub(crate) fn beside(anchor: &Anchor) -> Result<Option<Self>> {
            let path = path_of(anchor.directory(), anchor.name());
            Self::open(&path).or_else(|error| {
                if let Some(shortage) = sys::Shortage::of(&error) {
                    return Err(Error::shortage(shortage, &format!("open {}", path.display())));
                }
                tracing::debug!(path = %path.display(), %error, "no lock of the command's own");
                Ok(None)
            })
        }

        fn open(path: &Path) -> io::Result<Option<Self>> {
            let file = match sys::create_anchor_file(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    sys::open_anchor_file(path)?
                }
                made => made?,
            };
            let key = sys::open_file_key(&file)?;
            Ok(key.map(|key| Self { path: path.to_owned(), file, inode: key.inode }))
        }

        pub(crate) fn path(&self) -> &Path {
            &self.path
        }

        pub(crate) fn inode(&self) -> u64 {
            self.inode
        }

        /// Has `tell` called once nobody holds the lock, with true; with false where that cannot
        /// be waited for. False if it is not called at all: no thread, no access to the file.
        pub(crate) fn watch(&self, tell: impl FnOnce(bool) + Send + 'static) -> bool {
            /// It makes two system calls.
            const STACK: usize = 128 << 10;
            let opened = sys::open_command_lock(&self.path);
            let inode = |file: &File| sys::open_file_key(file).ok().flatten().map(|key| key.inode);
            let opened = opened.ok().filter(|file| inode(file) == Some(self.inode));
            let Some(file) = opened else { return false };
            let wait = move || tell(sys::await_command_lock(&file).is_ok());
            let thread = std::thread::Builder::new().name("incumbent-lock".to_owned());
            // It ends with the command, or with us.
            thread.stack_size(STACK).spawn(wait).is_ok()
        }

        /// Whether somebody holds the lock, and others would find it beside `anchor`, which is ours
        /// by now. Not being able to look is no loss.
        pub(crate) fn is_held(&self, anchor: &Anchor) -> bool {
            let is_in_place = match sys::file_key(&path_of(anchor.directory(), anchor.name())) {
                Ok(found) => found.is_some_and(|found| found.inode == self.inode),
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            };
            let is_held = sys::command_lock(&self.file).map_or(true, |locks| locks.command);
            is_in_place && is_held
        }
    }
}
