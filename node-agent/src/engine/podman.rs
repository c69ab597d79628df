//! [`Engine`] on podman, runc and CRIU.
//!
//! Read [`super::service`] for who podman's processes belong to, [`super::source`] and
//! [`super::target`] for the two ends of a hand-over, [`super::removal`] for clearing up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::Docker;
use godwit_proto::container::{ContainerSpec, Mode};
use godwit_proto::id::{ContainerId, ImageId};
use hyper::Method;
use serde::Deserialize;

use super::cgroup::{Cgroup, Hierarchy};
use super::confine;
use super::containers::{self, Stored};
use super::layout::{self, EngineConfig};
use super::libpod::Libpod;
use super::service::Service;
use super::source_armed::{ArmedSource, ImageSink, mapped_for_writing};
use super::target::Staged;
use super::target_armed::ArmedTarget;
use super::threads::Threads;
use super::{Engine, EngineError, HeldImage, Observed, Usage};
use crate::criu::SOCKET;
use crate::criu::gate::Gate;
use crate::moments::Noted;

/// bollard's patience with one answer's headers.
const ANSWER_SECONDS: u64 = 120;

/// podman with runc and CRIU, its service owned by this value.
pub struct Podman {
    pub(super) config: EngineConfig,
    pub(super) hierarchy: Hierarchy,
    pub(super) gate: Arc<Gate>,
    pub(super) graphroot: PathBuf,
    pub(super) libpod: Libpod,
    pub(super) docker: Docker,
    pub(super) threads: Threads,
    armed: Mutex<BTreeMap<ContainerId, Arc<ArmedSource>>>,
    waiting: Mutex<BTreeMap<ContainerId, ArmedTarget>>,
    staged: Mutex<BTreeMap<ContainerId, Staged>>,
    service: Service,
}

/// What is read of `podman info`.
#[derive(Deserialize)]
struct Info {
    store: Store,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Store {
    graph_root: PathBuf,
    graph_driver_name: String,
}

impl Podman {
    /// Kills what an earlier life of the agent left working or gated, and starts podman's service.
    ///
    /// Running and frozen containers are left as they are. Errors: `Io` where a directory
    /// cannot be made or podman cannot be run, `Unreachable` where its service does not
    /// answer, `Refused` where its storage is not overlay.
    pub async fn start(config: EngineConfig) -> Result<Self, EngineError> {
        let hierarchy = Hierarchy::find()?;
        let gate = Gate::new(hierarchy.group(&config.cgroup));
        let service = Service::start(config.clone(), &hierarchy, gate.clone()).await?;
        let libpod = Libpod::new(config.socket());
        let graphroot = storage(&libpod).await?;
        gate.set_graphroot(graphroot.clone());
        let socket = config.socket().display().to_string();
        let version = bollard::API_DEFAULT_VERSION;
        let docker =
            Docker::connect_with_unix(&socket, ANSWER_SECONDS, version).map_err(|error| {
                EngineError::Unreachable { socket, source: io::Error::other(error) }
            })?;
        let podman = Self {
            config,
            hierarchy,
            gate,
            graphroot,
            libpod,
            docker,
            threads: Threads::default(),
            armed: Mutex::default(),
            waiting: Mutex::default(),
            staged: Mutex::default(),
            service,
        };
        podman.kill_gated_before().await?;
        warm(&podman.config.criu);
        Ok(podman)
    }

    /// Returns once podman's service answers (again). Cancel safe.
    pub async fn ready(&self) -> Result<(), EngineError> {
        self.service.ready().await
    }

    /// The pid of podman's service, for tests that kill it.
    pub fn service_pid(&self) -> Option<u32> {
        self.service.pid()
    }

    /// Our containers in podman's storage.
    pub(super) fn stored(&self) -> Result<Vec<Stored>, EngineError> {
        containers::list(&self.graphroot)
    }

    /// The container in podman's storage, if it is there.
    pub(super) fn find(&self, id: ContainerId) -> Result<Option<Stored>, EngineError> {
        containers::find(&self.graphroot, id)
    }

    /// The container in podman's storage; `Refused` when it is not there.
    pub(super) fn must_find(
        &self,
        spec: &ContainerSpec,
        step: &str,
    ) -> Result<Stored, EngineError> {
        self.find(spec.id)?.ok_or_else(|| EngineError::Refused {
            what: format!("{step} container {}", spec.name),
            message: "podman does not hold it".into(),
        })
    }

    pub(super) fn cgroup(&self, stored: &Stored) -> Cgroup {
        self.hierarchy.group(&layout::container_cgroup(&stored.podman_id))
    }

    pub(super) fn userdata(&self, stored: &Stored) -> PathBuf {
        layout::userdata(&self.graphroot, &stored.podman_id)
    }

