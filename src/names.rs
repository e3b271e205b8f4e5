//! Names that people choose, validated once, and ids that the store draws.

pub(crate) mod slot;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::environment::{Fault, planted};
use crate::{Error, Result};

/// The longest name of a profile or kind, in bytes.
const NAME_LENGTH_MAX: usize = 64;

/// Whether a refused name is repeated in the message. A scope stands next to a secret, and may be
/// one by mistake.
enum Echo {
    Yes,
    No,
}

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,63}`: safe in a path, a shell word, a unit name and a log line.
fn validate(what: &str, name: &str, echo: Echo) -> Result<()> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_allowed = |(at, c): (usize, char)| is_word(c) || (at > 0 && matches!(c, '.' | '-'));
    let odd = name.char_indices().find(|&at| !is_allowed(at));
    let problem = match (odd, echo) {
        (None, _) if (1..=NAME_LENGTH_MAX).contains(&name.len()) => return Ok(()),
        (_, Echo::Yes) => format!("invalid {what} {name:?}"),
        (Some((at, c)), Echo::No) => {
            format!("invalid {what}: {c:?} at byte {at} is not allowed in it")
        }
        (None, Echo::No) => format!("invalid {what}: it has {} characters", name.len()),
    };
    Err(Error::invalid(problem).with_hint(format!(
        "a {what} has 1 to {NAME_LENGTH_MAX} characters from A-Z a-z 0-9 . _ - and starts with a \
         letter, a digit or _"
    )))
}

/// Refuses a `word` that is none of `all`.
pub(crate) fn unknown(what: &str, word: &str, all: &[impl fmt::Display]) -> Error {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    Error::invalid(format!("unknown {what} {word:?}"))
        .with_hint(format!("one of {}", all.join(", ")))
}

/// What a name is made of, so that who has a text and who has a name may pass it as it is.
macro_rules! try_from {
    ($type:ident, $($text:ty),*) => {
        $(impl TryFrom<$text> for $type {
            type Error = Error;

            fn try_from(name: $text) -> Result<Self> {
                Self::new(name)
            }
        })*
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $echo:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        pub struct $type(String);

        impl $type {
            /// The name that this text is.
            ///
            /// # Errors
            /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a text outside
            /// `[A-Za-z0-9_][A-Za-z0-9._-]{0,63}`: 1 to 64 of these characters.
            pub fn new(name: impl Into<String>) -> Result<Self> {
                let name = name.into();
                validate($what, &name, $echo)?;
                Ok(Self(name))
            }

            /// The name itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        try_from!($type, &str, &String, String);

        impl From<&$type> for $type {
            fn from(name: &$type) -> Self {
                name.clone()
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a gateway configuration: `work`; by default `default`. In JSON a string.
    ///
    /// ```
    /// use incumbent::{ErrorKind, ProfileName};
    ///
    /// assert_eq!(ProfileName::new("work")?.as_str(), "work");
    /// assert_eq!(ProfileName::default().to_string(), "default");
    /// assert_eq!(ProfileName::new("../work").unwrap_err().kind(), ErrorKind::InvalidInput);
    /// # Ok::<(), incumbent::Error>(())
    /// ```
    ProfileName, "profile", Echo::Yes
}

name! {
    /// What sort of process holds an office of a profile: `scheduler`; by default `gateway`. In
    /// JSON a string.
    Kind, "kind", Echo::Yes
}

name! {
    /// What sort of thing a lock is about: `telegram-bot-token`. In JSON a string. An error about
    /// one does not repeat it: it may be an identity in the wrong place.
    Scope, "scope", Echo::No
}

name! {
    /// What a marker says: `takeover`, `planned_stop`, `restart`, or the caller's own word. In JSON
    /// a string. The first three are *requests*: a process has at most one of them open.
    MarkerName, "marker", Echo::Yes
}

impl MarkerName {
    pub(crate) const TAKEOVER: &str = "takeover";

    pub(crate) const PLANNED_STOP: &str = "planned_stop";

    pub(crate) const RESTART: &str = "restart";

    /// `takeover`: somebody takes the office over.
    #[must_use]
    pub fn takeover() -> Self {
        Self(Self::TAKEOVER.to_owned())
    }

    /// `planned_stop`: somebody stops the process on purpose.
    #[must_use]
    pub fn planned_stop() -> Self {
        Self(Self::PLANNED_STOP.to_owned())
    }

    /// `restart`: somebody wants the process to start again.
    #[must_use]
    pub fn restart() -> Self {
        Self(Self::RESTART.to_owned())
    }

    /// Whether it asks for an end or a new start: an instance has at most one such marker open.
    pub(crate) fn is_request(&self) -> bool {
        [Self::TAKEOVER, Self::PLANNED_STOP, Self::RESTART].contains(&self.as_str())
    }
}

