"""Some connections to an asyncio server, which answers each line, a moment later, with a checksum
of all that came on that connection."""

import socket
import zlib

import load

CONNECTIONS = 10


def client(address):
    def connect():
        peer = socket.create_connection((address, 7000), timeout=load.PATIENCE_S)
        return peer.makefile("rwb", buffering=0)

    peers = [load.until_it_listens(connect) for _ in range(CONNECTIONS)]
    checksums = [0] * CONNECTIONS
    n = 0
    while not (yield):
        n += 1
        for i, peer in enumerate(peers):
            line = b"%d from %d\n" % (n, i)
            checksums[i] = zlib.crc32(line, checksums[i])
            peer.write(line)
        for checksum, peer in zip(checksums, peers):
            load.expect(b"%d\n" % checksum, peer.readline())


load.run(client)
