"""aiosmtpd on uvloop, as a server: drops what it gets, or adds it to a Maildir. Arguments: port, and the Maildir."""
import asyncio
import sys

import uvloop
from aiosmtpd.handlers import Mailbox, Sink
from aiosmtpd.smtp import SMTP


async def main(port, maildir=None):
    handler = Mailbox(maildir) if maildir else Sink()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, hostname="mx.example.org"), "127.0.0.1", int(port), backlog=1000)
    await server.serve_forever()


uvloop.run(main(*sys.argv[1:]))
