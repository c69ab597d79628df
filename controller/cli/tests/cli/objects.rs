//! Objects as the controller sends them.

use serde_json::{Value, json};

pub(crate) const COUNTER: &str = "8f3c0000-0000-4000-8000-000000000001";

pub(crate) fn container(state: &str, intent: &str) -> Value {
    json!({
        "id": COUNTER, "name": "counter", "tenant": "default",
        "image": "abcdef0123456789", "image_name": "localhost/counter:latest",
        "node": "edge-a", "state": state, "intent": intent, "migration": null,
        "ip": "10.77.1.2", "epoch": "1.1",
        "interfaces": [{
            "mac": "02:67:0a:4d:01:02", "addresses": ["10.77.1.2/16"], "gateways": [],
        }],
        "exit_code": null, "error": null, "args": [], "env": {}, "labels": {"tier": "demo"},
        "limits": {"memory_bytes": null, "nano_cpus": null},
        "created": "2026-11-22T18:20:00Z", "since": "2026-11-22T18:20:00Z",
    })
}

pub(crate) fn migration(phase: &str, percent: f64) -> Value {
    json!({
        "id": "m-0007-3", "container": "counter", "container_id": COUNTER, "tenant": "default",
        "epoch": "7.3", "source": "edge-a", "target": "edge-b", "mode": "live", "bwlimit": null,
        "phase": phase, "settled": false, "outcome": null, "reason": null, "remedy": null,
        "percent": percent, "bytes": 28_311_552, "bytes_total": 68_157_440,
        "wire_bytes": 14_155_776, "rate_bytes_per_s": 118_000_000, "eta_ms": 340,
        "gap_ms": null, "predicted": {"bytes": 68_157_440, "total_ms": 1900, "gap_ms": 900},
        "phases": [{"phase": "preparing", "started": "2026-11-22T18:20:00Z", "ms": 210}],
        "started": "2026-11-22T18:20:00Z", "ended": null,
    })
}

pub(crate) fn settled(outcome: &str) -> Value {
    with(
        migration("done", 100.0),
        json!({
            "settled": true, "outcome": outcome, "bytes": 68_157_440, "wire_bytes": 34_078_720,
            "gap_ms": 912, "ended": "2026-11-22T18:20:01.9Z",
            "phases": [
                {"phase": "preparing", "started": "2026-11-22T18:20:00Z", "ms": 210},
                {"phase": "freezing", "started": "2026-11-22T18:20:00.21Z", "ms": 140},
                {"phase": "transferring", "started": "2026-11-22T18:20:00.35Z", "ms": 1400},
            ],
        }),
    )
}

/// `object` with some fields replaced.
pub(crate) fn with(mut object: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().expect("fields") {
        object[name] = value.clone();
    }
    object
}
