//! Who claims, for whom, and what comes of it.

use std::path::Path;

use crate::claim::examine::Evicted;
use crate::claim::{Claimant, Errand, Obstacle};
use crate::office::options::{Replace, Succession};
use crate::process::Subject;
use crate::records::{Origin, Record};
use crate::scoped::GrantedLock;
use crate::store::OwnRow;
use crate::{InstanceId, LockRequest, Nonce, Office, stop_budget};

/// Everything a claim needs to know before it opens its transaction.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) office: &'a Office,
    pub(crate) home: Option<&'a Path>,
    /// The directory of an older program that the profile is to stand for.
    pub(crate) legacy_home: Option<&'a Path>,
    pub(crate) origin: Origin,
    pub(crate) subject: &'a Subject,
    pub(crate) version: Option<&'a str>,
    pub(crate) stop_budget_ms: u64,
    pub(crate) heartbeat_every_ms: Option<u64>,
    /// Locks without which the office is not wanted.
    pub(crate) locks: &'a [LockRequest],
    /// The claimant's own rows: a lock that was taken from one is shared.
    pub(crate) ours: &'a [InstanceId],
    /// The proof of ownership to go on with, in place of a new one.
    pub(crate) nonce: Option<&'a Nonce>,
    /// The waiter's own row, which ends when it becomes the owner.
    pub(crate) waiter: Option<InstanceId>,
    /// Whether a live holder is to be replaced.
    pub(crate) replace: Option<&'a Replace>,
    /// Set once it was: what is left to do is to claim.
    pub(crate) succession: Option<&'a Succession>,
}

impl<'a> Candidate<'a> {
    /// For a process that does not link the library.
    pub(crate) fn by_pid(office: &'a Office, home: Option<&'a Path>, subject: &'a Subject) -> Self {
        Self {
            office,
            home,
            legacy_home: None,
            origin: Origin::Pid,
            subject,
            version: None,
            stop_budget_ms: stop_budget::DEFAULT_MS,
            heartbeat_every_ms: None,
            locks: &[],
            ours: &[],
            nonce: None,
            waiter: None,
            replace: None,
            succession: None,
        }
    }

    pub(crate) fn claimant(&self) -> Claimant<'a> {
        Claimant { origin: self.origin, subject: self.subject }
    }

    /// The home that the profile has to be bound to, if to any.
    pub(super) fn home_to_check(&self) -> Option<&'a Path> {
        self.home.filter(|_| !self.replace.is_some_and(|replace| replace.across_homes))
    }
}

/// A row was inserted.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) row: OwnRow,
    pub(crate) evicted: Option<Evicted>,
    pub(crate) locks: Vec<GrantedLock>,
}

/// What one transaction came to.
#[derive(Debug)]
pub(crate) enum ClaimOutcome {
    Granted(Granted),
    /// The recorded process holds the office already, by a row that `--pid` made.
    AlreadyRecorded(Box<Record>),
    Held(Box<Obstacle>),
    Errand(Errand),
}
