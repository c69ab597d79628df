//! Node-RED with a flow that answers questions, over TLS and over a secure WebSocket.

use std::path::Path;

use crate::broker::{ALICE, Broker};
use crate::programs::{command, installed};

#[tokio::test]
async fn node_red_answers_and_is_back_by_itself_after_a_restart() {
    let mut broker = Broker::start().await;
    let folder = tempfile::tempdir().unwrap();
    for file in ["flows.json", "flows_cred.json", "settings.js"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node_red").join(file);
        std::fs::copy(from, folder.path().join(file)).unwrap();
    }
    let url = format!("wss://127.0.0.1:{}/mqtt", broker.ports.secure_websocket);
    let mut node_red = command(installed("node_modules/.bin/node-red"));
    node_red
        .arg("--userDir")
        .arg(folder.path())
        .env("AUTHORITY", broker.authority())
        .env("TLS_PORT", broker.ports.tls.to_string())
        .env("WEBSOCKET_URL", url)
        .env("BROKER_USER", ALICE.0)
        .env("BROKER_PASSWORD", ALICE.1);
    let _running = node_red.spawn().unwrap();

    for (question, sum) in [("[1, 2, 3]", 6), ("[20, 22]", 42)] {
        let filter = ["-V", "5", "-t", "app/alice/answer/+", "-q", "2", "-F", "%t %q %D %P %p"];
        let mut listener = broker.listen(&filter).await;
        for way in ["tls", "websocket"] {
            let answer = format!("app/alice/answer/{way}");
            // Retained: it waits for Node-RED.
            let mut ask = vec!["-V", "5", "-r", "-q", "2"];
            for (property, value) in [("correlation-data", way), ("response-topic", &answer)] {
                ask.extend(["-D", "publish", property, value]);
            }
            ask.extend(["-D", "publish", "user-property", "unit", "m"]);
            broker.publish(&format!("app/alice/question/{way}"), question, &ask).await;
            let wanted = format!(r#"{answer} 2 {way} unit:m {{"sum":{sum}}}"#);
            // It may have answered the last question again.
            while listener.next().await != wanted {}
        }
        broker.restart().await;
    }
}
