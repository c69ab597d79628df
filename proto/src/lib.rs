//! placeholder
pub mod container;
pub mod id;
pub mod stream;
pub mod topic;
pub mod migration;
pub mod wire;
