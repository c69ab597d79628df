//! placeholder

pub mod criu;
pub mod engine;
pub mod network;
