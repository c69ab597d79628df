//! The controller of a Godwit fabric: who is there, what shall run where, who decides.
//!
//! ```text
//!        REST ─▶ api ──┐                                ┌── publish ─▶ state topics
//!                      ├─▶ service ─▶ decisions ─▶ event ┼── api::events ─▶ watchers
//!  MQTT ─▶ commands ───┘      │   │        ▲             └── commands ─▶ replies
//!                             │   └─ placement (pure)   │
//!                registry ◀───┘            └── store ◀──┘
//! ```
//!
//! Reading order:
//! - [`app`] puts everything together; [`config`] says with what.
//! - [`store`] is all that survives: containers, moves, verdicts, nodes, images, requests.
//! - [`decisions`] is the only decider, on a thread of its own; the seam to it is [`core`].
//! - [`registry`] knows the nodes, [`discovery`] finds them and lets itself be found.
//! - [`placement`] says where a container may go, before anything is touched.
//! - [`service`] is what clients can ask for; [`api`] (REST) and [`commands`] (MQTT) are
//!   its two doors. What is refused is a [`refusal`], what changes an [`event`], what is
//!   shown a [`view`].
//! - [`images`] keeps archives and [`supply`] hands them to nodes; [`publish`] keeps the
//!   state topics.

pub mod accounts;
pub mod api;
pub mod app;
#[cfg(test)]
mod bench;
pub mod commands;
pub mod config;
pub mod core;
pub mod decisions;
pub mod discovery;
pub mod event;
pub mod images;
pub mod latest;
pub mod overlays;
pub mod placement;
pub mod publish;
pub mod refusal;
pub mod registry;
pub mod service;
pub mod store;
pub mod supply;
pub mod timeline;
pub mod view;