/// An identity in memory, for taking it out of command lines. It hides from `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Whitespace around it does not count, as for its hash.
    pub(crate) fn of(identity: &[u8]) -> Self {
        Self(String::from_utf8_lossy(identity.trim_ascii()).into_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The first 16 hex digits of the SHA-256 of an identity: all that the store ever sees of it. In
/// JSON a string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct IdentityHash(String);

impl IdentityHash {
    const LENGTH: usize = 16;

    /// Hashes an identity. Whitespace around it does not count: the same token with and without
    /// the newline of its file is the same token.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an empty identity.
    pub fn of(identity: impl AsRef<[u8]>) -> Result<Self> {
        use sha2::Digest;
        let identity = identity.as_ref().trim_ascii();
        if identity.is_empty() {
            return Err(Error::invalid("the identity to lock is empty").with_hint(
                "give what only one process may hold, e.g. the bot's token; check that the \
                 variable or file it comes from is not empty",
            ));
        }
        let mut hash = hex(&sha2::Sha256::digest(identity));
        if planted(Fault::IdentityInClear) {
            hash = hex(identity);
        }
        hash.truncate(Self::LENGTH);
        Ok(Self(hash))
    }

    /// What a slot of the lock on this identity is stored by. No identity begins with whitespace
    /// when it is hashed, so none is stored by the same.
    fn of_slot(&self, number: u32) -> Self {
        use sha2::Digest;
        let mut hash = hex(&sha2::Sha256::digest(format!("\nslot {number} of {self}")));
        hash.truncate(Self::LENGTH);
        Self(hash)
    }

    /// The number that its digits stand for.
    pub(crate) fn number_of(digits: &str) -> Option<u64> {
        u64::from_str_radix(digits, 16).ok()
    }

    /// Reads what [`IdentityHash::as_str`] gives, in capitals as well.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for anything but 16 hex digits. The message
    /// does not repeat the text: it may be an identity in the wrong place.
    pub fn from_hex(text: &str) -> Result<Self> {
        let is_hash =
            text.len() == Self::LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(Error::invalid(format!("a hash has {} hex digits", Self::LENGTH))
            .with_hint("copy the hash from `incumbent locks`"))
    }

    /// The 16 hex digits, in small letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdentityHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What at most one live process of the machine holds: an identity within a scope. It knows the
/// identity by its hash only, and may be shown and logged. In JSON an object with `scope` and
/// `identity_hash`; what has a lock has these two fields beside its own.
///
/// ```
/// use incumbent::LockName;
///
/// let name = LockName::new("telegram-bot-token", "123456:secret")?;
/// assert_eq!(name, LockName::new("telegram-bot-token", "123456:secret\n")?);
/// assert_eq!(name.to_string(), "telegram-bot-token/210fd51512083fab");
/// # Ok::<(), incumbent::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct LockName {
    /// What sort of thing it is.
    pub scope: Scope,
    /// Which one of them.
    pub identity_hash: IdentityHash,
}

impl LockName {
    /// Names the lock on `identity` within `scope`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an empty identity, or a scope outside
    /// `[A-Za-z0-9_][A-Za-z0-9._-]{0,63}`.
    pub fn new(scope: &str, identity: impl AsRef<[u8]>) -> Result<Self> {
        Ok(Self { scope: Scope::new(scope)?, identity_hash: IdentityHash::of(identity)? })
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.scope, self.identity_hash)
    }
}

impl Default for ProfileName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl Default for Kind {
    fn default() -> Self {
        Self("gateway".to_owned())
    }
}

/// What at most one live instance holds: a kind of process of a profile. `Display` writes
/// `work/gateway`. In JSON an object with `profile` and `kind`; what is about an office has these
/// two fields beside its own.
///
/// ```
/// use incumbent::{Kind, Office, ProfileName};
///
/// let office = Office { profile: ProfileName::new("work")?, kind: Kind::default() };
/// assert_eq!(office.to_string(), "work/gateway");
/// # Ok::<(), incumbent::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Office {
    /// The gateway configuration.
    pub profile: ProfileName,
    /// The sort of process.
    pub kind: Kind,
}

impl Office {
    /// A verb of the command line about this office, for a hint: `stop --profile P --kind K`.
    #[must_use]
    pub fn verb(&self, verb: &str) -> String {
        format!("{verb} --profile {} --kind {}", self.profile, self.kind)
    }
}

impl fmt::Display for Office {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.profile, self.kind)
    }
}

/// What a claimant wants: an office or a scoped lock. `Display` writes `work/gateway`, or the scope
/// and the hash of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// An office.
    Office(Office),
    /// A scoped lock.
    Lock(LockName),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Office(office) => office.fmt(f),
            Self::Lock(name) => name.fmt(f),
        }
    }
}

/// The id of one incarnation of a process, its *generation*: never reused, always rising, also in
/// a store restored from an older copy (`max(last + 1, Unix µs)`). It is the office's fence: a
/// resource can refuse a holder that comes with a lower one. At most 2^53 - 1, so that every reader
/// of JSON, where it is a number, has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct InstanceId(pub(crate) i64);

