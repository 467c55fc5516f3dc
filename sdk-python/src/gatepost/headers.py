"""Edits of a header block, as the server makes them, for the view that the plugins after the edit have."""

from __future__ import annotations

import re
from typing import List, Optional, Union

Value = Union[str, bytes]

_NAME = re.compile(rb"[!-9;-~]+")
_FIELD = re.compile(rb"[^\n]*(?:\n[ \t][^\n]*)*(?:\n|\Z)")
_LOOSE_BREAK = re.compile(rb"\r(?!\n)|\n(?![ \t])|\0")
_MAX_LINE = 998


def check(name: str, value: Value) -> None:
    """Raises ValueError where the server would refuse this header field (RFC 5322 sections 2.1.1 and 2.2)."""
    raw = value.encode() if isinstance(value, str) else value
    if not _NAME.fullmatch(name.encode()):
        raise ValueError(f"{name!r} is no name of a header field")
    if _LOOSE_BREAK.search(raw):
        raise ValueError(f"the value of {name} has a line break that starts no folded line, or a NUL")
    if max(map(len, _line(name, value).split(b"\r\n"))) > _MAX_LINE:
        raise ValueError(f"the value of {name} has a line of more than {_MAX_LINE} bytes: fold it")


def _line(name: str, value: Value) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return name.encode() + b": " + re.sub(rb"\r?\n", b"\r\n", raw) + b"\r\n"


def _fields(block: bytes) -> List[bytes]:
    return [field for field in _FIELD.findall(block) if field]


def _positions(fields: List[bytes], name: str) -> List[int]:
    wanted = name.encode().lower()
    return [at for at, field in enumerate(fields) if field.partition(b":")[0].strip().lower() == wanted]


def add(block: bytes, name: str, value: Value, at: Union[str, int]) -> bytes:
    """The block with a field more, at the ``top`` or the ``bottom``, or below so many others."""
    if isinstance(at, int):
        fields = _fields(block)
        return b"".join([*fields[:at], _line(name, value), *fields[at:]])
    return _line(name, value) + block if at == "top" else block + _line(name, value)


def replace(block: bytes, name: str, value: Value, nth: int) -> bytes:
    """The block with another value in the nth field of that name, or with a field more where there is none."""
    fields = _fields(block)
    positions = _positions(fields, name)
    if nth > len(positions):
        return add(block, name, value, "bottom")
    fields[positions[nth - 1]] = _line(name, value)
    return b"".join(fields)


def remove(block: bytes, name: str, nth: Optional[int]) -> bytes:
    """The block without the nth field of that name, or without any."""
    fields = _fields(block)
    positions = _positions(fields, name)
    drop = set(positions if nth is None else positions[nth - 1 : nth])
    return b"".join(field for at, field in enumerate(fields) if at not in drop)
