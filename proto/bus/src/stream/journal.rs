//! The journal beside a stream's data: which spans of it are written.
//!
//! A header, then a record for every span, each with its own check, appended after the
//! data was written. A process may die anywhere between two writes: the journal never
//! claims a byte that the kernel was not given. After the machine itself lost its memory
//! that is not enough, so a record counts in another boot only if a later record says
//! that everything before it was synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use godwit_proto::id::Digest;
use godwit_proto::stream::{RangeSet, Span, StreamId};

use crate::stream::chunk::digest;

const HEADER_BYTES: usize = 96;
const RECORD_BYTES: usize = 24;
/// In place of a length.
const UNKNOWN: u64 = u64::MAX;
/// In place of a span: all before it is on disk.
const SYNCED: Span = Span { start: u64::MAX, end: u64::MAX };

/// What a journal is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) stream: StreamId,
    /// The state of the sender's file.
    pub(super) version: u64,
    /// The length of the whole, if it was known when the journal was begun.
    pub(super) size_bytes: Option<u64>,
}

/// An open journal.
pub(super) struct Journal {
    file: File,
    end: u64,
}

/// What a journal tells whoever finds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) subject: Subject,
    /// The newest session that wrote to it.
    pub(super) session: u64,
    pub(super) stored: RangeSet,
    end: u64,
}

impl Journal {
    /// Begins an empty journal in place of whatever was at `path`.
    pub(super) fn create(path: &Path, subject: &Subject, session: u64) -> io::Result<Self> {
        let mut open = OpenOptions::new();
        let file = open.write(true).create(true).truncate(true).open(path)?;
        let mut journal = Self { file, end: HEADER_BYTES as u64 };
        journal.set_session(subject, session)?;
        Ok(journal)
    }

    /// Opens the journal at `path`; `None` when there is none, or none of `stream`.
    pub(super) fn open(path: &Path, stream: &StreamId) -> io::Result<Option<(Self, Found)>> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let Some(found) = parse(&bytes, stream, boot()) else { return Ok(None) };
        // What does not count now must not count again under a later header.
        file.set_len(found.end)?;
        Ok(Some((Self { file, end: found.end }, found)))
    }

    /// Remembers the newest session, so that the next one can be above it.
    pub(super) fn set_session(&mut self, subject: &Subject, session: u64) -> io::Result<()> {
        self.file.write_all_at(&header(subject, session, boot()), 0)
    }

    /// Claims a span whose data has been written.
    pub(super) fn claim(&mut self, span: Span) -> io::Result<()> {
        self.file.write_all_at(&record(span), self.end)?;
        self.end += RECORD_BYTES as u64;
        Ok(())
    }

    /// Says that all data claimed so far has been synced; on return that is on disk too.
    pub(super) fn claim_synced(&mut self) -> io::Result<()> {
        self.claim(SYNCED)?;
        self.file.sync_data()
    }
}

/// This life of the machine. Where the kernel does not tell, all lives look alike.
fn boot() -> Digest {
    digest(&fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default())
}

/// What tells a stream from all others.
pub(super) fn identity(stream: &StreamId) -> Digest {
    match stream {
        StreamId::Checkpoint { container, epoch } => {
            digest(format!("{container} {epoch}").as_bytes())
        }
        StreamId::Image(image) => digest(image.as_str().as_bytes()),
        StreamId::ImageLayers(image) => digest(format!("layers {image}").as_bytes()),
        StreamId::ImageParts { image, layers } => {
            digest(format!("layers {layers} {image}").as_bytes())
        }
        StreamId::Volumes { container, epoch, part } => {
            digest(format!("volumes {container} {epoch} {part}").as_bytes())
        }
        StreamId::Metadata { container, epoch } => {
            digest(format!("metadata {container} {epoch}").as_bytes())
        }
    }
}

fn header(subject: &Subject, session: u64, boot: Digest) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(b"godwit\0\x01");
    bytes[8..24].copy_from_slice(&identity(&subject.stream).0[..16]);
    bytes[24..40].copy_from_slice(&boot.0[..16]);
    bytes[40..48].copy_from_slice(&subject.version.to_le_bytes());
    bytes[48..56].copy_from_slice(&subject.size_bytes.unwrap_or(UNKNOWN).to_le_bytes());
    bytes[56..64].copy_from_slice(&session.to_le_bytes());
    let check = digest(&bytes[..64]);
    bytes[64..].copy_from_slice(&check.0);
    bytes
}

