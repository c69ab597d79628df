//! What each call means in steps of engine, network and streams.

use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_bus::stream::{Progress as StreamProgress, ReceiveOptions, Receiving, manifest_digest};
use godwit_proto::container::Mode;
use godwit_proto::frame::{Progress, Step};
use godwit_proto::id::{ContainerId, Digest, Epoch};
use godwit_proto::migration::{Call, Outcome, Record};
use godwit_proto::stream::StreamId;
use godwit_proto::timeline::Moment;
use godwit_proto::topic::Peer;

use super::{CallError, Tools, armed, arrived, epoch_of, images, volumes};
use crate::engine::Engine;
use crate::moments::Noted;

/// How long a container may take to end by itself when it is stopped and nobody said how long.
const STOP_GRACE_MS: u64 = 10_000;
/// How often a transfer in progress is reported.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Carries one call out, and tells what it saw of the hand-over.
///
/// Dropped at any await, it leaves something half done, which thaw and destroy undo.
pub(super) async fn carry_out<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    call: &Call,
) -> Result<Outcome, CallError> {
    let noted = Noted::default();
    let outcome = do_it(tools, record, call, &noted).await;
    let epoch = if let Call::Arm(arming) = call { arming.epoch } else { record.epoch };
    tools.tell_moments(record.spec.id, epoch, noted.take());
    outcome
}

async fn do_it<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    call: &Call,
    noted: &Noted,
) -> Result<Outcome, CallError> {
    let spec = &record.spec;
    let is_armed = record.mode == Mode::Live;
    match call {
        Call::Create => {
            images::require(tools, record, &Peer::Controller).await?;
            volumes::make(tools, record).await?;
            let netns = tools.network.ensure(spec.id, &spec.interfaces).await?;
            tools.engine.create(spec, &netns).await?;
        }
        Call::Start => {
            // Of a move that it did not live to see.
            withdraw(tools, spec.id, record.epoch).await?;
            armed::forget(tools, spec.id, None).await?;
            tools.network.ensure(spec.id, &spec.interfaces).await?;
            tools.network.must_be_free(&spec.interfaces).await?;
            tools.network.attach(spec.id, &spec.interfaces).await?;
            tools.engine.start(spec).await?;
        }
        Call::Stop => {
            tools.engine.stop(spec, grace_seconds(record)).await?;
            // Of a move that was armed and is none any more.
            withdraw(tools, spec.id, record.epoch).await?;
            armed::forget(tools, spec.id, None).await?;
        }
        Call::Arm(arming) => {
            volumes::go_ahead(tools, record, arming).await?;
            // Of the other ways nothing more can be done beforehand.
            if arming.plan.mode == Mode::Live {
                armed::arm(tools, record, arming, noted).await?;
            }
        }
        Call::Freeze if is_armed => {
            return armed::freeze(tools, record, noted).await.map(Outcome::Image);
        }
        Call::Freeze => return freeze(tools, record, noted).await.map(Outcome::Image),
        Call::Hold => tools.engine.freeze(spec, Mode::Live).await?,
        Call::Thaw => {
            thaw(tools, record).await?;
            noted.note(Moment::Thawed);
        }
        Call::Prepare => {
            prepare(tools, record).await?;
            noted.note(Moment::Prepared);
        }
        Call::Fetch if is_armed => {
            return armed::fetch(tools, record, noted).await.map(Outcome::Image);
        }
        Call::Fetch => return fetch(tools, record, noted).await.map(Outcome::Image),
        Call::Stage if is_armed => armed::stage(tools, record, noted).await?,
        Call::Stage => stage(tools, record, noted).await?,
        Call::Open if is_armed => armed::open(tools, record, noted).await?,
        Call::Open => {
            if tools.engine.is_stale(spec) {
                stage(tools, record, noted).await?;
            }
            tools.begin(record, Step::Opening);
            // First: what it sends in its first moment must not wait for an answer to an ARP
            // request that nobody heard.
            tools.network.attach(spec.id, &spec.interfaces).await?;
            tools.engine.open(spec, record.mode, noted, || {}).await?;
            volumes::settle(tools, record).await?;
            let checkpoint = tools.checkpoint(spec.id, record.epoch);
            remove(&arrived::note_of(&checkpoint)).await?;
            remove(&checkpoint).await?;
        }
        Call::Destroy => {
            let container = spec.id;
            withdraw(tools, container, record.epoch).await?;
            // First: the address is another node's, whatever the rest takes.
            tools.network.cut(container).await?;
            tools.engine.destroy(spec).await?;
            armed::forget(tools, container, None).await?;
            if record.drops_volumes {
                volumes::drop_of(tools, record).await?;
            }
            tools.network.remove(container).await?;
            images::forget(tools, &spec.image).await?;
        }
    }
    Ok(Outcome::Done)
}

