"""What a plugin's file declares while it is loaded: hooks, settings, a setup function, a policy."""

from __future__ import annotations

import inspect
import sys
import threading
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple, TypeVar, Union

from .hooks import EVENTS, FIELDS, HOOKS, nearest
from .settings import Setting, SettingError

Function = TypeVar("Function", bound=Callable[..., Any])
Priority = Union[int, str]
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class LoadError(Exception):
    """A plugin cannot be loaded; the text is for the operator."""


class Hook:
    """One function on one hook."""

    def __init__(self, name: str, function: Callable[..., Any], fields: Iterable[str], reads: Iterable[str], observe: bool, timeout: Optional[float], priority: Priority = 0) -> None:
        self.name = name
        self.function = function
        self.fields = frozenset(fields)
        self.reads = frozenset(reads)
        self.observe = observe or name in EVENTS
        self.timeout = timeout
        self.priority = priority
        self.is_async = inspect.iscoroutinefunction(function)
        self.parameters = _parameters(function, f'the hook "{name}"', ["session", *HOOKS[name]])

    def declaration(self) -> Dict[str, Any]:
        """The hook as `ready` tells of it."""
        result: Dict[str, Any] = {"hook": self.name, "fields": sorted(self.fields), "reads": sorted(self.reads)}
        if self.observe:
            result["mode"] = "observe"
        if self.timeout is not None:
            result["timeout_ms"] = int(self.timeout * 1000)
        if self.priority != 0:
            result["priority"] = self.priority
        return result


def _parameters(function: Callable[..., Any], what: str, offered: List[str]) -> Tuple[str, ...]:
    """The names, among those offered, that the function's parameters ask for, in their order."""
    names = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in offered and parameter.kind in _POSITIONAL:
            names.append(parameter.name)
        elif parameter.default is inspect.Parameter.empty:
            raise TypeError(
                f"{function.__name__}() asks for {parameter}, but {what} offers {', '.join(offered)}"
                + nearest(parameter.name, offered)
            )
        else:
            break
    return tuple(names)


class Definition:
    """The declarations of one loaded plugin file."""

    def __init__(self) -> None:
        self.hooks: Dict[str, Hook] = {}
        self.settings: Dict[str, Setting[Any]] = {}
        self.policy: Dict[str, Any] = {}
        self.module: Optional[str] = None
        """The module that the file was loaded as; None for the program itself."""
        self._setup: Optional[Callable[..., Any]] = None

    def add_hook(self, hook: Hook) -> None:
        if hook.name in self.hooks:
            taken = self.hooks[hook.name].function.__name__
            raise ValueError(f'the hook "{hook.name}" has a function already: {taken}()')
        self.hooks[hook.name] = hook

    def add_setting(self, setting: Setting[Any]) -> None:
        if setting.name in self.settings:
            raise ValueError(f'the setting "{setting.name}" is declared twice')
        self.settings[setting.name] = setting

    def set_setup(self, function: Callable[..., Any]) -> None:
        if inspect.iscoroutinefunction(function):
            raise TypeError("the function of @setup is a plain one: it runs before any hook does")
        _parameters(function, "@setup", ["plugin"])
        self._setup = function

    def start(self, settings: Dict[str, Any], plugin: Any) -> List[SettingError]:
        """Take the settings and run the plugin's setup function. Returns what is wrong, all of it."""
        errors = []
        for name in settings:
            if name not in self.settings:
                errors.append(SettingError("is no setting of this plugin" + nearest(name, self.settings), name))
        for setting in self.settings.values():
            try:
                setting.load(settings)
            except SettingError as error:
                errors.append(error)
        if not errors and self._setup is not None:
            try:
                self._setup(*[plugin for _ in _parameters(self._setup, "@setup", ["plugin"])])
            except SettingError as error:
                errors.append(error)
        return errors

    def unload(self) -> None:
        """The plugin is not wanted any more: let go of its module."""
        if self.module is not None:
            sys.modules.pop(self.module, None)


_loading = threading.local()
_main = Definition()


def current() -> Definition:
    """The definition that declarations go to: of the file being loaded, or else of the program itself."""
    definition: Definition = getattr(_loading, "definition", _main)
    return definition


def main() -> Definition:
    """The definition of the program itself: of the file that was run with ``python3 plugin.py``."""
    return _main


class loading:
    """``with loading(definition):`` sends to it all that is declared meanwhile in this thread."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition

    def __enter__(self) -> None:
        self._before = getattr(_loading, "definition", None)
        _loading.definition = self._definition

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            del _loading.definition
        else:
            _loading.definition = self._before


def hook(
    *names: str,
    fields: Iterable[str] = (),
    reads: Iterable[str] = (),
    observe: bool = False,
    timeout: Optional[float] = None,
    priority: Priority = 0,
) -> Callable[[Function], Function]:
    """Have the function below called at these hooks.

    Its parameters are picked by name: ``session``, and the hook's own arguments (docs/protocol.md section 5.1), as
    many as it wants. ``fields`` are the session fields it reads, ``reads`` the names of the notes (``["*"]``: all).
    ``observe``: it only looks on, and nobody waits for it. ``timeout``, in seconds, is its deadline where the
    operator sets none. ``priority`` is its place among the plugins of the hook: a number, smaller ones are asked
    earlier, or "first" or "last"; where it is the same, the order of the configuration holds.
    """
    if not names or callable(names[0]):
        raise TypeError('write @hook("rcpt"), with the name of a hook')
    for name in names:
        if name not in HOOKS:
            raise ValueError(f'there is no hook "{name}"{nearest(name, HOOKS)}')
    if isinstance(fields, str) or isinstance(reads, str):
        raise TypeError('fields and reads are lists: fields=["remote_ip"]')
    if priority not in ("first", "last") and (isinstance(priority, bool) or not isinstance(priority, int)):
        raise ValueError(f'a priority is "first", "last" or an integer, not {priority!r}')
    fields, reads = list(fields), list(reads)
    for field in fields:
        if field not in FIELDS:
            raise ValueError(f'there is no session field "{field}"{nearest(field, FIELDS)}')

    def register(function: Function) -> Function:
        for name in names:
            current().add_hook(Hook(name, function, fields, reads, observe, timeout, priority))
        return function

    return register


def setup(function: Function) -> Function:
    """Have the function below called once, when the settings are known and before any hook.

    It may take ``plugin`` (name, args, scratch_dir ...). With ``SettingError(message, "zones", 2)`` it refuses a
    setting, and the server shows the operator the line.
    """
    current().set_setup(function)
    return function


def policy(
    *,
    reject: Any = None,
    reject_type: Optional[str] = None,
    on_error: Optional[str] = None,
    loglevel: Optional[str] = None,
    immune: Any = None,
) -> None:
    """The plugin's own defaults for the operator's settings of these names, in the words of the configuration."""
    given = {"reject": reject, "reject_type": reject_type, "on_error": on_error, "loglevel": loglevel, "immune": immune}
    current().policy = {name: value for name, value in given.items() if value is not None}
