"""Plugins for the Gatepost SMTP daemon.

    import gatepost
    from gatepost import fail

    @gatepost.hook("rcpt")
    def rcpt(session, address):
        if address.local == "nobody":
            return fail("no such user here")

    if __name__ == "__main__":
        gatepost.run()
"""

from . import channel as _channel

# Before the plugin's own code runs, which may start programs.
_channel.protect()

from .address import Address
from .calls import Answer, Call, CallError, Cancelled, Core
from .definition import hook, policy, setup
from .fields import NotSubscribed
from .main import run
from .message import Message
from .outcome import (
    Outcome,
    declined,
    defer,
    deny,
    deny_disconnect,
    denysoft,
    denysoft_disconnect,
    discard,
    done,
    error,
    fail,
    hold,
    ok,
    passed,
    quarantine,
    score,
    skip,
)
from .runner import Fatal
from .session import Session
from .settings import Duration, SettingError, Size, setting
from .turn import Plugin
from .version import VERSION as __version__

__all__ = [
    "Address",
    "Answer",
    "Call",
    "CallError",
    "Cancelled",
    "Core",
    "Duration",
    "Fatal",
    "Message",
    "NotSubscribed",
    "Outcome",
    "Plugin",
    "Session",
    "SettingError",
    "Size",
    "__version__",
    "declined",
    "defer",
    "deny",
    "deny_disconnect",
    "denysoft",
    "denysoft_disconnect",
    "discard",
    "done",
    "error",
    "fail",
    "hold",
    "hook",
    "ok",
    "passed",
    "policy",
    "quarantine",
    "run",
    "score",
    "setting",
    "setup",
    "skip",
]
