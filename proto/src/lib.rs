//! placeholder
pub mod container;
pub mod id;
