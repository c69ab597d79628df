//! What few programs hold.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::kernel::{self, fd, ok};
use super::{Check, Make};

pub const ALL: &[(&str, Make)] = &[
    ("io-uring", io_uring),
    ("userfaultfd", userfaultfd),
    ("pidfd", pidfd),
    ("mqueue", mqueue),
    ("aio", aio),
    ("crypto-socket", crypto),
    ("bpf", bpf),
    ("perf", perf),
    ("fanotify", fanotify),
];

/// It is there, and no more is asked.
fn is_there(file: OwnedFd) -> Check {
    Box::new(move |_| {
        // SAFETY: numbers only.
        ok(unsafe { kernel::fcntl(file.as_raw_fd(), 1) }).map(drop)
    })
}

fn called(number: i64, arguments: [usize; 5]) -> io::Result<OwnedFd> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: whoever asks passes what the call wants.
    fd(unsafe { kernel::syscall(number, a, b, c, d, e) } as i32)
}

fn io_uring() -> io::Result<Check> {
    let mut parameters = [0_u8; 120];
    Ok(is_there(called(425, [8, parameters.as_mut_ptr() as usize, 0, 0, 0])?))
}

fn userfaultfd() -> io::Result<Check> {
    const CALL: i64 = if cfg!(target_arch = "aarch64") { 282 } else { 323 };
    // Of faults in user mode only.
    Ok(is_there(called(CALL, [1, 0, 0, 0, 0])?))
}

fn pidfd() -> io::Result<Check> {
    Ok(is_there(called(434, [std::process::id() as usize, 0, 0, 0, 0])?))
}

fn mqueue() -> io::Result<Check> {
    // SAFETY: the name outlives the call; O_RDWR | O_CREAT.
    Ok(is_there(unsafe { fd(kernel::mq_open(c"/kinds".as_ptr(), 0o102, 0o600, 0_usize))? }))
}

/// A context of Linux's own asynchronous reads.
fn aio() -> io::Result<Check> {
    const SETUP: i64 = if cfg!(target_arch = "aarch64") { 0 } else { 206 };
    const GETEVENTS: i64 = if cfg!(target_arch = "aarch64") { 4 } else { 208 };
    let mut context = 0_usize;
    // SAFETY: it outlives the call.
    ok(unsafe { kernel::syscall(SETUP, 8, &mut context) } as i32)?;
    Ok(Box::new(move |_| {
        // SAFETY: none is asked for.
        let taken =
            ok(unsafe { kernel::syscall(GETEVENTS, context, 0_usize, 0_usize, 0_usize, 0_usize) }
                as i32);
        match taken {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }))
}

fn crypto() -> io::Result<Check> {
    // SAFETY: numbers only.
    Ok(is_there(unsafe { fd(kernel::socket(38, 5, 0))? }))
}

fn bpf() -> io::Result<Check> {
    const CALL: i64 = if cfg!(target_arch = "aarch64") { 280 } else { 321 };
    let array = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    Ok(is_there(called(CALL, [0, array.as_ptr() as usize, 48, 0, 0])?))
}

fn perf() -> io::Result<Check> {
    const CALL: i64 = if cfg!(target_arch = "aarch64") { 241 } else { 298 };
    let mut attributes = [0_u32; 32];
    (attributes[0], attributes[1]) = (1, 128);
    Ok(is_there(called(CALL, [attributes.as_ptr() as usize, 0, usize::MAX, usize::MAX, 0])?))
}

fn fanotify() -> io::Result<Check> {
    const CALL: i64 = if cfg!(target_arch = "aarch64") { 262 } else { 300 };
    // FAN_REPORT_FID, which needs no privilege.
    Ok(is_there(called(CALL, [0x200, 0, 0, 0, 0])?))
}
