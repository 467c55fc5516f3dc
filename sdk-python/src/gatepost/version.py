"""The versions of this package and of the plugin protocol that it speaks."""

VERSION = "0.1.0"
PROTOCOL = "gatepost-plugin"
PROTOCOL_VERSION = (1, 0)
SDK = "gatepost-python " + VERSION
FEATURES = ["cancel", "defer", "segments", "settings", "unfinished"]
