//! The agent's end of the gate: answers the stand-ins, and holds what they staged.
//!
//! A stand-in names the image directory that podman gave to runc; podman's storage tells
//! whose that is. A restore of one of ours goes on only while somebody
//! [expects](Gate::expect_restore) it, and its processes run only after
//! [`Attended::commit`]. An [`Attended`] that is dropped, a service that ends
//! ([`Gate::refuse_all`]) or an agent that dies refuses.
//!
//! Where the hand-over is armed, dump and restore are held before criu has its request, and
//! [`Attended::go`] lets them begin: what podman and runc do before criu lies outside the gap.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use godwit_proto::id::ContainerId;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::proxy;
use super::socket::{Connection, Listener};
use super::word::{Answer, Kind, Order, Report};
use crate::engine::cgroup::Cgroup;
use crate::engine::{containers, image_dirs};

/// Why a restore did not come to the gate or through it, or a dump not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    /// The proxy, runc or criu ended, or podman's service did.
    #[error("podman, runc or criu ended before its time")]
    Ended,
    /// criu gave up; its log says why.
    #[error("criu gave up")]
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
    expected: BTreeMap<(ContainerId, Kind), Wish>,
    attended: Vec<Weak<Connection>>,
}

/// What is to be done with the next dump or restore of a container.
#[derive(Debug)]
struct Wish {
    /// [`Answer::Attend`], [`Answer::Hold`] or [`Answer::Pretend`].
    answer: Answer,
    sender: oneshot::Sender<Connection>,
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
        let listener = Listener::bind(&dir.join(super::SOCKET))?;
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

    /// Lets the next restore of the container come to the gate; with `hold`, only once it is
    /// told to go.
    pub(crate) fn expect_restore(self: &Arc<Self>, id: ContainerId, hold: bool) -> Expected {
        self.expect((id, Kind::Restore), if hold { Answer::Hold } else { Answer::Attend })
    }

    /// Lets the next dump of the container happen.
    pub(crate) fn attend_dump(self: &Arc<Self>, id: ContainerId) -> Expected {
        self.expect((id, Kind::Dump), Answer::Attend)
    }

    /// Keeps the next dump of the container until it is told to go.
    pub(crate) fn expect_dump(self: &Arc<Self>, id: ContainerId) -> Expected {
        self.expect((id, Kind::Dump), Answer::Hold)
    }

    /// Has the next dump of the container answered with success, and nothing dumped, as long
    /// as what is returned is kept.
    pub(crate) fn pretend_dump(self: &Arc<Self>, id: ContainerId) -> Expected {
        self.expect((id, Kind::Dump), Answer::Pretend)
    }

    fn expect(self: &Arc<Self>, of: (ContainerId, Kind), answer: Answer) -> Expected {
        let (sender, receiver) = oneshot::channel();
        // An older one of the same container finds its sender gone, and refuses.
        self.lock().expected.insert(of, Wish { answer, sender });
        Expected { gate: self.clone(), of, receiver }
    }

