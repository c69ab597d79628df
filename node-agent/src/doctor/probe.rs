//! The probe: a tiny container with a listening socket, checkpointed, killed, restored
//! through the gate, and asked whether it still answers.
//!
//! Its image is the agent's own binary with the libraries that it has mapped: these are on
//! every board that runs an agent, of every architecture, and nothing has to be installed,
//! built or downloaded. In the container the binary is run by the name [`NAME`], and does
//! nothing but answer.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_proto::container::{ContainerSpec, Execution, Limits, Mode};
use godwit_proto::id::{ContainerId, Epoch, ImageId};

use super::trial::Trial;
use super::{Finding, knobs};
use crate::engine::{Engine, EngineConfig, EngineError, ImageDirs, ImageSink, Podman, probe_id};
use crate::expedite::Expedite;
use crate::hands::told;
use crate::moments::Noted;
use crate::network::{self, Network};

/// The check that the armed hand-over works.
pub(super) const ARMED: &str = "armed hand-over";
/// The name that the agent's binary is run by in the probe's container.
pub const NAME: &str = "godwit-probe";
/// What the images of the probe may take: it is one process without memory of its own.
const IMAGES_BYTES: u64 = 64 << 20;
/// Where the probe listens, in its own namespace.
const PORT: u16 = 7;
/// How long the probe may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The whole probe's deadline.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long weighing the host's settings may take; the deadline holds beside it.
const WEIGH: Duration = Duration::from_secs(45);
/// How long clearing up after it may take.
const CLEAR: Duration = Duration::from_secs(60);

/// What the binary does by the name of [`NAME`]: answers every connection with a byte.
pub fn main() -> ExitCode {
    let Ok(listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) else {
        return ExitCode::FAILURE;
    };
    while let Ok((mut peer, _)) = listener.accept() {
        // A peer that leaves early asked for nothing.
        let _left = peer.write_all(b"!");
    }
    ExitCode::FAILURE
}

/// Carries the probe out, and clears up after it however it ended. Takes seconds, and never
/// longer than its deadlines. The plain way is what a node must be capable of; what is found of
/// the armed one comes second. With `expedite` the settings of the host are weighed too.
pub(super) async fn run(
    engine: &Podman,
    config: &EngineConfig,
    trial: &Trial,
    expedite: Option<&Expedite>,
) -> Vec<Finding> {
    let trying = async {
        // What a doctor that was killed left.
        clear(engine, trial).await?;
        attempt(engine, config, trial, expedite).await
    };
    let tried = within(DEADLINE, "the trial", trying).await;
    let cleared = within(CLEAR, "clearing up after it", clear(engine, trial)).await;
    match (tried, cleared) {
        (Ok(armed), Ok(())) => [vec![plain()], armed_or_not(armed)].concat(),
        (Err(error), _) | (_, Err(error)) => vec![failed(&told(&error))],
    }
}

async fn within<T>(
    limit: Duration,
    what: &str,
    step: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let late = |_| EngineError::Deadline { what: what.to_owned(), seconds: limit.as_secs() };
    tokio::time::timeout(limit, step).await.map_err(late)?
}

fn plain() -> Finding {
    Finding {
        check: "probe".into(),
        ok: true,
        required: true,
        message: "a container with a listening socket was checkpointed and restored".into(),
        remedy: String::new(),
    }
}

/// The finding of a probe that failed.
pub(super) fn failed(why: &str) -> Finding {
    Finding {
        ok: false,
        message: format!("a trial checkpoint and restore failed: {why}"),
        remedy: "a newer criu often helps: `apt install -t forky criu`; else please report this with `godwit-agent doctor`'s output".into(),
        ..plain()
    }
}

fn armed_or_not(tried: Result<Armed, EngineError>) -> Vec<Finding> {
    let finding = |ok, message, remedy: &str| Finding {
        check: ARMED.into(),
        ok,
        required: false,
        message,
        remedy: remedy.into(),
    };
    match tried {
        Ok(Armed { still, worth }) => {
            let message = format!(
                "the same with podman and runc done before the freeze, standing still for {} ms",
                still.as_millis()
            );
            [vec![finding(true, message, "")], worth].concat()
        }
        Err(error) => vec![finding(
            false,
            format!("podman and runc cannot be armed: {}", told(&error)),
            "containers move to and from this node the plain way, and stand still for longer; please report this with `godwit-agent doctor`'s output",
        )],
    }
}

