//! The stand-in named `criu`, and the gate that it keeps.
//!
//! runc starts `criu swrk 3` and speaks CRIU's protobuf RPC over descriptor 3. The agent's
//! podman finds the agent's own binary under that name first ([`shim`]). It asks the agent
//! (`gate`) by a socket beside it, in the words of `word`. Where the agent attends, the
//! process that runc knows becomes the real criu, and an orphan, the proxy, carries the
//! messages between the two (`message`) by the rules of `proxy`:
//!
//! ```text
//!   runc ──── CriuReq ────► proxy ────────► criu        (the pid that runc started)
//!        ◄─── CriuResp ────   │   ◄────────
//!                             │ words
//!                           agent
//! ```
//!
//! The answer to `post-restore` is the gate: until the agent says `commit`, every process
//! of the container exists and is stopped. Whoever of the five dies, the copy dies with it.
//!
//! Beside it stands one named `tar` ([`tar`]): CRIU runs it in the gap.

/// The name that the proxy gives itself.
pub(crate) const PROXY: &std::ffi::CStr = c"criu-gate";

/// The agent's socket, beside the stand-in.
pub(crate) const SOCKET: &str = "ctl";

/// The files of the container that its processes watch, each ended by a NUL: below the images of a dump.
pub(crate) const WATCHED: &str = "work/watched";

pub(crate) mod gate;
mod message;
mod proxy;
pub mod shim;
mod socket;
pub mod tar;
pub(crate) mod timers;
mod word;
