//! The calls of an armed move: metadata ahead, images as they grow, frames held meanwhile.
//!
//! ```text
//! source   arm: metadata ──archive──▶     freeze: images ──archive, growing──▶
//! target   prepare: ◀── metadata          fetch: ◀── images; with the first that is sent the
//!          address is claimed: guarded, held, attached, announced
//! ```

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use godwit_bus::stream::{Archive, Progress as StreamProgress, ReceiveOptions, manifest_digest};
use godwit_proto::frame::Step;
use godwit_proto::id::{ContainerId, Digest, Epoch};
use godwit_proto::migration::{Arming, Record};
use godwit_proto::stream::StreamId;
use godwit_proto::timeline::Moment;
use godwit_proto::topic::Peer;
use tokio::sync::watch;

use super::calls::watched;
use super::claims::{self, Claim};
use super::{CallError, Tools, arrived, told, volumes};
use crate::engine::{Engine, ImageSink};
use crate::moments::Noted;

/// Tells the target how much memory it is to expect.
const EXPECTED: &str = "expected-bytes";
/// What of an archive must survive the agent, in the directory that it is of.
const LAYOUT: &str = "layout";

/// podman answers no question about a container whose restore waits, and `podman ps` asks about
/// all: what will be on its way for longer than this is armed only when so much of it is left.
const BLOCKED: Duration = Duration::from_millis(400);
/// What is expected to be on its way for no longer, where nobody limits its rate.
const SMALL_BYTES: u64 = 32 << 20;

/// Where images are received, in the directory that they belong into.
const INCOMING: &str = "incoming";

/// Source: what podman knows of the container is on offer, and the checkpoint waits.
pub(super) async fn arm<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    arming: &Arming,
    noted: &Noted,
) -> Result<(), CallError> {
    let (container, epoch) = (record.spec.id, arming.epoch);
    tools.images.clear(container, None)?;
    let metadata = tools.metadata(container, epoch);
    remake(&metadata)?;
    let used = tools.engine.usage().await?.into_iter().find(|usage| usage.id == container);
    let expected = used.map_or(0, |usage| usage.memory_bytes);
    let images = tools.images.make(container, epoch, expected)?;
    tools.engine.arm(&record.spec, &images, &metadata).await?;
    std::fs::write(metadata.join(EXPECTED), expected.to_string())
        .map_err(|source| failed("writing", &metadata, source))?;

    let stream = StreamId::Metadata { container, epoch };
    let archive = tools.streams.offer_archive(stream, Peer::from(arming.to.clone()));
    let reading = |source| failed("reading", &metadata, source);
    for entry in std::fs::read_dir(&metadata).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let file = File::open(entry.path()).map_err(reading)?;
        let size = file.metadata().map_err(reading)?.len();
        archive.append(&entry.file_name().to_string_lossy(), &Arc::new(file), 0..size)?;
    }
    archive.finish(Some(&metadata.join(LAYOUT)))?;
    noted.note(Moment::Armed);
    Ok(())
}

/// Source: freeze, cut, dump; the images are on their way while criu writes them.
pub(super) async fn freeze<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    noted: &Noted,
) -> Result<Digest, CallError> {
    let (spec, epoch) = (&record.spec, record.epoch);
    let to = record.peer.clone().ok_or(CallError::NoPeer)?;
    let port = tools.network.ready(spec.id, &spec.interfaces).await?;
    let strays = tools.network.strays(spec.id, &spec.interfaces).await?;
    tools.begin(record, Step::Freezing);
    let _gap = tools.expedite.begin();
    noted.note(Moment::Freezing);
    tools.engine.freeze(spec, record.mode).await?;
    noted.note(Moment::Frozen);
    // Only what is frozen is cut: a kernel that still runs would answer with a reset.
    strays.begin()?;
    port.cut()?;
    tools.strays().insert(spec.id, strays);
    noted.note(Moment::Cut);
    tools.begin(record, Step::Dumping);
    let volumes = volumes::follow(tools, record);
    let images = tools.images.path(spec.id, epoch);
    let stream = StreamId::Checkpoint { container: spec.id, epoch };
    let sink = Sink {
        archive: tools.streams.offer_archive(stream, Peer::from(to)),
        refused: Mutex::default(),
    };
    let dumped = async {
        let dumped = tools.engine.dump_armed(spec, &images, &sink, noted).await;
        dumped.map_err(CallError::from)
    };
    if let Err(error) = tokio::try_join!(dumped, volumes) {
        // Withdrawn by the thaw: the cause must be heard of before what comes of it.
        tools.unfinished().insert(spec.id, sink.archive);
        return Err(error);
    }
    let offered = sink.finish(&images.join(LAYOUT))?;
    noted.note(Moment::Offered);
    let manifest = offered.manifest().await.ok_or(CallError::Withdrawn)?;
    Ok(manifest_digest(&manifest))
}

