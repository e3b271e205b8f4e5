//! Enums that are written as words: one table says the variant, its word and what it means.

/// Defines such an enum, with its word for people, for columns and for documents. Nothing else may
/// be stored or shown for it.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $visible:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $visible enum $name {
            $($(#[$doc])* $variant,)*
        }

        #[allow(dead_code, reason = "not every word is read, and not every list is shown")]
        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word for it, as stored and as shown.
            #[must_use]
            $visible fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// The inverse of `as_str`; `None` for any other word.
            pub(crate) fn parse(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;
