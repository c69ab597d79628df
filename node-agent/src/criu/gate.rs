//! The agent's end of the gate: answers the stand-ins, and holds what they staged.
//!
//! A stand-in names the image directory that podman gave to runc; podman's storage tells
//! whose that is. A restore of one of ours goes on only while somebody [`Gate::expect`]s
//! it, and its processes run only after [`Held::commit`]. A [`Held`] that is dropped, a
//! service that ends ([`Gate::refuse_all`]) or an agent that dies refuses.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use godwit_proto::id::ContainerId;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::socket::{Connection, Listener};
use super::word::{Answer, Kind, Order, Report};
use crate::engine::cgroup::Cgroup;
use crate::engine::containers;

/// Why a restore did not come to the gate, or through it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    /// The proxy or criu ended, or podman's service did.
    #[error("the restore ended before it was through the gate")]
    Ended,
    /// criu gave up; its log says why.
    #[error("criu could not restore it")]
    Failed,
    /// The proxy could not be told.
    #[error("the proxy cannot be reached")]
    Unreachable(#[from] io::Error),
}

/// All restores and dumps that go through the agent's podman.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// The service's control group: proxies are moved there, out of the container's.
    cgroup: Cgroup,
    graphroot: OnceLock<PathBuf>,
}

#[derive(Debug, Default)]
struct State {
    expected: BTreeMap<ContainerId, oneshot::Sender<Connection>>,
    held: Vec<Weak<Connection>>,
}

