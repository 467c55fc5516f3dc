"""Mailbox addresses as SMTP has them (RFC 5321 section 4.1.2)."""

from __future__ import annotations

import re
from typing import Tuple

_DOT_STRING = re.compile(r"[^\s\"\\@<>(),:;\[\]]+")
_PAIR = re.compile(r"\\(.)", re.DOTALL)


class Address:
    """A mailbox: ``bob@example.org``, ``"a b"@example.org``, ``postmaster``; or, false, the null sender.

    ``str(address)`` is the text as it was given. Two addresses are equal when their local parts are equal, quoted
    or not, and their domains are but for case (RFC 5321 section 2.4); an address also compares to text.
    """

    __slots__ = ("_text", "_parts")

    def __init__(self, text: str) -> None:
        self._text = text
        self._parts: Tuple[str, ...] = ()

    def _split(self) -> Tuple[str, ...]:
        if not self._parts:
            # The domain cannot hold an @, a quoted local part can.
            local, at, domain = self._text.rpartition("@")
            if not at:
                local, domain = domain, ""
            if len(local) >= 2 and local[0] == local[-1] == '"':
                local = _PAIR.sub(r"\1", local[1:-1])
            self._parts = (local, domain)
        return self._parts

    @property
    def local(self) -> str:
        """The local part, without quotes."""
        return self._split()[0]

    @property
    def domain(self) -> str:
        """The domain as it was written; empty for the null sender and for a bare ``postmaster``."""
        return self._split()[1]

    @classmethod
    def of(cls, local: str, domain: str) -> Address:
        """The address of these two, with the local part quoted where it has to be."""
        dotted = _DOT_STRING.fullmatch(local) and not local.startswith(".") and not local.endswith(".") and ".." not in local
        if not dotted and (local or domain):
            local = '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
        return cls(f"{local}@{domain}" if domain else local)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Address({self._text!r})"

    def __bool__(self) -> bool:
        return self._text != ""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            other = Address(other)
        if not isinstance(other, Address):
            return NotImplemented
        return self.local == other.local and self.domain.lower() == other.domain.lower()

    def __hash__(self) -> int:
        return hash((self.local, self.domain.lower()))
