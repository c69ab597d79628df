//! The source's end of an armed hand-over.
//!
//! ```text
//! the container runs │ metadata: podman checkpoints, the stand-in says "done" and dumps nothing
//!                    │ runc checkpoint, its request held by the proxy: armed
//! frozen             │ go ── pages grow ──▶ sink ── post-dump ── the rest ──▶ sink ── done
//! ```
//!
//! runc is run by itself, not by podman: an armed `podman checkpoint` would block every
//! question to podman on this host for as long as it is armed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use godwit_proto::container::{ContainerSpec, Execution};
use godwit_proto::id::ContainerId;
use godwit_proto::timeline::Moment;
use hyper::Method;
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use procfs::process::{MMPermissions, MMapPath, Process};
use tokio::process::Child;
use tokio::sync::Mutex;

use super::EngineError;
use super::containers::Stored;
use super::dumper::DUMP;
use super::late::{Before, Frozen, Image};
use super::podman::Podman;
use super::source::{with_cause, wrong};
use super::unmovable;
use crate::criu::gate::{Attended, GateError};
use crate::criu::{WATCHED, timers};
use crate::moments::Noted;

/// The metadata's parts, in their directory.
pub(super) const METADATA: &str = "container.tar";
/// Which files the processes' standard streams are: runc writes it before it calls criu.
pub(super) const DESCRIPTORS: &str = "descriptors.json";

/// How long runc may take until it calls criu, and to end after it.
const RUNC: Duration = Duration::from_secs(20);
/// How often it is looked whether pages have come.
const GROWTH: Duration = Duration::from_millis(1);
/// Pages go on once there are so many of them, or the dump is over.
const WORTH_BYTES: u64 = 128 << 10;
/// criu's log and statistics, in a directory of the image's own.
const WORK: &str = "work";

/// Where a dump's files go while they are written.
pub trait ImageSink: Send + Sync {
    /// These bytes of the file are there and will not change any more.
    fn add(&self, name: &str, file: &Arc<File>, span: Range<u64>);
}

/// A source that waits for the word to dump.
///
/// Dropped, it is disarmed: runc is killed, and a criu that has begun gives up.
#[derive(Debug)]
pub(super) struct ArmedSource {
    attended: Attended,
    runc: Mutex<Child>,
    before: Before,
    /// criu was given its request.
    has_begun: AtomicBool,
}

impl Podman {
    /// Writes what podman knows of the container into `metadata`, and has runc wait with its
    /// checkpoint into `images`. The container runs on.
    pub(super) async fn arm_source(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        metadata: &Path,
    ) -> Result<(), EngineError> {
        self.disarm_source(spec.id, spec.name.as_str()).await?;
        let stored = self.must_find(spec, "arming")?;
        if self.execution(&stored)? != Execution::Running {
            return Err(wrong(spec, "arming", "it does not run"));
        }
        let (upper, shm) = (self.upper(&stored), self.shm(&stored));
        let (log, cgroup) = (self.log(&stored), self.cgroup(&stored));
        let layer = stored.layer_dir(&self.graphroot);
        let before = self.threads.run(spec.id, "reading the container's files", move || {
            let pids = cgroup.processes()?;
            let (image, mapped) = (Image::below(&layer)?, mapped_for_writing(&pids));
            let before = Before::look(&upper, &image, &shm, &log, &mapped)?;
            Ok((before, unmovable::find(&pids), unmovable::watched(&pids)))
        });
        let (before, unmovable, watched) = before.await?;
        if let Some(why) = unmovable {
            return Err(wrong(spec, "arming", &why));
        }
        self.write_metadata(spec, &stored, images, metadata).await?;

        let expected = self.gate.expect_dump(spec.id);
        let work = images.join(WORK);
        fs::create_dir_all(&work).map_err(failed("making", &work))?;
        let list = images.join(WATCHED);
        let watched: Vec<_> =
            watched.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"]).collect();
        fs::write(&list, watched.concat()).map_err(failed("writing", &list))?;
        let running = |source| EngineError::Io { what: "running runc".into(), source };
        let mut command = self.runc().map_err(running)?;
        command
            .args(["checkpoint", "--leave-running", "--tcp-established", "--file-locks"])
            .arg("--image-path")
            .arg(images)
            .arg("--work-path")
            .arg(&work)
            .arg(&stored.podman_id);
        let mut runc = command.kill_on_drop(true).spawn().map_err(running)?;
        let attended = tokio::select! {
            attended = tokio::time::timeout(RUNC, expected.attended()) => attended,
            _ended = runc.wait() => {
                let log = fs::read_to_string(self.config.runc_log()).unwrap_or_default();
                return Err(wrong(spec, "arming", &format!("runc ended: {}", log.trim())));
            }
        };
        match attended {
            Ok(Ok(attended)) => {
                let runc = Mutex::new(runc);
                let armed = ArmedSource { attended, runc, before, has_begun: false.into() };
                self.armed().insert(spec.id, Arc::new(armed));
                Ok(())
            }
            Ok(Err(error)) => Err(wrong(spec, "arming", &error.to_string())),
            Err(_) => Err(late(spec, "arming", RUNC)),
        }
    }

