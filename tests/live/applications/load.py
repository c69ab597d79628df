"""What all clients have in common.

A client is a generator. It connects, and after each step whose answers were right it
yields; what it gets back is whether it is time to end. A line of JSON now and then says how
far it is, the last one how it ended.
"""

import json
import signal
import sys
import time

STEP_PAUSE_S = 0.005
PATIENCE_S = 60


class Wrong(Exception):
    """The server answered something else than it should have."""


def expect(wanted, got):
    if wanted != got:
        raise Wrong(f"wanted {wanted!r}, got {got!r}"[:500])


def until_it_listens(connect):
    """What `connect` answers once it works."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return connect()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def run(client):
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    said = {"steps": 0, "longest_gap_ms": 0, "wrong": None, "lost": None, "ended": False}

    def say():
        print(json.dumps(said), flush=True)

    try:
        steps = client(sys.argv[1])
        next(steps)
        last = last_said = time.monotonic()
        while True:
            steps.send(bool(ending))
            said["steps"] += 1
            now = time.monotonic()
            said["longest_gap_ms"] = max(said["longest_gap_ms"], round((now - last) * 1000))
            last = now
            if now - last_said > 0.1:
                last_said = now
                say()
            time.sleep(STEP_PAUSE_S)
    except StopIteration:
        pass
    except Wrong as wrong:
        said["wrong"] = str(wrong)
    except Exception as error:
        said["lost"] = repr(error)
    said["ended"] = True
    say()
