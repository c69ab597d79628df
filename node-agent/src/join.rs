//! How a machine becomes a node: with a token, once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_bus::{
    BrokerUrl, BrokerUrlError, Config as BusConfig, Credentials, Inbox, Link, Publication, Session,
};
use godwit_proto::id::{NodeId, RequestId};
use godwit_proto::join::{JOIN_ACCOUNT, JoinAnswer, JoinRequest};
use godwit_proto::topic::{Filter, Topic};
use godwit_trust::{RequestError, Token, TokenError, client, request_node};
use serde::{Deserialize, Serialize};

use crate::identity::{self, Identity, IdentityError};

/// How long a broker may take to let in or not.
const PATIENCE: Duration = Duration::from_secs(15);
/// The request, below the data directory, until it is answered: who asks the same again is answered
/// the same again.
const ASKED: &str = "identity.asked.json";

/// Why a machine did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is one.
    #[error(
        "this machine is node `{node}` of fabric {fabric} already: to join another one, remove \
         {file} first"
    )]
    Joined {
        /// Its name.
        node: NodeId,
        /// Its fabric.
        fabric: uuid::Uuid,
        /// Where that is kept.
        file: PathBuf,
    },
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Its key and request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What it has is not kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A broker's address in the token, or one that was given.
    #[error(transparent)]
    Broker(#[from] BrokerUrlError),
    /// The token names no broker.
    #[error("the token names no broker: give one with --broker mqtts://HOST")]
    Nowhere,
    /// TLS cannot be spoken.
    #[error("TLS cannot be spoken on this machine")]
    Tls(#[from] rustls::Error),
    /// The session cannot be opened.
    #[error("the session with the broker")]
    Session(#[from] godwit_bus::PublishError),
    /// No broker let it in, and why each did not.
    #[error("no broker let this machine in:{}", .0.iter().map(|why| format!("\n  {why}")).collect::<String>())]
    Refused(Vec<String>),
}

/// What was asked and not answered yet.
#[derive(Serialize, Deserialize)]
struct Asked {
    token: String,
    node: NodeId,
    key: String,
    request: String,
}

/// Makes this machine the node `node` of the fabric that made `token`. `broker` is tried in place of
/// the token's own. Can be repeated after any failure, with the same token.
///
/// # Errors
/// [`JoinError`], each with what to do next.
pub async fn join(
    token: &str,
    node: NodeId,
    broker: Option<BrokerUrl>,
    data_dir: &Path,
) -> Result<Identity, JoinError> {
    if let Some(Identity { node, fabric, .. }) = Identity::load(data_dir)? {
        return Err(JoinError::Joined { node, fabric, file: data_dir.join("identity.json") });
    }
    let text = token.trim();
    let token: Token = text.parse()?;
    let brokers = match broker {
        Some(broker) => vec![broker.over_tls()],
        None => token.brokers().iter().map(|url| url.parse()).collect::<Result<_, _>>()?,
    };
    if brokers.is_empty() {
        return Err(JoinError::Nowhere);
    }
    let asked = asked(text, node, &data_dir.join(ASKED))?;
    let mut refusals = Vec::new();
    for broker in brokers {
        match ask(&token, &broker, &asked).await? {
            Ok(certificate) => {
                let identity = Identity {
                    node: asked.node,
                    fabric: token.fabric(),
                    authority: token.authority().to_string(),
                    brokers: vec![broker.to_string()],
                    certificate,
                    key: asked.key,
                };
                identity.save(data_dir)?;
                let _not_needed_any_more = std::fs::remove_file(data_dir.join(ASKED));
                return Ok(identity);
            }
            Err(why) => refusals.push(format!("{broker}: {why}")),
        }
    }
    Err(JoinError::Refused(refusals))
}

/// The request as it was sent before with this token, or a new one.
fn asked(token: &str, node: NodeId, file: &Path) -> Result<Asked, JoinError> {
    let before: Option<Asked> = identity::load(file)?;
    if let Some(before) = before.filter(|asked| asked.token == token && asked.node == node) {
        return Ok(before);
    }
    let made = request_node(node.as_str())?;
    let asked = Asked {
        token: token.to_owned(),
        node,
        key: made.key_pem.as_str().to_owned(),
        request: made.csr_pem,
    };
    identity::save(file, &asked)?;
    Ok(asked)
}

/// Asks one broker: the certificate, or why not.
async fn ask(
    token: &Token,
    broker: &BrokerUrl,
    asked: &Asked,
) -> Result<Result<String, String>, JoinError> {
    let number = uuid::Uuid::new_v4().to_string();
    // A name as any: hexadecimal digits and dashes.
    let Ok(id) = number.parse::<RequestId>() else { return Ok(Err("no request id".into())) };
    let mut config = BusConfig::new(broker.clone(), number);
    let password = token.secret().reveal();
    config.credentials = Some(Credentials { username: JOIN_ACCOUNT.into(), password });
    config.tls = Some(client(&broker.to_string(), token.authority(), None)?);
    config.subscriptions = vec![Filter::JoinAnswer(id.clone())];
    let (session, inbox) = Session::open(config)?;
    let request = JoinRequest {
        node: asked.node.clone(),
        secret: Some(token.secret().reveal()),
        request: asked.request.clone(),
    };
    let body = serde_json::to_vec(&request).unwrap_or_default();
    let topic = Topic::JoinRequest { id };
    session.publish(Publication::new(&topic, body)).await?;
    let answer = tokio::time::timeout(PATIENCE, answer(&session, inbox)).await;
    // It was only opened for this.
    let _ = session.close(None).await;
    Ok(answer.unwrap_or_else(|_| {
        Err(format!("no answer within {PATIENCE:?}: is the controller running?"))
    }))
}

async fn answer(session: &Session, mut inbox: Inbox) -> Result<String, String> {
    let mut link = session.link();
    let down = link.wait_for(|link| matches!(link, Link::Down { .. } | Link::Closed));
    tokio::select! {
        heard = inbox.recv() => match heard.map(|heard| serde_json::from_slice(&heard.payload)) {
            Some(Ok(JoinAnswer::Joined { certificate })) => Ok(certificate),
            Some(Ok(JoinAnswer::Refused { why })) => Err(why),
            _ => Err("the answer is not readable: are agent and controller of one version?".into()),
        },
        link = down => Err(match link.as_deref() {
            Ok(Link::Down { why }) if is_unknown_token(why) => {
                "this fabric has no such token: make one there with `godwit node token`".into()
            }
            Ok(Link::Down { why }) => why.to_string(),
            _ => "the session ended".into(),
        }),
    }
}

/// The broker does not know the secret by which the session signs in.
fn is_unknown_token(why: &str) -> bool {
    why.contains("BadUserNamePassword") || why.contains("NotAuthorized")
}

/// The first of the brokers where somebody answers.
pub(crate) async fn reachable(brokers: &[String]) -> Option<BrokerUrl> {
    for text in brokers {
        let Ok(url) = text.parse::<BrokerUrl>() else { continue };
        let place = (url.host().trim_matches(['[', ']']).to_owned(), url.port());
        let connecting = async {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host(place).await?.collect();
            tokio::net::TcpStream::connect(&*addresses).await
        };
        let connected = tokio::time::timeout(Duration::from_secs(2), connecting).await;
        if matches!(connected, Ok(Ok(_))) {
            return Some(url);
        }
    }
    None
}
