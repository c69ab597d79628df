//! Hostile clients, all at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::line::{Fate, Line, connect};
use super::script::{Ending, Script};
use super::words::{Account, Version};

/// Who is attacked, how, and how much.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) seed: u64,
    pub(crate) sequences: u64,
    pub(crate) connections: u64,
    /// Topics begin with it.
    pub(crate) prefix: String,
    /// Of those hostile clients that sign in.
    pub(crate) account: Option<Account>,
    /// It is over then, however many there were.
    pub(crate) until: Option<Instant>,
}

/// What became of the sequences.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sequences: AtomicU64,
    pub(crate) connections: AtomicU64,
    /// Sequences on connections whose CONNACK said yes.
    pub(crate) inside: AtomicU64,
    /// Connections whose CONNACK said no.
    pub(crate) refused: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) ignored: AtomicU64,
    /// The highest number of those: with the seed it says what was sent.
    pub(crate) last_ignored: AtomicU64,
    /// Connections that the broker's system did not take.
    pub(crate) unreachable: AtomicU64,
}

impl Tally {
    fn note(&self, fate: Fate, line: &Line) {
        self.sequences.fetch_add(1, Relaxed);
        self.inside.fetch_add(u64::from(line.is_in), Relaxed);
        let counter = match fate {
            Fate::Answered => &self.answered,
            Fate::Cut => &self.cut,
            Fate::Unknown => &self.unknown,
            Fate::Ignored => &self.ignored,
        };
        counter.fetch_add(1, Relaxed);
        if fate == Fate::Cut {
            self.refused.fetch_add(u64::from(line.is_refused), Relaxed);
        }
    }
}

/// Sends every sequence; returns when the last connection is closed.
pub(crate) async fn attack(plan: &Plan) -> Tally {
    let (plan, tally) = (Arc::new(plan.clone()), Arc::new(Tally::default()));
    let mut clients = JoinSet::new();
    for slot in 0..plan.connections {
        let (plan, tally) = (plan.clone(), tally.clone());
        clients.spawn(async move { client(&plan, slot, &tally).await });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a hostile client that does not panic");
    }
    Arc::into_inner(tally).unwrap_or_default()
}

/// One of them: every sequence whose number falls to it, on as few connections as it takes. A third
/// speaks 3.1.1, and half of them are signed in.
async fn client(plan: &Plan, slot: u64, tally: &Tally) {
    let version = if slot.is_multiple_of(3) { Version::V3 } else { Version::V5 };
    let account = plan.account.as_ref().filter(|_| slot % 4 < 3);
    let is_over = || plan.until.is_some_and(|until| Instant::now() >= until);
    let mut line: Option<Line> = None;
    let mut number = slot;
    while number < plan.sequences && !is_over() {
        let script = Script::new(plan.seed, number, version, &plan.prefix, account);
        let Script { opening, is_patient, mut bytes, is_reading, mut ending } = script;
        let mut opened = Fate::Unknown;
        let mut current = match line.take() {
            Some(line) => line,
            None => {
                let Ok(socket) = connect(plan.address, number).await else {
                    tally.unreachable.fetch_add(1, Relaxed);
                    if tally.unreachable.load(Relaxed) > 1000 {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                tally.connections.fetch_add(1, Relaxed);
                let mut line = Line::new(socket, version);
                if is_patient {
                    opened = line.open(&opening).await;
                } else {
                    bytes.splice(0..0, opening);
                }
                line
            }
        };
        let fate = match opened {
            Fate::Cut | Fate::Ignored => opened,
            _ => current.send(bytes, is_reading).await,
        };
        tally.note(fate, &current);
        if matches!(fate, Fate::Cut | Fate::Ignored) {
            ending = Ending::Close;
        }
        if fate == Fate::Ignored {
            tally.last_ignored.fetch_max(number, Relaxed);
        }
        line = current.end(ending).await;
        number += plan.connections;
    }
}
