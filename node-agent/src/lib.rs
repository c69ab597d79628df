//! placeholder

pub mod agent;
pub mod cli;
pub mod config;
pub mod criu;
pub mod discovery;
pub mod doctor;
pub mod driver;
pub mod engine;
mod hands;
pub mod ledger;
pub mod network;
mod serve;
pub mod telemetry;
