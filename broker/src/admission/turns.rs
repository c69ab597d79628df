//! Whose password is verified when: as many at a time as there are cores, and no site fills the queue.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lock;
use crate::access::site;

/// How many sign-ins of one site may wait for their turn or have it.
const OF_A_SITE: usize = 8;

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

/// How many of each site wait or have their turn.
type Sites = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A password may be verified as long as this lives.
#[derive(Debug)]
pub(super) struct Turn {
    _place: Place,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new() -> Self {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        Self { running: Arc::new(Semaphore::new(cores)), sites: Sites::default() }
    }

    /// Waits for a turn. Cancelled, the place in the queue is another's.
    pub(super) async fn take(&self, address: IpAddr) -> Result<Turn, Crowded> {
        let place = Place::take(&self.sites, site(address))?;
        // Never closed.
        let permit = self.running.clone().acquire_owned().await.ok();
        Ok(Turn { _place: place, _permit: permit })
    }
}

/// One of a site's places.
#[derive(Debug)]
struct Place {
    sites: Sites,
    site: IpAddr,
}

impl Place {
    fn take(sites: &Sites, site: IpAddr) -> Result<Self, Crowded> {
        let mut taken = lock(sites);
        let count = taken.entry(site).or_insert(0);
        if *count == OF_A_SITE {
            return Err(Crowded);
        }
        *count += 1;
        Ok(Self { sites: sites.clone(), site })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.sites);
        if let Some(count) = taken.get_mut(&self.site) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.site);
            }
        }
    }
}