/// What was found of the armed way.
struct Armed {
    still: Duration,
    worth: Vec<Finding>,
}

/// The plain way, and whether the armed one works after it.
async fn attempt(
    engine: &Podman,
    config: &EngineConfig,
    trial: &Trial,
    expedite: Option<&Expedite>,
) -> Result<Result<Armed, EngineError>, EngineError> {
    let id = probe_id();
    trial.note(id).map_err(io("noting the trial"))?;
    let directory =
        tempfile::tempdir_in(&config.workdir).map_err(io("making a directory for the probe"))?;
    let tar = directory.path().join("image.tar");
    let command = write_image(&config.shim, &tar).map_err(io("writing the probe's image"))?;
    let image = engine.import_image(&tar, &image_name(id)).await?;
    let spec = spec(id, image, command);
    hand_over(engine, &spec, &directory.path().join("checkpoint.tar")).await?;
    let images = ImageDirs::open(&config.rundir, &config.workdir, Some(IMAGES_BYTES))?;
    let netns = Network::path(id);
    let directory = directory.path().join("metadata");
    let mut trials = ArmedTrials { engine, spec, netns, images, directory, made: 0 };
    let armed = async {
        let still = trials.hand_over().await?;
        let worth = match expedite {
            // Advice: a node is not unfit for want of it.
            Some(expedite) => {
                within(WEIGH, "weighing the host's settings", knobs::weigh(&mut trials, expedite))
                    .await
                    .unwrap_or_else(|error| vec![knobs::unknown(&error)])
            }
            None => Vec::new(),
        };
        Ok(Armed { still, worth })
    };
    Ok(armed.await)
}

/// Removes whatever there is of the trial that was noted, begun by this doctor or another one.
async fn clear(engine: &Podman, trial: &Trial) -> Result<(), EngineError> {
    let Some(id) = trial.noted().map_err(io("reading which trial was noted"))? else {
        return Ok(());
    };
    let destroyed = engine.remove(id, NAME).await;
    let unnamed = network::remove_bare(id).await.map_err(network_error);
    let name = image_name(id);
    let held = engine.images().await?.into_iter().find(|image| image.names.contains(&name));
    let removed = match held {
        Some(image) => engine.remove_image(&image.id).await,
        None => Ok(()),
    };
    destroyed.and(unnamed).and(removed)?;
    trial.strike().map_err(io("striking the trial out"))
}

/// What the image of a probe is called.
fn image_name(id: ContainerId) -> String {
    format!("localhost/{NAME}:{}", id.0.simple())
}

async fn hand_over(engine: &Podman, spec: &ContainerSpec, file: &Path) -> Result<(), EngineError> {
    let netns = network::ensure_bare(spec.id).await.map_err(network_error)?;
    engine.create(spec, &netns).await?;
    engine.start(spec).await?;
    answers(&netns, "before the checkpoint").await?;
    engine.freeze(spec, Mode::Plain).await?;
    engine.dump(spec, Mode::Plain, file).await?;
    engine.destroy(spec).await?;
    engine.prepare(spec, Mode::Plain, &netns).await?;
    engine.stage(spec, Mode::Plain, file).await?;
    if engine.execution_of(spec)? != Execution::Gated {
        return Err(refused("restoring", "it did not wait at the gate"));
    }
    engine.open(spec, Mode::Plain, &Noted::default(), || {}).await?;
    answers(&netns, "after the restore").await
}

/// Armed moves of the probe's container, from this node to itself.
pub(super) struct ArmedTrials<'a> {
    engine: &'a Podman,
    spec: ContainerSpec,
    netns: PathBuf,
    images: ImageDirs,
    directory: PathBuf,
    made: u32,
}

