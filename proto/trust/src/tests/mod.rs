//! What the pieces do together: real handshakes between real ends, in memory.

mod issuing;
mod mutual;
mod pinned;
mod wire;

use jiff::{SignedDuration, Timestamp};

use super::{Authority, Issued, KeyPem, request_node};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn noon() -> Timestamp {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

fn authority() -> Authority {
    Authority::create("6f1c7c7e-6d1c-4b55-9a3d-1f6d1d8c2a10", noon()).unwrap()
}

/// A node that has joined.
fn joined(authority: &Authority, node: &str, now: Timestamp) -> (Issued, KeyPem) {
    let request = request_node(node).unwrap();
    (authority.issue_node(node, &request.csr_pem, now).unwrap(), request.key_pem)
}

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
