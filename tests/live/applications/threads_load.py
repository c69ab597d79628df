"""A connection to threads.rs: each of its threads keeps a number that follows from all that it was
sent."""

import socket

import load

THREADS = 4
FACTOR = 0x9E3779B97F4A7C15


def client(address):
    peer = load.until_it_listens(lambda: socket.create_connection((address, 7000), timeout=load.PATIENCE_S))
    peer = peer.makefile("rwb", buffering=0)
    states, n = list(range(THREADS)), 0
    while not (yield):
        n += 1
        peer.write(b"%d\n" % n)
        states = [(state * FACTOR + n) % 2**64 for state in states]
        load.expect(" ".join(map(str, states)), peer.readline().decode().strip())


load.run(client)
