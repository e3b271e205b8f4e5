//! A snapshot as one line of a log.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::forensics::Fact;
use crate::path_text::is_unprintable;

/// A fact as documents show it: itself, or why it could not be had.
pub(super) fn shown<T: Serialize>(fact: &Result<T, impl Serialize>) -> Value {
    match fact {
        Ok(known) => json!(known),
        Err(why) => json!(why),
    }
}

/// The same for `serialize_with`.
pub(super) fn serialize<T: Serialize, S: Serializer>(
    fact: &Fact<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    shown(fact).serialize(serializer)
}

pub(super) fn group(facts: &BTreeMap<&'static str, Fact<Value>>) -> Value {
    let members = facts.iter().map(|(name, fact)| ((*name).to_owned(), shown(fact)));
    Value::Object(members.collect::<Map<_, _>>())
}

/// `key=value` for a log; a value that is more than a word is quoted, so that a line stays one.
pub(crate) struct Line {
    pub(super) text: String,
}

impl Line {
    pub(super) fn new() -> Self {
        Self { text: String::new() }
    }

    pub(super) fn add(&mut self, key: &str, value: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        let is_plain = |character: char| {
            !character.is_whitespace()
                && !is_unprintable(character)
                && !matches!(character, '"' | '=' | '\\' | '\'')
        };
        if !value.is_empty() && value.chars().all(is_plain) {
            self.text += &format!("{key}={value}");
        } else {
            self.text += &format!("{key}={value:?}");
        }
    }

    pub(super) fn fact<T>(&mut self, key: &str, fact: &Fact<T>, text: impl FnOnce(&T) -> String) {
        match fact {
            Ok(value) => self.add(key, &text(value)),
            Err(why) => self.add(key, &why.to_string()),
        }
    }
}
