//! Whose password is verified when: as many at a time as there are cores, and no site fills the queue.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lock;
use crate::access::site;

/// How many sign-ins of one site may wait for their turn or have it: more would not be served before
/// their time to connect is over.
const OF_A_SITE: usize = 256;
/// So many of these stand in the queue that all sites share.
const IN_THE_QUEUE: usize = 8;

/// Too many of a site sign in at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many sign-ins from this address at once: try again")]
pub(crate) struct Crowded;

/// The turns of all.
#[derive(Debug)]
pub(super) struct Turns {
    /// Each verification takes its 19 MiB and a core.
    running: Arc<Semaphore>,
    sites: Sites,
}

/// Those of each site that wait or have their turn.
type Sites = Arc<Mutex<HashMap<IpAddr, Site>>>;

#[derive(Debug)]
struct Site {
    count: usize,
    /// To the queue.
    gate: Arc<Semaphore>,
}

/// A password may be verified as long as this lives.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: [Option<OwnedSemaphorePermit>; 2],
    _place: Place,
}

impl Turns {
    pub(super) fn new() -> Self {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        Self { running: Arc::new(Semaphore::new(cores)), sites: Sites::default() }
    }

    /// Waits for a turn. Cancelled, the place in the queue is another's.
    pub(super) async fn take(&self, address: IpAddr) -> Result<Turn, Crowded> {
        let (place, gate) = Place::take(&self.sites, site(address))?;
        // Never closed, both of them.
        let through = gate.acquire_owned().await.ok();
        let permit = self.running.clone().acquire_owned().await.ok();
        Ok(Turn { _permits: [permit, through], _place: place })
    }
}

/// One of a site's places.
#[derive(Debug)]
struct Place {
    sites: Sites,
    site: IpAddr,
}

impl Place {
    /// A place, and the gate that it stands before.
    fn take(sites: &Sites, site: IpAddr) -> Result<(Self, Arc<Semaphore>), Crowded> {
        let mut all = lock(sites);
        let gate = || Arc::new(Semaphore::new(IN_THE_QUEUE));
        let found = all.entry(site).or_insert_with(|| Site { count: 0, gate: gate() });
        if found.count == OF_A_SITE {
            return Err(Crowded);
        }
        found.count += 1;
        let gate = found.gate.clone();
        Ok((Self { sites: sites.clone(), site }, gate))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = lock(&self.sites);
        if let Some(found) = all.get_mut(&self.site) {
            found.count -= 1;
            if found.count == 0 {
                all.remove(&self.site);
            }
        }
    }
}
