//! placeholder
pub mod api;
pub mod commands;
pub mod config;
pub mod core;
pub mod decisions;
pub mod discovery;
pub mod event;
pub mod images;
pub mod latest;
pub mod placement;
pub mod publish;
pub mod refusal;
pub mod registry;
pub mod service;
pub mod store;
pub mod view;
