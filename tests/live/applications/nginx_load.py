"""Two connections to nginx: one with downloads that it makes slow, one after the other, and one
with many requests for parts of the same file."""

import http.client
import select

import load

NUMBERS = b"".join(b"%07d\n" % n for n in range(524288))
PART_BYTES = 4096


def client(address):
    def connect():
        connection = http.client.HTTPConnection(address, timeout=load.PATIENCE_S)
        connection.connect()
        # A connection that is closed is not opened again behind our back.
        connection.auto_open = False
        return connection

    def ask(connection, **headers):
        connection.request("GET", "/slow" if connection is slow else "/numbers", headers=headers)
        return connection.getresponse()

    def check_piece():
        nonlocal download, at
        if at == len(NUMBERS):
            load.expect(b"", download.read())
            download, at = ask(slow), 0
        piece = download.read1(1 << 16)
        load.expect(NUMBERS[at : at + max(len(piece), 1)], piece)
        at += len(piece)

    slow = load.until_it_listens(connect)
    quick = connect()
    download, at, step = ask(slow), 0, 0
    while not (yield):
        step += 1
        begin = step * 7919 % (len(NUMBERS) - PART_BYTES)
        end = begin + PART_BYTES
        load.expect(NUMBERS[begin:end], ask(quick, Range=f"bytes={begin}-{end - 1}").read())
        if select.select([slow.sock], [], [], 0)[0]:
            check_piece()
    for _ in range(3):
        check_piece()


load.run(client)