    /// Refuses everything that is held or at the gate now.
    pub(crate) fn refuse_all(&self) {
        for attended in std::mem::take(&mut self.lock().attended) {
            if let Some(connection) = attended.upgrade() {
                connection.hang_up();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose the image directory is: ours, a stranger's (`None`), or unknown (an error).
    fn owner(&self, images: &Path) -> Result<Option<ContainerId>, String> {
        if let Some(id) = image_dirs::container_of(images) {
            return Ok(Some(id));
        }
        if images.to_string_lossy().ends_with(" (deleted)") {
            return Err("its directory is gone: nobody waits for it".into());
        }
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
        let id = match owner {
            Ok(Some(id)) => id,
            Ok(None) => return say(&connection, Answer::Pass),
            Err(why) => {
                tracing::warn!(%why, "refusing a dump or restore of unknown owner");
                return say(&connection, Answer::Refuse);
            }
        };
        let wish = self.lock().expected.remove(&(id, kind));
        match wish.filter(|wish| !wish.sender.is_closed()) {
            Some(wish) => {
                say(&connection, wish.answer);
                // A receiver that is gone meanwhile drops the connection: refused.
                let _given_up = wish.sender.send(connection);
            }
            // A dump that nobody waits for any more would dump what runs.
            None => say(&connection, Answer::Refuse),
        }
    }

    /// The next report; `None` at the end.
    async fn hear(&self, connection: &Connection) -> Option<Report> {
        read(&connection.receive().await.ok()?)
    }

    /// Takes a proxy out of the container's control group, which may be frozen or killed.
    fn keep(&self, proxy: i32) {
        if let Err(error) = self.cgroup.admit(proxy) {
            tracing::warn!(pid = proxy, %error, "the proxy stays in its container's control group");
        }
    }
}

fn read(packet: &[u8]) -> Option<Report> {
    std::str::from_utf8(packet).ok()?.parse().ok()
}

fn say(connection: &Connection, answer: Answer) {
    if let Err(error) = connection.send(answer.as_str().as_bytes()) {
        tracing::warn!(%error, "the stand-in for criu left before it was answered");
    }
}

/// A dump or restore that may come; dropped, it may not.
#[derive(Debug)]
pub(crate) struct Expected {
    gate: Arc<Gate>,
    of: (ContainerId, Kind),
    receiver: oneshot::Receiver<Connection>,
}

impl Expected {
    /// Returns once a proxy attends it. Dropped meanwhile, it is refused.
    pub(crate) async fn attended(mut self) -> Result<Attended, GateError> {
        let connection = (&mut self.receiver).await.map_err(|_| GateError::Ended)?;
        let connection = Arc::new(connection);
        {
            let mut state = self.gate.lock();
            state.attended.retain(|attended| attended.strong_count() > 0);
            state.attended.push(Arc::downgrade(&connection));
        }
        let attended = Attended { gate: self.gate.clone(), id: self.of.0, connection };
        match attended.gate.hear(&attended.connection).await {
            Some(Report::Attending { pid }) => {
                attended.gate.keep(pid);
                Ok(attended)
            }
            _ => Err(GateError::Ended),
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        self.receiver.close();
        if state.expected.get(&self.of).is_some_and(|wish| wish.sender.is_closed()) {
            state.expected.remove(&self.of);
        }
    }
}

/// A dump or restore that a proxy attends; dropped, it is refused: a restore's processes are
/// killed, a dump that has not begun never does.
#[derive(Debug)]
pub(crate) struct Attended {
    gate: Arc<Gate>,
    id: ContainerId,
    connection: Arc<Connection>,
}

impl Attended {
    /// Gives criu the request that was held.
    pub(crate) fn go(&self) -> Result<(), GateError> {
        Ok(self.connection.send(&Order::Go.packet())?)
    }

    /// Returns once every process of a restore exists and is stopped.
    pub(crate) async fn staged(&self) -> Result<(), GateError> {
        self.until(|report| *report == Report::Staged).await
    }

    /// Returns once criu has come to the named point of its work.
    pub(crate) async fn reached(&self, point: &str) -> Result<(), GateError> {
        self.until(|report| matches!(report, Report::Notify { script } if script == point)).await
    }

    /// Lets a staged restore run; returns once criu has let go of every process. `caught` is
    /// called when criu has caught each of them on its way back into its own code, and criu
    /// goes on when it returns; on an error of its the copy is killed.
    ///
    /// On an error the kernel's word decides what became of it.
    /// While the file `mark` exists, a copy whose agent has died is killed instead.
    pub(crate) async fn commit<E: From<GateError>>(
        self,
        mark: PathBuf,
        caught: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        self.connection.send(&Order::Commit { mark }.packet()).map_err(GateError::from)?;
        // runc may be gone by then: the proxy stands in for it.
        loop {
            let report = self.next().await?;
            if report == (Report::Notify { script: proxy::CAUGHT.to_owned() }) {
                break;
            }
            if report.is_success()? {
                // A criu that has let them go without a word of it.
                return caught();
            }
        }
        caught()?;
        self.go()?;
        while !self.next().await?.is_success()? {}
        Ok(())
    }

    /// Returns once the proxy is gone, and so whatever it attended has ended.
    pub(crate) async fn ended(&self) {
        while self.gate.hear(&self.connection).await.is_some() {}
    }

    /// Returns once criu says that it has succeeded.
    pub(crate) async fn done(&self) -> Result<(), GateError> {
        self.until(|report| matches!(report, Report::Done { success: true })).await
    }

    /// Waits for a report; that the work failed or somebody ended comes first where it does.
    async fn until(&self, wanted: impl Fn(&Report) -> bool) -> Result<(), GateError> {
        loop {
            let report = self.next().await?;
            if wanted(&report) {
                return Ok(());
            }
            if report.is_success()? || report == Report::RuncGone {
                return Err(GateError::Ended);
            }
        }
    }

    async fn next(&self) -> Result<Report, GateError> {
        let report = self.gate.hear(&self.connection).await.ok_or(GateError::Ended)?;
        tracing::debug!(container = %self.id, %report, "criu");
        Ok(report)
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        // Whoever else looks at the connection must not keep the copy alive.
        self.connection.hang_up();
    }
}

impl Report {
    /// True when criu has succeeded; an error when it has failed or died.
    fn is_success(&self) -> Result<bool, GateError> {
        match self {
            Self::Done { success: false } => Err(GateError::Failed),
            Self::CriuDied => Err(GateError::Ended),
            Self::Done { success: true } => Ok(true),
            _ => Ok(false),
        }
    }
}
