//! `mosquitto_pub` and `mosquitto_sub`, over TLS but where it is said.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use godwit_bus::{Config, Credentials, Publication, Session};
use godwit_proto::topic::{Filter, Topic};
use tokio::process::Command;

use crate::broker::{ALICE, Broker};
use crate::in_time;
use crate::programs::{Ended, Speaker, debian, run};

const VERSIONS: [&str; 2] = ["311", "5"];

impl Broker {
    /// One of mosquitto's clients as nobody in particular.
    fn stranger(&self, program: &str, args: &[&str]) -> Command {
        let mut command = debian(program, "mosquitto-clients");
        command.args(["-h", "127.0.0.1", "-p", &self.ports.tls.to_string(), "--cafile"]);
        command.arg(self.authority()).args(args);
        command
    }

    /// One of them as Alice.
    fn mosquitto(&self, program: &str, args: &[&str]) -> Command {
        let mut command = self.stranger(program, &["-u", ALICE.0, "-P", ALICE.1]);
        command.args(args);
        command
    }

    /// Publishes as Alice, and says that it worked.
    pub(crate) async fn publish(&self, topic: &str, message: &str, args: &[&str]) {
        let args = [&["-t", topic, "-m", message], args].concat();
        let ended = run(self.mosquitto("mosquitto_pub", &args)).await;
        assert!(ended.is_success && ended.complained.is_empty(), "{ended:?}");
    }

    /// Listens as Alice; what is published from here on is heard.
    pub(crate) async fn listen(&self, args: &[&str]) -> Speaker {
        static LISTENERS: AtomicU32 = AtomicU32::new(0);
        // Retained before it listens: who hears it has its subscriptions.
        let ready = format!("app/alice/ready/{}", LISTENERS.fetch_add(1, Ordering::Relaxed));
        self.publish(&ready, "ready", &["-r", "-q", "1"]).await;
        let args = [args, &["-t", &ready]].concat();
        let mut listener = Speaker::start(self.mosquitto("mosquitto_sub", &args));
        assert!(listener.next().await.contains("ready"));
        listener
    }
}

fn has_failed(ended: &Ended, with: &str) -> bool {
    !ended.is_success && ended.complained.to_lowercase().contains(with)
}

#[tokio::test]
async fn mosquitto_sends_and_hears_each_quality_in_either_version() {
    let broker = Broker::start().await;
    for version in VERSIONS {
        let format = ["-q", "2", "-V", version, "-F", "%t %q %r %p", "-t", "app/alice/+"];
        let mut listener = broker.listen(&format).await;
        for qos in ["0", "1", "2"] {
            broker.publish("app/alice/news", "grüße", &["-V", version, "-q", qos]).await;
            assert_eq!(listener.next().await, format!("app/alice/news {qos} 0 grüße"));
        }
    }
}

#[tokio::test]
async fn mosquitto_of_mqtt_3_1_is_refused_and_says_why() {
    let broker = Broker::start().await;
    for program in ["mosquitto_pub -m x", "mosquitto_sub"] {
        let mut words = program.split(' ');
        let mut command = broker.mosquitto(words.next().unwrap(), &["-V", "31"]);
        command.args(["-t", "app/alice/news"]).args(words);
        let ended = run(command).await;
        assert!(has_failed(&ended, "unacceptable protocol version"), "{ended:?}");
    }
    broker.log.line(&["MQTT 3.1 is not served", "3.1.1 or 5"]).await;
}

#[tokio::test]
async fn mosquitto_finds_what_was_retained_until_it_is_cleared() {
    let broker = Broker::start().await;
    for version in VERSIONS {
        let topic = format!("app/alice/state/{version}");
        broker.publish(&topic, "kept", &["-r", "-q", "1", "-V", version]).await;
        let filter = ["-V", version, "-F", "%r %p", "-t", "app/alice/state/#"];
        let ended = run(broker.mosquitto("mosquitto_sub", &[&filter[..], &["-C", "1"]].concat()));
        assert_eq!(ended.await.said, "1 kept\n");
        let clear = ["-r", "-n", "-q", "1", "-V", version, "-t", &topic];
        assert!(run(broker.mosquitto("mosquitto_pub", &clear)).await.is_success);
        let mut late = broker.listen(&["-V", version, "-t", "app/alice/state/#"]).await;
        broker.publish(&topic, "new", &[]).await;
        assert_eq!(late.next().await, "new");
    }
}

