"""A WebSocket: the server answers each message with a digest of all so far, and sends ticks of its
own in between."""

import hashlib

import websockets.sync.client

import load


def client(address):
    def hear(wanted):
        nonlocal ticks
        while True:
            kind, value = socket.recv(timeout=load.PATIENCE_S).split()
            if kind == "tick":
                ticks += 1
                load.expect(ticks, int(value))
            if kind == wanted:
                return value

    socket = load.until_it_listens(lambda: websockets.sync.client.connect(f"ws://{address}:7000"))
    chain, n, ticks = "", 0, 0
    while not (yield):
        n += 1
        socket.send(str(n))
        chain = hashlib.sha256(f"{chain}{n}".encode()).hexdigest()
        load.expect(chain, hear("chain"))
    # One that was sent after the last answer.
    hear("tick")
    hear("tick")


load.run(client)
