"""The server's end of the channel, played in a test: over pipes to a worker in this process, or in another."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ..channel import Channel
from ..codec import BUILTIN, Codec
from ..frames import FrameReader, frame
from ..hooks import text
from ..instances import Loader
from ..version import FEATURES, PROTOCOL, PROTOCOL_VERSION
from ..worker import Worker

Map = Dict[str, Any]
DnsAnswers = Mapping[Union[str, Tuple[str, str]], Union[Sequence[str], str]]

_PATIENCE = 30.0


class Answers:
    """What the played server answers to calls.

    ``dns``: from a name, or a pair of name and type, to the list of its records, or to ``"no_records"`` or
    ``"temporary"``; a name that is not there does not exist. ``config``: from a flat file's name to its lines.
    ``recipients``: from an address to ``"valid"``, ``"invalid"`` or ``"temporary"``; of others nobody knows.
    ``state``: what the state holds, and will hold. ``message``: what message/read reads. ``submitted`` and ``bounced``:
    what message/submit and message/bounce were given.
    """

    def __init__(
        self,
        dns: Optional[DnsAnswers] = None,
        config: Optional[Mapping[str, Sequence[str]]] = None,
        state: Optional[Dict[str, Any]] = None,
        recipients: Optional[Mapping[str, str]] = None,
    ) -> None:
        self.dns = dict(dns or {})
        self.config = dict(config or {})
        self.recipients = dict(recipients or {})
        self.state: Dict[str, Any] = {} if state is None else state
        self.message = b""
        self.client_spoke = False
        """Whether clients speak before it is their turn."""
        self.submitted: List[Map] = []
        self.bounced: List[Map] = []

    def reply(self, call: Map) -> Map:
        """The reply to a `call`, but for its id."""
        params = call.get("params") or {}
        method = call["method"]
        if method == "dns":
            return self._dns(params["name"], params.get("type", "A"))
        if method == "config":
            return {"ok": {"values": list(self.config.get(params["name"], ()))}}
        if method == "recipient/valid":
            validity = self.recipients.get(params["address"], "unknown")
            if validity == "temporary":
                return {"error": {"code": "temporary", "message": "a plugin cannot tell now"}}
            return {"ok": {"validity": validity}}
        if method == "message/read":
            return {"ok": {"data": self.message[params["offset"] : params["offset"] + params["length"]]}}
        if method == "client/spoke":
            return {"ok": {"spoke": self.client_spoke}}
        if method == "message/submit":
            self.submitted.append(params)
            return {"ok": {"id": f"{len(self.submitted):016x}"}}
        if method == "message/bounce":
            self.bounced.append(params)
            return {"ok": {"id": f"{len(self.bounced):016x}"} if params["sender"] else {}}
        if method == "more_time":
            return {"ok": {}}
        key = params.get("key", "")
        if method == "state/get":
            return {"ok": {"value": self.state[key]} if key in self.state else {}}
        if method == "state/set":
            self.state[key] = params["value"]
            return {"ok": {}}
        if method == "state/add":
            self.state[key] = int(self.state.get(key, 0)) + params["add"]
            return {"ok": {"value": self.state[key]}}
        if method == "state/delete":
            self.state.pop(key, None)
            return {"ok": {}}
        return {"error": {"code": "unknown_method", "message": f'there is no method "{method}"'}}

    def _dns(self, name: str, kind: str) -> Map:
        bare = name.rstrip(".")
        records = self.dns.get((bare, kind), self.dns.get(bare))
        if records is None:
            return {"ok": {"status": "no_such_name", "records": []}}
        if records == "temporary":
            return {"error": {"code": "temporary", "message": "the name server does not answer"}}
        if isinstance(records, str):
            return {"ok": {"status": records, "records": []}}
        return {"ok": {"status": "found", "records": list(records)}}


class FakeCore:
    """Speaks the server's side of the protocol over two descriptors, which it takes over."""

    def __init__(self, reading: int, writing: int, answers: Optional[Answers] = None, codec: Codec = BUILTIN) -> None:
        self._reading = reading
        self._writing = writing
        self._codec = codec
        self._frames = FrameReader(codec.decode)
        self._received: Deque[Map] = deque()
        self._next_id = 0
        self._thread: Optional[threading.Thread] = None
        self.answers = answers or Answers()
        self.logs: List[Map] = []
        self.verdicts: Dict[int, List[Map]] = {}
        self.failure: Optional[BaseException] = None
        self.client_gone = False
        """Whether the clients of the hooks to come hang up at once."""

    @classmethod
    def around(cls, load: Loader, answers: Optional[Answers] = None, codec: Optional[Codec] = None) -> FakeCore:
        """A played server with a worker, in a thread of this process."""
        to_worker, from_us = os.pipe()
        to_us, from_worker = os.pipe()
        core = cls(to_us, from_us, answers)
        channel = Channel(to_worker, from_worker)

        def serve() -> None:
            try:
                Worker(channel, load, codec).serve()
            except BaseException as failure:
                core.failure = failure
            finally:
                channel.close()

        core._thread = threading.Thread(target=serve, name="gatepost-worker", daemon=True)
        core._thread.start()
        return core

    def send(self, message: Map) -> None:
        self.send_bytes(frame(self._codec.encode(message)))

    def send_bytes(self, data: bytes) -> None:
        """Write ``data`` as it is, which need not be a frame."""
        while data:
            data = data[os.write(self._writing, data) :]

    def receive(self, timeout: float = _PATIENCE) -> Map:
        """The next message, calls and all. Raises TimeoutError, and EOFError where there will be none."""
        end = time.monotonic() + timeout
        while not self._received:
            if not select.select([self._reading], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"the plugin sent nothing for {timeout} seconds")
            data = os.read(self._reading, 65536)
            if not data:
                raise EOFError("the plugin closed the channel")
            self._received.extend(self._frames.feed(data))
        return self._received.popleft()

    def receive_kind(self, *kinds: str) -> Map:
        """The next message of one of these kinds. Calls on the way to it are answered, logs and verdicts kept."""
        while True:
            message = self.receive()
            kind = message["kind"]
            if kind in kinds:
                return message
            if kind == "call":
                self.send({"kind": "reply", "id": message["id"], **self.answers.reply(message)})
            elif kind == "log":
                self.logs.append(message)
            elif kind == "verdict":
                self.verdicts.setdefault(message["id"], []).append(message["result"])
            elif kind == "error":
                raise RuntimeError(f"the plugin gave up: {text(message.get('message'))}")

    def greet(self, **changes: Any) -> Map:
        """Exchange `hello`; ``changes`` are keys to send otherwise. Returns the plugin's."""
        version = list(PROTOCOL_VERSION)
        hello: Map = {"kind": "hello", "protocol": PROTOCOL, "version": version, "server": "gatepost test", "features": FEATURES}
        self.send({**hello, **changes})
        return self.receive_kind("hello")

    def init(self, plugins: Sequence[Map], **more: Any) -> Map:
        """Send `init`; returns `ready` or `init_error`."""
        self.send({"kind": "init", "hostname": "mx.example.org", "worker": 1, "plugins": list(plugins), **more})
        return self.receive_kind("ready", "init_error")

    def send_hook(self, hook: str, plugins: Sequence[str], session: str = "s1", **more: Any) -> int:
        """Send a `hook`, and return its id without waiting."""
        self._next_id += 1
        message: Map = {"kind": "hook", "id": self._next_id, "hook": hook, "plugins": list(plugins), "session": session, "deadline_ms": 30000, "args": {}}
        messages: List[Map] = [{**message, **more}]
        if self.client_gone and hook == "queue":
            messages.append({"kind": "cancel", "id": self._next_id, "reason": "disconnect"})
        self.send_bytes(b"".join(frame(self._codec.encode(message)) for message in messages))
        return self._next_id

    def send_event(self, hook: str, plugins: Sequence[str], session: str = "s1", **more: Any) -> None:
        self.send({"kind": "event", "hook": hook, "plugins": list(plugins), "session": session, "args": {}, **more})

    def hook(self, hook: str, plugins: Sequence[str], session: str = "s1", **more: Any) -> List[Map]:
        """Send a `hook`, and return the entries of its result."""
        number = self.send_hook(hook, plugins, session, **more)
        result = self.receive_kind("result")
        assert result["id"] == number, f"asked for the result of {number}, got {result}"
        entries: List[Map] = result["results"]
        return entries

    def verdict(self, hook: int) -> Map:
        """The deferred verdict for that id of a hook."""
        while not self.verdicts.get(hook):
            message = self.receive_kind("verdict")
            self.verdicts.setdefault(message["id"], []).append(message["result"])
        return self.verdicts[hook].pop(0)

    @property
    def last_id(self) -> int:
        """The id of the last hook sent."""
        return self._next_id

    def hang_up(self) -> None:
        """End of file for the plugin, which may still write."""
        if self._writing >= 0:
            os.close(self._writing)
        self._writing = -1

    def close(self) -> None:
        """End the channel, and wait for the worker if it is in this process."""
        self.hang_up()
        if self._thread is not None:
            self._thread.join(_PATIENCE)
        if self._reading >= 0:
            os.close(self._reading)
        self._reading = -1
