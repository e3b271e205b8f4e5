//! The identities that are locked in a store, known by their hashes alone.
//!
//! One need not look like a secret. So what people write to be kept (reasons, who asks, texts of
//! errors, metadata, extra) and what is shown of foreign command lines (snapshot, diagnose, doctor)
//! is hashed word by word and compared with the locks. What was written before anybody knew may
//! stay in the WAL until SQLite writes over it.

use std::cell::RefCell;
use std::collections::HashSet;

use rusqlite::Connection;
use serde_json::Value;

use crate::Result;
use crate::names::IdentityHash;
use crate::names::Secret;
use crate::process::command_line::mask::Raw;
use crate::process::command_line::{mask, redact};
use crate::records::locks;
use crate::store::{Inner, ourselves};

/// What is shorter is a word of any sentence, and no secret.
const LENGTH_MIN: usize = 4;

/// Whether a word that is locked is worth to be taken out of what people write.
pub(crate) fn is_long_enough(word: &str) -> bool {
    word.len() >= LENGTH_MIN
}

/// The hashes of all that is locked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identities(HashSet<u64>);

impl Identities {
    pub(crate) fn read(connection: &Connection) -> Result<Self> {
        identity_hashes(connection).map(Self)
    }

    /// Those that stand in these texts, as [`Identities::mask`] and [`Identities::text`] find them:
    /// of a few words each is looked up, however much is locked.
    pub(crate) fn within<'a>(
        connection: &Connection,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        /// More than a message of an error has; beyond that, reading all that is locked costs as
        /// little.
        const WORDS_MAX: usize = 64;
        let words = RefCell::new(HashSet::new());
        for text in texts {
            Raw::new(vec![text.to_owned()]).find(&|word| {
                if is_long_enough(word) && words.borrow().len() <= WORDS_MAX {
                    words.borrow_mut().insert(word.to_owned());
                }
                false
            });
        }
        let words = words.into_inner();
        if words.len() <= WORDS_MAX {
            let mut hashes = words.iter().filter_map(|word| IdentityHash::of(word).ok());
            if let Some(locked) = locked_among(connection, &mut hashes)? {
                return Ok(Self(locked));
            }
        }
        Self::read(connection)
    }

    /// Those of the store; where it cannot be read, those that this process holds itself.
    pub(crate) fn known_to(inner: &Inner) -> Self {
        inner.read(Self::read).unwrap_or_else(|error| {
            tracing::debug!(%error, "not all locked identities are known");
            Self(inner.held_identities())
        })
    }

    /// As many as can be seen without asking the store.
    pub(crate) fn held_by(inner: &Inner) -> Self {
        Self(inner.held_identities())
    }

    pub(crate) fn contains(&self, word: &str) -> bool {
        !self.0.is_empty()
            && IdentityHash::of(word).is_ok_and(|hash| {
                let number = IdentityHash::number_of(hash.as_str());
                number.is_some_and(|number| self.0.contains(&number))
            })
    }

    /// A command line as it may be shown: redacted, and without what is locked.
    pub(crate) fn command(&self, arguments: Vec<String>) -> Vec<String> {
        let raw = Raw::new(arguments);
        let found = raw.find(&|word| self.contains(word));
        raw.redacted(&found.iter().collect::<Vec<_>>())
    }

    /// What a person or a program wrote, as it may be stored and shown.
    pub(crate) fn text(&self, text: &str) -> String {
        redact::redact_text(&self.mask(text))
    }

    /// A line of somebody else's log.
    pub(crate) fn line(&self, text: &str) -> String {
        redact::redact_line(&self.mask(text))
    }

    /// The same within the strings of a document, which is its writer's own: only what is locked
    /// goes.
    pub(crate) fn mask_document(&self, document: &mut Value) {
        if !self.0.is_empty() {
            mask_strings(document, &|text| self.mask(text));
        }
    }

    /// The same in a command line that is redacted already.
    pub(crate) fn mask_words(&self, arguments: &[String]) -> Vec<String> {
        if self.0.is_empty() {
            return arguments.to_vec();
        }
        arguments.iter().map(|argument| self.mask(argument)).collect()
    }

    /// A word of the writer's own: only what is locked goes.
    pub(crate) fn mask(&self, text: &str) -> String {
        let text = [text.to_owned()];
        let is_identity = |word: &str| is_long_enough(word) && self.contains(word);
        let found: Vec<Secret> = Raw::new(text.to_vec()).find(&is_identity);
        mask::mask(&text, &found.iter().collect::<Vec<_>>()).concat()
    }
}