#[tokio::test]
async fn the_will_of_mosquitto_is_published_when_it_is_killed() {
    let broker = Broker::start().await;
    let mut listener = broker.listen(&["-t", "app/alice/last", "-F", "%t %q %p"]).await;
    for version in VERSIONS {
        let will = ["--will-topic", "app/alice/last", "--will-payload", version, "-V", version];
        let mut mortal = broker.listen(&[&will[..], &["-t", "app/alice/none"]].concat()).await;
        mortal.child.kill().await.unwrap();
        assert_eq!(listener.next().await, format!("app/alice/last 0 {version}"));
    }
}

#[tokio::test]
async fn properties_of_mosquitto_arrive() {
    let broker = Broker::start().await;
    let format = "%C|%D|%R|%P|%F|%E|%S|%p";
    let given = ["-V", "5", "-t", "app/alice/order", "-D", "subscribe", "subscription-identifier"];
    let mut listener = broker.listen(&[&given[..], &["7", "-F", format]].concat()).await;
    let properties = "content-type text/plain correlation-data order-1 \
        response-topic app/alice/answer payload-format-indicator 1 message-expiry-interval 600";
    let words: Vec<_> = properties.split(' ').collect();
    let mut args = vec!["-V", "5", "-q", "1", "-D", "publish", "user-property", "colour", "red"];
    args.extend(words.chunks(2).flat_map(|pair| ["-D", "publish", pair[0], pair[1]]));
    broker.publish("app/alice/order", "x", &args).await;
    let heard = listener.next().await;
    assert_eq!(heard, "text/plain|order-1|app/alice/answer|colour:red|1|600|7|x");
}

#[tokio::test]
async fn mosquitto_takes_its_session_back() {
    let mut broker = Broker::start().await;
    for version in VERSIONS {
        let topic = format!("app/alice/kept/{version}");
        let mut session = vec!["-V", version, "-i", version, "-c", "-q", "2", "-t", &topic];
        if version == "5" {
            session.extend(["-x", "3600"]);
        }
        let begun = run(broker.mosquitto("mosquitto_sub", &[&session[..], &["-E"]].concat())).await;
        assert!(begun.is_success, "{begun:?}");
        for message in ["1", "2"] {
            broker.publish(&topic, message, &["-q", message]).await;
        }
        broker.restart().await;
        broker.publish(&topic, "3", &["-q", "1"]).await;
        session.extend(["-C", "3", "-F", "%q %p"]);
        let ended = run(broker.mosquitto("mosquitto_sub", &session)).await;
        // The second is heard when it is released.
        let mut heard: Vec<_> = ended.said.lines().collect();
        heard.sort_unstable();
        assert_eq!(heard, ["1 1", "1 3", "2 2"], "{ended:?}");
    }
}

#[tokio::test]
async fn listeners_of_mosquitto_share_their_messages() {
    let broker = Broker::start().await;
    for version in VERSIONS {
        let group = format!("$share/{version}/app/alice/work");
        let filter = ["-V", version, "-q", "1", "-t", &group];
        let (mut one, mut other) = (broker.listen(&filter).await, broker.listen(&filter).await);
        for message in 0..4 {
            let args = ["-q", "1"];
            broker.publish("app/alice/work", &message.to_string(), &args).await;
        }
        let mut heard = Vec::new();
        for _ in 0..2 {
            heard.extend([one.next().await, other.next().await]);
        }
        heard.sort();
        assert_eq!(heard, ["0", "1", "2", "3"]);
    }
}

#[tokio::test]
async fn mosquitto_is_told_what_it_may_not_do() {
    let broker = Broker::start().await;
    let mut listener = broker.listen(&["-t", "app/+/in"]).await;
    let publish = ["-t", "app/bob/in", "-m", "x", "-q", "1", "-V"];
    let ended = run(broker.mosquitto("mosquitto_pub", &[&publish[..], &["5"]].concat())).await;
    assert!(ended.complained.contains("Not authorized"), "{ended:?}");
    // 3.1.1 has no word for it.
    let ended = run(broker.mosquitto("mosquitto_pub", &[&publish[..], &["311"]].concat())).await;
    assert!(ended.is_success, "{ended:?}");
    for version in VERSIONS {
        let args = ["-t", "app/bob/#", "-V", version];
        let ended = run(broker.mosquitto("mosquitto_sub", &args)).await;
        assert!(ended.complained.contains("All subscription requests were denied"), "{ended:?}");
    }
    broker.publish("app/alice/in", "mine", &[]).await;
    assert_eq!(listener.next().await, "mine");
    broker.log.line(&["app/bob/in", "alice"]).await;
}

