//! What the kernel and podman's records show of our containers.

use std::time::Duration;

use godwit_proto::container::{ContainerSpec, Execution};
use godwit_proto::id::ContainerId;

use super::containers::{self, Stored};
use super::creation::SPEC_LABEL;
use super::podman::Podman;
use super::{EngineError, Observed, Usage, layout};

/// How long podman is asked about a container that has ended before the answer is done without.
const ASIDE: Duration = Duration::from_secs(2);

impl Podman {
    /// What the kernel shows of the container.
    pub(super) fn execution(&self, stored: &Stored) -> Result<Execution, EngineError> {
        let cgroup = self.cgroup(stored);
        let io = |source| EngineError::Io {
            what: format!("reading {}", cgroup.path().display()),
            source,
        };
        Ok(if !cgroup.is_populated().map_err(io)? {
            Execution::Absent
        } else if self.is_marked(stored.id) {
            Execution::Gated
        } else if cgroup.is_frozen().map_err(io)? {
            Execution::Frozen
        } else {
            Execution::Running
        })
    }

    /// What the kernel shows of the container, whoever it belongs to.
    pub(crate) fn execution_of(&self, spec: &ContainerSpec) -> Result<Execution, EngineError> {
        self.find(spec.id)?.map_or(Ok(Execution::Absent), |stored| self.execution(&stored))
    }

    /// The exit code that podman recorded, if it answers at once.
    async fn exit_code(&self, stored: &Stored) -> Option<i64> {
        let asked = self.docker.inspect_container(&stored.podman_id, None);
        let state = tokio::time::timeout(ASIDE, asked).await.ok()?.ok()?.state?;
        let ended = state.status == Some(bollard::models::ContainerStateStatusEnum::EXITED);
        state.exit_code.filter(|_| ended)
    }

    /// What the container was made from, by the label that it was given.
    pub(super) async fn read_spec(
        &self,
        id: ContainerId,
    ) -> Result<Option<ContainerSpec>, EngineError> {
        let Some(stored) = containers::find(&self.graphroot, id)? else { return Ok(None) };
        let found = self
            .docker
            .inspect_container(
                &stored.podman_id,
                None::<bollard::query_parameters::InspectContainerOptions>,
            )
            .await
            .map_err(|error| EngineError::Refused {
                what: format!("inspecting container {id}"),
                message: error.to_string(),
            })?;
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        Ok(labels.get(SPEC_LABEL).and_then(|text| serde_json::from_str(text).ok()))
    }

    pub(super) async fn observe_all(&self) -> Result<Vec<Observed>, EngineError> {
        let mut all = Vec::new();
        for stored in self.stored()?.iter().filter(|stored| !layout::is_probe(stored.id)) {
            let execution = self.execution(stored)?;
            if execution == Execution::Absent {
                self.disarm_ended(stored.id);
            }
            let exit_code =
                if execution == Execution::Absent { self.exit_code(stored).await } else { None };
            let never_opened = self.is_marked(stored.id);
            all.push(Observed { id: stored.id, execution, never_opened, exit_code });
        }
        // What podman has forgotten must be seen, to be cleared up or built again.
        for id in self.noted()?.into_iter().filter(|id| !layout::is_probe(*id)) {
            if !all.iter().any(|seen| seen.id == id) {
                let never_opened = self.is_marked(id);
                let execution = match (self.is_half_removed_and_alive(id)?, never_opened) {
                    (false, _) => Execution::Absent,
                    (true, true) => Execution::Gated,
                    (true, false) => Execution::Running,
                };
                all.push(Observed { id, execution, never_opened, exit_code: None });
            }
        }
        Ok(all)
    }

    pub(super) fn usage_of_all(&self) -> Result<Vec<Usage>, EngineError> {
        let mut all = Vec::new();
        for stored in self.stored()?.iter().filter(|stored| !layout::is_probe(stored.id)) {
            let pids = self.cgroup(stored).processes().unwrap_or_default();
            // A process that ends meanwhile is none.
            let stats: Vec<_> = pids
                .iter()
                .filter_map(|pid| procfs::process::Process::new(*pid).ok()?.stat().ok())
                .collect();
            if stats.is_empty() {
                continue;
            }
            let ticks: u64 = stats.iter().map(|stat| stat.utime + stat.stime).sum();
            all.push(Usage {
                id: stored.id,
                processor: Duration::from_millis(ticks * 1000 / procfs::ticks_per_second()),
                memory_bytes: stats.iter().map(|stat| stat.rss * procfs::page_size()).sum(),
                processes: u32::try_from(stats.len()).unwrap_or(u32::MAX),
            });
        }
        Ok(all)
    }

    /// Removes what is left of a container that podman has forgotten and that does not live.
    pub(super) async fn clear_unknown(&self, id: ContainerId) -> Result<(), EngineError> {
        if self.find(id)?.is_some() || self.is_half_removed_and_alive(id)? {
            return Ok(());
        }
        self.remove(id, &id.to_string()).await
    }
}
