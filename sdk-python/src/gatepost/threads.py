"""Threads for deferred functions. They never keep the process from exiting, unlike those of concurrent.futures."""

from __future__ import annotations

import queue
import threading
import time
from typing import Callable

_MOST = 64


class Pool:
    """Up to 64 threads, started as they are needed."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._change = threading.Condition()
        self._threads = 0
        self._unfinished = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Have ``work`` done; it handles its own exceptions."""
        with self._change:
            self._unfinished += 1
            if self._unfinished > self._threads and self._threads < _MOST:
                self._threads += 1
                threading.Thread(target=self._run, name=f"gatepost-later-{self._threads}", daemon=True).start()
        self._work.put(work)

    def _run(self) -> None:
        while True:
            work = self._work.get()
            try:
                work()
            finally:
                with self._change:
                    self._unfinished -= 1
                    self._change.notify_all()

    def finish(self, seconds: float) -> None:
        """Wait until all work is done, but no longer than that."""
        end = time.monotonic() + seconds
        with self._change:
            self._change.wait_for(lambda: self._unfinished == 0, max(0.0, end - time.monotonic()))
