//! Why something was not done: the one error that people and programs see.

use std::fmt;

use serde::Serialize;

/// A refusal, whole: a stable code for programs, what is wrong and what to do next for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Stable, kebab-case; clients branch on it.
    pub code: &'static str,
    /// What is wrong with what.
    pub message: String,
    /// What to do next.
    pub remedy: String,
    /// Every single reason, where there are several.
    pub reasons: Vec<Reason>,
}

/// One of several reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Stable, kebab-case.
    pub code: &'static str,
    /// What is wrong with what.
    pub message: String,
    /// What to do next.
    pub remedy: String,
}

impl Refusal {
    /// A refusal with a single reason.
    pub fn new(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into(), reasons: Vec::new() }
    }

    /// The controller's own fault; the cause is logged, not told.
    pub fn internal(what: &str, cause: &dyn std::error::Error) -> Self {
        tracing::error!(error = %Chain(cause), "{what} failed");
        Self::new(
            "internal",
            format!("the controller could not finish: {what}"),
            "look into the controller's log, then try again",
        )
    }

    /// The program is on its way out.
    pub fn shutting_down() -> Self {
        Self::new("shutting-down", "the controller is shutting down", "try again when it is back")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.remedy)
    }
}

impl std::error::Error for Refusal {}

/// An error with its causes, on one line.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
