//! Connections that do nothing: what they cost the broker.

use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;

use crate::{Target, client, report};

/// So many connect at a time: no broker's backlog is shorter.
const AT_A_TIME: u32 = 50;

/// Connects so many clients with a subscription each, and prints what the broker's process grew by.
pub(crate) fn measure(target: &Target, connections: u32, pid: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // What the first one costs, the others do not.
        drop(client::subscribe(target, "first", true, "bench/first", 0).await?);
        settle().await;
        let before = resident_kb(pid)?;
        let mut all = Vec::new();
        for first in (0..connections).step_by(AT_A_TIME as usize) {
            let mut some = JoinSet::new();
            for number in first..connections.min(first + AT_A_TIME) {
                let target = target.clone();
                some.spawn(async move {
                    let (name, topic) = (format!("idle-{number}"), format!("bench/idle/{number}"));
                    client::subscribe(&target, &name, true, &topic, 0).await
                });
            }
            while let Some(stream) = some.join_next().await {
                all.push(stream??);
            }
        }
        settle().await;
        let grown = resident_kb(pid)?.saturating_sub(before);
        report("kb_per_connection", grown as f64 / f64::from(connections));
        Ok(())
    })
}

/// Memory is given back a while after it was last used.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn resident_kb(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?;
    Ok(number.parse()?)
}
