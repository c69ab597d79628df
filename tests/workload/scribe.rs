//! Writes into a directory all the time, in every way that there is, and checks all the while
//! that what it reads there is what it wrote. What it knows is in its memory; started again, it
//! finds in the files themselves whether they are whole.
//!
//!     scribe DIRECTORY            writes and checks until it is killed
//!     scribe fixtures DIRECTORY   makes one of everything that can be in a directory, and ends
//!
//! It says `resumed at N` and `checked N` (so many writes), or `WRONG: …`, and writes no more.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// What is written at once into large files.
const BLOCK: usize = 4096;
/// Blocks of the file that is written, and of the one that is mapped.
const BLOCKS: u64 = 4096;
/// Small files that come and go.
const SMALL: u64 = 40;

unsafe extern "C" {
    fn mmap(at: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, from: c_long) -> *mut c_void;
    fn setxattr(path: *const c_char, name: *const c_char, value: *const c_void, len: usize, flags: c_int) -> c_int;
    fn mkfifo(path: *const c_char, mode: u32) -> c_int;
    fn lchown(path: *const c_char, owner: u32, group: u32) -> c_int;
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fixtures", dir] => fixtures(Path::new(dir)),
        [dir] => scribe(Path::new(dir)),
        _ => Err(io::Error::other("scribe [fixtures] DIRECTORY")),
    };
    if let Err(error) = done {
        println!("WRONG: {error}");
        // Whoever looks into it wants to find all as it is.
        loop {
            thread::park();
        }
    }
}

/// All that it wrote.
struct Book {
    dir: PathBuf,
    log: File,
    written: File,
    mapped: File,
    map: *mut u8,
    /// By which write each block was written, in the file and by memory; 0 for none.
    blocks: Vec<u64>,
    pages: Vec<u64>,
    small: BTreeMap<u64, u64>,
    count: u64,
}

fn scribe(dir: &Path) -> io::Result<()> {
    let mut book = Book::open(dir)?;
    println!("resumed at {}", book.count);
    loop {
        for _ in 0..200 {
            book.write()?;
            thread::sleep(Duration::from_millis(1));
        }
        book.check()?;
        println!("checked {}", book.count);
    }
}

impl Book {
    fn open(dir: &Path) -> io::Result<Self> {
        let open = |name: &str| File::options().read(true).write(true).create(true).open(dir.join(name));
        let log = File::options().read(true).append(true).create(true).open(dir.join("log"))?;
        let (written, mapped) = (open("written")?, open("mapped")?);
        written.set_len(BLOCKS * BLOCK as u64)?;
        mapped.set_len(BLOCKS * BLOCK as u64)?;
        let len = BLOCKS as usize * BLOCK;
        // SAFETY: a new mapping of a file that keeps its length; read and written through `map` only.
        let map = unsafe { mmap(std::ptr::null_mut(), len, 3, 1, mapped.as_raw_fd(), 0) }.cast::<u8>();
        if map as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        let mut book = Self {
            dir: dir.to_owned(), log, written, mapped, map,
            blocks: vec![0; BLOCKS as usize], pages: vec![0; BLOCKS as usize],
            small: BTreeMap::new(), count: 0,
        };
        book.count = fs::read_to_string(dir.join("log"))?.lines().count() as u64;
        for at in 0..BLOCKS {
            let number = |file: &File| -> io::Result<u64> {
                let mut bytes = [0; 8];
                file.read_exact_at(&mut bytes, at * BLOCK as u64)?;
                Ok(u64::from_le_bytes(bytes))
            };
            book.blocks[at as usize] = number(&book.written)?;
            book.pages[at as usize] = number(&book.mapped)?;
        }
        for at in 0..SMALL {
            if let Ok(text) = fs::read_to_string(book.small_file(at)) {
                book.small.insert(at, text.parse().map_err(io::Error::other)?);
            }
        }
        book.check()?;
        Ok(book)
    }

