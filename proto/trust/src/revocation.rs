//! Certificates that no longer count, although their time is not over.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};

use super::authority::LEAF_LIFE;
use super::serial::Serial;
use super::validity::{self, ClockError, Validity};

/// How long a list counts. Lists are made anew whenever something is revoked and at each
/// start; rustls does not look at their end unless asked to.
const LIST_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_hours(24 * 30);

/// The revoked certificates, each with when it was revoked.
///
/// To keep it, write each pair of [`Revocations::iter`] down and collect them again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations(BTreeMap<Serial, Timestamp>);

impl Revocations {
    /// Revokes a certificate; true when it was not revoked before. The first time stands.
    ///
    /// A server hears of it through a new list ([`super::Authority::revocation_list`]).
    pub fn revoke(&mut self, serial: Serial, now: Timestamp) -> bool {
        let is_new = !self.0.contains_key(&serial);
        self.0.entry(serial).or_insert(now);
        is_new
    }

    /// True when the certificate is revoked.
    pub fn contains(&self, serial: Serial) -> bool {
        self.0.contains_key(&serial)
    }

    /// Every revoked certificate and when it was revoked, ordered by serial number.
    pub fn iter(&self) -> impl Iterator<Item = (Serial, Timestamp)> {
        self.0.iter().map(|(serial, at)| (*serial, *at))
    }

    /// Drops those that have ended by now of themselves: what was revoked longer ago than a
    /// certificate lives.
    pub fn forget_ended(&mut self, now: Timestamp) {
        self.0.retain(|_, at| now.duration_since(*at) <= LEAF_LIFE);
    }

    /// The list of them, not yet signed.
    pub(super) fn list(
        &self,
        now: Timestamp,
    ) -> Result<CertificateRevocationListParams, ClockError> {
        let (this_update, next_update) = Validity::starting(now, LIST_LIFE)?.ends()?;
        let revoked_certs = self
            .iter()
            .map(|(serial, at)| {
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(serial.as_bytes()),
                    revocation_time: validity::moment(at)?,
                    reason_code: None,
                    invalidity_date: None,
                })
            })
            .collect::<Result<_, ClockError>>()?;
        Ok(CertificateRevocationListParams {
            this_update,
            next_update,
            // Must rise from list to list; time does, and needs no storing.
            crl_number: SerialNumber::from(now.as_millisecond().unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        })
    }
}

impl FromIterator<(Serial, Timestamp)> for Revocations {
    fn from_iter<I: IntoIterator<Item = (Serial, Timestamp)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn noon() -> Timestamp {
        "2026-07-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_first_revocation_stands_and_survives_being_written_down() {
        let serial = Serial::random().unwrap();
        let mut revocations = Revocations::default();
        assert!(revocations.revoke(serial, noon()));
        assert!(!revocations.revoke(serial, noon() + SignedDuration::from_secs(1)));
        assert_eq!(revocations.iter().collect::<Vec<_>>(), [(serial, noon())]);
        assert_eq!(revocations.iter().collect::<Revocations>(), revocations);
        assert!(!revocations.contains(Serial::random().unwrap()));
    }

    #[test]
    fn a_revocation_is_kept_for_as_long_as_its_certificate_can_live() {
        let serial = Serial::random().unwrap();
        let mut revocations = Revocations::default();
        revocations.revoke(serial, noon());
        revocations.forget_ended(noon() + LEAF_LIFE);
        assert!(revocations.contains(serial));
        revocations.forget_ended(noon() + LEAF_LIFE + SignedDuration::from_secs(1));
        assert!(!revocations.contains(serial));
    }
}
