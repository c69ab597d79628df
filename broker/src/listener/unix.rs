//! A Unix socket and its file, which outlives a process that is killed.
//!
//! Between finding that nobody listens on a file and replacing it, somebody may begin
//! to: the folder is locked meanwhile, so that of two brokers that start at once one is
//! told that the other listens.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tokio::net::{UnixListener, UnixSocket};
use tracing::warn;

use super::ListenError;
use super::address::BoundAddress;
use super::bind::BACKLOG;

/// Who may connect: the broker's user and group.
const MODE: u32 = 0o660;
/// How long a folder may be locked. A broker needs it for a moment, but everybody who
/// may read a folder may lock it for ever.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The file of a socket that listens; removed when dropped, if it is still ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// Listens on `path`, in place of a file that nobody listens on any more.
pub(super) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile), ListenError> {
    let listen =
        |source| ListenError::Listen { address: BoundAddress::Unix(path.to_owned()), source };
    let _lock = lock(path).await.map_err(listen)?;
    if let Some(found) = found(path).map_err(listen)? {
        if !found.file_type().is_socket() {
            return Err(ListenError::Obstructed { path: path.to_owned() });
        }
        if is_alive(path).map_err(listen)? {
            return Err(listen(io::ErrorKind::AddrInUse.into()));
        }
        fs::remove_file(path).map_err(listen)?;
    }
    open(path).map_err(listen)
}

fn open(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let found = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()) };
    // Before it listens: nobody can connect under the mode that it was born with.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    Ok((socket.listen(BACKLOG)?, file))
}

/// Keeps other brokers from replacing files of the same folder; dropped to let them.
async fn lock(path: &Path) -> io::Result<File> {
    let folder = folder(path)?;
    for _ in 0..LOCK_TRIES {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process keeps its folder locked"))
}

fn folder(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
}

fn found(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Does anybody listen on `path`? In doubt, yes.
fn is_alive(path: &Path) -> io::Result<bool> {
    // Not blocking: a listener that is stuck and whose queue is full is alive as well.
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => Ok(false),
        _ => Ok(true),
    }
}

impl SocketFile {
    fn remove(&self) -> io::Result<()> {
        // Not waited for: what is left behind is replaced by the next broker.
        let folder = folder(&self.path)?;
        folder.try_lock()?;
        match found(&self.path)? {
            Some(found) if (found.dev(), found.ino()) == self.identity => {
                fs::remove_file(&self.path)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            warn!(path = %self.path.display(), %error, "socket file left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file: this is what a killed broker leaves");
        let (_listener, _file) = bind(&path).await.unwrap();
        assert_eq!(mode(&path), MODE);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_somebody_listens_on_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.sock");
        let (_first, _file) = bind(&path).await.unwrap();
        let error = bind(&path).await.unwrap_err();
        let ListenError::Listen { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_listener_with_a_full_queue_counts_as_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.sock");
        let full = UnixSocket::new_stream().unwrap();
        full.bind(&path).unwrap();
        let _full = full.listen(0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(is_alive(&path).unwrap());
        assert!(bind(&path).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letter");
        fs::write(&path, "dear").unwrap();
        assert!(matches!(bind(&path).await, Err(ListenError::Obstructed { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "dear");
    }

    #[tokio::test]
    async fn a_listener_takes_its_own_file_along_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.sock");
        let (_listener, file) = bind(&path).await.unwrap();
        drop(file);
        assert!(!path.exists());

        let (_listener, file) = bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let (_successor, _theirs) = bind(&path).await.unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_locked_folder_is_waited_for_but_not_for_ever() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("broker.sock");
        let other = folder(&path).unwrap();
        other.lock().unwrap();
        let error = bind(&path).await.unwrap_err();
        let ListenError::Listen { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::ResourceBusy);

        let (bound, ()) = tokio::join!(bind(&path), async {
            tokio::time::sleep(10 * LOCK_PAUSE).await;
            drop(other);
        });
        bound.unwrap();
    }
}
