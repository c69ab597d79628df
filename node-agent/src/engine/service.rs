//! podman's service, owned by the agent: it begins and ends with it.
//!
//! A thread starts `podman system service` on a private socket and starts it again when
//! it dies. What must never happen is that a child of an earlier service (runc, criu)
//! goes on working into a new one's calls, so:
//!
//! - the service and its children sit in a control group of their own, which is killed
//!   and empty before a service starts, whatever life of the agent filled it;
//! - the service is killed by the kernel when the agent dies (`PDEATHSIG`);
//! - every service has its own directory with the stand-in named `criu`, and a socket there;
//!   those of earlier services stay, without one: a runc that outlived its service runs the
//!   stand-in, which refuses, and not the real criu behind it in the path.
//!
//! Running containers outlive the agent; [`super::leftovers`] saves their monitors.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::EngineError;
use super::cgroup::Hierarchy;
use super::confine;
use super::layout::EngineConfig;
use super::leftovers::Leftovers;
use crate::criu::SOCKET;
use crate::criu::gate::Gate;

/// How long a service may take until its socket answers.
const START: Duration = Duration::from_secs(20);
/// Pauses between starts that fail grow from here …
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// … to here.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// So many earlier services' stand-ins are kept: no runc is left by one before those.
const RETIRED: usize = 16;

/// A running `podman system service`; dropped, it dies with everything that it started.
pub(crate) struct Service {
    state: watch::Receiver<State>,
    socket: PathBuf,
    stop: Arc<Stop>,
    keeper: Option<thread::JoinHandle<()>>,
}

/// What the keeper is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What an earlier service left is being ended: a dump of it may take long.
    Clearing,
    Starting,
    Up,
}

/// How the keeper is told to end.
#[derive(Default)]
struct Stop {
    asked: AtomicBool,
    /// The service's pid, 0 when none runs.
    pid: AtomicU32,
    /// Held while the pid is used or reaped, so that no stranger's pid is killed.
    reaping: std::sync::Mutex<()>,
}

/// What the keeper needs, on its own thread.
struct Keeper {
    config: EngineConfig,
    leftovers: Leftovers,
    gate: Arc<Gate>,
    runtime: tokio::runtime::Handle,
    state: watch::Sender<State>,
    stop: Arc<Stop>,
    /// How long a service may take until its socket answers.
    patience: Duration,
}

impl Service {
    /// Clears what earlier services left, starts one, and returns once it answers.
    pub(crate) async fn start(
        config: EngineConfig,
        hierarchy: &Hierarchy,
        gate: Arc<Gate>,
    ) -> Result<Self, EngineError> {
        write_containers_conf(&config, hierarchy).map_err(|source| EngineError::Io {
            what: format!("writing {}", config.rundir.display()),
            source,
        })?;
        let (state, receiver) = watch::channel(State::Clearing);
        let stop = Arc::new(Stop::default());
        let socket = config.socket();
        let keeper = Keeper {
            leftovers: Leftovers {
                group: hierarchy.group(&config.cgroup),
                hierarchy: hierarchy.clone(),
                gates: config.gates(),
                frozen: config.frozen(),
            },
            config,
            gate,
            runtime: tokio::runtime::Handle::current(),
            state,
            stop: stop.clone(),
            patience: START,
        };
        let keeper = thread::Builder::new()
            .name("podman-service".into())
            .spawn(move || keeper.run())
            .map_err(|source| EngineError::Io {
                what: "starting the service's thread".into(),
                source,
            })?;
        let service = Self { state: receiver, socket, stop, keeper: Some(keeper) };
        service.ready().await?;
        Ok(service)
    }

    /// Returns once the service answers; `Unreachable` when it does not within 20 s after what an
    /// earlier one left has ended. Cancel safe.
    pub(crate) async fn ready(&self) -> Result<(), EngineError> {
        let mut state = self.state.clone();
        let mut patience = START;
        loop {
            // Where the keeper has ended the next wait says so.
            drop(state.wait_for(|state| *state != State::Clearing).await);
            let begun = Instant::now();
            let not_starting = state.wait_for(|state| *state != State::Starting);
            match tokio::time::timeout(patience, not_starting).await {
                Ok(Ok(state)) if *state == State::Up => return Ok(()),
                Ok(Ok(_)) => patience = patience.saturating_sub(begun.elapsed()),
                _ => {
                    return Err(EngineError::Unreachable {
                        socket: self.socket.display().to_string(),
                        source: io::ErrorKind::TimedOut.into(),
                    });
                }
            }
        }
    }

