//! What the agent's binary does when it is run as `tar`.
//!
//! CRIU packs each tmpfs of a container by `tar --create --gzip … .` into an image, and fills
//! it again by `tar --extract --gzip …`. A container has half a dozen of them, nearly empty
//! ones, and each costs two programs and some milliseconds on both sides of the gap. What is
//! small and plain this stand-in packs itself, in a form that the real tar reads as well; it
//! fills from nothing but what it packed (a mark in gzip's header tells). The rest is the
//! real tar's.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use nix::libc;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use tar::{Archive, Builder, EntryType, Header};

/// More than this is left to the real tar, which need not hold it in memory.
const LIMIT_BYTES: u64 = 4 << 20;
/// The operating system in gzip's header: none that exists.
const MARK: u8 = 0xee;
/// Where that stands.
const MARK_AT: usize = 9;
/// tar's own code for what it cannot do.
const FAILED: u8 = 2;

/// What CRIU asks for besides the directory; anything else is asked of the real tar.
const KNOWN: [&str; 9] = [
    "--create",
    "--extract",
    "--gzip",
    "--no-unquote",
    "--no-wildcards",
    "--one-file-system",
    "--check-links",
    "--preserve-permissions",
    "--sparse",
];

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Job {
    Pack(PathBuf),
    Fill(PathBuf),
}

/// Runs as `tar`, with the process's own arguments and standard streams.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let done = match Job::of(&args) {
        Some(Job::Pack(dir)) => pack(&dir).and_then(|packed| match packed {
            Some(bytes) => io::stdout().write_all(&bytes).map(|()| true),
            None => Ok(false),
        }),
        Some(Job::Fill(dir)) => fill_from_stdin(&dir),
        None => Ok(false),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => become_tar(args),
        Err(error) => {
            let _closed = writeln!(io::stderr(), "godwit's stand-in for tar: {error}");
            ExitCode::from(FAILED)
        }
    }
}

impl Job {
    fn of(args: &[OsString]) -> Option<Self> {
        let (mut dir, mut creates, mut extracts) = (None, false, false);
        let mut args = args.iter().skip(1);
        while let Some(arg) = args.next() {
            match arg.to_str()? {
                "--directory" => dir = Some(PathBuf::from(args.next()?)),
                "--numeric-owner" | "." => {}
                known => {
                    KNOWN.contains(&known).then_some(())?;
                    creates |= known == "--create";
                    extracts |= known == "--extract";
                }
            }
        }
        match (creates, extracts) {
            (true, false) => dir.map(Self::Pack),
            (false, true) => dir.map(Self::Fill),
            _ => None,
        }
    }
}

/// Packs what is below `dir` on its own file system; `None` where that is not small and plain.
fn pack(dir: &Path) -> io::Result<Option<Vec<u8>>> {
    let gzip = GzBuilder::new().operating_system(MARK).write(Vec::new(), Compression::none());
    let mut packing =
        Packing { builder: Builder::new(gzip), device: fs::metadata(dir)?.dev(), bytes: 0 };
    // The directory may be named by a link (/proc/self/fd/…): it is followed, what is below not.
    let is_plain = packing.add(Path::new("."), dir, &fs::metadata(dir)?)?;
    if !is_plain {
        return Ok(None);
    }
    packing.builder.into_inner()?.finish().map(Some)
}

struct Packing<W: Write> {
    builder: Builder<W>,
    device: u64,
    bytes: u64,
}

