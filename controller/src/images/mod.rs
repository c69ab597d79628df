//! The images that the controller hands to nodes: one archive each, by id.
//!
//! An upload streams into a file of its own while [`archive`] reads what it holds;
//! only a whole and sound archive gets its place (`<id>.tar`) and its row. Names are
//! in the database; the file is the same for every tenant.

pub mod archive;
pub mod name;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use godwit_proto::id::{ImageId, Tenant};
use jiff::Timestamp;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use crate::images::archive::{Archive, ArchiveError};
use crate::store::{ImageRow, StoreError, StoreHandle};

/// How many pieces of an upload wait for the disk.
const WAITING: usize = 8;

/// Why an image was not taken, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The upload is not an archive with one usable image.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It has no name, neither in it nor given with it.
    #[error("the archive gives image {0} no name")]
    Nameless(ImageId),
    /// A name that is none.
    #[error("`{0}` is not an image's name")]
    Name(String),
    /// The upload ended before its end.
    #[error("the upload was cut off")]
    CutOff(#[source] io::Error),
    /// The directory of images does not take it.
    #[error("cannot write in {path}")]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The database does not take it.
    #[error("cannot record the image")]
    Store(#[from] StoreError),
}

/// The directory of archives, with its rows.
#[derive(Debug, Clone)]
pub struct Images {
    directory: PathBuf,
    store: StoreHandle,
}

impl Images {
    /// Opens the directory, making it as needed, and drops uploads that a crash cut off.
    ///
    /// # Errors
    /// [`ImageError::Disk`].
    pub fn open(directory: PathBuf, store: StoreHandle) -> Result<Self, ImageError> {
        let images = Self { directory, store };
        let incoming = images.incoming();
        let at = |source| ImageError::Disk { path: incoming.clone(), source };
        if incoming.exists() {
            fs::remove_dir_all(&incoming).map_err(at)?;
        }
        fs::create_dir_all(&incoming).map_err(at)?;
        Ok(images)
    }

    /// The archive of an image, if it is here.
    pub fn path_of(&self, id: &ImageId) -> Option<PathBuf> {
        Some(self.place(id)).filter(|path| path.is_file())
    }

    /// Every image of a tenant, newest first.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub async fn list(&self, tenant: &Tenant) -> Result<Vec<ImageRow>, ImageError> {
        let tenant = tenant.clone();
        Ok(self.store.call(move |store| store.images(&tenant)).await?)
    }

    /// Takes an upload; answers the image, and whether the tenant did not have it yet.
    ///
    /// An upload that is cancelled, cut off or refused leaves nothing.
    ///
    /// # Errors
    /// Every [`ImageError`].
    pub async fn receive<E>(
        &self,
        tenant: &Tenant,
        name: Option<&str>,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(ImageRow, bool), ImageError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let (pieces, upload) = mpsc::channel(WAITING);
        let incoming = self.incoming();
        let writer = tokio::task::spawn_blocking(move || write(&incoming, upload));
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(io::Error::other);
            let is_last = piece.is_err();
            // A writer that is gone has the reason.
            if pieces.send(Part::Piece(piece)).await.is_err() || is_last {
                break;
            }
        }
        // Without this mark the writer takes the upload for cancelled.
        let _ = pieces.send(Part::End).await;
        let (archive, file) = writer.await.map_err(|panic| ImageError::Disk {
            path: self.incoming(),
            source: io::Error::other(panic),
        })??;
        self.keep(tenant, name, archive, file).await
    }

    async fn keep(
        &self,
        tenant: &Tenant,
        name: Option<&str>,
        archive: Archive,
        file: NamedTempFile,
    ) -> Result<(ImageRow, bool), ImageError> {
        let mut names: Vec<String> = Vec::new();
        // The archive's own name first: the engine knows the image by it.
        for given in archive.names.iter().map(String::as_str).chain(name) {
            if !name::is_name(given) {
                return Err(ImageError::Name(given.to_owned()));
            }
            let whole = name::whole(given);
            if !names.contains(&whole) {
                names.push(whole);
            }
        }
        if names.is_empty() {
            return Err(ImageError::Nameless(archive.id));
        }
        let path = self.place(&archive.id);
        let at = |source| ImageError::Disk { path: path.clone(), source };
        let row = ImageRow {
            tenant: tenant.clone(),
            id: archive.id,
            names,
            arch: archive.arch,
            os: archive.os,
            size_bytes: archive.size_bytes,
            archive_bytes: file.as_file().metadata().map_err(at)?.len(),
            created: Timestamp::now(),
        };
        let (directory, place) = (self.directory.clone(), path.clone());
        tokio::task::spawn_blocking(move || {
            file.persist(&place)?;
            File::open(&directory)?.sync_all()
        })
        .await
        .map_err(|panic| at(io::Error::other(panic)))?
        .map_err(at)?;
        let saved = row.clone();
        let is_new = self
            .store
            .call(move |store| {
                let known = store.images(&saved.tenant)?;
                store.save_image(&saved)?;
                Ok(known.iter().all(|image| image.id != saved.id))
            })
            .await?;
        tracing::info!(image = row.id.short(), names = ?row.names, "image taken in");
        Ok((row, is_new))
    }

    /// Forgets a tenant's image, and its archive once nobody has it.
    ///
    /// # Errors
    /// [`ImageError::Store`] and [`ImageError::Disk`].
    pub async fn remove(&self, tenant: &Tenant, id: &ImageId) -> Result<(), ImageError> {
        let (whose, which) = (tenant.clone(), id.clone());
        let is_kept = self.store.call(move |store| store.delete_image(&whose, &which)).await?;
        let path = self.place(id);
        if is_kept {
            return Ok(());
        }
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ImageError::Disk { path, source: error })
            }
            _ => Ok(()),
        }
    }

    fn place(&self, id: &ImageId) -> PathBuf {
        self.directory.join(format!("{id}.tar"))
    }

    /// Where files are that are not whole yet, or of use for a moment; empty at every start.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.directory.join("incoming")
    }
}