/// Nothing of the container is offered to anybody any more: of no epoch that is in the spool,
/// nor of `newest`, which may not have been told of those before it.
async fn withdraw<E>(
    tools: &Tools<E>,
    container: ContainerId,
    newest: Epoch,
) -> Result<(), CallError> {
    let files = spooled(tools, &format!("{container}-")).await?;
    let name = |file: &PathBuf| file.file_name()?.to_str().map(str::to_owned);
    let earlier = files.iter().filter_map(|file| epoch_of(container, &name(file)?));
    for epoch in earlier.chain([newest]) {
        tools.streams.withdraw(&StreamId::Checkpoint { container, epoch });
        tools.streams.withdraw(&StreamId::Metadata { container, epoch });
        volumes::withdraw(tools, container, epoch);
    }
    Ok(())
}

/// Target: to the gate, the plain way.
async fn stage<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    noted: &Noted,
) -> Result<(), CallError> {
    let spec = &record.spec;
    tools.begin(record, Step::Staging);
    // After an opening that failed it is attached.
    tools.network.cut(spec.id).await?;
    let file = tools.checkpoint(spec.id, record.epoch);
    noted.note(Moment::Restoring);
    tools.engine.stage(spec, record.mode, &file).await?;
    noted.note(Moment::Staged);
    Ok(())
}

/// The grace of a stop in the engine's unit; never shorter than what was asked for.
fn grace_seconds(record: &Record) -> u32 {
    let seconds = record.grace_ms.unwrap_or(STOP_GRACE_MS).div_ceil(1000);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Source: freeze, cut, dump, offer. The gap begins with the first of these.
async fn freeze<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    noted: &Noted,
) -> Result<Digest, CallError> {
    let (spec, epoch) = (&record.spec, record.epoch);
    let to = record.peer.clone().ok_or(CallError::NoPeer)?;
    let strays = tools.network.strays(spec.id, &spec.interfaces).await?;
    tools.begin(record, Step::Freezing);
    noted.note(Moment::Freezing);
    tools.engine.freeze(spec, record.mode).await?;
    noted.note(Moment::Frozen);
    // Only what is frozen is cut: a kernel that still runs would answer with a reset.
    if record.mode == Mode::Plain {
        strays.begin()?;
        tools.strays().insert(spec.id, strays);
    }
    tools.network.cut(spec.id).await?;
    noted.note(Moment::Cut);
    tools.begin(record, Step::Dumping);
    volumes::follow(tools, record).await?;
    noted.note(Moment::Dumping);
    let file = tools.checkpoint(spec.id, epoch);
    tools.engine.dump(spec, record.mode, &file).await?;
    noted.note(Moment::Dumped);
    let stream = StreamId::Checkpoint { container: spec.id, epoch };
    // The target is sent it from now on, while it is still being hashed.
    let offered = tools.streams.offer(stream, file, Peer::from(to)).await?;
    let manifest = offered.manifest().await.ok_or(CallError::Withdrawn)?;
    Ok(manifest_digest(&manifest))
}

/// Source: the move is off.
async fn thaw<E: Engine>(tools: &Tools<E>, record: &Record) -> Result<(), CallError> {
    let (container, epoch) = (record.spec.id, record.epoch);
    tools.begin(record, Step::Thawing);
    tools.streams.withdraw(&StreamId::Checkpoint { container, epoch });
    // The namespace may be gone after a reboot of the host; a thaw then fails below.
    tools.network.attach(container, &record.spec.interfaces).await?;
    let thawed = tools.engine.thaw(&record.spec, record.mode).await;
    // Of no more use even where its processes have ended.
    let forgotten = armed::forget(tools, container, Some(epoch)).await;
    let removed = remove(&tools.checkpoint(container, epoch)).await;
    thawed?;
    forgotten.and(removed)
}

/// Target: all that can be done while the source still runs.
async fn prepare<E: Engine>(tools: &Tools<E>, record: &Record) -> Result<(), CallError> {
    let spec = &record.spec;
    let from = record.peer.clone().ok_or(CallError::NoPeer)?;
    images::require(tools, record, &from.into()).await?;
    // First: what an earlier life attached would be open to all once it is unguarded.
    tools.network.cut(spec.id).await?;
    let netns = tools.network.ensure(spec.id, &spec.interfaces).await?;
    volumes::fetch_ahead(tools, record).await?;
    tools.engine.prepare(spec, record.mode, &netns).await?;
    if record.mode == Mode::Live { armed::prepare(tools, record).await } else { Ok(()) }
}

