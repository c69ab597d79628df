//! The join token: one line that a person carries from the controller to a new node.
//!
//! `gwt1.` and then, in base64url without padding, the payload (postcard) and a checksum
//! of four bytes: the start of the SHA-256 over everything before it, the version included.
//! **Every later version keeps this frame** and changes the payload only, so that any
//! version can tell a token that is newer than itself from one that was mistyped.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::fingerprint::Fingerprint;
use super::secret::Secret;

/// What every token starts with, before its version.
const MARK: &str = "gwt";
/// The version that this program writes and reads.
const VERSION: u32 = 1;

/// What a node needs to find its fabric, to know it for the right one, and to be let in.
///
/// [`Display`](fmt::Display) writes the token with its secret, for the one who asked for
/// it; `Debug` hides the secret and is what may be logged.
#[derive(Debug, Clone)]
pub struct Token {
    fabric: Uuid,
    authority: Fingerprint,
    brokers: Vec<String>,
    secret: Secret,
}

/// Why a text cannot be used as a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is something else.
    #[error("this is not a join token: one starts with `gwt1.`; make one with `godwit node token`")]
    NotAToken,
    /// Its checksum does not fit.
    #[error("the token is cut off or mistyped: copy the whole line again")]
    CutOrMistyped,
    /// It was made by a newer fabric.
    #[error(
        "the token is of version {version}, this program knows versions up to 1: update godwit \
         on this node"
    )]
    Newer {
        /// Its version.
        version: u32,
    },
}

/// What version 1 carries.
#[derive(Serialize, Deserialize)]
struct Payload {
    fabric: Uuid,
    authority: [u8; 32],
    brokers: Vec<String>,
    secret: [u8; 32],
}

impl Token {
    /// A token for this fabric. `brokers` are addresses as clients write them
    /// (`edge-a.local:8883`), the best first; without any, the node looks by mDNS.
    pub fn new(fabric: Uuid, authority: Fingerprint, brokers: Vec<String>, secret: Secret) -> Self {
        Self { fabric, authority, brokers, secret }
    }

    /// The fabric's id.
    pub fn fabric(&self) -> Uuid {
        self.fabric
    }

    /// The fingerprint of the only authority to trust at the first contact.
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// Where to go, the best first; possibly nowhere.
    pub fn brokers(&self) -> &[String] {
        &self.brokers
    }

    /// What to show there, once the authority has proved to be the right one.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = Payload {
            fabric: self.fabric,
            authority: *self.authority.as_bytes(),
            brokers: self.brokers.clone(),
            secret: *self.secret.as_bytes(),
        };
        let bytes = postcard::to_stdvec(&payload).map_err(|_| fmt::Error)?;
        f.write_str(&seal(VERSION, bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (version, bytes) = open(text.trim())?;
        match version {
            0 => Err(TokenError::NotAToken),
            VERSION => {
                let (payload, rest) = postcard::take_from_bytes::<Payload>(&bytes)
                    .map_err(|_| TokenError::NotAToken)?;
                if !rest.is_empty() {
                    return Err(TokenError::NotAToken);
                }
                Ok(Self {
                    fabric: payload.fabric,
                    authority: payload.authority.into(),
                    brokers: payload.brokers,
                    secret: payload.secret.into(),
                })
            }
            version => Err(TokenError::Newer { version }),
        }
    }
}

/// Puts a payload into the frame that all versions share.
fn seal(version: u32, mut payload: Vec<u8>) -> String {
    let head = format!("{MARK}{version}");
    let checksum = checksum(&head, &payload);
    payload.extend(checksum);
    format!("{head}.{}", URL_SAFE_NO_PAD.encode(payload))
}

/// Takes the version and the payload out of the frame, having checked that both are whole.
fn open(text: &str) -> Result<(u32, Vec<u8>), TokenError> {
    if !text.starts_with(MARK) {
        return Err(TokenError::NotAToken);
    }
    let damaged = TokenError::CutOrMistyped;
    let (head, body) = text.split_once('.').ok_or(damaged.clone())?;
    let mut payload = URL_SAFE_NO_PAD.decode(body).map_err(|_| damaged.clone())?;
    let start = payload.len().checked_sub(4).ok_or(damaged.clone())?;
    let found = payload.split_off(start);
    // Before the version is believed: `gwt2` may be a mistyped `gwt1`, and "update" would
    // send its reader the wrong way.
    if found != checksum(head, &payload) {
        return Err(damaged);
    }
    let version = head.strip_prefix(MARK).and_then(|digits| digits.parse().ok());
    Ok((version.ok_or(TokenError::NotAToken)?, payload))
}

