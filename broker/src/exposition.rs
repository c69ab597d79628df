//! The broker's counters in OpenMetrics, as Prometheus reads it.

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::metrics::{Cause, Metrics, Tally, now, resident_bytes};
use crate::report::Inventory;

/// What the text is said to be.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted; without what the core holds where it did not answer.
pub(crate) fn exposition(metrics: Arc<Metrics>, inventory: Option<Inventory>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot { metrics, inventory }));
    let mut page = String::new();
    // A string takes everything.
    let _ = text::encode(&mut page, &registry);
    page
}

#[derive(Debug)]
struct Snapshot {
    metrics: Arc<Metrics>,
    inventory: Option<Inventory>,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut page = Page(encoder);
        self.traffic(&mut page)?;
        self.clients(&mut page)?;
        self.inside(&mut page)?;
        self.inventory.as_ref().map_or(Ok(()), |inventory| held(inventory, &mut page))
    }
}

impl Snapshot {
    fn traffic(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let all = &self.metrics;
        for (name, help, counter) in [
            ("packets_received", "MQTT packets from clients", &all.packets_received),
            ("packets_sent", "MQTT packets to clients", &all.packets_sent),
            ("messages_received", "PUBLISH packets from clients", &all.messages_received),
            ("messages_sent", "PUBLISH packets to clients", &all.messages_sent),
            (
                "payload_bytes_received",
                "Payloads of messages from clients",
                &all.payload_bytes_received,
            ),
            ("payload_bytes_sent", "Payloads of messages to clients", &all.payload_bytes_sent),
            ("bytes_received", "Bytes of MQTT from clients", &all.bytes_received),
            ("bytes_sent", "Bytes of MQTT to clients", &all.bytes_sent),
            (
                "publishes_refused",
                "Messages that their publisher may not publish",
                &all.publishes_refused,
            ),
            ("reads_paused", "Pauses of clients that were too fast", &all.reads_paused),
            ("subscriptions_refused", "Filters not subscribed to", &all.subscriptions_refused),
            (
                "retained_refused",
                "Messages not retained for want of room, but delivered",
                &all.retained_refused,
            ),
        ] {
            page.counter(name, help, &now(counter))?;
        }
        let help = "Messages that a client does not get, by cause";
        page.causes("messages_dropped", help, "cause", &all.dropped)
    }

    fn clients(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let all = &self.metrics;
        for (name, help, counter) in [
            ("sockets", "Streams that were accepted, whoever they were", &all.sockets),
            ("connections_accepted", "Clients that came in", &all.connections),
            ("clients_kicked", "Clients cut off by an operator", &all.clients_kicked),
            (
                "sessions_expired",
                "Sessions that ended because their client stayed away",
                &all.sessions_expired,
            ),
        ] {
            page.counter(name, help, &now(counter))?;
        }
        let help = "Clients that did not come in, by reason";
        page.causes("connections_refused", help, "reason", &all.connections_refused)?;
        let help = "Clients turned away for who they are, or cannot prove to be";
        page.counter("sign_in_failures", help, &all.sign_in_failures())?;
        let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
        page.gauge("sessions", "Sessions, connected or not", &count(&all.sessions))?;
        page.gauge("clients_connected", "Clients that are connected", &count(&all.connected))?;
        let help = "The most clients that were connected at a time";
        page.gauge("clients_connected_max", help, &count(&all.connected_max))
    }

    fn inside(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let all = &self.metrics;
        let help = "Routers inside the broker that died or stood still";
        page.counter("routers_replaced", help, &now(&all.routers_replaced))?;
        page.counter("store_commits", "Commits of the store", &now(&all.store_commits))?;
        let seconds = Duration::from_micros(now(&all.store_commit_us)).as_secs_f64();
        page.counter("store_commit_seconds", "Time spent in them", &seconds)?;
        let help = "Commits that failed and were tried again";
        page.counter("store_failures", help, &now(&all.store_failures))?;
        page.gauge("uptime_seconds", "How long it has run", &all.started.elapsed().as_secs_f64())?;
        resident_bytes().map_or(Ok(()), |bytes| {
            page.gauge("resident_bytes", "Memory that the process holds", &bytes)
        })
    }
}

