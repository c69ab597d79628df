//! MQTT.js in a page in Chromium, which reports by HTTP: `browser.html`.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::sync::watch;

use crate::Lines;
use crate::broker::{ALICE, Broker};
use crate::programs::{debian, installed, run};

/// Chromium with the page open, until it is dropped.
struct Page {
    said: Lines,
    chromium: Child,
    _home: TempDir,
}

impl Drop for Page {
    fn drop(&mut self) {
        // All of its processes: they are of its group.
        if let Some(id) = self.chromium.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the page: {:#?}", self.said.all());
        }
    }
}

impl Page {
    async fn open(broker: &Broker) -> Self {
        let (sink, said) = watch::channel(Vec::new());
        let address = serve(broker, sink).await;
        let home = tempfile::tempdir().unwrap();
        believe(home.path(), &broker.authority()).await;
        let mut chromium = debian("chromium", "chromium");
        chromium
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
            .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
            .arg(address)
            .env("HOME", home.path())
            // What it complains of has nothing to do with the page.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        Self { said: Lines(said), chromium: chromium.spawn().unwrap(), _home: home }
    }
}

/// Serves the page, and hears what it says.
async fn serve(broker: &Broker, sink: watch::Sender<Vec<String>>) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/browser.html");
    let page = std::fs::read_to_string(here).unwrap();
    let bundle = std::fs::read_to_string(installed("node_modules/mqtt/dist/mqtt.min.js")).unwrap();
    let ports = broker.ports;
    let settings = serde_json::json!({
        "urls": [
            format!("ws://127.0.0.1:{}/mqtt", ports.websocket),
            format!("wss://127.0.0.1:{}/mqtt", ports.secure_websocket),
        ],
        "username": ALICE.0,
        "password": ALICE.1,
    });
    let hear = |State(sink): State<watch::Sender<Vec<String>>>, line: String| async move {
        sink.send_modify(|said| said.push(line));
    };
    let app = Router::new()
        .route("/", get(|| async { Html(page) }))
        .route("/mqtt.js", get(|| async { ([("content-type", "text/javascript")], bundle) }))
        .route("/settings", get(|| async { Json(settings) }))
        .route("/said", post(hear))
        .with_state(sink);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Puts the authority where Chromium looks for those that its user trusts.
async fn believe(home: &Path, authority: &Path) {
    let store = home.join(".pki/nssdb");
    std::fs::create_dir_all(&store).unwrap();
    let store = format!("sql:{}", store.display());
    let authority = authority.to_str().unwrap();
    for args in
        [&["-N", "--empty-password"][..], &["-A", "-n", "godwit", "-t", "C,,", "-i", authority][..]]
    {
        let mut certutil = debian("certutil", "libnss3-tools");
        certutil.args(["-d", &store]).args(args);
        let ended = run(certutil).await;
        assert!(ended.is_success, "{ended:?}");
    }
}

#[tokio::test]
async fn a_page_in_a_browser_talks_and_is_back_by_itself_after_a_restart() {
    let mut broker = Broker::start().await;
    let page = Page::open(&broker).await;
    let names = ["ws:4", "ws:5", "wss:4", "wss:5"];
    for name in names {
        page.said.line(&[name, "connected false"]).await;
        page.said.line(&[name, "subscribed 1"]).await;
        page.said.line(&[name, "not subscribed:"]).await;
    }
    for (hello, is_back) in [("grüße", false), ("again", true)] {
        if is_back {
            broker.restart().await;
        }
        let mut listener = broker.listen(&["-t", "app/alice/answer", "-q", "2"]).await;
        let mut answers = Vec::new();
        for name in names {
            let topic = format!("app/alice/page/{name}");
            broker.publish(&topic, hello, &["-q", "1"]).await;
            page.said.line(&[name, "heard", &topic, "1 false", hello]).await;
            answers.push(listener.next().await);
        }
        assert_eq!(answers, names.map(|name| format!("{name} heard {hello}")));
    }
    for name in names {
        page.said.line(&[name, "connected true"]).await;
    }
    let old = "Unacceptable protocol version";
    for (version, words) in [("3", old), ("4", "Bad username"), ("5", "Bad User Name")] {
        page.said.line(&["stranger", version, words]).await;
    }
    let said = page.said.all();
    assert!(!said.iter().any(|line| line.contains("failed:")), "{said:#?}");
}
