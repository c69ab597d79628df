//! Packets that are none: whoever sends one is ended, and told why where the version can say it.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::DisconnectReasonCode;

use crate::client::{Hub, clean};
use crate::wire::{BOTH, Version};

/// Sends each to the broker on a connection of its own, and asserts that it ends there.
async fn are_malformed(version: Version, packets: &[&[u8]]) {
    let hub = Hub::start().await;
    let mut bystander = hub.join(version, clean("bystander")).await;
    bystander.subscribe("#", QoS::AtMostOnce).await;
    for packet in packets {
        let mut client = hub.join(version, clean("a")).await;
        client.send_raw(packet).await;
        let said = client.ended().await;
        let expected = (version == Version::V5).then_some(DisconnectReasonCode::MalformedPacket);
        assert_eq!(said, expected, "{packet:x?}");
    }
    bystander.hears_nothing().await;
}

/// [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1]; 3.1.1:
/// [MQTT-2.2.2-1], [MQTT-2.2.2-2]
#[tokio::test]
async fn mqtt_2_1_3_reserved_flags_end_the_connection() {
    let both: [&[u8]; 6] = [
        b"\x41\x02\0\x01",
        b"\x51\x02\0\x01",
        b"\x60\x02\0\x01",
        b"\x63\x02\0\x01",
        b"\xc1\0",
        b"\xe1\0",
    ];
    for version in BOTH {
        are_malformed(version, &both).await;
    }
    are_malformed(Version::V3, &[b"\x80\x06\0\x01\0\x01t\0", b"\xa0\x05\0\x01\0\x01t"]).await;
    are_malformed(Version::V5, &[b"\x80\x07\0\x01\0\0\x01t\0", b"\xa0\x06\0\x01\0\0\x01t"]).await;
}

/// 2.1.2: type 0 is reserved, and so is 15 in 3.1.1.
#[tokio::test]
async fn mqtt_2_1_2_reserved_packet_types_end_the_connection() {
    are_malformed(Version::V3, &[b"\x00\0", b"\xf0\0"]).await;
    are_malformed(Version::V5, &[b"\x00\0"]).await;
}

/// 2.1.2: what only a broker sends.
#[tokio::test]
async fn mqtt_2_1_2_the_brokers_packets_are_not_for_clients() {
    let hub = Hub::start().await;
    for version in BOTH {
        for packet in [&b"\xd0\0"[..], b"\x20\x02\0\0", b"\xb0\x02\0\x01", b"\x90\x03\0\x01\0"] {
            let mut client = hub.join(version, clean("a")).await;
            client.send_raw(packet).await;
            let said = client.ended().await;
            assert_eq!(said.is_some(), version == Version::V5, "{packet:x?}");
        }
    }
}

/// [MQTT-1.5.5-1] and 2.1.4: a length of more than four bytes; one of four is waited for.
#[tokio::test]
async fn mqtt_2_1_4_a_length_of_more_than_four_bytes_ends_the_connection() {
    for version in BOTH {
        are_malformed(version, &[b"\x30\xff\xff\xff\xff\x01", b"\x30\x80\x80\x80\x80\0"]).await;
    }
}

/// [MQTT-3.3.1-4], [MQTT-3.3.1-2]; 3.1.1 the same
#[tokio::test]
async fn mqtt_3_3_1_flags_of_publish_that_make_no_sense_end_the_connection() {
    are_malformed(Version::V3, &[b"\x36\x06\0\x01t\0\x01x", b"\x38\x04\0\x01tx"]).await;
    are_malformed(Version::V5, &[b"\x36\x07\0\x01t\0\x01\0x", b"\x38\x05\0\x01t\0x"]).await;
}

/// [MQTT-2.2.1-3]; 3.1.1: [MQTT-2.3.1-1]
#[tokio::test]
async fn mqtt_2_2_1_a_packet_id_of_zero_ends_the_connection() {
    let old: [&[u8]; 5] = [
        b"\x32\x06\0\x01t\0\0x",
        b"\x34\x06\0\x01t\0\0x",
        b"\x82\x06\0\0\0\x01t\0",
        b"\xa2\x05\0\0\0\x01t",
        b"\x40\x02\0\0",
    ];
    are_malformed(Version::V3, &old).await;
    let new: [&[u8]; 5] = [
        b"\x32\x07\0\x01t\0\0\0x",
        b"\x34\x07\0\x01t\0\0\0x",
        b"\x82\x07\0\0\0\0\x01t\0",
        b"\xa2\x06\0\0\0\0\x01t",
        b"\x40\x02\0\0",
    ];
    are_malformed(Version::V5, &new).await;
}

/// [MQTT-3.8.3-5]; 3.1.1: [MQTT-3-8.3-4]; a QoS of 3, a retain handling of 3
#[tokio::test]
async fn mqtt_3_8_3_reserved_bits_of_a_subscription_end_the_connection() {
    are_malformed(Version::V3, &[b"\x82\x06\0\x01\0\x01t\x03", b"\x82\x06\0\x01\0\x01t\x04"]).await;
    let new: [&[u8]; 4] = [
        b"\x82\x07\0\x01\0\0\x01t\x03",
        b"\x82\x07\0\x01\0\0\x01t\x30",
        b"\x82\x07\0\x01\0\0\x01t\x40",
        b"\x82\x07\0\x01\0\0\x01t\x80",
    ];
    are_malformed(Version::V5, &new).await;
}

