"""The session as a plugin sees it: a connection with its current transaction.

One object lives as long as the connection: a plugin may set attributes of its own on it, which no other plugin sees.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Dict, Iterator, MutableMapping, Optional, Union

from . import headers
from .address import Address
from .calls import Core
from .changes import plain, score
from .definition import Hook
from .fields import Fields, NotSubscribed
from .message import Message
from .turn import Plugin, Turn


class Notes(MutableMapping[str, Any]):
    """Notes, by name, that all plugins of the chain share. Reading one takes ``reads=[...]`` at the hook."""

    __slots__ = ("_turn", "_hook", "_scope", "_notes")

    def __init__(self, turn: Turn, hook: Hook, scope: str, notes: Dict[str, Any]) -> None:
        self._turn = turn
        self._hook = hook
        self._scope = scope
        self._notes = notes

    def __getitem__(self, name: str) -> Any:
        if name not in self._hook.reads and "*" not in self._hook.reads:
            raise NotSubscribed(f'the note "{name}" is not sent here: write @hook("{self._hook.name}", reads=["{name}"])')
        return self._notes[name]

    def __setitem__(self, name: str, value: Any) -> None:
        value = plain(value, f'the note "{name}"')
        self._turn.change({"op": "note", "scope": self._scope, "name": name, "value": value})

    def __delitem__(self, name: str) -> None:
        self._turn.change({"op": "note", "scope": self._scope, "name": name, "value": None})

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._notes))

    def __len__(self) -> int:
        return len(self._notes)


class Session(Fields):
    """What a plugin may see and change. Fields are there when the hook names them in ``fields``."""

    __slots__ = ()

    if TYPE_CHECKING:
        # A plugin's own attributes.
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    @property
    def notes(self) -> Notes:
        """Notes of the connection."""
        return Notes(self._turn, self._hook, "connection", self._turn.view.connection_notes)

    @property
    def transaction_notes(self) -> Notes:
        """Notes of the mail transaction."""
        return Notes(self._turn, self._hook, "transaction", self._turn.view.transaction_notes)

    @property
    def core(self) -> Core:
        """Calls to the server."""
        return Core(self._turn.worker, self._turn)

    @property
    def message(self) -> Message:
        """The message as received, from ``data_post_headers`` on."""
        return Message(self)

    @property
    def client_gone(self) -> bool:
        """At ``queue``: whether the client hung up, and will thus send the message again.

        Look just before the message is yours for good, and answer ``denysoft("the client is gone")`` instead. Who goes
        on and answers ``ok`` has kept it: the server takes this hook's answer as it is.
        """
        turn = self._turn
        if not turn.departed and turn.hook == "queue" and turn.worker.is_reader():
            turn.worker.look()
        return turn.departed

    async def until_client_gone(self) -> None:
        """At ``queue``: wait until ``client_gone``; for ever where the client stays."""
        turn = self._turn
        if turn.departure is None:
            turn.departure = asyncio.Event()
        if not turn.departed:
            await turn.departure.wait()

    def log(self, message: str, level: str = "info") -> None:
        """A line for the server's log, with this session. Levels: emerg alert crit error warn notice info debug."""
        self._turn.worker.send_log(self.plugin.name, self._turn.id, message, level)

    def add_header(self, name: str, value: headers.Value, at: Union[str, int] = "top") -> None:
        """Add a header field, at the ``top`` or the ``bottom``; or with a number, below so many others."""
        if at not in ("top", "bottom") and (type(at) is not int or at < 0):
            raise ValueError(f'a header field is added at "top" or "bottom", or below a number of others, not at {at!r}')
        headers.check(name, value)
        self._turn.change({"op": "add_header", "name": name, "value": value, "at": at})

    def replace_header(self, name: str, value: headers.Value, nth: int = 1) -> None:
        """Give the nth field of that name, from 1, another value; or add it at the bottom if there is none."""
        headers.check(name, value)
        self._turn.change({"op": "replace_header", "name": name, "value": value, "nth": nth})

    def remove_header(self, name: str, nth: Optional[int] = None) -> None:
        """Remove the nth field of that name, from 1; or all."""
        change: Dict[str, Any] = {"op": "remove_header", "name": name}
        if nth is not None:
            change["nth"] = nth
        self._turn.change(change)

    def add_recipient(self, address: Union[Address, str]) -> None:
        """Add a recipient to the envelope."""
        self._turn.change({"op": "add_recipient", "address": str(address)})

    def remove_recipient(self, address: Union[Address, str]) -> None:
        """Take a recipient off the envelope."""
        self._turn.change({"op": "remove_recipient", "address": str(address)})

    def set_sender(self, address: Union[Address, str]) -> None:
        """Replace the envelope's sender."""
        self._turn.change({"op": "set_sender", "address": str(address)})

    def add_karma(self, add: int) -> None:
        """Add to the connection's karma; a negative number takes away."""
        self._turn.change({"op": "karma", "add": add})

    def add_score(self, points: float, reason: str = "") -> None:
        """Add to the score, of the connection before MAIL and of the transaction afterwards; a negative number takes away."""
        self._turn.change(score(points, reason))

    def set_relay_client(self, value: bool = True, reason: Optional[str] = None) -> None:
        """Say whether the client may relay through us, and why, for the log."""
        change: Dict[str, Any] = {"op": "relay_client", "value": value}
        if reason is not None:
            change["reason"] = reason
        self._turn.change(change)

    def set_immune(self, reason: Optional[str], scope: str = "connection") -> None:
        """From now on refuse nothing of this ``connection``, or of this ``transaction``; None ends that."""
        self._set_flag("immune", reason, scope)

    def set_whitelisted(self, reason: Optional[str], scope: str = "connection") -> None:
        """Vouch for the client of this ``connection``, or for this ``transaction``; None ends that."""
        self._set_flag("whitelisted", reason, scope)

    def _set_flag(self, flag: str, reason: Optional[str], scope: str) -> None:
        if scope not in ("connection", "transaction"):
            raise ValueError(f'a flag is for a "connection" or a "transaction", not {scope!r}')
        change: Dict[str, Any] = {"op": flag, "reason": reason}
        if scope != "connection":
            change["scope"] = scope
        self._turn.change(change)

    def set_naughty(self, message: Optional[str]) -> None:
        """Have the connection refused later, where the plugin `naughty` stands; None clears it."""
        self._turn.change({"op": "naughty", "message": message})

    def add_auth_result(self, text: str) -> None:
        """Add to the Authentication-Results header, like ``iprev=pass policy.iprev=192.0.2.1``."""
        self._turn.change({"op": "auth_result", "text": text})

    def set_quarantine(self, reason: Optional[str]) -> None:
        """Have the message delivered where nobody reads it unawares; None clears it."""
        self._turn.change({"op": "quarantine", "reason": reason})

    def set_route(self, route: Optional[str], recipient: Union[Address, str, None] = None) -> None:
        """Send a recipient, or all there are, a way that the plugins at `queue` know by this name; None clears it."""
        change: Dict[str, Any] = {"op": "route", "route": route}
        if recipient is not None:
            change["address"] = str(recipient)
        self._turn.change(change)

    def set_remote_host(self, name: str) -> None:
        """Set the client's verified name."""
        self._turn.change({"op": "remote_host", "name": name})

    def set_remote(self, ip: Optional[str] = None, port: Optional[int] = None) -> None:
        """Set the client's address, or its port, or both; at ``pre_connection`` and ``connect``."""
        self._turn.change({"op": "remote", **_given(ip=ip, port=port)})

    def set_local(self, ip: Optional[str] = None, port: Optional[int] = None) -> None:
        """The same for the server's address."""
        self._turn.change({"op": "local", **_given(ip=ip, port=port)})

    def set_remote_info(self, info: Optional[str]) -> None:
        """Say who is at the client's end, as far as that is known; at ``pre_connection`` and ``connect``. None clears it."""
        self._turn.change({"op": "remote_info", "info": info})


def _given(**values: Any) -> Dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def open_session(plugin: Plugin, turn: Turn, hook: Hook) -> Session:
    """A new session object of a plugin."""
    session = Session.__new__(Session)
    session._turn, session._hook = turn, hook
    session.plugin = plugin
    return session


def successor(session: Session) -> Session:
    """Another object for the same session and plugin, with the same attributes, for the turns to come."""
    other = open_session(session.plugin, session._turn, session._hook)
    other.__dict__ = session.__dict__
    return other
