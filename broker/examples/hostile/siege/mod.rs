//! A broker besieged: sequences of packets from many connections at once, and two bystanders whose
//! messages are numbered.
//!
//! Reading order: `words` (the grammar), `mutate`, `script` (one sequence), `line` (one connection),
//! `attack` (all of them), `bystander`; `subject` is a broker of our own to do it to.

pub(crate) mod attack;
pub(crate) mod bystander;
pub(crate) mod line;
mod mutate;
mod script;
pub(crate) mod subject;
pub(crate) mod wire;
pub(crate) mod words;
