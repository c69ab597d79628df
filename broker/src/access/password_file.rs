//! The file of users and their hashed passwords: `user:hash` lines, as mosquitto's.
//!
//! Stricter than mosquitto, which skips what it cannot read: here a line that would let
//! nobody in stops the file from being used. Empty lines and lines that begin with `#`
//! say nothing.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

use super::stored_password::{StoredPassword, StoredPasswordError};

/// The users who may sign in.
#[derive(Debug)]
pub struct PasswordFile {
    /// Each user's place in `stored`.
    users: HashMap<String, usize>,
    /// Never empty.
    stored: Vec<StoredPassword>,
    /// Chooses the hash that an unknown user is measured by.
    secret: RandomState,
}

/// Why a password file on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    /// It cannot be read.
    #[error("cannot read the password file {}: is it there, text, and readable for the broker?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line cannot be used.
    #[error("the password file {} cannot be used", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        source: PasswordError,
    },
}

/// Why a line of a password file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// There is no `user:` in front.
    #[error(
        "line {line}: no `user:` before the hash: write the line with `godwit-broker password USER`"
    )]
    NoUser {
        /// Its number, from 1.
        line: usize,
    },
    /// What stands behind the user is not a hash that can be verified.
    #[error(
        "line {line}: the password of `{user}` {problem}: hash it with `godwit-broker password {user}` \
         (or, in a file without any hash, all of them with `mosquitto_passwd -U FILE`)"
    )]
    Password {
        /// Its number, from 1.
        line: usize,
        /// Whose it is.
        user: String,
        /// What is wrong with it.
        problem: StoredPasswordError,
    },
    /// A user has two passwords.
    #[error("line {line}: `{user}` already has a password further up: delete one of the lines")]
    Twice {
        /// The second line's number, from 1.
        line: usize,
        /// Whose they are.
        user: String,
    },
}

impl PasswordFile {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, PasswordFileError> {
        let text = fs::read_to_string(path)
            .map_err(|source| PasswordFileError::Read { path: path.into(), source })?;
        text.parse().map_err(|source| PasswordFileError::Content { path: path.into(), source })
    }

    /// True when there is such a user.
    pub fn contains(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// True when `user` is known and `password` is its. Takes its time: not for an async
    /// thread.
    ///
    /// An unknown user costs what a known one does. Where users' hashes are of several
    /// kinds, it costs what one of these does, the same at each try.
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        let known = self.users.get(user).copied();
        // Verified in either case: a quick answer would tell that there is no such user.
        let is_right = self.stored[known.unwrap_or_else(|| self.stand_in(user))].verify(password);
        is_right && known.is_some()
    }

    /// Whose place an unknown user takes.
    fn stand_in(&self, user: &str) -> usize {
        let chance = self.secret.hash_one(user) % self.stored.len() as u64;
        chance as usize
    }
}

impl FromStr for PasswordFile {
    type Err = PasswordError;

    fn from_str(text: &str) -> Result<Self, PasswordError> {
        let (mut users, mut stored) = (HashMap::new(), vec![]);
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let (user, password) = content
                .split_once(':')
                .filter(|(user, _)| !user.is_empty())
                .ok_or(PasswordError::NoUser { line })?;
            let wrong = |problem| PasswordError::Password { line, user: user.into(), problem };
            let password = password.parse().map_err(wrong)?;
            match users.entry(user.to_owned()) {
                Entry::Vacant(free) => free.insert(stored.len()),
                Entry::Occupied(_) => {
                    return Err(PasswordError::Twice { line, user: user.into() });
                }
            };
            stored.push(password);
        }
        if stored.is_empty() {
            stored.push(StoredPassword::decoy());
        }
        Ok(Self { users, stored, secret: RandomState::new() })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::time::{Duration, Instant};

    use super::super::stored_password::{hash, tests::VECTORS};
    use super::*;

    fn parse(text: &str) -> PasswordFile {
        text.parse().unwrap()
    }