    /// podman's own tar of the container, made by a checkpoint that dumps nothing.
    async fn write_metadata(
        &self,
        spec: &ContainerSpec,
        stored: &Stored,
        images: &Path,
        metadata: &Path,
    ) -> Result<(), EngineError> {
        self.clear_dump(stored)?;
        let userdata = self.userdata(stored);
        // podman reads criu's statistics after a dump, and follows the link for its images.
        let statistics = userdata.join("stats-dump");
        fs::write(&statistics, "").map_err(failed("writing", &statistics))?;
        let link = userdata.join("checkpoint");
        std::os::unix::fs::symlink(images, &link).map_err(failed("linking", &link))?;
        let pretended = self.gate.pretend_dump(spec.id);
        let path = format!(
            "containers/{}/checkpoint?export=true&keep=true&leaveRunning=true&tcpEstablished=true&fileLocks=true",
            spec.engine_name()
        );
        let answer = self.libpod.fetch(Method::POST, &path, &metadata.join(METADATA)).await;
        drop(pretended);
        self.clear_dump(stored)?;
        answer?.map_err(|refusal| refusal.into_error(format!("describing {}", spec.name)))?;
        let (from, to) = (images.join(DESCRIPTORS), metadata.join(DESCRIPTORS));
        fs::copy(&from, &to).map(drop).map_err(failed("copying", &from))
    }

    /// Lets criu dump the frozen container into `images`; every file goes to `sink` as it grows,
    /// and with them what the container changed since it was armed.
    pub(super) async fn dump_armed_source(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        sink: &dyn ImageSink,
        noted: &Noted,
    ) -> Result<(), EngineError> {
        let stored = self.must_find(spec, "checkpointing")?;
        if self.execution(&stored)? != Execution::Frozen {
            return Err(wrong(spec, "checkpointing", "it is not frozen"));
        }
        // It stays armed: whoever thaws it waits for criu, which puts the control group back as it
        // found it.
        let Some(armed) = self.armed().get(&spec.id).cloned() else {
            return Err(wrong(spec, "checkpointing", "it is not armed"));
        };
        self.dump_into(spec, &stored, images, (sink, noted), &armed).await
    }

    async fn dump_into(
        &self,
        spec: &ContainerSpec,
        stored: &Stored,
        images: &Path,
        (sink, noted): (&dyn ImageSink, &Noted),
        armed: &ArmedSource,
    ) -> Result<(), EngineError> {
        let blame = |error: GateError| {
            // Its log lies there too, and ends where the space did.
            if is_full(images) {
                let why = format!("no room for its images: {}", Errno::ENOSPC.desc());
                return wrong(spec, "checkpointing", &why);
            }
            let log = images.join(WORK).join("dump.log");
            wrong(spec, "checkpointing", &with_cause(error.to_string(), &log))
        };
        noted.note(Moment::Dumping);
        armed.has_begun.store(true, Ordering::Release);
        armed.attended.go().map_err(&blame)?;
        let late_files = self.late_files(stored, images, &armed.before);
        let mut grown = Growth::new(images);
        let dumped = async {
            let mut dumped = std::pin::pin!(armed.attended.reached("post-dump"));
            loop {
                tokio::select! {
                    dumped = &mut dumped => return dumped.map_err(&blame),
                    () = tokio::time::sleep(GROWTH) => {
                        grown.look(sink).map_err(failed("reading", images))?;
                    }
                }
            }
        };
        let both = async { tokio::try_join!(dumped, late_files) };
        match tokio::time::timeout(DUMP, both).await {
            Ok(both) => both?,
            Err(_) => return Err(late(spec, "checkpointing", DUMP)),
        };
        noted.note(Moment::Dumped);
        let files = images.join(timers::IMAGE);
        if let Some(wound) = timers::wind(&fs::read(&files).map_err(failed("reading", &files))?) {
            fs::write(&files, wound).map_err(failed("writing", &files))?;
        }
        grown.finish(sink).map_err(failed("reading", images))?;
        match tokio::time::timeout(DUMP, armed.attended.done()).await {
            Ok(done) => done.map_err(&blame)?,
            Err(_) => return Err(late(spec, "checkpointing", DUMP)),
        }
        if self.execution(stored)? != Execution::Frozen {
            let why = "it did not stay frozen, the checkpoint is stale";
            return Err(wrong(spec, "checkpointing", why));
        }
        Ok(())
    }

    async fn late_files(
        &self,
        stored: &Stored,
        images: &Path,
        before: &Before,
    ) -> Result<(), EngineError> {
        let (upper, root) = (self.upper(stored), self.root(stored));
        let (shm, log, into) = (self.shm(stored), self.log(stored), images.to_owned());
        let (before, cgroup) = (before.clone(), self.cgroup(stored));
        let collecting = "collecting the container's last changes";
        let written = self.threads.run(stored.id, collecting, move || {
            let mapped = mapped_for_writing(&cgroup.processes()?);
            before.write_changes(&upper, &root, &Frozen { shm, log, mapped }, &into)
        });
        written.await.map(drop)
    }

