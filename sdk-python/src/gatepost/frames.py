"""Frames: a length, 4 bytes, big-endian, then one MessagePack map (docs/protocol.md section 2)."""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List

MAX_FRAME = 1_048_576
MAX_DEPTH = 16
MAX_INTEGER = 2**53

_LENGTH = struct.Struct(">I")


class FrameError(Exception):
    """A frame that breaks the rules; nothing that follows it can be trusted.

    ``code`` is one of empty, too_long, truncated, trailing, not_a_map, depth, duplicate_key, ext,
    float, bad_key, integer_range, malformed.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def frame(body: bytes) -> bytes:
    """The frame that carries ``body``. Raises FrameError where the body is over the limit."""
    if len(body) > MAX_FRAME:
        raise FrameError("too_long", f"a message of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into messages."""

    def __init__(self, decode: Callable[[bytes], Dict[str, Any]]) -> None:
        self._decode = decode
        self._rest = b""

    def feed(self, data: bytes) -> List[Dict[str, Any]]:
        """The messages that ``data`` completes, in order; the rest waits for the next call."""
        if self._rest:
            data = self._rest + data
        size = len(data)
        messages = []
        start = 0
        while size - start >= 4:
            (length,) = _LENGTH.unpack_from(data, start)
            if length == 0:
                raise FrameError("empty", "a frame of length 0")
            if length > MAX_FRAME:
                raise FrameError("too_long", f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
            end = start + 4 + length
            if end > size:
                break
            messages.append(self._decode(data[start + 4 : end]))
            start = end
        self._rest = data[start:]
        return messages

    def close(self) -> None:
        """To be called at end of file. Raises FrameError if it came within a frame."""
        if self._rest:
            raise FrameError("truncated", "the stream ended within a frame")
