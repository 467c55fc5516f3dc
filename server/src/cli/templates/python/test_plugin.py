"""The plugin alone, without a server: python3 -m unittest"""
import pathlib
import unittest

from gatepost import testing

PLUGIN = pathlib.Path(__file__).with_name("NAME.py")


class Rcpt(unittest.TestCase):
    def test_refuses_who_is_listed(self):
        with testing.load(PLUGIN, {"addresses": ["nobody@example.org"]}) as plugin:
            session = plugin.session()
            self.assertEqual(session.run("rcpt", address="nobody@example.org").disposition, "fail")
            self.assertEqual(session.run("rcpt", address="bob@example.org").disposition, "skip")


if __name__ == "__main__":
    unittest.main()
