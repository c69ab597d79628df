//! Who may come in, and what they may say and hear.
//!
//! Nothing here has a socket, a clock or a session: the door asks, and acts on the
//! answer. In the order in which a client meets it: [`Limiter`] (has this one guessed
//! too often?), [`PasswordFile`] (is it who it says?), then [`Rights`], which come from
//! the fabric's table ([`Kind`]) or from an [`AclFile`], and are asked at every publish,
//! subscribe and, where a subscription is only [`Grant::Checked`], at every delivery.
//!
//! Reading order: `filter` (what a filter matches), `judge` (a filter against many
//! rules), `rules` (rules of one client), `kinds` and `acl_file` (where they come from),
//! `stored_password`, `password_file`, `limiter`.
//!
//! Invariants: a rule that cannot be made out of a client's names allows nothing; deny
//! beats allow, wherever either stands; no answer depends on the order of rules; a
//! password is never in an error or a debug output.

mod acl_file;
mod filter;
mod judge;
mod kinds;
mod limiter;
mod password_file;
mod rules;
mod stored_password;

pub use self::acl_file::{AclError, AclFile, AclFileError, AclProblem};
pub use self::filter::{Filter, FilterError, is_topic};
pub use self::judge::Grant;
pub use self::kinds::{Kind, KindError};
pub(crate) use self::limiter::site;
pub use self::limiter::{Limiter, Penalties, TooManyFailures};
pub use self::password_file::{PasswordError, PasswordFile, PasswordFileError};
pub use self::rules::{Action, Effect, Identity, Rights, Rule};
pub use self::stored_password::{HashError, StoredPassword, StoredPasswordError, hash};
