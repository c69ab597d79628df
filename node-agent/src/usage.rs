//! What each container uses, out of the counters of its processes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use godwit_proto::id::{ContainerId, ContainerName};
use godwit_proto::node::ContainerMetrics;

use crate::engine::Usage;

/// Turns counters that only rise into shares of a processor.
#[derive(Debug, Default)]
pub struct Meter {
    last: BTreeMap<ContainerId, (Duration, Instant)>,
}

impl Meter {
    /// The containers' metrics since the reading before; a container read for the first
    /// time has used nothing yet.
    pub fn read(
        &mut self,
        used: Vec<Usage>,
        name: impl Fn(ContainerId) -> Option<ContainerName>,
        now: Instant,
    ) -> Vec<ContainerMetrics> {
        let last = std::mem::take(&mut self.last);
        let metrics = used.into_iter().filter_map(|used| {
            let before = last.get(&used.id).copied().unwrap_or((used.processor, now));
            self.last.insert(used.id, (used.processor, now));
            let spent = used.processor.saturating_sub(before.0).as_secs_f32();
            let passed = now.duration_since(before.1).as_secs_f32();
            let share = if passed > 0.0 { 100.0 * spent / passed } else { 0.0 };
            Some(ContainerMetrics {
                name: name(used.id)?,
                cpu_percent: share,
                memory_bytes: used.memory_bytes,
                processes: used.processes,
            })
        });
        metrics.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_processor_in_two_is_half_of_one() {
        let id: ContainerId = "6f1d1c1e-1111-4222-8333-444455556666".parse().unwrap();
        let used = |seconds| Usage {
            id,
            processor: Duration::from_secs(seconds),
            memory_bytes: 4096,
            processes: 1,
        };
        let name = |_| Some("counter".parse().unwrap());
        let (mut meter, start) = (Meter::default(), Instant::now());
        assert_eq!(meter.read(vec![used(10)], name, start)[0].cpu_percent, 0.0);
        let later = meter.read(vec![used(11)], name, start + Duration::from_secs(2));
        assert_eq!(later[0].cpu_percent, 50.0);
        // Restored elsewhere and back its processes are new, and their counters low.
        let back = meter.read(vec![used(1)], name, start + Duration::from_secs(4));
        assert_eq!(back[0].cpu_percent, 0.0);
    }
}
