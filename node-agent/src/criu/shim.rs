//! What the agent's binary does when it is run as `criu`.
//!
//! It peeks at the request. Whatever is neither a dump nor a restore goes to the real criu
//! at once. Otherwise the agent is asked; where it attends, an orphan becomes the proxy and
//! this process, whose pid and parent runc knows, the real criu.
//!
//! Runs before any thread exists: it forks, and the child goes on in Rust.

#![expect(unsafe_code, reason = "fork, exec and the auxiliary vector have no safe form")]

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, setsockopt, socketpair, sockopt,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, setsid};
use prost::Message as _;

use super::message::{self, DUMP, RESTORE, Request, Response};
use super::proxy::{Action, Event, Proxy};
use super::socket::{dial, receive, send};
use super::word::{Answer, Kind, Order, Report};

/// Descriptors of directories that criu is to inherit lie above runc's own.
const INHERITED: RawFd = 200;
/// The proxy's own descriptors lie above those, and everything below is closed in it.
const PROXY: RawFd = 300;

/// Why the stand-in could not do its part; runc and podman see it as criu's error.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error("{what}")]
    Io { what: &'static str, source: io::Error },
    #[error("the agent refused")]
    Refused,
    #[error("runc left")]
    RuncLeft,
}

fn io(what: &'static str) -> impl Fn(io::Error) -> ShimError {
    move |source| ShimError::Io { what, source }
}

