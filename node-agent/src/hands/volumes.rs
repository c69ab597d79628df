//! A container's volumes on their way: ahead of the freeze in rounds, the rest within the gap.
//!
//! ```text
//! source   go ahead: look, say, look, say what changed …     frozen: follow with the rest
//!               │ part 1, 2, 3 …        │ Ahead                        │ Whole
//! target   fetch ahead: carry out … ────┘ ready            fetch rest: carry out, then restore
//! ```
//!
//! Each part is a stream of its own. The target asks for one when it has carried out all before
//! it, and notes how far it is: nothing is carried out twice but the part that it died in.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use godwit_proto::container::ContainerSpec;
use godwit_proto::frame::Step;
use godwit_proto::id::{ContainerId, Epoch, NodeId};
use godwit_proto::migration::{Arming, Record};
use godwit_proto::stream::StreamId;
use godwit_proto::topic::Peer;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{CallError, Tools, calls};
use crate::engine::Engine;
use crate::volumes::{Parts, Sent, Stage, Writers, apply};

/// So many rounds go ahead at the most.
const ROUNDS: u32 = 10;
/// What is left to say when no further round is worth it.
const SMALL_BYTES: u64 = 256 << 10;
/// A round after which less was shrunk than to this share of the one before was the last.
const SHRINKS_TO: f64 = 0.8;
/// How long a round waits at least for more to change; without it small ones would chase each other.
const ROUND: Duration = Duration::from_millis(20);

/// How far the target is, in the directory of the parts.
const NOTE: &str = "carried-out";

/// Volumes of a container that is about to move.
#[derive(Debug)]
pub(crate) struct Outgoing {
    epoch: Epoch,
    sent: Sent,
    next: u32,
}

/// Where parts go.
struct Way<'a> {
    spec: &'a ContainerSpec,
    epoch: Epoch,
    to: &'a NodeId,
    /// The container runs: no more than two parts are on disk.
    is_patient: bool,
}

/// Owner: the directories that the container will see.
pub(super) async fn make<E>(tools: &Tools<E>, record: &Record) -> Result<(), CallError> {
    let (volumes, spec) = (tools.volumes.clone(), record.spec.clone());
    on_disk(tools, &record.spec, "making its volumes", move || volumes.make(&spec)).await
}

/// Either end: what is here of the container's volumes is of no use to anybody.
pub(super) async fn drop_of<E>(tools: &Tools<E>, record: &Record) -> Result<(), CallError> {
    let (volumes, spec) = (tools.volumes.clone(), record.spec.clone());
    on_disk(tools, &record.spec, "removing its volumes", move || volumes.drop_of(&spec)).await
}

/// Target: it runs, and the source is told so only when a loss of power here can do no harm.
pub(super) async fn settle<E>(tools: &Tools<E>, record: &Record) -> Result<(), CallError> {
    let (volumes, spec) = (tools.volumes.clone(), record.spec.clone());
    on_disk(tools, &record.spec, "syncing its volumes", move || volumes.sync(&spec)).await?;
    forget(tools, record.spec.id, Some(record.epoch)).await
}

/// Source: the volumes go ahead until little changes from one round to the next.
pub(super) async fn go_ahead<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    arming: &Arming,
) -> Result<(), CallError> {
    let (spec, epoch) = (&record.spec, arming.epoch);
    if spec.volumes.is_empty() {
        return Ok(());
    }
    let dir = tools.parts(spec.id, epoch);
    // The target has carried out some of what an earlier life said, and nobody knows what.
    if dir.exists() {
        return Err(CallError::VolumesCutShort);
    }
    std::fs::create_dir_all(&dir)
        .map_err(|source| CallError::File { what: format!("making {}", dir.display()), source })?;
    let way = Way { spec, epoch, to: &arming.to, is_patient: true };
    let mut outgoing = Outgoing { epoch, sent: Sent::default(), next: 1 };
    let mut before = u64::MAX;
    for round in 1..=ROUNDS {
        let is_last = move |bytes: u64| {
            let shrunk = bytes as f64 / before as f64;
            round == ROUNDS || bytes <= SMALL_BYTES || shrunk > SHRINKS_TO
        };
        let stage = move |bytes| if is_last(bytes) { Stage::Ahead } else { Stage::Under };
        let bytes;
        (outgoing, bytes) = say(tools, &way, outgoing, stage).await?;
        tracing::info!(container = %spec.id, round, bytes, "volumes go ahead");
        if is_last(bytes) {
            break;
        }
        before = bytes;
        tokio::time::sleep(ROUND).await;
    }
    tools.outgoing().insert(spec.id, outgoing);
    Ok(())
}

