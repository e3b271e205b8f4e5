//! The slots of a lock that several may hold at once.
//!
//! The rule is a promise that each of them gives the others: nobody is granted a slot while as many
//! hold the lock as the smallest number that any of them, or whoever asks, said. A lock without
//! slots counts as one of one.

use serde::Serialize;
use serde_json::{Value, json};

use crate::names::{IdentityHash, LockName};

/// The most slots of a lock. A refused claim may look at the owner of each.
pub(crate) const SLOTS_MAX: u32 = 64;

/// One of the slots of a lock, see [`LockRequest::slots`](crate::LockRequest::slots). In JSON an
/// object with these two fields; later versions may add others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Slot {
    /// Which one, from 0: lower than [`Slot::of`], and than the number that any of those had said
    /// who held the lock when it was granted. No two have the same at once.
    pub number: u32,
    /// How many its holder said that there are: 1 for an exclusive lock.
    pub of: u32,
}

impl Slot {
    /// `None` for numbers that no program of ours has written.
    pub(crate) fn new(number: u32, of: u32) -> Option<Self> {
        (number < of && of <= SLOTS_MAX).then_some(Self { number, of })
    }

    /// Says in a document which slot it is about, if it is about one.
    pub(crate) fn tell(slot: Option<Self>, document: &mut Value) {
        if slot.is_some() {
            document["slot"] = json!(slot);
        }
    }
}

/// How many may hold a lock at once, by the word of each that has it and of whoever wants it.
pub(crate) fn limit(words: impl IntoIterator<Item = Option<u32>>) -> usize {
    let smallest = words.into_iter().map(|of| of.unwrap_or(1)).min();
    smallest.and_then(|of| usize::try_from(of).ok()).unwrap_or(usize::MAX)
}

/// The lowest slot that is none of these.
pub(crate) fn lowest_free(taken: &[Option<Slot>]) -> u32 {
    let is_taken = |number: &u32| {
        // A lock without slots stands where the first one does.
        taken.iter().any(|slot| slot.map_or(0, |slot| slot.number) == *number)
    };
    (0..SLOTS_MAX).find(|number| !is_taken(number)).unwrap_or(SLOTS_MAX)
}

impl LockName {
    /// The name that a slot is stored by. The first has that of a lock without slots: the key of
    /// the table keeps the two apart, whatever program writes.
    pub(crate) fn stored(&self, slot: Option<Slot>) -> std::borrow::Cow<'_, Self> {
        match slot {
            None | Some(Slot { number: 0, .. }) => std::borrow::Cow::Borrowed(self),
            Some(Slot { number, .. }) => std::borrow::Cow::Owned(Self {
                scope: self.scope.clone(),
                identity_hash: IdentityHash::of_slot(&self.identity_hash, number),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u32) -> Option<Slot> {
        Slot::new(number, SLOTS_MAX)
    }

    #[test]
    fn the_smallest_word_counts() {
        for (words, expected) in [
            (&[None][..], 1),
            (&[Some(3)], 3),
            (&[Some(3), Some(2), Some(5)], 2),
            (&[Some(3), None], 1),
            (&[Some(64), Some(64)], 64),
        ] {
            assert_eq!(limit(words.iter().copied()), expected, "{words:?}");
        }
    }

    #[test]
    fn the_lowest_free_slot_is_below_the_limit() {
        for (taken, expected) in [
            (vec![], 0),
            (vec![None], 1),
            (vec![slot(0)], 1),
            (vec![slot(1)], 0),
            (vec![slot(0), slot(2), slot(1)], 3),
            (vec![slot(0), slot(3)], 1),
        ] {
            assert_eq!(lowest_free(&taken), expected, "{taken:?}");
            assert!(expected as usize <= taken.len(), "granted while fewer than the limit hold it");
        }
    }

    #[test]
    fn no_slot_is_beyond_what_its_holder_said() {
        for (number, of, is_one) in
            [(0, 1, true), (1, 1, false), (63, 64, true), (64, 65, false), (0, 0, false)]
        {
            assert_eq!(Slot::new(number, of).is_some(), is_one, "{number} of {of}");
        }
    }

    #[test]
    fn each_slot_is_stored_by_a_name_of_its_own() {
        let name = LockName::new("scope", "identity").unwrap();
        let other = LockName::new("scope", "another").unwrap();
        let mut stored = std::collections::HashSet::new();
        for name in [&name, &other] {
            assert_eq!(*name.stored(None), *name.stored(slot(0)));
            for number in 0..SLOTS_MAX {
                let key = name.stored(slot(number)).into_owned();
                assert!(IdentityHash::from_hex(key.identity_hash.as_str()).is_ok());
                assert!(stored.insert(key), "{name} {number}");
            }
        }
        // printf '\nslot 1 of %s' 689f6a627384c7dc | sha256sum | cut -c1-16
        assert_eq!(name.identity_hash.as_str(), "689f6a627384c7dc");
        assert_eq!(name.stored(slot(1)).identity_hash.as_str(), "92c0de3c739a4175");
    }

    /// Symptom: whoever chose an identity by the rule that slots are stored by stood in the place
    /// of somebody's slot, and each of the two was refused by an error of the engine.
    #[test]
    fn no_identity_is_stored_as_a_slot() {
        let name = LockName::new("scope", "identity").unwrap();
        let stored = name.stored(slot(1)).into_owned();
        for before in ["", "\0", "\n", " \n", "\r\n", "\u{b}", "\u{feff}"] {
            let identity = format!("{before}slot 1 of {}", name.identity_hash);
            assert_ne!(LockName::new("scope", &identity).unwrap(), stored, "{before:?}");
        }
    }
}
