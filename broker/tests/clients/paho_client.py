"""What paho-mqtt does with the broker: paho_client.py WHAT CA USER PASSWORD PORT PORT PORT PORT

The ports are those of MQTT, TLS, WebSocket and secure WebSocket. WHAT is a function below, called
once for each transport and version that it is about; a line is printed for each that went well.
"""

import os
import queue
import socket
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

WHAT, CA, USER, PASSWORD = sys.argv[1:5]
PORTS = [int(port) for port in sys.argv[5:]]
TRANSPORTS = [("tcp", False), ("tcp", True), ("websockets", False), ("websockets", True)]
PATIENCE = 40


def properties(kind, **values):
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """A client of one version over one transport, with what happens to it in queues."""

    def __init__(self, way, name, version=None, keeps_session=False, user=USER):
        (self.transport, self.is_secure), self.port, self.version = way
        self.version = version or self.version
        self.is_v5 = self.version == mqtt.MQTTv5
        self.keeps_session = keeps_session
        clean = {} if self.is_v5 else {"clean_session": not keeps_session}
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, name, protocol=self.version, transport=self.transport, **clean
        )
        self.paho.username_pw_set(user, PASSWORD)
        if self.is_secure:
            self.paho.tls_set(CA)
        self.greetings, self.messages, self.answers = queue.Queue(), queue.Queue(), queue.Queue()
        self.paho.on_connect = self.hear_greeting
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_subscribe = lambda _c, _u, mid, reasons, _p: self.answers.put((mid, reasons))

    def hear_greeting(self, _client, _user, flags, reason, _properties):
        if reason.is_failure:
            # Or it tries again, and again.
            self.paho.disconnect()
        self.greetings.put((flags, reason))

    def begin(self):
        """Connects, and answers what the broker says."""
        more = {}
        if self.is_v5:
            expiry = properties(PacketTypes.CONNECT, SessionExpiryInterval=3600 if self.keeps_session else 0)
            more = {"clean_start": not self.keeps_session, "properties": expiry}
        self.paho.connect("127.0.0.1", self.port, **more)
        self.paho.loop_start()
        flags, reason = self.greetings.get(timeout=PATIENCE)
        self.is_present = flags.session_present
        return reason

    def up(self):
        reason = self.begin()
        assert reason == "Success", reason
        return self

    def refused(self):
        """Why it does not come in."""
        reason = self.begin()
        self.paho.loop_stop()
        return reason

    def subscribe(self, topic, qos=2, options=None, **more):
        wanted = {"options": options} if options else {"qos": qos}
        _, mid = self.paho.subscribe(topic, **wanted, **more)
        answered, reasons = self.answers.get(timeout=PATIENCE)
        assert answered == mid
        return reasons

    def publish(self, topic, *payloads, qos=2, **values):
        more = {"properties": properties(PacketTypes.PUBLISH, **values)} if values else {}
        for sent in [self.paho.publish(topic, payload, qos, **more) for payload in payloads]:
            sent.wait_for_publish(PATIENCE)
            assert sent.is_published(), "not acknowledged"

    def next(self):
        return self.messages.get(timeout=PATIENCE)

    def leave(self):
        self.paho.disconnect()
        self.paho.loop_stop()


def each_quality(way):
    client = Client(way, "both").up()
    for reason in client.subscribe("app/alice/news"):
        assert reason == "Granted QoS 2", reason
    for qos in (0, 1, 2):
        payloads = [f"{qos}-{n}".encode() for n in range(20)] + [b"\xff" * 100_000, b""]
        client.publish("app/alice/news", *payloads, qos=qos)
        heard = [client.next() for _ in payloads]
        assert [message.payload for message in heard] == payloads
        assert {message.qos for message in heard} == {qos}
    client.leave()


def properties_and_requests(way):
    service, client = Client(way, "service").up(), Client(way, "client").up()
    service.subscribe("app/alice/ask", properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=7))
    client.subscribe("app/alice/answer/#", options=SubscribeOptions(qos=1, noLocal=True))
    client.publish("app/alice/answer/1", "my own")
    client.publish(
        "app/alice/ask", "what?", ResponseTopic="app/alice/answer/1", CorrelationData=b"\0\xff1",
        ContentType="text/plain", PayloadFormatIndicator=1, MessageExpiryInterval=60,
        UserProperty=[("b", "2"), ("a", "ä"), ("b", "1")],
    )
    asked = service.next().properties
    assert asked.UserProperty == [("b", "2"), ("a", "ä"), ("b", "1")], asked
    assert (asked.ContentType, asked.PayloadFormatIndicator) == ("text/plain", 1), asked
    assert asked.SubscriptionIdentifier == [7] and 0 < asked.MessageExpiryInterval <= 60, asked
    service.publish(asked.ResponseTopic, "that.", CorrelationData=asked.CorrelationData)
    answer = client.next()
    assert (answer.payload, answer.qos) == (b"that.", 1), "noLocal, and the quality that was asked for"
    assert answer.properties.CorrelationData == b"\0\xff1"
    service.leave()
    client.leave()


def session_taken_back(way):
    name = "-".join(map(str, (*way[0], way[2])))
    first = Client(way, name, keeps_session=True).up()
    assert not first.is_present
    first.subscribe(f"app/alice/{name}")
    first.leave()
    other = Client(way, "other").up()
    other.publish(f"app/alice/{name}", "1", "2", "3")
    other.leave()
    again = Client(way, name, keeps_session=True).up()
    assert again.is_present
    assert [again.next().payload for _ in range(3)] == [b"1", b"2", b"3"]
    again.leave()
    # Where it was, without what it has acknowledged.
    again.up()
    assert again.is_present
    again.publish(f"app/alice/{name}", "4")
    assert again.next().payload == b"4"
    again.leave()


def will(way):
    heir, mortal = Client(way, "heir").up(), Client(way, f"mortal-{way}")
    heir.subscribe("app/alice/last")
    mortal.paho.will_set("app/alice/last", "gone", qos=2)
    mortal.up()
    # Carried by TLS and WebSocket, too, without a word of theirs.
    with socket.socket(fileno=os.dup(mortal.paho.socket().fileno())) as raw:
        raw.shutdown(socket.SHUT_RDWR)
    message = heir.next()
    assert (message.payload, message.qos) == (b"gone", 2)
    heir.leave()


def refusals(way):
    # Nobody twice: who fails again and again is told something else.
    reason = Client(way, "stranger", user=f"bob-{way}").refused()
    assert reason == "Bad user name or password", reason
    reason = Client(way, "old", version=mqtt.MQTTv31).refused()
    assert reason == "Unsupported protocol version", reason
    client = Client(way, "refused").up()
    (reason,) = client.subscribe("app/bob/#")
    assert reason == ("Not authorized" if client.is_v5 else "Unspecified error"), reason
    client.leave()


VERSIONS = [mqtt.MQTTv5] if WHAT == "properties_and_requests" else [mqtt.MQTTv311, mqtt.MQTTv5]
for port, transport in zip(PORTS, TRANSPORTS, strict=True):
    for version in VERSIONS:
        globals()[WHAT]((transport, port, version))
        print(WHAT, *transport, port, version, flush=True)
