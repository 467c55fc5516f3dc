"""Plugin files are loaded as they are now."""

import os
import sys
import tempfile
import unittest
from pathlib import Path

from gatepost import loader

TEMPLATE = "import gatepost\n\n@gatepost.hook('noop')\ndef noop():\n    return gatepost.passed({!r})\n"


class LoadFile(unittest.TestCase):
    def test_a_file_of_the_same_length_and_second_is_read_again(self):
        self.addCleanup(setattr, sys, "dont_write_bytecode", sys.dont_write_bytecode)
        sys.dont_write_bytecode = False
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "plugin.py")
            for said in ("one", "two"):
                path.write_text(TEMPLATE.format(said))
                os.utime(path, (1_000_000_000, 1_000_000_000))
                hooks = loader.load_file(str(path)).hooks
                self.assertEqual(next(iter(hooks.values())).function().entry["message"], said)
            self.assertEqual(os.listdir(folder), ["plugin.py"], "nothing is left beside it")


if __name__ == "__main__":
    unittest.main()
