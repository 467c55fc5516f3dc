"""Calls to the server (docs/protocol.md section 8): dns, config, recipient/valid, state, message/read, client/spoke, message/submit, message/bounce, more_time.

Every call is sent at once and returns a `Call`. A plain function waits with ``.result()``, a coroutine with
``await``; a function that makes several calls before it waits for the first has them run side by side.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Callable, Dict, Generator, Generic, Iterable, List, NamedTuple, Optional, Tuple, TypeVar, Union

from .address import Address
from .hooks import text

if TYPE_CHECKING:
    from .turn import Turn
    from .worker import Worker

T = TypeVar("T")
MAX_READ = 524_288


class CallError(Exception):
    """The server could not do what a call asked for.

    ``code`` is unknown_method, bad_params, not_found, temporary or failed; or closed, where the server is gone.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message or code)
        self.code = code


class Cancelled(Exception):
    """The server no longer wants the answer of this hook, for the reason given: timeout, disconnect or shutdown."""


class Answer(NamedTuple):
    """An answer of the DNS. ``status`` is found, no_records or no_such_name; MX records read ``10 mx.example.org``."""

    status: str
    records: List[str]


class Call(Generic[T]):
    """A call on its way. Wait for it with ``result()``, or ``await`` it."""

    def __init__(self, worker: Worker, turn: Optional[Turn], convert: Callable[[Dict[str, Any]], T]) -> None:
        self._worker = worker
        self._turn = turn
        self._convert = convert
        self._reply: Optional[Dict[str, Any]] = None
        self._waiters: List[Tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._event: Optional[threading.Event] = None
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """Whether ``result()`` would not have to wait."""
        return self._reply is not None

    def result(self) -> T:
        """What the server answered. Raises CallError, or Cancelled when the hook it belongs to was."""
        if self._reply is None:
            if self._worker.is_reader():
                self._worker.read_until(self, self._turn)
            else:
                with self._lock:
                    if self._reply is None and self._event is None:
                        self._event = threading.Event()
                if self._event is not None:
                    self._event.wait()
        return self._take()

    def __await__(self) -> Generator[Any, None, T]:
        if self._reply is None:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            with self._lock:
                if self._reply is None:
                    self._waiters.append((loop, waiter))
                else:
                    waiter.set_result(None)
            self._worker.flush()
            yield from waiter.__await__()
        return self._take()

    def _take(self) -> T:
        reply = self._reply
        if self._turn is not None and self._turn.cancelled is not None:
            raise Cancelled(self._turn.cancelled)
        if reply is None:
            raise CallError("closed", "the server closed the channel")
        error = reply.get("error")
        if error is not None:
            raise CallError(text(error.get("code")), text(error.get("message")))
        return self._convert(reply.get("ok") or {})

    def belongs_to(self, turn: Turn) -> bool:
        """Whether a hook's function, in that turn, made the call."""
        return self._turn is turn

    def settle(self, reply: Dict[str, Any]) -> None:
        """Take the server's reply and wake who waits; for the worker alone."""
        with self._lock:
            self._reply = reply
        if self._event is not None:
            self._event.set()
        for loop, waiter in self._waiters:
            try:
                loop.call_soon_threadsafe(_wake, waiter)
            except RuntimeError:
                pass  # That loop is closed: nobody waits any more.


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _data(ok: Dict[str, Any], key: str) -> Optional[bytes]:
    value = ok.get(key)
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _bytes(message: Union[bytes, str]) -> bytes:
    return message.encode("utf-8", "surrogateescape") if isinstance(message, str) else message


def _lines(ok: Dict[str, Any], key: str) -> List[str]:
    return [text(item) for item in ok.get(key) or ()]


def _nothing(ok: Dict[str, Any]) -> None:
    return None


class Core:
    """The server, as a plugin may ask it: ``session.core`` within a hook, ``plugin.core`` elsewhere."""

    __slots__ = ("_worker", "_turn")

    def __init__(self, worker: Worker, turn: Optional[Turn]) -> None:
        self._worker = worker
        self._turn = turn

    def _call(self, convert: Callable[[Dict[str, Any]], T], method: str, **params: Any) -> Call[T]:
        if self._turn is not None and self._turn.cancelled is not None:
            raise Cancelled(self._turn.cancelled)
        call = Call(self._worker, self._turn, convert)
        given = {name: value for name, value in params.items() if value is not None}
        self._worker.send_call(call, self._turn.id if self._turn is not None else None, method, given)
        return call

    def dns(self, name: str, type: str = "A") -> Call[Answer]:
        """Look up A, AAAA, MX, TXT, PTR, NS or CNAME records; for PTR the name may be an IP address.

        What is temporary (no answer, SERVFAIL) is a CallError with the code ``temporary``.
        """
        return self._call(lambda ok: Answer(text(ok.get("status")), _lines(ok, "records")), "dns", name=name, type=type)

    def config(self, name: str, recipient: object = None) -> Call[List[str]]:
        """The lines of a flat file, without comments; empty if there is none. With a recipient: those that are its own, else everybody's."""
        own = None if recipient is None else str(recipient)
        return self._call(lambda ok: _lines(ok, "values"), "config", name=name, recipient=own)

    def recipient_valid(self, address: Union[str, Address]) -> Call[str]:
        """Whether an address is one of ours: ``valid``, ``invalid``, or ``unknown`` where no plugin answers for it.

        What may be known later is a CallError with the code ``temporary``.
        """
        return self._call(lambda ok: text(ok.get("validity")), "recipient/valid", address=str(address))

    def state_get(self, key: str) -> Call[Optional[bytes]]:
        """A value out of the state that all workers share; None if there is none."""
        return self._call(lambda ok: _data(ok, "value"), "state/get", key=key)

    def state_set(self, key: str, value: bytes, ttl: Optional[float] = None) -> Call[None]:
        """Keep a value, for ``ttl`` seconds or for ever. Keys start with the plugin's name by convention."""
        return self._call(_nothing, "state/set", key=key, value=value, ttl_ms=_milliseconds(ttl))

    def state_add(self, key: str, add: int = 1, ttl: Optional[float] = None) -> Call[int]:
        """Add to a number, which starts at 0; the answer is the new sum."""
        return self._call(lambda ok: int(ok.get("value") or 0), "state/add", key=key, add=add, ttl_ms=_milliseconds(ttl))

    def state_delete(self, key: str) -> Call[None]:
        """Forget a value."""
        return self._call(_nothing, "state/delete", key=key)

    def message_read(self, offset: int, length: int) -> Call[bytes]:
        """Bytes of the message as received, at most 524288; fewer only at its end."""
        return self._call(lambda ok: _data(ok, "data") or b"", "message/read", offset=offset, length=length)

    def client_spoke(self, seconds: float = 0) -> Call[bool]:
        """Whether the client sends something before it is its turn, waiting so long for it.

        At ``pre_connection``, ``connect``, ``helo``, ``ehlo`` and ``data``; elsewhere it may, and this is a CallError with the code ``not_found``.
        """
        return self._call(lambda ok: bool(ok.get("spoke")), "client/spoke", ms=_milliseconds(seconds))

    def submit(self, recipients: Iterable[object], message: Union[bytes, str], sender: object = "") -> Call[str]:
        """Send a message of the plugin's own: header, empty line, body; lines may end in ``\\n``.

        It is on disk when the answer comes, its name in the outbox. Date, Message-ID and Auto-Submitted are added
        where they are missing. Without a ``sender`` nobody hears if it does not arrive.
        """
        addresses = [str(recipient) for recipient in recipients]
        return self._call(lambda ok: text(ok.get("id")), "message/submit", sender=str(sender), recipients=addresses, message=_bytes(message))

    def bounce(
        self, sender: object, recipient: object, reason: str, message: Union[bytes, str], code: int = 550, enhanced: Optional[str] = None
    ) -> Call[Optional[str]]:
        """Tell the sender of a message, by a delivery status notification, that it did not reach a recipient.

        ``message`` is the message or its header block, ``code`` and ``enhanced`` (such as ``"5.1.1"``) are those of
        the reply that says why. The answer comes when the notification is on disk: its name in the outbox, or None
        where there may be none, as for a null sender and for automatic messages.
        """
        return self._call(
            lambda ok: text(ok["id"]) if ok.get("id") else None, "message/bounce",
            sender=str(sender), recipient=str(recipient), text=reason, message=_bytes(message), code=code, enhanced=enhanced,
        )  # fmt: skip

    def more_time(self, seconds: float) -> Call[None]:
        """Ask for a later deadline; once a hook, up to the operator's ``timeout`` again."""
        return self._call(_nothing, "more_time", ms=_milliseconds(seconds))


def _milliseconds(seconds: Optional[float]) -> Optional[int]:
    return None if seconds is None else int(seconds * 1000)
