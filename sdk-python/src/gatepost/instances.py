"""The plugins of one channel: each as `init` has it started, and other instances for settings in force (docs/protocol.md section 4).

Another instance is the plugin's file loaded again, so that what the file keeps in its globals belongs to one set of settings.
"""

from __future__ import annotations

import itertools
import sys
import traceback
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from .definition import Definition, LoadError
from .hooks import text
from .settings import SettingError
from .turn import Hosted, Plugin

if TYPE_CHECKING:
    from .worker import Worker

Map = Dict[str, Any]
Loader = Callable[[Map], Definition]

# How many other instances of a plugin are kept. The one that was not asked for longest goes, and is loaded again when it is wanted.
_OTHERS = 64

_numbers = itertools.count(1)


class Refused(Exception):
    """The plugin refused its settings, or could not be loaded. ``errors`` are those of `init_error`."""

    def __init__(self, errors: List[Map]) -> None:
        super().__init__("; ".join(_sentence(error) for error in errors))
        self.errors = errors


def _sentence(error: Map) -> str:
    path = ".".join(map(str, error.get("path") or ()))
    return f"{path}: {error['message']}" if path else str(error["message"])


class Instances:
    """Starts plugins, and keeps those that were started for settings in force. ``load`` finds the plugin for an entry of `init`."""

    def __init__(self, worker: Worker, load: Loader) -> None:
        self._worker = worker
        self._load = load
        self._init: Map = {}
        self._entries: Dict[str, Map] = {}
        # By plugin; the one that was asked last stands last.
        self._others: Dict[str, Dict[str, Tuple[Hosted, Definition]]] = {}

    def start(self, init: Map) -> Tuple[List[Tuple[Hosted, Definition]], List[Map]]:
        """The plugins of `init`, and what is wrong with the others, as in `init_error`."""
        self._init = init
        started: List[Tuple[Hosted, Definition]] = []
        errors: List[Map] = []
        for entry in init.get("plugins") or ():
            entry = texts(entry)
            name = entry["name"]
            self._entries[name] = entry
            try:
                started.append(self._start(entry, name))
            except Refused as refused:
                errors += [{"plugin": name, **error} for error in refused.errors]
        return started, errors

    def other(self, name: str, settings: Map) -> Hosted:
        """The instance of a plugin that these settings are in force for. Raises Refused where they cannot be used."""
        others = self._others.setdefault(name, {})
        key = repr(settings)
        found = others.pop(key, None)
        if found is None:
            found = self._start({**self._entries[name], "settings": texts(settings)}, f"{name} {next(_numbers)}")
            if len(others) >= _OTHERS:
                others.pop(next(iter(others)))[1].unload()
        others[key] = found
        return found[0]

    def others(self, name: str) -> List[Hosted]:
        """The other instances of a plugin that there are."""
        return [hosted for hosted, _ in self._others.get(name, {}).values()]

    def _start(self, entry: Map, key: str) -> Tuple[Hosted, Definition]:
        name = entry["name"]
        definition: Optional[Definition] = None
        try:
            definition = self._load(entry)
            plugin = Plugin(self._worker, name, entry.get("args") or [], self._init)
            problems: List[SettingError] = definition.start(entry.get("settings") or {}, plugin)
            if not problems:
                return Hosted(plugin, key, definition.hooks, self._worker.codec.encode({"plugin": name})), definition
            errors: List[Map] = [{"path": problem.path, "message": str(problem)} for problem in problems]
        except LoadError as error:
            errors = [{"message": str(error)}]
        except (Exception, SystemExit) as error:
            traceback.print_exc(file=sys.stderr)
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            errors = [{"message": f"cannot be started: {what}"}]
        if definition is not None:
            definition.unload()
        raise Refused(errors)


def texts(value: Any) -> Any:
    """``value`` with all text as str; what comes with `init` has no other bytes."""
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, list):
        return [texts(item) for item in value]
    if isinstance(value, dict):
        return {key: texts(item) for key, item in value.items()}
    return value
