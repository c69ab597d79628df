//! placeholder
pub mod command;
pub mod container;
pub mod frame;
pub mod id;
pub mod node;
pub mod stream;
pub mod topic;
pub mod migration;
pub mod wire;
