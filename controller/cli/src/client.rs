//! One controller's REST API over HTTP.
//!
//! Objects come back as the controller wrote them ([`serde_json::Value`]); who
//! looks into one reads it as a type of [`crate::api`].

use std::error::Error as _;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Body, Method, RequestBuilder, Response, Url};
use serde_json::Value;

use crate::error::{Failure, Peer, Problem};

/// How long an ordinary answer may take; above the controller's own patience with a node.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Silence after which a stream of events is given up: three missed heartbeats.
const SILENCE: Duration = Duration::from_secs(30);

/// A controller's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host(Url);

impl FromStr for Host {
    type Err = String;

    /// Reads a URL; `hub` and `hub:7180` do as well.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::with_port(text, 7180)
    }
}

impl Host {
    /// Reads a URL; without a scheme and a port it has that one.
    pub(crate) fn with_port(text: &str, port: u16) -> Result<Self, String> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url =
            Url::parse(&whole).map_err(|error| format!("{error}; try http://HOST:{port}"))?;
        if url.scheme() != "http" || url.host().is_none() {
            return Err(format!("only http:// is spoken; try http://HOST:{port}"));
        }
        if url.port().is_none() && !text.contains("://") {
            url.set_port(Some(port)).map_err(|()| "it cannot have a port".to_owned())?;
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// What to ask for: `name=value` pairs behind the `?`.
pub(crate) type Query<'a> = &'a [(&'a str, &'a str)];

/// A controller.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    events: reqwest::Client,
    host: Host,
    /// An operator's name and password, for what only operators may do.
    operator: Option<(String, String)>,
    peer: Peer,
}

impl Client {
    /// A client of the controller at `host`; nothing is asked yet.
    ///
    /// Proxies of the environment are not used: the controller is on this network.
    pub(crate) fn new(host: Host) -> Result<Self, Failure> {
        Self::of(Peer::Controller, host)
    }

    /// A client of a broker that stands alone, at its address for operators.
    pub(crate) fn of_broker(host: Host) -> Result<Self, Failure> {
        Self::of(Peer::Broker, host)
    }

    fn of(peer: Peer, host: Host) -> Result<Self, Failure> {
        let builder = || reqwest::Client::builder().no_proxy().connect_timeout(CONNECT);
        let built = |client: reqwest::Result<_>| {
            client.map_err(|error| Failure::Failed { message: chain(&error), remedy: None })
        };
        Ok(Self {
            http: built(builder().build())?,
            events: built(builder().read_timeout(SILENCE).build())?,
            host,
            operator: std::env::var("GODWIT_USER").ok().zip(std::env::var("GODWIT_PASSWORD").ok()),
            peer,
        })
    }

    /// The controller's address.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Reads `path` below `/api/v1`.
    pub(crate) async fn get(&self, path: &[&str], query: Query<'_>) -> Result<Value, Failure> {
        let request = self.http.request(Method::GET, self.api(path, query)).timeout(ANSWER);
        self.json(self.send(request).await?).await
    }

    /// Orders something at `path`, with a body where the order has details.
    pub(crate) async fn post(&self, path: &[&str], body: Option<&Value>) -> Result<Value, Failure> {
        self.post_with(path, &[], body).await
    }

    /// The same with a query.
    pub(crate) async fn post_with(
        &self,
        path: &[&str],
        query: Query<'_>,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let request = self.http.request(Method::POST, self.api(path, query)).timeout(ANSWER);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.json(self.send(request).await?).await
    }

    /// Removes what is at `path`.
    pub(crate) async fn delete(&self, path: &[&str], query: Query<'_>) -> Result<Value, Failure> {
        let request = self.http.request(Method::DELETE, self.api(path, query)).timeout(ANSWER);
        self.json(self.send(request).await?).await
    }

    /// Reads `path` as bytes.
    pub(crate) async fn bytes(&self, path: &[&str], query: Query<'_>) -> Result<Bytes, Failure> {
        let request = self.http.request(Method::GET, self.api(path, query)).timeout(ANSWER);
        let answer = self.send(request).await?;
        answer.bytes().await.map_err(|error| self.unreachable(&error))
    }

    /// Sends a tar to `path`; `length` in bytes where it is known.
    pub(crate) async fn upload(
        &self,
        path: &[&str],
        query: Query<'_>,
        body: Body,
        length: Option<u64>,
    ) -> Result<Value, Failure> {
        let request = self.http.request(Method::POST, self.api(path, query));
        let request = request.header("content-type", "application/x-tar").body(body);
        let request = match length {
            Some(length) => request.header("content-length", length),
            None => request,
        };
        self.json(self.send(request).await?).await
    }

    /// Opens the stream of events.
    pub(crate) async fn events(&self, query: Query<'_>) -> Result<Response, Failure> {
        self.send(self.events.request(Method::GET, self.api(&["events"], query))).await
    }

    /// Reads the controller's version, which lies outside the API's prefix.
    pub(crate) async fn version(&self) -> Result<Value, Failure> {
        let request = self.http.request(Method::GET, self.url(&["version"])).timeout(ANSWER);
        self.json(self.send(request).await?).await
    }

    fn api(&self, path: &[&str], query: Query<'_>) -> Url {
        let mut url = self.url(&[&["api", "v1"], path].concat());
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.host.0.clone();
        // An http URL with a host always has a path to extend.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// Sends a request and turns a refusal into a failure.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let request = match &self.operator {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Failure::Refused { status: status.as_u16(), problem }),
            Err(_) => Err(self.foreign(format!("it says {status}"))),
        }
    }

    async fn json(&self, answer: Response) -> Result<Value, Failure> {
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|error| self.foreign(error.to_string()))
    }

    /// An answer that is not what the API promises.
    pub(crate) fn foreign(&self, what: String) -> Failure {
        Failure::Foreign { peer: self.peer, host: self.host.to_string(), what }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let cause = if error.is_timeout() && !error.is_connect() {
            "no answer in time".to_owned()
        } else {
            root_cause(error)
        };
        Failure::Unreachable { peer: self.peer, host: self.host.to_string(), cause }
    }
}

/// The innermost cause, the one that tells: `Connection refused (os error 111)`.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn chain(error: &reqwest::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_scheme_gets_the_usual_port() {
        let read = |text: &str| text.parse::<Host>().map(|host| host.to_string());
        assert_eq!(read("hub"), Ok("http://hub:7180".to_owned()));
        assert_eq!(read("hub:99"), Ok("http://hub:99".to_owned()));
        assert_eq!(read("http://hub:7180/"), Ok("http://hub:7180".to_owned()));
        assert_eq!(read("http://hub"), Ok("http://hub".to_owned()));
        assert!(read("https://hub").is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn a_name_with_a_slash_stays_one_segment() -> Result<(), String> {
        let client = Client::new("hub".parse()?).map_err(|error| error.to_string())?;
        let url = client.api(&["images", "localhost/counter:latest"], &[("force", "true")]);
        let wanted = "http://hub:7180/api/v1/images/localhost%2Fcounter:latest?force=true";
        assert_eq!(url.as_str(), wanted);
        Ok(())
    }
}
