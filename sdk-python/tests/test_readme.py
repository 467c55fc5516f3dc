"""The README's example runs, and so does its test."""

import re
import subprocess
import sys
import unittest
from pathlib import Path

import support
from support import ROOT, SOURCE, PluginTest


class Readme(PluginTest):
    def test_the_first_plugin_passes_its_test(self):
        plugin, test = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[:2]
        Path(self.folder, "vip.py").write_text(plugin)
        Path(self.folder, "test_vip.py").write_text(test)
        done = subprocess.run([sys.executable, "-m", "unittest", "-v"], cwd=self.folder, env={"PYTHONPATH": str(SOURCE)}, stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("test_refuses_whom_it_does_not_know", done.stderr)


if __name__ == "__main__":
    unittest.main()
