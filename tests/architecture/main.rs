//! The arrows between the crates, as docs/ARCHITECTURE.md draws them.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// What each crate may use of the fabric's own crates.
const ARROWS: [(&str, &[&str]); 9] = [
    ("godwit-image", &[]),
    ("godwit-trust", &[]),
    ("godwit-proto", &[]),
    ("godwit-bus", &["godwit-proto"]),
    ("godwit-broker", &["godwit-proto"]),
    ("godwit-agent", &["godwit-proto", "godwit-bus", "godwit-image", "godwit-trust"]),
    (
        "godwit-controller",
        &["godwit-proto", "godwit-bus", "godwit-broker", "godwit-image", "godwit-trust"],
    ),
    ("godwit", &["godwit-proto"]),
    (
        "godwit-tests",
        &["godwit-proto", "godwit-bus", "godwit-broker", "godwit-agent", "godwit-controller"],
    ),
];

/// Libraries that only these crates may name: everybody else goes through them.
const OWNERS: [(&str, &[&str]); 5] = [
    ("rumqttc", &["godwit-bus"]),
    ("rumqttd", &["godwit-broker"]),
    ("rcgen", &["godwit-trust"]),
    ("bollard", &["godwit-agent"]),
    // The broker's own page of figures is served with or without a controller.
    ("axum", &["godwit-controller", "godwit-broker"]),
];

/// What `proto` must not have: a runtime, a clock, sockets, randomness.
const IMPURE: [&str; 5] = ["tokio", "rand", "getrandom", "jiff", "rusqlite"];

/// Every crate of the workspace with its ordinary dependencies.
fn crates() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let normal = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies").iter();
        all.filter(|dependency| dependency["kind"].is_null()).map(name).collect()
    };
    packages.iter().map(|package| (name(package), normal(package))).collect()
}

#[test]
fn crates_use_each_other_only_along_the_arrows() {
    let crates = crates();
    assert_eq!(crates.len(), ARROWS.len(), "a crate without a row here: {:?}", crates.keys());
    for (name, allowed) in ARROWS {
        let used = crates[name].iter().filter(|dependency| dependency.starts_with("godwit"));
        for dependency in used {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not use {dependency}");
        }
    }
}

#[test]
fn a_foreign_library_has_its_owners() {
    for (name, dependencies) in crates() {
        for (library, owners) in OWNERS {
            let uses = dependencies.iter().any(|dependency| dependency == library);
            let may = owners.contains(&name.as_str());
            assert!(!uses || may, "{name} uses {library}: that is for {owners:?} alone");
        }
    }
}

#[test]
fn the_vocabulary_is_pure() {
    for dependency in &crates()["godwit-proto"] {
        assert!(!IMPURE.contains(&dependency.as_str()), "proto must not use {dependency}");
    }
}
