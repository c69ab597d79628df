//! The engine against real podman, runc and CRIU, on one lab host.
//!
//! ```text
//! cargo test -p godwit-agent --test engine --no-run
//! scripts/lab enter edge-a /work/main/target/debug/deps/engine-… --test-threads=1
//! ```
//!
//! One host plays both ends: a container is dumped, destroyed, and staged again.

mod host;
mod kills;
mod life;
mod moves;
