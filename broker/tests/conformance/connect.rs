//! CONNECT: who is let in, and what others are told.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Auth, Connect, ConnectAckReason, DisconnectReasonCode, Packet};

use crate::client::{Hub, clean, lasting, message};
use crate::wire::{BOTH, Version};

/// [MQTT-3.1.0-1]: nothing else is answered, not even with a DISCONNECT [MQTT-3.14.0-1].
#[tokio::test]
async fn mqtt_3_1_0_a_client_that_does_not_begin_with_connect_is_closed() {
    let hub = Hub::start().await;
    let first: [&[u8]; 5] =
        [b"\xc0\0", b"\x30\x04\0\x01tx", b"\xe0\0", b"\xf0\0", b"\x82\x06\0\x01\0\x01t\0"];
    for bytes in first {
        let mut client = hub.socket(Version::V5).await;
        client.send_raw(bytes).await;
        assert_eq!(client.last_bytes().await, b"", "{bytes:x?}");
    }
}

/// [MQTT-3.1.0-2]
#[tokio::test]
async fn mqtt_3_1_0_a_second_connect_ends_the_connection() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        client.send(clean("a")).await;
        client.is_ended_for(DisconnectReasonCode::ProtocolError).await;
    }
}

/// [MQTT-3.1.2-1]: what is no MQTT is closed without a word.
#[tokio::test]
async fn mqtt_3_1_2_1_another_protocol_name_is_closed() {
    let hub = Hub::start().await;
    for name in [&b"\0\x04mqtt\x05"[..], b"\0\x04MQTS\x04", b"\0\x02hj\x05"] {
        let mut client = hub.socket(Version::V5).await;
        let rest = [name, b"\x02\0\x3c\0\0\x01a"].concat();
        client.send_raw(&[&[0x10, rest.len() as u8][..], &rest].concat()).await;
        assert_eq!(client.last_bytes().await, b"", "{name:x?}");
    }
}

