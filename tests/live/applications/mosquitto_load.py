"""A publisher and a subscriber, QoS 2: each message comes once, in its order."""

import queue

import paho.mqtt.client as mqtt

import load

# Messages on their way at a time.
WINDOW = 20


def client(address):
    lost, heard, subscribed = [], queue.Queue(), queue.Queue()

    def connect():
        peer = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        peer.on_disconnect = lambda *what: lost.append(str(what[3]))
        peer.max_inflight_messages_set(WINDOW)
        peer.connect(address)
        peer.loop_start()
        return peer

    def hear():
        nonlocal received
        load.expect(received + 1, int(heard.get(timeout=load.PATIENCE_S)))
        received += 1

    subscriber = load.until_it_listens(connect)
    subscriber.on_message = lambda _client, _data, message: heard.put(message.payload)
    subscriber.on_subscribe = lambda *_: subscribed.put(True)
    subscriber.subscribe("numbers", qos=2)
    subscribed.get(timeout=load.PATIENCE_S)
    publisher = connect()
    published = received = 0
    while not (yield):
        published += 1
        publisher.publish("numbers", str(published), qos=2)
        while published - received >= WINDOW:
            hear()
        if lost:
            raise ConnectionError(lost[0])
    while received < published:
        hear()
    load.expect(True, heard.empty())


load.run(client)
