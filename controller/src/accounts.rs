//! Who may come to the fabric's broker: people, tenants, sensors and nodes.
//!
//! Accounts, tokens and certificates stand in the database; [`Directory`] is what the broker asks,
//! read anew after every change; [`Papers`] is the fabric's own authority with the broker's
//! certificate; `join` is how a node comes to belong.

mod directory;
mod join;
mod papers;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use godwit_broker::access::{Filter, Limiter, Penalties, hash};
use godwit_broker::{Accounts as _, Control};
use godwit_proto::id::NodeId;
use godwit_trust::{Invitation, Secret, Token};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use directory::{CONTROLLER, Directory};
pub use papers::{Papers, PapersError, own_names};

use crate::refusal::Refusal;
use crate::store::{AccountKind, AccountRow, InvitationRow, Store, StoreError, StoreHandle};

/// How long a token lets in unless it is said.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// The longest that a token may let in.
const LONGEST_TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(24 * 30);
/// So long after its end a token is remembered, to say what became of it.
const MEMORY: SignedDuration = SignedDuration::from_hours(24 * 7);
/// The shortest password.
const SHORTEST_PASSWORD: usize = 8;

/// The accounts of one fabric; cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    store: StoreHandle,
    directory: Arc<Directory>,
    papers: Arc<Papers>,
    fabric: Uuid,
    /// Where nodes find the broker, for tokens.
    brokers: Vec<String>,
    limiter: Arc<Mutex<Limiter>>,
    /// Set once the broker is there.
    control: Arc<OnceLock<Control>>,
}

/// An account as it is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// Its name; a derived account's begins with its tenant's and a `/`.
    pub name: String,
    /// What it is for: operator, tenant, derived or monitor.
    pub kind: String,
    /// Of a derived account: where it may publish and what it may subscribe to.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Of a derived account: what it may only subscribe to.
    #[serde(default)]
    pub read: Vec<String>,
    /// Its password; one is made up where none is given.
    pub password: Option<String>,
}

/// An account as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct AccountView {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: AccountKind,
    /// Where a derived account may publish.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// What a derived account may subscribe to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// A password that was made up: it is shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// A token as it is shown, once.
#[derive(Debug, Clone, Serialize)]
pub struct TokenView {
    /// What to give to `godwit-agent join`.
    pub token: String,
    /// The node that it is for; any, where it names none.
    pub node: Option<String>,
    /// From when on it lets nobody in.
    pub expires: Timestamp,
}

