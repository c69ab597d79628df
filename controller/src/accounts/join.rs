//! Nodes that want to belong, and nodes that need their next certificate.

use godwit_bus::{Publication, Session};
use godwit_proto::id::NodeId;
use godwit_proto::join::{JoinAnswer, JoinRequest, LARGEST_REQUEST, NODE_ACCOUNT};
use godwit_proto::topic::Topic;
use godwit_trust::{Secret, redeem};
use jiff::Timestamp;

use super::Accounts;
use crate::refusal::Chain;
use crate::store::{AccountKind, AccountRow, CertificateRow, InvitationRow, Store, StoreError};

impl Accounts {
    /// Answers a request of `topic`, if it is one; false where it is not.
    pub async fn take(&self, session: &Session, topic: &Topic, payload: &[u8]) -> bool {
        let (answer_at, outcome) = match topic {
            Topic::JoinRequest { id } => {
                let outcome = match read(payload) {
                    Ok(request) => self.join(request).await,
                    Err(why) => Err(why),
                };
                (Topic::JoinAnswer { id: id.clone() }, outcome)
            }
            Topic::RenewRequest { node } => {
                let outcome = match read(payload) {
                    Ok(request) => self.renew(node.clone(), request).await,
                    Err(why) => Err(why),
                };
                (Topic::RenewAnswer { node: node.clone() }, outcome)
            }
            _ => return false,
        };
        let answer = match outcome {
            Ok(certificate) => JoinAnswer::Joined { certificate },
            Err(why) => {
                tracing::warn!(%topic, why, "a node is not let in");
                JoinAnswer::Refused { why }
            }
        };
        // The node asks again.
        match serde_json::to_vec(&answer) {
            Ok(bytes) => {
                if let Err(error) = session.publish(Publication::new(&answer_at, bytes)).await {
                    tracing::warn!(%answer_at, %error, "an answer is not sent");
                }
            }
            Err(error) => tracing::error!(%error, "an answer cannot be written"),
        }
        true
    }

    async fn join(&self, request: JoinRequest) -> Result<String, String> {
        let secret = request.secret.as_deref().and_then(Secret::read);
        let secret = secret.ok_or("the request has no secret: copy the whole token again")?;
        let (papers, node) = (self.papers.clone(), request.node.clone());
        let admitted = self.store.call(move |store| {
            admit(store, &secret, &request, Timestamp::now(), |node, csr, now| {
                let issued = papers.authority().issue_node(node, csr, now);
                issued.map_err(|error| Chain(&error).to_string())
            })
        });
        let certificate = admitted.await.map_err(|error| internal(&error))??;
        self.changed().await.map_err(|refusal| refusal.to_string())?;
        // Whoever came under this name before shows a certificate that is revoked now.
        self.cut_off(&format!("{NODE_ACCOUNT}{node}")).await;
        tracing::info!(%node, "a node has joined the fabric");
        Ok(certificate)
    }

    /// Only the node itself may publish to its topic; where everybody may do everything there, its
    /// word is worth nothing.
    async fn renew(&self, node: NodeId, request: JoinRequest) -> Result<String, String> {
        if self.directory.is_open_to_all() {
            return Err("this broker lets everybody in, so nobody is known by a certificate".into());
        }
        let now = Timestamp::now();
        let issued = self.papers.authority().issue_node(node.as_str(), &request.request, now);
        let issued = issued.map_err(|error| Chain(&error).to_string())?;
        let row = certificate_row(&node, issued.serial, issued.validity.not_after);
        let saved = self.store.call(move |store| store.add_certificate(&row)).await;
        saved.map_err(|error| internal(&error))?;
        tracing::info!(%node, "a node has its next certificate");
        Ok(issued.chain_pem)
    }
}

fn read(payload: &[u8]) -> Result<JoinRequest, String> {
    if payload.len() > LARGEST_REQUEST {
        return Err(format!("the request is larger than {LARGEST_REQUEST} bytes"));
    }
    serde_json::from_slice(payload).map_err(|error| format!("the request is not readable: {error}"))
}

/// What became of a token, in one step with what is written of it. `issue` signs.
fn admit(
    store: &Store,
    secret: &Secret,
    request: &JoinRequest,
    now: Timestamp,
    issue: impl FnOnce(&str, &str, Timestamp) -> Result<godwit_trust::Issued, String>,
) -> Result<Result<String, String>, StoreError> {
    let node = request.node.as_str();
    let Some(mut row) = store.invitation(&secret.hash())? else {
        return Ok(Err("this fabric has no such token: make one with `godwit node token`".into()));
    };
    if let Some(certificate) = answered_before(&row, request) {
        return Ok(Ok(certificate));
    }
    if let Err(error) = redeem(&mut row.invitation, secret, node, now) {
        return Ok(Err(error.to_string()));
    }
    let name = format!("{NODE_ACCOUNT}{node}");
    let is_known = store.accounts()?.iter().any(|account| account.name == name);
    if is_known && row.invitation.node.is_none() {
        return Ok(Err(format!(
            "a node called `{node}` has joined already: take another name, or, if this is the same \
             one anew, use a token of its own: `godwit node token {node}`"
        )));
    }
    let issued = match issue(node, &request.request, now) {
        Ok(issued) => issued,
        Err(why) => return Ok(Err(why)),
    };
    row.used_by = Some(node.to_owned());
    row.request = Some(request.request.clone());
    row.certificate = Some(issued.chain_pem.clone());
    let certificate = certificate_row(&request.node, issued.serial, issued.validity.not_after);
    store.admit(&row, &account(name, now), &certificate, now)?;
    Ok(Ok(issued.chain_pem))
}

