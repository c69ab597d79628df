//! What the controller keeps of a token, and the one moment in which it is used up.

use jiff::Timestamp;

use super::secret::{Secret, SecretHash};

/// A token as its maker remembers it: found by its hash, good once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The node that it is for; `None` lets any name in.
    pub node: Option<String>,
    /// The hash of the token's secret.
    pub hash: SecretHash,
    /// From when on it no longer counts.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
}

/// Why a node may not join with the secret that it showed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Nobody is invited with this secret.
    #[error("this fabric has no such token: make one here with `godwit node token`")]
    WrongSecret,
    /// Somebody joined with it.
    #[error(
        "the token was used at {at}: a token lets one node in, once; make a new one with `godwit \
         node token`, and if that was not you, revoke the node that joined then"
    )]
    Used {
        /// When.
        at: Timestamp,
    },
    /// It waited for too long.
    #[error("the token expired at {at}: make a new one with `godwit node token`")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// It is for another node.
    #[error(
        "the token is for node `{invited}`, not `{node}`: join under that name, or make one for \
         this node with `godwit node token`"
    )]
    OtherNode {
        /// Whom it is for.
        invited: String,
        /// Who came.
        node: String,
    },
}

impl Invitation {
    /// The invitation that goes with a token's secret.
    pub fn new(secret: &Secret, node: Option<String>, expires_at: Timestamp) -> Self {
        Self { node, hash: secret.hash(), expires_at, used_at: None }
    }
}

/// Lets `node` in and uses the invitation up; or says why not, and leaves it as it was.
///
/// The caller stores the changed invitation before it answers, in one step with reading it:
/// two nodes that come at once must not both find it unused.
///
/// # Errors
/// [`JoinError`]. Without the right secret nothing else is told.
pub fn redeem(
    invitation: &mut Invitation,
    secret: &Secret,
    node: &str,
    now: Timestamp,
) -> Result<(), JoinError> {
    if !invitation.hash.is_of(secret) {
        return Err(JoinError::WrongSecret);
    }
    if let Some(at) = invitation.used_at {
        return Err(JoinError::Used { at });
    }
    if now >= invitation.expires_at {
        return Err(JoinError::Expired { at: invitation.expires_at });
    }
    if let Some(invited) = invitation.node.as_ref().filter(|invited| *invited != node) {
        return Err(JoinError::OtherNode { invited: invited.clone(), node: node.to_owned() });
    }
    invitation.used_at = Some(now);
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn noon() -> Timestamp {
        "2026-07-01T12:00:00Z".parse().unwrap()
    }

    fn invite(node: Option<&str>) -> (Secret, Invitation) {
        let secret = Secret::random().unwrap();
        let invitation = Invitation::new(&secret, node.map(str::to_owned), noon() + HOUR);
        (secret, invitation)
    }

    #[test]
    fn an_invitation_lets_one_node_in_once() {
        let (secret, mut invitation) = invite(Some("edge-a"));
        assert_eq!(redeem(&mut invitation, &secret, "edge-a", noon()), Ok(()));
        assert_eq!(invitation.used_at, Some(noon()));
        let again = redeem(&mut invitation, &secret, "edge-a", noon() + HOUR);
        assert_eq!(again, Err(JoinError::Used { at: noon() }));
        assert_eq!(invitation.used_at, Some(noon()));
    }

    #[test]
    fn an_invitation_without_a_node_lets_any_name_in() {
        let (secret, mut invitation) = invite(None);
        assert_eq!(redeem(&mut invitation, &secret, "whoever", noon()), Ok(()));
    }

    #[test]
    fn an_invitation_expires_at_its_moment() {
        let (secret, mut invitation) = invite(None);
        let fresh = invitation.clone();
        let refused = redeem(&mut invitation, &secret, "edge-a", noon() + HOUR);
        assert_eq!(refused, Err(JoinError::Expired { at: noon() + HOUR }));
        assert_eq!(invitation, fresh);
        let before = noon() + HOUR - SignedDuration::from_nanos(1);
        assert_eq!(redeem(&mut invitation, &secret, "edge-a", before), Ok(()));
    }

    #[test]
    fn another_node_is_refused_and_the_invited_one_still_gets_in() {
        let (secret, mut invitation) = invite(Some("edge-a"));
        let refused = redeem(&mut invitation, &secret, "edge-b", noon());
        let expected = JoinError::OtherNode { invited: "edge-a".into(), node: "edge-b".into() };
        assert_eq!(refused, Err(expected));
        assert_eq!(redeem(&mut invitation, &secret, "edge-a", noon()), Ok(()));
    }

    #[test]
    fn without_the_secret_nothing_is_told() {
        let wrong = Secret::random().unwrap();
        let (secret, mut invitation) = invite(Some("edge-a"));
        redeem(&mut invitation, &secret, "edge-a", noon()).unwrap();
        let late = noon() + HOUR + HOUR;
        let refused = redeem(&mut invitation, &wrong, "edge-b", late);
        assert_eq!(refused, Err(JoinError::WrongSecret));
    }

    #[test]
    fn every_refusal_says_how_to_get_a_new_token() {
        let refusals = [
            JoinError::WrongSecret,
            JoinError::Used { at: noon() },
            JoinError::Expired { at: noon() },
            JoinError::OtherNode { invited: "edge-a".into(), node: "edge-b".into() },
        ];
        for refusal in refusals {
            assert!(refusal.to_string().contains("`godwit node token`"), "{refusal}");
        }
    }
}
