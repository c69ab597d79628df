//! Archives: many files as one stream, offered while they are still being written.
//!
//! ```no_run
//! # fn example(streams: godwit_bus::stream::Streams, stream: godwit_proto::stream::StreamId)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! # use std::{fs::File, path::Path, sync::Arc};
//! # use godwit_proto::topic::Peer;
//! let archive = streams.offer_archive(stream, "edge-b".parse::<Peer>()?);
//! let pages = Arc::new(File::open("/run/images/pages-1.img")?);
//! archive.append("pages-1.img", &pages, 0..65536)?; // and more as they appear
//! archive.append("pages-1.img", &pages, 65536..131072)?;
//! archive.append_bytes("stats", b"small".to_vec())?;
//! let offered = archive.finish(Some(Path::new("/run/images.layout")))?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is copied: an archive is a table of what is where, and the bytes are read when
//! they are sent. The layout file holds that table, so that a restarted sender can offer
//! the same archive in the same version: what receivers have of it stays good.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use godwit_proto::stream::record::{Record, RecordError};
use godwit_proto::stream::{Extent, StreamId};
use tokio::sync::watch;

use crate::stream::chunk::digest;
use crate::stream::contents::{Contents, Data, Layout};
use crate::stream::error::LayoutError;
use crate::stream::progress::Progress;
use crate::stream::shared::Shared;
use crate::stream::shelf::{Audience, Item};
use crate::stream::store::beside;
use crate::stream::{Offered, Streams};

/// An archive on offer that is still being made.
///
/// Whoever wants it is sent what there is, and more as it is appended. Dropped before it
/// is finished it is withdrawn.
pub struct Archive {
    shared: Arc<Shared>,
    stream: StreamId,
    item: Arc<Item>,
    extent: watch::Sender<Extent>,
}

impl Drop for Archive {
    fn drop(&mut self) {
        let is_whole = self.extent.borrow().is_whole;
        if !is_whole && self.shared.shelf.holds(&self.stream, &self.item) {
            self.shared.withdraw(&self.stream);
        }
    }
}

impl Streams {
    /// Offers an archive that has nothing in it yet, in place of whatever was offered as
    /// this stream.
    pub fn offer_archive(&self, stream: StreamId, to: impl Into<Audience>) -> Archive {
        self.archive(stream, to.into(), Layout::default(), new_version(), Extent::growing(0))
    }

    /// Offers an archive again that was finished in a former life, in the same version.
    ///
    /// `open` finds the files by the names that they were appended under; they must be the
    /// same in the same state.
    ///
    /// # Errors
    /// When the layout cannot be read, is not of this stream, or names a file that cannot
    /// be opened.
    pub fn resume_archive(
        &self,
        stream: StreamId,
        to: impl Into<Audience>,
        layout: &Path,
        open: impl FnMut(&str) -> io::Result<File>,
    ) -> Result<Offered, LayoutError> {
        let (version, table) = load(layout, &stream, open)?;
        let end = table.end();
        let archive = self.archive(stream, to.into(), table, version, Extent::whole(end));
        Ok(archive.offered())
    }

    fn archive(
        &self,
        stream: StreamId,
        audience: Audience,
        layout: Layout,
        version: u64,
        extent: Extent,
    ) -> Archive {
        let (extent, extents) = watch::channel(extent);
        let shelf = &self.shared.shelf;
        let item = shelf.put_archive(stream.clone(), layout, version, extents, audience);
        Archive { shared: self.shared.clone(), stream, item, extent }
    }
}

impl Archive {
    /// Adds a piece of a file: those bytes are there, and will not change any more.
    ///
    /// # Errors
    /// When the name is not a plain one, or no file can have such a piece.
    pub fn append(
        &self,
        name: &str,
        file: &Arc<File>,
        piece: Range<u64>,
    ) -> Result<(), RecordError> {
        let len = piece.end.saturating_sub(piece.start);
        self.push(Record::new(name, piece.start, len)?, Data::File(file.clone()));
        Ok(())
    }

    /// Adds a small file whole; it is kept in memory while the archive is offered.
    ///
    /// # Errors
    /// When the name is not a plain one.
    pub fn append_bytes(&self, name: &str, bytes: Vec<u8>) -> Result<(), RecordError> {
        self.push(Record::new(name, 0, bytes.len() as u64)?, Data::Bytes(bytes.into()));
        Ok(())
    }

