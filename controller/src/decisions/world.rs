//! How the choreography's rows reach the disk, and its orders the nodes.

use std::collections::BTreeMap;

use godwit_proto::container::ContainerSpec;
use godwit_proto::frame::ToNode;
use godwit_proto::id::{ContainerId, Epoch, Life, NodeId, Run};
use godwit_proto::migration::drive::DeskWorld;
use godwit_proto::migration::{Cause, End, Order, Row, Ruling};
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::store::{Amendment, AmendmentRow, AttemptRow, Store, StoreError, Verdict};

/// An attempt by the container and the epoch that it stands for.
pub(super) type Key = (ContainerId, Epoch);

/// The controller's world.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) frames: mpsc::Sender<(NodeId, ToNode)>,
    /// The attempts that are not over, as they are stored.
    pub(super) attempts: BTreeMap<Key, AttemptRow>,
    /// The attempts whose row was written since this was last emptied.
    pub(super) changed: Vec<Row>,
    /// The run was claimed (again): reports from before it count no more.
    pub(super) run_changed: bool,
}

impl World {
    /// A frame that does not fit the queue is lost; orders and claims are repeated.
    pub(super) fn tell(&self, node: &NodeId, frame: ToNode) {
        if self.frames.try_send((node.clone(), frame)).is_err() {
            tracing::debug!(%node, "the outbox is full: an order will be repeated");
        }
    }

    /// The first ruling becomes the verdict, unless there is one: then that stands.
    fn decide(&self, row: &Row, ruling: Ruling) -> Result<Ruling, StoreError> {
        let wish = match ruling.side {
            End::Source => Verdict::Abort,
            End::Target => Verdict::Commit,
        };
        let stands =
            self.store.decide(&row.spec.tenant, row.spec.id, row.epoch, wish, ruling.by)?;
        Ok(match (stands.outcome == wish, stands.run == ruling.by) {
            (true, true) => ruling,
            (is_same, _) => Ruling {
                side: match stands.outcome {
                    Verdict::Abort => End::Source,
                    Verdict::Commit => End::Target,
                },
                cause: match (is_same, stands.outcome) {
                    (true, _) => ruling.cause,
                    (false, Verdict::Abort) => Cause::Abort,
                    (false, Verdict::Commit) => Cause::Commit,
                },
                by: stands.run,
            },
        })
    }

    fn amend(&self, row: &Row, ruling: Ruling) -> Result<(), StoreError> {
        let kind = match ruling.cause {
            // A later run that confirms a verdict under its own name changes nothing.
            Cause::Commit | Cause::Abort => return Ok(()),
            Cause::Returned => Amendment::Returned,
            Cause::Salvaged => Amendment::Salvaged,
            Cause::Overruled => Amendment::Overruled,
            Cause::RolledBack => Amendment::RolledBack,
            Cause::MemoryLost => Amendment::Lost,
        };
        let amendment = AmendmentRow {
            kind,
            node: Some(row.node(ruling.side).clone()),
            run: ruling.by,
            why: row.reason.clone().unwrap_or_default(),
            recorded: Timestamp::now(),
        };
        self.store.amend(&row.spec.tenant, row.spec.id, row.epoch, &amendment)
    }
}

impl DeskWorld for World {
    type Error = StoreError;

    fn persist_run(&mut self, run: Run) -> Result<(), StoreError> {
        tracing::info!(%run, "claiming the fabric's nodes");
        self.run_changed = true;
        self.store.set_generation(run.generation)
    }

    fn persist_row(&mut self, row: &Row) -> Result<Row, StoreError> {
        let key = (row.spec.id, row.epoch);
        let mut row = row.clone();
        let known = match self.attempts.get(&key) {
            Some(known) => Some(known.clone()),
            None => self.store.attempt(key.0, key.1)?,
        };
        let before = known.as_ref().and_then(|known| decode(&known.decider));
        let ruled_before = before.as_ref().and_then(|before| before.ruling);
        if let Some(ruling) = row.ruling.filter(|ruling| Some(*ruling) != ruled_before) {
            let ruling = if ruled_before.is_none() {
                let stands = self.decide(&row, ruling)?;
                if !matches!(stands.cause, Cause::Commit | Cause::Abort) {
                    self.amend(&row, stands)?;
                }
                stands
            } else {
                self.amend(&row, ruling)?;
                ruling
            };
            tracing::info!(
                container = %row.spec.id, name = %row.spec.name, epoch = %row.epoch,
                side = ?ruling.side, cause = ruling.cause.as_str(), "ruled"
            );
            row.ruling = Some(ruling);
        }
        let mut stored = match known {
            Some(known) => known,
            None => {
                let new = super::moves::attempt_row(&row);
                self.store.insert_attempt(&new)?;
                new
            }
        };
        stored.decider = encode(&row);
        stored.settled = row.is_settled;
        if row.is_settled && stored.ended.is_none() {
            // With it: who reads meanwhile, and the next life, find how it ended.
            super::moves::conclude(&mut stored, &row);
        }
        self.store.save_attempt(&stored)?;
        self.attempts.insert(key, stored);
        self.changed.push(row.clone());
        Ok(row)
    }

    fn row(&mut self, container: ContainerId, epoch: Epoch) -> Result<Option<Row>, StoreError> {
        let stored = self.store.attempt(container, epoch)?;
        Ok(stored.and_then(|stored| decode(&stored.decider)))
    }

    fn spec(&mut self, container: ContainerId) -> Result<Option<ContainerSpec>, StoreError> {
        Ok(self.store.container(container)?.map(|row| row.spec))
    }

    fn claim(&mut self, node: &NodeId, run: Run, life: Life) -> Result<(), StoreError> {
        self.tell(node, ToNode::Claim { run, life });
        Ok(())
    }

    fn order(
        &mut self,
        node: &NodeId,
        run: Run,
        container: ContainerId,
        epoch: Epoch,
        order: Order,
    ) -> Result<(), StoreError> {
        self.tell(node, ToNode::Order { run, container, epoch, order });
        Ok(())
    }
}

/// The decider's row out of its column; `None` for a column that does not decode.
pub(super) fn decode(text: &str) -> Option<Row> {
    serde_json::from_str(text)
        .inspect_err(|error| tracing::error!(%error, "an attempt's row does not decode"))
        .ok()
}

pub(super) fn encode(row: &Row) -> String {
    // Every key is a string and no float is in it: it cannot fail.
    serde_json::to_string(row).unwrap_or_default()
}
