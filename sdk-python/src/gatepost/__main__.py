"""``python3 -m gatepost``: hosts the plugin files that the server's configuration names."""

import sys

from .main import host

sys.exit(host(sys.argv[1:]))
