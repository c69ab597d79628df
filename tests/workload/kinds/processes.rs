//! What a process is besides its memory and files.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use super::kernel::{self, map, ok};
use super::{Check, Make, must, same};

pub const ALL: &[(&str, Make)] = &[
    ("child", child),
    ("zombie", zombie),
    ("stopped", stopped),
    ("threads", threads),
    ("nice", nice),
    ("thread-name", thread_name),
    ("subreaper", subreaper),
    ("umask", umask),
    ("parent-death", parent_death),
    ("other-user", other_user),
    ("traced", traced),
    ("namespace", namespace),
];

const SIGSTOP: i32 = 19;

/// The pid of a child that does what it is given, and ends.
fn fork(does: impl FnOnce()) -> io::Result<i32> {
    // SAFETY: whoever asks has no thread that holds a lock of what the child uses.
    let pid = ok(unsafe { kernel::fork() })?;
    if pid == 0 {
        does();
        std::process::exit(3);
    }
    Ok(pid)
}

fn forever() {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// The letter in /proc that says what it does.
fn state(pid: i32) -> io::Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.get(..1));
    Ok(state.unwrap_or_default().to_owned())
}

fn child() -> io::Result<Check> {
    let pid = fork(forever)?;
    Ok(Box::new(move |_| must(matches!(&*state(pid)?, "R" | "S"), || "it is gone".into())))
}

/// Waits until it is so.
fn await_state(pid: i32, wanted: &str) -> io::Result<()> {
    while state(pid)? != wanted {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// One that has ended, and nobody has asked how.
fn zombie() -> io::Result<Check> {
    let mut pid = fork(|| ())?;
    await_state(pid, "Z")?;
    let mut age = 0;
    Ok(Box::new(move |_| {
        same(state(pid)?.as_str(), "Z")?;
        age += 1;
        // A second of rounds: what is asked in the end must be right, too.
        if age == 50 {
            let mut status = 0;
            // SAFETY: the status outlives the call.
            same(ok(unsafe { kernel::waitpid(pid, &mut status, 0) })?, pid)?;
            same(status, 3 << 8)?;
            (pid, age) = (fork(|| ())?, 0);
            await_state(pid, "Z")?;
        }
        Ok(())
    }))
}

fn stopped() -> io::Result<Check> {
    let pid = fork(forever)?;
    // SAFETY: numbers only.
    ok(unsafe { kernel::kill(pid, SIGSTOP) })?;
    await_state(pid, "T")?;
    Ok(Box::new(move |_| same(state(pid)?.as_str(), "T")))
}

thread_local!(static OWN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });

/// Four that each have a number of their own and wait for the next.
fn threads() -> io::Result<Check> {
    let all = [1, 2, 3, 4].map(|number| {
        let (ask, questions) = mpsc::channel::<mpsc::Sender<u64>>();
        std::thread::spawn(move || {
            OWN.set(number);
            for answer in questions {
                let _gone = answer.send(OWN.get());
                OWN.set(OWN.get() + 4);
            }
        });
        ask
    });
    Ok(Box::new(move |round| {
        for (ask, number) in all.iter().zip(1..) {
            let (answer, own) = mpsc::channel();
            ask.send(answer).map_err(io::Error::other)?;
            same(own.recv().map_err(io::Error::other)?, number + 4 * (round - 1))?;
        }
        Ok(())
    }))
}

fn nice() -> io::Result<Check> {
    // SAFETY: numbers only.
    ok(unsafe { kernel::setpriority(0, 0, 7) })?;
    // SAFETY: numbers only.
    Ok(Box::new(|_| same(unsafe { kernel::getpriority(0, 0) }, 7)))
}

fn thread_name() -> io::Result<Check> {
    // SAFETY: the name outlives the call.
    ok(unsafe { kernel::prctl(15, c"renamed".as_ptr()) })?;
    Ok(Box::new(|_| same(std::fs::read_to_string("/proc/self/comm")?.as_str(), "renamed\n")))
}

/// It gets the children of those that end.
fn subreaper() -> io::Result<Check> {
    // SAFETY: numbers only.
    ok(unsafe { kernel::prctl(36, 1) })?;
    Ok(Box::new(|_| {
        let mut is_one = 0;
        // SAFETY: it outlives the call.
        ok(unsafe { kernel::prctl(37, &mut is_one) })?;
        same(is_one, 1)
    }))
}

fn umask() -> io::Result<Check> {
    // SAFETY: numbers only.
    unsafe { kernel::umask(0o7) };
    // SAFETY: numbers only.
    Ok(Box::new(|_| same(unsafe { kernel::umask(0o7) }, 0o7)))
}

/// A child that is to die with its parent still would.
fn parent_death() -> io::Result<Check> {
    let answer = map(4096, 0x21, -1)?;
    let at = answer.as_mut_ptr();
    let pid = fork(move || {
        // SAFETY: numbers only.
        unsafe { kernel::prctl(1, 9) };
        loop {
            let mut signal = 0;
            // SAFETY: it outlives the call; the memory is shared with the parent.
            unsafe {
                kernel::prctl(2, &mut signal);
                at.write_volatile(signal as u8);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })?;
    Ok(Box::new(move |round| {
        same(state(pid)?.is_empty(), false)?;
        // SAFETY: the child writes it, a byte.
        let found = unsafe { at.read_volatile() };
        must(found == 9 || round < 20, || format!("signal {found}"))
    }))
}

fn other_user() -> io::Result<Check> {
    let pid = fork(|| {
        // SAFETY: numbers only.
        unsafe { kernel::setresuid(1234, 1234, 1234) };
        forever();
    })?;
    Ok(Box::new(move |_| must(matches!(&*state(pid)?, "R" | "S"), || "it is gone".into())))
}

/// A process that another one has stopped to look at it.
fn traced() -> io::Result<Check> {
    let pid = fork(|| {
        // SAFETY: numbers only: PTRACE_TRACEME.
        unsafe { kernel::ptrace(0, 0, 0, 0) };
        // SAFETY: numbers only.
        unsafe { kernel::kill(std::process::id().cast_signed(), SIGSTOP) };
        forever();
    })?;
    await_state(pid, "t")?;
    Ok(Box::new(move |_| same(state(pid)?.as_str(), "t")))
}

/// A child with a user namespace of its own.
fn namespace() -> io::Result<Check> {
    // SAFETY: numbers only.
    ok(unsafe { kernel::unshare(0x1000_0000) })?;
    Ok(Box::new(|_| Ok(())))
}
