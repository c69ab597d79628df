//! Memory that is more than a process's own.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::kernel::{self, fd, map, ok};
use super::{Check, Make, must, same};

pub const ALL: &[(&str, Make)] = &[
    ("sysv-shm", sysv_shm),
    ("sysv-sem", sysv_sem),
    ("sysv-msg", sysv_msg),
    ("posix-shm", posix_shm),
    ("memfd", memfd),
    ("memfd-sealed", memfd_sealed),
    ("shared-memory", shared),
    ("mapped-file", mapped_file),
    ("private-mapping", private_mapping),
    ("mlock", mlock),
    ("huge-pages", huge_pages),
    ("huge-advice", huge_advice),
];

const PAGES: usize = 16 * 4096;
const SHARED: i32 = 1;
const PRIVATE: i32 = 2;
const ANONYMOUS: i32 = 0x20;

/// Each page has what the round before has put there.
fn holds(memory: &'static mut [u8]) -> Check {
    Box::new(move |round| {
        for (page, at) in memory.chunks_mut(4096).zip(0..) {
            let wanted = if round == 1 { page[0] } else { (round - 1) as u8 ^ at };
            same(page[0], wanted)?;
            page[0] = round as u8 ^ at;
        }
        Ok(())
    })
}

fn sysv_shm() -> io::Result<Check> {
    // SAFETY: the segment is attached twice, and lives as long as the program.
    let [one, other] = unsafe {
        let id = ok(kernel::shmget(77, PAGES, 0o1600))?;
        [(); 2].map(|()| kernel::shmat(id, std::ptr::null(), 0).cast::<u8>())
    };
    // SAFETY: as above.
    let mut check = holds(unsafe { std::slice::from_raw_parts_mut(one, PAGES) });
    Ok(Box::new(move |round| {
        check(round)?;
        // SAFETY: as above; nobody writes meanwhile.
        same(unsafe { other.read_volatile() }, round as u8)?;
        // SAFETY: numbers only.
        ok(unsafe { kernel::shmget(77, PAGES, 0) }).map(drop)
    }))
}

fn sysv_sem() -> io::Result<Check> {
    // SAFETY: numbers only.
    let id = unsafe { ok(kernel::semget(78, 2, 0o1600))? };
    Ok(Box::new(move |round| {
        // SAFETY: numbers only.
        unsafe {
            same(ok(kernel::semctl(id, 1, 12))?, ((round - 1) % 30_000) as i32)?;
            ok(kernel::semctl(id, 1, 16, (round % 30_000) as i32)).map(drop)
        }
    }))
}

fn sysv_msg() -> io::Result<Check> {
    // SAFETY: numbers only.
    let id = unsafe { ok(kernel::msgget(79, 0o1600))? };
    Ok(Box::new(move |round| {
        for kind in [5, 6] {
            let mut message = [0_u64; 2];
            if round > 1 {
                // SAFETY: room for what is asked.
                let len =
                    unsafe { kernel::msgrcv(id, message.as_mut_ptr().cast(), 8, kind, 0o4000) };
                same(len, 8)?;
                same(message, [kind as u64, round - 1])?;
            }
        }
        for kind in [5, 6] {
            // SAFETY: it outlives the call.
            ok(unsafe { kernel::msgsnd(id, [kind, round].as_ptr().cast(), 8, 0) })?;
        }
        Ok(())
    }))
}

fn posix_shm() -> io::Result<Check> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open("/dev/shm/kinds")?;
    file.set_len(PAGES as u64)?;
    Ok(holds(map(PAGES, SHARED, file.as_raw_fd())?))
}

fn memfd_with(flags: u32) -> io::Result<File> {
    // SAFETY: the name outlives the call.
    let file = File::from(unsafe { fd(kernel::memfd_create(c"kinds".as_ptr(), flags))? });
    file.set_len(PAGES as u64)?;
    Ok(file)
}

fn memfd() -> io::Result<Check> {
    let file = memfd_with(0)?;
    let mut check = holds(map(PAGES, SHARED, file.as_raw_fd())?);
    Ok(Box::new(move |round| {
        check(round)?;
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 0)?;
        same(byte[0], round as u8)
    }))
}

