//! One end of a conversation over MQTT whose other end is a talker too: one inside a container
//! that moves, one outside. Both say numbered messages and keep the books of what they hear.
//!
//!     talker CLIENT-ID ADDRESS:PORT SAY HEAR [first]
//!
//! SAY and HEAR are topics: a message is said on SAY/1 with QoS 1, a thousand a second, and on
//! SAY/2 with QoS 2, a hundred a second. Who is `first` talks as soon as it is subscribed, the
//! other when it hears that: so both are to hear everything, from number 1 on. SIGTERM, or the
//! other's last message, ends the talk. `ACCOUNT=NAME:PASSWORD` and `AUTHORITY`, the certificate
//! by which a broker that speaks TLS is believed, are variables; both may be missing.
//!
//! There is one connection, and none after it. The books go to stdout, a line of JSON each
//! second and when the talk is over. Who is `first` stays connected after that.

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, Publish, QoS,
    TlsConfiguration, Transport,
};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::interval;

/// So short that it is due again and again while the container moves.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// rumqttc counts packets up to here, then from 1 again, and looks away when a message of QoS 2
/// still has that number: it must not get round before such a message is completed.
const PACKET_NUMBERS: u16 = 10_000;
/// How many messages wait between a flow and the connection.
const QUEUED: usize = 100;
/// How late a message may be that is the last: the talk has kept its pace up to there.
const LATE: Duration = Duration::from_millis(50);
/// Each flow's service, and the time between two of its messages.
const FLOWS: [(QoS, Duration); 2] =
    [(QoS::AtLeastOnce, Duration::from_millis(1)), (QoS::ExactlyOnce, Duration::from_millis(10))];

/// What has come of one flow.
#[derive(Debug, Default, Serialize)]
struct Heard {
    last: usize,
    missing: usize,
    doubled: usize,
    /// Messages that came after one with a higher number.
    overtaken: usize,
    /// Messages that the broker says it has sent before.
    repeated: usize,
    is_over: bool,
    #[serde(skip)]
    numbers: HashSet<usize>,
}

impl Heard {
    fn enter(&mut self, message: &Publish) {
        let text = String::from_utf8_lossy(&message.payload);
        let number = text.trim_end_matches('.').parse().expect("talkers say numbers");
        self.overtaken += usize::from(number < self.last);
        self.doubled += usize::from(!self.numbers.insert(number));
        self.last = self.last.max(number);
        self.missing = self.last - self.numbers.len();
        self.repeated += usize::from(message.dup);
        self.is_over |= text.ends_with('.');
    }
}

/// All that a talker knows; what there is twice is by flow.
#[derive(Debug, Default, Serialize)]
struct Books {
    subscribed: usize,
    said: [usize; 2],
    /// How many of them the broker has acknowledged for good.
    settled: [usize; 2],
    /// Flows in which the last is said.
    ended: usize,
    heard: [Heard; 2],
    seconds: f64,
    is_over: bool,
    /// Why there is no connection any more.
    lost: Option<String>,
}

/// How far a talk has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Listening,
    Talking,
    Ending,
}

struct Talk {
    client: AsyncClient,
    say: String,
    is_first: bool,
    begun: Instant,
    stage: watch::Sender<Stage>,
    books: Mutex<Books>,
}

