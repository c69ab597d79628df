//! A lab host with the engine on it, and the workload whose ticks are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use godwit_agent::engine::{Engine, EngineConfig, EngineError, ImageSink, Podman};
use godwit_agent::moments::Noted;
use godwit_agent::network::{Network, NetworkConfig};
use godwit_proto::container::{ContainerSpec, Execution, Interface, Limits, Mode};
use godwit_proto::id::{ContainerId, ImageId};
use godwit_tests::program;

/// How long anything that is awaited may take.
const PATIENCE: Duration = Duration::from_secs(30);
const IMAGE: &str = "localhost/godwit-test:1";
/// Listens on a socket and counts, each number once. While there is a file `/storm` it forks
/// wildly beside that: some forty processes that come and go.
const WORKLOAD: &str = "nc -ll -p 7000 -e cat & i=0; while :; do i=$((i+1)); echo tick $i; \
     [ -e /storm ] && { usleep 100000 & usleep 100000 & }; usleep 5000; done";

pub(crate) struct Host {
    pub(crate) engine: Podman,
    pub(crate) network: Network,
    pub(crate) spec: ContainerSpec,
    pub(crate) netns: PathBuf,
    /// How it moves: armed (live) or plain.
    pub(crate) mode: Mode,
}

pub(crate) fn config() -> EngineConfig {
    let mut config = EngineConfig::standard(program("godwit-agent"));
    config.rundir = "/run/godwit-test".into();
    config.workdir = "/var/lib/godwit/test".into();
    config.cgroup = "godwit-test".into();
    config
}

/// A container's file on the way from one end to the other.
pub(crate) fn image(spec: &ContainerSpec) -> PathBuf {
    config().workdir.join(format!("{}.tar", spec.id))
}

/// Where the images of an armed move lie, on both ends.
pub(crate) fn images(spec: &ContainerSpec) -> PathBuf {
    config().rundir.join(format!("images/{}-1.1", spec.id))
}

/// Where what podman knows of the container lies.
pub(crate) fn metadata(spec: &ContainerSpec) -> PathBuf {
    config().workdir.join(format!("{}.metadata", spec.id))
}

/// Rebuilds what was dumped at the gate.
pub(crate) async fn stage(
    engine: &Podman,
    spec: &ContainerSpec,
    mode: Mode,
) -> Result<(), EngineError> {
    if mode != Mode::Live {
        return engine.stage(spec, mode, &image(spec)).await;
    }
    let (images, metadata) = (images(spec), metadata(spec));
    engine.await_images(spec, &images, &metadata).await?;
    engine.stage_armed(spec, &images, &metadata, &Noted::default()).await
}

/// How much of each file an armed dump has sent.
#[derive(Debug, Default)]
pub(crate) struct Sent(Mutex<BTreeMap<String, u64>>);

impl ImageSink for Sent {
    fn add(&self, name: &str, _file: &Arc<File>, span: Range<u64>) {
        let mut sent = self.0.lock().expect("nobody panicked");
        let before = sent.insert(name.to_owned(), span.end).unwrap_or(0);
        assert_eq!(span.start, before, "{name}: a hole, or sent twice");
    }
}

impl Sent {
    /// Each file with how much of it was sent.
    pub(crate) fn files(self) -> BTreeMap<String, u64> {
        self.0.into_inner().expect("nobody panicked")
    }
}

/// Shows the engine's log as RUST_LOG asks.
pub(crate) fn log() {
    let _second_time = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
}

impl Host {
    /// Starts the engine with a container that does not exist yet.
    pub(crate) async fn up() -> Self {
        log();
        let engine = Podman::start(config()).await.expect("podman's service");
        let network = Network::start(NetworkConfig::default()).await.expect("network");
        let spec = spec(import());
        let netns = network.ensure(spec.id, &spec.interfaces).await.expect("namespace");
        Self { engine, network, spec, netns, mode: Mode::Plain }
    }

    /// [`Host::up`] with the container running and ticking.
    pub(crate) async fn running(mode: Mode) -> Self {
        let host = Self { mode, ..Self::up().await };
        host.engine.create(&host.spec, &host.netns).await.expect("create");
        host.network.attach(host.spec.id, &host.spec.interfaces).await.expect("attach");
        host.engine.start(&host.spec).await.expect("start");
        host.until_ticks_pass(20).await;
        host
    }

    /// Where its image lies.
    pub(crate) fn image(&self) -> PathBuf {
        image(&self.spec)
    }

    /// [`Host::running`], then frozen and dumped; and how far it had ticked by then.
    pub(crate) async fn dumped(mode: Mode) -> (Self, usize) {
        let host = Self::running(mode).await;
        host.dump().await;
        let at_freeze = host.ticks().len();
        (host, at_freeze)
    }

    /// [`Host::dumped`], then rebuilt at the gate.
    pub(crate) async fn staged(mode: Mode) -> (Self, usize) {
        let (mut host, at_freeze) = Self::dumped(mode).await;
        host.stage().await;
        (host, at_freeze)
    }

