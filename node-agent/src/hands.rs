//! Carries the machine's calls out: engine, network and streams, one lane per container.
//!
//! ```text
//! Call ─▶ lane of the container: end what is under way, then the new call ─▶ Input::Done
//! ```
//!
//! A call is the machine's word for a handful of steps of the engine; [`Call::Thaw`] and
//! [`Call::Destroy`] clear up after any other that was cut short.

mod armed;
mod arrived;
mod calls;
pub(crate) mod claims;
mod images;
mod lane;
mod looks;
mod volumes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_bus::stream::{Archive, Streams};
use godwit_proto::container::Mode;
use godwit_proto::frame::{FromNode, Progress, Step};
use godwit_proto::id::{ContainerId, ContainerName, Epoch};
use godwit_proto::migration::{Call, Input, Outcome, Phase, Record};
use godwit_proto::stream::StreamId;
use godwit_proto::timeline::{Moment, Moments};
use godwit_proto::topic::Peer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::conflicts::Watched;
use crate::driver::{Driver, Errand};
use crate::engine::threads::Threads;
use crate::engine::{Engine, EngineError, ImageDirs};
use crate::expedite::Expedite;
use crate::moments::now_us;
use crate::network::{Network, NetworkError, Strays};
use crate::volumes::Volumes;
pub(crate) use claims::Claim;
pub(crate) use images::ImageLocks;
use lane::Lane;
pub(crate) use volumes::Outgoing;