    fn push(&self, record: Record, data: Data) {
        if let Contents::Archive(layout) = &self.item.contents {
            // Under the lock of the channel: the stream's end must never step back.
            self.extent.send_modify(|extent| extent.bytes = layout.push(record, data));
        }
    }

    /// Nothing more comes. With a path, keeps there what [`Streams::resume_archive`] needs.
    ///
    /// # Errors
    /// When the layout cannot be written; the archive is withdrawn then.
    pub fn finish(self, keep_layout: Option<&Path>) -> Result<Offered, LayoutError> {
        if let (Some(path), Contents::Archive(layout)) = (keep_layout, &self.item.contents) {
            save(path, &self.stream, self.item.version, layout)?;
        }
        self.extent.send_modify(|extent| extent.is_whole = true);
        Ok(self.offered())
    }

    /// How far its receiver has come, now and as it changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.item.progress.subscribe()
    }

    /// How many bytes of the stream there are so far, headers of records included.
    pub fn bytes(&self) -> u64 {
        self.extent.borrow().bytes
    }

    fn offered(&self) -> Offered {
        Offered { stream: self.stream.clone(), item: self.item.clone() }
    }
}

/// A number that no archive had before: of the moment, the process and a count.
fn new_version() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let state = format!("{} {} {count}", clock.as_nanos(), std::process::id());
    u64::from_le_bytes(first_eight(&digest(state.as_bytes()).0))
}

fn first_eight(bytes: &[u8]) -> [u8; 8] {
    std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(0))
}

/// How a layout file begins; behind it the digest of the rest: the stream's name, the
/// version, and for each record its header, where the bytes are, and those in memory.
const MAGIC: &[u8; 8] = b"godwit\0\x03";
const IN_FILE: u8 = 0;
const IN_LAYOUT: u8 = 1;

fn save(path: &Path, stream: &StreamId, version: u64, layout: &Layout) -> Result<(), LayoutError> {
    let mut table = digest(stream.to_string().as_bytes()).0.to_vec();
    table.extend(version.to_le_bytes());
    for segment in layout.segments() {
        table.extend(segment.record.header());
        match &segment.data {
            Data::File(_) => table.push(IN_FILE),
            Data::Bytes(bytes) => {
                table.push(IN_LAYOUT);
                table.extend(&bytes[..]);
            }
        }
    }
    let mut file = MAGIC.to_vec();
    file.extend(digest(&table).0);
    file.extend(table);
    let new = beside(path, ".new");
    let written = fs::write(&new, file).and_then(|()| fs::rename(&new, path));
    written.map_err(io_error("write", path))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.to_owned();
    move |source| LayoutError::Io { doing, path, source }
}

fn load(
    path: &Path,
    stream: &StreamId,
    mut open: impl FnMut(&str) -> io::Result<File>,
) -> Result<(u64, Layout), LayoutError> {
    let unusable = || LayoutError::Unusable { stream: stream.clone(), path: path.to_owned() };
    let whole = Bytes::from(fs::read(path).map_err(io_error("read", path))?);
    let table = whole.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(32));
    let (check, table) = table.ok_or_else(unusable)?;
    let name = digest(stream.to_string().as_bytes());
    if digest(table).0 != check || table.len() < 40 || table[..32] != name.0 {
        return Err(unusable());
    }
    let version = u64::from_le_bytes(first_eight(&table[32..40]));
    let layout = Layout::default();
    let mut files = std::collections::BTreeMap::<Box<str>, Arc<File>>::new();
    let mut rest = &table[40..];
    while !rest.is_empty() {
        let parsed = Record::parse(rest).ok().flatten().ok_or_else(unusable)?;
        let (record, header_bytes) = parsed;
        let (place, after) = rest[header_bytes..].split_first().ok_or_else(unusable)?;
        let data = match *place {
            IN_LAYOUT => {
                let bytes = after.get(..record.len as usize).ok_or_else(unusable)?;
                rest = &after[bytes.len()..];
                Data::Bytes(whole.slice_ref(bytes))
            }
            _ => {
                rest = after;
                if !files.contains_key(&record.name) {
                    let named = Path::new(&*record.name);
                    let file = open(&record.name).map_err(io_error("open", named))?;
                    files.insert(record.name.clone(), Arc::new(file));
                }
                Data::File(files[&record.name].clone())
            }
        };
        layout.push(record, data);
    }
    Ok((version, layout))
}