/// The answer may have been lost on its way.
fn answered_before(row: &InvitationRow, request: &JoinRequest) -> Option<String> {
    let is_same = row.used_by.as_deref() == Some(request.node.as_str())
        && row.request.as_deref() == Some(&request.request);
    row.certificate.clone().filter(|_| is_same)
}

fn account(name: String, now: Timestamp) -> AccountRow {
    AccountRow {
        name,
        kind: AccountKind::Node,
        tenant: None,
        publish: Vec::new(),
        subscribe: Vec::new(),
        password: None,
        created: now,
    }
}

fn certificate_row(
    node: &NodeId,
    serial: godwit_trust::Serial,
    expires: Timestamp,
) -> CertificateRow {
    CertificateRow { serial, node: node.to_string(), expires, revoked: None }
}

fn internal(error: &StoreError) -> String {
    tracing::error!(error = %Chain(error), "a node cannot be let in");
    "the controller's database cannot be written: see its log, then try again".into()
}

#[cfg(test)]
mod tests {
    use godwit_trust::{Authority, Invitation, request_node};
    use jiff::SignedDuration;

    use super::*;

    fn fixture(node: Option<&str>) -> (tempfile::TempDir, Store, Authority, Secret) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("godwit.db")).unwrap();
        let authority = Authority::create("fabric", Timestamp::now()).unwrap();
        let secret = Secret::random().unwrap();
        let ends = Timestamp::now() + SignedDuration::from_hours(1);
        let invitation = Invitation::new(&secret, node.map(str::to_owned), ends);
        let row = InvitationRow { invitation, used_by: None, request: None, certificate: None };
        store.save_invitation(&row).unwrap();
        (directory, store, authority, secret)
    }

    fn ask(node: &str) -> JoinRequest {
        let request = request_node(node).unwrap().csr_pem;
        JoinRequest { node: node.parse().unwrap(), secret: None, request }
    }

    fn come(
        store: &Store,
        authority: &Authority,
        secret: &Secret,
        request: &JoinRequest,
    ) -> Result<String, String> {
        admit(store, secret, request, Timestamp::now(), |node, csr, now| {
            authority.issue_node(node, csr, now).map_err(|error| error.to_string())
        })
        .unwrap()
    }

    #[test]
    fn a_token_lets_one_node_in_and_says_the_same_again_to_that_one() {
        let (_directory, store, authority, secret) = fixture(None);
        let request = ask("edge-a");
        let certificate = come(&store, &authority, &secret, &request).unwrap();
        assert_eq!(come(&store, &authority, &secret, &request).unwrap(), certificate);
        assert_eq!(store.accounts().unwrap()[0].name, "node:edge-a");
        let why = come(&store, &authority, &secret, &ask("edge-b")).unwrap_err();
        assert!(why.contains("used") && why.contains("godwit node token"), "{why}");
        // Another key than the one that it was given a certificate for.
        assert!(come(&store, &authority, &secret, &ask("edge-a")).is_err());
        let stranger = Secret::random().unwrap();
        let why = come(&store, &authority, &stranger, &ask("edge-b")).unwrap_err();
        assert!(why.contains("no such token"), "{why}");
    }

    #[test]
    fn a_name_that_is_taken_is_given_again_only_by_a_token_of_its_own() {
        let (_directory, store, authority, secret) = fixture(None);
        come(&store, &authority, &secret, &ask("edge-a")).unwrap();
        let invite = |node: Option<&str>| {
            let secret = Secret::random().unwrap();
            let ends = Timestamp::now() + SignedDuration::from_hours(1);
            let invitation = Invitation::new(&secret, node.map(str::to_owned), ends);
            let row = InvitationRow { invitation, used_by: None, request: None, certificate: None };
            store.save_invitation(&row).unwrap();
            secret
        };
        let any = invite(None);
        let why = come(&store, &authority, &any, &ask("edge-a")).unwrap_err();
        assert!(why.contains("godwit node token edge-a"), "{why}");
        // It was not used up by that.
        come(&store, &authority, &any, &ask("edge-c")).unwrap();
        let own = invite(Some("edge-a"));
        come(&store, &authority, &own, &ask("edge-a")).unwrap();
        assert_eq!(store.revoked().unwrap().len(), 1, "the certificate before is worth nothing");
    }
}
