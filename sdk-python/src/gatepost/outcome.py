"""What a hook's function returns: what the plugin found (the disposition), and what SMTP should do (the verdict).

Return one of these, or None where there is nothing to say. With ``fail`` and ``error`` the operator's settings
(``reject``, ``reject_type``, ``on_error``) decide what the client is told; that is what a plugin normally wants.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, Coroutine, Dict, List, Optional, Protocol, Sequence, Union

from . import changes
from .address import Address
from .hooks import HOOKS, nearest

DISPOSITIONS = ("pass", "fail", "skip", "error")
_COMMON = frozenset(["verdict", "disposition", "message"])
_OF_RECIPIENT = _COMMON | {"code", "enhanced", "reply"}
VERDICTS = (
    "declined", "ok", "deny", "denysoft", "deny_disconnect", "denysoft_disconnect", "done", "discard", "quarantine", "hold",
)

Later = Union[Callable[..., Any], Coroutine[Any, Any, Any]]


class Outcome:
    """The answer of one plugin to one hook; made by the functions below, and not changed afterwards."""

    __slots__ = ("entry", "key", "stops", "later", "arguments")

    def __init__(self, entry: Dict[str, Any], later: Optional[Later] = None, arguments: Sequence[Any] = ()) -> None:
        self.entry = entry
        # What a result can be cached by: outcomes that hold no more than this.
        self.key = None if entry.keys() - _COMMON else (entry.get("verdict"), entry.get("disposition"), entry.get("message"))
        # Whether the plugins after this one are not to be asked: there is a verdict, or the operator's policy is to find one.
        if "recipients" in entry:
            self.stops: bool = True
        elif "verdict" in entry:
            self.stops = entry["verdict"] != "declined"
        else:
            self.stops = entry.get("disposition") in ("fail", "error")
        self.later = later
        self.arguments = arguments

    def for_recipient(self, address: Union[Address, str], outcome: Outcome) -> Outcome:
        """This outcome for everybody but the recipient ``address``, for whom it is the other one.

        For the hooks from ``data_post_headers`` to ``queue``. What the other one holds is a finding or a verdict, with a reply or without.
        """
        if outcome.later is not None or outcome.entry.keys() - _OF_RECIPIENT:
            raise ValueError("an outcome for a recipient has no values, no recipients and nothing deferred")
        if self.later is not None:
            raise ValueError("what is deferred is deferred for all recipients")
        recipients = [*self.entry.get("recipients", ()), {"address": str(address), **outcome.entry}]
        return Outcome({**self.entry, "recipients": recipients})

    def delayed(self, seconds: float) -> Outcome:
        """This outcome, and the client waits so long for its reply, whatever that is. Nothing sleeps meanwhile but the client.

        What plugins ask for at one command adds up; the server cuts it at 5 minutes.
        """
        return Outcome({**self.entry, "delay_ms": max(0, int(seconds * 1000))}, self.later, self.arguments)

    def __repr__(self) -> str:
        return f"Outcome({self.entry!r})"


def _outcome(
    verdict: Optional[str],
    disposition: Optional[str],
    message: Optional[str],
    code: Optional[int],
    enhanced: Optional[str],
    reply: Union[str, List[str], None],
    values: Optional[List[str]] = None,
    settings: Optional[Dict[str, Any]] = None,
) -> Outcome:
    entry: Dict[str, Any] = {}
    if verdict is not None:
        if verdict not in VERDICTS:
            raise ValueError(f'there is no verdict "{verdict}"{nearest(verdict, VERDICTS)}')
        entry["verdict"] = verdict
    if disposition is not None:
        if disposition not in DISPOSITIONS:
            raise ValueError(f'there is no disposition "{disposition}"{nearest(disposition, DISPOSITIONS)}')
        entry["disposition"] = disposition
    if message:
        entry["message"] = str(message)
    if code is not None:
        entry["code"] = code
    if enhanced is not None:
        entry["enhanced"] = enhanced
    if reply is not None:
        entry["reply"] = reply.splitlines() if isinstance(reply, str) else list(reply)
    if values is not None:
        entry["values"] = list(values)
    if settings is not None:
        entry["settings"] = settings
    return Outcome(entry)


@functools.lru_cache(maxsize=256)
def _finding(disposition: str, message: str) -> Outcome:
    """Most answers are a disposition and one of few sentences."""
    return _outcome(None, disposition, message, None, None, None)


def passed(message: str = "") -> Outcome:
    """The plugin looked, and all is well. The next plugin is asked."""
    return _finding("pass", str(message))


def skip(message: str = "") -> Outcome:
    """The plugin did not look, for the reason in ``message``. The next plugin is asked."""
    return _finding("skip", str(message))


def fail(
    message: str,
    *,
    verdict: Optional[str] = None,
    code: Optional[int] = None,
    enhanced: Optional[str] = None,
    reply: Union[str, List[str], None] = None,
) -> Outcome:
    """The plugin looked, and it is not well. What that costs the client is the operator's decision.

    ``message`` is one sentence for the log, and for the client unless there is a ``reply`` (its lines). ``code``
    and ``enhanced`` (``"5.7.1"``) go with the reply. ``verdict="declined"`` reports without asking for a denial.
    """
    if verdict is None and code is None and enhanced is None and reply is None:
        return _finding("fail", str(message))
    return _outcome(verdict, "fail", message, code, enhanced, reply)


def error(message: str) -> Outcome:
    """The plugin could not look; the operator's ``on_error`` decides. An exception in a hook becomes the same."""
    return _finding("error", str(message))