/// The strings of a document, but for the names of fields.
pub(crate) fn strings<'a>(document: &'a Value, found: &mut Vec<&'a str>) {
    match document {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| strings(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Who acts: as the caller named it, else this process.
pub(crate) fn by_or_self(inner: &Inner, by: Option<&str>) -> String {
    by.map_or_else(|| ourselves::by_self(inner), |by| presentable(inner, by))
}

/// Puts what `mask` makes of them in the place of all strings of a document, but for the names of
/// fields.
pub(crate) fn mask_strings(document: &mut Value, mask: &dyn Fn(&str) -> String) {
    match document {
        Value::String(text) => *text = mask(text),
        Value::Array(values) => values.iter_mut().for_each(|value| mask_strings(value, mask)),
        Value::Object(fields) => fields.values_mut().for_each(|value| mask_strings(value, mask)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What somebody wrote to be kept, without what is a secret.
pub(crate) fn presentable(inner: &Inner, text: &str) -> String {
    Identities::known_to(inner).text(text)
}

/// The hashes of all identities that are locked, as numbers: somebody waits while they are read.
pub(crate) fn identity_hashes(connection: &Connection) -> Result<HashSet<u64>> {
    /// More than any machine has bots.
    const READ_MAX: i64 = 10_000;
    let mut hashes = HashSet::new();
    if !locks::exists(connection)? {
        return Ok(hashes);
    }
    // Of a slot the lock's own: that of the row is made of it, and no word has it.
    for column in ["identity_hash", "slot_of"] {
        let sql = format!("SELECT {column} FROM scoped_locks LIMIT ?1");
        let Some(mut statement) = locks::prepare_of_slots(connection, &sql)? else { continue };
        let mut rows = statement.query([READ_MAX])?;
        while let Some(row) = rows.next()? {
            hashes.extend(row.get_ref(0)?.as_str().ok().and_then(IdentityHash::number_of));
        }
    }
    Ok(hashes)
}

/// Those of `hashes` that are locked, as numbers: looked up one by one in each scope, so that it
/// costs the same beside however many locks. `None` in a store with too many scopes for that.
pub(crate) fn locked_among(
    connection: &Connection,
    hashes: &mut dyn Iterator<Item = IdentityHash>,
) -> Result<Option<HashSet<u64>>> {
    /// Scopes are kinds of tokens: a machine has a few.
    const SCOPES_MAX: usize = 32;
    let mut scopes: Vec<String> = Vec::new();
    if !locks::exists(connection)? {
        return Ok(Some(HashSet::new()));
    }
    // From one to the next: DISTINCT would read every lock.
    let mut next =
        connection.prepare_cached("SELECT min(scope) FROM scoped_locks WHERE scope > ?1")?;
    loop {
        let last = scopes.last().map_or("", String::as_str);
        match next.query_row([last], |row| row.get(0))? {
            None => break,
            Some(_) if scopes.len() == SCOPES_MAX => return Ok(None),
            Some(scope) => scopes.push(scope),
        }
    }
    let mut locked = HashSet::new();
    if scopes.is_empty() {
        return Ok(Some(locked));
    }
    let mut is_locked = connection
        .prepare_cached("SELECT 1 FROM scoped_locks WHERE scope = ?1 AND identity_hash = ?2")?;
    let in_slots = "SELECT 1 FROM scoped_locks WHERE scope = ?1 AND slot_of = ?2";
    let mut in_slots = locks::prepare_of_slots(connection, in_slots)?;
    for hash in hashes {
        for scope in &scopes {
            let names = (scope, hash.as_str());
            if is_locked.exists(names)?
                || in_slots.as_mut().map_or(Ok(false), |it| it.exists(names))?
            {
                locked.extend(IdentityHash::number_of(hash.as_str()));
                break;
            }
        }
    }
    Ok(Some(locked))
}
