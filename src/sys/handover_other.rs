//! Where a process cannot pass an open file on with its lock: Windows, whose locks belong to a
//! handle and a process both. Nobody inherits anything there.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::process::{Child, Command};
use std::time::Duration;

use super::FileKey;

/// What a successor is to inherit: there is none.
#[derive(Debug)]
pub(crate) struct Estate(Infallible);

impl Estate {
    /// For the program that this process becomes.
    pub(crate) fn for_ourselves(_anchor: &File, _secret: &[u8]) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// For a child, and our end of it.
    pub(crate) fn for_child(_anchor: &File, _secret: &[u8]) -> io::Result<(Self, Successor)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The numbers that the successor finds it by.
    pub(crate) fn descriptors(&self) -> String {
        match self.0 {}
    }

    /// Starts the successor.
    pub(crate) fn spawn(self, _command: Command) -> io::Result<Child> {
        match self.0 {}
    }

    /// Becomes the successor; returns only why it could not.
    pub(crate) fn exec(self, _command: Command) -> io::Error {
        match self.0 {}
    }
}

/// Executes `command` in this process; returns only why it could not.
pub(crate) fn exec(_command: Command) -> io::Error {
    io::ErrorKind::Unsupported.into()
}

/// A successor, as the process sees it that started it.
#[derive(Debug)]
pub(crate) struct Successor(Infallible);

/// What a successor said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "nobody says anything")]
pub(crate) enum Said {
    /// That it has taken over.
    Adopted,
    /// Nothing, and nobody is left who could.
    Closed,
    NothingYet,
}

impl Successor {
    /// Waits for its word.
    pub(crate) fn wait(&mut self, _timeout: Duration) -> io::Result<Said> {
        match self.0 {}
    }

    /// Takes the secret back; false where somebody has read it.
    pub(crate) fn take_back(&self) -> io::Result<bool> {
        match self.0 {}
    }
}

/// What this process inherited.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The open file of the anchor.
    pub(crate) anchor: File,
    pub(crate) will: Will,
}

/// The same without the anchor.
#[derive(Debug)]
pub(crate) struct Will(Infallible);

impl Inherited {
    /// Nothing.
    pub(crate) fn find(_descriptors: &str, _key: &FileKey) -> Option<Self> {
        None
    }
}

impl Will {
    /// The secret, for whoever is first.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match self.0 {}
    }

    /// Tells the predecessor, if it still waits.
    pub(crate) fn say_adopted(self) {
        match self.0 {}
    }
}

/// Whether an anchor was inherited: never.
pub(crate) fn has_inherited(_descriptors: &str, _key: &FileKey) -> bool {
    false
}
