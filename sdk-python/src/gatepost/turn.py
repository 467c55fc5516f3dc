"""One hook or event of one session, while it runs; and the plugins that the process hosts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from .calls import Core
from .changes import Change, View
from .definition import Hook
from .hooks import text

if TYPE_CHECKING:
    from .worker import Worker

Map = Dict[str, Any]
LEVELS = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")


class Turn:
    """What a hook's functions see, and the changes that they ask for."""

    __slots__ = ("worker", "id", "hook", "session", "number", "resumed", "deadline_ms", "view", "names", "settings", "changes", "cancelled", "departed", "departure", "task", "entries", "waiting")

    def __init__(self, worker: Worker, message: Map) -> None:
        get = message.get
        self.worker = worker
        self.id: int = get("id", 0)
        self.hook = text(get("hook"))
        self.session = text(get("session"))
        self.number: Optional[int] = get("transaction")
        self.resumed = get("resumed") is True
        self.deadline_ms: Optional[int] = get("deadline_ms")
        notes = get("notes")
        if notes:
            self.view = View(get("connection") or {}, get("transaction_fields") or {}, notes.get("connection") or {}, notes.get("transaction") or {})
        else:
            self.view = View(get("connection") or {}, get("transaction_fields") or {}, {}, {})
        self.names: List[Any] = get("plugins") or []
        self.settings: Optional[Map] = get("settings")
        self.changes: List[Change] = []
        self.cancelled: Optional[str] = None
        self.departed: bool = get("departed", False)
        self.departure: Optional[asyncio.Event] = None
        self.task: Optional[asyncio.Task[Any]] = None
        # Encoded results of the plugins that had their turn, and what the one whose turn it is awaits.
        self.entries: List[bytes] = []
        self.waiting: Any = None

    def later(self) -> Turn:
        """The same turn for a deferred answer: it sees what this one saw, and its changes are its own."""
        turn = Turn.__new__(Turn)
        for name in Turn.__slots__:
            setattr(turn, name, getattr(self, name))
        turn.changes = []
        turn.task = None
        return turn

    def depart(self) -> None:
        """The client is gone; the hook's answer counts nevertheless."""
        self.departed = True
        if self.departure is not None:
            self.departure.set()

    def change(self, change: Change) -> None:
        """Ask for a change, and see it at once."""
        self.changes.append(change)
        self.view.apply(change)


class Plugin:
    """A plugin as its own code sees it: its name, what the server told it at the start, and its log."""

    def __init__(self, worker: Worker, name: str, args: List[str], init: Map) -> None:
        self._worker = worker
        self.name = name
        """Its name in the configuration."""
        self.args = args
        """Arguments, where the configuration gives it a line instead of settings."""
        self.hostname = text(init.get("hostname"))
        """The server's name."""
        self.worker: int = init.get("worker") or 1
        """The number of this process among the plugin's workers, from 1."""
        self.scratch_dir: Optional[str] = text(init["scratch_dir"]) if init.get("scratch_dir") is not None else None
        """An empty folder for this process alone; None where the server attached to it."""

    @property
    def core(self) -> Core:
        """Calls to the server that belong to no session: dns, config, state."""
        return Core(self._worker, None)

    def log(self, message: str, level: str = "info") -> None:
        """A line for the server's log. Levels: emerg alert crit error warn notice info debug."""
        self._worker.send_log(self.name, None, message, level)


class Hosted:
    """A plugin in this process, with its functions by hook and what its results start with."""

    __slots__ = ("plugin", "name", "key", "hooks", "quiet", "cache")

    def __init__(self, plugin: Plugin, key: str, hooks: Dict[str, Hook], quiet: bytes) -> None:
        self.plugin = plugin
        self.name = plugin.name
        # The name, or for another instance a text that is no plugin's name.
        self.key = key
        self.hooks = hooks
        self.quiet = quiet
        # Encoded results by disposition, verdict and message: plugins say the same few things again and again.
        self.cache: Dict[Any, bytes] = {}
