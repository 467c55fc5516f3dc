"""How a plugin process starts: on the server's descriptors, or listening on a Unix socket."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import threading
from typing import Callable, NoReturn, Optional, Sequence

from . import channel, loader
from .channel import Channel
from .frames import FrameError
from .instances import Loader
from .worker import Worker

_FD_USAGE = """{name} is a Gatepost plugin: the server starts it. In gatepost.toml:

    [[plugin]]
    name = "{stem}"
    run = ["python3", "{path}"]

To run it yourself, listening where the server attaches to it with attach = "unix:/run/{stem}.sock":

    python3 {path} --listen unix:/run/{stem}.sock
"""

_HOST_USAGE = """python3 -m gatepost hosts Gatepost plugins, several in one process: the server starts it. In gatepost.toml:

    [[plugin]]
    name = "example"
    run = ["python3", "-m", "gatepost"]
    source = "plugins/example.py"

To run it yourself, listening where the server attaches to it with attach = "unix:/run/plugins.sock":

    python3 -m gatepost --listen unix:/run/plugins.sock
"""


def run(argv: Optional[Sequence[str]] = None) -> NoReturn:
    """Serve the plugin of this file, until the server is done with it; then exit the process.

    The last line of a plugin's file, under ``if __name__ == "__main__":``.
    """
    path = loader.program() or "plugin.py"
    name = os.path.basename(path)
    usage = _FD_USAGE.format(name=name, path=path, stem=os.path.splitext(name)[0])
    sys.exit(_start(loader.OwnFile, usage, sys.argv[1:] if argv is None else argv))


def host(argv: Sequence[str]) -> int:
    """``python3 -m gatepost``: serve the plugin files that the server names. Returns the exit code."""
    return _start(lambda: loader.by_source, _HOST_USAGE, argv)


def _start(make_loader: Callable[[], Loader], usage: str, argv: Sequence[str]) -> int:
    # The server reads standard output line by line, so that a print belongs to what printed it.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    if len(argv) == 2 and argv[0] == "--listen":
        return _listen(make_loader, argv[1])
    try:
        given = channel.take() if not argv else None
    except (ValueError, OSError) as error:
        print(f"gatepost: the channel cannot be used: {error}", file=sys.stderr)
        return 2
    if given is None:
        print(usage, end="", file=sys.stderr)
        return 2
    # Ctrl-C in the server's terminal reaches its plugins too; the server says when they are to go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _serve(given, make_loader())


def _serve(given: Channel, load: Loader) -> int:
    worker = Worker(given, load)
    if threading.current_thread() is threading.main_thread():
        # The server asks where we are (docs/protocol.md section 7.2).
        signal.signal(signal.SIGUSR2, worker.say_where)
    try:
        worker.serve()
    except FrameError as error:
        print(f"gatepost: broken frame from the server ({error.code}): {error}", file=sys.stderr)
        return 1
    except Exception as error:
        print(f"gatepost: cannot go on: {error or type(error).__name__}", file=sys.stderr)
        return 1
    finally:
        if isinstance(load, loader.OwnFile):
            load.release()
    return 0


def _listen(make_loader: Callable[[], Loader], where: str) -> int:
    scheme, _, path = where.partition(":")
    if scheme != "unix" or not path:
        print(f'gatepost: --listen takes unix:PATH, not "{where}"', file=sys.stderr)
        return 2
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(listener, path)
        listener.listen()
    except OSError as error:
        print(f"gatepost: cannot listen on {path}: {error}", file=sys.stderr)
        return 1
    print(f"gatepost: listening on {path}", file=sys.stderr, flush=True)

    def serve(connection: socket.socket) -> None:
        attached = Channel.of_socket(connection)
        try:
            _serve(attached, make_loader())
        finally:
            attached.close()

    try:
        while True:
            connection, _address = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()
    except KeyboardInterrupt:
        return 0
    finally:
        os.unlink(path)


def _bind(listener: socket.socket, path: str) -> None:
    try:
        listener.bind(path)
    except OSError:
        # A socket that nobody listens on any more is left over from a run that was killed.
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            listener.bind(path)
            return
        except OSError:
            pass
        finally:
            probe.close()
        raise
