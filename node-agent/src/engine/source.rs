//! The source's end of a hand-over: freeze in place, dump, thaw.
//!
//! CRIU thaws the control group while it dumps and holds the tasks by ptrace; it freezes
//! the group again before it lets go of them. So the group is looked at once more after the
//! dump: if it were thawed then, the container would have run on and the image be stale.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bollard::query_parameters::LogsOptions;
use futures_util::TryStreamExt;
use godwit_proto::container::{ContainerSpec, Execution, Mode};

use super::containers::Stored;
use super::late::Image;
use super::podman::Podman;
use super::source_armed::failed;
use super::{EngineError, cold, dumper, mounts, removal, unmovable};

/// How long the kernel may take to freeze or thaw every task.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a container that moves cold may take to stop by itself.
const GRACE_SECONDS: u32 = 10;
/// The grace that podman adds before it gives up on a kill.
const KILL_SECONDS: u64 = 30;

impl Podman {
    pub(super) async fn freeze_source(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
    ) -> Result<(), EngineError> {
        if mode == Mode::Cold {
            return self.halt(spec, GRACE_SECONDS).await;
        }
        let stored = self.must_find(spec, "freezing")?;
        match self.execution(&stored)? {
            Execution::Running | Execution::Frozen => {
                if mode == Mode::Plain {
                    self.refuse_what_criu_leaves_out(spec, &stored).await?;
                }
                self.mark_frozen(&stored)?;
                self.cgroup(&stored).settle(true, SETTLE).await
            }
            Execution::Absent => Err(wrong(spec, "freezing", "no process of it exists")),
            Execution::Gated => Err(wrong(spec, "freezing", "it waits at the gate on this node")),
        }
    }

    pub(super) async fn dump_source(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        file: &Path,
    ) -> Result<(), EngineError> {
        let stored = self.must_find(spec, "checkpointing")?;
        if mode == Mode::Cold {
            return cold::dump(&stored, &self.graphroot, file).await;
        }
        if self.execution(&stored)? != Execution::Frozen {
            return Err(wrong(spec, "checkpointing", "it is not frozen"));
        }
        self.refuse_what_podman_leaves_out(spec, &stored)?;
        self.clear_dump(&stored)?;
        let what = || format!("checkpointing container {}", spec.name);
        let path = format!(
            "containers/{}/checkpoint?export=true&leaveRunning=true&tcpEstablished=true&fileLocks=true",
            spec.engine_name()
        );
        let expected = self.gate.attend_dump(spec.id);
        let attending = async {
            if let Ok(attended) = expected.attended().await {
                attended.ended().await;
            }
        };
        let mut answer = std::pin::pin!(self.libpod.fetch(hyper::Method::POST, &path, file));
        let answer = tokio::select! {
            answer = &mut answer => answer,
            () = attending => answer.await,
        }?;
        let log = self.userdata(&stored).join("dump.log");
        answer.map_err(|refusal| EngineError::Refused {
            what: what(),
            message: with_cause(refusal.message, &log),
        })?;
        // Freezing it again now would hide that the image is older than the container.
        if self.execution(&stored)? != Execution::Frozen {
            return Err(wrong(
                spec,
                "checkpointing",
                "it did not stay frozen, the checkpoint is stale",
            ));
        }
        self.clear_dump(&stored)
    }

    /// An armed source was looked at before it was armed.
    async fn refuse_what_criu_leaves_out(
        &self,
        spec: &ContainerSpec,
        stored: &Stored,
    ) -> Result<(), EngineError> {
        let cgroup = self.cgroup(stored);
        let found = self.threads.run(spec.id, "looking at the container's processes", move || {
            Ok(unmovable::find(&cgroup.processes()?))
        });
        found.await?.map_or(Ok(()), |why| Err(wrong(spec, "freezing", &why)))
    }

    /// A checkpoint of podman's without some of the container's files is none.
    fn refuse_what_podman_leaves_out(
        &self,
        spec: &ContainerSpec,
        stored: &Stored,
    ) -> Result<(), EngineError> {
        let (layer, upper) = (stored.layer_dir(&self.graphroot), self.upper(stored));
        let left_out = Image::below(&layer).and_then(|image| image.left_out(&upper));
        match &left_out.map_err(failed("reading", &upper))?[..] {
            [] => Ok(()),
            [first, rest @ ..] => {
                let (first, more) = (first.display(), rest.len());
                let why = format!(
                    "podman loses what it changed of its image (/{first} and {more} more); only an armed or a cold move takes it along"
                );
                Err(wrong(spec, "checkpointing", &why))
            }
        }
    }

    pub(super) async fn thaw_source(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
    ) -> Result<(), EngineError> {
        if mode == Mode::Cold {
            return super::Engine::start(self, spec).await;
        }
        self.threads.rest(spec.id).await;
        self.disarm_source(spec.id, spec.name.as_str()).await?;
        let stored = self.must_find(spec, "thawing")?;
        // Of a service that died: it would freeze what is thawed now.
        dumper::ended(&self.cgroup(&stored)).await?;
        match self.execution(&stored)? {
            Execution::Running | Execution::Frozen => {
                self.unmark_frozen(&stored.podman_id)?;
                self.cgroup(&stored).settle(false, SETTLE).await?;
                self.clear_dump(&stored)
            }
            Execution::Absent => {
                self.unmark_frozen(&stored.podman_id)?;
                Err(wrong(spec, "thawing", "its processes are gone"))
            }
            Execution::Gated => Err(wrong(spec, "thawing", "it waits at the gate on this node")),
        }
    }

