"""MessagePack in plain Python, as strict as the protocol asks (docs/protocol.md section 2).

This is the reference: what the ``msgpack`` package cannot refuse by itself is handed to it. Text that is not
UTF-8 is decoded with surrogate escapes, so that bytes which arrived as str can be had back unharmed.
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List, Tuple

from .frames import MAX_DEPTH, MAX_INTEGER, FrameError

_U16 = struct.Struct(">H").unpack_from
_U32 = struct.Struct(">I").unpack_from
_U64 = struct.Struct(">Q").unpack_from
_I8 = struct.Struct(">b").unpack_from
_I16 = struct.Struct(">h").unpack_from
_I32 = struct.Struct(">i").unpack_from
_I64 = struct.Struct(">q").unpack_from


def decode(data: bytes) -> Dict[str, Any]:
    """The map that ``data`` holds. Raises FrameError for anything else."""
    if not data:
        raise FrameError("empty", "a frame without content")
    first = data[0]
    if not (0x80 <= first <= 0x8F or first in (0xDE, 0xDF)):
        raise FrameError("not_a_map", f"a frame starts with 0x{first:02x}, which is no map")
    try:
        value, end = _value(data, 0, 0)
    except (IndexError, struct.error):
        raise FrameError("truncated", "a value ends beyond its frame") from None
    # Slices never fail, so that one look at the end finds text and bytes that were cut short as well.
    if end > len(data):
        raise FrameError("truncated", "a value ends beyond its frame")
    if end < len(data):
        raise FrameError("trailing", f"{len(data) - end} bytes are left over after the map")
    result: Dict[str, Any] = value
    return result


def _value(data: bytes, at: int, depth: int) -> Tuple[Any, int]:
    kind = data[at]
    at += 1
    if kind < 0x80:
        return kind, at
    if kind < 0x90:
        return _map(data, at, kind & 0x0F, depth + 1)
    if kind < 0xA0:
        return _array(data, at, kind & 0x0F, depth + 1)
    if kind < 0xC0:
        return _text(data, at, kind & 0x1F, depth)
    if kind >= 0xE0:
        return kind - 256, at
    return _BY_KIND[kind - 0xC0](data, at, depth)


def _map(data: bytes, at: int, size: int, depth: int) -> Tuple[Dict[str, Any], int]:
    if depth > MAX_DEPTH:
        raise FrameError("depth", f"a value is nested deeper than {MAX_DEPTH}")
    result: Dict[str, Any] = {}
    for count in range(size):
        kind = data[at]
        if 0xA0 <= kind < 0xC0:
            end = at + 1 + (kind & 0x1F)
            try:
                key = data[at + 1 : end].decode()
            except UnicodeDecodeError:
                key = data[at + 1 : end].decode("utf-8", "surrogateescape")
            at = end
        else:
            key, at = _long_key(data, at)
        kind = data[at]
        # Short text and small numbers are most of what comes; they are not worth a call.
        if 0xA0 <= kind < 0xC0:
            end = at + 1 + (kind & 0x1F)
            try:
                value: Any = data[at + 1 : end].decode()
            except UnicodeDecodeError:
                value = data[at + 1 : end].decode("utf-8", "surrogateescape")
            at = end
        elif kind < 0x80:
            value = kind
            at += 1
        else:
            value, at = _value(data, at, depth)
        result[key] = value
        if len(result) <= count:
            raise FrameError("duplicate_key", f"the key {key!r} stands twice in one map")
    return result, at


def _long_key(data: bytes, at: int) -> Tuple[str, int]:
    if data[at] not in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB):
        raise FrameError("bad_key", f"a key of a map is no text (0x{data[at]:02x})")
    key, end = _value(data, at, 0)
    if end > len(data):
        raise FrameError("truncated", "a key ends beyond its frame")
    return (str(key, "utf-8", "surrogateescape") if isinstance(key, bytes) else key), end


def _array(data: bytes, at: int, size: int, depth: int) -> Tuple[List[Any], int]:
    if depth > MAX_DEPTH:
        raise FrameError("depth", f"a value is nested deeper than {MAX_DEPTH}")
    result = []
    for _ in range(size):
        value, at = _value(data, at, depth)
        result.append(value)
    return result, at


_Reader = Callable[[bytes, int, int], Tuple[Any, int]]


def _constant(value: Any) -> _Reader:
    return lambda data, at, depth: (value, at)


def _refuse(code: str, what: str) -> _Reader:
    def reader(data: bytes, at: int, depth: int) -> Tuple[Any, int]:
        raise FrameError(code, f"{what} (0x{data[at - 1]:02x})")

    return reader


def _integer(unpack: Callable[[bytes, int], Tuple[Any, ...]], size: int) -> _Reader:
    def reader(data: bytes, at: int, depth: int) -> Tuple[Any, int]:
        value = unpack(data, at)[0]
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise FrameError("integer_range", f"{value} is beyond 2^53")
        return value, at + size

    return reader


def _u8(data: bytes, at: int) -> Tuple[int]:
    return (data[at],)


def _sized(
    length: Callable[[bytes, int], Tuple[Any, ...]], size: int, read: Callable[[bytes, int, int, int], Tuple[Any, int]]
) -> _Reader:
    return lambda data, at, depth: read(data, at + size, length(data, at)[0], depth + 1)


def _bytes(data: bytes, at: int, size: int, depth: int) -> Tuple[bytes, int]:
    return data[at : at + size], at + size


def _text(data: bytes, at: int, size: int, depth: int) -> Tuple[str, int]:
    raw = data[at : at + size]
    try:
        return raw.decode(), at + size
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape"), at + size


_EXT = _refuse("ext", "an ext type")
_FLOAT = _refuse("float", "a float")
_BY_KIND: List[_Reader] = [
    _constant(None),
    _refuse("malformed", "a byte that starts no value"),
    _constant(False),
    _constant(True),
    _sized(_u8, 1, _bytes),
    _sized(_U16, 2, _bytes),
    _sized(_U32, 4, _bytes),
    _EXT,
    _EXT,
    _EXT,
    _FLOAT,
    _FLOAT,
    _integer(_u8, 1),
    _integer(_U16, 2),
    _integer(_U32, 4),
    _integer(_U64, 8),
    _integer(_I8, 1),
    _integer(_I16, 2),
    _integer(_I32, 4),
    _integer(_I64, 8),
    _EXT,
    _EXT,
    _EXT,
    _EXT,
    _EXT,
    _sized(_u8, 1, _text),
    _sized(_U16, 2, _text),
    _sized(_U32, 4, _text),
    _sized(_U16, 2, _array),
    _sized(_U32, 4, _array),
    _sized(_U16, 2, _map),
    _sized(_U32, 4, _map),
]

_SMALL = [bytes([value]) for value in range(256)]
_P8 = struct.Struct(">BB").pack
_P16 = struct.Struct(">BH").pack
_P32 = struct.Struct(">BI").pack
_P64 = struct.Struct(">BQ").pack
_PI8 = struct.Struct(">Bb").pack
_PI16 = struct.Struct(">Bh").pack
_PI32 = struct.Struct(">Bi").pack
_PI64 = struct.Struct(">Bq").pack


def encode(value: Any) -> bytes:
    """``value`` (maps, lists, text, bytes, integers, booleans, None) as MessagePack.

    Raises TypeError for a type, and OverflowError for an integer, that the protocol does not know.
    """
    parts: List[bytes] = []
    _pack(value, parts.append, 0)
    return b"".join(parts)


def _pack(value: Any, put: Callable[[bytes], None], depth: int) -> None:
    packer = _BY_TYPE.get(type(value))
    if packer is None:
        for known, packer in _BY_TYPE.items():
            if isinstance(value, known):
                break
        else:
            raise TypeError(f"a {type(value).__name__} cannot travel: only maps, lists, text, bytes, integers, booleans and None can")
    packer(value, put, depth)


def _pack_none(value: None, put: Callable[[bytes], None], depth: int) -> None:
    put(b"\xc0")


def _pack_boolean(value: bool, put: Callable[[bytes], None], depth: int) -> None:
    put(b"\xc3" if value else b"\xc2")


def _pack_integer(value: int, put: Callable[[bytes], None], depth: int) -> None:
    put(integer(value))


def integer(value: int) -> bytes:
    """An integer as MessagePack. Raises OverflowError beyond 2^53."""
    if value >= 0:
        if value < 0x80:
            return _SMALL[value]
        if value < 0x100:
            return _P8(0xCC, value)
        if value < 0x10000:
            return _P16(0xCD, value)
        if value < 0x100000000:
            return _P32(0xCE, value)
        if value <= MAX_INTEGER:
            return _P64(0xCF, value)
    elif value >= -32:
        return _SMALL[value + 256]
    elif value >= -0x80:
        return _PI8(0xD0, value)
    elif value >= -0x8000:
        return _PI16(0xD1, value)
    elif value >= -0x80000000:
        return _PI32(0xD2, value)
    elif value >= -MAX_INTEGER:
        return _PI64(0xD3, value)
    raise OverflowError(f"{value} is beyond 2^53")


def _pack_text(value: str, put: Callable[[bytes], None], depth: int) -> None:
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        # Text that came in as broken UTF-8; what goes out as text has to be text.
        raw = value.encode("utf-8", "replace")
    size = len(raw)
    if size < 32:
        put(_SMALL[0xA0 | size])
    elif size < 0x100:
        put(_P8(0xD9, size))
    elif size < 0x10000:
        put(_P16(0xDA, size))
    else:
        put(_P32(0xDB, size))
    put(raw)


def _pack_bytes(value: bytes, put: Callable[[bytes], None], depth: int) -> None:
    size = len(value)
    if size < 0x100:
        put(_P8(0xC4, size))
    elif size < 0x10000:
        put(_P16(0xC5, size))
    else:
        put(_P32(0xC6, size))
    put(bytes(value))


def _pack_array(value: List[Any], put: Callable[[bytes], None], depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise TypeError(f"a value is nested deeper than {MAX_DEPTH}")
    put(array_header(len(value)))
    for item in value:
        _pack(item, put, depth + 1)


def _pack_map(value: Dict[str, Any], put: Callable[[bytes], None], depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise TypeError(f"a value is nested deeper than {MAX_DEPTH}")
    size = len(value)
    if size < 16:
        put(_SMALL[0x80 | size])
    elif size < 0x10000:
        put(_P16(0xDE, size))
    else:
        put(_P32(0xDF, size))
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"the key {key!r} of a map is no text")
        _pack_text(key, put, depth)
        _pack(item, put, depth + 1)


def array_header(size: int) -> bytes:
    """What stands before the ``size`` items of an array."""
    if size < 16:
        return _SMALL[0x90 | size]
    return _P16(0xDC, size) if size < 0x10000 else _P32(0xDD, size)


# bool stands before int, of which it is a subclass.
_BY_TYPE: Dict[type, Callable[[Any, Callable[[bytes], None], int], None]] = {
    str: _pack_text,
    bool: _pack_boolean,
    int: _pack_integer,
    dict: _pack_map,
    list: _pack_array,
    tuple: _pack_array,
    bytes: _pack_bytes,
    bytearray: _pack_bytes,
    memoryview: _pack_bytes,
    type(None): _pack_none,
}
