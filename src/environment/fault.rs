//! Planted faults: each breaks one promise at the one line that keeps it, to see that a test tells.
//!
//! They are in builds with the feature `planted-faults` only, and there one at a time, named by
//! `INCUMBENT_PLANTED_FAULT`. `tests/planted.txt` says which test finds it, and `.ci/planted` runs
//! that test with the fault. In any other build [`planted`] is the constant `false`.

#[cfg(feature = "planted-faults")]
use crate::environment::{PLANTED_FAULT, text};

/// Defines the faults, and the list of them.
macro_rules! faults {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// What can be broken. A name says what goes wrong; the text, which promise that breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(dead_code, reason = "some stand in code of one platform, or of the command line")]
        pub(crate) enum Fault {
            $($(#[$doc])+ $name,)+
        }

        #[cfg(feature = "planted-faults")]
        const ALL: &[Fault] = &[$(Fault::$name),+];
    };
}

faults! {
    /// Rule 4 of the verdict: a command that nobody can see counts as ended.
    UnknownChildGone,
    /// Rules 13 and 15: where the anchor cannot be read, weak signs of death count.
    UnseenAnchorIgnored,
    /// Rule 13: the pid of an owner may be another user's by now, and nobody looks.
    UidIgnored,
    /// Rule 3: an owner that is stopped counts as dead.
    StoppedIsDead,
    /// Rule 2: an anchor that a child of a dead owner has inherited keeps everybody out.
    LeakedAnchorLives,
    /// Rule 3: a lease that ran out takes a lock from an owner whose anchor is held.
    LeaseBeatsAnchor,
    /// Rule 6: a process whose keeper was killed counts as dead.
    KeeperIgnored,
    /// A question and a claim take a held anchor for a free one.
    HeldAnchorFree,
    /// An end is explained by a stop that was given up before.
    GivenUpStopExplains,
    /// Markers for a generation stay open when that has ended.
    MarkersOutliveTarget,
    /// The locks that were taken from a row stay on record when that has ended.
    LocksOutliveOwner,
    /// A lock of the kernel's that is held reads as free, and the other way round.
    AnchorInverted,
    /// Any file at the path of an anchor counts as that anchor.
    InodeIgnored,
    /// Whoever has handed its office over unlocks the anchor for its successor as well.
    HandoverUnlocks,
    /// Another boot id is taken for a restart of the machine, whatever the clocks say.
    RebootByIdAlone,
    /// What looks like a secret stays in the command lines that are stored and shown.
    SecretsKept,
    /// The identities that are locked stay in the command lines that are stored and shown.
    IdentitiesKept,
    /// The identity of a lock is stored as it is, and not as a hash.
    IdentityInClear,
    /// A process that has ended and was not collected counts as present.
    ZombieLives,
    /// A signal goes to whoever has the recorded pid now.
    SignalByNumber,
    /// A signal goes to a process that the caller descends from.
    AncestorSignalled,
    /// The store of a user directs the signals of root at anybody.
    StoreOfUserTrusted,
    /// Running out of descriptors or memory while looking is taken for something that was seen.
    ShortageIsFact,
    /// Nobody is kept from beginning a `-shm` anew that a connection of ours uses.
    IndexUnguarded,
    /// A forked child goes on with the handle of its parent.
    ForkUnchecked,
    /// A claim looks and judges before it has the write lock.
    VerdictBeforeLock,
    /// Fences follow the wall clock alone, and fall with it.
    FenceByClockAlone,
    /// Fences are counted in the store alone, and fall in a restored or a new one.
    FenceByCountAlone,
    /// An owner goes on in the files of a store that was deleted or replaced.
    LostFilesUnnoticed,
    /// A store that is closed to older programs is written to.
    NewerStoreWritten,
    /// A release that could not be written is not kept for later.
    ReleaseForgotten,
    /// Whoever knows the id of a row acts for it, whatever token it has.
    NonceIgnored,
    /// The history keeps one incarnation of an office.
    HistoryForgotten,
    /// The release of all locks of one owner ends those of the others, too.
    ReleaseUnfiltered,
    /// A profile that is bound to one home is given to another one.
    HomeIgnored,
    /// A process is told, and consumes, what was left for another generation.
    MarkerOfAnother,
    /// A marker counts although its time is over.
    MarkerNeverExpires,
    /// A new generation shows what the one before it said of itself.
    StatusOfFormer,
    /// A marker that was consumed stays open, and is consumed again.
    MarkerConsumedTwice,
    /// What is reserved for a stop or a takeover is granted to whoever comes first.
    ReservationIgnored,
    /// An owner that is at work, and whose record was lost with its store, keeps nobody out.
    OrphansIgnored,
    /// What the command of a killed `run` left in its session meets the next one.
    FamilyIgnored,
    /// A gateway of the older program keeps nobody out.
    OlderLockIgnored,
    /// An owner whose record was ended is told that it holds its office.
    LossUnnoticed,
    /// An owner whose anchor file was removed does not make it again.
    AnchorStaysLost,
    /// A wait goes on after its deadline.
    WaitForgetsDeadline,
    /// A waiter does not hear that its lock was released.
    ReleaseUnheard,
    /// One more than was asked for may hold a lock with slots.
    SlotTooMany,
    /// Two guards of one process have the same exclusive lock.
    ExclusiveShared,
    /// An owner that is stopped is evicted although nobody asked for that.
    StoppedEvicted,
    /// A renewed lease is as old as it was.
    RenewForgetsTtl,
    /// The first of several guards that share a lock releases it for all.
    SharedGuardReleases,
    /// A lock whose holder lives is removed without `--force`.
    UnlockUnasked,
    /// An office whose holder lives is taken from it without `--force`.
    EvictUnasked,
    /// A party that starts again and again is never slowed down.
    StormUnnoticed,
    /// An owner that is replaced is killed before its stop budget is over.
    StopBudgetIgnored,
    /// Whoever was replaced takes the place of its successor in turn.
    SupersededForgotten,
    /// A keeper works without a second one, and its process is lost with it.
    KeeperAlone,
    /// A command that was asked to restart is not started again.
    RestartForgotten,
    /// A `run` whose command was killed by a signal says that all went well.
    KilledIsZero,
    /// A repair that was only to be shown is done.
    DryRunRepairs,
    /// The doctor ends records of owners that are not known to be dead.
    DoctorEndsTheLiving,
    /// A verb that was refused succeeds where nobody reads its answer.
    ClosedPipeIsZero,
    /// A store that is busy now is said to have failed for good.
    BusyIsPermanent,
    /// Advice names a command without the options that this call was given.
    HintForgetsOptions,
    /// A command that failed is told as one that succeeded.
    CrashIsSuccess,
    /// What a process knows of anchors counts although the store has gone back to before.
    LineageIgnored,
    /// An answer is given again although something was committed since.
    CommitUnnoticed,
}

/// Whether this fault is to be made here.
#[cfg(not(feature = "planted-faults"))]
pub(crate) const fn planted(_fault: Fault) -> bool {
    false
}

/// The same, where one was chosen. Read once: it is asked with every look.
#[cfg(feature = "planted-faults")]
pub(crate) fn planted(fault: Fault) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Fault>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(chosen) == Some(fault)
}

/// A name that is none would break nothing, and be taken for a fault that no test finds.
#[cfg(feature = "planted-faults")]
fn chosen() -> Option<Fault> {
    let name = text(PLANTED_FAULT)?;
    let found = ALL.iter().copied().find(|fault| format!("{fault:?}") == name);
    assert!(found.is_some(), "{PLANTED_FAULT}={name} is not one of {ALL:?}");
    found
}
