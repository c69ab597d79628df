//! A node's place in its fabric while it runs: what it shows to brokers, and its renewal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use godwit_bus::{BrokerUrl, Config as BusConfig, Publication, Session};
use godwit_proto::join::{JoinAnswer, JoinRequest};
use godwit_proto::topic::{Filter, Topic};
use godwit_trust::{Bearer, RequestError, client, request_node};
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::identity::{Identity, IdentityError};
use crate::join::{self, JoinError};

/// How often it is looked whether the certificate ends.
const EVERY: Duration = Duration::from_secs(12 * 3600);
/// How long the controller may take for the next one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a node cannot take its place.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// It has not joined, and could not.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// What it has.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It joined under another name.
    #[error(
        "this machine joined its fabric as node `{joined}`, not `{wanted}`: run it under that \
         name, or remove its identity.json and join again"
    )]
    OtherName {
        /// The name that its certificate has.
        joined: String,
        /// The name it is run with.
        wanted: String,
    },
    /// TLS cannot be spoken.
    #[error("TLS cannot be spoken on this machine")]
    Tls(#[from] rustls::Error),
    /// A renewal.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A renewal that was refused or not heard.
    #[error("the controller gave no next certificate: {0}")]
    NotRenewed(String),
}

/// A node that belongs to a fabric.
pub(crate) struct Membership {
    data_dir: PathBuf,
    identity: Identity,
    bearer: Arc<Bearer>,
}

impl Membership {
    /// The node's place: as it joined before, or by its token now; nothing where it has neither.
    pub(crate) async fn open(config: &Config) -> Result<Option<Self>, MembershipError> {
        let identity = match (Identity::load(&config.data_dir)?, &config.token) {
            (Some(identity), _) => identity,
            (None, Some(token)) => {
                let (node, broker) = (config.node.clone(), config.broker.clone());
                join::join(token, node, broker, &config.data_dir).await?
            }
            (None, None) => return Ok(None),
        };
        if identity.node != config.node {
            return Err(MembershipError::OtherName {
                joined: identity.node.to_string(),
                wanted: config.node.to_string(),
            });
        }
        let bearer = identity.bearer()?;
        Ok(Some(Self { data_dir: config.data_dir.clone(), identity, bearer }))
    }

    /// The fingerprint by which its fabric is known.
    pub(crate) fn authority(&self) -> String {
        self.identity.authority.clone()
    }

    /// Where it joined, if somebody answers there.
    pub(crate) async fn broker(&self) -> Option<BrokerUrl> {
        join::reachable(&self.identity.brokers).await
    }

    /// Gives a session what it shows and hears as a member.
    pub(crate) fn equip(&self, bus: &mut BusConfig) -> Result<(), MembershipError> {
        let authority = self.identity.authority()?;
        bus.tls = Some(client(&bus.broker.to_string(), authority, Some(self.bearer.clone()))?);
        bus.subscriptions.push(Filter::RenewAnswer(self.identity.node.clone()));
        Ok(())
    }

    /// Renews the certificate before it ends, for ever; what is answered goes into the sender.
    pub(crate) fn renewing(
        mut self,
        session: Session,
    ) -> (mpsc::Sender<Vec<u8>>, impl Future<Output = ()>) {
        let (sender, mut answers) = mpsc::channel(1);
        let renewing = async move {
            let mut every = tokio::time::interval(EVERY);
            loop {
                every.tick().await;
                if !self.identity.needs_renewal(Timestamp::now()) {
                    continue;
                }
                match self.renew(&session, &mut answers).await {
                    Ok(()) => tracing::info!("this node has its next certificate"),
                    Err(error) => tracing::warn!(%error, "this node's certificate ends soon"),
                }
            }
        };
        (sender, renewing)
    }

    async fn renew(
        &mut self,
        session: &Session,
        answers: &mut mpsc::Receiver<Vec<u8>>,
    ) -> Result<(), MembershipError> {
        let node = self.identity.node.clone();
        let made = request_node(node.as_str())?;
        let request = JoinRequest { node: node.clone(), secret: None, request: made.csr_pem };
        let body = serde_json::to_vec(&request).unwrap_or_default();
        let failed = |why: String| MembershipError::NotRenewed(why);
        // One that came too late for the request before.
        while answers.try_recv().is_ok() {}
        let topic = Topic::RenewRequest { node };
        session
            .publish(Publication::new(&topic, body))
            .await
            .map_err(|error| failed(error.to_string()))?;
        let answer = tokio::time::timeout(PATIENCE, answers.recv()).await;
        let answer = answer.ok().flatten().ok_or_else(|| failed("it did not answer".into()))?;
        let certificate = match serde_json::from_slice(&answer) {
            Ok(JoinAnswer::Joined { certificate }) => certificate,
            Ok(JoinAnswer::Refused { why }) => return Err(failed(why)),
            Err(error) => return Err(failed(error.to_string())),
        };
        let key = made.key_pem.as_str().to_owned();
        let next = Identity { certificate, key, ..self.identity.clone() };
        self.bearer.replace(&next.certificate, &next.key).map_err(IdentityError::from)?;
        next.save(&self.data_dir)?;
        self.identity = next;
        Ok(())
    }
}
