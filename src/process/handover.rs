//! What the environment says of the process before us: whose tenure it had, and the numbers of the
//! open files that it left to us.
//!
//! The variable stays in the environment of whatever this process starts, where the numbers mean
//! nothing: nothing is believed before the first of them is the anchor on record. A `run` sets it
//! for its command with a word in the place of numbers: it goes on with a successor of that one.

use crate::environment;
use crate::sys::{FileKey, handover};
use crate::{Error, InstanceId, Result};

/// In the place of descriptors, in the environment of a command whose `run` follows it.
const OF_A_RUN: &str = "run";

/// What we were given, as far as the environment says it.
#[derive(Debug)]
pub(crate) struct Given {
    /// The row of the predecessor.
    pub(crate) instance: InstanceId,
    pub(crate) descriptors: String,
}

impl Given {
    /// `None` where nothing was given.
    pub(crate) fn of_environment() -> Result<Option<Self>> {
        let Some(value) = environment::text(environment::HANDOVER) else { return Ok(None) };
        Self::parse(&value).map(Some).ok_or_else(|| {
            Error::invalid(format!("{value:?} does not say what was handed over")).of_variable(
                environment::HANDOVER,
                "leave it as the predecessor has set it",
                None,
            )
        })
    }

    fn parse(value: &str) -> Option<Self> {
        let (instance, descriptors) = value.split_once(':')?;
        let instance = InstanceId(instance.parse().ok()?);
        Some(Self { instance, descriptors: descriptors.to_owned() })
    }

    /// The variable as the successor finds it.
    pub(crate) fn as_variable(instance: InstanceId, descriptors: &str) -> String {
        format!("{instance}:{descriptors}")
    }

    /// The variable as the command of a `run` finds it, which may hand over to a child.
    pub(crate) fn for_command(instance: InstanceId) -> String {
        Self::as_variable(instance, OF_A_RUN)
    }
}

/// Whether the program that this process was before left it the anchor `key` of the row `id`, which
/// it holds by that.
pub(crate) fn was_left_to_us(id: InstanceId, key: Option<&FileKey>) -> bool {
    let (Ok(Some(given)), Some(key)) = (Given::of_environment(), key) else { return false };
    given.instance == id && handover::has_inherited(&given.descriptors, key)
}

/// Closes what the row `id` left to us, once we need nothing of it: whoever we start would inherit
/// it, and hold the lock of a row that has ended.
pub(crate) fn close_what_was_left(id: InstanceId, key: Option<&FileKey>) {
    if let (Ok(Some(given)), Some(key)) = (Given::of_environment(), key)
        && given.instance == id
    {
        drop(handover::Inherited::find(&given.descriptors, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_read_as_it_was_said() {
        let given = Given::parse(&Given::as_variable(InstanceId(7), "3:4:5")).unwrap();
        assert_eq!((given.instance, &*given.descriptors), (InstanceId(7), "3:4:5"));
        for other in ["", ":", "x:3", "3", "99999999999999999999:3", "run"] {
            assert!(Given::parse(other).is_none(), "{other}");
        }
    }
}