/// What the network gives to the writer.
enum Part {
    Piece(io::Result<Bytes>),
    End,
}

/// Writes an upload to a file and reads what it holds on the way. Blocks.
fn write(
    directory: &Path,
    upload: mpsc::Receiver<Part>,
) -> Result<(Archive, NamedTempFile), ImageError> {
    let at = |source| ImageError::Disk { path: directory.to_owned(), source };
    let mut file = NamedTempFile::new_in(directory).map_err(at)?;
    let mut tee = Tee { upload, piece: Bytes::new(), file: file.as_file_mut(), failed: None };
    let archive = archive::inspect(&mut tee);
    match (tee.failed, archive) {
        // The cause, not what the reader made of it.
        (Some(Failure::Disk(source)), _) => Err(at(source)),
        (Some(Failure::Upload(source)), _) => Err(ImageError::CutOff(source)),
        (None, archive) => {
            let archive = archive?;
            file.as_file().sync_all().map_err(at)?;
            Ok((archive, file))
        }
    }
}

/// The upload as a reader, of which everything read is written to the file as well.
struct Tee<'a> {
    upload: mpsc::Receiver<Part>,
    piece: Bytes,
    file: &'a mut File,
    failed: Option<Failure>,
}

enum Failure {
    Disk(io::Error),
    Upload(io::Error),
}

impl Tee<'_> {
    fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.upload.blocking_recv() {
            Some(Part::Piece(Ok(piece))) => {
                self.file.write_all(&piece).map_err(Failure::Disk)?;
                Ok(Some(piece))
            }
            Some(Part::Piece(Err(error))) => Err(Failure::Upload(error)),
            Some(Part::End) => Ok(None),
            None => Err(Failure::Upload(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.next() {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => {
                    // Asked again after the end, it is still the end.
                    self.upload.close();
                    return Ok(0);
                }
                Err(failure) => {
                    let _ = self.failed.get_or_insert(failure);
                    return Err(io::Error::other("the upload failed"));
                }
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
