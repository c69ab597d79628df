//! A controller without a decision core, for tests of what stands around it.

use std::sync::Arc;

use godwit_proto::container::ContainerSpec;
use godwit_proto::frame::{NodeAnswer, NodeRequest};
use godwit_proto::id::{ContainerId, Epoch, MigrationId, NodeId, Run, Tenant};
use godwit_proto::migration::Plan;
use jiff::Timestamp;
use tokio::sync::{Mutex, broadcast};

use crate::core::{Answer, Core};
use crate::event::Event;
use crate::images::{Images, archive::tests::docker_archive};
use crate::latest::Latest;
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::service::{DIRECT, Parts, Pool, Ranges, Service};
use crate::store::{AttemptRow, ContainerRow, ContainerState, Intent, Prediction, StoreHandle};
use crate::view::{ContainerView, Fenced, MigrationView, Progress};

/// Does what the core would record and tell, and nothing by itself.
pub(crate) struct StubCore {
    store: StoreHandle,
    events: broadcast::Sender<Event>,
    unwritten: std::sync::Mutex<Option<(ContainerId, ContainerState)>>,
}

impl StubCore {
    /// Has told of a state that is still to be written.
    pub(crate) fn is_about_to_reach(&self, id: ContainerId, state: ContainerState) {
        *self.unwritten.lock().unwrap() = Some((id, state));
    }

    /// Brings a container into a state, as a node's report would.
    pub(crate) async fn reach(&self, id: ContainerId, state: ContainerState) {
        let change = move |row: &mut ContainerRow| {
            row.state = state;
            row.intent = Intent::Rest;
        };
        self.change(id, change).await;
    }

    async fn change(
        &self,
        id: ContainerId,
        change: impl FnOnce(&mut ContainerRow) + Send + 'static,
    ) {
        let row = self
            .store
            .call(move |store| {
                let mut row = store.container(id)?.unwrap();
                change(&mut row);
                store.save_container(&row)?;
                Ok(row)
            })
            .await
            .unwrap();
        let _ = self.events.send(Event::Container(ContainerView::new(&row, None)));
    }

    /// Removes a container for good.
    pub(crate) async fn forget(&self, id: ContainerId) {
        let row = self
            .store
            .call(move |store| {
                let row = store.container(id)?.unwrap();
                store.delete_container(id)?;
                Ok(row)
            })
            .await
            .unwrap();
        let _ = self.events.send(Event::Container(ContainerView::removed(&row)));
    }

    /// Brings a move to its end.
    pub(crate) async fn settle(&self, id: &MigrationId, outcome: &str) {
        let (id, outcome) = (id.clone(), outcome.to_owned());
        let row = self
            .store
            .call(move |store| {
                let mut row = store.migration(&id)?.unwrap();
                row.settled = true;
                row.outcome = Some(outcome);
                row.ended = Some(Timestamp::now());
                store.save_attempt(&row)?;
                Ok(row)
            })
            .await
            .unwrap();
        self.tell_move(&row, Progress::default());
    }

    /// Tells how far a transfer is, without recording it.
    pub(crate) async fn progress(&self, id: &MigrationId, bytes: u64, total: u64) {
        let id = id.clone();
        let mut row =
            self.store.call(move |store| Ok(store.migration(&id)?.unwrap())).await.unwrap();
        row.phase = "transferring".into();
        row.bytes = bytes;
        let progress = Progress { bytes_total: Some(total), rate_bytes_per_s: Some(1000) };
        self.tell_move(&row, progress);
    }

    fn tell_move(&self, row: &AttemptRow, progress: Progress) {
        let _ = self.events.send(Event::Migration(MigrationView::new(row, progress)));
    }
}