impl Accounts {
    /// Reads them from the database. `brokers` is where nodes find the broker.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn open(
        store: StoreHandle,
        papers: Arc<Papers>,
        fabric: Uuid,
        directory: Directory,
        brokers: Vec<String>,
    ) -> Result<Self, StoreError> {
        let directory = Arc::new(directory);
        let control = Arc::new(OnceLock::new());
        let limiter = Arc::new(Mutex::new(Limiter::new(Penalties::default())));
        let accounts = Self { store, directory, papers, fabric, brokers, limiter, control };
        accounts.reread().await?;
        Ok(accounts)
    }

    /// What the broker asks.
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.clone()
    }

    /// Where living connections are told of changes; the first call counts.
    pub fn tell(&self, control: Control) {
        let _ = self.control.set(control);
    }

    /// The certificate of the fabric's authority, in PEM, for clients that verify the broker.
    pub fn authority(&self) -> String {
        self.papers.authority().cert_pem()
    }

    /// Whether that is an operator, who asks from `address`.
    ///
    /// # Errors
    /// `wrong-password` and `too-many-failures`.
    pub async fn sign_in_operator(
        &self,
        address: IpAddr,
        user: String,
        password: String,
    ) -> Result<(), Refusal> {
        let lock = || self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        lock().check(address, &user, Instant::now()).map_err(|error| {
            Refusal::new("too-many-failures", error.to_string(), "wait, then try again")
        })?;
        let (directory, name) = (self.directory.clone(), user.clone());
        let verify = move || directory.verify(&name, password.as_bytes());
        let is_right = tokio::task::spawn_blocking(verify).await.unwrap_or(false);
        if is_right && self.directory.is_operator(&user) {
            lock().succeeded(address, &user);
            return Ok(());
        }
        lock().failed(address, &user, Instant::now());
        Err(Refusal::new(
            "wrong-password",
            "user name or password is wrong, or the account is no operator's",
            "list the accounts with `godwit account ls` on the controller's machine",
        ))
    }

    /// Every account, by name.
    ///
    /// # Errors
    /// `internal`.
    pub async fn list(&self) -> Result<Vec<AccountView>, Refusal> {
        let rows = self.store("listing accounts", Store::accounts).await?;
        Ok(rows.into_iter().map(|row| view(row, None)).collect())
    }

    /// Adds an account.
    ///
    /// # Errors
    /// `wrong-account`, `account-exists` and `internal`.
    pub async fn add(&self, new: NewAccount) -> Result<AccountView, Refusal> {
        let (password, shown) = chosen(new.password)?;
        let mut row = AccountRow {
            name: new.name,
            kind: new.kind.parse().map_err(wrong)?,
            tenant: None,
            publish: new.topics.clone(),
            subscribe: [new.topics, new.read].concat(),
            password: None,
            created: Timestamp::now(),
        };
        match row.kind {
            AccountKind::Node => {
                return Err(wrong("a node has its account from joining: `godwit node token`"));
            }
            AccountKind::Derived => {
                let (tenant, _) = row.name.split_once('/').ok_or_else(|| {
                    wrong("a derived account is called TENANT/NAME, such as alice/press")
                })?;
                row.tenant = Some(tenant.to_owned());
                if row.subscribe.is_empty() {
                    row.publish = vec![format!("app/{tenant}/#")];
                    row.subscribe.clone_from(&row.publish);
                }
            }
            _ if !row.subscribe.is_empty() => {
                return Err(wrong("only a derived account is given topics: TENANT/NAME"));
            }
            _ => {}
        }
        check_name(&row)?;
        for filter in row.publish.iter().chain(&row.subscribe) {
            filter.parse::<Filter>().map_err(wrong)?;
        }
        directory::rights(&row).map_err(wrong)?;
        row.password = Some(hashed(password).await?);
        let (name, added) = (row.name.clone(), row.clone());
        match self.store.call(move |store| store.add_account(&added)).await {
            Ok(()) => {}
            Err(StoreError::Taken { .. }) => {
                return Err(Refusal::new(
                    "account-exists",
                    format!("there is an account `{name}`"),
                    "take another name, or change its password with `godwit account passwd`",
                ));
            }
            Err(error) => return Err(Refusal::internal("adding an account", &error)),
        }
        self.changed().await?;
        Ok(view(row, shown))
    }

    /// Gives an account another password and cuts off who signed in with the old one; answers the
    /// password if it was made up.
    ///
    /// # Errors
    /// `unknown-account`, `wrong-account` and `internal`.
    pub async fn set_password(
        &self,
        name: &str,
        password: Option<String>,
    ) -> Result<Option<String>, Refusal> {
        let (password, shown) = chosen(password)?;
        let hash = hashed(password).await?;
        let account = name.to_owned();
        let change = move |store: &Store| store.set_password(&account, &hash);
        if !self.store("changing a password", change).await? {
            return Err(unknown(name));
        }
        self.changed().await?;
        self.cut_off(name).await;
        Ok(shown)
    }

    /// Cuts off who is connected with an account whose password or certificate counts no more.
    async fn cut_off(&self, name: &str) {
        if let Some(control) = self.control.get() {
            // One that has stopped has cut them off itself.
            let _ = control.kick_user(name).await;
        }
    }

    /// Removes an account; who is connected with it is cut off.
    ///
    /// # Errors
    /// `unknown-account` and `internal`.
    pub async fn remove(&self, name: &str) -> Result<(), Refusal> {
        let account = name.to_owned();
        let remove = move |store: &Store| store.remove_account(&account, Timestamp::now());
        if !self.store("removing an account", remove).await? {
            return Err(unknown(name));
        }
        self.changed().await
    }

    /// Makes a token by which one node can join: that one, or any.
    ///
    /// # Errors
    /// `wrong-token` and `internal`.
    pub async fn invite(
        &self,
        node: Option<NodeId>,
        life: Option<SignedDuration>,
    ) -> Result<TokenView, Refusal> {
        let life = life.unwrap_or(TOKEN_LIFE);
        if life <= SignedDuration::ZERO || life > LONGEST_TOKEN_LIFE {
            return Err(Refusal::new(
                "wrong-token",
                "a token lets in for a moment at least, and for 30 days at most",
                "give another --lifetime",
            ));
        }
        let secret = Secret::random().map_err(|e| Refusal::internal("making a token", &e))?;
        let (now, node) = (Timestamp::now(), node.map(|node| node.to_string()));
        let invitation = Invitation::new(&secret, node.clone(), now + life);
        let expires = invitation.expires_at;
        let row = InvitationRow { invitation, used_by: None, request: None, certificate: None };
        self.store("saving a token", move |store| {
            store.forget_invitations(now - MEMORY)?;
            store.save_invitation(&row)
        })
        .await?;
        self.changed().await?;
        let authority = self.papers.authority().fingerprint();
        let token = Token::new(self.fabric, authority, self.brokers.clone(), secret).to_string();
        Ok(TokenView { token, node, expires })
    }

    /// The database was changed: the broker is told.
    async fn changed(&self) -> Result<(), Refusal> {
        self.reread().await.map_err(|error| Refusal::internal("reading the accounts", &error))?;
        if let Some(control) = self.control.get() {
            control.accounts_changed();
        }
        Ok(())
    }

    async fn reread(&self) -> Result<(), StoreError> {
        let read = |store: &Store| Ok((store.accounts()?, store.invitations()?, store.revoked()?));
        let (accounts, invitations, revoked) = self.store.call(read).await?;
        self.directory.replace(&accounts, &invitations, &revoked);
        Ok(())
    }

    async fn store<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.store.call(work).await.map_err(|error| Refusal::internal(what, &error))
    }
}

