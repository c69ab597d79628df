//! The delay of small messages while a flow is under way on the same broker.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::client::{self, Publishing};
use crate::flow::{self, Connected, Flow, on_thread};
use crate::{Shape, Target, report};

/// Between two messages.
const PERIOD: Duration = Duration::from_millis(2);
const TOPIC: &str = "bench/beside";

/// Prints percentiles of the delay from a publisher to a subscriber.
pub(crate) fn measure(target: &Target, shape: &Shape) -> anyhow::Result<()> {
    let bulk = flow::start(target, shape)?;
    let (delays, found) = mpsc::channel();
    let connected = Connected::new();
    let (target, ready) = (target.clone(), connected.ready());
    // One message at a time, unless the broker is late.
    let probe = Flow::new(1, 1);
    let probing = probe.clone();
    on_thread(async move {
        let receiver = client::subscribe(&target, "beside-in", true, TOPIC, 1).await?;
        let sender = client::connect(&target, "beside-out", true).await?;
        let what = Publishing {
            qos: 1,
            topic: TOPIC.into(),
            payload: vec![b'x'; 64].into(),
            window: 1000,
        };
        ready.now();
        let clock = probing.clone();
        let seen = move |packet: crate::wire::Arrived| {
            // Nobody listens when it is over.
            let _ = delays.send(clock.now().saturating_sub(packet.stamp));
        };
        let received = client::receive(receiver, 64 << 10, Flow::new(1, 1), seen);
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ticking = async {
            while !probing.is_over() {
                ticks.tick().await;
                probing.delivered(1);
            }
        };
        let sent = client::publish(sender, what, probing.clone());
        tokio::select! {
            ended = received => ended?,
            ended = sent => ended?,
            () = ticking => {}
        }
        Ok(())
    });
    connected.wait()?;
    std::thread::sleep(Duration::from_millis(500));
    found.try_iter().for_each(drop);
    let (since, before) = (Instant::now(), bulk.deliveries());
    std::thread::sleep(Duration::from_secs_f64(shape.seconds));
    let rate = (bulk.deliveries() - before) as f64 / since.elapsed().as_secs_f64();
    let mut delays: Vec<u64> = found.try_iter().collect();
    probe.end();
    bulk.end();
    delays.sort_unstable();
    anyhow::ensure!(!delays.is_empty(), "not one small message came through");
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    report("p50_ms", at(0.5));
    report("p99_ms", at(0.99));
    report("max_ms", at(1.0));
    report("mb_per_s", rate * shape.bytes as f64 / 1e6);
    Ok(())
}
