//! placeholder
mod agent; mod claim; mod copy; mod decider; pub mod drive; mod event; mod holding; mod owner; mod record; mod row; mod source; mod target; pub mod timing;
pub use agent::Agent; pub use claim::*; pub use decider::*; pub use event::*; pub use holding::*; pub use record::*; pub use row::*;
