//! A controller that answers from a script and remembers what it was asked.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// What was asked: `METHOD /path?query`, and the body.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// One stream of events, as the controller sends it.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    text: String,
    ends: bool,
}

impl Stream {
    /// A snapshot, `ready`, then news; the stream stays open.
    pub(crate) fn of(snapshot: &[(&str, Value)], news: &[(&str, Value)]) -> Self {
        let frame = |(kind, data): &(&str, Value)| format!("event: {kind}\ndata: {data}\n\n");
        let told: String = snapshot.iter().map(frame).collect();
        let news: String = news.iter().map(frame).collect();
        Self { text: format!(": hello\n\n{told}event: ready\ndata: {{}}\n\n{news}"), ends: false }
    }

    /// The same, cut off at its end, as by a controller that stops.
    pub(crate) fn cut(mut self) -> Self {
        self.ends = true;
        self
    }
}

#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<String, Vec<(StatusCode, Bytes)>>>,
    streams: Mutex<Vec<Result<Stream, (StatusCode, Bytes)>>>,
    asked: Mutex<Vec<Asked>>,
    /// Keeps open streams open.
    open: Mutex<Vec<mpsc::UnboundedSender<Result<Bytes, Infallible>>>>,
}

/// A running fake.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    script: Arc<Script>,
    server: JoinHandle<()>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let script = Arc::new(Script::default());
        let server = serve(listener, script.clone());
        Self { address, script, server }
    }

    /// Answers `line` so; asked again it gives the next answer, and the last one for ever.
    pub(crate) fn on(self, line: &str, status: u16, body: Value) -> Self {
        self.on_bytes(line, status, body.to_string().into())
    }

    pub(crate) fn on_bytes(self, line: &str, status: u16, body: Bytes) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        lock(&self.script.answers).entry(line.to_owned()).or_default().push((status, body));
        self
    }

    /// Gives this stream to the next who asks for events.
    pub(crate) fn stream(self, stream: Stream) -> Self {
        lock(&self.script.streams).push(Ok(stream));
        self
    }

    /// Refuses the next who asks for events.
    pub(crate) fn no_stream(self, status: u16, code: &str) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        let body = problem(code, "no events").to_string().into();
        lock(&self.script.streams).push(Err((status, body)));
        self
    }

    /// Ends every open stream and stops listening.
    pub(crate) async fn stop(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
        lock(&self.script.open).clear();
    }

    /// Listens again where it did.
    pub(crate) async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the same port");
        self.server = serve(listener, self.script.clone());
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.script.asked).clone()
    }

    /// What was asked with this method.
    pub(crate) fn asked_to(&self, method: &str) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|asked| asked.line.starts_with(method));
        asked
    }

    /// The binary, told to ask this controller.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = godwit(args);
        command.env("GODWIT_HOST", format!("http://{}", self.address));
        command
    }

    /// Runs the binary to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).output()).await
    }
}

/// The binary, with nothing of this environment.
pub(crate) fn godwit(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_godwit"));
    command.args(args).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How the binary ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Ended {
    /// Waits for the end of a run; one that hangs is a failure, not a wait.
    pub(crate) async fn of(run: impl Future<Output = std::io::Result<Output>>) -> Self {
        let ended = tokio::time::timeout(Duration::from_secs(60), run).await;
        Self::from(ended.expect("godwit hangs").expect("godwit runs"))
    }

    /// The output of a run that did what it should.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Standard error of a run that ended with `code`.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.err
    }
}

/// Reads standard error until it has said `text`; panics if it never does.
pub(crate) async fn until_said(child: &mut Child, text: &str) -> String {
    let stderr = child.stderr.as_mut().expect("standard error is piped");
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(&said).contains(text) {
        let read = stderr.read(&mut buffer).await.expect("standard error");
        let sofar = String::from_utf8_lossy(&said);
        assert!(read > 0, "it ended without saying {text:?}: {sofar}");
        said.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

pub(crate) fn problem(code: &str, message: &str) -> Value {
    json!({"code": code, "message": message, "remedy": "do better", "reasons": []})
}

fn serve(listener: TcpListener, script: Arc<Script>) -> JoinHandle<()> {
    let router = Router::new().fallback(answer).with_state(script);
    tokio::spawn(async move {
        axum::serve(listener, router).await.expect("it serves");
    })
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri());
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.expect("a body");
    lock(&script.asked).push(Asked { line: line.clone(), body });
    if line.starts_with("GET /api/v1/events") {
        let mut streams = lock(&script.streams);
        if streams.is_empty() {
            return plain(StatusCode::NOT_FOUND, problem("unscripted", &line).to_string().into());
        }
        return match streams.remove(0) {
            Ok(stream) => events(&script, stream),
            Err((status, body)) => plain(status, body),
        };
    }
    match lock(&script.answers).get_mut(&line) {
        Some(answers) if answers.len() > 1 => {
            let (status, body) = answers.remove(0);
            plain(status, body)
        }
        Some(answers) => plain(answers[0].0, answers[0].1.clone()),
        None => plain(StatusCode::IM_A_TEAPOT, problem("unscripted", &line).to_string().into()),
    }
}

fn plain(status: StatusCode, body: Bytes) -> Response<Body> {
    Response::builder().status(status).body(Body::from(body)).expect("an answer")
}

fn events(script: &Script, stream: Stream) -> Response<Body> {
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(Ok(Bytes::from(stream.text))).expect("the receiver is here");
    if !stream.ends {
        lock(&script.open).push(sender);
    }
    let body = Body::from_stream(UnboundedReceiverStream::new(receiver).map(|item| item));
    Response::builder().header("content-type", "text/event-stream").body(body).expect("a stream")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
