"""Loads plugin files, each as a module of its own, as often as it is named."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import itertools
import os
import re
import sys
import threading
from types import CodeType
from typing import Any, Dict, Iterable, Optional

from . import definition
from .definition import Definition, LoadError

_numbers = itertools.count(1)
_lock = threading.Lock()
_claimed = False


class _FromSource(importlib.machinery.SourceFileLoader):
    """Compiles the file as it is now. Python's cache of compiled files takes a file for unchanged that has the same length and was written
    in the same second; a plugin that is being worked on is such a file."""

    def get_code(self, fullname: str) -> Optional[CodeType]:
        return self.source_to_code(self.get_data(self.path), self.path)


def load_file(path: str) -> Definition:
    """Run the plugin file at ``path`` as a new module. Raises what it raises."""
    folder = os.path.dirname(os.path.abspath(path))
    if folder not in sys.path:
        # As with `python3 plugin.py`, the modules beside it can be imported.
        sys.path.append(folder)
    stem = re.sub(r"\W", "_", os.path.splitext(os.path.basename(path))[0])
    name = f"gatepost_plugin_{next(_numbers)}_{stem}"
    if not path.endswith(".py"):
        raise LoadError(f"{path} is no Python file: its name is to end in .py")
    loader = _FromSource(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None, "a spec is made for any path that comes with its loader"
    module = importlib.util.module_from_spec(spec)
    # dataclasses and typing look a class's module up by name.
    sys.modules[name] = module
    loaded = Definition()
    loaded.module = name
    try:
        with definition.loading(loaded):
            loader.exec_module(module)
    except BaseException:
        loaded.unload()
        raise
    return loaded


def find(source: str, dirs: Iterable[str]) -> str:
    """The file that ``source`` means: a path, or a name in one of the folders, with or without ``.py``."""
    places = [os.path.join(folder, source) for folder in dirs] or [source]
    for place in places:
        for path in (place, place + ".py"):
            if os.path.isfile(path):
                return path
    raise LoadError(f'there is no plugin file "{source}"; looked for {", ".join(places)} from {os.getcwd()}')


def by_source(entry: Dict[str, Any]) -> Definition:
    """The loader of ``python3 -m gatepost``: every plugin is the file that its ``source`` names."""
    source = entry.get("source")
    if not source:
        raise LoadError('needs a source: source = "plugins/example.py"')
    return load_file(find(source, entry.get("dirs") or []))


class OwnFile:
    """The loader of ``python3 plugin.py``: every plugin is this file, under whatever name.

    The first is the program as it runs; each further one is the file loaded again, with its own settings.
    """

    def __init__(self) -> None:
        self._claims = False

    def __call__(self, entry: Dict[str, Any]) -> Definition:
        global _claimed
        with _lock:
            if not _claimed:
                _claimed = self._claims = True
                return definition.main()
        path = program()
        if path is None:
            raise LoadError("a program without a file can be one plugin only")
        return load_file(path)

    def release(self) -> None:
        """The channel has ended: another may have the program."""
        global _claimed
        with _lock:
            if self._claims:
                _claimed = self._claims = False


def program() -> Optional[str]:
    """The path of the file that was run; None if there is none."""
    path: Optional[str] = getattr(sys.modules["__main__"], "__file__", None)
    return path
