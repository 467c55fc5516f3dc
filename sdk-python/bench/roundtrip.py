"""Round trip of a rcpt hook to a plugin process over pipes, with a server played in Python.

    python3 bench/roundtrip.py [--count 5000] [--one-cpu]

Prints p50 and p99 in microseconds for each codec that is there: one plain plugin, 20 of them in one segment, one
coroutine, and, to compare, a process that only sends back what it reads. `--one-cpu` keeps both processes on one
CPU, which takes the cost of waking another one out of the figures.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
sys.path.insert(0, str(SOURCE))

from gatepost.codec import FAST
from gatepost.frames import frame
from gatepost.msgpack_builtin import encode
from gatepost.testing import FakeCore

PLUGIN = """
import gatepost

@gatepost.hook("rcpt", fields=["remote_ip", "sender"])
{async_}def rcpt(session, address):
    if address.domain == "example.net":
        return gatepost.fail("no such user here")
    return gatepost.skip("not listed")
"""
ECHO = """
import os
while True:
    data = os.read(0, 65536)
    if not data:
        break
    os.write(1, data)
"""


def hook(names):
    return frame(encode({
        "kind": "hook", "id": 1, "hook": "rcpt", "plugins": names, "session": "3f9a1c", "transaction": 1, "deadline_ms": 30000,
        "args": {"address": "bob@example.org", "parameters": {}},
        "connection": {"remote_ip": "192.0.2.1"}, "transaction_fields": {"sender": "alice@example.com"},
    }))


def measure(reading, writing, data, count):
    times = []
    for number in range(count + count // 10):
        started = time.perf_counter()
        os.write(writing, data)
        os.read(reading, 65536)
        if number >= count // 10:
            times.append(time.perf_counter() - started)
    times.sort()
    return times[len(times) // 2] * 1e6, times[len(times) * 99 // 100] * 1e6


def plugin(path, names, codec, count):
    to_worker, from_us = os.pipe()
    to_us, from_worker = os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "GATEPOST_FD": f"{to_worker},{from_worker}", "GATEPOST_CODEC": codec}
    process = subprocess.Popen([sys.executable, "-m", "gatepost"], env=environment, pass_fds=(to_worker, from_worker))
    os.close(to_worker)
    os.close(from_worker)
    core = FakeCore(to_us, from_us)
    core.greet()
    ready = core.init([{"name": name, "source": path} for name in names])
    assert ready["kind"] == "ready", ready
    assert len(core.hook("rcpt", names, args={"address": "a@b"})) == len(names)
    result = measure(to_us, from_us, hook(names), count)
    core.close()
    process.wait()
    return result


def echo(count):
    process = subprocess.Popen([sys.executable, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    result = measure(process.stdout.fileno(), process.stdin.fileno(), hook(["vip"]), count)
    process.stdin.close()
    process.wait()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="round trips of each kind")
    parser.add_argument("--one-cpu", action="store_true", help="keep both processes on one CPU")
    options = parser.parse_args()
    if options.one_cpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        plain, coroutine = os.path.join(folder, "plain.py"), os.path.join(folder, "coroutine.py")
        Path(plain).write_text(PLUGIN.format(async_=""))
        Path(coroutine).write_text(PLUGIN.format(async_="async "))
        rows = [("bytes sent back", echo(options.count))]
        for codec in ["builtin"] + (["msgpack"] if FAST else []):
            rows.append((f"{codec}, one plugin", plugin(plain, ["vip"], codec, options.count)))
            rows.append((f"{codec}, 20 plugins", plugin(plain, [f"plugin{n}" for n in range(20)], codec, options.count)))
            rows.append((f"{codec}, a coroutine", plugin(coroutine, ["vip"], codec, options.count)))
    print(f"{'':24}{'p50 µs':>8}{'p99 µs':>8}")
    for name, (half, most) in rows:
        print(f"{name:24}{half:8.1f}{most:8.1f}")


if __name__ == "__main__":
    main()