impl Core for StubCore {
    fn written(&self) -> futures_util::future::BoxFuture<'_, ()> {
        Box::pin(async {
            let unwritten = self.unwritten.lock().unwrap().take();
            if let Some((id, state)) = unwritten {
                self.reach(id, state).await;
            }
        })
    }
    fn create(&self, spec: ContainerSpec, node: NodeId, start: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            let now = Timestamp::now();
            let row = ContainerRow {
                spec,
                node,
                epoch: Epoch { generation: 1, counter: 1 },
                intent: if start { Intent::Start } else { Intent::Create },
                state: ContainerState::Creating,
                error: None,
                exit_code: None,
                since: now,
                created: now,
            };
            self.store.call(move |store| store.insert_container(&row)).await.unwrap();
            Ok(())
        })
    }
    fn start(&self, id: ContainerId) -> Answer<'_, ()> {
        Box::pin(async move {
            self.change(id, |row| row.state = ContainerState::Starting).await;
            Ok(())
        })
    }
    fn stop(&self, id: ContainerId) -> Answer<'_, ()> {
        Box::pin(async move {
            self.change(id, |row| row.state = ContainerState::Stopping).await;
            Ok(())
        })
    }
    fn remove(&self, id: ContainerId, force: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            if !force {
                return Err(Refusal::new("not-stopped", "it runs", "stop it first"));
            }
            self.change(id, |row| row.state = ContainerState::Removing).await;
            Ok(())
        })
    }
    fn migrate(
        &self,
        id: ContainerId,
        to: NodeId,
        plan: Plan,
        predicted: Option<Prediction>,
    ) -> Answer<'_, MigrationId> {
        Box::pin(async move {
            let migration: MigrationId = "m-0001-2".parse().unwrap();
            let named = migration.clone();
            let row = self
                .store
                .call(move |store| {
                    let mut container = store.container(id)?.unwrap();
                    container.state = ContainerState::Migrating;
                    store.save_container(&container)?;
                    let row = attempt(named, &container, to, plan, predicted);
                    store.insert_attempt(&row)?;
                    Ok(row)
                })
                .await
                .unwrap();
            self.tell_move(&row, Progress::default());
            Ok(migration)
        })
    }
    fn cancel(&self, _: &MigrationId) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn fence(&self, _: &NodeId) -> Answer<'_, Fenced> {
        Box::pin(async move {
            let held = self.store.call(|store| store.containers()).await.unwrap();
            Ok(Fenced {
                migrations: Vec::new(),
                containers: held.into_iter().map(|row| row.spec.name).collect(),
            })
        })
    }
    fn ask_node(&self, node: &NodeId, request: NodeRequest) -> Answer<'_, NodeAnswer> {
        let answer = match request {
            NodeRequest::Logs { tail, .. } => {
                Ok(NodeAnswer::Logs(format!("{node} {tail:?}\n").into_bytes()))
            }
            NodeRequest::Images => Ok(NodeAnswer::Images(Vec::new())),
            NodeRequest::RemoveImage { .. } => {
                Err(Refusal::new("node-silent", "no answer", "try again"))
            }
            NodeRequest::VolumeBytes { .. } => Ok(NodeAnswer::Bytes(0)),
            NodeRequest::RemoveVolume { .. } => Ok(NodeAnswer::Done),
            NodeRequest::Ports(ports) => {
                let held = ports.into_iter().filter(|(_, port)| *port == 22);
                let held = held.map(|(protocol, port)| (protocol, port, "sshd".to_owned()));
                Ok(NodeAnswer::Ports(held.collect()))
            }
        };
        Box::pin(std::future::ready(answer))
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

fn attempt(
    id: MigrationId,
    container: &ContainerRow,
    target: NodeId,
    plan: Plan,
    predicted: Option<Prediction>,
) -> AttemptRow {
    AttemptRow {
        id,
        container: container.spec.id,
        tenant: container.spec.tenant.clone(),
        name: container.spec.name.clone(),
        epoch: Epoch { generation: 1, counter: 2 },
        source: container.node.clone(),
        target,
        mode: plan.mode,
        bwlimit: plan.bwlimit,
        opener: Run { generation: 1, nonce: 1 },
        decider: "{}".into(),
        settled: false,
        phase: "preparing".into(),
        outcome: None,
        reason: None,
        remedy: None,
        phases: Vec::new(),
        timeline: Vec::new(),
        bytes: 0,
        wire_bytes: 0,
        gap_ms: None,
        predicted,
        started: Timestamp::now(),
        ended: None,
    }
}