    /// What `user` takes to be turned away, at best.
    fn cost(file: &PasswordFile, user: &str) -> Duration {
        let tries = (0..3).map(|_| {
            let start = Instant::now();
            assert!(!file.verify(user, b"wrong"));
            start.elapsed()
        });
        tries.min().unwrap()
    }

    #[test]
    fn each_user_has_one_password() {
        let lines: String = VECTORS
            .iter()
            .enumerate()
            .map(|(i, (_, stored))| format!("user {i}:{stored}\n"))
            .collect();
        let file = parse(&lines);
        for (i, (password, _)) in VECTORS.iter().enumerate() {
            assert!(file.verify(&format!("user {i}"), password.as_bytes()), "{i}");
            assert!(!file.verify(&format!("user {}", (i + 1) % 5), password.as_bytes()), "{i}");
        }
    }

    #[test]
    fn comments_and_empty_lines_and_line_ends_say_nothing() {
        let file = parse(&format!("# users\r\n\r\n  alice:{}\r\n", VECTORS[0].1));
        assert!(file.verify("alice", VECTORS[0].0.as_bytes()));
    }

    #[test]
    fn an_unknown_user_is_refused_even_with_the_password_it_is_measured_by() {
        let file = parse(&format!("alice:{}", VECTORS[0].1));
        assert!(!file.verify("bob", VECTORS[0].0.as_bytes()));
        assert!(!parse("").verify("bob", b""));
    }

    #[test]
    fn an_unknown_user_costs_what_a_known_one_does() {
        let file = parse(&format!("alice:{}", hash(b"right").unwrap()));
        let (known, unknown) = (cost(&file, "alice"), cost(&file, "bob"));
        let nobody = cost(&parse(""), "bob");
        // A quick answer would be a thousand times as quick; the machine may be busy.
        let is_alike = |other: Duration| other > known / 20 && known > other / 20;
        assert!(is_alike(unknown) && is_alike(nobody), "{known:?} {unknown:?} {nobody:?}");
    }

    #[test]
    fn an_unknown_user_has_the_same_stand_in_at_each_try() {
        let lines: String = (0..4).map(|i| format!("{i}:{}\n", VECTORS[i].1)).collect();
        let file = parse(&lines);
        let mut chosen: Vec<_> = (0..200)
            .map(|i| {
                let user = format!("unknown {i}");
                assert_eq!(file.stand_in(&user), file.stand_in(&user));
                file.stand_in(&user)
            })
            .collect();
        chosen.sort_unstable();
        chosen.dedup();
        assert_eq!(chosen, [0, 1, 2, 3]);
    }

    #[test]
    fn a_plain_text_line_is_refused_with_the_way_out_and_without_the_password() {
        let text = format!("alice:{}\nbob:hunter2", VECTORS[0].1);
        let error = text.parse::<PasswordFile>().unwrap_err();
        let problem = StoredPasswordError::PlainText;
        assert_eq!(error, PasswordError::Password { line: 2, user: "bob".into(), problem });
        let message = error.to_string();
        for part in ["line 2", "`bob` is plain text", "godwit-broker password bob", "-U FILE"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!format!("{message} {error:?}").contains("hunter2"), "{message}");
    }

    #[test]
    fn a_line_without_a_user_is_refused_by_its_number() {
        for text in ["\n\nhunter2", "\n\n:hunter2"] {
            let error = text.parse::<PasswordFile>().unwrap_err();
            assert_eq!(error, PasswordError::NoUser { line: 3 });
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_user_with_two_passwords_is_refused() {
        let text = format!("alice:{}\nalice:{}", VECTORS[0].1, VECTORS[1].1);
        let error = text.parse::<PasswordFile>().unwrap_err();
        assert_eq!(error, PasswordError::Twice { line: 2, user: "alice".into() });
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwords");
        let error = PasswordFile::read(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        fs::write(&path, "bob:hunter2").unwrap();
        let error = PasswordFile::read(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(error.source().unwrap().to_string().contains("line 1"), "{error:?}");
        fs::write(&path, format!("alice:{}", VECTORS[0].1)).unwrap();
        assert!(PasswordFile::read(&path).unwrap().verify("alice", VECTORS[0].0.as_bytes()));
    }
}
