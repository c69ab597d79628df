//! Making a container: what podman is told, and what it leaves unsaid.

use std::path::{Path, PathBuf};

use godwit_proto::container::ContainerSpec;
use godwit_proto::device::Device;
use godwit_proto::volume::Volume;
use hyper::Method;
use serde::Deserialize;
use serde_json::json;

use super::EngineError;
use super::layout::EngineConfig;
use super::podman::Podman;

/// The label in which podman keeps a container's specification: what is left of it when
/// the agent's ledger is lost.
pub(super) const SPEC_LABEL: &str = "godwit.spec";

impl Podman {
    /// Makes the container, stopped; made already is success.
    pub(super) async fn make(&self, spec: &ContainerSpec, netns: &Path) -> Result<(), EngineError> {
        let what = || format!("creating container {}", spec.name);
        let exists = format!("containers/{}/exists", spec.engine_name());
        if self.libpod.call(Method::GET, &exists).await?.is_ok() {
            return Ok(());
        }
        // Storage without a container, where podman died in the middle, or the end of a removal.
        self.remove(spec.id, spec.name.as_str()).await?;
        let rules = self.config.devices.provide(spec);
        let rules = rules.map_err(|source| EngineError::Io { what: what(), source })?;
        let document = creation(spec, netns, &self.config, &rules);
        let answer = self.libpod.post_json("containers/create", &document).await?;
        let answer = answer.map_err(|refusal| refusal.into_error(what()))?;
        let created: Created = serde_json::from_slice(&answer)
            .map_err(|error| EngineError::Refused { what: what(), message: error.to_string() })?;
        let warnings = created.warnings.unwrap_or_default().join("; ");
        let limited = spec.limits.memory_bytes.is_some() || spec.limits.nano_cpus.is_some();
        // podman drops a limit that it cannot keep, and says so only here.
        if limited && !warnings.is_empty() {
            self.remove(spec.id, spec.name.as_str()).await?;
            let message = format!("this node cannot keep its limits: {warnings}");
            return Err(EngineError::Refused { what: what(), message });
        }
        Ok(())
    }
}

/// What podman is told to make.
fn creation(
    spec: &ContainerSpec,
    netns: &Path,
    config: &EngineConfig,
    rules: &[serde_json::Value],
) -> serde_json::Value {
    let mut labels = spec.labels.clone();
    labels.extend([
        ("godwit.id".to_owned(), spec.id.to_string()),
        ("godwit.tenant".to_owned(), spec.tenant.to_string()),
        (SPEC_LABEL.to_owned(), serde_json::to_string(spec).unwrap_or_default()),
        ("godwit.name".to_owned(), spec.name.to_string()),
    ]);
    let mut document = json!({
        "name": spec.engine_name(),
        "hostname": spec.name.as_str(),
        "image": spec.image.as_str(),
        "env": spec.env,
        "labels": labels,
        "netns": { "nsmode": "path", "value": netns },
        "restart_policy": "no",
        "image_volume_mode": "ignore",
    });
    if !spec.args.is_empty() {
        document["command"] = json!(spec.args);
    }
    if let Some(resolver) = &spec.resolver {
        document["dns_server"] = json!(resolver.servers);
        document["dns_search"] = json!([resolver.search]);
    }
    // Not podman's own volumes: those travel within its tar, and must not be there at a restore.
    let bind = |at: &str, source: PathBuf| json!({ "destination": at, "type": "bind", "source": source, "options": ["rbind", "rprivate"] });
    let volume = |it: &Volume| bind(&it.path, config.volumes.path(&spec.tenant, &it.name));
    // Nor its devices, which would have this node's numbers for ever.
    let device = |it: &Device| bind(&it.path, config.devices.path(&it.name));
    let mounts = spec.volumes.iter().map(volume).chain(spec.devices.iter().map(device));
    let mounts: Vec<_> = mounts.collect();
    if !mounts.is_empty() {
        document["mounts"] = json!(mounts);
    }
    if !rules.is_empty() {
        document["device_cgroup_rule"] = json!(rules);
    }
    if let Some(bytes) = spec.limits.memory_bytes {
        document["resource_limits"]["memory"] = json!({ "limit": bytes });
    }
    if let Some(nano_cpus) = spec.limits.nano_cpus {
        // 100 ms: the kernel's and everybody's default period.
        document["resource_limits"]["cpu"] =
            json!({ "period": 100_000, "quota": nano_cpus.div_ceil(10_000) });
    }
    document
}

/// podman's answer to a creation.
#[derive(Deserialize)]
struct Created {
    #[serde(rename = "Warnings", default)]
    warnings: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(spec: &ContainerSpec, rules: &[serde_json::Value]) -> serde_json::Value {
        let config = EngineConfig::standard("godwit-agent".into());
        creation(spec, Path::new("/run/netns/x"), &config, rules)
    }

    #[test]
    fn a_volume_is_mounted_from_the_same_place_on_every_node() {
        let mut spec = crate::engine::testing::spec();
        spec.volumes = vec!["data:/var/db".parse().expect("a volume")];
        let document = created(&spec, &[]);
        assert_eq!(document["mounts"][0]["destination"], "/var/db");
        assert_eq!(document["mounts"][0]["source"], "/var/lib/godwit/volumes/default/data");
    }

    #[test]
    fn a_device_is_bound_by_its_label_and_allowed_by_its_numbers() {
        let mut spec = crate::engine::testing::spec();
        spec.devices = vec!["sensor:/dev/ttyS9".parse().expect("a device")];
        let document = created(&spec, &[json!({ "major": 188 })]);
        assert_eq!(document["mounts"][0]["destination"], "/dev/ttyS9");
        assert_eq!(document["mounts"][0]["source"], "/var/lib/godwit/devices/sensor");
        assert_eq!(document["device_cgroup_rule"][0]["major"], 188);
    }

    #[test]
    fn limits_and_names_are_passed_on() {
        let mut spec = crate::engine::testing::spec();
        spec.limits.memory_bytes = Some(64 << 20);
        spec.limits.nano_cpus = Some(1_500_000_000);
        let document = created(&spec, &[]);
        assert_eq!(document["resource_limits"]["memory"]["limit"], 64 << 20);
        assert_eq!(document["resource_limits"]["cpu"]["quota"], 150_000);
        assert_eq!(document["name"], spec.engine_name());
        assert_eq!(document["labels"]["godwit.id"], spec.id.to_string());
        assert_eq!(document["netns"], json!({ "nsmode": "path", "value": "/run/netns/x" }));
    }

    #[test]
    fn without_limits_podman_is_told_of_none() {
        let document = created(&crate::engine::testing::spec(), &[]);
        assert_eq!(document.get("resource_limits"), None);
        assert_eq!(document.get("command"), None, "the image's own command stays");
    }
}