/// The password that was chosen, or one that is made up and to be shown.
fn chosen(password: Option<String>) -> Result<(String, Option<String>), Refusal> {
    match password {
        Some(password) if password.len() < SHORTEST_PASSWORD => {
            Err(wrong(format!("a password has {SHORTEST_PASSWORD} characters at least")))
        }
        Some(password) => Ok((password, None)),
        None => {
            let secret =
                Secret::random().map_err(|e| Refusal::internal("making a password", &e))?;
            let password = secret.reveal()[..24].to_owned();
            Ok((password.clone(), Some(password)))
        }
    }
}

async fn hashed(password: String) -> Result<String, Refusal> {
    let hashing = tokio::task::spawn_blocking(move || hash(password.as_bytes()));
    let hash = hashing.await.map_err(|error| Refusal::internal("hashing a password", &error))?;
    hash.map_err(|error| Refusal::internal("hashing a password", &error))
}

/// Names are levels of topics; a derived account's are two, with a slash between them.
fn check_name(row: &AccountRow) -> Result<(), Refusal> {
    let is_level = |text: &str| text.parse::<godwit_proto::id::Tenant>().is_ok();
    let is_fine = match (row.kind, row.name.split_once('/')) {
        (AccountKind::Derived, Some((tenant, name))) => is_level(tenant) && is_level(name),
        (_, None) => is_level(&row.name),
        _ => false,
    };
    let is_reserved = [CONTROLLER, godwit_proto::join::JOIN_ACCOUNT].contains(&&*row.name);
    if is_fine && !is_reserved {
        return Ok(());
    }
    Err(wrong(format!(
        "`{}` cannot be an account's name: use 1 to 63 of a-z, 0-9 and '-', not `{CONTROLLER}` or \
         `join`; a derived account is called TENANT/NAME",
        row.name
    )))
}

fn wrong(why: impl std::fmt::Display) -> Refusal {
    Refusal::new("wrong-account", why.to_string(), "see `godwit account add --help`")
}

fn unknown(name: &str) -> Refusal {
    Refusal::new(
        "unknown-account",
        format!("there is no account `{name}` with a password"),
        "list them with `godwit account ls`",
    )
}

fn view(row: AccountRow, password: Option<String>) -> AccountView {
    let AccountRow { name, kind, publish, subscribe, created, .. } = row;
    AccountView { name, kind, publish, subscribe, created, password }
}
