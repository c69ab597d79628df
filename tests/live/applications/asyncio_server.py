"""Answers each line, a moment later, with a checksum of all that came on its connection."""

import asyncio
import zlib


async def talk(reader, writer):
    checksum = 0
    while line := await reader.readline():
        checksum = zlib.crc32(line, checksum)
        await asyncio.sleep(0.005)
        writer.write(b"%d\n" % checksum)
        await writer.drain()


async def serve():
    server = await asyncio.start_server(talk, port=7000)
    await server.serve_forever()


asyncio.run(serve())
