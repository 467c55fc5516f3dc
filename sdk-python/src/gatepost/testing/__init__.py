"""Tests for plugins, with unittest or pytest, and without a server."""

from ..instances import Refused
from .core import Answers, FakeCore
from .kit import Outcome, Plugin, Session, load

__all__ = ["Answers", "FakeCore", "Outcome", "Plugin", "Refused", "Session", "load"]