/// [MQTT-3.1.2-2] of both versions: MQTT 3.1 and levels below 4 get 0x01 in the words of 3, those
/// above 5 get 0x84.
#[tokio::test]
async fn mqtt_3_1_2_2_another_protocol_level_is_refused_in_its_own_words() {
    let hub = Hub::start().await;
    let old = [0x20, 2, 0, 1];
    let new = [0x20, 3, 0, 0x84, 0];
    let cases: [(&[u8], &[u8]); 4] = [
        (b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01a", &old),
        (b"\x10\x0d\0\x04MQTT\x03\x02\0\x3c\0\x01a", &old),
        (b"\x10\x0e\0\x04MQTT\x06\x02\0\x3c\0\0\x01a", &new),
        (b"\x10\x0e\0\x04MQTT\xff\x02\0\x3c\0\0\x01a", &new),
    ];
    for (asked, answer) in cases {
        let mut client = hub.socket(Version::V5).await;
        client.send_raw(asked).await;
        assert_eq!(client.last_bytes().await, answer, "{asked:x?}");
    }
}

/// [MQTT-3.1.2-3], [MQTT-3.1.2-11], [MQTT-3.1.2-12], [MQTT-3.1.2-13]; 3.1.1: [MQTT-3.1.2-3],
/// [MQTT-3.1.2-11], [MQTT-3.1.2-13], [MQTT-3.1.2-14], [MQTT-3.1.2-15]. MQTT 5 is told 0x81.
#[tokio::test]
async fn mqtt_3_1_2_3_connect_flags_that_make_no_sense_are_refused() {
    const RESERVED: u8 = 0x03;
    const WILL_QOS_WITHOUT_WILL: u8 = 0x0a;
    const WILL_RETAIN_WITHOUT_WILL: u8 = 0x22;
    const WILL_QOS_3: u8 = 0x1e;
    let hub = Hub::start().await;
    for flags in [RESERVED, WILL_QOS_WITHOUT_WILL, WILL_RETAIN_WITHOUT_WILL, WILL_QOS_3] {
        let has_will = flags & 4 != 0;
        let will: &[u8] = if has_will { b"\0\x01w\0\x01x" } else { b"" };
        let old = [b"\0\x04MQTT\x04", &[flags][..], b"\0\x3c\0\x01a", will].concat();
        let properties: &[u8] = if has_will { b"\0" } else { b"" };
        let new = [b"\0\x04MQTT\x05", &[flags][..], b"\0\x3c\0\0\x01a", properties, will].concat();
        for (rest, answer) in [(old, &b""[..]), (new, b"\x20\x03\0\x81\0")] {
            let mut client = hub.socket(Version::V5).await;
            client.send_raw(&[&[0x10, rest.len() as u8][..], &rest].concat()).await;
            assert_eq!(client.last_bytes().await, answer, "{flags:#x}");
        }
    }
}

/// 3.1.1: [MQTT-3.1.2-22]; MQTT 5, 3.1.2.9 allows it.
#[tokio::test]
async fn mqtt_3_1_2_9_a_password_without_a_user_name_is_for_mqtt_5() {
    let hub = Hub::start().await;
    let mut client = hub.socket(Version::V3).await;
    client.send_raw(b"\x10\x10\0\x04MQTT\x04\x42\0\x3c\0\x01a\0\x01p").await;
    assert_eq!(client.last_bytes().await, b"");
    let password = Some("p".into());
    hub.join(Version::V5, Connect { password, ..clean("a") }).await.ping().await;
}

/// [MQTT-3.1.3-5] of both versions; [MQTT-3.1.3-8], 3.1.1: [MQTT-3.1.3-9]
#[tokio::test]
async fn mqtt_3_1_3_1_client_ids_of_up_to_23_letters_and_digits_are_let_in_and_longer_ones() {
    let hub = Hub::start().await;
    for version in BOTH {
        for name in ["0", "abcdefghijklmnopqrstuvwxyz"[..23].into(), "ABC/XYZ+#\u{e4}\u{20ac}"] {
            hub.join(version, clean(name)).await.leave().await;
        }
        hub.join(version, clean(&"x".repeat(256))).await.leave().await;
        let (mut client, ack) = hub.greet(version, clean(&"x".repeat(257))).await;
        assert_eq!(ack.reason_code, ConnectAckReason::ClientIdentifierNotValid);
        assert_eq!(client.last_bytes().await, b"");
    }
}

/// [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]: the client is told its name, which is its own
/// and of use.
#[tokio::test]
async fn mqtt_3_1_3_1_a_client_without_an_id_is_assigned_one() {
    let hub = Hub::start().await;
    let mut names = Vec::new();
    for connect in [clean(""), lasting("")] {
        let (client, ack) = hub.greet(Version::V5, connect).await;
        assert_eq!(ack.reason_code, ConnectAckReason::Success);
        assert!(!ack.session_present);
        names.push(ack.assigned_client_id.expect("a name"));
        client.leave().await;
    }
    assert_ne!(names[0], names[1]);
    let (_client, ack) = hub.greet(Version::V5, lasting(&names[1])).await;
    assert!(ack.session_present, "it comes back by the name that it was given");
    assert_eq!(ack.assigned_client_id, None);
}

/// 3.1.1: [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.1.3-8]
#[tokio::test]
async fn mqtt311_3_1_3_1_a_client_without_an_id_must_begin_anew() {
    let hub = Hub::start().await;
    let (mut first, ack) = hub.greet(Version::V3, clean("")).await;
    assert_eq!(ack.reason_code, ConnectAckReason::Success);
    let mut second = hub.join(Version::V3, clean("")).await;
    first.ping().await;
    second.ping().await;
    let mut refused = hub.socket(Version::V3).await;
    refused.send(lasting("")).await;
    assert_eq!(refused.last_bytes().await, [0x20, 2, 0, 2]);
}

/// [MQTT-3.1.4-1], [MQTT-3.2.2-7], [MQTT-3.2.2-6]: CONNACK 0x81, and the end. 3.1.1 closes.
#[tokio::test]
async fn mqtt_3_1_4_a_malformed_connect_is_refused() {
    let hub = Hub::start().await;
    let cases: [(&[u8], &[u8]); 4] = [
        // The client id is longer than the packet.
        (b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x09a", b""),
        (b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x09a", b"\x20\x03\0\x81\0"),
        // A property that CONNECT does not have.
        (b"\x10\x10\0\x04MQTT\x05\x02\0\x3c\x02\x01\0\0\x01a", b"\x20\x03\0\x81\0"),
        // Something behind the last field.
        (b"\x10\x0f\0\x04MQTT\x04\x02\0\x3c\0\x01axx", b""),
    ];
    for (asked, answer) in cases {
        let mut client = hub.socket(Version::V5).await;
        client.send_raw(asked).await;
        assert_eq!(client.last_bytes().await, answer, "{asked:x?}");
    }
}

/// [MQTT-3.1.4-6]; 3.1.1: [MQTT-3.1.4-5]
#[tokio::test]
async fn mqtt_3_1_4_nothing_of_a_refused_client_is_processed() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut watcher = hub.join(version, clean("watcher")).await;
        watcher.subscribe("t", QoS::AtLeastOnce).await;
        let mut client = hub.socket(version).await;
        client.send(clean(&"x".repeat(300))).await;
        client.send(message("t", "of the refused", QoS::AtMostOnce)).await;
        assert_eq!(client.last_bytes().await.first(), Some(&0x20));
        watcher.hears_nothing().await;
    }
}

/// MQTT 5, 3.1.4: a client may go on before it has its CONNACK, which comes first
/// [MQTT-3.2.0-1].
#[tokio::test]
async fn mqtt_3_1_4_a_client_need_not_wait_for_connack() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.socket(version).await;
        client.send(clean("a")).await;
        client.send(Packet::PingRequest).await;
        assert!(matches!(client.receive().await, Some(Packet::ConnectAck(_))));
        assert!(matches!(client.receive().await, Some(Packet::PingResponse)));
    }
}