fn memfd_sealed() -> io::Result<Check> {
    let file = memfd_with(2)?;
    // SAFETY: numbers only. F_ADD_SEALS: neither shorter, nor written, nor otherwise sealed.
    ok(unsafe { kernel::fcntl(file.as_raw_fd(), 1033, 1 | 2 | 8) })?;
    Ok(Box::new(move |_| {
        // SAFETY: numbers only.
        same(ok(unsafe { kernel::fcntl(file.as_raw_fd(), 1034) })?, 1 | 2 | 8)
    }))
}

/// Shared with a child, which answers each round in it.
fn shared() -> io::Result<Check> {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    let memory = map(PAGES, SHARED | ANONYMOUS, -1)?;
    // SAFETY: aligned, zeroed, alive for ever, and used by nobody otherwise.
    let words: &[AtomicU64] = unsafe { std::slice::from_raw_parts(memory.as_ptr().cast(), 2) };
    // SAFETY: there is no other thread.
    if ok(unsafe { kernel::fork() })? == 0 {
        loop {
            words[1].store(words[0].load(SeqCst), SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    Ok(Box::new(move |round| {
        words[0].store(round, SeqCst);
        // Within a minute, if it lives.
        for _ in 0..60_000 {
            if words[1].load(SeqCst) == round {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Err(io::Error::other("the other does not answer"))
    }))
}

fn mapped_file() -> io::Result<Check> {
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open("/mapped")?;
    file.set_len(PAGES as u64)?;
    let mut check = holds(map(PAGES, SHARED, file.as_raw_fd())?);
    Ok(Box::new(move |round| {
        check(round)?;
        same(std::fs::read("/mapped")?[0], round as u8)
    }))
}

/// A file's memory, changed for this process alone.
fn private_mapping() -> io::Result<Check> {
    std::fs::write("/private", vec![9; PAGES])?;
    let file = File::options().read(true).write(true).open("/private")?;
    let memory = map(PAGES, PRIVATE, file.as_raw_fd())?;
    memory[4096] = 1;
    Ok(Box::new(move |round| {
        same((memory[0], memory[4096]), (9, round as u8))?;
        memory[4096] = (round + 1) as u8;
        same(std::fs::read("/private")?[4096], 9)
    }))
}

/// A number of `/proc/self/status`.
fn status(name: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number =
        line.and_then(|line| line.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok());
    number.ok_or_else(|| io::Error::other(format!("no {name}")))
}

fn mlock() -> io::Result<Check> {
    let memory = map(PAGES, PRIVATE | ANONYMOUS, -1)?;
    // SAFETY: that memory is there for ever.
    ok(unsafe { kernel::mlock(memory.as_ptr().cast(), PAGES) })?;
    let locked = status("VmLck:")?;
    must(locked >= 64, || format!("{locked} KiB are locked"))?;
    Ok(Box::new(move |_| same(status("VmLck:")?, locked)))
}

fn huge_pages() -> io::Result<Check> {
    Ok(holds(map(2 << 20, PRIVATE | ANONYMOUS | 0x40000, -1)?))
}

/// Memory for which huge pages were asked: the wish stays.
fn huge_advice() -> io::Result<Check> {
    let memory = map(8 << 20, PRIVATE | ANONYMOUS, -1)?;
    // SAFETY: that memory is there for ever.
    ok(unsafe { kernel::madvise(memory.as_mut_ptr().cast(), 8 << 20, 14) })?;
    let at = format!("{:x}-", memory.as_ptr() as usize);
    Ok(Box::new(move |round| {
        memory[0] = round as u8;
        let all = std::fs::read_to_string("/proc/self/smaps")?;
        let own = all.split_once(&at).and_then(|(_, rest)| rest.split_once("VmFlags:"));
        let flags = own.and_then(|(_, rest)| rest.lines().next()).unwrap_or_default().to_owned();
        must(flags.contains(" hg"), || format!("{flags}"))
    }))
}
