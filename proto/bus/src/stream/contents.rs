//! What a sender reads: one file, or an archive's pieces as if they were one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use godwit_proto::stream::record::Record;

/// The bytes of a stream.
pub(super) enum Contents {
    /// A file's.
    File(File),
    /// Records', each read from where it is when it is sent.
    Archive(Layout),
}

impl Contents {
    /// Fills `bytes` with what the stream has at `at`.
    pub(super) fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(bytes, at),
            Self::Archive(layout) => layout.read_exact_at(bytes, at),
        }
    }
}

/// Where the bytes of a record are.
#[derive(Clone)]
pub(super) enum Data {
    /// In memory.
    Bytes(Bytes),
    /// In this file, at the record's offset.
    File(Arc<File>),
}

/// One record in its place.
#[derive(Clone)]
pub(super) struct Segment {
    /// Where its header begins in the stream.
    at: u64,
    pub(super) record: Record,
    pub(super) data: Data,
    header: Bytes,
}

impl Segment {
    fn end(&self) -> u64 {
        self.at + self.header.len() as u64 + self.record.len
    }

    /// Reads what the segment has at `at` of the stream; answers how much.
    fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let header_end = self.at + self.header.len() as u64;
        if at < header_end {
            return Ok(copy(&self.header[(at - self.at) as usize..], bytes));
        }
        let into_data = at - header_end;
        match &self.data {
            Data::Bytes(data) => Ok(copy(&data[into_data as usize..], bytes)),
            Data::File(file) => {
                let len = bytes.len().min((self.record.len - into_data) as usize);
                file.read_exact_at(&mut bytes[..len], self.record.offset + into_data)?;
                Ok(len)
            }
        }
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

/// An archive's records in the order of the stream; only ever added to.
#[derive(Default)]
pub(super) struct Layout(RwLock<Vec<Segment>>);

impl Layout {
    /// Adds a record and answers how long the stream is with it.
    pub(super) fn push(&self, record: Record, data: Data) -> u64 {
        let header = Bytes::from(record.header());
        let mut segments = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let at = segments.last().map_or(0, Segment::end);
        let segment = Segment { at, record, data, header };
        let end = segment.end();
        segments.push(segment);
        end
    }

    /// How long the stream is.
    pub(super) fn end(&self) -> u64 {
        let segments = self.0.read().unwrap_or_else(PoisonError::into_inner);
        segments.last().map_or(0, Segment::end)
    }

    /// Every record so far.
    pub(super) fn segments(&self) -> Vec<Segment> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        // What is needed is cloned, so that no record waits to be added while a disk reads.
        for segment in self.covering(at, at + bytes.len() as u64) {
            while done < bytes.len() && at + (done as u64) < segment.end() {
                done += segment.read(&mut bytes[done..], at + done as u64)?;
            }
        }
        match done == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn covering(&self, start: u64, end: u64) -> Vec<Segment> {
        let segments = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let first = segments.partition_point(|segment| segment.end() <= start);
        let last = segments.partition_point(|segment| segment.at < end);
        segments[first..last.max(first)].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn any_part_of_an_archive_can_be_read_by_itself() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let file = Arc::new(file);
        let layout = Layout::default();
        let mut whole = Vec::new();
        for (name, offset, bytes) in [("a", 2, &b"2345"[..]), ("empty", 0, b""), ("a", 7, b"789")] {
            let record = Record::new(name, offset, bytes.len() as u64).unwrap();
            whole.extend(record.header());
            whole.extend(bytes);
            assert_eq!(layout.push(record, Data::File(file.clone())), whole.len() as u64);
        }
        let record = Record::new("memory", 0, 3).unwrap();
        whole.extend(record.header());
        whole.extend(b"xyz");
        layout.push(record, Data::Bytes(Bytes::from_static(b"xyz")));
        let contents = Contents::Archive(layout);
        for start in 0..whole.len() {
            for end in start..whole.len() {
                let mut bytes = vec![0; end - start];
                contents.read_exact_at(&mut bytes, start as u64).unwrap();
                assert_eq!(bytes, whole[start..end], "{start}..{end}");
            }
        }
        assert!(contents.read_exact_at(&mut [0; 2], whole.len() as u64 - 1).is_err());
    }
}
