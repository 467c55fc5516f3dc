"""Lines of a message as it comes in, delays, and places in the order of plugins."""

import pathlib
import tempfile
import textwrap
import unittest

import support
from gatepost import testing
from gatepost.definition import hook

PLUGIN = """
import gatepost

@gatepost.hook("data_lines", priority="last")
def data_lines(lines, offset):
    if b"\\xff" in lines:
        return gatepost.deny(f"at {offset + lines.index(0xff)}").delayed(2.5)
    return gatepost.ok()

@gatepost.hook("rcpt", "mail", priority=-3)
def envelope():
    return gatepost.fail("slow").delayed(1)

@gatepost.hook("pre_connection")
def pre_connection(session, connections, max_connections):
    early = session.core.client_spoke(0.5).result()
    return gatepost.deny("early") if early else gatepost.passed(f"{connections} of {max_connections}")

@gatepost.hook("connect")
async def connect():
    async def later():
        return gatepost.passed().delayed(3)
    return gatepost.defer("rcpt", later).delayed(1)
"""


class Timing(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name, "slow.py")
        path.write_text(textwrap.dedent(PLUGIN))
        self.plugin = testing.load(path)
        self.addCleanup(self.plugin.close)

    def test_lines(self):
        session = self.plugin.session()
        self.assertEqual(session.run("data_lines", lines=b"Subject: x\r\n", offset=0).verdict, "ok")
        outcome = session.run("data_lines", lines=b"ab\xff\r\n", offset=12)
        self.assertEqual((outcome.verdict, outcome.message, outcome.delay), ("deny", "at 14", 2.5))

    def test_before_the_greeting(self):
        session = self.plugin.session()
        self.assertEqual(session.run("pre_connection", connections=2, max_connections=20).message, "2 of 20")
        session.client_spoke = True
        self.assertEqual(session.run("pre_connection", connections=2, max_connections=20).message, "early")

    def test_delay(self):
        session = self.plugin.session()
        outcome = session.run("connect")
        self.assertEqual((outcome.delay, outcome.later().delay), (1, 3))
        outcome = session.run("mail", address="a@b.example", parameters={})
        self.assertEqual((outcome.disposition, outcome.delay), ("fail", 1))

    def test_the_example_of_the_documentation(self):
        text = (support.ROOT.parent / "docs" / "writing-plugins.md").read_text()
        example = next(block for block in text.split("```") if block.startswith("python") and "data_lines" in block)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "example.py")
            path.write_text(support.HEAD + example[len("python"):])
            with testing.load(path) as plugin:
                session = plugin.session()
                self.assertIsNone(session.run("data_lines", lines=b"Subject: x\r\n", offset=0).verdict)
                self.assertEqual(session.run("data_lines", lines=b"x\r\n", offset=2_000_000).verdict, "ok")
                outcome = session.run("data_lines", lines=b"--b\r\nContent-Disposition: attachment\r\n", offset=0)
                self.assertEqual((outcome.verdict, outcome.message), ("deny", "no attachments here"))

    def test_places(self):
        places = {name: declared.get("priority") for name, declared in self.plugin.hooks.items()}
        self.assertEqual(places, {"data_lines": "last", "rcpt": -3, "mail": -3, "pre_connection": None, "connect": None})

    def test_no_places(self):
        for wrong in ("lst", 1.5, True, None):
            with self.assertRaises(ValueError):
                hook("rcpt", priority=wrong)
