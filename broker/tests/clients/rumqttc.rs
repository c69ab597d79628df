//! rumqttc, whose loop connects again by itself.

use rumqttc::{TlsConfiguration, Transport};

use crate::broker::Broker;

/// Where and how it finds the broker over everything that it knows.
fn ways(broker: &Broker) -> [(&'static str, String, u16, Transport); 4] {
    let ports = broker.ports;
    let tls = || {
        let ca = std::fs::read(broker.authority()).unwrap();
        TlsConfiguration::Simple { ca, alpn: None, client_auth: None }
    };
    let host = || "127.0.0.1".to_owned();
    let url = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}/mqtt");
    let (plain, secure) = (ports.websocket, ports.secure_websocket);
    [
        ("tcp", host(), ports.mqtt, Transport::Tcp),
        ("tls", host(), ports.tls, Transport::tls_with_config(tls())),
        ("ws", url("ws", plain), plain, Transport::Ws),
        ("wss", url("wss", secure), secure, Transport::wss_with_config(tls())),
    ]
}

/// With the names of either of rumqttc's interfaces, which differ in nothing that matters here.
macro_rules! the_same_work {
    () => {
        #[tokio::test]
        async fn rumqttc_works_over_each_transport_and_goes_on_after_a_restart() {
            let mut broker = Broker::start().await;
            for (name, place, port, transport) in ways(&broker) {
                let mut options = MqttOptions::new(name, place, port);
                options.set_transport(transport).set_credentials(ALICE.0, ALICE.1);
                keeps_its_session(&mut options);
                let (client, mut events) = AsyncClient::new(options, 10);
                assert!(!greeted(&mut events).await, "there was no session");

                let topic = format!("app/alice/{name}");
                client.subscribe(&topic, QoS::ExactlyOnce).await.unwrap();
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    let payload = vec![qos as u8; 5000];
                    client.publish(&topic, qos, false, payload.clone()).await.unwrap();
                    let (arrived_with, arrived) = heard(&mut events).await;
                    assert_eq!((arrived_with, arrived), (qos, payload), "over {name}");
                }

                // What it has of QoS 2 rumqttc forgets at a break, and takes the release that the
                // standard asks for as an error: first all of that is over, for the broker, too.
                until(&mut events, |event| matches!(event, Event::Outgoing(Outgoing::PubComp(_))))
                    .await;
                client.publish(&topic, QoS::AtMostOnce, false, "over").await.unwrap();
                assert_eq!(heard(&mut events).await.1, b"over");
                broker.restart().await;
                assert!(greeted(&mut events).await, "the session is gone");
                client.publish(&topic, QoS::ExactlyOnce, false, "again").await.unwrap();
                // What was not acknowledged before may come once more.
                while heard(&mut events).await.1 != b"again" {}
            }
        }

        /// Connects, however often it takes; was there a session?
        async fn greeted(events: &mut EventLoop) -> bool {
            crate::in_time(async {
                loop {
                    if let Ok(Event::Incoming(Packet::ConnAck(ack))) = events.poll().await {
                        return ack.session_present;
                    }
                }
            })
            .await
        }

        async fn heard(events: &mut EventLoop) -> (QoS, Vec<u8>) {
            let wanted = |event: &Event| matches!(event, Event::Incoming(Packet::Publish(_)));
            match until(events, wanted).await {
                Event::Incoming(Packet::Publish(it)) => (it.qos, it.payload.to_vec()),
                other => unreachable!("{other:?}"),
            }
        }

        async fn until(events: &mut EventLoop, wanted: impl Fn(&Event) -> bool) -> Event {
            crate::in_time(async {
                loop {
                    let event = events.poll().await.unwrap();
                    if wanted(&event) {
                        return event;
                    }
                }
            })
            .await
        }
    };
}

mod v4 {
    use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};

    use super::ways;
    use crate::broker::{ALICE, Broker};

    fn keeps_its_session(options: &mut MqttOptions) {
        options.set_clean_session(false);
    }

    the_same_work!();
}

mod v5 {
    use rumqttc::Outgoing;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

    use super::ways;
    use crate::broker::{ALICE, Broker};

    fn keeps_its_session(options: &mut MqttOptions) {
        options.set_clean_start(false).set_session_expiry_interval(Some(3600));
    }

    the_same_work!();
}
