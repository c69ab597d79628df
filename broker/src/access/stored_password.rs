//! One password as it is stored: hashed, never in the clear.
//!
//! Three kinds of hash are verified: argon2id, the only one made here, and mosquitto's
//! two, so that its password files work as they are.

use std::fmt;
use std::str::FromStr;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use base64ct::{Base64, Encoding};
use pbkdf2::pbkdf2_hmac;
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

/// An argon2id hash may ask for this much memory. Much more would end the broker, not
/// only the sign-in.
const MOST_MEMORY_KIB: u32 = 1 << 20;

/// A hashed password, read and found to be usable. Its debug output tells the kind only.
#[derive(Clone)]
pub struct StoredPassword {
    method: Method,
    salt: Vec<u8>,
    expected: Vec<u8>,
}

#[derive(Clone)]
enum Method {
    /// A PHC string: `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
    Argon2id(Box<Argon2<'static>>),
    /// `$7$iterations$salt$hash`: PBKDF2 with HMAC-SHA512.
    Pbkdf2 { iterations: u32 },
    /// `$6$salt$hash`: SHA-512 of the password with the salt behind it.
    Sha512,
}

/// Why a text is not a stored password. Says nothing of the text: it may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoredPasswordError {
    /// It is not hashed.
    #[error("is plain text")]
    PlainText,
    /// It is hashed in another way, or is a plain text that looks like it.
    #[error("is neither argon2id nor one of mosquitto's $7$ and $6$")]
    UnknownKind,
    /// A part is missing, or cannot be what it should be.
    #[error("is a damaged {0} hash")]
    Damaged(&'static str),
    /// Verifying it would take more memory than a broker should give.
    #[error("is an argon2id hash that takes {0} KiB of memory, of at most {MOST_MEMORY_KIB}")]
    Greedy(u32),
}

/// Why a password cannot be hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot hash the password: try a shorter one, or look why the system has no random bytes")]
pub struct HashError(#[from] argon2::password_hash::Error);

/// Hashes `password` with argon2id and a new salt; the PHC string parses as a
/// [`StoredPassword`]. Takes some 20 ms and 19 MiB: not for an async thread.
pub fn hash(password: &[u8]) -> Result<String, HashError> {
    Ok(Argon2::default().hash_password(password)?.to_string())
}

impl StoredPassword {
    /// A hash that costs as much as a new one, for a file without any.
    pub(super) fn decoy() -> Self {
        Self {
            method: Method::Argon2id(Box::default()),
            salt: vec![0; argon2::RECOMMENDED_SALT_LEN],
            expected: vec![0; Params::DEFAULT_OUTPUT_LEN],
        }
    }

    /// True when `password` is the one that was hashed. Takes as long for a wrong one.
    /// An argon2id hash takes its time and memory: not for an async thread.
    pub fn verify(&self, password: &[u8]) -> bool {
        let mut found = vec![0; self.expected.len()];
        match &self.method {
            Method::Argon2id(argon2) => {
                if argon2.hash_password_into(password, &self.salt, &mut found).is_err() {
                    return false;
                }
            }
            Method::Pbkdf2 { iterations } => {
                pbkdf2_hmac::<Sha512>(password, &self.salt, *iterations, &mut found);
            }
            Method::Sha512 => {
                let digest = Sha512::new().chain_update(password).chain_update(&self.salt);
                found.copy_from_slice(&digest.finalize());
            }
        }
        found.ct_eq(&self.expected).into()
    }

    fn argon2id(text: &str) -> Result<Self, StoredPasswordError> {
        let damaged = StoredPasswordError::Damaged("argon2id");
        let phc = PasswordHash::new(text).map_err(|_| damaged)?;
        let params = Params::try_from(&phc).map_err(|_| damaged)?;
        if params.m_cost() > MOST_MEMORY_KIB {
            return Err(StoredPasswordError::Greedy(params.m_cost()));
        }
        let version = phc.version.map_or(Ok(Version::V0x10), Version::try_from);
        let argon2 = Argon2::new(Algorithm::Argon2id, version.map_err(|_| damaged)?, params);
        let (Some(salt), Some(expected)) = (phc.salt, phc.hash) else {
            return Err(damaged);
        };
        Ok(Self {
            method: Method::Argon2id(Box::new(argon2)),
            salt: salt.to_vec(),
            expected: expected.as_bytes().to_vec(),
        })
    }

    /// Mosquitto's: both parts in base64, and the hash as long as SHA-512 makes it.
    fn mosquitto(method: Method, salt: &str, hash: &str) -> Option<Self> {
        let salt = Base64::decode_vec(salt).ok()?;
        let expected = Base64::decode_vec(hash).ok()?;
        let is_whole = !salt.is_empty() && expected.len() == Sha512::output_size();
        is_whole.then_some(Self { method, salt, expected })
    }
}

impl FromStr for StoredPassword {
    type Err = StoredPasswordError;

    fn from_str(text: &str) -> Result<Self, StoredPasswordError> {
        let parts: Vec<_> = text.split('$').collect();
        match parts[..] {
            ["", "argon2id", ..] => Self::argon2id(text),
            ["", "7", iterations, salt, hash] => iterations
                .parse()
                .ok()
                .filter(|iterations| *iterations > 0)
                .and_then(|iterations| Self::mosquitto(Method::Pbkdf2 { iterations }, salt, hash))
                .ok_or(StoredPasswordError::Damaged("$7$")),
            ["", "7", ..] => Err(StoredPasswordError::Damaged("$7$")),
            ["", "6", salt, hash] => Self::mosquitto(Method::Sha512, salt, hash)
                .ok_or(StoredPasswordError::Damaged("$6$")),
            ["", "6", ..] => Err(StoredPasswordError::Damaged("$6$")),
            ["", _, ..] => Err(StoredPasswordError::UnknownKind),
            _ => Err(StoredPasswordError::PlainText),
        }
    }
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.method {
            Method::Argon2id(_) => "argon2id",
            Method::Pbkdf2 { .. } => "$7$",
            Method::Sha512 => "$6$",
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What `mosquitto_passwd` 2.0.11 and the reference `argon2` program made of these
    /// passwords.
    pub(in crate::access) const VECTORS: [(&str, &str); 7] = [
        (
            "correct horse",
            "$7$101$k1ibBLPRq/l9HJ0U$R5zgWgOIByT5pl865h07qeZeYWnNvXgXBqQiKZ97uOja4/PcvmCWeskprfdcmw6/9Bla75oLiEP58tZmFyNgEA==",
        ),
        (
            "pässwörd",
            "$7$101$fOHT6xJacLDNM6zr$A4iN/KfdyQ4SA6vduP/5nMDdXwD4q3cfhSHboqXerqhC/mVWhn2Ii2pUo12mrkCSKeX74aVg0ovkNl+utkbLLA==",
        ),
        (
            "",
            "$7$101$53YfHwBj54OFubSG$XJPk+MQgdy9H4aurij5thhGy+y+/ATO05a42wYpECHqqc6+9e8f8H1/L0zR5t7Fgv6T0b8bHSY9wQMoJUmiM7Q==",
        ),
        (
            "battery staple",
            "$6$3LyI5yoW4IL1b9KS$3r0gX82YDSVfnW5cVLWqosQjcpMFJi8sZnwavZOr877t4yhXBicVNiAO+Yk0o9Zsz89Loj2eEi4teaZ5RkFuUg==",
        ),
        (
            "x",
            "$6$VrZzbqTA4jWucNlO$CfNVChwTtp/HhaF2w2FL87z9XFsx+7Tn4CfD3y9f2R7SZjWehXtaLzhF5IwN/WOYiNYxcg9PHvgqEae7HY+o5g==",
        ),
        (
            "hunter2",
            "$argon2id$v=19$m=8192,t=2,p=1$c2FsdHNhbHRzYWx0MTIzNA$aRtX2MenlAV3ZE2tFmNjO0C8BTGQl2I88tepSMzRAuY",
        ),
        (
            "hunter2",
            "$argon2id$v=19$m=1024,t=1,p=2$c2FsdHNhbHRzYWx0MTIzNA$KasdjKj+9aYNdX4fC6ewgRofU+RSzhkYYSbkbOMW4Yaac/hz1w5OfIM/nfmpIE9sl3bG3IdV5mJU9j/e+/grzg",
        ),
    ];

    #[test]
    fn what_other_programs_hashed_is_verified() {
        for (password, stored) in VECTORS {
            let stored: StoredPassword = stored.parse().unwrap();
            assert!(stored.verify(password.as_bytes()), "{password}");
            for wrong in [format!("{password} "), format!("{password}{password}x"), "other".into()]
            {
                assert!(!stored.verify(wrong.as_bytes()), "{wrong}");
            }
        }
    }

    #[test]
    fn a_hash_that_differs_in_its_last_bits_is_another() {
        let (password, stored) = VECTORS[0];
        let other: StoredPassword = stored.replace("NgEA==", "NgEQ==").parse().unwrap();
        assert!(!other.verify(password.as_bytes()));
    }

    #[test]
    fn a_new_hash_is_argon2id_with_a_salt_of_its_own() {
        let (first, second) = (hash(b"hunter2").unwrap(), hash(b"hunter2").unwrap());
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert_ne!(first, second);
        let stored: StoredPassword = first.parse().unwrap();
        assert!(stored.verify(b"hunter2"));
        assert!(!stored.verify(b"hunter3"));
    }

    #[test]
    fn an_unusable_text_is_refused_for_what_it_is() {
        use StoredPasswordError::{Damaged, Greedy, PlainText, UnknownKind};
        let sha512 = VECTORS[3].1;
        for (text, expected) in [
            ("", PlainText),
            ("hunter2", PlainText),
            ("hunter$7$2", PlainText),
            ("$ecret", UnknownKind),
            ("$2b$12$abcdefghijklmnopqrstuv", UnknownKind),
            (
                "$argon2i$v=19$m=1024,t=2,p=1$c2FsdHNhbHRzYWx0MTIzNA$VLQ3muj5qXtH/CprcJ9kFACGgfUDaEikKcNq8suw7aQ",
                UnknownKind,
            ),
            ("$argon2id$v=19$m=8192,t=2,p=1$c2FsdHNhbHRzYWx0MTIzNA", Damaged("argon2id")),
            ("$argon2id$v=19$m=1,t=2,p=1$c2FsdHNhbHRzYWx0MTIzNA$aRtX2MenlAU", Damaged("argon2id")),
            (
                "$argon2id$v=19$m=4294967295,t=2,p=1$c2FsdHNhbHRzYWx0MTIzNA$aRtX2MenlAV3ZE2tFmNjOw",
                Greedy(u32::MAX),
            ),
            ("$7$101$c2FsdA==", Damaged("$7$")),
            (&VECTORS[0].1.replace("$101$", "$0$"), Damaged("$7$")),
            (&VECTORS[0].1.replace("$101$", "$-1$"), Damaged("$7$")),
            (&VECTORS[0].1.replace("EA==", ""), Damaged("$7$")),
            ("$6$c2FsdA==$", Damaged("$6$")),
            (&sha512.replace("3LyI5yoW4IL1b9KS", ""), Damaged("$6$")),
            (&format!("{sha512}$"), Damaged("$6$")),
        ] {
            assert_eq!(text.parse::<StoredPassword>().err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_decoy_fits_no_password_and_costs_as_much_as_a_new_hash() {
        let decoy = StoredPassword::decoy();
        let fresh: StoredPassword = hash(b"a").unwrap().parse().unwrap();
        let (Method::Argon2id(decoys), Method::Argon2id(freshs)) = (&decoy.method, &fresh.method)
        else {
            panic!("not argon2id");
        };
        let cost = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        assert_eq!(cost(decoys.params()), cost(freshs.params()));
        assert_eq!(decoy.expected.len(), fresh.expected.len());
        assert!(!decoy.verify(b""));
    }

    #[test]
    fn debug_output_holds_no_hash() {
        let stored: StoredPassword = VECTORS[0].1.parse().unwrap();
        assert_eq!(format!("{stored:?}"), "$7$");
    }
}
