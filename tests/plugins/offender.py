"""Does at `rcpt` what the recipient's name says, to come up against the limits that an operator set."""
import os
import signal
import socket
import tempfile

import gatepost


def memory():
    return f"{len(bytearray(1 << 30))} bytes"


def files():
    kept = []
    while len(kept) < 200:
        kept.append(open(os.devnull))
    return "as many as it liked"


def fork():
    children = []
    try:
        while len(children) < 200:
            child = os.fork()
            if not child:
                signal.pause()
            children.append(child)
        return "as many as it liked"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def spin():
    while True:
        pass


def connect():
    socket.create_connection(("127.0.0.1", int(os.environ["PORT"]))).close()
    return "connected"


def write():
    with tempfile.TemporaryFile() as inside:
        inside.write(b"x")
    with open(os.path.join(os.environ["OUTSIDE"], "open"), "w") as file:
        file.write("x")
    return "inside, and outside"


def cut():
    os.truncate(os.path.join(os.environ["OUTSIDE"], "there"), 0)
    return "to nothing"


def allowed():
    with open(os.path.join(os.environ["ALLOWED"], "file"), "w") as file:
        file.write("x")
    return "written"


def who():
    with open("/proc/self/status") as status:
        no_new_privs = [line.split()[1] for line in status if line.startswith("NoNewPrivs:")]
    known = f"{os.getuid()} {os.getgid()} {os.getgroups()} no_new_privs {no_new_privs[0]}"
    try:
        os.setuid(0)
        return known + ", can be root"
    except PermissionError:
        return known + ", cannot be root"


@gatepost.hook("rcpt")
def rcpt(address):
    deed = globals().get(address.local)
    if deed is None:
        return gatepost.skip("nothing to do")
    return gatepost.passed(f"{address.local}: {deed()}")


gatepost.run()
