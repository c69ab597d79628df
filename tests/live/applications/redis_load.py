"""Three connections to redis: INCR in a pipeline that is never empty, a BLPOP that waits, and a
subscription."""

import redis

import load

BATCH = 50
# Between two pushes the other connection is blocked in its BLPOP.
STEPS_PER_PUSH = 100


def client(address):
    def connect():
        connection = redis.Connection(host=address, socket_timeout=load.PATIENCE_S, decode_responses=True)
        connection.connect()
        return connection

    def ask(connection, *command):
        connection.send_command(*command)
        return connection.read_response()

    def send_batch():
        counter.send_packed_command(counter.pack_commands([("INCR", "n")] * BATCH))

    def check_batch():
        nonlocal n
        for _ in range(BATCH):
            n += 1
            load.expect(n, counter.read_response())

    def push():
        load.expect(1, ask(speaker, "RPUSH", "list", step))
        load.expect(["list", str(step)], waiter.read_response())
        waiter.send_command("BLPOP", "list", 0)

    counter = load.until_it_listens(connect)
    speaker, waiter, listener = connect(), connect(), connect()
    load.expect(["subscribe", "channel", 1], ask(listener, "SUBSCRIBE", "channel"))
    waiter.send_command("BLPOP", "list", 0)
    n = step = 0
    send_batch()
    while not (yield):
        step += 1
        send_batch()
        check_batch()
        load.expect(1, ask(speaker, "PUBLISH", "channel", step))
        load.expect(["message", "channel", str(step)], listener.read_response())
        if step % STEPS_PER_PUSH == 0:
            push()
    push()
    check_batch()
    load.expect(str(n), ask(counter, "GET", "n"))


load.run(client)