impl ArmedTrials<'_> {
    /// The container's network namespace.
    pub(super) fn netns(&self) -> &Path {
        &self.netns
    }

    /// One more; returns for how long it would have stood still between two nodes, but for the
    /// bytes on their way.
    pub(super) async fn hand_over(&mut self) -> Result<Duration, EngineError> {
        let Self { engine, spec, netns, directory, .. } = self;
        self.made += 1;
        let epoch = Epoch { generation: 1, counter: self.made };
        let images = self.images.make(spec.id, epoch, 0)?;
        let noted = Noted::default();
        fs::create_dir(&*directory).map_err(io("making a directory for the probe"))?;
        engine.arm(spec, &images, directory).await?;
        let frozen = Instant::now();
        engine.freeze(spec, Mode::Live).await?;
        engine.dump_armed(spec, &images, &Nowhere, &noted).await?;
        let dumped = frozen.elapsed();
        engine.destroy(spec).await?;
        engine.prepare(spec, Mode::Live, netns).await?;
        engine.await_images(spec, &images, directory).await?;
        let begun = Instant::now();
        engine.stage_armed(spec, &images, directory, &noted).await?;
        if engine.execution_of(spec)? != Execution::Gated {
            return Err(refused("restoring", "it did not wait at the gate"));
        }
        let mut restored = begun.elapsed();
        engine.open(spec, Mode::Live, &noted, || restored = begun.elapsed()).await?;
        answers(netns, "after the armed restore").await?;
        self.images.clear(spec.id, None)?;
        fs::remove_dir_all(directory).map_err(io("removing a directory of the probe"))?;
        Ok(dumped + restored)
    }
}

/// Images that stay where they are written.
struct Nowhere;

impl ImageSink for Nowhere {
    fn add(&self, _name: &str, _file: &Arc<fs::File>, _span: Range<u64>) {}
}

/// Waits until the probe answers, from inside its namespace.
async fn answers(netns: &Path, when: &str) -> Result<(), EngineError> {
    let end = tokio::time::Instant::now() + ANSWER;
    loop {
        let asked = network::inside(netns, || {
            let mut peer = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, PORT).into(), ANSWER)?;
            peer.set_read_timeout(Some(ANSWER))?;
            let mut byte = [0];
            peer.read_exact(&mut byte)
        });
        match asked.await {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > end => {
                return Err(refused("asking the probe", &format!("no answer {when}: {error}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Writes a tar with the binary and its libraries, and returns the command that runs it.
fn write_image(binary: &Path, tar: &Path) -> io::Result<Vec<String>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let libraries = libraries(&maps);
    let mut image = tar::Builder::new(fs::File::create(tar)?);
    // podman does not read GNU's sparse files.
    image.sparse(false);
    image.append_path_with_name(binary, NAME)?;
    for library in &libraries {
        if let Some(name) = library.file_name() {
            image.append_path_with_name(library, Path::new("lib").join(name))?;
        }
    }
    image.into_inner()?.sync_all()?;
    let program = format!("/{NAME}");
    let loader = libraries
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .find(|name| name.starts_with("ld-"));
    Ok(match loader {
        // By the loader's own name: where it is looked for differs between architectures.
        Some(loader) => {
            vec![format!("/lib/{loader}"), "--library-path".into(), "/lib".into(), program]
        }
        None => vec![program],
    })
}

/// The shared objects in a `/proc/<pid>/maps`, each once.
fn libraries(maps: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.ends_with(".so") || name.contains(".so.")
        })
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn spec(id: ContainerId, image: ImageId, args: Vec<String>) -> ContainerSpec {
    let name = |text: &str| text.parse().unwrap_or_else(|_| unreachable!("`{text}` is a name"));
    ContainerSpec {
        id,
        tenant: godwit_proto::id::Tenant::default_tenant(),
        name: name(NAME),
        image_name: String::new(),
        image,
        args,
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

fn refused(what: &str, message: &str) -> EngineError {
    EngineError::Refused { what: what.to_owned(), message: message.to_owned() }
}

fn io(what: &'static str) -> impl Fn(io::Error) -> EngineError {
    move |source| EngineError::Io { what: what.into(), source }
}

fn network_error(error: network::NetworkError) -> EngineError {
    refused("making the probe's network namespace", &error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_holds_every_library_once() {
        let maps = fs::read_to_string("/proc/self/maps").expect("maps");
        let found = libraries(&maps);
        let named =
            |part: &str| found.iter().filter(|path| path.to_string_lossy().contains(part)).count();
        assert_eq!((named("libc.so"), named("ld-linux")), (1, 1), "{found:?}");
    }

    #[test]
    fn a_file_that_is_only_mapped_is_no_library() {
        let maps = "7f-80 r--p 0 08:01 1   /etc/passwd\n7f-80 rw-p 0 00:00 0\n";
        assert!(libraries(maps).is_empty());
    }
}