impl<W: Write> Packing<W> {
    /// Adds an entry and what is below it; false where one is not for this program.
    fn add(&mut self, name: &Path, at: &Path, found: &fs::Metadata) -> io::Result<bool> {
        let kind = found.file_type();
        if kind.is_socket() {
            // tar leaves them out as well.
            return Ok(true);
        }
        self.bytes += 1024 + if kind.is_file() { found.len() } else { 0 };
        if self.bytes > LIMIT_BYTES || (!kind.is_dir() && found.nlink() > 1) {
            return Ok(false);
        }
        let link = if kind.is_symlink() { fs::read_link(at)? } else { PathBuf::new() };
        let Some(header) = header(name, found, &link) else { return Ok(false) };
        if kind.is_file() {
            let bytes = fs::read(at)?;
            if bytes.len() as u64 != found.len() {
                return Ok(false);
            }
            self.builder.append(&header, &bytes[..])?;
        } else {
            self.builder.append(&header, io::empty())?;
        }
        if !kind.is_dir() || found.dev() != self.device {
            return Ok(true);
        }
        for entry in fs::read_dir(at)? {
            let entry = entry?;
            if !self.add(&name.join(entry.file_name()), &entry.path(), &entry.metadata()?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The header of one entry; `None` where it does not fit.
fn header(name: &Path, found: &fs::Metadata, link: &Path) -> Option<Header> {
    let kind = found.file_type();
    let mut header = Header::new_ustar();
    let entry = if kind.is_dir() {
        EntryType::Directory
    } else if kind.is_file() {
        EntryType::Regular
    } else if kind.is_symlink() {
        EntryType::Symlink
    } else if kind.is_char_device() {
        EntryType::Char
    } else if kind.is_block_device() {
        EntryType::Block
    } else {
        EntryType::Fifo
    };
    header.set_entry_type(entry);
    header.set_mode(found.mode() & 0o7777);
    header.set_uid(found.uid().into());
    header.set_gid(found.gid().into());
    header.set_size(if kind.is_file() { found.len() } else { 0 });
    header.set_mtime(u64::try_from(found.mtime()).ok()?);
    let is_device = kind.is_char_device() || kind.is_block_device();
    let number = |part: u64| u32::try_from(if is_device { part } else { 0 }).ok();
    header.set_device_major(number(nix::sys::stat::major(found.rdev()))?).ok()?;
    header.set_device_minor(number(nix::sys::stat::minor(found.rdev()))?).ok()?;
    let ustar = header.as_ustar_mut()?;
    // One byte stays free for the end of the text.
    let put = |field: &mut [u8; 100], text: &[u8]| {
        field
            .get_mut(..text.len())
            .filter(|place| place.len() < 100)
            .map(|p| p.copy_from_slice(text))
    };
    put(&mut ustar.name, name.as_os_str().as_bytes())?;
    put(&mut ustar.linkname, link.as_os_str().as_bytes())?;
    header.set_cksum();
    Some(header)
}

/// Fills `dir` from standard input; false, and nothing taken from it, where another packed it.
fn fill_from_stdin(dir: &Path) -> io::Result<bool> {
    // The image is a file: who does not want it puts it back as it was.
    let mut image = fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let begin = image.stream_position()?;
    let mut head = [0; MARK_AT + 1];
    let is_ours = image.read_exact(&mut head).is_ok() && head[MARK_AT] == MARK;
    image.seek(SeekFrom::Start(begin))?;
    if is_ours {
        fill(dir, &mut image)?;
    }
    Ok(is_ours)
}

/// Fills `dir` from what [`pack`] made.
fn fill(dir: &Path, packed: &mut dyn Read) -> io::Result<()> {
    let mut times = Vec::new();
    for entry in Archive::new(GzDecoder::new(packed)).entries()? {
        let mut entry = entry?;
        let name = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        if !name.components().all(|part| matches!(part, Component::CurDir | Component::Normal(_))) {
            return Err(io::Error::other(format!("`{}` leads out of the archive", name.display())));
        }
        let (at, header) = (dir.join(&name), entry.header().clone());
        let mode = header.mode()?;
        match header.entry_type() {
            EntryType::Directory => match fs::create_dir(&at) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            },
            EntryType::Symlink => {
                let link = entry.link_name_bytes().unwrap_or_default().into_owned();
                symlink(OsStr::from_bytes(&link), &at)?;
            }
            EntryType::Regular => {
                let mut options = fs::OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(0o600).open(&at)?;
                io::copy(&mut entry, &mut file)?;
            }
            special => make_special(&at, special, &header)?,
        }
        let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
        if header.entry_type() == EntryType::Symlink {
            std::os::unix::fs::lchown(&at, Some(id(header.uid()?)?), Some(id(header.gid()?)?))?;
        } else {
            chown(&at, Some(id(header.uid()?)?), Some(id(header.gid()?)?))?;
            fs::set_permissions(&at, fs::Permissions::from_mode(mode))?;
        }
        times.push((at, header.mtime()?));
    }
    // Last: filling a directory changes its own.
    for (at, seconds) in times {
        let time = TimeSpec::new(i64::try_from(seconds).map_err(io::Error::other)?, 0);
        utimensat(nix::fcntl::AT_FDCWD, &at, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    }
    Ok(())
}

fn make_special(at: &Path, kind: EntryType, header: &Header) -> io::Result<()> {
    let kind = match kind {
        EntryType::Char => SFlag::S_IFCHR,
        EntryType::Block => SFlag::S_IFBLK,
        EntryType::Fifo => SFlag::S_IFIFO,
        other => return Err(io::Error::other(format!("an entry of kind {other:?}"))),
    };
    let number = |part: Option<u32>| u64::from(part.unwrap_or(0));
    let device =
        libc::makedev(number(header.device_major()?) as u32, number(header.device_minor()?) as u32);
    Ok(mknod(at, kind, Mode::from_bits_truncate(0o600), device)?)
}

/// Becomes the real tar: the first in the search path that is not this program's own.
fn become_tar(args: Vec<OsString>) -> ExitCode {
    let home = super::shim::home();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).filter(|dir| *dir != home).map(|dir| dir.join("tar"));
    let args: Vec<CString> =
        args.into_iter().filter_map(|arg| CString::new(arg.into_vec()).ok()).collect();
    for place in places {
        if let Ok(place) = CString::new(place.into_os_string().into_vec()) {
            let _not_there = nix::unistd::execv(&place, &args);
        }
    }
    let _closed = writeln!(io::stderr(), "godwit's stand-in for tar finds no real one in PATH");
    ExitCode::from(FAILED)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    /// Every entry with its kind, mode, owner, time, device, link and content.
    fn told(dir: &Path) -> Vec<String> {
        let mut all = Vec::new();
        let mut left = vec![dir.to_path_buf()];
        while let Some(at) = left.pop() {
            let found = fs::symlink_metadata(&at).expect("metadata");
            let content = if found.is_file() { fs::read(&at).expect("read") } else { Vec::new() };
            let link = fs::read_link(&at).unwrap_or_default();
            all.push(format!(
                "{} {:o} {}:{} {} {} {} {content:?}",
                at.strip_prefix(dir).expect("below").display(),
                found.mode(),
                found.uid(),
                found.gid(),
                found.mtime(),
                found.rdev(),
                link.display(),
            ));
            if found.is_dir() {
                left.extend(
                    fs::read_dir(&at).expect("read").map(|entry| entry.expect("entry").path()),
                );
            }
        }
        all.sort();
        all
    }

    fn furnished() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b")).expect("mkdir");
        fs::write(at("a/b/file"), "content").expect("write");
        fs::write(at("empty"), "").expect("write");
        fs::set_permissions(at("a/b/file"), fs::Permissions::from_mode(0o4751)).expect("chmod");
        symlink("../empty", at("a/link")).expect("link");
        mknod(&at("fifo"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).expect("mkfifo");
        mknod(&at("null"), SFlag::S_IFCHR, Mode::S_IRUSR, libc::makedev(1, 3)).expect("as root");
        chown(at("empty"), Some(7), Some(8)).expect("as root");
        let old = TimeSpec::new(1_000_000_000, 0);
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(nix::fcntl::AT_FDCWD, &at("a"), &old, &old, flags).expect("utimensat");
        dir
    }

    #[test]
    fn what_was_packed_is_filled_again_by_this_one_and_by_the_real_one() {
        let from = furnished();
        let packed = pack(from.path()).expect("pack").expect("plain");
        let ours = tempfile::tempdir().expect("tempdir");
        fill(ours.path(), &mut &packed[..]).expect("fill");
        assert_eq!(told(ours.path()), told(from.path()));

        let (theirs, file) = (tempfile::tempdir().expect("tempdir"), from.path().join("x.tgz"));
        fs::write(&file, &packed).expect("write");
        let mut real = Command::new("tar");
        real.args(["--extract", "--gzip", "--no-unquote", "--no-wildcards", "--directory"]);
        let image = fs::File::open(&file).expect("open");
        assert!(real.arg(theirs.path()).stdin(image).status().expect("tar").success());
        assert_eq!(told(theirs.path()), told(ours.path()));
    }

    #[test]
    fn what_is_not_small_and_plain_is_the_real_ones() {
        let hard = furnished();
        fs::hard_link(hard.path().join("empty"), hard.path().join("again")).expect("link");
        let long = furnished();
        fs::write(long.path().join("n".repeat(120)), "").expect("write");
        let large = furnished();
        let file = fs::File::create(large.path().join("large")).expect("create");
        file.set_len(LIMIT_BYTES).expect("grow");
        for dir in [&hard, &long, &large] {
            assert!(pack(dir.path()).expect("pack").is_none());
        }
        let socket = furnished();
        let before = pack(socket.path()).expect("pack").map(|bytes| bytes.len());
        let _listening = UnixListener::bind(socket.path().join("socket")).expect("bind");
        assert_eq!(pack(socket.path()).expect("pack").map(|b| b.len()), before, "sockets stay out");
    }

    #[test]
    fn only_what_criu_asks_for_is_done_here() {
        let create = "tar --create --gzip --no-unquote --no-wildcards --one-file-system \
                      --check-links --preserve-permissions --sparse --numeric-owner --directory /x .";
        assert_eq!(Job::of(&words(create)), Some(Job::Pack("/x".into())));
        let extract = "tar --extract --gzip --no-unquote --no-wildcards --directory /x";
        assert_eq!(Job::of(&words(extract)), Some(Job::Fill("/x".into())));
        for other in
            ["tar", "tar -xf x", "tar --create --gzip", "tar --create --xattrs --directory x"]
        {
            assert_eq!(Job::of(&words(other)), None, "{other}");
        }
    }

    #[test]
    fn a_name_that_leads_out_is_refused() {
        let found = fs::metadata("/").expect("metadata");
        let header = header(Path::new("../out"), &found, Path::new("")).expect("fits");
        let gzip = GzBuilder::new().operating_system(MARK).write(Vec::new(), Compression::none());
        let mut builder = Builder::new(gzip);
        builder.append(&header, io::empty()).expect("append");
        let packed = builder.into_inner().expect("end").finish().expect("end");
        let dir = tempfile::tempdir().expect("tempdir");
        assert!(fill(&dir.path().join("in"), &mut &packed[..]).is_err());
        assert!(!dir.path().join("out").exists());
    }
}