    /// In a directory of two that are renamed.
    fn small_file(&self, at: u64) -> PathBuf {
        self.dir.join(format!("small-{at}"))
    }

    fn write(&mut self) -> io::Result<()> {
        let number = self.count + 1;
        // Any sequence that visits all of them in no order.
        let place = number.wrapping_mul(2_654_435_761);
        let (at, page, small) = (place % BLOCKS, place / 7 % BLOCKS, place / 3 % SMALL);
        self.written.write_all_at(&block(number), at * BLOCK as u64)?;
        self.blocks[at as usize] = number;
        // SAFETY: within the mapping, which nothing else touches.
        unsafe {
            let to = self.map.add(page as usize * BLOCK);
            std::ptr::copy_nonoverlapping(block(number).as_ptr(), to, BLOCK);
        }
        self.pages[page as usize] = number;
        let file = self.small_file(small);
        if self.small.remove(&small).is_some() {
            fs::remove_file(file)?;
        } else {
            let new = self.dir.join("new");
            fs::write(&new, number.to_string())?;
            fs::rename(new, file)?;
            self.small.insert(small, number);
        }
        self.log.write_all(format!("{number}\n").as_bytes())?;
        self.count = number;
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        let log = fs::read_to_string(self.dir.join("log"))?;
        let mut lines = 0;
        for (line, number) in log.lines().zip(1..) {
            if line.parse::<u64>() != Ok(number) {
                return Err(io::Error::other(format!("line {number} of the log is `{line}`")));
            }
            lines = number;
        }
        if lines != self.count {
            return Err(io::Error::other(format!("the log ends at {lines}, not at {}", self.count)));
        }
        for (name, file, blocks) in [("written", &self.written, &self.blocks), ("mapped", &self.mapped, &self.pages)] {
            for (number, at) in blocks.iter().zip(0..) {
                let mut bytes = [0; BLOCK];
                file.read_exact_at(&mut bytes, at * BLOCK as u64)?;
                if bytes != block(*number) {
                    return Err(io::Error::other(format!("block {at} of `{name}` is not what write {number} wrote")));
                }
            }
        }
        for at in 0..SMALL {
            let found = fs::read_to_string(self.small_file(at)).ok();
            if found != self.small.get(&at).map(u64::to_string) {
                return Err(io::Error::other(format!("small file {at} is {found:?}")));
            }
        }
        Ok(())
    }
}

/// What write `number` writes; zeros before the first.
fn block(number: u64) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    for (at, word) in bytes.chunks_exact_mut(8).enumerate() {
        let value = if at == 0 { number } else { number.wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ at as u64) };
        word.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn text(path: &Path) -> CString {
    CString::new(path.to_string_lossy().as_bytes()).expect("a path without NUL")
}

fn fixtures(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join("sub/below"))?;
    fs::write(dir.join("file"), "one of everything")?;
    fs::hard_link(dir.join("file"), dir.join("sub/below/the same"))?;
    fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o2751))?;
    std::os::unix::fs::symlink("../file", dir.join("sub/link"))?;
    let sparse = File::create(dir.join("sparse"))?;
    sparse.write_all_at(b"far away", 3 << 30)?;
    sparse.set_len(4 << 30)?;
    drop(UnixListener::bind(dir.join("socket"))?);
    fs::set_permissions(dir.join("sub"), fs::Permissions::from_mode(0o1700))?;
    let (file, sub, fifo) = (text(&dir.join("file")), text(&dir.join("sub")), text(&dir.join("fifo")));
    // SAFETY: the strings outlive the calls.
    let failed = unsafe {
        setxattr(file.as_ptr(), c"user.color".as_ptr(), c"blue".as_ptr().cast(), 4, 0) != 0
            || mkfifo(fifo.as_ptr(), 0o620) != 0
            || lchown(sub.as_ptr(), 1234, 99) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