/// [MQTT-3.14.0-1]: a client that is wrong before it has its CONNACK is not told so before it.
#[tokio::test]
async fn mqtt5_3_14_0_no_disconnect_comes_before_connack() {
    let hub = Hub::start().await;
    for _ in 0..20 {
        let mut client = hub.socket(Version::V5).await;
        client.send_raw(b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01a\xd0\0").await;
        let first = client.last_bytes().await.first().copied();
        assert!(matches!(first, None | Some(0x20)), "{first:x?}");
    }
}

/// [MQTT-4.12.0-1], 3.1.2.11.9: a method that is not supported is refused with 0x8C; data without
/// a method is a Protocol Error.
#[tokio::test]
async fn mqtt5_4_12_enhanced_authentication_is_refused() {
    let hub = Hub::start().await;
    let with_method = Connect { auth_method: Some("SCRAM-SHA-1".into()), ..clean("a") };
    let with_data = Connect { auth_data: Some("x".into()), ..clean("a") };
    for (connect, reason) in [
        (with_method, ConnectAckReason::BadAuthenticationMethod),
        (with_data, ConnectAckReason::ProtocolError),
    ] {
        let (mut client, ack) = hub.greet(Version::V5, connect).await;
        assert_eq!((ack.reason_code, ack.session_present), (reason, false));
        assert_eq!(client.last_bytes().await, b"");
    }
}

/// MQTT 5, 4.12.0 and 4.12.1: AUTH of a client that named no method is a Protocol Error; 3.1.1 has
/// no such packet.
#[tokio::test]
async fn mqtt5_4_12_auth_without_a_method_ends_the_connection() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    client.send(Packet::Auth(Auth::default())).await;
    client.is_ended_for(DisconnectReasonCode::ProtocolError).await;
    let mut client = hub.join(Version::V3, clean("a")).await;
    client.send_raw(b"\xf0\0").await;
    assert_eq!(client.last_bytes().await, b"");
}
