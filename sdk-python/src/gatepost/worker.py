"""One channel's conversation with the server: handshake, messages in, messages out, calls.

A plain hook runs in the thread that reads the channel, one at a time, with one read per wake-up and one write for all
the results it led to. As soon as a coroutine is to run, the same thread goes on as an event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from types import FrameType
from typing import Any, Callable, Deque, Dict, List, Optional

from .calls import Call
from .channel import Channel
from .codec import Codec, choose
from .definition import Definition
from .frames import FrameError, FrameReader, frame
from .hooks import text
from .instances import Instances, Loader
from .runner import Runner
from .turn import LEVELS, Turn
from .version import FEATURES, PROTOCOL, PROTOCOL_VERSION, SDK

Map = Dict[str, Any]

_CONCURRENCY = 64
_PATIENCE = 0.0005


class VersionMismatch(Exception):
    """The server speaks another major version of the protocol; the text says which side to upgrade."""


class Worker:
    """Serves one channel until it ends. ``load`` finds the plugin for an entry of `init`."""

    def __init__(self, channel: Channel, load: Loader, codec: Optional[Codec] = None) -> None:
        self.codec = codec or choose()
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self._channel = channel
        self._frames = FrameReader(self.codec.decode)
        self._inbox: Deque[Map] = deque()
        self._outbox: Deque[bytes] = deque()
        self._writing = threading.Lock()
        self._calls: Dict[int, Call[Any]] = {}
        self._call_ids = itertools.count(1)
        self._thread = 0
        self._wants_loop = False
        self._ended = False
        self._failure: Optional[Exception] = None
        self._done: Optional[asyncio.Future[None]] = None
        self._instances = Instances(self, load)
        self._runner = Runner(self, self._instances)
        self._kinds: Dict[Any, Callable[[Map], None]] = {
            "hello": self._on_hello,
            "init": self._on_init,
            "hook": self._runner.take,
            "event": self._runner.take,
        }

    def serve(self) -> None:
        """Serve until the channel ends. Raises FrameError, VersionMismatch or Fatal where that is why it ended."""
        self._thread = threading.get_ident()
        version = list(PROTOCOL_VERSION)
        self.post({"kind": "hello", "protocol": PROTOCOL, "version": version, "sdk": SDK, "features": FEATURES})
        self.flush()
        try:
            while not self._ended and not self._wants_loop:
                self._receive(self._channel.read())
                self._drain()
            if not self._ended:
                asyncio.run(self._serve_in_loop())
        except Exception as exception:
            self.give_up(exception)
            raise
        finally:
            self._ended = True
            for call in list(self._calls.values()):
                call.settle(_CLOSED)
            self._runner.finish()
        if self._failure is not None:
            raise self._failure

    async def _serve_in_loop(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._done = self.loop.create_future()
        self.loop.add_reader(self._channel.fileno(), self._readable)
        self._runner.start_loop()
        self._readable(first=True)
        await self._done
        self.loop.remove_reader(self._channel.fileno())
        for call in list(self._calls.values()):
            call.settle(_CLOSED)
        await self._runner.finish_tasks()

    def _readable(self, first: bool = False) -> None:
        assert self._done is not None
        try:
            if not first and not self._ended:
                self._receive(self._channel.read())
            self._drain()
        except Exception as exception:
            self._failure, self._ended = exception, True
        if self._ended and not self._done.done():
            self._done.set_result(None)

    def _receive(self, data: bytes) -> None:
        """Cut ``data`` into messages. Replies and cancels take effect at once, everything else waits its turn."""
        try:
            if not data:
                self._ended = True
                self._frames.close()
            messages = self._frames.feed(data)
        except FrameError as error:
            self._failure, self._ended = error, True
            return
        for message in messages:
            kind = message.get("kind")
            if isinstance(kind, bytes):
                kind = message["kind"] = text(kind)
            if kind == "reply":
                call = self._calls.pop(message.get("id", 0), None)
                if call is not None:
                    call.settle(message)
            elif kind == "cancel":
                self._runner.cancel(message.get("id", 0), text(message.get("reason")), self._inbox)
            elif kind in self._kinds:
                self._inbox.append(message)

    def _drain(self) -> None:
        started = time.monotonic()
        while self._inbox and (self.loop is not None or not self._wants_loop):
            message = self._inbox.popleft()
            self._kinds[message["kind"]](message)
            # A quick batch is one write; but no session waits for another's slow hook.
            if self._inbox and time.monotonic() - started > _PATIENCE:
                self.flush()
        self.flush()

    def read_until(self, call: Call[Any], turn: Optional[Turn]) -> None:
        """Read until the reply to ``call`` is there, its hook is cancelled or the channel ends.

        Other hooks wait, but for those of no session: it may be this very call that the server asks our plugins about.
        """
        while not call.done and not self._ended and (turn is None or turn.cancelled is None):
            self._take_sessionless()
            self.flush()
            self._receive(self._channel.read())
        if self.loop is not None:
            self.loop.call_soon(self._readable, True)

    def _take_sessionless(self) -> None:
        while True:
            sessionless = (message for message in self._inbox if message["kind"] == "hook" and not message.get("session"))
            message = next(sessionless, None)
            if message is None:
                return
            self._inbox.remove(message)
            self._runner.take(message)

    def look(self) -> None:
        """Take in what the server sent already; for the thread that reads. Hooks among it wait."""
        self.flush()
        while not self._ended and self._channel.has_input():
            self._receive(self._channel.read())
            if self.loop is not None:
                self.loop.call_soon(self._readable, True)

    def is_reader(self) -> bool:
        """Whether this is the thread that reads the channel."""
        return threading.get_ident() == self._thread

    def want_loop(self) -> None:
        """There is a coroutine to run: go on as an event loop."""
        self._wants_loop = True

    def post(self, message: Map) -> None:
        """Queue a message; ``flush`` writes it."""
        self.post_encoded(self.codec.encode(message))

    def post_encoded(self, body: bytes) -> None:
        self._outbox.append(frame(body))

    def flush(self) -> None:
        """Write all that is queued. Any thread may."""
        if not self._outbox:
            return
        with self._writing:
            parts = []
            while self._outbox:
                parts.append(self._outbox.popleft())
            try:
                self._channel.write(b"".join(parts))
            except OSError:
                pass  # The server is gone; the next read says so.

    def say_where(self, _number: int, frame: Optional[FrameType]) -> None:
        """A signal's handler: a deadline has passed, and the server asks where we are."""
        self._runner.unfinished(frame)
        # Who was interrupted may be writing: what it finds queued goes out with the rest.
        if self._writing.acquire(blocking=False):
            self._writing.release()
            self.flush()

    def send_call(self, call: Call[Any], hook: Optional[int], method: str, params: Map) -> None:
        """Send a call. Raises TypeError, OverflowError or FrameError where the parameters cannot travel."""
        number = next(self._call_ids)
        message: Map = {"kind": "call", "id": number, "method": method, "params": params}
        if hook is not None:
            message["for"] = hook
        self._calls[number] = call
        try:
            self.post(message)
        except Exception:
            del self._calls[number]
            raise
        if self._ended:
            call.settle(_CLOSED)
        # A plain hook's calls leave together, when it waits for the first of them.
        if self.loop is not None or not self.is_reader():
            self.flush()

    def wake_calls(self, turn: Turn) -> None:
        """Let the calls of a cancelled turn return."""
        for number, call in list(self._calls.items()):
            if call.belongs_to(turn):
                del self._calls[number]
                call.settle({})

    def send_log(self, plugin: str, hook: Optional[int], message: str, level: str) -> None:
        """Send a line for the log. Raises ValueError for an unknown level."""
        if level not in LEVELS:
            raise ValueError(f'there is no log level "{level}": {" ".join(LEVELS)}')
        line: Map = {"kind": "log", "level": level, "message": str(message), "plugin": plugin}
        if hook:
            line["for"] = hook
        self.post(line)
        if self.loop is not None or not self.is_reader():
            self.flush()

    def give_up(self, exception: Exception) -> None:
        """Tell the server that this process cannot go on, and end."""
        self.post({"kind": "error", "message": str(exception) or type(exception).__name__})
        self.flush()
        self._failure, self._ended = exception, True

    def _on_hello(self, message: Map) -> None:
        version = message.get("version")
        if message.get("protocol") not in (PROTOCOL, PROTOCOL.encode()) or not isinstance(version, list) or not version:
            raise VersionMismatch(f"the other side does not speak {PROTOCOL}: is this Gatepost's channel?")
        if version[0] != PROTOCOL_VERSION[0]:
            ours = ".".join(map(str, PROTOCOL_VERSION))
            theirs = ".".join(map(str, version))
            server = text(message.get("server")) or "the server"
            older = "the Python package gatepost" if PROTOCOL_VERSION[0] < version[0] else "the server"
            raise VersionMismatch(f"{SDK} speaks version {ours} of the plugin protocol, {server} speaks {theirs}: upgrade {older}")

    def _on_init(self, message: Map) -> None:
        started, errors = self._instances.start(message)
        for hosted, _ in started:
            self._runner.add(hosted)
        if errors:
            self.post({"kind": "init_error", "errors": errors})
        else:
            ready = [_declaration(hosted.name, definition) for hosted, definition in started]
            self.post({"kind": "ready", "concurrency": _CONCURRENCY, "plugins": ready})


_CLOSED: Map = {"error": {"code": "closed", "message": "the server closed the channel"}}


def _declaration(name: str, definition: Definition) -> Map:
    result: Map = {
        "name": name,
        "hooks": [hook.declaration() for hook in definition.hooks.values()],
        "settings": [setting.declaration() for setting in definition.settings.values()],
    }
    if definition.policy:
        result["policy"] = definition.policy
    return result
