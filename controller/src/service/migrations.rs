//! Moving containers: admission, and what became of moves.

use godwit_proto::container::Mode;
use godwit_proto::id::{ContainerName, MigrationId, NodeId, Tenant};
use godwit_proto::migration::Plan;
use serde::Deserialize;

use super::{Service, shown, unknown_node};
use crate::placement::{self, Admission, NodeState, Past, Wish};
use crate::refusal::{Reason, Refusal};
use crate::store::{AttemptRow, ContainerRow, ContainerState, MigrationFilter};
use crate::view::MigrationView;

/// A move to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct MigrateRequest {
    /// Where to; the best fitting node if left out.
    #[serde(default)]
    pub to: Option<NodeId>,
    /// How; live if left out.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Limit of the transfer in bytes per second.
    #[serde(default)]
    pub bwlimit: Option<u64>,
    /// Only say whether it may, and what it would cost.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub enum MigrateAnswer {
    /// It was only asked for.
    Admission(Box<Admission>),
    /// It is under way.
    Started(Box<MigrationView>),
}

impl Service {
    /// Moves a container, or says what moving it would cost.
    ///
    /// # Errors
    /// `unknown-container`, `unknown-node`, `node-silent`, `admission-refused`, `no-node` (not with
    /// `dry_run`, which answers those as an admission), and the core's.
    pub async fn migrate(
        &self,
        tenant: &Tenant,
        reference: &str,
        request: MigrateRequest,
    ) -> Result<MigrateAnswer, Refusal> {
        if request.bwlimit == Some(0) {
            return Err(Refusal::new(
                "bad-request",
                "a bwlimit of 0 would never end",
                "leave it out for no limit, or give bytes per second",
            ));
        }
        let row = self.find(tenant, reference).await?;
        let admission = self.admission(&row, &request).await?;
        if request.dry_run.unwrap_or(false) {
            return Ok(MigrateAnswer::Admission(Box::new(admission)));
        }
        let name = &row.spec.name;
        let target = match (admission.ok, admission.target) {
            (true, Some(target)) => target,
            (_, Some(target)) => return Err(not_admitted(name, &target, admission.reasons)),
            (_, None) => return Err(no_node(name, admission.reasons)),
        };
        let plan = Plan { mode: admission.mode, bwlimit: request.bwlimit };
        let id = self.parts.core.migrate(row.spec.id, target, plan, admission.prediction).await?;
        Ok(MigrateAnswer::Started(Box::new(self.migration(tenant, id.as_str()).await?)))
    }

    /// Calls a move off.
    ///
    /// # Errors
    /// `unknown-migration`, `already-settled`, and the core's (`decided`).
    pub async fn cancel(&self, tenant: &Tenant, id: &str) -> Result<MigrationView, Refusal> {
        let view = self.migration(tenant, id).await?;
        if view.settled {
            return Err(Refusal::new(
                "already-settled",
                format!("migration {id} is over: {}", view.outcome.unwrap_or_default()),
                "`godwit migration ls` shows which ones are not",
            ));
        }
        self.parts.core.cancel(&view.id).await?;
        self.migration(tenant, id).await
    }

    /// The live move of a container.
    ///
    /// # Errors
    /// `unknown-container`; `unknown-migration` when it does not move.
    pub async fn migration_of(
        &self,
        tenant: &Tenant,
        reference: &str,
    ) -> Result<MigrationId, Refusal> {
        let row = self.find(tenant, reference).await?;
        self.live_migration(row.spec.id).await?.ok_or_else(|| {
            Refusal::new(
                "unknown-migration",
                format!("{} does not move at the moment", row.spec.name),
                "`godwit migration ls` shows what does",
            )
        })
    }

    /// The newest moves of a tenant, newest first.
    ///
    /// # Errors
    /// `unknown-container`.
    pub async fn migrations(
        &self,
        tenant: &Tenant,
        container: Option<&str>,
        unsettled: bool,
        limit: u32,
    ) -> Result<Vec<MigrationView>, Refusal> {
        let container = match container {
            Some(reference) => Some(self.find(tenant, reference).await?.spec.id),
            None => None,
        };
        let filter = MigrationFilter { tenant: Some(tenant.clone()), container, unsettled };
        let rows =
            self.store("listing migrations", move |store| store.migrations(&filter, limit)).await?;
        Ok(rows.iter().map(|row| self.parts.latest.view(row)).collect())
    }

    /// One move.
    ///
    /// # Errors
    /// `unknown-migration`.
    pub async fn migration(&self, tenant: &Tenant, id: &str) -> Result<MigrationView, Refusal> {
        let row = match id.parse::<MigrationId>() {
            Ok(id) => self.store("reading a migration", move |store| store.migration(&id)).await?,
            Err(_) => None,
        };
        row.filter(|row| row.tenant == *tenant).map(|row| self.parts.latest.view(&row)).ok_or_else(
            || {
                Refusal::new(
                    "unknown-migration",
                    format!("there is no migration `{}`", shown(id)),
                    "list them with `godwit migration ls`",
                )
            },
        )
    }