fn held(all: &Inventory, page: &mut Page<'_>) -> Result<(), Error> {
    for (name, help, value) in [
        ("subscriptions", "Subscriptions, shared ones included", all.subscriptions),
        ("shared_subscriptions", "Shared subscriptions", all.shared_subscriptions),
        ("retained_messages", "Retained messages", all.retained_messages),
        ("retained_bytes", "Retained messages, bookkeeping included", all.retained_bytes),
        ("queued_messages", "Messages that wait for a client", all.queued_messages),
        ("queued_bytes", "Messages that wait, bookkeeping included", all.queued_bytes),
        ("in_flight_messages", "Messages that were sent and not acknowledged", all.in_flight),
    ] {
        page.gauge(name, help, &value)?;
    }
    Ok(())
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(
        &mut self,
        name: &str,
        help: &str,
        v: &impl EncodeCounterValue,
    ) -> Result<(), Error> {
        let name = full(name);
        let mut metric = self.0.encode_descriptor(&name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(v, None)
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        value: &impl EncodeGaugeValue,
    ) -> Result<(), Error> {
        let name = full(name);
        let mut metric = self.0.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(value)
    }

    /// A counter with a line for each cause, those that never happened too.
    fn causes<C: Cause>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        tally: &Tally<C>,
    ) -> Result<(), Error> {
        let name = full(name);
        let mut metric = self.0.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for cause in C::ALL {
            let labels = [(label, cause.name())];
            let mut line = metric.encode_family(&labels)?;
            line.encode_counter::<NoLabelSet, _, f64>(&tally.get(*cause), None)?;
        }
        Ok(())
    }
}

fn full(name: &str) -> String {
    format!("godwit_broker_{name}")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::metrics::{Dropped, Refused};

    /// Samples by name with labels, once each was found to belong to a metric that is explained.
    fn parse(page: &str) -> BTreeMap<String, f64> {
        let (mut helped, mut typed) = (BTreeSet::new(), BTreeMap::new());
        let mut samples = BTreeMap::new();
        assert!(page.ends_with("# EOF\n"));
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help");
                assert!(help.len() > 5 && helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(typed.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else if line != "# EOF" {
                let (sample, value) = line.rsplit_once(' ').expect("a value");
                let name = sample.split('{').next().expect("a name");
                let metric = name.strip_suffix("_total").unwrap_or(name);
                let kind = typed.get(metric).unwrap_or_else(|| panic!("no type: {line}"));
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(helped.contains(metric), "no help: {line}");
                assert!(name.starts_with("godwit_broker_"), "{line}");
                let value = value.parse().expect("a number");
                assert!(samples.insert(sample.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        samples
    }

    #[test]
    fn every_number_is_explained_and_says_what_was_counted() {
        let metrics = Arc::new(Metrics::default());
        metrics.messages_received.fetch_add(7, Ordering::Relaxed);
        metrics.dropped.add(Dropped::TooLarge, 3);
        metrics.connections_refused.add(Refused::Password, 2);
        metrics.connections_refused.add(Refused::Version, 5);
        metrics.committed(Duration::from_millis(250));
        let inventory = Inventory { queued_bytes: 99, ..Inventory::default() };
        let samples = parse(&exposition(metrics, Some(inventory)));
        for (name, value) in [
            ("messages_received_total", 7.0),
            ("messages_dropped_total{cause=\"too-large\"}", 3.0),
            ("messages_dropped_total{cause=\"queue-full\"}", 0.0),
            ("connections_refused_total{reason=\"password\"}", 2.0),
            ("connections_refused_total{reason=\"version\"}", 5.0),
            ("sign_in_failures_total", 2.0),
            ("store_commits_total", 1.0),
            ("store_commit_seconds_total", 0.25),
            ("queued_bytes", 99.0),
        ] {
            assert_eq!(samples.get(&full(name)), Some(&value), "{name}");
        }
    }

    #[test]
    fn a_core_that_does_not_answer_takes_nothing_else_along() {
        let samples = parse(&exposition(Arc::default(), None));
        assert!(samples.contains_key("godwit_broker_bytes_sent_total"));
        assert!(!samples.contains_key("godwit_broker_queued_bytes"));
    }
}
