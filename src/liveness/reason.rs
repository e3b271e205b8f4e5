//! Every reason that a verdict, an end or a refusal can have: one word for programs, one clause for
//! people.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $because:literal;)*) => {
        /// Why something is as it is said to be: why an owner counts as alive or dead, why a claim
        /// was refused, how an incarnation ended. In JSON its word.
        ///
        /// ```
        /// use incumbent::Reason;
        ///
        /// assert_eq!(Reason::PidReused.as_str(), "pid_reused");
        /// assert_eq!(Reason::PidReused.because(), "its pid belongs to another process now");
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
            /// Recorded by another version, in its own word. Never one of those above.
            Other(Box<str>),
        }

        impl Reason {
            /// All of them, but for those of other versions.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            /// The reason in snake case, as stored and as the CLI shows it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }

            /// The reason as a clause for people.
            #[must_use]
            pub fn because(&self) -> &'static str {
                match self {
                    $(Self::$variant => $because,)*
                    Self::Other(_) => "for a reason this version does not know",
                }
            }
        }

        /// Reads what [`Reason::as_str`] gives; any other word is [`Reason::Other`].
        impl From<String> for Reason {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)*
                    _ => Self::Other(word.into()),
                }
            }
        }
    };
}

reasons! {
    /// The kernel says so: the anchor is locked.
    AnchorHeld = "anchor_held", "the kernel holds its lock";
    /// The recorded process is there, with the recorded start time.
    StartTimeMatches = "start_time_matches",
        "the recorded process runs, with the recorded start time";
    /// The recorded process is there, with a command line of the recorded kind.
    CommandLineMatches = "command_line_matches",
        "the recorded process runs, with the recorded command line";
    /// The owner, a `run`, is gone, but the command it started still runs.
    ChildLives = "child_lives", "its `run` is gone, but the command it started still runs";
    /// The kernel released its anchor, which it does when the process ends.
    AnchorReleased = "anchor_released",
        "the kernel released its lock: the process has ended, or no longer holds it";
    /// The machine was restarted since.
    Rebooted = "rebooted", "the machine was restarted since";
    /// No process has the recorded pid.
    NoSuchProcess = "no_such_process", "no process has its pid";
    /// All threads have ended; only its exit status is left to be collected.
    Zombie = "zombie", "all its threads have ended";
    /// The recorded pid now belongs to another process.
    PidReused = "pid_reused", "its pid belongs to another process now";
    /// The start time is unknown, and the live process' command line is of something else.
    IdentityMismatch = "identity_mismatch", "its pid runs something else now";
    /// Its lease has run out (that lock only).
    LeaseExpired = "lease_expired", "its lease has expired";
    /// It lives on another machine, in another pid namespace, or behind a foreign process
    /// table, and no anchor can be seen.
    ForeignNamespace = "foreign_namespace",
        "it was recorded in another pid namespace or on another machine, and cannot be checked \
         from here";
    /// Neither the anchor nor the process can be looked at well enough.
    NotVerifiable = "not_verifiable",
        "neither its lock nor its process can be checked";
    /// There is no record, or no store.
    NeverClaimed = "never_claimed", "nobody has claimed it yet";
    /// A takeover or a stop is in progress.
    Reserved = "reserved", "a takeover or a stop is in progress";
    /// The holder took over from the caller's own party.
    Superseded = "superseded", "it replaced the caller";
    /// The holder may not be signalled from here, and did not follow its marker.
    CannotSignal = "cannot_signal", "it cannot be signalled from here, and ignored the request";
    /// The holder was still there when its time was over.
    TimedOut = "timed_out", "it did not end in time";
    /// An older gateway acts beside the holder on record.
    OlderGateway = "older_gateway",
        "it is an older gateway, and runs next to the holder on record";
    /// One of another profile, or of another store, holds the lock of the directory that the
    /// profile stands for.
    LegacyHomeInUse = "legacy_home_in_use",
        "it holds the lock of the older program's directory";
    /// It holds an anchor of a store that is no longer here.
    OrphanedAnchor = "orphaned_anchor",
        "it holds a lock from a store that was moved, deleted or replaced";
    /// Its owner released it.
    Released = "released", "its owner released it";
    /// The command of a `run` ended by itself.
    Exited = "exited", "its command ended";
    /// A signal that somebody sent ended it.
    Signalled = "signalled", "a signal ended it";
    /// A fault of its own ended the command of a `run`.
    Crashed = "crashed", "its command crashed";
    /// One of its threads panicked, and it ended by that.
    Panicked = "panicked", "one of its threads panicked";
    /// It was killed, and the kernel's counters or its log say that memory had run out.
    OomSuspected = "oom_suspected", "it was killed, and memory had run out";
    /// Somebody stopped it on purpose.
    PlannedStop = "planned_stop", "it was stopped on purpose";
    /// Somebody else took its office over.
    TakenOver = "taken_over", "its office was taken over";
    /// A person ended the record.
    Evicted = "evicted", "a person evicted it";
    /// The process executed itself again and claimed again.
    ReExecuted = "re_executed", "the process re-executed itself";
    /// It handed its office over to a process that it had started.
    HandedOver = "handed_over", "it handed over to its successor";
    /// The store was deleted, replaced or restored under its owner.
    StoreReplaced = "store_replaced", "its store was deleted or replaced";
}

impl Reason {
    /// Those of [`Reason::is_found_dead`].
    pub(crate) const FOUND_DEAD: [Self; 5] = [
        Self::AnchorReleased,
        Self::NoSuchProcess,
        Self::Zombie,
        Self::PidReused,
        Self::IdentityMismatch,
    ];

    /// Whether it says only that the owner was found dead, and not how it ended.
    ///
    /// ```
    /// use incumbent::Reason;
    ///
    /// assert!(Reason::AnchorReleased.is_found_dead());
    /// assert!(!Reason::Exited.is_found_dead());
    /// ```
    #[must_use]
    pub fn is_found_dead(&self) -> bool {
        Self::FOUND_DEAD.contains(self)
    }

    /// The word for people: `pid reused`.
    pub(crate) fn in_words(&self) -> String {
        self.as_str().replace('_', " ")
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
