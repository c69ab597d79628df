//! The file of access rules, line by line as mosquitto's.
//!
//! ```text
//! # Who does not sign in may read the weather.
//! topic read weather/#
//!
//! user alice
//! topic app/alice/#
//! topic deny app/alice/private
//!
//! pattern write device/%u/%c
//! ```
//!
//! `topic [read|write|readwrite|deny] <filter>` holds for the `user` above it, and before
//! any `user` for those who did not sign in; without a word it means `readwrite`.
//! `pattern` is the same for everybody, wherever it stands, with `%u` and `%c` for the
//! user name and the client id. What no line allows is refused.
//!
//! Unlike in mosquitto, deny beats allow between any two lines, and a subscription to
//! which no message could ever be delivered is refused at once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

use super::filter::{Filter, FilterError};
use super::rules::{Action, Effect, Identity, Rights, Rule};

/// The rules of all clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AclFile {
    anonymous: Vec<Rule>,
    users: HashMap<String, Vec<Rule>>,
    everybody: Vec<Rule>,
}

/// Why a file of rules on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AclFileError {
    /// It cannot be read.
    #[error("cannot read the ACL file {}: is it there, text, and readable for the broker?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line cannot be used.
    #[error("the ACL file {} cannot be used", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        source: AclError,
    },
}

/// Which line of a file of rules cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct AclError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: AclProblem,
}

/// What can be wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AclProblem {
    /// The line begins with another word.
    #[error("`{0}` begins no rule: use `topic`, `pattern` or `user`, or `#` for a comment")]
    Keyword(String),
    /// The word before the filter is no access.
    #[error("`{0}` is no access: use `read`, `write`, `readwrite` or `deny`")]
    Access(String),
    /// The line ends too early.
    #[error("nothing follows `{word}`: add {missing}")]
    Missing {
        /// The line's last word.
        word: String,
        /// What should stand behind it.
        missing: &'static str,
    },
    /// The filter is not one.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// `%u` or `%c` where nothing is put in its place.
    #[error("`{0}` is taken word for word by `topic`: write `pattern` to have %u and %c replaced")]
    Placeholder(String),
}

impl AclFile {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, AclFileError> {
        let text = fs::read_to_string(path)
            .map_err(|source| AclFileError::Read { path: path.into(), source })?;
        text.parse().map_err(|source| AclFileError::Content { path: path.into(), source })
    }

    /// What the file lets this client do: one who signed in as `user`, or nobody.
    pub fn rights(&self, user: Option<&str>, client: &str) -> Rights {
        let own = match user {
            None => Some(&self.anonymous),
            Some(user) => self.users.get(user),
        };
        let rules = own.into_iter().flatten().chain(&self.everybody);
        Rights::new(rules, Identity { user, client })
    }
}

impl FromStr for AclFile {
    type Err = AclError;

    fn from_str(text: &str) -> Result<Self, AclError> {
        let mut file = Self::default();
        let mut section = None;
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let at_line = |problem| AclError { line, problem };
            let (keyword, rest) = first_word(content);
            match keyword {
                "user" if rest.is_empty() => {
                    let missing = "the name of a user";
                    return Err(at_line(AclProblem::Missing { word: keyword.into(), missing }));
                }
                "user" => section = Some(rest),
                "topic" => {
                    let rules = match section {
                        None => &mut file.anonymous,
                        Some(user) => file.users.entry(user.to_owned()).or_default(),
                    };
                    rules.extend(rules_of_line(keyword, rest).map_err(at_line)?);
                }
                "pattern" => {
                    file.everybody.extend(rules_of_line(keyword, rest).map_err(at_line)?);
                }
                _ => return Err(at_line(AclProblem::Keyword(keyword.into()))),
            }
        }
        Ok(file)
    }
}

const READ: (Effect, Action) = (Effect::Allow, Action::Subscribe);
const WRITE: (Effect, Action) = (Effect::Allow, Action::Publish);
const DENY: [(Effect, Action); 2] =
    [(Effect::Deny, Action::Subscribe), (Effect::Deny, Action::Publish)];

/// What `[access] <filter>` behind `keyword` stands for.
fn rules_of_line(keyword: &str, rest: &str) -> Result<Vec<Rule>, AclProblem> {
    let (word, behind) = first_word(rest);
    let access: Option<&[_]> = match word {
        "read" => Some(&[READ]),
        "write" => Some(&[WRITE]),
        "readwrite" => Some(&[READ, WRITE]),
        "deny" => Some(&DENY),
        _ => None,
    };
    let (access, filter) = match (access, behind) {
        (None, "") if !word.is_empty() => (&[READ, WRITE][..], word),
        (_, "") => {
            let last = if word.is_empty() { keyword } else { word };
            return Err(AclProblem::Missing { word: last.into(), missing: "a filter" });
        }
        // To the end of the line: a topic may hold spaces.
        (Some(access), filter) => (access, filter),
        (None, _) => return Err(AclProblem::Access(word.into())),
    };
    if keyword == "topic" && (filter.contains("%u") || filter.contains("%c")) {
        return Err(AclProblem::Placeholder(filter.into()));
    }
    let pattern: Filter = filter.parse()?;
    let rules = access.iter().map(|(effect, action)| Rule {
        effect: *effect,
        action: *action,
        pattern: pattern.clone(),
    });
    Ok(rules.collect())
}

