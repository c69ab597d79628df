//! Starting a container, whose last life podman may take for its present one.
//!
//! podman believes conmon. Until conmon has written down that its container ended, and for good
//! where it was killed before it did, podman takes the container for running, and "starts" it with
//! success (304) and nothing else. Only when it stops a container does podman look after conmon
//! itself; so that is what it is asked for first, where the kernel shows no process.

use std::time::Duration;

use godwit_proto::container::{ContainerSpec, Execution};
use hyper::Method;
use serde::Deserialize;

use super::EngineError;
use super::podman::Podman;
use super::source::wrong;

/// How long conmon may take to write down that its container ended.
const SEEN: Duration = Duration::from_secs(30);

/// What is read of podman's account of a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Account {
    state: State,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
}

impl Podman {
    /// Starts the container; running already is success.
    pub(super) async fn begin(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        // It may have ended while it was armed.
        self.disarm_source(spec.id, spec.name.as_str()).await?;
        let stored = self.must_find(spec, "starting")?;
        if self.execution(&stored)? == Execution::Absent {
            // Of a move that it did not live to see: what runs anew is neither gated nor frozen.
            self.unmark(spec.id)?;
            self.unmark_frozen(&stored.podman_id)?;
            self.have_its_end_seen(spec).await?;
        }
        let path = format!("containers/{}/start", spec.engine_name());
        let answer = self.libpod.call(Method::POST, &path).await?;
        answer
            .map(drop)
            .map_err(|refusal| refusal.into_error(format!("starting container {}", spec.name)))
    }

    /// Returns once podman knows that the container, of which no process is left, has ended.
    async fn have_its_end_seen(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        if !self.is_taken_for_alive(spec).await? {
            return Ok(());
        }
        let path = format!("containers/{}/stop?timeout=0", spec.engine_name());
        let stop = self.libpod.call(Method::POST, &path);
        let Ok(answer) = tokio::time::timeout(SEEN, stop).await else {
            let what = format!("starting container {}: waiting for its conmon to end", spec.name);
            return Err(EngineError::Deadline { what, seconds: SEEN.as_secs() });
        };
        // Where conmon was killed podman refuses for that, and has seen it all the same.
        let refusal = answer?.err();
        if self.is_taken_for_alive(spec).await? {
            let said = refusal.map(|refusal| refusal.message).unwrap_or_default();
            let why = format!("podman takes it for alive, but no process of it exists; {said}");
            return Err(wrong(spec, "starting", &why));
        }
        Ok(())
    }

    /// True where podman would not start it: in its books it runs, or is being stopped.
    async fn is_taken_for_alive(&self, spec: &ContainerSpec) -> Result<bool, EngineError> {
        let what = || format!("inspecting container {}", spec.name);
        let path = format!("containers/{}/json", spec.engine_name());
        let answer = self.libpod.call(Method::GET, &path).await?;
        let answer = answer.map_err(|refusal| refusal.into_error(what()))?;
        let account: Account = serde_json::from_slice(&answer)
            .map_err(|error| EngineError::Refused { what: what(), message: error.to_string() })?;
        Ok(matches!(account.state.status.as_str(), "running" | "stopping"))
    }
}