fn checksum(head: &str, payload: &[u8]) -> [u8; 4] {
    let whole = Sha256::new().chain_update(head).chain_update(".").chain_update(payload).finalize();
    [whole[0], whole[1], whole[2], whole[3]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Token {
        let brokers = vec!["edge-a.local:8883".to_owned()];
        Token::new(Uuid::from_u128(7), [1; 32].into(), brokers, [2; 32].into())
    }

    fn reason(text: &str) -> TokenError {
        text.parse::<Token>().expect_err(text)
    }

    /// What a person who changed the text at `index` must be told.
    fn damage_at(index: usize) -> TokenError {
        if index < MARK.len() { TokenError::NotAToken } else { TokenError::CutOrMistyped }
    }

    fn tokens() -> impl Strategy<Value = Token> {
        (
            any::<u128>(),
            any::<[u8; 32]>(),
            prop::collection::vec(".{0,40}", 0..4),
            any::<[u8; 32]>(),
        )
            .prop_map(|(fabric, authority, brokers, secret)| {
                Token::new(Uuid::from_u128(fabric), authority.into(), brokers, secret.into())
            })
    }

    proptest! {
        #[test]
        fn a_token_survives_being_written_down(token in tokens()) {
            let text = token.to_string();
            let read: Token = format!(" {text}\n").parse().unwrap();
            prop_assert_eq!(read.fabric(), token.fabric());
            prop_assert_eq!(read.authority(), token.authority());
            prop_assert_eq!(read.brokers(), token.brokers());
            prop_assert_eq!(read.secret().as_bytes(), token.secret().as_bytes());
            prop_assert_eq!(read.to_string(), text);
        }

        #[test]
        fn any_changed_character_is_told_as_such(
            token in tokens(),
            at in any::<prop::sample::Index>(),
            change in any::<char>(),
        ) {
            let mut letters: Vec<char> = token.to_string().chars().collect();
            let at = at.index(letters.len());
            prop_assume!(letters[at] != change);
            letters[at] = change;
            prop_assert_eq!(reason(&letters.iter().collect::<String>()), damage_at(at));
        }

        #[test]
        fn two_swapped_or_one_missing_or_one_doubled_character_is_told_as_such(
            token in tokens(),
            at in any::<prop::sample::Index>(),
        ) {
            let letters: Vec<char> = token.to_string().chars().collect();
            let at = MARK.len() + at.index(letters.len() - MARK.len() - 1);
            let mut swapped = letters.clone();
            swapped.swap(at, at + 1);
            let mut missing = letters.clone();
            missing.remove(at);
            let mut doubled = letters.clone();
            doubled.insert(at, letters[at]);
            for changed in [swapped, missing, doubled] {
                if changed != letters {
                    let text: String = changed.into_iter().collect();
                    prop_assert_eq!(reason(&text), TokenError::CutOrMistyped);
                }
            }
        }

        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            prop_assert!(text.parse::<Token>().is_err());
        }
    }

    #[test]
    fn every_character_replaced_by_every_other_that_a_token_can_hold_is_told_as_such() {
        let text = sample().to_string();
        for at in 0..text.len() {
            for letter in (b' '..=b'~').filter(|letter| *letter != text.as_bytes()[at]) {
                let mut changed = text.clone().into_bytes();
                changed[at] = letter;
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(reason(&changed), damage_at(at), "{changed}");
            }
        }
    }

    #[test]
    fn a_token_cut_anywhere_is_told_as_such() {
        let text = sample().to_string();
        for length in 0..text.len() {
            assert_eq!(reason(&text[..length]), damage_at(length), "{}", &text[..length]);
        }
        assert_eq!(reason(&text.repeat(2)), TokenError::CutOrMistyped);
    }

    #[test]
    fn a_newer_token_is_told_from_a_mistyped_version() {
        let newer = seal(2, b"whatever comes".to_vec());
        assert_eq!(reason(&newer), TokenError::Newer { version: 2 });
        let mistyped = sample().to_string().replacen("gwt1", "gwt2", 1);
        assert_eq!(reason(&mistyped), TokenError::CutOrMistyped);
    }

    #[test]
    fn a_whole_frame_around_something_else_is_not_a_token() {
        assert_eq!(reason(&seal(0, Vec::new())), TokenError::NotAToken);
        assert_eq!(reason(&seal(1, Vec::new())), TokenError::NotAToken);
        let payload = open(&sample().to_string()).unwrap().1;
        assert_eq!(reason(&seal(1, [payload, vec![0]].concat())), TokenError::NotAToken);
    }

    #[test]
    fn debug_hides_the_secret_and_display_is_the_token() {
        let token = sample();
        let debug = format!("{token:?}");
        assert!(debug.contains("Secret(hidden)"), "{debug}");
        assert!(!debug.contains("[2, 2") && !debug.contains("0202"), "{debug}");
        assert!(token.to_string().starts_with("gwt1."));
    }
}
