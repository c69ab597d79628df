//! A persistent session that is away: how fast its messages are kept, and how fast it has them.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{self, Publishing};
use crate::flow::Flow;
use crate::{Target, report, wire};

const TOPIC: &str = "bench/offline";
/// For all of it, each way.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints both rates.
pub(crate) fn measure(target: &Target, messages: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut session = client::subscribe(target, "sleeper", false, TOPIC, 1).await?;
        session.write_all(&wire::DISCONNECT).await?;
        // The broker closes once it knows that the client is gone.
        session.read_to_end(&mut Vec::new()).await?;

        let publishing = Flow::new(1, messages);
        let what = Publishing {
            qos: 1,
            topic: TOPIC.into(),
            payload: vec![b'x'; 64].into(),
            window: 1000,
        };
        let stream = client::connect(target, "sender", true).await?;
        let since = Instant::now();
        let publisher = tokio::spawn(client::publish(stream, what, publishing.clone()));
        reach(messages, || publishing.acknowledgements()).await?;
        report("kept_per_s", messages as f64 / since.elapsed().as_secs_f64());
        publishing.end();
        publisher.await??;

        let receiving = Flow::new(1, messages);
        let since = Instant::now();
        let stream = client::connect(target, "sleeper", false).await?;
        let received = client::receive(stream, 256 << 10, receiving.clone(), |_| {});
        let subscriber = tokio::spawn(received);
        reach(messages, || receiving.deliveries()).await?;
        report("msgs_per_s", messages as f64 / since.elapsed().as_secs_f64());
        receiving.end();
        subscriber.await??;
        Ok(())
    })
}

async fn reach(wanted: u64, count: impl Fn() -> u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    while count() < wanted {
        ensure!(begun.elapsed() < PATIENCE, "{} of {wanted} messages in time", count());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
