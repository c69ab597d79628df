//! What the agent asks of a container engine: the whole of it, in one trait.
//!
//! The hand-over is cut into steps that any engine can carry out in its own way:
//!
//! ```text
//! source   arm ── freeze ── dump_armed ─┬─ thaw      (aborted: it runs where it was)
//!                                       └─ destroy   (the target runs)
//! target   prepare ── await_images ── stage_armed ─┬─ open      (committed)
//!                                                  └─ destroy   (aborted)
//! ```
//!
//! Armed, both sides have done everything that is not CRIU before the freeze, and the images
//! are files of their own that travel while they grow. The plain way does without: `dump`
//! and `stage` carry the engine's own tar.
//!
//! Between `stage` and `open` every process exists and is stopped: the *gate*.
//! A gated copy that loses the agent dies; it never runs by itself.
//!
//! Every step is idempotent: the machines call again after a restart, with
//! whatever an earlier life left behind. A step that is dropped (cancelled) may
//! leave things half made; `thaw` and `destroy` clear up after any step.

pub(crate) mod cgroup;
mod cold;
mod confine;
pub(crate) mod containers;
mod creation;
mod dumper;
mod helpers;
pub(crate) mod image_dirs;
mod images;
mod late;
pub(crate) mod layout;
mod leftovers;
mod libpod;
mod marks;
mod mounts;
mod observation;
mod podman;
mod removal;
mod service;
mod source;
mod source_armed;
mod starting;
mod target;
mod target_armed;
pub(crate) mod threads;
mod unmovable;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};

pub use image_dirs::ImageDirs;
pub use layout::EngineConfig;
pub(crate) use layout::{find_criu, probe_id};
pub use podman::Podman;
pub use source_armed::ImageSink;

use crate::moments::Noted;
use godwit_proto::container::{ContainerSpec, Execution, Mode};
use godwit_proto::id::{ContainerId, ImageId};

/// Why an engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine answered with an error of its own.
    #[error("{what} failed: {message}")]
    Refused {
        /// The step, with the container or image it was for.
        what: String,
        /// The engine's own words, with the cause it logged elsewhere (CRIU's log) appended.
        message: String,
    },
    /// The engine cannot be reached.
    #[error("cannot reach podman's service at {socket}: run `godwit-agent doctor` on the node")]
    Unreachable {
        /// The service's socket.
        socket: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A file, cgroup or process could not be read or written.
    #[error("{what}")]
    Io {
        /// What was read or written.
        what: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A step did not end in time; what it left is cleared by `thaw` or `destroy`.
    #[error("{what} did not end within {seconds} s")]
    Deadline {
        /// The step.
        what: String,
        /// How long it was given.
        seconds: u64,
    },
}

/// An image that the engine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldImage {
    /// Its id.
    pub id: ImageId,
    /// Its names.
    pub names: Vec<String>,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What the engine and the kernel show of one of our containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The container.
    pub id: ContainerId,
    /// What its processes do, by the kernel's word.
    pub execution: Execution,
    /// It was staged in this boot and its gate was never told to open: no process of it ran.
    pub never_opened: bool,
    /// The exit code, when the engine recorded that its first process ended.
    pub exit_code: Option<i64>,
}

/// What the processes of one of our containers have used and hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The container.
    pub id: ContainerId,
    /// Processor time of its living processes.
    pub processor: std::time::Duration,
    /// Memory in bytes; what they share counts for each.
    pub memory_bytes: u64,
    /// How many they are.
    pub processes: u32,
}

