//! One MQTT session, typed: the only crate that knows how to talk to a broker.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use godwit_bus::{Config, Publication, Session};
//! use godwit_proto::topic::{Filter, Topic};
//!
//! let state = Topic::NodeState { node: "edge-a".parse()? };
//! let mut config = Config::new("mqtt://hub".parse()?, "edge-a");
//! config.will = Some(Publication::new(&state, r#"{"state":"lost"}"#).retained());
//! config.births = vec![Publication::new(&state, r#"{"state":"online"}"#).retained()];
//! config.subscriptions = vec![Filter::ControllerHello];
//!
//! let (session, mut inbox) = Session::open(config)?;
//! while let Some(delivery) = inbox.recv().await {
//!     println!("{}: {} bytes", delivery.raw_topic, delivery.payload.len());
//! }
//! session.close(Some(Publication::new(&state, r#"{"state":"offline"}"#).retained())).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What it promises: a QoS 1 message is resent until a broker has it, in order within
//! its lane; births and subscriptions are renewed on every connection; queues are
//! bounded both ways; chunks never hold up control messages. What it does not: that a
//! message arrives once, or at all at the far end; the choreography assumes neither.
//!
//! Reading order: `message` (what travels), `config`, `session` (the handle),
//! `pump` (the task behind it), `in_flight`, `wire` (rumqttc).

mod config;
mod in_flight;
mod message;
mod pump;
mod session;
pub mod stream;
mod wire;

pub use config::{BrokerUrl, BrokerUrlError, Config, Credentials};
pub use message::{Delivery, Publication};
pub use session::{CloseError, Inbox, Link, PublishError, Session};
