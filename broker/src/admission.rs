//! Who comes in: from what a client says of itself to what it may do.

mod turns;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytestring::ByteString;
use hashlink::LruCache;
use rmqtt_codec::v5::ConnectAckReason;
use tokio::task::spawn_blocking;

use self::turns::{Crowded, Turns};
use crate::access::{Limiter, Penalties, Rights, TooManyFailures};
use crate::accounts::Accounts;
use crate::config::Anonymous;
use crate::listener::Peer;
use crate::metrics::Refused;

/// How many passwords that were right are remembered, so that it costs little when all clients come
/// back at once.
const REMEMBERED: usize = 16_384;

/// What a client says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) client: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) peer: &'a Peer,
}

/// Why somebody does not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no account: sign in with a user name and a password, or a certificate")]
    Anonymous,
    #[error("user name or password is wrong")]
    WrongPassword,
    #[error("the certificate stands for no account, or was revoked")]
    Certificate,
    #[error("the account is gone")]
    Gone,
    #[error(transparent)]
    TooMany(#[from] TooManyFailures),
    #[error(transparent)]
    Crowded(#[from] Crowded),
}

impl Refusal {
    /// How it is said in CONNACK.
    pub(crate) fn reason(&self) -> ConnectAckReason {
        match self {
            Self::WrongPassword => ConnectAckReason::BadUserNameOrPassword,
            Self::Anonymous | Self::Certificate | Self::Gone => ConnectAckReason::NotAuthorized,
            Self::TooMany(_) | Self::Crowded(_) => ConnectAckReason::ConnectionRateExceeded,
        }
    }

    /// What it is counted by.
    pub(crate) fn cause(&self) -> Refused {
        match self {
            Self::Anonymous => Refused::Anonymous,
            Self::WrongPassword => Refused::Password,
            Self::Certificate => Refused::Certificate,
            Self::Gone => Refused::Account,
            Self::TooMany(_) | Self::Crowded(_) => Refused::Rate,
        }
    }
}

/// The door's judgement of who comes in.
#[derive(Debug)]
pub(crate) struct Admission {
    accounts: Arc<dyn Accounts>,
    anonymous: Anonymous,
    limiter: Mutex<Limiter>,
    turns: Turns,
    remembered: Mutex<Remembered>,
}

/// Passwords that were looked at, as digests of user and password under a key that nobody else has.
#[derive(Debug)]
struct Remembered {
    key: [u8; 32],
    /// How often all of it was forgotten.
    generation: u64,
    /// What was right, by user.
    right: LruCache<String, blake3::Hash>,
    /// What was wrong. A device that has an old password tries it for ever: that is no guess, costs
    /// nothing, and does not hold up its neighbours with the same account.
    wrong: LruCache<blake3::Hash, ()>,
}

impl Remembered {
    fn digest(&self, user: &str, password: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&user.len().to_le_bytes()).update(user.as_bytes()).update(password);
        hasher.finalize()
    }

    fn is_right(&mut self, user: &str, digest: blake3::Hash) -> bool {
        self.right.get(user).is_some_and(|known| *known == digest)
    }
}

impl Admission {
    pub(crate) fn new(accounts: Arc<dyn Accounts>, anonymous: Anonymous) -> Self {
        let key = *blake3::hash(uuid::Uuid::new_v4().as_bytes()).as_bytes();
        let (right, wrong) = (LruCache::new(REMEMBERED), LruCache::new(REMEMBERED));
        Self {
            accounts,
            anonymous,
            limiter: Mutex::new(Limiter::new(Penalties::default())),
            turns: Turns::new(),
            remembered: Mutex::new(Remembered { key, generation: 0, right, wrong }),
        }
    }

    /// Passwords may have changed: each is verified again.
    pub(crate) fn forget(&self) {
        let mut remembered = lock(&self.remembered);
        remembered.generation += 1;
        remembered.right.clear();
        remembered.wrong.clear();
    }

    /// Who the client is, and what it may do.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        claim: Claim<'_>,
    ) -> Result<(Option<ByteString>, Rights), Refusal> {
        let user = self.user(claim).await?;
        let rights = self.accounts.rights(user.as_deref(), claim.client).ok_or(Refusal::Gone)?;
        Ok((user, rights))
    }

    async fn user(self: &Arc<Self>, claim: Claim<'_>) -> Result<Option<ByteString>, Refusal> {
        if let Some(certificate) = &claim.peer.certificate {
            let owner = self.accounts.of_certificate(certificate).ok_or(Refusal::Certificate)?;
            if claim.user.is_none_or(|user| user == owner) {
                return Ok(Some(owner.into()));
            }
        }
        let Some(user) = claim.user else { return self.nobody(claim.peer) };
        self.verify(user, claim.password.unwrap_or_default(), claim.peer.address.ip()).await?;
        Ok(Some(user.into()))
    }

    fn nobody(&self, peer: &Peer) -> Result<Option<ByteString>, Refusal> {
        let may = match self.anonymous {
            Anonymous::Never => false,
            Anonymous::Loopback => peer.address.ip().to_canonical().is_loopback(),
            Anonymous::Anyone => true,
        };
        if may { Ok(None) } else { Err(Refusal::Anonymous) }
    }

    async fn verify(
        self: &Arc<Self>,
        user: &str,
        password: &[u8],
        source: IpAddr,
    ) -> Result<(), Refusal> {
        let is_right = {
            let mut remembered = lock(&self.remembered);
            let digest = remembered.digest(user, password);
            if remembered.wrong.get(&digest).is_some() {
                return Err(Refusal::WrongPassword);
            }
            remembered.is_right(user, digest)
        };
        // Who guesses too fast is not told of a right guess either, remembered or not.
        lock(&self.limiter).check(source, user, Instant::now())?;
        if is_right {
            return Ok(());
        }
        let turn = self.turns.take(source).await?;
        {
            let (mut limiter, now) = (lock(&self.limiter), Instant::now());
            // Others may have failed while this one waited.
            limiter.check(source, user, now)?;
            limiter.check_site(source, now)?;
        }
        let (door, user, password) = (self.clone(), user.to_owned(), password.to_vec());
        // Goes on to its end though the client goes: its turn lasts as long, and its failure counts.
        let verified = spawn_blocking(move || {
            let _turn = turn;
            door.measure(&user, &password, source)
        });
        match verified.await {
            Ok(true) => Ok(()),
            _ => Err(Refusal::WrongPassword),
        }
    }

    /// Whether that is the user's password, with what follows from it.
    fn measure(&self, user: &str, password: &[u8], source: IpAddr) -> bool {
        let generation = lock(&self.remembered).generation;
        let is_right = self.accounts.verify(user, password);
        match is_right {
            true => lock(&self.limiter).succeeded(source, user),
            false => lock(&self.limiter).failed(source, user, Instant::now()),
        }
        let mut remembered = lock(&self.remembered);
        // What was right before a change may be wrong after it, and the other way round.
        if remembered.generation == generation {
            let digest = remembered.digest(user, password);
            match is_right {
                true => drop(remembered.right.insert(user.to_owned(), digest)),
                false => drop(remembered.wrong.insert(digest, ())),
            }
        }
        is_right
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