/// Target: the checkpoint, verified whole.
async fn fetch<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    noted: &Noted,
) -> Result<Digest, CallError> {
    let (container, epoch) = (record.spec.id, record.epoch);
    let from = record.peer.clone().ok_or(CallError::NoPeer)?;
    let stream = StreamId::Checkpoint { container, epoch };
    let into = tools.checkpoint(container, epoch);
    if let Some(digest) = arrived::known(&into, tools.boot).await {
        volumes::fetch_rest(tools, record).await?;
        tracing::info!(%container, %epoch, "the checkpoint had arrived before the agent restarted");
        return Ok(digest);
    }
    let from = from.into();
    let checkpoint = receive(tools, record, stream, &from, &into, Step::Transferring);
    let (digest, ()) = tokio::try_join!(checkpoint, volumes::fetch_rest(tools, record))?;
    noted.note(Moment::LastByte);
    arrived::note(&into, tools.boot, digest).await?;
    Ok(digest)
}

/// Receives a stream and reports how far it is as it comes.
pub(super) async fn receive<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    stream: StreamId,
    from: &Peer,
    into: &Path,
    step: Step,
) -> Result<Digest, CallError> {
    let options = ReceiveOptions { bwlimit: record.bwlimit, ..ReceiveOptions::default() };
    let transfer = tools.streams.receive(stream, from.clone(), into.to_path_buf(), options);
    watched(tools, record, transfer, step).await
}

/// Waits for a stream and reports how far it is as it comes.
pub(super) async fn watched<E: Engine>(
    tools: &Tools<E>,
    record: &Record,
    mut transfer: Receiving,
    step: Step,
) -> Result<Digest, CallError> {
    let watched = transfer.progress();
    let mut every = tokio::time::interval(PROGRESS_EVERY);
    loop {
        tokio::select! {
            received = &mut transfer => {
                tools.report(shown(record, step, &watched.borrow()));
                return Ok(manifest_digest(&received?.manifest));
            }
            _ = every.tick() => {
                let at = *watched.borrow();
                // The step is worth telling once bytes flow: the target waits long before.
                if at.bytes > 0 || at.total_bytes.is_some() {
                    tools.report(shown(record, step, &at));
                }
            }
        }
    }
}

fn shown(record: &Record, step: Step, at: &StreamProgress) -> Progress {
    Progress {
        container: record.spec.id,
        epoch: record.epoch,
        step,
        bytes: at.bytes,
        total_bytes: at.total_bytes,
        wire_bytes: at.wire_bytes,
        rate: at.rate,
    }
}

/// Removes a file, or a directory with what is in it; absent is success.
pub(super) async fn remove(file: &Path) -> Result<(), CallError> {
    let removed = match tokio::fs::remove_file(file).await {
        Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
            tokio::fs::remove_dir_all(file).await
        }
        removed => removed,
    };
    match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(CallError::File { what: format!("removing {}", file.display()), source })
        }
        _ => Ok(()),
    }
}

/// Removes every file of the spool whose name begins so.
pub(super) async fn sweep<E>(tools: &Tools<E>, prefix: &str) -> Result<(), CallError> {
    for file in spooled(tools, prefix).await? {
        remove(&file).await?;
    }
    Ok(())
}

/// The files of the spool whose names begin so.
async fn spooled<E>(tools: &Tools<E>, prefix: &str) -> Result<Vec<PathBuf>, CallError> {
    let failed =
        |source| CallError::File { what: format!("reading {}", tools.spool.display()), source };
    let mut found = Vec::new();
    let mut files = tokio::fs::read_dir(&tools.spool).await.map_err(failed)?;
    while let Some(file) = files.next_entry().await.map_err(failed)? {
        if file.file_name().to_string_lossy().starts_with(prefix) {
            found.push(file.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_waits_as_long_as_was_asked_and_never_less() {
        let mut record = Record {
            spec: crate::engine::testing::spec(),
            epoch: Epoch { generation: 1, counter: 1 },
            phase: godwit_proto::migration::Phase::Stopped,
            role: godwit_proto::migration::Role::Owner,
            peer: None,
            mode: Mode::Live,
            image: None,
            bwlimit: None,
            grace_ms: None,
            drops_volumes: false,
            reason: None,
        };
        for (asked, seconds) in
            [(None, 10), (Some(0), 0), (Some(1), 1), (Some(2500), 3), (Some(u64::MAX), u32::MAX)]
        {
            record.grace_ms = asked;
            assert_eq!(grace_seconds(&record), seconds, "{asked:?}");
        }
    }
}
