//! Between the machine and the world: one thread that carries effects out, in order.
//!
//! The thread owns the machine and the ledger, so a persist is a plain write that has
//! reached the disk when the next effect begins. Sends and calls leave through queues;
//! whoever carries calls out answers with [`Input::Done`].

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use godwit_proto::frame::FromNode;
use godwit_proto::migration::drive::{NodeWorld, drive};
use godwit_proto::migration::{Agent, Call, Input, Message, Promise, Record, timing};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::ledger::{Ledger, LedgerError};

/// What the machine asks of the engine's side.
#[derive(Debug)]
pub enum Errand {
    /// Carry a call out, in place of the one under way for that container.
    Call {
        /// The container's row.
        record: Box<Record>,
        /// The number to answer with.
        number: u64,
        /// What.
        call: Call,
    },
    /// Look at the kernel.
    Look(u64),
    /// The machine woke anew: whatever is under way is nobody's any more.
    StopAll,
}

/// A running driver.
#[derive(Debug, Clone)]
pub struct Driver {
    inputs: mpsc::Sender<Input>,
    is_moving: Arc<AtomicBool>,
}

/// Where a driver's effects go.
#[derive(Debug)]
pub struct Outlets {
    /// Messages for the controller. A full queue loses them: they are repeated.
    pub messages: mpsc::Sender<FromNode>,
    /// Calls and looks. Never lost.
    pub errands: mpsc::Sender<Errand>,
}

struct World {
    ledger: Ledger,
    outlets: Outlets,
}

impl NodeWorld for World {
    type Error = LedgerError;

    fn persist(&mut self, record: &Record) -> Result<(), LedgerError> {
        tracing::info!(
            container = %record.spec.id, name = %record.spec.name, epoch = %record.epoch,
            phase = ?record.phase, reason = record.reason.as_deref(), "ledger"
        );
        self.ledger.persist(record)
    }
    fn promise(&mut self, promise: &Promise) -> Result<(), LedgerError> {
        tracing::info!(run = %promise.run, "promised to obey a controller");
        self.ledger.promise(promise)
    }
    fn send(&mut self, message: Message) -> Result<(), LedgerError> {
        if self.outlets.messages.try_send(FromNode::Machine(message)).is_err() {
            tracing::debug!("the outbox is full: a message will be repeated");
        }
        Ok(())
    }
    fn call(&mut self, record: Box<Record>, number: u64, call: Call) -> Result<(), LedgerError> {
        tracing::info!(container = %record.spec.id, number, ?call, "call");
        self.errand(Errand::Call { record, number, call })
    }
    fn look(&mut self, number: u64) -> Result<(), LedgerError> {
        self.errand(Errand::Look(number))
    }
}

impl World {
    fn errand(&mut self, errand: Errand) -> Result<(), LedgerError> {
        // Closed only while the agent shuts down; nothing is begun then.
        let _ = self.outlets.errands.blocking_send(errand);
        Ok(())
    }
}

impl Driver {
    /// Opens the ledger and starts the thread. It ends when every handle is dropped.
    ///
    /// # Errors
    /// When the ledger cannot be opened.
    pub fn start(
        path: PathBuf,
        boot: Uuid,
        outlets: Outlets,
    ) -> Result<(Self, Vec<Record>), LedgerError> {
        let (ledger, memory) = Ledger::open(&path, boot)?;
        let records = memory.records.clone();
        let mut agent = Agent::wake(memory.life, memory.promise, memory.records, memory.rebooted);
        let (inputs, mut inbox) = mpsc::channel::<Input>(256);
        let is_moving = Arc::new(AtomicBool::new(false));
        let moving = is_moving.clone();
        let mut world = World { ledger, outlets };
        std::thread::spawn(move || {
            while let Some(input) = inbox.blocking_recv() {
                if let Err(error) = drive(&mut agent, &mut world, input) {
                    tracing::error!(%error, "the ledger cannot be written: nothing is done until it can");
                    agent = wake_again(&mut world, &path, boot);
                }
                moving.store(agent.is_moving(), Ordering::Relaxed);
            }
        });
        Ok((Self { inputs, is_moving }, records))
    }

    /// Feeds the machine; waits while it is busy. Cancel safe.
    pub async fn feed(&self, input: Input) {
        // Closed only while the agent shuts down.
        let _ = self.inputs.send(input).await;
    }

    /// Ticks until the driver is gone: fast while a move is in hand.
    pub async fn tick(self) {
        loop {
            self.feed(Input::Tick).await;
            if self.inputs.is_closed() {
                return;
            }
            let idle = timing::TICK_IDLE;
            let mut waited = Duration::ZERO;
            while waited < idle && !(waited >= timing::TICK_MOVING && self.is_moving()) {
                tokio::time::sleep(timing::TICK_MOVING).await;
                waited += timing::TICK_MOVING;
            }
        }
    }

    fn is_moving(&self) -> bool {
        self.is_moving.load(Ordering::Relaxed)
    }
}

/// The machine was ahead of its ledger: it is woken again from what is on disk, as after
/// a crash, once the disk takes writes again.
fn wake_again(world: &mut World, path: &std::path::Path, boot: Uuid) -> Agent {
    let _ = world.errand(Errand::StopAll);
    loop {
        match Ledger::open(path, boot) {
            Ok((ledger, memory)) => {
                world.ledger = ledger;
                return Agent::wake(memory.life, memory.promise, memory.records, memory.rebooted);
            }
            Err(error) => {
                tracing::error!(%error, "waiting for the ledger");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}