    /// Arms where it moves so, freezes, cuts and dumps.
    pub(crate) async fn dump(&self) {
        if self.mode == Mode::Live {
            self.arm().await;
        }
        self.freeze_and_dump(&Sent::default()).await;
    }

    /// Has the checkpoint wait for the word, in empty directories.
    pub(crate) async fn arm(&self) {
        let (images, metadata) = (images(&self.spec), metadata(&self.spec));
        for dir in [&images, &metadata] {
            let _none_yet = std::fs::remove_dir_all(dir);
            std::fs::create_dir_all(dir).expect("mkdir");
        }
        self.engine.arm(&self.spec, &images, &metadata).await.expect("arm");
    }

    /// Freezes, cuts and dumps; an armed dump goes to `sink`.
    pub(crate) async fn freeze_and_dump(&self, sink: &dyn ImageSink) {
        self.engine.freeze(&self.spec, self.mode).await.expect("freeze");
        self.network.cut(self.spec.id).await.expect("cut");
        let dumped = match self.mode {
            Mode::Live => {
                let (images, noted) = (images(&self.spec), Noted::default());
                self.engine.dump_armed(&self.spec, &images, sink, &noted).await
            }
            mode => self.engine.dump(&self.spec, mode, &self.image()).await,
        };
        dumped.expect("dump");
    }

    /// Becomes the target and rebuilds what was dumped at the gate.
    pub(crate) async fn stage(&mut self) {
        self.become_target().await;
        self.stage_again().await;
    }

    /// Rebuilds what was dumped at the gate, once more or for the first time.
    pub(crate) async fn stage_again(&self) {
        let staged = stage(&self.engine, &self.spec, self.mode).await;
        staged.expect("stage");
    }

    /// Opens the gate: what was dumped goes on where it was.
    pub(crate) async fn open(&self) {
        let opened = self.engine.open(&self.spec, self.mode, &Noted::default(), || {}).await;
        opened.expect("open");
        self.goes_on().await;
    }

    /// It ticks, and each number came once.
    pub(crate) async fn goes_on(&self) {
        self.until_ticks_pass(20).await;
        self.assert_unbroken();
    }

    /// Removes the container's processes and network and makes the network anew, as a target would.
    pub(crate) async fn become_target(&mut self) {
        self.engine.destroy(&self.spec).await.expect("destroy");
        self.network.remove(self.spec.id).await.expect("remove namespace");
        self.netns =
            self.network.ensure(self.spec.id, &self.spec.interfaces).await.expect("namespace");
        self.engine.prepare(&self.spec, self.mode, &self.netns).await.expect("prepare");
    }

    /// Removes everything, and checks that nothing is left.
    pub(crate) async fn down(self) {
        let podman_id = self.podman_id();
        self.engine.destroy(&self.spec).await.expect("destroy");
        self.engine.destroy(&self.spec).await.expect("destroy again");
        self.network.remove(self.spec.id).await.expect("remove namespace");
        self.network.remove(self.spec.id).await.expect("remove namespace again");
        let _never_dumped = std::fs::remove_file(self.image());
        for dir in [images(&self.spec), metadata(&self.spec)] {
            let _never_armed = std::fs::remove_dir_all(dir);
        }
        if let Some(id) = podman_id {
            nothing_is_left(&id).await;
        }
        assert!(!self.network.exists(self.spec.id));
    }

    /// The pids of its processes.
    pub(crate) fn pids(&self) -> BTreeSet<String> {
        let id = self.podman_id().expect("id");
        let group = format!("/sys/fs/cgroup/libpod_parent/libpod-{id}/cgroup.procs");
        let text = std::fs::read_to_string(group).expect("cgroup");
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn podman_id(&self) -> Option<String> {
        podman_id(&self.spec)
    }

    pub(crate) async fn execution(&self) -> Option<Execution> {
        let all = self.engine.observe().await.expect("observe");
        all.into_iter().find(|seen| seen.id == self.spec.id).map(|seen| seen.execution)
    }

    /// Every number that was ticked, in order.
    pub(crate) fn ticks(&self) -> Vec<u64> {
        let Some(id) = self.podman_id() else { return Vec::new() };
        let log = format!("/var/lib/containers/storage/overlay-containers/{id}/userdata/ctr.log");
        let text = std::fs::read_to_string(log).unwrap_or_default();
        text.lines().filter_map(|line| line.rsplit_once("tick ")?.1.parse().ok()).collect()
    }

    /// Returns once `more` ticks have been logged.
    pub(crate) async fn until_ticks_pass(&self, more: usize) {
        let before = self.ticks().len();
        until(&format!("{more} more ticks"), || self.ticks().len() >= before + more).await;
    }

    /// Each number came once and none is missing.
    fn assert_unbroken(&self) {
        let ticks = self.ticks();
        let expected: Vec<u64> = (1..=ticks.len() as u64).collect();
        let broken = ticks.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(
            broken,
            None,
            "ticks {:?}",
            broken.map(|at| &ticks[at.saturating_sub(3)..at + 3])
        );
    }
}

/// Waits for a condition that some other process brings about.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn podman_id(spec: &ContainerSpec) -> Option<String> {
    let file = "/var/lib/containers/storage/overlay-containers/containers.json";
    let all: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).expect("json");
    let found = all.as_array()?.iter().find(|entry| {
        entry["names"].as_array().is_some_and(|names| names.contains(&spec.engine_name().into()))
    })?;
    Some(found["id"].as_str()?.to_owned())
}

