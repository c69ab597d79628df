//! How a running container moves from one node to another, as pure machines.
//!
//! A container moves from a **source** to a **target**; the **controller** is the only
//! decider. Nothing in here knows a socket, a clock or a disk: a machine hears one
//! thing and answers with what is to be done, strictly in order ([`drive`] carries it
//! out). Every message may be lost, doubled, late or out of order, and every party may
//! die between any two effects.
//!
//! ```text
//!    source                     controller                     target
//!      │   ◀── Arm ───────────────  │  ────────────── Prepare ──▶   │
//!      │  all that can be done      │             namespace, image  │
//!      │  while it runs             │                               │
//!      │  ── Active, ready ──────▶  │  ◀───────── Preparing, ready ─│
//!      │   ◀── Freeze ────────────  │                               │
//!  Arming: freeze, cut, dump        │                               │
//!      │ ═══════════ the checkpoint, from node to node ═══════════▶ │ fetch
//!  Frozen ────────────────────────▶ │                    restore to the gate:
//!      │  from here on it never     │ ◀──────────────────────── Staged (the vote)
//!      │  thaws by itself       ╔═══╧════╗      never opens by itself
//!      │                        ║  row:  ║                          │
//!      │                        ║ commit ║ ─────── Open ──────────▶ │
//!      │                        ╚═══╤════╝                       Opening
//!      │                            │ ◀──────────────────────── Active: it runs
//!      │   ◀── Discard ───────────  │                               │
//!    Gone ────────────────────────▶ │ settled                       │
//! ```
//!
//! An abort is the mirror image: `Thaw` to the source, which persists `Thawing`, runs and
//! reports `Active`; only then is the target told to `Discard`.
//!
//! # The laws in short
//! - At most one copy runs. Nobody moves on a timeout: after `Frozen` and `Staged` only
//!   the controller ends the wait.
//! - Persist, then act or tell. Each side persists that it begins before it begins, and
//!   keeps its copy until the other side *runs*. What has begun overrules any row.
//! - A refusal is persisted. `Dead` = never began and never will; `Ran` = began and is
//!   gone; "unknown" is neither.
//! - The first verdict of an epoch stands. It is amended only by a refusal (`returned`,
//!   `salvaged`), by what has begun (`overruled`), or as a recorded loss (`rolled-back`,
//!   `memory-lost`).
//! - A row binds the run that wrote it. A later run checks the row's conditions again on
//!   reports that were made to itself.
//! - The kernel first: after a start and on every tick a node compares its ledger with
//!   what really runs, and every recovery is that one path ([`Agent`]).
//! - A report is believed under the run and the epoch that it names, never beyond: what is
//!   said under an older epoch may be late news.
//!
//! # Reading order
//! 1. `record`: the phases of a container on a node, the durable half of the node's side.
//! 2. `event`: everything that is heard, asked, ordered and reported.
//! 3. `agent` and `copy`, then the roles: `owner` (at rest), `source`, `target`.
//! 4. `row`, then `decider` with its `view`, `rules` and `orders`: one attempt.
//! 5. `claim`: how a controller's run comes to be obeyed. `holding`: containers at rest.
//! 6. [`drive`]: the drivers that node, controller and simulator share.
//!
//! `tests/sim` runs these machines through tens of thousands of stormy histories.

mod agent;
mod claim;
mod copy;
mod decider;
pub mod drive;
mod event;
mod holding;
mod owner;
mod record;
mod row;
mod source;
mod target;
#[cfg(test)]
mod tests;
pub mod timing;

pub use agent::Agent;
pub use claim::*;
pub use decider::*;
pub use event::*;
pub use holding::*;
pub use record::*;
pub use row::*;
