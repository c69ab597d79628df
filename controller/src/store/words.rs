//! Closed sets of words: an enum in the code, the same text in the database and in JSON.

/// Why a text is none of the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: was the database written by a newer controller?")]
pub struct UnknownWord {
    what: &'static str,
    text: String,
}

impl UnknownWord {
    pub(super) fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.to_owned() }
    }
}

/// Declares such an enum, with `as_str`, `Display`, `FromStr` and `Serialize`.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub enum $name {
            $($(#[$case_doc])* #[serde(rename = $word)] $case,)*
        }
        impl $name {
            /// The word as it is stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$case => $word,)* }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl std::str::FromStr for $name {
            type Err = $crate::store::UnknownWord;
            fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$case),)*
                    _ => Err($crate::store::UnknownWord::new(stringify!($name), text)),
                }
            }
        }
    };
}
pub(super) use words;
