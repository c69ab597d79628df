//! Bytes that nobody can guess.

/// The system could not give random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes: wait until it has started fully, then try again")]
pub struct NoRandomness(#[from] getrandom::Error);

/// `N` bytes from the system's generator.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
