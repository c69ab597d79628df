//! The node agent: runs a node's containers, and moves them to other nodes while they run.
//!
//! ```text
//!             Delivery                Input                Errand
//!  session ─────────────▶ agent ─────────────▶ driver ─────────────▶ hands
//!  (godwit_bus)                     (machine, ledger, one thread)     │ one lane a container
//!                                                        engine, network, streams
//! ```
//!
//! What to do is decided by the pure machine [`godwit_proto::migration::Agent`]; here is what
//! it takes to do it. Reading order:
//!
//! - [`agent`] puts everything together; [`cli`] and [`config`] stand before it.
//! - [`driver`] carries the machine's effects out in order, [`ledger`] remembers.
//! - `hands` turns calls into steps of the [`engine`] (podman), the [`network`] (a namespace and
//!   a veth for each container) and streams.
//! - [`volumes`] are directories that outlive their containers and move with them.
//! - [`criu`] is the stand-in for criu and the gate: a restore that can still be refused.
//! - [`doctor`] says by doing whether a node is fit; [`discovery`] finds the broker;
//!   [`telemetry`] and [`usage`] say how the node is, [`moments`] where a move spent its time;
//!   `serve` answers others.
//!
//! Invariants: a container runs only when the ledger says that it may; the ledger is written
//! before anything is done or said; the kernel's word goes before podman's; an agent that ends
//! leaves its containers running, and what it held at a gate dead.

pub mod agent;
pub mod cli;
pub mod config;
mod conflicts;
pub mod criu;
pub mod devices;
pub mod discovery;
pub mod doctor;
pub mod driver;
pub mod engine;
mod expedite;
mod hands;
mod holders;
pub mod identity;
pub mod join;
pub mod ledger;
mod membership;
pub mod moments;
pub mod network;
mod routes;
mod serve;
pub mod telemetry;
mod underlay;
pub mod usage;
pub mod volumes;