/// A container engine with checkpoints: podman in production.
pub trait Engine: Send + Sync + 'static {
    /// The images that the engine holds.
    fn images(&self) -> impl Future<Output = Result<Vec<HeldImage>, EngineError>> + Send;
    /// The digests of the image's layers, the lowest first.
    fn layers(&self, id: &ImageId)
    -> impl Future<Output = Result<Vec<String>, EngineError>> + Send;
    /// Writes the image as a docker-archive to `file`, streamed.
    fn save_image(
        &self,
        id: &ImageId,
        file: &Path,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Loads a docker-archive and answers the id that it then has.
    fn load_image(&self, file: &Path) -> impl Future<Output = Result<ImageId, EngineError>> + Send;
    /// Gives an image that the engine holds one more name; has it already is success.
    fn name_image(
        &self,
        id: &ImageId,
        name: &str,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Removes an image; absent is success.
    fn remove_image(&self, id: &ImageId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Makes the container, stopped, in the network namespace at `netns`; made already is success.
    fn create(
        &self,
        spec: &ContainerSpec,
        netns: &Path,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Starts it; running already is success.
    fn start(&self, spec: &ContainerSpec) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Asks it to stop, kills it after `grace_seconds`; stopped already is success.
    fn stop(
        &self,
        spec: &ContainerSpec,
        grace_seconds: u32,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// The last `tail` lines that it wrote (all when `None`), oldest first, each ended by a newline.
    fn logs(
        &self,
        spec: &ContainerSpec,
        tail: Option<u32>,
    ) -> impl Future<Output = Result<Vec<u8>, EngineError>> + Send;

    /// Source: everything that can be done before the freeze, while it runs: what the engine
    /// knows of it goes into the directory `metadata`, and a checkpoint into `images` waits.
    fn arm(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        metadata: &Path,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Source: the files that its processes may write by memory, below its root.
    fn mapped(
        &self,
        spec: &ContainerSpec,
    ) -> impl Future<Output = Result<BTreeSet<PathBuf>, EngineError>> + Send;
    /// Source: freezes every process and returns once the kernel says so.
    fn freeze(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Source: writes the frozen container's image to `file`; it is frozen still when this returns.
    fn dump(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        file: &Path,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Source: the armed form of `dump`: what was armed for writes into `images`, and every file
    /// goes to `sink` as it grows.
    fn dump_armed(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        sink: &dyn ImageSink,
        noted: &Noted,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Source: undoes `arm`, `freeze` and `dump`, whichever were begun: it runs again, untouched.
    fn thaw(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Target: everything that can be done before the image arrives.
    fn prepare(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        netns: &Path,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Target: everything that can be done with `metadata` before the images arrive in `images`;
    /// [`Engine::stage_armed`] does it where nobody has. podman answers no question about the
    /// container from then on until it is opened or destroyed.
    fn await_images(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        metadata: &Path,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Target: true where [`Engine::await_images`] was done, and holds.
    fn awaits_images(&self, spec: &ContainerSpec) -> bool;
    /// Target: the armed form of `stage`, once `images` is whole.
    fn stage_armed(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        metadata: &Path,
        noted: &Noted,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Target: restores the image at `file` up to the gate.
    fn stage(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        file: &Path,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Target: true where a copy waits at the gate for so long that the engine is about to give it
    /// up, or has: it is to be staged again before it is opened.
    fn is_stale(&self, spec: &ContainerSpec) -> bool;
    /// Target: opens the gate and returns once every process runs and the engine knows it;
    /// `runs` is called in between, when every process is whole and about to run.
    ///
    /// On an error the kernel's word decides what became of the copy.
    fn open(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        noted: &Noted,
        runs: impl FnOnce() + Send,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Kills every process, then removes the container and all that the engine holds of it; absent is success.
    fn destroy(&self, spec: &ContainerSpec)
    -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Clears up what is left of a container that nobody knows any more; one that the engine holds,
    /// or that lives, is left alone.
    fn forget(&self, id: ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// The specification of a container that the engine holds, as it was made from: what is
    /// left of it when the agent's ledger is lost. `None` where the engine does not know.
    fn spec(
        &self,
        id: ContainerId,
    ) -> impl Future<Output = Result<Option<ContainerSpec>, EngineError>> + Send;

    /// Every container of ours, by the kernel's word: cgroups first, then the engine's records.
    ///
    /// Never blocks on a gated container.
    fn observe(&self) -> impl Future<Output = Result<Vec<Observed>, EngineError>> + Send;

    /// What each of our containers with living processes uses, by the kernel's word.
    fn usage(&self) -> impl Future<Output = Result<Vec<Usage>, EngineError>> + Send;
}

#[cfg(test)]
pub(crate) mod testing {
    use godwit_proto::container::{ContainerSpec, Limits};

    /// A container of the default tenant, with nothing special about it.
    pub(crate) fn spec() -> ContainerSpec {
        let image = "ab".repeat(32).parse().expect("image");
        ContainerSpec {
            id: "6f1d1c1e-1111-4222-8333-444455556666".parse().expect("id"),
            tenant: "default".parse().expect("tenant"),
            name: "counter".parse().expect("name"),
            image,
            image_name: "localhost/counter:1".into(),
            args: Vec::new(),
            env: Default::default(),
            labels: Default::default(),
            limits: Limits::default(),
            interfaces: Vec::new(),
            ports: Vec::new(),
            resolver: None,
            volumes: Vec::new(),
            devices: Vec::new(),
        }
    }
}