/// Listens for the stand-ins of one service; dropped, none is heard any more.
#[derive(Debug)]
pub(crate) struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Gate {
    /// A gate whose proxies are kept in `cgroup`.
    pub(crate) fn new(cgroup: Cgroup) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), cgroup, graphroot: OnceLock::new() })
    }

    /// Tells where podman's storage is, which it is asked for only once it runs.
    pub(crate) fn set_graphroot(&self, graphroot: PathBuf) {
        let _set_already = self.graphroot.set(graphroot);
    }

    /// Listens at `ctl` in the stand-ins' directory. Must be called inside a runtime.
    pub(crate) fn listen(self: &Arc<Self>, dir: &Path) -> io::Result<Listening> {
        let listener = Listener::bind(&dir.join("ctl"))?;
        let gate = self.clone();
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok(connection) => drop(tokio::spawn(gate.clone().greet(connection))),
                    Err(error) => {
                        tracing::error!(%error, "cannot hear the stand-in for criu");
                        return;
                    }
                }
            }
        });
        Ok(Listening(task.abort_handle()))
    }

    /// Lets the next restore of the container come to the gate.
    pub(crate) fn expect(self: &Arc<Self>, id: ContainerId) -> Expected {
        let (sender, receiver) = oneshot::channel();
        // An older one of the same container finds its sender gone, and refuses.
        self.lock().expected.insert(id, sender);
        Expected { gate: self.clone(), id, receiver }
    }

    /// Refuses everything that is at the gate now.
    pub(crate) fn refuse_all(&self) {
        for held in std::mem::take(&mut self.lock().held) {
            if let Some(connection) = held.upgrade() {
                connection.hang_up();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose the image directory is: ours, a stranger's (`None`), or unknown (an error).
    fn owner(&self, images: &Path) -> Result<Option<ContainerId>, String> {
        let graphroot = self.graphroot.get().ok_or("podman's storage is not known yet")?;
        let text = images.to_string_lossy();
        let known = containers::list(graphroot).map_err(|error| error.to_string())?;
        Ok(known
            .into_iter()
            .find(|stored| text.contains(&stored.podman_id))
            .map(|stored| stored.id))
    }

    async fn greet(self: Arc<Self>, connection: Connection) {
        let hello = connection.receive().await.unwrap_or_default();
        let Some(Report::Hello { kind, pid, images }) = read(&hello) else { return };
        let owner = self.owner(&images);
        tracing::debug!(?kind, pid, images = %images.display(), ?owner, "asked by the stand-in for criu");
        let answer = |answer: Answer| connection.send(answer.as_str().as_bytes());
        let sent = match (kind, owner) {
            (_, Ok(None)) => answer(Answer::Pass),
            (Kind::Dump, Ok(Some(id))) => {
                let sent = answer(Answer::Attend);
                self.watch_dump(id, &connection).await;
                sent
            }
            (Kind::Restore, Ok(Some(id))) => {
                let expected = self.lock().expected.remove(&id);
                match expected {
                    Some(sender) if !sender.is_closed() => {
                        let sent = answer(Answer::Attend);
                        // A receiver that is gone meanwhile drops the connection: refused.
                        let _given_up = sender.send(connection);
                        sent
                    }
                    _ => answer(Answer::Refuse),
                }
            }
            (_, Err(why)) => {
                tracing::warn!(%why, "refusing a dump or restore of unknown owner");
                answer(Answer::Refuse)
            }
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "the stand-in for criu left before it was answered");
        }
    }

    /// Follows a dump to its end, for the log.
    async fn watch_dump(&self, id: ContainerId, connection: &Connection) {
        while let Some(report) = self.next(connection).await {
            tracing::debug!(container = %id, %report, "dump");
        }
    }

    /// The next report but the proxy's first, on which it is moved; `None` at the end.
    async fn next(&self, connection: &Connection) -> Option<Report> {
        loop {
            match read(&connection.receive().await.ok()?)? {
                Report::Attending { pid } => {
                    if let Err(error) = self.cgroup.admit(pid) {
                        tracing::warn!(pid, %error, "the proxy stays in its container's control group");
                    }
                }
                report => return Some(report),
            }
        }
    }
}

fn read(packet: &[u8]) -> Option<Report> {
    std::str::from_utf8(packet).ok()?.parse().ok()
}

/// A restore that may come to the gate; dropped, it may not.
#[derive(Debug)]
pub(crate) struct Expected {
    gate: Arc<Gate>,
    id: ContainerId,
    receiver: oneshot::Receiver<Connection>,
}

impl Expected {
    /// Returns once every process exists and is stopped. Dropped meanwhile, the restore is refused.
    pub(crate) async fn staged(mut self) -> Result<Held, GateError> {
        let connection = (&mut self.receiver).await.map_err(|_| GateError::Ended)?;
        let connection = Arc::new(connection);
        {
            let mut state = self.gate.lock();
            state.held.retain(|held| held.strong_count() > 0);
            state.held.push(Arc::downgrade(&connection));
        }
        let held = Held { gate: self.gate.clone(), id: self.id, connection };
        loop {
            match held.next().await? {
                Report::Staged => return Ok(held),
                Report::Done { .. } => return Err(GateError::Failed),
                Report::CriuDied | Report::RuncGone => return Err(GateError::Ended),
                Report::Hello { .. } | Report::Attending { .. } | Report::Notify { .. } => {}
            }
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        self.receiver.close();
        if state.expected.get(&self.id).is_some_and(oneshot::Sender::is_closed) {
            state.expected.remove(&self.id);
        }
    }
}

/// A container at the gate; dropped, its processes are killed.
#[derive(Debug)]
pub(crate) struct Held {
    gate: Arc<Gate>,
    id: ContainerId,
    connection: Arc<Connection>,
}

impl Held {
    /// Lets it run; returns once criu has let go of every process.
    ///
    /// On an error the kernel's word decides what became of it.
    pub(crate) async fn commit(self) -> Result<(), GateError> {
        self.connection.send(Order::Commit.as_str().as_bytes())?;
        loop {
            match self.next().await? {
                Report::Done { success: true } => return Ok(()),
                Report::Done { success: false } => return Err(GateError::Failed),
                Report::CriuDied => return Err(GateError::Ended),
                _ => {}
            }
        }
    }

    async fn next(&self) -> Result<Report, GateError> {
        let report = self.gate.next(&self.connection).await.ok_or(GateError::Ended)?;
        tracing::debug!(container = %self.id, %report, "restore");
        Ok(report)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Whoever else looks at the connection must not keep the copy alive.
        self.connection.hang_up();
    }
}