/// No mount, directory, cgroup or process names the container.
pub(crate) fn no_trace_is_left(podman_id: &str) {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(podman_id)).collect();
    assert_eq!(left, [""; 0], "mounts");
    for place in [
        "/run/runc",
        "/run/containers/storage/overlay-containers",
        "/var/lib/containers/storage/overlay-containers",
    ] {
        let path = Path::new(place).join(podman_id);
        assert!(!path.exists(), "{} is left", path.display());
    }
    let cgroup = format!("/sys/fs/cgroup/libpod_parent/libpod-{podman_id}");
    assert!(!Path::new(&cgroup).exists(), "{cgroup} is left");
    let left: Vec<_> = processes().into_iter().filter(|p| p.command.contains(podman_id)).collect();
    assert!(left.is_empty(), "processes {left:?}");
}

/// No trace of the container, nor of any other's move.
pub(crate) async fn nothing_is_left(podman_id: &str) {
    no_trace_is_left(podman_id);
    let proxies: Vec<_> = processes().into_iter().filter(|p| p.name == "criu-gate").collect();
    assert!(proxies.is_empty(), "processes {proxies:?}");
    let temporary = config().workdir.join("podman");
    let files = || std::fs::read_dir(&temporary).map_or(0, Iterator::count);
    until("end of podman's temporary files", || files() == 0).await;
    // The host's init reaps what was orphaned, in its own time; what it cannot is our child.
    until("end of the zombies", || !processes().iter().any(|p| p.zombie)).await;
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) zombie: bool,
}

/// Every process of the host.
pub(crate) fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").expect("proc");
    entries
        .filter_map(|entry| {
            let dir = entry.ok()?.path();
            let pid = dir.file_name()?.to_str()?.parse().ok()?;
            let name = std::fs::read_to_string(dir.join("comm")).ok()?.trim().to_owned();
            let command = std::fs::read_to_string(dir.join("cmdline")).ok()?.replace('\0', " ");
            let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
            let zombie = stat.rsplit_once(')')?.1.trim_start().starts_with('Z');
            Some(Process { pid, name, command, zombie })
        })
        .collect()
}

/// The test image: busybox, and files of which a host has none.
fn import() -> ImageId {
    let dir = tempfile::tempdir().expect("tempdir");
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).expect("mkdir");
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("apt install busybox-static");
    for name in ["sh", "nc", "usleep", "cat", "rm"] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).expect("symlink");
    }
    std::fs::create_dir(dir.path().join("image")).expect("mkdir");
    for name in ["changed", "removed"] {
        std::fs::write(dir.path().join("image").join(name), "the image's").expect("write");
    }
    let emptied = dir.path().join("image/emptied");
    std::fs::create_dir(&emptied).expect("mkdir");
    std::fs::write(emptied.join("hidden"), "the image's").expect("write");
    let known = podman(&["images", "-q", "--no-trunc", IMAGE]);
    if let Ok(id) = known.parse() {
        return id;
    }
    let tar = dir.path().join("image.tar");
    let tar = tar.to_str().expect("utf-8");
    let root = dir.path().to_str().expect("utf-8");
    assert!(
        Command::new("tar")
            .args(["-cf", tar, "-C", root, "bin", "image"])
            .status()
            .expect("tar")
            .success()
    );
    podman(&["import", "-q", tar, IMAGE]).parse().expect("image id")
}

pub(crate) fn podman(args: &[&str]) -> String {
    let output = Command::new("podman").args(args).output().expect("podman");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn spec(image: ImageId) -> ContainerSpec {
    let id = ContainerId(uuid::Uuid::new_v4());
    let [.., last] = *id.0.as_bytes();
    ContainerSpec {
        id,
        tenant: "default".parse().expect("tenant"),
        name: "counter".parse().expect("name"),
        image,
        image_name: IMAGE.into(),
        args: ["/bin/sh", "-c", WORKLOAD].map(str::to_owned).to_vec(),
        env: [("COLOUR".to_owned(), "blue".to_owned())].into(),
        labels: Default::default(),
        limits: Limits::default(),
        interfaces: vec![Interface {
            mac: [2, 0x77, 1, 0, 0, last],
            addresses: vec![format!("10.77.1.{}/16", last.max(1)).parse().expect("an address")],
            gateways: Vec::new(),
            overlay: None,
        }],
        ports: Vec::new(),
        resolver: None,
        volumes: Vec::new(),
        devices: Vec::new(),
    }
}
