//! How far a stream has come, for display.

/// One stream's progress; the same shape at both ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the receiver has stored.
    pub bytes: u64,
    /// The stream's length, once known.
    pub total_bytes: Option<u64>,
    /// Bytes that chunks weighed on the wire, headers included, at this end and in this
    /// session.
    pub wire_bytes: u64,
    /// Bytes of the stream stored per second, 0 while unknown.
    pub rate: u64,
}
