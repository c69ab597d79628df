//! placeholder
pub mod refusal;
pub mod store;