/// Source, after a restart of the agent: the images of a frozen container, on offer again.
pub(super) fn resume<E: Engine>(tools: &Tools<E>, record: &Record) -> Result<(), CallError> {
    let (container, epoch) = (record.spec.id, record.epoch);
    let to = record.peer.clone().ok_or(CallError::NoPeer)?;
    let of = [
        (StreamId::Metadata { container, epoch }, tools.metadata(container, epoch)),
        (StreamId::Checkpoint { container, epoch }, tools.images.path(container, epoch)),
    ];
    for (stream, dir) in of {
        let open = |name: &str| File::open(dir.join(name));
        tools.streams.resume_archive(stream, Peer::from(to.clone()), &dir.join(LAYOUT), open)?;
    }
    Ok(())
}

/// Target: everything up to where criu will read the images.
pub(super) async fn prepare<E: Engine>(tools: &Tools<E>, record: &Record) -> Result<(), CallError> {
    let (container, epoch) = (record.spec.id, record.epoch);
    let metadata = tools.metadata(container, epoch);
    let stream = StreamId::Metadata { container, epoch };
    let from = record.peer.clone().ok_or(CallError::NoPeer)?;
    let options = ReceiveOptions { bwlimit: record.bwlimit, ..ReceiveOptions::default() };
    // A source that died since need not send it again.
    if arrived::known(&metadata, tools.boot).await.is_none() {
        let received =
            tools.streams.receive_archive(stream, from.into(), metadata.clone(), options).await?;
        arrived::note(&metadata, tools.boot, manifest_digest(&received.manifest)).await?;
    }
    let images = tools.images.path(container, epoch);
    let expected = expected_bytes(&metadata);
    // After a restart of the agent it may hold some of the images already.
    if !images.exists() {
        tools.images.make(container, epoch, expected)?;
    }
    let rate = record.bwlimit.unwrap_or(u64::MAX);
    if expected <= SMALL_BYTES && expected <= in_time(rate) {
        tools.engine.await_images(&record.spec, &images, &metadata).await?;
    }
    Ok(())
}

/// What the source said that it has in memory.
fn expected_bytes(metadata: &Path) -> u64 {
    let said = std::fs::read_to_string(metadata.join(EXPECTED)).unwrap_or_default();
    said.trim().parse().unwrap_or(0)
}

/// How many bytes come at that rate per second while podman may be blocked.
fn in_time(rate: u64) -> u64 {
    let bytes = u128::from(rate) * BLOCKED.as_millis() / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Target: arms as soon as little enough is left, unless it is armed or the transfer is over.
async fn arm_in_time<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    images: &Path,
    mut progress: watch::Receiver<StreamProgress>,
) -> Result<(), CallError> {
    if tools.engine.awaits_images(&record.spec) {
        return Ok(());
    }
    let metadata = tools.metadata(record.spec.id, record.epoch);
    let expected = expected_bytes(&metadata);
    let is_near = |at: &StreamProgress| {
        let left = at.total_bytes.unwrap_or(expected).saturating_sub(at.bytes);
        at.rate > 0 && left <= in_time(at.rate)
    };
    if progress.wait_for(is_near).await.is_err() {
        // Whoever stages arms.
        return Ok(());
    }
    Ok(tools.engine.await_images(&record.spec, images, &metadata).await?)
}

/// Target: the images, verified whole. With the first of them that this agent is sent, the source
/// is known to be frozen and cut, and the address is claimed. What an earlier life had stored
/// tells nothing of the source as it is now.
pub(super) async fn fetch<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    noted: &Noted,
) -> Result<Digest, CallError> {
    let (container, epoch) = (record.spec.id, record.epoch);
    let images = tools.images.path(container, epoch);
    if let Some(digest) = arrived::known(&images, tools.boot).await {
        tracing::info!(%container, %epoch, "the images had arrived before the agent restarted");
        volumes::fetch_rest(tools, record).await?;
        return Ok(digest);
    }
    let from = record.peer.clone().ok_or(CallError::NoPeer)?;
    let stream = StreamId::Checkpoint { container, epoch };
    let options = ReceiveOptions { bwlimit: record.bwlimit, ..ReceiveOptions::default() };
    // The directory that criu waits on must stay the same one.
    let incoming = images.join(INCOMING);
    let transfer = tools.streams.receive_archive(stream, from.into(), incoming.clone(), options);
    let (mut progress, nearing) = (transfer.progress(), transfer.progress());
    let renewed = claims::renew(tools, container, transfer.progress());
    let first_byte = async {
        let has_come = progress.wait_for(|at| at.wire_bytes > 0).await.is_ok();
        // Where none came the transfer has failed, and says so itself.
        if !has_come {
            return Ok(());
        }
        noted.note(Moment::FirstByte);
        claims::claim(tools, record).await
    };
    let received = async {
        let digest = watched(tools, record, transfer, Step::Transferring).await?;
        noted.note(Moment::LastByte);
        Ok::<_, CallError>(digest)
    };
    let armed = async {
        if let Err(error) = arm_in_time(tools, record, &images, nearing).await {
            tracing::warn!(%container, error = told(&error), "not armed: tried again when all is here");
        }
        Ok(())
    };
    // Whoever fails fails the rest at once: the source is frozen and waits to hear of it.
    let volumes = volumes::fetch_rest(tools, record);
    let all = async { tokio::try_join!(received, first_byte, armed, volumes) };
    let (digest, (), (), ()) = tokio::select! {
        all = all => all?,
        error = renewed => return Err(error),
    };
    move_up(&incoming, &images).map_err(|source| failed("moving", &incoming, source))?;
    arrived::note(&images, tools.boot, digest).await?;
    Ok(digest)
}

