//! Locks on files.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;

use super::kernel::{self, Lock, ok};
use super::{Check, Make, must, same};

pub const ALL: &[(&str, Make)] =
    &[("flock", flock), ("posix-lock", posix), ("ofd-lock", ofd), ("lease", lease)];

const WRITE: i16 = 1;
const GETLK: i32 = 5;
const SETLK: i32 = 6;
const OFD_GETLK: i32 = 36;
const OFD_SETLK: i32 = 37;
const SETLEASE: i32 = 1024;
const GETLEASE: i32 = 1025;

/// A file, open twice: what the one has locked the other finds.
fn twice(path: &str) -> io::Result<[File; 2]> {
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(path);
    Ok([open()?, open()?])
}

fn flock() -> io::Result<Check> {
    let [held, other] = twice("/flock")?;
    held.lock()?;
    Ok(Box::new(move |_| {
        let _held = &held;
        must(matches!(other.try_lock(), Err(TryLockError::WouldBlock)), || "nobody holds it".into())
    }))
}

fn lock(file: &File, command: i32) -> io::Result<Lock> {
    let mut lock = Lock { kind: WRITE, start: 10, len: 20, ..Lock::default() };
    // SAFETY: the lock outlives the call, which may write into it.
    ok(unsafe { kernel::fcntl(file.as_raw_fd(), command, &mut lock) })?;
    Ok(lock)
}

fn posix() -> io::Result<Check> {
    let [held, other] = twice("/posix-lock")?;
    lock(&held, SETLK)?;
    // A process does not meet its own; an open file of another kind of lock does.
    Ok(Box::new(move |_| {
        let (_held, met) = (&held, lock(&other, OFD_GETLK)?);
        let own = std::process::id().cast_signed();
        same((met.kind, met.start, met.len, met.pid), (WRITE, 10, 20, own))
    }))
}

fn ofd() -> io::Result<Check> {
    let [held, other] = twice("/ofd-lock")?;
    lock(&held, OFD_SETLK)?;
    Ok(Box::new(move |_| {
        let (_held, met) = (&held, lock(&other, GETLK)?);
        same((met.kind, met.start, met.len, met.pid), (WRITE, 10, 20, -1))
    }))
}

fn lease() -> io::Result<Check> {
    std::fs::write("/lease", "")?;
    let file = File::open("/lease")?;
    // SAFETY: numbers only.
    ok(unsafe { kernel::fcntl(file.as_raw_fd(), SETLEASE, 0) })?;
    Ok(Box::new(move |_| {
        // SAFETY: numbers only.
        same(ok(unsafe { kernel::fcntl(file.as_raw_fd(), GETLEASE) })?, 0)
    }))
}
