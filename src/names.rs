//! Names that people choose, validated once, and ids that the store draws.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The longest name of a profile or kind, in bytes.
const NAME_LENGTH_MAX: usize = 64;

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,63}`: safe in a path, a shell word, a unit name and a log line.
fn validate(what: &str, name: &str) -> Result<()> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let valid = match name.as_bytes() {
        [] => false,
        [first, rest @ ..] => {
            is_word(*first)
                && rest.len() < NAME_LENGTH_MAX
                && rest.iter().all(|&byte| is_word(byte) || byte == b'.' || byte == b'-')
        }
    };
    if valid {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid {what} {name:?}")).with_hint(format!(
        "a {what} has 1 to {NAME_LENGTH_MAX} characters out of A-Z a-z 0-9 . _ - \
         and starts with a letter, a digit or _"
    )))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(String);

        impl $type {
            /// Validates `name`.
            ///
            /// # Errors
            /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a name outside
            /// `[A-Za-z0-9_][A-Za-z0-9._-]{0,63}`.
            pub fn new(name: impl Into<String>) -> Result<Self> {
                let name = name.into();
                validate($what, &name)?;
                Ok(Self(name))
            }

            /// The name itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
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
    /// The name of a gateway configuration: `default`, `work`.
    ProfileName, "profile"
}

name! {
    /// What sort of process holds an office of a profile: `gateway`, `scheduler`.
    Kind, "kind"
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

/// What at most one live instance holds: a kind of process of a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Office {
    /// The gateway configuration.
    pub profile: ProfileName,
    /// The sort of process.
    pub kind: Kind,
}

impl fmt::Display for Office {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.profile, self.kind)
    }
}

/// The id of one incarnation of a process, its *generation*: never reused, always rising, also in
/// a store restored from an older copy (`max(last + 1, Unix µs)`). It is the office's fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub(crate) i64);

impl InstanceId {
    /// The number as stored.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 128 random bits made at registration and kept in the owner's memory: the proof of ownership.
/// The store keeps only its hash.
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

    /// 32 hex digits, for handing the proof to a child process.
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
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
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
