"""The message of a transaction, exactly as it was received."""

from __future__ import annotations

import email.message
import email.policy
import io
from email.parser import BytesParser
from typing import TYPE_CHECKING, Any, BinaryIO, Optional, cast

from .calls import MAX_READ, Core

if TYPE_CHECKING:
    from .session import Session

_BUFFER = 65_536


class _Remote(io.RawIOBase):
    """The message read by range over the channel, as a raw stream."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of the message is not known before it is read")
        self._at = offset if whence == io.SEEK_SET else self._at + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._core.message_read(self._at, min(len(buffer), MAX_READ)).result()
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class Message:
    """The message as received. Header edits of plugins are not in it; ``session.header`` has them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def open(self) -> BinaryIO:
        """The message as a file for reading: the server's own with the field ``path``, else read over the channel."""
        path: Optional[str] = self._session.path if self._session.subscribes("path") else None
        if path:
            return open(path, "rb", buffering=_BUFFER)
        return cast(BinaryIO, io.BufferedReader(_Remote(self._session.core), _BUFFER))

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end of the message."""
        with self.open() as file:
            file.seek(offset)
            return file.read(length)

    def parse(self) -> email.message.EmailMessage:
        """The message parsed by the standard library, wholly in memory."""
        with self.open() as file:
            return BytesParser(policy=email.policy.default).parse(file)