impl InstanceId {
    /// The id with this number, as [`InstanceId::as_i64`] gave it: from a table of the
    /// application's own, or from the command line. Whether there is such an instance is asked by
    /// [`Store::instance`](crate::Store::instance).
    ///
    /// ```
    /// use incumbent::InstanceId;
    ///
    /// assert_eq!(InstanceId::from_i64(1_790_000_000_000_000)?.as_i64(), 1_790_000_000_000_000);
    /// assert!(InstanceId::from_i64(0).is_err());
    /// # Ok::<(), incumbent::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a number that no store draws: 0 or
    /// less.
    pub fn from_i64(number: i64) -> Result<Self> {
        if number > 0 {
            return Ok(Self(number));
        }
        Err(Error::invalid(format!("invalid instance id {number}"))
            .with_hint("an instance id is greater than 0: store it as InstanceId::as_i64 gives it"))
    }

    /// The number as stored.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for InstanceId {
    type Error = Error;

    fn try_from(number: i64) -> Result<Self> {
        Self::from_i64(number)
    }
}

impl From<InstanceId> for i64 {
    fn from(id: InstanceId) -> Self {
        id.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 128 random bits made at registration and kept in the owner's memory: the proof of ownership.
/// The store keeps only its hash, and `Debug` does not show it.
///
/// ```
/// use incumbent::Nonce;
///
/// let nonce = Nonce::from_hex("000102030405060708090a0b0c0d0e0f")?;
/// assert_eq!(nonce.to_hex(), "000102030405060708090a0b0c0d0e0f");
/// assert_eq!(format!("{nonce:?}"), "Nonce(..)");
/// # Ok::<(), incumbent::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce([u8; 16]);

impl Nonce {
    pub(crate) fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::internal(format!("cannot draw random bits: {error}")))?;
        Ok(Self(bytes))
    }

    /// Reads the 32 hex digits of [`Nonce::to_hex`].
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for anything else. The message does not
    /// repeat the text: it is a secret.
    pub fn from_hex(text: &str) -> Result<Self> {
        let malformed = || Error::invalid("malformed token: expected 32 hex digits");
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| malformed())?;
        }
        Ok(Self(bytes))
    }

    /// 32 hex digits, for handing the proof to a child process. With them a process acts for the
    /// owner: never put them on a command line or into a log.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// What the store keeps: the SHA-256 of the nonce, in hex.
    pub(crate) fn hash(&self) -> String {
        use sha2::Digest;
        hex(&sha2::Sha256::digest(self.0))
    }
}

/// The proof must not end up in a log by way of `{:?}`.
impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_names_follow_the_grammar() {
        let longest = "a".repeat(64);
        for good in ["default", "_x", "0", "a.b-c_d", longest.as_str()] {
            assert!(ProfileName::new(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(65);
        for bad in ["", ".hidden", "-flag", "a b", "a/b", "ü", "a\0", "a\n", "..", &too_long] {
            let error = ProfileName::new(bad).unwrap_err();
            assert!(error.hint().is_some_and(|hint| hint.contains("64")), "{bad}");
        }
    }

    #[test]
    fn an_identity_is_known_by_its_hash() {
        // printf %s abc | sha256sum | cut -c1-16
        assert_eq!(IdentityHash::of("abc").unwrap().as_str(), "ba7816bf8f01cfea");
        for same in ["abc\n", " abc", "abc\r\n\t"] {
            assert_eq!(IdentityHash::of(same).unwrap(), IdentityHash::of("abc").unwrap());
        }
        for empty in ["", " ", "\r\n"] {
            let error = IdentityHash::of(empty).unwrap_err();
            assert!(error.to_string().contains("empty") && error.hint().is_some(), "{empty:?}");
        }
        let hash = IdentityHash::of("abc").unwrap();
        assert_eq!(IdentityHash::from_hex("BA7816BF8F01CFEA").unwrap(), hash);
        for bad in [
            "",
            "ba7816bf8f01cfe",
            "ba7816bf8f01cfeaa",
            "123456:secret-of",
            "g".repeat(16).as_str(),
        ] {
            let error = IdentityHash::from_hex(bad).unwrap_err().to_string();
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_nonce_survives_its_hex_and_hides_from_debug() {
        let nonce = Nonce::random().unwrap();
        assert_eq!(Nonce::from_hex(&nonce.to_hex()).unwrap(), nonce);
        assert!(!format!("{nonce:?}").contains(&nonce.to_hex()));
        assert_ne!(nonce.hash(), nonce.to_hex());
        for bad in ["", "zz", &"+f".repeat(16), &"g".repeat(32), &"é".repeat(16), &"0".repeat(33)]
        {
            assert!(Nonce::from_hex(bad).is_err(), "{bad}");
        }
    }
}