    async fn admission(
        &self,
        row: &ContainerRow,
        request: &MigrateRequest,
    ) -> Result<Admission, Refusal> {
        let mode = request.mode.unwrap_or_default();
        let registry = &self.parts.registry;
        let source = registry.facts(&row.node).ok_or_else(|| unknown_node(row.node.as_str()))?;
        let (image, past) = self.image_and_past(row, mode).await?;
        let memory_bytes = registry
            .memory_of(&row.node, &row.spec.name)
            .or(past.map(|past| past.bytes))
            .or(row.spec.limits.memory_bytes);
        let is_there = matches!(source.state, NodeState::Online | NodeState::Draining);
        let volume_bytes =
            if is_there { self.volume_bytes(&row.spec, &row.node).await? } else { 0 };
        let wish = |target: &NodeId| Wish {
            name: row.spec.name.as_str(),
            source: Some(&source),
            arch: None,
            mode,
            memory_bytes: memory_bytes.unwrap_or(0),
            image_bytes: if registry.holds(target, &row.spec.image) { 0 } else { image },
            overlay_mtu: super::networks::mtu(&row.spec.interfaces),
            volume_bytes,
            devices: &row.spec.devices,
        };
        let (target, mut reasons) = match &request.to {
            Some(to) => {
                let facts = registry.facts(to).ok_or_else(|| unknown_node(to.as_str()))?;
                (Some(facts.clone()), placement::admit(&wish(to), &facts))
            }
            None => match placement::best(wish, &registry.all_facts()) {
                Ok(facts) => (Some(facts.clone()), Vec::new()),
                Err(reasons) => (None, reasons),
            },
        };
        let both_arm = source.can_arm && target.as_ref().is_none_or(|target| target.can_arm);
        let mode = if mode == Mode::Live && !both_arm { Mode::Plain } else { mode };
        let live = self.live_migration(row.spec.id).await?;
        reasons.splice(0..0, state_fits(row, mode, live));
        Ok(Admission {
            ok: reasons.is_empty(),
            // Without a word on its memory there is nothing to go by.
            prediction: target.as_ref().zip(memory_bytes).map(|(target, memory_bytes)| {
                let bytes = memory_bytes + wish(&target.node).image_bytes;
                placement::predict(mode, bytes, request.bwlimit, past)
            }),
            source: row.node.clone(),
            target: target.map(|facts| facts.node),
            mode,
            reasons,
        })
    }

    /// The size of a container's image, 0 if it is not here, and its last move in that mode.
    async fn image_and_past(
        &self,
        row: &ContainerRow,
        mode: Mode,
    ) -> Result<(u64, Option<Past>), Refusal> {
        let filter = MigrationFilter { container: Some(row.spec.id), ..MigrationFilter::default() };
        let (tenant, id) = (row.spec.tenant.clone(), row.spec.image.clone());
        let (images, moves) = self
            .store("reading what admission needs", move |store| {
                Ok((store.images(&tenant)?, store.migrations(&filter, 10)?))
            })
            .await?;
        let size = images.iter().find(|image| image.id == id).map_or(0, |image| image.size_bytes);
        let past = moves.iter().filter(|one| one.mode == mode).find_map(past_of);
        Ok((size, past))
    }
}

fn past_of(row: &AttemptRow) -> Option<Past> {
    let total = row.ended?.duration_since(row.started).as_millis();
    Some(Past {
        bytes: row.bytes,
        total_ms: u64::try_from(total).ok()?,
        gap_ms: row.gap_ms.filter(|_| row.outcome.as_deref() == Some("moved"))?,
    })
}

/// What of the container itself stands in the way.
fn state_fits(row: &ContainerRow, mode: Mode, live: Option<MigrationId>) -> Option<Reason> {
    use ContainerState::{Exited, InDoubt, Lost, Running, Stopped};
    let name = &row.spec.name;
    let reason = |code, message, remedy: String| Some(Reason { code, message, remedy });
    if let Some(id) = live {
        return if row.state == InDoubt {
            reason(
                "busy",
                format!("{name} is on its way by {id}, which is in doubt: a node is silent"),
                format!("`godwit migration inspect {id}` says which one, and what to do"),
            )
        } else {
            reason(
                "busy",
                format!("{name} is on its way already, by {id}"),
                format!(
                    "wait for it (`godwit migration watch {id}`), or `godwit migration cancel {id}`"
                ),
            )
        };
    }
    match (row.state, mode) {
        (Running, _) | (Stopped | Exited, Mode::Cold) => None,
        (Stopped | Exited, Mode::Live | Mode::Plain) => reason(
            "not-running",
            format!("{name} does not run, so there is no memory to take along"),
            format!("move it with --cold, or start it first (`godwit start {name}`)"),
        ),
        (Lost, _) => reason(
            "lost",
            format!("{name} is lost: {} was fenced", row.node),
            row.error.clone().unwrap_or_else(|| format!("see `godwit inspect {name}`")),
        ),
        (state, _) => reason(
            "busy",
            format!("{name} is {state}"),
            format!("wait until it runs; `godwit ps` and `godwit inspect {name}` tell"),
        ),
    }
}

pub(super) fn not_admitted(name: &ContainerName, target: &NodeId, reasons: Vec<Reason>) -> Refusal {
    let (message, remedy) = said(&reasons);
    Refusal {
        code: "admission-refused",
        message: format!("{name} cannot go to {target}: {message}"),
        remedy,
        reasons,
    }
}

pub(super) fn no_node(name: &ContainerName, reasons: Vec<Reason>) -> Refusal {
    let (message, remedy) = if reasons.is_empty() {
        ("no node has joined".into(), "start godwit-agent on one".into())
    } else {
        said(&reasons)
    };
    Refusal {
        code: "no-node",
        message: format!("no node suits {name}: {message}"),
        remedy,
        reasons,
    }
}

/// Several reasons in one sentence, and the first remedy.
fn said(reasons: &[Reason]) -> (String, String) {
    let messages: Vec<_> = reasons.iter().map(|reason| reason.message.as_str()).collect();
    let remedy = reasons.first().map(|reason| reason.remedy.clone()).unwrap_or_default();
    (messages.join("; "), remedy)
}
