"""Drives a plugin without a server: load it, open a session, run a hook, look at the outcome.

    plugin = gatepost.testing.load("refuse.py", {"addresses": ["bob@example.org"]})
    session = plugin.session(remote_ip="192.0.2.1")
    outcome = session.run("rcpt", address="bob@example.org")
    assert outcome.disposition == "fail"

The plugin runs as it does in earnest, over a pipe and with only the fields that its hooks ask for.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from email.message import Message as EmailMessage
from typing import Any, Dict, List, Mapping, Optional, Sequence, Type, Union

from .. import loader
from ..changes import View
from ..codec import Codec
from ..hooks import CONNECTION_FIELDS, EVENTS, FIELDS, nearest, text
from ..instances import Refused
from .core import Answers, DnsAnswers, FakeCore

Map = Dict[str, Any]

_FOR_RECIPIENTS = ("data_post_headers", "data_post", "queue_pre", "queue")


class Outcome:
    """What a plugin answered to a hook; what it did not give is None, or empty."""

    def __init__(self, entry: Map, plugin: Plugin, hook: int) -> None:
        self._plugin = plugin
        self._hook = hook
        self.disposition: Optional[str] = entry.get("disposition")
        self.verdict: Optional[str] = entry.get("verdict")
        self.message: str = entry.get("message", "")
        self.code: Optional[int] = entry.get("code")
        self.enhanced: Optional[str] = entry.get("enhanced")
        self.reply: List[str] = entry.get("reply", [])
        self.values: Optional[List[str]] = entry.get("values")
        self.settings: Optional[Map] = entry.get("settings")
        self.changes: List[Map] = entry.get("changes", [])
        self.recipients: Dict[str, Outcome] = {text(own["address"]): Outcome(own, plugin, hook) for own in entry.get("recipients", ())}
        self.deferred: Optional[str] = entry.get("defer")
        self.delay: float = entry.get("delay_ms", 0) / 1000

    def later(self) -> Outcome:
        """Waits for the answer of a hook that deferred it."""
        assert self.deferred, "this hook did not defer its answer"
        return Outcome(self._plugin.core.verdict(self._hook), self._plugin, self._hook)

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value and not name.startswith("_")}
        return f"Outcome({', '.join(f'{name}={value!r}' for name, value in given.items())})"


class Session:
    """One connection to the plugin. What a hook changes, the next one sees."""

    def __init__(self, plugin: Plugin, identifier: str, fields: Map, message: bytes, notes: Map, transaction_notes: Map) -> None:
        self._plugin = plugin
        self.id = identifier
        self.client_gone = False
        """Set it to True for a client that hangs up while ``queue`` runs."""
        self.client_spoke = False
        """Set it to True for a client that speaks before it is its turn."""
        self._message = message
        self._file: Optional[Any] = None
        header, end, _ = message.partition(b"\r\n\r\n")
        transaction: Map = {"size": len(message), "header": header + end[:2], "body_start": len(header) + len(end)} if message else {}
        connection: Map = {}
        for name, value in fields.items():
            if name not in FIELDS:
                raise ValueError(f'there is no session field "{name}"{nearest(name, FIELDS)}')
            (connection if name in CONNECTION_FIELDS else transaction)[name] = value
        self.view = View(connection, transaction, dict(notes), dict(transaction_notes))
        self.settings: Optional[Map] = None
        """The settings in force from here on, all that are set; None: those that the plugin was loaded with."""
        self.routes: Dict[str, str] = {}
        """The routes that the plugin gave to recipients."""

    @property
    def notes(self) -> Map:
        """The connection's notes as they are now."""
        return self.view.connection_notes

    @property
    def transaction_notes(self) -> Map:
        """The transaction's notes as they are now."""
        return self.view.transaction_notes

    def field(self, name: str) -> Any:
        """A field as it is now: "karma", "header", "quarantine" ...; None if it has no value."""
        return self.view.connection.get(name, self.view.transaction.get(name))

    def run(self, hook: str, **args: Any) -> Outcome:
        """Run the plugin's function for ``hook`` with these arguments. A note of the hook's exception goes to stderr."""
        declared = self._plugin.hooks.get(hook)
        if declared is None:
            raise ValueError(f'the plugin has no function for "{hook}"{nearest(hook, self._plugin.hooks)}')
        core = self._plugin.core
        core.answers.message = self._message
        core.client_gone = self.client_gone
        core.answers.client_spoke = self.client_spoke
        more: Map = {
            "args": {name: value if isinstance(value, (dict, bytes, int, type(None))) else str(value) for name, value in args.items()},
            "connection": _only(declared["fields"], self.view.connection),
            "transaction_fields": _only(declared["fields"], {**self.view.transaction, **self._path(declared)}),
            "notes": {"connection": _only(declared["reads"], self.notes), "transaction": _only(declared["reads"], self.transaction_notes)},
            "transaction": 1,
        }
        if hook in EVENTS or declared.get("mode") == "observe":
            core.send_event(hook, [self._plugin.name], self.id, **more)
            # Nobody answers an event; but this comes after it.
            core.hook("noop", [], self.id)
            return Outcome({}, self._plugin, 0)
        if self.settings is not None:
            more["settings"] = {self._plugin.name: self.settings}
        entry = core.hook(hook, [self._plugin.name], self.id, **more)[0]
        if "recipients" in entry and hook not in _FOR_RECIPIENTS:
            raise ValueError(f'the server would refuse this: at "{hook}" there are no outcomes for single recipients')
        for change in entry.get("changes", ()):
            self.view.apply(change)
            if change["op"] == "route":
                self._route(change)
        return Outcome(entry, self._plugin, core.last_id)

    def _route(self, change: Map) -> None:
        for recipient in [change["address"]] if "address" in change else self.field("recipients") or ():
            if change["route"] is None:
                self.routes.pop(recipient, None)
            else:
                self.routes[recipient] = change["route"]

    def _path(self, declared: Map) -> Map:
        if not self._message or "path" not in declared["fields"] or "path" in self.view.transaction:
            return {}
        if self._file is None:
            self._file = tempfile.NamedTemporaryFile(prefix="gatepost-message-")
            self._file.write(self._message)
            self._file.flush()
        return {"path": self._file.name}

    def close(self) -> None:
        """The connection ends."""
        self._plugin.core.send_event("disconnect", [self._plugin.name] if "disconnect" in self._plugin.hooks else [], self.id)
        self._plugin.core.hook("noop", [], self.id + ".")
        if self._file is not None:
            self._file.close()


