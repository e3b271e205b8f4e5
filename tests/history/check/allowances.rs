//! What the contract allows although a rule seems to forbid it, each with the sentence that says
//! so. Read them with suspicion: what is allowed here is not found.

/// One allowance. Where it is used, the code says how narrow it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowance {
    EvictedUntilItLearns,
    StoreLostUntilNoticed,
    BackAgain,
    PiecedTogether,
    Dying,
    HeirHasMarkers,
    ConsumedUnrecorded,
    UnknownIsNeverDead,
    LeakedElsewhere,
    ReleaseLostWithTheWal,
    LostWithTheWal,
    RegisteredAgain,
    CommandBegunAnew,
    HistoryIsBounded,
    LeaseWithoutAnchor,
    KeepersGone,
    FullDiskKeepsTheFence,
    AskedToEndKeepsTheFence,
    OtherClock,
    StoodStill,
}

pub const ALLOWANCES: [Allowance; 20] = [
    Allowance::EvictedUntilItLearns,
    Allowance::StoreLostUntilNoticed,
    Allowance::BackAgain,
    Allowance::PiecedTogether,
    Allowance::Dying,
    Allowance::HeirHasMarkers,
    Allowance::ConsumedUnrecorded,
    Allowance::UnknownIsNeverDead,
    Allowance::LeakedElsewhere,
    Allowance::ReleaseLostWithTheWal,
    Allowance::LostWithTheWal,
    Allowance::RegisteredAgain,
    Allowance::CommandBegunAnew,
    Allowance::HistoryIsBounded,
    Allowance::LeaseWithoutAnchor,
    Allowance::KeepersGone,
    Allowance::FullDiskKeepsTheFence,
    Allowance::AskedToEndKeepsTheFence,
    Allowance::OtherClock,
    Allowance::StoodStill,
];

impl Allowance {
    /// The sentence of the contract, and what it means here.
    pub fn why(self) -> &'static str {
        match self {
            Self::EvictedUntilItLearns => {
                "An evicted live owner learns it from its fence: `verify` and `renew` say `Lost`. \
                 Until it asks, or its `run` looks (once a second) and ends the command within its \
                 stop budget, it and the next owner are both there."
            }
            Self::StoreLostUntilNoticed => {
                "A store deleted, replaced or restored under an owner is noticed within 1 s; `run` \
                 then claims once more and ends its command only if refused. Until then the owner \
                 from before and one from after may both be there, but for an owner that was told \
                 since that it holds."
            }
            Self::BackAgain => {
                "A store that is put back knows nothing of what came after the copy, one whose \
                 `-wal` was deleted nothing since the last checkpoint: what was acknowledged is \
                 gone, a marker may come again, a fence that was drawn by another clock may \
                 repeat. Each time between two losses is judged by itself."
            }
            Self::PiecedTogether => {
                "Corrupt is a typed error, and what can be read of a damaged store is saved: in \
                 one that was written over while it was in use, rows need not belong together."
            }
            Self::Dying => {
                "Ownership ends with the process: the kernel closes the files of a dying process \
                 one after the other, the anchor perhaps before the witness file."
            }
            Self::HeirHasMarkers => {
                "By a handover all that leans on the old row follows to the new one: an heir may \
                 take what was for the incarnation before it."
            }
            Self::ConsumedUnrecorded => {
                "If the store cannot be written within 250 ms the answer is still true, \
                 `recorded: false`: such a marker is still there for the next who asks."
            }
            Self::UnknownIsNeverDead => {
                "Unknown is never dead: not being able to look evicts nobody, and is said."
            }
            Self::LeakedElsewhere => {
                "Gone needs a visible process table: where a forked child holds the anchor of its \
                 dead parent, or keepers are about to end, an observer in another pid namespace \
                 cannot tell."
            }
            Self::ReleaseLostWithTheWal => {
                "A -wal that is deleted under a live owner may take the last release with it: the \
                 row then ends as that of a dead owner does."
            }
            Self::LostWithTheWal => {
                "The identity of all three files is compared; a mismatch takes the road of \
                 `StoreReplaced`. An owner whose `-wal` was deleted is told `store_replaced`; a \
                 verb finds no row of it."
            }
            Self::RegisteredAgain => {
                "A mismatch takes the road of `StoreReplaced`: open again, register again with the \
                 same anchor and nonce. Others then meet a number that nobody was granted, of an \
                 owner from before the loss that may live still."
            }
            Self::CommandBegunAnew => {
                "A restart stops the command and starts it again within the same tenure; what the \
                 last one said of itself is forgotten, as with a fresh instance."
            }
            Self::HistoryIsBounded => "History keeps the last 200 incarnations per office.",
            Self::LeaseWithoutAnchor => {
                "Where no anchor of the owner itself decides, a lease that has run out ends that \
                 lock."
            }
            Self::KeepersGone => {
                "Anchor free, keepers gone, process table not visible: dead. Who kills keepers \
                 makes their process evictable from other namespaces."
            }
            Self::FullDiskKeepsTheFence => {
                "A successor whose adoption cannot be written leaves everything as it was: it goes \
                 on under the old number and fence."
            }
            Self::AskedToEndKeepsTheFence => {
                "One open intent per instance: whoever stops or replaces it waits for the end of \
                 that row, so an heir by exec, which is the same process, goes on with it."
            }
            Self::OtherClock => {
                "A process whose clocks are faked keeps its bounds by those clocks, not by ours."
            }
            Self::StoodStill => {
                "Who is stopped or frozen, or waits for a store whose writer is, cannot answer in \
                 time: that time does not count."
            }
        }
    }
}
