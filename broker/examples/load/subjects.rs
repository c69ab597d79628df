//! What a broker is compared with: a process that only copies, and rumqttd as it is.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use anyhow::Context;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Of each two connections, copies what the second sends to the first.
pub(crate) fn relay(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)?;
    loop {
        let (mut to, _) = listener.accept()?;
        let (mut from, _) = listener.accept()?;
        to.set_nodelay(true)?;
        thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer)
                && to.write_all(&buffer[..count]).is_ok()
            {}
        });
    }
}

/// rumqttd's own server, with room for what the load has under way.
pub(crate) fn rumqttd(listen: SocketAddr) -> anyhow::Result<()> {
    let server = ServerSettings {
        name: "bench".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: 2 << 20,
            max_inflight_count: 256,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = Config {
        router: RouterConfig {
            max_connections: 20_000,
            max_outgoing_packet_count: 200,
            max_segment_size: 4 << 20,
            max_segment_count: 8,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("bench".into(), server)])),
        ..Config::default()
    };
    Broker::new(config).start().context("rumqttd ended")
}
