"""The settings of a plugin: declared once, checked at the start, read as attributes.

    class settings:
        addresses = setting(list, help="recipients to refuse")
        message = setting(str, default="no such user here", help="what the client is told")
        patience = setting(Duration, default="10s", help="how long to wait for the directory")

    settings.message        # text; settings.patience is seconds, as a float
"""

from __future__ import annotations

import re
from typing import Any, Dict, Generic, List, Optional, Type, TypeVar, Union, overload

T = TypeVar("T")


class SettingError(ValueError):
    """A setting that cannot be used. ``path`` leads to it: its name, then keys and 0-based indices."""

    def __init__(self, message: str, *path: Union[str, int]) -> None:
        super().__init__(message)
        self.path = list(path)


class Duration(float):
    """A setting's type: a time like ``"5s"``, as seconds."""


class Size(int):
    """A setting's type: a size like ``"10MB"``, as bytes."""


# The server's own units (docs/configuration.md): a size may be a bare number of bytes, a duration always has its unit.
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}
_QUANTITY = re.compile(r"(\d+)\s*([A-Za-z]*)")


def _quantity(value: Any, units: Dict[str, Any], example: str) -> float:
    match = _QUANTITY.fullmatch(str(value)) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    unit = units.get(match[2]) if match else None
    if match is None or unit is None:
        raise SettingError(f"is to be {example}, not {value!r}")
    return float(match[1]) * float(unit)


def _duration(value: Any) -> Duration:
    return Duration(_quantity(value, _SECONDS, 'a duration like "5s" or "2m"'))


def _size(value: Any) -> Size:
    return Size(_quantity(value, _BYTES, 'a size like "10MB"'))


def _exactly(kind: type, name: str) -> Any:
    def convert(value: Any) -> Any:
        if type(value) is not kind:
            raise SettingError(f"is to be {name}, not {value!r}")
        return value

    return convert


def _list_of_text(value: Any) -> List[str]:
    if not isinstance(value, list):
        raise SettingError(f"is to be a list of text, not {value!r}")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise SettingError(f"is to be text, not {item!r}", index)
    return list(value)


_TYPES: Dict[type, Any] = {
    str: ("text", _exactly(str, "text")),
    int: ("integer", _exactly(int, "an integer")),
    bool: ("boolean", _exactly(bool, "true or false")),
    Duration: ("duration", _duration),
    Size: ("size", _size),
    list: ("list", _list_of_text),
    dict: ("map", _exactly(dict, "a table")),
    object: ("any", lambda value: value),
}


class _Required:
    pass


class Setting(Generic[T]):
    """One setting; as an attribute of a class it reads as its value."""

    def __init__(self, kind: type, default: Any, help: str) -> None:
        if kind not in _TYPES:
            raise TypeError("a setting is of type str, int, bool, list, dict, object, Duration or Size")
        self.name = ""
        self.type, self._convert = _TYPES[kind]
        self.default = default
        self.help = help
        self._initial: Any = default
        if default is not None and default is not _Required:
            self._initial = self._convert(default)
        self._value: Any = self._initial

    @property
    def required(self) -> bool:
        return self.default is _Required

    def __set_name__(self, owner: type, name: str) -> None:
        from .definition import current

        self.name = name
        current().add_setting(self)

    def __get__(self, instance: Any, owner: Any = None) -> T:
        if self._value is _Required:
            raise SettingError(f'the setting "{self.name}" has no value before the plugin is started', self.name)
        value: T = self._value
        return value

    def load(self, settings: Dict[str, Any]) -> None:
        """Take the value out of what the operator wrote. Raises SettingError."""
        value = settings.get(self.name)
        self._value = self._initial
        if value is None:
            if self.required:
                raise SettingError(f"is required: {self.help}" if self.help else "is required", self.name)
            return
        try:
            self._value = self._convert(value)
        except SettingError as error:
            raise SettingError(str(error), self.name, *error.path) from None

    def declaration(self) -> Dict[str, Any]:
        """The setting as `ready` tells of it."""
        result: Dict[str, Any] = {"name": self.name, "type": self.type, "required": self.required, "help": self.help}
        if not self.required and self.default is not None:
            result["default"] = self.default
        return result


@overload
def setting(kind: Type[T], *, help: str = "") -> Setting[T]: ...
@overload
def setting(kind: Type[T], *, default: None, help: str = "") -> Setting[Optional[T]]: ...
@overload
def setting(kind: Type[T], *, default: Union[T, str, int], help: str = "") -> Setting[T]: ...
def setting(kind: Any, *, default: Any = _Required, help: str = "") -> Any:
    """Declare a setting, in the body of a class; its name is the attribute's.

    ``kind`` is str, int, bool, list (of text), dict, object (anything), Duration or Size. Without a ``default`` the
    setting is required; with ``default=None`` it may be absent, and is None then. ``help`` is one sentence.
    """
    return Setting(kind, default, help)
