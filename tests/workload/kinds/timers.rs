//! Timers, and the clocks they run by.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::kernel::{self, Timer, clock_ns, fd, ok};
use super::{Check, Make, must};

pub const ALL: &[(&str, Make)] = &[
    ("timerfd", timerfd),
    ("timerfd-far", timerfd_far),
    ("posix-timer", posix_timer),
    ("itimer", itimer),
    ("monotonic", monotonic),
    ("boottime", boottime),
];

const MONOTONIC: i32 = 1;
const BOOTTIME: i32 = 7;
const SIGALRM: i32 = 14;
const SIGUSR2: i32 = 12;
/// Every 5 ms, which is several times a round.
const OFTEN: Timer = [[0, 5_000_000]; 2];
/// Once, in a day.
const DAY: Timer = [[0, 0], [86_400, 0]];

fn timerfd() -> io::Result<Check> {
    // SAFETY: numbers, and a timer that outlives the call.
    let file = unsafe {
        let file = fd(kernel::timerfd_create(MONOTONIC, 0))?;
        ok(kernel::timerfd_settime(file.as_raw_fd(), 0, &OFTEN, std::ptr::null_mut()))?;
        file
    };
    let mut file = std::fs::File::from(file);
    // One that has stopped is never heard of again, and nothing else neither.
    Ok(Box::new(move |_| file.read_exact(&mut [0; 8])))
}

/// What is left of a day goes down by the clock's own measure.
fn goes_by(left: impl Fn() -> io::Result<Timer> + 'static) -> io::Result<Check> {
    let begun = clock_ns(MONOTONIC)?;
    Ok(Box::new(move |_| {
        let [_, left] = left()?;
        let gone = (clock_ns(MONOTONIC)? - begun) / 1_000_000_000;
        let left = left[0] + gone - DAY[1][0];
        must((-2..=1).contains(&left), || format!("{left} s too many are left"))
    }))
}

fn timerfd_far() -> io::Result<Check> {
    // SAFETY: numbers, and a timer that outlives the call.
    let file = unsafe {
        let file = fd(kernel::timerfd_create(MONOTONIC, 0))?;
        ok(kernel::timerfd_settime(file.as_raw_fd(), 0, &DAY, std::ptr::null_mut()))?;
        file
    };
    goes_by(move || {
        let mut now = Timer::default();
        // SAFETY: the kernel fills what it is given.
        ok(unsafe { kernel::timerfd_gettime(file.as_raw_fd(), &mut now) })?;
        Ok(now)
    })
}

fn posix_timer() -> io::Result<Check> {
    let mut timer = std::ptr::null_mut();
    // `struct sigevent`: the value, the signal, SIGEV_SIGNAL.
    let mut event = [0_u64; 8];
    event[1] = SIGUSR2 as u64;
    HEARD[1].store(0, Ordering::Relaxed);
    // SAFETY: all that is passed outlives the calls; the handler only counts.
    unsafe {
        kernel::signal(SIGUSR2, heard);
        ok(kernel::timer_create(MONOTONIC, event.as_ptr().cast(), &mut timer))?;
        ok(kernel::timer_settime(timer, 0, &OFTEN, std::ptr::null_mut()))?;
    }
    Ok(hears(1))
}

fn itimer() -> io::Result<Check> {
    // `struct itimerval` has microseconds where the others have nanoseconds.
    let often = [[0, 5_000]; 2];
    // SAFETY: as above.
    unsafe {
        kernel::signal(SIGALRM, heard);
        ok(kernel::setitimer(0, &often, std::ptr::null_mut()))?;
    }
    Ok(hears(0))
}

/// Signals so far: of `setitimer`, of `timer_create`.
static HEARD: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

extern "C" fn heard(signal: i32) {
    HEARD[usize::from(signal == SIGUSR2)].fetch_add(1, Ordering::Relaxed);
}

/// More signals within some rounds.
fn hears(which: usize) -> Check {
    let mut at = (0, 0);
    Box::new(move |round| {
        let now = HEARD[which].load(Ordering::Relaxed);
        if now > at.1 {
            at = (round, now);
        }
        must(round < at.0 + 20, || format!("no signal since {now}"))
    })
}

/// It goes on from where it was: neither back, nor by more than there were rounds for.
fn clock(clock: i32) -> io::Result<Check> {
    let mut last = clock_ns(clock)?;
    Ok(Box::new(move |_| {
        let now = clock_ns(clock)?;
        let (before, passed_ms) = (last, (now - last) / 1_000_000);
        last = now;
        must(now >= before && passed_ms < 60_000, || format!("it jumped by {passed_ms} ms"))
    }))
}

fn monotonic() -> io::Result<Check> {
    clock(MONOTONIC)
}

fn boottime() -> io::Result<Check> {
    clock(BOOTTIME)
}