/// Runs as `criu`, with the process's own arguments; returns only when it could not become it.
pub fn main() -> ExitCode {
    let args: Vec<CString> =
        std::env::args_os().filter_map(|arg| CString::new(arg.into_vec()).ok()).collect();
    let home = home();
    let error = match attend(&args, &home) {
        Ok(Next::Criu) => become_criu(&args, &home),
        Ok(Next::Done) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    let source = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
    // Where runc's and podman's messages go; nothing can be done if that is closed.
    let _closed = writeln!(io::stderr(), "godwit's stand-in for criu: {error}{source}");
    ExitCode::FAILURE
}

/// The directory that this binary was executed from, by the name that it was executed by.
pub(super) fn home() -> PathBuf {
    // SAFETY: AT_EXECFN is a C string that the kernel put on the stack for the process's life.
    let name = unsafe {
        match libc::getauxval(libc::AT_EXECFN) {
            0 => return PathBuf::new(),
            address => CStr::from_ptr(std::ptr::with_exposed_provenance(address as usize)),
        }
    };
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// What is left for this process to do.
enum Next {
    /// Become the real criu, now.
    Criu,
    /// Nothing: runc has its answer.
    Done,
}

/// Asks the agent where it must be asked, and forks the proxy where it attends.
fn attend(args: &[CString], home: &Path) -> Result<Next, ShimError> {
    let Some(number) = swrk_socket(args) else { return Ok(Next::Criu) };
    // SAFETY: runc passed this descriptor for criu, which this process is; it is open for the
    // process's life and never closed here.
    let runc = unsafe { BorrowedFd::borrow_raw(number) };
    let (packet, _) = receive(runc, MsgFlags::MSG_PEEK).map_err(io("reading runc's request"))?;
    if packet.is_empty() {
        return Err(ShimError::RuncLeft);
    }
    let request = Request::decode(&packet[..]).map_err(|error| ShimError::Io {
        what: "understanding runc's request",
        source: error.into(),
    })?;
    let kind = match request.kind {
        DUMP => Kind::Dump,
        RESTORE => Kind::Restore,
        _ => return Ok(Next::Criu),
    };
    let directories = Directories::of(runc, &request)?;
    let agent =
        dial(&home.join(super::SOCKET)).map_err(io("asking the agent, which does not listen"))?;
    let pid = std::process::id().cast_signed();
    say(&agent, &Report::Hello { kind, pid, images: directories.images_path.clone() })?;
    match hear(&agent, runc)? {
        Answer::Pass => Ok(Next::Criu),
        Answer::Pretend if kind == Kind::Dump => pretend(runc),
        Answer::Pretend | Answer::Refuse => Err(ShimError::Refused),
        Answer::Attend => take_place(runc, &agent, Proxy::new(kind), directories),
        Answer::Hold => take_place(runc, &agent, Proxy::held(kind), directories),
    }
}

/// Answers a dump with success, and dumps nothing: podman then writes all that it knows of
/// the container, and the container is not touched.
fn pretend(runc: BorrowedFd<'_>) -> Result<Next, ShimError> {
    receive(runc, MsgFlags::empty()).map_err(io("taking runc's request"))?;
    send(runc, &message::dumped(), &[]).map_err(io("answering runc"))?;
    Ok(Next::Done)
}

/// The descriptor in `criu swrk N`.
fn swrk_socket(args: &[CString]) -> Option<RawFd> {
    match args {
        [_, verb, number, ..] if verb.as_bytes() == b"swrk" => number.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

/// The request's directories, opened here: criu looks them up in /proc of whoever made its
/// socket, and that is this process when a proxy stands between.
struct Directories {
    images: OwnedFd,
    images_path: PathBuf,
    work: Option<OwnedFd>,
}

impl Directories {
    fn of(runc: BorrowedFd<'_>, request: &Request) -> Result<Self, ShimError> {
        let peer = getsockopt(&runc, sockopt::PeerCredentials)
            .map_err(|errno| ShimError::Io { what: "asking who runc is", source: errno.into() })?;
        let named = |fd: i32| PathBuf::from(format!("/proc/{}/fd/{fd}", peer.pid()));
        let open = |fd: i32| -> io::Result<OwnedFd> {
            let file: OwnedFd = fs::File::open(named(fd))?.into();
            raise(&file, INHERITED, false)
        };
        let opts = request.opts.clone().unwrap_or_default();
        let images = opts.images_dir_fd.unwrap_or(-1);
        Ok(Self {
            images: open(images).map_err(io("opening runc's image directory"))?,
            images_path: fs::read_link(named(images))
                .map_err(io("naming runc's image directory"))?,
            work: opts
                .work_dir_fd
                .map(open)
                .transpose()
                .map_err(io("opening runc's work directory"))?,
        })
    }
}

impl Directories {
    /// The files that the agent says are watched, if it says any.
    fn watched(&self) -> Vec<String> {
        let list = fs::read_to_string(self.images_path.join(super::WATCHED)).unwrap_or_default();
        list.split_terminator('\0').map(str::to_owned).collect()
    }
}

/// A duplicate with a number of at least `least`.
fn raise(fd: &OwnedFd, least: RawFd, close_on_exec: bool) -> io::Result<OwnedFd> {
    let command =
        if close_on_exec { FcntlArg::F_DUPFD_CLOEXEC(least) } else { FcntlArg::F_DUPFD(least) };
    let raw = fcntl(fd, command)?;
    // SAFETY: fcntl has just made this descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn say(agent: &OwnedFd, report: &Report) -> Result<(), ShimError> {
    send(agent.as_fd(), report.to_string().as_bytes(), &[]).map_err(io("telling the agent"))
}

/// Waits for the agent's answer, or for runc's end.
fn hear(agent: &OwnedFd, runc: BorrowedFd<'_>) -> Result<Answer, ShimError> {
    // Only the hang-up of runc matters: its request is still there to be read.
    let mut ends =
        [PollFd::new(agent.as_fd(), PollFlags::POLLIN), PollFd::new(runc, PollFlags::empty())];
    while poll(&mut ends, PollTimeout::NONE).is_err() {}
    if ends[1].any() == Some(true) {
        return Err(ShimError::RuncLeft);
    }
    let (packet, _) = receive(agent.as_fd(), MsgFlags::empty()).map_err(io("hearing the agent"))?;
    Ok(Answer::read(&packet))
}

/// Puts the proxy between runc and this process, which is about to become criu.
fn take_place(
    runc: BorrowedFd<'_>,
    agent: &OwnedFd,
    proxy: Proxy,
    directories: Directories,
) -> Result<Next, ShimError> {
    let (packet, _) = receive(runc, MsgFlags::empty()).map_err(io("taking runc's request"))?;
    let work = directories.work.as_ref().map(AsRawFd::as_raw_fd);
    let images = directories.images.as_raw_fd();
    let request = message::completed(&packet, images, work, directories.watched());
    let errno = |what: &'static str| move |e: nix::Error| ShimError::Io { what, source: e.into() };
    let (ours, crius) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(errno("making criu's socket"))?;
    setsockopt(&ours, sockopt::SndBuf, &request.len().max(256 * 1024))
        .map_err(errno("making criu's socket roomy"))?;
    // SAFETY: no other thread exists (this runs first thing in main), so the child may go on
    // as an ordinary program.
    match unsafe { fork() }.map_err(errno("forking the proxy"))? {
        ForkResult::Parent { child } => {
            let _status = waitpid(child, None);
        }
        ForkResult::Child => {
            // SAFETY: as above. Forked twice: the proxy must not be a child that criu would reap.
            if let Ok(ForkResult::Child) = unsafe { fork() } {
                let ends = Ends::take(runc, &ours, agent);
                std::process::exit(i32::from(
                    ends.and_then(|ends| ends.run(proxy, &request)).is_err(),
                ));
            }
            std::process::exit(0);
        }
    }
    // SAFETY: dup2 onto a descriptor that is open and that nothing in this process owns; what
    // was there, runc's socket, lives on in the proxy. The new one stays open over exec.
    if unsafe { libc::dup2(crius.as_raw_fd(), runc.as_raw_fd()) } < 0 {
        return Err(io("handing criu its socket")(io::Error::last_os_error()));
    }
    // Criu's from here on: they stay open over exec.
    let _images = directories.images.into_raw_fd();
    let _work = directories.work.map(IntoRawFd::into_raw_fd);
    Ok(Next::Criu)
}

/// Becomes the real criu; returns only the error.
fn become_criu(args: &[CString], home: &Path) -> ShimError {
    let beside = home.join("real/criu");
    let real = if beside.exists() { beside } else { crate::engine::find_criu() };
    // Rust ignores SIGPIPE, and what is ignored is ignored over exec.
    // SAFETY: the default disposition runs no code of ours.
    let _unchanged = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let Ok(path) = CString::new(real.into_os_string().into_vec()) else {
        return io("running the real criu")(io::ErrorKind::InvalidInput.into());
    };
    let Err(errno) = nix::unistd::execv(&path, args);
    ShimError::Io { what: "running the real criu", source: errno.into() }
}

/// The proxy's three ends.
struct Ends {
    runc: Option<OwnedFd>,
    criu: OwnedFd,
    agent: Option<OwnedFd>,
    /// What the agent removes once the committed counts as one that runs.
    mark: Option<PathBuf>,
}

impl Ends {
    /// Leaves everything of the parent's behind but the three sockets.
    fn take(runc: BorrowedFd<'_>, criu: &OwnedFd, agent: &OwnedFd) -> io::Result<Self> {
        setsid()?;
        let ends = Self {
            runc: Some(raise(&runc.try_clone_to_owned()?, PROXY, true)?),
            criu: raise(criu, PROXY, true)?,
            agent: Some(raise(agent, PROXY, true)?),
            mark: None,
        };
        // SAFETY: the names below 300 belong to the parent's copies, which this process, alone
        // after its fork, never touches again: it leaves by exit, and no destructor runs.
        unsafe {
            libc::close_range(0, PROXY.cast_unsigned() - 1, 0);
            libc::prctl(libc::PR_SET_NAME, super::PROXY.as_ptr());
        }
        // So that no descriptor which passes through becomes a standard stream.
        for _stream in 0..3 {
            let _kept_open =
                fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into_raw_fd();
        }
        Ok(ends)
    }

    fn run(mut self, mut proxy: Proxy, request: &[u8]) -> io::Result<()> {
        self.tell(&Report::Attending { pid: std::process::id().cast_signed() });
        if !proxy.is_held() {
            send(self.criu.as_fd(), request, &[])?;
        }
        loop {
            let Ready { criu, runc, agent } = self.wait();
            if criu {
                let (packet, rights) =
                    receive(self.criu.as_fd(), MsgFlags::empty()).unwrap_or_default();
                let response = Response::decode(&packet[..]).ok().filter(|_| !packet.is_empty());
                let event = response.as_ref().map_or(Event::CriuGone, Event::Criu);
                let way = Way::ToRunc(&packet, &rights);
                if self.perform(proxy.step(&event), &way) {
                    return Ok(());
                }
            }
            if let Some(end) = self.runc.as_ref().filter(|_| runc) {
                let (packet, rights) = receive(end.as_fd(), MsgFlags::empty()).unwrap_or_default();
                let answer = Request::decode(&packet[..]).ok().filter(|_| !packet.is_empty());
                let event = answer.as_ref().map_or(Event::RuncGone, Event::Runc);
                let way = Way::ToCriu(&packet, &rights);
                let actions = proxy.step(&event);
                if answer.is_none() {
                    self.runc = None;
                }
                if self.perform(actions, &way) {
                    return Ok(());
                }
            }
            if let Some(end) = self.agent.as_ref().filter(|_| agent) {
                let (packet, _) = receive(end.as_fd(), MsgFlags::empty()).unwrap_or_default();
                let event = if packet.is_empty() {
                    self.agent = None;
                    Event::AgentGone { may_run: self.mark.as_ref().is_some_and(|m| !m.exists()) }
                } else {
                    let order = Order::read(&packet);
                    if let Order::Commit { mark } = &order {
                        self.mark = Some(mark.clone());
                    }
                    Event::Agent(order)
                };
                if self.perform(proxy.step(&event), &Way::Begin(request)) {
                    return Ok(());
                }
            }
        }
    }

    /// Waits until one of the ends has something to say.
    fn wait(&self) -> Ready {
        let mut polled = vec![PollFd::new(self.criu.as_fd(), PollFlags::POLLIN)];
        for end in [&self.runc, &self.agent].into_iter().flatten() {
            polled.push(PollFd::new(end.as_fd(), PollFlags::POLLIN));
        }
        while poll(&mut polled, PollTimeout::NONE).is_err() {}
        let mut ready = polled.iter().map(|end| end.any() == Some(true));
        let criu = ready.next().unwrap_or_default();
        let runc = self.runc.is_some() && ready.next().unwrap_or_default();
        let agent = self.agent.is_some() && ready.next().unwrap_or_default();
        Ready { criu, runc, agent }
    }

    /// Does what the rules say; true when the proxy's work has ended.
    fn perform(&mut self, actions: Vec<Action>, way: &Way<'_>) -> bool {
        for action in actions {
            match action {
                Action::Begin | Action::Forward => self.forward(way),
                Action::Answer(success) => {
                    // criu gone: its socket's end says so next.
                    let _gone = send(self.criu.as_fd(), &message::answer(success), &[]);
                }
                Action::Tell(report) => self.tell(&report),
                Action::Kill(pid) => {
                    let _dead_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                Action::Hang => {
                    use nix::sys::socket::{Shutdown, shutdown};
                    let _gone = shutdown(self.criu.as_raw_fd(), Shutdown::Write);
                }
                Action::End => return true,
            }
        }
        false
    }

    fn forward(&self, way: &Way<'_>) {
        // An end that is gone says so by itself when it is next read.
        let _gone = match (way, &self.runc) {
            (Way::ToRunc(packet, rights), Some(runc)) => send(runc.as_fd(), packet, rights),
            (Way::ToCriu(packet, rights), _) => send(self.criu.as_fd(), packet, rights),
            (Way::Begin(request), _) => send(self.criu.as_fd(), request, &[]),
            (Way::ToRunc(..), None) => Ok(()),
        };
    }

    fn tell(&self, report: &Report) {
        if let Some(agent) = &self.agent {
            let _gone = send(agent.as_fd(), report.to_string().as_bytes(), &[]);
        }
    }
}

/// Which ends have something to say.
struct Ready {
    criu: bool,
    runc: bool,
    agent: bool,
}

/// Where the message that just came is to go.
enum Way<'a> {
    ToRunc(&'a [u8], &'a [OwnedFd]),
    ToCriu(&'a [u8], &'a [OwnedFd]),
    /// No message came but the agent's word; what may go now is the request.
    Begin(&'a [u8]),
}