    /// Removes what podman and CRIU leave of a checkpoint beside the container.
    pub(super) fn clear_dump(&self, stored: &Stored) -> Result<(), EngineError> {
        let userdata = self.userdata(stored);
        mounts::detach(&userdata, mounts::is_crius)?;
        mounts::remove_dir(&userdata.join("checkpoint"))?;
        for name in ["dump.log", "stats-dump"] {
            removal::remove_file(&userdata.join(name))?;
        }
        Ok(())
    }

    /// Stops the container, by force after the grace; stopped already is success.
    pub(super) async fn halt(
        &self,
        spec: &ContainerSpec,
        grace_seconds: u32,
    ) -> Result<(), EngineError> {
        let Some(stored) = self.find(spec.id)? else { return Ok(()) };
        match self.execution(&stored)? {
            Execution::Absent => return Ok(()),
            Execution::Frozen => {
                return Err(wrong(spec, "stopping", "it is frozen for a migration"));
            }
            Execution::Gated => return Err(wrong(spec, "stopping", "it waits at the gate")),
            Execution::Running => {}
        }
        // Not through bollard, whose patience with an answer may be shorter than the grace.
        let path = format!("containers/{}/stop?timeout={grace_seconds}", spec.engine_name());
        let seconds = u64::from(grace_seconds) + KILL_SECONDS;
        let what = format!("stopping container {}", spec.name);
        let stop = self.libpod.call(hyper::Method::POST, &path);
        match tokio::time::timeout(Duration::from_secs(seconds), stop).await {
            Err(_) => Err(EngineError::Deadline { what, seconds }),
            Ok(answer) => answer?.map(drop).map_err(|refusal| refusal.into_error(what)),
        }
    }

    pub(super) async fn read_logs(
        &self,
        spec: &ContainerSpec,
        tail: Option<u32>,
    ) -> Result<Vec<u8>, EngineError> {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            tail: tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
            ..Default::default()
        };
        let stream = self.docker.logs(&spec.engine_name(), Some(options));
        let lines = stream.try_fold(Vec::new(), |mut all, line| async move {
            all.extend(line.into_bytes());
            Ok(all)
        });
        let mut all = lines
            .await
            .map_err(|error| self.refused(&format!("reading the log of {}", spec.name), error))?;
        if all.last().is_some_and(|last| *last != b'\n') {
            all.push(b'\n');
        }
        Ok(all)
    }
}

/// The container is not in the state that the step needs.
pub(super) fn wrong(spec: &ContainerSpec, step: &str, state: &str) -> EngineError {
    EngineError::Refused {
        what: format!("{step} container {}", spec.name),
        message: state.to_owned(),
    }
}

/// podman's words, or better those of CRIU's own log, where the cause stands.
pub(super) fn with_cause(message: String, log: &Path) -> String {
    let text =
        fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    match causes(&text) {
        causes if causes.is_empty() => message,
        // A person needs no more than that; the rest is for whoever looks further.
        causes if let Some(meant) = causes.iter().find_map(|cause| unmovable::meant(cause)) => {
            format!("{meant} (CRIU: {})", causes[0])
        }
        // What runc says then is that criu failed.
        causes if message.contains("criu failed") => format!("CRIU: {}", causes.join("; ")),
        causes => format!("{message}; CRIU: {}", causes.join("; ")),
    }
}

/// What CRIU says after its cause, or always.
const ASIDE: [&str; 4] =
    ["rlimit: Can't setup", "cg: cgroupd: recv req", "Restoring FAILED", "Dumping FAILED"];

/// The first errors in a log of CRIU's, without times and places: later ones follow from them.
fn causes(log: &str) -> Vec<&str> {
    let errors = log.lines().filter_map(|line| line.split_once("Error (")?.1.split_once("): "));
    let said = errors.map(|(_place, said)| said.trim());
    said.filter(|said| !ASIDE.iter().any(|aside| said.contains(aside))).take(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_taken_from_crius_log() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = dir.path().join("dump.log");
        assert_eq!(with_cause("no".into(), &log), "no");
        let text = "(1) Dumping\n(2) Error (u.c:1): rlimit: Can't setup RLIMIT_NOFILE\n\
                    (3) Error (sk.c:1): no 1:16\n(4) Error (cr.c:2): Dumping FAILED.\n";
        fs::write(&log, text).expect("write");
        assert_eq!(with_cause("no".into(), &log), "no; CRIU: no 1:16");
        fs::write(&log, "(1) Error (p.c:1): The packetized mode is not\n").expect("write");
        let meant = with_cause("no".into(), &log);
        assert_eq!(
            meant,
            "it has a pipe in packet mode (O_DIRECT) (CRIU: The packetized mode is not)"
        );
        fs::write(&log, text).expect("write");
        let runc = "runc: criu failed: type NOTIFY errno 0\nlog file: x";
        assert_eq!(with_cause(runc.into(), &log), "CRIU: no 1:16");
    }
}