fn record(span: Span) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..8].copy_from_slice(&span.start.to_le_bytes());
    bytes[8..16].copy_from_slice(&span.end.to_le_bytes());
    let check = digest(&bytes[..16]);
    bytes[16..].copy_from_slice(&check.0[..8]);
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What the bytes claim for this boot; `None` when they are no journal of `stream`.
fn parse(bytes: &[u8], stream: &StreamId, boot: Digest) -> Option<Found> {
    let head = bytes.get(..HEADER_BYTES)?;
    let (version, size_bytes) = (number(&head[40..48]), number(&head[48..56]));
    let known = (size_bytes != UNKNOWN).then_some(size_bytes);
    let session = number(&head[56..64]);
    let subject = Subject { stream: stream.clone(), version, size_bytes: known };
    let ours = header(&subject, session, boot);
    let intact = digest(&head[..64]).0 == head[64..];
    if !intact || head[..24] != ours[..24] {
        return None;
    }
    let same_boot = head[24..40] == ours[24..40];
    let (mut written, mut synced) = (RangeSet::new(), RangeSet::new());
    let (mut end, mut synced_end) = (HEADER_BYTES, HEADER_BYTES);
    for bytes in bytes[HEADER_BYTES..].chunks_exact(RECORD_BYTES) {
        let span = Span::new(number(&bytes[..8]), number(&bytes[8..16]));
        if record(span) != bytes || (span != SYNCED && span.end > size_bytes) {
            break;
        }
        end += RECORD_BYTES;
        if span == SYNCED {
            (synced, synced_end) = (written.clone(), end);
        } else {
            written.insert(span);
        }
    }
    let (stored, end) = if same_boot { (written, end) } else { (synced, synced_end) };
    Some(Found { subject, session, stored, end: end as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIS: Digest = Digest([1; 32]);
    const OTHER: Digest = Digest([2; 32]);

    fn subject() -> Subject {
        let stream = StreamId::Image("a".repeat(64).parse().unwrap());
        Subject { stream, version: 7, size_bytes: Some(1000) }
    }

    /// A journal of three spans, the first of them synced.
    fn journal() -> Vec<u8> {
        let spans = [Span::new(0, 100), SYNCED, Span::new(300, 400), Span::new(100, 200)];
        let mut bytes = header(&subject(), 5, THIS).to_vec();
        bytes.extend(spans.iter().flat_map(|span| record(*span)));
        bytes
    }

    fn spans(found: &Found) -> Vec<(u64, u64)> {
        found.stored.spans().iter().map(|span| (span.start, span.end)).collect()
    }

    #[test]
    fn what_was_claimed_is_found() {
        let found = parse(&journal(), &subject().stream, THIS).unwrap();
        assert_eq!(spans(&found), [(0, 200), (300, 400)]);
        assert_eq!((found.subject, found.session), (subject(), 5));
    }

    #[test]
    fn after_a_reboot_only_what_was_synced_counts() {
        let found = parse(&journal(), &subject().stream, OTHER).unwrap();
        assert_eq!(spans(&found), [(0, 100)]);
    }

    #[test]
    fn a_journal_cut_anywhere_claims_a_prefix_of_what_it_held() {
        let whole = journal();
        for end in 0..whole.len() {
            let Some(found) = parse(&whole[..end], &subject().stream, THIS) else {
                assert!(end < HEADER_BYTES);
                continue;
            };
            let records = (end - HEADER_BYTES) / RECORD_BYTES;
            let expected: &[(u64, u64)] = match records {
                0 => &[],
                1 | 2 => &[(0, 100)],
                _ => &[(0, 100), (300, 400)],
            };
            assert_eq!(spans(&found), expected, "{end}");
            assert_eq!(found.end as usize, HEADER_BYTES + records * RECORD_BYTES);
        }
    }

    #[test]
    fn a_damaged_byte_makes_no_claim() {
        let whole = journal();
        let good = parse(&whole, &subject().stream, THIS).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            if let Some(found) = parse(&bytes, &subject().stream, THIS) {
                assert!(at >= HEADER_BYTES);
                let extra = found
                    .stored
                    .spans()
                    .iter()
                    .any(|span| good.stored.missing(*span).next().is_some());
                assert!(!extra, "byte {at}: {:?}", found.stored);
                assert!(found.stored.bytes() < good.stored.bytes() || found.end < good.end);
            }
        }
    }

    #[test]
    fn another_streams_journal_is_not_ours() {
        let other = StreamId::Image("b".repeat(64).parse().unwrap());
        assert_eq!(parse(&journal(), &other, THIS), None);
    }

    #[test]
    fn what_a_reboot_voided_stays_void() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, journal()).unwrap();
        for _ in 0..2 {
            // Nobody's boot is `THIS`: the file comes from before a reboot.
            let (mut journal, found) = Journal::open(&path, &subject().stream).unwrap().unwrap();
            assert_eq!(spans(&found), [(0, 100)]);
            journal.set_session(&subject(), 6).unwrap();
        }
    }

    #[test]
    fn a_journal_that_was_found_is_continued() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut journal = Journal::create(&path, &subject(), 5).unwrap();
        journal.claim(Span::new(0, 10)).unwrap();
        drop(journal);
        let (mut journal, found) = Journal::open(&path, &subject().stream).unwrap().unwrap();
        assert_eq!(found.session, 5);
        journal.set_session(&subject(), 6).unwrap();
        journal.claim(Span::new(10, 20)).unwrap();
        drop(journal);
        let (_, found) = Journal::open(&path, &subject().stream).unwrap().unwrap();
        assert_eq!((found.session, spans(&found)), (6, vec![(0, 20)]));
    }
}