/// Why a call failed, in words that reach the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the container's network on this node: {0}")]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Receive(#[from] godwit_bus::stream::ReceiveError),
    #[error(transparent)]
    Offer(#[from] godwit_bus::stream::OfferError),
    #[error(transparent)]
    Record(#[from] godwit_proto::stream::record::RecordError),
    #[error(transparent)]
    Layout(#[from] godwit_bus::stream::LayoutError),
    #[error("{what}: {source}")]
    File { what: String, source: std::io::Error },
    #[error("the image was loaded as {loaded}, but {wanted} was asked for")]
    OtherImage { wanted: godwit_proto::id::ImageId, loaded: godwit_proto::id::ImageId },
    #[error("the checkpoint was withdrawn while it was read")]
    Withdrawn,
    #[error("the agent ended while the container's volumes were on their way: move it again")]
    VolumesCutShort,
    #[error("the record names no other node")]
    NoPeer,
}

/// How files of checkpoints end.
const CHECKPOINT: &str = ".checkpoint";
/// How directories of what engines know of containers end.
const METADATA: &str = ".metadata";

/// How directories of parts of volumes end.
const VOLUMES: &str = ".volumes";

/// The epoch of a container's checkpoint, metadata or volumes, from the name that
/// [`Tools::checkpoint`], [`Tools::metadata`] or [`Tools::parts`] gave it.
fn epoch_of(container: ContainerId, file: &str) -> Option<Epoch> {
    let rest = file.strip_prefix(&format!("{container}-"))?;
    let ends = [CHECKPOINT, METADATA, VOLUMES];
    ends.iter().find_map(|end| rest.strip_suffix(end))?.parse().ok()
}

/// What every call needs.
pub(crate) struct Tools<E> {
    pub(crate) engine: Arc<E>,
    pub(crate) network: Network,
    pub(crate) streams: Streams,
    pub(crate) spool: PathBuf,
    pub(crate) images: ImageDirs,
    pub(crate) volumes: Volumes,
    /// Volumes of containers that are about to move: what the other end was told of them.
    pub(crate) outgoing: Mutex<BTreeMap<ContainerId, Outgoing>>,
    /// Who is at work on volumes.
    pub(crate) threads: Threads,
    /// The addresses that are claimed for containers which do not run here yet.
    pub(crate) claims: Mutex<BTreeMap<ContainerId, Claim>>,
    /// What comes for containers that are frozen here, as long as nobody claims their addresses.
    pub(crate) strays: Mutex<BTreeMap<ContainerId, Strays>>,
    /// Whose addresses nobody else is to have.
    pub(crate) watched: Mutex<Watched>,
    pub(crate) expedite: Expedite,
    /// What dumps that failed had sent so far.
    pub(crate) unfinished: Mutex<BTreeMap<ContainerId, Archive>>,
    /// The boot of the machine, as the ledger counts it.
    pub(crate) boot: Uuid,
    pub(crate) progress: mpsc::Sender<FromNode>,
    /// One fetch of an image at a time; those who want the same one wait, and find it.
    pub(crate) fetching: ImageLocks,
    /// The containers that the ledger names: any other of ours is a stranger to it.
    pub(crate) ledgered: Mutex<BTreeMap<ContainerId, ContainerName>>,
}

impl<E> Tools<E> {
    /// Where a checkpoint lies on its way out (source) or in (target).
    pub(crate) fn checkpoint(&self, container: ContainerId, epoch: Epoch) -> PathBuf {
        self.spool.join(format!("{container}-{epoch}{CHECKPOINT}"))
    }

    /// Where what the engine knows of a container lies, on its way out or in.
    pub(crate) fn metadata(&self, container: ContainerId, epoch: Epoch) -> PathBuf {
        self.spool.join(format!("{container}-{epoch}{METADATA}"))
    }

    /// Where parts of a container's volumes lie, on their way out or in.
    pub(crate) fn parts(&self, container: ContainerId, epoch: Epoch) -> PathBuf {
        self.spool.join(format!("{container}-{epoch}{VOLUMES}"))
    }

    fn outgoing(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Outgoing>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strays(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Strays>> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfinished(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Archive>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_ledgered(&self, id: ContainerId) -> bool {
        self.ledgered.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// What a container of the ledger is called.
    pub(crate) fn name(&self, id: ContainerId) -> Option<ContainerName> {
        self.ledgered.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn forget_ledgered(&self) {
        self.ledgered.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note_ledgered(&self, record: &Record) {
        let mut ledgered = self.ledgered.lock().unwrap_or_else(PoisonError::into_inner);
        ledgered.insert(record.spec.id, record.spec.name.clone());
    }

    /// Says that a step began. Nothing rests on it: it may be lost.
    pub(crate) fn begin(&self, record: &Record, step: Step) {
        self.report(Progress {
            container: record.spec.id,
            epoch: record.epoch,
            step,
            bytes: 0,
            total_bytes: None,
            wire_bytes: 0,
            rate: 0,
        });
    }

    /// Says what a call saw of the hand-over. Nothing rests on it: it may be lost.
    pub(crate) fn tell_moments(
        &self,
        container: ContainerId,
        epoch: Epoch,
        seen: Vec<(Moment, i64)>,
    ) {
        if !seen.is_empty() {
            let moments = Moments { container, epoch, seen, sent_us: now_us() };
            let _ = self.progress.try_send(FromNode::Moments(moments));
        }
    }

    pub(crate) fn report(&self, progress: Progress) {
        let _ = self.progress.try_send(FromNode::Progress(progress));
    }
}

/// The lanes.
pub(crate) struct Hands<E> {
    tools: Arc<Tools<E>>,
    driver: Driver,
    lanes: BTreeMap<ContainerId, Lane>,
    looks: JoinSet<()>,
}

impl<E: Engine> Hands<E> {
    pub(crate) fn new(tools: Arc<Tools<E>>, driver: Driver) -> Self {
        Self { tools, driver, lanes: BTreeMap::new(), looks: JoinSet::new() }
    }

    /// Offers again what a source held frozen when the agent ended.
    ///
    /// An image that cannot be read is no reason not to start: only an agent that runs can be
    /// told to thaw, which is what comes of it when the target waits in vain.
    pub(crate) async fn resume(&self, records: &[Record]) {
        // Of a removal that an earlier life did not live to end.
        let over = |record: &&Record| record.drops_volumes && record.phase.is_over();
        for record in records.iter().filter(over) {
            if let Err(error) = volumes::drop_of(&self.tools, record).await {
                tracing::error!(container = %record.spec.id, error = told(&error), "its volumes stay");
            }
        }
        for record in records.iter().filter(|record| record.phase == Phase::Frozen) {
            let (container, epoch) = (record.spec.id, record.epoch);
            let Some(peer) = record.peer.clone() else { continue };
            let path = self.tools.checkpoint(container, epoch);
            let stream = StreamId::Checkpoint { container, epoch };
            if let Err(error) = volumes::resume(&self.tools, record).await {
                tracing::error!(%container, error = told(&error), "its volumes are not on offer");
            }
            let offered = match record.mode {
                Mode::Live => armed::resume(&self.tools, record),
                Mode::Plain | Mode::Cold => {
                    let offered = self.tools.streams.offer(stream, path, Peer::from(peer)).await;
                    offered.map(drop).map_err(CallError::from)
                }
            };
            if let Err(error) = offered {
                tracing::error!(
                    %container, %epoch, error = told(&error),
                    "the checkpoint of a frozen container is lost: cancel its migration"
                );
            }
        }
    }

    /// Serves errands until their sender is gone, then ends what is under way.
    pub(crate) async fn serve(mut self, mut errands: mpsc::Receiver<Errand>) {
        while let Some(errand) = errands.recv().await {
            match errand {
                Errand::Call { record, number, call } => self.begin(record, number, call),
                Errand::Look(look) => {
                    let (tools, driver) = (self.tools.clone(), self.driver.clone());
                    self.looks.spawn(async move { looks::look(&tools, &driver, look).await });
                    while self.looks.try_join_next().is_some() {}
                }
                Errand::StopAll => {
                    self.stop().await;
                    // The ledger may be another one now.
                    self.tools.forget_ledgered();
                }
            }
        }
        self.stop().await;
    }

    fn begin(&mut self, record: Box<Record>, number: u64, call: Call) {
        let container = record.spec.id;
        self.tools.note_ledgered(&record);
        match call {
            Call::Destroy => self.tools.watched().forget(container),
            _ => self.tools.watched().note(&record),
        }
        let before = self.lanes.remove(&container);
        let (tools, driver) = (self.tools.clone(), self.driver.clone());
        let lane = Lane::begin(before, async move {
            let outcome = match calls::carry_out(&tools, &record, &call).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    let why = told(&error);
                    tracing::warn!(%container, ?call, error = why, "a call failed");
                    Outcome::Failed(why)
                }
            };
            driver.feed(Input::Done { container, call: number, outcome }).await;
        });
        self.lanes.insert(container, lane);
        self.lanes.retain(|_, lane| !lane.is_over());
    }

    /// Ends all that is under way. What is said after this was asked after it.
    async fn stop(&mut self) {
        self.looks.shutdown().await;
        let lanes = std::mem::take(&mut self.lanes);
        lanes.values().for_each(Lane::cut_short);
        for (_, lane) in lanes {
            lane.over().await;
        }
    }
}

/// An error with its causes, as the operator reads it: the last one often is the only one that
/// says what to do (`No space left on device`).
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some errors repeat their cause in their own words.
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoints_name_tells_its_epoch() {
        let container = ContainerId(Uuid::from_u128(7));
        let epoch = Epoch { generation: 12, counter: 3 };
        let name = format!("{container}-{epoch}{CHECKPOINT}");
        assert_eq!(epoch_of(container, &name), Some(epoch));
        assert_eq!(epoch_of(container, &format!("{container}-{epoch}{METADATA}")), Some(epoch));
        assert_eq!(epoch_of(ContainerId(Uuid::from_u128(8)), &name), None, "another's");
        assert_eq!(epoch_of(container, &format!("{name}.arrived")), None, "a note beside it");
    }

    #[test]
    fn an_operator_reads_the_cause_once() {
        let full = || std::io::Error::other("No space left on device");
        let error = EngineError::Io { what: "writing x".into(), source: full() };
        assert_eq!(told(&CallError::from(error)), "writing x: No space left on device");
        let error = CallError::File { what: "removing y".into(), source: full() };
        assert_eq!(told(&error), "removing y: No space left on device");
    }
}