impl Talk {
    fn with_books<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        act(&mut self.books.lock().expect("nobody panics with the books"))
    }

    fn reach(&self, stage: Stage) {
        self.stage.send_if_modified(|at| std::mem::replace(at, stage.max(*at)) < stage);
    }

    /// Says one flow's messages until the talk ends. What was due while it stood still is said
    /// later: by its own clock it keeps its pace.
    async fn say(self: Arc<Self>, flow: usize) {
        let mut stage = self.stage.subscribe();
        let talks = stage.wait_for(|stage| *stage >= Stage::Talking).await.map(drop);
        talks.expect("the stage is ours");
        let ((qos, pause), topic) = (FLOWS[flow], format!("{}/{}", self.say, flow + 1));
        let mut pause = interval(pause);
        for number in 1.. {
            let due = pause.tick().await;
            let is_last = *stage.borrow() == Stage::Ending && due.elapsed() < LATE;
            self.with_books(|books| {
                books.said[flow] = number;
                books.ended += usize::from(is_last);
            });
            let text = format!("{number}{}", if is_last { "." } else { "" });
            if self.client.publish(&topic, qos, false, text).await.is_err() || is_last {
                return;
            }
        }
    }

    /// Carries the connection: for ever, or until the talk is over.
    async fn hold(&self, mut connection: EventLoop) -> Result<(), ConnectionError> {
        loop {
            if let Event::Incoming(packet) = connection.poll().await? {
                let is_over_now = self.with_books(|books| self.enter(books, packet));
                if is_over_now {
                    self.print();
                    if !self.is_first {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// True for the packet that ends the talk.
    fn enter(&self, books: &mut Books, packet: Packet) -> bool {
        match packet {
            Packet::SubAck(_) => books.subscribed += 1,
            Packet::PubAck(_) => books.settled[0] += 1,
            Packet::PubComp(_) => books.settled[1] += 1,
            Packet::Publish(message) => {
                books.heard[usize::from(message.topic.ends_with("/2"))].enter(&message);
            }
            _ => {}
        }
        if books.heard.iter().any(|heard| heard.is_over) {
            self.reach(Stage::Ending);
        } else if self.is_first && books.subscribed == FLOWS.len()
            || books.heard.iter().any(|heard| heard.last > 0)
        {
            self.reach(Stage::Talking);
        }
        let is_over = books.ended == FLOWS.len()
            && books.said == books.settled
            && books.heard.iter().all(|heard| heard.is_over);
        is_over && !std::mem::replace(&mut books.is_over, true)
    }

    #[expect(clippy::print_stdout, reason = "what it is for")]
    fn print(&self) {
        let line = self.with_books(|books| {
            books.seconds = self.begun.elapsed().as_secs_f64();
            serde_json::to_string(books)
        });
        println!("{}", line.expect("books are JSON"));
    }
}

/// The broker's address, and what it must be told and shown, as the environment has it.
fn options(id: &str, address: &str) -> Option<MqttOptions> {
    let (host, port) = address.rsplit_once(':')?;
    let mut options = MqttOptions::new(id, host, port.parse().ok()?);
    options.set_keep_alive(KEEP_ALIVE).set_inflight(PACKET_NUMBERS);
    if let Ok(account) = std::env::var("ACCOUNT") {
        let (name, password) = account.split_once(':')?;
        options.set_credentials(name, password);
    }
    if let Ok(authority) = std::env::var("AUTHORITY") {
        let (ca, alpn, client_auth) = (authority.into_bytes(), None, None);
        let tls = TlsConfiguration::Simple { ca, alpn, client_auth };
        options.set_transport(Transport::Tls(tls));
    }
    Some(options)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [id, address, say, hear, rest @ ..] = &args[..] else { return ExitCode::FAILURE };
    let Some(options) = options(id, address) else { return ExitCode::FAILURE };
    let (client, mut connection) = AsyncClient::new(options, QUEUED);
    connection.network_options.set_tcp_nodelay(true);
    let talk = Arc::new(Talk {
        client,
        say: say.clone(),
        is_first: rest.iter().any(|word| word == "first"),
        begun: Instant::now(),
        stage: watch::Sender::new(Stage::Listening),
        books: Mutex::default(),
    });
    for (flow, (qos, _)) in FLOWS.iter().enumerate() {
        let subscribed = talk.client.subscribe(format!("{hear}/{}", flow + 1), *qos).await;
        subscribed.expect("there is room in the queue");
        tokio::spawn(Arc::clone(&talk).say(flow));
    }
    let asked = Arc::clone(&talk);
    let mut terminate = signal(SignalKind::terminate()).expect("a handler");
    tokio::spawn(async move {
        terminate.recv().await;
        asked.reach(Stage::Ending);
    });
    let regular = Arc::clone(&talk);
    tokio::spawn(async move {
        let mut second = interval(Duration::from_secs(1));
        while !regular.with_books(|books| books.is_over) {
            regular.print();
            second.tick().await;
        }
    });
    match talk.hold(connection).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            talk.with_books(|books| books.lost = Some(error.to_string()));
            talk.print();
            ExitCode::FAILURE
        }
    }
}
