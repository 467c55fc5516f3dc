"""The protocol's hooks with their arguments, and the fields of a session (docs/protocol.md section 5)."""

from __future__ import annotations

import difflib
from typing import Any, Callable, Dict, Iterable, Tuple

from .address import Address


def text(value: Any) -> str:
    """Text that may have arrived as bytes."""
    if type(value) is str:
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "surrogateescape")
    return "" if value is None else str(value)


def _address(value: Any) -> Address:
    return Address(text(value))


def parameters(value: Any) -> Dict[str, Any]:
    """ESMTP parameters: from the keyword to its value, or to None where it has none."""
    if not value:
        return {}
    return {name: None if item is None else text(item) for name, item in value.items()}


Converter = Callable[[Any], Any]

HOOKS: Dict[str, Dict[str, Converter]] = {
    "connect": {},
    "helo": {"host": text},
    "ehlo": {"host": text},
    "mail": {"address": _address, "parameters": parameters},
    "rcpt": {"address": _address, "parameters": parameters},
    "data": {},
    "data_headers_end": {},
    "data_post_headers": {},
    "data_post": {},
    "queue_pre": {},
    "queue": {},
    "queue_post": {},
    "rset": {},
    "noop": {},
    "quit": {},
    "vrfy": {"argument": text},
    "help": {"argument": text},
    "unrecognized_command": {"command": text, "argument": text},
    "reset_transaction": {},
    "disconnect": {},
    "deny": {"plugin": text, "hook": text, "verdict": text, "message": text},
    "ok": {"plugin": text, "hook": text, "verdict": text, "message": text},
    "received_line": {"default": text},
    "config": {"name": text},
}

EVENTS = frozenset(["deny", "ok", "disconnect", "reset_transaction", "queue_post"])

CONNECTION_FIELDS = frozenset(
    "remote_ip local_ip remote_port local_port remote_host direction hello hello_host early_talker relay_client immune naughty"
    " karma authenticated auth_results".split()
)
TRANSACTION_FIELDS = frozenset("sender sender_parameters recipients size header path body_start quarantine".split())
FIELDS = CONNECTION_FIELDS | TRANSACTION_FIELDS


_CONVERTERS = {hook: tuple(args.items()) for hook, args in HOOKS.items()}


def arguments(hook: str, args: Any) -> Dict[str, Any]:
    """The arguments of a hook as its functions get them; one that is absent is empty."""
    given = args or {}
    values: Dict[str, Any] = {}
    for name, convert in _CONVERTERS.get(hook, ()):
        values[name] = convert(given.get(name))
    return values


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or nothing where no known name comes near."""
    close: Tuple[str, ...] = tuple(difflib.get_close_matches(name, sorted(known), 1))
    return f'; did you mean "{close[0]}"?' if close else ""