/// The first word of `text`, and what stands behind the space after it.
fn first_word(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace)
        .map_or((text, ""), |(word, behind)| (word, behind.trim_start()))
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::super::judge::Grant;
    use super::*;

    /// What `user`, with the client id `c1`, may do with `topic`: `rw`, `r`, `w` or nothing.
    fn access(file: &AclFile, user: Option<&str>, topic: &str) -> String {
        let rights = file.rights(user, "c1");
        let (read, write) = (rights.may_read(topic), rights.may_publish(topic));
        format!("{}{}", if read { "r" } else { "" }, if write { "w" } else { "" })
    }

    fn parse(text: &str) -> AclFile {
        text.parse().unwrap()
    }

    fn problem(line: &str) -> (AclProblem, String) {
        let error = format!("# first\n\n{line}\n").parse::<AclFile>().unwrap_err();
        assert_eq!(error.line, 3, "{error}");
        let message = error.to_string();
        assert!(message.starts_with("line 3: "), "{message}");
        (error.problem, message)
    }

    #[test]
    fn each_access_opens_what_it_says() {
        let file = parse(
            "topic plain\ntopic read r\ntopic write w\ntopic readwrite rw\n\
             topic read d/#\ntopic write d/#\ntopic deny d/x",
        );
        for (topic, expected) in
            [("plain", "rw"), ("r", "r"), ("w", "w"), ("rw", "rw"), ("d/y", "rw"), ("d/x", "")]
        {
            assert_eq!(access(&file, None, topic), expected, "{topic}");
        }
        assert_eq!(access(&file, None, "other"), "");
    }

    #[test]
    fn a_section_holds_for_its_user_and_the_first_one_for_nobody() {
        let file = parse("topic a\nuser alice\ntopic b\nuser bob x\ntopic c\nuser alice\ntopic d");
        for (user, open) in [
            (None, &["a"][..]),
            (Some("alice"), &["b", "d"]),
            (Some("bob x"), &["c"]),
            (Some("carol"), &[]),
            (Some(""), &[]),
        ] {
            for topic in ["a", "b", "c", "d"] {
                let expected = if open.contains(&topic) { "rw" } else { "" };
                assert_eq!(access(&file, user, topic), expected, "{user:?} {topic}");
            }
        }
    }

    #[test]
    fn a_pattern_holds_for_everybody_wherever_it_stands() {
        let file = parse("user alice\npattern read app/%u/#\npattern write id/%c\ntopic z");
        assert_eq!(access(&file, Some("bob"), "app/bob/x"), "r");
        assert_eq!(access(&file, Some("bob"), "app/alice/x"), "");
        assert_eq!(access(&file, Some("bob"), "id/c1"), "w");
        assert_eq!(access(&file, None, "id/c1"), "w");
        assert_eq!(access(&file, None, "app//x"), "");
        assert_eq!(access(&file, Some("+"), "app/bob/x"), "");
        assert_eq!(file.rights(Some("bob"), "c1").may_subscribe("app/+/x"), Grant::Checked);
    }

    #[test]
    fn a_pattern_denies_what_a_section_allows() {
        let file = parse("user alice\ntopic #\npattern deny +/%u/secret");
        assert_eq!(access(&file, Some("alice"), "a/alice/secret"), "");
        assert_eq!(access(&file, Some("alice"), "a/bob/secret"), "rw");
    }

    #[test]
    fn space_and_comments_and_line_ends_are_as_people_write_them() {
        let file = parse("\r\n  # topic x\r\n\ttopic  read \t a b/# \r\n#topic y\r\n");
        assert_eq!(access(&file, None, "a b/c"), "r");
        assert_eq!(access(&file, None, "x"), "");
        assert_eq!(access(&file, None, "y"), "");
    }

    #[test]
    fn a_word_that_is_no_access_is_not_taken_for_a_topic() {
        let (problem, message) = problem("topic reed a/b");
        assert_eq!(problem, AclProblem::Access("reed".into()));
        assert!(message.contains("`reed`") && message.contains("readwrite"), "{message}");
    }

    #[test]
    fn an_unknown_keyword_is_named() {
        let (problem, message) = problem("topics read a");
        assert_eq!(problem, AclProblem::Keyword("topics".into()));
        assert!(message.contains("`topics`"), "{message}");
    }

    #[test]
    fn a_line_that_ends_too_early_is_named_by_its_last_word() {
        for (line, last) in [
            ("topic", "topic"),
            ("pattern", "pattern"),
            ("user", "user"),
            ("topic read", "read"),
            ("pattern deny", "deny"),
        ] {
            let (problem, message) = problem(line);
            assert!(matches!(problem, AclProblem::Missing { .. }), "{line}: {message}");
            assert!(message.contains(&format!("`{last}`")), "{line}: {message}");
        }
    }

    #[test]
    fn a_filter_that_is_none_is_named() {
        let (problem, message) = problem("topic read a/#/b");
        assert_eq!(problem, AclProblem::Filter(FilterError::Hash("a/#/b".into())));
        assert!(message.contains("`a/#/b`"), "{message}");
    }

    #[test]
    fn a_placeholder_that_would_stay_is_refused() {
        for filter in ["a/%u/#", "a/%c"] {
            let (problem, _) = problem(&format!("topic read {filter}"));
            assert_eq!(problem, AclProblem::Placeholder(filter.into()));
        }
        assert_eq!(access(&parse("topic 100%/x"), None, "100%/x"), "rw");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acl");
        let error = AclFile::read(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        fs::write(&path, "topic a\nuser").unwrap();
        let error = AclFile::read(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(error.source().unwrap().to_string().contains("line 2"), "{error:?}");
        fs::write(&path, "topic a").unwrap();
        assert_eq!(access(&AclFile::read(&path).unwrap(), None, "a"), "rw");
    }
}