    /// Sources that wait for the word to dump, or have dumped.
    pub(super) fn armed(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<ArmedSource>>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Targets that wait for the word to restore.
    pub(super) fn waiting(&self) -> MutexGuard<'_, BTreeMap<ContainerId, ArmedTarget>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// runc, to be run as podman's service runs it; what it says is in the configuration's
    /// `runc_log`.
    pub(super) fn runc(&self) -> io::Result<tokio::process::Command> {
        // The present service's is listened in; between two of them there is none.
        let mut shims =
            fs::read_dir(self.config.shims())?.map_while(|shim| Some(shim.ok()?.path()));
        let shim = shims.find(|shim| shim.join(SOCKET).exists());
        let shim = shim.ok_or(io::ErrorKind::NotFound)?;
        let group = self.hierarchy.group(&self.config.cgroup);
        let mut command = confine::command(Path::new("runc"), &self.config, &shim, &group)?;
        command.stderr(fs::File::create(self.config.runc_log())?);
        Ok(command.into())
    }

    /// Targets at the gate.
    pub(super) fn staged(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Staged>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has criu find out what the kernel can do, beside everything else. It keeps that until the
/// next boot; the first dump after one would find it out while its container stands still.
fn warm(criu: &Path) {
    let mut check = tokio::process::Command::new(criu);
    check.arg("check").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    tokio::spawn(async move {
        // What it is not content with, the doctor says.
        if let Err(error) = check.status().await {
            tracing::debug!(%error, "criu cannot be run");
        }
    });
}

/// Where podman keeps its storage, once it answers.
async fn storage(libpod: &Libpod) -> Result<PathBuf, EngineError> {
    let refused = |message: String| EngineError::Refused { what: "podman info".into(), message };
    let answer =
        libpod.call(Method::GET, "info").await?.map_err(|r| r.into_error("podman info"))?;
    let info: Info = serde_json::from_slice(&answer).map_err(|error| refused(error.to_string()))?;
    if info.store.graph_driver_name != "overlay" {
        let driver = info.store.graph_driver_name;
        return Err(refused(format!(
            "its storage driver is {driver}: set `driver = \"overlay\"` in /etc/containers/storage.conf"
        )));
    }
    Ok(info.store.graph_root)
}

impl Engine for Podman {
    async fn images(&self) -> Result<Vec<HeldImage>, EngineError> {
        self.list_images().await
    }
    async fn layers(&self, id: &ImageId) -> Result<Vec<String>, EngineError> {
        self.list_layers(id).await
    }
    async fn save_image(&self, id: &ImageId, file: &Path) -> Result<(), EngineError> {
        self.write_image(id, file).await
    }
    async fn load_image(&self, file: &Path) -> Result<ImageId, EngineError> {
        self.read_image(file).await
    }
    async fn name_image(&self, id: &ImageId, name: &str) -> Result<(), EngineError> {
        self.tag(id, name).await
    }
    async fn remove_image(&self, id: &ImageId) -> Result<(), EngineError> {
        self.drop_image(id).await
    }

    async fn create(&self, spec: &ContainerSpec, netns: &Path) -> Result<(), EngineError> {
        self.make(spec, netns).await
    }
    async fn start(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        self.begin(spec).await
    }

    async fn stop(&self, spec: &ContainerSpec, grace_seconds: u32) -> Result<(), EngineError> {
        self.halt(spec, grace_seconds).await
    }

    async fn logs(&self, spec: &ContainerSpec, tail: Option<u32>) -> Result<Vec<u8>, EngineError> {
        self.read_logs(spec, tail).await
    }

    async fn arm(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        metadata: &Path,
    ) -> Result<(), EngineError> {
        self.arm_source(spec, images, metadata).await
    }
    async fn mapped(&self, spec: &ContainerSpec) -> Result<BTreeSet<PathBuf>, EngineError> {
        let stored = self.must_find(spec, "reading the memory of")?;
        let cgroup = self.cgroup(&stored);
        let what = "reading which files it may write by memory";
        self.threads.run(spec.id, what, move || Ok(mapped_for_writing(&cgroup.processes()?))).await
    }
    async fn freeze(&self, spec: &ContainerSpec, mode: Mode) -> Result<(), EngineError> {
        self.freeze_source(spec, mode).await
    }
    async fn dump(&self, spec: &ContainerSpec, mode: Mode, file: &Path) -> Result<(), EngineError> {
        self.dump_source(spec, mode, file).await
    }
    async fn dump_armed(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        sink: &dyn ImageSink,
        noted: &Noted,
    ) -> Result<(), EngineError> {
        self.dump_armed_source(spec, images, sink, noted).await
    }
    async fn thaw(&self, spec: &ContainerSpec, mode: Mode) -> Result<(), EngineError> {
        self.thaw_source(spec, mode).await
    }

    async fn prepare(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        netns: &Path,
    ) -> Result<(), EngineError> {
        self.prepare_target(spec, mode, netns).await
    }
    async fn await_images(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        metadata: &Path,
    ) -> Result<(), EngineError> {
        self.arm_target(spec, images, metadata).await
    }
    fn awaits_images(&self, spec: &ContainerSpec) -> bool {
        self.waiting().get(&spec.id).is_some_and(|armed| self.is_good(armed.since, &armed.restore))
    }
    async fn stage_armed(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        metadata: &Path,
        noted: &Noted,
    ) -> Result<(), EngineError> {
        self.stage_armed_target(spec, images, metadata, noted).await
    }
    async fn stage(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        file: &Path,
    ) -> Result<(), EngineError> {
        self.stage_target(spec, mode, file).await
    }
    fn is_stale(&self, spec: &ContainerSpec) -> bool {
        self.staged()
            .get(&spec.id)
            .is_some_and(|staged| !self.is_good(staged.since, &staged.restore))
    }
    async fn open(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        noted: &Noted,
        runs: impl FnOnce() + Send,
    ) -> Result<(), EngineError> {
        self.open_target(spec, mode, noted, runs).await
    }

    async fn destroy(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        self.remove(spec.id, spec.name.as_str()).await
    }

    async fn forget(&self, id: ContainerId) -> Result<(), EngineError> {
        self.clear_unknown(id).await
    }
    async fn spec(&self, id: ContainerId) -> Result<Option<ContainerSpec>, EngineError> {
        self.read_spec(id).await
    }
    async fn observe(&self) -> Result<Vec<Observed>, EngineError> {
        self.observe_all().await
    }
    async fn usage(&self) -> Result<Vec<Usage>, EngineError> {
        self.usage_of_all()
    }
}
