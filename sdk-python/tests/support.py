"""What the tests share: plugins written down in the test, and workers in this process or in one of their own."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
VECTORS = ROOT.parent / "protocol" / "vectors"
sys.path.insert(0, str(SOURCE))

from gatepost import loader
from gatepost.codec import BUILTIN, FAST
from gatepost.testing import Answers, FakeCore

CODECS = [BUILTIN] + ([FAST] if FAST else [])

HEAD = """\
import asyncio, os, subprocess, sys, threading, time
import gatepost
from gatepost import *
"""
TAIL = """
if __name__ == "__main__":
    gatepost.run()
"""


def vectors(name):
    return json.loads((VECTORS / name).read_text())


class PluginTest(unittest.TestCase):
    """Keeps the plugins of a test in a folder of its own, and ends what the test started."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="gatepost-test-")
        self.addCleanup(lambda: subprocess.run(["rm", "-rf", self.folder], check=True))

    def file(self, source, name="plugin.py"):
        """A plugin's file with these contents, between the usual imports and the usual end."""
        path = os.path.join(self.folder, name)
        Path(path).write_text(HEAD + textwrap.dedent(source) + TAIL)
        return path

    def core(self, *plugins, answers=None, codec=None):
        """A played server around a worker that hosts these: sources, or entries of init. Names are a, b, c ..."""
        core = FakeCore.around(loader.by_source, answers, codec)
        self.addCleanup(core.close)
        core.greet()
        entries = []
        for name, plugin in zip("abcdefghijklmnopqrstuvwxyz", plugins):
            if isinstance(plugin, str):
                plugin = {"name": name, "source": self.file(plugin, name + ".py"), "settings": {}, "args": []}
            entries.append(plugin)
        core.ready = core.init(entries)
        return core

    def process(self, arguments, **environment):
        """A played server with a plugin process of its own, on pipes."""
        to_worker, from_us = os.pipe()
        to_us, from_worker = os.pipe()
        process = self.spawn(arguments, GATEPOST_FD=f"{to_worker},{from_worker}", pass_fds=(to_worker, from_worker), **environment)
        os.close(to_worker)
        os.close(from_worker)
        core = FakeCore(to_us, from_us)
        core.process = process
        self.addCleanup(core.close)
        return core

    def spawn(self, arguments, pass_fds=(), **environment):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
            env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "", **environment},
        )

        def end():
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    @contextlib.contextmanager
    def stderr(self):
        """What this process writes to standard error meanwhile, as a stream."""
        with contextlib.redirect_stderr(io.StringIO()) as stream:
            yield stream
