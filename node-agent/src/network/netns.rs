//! Named network namespaces, as `ip netns` makes them: a bind mount in /run/netns.
//!
//! A thread is the unit that enters a namespace, so whatever must be done in one is done
//! by a thread that lives for that alone.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use super::NetworkError;

/// Where `ip netns` looks.
const DIR: &str = "/run/netns";

/// The groups of users who may send ICMP echoes without a privilege.
const PINGERS: &str = "/proc/sys/net/ipv4/ping_group_range";

/// Where the namespace of that name is.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// True when a namespace is mounted there, not only the file that one is mounted on.
pub(super) fn is_mounted(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Makes the namespace; made already is success.
pub(super) async fn ensure(path: &Path) -> Result<(), NetworkError> {
    if is_mounted(path) {
        return Ok(());
    }
    let at = path.to_owned();
    on_thread(move || {
        fs::create_dir_all(DIR)?;
        fs::File::create(&at)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        // As podman has it where it makes a container, which it does not do where one is restored.
        fs::write(PINGERS, "0 0")?;
        // By the thread's own name in /proc: /proc/self is the process, which stays where it is.
        let own = "/proc/thread-self/ns/net";
        mount(Some(own), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    })
    .await
    .map_err(|source| NetworkError::Io {
        what: format!("making namespace {}", path.display()),
        source,
    })
}

/// Removes the namespace's name; absent is success.
pub(super) async fn remove(path: &Path) -> Result<(), NetworkError> {
    let at = path.to_owned();
    let removed = on_thread(move || {
        // Mounts may lie on one another; the last one's absence ends it.
        while umount2(&at, MntFlags::MNT_DETACH).is_ok() {}
        match fs::remove_file(&at) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    });
    removed.await.map_err(|source| NetworkError::Io {
        what: format!("removing namespace {}", path.display()),
        source,
    })
}

/// Runs `work` on a thread of its own that has entered the namespace, inside the runtime.
pub(crate) async fn inside<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = fs::File::open(path)?;
    let runtime = tokio::runtime::Handle::current();
    on_thread(move || {
        let _runtime = runtime.enter();
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        work()
    })
    .await
}

/// Runs `work` on a thread that is never used again: its namespace dies with it.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("netns".into()).spawn(move || {
        // Nobody listens when the caller was cancelled.
        let _cancelled = sender.send(work());
    })?;
    receiver.await.map_err(|_| io::Error::other("the namespace's thread panicked"))?
}
