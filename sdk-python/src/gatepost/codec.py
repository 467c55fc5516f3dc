"""MessagePack: the ``msgpack`` package where it can be imported, else the built-in codec.

The environment variable ``GATEPOST_CODEC=builtin`` forces the built-in one.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from . import msgpack_builtin
from .frames import FrameError


class Codec(NamedTuple):
    """``decode`` raises FrameError for what breaks the protocol's rules; ``encode`` TypeError or OverflowError."""

    name: str
    decode: Callable[[bytes], Dict[str, Any]]
    encode: Callable[[Any], bytes]


BUILTIN = Codec("builtin", msgpack_builtin.decode, msgpack_builtin.encode)

# Of these bytes at least one is in every frame that has a float, an ext type, an integer of 64 bits, or bytes (which
# might be a key), and it takes 17 of the others to nest 17 deep; the msgpack package would take all of these as they
# are. They may also be part of a text: a frame that has them is not wrong, but one for the built-in codec to judge.
_SUSPECT = bytes([0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCF, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8])
_CONTAINERS = bytes(range(0x80, 0xA0)) + bytes([0xDC, 0xDD, 0xDE, 0xDF])
_MAX_CONTAINERS = 16
# Beyond this, looking at every byte costs more than the built-in codec, which jumps over long values.
_LONG = 4096


def _pairs(pairs: List[Tuple[Any, Any]]) -> Dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise FrameError("duplicate_key", "a key stands twice in one map")
    return result


def _fast() -> Optional[Codec]:
    try:
        import msgpack  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        return None
    unpackb, packb = msgpack.unpackb, msgpack.packb

    def decode(data: bytes) -> Dict[str, Any]:
        if len(data) <= _LONG:
            size = len(data)
            if size == len(data.translate(None, _SUSPECT)) and size - len(data.translate(None, _CONTAINERS)) <= _MAX_CONTAINERS:
                try:
                    value = unpackb(data, object_pairs_hook=_pairs, unicode_errors="surrogateescape")
                except Exception:
                    # The built-in codec knows what to call it.
                    return msgpack_builtin.decode(data)
                if type(value) is dict:
                    return value
        return msgpack_builtin.decode(data)

    def encode(value: Any) -> bytes:
        result: bytes = packb(value, unicode_errors="replace")
        return result

    return Codec("msgpack", decode, encode)


FAST = _fast()


def choose() -> Codec:
    """The codec that this process is to use."""
    if FAST is None or os.environ.get("GATEPOST_CODEC") == "builtin":
        return BUILTIN
    return FAST
