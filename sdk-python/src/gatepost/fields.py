"""The fields of a session (docs/protocol.md section 5.2), typed. A hook has those that it names in ``fields``."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from .address import Address
from .definition import Hook
from .hooks import parameters, text
from .turn import Plugin, Turn


class NotSubscribed(Exception):
    """A hook's function reads a field or a note that the hook does not ask the server for."""


def _optional(value: Any) -> Optional[str]:
    return None if value is None else text(value)


class Fields:
    """What a session's fields hold at the moment of the hook."""

    __slots__ = ("_turn", "_hook", "plugin", "__dict__")
    _turn: Turn
    _hook: Hook
    plugin: Plugin

    def subscribes(self, field: str) -> bool:
        """Whether the hook asked for that field."""
        return field in self._hook.fields

    def _of_connection(self, field: str) -> Any:
        if field not in self._hook.fields:
            raise self._unknown(field)
        return self._turn.view.connection.get(field)

    def _of_transaction(self, field: str) -> Any:
        if field not in self._hook.fields:
            raise self._unknown(field)
        return self._turn.view.transaction.get(field)

    def _flag(self, field: str) -> Optional[str]:
        reason = self._of_connection(field)
        return _optional(self._of_transaction(field) if reason is None else reason)

    def _unknown(self, field: str) -> NotSubscribed:
        return NotSubscribed(f'the field "{field}" is not sent here: write @hook("{self._hook.name}", fields=["{field}"])')

    @property
    def id(self) -> str:
        """What identifies the connection, in the log as well."""
        return self._turn.session

    @property
    def transaction(self) -> Optional[int]:
        """The number of the mail transaction, from 1; None where there is none."""
        return self._turn.number

    @property
    def resumed(self) -> bool:
        """True where another worker had this session before, and died: what it remembered is gone."""
        return self._turn.resumed

    @property
    def deadline(self) -> Optional[float]:
        """How many seconds the server waits for this hook's answer; None for an event."""
        return None if self._turn.deadline_ms is None else self._turn.deadline_ms / 1000

    @property
    def remote_ip(self) -> str:
        """The client's address."""
        return text(self._of_connection("remote_ip"))

    @property
    def remote_port(self) -> int:
        """The client's port."""
        return int(self._of_connection("remote_port") or 0)

    @property
    def local_ip(self) -> str:
        """The server's address."""
        return text(self._of_connection("local_ip"))

    @property
    def local_port(self) -> int:
        """The server's port."""
        return int(self._of_connection("local_port") or 0)

    @property
    def remote_host(self) -> Optional[str]:
        """The client's name by reverse DNS, confirmed forward."""
        return _optional(self._of_connection("remote_host"))

    @property
    def remote_info(self) -> Optional[str]:
        """What a plugin knows of who is at the client's end."""
        return _optional(self._of_connection("remote_info"))

    @property
    def direction(self) -> str:
        """The listener's: inbound, submission or relay."""
        return text(self._of_connection("direction"))

    @property
    def hello(self) -> Optional[str]:
        """HELO or EHLO, once accepted."""
        return _optional(self._of_connection("hello"))

    @property
    def hello_host(self) -> Optional[str]:
        """The name that the client gave with it."""
        return _optional(self._of_connection("hello_host"))

    @property
    def early_talker(self) -> bool:
        """Whether the client sent something before it was its turn."""
        return self._of_connection("early_talker") is True

    @property
    def relay_client(self) -> bool:
        """Whether the client may relay through us."""
        return self._of_connection("relay_client") is True

    @property
    def immune(self) -> Optional[str]:
        """Why nothing of this connection, or of its transaction, is to be refused; None if it may be."""
        return self._flag("immune")

    @property
    def whitelisted(self) -> Optional[str]:
        """Why somebody vouches for the client, or for its transaction; None if nobody does."""
        return self._flag("whitelisted")

    @property
    def naughty(self) -> Optional[str]:
        """The deferred rejection; None if there is none."""
        return _optional(self._of_connection("naughty"))

    @property
    def karma(self) -> int:
        """The connection's karma."""
        return int(self._of_connection("karma") or 0)

    @property
    def score(self) -> float:
        """The points that plugins gave the connection and the transaction so far, all together."""
        return int(self._of_connection("score") or 0) / 1000

    @property
    def authenticated(self) -> Optional[str]:
        """The user's name."""
        return _optional(self._of_connection("authenticated"))

    @property
    def tls_version(self) -> Optional[str]:
        """TLSv1.2 or TLSv1.3; None where the connection is not encrypted."""
        return _optional(self._of_connection("tls_version"))

    @property
    def tls_cipher(self) -> Optional[str]:
        """The cipher suite by its IANA name."""
        return _optional(self._of_connection("tls_cipher"))

    @property
    def tls_server_name(self) -> Optional[str]:
        """The server's name that the client asked for."""
        return _optional(self._of_connection("tls_server_name"))

    @property
    def tls_client_name(self) -> Optional[str]:
        """Whom the client's certificate names; None without one that was verified."""
        return _optional(self._of_connection("tls_client_name"))

    @property
    def auth_results(self) -> List[str]:
        """What was stored for the Authentication-Results header."""
        return [text(item) for item in self._of_connection("auth_results") or ()]

    @property
    def sender(self) -> Optional[Address]:
        """The envelope's sender, false for the null sender; None before MAIL was accepted."""
        value = self._of_transaction("sender")
        return None if value is None else Address(text(value))

    @property
    def sender_parameters(self) -> Dict[str, Optional[str]]:
        """The parameters of MAIL."""
        return parameters(self._of_transaction("sender_parameters"))

    @property
    def recipients(self) -> List[Address]:
        """The recipients accepted so far."""
        return [Address(text(item)) for item in self._of_transaction("recipients") or ()]

    @property
    def recipient_parameters(self) -> List[Dict[str, Optional[str]]]:
        """The parameters of each RCPT, in the order of `recipients`."""
        return [parameters(item) for item in self._of_transaction("recipient_parameters") or ()]

    @property
    def size(self) -> int:
        """Bytes of the message as received, header included."""
        return int(self._of_transaction("size") or 0)

    @property
    def header(self) -> bytes:
        """The header block with all edits so far, without the empty line after it; from `data_headers_end` on."""
        value = self._of_transaction("header")
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        return value or b""

    @property
    def path(self) -> Optional[str]:
        """A file with the message exactly as received, read-only, gone with the transaction."""
        return _optional(self._of_transaction("path"))

    @property
    def body_start(self) -> Optional[int]:
        """Where in the message the body begins, after the empty line."""
        value: Optional[int] = self._of_transaction("body_start")
        return value

    @property
    def quarantine(self) -> Optional[str]:
        """Why the message is to be set apart; None if it is not."""
        return _optional(self._of_transaction("quarantine"))

    @property
    def route(self) -> Optional[str]:
        """At `queue` and `queue_post`, the way that all recipients at hand are to go; None if a plugin gave them none."""
        return _optional(self._of_transaction("route"))
