//! Two clients that mean no harm, with a library that others use: one publishes numbered messages of
//! QoS 1, the other has every one of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::words::Account;

/// Between two messages.
const PERIOD: Duration = Duration::from_millis(5);
/// Whoever is late by that is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// What they have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// How often either lost its connection.
    pub(crate) cut: u64,
    pub(crate) longest_delay: Duration,
}

/// The pair at work.
#[derive(Debug)]
pub(crate) struct Bystanders {
    shared: Arc<Shared>,
    stop: oneshot::Sender<()>,
    publisher: JoinHandle<()>,
    loops: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How often each number has come.
    heard: Mutex<BTreeMap<u64, u64>>,
    sent: AtomicU64,
    cut: AtomicU64,
    longest_us: AtomicU64,
}

impl Shared {
    fn heard(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u64>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn options(address: SocketAddr, client: &str, account: Option<&Account>) -> MqttOptions {
    let mut options = MqttOptions::new(client, address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(30)).set_clean_start(false);
    options.set_session_expiry_interval(Some(600)).set_connection_timeout(30);
    if let Some(Account { user, password }) = account {
        options.set_credentials(user, password);
    }
    options
}

impl Bystanders {
    /// Connects both; when this returns the one hears the other.
    pub(crate) async fn start(
        address: SocketAddr,
        prefix: &str,
        run: u64,
        account: Option<&Account>,
    ) -> Self {
        // Nobody else knows it.
        let topic = format!("{prefix}/bystander/{run:016x}");
        let (shared, epoch) = (Arc::new(Shared::default()), Instant::now());
        let name = |which: &str| format!("bystander-{which}-{run:x}");
        let (reader, events) = AsyncClient::new(options(address, &name("reads"), account), 100);
        let (ready, is_ready) = oneshot::channel();
        let hearing = tokio::spawn(hear(events, shared.clone(), epoch, ready));
        reader.subscribe(&topic, QoS::AtLeastOnce).await.expect("its event loop runs");
        in_time(is_ready).await.expect("it is subscribed");
        let (writer, events) = AsyncClient::new(options(address, &name("writes"), account), 100);
        let speaking = tokio::spawn(speak(events, shared.clone()));
        let (stop, stopped) = oneshot::channel();
        let publisher = tokio::spawn(publish(writer, topic, shared.clone(), epoch, stopped));
        // It hears as long as its reader is there.
        let hearing = tokio::spawn(async move {
            let _reader = reader;
            hearing.await.expect("it does not panic");
        });
        Self { shared, stop, publisher, loops: vec![hearing, speaking] }
    }

    /// Stops publishing and waits for what is on its way.
    pub(crate) async fn finish(self) -> Seen {
        let Self { shared, stop, publisher, loops } = self;
        // It may have ended.
        let _ = stop.send(());
        in_time(publisher).await.expect("it does not panic");
        let sent = shared.sent.load(Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while (shared.heard().len() as u64) < sent && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        loops.iter().for_each(JoinHandle::abort);
        let heard = shared.heard();
        Seen {
            sent,
            lost: sent - heard.len() as u64,
            doubled: heard.values().map(|count| count - 1).sum(),
            cut: shared.cut.load(Relaxed),
            longest_delay: Duration::from_micros(shared.longest_us.load(Relaxed)),
        }
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the bystanders are not served")
}

async fn publish(
    client: AsyncClient,
    topic: String,
    shared: Arc<Shared>,
    epoch: Instant,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0_u64.. {
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            _ = ticks.tick() => {}
        }
        let now_us = epoch.elapsed().as_micros() as u64;
        let payload = [number.to_be_bytes(), now_us.to_be_bytes()].concat();
        let sent = client.publish(&topic, QoS::AtLeastOnce, false, payload).await;
        sent.expect("its event loop runs");
        shared.sent.fetch_add(1, Relaxed);
    }
}

/// Keeps the publisher's connection.
async fn speak(mut events: EventLoop, shared: Arc<Shared>) {
    loop {
        if events.poll().await.is_err() {
            lost(&shared).await;
        }
    }
}

async fn hear(
    mut events: EventLoop,
    shared: Arc<Shared>,
    epoch: Instant,
    ready: oneshot::Sender<()>,
) {
    let mut ready = Some(ready);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::SubAck(_))) => {
                // Nobody waits for a second one.
                let _ = ready.take().map(|ready| ready.send(()));
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let (Some(number), Some(sent_us)) =
                    (number(&publish.payload, 0), number(&publish.payload, 8))
                else {
                    continue;
                };
                *shared.heard().entry(number).or_insert(0) += 1;
                let delay_us = (epoch.elapsed().as_micros() as u64).saturating_sub(sent_us);
                shared.longest_us.fetch_max(delay_us, Relaxed);
            }
            Ok(_) => {}
            Err(_) => lost(&shared).await,
        }
    }
}

async fn lost(shared: &Shared) {
    shared.cut.fetch_add(1, Relaxed);
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn number(payload: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*payload.get(at..)?.first_chunk()?))
}
