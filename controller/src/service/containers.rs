//! Making, starting, stopping and removing containers, and what they wrote.

use std::collections::BTreeMap;

use godwit_proto::container::{ContainerSpec, Limits, MAX_INTERFACES, Mode};
use godwit_proto::device::{Device, DeviceError};
use godwit_proto::frame::{NodeAnswer, NodeRequest};
use godwit_proto::id::{ContainerId, ContainerName, NodeId, Tenant};
use godwit_proto::overlay::{Published, PublishedError};
use serde::Deserialize;
use uuid::Uuid;

use super::{Service, networks, unknown_node, volumes};
use crate::images::name;
use crate::placement::{self, NodeState, Wish};
use crate::refusal::Refusal;
use crate::store::{ContainerRow, ImageRow};
use crate::view::ContainerView;

/// A container to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct CreateRequest {
    /// The image, by name or id.
    pub image: String,
    /// What to call it; made up if left out.
    #[serde(default)]
    pub name: Option<ContainerName>,
    /// Where; the best fitting node if left out.
    #[serde(default)]
    pub node: Option<NodeId>,
    /// Arguments in place of the image's own.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Environment added to the image's.
    #[serde(default)]
    pub env: Option<BTreeMap<String, String>>,
    /// The tenant's labels.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Memory in bytes.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Processor time in billionths of a core.
    #[serde(default)]
    pub nano_cpus: Option<u64>,
    /// The networks that it is in, the first with its default route: a tenant's by name, or
    /// `direct` for the nodes' own; the controller's default if left out.
    #[serde(default)]
    pub networks: Option<Vec<String>>,
    /// Its ports that nodes open for it, as [`Published`] reads them.
    #[serde(default)]
    pub ports: Option<Vec<String>>,
    /// Its volumes, as [`Volume`](godwit_proto::volume::Volume) reads them.
    #[serde(default)]
    pub volumes: Option<Vec<String>>,
    /// The devices that it may use, as [`Device`] reads them.
    #[serde(default)]
    pub devices: Option<Vec<String>>,
    /// Whether to start it; yes if left out.
    #[serde(default)]
    pub start: Option<bool>,
}

impl Service {
    /// Makes a container: recorded and ordered when this returns.
    ///
    /// # Errors
    /// `unknown-image`, `name-taken`, `unknown-network`, `network-twice`, `too-many-networks`,
    /// `addresses-exhausted`, `invalid-port`, `port-taken`, `invalid-volume`, `volume-twice`,
    /// `volume-in-use`, `volume-elsewhere`, `volumes-apart`, `invalid-device`, `unknown-node`,
    /// `admission-refused`, `no-node`, and the core's.
    pub async fn create(
        &self,
        tenant: &Tenant,
        request: CreateRequest,
    ) -> Result<ContainerView, Refusal> {
        let image = self.find_image(tenant, &request.image).await?;
        let ports = ports(request.ports.unwrap_or_default())?;
        let devices = devices(request.devices.unwrap_or_default())?;
        // Before the lock: a silent node is waited for.
        self.nodes_have_them_free(&ports).await?;
        let _creating = self.parts.creating.lock().await;
        let rows = self.store("listing containers", |store| store.containers()).await?;
        let name = free_name(tenant, request.name, &rows)?;
        self.free_ports(tenant, &ports, &rows)?;
        let wished = request.volumes.unwrap_or_default();
        let (volumes, at) = self.take_volumes(tenant, wished, &rows).await?;
        let node = volumes::place_of(&volumes, at, request.node)?;
        let networks = request.networks.filter(|networks| !networks.is_empty());
        let networks = networks.unwrap_or_else(|| vec![self.parts.network.clone()]);
        if networks.len() > MAX_INTERFACES {
            return Err(Refusal::new(
                "too-many-networks",
                format!("{} networks are asked for", networks.len()),
                format!("a container can be in {MAX_INTERFACES}"),
            ));
        }
        let mut interfaces = Vec::new();
        for network in &networks {
            interfaces.push(self.join(tenant, network, &rows, &interfaces).await?);
        }
        let wanted = Wanted {
            name: &name,
            image: &image,
            memory_bytes: request.memory_bytes,
            overlay_mtu: networks::mtu(&interfaces),
            devices: &devices,
        };
        let node = self.place(&wanted, node)?;
        let id = ContainerId(Uuid::new_v4());
        let spec = ContainerSpec {
            id,
            tenant: tenant.clone(),
            name,
            image_name: image.names.first().cloned().unwrap_or_else(|| image.id.to_string()),
            image: image.id,
            args: request.args.unwrap_or_default(),
            env: request.env.unwrap_or_default(),
            labels: request.labels.unwrap_or_default(),
            limits: Limits { memory_bytes: request.memory_bytes, nano_cpus: request.nano_cpus },
            resolver: networks::resolver(tenant, &interfaces),
            interfaces,
            ports,
            volumes,
            devices,
        };
        self.parts.core.create(spec, node, request.start.unwrap_or(true)).await?;
        self.container(tenant, &id.to_string()).await
    }