/// Source: it stands still; what is left of its volumes follows.
pub(super) async fn follow<E: Engine>(tools: &Tools<E>, record: &Record) -> Result<(), CallError> {
    let spec = &record.spec;
    if spec.volumes.is_empty() {
        return Ok(());
    }
    let outgoing = { tools.outgoing().remove(&spec.id) };
    let outgoing = outgoing.filter(|outgoing| outgoing.epoch == record.epoch);
    let outgoing = outgoing.ok_or(CallError::VolumesCutShort)?;
    let to = record.peer.as_ref().ok_or(CallError::NoPeer)?;
    let way = Way { spec, epoch: record.epoch, to, is_patient: false };
    let (_, bytes) = say(tools, &way, outgoing, |_| Stage::Whole).await?;
    tracing::info!(container = %spec.id, bytes, "the rest of its volumes follows");
    Ok(())
}

/// Says what changed since the last time; answers how many bytes that took.
async fn say<E: Engine>(
    tools: &Tools<E>,
    way: &Way<'_>,
    mut outgoing: Outgoing,
    stage: impl FnOnce(u64) -> Stage + Send + 'static,
) -> Result<(Outgoing, u64), CallError> {
    let container = way.spec.id;
    let since = SystemTime::now();
    let mapped = tools.engine.mapped(way.spec).await?;
    let (ready, mut parts) = mpsc::channel::<(u32, PathBuf)>(1);
    let (volumes, spec) = (tools.volumes.clone(), way.spec.clone());
    let dir = tools.parts(container, way.epoch);
    let saying = on_disk(tools, way.spec, "reading its volumes", move || {
        let mut ready = |number, part| {
            ready.blocking_send((number, part)).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
        };
        let mut parts = Parts::new(dir, outgoing.next, &mut ready);
        let bytes = outgoing.sent.tell(&volumes, &spec, &Writers { since, mapped }, &mut parts)?;
        parts.finish(stage(bytes))?;
        outgoing.next = parts.number;
        Ok((outgoing, bytes))
    });
    let offering = async {
        while let Some((number, part)) = parts.recv().await {
            let stream = StreamId::Volumes { container, epoch: way.epoch, part: number };
            let to = Peer::from(way.to.clone());
            let offered = tools.streams.offer(stream, part, to).await?;
            if way.is_patient {
                let mut progress = offered.progress();
                let is_there = |at: &godwit_bus::stream::Progress| at.total_bytes == Some(at.bytes);
                progress.wait_for(is_there).await.map_err(|_| CallError::Withdrawn)?;
                // Who has asked for this one needs none before it.
                unoffer(tools, container, way.epoch, number - 1).await?;
            }
        }
        Ok(())
    };
    let (said, ()) = tokio::try_join!(saying, offering)?;
    Ok(said)
}

/// Source, after a restart of the agent: what the target may lack, on offer again.
pub(super) async fn resume<E>(tools: &Tools<E>, record: &Record) -> Result<(), CallError> {
    let (container, epoch) = (record.spec.id, record.epoch);
    let to = record.peer.clone().ok_or(CallError::NoPeer)?;
    for (part, path) in parts_in(&tools.parts(container, epoch)) {
        let stream = StreamId::Volumes { container, epoch, part };
        tools.streams.offer(stream, path, Peer::from(to.clone())).await?;
    }
    Ok(())
}

/// Target: the volumes as they were a moment ago, in place of what is here of them.
pub(super) async fn fetch_ahead<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
) -> Result<(), CallError> {
    fetch(tools, record, Stage::Ahead, Step::FetchingVolumes).await
}

/// Target: the volumes as they are, when the source stands still.
pub(super) async fn fetch_rest<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
) -> Result<(), CallError> {
    fetch(tools, record, Stage::Whole, Step::Transferring).await
}

/// How far a target is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Carried {
    /// What is carried out is not synced: it holds for one boot.
    boot: Uuid,
    part: u32,
    stage: Stage,
}

