//! Publishers to subscribers, as fast as it goes, with a bound on what is under way.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::{self, Publishing};
use crate::{Shape, Target, report};

/// A subscriber that hears nothing for so long, while something is due, has lost it.
const LOST_AFTER: Duration = Duration::from_millis(500);
const WARM_UP: Duration = Duration::from_millis(500);

/// What publishers and subscribers share.
pub(crate) struct Flow {
    begun: Instant,
    /// Deliveries for each message.
    fan: u64,
    /// Deliveries that may be due.
    most: u64,
    due: AtomicU64,
    settled: AtomicU64,
    delivered: AtomicU64,
    acknowledged: AtomicU64,
    is_waited_for: AtomicBool,
    room: Notify,
    over: CancellationToken,
}

impl Flow {
    /// For a fan of so many, and so many messages under way.
    pub(crate) fn new(fan: u64, most: u64) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            fan,
            most: most * fan,
            due: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            is_waited_for: AtomicBool::new(false),
            room: Notify::new(),
            over: CancellationToken::new(),
        })
    }

    /// Nanoseconds since it began.
    pub(crate) fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// Takes a place for one message, if there is one. For one thread.
    pub(crate) fn may_send(&self) -> bool {
        if self.under_way() + self.fan > self.most {
            self.is_waited_for.store(true, Relaxed);
            // It may have become so between the two.
            if self.under_way() + self.fan > self.most {
                return false;
            }
        }
        self.due.fetch_add(self.fan, Relaxed);
        true
    }

    /// So many deliveries were made.
    pub(crate) fn delivered(&self, count: u64) {
        if count > 0 {
            self.delivered.fetch_add(count, Relaxed);
            self.settle(count);
        }
    }

    /// One PUBACK or PUBCOMP came.
    pub(crate) fn acknowledged(&self) {
        self.acknowledged.fetch_add(1, Relaxed);
    }

    /// How many of them came.
    pub(crate) fn acknowledgements(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// How many deliveries were made.
    pub(crate) fn deliveries(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Ends when there is much room again.
    pub(crate) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    fn under_way(&self) -> u64 {
        self.due.load(Relaxed).saturating_sub(self.settled.load(Relaxed))
    }

    fn settle(&self, count: u64) {
        self.settled.fetch_add(count, Relaxed);
        // Not for every place: all publishers wake.
        if self.under_way() <= self.most / 2 && self.is_waited_for.swap(false, Relaxed) {
            self.room.notify_waiters();
        }
    }

    /// Gives up what does not come.
    fn write_off(&self) -> u64 {
        let lost = self.under_way();
        self.settle(lost);
        lost
    }
}

/// Measures for the shape's time and prints the rates of delivered messages and bytes.
pub(crate) fn measure(target: &Target, shape: &Shape) -> anyhow::Result<()> {
    let flow = start(target, shape)?;
    let (mut lost, mut last) = (0, (flow.deliveries(), Instant::now()));
    let mut watch = |until: Instant| {
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
            let now = flow.deliveries();
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > LOST_AFTER {
                lost += flow.write_off();
                last.1 = Instant::now();
            }
        }
    };
    watch(Instant::now() + WARM_UP);
    let (since, before) = (Instant::now(), flow.deliveries());
    watch(since + Duration::from_secs_f64(shape.seconds));
    let rate = (flow.deliveries() - before) as f64 / since.elapsed().as_secs_f64();
    flow.end();
    report("msgs_per_s", rate);
    report("mb_per_s", rate * shape.bytes as f64 / 1e6);
    report("lost", lost as f64);
    Ok(())
}

/// Starts a flow on threads of its own; when it returns, all clients are there.
pub(crate) fn start(target: &Target, shape: &Shape) -> anyhow::Result<Arc<Flow>> {
    let flow = Flow::new(shape.subscribers.into(), shape.most);
    let mut shape = shape.clone();
    if target.raw {
        // Nobody acknowledges.
        shape.qos = 0;
    }
    let connected = Connected::new();
    on_thread(subscribers(target.clone(), shape.clone(), flow.clone(), connected.ready()));
    connected.wait()?;
    on_thread(publishers(target.clone(), shape, flow.clone(), connected.ready()));
    connected.wait()?;
    Ok(flow)
}

fn publishing(shape: &Shape) -> Publishing {
    Publishing {
        qos: shape.qos,
        topic: "bench/load".into(),
        payload: vec![b'x'; shape.bytes].into(),
        window: shape.window,
    }
}

async fn publishers(
    target: Target,
    shape: Shape,
    flow: Arc<Flow>,
    connected: Ready,
) -> anyhow::Result<()> {
    let mut all = JoinSet::new();
    for number in 0..shape.publishers {
        let stream = client::connect(&target, &format!("publisher-{number}"), true).await?;
        all.spawn(client::publish(stream, publishing(&shape), flow.clone()));
    }
    connected.now();
    wait(all, &flow).await
}

async fn subscribers(
    target: Target,
    shape: Shape,
    flow: Arc<Flow>,
    connected: Ready,
) -> anyhow::Result<()> {
    let mut all = JoinSet::new();
    let (is_clean, qos) = (!shape.persistent, shape.qos);
    let bytes = (256 << 10) / shape.subscribers.clamp(1, 16) as usize;
    for number in 0..shape.subscribers {
        let name = format!("subscriber-{number}");
        let stream = client::subscribe(&target, &name, is_clean, "bench/load", qos).await?;
        all.spawn(client::receive(stream, bytes, flow.clone(), |_| {}));
    }
    connected.now();
    wait(all, &flow).await
}

/// Waits for clients; one that fails before the end fails all.
async fn wait(mut clients: JoinSet<std::io::Result<()>>, flow: &Flow) -> anyhow::Result<()> {
    while let Some(ended) = clients.join_next().await {
        match ended? {
            Err(error) if !flow.is_over() => return Err(error).context("a client was cut off"),
            _ => {}
        }
    }
    Ok(())
}

/// Waits until clients on another thread are ready.
pub(crate) struct Connected {
    sender: mpsc::Sender<()>,
    receiver: mpsc::Receiver<()>,
}

/// Says that they are.
pub(crate) struct Ready(mpsc::Sender<()>);

impl Connected {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel();
        Self { sender, receiver }
    }

    /// For one thread to say it.
    pub(crate) fn ready(&self) -> Ready {
        Ready(self.sender.clone())
    }

    /// Waits until one thread has said it.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        self.receiver.recv_timeout(Duration::from_secs(30)).context("the clients do not connect")
    }
}

impl Ready {
    pub(crate) fn now(&self) {
        // Nobody waits any more for one that comes too late.
        let _ = self.0.send(());
    }
}

/// Runs clients on a thread of their own. A failure ends the process: there is nothing to measure.
pub(crate) fn on_thread(clients: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = runtime.context("no runtime").and_then(|runtime| runtime.block_on(clients));
        if let Err(error) = ended {
            #[expect(clippy::print_stderr, reason = "its only way out")]
            {
                eprintln!("{error:#}");
            }
            std::process::exit(1);
        }
    });
}
