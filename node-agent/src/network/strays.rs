//! Frames for a container that was cut off here and is announced nowhere yet: kept, and sent after
//! it.
//!
//! ```text
//!   source: freeze ── cut ─────────────────── the announcement is heard
//!                      │ strays: seen at the bridge ──▶ sent into it, for it leads to the target
//!   target:            │                first byte: guard, hold, attach, announce ──▶ held
//! ```
//!
//! Between the cut and the target's claim no bridge knows that hardware address, and what comes for
//! it is lost. Data is sent again; a reset never is, and an acknowledgement only when the restored
//! socket asks for it, a second after the gap. A move that is called off announces the container
//! here, which is heard as well: the bridge leads into the container then.

use std::sync::{Arc, Mutex, PoisonError};

use godwit_proto::container::Interface;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use super::NetworkError;
use super::announce::announcements;
use super::hold::{Bridge, Line, announced_by};
use super::packet::{PacketSocket, Receive};

/// Longer than any announcement.
const HEARD_BYTES: usize = 128;

/// What comes for a container from its cut until it announces itself, here or elsewhere.
///
/// Dropped, it just ends: what was kept is lost.
#[derive(Debug)]
#[must_use = "what is kept is lost with it"]
pub struct Strays {
    lines: Vec<Arc<Stray>>,
    /// One for each line, which sends what it kept after the announcement.
    _followers: JoinSet<()>,
}

/// What is kept of one interface, until it was sent.
#[derive(Debug)]
struct Stray {
    line: Mutex<Option<Line>>,
    mac: [u8; 6],
}

impl Strays {
    /// Opens what [`Strays::begin`] needs, for interfaces at those bridges; deaf until then.
    pub(super) fn open(
        interfaces: &[Interface],
        ends: Vec<(String, Bridge)>,
        room: usize,
    ) -> Result<Self, NetworkError> {
        let (mut lines, mut followers) = (Vec::new(), JoinSet::new());
        for (interface, (host_end, bridge)) in interfaces.iter().zip(ends) {
            let ear = ear(interface.mac, bridge).map_err(|source| NetworkError::Io {
                what: format!("listening for who announces {host_end}"),
                source,
            })?;
            let line = Line::before_the_cut(host_end, bridge, room / interfaces.len())?;
            let stray = Arc::new(Stray { line: Mutex::new(Some(line)), mac: interface.mac });
            lines.push(stray.clone());
            let wanted = announcements(interface);
            followers.spawn(async move {
                match heard(&ear, &wanted).await {
                    Ok(()) => stray.send_after(),
                    Err(error) => tracing::warn!(%error, "nobody listens for the announcement"),
                }
            });
        }
        Ok(Self { lines, _followers: followers })
    }

    /// Keeps from now on what comes. To be called between the freeze and the cut: what comes between
    /// this and the cut reaches the container twice, as any network may let it.
    ///
    /// Errors: `Io`.
    pub fn begin(&self) -> Result<(), NetworkError> {
        self.lines.iter().try_for_each(|stray| {
            let line = stray.line.lock().unwrap_or_else(PoisonError::into_inner);
            line.as_ref().map_or(Ok(()), |line| line.keep(stray.mac))
        })
    }

    /// Sends what is left into the bridges, wherever they lead: nobody was heard.
    pub fn send_after(self) {
        self.lines.iter().for_each(|stray| stray.send_after());
    }
}

impl Stray {
    fn send_after(&self) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner).take();
        match line.map(|line| line.send_back()) {
            Some(Ok(released)) if released != Default::default() => {
                tracing::info!(?released, "what came for it after the cut is sent after it");
            }
            Some(Err(error)) => tracing::warn!(%error, "what came after the cut is lost"),
            _ => {}
        }
    }
}

/// A socket that hears what that hardware address says to everyone at the bridge.
fn ear(mac: [u8; 6], bridge: Bridge) -> std::io::Result<AsyncFd<PacketSocket>> {
    let socket = PacketSocket::open()?;
    socket.filter(&announced_by(mac))?;
    socket.bind(bridge.index, Receive::Filtered)?;
    socket.awaited()
}

/// Returns once one of those frames was heard.
async fn heard(ear: &AsyncFd<PacketSocket>, wanted: &[Vec<u8>]) -> std::io::Result<()> {
    let mut frame = [0; HEARD_BYTES];
    loop {
        let mut ready = ear.readable().await?;
        match ear.get_ref().receive(&mut frame)? {
            None => ready.clear_ready(),
            Some(length) if wanted.iter().any(|known| frame.get(..length) == Some(known)) => {
                return Ok(());
            }
            Some(_) => {}
        }
    }
}
