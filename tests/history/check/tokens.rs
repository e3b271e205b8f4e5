//! Nobody acts for an incarnation who does not have its token: to know its number is not enough.

use crate::log::{Answer, Call};

use super::{Court, Rule};

pub fn check(court: &mut Court<'_, '_>) {
    let facts = court.facts;
    for call in &facts.calls {
        let Call::Forge { thing, incarnation, word } = call.call else { continue };
        if matches!(call.answer(), Some(Answer::Yes | Answer::Done)) {
            let what = format!(
                "somebody without its token said {word:?} of {thing} as incarnation {incarnation}"
            );
            court.object(Rule::TokenCounts, what, &[&call.lines]);
        }
    }
}