/// Target: to the gate.
pub(super) async fn stage<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    noted: &Noted,
) -> Result<(), CallError> {
    let (container, epoch) = (record.spec.id, record.epoch);
    tools.begin(record, Step::Staging);
    if !tools.claims().contains_key(&container) {
        // Sent nothing since a restart, nobody knows of the source. The opening attaches it.
        tools.network.cut(container).await?;
    }
    let (images, metadata) =
        (tools.images.path(container, epoch), tools.metadata(container, epoch));
    Ok(tools.engine.stage_armed(&record.spec, &images, &metadata, noted).await?)
}

/// Target: run. The guard falls, and what was held arrives, as soon as every process is let go.
pub(super) async fn open<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    noted: &Noted,
) -> Result<(), CallError> {
    let spec = &record.spec;
    if tools.engine.is_stale(spec) {
        tracing::warn!(container = %spec.id, "the verdict came late: the copy is built again");
        stage(tools, record, noted).await?;
    }
    tools.begin(record, Step::Opening);
    let mut claim = tools.claims().remove(&spec.id);
    if let Some(claim) = &mut claim {
        claim.renew()?;
    }
    let runs = || {
        let Some(Claim { port, held, .. }) = claim else { return };
        if let Err(error) = port.unguard() {
            tracing::error!(container = %spec.id, %error, "the guard stays: attaching drops it");
        }
        noted.note(Moment::Opened);
        match held.replay() {
            Ok(released) => {
                noted.note(Moment::Replayed);
                tracing::info!(?released, "held frames replayed");
            }
            Err(error) => tracing::warn!(%error, "held frames are lost"),
        }
    };
    tools.engine.open(spec, record.mode, noted, runs).await?;
    volumes::settle(tools, record).await?;
    // Attached already, but where this life of the agent was not sent the images.
    tools.network.attach(spec.id, &spec.interfaces).await?;
    forget(tools, spec.id, Some(record.epoch)).await
}

/// Either end: nothing of the attempts is of use any more. Frames that are held go back to
/// the bridge, where the container's address is elsewhere by now.
pub(super) async fn forget<E: Engine>(
    tools: &Tools<E>,
    container: ContainerId,
    epoch: Option<Epoch>,
) -> Result<(), CallError> {
    volumes::forget(tools, container, epoch).await?;
    if let Some(epoch) = epoch {
        tools.streams.withdraw(&StreamId::Metadata { container, epoch });
        tools.streams.withdraw(&StreamId::Checkpoint { container, epoch });
        let metadata = tools.metadata(container, epoch);
        remove_dir(&metadata)?;
        super::calls::remove(&arrived::note_of(&metadata)).await?;
    }
    if epoch.is_none() {
        // Every checkpoint of it, whole or partial, and all that was known of it.
        super::calls::sweep(tools, &format!("{container}-")).await?;
    }
    tools.unfinished().remove(&container);
    if let Some(strays) = { tools.strays().remove(&container) } {
        strays.send_after();
    }
    tools.images.clear(container, None)?;
    if let Some(claim) = { tools.claims().remove(&container) }
        && let Err(error) = claim.held.send_back()
    {
        tracing::warn!(%container, %error, "held frames are lost");
    }
    Ok(())
}

/// Hands the dump's files to the archive.
struct Sink {
    archive: Archive,
    refused: Mutex<Option<CallError>>,
}

impl ImageSink for Sink {
    fn add(&self, name: &str, file: &Arc<File>, span: Range<u64>) {
        if let Err(error) = self.archive.append(name, file, span) {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
        }
    }
}

impl Sink {
    fn finish(self, layout: &Path) -> Result<godwit_bus::stream::Offered, CallError> {
        match self.refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(self.archive.finish(Some(layout))?),
        }
    }
}

fn move_up(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    std::fs::remove_dir(from)
}

fn remake(dir: &Path) -> Result<(), CallError> {
    remove_dir(dir)?;
    std::fs::create_dir_all(dir).map_err(|source| failed("making", dir, source))
}

/// Removes a directory; absent is success.
fn remove_dir(dir: &Path) -> Result<(), CallError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("removing", dir, error))
        }
        _ => Ok(()),
    }
}

fn failed(doing: &str, path: &Path, source: std::io::Error) -> CallError {
    CallError::File { what: format!("{doing} {}", path.display()), source }
}
