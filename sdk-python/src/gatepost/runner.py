"""Runs hooks and events: segments, their results, deferred answers, cancelling (docs/protocol.md sections 4, 6, 7)."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
import traceback
from collections import deque
from types import FrameType
from typing import TYPE_CHECKING, Any, Awaitable, Coroutine, Deque, Dict, Generator, List, Optional, Set, Tuple

from .changes import Change
from .definition import Hook
from .frames import MAX_FRAME
from .hooks import arguments, text
from .instances import Instances, Refused
from .msgpack_builtin import array_header, encode, integer
from .outcome import Outcome, checked, error, failure
from .session import Session, open_session, successor
from .threads import Pool
from .turn import Hosted, Turn

if TYPE_CHECKING:
    from .worker import Worker

Map = Dict[str, Any]
Segment = Generator[Awaitable[Any], Any, None]
Table = Dict[str, Tuple[Hosted, Hook]]

_RESULT = b"\x83" + encode("kind") + encode("result") + encode("id")
_UNFINISHED = b"\x83" + encode("kind") + encode("unfinished") + encode("id")
_RESULTS = encode("results")
_VERDICT = b"\x83" + encode("kind") + encode("verdict") + encode("id")
_RESULT_KEY = encode("result")
_CACHE = 64
_ENDS = ("reset_transaction", "disconnect")
_GRACE = 4.0


class Fatal(Exception):
    """Raise it where the whole process cannot go on: the server replaces it."""


class Conversation:
    """What the process keeps for one connection."""

    __slots__ = ("sessions", "busy", "waiting")

    def __init__(self) -> None:
        self.sessions: Dict[str, Session] = {}
        self.busy = False
        # Messages about this connection that arrived while a coroutine works on an earlier one.
        self.waiting: Deque[Map] = deque()


class Runner:
    """The plugins of one channel, and the sessions they know."""

    def __init__(self, worker: Worker, instances: Instances) -> None:
        self._worker = worker
        self._instances = instances
        self._encode = worker.codec.encode
        self._hosted: Dict[str, Hosted] = {}
        self._table: Dict[str, Table] = {}
        self._conversations: Dict[str, Conversation] = {}
        self._running: Dict[int, Turn] = {}
        self._deferred: Dict[int, List[Turn]] = {}
        self._unstarted: List[Coroutine[Any, Any, None]] = []
        self._tasks: Set[asyncio.Task[None]] = set()
        self._pool = Pool()

    def add(self, hosted: Hosted) -> None:
        """Take in a plugin, at the start."""
        self._hosted[hosted.name] = hosted
        for name, hook in hosted.hooks.items():
            self._table.setdefault(name, {})[hosted.name] = (hosted, hook)
            if hook.is_async:
                self._worker.want_loop()

    def take(self, message: Map) -> None:
        """A `hook` or an `event`, in the order of the conversation."""
        session = text(message.get("session"))
        if not session:
            # What belongs to no connection is not in the order of one.
            return self._begin(message, Conversation())
        conversation = self._conversations.get(session)
        if conversation is None and text(message.get("hook")) == "log":
            # It may be over: nobody would say so again.
            return self._begin(message, Conversation())
        if conversation is None:
            conversation = self._conversations[session] = Conversation()
        if conversation.busy:
            conversation.waiting.append(message)
        else:
            self._begin(message, conversation)

    def _begin(self, message: Map, conversation: Conversation) -> None:
        turn = Turn(self._worker, message)
        turn.cancelled = message.get("cancelled")
        answer = message["kind"] == "hook"
        if answer:
            self._running[turn.id] = turn
        # Kept out of the turn, which the session refers to: a cycle would be work for the garbage collector.
        values = arguments(turn.hook, message.get("args"))
        segment = self._segment(turn, values, conversation, answer)
        # A segment of plain functions runs through here; one with a coroutine goes on as a task.
        for waiting in segment:
            conversation.busy = True
            turn.task = self._task(self._continue(segment, waiting, conversation))
            return

    def _segment(self, turn: Turn, values: Map, conversation: Conversation, answer: bool) -> Segment:
        """Runs the plugins one after the other and sends their result; yields what has to be awaited."""
        table = self._table.get(turn.hook, {})
        sessions = conversation.sessions
        if turn.settings:
            table = self._in_force(turn, table)
        elif turn.hook in _ENDS:
            table = self._with_others(turn, table, sessions)
        value_of = values.__getitem__
        entries = turn.entries
        deferred: List[Tuple[Hosted, Turn, Outcome]] = []
        fatal: Optional[Fatal] = None
        for name in turn.names:
            if turn.cancelled is not None:
                break
            pair = table.get(name) or table.get(text(name))
            if pair is None:
                entries.append(self._without_function(text(name)))
                continue
            hosted, hook = pair
            if values.get("name") is not None and turn.hook == "user_config" and "name" not in hook.parameters:
                # It knows settings, and was asked for a file.
                entries.append(hosted.quiet)
                continue
            key = hosted.key
            session = sessions.get(key)
            if session is None:
                session = sessions[key] = open_session(hosted.plugin, turn, hook)
            else:
                session._turn = turn
                session._hook = hook
            values["session"] = session
            try:
                value = hook.function(*map(value_of, hook.parameters))
                if hook.is_async:
                    turn.waiting = value
                    value = yield value
            except (Exception, SystemExit, asyncio.CancelledError) as exception:
                value = _failed(exception, turn)
                fatal = exception if isinstance(exception, Fatal) else None
            if value is None and not turn.changes:
                entries.append(hosted.quiet)
                continue
            outcome = value if type(value) is Outcome else checked(value, f"{hook.function.__name__}()")
            changes = turn.changes
            known = None if changes or outcome is None else hosted.cache.get(outcome.key)
            if changes:
                turn.changes = []
            entries.append(known or self._entry(hosted, outcome, changes))
            if outcome is None:
                continue
            if outcome.key is None:
                for change in outcome.entry.get("changes", ()):
                    turn.view.apply(change)
            if outcome.later is not None:
                # What captured this session object keeps to this turn; the hooks to come get another.
                sessions[key] = successor(session)
                session._turn = turn.later()
                deferred.append((hosted, session._turn, outcome))
            if fatal is not None or outcome.stops:
                break
        if answer:
            if turn.cancelled is not None and not entries:
                entries.append(self._encode({"plugin": text(turn.names[0]), "disposition": "error", "message": f"cancelled: {turn.cancelled}"}))
            del self._running[turn.id]
            self._send_results(turn, entries)
            for item in deferred:
                self._defer(*item)
        if turn.hook == "disconnect":
            self._conversations.pop(turn.session, None)
        if fatal is not None:
            self._worker.give_up(fatal)

    def _in_force(self, turn: Turn, table: Table) -> Table:
        """The functions of a hook for which other settings than those of `init` are in force."""
        table = table.copy()
        for name, settings in (turn.settings or {}).items():
            if name not in table:
                continue
            try:
                other = self._instances.other(name, settings)
            except Refused as refused:
                outcome = error(f"the settings in force cannot be used: {refused}")
                table[name] = table[name][0], Hook(turn.hook, lambda outcome=outcome: outcome, (), (), False, None)
                continue
            if turn.hook in other.hooks:
                table[name] = other, other.hooks[turn.hook]
            else:
                del table[name]
        return table

    def _with_others(self, turn: Turn, table: Table, sessions: Dict[str, Session]) -> Table:
        """The functions of an event that ends what a plugin keeps: other instances that were asked about the session are told as well."""
        table = table.copy()
        for name in list(map(text, turn.names)):
            for other in self._instances.others(name):
                if other.key in sessions and turn.hook in other.hooks:
                    table[other.key] = other, other.hooks[turn.hook]
                    turn.names.append(other.key)
        return table

    async def _continue(self, segment: Segment, waiting: Awaitable[Any], conversation: Conversation) -> None:
        try:
            while True:
                try:
                    value = await waiting
                except (Exception, SystemExit, asyncio.CancelledError) as exception:
                    waiting = segment.throw(exception)
                else:
                    waiting = segment.send(value)
        except StopIteration:
            pass
        conversation.busy = False
        while conversation.waiting and not conversation.busy:
            self._begin(conversation.waiting.popleft(), conversation)
        self._worker.flush()

    def _without_function(self, name: str) -> bytes:
        hosted = self._hosted.get(name)
        if hosted is not None:
            return hosted.quiet
        return self._encode({"plugin": name, "disposition": "error", "message": f'this process has no plugin "{name}"'})

    def _entry(self, hosted: Hosted, outcome: Optional[Outcome], changes: List[Change]) -> bytes:
        entry = {"plugin": hosted.name, **(outcome.entry if outcome is not None else {})}
        if changes:
            entry["changes"] = [*changes, *entry.get("changes", ())]
        try:
            encoded = self._encode(entry)
        except (TypeError, ValueError, OverflowError) as exception:
            return self._entry(hosted, failure(exception), [])
        if len(encoded) > MAX_FRAME // 2:
            return self._entry(hosted, error(f"a result of {len(encoded)} bytes is too long"), [])
        if outcome is not None and outcome.key is not None and not changes:
            if len(hosted.cache) >= _CACHE:
                hosted.cache.clear()
            hosted.cache[outcome.key] = encoded
        return encoded

    def _send_results(self, turn: Turn, entries: List[bytes]) -> None:
        body = b"".join((_RESULT, integer(turn.id), _RESULTS, array_header(len(entries)), *entries))
        if len(body) > MAX_FRAME:
            longest = max(range(len(entries)), key=lambda at: len(entries[at]))
            hosted = self._hosted[text(turn.names[longest])]
            entries[longest] = self._entry(hosted, error("the results of the segment are too long together"), [])
            self._send_results(turn, entries)
        else:
            self._worker.post_encoded(body)

    def unfinished(self, frame: Optional[FrameType]) -> None:
        """Send what there is of the oldest hook's results, with an error for the plugin whose turn it is. ``frame`` is what runs."""
        turn = next(iter(self._running.values()), None)
        if turn is None or len(turn.entries) >= len(turn.names):
            return
        name = text(turn.names[len(turn.entries)])
        entry = {"plugin": name, "disposition": "error", "message": f"it is {self._place(turn, name, frame)}"}
        entries = [*turn.entries, self._encode(entry)]
        body = b"".join((_UNFINISHED, integer(turn.id), _RESULTS, array_header(len(entries)), *entries))
        if len(body) <= MAX_FRAME:
            self._worker.post_encoded(body)

    def _place(self, turn: Turn, name: str, frame: Optional[FrameType]) -> str:
        """The line of the plugin's file that it is at, whatever it called or awaits there."""
        pair = self._table.get(turn.hook, {}).get(name)
        path = pair[1].function.__code__.co_filename if pair is not None else None
        frame = getattr(turn.waiting, "cr_frame", None) or frame
        while frame is not None and frame.f_code.co_filename != path:
            frame = frame.f_back
        return f"at {path} line {frame.f_lineno}" if frame is not None else "in code that cannot be looked into"

    def _defer(self, hosted: Hosted, turn: Turn, outcome: Outcome) -> None:
        self._deferred.setdefault(turn.id, []).append(turn)
        later = outcome.later
        if inspect.iscoroutinefunction(later):
            later = later(*outcome.arguments)
        if inspect.iscoroutine(later):
            coroutine = self._answer_later(hosted, turn, later)
            if self._worker.loop is not None:
                turn.task = self._task(coroutine)
            else:
                self._unstarted.append(coroutine)
                self._worker.want_loop()
        else:
            self._pool.submit(lambda: self._answer_in_thread(hosted, turn, outcome))

    async def _answer_later(self, hosted: Hosted, turn: Turn, later: Awaitable[Any]) -> None:
        try:
            value = await later
        except (Exception, SystemExit, asyncio.CancelledError) as exception:
            value = _failed(exception, turn)
        self._send_verdict(hosted, turn, value)

    def _answer_in_thread(self, hosted: Hosted, turn: Turn, outcome: Outcome) -> None:
        assert callable(outcome.later)
        try:
            value = outcome.later(*outcome.arguments)
        except (Exception, SystemExit) as exception:
            value = _failed(exception, turn)
        self._send_verdict(hosted, turn, value)

    def _send_verdict(self, hosted: Hosted, turn: Turn, value: Any) -> None:
        turns = self._deferred[turn.id]
        turns.remove(turn)
        if not turns:
            self._deferred.pop(turn.id, None)
        if turn.cancelled is not None:
            return
        outcome = checked(value, "the deferred function")
        if outcome is not None and outcome.later is not None:
            outcome = error("a deferred answer cannot be deferred again")
        entry = self._entry(hosted, outcome, turn.changes)
        self._worker.post_encoded(b"".join((_VERDICT, integer(turn.id), _RESULT_KEY, entry)))
        self._worker.flush()

    def cancel(self, hook: int, reason: str, queued: Deque[Map]) -> None:
        """The server no longer wants the answers to that hook, be it running, deferred or still waiting.

        Not so at `queue`, where a client that is gone is news for the plugin and nothing else.
        """
        running = self._running.get(hook)
        if running is not None and running.hook == "queue" and reason == "disconnect":
            return running.depart()
        for turn in [*self._deferred.get(hook, ()), *([running] if running else ())]:
            turn.cancelled = reason
            self._worker.wake_calls(turn)
            if turn.task is not None and self._worker.loop is not None:
                # A task cancelled before its first step would never get to send its result.
                self._worker.loop.call_soon(turn.task.cancel)
        if running is None:
            for waiting in [queued, *(conversation.waiting for conversation in self._conversations.values())]:
                for message in waiting:
                    if message.get("id") == hook and message["kind"] == "hook":
                        if text(message.get("hook")) == "queue" and reason == "disconnect":
                            message["departed"] = True
                        else:
                            message["cancelled"] = reason

    def _task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._worker.loop is not None
        task = self._worker.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def start_loop(self) -> None:
        """The event loop runs now: start what waited for it."""
        unstarted, self._unstarted = self._unstarted, []
        for coroutine in unstarted:
            self._task(coroutine)

    async def finish_tasks(self) -> None:
        """The channel has ended: give what runs a moment, then cancel it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE)
        for turn in [*self._running.values(), *itertools.chain(*self._deferred.values())]:
            turn.cancelled = "shutdown"
        for task in self._tasks:
            task.cancel()

    def finish(self) -> None:
        """The same, for what runs in threads."""
        for coroutine in self._unstarted:
            coroutine.close()
        self._pool.finish(_GRACE)


def _failed(exception: BaseException, turn: Turn) -> Outcome:
    if turn.cancelled is not None:
        return error(f"cancelled: {turn.cancelled}")
    traceback.print_exception(type(exception), exception, exception.__traceback__, file=sys.stderr)
    return failure(exception)
