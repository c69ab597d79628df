//! The real `godwit` binary against a controller that says what each test wants.

mod broker;
mod containers;
mod errors;
mod fake;
mod images;
mod listings;
mod migrate;
mod nodes;
mod objects;
mod output;
