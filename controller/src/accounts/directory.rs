//! What the broker asks of accounts: everything in memory, replaced as one.

use std::collections::{HashMap, HashSet};

use arc_swap::ArcSwap;
use godwit_broker::access::{Kind, KindError, Rights, StoredPassword};
use godwit_broker::{Accounts, Anonymous};
use godwit_proto::join::{JOIN_ACCOUNT, NODE_ACCOUNT};
use godwit_trust::{NoRandomness, Particulars, Secret, SecretHash, Serial};

use crate::store::{AccountKind, AccountRow, CertificateRow, InvitationRow};

/// The controller's own account.
pub const CONTROLLER: &str = "controller";

/// All accounts, as they are now.
#[derive(Debug)]
pub struct Directory {
    anonymous: Anonymous,
    /// The controller signs in with it; nobody else has it, and it ends with the process.
    own: Secret,
    book: ArcSwap<Book>,
}

#[derive(Debug, Default)]
struct Book {
    accounts: HashMap<String, Account>,
    /// The tokens, used and ended ones too: those who come with one are told what is wrong.
    invited: HashSet<SecretHash>,
    revoked: HashSet<Serial>,
}

#[derive(Debug)]
struct Account {
    kind: AccountKind,
    password: Option<StoredPassword>,
    rights: Rights,
}

impl Directory {
    /// Nobody has an account yet but the controller.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new(anonymous: Anonymous) -> Result<Self, NoRandomness> {
        Ok(Self { anonymous, own: Secret::random()?, book: ArcSwap::default() })
    }

    /// True where accounts mean nothing.
    pub fn is_open_to_all(&self) -> bool {
        self.anonymous == Anonymous::Anyone
    }

    /// True for the name of an operator's account.
    pub fn is_operator(&self, user: &str) -> bool {
        let book = self.book.load();
        book.accounts.get(user).is_some_and(|account| account.kind == AccountKind::Operator)
    }

    /// The controller's password.
    pub fn own_password(&self) -> String {
        self.own.reveal()
    }

    /// Puts everything anew.
    pub fn replace(
        &self,
        accounts: &[AccountRow],
        invitations: &[InvitationRow],
        revoked: &[CertificateRow],
    ) {
        let account = |row: &AccountRow| {
            let rights = rights(row).inspect_err(|error| {
                tracing::error!(account = row.name, %error, "an account is left out");
            });
            let password = row.password.as_deref().and_then(|text| text.parse().ok());
            Some((row.name.clone(), Account { kind: row.kind, password, rights: rights.ok()? }))
        };
        self.book.store(std::sync::Arc::new(Book {
            accounts: accounts.iter().filter_map(account).collect(),
            invited: invitations.iter().map(|row| row.invitation.hash).collect(),
            revoked: revoked.iter().map(|row| row.serial).collect(),
        }));
    }
}

impl Accounts for Directory {
    fn verify(&self, user: &str, password: &[u8]) -> bool {
        let secret = || Secret::read(std::str::from_utf8(password).ok()?);
        match user {
            CONTROLLER => secret().is_some_and(|secret| self.own.hash().is_of(&secret)),
            JOIN_ACCOUNT => {
                secret().is_some_and(|secret| self.book.load().invited.contains(&secret.hash()))
            }
            _ => {
                let book = self.book.load();
                let stored = book.accounts.get(user).and_then(|account| account.password.as_ref());
                // Somebody else's is verified in its place: a quick answer would tell that there
                // is no such user.
                let stand_in =
                    || book.accounts.values().find_map(|account| account.password.as_ref());
                let is_right = stored.or_else(stand_in).is_some_and(|hash| hash.verify(password));
                is_right && stored.is_some()
            }
        }
    }

    fn of_certificate(&self, certificate: &[u8]) -> Option<String> {
        let particulars = Particulars::of_der(certificate).ok()?;
        let node = particulars.node?;
        let is_revoked = self.book.load().revoked.contains(&particulars.serial);
        (!is_revoked).then(|| format!("{NODE_ACCOUNT}{node}"))
    }

    fn rights(&self, user: Option<&str>, client: &str) -> Option<Rights> {
        match user {
            None => match self.anonymous {
                Anonymous::Never => None,
                // Whoever is on the controller's machine, short of what agents say.
                Anonymous::Loopback => Rights::of(&Kind::Operator).ok(),
                Anonymous::Anyone => Some(Rights::everything()),
            },
            Some(CONTROLLER) => Rights::of(&Kind::Controller).ok(),
            Some(JOIN_ACCOUNT) => Rights::of(&Kind::Joining(client.to_owned())).ok(),
            Some(user) => self.book.load().accounts.get(user).map(|account| account.rights.clone()),
        }
    }
}

/// What an account may do.
pub(super) fn rights(row: &AccountRow) -> Result<Rights, KindError> {
    let filters = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
    Rights::of(&match row.kind {
        AccountKind::Operator => Kind::Operator,
        AccountKind::Tenant => Kind::Tenant(row.name.clone()),
        AccountKind::Node => {
            Kind::Node(row.name.strip_prefix(NODE_ACCOUNT).unwrap_or_default().to_owned())
        }
        AccountKind::Derived => Kind::Derived {
            tenant: row.tenant.clone().unwrap_or_default(),
            publish: filters(&row.publish),
            subscribe: filters(&row.subscribe),
        },
        AccountKind::Monitor => Kind::Monitor,
    })
}