#[tokio::test]
async fn mosquitto_with_a_wrong_password_is_told_so() {
    let broker = Broker::start().await;
    let publish = ["-t", "app/alice/news", "-m", "x", "-V"];
    for version in VERSIONS {
        let mut command = broker.stranger("mosquitto_pub", &publish);
        command.args([version, "-u", ALICE.0, "-P", "guess"]);
        let ended = run(command).await;
        assert!(has_failed(&ended, "bad user name or password"), "{ended:?}");
    }
    let ended = run(broker.stranger("mosquitto_pub", &[&publish[..], &["5"]].concat())).await;
    assert!(has_failed(&ended, "not authorized"), "{ended:?}");
    broker.log.line(&["password is wrong", ALICE.0]).await;
}

#[tokio::test]
async fn a_megabyte_goes_through_mosquitto_unchanged() {
    let broker = Broker::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("payload");
    let payload: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(at) >> 5) as u8).collect();
    std::fs::write(&file, &payload).unwrap();
    for version in VERSIONS {
        let publish = ["-V", version, "-t", "app/alice/file", "-r", "-q", "2", "-f"];
        let mut command = broker.mosquitto("mosquitto_pub", &publish);
        command.arg(&file);
        let ended = run(command).await;
        assert!(ended.is_success, "{ended:?}");
        let take = ["-V", version, "-t", "app/alice/file", "-q", "2", "-C", "1", "-N"];
        let mut command = broker.mosquitto("mosquitto_sub", &take);
        let taken = in_time(command.output()).await.unwrap();
        assert!(taken.stdout == payload, "{} bytes came", taken.stdout.len());
    }
}

#[tokio::test]
async fn mosquitto_reads_who_the_broker_is() {
    let broker = Broker::start().await;
    for version in VERSIONS {
        let args = ["-V", version, "-t", "$SYS/broker/version", "-C", "1"];
        let ended = run(broker.mosquitto("mosquitto_sub", &args)).await;
        assert_eq!(ended.said, format!("godwit-broker version {}\n", env!("CARGO_PKG_VERSION")));
    }
}

/// What a client cannot say, its operator finds in the log.
#[tokio::test]
async fn mosquitto_at_the_wrong_door_is_heard_of() {
    let (broker, other) = (Broker::start().await, Broker::start().await);
    let ports = broker.ports;
    let at_the_door = async |of: &Broker, port: u16, word: &str| {
        let port = port.to_string();
        let args = ["-p", &port, "-t", "app/alice/news", "-m", "x"];
        let ended = run(of.mosquitto("mosquitto_pub", &args)).await;
        assert!(!ended.is_success && !ended.complained.is_empty(), "{ended:?}");
        broker.log.line(&["client turned away", word]).await;
    };
    at_the_door(&other, ports.tls, "TLS handshake failed: received fatal alert").await;
    at_the_door(&broker, ports.mqtt, "it speaks TLS, which is not accepted").await;
    at_the_door(&broker, ports.secure_websocket, "it speaks MQTT, which is not accepted").await;
}

#[tokio::test]
async fn a_session_of_ours_hears_mosquitto_and_is_heard() {
    let broker = Broker::start().await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, broker.ports.mqtt));
    let (username, password) = (ALICE.0.to_owned(), ALICE.1.to_owned());
    let mut config = Config::new(address.into(), "controller");
    config.credentials = Some(Credentials { username, password });
    config.subscriptions = vec![Filter::Commands];
    let (session, mut inbox) = Session::open(config).unwrap();
    in_time(session.up()).await.unwrap();
    let command: Topic = "godwit/v1/tenant/alice/command/migrate".parse().unwrap();
    let reply: Topic = "godwit/v1/tenant/alice/reply/1".parse().unwrap();
    let mut listener = broker.listen(&["-t", "godwit/v1/tenant/alice/reply/+"]).await;
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            broker.publish(&command.to_string(), qos, &["-V", version, "-q", qos]).await;
            let delivery = in_time(inbox.recv()).await.unwrap();
            assert_eq!(
                (delivery.topic.as_ref(), &*delivery.payload),
                (Some(&command), qos.as_bytes())
            );
            in_time(session.publish_acked(Publication::new(&reply, "done"))).await.unwrap();
            assert_eq!(listener.next().await, "done");
        }
    }
}