    /// Starts a stopped container.
    ///
    /// # Errors
    /// `unknown-container`, `node-offline`, and the core's.
    pub async fn start(&self, tenant: &Tenant, reference: &str) -> Result<ContainerView, Refusal> {
        let row = self.find(tenant, reference).await?;
        self.node_must_answer(&row)?;
        self.parts.core.start(row.spec.id).await?;
        self.container(tenant, &row.spec.id.to_string()).await
    }

    /// Stops a container.
    ///
    /// # Errors
    /// `unknown-container`, and the core's.
    pub async fn stop(&self, tenant: &Tenant, reference: &str) -> Result<ContainerView, Refusal> {
        let row = self.find(tenant, reference).await?;
        self.parts.core.stop(row.spec.id).await?;
        self.container(tenant, &row.spec.id.to_string()).await
    }

    /// Removes a container; a running one only by force.
    ///
    /// # Errors
    /// `unknown-container`, `not-stopped`, and the core's.
    pub async fn remove(
        &self,
        tenant: &Tenant,
        reference: &str,
        force: bool,
    ) -> Result<ContainerView, Refusal> {
        let row = self.find(tenant, reference).await?;
        self.parts.core.remove(row.spec.id, force).await?;
        match self.container(tenant, &row.spec.id.to_string()).await {
            // It went at once.
            Err(gone) if gone.code == "unknown-container" => Ok(ContainerView::removed(&row)),
            answer => answer,
        }
    }

    /// The last lines that a container wrote.
    ///
    /// # Errors
    /// `unknown-container`, `node-offline`, `node-silent`.
    pub async fn logs(
        &self,
        tenant: &Tenant,
        reference: &str,
        tail: Option<u32>,
    ) -> Result<Vec<u8>, Refusal> {
        let row = self.find(tenant, reference).await?;
        self.node_must_answer(&row)?;
        let request = NodeRequest::Logs { container: row.spec.id, tail };
        match self.parts.core.ask_node(&row.node, request).await? {
            NodeAnswer::Logs(bytes) => Ok(bytes),
            _ => Err(odd_answer(&row.node)),
        }
    }

    /// The node for a new container: the wished one if it may go there, else the best.
    fn place(&self, wanted: &Wanted<'_>, node: Option<NodeId>) -> Result<NodeId, Refusal> {
        let Wanted { name, image, memory_bytes, overlay_mtu, devices } = *wanted;
        let wish = |target: &NodeId| Wish {
            name: name.as_str(),
            source: None,
            arch: Some(&image.arch),
            mode: Mode::Cold,
            memory_bytes: memory_bytes.unwrap_or(0),
            image_bytes: if self.parts.registry.holds(target, &image.id) {
                0
            } else {
                image.size_bytes
            },
            overlay_mtu,
            volume_bytes: 0,
            devices,
        };
        if let Some(node) = node {
            let facts =
                self.parts.registry.facts(&node).ok_or_else(|| unknown_node(node.as_str()))?;
            let reasons = placement::admit(&wish(&node), &facts);
            return if reasons.is_empty() {
                Ok(node)
            } else {
                Err(super::migrations::not_admitted(name, &node, reasons))
            };
        }
        let nodes = self.parts.registry.all_facts();
        placement::best(wish, &nodes)
            .map(|node| node.node.clone())
            .map_err(|reasons| super::migrations::no_node(name, reasons))
    }

