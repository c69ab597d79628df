//! What the settings of the host are worth that make a container stand still for less long.
//!
//! Measured, not looked up: on one node a setting is worth a third of a gap, on the next one
//! nothing.

use std::fs;
use std::io;
use std::time::Duration;

use super::Finding;
use super::probe::ArmedTrials;
use crate::engine::EngineError;
use crate::expedite::Expedite;
use crate::network;

/// Moves with and without a setting, by turns.
const TURNS: usize = 3;
/// CRIU reads the table of connections so often in a dump.
const READINGS: u32 = 2;
/// Below this a setting is not worth a word of advice.
const WORTH: Duration = Duration::from_millis(2);

/// Tries what can be set for the length of a gap, and measures what the rest costs.
pub(super) async fn weigh(
    trials: &mut ArmedTrials<'_>,
    expedite: &Expedite,
) -> Result<Vec<Finding>, EngineError> {
    let rcu = grace_periods(trials, expedite).await?;
    let tracking = network::time_of_a_reading(trials.netns()).await;
    let mut findings = vec![rcu, connections(tracking, &buckets())];
    if network::filters_bridged_frames() {
        findings.push(finding(
            "bridged frames",
            "they pass iptables here: a rule that drops `ct state invalid` may stall connections of a container that returns".into(),
            "sysctl net.bridge.bridge-nf-call-iptables=0, unless Docker on this node needs it",
        ));
    }
    Ok(findings)
}

/// What is said where they could not be tried.
pub(super) fn unknown(error: &EngineError) -> Finding {
    finding("settings", format!("what they are worth could not be measured: {error}"), "")
}

async fn grace_periods(
    trials: &mut ArmedTrials<'_>,
    expedite: &Expedite,
) -> Result<Finding, EngineError> {
    let say = |message: String, remedy| Ok(finding("grace periods", message, remedy));
    match Expedite::is_set() {
        Ok(false) => {}
        Ok(true) => return say("expedited all the time (rcu_expedited is 1)".into(), ""),
        Err(error) => return say(format!("this kernel cannot expedite them: {error}"), ""),
    }
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        without.push(trials.hand_over().await?);
        let gap = match expedite.try_begin() {
            Ok(gap) => gap,
            Err(error) => return say(format!("they cannot be expedited now: {error}"), ""),
        };
        with.push(trials.hand_over().await?);
        drop(gap);
    }
    let (without, with) = (median(without), median(with));
    let message = format!(
        "a small container stands still for {} ms, and for {} ms with `--expedite-rcu`",
        without.as_millis(),
        with.as_millis()
    );
    let is_worth_it = without.saturating_sub(with) > WORTH;
    say(message, if is_worth_it { "run the agent with `--expedite-rcu`" } else { "" })
}

/// `buckets` is what the kernel says of the table's size.
fn connections(reading: io::Result<Duration>, buckets: &str) -> Finding {
    let tell = |message, remedy| finding("tracked connections", message, remedy);
    let in_a_gap = match reading {
        Ok(once) => once * READINGS,
        Err(error) => return tell(format!("the kernel tracks none here ({error})"), ""),
    };
    let cost = in_a_gap.as_secs_f64() * 1000.0;
    let remedy =
        "sysctl net.netfilter.nf_conntrack_buckets=16384, if this host tracks few connections";
    tell(
        format!("reading their table of {buckets} buckets takes {cost:.1} ms of every gap"),
        if in_a_gap > WORTH { remedy } else { "" },
    )
}

fn buckets() -> String {
    let read = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_buckets");
    read.map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

fn finding(check: &str, message: String, remedy: &str) -> Finding {
    Finding { check: check.into(), ok: true, required: false, message, remedy: remedy.into() }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_given_where_it_is_worth_something() {
        let slow = connections(Ok(Duration::from_micros(9700)), "262144");
        assert!(slow.message.contains("262144") && slow.message.contains("19.4 ms"), "{slow:?}");
        assert!(slow.remedy.contains("nf_conntrack_buckets"), "{slow:?}");
        assert_eq!(connections(Ok(Duration::from_micros(700)), "16384").remedy, "");
        let none = connections(Err(io::ErrorKind::NotFound.into()), "unknown");
        assert!(none.ok && none.remedy.is_empty(), "a node without it is fit: {none:?}");
    }
}
