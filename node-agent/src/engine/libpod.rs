//! The few calls of libpod's own REST interface that bollard does not know:
//! create with a namespace by path, checkpoint, restore, remove with everything.
//!
//! One request on one fresh connection: a unix socket's connect costs nothing, and a
//! service that was restarted leaves no dead connection behind in a pool.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::EngineError;

/// How much of a tar is held in memory at once.
const CHUNK: usize = 256 * 1024;
/// How long a service that was killed may take until it listens again.
const COMES_BACK: Duration = Duration::from_secs(10);
/// How often it is tried.
const AGAIN: Duration = Duration::from_millis(50);

type Body = BoxBody<Bytes, io::Error>;

/// libpod's REST interface at one unix socket.
#[derive(Debug, Clone)]
pub(crate) struct Libpod {
    socket: PathBuf,
}

/// libpod's answer to everything that fails.
#[derive(Deserialize)]
struct Complaint {
    message: String,
}

/// A response that is not success.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// HTTP's status.
    pub(crate) status: StatusCode,
    /// libpod's words.
    pub(crate) message: String,
}

impl Libpod {
    /// The service that listens at `socket`.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Sends a request without a body and returns the whole answer.
    ///
    /// A question or a removal is sent once more when the service died over it: twice is as
    /// good as once.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
    ) -> Result<Result<Bytes, Refusal>, EngineError> {
        let answer = self.collect(method.clone(), path, full(Bytes::new())).await;
        match answer {
            Err(EngineError::Unreachable { .. }) if method.is_idempotent() => {
                self.collect(method, path, full(Bytes::new())).await
            }
            other => other,
        }
    }

    /// Sends a JSON document and returns the whole answer.
    pub(crate) async fn post_json(
        &self,
        path: &str,
        document: &serde_json::Value,
    ) -> Result<Result<Bytes, Refusal>, EngineError> {
        self.collect(Method::POST, path, full(document.to_string().into())).await
    }

    /// Posts the tar at `file` and returns the whole answer.
    pub(crate) async fn post_file(
        &self,
        path: &str,
        file: &Path,
    ) -> Result<Result<Bytes, Refusal>, EngineError> {
        let opened = tokio::fs::File::open(file).await.map_err(|source| EngineError::Io {
            what: format!("reading {}", file.display()),
            source,
        })?;
        let frames = ReaderStream::with_capacity(opened, CHUNK).map_ok(Frame::data);
        self.collect(Method::POST, path, BodyExt::boxed(StreamBody::new(frames))).await
    }

    /// Sends an empty request and streams the answer's body into `file`, synced to disk.
    pub(crate) async fn fetch(
        &self,
        method: Method,
        path: &str,
        file: &Path,
    ) -> Result<Result<(), Refusal>, EngineError> {
        let writing =
            |source| EngineError::Io { what: format!("writing {}", file.display()), source };
        let mut body = match self.send(method, path, full(Bytes::new())).await? {
            Ok(response) => response.into_body(),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut out = tokio::fs::File::create(file).await.map_err(writing)?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.unreachable(io::Error::other(error)))?;
            if let Ok(data) = frame.into_data() {
                out.write_all(&data).await.map_err(writing)?;
            }
        }
        out.sync_all().await.map_err(writing)?;
        Ok(Ok(()))
    }

    async fn collect(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Result<Bytes, Refusal>, EngineError> {
        match self.send(method, path, body).await? {
            Err(refusal) => Ok(Err(refusal)),
            Ok(response) => {
                let body = response.into_body().collect().await;
                let body = body.map_err(|error| self.unreachable(io::Error::other(error)))?;
                Ok(Ok(body.to_bytes()))
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Result<Response<Incoming>, Refusal>, EngineError> {
        let other = |error: hyper::Error| self.unreachable(io::Error::other(error));
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(other)?;
        // Ends with its request: the sender is dropped, or the service closes.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/v5.0.0/libpod/{path}"))
            .header("host", "podman")
            .header("content-type", "application/json")
            .body(body)
            .map_err(|error| self.unreachable(io::Error::other(error)))?;
        let response = sender.send_request(request).await.map_err(other)?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(Ok(response));
        }
        let text = response.into_body().collect().await.map_err(other)?.to_bytes();
        let message = match serde_json::from_slice::<Complaint>(&text) {
            Ok(complaint) => complaint.message,
            Err(_) => String::from_utf8_lossy(&text).trim().to_owned(),
        };
        Ok(Err(Refusal { status, message }))
    }

    /// Connects; a service that was killed is given time to come back, for nothing was asked yet.
    async fn connect(&self) -> Result<tokio::net::UnixStream, EngineError> {
        let end = tokio::time::Instant::now() + COMES_BACK;
        loop {
            match tokio::net::UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                Err(source) if tokio::time::Instant::now() > end => {
                    return Err(self.unreachable(source));
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    fn unreachable(&self, source: io::Error) -> EngineError {
        EngineError::Unreachable { socket: self.socket.display().to_string(), source }
    }
}

impl Refusal {
    /// The error of the step that was refused.
    pub(crate) fn into_error(self, what: impl Into<String>) -> EngineError {
        EngineError::Refused { what: what.into(), message: self.message }
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