def _only(names: Sequence[str], values: Map) -> Map:
    return dict(values) if "*" in names else {name: values[name] for name in names if values.get(name) is not None}


class Plugin:
    """A loaded plugin; `load` makes it. A ``with`` statement ends it at its end."""

    def __init__(self, core: FakeCore, name: str, ready: Map) -> None:
        self.core = core
        self.name = name
        declared = ready["plugins"][0]
        self.hooks: Dict[str, Map] = {hook["hook"]: hook for hook in declared["hooks"]}
        self.settings: List[Map] = declared["settings"]
        self._numbers = itertools.count(1)

    @property
    def logs(self) -> List[str]:
        """What the plugin logged so far, as ``level: message``."""
        return [f"{text(line['level'])}: {text(line['message'])}" for line in self.core.logs]

    def session(
        self,
        *,
        message: Union[bytes, str, EmailMessage] = b"",
        notes: Optional[Mapping[str, Any]] = None,
        transaction_notes: Optional[Mapping[str, Any]] = None,
        **fields: Any,
    ) -> Session:
        """A new connection with these fields. ``message`` gives size, header, path and body_start by itself.

        A message whose lines end in LF alone is given the CRLF that SMTP asks for.
        """
        if isinstance(message, EmailMessage):
            message = message.as_bytes()
        elif isinstance(message, str):
            message = message.encode()
        if b"\r\n" not in message:
            message = message.replace(b"\n", b"\r\n")
        return Session(self, f"test{next(self._numbers)}", fields, message, dict(notes or {}), dict(transaction_notes or {}))

    def close(self) -> None:
        """End the plugin."""
        self.core.close()

    def __enter__(self) -> Plugin:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def load(
    path: Union[str, "os.PathLike[str]"],
    settings: Optional[Mapping[str, Any]] = None,
    *,
    name: Optional[str] = None,
    args: Sequence[str] = (),
    dns: Optional[DnsAnswers] = None,
    config: Optional[Mapping[str, Sequence[str]]] = None,
    recipients: Optional[Mapping[str, str]] = None,
    state: Optional[Dict[str, Any]] = None,
    codec: Optional[Codec] = None,
) -> Plugin:
    """Load the plugin file at ``path`` with these settings. Raises Refused where the server would not start.

    ``dns``, ``config``, ``recipients`` and ``state`` are what the plugin's calls find (see `Answers`).
    """
    path = os.fspath(path)
    name = name or os.path.splitext(os.path.basename(path))[0]
    core = FakeCore.around(loader.by_source, Answers(dns, config, state, recipients), codec)
    core.greet()
    answer = core.init([{"name": name, "source": path, "settings": dict(settings or {}), "args": list(args)}])
    if answer["kind"] == "init_error":
        core.close()
        raise Refused(answer["errors"])
    return Plugin(core, name, answer)