/// [MQTT-1.5.4-1]; 3.1.1: [MQTT-1.5.3-1]: surrogates, overlong and cut sequences, in a topic and in
/// a filter
#[tokio::test]
async fn mqtt_1_5_4_strings_that_are_no_utf_8_end_the_connection() {
    let old: [&[u8]; 5] = [
        b"\x30\x06\0\x03\xed\xa0\x80x",
        b"\x30\x05\0\x02\xc0\x80x",
        b"\x30\x05\0\x02a\xe2x",
        b"\x82\x08\0\x01\0\x03\xed\xbf\xbf\0",
        b"\xa2\x06\0\x01\0\x02a\xff",
    ];
    are_malformed(Version::V3, &old).await;
    let new: [&[u8]; 4] = [
        b"\x30\x07\0\x03\xed\xa0\x80\0x",
        b"\x82\x09\0\x01\0\0\x03\xed\xbf\xbf\0",
        // A user property.
        b"\x30\x0c\0\x01t\x07\x26\0\x01\xff\0\x01bx",
        // A content type.
        b"\x30\x09\0\x01t\x04\x03\0\x01\xffx",
    ];
    are_malformed(Version::V5, &new).await;
}

/// [MQTT-1.5.4-2], [MQTT-4.7.3-2]; 3.1.1: [MQTT-1.5.3-2], [MQTT-4.7.3-2]
#[tokio::test]
async fn mqtt_1_5_4_a_null_character_ends_the_connection() {
    let old: [&[u8]; 3] =
        [b"\x30\x06\0\x03a\0bx", b"\x82\x08\0\x01\0\x03a\0b\0", b"\xa2\x07\0\x01\0\x03a\0b"];
    are_malformed(Version::V3, &old).await;
    let new: [&[u8]; 7] = [
        b"\x30\x07\0\x03a\0b\0x",
        b"\x82\x09\0\x01\0\0\x03a\0b\0",
        b"\xa2\x08\0\x01\0\0\x03a\0b",
        // A user property, a content type, a response topic.
        b"\x30\x0c\0\x01t\x07\x26\0\x01\0\0\x01bx",
        b"\x30\x09\0\x01t\x04\x03\0\x01\0x",
        b"\x30\x09\0\x01t\x04\x08\0\x01\0x",
        // A reason string.
        b"\xe0\x06\0\x04\x1f\0\x01\0",
    ];
    are_malformed(Version::V5, &new).await;
}

/// 1.5.4 of both (and 3.1.3.1): in CONNECT as well.
#[tokio::test]
async fn mqtt_1_5_4_a_null_character_in_connect_is_refused() {
    let hub = Hub::start().await;
    let cases: [(&[u8], &[u8]); 4] = [
        (b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01\0", b""),
        (b"\x10\x10\0\x04MQTT\x04\x82\0\x3c\0\x01a\0\x01\0", b""),
        (b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01\0", b"\x20\x03\0\x81\0"),
        (b"\x10\x15\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\0\0\x01\0\0\x01x", b"\x20\x03\0\x81\0"),
    ];
    for (asked, answer) in cases {
        let mut client = hub.socket(Version::V5).await;
        client.send_raw(asked).await;
        assert_eq!(client.last_bytes().await, answer, "{asked:x?}");
    }
}

/// 1.5.4: U+FEFF is part of a string wherever it stands [MQTT-1.5.4-3]; control and private
/// characters need not end a connection.
#[tokio::test]
async fn mqtt_1_5_4_odd_characters_are_taken_as_they_are() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        client.subscribe("#", QoS::AtLeastOnce).await;
        for topic in
            ["\u{feff}a", "a\u{feff}", "\u{1}", "\u{7f}", "\u{fffd}", "\u{e000}", "\u{10ffff}"]
        {
            client.publish(topic, "x", QoS::AtLeastOnce).await;
            assert_eq!(&*client.take().await.topic, topic);
        }
    }
}

/// 2.2.2.2 and 4.13.1: properties of another packet, twice, cut short, or out of their range
#[tokio::test]
async fn mqtt5_2_2_2_properties_out_of_place_end_the_connection() {
    let packets: [&[u8]; 6] = [
        // A session expiry in PUBLISH; nothing has the property 0x7f.
        b"\x30\x0a\0\x01t\x05\x11\0\0\0\x01x",
        b"\x30\x07\0\x01t\x02\x7f\0x",
        // A payload format twice, and one of 2.
        b"\x30\x09\0\x01t\x04\x01\x01\x01\x01x",
        b"\x30\x07\0\x01t\x02\x01\x02x",
        // Longer than the packet; cut short.
        b"\x30\x05\0\x01t\x09x",
        b"\x30\x07\0\x01t\x02\x02\0x",
    ];
    are_malformed(Version::V5, &packets).await;
}

/// 2.1.4: fields that end behind their packet, and bytes behind the last field
#[tokio::test]
async fn mqtt_2_1_4_fields_that_do_not_fit_their_packet_end_the_connection() {
    let both: [&[u8]; 6] = [
        b"\x30\x03\0\x09t",
        b"\x30\x01\0",
        b"\x40\x01\0",
        b"\x82\x05\0\x01\0\x09t",
        b"\xc0\x01x",
        b"\x62\x03\0\x01\xff",
    ];
    for version in BOTH {
        are_malformed(version, &both).await;
    }
    are_malformed(Version::V3, &[b"\x40\x03\0\x01\0", b"\xe0\x01\0"]).await;
}

/// A packet may come in any pieces.
#[tokio::test]
async fn mqtt_2_1_4_a_packet_may_come_byte_by_byte() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        for byte in [0xc0, 0x80, 0x00] {
            // A length of 0 in two bytes is read as well (1.5.5).
            client.send_raw(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.bytes(2).await, [0xd0, 0]);
        client.ping().await;
    }
}