class _Verdict(Protocol):
    def __call__(
        self,
        message: str = "",
        *,
        disposition: Optional[str] = None,
        code: Optional[int] = None,
        enhanced: Optional[str] = None,
        reply: Union[str, List[str], None] = None,
        values: Optional[List[str]] = None,
        settings: Optional[Dict[str, Any]] = None,
    ) -> Outcome: ...


def _verdict(name: str, summary: str) -> _Verdict:
    def make(
        message: str = "",
        *,
        disposition: Optional[str] = None,
        code: Optional[int] = None,
        enhanced: Optional[str] = None,
        reply: Union[str, List[str], None] = None,
        values: Optional[List[str]] = None,
        settings: Optional[Dict[str, Any]] = None,
    ) -> Outcome:
        return _outcome(name, disposition, message, code, enhanced, reply, values, settings)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = summary
    return make


declined = _verdict("declined", "Nothing to say: the next plugin is asked, whatever the disposition.")
ok = _verdict(
    "ok",
    "Yes, and no further plugin is asked. For `config` and `received_line` the answer is in `values`, for `user_config` in `settings`.",
)
deny = _verdict("deny", "Refuse for good (5xx).")
denysoft = _verdict("denysoft", "Refuse for now (4xx).")
deny_disconnect = _verdict("deny_disconnect", "Refuse for good (5xx), and close the connection.")
denysoft_disconnect = _verdict("denysoft_disconnect", "Refuse for now (4xx), and close the connection.")
done = _verdict("done", "The plugin dealt with the command: the client is told `reply`, or, without one, nothing.")
discard = _verdict("discard", "Take the message, and throw it away. The client is told that all is well.")
quarantine = _verdict("quarantine", "Take the message, and keep it in the store for a while. The client is told that all is well.")
hold = _verdict("hold", "Take the message, and keep it in the store until somebody decides. The client is told that all is well.")


def score(points: float, reason: str = "") -> Outcome:
    """Something was found that is worth so many points, which are judged with all others' at the end.

    Above 0 it is a ``fail`` that costs nothing by itself, else it is ``passed``: it speaks for the client.
    """
    change = changes.score(points, reason)
    if points > 0:
        return Outcome({"verdict": "declined", "disposition": "fail", "message": str(reason), "changes": [change]})
    return Outcome({"disposition": "pass", "message": str(reason), "changes": [change]})


def defer(hook: str, function: Later, *arguments: Any) -> Outcome:
    """Answer later, before ``hook`` runs its own plugins, and let the session go on meanwhile.

    ``function(*arguments)`` returns the outcome: a plain function runs in a thread of its own; a coroutine, or a
    coroutine function, in the process's event loop. It may use the hook's ``session`` for all that a hook may.
    """
    if hook not in HOOKS:
        raise ValueError(f'there is no hook "{hook}"{nearest(hook, HOOKS)}')
    if not callable(function) and not inspect.iscoroutine(function):
        raise TypeError("defer() takes a function and its arguments, or a coroutine")
    return Outcome({"defer": hook}, function, arguments)


def failure(exception: BaseException) -> Outcome:
    """The outcome of a hook that ended with ``exception``."""
    lines = str(exception).strip().splitlines()
    name = type(exception).__name__
    return error(f"{name}: {lines[0]}" if lines else name)


def checked(value: Any, function: str) -> Optional[Outcome]:
    """What ``function`` returned, if it may return that; else an error that says so."""
    if value is None or isinstance(value, Outcome):
        return value
    return error(f"{function} returned {type(value).__name__}; a hook returns fail(), passed(), skip(), ... or None")