    /// Undoes [`Podman::arm_source`], and waits for a dump that is under way to end: criu
    /// puts everything back as it found it. Not armed is success.
    pub(super) async fn disarm_source(
        &self,
        id: ContainerId,
        name: &str,
    ) -> Result<(), EngineError> {
        let Some(armed) = self.armed().get(&id).cloned() else { return Ok(()) };
        let both = async {
            armed.attended.ended().await;
            armed.runc.lock().await.wait().await
        };
        if armed.has_begun.load(Ordering::Acquire)
            && tokio::time::timeout(DUMP, both).await.is_err()
        {
            return Err(EngineError::Deadline {
                what: format!("disarming container {name}"),
                seconds: DUMP.as_secs(),
            });
        }
        self.armed().remove(&id);
        Ok(())
    }

    /// Disarms a source that has ended before it was frozen: nobody will call the move off here.
    pub(super) fn disarm_ended(&self, id: ContainerId) {
        let mut all = self.armed();
        if all.get(&id).is_some_and(|armed| !armed.has_begun.load(Ordering::Acquire)) {
            all.remove(&id);
        }
    }

    pub(super) fn upper(&self, stored: &Stored) -> PathBuf {
        stored.layer_dir(&self.graphroot).join("diff")
    }

    /// The container's files as it sees them, without what is mounted into it.
    pub(super) fn root(&self, stored: &Stored) -> PathBuf {
        stored.layer_dir(&self.graphroot).join("merged")
    }

    /// What is mounted at the container's `/dev/shm`.
    pub(super) fn shm(&self, stored: &Stored) -> PathBuf {
        self.userdata(stored).join("shm")
    }

    pub(super) fn log(&self, stored: &Stored) -> PathBuf {
        self.userdata(stored).join("ctr.log")
    }
}

/// The files that the processes share with others in memory and may write, below their root. A
/// process that has ended meanwhile has none.
pub(super) fn mapped_for_writing(pids: &[i32]) -> BTreeSet<PathBuf> {
    let maps = pids.iter().filter_map(|pid| Process::new(*pid).ok()?.maps().ok()).flatten();
    let both = MMPermissions::SHARED | MMPermissions::WRITE;
    maps.filter(|map| map.perms.contains(both))
        .filter_map(|map| match map.pathname {
            MMapPath::Path(path) => path.strip_prefix("/").ok().map(Path::to_path_buf),
            _ => None,
        })
        .collect()
}

/// The files of a dump, as far as they have gone to the sink.
struct Growth<'a> {
    dir: &'a Path,
    pages: Vec<Growing>,
    done: BTreeSet<String>,
}

struct Growing {
    name: String,
    file: Arc<File>,
    sent: u64,
}

impl<'a> Growth<'a> {
    fn new(dir: &'a Path) -> Self {
        Self { dir, pages: Vec::new(), done: BTreeSet::new() }
    }

    /// Sends what pages came. criu only ever appends to those files, and to one at a time.
    fn look(&mut self, sink: &dyn ImageSink) -> io::Result<()> {
        for number in self.pages.len() + 1.. {
            let name = format!("pages-{number}.img");
            match File::open(self.dir.join(&name)) {
                Ok(file) => {
                    self.done.insert(name.clone());
                    self.pages.push(Growing { name, file: Arc::new(file), sent: 0 });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        let last = self.pages.len().saturating_sub(2);
        self.pages[last..].iter_mut().try_for_each(|pages| pages.send(sink, WORTH_BYTES))
    }

    /// Sends all that is left: the dump is over.
    fn finish(mut self, sink: &dyn ImageSink) -> io::Result<()> {
        self.look(sink)?;
        for pages in &mut self.pages {
            pages.send(sink, 1)?;
        }
        let mut rest = Vec::new();
        for entry in fs::read_dir(self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_sent = self.done.contains(&name) || name == DESCRIPTORS;
            if entry.file_type()?.is_file() && !is_sent {
                rest.push(name);
            }
        }
        rest.sort();
        for name in rest {
            let file = Arc::new(File::open(self.dir.join(&name))?);
            Growing { name, file, sent: 0 }.send(sink, 0)?;
        }
        Ok(())
    }
}

impl Growing {
    fn send(&mut self, sink: &dyn ImageSink, at_least: u64) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        if size - self.sent >= at_least {
            sink.add(&self.name, &self.file, self.sent..size);
            self.sent = size;
        }
        Ok(())
    }
}

fn is_full(dir: &Path) -> bool {
    statvfs(dir).is_ok_and(|stat| stat.blocks_available() == 0)
}

/// The step took too long.
pub(super) fn late(spec: &ContainerSpec, step: &str, limit: Duration) -> EngineError {
    EngineError::Deadline {
        what: format!("{step} container {}", spec.name),
        seconds: limit.as_secs(),
    }
}

/// An error of a file.
pub(super) fn failed(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let what = format!("{doing} {}", path.display());
    move |source| EngineError::Io { what, source }
}