    /// The service's pid, for tests that kill it.
    pub(crate) fn pid(&self) -> Option<u32> {
        Some(self.stop.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.asked.store(true, Ordering::Release);
        self.stop.kill();
        if let Some(keeper) = self.keeper.take() {
            keeper.thread().unpark();
            let _panicked = keeper.join();
        }
    }
}

impl Stop {
    fn kill(&self) {
        let _reaping = self.reaping.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = self.pid.load(Ordering::Acquire);
        if pid != 0 {
            let _ended_already = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
    }
}

impl Keeper {
    fn run(self) {
        let mut pause = PAUSE_MIN;
        while !self.stop.asked.load(Ordering::Acquire) {
            let started = Instant::now();
            match self.life() {
                _ if self.stop.asked.load(Ordering::Acquire) => break,
                Ok(()) => tracing::warn!("podman's service ended, starting it again"),
                Err(error) => tracing::error!(error = %error, "cannot start podman's service"),
            }
            if started.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            thread::park_timeout(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        if let Err(error) = self.leftovers.clear(&self.stop.asked) {
            tracing::warn!(error = %error, "podman's service left processes behind");
        }
        let _kept_by_a_survivor = self.leftovers.group.remove();
    }

    /// One service from its start to its end; one that does not answer is ended.
    fn life(&self) -> Result<(), EngineError> {
        self.state.send_replace(State::Clearing);
        let cleared = self.leftovers.clear(&self.stop.asked);
        self.state.send_replace(State::Starting);
        cleared?;
        if self.stop.asked.load(Ordering::Acquire) {
            // Dumps may be at work still.
            return Ok(());
        }
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| EngineError::Io { what, source }
        };
        self.leftovers.group.create().map_err(io("making the service's control group"))?;
        let tmp = self.config.podman_tmp();
        renew(&tmp).map_err(io("clearing podman's temporary files"))?;
        let shim = self.make_shim().map_err(io("making the directory of the stand-in for criu"))?;
        let listening = {
            let _runtime = self.runtime.enter();
            self.gate.listen(&shim).map_err(io("listening for the stand-in for criu"))?
        };
        let mut child = self.spawn(&shim).map_err(io("starting podman system service"))?;
        self.stop.pid.store(child.id(), Ordering::Release);
        if self.stop.asked.load(Ordering::Acquire) {
            self.stop.kill();
        }
        let answers = self.answers(&child);
        match answers {
            Ok(()) => drop(self.state.send_replace(State::Up)),
            Err(_) => self.stop.kill(),
        }
        let status = wait_unreaped(&child);
        self.state.send_replace(State::Starting);
        // Whoever was gated under it cannot be opened any more: podman would not know.
        drop(listening);
        self.gate.refuse_all();
        {
            let _reaping = self.stop.reaping.lock().unwrap_or_else(PoisonError::into_inner);
            self.stop.pid.store(0, Ordering::Release);
            let status = status.and_then(|()| child.wait());
            tracing::debug!(signal = ?status.ok().and_then(|s| s.signal()), "podman's service ended");
        }
        answers
    }

    /// A new directory with the stand-ins `criu` and `tar`, and `real/criu`.
    fn make_shim(&self) -> io::Result<PathBuf> {
        let all = self.config.shims();
        retire(&all)?;
        let dir = all.join(&uuid::Uuid::new_v4().simple().to_string()[..8]);
        fs::create_dir_all(dir.join("real"))?;
        for name in ["criu", "tar"] {
            std::os::unix::fs::symlink(&self.config.shim, dir.join(name))?;
        }
        std::os::unix::fs::symlink(&self.config.criu, dir.join("real/criu"))?;
        Ok(dir)
    }

    fn spawn(&self, shim: &Path) -> io::Result<Child> {
        let socket = self.config.socket();
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let log = fs::File::create(self.config.rundir.join("podman.log"))?;
        let mut command =
            confine::command(&self.config.podman, &self.config, shim, &self.leftovers.group)?;
        command
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", socket.display()))
            .stderr(log);
        command.spawn()
    }

    /// Waits until the socket takes connections; says why when the service ended or was too slow.
    fn answers(&self, child: &Child) -> Result<(), EngineError> {
        let log = self.config.rundir.join("podman.log");
        let what = || format!("starting podman's service (its log is {})", log.display());
        let end = Instant::now() + self.patience;
        while UnixStream::connect(self.config.socket()).is_err() {
            if has_ended(child) {
                let message = "it ended before it listened".into();
                return Err(EngineError::Refused { what: what(), message });
            }
            if Instant::now() > end {
                let seconds = self.patience.as_secs();
                return Err(EngineError::Deadline { what: what(), seconds });
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Has the stand-ins of earlier services refuse; the oldest go.
fn retire(all: &Path) -> io::Result<()> {
    fs::create_dir_all(all)?;
    let earlier = fs::read_dir(all)?.collect::<io::Result<Vec<_>>>()?;
    for dir in &earlier {
        match fs::remove_file(dir.path().join(SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let retired = |dir: &fs::DirEntry| dir.metadata()?.modified();
    let mut by_age = earlier
        .iter()
        .map(|dir| Ok((retired(dir)?, dir.path())))
        .collect::<io::Result<Vec<_>>>()?;
    by_age.sort();
    by_age.iter().rev().skip(RETIRED).try_for_each(|(_, dir)| fs::remove_dir_all(dir))
}

/// Makes the directory, empty.
fn renew(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(dir),
    }
}

/// Waits for the child's end without reaping it: its pid stays its own until the lock is held.
fn wait_unreaped(child: &Child) -> io::Result<()> {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let id = Id::Pid(Pid::from_raw(child.id().cast_signed()));
    waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    Ok(())
}

fn has_ended(child: &Child) -> bool {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let id = Id::Pid(Pid::from_raw(child.id().cast_signed()));
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    !matches!(waitid(id, flags), Ok(WaitStatus::StillAlive))
}

/// What podman must be told beyond the host's own containers.conf.
fn write_containers_conf(config: &EngineConfig, hierarchy: &Hierarchy) -> io::Result<()> {
    fs::create_dir_all(&config.rundir)?;
    fs::create_dir_all(&config.workdir)?;
    // Restores are by runc: crun's fail, and leave control groups outside of the container's.
    // cgroupfs: the agent finds a container's group by its id alone. k8s-file: the log travels.
    let mut text = String::from(
        "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
         image_volume_mode = \"ignore\"\n[containers]\nlog_driver = \"k8s-file\"\n",
    );
    // Without the controller podman's default limit makes every start fail.
    if !hierarchy.has_controller("pids") {
        text.push_str("pids_limit = 0\n");
    }
    fs::write(config.containers_conf(), text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Starts, notes its number, and never listens.
    const DEAF: &str = "#!/bin/sh\necho $$ >> \"$TMPDIR/../../started\"\nexec sleep 1000\n";

    #[test]
    fn the_stand_ins_of_earlier_services_stay_for_a_while_and_refuse() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut made = Vec::new();
        for number in 0..RETIRED + 3 {
            retire(dir.path()).expect("retire");
            let shim = dir.path().join(number.to_string());
            fs::create_dir(&shim).expect("mkdir");
            fs::write(shim.join("criu"), "").expect("write");
            fs::write(shim.join(SOCKET), "").expect("write");
            // Whatever the clock's ticks are.
            let then = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            for earlier in &made[made.len().saturating_sub(1)..] {
                fs::File::open(earlier).and_then(|dir| dir.set_modified(then)).expect("utimes");
            }
            made.push(shim);
        }
        retire(dir.path()).expect("retire");
        let is_there: Vec<bool> = made.iter().map(|shim| shim.join("criu").exists()).collect();
        assert_eq!(is_there[..3], [false; 3]);
        assert_eq!(is_there[3..], [true; RETIRED]);
        assert!(
            made.iter().all(|shim| !shim.join(SOCKET).exists()),
            "a runc of one would be heard"
        );
    }

    #[tokio::test]
    async fn a_service_that_does_not_listen_is_ended_and_another_one_started() {
        let dir = tempfile::tempdir().expect("tempdir");
        let started = dir.path().join("started");
        let podman = dir.path().join("podman");
        fs::write(&podman, DEAF).expect("write");
        fs::set_permissions(&podman, fs::Permissions::from_mode(0o755)).expect("chmod");
        let mut config = EngineConfig::standard("/bin/true".into());
        config.rundir = dir.path().join("run");
        config.workdir = dir.path().join("work");
        config.podman = podman;
        let hierarchy = Hierarchy::Unified(dir.path().join("cgroup"));
        let group = hierarchy.group("service");
        group.create().expect("mkdir");
        // A plain file here, so that nothing is ever killed by what is written there.
        fs::write(group.path().join("cgroup.procs"), "").expect("write");
        fs::create_dir_all(&config.rundir).expect("mkdir");
        let stop = Arc::new(Stop::default());
        let keeper = Keeper {
            leftovers: Leftovers {
                group: group.clone(),
                hierarchy,
                gates: config.gates(),
                frozen: config.frozen(),
            },
            config,
            gate: Gate::new(group),
            runtime: tokio::runtime::Handle::current(),
            state: watch::channel(State::Clearing).0,
            stop: stop.clone(),
            patience: Duration::from_millis(50),
        };
        let keeper = thread::spawn(move || keeper.run());
        let numbers = || -> Vec<i32> {
            let text = fs::read_to_string(&started).unwrap_or_default();
            text.lines().filter_map(|line| line.parse().ok()).collect()
        };
        let end = Instant::now() + Duration::from_secs(30);
        while numbers().len() < 2 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.asked.store(true, Ordering::Release);
        stop.kill();
        keeper.thread().unpark();
        keeper.join().expect("keeper");
        assert!(numbers().len() >= 2, "the first one was waited for");
        for pid in numbers() {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
        }
    }
}
