"""Misbehaves in the way that FAULT names, at the nth of HOOKS, counted from 0, for the client 127.0.1.n."""
import os
import signal
import sys
import time

import gatepost

FAULT, HOOKS = os.environ["FAULT"], os.environ["HOOKS"].split()
# So long it hangs, far beyond any deadline, and no longer, so that it outlives no test.
HANG = 6

if FAULT == "ignores-sigterm":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def go_wrong():
    began = time.monotonic()
    if FAULT in ("hangs", "ignores-sigterm"):
        time.sleep(HANG)
    elif FAULT == "dies":
        os._exit(3)
    elif FAULT == "spins":
        # Many spin at a time, and are to leave others a machine.
        os.nice(19)
        while time.monotonic() < began + HANG / 3:
            pass
    elif FAULT == "leaks":
        kept = []
        while time.monotonic() < began + HANG:
            # 8 MB, since many leak at a time.
            kept.append(b"x" * 20_000)
            time.sleep(HANG / 400)
    elif FAULT == "floods-stderr":
        for number in range(100):
            print(number, "x" * 10_000, file=sys.stderr)


def misbehave_at(hook, client):
    @gatepost.hook(hook, fields=["remote_ip"])
    def misbehave(session):
        if session.remote_ip == client:
            go_wrong()
        return gatepost.declined()


for number, hook in enumerate(HOOKS):
    misbehave_at(hook, f"127.0.1.{number}")

gatepost.run()
