//! Whose accounts the door believes: a controller's store, or files.

mod files;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::access::Rights;

pub use self::files::{AccountsError, Files};

/// Who has an account, and what it may do.
///
/// The door asks at every sign-in; when something changed it is told with
/// [`Control::accounts_changed`](crate::Control::accounts_changed), and judges every session anew.
pub trait Accounts: fmt::Debug + Send + Sync + 'static {
    /// Whether that is the user's password. May take its time, the same for a user that there is
    /// not: it is called on a thread for that.
    fn verify(&self, user: &str, password: &[u8]) -> bool;

    /// The user that a certificate stands for, which TLS has verified; `None` where it stands for
    /// nobody, or was revoked. `certificate` is in DER.
    fn of_certificate(&self, certificate: &[u8]) -> Option<String>;

    /// What a client may do that signed in as `user`, or as nobody; `None` where there is no such
    /// account, or no more. Quick.
    fn rights(&self, user: Option<&str>, client: &str) -> Option<Rights>;
}

/// Everybody is nobody, and may do everything: for a broker without accounts.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Accounts for Nobody {
    fn verify(&self, _user: &str, _password: &[u8]) -> bool {
        false
    }

    fn of_certificate(&self, _certificate: &[u8]) -> Option<String> {
        None
    }

    fn rights(&self, user: Option<&str>, _client: &str) -> Option<Rights> {
        user.is_none().then(Rights::everything)
    }
}

/// The rights of a living connection, which its reader judges by and the core replaces.
pub(crate) type SharedRights = Arc<ArcSwap<Rights>>;
