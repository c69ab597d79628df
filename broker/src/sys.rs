//! What the broker says of itself in `$SYS/broker`, under mosquitto's names.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::metrics::{Metrics, now, resident_bytes};
use crate::report::Inventory;

/// Names of the spans over which a load is averaged, with their lengths in seconds.
const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

/// Says at every interval what changed, until `shutdown`.
pub(crate) async fn run(control: Control, shutdown: CancellationToken) {
    let Some(every) = control.sys_interval() else { return };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = HashMap::new();
    let mut loads = Loads::default();
    let mut last = Instant::now();
    let reports = async {
        loop {
            ticks.tick().await;
            // A broker that does not answer has nothing to say.
            let Ok(inventory) = control.inventory().await else { continue };
            let now = Instant::now();
            loads.take(control.metrics(), now.duration_since(last));
            last = now;
            let mut values = values(control.metrics(), &inventory);
            values.extend(loads.values());
            let is_new = |(topic, value): &(String, String)| {
                said.insert(topic.clone(), value.clone()).as_ref() != Some(value)
            };
            let news = values.into_iter().filter(is_new);
            let message =
                |(topic, value): (String, String)| (full(&topic), Bytes::from(value.into_bytes()));
            control.publish_all(news.map(message).collect::<Vec<_>>(), true).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = reports => {}
    }
}

fn full(topic: &str) -> String {
    format!("$SYS/broker/{topic}")
}

fn values(metrics: &Metrics, all: &Inventory) -> Vec<(String, String)> {
    let stored = all.retained_messages + all.queued_messages;
    let bytes = all.retained_bytes + all.queued_bytes;
    let away = all.sessions - all.connected;
    let most = metrics.connected_max.load(Ordering::Relaxed);
    let held = [
        ("clients/total", all.sessions),
        ("clients/connected", all.connected),
        ("clients/disconnected", away),
        ("clients/maximum", most),
        ("messages/stored", stored),
        ("store/messages/count", stored),
        ("store/messages/bytes", bytes),
        ("subscriptions/count", all.subscriptions),
        ("shared_subscriptions/count", all.shared_subscriptions),
        ("retained messages/count", all.retained_messages),
    ];
    let counted = [
        ("clients/expired", now(&metrics.sessions_expired)),
        ("messages/received", now(&metrics.packets_received)),
        ("messages/sent", now(&metrics.packets_sent)),
        ("bytes/received", now(&metrics.bytes_received)),
        ("bytes/sent", now(&metrics.bytes_sent)),
        ("publish/messages/received", now(&metrics.messages_received)),
        ("publish/messages/sent", now(&metrics.messages_sent)),
        ("publish/messages/dropped", metrics.dropped.all()),
        ("publish/bytes/received", now(&metrics.payload_bytes_received)),
        ("publish/bytes/sent", now(&metrics.payload_bytes_sent)),
    ];
    let heap = resident_bytes().map(|bytes| ("heap/current", bytes));
    let version = format!("godwit-broker version {}", env!("CARGO_PKG_VERSION"));
    let uptime = format!("{} seconds", metrics.started.elapsed().as_secs());
    let texts =
        [("version", version), ("uptime", uptime)].map(|(topic, text)| (topic.into(), text));
    let held = held.map(|(topic, value)| (topic.to_owned(), value.to_string()));
    let counted = counted.into_iter().chain(heap);
    let counted = counted.map(|(topic, value)| (topic.to_owned(), value.to_string()));
    texts.into_iter().chain(held).chain(counted).collect()
}

/// How much came and went a minute, averaged over some time.
#[derive(Debug, Default)]
struct Loads([Load; 9]);

impl Loads {
    fn take(&mut self, metrics: &Metrics, elapsed: Duration) {
        let totals = [
            ("messages/received", now(&metrics.packets_received)),
            ("messages/sent", now(&metrics.packets_sent)),
            ("bytes/received", now(&metrics.bytes_received)),
            ("bytes/sent", now(&metrics.bytes_sent)),
            ("publish/received", now(&metrics.messages_received)),
            ("publish/sent", now(&metrics.messages_sent)),
            ("publish/dropped", metrics.dropped.all()),
            ("sockets", now(&metrics.sockets)),
            ("connections", now(&metrics.connections) + metrics.connections_refused.all()),
        ];
        for (load, (name, total)) in self.0.iter_mut().zip(totals) {
            load.name = name;
            load.take(total, elapsed.as_secs_f64());
        }
    }

    fn values(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().flat_map(|load| {
            SPANS.iter().zip(load.per_minute).map(|((span, _), value)| {
                (format!("load/{}/{span}", load.name), format!("{value:.2}"))
            })
        })
    }
}

#[derive(Debug, Default)]
struct Load {
    name: &'static str,
    total: u64,
    /// Weighted the less the longer ago, for each span.
    per_minute: [f64; SPANS.len()],
}

impl Load {
    fn take(&mut self, total: u64, seconds: f64) {
        let count = total.saturating_sub(std::mem::replace(&mut self.total, total));
        if seconds <= 0.0 {
            return;
        }
        let rate = count as f64 * 60.0 / seconds;
        for (average, (_, span)) in self.per_minute.iter_mut().zip(SPANS) {
            let kept = (-seconds / span).exp();
            *average = rate + kept * (*average - rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_load_is_reached_by_the_short_average_before_the_long() {
        let mut load = Load::default();
        // 10 every 10 s: 60 a minute.
        (1..=12).for_each(|tick| load.take(10 * tick, 10.0));
        let [short, middle, long] = load.per_minute;
        assert!((51.0..53.0).contains(&short), "{short}");
        assert!((19.0..20.0).contains(&middle), "{middle}");
        assert!((7.0..8.0).contains(&long), "{long}");
        (0..600).for_each(|_| load.take(120, 10.0));
        assert!(load.per_minute.iter().all(|average| *average < 0.1), "{:?}", load.per_minute);
    }

    #[test]
    fn the_names_are_mosquittos() {
        let mut loads = Loads::default();
        loads.take(&Metrics::default(), Duration::from_secs(10));
        let all = values(&Metrics::default(), &Inventory::default());
        let names: Vec<_> = all.into_iter().chain(loads.values()).map(|(name, _)| name).collect();
        let is_there = |name: &str| names.iter().any(|found| found == name);
        for name in [
            "version",
            "uptime",
            "clients/total",
            "clients/connected",
            "clients/disconnected",
            "clients/maximum",
            "clients/expired",
            "messages/received",
            "messages/sent",
            "messages/stored",
            "store/messages/count",
            "store/messages/bytes",
            "subscriptions/count",
            "shared_subscriptions/count",
            "retained messages/count",
            "bytes/received",
            "bytes/sent",
            "heap/current",
            "publish/messages/received",
            "publish/messages/sent",
            "publish/messages/dropped",
            "publish/bytes/received",
            "publish/bytes/sent",
        ] {
            assert!(is_there(name), "{name}");
        }
        for load in [
            "messages/received",
            "messages/sent",
            "bytes/received",
            "bytes/sent",
            "publish/received",
            "publish/sent",
            "publish/dropped",
            "sockets",
            "connections",
        ] {
            for span in ["1min", "5min", "15min"] {
                assert!(is_there(&format!("load/{load}/{span}")), "{load} {span}");
            }
        }
    }
}
