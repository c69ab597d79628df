//! What the test programs share: the lab, and a whole fabric in it.
//!
//! The tiers are test targets: `sim` (the choreography in a simulated world, no root)
//! and `live` (real podman, CRIU and MQTT in the lab, root). The lab itself is
//! `scripts/lab`; [`Lab`] only calls it.

mod dial;
mod fabric;
mod lab;
mod observer;
mod talker;
mod wait;

pub use dial::{Dial, Dialled};
pub use fabric::{Fabric, Program};
pub use lab::{Lab, Said, program};
pub use observer::{Observer, Ticks};
pub use talker::{Heard, Talked, Talker};
pub use wait::{eventually, eventually_within};
