//! The C library's calls that std has none for, and what is passed to them.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `struct itimerspec` and `struct itimerval`: the interval, then what is left.
pub type Timer = [[i64; 2]; 2];

/// `struct flock`, on 64 bits.
#[repr(C)]
#[derive(Default)]
pub struct Lock {
    pub kind: i16,
    pub whence: i16,
    pub start: i64,
    pub len: i64,
    pub pid: i32,
}

/// `struct epoll_event`.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy, Default)]
pub struct Event {
    pub events: u32,
    pub data: u64,
}

unsafe extern "C" {
    pub fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    pub fn ioctl(fd: c_int, request: std::ffi::c_ulong, ...) -> c_int;
    pub fn syscall(number: c_long, ...) -> c_long;
    pub fn timerfd_create(clock: c_int, flags: c_int) -> c_int;
    pub fn timerfd_settime(fd: c_int, flags: c_int, new: *const Timer, old: *mut Timer) -> c_int;
    pub fn timerfd_gettime(fd: c_int, now: *mut Timer) -> c_int;
    pub fn timer_create(clock: c_int, event: *const c_void, timer: *mut *mut c_void) -> c_int;
    pub fn timer_settime(
        timer: *mut c_void,
        flags: c_int,
        new: *const Timer,
        old: *mut Timer,
    ) -> c_int;
    pub fn setitimer(which: c_int, new: *const Timer, old: *mut Timer) -> c_int;
    pub fn clock_gettime(clock: c_int, now: *mut [i64; 2]) -> c_int;
    pub fn signal(signal: c_int, handler: extern "C" fn(c_int)) -> usize;
    pub fn sigprocmask(how: c_int, set: *const u64, old: *mut u64) -> c_int;
    pub fn sigqueue(pid: c_int, signal: c_int, value: usize) -> c_int;
    pub fn sigtimedwait(
        set: *const [u64; 16],
        info: *mut [u8; 128],
        within: *const [i64; 2],
    ) -> c_int;
    pub fn signalfd(fd: c_int, set: *const [u64; 16], flags: c_int) -> c_int;
    pub fn inotify_init1(flags: c_int) -> c_int;
    pub fn inotify_add_watch(fd: c_int, path: *const c_char, mask: u32) -> c_int;
    pub fn epoll_create1(flags: c_int) -> c_int;
    pub fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut Event) -> c_int;
    pub fn epoll_wait(epoll: c_int, events: *mut Event, most: c_int, within_ms: c_int) -> c_int;
    pub fn eventfd(value: c_uint, flags: c_int) -> c_int;
    pub fn pipe2(ends: *mut [c_int; 2], flags: c_int) -> c_int;
    pub fn mkfifo(path: *const c_char, mode: c_uint) -> c_int;
    pub fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    pub fn socketpair(family: c_int, kind: c_int, protocol: c_int, ends: *mut [c_int; 2]) -> c_int;
    pub fn bind(fd: c_int, address: *const c_void, len: c_uint) -> c_int;
    pub fn listen(fd: c_int, backlog: c_int) -> c_int;
    pub fn sendmsg(fd: c_int, message: *const c_void, flags: c_int) -> isize;
    pub fn recvmsg(fd: c_int, message: *mut c_void, flags: c_int) -> isize;
    pub fn shmget(key: c_int, len: usize, flags: c_int) -> c_int;
    pub fn shmat(id: c_int, at: *const c_void, flags: c_int) -> *mut c_void;
    pub fn semget(key: c_int, count: c_int, flags: c_int) -> c_int;
    pub fn semctl(id: c_int, number: c_int, command: c_int, ...) -> c_int;
    pub fn msgget(key: c_int, flags: c_int) -> c_int;
    pub fn msgsnd(id: c_int, message: *const c_void, len: usize, flags: c_int) -> c_int;
    pub fn msgrcv(id: c_int, message: *mut c_void, len: usize, kind: c_long, flags: c_int)
    -> isize;
    pub fn mq_open(name: *const c_char, flags: c_int, ...) -> c_int;
    pub fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    pub fn mmap(
        at: *mut c_void,
        len: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        from: c_long,
    ) -> *mut c_void;
    pub fn mlock(at: *const c_void, len: usize) -> c_int;
    pub fn madvise(at: *mut c_void, len: usize, advice: c_int) -> c_int;
    pub fn posix_openpt(flags: c_int) -> c_int;
    pub fn grantpt(fd: c_int) -> c_int;
    pub fn unlockpt(fd: c_int) -> c_int;
    pub fn ptsname_r(fd: c_int, name: *mut c_char, len: usize) -> c_int;
    pub fn tcgetattr(fd: c_int, attributes: *mut [u32; 15]) -> c_int;
    pub fn tcsetattr(fd: c_int, when: c_int, attributes: *const [u32; 15]) -> c_int;
    pub fn fork() -> c_int;
    pub fn setsid() -> c_int;
    pub fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    pub fn kill(pid: c_int, signal: c_int) -> c_int;
    pub fn ptrace(request: c_int, pid: c_int, at: usize, data: usize) -> c_long;
    pub fn getpriority(which: c_int, who: c_uint) -> c_int;
    pub fn setpriority(which: c_int, who: c_uint, priority: c_int) -> c_int;
    pub fn prctl(option: c_int, ...) -> c_int;
    pub fn umask(mask: c_uint) -> c_uint;
    pub fn setresuid(real: c_uint, effective: c_uint, saved: c_uint) -> c_int;
    pub fn unshare(flags: c_int) -> c_int;
}

/// What a call answered, or the C library's error.
pub fn ok(answer: c_int) -> io::Result<c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// The descriptor that a call made.
pub fn fd(answer: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just given it to us, and nobody else owns it.
    ok(answer).map(|raw| unsafe { OwnedFd::from_raw_fd(raw) })
}

/// New memory of whole pages, of a file where one is given.
pub fn map(len: usize, flags: c_int, fd: c_int) -> io::Result<&'static mut [u8]> {
    // SAFETY: a new mapping, which is never undone; it is used by whoever asked alone.
    unsafe {
        let at = mmap(std::ptr::null_mut(), len, 3, flags, fd, 0);
        if at as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(std::slice::from_raw_parts_mut(at.cast(), len))
    }
}

/// A clock's time in nanoseconds.
pub fn clock_ns(clock: c_int) -> io::Result<i64> {
    let mut now = [0; 2];
    // SAFETY: the kernel fills what it is given.
    ok(unsafe { clock_gettime(clock, &mut now) })?;
    Ok(now[0] * 1_000_000_000 + now[1])
}
