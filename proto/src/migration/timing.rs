//! The choreography's clock. Nothing here is needed for safety: nobody moves on a timeout.

use std::time::Duration;

/// How often an agent with a move in hand looks at the kernel and repeats its report.
pub const TICK_MOVING: Duration = Duration::from_millis(250);
/// How often an agent with nothing in hand looks at the kernel.
pub const TICK_IDLE: Duration = Duration::from_secs(2);
/// How often the controller repeats the orders of a move that did not end.
pub const REPEAT: Duration = Duration::from_millis(400);
/// How old a vote may be when it is committed on. Spares detours by `returned`; safety does not rest on it.
pub const VOTE_FRESH: Duration = Duration::from_secs(1);
/// How long a move may last before the controller calls it off: from its opening, or from the last
/// that came of what goes ahead of the freeze (images, volumes), however much that is.
pub const DEADLINE: Duration = Duration::from_secs(600);
