"""The channel to the server: two pipes or one socket (docs/protocol.md section 1)."""

from __future__ import annotations

import os
import select
import socket
from typing import List, Optional

_VARIABLE = "GATEPOST_FD"
_READ = 65_536


class Channel:
    """Bytes in and bytes out, blocking, over two descriptors that may be the same."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing

    def fileno(self) -> int:
        """The descriptor to read from."""
        return self._reading

    def read(self) -> bytes:
        """What has arrived, at least a byte; nothing at end of file, and where the other side is gone."""
        try:
            return os.read(self._reading, _READ)
        except ConnectionError:
            return b""

    def has_input(self) -> bool:
        """Whether ``read`` would not have to wait."""
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        return bool(poll.poll(0))

    def write(self, data: bytes) -> None:
        """All of ``data``. Raises OSError where the other side is gone."""
        written = os.write(self._writing, data)
        while written < len(data):
            data = data[written:]
            written = os.write(self._writing, data)

    def close(self) -> None:
        for descriptor in {self._reading, self._writing}:
            os.close(descriptor)

    @classmethod
    def of_socket(cls, connection: socket.socket) -> Channel:
        """The channel over a socket, which it takes over."""
        descriptor = connection.detach()
        return cls(descriptor, descriptor)


def _descriptors(value: str) -> List[int]:
    try:
        numbers = [int(number) for number in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ValueError(f'{_VARIABLE} is "{value}"; it is to be one descriptor like "3", or two like "3,4"')
    return numbers


def protect() -> None:
    """Keep the server's descriptors from the programs that a plugin starts, from the first import on."""
    try:
        for descriptor in _descriptors(os.environ.get(_VARIABLE, "")):
            os.set_inheritable(descriptor, False)
    except (ValueError, OSError):
        pass  # take() has the words for it.


def take() -> Optional[Channel]:
    """The channel that the server gave this process; None if the process was started by hand.

    Raises ValueError or OSError, with a text for the person who started it, where it is not usable.
    """
    value = os.environ.pop(_VARIABLE, None)
    if value is None:
        return None
    numbers = _descriptors(value)
    for descriptor in numbers:
        os.set_inheritable(descriptor, False)
    return Channel(numbers[0], numbers[-1])