async fn fetch<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    until: Stage,
    step: Step,
) -> Result<(), CallError> {
    let spec = &record.spec;
    if spec.volumes.is_empty() {
        return Ok(());
    }
    let (container, epoch) = (spec.id, record.epoch);
    let from = Peer::from(record.peer.clone().ok_or(CallError::NoPeer)?);
    let dir = tools.parts(container, epoch);
    let note = dir.join(NOTE);
    let mut carried = match known(&note, tools.boot)? {
        Some(carried) => carried,
        None => {
            let (volumes, spec) = (tools.volumes.clone(), spec.clone());
            let making = move || volumes.make_empty(&spec);
            on_disk(tools, &record.spec, "making its volumes", making).await?;
            let none = Carried { boot: tools.boot, part: 0, stage: Stage::Under };
            keep(&note, none)?;
            none
        }
    };
    while carried.stage < until {
        let part = carried.part + 1;
        let path = dir.join(part.to_string());
        if !path.exists() {
            let stream = StreamId::Volumes { container, epoch, part };
            calls::receive(tools, record, stream, &from, &path, step).await?;
        }
        let (volumes, spec, file) = (tools.volumes.clone(), spec.clone(), path.clone());
        let writing = move || apply(&volumes, &spec, &file);
        let stage = match on_disk(tools, &record.spec, "writing its volumes", writing).await {
            Ok(stage) => stage,
            Err(error) => {
                // At once: on a disk that is full nobody could even note that the move is off.
                drop_of(tools, record).await?;
                calls::remove(&path).await?;
                return Err(error);
            }
        };
        carried = Carried { part, stage, ..carried };
        keep(&note, carried)?;
        calls::remove(&path).await?;
        if stage == Stage::Ahead {
            // While it costs nobody anything.
            let (volumes, spec) = (tools.volumes.clone(), record.spec.clone());
            on_disk(tools, &record.spec, "syncing its volumes", move || volumes.sync(&spec))
                .await?;
        }
    }
    Ok(())
}

fn known(note: &Path, boot: Uuid) -> Result<Option<Carried>, CallError> {
    let Ok(text) = std::fs::read(note) else { return Ok(None) };
    match serde_json::from_slice(&text) {
        Ok(Carried { boot: then, .. }) if then != boot => Err(CallError::VolumesCutShort),
        Ok(carried) => Ok(Some(carried)),
        Err(_) => Err(CallError::VolumesCutShort),
    }
}

fn keep(note: &Path, carried: Carried) -> Result<(), CallError> {
    let failed = |source| CallError::File { what: format!("writing {}", note.display()), source };
    let new = note.with_extension("new");
    // Numbers and an id always encode.
    let text = serde_json::to_vec(&carried).unwrap_or_default();
    note.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, note)).map_err(failed)
}

/// Either end: nothing of the attempt's parts is of use any more; of none of all, without an epoch.
pub(super) async fn forget<E>(
    tools: &Tools<E>,
    container: ContainerId,
    epoch: Option<Epoch>,
) -> Result<(), CallError> {
    tools.threads.rest(container).await;
    tools.outgoing().remove(&container);
    let Some(epoch) = epoch else { return Ok(()) };
    withdraw(tools, container, epoch);
    calls::remove(&tools.parts(container, epoch)).await
}

/// Nothing of the attempt's parts is offered any more.
pub(super) fn withdraw<E>(tools: &Tools<E>, container: ContainerId, epoch: Epoch) {
    for (part, _) in parts_in(&tools.parts(container, epoch)) {
        tools.streams.withdraw(&StreamId::Volumes { container, epoch, part });
    }
}

async fn unoffer<E>(
    tools: &Tools<E>,
    container: ContainerId,
    epoch: Epoch,
    part: u32,
) -> Result<(), CallError> {
    tools.streams.withdraw(&StreamId::Volumes { container, epoch, part });
    calls::remove(&tools.parts(container, epoch).join(part.to_string())).await
}

/// The parts that are whole, with their numbers.
fn parts_in(dir: &Path) -> Vec<(u32, PathBuf)> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let number = |name: std::ffi::OsString| name.to_str()?.parse().ok();
    files.filter_map(|file| Some((number(file.file_name())?, file.path()))).collect()
}

/// Work on files, which goes on when the call is cut short; [`forget`] waits for it.
async fn on_disk<E, T: Send + 'static>(
    tools: &Tools<E>,
    spec: &ContainerSpec,
    what: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, CallError> {
    Ok(tools.threads.run(spec.id, what, work).await?)
}
