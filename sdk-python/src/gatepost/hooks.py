"""The protocol's hooks with their arguments, and the fields of a session (docs/protocol.md section 5)."""

from __future__ import annotations

import difflib
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from .address import Address


def text(value: Any) -> str:
    """Text that may have arrived as bytes."""
    if type(value) is str:
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "surrogateescape")
    return "" if value is None else str(value)


def optional_text(value: Any) -> Optional[str]:
    """Text, or None where there is none."""
    return None if value is None else text(value)


def texts(value: Any) -> List[str]:
    """A list of text."""
    return [text(item) for item in value or ()]


def _bytes(value: Any) -> bytes:
    """Bytes that may have arrived as text."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value or b"")


def _integer(value: Any) -> int:
    return int(value or 0)


def _address(value: Any) -> Address:
    return Address(text(value))


def parameters(value: Any) -> Dict[str, Any]:
    """ESMTP parameters: from the keyword to its value, or to None where it has none."""
    if not value:
        return {}
    return {name: None if item is None else text(item) for name, item in value.items()}


Converter = Callable[[Any], Any]

_CREDENTIALS: Dict[str, Converter] = {
    "mechanism": text, "user": text, "password": optional_text, "challenge": optional_text, "response": optional_text, "token": optional_text,
}  # fmt: skip

HOOKS: Dict[str, Dict[str, Converter]] = {
    "pre_connection": {"connections": _integer, "max_connections": _integer},
    "connect": {},
    "helo_parse": {"line": text},
    "helo": {"host": text},
    "ehlo_parse": {"line": text},
    "ehlo": {"host": text},
    "capabilities": {"capabilities": texts},
    "mail_parse": {"line": text},
    "mail_pre": {"line": text},
    "mail": {"address": _address, "parameters": parameters},
    "rcpt_parse": {"line": text},
    "rcpt_pre": {"line": text},
    "rcpt": {"address": _address, "parameters": parameters},
    "data": {},
    "data_headers_end": {},
    "data_lines": {"lines": _bytes, "offset": _integer},
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
    "auth_mechanism": _CREDENTIALS,
    "auth": _CREDENTIALS,
    "deny": {"plugin": text, "hook": text, "verdict": text, "message": text},
    "ok": {"plugin": text, "hook": text, "verdict": text, "message": text},
    "log": {"level": text, "plugin": optional_text, "hook": optional_text, "message": text},
    "received_line": {"default": text},
    "config": {"name": text},
    "recipient_valid": {"address": _address},
    "user_config": {"address": _address, "name": optional_text},
}

EVENTS = frozenset(["deny", "ok", "disconnect", "reset_transaction", "queue_post", "log"])

CONNECTION_FIELDS = frozenset(
    "remote_ip local_ip remote_port local_port remote_host remote_info direction hello hello_host early_talker relay_client immune whitelisted naughty"
    " karma score authenticated tls_version tls_cipher tls_server_name tls_client_name auth_results".split()
)
TRANSACTION_FIELDS = frozenset(
    "sender sender_parameters recipients recipient_parameters size header path body_start quarantine route".split()
)
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