    /// Asking a node that is not there would only end in a timeout.
    pub(super) fn node_must_answer(&self, row: &ContainerRow) -> Result<(), Refusal> {
        let state = self.parts.registry.facts(&row.node).map(|facts| facts.state);
        if matches!(state, Some(NodeState::Online | NodeState::Draining)) {
            return Ok(());
        }
        let (node, name) = (&row.node, &row.spec.name);
        let remedy = match state {
            Some(NodeState::Fenced) => format!(
                "power {node} on and start its agent; or give {name} up with `godwit rm {name}` \
                 and run it anew elsewhere"
            ),
            _ => format!("start godwit-agent on {node}"),
        };
        let state = state.map_or("not known".to_owned(), |state| state.to_string());
        let message = format!("{node}, where {name} is, is {state}");
        Err(Refusal::new("node-offline", message, remedy))
    }

    pub(super) async fn find_image(
        &self,
        tenant: &Tenant,
        reference: &str,
    ) -> Result<ImageRow, Refusal> {
        let mut images = self.parts.images.list(tenant).await.map_err(super::images::refusal)?;
        let index = match name::find(&images, reference) {
            name::Found::One(found) => images.iter().position(|image| image.id == found.id),
            name::Found::None => None,
            name::Found::Several(ids) => {
                let ids: Vec<_> = ids.iter().map(|id| id.short()).collect();
                return Err(Refusal::new(
                    "unknown-image",
                    format!("`{}` may mean any of {}", super::shown(reference), ids.join(", ")),
                    "name the image by its id",
                ));
            }
        };
        index.map(|index| images.swap_remove(index)).ok_or_else(|| {
            Refusal::new(
                "unknown-image",
                format!("there is no image `{}`", super::shown(reference)),
                "bring it with `godwit image load FILE`; `godwit image ls` lists them",
            )
        })
    }
}

/// What placement is to know of a container that is yet to be made.
struct Wanted<'a> {
    name: &'a ContainerName,
    image: &'a ImageRow,
    memory_bytes: Option<u64>,
    overlay_mtu: Option<u16>,
    devices: &'a [Device],
}

fn devices(texts: Vec<String>) -> Result<Vec<Device>, Refusal> {
    let read = |text: String| {
        text.parse().map_err(|wrong: DeviceError| {
            let remedy = "declare it where it is (`godwit-agent run --device sensor=/dev/ttyUSB0`), \
                          and ask for the label (`godwit run --device sensor`)";
            Refusal::new("invalid-device", wrong.to_string(), remedy)
        })
    };
    texts.into_iter().map(read).collect()
}

fn ports(texts: Vec<String>) -> Result<Vec<Published>, Refusal> {
    let read = |text: String| {
        text.parse().map_err(|wrong: PublishedError| {
            Refusal::new("invalid-port", wrong.to_string(), "the nodes' port comes first")
        })
    };
    texts.into_iter().map(read).collect()
}

pub(super) fn odd_answer(node: &NodeId) -> Refusal {
    Refusal::new(
        "node-silent",
        format!("{node} answered something else than what it was asked"),
        "are controller and agent of the same version? `godwit node inspect` tells",
    )
}

/// The wished name if it is free, else one that is made up.
fn free_name(
    tenant: &Tenant,
    wished: Option<ContainerName>,
    rows: &[ContainerRow],
) -> Result<ContainerName, Refusal> {
    let taken = |name: &ContainerName| {
        rows.iter().any(|row| row.spec.tenant == *tenant && row.spec.name == *name)
    };
    match wished {
        Some(name) if taken(&name) => Err(Refusal::new(
            "name-taken",
            format!("there is a container `{name}` already"),
            format!("choose another name, or remove that one with `godwit rm {name}`"),
        )),
        Some(name) => Ok(name),
        None => loop {
            let random = Uuid::new_v4().simple().to_string();
            let made_up = format!("c-{}", &random[..8]).parse().ok();
            if let Some(name) = made_up.filter(|name| !taken(name)) {
                break Ok(name);
            }
        },
    }
}
