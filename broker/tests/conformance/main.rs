//! The broker against the text of MQTT 3.1.1 and 5, on real sockets.
//!
//! Each test is named after the clause of MQTT 5 that it checks (`mqtt_3_1_2_4_…`), in both versions
//! where both have what it says; `mqtt5_…` is of that version alone, `mqtt311_…` of 3.1.1 and its
//! clauses. Its doc names the normative statements; docs/CONFORMANCE.md lists them all. `client` is a
//! client that does what it is told, right or wrong; `wire` is its grammar, `words` its words.

mod client;
mod connect;
mod flow;
mod flow_control;
mod keep_alive;
mod malformed;
mod message_expiry;
mod properties;
mod reasons;
mod retain;
mod session;
mod share;
mod subscribe;
mod subscribe_options;
mod take_over;
mod topic_alias;
mod topics;
mod will;
mod wire;
mod words;
