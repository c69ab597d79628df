//! What tells of something else.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

use super::kernel::{self, Event, fd, ok};
use super::{Check, Make, same};

pub const ALL: &[(&str, Make)] = &[
    ("inotify", inotify),
    ("epoll", epoll),
    ("epoll-edge", epoll_edge),
    ("eventfd", eventfd),
    ("signalfd", signalfd),
    ("pending-signal", pending_signal),
];

const NONBLOCK: i32 = 0o4000;
const CREATE: u32 = 0x100;
const DELETE: u32 = 0x200;
const SIGUSR1: i32 = 10;
const QUEUED: i32 = 40;

/// A watch of a directory: each round adds and removes, and reads both of the round itself.
/// CRIU keeps a watch, not what it had to say.
fn inotify() -> io::Result<Check> {
    std::fs::create_dir_all("/watched")?;
    let path = CString::new("/watched")?;
    // SAFETY: the path outlives the call.
    let file = unsafe {
        let file = fd(kernel::inotify_init1(NONBLOCK))?;
        ok(kernel::inotify_add_watch(file.as_raw_fd(), path.as_ptr(), CREATE | DELETE))?;
        file
    };
    let mut file = File::from(file);
    Ok(Box::new(move |_| {
        std::fs::write("/watched/it", "")?;
        std::fs::remove_file("/watched/it")?;
        let mut said = [0; 4096];
        let len = file.read(&mut said)?;
        let masks: Vec<u32> = said[..len]
            .chunks(32)
            .map(|event| u32::from_ne_bytes([event[4], event[5], event[6], event[7]]))
            .collect();
        same(masks, vec![CREATE, DELETE])
    }))
}

/// An eventfd that has something to say, watched.
fn watched(events: u32) -> io::Result<(File, std::os::fd::OwnedFd)> {
    let mut event = Event { events, data: 77 };
    // SAFETY: the event outlives the call.
    unsafe {
        let (file, epoll) = (fd(kernel::eventfd(0, 0))?, fd(kernel::epoll_create1(0))?);
        ok(kernel::epoll_ctl(epoll.as_raw_fd(), 1, file.as_raw_fd(), &mut event))?;
        Ok((File::from(file), epoll))
    }
}

fn next(epoll: &impl AsRawFd) -> io::Result<Vec<(u32, u64)>> {
    let mut events = [Event::default(); 4];
    // SAFETY: as many events as are said.
    let count = ok(unsafe { kernel::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), 4, 0) })?;
    Ok(events[..count as usize].iter().map(|event| (event.events, event.data)).collect())
}

/// The event is pending all the time, and is said as often as is asked.
fn epoll() -> io::Result<Check> {
    let (mut file, epoll) = watched(1)?;
    file.write_all(&1_u64.to_ne_bytes())?;
    Ok(Box::new(move |_| {
        let _open = &file;
        same(next(&epoll)?, vec![(1, 77)])
    }))
}

/// Pending from one round to the next, and then said once.
fn epoll_edge() -> io::Result<Check> {
    const EDGE: u32 = 1 << 31;
    let (mut file, epoll) = watched(1 | EDGE)?;
    file.write_all(&1_u64.to_ne_bytes())?;
    Ok(Box::new(move |_| {
        same(next(&epoll)?, vec![(1, 77)])?;
        same(next(&epoll)?, vec![])?;
        file.write_all(&1_u64.to_ne_bytes())
    }))
}

/// It has what was added to it.
fn eventfd() -> io::Result<Check> {
    // SAFETY: numbers only.
    let mut file = File::from(unsafe { fd(kernel::eventfd(3, 0))? });
    Ok(Box::new(move |_| {
        let mut value = [0; 8];
        file.read_exact(&mut value)?;
        same(u64::from_ne_bytes(value), 3)?;
        file.write_all(&3_u64.to_ne_bytes())
    }))
}

fn blocked(signal: i32) -> io::Result<[u64; 16]> {
    let mut set = [0; 16];
    set[0] = 1 << (signal - 1);
    // SAFETY: the set outlives the call; the signal is nobody else's.
    ok(unsafe { kernel::sigprocmask(0, set.as_ptr(), std::ptr::null_mut()) })?;
    Ok(set)
}

/// A signal is sent in one round and read in the next.
fn signalfd() -> io::Result<Check> {
    let set = blocked(SIGUSR1)?;
    // SAFETY: the set outlives the call.
    let mut file = File::from(unsafe { fd(kernel::signalfd(-1, &set, NONBLOCK))? });
    Ok(Box::new(move |round| {
        let mut info = [0; 128];
        if round > 1 {
            file.read_exact(&mut info)?;
            same(info[0], SIGUSR1 as u8)?;
        }
        // SAFETY: numbers only.
        ok(unsafe { kernel::kill(std::process::id().cast_signed(), SIGUSR1) }).map(drop)
    }))
}

/// Two of a kind that queues, each with a value.
fn pending_signal() -> io::Result<Check> {
    let set = blocked(QUEUED)?;
    Ok(Box::new(move |round| {
        for value in [round, round + 1] {
            let mut info = [0; 128];
            if round > 1 {
                // SAFETY: all outlive the call.
                ok(unsafe { kernel::sigtimedwait(&set, &mut info, &[0, 0]) })?;
                let [.., _] = info;
                let bytes = [info[24], info[25], info[26], info[27]];
                same(u64::from(u32::from_ne_bytes(bytes)), value - 1)?;
            }
        }
        for value in [round, round + 1] {
            // SAFETY: numbers only.
            ok(unsafe {
                kernel::sigqueue(std::process::id().cast_signed(), QUEUED, value as usize)
            })?;
        }
        Ok(())
    }))
}
