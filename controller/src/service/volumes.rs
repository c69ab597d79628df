//! Tenants' volumes: made with their first container, one container's at a time, where that is.

use godwit_proto::container::ContainerSpec;
use godwit_proto::frame::{NodeAnswer, NodeRequest};
use godwit_proto::id::{ContainerName, NodeId, Tenant, VolumeName};
use godwit_proto::volume::{Volume, VolumeError};

use super::{Service, shown};
use crate::placement::NodeState;
use crate::refusal::Refusal;
use crate::store::{ContainerRow, VolumeRow};
use crate::view::VolumeView;

impl Service {
    /// A tenant's volumes, by name.
    ///
    /// # Errors
    /// `internal`.
    pub async fn volumes(&self, tenant: &Tenant) -> Result<Vec<VolumeView>, Refusal> {
        self.parts.core.written().await;
        let (rows, containers) = self
            .store("listing volumes", |store| Ok((store.volumes()?, store.containers()?)))
            .await?;
        let own = rows.iter().filter(|row| row.tenant == *tenant);
        Ok(own.map(|row| VolumeView::new(row, &containers)).collect())
    }

    /// One of a tenant's volumes.
    ///
    /// # Errors
    /// `unknown-volume`.
    pub async fn volume(&self, tenant: &Tenant, name: &str) -> Result<VolumeView, Refusal> {
        let mut all = self.volumes(tenant).await?;
        let found = all.iter().position(|volume| volume.name.as_str() == name);
        found.map(|at| all.swap_remove(at)).ok_or_else(|| {
            Refusal::new(
                "unknown-volume",
                format!("there is no volume `{}`", shown(name)),
                "`godwit volume ls` lists them; `godwit run -v NAME:/path` makes one",
            )
        })
    }

    /// Removes a volume that no container has, with all that is in it.
    ///
    /// # Errors
    /// `unknown-volume`, `volume-in-use`, `node-offline`, `node-silent`.
    pub async fn remove_volume(&self, tenant: &Tenant, name: &str) -> Result<VolumeView, Refusal> {
        let _creating = self.parts.creating.lock().await;
        let view = self.volume(tenant, name).await?;
        if let Some(holder) = &view.container {
            return Err(in_use(&view.name, holder));
        }
        let state = self.parts.registry.facts(&view.node).map(|facts| facts.state);
        match state {
            Some(NodeState::Online | NodeState::Draining) => {
                let (tenant, volume) = (tenant.clone(), view.name.clone());
                let request = NodeRequest::RemoveVolume { tenant, volume };
                self.parts.core.ask_node(&view.node, request).await?;
            }
            // It is given up, as a container there is.
            Some(NodeState::Fenced) => {}
            _ => {
                let message = format!("{}, where {name} is, does not answer", view.node);
                let remedy = format!("start godwit-agent on {}", view.node);
                return Err(Refusal::new("node-offline", message, remedy));
            }
        }
        let (whose, volume) = (tenant.clone(), view.name.clone());
        let delete = move |store: &crate::store::Store| store.delete_volume(&whose, &volume);
        self.store("removing a volume", delete).await?;
        Ok(view)
    }

    /// The volumes that a new container asks for, and the node where they are, if any are there.
    /// To be called while nothing else is created.
    pub(super) async fn take_volumes(
        &self,
        tenant: &Tenant,
        texts: Vec<String>,
        containers: &[ContainerRow],
    ) -> Result<(Vec<Volume>, Option<NodeId>), Refusal> {
        let mut wanted: Vec<Volume> = Vec::new();
        for text in texts {
            let volume: Volume = text.parse().map_err(|wrong: VolumeError| {
                let remedy = "name a volume and a path, as in data:/var/lib/data; a node's own \
                              directories cannot be had, for no other node has them";
                Refusal::new("invalid-volume", wrong.to_string(), remedy)
            })?;
            let clashes = |other: &Volume| other.name == volume.name || other.path == volume.path;
            if let Some(other) = wanted.iter().find(|other| clashes(other)) {
                let message = format!("{other} and {volume} cannot both be");
                let remedy = "give each volume one path, and each path one volume";
                return Err(Refusal::new("volume-twice", message, remedy));
            }
            wanted.push(volume);
        }
        if wanted.is_empty() {
            return Ok((wanted, None));
        }
        let rows = self.store("listing volumes", |store| store.volumes()).await?;
        let is_wanted = |row: &&VolumeRow| {
            row.tenant == *tenant && wanted.iter().any(|volume| volume.name == row.name)
        };
        let mut at: Option<&VolumeRow> = None;
        for row in rows.iter().filter(is_wanted) {
            if let Some(holder) = VolumeView::new(row, containers).container {
                return Err(in_use(&row.name, &holder));
            }
            if let Some(other) = at.filter(|other| other.node != row.node) {
                return Err(Refusal::new(
                    "volumes-apart",
                    format!("{} is on {}, {} is on {}", other.name, other.node, row.name, row.node),
                    "bring one to the other: move a container that has it (`godwit migrate`)",
                ));
            }
            at = Some(row);
        }
        let node = at.map(|row| row.node.clone());
        Ok((wanted, node))
    }

    /// How much disk a container's volumes take where they are.
    pub(super) async fn volume_bytes(
        &self,
        spec: &ContainerSpec,
        node: &NodeId,
    ) -> Result<u64, Refusal> {
        if spec.volumes.is_empty() {
            return Ok(0);
        }
        let volumes = spec.volumes.iter().map(|volume| volume.name.clone()).collect();
        let request = NodeRequest::VolumeBytes { tenant: spec.tenant.clone(), volumes };
        match self.parts.core.ask_node(node, request).await? {
            NodeAnswer::Bytes(bytes) => Ok(bytes),
            _ => Err(super::containers::odd_answer(node)),
        }
    }
}

/// A volume is where it is: a container that is to have it goes there.
pub(super) fn place_of(
    volumes: &[Volume],
    at: Option<NodeId>,
    wished: Option<NodeId>,
) -> Result<Option<NodeId>, Refusal> {
    match (at, wished) {
        (Some(at), Some(wished)) if at != wished => {
            let names: Vec<_> = volumes.iter().map(|volume| volume.name.as_str()).collect();
            Err(Refusal::new(
                "volume-elsewhere",
                format!("{} is on {at}, not on {wished}", names.join(", ")),
                format!("run it on {at}, then `godwit migrate` takes its volumes along"),
            ))
        }
        (at, wished) => Ok(at.or(wished)),
    }
}

fn in_use(name: &VolumeName, holder: &ContainerName) -> Refusal {
    Refusal::new(
        "volume-in-use",
        format!("the volume {name} is the container {holder}'s"),
        format!("a volume is one container's at a time: remove that one with `godwit rm {holder}`"),
    )
}
