//! Files that are not simply there.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::{Check, Make, must, same};

pub const ALL: &[(&str, Make)] = &[
    ("deleted", deleted),
    ("deleted-large", deleted_large),
    ("deleted-directory", deleted_directory),
    ("unnamed", unnamed),
    ("renamed", renamed),
    ("replaced", replaced),
    ("growing", growing),
    ("position", position),
    ("image-removed", image_removed),
    ("image-replaced", image_replaced),
    ("dev-shm", dev_shm),
    ("tmpfs", tmpfs),
    ("working-directory", working_directory),
    ("proc-file", proc_file),
];

fn open(path: &str) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).open(path)
}

/// Its last bytes are what the round before has written there.
fn keeps(file: File, size: u64) -> io::Result<Check> {
    file.set_len(size)?;
    file.write_all_at(&vec![7; size as usize - 8], 0)?;
    Ok(Box::new(move |round| {
        let mut found = [0; 8];
        file.read_exact_at(&mut found, size - 8)?;
        same(u64::from_ne_bytes(found), round - 1)?;
        same(file.metadata()?.len(), size)?;
        file.write_all_at(&round.to_ne_bytes(), size - 8)
    }))
}

fn deleted() -> io::Result<Check> {
    let file = open("/deleted")?;
    fs::remove_file("/deleted")?;
    keeps(file, 100_000)
}

/// Beyond what CRIU takes along unless it is told to.
fn deleted_large() -> io::Result<Check> {
    let file = open("/deleted-large")?;
    fs::remove_file("/deleted-large")?;
    keeps(file, 40 << 20)
}

fn deleted_directory() -> io::Result<Check> {
    fs::create_dir("/deleted-directory")?;
    let directory = File::open("/deleted-directory")?;
    fs::remove_dir("/deleted-directory")?;
    Ok(Box::new(move |_| must(directory.metadata()?.is_dir(), || "it is none".into())))
}

/// One that never had a name.
fn unnamed() -> io::Result<Check> {
    const TMPFILE: i32 = if cfg!(target_arch = "aarch64") { 0o20_040_000 } else { 0o20_200_000 };
    keeps(File::options().read(true).write(true).custom_flags(TMPFILE).open("/")?, 100_000)
}

fn renamed() -> io::Result<Check> {
    let file = open("/renamed")?;
    fs::rename("/renamed", "/renamed-now")?;
    keeps(file, 100_000)
}

/// Deleted, and another has its name.
fn replaced() -> io::Result<Check> {
    let file = open("/replaced")?;
    fs::remove_file("/replaced")?;
    fs::write("/replaced", "another")?;
    let mut check = keeps(file, 100_000)?;
    Ok(Box::new(move |round| {
        check(round)?;
        same(fs::read_to_string("/replaced")?.as_str(), "another")
    }))
}

/// A line each round, all of which are there.
fn growing() -> io::Result<Check> {
    let mut file = File::options().append(true).create(true).open("/growing")?;
    let mut lines = 0;
    Ok(Box::new(move |_| {
        same(fs::read_to_string("/growing")?.lines().count(), lines)?;
        lines += 1;
        writeln!(file, "{lines} {}", "x".repeat(500))
    }))
}

/// Where a file is read.
fn position() -> io::Result<Check> {
    let mut file = open("/position")?;
    Ok(Box::new(move |round| {
        same(file.stream_position()?, (round - 1) % 1000)?;
        file.seek(SeekFrom::Start(round % 1000)).map(drop)
    }))
}

/// A file of the image that is removed stays so.
fn image_removed() -> io::Result<Check> {
    fs::remove_file("/image/removed")?;
    Ok(Box::new(|_| must(!fs::exists("/image/removed")?, || "it is there again".into())))
}

/// A file of the image, changed, and a directory of the image's that was made anew.
fn image_replaced() -> io::Result<Check> {
    fs::write("/image/changed", "by us")?;
    fs::remove_dir_all("/image/emptied")?;
    fs::create_dir("/image/emptied")?;
    fs::write("/image/emptied/new", "")?;
    Ok(Box::new(|round| {
        same(
            fs::read_to_string("/image/changed")?,
            if round == 1 { "by us".into() } else { format!("in round {}", round - 1) },
        )?;
        fs::write("/image/changed", format!("in round {round}"))?;
        let names: Vec<_> =
            fs::read_dir("/image/emptied")?.flatten().map(|entry| entry.file_name()).collect();
        same(names, vec!["new".into()])
    }))
}

fn dev_shm() -> io::Result<Check> {
    let file = open("/dev/shm/file")?;
    keeps(file, 100_000)
}

/// What is in a file system in memory that was mounted into the container: its `/dev` is one.
fn tmpfs() -> io::Result<Check> {
    fs::create_dir("/dev/directory")?;
    keeps(open("/dev/directory/file")?, 100_000)
}

fn working_directory() -> io::Result<Check> {
    fs::create_dir("/working")?;
    std::env::set_current_dir("/working")?;
    Ok(Box::new(|_| same(std::env::current_dir()?, "/working".into())))
}

/// An open file of the process itself.
fn proc_file() -> io::Result<Check> {
    let mut file = File::open("/proc/self/status")?;
    Ok(Box::new(move |_| {
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        must(text.starts_with("Name:"), || text.clone())
    }))
}
