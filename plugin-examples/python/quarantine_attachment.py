"""Sets messages apart that carry an attachment of a forbidden name."""
import re
from fnmatch import fnmatchcase
from typing import BinaryIO, Iterator
from urllib.parse import unquote_to_bytes
import gatepost
from gatepost import Outcome, Session, fail, passed

NAME_IN = {b"content-disposition": b"filename", b"content-type": b"name"}
PARAMETER = re.compile(rb';\s*([^\s;=*]+)(\*?)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;]*)')

class settings:
    names = gatepost.setting(list, default=["*.exe", "*.js", "*.scr", "*.vbs"], help="names to quarantine, with * and ?")

def header_fields(file: BinaryIO) -> Iterator[bytes]:
    field, in_header = b"", True
    for line in (line.rstrip(b"\r\n") for line in file):
        if in_header and line[:1] in (b" ", b"\t"):
            field += line
        else:
            yield field
            in_header = line.startswith(b"--") or (in_header and line != b"")
            field = line if in_header else b""
    yield field

def attachment_names(file: BinaryIO) -> Iterator[str]:
    for name, _, rest in (field.partition(b":") for field in header_fields(file)):
        for key, star, value in PARAMETER.findall(rest):
            if key.lower() == NAME_IN.get(name.strip().lower()):
                value = re.sub(rb"\\(.)", rb"\1", value[1:-1]) if value[:1] == b'"' else value
                yield (unquote_to_bytes(value.split(b"'", 2)[-1]) if star else value).decode("utf-8", "replace")

@gatepost.hook("data_post", fields=["path"])
def data_post(session: Session) -> Outcome:
    with session.message.open() as file:
        for name in attachment_names(file):
            # Only * and ? are special here, so that brackets stand for themselves.
            if any(fnmatchcase(name.lower(), glob.lower().replace("[", "[[]")) for glob in settings.names):
                session.set_quarantine(f"attachment {name}")
                return fail(f"attachment {name} quarantined", verdict="declined")
    return passed("no forbidden attachment")

if __name__ == "__main__":
    gatepost.run()