/// The services over a stub core, with two nodes online and one image.
pub(crate) struct Stand {
    _directory: tempfile::TempDir,
    pub(crate) store: StoreHandle,
    pub(crate) core: Arc<StubCore>,
    pub(crate) registry: Registry,
    pub(crate) service: Service,
}

impl Stand {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = StoreHandle::open(&directory.path().join("godwit.db")).unwrap();
        let (events, _) = broadcast::channel(64);
        let core = Arc::new(StubCore {
            store: store.clone(),
            events: events.clone(),
            unwritten: std::sync::Mutex::default(),
        });
        let registry = Registry::open(store.clone(), events).await.unwrap();
        let images = Images::open(directory.path().join("images"), store.clone()).unwrap();
        let service = Service::new(Parts {
            core: Arc::clone(&core) as Arc<dyn Core>,
            store: store.clone(),
            registry: registry.clone(),
            images,
            latest: Latest::default(),
            pool: Pool::new("10.77.1.0/29", 16, None).unwrap(),
            ranges: Ranges { all: "10.128.0.0/21".parse().unwrap(), prefix: 23, has_ipv6: true },
            network: DIRECT.to_owned(),
            creating: Mutex::new(()),
        });
        let (_, bytes) = docker_archive(Some("localhost/counter:latest"), &[7; 100]);
        let body = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes.into())]);
        service.upload_image(&Self::tenant(), None, body).await.unwrap();
        let stand = Self { _directory: directory, store, core, registry, service };
        for node in ["edge-a", "edge-b"] {
            stand.node(node, "online");
        }
        stand
    }

    pub(crate) fn tenant() -> Tenant {
        Tenant::default_tenant()
    }

    /// Lets a node announce itself in a state.
    pub(crate) fn node(&self, name: &str, state: &str) {
        let hear = |level: &str, payload: String| {
            let topic = format!("godwit/v1/node/{name}/{level}").parse().unwrap();
            self.registry.hear(&topic, payload.as_bytes());
        };
        hear("state", format!(r#"{{"state":"{state}","since":"2026-11-22T18:00:00Z"}}"#));
        let info = r#"{"agent_version":"0.1.0","arch":"x86_64","os":"Debian 13",
            "kernel":"6.18.2","cpus":2,"memory_bytes":8589934592,"disk_bytes":8589934592,
            "engine":"podman 5.4.2","runtime":"runc 1.1.15","criu":"4.2.1",
            "underlay":{"address":"10.77.0.11","mtu":1500},
            "probe":{"can_migrate":true,"can_arm":true}}"#;
        hear("info", info.into());
    }

    /// Lets a node tell what a container uses.
    pub(crate) fn uses_memory(&self, node: &str, container: &str, bytes: u64) {
        let topic = format!("godwit/v1/node/{node}/metrics").parse().unwrap();
        let metrics = format!(
            r#"{{"cpu_percent":1,"memory_free_bytes":8000000000,"disk_free_bytes":8000000000,
            "network_rx_bytes_per_s":0,"network_tx_bytes_per_s":0,"containers":[
            {{"name":"{container}","cpu_percent":1,"memory_bytes":{bytes},"processes":1}}]}}"#
        );
        self.registry.hear(&topic, metrics.as_bytes());
    }

    /// A container that runs on `edge-a`.
    pub(crate) async fn running(&self, name: &str) -> ContainerView {
        let request = crate::service::CreateRequest {
            image: "counter".into(),
            name: Some(name.parse().unwrap()),
            node: Some("edge-a".parse().unwrap()),
            ..Default::default()
        };
        let view = self.service.create(&Self::tenant(), request).await.unwrap();
        self.core.reach(view.id, ContainerState::Running).await;
        self.service.container(&Self::tenant(), name).await.unwrap()
    }
}
