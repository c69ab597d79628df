//! Pipes, and what is in them; terminals.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use super::kernel::{self, fd, ok};
use super::{Check, Make, same};

pub const ALL: &[(&str, Make)] = &[
    ("pipe", pipe),
    ("pipe-packets", pipe_packets),
    ("pipe-size", pipe_size),
    ("fifo", fifo),
    ("pty", pty),
    ("pty-shell", pty_shell),
    ("pty-unread", pty_unread),
];

/// What is under way from one round to the next.
fn text(round: u64) -> Vec<u8> {
    round.to_ne_bytes().repeat(1000)
}

fn ends(flags: i32) -> io::Result<[File; 2]> {
    let mut raw = [0; 2];
    // SAFETY: the kernel fills what it is given, with descriptors that nobody else owns.
    unsafe {
        ok(kernel::pipe2(&mut raw, flags))?;
        Ok([fd(raw[0])?.into(), fd(raw[1])?.into()])
    }
}

/// Reads what the round before has written, and writes.
pub fn under_way(mut from: impl Read + 'static, mut into: impl Write + 'static) -> Check {
    Box::new(move |round| {
        if round > 1 {
            let mut found = text(round);
            from.read_exact(&mut found)?;
            same(found == text(round - 1), true)?;
        }
        into.write_all(&text(round))
    })
}

fn pipe() -> io::Result<Check> {
    let [from, into] = ends(0)?;
    Ok(under_way(from, into))
}

/// Two packets stay two.
fn pipe_packets() -> io::Result<Check> {
    const DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o200_000 } else { 0o40_000 };
    let [mut from, mut into] = ends(DIRECT)?;
    Ok(Box::new(move |round| {
        for part in [&b"one"[..], b"second"] {
            let mut found = [0; 100];
            if round > 1 {
                let len = from.read(&mut found)?;
                same(&found[..len], part)?;
            }
        }
        into.write_all(b"one")?;
        into.write_all(b"second")
    }))
}

fn pipe_size() -> io::Result<Check> {
    let [from, into] = ends(0)?;
    // SAFETY: numbers only.
    let size = ok(unsafe { kernel::fcntl(into.as_raw_fd(), 1031, 1 << 18) })?;
    Ok(Box::new(move |_| {
        // SAFETY: numbers only.
        same(ok(unsafe { kernel::fcntl(from.as_raw_fd(), 1032) })?, size)
    }))
}

fn fifo() -> io::Result<Check> {
    let path = CString::new("/fifo")?;
    // SAFETY: the path outlives the call.
    ok(unsafe { kernel::mkfifo(path.as_ptr(), 0o600) })?;
    let both = File::options().read(true).write(true).open("/fifo")?;
    Ok(under_way(both.try_clone()?, both))
}

/// A terminal's two ends.
fn terminal() -> io::Result<(File, File)> {
    let mut name = [0; 100];
    // SAFETY: the name has room for what is said.
    let master = unsafe {
        let master = fd(kernel::posix_openpt(0o2 | 0o400))?;
        ok(kernel::grantpt(master.as_raw_fd()))?;
        ok(kernel::unlockpt(master.as_raw_fd()))?;
        ok(kernel::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len()))?;
        master
    };
    let name: Vec<u8> =
        name.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    let name = String::from_utf8(name).map_err(io::Error::other)?;
    let slave = File::options().read(true).write(true).custom_flags(0o400).open(name)?;
    Ok((master.into(), slave))
}

/// No echo, and its window's size: both are kept.
fn pty() -> io::Result<Check> {
    let (mut master, slave) = terminal()?;
    let mut attributes = [0; 15];
    // SAFETY: `struct termios` is 60 bytes, of which the fourth word has the local modes; the
    // window's size is four numbers.
    unsafe {
        ok(kernel::tcgetattr(slave.as_raw_fd(), &mut attributes))?;
        attributes[3] &= !0o10;
        ok(kernel::tcsetattr(slave.as_raw_fd(), 0, &attributes))?;
        ok(kernel::ioctl(master.as_raw_fd(), 0x5414, &[43_u16, 132, 0, 0]))?;
    }
    let mut lines = BufReader::new(slave);
    Ok(Box::new(move |round| {
        let (mut now, mut size) = ([0; 15], [0_u16; 4]);
        // SAFETY: as above.
        unsafe {
            ok(kernel::tcgetattr(lines.get_ref().as_raw_fd(), &mut now))?;
            ok(kernel::ioctl(lines.get_ref().as_raw_fd(), 0x5413, &mut size))?;
        }
        same(now, attributes)?;
        same(size[..2].to_vec(), vec![43, 132])?;
        let mut line = String::new();
        if round > 1 {
            lines.read_line(&mut line)?;
            same(line, format!("line {}\n", round - 1))?;
        }
        writeln!(master, "line {round}")
    }))
}

/// A child that a terminal controls, as a shell's: it answers what is typed, in the round itself or
/// when it has been left until the next.
fn pty_child(is_left: bool) -> io::Result<Check> {
    let (mut master, slave) = terminal()?;
    let stdio = || slave.try_clone().map(Stdio::from);
    let mut command = Command::new("/proc/self/exe");
    command.arg("echo").stdin(stdio()?).stdout(stdio()?).stderr(stdio()?);
    // SAFETY: two calls that are safe between fork and exec.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            ok(kernel::setsid())?;
            ok(kernel::ioctl(0, 0x540e, 0)).map(drop)
        });
    }
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(master.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    Ok(Box::new(move |round| {
        // The terminal's echo, then the child's answer.
        let mut take = |round: u64| {
            for wanted in [format!("word {round}\r\n"), format!("heard word {round}\r\n")] {
                let mut line = String::new();
                lines.read_line(&mut line)?;
                same(line, wanted)?;
            }
            Ok::<_, io::Error>(())
        };
        if is_left && round > 1 {
            take(round - 1)?;
        }
        writeln!(master, "word {round}")?;
        same(child.try_wait()?.is_none(), true)?;
        if is_left { Ok(()) } else { take(round) }
    }))
}

fn pty_shell() -> io::Result<Check> {
    pty_child(false)
}

fn pty_unread() -> io::Result<Check> {
    pty_child(true)
}

/// What [`pty_shell`]'s child does: answers each line, as long as it has a terminal.
pub fn echo() -> io::Result<()> {
    println!("listens");
    for line in io::stdin().lines() {
        drop(File::open("/dev/tty")?);
        println!("heard {}", line?);
    }
    Ok(())
}
