"""Changes that a plugin asks for (docs/protocol.md section 6.3), applied to a view of the session.

A segment's later plugins see what the earlier ones changed; the test kit's next hook sees it as well.
"""

from __future__ import annotations

from typing import Any, Callable, Dict

from . import headers
from .frames import MAX_INTEGER

Change = Dict[str, Any]
Map = Dict[str, Any]


class View:
    """A session's fields and notes at one moment."""

    __slots__ = ("connection", "transaction", "connection_notes", "transaction_notes")

    def __init__(self, connection: Map, transaction: Map, connection_notes: Map, transaction_notes: Map) -> None:
        self.connection = connection
        self.transaction = transaction
        self.connection_notes = connection_notes
        self.transaction_notes = transaction_notes

    def apply(self, change: Change) -> None:
        """Make the change, in this view."""
        _APPLY[change["op"]](self, change)


def _set(where: Map, name: str, value: Any) -> None:
    if value is None:
        where.pop(name, None)
    else:
        where[name] = value


def _note(view: View, change: Change) -> None:
    notes = view.connection_notes if change["scope"] == "connection" else view.transaction_notes
    _set(notes, change["name"], change["value"])


def _header(edit: Callable[[bytes, Change], bytes]) -> Callable[[View, Change], None]:
    def apply(view: View, change: Change) -> None:
        header = view.transaction.get("header")
        if header is not None:
            if isinstance(header, str):
                header = header.encode("utf-8", "surrogateescape")
            view.transaction["header"] = edit(header, change)

    return apply


def _add_recipient(view: View, change: Change) -> None:
    view.transaction["recipients"] = [*view.transaction.get("recipients", ()), change["address"]]
    view.transaction["recipient_parameters"] = [*view.transaction.get("recipient_parameters", ()), {}]


def _remove_recipient(view: View, change: Change) -> None:
    before = view.transaction.get("recipients", ())
    with_parameters = view.transaction.get("recipient_parameters", ())
    if len(with_parameters) == len(before):
        kept = [item for address, item in zip(before, with_parameters) if address != change["address"]]
        view.transaction["recipient_parameters"] = kept
    view.transaction["recipients"] = [address for address in before if address != change["address"]]


def _karma(view: View, change: Change) -> None:
    view.connection["karma"] = (view.connection.get("karma") or 0) + change["add"]


def score(points: float, reason: str) -> Change:
    """The change that gives so many points; the wire has thousandths."""
    return {"op": "score", "points": round(points * 1000), "reason": str(reason)}


def _score(view: View, change: Change) -> None:
    view.connection["score"] = (view.connection.get("score") or 0) + change["points"]


def _auth_result(view: View, change: Change) -> None:
    view.connection["auth_results"] = [*view.connection.get("auth_results", ()), change["text"]]


def _field(where: str, field: str, key: str) -> Callable[[View, Change], None]:
    return lambda view, change: _set(getattr(view, where), field, change[key])


def _flag(name: str) -> Callable[[View, Change], None]:
    return lambda view, change: _set(getattr(view, change.get("scope", "connection")), name, change["reason"])


def _end(which: str) -> Callable[[View, Change], None]:
    def apply(view: View, change: Change) -> None:
        for key in ("ip", "port"):
            if key in change:
                _set(view.connection, f"{which}_{key}", change[key])

    return apply


_APPLY: Dict[str, Callable[[View, Change], None]] = {
    "note": _note,
    "add_header": _header(lambda block, c: headers.add(block, c["name"], c["value"], c.get("at", "top"))),
    "replace_header": _header(lambda block, c: headers.replace(block, c["name"], c["value"], c.get("nth", 1))),
    "remove_header": _header(lambda block, c: headers.remove(block, c["name"], c.get("nth"))),
    "add_recipient": _add_recipient,
    "remove_recipient": _remove_recipient,
    "set_sender": _field("transaction", "sender", "address"),
    "karma": _karma,
    "score": _score,
    "relay_client": _field("connection", "relay_client", "value"),
    "immune": _flag("immune"),
    "whitelisted": _flag("whitelisted"),
    "naughty": _field("connection", "naughty", "message"),
    "auth_result": _auth_result,
    "quarantine": _field("transaction", "quarantine", "reason"),
    # Plugins see a route at `queue` alone, and it is settled by then.
    "route": lambda view, change: None,
    "remote_host": _field("connection", "remote_host", "name"),
    "remote": _end("remote"),
    "local": _end("local"),
    "remote_info": _field("connection", "remote_info", "info"),
}


def plain(value: Any, what: str, depth: int = 0) -> Any:
    """``value``, if it can travel: maps with text keys, lists, text, bytes, integers, booleans, None.

    Raises TypeError that names ``what`` it was meant for.
    """
    if value is None or isinstance(value, (str, bytes, bool)):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise TypeError(f"{what} cannot hold {value}: it is beyond 2^53")
        return value
    if depth >= 8:
        raise TypeError(f"{what} is nested deeper than 8")
    if isinstance(value, (list, tuple)):
        return [plain(item, what, depth + 1) for item in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{what} has a key that is no text: {key!r}")
        return {key: plain(item, what, depth + 1) for key, item in value.items()}
    raise TypeError(f"{what} cannot hold a {type(value).__name__}: only maps, lists, text, bytes, integers, booleans and None can")
